"""
`mailplat plugins`: which parts are installed, and where each comes from.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from mailplat.errors import PluginError
from mailplat.plugins import about, agents, checkers, stores


def add_words(commands: Any) -> None:
    parser = commands.add_parser(
        "plugins",
        allow_abbrev=False,
        help="list the stores, delivery agents and checkers that are installed",
        description="List what --store, --auth and [agents] can name.  Exit status 1: one is unusable.",
    )
    parser.set_defaults(run=_plugins)


def _plugins(words: argparse.Namespace) -> int:
    parts = [*stores(), *agents(), *checkers()]
    twice = {key for key, times in Counter((part.kind, part.name) for part in parts).items() if times > 1}
    status = 0
    for part in parts:
        try:
            text = about(part)
            if part.kind != "checker" and (part.kind, part.name) in twice:
                raise PluginError("there is more than one of this name: uninstall all but one")
        except PluginError as error:
            text, status = f"unusable: {error.text}", 1
        print(f"{part.kind:8} {part.name:12} {part.source:24} {text}")
    return status
