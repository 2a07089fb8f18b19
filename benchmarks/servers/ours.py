"""mailplat itself, as `twistd mailplat` runs it, on the store that it has by default."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from benchmarks.player import say, wait
from benchmarks.servers import DOMAIN, PASSWORD, Server, free_port
from benchmarks.servers.sinks import MOST, sink_address, sink_domain

BIN = Path(sys.executable).parent


class Mailplat(Server):
    name = "mailplat"

    def prepare(self) -> None:
        self.smtp, self.lmtp, self.imap, self.pop3, self.relay = (free_port() for _ in range(5))
        plain = b64encode(f"\0{self.address(0)}\0{PASSWORD}".encode()).decode()
        self.relay_login = [say(f"AUTH PLAIN {plain}"), wait("", "235")]
        # One account sends it all, and more than anybody else may in an hour.
        routes = (f'"{sink_domain(n)}" = "smtp:{sink_address(n)}:{self.sinks}"\n' for n in range(MOST))
        settings = f"[limits.rates]\naccount = 0\n\n[relay.routes]\n{''.join(routes)}"
        (self.directory / "settings.toml").write_text(settings)
        first = self.directory / "first"
        first.write_text(f"{self.address(0)}:{PASSWORD}\n")
        data = self.directory / "data"
        command = [BIN / "mailplat", "account", "import", first, "--data", data]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        # To hash a password takes 10 ms; all have the same one.
        with open(data / "accounts", "r+") as accounts:
            record = accounts.readlines()[-1].partition(":")[2]
            accounts.writelines(f"{self.address(user)}:{record}" for user in range(1, self.accounts))

    def command(self) -> Sequence[str | Path]:
        command = [BIN / "twistd", "-n", "--pidfile=", "mailplat", "--data", self.directory / "data"]
        command += ["--domain", DOMAIN, "--plaintext-login", "always"]
        command += ["--config", self.directory / "settings.toml"]
        for word in ("smtp", "lmtp", "imap", "pop3"):
            command += [f"--{word}", f"tcp:{getattr(self, word)}:interface=127.0.0.1"]
        return [*command, "--submission", f"tcp:{self.relay}:interface=127.0.0.1"]

    def settled(self) -> bool:
        (index,) = (self.directory / "data").glob("**/index.sqlite")
        with contextlib.closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True, timeout=30)) as books:
            (waiting,) = books.execute("SELECT recipients FROM queue").fetchone()
        return not waiting

    def version(self) -> str:
        from importlib.metadata import version

        return f"mailplat {version('mailplat')} on Twisted {version('twisted')}"
