"""The scanner: boundaries and line ends in every position, defaults, limits, truncation, chunks."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.message.outline import Outline, Part
from mailplat.message.structure import Scanner, StructureLimits
from mailplat.testing import corpus
from tests.message import trees
from tests.message.imap_data import Body, read_body, read_envelope


def scan(message: bytes, limits: StructureLimits | None = None, size: int = 0) -> Outline:
    """The outline of a message, fed whole or `size` octets at a time."""
    scanner = Scanner(limits) if limits else Scanner()
    for start in range(0, len(message), size or len(message) or 1):
        scanner.feed(message[start : start + (size or len(message))])
    return scanner.finish()


def shape(part: Part) -> object:
    """Nested tuples of subtypes."""
    if part.message is not None:
        return (part.subtype, shape(part.message))
    if part.children:
        return (part.subtype, *map(shape, part.children))
    return part.subtype


def walk(part: Part) -> list[Part]:
    """The part and all in it, in order."""
    found = [part]
    for child in (*part.children, *([part.message] if part.message else [])):
        found += walk(child)
    return found


def bodies(message: bytes, outline: Outline) -> list[bytes]:
    """What the leaves hold, in order."""
    return [
        message[part.body_start : part.body_end]
        for part in walk(outline.root)
        if not part.children and part.message is None
    ]


MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


class Cases(SynchronousTestCase):
    def check(self, message: bytes, expected_shape: object, expected_bodies: list[bytes]) -> None:
        """Whole, byte by byte, and in twos and threes."""
        for size in (0, 1, 2, 3):
            outline = scan(message, size=size)
            self.assertEqual(shape(outline.root), expected_shape, (message, size))
            self.assertEqual(bodies(message, outline), expected_bodies, (message, size))
            self.assertEqual(outline.size, len(message))


class SinglePartTests(Cases):
    def test_header_and_text(self) -> None:
        self.check(b"Subject: x\r\n\r\nabc\r\n", "plain", [b"abc\r\n"])
        self.check(b"Subject: x\n\nabc\n", "plain", [b"abc\n"])
        self.check(b"Subject: x\r\n\nabc", "plain", [b"abc"])
        self.check(b"Subject: x\n\r\nabc", "plain", [b"abc"])
        self.check(b"Subject: x\r\n\r\n\r\n\r\n", "plain", [b"\r\n\r\n"])

    def test_no_header(self) -> None:
        self.check(b"\r\nabc", "plain", [b"abc"])
        self.check(b"\nabc", "plain", [b"abc"])
        self.assertEqual(scan(b"\r\nabc").header_size, 2)

    def test_no_text(self) -> None:
        for message in (b"Subject: x\r\n\r\n", b"Subject: x\r\n", b"Subject: x", b"Subject: x\r", b"", b"\r"):
            self.check(message, "plain", [b""])
            self.assertEqual(scan(message).header_size, len(message))
        self.check(b"\r\n", "plain", [b""])

    def test_white_space_is_no_blank_line(self) -> None:
        """RFC 5322 §2.2.3: a line of white space continues a field."""
        self.check(b"Subject: x\r\n \r\nTo: y\r\n\r\nabc", "plain", [b"abc"])

    def test_a_bare_cr_is_no_line_end(self) -> None:
        self.check(b"Subject: x\r\r\nTo: y\r\n\r\nabc", "plain", [b"abc"])
        self.check(b"Subject: x\r\rabc", "plain", [b""])

    def test_lines(self) -> None:
        for text, lines in (
            (b"", 0),
            (b"a", 0),
            (b"a\r\n", 1),
            (b"a\r\nb", 1),
            (b"\r\n\r\n", 2),
            (b"a\nb\n", 2),
        ):
            self.assertEqual(scan(b"Subject: x\r\n\r\n" + text).root.lines, lines)
            self.assertEqual(scan(b"Subject: x\r\n\r\n" + text, size=1).root.lines, lines)
        self.assertEqual(scan(b"Content-Type: image/png\r\n\r\na\r\n").root.lines, 0)


class MultipartTests(Cases):
    """RFC 2046 §5.1."""

    def test_parts(self) -> None:
        self.check(
            MIXED + b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n",
            ("mixed", "plain", "plain"),
            [b"one", b"two"],
        )

    def test_the_line_end_before_a_boundary_is_its(self) -> None:
        for text in (b"", b"one", b"one\r\n", b"\r\n", b"\r\n\r\n", b"\r", b"one\r"):
            self.check(MIXED + b"--b\r\n\r\n" + text + b"\r\n--b--\r\n", ("mixed", "plain"), [text])
        self.check(MIXED + b"--b\n\none\n--b--\n", ("mixed", "plain"), [b"one"])
        self.check(MIXED + b"--b\r\n\r\none\n--b--", ("mixed", "plain"), [b"one"])

    def test_preamble_and_epilogue(self) -> None:
        part = b"--b\r\n\r\none\r\n--b--"
        for preamble in (
            b"",
            b"\r\n",
            b"preamble\r\n",
            b"two\r\nlines\r\n",
            b"--\r\n",
            b"-b\r\n",
            b"--bb\r\n",
            b" --b\r\n",
        ):
            for epilogue in (b"", b"\r\n", b"\r\nepilogue", b"\r\n--b\r\n\r\nno part\r\n--b--\r\n"):
                self.check(MIXED + preamble + part + epilogue, ("mixed", "plain"), [b"one"])

    def test_white_space_after_a_boundary(self) -> None:
        self.check(MIXED + b"--b \t \r\n\r\none\r\n--b-- \t\r\n", ("mixed", "plain"), [b"one"])

    def test_nothing_else_on_a_boundary_line(self) -> None:
        """
        RFC 2046 §5.1.1 would let any line that begins with a boundary be one.  Mail has boundaries
        that begin others, and texts that begin like a short boundary: the whole line must match.
        """
        text = b"--bx\r\n--b x\r\n--b-\r\n--b---\r\n--b--x\r\n---b\r\n --b\r\nx--b\r\n--\r\n-\r\n--b\r--b"
        self.check(MIXED + b"--b\r\n\r\n" + text + b"\r\n--b--\r\n", ("mixed", "plain"), [text])

    def test_case_counts(self) -> None:
        self.check(MIXED + b"--b\r\n\r\n--B\r\n--b--\r\n", ("mixed", "plain"), [b"--B"])

    def test_a_header_without_blank_line(self) -> None:
        self.check(
            MIXED + b"--b\r\nX: y\r\n--b\r\n--b\r\n\r\n--b--\r\n", ("mixed", *["plain"] * 3), [b""] * 3
        )

    def test_a_boundary_in_the_messages_own_header(self) -> None:
        """Its own multipart does not start before its blank line."""
        message = b"Content-Type: multipart/mixed; boundary=b\r\n--b\r\n\r\n--b\r\n\r\none\r\n--b--\r\n"
        self.check(message, ("mixed", "plain"), [b"one"])

    def test_boundaries_in_quotes_and_comments(self) -> None:
        for stated, line in (
            (b'"b"', b"b"),
            (b'"a b"', b"a b"),
            (b'"a b "', b"a b"),
            (b'"a\\b"', b"ab"),
            (b"b (comment)", b"b"),
            (b'"(b)"', b"(b)"),
            (b'"=_b:?"', b"=_b:?"),
            (b"=_b:?", b"=_b:?"),
            (b'"--"', b"--"),
            (b'"-b--"', b"-b--"),
            (b"b; charset=x", b"b"),
        ):
            with self.subTest(stated=stated):
                message = b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n--%s\r\n\r\none\r\n--%s--\r\n"
                self.check(message % (stated, line, line), ("mixed", "plain"), [b"one"])

    def test_a_boundary_in_pieces(self) -> None:
        """RFC 2231 §3."""
        message = (
            b"Content-Type: multipart/mixed; boundary*0=a; boundary*1=b\r\n\r\n--ab\r\n\r\none\r\n--ab--"
        )
        self.check(message, ("mixed", "plain"), [b"one"])
        message = (
            b"Content-Type: multipart/mixed; boundary*=us-ascii''a%20b\r\n\r\n--a b\r\n\r\none\r\n--a b--"
        )
        self.check(message, ("mixed", "plain"), [b"one"])

    def test_the_first_boundary_counts(self) -> None:
        message = (
            b"Content-Type: multipart/mixed; boundary=b; boundary=c\r\n\r\n--c\r\n--b\r\n\r\none\r\n--b--"
        )
        self.check(message, ("mixed", "plain"), [b"one"])

    def test_no_boundary_is_text(self) -> None:
        for stated in (
            b"",
            b"; boundary",
            b"; boundary=",
            b'; boundary=""',
            b'; boundary=" "',
            b"; boundary=" + b"b" * 201,
        ):
            message = b"Content-Type: multipart/mixed" + stated + b"\r\n\r\n--\r\n\r\nx"
            self.check(message, "plain", [b"--\r\n\r\nx"])

    def test_no_parts(self) -> None:
        """RFC 3501 §9 wants one."""
        for text in (b"", b"text", b"--b--", b"--b--\r\n", b"text\r\n--b--\r\ntext"):
            self.check(MIXED + text, ("mixed", "plain"), [b""])

    def test_unfinished(self) -> None:
        self.check(MIXED + b"--b", ("mixed", "plain"), [b""])
        self.check(MIXED + b"--b\r", ("mixed", "plain"), [b""])
        self.check(MIXED + b"--b\r\n", ("mixed", "plain"), [b""])
        self.check(MIXED + b"--b\r\nContent-Ty", ("mixed", "plain"), [b""])
        self.check(MIXED + b"--b\r\n\r\none\r\n", ("mixed", "plain"), [b"one\r\n"])
        self.check(MIXED + b"--b\r\n\r\none\r\n-", ("mixed", "plain"), [b"one\r\n-"])
        self.check(MIXED + b"--b\r\n\r\none\r\n--", ("mixed", "plain"), [b"one\r\n--"])
        self.check(MIXED + b"--b\r\n\r\none\r\n--b", ("mixed", "plain", "plain"), [b"one", b""])
        self.check(MIXED + b"--b\r\n\r\none\r\n--b-", ("mixed", "plain"), [b"one\r\n--b-"])
        self.check(MIXED + b"--b\r\n\r\none\r\n--b--", ("mixed", "plain"), [b"one"])

    def test_every_beginning_of_a_message(self) -> None:
        """Wherever a connection broke."""
        message = corpus.message("forwarded")
        for end in range(len(message)):
            cut = message[:end]
            outline = scan(cut)
            check_outline(self, cut, outline)


class NestedTests(Cases):
    def test_boundaries_that_begin_others(self) -> None:
        for outer, inner in ((b"b", b"bb"), (b"bb", b"b"), (b"b", b"b-"), (b"b c", b"b"), (b"=_1", b"=_11")):
            alternative = b"--I\r\n\r\none\r\n--I\r\n\r\ntwo\r\n--I--\r\n"
            message = (
                b'Content-Type: multipart/mixed; boundary="O"\r\n\r\n'
                b'--O\r\nContent-Type: multipart/alternative; boundary="I"\r\n\r\n' + alternative
            )
            message += b"--O\r\n\r\nthree\r\n--O--"
            self.check(
                message.replace(b"O", outer).replace(b"I", inner),
                ("mixed", ("alternative", "plain", "plain"), "plain"),
                [b"one", b"two", b"three"],
            )

    def test_an_inner_part_that_is_not_closed(self) -> None:
        inner = b"Content-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\n\r\none"
        self.check(
            MIXED + b"--b\r\n" + inner + b"\r\n--b\r\n\r\ntwo\r\n--b--",
            ("mixed", ("alternative", "plain"), "plain"),
            [b"one", b"two"],
        )

    def test_an_outer_boundary_in_an_inner_header(self) -> None:
        inner = b"Content-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\nX: y"
        self.check(
            MIXED + b"--b\r\n" + inner + b"\r\n--b\r\n\r\ntwo\r\n--b--",
            ("mixed", ("alternative", "plain"), "plain"),
            [b"", b"two"],
        )

    def test_the_same_boundary_twice(self) -> None:
        """The innermost takes it."""
        inner = b"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b--"
        self.check(
            MIXED + b"--b\r\n" + inner + b"\r\n--b\r\n\r\ntwo\r\n--b--",
            ("mixed", ("alternative", "plain"), "plain"),
            [b"one", b"two"],
        )

    def test_digest(self) -> None:
        """RFC 2046 §5.1.5: parts are messages unless they say otherwise."""
        digest = b"Content-Type: multipart/digest; boundary=b\r\n\r\n"
        self.check(
            digest
            + b"--b\r\n\r\nSubject: 1\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n\r\ntwo\r\n--b--",
            ("digest", ("rfc822", "plain"), "html"),
            [b"one", b"two"],
        )
        # The default is not handed down.
        inner = b"Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\none\r\n--i--\r\n"
        self.check(digest + b"--b\r\n" + inner + b"--b--", ("digest", ("mixed", "plain")), [b"one"])

    def test_embedded_messages(self) -> None:
        message = (
            MIXED
            + b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: 1\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--"
        )
        self.check(message, ("mixed", ("rfc822", "plain"), "plain"), [b"one", b"two"])
        outline = scan(message)
        self.assertEqual(outline.root.children[0].lines, 2)
        self.check(
            b"Content-Type: message/rfc822\r\n\r\nSubject: 1\r\n\r\none", ("rfc822", "plain"), [b"one"]
        )
        self.check(b"Content-Type: message/rfc822\r\n\r\n", ("rfc822", "plain"), [b""])
        self.check(b"Content-Type: message/rfc822\r\n", ("rfc822", "plain"), [b""])
        self.check(b"Content-Type: MESSAGE/RFC822\r\n\r\n\r\none", ("rfc822", "plain"), [b"one"])
        # Others are opaque: RFC 3501 knows one kind with a body structure of its own.
        self.check(b"Content-Type: message/delivery-status\r\n\r\nX: y\r\n", "delivery-status", [b"X: y\r\n"])
        self.check(b"Content-Type: message/global\r\n\r\nX: y\r\n", "global", [b"X: y\r\n"])

    def test_an_embedded_message_without_text(self) -> None:
        """Its blank line is the line end before the boundary as well, and stays in both."""
        message = MIXED + b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: 1\r\n\r\n--b--"
        self.check(message, ("mixed", ("rfc822", "plain")), [b""])
        [part] = scan(message).root.children
        self.assertEqual(message[part.body_start : part.body_end], b"Subject: 1\r\n\r\n")
        self.assertEqual(part.lines, 2)
        check_outline(self, message, scan(message))
        self.assertIn(b' 14 (NIL "1" ', scan(message).body)

    def test_an_embedded_header_that_a_boundary_ends(self) -> None:
        """The line end after its last field, too."""
        message = MIXED + b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: 1\r\n--b--"
        self.check(message, ("mixed", ("rfc822", "plain")), [b""])
        [part] = scan(message).root.children
        self.assertEqual(message[part.body_start : part.body_end], b"Subject: 1\r\n")


class ContentTypeTests(SynchronousTestCase):
    def part(self, header: bytes) -> Part:
        return scan(header + b"\r\n\r\nx").root

    def test_types(self) -> None:
        for value, expected in (
            (b"text/plain", ("text", "plain")),
            (b"TEXT/Html", ("text", "html")),
            (b"text / html", ("text", "html")),
            (b"text/html;charset=x", ("text", "html")),
            (b"text/html ; x=y", ("text", "html")),
            (b"text/html (comment)", ("text", "html")),
            (b"(comment) text/html", ("text", "html")),
            (b"application/vnd.x+xml", ("application", "vnd.x+xml")),
            (b"text/html\r\n ; charset=x", ("text", "html")),
            # RFC 2045 §5.2: what makes no sense is plain text.
            (b"", ("text", "plain")),
            (b"text", ("text", "plain")),
            (b"/html", ("text", "plain")),
            (b"text/", ("text", "plain")),
            (b"; charset=x", ("text", "plain")),
            (b"=?utf-8?q?text/html?=", ("text", "plain")),
            (b'"text/html"', ("text", "plain")),
            (b"t\xe4xt/html", ("text", "plain")),
            (b"x" * 128 + b"/y", ("text", "plain")),
        ):
            with self.subTest(value=value):
                part = self.part(b"Content-Type: " + value)
                self.assertEqual((part.type, part.subtype), expected)

    def test_default_charset(self) -> None:
        """RFC 2045 §5.2: without Content-Type; what is stated is not added to."""
        self.assertEqual(self.part(b"X: y").parameters, ((b"charset", b"us-ascii"),))
        self.assertEqual(self.part(b"Content-Type: nonsense; a=b").parameters, ((b"charset", b"us-ascii"),))
        self.assertEqual(self.part(b"Content-Type: text/plain").parameters, ())
        self.assertEqual(self.part(b"Content-Type: text/plain").charset, "")

    def test_charset(self) -> None:
        for value, expected in (
            (b"UTF-8", "utf-8"),
            (b'"utf-8"', "utf-8"),
            (b"utf-8 (comment)", "utf-8"),
            (b"x; charset=y", "x"),
            (b"\xe4", "ä"),
            (b"x" * 300, "x" * 100),
        ):
            part = self.part(b"Content-Type: text/plain; charset=" + value)
            self.assertEqual(part.charset, expected)
        self.assertEqual(self.part(b"Content-Type: text/plain; charset*=''utf%2d8").charset, "utf-8")

    def test_encoding(self) -> None:
        for value, expected in (
            (b"BASE64", "base64"),
            (b" quoted-printable ", "quoted-printable"),
            (b"quoted-printable; x=y", "quoted-printable"),
            (b"8bit (comment)", "8bit"),
            (b"8bit(comment)", "8bit"),
            (b"(comment) 8bit", "8bit"),
            (b"(8bit)", "7bit"),
            (b'"base64"', "base64"),
            (b"x-uuencode", "x-uuencode"),
            (b"7-bit", "7-bit"),
            # RFC 2045 §6.1: no token, so not given.
            (b"", "7bit"),
            (b"text/html", "7bit"),
            (b"text/html; charset=utf-8", "7bit"),
            (b"\xe4", "7bit"),
            (b"b\xe4", "7bit"),
            (b"x" * 65, "7bit"),
        ):
            with self.subTest(value=value):
                self.assertEqual(self.part(b"Content-Transfer-Encoding: " + value).encoding, expected)
        self.assertEqual(self.part(b"X: y").encoding, "7bit")

    def test_the_first_of_two_counts(self) -> None:
        part = self.part(b"Content-Type: text/html\r\nContent-Type: image/png")
        self.assertEqual((part.type, part.subtype), ("text", "html"))

    def test_names_of_fields(self) -> None:
        self.assertEqual(self.part(b"CONTENT-TYPE: text/html").subtype, "html")
        self.assertEqual(self.part(b"Content-Type : text/html").subtype, "html")
        self.assertEqual(self.part(b"Content-Type:text/html").subtype, "html")
        self.assertEqual(self.part(b" Content-Type: text/html").subtype, "plain")
        self.assertEqual(self.part(b"X: y\r\n Content-Type: text/html").subtype, "plain")


class LimitTests(SynchronousTestCase):
    """Past a limit a part is opaque, or something is left out; offsets stay right."""

    def test_parts(self) -> None:
        message = corpus.many_parts(10)
        outline = scan(message, StructureLimits(parts=5))
        self.assertEqual(shape(outline.root), ("mixed", *["plain"] * 4, "octet-stream"))
        last = outline.root.children[-1]
        # The rest, header lines, boundaries and all.
        self.assertTrue(message[: last.body_start].endswith(b"part 3\r\n--b\r\n"))
        self.assertEqual(last.body_end, len(message))
        check_outline(self, message, outline)
        self.assertEqual(len(scan(corpus.many_parts(2000)).root.children), 1000)

    def test_embedded_messages_count_as_parts(self) -> None:
        limits = StructureLimits(parts=3)
        part = b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ntext\r\n"
        outline = scan(MIXED + part * 3 + b"--b--", limits)
        self.assertEqual(shape(outline.root), ("mixed", ("rfc822", "plain"), "octet-stream"))
        embedded = b"Content-Type: message/rfc822\r\n\r\n" * 10
        self.assertEqual(shape(scan(embedded, limits).root), ("rfc822", ("rfc822", "octet-stream")))

    def test_depth(self) -> None:
        message = corpus.deep(100)
        for limit in (1, 2, 3, 50):
            outline = scan(message, StructureLimits(depth=limit))
            part, depth = outline.root, 1
            while part.children:
                [part] = part.children
                depth += 1
            self.assertEqual(depth, limit)
            self.assertEqual((part.type, part.subtype), ("application", "octet-stream"))
            check_outline(self, message, outline)
        embedded = b"Content-Type: message/rfc822\r\n\r\n" * 100
        self.assertEqual(len(walk(scan(embedded).root)), 50)

    def test_header(self) -> None:
        """What is past the limit of one header is not looked at."""
        filler = b"X: " + b"y" * 95 + b"\r\n"
        message = b"Subject: s\r\n" + filler * 10 + b"To: a@b\r\n\r\ntext"
        outline = scan(message, StructureLimits(header=1000))
        self.assertEqual(read_envelope(outline.envelope)[1], b"s")
        self.assertIsNone(read_envelope(outline.envelope)[5])
        self.assertEqual(outline.header_size, len(message) - 4)

    def test_headers_together(self) -> None:
        part = b"--b\r\nContent-Type: text/html\r\n\r\nx\r\n"
        outline = scan(MIXED + part * 10 + b"--b--", StructureLimits(headers=150))
        kinds = [child.subtype for child in outline.root.children]
        self.assertEqual(kinds[:2], ["html", "html"])
        self.assertEqual(set(kinds[5:]), {"octet-stream"})

    def test_fields(self) -> None:
        message = b"X: y\r\n" * 10 + b"Subject: s\r\n\r\n"
        self.assertIsNone(read_envelope(scan(message, StructureLimits(fields=10)).envelope)[1])
        self.assertEqual(read_envelope(scan(message, StructureLimits(fields=11)).envelope)[1], b"s")

    def test_addresses(self) -> None:
        message = b"To: " + b"a@b," * 30 + b"\r\nCc: " + b"a@b," * 30 + b"\r\n\r\n"
        envelope = read_envelope(scan(message, StructureLimits(addresses=10)).envelope)
        self.assertEqual((len(envelope[5]), len(envelope[6])), (10, 10))
        # Five times as many in a message.
        part = b"--b\r\nContent-Type: message/rfc822\r\n\r\nTo: " + b"a@b," * 30 + b"\r\n\r\n\r\n"
        body = scan(MIXED + part * 8 + b"--b--", StructureLimits(addresses=10)).body
        self.assertEqual(body.count(b'(NIL NIL "a" "b")'), 50)

    def test_parameters(self) -> None:
        message = b"Content-Type: text/plain" + b"; a=b" * 30 + b"\r\n\r\n"
        self.assertEqual(len(scan(message, StructureLimits(parameters=10)).root.parameters), 10)

    def test_boundary(self) -> None:
        message = b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n--%s\r\n\r\nx\r\n--%s--"
        for length, expected in ((200, ("mixed", "plain")), (201, "plain")):
            boundary = b"b" * length
            self.assertEqual(shape(scan(message % (boundary, boundary, boundary)).root), expected)
        limits = StructureLimits(boundary=1)
        for boundary, expected in ((b"b", ("mixed", "plain")), (b"bb", "plain")):
            outline = scan(message % (boundary, boundary, boundary), limits)
            self.assertEqual(shape(outline.root), expected)

    def test_white_space_after_a_boundary(self) -> None:
        for blanks, parts in ((60, 1), (300, 1)):
            message = MIXED + b"--b\r\n\r\nx\r\n--b--" + b" " * blanks + b"\r\n"
            self.assertEqual(len(scan(message).root.children), parts)


def check_outline(test: SynchronousTestCase, message: bytes, outline: Outline) -> None:
    """What holds for any octets."""
    test.assertEqual(outline.size, len(message))
    test.assertLessEqual(outline.header_size, len(message))
    test.assertEqual(outline.root.header_start, 0)
    test.assertEqual(outline.root.body_start, outline.header_size)
    test.assertEqual(outline.root.body_end, len(message))
    for part in walk(outline.root):
        test.assertLessEqual(part.header_start, part.body_start)
        test.assertLessEqual(part.body_start, part.body_end)
        end = part.body_start
        for child in part.children:
            test.assertLessEqual(end, child.header_start)
            end = child.body_end
        if part.message is not None:
            test.assertEqual(part.message.header_start, part.body_start)
            test.assertEqual(part.message.body_end, part.body_end)
        test.assertLessEqual(end, part.body_end)
        counts = part.type == "text" or part.message is not None
        lines = message.count(b"\n", part.body_start, part.body_end) if counts else 0
        test.assertEqual(part.lines, lines)
    read_envelope(outline.envelope)
    check_body(test, outline.root, read_body(outline.body, False))
    check_body(test, outline.root, read_body(outline.bodystructure, True))


def check_body(test: SynchronousTestCase, part: Part, body: Body) -> None:
    """What IMAP is told is what is there."""
    test.assertEqual((body.type.decode(), body.subtype.decode()), (part.type, part.subtype))
    if part.children:
        test.assertEqual(len(body.children), len(part.children))
        for child, told in zip(part.children, body.children, strict=True):
            check_body(test, child, told)
        return
    test.assertEqual(body.octets, part.body_end - part.body_start)
    test.assertEqual(body.encoding.decode(), part.encoding)
    test.assertEqual(body.lines or 0, part.lines)
    if part.message is not None:
        assert body.message is not None
        check_body(test, part.message, body.message)


#: Pieces that a message may be made of when nobody means well.
SCRAPS = st.lists(
    st.sampled_from(
        (
            b"Content-Type: multipart/mixed; boundary=b\r\n",
            b"Content-Type: multipart/mixed; boundary=bb\r\n",
            b'Content-Type: multipart/digest; boundary="b c"\n',
            b"Content-Type: message/rfc822\r\n",
            b"Content-Type:\r\n text/html;\r\n\tname*0=a; name*1*=%62\r\n",
            b'Content-Disposition: attachment; filename="\xe4\\""\r\n',
            b'From: g: a b <c@d>;, "\0"\r\n',
            b"Subject: \xff\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"--b\r\n",
            b"--b\n",
            b"--b--\r\n",
            b"--bb\r\n",
            b"--bb--",
            b"--b c \r\n",
            b"--",
            b"-",
            b"b",
            b" ",
            b"text\r\n",
            b"-" * 300,
            b"\0",
        )
    )
    | st.binary(max_size=10),
    max_size=30,
).map(b"".join)


class PropertyTests(SynchronousTestCase):
    @given(SCRAPS)
    def test_anything(self, message: bytes) -> None:
        check_outline(self, message, scan(message))

    @given(SCRAPS, st.lists(st.integers(0, 400), max_size=8))
    def test_chunks(self, message: bytes, cuts: list[int]) -> None:
        """However a message was cut, its outline is the same."""
        whole = Scanner()
        whole.feed(message)
        record = whole.record()
        pieces = Scanner()
        places = [0, *sorted(cuts), len(message)]
        for start, end in itertools.pairwise(places):
            pieces.feed(message[start:end])
        self.assertEqual(pieces.record(), record)
        single = Scanner()
        for octet in message:
            single.feed(bytes([octet]))
        self.assertEqual(single.record(), record)

    @given(SCRAPS)
    def test_small_limits(self, message: bytes) -> None:
        limits = StructureLimits(40, 100, 3, 2, 2, 4, 3, 3)
        outline = scan(message, limits)
        check_outline(self, message, outline)
        self.assertEqual(scan(message, limits, 1), outline)

    @given(trees.TREES)
    def test_trees(self, tree: trees.Node) -> None:
        """The parts put in are the parts found."""
        written = trees.write(tree)
        outline = scan(written.octets)
        check_outline(self, written.octets, outline)
        self.compare(outline.root, written)

    def compare(self, part: Part, written: trees.Written) -> None:
        self.assertEqual(f"{part.type}/{part.subtype}", written.type)
        inside = part.children or ((part.message,) if part.message is not None else ())
        for child, each in zip(inside, written.children, strict=True):
            self.compare(child, each)

    def test_corpus(self) -> None:
        for name in corpus.NAMES:
            with self.subTest(name=name):
                message = corpus.message(name)
                outline = scan(message)
                check_outline(self, message, outline)
                for size in (1, 7, 1000) if len(message) < 50_000 else (1000,):
                    self.assertEqual(scan(message, size=size), outline)
