"""The conversations of tests/dialogues/smtp, with delivery into each of our stores behind them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.auth.names import Names
from mailplat.delivery.intake import Intake
from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.routing import Router
from mailplat.smtp.engine import Limits
from mailplat.smtp.server import SMTPFactory
from mailplat.storage.memory import MemoryStore
from mailplat.storage.spool import Spool
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import MemorySpool, server_tls
from mailplat.testing.stage import Stage
from mailplat.testing.wire import Dialogue, add_dialogues

HOSTNAME = "mx.example.test"


DIALOGUES = Path(__file__).parent.parent / "dialogues" / "smtp"


class Dialogues:
    """
    Directives besides those of the stage:

        @ inbox NAME COUNT      so many messages are in the account's INBOX
        @ last NAME TEXT        the newest one contains this, with \\r and \\n for line breaks
    """

    tls: Any = None

    async def play_on(self: Any, path: Path, store: Any, spool: Any, reactor: Any = None) -> None:
        clock = Clock()
        router = Router(Names(("example.test",)), store, {})
        stage = Stage(store, Intake(router, LocalDelivery(store, clock), HOSTNAME, clock))
        # One certificate for all: to make one takes longer than most dialogues.
        cls = type(self)
        cls.tls = cls.tls or server_tls()

        def factory() -> SMTPFactory:
            return SMTPFactory(
                stage.portal,
                spool,
                clock,
                hostname=HOSTNAME,
                service=stage.service or "smtp",
                tls=cls.tls,
                limits=Limits(**stage.limits),
            )

        async def account(name: str, password: str) -> None:
            await stage.account(name.lower(), password)

        async def messages(name: str) -> list[bytes]:
            inbox = await (await store.account(name.lower())).open("INBOX")
            found = []
            for uid in (await inbox.changes(0)).changed.uids:
                content = await inbox.content(uid)
                found.append(await content.read(0, content.size))
            return found

        async def inbox(name: str, count: str) -> None:
            self.assertEqual(len(await messages(name)), int(count))

        async def last(name: str, text: str) -> None:
            wanted = text.replace("\\r", "\r").replace("\\n", "\n").encode()
            self.assertIn(wanted, (await messages(name))[-1])

        directives = {**stage.directives, "account": account, "inbox": inbox, "last": last}
        await Dialogue(path, factory, clock, directives=directives, reactor=reactor).run()
        self.assertEqual(clock.getDelayedCalls(), [])


@add_dialogues(DIALOGUES)
class InMemory(Dialogues, SynchronousTestCase):
    async def play(self, path: Path) -> None:
        await self.play_on(path, MemoryStore(), MemorySpool())


@add_dialogues(DIALOGUES)
class OnDisk(Dialogues, TestCase):
    async def play(self, path: Path) -> None:
        from twisted.internet import reactor

        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        # So small that every message but the emptiest goes through a file.
        spool = Spool(f"{scratch.name}/spool", reactor, in_memory=20)
        spool.start()
        store = SQLiteStore(f"{scratch.name}/store", reactor)
        await store.start()
        try:
            await self.play_on(path, store, spool, reactor)
        finally:
            await store.stop()
