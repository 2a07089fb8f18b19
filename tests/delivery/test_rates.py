"""How much mail one account or one peer may send in a while."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailplat.delivery.intake import Intake
from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.rates import RateLimits, Rates
from mailplat.delivery.routing import Router
from mailplat.errors import RateExceeded
from mailplat.values import Envelope, Peer
from tests.delivery.house import address, names, now, store_with

ALICE = "alice@example.test"


class RatesTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()

    def rates(self, **limits):
        return Rates(self.clock.seconds, RateLimits(**limits))

    def spend(self, rates, times, name="alice"):
        """How many of so many tries went through."""
        passed = 0
        for _ in range(times):
            try:
                rates.spend_as_account(name)
            except RateExceeded:
                continue
            passed += 1
        return passed

    def test_an_hours_worth_at_once_then_evenly(self):
        rates = self.rates(account=60)
        self.assertEqual(self.spend(rates, 100), 60)
        self.clock.advance(60)
        self.assertEqual(self.spend(rates, 100), 1)
        self.clock.advance(10 * 3600)
        self.assertEqual(self.spend(rates, 100), 60)

    def test_each_has_its_own(self):
        rates = self.rates(account=2, peer=1)
        self.assertEqual(self.spend(rates, 5), 2)
        self.assertEqual(self.spend(rates, 5, "bob"), 2)
        rates.spend_as_peer("alice")
        self.assertRaises(RateExceeded, rates.spend_as_peer, "alice")

    def test_no_limit(self):
        self.assertEqual(self.spend(self.rates(account=0), 5000), 5000)

    def test_limit_remembered(self):
        rates = self.rates(account=1, remembered=2)
        for name in ("a", "b", "c"):
            self.assertEqual(self.spend(rates, 2, name), 1)
        self.assertEqual(self.spend(rates, 1, "c"), 0)
        self.assertEqual(self.spend(rates, 1, "a"), 1)

    def test_a_clock_that_goes_back(self):
        rates = self.rates(account=1)
        self.assertEqual(self.spend(rates, 2), 1)
        self.clock.rightNow = -7200
        self.assertEqual(self.spend(rates, 2), 0)
        self.clock.rightNow = 0
        self.assertEqual(self.spend(rates, 2), 1)


class IntakeTests(SynchronousTestCase):
    def receiver(self, host, account):
        clock = Clock()
        store = now(store_with(ALICE))
        rates = Rates(clock.seconds, RateLimits(account=1, peer=2))
        intake = Intake(
            Router(names(), store), LocalDelivery(store, clock), "mx.example.test", clock, rates=rates
        )
        return intake(replace(Peer("smtp", "", 0), host=host), account)

    def accepted(self, host, account=None):
        receiver = self.receiver(host, account)
        for count in range(4):
            try:
                now(receiver.recipient(Envelope(None), address(ALICE)))
            except RateExceeded:
                return count
        return 4

    def test_peers_and_accounts(self):
        self.assertEqual(self.accepted("192.0.2.1"), 2)
        self.assertEqual(self.accepted("127.0.0.1"), 4)
        self.assertEqual(self.accepted("192.0.2.1", ALICE), 1)
        self.assertEqual(self.accepted("127.0.0.1", ALICE), 1)
