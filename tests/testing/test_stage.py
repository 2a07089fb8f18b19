"""The corpus is what it says, and the stage sets up what dialogues need."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailplat.auth.login import with_password
from mailplat.interfaces import IMailAccount
from mailplat.storage.memory import MemoryStore
from mailplat.testing import corpus
from mailplat.testing.fakes import outline_of
from mailplat.testing.stage import Stage
from mailplat.uids import EVERYTHING
from mailplat.values import Peer

ALICE = "alice@example.test"


class CorpusTests(SynchronousTestCase):
    def test_lines_end_in_cr_lf(self) -> None:
        for name in corpus.NAMES:
            data = corpus.message(name)
            self.assertEqual(data.count(b"\n"), data.count(b"\r\n"), name)
            self.assertEqual(data.count(b"\r"), data.count(b"\r\n"), name)

    def test_all_differ(self) -> None:
        self.assertEqual(len({corpus.message(name) for name in corpus.NAMES}), len(corpus.NAMES))

    def test_each_has_an_outline(self) -> None:
        for name in corpus.NAMES:
            outline_of(corpus.message(name))

    def test_sizes(self) -> None:
        self.assertTrue(999_000 < len(corpus.large(1_000_000)) <= 1_000_000)
        self.assertEqual(corpus.many_parts(50).count(b"--b\r\n"), 50)
        self.assertEqual(corpus.deep(7).count(b"multipart/mixed"), 7)


class StageTests(SynchronousTestCase):
    def now(self, coroutine):
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_directives(self) -> None:
        stage = Stage(MemoryStore())
        for name, *words in (
            ("account", ALICE, "secret"),
            ("deliver", ALICE, "basic"),
            ("deliver", ALICE, "dots"),
            ("deliver", ALICE, "empty", "Junk"),
            ("flag", ALICE, "1:*", "\\Seen", "key"),
            ("expunge", ALICE, "1"),
        ):
            self.now(stage.directives[name](*words))
        stage.directives["service"]("lmtp")
        stage.directives["limit"]("lines", "10")
        stage.directives["limit"]("seconds", "0.5")
        self.assertEqual((stage.service, stage.limits), ("lmtp", {"lines": 10, "seconds": 0.5}))
        peer = Peer("imap", "127.0.0.1", 1)
        login = self.now(with_password(stage.portal, ALICE.encode(), b"secret", peer, IMailAccount))
        inbox = self.now(login.avatar.open("INBOX"))
        columns = self.now(inbox.columns(EVERYTHING))
        self.assertEqual(list(columns.uids), [2])
        self.assertEqual(list(inbox.keywords), ["key"])
        self.assertEqual(self.now(self.now(login.avatar.open("Junk")).status()).size, 0)
