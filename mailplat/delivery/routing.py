"""
Where a recipient's mail goes: accounts here, aliases, postmaster, or elsewhere.

A local part of one of our domains is looked up in this order, and the first that is known wins:

1. an alias of the whole address, then an alias of the local part in any of our domains;
2. an account of exactly this name;
3. for `user+detail` the same two steps for `user` (sub-addressing, RFC 5233 §1);
4. for `postmaster` the account that the configuration names, or the first one
   (RFC 5321 §4.5.1);
5. the alias of the whole domain, `@domain`.

An alias may name itself: it then means the account of that name, which keeps a copy while
others get theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from twisted.logger import Logger
from zope.interface import implementer

from mailplat.auth.names import Names
from mailplat.delivery.aliases import AgentNamed, Aliases, AliasFile, Targets
from mailplat.errors import InvalidName, NoSuchRecipient, TemporaryError
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


@implementer(IRouter)
class Router:
    """
    Routes by domains, accounts and aliases; see the top of this file.

    Args:
        names: knows our domains and the canonical form of an address.
        store: an account in it is what makes a local recipient.
        aliases: name -> targets, see `mailplat.delivery.aliases`.
        files: more aliases; those of `aliases` and of earlier files come first.
        hops: chooses the next hop for an address elsewhere and its sender; by default the
            address's domain.
        agents: names that aliases use -> (agent, place), where they are not both the name.
        postmaster: the account for postmaster's mail, canonical; None for the first.

    Raises:
        ConfigurationError: mistakes in `aliases`.
    """

    def __init__(
        self,
        names: Names,
        store: IMailStore,
        aliases: Mapping[str, Sequence[str]] | None = None,
        postmaster: str | None = None,
        limits: RoutingLimits | None = None,
        *,
        files: Sequence[AliasFile] = (),
        hops: Callable[[Address | None, Address], str] | None = None,
        agents: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self._names = names
        self._store = store
        self._aliases = Aliases(names, aliases or {})
        self._files = files
        self._hop = hops or (lambda sender, address: address.domain)
        self._agents = agents or {}
        self._postmaster = postmaster
        self._first: str | None = None
        self._limits = limits or RoutingLimits()
        self._log = Logger()

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
                found[RELAY, str(address)] = Target(RELAY, self._hop(sender, address), address)
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
                for target in reversed(place):
                    if isinstance(target, AgentNamed):
                        agent, place = self._agents.get(target.name, (target.name, target.name))
                        found[target.name, name] = Target(agent, place, asked)
                    else:
                        waiting.append(target if target.domain else Address(target.local, address.domain))
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

    def _with_domain(self, recipient: Address) -> Address:
        if recipient.domain:
            return recipient
        # RFC 5321 §4.1.1.3: only postmaster needs no domain.
        if recipient.local.lower() != "postmaster":
            raise NoSuchRecipient()
        return Address("postmaster", self._names.domains[0])

    def _tables(self) -> Iterator[Aliases]:
        yield self._aliases
        for file in self._files:
            yield file.current()

    async def _place(self, name: str, aliases: bool) -> str | Targets | None:
        """The account that a canonical address means, or the targets of its alias, or None."""
        for candidate in _accounts_named(name):
            if aliases:
                for table in self._tables():
                    if (targets := table.targets(candidate)) is not None:
                        return targets
            if await self._store.has_account(candidate):
                return candidate
        local, _, domain = candidate.partition("@")
        if local == "postmaster" and (account := await self._postmasters_account()):
            return account
        for table in self._tables():
            if aliases and (targets := table.catch_all(domain)) is not None:
                return targets
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
