"""What is measured: ours and its peers, each started on loopback with a data directory of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks import corpus, process
from benchmarks.clients import Imap
from benchmarks.player import CONNECT, Player, Script, say, wait

DOMAIN = "bench.example"
PASSWORD = "pass"


class Missing(Exception):
    """This peer can't be had on this machine; the text says why."""


class Server:
    """
    A server with the accounts user0, user1 and so on.

    Attributes:
        name: as in the table.
        smtp, lmtp, imap, pop3: ports, None for what it does not speak.
        relay: the port that takes mail for other hosts, None if there is none.
        relay_login: what is said there after EHLO.
        sinks: the port of its other hosts, see `benchmarks.servers.sinks`.
        companions: processes that end with it, and do not count as its own.
        login: the name an account logs in with, `%d` for its number.
        accounts: how many there are.
        share: of a mailbox's size in the table, what this server can take in a bearable time.
        append_options: what APPEND wants before the literal.
        fillers: connections that fill a mailbox, where there is no MULTIAPPEND.
    """

    name: ClassVar[str]
    smtp: int | None = None
    lmtp: int | None = None
    imap: int | None = None
    pop3: int | None = None
    relay: int | None = None
    relay_login: Sequence[str] = ()
    login = f"user%d@{DOMAIN}"
    share = 1.0
    append_options = ""
    fillers = 20

    def __init__(self, parent: Path, accounts: int = 400) -> None:
        self.directory = parent / self.name
        self.accounts = accounts
        self.process: subprocess.Popen[bytes] | None = None
        self._next_user = 0
        self.mailboxes: dict[tuple[str, int], int] = {}
        self.sinks = free_port()
        self.companions: list[subprocess.Popen[bytes]] = []

    # What each server says for itself.

    def prepare(self) -> None:
        """
        Write configuration and accounts into `directory`, which is there and empty.

        Raises:
            Missing: it can't be run here.
        """
        raise NotImplementedError

    def command(self) -> Sequence[str | Path]:
        """What runs it in the foreground."""
        raise NotImplementedError

    def version(self) -> str:
        raise NotImplementedError

    def settled(self) -> bool:
        """What it has accepted has reached its place."""
        return True

    # Its life.

    def set_up(self) -> None:
        """Prepare an empty directory and start."""
        self.directory.mkdir(parents=True, mode=0o755)
        self.prepare()
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        log = self.directory / "output"
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                # Linux shares CPU by session (sched(7), autogroup), and daemons make one of
                # their own: with other work on the machine all servers get the same share.
                start_new_session=True,
            )
        for port in filter(None, (self.smtp, self.lmtp, self.imap, self.pop3, self.relay)):
            if not listens(("127.0.0.1", port), self.process):
                with contextlib.suppress(OSError):
                    self.stop()
                raise Missing(f"does not start: {log.read_text(errors='replace')[-300:]}")

    def stop(self) -> None:
        """Stop it as an operator would."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Stop it and start it again, on the same data and ports."""
        self.stop()
        self.start()

    def remove(self) -> None:
        self.stop()
        for companion in self.companions:
            companion.kill()
            companion.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def cpu(self) -> float:
        """Seconds of CPU so far, of all its processes."""
        return process.cpu(self.process.pid) if self.process else 0.0

    def memory(self) -> float:
        """MiB, of all its processes."""
        return process.memory(self.process.pid) if self.process else 0.0

    # Its accounts.

    def address(self, user: int) -> str:
        return f"user{user}@{DOMAIN}"

    def fresh_users(self, count: int = 1) -> int:
        """The first of `count` accounts that nothing was done with yet."""
        first = self._next_user
        self._next_user += count
        if self._next_user > self.accounts:
            raise RuntimeError(f"{self.name}: more than {self.accounts} accounts are needed")
        return first

    def connect(self, user: int) -> Imap:
        """An IMAP connection, logged in."""
        assert self.imap
        return Imap(self.imap, self.login % user, PASSWORD)

    def filled(self, kind: str, count: int) -> int:
        """An account whose INBOX has `count` messages of a kind; don't change it, others share it."""
        if (kind, count) not in self.mailboxes:
            self.mailboxes[kind, count] = self.fill(kind, count)
        return self.mailboxes[kind, count]

    def fill(self, kind: str, count: int) -> int:
        """A fresh account whose INBOX has `count` messages of a kind, each stored by itself."""
        user = self.fresh_users()
        imap = self.connect(user)
        if imap.capabilities() >= {b"MULTIAPPEND", b"LITERAL+"}:
            messages = corpus.stream(kind, count)
            batch = max(1, min(250, 8_000_000 // len(messages[0])))
            for start in range(0, count, batch):
                imap.append_all(messages[start : start + batch])
        else:
            assert self.imap
            player = Player(
                self.imap, append_script(self), self.fillers, pool=corpus.messages(kind), first_user=user
            )
            player.play(count, 600)
        imap.close()
        return user


def login_steps(server: Server) -> list[str]:
    """Connect and log in over IMAP."""
    login = server.login.replace("%d", "{user}")
    return [CONNECT, wait("* ", "* OK"), say(f"l LOGIN {login} {PASSWORD}"), wait("l ", "l OK")]


def append_script(server: Server) -> Script:
    """APPEND with a synchronizing literal, as a mail client does it."""
    return Script(
        before=login_steps(server),
        each=[
            say(f"a APPEND INBOX {server.append_options}{{{{length}}}}"), wait("+ "),
            say("{message}"), wait("a ", "a OK"),
        ],
        after=[say("z LOGOUT"), wait("z ", "z OK")],
    )  # fmt: skip


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def need_root() -> None:
    """
    Raises:
        Missing: we are not root, and this server changes users.
    """
    if os.geteuid():
        raise Missing("only root can start it")


def listens(place: tuple[str, int], process: subprocess.Popen[bytes], seconds: float = 60) -> bool:
    """Wait until it does; False if it ends or takes too long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(place, 5).close()
            return True
        time.sleep(0.05)
    return False
