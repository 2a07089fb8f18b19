"""Mail comes in over SMTP and LMTP: one recipient, 250 after every message, one message at a time each."""

from __future__ import annotations

import time
from itertools import chain

from benchmarks import corpus
from benchmarks.player import CLOSE, CONNECT, Player, Refused, Script, say, wait
from benchmarks.servers import DOMAIN, Server
from benchmarks.work import Effort, Measure, Reading, Work, clock

#: Messages in one run, at most: a fast server would fill the disk.
MOST = {"2k": 30_000, "50k": 6_000, "1m": 400}


def smtp(kind: str, connections: int, kept: bool = True, pipelined: bool = False) -> Work:
    """Messages of a kind over so many connections, which are kept, or new for each message."""

    session = script("EHLO", kept, pipelined=pipelined)

    def work(server: Server, effort: Effort) -> Measure:
        return _accept(server, effort, server.smtp, session, kind, connections)

    return work


def lmtp(kind: str, connections: int) -> Work:
    """The same over LMTP and kept connections: the 250 is for the mailbox, not for a queue."""

    def work(server: Server, effort: Effort) -> Measure:
        return _accept(server, effort, server.lmtp, script("LHLO", True), kind, connections)

    return work


def script(
    hello: str, kept: bool, recipient: str = f"user{{user}}@{DOMAIN}", pipelined: bool = False
) -> Script:
    """
    A session that waits for each reply, as the simplest senders do.

    Args:
        pipelined: MAIL, RCPT and DATA leave together (RFC 2920), as from Postfix and most others.
    """
    greeting = [CONNECT, wait("220"), say(f"{hello} client.{DOMAIN}"), wait("250 ")]
    said = [say(f"MAIL FROM:<sender@{DOMAIN}>"), say(f"RCPT TO:<{recipient}>"), say("DATA")]
    waits = [wait("", "250"), wait("", "250"), wait("", "354")]
    envelope = [*said, *waits] if pipelined else chain(*zip(said, waits, strict=True))
    message = [*envelope, say("{message}", end=""), wait("", "250")]
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
    server: Server, effort: Effort, port: int | None, session: Script, kind: str, connections: int
) -> Measure:
    assert port
    pool = corpus.messages(kind)

    def measure() -> list[Reading]:
        player = Player(port, session, connections, pool, first_user=server.fresh_users(), stuffed=True)
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
