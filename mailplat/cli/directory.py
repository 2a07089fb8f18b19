"""
What commands need that work on a data directory: its words, its store, its owner.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from mailplat.auth.accounts import AccountFile
from mailplat.auth.names import Names
from mailplat.config import load
from mailplat.datadir import DataDirectory
from mailplat.delivery.routing import Router
from mailplat.errors import DataDirectoryError
from mailplat.interfaces import IQueueStore, StoreContext
from mailplat.plugins import make_store
from mailplat.service import make_router
from mailplat.settings import Settings
from mailplat.storage.sqlite import SQLiteStore


def add_words(parser: argparse.ArgumentParser) -> None:
    """--data and what goes with it."""
    parser.add_argument("--data", metavar="DIR", help="the data directory  [default: ./mailplat-data]")
    parser.add_argument("--config", metavar="FILE", help="the server's configuration file, if it has one")
    parser.add_argument(
        "--store", metavar="SPEC", help="the server's store, if it is not in the data directory"
    )


class Directory:
    """
    The data directory that a command's words name.

    Args:
        words: with `data`, `config` and `store`.
        make: make it if it is missing.

    Attributes:
        accounts: the account file.  A name without a domain is in the domain that all others
            are in, if there is just one.
        naming: knows the domains: those of the configuration, or without one those of the
            accounts.

    Raises:
        ConfigurationError, DataDirectoryError.
    """

    def __init__(self, words: argparse.Namespace, make: bool = False) -> None:
        self.settings: Settings = load(words.config, {"data": words.data, "store": words.store})
        self._directory = DataDirectory(self.settings.data)
        if not make and not os.path.isdir(self.settings.data):
            raise DataDirectoryError(f"{self.settings.data} does not exist")
        self._become_owner()
        self._directory.prepare()
        self.accounts = AccountFile(self._directory.accounts)
        domains = self.settings.domains if words.config else self._domains_in_use()
        self.accounts.naming = Names(domains)
        self.naming = Names(domains or self.settings.domains)

    @property
    def transcripts(self) -> str:
        """The directory of the transcripts; need not be there."""
        return self._directory.transcripts

    def _domains_in_use(self) -> set[str]:
        return {name.rpartition("@")[2] for name in self.accounts.names()}

    def _become_owner(self) -> None:
        # Files that root makes here could not be used by a server that runs as somebody else.
        if os.geteuid() == 0 and os.path.isdir(self.settings.data):
            owner = os.stat(self.settings.data)
            if owner.st_uid != 0:
                os.setgroups([])
                os.setegid(owner.st_gid)
                os.seteuid(owner.st_uid)

    def router(self, store: Any) -> Router:
        """What says where recipients are, as the server's own does; `store` is started."""
        from twisted.internet import reactor

        return make_router(self.settings, self.naming, store, self._directory, reactor)

    def with_queue(self, act: Callable[[Any, IQueueStore], Awaitable[Any]]) -> Any:
        """As `with_store`, for `act(store, queue)`: what waits stands in the store, or beside it."""
        from twisted.internet import reactor

        async def both(store: Any) -> Any:
            if getattr(store, "queue", None) is not None:
                return await act(store, store.queue)
            beside = SQLiteStore(self._directory.queue, reactor)
            await beside.start()
            try:
                return await act(store, beside.queue)
            finally:
                await beside.stop()

        return self.with_store(both)

    def with_store(self, act: Callable[[Any], Awaitable[Any]]) -> Any:
        """
        Start the store, await `act(store)`, and stop the store again.

        Returns:
            what `act` answers.

        Raises:
            what goes wrong in it.
        """
        results: list[Any] = []

        async def run(reactor: Any) -> None:
            try:
                store = make_store(self.settings.store, StoreContext(reactor, self.settings.data))
                await store.start()
                try:
                    results.append(await act(store))
                finally:
                    await store.stop()
            except Exception as error:
                results.append(error)

        # react always ends with SystemExit; its own status says nothing that we don't know.
        with suppress(SystemExit):
            react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
        if not results:
            raise KeyboardInterrupt
        if isinstance(results[-1], Exception):
            raise results[-1]
        return results[-1]
