"""
The contract of a delivery agent, as tests: for our agents and for yours.

An agent's test file is this:

    from twisted.trial.unittest import TestCase
    from mailplat.testing.agents import DeliveryAgentContract

    class MyAgentTests(DeliveryAgentContract, TestCase):
        def make_agent(self):                   # a new one, ready for use; awaited if need be
            self.directory = self.new_directory()
            return MyAgent(self.directory)

        def arrived(self):                      # what it delivered so far, oldest first, as bytes
            return [path.read_bytes() for path in sorted(Path(self.directory).iterdir())]

Run it with trial or pytest.  Lines may end otherwise than they came, and an agent may put lines of
its own before the prefix.  If a test can have deliveries fail, it says how:

        def break_agent(self, broken): ...
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from twisted.trial.unittest import SkipTest
from zope.interface.verify import verifyObject

from mailplat.errors import MailError, PermanentError
from mailplat.interfaces import IDeliveryAgent
from mailplat.testing.contract.base import Case, given
from mailplat.testing.fakes import MemoryMessage, outline_of
from mailplat.values import Address, Envelope, Outcome, Target

__all__ = ["DeliveryAgentContract"]

PREFIX = b"Received: from here\r\n\tby there; Thu, 1 Jan 2026 00:00:00 +0000\r\n"
BODY = b"From: a@elsewhere.test\r\nSubject: hello\r\n\r\nHello\r\n.\r\nFrom nowhere\r\n\xc3\xb6\r\n"
SENDER = Address("sender", "elsewhere.test")


class DeliveryAgentContract(Case):
    """
    What the queue counts on.  Combine it with `twisted.trial.unittest.TestCase`.

    Attributes:
        targets: at least two that the agent delivers to.
        copies: for several targets of one message: "each" gets one, or there is "one" for all.
        break_agent: called with True, has deliveries fail; with False, has them go well again.
    """

    targets: Sequence[Target] = tuple(
        Target("agent", "agent", Address(name, "example.test")) for name in ("bob", "carol+x")
    )
    copies = "each"
    break_agent: Callable[[bool], object] | None = None

    def make_agent(self) -> IDeliveryAgent | Awaitable[IDeliveryAgent]:
        raise NotImplementedError

    def arrived(self) -> Sequence[bytes] | Awaitable[Sequence[bytes]]:
        raise NotImplementedError

    async def deliver(
        self,
        *targets: Target,
        body: bytes = BODY,
        sender: Address | None = SENDER,
        message: MemoryMessage | None = None,
    ) -> Sequence[Outcome]:
        """A delivery by `agent`, to the first target if none is named, as the queue asks for it."""
        targets = targets or (self.targets[0],)
        envelope = Envelope(sender, tuple(target.address for target in targets))
        message = message or MemoryMessage(body, outline_of(body))
        return await self.agent.deliver(envelope, message, PREFIX, targets)

    async def begin(self) -> None:
        self.agent: IDeliveryAgent = await given(self.make_agent())

    async def delivered(self, *targets: Target, count: int = 1, body: bytes = BODY) -> None:
        """`count` more messages arrived, each with the prefix before the whole body."""
        wanted = (PREFIX + body).replace(b"\r\n", b"\n")
        found = [one.replace(b"\r\n", b"\n") for one in await given(self.arrived())]
        self.assertEqual(len(found), count)
        for one in found:
            # A mailbox in one file quotes what would look like the start of a message.
            text = one.replace(b"\n>From ", b"\nFrom ")
            self.assertIn(wanted.rstrip(b"\n"), text)

    async def test_interface(self) -> None:
        await self.begin()
        verifyObject(IDeliveryAgent, self.agent)

    async def test_one(self) -> None:
        await self.begin()
        self.assert_well(await self.deliver(), self.targets[0])
        await self.delivered()

    async def test_an_outcome_for_each_in_order(self) -> None:
        """Also if a target is asked for twice."""
        await self.begin()
        asked = [*self.targets, self.targets[0], *reversed(self.targets)]
        self.assert_well(await self.deliver(*asked), *asked)
        found = await given(self.arrived())
        self.assertGreaterEqual(len(found), len(self.targets) if self.copies == "each" else 1)

    async def test_the_message_is_the_callers(self) -> None:
        """It is not closed, and can be delivered again: the outcome may have been lost."""
        await self.begin()
        message = MemoryMessage(BODY, outline_of(BODY))
        for _ in range(2):
            self.assert_well(await self.deliver(message=message), self.targets[0])
        self.assertEqual(message.closed, 0)
        # Whoever knows a copy when it sees one may leave the second one out.
        self.assertIn(len(await given(self.arrived())), (1, 2))

    async def test_a_message_that_is_in_no_memory(self) -> None:
        await self.begin()
        body = BODY + b"0123456789abcde\r\n" * 60_000
        message = MemoryMessage(body, outline_of(body), hidden=True)
        self.assert_well(await self.deliver(message=message), self.targets[0])
        await self.delivered(body=body)
        self.assertLess(max(length for _, length in message.reads), 2**20)

    async def test_the_null_sender(self) -> None:
        await self.begin()
        self.assert_well(await self.deliver(sender=None), self.targets[0])
        await self.delivered()

    async def test_several_at_once(self) -> None:
        await self.begin()
        for outcomes in await self.at_once([self.deliver() for _ in range(5)]):
            self.assert_well(outcomes, self.targets[0])
        await self.delivered(count=5)

    async def test_failures_are_told(self) -> None:
        """By an outcome or for all, as a MailError; and what was broken may be mended."""
        if self.break_agent is None:
            raise SkipTest("the test says no way to break it (break_agent)")
        await self.begin()
        self.break_agent(True)
        message = MemoryMessage(BODY, outline_of(BODY))
        try:
            outcomes = await self.deliver(*self.targets, message=message)
        except MailError as error:
            outcomes = [Outcome(target.address, error) for target in self.targets]
        self.assertEqual(
            [outcome.recipient for outcome in outcomes], [target.address for target in self.targets]
        )
        for outcome in outcomes:
            self.assertIsInstance(outcome.error, MailError)
            # A sender would get a report although all is well tomorrow.
            self.assertNotIsInstance(outcome.error, PermanentError)
        self.assertEqual(message.closed, 0)
        self.break_agent(False)
        self.assert_well(await self.deliver(), self.targets[0])
        await self.delivered()

    def assert_well(self, outcomes: Sequence[Outcome], *targets: Target) -> None:
        self.assertEqual(
            [(outcome.recipient, outcome.error) for outcome in outcomes],
            [(target.address, None) for target in targets],
        )
