"""Dovecot: over maildir and over sdbox as it is packaged, and with processes that are used again."""

from __future__ import annotations

import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.servers import PASSWORD, Missing, Server, free_port, need_root

DOVECOT = "/usr/sbin/dovecot"

#: Everything beside where it listens and where it keeps things is a limit that would get in the way.
CONFIGURATION = """
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
protocols = imap pop3 lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
auth_username_format = %Ln
mail_location = {location}
mail_max_userip_connections = 100000
first_valid_uid = 1
default_client_limit = 8000
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={directory}/mail/%n
}}
namespace inbox {{
  inbox = yes
}}
service imap-login {{
  process_limit = 500
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service imap {{
  process_limit = 8000
}}
service stats {{
  client_limit = 20000
}}
service anvil {{
  client_limit = 20000
}}
service auth {{
  client_limit = 20000
}}
"""

#: "High-performance mode" of Dovecot's documentation of login processes, and mail processes that stay.
TUNED = """
service imap-login {
  service_count = 0
  client_limit = 1000
  process_min_avail = 2
}
service pop3-login {
  service_count = 0
  client_limit = 1000
  process_min_avail = 2
}
service imap {
  service_count = 256
}
service pop3 {
  service_count = 256
}
"""


class DovecotMaildir(Server):
    name = "dovecot-maildir"
    location = "maildir:~/Maildir"
    extra = ""

    def prepare(self) -> None:
        if not Path(DOVECOT).exists():
            raise Missing("dovecot is not installed (dovecot-imapd, dovecot-pop3d, dovecot-lmtpd)")
        need_root()
        self.lmtp, self.imap, self.pop3 = (free_port() for _ in range(3))
        (self.directory / "state").mkdir()
        mail = self.directory / "mail"
        mail.mkdir()
        owner = pwd.getpwnam("mail")
        shutil.chown(mail, owner.pw_uid, owner.pw_gid)
        (self.directory / "dovecot.conf").write_text(
            CONFIGURATION.format(
                directory=self.directory, location=self.location, password=PASSWORD,
                imap=self.imap, pop3=self.pop3, lmtp=self.lmtp,
            )
            + self.extra
        )  # fmt: skip

    def command(self) -> Sequence[str | Path]:
        return [DOVECOT, "-F", "-c", self.directory / "dovecot.conf"]

    def version(self) -> str:
        said = subprocess.run([DOVECOT, "--version"], capture_output=True, text=True).stdout
        return f"Dovecot {said.split()[0]}"


class DovecotSdbox(DovecotMaildir):
    name = "dovecot-sdbox"
    location = "sdbox:~/sdbox"


class DovecotTuned(DovecotMaildir):
    name = "dovecot-tuned"
    extra = TUNED
