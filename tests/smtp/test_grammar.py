from __future__ import annotations

import time

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.smtp.grammar import (
    Command,
    Malformed,
    MalformedParameter,
    Reply,
    decode_xtext,
    encode_xtext,
    format_parameters,
    format_path,
    is_ascii,
    parse_bdat,
    parse_domain,
    parse_hello,
    parse_mail,
    parse_mailbox,
    parse_rcpt,
    parse_size,
    reply,
)
from mailplat.values import Address

LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9_\-]{0,10}[a-z0-9_])?", fullmatch=True)
U_LABEL = st.text(st.characters(categories=("Ll", "Lo", "Nd")), min_size=1, max_size=8)
LITERAL = st.one_of(
    st.ip_addresses(v=4).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=6).map(lambda address: f"[IPv6:{address}]"),
)
DOMAIN = st.one_of(
    st.lists(LABEL, min_size=1, max_size=4).map(".".join),
    st.lists(st.one_of(LABEL, U_LABEL), min_size=1, max_size=3).map(".".join).map(str.lower),
    LITERAL,
)
LOCAL = st.one_of(
    st.from_regex(r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~\-]{1,20}(\.[a-z0-9]{1,8})?", fullmatch=True),
    # Anything printable, which quoting makes a local part of.
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20),
    st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=12),
)
ADDRESS = st.builds(Address, LOCAL, DOMAIN)
KEYWORD = st.from_regex(r"[A-Z0-9][A-Z0-9\-]{0,8}", fullmatch=True)
VALUE = st.one_of(st.none(), st.from_regex(r"[!-<>-~]{1,12}", fullmatch=True))
PARAMETERS = st.dictionaries(KEYWORD, VALUE, max_size=4)


class Paths(SynchronousTestCase):
    def test_read(self) -> None:
        for text, address in [
            ("<alice@example.test>", Address("alice", "example.test")),
            ("<Alice.Smith+tag@EXAMPLE.test>", Address("Alice.Smith+tag", "example.test")),
            ("<!#$%&'*+/=?^_`{|}~-@example.test>", Address("!#$%&'*+/=?^_`{|}~-", "example.test")),
            ('<"alice smith"@example.test>', Address("alice smith", "example.test")),
            ('<"a\\"b\\\\c"@example.test>', Address('a"b\\c', "example.test")),
            ('<"alice"@example.test>', Address("alice", "example.test")),
            ('<"<a@b>"@example.test>', Address("<a@b>", "example.test")),
            ("<alice@localhost>", Address("alice", "localhost")),
            ("<alice@under_score.test>", Address("alice", "under_score.test")),
            ("<alice@[192.0.2.1]>", Address("alice", "[192.0.2.1]")),
            ("<alice@[IPv6:2001:DB8:0::1]>", Address("alice", "[IPv6:2001:db8::1]")),
            ("<alice@[ipv6:::1]>", Address("alice", "[IPv6:::1]")),
            ("<用户@例え.test>", Address("用户", "例え.test")),
            ("<@one.test:alice@example.test>", Address("alice", "example.test")),
            ("<@one.test,@two.test:alice@example.test>", Address("alice", "example.test")),
            ("<@[IPv6:::1],@two.test:alice@example.test>", Address("alice", "example.test")),
            ('<@one.test:"a:b"@example.test>', Address("a:b", "example.test")),
        ]:
            with self.subTest(text):
                self.assertEqual(parse_mail(f"FROM:{text}"), (address, {}))
                self.assertEqual(parse_rcpt(f"to:{text}"), (address, {}))
                self.assertEqual(parse_mail(f"FROM: {text} SIZE=1"), (address, {"SIZE": "1"}))

    def test_refused(self) -> None:
        for text in [
            "",
            "alice@example.test",
            "<alice@example.test",
            "<alice>",
            "<@example.test>",
            "<alice@>",
            "<alice@@example.test>",
            "<alice@example.test>>",
            "<<alice@example.test>>",
            "<alice@example.test>x",
            "<alice @example.test>",
            "<alice@exam ple.test>",
            "< alice@example.test>",
            "<.alice@example.test>",
            "<alice.@example.test>",
            "<al..ice@example.test>",
            "<alice@-example.test>",
            "<alice@example-.test>",
            "<alice@example..test>",
            "<alice@example.test.>",
            "<alice@.test>",
            "<alice@exam!ple.test>",
            '<"alice@example.test>',
            '<"ali"ce@example.test>',
            '<""@example.test>',
            '<al"i"ce@example.test>',
            "<alice@[192.0.2.256]>",
            "<alice@[192.0.2.1>",
            "<alice@192.0.2.1]>",
            "<alice@[IPv6:1::2::3]>",
            "<alice@[IPv6:fe80::1%eth0]>",
            "<alice@[tag:content]>",
            "<alice@[]>",
            "<@one.test alice@example.test>",
            "<@one.test,:alice@example.test>",
            "<@one.test@two.test:alice@example.test>",
            "<@:alice@example.test>",
            "<@-one.test:alice@example.test>",
            "<one.test:alice@example.test>",
            "<ali\u2028ce@example.test>",
            '<"ali\u0085ce"@example.test>',
            "<alice@exa\u00a0mple.test>",
        ]:
            with self.subTest(text):
                with self.assertRaises(Malformed):
                    parse_mail(f"FROM:{text}")
                with self.assertRaises(Malformed):
                    parse_rcpt(f"TO:{text}")

    def test_null_path(self) -> None:
        self.assertEqual(parse_mail("FROM:<>"), (None, {}))
        self.assertEqual(parse_mail("from: <> BODY=8BITMIME"), (None, {"BODY": "8BITMIME"}))
        with self.assertRaises(Malformed):
            parse_rcpt("TO:<>")

    def test_postmaster(self) -> None:
        self.assertEqual(parse_rcpt("TO:<postmaster>"), (Address("postmaster", ""), {}))
        self.assertEqual(parse_rcpt("TO:<PostMaster> X=1"), (Address("postmaster", ""), {"X": "1"}))
        self.assertEqual(format_path(Address("postmaster", "")), "<postmaster>")
        for wrong in ("TO:<postmaster>x", "TO:<postmaster", "TO:<postmasters>"):
            with self.assertRaises(Malformed):
                parse_rcpt(wrong)
        with self.assertRaises(Malformed):
            parse_mail("FROM:<postmaster>")

    def test_words(self) -> None:
        for wrong in ("", "FROM", "FROM <a@b.test>", "TO:<a@b.test>", "<a@b.test>", "FROMM:<a@b.test>"):
            with self.assertRaises(Malformed):
                parse_mail(wrong)

    def test_lengths(self) -> None:
        local, domain = "a" * 64, ".".join(["b" * 63] * 3)
        self.assertEqual(len(f"<{local[:62]}@{domain}>"), 256)
        self.assertEqual(parse_mail(f"FROM:<{local[:62]}@{domain}>")[0], Address(local[:62], domain))
        self.assertEqual(parse_mail(f"FROM:<{local}@b.test>")[0], Address(local, "b.test"))
        for wrong in (
            f"<{local}a@b.test>",
            f"<{local[:63]}@{domain}>",
            f"<a@{'b' * 64}.test>",
            f"<{'é' * 33}@b.test>",
        ):
            with self.subTest(wrong), self.assertRaises(Malformed):
                parse_mail(f"FROM:{wrong}")
        with self.assertRaises(Malformed):
            parse_domain("b." * 127 + "bb")
        # A source route is not part of the address, and so not of its length.
        self.assertEqual(parse_mail(f"FROM:<@{domain}:{local}@b.test>")[0], Address(local, "b.test"))

    def test_long_input_is_quick(self) -> None:
        began = time.process_time()
        for wrong in (
            "FROM:<" + "a." * 50_000,
            "FROM:<" + '"' + "\\a" * 50_000,
            "FROM:<a@" + "b-" * 50_000 + ">",
            "FROM:<" + "@a," * 30_000 + ">",
            "FROM:<" + "@a" * 50_000 + ":",
            "FROM:<a@b> " + "A" * 100_000 + "=",
        ):
            with self.assertRaises(Malformed):
                parse_mail(wrong)
        self.assertLess(time.process_time() - began, 5)

    @given(ADDRESS, PARAMETERS)
    def test_written_and_read(self, address: Address, parameters: dict[str, str | None]) -> None:
        path = format_path(address)
        assume(len(path.encode()) <= 256 and len(address.local.encode()) <= 64)
        argument = path + format_parameters(parameters)
        self.assertEqual(parse_mail(f"FROM:{argument}"), (address, parameters))
        self.assertEqual(parse_rcpt(f"TO:{argument}"), (address, parameters))
        self.assertEqual(parse_mailbox(path[1:-1]), address)

    @given(st.text(max_size=60))
    def test_anything(self, text: str) -> None:
        for parse in (parse_mail, parse_rcpt):
            for word in ("", "FROM:", "TO:", "FROM:<", "TO:<"):
                try:
                    parse(word + text)
                except Malformed as error:
                    self.assertTrue(str(error).isprintable())

    def test_is_ascii(self) -> None:
        self.assertTrue(is_ascii(None))
        self.assertTrue(is_ascii(Address("a", "b.test")))
        self.assertFalse(is_ascii(Address("ä", "b.test")))
        self.assertFalse(is_ascii(Address("a", "ä.test")))

    def test_mailbox_is_one_address(self) -> None:
        for wrong in ("", "a", "a@b.test>", "a@b.test> x", ">", "<a@b.test>"):
            with self.subTest(wrong), self.assertRaises(Malformed):
                parse_mailbox(wrong)


class ParametersTests(SynchronousTestCase):
    def test_read(self) -> None:
        self.assertEqual(
            parse_mail("FROM:<a@b.test>  size=5   Body=8BITMIME SMTPUTF8 AUTH=<>  ")[1],
            {"SIZE": "5", "BODY": "8BITMIME", "SMTPUTF8": None, "AUTH": "<>"},
        )

    def test_refused(self) -> None:
        for wrong in ("SIZE=", "=5", "-A=1", "A_B=1", "A=b=c", "A=1 a=2", "A=\u00a0"):
            with self.subTest(wrong), self.assertRaises(MalformedParameter):
                parse_mail(f"FROM:<a@b.test> {wrong}")

    def test_size(self) -> None:
        self.assertEqual(parse_size("0"), 0)
        self.assertEqual(parse_size("9" * 20), 10**20 - 1)
        for wrong in (None, "", "-1", "+1", "1_0", "1.0", "٣", "9" * 21, "0x1"):
            with self.subTest(wrong), self.assertRaises(MalformedParameter):
                parse_size(wrong)

    def test_bdat(self) -> None:
        self.assertEqual(parse_bdat("0"), (0, False))
        self.assertEqual(parse_bdat("86 last"), (86, True))
        for wrong in ("", "LAST", "86 LAST 1", "86 FIRST", "-1", "86LAST"):
            with self.subTest(wrong), self.assertRaises(Malformed):
                parse_bdat(wrong)


class Hello(SynchronousTestCase):
    def test_read(self) -> None:
        for name in ("mx.example.test", "[192.0.2.1]", "[IPv6:2001:db8::1]", "my_pc", "localhost", "x" * 255):
            self.assertEqual(parse_hello(name), name)

    def test_refused(self) -> None:
        for wrong in (
            "",
            "two words",
            "a(b",
            "a)b",
            "<a>",
            "a;b",
            "a,b",
            'a"b',
            "a\\b",
            "ä.test",
            "a@b",
            "x" * 256,
        ):
            with self.subTest(wrong), self.assertRaises(Malformed):
                parse_hello(wrong)


class Xtext(SynchronousTestCase):
    @given(st.binary())
    def test_written_and_read(self, octets: bytes) -> None:
        text = encode_xtext(octets)
        self.assertNotIn("=", text)
        self.assertEqual(decode_xtext(text), octets)

    def test_refused(self) -> None:
        for wrong in ("a=b", "+", "+3", "+3d", "a b", "ä", "+G0"):
            with self.subTest(wrong), self.assertRaises(MalformedParameter):
                decode_xtext(wrong)


class Commands(SynchronousTestCase):
    def test_read(self) -> None:
        for text, command in [
            ("QUIT", ("QUIT", "")),
            ("quit  ", ("QUIT", "")),
            ("mail FROM:<A@b.test> ", ("MAIL", "FROM:<A@b.test>")),
            ("NOOP  a  b", ("NOOP", "a  b")),
            ("", ("", "")),
            (" NOOP", ("", "NOOP")),
        ]:
            self.assertEqual(Command.parse(text), command)

    @given(
        st.from_regex(r"[A-Z]{1,8}", fullmatch=True), st.from_regex(r"([!-~]([ -~]*[!-~])?)?", fullmatch=True)
    )
    def test_written_and_read(self, verb: str, argument: str) -> None:
        line = bytes(Command(verb, argument))
        self.assertEqual(Command.parse(line.removesuffix(b"\r\n").decode()), (verb, argument))


LINE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100)


class Replies(SynchronousTestCase):
    @given(st.integers(200, 599), st.lists(LINE, min_size=1, max_size=5), st.booleans())
    def test_written_and_read(self, code: int, lines: list[str], enhanced: bool) -> None:
        if enhanced and code // 100 != 3:
            whole = Reply(code, tuple(lines), f"{code // 100}.7.11")
        else:
            assume(not lines[0][:1].isdigit())
            whole = Reply(code, tuple(lines))
        self.assertEqual(Reply.parse(bytes(whole)), whole)

    def test_shape(self) -> None:
        self.assertEqual(bytes(Reply(250, ("one", "two"), "2.1.0")), b"250-2.1.0 one\r\n250 2.1.0 two\r\n")
        self.assertEqual(reply(354, "", "go"), b"354 go\r\n")

    def test_a_line_is_never_too_long_nor_unprintable(self) -> None:
        self.assertEqual(len(reply(550, "5.1.1", "x" * 2000)), 512)
        self.assertEqual(reply(550, "5.1.1", "a\r\n250 ä\0"), b"550 5.1.1 a??250 ??\r\n")

    def test_refused(self) -> None:
        for wrong in (
            b"",
            b"250 OK",
            b"25 OK\r\n",
            b"650 OK\r\n",
            b"250-OK\r\n",
            b"250 OK\r\n250 OK\r\n",
            b"250-OK\r\n251 OK\r\n",
            b"250xOK\r\n",
            b"OK\r\n",
        ):
            with self.subTest(wrong), self.assertRaises(Malformed):
                Reply.parse(wrong)

    def test_enhanced_code_of_another_class_is_text(self) -> None:
        self.assertEqual(Reply.parse(b"250 5.1.1 odd\r\n"), Reply(250, ("5.1.1 odd",)))
        self.assertEqual(Reply.parse(b"250\r\n"), Reply(250, ("",)))
