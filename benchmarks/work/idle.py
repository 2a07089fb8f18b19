"""Connections in IDLE: what they cost, and how soon they hear of a delivery."""

from __future__ import annotations

import time

from benchmarks import corpus
from benchmarks.player import Player, Refused, Script, say, wait
from benchmarks.servers import Server, append_script, login_steps
from benchmarks.work import Effort, Measure, Reading
from benchmarks.work.accept import script as transport


def memory(server: Server, effort: Effort) -> Measure:
    """5,000 connections in IDLE, in 100 mailboxes."""
    count, users = effort.count(5_000, server), 100

    def measure() -> list[Reading]:
        first = server.fresh_users(users)
        server.connect(first).close()
        before = server.memory()
        held = _watchers(server, count, first, users).hold(300)
        time.sleep(1)
        used = server.memory() - before
        held.close()
        return [Reading("", used * 1024 / count, "KiB")]

    return measure


def push(server: Server, effort: Effort) -> Measure:
    """1,000 connections in IDLE in one mailbox; the time from the begin of a delivery until all know."""
    count = effort.count(1_000, server)
    pool = corpus.messages("2k")[:1]

    def measure() -> list[Reading]:
        user = server.fresh_users()
        if server.lmtp:
            delivery = Player(server.lmtp, transport("LHLO", True), pool=pool, first_user=user, stuffed=True)
        else:
            assert server.imap
            delivery = Player(server.imap, append_script(server), pool=pool, first_user=user)
        held = _watchers(server, count, user, 1).hold(300)
        time.sleep(1)
        held.watch(30)
        started = time.monotonic_ns()
        delivery.play(1)
        heard = held.heard()
        held.close()
        if len(heard) < count:
            raise Refused(f"{len(heard)} of {count} heard of it")
        return [
            Reading("median", (heard[len(heard) // 2] - started) / 1e6, "ms"),
            Reading("last", (heard[-1] - started) / 1e6, "ms"),
        ]

    return measure


def _watchers(server: Server, connections: int, first_user: int, users: int) -> Player:
    assert server.imap
    steps = [*login_steps(server), say("s SELECT INBOX"), wait("s ", "s OK"), say("i IDLE"), wait("+")]
    return Player(
        server.imap, Script(before=steps), connections, first_user=first_user, users=users, starting=20
    )
