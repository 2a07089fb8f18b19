"""
Threads for a library that blocks, with an awaitable face.

A store over a blocking library calls `await threads.run(key, function, ...)`.  Calls with the same key
(an account, a mailbox) run one after the other in the order they were made; calls with different
keys run side by side, as far as there are threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mailplat.errors import TooBusy

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """
    A pool of its own: work that blocks elsewhere does not hold it up, nor the other way round.

    Args:
        reactor: provides IReactorFromThreads.
        threads: how many calls run at one time, at most.
        waiting: how many calls may wait for a thread or for their turn.
    """

    def __init__(self, reactor: Any, threads: int = 4, waiting: int = 10_000, name: str = "storage") -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, threads, name)
        self._most = waiting
        self._count = 0
        self._queues: dict[object, deque[Callable[[], None]]] = {}

    def start(self) -> None:
        """Accept calls.  May follow `stop`."""
        self._pool.start()

    def stop(self) -> None:
        """Wait, blocking, until the calls under way are done, and end the threads."""
        self._pool.stop()

    def run(self, key: object, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """
        Call `function` in a thread.

        Args:
            key: calls with equal keys keep their order; None has no order.

        Returns:
            what `function` returns or raises.

        Raises:
            TooBusy: too many calls are waiting.
        """
        result: Deferred[T] = Deferred()
        if self._count >= self._most:
            result.errback(TooBusy())
            return result
        self._count += 1

        def call() -> None:
            deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs).addBoth(done)

        def done(outcome: object) -> None:
            self._count -= 1
            if key is not None:
                queue = self._queues[key]
                queue.popleft()
                if queue:
                    queue[0]()
                else:
                    del self._queues[key]
            if isinstance(outcome, Failure):
                result.errback(outcome)
            else:
                result.callback(outcome)  # type: ignore[arg-type]  # addBoth forgets what T was

        if key is None:
            call()
        else:
            queue = self._queues.setdefault(key, deque())
            queue.append(call)
            if len(queue) == 1:
                call()
        return result
