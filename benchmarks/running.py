"""Taking turns: A B A B, on servers that are started when first needed."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.player import Refused
from benchmarks.servers import Missing, Server
from benchmarks.servers.ours import BIN, Mailplat
from benchmarks.table import Row
from benchmarks.work import Effort, Measure, Reading


@dataclass
class Figure:
    """What the runs of one server gave for one label of a row."""

    unit: str
    values: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def cpu(self) -> float | None:
        return statistics.median(self.cpus) if self.cpus else None

    def add(self, reading: Reading) -> None:
        self.values.append(reading.value)
        if reading.cpu is not None:
            self.cpus.append(reading.cpu)


@dataclass
class Result:
    """
    Of one row.

    Attributes:
        figures: server's name -> label -> figure.
        failures: server's name -> why it has none, or not all.
    """

    row: Row
    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class Stage:
    """
    The servers of one comparison; each runs from the first row that needs it to the end.

    Args:
        folder: where their data directories are made; a real disk, as syncing is measured.
        profiles: py-spy records what ours does while it is measured, into files here.
    """

    def __init__(self, folder: Path, effort: Effort, profiles: Path | None = None) -> None:
        self.folder = folder
        self.effort = effort
        self.profiles = profiles
        self.servers: dict[tuple[str, int], Server] = {}
        self.missing: dict[str, Missing] = {}
        self.versions: dict[str, str] = {}

    def server(self, kind: type[Server], accounts: int) -> Server:
        """
        Raises:
            Missing: it can't be had here.
        """
        key = (kind.name, accounts)
        if kind.name in self.missing:
            raise self.missing[kind.name]
        if key not in self.servers:
            server = kind(self.folder / str(accounts), accounts)
            try:
                server.set_up()
            except Missing as missing:
                self.missing[kind.name] = missing
                raise
            self.servers[key] = server
            self.versions[kind.name] = server.version()
        return self.servers[key]

    def run(self, row: Row, kinds: Sequence[type[Server]], runs: int) -> Result:
        """All runs of one row, in turn; a server that fails is left out from there on."""
        result = Result(row)
        measures: dict[str, Measure] = {}
        for kind in kinds:
            with self._noting(result, kind.name):
                measures[kind.name] = row.work(self.server(kind, row.accounts), self.effort)
        for _ in range(min(runs, row.runs)):
            for name, measure in measures.items():
                if name in result.failures:
                    continue
                # What the last one wrote is not to be written at this one's expense.
                os.sync()
                with self._noting(result, name), self._profiled(row, name):
                    for reading in measure():
                        figures = result.figures.setdefault(name, {})
                        figures.setdefault(reading.label, Figure(reading.unit)).add(reading)
        return result

    def close(self) -> None:
        """Stop all servers, and remove what they left, whatever fails of it."""
        with contextlib.ExitStack() as ends:
            # The last is done first.
            for server in self.servers.values():
                ends.callback(server.remove)
            for server in self.servers.values():
                ends.callback(server.stop)

    @contextlib.contextmanager
    def _noting(self, result: Result, name: str) -> Iterator[None]:
        try:
            yield
        except (Missing, Refused, OSError, subprocess.SubprocessError) as error:
            result.failures[name] = str(error) or type(error).__name__

    @contextlib.contextmanager
    def _profiled(self, row: Row, name: str) -> Iterator[None]:
        if self.profiles is None or name != Mailplat.name:
            yield
            return
        process = self.server(Mailplat, row.accounts).process
        assert process
        self.profiles.mkdir(parents=True, exist_ok=True)
        command = [BIN / "py-spy", "record", "--pid", str(process.pid), "--rate", "250", "--nonblocking"]
        command += ["--format", "raw", "--output", self.profiles / f"{row.name}.txt"]
        profiler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            profiler.send_signal(signal.SIGINT)
            profiler.wait(30)


@contextlib.contextmanager
def stage(effort: Effort, folder: str, profiles: Path | None = None) -> Iterator[Stage]:
    """A stage in a new folder below `folder`; all servers are stopped and removed at the end."""
    # Who ends us ends the servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=folder) as path:
        # Servers that change users look into it as somebody else.
        Path(path).chmod(0o755)
        built = Stage(Path(path), effort, profiles)
        try:
            yield built
        finally:
            built.close()
