"""TLS on the way to other hosts: what the policy says, and what happens when there is none to be had."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailplat.delivery.relay import Login
from mailplat.delivery.tls_policy import ConfiguredTLS, parse_requirement
from mailplat.errors import ConfigurationError, HostUnreachable, TemporaryError, TLSFailed
from mailplat.interfaces import ITLSPolicy
from mailplat.tls import CertificateFiles, CertificateSource, self_signed
from mailplat.trust import Trust
from mailplat.values import TLSRequirement
from tests.delivery.city import RelayCase
from tests.delivery.house import now


@implementer(IOpenSSLServerConnectionCreator)
class NoCertificate:
    """What a server has with which no handshake succeeds."""

    def serverConnectionForTLS(self, protocol):
        return SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None)


class TLSCase(RelayCase):
    def setUp(self):
        super().setUp()
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = scratch.name
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def certificate(self, name="mx.example.com"):
        """A server's certificate that is its own authority; also what `Trust` takes."""
        self.authority = self_signed(self.scratch, name)
        return CertificateSource([CertificateFiles(self.authority)], self.host.seconds)

    def mail_server(self, tls=None, **settings):
        self.network.domain("example.com", "mx.example.com")
        return self.network.mail_server("mx.example.com", "198.51.100.1", tls=tls, **settings)

    def policy(self, default="may", **domains):
        self.settings["policy"] = ConfiguredTLS(default, domains or None)

    def logged(self):
        lines = [formatEvent(event) for event in self.events if event.get("result")]
        return lines[-1]


class Opportunistic(TLSCase):
    def test_taken_where_it_is(self):
        mx = self.mail_server(self.certificate("another.example"))
        self.sent()
        self.assertEqual(len(mx.messages), 1)
        self.assertIn("TLS TLSv1.3 (may by default): sent", self.logged())

    def test_not_there(self):
        self.mail_server()
        self.sent()
        self.assertIn("TLS none (may by default): sent", self.logged())

    def test_broken(self):
        """RFC 7435: the mail goes in clear rather than not at all."""
        server = self.server(tls=NoCertificate())
        self.network.domain("example.com", "mx.example.com")
        self.sent()
        self.assertEqual(len(server.received), 1)
        self.assertEqual(len(self.network.attempts), 2)
        self.assertIn("TLS none (may by default): sent", self.logged())
        self.sent()
        self.assertEqual(len(self.network.attempts), 2)

    def test_refused(self):
        server = self.server(tls=True, script={"STARTTLS": "454 4.7.0 Not now"})
        self.network.domain("example.com", "mx.example.com")
        self.sent()
        self.assertEqual(len(server.received), 1)


class Required(TLSCase):
    def test_none(self):
        self.policy("none")
        self.mail_server(self.certificate())
        self.sent()
        self.assertIn("TLS none (none by configuration)", self.logged())

    def test_encrypt(self):
        self.policy("encrypt")
        self.mail_server(self.certificate("another.example"))
        self.sent()
        self.assertIn("TLS TLSv1.3 (encrypt by configuration)", self.logged())

    def test_encrypt_and_none_there(self):
        self.policy(**{"example.com": "encrypt"})
        mx = self.mail_server()
        self.network.domain("example.net", "mx.example.com")
        self.fails(TLSFailed)
        self.assertEqual(mx.messages, [])
        # What one domain asks for is not asked for the others at the same host.
        self.sent("b@example.net")

    def test_encrypt_and_broken(self):
        self.policy("encrypt")
        server = self.server(tls=NoCertificate())
        self.network.domain("example.com", "mx.example.com")
        self.fails(TLSFailed)
        self.assertEqual((len(self.network.attempts), server.received), (1, []))

    def test_verify(self):
        self.policy(**{".com": "verify"})
        tls = self.certificate()
        self.settings["trust"] = Trust(self.authority)
        self.mail_server(tls)
        self.sent()
        self.assertIn("TLS TLSv1.3 (verify by configuration)", self.logged())

    def test_verify_names(self):
        tls = self.certificate("mail.isp.example")
        self.settings["trust"] = Trust(self.authority)
        self.policy(**{"example.com": "verify mx9.isp.example mail.isp.example"})
        self.mail_server(tls)
        self.sent()

    def test_verify_another_name(self):
        tls = self.certificate("another.example")
        self.settings["trust"] = Trust(self.authority)
        self.policy("verify")
        mx = self.mail_server(tls)
        self.fails(TLSFailed)
        self.assertEqual(mx.messages, [])

    def test_verify_a_stranger(self):
        """The system's authorities do not know it."""
        self.policy("verify")
        mx = self.mail_server(self.certificate())
        self.fails(TLSFailed)
        self.assertEqual(mx.messages, [])

    def test_the_next_host(self):
        self.policy("encrypt")
        self.server("mx1.example.com", "198.51.100.1")
        two = self.server("mx2.example.com", "198.51.100.2", tls=True)
        self.network.domain("example.com", "mx1.example.com", "mx2.example.com")
        self.sent()
        self.assertEqual(len(two.received), 1)

    def test_hop_says(self):
        self.policy("none")
        self.mail_server(self.certificate("another.example"))
        self.sent(place="example.com;tls=encrypt")
        self.assertIn("TLS TLSv1.3 (encrypt by configuration)", self.logged())

    def test_policy_cannot_say(self):
        """A host of which it is not known what it needs is not used."""

        @implementer(ITLSPolicy)
        class Unsure:
            asked = []

            async def requirement(self, domain, host):
                self.asked.append((domain, host))
                if host == "mx1.example.com":
                    raise TemporaryError("The policy cannot be fetched")
                return TLSRequirement()

        self.settings["policy"] = Unsure()
        one, two = self.server("mx1.example.com"), self.server("mx2.example.com", "198.51.100.2")
        self.network.domain("example.com", "mx1.example.com", "mx2.example.com")
        self.sent()
        self.assertEqual((one.commands, len(two.received)), ([], 1))
        self.assertEqual(
            Unsure.asked, [("example.com", "mx1.example.com"), ("example.com", "mx2.example.com")]
        )
        self.network.domain("example.com", "mx1.example.com")
        error = self.fails(HostUnreachable)
        self.assertIn("cannot be fetched", error.text)


class Smarthost(TLSCase):
    """The next hop that somebody pays for: by name, with TLS and a password."""

    def setUp(self):
        super().setUp()
        self.settings["logins"] = {"isp": Login("alice@example.test", "secret")}

    def smarthost(self, tls=None, port=587, **settings):
        passwords = {"alice@example.test": "secret"}
        return self.network.mail_server(
            "smtp.isp.example", "198.51.100.1", tls=tls, port=port, service="submission", passwords=passwords
        )

    def test_logged_in(self):
        tls = self.certificate("smtp.isp.example")
        self.settings["trust"] = Trust(self.authority)
        host = self.smarthost(tls)
        self.sent(place="smtp:smtp.isp.example:587;login=isp")
        self.assertEqual(len(host.messages), 1)
        self.assertIn("TLS TLSv1.3 (verify by login)", self.logged())

    def test_a_password_is_not_for_anybody(self):
        host = self.smarthost(self.certificate("smtp.isp.example"))
        self.fails(TLSFailed, place="smtp:smtp.isp.example:587;login=isp")
        self.assertEqual(host.messages, [])
        self.network.advance(60)
        self.sent(place="smtp:smtp.isp.example:587;tls=encrypt;login=isp")

    def test_wrong_password(self):
        self.settings["logins"] = {"isp": Login("alice@example.test", "wrong")}
        self.smarthost(self.certificate("smtp.isp.example"))
        error = self.fails(HostUnreachable, place="smtp:smtp.isp.example:587;tls=encrypt;login=isp")
        self.assertIn("535", error.text)

    def test_no_such_credentials(self):
        error = self.fails(HostUnreachable, place="smtp:198.51.100.1:587;login=other")
        self.assertIn("no credentials called other", error.text)
        self.assertEqual(self.network.attempts, [])


class PolicyTests(SynchronousTestCase):
    def test_requirements(self):
        for text, level, names in (
            ("none", "none", ()),
            ("may", "may", ()),
            ("encrypt", "encrypt", ()),
            ("verify", "verify", ()),
            ("verify MX.example bücher.example", "verify", ("mx.example", "xn--bcher-kva.example")),
        ):
            self.assertEqual(parse_requirement(text), TLSRequirement(level, names, "configuration"))
        for text in ("", "always", "may mx.example", "verify a..b"):
            self.assertRaises(ValueError, parse_requirement, text)

    def test_the_longest_that_fits(self):
        policy = ConfiguredTLS(
            "encrypt", {"Example.com": "none", ".example.com": "verify", ".b.example.com": "may"}
        )
        for domain, level in (
            ("example.com", "none"),
            ("a.example.com", "verify"),
            ("b.example.com", "verify"),
            ("a.b.example.com", "may"),
            ("notexample.com", "encrypt"),
            ("[192.0.2.1]", "encrypt"),
        ):
            self.assertEqual(now(policy.requirement(domain, "mx.example")).level, level)
        self.assertEqual(now(ConfiguredTLS().requirement("x", "y")), TLSRequirement("may", (), "default"))
        self.assertEqual(now(policy.requirement("x", "y")).source, "configuration")

    def test_mistakes_are_told_together(self):
        error = self.assertRaises(ConfigurationError, ConfiguredTLS, "always", {"a b": "may", "c": "x"})
        self.assertEqual(len(error.text.splitlines()), 3)
