"""
The whole house: real sockets on loopback, the standard library's clients in threads.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import poplib
import shutil
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailplat.auth.accounts import AccountFile
from mailplat.auth.names import Names
from mailplat.config import load
from mailplat.datadir import DataDirectory
from mailplat.errors import CannotListen, ConfigurationError, DataDirectoryError, NotPermitted, StorageFull
from mailplat.service import AT_ONCE, MailService
from mailplat.settings import KINDS
from mailplat.storage.memory import MemoryStore
from mailplat.storage.sqlite import SQLiteStore
from mailplat.tap import _table

MESSAGE = b"From: Alice <alice@example.test>\r\nSubject: hello\r\n\r\nHello, house.\r\n.\r\nA dot.\r\n"
#: How twistd ends after SIGTERM: by the same signal, once all is put away.
ENDED = (0, -signal.SIGTERM)

PLAIN = ("smtp", "submission", "imap", "pop3")
SECURE = ("submissions", "imaps", "pop3s")


def unverified():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class ServiceTestCase(TestCase):
    def setUp(self):
        # Short: a UNIX socket's path must fit in 108 octets.
        self.parent = tempfile.mkdtemp(prefix="mp-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.parent)
        self.data = os.path.join(self.parent, "data")

    def settings(self, *listeners, file=None, **words):
        """Settings with the named listeners on ports of their own, all if none is named."""
        words = {"data": self.data, "domain": ["example.test"], **words}
        for word in listeners or (*PLAIN, *SECURE):
            words.setdefault(word, ["tcp:0:interface=127.0.0.1"])
        return load(file, words)

    def account(self, name="alice@example.test", password="secret"):
        directory = DataDirectory(self.data)
        directory.prepare()
        # Few rounds: hashing is not what is tested here.
        AccountFile(directory.accounts, Names(["example.test"]), iterations=1000).add(name, password)

    async def run_service(self, *listeners, announce=None, **words):
        service = MailService(self.settings(*listeners, **words), reactor, announce)
        self.addCleanup(service.stopService)
        service.startService()
        await service.started
        return service

    def port(self, service, word):
        return next(b.address.port for b in service.bound if b.listener.kind.word == word)


class HouseTests(ServiceTestCase):
    """Mail comes in, and is read, through every door."""

    async def test_in_by_smtp_and_out_by_imap_and_pop3(self):
        self.account()
        service = await self.run_service()

        def send():
            with smtplib.SMTP("127.0.0.1", self.port(service, "smtp"), timeout=30) as client:
                self.assertEqual(client.sendmail("bob@elsewhere.test", ["alice+x@example.test"], MESSAGE), {})
                self.assertRaises(
                    smtplib.SMTPRecipientsRefused,
                    client.sendmail,
                    "bob@x.test",
                    ["bob@elsewhere.test"],
                    MESSAGE,
                )

        def read(client, user):
            with client:
                client.login(user, "secret")
                client.select("INBOX")
                return client.fetch("1:*", "(BODY.PEEK[])")[1][0][1]

        def fetch(client):
            client.user("alice")
            client.pass_("secret")
            lines = client.retr(1)[1]
            client.quit()
            return b"".join(line + b"\r\n" for line in lines)

        def everything():
            send()
            plain = imaplib.IMAP4("127.0.0.1", self.port(service, "imap"), timeout=30)
            secure = imaplib.IMAP4_SSL(
                "127.0.0.1", self.port(service, "imaps"), ssl_context=unverified(), timeout=30
            )
            pop = poplib.POP3("127.0.0.1", self.port(service, "pop3"), timeout=30)
            pops = poplib.POP3_SSL("127.0.0.1", self.port(service, "pop3s"), context=unverified(), timeout=30)
            # One after the other: a maildrop is held once, whatever the port.
            return [read(plain, "alice@example.test"), read(secure, "alice"), fetch(pop), fetch(pops)]

        copies = await deferToThread(everything)
        for copy in copies:
            self.assertTrue(copy.startswith(b"Return-Path: <bob@elsewhere.test>\r\n"), copy)
            self.assertTrue(copy.endswith(b"\r\n" + MESSAGE), copy)
            self.assertEqual(copy, copies[0])

    async def test_submission(self):
        self.account()
        self.account("bob@example.test")
        service = await self.run_service("submission", "submissions", "imap")

        def send(client):
            with client:
                self.assertRaises(
                    smtplib.SMTPException,
                    client.sendmail,
                    "alice@example.test",
                    ["bob@example.test"],
                    MESSAGE,
                )
                client.login("alice", "secret")
                client.sendmail("alice@example.test", ["bob@example.test"], MESSAGE)
                self.assertRaises(
                    smtplib.SMTPSenderRefused,
                    client.sendmail,
                    "bob@example.test",
                    ["bob@example.test"],
                    MESSAGE,
                )

        def everything():
            send(smtplib.SMTP("127.0.0.1", self.port(service, "submission"), timeout=30))
            send(
                smtplib.SMTP_SSL(
                    "127.0.0.1", self.port(service, "submissions"), context=unverified(), timeout=30
                )
            )
            upgraded = smtplib.SMTP("127.0.0.1", self.port(service, "submission"), timeout=30)
            upgraded.starttls(context=unverified())
            send(upgraded)
            with imaplib.IMAP4("127.0.0.1", self.port(service, "imap"), timeout=30) as client:
                client.login("bob", "secret")
                client.select("INBOX")
                return [item[1] for item in client.fetch("1:*", "(BODY.PEEK[HEADER])")[1] if len(item) == 2]

        headers = await deferToThread(everything)
        for header, word in zip(headers, (b"ESMTPA", b"ESMTPSA", b"ESMTPSA"), strict=True):
            self.assertIn(b"with " + word, header)
            self.assertEqual(header.count(b"\r\nMessage-ID: <"), 1)

    async def test_lmtp_on_its_default_socket(self):
        self.account()
        path = os.path.join(self.data, "lmtp")
        await self.run_service(lmtp=[f"unix:{path}:mode=600"])
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)

        def send():
            with smtplib.LMTP(path) as client:
                return client.sendmail(
                    "bob@elsewhere.test", ["alice@example.test", "nobody@example.test"], MESSAGE
                )

        refused = await deferToThread(send)
        self.assertEqual(list(refused), ["nobody@example.test"])

    async def test_several_recipients_share_one_body_and_one_commit(self):
        people = ["alice", "bob", "carol"]
        for name in people:
            self.account(f"{name}@example.test")
        path = os.path.join(self.data, "lmtp")
        service = await self.run_service("imap", lmtp=[f"unix:{path}:mode=600"])
        commits = []
        commit = SQLiteStore.commit

        def counted(store, deliveries):
            commits.append(deliveries)
            return commit(store, deliveries)

        self.patch(SQLiteStore, "commit", counted)
        mail = Path(self.data, "mail")

        def octets():
            bodies = (file for file in mail.rglob("*") if file.is_file() and "sqlite" not in file.name)
            return sum(file.stat().st_size for file in bodies)

        def send(body):
            before = octets()
            with smtplib.LMTP(path) as client:
                client.ehlo()
                client.mail("dave@elsewhere.test")
                for to in ("alice", "bob+box", "carol"):
                    client.rcpt(f"{to}@example.test")
                # smtplib reads the first of the replies.
                codes = [client.data(body)[0], client.getreply()[0], client.getreply()[0]]
                self.assertEqual(codes, [250] * 3)
            return octets() - before

        # In a pack, and in a file of its own.
        for number, size in enumerate((20_000, 3_000_000), 1):
            body = b"Subject: shared\r\n\r\n" + b"x" * 68 + b"\r\n" * 2 + b"0123456789\r\n" * (size // 12)
            grown = await deferToThread(send, body)
            self.assertTrue(len(body) <= grown < 1.5 * len(body), (len(body), grown))
            self.assertEqual([len(deliveries) for deliveries in commits], [3] * number)

        def count(name):
            with imaplib.IMAP4("127.0.0.1", self.port(service, "imap"), timeout=30) as client:
                client.login(name, "secret")
                return client.select()[1]

        for name in people:
            self.assertEqual(await deferToThread(count, name), [b"2"])

    async def test_mail_and_logins_outlive_the_server(self):
        self.account()
        service = await self.run_service("smtp")

        def send():
            with smtplib.SMTP("127.0.0.1", self.port(service, "smtp"), timeout=30) as client:
                client.sendmail("bob@elsewhere.test", ["alice@example.test"], MESSAGE)

        await deferToThread(send)
        await service.stopService()
        service = await self.run_service("imap")

        def count():
            with imaplib.IMAP4("127.0.0.1", self.port(service, "imap"), timeout=30) as client:
                client.login("alice", "secret")
                return client.select("INBOX")[1]

        self.assertEqual(await deferToThread(count), [b"1"])

    async def test_accounts_change_while_it_runs(self):
        """By another process, and at once: what is remembered of a password goes with it."""
        self.account()
        service = await self.run_service("smtp", "imap")

        def mailplat(*words, password=""):
            command = [sys.executable, "-m", "mailplat.cli.main", "account", *words, "--data", self.data]
            subprocess.run(command, input=password, text=True, check=True, timeout=60, capture_output=True)

        def login(user, password):
            with imaplib.IMAP4("127.0.0.1", self.port(service, "imap"), timeout=30) as client:
                try:
                    return client.login(user, password)[0]
                except imaplib.IMAP4.error:
                    return "NO"

        def send(user):
            with smtplib.SMTP("127.0.0.1", self.port(service, "smtp"), timeout=30) as client:
                try:
                    client.sendmail("bob@elsewhere.test", [f"{user}@example.test"], MESSAGE)
                except smtplib.SMTPRecipientsRefused as error:
                    return error.recipients[f"{user}@example.test"][0]
                except smtplib.SMTPDataError as error:
                    # It went away after this connection asked for it.
                    return error.smtp_code
                return 250

        def everything():
            self.assertEqual([login("alice", "secret"), login("alice", "secret")], ["OK", "OK"])
            mailplat("password", "alice", "--password-stdin", password="another")
            self.assertEqual([login("alice", "secret"), login("alice", "another")], ["NO", "OK"])
            self.assertEqual((login("carol", "new"), send("carol")), ("NO", 550))
            mailplat("add", "carol", "--password-stdin", password="new")
            self.assertEqual((login("carol", "new"), send("carol")), ("OK", 250))
            mailplat("remove", "carol", "--yes")
            self.assertEqual((login("carol", "new"), send("carol")), ("NO", 550))

        await deferToThread(everything)

    async def test_the_message_size_limit_holds_everywhere(self):
        self.account()
        service = await self.run_service("smtp", "imap", **{"message-size-limit": "1000"})

        def ask():
            with smtplib.SMTP("127.0.0.1", self.port(service, "smtp"), timeout=30) as client:
                client.ehlo()
                size = client.esmtp_features["size"]
            with imaplib.IMAP4("127.0.0.1", self.port(service, "imap"), timeout=30) as client:
                client.login("alice", "secret")
                return size, client.capability()[1][0], client.append("INBOX", None, None, b"x" * 1001)[0]

        size, capabilities, appended = await deferToThread(ask)
        self.assertEqual(size, "1000")
        self.assertIn(b"APPENDLIMIT=1000", capabilities)
        self.assertEqual(appended, "NO")


class StartTests(ServiceTestCase):
    """What a start makes, and what stops it."""

    async def test_the_first_account(self):
        announced = []
        service = await self.run_service("imap", announce=announced.append)
        self.assertEqual(announced, [service])
        name, password = service.first_account
        self.assertEqual(name, "me@example.test")

        def login():
            with imaplib.IMAP4("127.0.0.1", self.port(service, "imap"), timeout=30) as client:
                client.login(name, password)
                return client.list()[1]

        self.assertEqual(len(await deferToThread(login)), 6)
        await service.stopService()
        self.assertIsNone((await self.run_service("imap")).first_account)

    async def test_no_first_account_where_there_are_accounts_or_other_checkers(self):
        service = await self.run_service("imap", auth=["memory:alice:secret"])
        self.assertIsNone(service.first_account)
        self.assertFalse(os.path.exists(os.path.join(self.data, "accounts")))
        await service.stopService()
        self.account()
        self.assertIsNone((await self.run_service("imap")).first_account)

    async def test_checkers_are_asked_in_turn(self):
        self.account()
        people = os.path.join(self.parent, "people")
        with open(people, "w") as file:
            file.write("dave@example.test:word\n")
        service = await self.run_service("imap", auth=["memory:carol:pass", f"file:{people}", "accounts"])

        def login(user, password):
            with imaplib.IMAP4("127.0.0.1", self.port(service, "imap"), timeout=30) as client:
                return client.login(user, password)[0]

        self.assertEqual(await deferToThread(login, "carol", "pass"), "OK")
        self.assertEqual(await deferToThread(login, "dave@example.test", "word"), "OK")
        self.assertEqual(await deferToThread(login, "alice", "secret"), "OK")
        await self.assertFailure(deferToThread(login, "carol", "secret"), imaplib.IMAP4.error)

    async def test_what_it_makes_is_for_its_owner(self):
        service = await self.run_service("imaps")
        self.assertEqual(stat.S_IMODE(os.stat(self.data).st_mode), 0o700)
        self.assertEqual(service.certificate, os.path.join(self.data, "self-signed.pem"))
        self.assertEqual(stat.S_IMODE(os.stat(service.certificate).st_mode), 0o600)

    async def test_only_what_is_named_is_bound(self):
        service = await self.run_service("pop3")
        self.assertEqual([bound.listener.kind.word for bound in service.bound], ["pop3"])

    async def test_a_port_in_use_stops_the_start_and_leaves_nothing(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                free = probe.getsockname()[1]
            settings = self.settings(
                "imap", imap=[f"tcp:{free}:interface=127.0.0.1", f"tcp:{port}:interface=127.0.0.1"]
            )
            service = MailService(settings, reactor)
            error = self.assertRaises(CannotListen, service.startService)
            self.assertEqual(
                error.text,
                f"cannot listen for imap on tcp:{port}:interface=127.0.0.1: Address already in use",
            )
        self.assertFalse(service.running)
        self.assertEqual(service.bound, [])
        self.assertFalse(os.path.exists(self.data))
        # Ports close in the reactor's next turn; then the same service may start.
        await deferToThread(lambda: None)
        service.startService()
        await service.started
        await service.stopService()

    async def test_two_servers_on_one_directory(self):
        await self.run_service("imap")
        second = MailService(self.settings("imap"), reactor)
        error = self.assertRaises(DataDirectoryError, second.startService)
        self.assertEqual(error.text, f"{self.data} is in use by another server")

    async def test_a_directory_of_a_later_version(self):
        DataDirectory(self.data).prepare([lambda path: None])
        service = MailService(self.settings("imap"), reactor)
        self.assertIn(
            "made by a later mailplat", self.assertRaises(DataDirectoryError, service.startService).text
        )

    async def test_parts_that_do_not_exist(self):
        for words, text in [
            ({"store": "nothing"}, "there is no store called nothing"),
            ({"auth": ["nothing:x"]}, "--auth nothing:x: there is no checker called nothing"),
            ({"auth": ["file:/nowhere"], "store": "memory:x"}, "the store memory takes no argument"),
        ]:
            service = MailService(self.settings("imap", **words), reactor)
            self.assertIn(text, self.assertRaises(ConfigurationError, service.startService).text)
            # Nothing is locked.
            directory = DataDirectory(self.data)
            directory.lock()
            directory.unlock()

    async def test_a_store_that_cannot_start(self):
        for error, logged in [(StorageFull("no room"), 0), (ZeroDivisionError("a bug"), 1)]:
            service = MailService(self.settings("imap"), reactor)

            async def start(error=error):
                raise error

            original = service._make_parts

            def make_parts(service=service, original=original, start=start):
                original()
                service._store.start = start

            service._make_parts = make_parts
            service.startService()
            try:
                await service.started
            except Exception as raised:
                self.assertEqual(getattr(raised, "text", "")[:7] in ("no room", "The ser"), True)
            else:
                self.fail("it started")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), logged)
            self.assertEqual(service.bound, [])
            directory = DataDirectory(self.data)
            directory.lock()
            directory.unlock()

    async def test_a_store_that_makes_no_accounts(self):
        self.account()
        service = MailService(self.settings("imap", store="memory"), reactor)
        self.addCleanup(service.stopService)

        async def refuse(store, name):
            raise NotPermitted

        self.patch(MemoryStore, "create_account", refuse)
        service.startService()
        await service.started

    async def test_stopped_while_it_starts(self):
        service = MailService(self.settings("imap"), reactor)
        service.startService()
        await service.stopService()
        self.assertEqual(service.bound, [])

    async def test_stopped_while_it_makes_accounts(self):
        self.account()
        path = DataDirectory(self.data).accounts
        with open(path, "r+", encoding="utf-8") as file:
            record = file.readlines()[-1].partition(":")[2]
            file.writelines(f"user{number}@example.test:{record}" for number in range(2 * AT_ONCE))
        made, first = [], Deferred()
        create = SQLiteStore.create_account

        async def noted(store, name):
            made.append(name)
            if not first.called:
                first.callback(None)
            await create(store, name)

        self.patch(SQLiteStore, "create_account", noted)
        service = MailService(self.settings("imap"), reactor)
        service.startService()
        await first
        await service.stopService()
        # What was under way was finished, and nothing else begun.
        self.assertEqual(len(made), AT_ONCE)
        self.assertFalse(service.started.called)
        await self.run_service("imap")
        self.assertEqual(len(set(made)), len(made))
        self.assertEqual(len(made), 2 * AT_ONCE + 1)

    async def test_two_in_one_process(self):
        self.account()
        one = await self.run_service("imap")
        self.data = os.path.join(self.parent, "other")
        two = await self.run_service("imap")
        self.assertNotEqual(self.port(one, "imap"), self.port(two, "imap"))
        self.assertIsNone(one.first_account)
        self.assertIsNotNone(two.first_account)


class TwistdTests(ServiceTestCase):
    """The server as an operator runs it, in a process of its own."""

    TWISTD = Path(sys.executable).parent / "twistd"

    def twistd(self, *words, before=("-n", "--pidfile="), **options):
        command = [sys.executable, "-m", "twisted.scripts.twistd"]
        if self.TWISTD.exists():
            command = [str(self.TWISTD)]
        return self.start([*command, *before], *words, **options)

    def start(self, command, *words, **options):
        return subprocess.Popen(
            [*command, "mailplat", *words],
            cwd=self.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def read_until(self, process, text):
        """What was printed up to the line with `text`."""
        lines = []
        for line in process.stdout:
            lines.append(line)
            if text in line:
                return lines
        raise AssertionError(f"no {text!r} in:\n{''.join(lines)}")

    WORDS = ("--smtp", "tcp:0:interface=127.0.0.1", "--imap", "tcp:0:interface=127.0.0.1")

    def test_sigterm_ends_it_and_tells_who_is_connected(self):
        self.ends_well(self.twistd(*self.WORDS))

    def test_another_reactor(self):
        before = ("--reactor=asyncio", "-n", "--pidfile=")
        self.ends_well(self.twistd(*self.WORDS, before=before))

    def test_by_the_other_runner(self):
        """`twist`, which is what python -m twisted runs too."""
        self.ends_well(self.start([sys.executable, "-m", "twisted"], *self.WORDS))

    def ends_well(self, process):
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        lines = self.read_until(process, "first account")
        ports = [int(line.split()[1].rpartition(":")[2]) for line in lines if line[:5] in ("smtp ", "imap ")]
        clients = []
        for port in ports:
            client = socket.create_connection(("127.0.0.1", port), timeout=30)
            self.addCleanup(client.close)
            clients.append(client.makefile("rb"))
            self.addCleanup(clients[-1].close)
            clients[-1].readline()
        process.send_signal(signal.SIGTERM)
        smtp, imap = (client.read() for client in clients)
        self.assertTrue(smtp.startswith(b"421 "), smtp)
        self.assertTrue(imap.startswith(b"* BYE "), imap)
        self.assertIn(process.wait(10), ENDED)

    def test_the_first_password_goes_to_a_file_where_nobody_reads(self):
        """The journal (a socket) would keep it, and /dev/null would lose it."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        ours.settimeout(60)
        journal = ours.makefile("r")
        self.addCleanup(journal.close)
        for number, output in enumerate((theirs, subprocess.DEVNULL)):
            data = os.path.join(self.parent, f"data{number}")
            log = os.path.join(self.parent, f"log{number}")
            process = subprocess.Popen(
                [
                    *(str(self.TWISTD), "-n", "--pidfile=", f"--logfile={log}", "mailplat"),
                    *("--data", data, "--imap", f"unix:{data}/imap"),
                ],
                stdout=output,
            )
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            path = os.path.join(data, "first-account")
            if output is theirs:
                theirs.close()
                said = ""
                while path not in said:
                    said += journal.readline()
            else:
                # It makes its socket before; what it says goes nowhere.
                self.wait_for(path, process)
                said = ""
            process.terminate()
            self.assertIn(process.wait(30), ENDED)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            with open(path) as file, open(log) as logged:
                name, password = file.read().split()
                said += logged.read()
            self.assertEqual(name, "me@localhost")
            self.assertNotIn(password, said)

    def wait_for(self, path, process):
        """Until another process has made a file: asking again is all there is."""
        for _ in range(600):
            if os.path.exists(path) and os.path.getsize(path):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                break
        self.fail(f"{path} was not made")

    def test_the_first_password_is_printed_once(self):
        process = self.twistd("--imap", "tcp:0:interface=127.0.0.1")
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        shown = "".join(self.read_until(process, "Another password:"))
        words = shown.split()
        name, password = words[words.index("once:") + 1 :][:2]
        self.assertEqual(name, "me@localhost")
        self.assertRegex(password, r"^[a-z2-9-]{19}$")
        self.assertEqual(shown.count(password), 1)
        process.terminate()
        self.assertNotIn(password, process.stdout.read())
        self.assertIn(process.wait(10), ENDED)
        self.assertNotIn("first-account", os.listdir(os.path.join(self.parent, "mailplat-data")))

    def test_a_directory_that_is_too_deep_for_a_socket(self):
        """The default start works all the same (see test_config), and says what is missing."""
        service = MailService(load(words={"data": os.path.join(self.parent, "d" * 100)}), reactor)
        table = "\n".join(_table(service))
        self.assertRegex(table, r"(?m)^lmtp +not started: \S*/lmtp is too long .*\n +give --data ")

    def test_the_first_password_is_shown_on_a_terminal(self):
        terminal, other = os.openpty()
        self.addCleanup(os.close, terminal)
        process = subprocess.Popen(
            [
                str(self.TWISTD),
                "-n",
                "--pidfile=",
                "--logfile=log",
                "mailplat",
                "--imap",
                "tcp:0:interface=127.0.0.1",
            ],
            cwd=self.parent,
            stdout=other,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        os.close(other)
        shown = b""
        while b"Another password:" not in shown:
            shown += os.read(terminal, 4096)
        words = shown.decode().split()
        name, password = words[words.index("once:") + 1 :][:2]
        self.assertEqual(name, "me@localhost")
        self.assertRegex(password, r"^[a-z2-9-]{19}$")
        self.assertNotIn("first-account", os.listdir(os.path.join(self.parent, "mailplat-data")))
        process.terminate()
        self.assertIn(process.wait(10), ENDED)
        with open(os.path.join(self.parent, "log")) as log:
            self.assertNotIn(password, log.read())

    def failed(self, *words):
        """The last line of a start that fails."""
        process = self.twistd(*words)
        output, _ = process.communicate(timeout=60)
        self.assertNotEqual(process.returncode, 0, output)
        self.assertNotIn("Traceback", output)
        return output.rstrip().splitlines()[-1]

    def test_a_start_that_fails_is_one_line_and_a_status(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            self.assertIn(
                f"mailplat: cannot listen for imap on {endpoint}: Address already in use",
                self.failed("--imap", endpoint),
            )

    def test_a_store_that_is_refused_late_gives_a_status_too(self):
        DataDirectory(self.data).prepare()
        os.mkdir(os.path.join(self.data, "mail"))
        with open(os.path.join(self.data, "mail", "index.sqlite"), "w") as file:
            file.write("this is no index at all" * 100)
        process = self.twistd("--data", self.data, "--imap", "tcp:0:interface=127.0.0.1")
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, output)
        self.assertNotIn("Traceback", output)
        self.assertRegex(output, r"mailplat: \S*index.sqlite\S* ")

    def test_mistakes_in_words(self):
        self.assertIn("--imap: tcp:x: is not an endpoint", self.failed("--imap", "tcp:x"))
        self.assertIn("option --imapx not recognized", self.failed("--imapx", "tcp:0"))
        with open(os.path.join(self.parent, "mail.toml"), "w") as file:
            file.write('[listen]\nimapp = "tcp:0"\n')
        self.assertIn(
            'mail.toml: [listen]: imapp: unknown key, did you mean "imap"?',
            self.failed("--config", "mail.toml"),
        )

    def test_kinds_of_auth(self):
        output, _ = self.twistd("--help-auth-types").communicate(timeout=60)
        for kind in ("accounts", "file", "memory"):
            self.assertRegex(output, rf"(?m)^{kind} +\S")

    def test_help(self):
        process = self.twistd("--help")
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        for word in (
            *(f"--{kind.word}=" for kind in KINDS),
            *("--config=", "--data=", "--domain=", "--hostname=", "--certificate=", "--key=", "--store="),
            *("--auth=", "--plaintext-login=", "--message-size-limit="),
        ):
            self.assertIn(word, output)
