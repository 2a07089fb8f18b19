"""A relay on a network in memory, and what its tests ask of it."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from mailplat.delivery.exchangers import Exchangers
from mailplat.delivery.relay import ClientLimits, Relay, RelayLimits
from mailplat.delivery.tls_policy import ConfiguredTLS
from mailplat.errors import MailError
from mailplat.testing.fakes import MemoryMessage
from mailplat.testing.network import Network
from mailplat.trust import Trust
from mailplat.values import RELAY, Envelope, Outcome, Target
from tests.delivery.house import BODY, address

PREFIX = b"Received: by relay.example\r\n"


class RelayCase(SynchronousTestCase):
    """
    Attributes:
        network: a `Network`; `host` is where the relay runs.
        relay: made when it is first asked for, with what `settings` says.
    """

    def setUp(self):
        self.network = Network()
        self.host = self.network.host("relay.example", "192.0.2.1", "2001:db8::1")
        self.settings = {}
        self._relay = None
        self.addCleanup(self.close)

    def close(self):
        if self._relay is not None:
            self._relay.stop()
            self.network.advance(60)

    @property
    def relay(self):
        if self._relay is None:
            settings = dict(self.settings)
            exchangers = Exchangers(
                self.network.resolver,
                Random(settings.pop("seed", 1)),
                names=("relay.example",),
                addresses=self.host.addresses,
                private=settings.pop("private", ()),
            )
            self._relay = Relay(
                self.host,
                exchangers,
                hostname="relay.example",
                policy=settings.pop("policy", None) or ConfiguredTLS(),
                trust=settings.pop("trust", None) or Trust(),
                limits=RelayLimits(**settings.pop("limits", {})),
                client_limits=ClientLimits(**settings.pop("client", {})),
                **settings,
            )
        return self._relay

    def server(self, name="mx.example.com", *addresses, script=None, **settings):
        """A scripted server."""
        return self.network.scripted_server(name, *(addresses or ["198.51.100.1"]), script=script, **settings)

    def start(self, *recipients, place="", body=BODY, sender="a@here.example", **envelope):
        """Send to these; a Deferred of outcomes."""
        recipients = [address(recipient) for recipient in recipients or ["b@example.com"]]
        targets = [Target(RELAY, place or recipient.domain, recipient) for recipient in recipients]
        envelope = Envelope(address(sender) if sender else None, tuple(recipients), **envelope)
        sending = self.network.start(self.relay.deliver(envelope, MemoryMessage(body), PREFIX, targets))
        # What a test leaves behind is nobody's.
        self.addCleanup(sending.addErrback, lambda failure: failure.trap(MailError))
        return sending

    def send(self, *recipients, within=86400.0, **settings):
        """The outcomes of a message to these."""
        return self.network.run(self.start(*recipients, **settings), within)

    def sent(self, *recipients, **settings):
        """Send, and it went well."""
        outcomes = self.send(*recipients, **settings)
        self.assertEqual([outcome.error for outcome in outcomes], [None] * len(outcomes))
        return outcomes

    def fails(self, error, *recipients, **settings):
        """Send, and it went wrong for all of them in this way; the error."""
        return self.assertRaises(error, self.send, *recipients, **settings)

    def rest(self):
        """Long enough for all to be forgotten."""
        self.network.advance(3600)


def texts(outcomes: list[Outcome]):
    return [(str(outcome.recipient), str(outcome.error) if outcome.error else "sent") for outcome in outcomes]
