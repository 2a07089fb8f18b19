"""
The danger: a second message hidden in the first, behind an end of data that only some see.

Only CR LF "." CR LF ends the data.  Whatever else looks like an end must neither end it
nor be passed on, for the next host may take it for one; and what follows it must never
be taken for commands.
"""

from __future__ import annotations

from itertools import pairwise, product

from twisted.trial.unittest import SynchronousTestCase

from mailplat.smtp.data import ChunkReader, DataReader, Fault, has_lone_line_break
from tests.smtp.support import Server, shapes

BREAKS = (b"\r\n", b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n\n", b"\n\n", b"\r\r", b"\r\0\n")

#: Every line break that some server takes for one, before the dot and after it; but not the real one.
FALSE_ENDS = [
    before + dot + after
    for before, dot, after in product(BREAKS, (b".", b".\0", b".."), BREAKS)
    if not (before.endswith(b"\r\n") and dot == b"." and after.startswith(b"\r\n"))
]

HIDDEN = (
    b"MAIL FROM:<mallory@example.test>\r\nRCPT TO:<victim@example.test>\r\nDATA\r\n"
    b"Subject: hidden\r\n\r\nhidden\r\n"
)
REFUSED = "550 5.6.0"


def with_lone_breaks(end: bytes) -> bool:
    return b"\r" in end.replace(b"\r\n", b"") or b"\n" in end.replace(b"\r\n", b"")


class Data(SynchronousTestCase):
    def deliver(self, body: bytes, cuts: tuple[int, ...] = ()) -> tuple[Server, bytes]:
        server = Server().hello().begin("bob@example.test")
        server.say("DATA")
        wire = body + b"\r\n.\r\nNOOP\r\n"
        edges = (0, *cuts, len(wire))
        heard = b"".join(server.wire.send(wire[a:b]) for a, b in pairwise(edges))
        return server, heard

    def test_there_are_enough_of_them(self) -> None:
        self.assertGreater(len(FALSE_ENDS), 200)
        for known in (
            b"\n.\n",
            b"\r.\r",
            b"\n.\r\n",
            b"\r\n.\n",
            b"\r\n.\r",
            b"\r.\r\n",
            b"\n.\r",
            b"\r\n.\0\r\n",
        ):
            self.assertIn(known, FALSE_ENDS)

    def test_no_false_end_ends_and_none_is_passed_on(self) -> None:
        for end in FALSE_ENDS:
            with self.subTest(end):
                server, heard = self.deliver(b"Subject: seen\r\n\r\nseen" + end + HIDDEN)
                if with_lone_breaks(end):
                    self.assertEqual(shapes(heard), [REFUSED, "250 2.0.0"])
                    self.assertEqual(server.receiver.received, [])
                else:
                    # A dot that is not alone in its line is text.
                    self.assertEqual(shapes(heard), ["250 2.0.0", "250 2.0.0"])
                    [message] = server.receiver.messages
                    self.assertTrue(message.endswith(b"hidden\r\n\r\n"))

    def test_at_every_offset(self) -> None:
        for end in (
            b"\n.\n",
            b"\n.\r\n",
            b"\r\n.\n",
            b"\r.\r",
            b"\r.\r\n",
            b"\r\n.\r",
            b"\r\n.\r\r\n",
            b"\r\n\n.\r\n",
        ):
            body = b"a" + end + b"NOOP\r\nQUIT"
            for at in range(1, len(body) + 5):
                server, heard = self.deliver(body, (at, min(at + 1, len(body) + 5)))
                self.assertEqual(shapes(heard), [REFUSED, "250 2.0.0"], (end, at))
                self.assertEqual(server.receiver.received, [])
                self.assertFalse(server.wire.ended)

    def test_at_the_very_start(self) -> None:
        for body in (b"\n.\r\nNOOP", b".\nNOOP", b".\rNOOP", b"\r.\r\nNOOP", b".\r\r\nNOOP"):
            server, heard = self.deliver(body)
            self.assertEqual(shapes(heard), [REFUSED, "250 2.0.0"], body)
            self.assertEqual(server.receiver.received, [])

    def test_a_refused_message_leaves_nothing_behind(self) -> None:
        server, _ = self.deliver(b"a\nb")
        self.assertEqual(server.spool.messages, [])
        self.assertEqual(server.codes("RCPT TO:<bob@example.test>"), ["503"])
        server.begin("bob@example.test")
        server.say("DATA")
        self.assertEqual(shapes(server.wire.send(b"clean\r\n.\r\n")), ["250 2.0.0"])
        self.assertEqual(server.receiver.messages, [b"clean\r\n"])

    def test_lmtp_says_it_for_each_recipient(self) -> None:
        server = Server("lmtp").hello().begin("bob@example.test", "eve@example.test")
        server.say("DATA")
        self.assertEqual(shapes(server.wire.send(b"a\n.\r\n\r\n.\r\n")), [REFUSED, REFUSED])

    def test_the_real_end_after_what_is_no_end(self) -> None:
        # Only the first CR LF "." CR LF ends; what follows are commands, as it must be.
        server, heard = self.deliver(b"seen\r\n.\r\nRSET")
        self.assertEqual(shapes(heard), ["250 2.0.0", "250 2.0.0", "500 5.5.1", "250 2.0.0"])
        self.assertEqual(server.receiver.messages, [b"seen\r\n"])


class Chunks(SynchronousTestCase):
    def deliver(self, body: bytes, chunks: tuple[int, ...] = (), step: int = 0) -> tuple[Server, bytes]:
        """The body in chunks that end at `chunks`, sent `step` octets at a time if not 0."""
        server = Server().hello().begin("bob@example.test")
        edges = (0, *chunks, len(body))
        wire = b""
        for number, (a, b) in enumerate(pairwise(edges)):
            last = b" LAST" if number == len(edges) - 2 else b""
            wire += b"BDAT %d%s\r\n%s" % (b - a, last, body[a:b])
        wire += b"NOOP\r\n"
        step = step or len(wire)
        return server, b"".join(server.wire.send(wire[at : at + step]) for at in range(0, len(wire), step))

    def test_lone_breaks_are_not_passed_on(self) -> None:
        for end in FALSE_ENDS:
            with self.subTest(end):
                body = b"seen" + end + HIDDEN
                for step in (0, 1):
                    server, heard = self.deliver(body, step=step)
                    if with_lone_breaks(end):
                        self.assertEqual(shapes(heard), [REFUSED, "250 2.0.0"])
                        self.assertEqual(server.receiver.received, [])
                    else:
                        self.assertEqual(shapes(heard), ["250 2.0.0", "250 2.0.0"])
                        self.assertEqual(server.receiver.messages, [body])

    def test_at_every_edge_of_a_chunk(self) -> None:
        for end in (b"\n.\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r\r\n.\r\n"):
            body = b"a" + end + b"NOOP\r\nb"
            for edge in range(1, len(body)):
                server, heard = self.deliver(body, (edge,))
                found = shapes(heard)
                self.assertEqual(found[-1], "250 2.0.0", (end, edge))
                # Refused with the first chunk, so that the second finds no transaction, or with the second.
                self.assertIn(found[:-1], ([REFUSED, "503 5.5.1"], ["250 2.0.0", REFUSED]))
                self.assertEqual(server.receiver.received, [])

    def test_a_dot_alone_is_text(self) -> None:
        body = b"a\r\n.\r\n..\r\nb\r\n"
        for edge in range(len(body) + 1):
            server, heard = self.deliver(body, (edge,))
            self.assertEqual(shapes(heard), ["250 2.0.0"] * 3)
            self.assertEqual(server.receiver.messages, [body])

    def test_no_size_no_guess(self) -> None:
        # Where a chunk ends is not known, so nothing after it is read as commands.
        for wrong in (b"BDAT", b"BDAT x", b"BDAT -1 LAST", b"BDAT 5 LAST x", b"BDAT " + b"9" * 21):
            server = Server().hello().begin("bob@example.test")
            heard = server.wire.send(wrong + b"\r\nMAIL FROM:<mallory@example.test>\r\n")
            self.assertEqual(shapes(heard), ["421 4.5.2"])
            self.assertTrue(server.wire.ended)


class Readers(SynchronousTestCase):
    """The same on the readers alone, where every cut can be tried."""

    def test_lone_line_breaks(self) -> None:
        for length in range(6):
            for octets in product(b"\r\na", repeat=length):
                block = bytes(octets)
                left = block.replace(b"\r\n", b"")
                self.assertEqual(has_lone_line_break(block), b"\r" in left or b"\n" in left, block)

    def test_every_short_message_with_every_cut(self) -> None:
        # Against the definition: the first CR LF "." CR LF ends, counting the line break before.
        for octets in product(b"\r\n.a", repeat=5):
            body = bytes(octets) + b"\r\n.\r\nrest"
            whole = b"\r\n" + body
            end = whole.index(b"\r\n.\r\n")
            text, after = whole[2 : end + 2], len(whole) - end - 5
            lone = has_lone_line_break(text)
            clean = (b"\r\n" + text).replace(b"\r\n.", b"\r\n")[2:]
            for cut in range(len(body) + 1):
                reader = DataReader(1000)
                first, left = reader.feed(body[:cut])
                if left < 0:
                    second, left = reader.feed(body[cut:])
                else:
                    second, left = b"", left + len(body) - cut
                self.assertEqual((reader.fault is Fault.LONE_LINE_BREAK, left), (lone, after), (body, cut))
                if not lone:
                    self.assertEqual(first + second, clean, (body, cut))

    def test_every_short_chunk_with_every_cut(self) -> None:
        for octets in product(b"\r\na", repeat=5):
            body = bytes(octets)
            for cut in range(6):
                for chunked in (False, True):
                    reader = ChunkReader(1000)
                    reader.begin(cut if chunked else 5, not chunked)
                    first, _ = reader.feed(body[:cut])
                    if chunked:
                        reader.begin(5 - cut, True)
                    second, after = reader.feed(body[cut:] + b"rest")
                    self.assertEqual(after, 4)
                    self.assertEqual(reader.fault is not None, has_lone_line_break(body), (body, cut))
                    if reader.fault is None:
                        self.assertEqual(first + second, body)
