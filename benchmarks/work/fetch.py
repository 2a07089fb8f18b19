"""FETCH: what a mail client asks of a whole mailbox."""

from __future__ import annotations

from benchmarks.clients import Imap
from benchmarks.player import Refused
from benchmarks.servers import Server
from benchmarks.work import Effort, Measure, Reading, Work, clock


def fetch(items: str, nominal: int = 100_000, kind: str = "2k") -> Work:
    """
    Items of all messages that were asked for before.

    "first" is the first time after a start of the server (what it keeps on disk is there, what
    it keeps in memory is not), "again" the time after that.
    """

    def work(server: Server, effort: Effort) -> Measure:
        count = effort.count(nominal, server)
        user = server.filled(kind, count)
        _timed(server, server.connect(user), items, count)

        def measure() -> list[Reading]:
            if server.share == 1:  # The mailboxes of others are in memory, and gone with it.
                server.restart()
            imap = server.connect(user)
            readings = [_timed(server, imap, items, count, label) for label in ("first", "again")]
            imap.close()
            return readings

        return measure

    return work


def fetch_new(items: str, nominal: int = 10_000) -> Work:
    """Items for the first time after the messages came in."""

    def work(server: Server, effort: Effort) -> Measure:
        count = effort.count(nominal, server)

        def measure() -> list[Reading]:
            imap = server.connect(server.fill("mix", count))
            readings = [_timed(server, imap, items, count, "")]
            imap.close()
            return readings

        return measure

    return work


def bodies(kind: str, nominal: int) -> Work:
    """Whole messages."""

    def work(server: Server, effort: Effort) -> Measure:
        count = effort.count(nominal, server)
        user = server.filled(kind, count)

        def measure() -> list[Reading]:
            imap = server.connect(user)
            imap.select()
            with clock(server) as taken:
                octets = imap.command("UID FETCH 1:* (BODY.PEEK[])").octets
            imap.close()
            if octets < count * 0.95 * {"50k": 50_000, "1m": 1_000_000}[kind]:
                raise Refused(f"only {octets} octets of {count} messages")
            return [Reading("", octets / 1e6 / taken.seconds, "MB/s", taken.cpu / (octets / 1e6))]

        return measure

    return work


def _timed(server: Server, imap: Imap, items: str, count: int, label: str = "") -> Reading:
    imap.select()
    with clock(server) as taken:
        found = imap.command(f"UID FETCH 1:* ({items})", count=b" FETCH (").hits
    if found < count:
        raise Refused(f"{items}: {found} of {count} messages")
    return Reading(label, count / taken.seconds, "messages/s", taken.cpu / count)
