"""Whatever a peer can send has a limit with a name, a default and a test: here is who has none."""

import re
from dataclasses import MISSING, fields
from pathlib import Path
from unittest import TestCase

from mailplat.delivery.pipe import PipeLimits
from mailplat.message.structure import StructureLimits
from mailplat.settings import LIMITS
from mailplat.transcripts import TranscriptLimits

TESTS = Path(__file__).parent
ROOT = TESTS.parent

#: All tables: those of the configuration, and those that a plugin's words or a developer may set.
TABLES = {**LIMITS, "pipe": PipeLimits, "structure": StructureLimits, "transcripts": TranscriptLimits}

#: Where their tests are.
WHERE = {
    "connections": ("test_connection.py",),
    "logins": ("auth",),
    "smtp": ("smtp", "dialogues/smtp"),
    "imap": ("imap", "dialogues/imap"),
    "pop3": ("pop3", "dialogues/pop3"),
    "intake": ("delivery",),
    "routing": ("delivery",),
    "rates": ("delivery",),
    "schedule": ("delivery",),
    "queue": ("delivery",),
    "relay": ("delivery",),
    "client": ("smtp", "dialogues/smtp_client", "delivery"),
    "dns": ("test_dns.py",),
    "reports": ("delivery",),
    "pipe": ("delivery",),
    "structure": ("message",),
    "transcripts": ("test_transcripts.py",),
}


def texts(places):
    for place in places:
        path = TESTS / place
        for file in [path] if path.is_file() else sorted(path.glob("*.*")):
            if file.suffix in (".py", ".txt"):
                yield file.read_text("utf-8")


class LimitTests(TestCase):
    def test_every_table_is_known(self):
        found = {
            (".".join(path.relative_to(ROOT).with_suffix("").parts), name)
            for path in (ROOT / "mailplat").rglob("*.py")
            for name in re.findall(r"(?m)^class (\w*Limits)\b", path.read_text("utf-8"))
        }
        known = {(table.__module__, table.__name__) for table in TABLES.values()}
        self.assertEqual(found - known, set())

    def test_every_limit_has_a_default_and_is_set_by_a_test(self):
        self.assertEqual(WHERE.keys(), TABLES.keys())
        untested = []
        for name in WHERE:
            table = TABLES[name]
            text = "\n".join(texts(WHERE[name]))
            for field in fields(table):
                self.assertIsNot(field.default, MISSING, f"{name}.{field.name}")
                # Set by name in a test or a dialogue.
                if not re.search(rf"@ limit {field.name} |\b{field.name}=|\"{field.name}\": ", text):
                    untested.append(f"{name}.{field.name}")
        self.assertEqual(untested, [])
