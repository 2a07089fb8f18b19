"""
The `mailplat` command.

Each group of subcommands has a module of its own, which adds its words to the parser and
says what runs for them.  A command works on a data directory, also while a server uses it,
and ends with one of these statuses:

    0  done
    1  not done; one line on standard error says why
    2  the words were wrong
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mailplat import __version__
from mailplat.cli import accounts, check, forwards, plugins, queue, send, transcripts
from mailplat.errors import MailError


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(
        prog="mailplat",
        description="Look after a mail server's data directory.  The server itself is `twistd mailplat`.",
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"mailplat {__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for module in (accounts, forwards, queue, send, transcripts, check, plugins):
        module.add_words(commands)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    words = parser().parse_args(argv)
    try:
        status: int = words.run(words)
        sys.stdout.flush()
    except MailError as error:
        for line in str(error).splitlines():
            print(f"mailplat: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mailplat: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever reads us has read enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
