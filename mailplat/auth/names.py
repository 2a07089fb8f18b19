"""
What makes an address canonical: the one place, for logging in and for delivery.

An account's name is `local@domain`: the local part in Unicode normal form C and lower
case, the domain as lower-case A-labels (RFC 5891).  Two spellings that come out the same
are the same account; what does not come out is nobody's name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import idna

from mailplat.errors import InvalidName

#: Octets in a local part and in a domain (RFC 5321 §4.5.3.1).
MOST_LOCAL = 64
MOST_DOMAIN = 255

# What an account's name never has: separators of our files, of paths and of the address grammar.
_REFUSED = re.compile(r'[\s/\\:@"(),;<>\[\]]')
_HOSTNAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")


class Names:
    """
    Canonical names for a server.

    Args:
        domains: the server's own, in any spelling.  With exactly one, the part before
            the @ is enough to log in.

    Attributes:
        domains: the same, canonical, in the order given.

    Raises:
        InvalidName: one of `domains` is not a domain name.
    """

    def __init__(self, domains: Iterable[str] = ()) -> None:
        self.domains: tuple[str, ...] = tuple(dict.fromkeys(canonical_domain(domain) for domain in domains))
        self._known = frozenset(self.domains)

    def canonical(self, local: str, domain: str) -> str:
        """
        The name of the account that an address would belong to, whether or not there is one.

        Raises:
            InvalidName: no account can have this address.
        """
        return f"{canonical_local(local)}@{canonical_domain(domain)}"

    def login_name(self, text: str | bytes) -> str | None:
        """
        The account that somebody means who gives `text` as a user name (bytes: UTF-8).

        A full address, or its local part alone where the server has one domain; None if it
        can't be anybody's.
        """
        try:
            if isinstance(text, bytes):
                text = text.decode("utf-8")
            local, at, domain = text.rpartition("@")
            if at:
                return self.canonical(local, domain)
            if len(self.domains) == 1:
                return self.canonical(text, self.domains[0])
        except (InvalidName, UnicodeDecodeError):
            pass
        return None

    def is_ours(self, domain: str) -> bool:
        """Whether `domain`, in any spelling, is one of ours."""
        try:
            return domain in self._known or canonical_domain(domain) in self._known
        except InvalidName:
            return False


def canonical_local(local: str) -> str:
    """
    A local part as account names have it.

    Raises:
        InvalidName: empty, too long, or with a character that names do not have.
    """
    if local.isascii():
        name = local.lower()
        printable = name.isprintable()
    else:
        # Lower case first may leave characters decomposed, so it is composed again.
        name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower())
        # Categories C*: controls, formats, surrogates, private and unassigned characters.
        printable = all(unicodedata.category(char)[0] != "C" for char in name)
    if not name or not printable or _REFUSED.search(name) or len(name.encode("utf-8")) > MOST_LOCAL:
        raise InvalidName
    # RFC 5321 §4.1.2 Dot-string; so a name is never "." or "..".
    if name[0] == "." or name[-1] == "." or ".." in name:
        raise InvalidName
    return name


def canonical_domain(domain: str) -> str:
    """
    A domain name as lower-case A-labels, without a final dot.

    Raises:
        InvalidName: not a domain name (address literals are not).
    """
    name = domain.lower().removesuffix(".")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True, transitional=False).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError):
            raise InvalidName from None
    if len(name) > MOST_DOMAIN or not _HOSTNAME.fullmatch(name):
        raise InvalidName
    if any(len(label) > 63 for label in name.split(".")):
        raise InvalidName
    return name


def cut_detail(local: str, separator: str = "+") -> tuple[str, str]:
    """
    Cut a sub-address (RFC 5233 §4): "alice+lists" is ("alice", "lists"); without one, detail is "".

    A separator at the very start is part of the user.
    """
    user, _, detail = local[1:].partition(separator)
    return local[:1] + user, detail
