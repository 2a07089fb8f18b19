"""
Mail servers that are not ours, each with a private configuration, on loopback ports of its own.

A server is started for a test and stopped, with all its processes, after it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.interop.house import free_ports

#: Where Debian keeps programs that are not for everybody's path.
SYSTEM = os.pathsep.join(("/usr/sbin", "/usr/lib/postfix/sbin", os.environ.get("PATH", "")))


def found(program: str) -> str | None:
    return shutil.which(program, path=SYSTEM)


def reach(port: int, process: subprocess.Popen[bytes] | None = None, log: Path | None = None) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = log.read_text() if log is not None and log.exists() else ""
                raise AssertionError(f"nobody listens on port {port}:\n{said}") from None
            # Nothing tells when another process listens: asking again is all there is.
            time.sleep(0.05)


class Remote:
    """
    Attributes:
        port: where it listens.
        directory: all that it writes.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mp-", dir="/tmp"))
        self.directory.chmod(0o755)
        [self.port] = free_ports(1)
        self.log = self.directory / "log"

    def stop(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


class Sink(Remote):
    """Postfix's smtp-sink, which keeps what it was sent in files of its own."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        program = found("smtp-sink")
        assert program is not None
        keep = ("-d", f"{self.directory}/message.")
        words = [program, *(("-u", "nobody") if os.geteuid() == 0 else ()), *keep, *options]
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*words, f"127.0.0.1:{self.port}", "100"], stdout=log, stderr=log, cwd=self.directory
            )
        reach(self.port, self.process, self.log)

    def messages(self) -> list[bytes]:
        """What it was sent, in no order, with the header lines that it adds; lines end in LF."""
        return [path.read_bytes() for path in self.directory.glob("message.*") if path.stat().st_size]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(30)
        super().stop()


class Postfix(Remote):
    """A Postfix smtpd that delivers to Maildirs; for root only, as Postfix is."""

    def __init__(self, *settings: str) -> None:
        super().__init__()
        program = found("postfix")
        assert program is not None
        self.program = program
        nobody = pwd.getpwnam("nobody")
        self.mail = self.directory / "mail"
        self.mail.mkdir()
        os.chown(self.mail, nobody.pw_uid, nobody.pw_gid)
        self.config = self.directory / "etc"
        self.config.mkdir()
        for name in ("queue", "data"):
            (self.directory / name).mkdir()
        os.chown(self.directory / "data", pwd.getpwnam("postfix").pw_uid, -1)
        (self.config / "main.cf").write_text(
            "\n".join(
                (
                    "compatibility_level = 3.6",
                    f"queue_directory = {self.directory}/queue",
                    f"data_directory = {self.directory}/data",
                    f"maillog_file = {self.log}",
                    f"maillog_file_prefixes = {self.directory}",
                    "myhostname = postfix.test",
                    "mydestination =",
                    "mynetworks = 127.0.0.0/8",
                    "inet_interfaces = loopback-only",
                    "inet_protocols = ipv4",
                    "alias_maps =",
                    "virtual_mailbox_domains = b.test",
                    f"virtual_mailbox_base = {self.mail}",
                    "virtual_mailbox_maps = inline:{ alice@b.test=alice/, bob@b.test=bob/ }",
                    f"virtual_uid_maps = static:{nobody.pw_uid}",
                    f"virtual_gid_maps = static:{nobody.pw_gid}",
                    f"virtual_minimum_uid = {min(nobody.pw_uid, 100)}",
                    "smtpd_recipient_restrictions = reject_unlisted_recipient, permit_mynetworks, reject",
                    "smtputf8_enable = yes",
                    *settings,
                    "",
                )
            )
        )
        (self.config / "master.cf").write_text(
            f"127.0.0.1:{self.port} inet n - n - - smtpd\n"
            "postlog unix-dgram n - n - 1 postlogd\n"
            "pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n"
            "tlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\n"
            "bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\n"
            "verify unix - - n - 1 verify\nproxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\n"
            "virtual unix - n n - - virtual\nerror unix - - n - - error\nretry unix - - n - - error\n"
            "scache unix - - n - 1 scache\nshowq unix n - n - - showq\nflush unix n - n 1000? 0 flush\n"
        )
        self.run("start")
        reach(self.port, log=self.log)

    def run(self, word: str) -> None:
        command = [self.program, "-c", str(self.config), word]
        result = subprocess.run(command, capture_output=True, timeout=60, env=dict(os.environ, PATH=SYSTEM))
        if result.returncode:
            said = self.log.read_text() if self.log.exists() else ""
            raise AssertionError(f"postfix {word}: {result.stderr.decode()}{said}")

    def messages(self, user: str, count: int) -> list[bytes]:
        """The `count` messages that the user gets, in no order; lines end in LF."""
        deadline = time.monotonic() + 20
        while True:
            paths = list((self.mail / user / "new").glob("*"))
            if len(paths) >= count or time.monotonic() > deadline:
                return [path.read_bytes() for path in paths]
            # It delivers in its own time, and tells nobody.
            time.sleep(0.05)

    def stop(self) -> None:
        with contextlib.suppress(AssertionError):
            self.run("abort")
        super().stop()


class Dovecot(Remote):
    """Dovecot's LMTP server, delivering to Maildirs; for root only, so that it needs no users of its own."""

    def __init__(self) -> None:
        super().__init__()
        program = found("dovecot")
        assert program is not None
        nobody = pwd.getpwnam("nobody")
        self.mail = self.directory / "mail"
        self.mail.mkdir()
        os.chown(self.mail, nobody.pw_uid, nobody.pw_gid)
        config = self.directory / "dovecot.conf"
        config.write_text(
            f"""
base_dir = {self.directory}/run
state_dir = {self.directory}/state
log_path = {self.log}
protocols = lmtp
listen = 127.0.0.1
ssl = no
hostname = dovecot.test
postmaster_address = postmaster@b.test
mail_location = maildir:{self.mail}/%n
first_valid_uid = {min(nobody.pw_uid, 500)}
first_valid_gid = 0
passdb {{
  driver = passwd-file
  args = username_format=%u {self.directory}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {self.directory}/users
  default_fields = uid={nobody.pw_uid} gid={nobody.pw_gid} home={self.mail}/%n
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {self.port}
  }}
}}
"""
        )
        (self.directory / "users").write_text("alice@b.test::::::\nbob@b.test::::::\n")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([program, "-F", "-c", str(config)], stdout=log, stderr=log)
        reach(self.port, self.process, self.log)

    def messages(self, user: str) -> list[bytes]:
        """What the user got, in no order; lines end in LF."""
        return [path.read_bytes() for path in (self.mail / user / "new").glob("*")]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
        super().stop()
