"""
Who imports whom: the floors of the house, as a table and one walk over the sources.

An import goes down, or stays on its floor where the table says so.  Imports inside
functions and under TYPE_CHECKING count like all others.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PACKAGE = "mailplat"

#: Module (a pattern, without "mailplat.") -> floor.  The first that matches holds.
FLOORS = (
    ("errors", 1), ("values", 1), ("uids", 1),
    ("message.*", 2), ("interfaces", 2), ("wire", 2),
    ("sasl", 3), ("dns", 3), ("logs", 3),
    ("storage.*", 4), ("auth.*", 4), ("policy.*", 4), ("compat", 4),
    ("plugins", 4), ("tls", 4), ("trust", 4), ("connection", 4), ("dialing", 4),
    ("smtp.*", 5), ("imap.*", 5), ("pop3.*", 5), ("sieve.*", 5), ("jmap.*", 5),
    ("delivery.*", 6),
    ("service", 7), ("config", 7), ("settings", 7), ("listening", 7), ("datadir", 7),
    ("transcripts", 7),
    ("tap", 8), ("cli.*", 8),
    ("testing.*", 9),
)  # fmt: skip

#: Rooms of equal floor that may not see one another; each list is a set of strangers.
STRANGERS = (
    ("smtp.*", "imap.*", "pop3.*", "sieve.*", "jmap.*"),
    ("storage.*", "auth.*", "policy.*"),
)

#: Importer, imported: never, on whatever floor.
NEVER = (
    # A session sees its wire, its portal and the interfaces.
    *(
        ("*.session", concrete)
        for concrete in ("storage.*", "delivery.*", "policy.*", "connection", "auth.realm", "auth.accounts",
                         "auth.checkers", "auth.portal", "plugins", "tls")
    ),
    ("interfaces", "message.*"),
    # Delivery sees protocols by the roads below only.
    *(("delivery.*", protocol) for protocol in ("smtp.*", "imap.*", "pop3.*", "sieve.*", "jmap.*")),
    # What sends mail is given its connection.
    *((sender, concrete) for sender in ("smtp.sending", "smtp.conversation", "smtp.outgoing")
      for concrete in ("connection", "dialing", "tls", "trust")),
    ("smtp.session", "smtp.server"), ("imap.session", "imap.server"), ("pop3.session", "pop3.server"),
    ("*.engine", "*.session"), ("*.engine", "*.view"), ("*.engine", "connection"),
    ("*.grammar", "*.engine"), ("*.framing", "*.engine"), ("*.commands", "*.engine"),
)  # fmt: skip

#: Allowed although a rule above says no.
ROADS = (
    ("delivery.relay", "smtp.client"),
    ("delivery.local", "sieve.run"),
    # The factories that the plugin system finds; they load their store when asked for it.
    ("plugins", "storage.*"),
    # Settings are made of the parts' limits.
    ("settings", "*.server"), ("settings", "delivery.intake"),
)  # fmt: skip

#: Rooms that know no Twisted.
PURE = (
    "errors", "values", "uids", "wire", "sasl", "message.*", "*.grammar", "*.framing", "*.commands",
    "*.responses", "*.replies", "*.parsing", "*.limits", "*.engine", "smtp.data", "smtp.client_engine",
    "smtp.extensions",
)  # fmt: skip

#: All of mailplat that puts concrete parts together.
ROOTS = ("service", "cli.*", "tap", "testing.*")

#: Concrete parts, which only the roots (and rooms of their own) import.
CONCRETE = ("storage.memory", "storage.sqlite", "storage.spool", "*.server", "delivery.intake", "auth.portal")

#: Where the process's own reactor may be asked for, inside a function.
OWN_REACTOR = ("tap", "cli.*", "testing.*")


def matches(module: str, *patterns: str) -> bool:
    return any(fnmatchcase(module, pattern) or f"{module}.*" == pattern for pattern in patterns)


def floor(module: str) -> int:
    for pattern, number in FLOORS:
        if matches(module, pattern):
            return number
    raise AssertionError(f"{module} has no floor: give it one in FLOORS")


def room(module: str) -> str:
    return module.partition(".")[0]


@cache
def trees() -> dict[str, ast.Module]:
    """Module name without "mailplat." -> its source, read."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text("utf-8"), str(path))
    found.pop("__init__", None)
    return found


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported; `from a import b` is both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(tree: ast.AST) -> set[str]:
    """The modules of mailplat among the imports."""
    found = (name.removeprefix(f"{PACKAGE}.") for name in imports(tree) if name.startswith(f"{PACKAGE}."))
    return {name for name in found if name in trees()}


def broken_rule(importer: str, imported: str) -> str | None:
    """Which rule forbids the import, if any."""
    if importer == imported or any(
        matches(importer, one) and matches(imported, other) for one, other in ROADS
    ):
        return None
    if floor(imported) > floor(importer):
        return f"{imported} is on a higher floor"
    if room(importer) != room(imported) and any(
        matches(importer, *strangers) and matches(imported, *strangers) for strangers in STRANGERS
    ):
        return f"{importer} and {imported} are strangers"
    if any(matches(importer, one) and matches(imported, other) for one, other in NEVER):
        return "never"
    if matches(imported, *CONCRETE) and not matches(importer, *ROOTS) and room(importer) != room(imported):
        return "only the roots put concrete parts together"
    return None


class Architecture(SynchronousTestCase):
    def test_floors(self) -> None:
        wrong = [
            f"{importer} imports {imported}: {rule}"
            for importer, tree in trees().items()
            for imported in sorted(ours(tree))
            if (rule := broken_rule(importer, imported))
        ]
        self.assertEqual(wrong, [])

    def test_the_page_about_the_floors(self) -> None:
        """docs/journeys.rst shows each room on its floor."""
        page = (ROOT / "docs" / "journeys.rst").read_text("utf-8")
        shown = {
            name.rstrip("/"): int(number)
            for number, names in re.findall(r"(?m)^    (\d)  (.+)$", page)
            for name in names.split()
        }
        self.assertEqual(shown, {room(module): floor(module) for module in trees()})

    def test_pure_rooms_know_no_twisted(self) -> None:
        wrong = [
            f"{module} imports {name}"
            for module, tree in trees().items()
            if matches(module, *PURE)
            for name in imports(tree)
            if name.partition(".")[0] in ("twisted", "OpenSSL", "zope")
        ]
        self.assertEqual(wrong, [])

    def test_interfaces_stand_on_words_and_zope(self) -> None:
        wrong = [
            name
            for name in imports(trees()["interfaces"])
            if name.partition(".")[0] in ("twisted", "OpenSSL")
        ]
        self.assertEqual(wrong, [])

    def test_pure_rooms_import_pure_rooms(self) -> None:
        """A room is not pure if it comes by Twisted at second hand."""
        wrong = [
            f"{module} imports {name}"
            for module, tree in trees().items()
            if matches(module, *PURE)
            for name in ours(tree)
            if not matches(name, *PURE, "message") and name != room(name)
        ]
        self.assertEqual(wrong, [])

    def test_no_global_reactor(self) -> None:
        wrong = []
        for module, tree in trees().items():
            everywhere = set(imports(tree))
            at_import = {name for node in tree.body for name in imports(node) if not is_function(node)}
            if "twisted.internet.reactor" in everywhere and not matches(module, *OWN_REACTOR):
                wrong.append(f"{module} asks for the process's reactor")
            if "twisted.internet.reactor" in at_import:
                wrong.append(f"{module} installs a reactor when it is imported")
        self.assertEqual(wrong, [])

    def test_nothing_imports_the_tests(self) -> None:
        wrong = [
            f"{module} imports {name}"
            for module, tree in trees().items()
            if not matches(module, "testing.*")
            for name in imports(tree)
            if name.startswith(("mailplat.testing", "tests", "hypothesis", "pytest", "twisted.trial"))
        ]
        self.assertEqual(wrong, [])

    def test_no_module_state(self) -> None:
        """Two servers live in one process: no module has a variable that functions assign to."""
        wrong = [
            f"{module}:{node.lineno}"
            for module, tree in trees().items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Global)
        ]
        self.assertEqual(wrong, [])

    def test_no_repeated_group_is_possessive(self) -> None:
        """
        Python before 3.11.5, such as Debian 12's, does not go back to where the last round of (?:...)*+
        began to fail (its issue 106052); (?>(?:...)*) says the same, and works.
        """
        possessive = re.compile(r"\)(?:[*+?]|\{[\d,]*\})\+")
        self.assertTrue(possessive.search("(?:a b)*+") and possessive.search("(a){1,2}+"))
        wrong = [
            f"{module}:{node.lineno}"
            for module, tree in trees().items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str | bytes)
            and possessive.search(
                node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            )
        ]
        self.assertEqual(wrong, [])

    def test_each_file_says_what_it_is(self) -> None:
        self.assertEqual([module for module, tree in trees().items() if not ast.get_docstring(tree)], [])


def is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


class TheWalkItself(SynchronousTestCase):
    """It would notice."""

    def test_rules(self) -> None:
        for importer, imported, allowed in (
            ("imap.session", "imap.engine", True),
            ("imap.session", "interfaces", True),
            ("imap.session", "auth.login", True),
            ("imap.session", "auth.realm", False),
            ("imap.session", "storage.memory", False),
            ("imap.session", "connection", False),
            ("imap.view", "smtp.engine", False),
            ("storage.sqlite", "imap.engine", False),
            ("storage.sqlite", "delivery.local", False),
            ("storage.sqlite", "auth.names", False),
            ("values", "interfaces", False),
            ("delivery.local", "smtp.client", False),
            ("delivery.relay", "smtp.client", True),
            ("delivery.local", "storage.memory", False),
            ("service", "storage.spool", True),
            ("tap", "service", True),
            ("service", "tap", False),
            ("service", "testing.fakes", False),
        ):
            self.assertEqual(broken_rule(importer, imported) is None, allowed, (importer, imported))

    def test_imports_are_seen(self) -> None:
        tree = ast.parse("import a.b\ndef f():\n    from mailplat.imap import engine\n")
        self.assertEqual(set(imports(tree)), {"a.b", "mailplat.imap", "mailplat.imap.engine"})

    def test_the_sources_are_found(self) -> None:
        self.assertLessEqual({"errors", "imap.view", "storage.memory", "testing.stores"}, set(trees()))
