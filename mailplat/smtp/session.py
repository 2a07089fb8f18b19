"""
The server's side of an SMTP, submission or LMTP connection (RFC 5321, RFC 6409, RFC 2033).

A session is one coroutine that takes events from its engine and answers each at once, so
replies stand in the order of the commands however long a store takes.  What the peer may
do is the avatar's affair: the session asks its `IMailReceiver` about each sender and
recipient and hands it the message; an anonymous peer gets a receiver that takes local
mail, AUTH gets one that may send.  The services differ in three things only:

    smtp         EHLO or HELO    one reply for a message
    submission   EHLO or HELO    one reply for a message; AUTH offered, and required
    lmtp         LHLO            after the content, a reply for each recipient
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from twisted.cred.portal import Portal
from twisted.logger import Logger

from mailplat.auth import login
from mailplat.errors import (
    LoginCancelled,
    LoginFailed,
    MailError,
    MalformedLogin,
    PermanentError,
    SenderRefused,
    TemporaryError,
)
from mailplat.interfaces import IMailReceiver, ISpool, ISpoolWriter, IVerifiesAddresses
from mailplat.smtp import replies as say
from mailplat.smtp.data import Fault
from mailplat.smtp.engine import Bad, End, Limits, Response, SMTPEngine
from mailplat.smtp.grammar import (
    Command,
    Malformed,
    MalformedParameter,
    Reply,
    format_path,
    is_ascii,
    parse_bdat,
    parse_hello,
    parse_mail,
    parse_mailbox,
    parse_rcpt,
    reply,
)
from mailplat.smtp.parameters import DeclaredTooLarge, Offered, UnknownParameter, requested, stated
from mailplat.values import NO_REQUEST, Envelope, Outcome, Peer
from mailplat.wire import Engine, Stopping, TimedOut, Wire, WireError

#: What a peer may say on a submission port before it has logged in (RFC 4954 §4).
BEFORE_LOGIN = frozenset(("EHLO", "HELO", "NOOP", "QUIT", "RSET", "HELP", "STARTTLS", "AUTH"))

#: A limit that EHLO tells has six digits at the most (RFC 9422 §3).
MOST_LIMIT = 999_999

#: Commands that bring no message nearer.
IDLE = frozenset(("EHLO", "HELO", "LHLO", "NOOP", "RSET", "HELP", "VRFY"))


class Farewell(Exception):
    """Say `reply` and close."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


class SMTPSession:
    """
    One connection.

    Args:
        wire: the connection; `wire.peer.service` is "smtp", "submission" or "lmtp".
        portal: gives `IMailReceiver`s, for anonymous credentials on smtp and lmtp.
        spool: where messages go while they arrive.
        hostname: our name, for greeting and EHLO.
        plaintext_login: who may send passwords without TLS: "never", "loopback", "always".
        limits: see `mailplat.smtp.engine.Limits`.
        log: a `twisted.logger.Logger`.
        offered: says at each moment which parameters are taken; by default what every server takes.
    """

    def __init__(
        self,
        wire: Wire,
        portal: Portal,
        spool: ISpool,
        *,
        hostname: str,
        plaintext_login: str,
        limits: Limits,
        log: Logger,
        offered: Callable[[], Offered] | None = None,
    ) -> None:
        self._engine = SMTPEngine(limits)
        self.engine: Engine = self._engine
        self._wire = wire
        self._portal = portal
        self._spool = spool
        self._hostname = hostname
        self._plaintext_login = plaintext_login
        self._limits = limits
        self._log = log
        self._offered = offered or (lambda: Offered(limits.message, wire.peer.service == "submission"))

        self._service = wire.peer.service
        self._lmtp = self._service == "lmtp"
        self._submission = self._service == "submission"

        self._hello = ""
        self._extended = True  # it was EHLO or LHLO, not HELO
        self._receiver: Any = None  # an IMailReceiver
        self._logout: Callable[[], None] | None = None
        self._authenticated = False

        # The transaction: none if `_envelope` is None.
        self._envelope: Envelope | None = None
        self._chunked = False  # BDAT was used in it
        self._writer: ISpoolWriter | None = None
        self._trouble: MailError | None = None  # the spool's, for the end of the content

        self._errors = 0
        self._idle_commands = 0
        self._messages = 0
        self._failed_logins = 0
        self._incidents = 0

    async def run(self) -> None:
        """From the greeting to the end; `PeerGone` passes."""
        wire, timeout = self._wire, self._limits.command_timeout
        wire.phase(self._limits.before_login if self._submission else self._limits.idle_time)
        protocol = "LMTP" if self._lmtp else "ESMTP"
        wire.write(f"220 {self._hostname} {protocol}\r\n".encode("ascii"))
        try:
            while True:
                event = await wire.event(timeout)
                if type(event) is Command:
                    await self._command(event.verb, event.argument)
                else:
                    # Content and responses are read by those who asked for them.
                    self._refuse(say.BAD_LINES[event])
        except TimedOut:
            wire.write(say.IDLE)
        except Stopping:
            wire.write(say.STOPPING)
        except Farewell as farewell:
            wire.write(farewell.reply)
        finally:
            self._reset()
            self._leave()

    async def _command(self, verb: str, argument: str) -> None:
        act = _COMMANDS.get(verb)
        if act is None or (verb in _NOT_IN_SERVICE[self._service]):
            self._refuse(say.NOT_IMPLEMENTED if verb in _NOT_OFFERED else say.NOT_KNOWN)
            return
        if verb in IDLE:
            self._idle_commands += 1
            if self._idle_commands > self._limits.idle_commands:
                raise Farewell(say.TOO_MANY_COMMANDS)
        if self._submission and not self._authenticated and verb not in BEFORE_LOGIN:
            # RFC 4954 §6
            await self._refuse_chunk_too(verb, argument, say.LOGIN_FIRST)
            return
        try:
            await act(self, argument)
        except Malformed as error:
            self._refuse(reply(501, "5.5.4", str(error)))
        except MailError as error:
            self._refuse(say.error_reply(error))
        except (WireError, Farewell):
            raise
        except Exception:
            self._refuse(say.error_reply(self._incident(f"{verb} failed")))

    # Replies

    def _refuse(self, text: bytes) -> None:
        self._wire.write(text)
        # 5xx is what scanners and broken clients collect; 4xx is our own doing.
        if text[:1] == b"5":
            self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors > self._limits.errors:
            raise Farewell(say.TOO_MANY_ERRORS)

    def _incident(self, what: str) -> MailError:
        """Log the exception being handled; the peer gets a number to quote and nothing else."""
        self._incidents += 1
        number = f"{self._wire.peer.connection}-{self._incidents}"
        self._log.failure(
            "{what}; incident {incident}, {service} from {host}",
            what=what,
            incident=number,
            service=self._service,
            host=self._wire.peer.host,
        )
        return TemporaryError(f"Internal error, incident {number}")

    # Greeting

    async def _ehlo(self, argument: str) -> None:
        self._greeted(argument)
        self._wire.write(bytes(Reply(250, (self._hostname, *self._capabilities()))))

    async def _helo(self, argument: str) -> None:
        self._greeted(argument, extended=False)
        self._wire.write(f"250 {self._hostname}\r\n".encode("ascii"))

    def _greeted(self, argument: str, extended: bool = True) -> None:
        hello = parse_hello(argument)
        # RFC 5321 §4.1.4: EHLO in a session is RSET as well.
        self._reset()
        if (hello, extended) != (self._hello, self._extended):
            self._hello, self._extended = hello, extended
            if not self._authenticated:
                self._leave()

    def _capabilities(self) -> list[str]:
        wire, limits = self._wire, self._limits
        capabilities = [
            "PIPELINING",  # RFC 2920
            f"SIZE {limits.message}",  # RFC 1870
            "8BITMIME",  # RFC 6152
            "SMTPUTF8",  # RFC 6531
            "ENHANCEDSTATUSCODES",  # RFC 2034
            f"LIMITS MAILMAX={min(limits.transactions, MOST_LIMIT)} "
            f"RCPTMAX={min(limits.recipients, MOST_LIMIT)}",  # RFC 9422
            "CHUNKING",  # RFC 3030
        ]
        offered = self._offered()
        if offered.reports:
            capabilities.append("DSN")  # RFC 3461
        if offered.hold:
            latest = datetime.fromtimestamp(offered.now + offered.hold, UTC)
            # RFC 4865 §4: the longest interval, and the latest date.
            capabilities.append(f"FUTURERELEASE {offered.hold} {latest:%Y-%m-%dT%H:%M:%SZ}")
        if wire.can_start_tls:
            capabilities.append("STARTTLS")  # RFC 3207
        if self._submission and not self._authenticated:
            mechanisms = login.mechanisms(self._portal, wire.peer, self._plaintext_login)
            if mechanisms:
                capabilities.append(f"AUTH {' '.join(mechanisms)}")  # RFC 4954
        return capabilities

    # The avatar

    def _peer(self) -> Peer:
        return replace(self._wire.peer, hello=self._hello, extended=self._extended)

    async def _enter(self) -> None:
        """Get the receiver of an anonymous peer."""
        peer = self._peer()
        try:
            entered = await login.anonymously(self._portal, peer, IMailReceiver)
        except LoginFailed:
            raise SenderRefused("Access denied") from None
        self._receiver, self._logout = entered.avatar, entered.logout

    def _leave(self) -> None:
        logout, self._logout = self._logout, None
        self._receiver = None
        self._authenticated = False
        if logout is not None:
            try:
                logout()
            except Exception:
                self._incident("Logout failed")

    # The transaction

    def _reset(self) -> None:
        self._envelope = None
        self._chunked = False
        self._trouble = None
        self._engine.forget_chunks()
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.abandon()
            except Exception:
                self._incident("Abandoning a message failed")

    async def _mail(self, argument: str) -> None:
        if not self._hello:
            self._refuse(say.LHLO_FIRST if self._lmtp else say.HELLO_FIRST)
            return
        if self._envelope is not None:
            self._refuse(say.NESTED)
            return
        if self._messages >= self._limits.transactions:
            raise Farewell(say.TOO_MANY_MESSAGES)
        try:
            sender, parameters = parse_mail(argument)
        except MalformedParameter:
            raise
        except Malformed as error:
            self._refuse(reply(501, "5.1.7", str(error)))
            return
        try:
            envelope = stated(sender, parameters, self._offered()) if parameters else Envelope(sender)
        except UnknownParameter:
            self._refuse(say.UNKNOWN_PARAMETER)
            return
        except DeclaredTooLarge:
            self._refuse(say.TOO_LARGE)
            return
        if not envelope.utf8 and not is_ascii(sender):
            # RFC 6531 §3.5
            self._refuse(say.NEEDS_UTF8)
            return
        if self._receiver is None:
            await self._enter()
        await self._receiver.sender(envelope)
        self._envelope = envelope
        self._wire.write(say.SENDER_OK)

    async def _rcpt(self, argument: str) -> None:
        envelope = self._envelope
        if envelope is None:
            self._refuse(say.NEED_SENDER)
            return
        if self._chunked:
            self._refuse(say.CHUNKS_BEGUN)
            return
        try:
            recipient, parameters = parse_rcpt(argument)
        except MalformedParameter:
            raise
        except Malformed as error:
            self._refuse(reply(501, "5.1.3", str(error)))
            return
        try:
            request = requested(parameters, self._offered()) if parameters else NO_REQUEST
        except UnknownParameter:
            self._refuse(say.UNKNOWN_PARAMETER)
            return
        if not envelope.utf8 and not is_ascii(recipient):
            self._refuse(say.NEEDS_UTF8)
            return
        if len(envelope.recipients) >= self._limits.recipients:
            self._refuse(say.TOO_MANY_RECIPIENTS)
            return
        await self._receiver.recipient(envelope, recipient)
        self._envelope = envelope = replace(envelope, recipients=(*envelope.recipients, recipient))
        if request is not NO_REQUEST:
            self._envelope = replace(envelope, requests={**envelope.requests, recipient: request})
        self._wire.write(say.RECIPIENT_OK)

    async def _data(self, argument: str) -> None:
        envelope = self._envelope
        if argument:
            self._refuse(say.NO_ARGUMENT)
        elif envelope is None:
            self._refuse(say.NEED_SENDER)
        elif self._chunked:
            self._refuse(say.CHUNKS_BEGUN)
        elif not envelope.recipients:
            # RFC 5321 §4.1.1.4 and, as a duty, RFC 2033 §4.2
            self._refuse(say.NEED_RECIPIENT)
        else:
            self._content_begins()
            self._engine.begin_data()
            self._wire.write(say.START_DATA)
            fault = await self._content()
            await self._complete(envelope, fault)

    async def _bdat(self, argument: str) -> None:
        size, last = _chunk(argument)
        envelope = self._envelope
        if envelope is None:
            await self._skip_chunk(size, say.NEED_SENDER)
            return
        if not envelope.recipients:
            await self._skip_chunk(size, say.NEED_RECIPIENT)
            return
        if not self._chunked:
            # One phase for all chunks: that another one begins gives nobody more time.
            self._chunked = True
            self._content_begins()
        self._engine.begin_chunk(size, last)
        fault = await self._content()
        if last:
            await self._complete(envelope, fault)
            return
        error = self._failure(fault)
        if error is None:
            self._wire.write(reply(250, "2.0.0", f"{size} octets received"))
        else:
            # RFC 3030 §2: after a chunk that failed the message is lost; the chunks that
            # still come find no transaction.
            self._reset()
            self._refuse(say.error_reply(error))

    async def _refuse_chunk_too(self, verb: str, argument: str, text: bytes) -> None:
        if verb == "BDAT":
            size, _ = _chunk(argument)
            await self._skip_chunk(size, text)
        else:
            self._refuse(text)

    async def _skip_chunk(self, size: int, text: bytes) -> None:
        # A chunk comes whether it is wanted or not (RFC 3030 §2).
        self._engine.begin_chunk(size, True)
        self._engine.skip_content()
        while type(await self._wire.event(self._limits.data_timeout)) is not End:
            pass
        self._refuse(text)

    def _content_begins(self) -> None:
        self._wire.phase(self._limits.data_timeout, self._limits.data_rate)

    async def _content(self) -> Fault | None:
        """Spool what the engine gives until its end."""
        wire, engine, timeout = self._wire, self._engine, self._limits.data_timeout
        while True:
            event = await wire.event(timeout)
            if type(event) is End:
                return event.fault
            if not event or self._trouble is not None:
                continue
            try:
                if self._writer is None:
                    self._writer = self._spool.begin()
                await self._writer.write(event)
            except MailError as error:
                self._trouble = error
                engine.skip_content()
            except WireError:
                raise
            except Exception:
                self._trouble = self._incident("Spooling failed")
                engine.skip_content()

    def _failure(self, fault: Fault | None) -> MailError | None:
        return say.FAULTS[fault] if fault is not None else self._trouble

    async def _complete(self, envelope: Envelope, fault: Fault | None) -> None:
        """The content is whole: hand it over and say what became of it."""
        self._messages += 1
        self._wire.phase(self._limits.idle_time)
        error = self._failure(fault)
        outcomes: Sequence[Outcome] | None = None
        if error is None:
            try:
                outcomes = await self._hand_over(envelope)
            except MailError as refused:
                error = refused
            except WireError:
                raise
            except Exception:
                error = self._incident("Delivery failed")
        self._reset()
        if outcomes is None:
            outcomes = [Outcome(recipient, error) for recipient in envelope.recipients]
        self._tell(outcomes)

    async def _hand_over(self, envelope: Envelope) -> Sequence[Outcome]:
        writer = self._writer
        if writer is None:
            writer = self._writer = self._spool.begin()
        message = await writer.finish()
        self._writer = None
        try:
            outcomes: Sequence[Outcome] = await self._receiver.message(envelope, message)
        finally:
            message.close()
        if len(outcomes) != len(envelope.recipients):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(envelope.recipients)} recipients")
        return outcomes

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if len(errors) < len(outcomes):
            self._errors = self._idle_commands = 0
        if self._lmtp:
            # RFC 2033 §4.2: one reply for each RCPT that was accepted, in their order.  All of them go
            # out before anything else is said: who misses one sends to that recipient again.
            self._wire.write(
                b"".join(say.ACCEPTED if o.error is None else say.error_reply(o.error) for o in outcomes)
            )
            if len(errors) == len(outcomes) and isinstance(errors[0], PermanentError):
                self._count_error()
            return
        error = say.folded(outcomes)
        if error is not None:
            self._refuse(say.error_reply(error))
            return
        for outcome in outcomes:
            if outcome.error is not None:
                self._log.warn(
                    "Accepted from {host}, but not delivered to {recipient}: {error}",
                    host=self._wire.peer.host,
                    recipient=str(outcome.recipient),
                    error=outcome.error,
                )
        self._wire.write(say.ACCEPTED)

    # The small commands

    async def _rset(self, argument: str) -> None:
        if argument:
            self._refuse(say.NO_ARGUMENT)
            return
        self._reset()
        self._wire.write(say.FLUSHED)

    async def _noop(self, argument: str) -> None:
        # RFC 5321 §4.1.1.9: a parameter is to be ignored.
        self._wire.write(say.OK)

    async def _vrfy(self, argument: str) -> None:
        if not argument:
            self._refuse(reply(501, "5.5.4", "Syntax: VRFY address"))
            return
        if not IVerifiesAddresses.providedBy(self._receiver):
            # RFC 5321 §7.3: who exists is no stranger's business.
            self._wire.write(say.CANNOT_VERIFY)
            return
        if "@" not in argument:
            # RFC 5321 §3.5.1: a user name alone.  In which domain it is meant, nobody said.
            self._wire.write(say.CANNOT_VERIFY)
            return
        address = parse_mailbox(argument.strip("<>"))
        known = await self._receiver.verify(address)
        self._wire.write(reply(250, "2.1.5", format_path(address)) if known else say.CANNOT_VERIFY)

    async def _help(self, argument: str) -> None:
        own = sorted(set(_COMMANDS) - _NOT_IN_SERVICE[self._service])
        self._wire.write(reply(214, "2.0.0", "Commands: " + " ".join(own)))

    async def _quit(self, argument: str) -> None:
        if argument:
            self._refuse(say.NO_ARGUMENT)
            return
        raise Farewell(say.BYE)

    async def _starttls(self, argument: str) -> None:
        wire = self._wire
        if argument:
            self._refuse(say.NO_ARGUMENT)
        elif wire.peer.tls is not None:
            self._refuse(say.TLS_ACTIVE)
        elif not wire.can_start_tls:
            self._refuse(say.NOT_IMPLEMENTED)
        else:
            # RFC 3207 §4.2: nothing learnt in clear is kept.
            self._reset()
            self._leave()
            self._hello = ""
            wire.write(say.START_TLS)
            wire.start_tls()

    # AUTH (RFC 4954 §4)

    async def _auth(self, argument: str) -> None:
        if self._authenticated:
            self._refuse(say.LOGGED_IN_ALREADY)
        elif not self._hello:
            self._refuse(say.HELLO_FIRST)
        elif self._envelope is not None:
            self._refuse(say.NESTED)
        else:
            await self._log_in(argument.split())

    async def _log_in(self, words: list[str]) -> None:
        if not 1 <= len(words) <= 2:
            raise Malformed("Syntax: AUTH mechanism [initial-response]")
        asking = _Asking(self._wire, self._engine, self._limits.login_timeout)
        peer = self._peer()
        try:
            initial = _decoded_initial(words[1]) if len(words) == 2 else None
            entered = await login.with_sasl(
                self._portal, words[0], initial, asking.ask, peer, IMailReceiver, self._plaintext_login
            )
        except MailError as error:
            if asking.over is not None:
                raise asking.over from None
            too_long = asking.too_long and isinstance(error, MalformedLogin)
            text = say.LOGIN_LINE_TOO_LONG if too_long else say.error_reply(error)
            self._failed_logins += isinstance(error, LoginFailed | LoginCancelled | MalformedLogin)
            if self._failed_logins >= self._limits.logins:
                self._wire.write(text)
                raise Farewell(say.TOO_MANY_LOGINS) from None
            self._refuse(text)
            return
        self._leave()
        self._receiver, self._logout = entered.avatar, entered.logout
        self._authenticated = True
        self._failed_logins = 0
        self._wire.phase(self._limits.idle_time)
        self._wire.write(say.LOGGED_IN)


class _Asking:
    """
    Carries challenges and responses of one exchange.

    Attributes:
        too_long: a response was over the limit.
        over: what ended the connection meanwhile; it outlives whatever a checker makes of it.
    """

    def __init__(self, wire: Wire, engine: SMTPEngine, timeout: float) -> None:
        self._wire = wire
        self._engine = engine
        self._timeout = timeout
        self.too_long = False
        self.over: WireError | None = None

    async def ask(self, challenge: bytes) -> bytes | None:
        self._wire.write(b"334 " + b64encode(challenge) + b"\r\n")
        self._engine.expect_response()
        try:
            event = await self._wire.event(self._timeout)
        except WireError as error:
            self.over = error
            raise
        if not isinstance(event, Response):
            self.too_long = event is Bad.TOO_LONG
            raise MalformedLogin
        if event.line == b"*":
            return None
        return _decoded(event.line)


def _decoded(line: bytes) -> bytes:
    try:
        return b64decode(line, validate=True)
    except NotBase64:
        raise MalformedLogin("Malformed base64") from None


def _decoded_initial(word: str) -> bytes:
    # "=" is an initial response of no octets (RFC 4954 §4).
    return b"" if word == "=" else _decoded(word.encode("ascii"))


def _chunk(argument: str) -> tuple[int, bool]:
    try:
        return parse_bdat(argument)
    except Malformed:
        raise Farewell(say.LOST_COUNT) from None


Act = Callable[[SMTPSession, str], Awaitable[None]]

_COMMANDS: Mapping[str, Act] = {
    "EHLO": SMTPSession._ehlo,
    "HELO": SMTPSession._helo,
    "LHLO": SMTPSession._ehlo,
    "MAIL": SMTPSession._mail,
    "RCPT": SMTPSession._rcpt,
    "DATA": SMTPSession._data,
    "BDAT": SMTPSession._bdat,
    "RSET": SMTPSession._rset,
    "NOOP": SMTPSession._noop,
    "VRFY": SMTPSession._vrfy,
    "HELP": SMTPSession._help,
    "QUIT": SMTPSession._quit,
    "STARTTLS": SMTPSession._starttls,
    "AUTH": SMTPSession._auth,
}

_NOT_IN_SERVICE: Mapping[str, frozenset[str]] = {
    "smtp": frozenset(("LHLO", "AUTH")),
    "submission": frozenset(("LHLO",)),
    "lmtp": frozenset(("EHLO", "HELO", "AUTH")),  # RFC 2033 §4.1
}

# Known words that are not offered here, as against words nobody knows (RFC 5321 §4.2.4).
_NOT_OFFERED = frozenset(("AUTH", "EXPN"))
