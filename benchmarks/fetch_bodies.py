"""FETCH of whole messages: 2,000 of 50 KB, 100 of 1 MB."""

import time

from harness import Imap, sample, server

for count, octets in ((2_000, 50_000), (100, 1_000_000)):
    with server() as running:
        imap = Imap(running.imap)
        message = sample(octets)
        for _ in range(count):
            imap.append(message)
        imap.command("SELECT INBOX")
        rates = []
        for _ in range(5):
            started = time.perf_counter()
            size, _ = imap.command("UID FETCH 1:* (BODY.PEEK[])")
            rates.append(size / (time.perf_counter() - started) / 1e6)
        print(
            f"UID FETCH 1:* (BODY.PEEK[]), {count:,} of {octets:,} octets: first {rates[0]:,.0f}, "
            f"again {sorted(rates[1:])[2]:,.0f} MB/s (aim: 1,000 MB/s)"
        )
