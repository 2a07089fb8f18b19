"""
What an IMAP client can ask for: one frozen value per command, search keys, and fetch plans.

Only words stand here; `parsing` makes them from bytes, `engine` hands them out, sessions
act on them.  Mailbox names are Unicode with "/" between levels and "INBOX" in capitals;
flag names are text, system flags in their canonical spelling; dates are as in `values`.

A sequence set keeps its `*` until it is known what the largest number is: see
`SequenceSet.resolve`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum

from mailplat.imap.grammar import SequenceSet
from mailplat.values import FlagChange


@dataclass(frozen=True, slots=True)
class Command:
    """
    Anything a client asked for.

    Attributes:
        tag: as the client chose it, to be repeated in the tagged response.
    """

    tag: bytes


# Any state


class Capability(Command):
    """RFC 3501 §6.1.1."""

    __slots__ = ()


class Noop(Command):
    """RFC 3501 §6.1.2."""

    __slots__ = ()


class Logout(Command):
    """RFC 3501 §6.1.3."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ID(Command):
    """
    RFC 2971.

    Attributes:
        parameters: (name, value) pairs in the client's order, names in lower case;
            empty for NIL.
    """

    parameters: tuple[tuple[str, str | None], ...]


# Not authenticated


class StartTLS(Command):
    """RFC 3501 §6.2.1."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Authenticate(Command):
    """
    RFC 3501 §6.2.2.

    Attributes:
        mechanism: in capitals.
        initial: the initial response, decoded (RFC 4959); None if there was none.
    """

    mechanism: str
    initial: bytes | None


@dataclass(frozen=True, slots=True)
class Login(Command):
    """RFC 3501 §6.2.3.  Whatever octets the client sent; the password is not shown by repr."""

    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"Login(tag={self.tag!r}, user={self.user!r})"


# Authenticated


@dataclass(frozen=True, slots=True)
class Enable(Command):
    """RFC 5161.  Names in capitals, in the client's order."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Select(Command):
    """
    RFC 3501 §6.3.1.

    Attributes:
        condstore: the parameter of RFC 7162 §3.1.8 was given.
    """

    mailbox: str
    condstore: bool = False


class Examine(Select):
    """RFC 3501 §6.3.2: Select, read-only.  Mind the order of isinstance checks."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Create(Command):
    """
    RFC 3501 §6.3.3.

    A hierarchy separator at the end of the name, which only declares that names will be
    made below, is taken off.
    """

    mailbox: str


@dataclass(frozen=True, slots=True)
class Delete(Command):
    """RFC 3501 §6.3.4."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename(Command):
    """RFC 3501 §6.3.5."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Subscribe(Command):
    """RFC 3501 §6.3.6."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Unsubscribe(Command):
    """RFC 3501 §6.3.7."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class List(Command):
    """
    RFC 3501 §6.3.8.

    Attributes:
        reference: a mailbox name, or the beginning of one; often empty.
        pattern: `*` matches anything, `%` anything but the separator; empty asks for
            the separator.
    """

    reference: str
    pattern: str


class Lsub(List):
    """RFC 3501 §6.3.9: as List, of subscribed names.  Mind the order of isinstance checks."""

    __slots__ = ()


class Namespace(Command):
    """RFC 2342."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Status(Command):
    """
    RFC 3501 §6.3.10.

    Attributes:
        items: of MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ (RFC 7162
            §3.1.7) and APPENDLIMIT (RFC 7889), in the client's order, each once.
    """

    mailbox: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Append(Command):
    """
    RFC 3501 §6.3.11.  The message itself follows as further events of the engine.

    Attributes:
        flags: without \\Recent.
        date: INTERNALDATE in seconds since 1970 UTC, or None.
        size: octets that the client will send.
        synchronizing: the client waits for "+" before it sends them.
    """

    mailbox: str
    flags: frozenset[str]
    date: int | None
    size: int
    synchronizing: bool


class Idle(Command):
    """RFC 2177.  The engine waits for DONE."""

    __slots__ = ()


# Selected


class Check(Command):
    """RFC 3501 §6.4.1."""

    __slots__ = ()


class Close(Command):
    """RFC 3501 §6.4.2."""

    __slots__ = ()


class Unselect(Command):
    """RFC 3691."""

    __slots__ = ()


class Expunge(Command):
    """RFC 3501 §6.4.3."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class UIDExpunge(Command):
    """RFC 4315 §2.1."""

    uids: SequenceSet


@dataclass(frozen=True, slots=True)
class Fetch(Command):
    """
    RFC 3501 §6.4.5.

    Attributes:
        uid: `numbers` are UIDs, and the plan has UID in it whatever the client asked.
        changed_since: only messages whose modseq is greater (RFC 7162 §3.1.4.1); the
            plan has MODSEQ in it then.
    """

    uid: bool
    numbers: SequenceSet
    plan: FetchPlan
    changed_since: int | None = None


@dataclass(frozen=True, slots=True)
class Store(Command):
    """
    RFC 3501 §6.4.6.

    Attributes:
        silent: the client does not want to be told the new flags.
        unchanged_since: RFC 7162 §3.1.3, or None.
    """

    uid: bool
    numbers: SequenceSet
    change: FlagChange
    silent: bool
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy(Command):
    """RFC 3501 §6.4.7."""

    uid: bool
    numbers: SequenceSet
    mailbox: str


@dataclass(frozen=True, slots=True)
class Move(Command):
    """RFC 6851."""

    uid: bool
    numbers: SequenceSet
    mailbox: str


@dataclass(frozen=True, slots=True)
class Search(Command):
    """
    RFC 3501 §6.4.4.

    Attributes:
        uid: the answer is to be in UIDs.
        key: the whole criterion, decoded from its charset.
        returns: of MIN MAX ALL COUNT as asked with RETURN (RFC 4731), where an empty
            list means ALL; None for a plain SEARCH.
        modseq: the criterion has MODSEQ in it somewhere (RFC 7162 §3.1.5).
    """

    uid: bool
    key: Key
    returns: frozenset[str] | None = None
    modseq: bool = False


# What FETCH can fetch


class Item(Enum):
    """The kinds of data items of FETCH."""

    UID = "UID"
    FLAGS = "FLAGS"
    INTERNALDATE = "INTERNALDATE"
    SIZE = "RFC822.SIZE"
    MODSEQ = "MODSEQ"
    ENVELOPE = "ENVELOPE"
    BODY = "BODY"
    BODYSTRUCTURE = "BODYSTRUCTURE"
    SECTION = "BODY[...], RFC822, RFC822.HEADER and RFC822.TEXT"

    # An Enum's own is a function in Python, and all that FETCH looks up is looked up by these.
    __hash__ = object.__hash__


#: Items answered from the columns of a mailbox, without looking at messages.
COLUMN_ITEMS = frozenset({Item.UID, Item.FLAGS, Item.INTERNALDATE, Item.SIZE, Item.MODSEQ})

#: Items answered from a message's outline.
OUTLINE_ITEMS = frozenset({Item.ENVELOPE, Item.BODY, Item.BODYSTRUCTURE})


@dataclass(frozen=True, slots=True)
class FetchItem:
    """
    One data item of FETCH.

    Attributes:
        label: exactly as the response names it, for example `FLAGS`,
            `BODY[1.2.MIME]<0>` or `RFC822`.

    The others matter where `kind` is SECTION only:

        path: part numbers; empty for the message itself.
        what: None (everything), "HEADER", "TEXT", "MIME", "HEADER.FIELDS" or
            "HEADER.FIELDS.NOT".
        fields: names of header fields in lower case.
        partial: (start, most octets) or None.
        peek: reading it does not set \\Seen.
    """

    kind: Item
    label: bytes
    path: tuple[int, ...] = ()
    what: str | None = None
    fields: frozenset[bytes] = frozenset()
    partial: tuple[int, int] | None = None
    peek: bool = True

    @property
    def negate(self) -> bool:
        """All header fields but the named ones."""
        return self.what == "HEADER.FIELDS.NOT"


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """
    What one FETCH wants of each message; shared by all commands that say the same.

    Attributes:
        items: in the client's order, each once.
        kinds: their kinds.
        columns_only: all can be answered from columns.
        outlines: some need to know where a message's parts are.
        sections: those of kind SECTION.
        sets_seen: one of them sets \\Seen.
    """

    items: tuple[FetchItem, ...]
    kinds: frozenset[Item]
    columns_only: bool
    outlines: bool
    sections: tuple[FetchItem, ...]
    sets_seen: bool

    @classmethod
    def of(cls, items: tuple[FetchItem, ...]) -> FetchPlan:
        kinds = frozenset(item.kind for item in items)
        sections = tuple(item for item in items if item.kind is Item.SECTION)
        return cls(
            items=items,
            kinds=kinds,
            columns_only=kinds <= COLUMN_ITEMS,
            outlines=bool(kinds & OUTLINE_ITEMS) or any(item.path or item.what for item in sections),
            sections=sections,
            sets_seen=not all(item.peek for item in sections),
        )


# What SEARCH can look for (RFC 3501 §6.4.4)


@dataclass(frozen=True, slots=True)
class Key:
    """A criterion of SEARCH."""


class All(Key):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class HasFlag(Key):
    """
    ANSWERED, UNANSWERED, KEYWORD x, UNKEYWORD x and so on.

    Attributes:
        flag: a system flag ("\\Seen") or a keyword as the client spelt it.
        present: False for the UN... keys.
    """

    flag: str
    present: bool = True


@dataclass(frozen=True, slots=True)
class Recent(Key):
    """RECENT, or OLD where `present` is False.  NEW is And((Recent(), HasFlag("\\Seen", False)))."""

    present: bool = True


class When(Enum):
    """How a day is compared."""

    BEFORE = "before"
    ON = "on"
    SINCE = "on or after"


@dataclass(frozen=True, slots=True)
class ReceivedOn(Key):
    """BEFORE, ON, SINCE: INTERNALDATE, disregarding time and timezone."""

    when: When
    day: date


@dataclass(frozen=True, slots=True)
class SentOn(Key):
    """SENTBEFORE, SENTON, SENTSINCE: the Date field, disregarding time and timezone."""

    when: When
    day: date


@dataclass(frozen=True, slots=True)
class Larger(Key):
    """More octets than `size`."""

    size: int


@dataclass(frozen=True, slots=True)
class Smaller(Key):
    """Fewer octets than `size`."""

    size: int


@dataclass(frozen=True, slots=True)
class HeaderContains(Key):
    """
    HEADER, and BCC CC FROM TO.

    Attributes:
        field: in lower case.
        text: empty matches every message that has the field.
    """

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class SubjectContains(Key):
    """
    SUBJECT, of which RFC 3501 §6.4.4 says that it is the envelope's.

    Attributes:
        text: empty matches every message that has a subject.
    """

    text: str


@dataclass(frozen=True, slots=True)
class BodyContains(Key):
    """BODY."""

    text: str


@dataclass(frozen=True, slots=True)
class TextContains(Key):
    """TEXT: header or body."""

    text: str


@dataclass(frozen=True, slots=True)
class Numbered(Key):
    """A bare sequence set: message sequence numbers."""

    numbers: SequenceSet


@dataclass(frozen=True, slots=True)
class UIDs(Key):
    """UID."""

    uids: SequenceSet


@dataclass(frozen=True, slots=True)
class ModSeq(Key):
    """
    MODSEQ (RFC 7162 §3.1.5): the message's modseq is at least `modseq`.

    Attributes:
        entry: an entry name such as "/flags/\\Seen", or None.  A server that keeps one
            modseq a message ignores it.
        kind: "priv", "shared" or "all"; None without `entry`.
    """

    modseq: int
    entry: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Not(Key):
    key: Key


@dataclass(frozen=True, slots=True)
class Or(Key):
    left: Key
    right: Key


@dataclass(frozen=True, slots=True)
class And(Key):
    """Two or more keys beside each other, or in parentheses."""

    keys: tuple[Key, ...]


def leaves(key: Key) -> Iterator[Key]:
    """All criteria inside `key` that are not And, Or or Not."""
    waiting = [key]
    while waiting:
        key = waiting.pop()
        match key:
            case And(keys):
                waiting.extend(keys)
            case Or(left, right):
                waiting += (left, right)
            case Not(inner):
                waiting.append(inner)
            case _:
                yield key
