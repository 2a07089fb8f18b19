"""HEADER.FIELDS of large headers is what it is of small ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap.reading import PIECE
from mailplat.imap.subset import LONG, FieldFilter
from mailplat.message.sections import select_fields
from tests.imap.support import Server

NAMES = frozenset({b"subject", b"to"})

LINES = st.sampled_from(
    [
        *(b"Subject: x\r\n", b"SUBJECT : y\r\n", b"To:\r\n", b"From: z\r\n", b" folded\r\n", b"\tfolded\r\n"),
        *(b"no colon\r\n", b"subject\r\n", b": nameless\r\n", b"To: bare\n", b" \r\n", b"To: " + b"x" * LONG),
        *(b"From: " + b"x" * LONG, b" " + b"y" * LONG, b"\r\n", b"\n", b"To: without an end"),
    ]
)


class FilterTests(SynchronousTestCase):
    @given(st.lists(LINES, max_size=12).map(b"".join), st.integers(1, 3 * LONG), st.booleans())
    def test_in_pieces_as_whole(self, header: bytes, step: int, negate: bool) -> None:
        fields = FieldFilter(NAMES, negate)
        step = max(step, len(header) // 500)
        pieces = [fields.feed(header[start : start + step]) for start in range(0, len(header), step)]
        self.assertEqual(b"".join(pieces) + fields.finish(), select_fields(header, NAMES, negate))

    def test_octet_by_octet(self) -> None:
        header = b"Subject: a\r\n b\r\nFrom: c\r\nTo: d\r\n\r\n"
        fields = FieldFilter(NAMES, False)
        pieces = [fields.feed(header[index : index + 1]) for index in range(len(header))]
        self.assertEqual(b"".join(pieces) + fields.finish(), b"Subject: a\r\n b\r\nTo: d\r\n\r\n")


class FetchTests(SynchronousTestCase):
    """A header of some megabytes, with what is asked for at its end."""

    def setUp(self) -> None:
        filler = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 1000) for number in range(3000))
        self.header = b"Subject: first\r\n" + filler + b"To: last\r\n folded\r\n"
        self.client = Server(self.header + b"\r\nbody\r\n").client()

    def test_fields(self) -> None:
        answer = self.client("FETCH 1 BODY.PEEK[HEADER.FIELDS (TO SUBJECT)]")
        size = len("Subject: first\r\nTo: last\r\n folded\r\n\r\n")
        begin = f"* 1 FETCH (BODY[HEADER.FIELDS (TO SUBJECT)] {{{size}}}"
        self.assertEqual(answer[:-1], [begin, "Subject: first", "To: last", " folded", "", ")"])

    def test_partial(self) -> None:
        answer = self.client("FETCH 1 BODY.PEEK[HEADER.FIELDS (TO)]<4.6>")
        self.assertEqual(answer[:-1], ["* 1 FETCH (BODY[HEADER.FIELDS (TO)]<4> {6}", "last", ")"])
        answer = self.client("FETCH 1 BODY.PEEK[HEADER.FIELDS (TO)]<1000.6>")
        self.assertEqual(answer[:-1], ["* 1 FETCH (BODY[HEADER.FIELDS (TO)]<1000> {0}", ")"])

    def test_all_but_some(self) -> None:
        answer = self.client("FETCH 1 BODY.PEEK[HEADER.FIELDS.NOT (TO)]")
        size = len(self.header) - len("To: last\r\n folded\r\n") + 2
        self.assertEqual(answer[0], f"* 1 FETCH (BODY[HEADER.FIELDS.NOT (TO)] {{{size}}}")
        self.assertEqual(sum(len(line) + 2 for line in answer[1:-2]), size)
        self.assertLessEqual(self.client.wire.most_undrained, 2 * PIECE)

    def test_nothing_but_header(self) -> None:
        client = Server(self.header + b"To: no end").client()
        answer = client("FETCH 1 BODY.PEEK[HEADER.FIELDS (TO)]")
        self.assertEqual(answer[1:-1], ["To: last", " folded", "To: no end", "", ")"])
