"""
A strict reader of what IMAP says of a message (RFC 3501 §9): envelope, body, and what is in them.

It takes what the grammar allows and nothing else, so reading back what was rendered proves
that a client can.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_QUOTED = re.compile(rb'"((?:[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]|\\["\\])*)"')
_LITERAL = re.compile(rb"\{([0-9]+)\}\r\n")
_NUMBER = re.compile(rb"0|[1-9][0-9]*")


class Body(NamedTuple):
    """
    `body`.

    Attributes:
        type: b"multipart" for several; as it stood.
        parameters, extension: None for NIL, and where the short form has none.
        extension: (md5 or None for a multipart, disposition, language, location).
    """

    type: bytes
    subtype: bytes
    children: tuple[Body, ...] = ()
    parameters: tuple[tuple[bytes, bytes], ...] | None = None
    id: bytes | None = None
    description: bytes | None = None
    encoding: bytes = b""
    octets: int = 0
    lines: int | None = None
    envelope: tuple[Any, ...] | None = None
    message: Body | None = None
    extension: tuple[Any, ...] = ()


def read_envelope(data: bytes) -> tuple[Any, ...]:
    """The ten fields; address lists are tuples of four, or None."""
    reader = _Reader(data)
    fields = reader.envelope()
    reader.end()
    return fields


def read_body(data: bytes, extended: bool) -> Body:
    reader = _Reader(data)
    body = reader.body(extended)
    reader.end()
    return body


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def at(self, token: bytes) -> bool:
        return self.data.startswith(token, self.position)

    def take(self, token: bytes) -> None:
        assert self.at(token), (token, self.data[self.position : self.position + 40])
        self.position += len(token)

    def end(self) -> None:
        assert self.position == len(self.data), self.data[self.position :]

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        match = pattern.match(self.data, self.position)
        assert match is not None, (pattern, self.data[self.position : self.position + 40])
        self.position = match.end()
        return match

    def number(self) -> int:
        number = int(self.match(_NUMBER)[0])
        assert number < 1 << 32
        return number

    def string(self) -> bytes:
        if self.at(b"{"):
            length = int(self.match(_LITERAL)[1])
            value = self.data[self.position : self.position + length]
            assert len(value) == length
            assert b"\0" not in value
            self.position += length
            return value
        return re.sub(rb"\\(.)", rb"\1", self.match(_QUOTED)[1])

    def nstring(self) -> bytes | None:
        if self.at(b"NIL"):
            self.take(b"NIL")
            return None
        return self.string()

    # Envelope

    def envelope(self) -> tuple[Any, ...]:
        self.take(b"(")
        fields: list[Any] = [self.nstring()]
        self.take(b" ")
        fields.append(self.nstring())
        for _ in range(6):
            self.take(b" ")
            fields.append(self.addresses())
        for _ in range(2):
            self.take(b" ")
            fields.append(self.nstring())
        self.take(b")")
        return tuple(fields)

    def addresses(self) -> tuple[tuple[bytes | None, ...], ...] | None:
        if self.at(b"NIL"):
            self.take(b"NIL")
            return None
        self.take(b"(")
        found = []
        while not self.at(b")"):
            self.take(b"(")
            entry = [self.nstring()]
            for _ in range(3):
                self.take(b" ")
                entry.append(self.nstring())
            self.take(b")")
            found.append(tuple(entry))
        self.take(b")")
        assert found, "an empty list is NIL"
        return tuple(found)

    # Body

    def body(self, extended: bool) -> Body:
        self.take(b"(")
        body = self.several(extended) if self.at(b"(") else self.one(extended)
        self.take(b")")
        return body

    def several(self, extended: bool) -> Body:
        children = []
        while self.at(b"("):
            children.append(self.body(extended))
        self.take(b" ")
        body = Body(b"multipart", self.string(), tuple(children))
        if not extended:
            return body
        self.take(b" ")
        parameters = self.parameters()
        return body._replace(parameters=parameters, extension=(None, *self.extension()))

    def one(self, extended: bool) -> Body:
        words: list[Any] = [self.string()]
        self.take(b" ")
        words.append(self.string())
        self.take(b" ")
        parameters = self.parameters()
        self.take(b" ")
        identifier = self.nstring()
        self.take(b" ")
        description = self.nstring()
        self.take(b" ")
        encoding = self.string()
        self.take(b" ")
        octets = self.number()
        lines, envelope, message = None, None, None
        kind = (words[0].lower(), words[1].lower())
        if kind == (b"message", b"rfc822"):
            self.take(b" ")
            envelope = self.envelope()
            self.take(b" ")
            message = self.body(extended)
        if kind[0] == b"text" or message is not None:
            self.take(b" ")
            lines = self.number()
        extension: tuple[Any, ...] = ()
        if extended:
            self.take(b" ")
            extension = (self.nstring(), *self.extension())
        return Body(
            *words,
            (),
            parameters,
            identifier,
            description,
            encoding,
            octets,
            lines,
            envelope,
            message,
            extension,
        )

    def parameters(self) -> tuple[tuple[bytes, bytes], ...] | None:
        if self.at(b"NIL"):
            self.take(b"NIL")
            return None
        self.take(b"(")
        found = []
        while True:
            name = self.string()
            self.take(b" ")
            found.append((name, self.string()))
            if self.at(b")"):
                break
            self.take(b" ")
        self.take(b")")
        return tuple(found)

    def extension(self) -> tuple[Any, Any, Any]:
        """Disposition, language, location."""
        disposition: tuple[bytes, Any] | None = None
        self.take(b" ")
        if self.at(b"NIL"):
            self.take(b"NIL")
        else:
            self.take(b"(")
            name = self.string()
            self.take(b" ")
            disposition = (name, self.parameters())
            self.take(b")")
        self.take(b" ")
        language: Any
        if self.at(b"("):
            self.take(b"(")
            tags = [self.string()]
            while self.at(b" "):
                self.take(b" ")
                tags.append(self.string())
            self.take(b")")
            language = tuple(tags)
        else:
            language = self.nstring()
        self.take(b" ")
        return disposition, language, self.nstring()
