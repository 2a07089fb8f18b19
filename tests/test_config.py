from __future__ import annotations

import os
import shutil
import tempfile
import textwrap

from twisted.trial.unittest import SynchronousTestCase

from mailplat import config
from mailplat.errors import ConfigurationError
from mailplat.settings import KINDS
from mailplat.smtp.client import Login


class SettingsTests(SynchronousTestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="mailplat-")
        self.addCleanup(shutil.rmtree, self.directory)

    def write(self, text, name="mail.toml"):
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as stream:
            stream.write(textwrap.dedent(text))
        return name

    def load(self, text=None, **words):
        file = None if text is None else self.write(text)
        return config.load(
            file, {word.replace("_", "-"): value for word, value in words.items()}, self.directory
        )

    def mistakes(self, text=None, **words):
        return self.assertRaises(ConfigurationError, self.load, text, **words).text.splitlines()

    def test_nothing_said_is_everything_on_loopback(self):
        settings = self.load()
        data = os.path.join(self.directory, "mailplat-data")
        self.assertEqual(settings.data, data)
        self.assertEqual(settings.domains, ("localhost",))
        self.assertEqual(settings.store, "sqlite")
        self.assertEqual(settings.plaintext_login, "loopback")
        self.assertEqual(settings.message_size_limit, 52428800)
        self.assertEqual(
            {listener.kind.word: listener.endpoint for listener in settings.listeners},
            {
                "smtp": "tcp:2525:interface=127.0.0.1",
                "submission": "tcp:2587:interface=127.0.0.1",
                "lmtp": f"unix:{data}/lmtp:mode=600",
                "imap": "tcp:2143:interface=127.0.0.1",
                "imaps": "tcp:2993:interface=127.0.0.1",
                "pop3": "tcp:2110:interface=127.0.0.1",
                "pop3s": "tcp:2995:interface=127.0.0.1",
            },
        )

    def test_colons_in_the_data_directory_do_not_end_the_socket_path(self):
        settings = self.load(data="a:b{c}=d")
        lmtp = next(listener for listener in settings.listeners if listener.kind.word == "lmtp")
        self.assertEqual(lmtp.endpoint, f"unix:{self.directory}/a\\:b{{c}}\\=d/lmtp:mode=600")

    def test_a_default_socket_whose_path_is_too_long_is_left_out(self):
        """unix(7): 107 octets; everything else works without it."""
        for length, usable in ((107, True), (108, False)):
            data = "/" + "ü" * 20 + "x" * (length - len("/lmtp") - 41)
            settings = self.load(data=data)
            left_out = [listener.kind.word for listener in settings.left_out]
            self.assertEqual(left_out, [] if usable else ["lmtp"])
            self.assertEqual(len(settings.listeners), 7 if usable else 6)
        # Who named listeners has no defaults to miss.
        self.assertEqual(self.load(data=data, imap=["tcp:0"]).left_out, ())

    def test_a_named_listener_is_the_only_one(self):
        settings = self.load(imap=["tcp:0", "tcp:143"])
        self.assertEqual(
            [(listener.kind.word, listener.endpoint) for listener in settings.listeners],
            [("imap", "tcp:0"), ("imap", "tcp:143")],
        )

    def test_a_whole_file(self):
        self.write("x", "cert.pem")
        self.write("x", "key.pem")
        settings = self.load(
            """
            data = "mail"
            hostname = "mail.example.test"
            domains = ["Example.test", "bücher.example"]
            store = "sqlite:elsewhere"
            auth = ["memory:alice:secret", "anonymous"]
            plaintext-login = "never"
            message-size-limit = 1000
            postmaster = "alice@example.test"

            [listen]
            smtp = "tcp:25"
            imaps = ["tcp:993", "tcp6:993"]

            [tls]
            certificate = "cert.pem"
            key = "key.pem"

            [aliases]
            "sales@example.test" = ["alice", "bob@example.test"]
            info = "alice"

            [limits.connections]
            most = 7
            write_timeout = 3
            """
        )
        self.assertEqual(settings.data, os.path.join(self.directory, "mail"))
        self.assertEqual(settings.hostname, "mail.example.test")
        self.assertEqual(settings.domains, ("example.test", "xn--bcher-kva.example"))
        self.assertEqual(settings.store, "sqlite:elsewhere")
        self.assertEqual(settings.auth, ("memory:alice:secret", "anonymous"))
        self.assertEqual(settings.plaintext_login, "never")
        self.assertEqual(settings.message_size_limit, 1000)
        self.assertEqual(settings.postmaster, "alice@example.test")
        self.assertEqual(
            [(listener.kind.word, listener.kind.tls, listener.endpoint) for listener in settings.listeners],
            [("smtp", False, "tcp:25"), ("imaps", True, "tcp:993"), ("imaps", True, "tcp6:993")],
        )
        self.assertEqual(settings.certificate, os.path.join(self.directory, "cert.pem"))
        self.assertEqual(settings.key, os.path.join(self.directory, "key.pem"))
        self.assertEqual(
            settings.aliases, {"sales@example.test": ("alice", "bob@example.test"), "info": ("alice",)}
        )
        self.assertEqual(settings.limits["connections"].most, 7)
        self.assertEqual(settings.limits["connections"].write_timeout, 3)

    def test_the_command_line_replaces_word_by_word(self):
        settings = self.load(
            """
            domains = ["one.test"]
            store = "memory"
            [listen]
            smtp = "tcp:25"
            imap = "tcp:143"
            """,
            domain=["two.test"],
            smtp=["tcp:2525"],
            message_size_limit="77",
        )
        self.assertEqual(settings.domains, ("two.test",))
        self.assertEqual(settings.store, "memory")
        self.assertEqual(settings.message_size_limit, 77)
        self.assertEqual([listener.endpoint for listener in settings.listeners], ["tcp:2525", "tcp:143"])

    def test_a_certificate_on_the_command_line_brings_its_own_key(self):
        self.write("x", "cert.pem")
        self.write("x", "key.pem")
        settings = self.load('[tls]\ncertificate = "cert.pem"\nkey = "key.pem"', certificate="cert.pem")
        self.assertEqual(settings.key, None)

    def test_paths_in_a_file_count_from_the_file(self):
        os.mkdir(os.path.join(self.directory, "etc"))
        self.write('data = "../var"', "etc/mail.toml")
        settings = config.load("etc/mail.toml", {}, self.directory)
        self.assertEqual(settings.data, os.path.join(self.directory, "var"))

    def test_all_mistakes_at_once_each_with_its_place(self):
        self.assertEqual(
            self.mistakes(
                """
                domain = ["example.test"]
                hostname = "no such name"
                plaintext_login = "never"
                imap = "tcp:143"
                message-size-limit = "much"

                [listen]
                imap = "tcp:what"
                imapx = "tcp:993"
                smtp = 25

                [tls]
                certificate = "missing.pem"

                [aliases]
                sales = []
                "x y" = "alice"

                [limits.connections]
                moste = 3
                most = "many"
                write_timeout = true

                [limits.conections]
                most = 3

                [limits.intake]
                message_size = 3
                """,
                auth=["?"],
            ),
            [
                'mail.toml: domain: unknown key, did you mean "domains"?',
                'mail.toml: plaintext_login: unknown key, did you mean "plaintext-login"?',
                'mail.toml: imap: unknown key, did you mean "imap" under [listen]?',
                'mail.toml: [listen]: imapx: unknown key, did you mean "imap"?',
                'mail.toml: [limits.connections]: moste: unknown key, did you mean "most"?',
                'mail.toml: [limits]: conections: unknown key, did you mean "connections"?',
                "mail.toml: [limits.intake] message_size: is set by message-size-limit",
                f"mail.toml: [tls] certificate: {self.directory}/missing.pem: No such file or directory",
                "mail.toml: [limits.connections] most: must be a whole number, not text",
                "mail.toml: [limits.connections] write_timeout: must be a number, not true or false",
                "mail.toml: hostname: no such name: is not a host name",
                "mail.toml: [listen] smtp: must be text, not a whole number",
                "mail.toml: [listen] imap: tcp:what: is not an endpoint "
                "(invalid literal for int() with base 10: 'what')",
                "--auth: ?: must look like NAME or NAME:ARGUMENT",
                "mail.toml: message-size-limit: must be a whole number of octets above 0",
                "mail.toml: [aliases] sales: has no targets",
                "mail.toml: [aliases] x y: is not an address",
            ],
        )

    def test_what_is_not_toml(self):
        (mistake,) = self.mistakes("a = ?\nb = 3")
        self.assertTrue(mistake.startswith("mail.toml: "), mistake)
        self.assertIn("line 1", mistake)

    def test_a_file_that_is_not_there(self):
        error = self.assertRaises(ConfigurationError, config.load, "none.toml", {}, self.directory)
        self.assertEqual(error.text, "none.toml: No such file or directory")

    def test_a_table_that_is_none(self):
        self.assertEqual(self.mistakes("listen = 3"), ["mail.toml: listen: must be a table, [listen]"])

    def test_sections_of_limits_that_are_no_tables(self):
        self.assertEqual(
            self.mistakes("[limits]\nrouting = 3"),
            ["mail.toml: [limits] routing: must be a table, [limits.routing]"],
        )

    def test_limits_are_not_negative(self):
        self.assertEqual(
            self.mistakes("[limits.routing]\ntargets = -1"),
            ["mail.toml: [limits.routing] targets: -1 is out of range"],
        )

    def test_a_key_without_certificate(self):
        self.write("x", "key.pem")
        self.assertEqual(self.mistakes(key="key.pem"), ["--key: there is no certificate for this key"])

    def test_words_that_are_not_among_the_choices(self):
        self.assertEqual(
            self.mistakes(plaintext_login="sometimes"),
            ["--plaintext-login: sometimes: must be never, loopback or always"],
        )

    def test_endpoints(self):
        good = ["tcp:0", "tcp6:143", "unix:/run/x:mode=600", "haproxy:tcp:0"]
        self.assertEqual(
            [listener.endpoint for listener in self.load(imap=good).listeners],
            good,
        )
        for bad in ("", "tcp", "tcp:143:colour=red", "carrier-pigeon:3", "143"):
            self.assertEqual(len(self.mistakes(imap=[bad])), 1, bad)

    def test_domains(self):
        for bad in ("-a.test", "a..test", "a b", "a@b", "x" * 64 + ".test", "[::1]"):
            self.assertEqual(self.mistakes(domain=[bad]), [f"--domain: {bad}: is not a domain name"])

    def test_the_file_has_a_word_for_every_listener_of_the_command_line(self):
        words = ["smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s"]
        self.assertEqual([kind.word for kind in KINDS], words)
        for word in words:
            settings = self.load(f'[listen]\n{word} = "tcp:0"')
            self.assertEqual([listener.kind.word for listener in settings.listeners], [word])

    def test_mail_for_other_hosts(self):
        self.write("secret\n", "provider.password")
        self.write("", "roots.pem")
        settings = self.load(
            """
            aliases-file = "mail.toml"

            [agents]
            lists = "lmtp:unix:/run/lists"
            archive = "file:/var/mail/archive"

            [aliases]
            "@localhost" = "agent:lists"

            [relay]
            relayhost = "smtp.provider.test:587;login=provider"
            tls = "encrypt"
            authorities = "roots.pem"
            sources = "192.0.2.1"
            networks = ["10.0.0.0/8", "fd00::/8"]

            [relay.routes]
            ".example.org" = "smtp:mx.internal.test:2525"
            [relay.senders]
            "news@example.test" = "smtps:bulk.test"
            [relay.domains]
            "example.com" = "verify mx.example.com"
            [relay.logins.provider]
            user = "me"
            password-file = "provider.password"

            [limits.schedule]
            retries = [60, 120]
            lifetime = 3600
            """
        )
        relay = settings.relay
        self.assertEqual(str(relay.relayhost), "smtp:smtp.provider.test:587;login=provider")
        self.assertEqual(
            {name: str(hop) for name, hop in relay.routes.items()},
            {".example.org": "smtp:mx.internal.test:2525"},
        )
        self.assertEqual(
            {name: str(hop) for name, hop in relay.senders.items()},
            {"news@example.test": "smtps:bulk.test:465"},
        )
        self.assertEqual((relay.tls, relay.domains), ("encrypt", {"example.com": "verify mx.example.com"}))
        self.assertEqual(relay.authorities, os.path.join(self.directory, "roots.pem"))
        self.assertEqual(relay.logins, {"provider": Login("me", "secret")})
        self.assertEqual((relay.sources, relay.networks), (("192.0.2.1",), ("10.0.0.0/8", "fd00::/8")))
        self.assertEqual(
            settings.agents, {"lists": "lmtp:unix:/run/lists", "archive": "file:/var/mail/archive"}
        )
        self.assertEqual(settings.aliases, {"@localhost": ("agent:lists",)})
        self.assertEqual(settings.aliases_file, os.path.join(self.directory, "mail.toml"))
        schedule = settings.limits["schedule"]
        self.assertEqual((schedule.retries, schedule.lifetime), ((60, 120), 3600))

    def test_relayhost_on_the_command_line(self):
        self.assertEqual(str(self.load(relayhost="relay.test").relay.relayhost), "smtp:relay.test:25")
        self.assertEqual(str(self.load(relayhost="[::1]:26").relay.relayhost), "smtp:[::1]:26")
        settings = self.load('[relay]\nrelayhost = "a.test"', relayhost="b.test")
        self.assertEqual(str(settings.relay.relayhost), "smtp:b.test:25")
        (mistake,) = self.mistakes(relayhost="a b")
        self.assertTrue(mistake.startswith("--relayhost: a b: "))

    def test_mistakes_about_other_hosts(self):
        mistakes = self.mistakes(
            """
            relayhost = "a.test"
            [agents]
            local = "file:/x"
            lists = "lmtp:"
            pigeon = "!"
            [aliases]
            x = "agent:gone"
            [relay]
            relayhst = "a.test"
            tls = "much"
            sources = ["here"]
            networks = ["10.0.0.1/8"]
            routes = "a.test"
            [relay.senders]
            "a@b@-" = "smtp:a.test;login=nobody"
            [relay.domains]
            "x y" = "may"
            [relay.logins]
            provider = "me"
            [relay.logins.other]
            user = "me"
            pasword = "x"
            [limits.schedule]
            retries = 300
            """
        )
        for place in (
            'relayhost: unknown key, did you mean "relayhost" under [relay]?',
            "[agents] local: the name is",
            "[agents] lists: lmtp:",
            "[agents] pigeon: !: must look like",
            "[aliases] x: agent:gone: there is no such agent",
            '[relay]: relayhst: unknown key, did you mean "relayhost"?',
            "[relay] tls: much",
            "[relay] sources: here",
            "[relay] networks: 10.0.0.1/8",
            "[relay] routes: must be a table, [relay.routes]",
            "[relay.senders] a@b@-: is not a domain name",
            "[relay.senders] a@b@-: there is no login nobody",
            "[relay.domains] x y: is not a domain name",
            "[relay.logins] provider: must be a table",
            '[relay.logins] other: pasword: unknown key, did you mean "password"?',
            "[relay.logins] other: needs user, and password",
            "[limits.schedule] retries: must be a list of numbers",
        ):
            found = [mistake for mistake in mistakes if f"mail.toml: {place}" in mistake]
            self.assertEqual(len(found), 1, (place, mistakes))
        self.assertEqual(len(mistakes), 17, mistakes)
