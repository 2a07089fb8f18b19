"""Two houses send each other mail: submission, queue, relay, the other one's SMTP, and a mailbox."""

from __future__ import annotations

import os
from base64 import b64encode

from mailplat.errors import PermanentError
from mailplat.values import ReportRequest
from tests.houses.house import Town

HOUR, DAY = 3600, 86400


class BothWays(Town):
    there_aliases = "team: alice, bob\n@there.test: bob\n"
    here_aliases = "fwd: alice@there.test\nloop: loop@there.test\nkeep: keep, alice@there.test\n"

    def test_there_and_back(self):
        self.assertEqual(self.here.submit("alice@there.test", "bob@here.test"), [None, None])
        self.assertEqual(self.subjects(self.here, "bob"), ["hello"])
        self.network.advance(10)
        (message,) = self.there.inbox()
        self.assertEqual(message["Return-Path"], "<alice@here.test>")
        self.assertEqual(len(message.get_all("Received")), 2)
        self.assertIn("with ESMTP", message.get_all("Received")[0])
        self.assertIn("with ESMTPSA", message.get_all("Received")[1])
        self.assertEqual(self.there.submit("bob@here.test", user="bob"), [None])
        self.network.advance(10)
        self.assertEqual(len(self.here.inbox("bob")), 2)
        self.assertEqual(self.here.waiting() + self.there.waiting(), 0)

    def test_groups_and_catch_all(self):
        self.here.submit("team@there.test", "whoever@there.test")
        self.network.advance(10)
        # One copy for each account, however many of its names were written.
        self.assertEqual(len(self.there.inbox("alice")), 1)
        self.assertIn(len(self.there.inbox("bob")), (1, 2))

    def test_forwarded_for_a_stranger(self):
        """The sender stays who it is, and a report about it goes where it came from."""
        self.assertEqual(self.there.submit("fwd@here.test"), [None])
        self.network.advance(10)
        (message,) = self.there.inbox()
        self.assertEqual(message["Return-Path"], "<alice@there.test>")
        self.assertEqual(len(message.get_all("Received")), 3)

    def test_refused_there(self):
        """A report in the sender's INBOX, with what the other host said."""
        self.here.submit("alice@nowhere.test")
        self.network.advance(10)
        (report,) = self.here.inbox()
        self.assertEqual(report["Return-Path"], "<>")
        self.assertEqual(report.get_content_type(), "multipart/report")
        text, status, original = report.iter_parts()
        about, recipient = status.get_payload()
        self.assertEqual(about["Reporting-MTA"], "dns; mx.here.test")
        self.assertEqual(recipient["Final-Recipient"], "rfc822; alice@nowhere.test")
        self.assertEqual((recipient["Action"], recipient["Status"]), ("failed", "5.1.2"))
        self.assertIn("hello", str(original))

    def test_not_to_the_sender_of_a_report(self):
        """Nobody hears of a report that cannot be delivered."""
        self.here.submit("alice@nowhere.test")
        answers = self.here.talk(
            "EHLO x.test",
            "MAIL FROM:<>",
            "RCPT TO:<fwd@here.test>",
            "DATA",
            "Subject: x\r\n\r\n.",
            source="mx.there.test",
        )
        self.assertEqual(answers[-1][:3], "250")
        self.network.hosts["mx.there.test"].close(25)
        self.network.advance(6 * DAY)
        self.assertEqual(len(self.here.inbox()), 1)
        self.assertEqual(self.here.waiting(), 0)


class Loops(Town):
    here_aliases = "loop: loop@there.test\n"
    there_aliases = "loop: loop@here.test\n"

    def test_between_two_houses(self):
        """It ends, and the sender is told, once."""
        self.here.submit("loop@here.test")
        self.network.advance(HOUR)
        (report,) = self.here.inbox()
        status = list(report.iter_parts())[1]
        self.assertEqual(status.get_payload()[1]["Action"], "failed")
        self.assertIn("circle", str(status))
        self.assertEqual((self.here.waiting(), self.there.waiting(), len(self.there.inbox())), (0, 0, 0))


class Agents(Town):
    here_aliases = "archive: agent:archive, alice\nnext: agent:next\n"

    def setUp(self):
        self.path = os.path.abspath(self.mktemp())
        self.here_settings = f'[agents]\narchive = "file:{self.path}"\nnext = "smtp:mx.there.test"\n'
        super().setUp()

    def test_a_file(self):
        self.assertEqual(self.here.submit("archive@here.test"), [None])
        self.network.advance(10)
        self.assertEqual(self.subjects(self.here), ["hello"])
        with open(self.path) as file:
            text = file.read()
        self.assertEqual(text.count("\nSubject: hello\n"), 1)
        self.assertTrue(text.startswith("From alice@here.test "))
        self.assertIn("\nDelivered-To: archive@here.test\n", text)

    def test_a_next_hop(self):
        """It is asked for the address that was written, and refuses one that is not its own."""
        self.here.submit("next@here.test")
        self.network.advance(10)
        (report,) = self.here.inbox()
        self.assertIn("Relaying denied", str(report).replace("\n", " "))


class Reports(Town):
    """What is asked for is told (RFC 3461)."""

    def reports(self):
        found = []
        for message in self.here.inbox():
            self.assertEqual(message.get_content_type(), "multipart/report")
            _, status, original = message.iter_parts()
            about, *recipients = status.get_payload()
            for one in recipients:
                found.append((one["Action"], one["Final-Recipient"].partition("; ")[2]))
            self.last = about, recipients, original
        return found

    def asked(self, *words, recipient="alice@there.test", **settings):
        request = ReportRequest(frozenset(words), "rfc822;Al+ice@elsewhere.test")
        self.here.submit(recipient, request=request, envelope_id="id 17", **settings)
        self.network.advance(10)

    def test_success(self):
        """The other house tells it, as we told it what was asked."""
        self.asked("SUCCESS")
        self.assertEqual(self.reports(), [("delivered", "alice@there.test")])
        about, (recipient,), _ = self.last
        self.assertEqual(about["Original-Envelope-Id"], "id 17")
        self.assertEqual(recipient["Original-Recipient"], "rfc822; Al+ice@elsewhere.test")
        self.assertEqual(about["Reporting-MTA"], "dns; mx.there.test")

    def test_success_here(self):
        self.asked("SUCCESS", recipient="bob@here.test")
        self.assertEqual(self.reports(), [("delivered", "bob@here.test")])
        self.assertEqual(len(self.here.inbox("bob")), 1)

    def test_success_is_relayed_where_nobody_reports(self):
        self.network.scripted_server("mx.old.test", "192.0.2.9")
        self.network.domain("old.test", "mx.old.test")
        self.asked("SUCCESS", recipient="x@old.test")
        self.assertEqual(self.reports(), [("relayed", "x@old.test")])

    def test_not_asked(self):
        for words in ((), ("FAILURE",), ("DELAY",)):
            self.asked(*words)
        self.assertEqual(self.reports(), [])
        self.assertEqual(len(self.there.inbox()), 3)

    def test_failure(self):
        self.asked("FAILURE", recipient="nobody@there.test", returns="HDRS")
        self.assertEqual(self.reports(), [("failed", "nobody@there.test")])
        _, (recipient,), original = self.last
        self.assertEqual(original.get_content_type(), "text/rfc822-headers")
        self.assertEqual(recipient["Remote-MTA"], "dns; mx.there.test")
        self.assertIn("550 5.1.1", recipient["Diagnostic-Code"])

    def test_failure_whole(self):
        self.asked("FAILURE", recipient="nobody@there.test", returns="FULL")
        self.reports()
        self.assertEqual(self.last[2].get_content_type(), "message/rfc822")

    def test_never(self):
        self.asked(recipient="nobody@there.test")
        self.network.advance(6 * DAY)
        self.assertEqual(self.reports(), [])
        self.assertEqual(self.here.waiting(), 0)

    def test_delay_and_end(self):
        """Four hours and five days, in which the other house is not there."""
        self.network.hosts["mx.there.test"].down = True
        self.here.submit("alice@there.test")
        self.network.advance(4 * HOUR - 120)
        self.assertEqual(self.reports(), [])
        self.network.advance(240)
        self.assertEqual(self.reports(), [("delayed", "alice@there.test")])
        self.assertIn("Will-Retry-Until", self.last[1][0])
        self.network.advance(5 * DAY - 5 * HOUR)
        self.assertEqual(len(self.reports()), 1)
        self.network.advance(2 * HOUR)
        self.assertEqual(self.reports(), [("delayed", "alice@there.test"), ("failed", "alice@there.test")])
        self.assertEqual(self.last[1][0]["Status"], "4.4.7")
        self.assertEqual(self.here.waiting(), 0)

    def test_it_comes_back(self):
        self.network.hosts["mx.there.test"].down = True
        self.here.submit("alice@there.test")
        self.network.advance(2 * HOUR)
        self.network.hosts["mx.there.test"].down = False
        self.network.advance(5 * HOUR)
        self.assertEqual(len(self.there.inbox()), 1)
        self.assertEqual(self.reports(), [])

    def test_refused_in_the_dialogue(self):
        """What is known at once is no report's business."""
        (error,) = self.here.submit("nobody@here.test")
        self.assertIsInstance(error, PermanentError)
        self.network.advance(DAY)
        self.assertEqual(self.reports(), [])


class FutureRelease(Town):
    def submit(self, words):
        plain = b64encode(b"\0alice@here.test\0secret").decode()
        answers = self.here.talk(
            "EHLO client.test", f"AUTH PLAIN {plain}", f"MAIL FROM:<alice@here.test> {words}",
            "RCPT TO:<alice@there.test>", "RCPT TO:<bob@here.test>", "DATA", "Subject: later\r\n\r\nx\r\n.",
            port=587,
        )  # fmt: skip
        return answers[3][:3], answers[-1][:3]

    def test_later(self):
        """Near and far, nothing before its time (RFC 4865)."""
        self.assertEqual(self.submit("HOLDFOR=7200"), ("250", "250"))
        self.network.advance(7100)
        self.assertEqual((self.subjects(self.there), self.subjects(self.here, "bob")), ([], []))
        self.network.advance(200)
        self.assertEqual((self.subjects(self.there), self.subjects(self.here, "bob")), (["later"], ["later"]))

    def test_until(self):
        self.assertEqual(self.submit("HOLDUNTIL=2026-01-01T03:00:00Z"), ("250", "250"))
        self.network.advance(3 * HOUR - 60)
        self.assertEqual(self.subjects(self.there), [])
        self.network.advance(120)
        self.assertEqual(self.subjects(self.there), ["later"])

    def test_too_late(self):
        self.assertEqual(self.submit("HOLDFOR=99999999")[0], "501")
