"""The account file: what it keeps, and what is never lost."""

from __future__ import annotations

import os
import subprocess
import sys
from tempfile import TemporaryDirectory
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from mailplat import sasl
from mailplat.auth.accounts import MOST_PASSWORD, AccountFile
from mailplat.auth.names import Names
from mailplat.errors import (
    AccountExists,
    ConfigurationError,
    DataDirectoryError,
    InvalidName,
    InvalidPassword,
    NoSuchAccount,
    StorageFull,
)

ROUNDS = 2


def proves(accounts: AccountFile, name: str, password: str) -> bool:
    accounts.refresh()
    record = accounts.record(name)
    assert record is not None
    return sasl.proves(sasl.salted_password(password.encode(), record.salt, record.iterations), record)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.path = os.path.join(directory.name, "accounts")
        self.accounts = self.open()

    def open(self, *domains: str) -> AccountFile:
        return AccountFile(self.path, Names(domains or ["example.test"]), iterations=ROUNDS)

    def content(self) -> str:
        with open(self.path, encoding="utf-8") as file:
            return file.read()


class Changing(Case):
    def test_nothing_yet(self) -> None:
        self.assertEqual(self.accounts.names(), [])
        self.assertFalse(self.accounts.stale())
        self.assertIsNone(self.accounts.record("alice@example.test"))
        self.assertEqual(os.listdir(self.directory), [])

    def test_add(self) -> None:
        self.assertEqual(self.accounts.add("Alice", "secret"), "alice@example.test")
        self.accounts.add("bob@other.test", "pa:ss wörd")
        self.assertEqual(self.open().names(), ["alice@example.test", "bob@other.test"])
        self.assertTrue(proves(self.accounts, "alice@example.test", "secret"))
        self.assertFalse(proves(self.accounts, "alice@example.test", "Secret"))
        self.assertTrue(proves(self.accounts, "bob@other.test", "pa:ss wörd"))

    def test_exists(self) -> None:
        self.accounts.add("alice", "secret")
        self.assertRaises(AccountExists, self.accounts.add, "ALICE@example.test", "other")
        self.assertTrue(proves(self.accounts, "alice@example.test", "secret"))

    def test_set_password(self) -> None:
        self.accounts.add("alice", "old")
        self.accounts.set_password("alice", "new")
        self.assertTrue(proves(self.accounts, "alice@example.test", "new"))
        self.assertFalse(proves(self.accounts, "alice@example.test", "old"))

    def test_remove(self) -> None:
        self.accounts.add("alice", "secret")
        self.accounts.add("bob", "secret")
        self.accounts.remove("alice")
        self.assertEqual(self.accounts.names(), ["bob@example.test"])

    def test_no_such(self) -> None:
        self.assertRaises(NoSuchAccount, self.accounts.remove, "alice")
        self.assertRaises(NoSuchAccount, self.accounts.remove, "not/a/name")
        self.assertRaises(NoSuchAccount, self.accounts.set_password, "alice", "secret")

    def test_names_and_passwords_that_cannot_be(self) -> None:
        for name in ("", "a/b", "a:b", "a\nb", "a b"):
            self.assertRaises(InvalidName, self.accounts.add, name, "secret")
        for password in ("", "a\nb", "a\0b", "p" * (MOST_PASSWORD + 1), "\u00ad"):
            self.assertRaises(InvalidPassword, self.accounts.add, "alice", password)
        self.assertFalse(os.path.exists(self.path))

    def test_several_domains_need_the_whole_name(self) -> None:
        self.assertRaises(InvalidName, self.open("a.test", "b.test").add, "alice", "secret")

    def test_nothing_to_read_for_others(self) -> None:
        mask = os.umask(0)
        try:
            self.accounts.add("alice", "secret")
        finally:
            os.umask(mask)
        for name in os.listdir(self.directory):
            self.assertEqual(os.stat(os.path.join(self.directory, name)).st_mode & 0o777, 0o600)
        self.assertNotIn("secret", self.content())

    def test_no_salt_twice(self) -> None:
        self.accounts.import_lines([f"user{number}:secret" for number in range(10)])
        self.assertEqual(len({line.split(":")[2] for line in self.content().split("\n")[1:-1]}), 10)

    def test_the_usual_rounds(self) -> None:
        """Enough to be worth something, also after somebody tidied up."""
        self.assertGreaterEqual(AccountFile(self.path)._iterations, 100_000)


class Importing(Case):
    def test_lines(self) -> None:
        added = self.accounts.import_lines(["bob:se:cret\n", "\n", "Alice@example.test:two words\r\n"])
        self.assertEqual(added, ["bob@example.test", "alice@example.test"])
        self.assertTrue(proves(self.accounts, "bob@example.test", "se:cret"))
        self.assertTrue(proves(self.accounts, "alice@example.test", "two words"))

    def test_all_or_none(self) -> None:
        self.accounts.add("carol", "secret")
        before = self.content()
        lines = ["alice:one", "no password", "a/b:two", "bob:", "ALICE:three", "carol:four", "dave:five"]
        error = self.assertRaises(ConfigurationError, self.accounts.import_lines, lines)
        told = error.text.split("\n")
        self.assertEqual([line.partition(":")[0] for line in told], [f"line {n}" for n in (2, 3, 4, 5, 6)])
        for password in ("one", "two", "three", "four", "five"):
            self.assertNotIn(password, error.text)
        self.assertEqual(self.content(), before)

    def test_nothing(self) -> None:
        self.assertEqual(self.accounts.import_lines(["", "\n"]), [])


class Noticing(Case):
    def test_another_process(self) -> None:
        self.accounts.add("alice", "old")
        self.accounts.refresh()
        self.assertFalse(self.accounts.stale())
        program = (
            "import sys; from mailplat.auth.accounts import AccountFile;"
            "AccountFile(sys.argv[1], iterations=2).set_password('alice@example.test', 'new')"
        )
        subprocess.run([sys.executable, "-c", program, self.path], check=True, timeout=60)
        self.assertTrue(self.accounts.stale())
        self.assertTrue(proves(self.accounts, "alice@example.test", "new"))

    def test_every_change_within_a_tick(self) -> None:
        """Even where inode, size and the file system's clock are the same."""
        self.accounts.add("alice", "0")
        seen = set()
        for number in range(50):
            self.accounts.set_password("alice", str(number))
            found = os.stat(self.path)
            seen.add(found.st_mtime_ns)
        self.assertEqual(len(seen), 50)

    def test_removed_file(self) -> None:
        self.accounts.add("alice", "secret")
        self.accounts.refresh()
        os.remove(self.path)
        self.assertTrue(self.accounts.stale())
        self.accounts.refresh()
        self.assertIsNone(self.accounts.record("alice@example.test"))

    def test_bad_file_keeps_what_was(self) -> None:
        self.accounts.add("alice", "secret")
        self.accounts.refresh()
        good = self.content()
        for bad in ("", "something else\n", good.replace(":1:", ":2:"), good + "no record\n", good + "a:b\n"):
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(bad)
            os.utime(self.path, ns=(1, os.stat(self.path).st_mtime_ns + 1))
            self.accounts.refresh()
            self.assertTrue(sasl.proves(sasl.salted_password(b"secret", *self.salt()), self.alice()))
            self.assertFalse(self.accounts.stale())
            self.assertRaises(DataDirectoryError, self.accounts.names)
            self.assertRaises(DataDirectoryError, self.accounts.add, "bob", "secret")

    def alice(self) -> sasl.ScramRecord:
        record = self.accounts.record("alice@example.test")
        assert record is not None
        return record

    def salt(self) -> tuple[bytes, int]:
        return self.alice().salt, self.alice().iterations

    def test_a_record_nobody_can_read(self) -> None:
        self.accounts.add("alice", "secret")
        good = self.content()
        for damage in (("$2:", "$x:"), ("$2:", "$0:"), ("$2:", "$99999999999:"), ("$2:", "$")):
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(good.replace(*damage))
            accounts = self.open()
            accounts.refresh()
            self.assertIsNone(accounts.record("alice@example.test"))

    def test_full_disk(self) -> None:
        self.accounts.add("alice", "secret")
        before = self.content()
        with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")):
            self.assertRaises(StorageFull, self.accounts.add, "bob", "secret")
            self.assertRaises(StorageFull, self.accounts.remove, "alice")
        self.assertEqual(self.content(), before)
        self.accounts.add("bob", "secret")

    def test_killed_while_writing(self) -> None:
        """What it left behind is in nobody's way."""
        self.accounts.add("alice", "secret")
        with open(self.path + ".new", "w") as file:
            file.write("half of a f")
        self.accounts.add("bob", "secret")
        self.assertEqual(self.accounts.names(), ["alice@example.test", "bob@example.test"])

    def test_together(self) -> None:
        """Several processes at once, and no change is lost."""
        program = (
            "import sys; from mailplat.auth.accounts import AccountFile\n"
            "f = AccountFile(sys.argv[1], iterations=1)\n"
            "for n in range(10): f.add(f'{sys.argv[2]}{n}@example.test', 'secret')"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", program, self.path, name]) for name in ("a", "b", "c")
        ]
        for process in processes:
            self.assertEqual(process.wait(60), 0)
        self.assertEqual(len(self.accounts.names()), 30)


class Invented(Case):
    def test_stable(self) -> None:
        self.accounts.add("alice", "secret")
        self.accounts.refresh()
        other = self.open()
        other.refresh()
        self.assertEqual(self.accounts.invented(b"bob"), other.invented(b"bob"))
        self.accounts.add("carol", "secret")
        self.accounts.refresh()
        self.assertEqual(self.accounts.invented(b"bob"), other.invented(b"bob"))

    def test_looks_real(self) -> None:
        self.accounts.add("alice", "secret")
        self.accounts.refresh()
        real, invented = self.accounts.record("alice@example.test"), self.accounts.invented(b"bob")
        assert real is not None
        for part in ("salt", "stored_key", "server_key"):
            self.assertEqual(len(getattr(real, part)), len(getattr(invented, part)))
        self.assertEqual(real.iterations, invented.iterations)
        self.assertEqual((real.known, invented.known), (True, False))

    def test_everybody_has_another(self) -> None:
        self.assertNotEqual(self.accounts.invented(b"bob").salt, self.accounts.invented(b"bot").salt)
        self.assertNotEqual(
            AccountFile(self.path).invented(b"bob").salt, AccountFile(self.path + "2").invented(b"bob").salt
        )


class Model(RuleBasedStateMachine):
    """Whatever is done to it, by whichever of two, it is what a dictionary would be."""

    names = st.sampled_from(["alice", "bob", "Carol", "dävid", "e+f"])
    passwords = st.sampled_from(["one", "two", "thrée", ":", " "])
    hands = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        path = os.path.join(self.directory.name, "accounts")
        self.files = [AccountFile(path, Names(["example.test"]), iterations=1) for _ in range(2)]
        self.known: dict[str, str] = {}

    def teardown(self) -> None:
        self.directory.cleanup()

    @staticmethod
    def full(name: str) -> str:
        return name.lower() + "@example.test"

    @rule(hand=hands, name=names, password=passwords)
    def add(self, hand: int, name: str, password: str) -> None:
        try:
            self.files[hand].add(name, password)
        except AccountExists:
            assert self.full(name) in self.known
        else:
            assert self.full(name) not in self.known
            self.known[self.full(name)] = password

    @rule(hand=hands, name=names, password=passwords)
    def set_password(self, hand: int, name: str, password: str) -> None:
        try:
            self.files[hand].set_password(name, password)
        except NoSuchAccount:
            assert self.full(name) not in self.known
        else:
            assert self.full(name) in self.known
            self.known[self.full(name)] = password

    @precondition(lambda self: self.known)
    @rule(hand=hands, name=names)
    def remove(self, hand: int, name: str) -> None:
        try:
            self.files[hand].remove(name)
        except NoSuchAccount:
            assert self.full(name) not in self.known
        else:
            del self.known[self.full(name)]

    @rule(hand=hands, wanted=st.dictionaries(names, passwords, max_size=3))
    def import_lines(self, hand: int, wanted: dict[str, str]) -> None:
        try:
            self.files[hand].import_lines(f"{name}:{password}" for name, password in wanted.items())
        except ConfigurationError:
            assert any(self.full(name) in self.known for name in wanted)
        else:
            self.known.update({self.full(name): password for name, password in wanted.items()})

    @invariant()
    def the_same(self) -> None:
        for accounts in self.files:
            assert accounts.names() == sorted(self.known)
            for name, password in self.known.items():
                assert proves(accounts, name, password)


AnyChanges = Model.TestCase
AnyChanges.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
