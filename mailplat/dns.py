"""
The default `IResolver`: asks the name servers that the machine is configured for.

`twisted.names` knows what a question and an answer look like.  What stands here is whom to
ask and for how long, how far aliases are followed, what is believed, and what is remembered.

* A server that is silent, refuses or fails is passed over for the next one; what none of them
  can say is `NotResolved`.  Only an answer that says so makes a name `NoSuchDomain`.
* Of an answer only the records of the name asked for are used, and those of the names that its
  aliases lead to; anything else that a server cares to tell is not looked at.
* Answers are remembered for as long as they say (RFC 1035 §3.2.1), those that say that there is
  nothing too (RFC 2308 §5), and for a moment that there was no answer (RFC 9520 §3.2).
* One question is asked once, however many wait for its answer.

The servers should be near and trusted, best a validating resolver on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, gatherResults
from twisted.internet.defer import TimeoutError as NoAnswer
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectError, ConnectionLost
from twisted.logger import Logger
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from mailplat.errors import NoSuchDomain, NotResolved
from mailplat.interfaces import IResolver

#: The address families that may be asked for, with the record that has them.
FAMILIES = {"ipv6": dns.AAAA, "ipv4": dns.A}

#: Octets of a domain name as text without the last dot, and of a label (RFC 1035 §2.3.4).
MOST_NAME = 253
MOST_LABEL = 63


@dataclass(frozen=True, slots=True)
class ResolverLimits:
    """
    Attributes:
        timeouts: seconds that a server gets for its answer, round by round; in each round those
            that were silent are asked again.
        tcp_timeout: seconds to connect, and again to answer, where an answer is too long for UDP.
        aliases: CNAME records on the way from a name to an answer.
        records: records of one answer that are used.
        at_once: questions on their way at one time; more wait.
        entries: answers that are remembered.
        longest: seconds that an answer is remembered, whatever it says itself.
        longest_negative: the same for an answer that there is nothing.
        failure: seconds that it is remembered that there was no answer.
    """

    timeouts: tuple[float, ...] = (2.0, 4.0, 8.0)
    tcp_timeout: float = 10.0
    aliases: int = 8
    records: int = 100
    at_once: int = 200
    entries: int = 10_000
    longest: float = 86_400.0
    longest_negative: float = 900.0
    failure: float = 15.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is known about a name: payloads of records, none with `error` for a reason."""

    records: tuple[Any, ...]
    until: float
    error: type[NoSuchDomain | NotResolved] | None = None
    reason: str = ""


@implementer(IResolver)
class DNSResolver:
    """
    Args:
        reactor: provides IReactorUDP, IReactorTCP and IReactorTime.
        servers: (address, port) of the servers to ask, in this order; None for those of
            `resolv_conf`, which is read again when it changes.
        resolv_conf: a file as resolv.conf(5); its search list and its options are not used, and
            without a server in it 127.0.0.1 is asked, as the system does.
        hosts: a file as hosts(5), which goes before the DNS for addresses; "" for none.
        families: "ipv6" and "ipv4", or one of them: what to ask for, and what to try first.

    Raises:
        ValueError: `families` is empty or has another word.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[tuple[str, int]] | None = None,
        *,
        resolv_conf: str = "/etc/resolv.conf",
        hosts: str = "/etc/hosts",
        families: Sequence[str] = ("ipv6", "ipv4"),
        limits: ResolverLimits | None = None,
    ) -> None:
        if not families or set(families) - set(FAMILIES):
            raise ValueError(f"families are of {', '.join(FAMILIES)}, not {families!r}")
        self._reactor = reactor
        self._limits = limits or ResolverLimits()
        self._families = tuple(dict.fromkeys(families))
        self._servers = tuple(servers) if servers is not None else None
        self._resolv_conf = _Watched(resolv_conf, _servers_in)
        self._hosts = _Watched(hosts, _hosts_in)
        self._known: dict[tuple[str, int], _Answer] = {}
        self._waiting: dict[tuple[str, int], list[Deferred[_Answer]]] = {}
        self._asking: set[Deferred[Any]] = set()
        self._turns = DeferredSemaphore(self._limits.at_once)
        self._log = Logger()

    async def mail_exchangers(self, domain: str) -> Sequence[tuple[int, str]]:
        records = await self._records(domain, dns.MX)
        # RFC 7505 §3: the host of a null MX is the root, whose name is empty here.
        return sorted((record.preference, _text(record.name)) for record in records)

    async def addresses(self, host: str) -> Sequence[str]:
        if known := self._hosts.content().get(host.lower()):
            by_family = [[a for a in known if (":" in a) == (family == "ipv6")] for family in self._families]
            return _interleaved(by_family)
        # Both at once.  Servers that fail for one of them are common; the other then serves.
        asked = [Deferred.fromCoroutine(self._addresses(host, family)) for family in self._families]
        results = await gatherResults(asked)
        found = _interleaved([addresses for addresses, _ in results])
        if not found:
            errors = [error for _, error in results if error is not None]
            # That there is no such name is said of all its records (RFC 8020 §2).
            for error in sorted(errors, key=lambda error: not isinstance(error, NoSuchDomain)):
                raise error
        return found

    def close(self) -> None:
        """Give up all that is asked; who waits for it gets NotResolved."""
        for asking in list(self._asking):
            asking.cancel()

    async def _addresses(self, host: str, family: str) -> tuple[list[str], NoSuchDomain | NotResolved | None]:
        try:
            records = await self._records(host, FAMILIES[family])
        except (NoSuchDomain, NotResolved) as error:
            return [], error
        return [str(ip_address(record.address)) for record in records], None

    async def _records(self, name: str, kind: int) -> tuple[Any, ...]:
        key = name.lower(), kind
        answer = self._known.get(key)
        if answer is None or answer.until <= self._reactor.seconds():
            answer = await self._ask_once(key)
        if answer.error is not None:
            raise answer.error(reason=answer.reason)
        return answer.records

    def _ask_once(self, key: tuple[str, int]) -> Deferred[_Answer]:
        # Whoever waits has a Deferred of its own, so that one may give up without the others.
        wanted: Deferred[_Answer] = Deferred()
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(wanted)
            return wanted
        self._waiting[key] = [wanted]
        asking: Deferred[Any] = self._turns.run(lambda: Deferred.fromCoroutine(self._look_up(*key)))
        self._asking.add(asking)
        asking.addBoth(self._answered, key, asking)
        return wanted

    def _answered(self, result: Any, key: tuple[str, int], asking: Deferred[Any]) -> None:
        self._asking.discard(asking)
        if isinstance(result, Failure):
            problem = result.value
            reason = problem.reason if isinstance(problem, NotResolved) else "given up"
            if not isinstance(problem, NotResolved | CancelledError):
                self._log.failure("looking up {name} failed", failure=result, name=key[0])
            until = self._reactor.seconds() + self._limits.failure
            result = _Answer((), until, NotResolved, reason)
        # The oldest goes first: what is asked for often is soon there again.
        self._known.pop(key, None)
        while len(self._known) >= self._limits.entries:
            del self._known[next(iter(self._known))]
        self._known[key] = result
        for wanted in self._waiting.pop(key):
            wanted.callback(result)

    async def _look_up(self, name: str, kind: int) -> _Answer:
        limits = self._limits
        now = self._reactor.seconds()
        if not _is_name(name):
            return _Answer((), now + limits.longest_negative, NoSuchDomain, "no name for the DNS")
        seconds = limits.longest
        names = [name]
        while True:
            message = await self._ask(names[-1], kind)
            of_name: dict[str, list[Any]] = {}
            for record in message.answers:
                of_name.setdefault(_text(record.name), []).append(record)
            asked = names[-1]
            while True:
                records = of_name.get(names[-1], ())
                found = [record for record in records if record.type == kind]
                aliases = [record for record in records if record.type == dns.CNAME]
                seconds = min([seconds, *(record.ttl for record in found or aliases)])
                if found:
                    payloads = tuple(record.payload for record in found[: limits.records])
                    return _Answer(payloads, now + seconds)
                if not aliases:
                    break
                # RFC 5321 §5.1: an alias stands for what it leads to, for MX records too.
                target = _text(aliases[0].payload.name)
                if target in names or len(names) > limits.aliases:
                    raise NotResolved(reason=f"too many aliases: {' -> '.join([*names, target])}")
                names.append(target)
            if message.rCode == dns.ENAME or names[-1] == asked:
                missing = NoSuchDomain if message.rCode == dns.ENAME else None
                negative = min(limits.longest_negative, seconds, _negative_ttl(message))
                return _Answer((), now + negative, missing)
            # The alias leads to where this server did not look.

    async def _ask(self, name: str, kind: int) -> Any:
        """
        A message that answers the question, with the code OK or ENAME.

        Raises:
            NotResolved.
        """
        question = dns.Query(name.encode("ascii"), kind, dns.IN)
        servers = list(self._servers if self._servers is not None else self._resolv_conf.content())
        problems: list[str] = []
        for timeout in self._limits.timeouts:
            for server in tuple(servers):
                try:
                    message = await self._by_udp(server, question, timeout)
                    if message.trunc:
                        # RFC 7766 §5: what does not fit is asked again by TCP.
                        message = await self._by_tcp(server, question)
                except NoAnswer:
                    problems.append(f"{server[0]} was silent")
                except (CannotListenError, ConnectError, ConnectionLost, OSError) as error:
                    problems.append(f"{server[0]}: {error}")
                else:
                    if not message.answer or message.queries != [question]:
                        problems.append(f"{server[0]} answered something else")
                    elif message.rCode in (dns.OK, dns.ENAME):
                        return message
                    else:
                        problems.append(f"{server[0]} answered with code {message.rCode}")
                    servers.remove(server)
        kinds = {dns.MX: "MX", dns.A: "A", dns.AAAA: "AAAA"}
        reason = "; ".join(dict.fromkeys(problems)) or "no name server is known"
        raise NotResolved(reason=f"{kinds[kind]} of {name}: {reason}")

    async def _by_udp(self, server: tuple[str, int], question: Any, timeout: float) -> Any:
        # A port of its own for each question: who would forge an answer has to guess it as well.
        protocol = dns.DNSDatagramProtocol(_Unasked(), self._reactor)
        port = self._reactor.listenUDP(0, protocol, interface="::" if ":" in server[0] else "")
        try:
            return await protocol.query(server, [question], timeout)
        finally:
            _forget(protocol)
            port.stopListening()

    async def _by_tcp(self, server: tuple[str, int], question: Any) -> Any:
        endpoint = TCP6ClientEndpoint if ":" in server[0] else TCP4ClientEndpoint
        timeout = self._limits.tcp_timeout
        protocol: Any = dns.DNSProtocol(_Unasked(), self._reactor)
        await connectProtocol(endpoint(self._reactor, *server, timeout=timeout), protocol)
        try:
            return await protocol.query([question], timeout)
        finally:
            _forget(protocol)
            protocol.transport.abortConnection()


class _Unasked:
    """What twisted.names tells a protocol's owner besides answers."""

    def messageReceived(self, message: object, protocol: object, address: object = None) -> None:
        """An answer to nothing we asked."""

    def connectionMade(self, protocol: object) -> None:
        """The question follows."""

    def connectionLost(self, protocol: Any) -> None:
        for answer, timer in _forget(protocol):
            if not timer.called:
                answer.errback(ConnectionLost())


def _forget(protocol: Any) -> list[Any]:
    """The questions of a protocol that are still open, which it does not wait for any more."""
    live, protocol.liveMessages = list(protocol.liveMessages.values()), {}
    for _, timer in live:
        if timer.active():
            timer.cancel()
    return live


def _text(name: Any) -> str:
    # What is not ASCII is no host's name; it is kept as a name that nobody can look up.
    text: str = name.name.decode("ascii", "backslashreplace")
    return text.lower().removesuffix(".")


def _is_name(name: str) -> bool:
    return (
        name.isascii()
        and name.isprintable()
        and " " not in name
        and len(name) <= MOST_NAME
        and all(1 <= len(label) <= MOST_LABEL for label in name.split("."))
    )


def _negative_ttl(message: Any) -> float:
    """RFC 2308 §5: how long it holds that there is nothing; 0 where the answer does not say."""
    for record in message.authority:
        if record.type == dns.SOA:
            return float(min(record.ttl, record.payload.minimum))
    return 0.0


def _interleaved(families: Sequence[Sequence[str]]) -> list[str]:
    """The first of each, then the second of each: one family that does not work costs one attempt."""
    return [address for address in chain.from_iterable(zip_longest(*families)) if address]


# Files

T = TypeVar("T")


class _Watched(Generic[T]):
    """A small text file, read again when it changes; a missing one counts as empty."""

    def __init__(self, path: str, parse: Callable[[str], T]) -> None:
        self._path = path
        self._parse = parse
        self._seen: tuple[int, int, int] | None = None
        self._content = parse("")

    def content(self) -> T:
        try:
            stat = os.stat(self._path)
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._content = self._parse(file.read())
                self._seen = seen
        except OSError:
            self._seen = None
            self._content = self._parse("")
        return self._content


def _servers_in(text: str) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and (address := _address(words[1])):
            found.append((address, dns.PORT))
    return tuple(found) or (("127.0.0.1", dns.PORT),)


def _hosts_in(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) > 1 and (address := _address(words[0])):
            for name in words[1:]:
                found.setdefault(name.lower().removesuffix("."), []).append(address)
    return found


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return ""
