"""
How a session logs its peer in: one function for a password, one for a SASL exchange.

Both end in `portal.login`, with the `Peer` as cred's mind, so that any `twisted.cred`
portal will do; what can be offered to the peer follows from the credentials that the
portal's checkers verify.  Base64 and the protocol's own words stay with the session.

A peer can't tell an unknown user from a wrong password here: it is the same word, and the
checkers in `mailplat.auth.accounts` take the same time.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from twisted.cred.credentials import Anonymous, ICredentials, IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed as CredLoginFailed
from twisted.cred.error import Unauthorized
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from zope.interface import Interface, implementer

from mailplat import sasl
from mailplat.errors import (
    AccountUnusable,
    LoginCancelled,
    LoginFailed,
    LoginUnavailable,
    MalformedLogin,
    NoSuchMechanism,
    PermanentError,
    PrivacyRequired,
    TemporaryError,
)
from mailplat.interfaces import IScramCredentials
from mailplat.values import Peer, ScramRecord
from mailplat.wire import WireError

__all__ = ["Login", "anonymously", "mechanisms", "password_allowed", "with_password", "with_sasl"]

log = Logger()

#: Sends a challenge and answers with the response, both without base64; None if the client cancelled.
Ask = Callable[[bytes], Awaitable[bytes | None]]


@dataclass(frozen=True)
class Login:
    """
    A peer that is logged in.

    Attributes:
        avatar: provides the interface that was asked for.
        logout: to be called once, when the peer leaves.
        name: the account's name where the avatar has a `name` (or `account`), otherwise the
            user name as the client gave it; "" for an anonymous peer.
        final: additional data to send with success; `with_sasl` has already sent what
            its mechanisms have, as no mail protocol has room for it in its success reply.
    """

    avatar: Any
    logout: Callable[[], None]
    name: str
    final: bytes = b""


def password_allowed(peer: Peer, plaintext_login: str) -> bool:
    """
    Whether the peer may send a password now.

    Args:
        plaintext_login: "never", "loopback" or "always": who may without TLS.
    """
    if peer.tls is not None or plaintext_login == "always":
        return True
    return plaintext_login == "loopback" and peer.is_loopback


def mechanisms(portal: Portal, peer: Peer, plaintext_login: str) -> tuple[str, ...]:
    """The SASL mechanisms to offer to this peer now, strongest first."""
    verified = portal.listCredentialsInterfaces()
    offered: list[str] = []
    if IScramCredentials in verified:
        if _bindings(peer):
            offered.append(sasl.SCRAM_PLUS)
        offered.append(sasl.SCRAM)
    if IUsernamePassword in verified and password_allowed(peer, plaintext_login):
        offered += (sasl.PLAIN, sasl.LOGIN)
    return tuple(offered)


async def with_password(
    portal: Portal, username: bytes, password: bytes, peer: Peer, interface: type[Interface]
) -> Login:
    """
    Log in with a password, as IMAP's LOGIN and POP3's USER and PASS do.

    The caller has asked `password_allowed`.

    Raises:
        LoginFailed, LoginUnavailable; another TemporaryError of the realm, such as InUse;
        AccountUnusable for another PermanentError of it.
    """
    username = sasl.prepared_name(username)
    return await _login(portal, UsernamePassword(username, password), username, peer, interface)


async def anonymously(portal: Portal, peer: Peer, interface: type[Interface]) -> Login:
    """
    Log in without credentials, as a peer that brings mail on port 25 does.

    Raises:
        LoginFailed: no checker of the portal admits anonymous peers.
        LoginUnavailable.
    """
    return await _login(portal, Anonymous(), b"", peer, interface)


async def with_sasl(
    portal: Portal,
    mechanism: str,
    initial: bytes | None,
    ask: Ask,
    peer: Peer,
    interface: type[Interface],
    plaintext_login: str,
) -> Login:
    """
    Log in by a SASL exchange (RFC 4422).

    Args:
        mechanism: as the client gave it, in any case.
        initial: the client's initial response, which may be empty; None if it sent none.
        ask: sends a challenge and returns the response, None if the client cancelled.
            What it raises passes through.

    Raises:
        NoSuchMechanism: not one of `mechanisms`.
        PrivacyRequired: it is one that would be offered with TLS.
        MalformedLogin, LoginCancelled, LoginFailed, LoginUnavailable; another
        TemporaryError of the realm, such as InUse.
    """
    mechanism = mechanism.upper()
    if mechanism not in mechanisms(portal, peer, plaintext_login):
        # "always" is what TLS would allow, as far as passwords are concerned.
        if mechanism in mechanisms(portal, peer, "always"):
            raise PrivacyRequired
        raise NoSuchMechanism
    if mechanism == sasl.PLAIN:
        response = initial if initial is not None else await _answer(ask, b"")
        plain = sasl.Plain.parse(response)
        credentials = UsernamePassword(plain.username, plain.password)
        login = await _login(portal, credentials, plain.username, peer, interface)
        return _as_asked(login, plain.username, plain.authzid)
    if mechanism == sasl.LOGIN:
        name = initial if initial is not None else await _answer(ask, sasl.LOGIN_USERNAME)
        password = await _answer(ask, sasl.LOGIN_PASSWORD)
        return await with_password(portal, name, password, peer, interface)

    scram = sasl.ScramServer(_bindings(peer), secrets.token_bytes(18), plus=mechanism == sasl.SCRAM_PLUS)
    username = scram.first(initial if initial is not None else await _answer(ask, b""))
    exchange = ScramExchange(scram, username, ask)
    login = await _login(portal, exchange, username, peer, interface)
    login = _as_asked(login, username, scram.authzid)
    try:
        # No mail protocol carries data in its success reply, so the server's proof goes as a challenge,
        # answered by an empty response (RFC 4954 §4, RFC 3501 §6.2.2, RFC 5034 §4).
        if await _answer(ask, exchange.proof):
            raise MalformedLogin
    except BaseException:
        login.logout()
        raise
    return login


@implementer(ICredentials, IScramCredentials)
class ScramExchange:
    """
    A SCRAM exchange that waits for its record, as cred credentials.

    Attributes:
        proof: what the client is to be sent when all is well; empty until then.
        error: what `exchange` raised, so that it outlives whatever the checker does with it.
    """

    def __init__(self, scram: sasl.ScramServer, username: bytes, ask: Ask) -> None:
        self._scram = scram
        self._ask = ask
        self.username = username
        self.proof = b""
        self.error: BaseException | None = None

    async def exchange(self, record: ScramRecord) -> bool:
        try:
            response = await _answer(self._ask, self._scram.challenge(record))
            self.proof = self._scram.final(response)
        except BaseException as error:
            self.error = error
            raise
        return bool(self.proof)


def _bindings(peer: Peer) -> dict[str, bytes]:
    """The channel bindings of a connection by name (RFC 5056)."""
    if peer.tls is None:
        return {}
    found = {"tls-exporter": peer.tls.exporter, "tls-server-end-point": peer.tls.end_point}
    return {name: data for name, data in found.items() if data}


async def _answer(ask: Ask, challenge: bytes) -> bytes:
    response = await ask(challenge)
    if response is None:
        raise LoginCancelled
    return response


async def _login(
    portal: Portal, credentials: ICredentials, username: bytes, peer: Peer, interface: type[Interface]
) -> Login:
    try:
        _, avatar, logout = await portal.login(credentials, peer, interface)
    except Exception as error:
        exchange = credentials if isinstance(credentials, ScramExchange) else None
        if exchange is not None and exchange.error is not None:
            raise exchange.error from None
        raise _word(error, peer) from None
    name = getattr(avatar, "name", None) or getattr(avatar, "account", None)
    return Login(avatar, logout, name if isinstance(name, str) else username.decode("utf-8", "replace"))


def _word(error: Exception, peer: Peer) -> Exception:
    """What the session is told instead of `error`."""
    if isinstance(error, (LoginFailed, TemporaryError, MalformedLogin, WireError, CancelledError)):
        return error
    if isinstance(error, (CredLoginFailed, Unauthorized)):
        return LoginFailed()
    if isinstance(error, PermanentError):
        # Such as NoSuchAccount of the realm.
        return AccountUnusable(error.text, error.reason)
    log.failure(
        "Login on {service} for {host} could not be checked", service=peer.service, host=peer.host
    )
    return LoginUnavailable()


def _as_asked(login: Login, username: bytes, authzid: bytes) -> Login:
    """
    Nobody may act for somebody else (RFC 4616 §2): an authorization identity must be the user's own.

    Raises:
        LoginFailed: it is not; the peer is logged out again.
    """
    if authzid and authzid != username and authzid.decode("utf-8", "replace").lower() != login.name:
        login.logout()
        raise LoginFailed
    return login
