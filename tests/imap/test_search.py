"""SEARCH through the text of messages that are read in pieces."""

from __future__ import annotations

from base64 import encodebytes
from time import process_time

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap.commands import BodyContains, HeaderContains, Key, Not, Or, SubjectContains, TextContains
from mailplat.imap.outlines import Outlines
from mailplat.imap.reading import PIECE
from mailplat.imap.search import search
from mailplat.imap.view import MailboxView, Selected
from mailplat.interfaces import NewMessage
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import MemoryMessage, outline_of


class TextTests(SynchronousTestCase):
    def found(self, bodies: list[bytes], key: Key, outlined: bool = True) -> list[int]:
        async def run() -> list[int]:
            store = MemoryStore()
            await store.create_account("a@example.test")
            mailbox = await (await store.account("a@example.test")).open("INBOX")
            await mailbox.append(
                [
                    NewMessage(
                        MemoryMessage(body, outline_of(body) if outlined else b""), b"", frozenset(), 0
                    )
                    for body in bodies
                ]
            )
            view = MailboxView(mailbox)
            await view.refresh()
            selected = Selected(view, True, lambda: None)
            return list((await search(selected, key, True, Outlines(), lambda: succeed(None))).numbers)

        return self.successResultOf(Deferred.fromCoroutine(run()))

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
