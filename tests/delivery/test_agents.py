"""Delivery to programs and to files."""

from __future__ import annotations

import fcntl
import mailbox
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailplat.delivery.files import FileAgent, FileAgentFactory
from mailplat.delivery.pipe import PipeAgent, PipeAgentFactory, PipeLimits
from mailplat.errors import (
    ConfigurationError,
    MessageRefused,
    NoSuchRecipient,
    PermanentError,
    StorageFull,
    TemporaryError,
)
from mailplat.interfaces import IAgentFactory, IDeliveryAgent, StoreContext
from mailplat.plugins import agents, make_agent
from mailplat.values import Envelope, Target
from tests.delivery.house import BODY, Spooled, address

SENDER = Envelope(address("carol@elsewhere.test"))
TRACE = b"Received: somehow\r\n"


def targets(*texts):
    return [Target("x", "x", address(text)) for text in texts]


class AgentTestCase(TestCase):
    def setUp(self):
        from twisted.internet import reactor

        self.reactor = reactor
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)

    async def error(self, agent, body=BODY, envelope=SENDER, to="bob@example.test"):
        (outcome,) = await agent.deliver(envelope, Spooled(body), TRACE, targets(to))
        return outcome.error


class PipeTests(AgentTestCase):
    def agent(self, script, *words, **limits):
        return PipeAgent([sys.executable, "-c", script, *words], self.reactor, PipeLimits(**limits))

    async def test_message_and_words(self):
        path = self.directory / "out"
        script = (
            "import sys; path, *words = sys.argv[1:]; data = sys.stdin.buffer.read(); "
            "open(path, 'wb').write(' '.join(words).encode() + b'\\n' + data)"
        )
        agent = self.agent(script, str(path), "-f", "<{sender}>", "{local}", "{domain}", "{recipient}")
        verifyObject(IDeliveryAgent, agent)
        self.assertIsNone(await self.error(agent, to="bob+{domain}@example.test"))
        self.assertEqual(
            path.read_bytes(),
            b"-f <carol@elsewhere.test> bob+{domain} example.test bob+{domain}@example.test\n"
            b"Return-Path: <carol@elsewhere.test>\r\nDelivered-To: bob+{domain}@example.test\r\n"
            + TRACE
            + BODY,
        )

    async def test_a_large_message(self):
        body = BODY + b"0123456789abcde\n" * 300_000
        path = self.directory / "out"
        agent = self.agent("import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())", str(path))
        self.assertIsNone(await self.error(agent, body))
        self.assertTrue(path.read_bytes().endswith(body))

    async def test_a_program_that_does_not_read(self):
        self.assertIsNone(await self.error(self.agent("pass"), BODY + b"x" * 1_000_000))

    async def test_statuses(self):
        for status, kind in [
            (0, type(None)),
            (1, PermanentError),
            (65, MessageRefused),
            (67, NoSuchRecipient),
            (75, TemporaryError),
        ]:
            error = await self.error(self.agent(f"import sys; print('no\\nthanks'); sys.exit({status})"))
            self.assertIs(type(error), kind)
            if error:
                self.assertEqual(error.text, "no thanks")

    async def test_killed(self):
        agent = self.agent("import os; os.kill(os.getpid(), 9)")
        self.assertIsInstance(await self.error(agent), TemporaryError)

    async def test_limit_time(self):
        agent = self.agent("import time; time.sleep(100)", time=0.2)
        self.assertIsInstance(await self.error(agent, BODY + b"x" * 1_000_000), TemporaryError)

    async def test_limit_output(self):
        agent = self.agent("import sys; print('x' * 100000); sys.exit(1)", output=10)
        self.assertEqual((await self.error(agent)).text, "x" * 10)

    async def test_limit_runs(self):
        agent = self.agent("pass", runs=1)
        outcomes = await agent.deliver(SENDER, Spooled(), TRACE, targets("a@example.test", "b@example.test"))
        self.assertEqual([o.error for o in outcomes], [None, None])

    async def test_what_looks_like_an_option(self):
        agent = self.agent("raise SystemExit(1)", "{recipient}")
        self.assertIsInstance(await self.error(agent, to="-oX@example.test"), NoSuchRecipient)

    async def test_no_such_program(self):
        error = await self.error(PipeAgent(["/nonexistent/program"], self.reactor))
        self.assertIsNotNone(error)

    async def test_null_sender(self):
        path = self.directory / "out"
        agent = self.agent("import sys; open(sys.argv[1], 'w').write(sys.argv[2])", str(path), "<{sender}>")
        self.assertIsNone(await self.error(agent, envelope=Envelope(None)))
        self.assertEqual(path.read_text(), "<>")


class FileTests(AgentTestCase):
    def setUp(self):
        super().setUp()
        self.path = str(self.directory / "archive")
        self.agent = FileAgent(self.path, self.reactor)

    async def test_messages(self):
        verifyObject(IDeliveryAgent, self.agent)
        body = BODY + b"From me\r\n>From me\r\nFroma\r\nno end"
        self.assertIsNone(await self.error(self.agent, body))
        self.assertIsNone(await self.error(self.agent, envelope=Envelope(None)))
        one, two = mailbox.mbox(self.path)
        self.assertEqual(one["Return-Path"], "<carol@elsewhere.test>")
        self.assertEqual(one.get_payload(), "Hello\n>From me\n>>From me\nFroma\nno end\n")
        self.assertEqual(two["Return-Path"], "<>")
        self.assertIn("MAILER-DAEMON", two.get_from())
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    async def test_quoting_across_pieces(self):
        line = b"From x\r\n"
        body = BODY + line * 50_000
        self.assertIsNone(await self.error(self.agent, body))
        data = Path(self.path).read_bytes()
        self.assertEqual(data.splitlines().count(b">From x"), 50_000)

    async def test_one_copy_for_several_addresses(self):
        outcomes = await self.agent.deliver(SENDER, Spooled(), TRACE, targets("a@b.test", "c@d.test"))
        self.assertEqual([str(o.recipient) for o in outcomes], ["a@b.test", "c@d.test"])
        self.assertEqual(len(mailbox.mbox(self.path)), 1)

    async def test_locked(self):
        with open(self.path, "a") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            self.assertIsInstance(await self.error(self.agent), TemporaryError)
        self.assertIsNone(await self.error(self.agent))

    async def test_no_directory(self):
        error = await self.error(FileAgent("/nonexistent/file", self.reactor))
        self.assertIsInstance(error, StorageFull)

    async def test_a_read_that_fails_leaves_nothing(self):
        message = Spooled(BODY, in_memory=False)

        async def read(start, length):
            raise OSError("gone")

        message.read = read
        (outcome,) = await self.agent.deliver(SENDER, message, TRACE, targets("a@b.test"))
        self.assertIsInstance(outcome.error, StorageFull)
        self.assertEqual(os.stat(self.path).st_size, 0)


class FactoryTests(SynchronousTestCase):
    context = StoreContext(Clock(), "/nonexistent")

    def test_found_by_name(self):
        self.assertLessEqual({"pipe", "file"}, {part.name for part in agents()})
        for spec, kind in [("pipe:/bin/cat -u {sender}", PipeAgent), ("file:/tmp/x", FileAgent)]:
            self.assertIsInstance(make_agent(spec, self.context), kind)

    def test_factories(self):
        for factory in (PipeAgentFactory(), FileAgentFactory()):
            verifyObject(IAgentFactory, factory)

    def test_mistakes(self):
        for spec in ("pipe:", "pipe:cat", "pipe:'", "file:", "file:x", "pigeon:x"):
            self.assertRaises(ConfigurationError, make_agent, spec, self.context)
