"""
What a host offers in its reply to EHLO or LHLO (RFC 5321 §4.1.1.1), as a client reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extensions:
    """
    The extensions that this client makes use of.

    Attributes:
        pipelining: RFC 2920.
        chunking: RFC 3030.
        eight_bit: 8BITMIME, RFC 6152.
        utf8: SMTPUTF8, RFC 6531.
        dsn: RFC 3461.
        starttls: RFC 3207.
        size: RFC 1870; most_size is 0 where no limit is stated.
        mechanisms: of AUTH (RFC 4954), in capitals, in the host's order.
        most_transactions, most_recipients, most_domains: MAILMAX, RCPTMAX and RCPTDOMAINMAX of
            LIMITS (RFC 9422); 0 where not stated.
    """

    pipelining: bool = False
    chunking: bool = False
    eight_bit: bool = False
    utf8: bool = False
    dsn: bool = False
    starttls: bool = False
    size: bool = False
    most_size: int = 0
    mechanisms: tuple[str, ...] = ()
    most_transactions: int = 0
    most_recipients: int = 0
    most_domains: int = 0

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Extensions:
        """Read the lines after the first, without codes.  What makes no sense is not offered."""
        offered: dict[str, list[str]] = {}
        for line in lines:
            # Kindness: "AUTH=" is how hosts said it before RFC 2554.
            keyword, *words = (
                line.replace("=", " ", 1).split() if line[:5].upper() == "AUTH=" else (line.split() or [""])
            )
            offered.setdefault(keyword.upper(), []).extend(words)
        limits = _limits(offered.get("LIMITS", ()))
        size = offered.get("SIZE")
        return cls(
            pipelining="PIPELINING" in offered,
            chunking="CHUNKING" in offered,
            eight_bit="8BITMIME" in offered,
            utf8="SMTPUTF8" in offered,
            dsn="DSN" in offered,
            starttls="STARTTLS" in offered,
            size=size is not None,
            most_size=_number(size[0]) if size else 0,
            mechanisms=tuple(dict.fromkeys(word.upper() for word in offered.get("AUTH", ()))),
            most_transactions=limits.get("MAILMAX", 0),
            most_recipients=limits.get("RCPTMAX", 0),
            most_domains=limits.get("RCPTDOMAINMAX", 0),
        )


def _limits(words: Iterable[str]) -> Mapping[str, int]:
    # RFC 9422 §3: what is not understood is passed over.
    pairs = (word.partition("=") for word in words)
    return {name.upper(): _number(value) for name, _, value in pairs}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else 0
