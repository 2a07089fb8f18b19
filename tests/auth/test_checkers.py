"""Checkers: our own, and other people's."""

from __future__ import annotations

import os
from collections.abc import Callable
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from twisted.cred.checkers import (
    AllowAnonymousAccess,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import Anonymous, IAnonymous, IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailplat import sasl
from mailplat.auth.accounts import AccountFile
from mailplat.auth.checkers import AccountChecker, NamedChecker
from mailplat.auth.hashing import Hashing
from mailplat.auth.names import Names
from mailplat.errors import LoginUnavailable
from mailplat.interfaces import IScramCredentials
from mailplat.values import ScramRecord

ALICE = b"alice@example.test"


class Now:
    """Hashing that is done at once."""

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        result.callback(function(*args))
        return result


@implementer(IScramCredentials)
class Scram:
    """An exchange whose outcome is known beforehand."""

    def __init__(self, username: bytes, proven: bool = True) -> None:
        self.username = username
        self.proven = proven
        self.records: list[ScramRecord] = []

    async def exchange(self, record: ScramRecord) -> bool:
        self.records.append(record)
        return self.proven


class Ours(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.accounts = AccountFile(
            os.path.join(directory.name, "accounts"), Names(["example.test"]), iterations=2
        )
        self.accounts.add("alice", "secret")
        self.hashes: list[tuple[bytes, bytes, int]] = []
        self.checker = self.make()

    def make(self, **more: Any) -> AccountChecker:
        def salted(password: bytes, salt: bytes, iterations: int) -> bytes:
            self.hashes.append((password, salt, iterations))
            return sasl.salted_password(password, salt, iterations)

        hashing: Any = Now()
        checker = AccountChecker(self.accounts, None, hashing=hashing, salted=salted, **more)  # type: ignore[arg-type]
        checker._reading = hashing
        return checker

    def login(self, username: bytes, password: bytes) -> bytes:
        result: bytes = self.successResultOf(
            self.checker.requestAvatarId(UsernamePassword(username, password))
        )
        return result

    def refused(self, username: bytes, password: bytes) -> None:
        self.failureResultOf(
            self.checker.requestAvatarId(UsernamePassword(username, password)), UnauthorizedLogin
        )

    def test_interface(self) -> None:
        verifyObject(ICredentialsChecker, self.checker)

    def test_right(self) -> None:
        for name in (b"alice", b"ALICE@example.TEST", ALICE):
            self.assertEqual(self.login(name, b"secret"), ALICE)

    def test_wrong(self) -> None:
        for name, password in (
            (b"alice", b"Secret"),
            (b"alice", b""),
            (b"alice", b"secret\0"),
            (b"alice", b"\xff"),
            (b"bob", b"secret"),
            (b"alice@other.test", b"secret"),
            (b"", b"secret"),
            (b"\xff", b"secret"),
            (b"../alice", b"secret"),
        ):
            self.refused(name, password)

    def test_unknown_user_costs_what_a_wrong_password_costs(self) -> None:
        """One hash each, of as many rounds; also when asked again, and beside a remembered password."""
        self.login(b"alice", b"secret")
        self.hashes.clear()
        for name in (b"alice", b"bob", b"\xff", b"not/a/name", b"alice"):
            for _ in range(2):
                self.refused(name, b"wrong")
                self.assertEqual(len(self.hashes), 1)
                password, salt, iterations = self.hashes.pop()
                self.assertEqual((password, len(salt), iterations), (b"wrong", 16, 2))

    def test_prepared(self) -> None:
        self.accounts.set_password("alice", "\u2168 pass\u00a0word")
        self.assertEqual(self.login(b"alice", b"IX pass word"), ALICE)

    def test_remembered(self) -> None:
        self.login(b"alice", b"secret")
        for _ in range(5):
            self.login(b"Alice@example.test", b"secret")
        self.assertEqual(len(self.hashes), 1)

    def test_forgotten_when_the_password_changes(self) -> None:
        self.login(b"alice", b"secret")
        other = AccountFile(self.accounts.path, iterations=2)
        other.set_password(ALICE.decode(), "new")
        self.refused(b"alice", b"secret")
        self.login(b"alice", b"new")
        # Even if it is the same password again: it is another record.
        other.set_password(ALICE.decode(), "new")
        self.hashes.clear()
        self.login(b"alice", b"new")
        self.assertEqual(len(self.hashes), 1)

    def test_forgotten_when_the_account_goes(self) -> None:
        self.login(b"alice", b"secret")
        self.accounts.remove("alice")
        self.refused(b"alice", b"secret")

    def test_others_changes_forget_nothing(self) -> None:
        self.login(b"alice", b"secret")
        self.accounts.add("bob", "other")
        self.login(b"alice", b"secret")
        self.assertEqual(len(self.hashes), 1)

    def test_remembers_so_many(self) -> None:
        self.checker = self.make(most_remembered=2)
        for name in ("bob", "carol"):
            self.accounts.add(name, "secret")
        for name in (b"alice", b"bob", b"alice", b"carol", b"alice", b"bob"):
            self.login(name, b"secret")
        self.assertEqual(len(self.hashes), 4)
        self.assertLessEqual(len(self.checker._right), 2)

    def test_remembers_no_password(self) -> None:
        self.login(b"alice", b"secret")
        self.assertNotIn("secret", repr(vars(self.checker)))

    def test_credentials_without_a_password(self) -> None:
        @implementer(IUsernamePassword)
        class Opaque:
            username = b"alice"

            def checkPassword(self, password: bytes) -> bool:
                return True

        self.failureResultOf(self.checker.requestAvatarId(Opaque()), UnauthorizedLogin)

    def test_scram(self) -> None:
        right = Scram(b"Alice")
        self.assertEqual(self.successResultOf(self.checker.requestAvatarId(right)), ALICE)
        self.assertTrue(right.records[0].known)
        wrong = Scram(b"alice", proven=False)
        self.failureResultOf(self.checker.requestAvatarId(wrong), UnauthorizedLogin)
        self.assertEqual(self.hashes, [])

    def test_scram_of_somebody_unknown(self) -> None:
        salts = []
        for name in (b"bob", b"BOB@example.test", b"\xff"):
            unknown = Scram(name, proven=False)
            self.failureResultOf(self.checker.requestAvatarId(unknown), UnauthorizedLogin)
            self.assertFalse(unknown.records[0].known)
            salts.append(unknown.records[0].salt)
        # Spelled otherwise somebody is still the same, whether or not they exist.
        self.assertEqual(salts[0], salts[1])
        self.assertNotEqual(salts[0], salts[2])


class InThreads(TestCase):
    """With the real reactor."""

    async def test_login(self) -> None:
        from twisted.internet import reactor

        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        accounts = AccountFile(
            os.path.join(directory.name, "accounts"), Names(["example.test"]), iterations=2
        )
        checker = AccountChecker(accounts, reactor)  # type: ignore[arg-type]
        with self.assertRaises(UnauthorizedLogin):
            await checker.requestAvatarId(UsernamePassword(b"alice", b"secret"))
        accounts.add("alice", "secret")
        logins = [checker.requestAvatarId(UsernamePassword(b"alice", b"secret")) for _ in range(10)]
        for login in logins:
            self.assertEqual(await login, ALICE)

    async def test_bounded(self) -> None:
        from twisted.internet import reactor

        go, done = Event(), []
        hashing = Hashing(reactor, threads=1, most_waiting=2)  # type: ignore[arg-type]

        def work(number: int) -> int:
            go.wait(30)
            done.append(number)
            return number

        started = Event()
        first = hashing.run(lambda: (started.set(), work(1)))
        started.wait(30)
        second, third = hashing.run(work, 2), hashing.run(work, 3)
        with self.assertRaises(LoginUnavailable):
            await hashing.run(work, 4)
        second.cancel()
        with self.assertRaises(CancelledError):
            await second
        go.set()
        await first
        self.assertEqual(await third, 3)
        self.assertEqual(done, [1, 3])
        with self.assertRaises(ZeroDivisionError):
            await hashing.run(lambda: 1 // 0)

    async def test_cancelled_while_it_runs(self) -> None:
        from twisted.internet import reactor

        go, started = Event(), Event()
        hashing = Hashing(reactor, threads=1)  # type: ignore[arg-type]
        running = hashing.run(lambda: (started.set(), go.wait(30)))
        started.wait(30)
        running.cancel()
        go.set()
        with self.assertRaises(CancelledError):
            await running
        self.assertEqual(await hashing.run(lambda: 5), 5)


@implementer(ICredentialsChecker)
class Directory:
    """A checker that knows users by numbers, say."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, answers: dict[bytes, Any]) -> None:
        self.answers = answers
        self.asked: list[bytes] = []

    async def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append(credentials.username)
        answer = self.answers.get(credentials.username, UnauthorizedLogin())
        if isinstance(answer, Exception):
            raise answer
        return answer


class Others(SynchronousTestCase):
    def ask(self, checker: Any, username: bytes, *domains: str) -> Deferred[Any]:
        named = NamedChecker(checker, Names(domains or ["example.test"]))
        return named.requestAvatarId(UsernamePassword(username, b"secret"))

    def test_of_cred(self) -> None:
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")
        checker.addUser(b"bob@example.test", b"secret")
        for username, account in (
            (b"alice", ALICE),
            (b"Alice@example.test", ALICE),
            (b"bob", b"bob@example.test"),
            (b"bob@example.test", b"bob@example.test"),
        ):
            self.assertEqual(self.successResultOf(self.ask(checker, username)), account)
        for username in (b"carol", b"alice@other.test", b"\xff", b"a/b"):
            self.failureResultOf(self.ask(checker, username), UnauthorizedLogin)

    def test_the_rule(self) -> None:
        checker = Directory({})
        self.failureResultOf(self.ask(checker, b"Alice"), UnauthorizedLogin)
        self.assertEqual(checker.asked, [ALICE, b"alice"])
        for username in (b"alice@b.test", b"alice"):
            checker = Directory({})
            self.failureResultOf(self.ask(checker, username, "a.test", "b.test"), UnauthorizedLogin)
            self.assertEqual(checker.asked, [username])

    def test_part_of_another_domain(self) -> None:
        """The part before the @ alone is somebody else's, where there are several domains."""
        checker = Directory({b"alice": b"alice"})
        self.failureResultOf(self.ask(checker, b"alice@b.test", "a.test", "b.test"), UnauthorizedLogin)

    def test_answers_are_made_canonical(self) -> None:
        for answer, account in (
            (b"A.Liddell@Example.TEST", b"a.liddell@example.test"),
            ("liddell", b"liddell@example.test"),
        ):
            checker = Directory({b"alice": answer})
            self.assertEqual(self.successResultOf(self.ask(checker, b"alice")), account)

    def test_answers_that_are_nobody(self) -> None:
        for answer in ((), None, 5, b"", b"../x"):
            checker = Directory({ALICE: answer, b"alice": answer})
            self.failureResultOf(self.ask(checker, b"alice"), UnauthorizedLogin)

    def test_what_cannot_be_prepared(self) -> None:
        """Not UTF-8, or prohibited (RFC 4616 §2, RFC 6856 §2.2): nobody's, whatever the checker thinks."""
        everybody = Directory({ALICE: ALICE, b"al\xffice": ALICE, "al\ufffdice@example.test".encode(): ALICE})
        named = NamedChecker(everybody, Names(["example.test"]))
        for username, password in (
            (ALICE, b"\xff"),
            (ALICE, b"se\0cret"),
            (ALICE, "\ue000".encode()),
            (b"al\xffice", b"secret"),
            ("al\ufffdice".encode(), b"secret"),
        ):
            attempt = named.requestAvatarId(UsernamePassword(username, password))
            self.failureResultOf(attempt, UnauthorizedLogin)
        # The checker is given what was typed: how it was hashed, only it knows.
        typed = "p\u00a0w".encode()
        seen: list[bytes] = []

        @implementer(ICredentialsChecker)
        class Seeing(Directory):
            async def requestAvatarId(self, credentials: Any) -> Any:
                seen.append(credentials.password)
                return await super().requestAvatarId(credentials)

        named = NamedChecker(Seeing({ALICE: ALICE}), Names(["example.test"]))
        self.assertEqual(self.successResultOf(named.requestAvatarId(UsernamePassword(ALICE, typed))), ALICE)
        self.assertEqual(seen, [typed])

    def test_trouble_passes(self) -> None:
        checker = Directory({ALICE: RuntimeError("the directory is down")})
        self.failureResultOf(self.ask(checker, b"alice"), RuntimeError)

    def test_denied(self) -> None:
        checker = Directory({ALICE: LoginDenied(), b"alice": LoginDenied()})
        self.failureResultOf(self.ask(checker, b"alice"), LoginDenied)

    def test_interfaces(self) -> None:
        names = Names(["example.test"])
        checker: Any = InMemoryUsernamePasswordDatabaseDontUse()
        self.assertEqual(NamedChecker(checker, names).credentialInterfaces, (IUsernamePassword,))
        anonymous = NamedChecker(AllowAnonymousAccess(), names)
        self.assertEqual(anonymous.credentialInterfaces, (IAnonymous,))
        self.assertEqual(self.successResultOf(anonymous.requestAvatarId(Anonymous())), ())
