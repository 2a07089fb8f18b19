"""The conversations of tests/dialogues/imap, over the memory store."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap.limits import Limits
from mailplat.imap.server import IMAPFactory
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import MemorySpool
from mailplat.testing.stage import Stage
from mailplat.testing.wire import Dialogue, add_dialogues


@add_dialogues(Path(__file__).parent.parent / "dialogues" / "imap")
class Dialogues(SynchronousTestCase):
    async def play(self, path: Path) -> None:
        clock = Clock()
        store = MemoryStore()
        await store.start()
        stage = Stage(store)

        def factory() -> IMAPFactory:
            return IMAPFactory(
                stage.portal, MemorySpool(), clock, plaintext_login="always", limits=Limits(**stage.limits)
            )

        await Dialogue(path, factory, clock, directives=stage.directives).run()
