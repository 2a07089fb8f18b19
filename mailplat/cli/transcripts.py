"""
`mailplat transcript`: have what is said on connections written down, and read it.
"""

from __future__ import annotations

import argparse
import os
import time
from ipaddress import ip_network
from typing import Any

from mailplat.cli.directory import Directory
from mailplat.cli.directory import add_words as add_directory_words
from mailplat.cli.queue_text import octets, span
from mailplat.errors import ConfigurationError, DataDirectoryError
from mailplat.transcripts import SERVICES, Wish, names

_ON = """
Write a transcript of each connection that begins from now on, while the server runs.  Passwords, all
else that belongs to a login, and the contents of messages are left out.  A transcript ends with
its connection, after a megabyte, or when this is over; a hundred are kept.
"""


def add_words(commands: Any) -> None:
    transcript = commands.add_parser(
        "transcript", allow_abbrev=False, help="write down what is said on connections, and show it"
    )
    actions = transcript.add_subparsers(metavar="ACTION", required=True)

    on = actions.add_parser("on", allow_abbrev=False, help="begin", description=_ON)
    on.set_defaults(run=_on)
    on.add_argument(
        "--service", choices=SERVICES, help="only this; relay is mail to other hosts  [default: all]"
    )
    on.add_argument("--peer", metavar="ADDRESS", type=_network, help="only with this host or network")
    on.add_argument(
        "--for", dest="minutes", metavar="MINUTES", type=_minutes, default=60, help="[default: 60]"
    )
    on.add_argument("--content", action="store_true", help="with the contents of messages")
    add_directory_words(on)

    about = "end"
    off = actions.add_parser("off", allow_abbrev=False, help=about, description="End, within a second.")
    off.set_defaults(run=_off)
    off.add_argument("--remove", action="store_true", help="and remove all transcripts")
    add_directory_words(off)

    about = "say what is being written, and list or print transcripts"
    show = actions.add_parser("show", allow_abbrev=False, help=about, description=f"{about.capitalize()}.")
    show.set_defaults(run=_show)
    show.add_argument("name", metavar="NAME", nargs="*", help="print this one; `last` is the latest")
    add_directory_words(show)


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no address, such as 192.0.2.1 or 192.0.2.0/24") from None


def _minutes(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 10080):
        raise argparse.ArgumentTypeError(f"{text} is no number of minutes from 1 to 10080")
    return int(text)


def _directory(words: argparse.Namespace) -> str:
    return Directory(words).transcripts


def _on(words: argparse.Namespace) -> int:
    directory = _directory(words)
    until = time.time() + words.minutes * 60
    try:
        Wish(until, words.service or "", words.peer or "", words.content).write(directory)
    except OSError as error:
        raise _trouble(directory, error) from error
    print(f"for {words.minutes} min transcripts go to {directory}")
    return 0


def _off(words: argparse.Namespace) -> int:
    directory = _directory(words)
    try:
        Wish.forget(directory)
        if words.remove:
            for name in names(directory):
                os.unlink(os.path.join(directory, name))
    except OSError as error:
        raise _trouble(directory, error) from error
    return 0


def _show(words: argparse.Namespace) -> int:
    directory = _directory(words)
    there = names(directory)
    if words.name:
        for name in words.name:
            name = there[-1] if name == "last" and there else name
            if name not in there:
                raise ConfigurationError(f"there is no transcript {name}")
            with open(os.path.join(directory, name), encoding="utf-8", errors="backslashreplace") as file:
                print(file.read(), end="")
        return 0
    for name in there:
        print(f"{octets(os.stat(os.path.join(directory, name)).st_size):>7}  {name}")
    wish = Wish.read(directory)
    now = time.time()
    if wish is None or wish.until <= now:
        print("no transcripts are being written")
        return 0
    what = f"{wish.service or 'all'} connections" + (f" with {wish.peer}" if wish.peer else "")
    content = ", contents included" if wish.content else ""
    print(f"transcripts of {what} are being written for another {span(wish.until - now)}{content}")
    return 0


def _trouble(directory: str, error: OSError) -> DataDirectoryError:
    return DataDirectoryError(f"{error.filename or directory} cannot be used: {error.strerror}")
