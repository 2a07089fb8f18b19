"""Sessions without a network: order, limits, state, and what goes wrong behind them."""

from __future__ import annotations

from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailplat import errors
from mailplat.interfaces import IMailReceiver
from mailplat.smtp import replies as say
from mailplat.smtp.engine import Limits
from mailplat.values import Address, Outcome
from tests.smtp.support import TLS, Server, plain, replies, shapes

BOB = "bob@example.test"
EVE = "eve@example.test"


class Words(SynchronousTestCase):
    """The tables from errors to replies."""

    def test_every_word_has_a_reply_of_its_class(self) -> None:
        words = [
            word
            for word in vars(errors).values()
            if isinstance(word, type) and issubclass(word, errors.MailError)
        ]
        self.assertGreater(len(words), 25)
        for word in words:
            text = say.error_reply(word()).decode()
            expected = "4" if issubclass(word, errors.TemporaryError) else "5"
            self.assertEqual((text[0], text[4], text[5]), (expected, expected, "."), word)

    def test_a_strangers_word_is_as_its_base(self) -> None:
        class Greylisted(errors.TooBusy):
            pass

        self.assertEqual(say.error_reply(Greylisted("Come back")), b"451 4.3.2 Come back\r\n")

    def test_a_text_cannot_forge_a_reply(self) -> None:
        text = say.error_reply(errors.MessageRefused("no\r\n250 2.0.0 yes"))
        self.assertEqual(text, b"550 5.7.1 no??250 2.0.0 yes\r\n")

    def test_folding(self) -> None:
        to = Address("bob", "example.test")
        full, gone, busy = errors.OverQuota(), errors.NoSuchRecipient(), errors.TooBusy()
        for given_errors, expected in [
            ([None], None),
            ([full, None], None),
            ([busy, None], None),
            ([full, gone], full),
            ([gone, busy, full], busy),
            ([busy], busy),
        ]:
            self.assertIs(say.folded([Outcome(to, error) for error in given_errors]), expected)


class Order(SynchronousTestCase):
    """PIPELINING (RFC 2920): replies stand in the order of the commands, however slow the answers."""

    PIPELINED = (
        b"EHLO client.example.test\r\nMAIL FROM:<a@example.test>\r\nRCPT TO:<bob@example.test>\r\n"
        b"RCPT TO:<nobody@example.test>\r\nRCPT TO:<eve@example.test>\r\nDATA\r\n"
    )
    CONTENT = b"text\r\n.\r\nNOOP\r\nQUIT\r\n"
    HEARD = ["250", "250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.1.5", "354 End"]
    HEARD_LATER = ["250 2.0.0", "250 2.0.0", "221 2.0.0"]

    def server(self) -> Server:
        server = Server()
        server.receiver.refused_recipients["nobody@example.test"] = errors.NoSuchRecipient()
        return server

    def expect(self, heard: bytes, expected: list[str]) -> None:
        # The last line of EHLO's reply is a capability.
        self.assertEqual([expected[0], *shapes(heard)[1:]], expected)

    def test_slow_answers(self) -> None:
        server = self.server()
        server.receiver.held = []
        heard = server.wire.send(self.PIPELINED + self.CONTENT)
        while server.receiver.held:
            server.receiver.answer()
            heard += server.wire.taken()
        self.expect(heard, self.HEARD + self.HEARD_LATER)
        self.assertEqual(server.receiver.asked, ["sender", BOB, "nobody@example.test", EVE, "message"])
        self.assertTrue(server.wire.ended)

    def test_nothing_overtakes(self) -> None:
        server = self.server().hello()
        server.receiver.held = []
        self.assertEqual(server.say("MAIL FROM:<a@example.test>"), [])
        self.assertEqual(server.say("NOOP", "RCPT TO:<bob@example.test>"), [])
        server.receiver.answer()
        self.assertEqual(shapes(server.wire.taken()), ["250 2.1.0", "250 2.0.0"])
        server.receiver.answer()
        self.assertEqual(shapes(server.wire.taken()), ["250 2.1.5"])

    def test_byte_by_byte(self) -> None:
        server = self.server()
        heard = server.wire.send_slowly(self.PIPELINED + self.CONTENT)
        self.expect(heard, self.HEARD + self.HEARD_LATER)
        self.assertEqual(server.receiver.messages, [b"text\r\n"])

    def test_the_peer_goes_while_an_answer_is_awaited(self) -> None:
        server = self.server().hello()
        server.say("MAIL FROM:<a@example.test>", f"RCPT TO:<{BOB}>", "DATA")
        server.receiver.held = []
        server.send(b"text\r\n.\r\n")
        server.wire.hang_up()
        # Whether it heard the reply or not: what was taken is taken.
        server.receiver.answer()
        self.assertTrue(server.wire.ended)
        self.assertEqual(server.receiver.messages, [b"text\r\n"])
        self.assertEqual(server.realm.present, 0)

    def test_the_peer_goes_in_the_middle_of_a_message(self) -> None:
        server = self.server().hello().begin(BOB)
        server.say("DATA")
        server.send(b"text\r\n")
        self.assertEqual(server.spool.open, 1)
        server.wire.hang_up()
        self.assertTrue(server.wire.ended)
        self.assertEqual((server.spool.open, server.receiver.received), (0, []))
        self.assertEqual(server.realm.present, 0)


class Outcomes(SynchronousTestCase):
    """What became of a message, and of what is asked on the way."""

    def send(self, server: Server, *recipients: str) -> list[str]:
        server.begin(*recipients)
        server.say("DATA")
        return shapes(server.wire.send(b"text\r\n.\r\n"))

    def test_a_temporary_failure_stays_temporary(self) -> None:
        server = Server().hello()
        server.receiver.failure = errors.StorageFull()
        self.assertEqual(self.send(server, BOB), ["452 4.3.1"])
        server.receiver.failure = None
        self.assertEqual(self.send(server, BOB), ["250 2.0.0"])

    def test_some_of_several(self) -> None:
        server = Server().hello()
        server.receiver.outcomes[EVE] = errors.StorageFull()
        self.assertEqual(self.send(server, BOB, EVE), ["250 2.0.0"])
        self.assertEqual(self.send(server, EVE), ["452 4.3.1"])
        server.receiver.outcomes[BOB] = errors.OverQuota()
        self.assertEqual(self.send(server, BOB, EVE), ["452 4.3.1"])

    def test_lmtp_each_in_order(self) -> None:
        server = Server("lmtp").hello()
        server.receiver.outcomes = {EVE: errors.StorageFull(), "full@example.test": errors.OverQuota()}
        found = self.send(server, "full@example.test", BOB, EVE, BOB)
        self.assertEqual(found, ["552 5.2.2", "250 2.0.0", "452 4.3.1", "250 2.0.0"])

    def test_lmtp_the_same_for_all(self) -> None:
        server = Server("lmtp").hello()
        server.receiver.failure = errors.MessageRefused()
        self.assertEqual(self.send(server, BOB, EVE), ["550 5.7.1", "550 5.7.1"])

    def test_lmtp_tells_all_before_it_loses_patience(self) -> None:
        server = Server("lmtp", limits=Limits(errors=1)).hello()
        everybody = [f"user{number}@example.test" for number in range(5)]
        server.receiver.outcomes = {to: errors.OverQuota() for to in everybody}
        self.assertEqual(self.send(server, *everybody, BOB), ["552 5.2.2"] * 5 + ["250 2.0.0"])
        self.assertEqual(self.send(server, *everybody), ["552 5.2.2"] * 5)
        self.assertEqual(self.send(server, *everybody), ["552 5.2.2"] * 5 + ["421 4.7.0"])

    def test_lmtp_chunks(self) -> None:
        server = Server("lmtp").hello().begin(BOB, EVE)
        self.assertEqual(shapes(server.wire.send(b"BDAT 6\r\ntext\r\n")), ["250 2.0.0"])
        self.assertEqual(shapes(server.wire.send(b"BDAT 0 LAST\r\n")), ["250 2.0.0", "250 2.0.0"])
        self.assertEqual(server.receiver.messages, [b"text\r\n"])

    def test_a_bug_behind_is_an_incident(self) -> None:
        server = Server().hello()
        server.receiver.failure = ZeroDivisionError("a secret")
        server.begin(BOB)
        server.say("DATA")
        self.assertEqual(server.send(b"text\r\n.\r\n"), ["451 4.3.0 Internal error, incident fake-1"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(server.codes("NOOP"), ["250"])

    def test_a_bug_at_a_command_is_an_incident(self) -> None:
        server = Server().hello()
        server.receiver.refused_senders["sender@example.test"] = ZeroDivisionError(
            "a secret"
        )  # not a MailError
        self.assertEqual(
            server.say("MAIL FROM:<sender@example.test>"),
            ["451 4.3.0 Internal error, incident fake-1"],
        )
        self.assertEqual(server.codes(f"RCPT TO:<{BOB}>", "MAIL FROM:<>"), ["503", "250"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_too_few_outcomes_are_a_bug(self) -> None:
        server = Server().hello()

        async def forgetful(envelope: object, message: object) -> list[Outcome]:
            return []

        server.receiver.message = forgetful
        self.assertEqual(self.send(server, BOB), ["451 4.3.0"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_message_is_closed(self) -> None:
        server = Server().hello()
        self.send(server, BOB)
        server.receiver.failure = errors.MessageRefused()
        self.send(server, BOB)
        self.assertEqual([message.closed for message in server.spool.messages], [1, 1])
        self.assertEqual(server.spool.open, 0)

    def test_a_spool_that_fails_midway(self) -> None:
        for failure, expected in [(errors.StorageFull(), "452 4.3.1"), (OSError(28), "451 4.3.0")]:
            server = Server().hello().begin(BOB)
            server.say("DATA")
            server.send(b"one\r\n")
            server.spool.fail = failure
            self.assertEqual(server.send(b"two\r\n"), [])
            self.assertEqual(server.send(b"RSET\r\nQUIT\r\n"), [])
            self.assertEqual(shapes(server.wire.send(b".\r\n")), [expected])
            self.assertEqual((server.spool.open, server.receiver.received), (0, []))
            self.assertEqual(self.send(server, BOB), ["250 2.0.0"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_spool_that_fails_at_the_end(self) -> None:
        server = Server().hello().begin(BOB)
        server.say("DATA")
        server.send(b"one\r\n")
        server.send(b"two\r\n")
        server.spool.fail = errors.StorageFull()
        self.assertEqual(shapes(server.wire.send(b".\r\n")), ["452 4.3.1"])
        self.assertEqual((server.spool.open, server.receiver.received), (0, []))

    def test_the_envelope_is_as_stated(self) -> None:
        server = Server().hello()
        server.say(
            "MAIL FROM:<å@example.test> SIZE=1000 BODY=8BITMIME SMTPUTF8",
            'RCPT TO:<"bob b"@[192.0.2.1]>',
            "RCPT TO:<Postmaster>",
            "DATA",
        )
        server.send(b"\xff\r\n.\r\n")
        [(envelope, data)] = server.receiver.received
        self.assertEqual(envelope.sender, Address("å", "example.test"))
        self.assertEqual(envelope.recipients, (Address("bob b", "[192.0.2.1]"), Address("postmaster", "")))
        self.assertEqual((envelope.body, envelope.utf8, envelope.size), ("8BITMIME", True, 1000))
        self.assertEqual(data, b"\xff\r\n")

    def test_a_line_of_any_length_is_content(self) -> None:
        # RFC 5321 §4.5.3.1.6 has 1000 octets, and §4.5.3.1 wants no limit where none is needed.
        server = Server().hello().begin(BOB)
        server.say("DATA")
        line = b"QUIT " * 200_000
        for at in range(0, len(line), 60_000):
            self.assertEqual(server.send(line[at : at + 60_000]), [])
        self.assertEqual(shapes(server.wire.send(b"\r\n.\r\nNOOP\r\n")), ["250 2.0.0", "250 2.0.0"])
        self.assertEqual(server.receiver.messages, [line + b"\r\n"])

    def test_eight_bits_without_being_asked(self) -> None:
        server = Server().hello().begin(BOB)
        server.say("DATA")
        self.assertEqual(shapes(server.wire.send(b"\xff\xfe\0\r\n.\r\n")), ["250 2.0.0"])
        self.assertEqual(server.receiver.messages, [b"\xff\xfe\0\r\n"])


class Avatars(SynchronousTestCase):
    """Who the portal is told is there, and that he leaves."""

    def test_anonymous_once_a_greeting(self) -> None:
        server = Server().hello()
        self.assertEqual(server.realm.entered, [])
        server.begin(BOB)
        server.say("RSET")
        server.begin(BOB)
        [(name, peer)] = server.realm.entered
        self.assertEqual((name, peer.hello, peer.service), ((), "client.example.test", "smtp"))
        server.say("EHLO client.example.test", "MAIL FROM:<>", "EHLO other.example.test", "MAIL FROM:<>")
        self.assertEqual([peer.hello for _, peer in server.realm.entered[1:]], ["other.example.test"])
        self.assertEqual(server.realm.present, 1)
        server.say("QUIT")
        self.assertEqual(server.realm.present, 0)

    def test_nobody_may_come_in(self) -> None:
        server = Server(anonymous=False).hello()
        self.assertEqual(server.shapes("MAIL FROM:<>"), ["550 5.7.1"])

    def test_the_portal_fails(self) -> None:
        server = Server().hello()

        async def fail() -> None:
            raise ZeroDivisionError

        server.realm.answering = fail
        self.assertEqual(server.shapes("MAIL FROM:<>"), ["454 4.7.0"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_logout_that_fails_harms_nobody(self) -> None:
        server = Server().hello().begin(BOB)

        def fail() -> None:
            raise ZeroDivisionError

        server.session._logout = fail
        self.assertEqual(server.codes("QUIT"), ["221"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_the_interface(self) -> None:
        self.assertTrue(IMailReceiver.providedBy(Server().receiver))

    def test_a_login_replaces_nobody_and_leaves_at_the_end(self) -> None:
        server = Server("submission").hello()
        self.assertEqual(server.codes(f"AUTH PLAIN {plain()}"), ["235"])
        [(name, peer)] = server.realm.entered
        self.assertEqual((name, peer.hello), (b"alice@example.test", "client.example.test"))
        # EHLO again does not log out, and offers no AUTH any more.
        heard = server.say("EHLO other.example.test")
        self.assertFalse([line for line in heard if "AUTH" in line])
        self.assertEqual(server.codes("MAIL FROM:<alice@example.test>"), ["250"])
        self.assertEqual(server.realm.present, 1)
        server.wire.hang_up()
        self.assertEqual(server.realm.present, 0)


class Auth(SynchronousTestCase):
    """AUTH (RFC 4954)."""

    def server(self, **settings: object) -> Server:
        return Server("submission", **settings).hello()

    def test_plain(self) -> None:
        server = self.server()
        self.assertEqual(server.shapes(f"AUTH PLAIN {plain()}"), ["235 2.7.0"])

    def test_plain_without_initial_response(self) -> None:
        server = self.server()
        self.assertEqual(server.say("auth plain"), ["334 "])
        self.assertEqual(server.shapes(plain()), ["235 2.7.0"])

    def test_login(self) -> None:
        server = self.server()
        self.assertEqual(server.say("AUTH LOGIN"), ["334 VXNlcm5hbWU6"])
        self.assertEqual(server.say(b64encode(b"alice@example.test").decode()), ["334 UGFzc3dvcmQ6"])
        self.assertEqual(server.shapes(b64encode(b"secret").decode()), ["235 2.7.0"])

    def test_failures(self) -> None:
        for line, answers, expected in [
            (f"AUTH PLAIN {plain(password='wrong')}", (), "535 5.7.8"),
            (f"AUTH PLAIN {plain(name='nobody@example.test')}", (), "535 5.7.8"),
            (f"AUTH PLAIN {plain(authzid='bob@example.test')}", (), "535 5.7.8"),
            ("AUTH PLAIN =", (), "501 5.5.2"),  # an empty response is no PLAIN message
            ("AUTH PLAIN ====", (), "501 5.5.2"),
            ("AUTH PLAIN not*base64", (), "501 5.5.2"),
            ("AUTH PLAIN YWJj", (), "501 5.5.2"),
            ("AUTH PLAIN *", (), "501 5.5.2"),
            ("AUTH PLAIN", ("*",), "501 5.7.0"),
            ("AUTH PLAIN", ("not*base64",), "501 5.5.2"),
            ("AUTH PLAIN", ("=",), "501 5.5.2"),
            ("AUTH PLAIN", ("",), "501 5.5.2"),
            ("AUTH PLAIN", ("\x00\x01",), "501 5.5.2"),
            ("AUTH PLAIN", ("A" * 13000,), "500 5.5.6"),
            ("AUTH PLAIN " + "A" * 13000, (), "500 5.5.2"),
            ("AUTH LOGIN", ("YQ==", "*"), "501 5.7.0"),
            ("AUTH LOGIN", ("YQ==", "?"), "501 5.5.2"),
            ("AUTH LOGIN", ("YQ==", "YQ=="), "535 5.7.8"),
            ("AUTH SCRAM-SHA-256", ("YQ==",), "501 5.5.2"),
            ("AUTH SCRAM-SHA-256", ("*",), "501 5.7.0"),
            ("AUTH NTLM", (), "504 5.5.4"),
            ("AUTH", (), "501 5.5.4"),
            ("AUTH PLAIN a b", (), "501 5.5.4"),
        ]:
            with self.subTest(line=line[:30], answers=[answer[:10] for answer in answers]):
                server = self.server()
                heard = server.shapes(line)
                for answer in answers:
                    self.assertEqual(heard[0][:3], "334")
                    heard = server.shapes(answer)
                self.assertEqual(heard, [expected])
                # It is over: the next line is a command again, and nobody is logged in.
                self.assertEqual(server.shapes("NOOP", "MAIL FROM:<>"), ["250 2.0.0", "530 5.7.0"])
                self.assertEqual(server.realm.present, 0)

    def test_the_same_words_for_unknown_and_wrong(self) -> None:
        server = self.server()
        self.assertEqual(
            server.say(f"AUTH PLAIN {plain(password='wrong')}"),
            server.say(f"AUTH PLAIN {plain(name='nobody@example.test')}"),
        )

    def test_not_now(self) -> None:
        server = Server("submission")
        self.assertEqual(server.shapes(f"AUTH PLAIN {plain()}"), ["503 5.5.1"])
        server.hello()
        self.assertEqual(server.shapes(f"AUTH PLAIN {plain()}"), ["235 2.7.0"])
        self.assertEqual(server.shapes(f"AUTH PLAIN {plain()}"), ["503 5.5.1"])

    def test_not_in_a_transaction(self) -> None:
        # Only one who is logged in can begin one here; AUTH again is refused for both reasons.
        server = self.server()
        server.say(f"AUTH PLAIN {plain()}", "MAIL FROM:<alice@example.test>")
        self.assertEqual(
            server.shapes(f"AUTH PLAIN {plain()}", f"RCPT TO:<{BOB}>"), ["503 5.5.1", "250 2.1.5"]
        )

    def test_only_on_submission(self) -> None:
        for service in ("smtp", "lmtp"):
            server = Server(service).hello()
            self.assertEqual(server.shapes(f"AUTH PLAIN {plain()}"), ["502 5.5.1"])

    def test_required_for_everything_else(self) -> None:
        server = self.server()
        for line in ("MAIL FROM:<>", f"RCPT TO:<{BOB}>", "DATA", "VRFY bob"):
            self.assertEqual(server.shapes(line), ["530 5.7.0"], line)
        self.assertEqual(server.shapes("EXPN list", "NONSENSE"), ["502 5.5.1", "500 5.5.1"])
        self.assertEqual(
            shapes(server.wire.send(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")), ["530 5.7.0", "250 2.0.0"]
        )
        self.assertEqual(
            server.codes("HELO a", "EHLO a", "RSET", "HELP", "NOOP", "QUIT"),
            ["250"] * 3 + ["214", "250", "221"],
        )

    def test_no_password_in_clear_from_afar(self) -> None:
        server = self.server(host="192.0.2.1", secured=TLS)
        [offer] = [line for line in server.say("EHLO a") if "AUTH" in line]
        self.assertEqual(offer, "250 AUTH SCRAM-SHA-256")
        self.assertEqual(server.shapes(f"AUTH PLAIN {plain()}"), ["538 5.7.11"])
        self.assertEqual(server.shapes("AUTH LOGIN"), ["538 5.7.11"])
        server.say("STARTTLS")
        server.hello()
        self.assertEqual(server.shapes(f"AUTH PLAIN {plain()}"), ["235 2.7.0"])

    def test_the_operator_decides(self) -> None:
        never = self.server(plaintext_login="never")
        self.assertEqual(never.shapes(f"AUTH PLAIN {plain()}"), ["538 5.7.11"])
        always = self.server(plaintext_login="always", host="192.0.2.1")
        self.assertEqual(always.shapes(f"AUTH PLAIN {plain()}"), ["235 2.7.0"])

    def test_checking_is_unavailable(self) -> None:
        server = self.server()
        server.checker.failure = errors.LoginUnavailable()
        self.assertEqual(server.shapes(f"AUTH PLAIN {plain()}"), ["454 4.7.0"])

    def test_the_avatar_waits(self) -> None:
        server = self.server()
        waiting: Deferred[None] = Deferred()

        async def wait() -> None:
            await waiting

        server.realm.answering = wait
        self.assertEqual(server.say(f"AUTH PLAIN {plain()}", "MAIL FROM:<alice@example.test>"), [])
        waiting.callback(None)
        self.assertEqual(shapes(server.wire.taken()), ["235 2.7.0", "250 2.1.0"])

    def test_the_peer_goes_or_is_silent_in_the_exchange(self) -> None:
        for mechanism in ("PLAIN", "SCRAM-SHA-256"):
            server = self.server()
            server.say(f"AUTH {mechanism}")
            server.wire.hang_up()
            self.assertTrue(server.wire.ended)
            server = self.server()
            server.say(f"AUTH {mechanism}")
            self.assertEqual(shapes(server.wire.advance(Limits().login_timeout)), ["421 4.4.2"])
            self.assertTrue(server.wire.ended)
            server = Server("submission", limits=Limits(login_timeout=20)).hello()
            server.say(f"AUTH {mechanism}")
            self.assertEqual(server.wire.advance(19), b"")
            self.assertEqual(shapes(server.wire.advance(1)), ["421 4.4.2"])

    def test_parameter_auth_is_read_and_believed_of_nobody(self) -> None:
        server = self.server()
        server.say(f"AUTH PLAIN {plain()}")
        for value, expected in [
            ("<>", "250 2.1.0"),
            ("bob+2Btag@example.test", "250 2.1.0"),
            ("bob", "501 5.5.4"),
            ("+C3", "501 5.5.4"),
            ("+c3", "501 5.5.4"),
        ]:
            self.assertEqual(server.shapes(f"MAIL FROM:<alice@example.test> AUTH={value}"), [expected], value)
            server.say("RSET")
        self.assertEqual(Server().hello().shapes("MAIL FROM:<> AUTH=<>"), ["555 5.5.4"])


class StartTLS(SynchronousTestCase):
    """STARTTLS (RFC 3207)."""

    def test_state_is_forgotten(self) -> None:
        server = Server("submission", secured=TLS).hello()
        server.say(f"AUTH PLAIN {plain()}")
        server.begin(BOB)
        self.assertEqual(server.shapes("STARTTLS"), ["220 2.0.0"])
        self.assertEqual(server.realm.present, 0)
        self.assertEqual(server.shapes("MAIL FROM:<>", "DATA"), ["530 5.7.0", "530 5.7.0"])
        self.assertEqual(server.shapes(f"AUTH PLAIN {plain()}"), ["503 5.5.1"])
        server.hello()
        self.assertEqual(server.shapes(f"AUTH PLAIN {plain()}"), ["235 2.7.0"])
        self.assertEqual(server.realm.entered[-1][1].tls, TLS)

    def test_the_transaction_is_forgotten(self) -> None:
        server = Server(secured=TLS).hello().begin(BOB)
        server.say("STARTTLS")
        self.assertEqual(server.shapes("DATA", "MAIL FROM:<>"), ["503 5.5.1", "503 5.5.1"])

    def test_what_came_in_clear_is_forgotten(self) -> None:
        server = Server(secured=TLS).hello()
        heard = server.say("STARTTLS", "EHLO mallory", "MAIL FROM:<mallory@example.test>", f"RCPT TO:<{BOB}>")
        self.assertEqual(heard, ["220 2.0.0 Ready to start TLS"])
        self.assertEqual(server.shapes("RSET"), ["250 2.0.0"])
        self.assertEqual(server.receiver.asked, [])

    def test_half_a_line_in_clear_is_forgotten(self) -> None:
        server = Server(secured=TLS).hello()
        server.send(b"STARTTLS\r\nMAIL FROM:<mallory@example.test>")
        self.assertEqual(server.shapes("NOOP"), ["250 2.0.0"])

    def test_not_twice(self) -> None:
        server = Server(secured=TLS).hello()
        self.assertTrue([line for line in server.say("EHLO a") if "STARTTLS" in line])
        server.say("STARTTLS")
        self.assertFalse([line for line in server.say("EHLO a") if "STARTTLS" in line])
        self.assertEqual(server.shapes("STARTTLS"), ["503 5.5.1"])
        self.assertEqual(Server(tls=TLS).hello().shapes("STARTTLS"), ["503 5.5.1"])

    def test_not_offered(self) -> None:
        server = Server()
        self.assertFalse([line for line in server.say("EHLO a") if "STARTTLS" in line])
        self.assertEqual(server.shapes("STARTTLS"), ["502 5.5.1"])

    def test_no_parameter(self) -> None:
        self.assertEqual(Server(secured=TLS).hello().shapes("STARTTLS now"), ["501 5.5.4"])


class LimitTests(SynchronousTestCase):
    """Each limit by its name."""

    def test_line(self) -> None:
        server = Server(limits=Limits(line=50))
        self.assertEqual(server.shapes("NOOP " + "x" * 43), ["250 2.0.0"])
        self.assertEqual(server.shapes("NOOP " + "x" * 44), ["500 5.5.2"])
        # It is swallowed to its end, and answered once, at its end.
        self.assertEqual(server.send(b"QUIT " * 1000), [])
        self.assertEqual(server.shapes("", "NOOP"), ["500 5.5.2", "250 2.0.0"])

    def test_line_is_enough_for_the_longest_addresses(self) -> None:
        server = Server().hello()
        longest = "a" * 64 + "@" + ".".join(["b" * 60] * 3)
        self.assertEqual(
            server.shapes(f"MAIL FROM:<{longest}> SIZE={'0' * 20} BODY=8BITMIME SMTPUTF8"), ["250 2.1.0"]
        )

    def test_auth_line(self) -> None:
        server = Server("submission", limits=Limits(line=100, auth_line=200)).hello()
        self.assertEqual(server.shapes("AUTH PLAIN " + "A" * 187), ["501 5.5.2"])
        self.assertEqual(server.shapes("AUTH PLAIN " + "A" * 188), ["500 5.5.2"])
        server.say("AUTH PLAIN")
        self.assertEqual(server.shapes("A" * 199), ["500 5.5.6"])

    def test_message(self) -> None:
        server = Server(limits=Limits(message=100)).hello()
        self.assertIn("250-SIZE 100", server.say("EHLO a"))
        self.assertEqual(server.shapes("MAIL FROM:<> SIZE=101"), ["552 5.3.4"])
        self.assertEqual(server.shapes("MAIL FROM:<> SIZE=100", f"RCPT TO:<{BOB}>", "DATA")[-1], "354 End")
        # Over it by one octet, and what is in it stays content.
        self.assertEqual(shapes(server.wire.send(b"x" * 99 + b"\r\n")), [])
        self.assertEqual(
            shapes(server.wire.send(b"QUIT\r\n" * 1000 + b".\r\nNOOP\r\n")), ["552 5.3.4", "250 2.0.0"]
        )
        server.begin(BOB)
        server.say("DATA")
        self.assertEqual(shapes(server.wire.send(b"x" * 98 + b"\r\n.\r\n")), ["250 2.0.0"])
        self.assertEqual(server.receiver.messages, [b"x" * 98 + b"\r\n"])

    def test_message_in_chunks(self) -> None:
        server = Server(limits=Limits(message=100)).hello().begin(BOB)
        self.assertEqual(shapes(server.wire.send(b"BDAT 60\r\n" + b"x" * 60)), ["250 2.0.0"])
        self.assertEqual(shapes(server.wire.send(b"BDAT 60\r\n" + b"QUIT\r\n" * 10)), ["552 5.3.4"])
        # The rest of it finds no transaction.
        self.assertEqual(shapes(server.wire.send(b"BDAT 6 LAST\r\nQUIT\r\n")), ["503 5.5.1"])
        self.assertEqual((server.spool.open, server.receiver.received), (0, []))

    def test_a_huge_chunk_is_swallowed(self) -> None:
        server = Server(limits=Limits(message=100)).hello().begin(BOB)
        self.assertEqual(server.send(b"BDAT 1000000 LAST\r\n"), [])
        for _ in range(10):
            self.assertEqual(server.send(b"x" * 99_999), [])
            self.assertEqual(server.session.engine.buffered, 0)
        self.assertEqual(shapes(server.wire.send(b"y" * 10 + b"NOOP\r\n")), ["552 5.3.4", "250 2.0.0"])

    def test_recipients(self) -> None:
        server = Server(limits=Limits(recipients=2)).hello()
        server.say("MAIL FROM:<>")
        self.assertEqual(
            server.shapes(*[f"RCPT TO:<{BOB}>"] * 4), ["250 2.1.5", "250 2.1.5", "452 4.5.3", "452 4.5.3"]
        )
        server.say("DATA")
        self.assertEqual(shapes(server.wire.send(b"text\r\n.\r\n")), ["250 2.0.0"])
        self.assertEqual(len(server.receiver.received[0][0].recipients), 2)
        self.assertGreaterEqual(Limits().recipients, 100)

    def test_errors(self) -> None:
        server = Server(limits=Limits(errors=3))
        self.assertEqual(server.shapes("X", "", "\0"), ["500 5.5.1", "500 5.5.1", "500 5.5.2"])
        self.assertEqual(server.shapes("X", "NOOP"), ["500 5.5.1", "421 4.7.0"])
        self.assertTrue(server.wire.ended)

    def test_errors_are_forgotten_with_a_message(self) -> None:
        for service in ("smtp", "lmtp"):
            server = Server(service, limits=Limits(errors=3)).hello()
            for _ in range(4):
                server.say("X", "X", "X")
                server.begin(BOB)
                server.say("DATA")
                self.assertEqual(shapes(server.wire.send(b"text\r\n.\r\n")), ["250 2.0.0"])

    def test_idle_commands(self) -> None:
        server = Server(limits=Limits(idle_commands=5))
        self.assertEqual(
            server.codes("EHLO a", "NOOP", "RSET", "HELP", "VRFY a"), ["250"] * 3 + ["214", "252"]
        )
        self.assertEqual(server.shapes("NOOP", "NOOP"), ["421 4.7.0"])
        self.assertTrue(server.wire.ended)

    def test_transactions(self) -> None:
        server = Server(limits=Limits(transactions=2)).hello()
        for _ in range(2):
            server.begin(BOB)
            server.say("DATA")
            self.assertEqual(shapes(server.wire.send(b"text\r\n.\r\n")), ["250 2.0.0"])
        self.assertEqual(server.shapes("MAIL FROM:<>"), ["421 4.7.0"])
        self.assertTrue(server.wire.ended)

    def test_logins(self) -> None:
        server = Server("submission", limits=Limits(logins=3)).hello()
        wrong = f"AUTH PLAIN {plain(password='wrong')}"
        self.assertEqual(server.shapes(wrong, wrong), ["535 5.7.8", "535 5.7.8"])
        self.assertEqual(server.shapes(wrong, "NOOP"), ["535 5.7.8", "421 4.7.0"])
        self.assertTrue(server.wire.ended)

    def test_pipelined(self) -> None:
        server = Server(limits=Limits(pipelined=100)).hello()
        server.receiver.held = []
        server.say("MAIL FROM:<>")
        server.send(b"NOOP\r\n" * 100)
        engine = server.session.engine
        # The connection stops reading then; see the tests of `mailplat.connection`.
        self.assertGreater(engine.buffered, engine.most_buffered)

    def test_command_timeout(self) -> None:
        server = Server(limits=Limits(command_timeout=10)).hello()
        self.assertEqual(server.wire.advance(9), b"")
        self.assertEqual(shapes(server.wire.advance(1)), ["421 4.4.2"])
        self.assertTrue(server.wire.ended)

    def test_data_timeout(self) -> None:
        server = Server(limits=Limits(data_timeout=20)).hello().begin(BOB)
        server.say("DATA")
        for _ in range(5):
            self.assertEqual(server.wire.advance(19), b"")
            server.send(b"text\r\n" * 400)
        self.assertEqual(shapes(server.wire.advance(20)), ["421 4.4.2"])
        self.assertTrue(server.wire.ended)
        self.assertEqual((server.spool.open, server.receiver.received), (0, []))

    def test_refused_content_is_a_sign_of_life(self) -> None:
        server = Server(limits=Limits(data_timeout=20, message=10)).hello().begin(BOB)
        server.say("DATA")
        for _ in range(5):
            server.send(b"too much text\r\n" * 200)
            self.assertEqual(server.wire.advance(19), b"")
        self.assertEqual(shapes(server.wire.send(b".\r\n")), ["552 5.3.4"])


class Stopping(SynchronousTestCase):
    def test_between_commands(self) -> None:
        server = Server().hello().begin(BOB)
        self.assertEqual(shapes(server.wire.stop()), ["421 4.3.2"])
        self.assertTrue(server.wire.ended)
        self.assertEqual(server.realm.present, 0)

    def test_in_the_middle_of_a_message(self) -> None:
        server = Server().hello().begin(BOB)
        server.say("DATA")
        server.send(b"text\r\n")
        self.assertEqual(shapes(server.wire.stop()), ["421 4.3.2"])
        self.assertEqual((server.spool.open, server.receiver.received), (0, []))

    def test_what_is_under_way_is_finished(self) -> None:
        server = Server().hello().begin(BOB)
        server.say("DATA")
        server.receiver.held = []
        server.send(b"text\r\n.\r\nNOOP\r\n")
        server.wire.stop()
        server.receiver.answer()
        self.assertEqual(shapes(server.wire.taken()), ["250 2.0.0", "421 4.3.2"])
        self.assertEqual(server.receiver.messages, [b"text\r\n"])


LINES = st.sampled_from(
    [
        *(b"EHLO a", b"LHLO a", b"HELO a", b"MAIL FROM:<a@b.test>", b"RCPT TO:<c@d.test>", b"DATA", b"RSET"),
        *(
            b"BDAT 3",
            b"BDAT 5 LAST",
            b"BDAT 0 LAST",
            b"BDAT x",
            b"AUTH PLAIN",
            b"AUTH PLAIN =",
            b"AUTH LOGIN",
        ),
        *(b"*", b".", b"..", b"YQ==", b"STARTTLS", b"NOOP", b"VRFY x", b"HELP", b"\xff\0", b"", b"x" * 600),
    ]
)


class Garbage(SynchronousTestCase):
    """Whatever comes, replies go out, and nothing else happens."""

    def check(self, server: Server, data: bytes) -> None:
        heard = server.greeting + server.wire.send(data) + server.wire.hang_up()
        for line in replies(heard):
            self.assertRegex(line, r"\A[2345][0-9]{2}[ -][ -~]*\Z")
        self.assertTrue(server.wire.ended)
        self.assertEqual((server.spool.open, server.realm.present), (0, 0))
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(["smtp", "submission", "lmtp"]), st.binary(max_size=300))
    def test_octets(self, service: str, data: bytes) -> None:
        self.check(Server(service, limits=Limits(line=60)), data)

    @settings(max_examples=150, deadline=None)
    @given(
        st.sampled_from(["smtp", "submission", "lmtp"]),
        st.lists(st.tuples(LINES, st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r", b""])), max_size=25),
    )
    def test_lines(self, service: str, lines: list[tuple[bytes, bytes]]) -> None:
        data = b"".join(line + end for line, end in lines)
        self.check(Server(service, secured=TLS), data)
