"""
What can go wrong, in words that no protocol owns.

A store, a checker or an agent raises one of these; each protocol has one table from the
word to its own code.  Whether trying again later may help is in the class: everything is
either a `TemporaryError` or a `PermanentError`.

Every error carries two texts.  `text` may be shown to the peer: it says what happened
without naming other people's data.  `reason` is for the log only.  Its class has the status
code (RFC 3463, and the registry of RFC 5248) that SMTP replies and delivery reports give.
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
    status = "5.0.0"

    def __init__(self, text: str = "", reason: str = "") -> None:
        self.text = text or self.default
        self.reason = reason
        super().__init__(self.text if not reason else f"{self.text} ({reason})")


class TemporaryError(MailError):
    """It did not work now; the same request may work later."""

    default = "Temporary failure, please try again later"
    status = "4.3.0"


class PermanentError(MailError):
    """It will not work, however often it is tried."""


# Temporary


class StorageFull(TemporaryError):
    """The disk is full or refused to sync.  Nothing was changed."""

    default = "Storage is unavailable, please try again later"
    status = "4.3.1"


class TooBusy(TemporaryError):
    """A bounded resource (connections, logins waiting) is used up."""

    default = "Too busy, please try again later"
    status = "4.3.2"


class InUse(TemporaryError):
    """Somebody else holds what may be held once only, such as a POP3 maildrop."""

    default = "In use by another session"
    status = "4.2.1"


class HostUnreachable(TemporaryError):
    """
    The next hop could not be reached or will have nothing to do with us now.  It says nothing
    about the message: every other one for the same next hop would fare alike.
    """

    default = "The next host cannot be reached"
    status = "4.4.1"


class TLSFailed(HostUnreachable):
    """TLS with the next hop failed, or is not what was required of it."""

    default = "TLS with the next host failed"
    status = "4.7.5"


class NotResolved(TemporaryError):
    """The DNS gave no answer, which says nothing about whether there is one."""

    default = "The domain cannot be looked up now"
    status = "4.4.3"


class RateExceeded(TemporaryError):
    """More than the peer or the account may send in a while."""

    default = "Too much mail for now, please try again later"
    status = "4.7.0"


class LoginUnavailable(TemporaryError):
    """Credentials could not be checked now; says nothing about them."""

    default = "Login is unavailable, please try again later"
    status = "4.7.0"


# Permanent


class LoginFailed(PermanentError):
    """Unknown user or wrong password: the same words for both."""

    default = "Authentication failed"
    status = "5.7.8"


class AccountUnusable(LoginFailed):
    """The credentials are right and there is no mail to open with them; only an operator can help."""

    default = "This account cannot be used"


class LoginCancelled(PermanentError):
    """The client broke its SASL exchange off."""

    default = "Authentication cancelled"
    status = "5.7.0"


class MalformedLogin(PermanentError):
    """What the client sent in a SASL exchange is not what its mechanism says."""

    default = "Malformed authentication exchange"
    status = "5.5.2"


class NoSuchMechanism(PermanentError):
    default = "Unsupported authentication mechanism"
    status = "5.5.4"


class PrivacyRequired(PermanentError):
    """A password would have crossed the network in clear."""

    default = "Encryption is required, use TLS first"
    status = "5.7.11"


class NoSuchAccount(PermanentError):
    default = "No such account"
    status = "5.1.1"


class AccountExists(PermanentError):
    default = "The account exists already"


class NoSuchMailbox(PermanentError):
    default = "No such mailbox"
    status = "5.2.1"


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
    status = "5.7.1"


class CannotDo(PermanentError):
    """The store or the mailbox lacks the ability."""

    default = "Not supported here"
    status = "5.3.3"


class OverQuota(PermanentError):
    default = "Over quota"
    status = "5.2.2"


class LimitExceeded(PermanentError):
    """A named limit, for example on keywords in a mailbox."""

    default = "Limit exceeded"
    status = "5.5.3"


class MessageTooLarge(PermanentError):
    default = "Message too large"
    status = "5.3.4"


class InvalidMessage(PermanentError):
    """Message bytes that may not be passed on, such as a bare CR or LF over SMTP."""

    default = "Message contains invalid data"
    status = "5.6.0"


class CannotConvert(PermanentError):
    """The next hop takes 7-bit messages only, and this one cannot be made one (RFC 6152 §3)."""

    default = "The next host does not take 8-bit messages, and this one cannot be converted"
    status = "5.6.3"


class UTF8Unsupported(PermanentError):
    """An address or the header needs SMTPUTF8, which the next hop does not offer (RFC 6531 §3.5)."""

    default = "The next host does not take internationalized addresses"
    status = "5.6.7"


class SenderRefused(PermanentError):
    default = "Sender address refused"
    status = "5.7.1"


class NoSuchDomain(PermanentError):
    """The DNS knows that there is no such name."""

    default = "No such domain"
    status = "5.1.2"


class NoMailThere(PermanentError):
    """A domain that says it takes no mail (RFC 7505), or a next hop that is ourselves."""

    default = "The domain does not accept mail"
    status = "5.1.10"


class Expired(PermanentError):
    """It was tried for as long as it is worth trying."""

    default = "Delivery was given up"
    status = "5.4.7"


class NoSuchRecipient(PermanentError):
    default = "No such recipient here"
    status = "5.1.1"


class RelayDenied(PermanentError):
    default = "Relaying denied"
    status = "5.7.1"


class MessageRefused(PermanentError):
    default = "Message refused"
    status = "5.7.1"


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
