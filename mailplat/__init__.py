"""
mailplat: a plugin mail platform on Twisted.

SMTP, submission, LMTP, IMAP and POP3 are protocol factories that decide nothing
themselves: who a client is comes from a `twisted.cred` portal, and where mail is kept,
how people log in and how a message is delivered are objects behind the interfaces in
`mailplat.interfaces`.
"""

__version__ = "0.1.0.dev0"
