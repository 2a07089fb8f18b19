"""
What is done to servers: each function here prepares one and returns what measures it.

    def work(server, effort):
        user = server.filled("2k", effort.count(100_000, server))      # not measured
        def measure():
            with clock(server) as taken:
                ...
            yield Reading("first", count / taken.seconds, "messages/s", taken.cpu / count)
        return measure

`measure` is called several times, in turn with other servers' ones.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from benchmarks.servers import Server

#: Units of which less is better.
COSTS = ("ms", "us", "KiB", "MiB", "times")


@dataclass(frozen=True)
class Reading:
    """
    One figure.

    Attributes:
        label: which of the figures of a row; empty for the main one.
        cpu: seconds of the server's CPU for each message, login or MB; None where that says nothing.
    """

    label: str
    value: float
    unit: str
    cpu: float | None = None


@dataclass(frozen=True)
class Effort:
    """
    How much is done.

    Attributes:
        scale: of the mailbox sizes that the table names.
        seconds: about how long a run of messages or logins goes on.
    """

    scale: float = 1.0
    seconds: float = 2.0

    def count(self, nominal: int, server: Server) -> int:
        """How many messages stand for `nominal` ones."""
        return max(int(nominal * self.scale * server.share), 20)


Measure = Callable[[], Iterable[Reading]]
Work = Callable[[Server, Effort], Measure]


class Taken:
    """Seconds, by the clock and of the server's CPU."""

    seconds = 0.0
    cpu = 0.0


@contextlib.contextmanager
def clock(server: Server) -> Iterator[Taken]:
    """Measures the block; a `seconds` that the block sets itself is left."""
    taken = Taken()
    cpu, started = server.cpu(), time.perf_counter()
    yield taken
    taken.seconds = taken.seconds or time.perf_counter() - started
    if server.name.startswith("dovecot"):
        # A process that has ended counts once its parent has noticed.
        time.sleep(0.15)
    taken.cpu = server.cpu() - cpu
