"""What the server says, encoder by encoder, and that what it says can be read."""

from __future__ import annotations

import re
from array import array
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap import responses
from mailplat.imap.commands import Item
from mailplat.imap.grammar import Cursor
from mailplat.imap.responses import RowRenderer
from mailplat.message.compose import InternalDates
from mailplat.uids import NOTHING, UIDSet
from mailplat.values import FIRST_KEYWORD, MAX_KEYWORDS, SYSTEM_FLAGS, Columns, MailboxInfo


class Keywords:
    """As much of a mailbox as a renderer asks for."""

    def __init__(self, *keywords: str) -> None:
        self.keywords = list(keywords)


class StatusTests(SynchronousTestCase):
    def test_tagged(self) -> None:
        for arguments, said in (
            ((b"a", b"OK", "Done well"), b"a OK Done well\r\n"),
            ((b"a", b"NO", "no", b"LIMIT"), b"a NO [LIMIT] no\r\n"),
            ((b"*", b"BYE", "bye"), b"* BYE bye\r\n"),
            # Whatever the text: one line of ASCII, and not empty.
            ((b"a", b"NO", "x\r\nb OK y"), b"a NO x  b OK y\r\n"),
            ((b"a", b"NO", "Grüße"), b"a NO Gr??e\r\n"),
            ((b"a", b"NO", ""), b"a NO Done\r\n"),
        ):
            self.assertEqual(responses.tagged(*arguments), said)

    def test_numbers(self) -> None:
        self.assertEqual(responses.number(5, b"EXISTS"), b"* 5 EXISTS\r\n")
        self.assertEqual(responses.expunges([5, 2]), b"* 5 EXPUNGE\r\n* 2 EXPUNGE\r\n")
        self.assertEqual(responses.expunges(array("I")), b"")

    def test_permanent_flags(self) -> None:
        self.assertEqual(
            responses.permanent_flags(["Work"], False),
            b"* OK [PERMANENTFLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft Work \\*)] "
            b"Flags that are kept\r\n",
        )
        self.assertIn(b"[PERMANENTFLAGS ()]", responses.permanent_flags(["Work"], True))
        # No more can be made: then it is not said that they can (RFC 3501 §7.1).
        full = [f"k{number}" for number in range(MAX_KEYWORDS)]
        self.assertNotIn(b"\\*", responses.permanent_flags(full, False))

    def test_listed(self) -> None:
        for info, children, said in (
            (MailboxInfo("INBOX"), False, b'(\\HasNoChildren) "/" INBOX'),
            (MailboxInfo("a b", special_use="\\Sent"), True, b'(\\HasChildren \\Sent) "/" "a b"'),
            (MailboxInfo("a", selectable=False), True, b'(\\Noselect \\HasChildren) "/" a'),
            (MailboxInfo("a", exists=False), False, b'(\\Noselect \\HasNoChildren) "/" a'),
            (MailboxInfo("NIL"), False, b'(\\HasNoChildren) "/" "NIL"'),
            (MailboxInfo("ü&"), False, b'(\\HasNoChildren) "/" &APw-&-'),
            (MailboxInfo('"'), False, b'(\\HasNoChildren) "/" "\\""'),
        ):
            self.assertEqual(responses.listed(b"LIST", info, children), b"* LIST " + said + b"\r\n")

    @given(st.text(max_size=10))
    def test_any_name_is_read_again(self, name: str) -> None:
        if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", name) or name[:5].upper() == "INBOX":
            return
        line = responses.status(name, [("MESSAGES", 1)])
        cursor = Cursor(line[: -len(" (MESSAGES 1)\r\n")], (), len("* STATUS "))
        self.assertEqual(cursor.mailbox(), name)
        self.assertTrue(cursor.at_end)


class SearchTests(SynchronousTestCase):
    def test_plain(self) -> None:
        for words, modseq, said in (
            (b"", None, b"* SEARCH\r\n"),
            (b"", 7, b"* SEARCH\r\n"),
            (b" 1 5", None, b"* SEARCH 1 5\r\n"),
            (b" 1", 7, b"* SEARCH 1 (MODSEQ 7)\r\n"),
        ):
            self.assertEqual(responses.searched(words, modseq), said)

    @given(
        st.integers(1, 5000) | st.integers(2**32 - 5000, 2**32 - 3001),
        st.integers(1, 3000),
        st.randoms(use_true_random=False),
    )
    def test_numbers_that_follow_each_other(self, first: int, length: int, random: Random) -> None:
        share = random.choice((0, 0.001, 0.5, 1))
        mask = bytes(random.random() < share for _ in range(length))
        numbers = range(first, first + length)
        wanted = "".join(f" {number}" for number, there in zip(numbers, mask, strict=True) if there)
        self.assertEqual(responses.number_words(numbers, mask), wanted.encode())

    @given(st.sets(st.integers(1, 2**32 - 1), min_size=1), st.randoms(use_true_random=False))
    def test_numbers_with_gaps(self, numbers: set[int], random: Random) -> None:
        ordered = array("I", sorted(numbers))
        mask = bytes(random.random() < 0.5 for _ in ordered)
        wanted = "".join(f" {number}" for number, there in zip(ordered, mask, strict=True) if there)
        self.assertEqual(responses.number_words(ordered, mask), wanted.encode())

    def test_extended(self) -> None:
        for numbers, returns, by_uid, modseq, said in (
            ([], {"ALL"}, False, 7, b""),
            ([], {"COUNT", "MIN"}, True, None, b" UID COUNT 0"),
            ([2, 3, 9], {"ALL"}, True, None, b" UID ALL 2:3,9"),
            ([2, 3, 9], {"MIN", "MAX", "COUNT"}, False, 8, b" MIN 2 MAX 9 COUNT 3 MODSEQ 8"),
        ):
            found = responses.esearched(b"t", by_uid, array("I", numbers), frozenset(returns), modseq)
            self.assertEqual(found, b'* ESEARCH (TAG "t")' + said + b"\r\n")


def columns(*rows: tuple[int, int, int, int, int]) -> Columns:
    return Columns.of(rows)


class RowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mailbox = Keywords("Work")
        self.renderer = RowRenderer(self.mailbox, InternalDates())

    def test_each_item(self) -> None:
        rows = columns((3, 1, 9, 100, 0), (5, 2 | 1 << FIRST_KEYWORD, 10, 200, 86399))
        for kind, first, second in (
            (Item.UID, b"UID 3", b"UID 5"),
            (Item.FLAGS, b"FLAGS (\\Seen)", b"FLAGS (\\Recent \\Answered Work)"),
            (Item.SIZE, b"RFC822.SIZE 100", b"RFC822.SIZE 200"),
            (Item.MODSEQ, b"MODSEQ (9)", b"MODSEQ (10)"),
            (
                Item.INTERNALDATE,
                b'INTERNALDATE " 1-Jan-1970 00:00:00 +0000"',
                b'INTERNALDATE " 1-Jan-1970 23:59:59 +0000"',
            ),
        ):
            lines = self.renderer.lines([1, 2], rows, [kind], UIDSet.of([5]))
            self.assertEqual(lines, b"* 1 FETCH (%b)\r\n* 2 FETCH (%b)\r\n" % (first, second))
            fields = self.renderer.fields(rows, [kind], UIDSet.of([5]))
            self.assertEqual(fields, [[first], [second]])

    def test_nothing(self) -> None:
        self.assertEqual(self.renderer.lines([], columns(), [Item.UID], NOTHING), b"")
        self.assertEqual(self.renderer.fields(columns((1, 0, 1, 1, 1)), [], NOTHING), [[]])

    def test_no_flags(self) -> None:
        row = columns((1, 0, 1, 1, 1))
        self.assertEqual(self.renderer.lines([1], row, [Item.FLAGS], NOTHING), b"* 1 FETCH (FLAGS ())\r\n")

    def test_a_keyword_that_comes_later(self) -> None:
        """Stores may have their list grow, or have another one."""
        row = columns((1, 1 << FIRST_KEYWORD + 1, 1, 1, 1))
        self.assertIn(b"FLAGS ()", self.renderer.lines([1], row, [Item.FLAGS], NOTHING))
        self.mailbox.keywords = ["Work", "later"]
        self.assertIn(b"FLAGS (later)", self.renderer.lines([1], row, [Item.FLAGS], NOTHING))

    def test_more_keywords_than_a_word_has_bits(self) -> None:
        self.mailbox.keywords = [f"k{number}" for number in range(100)]
        rows = columns((1, 1 << FIRST_KEYWORD + 99 | 1, 1, 1, 1), (2, 1, 1, 1, 1))
        self.assertEqual(
            self.renderer.lines([1, 2], rows, [Item.FLAGS], NOTHING),
            b"* 1 FETCH (FLAGS (\\Seen k99))\r\n* 2 FETCH (FLAGS (\\Seen))\r\n",
        )

    def test_all_have_the_same_flags(self) -> None:
        self.mailbox.keywords = ["100%", "%d"]
        rows = columns(*((uid, 3 << FIRST_KEYWORD, 1, 1, 7) for uid in (8, 9)))
        self.assertEqual(
            self.renderer.lines([1, 2], rows, [Item.UID, Item.FLAGS, Item.SIZE], NOTHING),
            b"* 1 FETCH (UID 8 FLAGS (100% %d) RFC822.SIZE 1)\r\n"
            b"* 2 FETCH (UID 9 FLAGS (100% %d) RFC822.SIZE 1)\r\n",
        )
        self.assertEqual(self.renderer.lines([], columns(), [Item.FLAGS, Item.UID], NOTHING), b"")

    @given(st.lists(st.tuples(st.integers(0, 63), st.booleans()), max_size=20))
    def test_flags_are_what_they_are(self, rows: list[tuple[int, bool]]) -> None:
        made = Columns.of((uid, word, 1, 1, 1) for uid, (word, _) in enumerate(rows, 1))
        recent = UIDSet.of(uid for uid, (_, new) in enumerate(rows, 1) if new)
        lines = self.renderer.lines(range(1, len(rows) + 1), made, [Item.FLAGS], recent)
        names = (*SYSTEM_FLAGS, "Work")
        told: list[Any] = re.findall(rb"FLAGS \((.*)\)\)", lines)
        for text, (word, new) in zip(told, rows, strict=True):
            expected = {name for bit, name in enumerate(names) if word >> bit & 1}
            self.assertEqual(set(text.decode().split()), expected | ({"\\Recent"} if new else set()))
