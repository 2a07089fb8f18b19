"""
Ours beside its peers, A B A B on one machine: the whole table, as Markdown.

    python -m benchmarks.compare [--rows smtp-accept,fetch-flags] [--runs 3] [--peers postfix]

The first line is about the machine, and the last ones say which versions ran and which
servers were left out, and why.  How it goes is told on standard error.
"""

from __future__ import annotations

import sys
import time

from benchmarks import machine, report
from benchmarks.options import parse
from benchmarks.running import stage
from benchmarks.servers.ours import Mailplat
from benchmarks.table import SERVERS, chosen


def main(arguments: list[str] | None = None) -> None:
    options, command = parse(__doc__, "benchmarks.compare", arguments, runs=3)
    wanted = set(options.peers.split(",")) if options.peers else {kind.name for kind in SERVERS}
    print(f"{machine.words(options.data)}; {command}\n\n{report.HEAD}", flush=True)
    notes = []
    began = time.monotonic()
    with stage(options.effort, options.data, options.profile) as running:
        for row in chosen(options.rows):
            minutes, seconds = divmod(int(time.monotonic() - began), 60)
            print(f"{minutes:02}:{seconds:02} {row.name}: {row.title}", file=sys.stderr, flush=True)
            peers = [peer for peer in row.peers if peer.name in wanted]
            result = running.run(row, [Mailplat, *peers], options.runs)
            for line in report.table_rows(result):
                print(line, flush=True)
            notes += report.failures(result)
        print(f"\nVersions: {'; '.join(running.versions.values())}.")
    for note in notes:
        print(note)


if __name__ == "__main__":
    main()
