"""
Frozen values: what travels between protocols, stores and delivery.

No value here knows a protocol or a store.  Dates are whole seconds since 1970 in UTC,
sizes are octets, modseqs are integers that only grow within a mailbox.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from mailplat.errors import MailError
from mailplat.uids import NOTHING, UIDSet

# Flags
#
# A message's flags are an integer: bit n is the n-th name of SYSTEM_FLAGS followed by the
# mailbox's own append-only list of keywords.  The first 64 bits travel in packed arrays;
# the rare message with a keyword past them has its whole word in `Columns.overflow` too.

SEEN, ANSWERED, FLAGGED, DELETED, DRAFT = (1 << bit for bit in range(5))

#: In the order of their bits (RFC 3501 §2.3.2).
SYSTEM_FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")

#: The bit of a mailbox's first keyword.
FIRST_KEYWORD = len(SYSTEM_FLAGS)

#: The part of a flag word that fits the packed array.
PACKED = (1 << 64) - 1

#: How many keywords a mailbox may have, and how long each may be.
MAX_KEYWORDS = 200
MAX_KEYWORD_LENGTH = 128


def flag_names(word: int, keywords: Sequence[str]) -> list[str]:
    """The names of the bits set in `word`, system flags first, in the order of their bits."""
    names = [name for bit, name in enumerate(SYSTEM_FLAGS) if word >> bit & 1]
    word >>= FIRST_KEYWORD
    for keyword in keywords:
        if not word:
            break
        if word & 1:
            names.append(keyword)
        word >>= 1
    return names


def flag_word(names: Iterable[str], keywords: list[str], limit: int = MAX_KEYWORDS) -> int:
    """
    The bits of `names`, appending keywords not seen before to `keywords`.

    Names are compared without case (RFC 3501 §9 flag-keyword is an atom, and clients
    differ); the first spelling is kept.  Past `limit` a new keyword is left out, as RFC
    3501 §7.1 allows a server that runs out of keywords to do.
    """
    word = 0
    known = {name.lower(): bit for bit, name in enumerate((*SYSTEM_FLAGS, *keywords))}
    for name in names:
        bit = known.get(name.lower())
        if bit is None:
            if name.startswith("\\") or len(keywords) >= limit or len(name) > MAX_KEYWORD_LENGTH:
                continue
            bit = known[name.lower()] = FIRST_KEYWORD + len(keywords)
            keywords.append(name)
        word |= 1 << bit
    return word


@dataclass(frozen=True, slots=True)
class FlagChange:
    """
    What to do with flags, by name.

    `replace` sets the flags to exactly `add`; otherwise `add` is added and `remove` is
    taken away.
    """

    add: frozenset[str] = frozenset()
    remove: frozenset[str] = frozenset()
    replace: bool = False


# Mailboxes


@dataclass(frozen=True, slots=True)
class MailboxInfo:
    """
    A line of the list of mailboxes.

    Attributes:
        name: hierarchy levels separated by "/"; "INBOX" in capitals, any other text
            as given by the user (Unicode, no control characters).
        selectable: False for a name that only has children.
        subscribed: the name is on the list of subscriptions.  A subscribed name
            without a mailbox is listed with `exists` False (RFC 3501 §6.3.9).
        special_use: "\\Drafts", "\\Sent", "\\Junk", "\\Trash", "\\Archive" (RFC 6154 §2)
            or None.
    """

    name: str
    selectable: bool = True
    subscribed: bool = False
    special_use: str | None = None
    exists: bool = True


#: The mailboxes of a new account besides INBOX, with their special use (RFC 6154 §2).
SPECIAL_MAILBOXES: Mapping[str, str] = {
    "Drafts": "\\Drafts",
    "Sent": "\\Sent",
    "Junk": "\\Junk",
    "Trash": "\\Trash",
    "Archive": "\\Archive",
}

#: Separates hierarchy levels in mailbox names, in every store.
SEPARATOR = "/"


@dataclass(frozen=True, slots=True)
class MailboxStatus:
    """
    Counters of a mailbox, all of one moment: that after `highest_modseq`.

    They count messages with UIDs below `uid_next`; whatever is not counted yet `IMailbox.changes` tells
    after `highest_modseq`.
    """

    messages: int
    unseen: int
    recent: int
    uid_next: int
    uid_validity: int
    highest_modseq: int
    size: int


class Columns:
    """
    Rows of a mailbox as packed arrays of equal length, UIDs ascending.

    Attributes:
        uids: array("I").
        flags: array("Q"), the first 64 bits of each flag word.
        modseqs: array("Q").
        sizes: array("I"), octets of prefix and body together.
        dates: array("q"), INTERNALDATE in seconds since 1970 UTC.
        overflow: UID -> whole flag word, for the messages whose word does not fit.

    The receiver owns the arrays: a store hands out ones that it will not touch again.
    """

    __slots__ = ("dates", "flags", "modseqs", "overflow", "sizes", "uids")

    def __init__(self) -> None:
        self.uids = array("I")
        self.flags = array("Q")
        self.modseqs = array("Q")
        self.sizes = array("I")
        self.dates = array("q")
        self.overflow: dict[int, int] = {}

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int, int, int]]) -> Columns:
        """
        Columns of (uid, flag word, modseq, size, date) rows, which must come by ascending UID.

        Flag words may be longer than 64 bits.
        """
        columns = cls()
        # One pass at C speed: transpose, then fill each array from its tuple.
        transposed = list(zip(*rows, strict=True))
        if transposed:
            uids, flags, modseqs, sizes, dates = transposed
            columns.uids = array("I", uids)
            try:
                columns.flags = array("Q", flags)
            except OverflowError:
                columns.flags = array("Q", [word & PACKED for word in flags])
                columns.overflow = {u: w for u, w in zip(uids, flags, strict=True) if w > PACKED}
            columns.modseqs = array("Q", modseqs)
            columns.sizes = array("I", sizes)
            columns.dates = array("q", dates)
        return columns

    def __len__(self) -> int:
        return len(self.uids)

    def arrays(self) -> tuple[array[int], array[int], array[int], array[int], array[int]]:
        """uids, flags, modseqs, sizes, dates."""
        return self.uids, self.flags, self.modseqs, self.sizes, self.dates

    def extend(self, rows: Columns) -> None:
        """Append these rows, whose UIDs must be greater than all that are here."""
        for mine, theirs in zip(self.arrays(), rows.arrays(), strict=True):
            mine.extend(theirs)
        self.overflow.update(rows.overflow)

    def replace(self, first: int, last: int, rows: Columns) -> None:
        """What has a UID from `first` to `last`, both included, becomes `rows`, whose UIDs must be such."""
        start = bisect_left(self.uids, first)
        stop = bisect_right(self.uids, last, start)
        for uid in self.overflow.keys() & set(self.uids[start:stop]) if self.overflow else ():
            del self.overflow[uid]
        for mine, theirs in zip(self.arrays(), rows.arrays(), strict=True):
            mine[start:stop] = theirs
        self.overflow.update(rows.overflow)

    def word(self, index: int) -> int:
        """The whole flag word of the row at `index`."""
        return self.overflow.get(self.uids[index], self.flags[index])

    def rows(self) -> Iterable[tuple[int, int, int, int, int]]:
        """(uid, whole flag word, modseq, size, date) of each row, by ascending UID."""
        words: Iterable[int] = self.flags
        if self.overflow:
            words = [self.overflow.get(uid, word) for uid, word in zip(self.uids, self.flags, strict=True)]
        return zip(self.uids, words, self.modseqs, self.sizes, self.dates, strict=True)


@dataclass(frozen=True, slots=True)
class Changes:
    """
    What happened in a mailbox after a modseq.

    Attributes:
        upto: nothing numbered at or below this appears in a later answer.
        changed: rows that are new or whose flags changed, as they are now.
        vanished: UIDs expunged since; None where the store cannot tell, and the caller
            compares UIDs itself.  It may name UIDs the caller never heard of.
    """

    upto: int
    changed: Columns
    vanished: UIDSet | None = NOTHING


@dataclass(frozen=True, slots=True)
class FlagsSet:
    """
    The answer to `IMailbox.set_flags`.

    Attributes:
        changed: the rows whose flags now differ, with their new modseq.
        refused: UIDs left alone because they changed after `unchanged_since`
            (RFC 7162 §3.1.3).
    """

    changed: Columns
    refused: UIDSet = NOTHING


@dataclass(frozen=True, slots=True)
class Copied:
    """
    The answer to a copy or move: `sources[i]` became `copies[i]` (RFC 4315 §3).

    Both ascending; UIDs that were gone are left out.  `uid_validity` is the destination's.
    """

    uid_validity: int
    sources: Sequence[int]
    copies: Sequence[int]


@dataclass(frozen=True, slots=True)
class Outlined:
    """
    Where a message's parts are, as far as its store knows.

    Attributes:
        uid: the message.
        prefix_size: octets of the message's own prefix; the shared body follows it.
        outline: the record that came with the message (`ISpooledMessage.outline`), or
            None where the store does not keep it; the core then scans the body again.
    """

    uid: int
    prefix_size: int
    outline: bytes | None


@dataclass(frozen=True, slots=True)
class Records:
    """
    The outlines of many messages.

    Attributes:
        uids: array("I"), ascending.
        records: as `Outlined.outline`, in the same order; empty where the store keeps none.
    """

    uids: array[int]
    records: Sequence[bytes]


#: So many UIDs are a block: block n has those from (n - 1) * BLOCK + 1 to n * BLOCK.
BLOCK = 256


def block_of(uid: int) -> int:
    """The block of a UID."""
    return (uid + BLOCK - 1) // BLOCK


@dataclass(frozen=True, slots=True)
class Derived:
    """
    Octets made of the messages of one block, to be kept (`IKeepsDerived`).

    Attributes:
        kind: what they are, in the words of who made them.
        block: the block.
        messages: of how many they were made: of all that there were in the block.
        octets: opaque to stores.
    """

    kind: str
    block: int
    messages: int
    octets: bytes


# Envelopes


@dataclass(frozen=True, slots=True)
class Address:
    """
    A mailbox address: local part without quoting, and domain.

    `domain` is empty for `<postmaster>` only (RFC 5321 §4.5.1), otherwise a lower-case
    name (U-label or A-label as the peer gave it) or an address literal in brackets.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}" if self.domain else self.local


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """
    What a sender wants to hear about one recipient (RFC 3461 §4.1, §4.2).

    Attributes:
        notify: of "SUCCESS", "FAILURE" and "DELAY"; empty for NEVER; None if the sender
            did not say, which means failures, and delays if the server thinks so.
        original: the recipient as the sender first wrote it, as "type;address" (ORCPT
            without its xtext); empty if the sender did not say.
    """

    notify: frozenset[str] | None = None
    original: str = ""


#: Nothing was asked for, of one recipient and of all.
NO_REQUEST = ReportRequest()
NO_REQUESTS: Mapping[Address, ReportRequest] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Envelope:
    """
    A mail transaction as its sender stated it.

    Attributes:
        sender: None for the null reverse-path `<>`.
        recipients: accepted so far, in the order given; duplicates are kept.
        body: "7BIT", "8BITMIME" (RFC 6152 §2).
        utf8: SMTPUTF8 was asked for (RFC 6531 §3.4).
        size: octets as declared by SIZE= (RFC 1870), 0 if not.
        returns: how much of the message a failure report shall bring back: "FULL",
            "HDRS", or empty if not stated (RET, RFC 3461 §4.3).
        envelope_id: the sender's name for this transaction, xtext decoded; empty if not
            stated (ENVID, RFC 3461 §4.4).
        release: deliver not before this, in seconds since 1970; 0 for at once (RFC 4865).
        requests: what the sender wants to hear, for the recipients that it said it for.
    """

    sender: Address | None
    recipients: tuple[Address, ...] = ()
    body: str = "7BIT"
    utf8: bool = False
    size: int = 0
    returns: str = ""
    envelope_id: str = ""
    release: int = 0
    requests: Mapping[Address, ReportRequest] = field(default_factory=lambda: NO_REQUESTS, hash=False)


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where one copy of a message goes next: what a router makes of a recipient.

    Attributes:
        agent: the name of the delivery agent: `LOCAL`, `RELAY`, or one that the
            configuration names.
        place: what that agent goes by: an account's name, a next hop, a program's name.
            Copies with the same agent and place are delivered together.
        address: the recipient as the agent is to use it: as it came for an account, what
            an alias made of it for others.
    """

    agent: str
    place: str
    address: Address


#: The agent that keeps mail in the store; places are account names.
LOCAL = "local"

#: The agent that sends mail to other hosts; places are next hops, see `mailplat.delivery.hops`.
RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What became of one recipient of a message: delivered if `error` is None.

    Attributes:
        host: the host that answered, if another one did.
        reply: its reply, code and text in one line.
        relayed: it went on to a host that does not report deliveries (RFC 3461 §5.2.2):
            who asked for SUCCESS is told that it was relayed.
        passed_on: it went on to a host that reports in our place (RFC 3461 §5.2.1).
    """

    recipient: Address
    error: MailError | None = None
    host: str = ""
    reply: str = ""
    relayed: bool = False
    passed_on: bool = False


# The queue

#: A time that does not come: an item that is held.
NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """
    One recipient of a queued message, still to be delivered to.

    Attributes:
        number: its number in the item, from 0; never changes.
        due: when it is to be tried next, seconds since 1970; NEVER if held.
        notice: when its sender is next to be told, of the delay or of the end; NEVER if held.
        attempts: how often it was tried.
        host, reply: as in the last attempt's `Outcome`; `reply` is the error's text where no
            host replied.
        delayed: the sender was told of the delay.
    """

    number: int
    target: Target
    request: ReportRequest = NO_REQUEST
    due: int = 0
    notice: int = NEVER
    attempts: int = 0
    host: str = ""
    reply: str = ""
    delayed: bool = False


@dataclass(frozen=True, slots=True)
class QueueItem:
    """
    A queued message, or as much of it as was asked for.

    Attributes:
        id: never used again.
        envelope: sender, body, utf8, returns and envelope_id as the sender stated them;
            recipients and requests are empty.
        account: who submitted it; empty for a stranger and for our own reports.
        arrived: when it was accepted, or is to be released; its age counts from here.
        size: octets, prefix included.
        recipients: by ascending number; not those that are done with.
    """

    id: int
    envelope: Envelope
    account: str
    arrived: int
    size: int
    recipients: tuple[QueuedRecipient, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """
    What an attempt came to, for `IQueueStore.settle`.

    Attributes:
        item, number: whose.
        recipient: as it is to be from now on; None if it is done with, for better or worse.
    """

    item: int
    number: int
    recipient: QueuedRecipient | None


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """
    Counters of a queue.

    Attributes:
        recipients: not done with.
        held: of them, those that wait for an operator.
        oldest: the smallest `arrived`, 0 if there is no item.
    """

    items: int
    recipients: int
    held: int
    oldest: int


# Other hosts


@dataclass(frozen=True, slots=True)
class TLSRequirement:
    """
    What TLS must be like on a connection to another host.

    Attributes:
        level: "none", do without; "may", take what there is, certificates unverified;
            "encrypt", insist on TLS, unverified; "verify", insist on a certificate that is
            trusted and names one of `names`.
        names: host names, IDNA-encoded, as certificates have them; empty for the host's own.
        source: who says so, for the log: "default", "configuration", "dane", "mta-sts".
    """

    level: str = "may"
    names: tuple[str, ...] = ()
    source: str = "default"


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """
    A connection's TLS as it was negotiated.

    `exporter` and `end_point` are the channel bindings tls-exporter (RFC 9266) and
    tls-server-end-point (RFC 5929 §4); empty where not to be had.
    """

    version: str
    cipher: str
    exporter: bytes = b""
    end_point: bytes = b""


@dataclass(frozen=True, slots=True)
class Peer:
    """
    Who is at the other end, as far as the connection tells; cred's `mind` in mailplat.

    Attributes:
        service: "smtp", "submission", "lmtp", "imap" or "pop3"; "smtp-client" or "lmtp-client"
            where we are the client; "local" for a program on this host.
        host: the IP address, IPv4-mapped ones as IPv4; "" for a UNIX socket.
        port: 0 for a UNIX socket.
        tls: None in clear.
        hello: the name given in EHLO, HELO or LHLO; empty elsewhere.
        extended: it was not HELO, which is SMTP without extensions.
        connection: an identifier for logs, unique in this process.
    """

    service: str
    host: str
    port: int
    tls: TLSInfo | None = None
    hello: str = ""
    extended: bool = True
    connection: str = ""

    @property
    def is_loopback(self) -> bool:
        """A UNIX socket, 127.0.0.0/8 or ::1."""
        return self.host in ("", "::1") or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class ScramRecord:
    """
    What a server keeps of a password for SCRAM-SHA-256, and for PLAIN as well (RFC 5803).

    Attributes:
        known: False for a record invented for a user who does not exist; it must be
            treated the same until the very end.
    """

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes
    known: bool = field(default=True)
