"""The portal: chains of checkers, patience, and what is offered."""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker
from twisted.cred.credentials import Anonymous, IAnonymous, IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementer

from mailplat.auth.guessers import GuessLimits
from mailplat.auth.portal import MailPortal
from mailplat.errors import InUse, LoginFailed, LoginUnavailable, MalformedLogin
from mailplat.interfaces import IScramCredentials
from mailplat.values import Peer, ScramRecord

PEER = Peer("imap", "192.0.2.1", 1)
LIMITS = GuessLimits(free=1, first_delay=4.0)


class IThing(Interface):
    """What is asked for."""


@implementer(IRealm)
class Realm:
    error: Exception | None = None

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def requestAvatar(self, identity: Any, mind: Any, *interfaces: Any) -> Any:
        self.asked.append((identity, mind, *interfaces))
        if self.error is not None:
            raise self.error
        return interfaces[0], identity, lambda: None


@implementer(ICredentialsChecker)
class Passwords:
    """Passwords by user; an exception instead of a password is raised."""

    credentialInterfaces: Any = (IUsernamePassword,)

    def __init__(self, **users: Any) -> None:
        self.users = users
        self.asked = 0

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked += 1
        password = self.users.get(credentials.username.decode())
        if isinstance(password, Exception):
            raise password
        if isinstance(password, Deferred):
            return password
        if password is None or not credentials.checkPassword(password.encode()):
            raise UnauthorizedLogin
        return credentials.username


@implementer(ICredentialsChecker)
class Scrams:
    """Knows some users; verifies passwords too."""

    credentialInterfaces = (IScramCredentials, IUsernamePassword)

    def __init__(self, mark: bytes, *users: bytes) -> None:
        self.mark = mark
        self.users = users

    def requestAvatarId(self, credentials: Any) -> Any:
        return Deferred.fromCoroutine(self.check(credentials))

    async def check(self, credentials: Any) -> bytes:
        known = credentials.username in self.users
        if not await credentials.exchange(ScramRecord(self.mark, 1, b"", b"", known)):
            raise UnauthorizedLogin
        return self.mark + credentials.username


@implementer(IScramCredentials)
class Exchange:
    def __init__(self, username: bytes, outcome: bool | Exception = True) -> None:
        self.username = username
        self.outcome = outcome
        self.salts: list[bytes] = []

    async def exchange(self, record: ScramRecord) -> bool:
        self.salts.append(record.salt)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome and record.known


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.realm = Realm()

    def portal(self, *checkers: Any) -> MailPortal:
        return MailPortal(self.realm, checkers, self.clock, LIMITS)

    def login(
        self, portal: MailPortal, user: bytes, password: bytes = b"p", peer: Any = PEER
    ) -> Deferred[Any]:
        return portal.login(UsernamePassword(user, password), peer, IThing)

    def avatar(self, login: Deferred[Any]) -> Any:
        return self.successResultOf(login)[1]


class Chains(Case):
    def test_one_after_the_other(self) -> None:
        first, second = Passwords(alice="p"), Passwords(alice="q", bob="p")
        portal = self.portal(first, second)
        self.assertEqual(self.avatar(self.login(portal, b"alice")), b"alice")
        self.assertEqual(second.asked, 0)
        self.assertEqual(self.avatar(self.login(portal, b"alice", b"q")), b"alice")
        self.assertEqual(self.avatar(self.login(portal, b"bob")), b"bob")
        self.failureResultOf(self.login(portal, b"carol"), UnauthorizedLogin)
        self.assertEqual(self.realm.asked[0], (b"alice", PEER, IThing))

    def test_one_is_broken(self) -> None:
        """It is temporary while nobody says yes, and no matter where somebody does."""
        broken = Passwords(alice=RuntimeError("down"), bob=RuntimeError("down"))
        portal = self.portal(broken, Passwords(alice="p"))
        self.assertEqual(self.avatar(self.login(portal, b"alice")), b"alice")
        self.failureResultOf(self.login(portal, b"bob"), LoginUnavailable)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_known_trouble_is_no_crash(self) -> None:
        portal = self.portal(Passwords(alice=LoginUnavailable("Busy")))
        failure = self.failureResultOf(self.login(portal, b"alice"), LoginUnavailable)
        self.assertEqual(failure.value.text, "Busy")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_our_own_word(self) -> None:
        """LoginFailed of ours is a no as well."""
        portal = self.portal(Passwords(alice=LoginFailed()), Passwords(alice="p"))
        self.assertEqual(self.avatar(self.login(portal, b"alice")), b"alice")

    def test_nobody_for_these(self) -> None:
        self.failureResultOf(self.login(self.portal(), b"alice"), UnhandledCredentials)

    def test_scram_finds_who_knows_the_user(self) -> None:
        portal = self.portal(Scrams(b"1", b"alice"), Scrams(b"2", b"bob"))
        for user, avatar in ((b"alice", b"1alice"), (b"bob", b"2bob")):
            exchange = Exchange(user)
            self.assertEqual(self.avatar(portal.login(exchange, PEER, IThing)), avatar)
            self.assertEqual(exchange.salts, [avatar[:1]])

    def test_scram_exchanges_once(self) -> None:
        """Also where nobody knows the user, always over the same record."""
        portal = self.portal(Scrams(b"1", b"alice"), Scrams(b"2", b"alice"))
        for user, outcome in ((b"alice", False), (b"carol", True)):
            exchange = Exchange(user, outcome)
            self.failureResultOf(portal.login(exchange, None, IThing), UnauthorizedLogin)
            self.assertEqual(exchange.salts, [b"1"])

    def test_scram_broken_off(self) -> None:
        for checkers in ([Scrams(b"1", b"alice")], [Scrams(b"1", b"alice"), Scrams(b"2", b"alice")]):
            exchange = Exchange(b"alice", MalformedLogin())
            self.failureResultOf(self.portal(*checkers).login(exchange, PEER, IThing), MalformedLogin)
            self.assertEqual(exchange.salts, [b"1"])


class Offers(Case):
    def test_all(self) -> None:
        portal = self.portal(Scrams(b"1"), Scrams(b"2"), AllowAnonymousAccess())
        self.assertEqual(
            set(portal.listCredentialsInterfaces()), {IScramCredentials, IUsernamePassword, IAnonymous}
        )

    def test_scram_only_where_it_serves_everybody(self) -> None:
        portal = self.portal(Scrams(b"1"), Passwords())
        self.assertEqual(portal.listCredentialsInterfaces(), [IUsernamePassword])
        # For some interfaces only, as cred allows.
        portal = self.portal()
        portal.registerChecker(Scrams(b"1"), IScramCredentials)
        self.assertEqual(portal.listCredentialsInterfaces(), [IScramCredentials])


class Patience(Case):
    def test_guesser_waits_and_the_owner_does_not(self) -> None:
        portal = self.portal(Passwords(alice="p"))
        self.failureResultOf(self.login(portal, b"alice", b"a"), UnauthorizedLogin)
        guess = self.login(portal, b"alice", b"b")
        self.assertNoResult(guess)
        elsewhere = Peer("imap", "198.51.100.7", 1)
        self.assertEqual(self.avatar(self.login(portal, b"alice", peer=elsewhere)), b"alice")
        self.clock.advance(4)
        self.failureResultOf(guess, UnauthorizedLogin)

    def test_unknown_and_wrong_are_alike(self) -> None:
        waited = []
        for user in (b"alice", b"nobody"):
            portal = self.portal(Passwords(alice="p"))
            for _ in range(2):
                tried = self.login(portal, user, b"wrong")
                start = self.clock.seconds()
                while not tried.called:
                    self.clock.advance(0.5)
                failure = self.failureResultOf(tried, UnauthorizedLogin)
                waited.append((self.clock.seconds() - start, str(failure.value)))
        self.assertEqual(waited[:2], waited[2:])

    def test_cancelled_while_waiting(self) -> None:
        checker = Passwords(alice="p")
        portal = self.portal(checker)
        self.failureResultOf(self.login(portal, b"alice", b"a"), UnauthorizedLogin)
        guess = self.login(portal, b"alice", b"b")
        guess.cancel()
        self.failureResultOf(guess, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(checker.asked, 1)

    def test_cancelled_while_checking(self) -> None:
        cancelled: list[Any] = []
        checking: Deferred[Any] = Deferred(cancelled.append)
        login = self.login(self.portal(Passwords(alice=checking), Passwords(alice="p")), b"alice")
        login.cancel()
        self.failureResultOf(login, CancelledError)
        self.assertEqual(cancelled, [checking])

    def test_trouble_is_no_guess(self) -> None:
        portal = self.portal(Passwords(alice=LoginUnavailable()))
        for _ in range(3):
            self.failureResultOf(self.login(portal, b"alice"), LoginUnavailable)

    def test_the_realms_no_is_no_guess(self) -> None:
        portal = self.portal(Passwords(alice="p"))
        self.realm.error = InUse()
        for _ in range(3):
            self.failureResultOf(self.login(portal, b"alice"), InUse)

    def test_anonymous_and_minds_that_are_no_peers(self) -> None:
        portal = self.portal(AllowAnonymousAccess(), Passwords(alice="p"))
        for _ in range(5):
            self.failureResultOf(self.login(portal, b"alice", b"x", peer=None), UnauthorizedLogin)
        for _ in range(200):
            self.assertEqual(self.avatar(portal.login(Anonymous(), PEER, IThing)), ())
