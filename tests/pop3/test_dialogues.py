"""The POP3 dialogues, over both stores."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import server_tls
from mailplat.testing.wire import Dialogue, add_dialogues
from tests.pop3.support import Server

DIALOGUES = Path(__file__).parent.parent / "dialogues" / "pop3"


@add_dialogues(DIALOGUES)
class InMemory(SynchronousTestCase):
    tls: Any = None

    async def play(self, path: Path) -> None:
        clock = Clock()
        # One certificate for all: to make one takes longer than most dialogues.
        cls = type(self)
        cls.tls = cls.tls or server_tls()
        server = Server(clock, tls=cls.tls)
        dialogue = Dialogue(path, server.factory, clock, directives=server.directives)
        await dialogue.run()
        self.assertEqual(clock.getDelayedCalls(), [])


@add_dialogues(DIALOGUES)
class OnDisk(TestCase):
    tls: Any = None

    async def play(self, path: Path) -> None:
        from twisted.internet import reactor

        clock = Clock()
        cls = type(self)
        cls.tls = cls.tls or server_tls()
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        store = SQLiteStore(scratch.name, reactor)
        await store.start()
        try:
            server = Server(clock, store, tls=cls.tls)
            await Dialogue(path, server.factory, clock, directives=server.directives, reactor=reactor).run()
        finally:
            await store.stop()
