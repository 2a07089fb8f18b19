"""
The contract of a mailbox store, as tests: for our stores and for yours.

A store's test file is this:

    from twisted.trial.unittest import TestCase
    from mailplat.testing.stores import MailboxStoreContract

    class MyStoreTests(MailboxStoreContract, TestCase):
        def make_store(self):
            self.path = self.new_directory()    # a new one, removed afterwards
            return MyStore(self.path)

        def restart_store(self, stopped):       # only if mail outlives the process
            return MyStore(self.path)

Run it with trial or pytest.  What the account does not name among its `abilities` is not
tested, and the reason is shown.  A store that serves mail which comes from elsewhere
says what it does not do, and how a test gets messages into it:

        makes_accounts = makes_mailboxes = accepts_mail = False

        async def place(self, account, mailbox, bodies):
            ...

See `mailplat.testing.contract.base.StoreCase` for these, and the other modules of
`mailplat.testing.contract` for the topics, each of which can be used alone.
"""

from __future__ import annotations

from mailplat.testing.contract.abilities import (
    CommittingItems,
    CommittingTogether,
    KeepingDerived,
    ReadingMany,
    ReadingOutlines,
    Recent,
    Restart,
)
from mailplat.testing.contract.changing import Copying, Expunging, Flags, Moving
from mailplat.testing.contract.messages import Content, Rows
from mailplat.testing.contract.model import Stories
from mailplat.testing.contract.names import Accounts, Interfaces, Mailboxes
from mailplat.testing.contract.news import News

__all__ = ["MailboxStoreContract"]


class MailboxStoreContract(
    Interfaces,
    Accounts,
    Mailboxes,
    Content,
    Rows,
    Flags,
    Expunging,
    Copying,
    Moving,
    News,
    CommittingTogether,
    CommittingItems,
    ReadingMany,
    ReadingOutlines,
    KeepingDerived,
    Recent,
    Restart,
    Stories,
):
    """All topics.  Combine it with `twisted.trial.unittest.TestCase`."""
