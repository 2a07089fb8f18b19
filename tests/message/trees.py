"""
MIME trees for Hypothesis, written out as messages with CR LF, and what IMAP calls their sections.

Boundaries are as mean as may be: each is the beginning of those inside it, and lines that
begin with "--" are all over the texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

Path = tuple[int, ...]


@dataclass(frozen=True)
class Leaf:
    type: str
    header: bytes
    body: bytes


@dataclass(frozen=True)
class Multi:
    subtype: str
    header: bytes
    preamble: bytes
    children: tuple[Node, ...]
    epilogue: bytes


@dataclass(frozen=True)
class Embedded:
    header: bytes
    message: Node


Node = Leaf | Multi | Embedded


@dataclass(frozen=True)
class Written:
    """
    A node written out.

    Attributes:
        header: with its blank line.
        children: of a multipart, or the message inside.
    """

    node: Node
    header: bytes
    body: bytes
    children: tuple[Written, ...] = ()

    @property
    def octets(self) -> bytes:
        return self.header + self.body

    @property
    def type(self) -> str:
        if isinstance(self.node, Leaf):
            return self.node.type
        return f"multipart/{self.node.subtype}" if isinstance(self.node, Multi) else "message/rfc822"


def write(node: Node, depth: int = 0) -> Written:
    if isinstance(node, Leaf):
        header = node.header + b"Content-Type: %s\r\n\r\n" % node.type.encode()
        return Written(node, header, node.body)
    if isinstance(node, Embedded):
        message = write(node.message, depth)
        header = node.header + b"Content-Type: message/rfc822\r\n\r\n"
        return Written(node, header, message.octets, (message,))
    boundary = b"b" * (depth + 1)
    children = tuple(write(child, depth + 1) for child in node.children)
    header = node.header + b'Content-Type: multipart/%s; boundary="%s"\r\n\r\n' % (
        node.subtype.encode(),
        boundary,
    )
    delimiter = b"--" + boundary
    body = node.preamble
    for child in children:
        body += delimiter + b"\r\n" + child.octets + b"\r\n"
    return Written(node, header, body + delimiter + b"--" + node.epilogue, children)


def sections(message: Written) -> Iterator[tuple[Path, str | None, bytes]]:
    """Every section there is, as FETCH BODY[...] names it (RFC 3501 §6.4.5)."""
    yield (), None, message.octets
    yield from _message(message, ())


def _message(message: Written, path: Path) -> Iterator[tuple[Path, str | None, bytes]]:
    yield path, "HEADER", message.header
    yield path, "TEXT", message.body
    yield from _contents(message, path)


def _contents(container: Written, path: Path) -> Iterator[tuple[Path, str | None, bytes]]:
    if isinstance(container.node, Multi):
        for number, child in enumerate(container.children, 1):
            yield from _part(child, (*path, number))
    else:
        yield from _part(container, (*path, 1))


def _part(part: Written, path: Path) -> Iterator[tuple[Path, str | None, bytes]]:
    yield path, None, part.body
    yield path, "MIME", part.header
    if isinstance(part.node, Multi):
        yield from _contents(part, path)
    elif isinstance(part.node, Embedded):
        yield from _message(part.children[0], path)


LINES = st.lists(
    st.sampled_from(
        (
            b"",
            b"text",
            b"--",
            b"-",
            b"--x",
            b"--bx",
            b"--b-",
            b"b",
            b"--b--x",
            b"\xc3\xa4",
            b"x" * 300,
            b" --b",
        )
    ),
    max_size=5,
)
TEXTS = LINES.map(b"\r\n".join)

HEADERS = st.lists(
    st.sampled_from(
        (
            b"Subject: a subject\r\n",
            b"From: A <a@example.test>\r\n",
            b"X-Long: one\r\n two\r\n\tthree\r\n",
            b"X-8: \xc3\xa4\r\n",
            b"Content-Language: de, en\r\n",
            b"Content-ID: <a@b>\r\n",
            b'Content-Disposition: attachment; filename="a b"\r\n',
        )
    ),
    max_size=3,
    unique=True,
).map(b"".join)

LEAVES: st.SearchStrategy[Node] = st.builds(
    Leaf, st.sampled_from(("text/plain", "text/html", "image/png", "application/x-y")), HEADERS, TEXTS
)


def _grown(nodes: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    preambles = LINES.map(lambda lines: b"".join(line + b"\r\n" for line in lines))
    epilogues = LINES.map(lambda lines: b"".join(b"\r\n" + line for line in lines))
    several = st.lists(nodes, min_size=1, max_size=3).map(tuple)
    return st.builds(
        Multi, st.sampled_from(("mixed", "alternative", "digest")), HEADERS, preambles, several, epilogues
    ) | st.builds(Embedded, HEADERS, nodes)


#: Messages, as trees.
TREES: st.SearchStrategy[Node] = st.recursive(LEAVES, _grown, max_leaves=6)
