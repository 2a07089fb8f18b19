from __future__ import annotations

from dataclasses import replace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailplat.delivery.intake import Intake, IntakeLimits
from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.routing import Router
from mailplat.errors import (
    MessageRefused,
    MessageTooLarge,
    NoSuchAccount,
    NoSuchRecipient,
    OverQuota,
    RelayDenied,
    SenderRefused,
    StorageFull,
)
from mailplat.interfaces import IMailReceiver
from mailplat.values import Envelope, Outcome, Peer, TLSInfo
from tests.delivery.house import BODY, Spooled, address, messages_of, names, now, store_with

ALICE, BOB = "alice@example.test", "bob@example.test"
PEER = Peer("smtp", "192.0.2.1", 1234, hello="client.test")
TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
ALIASES = {"team": ["alice", "bob"], "mixed": ["alice", "x@elsewhere.test"]}


class Agent:
    """Says what it is told to say about each target."""

    def __init__(self, **errors):
        self.errors = errors

    async def deliver(self, envelope, message, prefix, targets):
        places = [target.place.partition("@")[0] for target in targets]
        return [Outcome(t.address, self.errors.get(place)) for t, place in zip(targets, places, strict=True)]


class IntakeTestCase(SynchronousTestCase):
    peer = PEER
    account = None

    def setUp(self):
        clock = Clock()
        clock.advance(1_700_000_000)
        self.store = now(store_with(ALICE, BOB))
        self.router = Router(names(), self.store, ALIASES)
        self.intake = Intake(self.router, LocalDelivery(self.store, clock), "mx.example.test", clock)

    def receiver(self, peer=None):
        return self.intake(peer or self.peer, self.account)

    def send(
        self, *recipients, body=BODY, sender="carol@elsewhere.test", receiver=None, in_memory=True, **envelope
    ):
        """A whole transaction, as a session runs it."""
        receiver = receiver or self.receiver()
        envelope = Envelope(address(sender) if sender else None, **envelope)
        now(receiver.sender(envelope))
        for recipient in map(address, recipients):
            now(receiver.recipient(envelope, recipient))
            envelope = replace(envelope, recipients=(*envelope.recipients, recipient))
        return now(receiver.message(envelope, Spooled(body, in_memory)))

    def inbox(self, account=ALICE):
        return now(messages_of(self.store, account))

    def received(self):
        """The Received field of the last message of alice, unfolded."""
        header = self.inbox()[-1].replace(b"\r\n\t", b" ").replace(b"\r\n ", b" ").decode()
        return next(line for line in header.split("\r\n") if line.startswith("Received:"))


class AnonymousTests(IntakeTestCase):
    def test_it_is_a_receiver(self):
        verifyObject(IMailReceiver, self.receiver())

    def test_mail_arrives(self):
        self.assertEqual(self.send(ALICE), [Outcome(address(ALICE))])
        (message,) = self.inbox()
        self.assertTrue(
            message.startswith(
                b"Return-Path: <carol@elsewhere.test>\r\nDelivered-To: alice@example.test\r\nReceived: "
            )
        )
        self.assertTrue(message.endswith(b"\r\n" + BODY))
        self.assertNotIn(b"Message-ID", message)

    def test_the_trace(self):
        self.send(ALICE)
        received = self.received()
        for words in (
            "client.test",
            "192.0.2.1",
            "by mx.example.test",
            "with ESMTP ",
            "for <alice@example.test>",
        ):
            self.assertIn(words, received)

    def test_the_trace_does_not_name_one_of_several(self):
        self.send(ALICE, BOB)
        self.assertNotIn(" for ", self.received())

    def test_the_trace_names_the_protocol(self):
        tls = replace(PEER, tls=TLS)
        lmtp = replace(PEER, service="lmtp", host="", port=0)
        for peer, utf8, word in [
            (PEER, False, "ESMTP"),
            (tls, False, "ESMTPS"),
            (PEER, True, "UTF8SMTP"),
            (tls, True, "UTF8SMTPS"),
            (lmtp, False, "LMTP"),
            (replace(lmtp, tls=TLS), True, "UTF8LMTPS"),
        ]:
            self.send(ALICE, receiver=self.intake(peer, None), utf8=utf8)
            self.assertIn(f" with {word} ", self.received())

    def test_relaying_is_denied(self):
        receiver = self.receiver()
        for text in ("x@elsewhere.test", "alice@[127.0.0.1]"):
            self.assertRaises(RelayDenied, now, receiver.recipient(Envelope(None), address(text)))

    def test_nobody(self):
        self.assertRaises(
            NoSuchRecipient, now, self.receiver().recipient(Envelope(None), address("x@example.test"))
        )

    def test_without_a_queue_an_alias_must_not_lead_out(self):
        self.assertRaises(
            RelayDenied, now, self.receiver().recipient(Envelope(None), address("mixed@example.test"))
        )

    def test_postmaster_without_domain(self):
        self.assertEqual(self.send("postmaster")[0].error, None)
        self.assertEqual(len(self.inbox()), 1)

    def test_an_outcome_for_each_recipient_in_order(self):
        self.assertEqual(
            self.send(BOB, "team@example.test", BOB),
            [Outcome(address(BOB)), Outcome(address("team@example.test")), Outcome(address(BOB))],
        )
        self.assertEqual(len(self.inbox(BOB)), 1)
        self.assertEqual(len(self.inbox(ALICE)), 1)

    def test_an_account_that_went_away_meanwhile(self):
        receiver = self.receiver()
        envelope = Envelope(None)
        now(receiver.sender(envelope))
        for text in (ALICE, BOB):
            now(receiver.recipient(envelope, address(text)))
        now(self.store.remove_account(BOB))
        alice, bob = now(receiver.message(Envelope(None, (address(ALICE), address(BOB))), Spooled()))
        self.assertIsNone(alice.error)
        self.assertIsInstance(bob.error, NoSuchAccount)
        self.assertEqual(len(self.inbox()), 1)

    def test_a_transaction_does_not_remember_the_one_before(self):
        receiver = self.receiver()
        self.send(BOB, receiver=receiver)
        now(self.store.remove_account(BOB))
        self.assertRaises(NoSuchRecipient, self.send, BOB, receiver=receiver)

    def test_of_the_outcomes_behind_one_alias_the_one_that_may_change_is_told(self):
        for errors, expected in [
            ({}, None),
            ({"alice": OverQuota()}, OverQuota),
            ({"bob": OverQuota()}, OverQuota),
            ({"alice": OverQuota(), "bob": StorageFull()}, StorageFull),
            ({"alice": StorageFull(), "bob": OverQuota()}, StorageFull),
        ]:
            self.intake = replace(self.intake, agent=Agent(**errors))
            (outcome,) = self.send("team@example.test")
            self.assertEqual(type(outcome.error) if outcome.error else None, expected)

    def test_limit_message_size(self):
        self.intake = replace(self.intake, limits=IntakeLimits(message_size=1000))
        receiver = self.receiver()
        now(receiver.sender(Envelope(None, size=1000)))
        self.assertRaises(MessageTooLarge, now, receiver.sender(Envelope(None, size=1001)))

    def test_limit_received(self):
        self.intake = replace(self.intake, limits=IntakeLimits(received=3))
        trace = b"received : x\r\n y\r\n"
        for in_memory in (True, False):
            self.assertIsNone(self.send(ALICE, body=trace * 3 + BODY, in_memory=in_memory)[0].error)
            self.assertRaises(MessageRefused, self.send, ALICE, body=trace * 4 + BODY, in_memory=in_memory)
        # What looks like one further down is none.
        self.assertIsNone(self.send(ALICE, body=BODY + trace * 9)[0].error)

    def test_limit_header(self):
        self.intake = replace(self.intake, limits=IntakeLimits(received=0, header=100))
        far = b"X: " + b"x" * 100 + b"\r\nReceived: x\r\n" + BODY
        self.assertIsNone(self.send(ALICE, body=far, in_memory=False)[0].error)


class SubmissionTests(IntakeTestCase):
    peer = Peer("submission", "192.0.2.1", 1234, hello="client.test")
    account = ALICE

    def test_it_is_a_receiver(self):
        verifyObject(IMailReceiver, self.receiver())

    def test_what_is_missing_is_added(self):
        self.send(BOB, sender=ALICE)
        (message,) = self.inbox(BOB)
        header = message.partition(b"\r\n\r\n")[0].split(b"\r\n")
        (date,) = [line for line in header if line.startswith(b"Date: ")]
        (identifier,) = [line for line in header if line.startswith(b"Message-ID: ")]
        self.assertIn(b"2023", date)
        self.assertRegex(identifier, rb"^Message-ID: <[0-9a-f]{20,}@example\.test>$")
        self.assertLess(header.index(identifier), header.index(b"Subject: hello"))

    def test_what_is_there_is_left(self):
        body = b"date: now\r\nmessage-id : <x>\r\n" + BODY
        self.send(BOB, sender=ALICE, body=body)
        (message,) = self.inbox(BOB)
        self.assertEqual(message.lower().count(b"\ndate"), 1)
        self.assertEqual(message.lower().count(b"\nmessage-id"), 1)

    def test_identifiers_differ(self):
        self.send(BOB, sender=ALICE)
        self.send(BOB, sender=ALICE)
        one, two = self.inbox(BOB)
        self.assertNotEqual(one.partition(b"Message-ID")[2][:30], two.partition(b"Message-ID")[2][:30])

    def test_the_trace_tells_that_somebody_logged_in(self):
        self.send(ALICE, sender=ALICE)
        self.assertIn(" with ESMTPA ", self.received())
        self.send(ALICE, sender=ALICE, receiver=self.intake(replace(self.peer, tls=TLS), ALICE))
        self.assertIn(" with ESMTPSA ", self.received())

    def test_only_addresses_of_the_account(self):
        for sender in ("alice+x@example.test", "team@example.test", "ALICE@example.test", None):
            self.assertIsNone(self.send(BOB, sender=sender)[0].error)
        for sender in (BOB, "carol@elsewhere.test", "nobody@example.test"):
            self.assertRaises(SenderRefused, self.send, BOB, sender=sender)

    def test_without_a_queue_nothing_leaves(self):
        self.assertRaises(
            RelayDenied, now, self.receiver().recipient(Envelope(None), address("x@elsewhere.test"))
        )

    def test_limit_message_size(self):
        self.intake = replace(self.intake, limits=IntakeLimits(message_size=1000))
        self.assertRaises(MessageTooLarge, now, self.receiver().sender(Envelope(address(ALICE), size=1001)))
