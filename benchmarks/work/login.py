"""Logins: connect, log in, log out, ten at a time."""

from __future__ import annotations

from benchmarks.player import CLOSE, CONNECT, Player, Script, say, wait
from benchmarks.servers import PASSWORD, Server, login_steps
from benchmarks.work import Effort, Measure, Reading, clock

CONNECTIONS = 10
MOST = 20_000


def imap(server: Server, effort: Effort) -> Measure:
    assert server.imap
    return _logins(
        server, effort, server.imap, [*login_steps(server), say("z LOGOUT"), wait("z ", "z OK"), CLOSE]
    )


def pop3(server: Server, effort: Effort) -> Measure:
    assert server.pop3
    return _logins(server, effort, server.pop3, [*pop3_login(server), say("QUIT"), wait("", "+OK"), CLOSE])


def pop3_login(server: Server) -> list[str]:
    """Connect and log in over POP3."""
    name = server.login.replace("%d", "{user}")
    return [
        CONNECT, wait("", "+OK"),
        say(f"USER {name}"), wait("", "+OK"),
        say(f"PASS {PASSWORD}"), wait("", "+OK"),
    ]  # fmt: skip


def _logins(server: Server, effort: Effort, port: int, steps: list[str]) -> Measure:
    # A maildrop is for one session at a time: every connection has an account of its own.
    first = server.fresh_users(CONNECTIONS)
    player = Player(port, Script(each=steps), CONNECTIONS, first_user=first, users=CONNECTIONS)

    def measure() -> list[Reading]:
        few = 4 * CONNECTIONS
        count = int(min(max(player.play(few).rate * effort.seconds, few), MOST))
        with clock(server) as taken:
            played = player.play(count)
        return [Reading("", played.rate, "logins/s", taken.cpu / count)]

    return measure
