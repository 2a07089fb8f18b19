"""Peers from PyPI, each in a virtual environment that is made on first use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.player import BUILD
from benchmarks.servers import PASSWORD, Missing, Server, free_port

HERE = Path(__file__).parent


class PythonPeer(Server):
    """
    Attributes:
        requirement: what pip installs; its first word is the distribution.
    """

    requirement: str

    @property
    def bin(self) -> Path:
        return BUILD / f"venv-{self.name}" / "bin"

    def prepare(self) -> None:
        if not (self.bin / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", self.bin.parent], check=True)
            done = subprocess.run(
                [self.bin / "python", "-m", "pip", "install", "--quiet", *self.requirement.split()],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise Missing(f"pip can't install {self.requirement}")
            (self.bin / "ready").touch()

    def version(self) -> str:
        name = self.requirement.split()[0]
        code = f"import importlib.metadata as m; print(m.version({name!r}))"
        said = subprocess.run([self.bin / "python", "-c", code], capture_output=True, text=True)
        return f"{name} {said.stdout.strip()}"


class Aiosmtpd(PythonPeer):
    """aiosmtpd with a handler that stores a message as durably as we do."""

    name = "aiosmtpd"
    requirement = "aiosmtpd"

    def prepare(self) -> None:
        super().prepare()
        self.smtp, self.lmtp = free_port(), free_port()

    def command(self) -> Sequence[str | Path]:
        ports = str(self.smtp), str(self.lmtp)
        return [self.bin / "python", HERE / "aiosmtpd_server.py", self.directory, *ports]


class TwistedMail(PythonPeer):
    """twisted.mail: SMTP into its maildir, synced; IMAP over mailboxes in memory, as it brings no others."""

    name = "twisted.mail"
    requirement = "twisted"
    share = 0.1
    #: APPEND without a list of flags fails there (26.10).
    append_options = "(\\Flagged) "

    def prepare(self) -> None:
        super().prepare()
        self.smtp, self.imap = free_port(), free_port()

    def command(self) -> Sequence[str | Path]:
        ports = str(self.smtp), str(self.imap)
        return [self.bin / "python", HERE / "twisted_server.py", self.directory, *ports]


class Pymap(PythonPeer):
    """pymap over maildir; passwords are hashed once only, so that logins show pymap and not the hash."""

    name = "pymap"
    requirement = "pymap"
    login = "user%d"
    share = 0.05
    fillers = 1

    def prepare(self) -> None:
        super().prepare()
        self.imap = free_port()
        mail = self.directory / "mail"
        mail.mkdir()
        code = f"from pysasl.hashing import BuiltinHash as H; print(H(rounds=1).hash({PASSWORD!r}))"
        said = subprocess.run([self.bin / "python", "-c", code], capture_output=True, text=True, check=True)
        secret = said.stdout.strip()
        users = range(self.accounts)
        (mail / "pymap-etc-passwd").write_text("".join(f"user{n}:x::::user{n}:\n" for n in users))
        (mail / "pymap-etc-shadow").write_text("".join(f"user{n}:{secret}:::::::\n" for n in users))
        (mail / "pymap-etc-group").touch()

    def command(self) -> Sequence[str | Path]:
        return [
            self.bin / "pymap", "--host", "127.0.0.1", "--port", str(self.imap), "--no-tls",
            "maildir", self.directory / "mail",
        ]  # fmt: skip
