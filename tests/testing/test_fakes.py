"""The stand-ins keep their interfaces."""

from __future__ import annotations

from twisted.cred.credentials import Anonymous, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailplat.auth.login import mechanisms, with_password, with_sasl
from mailplat.errors import LoginFailed, NoSuchRecipient, StorageFull
from mailplat.interfaces import (
    IDeliveryAgent,
    IMailAccount,
    IMailReceiver,
    ISpool,
    ISpooledMessage,
    ISpoolWriter,
)
from mailplat.message.outline import Outline
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import (
    InstantReactor,
    MemoryMessage,
    MemorySpool,
    RecordingAgent,
    RecordingReceiver,
    new_message,
    portal_for,
)
from mailplat.values import LOCAL, Address, Envelope, Peer, Target

BOB, CAROL = Address("bob", "example.test"), Address("carol", "example.test")


class Case(SynchronousTestCase):
    def now(self, coroutine):
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fails(self, coroutine, error):
        return self.failureResultOf(Deferred.fromCoroutine(coroutine), error)


class SpoolTests(Case):
    def test_a_message(self) -> None:
        spool = MemorySpool()
        writer = spool.begin()
        self.assertTrue(verifyObject(ISpool, spool) and verifyObject(ISpoolWriter, writer))
        self.now(writer.write(b"Subject: a\r\n"))
        self.now(writer.write(b"\r\nb\r\n"))
        self.assertEqual((writer.size, spool.open), (17, 1))
        message = self.now(writer.finish())
        writer.abandon()
        self.assertTrue(verifyObject(ISpooledMessage, message))
        self.assertEqual((message.data, message.size, spool.open), (b"Subject: a\r\n\r\nb\r\n", 17, 0))
        self.assertEqual(Outline.from_bytes(message.outline).size, 17)

    def test_failing_once(self) -> None:
        spool = MemorySpool()
        writer = spool.begin()
        spool.fail = StorageFull()
        self.fails(writer.write(b"a"), StorageFull)
        self.now(writer.write(b"a"))
        spool.fail = StorageFull()
        self.fails(writer.finish(), StorageFull)
        writer.abandon()
        writer.abandon()
        self.assertEqual(spool.open, 0)

    def test_new_message(self) -> None:
        message = new_message(flags=["\\Seen"], prefix=b"X: y\r\n")
        self.assertEqual(message.flags, frozenset({"\\Seen"}))
        self.assertEqual(Outline.from_bytes(message.body.outline).size, message.body.size)


class DeliveryTests(Case):
    envelope = Envelope(None, (BOB, CAROL))

    def test_receiver(self) -> None:
        receiver = RecordingReceiver()
        self.assertTrue(verifyObject(IMailReceiver, receiver))
        receiver.refused_recipients[str(BOB)] = NoSuchRecipient()
        self.fails(receiver.recipient(self.envelope, BOB), NoSuchRecipient)
        self.now(receiver.recipient(self.envelope, CAROL))
        error = receiver.outcomes[str(CAROL)] = StorageFull()
        outcomes = self.now(receiver.message(self.envelope, MemoryMessage(b"body")))
        self.assertEqual([outcome.error for outcome in outcomes], [None, error])
        self.assertEqual(receiver.received, [(self.envelope, b"body")])

    def test_agent(self) -> None:
        agent = RecordingAgent()
        self.assertTrue(verifyObject(IDeliveryAgent, agent))
        agent.outcomes["carol"] = StorageFull()
        targets = [Target(LOCAL, to.local, to) for to in (BOB, CAROL, BOB)]
        outcomes = self.now(agent.deliver(self.envelope, MemoryMessage(b"body"), b"X: y\r\n", targets))
        self.assertEqual([outcome.recipient for outcome in outcomes], [BOB, CAROL, BOB])
        self.assertEqual(agent.delivered, [(self.envelope, b"X: y\r\nbody", "bob")])


class PortalTests(Case):
    peer = Peer("imap", "127.0.0.1", 1)

    def setUp(self) -> None:
        self.store = MemoryStore()
        self.now(self.store.create_account("alice@example.test"))
        self.portal = portal_for({"alice@example.test": "secret"}, self.store)

    def test_password(self) -> None:
        login = self.now(
            with_password(self.portal, b"alice@example.test", b"secret", self.peer, IMailAccount)
        )
        self.assertEqual(login.avatar.name, "alice@example.test")
        for name, password in ((b"alice@example.test", b"wrong"), (b"bob@example.test", b"secret")):
            self.fails(with_password(self.portal, name, password, self.peer, IMailAccount), LoginFailed)

    def test_scram_is_offered_and_refuses_strangers(self) -> None:
        self.assertIn("SCRAM-SHA-256", mechanisms(self.portal, self.peer, "never"))

        async def ask(challenge: bytes) -> bytes:
            nonce = challenge.split(b",")[0]
            return b"c=biws," + nonce + b",p=" + b"A" * 43 + b"="

        first = b"n,,n=alice@example.test,r=abcdefghijklmnop"
        login = with_sasl(self.portal, "SCRAM-SHA-256", first, ask, self.peer, IMailAccount, "never")
        self.fails(login, LoginFailed)

    def test_anonymous_peers_bring_mail(self) -> None:
        interface, avatar, _ = self.successResultOf(self.portal.login(Anonymous(), self.peer, IMailReceiver))
        self.assertIs(interface, IMailReceiver)
        self.assertTrue(IMailReceiver.providedBy(avatar))

    def test_a_plain_cred_error(self) -> None:
        credentials = UsernamePassword(b"alice@example.test", b"wrong")
        failure = self.failureResultOf(self.portal.login(credentials, self.peer, IMailAccount))
        self.assertTrue(failure.check(LoginFailed, UnauthorizedLogin))


class ReactorTests(Case):
    def test_threads_are_done_at_once(self) -> None:
        reactor = InstantReactor()
        done = deferToThreadPool(reactor, reactor.getThreadPool(), lambda: 42)
        self.assertEqual(self.successResultOf(done), 42)
        self.failureResultOf(
            deferToThreadPool(reactor, reactor.getThreadPool(), lambda: 1 / 0), ZeroDivisionError
        )
