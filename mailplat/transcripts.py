r"""
Transcripts of connections, for troubleshooting: who said what, without what must not be told.

They are made on demand only.  `mailplat transcript on` writes a *wish* into the data directory;
a server looks for it when a connection begins, and then keeps a file for each connection that
is meant, until the wish is over.

Secrets are left out where they are known for what they are: a transcript does not look at the
octets of a peer but at the *events* that the engine made of them, so a password split over
segments, sent ahead, in a literal or in base64 is what it is to the server itself.  What is
not known for harmless is not written: of a line that is no command only its length, since it
may be a password that was sent at the wrong time.  Contents of messages are left out too,
unless the wish says otherwise.

    C: what the client said; to other hosts we are the client
    S: what the server answered
    [12 octets]  something left out
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

from twisted.logger import Logger

from mailplat.imap import commands as imap
from mailplat.imap import engine as imap_engine
from mailplat.imap.grammar import SequenceSet
from mailplat.pop3 import engine as pop3
from mailplat.smtp import client_engine
from mailplat.smtp import engine as smtp
from mailplat.smtp.grammar import Command, Reply
from mailplat.values import FlagChange, Peer, TLSInfo

#: In the directory of the transcripts: which are wanted.
WISH = "wish.json"

#: Ends the names of transcripts.
SUFFIX = ".txt"

#: Services that can be asked for, and what `Peer.service` says then.
SERVICES = {
    "smtp": ("smtp",),
    "submission": ("submission",),
    "lmtp": ("lmtp",),
    "imap": ("imap",),
    "pop3": ("pop3",),
    "relay": ("smtp-client", "lmtp-client"),
}

#: Seconds between two looks at the wish.
LOOK = 1.0

#: Octets of a line that are kept until its end is there.
_LONGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TranscriptLimits:
    """
    Attributes:
        size: octets of one transcript; then it ends.
        files: transcripts kept; then the oldest goes.
    """

    size: int = 1024 * 1024
    files: int = 100


@dataclass(frozen=True, slots=True)
class Wish:
    """
    Which connections are wanted.

    Attributes:
        until: seconds since 1970.
        service: of `SERVICES`, empty for all.
        peer: the other end's address, or a network; empty for all.
        content: with the contents of messages.
    """

    until: float
    service: str = ""
    peer: str = ""
    content: bool = False

    def means(self, peer: Peer) -> bool:
        """Whether this connection is wanted."""
        if self.service and peer.service not in SERVICES.get(self.service, ()):
            return False
        if not self.peer:
            return True
        try:
            return ip_address(peer.host) in ip_network(self.peer, strict=False)
        except ValueError:
            # A UNIX socket.
            return False

    @classmethod
    def read(cls, directory: str) -> Wish | None:
        """What is wanted, None for nothing; a file that makes no sense wants nothing."""
        try:
            with open(os.path.join(directory, WISH), encoding="utf-8") as file:
                found = json.load(file)
            return cls(**{field.name: found[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, directory: str) -> None:
        """
        Have it seen.

        Raises:
            OSError.
        """
        os.makedirs(directory, 0o700, exist_ok=True)
        fresh = os.path.join(directory, f".{WISH}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
        os.rename(fresh, os.path.join(directory, WISH))

    @staticmethod
    def forget(directory: str) -> None:
        """
        Want nothing any more.

        Raises:
            OSError.
        """
        try:
            os.unlink(os.path.join(directory, WISH))
        except FileNotFoundError:
            return


def names(directory: str) -> list[str]:
    """The transcripts there are, oldest first."""
    try:
        found = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(name for name in found if name.endswith(SUFFIX))


class Transcripts:
    """
    Args:
        directory: where the wish and the transcripts are; need not be there.
        seconds: tells the time, since 1970.
    """

    log = Logger()

    def __init__(
        self, directory: str, seconds: Callable[[], float], limits: TranscriptLimits | None = None
    ) -> None:
        self.directory = directory
        self.limits = limits or TranscriptLimits()
        self._seconds = seconds
        self._wish: Wish | None = None
        self._looked = -LOOK

    def observe(self, peer: Peer) -> Transcript | None:
        """An observer for a connection that begins (`mailplat.connection.Observer`), if it is wanted."""
        wish = self.wish()
        if wish is None or peer.service not in _TELLERS or not wish.means(peer):
            return None
        now = self._seconds()
        try:
            return Transcript(self._open(peer, now), peer, wish, self.wish, self._seconds, self.limits.size)
        except OSError as error:
            self.log.warn("A transcript cannot be written: {error}", error=error)
            return None

    def wish(self) -> Wish | None:
        """What is wanted now, as of the last look."""
        now = self._seconds()
        if not 0 <= now - self._looked < LOOK:
            self._looked = now
            self._wish = Wish.read(self.directory)
        return self._wish if self._wish is not None and now < self._wish.until else None

    def _open(self, peer: Peer, now: float) -> int:
        for name in names(self.directory)[: 1 - self.limits.files or None]:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self.directory, name))
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + f"-{int(now * 1000) % 1000:03}"
        host = re.sub(r"[^0-9a-fA-F.:]", "", peer.host) or "local"
        name = f"{stamp}-{peer.service}-{host}-{peer.connection}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(os.path.join(self.directory, name), flags, 0o600)


class Transcript:
    """
    Writes one transcript; see `mailplat.connection.Observer`.

    It never raises: whatever goes wrong ends the transcript, and not the connection.

    Args:
        file: a descriptor, which it closes.
        wish: why it is written.
        current: tells what is wanted now; when that is something else, it ends.
        most: octets, then it ends.
    """

    log = Logger()

    def __init__(
        self,
        file: int,
        peer: Peer,
        wish: Wish,
        current: Callable[[], Wish | None],
        seconds: Callable[[], float],
        most: int,
    ) -> None:
        self._file = file
        self._seconds = seconds
        self._left = most
        self._wish = wish
        self._current = current
        self._begun = seconds()
        self._is_client = peer.service in SERVICES["relay"]
        self._teller = _TELLERS[peer.service](wish.content)
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self._begun))
        host = f"{peer.host}:{peer.port}" if peer.host else "a UNIX socket"
        self._note(
            f"{peer.service} {'to' if self._is_client else 'from'} {host}, connection {peer.connection}, "
            f"{at} UTC" + (f", {_tls(peer.tls)}" if peer.tls else "")
        )

    def received(self, event: Any) -> None:
        self._tell("S: " if self._is_client else "C: ", self._teller.received, event)

    def sent(self, data: bytes) -> None:
        self._tell("C: " if self._is_client else "S: ", self._teller.sent, data)

    def secured(self, tls: TLSInfo | None) -> None:
        self._note(_tls(tls) if tls is not None else "TLS begins")

    def ended(self, why: str) -> None:
        self._note(f"the connection ended: {why}")
        self._close()

    def _tell(self, who: str, read: Callable[[Any], Iterator[str]], what: Any) -> None:
        if self._file < 0:
            return
        try:
            for line in read(what):
                self._write(who + line)
        except Exception:
            # Rather no transcript than one that tells too much, or a connection that breaks.
            self.log.failure("A transcript is not understood and ends")
            self._note("the transcript is given up")
            self._close()

    def _note(self, text: str) -> None:
        self._write(f"-- {text}")

    def _write(self, line: str) -> None:
        if self._file < 0:
            return
        now = self._seconds()
        data = f"{now - self._begun:9.3f} {_printable(line)}\n".encode()
        over = "it is long enough" if len(data) > self._left else ""
        if self._current() != self._wish:
            over = "it is not wanted any more"
        if over:
            data = f"{now - self._begun:9.3f} -- the transcript ends here: {over}\n".encode()
        try:
            self._left -= os.write(self._file, data)
        except OSError as error:
            self.log.warn("A transcript cannot be written: {error}", error=error)
            over = "error"
        if over:
            self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _tls(tls: TLSInfo) -> str:
    return f"{tls.version} {tls.cipher}"


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _hidden(size: int) -> str:
    return f"[{size} octets]"


# Tellers: what of an event, and of what is sent, may be told


class Teller(Protocol):
    """One protocol's words, a line at a time."""

    def received(self, event: Any) -> Iterator[str]:
        """What the other end said."""

    def sent(self, data: bytes) -> Iterator[str]:
        """What we said; it may end anywhere."""


class _Content:
    """
    The content of a message as it goes by.

    Args:
        told: tell it, and not its length only.
    """

    def __init__(self, told: bool) -> None:
        self._told = told
        self._size = 0
        self._rest = b""

    def more(self, piece: bytes) -> Iterator[str]:
        self._size += len(piece)
        if self._told:
            *lines, self._rest = (self._rest + piece).split(b"\n")
            yield from (_text(line.removesuffix(b"\r")) for line in lines)

    def end(self) -> Iterator[str]:
        size, self._size = self._size, 0
        if self._rest:
            yield _text(self._rest)
            self._rest = b""
        if not self._told and size:
            yield _hidden(size)


class _Lines:
    """Cuts what is sent into lines."""

    def __init__(self) -> None:
        self.rest = b""

    def cut(self, data: bytes) -> list[bytes]:
        """
        Raises:
            OverflowError: a line is too long to be looked at.
        """
        *lines, self.rest = (self.rest + data).split(b"\r\n")
        if len(self.rest) > _LONGEST:
            raise OverflowError("an endless line")
        return lines


#: Verbs of SMTP, and whether what follows them is shown.  What follows others has no business to be there.
_SMTP_VERBS = {
    **dict.fromkeys(("HELO", "EHLO", "LHLO", "MAIL", "RCPT", "VRFY", "EXPN", "BDAT"), True),
    **dict.fromkeys(("DATA", "RSET", "NOOP", "QUIT", "HELP", "STARTTLS", "AUTH"), False),
}

_POP3_VERBS = {
    **dict.fromkeys(("USER", "STAT", "LIST", "UIDL", "RETR", "TOP", "DELE", "RSET"), True),
    **dict.fromkeys(("PASS", "AUTH", "QUIT", "NOOP", "CAPA", "STLS", "UTF8", "LANG"), False),
}

#: Mechanisms whose names may be told: a secret may stand where a name should.
_MECHANISMS = re.compile(r"PLAIN|LOGIN|SCRAM-SHA-(?:1|256)(?:-PLUS)?|CRAM-MD5|XOAUTH2|OAUTHBEARER|EXTERNAL")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _line(verb: str, argument: str, verbs: dict[str, bool]) -> str:
    shown = verbs.get(verb)
    size = _size(argument)
    if shown is None:
        return _hidden(_size(verb) + bool(size) + size)
    if not argument or shown:
        return f"{verb} {argument}".rstrip()
    if verb == "AUTH":
        mechanism, _, initial = argument.partition(" ")
        if _MECHANISMS.fullmatch(mechanism.upper()):
            return f"AUTH {mechanism}" + (f" {_hidden(len(initial))}" if initial else "")
    return f"{verb} {_hidden(size)}"


class _SMTPTeller:
    """A server's side of SMTP, submission and LMTP."""

    def __init__(self, content: bool) -> None:
        self._content = _Content(content)
        self._lines = _Lines()

    def received(self, event: Any) -> Iterator[str]:
        if isinstance(event, bytes):
            yield from self._content.more(event)
        elif isinstance(event, smtp.End):
            yield from self._content.end()
            if event.fault is not None:
                yield f"[refused: {event.fault.value}]"
        elif isinstance(event, Command):
            yield _line(event.verb, event.argument, _SMTP_VERBS)
        elif isinstance(event, smtp.Response):
            yield _hidden(len(event.line))
        else:
            yield f"[no command: {event.value}]"

    def sent(self, data: bytes) -> Iterator[str]:
        for line in self._lines.cut(data):
            yield f"334 {_hidden(len(line) - 4)}" if line.startswith(b"334") else _text(line)


class _POP3Teller:
    """A server's side of POP3."""

    def __init__(self, content: bool) -> None:
        self._content = _Content(content)
        self._lines = _Lines()
        self._asked = False  # the next line may announce a message
        self._within = False  # what is sent is a message, up to a dot
        self._tail = b""  # the last octets of it that went by

    def received(self, event: Any) -> Iterator[str]:
        self._asked = self._within = False
        if isinstance(event, pop3.Command):
            self._asked = event.verb in ("RETR", "TOP")
            argument = event.argument.decode("utf-8", "surrogateescape")
            yield _line(event.verb, argument, _POP3_VERBS)
        elif isinstance(event, pop3.Response):
            yield _hidden(len(event.line))
        else:
            yield f"[no command: {event.value}]"

    def sent(self, data: bytes) -> Iterator[str]:
        if not self._within:
            for number, line in enumerate(lines := self._lines.cut(data)):
                if line.startswith(b"+ "):
                    yield f"+ {_hidden(len(line) - 2)}"
                    continue
                yield _text(line)
                self._within = self._asked and line.startswith(b"+OK")
                self._asked = False
                if self._within:
                    data = b"\r\n".join([*lines[number + 1 :], self._lines.rest])
                    self._lines.rest, self._tail = b"", b"\r\n"
                    break
        if self._within:
            yield from self._content.more(data)
            self._tail = (self._tail + data[-5:])[-5:]
            if self._tail == b"\r\n.\r\n":
                self._within = False
                yield from self._content.end()


def _value(value: Any) -> str:
    if isinstance(value, frozenset):
        return f"({' '.join(sorted(value))})"
    if isinstance(value, FlagChange):
        signs = ("", "") if value.replace else ("+", "-")
        return f"{signs[0]}{_value(value.add)}" + (f" {signs[1]}{_value(value.remove)}" * bool(value.remove))
    return str(value) if isinstance(value, SequenceSet) else repr(value)


_LITERAL = re.compile(rb"\{([0-9]+)\+?\}\Z")
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
_FETCHED = re.compile(rb"\* [0-9]+ FETCH ")

#: Commands whose fields may all be told.
_IMAP_SHOWN = (
    imap.Enable,
    imap.Select,
    imap.Create,
    imap.Delete,
    imap.Rename,
    imap.Subscribe,
    imap.Unsubscribe,
    imap.List,
    imap.Status,
    imap.Append,
    imap.UIDExpunge,
    imap.Store,
    imap.Copy,
    imap.Move,
    imap.ID,
)


class _IMAPTeller:
    """A server's side of IMAP."""

    def __init__(self, content: bool) -> None:
        self._told = content
        self._content = _Content(content)
        self._rest = b""  # of a line that is not whole yet
        self._left = 0  # octets of a literal that are still to be sent
        self._begun = False  # a line is under way, after a literal
        self._fetched = False  # it tells of a message
        self._line = ""  # what of it was not yet told
        self._login = False  # what goes on is a SASL exchange
        self._tag = b""  # of a command that was none, so it may be anything

    def received(self, event: Any) -> Iterator[str]:
        if isinstance(event, imap_engine.MessageChunk):
            yield from self._content.more(event.data)
            return
        yield from self._content.end()
        self._login = isinstance(event, imap.Authenticate | imap_engine.Response)
        self._tag = b""
        if isinstance(event, imap.Command):
            yield f"{_text(event.tag)} {self._command(event)}".rstrip()
        elif isinstance(event, imap_engine.Response):
            yield "*" if event.data is None else _hidden(len(event.data))
        elif isinstance(event, imap_engine.Done):
            yield "DONE"
        elif isinstance(event, imap_engine.Bad | imap_engine.No):
            self._tag = event.tag if event.tag != b"*" else b""
            yield "[no command]"
        elif isinstance(event, imap_engine.Fatal):
            yield "[no command, and no end of it]"

    def _command(self, command: imap.Command) -> str:
        name = type(command).__name__.upper()
        if isinstance(command, imap.Login):
            return f"LOGIN {_text(command.user)} {_hidden(len(command.password))}"
        if isinstance(command, imap.Authenticate):
            mechanism = command.mechanism if _MECHANISMS.fullmatch(command.mechanism.upper()) else ""
            initial = "" if command.initial is None else _hidden(len(command.initial))
            return f"AUTHENTICATE {mechanism or _hidden(len(command.mechanism))} {initial}".rstrip()
        if isinstance(command, imap.Fetch):
            labels = b" ".join([item.label for item in command.plan.items])
            return f"{'UID ' * command.uid}FETCH {command.numbers} ({_text(labels)})"
        if isinstance(command, imap.Search):
            return f"{'UID ' * command.uid}SEARCH" + (f" {command.key}" if self._told else "")
        if not isinstance(command, _IMAP_SHOWN):
            return name
        words = {word.name: getattr(command, word.name) for word in fields(command)}
        del words["tag"]
        uid = "UID " * bool(words.pop("uid", False))
        return f"{uid}{name} " + " ".join(f"{word}={_value(value)}" for word, value in words.items())

    def sent(self, data: bytes) -> Iterator[str]:
        data, self._rest = self._rest + data, b""
        while data:
            if self._left:
                here, data = data[: self._left], data[self._left :]
                self._left -= len(here)
                if self._told:
                    yield from self._content.more(here)
                continue
            line, end, after = data.partition(b"\r\n")
            if not end:
                if len(data) > _LONGEST:
                    raise OverflowError("an endless line")
                self._rest = data
                return
            yield from self._said(line)
            data = after

    def _said(self, line: bytes) -> Iterator[str]:
        if self._begun:
            yield from self._content.end()
        else:
            self._fetched = bool(_FETCHED.match(line))
        literal = _LITERAL.search(line)
        text = line[: literal.start()] if literal and not self._told else line
        if self._fetched and not self._told:
            text = _QUOTED.sub(lambda match: _hidden(len(match[0]) - 2).encode(), text)
        if self._login and text.startswith(b"+ "):
            text = b"+ " + _hidden(len(text) - 2).encode()
        elif self._tag and text.startswith(self._tag + b" "):
            text = b"[tag]" + text[len(self._tag) :]
        self._line += _text(text)
        self._begun = literal is not None
        if literal is not None:
            self._left = int(literal[1])
            if not self._told:
                self._line += _hidden(self._left)
                return
        whole, self._line = self._line, ""
        yield whole


class _RelayTeller:
    """Our side as a client of SMTP and LMTP."""

    def __init__(self, content: bool) -> None:
        self._content = _Content(content)
        self._rest = b""
        self._login = False  # a login is under way: not even replies are told
        self._asked = False  # the last command was DATA
        self._within = False  # what is sent is a message, up to a dot
        self._tail = b""  # the last octets of it that went by
        self._left = 0  # octets of a chunk that are still to be sent

    def received(self, event: Any) -> Iterator[str]:
        if isinstance(event, Reply):
            for number, text in enumerate(event.lines, 1):
                words = f"{event.code}{' ' if number == len(event.lines) else '-'}"
                if event.enhanced:
                    words += f"{event.enhanced} "
                # A host may say again what it did not like.
                yield words + (_hidden(len(text)) if self._login else text)
            if event.code != 334:
                self._login = False
            if self._asked and 300 <= event.code <= 399:
                self._within = True
                self._tail = b"\r\n"
        elif isinstance(event, client_engine.Broken):
            yield f"[no reply: it {event.value}]"

    def sent(self, data: bytes) -> Iterator[str]:
        while data:
            if self._left:
                here, data = data[: self._left], data[self._left :]
                self._left -= len(here)
                yield from self._content.more(here)
                if not self._left:
                    yield from self._content.end()
            elif self._within:
                data = yield from self._message(data)
            else:
                line, end, data = (self._rest + data).partition(b"\r\n")
                self._rest = b"" if end else line
                if end:
                    yield self._command(line)
                elif len(line) > _LONGEST:
                    raise OverflowError("an endless line")

    def _message(self, data: bytes) -> Generator[str, None, bytes]:
        """The content after DATA; returns what follows it."""
        window = self._tail + data
        end = window.find(b"\r\n.\r\n")
        if end < 0:
            self._tail = window[-4:]
            yield from self._content.more(data)
            return b""
        after = end + 5 - len(self._tail)
        self._within = self._asked = False
        yield from self._content.more(data[: max(0, after - 3)])
        yield from self._content.end()
        return data[after:]

    def _command(self, line: bytes) -> str:
        if self._login:
            return _hidden(len(line))
        verb, _, argument = line.decode("utf-8", "surrogateescape").partition(" ")
        self._asked = verb == "DATA"
        self._login = verb == "AUTH"
        if verb == "BDAT":
            self._left = int(argument.split()[0])
        return _line(verb, argument, _SMTP_VERBS)


_TELLERS: dict[str, Callable[[bool], Teller]] = {
    **dict.fromkeys(("smtp", "submission", "lmtp"), _SMTPTeller),
    "imap": _IMAPTeller,
    "pop3": _POP3Teller,
    **dict.fromkeys(SERVICES["relay"], _RelayTeller),
}
