"""Logging in as sessions do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import (
    AllowAnonymousAccess,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementer

from mailplat import sasl
from mailplat.auth.login import (
    Login,
    anonymously,
    mechanisms,
    password_allowed,
    with_password,
    with_sasl,
)
from mailplat.auth.portal import MailPortal
from mailplat.errors import (
    AccountUnusable,
    InUse,
    LoginCancelled,
    LoginFailed,
    LoginUnavailable,
    MalformedLogin,
    NoSuchAccount,
    NoSuchMechanism,
    PrivacyRequired,
    StorageFull,
)
from mailplat.testing.fakes import MemoryChecker
from mailplat.values import Peer, TLSInfo
from mailplat.wire import PeerGone, TimedOut
from tests.auth.scram_client import ScramClient

NEAR = Peer("imap", "127.0.0.1", 1)
FAR = Peer("imap", "192.0.2.1", 1)
BOUND = Peer("imap", "192.0.2.1", 1, tls=TLSInfo("TLSv1.3", "X", b"E" * 32, b"P" * 32))
OLD = Peer("imap", "192.0.2.1", 1, tls=TLSInfo("TLSv1.2", "X"))
USERS = {"alice@example.test": "secret", "bob@example.test": "other"}


class IThing(Interface):
    """What is asked for."""


class Avatar:
    def __init__(self, name: str) -> None:
        self.name = name


@implementer(IRealm)
class Realm:
    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.minds: list[Any] = []
        self.logged_out = 0

    def requestAvatar(self, identity: Any, mind: Any, *interfaces: Any) -> Any:
        self.minds.append(mind)
        if self.error is not None:
            raise self.error
        return interfaces[0], Avatar(identity.decode() if identity else ""), self.logout

    def logout(self) -> None:
        self.logged_out += 1


class Talk:
    """The client's side: responses in order, or functions of the challenge, or exceptions."""

    def __init__(self, *responses: Any) -> None:
        self.responses = list(responses)
        self.challenges: list[bytes] = []

    async def ask(self, challenge: bytes) -> bytes | None:
        self.challenges.append(challenge)
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response(challenge) if callable(response) else response  # type: ignore[no-any-return]


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.realm = Realm()
        self.portal: Any = MailPortal(self.realm, [MemoryChecker(USERS)], Clock())

    def result(self, coroutine: Any) -> Login:
        login: Login = self.successResultOf(Deferred.fromCoroutine(coroutine))
        return login

    def refused(self, coroutine: Any, *errors: type[Exception]) -> Any:
        return self.failureResultOf(Deferred.fromCoroutine(coroutine), *errors).value

    def sasl(
        self,
        name: str,
        *responses: Any,
        initial: bytes | None = None,
        peer: Peer = BOUND,
        policy: str = "loopback",
    ) -> Any:
        self.talk = Talk(*responses)
        return with_sasl(self.portal, name, initial, self.talk.ask, peer, IThing, policy)  # type: ignore[arg-type]

    def password(self, name: bytes, password: bytes, peer: Peer = NEAR) -> Any:
        return with_password(self.portal, name, password, peer, IThing)  # type: ignore[arg-type]


class Offers(Case):
    def test_passwords(self) -> None:
        unix, six = Peer("lmtp", "", 0), Peer("imap", "::1", 1)
        for peer, never, loopback, always in (
            (NEAR, False, True, True),
            (unix, False, True, True),
            (six, False, True, True),
            (FAR, False, False, True),
            (BOUND, True, True, True),
        ):
            for policy, allowed in (("never", never), ("loopback", loopback), ("always", always)):
                self.assertIs(password_allowed(peer, policy), allowed)

    def test_mechanisms(self) -> None:
        scram, plain = ("SCRAM-SHA-256",), ("PLAIN", "LOGIN")
        for peer, policy, offered in (
            (BOUND, "never", ("SCRAM-SHA-256-PLUS", *scram, *plain)),
            (OLD, "never", (*scram, *plain)),
            (NEAR, "never", scram),
            (NEAR, "loopback", (*scram, *plain)),
            (FAR, "loopback", scram),
            (FAR, "always", (*scram, *plain)),
        ):
            self.assertEqual(mechanisms(self.portal, peer, policy), offered)

    def test_follow_from_the_checkers(self) -> None:
        passwords = InMemoryUsernamePasswordDatabaseDontUse()
        self.assertEqual(mechanisms(Portal(self.realm, [passwords]), BOUND, "loopback"), ("PLAIN", "LOGIN"))
        self.assertEqual(mechanisms(Portal(self.realm, [AllowAnonymousAccess()]), BOUND, "loopback"), ())
        self.assertEqual(mechanisms(Portal(self.realm), BOUND, "loopback"), ())

    def test_not_offered(self) -> None:
        self.refused(self.sasl("EXTERNAL", initial=b""), NoSuchMechanism)
        self.refused(self.sasl("SCRAM-SHA-256-PLUS", initial=b"", peer=NEAR), NoSuchMechanism)
        self.refused(self.sasl("PLAIN", initial=b"\0alice\0x", peer=FAR), PrivacyRequired)
        self.portal = Portal(self.realm)
        self.refused(self.sasl("PLAIN", initial=b"", peer=FAR), NoSuchMechanism)
        self.assertEqual(self.talk.challenges, [])


class WithPassword(Case):
    def test_right(self) -> None:
        login = self.result(self.password(b"Alice@example.test", b"secret"))
        self.assertEqual((login.name, login.avatar.name, login.final), (*["alice@example.test"] * 2, b""))
        self.assertEqual(self.realm.minds, [NEAR])
        login.logout()
        self.assertEqual(self.realm.logged_out, 1)

    def test_unknown_and_wrong_are_one_word(self) -> None:
        errors = [
            self.refused(self.password(name, b"x"), LoginFailed) for name in (b"alice@example.test", b"eve")
        ]
        self.assertEqual(errors[0].text, errors[1].text)
        self.assertEqual((str(errors[0]), type(errors[0])), (str(errors[1]), type(errors[1])))

    def test_names_are_prepared(self) -> None:
        self.result(self.password("al\u00adice@example.test".encode(), b"secret"))

    def test_anonymously(self) -> None:
        self.refused(anonymously(self.portal, NEAR, IThing), LoginFailed)  # type: ignore[arg-type]
        self.portal.registerChecker(AllowAnonymousAccess())
        self.assertEqual(self.result(anonymously(self.portal, NEAR, IThing)).name, "")  # type: ignore[arg-type]

    def test_what_a_realm_raises(self) -> None:
        for error, told in (
            (InUse("Taken"), InUse),
            (StorageFull(), StorageFull),
            (NoSuchAccount(), AccountUnusable),
            (NotImplementedError(), LoginUnavailable),
        ):
            self.realm.error = error
            self.refused(self.password(b"alice@example.test", b"secret"), told)
        self.assertEqual(len(self.flushLoggedErrors(NotImplementedError)), 1)

    def test_what_a_checker_raises(self) -> None:
        """Of a plain portal of cred, whose checkers may be anybody's."""

        @implementer(ICredentialsChecker)
        class Checker:
            credentialInterfaces = (IUsernamePassword,)
            error: Exception

            def requestAvatarId(self, credentials: Any) -> Any:
                raise self.error

        checker = Checker()
        self.portal = Portal(self.realm, [checker])
        for error, told in (
            (UnauthorizedLogin("no such user: alice"), LoginFailed),
            (LoginUnavailable("Busy"), LoginUnavailable),
            (ZeroDivisionError("secret"), LoginUnavailable),
            (CancelledError(), CancelledError),
        ):
            checker.error = error
            raised = self.refused(self.password(b"alice@example.test", b"secret"), told)
            self.assertNotIn("secret", str(raised))
            self.assertNotIn("alice", str(raised))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class WithPlain(Case):
    MESSAGE = b"\0alice@example.test\0secret"

    def test_initial_response(self) -> None:
        self.assertEqual(self.result(self.sasl("plain", initial=self.MESSAGE)).name, "alice@example.test")
        self.assertEqual(self.talk.challenges, [])

    def test_asked(self) -> None:
        self.result(self.sasl("PLAIN", self.MESSAGE))
        self.assertEqual(self.talk.challenges, [b""])

    def test_wrong(self) -> None:
        self.refused(self.sasl("PLAIN", b"\0alice@example.test\0wrong"), LoginFailed)

    def test_malformed(self) -> None:
        for initial in (b"", b"alice", b"\0\0"):
            self.refused(self.sasl("PLAIN", initial=initial), MalformedLogin)

    def test_for_oneself(self) -> None:
        for authzid in (b"alice@example.test", b"ALICE@Example.test"):
            self.result(self.sasl("PLAIN", authzid + self.MESSAGE))

    def test_for_somebody_else(self) -> None:
        self.refused(self.sasl("PLAIN", b"bob@example.test" + self.MESSAGE), LoginFailed)
        self.assertEqual(self.realm.logged_out, 1)
        # The same answer as to a wrong password, so that nothing is learnt about bob.
        self.refused(self.sasl("PLAIN", b"bob@example.test\0alice@example.test\0wrong"), LoginFailed)

    def test_cancelled(self) -> None:
        self.refused(self.sasl("PLAIN", None), LoginCancelled)


class WithLogin(Case):
    def test_asked(self) -> None:
        self.result(self.sasl("LOGIN", b"alice@example.test", b"secret"))
        self.assertEqual(self.talk.challenges, [b"Username:", b"Password:"])

    def test_initial_response(self) -> None:
        self.result(self.sasl("LOGIN", b"secret", initial=b"alice@example.test"))
        self.assertEqual(self.talk.challenges, [b"Password:"])

    def test_wrong(self) -> None:
        self.refused(self.sasl("LOGIN", b"alice@example.test", b""), LoginFailed)

    def test_cancelled(self) -> None:
        self.refused(self.sasl("LOGIN", None), LoginCancelled)
        self.refused(self.sasl("LOGIN", b"alice", None), LoginCancelled)


class WithScram(Case):
    def exchange(
        self, client: ScramClient, mechanism: str = sasl.SCRAM, peer: Peer = NEAR, last: Any = b""
    ) -> Any:
        return self.sasl(mechanism, client.final, last, initial=client.first(), peer=peer)

    def test_right(self) -> None:
        for peer, gs2 in ((NEAR, "n,,"), (NEAR, "y,,"), (FAR, "n,,"), (BOUND, "n,,"), (OLD, "y,,")):
            client = ScramClient("alice@example.test", "secret", gs2=gs2)
            self.assertEqual(self.result(self.exchange(client, peer=peer)).name, "alice@example.test")
            self.assertTrue(client.trusts(self.talk.challenges[-1]))

    def test_asked(self) -> None:
        client = ScramClient("alice@example.test", "secret")
        self.result(self.sasl("scram-sha-256", client.first(), client.final, b""))
        self.assertEqual(self.talk.challenges[0], b"")

    def test_nonces_differ(self) -> None:
        nonces = set()
        for _ in range(3):
            self.result(self.exchange(ScramClient("alice@example.test", "secret")))
            nonces.add(self.talk.challenges[0].split(b",")[0])
        self.assertEqual(len(nonces), 3)

    def test_bound(self) -> None:
        assert BOUND.tls is not None
        for name, data in (
            ("tls-exporter", BOUND.tls.exporter),
            ("tls-server-end-point", BOUND.tls.end_point),
        ):
            client = ScramClient("alice@example.test", "secret", gs2=f"p={name},,", binding=data)
            self.result(self.exchange(client, sasl.SCRAM_PLUS, BOUND))

    def test_in_the_middle(self) -> None:
        client = ScramClient("alice@example.test", "secret", gs2="p=tls-exporter,,", binding=b"another")
        self.refused(self.exchange(client, sasl.SCRAM_PLUS, BOUND), LoginFailed)

    def test_downgraded(self) -> None:
        client = ScramClient("alice@example.test", "secret", gs2="y,,")
        self.refused(self.exchange(client, peer=BOUND), LoginFailed)
        self.assertEqual(self.talk.challenges, [])

    def test_wrong_and_unknown(self) -> None:
        """One word, the same steps, and nothing of the server's proof."""
        for name in ("alice@example.test", "eve@example.test"):
            self.refused(self.exchange(ScramClient(name, "wrong")), LoginFailed)
            self.assertEqual(len(self.talk.challenges), 1)

    def test_for_somebody_else(self) -> None:
        client = ScramClient("alice@example.test", "secret", gs2="n,a=bob@example.test,")
        self.refused(self.exchange(client), LoginFailed)
        self.assertEqual((len(self.talk.challenges), self.realm.logged_out), (1, 1))
        self.result(self.exchange(ScramClient("alice@example.test", "secret", gs2="n,a=alice@example.test,")))

    def test_malformed(self) -> None:
        client = ScramClient("alice@example.test", "secret")
        self.refused(self.sasl(sasl.SCRAM, initial=b"nonsense"), MalformedLogin)
        self.refused(self.sasl(sasl.SCRAM, b"nonsense", initial=client.first()), MalformedLogin)
        self.assertEqual(self.realm.minds, [])
        self.refused(self.exchange(client, last=b"more"), MalformedLogin)
        self.assertEqual(self.realm.logged_out, 1)

    def test_broken_off(self) -> None:
        """At each step, whatever the reason; who was in is out again."""
        for reason, raised in ((None, LoginCancelled), (PeerGone(), PeerGone), (TimedOut(), TimedOut)):
            client = ScramClient("alice@example.test", "secret")
            steps: list[Callable[[bytes], bytes] | bytes] = [client.first(), client.final, b""]
            for step in range(3):
                self.refused(self.sasl(sasl.SCRAM, *steps[:step], reason), raised)
        self.assertEqual(self.realm.logged_out, 3)

    def test_a_checker_that_swallows(self) -> None:
        """Why an exchange ended outlives whatever a checker makes of it."""

        class Swallowing(MemoryChecker):
            async def _verified(self, credentials: Any) -> Any:
                try:
                    return await super()._verified(credentials)
                except Exception:
                    raise UnauthorizedLogin from None

        self.portal = Portal(self.realm, [Swallowing(USERS)])
        first = ScramClient("alice@example.test", "secret").first()
        self.refused(self.sasl(sasl.SCRAM, PeerGone(), initial=first), PeerGone)
        self.refused(self.sasl(sasl.SCRAM, b"nonsense", initial=first), MalformedLogin)

    def test_in_use(self) -> None:
        """The server's proof is not sent for a login that did not happen."""
        self.realm.error = InUse()
        self.refused(self.exchange(ScramClient("alice@example.test", "secret")), InUse)
        self.assertEqual(len(self.talk.challenges), 1)
