"""
Finding parts by name: `sqlite:/var/mail` becomes a store, `pipe:/usr/bin/procmail` an agent.

A factory is found in two places: among the entry points of group `mailplat.stores` or
`mailplat.agents`, and among the plugins of `twisted.plugin` (one file in a `twisted/plugins`
directory).  Our own come by the second road, as a stranger's may.  Only what is asked for by
name is loaded from an entry point, and what is loaded is checked before it is used.

Checkers for logging in have a road of their own: `twisted.cred.strcred`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

from twisted.cred import strcred
from twisted.plugin import IPlugin, getPlugins
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

import twisted.plugins
from mailplat.errors import ConfigurationError, MailError, PluginError
from mailplat.interfaces import IAgentFactory, IDeliveryAgent, IMailStore, IStoreFactory, StoreContext


@dataclass(frozen=True, slots=True)
class Kind:
    """
    A kind of part that a line of configuration can name.

    Attributes:
        word: as it is called in messages and lists.
        group: of entry points.
        factory, product: what is found by name, and what that makes.
    """

    word: str
    group: str
    factory: Any
    product: Any


STORE = Kind("store", "mailplat.stores", IStoreFactory, IMailStore)
AGENT = Kind("agent", "mailplat.agents", IAgentFactory, IDeliveryAgent)
KINDS = {kind.word: kind for kind in (STORE, AGENT)}


@dataclass(frozen=True, slots=True)
class Part:
    """
    A part that could be used, as `mailplat plugins` lists it.

    Attributes:
        kind: "store", "agent" or "checker".
        source: the distribution it comes from, with its version.
        load: gives the factory; raises anything that a stranger's code may.
    """

    kind: str
    name: str
    source: str
    load: Callable[[], Any]


def stores() -> list[Part]:
    """All store factories there are, by name; those of entry points are not loaded."""
    return _parts(STORE)


def agents() -> list[Part]:
    """The same for factories of delivery agents."""
    return _parts(AGENT)


def _parts(kind: Kind) -> list[Part]:
    found = [
        Part(kind.word, entry.name, _version(entry.dist) if entry.dist else "an unknown package", entry.load)
        for entry in metadata.entry_points(group=kind.group)
    ]
    for plugin in _dropped_in(kind.factory):
        found.append(Part(kind.word, plugin.name, _source(plugin), partial(_given, plugin)))
    return sorted(found, key=lambda part: part.name)


def checkers() -> list[Part]:
    """All factories of cred checkers that `--auth` knows, by name."""
    found = [
        Part("checker", plugin.authType, _source(plugin), partial(_given, plugin))
        for plugin in strcred.findCheckerFactories()
    ]
    return sorted(found, key=lambda part: part.name)


def make_store(spec: str, context: StoreContext, parts: Iterable[Part] | None = None) -> Any:
    """
    Args:
        spec: `name` or `name:argument`.
        parts: where to look; None for `stores()`.

    Returns:
        an IMailStore, not started.

    Raises:
        ConfigurationError: there is no such store, or it cannot use its argument.
        PluginError: there is one, and it cannot be used.
    """
    return _made(STORE, spec, context, stores() if parts is None else parts)


def make_agent(spec: str, context: StoreContext, parts: Iterable[Part] | None = None) -> Any:
    """As `make_store`, for an IDeliveryAgent."""
    return _made(AGENT, spec, context, agents() if parts is None else parts)


def _made(kind: Kind, spec: str, context: StoreContext, parts: Iterable[Part]) -> Any:
    name, _, argument = spec.partition(":")
    parts = list(parts)
    found = [part for part in parts if part.name == name]
    if not found:
        known = ", ".join(dict.fromkeys(part.name for part in parts)) or "none at all"
        raise ConfigurationError(f"there is no {kind.word} called {name}; known are {known}")
    if len(found) > 1:
        sources = " and ".join(part.source for part in found)
        raise PluginError(f"the {kind.word} {name} comes from {sources}: uninstall all but one")
    part = found[0]
    factory = _loaded(part)
    try:
        product = factory.generate(argument, context)
    except MailError:
        raise
    except Exception as error:
        raise PluginError(f"the {kind.word} {name} of {part.source} failed: {_told(error)}") from error
    _verify(kind.product, product, f"what the {kind.word} {name} of {part.source} makes")
    return product


def _loaded(part: Part) -> Any:
    """The factory of a part, checked."""
    try:
        factory = part.load()
        if isinstance(factory, type):
            factory = factory()
    except Exception as error:
        raise PluginError(
            f"the {part.kind} {part.name} of {part.source} cannot be loaded: {_told(error)}"
        ) from error
    _verify(KINDS[part.kind].factory, factory, f"the {part.kind} {part.name} of {part.source}")
    return factory


def about(part: Part) -> str:
    """
    The help text of a part, which is loaded for it.

    Raises:
        PluginError: it cannot be.
    """
    if part.kind in KINDS:
        return str(_loaded(part).help)
    # strcred's factories have long help, in paragraphs.
    text: str = part.load().authHelp
    return " ".join(text.strip().partition("\n\n")[0].split())


def _given(plugin: Any) -> Any:
    return plugin


def _verify(interface: Any, thing: Any, what: str) -> None:
    try:
        verifyObject(interface, thing)
    except Invalid as error:
        raise PluginError(f"{what} is not an {interface.__name__}: {' '.join(str(error).split())}") from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _dropped_in(interface: Any) -> Iterable[Any]:
    # Logs a drop-in that cannot be imported and goes on without it.
    return getPlugins(interface, twisted.plugins)


def _version(distribution: metadata.Distribution) -> str:
    return f"{distribution.metadata['Name']} {distribution.version}"


def _source(plugin: Any) -> str:
    """The distribution that a plugin's class comes from, as well as that can be known."""
    module = type(plugin).__module__
    package = module.partition(".")[0]
    if module.startswith("twisted.plugins."):
        # The file stands in Twisted's name space; whose it is, its distribution's record knows.
        file = module.replace(".", "/") + ".py"
        for distribution in metadata.distributions():
            if any(str(path) == file for path in distribution.files or ()):
                return _version(distribution)
        return getattr(sys.modules.get(module), "__file__", None) or module
    names = metadata.packages_distributions().get(package, ())
    for name in names:
        return _version(metadata.distribution(name))
    return package


# Our own


@implementer(IPlugin, IStoreFactory)
class MemoryStoreFactory:
    """Found by the name `memory`."""

    name = "memory"
    help = "Keeps everything in memory, until the server stops.  No argument."

    def generate(self, argument: str, context: StoreContext) -> Any:
        from mailplat.storage.memory import MemoryStore

        if argument:
            raise ConfigurationError("the store memory takes no argument")
        return MemoryStore()


@implementer(IPlugin, IStoreFactory)
class SQLiteStoreFactory:
    """Found by the name `sqlite`."""

    name = "sqlite"
    help = (
        "An SQLite index and files of messages in one directory.  The argument is the directory, "
        "by default `mail` in the data directory."
    )

    def generate(self, argument: str, context: StoreContext) -> Any:
        from mailplat.storage.sqlite import SQLiteStore

        # os.path.join leaves an absolute path as it is.
        return SQLiteStore(os.path.join(context.directory, argument or "mail"), context.reactor)
