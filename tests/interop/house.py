"""
A real server in a process of its own, for clients that are not ours.

One `House` serves a whole test class: start it in `setUpClass`, stop it in
`tearDownClass`.  Accounts are alice, bob and carol at example.test, password "secret".
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOMAIN = "example.test"
PASSWORD = "secret"
USERS = ("alice", "bob", "carol")
BIN = Path(sys.executable).parent

#: The listeners that take a port, in the words of the command line.
PORTS = ("smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s")


def address(user: str) -> str:
    return f"{user}@{DOMAIN}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class House:
    """
    Args:
        arguments: more words for the command line.
        data: the data directory, if it must be a certain one.

    Attributes:
        port: of each listener, by its word; the system's choice at each start.
    """

    def __init__(self, *arguments: str, users: tuple[str, ...] = USERS, data: Path | None = None) -> None:
        # Short: a UNIX socket's path must fit in 108 octets.
        self.directory = Path(tempfile.mkdtemp(prefix="mp-", dir="/tmp"))
        self.data = data or self.directory / "data"
        self.lmtp = self.directory / "lmtp"
        self.log = self.directory / "log"
        self.arguments = arguments
        self.port: dict[str, int] = {}
        accounts = self.directory / "accounts"
        accounts.write_text("".join(f"{address(user)}:{PASSWORD}\n" for user in users))
        self.mailplat("account", "import", str(accounts))

    def mailplat(self, *words: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the `mailplat` command on the data directory."""
        command = [str(BIN / "mailplat"), *words, "--data", str(self.data)]
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
        if check and result.returncode:
            raise AssertionError(f"{command} failed:\n{result.stdout}{result.stderr}")
        return result

    def start(self) -> House:
        words = [str(BIN / "twistd"), "-n", "--pidfile=", "mailplat", "--data", str(self.data)]
        words += ["--domain", DOMAIN, "--hostname", "mx.example.test", "--lmtp", f"unix:{self.lmtp}"]
        # Nobody is there: no test looks names up in the real DNS.
        words += ["--relayhost", "127.0.0.1:1"]
        for name in PORTS:
            words += [f"--{name}", "tcp:0:interface=127.0.0.1"]
        words += self.arguments
        with open(self.log, "ab") as log:
            before = log.tell()
            # "/" as working directory: a server must run from any.
            self.process = subprocess.Popen(words, stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + 60
        while not self._learn(before):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{self.log.read_text()}")
            # Nothing tells when a file grows: looking again is all there is.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        return self

    def _learn(self, before: int) -> bool:
        """Read the ports from the table that the server prints when it lets clients in; whether it is there."""
        with open(self.log, "rb") as log:
            log.seek(before)
            table = re.findall(rb"(?m)^(\w+) +127\.0\.0\.1:(\d+) .*\n", log.read())
        ports = {name.decode(): int(port) for name, port in table}
        self.port.update(ports)
        return ports.keys() >= set(PORTS)

    def kill(self) -> None:
        """As a power cut does, as far as the process is concerned."""
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def stop(self) -> int:
        """As `terminate`; the directory goes too."""
        try:
            return self.terminate()
        finally:
            self.process.kill()
            shutil.rmtree(self.directory, ignore_errors=True)

    def memory(self) -> int:
        """Octets resident, at the peak since the server started."""
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")

    def complaints(self) -> str:
        """Lines of the log that tell of a bug."""
        text = self.log.read_text(errors="replace")
        return "\n".join(line for line in text.splitlines() if "Traceback" in line or "incident" in line)

    # Clients of the standard library

    def imap(self, user: str = "alice", timeout: float = 30) -> imaplib.IMAP4:
        client = imaplib.IMAP4("127.0.0.1", self.port["imap"], timeout=timeout)
        client.login(address(user), PASSWORD)
        return client

    def send(self, message: bytes, *users: str, sender: str = "someone@elsewhere.test") -> None:
        with smtplib.SMTP("127.0.0.1", self.port["smtp"], timeout=30) as client:
            client.sendmail(sender, [address(user) for user in users or ("alice",)], message)

    def bodies(self, user: str = "alice", mailbox: str = "INBOX") -> list[bytes]:
        """All messages of a mailbox, oldest first."""
        with self.imap(user) as client:
            client.select(mailbox, readonly=True)
            _, found = client.uid("FETCH", "1:*", "(BODY.PEEK[])")
            return [item[1] for item in found if isinstance(item, tuple)]


def without_prefix(message: bytes) -> bytes:
    """A delivered message less the trace headers that the server put before it."""
    own = (b"return-path:", b"delivered-to:", b"received:")
    while True:
        head = message.partition(b":")[0].lower() + b":"
        if head not in own:
            return message
        end = message.find(b"\r\n")
        while message[end + 2 : end + 3] in (b" ", b"\t"):
            end = message.find(b"\r\n", end + 2)
        message = message[end + 2 :]


def has(tool: str) -> bool:
    return shutil.which(tool) is not None


def tool(*words: str, stdin: bytes = b"", timeout: float = 60, home: str | None = None) -> bytes:
    """Run a client; its output, or AssertionError with all it said."""
    environment = dict(os.environ, LC_ALL="C.UTF-8")
    if home:
        environment["HOME"] = home
    result = subprocess.run(words, input=stdin, capture_output=True, timeout=timeout, env=environment)
    if result.returncode:
        said = (result.stdout + result.stderr).decode(errors="replace")
        raise AssertionError(f"{' '.join(words)} ended with {result.returncode}:\n{said}")
    return result.stdout


MESSAGES = {
    "plain": b"From: a@elsewhere.test\r\nTo: alice@example.test\r\nSubject: plain\r\n\r\nHello.\r\n",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n...leading\r\nin the middle . of\r\n.end\r\n",
    "8bit": "Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße, Ünïcödé.\r\n".encode(),
    "multipart": b"Subject: parts\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\n"
    b"preamble\r\n--=_b\r\nContent-Type: text/plain\r\n\r\none\r\n--=_b\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"x.bin\"\r\n\r\n"
    b"AAECAwQFBgcICQoLDA0ODw==\r\n--=_b--\r\nepilogue\r\n",
    "no body": b"Subject: nothing below\r\n\r\n",
    "long line": b"Subject: long\r\n\r\n" + b"x" * 990 + b"\r\n" + b"y" * 998 + b"\r\n",
}
