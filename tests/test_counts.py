"""
What a message, an APPEND, a login and reading mail cost, in numbers that do not jitter.

The whole house runs in this process, its client in a thread.  Counted is what happens in the
reactor's thread: system calls for the network, functions called (awaits among them, and the log, which
is written as by twistd), Deferreds, questions to other threads; and the SQL statements of a lone
message.  Each bound stands beside what was counted when it was set, in the bound's order.  Who needs more
than a bound allows has found a reason to think, or changes the bound and says why.
"""

from __future__ import annotations

import socket
import sys
from collections import Counter
from contextlib import contextmanager
from io import StringIO
from itertools import count

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.python.threadpool import ThreadPool

from mailplat.logs import text_observer
from mailplat.storage.writer import Writer
from tests.test_service import ServiceTestCase

TIMES = 20

BODY = b"Subject: hello\r\nFrom: bob@elsewhere.test\r\n\r\n" + b"Hello, house.\r\n" * 100

#: Functions in C that are a system call of the network, under the name that their method has.
NETWORK = {
    "send": "send",
    "sendmsg": "send",
    "recv": "recv",
    "register": "epoll",
    "modify": "epoll",
    "unregister": "epoll",
}

#: Functions that count, by their code.
COUNTED = {
    Deferred.__init__.__code__: "deferreds",
    ThreadPool.callInThreadWithCallback.__code__: "questions",
    Writer.do.__code__: "writes",
}


@contextmanager
def counted(found):
    """Count what this thread does meanwhile."""

    def look(frame, event, argument):
        if event == "c_call":
            if (name := NETWORK.get(argument.__name__)) is not None:
                found[name] += 1
        elif event == "call":
            found["calls"] += 1
            if (name := COUNTED.get(frame.f_code)) is not None:
                found[name] += 1

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)


class Client:
    """Says something, and waits for a line that begins so."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.file = self.socket.makefile("rb")

    def ask(self, said, answer):
        self.socket.sendall(said)
        while not (line := self.file.readline()).startswith(answer):
            if not line or line.startswith((b"-ERR", b"5", b"4")):
                raise AssertionError(f"{said[:40]!r}: {line!r}")

    def close(self):
        self.file.close()
        self.socket.close()


class CountsTests(ServiceTestCase):
    def setUp(self):
        super().setUp()
        observer = text_observer(StringIO())
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    async def count(self, prepared, once):
        """What one `once` costs; it is called in another thread, with what `prepared` gave there."""
        client = await deferToThread(prepared)
        await deferToThread(once, client)
        found: Counter[str] = Counter()

        def often():
            for _ in range(TIMES):
                once(client)

        with counted(found):
            await deferToThread(often)
        await deferToThread(client.close)
        return {name: count / TIMES for name, count in found.items()}

    def check(self, found, **most):
        self.assertEqual(
            {name: count for name, count in found.items() if count > most[name]}, {}, f"{found} of {most}"
        )

    async def house(self, word):
        self.account()
        return self.port(await self.run_service(word), word)

    async def test_message_over_smtp(self):
        port = await self.house("smtp")

        def prepared():
            client = Client(port)
            client.ask(b"EHLO client.test\r\n", b"250 ")
            return client

        found = await self.count(prepared, send)
        # 4, 4, 0, 1, 0, 1, 420; before replies were sent at once: epoll 8; before sessions ran
        # without one: 5 Deferreds; with twistd's own log: 43 calls more
        self.check(found, recv=4.5, send=4.5, epoll=0.5, deferreds=1.5, questions=0.5, writes=1, calls=430)

    async def test_message_over_a_connection_of_its_own(self):
        port = await self.house("smtp")

        class Nobody:
            close = staticmethod(lambda: None)

        def once(_):
            client = Client(port)
            client.ask(b"EHLO client.test\r\n", b"250 ")
            send(client)
            client.ask(b"QUIT\r\n", b"221")
            client.close()

        found = await self.count(Nobody, once)
        # 6, 7, 4, 5, 0, 1, 745; before replies were sent at once: epoll 16
        self.check(found, recv=6.5, send=7.5, epoll=4.5, deferreds=5.5, questions=0.5, writes=1, calls=770)

    async def test_append(self):
        port = await self.house("imap")

        def prepared():
            client = Client(port)
            client.ask(b"l LOGIN alice@example.test secret\r\n", b"l OK")
            return client

        def once(client):
            client.ask(b"a APPEND INBOX {%d}\r\n" % len(BODY), b"+ ")
            client.ask(BODY + b"\r\n", b"a OK")

        found = await self.count(prepared, once)
        # 2, 2, 0, 1, 0, 1, 257; before mailboxes were opened from memory: 1 question
        self.check(found, recv=2.5, send=2.5, epoll=0.5, deferreds=1.5, questions=0.5, writes=1, calls=270)

    async def test_login_over_imap(self):
        port = await self.house("imap")

        def once(client):
            client = Client(port)
            client.ask(b"l LOGIN alice@example.test secret\r\n", b"l OK")
            client.ask(b"z LOGOUT\r\n", b"z OK")
            client.close()

        found = await self.count(lambda: Client(port), once)
        # 2, 3, 4, 4, 0, 0, 444; before accounts were opened from memory: 1 question
        self.check(found, recv=2.5, send=3.5, epoll=4.5, deferreds=4.5, questions=0.5, writes=0, calls=470)

    async def test_login_over_pop3(self):
        port = await self.house("pop3")

        def once(client):
            client = Client(port)
            client.ask(b"", b"+OK")
            client.ask(b"USER alice@example.test\r\n", b"+OK")
            client.ask(b"PASS secret\r\n", b"+OK")
            client.ask(b"QUIT\r\n", b"+OK")
            client.close()

        found = await self.count(lambda: Client(port), once)
        # 3, 4, 4, 4, 0, 0, 424; before accounts were opened from memory: 3 questions
        self.check(found, recv=3.5, send=4.5, epoll=4.5, deferreds=4.5, questions=0.5, writes=0, calls=450)

    async def test_message_taken_over_pop3(self):
        service = await self.filled("pop3")

        def prepared():
            client = Client(self.port(service, "pop3"))
            client.ask(b"", b"+OK")
            client.ask(b"USER alice@example.test\r\n", b"+OK")
            client.ask(b"PASS secret\r\n", b"+OK")
            return client

        numbers, said = count(1), b"RETR %d\r\n"
        found = await self.count(prepared, lambda client: client.ask(said % next(numbers), b".\r\n"))
        # 1, 1, 0, 0, 0, 0, 57, of which 20 while the client takes its message; before many were looked up at
        # a time: 1 question
        self.check(found, recv=1.5, send=1.5, epoll=0.5, deferreds=0.5, questions=0.5, writes=0, calls=60)

    async def test_messages_fetched_over_imap(self):
        service = await self.filled("imap")

        def prepared():
            client = Client(self.port(service, "imap"))
            client.ask(b"l LOGIN alice@example.test secret\r\n", b"l OK")
            client.ask(b"e EXAMINE INBOX\r\n", b"e OK")
            return client

        found = await self.count(prepared, lambda client: client.ask(b"f FETCH 1:* BODY.PEEK[]\r\n", b"f OK"))
        # 1, 2, 0, 1, 1, 0, 332 for all of them, which are more than is held back
        self.check(found, recv=1.5, send=2.5, epoll=0.5, deferreds=1.5, questions=1.5, writes=0, calls=360)

    async def test_one_message_fetched_over_imap(self):
        service = await self.filled("imap")

        def prepared():
            client = Client(self.port(service, "imap"))
            client.ask(b"l LOGIN alice@example.test secret\r\n", b"l OK")
            client.ask(b"e EXAMINE INBOX\r\n", b"e OK")
            return client

        numbers = count(1)
        said = b"f FETCH %d (FLAGS BODY.PEEK[])\r\n"
        found = await self.count(prepared, lambda client: client.ask(said % next(numbers), b"f OK"))
        # 1, 1, 0, 0, 0, 0, 147; before little was held back and many were looked up: 2 sends, 1 question
        self.check(found, recv=1.5, send=1.5, epoll=0.5, deferreds=0.5, questions=0.5, writes=0, calls=160)


    async def filled(self, word):
        """A house with some messages for alice, who reads them over `word`."""
        self.account()
        service = await self.run_service("smtp", word)

        def fill():
            client = Client(self.port(service, "smtp"))
            client.ask(b"EHLO client.test\r\n", b"250 ")
            for _ in range(TIMES + 1):
                send(client)
            client.close()

        await deferToThread(fill)
        return service

    async def test_statements_of_a_message(self):
        self.account()
        service = await self.run_service("smtp")
        port, statements = self.port(service, "smtp"), []

        def prepared():
            client = Client(port)
            client.ask(b"EHLO client.test\r\n", b"250 ")
            send(client)
            return client

        client = await deferToThread(prepared)
        service._store._writer._connection.set_trace_callback(statements.append)
        await deferToThread(send, client)
        await deferToThread(client.close)
        # 8: BEGIN and COMMIT, a row each of bodies, copies, messages and what waits, and the counters of
        # mailbox and store.  Before what the last commit left was known: 4 more.
        self.assertLessEqual(len(statements), 8, statements)


def send(client):
    client.ask(b"MAIL FROM:<bob@elsewhere.test>\r\n", b"250")
    client.ask(b"RCPT TO:<alice@example.test>\r\n", b"250")
    client.ask(b"DATA\r\n", b"354")
    client.ask(BODY + b".\r\n", b"250")


