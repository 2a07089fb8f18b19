"""
Two clients of one mailbox do what comes to their minds: what each believes must be what is so.

A client here knows what it was told and nothing else, as RFC 3501 §7 allows it to: sequence numbers
move with EXPUNGE only, a number means the same UID for ever until then, and flags are as they were
told last, or as the client itself made them in silence.  Played over the memory store by Hypothesis, and over
SQLite, where both clients' commands are really under way at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.imap import mailboxes
from mailplat.imap.server import IMAPFactory
from mailplat.imap.view import MailboxView, Views
from mailplat.storage.memory import MemoryStore
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import MemorySpool, portal_for
from mailplat.testing.wire import FakeWire
from mailplat.uids import EVERYTHING
from mailplat.values import flag_names
from tests.imap.support import ALICE, PASSWORD

#: Commands during which no EXPUNGE may come (RFC 3501 §7.4.1).
BY_NUMBER = ("FETCH", "STORE", "SEARCH")

_NUMBERED = re.compile(r"\* (\d+) (EXISTS|RECENT|EXPUNGE|FETCH)(?: \((.*))?")
_UID = re.compile(r"\bUID (\d+)")
_FLAGS = re.compile(r"FLAGS \(([^)]*)\)")


class Believer:
    """
    A client that checks all it is told against what it was told before.

    Attributes:
        uids: by sequence number; None where it was not told.
        flags: what it believes of the messages whose UID it knows.
    """

    def __init__(self, factory: IMAPFactory, clock: Clock, reactor: Any) -> None:
        self.wire = FakeWire("imap", clock=clock)
        self.wire.start(factory.session(self.wire))
        self.clock = clock
        self.reactor = reactor
        self.uids: list[int | None] = []
        self.flags: list[set[str] | None] = []
        self.count = 0

    async def ask(self, data: bytes, end: bytes) -> str:
        """What the server says to this, up to and with the line that begins with `end`."""
        said = self.wire.send(data)
        deadline = None
        while True:
            said += self.wire.taken()
            if (b"\r\n" + said).find(b"\r\n" + end) >= 0 and said.endswith(b"\r\n"):
                return said.decode()
            self.clock.advance(0)
            assert self.reactor is not None, f"no answer: {said!r}"
            deadline = deadline or self.reactor.seconds() + 20
            assert self.reactor.seconds() < deadline, f"no answer: {said!r}"
            await deferLater(self.reactor, 0.0005, lambda: None)

    async def say(self, command: str) -> tuple[list[str], str]:
        """Its untagged lines, which are believed, and its tagged one."""
        self.count += 1
        tag = f"t{self.count} "
        said = await self.ask(f"{tag}{command}\r\n".encode(), tag.encode())
        *untagged, tagged = said.split("\r\n")[:-1]
        tagged = tagged.removeprefix(tag)
        assert not tagged.startswith("BAD"), (command, tagged)
        assert "SERVERBUG" not in tagged, (command, tagged)
        if command.startswith("SELECT"):
            self.uids, self.flags = [], []
        self.hear(untagged, command)
        return untagged, tagged

    def hear(self, lines: Iterable[str], command: str) -> None:
        for line in lines:
            found = _NUMBERED.match(line)
            if found is None:
                continue
            number, what, items = int(found[1]), found[2], found[3]
            if what == "EXISTS":
                assert number >= len(self.uids), (command, line, len(self.uids))
                more = number - len(self.uids)
                self.uids += [None] * more
                self.flags += [None] * more
            elif what == "EXPUNGE":
                assert not command.startswith(BY_NUMBER), (command, line)
                assert 1 <= number <= len(self.uids), (command, line, len(self.uids))
                del self.uids[number - 1], self.flags[number - 1]
            elif what == "RECENT":
                assert number <= len(self.uids), (command, line, len(self.uids))
            else:
                assert 1 <= number <= len(self.uids), (command, line, len(self.uids))
                if uid := _UID.search(items):
                    assert self.uids[number - 1] in (None, int(uid[1])), (command, line, self.uids)
                    self.uids[number - 1] = int(uid[1])
                if flags := _FLAGS.search(items):
                    self.flags[number - 1] = set(flags[1].split()) - {"\\Recent"}

    def pick(self, choice: int) -> int:
        """A sequence number that it believes in; 0 if there is none."""
        return choice % len(self.uids) + 1 if self.uids else 0

    async def do(self, what: str, choice: int, flag: str) -> None:
        """One thing that a client does."""
        number = self.pick(choice)
        if what in ("noop", "append", "expunge", "close", "select", "search", "all", "idle"):
            await getattr(self, "do_" + what)(flag)
        elif number:
            await getattr(self, "do_" + what)(number, flag)

    async def do_noop(self, flag: str) -> None:
        await self.say("NOOP")

    async def do_append(self, flag: str) -> None:
        await self.say(f"APPEND INBOX ({flag}) {{14+}}\r\nSubject: x\r\n\r\n")

    async def do_expunge(self, flag: str) -> None:
        await self.say("EXPUNGE")

    async def do_close(self, flag: str) -> None:
        await self.say("CLOSE")
        await self.say("SELECT INBOX")

    async def do_select(self, flag: str) -> None:
        await self.say("SELECT INBOX")

    async def do_search(self, flag: str) -> None:
        exists = len(self.uids)
        lines, _ = await self.say("SEARCH ALL")
        (found,) = (line for line in lines if line.startswith("* SEARCH"))
        numbers = list(map(int, found.split()[2:]))
        assert numbers == sorted(set(numbers)) and all(1 <= n <= exists for n in numbers), (found, exists)

    async def do_all(self, flag: str) -> None:
        if self.uids:
            await self.say("FETCH 1:* (UID FLAGS)")

    async def do_idle(self, flag: str) -> None:
        began = await self.ask(b"i IDLE\r\n", b"+ ")
        ended = await self.ask(b"DONE\r\n", b"i OK")
        self.hear((began + ended).split("\r\n"), "IDLE")

    async def do_fetch(self, number: int, flag: str) -> None:
        await self.say(f"FETCH {number}:* (UID)")

    async def do_read(self, number: int, flag: str) -> None:
        await self.say(f"FETCH {number} (UID BODY[])")

    async def do_uid_fetch(self, number: int, flag: str) -> None:
        await self.say(f"UID FETCH {self.uids[number - 1] or '*'} (FLAGS)")

    async def do_store(self, number: int, flag: str) -> None:
        await self.say(f"STORE {number} +FLAGS ({flag})")

    async def do_unstore(self, number: int, flag: str) -> None:
        await self.say(f"STORE {number}:{min(number + 2, len(self.uids))} -FLAGS ({flag})")

    async def do_silently(self, number: int, flag: str) -> None:
        """After silence a client takes it that only its own change happened (RFC 3501 §6.4.6)."""
        before = self.flags[number - 1]
        if before is not None:
            self.flags[number - 1] = before | {flag}
        await self.say(f"STORE {number} +FLAGS.SILENT ({flag})")

    async def do_delete(self, number: int, flag: str) -> None:
        await self.say(f"STORE {number} +FLAGS (\\Deleted)")

    async def do_uid_expunge(self, number: int, flag: str) -> None:
        await self.say(f"UID EXPUNGE {self.uids[number - 1] or '*'}")

    async def do_copy(self, number: int, flag: str) -> None:
        await self.say(f"COPY {number} INBOX")

    async def do_move(self, number: int, flag: str) -> None:
        await self.say(f"MOVE {number} Archive")


DOINGS = (
    *("noop", "append", "append", "expunge", "close", "select", "search", "all", "idle"),
    *("fetch", "read", "uid_fetch", "store", "unstore", "silently", "silently", "delete", "delete"),
    *("uid_expunge", "copy", "move"),
)
FLAGS = ("\\Seen", "\\Flagged", "\\Deleted", "word", "$Other")

#: (which client, what, which message, which flag)
Step = tuple[int, str, int, str]


class ColdViews(Views):
    """Every SELECT is the first after a start of the server."""

    def of(self, mailbox: Any) -> MailboxView:
        return MailboxView(mailbox)


async def play(
    store: Any, steps: Sequence[Step], reactor: Any, at_once: bool = False, views: Views | None = None
) -> None:
    """
    Args:
        store: started, and empty.
        at_once: steps of different clients that follow each other are done together.
        views: instead of the server's own.
    """
    await store.create_account(ALICE)
    mailbox = await (await store.account(ALICE)).open("INBOX")
    clock = Clock()
    portal = portal_for({ALICE: PASSWORD}, store)
    factory = IMAPFactory(portal, MemorySpool(), clock, plaintext_login="always")
    if views is not None:
        factory._views = views
    clients = [Believer(factory, clock, reactor) for _ in range(2)]
    for client in clients:
        await client.say(f"LOGIN {ALICE} {PASSWORD}")
        await client.say("SELECT INBOX")
    waiting = list(steps)
    while waiting:
        which, *step = waiting.pop(0)
        doing = [clients[which].do(*step)]
        if at_once and waiting and waiting[0][0] != which:
            other, *step = waiting.pop(0)
            doing.append(clients[other].do(*step))
        await gatherResults([Deferred.fromCoroutine(one) for one in doing], consumeErrors=True)
    for client in clients:
        await client.say("NOOP")
    truth = await mailbox.columns(EVERYTHING)
    for client in clients:
        assert len(client.uids) == len(truth), (client.uids, list(truth.uids))
        for uid, flags, (so, word, *_) in zip(client.uids, client.flags, truth.rows(), strict=True):
            assert uid in (None, so), (client.uids, list(truth.uids))
            assert flags in (None, set(flag_names(word, mailbox.keywords))), (so, flags)
        await client.do_all("")
        assert client.uids == list(truth.uids)
        client.wire.hang_up()


def steps_of(doings: Sequence[str], least: int = 0) -> Any:
    step = st.tuples(st.integers(0, 1), st.sampled_from(doings), st.integers(0, 9), st.sampled_from(FLAGS))
    return st.lists(step, min_size=least, max_size=40)


BEGAN: list[Step] = [(0, "append", 0, "\\Seen"), (1, "append", 0, "word"), (0, "append", 0, "")]


class InMemory(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(steps_of(DOINGS))
    def test_two_clients(self, steps: list[Step]) -> None:
        self.successResultOf(Deferred.fromCoroutine(play(MemoryStore(), [*BEGAN, *steps], None)))


class InMemoryBeforeRows(SynchronousTestCase):
    """SELECT tells counters, and what happens then may come before the rows do."""

    def setUp(self) -> None:
        self.patch(mailboxes, "FEW", -1)

    @settings(max_examples=150, deadline=None)
    @given(steps_of([*DOINGS, *("select", "move", "move") * 4], 10), st.booleans())
    def test_two_clients(self, steps: list[Step], shared: bool) -> None:
        views = Views() if shared else ColdViews()
        playing = play(MemoryStore(), [*BEGAN, *steps], None, views=views)
        self.successResultOf(Deferred.fromCoroutine(playing))


class OnDisk(TestCase):
    async def test_two_clients_at_once(self) -> None:
        from twisted.internet import reactor

        for seed in range(8):
            random = Random(seed)
            steps: list[Step] = [(0, "append", 0, ""), (0, "append", 0, "word"), (0, "append", 0, "\\Seen")]
            steps += [
                (random.randrange(2), random.choice(DOINGS), random.randrange(10), random.choice(FLAGS))
                for _ in range(50)
            ]
            scratch = TemporaryDirectory()
            self.addCleanup(scratch.cleanup)
            store = SQLiteStore(scratch.name, reactor)
            await store.start()
            try:
                await play(store, steps, reactor, at_once=True, views=self.views())
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
            finally:
                await store.stop()

    def views(self) -> Views | None:
        return None


class OnDiskBeforeRows(OnDisk):
    def setUp(self) -> None:
        self.patch(mailboxes, "FEW", -1)

    def views(self) -> Views | None:
        return ColdViews()
