"""Threads for blocking libraries: order by key, errors, and a bound."""

import threading

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from mailplat.errors import TooBusy
from mailplat.storage.threads import Threads


class ThreadsTests(TestCase):
    def threads(self, **arguments):
        threads = Threads(reactor, **arguments)
        threads.start()
        self.addCleanup(threads.stop)
        return threads

    async def test_one_key_keeps_its_order(self):
        threads, seen = self.threads(threads=4), []
        await gatherResults([threads.run("a", seen.append, number) for number in range(200)])
        self.assertEqual(seen, list(range(200)))

    async def test_keys_run_side_by_side(self):
        threads, meeting = self.threads(threads=2), threading.Barrier(2, timeout=10)
        await gatherResults([threads.run("a", meeting.wait), threads.run("b", meeting.wait)])

    async def test_errors_pass_and_the_next_call_runs(self):
        threads = self.threads()
        with self.assertRaises(ZeroDivisionError):
            await threads.run("a", lambda: 1 / 0)
        self.assertEqual(await threads.run("a", divmod, 7, 2), (3, 1))

    async def test_bound(self):
        threads, gate = self.threads(threads=1, waiting=2), threading.Event()
        first, second = threads.run("a", gate.wait, 10), threads.run(None, int, "2")
        with self.assertRaises(TooBusy):
            await threads.run("a", int)
        gate.set()
        self.assertEqual((await first, await second), (True, 2))
