"""Guessers are slowed down; owners are not kept out; memory is bounded."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailplat.auth.guessers import Guessers, GuessLimits, network
from mailplat.errors import LoginUnavailable

LIMITS = GuessLimits(
    free=2,
    first_delay=1.0,
    longest_delay=8.0,
    longest_wait=20.0,
    forgiven_after=60.0,
    most_waiting=3,
    most_at_once=4,
    most_remembered=5,
)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.guessers = Guessers(self.clock, LIMITS)

    def begin(self, host: str = "192.0.2.1", account: str = "alice") -> Deferred[tuple[str, str]]:
        return Deferred.fromCoroutine(self.guessers.begin(host, account))

    def fail(self, host: str = "192.0.2.1", account: str = "alice") -> None:
        """A wrong guess, however long its turn takes."""
        begun = self.begin(host, account)
        self.clock.advance(LIMITS.longest_wait)
        self.guessers.end(self.successResultOf(begun), False, host, account)

    def delay(self, host: str = "192.0.2.1", account: str = "alice") -> float:
        """Seconds until a try may begin; it is then given up without a result."""
        begun = self.begin(host, account)
        waited = 0.0
        while not begun.called:
            self.clock.advance(0.25)
            waited += 0.25
        self.guessers.end(self.successResultOf(begun), None, host, account)
        return waited


class Delays(Case):
    def test_free(self) -> None:
        for _ in range(LIMITS.free):
            self.assertEqual(self.delay(), 0)
            self.guessers.end(self.successResultOf(self.begin()), False, "192.0.2.1", "alice")
        self.assertEqual(self.delay(), 1.0)

    def test_growing_up_to_a_bound(self) -> None:
        waited = []
        for number in range(8):
            begun = self.begin()
            start = self.clock.seconds()
            while not begun.called:
                self.clock.advance(0.25)
            waited.append(self.clock.seconds() - start)
            self.guessers.end(self.successResultOf(begun), False, "192.0.2.1", f"user{number}")
        self.assertEqual(waited, [0, 0, 1, 2, 4, 8, 8, 8])

    def test_taking_turns(self) -> None:
        """Many at once gain nothing: each waits for the one before."""
        for _ in range(LIMITS.free):
            self.fail()
        begun = [self.begin() for _ in range(3)]
        for number in range(3):
            self.assertEqual(sum(one.called for one in begun), number)
            self.clock.advance(1)
        self.assertEqual(sum(one.called for one in begun), 3)

    def test_too_long_to_wait(self) -> None:
        limits = GuessLimits(free=0, first_delay=8.0, longest_delay=8.0, longest_wait=20.0)
        self.guessers = Guessers(self.clock, limits)
        self.fail()
        first, second, third = self.begin(), self.begin(), self.begin()
        self.failureResultOf(third, LoginUnavailable)
        self.clock.advance(16)
        self.assertTrue(first.called and second.called)
        # Those that were refused did not push the queue back.
        self.assertNoResult(self.begin())

    def test_forgiven(self) -> None:
        for _ in range(5):
            self.fail()
        self.assertEqual(self.delay(), 8.0)
        self.clock.advance(60)
        self.assertEqual(self.delay(), 4.0)
        self.clock.advance(300)
        self.assertEqual(self.delay(), 0)
        self.assertEqual(self.guessers.remembered, 0)

    def test_not_found_out_is_no_failure(self) -> None:
        for _ in range(10):
            self.guessers.end(self.successResultOf(self.begin()), None, "192.0.2.1", "alice")
        self.assertEqual(self.delay(), 0)

    def test_success_does_not_forgive(self) -> None:
        """Or a guesser with an account would guess as fast as he can log in."""
        for _ in range(4):
            self.fail()
        begun = self.begin("192.0.2.1", "mallory")
        self.clock.advance(20)
        self.guessers.end(self.successResultOf(begun), True, "192.0.2.1", "mallory")
        self.assertGreater(self.delay("192.0.2.1", "alice"), 0)

    def test_clock_that_jumps_back(self) -> None:
        for _ in range(4):
            self.fail()
        self.clock.rightNow -= 100_000
        self.assertLessEqual(self.delay(), LIMITS.longest_wait)


class Owners(Case):
    def test_from_elsewhere(self) -> None:
        for _ in range(10):
            self.fail("192.0.2.1")
        self.assertEqual(self.delay("198.51.100.7"), 0)

    def test_at_home(self) -> None:
        """Who logged in from here before does not wait for the guesser next door."""
        self.guessers.end(self.successResultOf(self.begin()), True, "192.0.2.1", "alice")
        for _ in range(10):
            self.fail("192.0.2.1", "bob")
        self.assertEqual(self.delay("192.0.2.1", "alice"), 0)
        self.assertGreater(self.delay("192.0.2.1", "bob"), 0)

    def test_guessing_at_somebody_at_home(self) -> None:
        self.guessers.end(self.successResultOf(self.begin()), True, "192.0.2.1", "alice")
        for _ in range(6):
            self.fail("192.0.2.1", "alice")
        self.assertEqual(self.delay("192.0.2.1", "alice"), 8.0)


class OnLoopback(Case):
    """Webmail, a proxy or a script: one address, and many people behind it."""

    def test_only_the_account_that_is_guessed_at_is_slowed_down(self) -> None:
        for host in ("127.0.0.1", "::1", ""):
            for _ in range(10):
                self.fail(host, "mallory")
            self.assertEqual(self.delay(host, "mallory"), 8.0)
            # Also somebody who was never here, as everybody after a restart.
            self.assertEqual(self.delay(host, "alice"), 0)

    def test_not_from_elsewhere(self) -> None:
        for _ in range(10):
            self.fail("127.0.0.1", "alice")
        self.assertEqual(self.delay("192.0.2.1", "alice"), 0)


class Networks(Case):
    def test_of_an_address(self) -> None:
        for host, counted in (
            ("192.0.2.1", "192.0.2.1"),
            ("", ""),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("::1", "::1"),
            ("not:an:address", "not:an:address"),
        ):
            self.assertEqual(network(host), counted)

    def test_one_customer(self) -> None:
        for number in range(6):
            self.fail(f"2001:db8::{number:x}")
        self.assertGreater(self.delay("2001:db8::ffff"), 0)
        self.assertEqual(self.delay("2001:db8:0:1::1"), 0)


class Bounds(Case):
    def test_most_at_once(self) -> None:
        keys = [self.successResultOf(self.begin()) for _ in range(LIMITS.most_at_once)]
        self.failureResultOf(self.begin(), LoginUnavailable)
        self.successResultOf(self.begin("198.51.100.7"))
        self.guessers.end(keys[0], None, "192.0.2.1", "alice")
        self.successResultOf(self.begin())

    def test_most_waiting(self) -> None:
        hosts = [f"192.0.2.{number}" for number in range(1, 5)]
        for host in hosts:
            for _ in range(LIMITS.free):
                self.guessers.end(self.successResultOf(self.begin(host)), False, host, "alice")
        waiting = [self.begin(host) for host in hosts[:3]]
        self.failureResultOf(self.begin(hosts[3]), LoginUnavailable)
        for one in waiting:
            self.assertNoResult(one)

    def test_most_remembered(self) -> None:
        for number in range(50):
            host = f"192.0.2.{number}"
            self.guessers.end(self.successResultOf(self.begin(host)), False, host, "alice")
            self.guessers.end(self.successResultOf(self.begin(host)), True, host, "bob")
        self.assertLessEqual(self.guessers.remembered, 2 * LIMITS.most_remembered)
        self.assertEqual(self.delay("192.0.2.49"), 0)

    def test_cancelled(self) -> None:
        for _ in range(LIMITS.free):
            self.fail()
        for _ in range(LIMITS.most_waiting * 3):
            begun = self.begin()
            begun.cancel()
            self.failureResultOf(begun, CancelledError)
            self.clock.advance(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.delay(), 1.0)

    def test_defaults(self) -> None:
        """An hour of guessing from one address is less than 300 tries, and a typist never notices."""
        guessers = Guessers(self.clock)
        self.guessers = guessers
        tries = 0
        while self.clock.seconds() < 3600:
            begun = self.begin()
            while not begun.called:
                self.clock.advance(0.5)
            guessers.end(self.successResultOf(begun), False, "192.0.2.1", "alice")
            tries += 1
        self.assertLess(tries, 300)
        self.assertGreaterEqual(GuessLimits().free, 3)
