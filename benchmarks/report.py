"""Results as lines, and as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.running import Figure, Result
from benchmarks.servers.ours import Mailplat
from benchmarks.table import Aim
from benchmarks.work import COSTS

HEAD = """\
| work | ours | peer | peer's | ratio | aim | |
| --- | ---: | --- | ---: | ---: | ---: | --- |"""


def lines(result: Result) -> Iterator[str]:
    """One line for each figure of ours."""
    for label, figure in result.figures.get(Mailplat.name, {}).items():
        cpu = f", {_cpu(figure.cpu)} of CPU each" if figure.cpu else ""
        yield f"{_title(result, label)}: {_value(figure)}{cpu}"
    yield from failures(result)


def table_rows(result: Result) -> Iterator[str]:
    """The rows of the table: one for each figure and peer, or for each figure where there is no peer."""
    ours = result.figures.get(Mailplat.name, {})
    for label, figure in ours.items():
        aim = result.row.aims.get(label, Aim())
        theirs = {name: figures for name, figures in result.figures.items() if name != Mailplat.name}
        for name, figures in theirs.items():
            peer = figures.get(label if aim.against is None else aim.against)
            if peer is not None:
                yield _row(result, label, figure, name, peer, aim)
        if not theirs:
            yield _row(result, label, figure, "", None, aim)


def failures(result: Result) -> Iterator[str]:
    """A line for each server that was left out."""
    for name, reason in result.failures.items():
        yield f"{result.row.name}: {name} is left out: {' '.join(reason.split())}"


def ratio(ours: Figure, peer: Figure) -> float:
    """How many times better ours is."""
    costs = ours.unit in COSTS
    return (peer.median or 1e-9) / (ours.median or 1e-9) if costs else ours.median / peer.median


def _row(result: Result, label: str, ours: Figure, name: str, peer: Figure | None, aim: Aim) -> str:
    reached: bool | None = None
    wanted = ""
    times = ratio(ours, peer) if peer is not None else None
    if aim.most is not None:
        wanted, reached = f"{aim.most:g} {ours.unit}", ours.median <= aim.most
    elif aim.times is not None:
        wanted = f"{aim.times:g}"
        reached = None if times is None else times >= aim.times
    cells = [
        _title(result, label),
        _value(ours),
        name,
        _value(peer) if peer is not None else "",
        f"{times:.3g}" if times is not None else "",
        wanted,
        {None: "", True: "yes", False: "**no**"}[reached],
    ]
    return f"| {' | '.join(cells)} |"


def _title(result: Result, label: str) -> str:
    return f"{result.row.title}: {label}" if label else result.row.title


def _value(figure: Figure) -> str:
    """The median, and from the least to the most."""
    spread = ""
    if len(figure.values) > 1:
        spread = f" ({_number(min(figure.values))} – {_number(max(figure.values))})"
    return f"{_number(figure.median)}{spread} {figure.unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cpu(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
