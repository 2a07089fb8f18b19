"""mailplat itself, as `twistd mailplat` runs it, on the store that it has by default."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.servers import DOMAIN, PASSWORD, Server, free_port

BIN = Path(sys.executable).parent


class Mailplat(Server):
    name = "mailplat"

    def prepare(self) -> None:
        self.smtp, self.lmtp, self.imap, self.pop3 = (free_port() for _ in range(4))
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
        for word in ("smtp", "lmtp", "imap", "pop3"):
            command += [f"--{word}", f"tcp:{getattr(self, word)}:interface=127.0.0.1"]
        return command

    def version(self) -> str:
        from importlib.metadata import version

        return f"mailplat {version('mailplat')} on Twisted {version('twisted')}"
