"""SEARCH without a full-text index, in mail that has just come in."""

from __future__ import annotations

import re

from benchmarks import corpus
from benchmarks.clients import Imap
from benchmarks.player import Refused
from benchmarks.servers import Server
from benchmarks.work import Effort, Measure, Reading, Work, clock


def search(nominal: int) -> Work:
    kind = "mix" if nominal <= 10_000 else "2k"

    def work(server: Server, effort: Effort) -> Measure:
        count = effort.count(nominal, server)
        subjects = corpus.holders(corpus.SUBJECT_EVERY, kind, count)
        texts = corpus.holders(corpus.BODY_EVERY, kind, count)

        def measure() -> list[Reading]:
            imap = server.connect(server.fill(kind, count))
            imap.select()
            found = {
                "UNSEEN": _timed(server, imap, "UNSEEN", count),
                "SUBJECT first": _timed(server, imap, f"SUBJECT {corpus.SUBJECT_WORD}", subjects),
                "SUBJECT again": _timed(server, imap, f"SUBJECT {corpus.SUBJECT_WORD}", subjects),
                "BODY": _timed(server, imap, f"BODY {corpus.BODY_WORD}", texts),
            }
            imap.close()
            # A server with a smaller mailbox would take so many times as long for the whole one.
            times = nominal * effort.scale / count
            return [Reading(label, seconds * times * 1e3, "ms") for label, seconds in found.items()]

        return measure

    return work


def _timed(server: Server, imap: Imap, criteria: str, wanted: int) -> float:
    """Seconds."""
    with clock(server) as taken:
        # Each number has a space before it; so has the tag's status, and what else the last line says.
        answer = imap.command(f"SEARCH {criteria}", count=b" ")
    line, status = answer.end.rstrip(b"\r\n").rpartition(b"\r\n")[::2]
    others = 1 + status.count(b" ") + sum(other.count(b" ") for other in re.findall(rb"\* \d+ [^\r]*", line))
    if answer.hits - others != wanted:
        raise Refused(f"SEARCH {criteria} found {answer.hits - others} of {wanted}")
    return taken.seconds
