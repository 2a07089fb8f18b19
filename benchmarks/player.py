"""
The load generator: one script, played over many connections by `player.c`.

It is compiled on first use, costs a small part of what any server spends on the same
request, and stops at a count or a time.  A script is made of the steps below::

    Script(
        before=[CONNECT, wait("* OK"), say("l LOGIN user{user} pass"), wait("l ", "l OK")],
        each=[say("n NOOP"), wait("n ", "n OK")],
        after=[say("z LOGOUT"), wait("z ")],
    )

`{user}`, `{iteration}`, `{next}` (the iteration, counted from one), `{connection}` and
`{length}` stand for numbers, `{message}` for the iteration's message from the pool.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "benchmarks"

CONNECT = "C"
CLOSE = "X"
#: Sends what was said and waits for a line that is a lone dot.
WAIT_FOR_DOT = "D"

_LETTERS = {"user": "U", "iteration": "N", "next": "P", "connection": "K", "length": "L", "message": "M"}


class Refused(Exception):
    """A server said no, or too little; its words are the text."""


def say(text: str, end: str = "\r\n") -> str:
    """Say a line; what is said is sent together with the next `wait`."""
    steps = []
    for piece in re.split(r"(\{[a-z]+\})", text + end):
        letter = _LETTERS.get(piece[1:-1])
        if letter:
            steps.append(letter)
        elif piece:
            steps.append("S " + piece.encode().hex())
    return "\n".join(steps)


def wait(start: str, good: str | None = None) -> str:
    """Wait for a line with this start; it is an error unless it starts with `good`."""
    return f"W {_hex(start)} {_hex(start if good is None else good)}"


def _hex(text: str) -> str:
    # A lone hyphen is no digit and reads as nothing.
    return text.encode().hex() or "-"


@dataclass(frozen=True)
class Script:
    """
    Attributes:
        before: once per connection, before the clock starts.
        each: once per iteration; connections take iterations from one count.
        after: once per connection, when there are no more.
    """

    before: Sequence[str] = ()
    each: Sequence[str] = ()
    after: Sequence[str] = ()

    def compiled(self) -> str:
        return "\n".join(["[pre]", *self.before, "[loop]", *self.each, "[post]", *self.after, ""])


@dataclass(frozen=True)
class Played:
    """What came of it: seconds from the first iteration to the last answer."""

    iterations: int
    seconds: float
    octets_received: int

    @property
    def rate(self) -> float:
        return self.iterations / self.seconds


class Player:
    """
    One script for one port.

    Args:
        pool: messages; iteration `i` has number `i` modulo their count.
        users: connections take the users from `first_user` on in turn.
        stuffed: messages are sent as SMTP's DATA wants them (RFC 5321 §4.5.2), final dot included.
        starting: how many connections may be in their first steps at a time.
    """

    def __init__(
        self,
        port: int,
        script: Script,
        connections: int = 1,
        pool: Sequence[bytes] = (),
        first_user: int = 0,
        users: int = 1,
        stuffed: bool = False,
        starting: int = 64,
    ) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.connections = connections
        path = Path(self.folder.name, "script")
        path.write_text(script.compiled())
        self.arguments = [_binary(), "-h", "127.0.0.1", "-p", port, "-c", connections, "-u", first_user]
        self.arguments += ["-U", users, "-r", starting]
        if pool:
            with open(Path(self.folder.name, "pool"), "wb") as file:
                for message in map(_stuffed, pool) if stuffed else pool:
                    file.write(b"%d\n" % len(message) + message)
            self.arguments += ["-m", file.name]
        self.script = path

    def play(self, iterations: int, seconds: float = 120) -> Played:
        """
        Play it, from connecting to closing.

        Raises:
            Refused: an answer was not what the script wants, or time ran out.
        """
        done = subprocess.run(
            self._command("-n", iterations, "-t", seconds),
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        if done.returncode:
            raise Refused(f"player: {done.stderr.strip()}")
        said = json.loads(done.stdout)
        if said["errors"] or said["iterations"] < iterations:
            raise Refused(f"{said['iterations']} of {iterations}: {said['first_error'] or 'time is up'}")
        return Played(said["iterations"], said["wall"], said["bytes_in"])

    def play_for(self, seconds: float, most: int) -> Played:
        """Play as often as takes about so many seconds, found out by a short try."""
        few = max(2 * self.connections, 8)
        rate = self.play(few).rate
        return self.play(int(min(max(rate * seconds, few), most)))

    def hold(self, seconds: float) -> Held:
        """Open all connections, play `before`, and keep them."""
        return Held(self._command("-H", "-t", seconds))

    def _command(self, *more: object) -> list[str]:
        return [str(word) for word in (*self.arguments, *more, self.script)]


class Held:
    """Connections that stay open; `watch` says when each of them hears of a new message."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        word, *counts = self._line().split()
        if word != "READY" or int(counts[1]):
            raise Refused(f"{counts[1] if counts else '?'} connections did not come up: {self.close()}")

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def _tell(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def watch(self, seconds: float) -> None:
        """From now on, for so long, note each connection's first untagged EXISTS."""
        self._tell(f"A {seconds:g}")
        self._line()

    def heard(self) -> list[int]:
        """When each of them heard, in nanoseconds of `time.monotonic_ns`; earliest first."""
        return sorted(json.loads(self._line())["arrivals_ns"])

    def close(self) -> str:
        """Close them all; returns the first error."""
        self._tell("Q")
        assert self.process.stdout
        said: dict[str, Any] = json.loads(self.process.stdout.read().strip().splitlines()[-1])
        self.process.wait()
        return str(said["first_error"])


def _stuffed(message: bytes) -> bytes:
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def _binary() -> Path:
    source, binary = HERE / "player.c", BUILD / "player"
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-o", binary, source], check=True)
    return binary
