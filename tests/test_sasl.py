"""SASL mechanisms, without a server around them."""

from __future__ import annotations

from base64 import b64decode, b64encode

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat import sasl
from mailplat.errors import LoginFailed, MalformedLogin
from mailplat.values import ScramRecord
from tests.auth.scram_client import ScramClient

ROUNDS = 16
SALT = b"0123456789abcdef"


def record(password: str, known: bool = True, rounds: int = ROUNDS, salt: bytes = SALT) -> ScramRecord:
    salted = sasl.salted_password(sasl.prepared_password(password.encode()), salt, rounds)
    made = sasl.record_of(salted, salt, rounds)
    return ScramRecord(salt, rounds, made.stored_key, made.server_key, known)


def server(bindings: dict[str, bytes] | None = None, plus: bool = False) -> sasl.ScramServer:
    return sasl.ScramServer(bindings or {}, b"n" * 18, plus=plus)


class Prepared(SynchronousTestCase):
    """RFC 4013."""

    def test_examples(self) -> None:
        """RFC 4013 §3"""
        for given_, prepared in (
            ("I\u00adX", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
        ):
            self.assertEqual(sasl.saslprep(given_), prepared)
        for prohibited in ("\u0007", "\u06271", "a\u0007b", "é\u0007"):
            self.assertRaises(ValueError, sasl.saslprep, prohibited)

    def test_spaces(self) -> None:
        self.assertEqual(sasl.saslprep("a\u00a0b\u3000c"), "a b c")

    def test_direction(self) -> None:
        self.assertEqual(sasl.saslprep("\u0627\u0628"), "\u0627\u0628")
        self.assertRaises(ValueError, sasl.saslprep, "\u0627a\u0628")

    def test_nothing_is_left(self) -> None:
        self.assertEqual(sasl.saslprep("\u00ad"), "")

    def test_what_cannot_be_prepared_is_as_it_was(self) -> None:
        for name in (b"\xff\xfe", b"a\0b", "\u06271".encode()):
            self.assertEqual(sasl.prepared_name(name), name)

    def test_passwords_that_cannot_be_prepared_are_nobodys(self) -> None:
        kept = record("secret")
        for password in (b"secret\0", b"secret\0\0", b"\xff", b""):
            salted = sasl.salted_password(sasl.prepared_password(password), SALT, ROUNDS)
            self.assertFalse(sasl.proves(salted, kept), password)

    @given(st.text())
    def test_twice_is_once(self, text: str) -> None:
        try:
            prepared = sasl.saslprep(text)
        except ValueError:
            return
        self.assertEqual(sasl.saslprep(prepared), prepared)


class InPlain(SynchronousTestCase):
    """RFC 4616."""

    def test_example(self) -> None:
        """RFC 4616 §4"""
        plain = sasl.Plain.parse(b"\0tim\0tanstaaftanstaaf")
        self.assertEqual((plain.authzid, plain.username, plain.password), (b"", b"tim", b"tanstaaftanstaaf"))
        self.assertEqual(sasl.Plain.parse(b"Ursel\0Kurt\0xipj3plmq").authzid, b"Ursel")

    def test_prepared(self) -> None:
        plain = sasl.Plain.parse("\0I\u00adX\0p\u00adw".encode())
        self.assertEqual((plain.username, plain.password), (b"IX", "p\u00adw".encode()))

    def test_password_is_not_shown(self) -> None:
        self.assertNotIn("tanstaaf", repr(sasl.Plain.parse(b"\0tim\0tanstaaf")))

    def test_malformed(self) -> None:
        for message in (
            b"",
            b"\0",
            b"\0\0",
            b"a\0b",
            b"\0\0password",
            b"\0user\0",
            b"a\0b\0c\0d",
            b"\0\xff\0p",
            b"\0u\0\xff",
            b"\0u\0" + b"p" * sasl.MOST_MESSAGE,
        ):
            self.assertRaises(MalformedLogin, sasl.Plain.parse, message)

    @given(st.binary())
    def test_garbage(self, message: bytes) -> None:
        try:
            plain = sasl.Plain.parse(message)
        except MalformedLogin:
            return
        self.assertTrue(plain.username and plain.password)


class InScram(SynchronousTestCase):
    """RFC 5802 and RFC 7677."""

    def test_example(self) -> None:
        """RFC 7677 §3"""
        made = sasl.record_of(
            sasl.salted_password(b"pencil", b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096),
            b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="),
            4096,
        )
        # The example's nonce is no base64, so it is put in where the server keeps its own.
        scram = sasl.ScramServer({}, b"", plus=False)
        scram._nonce = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        self.assertEqual(scram.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"), b"user")
        self.assertEqual(
            scram.challenge(made),
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        )
        self.assertEqual(
            scram.final(
                b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
            ),
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        )

    def exchange(self, client: ScramClient, scram: sasl.ScramServer, kept: ScramRecord) -> bytes:
        scram.first(client.first())
        return scram.final(client.final(scram.challenge(kept)))

    def test_right(self) -> None:
        client = ScramClient("alice", "secret")
        self.assertTrue(client.trusts(self.exchange(client, server(), record("secret"))))

    def test_wrong(self) -> None:
        self.assertEqual(self.exchange(ScramClient("alice", "Secret"), server(), record("secret")), b"")

    def test_unknown_never_passes(self) -> None:
        """Not even somebody who guesses what the invented record was made of."""
        self.assertEqual(self.exchange(ScramClient("bob", "x"), server(), record("x", known=False)), b"")

    def test_names(self) -> None:
        for name in ("a,b=c", "=2C", "alice@example.test", "jürgen"):
            self.assertEqual(server().first(ScramClient(name, "").first()), name.encode())

    def test_authzid(self) -> None:
        scram = server()
        scram.first(ScramClient("alice", "", gs2="n,a=al=2Cice,").first())
        self.assertEqual(scram.authzid, b"al,ice")

    def test_extensions_pass(self) -> None:
        self.assertEqual(server().first(b"n,,n=alice,r=abc,x=y,z=\xc3\xa9"), b"alice")

    def test_channel_binding(self) -> None:
        bindings = {"tls-exporter": b"E" * 32, "tls-server-end-point": b"P" * 32}
        for name, data in bindings.items():
            client = ScramClient("alice", "secret", gs2=f"p={name},,", binding=data)
            self.assertTrue(client.trusts(self.exchange(client, server(bindings, True), record("secret"))))

    def test_another_channel(self) -> None:
        """Somebody in the middle has another channel with us than the client has with them."""
        client = ScramClient("alice", "secret", gs2="p=tls-exporter,,", binding=b"theirs")
        self.assertEqual(
            self.exchange(client, server({"tls-exporter": b"ours"}, True), record("secret")), b""
        )

    def test_another_header(self) -> None:
        """The GS2 header is authenticated along."""
        client, scram = ScramClient("alice", "secret"), server()
        scram.first(client.first())
        client.gs2 = "y,,"
        self.assertEqual(scram.final(client.final(scram.challenge(record("secret")))), b"")

    def test_downgrade(self) -> None:
        """RFC 5802 §6: the client supports channel binding and believes that we don't."""
        first = ScramClient("alice", "", gs2="y,,").first()
        self.assertRaises(LoginFailed, server({"tls-exporter": b"E"}).first, first)
        self.assertEqual(server().first(first), b"alice")

    def test_binding_by_mistake(self) -> None:
        bindings = {"tls-exporter": b"E"}
        self.assertRaises(MalformedLogin, server(bindings).first, b"p=tls-exporter,,n=alice,r=abc")
        for first in (b"p=tls-unique,,n=alice,r=abc", b"n,,n=alice,r=abc", b"y,,n=alice,r=abc"):
            self.assertRaises(MalformedLogin, server(bindings, True).first, first)

    def test_malformed_first(self) -> None:
        for message in (
            b"",
            b"n",
            b"n,,",
            b"n,,n=,r=abc",
            b"n,,n=alice",
            b"n,,n=alice,r=",
            b"n,,r=abc,n=alice",
            b"x,,n=a,r=b",
            b"n,,m=ext,n=alice,r=abc",
            b"n,,n=a=b,r=abc",
            b"n,,n=a=2c,r=abc",
            b"n,,n=\xff,r=abc",
            b"n,,n=a\0,r=abc",
            b"n,b=alice,n=alice,r=abc",
            b"n,,n=alice,r=a c",
            b"n,,n=alice,r=abc,",
            b"n,,n=\xc2\xad,r=abc",
            b"n,,n=alice,r=" + b"a" * sasl.MOST_MESSAGE,
        ):
            self.assertRaises(MalformedLogin, server().first, message)

    def test_malformed_final(self) -> None:
        client = ScramClient("alice", "secret")
        scram = server()
        scram.first(client.first())
        good = client.final(scram.challenge(record("secret")))
        bare, proof = good.split(b",p=")
        short = b64encode(b64decode(proof)[:31])
        for message in (
            b"",
            good + b",x=y",
            bare,
            bare + b",p=",
            bare + b",p=!",
            bare + b",p=" + short,
            bare + b",p=" + proof[:-1],
            good.replace(b"r=f", b"r=g"),
            good.replace(b"c=biws", b"c=biw"),
            b"p=" + proof + b"," + bare,
            good + b"a" * sasl.MOST_MESSAGE,
        ):
            self.assertRaises(MalformedLogin, scram.final, message)
        self.assertTrue(client.trusts(scram.final(good)))

    def test_final_before_its_time(self) -> None:
        self.assertRaises(MalformedLogin, server().final, b"c=biws,r=abc,p=" + b64encode(b"p" * 32))

    @given(st.binary(), st.binary(), st.booleans())
    @example(b"n,,n=a,r=b", b"c=biws,r=b,p=AAAA", False)
    def test_garbage(self, first: bytes, final: bytes, plus: bool) -> None:
        scram = server({"tls-exporter": b"E"} if plus else {}, plus)
        for step, message in ((scram.first, first), (scram.final, final)):
            try:
                step(message)
            except (MalformedLogin, LoginFailed):
                return
            scram.challenge(record("secret", rounds=1))

    @settings(max_examples=40, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
    def test_one_record_for_all(self, password: str) -> None:
        """What SCRAM proves, PLAIN proves with the same record."""
        try:
            prepared = sasl.saslprep(password)
        except ValueError:
            return
        kept = record(password)
        client = ScramClient("alice", prepared)
        self.assertTrue(client.trusts(self.exchange(client, server(), kept)))
        salted = sasl.salted_password(sasl.prepared_password(password.encode()), SALT, ROUNDS)
        self.assertTrue(sasl.proves(salted, kept))
        self.assertFalse(sasl.proves(salted, record(password, known=False)))
        self.assertFalse(sasl.proves(bytes(32), kept))
