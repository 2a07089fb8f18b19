"""Where sections lie, header subsets, and the text of parts."""

from __future__ import annotations

import base64
import itertools
import quopri

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.message.outline import Outline
from mailplat.message.sections import TextDecoder, decoded_text, find, locate, searchable, select_fields
from mailplat.message.structure import Scanner
from mailplat.testing import corpus
from tests.message import trees


def outline_of(message: bytes) -> Outline:
    scanner = Scanner()
    scanner.feed(message)
    return scanner.finish()


def section(
    message: bytes, path: tuple[int, ...], what: str | None = None, prefix: bytes = b""
) -> bytes | None:
    """The octets of a section of a copy."""
    copy = prefix + message
    ranges = locate(outline_of(message), len(prefix), len(copy), path, what)
    return None if ranges is None else b"".join(copy[start : start + length] for start, length in ranges)


class LocateTests(SynchronousTestCase):
    def check(self, message: bytes, cases: dict[tuple[tuple[int, ...], str | None], bytes | None]) -> None:
        for (path, what), expected in cases.items():
            with self.subTest(path=path, what=what):
                self.assertEqual(section(message, path, what), expected)

    def test_not_multipart(self) -> None:
        """RFC 3501 §6.4.5: part 1 of such a message is its text."""
        header, text = b"Subject: x\r\nTo: y\r\n\r\n", b"one\r\ntwo\r\n"
        self.check(
            header + text,
            {
                ((), None): header + text,
                ((), "HEADER"): header,
                ((), "TEXT"): text,
                ((), "MIME"): None,
                ((1,), None): text,
                ((1,), "MIME"): header,
                ((1,), "HEADER"): None,
                ((1,), "TEXT"): None,
                ((2,), None): None,
                ((0,), None): None,
                ((1, 1), None): None,
            },
        )

    def test_multipart(self) -> None:
        self.check(
            corpus.message("alternative"),
            {
                ((1,), None): b"plain",
                ((2,), None): b"<p>html</p>",
                ((2,), "MIME"): b"Content-Type: text/html; charset=us-ascii\r\n\r\n",
                ((1,), "HEADER"): None,
                ((1,), "TEXT"): None,
                ((3,), None): None,
                ((3,), "MIME"): None,
                ((1, 1), None): None,
                ((1, 2), "MIME"): None,
                ((0,), None): None,
            },
        )

    def test_embedded(self) -> None:
        message = corpus.message("forwarded")
        inner = corpus.message("alternative").removesuffix(b"\r\n")
        header, blank, text = inner.partition(b"\r\n\r\n")
        self.check(
            message,
            {
                ((2,), None): inner,
                ((2,), "MIME"): b"Content-Type: message/rfc822\r\n\r\n",
                ((2,), "HEADER"): header + blank,
                ((2,), "TEXT"): text,
                ((2, 1), None): b"plain",
                ((2, 2), None): b"<p>html</p>",
                ((2, 2), "MIME"): b"Content-Type: text/html; charset=us-ascii\r\n\r\n",
                ((2, 3), None): None,
                ((2, 1), "HEADER"): None,
                ((1,), None): b"look at this",
            },
        )

    def test_message_in_message(self) -> None:
        """A message that is nothing but another one, twice."""
        innermost = b"Subject: 3\r\n\r\nthree"
        middle = b"Subject: 2\r\nContent-Type: message/rfc822\r\n\r\n" + innermost
        self.check(
            b"Subject: 1\r\nContent-Type: message/rfc822\r\n\r\n" + middle,
            {
                ((1,), None): middle,
                ((1,), "HEADER"): b"Subject: 2\r\nContent-Type: message/rfc822\r\n\r\n",
                ((1,), "TEXT"): innermost,
                ((1, 1), None): innermost,
                ((1, 1), "HEADER"): b"Subject: 3\r\n\r\n",
                ((1, 1), "TEXT"): b"three",
                ((1, 1, 1), None): b"three",
                ((1, 1, 1), "MIME"): b"Subject: 3\r\n\r\n",
                ((1, 1, 1, 1), None): None,
            },
        )

    def test_prefix(self) -> None:
        """A copy's own lines are the start of its header, and move everything else."""
        message, prefix = corpus.message("alternative"), b"Return-Path: <a@b>\r\nDelivered-To: c@d\r\n"
        header, blank, text = message.partition(b"\r\n\r\n")
        self.assertEqual(section(message, (), None, prefix), prefix + message)
        self.assertEqual(section(message, (), "HEADER", prefix), prefix + header + blank)
        self.assertEqual(section(message, (), "TEXT", prefix), text)
        self.assertEqual(section(message, (2,), None, prefix), b"<p>html</p>")

    def test_prefix_of_a_message_that_is_no_multipart(self) -> None:
        message, prefix = b"Subject: x\r\n\r\ntext", b"Return-Path: <a@b>\r\n"
        self.assertEqual(section(message, (1,), "MIME", prefix), prefix + b"Subject: x\r\n\r\n")

    def test_empty_sections_are_there(self) -> None:
        self.check(b"Subject: x\r\n\r\n", {((), "TEXT"): b"", ((1,), None): b""})
        self.check(b"", {((), None): b"", ((), "HEADER"): b"", ((), "TEXT"): b"", ((1,), None): b""})
        self.check(
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno parts",
            {((1,), None): b"", ((1,), "MIME"): b"", ((2,), None): None, ((), "TEXT"): b"no parts"},
        )

    def test_a_copy_that_is_shorter_than_its_outline(self) -> None:
        """Ranges stay in the copy, whatever a store says of it."""
        outline = outline_of(corpus.message("forwarded"))
        for size in (0, 1, 200, 400):
            for path in ((), (1,), (2,), (2, 2)):
                for what in (None, "HEADER", "TEXT", "MIME"):
                    for start, length in locate(outline, 30, size, path, what) or ():
                        self.assertGreaterEqual(start, 0)
                        self.assertGreaterEqual(length, 0)
                        self.assertLessEqual(start + length, size)

    @given(trees.TREES, st.sampled_from((b"", b"Return-Path: <>\r\n")))
    def test_sections_are_what_was_put_in(self, tree: trees.Node, prefix: bytes) -> None:
        written = trees.write(tree)
        message = written.octets
        outline = outline_of(message)
        copy = prefix + message
        for path, what, octets in trees.sections(written):
            ranges = locate(outline, len(prefix), len(copy), path, what)
            self.assertIsNotNone(ranges, (path, what))
            found = b"".join(copy[start : start + length] for start, length in ranges or ())
            own = not path or (path == (1,) and what == "MIME" and find(outline.root, path) is outline.root)
            if own and what != "TEXT":
                octets = prefix + octets
            self.assertEqual(found, octets, (path, what))


class SelectFieldsTests(SynchronousTestCase):
    header = (
        b"Received: one\r\n\tfolded\r\nFrom: a\r\nreceived : two\r\n"
        b"To: b\r\n c\r\n \r\nX: d\r\nno colon\r\n\r\n"
    )

    def check(self, names: set[bytes], negate: bool, expected: bytes) -> None:
        chosen = select_fields(self.header, frozenset(names), negate)
        self.assertEqual(chosen, expected)

    def test_chosen(self) -> None:
        """As they stand, in their order, names without case, and a blank line (RFC 3501 §6.4.5)."""
        self.check({b"from"}, False, b"From: a\r\n\r\n")
        self.check({b"x", b"from"}, False, b"From: a\r\nX: d\r\n\r\n")
        self.check({b"received"}, False, b"Received: one\r\n\tfolded\r\nreceived : two\r\n\r\n")
        self.check({b"to"}, False, b"To: b\r\n c\r\n \r\n\r\n")
        self.check({b"subject"}, False, b"\r\n")
        self.check({b"fro"}, False, b"\r\n")
        self.check(set(), False, b"\r\n")

    def test_not_chosen(self) -> None:
        self.check({b"received", b"to"}, True, b"From: a\r\nX: d\r\nno colon\r\n\r\n")
        self.check(set(), True, self.header)
        self.check({b"received", b"from", b"to", b"x", b"no colon"}, True, b"\r\n")

    def test_the_text_is_not_looked_at(self) -> None:
        self.assertEqual(select_fields(b"A: 1\r\n\r\nA: 2\r\n", frozenset((b"a",)), False), b"A: 1\r\n\r\n")

    def test_unfinished(self) -> None:
        names = frozenset((b"a",))
        self.assertEqual(select_fields(b"A: 1", names, False), b"A: 1\r\n\r\n")
        self.assertEqual(select_fields(b"A: 1\r\n", names, False), b"A: 1\r\n\r\n")
        self.assertEqual(select_fields(b"", names, False), b"\r\n")
        self.assertEqual(select_fields(b"A: 1\n b\nB: 2\n\n", names, False), b"A: 1\n b\n\r\n")

    @given(st.binary(max_size=50) | st.text("A:b \t\r\n", max_size=30).map(str.encode))
    def test_anything(self, header: bytes) -> None:
        """Chosen and not chosen are all there is, once."""
        names = frozenset((b"a", b"b"))
        both = select_fields(header, names, False) + select_fields(header, names, True)
        self.assertLessEqual(len(both), len(header) + 8)
        self.assertTrue(both.endswith(b"\r\n"))


class SearchableTests(SynchronousTestCase):
    def texts(self, message: bytes, prefix: bytes = b"") -> list[tuple[bytes, bool]]:
        copy = prefix + message
        return [
            (copy[place.start : place.start + place.length], place.header)
            for place in searchable(outline_of(message), len(prefix))
        ]

    def test_text_parts(self) -> None:
        self.assertEqual(
            self.texts(corpus.message("alternative"), b"P: 1\r\n"),
            [(b"plain", False), (b"<p>html</p>", False)],
        )
        self.assertEqual(self.texts(corpus.message("attachment")), [(b"see the attachment", False)])
        self.assertEqual(self.texts(b"Content-Type: image/png\r\n\r\nx"), [])

    def test_embedded_headers(self) -> None:
        inner = corpus.message("alternative")
        self.assertEqual(
            self.texts(corpus.message("forwarded")),
            [
                (b"look at this", False),
                (inner[: inner.index(b"\r\n\r\n") + 4], True),
                (b"plain", False),
                (b"<p>html</p>", False),
            ],
        )

    def test_encoding_and_charset(self) -> None:
        [place] = searchable(outline_of(corpus.message("encoded")), 0)
        self.assertEqual((place.encoding, place.charset), ("quoted-printable", "utf-8"))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=60)


class DecodedTextTests(SynchronousTestCase):
    def test_encodings(self) -> None:
        cases = (
            (b"plain \xc3\xa4", "7bit", "", "plain ä"),
            (b"plain \xe4", "8bit", "", "plain ä"),
            (b"\xe4", "8bit", "us-ascii", "ä"),
            (b"\xa4", "8bit", "iso-8859-15", "€"),
            (b"=C3=A4=\r\nx=\r\n", "quoted-printable", "utf-8", "äx"),
            (b"a=zz=4", "quoted-printable", "", "a=zz=4"),
            (b"w6Q=", "base64", "utf-8", "ä"),
            (b"w6\r\n Q!", "base64", "utf-8", "ä"),
            (b"w", "base64", "utf-8", ""),
            (b"\x1b$B$3\x1b(B", "7bit", "iso-2022-jp", "こ"),
            (b"+AOQ-", "7bit", "utf-7", "ä"),
            (b"x", "x-unknown", "x-unknown", "x"),
            (b"\xff", "8bit", "utf-8", "�"),
            (b"", "base64", "", ""),
        )
        for raw, encoding, charset, text in cases:
            with self.subTest(raw=raw, encoding=encoding, charset=charset):
                self.assertEqual(decoded_text(raw, encoding, charset), text)

    @given(
        TEXT,
        st.sampled_from(("7bit", "base64", "quoted-printable")),
        st.lists(st.integers(0, 90), max_size=5),
    )
    def test_chunks(self, text: str, encoding: str, cuts: list[int]) -> None:
        """However the text was cut, it is the same."""
        raw = text.encode()
        if encoding == "base64":
            raw = base64.encodebytes(raw)
        elif encoding == "quoted-printable":
            raw = quopri.encodestring(raw)
        decoder = TextDecoder(encoding, "utf-8")
        places = [0, *sorted(cuts), len(raw)]
        pieces = [decoder.feed(raw[a:b]) for a, b in itertools.pairwise(places)]
        whole = "".join([*pieces, decoder.finish()])
        self.assertEqual(whole, text)
        self.assertEqual(whole, decoded_text(raw, encoding, "utf-8"))

    @given(
        st.binary(max_size=80),
        st.sampled_from(("7bit", "base64", "quoted-printable", "x")),
        st.sampled_from(
            ("", "utf-8", "us-ascii", "utf-16", "utf-7", "iso-2022-jp", "hz", "gb2312", "big5", "none")
        ),
    )
    def test_anything(self, raw: bytes, encoding: str, charset: str) -> None:
        decoded_text(raw, encoding, charset)
        decoder = TextDecoder(encoding, charset)
        for octet in raw:
            decoder.feed(bytes([octet]))
        decoder.finish()

    @given(st.text("aäß\n", max_size=12), st.sampled_from(("utf-8", "cp1252")), st.integers(1, 4))
    def test_unnamed_charset_in_chunks(self, text: str, charset: str, size: int) -> None:
        """The first character that is not ASCII tells UTF-8 from windows-1252, wherever it is cut."""
        raw = text.encode(charset)
        decoder = TextDecoder("8bit", "")
        pieces = [decoder.feed(raw[start : start + size]) for start in range(0, len(raw), size)]
        self.assertEqual("".join([*pieces, decoder.finish()]), text)

    def test_a_line_that_never_ends(self) -> None:
        """Memory does not grow with it."""
        decoder = TextDecoder("quoted-printable", "utf-8")
        text = "".join(decoder.feed(b"=C3=A4" * 1000) for _ in range(100)) + decoder.finish()
        self.assertEqual(text, "ä" * 100_000)
