"""A protocol small enough to test the tests with: it echoes lines, and knows a few words."""

from __future__ import annotations

from typing import Any

from mailplat.connection import MailFactory
from mailplat.wire import Need, Stopping, TimedOut, Wake, Wire


class LineEngine:
    most_buffered = 1000

    def __init__(self) -> None:
        self._data = b""

    @property
    def buffered(self) -> int:
        return len(self._data)

    def receive(self, data: bytes) -> None:
        self._data += data

    def discard(self) -> None:
        self._data = b""

    def next_event(self) -> Any:
        line, found, rest = self._data.partition(b"\r\n")
        if not found:
            return Need.DATA
        self._data = rest
        return line


class EchoSession:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.engine = LineEngine()
        self.ended = False

    async def run(self) -> None:
        try:
            self.wire.write(b"+OK ready\r\n")
            while await self.one():
                pass
        finally:
            self.ended = True

    async def one(self) -> bool:
        wire = self.wire
        try:
            event = await wire.event(60, wakeable=True)
        except TimedOut:
            wire.write(b"timeout\r\n")
            return False
        except Stopping:
            wire.write(b"going down\r\n")
            return False
        if event is Wake.NEWS:
            wire.write(b"news\r\n")
        elif event == b"quit":
            wire.write(b"bye\r\n")
            return False
        elif event == b"many":
            for number in range(1, 6):
                wire.write(b"line %d\r\n" % number)
        elif event == b"big":
            for _ in range(100):
                wire.write(b"x" * 10_000 + b"\r\n")
                await wire.drained()
                await wire.pause()
            wire.write(b"end\r\n")
        elif event == b"starttls":
            wire.write(b"go\r\n")
            wire.start_tls()
        elif event == b"peer":
            tls = wire.peer.tls
            wire.write(f"{wire.peer.host} {tls.version if tls else 'clear'}\r\n".encode())
        elif event == b"fail":
            raise ZeroDivisionError("as asked")
        else:
            wire.write(event + b"\r\n")
        return True


class EchoFactory(MailFactory):
    def session(self, wire: Wire) -> EchoSession:
        return EchoSession(wire)

    def refusal(self) -> bytes:
        return b"no room\r\n"
