"""
What an IMAP server says: an encoder for each response, bytes out.

Rows of a mailbox are rendered in bulk (`rows`): the format of one line is repeated for all of
them and filled once, so that the loop over messages is one in C.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, compress
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


#: The last three digits of a number, and of numbers that have no others.
_DIGITS = tuple(b"%03d" % rest for rest in range(1000))
_SMALL = tuple(b"%d" % rest for rest in range(1000))


def number_words(numbers: Sequence[int], mask: bytes) -> bytes:
    """
    Numbers as text, with a space before each.

    Args:
        numbers: ascending, at least one.
        mask: 1 for those that are wanted, 0 for others.
    """
    first, stop = numbers[0], numbers[-1] + 1
    if stop - first != len(numbers):
        chosen = tuple(compress(numbers, mask))
        return b" %d" * len(chosen) % chosen
    # What follows each other is written a thousand at a time, of which only the last digits differ.
    words = []
    for thousand in range(first // 1000, (stop - 1) // 1000 + 1):
        base = 1000 * thousand
        start, end = max(first, base), min(stop, base + 1000)
        digits = (_DIGITS if thousand else _SMALL)[start - base : end - base]
        some = b" ".join(compress(digits, mask[start - first : end - first]))
        if some:
            words.append((b" " + some).replace(b" ", b" %d" % thousand) if thousand else b" " + some)
    return b"".join(words)


def searched(words: bytes, modseq: int | None) -> bytes:
    """
    `* SEARCH n n n`.

    Args:
        words: as `number_words` makes them.
        modseq: the highest, where it was searched for (RFC 7162 §3.1.5).
    """
    end = b" (MODSEQ %d)" % modseq if modseq is not None and words else b""
    return b"* SEARCH%b%b\r\n" % (words, end)


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


def _all_alike(columns: Columns) -> bool:
    """Whether all rows have the same flags."""
    return not columns.overflow and columns.flags == columns.flags[:1] * len(columns)


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
        count = len(columns)
        items: list[bytes] = []
        filled: list[Iterable[object]] = [numbers]
        told: bytes | None = None
        for kind in kinds:
            ready = prepared.get(kind)
            if kind is Item.FLAGS and count and not recent and _all_alike(columns):
                # What is the same in all lines is part of their format.
                items.append((_FORMATS[kind] % self.texts[columns.flags[0]]).replace(b"%", b"%%"))
            elif kind is kinds[-1] and isinstance(ready, bytes):
                items.append(_FORMATS[kind][:-2])
                told = ready
            else:
                items.append(_FORMATS[kind])
                if isinstance(ready, bytes):
                    ready = ready.split(b"\0")
                filled.append(ready if ready is not None else self._column(kind, columns, recent))
        values: list[object] = [None] * (len(filled) * count)
        for index, column in enumerate(filled):
            values[index :: len(filled)] = column
        start, end = b"* %d FETCH (" + b" ".join(items), b")\r\n"
        if told is None:
            return (start + end) * count % tuple(values)
        # What is ready and last becomes part of the format, so that it need not be taken apart.
        told = told.replace(b"%", b"%%").replace(b"\0", end + start)
        return b"".join((start, told, end)) % tuple(values)

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
