"""FETCH of flags, UIDs, dates and sizes of 100,000 messages."""

import time

from harness import Imap, fill, sample, server

COUNT = 100_000

with server() as running:
    imap = Imap(running.imap)
    fill(imap, COUNT, sample(2048))
    imap.command("SELECT INBOX")
    for items in ("(FLAGS)", "(UID FLAGS INTERNALDATE RFC822.SIZE)", "(ENVELOPE)"):
        rates = []
        for _ in range(5):
            started = time.perf_counter()
            size, _ = imap.command(f"UID FETCH 1:* {items}")
            rates.append(COUNT / (time.perf_counter() - started))
        aim = " (aim: 1,000,000 warm)" if "INTERNALDATE" in items else ""
        print(
            f"UID FETCH 1:* {items}, {COUNT:,} messages: first {rates[0]:,.0f}, "
            f"warm {sorted(rates[1:])[2]:,.0f} messages/s{aim}"
        )
