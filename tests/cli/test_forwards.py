"""`mailplat forward`, and what a running server makes of it."""

from __future__ import annotations

from twisted.internet.task import Clock

from mailplat.auth.names import Names
from mailplat.datadir import DataDirectory
from mailplat.delivery.aliases import AliasFile
from tests.cli.test_main import CommandTestCase

ALICE = "alice@example.test"


class ForwardTests(CommandTestCase):
    def setUp(self):
        super().setUp()
        for name in (ALICE, "bob@example.test"):
            self.run_command("account", "add", name, "--password-stdin", stdin="secret\n")

    def forward(self, *words, status=0):
        found, out, err = self.here("forward", *words, "--data", self.data)
        self.assertEqual(found, status, err)
        return (err if status else out).splitlines()

    def targets(self):
        file = AliasFile(DataDirectory(self.data).forwards, Names(["example.test"]), Clock().seconds)
        return [str(target) for target in file.current().targets(ALICE) or ()]

    def test_on_and_off(self):
        self.assertEqual(self.forward("alice"), [ALICE])
        self.forward("alice", "x@elsewhere.test", "bob")
        self.assertEqual(self.targets(), ["x@elsewhere.test", "bob"])
        self.assertEqual(self.forward(ALICE), ["x@elsewhere.test, bob"])
        self.forward("Alice", "x@elsewhere.test", "--keep")
        self.assertEqual(self.targets(), [ALICE, "x@elsewhere.test"])
        self.assertEqual(self.forward(), [f"{ALICE}: {ALICE}, x@elsewhere.test"])
        self.forward("alice", "--off")
        self.assertEqual(self.targets(), [])
        self.assertEqual(self.forward(), [])

    def test_mistakes(self):
        for words in (
            ("carol",),
            ("carol", "x@elsewhere.test"),
            ("alice", "x y"),
            ("alice", "x@elsewhere.test", "--off"),
            ("alice", "--keep", "--off"),
        ):
            (line,) = self.forward(*words, status=1)
            self.assertTrue(line.startswith("mailplat: "))
        self.assertEqual(self.targets(), [])

    def test_gone_with_the_account(self):
        self.forward("alice", "x@elsewhere.test")
        self.run_command("account", "remove", "alice")
        self.assertEqual(self.targets(), [])
