"""
Where a recipient's mail goes: accounts here, aliases, postmaster, or elsewhere.

A local part of one of our domains is looked up in this order, and the first that is known wins:

1. an alias of the whole address, then an alias of the local part in any of our domains;
2. an account of exactly this name;
3. for `user+detail` the same two steps for `user` (sub-addressing, RFC 5233 §1);
4. for `postmaster` the account that the configuration names, or the first one
   (RFC 5321 §4.5.1).

An alias may name itself: it then means the account of that name, which keeps a copy while
others get theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twisted.logger import Logger
from zope.interface import implementer

from mailplat.auth.names import Names, canonical_local
from mailplat.errors import ConfigurationError, InvalidName, NoSuchRecipient, TemporaryError
from mailplat.interfaces import IMailStore, IRouter
from mailplat.values import LOCAL, RELAY, Address, Target

#: Begins the detail of a sub-address.
DETAIL = "+"


@dataclass(frozen=True, slots=True)
class RoutingLimits:
    """
    Attributes:
        targets: addresses that one recipient may become by aliases, those on the way
            included.
    """

    targets: int = 1000


def split_address(text: str) -> Address:
    """
    `local@domain`, or a local part alone (the domain is empty then).

    Raises:
        ValueError: a part is missing, or there is a space or a control character.
    """
    local, at, domain = text.rpartition("@")
    if not at:
        local, domain = text, ""
    if not local or (at and not domain) or any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError(f"{text!r} is not an address")
    return Address(local, domain.lower())


@implementer(IRouter)
class Router:
    """
    Routes by domains, accounts and aliases; see the top of this file.

    Args:
        names: knows our domains and the canonical form of an address.
        store: an account in it is what makes a local recipient.
        aliases: `local@domain` or a local part, to the addresses that get the mail
            instead; a target without a domain means the domain of the recipient.
        postmaster: the account for postmaster's mail, canonical; None for the first.

    Raises:
        ConfigurationError: an alias that is no address, not in a domain of ours, or
            without targets.
    """

    def __init__(
        self,
        names: Names,
        store: IMailStore,
        aliases: Mapping[str, Sequence[str]] | None = None,
        postmaster: str | None = None,
        limits: RoutingLimits | None = None,
    ) -> None:
        self._names = names
        self._store = store
        self._postmaster = postmaster
        self._first: str | None = None
        self._limits = limits or RoutingLimits()
        self._log = Logger()
        #: (canonical local part, canonical domain or "" for all) -> targets
        self._aliases: dict[str, tuple[Address, ...]] = {}
        mistakes = []
        for name, targets in (aliases or {}).items():
            try:
                self._aliases[self._alias_key(split_address(name))] = tuple(map(split_address, targets))
                if not targets:
                    raise ValueError(f"{name!r} has no targets")
            except (ValueError, InvalidName) as error:
                mistakes.append(f"alias {name}: {error}")
        if mistakes:
            raise ConfigurationError("\n".join(mistakes))

    def is_local(self, domain: str) -> bool:
        return self._names.is_ours(domain)

    async def route(self, recipient: Address, sender: Address | None) -> Sequence[Target]:
        asked, recipient = recipient, self._with_domain(recipient)
        found: dict[tuple[str, str], Target] = {}
        seen: set[str] = set()
        missing: NoSuchRecipient | None = None
        # Depth first and in order, so that the first target stands first.
        waiting = [recipient]
        while waiting:
            address = waiting.pop()
            if not self.is_local(address.domain):
                if address.domain.startswith("["):
                    # Nothing here may be made to connect to an address that a stranger chose.
                    missing = NoSuchRecipient("Address literals are not served here")
                else:
                    target = self._elsewhere(address)
                    found[target.agent, str(address)] = target
                continue
            try:
                name = self._names.canonical(address.local, address.domain)
            except InvalidName:
                missing = NoSuchRecipient()
                continue
            # An alias met for the second time stands for the account of its name: this is how it
            # keeps a copy, and what ends a loop.
            again = name in seen
            seen.add(name)
            place = await self._place(name, aliases=not again)
            if isinstance(place, str):
                found[LOCAL, place] = Target(LOCAL, place, asked)
            elif place is not None:
                if len(seen) + len(waiting) + len(place) > self._limits.targets:
                    raise TemporaryError(reason=f"aliases make {recipient} more than {self._limits.targets}")
                waiting += [
                    target if target.domain else Address(target.local, address.domain)
                    for target in reversed(place)
                ]
            elif not again:
                missing = NoSuchRecipient()
                if address != recipient:
                    self._log.warn(
                        "an alias behind {recipient} names {name}: nobody", recipient=recipient, name=name
                    )
        if not found:
            raise missing or NoSuchRecipient(reason=f"the aliases of {recipient} lead nowhere")
        return list(found.values())

    async def owns(self, account: str, sender: Address) -> bool:
        if not sender.domain or not self.is_local(sender.domain):
            return False
        try:
            if account in _accounts_named(self._names.canonical(sender.local, sender.domain)):
                return True
            return any(
                target.agent == LOCAL and target.place == account for target in await self.route(sender, None)
            )
        except InvalidName:
            return False
        except NoSuchRecipient:
            return False

    # Inside

    def _elsewhere(self, address: Address) -> Target:
        return Target(RELAY, address.domain, address)

    def _with_domain(self, recipient: Address) -> Address:
        if recipient.domain:
            return recipient
        # RFC 5321 §4.1.1.3: only postmaster needs no domain.
        if recipient.local.lower() != "postmaster":
            raise NoSuchRecipient()
        return Address("postmaster", self._names.domains[0])

    def _alias_key(self, address: Address) -> str:
        domain = address.domain
        if domain and not self.is_local(domain):
            raise ValueError(f"{domain} is not a domain of this server")
        return self._names.canonical(address.local, domain) if domain else canonical_local(address.local)

    async def _place(self, name: str, aliases: bool) -> str | tuple[Address, ...] | None:
        """The account that a canonical address means, or the targets of its alias, or None."""
        for candidate in _accounts_named(name):
            if aliases:
                targets = self._aliases.get(candidate) or self._aliases.get(candidate.rpartition("@")[0])
                if targets is not None:
                    return targets
            if await self._store.has_account(candidate):
                return candidate
        if candidate.partition("@")[0] == "postmaster":
            return await self._postmasters_account()
        return None

    async def _postmasters_account(self) -> str | None:
        # RFC 5321 §4.5.1: mail to postmaster is taken wherever mail is taken at all.
        for known in (self._postmaster, self._first):
            if known is not None and await self._store.has_account(known):
                return known
        accounts = await self._store.accounts()
        self._first = accounts[0] if accounts else None
        return self._first


def _accounts_named(name: str) -> tuple[str, ...]:
    """A canonical address itself, then the one without its detail if it has one."""
    local, _, domain = name.rpartition("@")
    user, plus, _ = local.partition(DETAIL)
    return (name, f"{user}@{domain}") if plus and user else (name,)
