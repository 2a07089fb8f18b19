"""
The server's side of a POP3 connection (RFC 1939, RFC 2449, RFC 5034, RFC 6856).

A session is one coroutine that takes lines from its engine and answers each, in order, so
pipelining needs nothing more.  Before the login it holds no maildrop; afterwards it has
an `IMaildrop` of its own and a set of marks on it, which become deletions at QUIT and
nowhere else.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from twisted.cred.portal import Portal
from twisted.logger import Logger

from mailplat import errors
from mailplat.auth import login
from mailplat.errors import LoginCancelled, LoginFailed, MailError, MalformedLogin, TemporaryError
from mailplat.interfaces import IMaildrop, IMessageContent
from mailplat.pop3.ahead import Ahead, Room
from mailplat.pop3.content import Stuffer, Top, stuffed
from mailplat.pop3.engine import Bad, Command, Limits, POP3Engine, Response
from mailplat.wire import Engine, Stopping, TimedOut, Wire, WireError

#: Octets of a message that are in memory at a time.
PIECE = 128 * 1024

#: Lines of a listing that are written at a time.
LISTED = 4096

#: Octets of a response's first line without CR LF (RFC 2449 §4).
MOST_RESPONSE = 510

#: The first line of the answer to RETR.
FOUND = b"+OK %d octets\r\n"

#: The response code for an error, by class (RFC 2449 §8, RFC 3206 §4); none where there is no entry.
CODES: Mapping[type[MailError], str] = {
    errors.TemporaryError: "SYS/TEMP",
    errors.InUse: "IN-USE",
    errors.LoginFailed: "AUTH",
    errors.AccountUnusable: "SYS/PERM",
}


class Refused(Exception):
    """The command is refused with `text`; only its words are ours."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Farewell(Exception):
    """Say `reply` and close."""

    def __init__(self, reply: str = "") -> None:
        super().__init__(reply)
        self.reply = reply


class POP3Session:
    """
    One connection.

    Args:
        wire: the connection.
        portal: gives `IMaildrop`s.
        hostname: our name, for the greeting.
        plaintext_login: who may send passwords without TLS: "never", "loopback", "always".
        utf8_to_all: send a message with UTF-8 in its header also to a client that did not
            ask for it, as most do not, and take it well.  RFC 6856 §2.1 wants it refused, and so
            does False; a client that stops at the first refusal would then never get its other mail.
        limits: see `mailplat.pop3.engine.Limits`.
        room: shared by the connections of a listener, see `mailplat.pop3.ahead`.
        log: a `twisted.logger.Logger`.
    """

    def __init__(
        self,
        wire: Wire,
        portal: Portal,
        *,
        hostname: str,
        plaintext_login: str,
        utf8_to_all: bool,
        limits: Limits,
        room: Room,
        log: Logger,
    ) -> None:
        self._engine = POP3Engine(limits)
        self.engine: Engine = self._engine
        self._wire = wire
        self._portal = portal
        self._hostname = hostname
        self._plaintext_login = plaintext_login
        self._utf8_to_all = utf8_to_all
        self._limits = limits
        self._log = log

        self._username: bytes | None = None
        self._utf8 = False
        self._maildrop: Any = None  # an IMaildrop; None in the AUTHORIZATION state
        self._logout: Callable[[], None] | None = None
        self._messages: Sequence[tuple[str, int]] = ()
        self._marked: set[int] = set()
        self._octets = 0  # of the messages that are not marked
        self._sent = -1  # the index of the message that was sent last
        self._ahead = Ahead(room, limits.ahead)

        self._errors = 0
        self._failed_logins = 0
        self._incidents = 0

    async def run(self) -> None:
        """From the greeting to the end; `PeerGone` passes."""
        wire, timeout = self._wire, self._limits.timeout
        # No "<...>": that would be an offer of APOP (RFC 1939 §7); and no "[...]": a response code.
        self._say(f"+OK {self._hostname.strip('[]')} POP3 server ready")
        try:
            wire.phase(self._limits.before_login)
            while True:
                event = await wire.event(timeout)
                if type(event) is Command:
                    await self._command(event.verb, event.argument)
                else:
                    self._refuse(f"-ERR {event.value}")
        except TimedOut:
            # RFC 1939 §3: closed without a word, and nothing is deleted.
            pass
        except Stopping:
            self._say("-ERR [SYS/TEMP] The server is going down")
        except Farewell as farewell:
            # Free before the client hears of it: it may be back at once.
            self._leave()
            if farewell.reply:
                self._say(farewell.reply)
        finally:
            self._leave()

    async def _command(self, verb: str, argument: bytes) -> None:
        act = _ANY.get(verb)
        if act is None:
            act = (_AUTHORIZATION if self._maildrop is None else _TRANSACTION).get(verb)
        if act is None:
            known = verb in _AUTHORIZATION or verb in _TRANSACTION
            self._refuse("-ERR Not now" if known else "-ERR Unknown command")
            return
        try:
            await act(self, argument)
        except Refused as refused:
            self._refuse(f"-ERR {refused.text}")
        except MailError as error:
            self._refuse(_told(error))
        except (WireError, Farewell):
            raise
        except Exception:
            self._refuse(_told(self._incident(f"{verb} failed")))

    # Replies

    def _say(self, text: str) -> None:
        # A store's words are not ours: they must not break out of the line.
        text = " ".join(text.splitlines())
        # RFC 6856 §2.1: UTF-8 in responses only where the client asked for it.
        line = text.encode("utf-8" if self._utf8 else "ascii", "replace")[:MOST_RESPONSE]
        self._wire.write(line + b"\r\n")

    def _refuse(self, text: str) -> None:
        self._errors += 1
        if self._errors > self._limits.errors:
            raise Farewell("-ERR Too many errors")
        self._say(text)

    def _incident(self, what: str) -> MailError:
        """Log the exception being handled; the peer gets a number to quote and nothing else."""
        self._incidents += 1
        number = f"{self._wire.peer.connection}-{self._incidents}"
        self._log.failure(
            "{what}; incident {incident}, pop3 from {host}",
            what=what,
            incident=number,
            host=self._wire.peer.host,
        )
        return TemporaryError(f"Internal error, incident {number}")

    # In any state

    async def _capa(self, argument: bytes) -> None:
        _no_argument(argument)
        wire = self._wire
        capabilities = [
            "TOP",  # RFC 2449 §6
            "UIDL",
            "RESP-CODES",
            "AUTH-RESP-CODE",  # RFC 3206
            "PIPELINING",
            "EXPIRE NEVER",
            "UTF8 USER",  # RFC 6856
            "LANG",
            "IMPLEMENTATION mailplat",
        ]
        # RFC 2449 §5: what is offered before the login is listed after it too.
        mechanisms = login.mechanisms(self._portal, wire.peer, self._plaintext_login)
        if mechanisms:
            capabilities.append(f"SASL {' '.join(mechanisms)}")  # RFC 5034
        if self._password_allowed():
            capabilities.append("USER")
        # RFC 2595 §4: listed where it is permitted.
        if self._maildrop is None and wire.can_start_tls:
            capabilities.append("STLS")
        wire.write("\r\n".join(("+OK Capabilities follow", *capabilities, ".", "")).encode("ascii"))

    async def _lang(self, argument: bytes) -> None:
        # RFC 6856 §3.2.  Of a range that ends in something else, as much as there is (RFC 4647 §3.4 Lookup).
        wanted = argument.decode("ascii").strip().lower()
        if not wanted:
            self._wire.write(b"+OK Languages follow\r\nen English\r\n.\r\n")
        elif wanted == "*" or re.fullmatch(r"en(-[a-z0-9]{1,8})*|i-default", wanted):
            self._say("+OK en English it is")
        else:
            raise Refused("No such language here")

    async def _quit(self, argument: bytes) -> None:
        _no_argument(argument)
        if self._maildrop is None:
            raise Farewell("+OK Goodbye")
        await self._update()

    # Before the login

    def _password_allowed(self) -> bool:
        return login.password_allowed(self._wire.peer, self._plaintext_login)

    async def _user(self, argument: bytes) -> None:
        if not self._password_allowed():
            raise errors.PrivacyRequired
        if not argument:
            raise Refused("USER needs a name")
        # Nobody learns here who exists.
        self._username = argument
        self._say("+OK Password, please")

    async def _pass(self, argument: bytes) -> None:
        if not self._password_allowed():
            raise errors.PrivacyRequired
        username, self._username = self._username, None
        if username is None:
            raise Refused("USER first")
        await self._log_in(
            login.with_password(self._portal, username, argument, self._wire.peer, IMaildrop)
        )

    async def _auth(self, argument: bytes) -> None:
        # RFC 5034 §4
        words = argument.decode("ascii").split()
        if not 1 <= len(words) <= 2:
            raise Refused("AUTH needs a mechanism, and may have an initial response")
        self._username = None
        exchange = _Exchange(self._wire, self._engine, self._limits.login_timeout)
        initial = exchange.initial(words[1]) if len(words) == 2 else None
        attempt = login.with_sasl(
            self._portal, words[0], initial, exchange.ask, self._wire.peer, IMaildrop, self._plaintext_login
        )
        try:
            await self._log_in(attempt)
        except MailError:
            # What ended the connection meanwhile outlives whatever a checker made of it.
            if exchange.over is not None:
                raise exchange.over from None
            raise

    async def _log_in(self, attempt: Awaitable[login.Login]) -> None:
        try:
            entered = await attempt
        except (LoginFailed, LoginCancelled, MalformedLogin) as error:
            self._failed_logins += 1
            if self._failed_logins >= self._limits.logins:
                raise Farewell(_told(error)) from None
            raise
        self._maildrop, self._logout = entered.avatar, entered.logout
        self._wire.phase(None)
        self._messages = self._maildrop.messages()
        self._octets = sum(size for _, size in self._messages)
        self._say(f"+OK {len(self._messages)} messages ({self._octets} octets)")

    async def _stls(self, argument: bytes) -> None:
        _no_argument(argument)
        wire = self._wire
        if wire.peer.tls is not None:
            raise Refused("TLS is active already")
        if not wire.can_start_tls:
            raise Refused("TLS is not available")
        # RFC 2595 §4: nothing learnt in clear is kept.
        self._username = None
        self._utf8 = False
        self._say("+OK Begin TLS")
        wire.start_tls()

    async def _utf8_mode(self, argument: bytes) -> None:
        # RFC 6856 §2.1
        _no_argument(argument)
        self._utf8 = True
        self._say("+OK UTF-8 it is")

    def _leave(self) -> None:
        self._ahead.forget()
        logout, self._logout = self._logout, None
        self._maildrop = None
        self._messages = ()
        if logout is not None:
            try:
                logout()
            except Exception:
                self._incident("Logout failed")

    # After it

    def _index(self, argument: bytes) -> int:
        """The index of the message that the client numbers `argument`."""
        # isdigit of bytes knows ASCII only; so many digits number no message.
        number = int(argument) if argument.isdigit() and len(argument) <= 10 else 0
        if not 1 <= number <= len(self._messages):
            raise Refused("No such message")
        if number - 1 in self._marked:
            raise Refused("The message is marked for deletion")
        return number - 1

    async def _stat(self, argument: bytes) -> None:
        _no_argument(argument)
        self._say(f"+OK {len(self._messages) - len(self._marked)} {self._octets}")

    async def _list(self, argument: bytes) -> None:
        if argument:
            index = self._index(argument)
            self._say(f"+OK {index + 1} {self._messages[index][1]}")
            return
        self._say(f"+OK {len(self._messages) - len(self._marked)} messages ({self._octets} octets)")
        await self._listing(
            f"{number} {size}\r\n"
            for number, (_, size) in enumerate(self._messages, 1)
            if number - 1 not in self._marked
        )

    async def _uidl(self, argument: bytes) -> None:
        if argument:
            index = self._index(argument)
            self._say(f"+OK {index + 1} {self._messages[index][0]}")
            return
        self._say("+OK Unique identifiers follow")
        await self._listing(
            f"{number} {identifier}\r\n"
            for number, (identifier, _) in enumerate(self._messages, 1)
            if number - 1 not in self._marked
        )

    async def _listing(self, lines: Iterator[str]) -> None:
        wire = self._wire
        while chunk := [line for _, line in zip(range(LISTED), lines, strict=False)]:
            wire.write("".join(chunk).encode("ascii"))
            await wire.drained()
            await wire.pause()
        wire.write(b".\r\n")

    async def _retr(self, argument: bytes) -> None:
        index = self._index(argument)
        answer = self._ahead.take(index)
        if answer:
            self._wire.write(answer)
        else:
            await self._send(index, None, FOUND % self._messages[index][1])
        walking, self._sent = index == self._sent + 1, index
        if walking and index + 1 < len(self._messages) and not self._engine.buffered:
            await self._look_ahead(index + 1)

    async def _look_ahead(self, index: int) -> None:
        """Make the answer for the next message while the client takes this one."""
        if self._ahead.fits(self._messages[index][1]):
            self._wire.flush()
            try:
                answer = await self._whole(index)
            except Exception:
                # It is tried again when it is asked for, and told then.
                return
            self._ahead.keep(index, answer)

    async def _top(self, argument: bytes) -> None:
        number, _, lines = argument.partition(b" ")
        if not lines.isdigit():
            raise Refused("TOP needs a message and a number of lines")
        index = self._index(number)
        # No message has so many lines that more digits could matter.
        await self._send(index, Top(int(lines[:18])), b"+OK Top of message follows\r\n")

    async def _whole(self, index: int) -> bytes:
        """The answer to RETR of a message; b"" if it is larger than a piece."""
        content: IMessageContent = await self._maildrop.content(index)
        try:
            piece = await self._begin(content)
            whole = len(piece) == content.size
            return FOUND % self._messages[index][1] + stuffed(piece) if whole else b""
        finally:
            content.close()

    async def _send(self, index: int, top: Top | None, first: bytes) -> None:
        content: IMessageContent = await self._maildrop.content(index)
        try:
            # The first piece is read before anything is promised.
            piece = await self._begin(content)
            if top is None and len(piece) == content.size:
                self._wire.write(first + stuffed(piece))
                return
            self._wire.write(first)
            try:
                await self._stream(content, piece, top)
            except WireError:
                raise
            except Exception:
                # The client must not take what it has for the whole message.
                self._incident("Sending a message failed")
                raise Farewell from None
        finally:
            content.close()

    async def _begin(self, content: IMessageContent) -> bytes:
        """The first piece of a message that may be sent."""
        piece = await content.read(0, PIECE)
        if not self._utf8 and not self._utf8_to_all and _has_utf8_header(piece):
            # RFC 6856 §5
            raise Refused("[UTF8] The message needs UTF-8 mode")
        return piece

    async def _stream(self, content: IMessageContent, piece: bytes, top: Top | None) -> None:
        wire, stuffer = self._wire, Stuffer()
        sent = 0
        while True:
            sent += len(piece)
            wire.write(stuffer.feed(top.feed(piece) if top is not None else piece))
            if sent >= content.size or (top is not None and top.complete):
                break
            await wire.drained()
            await wire.pause()
            piece = await content.read(sent, PIECE)
            if not piece:
                raise EOFError(f"a message of {content.size} octets ended after {sent}")
        wire.write(stuffer.end())

    async def _dele(self, argument: bytes) -> None:
        index = self._index(argument)
        self._marked.add(index)
        self._octets -= self._messages[index][1]
        self._say("+OK Marked for deletion")

    async def _noop(self, argument: bytes) -> None:
        self._say("+OK")

    async def _rset(self, argument: bytes) -> None:
        _no_argument(argument)
        self._marked.clear()
        self._octets = sum(size for _, size in self._messages)
        self._say(f"+OK {len(self._messages)} messages ({self._octets} octets)")

    async def _update(self) -> None:
        """RFC 1939 §6: the marked messages go, all or none, and the reply tells the truth."""
        if self._marked:
            try:
                await self._maildrop.delete(sorted(self._marked))
            except MailError as error:
                raise Farewell(_told(error)) from None
            except Exception:
                raise Farewell(_told(self._incident("Deleting messages failed"))) from None
        raise Farewell("+OK Goodbye")


class _Exchange:
    """
    Carries challenges and responses of one SASL exchange.

    Attributes:
        over: what ended the connection meanwhile.
    """

    def __init__(self, wire: Wire, engine: POP3Engine, timeout: float) -> None:
        self._wire = wire
        self._engine = engine
        self._timeout = timeout
        self.over: WireError | None = None

    def initial(self, word: str) -> bytes:
        # "=" is an initial response of no octets (RFC 5034 §4).
        return b"" if word == "=" else _decoded(word.encode("ascii"))

    async def ask(self, challenge: bytes) -> bytes | None:
        self._wire.write(b"+ " + b64encode(challenge) + b"\r\n")
        self._engine.expect_response()
        try:
            event = await self._wire.event(self._timeout)
        except WireError as error:
            self.over = error
            raise
        if not isinstance(event, Response):
            raise MalformedLogin(Bad.TOO_LONG.value)
        return None if event.line == b"*" else _decoded(event.line)


def _decoded(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except NotBase64:
        raise MalformedLogin from None


def _told(error: MailError) -> str:
    """What the peer is told of `error`."""
    code = next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), None)
    # RFC 2449 §6.4: only a response code begins with "[".
    return f"-ERR [{code}] {error.text}" if code else f"-ERR {error.text.lstrip('[')}"


def _no_argument(argument: bytes) -> None:
    if argument.strip():
        raise Refused("This command has no argument")


def _has_utf8_header(piece: bytes) -> bool:
    """
    Whether a message's header is UTF-8 beyond ASCII; other octets are no reason to hide it.

    Args:
        piece: the message's first one; a header that is longer is looked at as far as that.
    """
    if piece.isascii():
        return False
    header = Top(0).feed(piece)
    if header.isascii():
        return False
    try:
        header.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


Act = Callable[[POP3Session, bytes], Awaitable[None]]

_ANY: Mapping[str, Act] = {
    "CAPA": POP3Session._capa,
    "LANG": POP3Session._lang,
    "QUIT": POP3Session._quit,
}

_AUTHORIZATION: Mapping[str, Act] = {
    "USER": POP3Session._user,
    "PASS": POP3Session._pass,
    "AUTH": POP3Session._auth,
    "STLS": POP3Session._stls,
    "UTF8": POP3Session._utf8_mode,
}

_TRANSACTION: Mapping[str, Act] = {
    "STAT": POP3Session._stat,
    "LIST": POP3Session._list,
    "UIDL": POP3Session._uidl,
    "RETR": POP3Session._retr,
    "TOP": POP3Session._top,
    "DELE": POP3Session._dele,
    "NOOP": POP3Session._noop,
    "RSET": POP3Session._rset,
}
