"""The record: there and back, other versions, and damage of every kind."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.message import outline
from mailplat.message.outline import (
    LEAF,
    MESSAGE,
    MULTIPART,
    VERSION,
    BadRecord,
    Outline,
    Part,
    packed,
    packed_part,
)
from mailplat.message.structure import Scanner
from mailplat.testing import corpus
from tests.message import trees


def record_of(message: bytes) -> bytes:
    scanner = Scanner()
    scanner.feed(message)
    return scanner.record()


WORDS = st.text("abcxyz-\xe4", max_size=12)
PARAMETERS = st.lists(st.tuples(st.binary(max_size=10), st.binary(max_size=300)), max_size=3).map(tuple)


@st.composite
def parts(draw: st.DrawFn, depth: int = 3) -> Part:
    """A part whose offsets are in order, and within 100."""
    offsets = sorted(draw(st.tuples(*[st.integers(0, 100)] * 3)))
    children: tuple[Part, ...] = ()
    message = None
    if depth:
        kind = draw(st.integers(0, 2))
        if kind == 1:
            children = tuple(draw(st.lists(parts(depth - 1), min_size=1, max_size=3)))
        elif kind == 2:
            message = draw(parts(depth - 1))
    words = [draw(WORDS) for _ in range(4)]
    return Part(
        words[0],
        words[1],
        draw(PARAMETERS),
        words[2],
        words[3],
        *offsets,
        draw(st.integers(0, 1 << 31)),
        children,
        message,
    )


RENDERED = st.binary(max_size=30)


class RecordTests(SynchronousTestCase):
    @given(RENDERED, RENDERED, RENDERED, parts())
    def test_there_and_back(self, envelope: bytes, body: bytes, structure: bytes, root: Part) -> None:
        root = replace(root, header_start=0, body_end=100)
        written = Outline(root.body_start, 100, envelope, body, structure, root)
        record = written.to_bytes()
        self.assertEqual(Outline.from_bytes(record), written)
        for form, expected in enumerate((envelope, body, structure)):
            self.assertEqual(outline.rendered(record, form), expected)
        self.assertEqual(outline.header_size(record), root.body_start)
        self.assertEqual(record[0], VERSION)

    @given(trees.TREES)
    def test_what_a_scanner_writes(self, tree: trees.Node) -> None:
        record = record_of(trees.write(tree).octets)
        self.assertEqual(Outline.from_bytes(record).to_bytes(), record)

    @given(st.lists(st.tuples(RENDERED, RENDERED, RENDERED), min_size=1), st.permutations(range(3)))
    def test_many_at_once(self, written: list[tuple[bytes, bytes, bytes]], forms: list[int]) -> None:
        root = Part("text", "plain", (), "7bit", "", 0, 0, 0, 0)
        records = [Outline(0, 0, *each, root).to_bytes() for each in written]
        expected = [[each[form] for each in written] for form in forms]
        self.assertEqual(outline.rendered_many(records, forms), expected)

    def test_corpus(self) -> None:
        for name in corpus.NAMES:
            record = record_of(corpus.message(name))
            self.assertEqual(Outline.from_bytes(record).to_bytes(), record)

    def test_large_numbers(self) -> None:
        """A message larger than 4 GiB: sizes and offsets do not wrap."""
        size = 1 << 40
        root = Part("text", "plain", (), "7bit", "", 0, 100, size, 1 << 31)
        written = Outline(100, size, b"", b"", b"", root)
        self.assertEqual(Outline.from_bytes(written.to_bytes()), written)

    def test_words_are_cut(self) -> None:
        """What a hand-made part says too long or not in Latin 1 is kept as far as there is room."""
        root = Part("t" * 300, "€", (), "7bit", "", 0, 0, 0, 0)
        back = Outline.from_bytes(Outline(0, 0, b"", b"", b"", root).to_bytes()).root
        self.assertEqual((back.type, back.subtype), ("t" * 255, "?"))

    def test_deep_and_wide(self) -> None:
        """No recursion in either direction."""
        part = Part("text", "plain", (), "7bit", "", 0, 0, 0, 0)
        for _ in range(5000):
            part = Part("multipart", "mixed", (), "7bit", "", 0, 0, 0, 0, (part,))
        record = Outline(0, 0, b"", b"", b"", part).to_bytes()
        self.assertEqual(Outline.from_bytes(record).to_bytes(), record)
        wide = Part("multipart", "mixed", (), "7bit", "", 0, 0, 0, 0, (part.children[0],) * 3)
        record = Outline(0, 0, b"", b"", b"", wide).to_bytes()
        self.assertEqual(len(Outline.from_bytes(record).root.children), 3)

    def test_lines(self) -> None:
        self.assertEqual(Outline.from_bytes(record_of(b"\r\na\r\nb\r\n")).lines, 2)


READERS = (
    Outline.from_bytes,
    *(partial(outline.rendered, form=form) for form in range(3)),
    lambda record: outline.rendered_many([record_of(b"\r\n"), record], [outline.BODY]),
    lambda record: outline.rendered_many([record], range(3)),
    outline.header_size,
)


class DamageTests(SynchronousTestCase):
    def test_other_versions(self) -> None:
        record = record_of(corpus.message("forwarded"))
        for version in (0, VERSION + 1, 255):
            for read in READERS:
                with self.assertRaises(BadRecord):
                    read(bytes([version]) + record[1:])

    def test_nothing(self) -> None:
        for read in READERS:
            for record in (b"", b"\x01", b"\x01" * 10):
                with self.assertRaises(BadRecord):
                    read(record)

    def test_contradictions(self) -> None:
        """Kinds that do not go with their children, offsets out of order or outside."""
        leaf = self.part(LEAF, 0)
        self.assertEqual(Outline.from_bytes(self.record(leaf)).root.type, "text")
        for tree in (
            b"",
            self.part(MESSAGE, 0),
            self.part(MULTIPART, 0),
            self.part(MULTIPART, 1),
            leaf + leaf,
            leaf + self.part(LEAF, 1),
            leaf + leaf + self.part(MESSAGE, 2),
            leaf + self.part(7, 1),
            self.part(LEAF, 0, (0, 5, 4)),
            self.part(LEAF, 0, (6, 5, 9)),
            self.part(LEAF, 0, (0, 5, 10)),
            self.part(LEAF, 0, (1, 5, 9)),
            self.part(LEAF, 0, (0, 4, 9)),
            self.part(LEAF, 0, (0, 5, 8)),
        ):
            with self.assertRaises(BadRecord):
                Outline.from_bytes(self.record(tree))

    @staticmethod
    def part(kind: int, children: int, offsets: tuple[int, int, int] = (0, 5, 9)) -> bytes:
        return packed_part(kind, children, (*offsets, 0), (b"text", b"plain", b"7bit", b""), ())

    @staticmethod
    def record(tree: bytes) -> bytes:
        return packed(5, 9, b"", b"", b"", tree)

    def test_cut_off(self) -> None:
        record = record_of(corpus.message("forwarded"))
        for end in range(len(record)):
            with self.assertRaises(BadRecord):
                Outline.from_bytes(record[:end])

    def test_many_of_which_one_is_cut_off(self) -> None:
        record = record_of(corpus.message("forwarded"))
        whole = [outline.rendered(record, form) for form in range(3)]
        end = len(record) - len(record.partition(whole[2])[2])
        self.assertEqual(outline.rendered_many([record[:end]], range(3)), [[form] for form in whole])
        with self.assertRaises(BadRecord):
            outline.rendered_many([record, record[: end - 1], record], [outline.BODYSTRUCTURE])

    def test_too_long(self) -> None:
        record = record_of(corpus.message("basic"))
        for more in (b"\0", b"x" * 200, record[-40:]):
            with self.assertRaises(BadRecord):
                Outline.from_bytes(record + more)

    @given(st.data())
    def test_altered(self, data: st.DataObject) -> None:
        """An octet that is not what it was: an outline all the same, or BadRecord; nothing else."""
        record = bytearray(
            record_of(corpus.message(data.draw(st.sampled_from(("basic", "forwarded", "empty")))))
        )
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
        try:
            read = Outline.from_bytes(bytes(record))
        except BadRecord:
            return
        pending = [read.root]
        while pending:
            part = pending.pop()
            self.assertTrue(part.header_start <= part.body_start <= part.body_end <= read.size)
            pending += part.children
            pending += [part.message] if part.message else []

    @given(st.binary(max_size=300))
    def test_garbage(self, octets: bytes) -> None:
        for read in READERS:
            for record in (octets, bytes([VERSION]) + octets):
                with contextlib.suppress(BadRecord):
                    read(record)
