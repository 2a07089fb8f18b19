"""mailplat's contract for stores, tried on this one."""

import os

from mailplat_eml import EmlStore
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailplat.testing.stores import MailboxStoreContract


class EmlStoreTests(MailboxStoreContract, TestCase):
    makes_accounts = makes_mailboxes = accepts_mail = keeps_flags = expunges_mail = False

    def make_store(self):
        self.root = self.new_directory()
        return EmlStore(self.root, reactor)

    def restart_store(self, stopped):
        return EmlStore(self.root, reactor)

    async def place(self, account, mailbox, bodies):
        directory = os.path.join(self.root, account, mailbox)
        os.makedirs(directory, exist_ok=True)
        for number, body in enumerate(bodies, len(os.listdir(directory))):
            with open(os.path.join(directory, f"{number:06}.eml"), "wb") as file:
                file.write(body)
