"""
A mail server as a .tac file, for settings that are easier said in Python:

    twistd -ny examples/run.tac
"""

import os

from twisted.application.service import Application
from twisted.internet import reactor

from mailplat.config import load
from mailplat.service import MailService

settings = load(
    words={
        "data": os.environ.get("MAILPLAT_DATA", "mailplat-data"),
        "domain": ["example.test"],
        "imap": [os.environ.get("MAILPLAT_IMAP", "tcp:2143:interface=127.0.0.1")],
        "smtp": [os.environ.get("MAILPLAT_SMTP", "tcp:2525:interface=127.0.0.1")],
        # Accounts and passwords from anywhere that twisted.cred can reach.
        "auth": ["memory:alice:secret:bob:secret"],
    }
)

application = Application("mail")
MailService(settings, reactor).setServiceParent(application)
