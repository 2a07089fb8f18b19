"""
A cred portal for mail: several checkers for one kind of credentials, and patience with guessers.

Any `twisted.cred` portal serves the protocols; this one is what the server itself uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.cred.error import LoginFailed as CredLoginFailed
from twisted.cred.error import Unauthorized, UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import Interface, implementer

from mailplat.auth.guessers import Guessers, GuessLimits
from mailplat.errors import LoginFailed, LoginUnavailable, MailError
from mailplat.interfaces import IScramCredentials
from mailplat.logs import tell
from mailplat.values import Peer, ScramRecord

log = Logger()

#: What a checker raises to say no: cred's words, or ours.
REFUSALS: Final = (CredLoginFailed, Unauthorized, LoginFailed)


class MailPortal(Portal):
    """
    Args:
        realm: hands out the avatars.
        checkers: those that verify the same kind of credentials are asked in this order,
            until one says yes.
        clock: measures the patience.
    """

    def __init__(
        self,
        realm: IRealm,
        checkers: Iterable[Any],
        clock: IReactorTime,
        limits: GuessLimits | None = None,
    ) -> None:
        self._chains: dict[type[Interface], CheckerChain] = {}
        self._guessers = Guessers(clock, limits)
        super().__init__(realm, checkers)

    def registerChecker(self, checker: Any, *credentialInterfaces: type[Interface]) -> None:
        """Ask `checker`, after those registered before."""
        for interface in credentialInterfaces or checker.credentialInterfaces:
            chain = self._chains.get(interface)
            if chain is None:
                chain = self._chains[interface] = self.checkers[interface] = CheckerChain(interface)
            chain.add(checker)

    def listCredentialsInterfaces(self) -> list[type[Interface]]:
        """
        What can be offered to any user.

        SCRAM is not on the list while some checker verifies passwords only: clients choose
        the strongest mechanism, and that checker's users could not log in.
        """
        passwords = self._chains.get(IUsernamePassword)
        scram = self._chains.get(IScramCredentials)
        if passwords is None or scram is None or all(c in scram.checkers for c in passwords.checkers):
            return list(self._chains)
        return [interface for interface in self._chains if interface is not IScramCredentials]

    def login(self, credentials: Any, mind: object, *interfaces: type[Interface]) -> Deferred[Any]:
        """
        As cred's.  May be cancelled at any time.

        Args:
            mind: the `Peer`; another object, such as None, is not slowed down.

        Fails with:
            UnauthorizedLogin, LoginUnavailable, and what the realm raises.
        """
        for interface, chain in self._chains.items():
            if interface.providedBy(credentials):
                return Deferred.fromCoroutine(self._login(chain, credentials, mind, interfaces))
        return Deferred.fromCoroutine(_unhandled())

    async def _login(
        self, chain: CheckerChain, credentials: Any, mind: object, interfaces: tuple[type[Interface], ...]
    ) -> Any:
        if isinstance(mind, Peer) and chain.interface is not IAnonymous:
            identity = await self._patiently(chain, credentials, mind)
        else:
            identity = await chain.ask(credentials)
        # A realm may answer with a Deferred or with the avatar itself.
        return await maybeDeferred(self.realm.requestAvatar, identity, mind, *interfaces)

    async def _patiently(self, chain: CheckerChain, credentials: Any, peer: Peer) -> Any:
        account = getattr(credentials, "username", b"").decode("utf-8", "replace").lower()
        key = await self._guessers.begin(peer.host, account)
        right: bool | None = None
        try:
            identity = await chain.ask(credentials)
            right = True
            tell(
                log,
                "Login on {service} for {account!r} from {host}",
                service=peer.service,
                account=account[:80],
                host=peer.host,
                connection=peer.connection,
            )
        except REFUSALS:
            right = False
            tell(
                log,
                "Login failed on {service} for {account!r} from {host}",
                service=peer.service,
                account=account[:80],
                host=peer.host,
                connection=peer.connection,
            )
            raise
        finally:
            self._guessers.end(key, right, peer.host, account)
        return identity


@implementer(ICredentialsChecker)
class CheckerChain:
    """
    Checkers of one kind of credentials, asked one after the other.

    Yes from one is yes.  If none says yes and one could not tell, nobody can: that is
    LoginUnavailable, so that a client doesn't throw a right password away.
    """

    def __init__(self, interface: type[Interface]) -> None:
        self.interface = interface
        self.credentialInterfaces = (interface,)
        self.checkers: list[Any] = []

    def add(self, checker: Any) -> None:
        self.checkers.append(checker)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """`ask`, for whoever finds the chain in `Portal.checkers`."""
        return Deferred.fromCoroutine(self.ask(credentials))

    async def ask(self, credentials: Any) -> Any:
        """What the first checker that says yes answers."""
        if self.interface is IScramCredentials and len(self.checkers) > 1:
            return await self._exchange(credentials)
        trouble: Exception | None = None
        for checker in self.checkers:
            try:
                return await maybeDeferred(checker.requestAvatarId, credentials)
            except REFUSALS:
                continue
            except CancelledError:
                raise
            except Exception as error:
                # An exchange with the peer can't be had twice: what broke it is final.
                if self.interface is IScramCredentials:
                    raise
                trouble = error
                if not isinstance(error, MailError):
                    log.failure("{checker} could not check a login", checker=type(checker).__name__)
        if trouble is None:
            raise UnauthorizedLogin
        raise trouble if isinstance(trouble, MailError) else LoginUnavailable()

    async def _exchange(self, credentials: Any) -> Any:
        """Find the checker that knows the user before the one exchange that there can be."""
        invented: list[ScramRecord] = []
        for checker in self.checkers:
            held = _Held(credentials, invented)
            try:
                return await maybeDeferred(checker.requestAvatarId, held)
            except REFUSALS:
                if held.exchanged:
                    raise
        if invented:
            await credentials.exchange(invented[0])
        raise UnauthorizedLogin


@implementer(IScramCredentials)
class _Held:
    """SCRAM credentials that exchange nothing over an invented record."""

    def __init__(self, credentials: Any, invented: list[ScramRecord]) -> None:
        self._credentials = credentials
        self._invented = invented
        self.username: bytes = credentials.username
        self.exchanged = False

    async def exchange(self, record: ScramRecord) -> bool:
        if not record.known:
            self._invented.append(record)
            return False
        self.exchanged = True
        return bool(await self._credentials.exchange(record))


async def _unhandled() -> Any:
    raise UnhandledCredentials("No checker for these credentials")
