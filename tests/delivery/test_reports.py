"""Reports about delivery: who is told what, and that any mail program can read it."""

from __future__ import annotations

import email
import email.policy
import os
import re
import tracemalloc
from email.message import EmailMessage
from tempfile import TemporaryDirectory

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailplat.delivery.queue import Queue, Schedule
from mailplat.delivery.reports import ReportLimits, Reports
from mailplat.errors import (
    Expired,
    NoSuchDomain,
    NoSuchRecipient,
    NotResolved,
    PermanentError,
    StorageFull,
    TemporaryError,
)
from mailplat.interfaces import IDeliveryAgent, IRouter
from mailplat.storage.memory_queue import MemoryQueue
from mailplat.storage.spool import Spool
from mailplat.testing.fakes import MemoryMessage, MemorySpool, outline_of
from mailplat.values import Address, Envelope, Outcome, QueuedRecipient, QueueItem, ReportRequest, Target

SENDER = Address("alice", "example.test")
BOB = Address("bob", "there.test")
POSTMASTER = Address("postmaster", "mx.example.test")
PREFIX = b"Received: from a by b; Mon, 1 Jan 2001 00:00:00 +0000\r\n"
MESSAGE = b"From: alice@example.test\r\nMessage-ID: <one@example.test>\r\nSubject: hello\r\n\r\nThe text.\r\n"
NOW = 1_700_000_000


@implementer(IRouter)
class Router:
    """Everybody is elsewhere, but for those who are nowhere."""

    error = None

    async def route(self, recipient, sender):
        if self.error is not None:
            raise self.error
        return [Target("relay", recipient.domain, recipient)]

    def is_local(self, domain):
        return False

    async def owns(self, account, sender):
        return False


def waiting(*recipients, size=1000, **envelope):
    envelope.setdefault("sender", SENDER)
    recipients = recipients or (queued(),)
    numbered = tuple(
        QueuedRecipient(number, Target("relay", one.target.place, one.target.address), *rest(one))
        for number, one in enumerate(recipients)
    )
    return QueueItem(7, Envelope(**envelope), "", NOW - 1000, size, numbered)


def rest(one):
    return one.request, one.due, one.notice, one.attempts, one.host, one.reply, one.delayed


def queued(address=BOB, notify=None, original="", **other):
    request = ReportRequest(None if notify is None else frozenset(notify), original)
    return QueuedRecipient(0, Target("relay", address.domain, address), request, **other)


def failed(reply="550 5.1.1 No such user", host="mx.there.test", error=None):
    return Outcome(BOB, error or PermanentError("refused"), host, reply)


class ReportCase(SynchronousTestCase):
    def setUp(self):
        self.router, self.spool = Router(), MemorySpool()
        self.reports = self.made()

    def made(self, spool=None, limits=None):
        numbers = iter(range(1000, 10**9))
        clock = Clock()
        clock.advance(NOW)
        return Reports(
            self.router,
            spool or self.spool,
            "mx.example.test",
            POSTMASTER,
            lambda: f"id{next(numbers)}",
            Schedule(),
            clock,
            limits,
        )

    def wait(self, coroutine):
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def finished(self, item, outcomes, message=MESSAGE, prefix=PREFIX):
        spooled = MemoryMessage(message, outline_of(message))
        about = [(item.recipients[number], outcome) for number, outcome in outcomes.items()]
        return self.wait(self.reports.report(item, about, spooled, prefix))

    def delayed(self, item, body=None):
        about = [
            (one, Outcome(one.target.address, TemporaryError(one.reply), one.host, one.reply))
            for one in item.recipients
        ]
        message = body or MemoryMessage(MESSAGE, outline_of(MESSAGE))
        return self.wait(self.reports.report(item, about, message, PREFIX))

    def parsed(self, new):
        """The report, after what holds for every report."""
        self.assertIsNone(new.envelope.sender)
        self.assertEqual([one.request.notify for one in new.recipients], [frozenset()])
        data = new.body.data
        self.assertNotIn(b"\0", data)
        self.assertNotRegex(data, rb"(?<!\r)\n|\r(?!\n)")
        self.assertLess(max(map(len, data.split(b"\r\n"))), 999)
        if new.envelope.body == "7BIT":
            self.assertTrue(data.isascii())
        whole = email.message_from_bytes(data, policy=email.policy.SMTPUTF8)
        assert isinstance(whole, EmailMessage)
        self.assertEqual(whole.get_content_type(), "multipart/report")
        self.assertEqual(whole.get_param("report-type"), "delivery-status")
        self.assertEqual(whole["Auto-Submitted"], "auto-replied")
        self.assertEqual(whole["MIME-Version"], "1.0")
        self.assertIn(f"<{POSTMASTER}>", whole["From"])
        self.assertTrue(whole["Date"] and whole["Message-ID"])
        self.assertEqual(len(whole.get_payload()), 3)
        return whole

    def status(self, new):
        """The fields of the whole and of each recipient."""
        part = self.parsed(new).get_payload(1)
        if part.get_content_type() == "message/delivery-status":
            first, *others = part.get_payload()
        else:
            self.assertEqual(part.get_content_type(), "message/global-delivery-status")
            (text,) = re.findall(
                rb"global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\n(.*?)\r\n--report",
                new.body.data,
                re.DOTALL,
            )
            first, *others = [
                email.message_from_string(block, policy=email.policy.SMTPUTF8)
                for block in text.decode("utf-8").split("\r\n\r\n")
            ]
        return dict(first), [dict(other) for other in others]


class FailureTests(ReportCase):
    def test_field_by_field(self):
        item = waiting(
            queued(original="rfc822;Bob@Old.test"), envelope_id="ENV=1", returns="FULL", body="8BITMIME"
        )
        new = self.finished(item, {0: failed()})
        self.assertEqual(new.envelope, Envelope(None))
        self.assertEqual((new.account, new.arrived, new.prefix), ("", NOW, b""))
        (recipient,) = new.recipients
        self.assertEqual(recipient.target, Target("relay", "example.test", SENDER))
        self.assertEqual((recipient.due, recipient.notice), (NOW, NOW + 4 * 3600))
        whole = self.parsed(new)
        self.assertEqual(whole["To"], "alice@example.test")
        self.assertEqual(whole["References"], "<one@example.test>")
        first, (about,) = self.status(new)
        self.assertEqual(
            first,
            {
                "Original-Envelope-Id": "ENV=1",
                "Reporting-MTA": "dns; mx.example.test",
                "Arrival-Date": "Tue, 14 Nov 2023 21:56:40 +0000",
            },
        )
        self.assertEqual(
            about,
            {
                "Original-Recipient": "rfc822; Bob@Old.test",
                "Final-Recipient": "rfc822; bob@there.test",
                "Action": "failed",
                "Status": "5.1.1",
                "Remote-MTA": "dns; mx.there.test",
                "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
                "Last-Attempt-Date": "Tue, 14 Nov 2023 22:13:20 +0000",
            },
        )
        text = whole.get_payload(0).get_content()
        self.assertIn("bob@there.test\r\n    mx.there.test said: 550 5.1.1 No such user\r\n", text)
        self.assertIn("Check the address: nobody of this name is known there.", text)
        third = whole.get_payload(2)
        self.assertEqual(third.get_content_type(), "message/rfc822")
        self.assertEqual(third.get_payload(0)["Subject"], "hello")
        self.assertIn(b"\r\n\r\n" + PREFIX + MESSAGE + b"\r\n--report", new.body.data)

    def test_returns(self):
        for returns, size, whole in (
            ("", 65_536, True),
            ("", 65_537, False),
            ("FULL", 10**9, True),
            ("HDRS", 10, False),
        ):
            third = self.parsed(
                self.finished(waiting(size=size, returns=returns), {0: failed()})
            ).get_payload(2)
            self.assertEqual(third.get_content_type(), "message/rfc822" if whole else "text/rfc822-headers")
            if not whole:
                self.assertEqual(
                    third.get_payload(), (PREFIX + MESSAGE.partition(b"\r\n\r\n")[0]).decode() + "\r\n"
                )

    def test_as_large_as_set(self):
        self.reports = self.made(limits=ReportLimits(whole=500))
        for size, kind in ((500, "message/rfc822"), (501, "text/rfc822-headers")):
            report = self.parsed(self.finished(waiting(size=size), {0: failed()}))
            self.assertEqual(report.get_payload(2).get_content_type(), kind)

    def test_a_long_header_is_cut_at_a_line(self):
        self.reports = self.made(limits=ReportLimits(header=100))
        message = b"".join(b"Field-%d: some text here\r\n" % n for n in range(100)) + b"\r\n"
        new = self.finished(waiting(returns="HDRS"), {0: failed()}, message, b"")
        header = self.parsed(new).get_payload(2).get_payload()
        self.assertTrue(header.endswith("text here\r\n") and 50 < len(header) <= 100, header)

    def test_who_is_told(self):
        for notify, told in ((None, True), ((), False), (("FAILURE",), True), (("SUCCESS", "DELAY"), False)):
            new = self.finished(waiting(queued(notify=notify)), {0: failed()})
            self.assertEqual(new is not None, told, notify)

    def test_never_to_nobody(self):
        item = waiting(sender=None)
        self.assertIsNone(self.finished(item, {0: failed()}))
        self.assertIsNone(self.delayed(item))
        self.router.error = NoSuchRecipient()
        self.assertIsNone(self.finished(waiting(), {0: failed()}))
        self.assertEqual(self.spool.open, 0)

    def test_no_report_about_a_report(self):
        new = self.finished(waiting(), {0: failed()})
        item = QueueItem(8, new.envelope, "", NOW, new.body.size, tuple(new.recipients))
        about = [(new.recipients[0], Outcome(SENDER, NoSuchRecipient()))]
        self.assertIsNone(self.wait(self.reports.report(item, about, new.body, b"")))
        self.assertIsNone(self.delayed(item, new.body))

    def test_it_is_not_known_where_the_sender_is(self):
        self.router.error = NotResolved()
        message = MemoryMessage(MESSAGE, outline_of(MESSAGE))
        call = Deferred.fromCoroutine(self.reports.report(waiting(), [(queued(), failed())], message, b""))
        self.failureResultOf(call, NotResolved)

    def test_no_room(self):
        self.spool.fail = StorageFull()
        message = MemoryMessage(MESSAGE, outline_of(MESSAGE))
        call = Deferred.fromCoroutine(self.reports.report(waiting(), [(queued(), failed())], message, b""))
        self.failureResultOf(call, StorageFull)
        self.assertEqual((self.spool.open, message.closed), (0, 0))

    def test_status_codes(self):
        for outcome, status in (
            (failed("550 5.7.26 no"), "5.7.26"),
            (failed("550-5.7.1 no"), "5.7.1"),
            (failed("554 refused"), "5.0.0"),
            (failed("550 4.2.2 mixed up"), "5.0.0"),
            (failed("550 5.1.1.1 odd"), "5.0.0"),
            (failed("5501 odd"), "5.0.0"),
            (failed("250 2.0.0 odd"), "5.0.0"),
            (failed("", "", NoSuchDomain()), "5.1.2"),
            (failed("", "", Expired()), "4.4.7"),
        ):
            _, (about,) = self.status(self.finished(waiting(), {0: outcome}))
            self.assertEqual(about["Status"], status, outcome)

    def test_given_up(self):
        last = queued(host="mx2.there.test", reply="451 4.3.0 Later", attempts=30)
        new = self.finished(waiting(last), {0: Outcome(BOB, Expired())})
        _, (about,) = self.status(new)
        self.assertEqual(about["Diagnostic-Code"], "smtp; 451 4.3.0 Later")
        self.assertEqual(about["Remote-MTA"], "dns; mx2.there.test")
        self.assertIn("given up", self.parsed(new).get_payload(0).get_content())

    def test_what_no_host_said(self):
        _, (about,) = self.status(self.finished(waiting(), {0: failed("", "", NoSuchDomain())}))
        self.assertEqual(about["Diagnostic-Code"], "x-mailplat; No such domain")
        self.assertNotIn("Remote-MTA", about)

    def test_several_recipients(self):
        item = waiting(
            queued(Address("one", "a.test")),
            queued(Address("two", "b.test"), notify=()),
            queued(Address("three", "c.test"), notify=("SUCCESS",)),
            queued(Address("four", "d.test")),
        )
        outcomes = {0: failed(), 1: failed(), 2: Outcome(BOB, None, "mx.c.test", "250 2.1.5 OK")}
        _, about = self.status(self.finished(item, outcomes))
        self.assertEqual(
            [(one["Final-Recipient"], one["Action"], one["Status"]) for one in about],
            [("rfc822; one@a.test", "failed", "5.1.1"), ("rfc822; three@c.test", "delivered", "2.1.5")],
        )

    def test_very_many_recipients(self):
        item = waiting(*(queued(Address(f"user{n}", "a.test")) for n in range(300)))
        new = self.finished(item, {n: failed() for n in range(300)})
        self.assertEqual(len(self.status(new)[1]), 300)
        text = self.parsed(new).get_payload(0).get_content()
        self.assertEqual(text.count("@a.test"), 20)
        self.assertIn("and 280 more", text)

    def test_a_large_message_is_never_in_memory(self):
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        spool = Spool(
            os.path.join(scratch.name, "spool"), None, in_thread=lambda call, *args: succeed(call(*args))
        )
        spool.start()
        self.reports = self.made(spool)

        class Large:
            data, path, size = None, None, 50_000_000
            outline = outline_of(MESSAGE)

            async def read(self, start, length):
                return (MESSAGE + b"x" * 120_000 + b"\r\n").ljust(length)[: min(length, self.size - start)]

        item = waiting(size=50_000_000, returns="FULL")
        tracemalloc.start()
        try:
            new = self.wait(self.reports.report(item, [(queued(), failed())], Large(), b""))
            self.assertLess(tracemalloc.get_traced_memory()[1], 10_000_000)
        finally:
            tracemalloc.stop()
        self.assertGreater(new.body.size, 50_000_000)
        self.assertIsNone(new.body.data)
        new.body.close()


class OtherTests(ReportCase):
    def test_success(self):
        for outcome, action in (
            (Outcome(BOB, None, "mx.test", "250 2.6.0 OK", relayed=True), "relayed"),
            (Outcome(BOB), "delivered"),
        ):
            item = waiting(queued(notify=("SUCCESS",)), returns="FULL")
            new = self.finished(item, {0: outcome})
            _, (about,) = self.status(new)
            self.assertEqual((about["Action"], about["Status"][0]), (action, "2"))
            # RFC 3461 §4.3: RET is about failures.
            self.assertEqual(self.parsed(new).get_payload(2).get_content_type(), "text/rfc822-headers")
            self.assertIsNone(self.finished(waiting(queued(notify=("FAILURE",))), {0: outcome}))
            self.assertIsNone(self.finished(waiting(), {0: outcome}))
        passed_on = Outcome(BOB, None, "mx.test", "250 OK", passed_on=True)
        self.assertIsNone(self.finished(waiting(queued(notify=("SUCCESS",))), {0: passed_on}))

    def test_delay(self):
        item = waiting(
            queued(host="mx.test", reply="451 4.7.1 Greylisted"),
            queued(reply="The next host cannot be reached", notify=("DELAY",)),
            queued(notify=("FAILURE",)),
            returns="FULL",
        )
        new = self.delayed(item)
        _, (one, two) = self.status(new)
        self.assertEqual(one["Action"], "delayed")
        self.assertEqual((one["Status"], two["Status"]), ("4.7.1", "4.0.0"))
        self.assertEqual(one["Will-Retry-Until"], "Sun, 19 Nov 2023 21:56:40 +0000")
        self.assertNotIn("Last-Attempt-Date", one)
        self.assertEqual(two["Diagnostic-Code"], "x-mailplat; The next host cannot be reached")
        whole = self.parsed(new)
        self.assertIn("delayed", whole["Subject"])
        self.assertIn("You need not do anything", whole.get_payload(0).get_content())
        self.assertEqual(whole.get_payload(2).get_content_type(), "text/rfc822-headers")


class InternationalTests(ReportCase):
    """RFC 6533."""

    MESSAGE = "From: älice@example.test\r\nSubject: grüße\r\n\r\nText: ü\r\n".encode()
    UENDER = Address("ünder", "müller.test")

    def test_from_a_sender_who_reads_utf8(self):
        sender = Address("älice", "example.test")
        for returns, kind in (("FULL", "message/global"), ("HDRS", "message/global-headers")):
            item = waiting(
                queued(self.UENDER, original="utf-8;ünder@müller.test"),
                sender=sender,
                utf8=True,
                body="8BITMIME",
                returns=returns,
            )
            new = self.finished(item, {0: failed("550 5.1.1 kein Empfänger")}, self.MESSAGE)
            self.assertEqual(new.envelope, Envelope(None, (), "8BITMIME", True))
            whole = self.parsed(new)
            self.assertEqual(whole["To"], "älice@example.test")
            _, (about,) = self.status(new)
            self.assertEqual(about["Original-Recipient"], "utf-8; ünder@müller.test")
            self.assertEqual(about["Final-Recipient"], "utf-8; ünder@müller.test")
            self.assertEqual(about["Diagnostic-Code"], "smtp; 550 5.1.1 kein Empfänger")
            self.assertEqual(whole.get_payload(2).get_content_type(), kind)
            text = whole.get_payload(0).get_content()
            self.assertIn("ünder@müller.test", text)

    def test_to_a_sender_who_may_not(self):
        """An alias led to an address that the sender never wrote."""
        item = waiting(queued(self.UENDER, original="rfc822;bob@there.test"))
        new = self.finished(item, {0: failed("550 5.1.1 kein Empfänger")})
        self.assertEqual(new.envelope, Envelope(None))
        _, (about,) = self.status(new)
        self.assertEqual(about["Original-Recipient"], "rfc822; bob@there.test")
        self.assertEqual(about["Final-Recipient"], r"utf-8; \x{FC}nder@m\x{FC}ller.test")
        self.assertEqual(about["Diagnostic-Code"], "smtp; 550 5.1.1 kein Empf?nger")
        self.assertIn("ünder@müller.test", self.parsed(new).get_payload(0).get_content())

    def test_nothing_in_utf8_needs_it(self):
        new = self.finished(waiting(utf8=True, body="8BITMIME"), {0: failed()})
        self.assertEqual(new.envelope, Envelope(None))
        self.assertEqual(self.parsed(new).get_payload(2).get_content_type(), "message/rfc822")

    def test_eight_bits_that_nobody_declared(self):
        for message in (b"Subject: \xe4\r\n\r\nText\r\n", b"Subject: x\r\n\r\nText \xe4\r\n"):
            new = self.finished(waiting(), {0: failed()}, message)
            self.assertEqual((new.envelope.body, new.envelope.utf8), ("8BITMIME", False))
            third = self.parsed(new).get_payload(2)
            self.assertEqual(third["Content-Transfer-Encoding"], "8bit")
            self.assertIn(PREFIX + message + b"\r\n--report", new.body.data)


class HostileTests(ReportCase):
    """Whatever other hosts and senders said, a report is a report."""

    texts = st.text(max_size=300) | st.text("\r\n\0 :;-=\\\x85\u2028äx", max_size=2500)
    addresses = st.builds(Address, st.text(max_size=80), st.text(max_size=80))

    @settings(max_examples=80, deadline=None)
    @given(texts, texts, texts, texts, addresses, addresses, st.booleans(), st.binary(max_size=80))
    def test_anything(self, reply, host, original, envelope_id, sender, address, utf8, junk):
        # Nobody writes to a sender with an address of its own choice instead of a domain.
        assume(not sender.domain.startswith("["))
        item = waiting(
            queued(address, original=original),
            queued(BOB, original=f"rfc822;{original}"),
            sender=sender,
            envelope_id=envelope_id,
            utf8=utf8,
        )
        # What arrives has lines that end in CR LF and are not too long: the server sees to that.
        message = b"Message-ID: " + re.sub(rb"[\r\n\0]", b"", junk) + b"\r\n" + MESSAGE
        outcomes = {0: failed(reply, host), 1: failed("550 " + reply, host)}
        new = self.finished(item, outcomes, message)
        first, about = self.status(new)
        allowed = {"Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"}
        self.assertLessEqual(set(first), allowed)
        self.assertEqual(len(about), 2)
        allowed = {
            "Original-Recipient",
            "Final-Recipient",
            "Action",
            "Status",
            "Remote-MTA",
            "Diagnostic-Code",
            "Last-Attempt-Date",
        }
        for one in about:
            self.assertLessEqual(set(one), allowed)
            self.assertEqual(one["Action"], "failed")
            self.assertRegex(one["Status"], r"\A[45]\.[0-9]{1,3}\.[0-9]{1,3}\Z")
        self.assertEqual(about[1]["Final-Recipient"], "rfc822; bob@there.test")


@implementer(IDeliveryAgent)
class RefusingAgent:
    """Refuses everything, and remembers it."""

    def __init__(self):
        self.seen = []

    async def deliver(self, envelope, message, prefix, targets):
        self.seen.append((envelope.sender, targets[0].address))
        error = PermanentError("refused")
        return [Outcome(target.address, error, "mx.test", "550 5.1.1 no") for target in targets]


class QueueTests(ReportCase):
    """With the running queue."""

    def started(self):
        self.agent, self.store, self.clock = RefusingAgent(), MemoryQueue(), Clock()
        self.clock.advance(NOW)
        queue = Queue(self.store, {"relay": self.agent}, self.reports, self.clock)
        queue.start()
        item = queue.item(
            Envelope(SENDER),
            [(Target("relay", "there.test", BOB), ReportRequest())],
            MemoryMessage(MESSAGE),
            b"",
        )
        self.wait(self.store.add([item]))
        self.clock.pump([1] * 5)

    def test_a_failure_is_told_and_a_report_that_fails_is_not(self):
        self.started()
        self.assertEqual(self.agent.seen, [(SENDER, BOB), (None, SENDER)])
        self.assertEqual(self.wait(self.store.status()).items, 0)
        self.assertEqual(len(self.spool.messages), 1)

    def test_no_room_for_a_report(self):
        """What failed is not written down before its sender can be told; until then it is tried again."""
        self.spool.fail = StorageFull()
        self.started()
        self.assertEqual(self.agent.seen, [(SENDER, BOB)])
        self.assertEqual(self.wait(self.store.status()).items, 1)
        self.clock.pump([60] * 10)
        self.assertEqual(self.agent.seen, [(SENDER, BOB), (SENDER, BOB), (None, SENDER)])
        self.assertEqual(self.wait(self.store.status()).items, 0)
