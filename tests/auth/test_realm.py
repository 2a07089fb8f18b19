"""The realm and the maildrop."""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import ANONYMOUS
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface
from zope.interface.verify import verifyObject

from mailplat.auth.names import Names
from mailplat.auth.realm import MailRealm
from mailplat.errors import (
    CannotDo,
    InUse,
    InvalidName,
    LoginFailed,
    NoSuchAccount,
    NoSuchMessage,
    NotPermitted,
)
from mailplat.interfaces import IMailAccount, IMaildrop, IMailReceiver
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import new_message
from mailplat.uids import UIDSet
from mailplat.values import Peer

PEER = Peer("pop3", "192.0.2.1", 1)
NAME = "alice@example.test"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.store: Any = MemoryStore()
        self.run_(self.store.start())
        self.receivers: list[tuple[Peer, str | None]] = []
        self.realm = MailRealm(self.store, self.receiver)

    def receiver(self, peer: Peer, account: str | None) -> Any:
        self.receivers.append((peer, account))
        return f"receiver of {account}"

    def run_(self, awaitable: Any) -> Any:
        return self.successResultOf(awaitable)

    def ask(self, interface: Any, identity: Any = b"alice@example.test") -> Deferred[Any]:
        return self.realm.requestAvatar(identity, PEER, interface)


class Avatars(Case):
    def test_interface(self) -> None:
        verifyObject(IRealm, self.realm)

    def test_account(self) -> None:
        interface, avatar, logout = self.run_(self.ask(IMailAccount))
        self.assertIs(interface, IMailAccount)
        self.assertEqual(avatar.name, NAME)
        logout()

    def test_account_is_made(self) -> None:
        for interface in (IMailAccount, IMaildrop, IMailReceiver):
            name = f"{interface.__name__}@example.test".lower()
            self.assertFalse(self.run_(self.store.has_account(name)))
            self.run_(self.ask(interface, name.encode()))
            self.assertTrue(self.run_(self.store.has_account(name)))

    def test_store_that_makes_none(self) -> None:
        for error in (NotPermitted, InvalidName):

            async def refuse(name: str, error: type[Exception] = error) -> None:
                raise error

            self.store.create_account = refuse
            self.failureResultOf(self.ask(IMailAccount), NoSuchAccount)
            self.failureResultOf(self.ask(IMaildrop), NoSuchAccount)
            self.run_(self.ask(IMailReceiver))

    def test_receiver(self) -> None:
        self.assertEqual(self.run_(self.ask(IMailReceiver))[1], f"receiver of {NAME}")
        self.assertEqual(self.run_(self.ask(IMailReceiver, ANONYMOUS))[1], "receiver of None")
        self.assertEqual(self.receivers, [(PEER, NAME), (PEER, None)])

    def test_anonymous_peers_bring_mail_and_nothing_else(self) -> None:
        self.failureResultOf(self.ask(IMailAccount, ANONYMOUS), LoginFailed)
        self.failureResultOf(self.ask(IMaildrop, ANONYMOUS), LoginFailed)

    def test_other_interfaces(self) -> None:
        class IOther(Interface):
            """Not ours."""

        self.failureResultOf(self.ask(IOther), CannotDo)
        interface, _, _ = self.run_(self.realm.requestAvatar(NAME.encode(), PEER, IOther, IMailAccount))
        self.assertIs(interface, IMailAccount)

    def test_names(self) -> None:
        self.realm = MailRealm(self.store, self.receiver, Names(["example.test"]))
        for identity in (b"Alice", b"ALICE@Example.test", "alice"):
            self.assertEqual(self.run_(self.ask(IMailAccount, identity))[1].name, NAME)
        for identity in (b"", b"../alice", b"\xff", None):
            self.failureResultOf(self.ask(IMailAccount, identity), LoginFailed)


class Maildrops(Case):
    def setUp(self) -> None:
        super().setUp()
        self.run_(self.store.create_account(NAME))
        self.inbox = self.run_(self.run_(self.store.account(NAME)).open("INBOX"))
        messages = [new_message(f"Subject: {n}\r\n\r\n{'x' * n}\r\n".encode()) for n in range(4)]
        self.uids = self.run_(self.inbox.append(messages))

    def maildrop(self) -> tuple[Any, Any]:
        _, avatar, logout = self.run_(self.ask(IMaildrop))
        return avatar, logout

    def test_interface(self) -> None:
        verifyObject(IMaildrop, self.maildrop()[0])

    def test_snapshot(self) -> None:
        avatar, _ = self.maildrop()
        listed = list(avatar.messages())
        validity = self.inbox.uid_validity
        self.assertEqual(listed, [(f"{validity}.{uid}", 16 + n) for n, uid in enumerate(self.uids)])
        self.run_(self.inbox.append([new_message()]))
        self.run_(self.inbox.expunge(UIDSet.of(self.uids[1:2]), deleted_only=False))
        self.assertEqual(list(avatar.messages()), listed)

    def test_identifiers_last(self) -> None:
        first, logout = self.maildrop()
        self.run_(first.delete([0]))
        logout()
        second, _ = self.maildrop()
        self.assertEqual(list(second.messages()), list(first.messages())[1:])

    def test_content(self) -> None:
        avatar, _ = self.maildrop()
        content = self.run_(avatar.content(2))
        self.assertEqual(self.run_(content.read(0, 1000)), b"Subject: 2\r\n\r\nxx\r\n")
        content.close()
        self.assertEqual(self.run_(avatar.outline(2)).uid, self.uids[2])

    def test_gone_meanwhile(self) -> None:
        avatar, _ = self.maildrop()
        self.run_(self.inbox.expunge(UIDSet.of(self.uids[1:2]), deleted_only=False))
        self.failureResultOf(Deferred.fromCoroutine(avatar.content(1)), NoSuchMessage)
        self.failureResultOf(Deferred.fromCoroutine(avatar.outline(1)), NoSuchMessage)
        self.run_(avatar.delete([0, 1]))
        self.assertEqual(self.run_(self.inbox.status()).messages, 2)

    def test_delete(self) -> None:
        avatar, _ = self.maildrop()
        self.run_(avatar.delete([3, 0]))
        left = self.run_(self.inbox.columns(UIDSet(((1, 1000),))))
        self.assertEqual(list(left.uids), self.uids[1:3])
        self.run_(avatar.delete([]))
        self.assertEqual(self.run_(self.inbox.status()).messages, 2)

    def test_one_at_a_time(self) -> None:
        avatar, logout = self.maildrop()
        self.failureResultOf(self.ask(IMaildrop), InUse)
        self.run_(self.ask(IMaildrop, b"bob@example.test"))
        logout()
        again, _ = self.maildrop()
        # The first one's logout, said twice, does not let go of the second one's hold.
        logout()
        avatar.release()
        self.failureResultOf(self.ask(IMaildrop), InUse)

    def test_free_after_trouble(self) -> None:
        account = self.run_(self.store.account(NAME))
        waiting: Deferred[Any] = Deferred()

        class Slow:
            name = NAME

            async def open(self, name: str) -> Any:
                return await waiting

        async def slow(name: str) -> Any:
            return Slow()

        original, self.store.account = self.store.account, slow
        asked = self.ask(IMaildrop)
        self.failureResultOf(self.ask(IMaildrop), InUse)
        waiting.errback(RuntimeError("broken"))
        self.failureResultOf(asked, RuntimeError)
        self.store.account = original
        self.assertEqual(account.name, self.maildrop()[0].name)
