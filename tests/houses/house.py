"""
Whole houses on a network in memory: `MailService` as `twistd mailplat` runs it, each on a machine of its own.

Accounts have the password "secret".
"""

from __future__ import annotations

import email
import shutil
import tempfile
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase

from mailplat.config import load
from mailplat.datadir import DataDirectory
from mailplat.service import MailService
from mailplat.smtp.client import ClientSettings, Login, connect
from mailplat.testing.fakes import MemoryMessage, outline_of
from mailplat.testing.network import Network
from mailplat.trust import Trust
from mailplat.values import Envelope, ReportRequest
from tests.delivery.house import address, messages_of

PASSWORD = "secret"

SETTINGS = """
hostname = "{hostname}"
domains = ["{domain}"]
store = "memory"
auth = ["memory:{accounts}"]
plaintext-login = "always"

[listen]
smtp = "tcp:25"
submission = "tcp:587"
lmtp = "unix:{data}/lmtp"
"""


class House:
    """
    Args:
        hostname, address: of its machine.
        domain: the one that is its own; the DNS is told.
        users: local parts of accounts.
        settings: more TOML.
        aliases: the alias file.
    """

    def __init__(
        self,
        network: Network,
        hostname: str,
        address: str,
        domain: str,
        users: tuple[str, ...] = ("alice", "bob"),
        settings: str = "",
        aliases: str = "",
    ) -> None:
        self.network, self.domain, self.hostname = network, domain, hostname
        self.host = network.host(hostname, address)
        network.domain(domain, hostname)
        # Short: a UNIX socket's path must fit in 108 octets.
        self.directory = Path(tempfile.mkdtemp(prefix="mp-", dir="/tmp"))
        self.data = self.directory / "data"
        directory = DataDirectory(str(self.data))
        directory.prepare()
        Path(directory.aliases).write_text(aliases)
        # The account file hashes in threads of its own, and a network in memory has none.
        accounts = ":".join(f"{user}@{domain}:{PASSWORD}" for user in users)
        file = self.directory / "settings.toml"
        file.write_text(
            SETTINGS.format(hostname=hostname, domain=domain, data=self.data, accounts=accounts) + settings
        )
        given = load(str(file), {"data": str(self.data)})
        self.service = MailService(given, self.host, resolver=network.resolver)
        self.service.startService()
        network.run(self.service.started)
        for user in users:
            network.run(self.service._store.create_account(self.address(user)))

    def close(self) -> None:
        self.network.run(self.service.stopService())
        shutil.rmtree(self.directory)

    def address(self, user: str) -> str:
        return f"{user}@{self.domain}"

    # Mail

    def submit(
        self,
        *recipients: str,
        user: str = "alice",
        sender: str | None = None,
        body: bytes = b"",
        request: ReportRequest | None = None,
        **envelope: object,
    ) -> list[object]:
        """Hand a message in as a user; the error of each recipient, or None."""
        return self.network.run(self._submit(recipients, user, sender, body, request, envelope))

    async def _submit(self, recipients, user, sender, body, request, envelope):
        body = body or f"From: {self.address(user)}\r\nSubject: hello\r\n\r\nHello\r\n".encode()
        to = tuple(map(address, recipients))
        login = Login(self.address(user), PASSWORD)
        endpoint = TCP4ClientEndpoint(self.host, "127.0.0.1", 587)
        client = await connect(
            endpoint, self.hostname, ClientSettings("client.test", login=login), self.host, Trust()
        )
        if request is not None:
            envelope = {**envelope, "requests": dict.fromkeys(to, request)}
        made = Envelope(address(sender or self.address(user)), to, **envelope)
        outcomes = await client.send(made, MemoryMessage(body, outline_of(body)), b"", to)
        await client.quit()
        return [outcome.error for outcome in outcomes]

    def inbox(self, user: str = "alice") -> list[EmailMessage]:
        found = self.network.run(messages_of(self.service._store, self.address(user)))
        return [email.message_from_bytes(body, policy=default) for body in found]

    def waiting(self) -> int:
        """Recipients in the queue."""
        return self.network.run(self.service._store.queue.status()).recipients

    def talk(self, *lines: str, port: int = 25, source: str = "") -> list[str]:
        """
        The last line of the answer to the greeting and to each line, said in clear.

        Args:
            port: 0 for LMTP.
            source: the name of the machine that speaks; by default this one.
        """
        host = self.network.hosts[source] if source else self.host
        where = self.host.addresses[0] if source else "127.0.0.1"
        endpoint = (
            TCP4ClientEndpoint(host, where, port) if port else UNIXClientEndpoint(host, f"{self.data}/lmtp")
        )
        return self.network.run(_talk(endpoint, lines))


async def _talk(endpoint, lines):
    talk = await connectProtocol(endpoint, Talk())
    answers = [await talk.answer()]
    for line in lines:
        talk.transport.write(f"{line}\r\n".encode())
        answers.append(await talk.answer())
    talk.transport.loseConnection()
    return answers


class Talk(LineReceiver):
    """Gives the last line of each reply."""

    delimiter = b"\r\n"

    def __init__(self):
        self._replies = []
        self._waiting = None

    def lineReceived(self, line):
        if line[3:4] != b"-":
            self._replies.append(line.decode())
            self._tell()

    def connectionLost(self, reason):
        self._replies.append("closed")
        self._tell()

    def answer(self):
        self._waiting = Deferred()
        waiting = self._waiting
        self._tell()
        return waiting

    def _tell(self):
        if self._replies and self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(self._replies.pop(0))


class Town(SynchronousTestCase):
    """
    Attributes:
        here, there: two houses, of here.test and there.test, which send mail to each other.
    """

    here_settings = there_settings = here_aliases = there_aliases = ""

    def setUp(self):
        self.network = Network()
        self.here = self.house("here.test", "192.0.2.1", self.here_settings, self.here_aliases)
        self.there = self.house("there.test", "192.0.2.2", self.there_settings, self.there_aliases)

    def house(self, domain, address, settings="", aliases=""):
        made = House(self.network, f"mx.{domain}", address, domain, settings=settings, aliases=aliases)
        self.addCleanup(made.close)
        return made

    def subjects(self, house, user="alice"):
        return [message["Subject"] for message in house.inbox(user)]
