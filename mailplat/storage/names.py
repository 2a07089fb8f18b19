"""
What can be done to names in the embedded store: accounts, mailboxes, subscriptions.

Each function acts in a `Transaction` and checks everything before it changes anything.
A name never becomes a path; it is text in a row.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailplat.errors import (
    AccountExists,
    InvalidName,
    MailboxExists,
    NoSuchAccount,
    NoSuchMailbox,
    NotPermitted,
)
from mailplat.storage.ledger import Transaction
from mailplat.uids import EVERYTHING, LARGEST
from mailplat.values import SEPARATOR, SPECIAL_MAILBOXES

INBOX = "INBOX"

#: Octets in UTF-8 of a mailbox's or an account's name.
LONGEST_NAME = 1000


def create_account(txn: Transaction, name: str) -> None:
    """See `IMailStore.create_account`."""
    if not is_printable(name):
        raise InvalidName()
    if txn.connection.execute("SELECT 1 FROM accounts WHERE name = ?", (name,)).fetchone():
        raise AccountExists()
    account = txn.connection.execute("INSERT INTO accounts (name) VALUES (?)", (name,)).lastrowid
    assert account is not None
    mailboxes = {INBOX: None, **SPECIAL_MAILBOXES}
    _make_all(txn, account, mailboxes)
    txn.connection.executemany(
        "INSERT INTO subscriptions VALUES (?, ?)", [(account, mailbox) for mailbox in mailboxes]
    )
    txn.accounts[name] = account


def remove_account(txn: Transaction, name: str) -> None:
    """See `IMailStore.remove_account`."""
    found = txn.connection.execute("SELECT id FROM accounts WHERE name = ?", (name,)).fetchone()
    if found is None:
        raise NoSuchAccount()
    (account,) = found
    for (mailbox,) in txn.connection.execute("SELECT id FROM mailboxes WHERE account = ?", found).fetchall():
        txn.remove_mailbox(txn.box(mailbox))
    txn.connection.execute("DELETE FROM subscriptions WHERE account = ?", (account,))
    txn.connection.execute("DELETE FROM accounts WHERE id = ?", (account,))
    txn.accounts[name] = None
    txn.changes += 1
    txn.names_changed()


def create(txn: Transaction, account: int, name: str, special_use: str | None) -> None:
    """See `IMailAccount.create`."""
    _check(txn, account, name)
    names = _names(txn, account)
    existing = names.get(name)
    if existing is not None:
        if existing[1]:
            raise MailboxExists()
        # It had only its children so far: the mailbox that comes is another one.
        txn.remove_mailbox(txn.box(existing[0]))
    _make_parents(txn, account, name, names)
    _make(txn, account, name, special_use)


def delete(txn: Transaction, account: int, name: str) -> None:
    """See `IMailAccount.delete`."""
    if name == INBOX:
        raise NotPermitted("INBOX cannot be deleted")
    names = _names(txn, account)
    if name not in names:
        raise NoSuchMailbox()
    mailbox, selectable = names[name]
    has_children = any(other.startswith(name + SEPARATOR) for other in names)
    if has_children and not selectable:
        raise NotPermitted("The name has others below it")
    txn.remove_mailbox(txn.box(mailbox))
    if has_children:
        # RFC 3501 §6.3.4: the name stays for those below it.
        _make(txn, account, name, None, selectable=False)


def rename(txn: Transaction, account: int, old: str, new: str) -> None:
    """See `IMailAccount.rename`."""
    names = _names(txn, account)
    if old not in names:
        raise NoSuchMailbox()
    _check(txn, account, new)
    if new in names:
        raise MailboxExists()
    if new.startswith(old + SEPARATOR) and old != INBOX:
        raise NotPermitted("A mailbox cannot be moved below itself")
    below = [name for name in names if name.startswith(old + SEPARATOR)]
    for name in () if old == INBOX else below:
        if len((new + name[len(old) :]).encode()) > LONGEST_NAME:
            raise InvalidName()
    _make_parents(txn, account, new, names)
    if old == INBOX:
        # RFC 3501 §6.3.5: INBOX stays, its messages go; those below it are left alone.
        target = txn.box(_make(txn, account, new, None))
        txn.move(txn.box(names[INBOX][0]), EVERYTHING, target)
        return
    for name in [old, *below]:
        row = txn.box(names[name][0])
        txn.touch(row)
        row.name = new + name[len(old) :]
        # At once, so that later statements of this transaction find it.
        txn.connection.execute("UPDATE mailboxes SET name = ? WHERE id = ?", (row.name, row.id))
    txn.names_changed()


def subscribe(txn: Transaction, account: int, name: str, subscribed: bool) -> None:
    """See `IMailAccount.subscribe`."""
    _check(txn, account, name)
    txn.changes += 1
    if subscribed:
        txn.connection.execute("INSERT OR IGNORE INTO subscriptions VALUES (?, ?)", (account, name))
    else:
        # Only this one: the list is its own, and a mailbox that goes stays on it (RFC 3501 §6.3.9).
        txn.connection.execute("DELETE FROM subscriptions WHERE account = ? AND name = ?", (account, name))


def is_printable(name: str) -> bool:
    """Not empty, not too long, no control characters, no half of a surrogate pair."""
    return 0 < len(name.encode("utf-8", "replace")) <= LONGEST_NAME and not any(
        character < " " or "\x7f" <= character <= "\x9f" or "\ud800" <= character <= "\udfff"
        for character in name
    )


def _check(txn: Transaction, account: int, name: str) -> None:
    if txn.connection.execute("SELECT 1 FROM accounts WHERE id = ?", (account,)).fetchone() is None:
        raise NoSuchAccount()
    if not (is_printable(name) and all(name.split(SEPARATOR))):
        raise InvalidName()


def _names(txn: Transaction, account: int) -> dict[str, tuple[int, int]]:
    """name -> (id, whether it is selectable), of the account."""
    rows = txn.connection.execute("SELECT name, id, selectable FROM mailboxes WHERE account = ?", (account,))
    return {name: (mailbox, selectable) for name, mailbox, selectable in rows}


def _make_parents(txn: Transaction, account: int, name: str, names: dict[str, tuple[int, int]]) -> None:
    levels = name.split(SEPARATOR)
    for depth in range(1, len(levels)):
        parent = SEPARATOR.join(levels[:depth])
        if parent not in names:
            _make(txn, account, parent, None)


def _make(txn: Transaction, account: int, name: str, special_use: str | None, selectable: bool = True) -> int:
    """A new mailbox; its id."""
    _make_all(txn, account, {name: special_use}, selectable)
    (mailbox,) = txn.connection.execute(
        "SELECT id FROM mailboxes WHERE account = ? AND name = ?", (account, name)
    ).fetchone()
    return int(mailbox)


def _make_all(
    txn: Transaction, account: int, special_uses: Mapping[str, str | None], selectable: bool = True
) -> None:
    """New mailboxes, each with a UIDVALIDITY greater than any this store gave before."""
    txn.changes += 1
    # From the clock so that another store in this one's place differs too, but never back.
    (last,) = txn.connection.execute(
        "UPDATE store SET uid_validity = min(max(uid_validity, ? - 1) + ?, ?) RETURNING uid_validity",
        (txn.now, len(special_uses), LARGEST),
    ).fetchone()
    txn.connection.executemany(
        "INSERT INTO mailboxes (account, name, special_use, selectable, version, uid_validity, uid_next, "
        "modseq, log_from, messages, unseen, size, recent, recent_from, keywords) "
        # modseq 1, not 0: IMAP cannot say 0 (RFC 7162 §7), and what comes next must be greater.
        "VALUES (?, ?, ?, ?, 1, ?, 1, 1, 0, 0, 0, 0, 0, 1, '')",
        [
            (account, name, special_use, int(selectable), last - len(special_uses) + number)
            for number, (name, special_use) in enumerate(special_uses.items(), 1)
        ],
    )
    txn.names_changed()
