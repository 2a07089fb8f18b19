"""
What SMTP and LMTP servers say: fixed replies, and the table from an error to its reply.

Codes are those of RFC 5321 §4.2.3 and RFC 4954 §6; the enhanced codes of errors stand with
their classes (`mailplat.errors`).  The first digit always agrees with the error's class: 4 for a
`TemporaryError`, 5 for a `PermanentError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mailplat import errors
from mailplat.errors import MailError, TemporaryError
from mailplat.smtp.data import Fault
from mailplat.smtp.engine import Bad
from mailplat.smtp.grammar import reply
from mailplat.values import Outcome

#: The reply to each kind of error; one that is not listed is as its nearest base class.
CODES: Mapping[type[MailError], int] = {
    errors.MailError: 554,
    errors.TemporaryError: 451,
    errors.PermanentError: 554,
    errors.StorageFull: 452,
    errors.TooBusy: 451,
    errors.InUse: 450,
    errors.HostUnreachable: 451,
    errors.TLSFailed: 451,
    errors.NotResolved: 451,
    errors.RateExceeded: 451,
    errors.LoginUnavailable: 454,
    errors.LoginFailed: 535,
    errors.LoginCancelled: 501,
    errors.MalformedLogin: 501,
    errors.NoSuchMechanism: 504,
    errors.PrivacyRequired: 538,
    errors.NoSuchAccount: 550,
    errors.NoSuchMailbox: 550,
    errors.NotPermitted: 550,
    errors.CannotDo: 554,
    errors.OverQuota: 552,
    # Of recipients: clients treat 552 as "send these later" (RFC 5321 §4.5.3.1.10).
    errors.LimitExceeded: 552,
    errors.MessageTooLarge: 552,
    errors.InvalidMessage: 550,
    errors.CannotConvert: 554,
    errors.UTF8Unsupported: 553,
    errors.SenderRefused: 550,
    errors.NoSuchRecipient: 550,
    errors.NoSuchDomain: 550,
    errors.NoMailThere: 556,  # RFC 7505 §4.1
    errors.Expired: 554,
    errors.RelayDenied: 550,
    errors.MessageRefused: 550,
}

FAULTS: Mapping[Fault, MailError] = {
    Fault.LONE_LINE_BREAK: errors.InvalidMessage(Fault.LONE_LINE_BREAK.value),
    Fault.TOO_LARGE: errors.MessageTooLarge(Fault.TOO_LARGE.value),
}

BAD_LINES: Mapping[Bad, bytes] = {bad: reply(500, "5.5.2", bad.value) for bad in Bad}


def error_reply(error: MailError) -> bytes:
    """What the peer is told of `error`."""
    for kind in type(error).__mro__:
        found = CODES.get(kind)
        if found is not None:
            return reply(found, error.status, error.text)
    raise TypeError(f"{type(error).__name__} is no MailError")


def folded(outcomes: Sequence[Outcome]) -> MailError | None:
    """
    The one outcome that SMTP can tell of several: None if anybody got the message.

    If nobody did, a temporary error outweighs the permanent ones: the sender tries again,
    and is told of the permanent ones then, each at its RCPT.
    """
    first: MailError | None = None
    for outcome in outcomes:
        if outcome.error is None:
            return None
        if first is None or (
            isinstance(outcome.error, TemporaryError) and not isinstance(first, TemporaryError)
        ):
            first = outcome.error
    return first


OK = reply(250, "2.0.0", "OK")
FLUSHED = reply(250, "2.0.0", "Reset")
SENDER_OK = reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK = reply(250, "2.1.5", "Recipient OK")
ACCEPTED = reply(250, "2.0.0", "Message accepted")
START_DATA = reply(354, "", "End data with <CR><LF>.<CR><LF>")
CANNOT_VERIFY = reply(252, "2.1.5", "Cannot verify, send mail to find out")
BYE = reply(221, "2.0.0", "Bye")
START_TLS = reply(220, "2.0.0", "Ready to start TLS")
LOGGED_IN = reply(235, "2.7.0", "Authentication succeeded")

IDLE = reply(421, "4.4.2", "Idle for too long, closing")
STOPPING = reply(421, "4.3.2", "Service is shutting down, closing")
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors, closing")
TOO_MANY_COMMANDS = reply(421, "4.7.0", "Too many commands without mail, closing")
TOO_MANY_MESSAGES = reply(421, "4.7.0", "Too many messages in one connection, closing")
TOO_MANY_LOGINS = reply(421, "4.7.0", "Too many failed logins, closing")
# Where a chunk whose size makes no sense would end, nobody knows: message text must not
# be taken for commands.
LOST_COUNT = reply(421, "4.5.2", "Malformed BDAT, closing")

NOT_KNOWN = reply(500, "5.5.1", "Command not recognized")
NOT_IMPLEMENTED = reply(502, "5.5.1", "Command not implemented")
NO_ARGUMENT = reply(501, "5.5.4", "No parameters allowed")
HELLO_FIRST = reply(503, "5.5.1", "Say EHLO first")
LHLO_FIRST = reply(503, "5.5.1", "Say LHLO first")
NEED_SENDER = reply(503, "5.5.1", "Need MAIL first")
NEED_RECIPIENT = reply(503, "5.5.1", "Need RCPT first, and one that is accepted")
NESTED = reply(503, "5.5.1", "A mail transaction is under way")
CHUNKS_BEGUN = reply(503, "5.5.1", "Only BDAT or RSET may follow BDAT")
TLS_ACTIVE = reply(503, "5.5.1", "TLS is active already")
LOGGED_IN_ALREADY = reply(503, "5.5.1", "Already authenticated")
LOGIN_FIRST = reply(530, "5.7.0", "Authentication required")
LOGIN_LINE_TOO_LONG = reply(500, "5.5.6", "Authentication exchange line is too long")
UNKNOWN_PARAMETER = reply(555, "5.5.4", "Parameter not recognized")
TOO_LARGE = reply(552, "5.3.4", "Message too large")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients, send the rest in another message")
NEEDS_UTF8 = reply(553, "5.6.7", "Address needs SMTPUTF8")
