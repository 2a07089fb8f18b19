"""Our agents keep the contract that `mailplat.testing.agents` writes down, and so does the example."""

from __future__ import annotations

import mailbox
import os
import runpy
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface.verify import verifyObject

from mailplat.delivery.files import FileAgent
from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.pipe import PipeAgent
from mailplat.errors import ConfigurationError, MessageRefused, TemporaryError
from mailplat.interfaces import IAgentFactory, StoreContext
from mailplat.testing.agents import DeliveryAgentContract
from mailplat.values import LOCAL, Target
from tests.delivery.house import address, messages_of, store_with

ROOT = Path(__file__).parent.parent.parent


class FileAgentTests(DeliveryAgentContract, TestCase):
    copies = "one"

    def make_agent(self):
        self.path = os.path.join(self.new_directory(), "archive")
        return FileAgent(self.path, reactor)

    def arrived(self):
        return [message.as_bytes() for message in mailbox.mbox(self.path, create=False)]

    def break_agent(self, broken):
        if broken:
            os.mkdir(self.path)
        else:
            os.rmdir(self.path)


class PipeAgentTests(DeliveryAgentContract, TestCase):
    def make_agent(self):
        self.directory = self.new_directory()
        script = (
            f"import os, sys, tempfile; os.chdir({self.directory!r}); data = sys.stdin.buffer.read(); "
            "os.path.exists('broken') and sys.exit(75); open(tempfile.mkstemp(dir='.')[0], 'wb').write(data)"
        )
        return PipeAgent([sys.executable, "-c", script], reactor)

    def arrived(self):
        return [path.read_bytes() for path in Path(self.directory).iterdir()]

    def break_agent(self, broken):
        path = Path(self.directory, "broken")
        path.touch() if broken else path.unlink()


class LocalDeliveryTests(DeliveryAgentContract, TestCase):
    targets = tuple(
        Target(LOCAL, f"{name}@example.test", address(f"{name}+x@example.test")) for name in ("bob", "carol")
    )

    async def make_agent(self):
        self.store = await store_with(*(target.place for target in self.targets))
        return LocalDelivery(self.store, reactor)

    async def arrived(self):
        return [body for target in self.targets for body in await messages_of(self.store, target.place)]


class Posted(Resource):
    isLeaf = True

    def __init__(self):
        super().__init__()
        self.code = 204
        self.kept = []

    def render_POST(self, request):
        request.setResponseCode(self.code)
        if self.code == 204:
            self.kept.append((dict(request.requestHeaders.getAllRawHeaders()), request.content.read()))
        return b""


class WebhookTests(DeliveryAgentContract, TestCase):
    """examples/delivery_agent.py"""

    def make_agent(self):
        self.example = runpy.run_path(str(ROOT / "examples/delivery_agent.py"))
        self.application = Posted()
        port = reactor.listenTCP(0, Site(self.application), interface="127.0.0.1")
        pool = HTTPConnectionPool(reactor, persistent=False)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.close(port, pool)))
        self.url = f"http://127.0.0.1:{port.getHost().port}/mail"
        return self.example["WebhookAgent"](Agent(reactor, pool=pool), reactor, self.url)

    async def close(self, port, pool):
        await port.stopListening()
        await pool.closeCachedConnections()

    def arrived(self):
        return [body for _, body in self.application.kept]

    def break_agent(self, broken):
        self.application.code = 500 if broken else 204

    async def test_envelope(self):
        await self.begin()
        await self.deliver()
        ((headers, _),) = self.application.kept
        self.assertEqual(headers[b"X-Sender"], [b"sender@elsewhere.test"])
        self.assertEqual(headers[b"X-Recipient"], [b"bob@example.test"])

    async def test_refused_for_good(self):
        await self.begin()
        self.application.code = 422
        (outcome,) = await self.deliver()
        self.assertIsInstance(outcome.error, MessageRefused)

    async def test_nobody_there(self):
        await self.begin()
        self.agent = self.example["WebhookAgent"](Agent(reactor), reactor, "http://127.0.0.1:1/mail")
        (outcome,) = await self.deliver()
        self.assertIsInstance(outcome.error, TemporaryError)

    async def test_factory(self):
        await self.begin()
        factory = self.example["webhook"]
        verifyObject(IAgentFactory, factory)
        context = StoreContext(reactor, self.new_directory())
        self.assertRaises(ConfigurationError, factory.generate, "ftp://x", context)
        self.agent = factory.generate(self.url, context)
        self.assertIsNone((await self.deliver())[0].error)
