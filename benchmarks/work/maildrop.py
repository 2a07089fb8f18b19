"""POP3 of 2,000 messages: login and UIDL, and RETR of all."""

from __future__ import annotations

from benchmarks.clients import Pop3
from benchmarks.player import WAIT_FOR_DOT, Player, Refused, Script, say, wait
from benchmarks.servers import PASSWORD, Server
from benchmarks.work import Effort, Measure, Reading, clock
from benchmarks.work.login import pop3_login


def maildrop(server: Server, effort: Effort) -> Measure:
    assert server.pop3
    port = server.pop3
    count = effort.count(2_000, server)
    user = server.filled("10k", count)
    script = Script(
        before=pop3_login(server),
        each=[say("RETR {next}"), WAIT_FOR_DOT],
        after=[say("QUIT"), wait("", "+OK")],
    )
    player = Player(port, script, first_user=user)

    def measure() -> list[Reading]:
        with clock(server) as listing:
            pop3 = Pop3(port, server.login % user, PASSWORD)
            lines = pop3.lines("UIDL")
            pop3.close()
        if lines != count:
            raise Refused(f"UIDL has {lines} of {count} messages")
        with clock(server) as taken:
            played = player.play(count)
        if played.octets_received < count * 9_000:
            raise Refused(f"only {played.octets_received} octets of {count} messages")
        return [
            Reading("login and UIDL", listing.seconds * 1e3, "ms"),
            Reading("RETR", played.rate, "messages/s", taken.cpu / count),
        ]

    return measure
