"""
Mail for a web application: a delivery agent that posts each message to a URL, in one file.

As an entry point of your distribution (setup.cfg), where it is found by its name:

    [options.entry_points]
    mailplat.agents =
        webhook = my_package.delivery_agent:WebhookFactory

Or without a distribution, in a `twisted/plugins` directory of PYTHONPATH, as auth_plugin.py says.
Then name it in the configuration, and in the aliases file what it gets:

    [agents]
    tickets = "webhook:http://127.0.0.1:8000/mail"

    support: agent:tickets, alice

Each recipient is a POST of the message as it is (message/rfc822), with the envelope in the headers
X-Sender and X-Recipient.  2xx means that the application has it; 4xx refuses it for good, and
its sender is told; anything else, silence included, has the queue try again.  So a message may come
twice; its Message-ID is the same then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from mailplat.errors import ConfigurationError, MailError, MessageRefused, TemporaryError
from mailplat.interfaces import IAgentFactory, IDeliveryAgent, ISpooledMessage, StoreContext
from mailplat.values import Envelope, Outcome, Target

#: Seconds that an answer may take.
PATIENCE = 60

#: Octets that are read at a time.
PIECE = 65_536


@implementer(IDeliveryAgent)
class WebhookAgent:
    """
    Args:
        agent: a `twisted.web.iweb.IAgent`.
        clock: provides IReactorTime.
        url: where to POST.
    """

    def __init__(self, agent: Any, clock: Any, url: str) -> None:
        self._agent = agent
        self._clock = clock
        self._url = url.encode("ascii")

    async def deliver(
        self, envelope: Envelope, message: ISpooledMessage, prefix: bytes, targets: Sequence[Target]
    ) -> Sequence[Outcome]:
        outcomes = []
        for target in targets:
            headers = {
                "Content-Type": ["message/rfc822"],
                "X-Sender": [str(envelope.sender or "")],
                "X-Recipient": [str(target.address)],
            }
            posting = Deferred.fromCoroutine(self._post(Headers(headers), message, prefix))
            posting.addTimeout(PATIENCE, self._clock, onTimeoutCancel=_too_late)
            outcomes.append(Outcome(target.address, await posting))
        return outcomes

    async def _post(self, headers: Headers, message: ISpooledMessage, prefix: bytes) -> MailError | None:
        try:
            response = await self._agent.request(b"POST", self._url, headers, Body(message, prefix))
            await readBody(response)
        except Exception as error:
            # Whatever went wrong on the way there and back: it will be tried again.
            return TemporaryError("The application is not there", reason=f"{self._url.decode()}: {error}")
        if response.code // 100 == 2:
            return None
        said = f"The application answered {response.code}"
        return MessageRefused(said) if response.code // 100 == 4 else TemporaryError(said)


def _too_late(failure: Any, seconds: float) -> MailError:
    return TemporaryError(f"The application did not answer within {seconds} seconds")


@implementer(IBodyProducer)
class Body:
    """A message on its way into a request, a piece at a time, as fast as it is taken."""

    def __init__(self, message: ISpooledMessage, prefix: bytes) -> None:
        self._message = message
        self._prefix = prefix
        self.length = len(prefix) + message.size
        self._resumed: Deferred[None] | None = None
        self._paused = self._stopped = False

    def startProducing(self, consumer: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(self._produce(consumer))

    async def _produce(self, consumer: Any) -> None:
        consumer.write(self._prefix)
        for start in range(0, self._message.size, PIECE):
            if self._paused:
                self._resumed = Deferred()
                await self._resumed
            data = await self._message.read(start, PIECE)
            if self._stopped:
                return
            consumer.write(data)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        self._stopped = True
        self.resumeProducing()


@implementer(IPlugin, IAgentFactory)
class WebhookFactory:
    """Makes a `WebhookAgent` of the text after `webhook:`."""

    name = "webhook"
    help = "Posts each message to a URL, which is the argument."

    def generate(self, argument: str, context: StoreContext) -> WebhookAgent:
        if not argument.startswith(("http://", "https://")):
            raise ConfigurationError(f"webhook:{argument}: a URL is needed")
        agent = Agent(context.reactor, connectTimeout=PATIENCE)
        return WebhookAgent(agent, context.reactor, argument)


# What twisted.plugin finds.
webhook = WebhookFactory()
