"""
`mailplat queue`: what waits, why, and what an operator decides about it.

Everything goes through the same `IQueueStore` that a running server works on, so it sees a
decision within a second, also one about what it is just trying: an attempt that succeeds
meanwhile is done with, whatever was decided.

The queue is walked a page at a time; a million items cost no memory here either.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from mailplat.cli import queue_text
from mailplat.cli.directory import Directory
from mailplat.cli.directory import add_words as add_directory_words
from mailplat.delivery.hops import NextHop
from mailplat.delivery.queue import Schedule
from mailplat.errors import CannotDo, ConfigurationError, MailError, NoSuchMessage
from mailplat.interfaces import IQueueStore, IRouter, ISpooledMessage
from mailplat.message.compose import path
from mailplat.values import NEVER, RELAY, Address, QueuedRecipient, QueueItem, QueueStatus, Settled, Target

#: Items read and changed at a time.
PAGE = 200

_PIECE = 128 * 1024

#: Octets of a header that are shown.
_HEADER = 128 * 1024

_AGES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

_ABOUT = {
    "list": "show what waits: age, size, sender; recipients, next attempts and last replies",
    "show": "show all that is known of items, and their header",
    "hold": "have nothing tried, and no sender told, until a release",
    "release": "try what was held, now",
    "cancel": "remove recipients from the queue, for good; nobody is told",
    "retry": "try again now, also what goes to a next hop that is left alone for a while",
    "reroute": "send what waits to another next hop, now",
}

_REROUTE = """
With --to everything chosen that goes to other hosts takes this next hop: DOMAIN (its MX hosts),
[ADDRESS], or smtp:HOST:PORT, smtps:, lmtp: and smtp:unix:/PATH, with ;tls=LEVEL and
;login=NAME behind it.  Without --to each recipient is routed as if it arrived now: by the
domains, aliases and next hops of the configuration.
"""


def add_words(commands: Any) -> None:
    queue = commands.add_parser(
        "queue", allow_abbrev=False, help="see what waits to be delivered, and decide about it"
    )
    actions = queue.add_subparsers(metavar="ACTION", required=True)
    for name, act in (
        ("list", _list),
        ("show", _show),
        ("hold", _hold),
        ("release", _release),
        ("cancel", _cancel),
        ("retry", _retry),
        ("reroute", _reroute),
    ):
        about = _ABOUT[name]
        parser = actions.add_parser(
            name,
            allow_abbrev=False,
            help=about,
            description=f"{about[0].upper()}{about[1:]}." + _REROUTE * (name == "reroute"),
        )
        parser.set_defaults(run=_run, action=name, act=act)
        _with_items(parser, name)
        add_directory_words(parser)


def _with_items(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("id", metavar="ID", nargs="*", type=int, help="an item, as `queue list` numbers it")
    if name == "list":
        parser.set_defaults(all=True)
    elif name == "show":
        parser.add_argument("--body", action="store_true", help="the whole message, not its header only")
        parser.add_argument("--raw", action="store_true", help="nothing but the message, octet for octet")
        parser.set_defaults(all=False)
    else:
        parser.add_argument("--all", action="store_true", help="everything that the filters let through")
    if name == "cancel":
        parser.add_argument("--yes", action="store_true", help="do not ask, with --all")
    if name == "reroute":
        parser.add_argument("--to", metavar="HOP", type=_hop, help="the next hop  [default: as configured]")
    parser.add_argument("--json", action="store_true", help="JSON, one object a line")

    filters = parser.add_argument_group("filters", "Of each item, the recipients that all of these fit.")
    pattern: dict[str, Any] = {"metavar": "PATTERN", "type": _pattern}
    filters.add_argument(
        "--sender", help="address or domain, * for anything, <> for the null sender", **pattern
    )
    filters.add_argument("--recipient", help="address or domain, * for anything", **pattern)
    filters.add_argument("--place", help="next hop, as `queue list` has it; * for anything", **pattern)
    filters.add_argument("--held", action="store_true", help="those that are held")
    filters.add_argument("--older-than", metavar="AGE", type=_age, help="30m, 12h, 3d; seconds by itself")


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.IGNORECASE | re.DOTALL)


def _age(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is no age, such as 30m, 12h or 3d")
    return int(found[1]) * _AGES[found[2]]


def _hop(text: str) -> str:
    try:
        return str(NextHop.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Choice:
    """
    Which items, and which of their recipients.

    Attributes:
        ids: these items; empty for all.
        sender, recipient, place: patterns, None for any.
        held: only what is held.
        before: only what arrived before this.
    """

    ids: tuple[int, ...] = ()
    sender: re.Pattern[str] | None = None
    recipient: re.Pattern[str] | None = None
    place: re.Pattern[str] | None = None
    held: bool = False
    before: float = NEVER

    @classmethod
    def of(cls, words: argparse.Namespace, now: float) -> Choice:
        """
        Raises:
            ConfigurationError: neither ids nor `--all`, or both.
        """
        ids = tuple(dict.fromkeys(words.id))
        if bool(ids) == words.all and words.action != "list":
            raise ConfigurationError("say which: ID ..." + ("" if words.action == "show" else ", or --all"))
        before = NEVER if words.older_than is None else now - words.older_than
        return cls(ids, words.sender, words.recipient, words.place, words.held, before)

    @property
    def is_everything(self) -> bool:
        return self == Choice()

    def among(self, item: QueueItem) -> tuple[QueuedRecipient, ...]:
        """The recipients of an item that are meant."""
        if item.arrived >= self.before or not _fits(self.sender, item.envelope.sender):
            return ()
        return tuple(
            one
            for one in item.recipients
            if (not self.held or one.due >= NEVER)
            and _fits(self.recipient, one.target.address)
            and (self.place is None or self.place.fullmatch(queue_text.next_hop(one)))
        )


def _fits(pattern: re.Pattern[str] | None, address: Address | None) -> bool:
    if pattern is None:
        return True
    if address is None:
        return bool(pattern.fullmatch("<>"))
    return bool(pattern.fullmatch(path(address)) or pattern.fullmatch(address.domain))


class Missing:
    """Gathers the ids that no item has."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def check(self) -> None:
        """
        Raises:
            NoSuchMessage: there are some.
        """
        if self.ids:
            raise NoSuchMessage("\n".join(f"There is no item {number} in the queue" for number in self.ids))


Chosen = tuple[QueueItem, tuple[QueuedRecipient, ...]]


@dataclass(frozen=True, slots=True)
class Desk:
    """
    What a command has before it.

    Attributes:
        router: makes what says where recipients are; only a command that asks it minds mistakes in
            a file of aliases.
        words: of the command line.
        choice: what it is about.
        now: seconds since 1970.
    """

    queue: IQueueStore
    router: Callable[[], IRouter]
    schedule: Schedule
    words: argparse.Namespace
    choice: Choice
    now: float


async def pages(desk: Desk, missing: Missing) -> AsyncIterator[list[Chosen]]:
    """What is chosen, up to `PAGE` items at a time, by ascending id where none were named."""
    queue, choice = desk.queue, desk.choice
    if choice.ids:
        for number in choice.ids:
            try:
                item = await queue.item(number)
            except NoSuchMessage:
                missing.ids.append(number)
            else:
                yield [(item, found)] if (found := choice.among(item)) else []
        return
    after = 0
    while items := await queue.items(after, PAGE):
        yield [(item, found) for item in items if (found := choice.among(item))]
        after = items[-1].id


# Commands


def _run(words: argparse.Namespace) -> int:
    now = time.time()
    choice = Choice.of(words, now)
    directory = Directory(words)

    async def act(store: Any, queue: IQueueStore) -> None:
        schedule = directory.settings.limits["schedule"]
        await words.act(Desk(queue, lambda: directory.router(store), schedule, words, choice, now))

    directory.with_queue(act)
    return 0


async def _list(desk: Desk) -> None:
    missing = Missing()
    items = recipients = held = 0
    oldest = NEVER
    async for page in pages(desk, missing):
        for item, found in page:
            if desk.words.json:
                print(queue_text.as_json(item, found))
                continue
            if not items:
                print(queue_text.HEADING)
            print("\n".join(queue_text.lines(item, found, desk.now)))
            items += 1
            recipients += len(found)
            held += sum(one.due >= NEVER for one in found)
            oldest = min(oldest, item.arrived)
    if not desk.words.json:
        counted = QueueStatus(items, recipients, held, oldest)
        if not items and not desk.choice.is_everything and (await desk.queue.status()).items:
            print("nothing in the queue fits")
        else:
            print(queue_text.totals(counted, desk.now))
    missing.check()


async def _show(desk: Desk) -> None:
    missing = Missing()
    first = True
    async for page in pages(desk, missing):
        for item, found in page:
            try:
                message, prefix = await desk.queue.message(item.id)
            except NoSuchMessage:
                missing.ids.append(item.id)
                continue
            try:
                if desk.words.raw:
                    await _copy(message, prefix)
                    continue
                shown = await (_body(message) if desk.words.body else _header(message))
                text = (prefix + shown).decode("utf-8", "backslashreplace")
            finally:
                message.close()
            if desk.words.json:
                print(queue_text.as_json(item, found, message=text))
                continue
            if not first:
                print("\n" + "-" * 72 + "\n")
            first = False
            print("\n".join(queue_text.description(item, desk.now)) + "\n")
            for line in text.rstrip("\r\n").split("\r\n"):
                print("  " + "\t".join(map(queue_text.printable, line.split("\t"))))
    missing.check()


async def _header(message: ISpooledMessage) -> bytes:
    beginning: bytes = await message.read(0, _HEADER)
    header, blank, _ = beginning.partition(b"\r\n\r\n")
    return header + blank


async def _body(message: ISpooledMessage) -> bytes:
    pieces = [await message.read(start, _PIECE) for start in range(0, message.size, _PIECE)]
    return b"".join(pieces)


async def _copy(message: ISpooledMessage, prefix: bytes) -> None:
    sys.stdout.flush()
    out = sys.stdout.buffer
    out.write(prefix)
    for start in range(0, message.size, _PIECE):
        out.write(await message.read(start, _PIECE))
    out.flush()


async def _hold(desk: Desk) -> None:
    await _change(desk, "held", lambda item, one: replace(one, due=NEVER, notice=NEVER))


async def _release(desk: Desk) -> None:
    await _change(
        replace(desk, choice=replace(desk.choice, held=True)),
        "released",
        lambda item, one: _due(desk, item, one),
    )


async def _cancel(desk: Desk) -> None:
    if not desk.choice.ids and not desk.words.yes:
        await _confirm(desk)
    await _change(desk, "cancelled", lambda item, one: None)


async def _confirm(desk: Desk) -> None:
    count = 0
    async for page in pages(desk, Missing()):
        count += sum(len(found) for _, found in page)
    if count:
        _ask(f"Give up the mail to {count} recipients for good?  Type yes: ")


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("this gives up mail for good: say --yes")
    if input(question).strip() != "yes":
        raise ConfigurationError("nothing was cancelled")


async def _retry(desk: Desk) -> None:
    places: set[tuple[str, str]] = set()

    def due(item: QueueItem, one: QueuedRecipient) -> QueuedRecipient:
        if one.due >= NEVER:
            # Whoever held it wants to release it.
            return one
        places.add((one.target.agent, one.target.place))
        return replace(one, due=int(desk.now))

    async def wake() -> None:
        for agent, place in places:
            await desk.queue.rest(agent, place, 0)
        places.clear()

    await _change(desk, "due now", due, wake)


async def _reroute(desk: Desk) -> None:
    missing = Missing()
    router = desk.router()
    count = left = 0
    async for page in pages(desk, missing):
        results: list[Settled] = []
        for item, found in page:
            for one in found:
                try:
                    target = await _new_target(router, item, one, desk.words.to)
                except MailError as error:
                    left += 1
                    where = queue_text.printable(path(one.target.address))
                    print(f"mailplat: item {item.id}, {where}: {error.text}", file=sys.stderr)
                    continue
                if target != one.target:
                    due = one.due if one.due >= NEVER else int(desk.now)
                    results.append(Settled(item.id, one.number, replace(one, target=target, due=due)))
        if results:
            count += await desk.queue.change(results)
    _report(desk, "rerouted", count)
    missing.check()
    if left:
        raise CannotDo(f"{left} stay where they are")


async def _new_target(router: IRouter, item: QueueItem, one: QueuedRecipient, hop: str | None) -> Target:
    """
    Raises:
        MailError: there is none, or more than one.
    """
    if hop is not None:
        return replace(one.target, place=hop) if one.target.agent == RELAY else one.target
    targets = await router.route(one.target.address, item.envelope.sender)
    if len(targets) != 1:
        # A recipient of the queue is one copy.
        raise CannotDo(f"leads to {len(targets)} places now")
    return targets[0]


async def _change(
    desk: Desk,
    what: str,
    decide: Callable[[QueueItem, QueuedRecipient], QueuedRecipient | None],
    after: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """
    Change what is chosen as `decide` says, and tell how many it was.

    Args:
        after: called after each page.
    """
    missing = Missing()
    count = 0
    async for page in pages(desk, missing):
        results = [
            Settled(item.id, one.number, new)
            for item, found in page
            for one in found
            if (new := decide(item, one)) is not one
        ]
        if results:
            count += await desk.queue.change(results)
        if after is not None:
            await after()
    _report(desk, what, count)
    missing.check()


def _report(desk: Desk, what: str, count: int) -> None:
    if desk.words.json:
        print(json.dumps({"done": what, "recipients": count}))
    else:
        print(f"{count} recipient{'s' * (count != 1)} {what}")


def _due(desk: Desk, item: QueueItem, one: QueuedRecipient) -> QueuedRecipient:
    """
    Due now, and its sender told as the schedule says, but not before there was an attempt: after a
    long time on hold that might be the end at once.
    """
    schedule, now = desk.schedule, int(desk.now)
    end = schedule.end(item.envelope, item.arrived)
    planned = end if one.delayed else schedule.first_notice(item.envelope, item.arrived)
    return replace(one, due=now, notice=max(planned, now + schedule.retries[0]))
