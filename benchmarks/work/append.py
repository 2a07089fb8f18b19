"""APPEND: every connection into a mailbox of its own."""

from __future__ import annotations

from benchmarks import corpus
from benchmarks.player import Player
from benchmarks.servers import Server, append_script
from benchmarks.work import Effort, Measure, Reading, Work, clock

MOST = {"2k": 30_000, "50k": 6_000}


def append(kind: str, connections: int = 10) -> Work:
    def work(server: Server, effort: Effort) -> Measure:
        assert server.imap
        port = server.imap

        def measure() -> list[Reading]:
            first = server.fresh_users(connections)
            player = Player(
                port, append_script(server), connections, corpus.messages(kind), first, users=connections
            )
            few = 4 * connections
            count = int(min(max(player.play(few).rate * effort.seconds, few), MOST[kind]))
            with clock(server) as taken:
                played = player.play(count)
            return [Reading("", played.rate, "messages/s", taken.cpu / count)]

        return measure

    return work
