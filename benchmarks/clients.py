"""Plain clients that do as little as possible: whole answers, read in large pieces."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.player import Refused


class Answer(NamedTuple):
    """Octets of the whole answer, how often the counted text was in it, and the last 8 KiB."""

    octets: int
    hits: int
    end: bytes


class Imap:
    """One IMAP connection, logged in."""

    def __init__(self, port: int, user: str, password: str, timeout: float = 300) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(1 << 20)
        self.commands = 0
        self.socket.recv(4096)
        self.command(f"LOGIN {user} {password}")

    def command(self, text: str, count: bytes = b"", more: bytes = b"") -> Answer:
        """
        Run a command and read its answer.

        Args:
            count: a text of which occurrences in the answer are counted.
            more: what follows the command's text, non-synchronizing literals and all.

        Raises:
            Refused: anything but OK.
        """
        self.commands += 1
        tag = b"\r\nzq%dx " % self.commands
        self.socket.sendall(tag[2:] + text.encode() + more + b"\r\n")
        octets, hits, end = 0, 0, b"\r\n"
        view = memoryview(self.buffer)
        while True:
            length = self.socket.recv_into(self.buffer)
            if not length:
                raise Refused(f"{text[:40]}: the server hung up")
            octets += length
            if count:
                # What begins in one piece and ends in the next; a single octet never does.
                overlap = len(count) - 1
                border = end[len(end) - overlap :] + self.buffer[: min(length, overlap)]
                hits += border.count(count) + self.buffer.count(count, 0, length)
            end = (end + view[max(0, length - 8192) : length])[-8192:]
            if end.endswith(b"\r\n"):
                start = end.rfind(b"\r\n", 0, -2)
                if end.startswith(tag, start):
                    status = end[start + len(tag) : -2]
                    if not status.startswith(b"OK"):
                        raise Refused(f"{text[:40]}: {status.decode('latin-1')}")
                    return Answer(octets, hits, end)

    def select(self, mailbox: str = "INBOX") -> int:
        """Select a mailbox; returns the number of messages in it."""
        found = re.search(rb"\* (\d+) EXISTS", self.command(f"SELECT {mailbox}").end)
        return int(found[1]) if found else 0

    def append_all(self, messages: Sequence[bytes]) -> None:
        """Append messages in one command (MULTIAPPEND, RFC 3502)."""
        self.command("APPEND INBOX", more=b"".join(b" {%d+}\r\n%b" % (len(text), text) for text in messages))

    def capabilities(self) -> set[bytes]:
        return set(self.command("CAPABILITY").end.upper().split())

    def close(self) -> None:
        self.command("LOGOUT")
        self.socket.close()


class Pop3:
    """One POP3 connection, logged in."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 300)
        self.file = self.socket.makefile("rb", 1 << 16)
        self._line()
        self.command(f"USER {user}")
        self.command(f"PASS {password}")

    def command(self, text: str) -> None:
        self.socket.sendall(text.encode() + b"\r\n")
        self._line()

    def lines(self, text: str) -> int:
        """Run a command with an answer of many lines; returns how many."""
        self.command(text)
        for count, line in enumerate(self.file):
            if line == b".\r\n":
                return count
        raise Refused(f"{text}: the server hung up")

    def _line(self) -> None:
        line = self.file.readline()
        if not line.startswith(b"+OK"):
            raise Refused(line.decode("latin-1"))

    def close(self) -> None:
        self.command("QUIT")
        self.file.close()
        self.socket.close()
