"""Mail comes in over SMTP and LMTP: one recipient, 250 after every message, one message at a time each."""

from __future__ import annotations

import time

from benchmarks import corpus
from benchmarks.player import CLOSE, CONNECT, Player, Refused, Script, say, wait
from benchmarks.servers import DOMAIN, Server
from benchmarks.work import Effort, Measure, Reading, Work, clock

#: Messages in one run, at most: a fast server would fill the disk.
MOST = {"2k": 30_000, "50k": 6_000, "1m": 400}


def smtp(kind: str, connections: int, kept: bool = True) -> Work:
    """Messages of a kind over so many connections, which are kept, or new for each message."""

    def work(server: Server, effort: Effort) -> Measure:
        return _accept(server, effort, server.smtp, "EHLO", kind, connections, kept)

    return work


def lmtp(kind: str, connections: int) -> Work:
    """The same over LMTP and kept connections: the 250 is for the mailbox, not for a queue."""

    def work(server: Server, effort: Effort) -> Measure:
        return _accept(server, effort, server.lmtp, "LHLO", kind, connections, True)

    return work


def script(hello: str, kept: bool, recipient: str = f"user{{user}}@{DOMAIN}") -> Script:
    """A session that waits for each reply, as most senders to most servers do."""
    greeting = [CONNECT, wait("220"), say(f"{hello} client.{DOMAIN}"), wait("250 ")]
    message = [
        say(f"MAIL FROM:<sender@{DOMAIN}>"), wait("", "250"),
        say(f"RCPT TO:<{recipient}>"), wait("", "250"),
        say("DATA"), wait("", "354"),
        say("{message}", end=""), wait("", "250"),
    ]  # fmt: skip
    goodbye = [say("QUIT"), wait("221"), CLOSE]
    if kept:
        return Script(greeting, message, goodbye)
    return Script(each=[*greeting, *message, *goodbye])


def settle(server: Server, seconds: float = 60) -> None:
    """Wait until what was accepted is where it belongs."""
    end = time.monotonic() + seconds
    while not server.settled():
        if time.monotonic() > end:
            raise Refused("its queue does not empty")
        time.sleep(0.02)


def _accept(
    server: Server, effort: Effort, port: int | None, hello: str, kind: str, connections: int, kept: bool
) -> Measure:
    assert port
    pool = corpus.messages(kind)

    def measure() -> list[Reading]:
        player = Player(
            port, script(hello, kept), connections, pool, first_user=server.fresh_users(), stuffed=True
        )
        few = max(2 * connections, 20)
        wanted = int(player.play(few).rate * effort.seconds)
        settle(server)
        count = min(max(wanted, few), MOST[kind])
        with clock(server) as taken:
            played = player.play(count)
            settle(server)
        return [
            Reading("", played.rate, "messages/s"),
            Reading("CPU per message", taken.cpu / count * 1e6, "us"),
        ]

    return measure
