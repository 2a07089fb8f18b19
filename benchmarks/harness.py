"""
What the benchmarks share: a server in a process of its own, and plain clients.

Run one script at a time, on an otherwise idle machine, with the Python that mailplat is
installed for::

    .venv/bin/python benchmarks/smtp_accept.py

Each prints one line: what was done, the figure, and what it is compared with.  The client
runs on the same machine, so on two cores it takes one of them.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

DOMAIN = "bench.example"
PASSWORD = "pass"
BIN = Path(sys.executable).parent


class Server:
    """A server on a data directory of its own, with accounts user0, user1 and so on."""

    def __init__(self, directory: Path, users: int, arguments: tuple[str, ...]) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.arguments = arguments
        self.smtp, self.imap = free_port(), free_port()
        accounts = directory / "accounts"
        accounts.write_text("".join(f"user{i}@{DOMAIN}:{PASSWORD}\n" for i in range(users)))
        subprocess.run(
            [BIN / "mailplat", "account", "import", accounts, "--data", self.data],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [BIN / "twistd", "-n", "--pidfile=", "mailplat", "--data", self.data, "--domain", DOMAIN]
        command += ["--plaintext-login", "always", *self.arguments]
        command += ["--smtp", f"tcp:{self.smtp}:interface=127.0.0.1"]
        command += ["--imap", f"tcp:{self.imap}:interface=127.0.0.1"]
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.imap)).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        sys.exit((self.directory / "log").read_text())

    def stop(self) -> None:
        """Stop it as an operator would."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    def restart(self) -> None:
        """Stop it and start it again, on the same data and ports."""
        self.stop()
        self.start()

    def cpu(self) -> float:
        """Seconds of CPU that the server has used, user and system."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Octets resident."""
        with open(f"/proc/{self.process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def server(users: int = 1, *arguments: str) -> Iterator[Server]:
    """A server on an empty data directory, stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="mailplat-bench-"))
    running = Server(directory, users, arguments)
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(directory)


class Imap:
    """An IMAP client that does as little as possible: whole answers, read in large pieces."""

    def __init__(self, port: int, user: str = "user0") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.recv(4096)
        self.tag = 0
        self.command(f"LOGIN {user}@{DOMAIN} {PASSWORD}")

    def command(self, text: str) -> tuple[int, bytes]:
        """Run a command: (octets of the answer, its end)."""
        self.tag += 1
        tag = b"a%d " % self.tag
        self.socket.sendall(tag + text.encode() + b"\r\n")
        return self._answer(tag)

    def append(self, message: bytes, mailbox: str = "INBOX") -> None:
        self.tag += 1
        tag = b"a%d " % self.tag
        head = b"APPEND %s {%d+}\r\n" % (mailbox.encode(), len(message))
        self.socket.sendall(tag + head + message + b"\r\n")
        self._answer(tag)

    def _answer(self, tag: bytes) -> tuple[int, bytes]:
        size, end = 0, b""
        while True:
            piece = self.socket.recv(1 << 20)
            if not piece:
                raise ConnectionError("the server hung up")
            size += len(piece)
            end = (end + piece)[-4096:]
            if end.endswith(b"\r\n"):
                last = end[:-2].rpartition(b"\r\n")[2]
                if last.startswith(tag):
                    if not last.startswith(tag + b"OK"):
                        raise RuntimeError(last.decode())
                    return size, end


def fill(imap: Imap, count: int, message: bytes) -> None:
    """Put `count` copies of a message into INBOX: some appended, the rest copied."""
    first = min(count, 1000)
    for _ in range(first):
        imap.append(message)
    have = first
    imap.command("SELECT INBOX")
    while have < count:
        more = min(have, count - have)
        imap.command(f"COPY 1:{more} INBOX")
        have += more
    imap.command("UNSELECT")


def sample(size: int) -> bytes:
    """A plain message of about `size` octets."""
    header = (
        b"From: Alice Example <alice@example.org>\r\nTo: Bob <user0@bench.example>\r\n"
        b"Subject: A subject of ordinary length\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\n"
        b"Message-ID: <1234567890@example.org>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    )
    line = b"The quick brown fox jumps over the lazy dog and goes on with its day.\r\n"
    return header + line * ((size - len(header)) // len(line))


def send(port: int, connections: int, count: int, message: bytes, recipient: str) -> float:
    """
    Send `count` messages over kept connections; returns the seconds it took.

    The envelope goes as one group (PIPELINING), the next message after the last one's 250.
    """
    group = f"MAIL FROM:<a@example.org>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
    body = message + b".\r\n"
    selector = selectors.DefaultSelector()
    left = count
    for _ in range(connections):
        peer = socket.create_connection(("127.0.0.1", port))
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.recv(4096)
        peer.sendall(b"EHLO client.example\r\n")
        while b"\r\n250 " not in b"\r\n" + peer.recv(4096):
            pass
        selector.register(peer, selectors.EVENT_READ)
    started = time.perf_counter()
    for key in list(selector.get_map().values()):
        key.fileobj.sendall(group)  # type: ignore[union-attr]
        left -= 1
    done = 0
    while done < count:
        for key, _ in selector.select():
            peer = key.fileobj  # type: ignore[assignment]
            answer = peer.recv(4096)
            if b"354 " in answer:
                peer.sendall(body)
            elif answer.startswith(b"250 ") and answer.count(b"\r\n") == 1 and b"2.0.0" in answer:
                done += 1
                if left > 0:
                    peer.sendall(group)
                    left -= 1
            elif not answer or answer[:1] in b"45":
                raise RuntimeError(answer.decode())
    elapsed = time.perf_counter() - started
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return elapsed
