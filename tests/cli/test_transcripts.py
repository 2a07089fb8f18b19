"""`mailplat transcript`."""

from __future__ import annotations

import os
import stat
from unittest import mock

from mailplat.datadir import DataDirectory
from mailplat.transcripts import Transcripts, Wish
from mailplat.values import Peer
from tests.cli.test_main import CommandTestCase

NOW = 1_800_000_000


class TranscriptTests(CommandTestCase):
    def setUp(self):
        super().setUp()
        DataDirectory(self.data).prepare()
        self.directory = os.path.join(self.data, "transcripts")
        self.now = NOW
        patch = mock.patch("time.time", lambda: self.now)
        patch.start()
        self.addCleanup(patch.stop)

    def command(self, *words):
        return self.here("transcript", *words, "--data", self.data)

    def write(self, text):
        transcripts = Transcripts(self.directory, lambda: self.now)
        transcript = transcripts.observe(Peer("smtp", "192.0.2.1", 5, connection="c1"))
        transcript.sent(text)
        transcript.ended("so")

    def test_a_life(self):
        nothing = "no transcripts are being written\n"
        self.assertEqual(self.command("show"), (0, nothing, ""))
        self.assertEqual(
            self.command("on", "--for", "5"), (0, f"for 5 min transcripts go to {self.directory}\n", "")
        )
        self.assertEqual(stat.S_IMODE(os.stat(self.directory).st_mode), 0o700)
        self.assertEqual(Wish.read(self.directory), Wish(NOW + 300))
        self.write(b"250 hello\r\n")
        self.now += 60
        self.write(b"250 world\r\n")
        self.assertEqual(
            self.command("show"),
            (
                0,
                "    136  20270115-080000-000-smtp-192.0.2.1-c1.txt\n"
                "    136  20270115-080100-000-smtp-192.0.2.1-c1.txt\n"
                "transcripts of all connections are being written for another 4 min\n",
                "",
            ),
        )
        status, out, _ = self.command("show", "last")
        self.assertEqual((status, out.splitlines()[1]), (0, "    0.000 S: 250 world"))
        _, out, _ = self.command("show", "20270115-080000-000-smtp-192.0.2.1-c1.txt")
        self.assertIn("hello", out)
        self.assertEqual(self.command("off"), (0, "", ""))
        self.assertTrue(self.command("show")[1].endswith(nothing))
        self.assertEqual(self.command("off", "--remove"), (0, "", ""))
        self.assertEqual(self.command("show"), (0, nothing, ""))

    def test_which(self):
        self.command("on", "--service", "relay", "--peer", "192.0.2.7/24", "--content")
        self.assertEqual(Wish.read(self.directory), Wish(NOW + 3600, "relay", "192.0.2.0/24", content=True))
        self.assertEqual(
            self.command("show")[1],
            "transcripts of relay connections with 192.0.2.0/24 are being written for another 1 h, "
            "contents included\n",
        )
        self.now += 3600
        self.assertEqual(self.command("show")[1], "no transcripts are being written\n")

    def test_mistakes(self):
        for words in (
            ("on", "--service", "http"),
            ("on", "--peer", "mx.test"),
            ("on", "--for", "0"),
            ("on", "--for", "99999"),
            ("on", "--for", "1.5"),
            (),
        ):
            self.assertEqual(self.command(*words)[0], 2, words)
        for name in ("last", "../accounts", "nothing.txt"):
            self.assertEqual(
                self.command("show", name), (1, "", f"mailplat: there is no transcript {name}\n")
            )
