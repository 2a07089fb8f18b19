"""The conversations of tests/dialogues/smtp, with delivery into each of our stores behind them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from mailplat.auth.names import Names
from mailplat.delivery.intake import Intake
from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.queue import Queue
from mailplat.delivery.routing import Router
from mailplat.smtp.engine import Limits
from mailplat.smtp.server import SMTPFactory
from mailplat.storage.memory import MemoryStore
from mailplat.storage.memory_queue import MemoryQueue
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
        @ offer reports         DSN is offered; with `hold SECONDS`, FUTURERELEASE
        @ queued NAME WORD VALUE...
                                the only thing in the queue is for NAME, with this `due`, `notify`
                                and `original`
    """

    tls: Any = None

    async def play_on(self: Any, path: Path, store: Any, spool: Any, reactor: Any = None) -> None:
        clock = Clock()
        router = Router(Names(("example.test",)), store, {})
        # Not started: what is in it stays in it.
        queue_store = store.queue or MemoryQueue()
        queue = Queue(queue_store, {}, None, clock)
        intake = Intake(router, LocalDelivery(store, clock), HOSTNAME, clock, queue=queue)
        stage = Stage(store, intake)
        offers: dict[str, Any] = {}
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
                **offers,
            )

        def offer(word: str, value: str = "") -> None:
            offers[word] = int(value) if value else True

        async def queued(name: str, *words: str) -> None:
            (item,) = await queue_store.items(0, 10)
            (one,) = item.recipients
            self.assertEqual(str(one.target.address), name)
            found = {
                "due": str(one.due),
                "notify": " ".join(sorted(one.request.notify or ())),
                "original": one.request.original,
            }
            for word, value in zip(words[::2], words[1::2], strict=True):
                self.assertEqual(found[word], value)

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
        directives.update(offer=offer, queued=queued)
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
        if store.queue is None and path.stem == "rfc4954_auth":
            raise SkipTest("to deliver and to queue in one commit, the store must have a queue")
        await store.start()
        try:
            await self.play_on(path, store, spool, reactor)
        finally:
            await store.stop()
