"""
Threads for what costs milliseconds of pure arithmetic, such as hashing a password.

Apart from the reactor's own pool, so that logins and stores don't wait for each other.  A
thread lives as long as there is something to do: there is nothing to start and stop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from mailplat.errors import LoginUnavailable

P = ParamSpec("P")
T = TypeVar("T")

Job = tuple[Deferred[Any], Callable[[], Any]]


class Hashing:
    """
    A few threads and a bounded queue before them.

    Args:
        reactor: gets the results.
        threads: how many work at once.
        most_waiting: jobs that may wait for a thread.
    """

    def __init__(self, reactor: IReactorFromThreads, threads: int = 2, most_waiting: int = 128) -> None:
        self._reactor = reactor
        self._threads = threads
        self._most_waiting = most_waiting
        self._lock = Lock()
        self._waiting: deque[Job] = deque()
        self._running = 0

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """
        Call `function` in a thread, after those that wait already.

        Cancelled while it waits, it is never called.

        Raises (as the Deferred's failure):
            LoginUnavailable: too many wait.
        """
        result: Deferred[T] = Deferred(self._forget)
        with self._lock:
            if len(self._waiting) >= self._most_waiting:
                result.errback(LoginUnavailable("Too many logins at once, please try again later"))
                return result
            self._waiting.append((result, lambda: function(*args, **kwargs)))
            start = self._running < self._threads
            self._running += start
        if start:
            Thread(target=self._work, name="mailplat-hashing", daemon=True).start()
        return result

    def _forget(self, result: Deferred[Any]) -> None:
        with self._lock:
            self._waiting = deque(job for job in self._waiting if job[0] is not result)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                result, call = self._waiting.popleft()
            try:
                value = call()
            except Exception as error:
                self._reactor.callFromThread(_fire, result, result.errback, error)
            else:
                self._reactor.callFromThread(_fire, result, result.callback, value)


def _fire(result: Deferred[Any], fire: Callable[[Any], None], value: Any) -> None:
    # Somebody who cancelled a running job has their answer already.
    if not result.called:
        fire(value)
