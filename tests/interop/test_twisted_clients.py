"""twisted.mail's clients as independent peers."""

from io import BytesIO

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.mail import imap4, pop3, smtp
from twisted.trial.unittest import TestCase

from tests.interop.house import MESSAGES, PASSWORD, House, address, without_prefix


class TwistedClientTests(TestCase):
    timeout = 60

    def setUp(self):
        self.house = House().start()
        self.addCleanup(self.house.stop)

    async def connect(self, name, protocol):
        return await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", self.house.port[name]), protocol)

    async def end(self, protocol, leave):
        gone = Deferred()
        lost = protocol.connectionLost
        protocol.connectionLost = lambda reason: (lost(reason), gone.callback(None))
        await leave()
        protocol.transport.loseConnection()
        await gone

    async def test_send_and_read(self):
        for name in ("plain", "8bit", "multipart"):
            sent = Deferred()
            # This client wants lines as they are in a file, and makes them CR LF itself.
            file = BytesIO(MESSAGES[name].replace(b"\r\n", b"\n"))
            factory = smtp.SMTPSenderFactory("a@elsewhere.test", address("alice"), file, sent)
            reactor.connectTCP("127.0.0.1", self.house.port["smtp"], factory)
            await sent
        client = await self.connect("imap", imap4.IMAP4Client())
        await client.login(address("alice").encode(), PASSWORD.encode())
        selected = await client.select("INBOX")
        self.assertEqual(selected["EXISTS"], 3)
        found = await client.fetchMessage("1,3")
        self.assertEqual(without_prefix(found[1]["RFC822"].encode("ascii")), MESSAGES["plain"])
        self.assertEqual(without_prefix(found[3]["RFC822"].encode("ascii")), MESSAGES["multipart"])
        flags = await client.fetchFlags("1:3")
        self.assertEqual(sorted(flags), [1, 2, 3])
        await client.addFlags("1", ["\\Deleted"])
        self.assertEqual(await client.expunge(), [1])
        await self.end(client, client.logout)

        client = await self.connect("pop3", pop3.AdvancedPOP3Client())
        client.allowInsecureLogin = True
        await client.login(address("alice").encode(), PASSWORD.encode())
        self.assertEqual(len(await client.listSize()), 2)
        lines = await client.retrieve(0)
        self.assertEqual(without_prefix(b"".join(line + b"\r\n" for line in lines)), MESSAGES["8bit"])
        await self.end(client, client.quit)
