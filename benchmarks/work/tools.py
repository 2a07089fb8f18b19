"""Other people's clients: mbsync and imaptest."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks import corpus
from benchmarks.player import Refused
from benchmarks.servers import PASSWORD, Missing, Server
from benchmarks.work import Effort, Measure, Reading, Work, clock

MBSYNC = """
IMAPStore far
Host 127.0.0.1
Port {port}
User {user}
Pass {password}
SSLType None
AuthMechs LOGIN

MaildirStore near
Path {folder}/mail/
Inbox {folder}/mail/INBOX

Channel all
Far :far:
Near :near:
Patterns INBOX
Sync Pull
Create Near
SyncState *
"""


def first_sync(server: Server, effort: Effort) -> Measure:
    """mbsync fetches 10,000 messages into an empty maildir."""
    program = _program("mbsync", "isync")
    count = effort.count(10_000, server)
    user = server.filled("mix", count)

    def measure() -> list[Reading]:
        with tempfile.TemporaryDirectory() as folder:
            configuration = Path(folder, "configuration")
            configuration.write_text(
                MBSYNC.format(port=server.imap, user=server.login % user, password=PASSWORD, folder=folder)
            )
            Path(folder, "mail").mkdir()
            with clock(server) as taken:
                done = subprocess.run(
                    [program, "-c", configuration, "-a"], capture_output=True, text=True, timeout=300
                )
            got = sum(1 for path in Path(folder, "mail", "INBOX").glob("[cn]??/*"))
        if done.returncode or got != count:
            raise Refused(f"mbsync got {got} of {count}: {done.stderr[-200:]}")
        return [Reading("", count / taken.seconds, "messages/s", taken.cpu / count)]

    return measure


def imaptest(clients: int) -> Work:
    """imaptest's standard mix of commands; it checks the answers, and its errors are ours."""

    def work(server: Server, effort: Effort) -> Measure:
        program = _program("imaptest", "it is built from source with dovecot-dev")
        seconds = max(2, int(5 * effort.seconds))

        def measure() -> list[Reading]:
            first = server.fresh_users(50)
            with tempfile.TemporaryDirectory() as folder:
                corpus.write_mbox(Path(folder, "mbox"), 500)
                command = [program, "host=127.0.0.1", f"port={server.imap}", f"user={server.login}"]
                command += [f"users={first}-{first + 49}", f"pass={PASSWORD}", f"mbox={folder}/mbox"]
                command += [f"clients={clients}", f"secs={seconds}", "seed=7"]
                with clock(server) as taken:
                    done = subprocess.run(
                        command,
                        capture_output=True,
                        text=True,
                        errors="replace",
                        cwd=folder,
                        timeout=seconds + 120,
                    )
            commands = _commands(done.stdout)
            errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
            if errors or not commands:
                raise Refused(f"imaptest: {len(errors)} errors, {commands} commands: {errors[:1]}")
            return [Reading("", commands / seconds, "commands/s", taken.cpu / commands)]

        return measure

    return work


def _commands(output: str) -> int:
    """All commands of the totals, which stand under their names at the end."""
    after = output.partition("Totals:")[2].splitlines()[1:]
    for line in after:
        if re.fullmatch(r"\s*\d+(\s+\d+)+\s*", line):
            return sum(map(int, line.split()))
    return 0


def _program(name: str, source: str) -> str:
    found = shutil.which(name)
    if not found:
        raise Missing(f"{name} is not installed ({source})")
    return found
