"""The queue and the relay together, on a network that does its worst, for a week."""

from __future__ import annotations

from collections import Counter
from random import Random

from mailplat.delivery.queue import Queue
from mailplat.storage.memory_queue import MemoryQueue
from mailplat.testing.fakes import MemoryMessage, outline_of
from mailplat.testing.scripted import DROP, HANG, RESET, Flood, Slow
from mailplat.values import NO_REQUEST, RELAY, Envelope, Target
from tests.delivery.city import RelayCase
from tests.delivery.house import address

DAY = 86400
EACH = 15

#: Domain -> what its host does.  All of them get better, but for those at the end.
SCRIPTS = {
    "good": {},
    "greylists": {"RCPT": [*["450 4.2.0 Try later"] * EACH, "250 OK"]},
    "hangs": {"MAIL": [HANG, HANG, "250 OK"]},
    "drops": {"DATA": [DROP, RESET, "354 OK"]},
    "forgets": {".": [DROP, HANG, RESET, "250 OK"]},
    "slow": {"MAIL": Slow(100, "250 OK"), ".": Slow(200, "250 OK")},
    "floods": {"EHLO": [Flood("250-x"), Flood("250-x"), "250 mx"]},
    "busy": {"CONNECT": [*["421 4.3.2 Busy"] * 7, "220 mx"]},
    "away": {},
    "refuses": {"RCPT": "550 5.1.1 Nobody"},
    "dead": {},
}


class MailOut(RelayCase):
    def setUp(self):
        super().setUp()
        self.told = Counter()
        self.store = MemoryQueue()
        self.queue = Queue(self.store, {RELAY: self.relay}, self, self.host, random=Random(1))

    async def report(self, item, about, message, prefix):
        for recipient, outcome in about:
            self.told[recipient.target.place, type(outcome.error).__name__] += 1
        return None

    def submit(self, *places):
        self.serial = getattr(self, "serial", 0) + 1
        body = b"Subject: %d\r\n\r\nHello\r\n" % self.serial
        recipients = [(Target(RELAY, place, address(f"b@{place}")), NO_REQUEST) for place in places]
        envelope = Envelope(address("a@here.example"), tuple(target.address for target, _ in recipients))
        message = MemoryMessage(body, outline_of(body))
        self.network.run(self.store.add([self.queue.item(envelope, recipients, message, b"")]))

    def test_a_week(self):
        servers = {}
        for number, (name, script) in enumerate(SCRIPTS.items(), 1):
            at = f"198.51.100.{number}"
            servers[name] = self.server(f"mx.{name}.example", at, script=dict(script))
            self.network.hosts[f"mx.{name}.example"].down = name in ("away", "dead")
            self.network.domain(f"{name}.example", f"mx.{name}.example")
        self.host.callLater(2 * DAY, setattr, self.network.hosts["mx.away.example"], "down", False)
        for _ in range(EACH):
            self.submit(*(f"{name}.example" for name in SCRIPTS), "nowhere.example")
        self.queue.start()
        self.network.advance(300)
        # Nobody waits for those that are slow or dead.
        self.assertEqual(len(servers["good"].received), EACH)
        self.network.advance(7 * DAY)
        for name, server in servers.items():
            copies = Counter(received.data for received in server.received)
            if name in ("refuses", "dead"):
                self.assertEqual(copies, {}, name)
            else:
                self.assertEqual(len(copies), EACH, name)
                # Twice only what a host took without a word.
                self.assertEqual(sum(copies.values()) - EACH, 3 if name == "forgets" else 0, name)
        ends = dict.fromkeys(SCRIPTS, "NoneType") | {"refuses": "PermanentError", "dead": "Expired"}
        ends["nowhere"] = "NoSuchDomain"
        self.assertEqual(
            {key: number for key, number in self.told.items() if key[1] != "TemporaryError"},
            {(f"{name}.example", end): EACH for name, end in ends.items()},
        )
        delayed = {place for place, error in self.told if error == "TemporaryError"}
        self.assertLessEqual({"away.example", "dead.example"}, delayed)
        self.assertEqual(self.network.run(self.store.status()).recipients, 0)
        self.assertEqual(self.network.connections, 0)
        self.network.run(self.queue.stop())
