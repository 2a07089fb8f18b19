"""
Ours alone, short: one line a figure.

    python -m benchmarks [--rows smtp-accept,fetch-flags] [--runs 3]
"""

from __future__ import annotations

from benchmarks import machine, report
from benchmarks.options import parse
from benchmarks.running import stage
from benchmarks.servers.ours import Mailplat
from benchmarks.table import ROWS, chosen


def main(arguments: list[str] | None = None) -> None:
    options, command = parse(__doc__, "benchmarks", arguments, runs=1)
    rows = chosen(options.rows) if options.rows else [row for row in ROWS if row.short]
    print(f"{machine.words(options.data)}; {command}", flush=True)
    with stage(options.effort, options.data, options.profile) as running:
        for row in rows:
            for line in report.lines(running.run(row, [Mailplat], options.runs)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
