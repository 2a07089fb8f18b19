"""ENVELOPE, BODY and BODYSTRUCTURE as clients read them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.message import rendering
from mailplat.message.addresses import parse
from mailplat.message.structure import Scanner
from mailplat.testing import corpus
from tests.message.imap_data import Body, _Reader, read_body, read_envelope


def rendered(message: bytes) -> tuple[bytes, bytes, bytes]:
    """ENVELOPE, BODY, BODYSTRUCTURE."""
    scanner = Scanner()
    scanner.feed(message)
    outline = scanner.finish()
    return outline.envelope, outline.body, outline.bodystructure


def envelope(header: bytes) -> tuple[Any, ...]:
    return read_envelope(rendered(header + b"\r\n\r\n")[0])


def structure(message: bytes) -> Body:
    return read_body(rendered(message)[2], True)


class StringTests(SynchronousTestCase):
    """RFC 3501 §9: what cannot be quoted is a literal."""

    def test_quoted(self) -> None:
        self.assertEqual(rendering.string(b""), b'""')
        self.assertEqual(rendering.string(b"a b"), b'"a b"')
        self.assertEqual(rendering.string(b"NIL"), b'"NIL"')
        self.assertEqual(rendering.string(rb'a "b" \c'), rb'"a \"b\" \\c"')
        self.assertEqual(rendering.string(b"tab\t\x01\x7f"), b'"tab\t\x01\x7f"')
        self.assertEqual(rendering.string(b"{3}"), b'"{3}"')

    def test_literal(self) -> None:
        self.assertEqual(rendering.string(b"\xc3\xa4"), b"{2}\r\n\xc3\xa4")
        self.assertEqual(rendering.string(b'\xff"'), b'{2}\r\n\xff"')
        self.assertEqual(rendering.string(b"a\rb"), b"{3}\r\na\rb")
        self.assertEqual(rendering.string(b"a\nb"), b"{3}\r\na\nb")

    def test_nul(self) -> None:
        """No string may hold one."""
        self.assertEqual(rendering.string(b"a\0b"), b"{2}\r\nab")
        self.assertEqual(rendering.string(b"\0"), b"{0}\r\n")

    def test_long(self) -> None:
        """Clients may bound their lines."""
        most = b"x" * rendering.LONGEST_QUOTED
        self.assertEqual(rendering.string(most), b'"' + most + b'"')
        self.assertEqual(rendering.string(most + b"x"), b"{1001}\r\n" + most + b"x")

    def test_nil(self) -> None:
        self.assertEqual(rendering.nstring(None), b"NIL")
        self.assertEqual(rendering.nstring(b""), b'""')

    @given(st.binary(max_size=40))
    def test_anything(self, value: bytes) -> None:
        reader = _Reader(rendering.string(value))
        self.assertEqual(reader.string(), value.replace(b"\0", b""))
        reader.end()


class EnvelopeTests(SynchronousTestCase):
    """RFC 3501 §7.4.2."""

    def test_all_fields(self) -> None:
        header = (
            b'Date: Tue, 24 Feb 2026 10:30:00 +0100\r\nSubject: a "b"\r\nFrom: A <a@x>\r\nSender: b@x\r\n'
            b"Reply-To: c@x\r\nTo: d@x, D <e@x>\r\nCc: f@x\r\nBcc: g@x\r\n"
            b"In-Reply-To: <1@x>\r\nMessage-ID: <2@x>"
        )
        self.assertEqual(
            rendered(header + b"\r\n\r\n")[0],
            b'("Tue, 24 Feb 2026 10:30:00 +0100" "a \\"b\\"" (("A" NIL "a" "x")) ((NIL NIL "b" "x"))'
            b' ((NIL NIL "c" "x")) ((NIL NIL "d" "x")("D" NIL "e" "x")) ((NIL NIL "f" "x"))'
            b' ((NIL NIL "g" "x")) "<1@x>" "<2@x>")',
        )

    def test_nothing(self) -> None:
        self.assertEqual(rendered(b"")[0], b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)")

    def test_absent_is_nil_and_empty_is_empty(self) -> None:
        fields = envelope(b"Date:\r\nSubject: \r\nIn-Reply-To:\r\nMessage-ID:\t")
        self.assertEqual(fields, (b"", b"", *[None] * 6, b"", b""))

    def test_sender_and_reply_to_default_to_from(self) -> None:
        author = ((None, None, b"a", b"x"),)
        for more in (b"", b"\r\nSender:\r\nReply-To:", b"\r\nSender: ,\r\nReply-To: (none)"):
            self.assertEqual(envelope(b"From: a@x" + more)[2:5], (author, author, author))

    def test_folded(self) -> None:
        self.assertEqual(envelope(b"Subject: a\r\n b\r\n\tc\r\nTo: a@x,\r\n b@x")[1], b"a b\tc")
        self.assertEqual(len(envelope(b"Subject: a\nTo: a@x,\n b@x")[5]), 2)

    def test_white_space_around_values_goes(self) -> None:
        self.assertEqual(envelope(b"Subject: \t a  b \r\nDate:x\r\n y \r\n ")[:2], (b"x y", b"a  b"))

    def test_repeated(self) -> None:
        """The first counts; of addresses all do (RFC 5322 §3.6 allows none to be repeated)."""
        fields = envelope(b"Subject: 1\r\nSubject: 2\r\nTo: a@x\r\nTo: b@x")
        self.assertEqual(fields[1], b"1")
        self.assertEqual(fields[5], ((None, None, b"a", b"x"), (None, None, b"b", b"x")))

    def test_groups(self) -> None:
        self.assertEqual(
            rendered(b"To: x: a@y;, z:;\r\n\r\n")[0],
            b'(NIL NIL NIL NIL NIL ((NIL NIL "x" NIL)(NIL NIL "a" "y")(NIL NIL NIL NIL)(NIL NIL "z" NIL)'
            b"(NIL NIL NIL NIL)) NIL NIL NIL NIL)",
        )

    def test_8_bit(self) -> None:
        """Bytes go out as they came (RFC 6532), encoded words too."""
        self.assertEqual(envelope("Subject: Grüße".encode())[1], "Grüße".encode())
        self.assertEqual(envelope(b"Subject: Gr\xfc\xdfe")[1], b"Gr\xfc\xdfe")
        self.assertEqual(envelope(b"Subject: =?utf-8?q?Gr=C3=BC?=")[1], b"=?utf-8?q?Gr=C3=BC?=")
        self.assertEqual(envelope(b"Subject: a\0b")[1], b"ab")

    def test_names_of_fields(self) -> None:
        self.assertEqual(envelope(b"SUBJECT: x")[1], b"x")
        self.assertEqual(envelope(b"Subject \t: x")[1], b"x")
        self.assertIsNone(envelope(b"Subject")[1])
        self.assertIsNone(envelope(b"X-Subject: x")[1])
        self.assertIsNone(envelope(b"X: y\r\n Subject: x")[1])

    def test_only_the_header(self) -> None:
        self.assertIsNone(envelope(b"X: y\r\n\r\nSubject: x")[1])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from((b"From", b"To", b"Subject", b"Date", b"Sender")), st.binary(max_size=30)
            )
        )
    )
    def test_anything(self, fields: list[tuple[bytes, bytes]]) -> None:
        envelope(b"\r\n".join(name + b": " + value for name, value in fields))

    def test_address_list(self) -> None:
        self.assertEqual(rendering.address_list([]), b"NIL")
        self.assertEqual(rendering.address_list(parse(b"<@r:a@b>")), b'((NIL "@r" "a" "b"))')
        self.assertEqual(rendering.address_list(parse(b"nobody")), b'((NIL NIL "nobody" ""))')


class BodyTests(SynchronousTestCase):
    """RFC 3501 §7.4.2: BODY is BODYSTRUCTURE without extension data."""

    def test_text(self) -> None:
        message = (
            b"Content-Type: text/plain; charset=utf-8; format=flowed\r\nContent-Transfer-Encoding: 8BIT\r\n"
            b"Content-ID: <1@x>\r\nContent-Description: what it is\r\n\r\none\r\ntwo\r\n"
        )
        body = b'("text" "plain" ("charset" "utf-8" "format" "flowed") "<1@x>" "what it is" "8bit" 10 2'
        self.assertEqual(rendered(message)[1:], (body + b")", body + b" NIL NIL NIL NIL)"))

    def test_defaults(self) -> None:
        body = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0'
        self.assertEqual(rendered(b"\r\nabc")[1:], (body + b")", body + b" NIL NIL NIL NIL)"))

    def test_no_charset_is_invented(self) -> None:
        """For what is stated without one: that a client may guess better is its good right."""
        self.assertIsNone(structure(b"Content-Type: text/html\r\n\r\n").parameters)

    def test_basic(self) -> None:
        """No lines but for text and messages."""
        self.assertEqual(
            rendered(b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n")[1],
            b'("image" "png" NIL NIL NIL "base64" 6)',
        )

    def test_extension(self) -> None:
        """MD5 (RFC 1864), disposition (RFC 2183), language (RFC 3282), location (RFC 2557)."""
        message = (
            b"Content-Type: image/png\r\nContent-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\r\n"
            b'Content-Disposition: ATTACHMENT; filename="a b.png"; size=3\r\nContent-Language: de, en\r\n'
            b"Content-Location: http://x/y\r\n\r\nabc"
        )
        self.assertEqual(
            rendered(message)[2],
            b'("image" "png" NIL NIL NIL "7bit" 3 "Q2hlY2sgSW50ZWdyaXR5IQ==" '
            b'("attachment" ("filename" "a b.png" "size" "3")) ("de" "en") "http://x/y")',
        )

    def test_dispositions(self) -> None:
        for value, expected in (
            (b"inline", (b"inline", None)),
            (b"inline; x", (b"inline", None)),
            (b"", None),
            (b"; filename=x", None),
            (b"(comment)", None),
            (b"attachment; filename*0=a; filename*1=b", (b"attachment", ((b"filename", b"ab"),))),
            (
                b"attachment; filename*1*=%20b; filename*0*=utf-8''a; x=y",
                (b"attachment", ((b"filename*", b"utf-8''a%20b"), (b"x", b"y"))),
            ),
        ):
            with self.subTest(value=value):
                body = structure(b"Content-Disposition: " + value + b"\r\n\r\n")
                self.assertEqual(body.extension[1], expected)

    def test_languages(self) -> None:
        for value, expected in (
            (b"de", b"de"),
            (b"de,en", (b"de", b"en")),
            (b" de , ,en,", (b"de", b"en")),
            (b"", None),
            (b",", None),
            (b"d\xe9", b"d\xe9"),
        ):
            self.assertEqual(structure(b"Content-Language: " + value + b"\r\n\r\n").extension[2], expected)
        self.assertEqual(len(structure(b"Content-Language: " + b"a," * 200 + b"\r\n\r\n").extension[2]), 100)

    def test_multipart(self) -> None:
        _, body, extended = rendered(corpus.message("alternative"))
        plain = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 5 0'
        html = b'("text" "html" ("charset" "us-ascii") NIL NIL "7bit" 11 0'
        self.assertEqual(body, b'(%s)%s) "alternative")' % (plain, html))
        self.assertEqual(
            extended,
            b'(%s NIL NIL NIL NIL)%s NIL NIL NIL NIL) "alternative" ("boundary" "alt") NIL NIL NIL)'
            % (plain, html),
        )

    def test_multipart_extension(self) -> None:
        """No MD5, but the others (RFC 3501 §9 body-ext-mpart)."""
        message = (
            b"Content-Type: multipart/mixed; boundary=b\r\nContent-Disposition: inline\r\n"
            b"Content-Language: de\r\nContent-Location: x\r\nContent-MD5: y\r\n\r\n--b\r\n\r\n--b--"
        )
        body = structure(message)
        self.assertEqual(body.extension, (None, (b"inline", None), b"de", b"x"))
        self.assertEqual(body.parameters, ((b"boundary", b"b"),))

    def test_multipart_without_parts(self) -> None:
        """The grammar wants at least one."""
        _, body, extended = rendered(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n")
        self.assertEqual(body, b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) "mixed")')
        self.assertEqual(len(read_body(extended, True).children), 1)

    def test_embedded_message(self) -> None:
        body = structure(corpus.message("forwarded")).children[1]
        inner = corpus.message("alternative").removesuffix(b"\r\n")
        assert body.envelope is not None and body.message is not None
        self.assertEqual(body.envelope[1], b"alternative")
        self.assertEqual(body.octets, len(inner))
        self.assertEqual(body.lines, inner.count(b"\n"))
        self.assertEqual(body.message.subtype, b"alternative")
        self.assertEqual([child.octets for child in body.message.children], [5, 11])
        self.assertEqual(body.extension, (None, None, None, None))

    def test_parameters(self) -> None:
        for value, expected in (
            (b'; name="a \\"b\\""', ((b"name", b'a "b"'),)),
            (b"; NAME=Value", ((b"name", b"Value"),)),
            (b"; name=\xc3\xa4", ((b"name", b"\xc3\xa4"),)),
            (b"; name=This is a test.txt", ((b"name", b"This is a test.txt"),)),
            (b"; name*=utf-8''%C3%A4", ((b"name*", b"utf-8''%C3%A4"),)),
            (b"; name=", ((b"name", b""),)),
            (b"; name", None),
            (b"; a=1; a=2", ((b"a", b"1"), (b"a", b"2"))),
        ):
            with self.subTest(value=value):
                self.assertEqual(
                    structure(b"Content-Type: image/png" + value + b"\r\n\r\n").parameters, expected
                )

    @given(
        st.binary(max_size=60), st.sampled_from((b"Type", b"Disposition", b"Language", b"ID", b"Description"))
    )
    def test_anything(self, value: bytes, name: bytes) -> None:
        header = b"Content-" + name + b": " + value.replace(b"\n", b"") + b"\r\n\r\n"
        _, body, extended = rendered(header)
        read_body(body, False)
        read_body(extended, True)
        read_body(rendered(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + header)[2], True)
