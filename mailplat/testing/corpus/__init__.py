"""
Messages to try things on, each for one danger or one shape, all made up.

`message("basic")` is bytes with CR LF line ends.  Dialogues name them in `@ deliver`.
"""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Callable

__all__ = ["NAMES", "deep", "large", "many_parts", "message"]

HEADER = (
    "Date: Tue, 24 Feb 2026 10:30:00 +0100\n"
    "From: Bob Example <bob@example.test>\n"
    "To: Alice <alice@example.test>\n"
    "Subject: {subject}\n"
    "Message-ID: <{subject}@example.test>\n"
)


def message(name: str) -> bytes:
    """
    The message of that name.

    Raises:
        KeyError: there is none; `NAMES` has them all.
    """
    return MESSAGES[name]()


def large(size: int = 1_000_000) -> bytes:
    """A message of about `size` octets, in lines of 76."""
    start = crlf(HEADER.format(subject="large") + "\n")
    line = b"0123456789" * 7 + b"abcd\r\n"
    return start + line * max(1, (size - len(start)) // len(line))


def deep(levels: int = 100) -> bytes:
    """Multiparts within multiparts."""
    lines = [HEADER.format(subject="deep") + "MIME-Version: 1.0"]
    for level in range(levels):
        lines += [f'Content-Type: multipart/mixed; boundary="b{level}"', "", f"--b{level}"]
    lines += ["Content-Type: text/plain", "", "at the bottom"]
    lines += [f"--b{level}--" for level in reversed(range(levels))]
    return crlf("\n".join(lines) + "\n")


def many_parts(count: int = 1000) -> bytes:
    """A multipart with many small children."""
    parts = "".join(f"--b\n\npart {number}\n" for number in range(count))
    return crlf(
        HEADER.format(subject="many") + 'Content-Type: multipart/mixed; boundary="b"\n\n' + parts + "--b--\n"
    )


def crlf(text: str, charset: str = "utf-8") -> bytes:
    return text.replace("\n", "\r\n").encode(charset)


def basic() -> bytes:
    return crlf(HEADER.format(subject="basic") + "\nHello Alice,\n\nthis is all.\n-- \nBob\n")


def dots() -> bytes:
    """Lines that begin with dots, and one that is nothing but a dot."""
    return crlf(HEADER.format(subject="dots") + "\n.\n..\n.leading\nno.leading\n...\n")


def encoded() -> bytes:
    """Encoded words and quoted-printable (RFC 2047, RFC 2045 §6.7)."""
    return crlf(
        "From: =?utf-8?q?J=C3=BCrgen?= <juergen@example.test>\n"
        "To: alice@example.test\n"
        "Subject: =?utf-8?b?R3LDvMOfZQ==?= =?iso-8859-1?q?_aus_K=F6ln?=\n"
        "MIME-Version: 1.0\n"
        "Content-Type: text/plain; charset=utf-8\n"
        "Content-Transfer-Encoding: quoted-printable\n"
        "\n"
        "Sch=C3=B6ne Gr=C3=BC=C3=9Fe, und eine sehr lange Zeile, die hier =\nweitergeht.\n"
    )


def unencoded() -> bytes:
    """8-bit text in header and body (RFC 6532, RFC 6152)."""
    return crlf(
        "From: Jürgen <jürgen@example.test>\nSubject: Grüße\n"
        "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nSchöne Grüße ✉\n"
    )


def not_utf8() -> bytes:
    """8-bit octets in the header that are no UTF-8."""
    return crlf("From: J\xfcrgen <j@example.test>\nSubject: Gr\xfc\xdfe\n\nlatin \xe4\n", "latin-1")


def alternative() -> bytes:
    return crlf(
        HEADER.format(subject="alternative")
        + "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=alt\n\nA preamble.\n"
        "--alt\nContent-Type: text/plain; charset=us-ascii\n\nplain\n"
        "--alt\nContent-Type: text/html; charset=us-ascii\n\n<p>html</p>\n"
        "--alt--\nAn epilogue.\n"
    )


def attachment() -> bytes:
    """Text, and 300 octets in base64 with a disposition and a name (RFC 2183, RFC 2231)."""
    data = encodebytes(bytes(range(256)) + b"\0" * 44).decode("ascii")
    return crlf(
        HEADER.format(subject="attachment")
        + 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="=_mixed"\n\n'
        "--=_mixed\nContent-Type: text/plain\n\nsee the attachment\n"
        "--=_mixed\nContent-Type: application/octet-stream; name*=utf-8''%C3%BCbersicht.bin\n"
        "Content-Disposition: attachment; filename*=utf-8''%C3%BCbersicht.bin; size=300\n"
        "Content-Transfer-Encoding: base64\nContent-ID: <part@example.test>\n\n" + data + "--=_mixed--\n"
    )


def forwarded() -> bytes:
    """A message within a message, which has parts of its own (RFC 2046 §5.2.1)."""
    inner = alternative().decode("ascii").replace("\r\n", "\n")
    return crlf(
        HEADER.format(subject="forwarded")
        + "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=outer\n\n"
        "--outer\n\nlook at this\n--outer\nContent-Type: message/rfc822\n\n" + inner + "--outer--\n"
    )


def no_header() -> bytes:
    return b"\r\nonly a body\r\n"


def no_body() -> bytes:
    return crlf(HEADER.format(subject="no body"))


def empty() -> bytes:
    return b""


def no_line_end() -> bytes:
    return crlf(HEADER.format(subject="no line end") + "\nthe last line has no end")


def long_lines() -> bytes:
    """A header field of 5,000 octets and a body line of 20,000."""
    return crlf(HEADER.format(subject="x" * 5000) + "\n" + "y" * 20_000 + "\n")


def no_boundary() -> bytes:
    """A multipart that does not say what separates its parts."""
    return crlf(HEADER.format(subject="none") + "Content-Type: multipart/mixed\n\n--b\n\npart\n--b--\n")


def unfinished() -> bytes:
    """A multipart that ends in the middle."""
    return crlf(
        HEADER.format(subject="unfinished")
        + "Content-Type: multipart/mixed; boundary=b\n\n--b\n\npart\n--b\nContent-Ty"
    )


def odd_addresses() -> bytes:
    """Groups, comments, quoted local parts and an address that is none."""
    return crlf(
        'From: "A. \\"B\\" C" <"d e"@example.test> (comment (nested))\n'
        "To: friends: x@example.test, y@example.test;, undisclosed-recipients:;\n"
        "Cc: not an address, <@route.test:z@example.test>\n"
        "Date: not a date\n\nodd\n"
    )


MESSAGES: dict[str, Callable[[], bytes]] = {
    "basic": basic,
    "dots": dots,
    "encoded": encoded,
    "unencoded": unencoded,
    "not-utf8": not_utf8,
    "alternative": alternative,
    "attachment": attachment,
    "forwarded": forwarded,
    "no-header": no_header,
    "no-body": no_body,
    "empty": empty,
    "no-line-end": no_line_end,
    "long-lines": long_lines,
    "no-boundary": no_boundary,
    "unfinished": unfinished,
    "odd-addresses": odd_addresses,
    "deep": deep,
    "many-parts": many_parts,
    "large": large,
}

#: All there are.
NAMES = tuple(MESSAGES)
