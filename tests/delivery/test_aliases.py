"""Aliases: what may be said, and files that change under a running server."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailplat.delivery.aliases import AgentNamed, Aliases, AliasFile, parse, split_address
from mailplat.errors import ConfigurationError
from mailplat.values import Address
from tests.delivery.house import names


class ParseTests(SynchronousTestCase):
    def test_good(self):
        table, mistakes = parse(
            "# a comment\n"
            "postmaster: alice\n"
            "team:alice,  bob ,\n"
            "\n"
            "   carol@elsewhere.test # and so on\n"
            "@example.test :\talice\n"
        )
        self.assertEqual(mistakes, [])
        self.assertEqual(
            table,
            {
                "postmaster": (2, ["alice"]),
                "team": (3, ["alice", "bob", "carol@elsewhere.test"]),
                "@example.test": (6, ["alice"]),
            },
        )

    def test_mistakes(self):
        _, mistakes = parse("  x\nno colon\n  x\n: y\na: b\na: c\n")
        self.assertEqual(
            mistakes,
            [
                "line 1: nothing to continue",
                "line 2: NAME: TARGET, ... expected",
                "line 3: nothing to continue",
                "line 4: NAME: TARGET, ... expected",
                "line 6: a was given in line 5 already",
            ],
        )


class AliasesTests(SynchronousTestCase):
    def test_targets(self):
        aliases = Aliases(
            names(),
            {"Team": ["a", "agent:x"], "sales@EXAMPLE.test": ["b@far.test"], "@example.test": ["c"]},
        )
        self.assertEqual(aliases.targets("team@example.test"), (Address("a", ""), AgentNamed("x")))
        self.assertEqual(aliases.targets("sales@example.test"), (Address("b", "far.test"),))
        self.assertIsNone(aliases.targets("nobody@example.test"))
        self.assertEqual(aliases.catch_all("example.test"), (Address("c", ""),))
        self.assertIsNone(aliases.catch_all("far.test"))
        self.assertEqual(len(aliases), 3)

    def test_mistakes(self):
        error = self.assertRaises(
            ConfigurationError,
            Aliases,
            names(),
            {"@far.test": ["a"], "b": [], "c": ["agent:"], "d e": ["a"], 'f"@example.test': ["a"]},
        )
        self.assertEqual(len(error.text.splitlines()), 5)


class FileTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = os.path.join(scratch.name, "aliases")
        self.waiting = []

    def write(self, text):
        # As an editor does: another file takes the name.
        with open(f"{self.path}.new", "w") as stream:
            stream.write(text)
        os.replace(f"{self.path}.new", self.path)

    def open(self, **arguments):
        return AliasFile(self.path, names(), self.clock.seconds, **arguments)

    def targets(self, file, name="team@example.test"):
        return [str(target) for target in file.current().targets(name) or ()]

    def test_no_file(self):
        file = self.open()
        self.assertEqual(self.targets(file), [])
        self.write("team: alice")
        self.assertEqual(self.targets(file), [])
        self.clock.advance(1)
        self.assertEqual(self.targets(file), ["alice"])

    def test_changed_and_gone(self):
        self.write("team: alice")
        file = self.open()
        self.assertEqual(self.targets(file), ["alice"])
        self.write("team: alice, bob")
        self.clock.advance(1)
        self.assertEqual(self.targets(file), ["alice", "bob"])
        os.unlink(self.path)
        self.clock.advance(1)
        self.assertEqual(self.targets(file), [])

    def test_mistakes_at_the_start(self):
        self.write("x\nteam:\n@far.test: alice\n")
        error = self.assertRaises(ConfigurationError, self.open)
        self.assertEqual(
            error.text.splitlines(),
            [
                f"{self.path}: line 1: NAME: TARGET, ... expected",
                f"{self.path}: line 2: 'team' has no targets",
                f"{self.path}: line 3: far.test is not a domain of this server",
            ],
        )

    def test_mistakes_later(self):
        self.write("team: alice")
        file = self.open()
        for text in ("team", "team: x y"):
            self.write(text)
            self.clock.advance(1)
            self.assertEqual(self.targets(file), ["alice"])
        self.write("team: bob")
        self.clock.advance(1)
        self.assertEqual(self.targets(file), ["bob"])

    def test_not_text(self):
        with open(self.path, "wb") as stream:
            stream.write(b"team: \xff")
        self.assertRaises(ConfigurationError, self.open)

    def test_a_long_file_is_read_elsewhere(self):
        def in_thread(function):
            waiting = Deferred()
            self.waiting.append(lambda: waiting.callback(function()))
            return waiting

        self.write("team: alice")
        file = self.open(in_thread=in_thread)
        self.write("team: bob")
        self.clock.advance(1)
        self.assertEqual(self.targets(file), ["alice"])
        self.clock.advance(1)
        self.assertEqual(self.targets(file), ["alice"])
        (done,) = self.waiting
        done()
        self.assertEqual(self.targets(file), ["bob"])

    def test_a_clock_that_goes_back(self):
        file = self.open()
        self.clock.rightNow = -1000
        self.write("team: alice")
        self.assertEqual(self.targets(file), ["alice"])


class SplitAddressTests(SynchronousTestCase):
    def test_good(self):
        self.assertEqual(split_address("a@B.test"), Address("a", "b.test"))
        self.assertEqual(split_address("a"), Address("a", ""))
        self.assertEqual(split_address("a@b@c.test"), Address("a@b", "c.test"))

    def test_bad(self):
        for text in ("", "@", "a@", "@b", "a b", "a\r\n@b", "a@b\x00"):
            self.assertRaises(ValueError, split_address, text)
