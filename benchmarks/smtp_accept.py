"""Durable acceptance over SMTP: 50 kept connections, 2 KB, one recipient."""

from harness import DOMAIN, sample, send, server

COUNT = 20_000

with server(users=1) as running:
    send(running.smtp, 50, 2_000, sample(2048), f"user0@{DOMAIN}")
    before = running.cpu()
    seconds = send(running.smtp, 50, COUNT, sample(2048), f"user0@{DOMAIN}")
    cpu = (running.cpu() - before) / COUNT * 1e6
    print(
        f"SMTP accept, 50 connections, 2 KB, durable: {COUNT / seconds:,.0f} messages/s, "
        f"{cpu:.0f} us of CPU each (aim: 3,000 messages/s)"
    )
