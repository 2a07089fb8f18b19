"""
Nothing a message contains makes reading it slow.

Bounds are of processor time, and some twenty times what it takes; anything that is not linear
is thousands of times over.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

from twisted.trial.unittest import SynchronousTestCase

from mailplat.message import addresses, compose, headers, sections
from mailplat.message.outline import Outline
from mailplat.message.structure import Scanner
from mailplat.testing import corpus

MEGABYTE = 1_000_000


class Cases(SynchronousTestCase):
    def within(self, seconds: float, call: Callable[[], object], what: object = "") -> None:
        start = process_time()
        call()
        taken = process_time() - start
        self.assertLess(taken, seconds, what)


class ScannerTests(Cases):
    def scan(self, message: bytes, seconds: float, size: int = 65536) -> Outline:
        found: list[Outline] = []

        def run() -> None:
            scanner = Scanner()
            for start in range(0, len(message), size):
                scanner.feed(message[start : start + size])
            found.append(scanner.finish())

        self.within(seconds, run, message[:60])
        self.assertEqual(found[0].size, len(message))
        return found[0]

    def test_a_header_of_10_megabytes(self) -> None:
        for line in (
            b"X: y\r\n",
            b"Subject: " + b"y" * 60 + b"\r\n",
            b" \r\n",
            b"y",
            b"\r",
            b"\t\n",
            b": ",
            b"To: a@b\r\n",
        ):
            self.scan(b"From: a@b\r\n" + line * (10 * MEGABYTE // len(line)) + b"\r\ntext", 2)

    def test_100_000_parts(self) -> None:
        outline = self.scan(corpus.many_parts(100_000), 2)
        self.assertEqual(len(outline.root.children), 1000)

    def test_10_000_levels(self) -> None:
        self.scan(corpus.deep(10_000), 2)
        self.scan(b"Content-Type: message/rfc822\r\n\r\n" * 10_000, 2)

    def test_lines_like_boundaries(self) -> None:
        start = b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n" % (b"b" * 70)
        for line in (
            b"--\r\n",
            b"--" + b"b" * 69 + b"\r\n",
            b"\r\n--",
            b"--" + b"b" * 70 + b" ",
            b"-",
            b"\n",
        ):
            self.scan(start + line * (3 * MEGABYTE // len(line)), 3)

    def test_many_boundaries_open(self) -> None:
        """Each line is looked up once, whatever is open."""
        self.scan(corpus.deep(49).partition(b"at the bottom")[0] + b"--b49x\r\n" * 100_000, 4)

    def test_small_chunks(self) -> None:
        """A line that is not decided on is not gathered for ever."""
        for text in (b"\r\n--" + b"b" * 100_000, b"x" * 100_000, b"\r\n" * 50_000, b"--b\r\n" * 20_000):
            self.scan(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + text, 3, size=1)
        self.scan(b"X: " + b"y" * 100_000, 3, size=1)

    def test_parameters(self) -> None:
        for value in (
            b"; a=b",
            b";",
            b' ; "',
            b"(",
            b"(a",
            b"\\",
            b"; a*0=b",
            b"; a*1*=%",
            b"=",
            b"; a=b c d",
        ):
            self.scan(b"Content-Type: text/plain" + value * (MEGABYTE // len(value)) + b"\r\n\r\n", 2)

    def test_addresses_in_a_message(self) -> None:
        for name in (b"To", b"From", b"Cc"):
            for value in (b"<", b"(", b",", b"a@b,", b'"', b"a ", b"@", b"\\", b":", b";", b"x:;"):
                message = name + b": " + value * (MEGABYTE // len(value)) + b"\r\n\r\n"
                self.scan(message, 2)


class WordsTests(Cases):
    """Each of these alone, with a megabyte and without the scanner's limits."""

    def repeated(
        self, call: Callable[[bytes], object], pieces: tuple[bytes, ...], seconds: float = 2
    ) -> None:
        for piece in pieces:
            for octets in (piece * (MEGABYTE // len(piece)), b"a" + piece * (MEGABYTE // len(piece))):
                self.within(seconds, lambda octets=octets: call(octets), (call, piece))

    def test_addresses(self) -> None:
        self.repeated(
            addresses.parse,
            (
                b"<",
                b">",
                b"(",
                b")",
                b"()",
                b",",
                b"@",
                b'"',
                b"\\",
                b":",
                b";",
                b"[",
                b"a",
                b" ",
                b"a ",
                b"a@b ",
                b"a@b, ",
                b"a <a@b>,",
                b'"a" ',
                b"x:;",
                b"<@",
                b"<a@b>",
                b"a.",
                b". ",
                b"\x00",
                b"\xff",
                b"(\\",
                b"@,",
                b"<,",
            ),
        )

    def test_fields(self) -> None:
        self.repeated(headers.fields, (b"\r\n ", b":", b"\n", b"a:b\r\n", b" ", b"\r"))

    def test_encoded_words(self) -> None:
        self.repeated(
            headers.decode_words,
            (b"=?", b"=?a?", b"=?a?q?", b"=?a?q?b?= ", b"=?utf-8?b?YQ==?= ", b"?=", b"=?a?q?=41", b"=", b" "),
        )

    def test_parameters(self) -> None:
        def parse(value: bytes) -> None:
            headers.parameter_texts(headers.parse_parameters(value)[1])

        self.repeated(
            parse,
            (
                b";",
                b"; a=b",
                b'"',
                b"(",
                b")",
                b"()",
                b";()",
                b"\\",
                b"=",
                b"; a",
                b"a ",
                b";a*0=b",
                b';a="b\\"',
                b"; (a\\",
            ),
        )

    def test_dates(self) -> None:
        self.repeated(compose.parse_date, (b"1", b" ", b"(", b"1 Jan ", b",", b":", b"\n"))

    def test_select_fields(self) -> None:
        names = frozenset((b"a", b"subject"))
        self.repeated(
            lambda header: sections.select_fields(header, names, True),
            (b"a", b"\n", b"\r", b"a:b\r\n", b"a:b\r\n ", b" \n", b":", b"\t"),
        )

    def test_decoded_text(self) -> None:
        for encoding in ("7bit", "base64", "quoted-printable"):
            for charset in ("", "utf-8", "utf-7", "iso-2022-jp"):
                self.repeated(
                    lambda raw, e=encoding, c=charset: sections.decoded_text(raw, e, c),
                    (b"=", b"=\r\n", b" ", b"a", b"\xff", b"+", b"\x1b", b"=4"),
                )
