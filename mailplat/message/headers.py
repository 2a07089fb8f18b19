"""
Header fields: splitting and unfolding them, and the words inside.

Encoded words (RFC 2047), parameters (RFC 2045 §5.1) with continuations and charsets
(RFC 2231), and charsets themselves.  Whatever arrives is read as far as it makes sense;
nothing here raises for what a message contains, and everything is linear in its length.
"""

from __future__ import annotations

import re
from binascii import Error as BinasciiError
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterable
from encodings.aliases import aliases as _python_aliases
from itertools import islice
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

# Fields


def unfolded(header: bytes) -> bytes:
    """The header with each field on one line (RFC 5322 §2.2.3)."""
    if b"\n " in header:
        header = header.replace(b"\r\n ", b" ").replace(b"\n ", b" ")
    if b"\n\t" in header:
        header = header.replace(b"\r\n\t", b"\t").replace(b"\n\t", b"\t")
    return header


def fields(header: bytes, most: int = 10_000) -> list[tuple[bytes, bytes]]:
    """
    The fields of a header, in order.

    Args:
        header: lines ended by CRLF or LF; a blank line at the end may be missing.
        most: what comes after this many lines is left out.

    Returns:
        (name in lower case, value unfolded and without surrounding white space).  A line
        without a colon is passed over.
    """
    found = []
    for line in unfolded(header).split(b"\n", most)[:most]:
        name, colon, value = line.partition(b":")
        if colon:
            found.append((name.strip().lower(), value.strip()))
    return found


# Charsets
#
# Python's own registry is not asked for names that a message brings: it imports modules
# by them, keeps every failure, and knows codecs that are no charsets.

_CODECS = frozenset(
    re.findall(
        r"\w+",
        """
    ascii big5 big5hkscs cp037 cp1006 cp1026 cp1125 cp1140 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255
    cp1256 cp1257 cp1258 cp273 cp424 cp437 cp500 cp720 cp737 cp775 cp850 cp852 cp855 cp856 cp857 cp858
    cp860 cp861 cp862 cp863 cp864 cp865 cp866 cp869 cp874 cp875 cp932 cp949 cp950 euc_jis_2004
    euc_jisx0213 euc_jp euc_kr gb18030 gb2312 gbk hp_roman8 hz iso2022_jp iso2022_jp_1 iso2022_jp_2
    iso2022_jp_2004 iso2022_jp_3 iso2022_jp_ext iso2022_kr iso8859_10 iso8859_11 iso8859_13 iso8859_14
    iso8859_15 iso8859_16 iso8859_2 iso8859_3 iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9
    johab koi8_r koi8_t koi8_u kz1048 latin_1 mac_cyrillic mac_greek mac_iceland mac_latin2 mac_roman
    mac_turkish ptcp154 shift_jis shift_jis_2004 shift_jisx0213 tis_620 utf_16 utf_16_be utf_16_le utf_32
    utf_32_be utf_32_le utf_7 utf_8
    """,
    )
)


def _charset_table() -> dict[str, str]:
    def plain(name: str) -> str:
        return name.replace("-", "").replace("_", "").replace(".", "").replace(" ", "")

    table = {plain(alias): codec for alias, codec in _python_aliases.items() if codec in _CODECS}
    table.update((plain(codec), codec) for codec in _CODECS)
    # What mailers mean by a name is often the larger set that contains it.
    wider = {
        "latin_1": "cp1252",
        "iso8859_9": "cp1254",
        "iso8859_11": "cp874",
        "gb2312": "gb18030",
        "gbk": "gb18030",
        "shift_jis": "cp932",
        "euc_kr": "cp949",
        "iso2022_jp": "iso2022_jp_ext",
    }
    table = {name: wider.get(codec, codec) for name, codec in table.items()}
    table.update(
        {
            "utf8mb4": "utf_8",
            "ansix341968": "ascii",
            "iso885981": "iso8859_8",
            "iso88598i": "iso8859_8",
            "iso88598e": "iso8859_8",
            "iso88596i": "iso8859_6",
            "ksc56011987": "cp949",
            "ksc56011989": "cp949",
            "ksc5601": "cp949",
            "ksx1001": "cp949",
            "xeuctw": "big5",
            "xsjis": "cp932",
            "xgbk": "gb18030",
            "xbig5": "big5hkscs",
            "xmaccyrillic": "mac_cyrillic",
            "xmacroman": "mac_roman",
            "macintosh": "mac_roman",
            "xcp1251": "cp1251",
            "xcp1252": "cp1252",
            "unicode11utf8": "utf_8",
            "unicode11utf7": "utf_7",
            "windows874": "cp874",
            "windows31j": "cp932",
            "csiso2022jp": "iso2022_jp_ext",
        }
    )
    return table


_CHARSETS: Final = _charset_table()
_NOT_IN_NAMES = str.maketrans("", "", "-_. \t\"'")


def codec(charset: str) -> str | None:
    """
    Python's name for a charset, or None if it is not known here.

    "iso-8859-1" and the like are read as the larger sets that mailers mean by them.
    """
    if len(charset) > 60:
        return None
    return _CHARSETS.get(charset.translate(_NOT_IN_NAMES).lower())


def decode(raw: bytes, charset: str = "") -> str:
    """
    The text of `raw`.  With no charset, an unknown one, or ASCII that is not: UTF-8 if it is
    that, else windows-1252.  Never raises; what cannot be read becomes U+FFFD.
    """
    name = codec(charset) if charset else None
    if name is None or name == "ascii":
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("cp1252", "replace")
    try:
        return raw.decode(name, "replace")
    except (UnicodeError, ValueError, LookupError):
        return raw.decode("utf-8", "replace")


# Transfer encodings

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
NOT_BASE64: Final = bytes(set(range(256)) - set(_BASE64))


def from_base64(raw: bytes) -> bytes:
    """
    The octets of base64 text: foreign characters are passed over (RFC 2045 §6.8), padding
    may be missing, an odd character at the end is dropped.  Never raises.
    """
    kept = raw.translate(None, NOT_BASE64)
    over = len(kept) % 4
    if over == 1:
        kept = kept[:-1]
    elif over:
        kept += b"=="[: 4 - over]
    try:
        return a2b_base64(kept)
    except BinasciiError:  # pragma: no cover - nothing that is left can be wrong
        return b""


def from_quoted_printable(raw: bytes) -> bytes:
    """The octets of quoted-printable text (RFC 2045 §6.7); what is no escape stays.  Never raises."""
    return a2b_qp(raw)


# Encoded words

# The text may hold spaces, against RFC 2047 §2: many mailers put them there.
_ENCODED_WORD = re.compile(rb"=\?([^?\s]{1,80})\?([bBqQ])\?([^?]*)\?=")


def decode_words(raw: bytes) -> str:
    """
    The text of an unstructured field, or of a phrase, for people and for SEARCH.

    Adjacent encoded words are joined (RFC 2047 §6.2), also where a mailer cut a character
    in two.  Octets outside encoded words are read as UTF-8 (RFC 6532) or windows-1252.
    """
    if b"=?" not in raw:
        return decode(raw)
    pieces: list[str] = []
    pending, pending_charset = b"", ""
    position = 0
    for word in _ENCODED_WORD.finditer(raw):
        between = raw[position : word.start()]
        position = word.end()
        # RFC 2231 §5: a language may follow the charset.
        charset = word[1].partition(b"*")[0].decode("latin-1").lower()
        octets = from_base64(word[3]) if word[2] in b"bB" else a2b_qp(word[3], header=True)
        if pending_charset and charset == pending_charset and not between.strip():
            pending += octets
            continue
        if pending_charset:
            pieces.append(decode(pending, pending_charset))
            if between.strip():
                pieces.append(decode(between))
        elif between:
            pieces.append(decode(between))
        pending, pending_charset = octets, charset
    if pending_charset:
        pieces.append(decode(pending, pending_charset))
    pieces.append(decode(raw[position:]))
    return "".join(pieces)


# Parameters

#: Names of parameters longer than this are passed over.
LONGEST_NAME: Final = 100

#: The same for what comes after so many attempts at a parameter, or signs that may belong to a
#: comment: each takes a quarter of a microsecond, and a header may have a hundred thousand.
MOST_ATTEMPTS: Final = 1000

# Each alternative eats at least one octet and none gives back what it took: linear.
_PARAMETER = re.compile(
    rb"""
    [; \t\r\n]*+
    (?> (?: \( (?>(?:[^()\\]++|\\.)*) \)? [ \t\r\n]*+ )* )     # comments, one level
    ([^\s=;()"]++)? [ \t\r\n]*+
    (?> (?: = [ \t\r\n]*+
        (?: "([^"\\]*+(?>(?:\\.[^"\\]*+)*))(?:"|\\?\Z)     # unclosed: to the end
          | ([^;\s"]*+(?>(?:[ \t]++[^;\s"(]++)*))            # words without quotes, not a comment
        )
    )? )
    [^;]*+
    """,
    re.VERBOSE | re.DOTALL,
)
# What nearly all fields are: a head alone, or with one parameter.
_PLAIN = re.compile(
    rb"""
    \s*+ ([^\s;()"]++) \s*+
    (?> (?: ; [ \t\r\n]*+ ([^\s*=;()"]{1,100}+)= (?: "([^"\\]*+)" | ([^\s;()"]++) ) \s*+ )? )
    """,
    re.VERBOSE,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_COMMENT_SIGN = re.compile(rb"\\.|[();]", re.DOTALL)


def parse_parameters(value: bytes, most: int = 100) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """
    A field such as Content-Type or Content-Disposition in its pieces.

    Args:
        value: unfolded.
        most: further parameters are left out.

    Returns:
        what stands before the first ";", without comments and surrounding space; and the
        parameters in order, names in lower case, values without quoting, continuations joined
        (`_whole`).  Of parameters with the same name all are returned.
    """
    plain = _PLAIN.fullmatch(value)
    if plain is not None:
        head, name, quoted, token = plain.groups()
        return head, [(name.lower(), token if quoted is None else quoted)] if name and most else []
    head, semicolon, rest = value.partition(b";")
    if b"(" in head:
        head, rest = _without_comments(value)
        semicolon = rest
    head = head.strip()
    found: list[tuple[bytes, bytes]] = []
    if not semicolon:
        return head, found
    for match in islice(_PARAMETER.finditer(rest), MOST_ATTEMPTS):
        if len(found) >= most:
            break
        name, quoted, token = match.groups()
        if name is None or len(name) > LONGEST_NAME:
            continue
        if quoted is not None:
            found.append((name.lower(), _ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted))
        elif token is not None:
            found.append((name.lower(), token))
    return head, _whole(found) if b"*" in rest else found


def _without_comments(value: bytes) -> tuple[bytes, bytes]:
    """The text before the first ";" that no comment holds, comments taken out, and the rest."""
    kept: list[bytes] = []
    depth = start = 0
    for mark in islice(_COMMENT_SIGN.finditer(value), MOST_ATTEMPTS):
        sign = mark[0]
        if sign == b"(":
            if not depth:
                kept.append(value[start : mark.start()])
            depth += 1
        elif sign == b")" and depth:
            depth -= 1
            start = mark.end()
        elif sign == b";" and not depth:
            kept.append(value[start : mark.start()])
            return b"".join(kept), value[mark.end() :]
    if not depth:
        kept.append(value[start:])
    return b"".join(kept), b""


_SECTION = re.compile(rb"([^*]+)\*([0-9]{1,4})(\*?)")

#: What may stand in a percent-encoded value as it is (RFC 2231 §7 attribute-char, less than all).
_UNENCODED: Final = "!#$&+-.^_`{|}~"


def _whole(parameters: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """
    Parameters with RFC 2231 §3 continuations joined, each where its first piece was.

    What comes of `name*0` and `name*1` is `name`; with a percent-encoded piece among them,
    `name*`, percent-encoded.  BODYSTRUCTURE should say it so (RFC 2231 §6).
    """
    joined: list[tuple[bytes, bytes] | None] = []
    places: dict[bytes, int] = {}
    pieces: dict[bytes, dict[int, tuple[bool, bytes]]] = {}
    for name, value in parameters:
        match = _SECTION.fullmatch(name)
        if match is None:
            joined.append((name, value))
            continue
        base, number, encoded = match.groups()
        if base not in places:
            places[base] = len(joined)
            joined.append(None)
        pieces.setdefault(base, {}).setdefault(int(number), (bool(encoded), value))
    for base, place in places.items():
        # The sections count from 0 without gaps.
        found = pieces[base]
        run: list[tuple[bool, bytes]] = []
        while len(run) in found:
            run.append(found[len(run)])
        if not run:
            continue
        if not any(encoded for encoded, _ in run):
            joined[place] = (base, b"".join([value for _, value in run]))
            continue
        text = [
            value if encoded else quote_from_bytes(value, _UNENCODED).encode("ascii")
            for encoded, value in run
        ]
        if not run[0][0]:
            text.insert(0, b"''")  # no charset, no language
        joined[place] = (base + b"*", b"".join(text))
    return [parameter for parameter in joined if parameter is not None]


def parameter_texts(parameters: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """
    Parameters as `parse_parameters` gives them, by name and as text, charsets decoded.

    Of parameters with the same name the first counts; one in RFC 2231 form counts more than
    a plain one.  Encoded words in a value, which RFC 2047 §5 forbids and mailers send, are decoded.
    """
    plain: dict[str, str] = {}
    extended: dict[str, str] = {}
    for name, value in parameters:
        text = name.decode("latin-1")
        if not text.endswith("*"):
            plain.setdefault(text, decode_words(value))
            continue
        charset = b""
        if value.count(b"'") >= 2:
            charset, _, value = value.split(b"'", 2)
        extended.setdefault(text[:-1], decode(unquote_to_bytes(value), charset.decode("latin-1")))
    return plain | extended
