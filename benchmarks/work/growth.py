"""Ourselves against ourselves: does a message cost more where there are many, in mailboxes or accounts?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks import corpus
from benchmarks.player import Player
from benchmarks.servers import DOMAIN, Server
from benchmarks.work import Effort, Measure, Reading, clock
from benchmarks.work.accept import script
from benchmarks.work.select import grown

SIZES = (1_000, 10_000, 100_000, 1_000_000)

#: Messages that are listed for a figure, at least.
LEAST = 20_000

#: Seconds of the server's CPU for one message.
Cost = Callable[[], float]


def mailbox_accept(server: Server, effort: Effort) -> Measure:
    """Accepting a message into a mailbox of 1,000 to 1,000,000."""
    users = {size: grown(server, effort.count(size, server)) for size in SIZES}
    return _growth(
        {
            f"{size:,} messages": lambda user=user: _accepted(server, effort, server.address(user))
            for size, user in users.items()
        }
    )


def mailbox_fetch(server: Server, effort: Effort) -> Measure:
    """
    Telling flags, date and size of each message of a mailbox of 1,000 to 1,000,000.

    After a start of the server, so that nothing is kept that was told before: how much that is
    has a bound, and grows to it.  There are several of the small ones, as one would be too little to measure.
    """
    users = {}
    for size in SIZES:
        count = effort.count(size, server)
        users[size] = [grown(server, count)]
        users[size] += [server.fill("2k", count) for _ in range(1, LEAST // size)]
    listed = _growth(
        {f"{size:,} messages": lambda some=some: _fetched(server, some) for size, some in users.items()}
    )
    few = [server.filled("2k", 20)]

    def measure() -> Iterable[Reading]:
        server.restart()
        # Whatever is done once in a server's life.
        _fetched(server, few)
        return listed()

    return measure


def accounts_accept(server: Server, effort: Effort) -> Measure:
    """Accepting messages that are all for one account, and for another account each, of 100,000."""
    another = f"user{{iteration}}@{DOMAIN}"
    return _growth(
        {
            "the same account": lambda: _accepted(server, effort, server.address(0)),
            f"another of {server.accounts:,}": lambda: _accepted(server, effort, another),
        }
    )


def memory_in_use(server: Server, effort: Effort) -> Measure:
    """What a mailbox of 1,000,000 messages takes in a server started anew: selected, listed, and searched."""
    user = grown(server, effort.count(1_000_000, server))

    def measure() -> list[Reading]:
        server.restart()
        imap = server.connect(user)
        before = server.memory()
        imap.select()
        imap.command("UID FETCH 1:* (FLAGS)")
        imap.command("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)")
        imap.command("SEARCH UNSEEN")
        used = server.memory()
        imap.close()
        return [Reading("the mailbox", used - before, "MiB"), Reading("with the server", used, "MiB")]

    return measure


def _growth(costs: dict[str, Cost]) -> Measure:
    """Each cost, and how many times the first one the last one is."""

    def measure() -> list[Reading]:
        found = {label: cost() * 1e6 for label, cost in costs.items()}
        first, *_, last = found.values()
        costs_each = [Reading(label, cost, "us") for label, cost in found.items()]
        return [*costs_each, Reading("growth", last / first, "times")]

    return measure


def _accepted(server: Server, effort: Effort, recipient: str) -> float:
    assert server.smtp
    player = Player(server.smtp, script("EHLO", True, recipient), 50, corpus.messages("2k"), stuffed=True)
    player.play(100)
    count = max(100, int(2_000 * effort.seconds))
    with clock(server) as taken:
        player.play(count)
    return taken.cpu / count


def _fetched(server: Server, users: Sequence[int]) -> float:
    found, seconds = 0, 0.0
    for user in users:
        imap = server.connect(user)
        count = imap.select()
        with clock(server) as taken:
            imap.command("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)")
        imap.close()
        found, seconds = found + count, seconds + taken.cpu
    return seconds / found
