"""Mail goes out: handed in on loopback, queued, and relayed to sinks on loopback that take everything."""

from __future__ import annotations

import time

from benchmarks import corpus
from benchmarks.player import CONNECT, Player, Script, say, wait
from benchmarks.servers import Server
from benchmarks.servers.sinks import start_sinks
from benchmarks.work import Effort, Measure, Reading, Work, clock
from benchmarks.work.accept import settle

#: Messages in one run, at most.
MOST = 20_000


def relay(destinations: int) -> Work:
    """
    2 KB to so many other hosts, evenly, from as many connections and at least fifty.

    The clock runs from the first message until the queue is empty.
    """

    def work(server: Server, effort: Effort) -> Measure:
        assert server.relay
        start_sinks(server, destinations)
        connections = max(50, destinations)
        player = Player(
            server.relay,
            _script(server),
            connections,
            corpus.messages("2k"),
            first_user=0,
            users=destinations,
            stuffed=True,
        )

        def measure() -> list[Reading]:
            few = 2 * connections
            count = min(max(int(few / _through(player, server, few) * effort.seconds), few), MOST)
            with clock(server) as taken:
                taken.seconds = _through(player, server, count)
            return [
                Reading("", count / taken.seconds, "messages/s"),
                Reading("CPU per message", taken.cpu / count * 1e6, "us"),
            ]

        return measure

    return work


def _through(player: Player, server: Server, count: int) -> float:
    """Seconds from the first message, when all are logged in, until the queue is empty."""
    played = player.play(count)
    handed_in = time.perf_counter()
    settle(server)
    return played.seconds + time.perf_counter() - handed_in


def _script(server: Server) -> Script:
    greeting = [CONNECT, wait("220"), say("EHLO client.test"), wait("250 "), *server.relay_login]
    message = [
        say(f"MAIL FROM:<{server.address(0)}>"), wait("", "250"),
        say("RCPT TO:<somebody@sink{user}.test>"), wait("", "250"),
        say("DATA"), wait("", "354"),
        say("{message}", end=""), wait("", "250"),
    ]  # fmt: skip
    return Script(greeting, message, [say("QUIT"), wait("221")])
