"""The small words of IMAP: read, printed, and both one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from time import thread_time

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap import grammar
from mailplat.imap.grammar import Cursor, Malformed, SequenceSet, decode_mailbox, encode_mailbox
from mailplat.uids import LARGEST, NOTHING, UIDSet


class Cases(SynchronousTestCase):
    def refused(self, read: Callable[[Cursor], object], *texts: bytes) -> None:
        """None of `texts` is read whole."""
        for text in texts:
            with self.subTest(text=text):
                cursor = Cursor(text)
                try:
                    value = read(cursor)
                except Malformed:
                    continue
                self.assertFalse(cursor.at_end, f"read as {value!r}")


class StringTests(Cases):
    def test_quoted(self) -> None:
        cursor = Cursor(rb'"" "a b" "say \"hi\" \\ x" rest')
        self.assertEqual(cursor.string("Text"), b"")
        cursor.space()
        self.assertEqual(cursor.string("Text"), b"a b")
        cursor.space()
        self.assertEqual(cursor.string("Text"), b'say "hi" \\ x')
        self.assertEqual(cursor.rest, b" rest")

    def test_no_quoted(self) -> None:
        self.refused(
            lambda cursor: cursor.string("Text"),
            b"",
            b'"',
            b'"abc',
            rb'"abc\"',
            rb'"a\bc"',
            b'"\xc3\xa4"',
            b'"a\rb"',
            b'"a\nb"',
            b"abc",
            b"'a'",
        )

    def test_literal(self) -> None:
        cursor = Cursor(b"\0 \0", (b"\xff{}\r\n", b"x"))
        self.assertEqual(cursor.astring("Text"), b"\xff{}\r\n")
        cursor.space()
        self.assertEqual(cursor.string("Text"), b"x")
        cursor.end()

    def test_nul_in_a_literal(self) -> None:
        self.assertRaises(Malformed, Cursor(b"\0", (b"a\0b",)).string, "Text")

    def test_astring(self) -> None:
        for text in (b"a", b"a]b", b"{", b"a+b", b"}"):
            cursor = Cursor(text)
            if text == b"{":
                self.assertRaises(Malformed, cursor.astring, "Text")
            else:
                self.assertEqual(cursor.astring("Text"), text)
        self.refused(
            lambda cursor: cursor.astring("x"), b"", b"(", b"a(", b"a*", b"a%", b"a\\", b"a\x7f", b"\t"
        )

    def test_atom(self) -> None:
        self.assertEqual(Cursor(b"a+b[c").atom("x"), b"a+b[c")
        self.refused(lambda cursor: cursor.atom("x"), b"", b"a]", b'a"', b"a b", b"a{", b"a)", b"\xe4")

    def test_tag(self) -> None:
        self.assertEqual(Cursor(b"A1.]").tag(), b"A1.]")
        self.refused(lambda cursor: cursor.tag(), b"", b"+", b"a+", b"*", b"a*", b"a(")

    def test_nstring(self) -> None:
        self.assertIsNone(Cursor(b"nil").nstring("x"))
        self.assertEqual(Cursor(b'"NIL"').nstring("x"), b"NIL")
        self.refused(lambda cursor: cursor.nstring("x"), b"nix", b"")

    def test_leading_tag(self) -> None:
        for text, tag in (
            (b"a1 \xff", b"a1"),
            (b"a1", b"a1"),
            (b"a1\r\n", b"a1"),
            (b"a1\xff x", b"*"),
            (b"", b"*"),
            (b" a", b"*"),
            (b"+ x", b"*"),
        ):
            self.assertEqual(grammar.leading_tag(text), tag)

    def test_printed(self) -> None:
        self.assertEqual(grammar.string(b""), b'""')
        self.assertEqual(grammar.string(b'a"b\\'), rb'"a\"b\\"')
        self.assertEqual(grammar.string(b"\xc3\xa4"), b"{2}\r\n\xc3\xa4")
        self.assertEqual(grammar.string(b"a\r\nb"), b"{4}\r\na\r\nb")
        self.assertEqual(grammar.string(b"x" * 2000), b"{2000}\r\n" + b"x" * 2000)
        self.assertEqual(grammar.string(b"\0"), b"{1}\r\n\x80")
        self.assertEqual(grammar.nstring(None), b"NIL")
        self.assertEqual(grammar.nstring(b"NIL"), b'"NIL"')
        self.assertEqual(grammar.astring(b"abc"), b"abc")
        self.assertEqual(grammar.astring(b"nil"), b'"nil"')
        self.assertEqual(grammar.astring(b""), b'""')
        self.assertEqual(grammar.astring(b"a b"), b'"a b"')

    @given(st.binary(max_size=50) | st.text(st.characters(max_codepoint=127), max_size=50).map(str.encode))
    def test_printed_strings_are_read_again(self, text: bytes) -> None:
        expected = text.replace(b"\0", b"\x80")
        for print_it in (grammar.string, grammar.astring, grammar.nstring):
            printed = print_it(text)
            if printed.startswith(b"{"):
                head, _, octets = printed.partition(b"\r\n")
                self.assertEqual(int(head[1:-1]), len(octets))
                self.assertEqual(octets, expected)
            else:
                cursor = Cursor(printed)
                self.assertEqual(cursor.astring("Text"), text)
                cursor.end()


class NumberTests(Cases):
    def test_numbers(self) -> None:
        self.assertEqual(Cursor(b"0").number("n"), 0)
        self.assertEqual(Cursor(b"0017").number("n"), 17)
        self.assertEqual(Cursor(b"4294967295").number("n"), LARGEST)
        self.assertEqual(Cursor(b"9223372036854775807").number("n", grammar.LARGEST_MODSEQ), 2**63 - 1)

    def test_no_numbers(self) -> None:
        self.refused(lambda c: c.number("n"), b"", b"-1", b"+1", b"1_0", b"4294967296", "\u0665".encode())
        self.refused(lambda c: c.number("n", least=1), b"0")
        self.refused(lambda c: c.number("n", grammar.LARGEST_MODSEQ), b"9223372036854775808", b"9" * 5000)


class SequenceSetTests(Cases):
    def read(self, text: bytes, most: int = 10_000) -> SequenceSet:
        cursor = Cursor(text)
        found = cursor.sequence_set(most)
        cursor.end()
        return found

    def test_sets(self) -> None:
        for text, star, runs in (
            (b"1", 9, "1"),
            (b"*", 9, "9"),
            (b"2:4", 9, "2:4"),
            (b"4:2", 9, "2:4"),
            (b"2,4:7,9,12:*", 15, "2,4:7,9,12:15"),  # the example of RFC 3501 §9
            (b"*:4,5:7", 10, "4:10"),
            (b"12:*", 9, "9:12"),  # as `*:12`: the order does not matter
            (b"1:*", 9, "1:9"),
            (b"*:*", 9, "9"),
            (b"3,3,3", 9, "3"),
            (b"4294967295", 9, "4294967295"),
        ):
            self.assertEqual(str(self.read(text).resolve(star)), runs)
            self.assertEqual(self.read(text).resolve(star), UIDSet.parse(text.decode(), star))

    def test_nothing_is_the_largest(self) -> None:
        for text in (b"*", b"1:*", b"*:5", b"*:*"):
            self.assertEqual(self.read(text).resolve(0), NOTHING)
        self.assertEqual(self.read(b"3,7:*").resolve(0), UIDSet.parse("3"))

    def test_no_sets(self) -> None:
        self.refused(
            lambda cursor: cursor.sequence_set(100),
            b"",
            b"0",
            b"0:3",
            b"1:0",
            b"01",
            b"-1",
            b"1:",
            b":1",
            b"1,,2",
            b",1",
            b"1,",
            b"1:2:3",
            b"**",
            b"1*",
            b"a",
            b"1-2",
            b"1_0",
            b"4294967296",
            b"1:99999999999",
            b"$",
            b"(1)",
        )

    def test_ranges_are_limited(self) -> None:
        self.read(b"1,3,5", most=3)
        self.assertRaises(Malformed, self.read, b"1,3,5,7", 3)

    def test_three_thousand_ranges_are_quick(self) -> None:
        text = ",".join(f"{n}:{n + 2}" for n in range(100_000, 115_000, 5)).encode()
        self.assertEqual(text.count(b":"), 3000)
        best = 9.0
        for _ in range(5):
            started = thread_time()
            found = self.read(text).resolve(200_000)
            best = min(best, thread_time() - started)
        self.assertEqual(len(found), 9000)
        # Takes 2 ms; the margin is for a busy machine.
        self.assertLess(best, 0.02)

    number = st.integers(1, LARGEST).map(str) | st.just("*")

    @given(st.lists(st.tuples(number, number | st.none()), min_size=1, max_size=20), st.integers(1, LARGEST))
    def test_any_set(self, items: list[tuple[str, str | None]], star: int) -> None:
        text = ",".join(first if last is None else f"{first}:{last}" for first, last in items)
        found = self.read(text.encode())
        self.assertEqual(str(found), text)
        resolved = found.resolve(star)
        self.assertEqual(resolved, UIDSet.parse(text, star))
        self.assertEqual(SequenceSet(str(resolved)).resolve(star), resolved)


class FlagTests(Cases):
    def test_flags(self) -> None:
        self.assertEqual(Cursor(b"()").flag_list(), [])
        self.assertEqual(
            Cursor(rb"(\SEEN \answered $Forwarded \Custom)").flag_list(),
            ["\\Seen", "\\Answered", "$Forwarded", "\\Custom"],
        )
        self.assertEqual(Cursor(rb"\Seen junk").flags(), ["\\Seen", "junk"])
        self.assertEqual(Cursor(rb"(\Seen)").flags(), ["\\Seen"])

    def test_no_flags(self) -> None:
        self.refused(
            lambda cursor: cursor.flags(),
            b"",
            b"(",
            b"( )",
            rb"(\Seen",
            rb"(\Seen )",
            rb"( \Seen)",
            rb"(\Seen  a)",
            rb"(\)",
            rb"(\*)",
            rb"(a\b)",
            b"(a]b)",
            b'("a")',
            b"((a))",
            b"(\xe4)",
        )


class DateTests(Cases):
    def test_dates(self) -> None:
        for text in (b"1-Feb-1994", b'"1-feb-1994"', b"01-FEB-1994"):
            cursor = Cursor(text)
            self.assertEqual(cursor.date(), date(1994, 2, 1))
            cursor.end()

    def test_no_dates(self) -> None:
        self.refused(
            lambda cursor: cursor.date(),
            b"",
            b"30-Feb-1994",
            b"29-Feb-2023",
            b"0-Jan-1994",
            b"1-Foo-1994",
            b"1-Jan-94",
            b"1-Jan-0000",
            b'"1-Jan-1994',
            b'1-Jan-1994"',
            b"001-Jan-1994",
            b"1-Jan-19944",
        )

    def test_times(self) -> None:
        for text, seconds in (
            (b'"17-Jul-1996 02:44:25 -0700"', datetime(1996, 7, 17, 9, 44, 25, tzinfo=UTC).timestamp()),
            (b'" 1-Jan-1970 00:00:00 +0000"', 0),
            (b'"01-jan-1970 01:30:00 +0130"', 0),
            (b'"31-Dec-1969 23:59:59 +0000"', -1),
            (b'"31-Dec-1998 23:59:60 +0000"', datetime(1999, 1, 1, tzinfo=UTC).timestamp()),
        ):
            cursor = Cursor(text)
            self.assertEqual(cursor.date_time(), seconds)
            cursor.end()

    def test_no_times(self) -> None:
        self.refused(
            lambda cursor: cursor.date_time(),
            b"",
            b"17-Jul-1996 02:44:25 -0700",
            b'"17-Jul-1996 02:44:25"',
            b'"1-Jul-1996 02:44:25 +0000"',
            b'"17-Jul-1996 24:00:00 +0000"',
            b'"17-Jul-1996 02:60:00 +0000"',
            b'"17-Jul-1996 02:00:61 +0000"',
            b'"17-Jul-1996 02:00:00 +2400"',
            b'"17-Jul-1996 02:00:00 +0060"',
            b'"17-Jul-1996 02:00:00 0000"',
            b'"17-Jul-1996 02:00:00 GMT"',
            b'"31-Jun-1996 02:00:00 +0000"',
            b'"17-Jul-0000 02:00:00 +0000"',
            b'"01-Jan-0001 00:00:00 +0100"',
            b'"31-Dec-9999 23:00:00 -0200"',
            b'"  -Jul-1996 02:00:00 +0000"',
        )

    @given(
        st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)),
        st.integers(-1439, 1439),
    )
    def test_any_time(self, moment: datetime, zone: int) -> None:
        month = grammar.MONTHS[moment.month - 1]
        sign, offset = "-" if zone < 0 else "+", abs(zone)
        text = (
            f'"{moment.day:2}-{month}-{moment.year:04} {moment:%H:%M:%S} '
            f'{sign}{offset // 60:02}{offset % 60:02}"'
        )
        utc = (moment.replace(microsecond=0) - datetime(1970, 1, 1)).total_seconds() - zone * 60
        self.assertEqual(Cursor(text.encode()).date_time(), utc)


class MailboxTests(Cases):
    def test_names(self) -> None:
        for raw, name in (
            (b"INBOX", "INBOX"),
            (b"inBox", "INBOX"),
            (b"Inbox/a", "INBOX/a"),
            (b"inboxes", "inboxes"),
            (b"a/inbox", "a/inbox"),
            (b"", ""),
            (b"~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"),  # RFC 3501 §5.1.3
            (b"Entw&APw-rfe", "Entwürfe"),
            (b"a &- b", "a & b"),
            (b"&AOQ-&-", "ä&"),
            (b"&2D3eAA-", "\U0001f600"),
        ):
            self.assertEqual(decode_mailbox(raw), name)
            if name[:5] != "INBOX":
                self.assertEqual(encode_mailbox(name), raw)

    def test_no_names(self) -> None:
        for raw in (
            b"\xc3\xa4",
            b"a\x7f",
            b"a\tb",
            b"a\r\nb",
            b"&",
            b"a & b",
            b"&AOQ",
            b"&AOQ=-",
            b"&AOQ/-",
            b"&A-",  # a piece of a character
            b"&AGE-",  # "a" needs no shift
            b"&AOT-",  # bits left over
            b"&AOQ-&APY-",  # two shifts for one
            b"&2D0-",  # half a surrogate pair
            b"&AAA-",  # NUL
            b"&AAo-",  # LF
            b"&AIU-",  # NEL
            b"&-&",
        ):
            with self.subTest(raw=raw):
                self.assertRaises(Malformed, decode_mailbox, raw)

    def test_patterns(self) -> None:
        for text, pattern in (
            (b"*", "*"),
            (b"%/a*", "%/a*"),
            (b'"%"', "%"),
            (b"&AOQ-%", "ä%"),
            (b"a]", "a]"),
        ):
            cursor = Cursor(text)
            self.assertEqual(cursor.mailbox_pattern(), pattern)
            cursor.end()

    def test_printed(self) -> None:
        self.assertEqual(grammar.mailbox("Entwürfe"), b"Entw&APw-rfe")
        self.assertEqual(grammar.mailbox('a "b"'), rb'"a \"b\""')
        self.assertEqual(grammar.mailbox("\ud800"), b"&AD8-")

    @example("INBOXa")
    @example("inbox/a")
    @given(st.text(st.characters(exclude_categories=("Cc", "Cs"))))
    def test_any_name(self, name: str) -> None:
        first, separator, below = name.partition("/")
        # RFC 3501 §5.1: in any case, and it is a level of its own.
        first = "INBOX" if first.upper() == "INBOX" else first
        self.assertEqual(decode_mailbox(encode_mailbox(name)), first + separator + below)

    @settings(max_examples=300)
    @given(st.binary(max_size=20) | st.text("&-AOQ,/+ab\x7f", max_size=12).map(str.encode))
    def test_any_octets(self, raw: bytes) -> None:
        try:
            name = decode_mailbox(raw)
        except Malformed:
            return
        self.assertEqual(encode_mailbox(name).lower(), raw.lower())


READERS: list[Callable[[Cursor], object]] = [
    Cursor.tag,
    Cursor.date,
    Cursor.date_time,
    Cursor.flags,
    Cursor.mailbox,
    Cursor.mailbox_pattern,
    lambda cursor: cursor.sequence_set(100),
    lambda cursor: cursor.number("n"),
    lambda cursor: cursor.nstring("n"),
    lambda cursor: cursor.astring("n"),
]


class GarbageTests(SynchronousTestCase):
    @settings(max_examples=300)
    @given(st.binary(max_size=40).filter(lambda text: b"\0" not in text), st.sampled_from(READERS))
    def test_nothing_but_malformed(self, text: bytes, read: Callable[[Cursor], object]) -> None:
        cursor = Cursor(text)
        with contextlib.suppress(Malformed):
            read(cursor)
        self.assertLessEqual(cursor.at, len(text))

    def test_linear(self) -> None:
        size = 50_000
        for text in (
            b"1," * size,
            b"1:2:" * size,
            b'"' + b"\\" * (2 * size + 1),
            b'"' + b"a" * size,
            b"(" * size,
            b"(" + b"a " * size,
            b"(" + b"\\a " * size,
            b"&" * size,
            b"&A" * size,
            b"&-" * size,
            b"&AOQ-a" * size,
        ):
            started = thread_time()
            for read in READERS:
                with contextlib.suppress(Malformed):
                    read(Cursor(text))
            self.assertLess(thread_time() - started, 2, text[:10])
