"""The whole server sends to mail servers that others wrote, and takes mail by every kind of listener."""

from __future__ import annotations

import email
import importlib.util
import os
import re
import smtplib
import socket
import ssl
import threading
import time
import unittest
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mailplat.tls import self_signed
from tests.interop.house import (
    DOMAIN,
    MESSAGES,
    PASSWORD,
    House,
    address,
    free_ports,
    has,
    tool,
    without_prefix,
)
from tests.interop.remote import Dovecot, Postfix, Sink, found, reach

#: Short: a UNIX socket's path must fit in 108 octets.
scratch = partial(TemporaryDirectory, prefix="mp-", dir="/tmp")

QUICK = "[limits.schedule]\nretries = [1]\n"


class Sending(unittest.TestCase):
    def house(self, settings: str = "", aliases: str = "", *arguments: str) -> House:
        """A house with more settings and aliases; it has started."""
        house = House()
        self.addCleanup(house.stop)
        file = house.directory / "settings.toml"
        file.write_text(QUICK + settings)
        (house.data / "aliases").write_text(aliases)
        house.arguments = ("--config", str(file), *arguments)
        return house.start()

    def submit(self, house: House, message: bytes, *recipients: str, user: str = "alice") -> None:
        with smtplib.SMTP("127.0.0.1", house.port["submission"], timeout=30) as client:
            client.login(address(user), PASSWORD)
            self.assertEqual(client.sendmail(address(user), recipients, message), {})

    def until(self, question, wanted) -> None:
        """Mail goes its way in its own time, and tells nobody."""
        deadline = time.monotonic() + 30
        pause = threading.Event()
        while (answer := question()) != wanted and time.monotonic() < deadline:
            pause.wait(0.05)
        self.assertEqual(answer, wanted)

    def reported(self, house: House, user: str = "alice") -> list[tuple[str, str, str]]:
        """Action, status and recipient of all reports that a user got."""
        found = []
        for body in house.bodies(user):
            report = email.message_from_bytes(body)
            if report.get_content_type() == "multipart/report":
                for one in report.get_payload()[1].get_payload()[1:]:
                    recipient = one["Final-Recipient"].partition(";")[2].strip()
                    found.append((one["Action"], one["Status"], recipient))
        return found


@unittest.skipUnless(found("smtp-sink"), "smtp-sink (Debian: postfix) is not installed")
class SinkTests(Sending):
    def test_all_messages(self) -> None:
        sink = Sink()
        self.addCleanup(sink.stop)
        house = self.house(f'[relay.routes]\n"b.test" = "smtp:127.0.0.1:{sink.port}"\n')
        for message in MESSAGES.values():
            self.submit(house, message, "x@b.test", "y@b.test")
        self.until(lambda: len(sink.messages()), len(MESSAGES))
        house.terminate()
        kept = sink.messages()
        for message in MESSAGES.values():
            body = message.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n").rstrip(b"\n")
            self.assertTrue(any(one.rstrip(b"\n").endswith(body) for one in kept), message)
        self.assertEqual(house.complaints(), "")

    def test_refused_now_and_for_good(self) -> None:
        now, ever = Sink("-r", "RCPT"), Sink("-f", ".")
        self.addCleanup(now.stop)
        self.addCleanup(ever.stop)
        house = self.house(
            f'[relay.routes]\n"now.test" = "smtp:127.0.0.1:{now.port}"\n'
            f'"ever.test" = "smtp:127.0.0.1:{ever.port}"\n'
        )
        self.submit(house, MESSAGES["plain"], "x@now.test", "x@ever.test")
        self.until(lambda: [(one[0], one[2]) for one in self.reported(house)], [("failed", "x@ever.test")])
        self.assertRegex(house.log.read_text(), r"Queue item \d+ deferred: x@now\.test")


@unittest.skipUnless(
    found("postfix") and os.geteuid() == 0, "postfix is not installed, or this is not root, whom it needs"
)
class PostfixTests(Sending):
    def test_into_its_mailboxes(self) -> None:
        postfix = Postfix()
        self.addCleanup(postfix.stop)
        house = self.house(f'[relay.routes]\n"b.test" = "smtp:127.0.0.1:{postfix.port}"\n')
        for message in MESSAGES.values():
            self.submit(house, message, "alice@b.test", "nobody@b.test", address("bob"))
        self.assertEqual(len(postfix.messages("alice", len(MESSAGES))), len(MESSAGES))
        self.until(lambda: self.reported(house), [("failed", "5.1.1", "nobody@b.test")] * len(MESSAGES))
        self.assertEqual(len(house.bodies("bob")), len(MESSAGES))
        received = email.message_from_bytes(postfix.messages("alice", 1)[0]).get_all("Received")
        self.assertEqual(len(received), 2)
        self.assertIn("by postfix.test (Postfix) with ESMTP", received[0])
        self.assertEqual(house.complaints(), "")


@unittest.skipUnless(
    found("dovecot") and os.path.exists("/usr/lib/dovecot/lmtp") and os.geteuid() == 0,
    "Dovecot's LMTP server is not installed, or this is not root, who may give its mail to anybody",
)
class DovecotTests(Sending):
    def test_as_an_agent(self) -> None:
        """A domain of ours whose mailboxes are Dovecot's: recipients have outcomes of their own."""
        dovecot = Dovecot()
        self.addCleanup(dovecot.stop)
        house = self.house(
            f'[agents]\ndovecot = "lmtp:127.0.0.1:{dovecot.port}"\n',
            "@b.test: agent:dovecot\n",
            "--domain",
            "b.test",
        )
        for message in MESSAGES.values():
            self.submit(house, message, "alice@b.test", "bob@b.test", "nobody@b.test")
        self.until(lambda: self.reported(house), [("failed", "5.1.1", "nobody@b.test")] * len(MESSAGES))
        for user in ("alice", "bob"):
            self.until(lambda: len(dovecot.messages(user)), len(MESSAGES))  # noqa: B023
        self.assertEqual(house.complaints(), "")


@unittest.skipUnless(importlib.util.find_spec("aiosmtpd"), "aiosmtpd is not installed")
class AiosmtpdTests(Sending):
    def test_as_a_smarthost(self) -> None:
        """With a login, as at a provider."""
        from aiosmtpd.controller import Controller
        from aiosmtpd.smtp import AuthResult

        class Handler:
            kept = []

            async def handle_DATA(self, server, session, envelope):
                self.kept.append((session.authenticated, envelope.mail_from, envelope.rcpt_tos))
                return "250 Kept"

        def login(server, session, envelope, mechanism, data):
            return AuthResult(success=(data.login, data.password) == (b"house", b"word"))

        [port] = free_ports(1)
        controller = Controller(
            Handler(), hostname="127.0.0.1", port=port, authenticator=login, auth_required=True,
            auth_require_tls=False,
        )  # fmt: skip
        controller.start()
        self.addCleanup(controller.stop)
        settings = (
            f'[relay.routes]\n".test" = "smtp:127.0.0.1:{port};login=provider;tls=may"\n'
            '[relay.logins.provider]\nuser = "house"\npassword = "word"\n'
        )
        house = self.house(settings)
        self.submit(house, MESSAGES["plain"], "a@b.test", "c@d.test")
        self.until(lambda: sorted(Handler.kept), [(True, address("alice"), ["a@b.test", "c@d.test"])])


class Pipes(Sending):
    def test_a_program(self) -> None:
        """An alias names a program; what it prints is in the report."""
        directory = Path(self.enterContext(scratch()))
        program, out = directory / "program", directory / "out"
        program.write_text('#!/bin/sh\ncat > "$1"\n[ "$2" = good ] || { echo not $2; exit 65; }\n')
        program.chmod(0o755)
        house = self.house(
            f'[agents]\nprogram = "pipe:{program} {out} {{local}}"\n',
            "good: agent:program\nbad: agent:program\n",
        )
        self.submit(house, MESSAGES["dots"], address("good"))
        self.until(lambda: out.exists() and out.read_bytes()[-6:], b".end\r\n")
        self.submit(house, MESSAGES["plain"], address("bad"))
        self.until(lambda: [(one[0], one[2]) for one in self.reported(house)], [("failed", address("bad"))])
        self.assertIn(b"not bad", house.bodies()[0])


class ListenerTests(Sending):
    """UNIX sockets for SMTP, and LMTP over TCP and TLS."""

    def setUp(self) -> None:
        certificates = Path(self.enterContext(scratch()))
        pem = self_signed(str(certificates), "mx.example.test")
        self.lmtp, self.lmtps = free_ports(2)
        self.socket = certificates / "smtp"
        self.served = self.house(
            "", "", "--smtp", f"unix:{self.socket}:mode=600",
            "--lmtp", f"tcp:{self.lmtp}:interface=127.0.0.1",
            "--lmtp", f"ssl:{self.lmtps}:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
        )  # fmt: skip
        reach(self.lmtps)
        self.tls = ssl._create_unverified_context()

    def with_words(self) -> list[str]:
        """The protocol of each message's way in."""
        return [re.search(rb"\bwith (\w+)", body)[1].decode() for body in self.served.bodies()]

    def test_smtp_by_a_unix_socket(self) -> None:
        client = smtplib.SMTP(timeout=30)
        client.sock = socket.socket(socket.AF_UNIX)
        client.sock.settimeout(30)
        client.sock.connect(str(self.socket))
        client.file = None
        self.assertEqual(client.getreply()[0], 220)
        client.sendmail("a@elsewhere.test", [address("alice")], MESSAGES["dots"])
        client.quit()
        self.assertEqual([without_prefix(body) for body in self.served.bodies()], [MESSAGES["dots"]])
        self.assertEqual(self.with_words(), ["ESMTP"])

    def test_lmtp_with_starttls_and_tls(self) -> None:
        with smtplib.LMTP("127.0.0.1", self.lmtp) as client:
            client.ehlo()
            self.assertTrue(client.has_extn("starttls"))
            client.starttls(context=self.tls)
            client.sendmail("a@elsewhere.test", [address("alice")], MESSAGES["dots"])
        client = smtplib.LMTP("", 0)
        client.sock = self.tls.wrap_socket(socket.create_connection(("127.0.0.1", self.lmtps), 30))
        client.file = None
        self.assertEqual(client.getreply()[0], 220)
        client.ehlo()
        self.assertFalse(client.has_extn("starttls"))
        client.sendmail("a@elsewhere.test", [address("alice"), address("bob")], MESSAGES["plain"])
        client.quit()
        self.assertEqual(self.with_words(), ["LMTPS", "LMTPS"])

    @unittest.skipUnless(has("swaks"), "swaks is not installed")
    def test_swaks(self) -> None:
        to = ("--from", "a@elsewhere.test", "--to", address("alice"))
        tool("swaks", "--socket", str(self.socket), *to)
        tool("swaks", "--protocol", "LMTP", "--server", "127.0.0.1", "--port", str(self.lmtp), "--tls", *to)
        tool("swaks", "--protocol", "LMTP", "--server", "127.0.0.1", "--port", str(self.lmtps), "--tlsc", *to)
        self.assertEqual(self.with_words(), ["ESMTP", "LMTPS", "LMTPS"])


@unittest.skipUnless(has("swaks"), "swaks is not installed")
class SwaksTests(Sending):
    """It knows no parameters, but says as an address whatever it is told (but for a comma)."""

    def setUp(self) -> None:
        self.served = self.house()

    def swaks(self, sender: str, recipient: str, *words: str) -> None:
        tool(
            "swaks", "--server", "127.0.0.1", "--port", str(self.served.port["submission"]), "--tls",
            "--auth", "PLAIN", "--auth-user", address("bob"), "--auth-password", PASSWORD,
            "--from", sender, "--to", recipient, "--h-From", address("bob"), *words,
        )  # fmt: skip

    def test_reports(self) -> None:
        # The last ">" is swaks's own, and may stand in xtext (RFC 3461 §4).
        self.swaks(
            f"{address('bob')}> RET=HDRS ENVID=id",
            f"{address('alice')}> NOTIFY=SUCCESS ORCPT=rfc822;al+2Bx@else.test",
        )
        self.until(lambda: self.reported(self.served, "bob"), [("delivered", "2.0.0", address("alice"))])
        (report,) = self.served.bodies("bob")
        self.assertIn(b"Original-Envelope-Id: id>", report)
        self.assertIn(b"Original-Recipient: rfc822; al+x@else.test>", report)
        self.assertEqual(len(self.served.bodies("alice")), 1)

    def test_later(self) -> None:
        begun = time.time()
        self.swaks(f"{address('bob')}> HOLDFOR=3 ENVID=x", address("alice"), "--pipeline")
        self.assertEqual(self.served.bodies("alice"), [])
        self.until(lambda: len(self.served.bodies("alice")), 1)
        self.assertGreaterEqual(time.time(), begun + 3)

    def test_another_sender(self) -> None:
        with self.assertRaises(AssertionError) as caught:
            self.swaks(f"carol@{DOMAIN}", address("alice"))
        self.assertIn("not yours", str(caught.exception))
