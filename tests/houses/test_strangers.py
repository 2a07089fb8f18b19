"""What nobody may: relay through a house as a stranger, send as another, send more than is fair."""

from __future__ import annotations

from base64 import b64encode

from mailplat.errors import PermanentError
from mailplat.values import RELAY
from tests.houses.house import Town

#: Every way in which an address may ask to be passed on to somebody elsewhere.
ELSEWHERE = (
    "<victim@far.test>",
    "<victim@FAR.test>",
    "<victim@sub.here.test>",
    "<@here.test:victim@far.test>",
    "<@here.test,@there.test:victim@far.test>",
    "<@far.test:victim@far.test>",
    "<victim%far.test@here.test>",
    "<victim%far.test%here.test@here.test>",
    "<far.test!victim@here.test>",
    "<here.test!far.test!victim@here.test>",
    "<far.test!victim>",
    "<victim%far.test>",
    '<"victim@far.test"@here.test>',
    '<"victim@far.test">',
    '<"victim%far.test"@here.test>',
    '<"far.test!victim"@here.test>',
    '<"\\"victim@far.test\\"@here.test"@here.test>',
    '<"@far.test:victim"@here.test>',
    '<"victim@far.test@here.test"@here.test>',
    "<victim@far.test@here.test>",
    "<victim@[203.0.113.1]>",
    "<victim@[IPv6:2001:db8::7]>",
    "<victim@[127.0.0.1]>",
    "<victim@[192.0.2.1]>",
    "<victim@3405803777>",
    "<postmaster@far.test>",
    "<>",
    "<victim@here.test.far.test>",
    "<victim@here.test@far.test>",
    "<victim+here.test@far.test>",
    "<alice@here.test,victim@far.test>",
    "<alice@here.test> ORCPT=rfc822;victim@far.test NOTIFY=",
    "victim@far.test",
)


class NoRelay(Town):
    def open_to(self, greeting, sender, port, source=""):
        """Those of `ELSEWHERE` that are not refused."""
        found = []
        for recipient in ELSEWHERE:
            answers = self.here.talk(
                greeting, f"MAIL FROM:{sender}", f"RCPT TO:{recipient}", port=port, source=source
            )
            self.assertEqual(answers[2][:3], "250", answers)
            if answers[3][:1] != "5":
                found.append((recipient, answers[3]))
        return found

    def everywhere(self):
        self.network.host("client.test", "192.0.2.77")
        for sender in ("<x@elsewhere.test>", "<>", "<alice@here.test>"):
            self.assertEqual(self.open_to("EHLO client.test", sender, 25, "client.test"), [])
            # This machine itself is no better.
            self.assertEqual(self.open_to("HELO client.test", sender, 25), [])
            self.assertEqual(self.open_to("LHLO client.test", sender, 0), [])
        self.network.advance(10)
        self.assertEqual((self.here.waiting(), self.network.resolver.asked), (0, []))

    def test_nothing_is_relayed(self):
        self.everywhere()


class NoRelayWithAliases(NoRelay):
    """A catch-all takes everything in our domain for its own account, and nothing else."""

    here_aliases = "@here.test: bob\nsales: alice\n"

    def everywhere(self):
        self.network.host("client.test", "192.0.2.77")
        for greeting, port in (("EHLO client.test", 25), ("LHLO client.test", 0)):
            for recipient, _ in self.open_to(greeting, "<x@elsewhere.test>", port):
                self.assertRegex(recipient, r"@here\.test>( |$)|^<[^@]*>$")
                words = [
                    "MAIL FROM:<x@elsewhere.test>",
                    f"RCPT TO:{recipient}",
                    "DATA",
                    "Subject: x\r\n\r\n.",
                ]
                answers = self.here.talk(greeting, *words, port=port)
                self.assertEqual(answers[-1][:3], "250")
        self.network.advance(10)
        self.assertGreater(len(self.here.inbox("bob")), 5)
        self.assertEqual((self.here.waiting(), self.network.resolver.asked), (0, []))


class Submitting(Town):
    here_settings = "[limits.rates]\naccount = 5\npeer = 3\n"
    here_aliases = "sales: alice\nteam: bob\n"

    def talk(self, *lines, user="alice"):
        plain = b64encode(f"\0{user}@here.test\0secret".encode()).decode()
        return self.here.talk("EHLO client.test", f"AUTH PLAIN {plain}", *lines, port=587)[3:]

    def test_as_another(self):
        for sender, code in (
            ("<alice@here.test>", "250"),
            ("<alice+x@here.test>", "250"),
            ("<ALICE@here.test>", "250"),
            ("<sales@here.test>", "250"),
            ("<>", "250"),
            ("<bob@here.test>", "550"),
            ("<team@here.test>", "550"),
            ("<nobody@here.test>", "550"),
            ("<alice@there.test>", "550"),
            ("<alice@[192.0.2.1]>", "550"),
            ('<"alice@here.test"@far.test>', "550"),
            ("<postmaster@far.test>", "550"),
            ("<alice%here.test@far.test>", "550"),
        ):
            (answer,) = self.talk(f"MAIL FROM:{sender}")
            self.assertEqual(answer[:3], code, f"{sender}: {answer}")

    def test_without_login(self):
        answers = self.here.talk("EHLO x.test", "MAIL FROM:<alice@here.test>", port=587)
        self.assertEqual(answers[-1][:3], "530")

    def test_an_address_literal(self):
        """An account may write to one, if it is a public address."""
        server = self.network.scripted_server("literal.test", "203.0.113.1")
        self.assertEqual(self.here.submit("x@[203.0.113.1]", "y@[127.0.0.1]", "z@[192.0.2.1]"), [None] * 3)
        self.network.advance(10)
        self.assertEqual([one.recipients for one in server.received], [("TO:<x@[203.0.113.1]>",)])
        text = "".join(str(report) for report in self.here.inbox())
        self.assertEqual(text.count("Action: failed"), 2)
        text = " ".join(text.split())
        self.assertIn("127.0.0.1 is not a public address", text)
        # At our own address the other end of the house says no.
        self.assertIn("192.0.2.1 said: 550 5.7.1 Relaying denied", text)
        self.assertNotIn(("127.0.0.1", 25), {(one.address, one.port) for one in self.network.attempts})

    def test_rate_of_an_account(self):
        answers = self.talk("MAIL FROM:<alice@here.test>", *["RCPT TO:<x@far.test>"] * 6)
        self.assertEqual([answer[:3] for answer in answers[1:6]], ["250"] * 5)
        self.assertRegex(answers[6], "^451 4.7.0 ")
        # Another account is not concerned, and an hour later it is over.
        self.assertEqual(
            self.talk("MAIL FROM:<bob@here.test>", "RCPT TO:<x@far.test>", user="bob")[1][:3], "250"
        )
        self.network.advance(3600)
        self.assertEqual(self.talk("MAIL FROM:<alice@here.test>", "RCPT TO:<x@far.test>")[1][:3], "250")

    def test_rate_of_a_peer(self):
        self.network.host("client.test", "192.0.2.77")
        words = ["EHLO c.test", "MAIL FROM:<a@b.test>", *["RCPT TO:<alice@here.test>"] * 4]
        self.assertRegex(self.here.talk(*words, source="client.test")[-1], "^451 4.7.0 ")
        self.assertEqual(self.here.talk(*words[:3], source="mx.there.test")[-1][:3], "250")


class Reserved(Town):
    def test_agents_are_not_for_strangers(self):
        """The names of agents and places are no addresses."""
        for recipient in (f"agent:{RELAY}@here.test", "agent:local@here.test", "smtp:far.test@here.test"):
            (error,) = self.here.submit(recipient)
            self.assertIsInstance(error, PermanentError)
