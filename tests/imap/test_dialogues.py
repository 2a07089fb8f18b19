"""The IMAP dialogues, over both stores."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.imap import mailboxes
from mailplat.imap.limits import Limits
from mailplat.imap.server import IMAPFactory
from mailplat.storage.memory import MemoryStore
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import MemorySpool, server_tls
from mailplat.testing.stage import Stage
from mailplat.testing.wire import Dialogue, add_dialogues

DIALOGUES = Path(__file__).parent.parent / "dialogues" / "imap"

#: One certificate for all: to make one takes longer than most dialogues.
TLS = server_tls()


class Theatre:
    """
    What every dialogue is played in.

    Directives besides those of `Stage`:

        @ plaintext never|loopback|always      who may send passwords without TLS; "always" if not said
        @ certificate none                     there is no STARTTLS
        @ few N                                with more messages a mailbox is selected before it is loaded
    """

    def __init__(self, case: Any, store: Any) -> None:
        self.clock = Clock()
        self.stage = Stage(store)
        self.options: dict[str, Any] = {"plaintext_login": "always", "tls": TLS}
        self.directives = {
            **self.stage.directives,
            "plaintext": lambda who: self.options.update(plaintext_login=who),
            "certificate": lambda none: self.options.update(tls=None),
            "few": lambda count: case.patch(mailboxes, "FEW", int(count)),
        }

    def factory(self) -> IMAPFactory:
        limits = Limits(**self.stage.limits)
        return IMAPFactory(self.stage.portal, MemorySpool(), self.clock, limits=limits, **self.options)

    async def play(self, path: Path, reactor: Any = None) -> None:
        directives = self.directives
        await Dialogue(path, self.factory, self.clock, directives=directives, reactor=reactor).run()


@add_dialogues(DIALOGUES)
class InMemory(SynchronousTestCase):
    async def play(self, path: Path) -> None:
        store = MemoryStore()
        await store.start()
        theatre = Theatre(self, store)
        await theatre.play(path)
        self.assertEqual(theatre.clock.getDelayedCalls(), [])


@add_dialogues(DIALOGUES)
class OnDisk(TestCase):
    async def play(self, path: Path) -> None:
        from twisted.internet import reactor

        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        store = SQLiteStore(scratch.name, reactor)
        await store.start()
        try:
            await Theatre(self, store).play(path, reactor)
        finally:
            await store.stop()
