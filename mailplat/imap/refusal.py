"""
How a command ends that does not end with OK.

A command raises `Refused` to be answered with BAD, or with NO and a code of its own; a word of
`mailplat.errors` is answered with NO and the code that `code_of` has for it; `GiveUp` ends the
connection.
"""

from __future__ import annotations

from mailplat import errors

#: Word -> response code (RFC 5530, RFC 7889 §4); the first class that fits counts.
CODES: tuple[tuple[type[errors.MailError], bytes], ...] = (
    (errors.LoginFailed, b"AUTHENTICATIONFAILED"),
    (errors.PrivacyRequired, b"PRIVACYREQUIRED"),
    (errors.NoSuchMailbox, b"NONEXISTENT"),
    (errors.MailboxExists, b"ALREADYEXISTS"),
    (errors.OverQuota, b"OVERQUOTA"),
    (errors.MessageTooLarge, b"TOOBIG"),
    (errors.LimitExceeded, b"LIMIT"),
    (errors.NotPermitted, b"NOPERM"),
    (errors.InvalidName, b"CANNOT"),
    (errors.CannotDo, b"CANNOT"),
    (errors.NoSuchMechanism, b"CANNOT"),
    (errors.InUse, b"INUSE"),
    (errors.TemporaryError, b"UNAVAILABLE"),
)


def code_of(error: errors.MailError) -> bytes:
    """The response code for a word; empty if it has none."""
    for kind, code in CODES:
        if isinstance(error, kind):
            return code
    return b""


class Refused(Exception):
    """
    Args:
        text: for the client.
        code: response code without brackets; None makes the answer a BAD.
    """

    def __init__(self, text: str, code: bytes | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class GiveUp(Exception):
    """
    The connection cannot go on.

    Args:
        text: for BYE; empty where no BYE can be said, because the client would take it for the
            rest of a literal.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.text = text
