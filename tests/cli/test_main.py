"""
The `mailplat` command: in this process where no store is touched, otherwise as it is installed.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mailplat.auth.accounts import AccountFile
from mailplat.cli import accounts
from mailplat.cli.main import main
from mailplat.datadir import DataDirectory


class Terminal(io.StringIO):
    """Standard input with somebody at it."""

    def isatty(self):
        return True


class CommandTestCase(SynchronousTestCase):
    def setUp(self):
        parent = tempfile.mkdtemp(prefix="mailplat-")
        self.addCleanup(shutil.rmtree, parent)
        self.data = os.path.join(parent, "data")

    def here(self, *words, stdin=None):
        """(status, standard output, standard error) of a command run in this process."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), mock.patch("sys.stdin", stdin or io.StringIO()):
            try:
                status = main(words)
            except SystemExit as end:
                status = end.code
        return status, out.getvalue(), err.getvalue()

    def run_command(self, *words, stdin="", status=0):
        """Standard output, or the lines of standard error for another status than 0."""
        result = subprocess.run(
            [sys.executable, "-m", "mailplat.cli.main", *words, "--data", self.data],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result.stderr.splitlines() if status else result.stdout

    def file(self):
        return AccountFile(os.path.join(self.data, "accounts"), iterations=1000)

    def has(self, name, password="secret"):
        """An account that has a login, made quickly."""
        DataDirectory(self.data).prepare()
        self.file().add(name, password)


class AccountTests(CommandTestCase):
    def test_a_life(self):
        self.assertEqual(
            self.run_command(
                "account", "add", "Alice@Example.test", "--password-stdin", stdin="secret\nmore\n"
            ),
            "alice@example.test\n",
        )
        self.assertEqual(stat.S_IMODE(os.stat(self.data).st_mode), 0o700)
        self.run_command("account", "add", "bob", "--password-stdin", stdin="secret\n")
        self.assertEqual(self.run_command("account", "list"), "alice@example.test\nbob@example.test\n")
        before = self.file()
        before.refresh()
        self.run_command("account", "password", "bob", "--password-stdin", stdin="other\n")
        after = self.file()
        after.refresh()
        self.assertNotEqual(after.record("bob@example.test"), before.record("bob@example.test"))
        self.assertEqual(after.record("alice@example.test"), before.record("alice@example.test"))
        # A script is not asked: it says these words and no others.
        self.run_command("account", "remove", "bob")
        self.assertEqual(self.run_command("account", "list"), "alice@example.test\n")
        self.run_command("account", "remove", "alice", "--keep-mail")
        self.assertIn("alice@example.test  (has mail", self.run_command("account", "list"))

    def test_import(self):
        path = os.path.join(os.path.dirname(self.data), "people")
        with open(path, "w") as file:
            file.write("".join(f"user{n}@example.test:pass:{n}\n" for n in range(100)) + "\n")
        self.assertEqual(self.run_command("account", "import", path), "100 accounts made\n")
        self.assertEqual(len(self.run_command("account", "list").splitlines()), 100)
        self.assertEqual(
            self.run_command("account", "import", "-", stdin="new:x\nuser5:x\nno\n", status=1),
            [
                "mailplat: -: line 2: user5@example.test exists already",
                "mailplat: -: line 3: not NAME:PASSWORD",
            ],
        )
        self.assertEqual(
            self.run_command("account", "import", "-", stdin="new:x\nuser5:x\n", status=1),
            ["mailplat: -: line 2: user5@example.test exists already"],
        )
        self.assertEqual(len(self.file().names()), 100)

    def test_mistakes(self):
        self.has("alice@example.test")
        for words, text in [
            (("add", "alice", "--password-stdin"), "The account alice@example.test exists already"),
            (("add", "a b@example.test", "--password-stdin"), "not an address: a b@example.test"),
            (("add", "bob"), "standard input is no terminal: say --password-stdin"),
            (("password", "nobody", "--password-stdin"), "No such account: nobody"),
            (("import", "/nowhere/people"), "/nowhere/people: No such file or directory"),
        ]:
            self.assertEqual(
                self.here("account", *words, "--data", self.data), (1, "", f"mailplat: {text}\n"), words
            )

    def test_the_part_before_the_at_is_not_enough_for_the_first(self):
        status, _, error = self.here("account", "add", "alice", "--data", self.data)
        self.assertEqual((status, error), (1, "mailplat: not an address: alice\n"))

    def test_a_directory_that_is_not_there_is_not_made_to_look_into_it(self):
        status, _, error = self.here("account", "list", "--data", self.data)
        self.assertEqual((status, error), (1, f"mailplat: {self.data} does not exist\n"))
        self.assertFalse(os.path.exists(self.data))

    def test_the_password_is_asked_for_twice(self):
        self.has("alice@example.test")
        for answers, status, text in [
            (["one", "two"], 1, "mailplat: the two passwords differ\n"),
            (["", ""], 1, "mailplat: The password is empty\n"),
            (["one", "one"], 0, ""),
        ]:
            asked = []

            def ask(prompt, asked=asked, answers=answers):
                asked.append(prompt)
                return answers[len(asked) - 1]

            self.patch(accounts.getpass, "getpass", ask)
            found = self.here("account", "password", "alice", "--data", self.data, stdin=Terminal())
            self.assertEqual(found, (status, "", text))
            self.assertEqual(asked, ["Password: ", "Again: "])

    def test_removing_mail_is_confirmed(self):
        self.has("alice@example.test")
        status, _, error = self.here("account", "remove", "alice", "--data", self.data, stdin=Terminal("y\n"))
        self.assertEqual((status, error), (1, "mailplat: nothing was removed\n"))
        self.assertEqual(self.file().names(), ["alice@example.test"])

    def test_domains_come_from_the_servers_configuration(self):
        path = os.path.join(os.path.dirname(self.data), "mail.toml")
        with open(path, "w") as file:
            file.write('data = "data"\ndomains = ["conf.test"]\n')
        self.has("alice@conf.test")
        self.has("bob@other.test")
        found = self.here(
            "account", "password", "alice", "--config", path, "--password-stdin", stdin=io.StringIO("x")
        )
        self.assertEqual(found, (0, "", ""))
        self.assertEqual(self.here("account", "password", "alice", "--data", self.data)[0], 1)


class OtherTests(CommandTestCase):
    def test_check(self):
        self.run_command("account", "add", "alice@example.test", "--password-stdin", stdin="secret\n")
        self.assertEqual(self.run_command("check"), "all is well\n")

    def test_check_of_a_store_that_has_no_check(self):
        self.has("alice@example.test")
        self.assertEqual(
            self.run_command("check", "--store", "memory", status=1),
            ["mailplat: This store cannot be checked"],
        )

    def test_plugins(self):
        status, out, _ = self.here("plugins")
        self.assertEqual(status, 0, out)
        self.assertRegex(out, r"(?m)^store +sqlite +mailplat\S* ")
        self.assertRegex(out, r"(?m)^checker +memory +Twisted \S+ ")

    def test_wrong_words(self):
        for words in ((), ("acount",), ("account",), ("account", "add"), ("check", "--dat", "x")):
            self.assertEqual(self.here(*words)[0], 2, words)

    def test_version(self):
        status, out, _ = self.here("--version")
        self.assertEqual(status, 0)
        self.assertRegex(out, r"^mailplat \d")
