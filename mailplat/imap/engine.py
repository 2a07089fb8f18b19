"""
The IMAP engine: bytes in, commands out, in the state the session says it is in.

Events of `next_event`:

    a command (mailplat.imap.commands)   well-formed and allowed in this state
    Bad, No                              a command that is answered with just that
    Continue                             the client waits for "+" before a literal: write it
    Append                               then `accept_message` or `refuse_message`, and
      MessageChunk ... MessageEnd        the message's octets, and the end of the command;
                                         a Bad in place of the end undoes the APPEND
    Idle                                 then Done, or a Bad which ends the idling
    Authenticate                         then `expect_response` before each Response
    Fatal                                say BYE and close

The session sets `state` as commands succeed, and takes one event after the other; commands
that arrived together come out one by one without waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mailplat.imap.commands import Append, Authenticate, Command, Idle
from mailplat.imap.framing import Announced, Chunk, Complete, Endless, Framer, Wrong
from mailplat.imap.grammar import Cursor, Malformed, NoName, leading_tag
from mailplat.imap.limits import Limits as Limits
from mailplat.imap.parsing import (
    CHARSETS,
    UnknownCharset,
    append_head,
    command_name,
    decode_base64,
    read_arguments,
)
from mailplat.wire import Need


class State(Enum):
    """RFC 3501 §3."""

    NOT_AUTHENTICATED = "before login"
    AUTHENTICATED = "without a mailbox"
    SELECTED = "with a mailbox"
    LOGOUT = "after LOGOUT"


_BEFORE_LOGIN = frozenset({State.NOT_AUTHENTICATED})
_AFTER_LOGIN = frozenset({State.AUTHENTICATED, State.SELECTED})
_SELECTED = frozenset({State.SELECTED})
_ANY = _BEFORE_LOGIN | _AFTER_LOGIN

#: Which command in which state (RFC 3501 §6).
ALLOWED: dict[str, frozenset[State]] = {
    **dict.fromkeys(("CAPABILITY", "NOOP", "LOGOUT", "ID"), _ANY),
    **dict.fromkeys(("STARTTLS", "AUTHENTICATE", "LOGIN"), _BEFORE_LOGIN),
    **dict.fromkeys(("ENABLE", "SELECT", "EXAMINE", "CREATE", "DELETE", "RENAME"), _AFTER_LOGIN),
    **dict.fromkeys(("SUBSCRIBE", "UNSUBSCRIBE", "LIST", "LSUB", "NAMESPACE"), _AFTER_LOGIN),
    **dict.fromkeys(("STATUS", "APPEND", "IDLE"), _AFTER_LOGIN),
    **dict.fromkeys(("CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "SEARCH", "FETCH"), _SELECTED),
    **dict.fromkeys(("STORE", "COPY", "MOVE"), _SELECTED),
    **dict.fromkeys(("UID EXPUNGE", "UID SEARCH", "UID FETCH"), _SELECTED),
    **dict.fromkeys(("UID STORE", "UID COPY", "UID MOVE"), _SELECTED),
}


@dataclass(frozen=True, slots=True)
class Bad:
    """
    Answer `tag BAD text`.

    Attributes:
        tag: b"*" where the command's tag could not be read.
    """

    tag: bytes
    text: str


@dataclass(frozen=True, slots=True)
class No:
    """
    Answer `tag NO [code] text`.

    Attributes:
        code: without brackets.
    """

    tag: bytes
    code: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Continue:
    """Write "+ ..." : the client waits for it before it sends a literal of a command."""


@dataclass(frozen=True, slots=True)
class MessageChunk:
    """Octets of APPEND's message, never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class MessageEnd:
    """The message and the command are complete."""

    tag: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """
    The client's answer in AUTHENTICATE.

    Attributes:
        data: decoded; None if the client cancelled (RFC 3501 §6.2.2).
    """

    data: bytes | None


@dataclass(frozen=True, slots=True)
class Done:
    """The client ended IDLE.  The tag is that of the Idle command."""

    tag: bytes


@dataclass(frozen=True, slots=True)
class Fatal:
    """Write `* BYE text` and close: there is no point in reading on."""

    text: str


Event = Command | Bad | No | Continue | MessageChunk | MessageEnd | Response | Done | Fatal


class _Mode(Enum):
    """What the next line of the client is."""

    COMMAND = "a command"
    DECIDE = "nothing before the session decides about a message"
    MESSAGE = "what follows the message"
    RESPONSE = "a SASL response"
    IDLE = "DONE"


class IMAPEngine:
    """
    Implements `mailplat.wire.Engine`.

    Attributes:
        state: set by the session.
    """

    __slots__ = ("_bad", "_framer", "_mode", "_tag", "_waits", "limits", "state")

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits = limits or Limits()
        self.state = State.NOT_AUTHENTICATED
        self._framer = Framer(max(limits.skipped, limits.append_size))
        self._mode = _Mode.COMMAND
        self._tag = b"*"  # of the command that the mode belongs to
        self._waits = False  # the client waits for "+" before its message
        self._bad = 0

    @property
    def buffered(self) -> int:
        return self._framer.buffered

    @property
    def most_buffered(self) -> int:
        limits = self.limits
        # More than the largest command, or one that is allowed could never be read whole.
        if self.state is State.NOT_AUTHENTICATED:
            least = limits.line_before_login + limits.literals_before_login
            return max(limits.pipelined_before_login, 2 * least, 2 * limits.sasl_line)
        return max(limits.pipelined, 2 * (limits.line + limits.literals))

    def receive(self, data: bytes) -> None:
        self._framer.receive(data)

    def discard(self) -> None:
        self._framer.discard()
        self._mode = _Mode.COMMAND
        self._tag = b"*"

    # What the session decides

    def accept_message(self) -> None:
        """
        After `Append`: have the message come.

        The session writes "+ ..." itself if `Append.synchronizing`.
        """
        self._decide()
        self._framer.stream()
        self._mode = _Mode.MESSAGE

    def refuse_message(self) -> None:
        """
        After `Append`: do without the message; the session answers NO at once.

        What a client sends of it nevertheless (RFC 7888), is skipped.
        """
        self._decide()
        self._framer.refuse()
        self._mode = _Mode.COMMAND

    def _decide(self) -> None:
        if self._mode is not _Mode.DECIDE:
            raise RuntimeError("No message waits for a decision")

    def expect_response(self) -> None:
        """During AUTHENTICATE: the next line is the client's answer to a challenge."""
        self._mode = _Mode.RESPONSE

    # Events

    def next_event(self) -> Event | Need:
        """
        The next event, or `Need.DATA`.

        Raises:
            RuntimeError: a message waits for the session's decision.
        """
        mode = self._mode
        if mode is _Mode.DECIDE:
            raise RuntimeError("A message waits for a decision")
        if self._bad >= self.limits.bad_commands:
            return Fatal("Too many bad commands")
        event = self._command() if mode is _Mode.COMMAND else self._answer(mode)
        if isinstance(event, Command):
            self._bad = 0
        elif isinstance(event, Bad):
            self._bad += 1
        return event

    def _command(self) -> Event | Need:
        limits = self.limits
        early = self.state is State.NOT_AUTHENTICATED
        most_text = limits.line_before_login if early else limits.line
        while True:
            piece = self._framer.next_piece(most_text)
            match piece:
                case None:
                    return Need.DATA
                case Complete(text, literals):
                    return self._read(text, literals)
                case Announced():
                    event = self._announced(piece)
                    if event is not None:
                        return event
                case Wrong(text, why):
                    return Bad(leading_tag(text), why)
                case _:
                    return Fatal("Literal too large")

    def _read(self, text: bytes, literals: tuple[bytes, ...]) -> Event:
        tag = b"*"
        try:
            cursor = Cursor(text, literals)
            tag, name = self._head(cursor)
            command = read_arguments(name, cursor, tag, self.limits)
        except UnknownCharset as error:
            return No(tag, b"BADCHARSET (%b)" % " ".join(CHARSETS).encode("ascii"), str(error))
        except Malformed as error:
            return _refusal(leading_tag(text), error)
        if isinstance(command, Idle):
            self._mode, self._tag = _Mode.IDLE, tag
        elif isinstance(command, Authenticate):
            self._tag = tag
        return command

    def _head(self, cursor: Cursor) -> tuple[bytes, str]:
        """Tag and name of a command that is allowed now."""
        tag = cursor.tag()
        cursor.space()
        name = command_name(cursor)
        allowed = ALLOWED[name]
        if self.state not in allowed:
            if self.state is State.NOT_AUTHENTICATED:
                raise Malformed("Log in first")
            raise Malformed("Select a mailbox first" if allowed == _SELECTED else "Already logged in")
        return tag, name

    def _announced(self, piece: Announced) -> Event | None:
        """A literal of the command's text, or APPEND's message; None if it comes unasked."""
        framer, limits = self._framer, self.limits
        try:
            cursor = Cursor(piece.text, piece.literals)
            tag, name = self._head(cursor)
            if name == "APPEND":
                append = append_head(cursor, tag, piece.size, piece.synchronizing)
                if append is not None:
                    return self._message(append)
            early = self.state is State.NOT_AUTHENTICATED
            room = limits.literals_before_login if early else limits.literals
            if piece.size + sum(map(len, piece.literals)) > room:
                raise Malformed("Literal too large")
            if len(piece.literals) >= limits.literal_count:
                raise Malformed("Too many literals")
        except Malformed as error:
            # RFC 3501 §7.5: instead of "+" comes the tagged response.
            framer.refuse()
            return _refusal(leading_tag(piece.text), error)
        framer.take()
        return Continue() if piece.synchronizing else None

    def _message(self, append: Append) -> Event:
        if append.size > self.limits.append_size:
            self._framer.refuse()
            # RFC 4469 §4.2, RFC 7889 §4
            return No(append.tag, b"TOOBIG", "Message too large")
        self._mode, self._tag = _Mode.DECIDE, append.tag
        return append

    def _answer(self, mode: _Mode) -> Event | Need:
        """What belongs to a command that was given out already."""
        framer = self._framer
        piece = framer.next_piece(self.limits.sasl_line)
        if piece is None:
            return Need.DATA
        if isinstance(piece, Chunk):
            return MessageChunk(piece.data)
        self._mode = _Mode.COMMAND
        match piece:
            case Complete(b"", ()) if mode is _Mode.MESSAGE:
                return MessageEnd(self._tag)
            case Complete(text, ()) if mode is _Mode.IDLE and text.upper() == b"DONE":
                return Done(self._tag)
            case Complete(b"*", ()) if mode is _Mode.RESPONSE:
                return Response(None)
            case Complete(text, ()) if mode is _Mode.RESPONSE:
                try:
                    return Response(decode_base64(text))
                except Malformed as error:
                    return Bad(self._tag, str(error))
            case Announced():
                framer.refuse()
            case Wrong(_, why):
                return Bad(self._tag, why)
            case Endless():
                return Fatal("Literal too large")
        return Bad(self._tag, _EXPECTED[mode])


def _refusal(tag: bytes, error: Malformed) -> Bad | No:
    return No(tag, b"CANNOT", str(error)) if isinstance(error, NoName) else Bad(tag, str(error))


_EXPECTED = {
    _Mode.MESSAGE: "End of command expected after the message",
    _Mode.RESPONSE: "Base64 expected",
    _Mode.IDLE: "DONE expected",
}
