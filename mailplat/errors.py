"""
What can go wrong, in words that no protocol owns.

A store, a checker or an agent raises one of these; each protocol has one table from the
word to its own code.  Whether trying again later may help is in the class: everything is
either a `TemporaryError` or a `PermanentError`.

Every error carries two texts.  `text` may be shown to the peer: it says what happened
without naming other people's data.  `reason` is for the log only.
"""


class MailError(Exception):
    """
    Something a peer or an operator can be told.

    Args:
        text: one line for the peer, without control characters; the default is the
            class's own sentence.
        reason: what the log should know besides, never sent.
    """

    default = "The operation failed"

    def __init__(self, text: str = "", reason: str = "") -> None:
        self.text = text or self.default
        self.reason = reason
        super().__init__(self.text if not reason else f"{self.text} ({reason})")


class TemporaryError(MailError):
    """It did not work now; the same request may work later."""

    default = "Temporary failure, please try again later"


class PermanentError(MailError):
    """It will not work, however often it is tried."""


# Temporary


class StorageFull(TemporaryError):
    """The disk is full or refused to sync.  Nothing was changed."""

    default = "Storage is unavailable, please try again later"


class TooBusy(TemporaryError):
    """A bounded resource (connections, logins waiting) is used up."""

    default = "Too busy, please try again later"


class InUse(TemporaryError):
    """Somebody else holds what may be held once only, such as a POP3 maildrop."""

    default = "In use by another session"


class HostUnreachable(TemporaryError):
    """
    The next hop could not be reached or will have nothing to do with us now.  It says nothing
    about the message: every other one for the same next hop would fare alike.
    """

    default = "The next host cannot be reached"


class NotResolved(TemporaryError):
    """The DNS gave no answer, which says nothing about whether there is one."""

    default = "The domain cannot be looked up now"


class RateExceeded(TemporaryError):
    """More than the peer or the account may send in a while."""

    default = "Too much mail for now, please try again later"


class LoginUnavailable(TemporaryError):
    """Credentials could not be checked now; says nothing about them."""

    default = "Login is unavailable, please try again later"


# Permanent


class LoginFailed(PermanentError):
    """Unknown user or wrong password: the same words for both."""

    default = "Authentication failed"


class AccountUnusable(LoginFailed):
    """The credentials are right and there is no mail to open with them; only an operator can help."""

    default = "This account cannot be used"


class LoginCancelled(PermanentError):
    """The client broke its SASL exchange off."""

    default = "Authentication cancelled"


class MalformedLogin(PermanentError):
    """What the client sent in a SASL exchange is not what its mechanism says."""

    default = "Malformed authentication exchange"


class NoSuchMechanism(PermanentError):
    default = "Unsupported authentication mechanism"


class PrivacyRequired(PermanentError):
    """A password would have crossed the network in clear."""

    default = "Encryption is required, use TLS first"


class NoSuchAccount(PermanentError):
    default = "No such account"


class AccountExists(PermanentError):
    default = "The account exists already"


class NoSuchMailbox(PermanentError):
    default = "No such mailbox"


class MailboxExists(PermanentError):
    default = "The mailbox exists already"


class NoSuchMessage(PermanentError):
    """The message was expunged, or never was there."""

    default = "No such message"


class InvalidName(PermanentError):
    """A mailbox or account name that this store cannot or will not keep."""

    default = "Invalid name"


class InvalidPassword(PermanentError):
    """A password that nobody could log in with: empty, too long, or with control characters."""

    default = "Invalid password"


class NotPermitted(PermanentError):
    default = "Not permitted"


class CannotDo(PermanentError):
    """The store or the mailbox lacks the ability."""

    default = "Not supported here"


class OverQuota(PermanentError):
    default = "Over quota"


class LimitExceeded(PermanentError):
    """A named limit, for example on keywords in a mailbox."""

    default = "Limit exceeded"


class MessageTooLarge(PermanentError):
    default = "Message too large"


class InvalidMessage(PermanentError):
    """Message bytes that may not be passed on, such as a bare CR or LF over SMTP."""

    default = "Message contains invalid data"


class SenderRefused(PermanentError):
    default = "Sender address refused"


class NoSuchDomain(PermanentError):
    """The DNS knows that there is no such name."""

    default = "No such domain"


class NoMailThere(PermanentError):
    """A domain that says it takes no mail (RFC 7505), or a next hop that is ourselves."""

    default = "The domain does not accept mail"


class Expired(PermanentError):
    """It was tried for as long as it is worth trying."""

    default = "Delivery was given up"


class NoSuchRecipient(PermanentError):
    default = "No such recipient here"


class RelayDenied(PermanentError):
    default = "Relaying denied"


class MessageRefused(PermanentError):
    default = "Message refused"


# For operators


class ConfigurationError(PermanentError):
    """One or more mistakes in a configuration; `text` has a line for each."""


class PluginError(PermanentError):
    """A plugin cannot be found, loaded or used; names the distribution it came from."""


class DataDirectoryError(PermanentError):
    """A data directory that this version cannot use."""


class CannotListen(PermanentError):
    """An endpoint cannot be bound; names it, and says why."""


class StartFailed(PermanentError):
    """The server cannot start, because of a bug of ours or of a part; the log has it."""

    default = "The server cannot start; the log says why"
