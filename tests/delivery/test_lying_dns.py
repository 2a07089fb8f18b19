"""Danger: what the DNS says about other people's domains is said by strangers."""

from __future__ import annotations

from mailplat.errors import HostUnreachable, NoMailThere
from mailplat.testing.scripted import ScriptedServer
from tests.delivery.city import RelayCase

#: Addresses at which no stranger's mail server is, in many spellings.
INSIDE = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.8", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::1", "::", "::7f00:1", "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a00:1",
    "2002:7f00:1::", "2002:a00:1::1",
)  # fmt: skip

OUTSIDE = (
    "198.51.100.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "192.169.0.1", "2001:db8::1", "2606:4700::1",
    "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",
)  # fmt: skip


class Inside(RelayCase):
    """A domain leads to ourselves, or to what stands beside us behind the firewall."""

    def setUp(self):
        super().setUp()
        self.inner = ScriptedServer()
        for address in ("127.0.0.1", "::1"):
            self.host.listenTCP(25, self.inner, interface=address)

    def test_what_counts_as_inside(self):
        is_public = self.relay._exchangers.is_public
        self.assertEqual([address for address in INSIDE if is_public(address)], [])
        self.assertEqual([address for address in OUTSIDE if not is_public(address)], [])

    def test_exchanger(self):
        for address in INSIDE:
            self.network.resolver.hosts["mx.example.com"] = [address]
            self.network.domain("example.com", "mx.example.com")
            error = self.fails(NoMailThere)
            self.assertIn("no public address", error.text)
            self.fails(NoMailThere, "b@mx.example.com")
        self.assertEqual(self.network.attempts, [])

    def test_literal(self):
        for address in INSIDE:
            literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
            self.fails(NoMailThere, f"b@{literal}")
        self.assertEqual(self.network.attempts, [])

    def test_among_others(self):
        server = self.server("mx.example.com")
        self.network.resolver.hosts["mx.example.com"] = ["127.0.0.1", "198.51.100.1", "::1"]
        self.network.domain("example.com", "mx.example.com")
        self.sent()
        self.assertEqual([attempt.address for attempt in self.network.attempts], ["198.51.100.1"])
        self.assertEqual((len(server.received), self.inner.commands), (1, []))

    def test_what_the_operator_allows(self):
        server = self.server("mx.example.com", "10.0.0.25")
        self.network.host("inside.example", "10.0.0.1")
        self.host = self.network.host("here.example", "10.0.0.2")
        self.settings["private"] = ["10.0.0.0/24"]
        self.network.domain("example.com", "mx.example.com")
        self.sent()
        self.assertEqual(len(server.received), 1)
        self.network.resolver.hosts["mx.example.com"] = ["10.0.1.25"]
        self.fails(NoMailThere)

    def test_configured_hops_are_trusted(self):
        self.sent(place="smtp:127.0.0.1:25")
        self.assertEqual(len(self.inner.received), 1)


class TooMuch(RelayCase):
    def test_hundreds_of_exchangers(self):
        """A list without end costs a bounded number of questions and attempts."""
        names = [f"mx{n}.example.com" for n in range(500)]
        self.network.resolver.hosts.update(
            {name: [f"198.51.100.{n % 250 + 1}"] for n, name in enumerate(names)}
        )
        self.network.domain("example.com", *((10, name) for name in names))
        self.fails(HostUnreachable)
        self.assertLessEqual(len(self.network.resolver.asked), 21)
        self.assertLessEqual(len(self.network.attempts), 5)

    def test_hundreds_of_addresses(self):
        self.network.resolver.hosts["example.com"] = [f"198.51.{n}.1" for n in range(250)]
        self.fails(HostUnreachable)
        self.assertLessEqual(len(self.network.attempts), 5)

    def test_names_that_are_none(self):
        server = self.server()
        self.network.domain(
            "example.com", (1, "x" * 300), (2, "a..b"), (3, "\\xff"), (4, "192.0.2.9"), (5, "mx.example.com")
        )
        self.sent()
        self.assertEqual(len(server.received), 1)
