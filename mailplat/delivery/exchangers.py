"""
From a next hop to addresses: which hosts take its mail, and in which order they are tried.

For a domain this is RFC 5321 §5.1: its MX records by preference, those of equal preference in
random order, or the domain itself where it has none; a null MX means that there is no mail
(RFC 7505).  If we are among the hosts ourselves, only those that come before us are left, and
if we are the first, the mail would come back to us for ever.

What the DNS says about other people's domains is a stranger's word.  Addresses that are no
host's on the public internet (`NOT_PUBLIC`) are passed over, so that nobody can send us to
ourselves or to what stands behind our firewall; a house whose own network is meant names it
in `private`.  Hops that somebody configured are trusted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import chain
from random import Random

from twisted.internet.defer import Deferred, gatherResults

from mailplat.delivery.hops import NextHop
from mailplat.errors import HostUnreachable, MailError, NoMailThere, NoSuchDomain, NotResolved
from mailplat.interfaces import IResolver

#: Where no public host is (RFC 6890): this machine and network, private and link-local ones,
#: multicast and what is reserved.  The examples of RFC 5737 and RFC 3849 lead nowhere.
NOT_PUBLIC = tuple(
    map(
        ip_network,
        ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
         "192.0.0.0/24", "192.168.0.0/16", "224.0.0.0/3",
         "::/96", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)  # fmt: skip

#: IPv6 addresses that are IPv4 ones in disguise: prefix, and how far right the IPv4 address stands.
#: IPv4-mapped, NAT64 (RFC 6052), 6to4 (RFC 3056).
_DISGUISED = tuple(
    (ip_network(prefix), shift)
    for prefix, shift in (("::ffff:0:0/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80))
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    One address to try.

    Attributes:
        host: the name whose address it is, or the address, or the path of a UNIX socket: how the
            host is called in outcomes and certificates.
        address: an IP address, or a path.
        port: 0 for a path.
        preference: equal ones may be tried in any order.
    """

    host: str
    address: str
    port: int
    preference: int = 0

    def __str__(self) -> str:
        if not self.port:
            return self.address
        address = f"[{self.address}]:{self.port}"
        return address if self.host == self.address else f"{self.host}{address}"


class Exchangers:
    """
    Args:
        resolver: looks names up.
        random: puts hosts of equal preference in an order.
        names: the names that we have as a mail exchanger, lower case, A-labels.
        addresses: the addresses that we have as a mail exchanger.
        private: networks, such as "10.0.0.0/8", to which a foreign domain may lead although
            they are `NOT_PUBLIC`.
        most: MX records of a domain that are used.

    Raises:
        ValueError: one of `addresses` or `private` is none.
    """

    def __init__(
        self,
        resolver: IResolver,
        random: Random,
        *,
        names: Collection[str] = (),
        addresses: Collection[str] = (),
        private: Iterable[str] = (),
        most: int = 20,
    ) -> None:
        self._resolver = resolver
        self._random = random
        self._names = frozenset(names)
        self._addresses = frozenset(str(ip_address(address)) for address in addresses)
        self._private = tuple(ip_network(network) for network in private)
        self._most = most

    async def candidates(self, hop: NextHop) -> Sequence[Candidate]:
        """
        At least one, in the order in which they are to be tried.

        Raises:
            NoSuchDomain, NoMailThere: never any.
            NotResolved: the DNS did not say.
            HostUnreachable: what somebody configured is not there; that is no reason to give
                mail up, which waits until the setting is mended.
        """
        if hop.protocol == "mx":
            return await self._of_domain(hop.host) if not hop.literal else self._of_literal(hop)
        if hop.is_unix or hop.literal:
            return [Candidate(hop.host, hop.host, hop.port)]
        answer = await self._look_up(hop.host)
        if isinstance(answer, NotResolved):
            raise answer
        if isinstance(answer, NoSuchDomain) or not answer:
            raise HostUnreachable(f"{hop.host} has no address")
        return [Candidate(hop.host, address, hop.port) for address in answer]

    def _of_literal(self, hop: NextHop) -> Sequence[Candidate]:
        address = hop.literal
        if address in self._addresses:
            raise NoMailThere(f"Mail loops back to us: {address} is ours")
        if not self.is_public(address):
            raise NoMailThere(f"{address} is not a public address")
        return [Candidate(address, address, 25)]

    async def _of_domain(self, domain: str) -> Sequence[Candidate]:
        records = list(await self._resolver.mail_exchangers(domain))
        if [host for _, host in records] == [""]:
            raise NoMailThere()
        # RFC 7505 §3: among others, an empty name is a mistake.
        exchangers = [(preference, host) for preference, host in records if host]
        # RFC 5321 §5.1: a domain without MX records is its own host.
        exchangers = exchangers or [(0, domain)]
        self._random.shuffle(exchangers)
        exchangers.sort(key=lambda pair: pair[0])
        # Of a host that is named twice the better counts.
        best = {host: preference for preference, host in reversed(exchangers)}
        exchangers = [pair for pair in dict.fromkeys(exchangers) if best[pair[1]] == pair[0]]
        found, ours, errors = await self._addresses_of(exchangers[: self._most])
        # RFC 5321 §5.1: those that are no better than we are would send it to us.
        usable = [candidate for candidate in found if ours is None or candidate.preference < ours]
        public = [candidate for candidate in usable if self.is_public(candidate.address)]
        if public:
            return public
        for error in errors:
            if isinstance(error, NotResolved):
                raise error
        if ours is not None:
            raise NoMailThere(f"Mail for {domain} loops back to us: we are its best mail exchanger")
        if usable:
            raise NoMailThere(f"The mail exchangers of {domain} have no public address")
        if not records:
            raise NoMailThere(f"{domain} has neither a mail exchanger nor an address")
        raise NoMailThere(f"The mail exchangers of {domain} have no address")

    async def _addresses_of(
        self, exchangers: Sequence[tuple[int, str]]
    ) -> tuple[list[Candidate], int | None, list[MailError]]:
        """The addresses in order, the preference that we ourselves have, and what went wrong."""
        asked = [Deferred.fromCoroutine(self._look_up(host)) for _, host in exchangers]
        found: list[Candidate] = []
        ours: list[int] = []
        errors: list[MailError] = []
        for (preference, host), answer in zip(exchangers, await gatherResults(asked), strict=True):
            if isinstance(answer, MailError):
                errors.append(answer)
                answer = ()
            if host in self._names or self._addresses.intersection(answer):
                ours.append(preference)
            found += [Candidate(host, address, 25, preference) for address in answer]
        return _interleaved(found), min(ours, default=None), errors

    async def _look_up(self, host: str) -> Sequence[str] | NoSuchDomain | NotResolved:
        try:
            return list(await self._resolver.addresses(host))
        except (NoSuchDomain, NotResolved) as error:
            return error

    def is_public(self, address: str) -> bool:
        """A stranger's domain may lead to this address."""
        found = ip_address(address)
        for prefix, shift in _DISGUISED:
            if found in prefix:
                inner = ip_address((int(found) >> shift) & 0xFFFFFFFF)
                return self.is_public(str(inner))
        if any(found in network for network in self._private):
            return True
        return not any(found in network for network in NOT_PUBLIC)


def _interleaved(candidates: Sequence[Candidate]) -> list[Candidate]:
    """
    Within each preference two addresses of each host, then the next two of each.

    The first two are of both families where a host has them, so whether a host is down or a
    family does not work from here, others are tried soon.
    """
    ordered: list[Candidate] = []
    for preference in dict.fromkeys(candidate.preference for candidate in candidates):
        by_host: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            if candidate.preference == preference:
                by_host.setdefault(candidate.host, []).append(candidate)
        longest = max(map(len, by_host.values()))
        for start in range(0, longest, 2):
            ordered += chain.from_iterable(some[start : start + 2] for some in by_host.values())
    return ordered
