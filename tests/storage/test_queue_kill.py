"""kill -9 while items are added, settled and changed: what was acknowledged holds, nothing is half done."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailplat.interfaces import Delivery, NewItem, NewMessage
from mailplat.storage.spool import whole
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.contract.base import ALICE
from mailplat.testing.fakes import MemoryMessage
from mailplat.uids import EVERYTHING
from mailplat.values import Address, Envelope, QueuedRecipient, Settled, Target

ROOT = Path(__file__).parent.parent.parent

ROUNDS = 6
WORKERS = 8

#: due of a recipient -> how it came to be.
ADDED, CHANGED, RETRIED = 10, 20, 30


def recipient(due: int) -> QueuedRecipient:
    return QueuedRecipient(0, Target("relay", "there", Address("x", "there.test")), due=due)


def text(name: str) -> bytes:
    return b"Subject: %b\r\n\r\n" % name.encode() + b"A line of %b\r\n" % name.encode() * 50


async def work(store: SQLiteStore, prefix: str, say: Any) -> None:
    """
    Until the end of the process: items of two recipients, whose account is their name.

    What is about to be done is said before, and again when it is acknowledged.
    """
    chance = random.Random(prefix)
    queue = store.queue
    for number in range(1_000_000):
        name = f"{prefix}.{number}"
        body = MemoryMessage(text(name))
        new = NewItem(Envelope(None), body, b"P: x\r\n", [recipient(ADDED)] * 2, name, 1)
        say("add", name)
        delivery = Delivery(ALICE, "INBOX", NewMessage(body, b"", frozenset(), 1))
        _, (item,) = await store.commit([delivery], [new])
        say("added", name)
        kind = chance.choice(("leave", "change", "retry", "done", "report"))
        if kind == "leave":
            continue
        say(kind, name)
        if kind == "change":
            await queue.change([Settled(item, 0, recipient(CHANGED)), Settled(item, 1, recipient(CHANGED))])
        elif kind == "retry":
            await queue.settle([Settled(item, 0, recipient(RETRIED)), Settled(item, 1, recipient(RETRIED))])
        elif kind == "done":
            await queue.settle([Settled(item, 0, None), Settled(item, 1, None)])
        else:
            report = replace(new, account=f"report.{name}", body=MemoryMessage(text(f"report.{name}")))
            await queue.settle([Settled(item, 0, None), Settled(item, 1, None)], [report])
        say(f"{kind}!", name)


class KillTests(TestCase):
    timeout = 120

    async def test_rounds(self) -> None:
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        chance = random.Random(7)
        said: dict[str, str] = {}
        for number in range(ROUNDS):
            words, seconds = chance.randrange(50, 300), chance.uniform(0, 0.05)
            said.update(await deferToThread(self.killed, scratch.name, number, words, seconds))
            await self.check(scratch.name, said)
        finished = [word for word in said.values() if word.endswith("!")]
        self.assertGreater(len(finished), 20)

    def killed(self, directory: str, number: int, words: int, seconds: float) -> dict[str, str]:
        """Run the work for so many words, and a little longer.  Returns the last word about each name."""
        arguments = [sys.executable, "-m", "tests.storage.test_queue_kill", directory, str(number)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT) as child:
            assert child.stdout is not None
            first = [child.stdout.readline() for _ in range(words)]
            timer = threading.Timer(seconds, child.kill)
            timer.start()
            lines = [*first, *child.stdout]
        said: dict[str, str] = {}
        for line in lines:
            if line.endswith(b"\n"):
                word, name = json.loads(line)
                said[name] = word
        return said

    async def check(self, directory: str, said: dict[str, str]) -> None:
        store = SQLiteStore(directory, reactor)
        await store.start()
        try:
            self.assertEqual(await store.verify(), [])
            found = {item.account: item for item in await store.queue.items(0, 1_000_000)}
            for name, item in found.items():
                self.assertEqual(len({one.due for one in item.recipients}), 1, "half a settling")
                self.assertEqual(len(item.recipients), 2, "half a settling")
                message, prefix = await store.queue.message(item.id)
                self.assertEqual(prefix + await whole(message), b"P: x\r\n" + text(name))
                message.close()
            for name, word in said.items():
                due = found[name].recipients[0].due if name in found else None
                reported = f"report.{name}" in found
                expected: dict[str, tuple[tuple[int | None, bool], ...]] = {
                    "add": ((None, False), (ADDED, False)),
                    "added": ((ADDED, False),),
                    "change": ((ADDED, False), (CHANGED, False)),
                    "change!": ((CHANGED, False),),
                    "retry": ((ADDED, False), (RETRIED, False)),
                    "retry!": ((RETRIED, False),),
                    "done": ((ADDED, False), (None, False)),
                    "done!": ((None, False),),
                    "report": ((ADDED, False), (None, True)),
                    "report!": ((None, True),),
                }
                self.assertIn((due, reported), expected[word], (name, word))
            self.assertLessEqual({name.removeprefix("report.") for name in found}, set(said))
            # The local copy came in the same commit.
            inbox = await (await store.account(ALICE)).open("INBOX")
            copies = len(await inbox.columns(EVERYTHING))
            self.assertGreaterEqual(copies, sum(word != "add" for word in said.values()))
            self.assertLessEqual(copies, len(said))
        finally:
            await store.stop()


def main(directory: str, number: str) -> None:
    """The process that is killed."""
    from twisted.internet.defer import Deferred, gatherResults
    from twisted.internet.task import react

    def say(*words: str) -> None:
        print(json.dumps(words), flush=True)

    async def run(running: Any) -> None:
        store = SQLiteStore(directory, running)
        await store.start()
        if not await store.has_account(ALICE):
            await store.create_account(ALICE)
        workers = [
            Deferred.fromCoroutine(work(store, f"{number}.{worker}", say)) for worker in range(WORKERS)
        ]
        await gatherResults(workers)

    react(lambda running: Deferred.fromCoroutine(run(running)))


if __name__ == "__main__":
    main(*sys.argv[1:])
