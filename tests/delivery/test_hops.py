"""Next hops: text and value, and which one is chosen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.delivery.hops import LEVELS, PORTS, NextHop, NextHops
from mailplat.errors import ConfigurationError, NoSuchDomain
from mailplat.values import Address
from tests.delivery.house import address

labels = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
domains = st.lists(labels, min_size=1, max_size=4).map(".".join)
ipv4, ipv6 = st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)
paths = st.from_regex(r"/[!-:<-~]{0,30}", fullmatch=True)
options = st.fixed_dictionaries(
    {"tls": st.sampled_from(("", *LEVELS)), "login": st.from_regex(r"[a-z0-9.@-]{0,10}", fullmatch=True)}
)
direct = st.builds(
    lambda host, more: NextHop("mx", host, **more),
    domains | ipv4.map("[{}]".format) | ipv6.map("[IPv6:{}]".format),
    options,
)
hosts = st.builds(
    lambda protocol, host, port, more: NextHop(protocol, host, port, **more),
    st.sampled_from(sorted(PORTS)), domains | ipv4 | ipv6, st.integers(1, 65535), options,
)  # fmt: skip
sockets = st.builds(
    lambda protocol, path, more: NextHop(protocol, path, 0, **more),
    st.sampled_from(sorted(PORTS)),
    paths,
    options,
)


class Text(SynchronousTestCase):
    @given(direct | hosts | sockets)
    def test_inverse(self, hop):
        self.assertEqual(NextHop.parse(str(hop)), hop)

    @given(st.text(max_size=40) | st.text("smtplx:[];=/.unix1 ", max_size=40))
    def test_anything(self, text):
        """A next hop, in its one spelling, or a ValueError."""
        try:
            hop = NextHop.parse(text)
        except ValueError:
            return
        self.assertEqual(NextHop.parse(str(hop)), hop)

    def test_kinds(self):
        for text, hop in (
            ("Example.COM", NextHop("mx", "example.com")),
            ("bücher.example.", NextHop("mx", "xn--bcher-kva.example")),
            ("[192.0.2.1]", NextHop("mx", "[192.0.2.1]")),
            ("[ipv6:2001:DB8:0::1]", NextHop("mx", "[IPv6:2001:db8::1]")),
            ("example.com;tls=encrypt", NextHop("mx", "example.com", tls="encrypt")),
            ("smtp:Mail.example", NextHop("smtp", "mail.example", 25)),
            ("SMTP:mail.example:2525", NextHop("smtp", "mail.example", 2525)),
            ("smtp:192.0.2.1:26", NextHop("smtp", "192.0.2.1", 26)),
            ("smtp:[192.0.2.1]:25", NextHop("smtp", "192.0.2.1", 25)),
            ("lmtp:[2001:db8::1]", NextHop("lmtp", "2001:db8::1", 24)),
            ("smtps:mail.example;login=isp", NextHop("smtps", "mail.example", 465, login="isp")),
            ("lmtp:unix:/run/lmtp.sock", NextHop("lmtp", "/run/lmtp.sock")),
            ("smtp:unix:/run/smtp;tls=none", NextHop("smtp", "/run/smtp", tls="none")),
        ):
            self.assertEqual(NextHop.parse(text), hop)
            self.assertEqual(NextHop.parse(str(hop)), hop)

    def test_mistakes(self):
        for text in (
            "", " ", "a b", "a..b", "example.com:25", "[192.0.2.1", "[mail.example]", "[192.0.2.1]:25",
            "smtp:", "smtp::25", "smtp:mail.example:", "smtp:mail.example:0", "smtp:mail.example:65536",
            "smtp:mail.example:025", "smtp:2001:db8::1", "smtp:[2001:db8::1]25", "smtp:[fe80::1%eth0]:25",
            "http:mail.example", "lmtp:unix:", "lmtp:unix:run", "lmtp:unix:/a\n", "example.com;",
            "example.com;tls",
            "example.com;tls=", "example.com;tls=maybe", "example.com;tls=may;tls=may", "example.com;port=3",
        ):  # fmt: skip
            self.assertRaises(ValueError, NextHop.parse, text)

    def test_relayhost(self):
        for text, hop in (
            ("mail.isp.example:587", "smtp:mail.isp.example:587"),
            ("mail.isp.example", "smtp:mail.isp.example:25"),
            ("[2001:db8::1]:26", "smtp:[2001:db8::1]:26"),
            ("192.0.2.1", "smtp:192.0.2.1:25"),
            ("mail.isp.example:587;login=isp", "smtp:mail.isp.example:587;login=isp"),
            ("smtps:mail.isp.example", "smtps:mail.isp.example:465"),
            ("lmtp:unix:/run/lmtp", "lmtp:unix:/run/lmtp"),
        ):
            self.assertEqual(str(NextHop.parse_host(text)), hop)
        self.assertRaises(ValueError, NextHop.parse_host, "mail.isp.example:smtp")

    def test_literal(self):
        for text, literal in (
            ("example.com", ""), ("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::1]", "2001:db8::1"),
            ("smtp:mail.example", ""), ("smtp:192.0.2.1", "192.0.2.1"), ("lmtp:[2001:db8::1]", "2001:db8::1"),
        ):  # fmt: skip
            self.assertEqual(NextHop.parse(text).literal, literal)


class Choosing(SynchronousTestCase):
    def choose(self, hops, recipient, sender=""):
        sender = address(sender) if sender else None
        hop = hops.choose(address(recipient), sender)
        self.assertEqual(hops(sender, address(recipient)), str(hop))
        return str(hop)

    def test_directly(self):
        hops = NextHops()
        self.assertEqual(self.choose(hops, "a@Example.com"), "example.com")
        self.assertEqual(self.choose(hops, "a@bücher.example"), "xn--bcher-kva.example")
        self.assertEqual(self.choose(hops, "a@[192.0.2.1]"), "[192.0.2.1]")
        self.assertEqual(self.choose(hops, "a@[IPv6:2001:db8::1]"), "[IPv6:2001:db8::1]")

    def test_domains_that_cannot_be(self):
        for domain in (
            "",
            "a b",
            "a..b",
            "x" * 70,
            "[192.0.2]",
            "[tag:x]",
            "smtp:host:25",
            "[192.0.2.1];tls=none",
        ):
            self.assertRaises(NoSuchDomain, NextHops().choose, Address("a", domain), None)

    def test_order(self):
        hops = NextHops(
            NextHop.parse("smtp:relay.example:587"),
            {
                "example.com": NextHop.parse("lmtp:unix:/run/lmtp"),
                ".example.com": NextHop.parse("smtp:below.example"),
                ".deep.example.com": NextHop.parse("smtp:deep.example"),
                "BÜCHER.example": NextHop.parse("books.example"),
            },
            {
                "Boss@here.example": NextHop.parse("smtp:boss.example"),
                "there.example": NextHop.parse("smtp:there.example"),
            },
        )
        for recipient, sender, hop in (
            ("a@example.com", "boss@here.example", "lmtp:unix:/run/lmtp"),
            ("a@x.example.com", "", "smtp:below.example:25"),
            ("a@y.deep.example.com", "", "smtp:deep.example:25"),
            ("a@notexample.com", "", "smtp:relay.example:587"),
            ("a@xn--bcher-kva.example", "", "books.example"),
            ("a@b.example", "BOSS@here.example", "smtp:boss.example:25"),
            ("a@b.example", "clerk@here.example", "smtp:relay.example:587"),
            ("a@b.example", "clerk@there.example", "smtp:there.example:25"),
            ("a@b.example", "clerk@[192.0.2.1]", "smtp:relay.example:587"),
            ("a@[192.0.2.1]", "", "smtp:relay.example:587"),
        ):
            self.assertEqual(self.choose(hops, recipient, sender), hop)

    def test_mistakes_are_told_together(self):
        hop = NextHop.parse("smtp:x")
        error = self.assertRaises(ConfigurationError, NextHops, None, {"a b": hop, "": hop}, {"x@": hop})
        self.assertEqual(len(error.text.splitlines()), 3)
