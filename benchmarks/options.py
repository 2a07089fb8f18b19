"""The words of both commands."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from benchmarks.table import ROWS, SERVERS
from benchmarks.work import Effort


def parse(about: str, module: str, arguments: list[str] | None, runs: int) -> tuple[argparse.Namespace, str]:
    """The options, `effort` made of two of them, and the command line that repeats the run."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=about,
        epilog=f"Rows: {', '.join(row.name for row in ROWS)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", help="names, separated by commas (default: all of that command's)")
    parser.add_argument("--runs", type=int, default=runs, help="of each row (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the mailboxes' sizes (default: 1)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a run of messages (default: 2)")
    parser.add_argument("--data", default="/var/tmp", help="a folder on a real disk (default: %(default)s)")
    parser.add_argument("--profile", type=Path, help="folder for what py-spy sees ours do")
    if module.endswith("compare"):
        parser.add_argument("--peers", help=f"of {', '.join(kind.name for kind in SERVERS[1:])}")
    options = parser.parse_args(arguments)
    given = [
        f"--{name}={value}" for name, value in vars(options).items() if value != parser.get_default(name)
    ]
    options.effort = Effort(options.scale, options.seconds)
    return options, shlex.join(["python", "-m", module, *given])
