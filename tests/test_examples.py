"""The examples, run as their readers would run them."""

from __future__ import annotations

import http.server
import imaplib
import os
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
import threading
import urllib.request
from base64 import b64decode
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent
MESSAGE = b"Subject: hello\r\n\r\nHello\r\n"


def send(port, recipient, message=MESSAGE):
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.sendmail("somebody@elsewhere.test", [recipient], message)


def inbox(port, user, password):
    """The messages of somebody's INBOX."""
    with imaplib.IMAP4("127.0.0.1", port, timeout=30) as client:
        client.login(user, password)
        client.select("INBOX", readonly=True)
        _, found = client.uid("FETCH", "1:*", "(BODY.PEEK[])")
        return [item[1] for item in found if isinstance(item, tuple)]


class ExamplesTestCase(SynchronousTestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="mp-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.directory)

    def start(self, *command, **environment):
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=self.directory,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def lines(self, process, count):
        lines = [process.stdout.readline() for _ in range(count)]
        if not lines[-1]:
            self.fail("".join(lines) + process.stdout.read())
        return lines

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        self.assertNotIn("Traceback", output)


class HostInAppTests(ExamplesTestCase):
    def test_two_applications_in_one_process(self):
        process = self.start(sys.executable, EXAMPLES / "host_in_app.py")
        red, blue = (
            {
                word: int(place.rpartition(":")[2])
                for word, place in (item.split("=") for item in line.split())
            }
            for line in self.lines(process, 2)
        )
        send(red["smtp"], "anna@red.example")
        send(red["smtp"], "emil+x@red.example", MESSAGE + b"more\r\n" * 300_000)
        self.assertRaises(smtplib.SMTPRecipientsRefused, send, blue["smtp"], "anna@red.example")
        (message,) = inbox(red["imap"], "anna@red.example", "apple")
        self.assertTrue(message.endswith(MESSAGE))
        self.assertEqual(inbox(blue["imap"], "anna@blue.example", "berry"), [])
        self.assertRaises(imaplib.IMAP4.error, inbox, blue["imap"], "anna@red.example", "apple")
        with urllib.request.urlopen(f"http://127.0.0.1:{red['http']}/", timeout=30) as page:
            self.assertEqual(page.read(), b"anna@red.example 1\nemil@red.example 1\n")
        self.stop(process)


class Members(http.server.BaseHTTPRequestHandler):
    """A web application that has members."""

    members = {"alice@example.test": "apple", "bob": "berry"}

    def do_GET(self):
        user, _, password = b64decode(self.headers["Authorization"].split()[1]).decode().partition(":")
        if user.startswith("trouble"):
            self.send_response(500)
        else:
            self.send_response(200 if self.members.get(user) == password else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        """Says nothing."""


class AuthPluginTests(ExamplesTestCase):
    def setUp(self):
        super().setUp()
        plugins = Path(self.directory) / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        shutil.copy(EXAMPLES / "auth_plugin.py", plugins / "web_passwords.py")
        self.application = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Members)
        thread = threading.Thread(target=self.application.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.application.server_close)
        self.addCleanup(self.application.shutdown)

    def test_it_is_listed(self):
        process = self.start(BIN / "mailplat", "plugins", PYTHONPATH=self.directory)
        output, _ = process.communicate(timeout=60)
        self.assertRegex(output, r"(?m)^checker +web +\S+ +Asks a web application")

    def test_an_argument_it_cannot_take(self):
        command = (BIN / "twistd", "-n", "--pidfile=", "mailplat", "--imap", "tcp:0", "--auth", "web:ftp")
        process = self.start(*command, PYTHONPATH=self.directory)
        output, _ = process.communicate(timeout=60)
        self.assertNotEqual(process.returncode, 0)
        self.assertIn("mailplat: --auth web:ftp: web: needs a URL", output.splitlines()[-1])
        self.assertNotIn("Traceback", output)

    def test_members_log_in(self):
        url = f"http://127.0.0.1:{self.application.server_port}/login"
        process = self.start(
            *(BIN / "twistd", "-n", "--pidfile=", "mailplat", "--domain", "example.test"),
            *("--imap", "tcp:0:interface=127.0.0.1", "--auth", f"web:{url}"),
            PYTHONPATH=self.directory,
        )
        for line in process.stdout:
            if line.startswith("imap "):
                port = int(line.split()[1].rpartition(":")[2])
                break
        else:
            self.fail("it does not listen")
        self.assertEqual(inbox(port, "alice", "apple"), [])
        self.assertEqual(inbox(port, "Bob@example.test", "berry"), [])
        for user, password, answer in (
            ("alice", "berry", r"\[AUTHENTICATIONFAILED\]"),
            ("nobody", "apple", r"\[AUTHENTICATIONFAILED\]"),
            ("trouble", "x", r"\[UNAVAILABLE\]"),
        ):
            with self.assertRaisesRegex(imaplib.IMAP4.error, answer):
                inbox(port, user, password)
        with imaplib.IMAP4("127.0.0.1", port, timeout=30) as client:
            self.assertIn("AUTH=PLAIN", client.capabilities)
            self.assertNotIn("AUTH=SCRAM-SHA-256", client.capabilities)
        self.application.shutdown()
        self.application.server_close()
        with self.assertRaisesRegex(imaplib.IMAP4.error, r"\[UNAVAILABLE\]"):
            inbox(port, "alice", "apple")
        self.stop(process)


class RunTacTests(ExamplesTestCase):
    def test_it_runs(self):
        process = self.start(
            BIN / "twistd",
            "-n",
            "--pidfile=",
            "-y",
            EXAMPLES / "run.tac",
            MAILPLAT_IMAP="tcp:0:interface=127.0.0.1",
            MAILPLAT_SMTP="tcp:0:interface=127.0.0.1",
        )
        ports = {}
        for line in process.stdout:
            words = line.split()
            if words[-3:-1] == ["starting", "on"]:
                ports[words[-4]] = int(words[-1])
            if len(ports) == 2:
                break
        else:
            self.fail("it does not listen")
        self.assertEqual(inbox(ports["imap"], "alice@example.test", "secret"), [])
        send(ports["smtp"], "alice@example.test")
        self.assertEqual(len(inbox(ports["imap"], "alice", "secret")), 1)
        self.stop(process)
