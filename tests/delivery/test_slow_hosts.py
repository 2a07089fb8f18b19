"""Danger: hosts and name servers that are slow, silent or endless hold up everybody's mail."""

from __future__ import annotations

from mailplat.errors import HostUnreachable, NotResolved, TemporaryError
from mailplat.testing.scripted import HANG, Flood, Slow
from tests.delivery.city import RelayCase

#: What a host may do at any point.
ENDLESS = (HANG, Flood("250-more"), Flood("x" * 200), Slow(7200, "250 OK"))


class SlowHosts(RelayCase):
    def setUp(self):
        super().setUp()
        self.good = self.server("mx.good.example", "198.51.100.200")
        self.network.domain("good.example", "mx.good.example")

    def bad(self, number, script):
        server = self.server(f"mx.bad{number}.example", f"198.51.100.{number + 1}", script=script)
        self.network.domain(f"bad{number}.example", f"mx.bad{number}.example")
        return server

    def test_every_point(self):
        """It ends, in bounded time, with mail that waits for another attempt, and never twice."""
        for act in ENDLESS:
            for number, word in enumerate(("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".")):
                self.setUp()
                server = self.bad(number, {word: act})
                began = self.host.seconds()
                sending = self.start(f"b@bad{number}.example")
                self.sent("b@good.example")
                self.assertLess(self.host.seconds() - began, 5)
                self.network.advance(2 * 3600)
                result = []
                sending.addBoth(result.append)
                (result,) = result
                error = getattr(result, "value", None) or result[0].error
                self.assertIsInstance(error, TemporaryError, (act, word))
                self.assertLessEqual(len(server.received), 1)
                self.assertEqual(self.network.connections, 0)
                self.assertEqual(self.relay._all._total, 0)

    def test_a_drip(self):
        """Each reply within its time, and all of them together never done."""
        server = self.bad(1, {"RCPT": Slow(290, "250 OK")})
        recipients = [f"b{n}@bad1.example" for n in range(200)]
        sending = self.start(*recipients)
        self.network.advance(3700)
        outcomes = self.successResultOf(sending)
        self.assertEqual({type(outcome.error) for outcome in outcomes}, {TemporaryError})
        self.assertEqual(server.open, 0)

    def test_many_slow_destinations(self):
        """However many there are, and however much waits for them, the others go on."""
        self.settings["limits"] = {"connections": 50}
        for number in range(20):
            self.bad(number, {"MAIL": HANG})
        slow = [self.start(f"b@bad{number}.example") for number in range(20) for _ in range(20)]
        self.network.advance(5)
        for _ in range(20):
            began = self.host.seconds()
            self.sent("b@good.example")
            self.assertLess(self.host.seconds() - began, 2)
            self.network.advance(1)
        self.assertEqual(len(self.good.received), 20)
        for one in slow:
            self.assertNoResult(one)

    def test_one_host_for_many_domains(self):
        """A big, slow host takes its own connections and no more."""
        self.settings["limits"] = {"connections": 30, "per_host": 10}
        big = self.server("mx.big.example", "198.51.100.1", script={"MAIL": HANG})
        for number in range(100):
            self.network.domain(f"d{number}.example", "mx.big.example")
            self.start(f"b@d{number}.example")
        self.network.advance(5)
        self.assertEqual(big.open, 10)
        self.sent("b@good.example")

    def test_slow_names(self):
        """Who waits for a name server has no connection."""
        self.settings["limits"] = {"connections": 2, "per_hop": 3}
        for number in range(50):
            self.network.domain(f"d{number}.example", "mx.nowhere.example")
            self.network.resolver.delays[f"d{number}.example"] = 600
            self.network.resolver.failures[f"d{number}.example"] = NotResolved()
        slow = [self.start(f"b@d{number}.example") for number in range(50) for _ in range(5)]
        began = self.host.seconds()
        self.sent("b@good.example")
        self.assertLess(self.host.seconds() - began, 2)
        self.network.advance(3600)
        for one in slow:
            self.failureResultOf(one, NotResolved)

    def test_nobody_there(self):
        """Addresses that swallow everything cost their own mail half a minute each."""
        self.network.resolver.hosts["mx.gone.example"] = [f"203.0.113.{n}" for n in range(1, 9)]
        self.network.domain("gone.example", "mx.gone.example")
        slow = self.start("b@gone.example")
        self.sent("b@good.example")
        self.network.advance(5 * 30 + 1)
        self.failureResultOf(slow, HostUnreachable)
