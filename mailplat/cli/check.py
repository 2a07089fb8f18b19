"""
`mailplat check`: does the store have what its index says it has?
"""

from __future__ import annotations

import argparse
from typing import Any

from mailplat.cli.directory import Directory
from mailplat.cli.directory import add_words as add_directory_words
from mailplat.errors import CannotDo
from mailplat.interfaces import IVerifiable


def add_words(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        allow_abbrev=False,
        help="verify the index against the messages",
        description="Verify the index against the messages.  Exit status 0: all is well; 1: it is not.",
    )
    parser.set_defaults(run=_check)
    add_directory_words(parser)


def _check(words: argparse.Namespace) -> int:
    directory = Directory(words)
    problems = directory.with_store(_problems)
    for problem in problems:
        print(problem)
    if not problems:
        print("all is well")
    return 1 if problems else 0


async def _problems(store: Any) -> list[str]:
    if not IVerifiable.providedBy(store):
        raise CannotDo("This store cannot be checked")
    return list(await store.verify())
