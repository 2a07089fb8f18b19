"""
An 8-bit message as a 7-bit one, for a host that takes no other (RFC 6152 §3).

The outline says where the parts are, so nothing is parsed again: `regions` names the places to
look at, `plan` says what becomes of each, and `converted` does it to the bytes, a piece at a
time.  Text becomes quoted-printable, anything else base64, and the labels of the parts
around say what is then true.  What may not be touched makes the whole a `CannotConvert`:
signed or encrypted parts that are not 7-bit already, headers that are not ASCII, and kinds of
parts that have no other encoding (RFC 2046 §5.2).
"""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mailplat.errors import CannotConvert
from mailplat.message.headers import fields
from mailplat.message.outline import Outline, Part

#: What a region is: the header of a part, the body of a part without parts, or what stands
#: between the parts of a multipart: boundaries, preamble and epilogue.
HEADER: Final = "header"
BODY: Final = "body"
BETWEEN: Final = "between"


@dataclass(frozen=True, slots=True)
class Region:
    """
    A place in a message.

    Attributes:
        part: whose header or body it is, or in whose body it stands.
        is_message: of a header: a message's, not only a part's.
        sealed: inside a multipart/signed or multipart/encrypted, which must stay as it is.
    """

    kind: str
    part: Part
    start: int
    end: int
    is_message: bool = False
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """
    What becomes of a piece of the message.

    Attributes:
        how: "copy", "mask" (what is not ASCII becomes "?"), "quoted-printable" or "base64".
        instead: with "copy": these octets stand in its place.
    """

    how: str
    start: int
    end: int
    instead: bytes | None = None


_COPY: Final = "copy"
_MASK: Final = "mask"
_QUOTED: Final = "quoted-printable"
_BASE64: Final = "base64"

_SEALED = frozenset(("signed", "encrypted"))

# RFC 6532 §3.7, RFC 6533: these may be encoded; the other message types may not (RFC 2046 §5.2).
_GLOBAL = frozenset(("global", "global-headers", "global-delivery-status", "global-disposition-notification"))

_ENCODING_FIELD = re.compile(
    rb"^content-transfer-encoding[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*", re.IGNORECASE | re.MULTILINE
)

_NOT_SEVEN_BIT = re.compile(
    rb"^content-transfer-encoding[ \t]*:\s*(?:8bit|binary)[ \t\r]*$", re.IGNORECASE | re.MULTILINE
)


def regions(outline: Outline) -> list[Region]:
    """The whole message in its regions, in order and without gaps; some may be empty."""
    found: list[Region] = []
    # What is still to be listed, the next one last: regions, and parts to be taken apart.
    pending: list[Region | tuple[Part, bool, bool]] = [(outline.root, True, False)]
    while pending:
        item = pending.pop()
        if isinstance(item, Region):
            found.append(item)
            continue
        part, is_message, sealed = item
        found.append(Region(HEADER, part, part.header_start, part.body_start, is_message, sealed))
        if part.message is not None:
            pending.append((part.message, True, sealed))
        elif part.children:
            sealed = sealed or part.subtype in _SEALED
            inside: list[Region | tuple[Part, bool, bool]] = []
            position = part.body_start
            for child in part.children:
                inside += (
                    Region(BETWEEN, part, position, child.header_start, sealed=sealed),
                    (child, False, sealed),
                )
                position = child.body_end
            inside.append(Region(BETWEEN, part, position, part.body_end, sealed=sealed))
            pending += reversed(inside)
        else:
            found.append(Region(BODY, part, part.body_start, part.body_end, sealed=sealed))
    return found


def plan(found: Sequence[Region], eight_bit: Collection[int], headers: Mapping[int, bytes]) -> list[Step]:
    """
    What to do.

    Args:
        found: `regions` of the message.
        eight_bit: indexes of those that have octets above 127.
        headers: the octets of those that are headers, by index; one that is missing is too long
            to be changed.

    Raises:
        CannotConvert.
    """
    bodies = {
        id(region.part): _encoding(region, index in eight_bit)
        for index, region in enumerate(found)
        if region.kind == BODY
    }
    steps = []
    for index, region in enumerate(found):
        step = Step(_COPY, region.start, region.end)
        if region.kind == HEADER:
            if index in eight_bit:
                raise CannotConvert(reason="a header that is not ASCII")
            label = bodies.get(id(region.part))
            header = headers.get(index, b"")
            if label is None and not region.sealed and _NOT_SEVEN_BIT.search(header):
                label = "7bit"
            if label is not None:
                step = Step(_COPY, region.start, region.end, _labelled(header, region, label))
        elif region.kind == BODY:
            step = Step(bodies[id(region.part)] or _COPY, region.start, region.end)
        elif index in eight_bit:
            if region.sealed:
                raise CannotConvert(reason="8-bit text between the parts of a signed message")
            # Nobody is to read it (RFC 2046 §5.1.1), and it has no encoding.
            step = Step(_MASK, region.start, region.end)
        steps.append(step)
    return steps


def _encoding(region: Region, is_eight_bit: bool) -> str | None:
    """How a body is to be encoded; None if it is 7-bit as it is."""
    part = region.part
    if not is_eight_bit and part.encoding != "binary":
        return None
    if region.sealed:
        raise CannotConvert(reason=f"8-bit {part.type}/{part.subtype} in a signed message")
    if part.encoding in (_QUOTED, _BASE64):
        raise CannotConvert(reason=f"8-bit octets in a part that calls itself {part.encoding}")
    if part.type == "message" and part.subtype not in _GLOBAL:
        raise CannotConvert(reason=f"8-bit message/{part.subtype}")
    return _QUOTED if part.type == "text" and part.encoding != "binary" else _BASE64


def _labelled(header: bytes, region: Region, encoding: str) -> bytes:
    """The header with another Content-Transfer-Encoding."""
    if not (header == b"\r\n" or header.endswith(b"\r\n\r\n")):
        raise CannotConvert(reason="a header without an end")
    names = dict(fields(header))
    kind = names.get(b"content-type", b"").lower()
    # Past the limits of the scanner a multipart is listed as opaque, but it calls itself one.
    composite = kind.startswith((b"multipart/", b"message/")) and not kind.startswith(b"message/global")
    if composite and encoding != "7bit":
        raise CannotConvert(reason="more parts than were looked at")
    header = _ENCODING_FIELD.sub(b"", header)[:-2]
    if region.is_message and b"mime-version" not in names:
        header += b"MIME-Version: 1.0\r\n"
    if encoding != "7bit" and not kind:
        # RFC 1428 §3: nobody said which characters these are.
        header += b"Content-Type: text/plain; charset=unknown-8bit\r\n"
    return header + f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode("ascii")


# Doing it

Read = Callable[[int, int], Awaitable[bytes]]

_NOT_ASCII = bytes(octet if octet < 128 else 63 for octet in range(256))

#: Octets of a line of text before base64, 76 characters after it (RFC 2045 §6.8).
_LINE = 57


async def converted(steps: Sequence[Step], read: Read, length: int) -> AsyncIterator[bytes]:
    """
    The message after conversion, in pieces.

    Args:
        read: octets from a start on, as `IMessageContent.read`.
        length: octets to ask for at a time.
    """
    for step in steps:
        if step.instead is not None:
            yield step.instead
            continue
        encode = _ENCODERS[step.how]()
        for start in range(step.start, step.end, length):
            piece = encode.feed(await read(start, min(length, step.end - start)))
            if piece:
                yield piece
        piece = encode.finish()
        if piece:
            yield piece


class _Encoder(Protocol):
    def feed(self, piece: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Copy:
    """As it is."""

    def feed(self, piece: bytes) -> bytes:
        return piece

    def finish(self) -> bytes:
        return b""


class _Mask(_Copy):
    """What is not ASCII becomes "?"."""

    def feed(self, piece: bytes) -> bytes:
        return piece.translate(_NOT_ASCII)


class _Quoted:
    """Quoted-printable (RFC 2045 §6.7); line breaks stay line breaks."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        # Whole lines only: white space at the end of one is encoded, and inside of one is not.
        lines, newline, self._held = (self._held + piece).rpartition(b"\n")
        if newline:
            return b2a_qp(lines + newline)
        held, self._held = self._held[:-1], self._held[-1:]  # the last may be a CR
        return _quoted(held) + b"=\r\n" if held else b""

    def finish(self) -> bytes:
        return _quoted(self._held)


def _quoted(line: bytes) -> bytes:
    # The line break tells b2a_qp that breaks are CR LF.
    return b2a_qp(line + b"\r\n")[:-2] if line else b""


class _Base64:
    """Base64 in lines."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        data = self._held + piece
        whole = len(data) - len(data) % _LINE
        self._held = data[whole:]
        return b"".join(_lines(data[:whole]))

    def finish(self) -> bytes:
        return b"".join(_lines(self._held))


def _lines(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _LINE):
        yield b2a_base64(data[start : start + _LINE], newline=False) + b"\r\n"


_ENCODERS: Final[Mapping[str, Callable[[], _Encoder]]] = {
    _COPY: _Copy,
    _MASK: _Mask,
    _QUOTED: _Quoted,
    _BASE64: _Base64,
}
