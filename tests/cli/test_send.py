"""
`mailplat send` and the sendmail command: over a store in memory, and as it is installed.
"""

from __future__ import annotations

import io
import os
import pwd
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from mailplat.cli import sendmail
from mailplat.cli.send import whoami
from mailplat.datadir import DataDirectory
from mailplat.delivery.queue import Schedule
from mailplat.errors import StorageFull
from mailplat.storage.spool import whole
from mailplat.values import RELAY, Address, ReportRequest
from tests.cli.test_queue import QueueCase

ME = pwd.getpwuid(os.getuid()).pw_name

MAIL = b"Subject: Hello\n\nWorld\n.\nmore\n"


class Input:
    """Standard input, of bytes."""

    def __init__(self, data):
        self.buffer = io.BytesIO(data)


class SendCase(QueueCase):
    def setUp(self):
        super().setUp()
        self.config = os.path.join(os.path.dirname(self.data), "mail.toml")
        self.configure()

    def configure(self, more=""):
        with open(self.config, "w") as file:
            file.write(
                'data = "data"\ndomains = ["example.test", "other.test"]\nhostname = "mx.example.test"\n'
                + more
            )

    def send(self, *words, text=MAIL):
        return self.here("send", *words, "--config", self.config, stdin=Input(text))

    def sendmail(self, *words, text=MAIL, environment=None):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), mock.patch("sys.stdin", Input(text)):
            status = sendmail.main(words, {"MAILPLAT_CONFIG": self.config, **(environment or {})})
        return status, out.getvalue() + err.getvalue()

    def inbox(self, account="alice@example.test"):
        async def read():
            mailbox = await (await self.store.account(account)).open("INBOX")
            columns = await mailbox.columns(mailbox_all())
            found = []
            for uid in columns.uids:
                content = await mailbox.content(uid)
                found.append(await content.read(0, content.size))
            return found

        return self.result(read())

    def items(self):
        return self.result(self.queue.items(0, 100))

    def message(self, item):
        async def read():
            message, prefix = await self.queue.message(item.id)
            return prefix + await whole(message)

        return self.result(read())


def mailbox_all():
    from mailplat.uids import EVERYTHING

    return EVERYTHING


class SendTests(SendCase):
    def test_to_an_account(self):
        self.assertEqual(self.send("alice"), (0, "", ""))
        (message,) = self.inbox()
        lines = message.decode().split("\r\n")
        self.assertEqual(
            lines[:2],
            [
                f"Return-Path: <{ME}@example.test>",
                "Delivered-To: alice@example.test",
            ],
        )
        trace = b"Received: by mx.example.test (mailplat, from userid %d)" % os.getuid()
        self.assertRegex(
            message.replace(b"\r\n\t", b" "),
            re.escape(trace) + rb" id [0-9a-f]{20} for <alice@example.test>; ",
        )
        self.assertRegex(message, rb"\r\nDate: ")
        self.assertRegex(message, rb"\r\nMessage-ID: <[0-9a-f]{20}@mx.example.test>\r\n")
        self.assertRegex(message, rb"\r\nFrom: [^\r]*%b@example.test" % ME.encode())
        self.assertTrue(message.endswith(b"Subject: Hello\r\n\r\nWorld\r\n.\r\nmore\r\n"))
        self.assertEqual(self.items(), [])

    def test_what_is_there_stays(self):
        text = b"From: A <a@b.test>\nDate: today\nMessage-Id: <x@y>\n\nx\n"
        self.send("alice", text=text)
        (message,) = self.inbox()
        self.assertTrue(message.endswith(b"\r\n" + text.replace(b"\n", b"\r\n")))
        self.assertEqual(message.lower().count(b"date:"), 1)
        self.assertEqual(message.count(b"From:"), 1)

    def test_in_one_commit(self):
        commits = []
        commit = self.store.commit

        async def watched(deliveries, items=()):
            commits.append((len(deliveries), len(items)))
            return await commit(deliveries, items)

        self.patch(self.store, "commit", watched)
        self.assertEqual(self.send("alice", "bob@far.test", "carol@far.test")[0], 0)
        self.assertEqual(commits, [(1, 1)])
        (item,) = self.items()
        self.assertEqual(item.envelope.sender, Address(ME, "example.test"))
        self.assertEqual(
            [(one.target.agent, one.target.place, str(one.target.address)) for one in item.recipients],
            [(RELAY, "far.test", "bob@far.test"), (RELAY, "far.test", "carol@far.test")],
        )
        self.assertEqual({one.due for one in item.recipients}, {item.arrived})
        self.assertEqual({one.notice for one in item.recipients}, {item.arrived + Schedule().delay_notice})

    def test_all_or_none(self):
        status, out, err = self.send("alice", "nobody", "bob@far.test", "none@other.test")
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(
            err.splitlines(),
            [
                "mailplat: nobody@example.test: No such recipient here",
                "mailplat: none@other.test: No such recipient here",
            ],
        )
        self.assertEqual((self.inbox(), self.items()), ([], []))

    def test_senders(self):
        for given, sender in [
            (("--sender", "root@other.test"), "root@other.test"),
            (("--sender", "Root <root>"), "root@example.test"),
            (("--sender", "<>"), ""),
            (("--sender", ""), ""),
        ]:
            self.assertEqual(self.send("alice", *given), (0, "", ""))
            message = self.inbox()[-1]
            self.assertIn(f"Return-Path: <{sender}>\r\n".encode(), message)
            self.assertRegex(message, rb"From: [^\r]*%b" % (sender or f"{ME}@example.test").encode())
        self.assertEqual(
            self.send("alice", "--sender", "ceo@bank.test"),
            (1, "", "mailplat: ceo@bank.test is in no domain of this server\n"),
        )
        self.assertEqual(self.send("alice", "--sender", "a, b"), (1, "", "mailplat: not an address: a, b\n"))

    def test_recipients_from_the_header(self):
        text = b"To: alice, bob@far.test\nCc: Alice@Example.test\nBcc: dan@far.test\n\nx\n"
        self.assertEqual(self.send("-t", "eve@far.test", text=text), (0, "", ""))
        (item,) = self.items()
        self.assertEqual([one.target.address.local for one in item.recipients], ["eve", "bob", "dan"])
        self.assertNotIn(b"dan@", self.message(item))
        self.assertEqual(len(self.inbox()), 1)
        self.assertEqual(
            self.send("-t", text=b"Subject: x\n\nTo: alice\n"),
            (1, "", "mailplat: there are no recipients\n"),
        )

    def test_aliases(self):
        self.configure('[aliases]\nboth = ["alice", "x@y.test"]\n')
        self.assertEqual(self.send("both"), (0, "", ""))
        (item,) = self.items()
        self.assertEqual(
            [(str(one.target.address), one.request.original) for one in item.recipients],
            [("x@y.test", "rfc822;both@example.test")],
        )
        self.assertEqual(len(self.inbox()), 1)

    def test_limits(self):
        self.configure("message-size-limit = 100\n")
        self.assertEqual(
            self.send("alice", text=b"x" * 101),
            (1, "", "mailplat: The message is larger than 100 octets\n"),
        )
        self.assertEqual(self.send("alice", text=b"Received: x\n" * 101)[0], 1)
        self.assertEqual(self.inbox(), [])

    def test_a_full_disk(self):
        async def full(deliveries, items=()):
            raise StorageFull()

        self.patch(self.store, "commit", full)
        status, _, err = self.send("alice", "bob@far.test")
        self.assertEqual(status, 1)
        self.assertIn("please try again later", err)

    def test_who_it_is(self):
        self.assertEqual(whoami({})[0], ME)
        self.assertEqual(whoami({"SUDO_USER": "nobody"})[0], "nobody")
        with mock.patch("pwd.getpwuid", side_effect=KeyError):
            self.assertEqual(whoami({}), (f"uid{os.getuid()}", ""))
        entry = pwd.struct_passwd(("joe", "", 1, 1, "& Public,room 7", "/", "/bin/sh"))
        with mock.patch("pwd.getpwuid", return_value=entry):
            self.assertEqual(whoami({}), ("joe", "Joe Public"))

    def test_eight_bits(self):
        self.send("bob@far.test", text="Subject: ü\n\nx\n".encode())
        self.send("bob@far.test", text="Subject: u\n\nü\n".encode())
        self.send("bob@far.test", text=b"Subject: u\n\nu\n")
        self.send("jürgen@far.test", text=b"Subject: u\n\nu\n")
        self.assertEqual(
            [(item.envelope.body, item.envelope.utf8) for item in self.items()],
            [("8BITMIME", True), ("8BITMIME", False), ("7BIT", False), ("7BIT", True)],
        )


class SendmailTests(SendCase):
    def test_as_programs_call_it(self):
        to_alice = b"To: alice\n" + MAIL
        for words, text in [
            (("-i", "alice"), MAIL),  # cron
            (("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "alice"), MAIL),  # Debian's cron
            (("-i", "alice@example.test"), MAIL),  # git
            (("-t", "-i"), to_alice),  # PHP
            (("-t", "-i", "-f", "www@example.test"), to_alice),
            (("-oem", "-oi", "-f", "me@example.test", "--", "alice"), MAIL),  # mutt
            (("-ti",), to_alice),
            (("-bm", "-v", "-oi", "-odb", "-U", "alice"), MAIL),
        ]:
            before = len(self.inbox())
            self.assertEqual(self.sendmail(*words, text=text), (0, ""), words)
            found = self.inbox()
            self.assertEqual(len(found), before + 1)
            self.assertTrue(found[-1].endswith(b"\r\nWorld\r\n.\r\nmore\r\n"), words)

    def test_a_dot_alone_ends_it(self):
        self.assertEqual(self.sendmail("alice"), (0, ""))
        self.assertTrue(self.inbox()[0].endswith(b"\r\nWorld\r\n"))

    def test_options(self):
        status = self.sendmail(
            *("-N", "success,delay", "-R", "hdrs", "-V", "e1", "-B", "7bit", "-r", "joe@other.test"),
            *("-F", "Joe, the Plumber", "bob@far.test"),
        )
        self.assertEqual(status, (0, ""))
        (item,) = self.items()
        envelope = item.envelope
        self.assertEqual(
            (str(envelope.sender), envelope.returns, envelope.envelope_id, envelope.body),
            ("joe@other.test", "HDRS", "e1", "7BIT"),
        )
        self.assertEqual(item.recipients[0].request, ReportRequest(frozenset(("SUCCESS", "DELAY"))))
        self.assertIn(b'From: "Joe, the Plumber" <joe@other.test>\r\n', self.message(item))
        self.sendmail("-Nnever", "carol@far.test")
        self.assertEqual(self.items()[1].recipients[0].request, ReportRequest(frozenset()))

    def test_statuses(self):
        for words, status, text in [
            ((), 64, "say who is to get it, or -t"),
            (("-t",), 64, "there are no recipients"),
            (("-f",), 64, "-f needs a value"),
            (("-bs",), 64, "-bs is not supported"),
            (("-bd",), 64, "-bd is not supported"),
            (("-C", "x", "alice"), 64, "-C is not supported: "),
            (("-N", "often", "alice"), 64, "-N needs never, or some of success,failure,delay"),
            (("-R", "x", "alice"), 64, "-R needs full or hdrs"),
            (("-V", "\x01", "alice"), 64, "-V needs up to 100 printable characters"),
            (("--help",), 64, "-- is not supported"),
            (("<>",), 64, "not an address: <>"),
            (("nobody",), 67, "nobody@example.test: No such recipient here"),
            (("-f", "a@bank.test", "alice"), 77, "a@bank.test is in no domain of this server"),
        ]:
            found, out = self.sendmail(*words)
            self.assertEqual(found, status, words)
            self.assertIn(text.removeprefix("-- "), out)
        for words in (("-q",), ("-q30m",)):
            self.assertEqual(self.sendmail(*words), (0, ""))
        self.assertEqual((self.inbox(), self.items()), ([], []))

    def test_statuses_of_trouble(self):
        async def full(deliveries, items=()):
            raise StorageFull()

        self.patch(self.store, "commit", full)
        self.assertEqual(self.sendmail("alice")[0], 75)
        self.configure("message-size-limit = 3\n")
        self.assertEqual(self.sendmail("alice")[0], 65)
        self.configure("nonsense = 1\n")
        self.assertEqual(self.sendmail("alice")[0], 78)
        self.config = "/nowhere/mail.toml"
        self.assertEqual(
            self.sendmail("alice"), (78, "sendmail: /nowhere/mail.toml: No such file or directory\n")
        )

    def test_a_directory_that_is_not_there(self):
        self.configure()
        os.rename(self.data, self.data + "-away")
        status, out = self.sendmail("alice")
        self.assertEqual(status, 75)
        self.assertIn("does not exist", out)
        os.rename(self.data + "-away", self.data)

    def test_the_queue(self):
        self.sendmail("bob@far.test")
        status, out = self.sendmail("-bp")
        self.assertEqual(status, 0)
        self.assertIn("bob@far.test", out)

    def test_by_sudo(self):
        self.sendmail("bob@far.test", environment={"SUDO_USER": "nobody"})
        (item,) = self.items()
        self.assertEqual(str(item.envelope.sender), "nobody@example.test")


class InstalledTests(SendCase):
    """A process of its own, over the embedded store."""

    def run_module(self, module, *words, stdin=b""):
        return subprocess.run(
            [sys.executable, "-m", f"mailplat.cli.{module}", *words],
            input=stdin,
            capture_output=True,
            timeout=120,
            env={**os.environ, "MAILPLAT_CONFIG": self.config},
        )

    def test_in_and_out_of_the_queue(self):
        DataDirectory(self.data).prepare()
        sent = self.run_module("sendmail", "-i", "bob@far.test", stdin=MAIL)
        self.assertEqual((sent.returncode, sent.stdout, sent.stderr), (0, b"", b""))
        shown = self.run_module("main", "queue", "show", "1", "--raw", "--config", self.config)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertTrue(shown.stdout.startswith(b"Received: by mx.example.test (mailplat, from userid"))
        self.assertTrue(shown.stdout.endswith(b"\r\nWorld\r\n.\r\nmore\r\n"))
