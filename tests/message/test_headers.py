"""Fields, charsets, transfer encodings, encoded words and parameters."""

from __future__ import annotations

import base64
import quopri
from email.header import Header

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.message.headers import (
    LONGEST_NAME,
    codec,
    decode,
    decode_words,
    fields,
    from_base64,
    from_quoted_printable,
    parameter_texts,
    parse_parameters,
    unfolded,
)


class FieldTests(SynchronousTestCase):
    def test_fields(self) -> None:
        header = b"From: a\r\nSUBJECT :  b \r\n\tc\r\nX:\r\nno colon\r\nX: d:e\r\n\r\n"
        self.assertEqual(
            fields(header), [(b"from", b"a"), (b"subject", b"b \tc"), (b"x", b""), (b"x", b"d:e")]
        )
        self.assertEqual(fields(header.replace(b"\r", b"")), fields(header))
        self.assertEqual(fields(b"From: a"), [(b"from", b"a")])
        self.assertEqual(fields(b""), [])

    def test_most(self) -> None:
        self.assertEqual(len(fields(b"X: y\r\n" * 10, 3)), 3)

    def test_unfolded(self) -> None:
        """RFC 5322 §2.2.3: the line end goes, the white space stays."""
        self.assertEqual(unfolded(b"A: b\r\n c\r\n\td\n e\r\n\r\nf"), b"A: b c\td e\r\n\r\nf")
        self.assertEqual(unfolded(b"A: b\r c"), b"A: b\r c")

    @given(st.binary(max_size=60))
    def test_anything(self, header: bytes) -> None:
        for name, value in fields(header):
            self.assertEqual(name, name.lower().strip())
            self.assertNotIn(b"\n", name + value)


class CharsetTests(SynchronousTestCase):
    def test_names(self) -> None:
        for name, expected in (
            ("utf-8", "utf_8"),
            ("UTF8", "utf_8"),
            (" 'utf-8' ", "utf_8"),
            ("US-ASCII", "ascii"),
            ("ansi_x3.4-1968", "ascii"),
            ("iso-8859-1", "cp1252"),
            ("latin1", "cp1252"),
            ("ISO_8859-15", "iso8859_15"),
            ("windows-1252", "cp1252"),
            ("gb2312", "gb18030"),
            ("ks_c_5601-1987", "cp949"),
            ("shift_jis", "cp932"),
            ("koi8-r", "koi8_r"),
            ("iso-8859-8-i", "iso8859_8"),
            ("x-sjis", "cp932"),
        ):
            self.assertEqual(codec(name), expected, name)

    def test_no_charsets(self) -> None:
        """Codecs of Python that a message must not reach."""
        for name in (
            "",
            "x",
            "idna",
            "punycode",
            "unicode_escape",
            "zlib",
            "rot13",
            "mbcs",
            "x" * 100,
            "../os",
        ):
            self.assertIsNone(codec(name), name)

    def test_decode(self) -> None:
        for raw, charset, text in (
            (b"\xc3\xa4", "", "ä"),
            (b"\xe4", "", "ä"),
            (b"\xc3\xa4", "us-ascii", "ä"),
            (b"\x80", "iso-8859-1", "€"),
            (b"\xff\xfe", "utf-8", "��"),
            (b"\xc3\xa4", "unknown-8bit", "ä"),
            (b"\x81", "windows-1252", "�"),
            (b"\xa4\xb3", "euc-jp", "こ"),
            (b"", "utf-8", ""),
        ):
            self.assertEqual(decode(raw, charset), text)

    @given(
        st.binary(max_size=40),
        st.text(max_size=20) | st.sampled_from(("utf-16", "utf-7", "hz", "iso-2022-kr")),
    )
    def test_anything(self, raw: bytes, charset: str) -> None:
        decode(raw, charset)


class TransferEncodingTests(SynchronousTestCase):
    @given(st.binary(max_size=100))
    def test_base64(self, octets: bytes) -> None:
        encoded = base64.encodebytes(octets)
        self.assertEqual(from_base64(encoded), octets)
        self.assertEqual(from_base64(encoded.replace(b"=", b"").replace(b"\n", b"\r\n !")), octets)

    @given(st.binary(max_size=100))
    def test_quoted_printable(self, octets: bytes) -> None:
        octets = octets.replace(b"\r", b"")
        self.assertEqual(from_quoted_printable(quopri.encodestring(octets, quotetabs=True)), octets)

    @given(st.binary(max_size=100))
    def test_anything(self, octets: bytes) -> None:
        from_base64(octets)
        from_quoted_printable(octets)


class EncodedWordTests(SynchronousTestCase):
    """RFC 2047."""

    def test_examples(self) -> None:
        """§8."""
        for raw, text in (
            (b"=?ISO-8859-1?Q?a?=", "a"),
            (b"=?ISO-8859-1?Q?a?= b", "a b"),
            (b"=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
            (b"=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=", "ab"),
            (b"=?ISO-8859-1?Q?a?=\r\n =?ISO-8859-1?Q?b?=", "ab"),
            (b"=?ISO-8859-1?Q?a_b?=", "a b"),
            (b"=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
            (b"=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>"),
            (b"=?ISO-8859-1?Q?Andr=E9?= Pirard", "André Pirard"),
            (
                b"=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=\r\n"
                b" =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
                "If you can read this you understand the example.",
            ),
        ):
            self.assertEqual(decode_words(raw), text)

    def test_what_mail_brings(self) -> None:
        for raw, text in (
            (b"plain", "plain"),
            (b"", ""),
            ("Grüße".encode(), "Grüße"),
            (b"Gr\xfc\xdfe", "Grüße"),
            (b"=?utf-8?q?a?= and =?utf-8?q?b?=, =?utf-8?q?c?=", "a and b, c"),
            # A character cut in two.
            (b"=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "ä"),
            (b"=?utf-8?b?w6Q=?= =?utf-8?q?=C3=A4?=", "ää"),
            # RFC 2231 §5: with a language.
            (b"=?utf-8*de?q?=C3=A4?=", "ä"),
            # Spaces inside, against RFC 2047 §2.
            (b"=?utf-8?q?a b?=", "a b"),
            (b"=?x-unknown?q?=C3=A4?=", "ä"),
            (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
            (b"=?utf-8?q?abc", "=?utf-8?q?abc"),
            (b"=?utf-8?b?w6?=", "�"),
            (b"a=?utf-8?q?b?=c", "abc"),
            (b"=??q?a?=", "=??q?a?="),
        ):
            with self.subTest(raw=raw):
                self.assertEqual(decode_words(raw), text)

    @given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=60))
    def test_what_was_encoded_is_decoded(self, text: str) -> None:
        for line in (Header(text, "utf-8").encode(), Header(text, "utf-8", maxlinelen=30).encode()):
            self.assertEqual(decode_words(line.encode()), text)

    @given(st.binary(max_size=60) | st.text("=?qQbB utf-8_", max_size=60).map(str.encode))
    def test_anything(self, raw: bytes) -> None:
        decode_words(raw)


class ParameterTests(SynchronousTestCase):
    """RFC 2045 §5.1."""

    def check(self, value: bytes, head: bytes, *parameters: tuple[bytes, bytes]) -> None:
        with self.subTest(value=value):
            self.assertEqual(parse_parameters(value), (head, list(parameters)))

    def test_plain(self) -> None:
        self.check(b"text/plain", b"text/plain")
        self.check(b" text/plain ;", b"text/plain")
        self.check(b"text/plain; charset=utf-8", b"text/plain", (b"charset", b"utf-8"))
        self.check(b"a;b=c;d=e", b"a", (b"b", b"c"), (b"d", b"e"))
        self.check(b"a; B = c ; d = e", b"a", (b"b", b"c"), (b"d", b"e"))
        self.check(b"", b"")
        self.check(b";a=b", b"", (b"a", b"b"))

    def test_quoted(self) -> None:
        self.check(b'a; b="c d; e=f"; g=h', b"a", (b"b", b"c d; e=f"), (b"g", b"h"))
        self.check(rb'a; b="c\"d\\"', b"a", (b"b", b'c"d\\'))
        self.check(b'a; b=""', b"a", (b"b", b""))
        self.check(b'a; b="never closed; c=d', b"a", (b"b", b"never closed; c=d"))
        self.check(b'a; b="x"y; c=d', b"a", (b"b", b"x"), (b"c", b"d"))

    def test_comments(self) -> None:
        self.check(b"a (x; y) ; b=c", b"a", (b"b", b"c"))
        self.check(b"a (x (y) \\) z); b=c", b"a", (b"b", b"c"))
        self.check(b"a; (x) b=c", b"a", (b"b", b"c"))
        self.check(b"a; b=c (x)", b"a", (b"b", b"c"))
        self.check(b"a (never closed; b=c", b"a")
        self.check(b"a)b; c=d", b"a)b", (b"c", b"d"))

    def test_mistakes(self) -> None:
        self.check(b"a; ; ;b=c;;", b"a", (b"b", b"c"))
        self.check(b"a; b; c=d", b"a", (b"c", b"d"))
        self.check(b"a; b=; c=d", b"a", (b"b", b""), (b"c", b"d"))
        self.check(b"a; =b; c=d", b"a", (b"c", b"d"))
        self.check(b"a; b=two words; c=d", b"a", (b"b", b"two words"), (b"c", b"d"))
        self.check(b"a; b=c=d", b"a", (b"b", b"c=d"))
        self.check(b"a; b=c; b=d", b"a", (b"b", b"c"), (b"b", b"d"))
        self.check(b"a; b=\xe4", b"a", (b"b", b"\xe4"))
        self.check(b"a; " + b"x" * (LONGEST_NAME + 1) + b"=1; c=d", b"a", (b"c", b"d"))

    def test_most(self) -> None:
        self.assertEqual(len(parse_parameters(b"a" + b"; b=c" * 10, 4)[1]), 4)
        self.assertEqual(parse_parameters(b"a; b=c", 0), (b"a", []))

    def test_continuations(self) -> None:
        """RFC 2231 §3, §4.1, §6."""
        self.check(b"a; u*0=x; u*1=y; u*2=z", b"a", (b"u", b"xyz"))
        self.check(b'a; u*1="y z"; b=c; u*0=x', b"a", (b"u", b"xy z"), (b"b", b"c"))
        self.check(b"a; u*=us-ascii'en-us'x%20y", b"a", (b"u*", b"us-ascii'en-us'x%20y"))
        self.check(
            b"a; t*0*=us-ascii'en'This%20is%20even%20more%20;"
            b' t*1*=%2A%2A%2Afun%2A%2A%2A%20; t*2="isn\'t it!"',
            b"a",
            (b"t*", b"us-ascii'en'This%20is%20even%20more%20%2A%2A%2Afun%2A%2A%2A%20isn%27t%20it!"),
        )
        self.check(b"a; u*0=x%; u*1*=%C3%A4", b"a", (b"u*", b"''x%25%C3%A4"))

    def test_continuations_with_gaps(self) -> None:
        self.check(b"a; u*0=x; u*2=z", b"a", (b"u", b"x"))
        self.check(b"a; u*1=y; b=c", b"a", (b"b", b"c"))
        self.check(b"a; u*0=x; u*0=y", b"a", (b"u", b"x"))
        self.check(b"a; u*0=x; v*0=y; u*1=z", b"a", (b"u", b"xz"), (b"v", b"y"))
        self.check(
            b"a; *0=x; u**=y; u*x=z; u*99999=w",
            b"a",
            (b"*0", b"x"),
            (b"u**", b"y"),
            (b"u*x", b"z"),
            (b"u*99999", b"w"),
        )

    def test_texts(self) -> None:
        for value, expected in (
            (b"a; b=c; D=e", {"b": "c", "d": "e"}),
            (b"a; b=c; b=d", {"b": "c"}),
            (b"a; f*=utf-8''%C3%A4; f=x", {"f": "ä"}),
            (b"a; f=x; f*=utf-8''%C3%A4", {"f": "ä"}),
            (b"a; f*0*=utf-8''%C3; f*1*=%A4; f*2=b", {"f": "äb"}),
            (b"a; f*=iso-8859-1'de'%E4", {"f": "ä"}),
            (b"a; f*=%C3%A4", {"f": "ä"}),
            (b"a; f*=x-unknown''%C3%A4", {"f": "ä"}),
            (b"a; f==?utf-8?q?=C3=A4?=", {"f": "ä"}),
            (b"a; f=\xe4", {"f": "ä"}),
        ):
            with self.subTest(value=value):
                self.assertEqual(parameter_texts(parse_parameters(value)[1]), expected)

    @given(
        st.lists(
            st.tuples(st.text("abc", min_size=1, max_size=5), st.text(' ;="\\()a*é\t', max_size=8)),
            max_size=5,
        )
    )
    def test_what_was_written_is_read(self, parameters: list[tuple[str, str]]) -> None:
        value = "head"
        for name, text in parameters:
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            value += f'; {name}="{escaped}"'
        expected = [(name.encode(), text.encode()) for name, text in parameters]
        self.assertEqual(parse_parameters(value.encode()), (b"head", expected))

    @given(st.binary(max_size=60) | st.text(' ;="\\()a*0\r\n', max_size=60).map(str.encode))
    def test_anything(self, value: bytes) -> None:
        parameter_texts(parse_parameters(value)[1])
