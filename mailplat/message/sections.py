"""
Where the sections of a message lie, what a header subset is, and what a part says as text.

FETCH BODY[...] is answered with ranges of the stored octets (`locate`), SEARCH with the
text of the parts that people read (`searchable`, `decoded_text`).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from mailplat.message import headers
from mailplat.message.outline import MESSAGE, Outline, Part, described

# RFC 3501 §6.4.5, BODY[<section>]


def locate(
    outline: Outline, prefix_size: int, size: int, path: tuple[int, ...], what: str | None
) -> list[tuple[int, int]] | None:
    """
    Where a section lies.

    Args:
        prefix_size: octets of the copy's own prefix; it counts as the start of the
            message's header.
        size: octets of prefix and body together.
        path: part numbers from 1; empty for the message itself.
        what: None, "HEADER", "TEXT" or "MIME".

    Returns:
        (start, length) of each range in prefix and body, to be joined in this order; None
        if the message has no such part.  A range may be empty.
    """
    part: Part | None = outline.root
    if path:
        part = find(outline.root, path)
        if part is None:
            return None
        if what in ("HEADER", "TEXT"):
            # RFC 3501 §6.4.5: these refer to the message in a message/rfc822 part.
            part = part.message
        elif what is None:
            return _range(prefix_size + part.body_start, prefix_size + part.body_end, size)
    elif what is None:
        return _range(0, size, size)
    elif what == "MIME":
        return None
    if part is None:
        return None
    if what == "TEXT":
        return _range(prefix_size + part.body_start, prefix_size + part.body_end, size)
    start = 0 if part is outline.root else prefix_size + part.header_start
    return _range(start, prefix_size + part.body_start, size)


def _range(start: int, end: int, size: int) -> list[tuple[int, int]]:
    start = min(start, size)
    return [(start, max(start, min(end, size)) - start)]


def find(root: Part, path: tuple[int, ...]) -> Part | None:
    """
    The part at `path`, or None.

    Part 1 of a message that is not multipart is its text, so what is found may be the
    message itself.
    """
    container: Part | None = root
    part: Part | None = None
    for number in path:
        if container is None:
            return None
        if container.children:
            if not 1 <= number <= len(container.children):
                return None
            part = container.children[number - 1]
        elif number == 1:
            part = container
        else:
            return None
        # What the next number counts in: the parts of a multipart, or of the message inside.
        container = part if part.children else part.message
    return part


# Every match is one field with its continuation lines, or a line that is none.
_FIELD = re.compile(rb"([^\r\n:]*+)(:?)[^\n]*+(?>(?:\n[ \t][^\n]*+)*)\n?")


def select_fields(header: bytes, names: frozenset[bytes], negate: bool) -> bytes:
    """
    HEADER.FIELDS and HEADER.FIELDS.NOT (RFC 3501 §6.4.5).

    Args:
        header: with its blank line or without.
        names: in lower case.
        negate: the fields that are not in `names`.

    Returns:
        the fields as they stand, in their order, and the blank line.
    """
    kept = []
    for match in _FIELD.finditer(header):
        name, colon = match.groups()
        if not name and not colon:
            break  # the blank line
        if (name.rstrip(b" \t").lower() in names) is not negate:
            kept.append(match[0])
    if kept and not kept[-1].endswith(b"\n"):
        kept.append(b"\r\n")
    kept.append(b"\r\n")
    return b"".join(kept)


# Text, for SEARCH


class Searchable(NamedTuple):
    """
    A range of a message that people read.

    Attributes:
        start, length: in prefix and body.
        header: it is a header: fields, to be decoded with `headers.decode_words`.
        encoding, charset: of a text part, for `decoded_text`.
    """

    start: int
    length: int
    header: bool
    encoding: str
    charset: str


def searchable(outline: Outline, prefix_size: int) -> Iterator[Searchable]:
    """
    What SEARCH BODY looks at: text parts, and the headers of embedded messages, in order.

    The message's own header is not among them; SEARCH TEXT looks at it besides
    (RFC 3501 §6.4.4).
    """
    pending = [outline.root]
    while pending:
        part = pending.pop()
        if part.message is not None:
            embedded = part.message
            length = embedded.body_start - embedded.header_start
            yield Searchable(prefix_size + embedded.header_start, length, True, "7bit", "")
            pending.append(embedded)
        elif part.children:
            pending.extend(reversed(part.children))
        elif part.type == "text":
            length = part.body_end - part.body_start
            yield Searchable(prefix_size + part.body_start, length, False, part.encoding, part.charset)


#: Charsets in which ASCII octets are what they are in ASCII: what most mail says that it has.
LIKE_ASCII: Final = frozenset(
    {
        *(b"", b"us-ascii", b"ascii", b"utf-8", b"utf8", b"koi8-r", b"koi8-u", b"gb2312", b"gbk", b"big5"),
        *(b"iso-8859-%d" % part for part in (*range(1, 12), *range(13, 17))),
        *(b"windows-125%d" % page for page in range(9)),
    }
)


def as_it_stands(record: bytes, ascii_only: bool) -> bool:
    """
    Whether all that SEARCH BODY looks at stands in the message's octets as it is, if they are read as UTF-8.

    Args:
        record: an outline's.
        ascii_only: the message has no other octets.

    Raises:
        BadRecord.
    """
    for kind, media_type, encoding, charset in described(record):
        if media_type == b"text":
            if encoding in (b"base64", b"quoted-printable") or charset not in LIKE_ASCII:
                return False
            if not ascii_only and charset not in (b"utf-8", b"utf8"):
                return False
        elif kind == MESSAGE:
            # Its header may have encoded words.
            return False
    return True


_8_BIT = re.compile(rb"[\x80-\xff]")

#: Quoted-printable lines have 76 octets; what never ends a line is decoded in pieces.
_LONGEST_LINE: Final = 65536


def decoded_text(raw: bytes, encoding: str, charset: str) -> str:
    """The text of a part: transfer encoding undone, charset decoded.  Never raises."""
    decoder = TextDecoder(encoding, charset)
    return decoder.feed(raw) + decoder.finish()


class TextDecoder:
    """`decoded_text` in pieces: chunks may end anywhere, memory does not grow with the part."""

    def __init__(self, encoding: str, charset: str) -> None:
        self._encoding = encoding
        self._rest = b""
        self._undecided = b""  # the start of a character that will tell the charset
        name = headers.codec(charset) if charset else None
        # What claims to be ASCII, or nothing, may be UTF-8 or an old 8-bit charset.
        self._decoder: codecs.IncrementalDecoder | None = None
        if name is not None and name != "ascii":
            self._decoder = codecs.getincrementaldecoder(name)("replace")

    def feed(self, raw: bytes) -> str:
        """The text that `raw` completes."""
        if self._encoding == "base64":
            # Whole groups of four only; everything foreign is dropped first.
            kept = self._rest + raw.translate(None, headers.NOT_BASE64)
            whole = len(kept) - len(kept) % 4
            self._rest = kept[whole:]
            return self._text(headers.from_base64(kept[:whole]), False)
        if self._encoding == "quoted-printable":
            raw = self._rest + raw
            # An escape and white space at a line's end must not be cut: go on from whole lines,
            # but do not wait for ever for one.
            end = raw.rfind(b"\n") + 1
            if not end:
                end = len(raw) if len(raw) > _LONGEST_LINE else 0
                if end:
                    escape = raw.rfind(b"=", end - 2)
                    end = escape if escape > 0 else end
            self._rest = raw[end:]
            return self._text(headers.from_quoted_printable(raw[:end]), False)
        return self._text(raw, False)

    def finish(self) -> str:
        """The rest."""
        rest, self._rest = self._rest, b""
        if self._encoding == "base64":
            rest = headers.from_base64(rest)
        elif self._encoding == "quoted-printable":
            rest = headers.from_quoted_printable(rest)
        return self._text(rest, True)

    def _text(self, octets: bytes, final: bool) -> str:
        if self._decoder is None:
            octets = self._undecided + octets
            start = _first_8_bit(octets)
            sequence = octets[start : start + 4]
            if len(sequence) < 4 and not final:
                self._undecided = sequence
                return octets[:start].decode("ascii")
            if not sequence:
                return octets.decode("ascii")
            name = "utf-8" if _is_utf_8(sequence) else "cp1252"
            self._decoder = codecs.getincrementaldecoder(name)("replace")
        try:
            return self._decoder.decode(octets, final)
        except (UnicodeError, ValueError):
            # Some codecs refuse a few sequences even so.
            self._decoder.reset()
            return octets.decode("ascii", "replace")


def _first_8_bit(octets: bytes) -> int:
    """Where the first octet is that is not ASCII; the length if all are."""
    if octets.isascii():
        return len(octets)
    found = _8_BIT.search(octets)
    assert found is not None
    return found.start()


def _is_utf_8(sequence: bytes) -> bool:
    """The first character of some octets, of which the first is not ASCII, is one in UTF-8."""
    length = 2 if sequence[0] < 0xE0 else 3 if sequence[0] < 0xF0 else 4
    try:
        sequence[:length].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
