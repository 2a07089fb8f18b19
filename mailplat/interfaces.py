"""
The seams of mailplat: what you may replace, and what is promised on each side.

How to read it.  Write a *mailbox store* with the four interfaces under "Storage";
everything under "Abilities" is optional, and providing one switches on both what the
servers advertise and the tests that the contract kit runs.  "Avatars" are what a
`twisted.cred` realm hands to a protocol; "Delivery" is what happens between a received
message and a mailbox; "Finding parts" is how a part gets a name on the command line.

Rules that hold for every method:

* A method declared to return an `Awaitable` may be an `async def` or may return a
  Deferred.  It must not block the reactor: a blocking library goes through
  `mailplat.storage.threads`.
* Sets go in, columns come out: one call serves many messages.  UIDs in a set that a
  mailbox does not have are passed over, never an error.
* What goes wrong is raised as a class of `mailplat.errors`; any other exception is taken
  for a bug, logged, and answered with the protocol's generic temporary failure.
* A method that changes something returns after the change is durable.
* Several calls may be under way at once; each is atomic.
* No sequence number, no wire format and no session crosses a seam.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zope.interface import Attribute, Interface
from zope.interface.interface import InterfaceClass

from mailplat.uids import UIDSet
from mailplat.values import (
    Address,
    Changes,
    Columns,
    Copied,
    Derived,
    Envelope,
    FlagChange,
    FlagsSet,
    MailboxInfo,
    MailboxStatus,
    Outcome,
    Outlined,
    QueuedRecipient,
    QueueItem,
    QueueStatus,
    Records,
    ScramRecord,
    Settled,
    Target,
    TLSRequirement,
)

# Storage: the four interfaces of a mailbox store


class IMessageContent(Interface):
    """The bytes of one message: prefix and body as one range, lines ended by CR LF."""

    size: int = Attribute("Octets, exactly.")

    def read(start: int, length: int) -> Awaitable[bytes]:
        """
        Bytes from `start`, exactly `length` of them unless the message ends before.

        The core asks for at most 128 KiB at a time.  Works until `close`, even if the
        message is expunged meanwhile.
        """

    def close() -> None:
        """No more reads will come.  May be called twice."""


class ISpooledMessage(IMessageContent):
    """
    A received message before it has a home: immutable, complete, held in memory or in a file.

    Whoever holds it closes it; then a file that nobody linked is gone.
    """

    outline: bytes = Attribute("What the core wants kept beside the body; opaque to stores.")
    data: bytes | None = Attribute("The whole body if it is in memory, else None.")
    path: str | None = Attribute(
        "A file holding exactly the body, already synced, in the spool's directory; else None. "
        "A store may hard-link it; it must not rename, change or remove it."
    )


class IInPieces(ISpooledMessage):
    """A spooled message in memory as it came, so that who only writes it need not have it joined."""

    pieces: Sequence[bytes] = Attribute("The whole body, in order; to ask for `data` joins it.")


@dataclass(frozen=True, slots=True)
class NewMessage:
    """
    A message on its way into a mailbox: its own prefix, and a body that may be shared.

    Attributes:
        body: stays owned by the caller, who closes it afterwards; a store links or
            copies its bytes, never consumes them.
        prefix: header lines of this copy only (Return-Path, Delivered-To, Received),
            each ended by CR LF; may be empty.
        flags: names of system flags and keywords.
        date: INTERNALDATE, seconds since 1970 UTC.
    """

    body: ISpooledMessage
    prefix: bytes
    flags: frozenset[str]
    date: int


class IMailbox(Interface):
    """
    One mailbox: a log of changes numbered by modseq, read through UIDs.

    UIDs and modseqs are given in the order in which changes become visible, and never go
    back or are used again, whatever the clock does.  Each call that changes something has
    a modseq of its own.
    """

    name: str = Attribute("As in MailboxInfo.name, now.")
    uid_validity: int = Attribute("1 to 2**32 - 1; the same as long as UIDs mean the same messages.")
    read_only: bool = Attribute("True if nothing in it can be changed by this account.")
    keywords: Sequence[str] = Attribute(
        "The mailbox's keywords; the index of each is its flag bit less FIRST_KEYWORD. Only ever "
        "grows at its end, and is at least as long as any columns handed out before need it."
    )

    def status() -> Awaitable[MailboxStatus]:
        """The counters, without loading rows where possible."""

    def columns(uids: UIDSet) -> Awaitable[Columns]:
        """The rows of these UIDs as they are now."""

    def outlines(uids: UIDSet) -> Awaitable[Sequence[Outlined]]:
        """Where the parts of these messages are, by ascending UID."""

    def content(uid: int) -> Awaitable[IMessageContent]:
        """
        The bytes of one message; the caller closes it.

        Raises:
            NoSuchMessage: it was expunged.
        """

    def append(messages: Sequence[NewMessage]) -> Awaitable[Sequence[int]]:
        """
        Append all or none.

        Returns:
            the UIDs, ascending, in the order of `messages`.

        Raises:
            StorageFull, OverQuota, MessageTooLarge, NotPermitted, NoSuchMailbox.
        """

    def set_flags(
        uids: UIDSet, change: FlagChange, unchanged_since: int | None = None
    ) -> Awaitable[FlagsSet]:
        """
        Change flags.  Rows that already are as asked keep their modseq.

        Args:
            unchanged_since: leave alone, and report as refused, messages whose modseq
                is greater.
        """

    def expunge(uids: UIDSet, deleted_only: bool = True) -> Awaitable[UIDSet]:
        """
        Remove messages; with `deleted_only` those that have \\Deleted at this moment.

        Returns:
            the UIDs removed.
        """

    def copy(uids: UIDSet, destination: str) -> Awaitable[Copied]:
        """
        Copy to another mailbox of the same account (or the same mailbox), all or none.

        Flags (keywords by name) and date are kept, the body is shared.

        Raises:
            NoSuchMailbox: there is no such destination.
        """

    def changes(since: int) -> Awaitable[Changes]:
        """
        What happened after modseq `since`; 0 asks for all rows.

        Cheap when nothing happened.  A message expunged since is never in `changed`.
        """

    def watch(hint: Callable[[], None]) -> Callable[[], None]:
        """
        Have `hint()` called, in the reactor thread, when `changes` may have something new.

        A hint carries no data and may be lost, repeated or late.  It must be given after
        the change is visible to `changes`.

        Returns:
            a callable that stops it; may be called twice.
        """


class IMailAccount(Interface):
    """One account's mailboxes; the avatar of IMAP.  INBOX always exists."""

    name: str = Attribute("The account's name, canonical.")
    abilities: frozenset[InterfaceClass] = Attribute(
        "The optional interfaces that this account's mailboxes provide (some may be provided by the "
        "store itself, such as ICommitsTogether)."
    )

    def mailboxes() -> Awaitable[Sequence[MailboxInfo]]:
        """All names, subscriptions without a mailbox included, sorted by name."""

    def open(name: str) -> Awaitable[IMailbox]:
        """
        The live mailbox: the same object for everybody who opens it while it is in use.

        Raises:
            NoSuchMailbox: none of that name, or it is not selectable.
        """

    def create(name: str, special_use: str | None = None) -> Awaitable[None]:
        """
        Make a mailbox, and those above it that are missing.

        Raises:
            MailboxExists, InvalidName, NotPermitted.
        """

    def delete(name: str) -> Awaitable[None]:
        """
        Remove a mailbox and its messages.  One that has children stays as a name that is
        not selectable (RFC 3501 §6.3.4).

        Raises:
            NoSuchMailbox; NotPermitted for INBOX, or for a name that is not selectable and
            has children.
        """

    def rename(old: str, new: str) -> Awaitable[None]:
        """
        Rename a mailbox and all below it; UIDs and UIDVALIDITY are kept.

        INBOX stays: its messages move to the new mailbox (RFC 3501 §6.3.5).

        Raises:
            NoSuchMailbox, MailboxExists, InvalidName, NotPermitted.
        """

    def subscribe(name: str, subscribed: bool) -> Awaitable[None]:
        """Put a name on the list of subscriptions or take it off; it need not exist."""


class IMailStore(Interface):
    """
    A whole backend, one object a server.

    Account names are canonical when they get here: lower case, `local@domain`.
    """

    def start() -> Awaitable[None]:
        """
        Open files, upgrade, recover.  Nothing else is called before it is done.

        Raises:
            DataDirectoryError, StorageFull.
        """

    def stop() -> Awaitable[None]:
        """Finish what is under way and close.  `start` may follow."""

    def accounts() -> Awaitable[Sequence[str]]:
        """All account names, sorted."""

    def has_account(name: str) -> Awaitable[bool]:
        """Whether mail for this account can be kept.  Asked for every recipient: fast."""

    def account(name: str) -> Awaitable[IMailAccount]:
        """
        The account's mailboxes.

        Raises:
            NoSuchAccount.
        """

    def create_account(name: str) -> Awaitable[None]:
        """
        Make an account with an INBOX and `values.SPECIAL_MAILBOXES`, all subscribed.

        A store that cannot make accounts raises NotPermitted.

        Raises:
            AccountExists, InvalidName, NotPermitted.
        """

    def remove_account(name: str) -> Awaitable[None]:
        """
        Remove an account and its mail.

        Raises:
            NoSuchAccount, NotPermitted.
        """


# Abilities: each optional, each small


@dataclass(frozen=True, slots=True)
class Delivery:
    """One operation of `ICommitsTogether.commit`: append `message` to `mailbox` of `account`."""

    account: str
    mailbox: str
    message: NewMessage


class ICommitsTogether(Interface):
    """A store that can append to several accounts and to its queue at once, all or none."""

    queue: IQueueStore | None = Attribute("The queue that `commit` adds items to; None if it has none.")

    def commit(
        deliveries: Sequence[Delivery], items: Sequence[NewItem] = (), results: Sequence[Settled] = ()
    ) -> Awaitable[tuple[Sequence[int], Sequence[int]]]:
        """
        Args:
            items, results: for `queue`, as its `settle` takes them; there must be none where that is
                None.

        Returns:
            the UIDs in the order of `deliveries`, and the ids in the order of `items`.

        Raises:
            as `IMailbox.append`, and NoSuchAccount; then nothing was appended, added or settled.
        """


class IMovesMessages(Interface):
    """A mailbox that can move messages atomically (RFC 6851)."""

    def move(uids: UIDSet, destination: str) -> Awaitable[Copied]:
        """
        As `IMailbox.copy`, and the originals are expunged in the same commit.

        Moving to the mailbox itself is refused with NotPermitted.
        """


class IReadsMany(Interface):
    """A mailbox that reads many small messages in one call."""

    def contents(uids: UIDSet, limit: int) -> Awaitable[Sequence[tuple[int, bytes]]]:
        """
        (uid, prefix and body) for the first of these messages, ascending, as many as fit
        in `limit` octets together.

        Stops before a message that does not fit (so it may answer with nothing); a message that
        is gone is passed over.
        """


class IReadsOutlines(Interface):
    """A mailbox that reads the outlines of many messages in one piece."""

    def records(uids: UIDSet) -> Awaitable[Records]:
        """
        What `IMailbox.outlines` has of these messages, in columns: FETCH of a whole mailbox asks so.

        There may be others among them, and such as have just been expunged.
        """


class IKeepsDerived(Interface):
    """
    A mailbox that keeps octets made of its messages, so that they need not be made again.

    They are kept for whole blocks of UIDs (`values.BLOCK`) to which no message can come any more, and
    forgotten as soon as one of the block's messages goes.  A store may forget them at any time.
    """

    def derived(kinds: Collection[str], blocks: UIDSet) -> Awaitable[Sequence[Derived]]:
        """What is kept of these kinds for these blocks, in any order."""

    def keep_derived(some: Sequence[Derived]) -> Awaitable[None]:
        """
        Keep each in place of what was kept of its kind for its block, unless the block has another number
        of messages by now, or can get more.  Need not be durable.

        Raises:
            StorageFull.
        """


class ISearches(Interface):
    """
    A mailbox with an index over text.  The core does all other searching itself.
    """

    def containing(field: str | None, text: str, among: UIDSet) -> Awaitable[UIDSet]:
        """
        Messages of `among` whose header `field` (lower case), or body if None, contains
        `text` as a substring, without case.
        """


class IClaimsRecent(Interface):
    """A mailbox that tells each message's first reader that it is the first (RFC 3501 §2.3.2)."""

    def claim_recent() -> Awaitable[UIDSet]:
        """The UIDs that nobody claimed before; they count as claimed from now on."""


class IVerifiable(Interface):
    """A store that can say whether it still has everything whole, as `mailplat check` asks."""

    def verify() -> Awaitable[Sequence[str]]:
        """
        Read everything and compare; other processes may go on using the store.

        Returns:
            one line for each thing that is wrong; none if all is well.
        """


# Avatars


class IMailReceiver(Interface):
    """
    Takes mail from one SMTP or LMTP peer; what it accepts is what the peer may do.

    One avatar may serve many transactions, one after the other.
    """

    def sender(envelope: Envelope) -> Awaitable[None]:
        """
        May this peer send as `envelope.sender`?  The recipients are empty yet.

        Raises:
            SenderRefused, MessageTooLarge (by the declared size), RateExceeded, StorageFull,
            TooBusy.
        """

    def recipient(envelope: Envelope, recipient: Address) -> Awaitable[None]:
        """
        May this peer send to `recipient`, after those already in the envelope?

        Raises:
            NoSuchRecipient, RelayDenied, RateExceeded, OverQuota, LimitExceeded.
        """

    def message(envelope: Envelope, message: ISpooledMessage) -> Awaitable[Sequence[Outcome]]:
        """
        Take responsibility for the message.  The caller closes it afterwards.

        Returns:
            an outcome for each of `envelope.recipients`, in their order.  All success
            is durable.

        Raises:
            MailError: the same for all recipients.
        """


class IVerifiesAddresses(Interface):
    """A receiver whose peer may ask who is here (VRFY, RFC 5321 §3.5)."""

    def verify(address: Address) -> Awaitable[bool]:
        """
        Whether mail for this address would be delivered; False if that cannot be said.

        Raises:
            NoSuchRecipient: it would not.
        """


class IMaildrop(Interface):
    """The avatar of POP3: a snapshot of INBOX, held exclusively until released."""

    def messages() -> Sequence[tuple[str, int]]:
        """(unique identifier, size in octets) of each message, oldest first; never changes."""

    def content(index: int) -> Awaitable[IMessageContent]:
        """
        The bytes of the message at `index` (from 0).

        Raises:
            NoSuchMessage: it was expunged by somebody else meanwhile.
        """

    def outline(index: int) -> Awaitable[Outlined]:
        """Where its header ends.  Raises NoSuchMessage."""

    def delete(indexes: Iterable[int]) -> Awaitable[None]:
        """Remove these messages, all or none."""

    def release() -> None:
        """Let others have the maildrop.  May be called twice."""


# Delivery


class ISpoolWriter(Interface):
    """Takes one message as it arrives."""

    size: int = Attribute("Octets written so far.")

    def write(chunk: bytes) -> Awaitable[None]:
        """Add bytes, which may end anywhere.  Raises StorageFull."""

    def finish() -> Awaitable[ISpooledMessage]:
        """
        The complete message.  Raises StorageFull.
        """

    def abandon() -> None:
        """Forget it.  May be called at any time, also after `finish`, when it does nothing."""


class ISpool(Interface):
    """Where messages are held between the wire and their home."""

    def begin() -> ISpoolWriter:
        """Start a message."""


class IRouter(Interface):
    """Says where a recipient's mail goes."""

    def route(recipient: Address, sender: Address | None) -> Awaitable[Sequence[Target]]:
        """
        Where mail for `recipient` goes.

        An alias may have several targets; no two are the same, and the result is never empty.

        Args:
            sender: the reverse-path, which may choose the next hop; None for the null one.

        Raises:
            NoSuchRecipient: a domain of ours, but nobody there.
        """

    def is_local(domain: str) -> bool:
        """The domain is one of ours, so nobody else would accept its mail."""

    def owns(account: str, sender: Address) -> Awaitable[bool]:
        """`account` may send mail as `sender`."""


class IDeliveryAgent(Interface):
    """
    Carries a message to recipients of one kind.

    It may be asked for several messages at once, and for the same message and target again
    when an attempt failed or the server was killed before its outcome was on disk.
    """

    def deliver(
        envelope: Envelope, message: ISpooledMessage, prefix: bytes, targets: Sequence[Target]
    ) -> Awaitable[Sequence[Outcome]]:
        """
        Args:
            envelope: as the peer stated it; its recipients are those of `targets`, and its
                requests are by their addresses.
            message: stays the caller's.
            prefix: trace header lines for every copy; the agent puts its own (Return-Path,
                Delivered-To) before them.
            targets: the same place may occur twice.

        Returns:
            an outcome for each of `targets`, in their order; success is durable, or
            acknowledged by the next hop.  TemporaryError asks for another attempt later.

        Raises:
            MailError: the same for all of them.  HostUnreachable has the queue leave the place
                alone for a while.
        """


class IDeliversWithQueue(IDeliveryAgent):
    """
    An agent whose deliveries can be in one commit with what the queue writes down.

    Mail from the queue is then delivered exactly once, even if the server is killed.
    """

    def deliver_with(
        envelope: Envelope,
        message: ISpooledMessage,
        prefix: bytes,
        targets: Sequence[Target],
        queue: IQueueStore,
        items: Sequence[NewItem] = (),
        results: Sequence[Settled] = (),
    ) -> Awaitable[Sequence[int] | None]:
        """
        As `deliver`; and the queue adds `items` and settles `results`, all or none.

        Returns:
            the ids of `items`; None if it cannot do that with this queue: then nothing was done.

        Raises:
            MailError: nothing was done.
        """


# The queue


@dataclass(frozen=True, slots=True)
class NewItem:
    """
    A message on its way into the queue.

    Attributes:
        envelope: as `QueueItem.envelope`.
        body: stays owned by the caller, as in `NewMessage`.
        prefix: trace header lines; may be empty.
        recipients: numbered from 0 in their order; at least one.
        account, arrived: as in `QueueItem`.
    """

    envelope: Envelope
    body: ISpooledMessage
    prefix: bytes
    recipients: Sequence[QueuedRecipient]
    account: str
    arrived: int


class IQueueStore(Interface):
    """
    Keeps messages until each of their recipients is done with.

    Times are whole seconds since 1970, as the caller's clock has them.  A million items
    waiting cost no memory and no slow start: everything that is asked for is bounded and
    answered from an index.

    A recipient that `take` or `take_overdue` handed out is *taken*: neither hands it out again
    until it is settled or given back, or this process ends.  Whoever changes items meanwhile
    (another process that cancels one) need not know: settling what is gone changes nothing.
    """

    def add(items: Sequence[NewItem]) -> Awaitable[Sequence[int]]:
        """
        Add all or none.

        Returns:
            their ids, ascending.

        Raises:
            StorageFull.
        """

    def places(most: int, besides: Collection[tuple[str, str]]) -> Awaitable[Sequence[tuple[str, str, int]]]:
        """
        The next hops for which something waits: (agent, place, earliest due), soonest first.

        What is taken counts with its old time until it is settled.  Held recipients do not count.
        A next hop at rest has at least the time that `rest` gave it.

        Args:
            most: how many at the most.
            besides: (agent, place) pairs to leave out; a few hundred at the most.
        """

    def take(agent: str, place: str, before: int, most: int) -> Awaitable[Sequence[QueueItem]]:
        """
        Items that are due for this next hop at `before` or sooner, soonest first, each with those
        of its recipients that are; they are taken from now on.  Nothing of a next hop at rest.

        Args:
            most: items, at the most.
        """

    def rest(agent: str, place: str, until: int) -> Awaitable[None]:
        """
        Leave a next hop alone until then, whatever waits for it; 0 ends that.

        It need not survive a crash.
        """

    def take_overdue(before: int, most: int) -> Awaitable[Sequence[QueueItem]]:
        """
        Items whose sender is to be told at `before` or sooner, soonest first, each with the
        recipients that it is about; they are taken from now on.
        """

    def give_back(item: int, numbers: Collection[int]) -> None:
        """These are not taken any more, and are as they were."""

    def message(item: int) -> Awaitable[tuple[ISpooledMessage, bytes]]:
        """
        The message and its prefix; the caller closes the message.

        Raises:
            NoSuchMessage: the item is gone.
        """

    def settle(results: Sequence[Settled], items: Sequence[NewItem] = ()) -> Awaitable[None]:
        """
        Write down what attempts came to, and add items (reports about them), in one commit.

        An item whose recipients are all done with is removed.  The recipients are not taken any
        more.  Where `change` gave a taken recipient another target, due or notice meanwhile, these
        three stay as they were decided; the rest is as `results` says.

        Raises:
            StorageFull: nothing was changed, and they are still taken.
        """

    def status() -> Awaitable[QueueStatus]:
        """The counters, without looking at every item where possible."""

    def items(after: int, most: int) -> Awaitable[Sequence[QueueItem]]:
        """Items whose id is greater than `after`, ascending, with all their recipients."""

    def item(item: int) -> Awaitable[QueueItem]:
        """
        One item.

        Raises:
            NoSuchMessage.
        """

    def change(recipients: Sequence[Settled]) -> Awaitable[int]:
        """
        What an operator decides: as `settle`, also for what is taken, and without ending that.

        Returns:
            how many of the recipients were there to be changed.
        """

    def watch(hint: Callable[[], None]) -> Callable[[], None]:
        """
        Have `hint()` called, in the reactor thread, when something may have become due sooner: when
        items were added or changed, by whatever process.  What `settle` itself puts off is not told.

        As in `IMailbox.watch`, it may be lost, repeated or late.

        Returns:
            a callable that stops it; may be called twice.
        """


# Other hosts


class IResolver(Interface):
    """
    Looks names up in the DNS.

    Names are given and returned in ASCII (A-labels), lower case, without the last dot.
    """

    def mail_exchangers(domain: str) -> Awaitable[Sequence[tuple[int, str]]]:
        """
        (preference, host name) of each MX record, lowest preference first; none if the domain
        has no MX.  The host name is empty in a null MX (RFC 7505).

        Raises:
            NoSuchDomain: there is no such name.
            NotResolved: there was no answer.
        """

    def addresses(host: str) -> Awaitable[Sequence[str]]:
        """
        IPv6 and IPv4 addresses as text, as they are to be tried; none if there are none.

        Raises:
            NoSuchDomain, NotResolved.
        """


class ITLSPolicy(Interface):
    """Says what TLS must be like on the way to another domain's hosts."""

    def requirement(domain: str, host: str) -> Awaitable[TLSRequirement]:
        """
        Args:
            domain: the recipients' domain, or the next hop as it was configured.
            host: the host that is about to be connected to.

        Raises:
            TemporaryError: it cannot be found out now; the host is not to be used.
        """


# Logging in


class IScramCredentials(Interface):
    """
    Credentials of a SCRAM exchange under way (RFC 5802); a checker for this interface
    finds the user's record and lets the exchange decide.
    """

    username: bytes = Attribute("As the client gave it, UTF-8.")

    def exchange(record: ScramRecord) -> Awaitable[bool]:
        """
        Carry the exchange on with this record.

        For an unknown user pass an invented record (`known` False), always the same for the
        same name, so that the peer learns nothing.

        Returns:
            True if the client proved that it knows the password.
        """


# Finding parts


class IStoreFactory(Interface):
    """
    Makes a store from a line such as `sqlite:/var/mail`.

    Found by name among the entry points of group `mailplat.stores` and among the plugins
    of `twisted.plugin`.
    """

    name: str = Attribute("What stands before the colon: a lower-case word.")
    help: str = Attribute("What it is and what may stand after the colon.")

    def generate(argument: str, context: StoreContext) -> IMailStore:
        """
        Args:
            argument: what stands after the colon; may be empty.

        Raises:
            ConfigurationError: `argument` makes no sense.
        """


class IAgentFactory(Interface):
    """
    Makes a delivery agent from a line such as `pipe:/usr/bin/procmail`.

    Found by name as `IStoreFactory` is, in group `mailplat.agents`.
    """

    name: str = Attribute("What stands before the colon: a lower-case word.")
    help: str = Attribute("What it is and what may stand after the colon.")

    def generate(argument: str, context: StoreContext) -> IDeliveryAgent:
        """
        Args:
            argument: what stands after the colon; may be empty.

        Raises:
            ConfigurationError: `argument` makes no sense.
        """


@dataclass(frozen=True, slots=True)
class StoreContext:
    """
    What a store may use besides its argument.

    Attributes:
        reactor: provides IReactorTime, IReactorThreads and IReactorFromThreads.
        directory: the server's data directory, which exists.
    """

    reactor: Any
    directory: str
