"""The commands beside a server that runs, on the same data directory."""

from __future__ import annotations

import json
import os
import sys
import time

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

from mailplat.smtp.server import SMTPFactory
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import MemorySpool, RecordingReceiver, outline_of, portal_for
from mailplat.transcripts import names
from tests.test_service import ServiceTestCase


class LiveTests(ServiceTestCase):
    async def command(self, module, *words, stdin=b"", status=0):
        """Standard output of a command in a process of its own."""
        path = os.path.join(self.parent, "stdin")
        with open(path, "wb") as file:
            file.write(stdin)
        script = 'exec "$0" -m "$@" < "$STDIN"'
        out, err, found = await getProcessOutputAndValue(
            "/bin/sh",
            ("-c", script, sys.executable, f"mailplat.cli.{module}", *words),
            env={**os.environ, "MAILPLAT_CONFIG": self.config, "STDIN": path},
        )
        self.assertEqual(found, status, err)
        return out.decode()

    async def until(self, condition):
        """Wait for what the server does next; a server that does not is a failure after 30 s."""
        end = time.monotonic() + 30
        while not (found := await condition()):
            self.assertLess(time.monotonic(), end)
            await deferLater(reactor, 0.05)
        return found

    async def test_a_message_is_sent_held_rerouted_and_released(self):
        self.account()
        receiver = RecordingReceiver()
        remote = SMTPFactory(
            portal_for({}, MemoryStore(reactor.seconds), lambda peer, account: receiver),
            MemorySpool(outline=outline_of),
            reactor,
            hostname="mx.far.test",
        )
        port = reactor.listenTCP(0, remote, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(remote.stop, 0)
        closed = reactor.listenTCP(0, remote, interface="127.0.0.1")
        nobody = closed.getHost().port
        await closed.stopListening()

        self.config = os.path.join(self.parent, "mail.toml")
        with open(self.config, "w") as file:
            file.write(
                f'data = "data"\ndomains = ["example.test"]\nhostname = "mx.example.test"\n'
                f'[listen]\nsmtp = "tcp:0:interface=127.0.0.1"\n[relay]\nrelayhost = "127.0.0.1:{nobody}"\n'
            )
        service = await self.run_service(file=self.config, domain=None, data=None)
        queue = service._store.queue

        await self.command(
            "sendmail", "-ti", stdin=b"To: bob@far.test, alice\nSubject: cron\n\nIt is done.\n"
        )

        async def tried():
            return service._queue._failing

        async def arrived():
            return receiver.received

        async def done():
            return (await queue.status()).items == 0

        await self.until(tried)
        (line,) = (
            await self.command("main", "queue", "list", "--json", "--config", self.config)
        ).splitlines()
        item = json.loads(line)
        (recipient,) = item["recipients"]
        self.assertEqual(
            (recipient["address"], recipient["place"]), ("bob@far.test", f"smtp:127.0.0.1:{nobody}")
        )

        words = (str(item["id"]), "--config", self.config)
        await self.command("main", "queue", "hold", *words)
        await self.command("main", "transcript", "on", "--service", "relay", "--config", self.config)
        await self.command(
            "main", "queue", "reroute", "--to", f"smtp:127.0.0.1:{port.getHost().port}", *words
        )
        self.assertEqual(receiver.received, [])
        self.assertEqual((await queue.status()).held, 1)
        await self.command("main", "queue", "release", *words)
        await self.until(arrived)
        ((envelope, body),) = receiver.received
        self.assertEqual([str(one) for one in envelope.recipients], ["bob@far.test"])
        self.assertTrue(body.endswith(b"To: bob@far.test, alice\r\nSubject: cron\r\n\r\nIt is done.\r\n"))
        await self.until(done)
        directory = os.path.join(self.data, "transcripts")
        (name,) = names(directory)
        with open(os.path.join(directory, name)) as file:
            text = file.read()
        self.assertIn("C: RCPT TO:<bob@far.test>", text)
        self.assertNotIn("It is done", text)
        inbox = await (await service._store.account("alice@example.test")).open("INBOX")
        self.assertEqual((await inbox.status()).messages, 1)
