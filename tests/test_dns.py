"""The default resolver, against a name server on loopback."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.names import dns
from twisted.trial.unittest import TestCase

from mailplat.dns import DNSResolver, ResolverLimits
from mailplat.errors import NoSuchDomain, NotResolved
from mailplat.interfaces import IResolver
from tests.name_server import NameServer

#: For servers that say nothing; who is answered late on a busy machine is answered in the next round.
QUICK = (0.05, 0.05)


class Now:
    """The process's reactor, whose clock can be put forward."""

    ahead = 0.0

    def seconds(self):
        return reactor.seconds() + self.ahead

    def __getattr__(self, name):
        return getattr(reactor, name)


class DNSCase(TestCase):
    def setUp(self):
        self.server = NameServer().start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.stop()))
        self.reactor = Now()

    def resolver(self, *servers, hosts="", families=("ipv6", "ipv4"), **limits):
        limits = ResolverLimits(**{"timeouts": (10.0,), **limits})
        resolver = DNSResolver(
            self.reactor, servers or [self.server.address], hosts=hosts, families=families, limits=limits
        )
        self.addCleanup(resolver.close)
        return resolver

    def path(self):
        """Of a file that is not there yet."""
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        return os.path.join(scratch.name, "file")

    async def fails(self, error, awaitable):
        try:
            result = await awaitable
        except error as raised:
            return raised
        self.fail(f"{error.__name__} expected, not {result!r}")


class Exchangers(DNSCase):
    async def test_by_preference(self):
        self.assertTrue(IResolver.providedBy(self.resolver()))
        self.server.add(
            "example.com", dns.Record_MX(20, "b.example.com"), dns.Record_MX(10, "A.Example.COM"),
            dns.Record_MX(20, "a.example.net"),
        )  # fmt: skip
        self.assertEqual(
            await self.resolver().mail_exchangers("Example.com"),
            [(10, "a.example.com"), (20, "a.example.net"), (20, "b.example.com")],
        )

    async def test_null(self):
        """RFC 7505 §3."""
        self.server.add("example.com", dns.Record_MX(0, ""))
        self.assertEqual(await self.resolver().mail_exchangers("example.com"), [(0, "")])

    async def test_none(self):
        self.server.add("example.com", dns.Record_A("192.0.2.1"))
        self.assertEqual(await self.resolver().mail_exchangers("example.com"), [])

    async def test_no_such_domain(self):
        await self.fails(NoSuchDomain, self.resolver().mail_exchangers("nowhere.example"))

    async def test_names_that_cannot_be(self):
        for name in (
            "",
            "a..b",
            "x" * 64 + ".example",
            "a b.example",
            "bücher.example",
            ".".join(["abcdefgh"] * 30),
        ):
            await self.fails(NoSuchDomain, self.resolver().mail_exchangers(name))
        self.assertEqual(self.server.asked, [])

    async def test_host_that_is_no_name(self):
        self.server.add("example.com", dns.Record_MX(10, b"m\xfcller.example.com"))
        ((_, host),) = await self.resolver().mail_exchangers("example.com")
        self.assertEqual(host, "m\\xfcller.example.com")
        await self.fails(NoSuchDomain, self.resolver().addresses("m\xfcller.example.com"))

    async def test_many(self):
        self.server.add("example.com", *(dns.Record_MX(n, f"mx{n}.example.com") for n in range(300)))
        self.assertEqual(len(await self.resolver(records=7).mail_exchangers("example.com")), 7)


class Addresses(DNSCase):
    def fill(self):
        self.server.add(
            "mx.example.com", dns.Record_A("192.0.2.1"), dns.Record_A("192.0.2.2"),
            dns.Record_A("192.0.2.3"), dns.Record_AAAA("2001:db8::1"),
        )  # fmt: skip

    async def test_both_families(self):
        self.fill()
        self.assertEqual(
            await self.resolver().addresses("mx.example.com"),
            ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"],
        )
        self.assertEqual(
            await self.resolver(families=["ipv4", "ipv6"]).addresses("mx.example.com"),
            ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"],
        )

    async def test_one_family(self):
        self.fill()
        self.assertEqual(await self.resolver(families=["ipv6"]).addresses("mx.example.com"), ["2001:db8::1"])
        self.assertEqual({kind for _, kind in self.server.asked}, {dns.AAAA})
        self.assertRaises(ValueError, self.resolver, families=[])
        self.assertRaises(ValueError, self.resolver, families=["ipv5"])

    async def test_one_family_fails(self):
        """A server that chokes on one question may answer the other."""
        self.fill()
        for code in (dns.ESERVER, dns.ENAME):
            self.server.codes["mx.example.com", dns.AAAA] = code
            self.server.records.pop(("mx.example.com", dns.AAAA), None)
            self.assertEqual(len(await self.resolver().addresses("mx.example.com")), 3)

    async def test_one_family_fails_and_the_other_has_none(self):
        self.server.add("mx.example.com", dns.Record_MX(1, "x.example"))
        self.server.codes["mx.example.com", dns.AAAA] = dns.ESERVER
        await self.fails(NotResolved, self.resolver().addresses("mx.example.com"))

    async def test_none(self):
        self.server.add("mx.example.com", dns.Record_MX(1, "x.example"))
        self.assertEqual(await self.resolver().addresses("mx.example.com"), [])

    async def test_no_such_name(self):
        await self.fails(NoSuchDomain, self.resolver().addresses("nowhere.example"))

    async def test_hosts_file(self):
        path = self.path()
        with open(path, "w") as file:
            file.write(
                "127.0.0.1 localhost\n# 192.0.2.9 MX.test\n192.0.2.7\tMX.test mx # mine\nfe80::7 mx.test\n!\n"
            )
        resolver = self.resolver(hosts=path)
        self.assertEqual(await resolver.addresses("mx.TEST"), ["fe80::7", "192.0.2.7"])
        self.assertEqual(
            await self.resolver(hosts=path, families=["ipv4"]).addresses("mx.test"), ["192.0.2.7"]
        )
        with open(path, "w") as file:
            file.write("192.0.2.70 mx.test\n")
        self.assertEqual(await resolver.addresses("mx.test"), ["192.0.2.70"])
        os.unlink(path)
        await self.fails(NoSuchDomain, resolver.addresses("mx.test"))


class Aliases(DNSCase):
    async def test_in_one_answer(self):
        self.server.add("a.example", dns.Record_CNAME("b.example"))
        self.server.add("b.example", dns.Record_CNAME("c.example"))
        self.server.add("c.example", dns.Record_A("192.0.2.1"))
        self.assertEqual(await self.resolver(families=["ipv4"]).addresses("a.example"), ["192.0.2.1"])
        self.assertEqual(len(self.server.asked), 1)

    async def test_across_answers(self):
        """A server that tells the alias alone is asked again for what it stands for."""
        self.server.add("a.example", dns.Record_CNAME("b.example"))
        self.server.add("b.example", dns.Record_MX(5, "mx.example"))
        self.server.spoiled = lambda message: message.answers.__delitem__(slice(1, None))
        self.assertEqual(await self.resolver().mail_exchangers("a.example"), [(5, "mx.example")])
        self.assertEqual([name for name, _ in self.server.asked], ["a.example", "b.example"])

    async def test_to_nowhere(self):
        self.server.add("a.example", dns.Record_CNAME("b.example"))
        await self.fails(NoSuchDomain, self.resolver().addresses("a.example"))

    async def test_circle(self):
        self.server.add("a.example", dns.Record_CNAME("b.example"))
        self.server.add("b.example", dns.Record_CNAME("a.example"))
        error = await self.fails(NotResolved, self.resolver().mail_exchangers("a.example"))
        self.assertIn("a.example -> b.example -> a.example", error.reason)

    async def test_too_many(self):
        for n in range(20):
            self.server.add(f"n{n}.example", dns.Record_CNAME(f"n{n + 1}.example"))
        self.server.add("n20.example", dns.Record_MX(5, "mx.example"))
        await self.fails(NotResolved, self.resolver().mail_exchangers("n0.example"))
        await self.resolver(aliases=20).mail_exchangers("n0.example")


class Believing(DNSCase):
    async def test_records_of_other_names(self):
        """What nobody asked for is not an answer."""
        self.server.add("example.com", dns.Record_MX(5, "mx.example.com"))

        def spoil(message):
            message.answers = [
                dns.RRHeader("bank.example", dns.MX, dns.IN, 60, dns.Record_MX(1, "evil.example"))
            ]

        self.server.spoiled = spoil
        self.assertEqual(await self.resolver().mail_exchangers("example.com"), [])

    async def test_answers_to_other_questions(self):
        self.server.spoiled = lambda message: setattr(message, "queries", [dns.Query("bank.example", dns.MX)])
        await self.fails(NotResolved, self.resolver().mail_exchangers("example.com"))
        self.server.spoiled = lambda message: setattr(message, "answer", 0)
        await self.fails(NotResolved, self.resolver().mail_exchangers("example.com"))


class Servers(DNSCase):
    async def test_failures(self):
        self.server.add("example.com", dns.Record_MX(5, "mx.example.com"))
        for code in (dns.ESERVER, dns.EREFUSED, dns.ENOTIMP, dns.EFORMAT, 9):
            self.server.codes["example.com"] = code
            error = await self.fails(NotResolved, self.resolver().mail_exchangers("example.com"))
            self.assertIn(f"code {code}", error.reason)

    async def test_silence(self):
        self.server.silent.add("example.com")
        resolver = self.resolver(timeouts=QUICK)
        error = await self.fails(NotResolved, resolver.mail_exchangers("example.com"))
        self.assertIn("silent", error.reason)
        self.assertEqual(len(self.server.asked), len(QUICK))

    async def test_the_next_one(self):
        second = NameServer().start()
        self.addCleanup(lambda: Deferred.fromCoroutine(second.stop()))
        second.add("one.example", dns.Record_MX(5, "mx.one.example"))
        second.add("two.example", dns.Record_MX(5, "mx.two.example"))
        self.server.silent.add("one.example")
        self.server.codes["two.example"] = dns.ESERVER
        resolver = self.resolver(self.server.address, second.address, timeouts=(0.05, 10.0))
        self.assertEqual(await resolver.mail_exchangers("one.example"), [(5, "mx.one.example")])
        self.assertEqual(await resolver.mail_exchangers("two.example"), [(5, "mx.two.example")])

    async def test_by_tcp(self):
        self.server.add("example.com", *(dns.Record_MX(n, f"mx{n:0>50}.example.com") for n in range(60)))
        self.server.truncated = True
        self.assertEqual(len(await self.resolver().mail_exchangers("example.com")), 60)
        self.assertEqual(self.server.by_tcp, 1)
        self.server.tcp_silent = True
        resolver = self.resolver(tcp_timeout=0.05)
        await self.fails(NotResolved, resolver.mail_exchangers("example.com"))

    async def test_nobody_there_by_tcp(self):
        self.server.truncated = True
        await self.server.stop_tcp()
        await self.fails(NotResolved, self.resolver().mail_exchangers("example.com"))

    async def test_resolv_conf(self):
        path = self.path()
        resolver = DNSResolver(reactor, resolv_conf=path, hosts="")
        with open(path, "w") as file:
            file.write(
                "; mine\nsearch example.com\nnameserver 192.0.2.1\nnameserver\nnameserver 2001:DB8:0::1\n"
            )
        self.assertEqual(resolver._resolv_conf.content(), (("192.0.2.1", 53), ("2001:db8::1", 53)))
        os.unlink(path)
        self.assertEqual(resolver._resolv_conf.content(), (("127.0.0.1", 53),))

    async def test_closed_while_asking(self):
        self.server.silent.add("example.com")
        resolver = self.resolver(timeouts=(100,))
        asked = Deferred.fromCoroutine(resolver.mail_exchangers("example.com"))
        resolver.close()
        await self.fails(NotResolved, asked)


class Remembering(DNSCase):
    async def test_as_long_as_it_says(self):
        self.server.add("example.com", dns.Record_MX(5, "mx.example.com"))
        resolver = self.resolver()
        for ahead, questions in ((0, 1), (299, 1), (301, 2)):
            self.reactor.ahead = ahead
            await resolver.mail_exchangers("EXAMPLE.com")
            self.assertEqual(len(self.server.asked), questions)

    async def test_nothing(self):
        self.server.add("empty.example", dns.Record_A("192.0.2.1"))
        resolver = self.resolver()
        for ahead, questions in ((0, 2), (59, 2), (61, 4)):
            self.reactor.ahead = ahead
            await resolver.mail_exchangers("empty.example")
            await self.fails(NoSuchDomain, resolver.mail_exchangers("nowhere.example"))
            self.assertEqual(len(self.server.asked), questions)

    async def test_nothing_and_not_said_for_how_long(self):
        self.server.negative = None
        resolver = self.resolver()
        for _ in range(2):
            await self.fails(NoSuchDomain, resolver.mail_exchangers("nowhere.example"))
        self.assertEqual(len(self.server.asked), 2)

    async def test_no_answer(self):
        self.server.codes["example.com"] = dns.ESERVER
        resolver = self.resolver()
        for ahead, questions in ((0, 1), (14, 1), (16, 2)):
            self.reactor.ahead = ahead
            await self.fails(NotResolved, resolver.mail_exchangers("example.com"))
            self.assertEqual(len(self.server.asked), questions)

    async def test_never_longer_than_set(self):
        """Whatever an answer says itself."""
        self.server.add("example.com", dns.Record_MX(5, "mx.example.com"))
        self.server.codes["broken.example"] = dns.ESERVER
        resolver = self.resolver(longest=40, longest_negative=20, failure=30)
        for ahead, questions in (
            (0, [1, 1, 1]),
            (19, [1, 1, 1]),
            (21, [1, 2, 1]),
            (29, [1, 2, 1]),
            (31, [1, 2, 2]),
            (39, [1, 2, 2]),
        ):
            self.reactor.ahead = ahead
            await resolver.mail_exchangers("example.com")
            await self.fails(NoSuchDomain, resolver.mail_exchangers("nowhere.example"))
            await self.fails(NotResolved, resolver.mail_exchangers("broken.example"))
            asked = [name for name, _ in self.server.asked]
            names = ("example.com", "nowhere.example", "broken.example")
            self.assertEqual([asked.count(name) for name in names], questions, ahead)
        self.reactor.ahead = 41
        await resolver.mail_exchangers("example.com")
        self.assertEqual([name for name, _ in self.server.asked][-1], "example.com")

    async def test_only_so_many(self):
        resolver = self.resolver(entries=3)
        for n in range(5):
            self.server.add(f"d{n}.example", dns.Record_MX(5, "mx.example.com"))
            await resolver.mail_exchangers(f"d{n}.example")
        await resolver.mail_exchangers("d4.example")
        self.assertEqual(len(self.server.asked), 5)
        await resolver.mail_exchangers("d0.example")
        self.assertEqual(len(self.server.asked), 6)
        self.assertEqual(len(resolver._known), 3)

    async def test_asked_once(self):
        self.server.add("example.com", dns.Record_MX(5, "mx.example.com"))
        resolver = self.resolver()
        asked = [Deferred.fromCoroutine(resolver.mail_exchangers("example.com")) for _ in range(5)]
        given_up = asked.pop()
        given_up.cancel()
        await self.fails(CancelledError, given_up)
        self.assertEqual(await gatherResults(asked), [[(5, "mx.example.com")]] * 4)
        self.assertEqual(len(self.server.asked), 1)

    async def test_so_many_at_once(self):
        for n in range(6):
            self.server.add(f"d{n}.example", dns.Record_MX(5, "mx.example.com"))
        resolver = self.resolver(at_once=1, timeouts=(5,))
        asked = [Deferred.fromCoroutine(resolver.mail_exchangers(f"d{n}.example")) for n in range(6)]
        await gatherResults(asked)
        self.assertEqual(len(self.server.asked), 6)
