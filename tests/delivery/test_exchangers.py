"""Which hosts take a hop's mail: what is not shown on the whole network in other files."""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailplat.delivery.exchangers import Candidate, Exchangers
from mailplat.delivery.hops import NextHop
from mailplat.errors import HostUnreachable, NotResolved
from mailplat.testing.network import FakeResolver
from tests.delivery.house import now


class ExchangersTests(SynchronousTestCase):
    def setUp(self):
        self.resolver = FakeResolver(Clock())

    def candidates(self, hop, **settings):
        exchangers = Exchangers(self.resolver, Random(1), **settings)
        return now(exchangers.candidates(NextHop.parse(hop)))

    def test_order(self):
        self.resolver.exchangers["example.com"] = [(20, "c.example"), (10, "a.example"), (10, "b.example")]
        self.resolver.hosts.update(
            {
                "a.example": ["2001:db8::1", "192.0.2.1"],
                "b.example": ["2001:db8::2", "192.0.2.2", "192.0.2.3"],
                "c.example": ["192.0.2.4"],
            }
        )
        found = [str(candidate) for candidate in self.candidates("example.com")]
        first = ["a.example[2001:db8::1]:25", "a.example[192.0.2.1]:25"]
        second = ["b.example[2001:db8::2]:25", "b.example[192.0.2.2]:25"]
        self.assertIn(found[:4], (first + second, second + first))
        self.assertEqual(found[4:], ["b.example[192.0.2.3]:25", "c.example[192.0.2.4]:25"])

    def test_only_so_many(self):
        self.resolver.exchangers["example.com"] = [(n, f"mx{n}.example") for n in range(100)]
        self.resolver.hosts.update({f"mx{n}.example": [f"192.0.2.{n}"] for n in range(100)})
        self.assertEqual(len(self.candidates("example.com", most=7)), 7)
        self.assertEqual(len(self.resolver.asked), 8)

    def test_configured(self):
        self.resolver.hosts["gateway.example"] = ["10.0.0.1", "192.0.2.1"]
        self.assertEqual(
            self.candidates("smtp:gateway.example:26"),
            [Candidate("gateway.example", "10.0.0.1", 26), Candidate("gateway.example", "192.0.2.1", 26)],
        )
        self.assertEqual(self.candidates("lmtp:127.0.0.1"), [Candidate("127.0.0.1", "127.0.0.1", 24)])
        self.assertEqual(self.candidates("lmtp:unix:/run/x"), [Candidate("/run/x", "/run/x", 0)])
        self.resolver.hosts["gateway.example"] = []
        self.assertRaises(HostUnreachable, self.candidates, "smtp:gateway.example")
        self.assertRaises(HostUnreachable, self.candidates, "smtp:mistyped.example")
        self.resolver.failures["gateway.example"] = NotResolved()
        self.assertRaises(NotResolved, self.candidates, "smtp:gateway.example")

    def test_named_twice(self):
        self.resolver.exchangers["example.com"] = [(20, "a.example"), (10, "a.example"), (10, "a.example")]
        self.resolver.hosts["a.example"] = ["192.0.2.1"]
        self.assertEqual(self.candidates("example.com"), [Candidate("a.example", "192.0.2.1", 25, 10)])

    def test_text(self):
        for candidate, text in (
            (Candidate("mx.example", "192.0.2.1", 25), "mx.example[192.0.2.1]:25"),
            (Candidate("192.0.2.1", "192.0.2.1", 25), "[192.0.2.1]:25"),
            (Candidate("/run/x", "/run/x", 0), "/run/x"),
        ):
            self.assertEqual(str(candidate), text)

    def test_settings(self):
        self.assertRaises(ValueError, Exchangers, self.resolver, Random(), private=["10.0.0.0/33"])
        self.assertRaises(ValueError, Exchangers, self.resolver, Random(), addresses=["mx.example"])
