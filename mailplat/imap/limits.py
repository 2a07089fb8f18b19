"""
Everything in IMAP that a peer can use up, by name.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Limits of one IMAP listener.  Sizes are octets, times are seconds.

    Attributes:
        line: text of one command, its literals left out.
        line_before_login: the same before login; ID with all it may have (RFC 2971 §3.3) is 33,000.
        literals: literals of one command together, APPEND's message left out.
        literals_before_login: the same before login.
        literal_count: literals of one command.
        append_size: APPEND's message (RFC 7889).
        skipped: a non-synchronizing literal in a command that is refused; the
            connection is closed if more is announced, `append_size` at least.
        sasl_line: a client's response in AUTHENTICATE.
        pipelined: what may wait unread; the connection is not read while more does.
        pipelined_before_login: the same before login.
        set_ranges: numbers and ranges in one sequence set.
        search_depth: parentheses, NOT and OR inside each other.
        fetch_items: data items of one FETCH.
        section_depth: part numbers in one section of FETCH.
        id_pairs: parameters of ID (RFC 2971 §3.3).
        bad_commands: so many one after the other close the connection.
        failed_logins: so many close the connection.
        login_timeout: silence before login.
        before_login: the same, all of it together.
        idle_timeout: silence after login, and in IDLE (RFC 3501 §5.4: 30 minutes at least).
        idle_interval: so often a mailbox is looked at in IDLE even if it gave no hint.
        literal_timeout: silence while a literal is awaited that the client was told to send.
        append_rate: so many octets of APPEND's message make up for a second of silence in it; all
            silence that is not made up for may last `literal_timeout` together.
    """

    line: int = 64 * KIB
    line_before_login: int = 36 * KIB
    literals: int = 64 * KIB
    literals_before_login: int = 8 * KIB
    literal_count: int = 250
    append_size: int = 50 * MIB
    skipped: int = 64 * MIB
    sasl_line: int = 16 * KIB
    pipelined: int = 256 * KIB
    pipelined_before_login: int = 32 * KIB
    set_ranges: int = 10_000
    search_depth: int = 50
    fetch_items: int = 256
    section_depth: int = 100
    id_pairs: int = 30
    bad_commands: int = 20
    failed_logins: int = 3
    login_timeout: float = 180.0
    before_login: float = 300.0
    idle_timeout: float = 1800.0
    idle_interval: float = 60.0
    literal_timeout: float = 300.0
    append_rate: float = 100.0
