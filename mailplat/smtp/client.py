"""
The client's side of an SMTP or LMTP connection (RFC 5321, RFC 2033).

`connect` goes to a host, greets it, starts TLS, logs in, and answers an `SMTPClient`, which
sends any number of messages one after the other until it is told to `quit` or is no longer
`usable`.  Like the servers' sessions it is one coroutine on a wire: it waits for work, or for
the host to end the connection, whichever comes first.  One transaction is in
`mailplat.smtp.sending`.

What goes wrong with the connection is a `HostUnreachable`, what is said about a message is in
its outcomes.  Everything a host says is checked, has a limit, and is cleaned before it is
passed on.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from secrets import token_bytes
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool

from mailplat import sasl
from mailplat.connection import Connection, ConnectionLimits, Observe
from mailplat.dialing import dial
from mailplat.errors import HostUnreachable, MailError, MalformedLogin, PermanentError, TLSFailed
from mailplat.interfaces import ISpooledMessage
from mailplat.smtp.client_engine import ClientLimits, ReplyEngine
from mailplat.smtp.conversation import Conversation, Over, accepts, refuses, text_of
from mailplat.smtp.extensions import Extensions
from mailplat.smtp.grammar import Reply
from mailplat.smtp.sending import Sending
from mailplat.trust import Trust
from mailplat.values import Address, Envelope, Outcome, TLSInfo, TLSRequirement
from mailplat.wire import Engine, TimedOut, Wake, Wire, WireError

__all__ = ["ClientLimits", "ClientSettings", "Extensions", "Login", "SMTPClient", "connect"]


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """Who we are to a smarthost."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """
    How to speak to a host.

    Attributes:
        hello: our name, for EHLO or LHLO: a domain or an address literal, ASCII.
        lmtp: speak LMTP.
        requirement: what TLS must be like.  With "may" a handshake that fails is a `TLSFailed`
            as well: whoever dials may do so again, with "none".
        login: log in, or do not send at all; None for a host that needs no login.
        implicit_tls: TLS from the first byte, whatever the requirement (RFC 8314 §3.3).
    """

    hello: str
    lmtp: bool = False
    requirement: TLSRequirement = field(default_factory=TLSRequirement)
    login: Login | None = None
    implicit_tls: bool = False
    limits: ClientLimits = field(default_factory=ClientLimits)


async def connect(
    endpoint: IStreamClientEndpoint,
    host: str,
    settings: ClientSettings,
    reactor: Any,
    trust: Trust,
    observe: Observe | None = None,
) -> SMTPClient:
    """
    Connect to a host, and get as far as to be able to send.

    Args:
        endpoint: how to get there.
        host: its name or address, as it is to stand in outcomes, in SNI, and in its certificate.
        reactor: provides IReactorTime; for a SCRAM login also IReactorThreads and
            IReactorFromThreads.
        observe: as `mailplat.connection.MailFactory.observe`.

    Raises:
        HostUnreachable: not now; TLSFailed if it is because of TLS.
        PermanentError: the host says that it takes no mail from us (RFC 5321 §3.1).
    """
    limits = settings.limits
    level = settings.requirement.level
    uses_tls = settings.implicit_tls or level != "none"

    def make(connection: Connection) -> SMTPClient:
        async def salted(password: bytes, salt: bytes, iterations: int) -> bytes:
            work = partial(sasl.salted_password, password, salt, iterations)
            return await deferToThreadPool(reactor, reactor.getThreadPool(), work)

        return SMTPClient(connection, host, settings, salted=salted, abort=connection.abort)

    client = await dial(
        endpoint,
        "lmtp-client" if settings.lmtp else "smtp-client",
        make,
        reactor,
        tls=trust.towards(host, settings.requirement) if uses_tls else None,
        implicit_tls=settings.implicit_tls,
        timeout=limits.connect_timeout,
        limits=ConnectionLimits(write_timeout=limits.block_timeout),
        observe=observe,
    )
    try:
        await client.ready
    except CancelledError:
        client.abort()
        raise
    return client


Work = Callable[[], Awaitable[Sequence[Outcome]]]


class SMTPClient:
    """
    One connection to a host.

    Made by `connect`; see `mailplat.connection.Session` for `engine` and `run`.

    Args:
        wire: the connection.
        host: see `connect`.
        salted: `sasl.salted_password`, out of the reactor's way.
        abort: closes the connection at once.

    Attributes:
        host: as it was given.
        extensions: what the host offers.
        usable: another message may be sent.  False once the host said 421, closed the connection
            or was not understood, the messages it takes in one connection are used up
            (RFC 9422), it had nothing to do for too long, or `quit` was called.
        ready: fires when the greeting is over, or fails with what `connect` raises.
        closed: fires when the session has ended.
        abort: closes the connection at once; what is being sent has a temporary outcome.
    """

    def __init__(
        self,
        wire: Wire,
        host: str,
        settings: ClientSettings,
        *,
        salted: Callable[[bytes, bytes, int], Awaitable[bytes]],
        abort: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine: Engine = ReplyEngine(settings.limits)
        self.host = host
        self.extensions = Extensions()
        self.usable = False
        self.ready: Deferred[None] = Deferred()
        self.closed: Deferred[None] = Deferred()
        self.abort = abort
        self._wire = wire
        self._settings = settings
        self._limits = settings.limits
        self._salted = salted
        self._conversation = Conversation(wire, host, settings.limits)
        self._sending = Sending(self._conversation, lmtp=settings.lmtp)
        self._work: deque[tuple[Work, Deferred[Sequence[Outcome]]]] = deque()
        self._quitting = False
        self._ended = False
        self._securing = False  # STARTTLS was granted

    @property
    def tls(self) -> TLSInfo | None:
        """The connection's TLS, None in clear."""
        return self._wire.peer.tls

    def send(
        self,
        envelope: Envelope,
        message: ISpooledMessage,
        prefix: bytes,
        recipients: Sequence[Address],
    ) -> Deferred[Sequence[Outcome]]:
        """
        Send a message, after those handed in before.

        Args:
            envelope: sender, body, utf8, returns, envelope_id and requests count.
            message: stays the caller's, who closes it when the result is there.
            prefix: header lines to be sent before it.
            recipients: at least one; more than the host takes at a time are sent in several
                transactions.

        Returns:
            an outcome for each recipient, in order.

        Raises (as the Deferred's failure):
            HostUnreachable: the connection had ended, or the host would not begin; nothing was
                said about this message, and it may be sent in another connection at once.
        """

        async def work() -> Sequence[Outcome]:
            return await self._sending.send(envelope, message, prefix, recipients)

        result: Deferred[Sequence[Outcome]] = Deferred()
        if self._ended or self._quitting:
            result.errback(HostUnreachable("The connection has ended"))
        else:
            self._work.append((work, result))
            self._wire.wake()
        return result

    def quit(self) -> Deferred[None]:
        """
        Say goodbye, after what was handed in before, and close.

        Returns:
            fires when the session has ended; never fails.
        """
        self._quitting = True
        self.usable = False
        self._wire.wake()
        quitted: Deferred[None] = Deferred()
        self.closed.addCallback(lambda _: quitted.callback(None))
        return quitted

    # The session

    async def run(self) -> None:
        """From the greeting to the end."""
        try:
            await self._open()
        except Exception as error:
            self._end()
            self.ready.errback(error)
            if not isinstance(error, MailError):
                raise
        else:
            self.extensions = self._sending.extensions
            self.usable = not self._quitting
            self.ready.callback(None)
            if await self._serve():
                self._end()
                await self._quit()
        finally:
            self._end()
            self.closed.callback(None)

    async def _serve(self) -> bool:
        """Send what is handed in, until there is an end; whether the host may still be told."""
        while True:
            if self._work:
                work, result = self._work.popleft()
                try:
                    outcomes = await work()
                except Exception as error:
                    # Whatever happened in the middle of a transaction, there is no going on.
                    self._end()
                    result.errback(error)
                    return False
                if not self._sending.usable:
                    self._end()
                result.callback(outcomes)
                if self._ended:
                    return not self._sending.over
            elif self._quitting:
                return True
            else:
                try:
                    event = await self._wire.event(self._limits.idle_timeout, wakeable=True)
                except TimedOut:
                    return True
                except WireError:
                    return False
                if event is not Wake.NEWS:
                    # 421, most likely.  Whatever it is, it answers nothing that we asked.
                    return False

    def _end(self) -> None:
        """Nothing more is sent."""
        self._ended = True
        self.usable = False
        waiting, self._work = self._work, deque()
        for _, result in waiting:
            result.errback(HostUnreachable("The connection has ended"))

    async def _quit(self) -> None:
        # RFC 5321 §4.1.1.10: the connection is closed after the reply, whatever it says.
        with suppress(Over):
            await self._conversation.ask("QUIT", self._limits.quit_timeout)

    # Greeting

    async def _open(self) -> None:
        """
        Raises:
            HostUnreachable, TLSFailed, PermanentError: as `connect`.
        """
        try:
            greeting = await self._conversation.reply(self._limits.greeting_timeout)
            if not accepts(greeting):
                # RFC 5321 §3.1: with 554 there is no SMTP service here, and QUIT is all to be said.
                raise await self._unwelcome(greeting)
            extensions = await self._hello()
            if not self._settings.implicit_tls and await self._secure(extensions):
                # RFC 3207 §4.2: what was offered in clear counts no longer.
                extensions = await self._hello()
            if self._settings.login is not None:
                await self._log_in(self._settings.login, extensions)
            self._sending.extensions = extensions
        except Over as over:
            if self._securing and self.tls is None:
                why = over.error.reason or over.error.text
                raise TLSFailed(f"TLS with {self.host} failed", reason=why) from None
            raise HostUnreachable(over.error.text, reason=over.error.reason) from None

    async def _unwelcome(self, reply: Reply) -> MailError:
        await self._quit()
        text = text_of(reply)
        return PermanentError(text) if reply.code >= 500 else HostUnreachable(text)

    async def _hello(self) -> Extensions:
        ask, settings = self._conversation.ask, self._settings
        timeout = self._limits.command_timeout
        reply = await ask(f"{'LHLO' if settings.lmtp else 'EHLO'} {settings.hello}", timeout)
        if accepts(reply):
            return Extensions.parse(reply.lines[1:])
        if reply.code >= 500 and not settings.lmtp:
            # RFC 5321 §3.2
            reply = await ask(f"HELO {settings.hello}", timeout)
            if accepts(reply):
                return Extensions()
        raise await self._unwelcome(reply)

    async def _secure(self, extensions: Extensions) -> bool:
        """Start TLS as far as required; whether it was."""
        wire, level = self._wire, self._settings.requirement.level
        if level == "none":
            return False
        if not extensions.starttls:
            if level == "may":
                return False
            await self._quit()
            raise TLSFailed(f"{self.host} does not offer STARTTLS")
        reply = await self._conversation.ask("STARTTLS", self._limits.command_timeout)
        if not accepts(reply):
            # RFC 3207 §4: 454 is "not now", and a client decides whether it goes on without.
            if level == "may" and refuses(reply):
                return False
            await self._quit()
            raise TLSFailed(text_of(reply))
        # What came in clear after the reply is forgotten here: nobody on the way can put
        # replies into the encrypted session.
        self._securing = True
        wire.start_tls()
        return True

    # Logging in

    async def _log_in(self, login: Login, extensions: Extensions) -> None:
        """
        Raises:
            HostUnreachable: a login that is refused says nothing about the mail that waits, so it
                waits until somebody has mended the settings.
            Over.
        """
        peer = self._wire.peer
        if peer.tls is None and not peer.is_loopback:
            await self._quit()
            raise TLSFailed(f"There is no TLS, and {self.host} is not to see a password without")
        for mechanism, act in _MECHANISMS:
            if mechanism in extensions.mechanisms and (mechanism != sasl.SCRAM_PLUS or _bindings(peer.tls)):
                reply = await act(self, login, extensions)
                if accepts(reply):
                    return
                await self._quit()
                raise HostUnreachable(f"{self.host} refused the login: {text_of(reply)}")
        await self._quit()
        raise HostUnreachable(f"{self.host} offers no login that can be used")

    async def _respond(self, response: bytes, before: str = "") -> Reply:
        # RFC 4954 §4: an initial response that is empty is "=".
        text = b64encode(response).decode("ascii") or "="
        return await self._conversation.ask(before + text, self._limits.command_timeout)

    async def _plain(self, login: Login, extensions: Extensions) -> Reply:
        return await self._respond(f"\0{login.user}\0{login.password}".encode(), "AUTH PLAIN ")

    async def _login(self, login: Login, extensions: Extensions) -> Reply:
        reply = await self._conversation.ask("AUTH LOGIN", self._limits.command_timeout)
        # The prompts differ from host to host, their order does not.
        for word in (login.user, login.password):
            if reply.code != 334:
                break
            reply = await self._respond(word.encode())
        return reply

    async def _scram(self, login: Login, extensions: Extensions) -> Reply:
        bindings = _bindings(self._wire.peer.tls)
        plus = bool(bindings) and sasl.SCRAM_PLUS in extensions.mechanisms
        exchange = sasl.ScramClient(
            sasl.prepared_name(login.user.encode()),
            token_bytes(24),
            bindings[0] if plus else None,
            could_bind=bool(bindings),
        )
        mechanism = sasl.SCRAM_PLUS if plus else sasl.SCRAM
        reply = await self._respond(exchange.first(), f"AUTH {mechanism} ")
        if reply.code != 334:
            return reply
        try:
            salt, iterations = exchange.challenge(_decoded(reply))
        except MalformedLogin:
            raise self._conversation.unexpected(reply) from None
        if iterations > self._limits.iterations:
            raise Over(HostUnreachable(f"{self.host} asks for too much work in a login"))
        password = sasl.prepared_password(login.password.encode())
        reply = await self._respond(exchange.final(await self._salted(password, salt, iterations)))
        if reply.code == 334:
            # The host's proof that it knows the password; our answer to it is empty.
            if not exchange.trusts(_decoded(reply)):
                raise Over(HostUnreachable(f"{self.host} does not know our password, but would take it"))
            return await self._conversation.ask("", self._limits.command_timeout)
        if accepts(reply):
            # RFC 4954 §4 has no place for the proof beside 235, so it was not given.
            raise Over(HostUnreachable(f"{self.host} did not prove that it knows our password"))
        return reply


_Mechanism = Callable[[SMTPClient, Login, Extensions], Awaitable[Reply]]

#: From the best to the worst: with SCRAM the host does not see the password.
_MECHANISMS: Sequence[tuple[str, _Mechanism]] = (
    (sasl.SCRAM_PLUS, SMTPClient._scram),
    (sasl.SCRAM, SMTPClient._scram),
    (sasl.PLAIN, SMTPClient._plain),
    (sasl.LOGIN, SMTPClient._login),
)


def _bindings(tls: TLSInfo | None) -> Sequence[tuple[str, bytes]]:
    """The channel bindings there are, the best one first."""
    if tls is None:
        return ()
    known = (("tls-exporter", tls.exporter), ("tls-server-end-point", tls.end_point))
    return [(name, data) for name, data in known if data]


def _decoded(reply: Reply) -> bytes:
    try:
        return b64decode(reply.lines[0], validate=True)
    except (NotBase64, ValueError):
        return b""
