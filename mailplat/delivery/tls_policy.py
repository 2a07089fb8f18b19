"""
What TLS must be like towards whom, as somebody configured it.

    ConfiguredTLS("may", {"example.com": "verify mx.example.com", ".gov.example": "encrypt"})

A requirement as text is a level, and for "verify" the names that a certificate may have, any
of which will do; without names, the host's own.  A host's own name comes from the DNS, so
for a domain that is looked up there it proves little: name what you expect.
"""

from __future__ import annotations

from collections.abc import Mapping

from zope.interface import implementer

from mailplat.auth.names import canonical_domain
from mailplat.delivery.hops import LEVELS
from mailplat.errors import ConfigurationError, InvalidName
from mailplat.interfaces import ITLSPolicy
from mailplat.values import TLSRequirement


def parse_requirement(text: str, source: str = "configuration") -> TLSRequirement:
    """
    Raises:
        ValueError: an unknown level, names where none are looked at, or a name that is none.
    """
    level, *names = text.split() or [""]
    if level not in LEVELS or (names and level != "verify"):
        raise ValueError(f"{text!r}: one of {', '.join(LEVELS)}; names may follow verify")
    try:
        return TLSRequirement(level, tuple(map(canonical_domain, names)), source)
    except InvalidName:
        raise ValueError(f"{text!r}: not the name of a host") from None


@implementer(ITLSPolicy)
class ConfiguredTLS:
    """
    Args:
        default: what holds where nothing else is said.
        domains: domain of recipients, `.example.com` for all below it, or the host of a next
            hop -> requirement as text; the longest that fits counts.

    Raises:
        ConfigurationError: with a line for each mistake.
    """

    def __init__(self, default: str = "may", domains: Mapping[str, str] | None = None) -> None:
        mistakes: list[str] = []
        self._domains: dict[str, TLSRequirement] = {}
        for name, text in (domains or {}).items():
            dot = "." if name.startswith(".") else ""
            try:
                self._domains[dot + canonical_domain(name.removeprefix("."))] = parse_requirement(text)
            except InvalidName:
                mistakes.append(f"TLS policy for {name}: not a domain")
            except ValueError as error:
                mistakes.append(f"TLS policy for {name}: {error}")
        try:
            source = "default" if default == "may" else "configuration"
            self._default = parse_requirement(default, source)
        except ValueError as error:
            mistakes.append(f"TLS policy: {error}")
        if mistakes:
            raise ConfigurationError("\n".join(mistakes))

    async def requirement(self, domain: str, host: str) -> TLSRequirement:
        found = self._domains.get(domain)
        while found is None and domain:
            _, dot, domain = domain.partition(".")
            found = self._domains.get(dot + domain)
        return found or self._default
