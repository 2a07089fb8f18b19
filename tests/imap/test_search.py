"""SEARCH through the text of messages that are read in pieces."""

from __future__ import annotations

import quopri
from base64 import encodebytes
from collections.abc import Callable, Coroutine, Sequence
from datetime import date
from itertools import product
from time import process_time
from typing import Any, TypeVar
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap import commands
from mailplat.imap.commands import (
    BodyContains,
    HeaderContains,
    Key,
    Not,
    Or,
    SubjectContains,
    TextContains,
    When,
)
from mailplat.imap.grammar import SequenceSet
from mailplat.imap.outlines import Outlines
from mailplat.imap.reading import PIECE
from mailplat.imap.search import search
from mailplat.imap.view import MailboxView, Selected
from mailplat.interfaces import NewMessage
from mailplat.message import headers, sections
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import MemoryMessage, outline_of
from mailplat.uids import UIDSet

T = TypeVar("T")


class Searches(SynchronousTestCase):
    def now(self, coroutine: Coroutine[Deferred[T], Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    async def selected(self, bodies: Sequence[bytes], outlined: bool = True) -> Selected:
        store = MemoryStore()
        await store.create_account("a@example.test")
        mailbox = await (await store.account("a@example.test")).open("INBOX")
        await mailbox.append(
            [
                NewMessage(MemoryMessage(body, outline_of(body) if outlined else b""), b"", frozenset(), 0)
                for body in bodies
            ]
        )
        view = MailboxView(mailbox)
        await view.refresh()
        return Selected(view, True, lambda: None)

    async def uids(self, selected: Selected, key: Key, outlines: Outlines) -> list[int]:
        return list((await search(selected, key, True, outlines, lambda: succeed(None))).numbers)

    def found(self, bodies: list[bytes], key: Key, outlined: bool = True) -> list[int]:
        async def run() -> list[int]:
            return await self.uids(await self.selected(bodies, outlined), key, Outlines())

        return self.now(run())


class TextTests(Searches):
    def test_text_across_the_end_of_a_piece(self) -> None:
        head = b"Subject: x\r\n\r\n"
        for shift in range(-6, 7):
            body = head + b"." * (PIECE + shift) + b"Needle" + b"." * PIECE
            self.assertEqual(self.found([body, head + b"need le\r\n"], BodyContains("nEEdle")), [1])

    def test_base64_and_its_charset_across_pieces(self) -> None:
        text = "ä" * PIECE + " Ährenfeld " + "ö" * PIECE
        head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        # One line without an end: nowhere to cut, and no multiple of anything.
        for encoded in (encodebytes(text.encode()), encodebytes(text.encode()).replace(b"\n", b"")):
            body = head + encoded.replace(b"\n", b"\r\n")
            self.assertEqual(self.found([body], BodyContains("ährenfeld")), [1])
            self.assertEqual(self.found([body], BodyContains("ährenwald")), [])

    def test_the_header_of_an_embedded_message_is_body(self) -> None:
        inner = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nhello\r\n"
        body = b"Subject: outer\r\nContent-Type: message/rfc822\r\n\r\n" + inner
        self.assertEqual(self.found([body], BodyContains("grüße")), [1])
        self.assertEqual(self.found([body], BodyContains("HELLO")), [1])
        self.assertEqual(self.found([body], BodyContains("outer")), [])
        self.assertEqual(self.found([body], TextContains("outer")), [1])

    def test_without_an_outline_the_message_is_scanned(self) -> None:
        bodies = [b"Subject: one\r\n\r\nfirst\r\n", b"Subject: two\r\n\r\nsecond\r\n"]
        self.assertEqual(self.found(bodies, BodyContains("second"), outlined=False), [2])
        self.assertEqual(self.found(bodies, Not(HeaderContains("subject", "TWO")), outlined=False), [1])
        self.assertEqual(self.found(bodies, HeaderContains("cc", ""), outlined=False), [])
        self.assertEqual(self.found(bodies, HeaderContains("subject", ""), outlined=False), [1, 2])

    def test_addresses_as_the_envelope_has_them(self) -> None:
        """RFC 3501 §6.4.4: "in the envelope structure's FROM field"; what stands there counts as well."""
        bodies = [
            b"From: <joe (the other) @ (at) example.test>\r\n\r\n",
            b"From: joe @example.test (Joe (Q.) Public)\r\n\r\n",
            b'From: "Joe \\"Q.\\" Public" <joe@example.test>\r\n\r\n',
            b"From: =?utf-8?q?J=C3=B6e?= <joe@ example.test>\r\n\r\n",
        ]
        self.assertEqual(self.found(bodies, HeaderContains("from", "joe@example.test")), [1, 2, 3, 4])
        self.assertEqual(self.found(bodies, HeaderContains("from", 'joe "q." public')), [3])
        self.assertEqual(self.found(bodies, HeaderContains("from", "the other")), [1])
        self.assertEqual(self.found(bodies, HeaderContains("from", "jöe <JOE@example")), [4])
        self.assertEqual(self.found(bodies, HeaderContains("x-from", "joe@example.test")), [])

    def test_large_headers(self) -> None:
        """What is nothing but header is looked through in pieces, to its end."""
        filler = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 30) for number in range(20_000))
        body = b"Subject: first\r\n" + filler + b"To: last\r\n folded\r\n"
        bodies = [b"To: nobody\r\n\r\n", body, body + b"\r\ntext\r\n"]
        for key, wanted in (
            (HeaderContains("subject", "first"), [2, 3]),
            (HeaderContains("to", "last folded"), [2, 3]),
            (HeaderContains("x-19999", ""), [2, 3]),
            (HeaderContains("x-20000", ""), []),
            (TextContains("last folded"), [2, 3]),
            (TextContains("19999: xxx"), [2, 3]),
            (TextContains("text"), [3]),
            (BodyContains("last"), []),
        ):
            self.assertEqual(self.found(bodies, key), wanted, key)

    def test_a_header_without_ends_of_lines(self) -> None:
        """Takes the time that its octets take, not their square."""
        began = process_time()
        for filler in (b".", b"\n ", b"\r\n\t"):
            body = b"Subject: " + filler * (10 * PIECE // len(filler)) + b"\r\n\r\n"
            self.assertEqual(self.found([body], TextContains("needle")), [], filler)
        self.assertLess(process_time() - began, 5)

    def test_header_text_across_the_end_of_a_piece(self) -> None:
        for shift in range(-4, 12):
            start = b"X: " + b"." * (PIECE + shift - 16)
            body = start + b"\r\nSubject: nee\r\n dle\r\n" + b"Y: " + b"." * PIECE + b"\r\n\r\n"
            self.assertEqual(self.found([body], TextContains("nee dle")), [1], shift)
            self.assertEqual(self.found([body], HeaderContains("subject", "nee dle")), [1], shift)
        # A line that has no end is not waited for.
        body = b"Subject: " + b"." * (PIECE - 12) + b"needle" + b"." * PIECE + b"\r\n\r\n"
        self.assertEqual(self.found([body], TextContains("needle")), [1])

    def test_the_subject_is_that_of_the_envelope(self) -> None:
        bodies = [
            b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= to\r\n all\r\n\r\n",
            b'Date: "\\"\r\nSubject: a "quoted\\" one\r\n\r\n',
            b"Date: \xe4\r\nSubject: Gr\xfc\xdfe\r\n\r\n",
            b"Subject:\r\n\r\nnot all of it\r\n",
            b"From: all@example.test\r\n\r\n",
        ]
        for outlined in (True, False):
            for text, expected in (
                ("GR\u00dc\u00dfE TO ALL", [1]),
                ("gr\u00fc\u00dfe", [1, 3]),
                ('"quoted\\', [2]),
                ("all", [1]),
                ("", [1, 2, 3, 4]),
            ):
                self.assertEqual(self.found(bodies, SubjectContains(text), outlined), expected, text)
            self.assertEqual(self.found(bodies, Not(SubjectContains("all")), outlined), [2, 3, 4, 5])
            both = Or(SubjectContains("quoted"), BodyContains("ALL"))
            self.assertEqual(self.found(bodies, both, outlined), [2, 4])


class KeptTests(Searches):
    """What was looked at once is looked at again as it was kept."""

    def test_more_and_less_of_a_mailbox(self) -> None:
        async def run() -> None:
            count = 1200
            selected = await self.selected(
                [b"Subject: number %d.\r\n\r\n" % uid for uid in range(1, count + 1)]
            )
            outlines = Outlines()
            every_third = commands.UIDs(SequenceSet(",".join(map(str, range(3, count, 3)))))
            there = list(range(1, count + 1))
            for _ in range(2):
                for wanted in ("number 7", "9.", "number 0", ""):
                    having = [uid for uid in there if wanted in f"number {uid}."]
                    key = SubjectContains(wanted)
                    thirds = await self.uids(selected, commands.And((every_third, key)), outlines)
                    self.assertEqual(thirds, [uid for uid in having if uid % 3 == 0 and uid < count])
                    self.assertEqual(await self.uids(selected, key, outlines), having)
                    self.assertEqual(
                        await self.uids(selected, Not(key), outlines), sorted(set(there).difference(having))
                    )
                # Some are gone the second time.
                gone = UIDSet(((250, 280), (700, 700)))
                await selected.view.mailbox.expunge(gone, deleted_only=False)
                await selected.view.refresh()
                there = [uid for uid in there if uid not in gone]

        self.now(run())

    def test_those_that_went_meanwhile_meet_nothing(self) -> None:
        async def run() -> None:
            selected = await self.selected([b"Subject: same\r\n\r\n"] * 10)
            await selected.view.mailbox.expunge(UIDSet(((4, 5),)), deleted_only=False)
            wanted = [1, 2, 3, 6, 7, 8, 9, 10]
            self.assertEqual(await self.uids(selected, SubjectContains("same"), Outlines()), wanted)
            self.assertEqual(await self.uids(selected, Not(SubjectContains("other")), Outlines()), wanted)

        self.now(run())

    def test_what_would_not_fit_is_not_kept(self) -> None:
        async def run() -> None:
            selected = await self.selected([b"Subject: number %d.\r\n\r\n" % uid for uid in range(1, 1001)])
            read = selected.view.mailbox.outlines
            for most, times in ((1_000_000, 1), (1_000, 2)):
                outlines, calls = Outlines(most_texts=most), []
                self.patch(
                    type(selected.view.mailbox),
                    "outlines",
                    lambda mailbox, uids, calls=calls: calls.append(uids) or read(uids),
                )
                for _ in range(2):
                    self.assertEqual(await self.uids(selected, SubjectContains("r 77."), outlines), [77])
                self.assertEqual(len(calls), times)

        self.now(run())

    def test_stated_days(self) -> None:
        async def run() -> None:
            dates = (
                b"1 Jan 2024 23:59:59 -1200",
                b"31 Dec 2023 00:00:00 +1200",
                b"2 Jan 2024 1:00",
                b"nonsense",
            )
            selected = await self.selected([b"Date: %b\r\n\r\n" % day for day in dates] + [b"\r\n"])
            outlines = Outlines()
            for _ in range(2):
                for when, uids in ((When.BEFORE, [2]), (When.ON, [1]), (When.SINCE, [1, 3])):
                    key = commands.SentOn(when, date(2024, 1, 1))
                    self.assertEqual(await self.uids(selected, key, outlines), uids, when)

        self.now(run())


ENCODINGS: dict[bytes, Callable[[bytes], bytes]] = {
    b"7bit": bytes,
    b"8bit": bytes,
    b"Quoted-Printable": quopri.encodestring,
    b"base64": encodebytes,
}
CHARSETS = (
    "", "us-ascii", "utf-8", "UTF8", "iso-8859-1", "utf-7", "utf-16", "iso-2022-jp", "hz", "cp037",
    "nonsense",
)  # fmt: skip
WORDS = (
    "needle", "NeeDLE", "need", "le", "stra\u00dfe", "STRASSE", "\u017fs", "\u212aelvin", "k", "\ufb01n",
    "\u4e2d", "~{", "+AG4-eedle", "=6Eeedle", "bmVlZGxl", "\r\n", " ", "=?utf-8?q?need?=",
)  # fmt: skip


def part(text: str, kind: str, charset: str, encoding: bytes, really: str) -> bytes:
    """A text in a charset, which may be another one than it says."""
    octets = text.encode(really if headers.codec(really) else "utf-8", "replace")
    stated = f"; charset={charset}" if charset else ""
    head = f"Content-Type: {kind}{stated}\r\nContent-Transfer-Encoding: {encoding.decode()}\r\n\r\n"
    return head.encode() + ENCODINGS[encoding](octets).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


PARTS = st.builds(
    part,
    st.lists(st.sampled_from(WORDS), max_size=6).map("".join),
    st.sampled_from(("text/plain", "text/html", "image/png", "message/rfc822")),
    st.sampled_from(CHARSETS),
    st.sampled_from(sorted(ENCODINGS)),
    st.sampled_from(CHARSETS),
)


class RawTests(Searches):
    """Messages that are passed over by their octets are those that have nothing when they are taken apart."""

    def assertSame(self, messages: Sequence[bytes]) -> None:
        async def run() -> dict[str, list[int]]:
            selected = await self.selected(messages)
            words = ("needle", "ss", "straSSe", "kelvin", "fin", "\u4e2d", "\u00df", "n", "~{", "6eeed")
            return {word: await self.uids(selected, BodyContains(word), Outlines()) for word in words}

        quickly = self.now(run())
        with patch.object(sections, "as_it_stands", lambda record, ascii_only: False):
            self.assertEqual(quickly, self.now(run()))

    def test_each_charset_and_encoding(self) -> None:
        self.assertSame(
            [
                part(word, "text/plain", charset, encoding, really)
                for word, charset, encoding in product(WORDS, CHARSETS, ENCODINGS)
                for really in {charset, "utf-8"}
            ]
        )

    @given(st.lists(PARTS, min_size=1, max_size=3), st.sampled_from(("", "Subject: needle\r\n")))
    def test_several_parts(self, some: list[bytes], subject: str) -> None:
        several = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"".join(
            b"--b\r\n" + one + b"\r\n" for one in some
        )
        self.assertSame([subject.encode() + message for message in (*some, several + b"--b--\r\n")])

    def test_most_mail_is_passed_over(self) -> None:
        head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        for body in (b"Subject: x\r\n\r\nascii\r\n", head + "stra\u00dfe\r\n".encode()):
            with patch.object(sections, "searchable") as taken_apart:
                self.assertEqual(self.found([body], BodyContains("needle")), [])
            taken_apart.assert_not_called()

    def test_charsets_like_ascii(self) -> None:
        ascii = bytes(range(128))
        for charset in sections.LIKE_ASCII:
            text = sections.decoded_text(ascii, "7bit", charset.decode())
            self.assertEqual(text, ascii.decode(), charset)
