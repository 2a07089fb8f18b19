"""The relay on a network in memory: which hosts, which connections, which outcomes."""

from __future__ import annotations

from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from mailplat.delivery.relay import Relay
from mailplat.errors import (
    HostUnreachable,
    NoMailThere,
    NoSuchDomain,
    NotResolved,
    PermanentError,
    TemporaryError,
)
from mailplat.interfaces import IDeliveryAgent
from mailplat.testing.scripted import DROP, HANG, RESET, Raw, ScriptedServer, Slow
from tests.delivery.city import PREFIX, RelayCase
from tests.delivery.house import BODY, address


class Delivering(RelayCase):
    def test_a_message(self):
        verifyObject(IDeliveryAgent, self.relay)
        mx = self.network.mail_server("mx.example.com", "198.51.100.1")
        self.network.domain("example.com", "mx.example.com")
        (outcome,) = self.sent()
        self.assertEqual(outcome.recipient, address("b@example.com"))
        self.assertEqual(outcome.host, "mx.example.com")
        self.assertRegex(outcome.reply, "^250 ")
        ((envelope, data),) = mx.messages
        self.assertEqual(data, PREFIX + BODY)
        self.assertEqual(envelope.sender, address("a@here.example"))
        self.assertEqual(envelope.recipients, (address("b@example.com"),))

    def test_an_outcome_for_each(self):
        server = self.server(
            script={
                "RCPT": lambda to: (
                    "550 5.1.1 No" if "x@" in to else "450 4.2.1 Later" if "y@" in to else "250 OK"
                )
            }
        )
        self.network.domain("example.com", "mx.example.com")
        outcomes = self.send("x@example.com", "b@example.com", "y@example.com", "c@example.com")
        self.assertEqual(
            [type(outcome.error) for outcome in outcomes],
            [PermanentError, type(None), TemporaryError, type(None)],
        )
        self.assertEqual(outcomes[0].reply, "550 5.1.1 No")
        self.assertEqual(outcomes[2].host, "mx.example.com")
        self.assertEqual(server.received[0].recipients, ("TO:<b@example.com>", "TO:<c@example.com>"))

    def test_several_places(self):
        """What one hop cannot have says nothing about the others."""
        self.server()
        self.network.domain("example.com", "mx.example.com")
        outcomes = self.send("a@example.com", "b@nowhere.example", "c@example.com", "d@null.example")
        self.assertEqual(
            [type(o.error) for o in outcomes], [type(None), NoSuchDomain, type(None), NoSuchDomain]
        )
        self.assertEqual([str(o.recipient)[0] for o in outcomes], ["a", "b", "c", "d"])

    def test_a_place_that_is_none(self):
        self.fails(HostUnreachable, place="smtp:")
        self.fails(NoSuchDomain, place="a..b")

    def test_configured_hops(self):
        server = self.server("gateway.example", "198.51.100.5", port=2525)
        for place in ("smtp:gateway.example:2525", "smtp:[198.51.100.5]:2525"):
            self.sent(place=place)
            self.network.advance(60)
        self.assertEqual(len(server.received), 2)
        self.assertEqual(self.network.resolver.asked, ["gateway.example"])

    def test_ipv6_only(self):
        server = self.server("mx.example.com", "2001:db8::25")
        self.network.domain("example.com", "mx.example.com")
        self.sent()
        self.assertEqual(len(server.received), 1)

    def test_lmtp(self):
        server = self.server(
            "store.example", "198.51.100.6", port=24, lmtp=True,
            script={".": lambda to: "452 4.2.2 Full" if "c@" in to else "250 2.1.5 Kept"},
        )  # fmt: skip
        outcomes = self.send("b@example.com", "c@example.com", place="lmtp:store.example")
        self.assertEqual([type(outcome.error) for outcome in outcomes], [type(None), TemporaryError])
        self.assertFalse(outcomes[0].relayed)
        self.assertEqual(server.commands[0], "LHLO relay.example")

    def test_unix(self):
        server = ScriptedServer(lmtp=True)
        self.host.listenUNIX("/run/lmtp", server)
        self.sent(place="lmtp:unix:/run/lmtp")
        self.assertEqual(len(server.received), 1)
        self.fails(HostUnreachable, place="lmtp:unix:/run/nothing")

    def test_literal(self):
        server = self.server()
        self.sent("b@[198.51.100.1]")
        self.assertEqual(server.received[0].recipients, ("TO:<b@[198.51.100.1]>",))

    def test_source(self):
        server = self.server("mx.example.com", "198.51.100.1")
        self.host = self.network.host("two.example", "192.0.2.7", "192.0.2.8")
        self.settings["sources"] = ["192.0.2.8"]
        self.network.domain("example.com", "mx.example.com")
        seen = []
        build = server.buildProtocol
        server.buildProtocol = lambda peer: seen.append(peer.host) or build(peer)
        self.sent()
        self.assertEqual(seen, ["192.0.2.8"])
        self.assertRaises(
            ValueError,
            Relay,
            self.host,
            None,
            hostname="x",
            policy=None,
            trust=None,
            sources=["192.0.2.1", "192.0.2.2"],
        )


class Hosts(RelayCase):
    def two(self, first=10, second=20, **settings):
        one = self.server("mx1.example.com", "198.51.100.1", **settings)
        two = self.server("mx2.example.com", "198.51.100.2")
        self.network.domain("example.com", (first, "mx1.example.com"), (second, "mx2.example.com"))
        return one, two

    def test_preference(self):
        one, two = self.two(20, 10)
        self.sent()
        self.assertEqual((len(one.received), len(two.received)), (0, 1))

    def test_equal_ones_share(self):
        one, two = self.two(10, 10)
        for _ in range(40):
            self.sent()
            self.network.advance(60)
        self.assertEqual(len(one.received) + len(two.received), 40)
        self.assertTrue(8 < len(one.received) < 32, len(one.received))

    def test_the_next_one(self):
        for fault in (
            "421 4.3.2 Busy",
            "554 5.7.1 Go away",
            DROP,
            RESET,
            HANG,
            Raw(b"hello\r\n"),
            "down",
            "refused",
        ):
            self.setUp()
            one, two = self.two()
            if fault == "down":
                self.network.hosts["mx1.example.com"].down = True
            elif fault == "refused":
                self.network.hosts["mx1.example.com"].close(25)
            else:
                one.script["CONNECT"] = fault
            self.sent()
            self.assertEqual((len(one.received), len(two.received)), (0, 1), fault)

    def test_what_a_host_says_about_a_message_holds(self):
        for fault in ("450 4.2.0 Greylisted", "550 5.7.1 No"):
            self.setUp()
            one, two = self.two(script={"RCPT": fault})
            (outcome,) = self.send()
            self.assertEqual(outcome.reply, fault)
            self.assertEqual(two.commands, [])

    def test_lost_after_the_end_is_not_sent_elsewhere(self):
        """Who knows whether it has it."""
        one, two = self.two(script={".": DROP})
        (outcome,) = self.send()
        self.assertIsInstance(outcome.error, TemporaryError)
        self.assertEqual((len(one.received), len(two.received)), (1, 0))

    def test_none_reachable(self):
        one, two = self.two(script={"CONNECT": DROP})
        two.script["CONNECT"] = "554 5.7.1 No"
        error = self.fails(HostUnreachable)
        self.assertIn("mx1.example.com[198.51.100.1]:25", error.text)

    def test_all_refuse(self):
        one, two = self.two(script={"CONNECT": "554 5.7.1 Not you"})
        two.script["EHLO"] = two.script["HELO"] = "550 5.7.1 Nor you"
        error = self.fails(PermanentError)
        self.assertIn("Not you", error.text)

    def test_only_so_many(self):
        addresses = [f"198.51.100.{n}" for n in range(1, 11)]
        self.network.host("mx.example.com", *addresses)
        self.network.domain("example.com", "mx.example.com")
        self.fails(HostUnreachable)
        self.assertEqual(len(self.network.attempts), 5)

    def test_only_so_many_as_set(self):
        self.settings["limits"] = {"tries": 2}
        self.network.host("mx.example.com", *(f"198.51.100.{n}" for n in range(1, 11)))
        self.network.domain("example.com", "mx.example.com")
        self.fails(HostUnreachable)
        self.assertEqual(len(self.network.attempts), 2)

    def test_connecting_takes_too_long(self):
        self.settings["client"] = {"connect_timeout": 7}
        self.network.host("mx.example.com", "198.51.100.1").down = True
        self.network.domain("example.com", "mx.example.com")
        sending = self.start()
        self.network.advance(6.9)
        self.assertNoResult(sending)
        self.network.advance(0.2)
        self.failureResultOf(sending, HostUnreachable)
        self.assertEqual(self.host.getDelayedCalls(), [])

    def test_families_in_turn(self):
        equal = [(1, f"mx{number}.example.com") for number in range(1, 6)]
        for _, name in equal:
            number = name[2]
            self.network.host(name, f"2001:db8:1::{number}", f"198.51.100.{number}")
        self.network.domain("example.com", *equal)
        self.fails(HostUnreachable)
        tried = [attempt.address for attempt in self.network.attempts]
        self.assertEqual([":" in address for address in tried], [True, False, True, False, True])

    def test_no_way_to_a_family(self):
        """Any number of addresses that cannot be reached from here is no reason to give up."""
        self.host = self.network.host("old.example", "192.0.2.4")
        server = self.server("mx.example.com", "198.51.100.1")
        self.network.resolver.hosts["mx.example.com"] = [
            *(f"2001:db8:1::{n}" for n in range(1, 9)),
            "198.51.100.1",
        ]
        self.network.domain("example.com", "mx.example.com")
        self.sent()
        self.assertEqual(len(server.received), 1)

    def test_five_days(self):
        """A domain that is away for nearly five days, and somebody who tries every half hour."""
        mx = self.network.mail_server("mx.example.com", "198.51.100.1")
        mx.host.down = True
        self.network.domain("example.com", "mx.example.com")
        self.host.callLater(4.9 * 86400, setattr, mx.host, "down", False)

        async def patient():
            attempts = 1
            while True:
                try:
                    return await self.start(), attempts
                except HostUnreachable:
                    attempts += 1
                    await deferLater(self.host, 1800)

        outcomes, attempts = self.network.run(patient(), within=5 * 86400)
        self.assertIsNone(outcomes[0].error)
        self.assertEqual(len(mx.messages), 1)
        self.assertTrue(200 < attempts < 250, attempts)

    def test_no_exchanger(self):
        """RFC 5321 §5.1: the domain is its own host."""
        server = self.server("example.com", "198.51.100.3")
        self.sent()
        self.assertEqual(len(server.received), 1)

    def test_null(self):
        """RFC 7505."""
        self.server("example.com")
        self.network.domain("example.com", (0, ""))
        self.fails(NoMailThere)
        self.assertEqual(self.network.attempts, [])

    def test_null_among_others(self):
        self.server()
        self.network.domain("example.com", (0, ""), (10, "mx.example.com"))
        self.sent()

    def test_not_there(self):
        self.fails(NoSuchDomain)
        self.network.domain("example.com", "mx.example.com")
        self.fails(NoMailThere)
        self.network.resolver.failures["mx.example.com"] = NotResolved()
        self.fails(NotResolved)
        self.network.resolver.failures["example.com"] = NotResolved()
        self.fails(NotResolved)
        self.network.domain("empty.example")
        self.fails(NoMailThere, "b@empty.example")

    def test_one_not_resolved(self):
        """The others are enough."""
        one, two = self.two()
        self.network.resolver.failures["mx1.example.com"] = NotResolved()
        self.sent()
        self.assertEqual(len(two.received), 1)

    def test_left_alone_for_a_while(self):
        one, two = self.two(script={"CONNECT": DROP})
        for _ in range(3):
            self.sent()
        self.assertEqual(
            [attempt.address for attempt in self.network.attempts], ["198.51.100.1", "198.51.100.2"]
        )
        one.script.clear()
        self.rest()
        self.sent()
        self.assertEqual(len(one.received), 1)

    def test_left_alone_as_long_as_set(self):
        self.settings["limits"] = {"rest": 10}
        server = self.server(script={"CONNECT": DROP})
        self.network.domain("example.com", "mx.example.com")
        self.fails(HostUnreachable)
        server.script.clear()
        self.network.advance(9)
        self.fails(HostUnreachable)
        self.assertEqual(len(self.network.attempts), 1)
        self.network.advance(1)
        self.sent()

    def test_left_alone_and_nobody_else(self):
        self.server(script={"CONNECT": DROP})
        self.network.domain("example.com", "mx.example.com")
        self.fails(HostUnreachable)
        error = self.fails(HostUnreachable)
        self.assertIn("lately", error.text)
        self.assertEqual(len(self.network.attempts), 1)


class Connections(RelayCase):
    def setUp(self):
        super().setUp()
        self.mx = self.server()
        self.network.domain("example.com", "mx.example.com")
        self.network.domain("example.net", "mx.example.com")

    def start_all(self, number, *recipients, **settings):
        return [self.start(*recipients, **settings) for _ in range(number)]

    def finish(self, sending, within=3600):
        self.network.advance(within)
        return [self.successResultOf(one) for one in sending]

    def test_used_again(self):
        for recipient in ("a@example.com", "b@example.com", "c@example.net"):
            self.sent(recipient)
        self.assertEqual(len(self.network.attempts), 1)
        self.assertEqual(len(self.mx.received), 3)
        self.assertEqual(self.network.connections, 1)
        self.network.advance(6)
        self.assertEqual(self.network.connections, 0)
        self.assertEqual(self.mx.commands[-1], "QUIT")
        self.assertEqual(self.host.getDelayedCalls(), [])

    def test_only_under_the_same_terms(self):
        self.sent()
        self.sent(place="smtp:mx.example.com:25;tls=none")
        self.assertEqual(len(self.network.attempts), 2)

    def test_only_so_many_messages(self):
        self.settings["limits"] = {"messages": 2}
        for _ in range(5):
            self.sent()
        self.assertEqual(len(self.network.attempts), 3)

    def test_only_so_many_are_kept(self):
        """The one that has waited longest goes first."""
        self.settings["limits"] = {"idle": 2, "idle_time": 60}
        servers = []
        for n in range(4):
            servers.append(self.server(f"mx.d{n}.example", f"198.51.100.{100 + n}"))
            self.network.domain(f"d{n}.example", f"mx.d{n}.example")
            self.sent(f"a@d{n}.example")
        self.network.advance(1)
        self.assertEqual([server.open for server in servers], [0, 0, 1, 1])

    def test_a_message_that_takes_too_long(self):
        """A host that answers each command just in time does not hold a connection for ever."""
        self.settings["limits"] = {"longest": 100}
        self.mx.script["MAIL"] = self.mx.script["RCPT"] = self.mx.script["."] = Slow(40, "250 OK")
        sending = self.start()
        self.network.advance(99)
        self.assertNoResult(sending)
        self.network.advance(2)
        (outcome,) = self.successResultOf(sending)
        self.assertIsInstance(outcome.error, TemporaryError)
        self.assertEqual(self.mx.open, 0)

    def test_one_that_ended_meanwhile(self):
        self.sent()
        self.mx.script["MAIL"] = ["421 4.4.2 Too idle", "250 OK"]
        self.sent()
        self.assertEqual(len(self.network.attempts), 2)

    def test_one_that_was_cut(self):
        self.sent()
        for link in list(self.network._links):
            link.pipe.cut()
        self.sent()
        self.assertEqual(len(self.network.attempts), 2)

    def test_per_hop(self):
        self.settings["limits"] = {"per_hop": 3}
        self.mx.script["."] = Slow(10, "250 OK")
        self.finish(self.start_all(20))
        self.assertEqual(self.mx.most_open, 3)
        self.assertEqual(len(self.mx.received), 20)
        self.assertEqual(len(self.network.attempts), 3)

    def test_per_host(self):
        self.settings["limits"] = {"per_hop": 3, "per_host": 4}
        self.mx.script["."] = Slow(10, "250 OK")
        self.finish(self.start_all(10, "a@example.com") + self.start_all(10, "b@example.net"))
        self.assertEqual(self.mx.most_open, 4)
        self.assertEqual(len(self.mx.received), 20)

    def test_per_host_with_other_terms(self):
        self.settings["limits"] = {"per_host": 1}
        self.sent()
        self.sent(place="smtp:mx.example.com:25;tls=none")
        self.network.advance(1)
        self.assertEqual(self.mx.open, 1)

    def test_in_all(self):
        self.settings["limits"] = {"connections": 5}
        servers = []
        for n in range(10):
            servers.append(
                self.server(f"mx.d{n}.example", f"198.51.100.{100 + n}", script={"MAIL": Slow(5, "250 OK")})
            )
            self.network.domain(f"d{n}.example", f"mx.d{n}.example")
        most = 0
        sending = [self.start(f"a@d{n}.example") for n in range(10) for _ in range(3)]
        for _ in range(600):
            self.network.advance(0.5)
            most = max(most, sum(server.open for server in servers) - len(self.relay._pool))
        self.assertEqual(most, 5)
        self.finish(sending)
        self.assertEqual([len(server.received) for server in servers], [3] * 10)

    def test_fewer_for_one_that_pushes_back(self):
        """And more again when it goes well."""
        self.settings["limits"] = {"per_host": 8, "per_hop": 50, "idle_time": 0}

        def greeting(_):
            return "421 4.7.0 Too many connections" if self.mx.open > most else Slow(1, "220 mx.example.com")

        most = 2
        self.mx.script["CONNECT"] = greeting
        outcomes = self.finish(self.start_all(40))
        self.assertEqual([outcome.error for (outcome,) in outcomes], [None] * 40)
        refused = len(self.network.attempts) - 40
        self.assertLess(refused, 30)
        most = 100
        self.finish(self.start_all(60))
        self.mx.most_open = 0
        self.finish(self.start_all(40))
        self.assertEqual(self.mx.most_open, 8)

    def test_stop(self):
        for point in ("CONNECT", "MAIL"):
            self.sent()
            self.network.advance(60)
            self.sent(place="smtp:mx.example.com;tls=none")
            self.mx.script[point] = HANG
            sending = self.start()
            self.network.advance(1)
            self.relay.stop()
            self.network.advance(1)
            self.failureResultOf(sending).trap(TemporaryError, HostUnreachable)
            self.assertEqual(self.network.connections, 0)
            self.assertEqual(self.host.getDelayedCalls(), [])
            self.fails(HostUnreachable)
            self.mx.script.clear()
            self.relay.start()

    def test_stop_while_connecting(self):
        self.network.hosts["mx.example.com"].down = True
        sending = self.start()
        self.network.advance(1)
        self.relay.stop()
        self.failureResultOf(sending, HostUnreachable)
        self.network.advance(1)
        self.assertEqual(self.host.getDelayedCalls(), [])

    def test_stopped_at_once(self):
        stopped = []
        self.sent()
        self.relay.stop().addCallback(stopped.append)
        self.network.advance(1)
        self.assertEqual((stopped, self.network.connections), ([None], 0))


class Logging(RelayCase):
    def setUp(self):
        super().setUp()
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def lines(self):
        lines = map(formatEvent, self.events)
        return [line for line in lines if line.startswith("relay: ") and " by " in line]

    def test_one_line_for_each_thing_said(self):
        self.server(script={"RCPT": lambda to: "550 5.1.1 No" if "x@" in to else "250 OK"})
        self.network.domain("example.com", "mx.example.com")
        self.send("b@example.com", "x@example.com", "c@example.com")
        self.assertEqual(
            self.lines(),
            [
                "relay: a@here.example to ['b@example.com', 'c@example.com'] by example.com, "
                "mx.example.com[198.51.100.1]:25, TLS none (may by default): sent: 250 2.0.0 Taken",
                "relay: a@here.example to ['x@example.com'] by example.com, "
                "mx.example.com[198.51.100.1]:25, TLS none (may by default): refused: 550 5.1.1 No",
            ],
        )

    def test_nobody(self):
        self.fails(NoSuchDomain)
        self.assertIn("no host: refused: No such domain", self.lines()[0])
        self.network.host("mx.example.com", "198.51.100.9")
        self.network.domain("example.com", "mx.example.com")
        self.fails(HostUnreachable, sender="")
        self.assertIn(
            "<> to ['b@example.com'] by example.com, mx.example.com[198.51.100.9]:25: deferred",
            self.lines()[1],
        )
