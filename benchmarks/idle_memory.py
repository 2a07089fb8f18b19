"""Memory of idle IMAP connections, without TLS, and how soon 1,000 of them hear of a delivery."""

import selectors
import time

from harness import DOMAIN, Imap, sample, send, server

COUNT = 1_000

with server() as running:
    Imap(running.imap).command("SELECT INBOX")
    before = running.memory()
    watchers = [Imap(running.imap) for _ in range(COUNT)]
    selector = selectors.DefaultSelector()
    for watcher in watchers:
        watcher.command("SELECT INBOX")
        watcher.socket.sendall(b"i IDLE\r\n")
        watcher.socket.recv(4096)
        selector.register(watcher.socket, selectors.EVENT_READ)
    each = (running.memory() - before) / COUNT / 1024
    started = time.perf_counter()
    send(running.smtp, 1, 1, sample(2048), f"user0@{DOMAIN}")
    told = 0
    while told < COUNT:
        for key, _ in selector.select(10):
            key.fileobj.recv(4096)  # type: ignore[union-attr]
            selector.unregister(key.fileobj)
            told += 1
    last = (time.perf_counter() - started) * 1e3
    print(
        f"{COUNT:,} idle IMAP connections without TLS: {each:.1f} KB each (aim: 20 KB); "
        f"the last heard of a delivery after {last:.0f} ms, sending it included (aim: 100 ms)"
    )
