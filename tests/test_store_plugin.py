"""
A stranger's store, from its own repository to an IMAP client.

The example's wheel is installed beside mailplat's, in a virtual environment of its own;
there its own tests are run, it is listed, and what it keeps is read over IMAP.
"""

from __future__ import annotations

import contextlib
import imaplib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests import test_packaging as packaging

EXAMPLE = packaging.ROOT / "examples" / "store_plugin"
ALICE = "alice@example.test"
MESSAGE = "From: bob@example.test\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\nHello\n"


class StorePluginTests(packaging.PackagingTestCase):
    @classmethod
    def prepare(cls):
        cls.example = cls.directory / "example"
        shutil.copytree(EXAMPLE, cls.example, ignore=shutil.ignore_patterns("__pycache__", "_trial_temp*"))
        cls.environment = packaging.Environment(cls.directory / "venv", "pytest", "hypothesis")
        wheels = [cls.build()]
        options = ("--no-deps", "--no-index", "--no-build-isolation", "-w", cls.directory)
        packaging.run(*packaging.PIP, "wheel", *options, cls.example)
        wheels += cls.directory.glob("mailplat_eml-*.whl")
        cls.environment.install(*wheels)
        cls.mailplat = cls.environment.path / "bin" / "mailplat"

    def new_directory(self):
        directory = tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp")
        self.addCleanup(directory.cleanup)
        return Path(directory.name)

    def test_its_own_tests(self):
        """They run where its package is installed, not beside it."""
        directory = self.new_directory()
        shutil.copytree(self.example / "tests", directory / "tests")
        words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
        output = packaging.run(self.environment.python, *words, cwd=directory)
        self.assertRegex(output, r"\d+ passed")

    def test_it_is_listed(self):
        output = packaging.run(self.mailplat, "plugins")
        self.assertRegex(output, r"(?m)^store +eml +mailplat[-_]eml 1\.0 +Serves DIR")
        self.assertRegex(output, r"(?m)^store +memory +mailplat \S")

    def test_its_mistakes_are_told(self):
        data = self.new_directory()
        words = ("-n", "--pidfile=", "mailplat", "--data", data / "data", "--imap", "tcp:0")
        for spec, text in (("eml", "needs a directory"), ("eml:nowhere", "finds no directory")):
            output = packaging.run(self.environment.twistd, *words, "--store", spec, check=False)
            self.assertIn(text, output)
            self.assertNotIn("Traceback", output)

    def test_over_imap(self):
        directory = self.new_directory()
        mail = directory / "mail" / ALICE
        self.write(mail / "INBOX" / "0001.eml", MESSAGE)
        self.write(mail / "Projects" / "2026" / "minutes.eml", MESSAGE.replace("Hello", "Minutes"))
        store = ("--data", directory / "data", "--store", f"eml:{directory / 'mail'}")
        packaging.run(self.mailplat, "account", "add", ALICE, *store, "--password-stdin", input="secret\n")
        with self.served(*store) as port, imaplib.IMAP4("127.0.0.1", port, timeout=30) as client:
            client.login(ALICE, "secret")
            _, names = client.list()
            self.assertLessEqual({"INBOX", "Projects", "Projects/2026"}, {self.name(line) for line in names})
            with self.assertRaises(imaplib.IMAP4.readonly):
                client.select("INBOX")
            client.select("INBOX", readonly=True)
            _, validity = client.response("UIDVALIDITY")
            _, found = client.uid("FETCH", "1:*", "(RFC822.SIZE ENVELOPE BODY.PEEK[])")
            self.assertEqual(found[0][1], MESSAGE.replace("\n", "\r\n").encode("utf-8"))
            self.assertIn(b"bob", found[0][0])
            _, found = client.uid("SEARCH", "HEADER", "FROM", "bob")
            self.assertEqual(found, [b"1"])
            kind, _ = client.append("INBOX", None, None, b"Subject: no\r\n\r\n\r\n")
            self.assertEqual(kind, "NO")
            kind, _ = client.create("New")
            self.assertEqual(kind, "NO")
            # What comes meanwhile is news.
            self.write(mail / "INBOX" / "0000.eml", MESSAGE.replace("Hello", "Later"))
            client.noop()
            _, found = client.uid("FETCH", "2", "(BODY.PEEK[TEXT])")
            self.assertEqual(found[0][1], b"Later\r\n")
        with self.served(*store) as port, imaplib.IMAP4("127.0.0.1", port, timeout=30) as client:
            client.login(ALICE, "secret")
            client.select("INBOX", readonly=True)
            self.assertEqual(client.response("UIDVALIDITY")[1], validity)
            _, found = client.uid("FETCH", "2", "(BODY.PEEK[TEXT])")
            self.assertEqual(found[0][1], b"Later\r\n")

    def write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_bytes(text.encode("utf-8"))
        new.rename(path)

    def name(self, line):
        return line.decode("ascii").rpartition(' "/" ')[2].strip('"')

    @contextlib.contextmanager
    def served(self, *words):
        """A server with an IMAP listener; its port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = self.new_directory() / "log"
        command = (self.environment.twistd, "-n", "--pidfile=", "mailplat", *words)
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*map(str, command), "--imap", f"tcp:{port}:interface=127.0.0.1"],
                cwd="/",
                stdout=file,
                stderr=file,
            )
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        self.fail(log.read_text())
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.05)
            yield port
            process.terminate()
            process.wait(30)
            self.assertNotIn("Traceback", log.read_text())
        finally:
            process.kill()
            process.wait()
