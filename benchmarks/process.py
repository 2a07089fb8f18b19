"""CPU and memory of a whole process tree, from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")


class _Stat(NamedTuple):
    """Of /proc/PID/stat (proc(5)): the parent, and ticks of CPU of children that ended."""

    parent: int
    ended: int


def _stats() -> dict[int, _Stat]:
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stat:
            # The second field is a name in parentheses and may hold anything.
            fields = stat.read().rpartition(")")[2].split()
            found[int(name)] = _Stat(int(fields[1]), sum(map(int, fields[13:15])))
    return found


def _tree(root: int) -> Iterator[tuple[int, _Stat]]:
    """The process and all that descend from it."""
    stats = _stats()
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    todo = [root]
    while todo:
        pid = todo.pop()
        if pid in stats:
            yield pid, stats[pid]
            todo += children.get(pid, ())


def cpu(root: int) -> float:
    """Seconds of CPU, user and system, that the tree has used so far."""
    used = 0.0
    for pid, stat in _tree(root):
        used += stat.ended / TICKS
        with contextlib.suppress(OSError):
            # A process's CPU clock (clock_getcpuclockid(3)); stat has hundredths of a second.
            used += time.clock_gettime(~pid << 3 | 2)
    return used


def memory(root: int) -> float:
    """MiB that the tree takes: pages that several processes share count once (PSS)."""
    kib = 0
    for pid, _ in _tree(root):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
            kib += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return kib / 1024
