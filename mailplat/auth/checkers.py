"""
Checkers: our own over the account file, and the adapter for anybody else's.

A checker answers with the account's canonical name as UTF-8, whatever the user typed.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IAnonymous, ICredentials, IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed as CredLoginFailed
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from zope.interface import implementer

from mailplat import sasl
from mailplat.auth.accounts import AccountFile
from mailplat.auth.hashing import Hashing
from mailplat.auth.names import Names
from mailplat.errors import LoginFailed
from mailplat.interfaces import IScramCredentials
from mailplat.values import ScramRecord

log = Logger()


@implementer(ICredentialsChecker)
class AccountChecker:
    """
    Checks passwords and SCRAM exchanges against an account file.

    Who does not exist costs what a wrong password costs: one hash, off the reactor.  A
    password that was right a while ago is recognized in microseconds, until that
    account's record changes, by whatever process.

    Args:
        accounts: looked at again at every login.
        reactor: for the hashing threads.
        hashing: where hashes are computed, if not in two threads of its own.
        salted: computes one.
        most_remembered: accounts whose last right password is remembered, as a keyed hash.
    """

    credentialInterfaces = (IUsernamePassword, IScramCredentials)

    def __init__(
        self,
        accounts: AccountFile,
        reactor: IReactorFromThreads,
        *,
        hashing: Hashing | None = None,
        salted: Callable[[bytes, bytes, int], bytes] = sasl.salted_password,
        most_remembered: int = 10_000,
    ) -> None:
        self._accounts = accounts
        self._hashing = hashing or Hashing(reactor)
        self._reading = Hashing(reactor, threads=1)
        self._salted = salted
        self._most_remembered = most_remembered
        self._right: OrderedDict[str, tuple[ScramRecord, bytes]] = OrderedDict()
        self._key = secrets.token_bytes(32)
        self._one_reader = DeferredLock()

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """
        The account's canonical name as UTF-8.

        Fails with:
            UnauthorizedLogin; LoginUnavailable if too many wait for a hash.
        """
        if IScramCredentials.providedBy(credentials):
            return Deferred.fromCoroutine(self._exchange(credentials))
        return Deferred.fromCoroutine(self._password(credentials))

    async def _exchange(self, credentials: Any) -> bytes:
        name, record = await self._find(credentials.username)
        if not await credentials.exchange(record):
            raise UnauthorizedLogin
        return name.encode("utf-8")

    async def _password(self, credentials: Any) -> bytes:
        # cred promises only checkPassword, which needs the password we don't have; its own
        # classes and everybody's subclasses have the attribute.
        password = getattr(credentials, "password", None)
        if not isinstance(password, bytes):
            raise UnauthorizedLogin
        name, record = await self._find(credentials.username)
        proof = hmac.digest(self._key, name.encode("utf-8") + b"\0" + password, "sha256")
        right = self._right.get(name)
        if right is not None and right[0] == record and hmac.compare_digest(right[1], proof):
            self._right.move_to_end(name)
            return name.encode("utf-8")
        prepared = sasl.prepared_password(password)
        salted = await self._hashing.run(self._salted, prepared, record.salt, record.iterations)
        if not sasl.proves(salted, record):
            raise UnauthorizedLogin
        self._right[name] = record, proof
        self._right.move_to_end(name)
        if len(self._right) > self._most_remembered:
            self._right.popitem(last=False)
        return name.encode("utf-8")

    async def _find(self, username: bytes) -> tuple[str, ScramRecord]:
        """The account that is meant and its record, as the file is now; an invented one if there is none."""
        if self._accounts.stale():
            await self._one_reader.acquire()
            try:
                if self._accounts.stale():
                    await self._reading.run(self._accounts.refresh)
            finally:
                self._one_reader.release()
        name = self._accounts.naming.login_name(username)
        record = self._accounts.record(name) if name is not None else None
        if name is None or record is None:
            return name or "", self._accounts.invented(name.encode("utf-8") if name else username)
        return name, record


@implementer(ICredentialsChecker)
class NamedChecker:
    """
    Anybody's cred checker for user names and passwords, with its users as our accounts.

    The rule for names: the checker is asked for the full canonical address; then, where
    the server has one domain and the address is in it, for the part before the @ alone.
    What it answers is made canonical in turn, so a checker may also map names.

    Args:
        checker: any ICredentialsChecker.
        naming: what makes names canonical.

    Attributes:
        credentialInterfaces: those of the checker's that need no user name to be
            understood here: passwords and anonymous peers.
    """

    def __init__(self, checker: Any, naming: Names) -> None:
        self._checker = checker
        self._naming = naming
        usable = (IUsernamePassword, IAnonymous)
        self.credentialInterfaces = tuple(i for i in checker.credentialInterfaces if i in usable)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """
        Fails with:
            UnauthorizedLogin, and whatever else the checker fails with.
        """
        if IAnonymous.providedBy(credentials):
            return maybeDeferred(self._checker.requestAvatarId, credentials)
        return Deferred.fromCoroutine(self._check(credentials))

    async def _check(self, credentials: Any) -> bytes:
        password = getattr(credentials, "password", None)
        if not isinstance(password, bytes):
            raise UnauthorizedLogin
        # RFC 4616 §2, RFC 6856 §2.2; and to an LDAP server an empty password is nobody's, and no wrong one.
        if not sasl.may_be_used(credentials.username) or not sasl.may_be_used(password):
            raise UnauthorizedLogin
        name = self._naming.login_name(credentials.username)
        if name is None:
            # Asked all the same, so that the time does not tell.
            spellings, name = [credentials.username], ""
        else:
            spellings = [name.encode("utf-8")]
            local, _, domain = name.rpartition("@")
            if self._naming.domains == (domain,):
                spellings.append(local.encode("utf-8"))
        refusal: Exception = UnauthorizedLogin()
        for spelling in spellings:
            attempt: ICredentials = UsernamePassword(spelling, password)
            try:
                answer = await maybeDeferred(self._checker.requestAvatarId, attempt)
            except (CredLoginFailed, LoginFailed) as error:
                refusal = error
                continue
            account = name if answer == spelling else self._account(answer)
            if not account:
                break
            return account.encode("utf-8")
        raise refusal

    def _account(self, answer: Any) -> str | None:
        account = self._naming.login_name(answer) if isinstance(answer, (bytes, str)) else None
        if account is None:
            log.warn("A checker answered with {answer!r}, which cannot be an account's name", answer=answer)
        return account
