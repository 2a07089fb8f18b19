"""
From the text of a command to its value: one small function per command, in one table.

What a command is comes from `framing`, its small words from `grammar`, and what becomes of
it is a class of `commands`.  Nothing here recurses: SEARCH keeps its own stack.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from mailplat.imap import commands as c
from mailplat.imap.grammar import LARGEST_MODSEQ, Cursor, Malformed, SequenceSet, astring
from mailplat.imap.limits import Limits
from mailplat.uids import LARGEST
from mailplat.values import SEPARATOR, FlagChange


class UnknownCharset(Malformed):
    """SEARCH in a charset that we do not have: NO [BADCHARSET ...] (RFC 3501 §6.4.4)."""


Reader = Callable[[Cursor, bytes, Limits], c.Command]


def command_name(cursor: Cursor) -> str:
    """
    The name of the command, for example "NOOP" or "UID FETCH".

    Raises:
        Malformed: there is none, or no command of ours is called that.
    """
    name = cursor.word("Command")
    if name == "UID" and cursor.skip(b" "):
        name = f"UID {cursor.word('Command')}"
    if name not in READERS:
        raise Malformed("Unknown command")
    return name


def read_arguments(name: str, cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
    """
    The command whose name was just read.

    Raises:
        Malformed, UnknownCharset.
    """
    command = READERS[name](cursor, tag, limits)
    cursor.end()
    return command


def append_head(cursor: Cursor, tag: bytes, size: int, synchronizing: bool) -> c.Append | None:
    """
    APPEND, read up to a literal that was announced where the text ends.

    Args:
        cursor: after the word APPEND.

    Returns:
        the command if that literal is the message; None if it is the mailbox's name.

    Raises:
        Malformed: it can be neither.
    """
    cursor.space()
    if cursor.at_end:
        return None
    mailbox = cursor.mailbox()
    cursor.space()
    flags: list[str] = []
    date: int | None = None
    if cursor.peek(b"("):
        flags = cursor.flag_list()
        cursor.space()
    if cursor.peek(b'"'):
        date = cursor.date_time()
        cursor.space()
    cursor.end()
    return c.Append(tag, mailbox, _settable(flags), date, size, synchronizing)


def _settable(flags: list[str]) -> frozenset[str]:
    # A client cannot change \Recent (RFC 3501 §2.3.2); flags that cannot be kept are passed
    # over (§7.1 PERMANENTFLAGS).
    return frozenset(flag for flag in flags if flag.lower() != "\\recent")


# One function per command


def _bare(kind: type[c.Command]) -> Reader:
    """A command without arguments."""

    def read(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
        return kind(tag)

    return read


def _named(kind: Callable[[bytes, str], c.Command]) -> Reader:
    """A command whose argument is a mailbox name."""

    def read(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
        cursor.space()
        return kind(tag, cursor.mailbox())

    return read


def _id(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
    cursor.space()
    if not cursor.skip(b"("):
        if cursor.word("NIL or a list") != "NIL":
            raise Malformed("NIL or a list expected")
        return c.ID(tag, ())
    pairs: list[tuple[str, str | None]] = []
    while not cursor.skip(b")"):
        if pairs:
            cursor.space()
        if len(pairs) == limits.id_pairs:
            raise Malformed("Too many parameters")
        name = cursor.string("Parameter name").decode("utf-8", "replace").lower()
        cursor.space()
        value = cursor.nstring("Parameter value")
        pairs.append((name, None if value is None else value.decode("utf-8", "replace")))
    return c.ID(tag, tuple(pairs))


_BASE64_RE = re.compile(rb"[A-Za-z0-9+/]*+={0,2}+")


def decode_base64(text: bytes) -> bytes:
    """
    Strictly (RFC 3501 §9 base64): no other padding or character than printing would give.

    Raises:
        Malformed
    """
    try:
        decoded = binascii.a2b_base64(text)
    except binascii.Error:
        decoded = b""
    if binascii.b2a_base64(decoded, newline=False) != text:
        raise Malformed("Invalid base64")
    return decoded


def _authenticate(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
    cursor.space()
    mechanism = cursor.atom("Mechanism").decode("ascii").upper()
    initial: bytes | None = None
    if cursor.skip(b" "):
        text = cursor.match(_BASE64_RE, "Initial response")[0]
        if not text:
            raise Malformed("Initial response expected")
        # "=" stands for an empty initial response (RFC 4959 §3).
        initial = b"" if text == b"=" else decode_base64(text)
    return c.Authenticate(tag, mechanism, initial)


def _login(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
    cursor.space()
    user = cursor.astring("User name")
    cursor.space()
    return c.Login(tag, user, cursor.astring("Password"))


def _enable(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
    names: list[str] = []
    while not names or not cursor.at_end:
        cursor.space()
        names.append(cursor.atom("Capability").decode("ascii").upper())
    return c.Enable(tag, tuple(names))


def _select(kind: type[c.Select]) -> Reader:
    def read(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
        cursor.space()
        mailbox = cursor.mailbox()
        condstore = False
        if cursor.skip(b" ("):
            if cursor.word("Parameter") != "CONDSTORE":
                raise Malformed("Unknown parameter")
            cursor.expect(b")", "End of parameters")
            condstore = True
        return kind(tag, mailbox, condstore)

    return read


def _create(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
    cursor.space()
    mailbox = cursor.mailbox()
    # RFC 3501 §6.3.3: a separator at the end declares the intent to create names below.
    return c.Create(tag, mailbox[:-1] if len(mailbox) > 1 and mailbox.endswith(SEPARATOR) else mailbox)


def _rename(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
    cursor.space()
    old = cursor.mailbox()
    cursor.space()
    return c.Rename(tag, old, cursor.mailbox())


def _list(kind: type[c.List]) -> Reader:
    def read(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
        cursor.space()
        reference = cursor.mailbox_reference()
        cursor.space()
        return kind(tag, reference, cursor.mailbox_pattern())

    return read


STATUS_ITEMS = frozenset(
    {"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "HIGHESTMODSEQ", "APPENDLIMIT"}
)


def _status(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
    cursor.space()
    mailbox = cursor.mailbox()
    cursor.space()
    cursor.expect(b"(", "List of status items")
    items: dict[str, None] = {}
    while True:
        item = cursor.word("Status item")
        if item not in STATUS_ITEMS:
            raise Malformed("Unknown status item")
        items[item] = None
        if cursor.skip(b")"):
            return c.Status(tag, mailbox, tuple(items))
        cursor.space()


def _append(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
    # A whole APPEND without a message at its end: with one, `append_head` reads it.
    raise Malformed("Message literal expected")


def _uid_expunge(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
    cursor.space()
    return c.UIDExpunge(tag, cursor.sequence_set(limits.set_ranges))


def _copy(kind: type[c.Copy] | type[c.Move], uid: bool) -> Reader:
    def read(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
        cursor.space()
        numbers = cursor.sequence_set(limits.set_ranges)
        cursor.space()
        return kind(tag, uid, numbers, cursor.mailbox())

    return read


_STORE_RE = re.compile(rb"([+-]?)FLAGS(\.SILENT)?", re.IGNORECASE)


def _store(uid: bool) -> Reader:
    def read(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
        cursor.space()
        numbers = cursor.sequence_set(limits.set_ranges)
        cursor.space()
        unchanged_since: int | None = None
        if cursor.skip(b"("):
            if cursor.word("Modifier") != "UNCHANGEDSINCE":
                raise Malformed("Unknown modifier")
            cursor.space()
            unchanged_since = cursor.number("Modseq", LARGEST_MODSEQ)
            cursor.expect(b")", "End of modifiers")
            cursor.space()
        sign, silent = cursor.match(_STORE_RE, "FLAGS").groups()
        cursor.space()
        flags = _settable(cursor.flags())
        if sign == b"-":
            change = FlagChange(remove=flags)
        else:
            change = FlagChange(add=flags, replace=not sign)
        return c.Store(tag, uid, numbers, change, silent is not None, unchanged_since)

    return read


# FETCH

_SIMPLE_ITEMS = {
    item.value: (c.FetchItem(item, item.value.encode()),) for item in c.Item if item is not c.Item.SECTION
} | {
    # RFC 3501 §6.4.5: equivalent to BODY[], BODY.PEEK[HEADER] and BODY[TEXT], but for the label.
    "RFC822": (c.FetchItem(c.Item.SECTION, b"RFC822", peek=False),),
    "RFC822.HEADER": (c.FetchItem(c.Item.SECTION, b"RFC822.HEADER", what="HEADER"),),
    "RFC822.TEXT": (c.FetchItem(c.Item.SECTION, b"RFC822.TEXT", what="TEXT", peek=False),),
}
_UID = _SIMPLE_ITEMS["UID"]
_MODSEQ = _SIMPLE_ITEMS["MODSEQ"]

_FAST = ("FLAGS", "INTERNALDATE", "RFC822.SIZE")
_MACROS = {
    name: tuple(_SIMPLE_ITEMS[item][0] for item in items)
    for name, items in (
        ("FAST", _FAST),
        ("ALL", (*_FAST, "ENVELOPE")),
        ("FULL", (*_FAST, "ENVELOPE", "BODY")),
    )
}

_SECTION_RE = re.compile(rb"\[([0-9.]*+)([A-Za-z.]*+)")
_PARTIAL_RE = re.compile(rb"<([0-9]{1,10})\.([0-9]{1,10})>")
_TEXTS = frozenset({"HEADER", "TEXT", "MIME", "HEADER.FIELDS", "HEADER.FIELDS.NOT"})

#: Only item lists up to so many octets are remembered, and so many of them.
_LONGEST_REMEMBERED = 512
_REMEMBERED = 512


def _fetch(uid: bool) -> Reader:
    def read(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
        cursor.space()
        numbers = cursor.sequence_set(limits.set_ranges)
        cursor.space()
        rest = cursor.rest
        if len(rest) <= _LONGEST_REMEMBERED and not cursor.literals:
            plan, changed_since = _remembered_items(rest, uid, limits.fetch_items, limits.section_depth)
            cursor.at = len(cursor.text)
        else:
            plan, changed_since = _fetch_items(cursor, uid, limits.fetch_items, limits.section_depth)
        return c.Fetch(tag, uid, numbers, plan, changed_since)

    return read


# Clients repeat themselves: what they ask for each message is compiled once.  A pure
# function of its arguments, so that servers in one process may share the memory of it.
@lru_cache(_REMEMBERED)
def _remembered_items(rest: bytes, uid: bool, most: int, depth: int) -> tuple[c.FetchPlan, int | None]:
    return _fetch_items(Cursor(rest), uid, most, depth)


def _fetch_items(cursor: Cursor, uid: bool, most: int, depth: int) -> tuple[c.FetchPlan, int | None]:
    """The items of a FETCH, and the modifiers after them, up to the end of the command."""
    items: tuple[c.FetchItem, ...]
    if cursor.skip(b"("):
        items = _fetch_item(cursor, depth)
        count = 1
        while not cursor.skip(b")"):
            cursor.space()
            items += _fetch_item(cursor, depth)
            count += 1
            if count > most:
                raise Malformed("Too many items")
    else:
        start = cursor.at
        macro = _MACROS.get(cursor.word("Item"))
        if macro is None:
            cursor.at = start
            macro = _fetch_item(cursor, depth)
        items = macro

    changed_since: int | None = None
    if cursor.skip(b" ("):
        if cursor.word("Modifier") != "CHANGEDSINCE":
            raise Malformed("Unknown modifier")
        cursor.space()
        changed_since = cursor.number("Modseq", LARGEST_MODSEQ, least=1)
        cursor.expect(b")", "End of modifiers")
        # RFC 7162 §3.1.4.1: the response has MODSEQ whether asked for or not.
        items += _MODSEQ
    cursor.end()
    if uid:
        # RFC 3501 §6.4.8: the response has UID whether asked for or not.
        items = _UID + items
    return c.FetchPlan.of(_once(items)), changed_since


def _once(items: tuple[c.FetchItem, ...]) -> tuple[c.FetchItem, ...]:
    """Each label once; of BODY[] and BODY.PEEK[] the one that sets \\Seen."""
    kept: dict[bytes, c.FetchItem] = {}
    for item in items:
        if item.label not in kept or not item.peek:
            kept[item.label] = item
    return tuple(kept.values())


def _fetch_item(cursor: Cursor, depth: int) -> tuple[c.FetchItem, ...]:
    name = cursor.word("Item")
    if cursor.peek(b"[") and name in ("BODY", "BODY.PEEK"):
        return (_section(cursor, peek=name == "BODY.PEEK", depth=depth),)
    try:
        return _SIMPLE_ITEMS[name]
    except KeyError:
        raise Malformed("Unknown item") from None


def _section(cursor: Cursor, peek: bool, depth: int) -> c.FetchItem:
    """The section after BODY or BODY.PEEK (RFC 3501 §9 section)."""
    found = cursor.match(_SECTION_RE, "Section")
    numbers, text = found[1], found[2].decode("ascii").upper()
    path: tuple[int, ...] = ()
    if numbers:
        parts = numbers.split(b".")
        # "1.2.MIME" leaves an empty piece at the end, and "1.2" none.
        if text and parts.pop():
            raise Malformed("Section expected")
        if len(parts) > depth:
            raise Malformed("Section too deep")
        if not all(part and part[:1] != b"0" and len(part) <= 10 for part in parts):
            raise Malformed("Part number expected")
        path = tuple(map(int, parts))
    if text and (text not in _TEXTS or (text == "MIME" and not path)):
        raise Malformed("Unknown section")

    label = b"BODY[" + numbers + text.encode("ascii")
    fields: frozenset[bytes] = frozenset()
    if text.startswith("HEADER.FIELDS"):
        cursor.space()
        cursor.expect(b"(", "List of fields")
        start = cursor.at
        names = [cursor.astring("Field name")]
        while not cursor.skip(b")"):
            cursor.space()
            names.append(cursor.astring("Field name"))
        fields = frozenset(name.lower() for name in names)
        label += b" (" + _as_given(cursor, start, names)
    cursor.expect(b"]", "End of section")
    label += b"]"

    partial: tuple[int, int] | None = None
    if cursor.peek(b"<"):
        found = cursor.match(_PARTIAL_RE, "Partial range")
        first, length = int(found[1]), int(found[2])
        if not length or max(first, length) > LARGEST:
            raise Malformed("Partial range out of range")
        partial = (first, length)
        # RFC 3501 §7.4.2: the response names where it begins.
        label += b"<%d>" % first
    return c.FetchItem(c.Item.SECTION, label, path, text or None, fields, partial, peek)


def _as_given(cursor: Cursor, start: int, names: list[bytes]) -> bytes:
    """The list of fields that was read from `start` on, with its ")", as the client wrote it."""
    given = cursor.text[start : cursor.at]
    if b"\0" in given:
        # Literals are printed anew, quoted if possible.
        given = b" ".join(map(astring, names)) + b")"
    return given


# SEARCH

#: Charset names in capitals, and what Python calls them.
CHARSETS = {
    name.upper(): name
    for name in (
        "US-ASCII",
        "UTF-8",
        *(f"ISO-8859-{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16)),
        *(f"WINDOWS-{n}" for n in range(1250, 1259)),
        "KOI8-R",
        "KOI8-U",
        "GB2312",
        "GBK",
        "GB18030",
        "BIG5",
        "ISO-2022-JP",
        "SHIFT_JIS",
        "EUC-JP",
        "EUC-KR",
    )
}

_FLAG_KEYS = {
    prefix + name.upper(): c.HasFlag(f"\\{name}", present)
    for name in ("Answered", "Deleted", "Draft", "Flagged", "Seen")
    for prefix, present in (("", True), ("UN", False))
}
_BARE_KEYS: dict[str, c.Key] = {
    **_FLAG_KEYS,
    "ALL": c.All(),
    "RECENT": c.Recent(),
    "OLD": c.Recent(present=False),
    # RFC 3501 §6.4.4: "functionally equivalent to (RECENT UNSEEN)".
    "NEW": c.And((c.Recent(), c.HasFlag("\\Seen", present=False))),
}
_DATE_KEYS = {
    prefix + when.name: (kind, when)
    for prefix, kind in (("", c.ReceivedOn), ("SENT", c.SentOn))
    for when in c.When
}
_FIELD_KEYS = frozenset({"BCC", "CC", "FROM", "TO"})
_RETURNS = frozenset({"MIN", "MAX", "ALL", "COUNT"})
_ENTRY_TYPES = frozenset({"priv", "shared", "all"})


def _search(uid: bool) -> Reader:
    def read(cursor: Cursor, tag: bytes, limits: Limits) -> c.Command:
        cursor.space()
        returns: frozenset[str] | None = None
        if _ahead(cursor, b"RETURN "):
            cursor.expect(b"(", "List of results")
            named: set[str] = set()
            while not cursor.skip(b")"):
                if named:
                    cursor.space()
                name = cursor.word("Result")
                if name not in _RETURNS:
                    raise Malformed("Unknown result")
                named.add(name)
            # RFC 4731 §3.1: an empty list asks for ALL.
            returns = frozenset(named or {"ALL"})
            cursor.space()
        codec = "US-ASCII"
        if _ahead(cursor, b"CHARSET "):
            name = cursor.astring("Charset").decode("ascii", "replace").upper()
            if name not in CHARSETS:
                raise UnknownCharset("Unknown charset")
            codec = CHARSETS[name]
            cursor.space()
        keys = _Keys(cursor, codec, limits)
        return c.Search(tag, uid, keys.read(), returns, keys.modseq)

    return read


def _ahead(cursor: Cursor, word: bytes) -> bool:
    """Move past `word`, in any case, if it comes next."""
    end = cursor.at + len(word)
    if cursor.text[cursor.at : end].upper() != word:
        return False
    cursor.at = end
    return True


@dataclass(slots=True)
class _Open:
    """A key that waits for those inside it: "" (the whole search), "(", "NOT" or "OR"."""

    kind: str
    keys: list[c.Key] = field(default_factory=list)


class _Keys:
    """Reads the keys of one SEARCH, with a stack instead of recursion."""

    def __init__(self, cursor: Cursor, codec: str, limits: Limits) -> None:
        self.cursor = cursor
        self.codec = codec
        self.limits = limits
        self.modseq = False

    def read(self) -> c.Key:
        cursor = self.cursor
        stack = [_Open("")]
        while True:
            if len(stack) > self.limits.search_depth:
                raise Malformed("Search too deep")
            if cursor.skip(b"("):
                stack.append(_Open("("))
                continue
            first = cursor.text[cursor.at : cursor.at + 1]
            if first == b"*" or first.isdigit():
                key: c.Key = c.Numbered(self._set())
            else:
                name = cursor.word("Search key")
                if name in ("NOT", "OR"):
                    stack.append(_Open(name))
                    cursor.space()
                    continue
                key = self._key(name)
            # The key is complete: so may be those around it.
            while True:
                inside = stack[-1]
                inside.keys.append(key)
                if inside.kind == "NOT":
                    key = c.Not(key)
                elif inside.kind == "OR" and len(inside.keys) == 2:
                    key = c.Or(*inside.keys)
                elif inside.kind == "(" and cursor.skip(b")"):
                    key = _all_of(inside.keys)
                elif not inside.kind and cursor.at_end:
                    return _all_of(inside.keys)
                else:
                    cursor.space()
                    break
                stack.pop()

    def _key(self, name: str) -> c.Key:
        """A key that has no keys inside."""
        bare = _BARE_KEYS.get(name)
        if bare is not None:
            return bare
        if name not in _ARGUMENT_KEYS:
            raise Malformed("Unknown search key")
        cursor = self.cursor
        cursor.space()
        if name in _DATE_KEYS:
            kind, when = _DATE_KEYS[name]
            return kind(when, cursor.date())
        if name in _FIELD_KEYS:
            return c.HeaderContains(name.lower(), self._text())
        match name:
            case "SUBJECT":
                return c.SubjectContains(self._text())
            case "BODY":
                return c.BodyContains(self._text())
            case "TEXT":
                return c.TextContains(self._text())
            case "HEADER":
                # Field names are printable ASCII (RFC 5322 §2.2); no message has any other.
                field_name = cursor.astring("Field name").decode("ascii", "replace").lower()
                cursor.space()
                return c.HeaderContains(field_name, self._text())
            case "KEYWORD" | "UNKEYWORD":
                return c.HasFlag(cursor.atom("Keyword").decode("ascii"), name == "KEYWORD")
            case "LARGER":
                return c.Larger(cursor.number("Size"))
            case "SMALLER":
                return c.Smaller(cursor.number("Size"))
            case "UID":
                return c.UIDs(self._set())
            case _:
                return self._modseq()

    def _modseq(self) -> c.Key:
        """RFC 7162 §3.1.5, after the word MODSEQ."""
        self.modseq = True
        cursor = self.cursor
        entry: str | None = None
        kind: str | None = None
        if not cursor.text[cursor.at : cursor.at + 1].isdigit():
            entry = cursor.string("Entry name").decode("ascii", "replace")
            cursor.space()
            kind = cursor.word("Entry type").lower()
            if kind not in _ENTRY_TYPES:
                raise Malformed("Unknown entry type")
            cursor.space()
        return c.ModSeq(cursor.number("Modseq", LARGEST_MODSEQ), entry, kind)

    def _set(self) -> SequenceSet:
        return self.cursor.sequence_set(self.limits.set_ranges)

    def _text(self) -> str:
        raw = self.cursor.astring("Text")
        try:
            return raw.decode(self.codec)
        except UnicodeDecodeError:
            raise Malformed("Text is not in the charset of the search") from None


_ARGUMENT_KEYS = frozenset(
    {*_DATE_KEYS, *_FIELD_KEYS, "SUBJECT", "BODY", "TEXT", "HEADER", "KEYWORD", "UNKEYWORD"}
    | {"LARGER", "SMALLER", "UID", "MODSEQ"}
)


def _all_of(keys: list[c.Key]) -> c.Key:
    return keys[0] if len(keys) == 1 else c.And(tuple(keys))


#: Every command, by its name in capitals.
READERS: dict[str, Reader] = {
    "CAPABILITY": _bare(c.Capability),
    "NOOP": _bare(c.Noop),
    "LOGOUT": _bare(c.Logout),
    "ID": _id,
    "STARTTLS": _bare(c.StartTLS),
    "AUTHENTICATE": _authenticate,
    "LOGIN": _login,
    "ENABLE": _enable,
    "SELECT": _select(c.Select),
    "EXAMINE": _select(c.Examine),
    "CREATE": _create,
    "DELETE": _named(c.Delete),
    "RENAME": _rename,
    "SUBSCRIBE": _named(c.Subscribe),
    "UNSUBSCRIBE": _named(c.Unsubscribe),
    "LIST": _list(c.List),
    "LSUB": _list(c.Lsub),
    "NAMESPACE": _bare(c.Namespace),
    "STATUS": _status,
    "APPEND": _append,
    "IDLE": _bare(c.Idle),
    "CHECK": _bare(c.Check),
    "CLOSE": _bare(c.Close),
    "UNSELECT": _bare(c.Unselect),
    "EXPUNGE": _bare(c.Expunge),
    "UID EXPUNGE": _uid_expunge,
    "FETCH": _fetch(uid=False),
    "UID FETCH": _fetch(uid=True),
    "STORE": _store(uid=False),
    "UID STORE": _store(uid=True),
    "COPY": _copy(c.Copy, uid=False),
    "UID COPY": _copy(c.Copy, uid=True),
    "MOVE": _copy(c.Move, uid=False),
    "UID MOVE": _copy(c.Move, uid=True),
    "SEARCH": _search(uid=False),
    "UID SEARCH": _search(uid=True),
}
