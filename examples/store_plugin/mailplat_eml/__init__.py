"""How mailplat finds and makes the store."""

from __future__ import annotations

import os

from zope.interface import implementer

from mailplat.errors import ConfigurationError
from mailplat.interfaces import IStoreFactory, StoreContext
from mailplat_eml.store import EmlStore

__all__ = ["EmlStore", "EmlStoreFactory"]


@implementer(IStoreFactory)
class EmlStoreFactory:
    """Found through the entry point in setup.cfg."""

    name = "eml"
    help = "Serves DIR/account/mailbox/*.eml, read-only.  The argument is DIR."

    def generate(self, argument: str, context: StoreContext) -> EmlStore:
        if not argument:
            raise ConfigurationError("the store eml needs a directory, as in eml:/srv/mail")
        directory = os.path.join(context.directory, argument)
        if not os.path.isdir(directory):
            raise ConfigurationError(f"the store eml finds no directory {directory}")
        return EmlStore(directory, context.reactor)
