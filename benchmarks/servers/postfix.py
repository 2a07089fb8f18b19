"""Postfix: its queue file is synced before it says 250; afterwards the message is dropped."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.servers import DOMAIN, Missing, Server, free_port, need_root
from benchmarks.servers.sinks import MOST, sink_address, sink_domain

POSTFIX = "/usr/sbin/postfix"
POSTCONF = "/usr/sbin/postconf"

MAIN = """
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
daemon_directory = {daemons}
command_directory = /usr/sbin
maillog_file = /dev/stdout
maillog_file_prefixes = /dev
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.{domain}
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = static:x
virtual_transport = discard:
message_size_limit = 20480000
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_tls_security_level = none
default_process_limit = 100
transport_maps = texthash:{directory}/etc/transport
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Server):
    name = "postfix"

    def prepare(self) -> None:
        if not Path(POSTFIX).exists():
            raise Missing("postfix is not installed")
        need_root()
        self.smtp = self.relay = free_port()
        for folder in ("etc", "queue", "data"):
            (self.directory / folder).mkdir()
        shutil.chown(self.directory / "data", "postfix")
        main = MAIN.format(directory=self.directory, domain=DOMAIN, daemons=self._default("daemon_directory"))
        (self.directory / "etc" / "main.cf").write_text(main)
        routes = (f"{sink_domain(n)} smtp:[{sink_address(n)}]:{self.sinks}\n" for n in range(MOST))
        (self.directory / "etc" / "transport").write_text("".join(routes))
        (self.directory / "etc" / "master.cf").write_text(MASTER.format(port=self.smtp))
        subprocess.run([*self._postfix(), "check"], capture_output=True)

    def command(self) -> Sequence[str | Path]:
        return [*self._postfix(), "start-fg"]

    def stop(self) -> None:
        if self.process is not None:
            subprocess.run([*self._postfix(), "stop"], capture_output=True)
        super().stop()

    def settled(self) -> bool:
        queues = (self.directory / "queue" / name for name in ("incoming", "active", "deferred", "maildrop"))
        return not any(path.is_file() for queue in queues for path in queue.rglob("*"))

    def version(self) -> str:
        return f"Postfix {self._default('mail_version')}"

    def _postfix(self) -> list[str | Path]:
        return [POSTFIX, "-c", self.directory / "etc"]

    def _default(self, setting: str) -> str:
        return subprocess.run([POSTCONF, "-d", "-h", setting], capture_output=True, text=True).stdout.strip()
