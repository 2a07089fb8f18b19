"""What changes many messages at once: STORE, EXPUNGE, COPY, MOVE."""

from __future__ import annotations

from benchmarks.clients import Imap
from benchmarks.player import Refused
from benchmarks.servers import Server
from benchmarks.work import Effort, Measure, Reading, clock


def store_and_expunge(server: Server, effort: Effort) -> Measure:
    """\\Seen on all, with answers; \\Deleted on every other one, silently; EXPUNGE of those."""
    count = effort.count(10_000, server)
    half = range(1, count + 1, 2)
    numbers = ",".join(map(str, half))

    def measure() -> list[Reading]:
        imap = server.connect(server.fill("2k", count))
        imap.select()
        readings = [
            _timed(server, imap, "STORE all", "STORE 1:* +FLAGS (\\Seen)", b" FETCH (", count),
            _timed(
                server,
                imap,
                "STORE half, silent",
                f"STORE {numbers} +FLAGS.SILENT (\\Deleted)",
                b"",
                len(half),
            ),
            _timed(server, imap, "EXPUNGE half", "EXPUNGE", b" EXPUNGE\r\n", len(half)),
        ]
        imap.close()
        return readings

    return measure


def copy_and_move(server: Server, effort: Effort) -> Measure:
    """All messages of a mailbox into another one, twice."""
    count = effort.count(10_000, server)

    def measure() -> list[Reading]:
        imap = server.connect(server.fill("2k", count))
        imap.command("CREATE copies")
        imap.command("CREATE moved")
        imap.select()
        readings = [_timed(server, imap, "COPY", "COPY 1:* copies", b"", count)]
        if b"MOVE" in imap.capabilities():
            readings.append(_timed(server, imap, "MOVE", "MOVE 1:* moved", b" EXPUNGE\r\n", count))
        for mailbox in ("copies", "moved")[: len(readings)]:
            if imap.select(mailbox) != count:
                raise Refused(f"not all messages are in {mailbox}")
        imap.close()
        return readings

    return measure


def _timed(server: Server, imap: Imap, label: str, command: str, answer: bytes, count: int) -> Reading:
    """`answer` is what is said once for every message, empty for a silent command."""
    with clock(server) as taken:
        said = imap.command(command, count=answer).hits
    if answer and said < count:
        # One VANISHED in place of many EXPUNGE is for clients that asked for it; we did not.
        raise Refused(f"{command}: {said} answers for {count} messages")
    return Reading(label, count / taken.seconds, "messages/s", taken.cpu / count)
