"""SELECT of a large mailbox."""

from __future__ import annotations

import time

from benchmarks.clients import Imap
from benchmarks.player import Refused
from benchmarks.servers import Server
from benchmarks.work import Effort, Measure, Reading, Work


def select(nominal: int) -> Work:
    """
    "cold": the first after a start of the server; "cold, first FETCH": until the flags of the last message
    are there as well; "warm": with another connection in it.
    """

    def work(server: Server, effort: Effort) -> Measure:
        count = effort.count(nominal, server)
        user = grown(server, count)

        def measure() -> list[Reading]:
            server.restart()
            first, second = server.connect(user), server.connect(user)
            started = time.perf_counter()
            cold = _timed(first, "cold", count)
            first.command("UID FETCH * FLAGS")
            fetched = Reading("cold, first FETCH", (time.perf_counter() - started) * 1e3, "ms")
            readings = [cold, fetched, _timed(second, "warm", count)]
            first.close()
            second.close()
            return readings

        return measure

    return work


def grown(server: Server, count: int) -> int:
    """An account with `count` messages in INBOX, most of them copies; the same at every call."""
    key = ("copies", count)
    if key not in server.mailboxes:
        start = min(count, 1000)
        user = server.fill("2k", start)
        imap = server.connect(user)
        imap.select()
        have = start
        while have < count:
            more = min(have, count - have, 50_000)
            imap.command(f"COPY 1:{more} INBOX")
            # Not every server tells a client of its own copies by itself.
            imap.command("NOOP")
            have += more
        imap.close()
        server.mailboxes[key] = user
    return server.mailboxes[key]


def _timed(imap: Imap, label: str, count: int) -> Reading:
    started = time.perf_counter()
    found = imap.select()
    taken = time.perf_counter() - started
    if found != count:
        raise Refused(f"{found} of {count} messages")
    return Reading(label, taken * 1e3, "ms")
