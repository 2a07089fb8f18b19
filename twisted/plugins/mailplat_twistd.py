"""`twistd mailplat`.  Nothing is imported here but what names the command: every twistd reads it."""

from twisted.application.service import ServiceMaker

mailplat = ServiceMaker(
    "mailplat",
    "mailplat.tap",
    "A mail server: SMTP, submission, LMTP, IMAP and POP3.",
    "mailplat",
)
