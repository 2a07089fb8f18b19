"""
What an IMAP server says: an encoder for each response, bytes out.

Rows of a mailbox are rendered in bulk (`rows`): the format of one line is repeated for all of
them and filled once, so that the loop over messages is one in C.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from mailplat.imap import grammar
from mailplat.imap.commands import FetchItem, Item
from mailplat.message.compose import InternalDates
from mailplat.uids import UIDSet
from mailplat.values import FIRST_KEYWORD, MAX_KEYWORDS, SYSTEM_FLAGS, Columns, MailboxInfo, flag_names


def tagged(tag: bytes, kind: bytes, text: str, code: bytes = b"") -> bytes:
    """`tag OK [code] text`; `kind` is OK, NO or BAD; the tag `*` makes it untagged (RFC 3501 §7.1)."""
    bracket = b"[%b] " % code if code else b""
    clean = text.replace("\r", " ").replace("\n", " ") or "Done"
    return b"%b %b %b%b\r\n" % (tag, kind, bracket, clean.encode("ascii", "replace"))


def number(value: int, what: bytes) -> bytes:
    """`* 5 EXISTS`, RECENT or EXPUNGE."""
    return b"* %d %b\r\n" % (value, what)


def expunges(numbers: Sequence[int]) -> bytes:
    """`* n EXPUNGE` for each, in this order."""
    return b"* %d EXPUNGE\r\n" * len(numbers) % tuple(numbers)


def flags(keywords: Sequence[str]) -> bytes:
    """`* FLAGS (...)` of a mailbox (RFC 3501 §7.2.6)."""
    return b"* FLAGS (%b)\r\n" % " ".join((*SYSTEM_FLAGS, *keywords)).encode("utf-8")


def permanent_flags(keywords: Sequence[str], read_only: bool) -> bytes:
    """`* OK [PERMANENTFLAGS (...)]`; `\\*` says that more keywords can be made (RFC 3501 §7.1)."""
    more = ("\\*",) if len(keywords) < MAX_KEYWORDS else ()
    names = () if read_only else (*SYSTEM_FLAGS, *keywords, *more)
    return b"* OK [PERMANENTFLAGS (%b)] Flags that are kept\r\n" % " ".join(names).encode("utf-8")


def listed(name: bytes, info: MailboxInfo, children: bool) -> bytes:
    """
    `* LIST (...) "/" name`, or LSUB (RFC 3501 §7.2.2, RFC 3348, RFC 6154).

    Args:
        name: LIST or LSUB.
        children: there are mailboxes below it.
    """
    attributes = []
    if not (info.selectable and info.exists):
        attributes.append(b"\\Noselect")
    attributes.append(b"\\HasChildren" if children else b"\\HasNoChildren")
    if info.special_use and name == b"LIST":
        attributes.append(info.special_use.encode("ascii"))
    return b'* %b (%b) "/" %b\r\n' % (name, b" ".join(attributes), grammar.mailbox(info.name))


def status(mailbox: str, items: Iterable[tuple[str, int]]) -> bytes:
    """`* STATUS name (item value ...)`."""
    values = b" ".join(b"%b %d" % (name.encode("ascii"), value) for name, value in items)
    return b"* STATUS %b (%b)\r\n" % (grammar.mailbox(mailbox), values)


def searched(numbers: Sequence[int], modseq: int | None) -> bytes:
    """`* SEARCH n n n`, with the highest modseq where it was searched for (RFC 7162 §3.1.5)."""
    text = b" %d" * len(numbers) % tuple(numbers)
    end = b" (MODSEQ %d)" % modseq if modseq is not None and numbers else b""
    return b"* SEARCH%b%b\r\n" % (text, end)


def esearched(
    tag: bytes, by_uid: bool, numbers: Sequence[int], returns: frozenset[str], modseq: int | None
) -> bytes:
    """`* ESEARCH (TAG "a") UID MIN 1 ...` (RFC 4731 §3.1)."""
    words = [b"* ESEARCH (TAG %b)" % grammar.string(tag)]
    if by_uid:
        words.append(b"UID")
    if numbers:
        if "MIN" in returns:
            words.append(b"MIN %d" % numbers[0])
        if "MAX" in returns:
            words.append(b"MAX %d" % numbers[-1])
        if "ALL" in returns or not returns:
            words.append(b"ALL " + uid_set(numbers))
    if "COUNT" in returns:
        words.append(b"COUNT %d" % len(numbers))
    if modseq is not None and numbers:
        words.append(b"MODSEQ %d" % modseq)
    return b" ".join(words) + b"\r\n"


def uid_set(numbers: Iterable[int] | UIDSet) -> bytes:
    """Numbers as a sequence set."""
    return str(numbers if isinstance(numbers, UIDSet) else UIDSet.of(numbers)).encode("ascii")


# FETCH


class FlagTexts(dict[int, bytes]):
    """
    The text of each flag word, made when it is first needed.

    Args:
        mailbox: asked for its keywords, which may become more.
    """

    def __init__(self, mailbox: Any) -> None:
        super().__init__()
        self._mailbox = mailbox

    def __missing__(self, word: int) -> bytes:
        if len(self) > 10_000:
            self.clear()
        names = flag_names(word, self._mailbox.keywords)
        text = self[word] = " ".join(names).encode("utf-8")
        if word >> FIRST_KEYWORD and len(names) < word.bit_count():
            # A keyword that the list does not name yet: ask again next time.
            del self[word]
        return text


_FORMATS = {
    Item.UID: b"UID %d",
    Item.FLAGS: b"FLAGS (%b)",
    Item.INTERNALDATE: b"INTERNALDATE %b",
    Item.SIZE: b"RFC822.SIZE %d",
    Item.MODSEQ: b"MODSEQ (%d)",
    Item.ENVELOPE: b"ENVELOPE %b",
    Item.BODY: b"BODY %b",
    Item.BODYSTRUCTURE: b"BODYSTRUCTURE %b",
}


#: Nothing but columns.
NONE: Mapping[Item, Sequence[object]] = {}


class RowRenderer:
    """
    Renders rows of one mailbox for items that columns answer.

    Args:
        mailbox: an `IMailbox`, for the names of its keywords.
        dates: shared by all connections of a server.
    """

    def __init__(self, mailbox: Any, dates: InternalDates) -> None:
        self.texts = FlagTexts(mailbox)
        self._dates = dates

    def _column(self, kind: Item, columns: Columns, recent: UIDSet) -> Iterable[object]:
        match kind:
            case Item.UID:
                return columns.uids
            case Item.SIZE:
                return columns.sizes
            case Item.MODSEQ:
                return columns.modseqs
            case Item.INTERNALDATE:
                return self._dates.many(columns.dates)
            case _:
                if not recent and not columns.overflow:
                    return map(self.texts.__getitem__, columns.flags)
                return [self.flags(uid, word, recent) for uid, word, *_ in columns.rows()]

    def flags(self, uid: int, word: int, recent: UIDSet) -> bytes:
        """The flags of one message, with \\Recent where it is."""
        text = self.texts[word]
        if uid in recent:
            return b"\\Recent " + text if text else b"\\Recent"
        return text

    def lines(
        self,
        numbers: Sequence[int],
        columns: Columns,
        kinds: Sequence[Item],
        recent: UIDSet,
        prepared: Mapping[Item, Sequence[object]] = NONE,
    ) -> bytes:
        """
        `* n FETCH (...)` for each row.

        Args:
            prepared: for each kind that columns do not have, what is said of each row; or bytes, where NUL
                stands between one row and the next.
        """
        last = prepared.get(kinds[-1])
        filled = kinds[:-1] if isinstance(last, bytes) else kinds
        width = len(filled) + 1
        values: list[object] = [None] * (width * len(columns))
        values[0::width] = numbers
        for index, kind in enumerate(filled, 1):
            said = prepared.get(kind)
            if isinstance(said, bytes):
                said = said.split(b"\0")
            values[index::width] = said if said is not None else self._column(kind, columns, recent)
        start = b"* %d FETCH (" + b" ".join(_FORMATS[kind] for kind in kinds)
        if isinstance(last, bytes):
            # What is ready becomes part of the format, so that it need not be taken apart.
            start = start[:-2]
            lines = last.replace(b"%", b"%%").replace(b"\0", b")\r\n" + start)
            return b"".join((start, lines, b")\r\n")) % tuple(values)
        return (start + b")\r\n") * len(columns) % tuple(values)

    def fields(self, columns: Columns, kinds: Sequence[Item], recent: UIDSet) -> list[list[bytes]]:
        """For each row the data items of `kinds`, to be joined with others."""
        if not kinds:
            return [[] for _ in range(len(columns))]
        made = [
            [_FORMATS[kind] % (value,) for value in self._column(kind, columns, recent)] for kind in kinds
        ]
        return [list(row) for row in zip(*made, strict=True)]


def kinds_of(items: Iterable[FetchItem], extra: Iterable[Item] = ()) -> list[Item]:
    """The kinds of items, each once, `extra` after them."""
    return list(dict.fromkeys(chain((item.kind for item in items), extra)))
