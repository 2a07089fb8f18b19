"""Ourselves against ourselves: does a message cost more where there are many, in mailboxes or accounts?"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import corpus
from benchmarks.player import Player
from benchmarks.servers import DOMAIN, Server
from benchmarks.work import Effort, Measure, Reading, clock
from benchmarks.work.accept import script
from benchmarks.work.select import grown

SIZES = (1_000, 10_000, 100_000, 1_000_000)

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
    """Telling flags, date and size of a message, in a mailbox of 1,000 to 1,000,000."""
    users = {size: grown(server, effort.count(size, server)) for size in SIZES}
    return _growth(
        {f"{size:,} messages": lambda user=user: _fetched(server, user) for size, user in users.items()}
    )


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
    """The whole server, started anew, with a mailbox of 1,000,000 messages selected and listed once."""
    user = grown(server, effort.count(1_000_000, server))

    def measure() -> list[Reading]:
        server.restart()
        imap = server.connect(user)
        before = server.memory()
        imap.select()
        imap.command("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)")
        used = server.memory()
        imap.close()
        return [Reading("server and mailbox", used, "MiB"), Reading("mailbox", used - before, "MiB")]

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
    count = max(100, min(int(3_000 * effort.seconds), server.accounts))
    with clock(server) as taken:
        player.play(count)
    return taken.cpu / count


def _fetched(server: Server, user: int) -> float:
    """As often as makes 2,000,000 messages, as CPU is counted in hundredths of a second."""
    imap = server.connect(user)
    count = imap.select()
    times = max(1, min(2_000_000 // count, 1_000))
    with clock(server) as taken:
        for _ in range(times):
            imap.command("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)")
    imap.close()
    return taken.cpu / count / times
