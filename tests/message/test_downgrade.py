"""8-bit messages made 7-bit ones: what they say stays the same."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.errors import CannotConvert
from mailplat.message import downgrade
from mailplat.message.downgrade import HEADER, converted, plan, regions
from mailplat.message.structure import Scanner, StructureLimits
from mailplat.testing import corpus


def crlf(text: str, charset: str = "utf-8") -> bytes:
    return text.replace("\n", "\r\n").encode(charset)


def seven_bit(message: bytes, length: int = 65536, limits: StructureLimits | None = None) -> bytes:
    """The message after conversion; `length` octets are read at a time."""
    scanner = Scanner(limits or StructureLimits())
    scanner.feed(message)
    found = regions(scanner.finish())
    # The regions are the message, whatever it is.
    assert b"".join([message[region.start : region.end] for region in found]) == message
    eight_bit = {
        index for index, region in enumerate(found) if not message[region.start : region.end].isascii()
    }
    headers = {
        index: message[region.start : region.end]
        for index, region in enumerate(found)
        if region.kind == HEADER
    }

    async def read(start: int, wanted: int) -> bytes:
        return message[start : start + wanted]

    async def joined() -> bytes:
        return b"".join([piece async for piece in converted(plan(found, eight_bit, headers), read, length)])

    running = joined()
    try:
        running.send(None)
    except StopIteration as stop:
        result: bytes = stop.value
        return result
    raise AssertionError("it waits for nobody")


def contents(message: bytes) -> list[tuple[str, bytes]]:
    """Type and decoded octets of each part that has no parts."""
    found = []
    for part in email.message_from_bytes(message, policy=email.policy.compat32).walk():
        if not part.is_multipart():
            found.append((part.get_content_type(), part.get_payload(decode=True)))
    return found


MIXED = crlf(
    """\
From: a@a.test
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=outer"
Content-Transfer-Encoding: 8bit

Präambel
--=outer
Content-Type: text/plain; charset=utf-8
content-transfer-encoding:
 8bit
X-After: kept

Grüße  \n--=outer
Content-Type: multipart/alternative; boundary=inner
Content-Transfer-Encoding: 8bit

--inner

plain
--inner
Content-Type: text/html; charset=utf-8

<p>Grüße ohne Etikett</p>
--inner--

--=outer
Content-Type: application/octet-stream
Content-Transfer-Encoding: 8bit

"""
) + bytes(range(128, 256)) + crlf(
    """
--=outer
Content-Type: message/rfc822
Content-Transfer-Encoding: 8bit

Subject: inside
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

"""
) + b"K\xf6ln\r\n" + crlf(
    """\
--=outer
Content-Type: text/plain
Content-Transfer-Encoding: base64

SGVsbG8=
--=outer--
Epilog
"""
)


class Conversion(SynchronousTestCase):
    def test_ascii_stays_as_it_is(self) -> None:
        for name in corpus.NAMES:
            message = corpus.message(name)
            if message.isascii() and b"binary" not in message and b"8bit" not in message:
                self.assertEqual(seven_bit(message), message, name)

    def test_each_kind_of_part(self) -> None:
        for length in (1, 7, 58, 65536):
            result = seven_bit(MIXED, length)
            self.assertTrue(result.isascii())
            self.assertEqual(contents(result)[0], ("text/plain", "Grüße  ".encode()))
            self.assertEqual(contents(result)[1], ("text/plain", b"plain"))
            self.assertEqual(contents(result)[2], ("text/html", "<p>Grüße ohne Etikett</p>".encode()))
            self.assertEqual(contents(result)[3], ("application/octet-stream", bytes(range(128, 256))))
            self.assertEqual(contents(result)[4], ("text/plain", b"K\xf6ln\r\n"[:-2]))
            self.assertEqual(contents(result)[5], ("text/plain", b"Hello"))
            self.assertNotIn(b"8bit", result)
            self.assertIn(b"X-After: kept\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", result)
            self.assertIn(b"\r\n\r\nPr??ambel\r\n--=outer\r\n", result)
            self.assertTrue(result.endswith(b"SGVsbG8=\r\n--=outer--\r\nEpilog\r\n"))
            self.assertLessEqual(max(map(len, result.split(b"\r\n"))), 77)

    def test_no_mime_at_all(self) -> None:
        """RFC 1428: nobody knows which characters they are."""
        result = seven_bit(b"Subject: old\r\n\r\nGr\xfc\xdfe\r\n")
        self.assertEqual(
            result,
            b"Subject: old\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe\r\n",
        )

    def test_no_header(self) -> None:
        self.assertTrue(seven_bit(b"\r\nGr\xfc\xdfe\r\n").endswith(b"printable\r\n\r\nGr=FC=DFe\r\n"))

    def test_what_cannot_be_converted(self) -> None:
        part = "--b\nContent-Type: {}\n{}\n{}\n--b--\n"
        mixed = "MIME-Version: 1.0\nContent-Type: multipart/{}; boundary=b\n\n"
        for text in (
            # Signed or encrypted, at whatever depth.
            mixed.format("signed") + part.format("text/plain", "", "Grüße"),
            mixed.format("encrypted") + part.format("text/plain", "", "Grüße"),
            mixed.format("mixed")
            + "--b\nContent-Type: multipart/signed; boundary=s\n\n--s\n\nGrüße\n--s--\n--b--\n",
            mixed.format("signed") + "Grüße\n" + part.format("text/plain", "", "x"),
            # Headers, of the message and of a part.
            "Subject: Grüße\n\nhello\n",
            mixed.format("mixed") + part.format("text/plain", "X-Name: Grüße\n", "x"),
            # Types that have no encoding but 7bit and 8bit (RFC 2046 §5.2).
            mixed.format("mixed") + part.format("message/partial; number=1; id=x", "", "Grüße"),
            mixed.format("mixed") + part.format("message/delivery-status", "", "Grüße"),
            # Encoded, they say.
            mixed.format("mixed") + part.format("text/plain", "Content-Transfer-Encoding: base64\n", "Grüße"),
            mixed.format("mixed")
            + part.format("text/plain", "Content-Transfer-Encoding: quoted-printable\n", "Grüße"),
        ):
            self.assertRaises(CannotConvert, seven_bit, crlf(text))

    def test_signed_and_ascii(self) -> None:
        """What is signed does not hinder what is beside it, and stays as it is, labels included."""
        signed = (
            "Content-Type: multipart/signed; boundary=s\n\n--s\nContent-Type: text/plain\n"
            "Content-Transfer-Encoding: 8bit\n\nhello\n--s--\n"
        )
        message = crlf(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
            f"--b\n{signed}--b\n\nGrüße\n--b--\n"
        )
        result = seven_bit(message)
        self.assertTrue(result.isascii())
        self.assertIn(crlf(signed), result)

    def test_global_messages_may_be_encoded(self) -> None:
        """RFC 6532 §3.7"""
        message = crlf(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n"
            "Content-Type: message/global-delivery-status\n\nGrüße\n--b--\n"
        )
        self.assertIn(
            b"global-delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZQ==\r\n",
            seven_bit(message),
        )

    def test_more_parts_than_were_looked_at(self) -> None:
        """What the outline calls opaque may be a multipart: it is not given an encoding."""
        message = crlf(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=a\n\n--a\n"
            "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nGrüße\n--b--\n--a--\n"
        )
        self.assertRaises(CannotConvert, seven_bit, message, limits=StructureLimits(depth=1))

    @given(
        st.lists(
            st.sampled_from(["ä", "x", " ", "\t", "=", ".", "\n", "From ", "é" * 40, "y" * 90, "\n.\n"])
        ).map("".join),
        st.integers(1, 50),
        st.sampled_from(["text/plain; charset=utf-8", "application/x-thing"]),
    )
    def test_nothing_is_lost(self, text: str, length: int, kind: str) -> None:
        body = crlf(f"ü{text}")
        header = f"MIME-Version: 1.0\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        result = seven_bit(header.encode() + body, length)
        self.assertTrue(result.isascii())
        self.assertLessEqual(max(map(len, result.split(b"\r\n"))), 76)
        self.assertNotIn(b" \r\n", result)
        [(found_kind, found)] = contents(result)
        self.assertEqual((found_kind, found), (kind.partition(";")[0], body))

    @given(
        st.lists(
            st.sampled_from(
                [
                    b"Content-Type: multipart/mixed; boundary=b\r\n",
                    b"Content-Type: message/rfc822\r\n",
                    b"Content-Type: text/html\r\n",
                    b"Content-Transfer-Encoding: 8bit\r\n",
                    b"\r\n",
                    b"--b\r\n",
                    b"--b--\r\n",
                    b"\xfc",
                    b"text\r\n",
                ]
            )
        ).map(b"".join)
    )
    def test_anything(self, message: bytes) -> None:
        try:
            result = seven_bit(message, 5)
        except CannotConvert:
            return
        self.assertTrue(result.isascii())

    def test_names(self) -> None:
        """Each way of conversion has something that does it."""
        known: Iterable[str] = downgrade._ENCODERS
        self.assertEqual(set(known), {"copy", "mask", "quoted-printable", "base64"})
