"""The rows: what is done, beside whom, and what we aim at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.servers import Server
from benchmarks.servers.dovecot import DovecotMaildir, DovecotSdbox, DovecotTuned
from benchmarks.servers.ours import Mailplat
from benchmarks.servers.postfix import Postfix
from benchmarks.servers.python import Aiosmtpd, Pymap, TwistedMail
from benchmarks.work import (
    Work,
    accept,
    append,
    change,
    fetch,
    growth,
    idle,
    login,
    maildrop,
    relay,
    search,
    select,
    tools,
)

Peers = tuple[type[Server], ...]

DOVECOT: Peers = (DovecotMaildir, DovecotSdbox)
SERVERS: Peers = (Mailplat, DovecotMaildir, DovecotSdbox, DovecotTuned, Postfix, Aiosmtpd, TwistedMail, Pymap)


@dataclass(frozen=True)
class Aim:
    """
    Attributes:
        times: how many times better than the peer.
        against: the peer's figure with this label, None for the one with ours.
        most: an absolute bound instead.
    """

    times: float | None = None
    against: str | None = None
    most: float | None = None


@dataclass(frozen=True)
class Row:
    """
    Attributes:
        name: as one asks for it.
        title: as the table says it.
        aims: by the labels of the readings.
        accounts: how many the servers need, where it is more than usual.
        runs: at most so many, where one takes long.
        short: part of the short run of ours alone.
    """

    name: str
    title: str
    work: Work
    peers: Peers = ()
    aims: Mapping[str, Aim] = field(default_factory=dict)
    accounts: int = 400
    runs: int = 99
    short: bool = False


def _row(
    name: str,
    title: str,
    work: Work,
    peers: Peers,
    aims: Mapping[str, Aim] | float,
    short: bool = False,
    runs: int = 99,
) -> Row:
    """An aim that is only a number is that many times the peer's main figure."""
    by_label = aims if isinstance(aims, Mapping) else {"": Aim(aims)}
    return Row(name, title, work, peers, by_label, short=short, runs=runs)


SIZES = "UID FLAGS INTERNALDATE RFC822.SIZE"

#: Against the Python peers; the same for several works.
_TEN = {"first": Aim(10), "again": Aim(10)}

ROWS = (
    _row("smtp-accept", "SMTP accept, durable, 2 KB, 50 kept connections", accept.smtp("2k", 50), (Postfix,),
         {"": Aim(6), "CPU per message": Aim(10)}, short=True),
    Row("smtp-pipelined", "SMTP accept, 2 KB, 50 kept connections, MAIL, RCPT and DATA in one packet",
        accept.smtp("2k", 50, pipelined=True), (Postfix,)),
    _row("smtp-new-1", "SMTP accept, 2 KB, a new connection for each, 1 at a time",
         accept.smtp("2k", 1, kept=False), (Postfix,), 1.5, short=True),
    _row("smtp-new-10", "SMTP accept, 2 KB, a new connection for each, 10 at a time",
         accept.smtp("2k", 10, kept=False), (Postfix,), 3, short=True),
    _row("smtp-50k", "SMTP accept, 50 KB, 10 connections", accept.smtp("50k", 10), (Postfix,), 3.5,
         short=True),
    _row("smtp-1m", "SMTP accept, 1 MB, 10 connections", accept.smtp("1m", 10), (Postfix,), 1.7, short=True),
    *(_row(f"relay-{count}", f"relay, 2 KB, to {count} host{'s' * (count > 1)}, until the queue is empty",
           relay.relay(count), (Postfix,), {"": Aim(1), "CPU per message": Aim(1)}, short=count == 10)
      for count in (1, 10, 100)),
    _row("lmtp-2k", "LMTP delivery, 2 KB, 10 connections", accept.lmtp("2k", 10), DOVECOT, 5, short=True),
    _row("lmtp-50k", "LMTP delivery, 50 KB, 10 connections", accept.lmtp("50k", 10), DOVECOT, 5),
    _row("append-2k", "APPEND, 2 KB, 10 connections", append.append("2k"), DOVECOT, 3, short=True),
    _row("append-50k", "APPEND, 50 KB, 10 connections", append.append("50k"), DOVECOT, 3),
    _row("fetch-flags", "FETCH FLAGS, 100,000", fetch.fetch("FLAGS"), DOVECOT,
         {"first": Aim(2, "again"), "again": Aim(8)}, short=True),
    _row("fetch-sizes", f"FETCH {SIZES}, 100,000", fetch.fetch(SIZES), DOVECOT,
         {"first": Aim(10, "again"), "again": Aim(10)}, short=True),
    _row("fetch-envelope", f"FETCH {SIZES} ENVELOPE, 100,000", fetch.fetch(f"{SIZES} ENVELOPE"), DOVECOT,
         {"first": Aim(5, "again"), "again": Aim(12)}, short=True),
    _row("fetch-structure", "FETCH BODYSTRUCTURE, 100,000", fetch.fetch("BODYSTRUCTURE"), DOVECOT,
         {"first": Aim(2, "again"), "again": Aim(2)}),
    _row("fetch-new-envelope", "FETCH ENVELOPE, 10,000 that just came in", fetch.fetch_new("ENVELOPE"),
         DOVECOT, 20),
    _row("fetch-new-structure", "FETCH BODYSTRUCTURE, 10,000 that just came in",
         fetch.fetch_new("BODYSTRUCTURE"), DOVECOT, 20),
    _row("bodies-50k", "FETCH BODY.PEEK[], 2,000 of 50 KB", fetch.bodies("50k", 2_000), DOVECOT, 2,
         short=True),
    _row("bodies-1m", "FETCH BODY.PEEK[], 100 of 1 MB", fetch.bodies("1m", 100), DOVECOT, 2),
    _row("sync", "mbsync fetches 10,000", tools.first_sync, DOVECOT, 1),
    _row("select-100k", "SELECT of 100,000", select.select(100_000), DOVECOT,
         {"cold": Aim(1), "warm": Aim(1)}, short=True),
    _row("select-1m", "SELECT of 1,000,000", select.select(1_000_000), (DovecotSdbox,),
         {"cold": Aim(1), "warm": Aim(1)}, runs=3),
    *(_row(f"search-{name}", f"SEARCH in {count:,}", search.search(count), DOVECOT,
           {"UNSEEN": Aim(2), "SUBJECT first": Aim(5), "SUBJECT again": Aim(1), "BODY": Aim(1)},
           runs=runs, short=count == 10_000)
      for name, count, runs in (("10k", 10_000, 99), ("100k", 100_000, 1))),
    _row("store", "of a mailbox of 10,000", change.store_and_expunge, DOVECOT,
         {"STORE all": Aim(1), "STORE half, silent": Aim(1), "EXPUNGE half": Aim(1)}, short=True),
    _row("copy", "of a mailbox of 10,000", change.copy_and_move, DOVECOT, {"COPY": Aim(1), "MOVE": Aim(1)}),
    _row("pop3", "POP3, 2,000 of 10 KB", maildrop.maildrop, DOVECOT, {"login and UIDL": Aim(1.5),
         "RETR": Aim(1.5)}),
    _row("login-imap", "IMAP logins, 10 at a time", login.imap, (DovecotMaildir,), 20, short=True),
    _row("login-imap-tuned", "IMAP logins, 10 at a time", login.imap, (DovecotTuned,), 1),
    _row("login-pop3", "POP3 logins, 10 at a time", login.pop3, (DovecotMaildir,), 20),
    _row("login-pop3-tuned", "POP3 logins, 10 at a time", login.pop3, (DovecotTuned,), 1),
    _row("idle", "5,000 IMAP connections in IDLE, memory each", idle.memory, (DovecotMaildir,), 50, runs=1),
    _row("push", "a delivery, until 1,000 in IDLE know", idle.push, (DovecotMaildir,),
         {"last": Aim(most=100)}, short=True),
    _row("imaptest-10", "imaptest, 10 clients", tools.imaptest(10), DOVECOT, 1),
    _row("imaptest-50", "imaptest, 50 clients", tools.imaptest(50), DOVECOT, 1),
    _row("python-smtp", "SMTP accept, durable, 2 KB, 50 kept connections", accept.smtp("2k", 50),
         (Aiosmtpd,), 5),
    _row("python-lmtp", "LMTP delivery, durable, 2 KB, 10 connections", accept.lmtp("2k", 10), (Aiosmtpd,),
         5),
    _row("twisted-smtp", "SMTP accept, durable, 2 KB, 50 kept connections", accept.smtp("2k", 50),
         (TwistedMail,), 3),
    _row("python-fetch", f"FETCH {SIZES} ENVELOPE", fetch.fetch(f"{SIZES} ENVELOPE", 10_000),
         (Pymap, TwistedMail), _TEN),
    _row("python-append", "APPEND, 2 KB, 10 connections", append.append("2k"), (Pymap, TwistedMail), 10),
    _row("python-search", "SEARCH in 10,000", search.search(10_000), (Pymap,),
         {label: Aim(10) for label in ("UNSEEN", "SUBJECT first", "SUBJECT again", "BODY")}),
    _row("python-login", "IMAP logins, 10 at a time", login.imap, (Pymap, TwistedMail), 10),
    Row("growth-accept", "CPU to accept a message into a mailbox of", growth.mailbox_accept,
        aims={"growth": Aim(most=1.2)}, runs=3),
    Row("growth-fetch", "CPU to list a message of a mailbox of", growth.mailbox_fetch,
        aims={"growth": Aim(most=1.2)}, runs=3),
    Row("growth-accounts", "CPU to accept a message for", growth.accounts_accept,
        aims={"growth": Aim(most=1.2)}, accounts=100_000, runs=3),
    Row("growth-memory", "memory with a mailbox of 1,000,000 in use", growth.memory_in_use,
        aims={"the mailbox": Aim(most=60)}, runs=3),
)  # fmt: skip


def chosen(names: str | None) -> list[Row]:
    """
    The rows with these names, separated by commas, in the table's order; None for all.

    Raises:
        SystemExit: there is no such row.
    """
    if not names:
        return list(ROWS)
    wanted, known = set(names.split(",")), [row.name for row in ROWS]
    unknown = wanted.difference(known)
    if unknown:
        raise SystemExit(f"no row {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    return [row for row in ROWS if row.name in wanted]
