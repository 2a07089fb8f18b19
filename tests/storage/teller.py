"""
A process that changes a store at random and tells what was acknowledged, until it is killed.

    python -m tests.storage.teller DIRECTORY SEED NAME...

For each NAME there is an account, changed by one worker with one operation at a time; all workers
also append to the INBOX of `SHARED`.  Lines of JSON on standard output:

    ["found", NAME, STATE]      it was so at the beginning
    ["try", NAME, STATE]        the operation that begins now would lead to this state
    ["done", NAME]              it was acknowledged
    ["shared?", DIGEST]         an append to the shared INBOX begins
    ["shared", DIGEST, UID]     it was acknowledged

A state is what `state` finds: a naive model foretells it, UIDs included.  A worker for whom things turn out
otherwise says ["wrong", ...].
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import sys
from typing import Any

from twisted.internet.defer import Deferred

from mailplat.interfaces import IMovesMessages, NewMessage
from mailplat.storage import sqlite
from mailplat.storage.spool import Spool
from mailplat.storage.sqlite import SQLiteStore
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import FlagChange, flag_names

SHARED = "shared@example.test"

#: Small, so that packs are left, buried and removed all the time.
ROLL = 64 * 1024

#: Small too, so that some bodies wait in the index, and are moved to a pack.
FEW, WAITING = 4_000, 20_000

#: Messages of more octets come from a file.
IN_MEMORY = 20_000

State = dict[str, list[Any]]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


async def content(mailbox: Any, uid: int) -> bytes:
    """A message's bytes."""
    message = await mailbox.content(uid)
    try:
        return b"".join([await message.read(start, 65536) for start in range(0, message.size, 65536)])
    finally:
        message.close()


async def state(store: Any, name: str) -> State:
    """Mailbox -> [UIDVALIDITY, UIDNEXT, {UID: [digest of the bytes, flags]}]."""
    account, found = await store.account(name), {}
    for info in await account.mailboxes():
        if info.exists and info.selectable:
            mailbox = await account.open(info.name)
            columns = await mailbox.columns(EVERYTHING)
            messages = {
                str(uid): [
                    digest(await content(mailbox, uid)),
                    sorted(flag_names(word, mailbox.keywords)),
                ]
                for uid, word, *_ in columns.rows()
            }
            found[info.name] = [mailbox.uid_validity, (await mailbox.status()).uid_next, messages]
    return found


def tell(*words: object) -> None:
    # One write a line, straight to the file: what was told before the end stays told.
    os.write(1, json.dumps(words).encode() + b"\n")


class Worker:
    def __init__(self, store: SQLiteStore, spool: Spool, name: str, chance: random.Random) -> None:
        self.store, self.spool, self.name, self.random = store, spool, name, chance
        self.count = 0

    async def run(self) -> None:
        self.account = await self.store.account(self.name)
        self.state = await state(self.store, self.name)
        tell("found", self.name, self.state)
        shared = await (await self.store.account(SHARED)).open("INBOX")
        while True:
            await self.step()
            if self.random.random() < 0.3:
                body = self.body()
                tell("shared?", digest(body))
                (uid,) = await self.append(shared, body)
                tell("shared", digest(body), uid)
            if self.random.random() < 0.3:
                # Which has a snapshot taken, or brought up to date.
                await (await self.account.open(self.random.choice(list(self.state)))).columns(EVERYTHING)

    async def step(self) -> None:
        full = [name for name, (_, _, messages) in self.state.items() if messages]
        acts = [self.add, self.add, self.add, self.create]
        if full:
            acts += [self.flag, self.flag, self.expunge, self.expunge, self.copy, self.move]
        if len(self.state) > 8:
            acts += [self.rename, self.delete]
        act = self.random.choice(acts)
        mailbox = self.random.choice(full if full and act not in (self.add,) else list(self.state))
        after = copy.deepcopy(self.state)
        do = act(after, mailbox)
        tell("try", self.name, after)
        await do()
        for name, row in after.items():
            if row[0] is None:
                row[0] = (await self.account.open(name)).uid_validity
        self.state = after
        tell("done", self.name)

    # Each changes the model and gives what does the same to the store.

    def add(self, after: State, mailbox: str) -> Any:
        bodies = [self.body() for _ in range(self.random.randint(1, 3))]
        row = after[mailbox]
        for body in bodies:
            row[2][str(row[1])] = [digest(body), ["\\Seen", f"k{self.count % 5}"]]
            row[1] += 1

        async def do() -> None:
            await self.append(
                await self.account.open(mailbox), *bodies, flags=("\\Seen", f"k{self.count % 5}")
            )

        return do

    def flag(self, after: State, mailbox: str) -> Any:
        uids = self.some(after[mailbox][2])
        flag = self.random.choice(("\\Flagged", "\\Deleted", "Junk", "k1"))
        for uid in uids:
            message = after[mailbox][2][str(uid)]
            message[1] = sorted({*message[1], flag})

        async def do() -> None:
            box = await self.account.open(mailbox)
            await box.set_flags(UIDSet.of(uids), FlagChange(add=frozenset({flag})))

        return do

    def expunge(self, after: State, mailbox: str) -> Any:
        uids = self.some(after[mailbox][2])
        for uid in uids:
            del after[mailbox][2][str(uid)]

        async def do() -> None:
            await (await self.account.open(mailbox)).expunge(UIDSet.of(uids), deleted_only=False)

        return do

    def copy(self, after: State, mailbox: str, moving: bool = False) -> Any:
        target = self.random.choice([name for name in after if not moving or name != mailbox])
        uids = self.some(after[mailbox][2])
        row = after[target]
        for uid in uids:
            row[2][str(row[1])] = copy.deepcopy(after[mailbox][2][str(uid)])
            row[1] += 1
            if moving:
                del after[mailbox][2][str(uid)]

        async def do() -> None:
            box = await self.account.open(mailbox)
            await (IMovesMessages(box).move if moving else box.copy)(UIDSet.of(uids), target)

        return do

    def move(self, after: State, mailbox: str) -> Any:
        return self.copy(after, mailbox, moving=True)

    def create(self, after: State, mailbox: str) -> Any:
        self.count += 1
        name = f"box {self.random.getrandbits(40):x}"
        after[name] = [None, 1, {}]

        async def do() -> None:
            await self.account.create(name)

        return do

    def rename(self, after: State, mailbox: str) -> Any:
        old = self.random.choice([name for name in after if name != "INBOX"])
        new = f"renamed {self.random.getrandbits(40):x}"
        after[new] = after.pop(old)

        async def do() -> None:
            await self.account.rename(old, new)

        return do

    def delete(self, after: State, mailbox: str) -> Any:
        name = self.random.choice([name for name in after if name != "INBOX"])
        del after[name]

        async def do() -> None:
            await self.account.delete(name)

        return do

    # Beneath them

    def some(self, messages: dict[str, Any]) -> list[int]:
        uids = [int(uid) for uid in messages]
        return sorted(self.random.sample(uids, self.random.randint(1, len(uids))))

    def body(self) -> bytes:
        self.count += 1
        lines = 2000 if self.random.random() < 0.07 else self.random.randint(1, 60)
        mark = f"{self.name} {self.random.getrandbits(60):x}\r\n".encode()
        return b"Subject: x\r\n\r\n" + mark * lines

    async def append(self, mailbox: Any, *bodies: bytes, flags: tuple[str, ...] = ()) -> Any:
        messages = []
        for body in bodies:
            writer = self.spool.begin()
            await writer.write(body)
            messages.append(await writer.finish())
        try:
            return await mailbox.append(
                [NewMessage(message, b"", frozenset(flags), 0) for message in messages]
            )
        finally:
            for message in messages:
                message.close()


def main(directory: str, seed: str, *names: str) -> None:
    from twisted.internet import reactor

    sqlite.MOST_EFFORT = 1
    sqlite.REST = 0
    store: Any = SQLiteStore(directory, reactor, roll=ROLL, few=FEW, waiting=WAITING)
    spool = Spool(os.path.join(directory, "..", f"spool-{names[0]}"), reactor, in_memory=IN_MEMORY)

    async def work() -> None:
        spool.start()
        await store.start()
        for name in (*names, SHARED):
            if not await store.has_account(name):
                try:
                    await store.create_account(name)
                except Exception as error:
                    if not await store.has_account(name):
                        raise error
        tell("begun")
        for name in names:
            worker = Worker(store, spool, name, random.Random(f"{seed} {name}"))
            Deferred.fromCoroutine(worker.run()).addErrback(
                lambda failure: tell("wrong", failure.getTraceback())
            )

    Deferred.fromCoroutine(work()).addErrback(lambda failure: tell("wrong", failure.getTraceback()))
    reactor.run(installSignalHandlers=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
