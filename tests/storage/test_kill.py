"""
The embedded store under kill -9 at random instants, with two processes on one directory.

`teller` says what it is about to do and what was acknowledged.  After each round every account is as its last
acknowledgement says, or as the operation under way would have left it, and nothing in between; what was
appended to the mailbox that both processes share is there once, under a UID of its own.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailplat.storage.sqlite import SQLiteStore
from tests.storage.teller import ROLL, SHARED, state

ROUNDS = 6

#: The accounts that each process changes.
PROCESSES = (
    ("a1@example.test", "a2@example.test"),
    ("b1@example.test", "b2@example.test", "b3@example.test"),
)

#: How long a process may take to begin, in seconds.
PATIENCE = 60.0


class Teller:
    """One process, and what it told."""

    def __init__(self, directory: str, seed: str, names: tuple[str, ...]) -> None:
        self.names = names
        self.path = os.path.join(directory, f"told by {names[0]}")
        with open(self.path, "wb") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.storage.teller",
                    os.path.join(directory, "store"),
                    seed,
                    *names,
                ],
                stdout=out,
            )

    def told(self) -> list[list]:
        """Whole lines; the last one may be torn."""
        with open(self.path, "rb") as file:
            return [json.loads(line) for line in file.read().split(b"\n")[:-1]]

    def acknowledged(self) -> int:
        return sum(words[0] in ("done", "shared") for words in self.told())

    async def wait_for(self, acknowledged: int) -> None:
        """So that there is something to lose, however slow the machine is."""
        waited = 0.0
        while ["begun"] not in self.told() or self.acknowledged() < acknowledged:
            if self.process.poll() is not None or waited > PATIENCE:
                raise AssertionError(f"it does not get on: {self.told()}")
            await deferLater(reactor, 0.01)
            waited += 0.01

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


def agree(expected: dict, found: dict) -> bool:
    """Whether a state is the expected one; a UIDVALIDITY that nobody could know is None."""
    return expected.keys() == found.keys() and all(
        row[1:] == found[name][1:] and row[0] in (None, found[name][0]) for name, row in expected.items()
    )


class KillTests(TestCase):
    async def test_rounds(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        chance = random.Random(seed)
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = scratch.name
        self.known: dict[str, dict] = {}
        self.shared: dict[str, int] = {}
        self.begun: set[str] = set()
        acknowledged = 0
        for round_ in range(ROUNDS):
            tellers = []
            try:
                for names in PROCESSES:
                    tellers.append(Teller(self.directory, f"{seed} {round_}", names))
                for teller in tellers:
                    await teller.wait_for(0)
                chance.shuffle(tellers)
                for teller in tellers:
                    await teller.wait_for(chance.randrange(10))
                    await deferLater(reactor, chance.uniform(0, 0.1))
                    teller.kill()
            finally:
                for teller in tellers:
                    teller.kill()
            for teller in tellers:
                acknowledged += teller.acknowledged()
            await self.check(tellers, f"seed {seed}, round {round_}")
        print(f"{acknowledged} acknowledged")
        self.assertGreater(acknowledged, 50)

    async def check(self, tellers, where):
        store = SQLiteStore(os.path.join(self.directory, "store"), reactor, roll=ROLL)
        await store.start()
        try:
            self.assertEqual(await store.verify(), [], where)
            self.no_garbage(store, where)
            for teller in tellers:
                told = teller.told()
                self.assertEqual([words for words in told if words[0] == "wrong"], [], where)
                for name in teller.names:
                    await self.check_account(store, name, told, where)
                self.shared |= {words[1]: words[2] for words in told if words[0] == "shared"}
                self.begun |= {words[1] for words in told if words[0] == "shared?"}
            await self.check_shared(store, where)
        finally:
            await store.stop()

    async def check_account(self, store, name, told, where):
        # Before the first operation it was as the last round's check left it.
        expected, pending = self.known.get(name), None
        for words in told:
            if words[:2] == ["found", name]:
                expected = expected or words[2]
            elif words[:2] == ["try", name]:
                pending = words[2]
            elif words[:2] == ["done", name]:
                expected, pending = pending, None
        found = await state(store, name)
        possible = [one for one in (expected, pending) if one is not None]
        if possible:
            self.assertTrue(
                any(agree(one, found) for one in possible), f"{where}: {name}\n{possible}\n{found}"
            )
        self.known[name] = found

    async def check_shared(self, store, where):
        ((_, uid_next, messages),) = [
            row for name, row in (await state(store, SHARED)).items() if name == "INBOX"
        ]
        found = {digest: int(uid) for uid, (digest, _) in messages.items()}
        self.assertEqual(len(found), len(messages), f"{where}: something is there twice")
        self.assertEqual({digest: found.get(digest) for digest in self.shared}, self.shared, where)
        self.assertEqual(found.keys() - self.begun, set(), where)
        self.assertLess(max(found.values(), default=0), uid_next)
        # What was found is known from now on: nothing may move.
        self.shared = found

    def no_garbage(self, store, where):
        """A store that starts alone has no file that the index does not know."""
        known = {name for (name,) in store._watch.execute("SELECT name FROM files WHERE id > 0")}
        there = {
            f"{folder}/{name}"
            for folder in ("packs", "large")
            for name in os.listdir(os.path.join(store.directory, folder))
        }
        self.assertEqual(there, known, where)
