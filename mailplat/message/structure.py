"""
The scanner: a message's structure, found while the message arrives.

`Scanner.feed` takes chunks that end anywhere, `record` answers what is kept of the message and
`finish` the same as an `Outline`.  However the message was cut, the outline is the same.
Memory does not depend on the message's size: the scanner holds the header it is in (up to a
limit), the beginning of a line that may become a boundary, and what it has found.

How it works.  A stack of open parts, outermost first.  While a header is read, its blank
line is looked for; in a body, and in a header too, only lines that start with "--" matter,
and of those only the ones that are exactly an open boundary, with or without a closing "--"
(RFC 2046 §5.1.1 would take what only begins with one; but texts do, and so do other boundaries).
Such a line ends all parts above the multipart it belongs to.  Everything between is passed
over by `bytes.find` and `bytes.count`.  BODY and BODYSTRUCTURE are written as the parts
are met; the two numbers that come before what they describe are filled in afterwards.

Nothing here raises for what a message contains.  Past a limit a part is listed as an
opaque application/octet-stream.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailplat.message import rendering
from mailplat.message.addresses import Mailbox
from mailplat.message.addresses import parse as parse_addresses
from mailplat.message.headers import parameter_texts, parse_parameters, unfolded
from mailplat.message.outline import LEAF, MESSAGE, MULTIPART, Outline, packed, packed_part


@dataclass(frozen=True, slots=True)
class StructureLimits:
    """
    What the scanner takes from one message; past each the rest is opaque or left out.

    Attributes:
        header: octets of one header that are looked at.
        headers: octets of all headers together that are looked at.
        fields: lines of one header, after unfolding.
        addresses: entries of one address field; five times as many in a message.
        parameters: of one field.
        parts: parts in all, embedded messages included.
        depth: parts within parts.
        boundary: octets; RFC 2046 §5.1.1 allows 70.
    """

    header: int = 131072
    headers: int = 1048576
    fields: int = 1000
    addresses: int = 1000
    parameters: int = 100
    parts: int = 1000
    depth: int = 50
    boundary: int = 200


_DEFAULTS = StructureLimits()

#: White space that may follow a boundary on its line (RFC 2046 §5.1.1), the closing "--"
#: and the line end included.
_SLACK = 64

_ADDRESS_FIELDS = frozenset((b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"))
_ENVELOPE_FIELDS = _ADDRESS_FIELDS | {b"date", b"subject", b"in-reply-to", b"message-id"}
_CONTENT_FIELDS = frozenset(
    (
        b"content-type",
        b"content-transfer-encoding",
        b"content-id",
        b"content-description",
        b"content-md5",
        b"content-disposition",
        b"content-language",
        b"content-location",
    )
)
_ALL_FIELDS = _ENVELOPE_FIELDS | _CONTENT_FIELDS

_DASHES = b"\n--"
_BLANK = re.compile(rb"\n\r?\n")
# RFC 2045 §5.1 tokens; white space around the slash is an old habit.
_MEDIA_TYPE = re.compile(rb"([!#$%&'*+\-.^_`{|}~\w]{1,127})\s*/\s*([!#$%&'*+\-.^_`{|}~\w]{1,127})")
_ENCODING = re.compile(rb"\"?([!#$%&'*+\-.^_`{|}~\w]{1,64})(?![^\s\";(])")

# RFC 2045 §5.2
_US_ASCII = (b"charset", b"us-ascii")
# RFC 3501 §9 wants a multipart to have at least one part.
_NO_PART = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0'

_TEXT_PLAIN, _RFC822 = (b"text", b"plain"), (b"message", b"rfc822")


class _Open:
    """A part whose end has not been seen."""

    __slots__ = (
        "body_start",
        "boundary",
        "charset",
        "children",
        "counts",
        "default",
        "described",
        "encoding",
        "extension",
        "header_start",
        "is_message",
        "kind",
        "lines",
        "parameters",
        "places",
        "subtype",
        "type",
    )

    def __init__(self, header_start: int, default: tuple[bytes, bytes], is_message: bool) -> None:
        self.header_start = header_start
        self.default = default
        self.is_message = is_message  # the header is a message's, not only a part's
        self.kind = LEAF
        self.body_start = header_start
        self.lines = 0  # line ends before the body
        self.counts = False  # its lines are asked for
        self.type = b"application"
        self.subtype = b"octet-stream"
        self.parameters: list[tuple[bytes, bytes]] = []
        self.encoding = b"7bit"
        self.charset = b""
        self.boundary: bytes | None = None
        self.described = b""  # rendered fields before the size
        self.extension = b""  # rendered extension data
        self.children = 0  # of a multipart, those that have ended
        self.places = (0, 0)  # where the size of a message/rfc822 goes in the two forms


class Scanner:
    """Finds the structure of one message."""

    def __init__(self, limits: StructureLimits = _DEFAULTS) -> None:
        self._limits = limits
        self._longest = limits.boundary + _SLACK
        self._tail = b""  # the start of a line not yet decided on
        self._offset = 0  # octets taken, the tail not counted
        self._lines = 0  # line ends in those that were taken while counting
        self._counting = 0  # open parts whose lines are asked for; counting costs as much as searching
        self._before = b""  # the last two of them
        self._at_line_start = True
        self._in_header = True
        self._header: list[bytes] = []  # what is kept of the header under way
        self._header_kept = 0
        self._headers_left = limits.headers
        self._addresses_left = limits.addresses * 5
        self._parts = 1
        self._marks: dict[bytes, tuple[int, bool]] = {}  # line -> (index in the stack, closes)
        self._needle = _DASHES
        self._envelope = b""
        self._body: list[bytes] = []
        self._structure: list[bytes] = []
        self._tree: list[bytes] = []  # the parts that have ended, as the record has them
        self._header_size = 0
        self._stack = [_Open(0, _TEXT_PLAIN, True)]

    def feed(self, chunk: bytes) -> None:
        """Take the next octets."""
        if self._tail:
            chunk = self._tail + chunk
            self._tail = b""
        if chunk:
            self._scan(chunk, False)

    def record(self) -> bytes:
        """What was found, as it is kept (see `outline`).  To be called once, after the last chunk."""
        if self._tail:
            tail, self._tail = self._tail, b""
            self._scan(tail, True)
        self._close(0, 0)
        return packed(
            self._header_size,
            self._offset,
            self._envelope,
            b"".join(self._body),
            b"".join(self._structure),
            b"".join(self._tree),
        )

    def finish(self) -> Outline:
        """The same, taken apart."""
        return Outline.from_bytes(self.record())

    # Taking octets

    def _take(self, data: bytes, start: int, end: int) -> None:
        """Count what lies between two places of `data`."""
        self._offset += end - start
        if self._counting:
            # Searches from one to the next, where `count` looks at each octet: a third of its time in text.
            taken = data[start:end]
            self._lines += len(taken) - len(taken.replace(b"\n", b""))

    def _scan(self, data: bytes, last: bool) -> None:
        position, size = 0, len(data)
        blank = -1  # the line end before the next blank line; -1: not looked for, size: none
        while position < size:
            if self._in_header:
                if blank < position:
                    found = _BLANK.search(data, position)
                    blank = found.start() if found else size
                position = self._scan_header(data, position, blank, last)
            elif not self._marks:
                self._take(data, position, size)
                self._at_line_start = data[size - 1] == 10
                position = size
            else:
                position = self._scan_body(data, position, last)
        taken = size - len(self._tail)
        self._before = data[taken - 2 : taken] if taken >= 2 else (self._before + data[:taken])[-2:]

    def _scan_header(self, data: bytes, position: int, blank: int, last: bool) -> int:
        """Take header lines, up to the blank line or a boundary at most; where to go on."""
        size = len(data)
        if self._at_line_start and data.startswith((b"\r\n", b"\n"), position):
            stop, end = position, position + (1 if data[position] == 10 else 2)
        elif blank < size:
            stop = blank + 1
            end = stop + (1 if data[stop] == 10 else 2)
        else:
            stop = end = size
        if self._marks and stop > position:
            start, line_end, mark = self._find_mark(data, position, stop, last)
            if mark is not None:
                self._keep(data, position, start)
                self._take(data, position, start)
                self._delimit(data, start, line_end, mark)
                return line_end
            hold = start
        else:
            hold = self._undecided(data, position, stop)
        if end > stop or last:
            self._keep(data, position, stop)
            self._take(data, position, end)
            self._at_line_start = True
            if end > stop:
                self._header_done()
            return end
        self._keep(data, position, hold)
        self._take(data, position, hold)
        self._at_line_start = hold < size or data[size - 1] == 10
        self._tail = data[hold:]
        return size

    def _scan_body(self, data: bytes, position: int, last: bool) -> int:
        """Take octets up to a boundary line and that line; where to go on."""
        size = len(data)
        start, line_end, mark = self._find_mark(data, position, size, last)
        self._take(data, position, start)
        if mark is not None:
            self._delimit(data, start, line_end, mark)
            return line_end
        self._at_line_start = start < size or data[size - 1] == 10
        self._tail = data[start:]
        return size

    def _find_mark(
        self, data: bytes, position: int, stop: int, last: bool
    ) -> tuple[int, int, tuple[int, bool] | None]:
        """
        The first boundary line that starts before `stop`: its start, the end of its line, and
        whose it is.  Without one: where the undecided rest starts (`stop` if there is none).
        """
        marks, needle, longest, size = self._marks, _DASHES, self._longest, len(data)
        at_start = self._at_line_start
        scan = position
        while True:
            if at_start and data.startswith(b"--", scan):
                start = scan
            else:
                # A search for a single octet is ten times as fast, and base64 has no dash at all.
                dash = data.find(b"-", scan, stop)
                found = data.find(needle, max(dash - 1, scan), stop) if dash >= 0 else -1
                if found < 0:
                    break
                start = found + 1
            if start >= stop:
                break
            # Where dashes are common the whole line is looked for, which takes twice as long in base64.
            needle = self._needle
            line_end = data.find(b"\n", start, start + longest)
            if line_end >= 0:
                mark = marks.get(data[start + 2 : line_end].rstrip(b" \t\r"))
                if mark is not None:
                    return start, line_end + 1, mark
                scan, at_start = line_end + 1, True
            elif size - start >= longest:
                scan, at_start = start + 2, False
            elif last:
                mark = marks.get(data[start + 2 :].rstrip(b" \t\r"))
                return (start, size, mark) if mark is not None else (stop, stop, None)
            else:
                return start, start, None
        return (stop if last else self._undecided(data, position, stop)), stop, None

    def _undecided(self, data: bytes, position: int, stop: int) -> int:
        """Where an unfinished line starts that may become a boundary or a blank line; or `stop`."""
        if stop < len(data):
            return stop
        start = data.rfind(b"\n", position) + 1
        if not start:
            if not self._at_line_start:
                return stop
            start = position
        if stop - start >= self._longest or start == stop:
            return stop
        if self._in_header and data[start:] == b"\r":
            return start
        if self._marks and (data.startswith(b"--", start) or data[start:] == b"-"):
            return start
        return stop

    def _keep(self, data: bytes, start: int, end: int) -> None:
        """Remember octets of the header under way, as many as allowed."""
        room = min(self._limits.header, self._headers_left) - self._header_kept
        if room > 0 and end > start:
            self._header.append(data[start : min(end, start + room)])
            self._header_kept += len(self._header[-1])

    # Parts begin and end

    def _delimit(self, data: bytes, start: int, line_end: int, mark: tuple[int, bool]) -> None:
        """A boundary line stands at `start`; everything before it is taken."""
        index, closes = mark
        before = data[start - 2 : start] if start >= 2 else (self._before + data[:start])[-2:]
        # RFC 2046 §5.1.1: the line end before a boundary belongs to the boundary.
        self._close(index + 1, 2 if before == b"\r\n" else len(before[-1:]))
        self._take(data, start, line_end)
        self._at_line_start = True
        owner = self._stack[index]
        if closes:
            owner.boundary = None
            self._set_marks()
            return
        # RFC 2046 §5.1.5
        default = _RFC822 if owner.subtype == b"digest" else _TEXT_PLAIN
        opened = _Open(self._offset, default, False)
        self._stack.append(opened)
        if self._parts >= self._limits.parts:
            # The rest of this multipart is one part that nobody looks into.
            self._describe(opened, {}, opaque=True)
            owner.boundary = None
            self._set_marks()
        else:
            self._parts += 1
            self._in_header = True

    def _close(self, depth: int, line_end: int) -> None:
        """End the parts from `depth` up; `line_end` octets before here are not theirs."""
        while self._in_header:
            self._header_done()
        changed = False
        end, lines = self._offset - line_end, self._lines - (line_end > 0)
        while len(self._stack) > depth:
            opened = self._stack.pop()
            if opened.body_start > end:
                # The line end before the boundary is the part's blank line: it stays in the
                # part, and in what the part is in.
                end, lines = self._offset, self._lines
            changed = changed or opened.boundary is not None
            counted = 0
            if opened.counts:
                self._counting -= 1
                counted = max(0, lines - opened.lines)
            self._ended(opened, end, counted)
            if self._stack:
                self._stack[-1].children += 1
        if changed:
            self._set_marks()

    def _set_marks(self) -> None:
        marks: dict[bytes, tuple[int, bool]] = {}
        only = b""
        for index, opened in enumerate(self._stack):
            if opened.boundary is not None:
                # The innermost of several parts with the same boundary comes last and wins.
                marks[opened.boundary] = (index, False)
                marks[opened.boundary + b"--"] = (index, True)
                only = opened.boundary
        self._marks = marks
        self._needle = _DASHES + only if len(marks) == 2 else _DASHES

    def _header_done(self) -> None:
        """The header under way is complete; its part's body starts here."""
        header = b"".join(self._header)
        self._header = []
        self._headers_left -= self._header_kept
        self._header_kept = 0
        self._in_header = False
        opened = self._stack[-1]
        opened.body_start = self._offset
        opened.lines = self._lines
        wanted = _ALL_FIELDS if opened.is_message else _CONTENT_FIELDS
        fields: dict[bytes, bytes] = {}
        most = self._limits.fields
        for line in unfolded(header).split(b"\n", most)[:most]:
            name, colon, value = line.partition(b":")
            name = name.rstrip().lower()
            if name in wanted and colon:
                if name not in fields:
                    fields[name] = value.strip()
                elif name in _ADDRESS_FIELDS:
                    # More than one is against RFC 5322 §3.6, and all are meant.
                    fields[name] += b", " + value.strip()
        if opened.is_message:
            envelope = rendering.envelope(fields, self._addresses(fields))
            if len(self._stack) == 1:
                self._envelope = envelope
                self._header_size = self._offset
            else:
                self._body.append(b" %s " % envelope)
                self._structure.append(b" %s " % envelope)
        self._describe(opened, fields, opaque=self._headers_left <= 0 and len(self._stack) > 1)
        if opened.kind == MESSAGE or opened.type == b"text":
            opened.counts = True
            self._counting += 1
        if opened.kind == MESSAGE:
            self._parts += 1
            self._stack.append(_Open(self._offset, _TEXT_PLAIN, True))
            self._in_header = True
        elif opened.boundary is not None:
            self._set_marks()

    def _addresses(self, fields: dict[bytes, bytes]) -> dict[bytes, list[Mailbox]]:
        parsed = {}
        for name in _ADDRESS_FIELDS:
            value = fields.get(name)
            if value and self._addresses_left > 0:
                parsed[name] = parse_addresses(value, min(self._limits.addresses, self._addresses_left))
                self._addresses_left -= len(parsed[name])
        return parsed

    # What a part is

    def _describe(self, opened: _Open, fields: dict[bytes, bytes], opaque: bool) -> None:
        """Set what the header says, and write what comes before the children."""
        most = self._limits.parameters
        media_type, subtype = opened.default
        pairs: list[tuple[bytes, bytes]] = []
        value = fields.get(b"content-type")
        stated = None
        if value is not None:
            head, pairs = parse_parameters(value, most)
            # RFC 2045 §5.2: one that makes no sense counts as none.
            stated = _MEDIA_TYPE.match(head)
            if stated is None:
                pairs = []
            else:
                media_type, subtype = stated[1].lower(), stated[2].lower()
        charset = boundary = b""
        for name, text in pairs:
            if name == b"charset" and not charset:
                charset = text
            elif name == b"boundary" and not boundary:
                boundary = text.rstrip()
            elif name in (b"charset*", b"boundary*"):
                texts = parameter_texts(pairs)
                charset = charset or texts.get("charset", "").encode("latin-1", "replace")
                boundary = boundary or texts.get("boundary", "").encode("latin-1", "replace").rstrip()
                break
        if media_type == b"multipart" and not 0 < len(boundary) <= self._limits.boundary:
            # RFC 2046 §5.1.1: without a boundary there are no parts, only text.
            media_type, subtype, pairs, stated, charset = b"text", b"plain", [], None, b""
        if opaque:
            media_type, subtype, pairs = b"application", b"octet-stream", []
        elif media_type == b"multipart":
            opened.kind = MULTIPART
        elif media_type == b"message" and subtype == b"rfc822":
            opened.kind = MESSAGE
        if opened.kind != LEAF and (
            len(self._stack) >= self._limits.depth
            or (opened.kind == MESSAGE and self._parts >= self._limits.parts)
        ):
            opened.kind = LEAF
            media_type, subtype, pairs = b"application", b"octet-stream", []
        if stated is None and media_type == b"text":
            pairs, charset = [_US_ASCII], b"us-ascii"
        opened.type, opened.subtype, opened.parameters = media_type, subtype, pairs
        opened.charset = charset.strip().lower()[:100]

        parameters = rendering.parameters(pairs) if pairs else b"NIL"
        disposition = fields.get(b"content-disposition")
        extension = b" %s %s %s" % (
            b"NIL" if disposition is None else rendering.disposition(parse_parameters(disposition, most)),
            rendering.languages(fields.get(b"content-language")),
            rendering.nstring(fields.get(b"content-location")),
        )
        if opened.kind == MULTIPART:
            opened.boundary = boundary
            opened.described = b' "%s"' % subtype
            opened.extension = b" %s%s" % (parameters, extension)
            self._body.append(b"(")
            self._structure.append(b"(")
            return
        stated_encoding = fields.get(b"content-transfer-encoding")
        if stated_encoding is not None:
            # RFC 2045 §6.1: a token.  What is none, such as "text/html", counts as not given.
            if stated_encoding.startswith(b"("):
                stated_encoding = parse_parameters(stated_encoding, 0)[0]
            token = _ENCODING.match(stated_encoding)
            if token is not None:
                opened.encoding = token[1].lower()
        opened.described = b'("%s" "%s" %s %s %s "%s" ' % (
            media_type,
            subtype,
            parameters,
            rendering.nstring(fields.get(b"content-id")),
            rendering.nstring(fields.get(b"content-description")),
            opened.encoding,
        )
        opened.extension = b" %s%s" % (rendering.nstring(fields.get(b"content-md5")), extension)
        if opened.kind == MESSAGE:
            opened.places = (len(self._body) + 1, len(self._structure) + 1)
            self._body += (opened.described, b"")
            self._structure += (opened.described, b"")

    def _ended(self, opened: _Open, end: int, lines: int) -> None:
        """The part's body ends there; write what comes after its children."""
        size = b"%d" % (end - opened.body_start)
        if opened.kind == MULTIPART:
            if not opened.children:
                opened.children = 1
                self._body.append(_NO_PART + b")")
                self._structure.append(_NO_PART + b" NIL NIL NIL NIL)")
                words = (b"text", b"plain", b"7bit", b"us-ascii")
                self._tree.append(packed_part(LEAF, 0, (end, end, end, 0), words, (_US_ASCII,)))
            self._body.append(opened.described + b")")
            self._structure.append(b"%s%s)" % (opened.described, opened.extension))
        elif opened.kind == MESSAGE:
            in_body, in_structure = opened.places
            self._body[in_body] = self._structure[in_structure] = size
            self._body.append(b" %d)" % lines)
            self._structure.append(b" %d%s)" % (lines, opened.extension))
        else:
            written = opened.described + size
            if opened.type == b"text":
                written += b" %d" % lines
            self._body.append(written + b")")
            self._structure.append(b"%s%s)" % (written, opened.extension))
        self._tree.append(
            packed_part(
                opened.kind,
                opened.children,
                (opened.header_start, opened.body_start, end, lines),
                (opened.type, opened.subtype, opened.encoding, opened.charset),
                opened.parameters,
            )
        )
