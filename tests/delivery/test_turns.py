"""Turns, pace and pool: what bounds the relay's connections."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailplat.delivery.pace import Pace
from mailplat.delivery.pool import Pool
from mailplat.delivery.turns import Turns


class TurnsTests(SynchronousTestCase):
    def setUp(self):
        self.running = []

    def enter(self, turns, *keys):
        turns_ = []
        for key in keys:
            turn = turns.enter(key)
            turn.addCallback(lambda _, key=key: self.running.append(key))
            turns_.append(turn)
        return turns_

    def test_each(self):
        turns = Turns(lambda key: 2)
        self.enter(turns, *"aaab")
        self.assertEqual(self.running, ["a", "a", "b"])
        self.assertEqual((turns.taken("a"), turns.taken("b"), turns.taken("c")), (2, 1, 0))
        turns.leave("b")
        self.assertEqual(len(self.running), 3)
        turns.leave("a")
        self.assertEqual(self.running, ["a", "a", "b", "a"])

    def test_all(self):
        turns = Turns(lambda key: 10, 3)
        self.enter(turns, *"abcd")
        self.assertEqual(self.running, ["a", "b", "c"])
        turns.leave("b")
        self.assertEqual(self.running, ["a", "b", "c", "d"])

    def test_some_are_left_for_others(self):
        turns = Turns(lambda key: 100, 8)
        self.enter(turns, *"aaaaaaaaaa")
        self.assertEqual(self.running, ["a", "a"])
        self.enter(turns, *"bbbb")
        self.assertEqual(self.running[2:], ["b"])
        self.enter(turns, *"cdefg")
        self.assertEqual(self.running[3:], ["c", "d", "e", "f", "g"])
        self.enter(turns, "h")
        turns.leave("c")
        self.assertEqual(self.running[8:], ["h"])

    def test_who_has_least_goes_first(self):
        turns = Turns(lambda key: 4, 4)
        self.enter(turns, *"abcd")
        self.enter(turns, *"ae")
        turns.leave("b")
        self.assertEqual(self.running[4:], ["e"])
        turns.leave("a")
        self.assertEqual(self.running[5:], ["a"])

    def test_in_the_order_of_coming(self):
        turns = Turns(lambda key: 1)
        order = []
        for number in range(5):
            turns.enter("a").addCallback(lambda _, number=number: order.append(number))
        for _ in range(4):
            turns.leave("a")
        self.assertEqual(order, [0, 1, 2, 3, 4])

    def test_keys_in_turn(self):
        turns = Turns(lambda key: 1, 1)
        self.enter(turns, *"aabbcc")
        while len(self.running) < 6:
            turns.leave(self.running[-1])
        self.assertEqual("".join(self.running), "aabcbc")

    def test_any_number_that_end_at_once(self):
        turns = Turns(lambda key: 1)
        ended = []

        def begin(_):
            ended.append(1)
            turns.leave("a")

        turns.enter("a")
        for _ in range(10_000):
            turns.enter("a").addCallback(begin)
        turns.leave("a")
        self.assertEqual(len(ended), 10_000)

    @given(st.integers(1, 4), st.integers(1, 9), st.lists(st.sampled_from("abcd+"), max_size=60))
    def test_whatever_comes(self, each, most, steps):
        """No bound is passed, nobody is forgotten, and nothing is left in the end."""
        turns, running, begun = Turns(lambda key: each, most), [], []

        def begin(_, key):
            running.append(key)
            begun.append(key)
            self.assertLessEqual(len(running), most)
            self.assertLessEqual(running.count(key), each)

        for step in steps:
            if step != "+":
                turns.enter(step).addCallback(begin, step)
            elif running:
                turns.leave(running.pop(0))
        while running:
            turns.leave(running.pop())
        self.assertEqual(sorted(begun), sorted(step for step in steps if step != "+"))
        self.assertEqual((turns._total, dict(turns._taken), turns._waiting), (0, {}, {}))

    def test_given_up(self):
        turns = Turns(lambda key: 1)
        _, second, third = self.enter(turns, *"aaa")
        second.cancel()
        self.failureResultOf(second, CancelledError)
        turns.leave("a")
        self.assertEqual(self.running, ["a", "a"])
        turns.leave("a")
        self.assertEqual((turns.taken("a"), dict(turns._waiting), turns._total), (0, {}, 0))

    def test_more_is_allowed(self):
        allowed = 1
        turns = Turns(lambda key: allowed)
        self.enter(turns, *"aaa")
        allowed = 2
        turns.look()
        self.assertEqual(self.running, ["a", "a"])


class PaceTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.pace = Pace(self.clock, 8, 60, 3)

    def test_less_and_more(self):
        self.assertEqual(self.pace.allowed("a"), 8)
        for allowed in (4, 2, 1, 1):
            self.pace.pushed_back("a")
            self.assertEqual(self.pace.allowed("a"), allowed)
        grew = [self.pace.went_well("a") for _ in range(28)]
        self.assertEqual((self.pace.allowed("a"), sum(grew)), (8, 7))
        self.assertFalse(self.pace.went_well("a"))
        self.pace.limit("a", 5)
        self.pace.limit("a", 7)
        self.assertEqual(self.pace.allowed("a"), 5)

    def test_rest(self):
        self.assertEqual(self.pace.resting("a"), "")
        self.pace.failed("a", "refused")
        self.assertEqual(self.pace.resting("a"), "refused")
        self.clock.advance(61)
        self.assertEqual(self.pace.resting("a"), "")
        self.pace.failed("a", "refused")
        self.pace.went_well("a")
        self.assertEqual(self.pace.resting("a"), "")

    def test_forgotten(self):
        for host in "abcd":
            self.pace.failed(host, "refused")
        self.assertEqual([self.pace.resting(host) for host in "abcd"], ["", "refused", "refused", "refused"])


class Thing:
    usable = True

    def __init__(self):
        self.quitted = 0

    def quit(self):
        self.quitted += 1
        return succeed(None)


class PoolTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()

    def pool(self, seconds=5, most=3):
        return Pool(self.clock, seconds, most, lambda key: key[0])

    def test_taken_again(self):
        pool, one, two = self.pool(), Thing(), Thing()
        pool.put("ax", one)
        pool.put("ax", two)
        self.assertEqual((pool.count("a"), len(pool)), (2, 2))
        self.assertIsNone(pool.take("ay"))
        self.assertIs(pool.take("ax"), two)
        self.assertIs(pool.take("ax"), one)
        self.assertIsNone(pool.take("ax"))
        self.assertEqual((pool.count("a"), self.clock.getDelayedCalls()), (0, []))

    def test_closed_in_time(self):
        pool, one = self.pool(), Thing()
        pool.put("ax", one)
        self.clock.advance(6)
        self.assertEqual((one.quitted, len(pool), pool.count("a")), (1, 0, 0))

    def test_not_usable(self):
        pool, one, two = self.pool(), Thing(), Thing()
        one.usable = False
        pool.put("ax", one)
        pool.put("ax", two)
        two.usable = False
        self.assertIsNone(pool.take("ax"))
        self.assertEqual((one.quitted, two.quitted), (1, 1))

    def test_only_so_many(self):
        pool, things = self.pool(), [Thing() for _ in range(5)]
        for thing in things:
            pool.put("ax", thing)
        self.assertEqual([thing.quitted for thing in things], [1, 1, 0, 0, 0])
        pool.close_one("b")
        pool.close_one("a")
        self.assertEqual([thing.quitted for thing in things], [1, 1, 1, 0, 0])
        pool.close()
        self.assertEqual([thing.quitted for thing in things], [1] * 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_is_kept(self):
        for pool in (self.pool(seconds=0), self.pool(most=0)):
            one = Thing()
            pool.put("ax", one)
            self.assertEqual((one.quitted, len(pool)), (1, 0))
