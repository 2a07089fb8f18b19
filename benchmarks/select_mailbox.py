"""SELECT of 100,000 messages, after a restart and again."""

import time

from harness import Imap, fill, sample, server

COUNT = 100_000

with server() as running:
    imap = Imap(running.imap)
    fill(imap, COUNT, sample(2048))
    imap.socket.close()
    running.restart()
    imap = Imap(running.imap)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        imap.command("SELECT INBOX")
        times.append((time.perf_counter() - started) * 1e3)
        imap.command("UNSELECT")
    print(
        f"SELECT of {COUNT:,} messages: cold {times[0]:.1f} ms (aim: 300), "
        f"warm {sorted(times[1:])[2]:.1f} ms (aim: 20)"
    )
