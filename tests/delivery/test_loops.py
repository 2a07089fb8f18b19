"""Danger: mail that comes back to us for ever (RFC 5321 §5.1, §6.3)."""

from __future__ import annotations

from mailplat.errors import HostUnreachable, NoMailThere, NotResolved
from tests.delivery.city import RelayCase


class Loops(RelayCase):
    def refused(self, *recipients, **settings):
        error = self.fails(NoMailThere, *recipients, **settings)
        self.assertIn("loops back", error.text)
        self.assertEqual(self.network.attempts, [])

    def test_we_are_the_best(self):
        self.server("backup.example")
        self.network.domain("example.com", (10, "relay.example"), (20, "backup.example"))
        self.refused()

    def test_we_are_one_of_the_best(self):
        """To hosts of the same preference mail is not passed on either: they would do as we do."""
        self.server("other.example")
        self.network.domain("example.com", (10, "relay.example"), (10, "other.example"))
        self.refused()

    def test_we_are_the_second(self):
        """Then we are a backup, and only those before us get it."""
        first, third = self.server("mx.example.com"), self.server("backup.example", "198.51.100.2")
        self.network.domain(
            "example.com", (10, "mx.example.com"), (20, "relay.example"), (30, "backup.example")
        )
        self.sent()
        self.assertEqual(len(first.received), 1)
        self.network.advance(60)
        first.script["CONNECT"] = "421 4.3.2 Closed"
        self.fails(HostUnreachable)
        self.assertEqual(third.commands, [])

    def test_the_first_is_not_found(self):
        """That the name of one before us does not resolve now does not make us the best."""
        self.network.domain("example.com", (10, "mx.example.com"), (20, "relay.example"))
        self.network.resolver.failures["mx.example.com"] = NotResolved()
        self.fails(NotResolved)

    def test_by_address(self):
        """Another name, but it is us."""
        self.network.resolver.hosts["mail.example.com"] = ["198.51.100.99", "192.0.2.1"]
        self.network.domain("example.com", "mail.example.com")
        self.refused()

    def test_by_the_other_family(self):
        self.network.resolver.hosts["mail.example.com"] = ["2001:db8::1"]
        self.network.domain("example.com", "mail.example.com")
        self.refused()

    def test_name_without_an_address(self):
        """Our name counts even where the DNS has no address for it."""
        self.network.resolver.hosts["relay.example"] = []
        self.network.domain("example.com", "relay.example")
        self.refused()

    def test_a_domain_that_is_our_name(self):
        self.refused("b@relay.example")

    def test_literal(self):
        self.refused("b@[192.0.2.1]")
        self.refused("b@[IPv6:2001:db8::1]")

    def test_a_smarthost_may_be_ourselves(self):
        """Somebody configured it: another server on this machine."""
        server = self.server("other.example", "198.51.100.7")
        self.host.listenTCP(10025, server)
        self.sent(place="smtp:[192.0.2.1]:10025")
        self.assertEqual(len(server.received), 1)
