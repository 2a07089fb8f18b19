"""
The outline: what is known of a message without reading it again.

It is computed once, while the message arrives (`structure.Scanner`), and kept by the
store beside the body as one opaque record.  The record starts with a fixed header that
says where the three rendered IMAP forms lie, so FETCH of ENVELOPE, BODY, BODYSTRUCTURE or
of the header's size slices them out without decoding the rest; the tree of parts behind
them is decoded only for sections and searches.

All offsets count octets from the start of the body, that is, without the prefix that a
mailbox puts before its own copy.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import add, itemgetter
from sys import byteorder

#: The first octet of a record.  Another one means: scan the body again.
VERSION = 2
_CURRENT = bytes([VERSION])

# version, header size, size, then the lengths of ENVELOPE, BODY and BODYSTRUCTURE.
_HEAD = struct.Struct(">BIQIII")
_VERSION = itemgetter(slice(0, 1))
_LENGTHS = itemgetter(slice(13, 25))

# kind, number of children, header start, body start, body end, lines, then the lengths of
# type, subtype, encoding, charset, and the number of parameters.
_PART = struct.Struct(">BIQQQIBBBBH")
_PAIR = struct.Struct(">HI")

#: The forms that a record holds, in their order.
ENVELOPE, BODY, BODYSTRUCTURE = range(3)

#: What a part is to its record.
LEAF, MULTIPART, MESSAGE = range(3)


class BadRecord(ValueError):
    """The bytes are not a record of this version; the body must be scanned again."""


@dataclass(frozen=True, slots=True)
class Part:
    """
    One part of a message, or the message itself.

    Attributes:
        type: media type, lower case.
        subtype: lower case.
        parameters: of Content-Type, names in lower case, values without quoting, RFC 2231
            continuations joined; otherwise as they stood.
        encoding: Content-Transfer-Encoding, lower case, "7bit" where not given.
        charset: as the part states it, lower case; "" where it does not.
        header_start: where the part's header starts.
        body_start: where its body starts, after the blank line.
        body_end: where its body ends, before the line end that belongs to a boundary.
        lines: line ends in the body of a text part or a message/rfc822; 0 for others.
        children: of a multipart, in order, at least one.
        message: the message in a message/rfc822.
    """

    type: str
    subtype: str
    parameters: tuple[tuple[bytes, bytes], ...]
    encoding: str
    charset: str
    header_start: int
    body_start: int
    body_end: int
    lines: int
    children: tuple[Part, ...] = ()
    message: Part | None = None


@dataclass(frozen=True, slots=True)
class Outline:
    """
    Attributes:
        header_size: octets of the message's header, the blank line included.
        size: octets of the body as stored (header and text, without any prefix).
        envelope: ENVELOPE as IMAP sends it, in parentheses (RFC 3501 §7.4.2).
        body: BODY, without extension data.
        bodystructure: BODYSTRUCTURE.
        root: the message itself.
    """

    header_size: int
    size: int
    envelope: bytes
    body: bytes
    bodystructure: bytes
    root: Part

    @property
    def lines(self) -> int:
        """Line ends in the text, 0 if the message is multipart."""
        return self.root.lines

    def to_bytes(self) -> bytes:
        """The record to keep beside the body."""
        tree = b"".join(map(_packed, reversed(_preorder(self.root))))
        return packed(self.header_size, self.size, self.envelope, self.body, self.bodystructure, tree)

    @classmethod
    def from_bytes(cls, record: bytes) -> Outline:
        """
        The outline that `Scanner.record` or `to_bytes` wrote.

        Raises:
            BadRecord: another version, or damaged.
        """
        _, header_size, size, envelope, body, structure = _head(record)
        start = _HEAD.size
        middle = start + envelope
        end = middle + body
        tree = end + structure
        root = _tree(record, tree, size)
        if (root.header_start, root.body_start, root.body_end) != (0, header_size, size):
            raise BadRecord("an outline of a part only")
        return cls(header_size, size, record[start:middle], record[middle:end], record[end:tree], root)


def rendered(record: bytes, form: int) -> bytes:
    """ENVELOPE, BODY or BODYSTRUCTURE, straight from the record.  Raises BadRecord."""
    lengths = _head(record)[3:]
    start = _HEAD.size + sum(lengths[:form])
    return record[start : start + lengths[form]]


def rendered_many(records: Sequence[bytes], forms: Sequence[int]) -> list[list[bytes]]:
    """
    Forms of many records, at least one.

    Args:
        forms: some of ENVELOPE, BODY and BODYSTRUCTURE.

    Returns:
        for each of `forms` that of each record.

    Raises:
        BadRecord: one of them is of another version, or damaged.
    """
    # A loop over columns, not over messages: nearly each step is one in C.
    if b"".join(map(_VERSION, records)) != _CURRENT * len(records):
        raise BadRecord("an outline of another version")
    octets = b"".join(map(_LENGTHS, records))
    if len(octets) < 12 * len(records):
        raise BadRecord("an outline that was cut off")
    lengths = array("I", octets)
    if byteorder == "little":
        lengths.byteswap()
    found: dict[int, list[bytes]] = {}
    starts = [_HEAD.size] * len(records)
    for form in range(max(forms) + 1):
        column = lengths[form::3]
        ends = list(map(add, starts, column))
        if form in forms:
            cuts = zip(records, starts, ends, strict=True)
            found[form] = [record[start:end] for record, start, end in cuts]
            if sum(map(len, found[form])) < sum(column):
                raise BadRecord("an outline that was cut off")
        starts = ends
    return [found[form] for form in forms]


def header_size(record: bytes) -> int:
    """Octets of the body's header, straight from the record.  Raises BadRecord."""
    size: int = _head(record)[1]
    return size


def described(record: bytes) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    """
    Of each part its kind, type, encoding and charset, straight from the record.  Raises BadRecord.

    Children come before their parent.
    """
    head = _head(record)
    position = _HEAD.size + head[3] + head[4] + head[5]
    try:
        while position < len(record):
            kind, _, _, _, _, _, a, b, c, d, pairs = _PART.unpack_from(record, position)
            position += _PART.size
            words = position + a + b
            yield (
                kind,
                record[position : position + a],
                record[words : words + c],
                record[words + c : words + c + d],
            )
            position = words + c + d
            for _ in range(pairs):
                name, value = _PAIR.unpack_from(record, position)
                position += _PAIR.size + name + value
    except struct.error:
        raise BadRecord("an outline that was cut off") from None


def _head(record: bytes) -> tuple[int, ...]:
    if len(record) < _HEAD.size or record[0] != VERSION:
        raise BadRecord("not an outline of this version")
    head = _HEAD.unpack_from(record)
    if _HEAD.size + head[3] + head[4] + head[5] > len(record):
        raise BadRecord("an outline that was cut off")
    return head


# Writing


def packed(
    header_size: int, size: int, envelope: bytes, body: bytes, bodystructure: bytes, tree: bytes
) -> bytes:
    """
    A record.

    Args:
        tree: a `packed_part` for each part, children in order and before their parent, so
            that reading them back needs a stack and no recursion.
    """
    head = _HEAD.pack(VERSION, header_size, size, len(envelope), len(body), len(bodystructure))
    return b"".join((head, envelope, body, bodystructure, tree))


def packed_part(
    kind: int,
    children: int,
    offsets: tuple[int, int, int, int],
    words: tuple[bytes, bytes, bytes, bytes],
    parameters: Sequence[tuple[bytes, bytes]],
) -> bytes:
    """
    One part in a record.

    Args:
        kind: LEAF, MULTIPART or MESSAGE.
        children: how many of the parts packed just before belong to it.
        offsets: header start, body start, body end; and lines.
        words: type, subtype, encoding, charset; at most 255 octets each.
    """
    a, b, c, d = words
    part = b"".join(
        (_PART.pack(kind, children, *offsets, len(a), len(b), len(c), len(d), len(parameters)), a, b, c, d)
    )
    for name, value in parameters:
        part += _PAIR.pack(len(name), len(value)) + name + value
    return part


def _packed(part: Part) -> bytes:
    kind = MESSAGE if part.message is not None else MULTIPART if part.children else LEAF
    a, b, c, d = (
        text.encode("latin-1", "replace")[:255]
        for text in (part.type, part.subtype, part.encoding, part.charset)
    )
    return packed_part(
        kind,
        1 if kind == MESSAGE else len(part.children),
        (part.header_start, part.body_start, part.body_end, part.lines),
        (a, b, c, d),
        part.parameters,
    )


def _preorder(root: Part) -> list[Part]:
    """Each part before its children, children from last to first."""
    order: list[Part] = []
    pending = [root]
    while pending:
        part = pending.pop()
        order.append(part)
        if part.message is not None:
            pending.append(part.message)
        else:
            pending.extend(part.children)
    return order


# Reading


def _tree(record: bytes, position: int, size: int) -> Part:
    finished: list[Part] = []
    try:
        while position < len(record):
            kind, count, header, start, end, lines, *lengths, pairs = _PART.unpack_from(record, position)
            position += _PART.size
            words = []
            for length in lengths:
                words.append(record[position : position + length].decode("latin-1"))
                position += length
            media_type, subtype, encoding, charset = words
            parameters = []
            for _ in range(pairs):
                name, value = _PAIR.unpack_from(record, position)
                position += _PAIR.size
                parameters.append(
                    (record[position : position + name], record[position + name : position + name + value])
                )
                position += name + value
            if not header <= start <= end <= size or position > len(record) or count > len(finished):
                raise BadRecord("an outline that contradicts itself")
            children: tuple[Part, ...] = ()
            message = None
            if kind == MESSAGE and count == 1:
                message = finished.pop()
            elif kind == MULTIPART and count:
                children = tuple(finished[-count:])
                del finished[-count:]
            elif kind != LEAF or count:
                raise BadRecord("an outline that contradicts itself")
            described = (media_type, subtype, tuple(parameters), encoding, charset)
            finished.append(Part(*described, header, start, end, lines, children, message))
    except struct.error:
        raise BadRecord("an outline that was cut off") from None
    if len(finished) != 1:
        raise BadRecord("an outline without a message")
    return finished[0]
