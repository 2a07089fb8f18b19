"""Address lists: every form of RFC 5322, the obsolete ones, and what mail brings instead."""

from __future__ import annotations

from email.utils import getaddresses

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.message.addresses import GROUP_END, MOST, Mailbox, parse


def box(name: str | None, local: str, host: str, route: str | None = None) -> Mailbox:
    def octets(text: str | None) -> bytes | None:
        return None if text is None else text.encode()

    return Mailbox(octets(name), octets(route), local.encode(), host.encode())


def group(name: str) -> Mailbox:
    return Mailbox(None, None, name.encode(), None)


class Cases(SynchronousTestCase):
    def check(self, cases: dict[str, list[Mailbox]]) -> None:
        for text, expected in cases.items():
            with self.subTest(text=text):
                self.assertEqual(parse(text.encode()), expected)


class MailboxTests(Cases):
    """RFC 5322 §3.4: mailbox, name-addr, addr-spec."""

    def test_plain(self) -> None:
        self.check(
            {
                "a@b": [box(None, "a", "b")],
                "<a@b>": [box(None, "a", "b")],
                "  a@b.example.test\t": [box(None, "a", "b.example.test")],
                "Bob <a@b>": [box("Bob", "a", "b")],
                "Bob\tB  Example <a@b>": [box("Bob\tB  Example", "a", "b")],
                '"Bob" <a@b>': [box("Bob", "a", "b")],
                '"" <a@b>': [box(None, "a", "b")],
                "Bob<a@b>": [box("Bob", "a", "b")],
                "Bob < a@b >": [box("Bob", "a", "b")],
                "first.last+tag@sub.example.test": [box(None, "first.last+tag", "sub.example.test")],
                "!#$%&'*+-/=?^_`{|}~@b": [box(None, "!#$%&'*+-/=?^_`{|}~", "b")],
            }
        )

    def test_several(self) -> None:
        self.check(
            {
                "a@b, c@d": [box(None, "a", "b"), box(None, "c", "d")],
                "a@b,c@d,": [box(None, "a", "b"), box(None, "c", "d")],
                "A <a@b>,\r\n\tC <c@d>": [box("A", "a", "b"), box("C", "c", "d")],
                # RFC 5322 §4.4 obs-mbox-list: empty elements.
                ", a@b,, ,c@d , ,": [box(None, "a", "b"), box(None, "c", "d")],
                # An odd one between others spoils neither.
                'a@b, "x y"@c (z), d@e': [box(None, "a", "b"), box("z", "x y", "c"), box(None, "d", "e")],
            }
        )

    def test_quoted(self) -> None:
        self.check(
            {
                r'"a \"b\" \\ c" <a@b>': [box(r'a "b" \ c', "a", "b")],
                '"Last, First" <a@b>, c@d': [box("Last, First", "a", "b"), box(None, "c", "d")],
                '"a@b" <c@d>': [box("a@b", "c", "d")],
                '"<x@y>" <c@d>': [box("<x@y>", "c", "d")],
                '"a b"@c': [box(None, "a b", "c")],
                '<"a b"@c>': [box(None, "a b", "c")],
                r'<"a\"@\\b"@c>': [box(None, r'a"@\b', "c")],
                '""@c': [box(None, "", "c")],
                '"(no comment)" <a@b>': [box("(no comment)", "a", "b")],
                'John "the man" Doe <a@b>': [box("John the man Doe", "a", "b")],
            }
        )

    def test_comments(self) -> None:
        self.check(
            {
                # RFC 822 habit: the name in a comment.
                "a@b (Bob)": [box("Bob", "a", "b")],
                "(Bob) a@b": [box("Bob", "a", "b")],
                "Bob (the other one) <a@b>": [box("Bob", "a", "b")],
                "<a@b> (Bob)": [box("Bob", "a", "b")],
                "a(x)@(y)b (z)": [box("z", "a", "b")],
                "a@b (one (two (three)) four)": [box("one (two (three)) four", "a", "b")],
                r"a@b (\(one\) \\)": [box("(one) \\", "a", "b")],
                "a@b (c@d, e@f)": [box("c@d, e@f", "a", "b")],
                "a@b (), c@d": [box(None, "a", "b"), box(None, "c", "d")],
                "(only a comment)": [],
                "(one), (two)": [],
            }
        )

    def test_white_space_in_addresses(self) -> None:
        """RFC 5322 §4.4 obs-local-part and obs-domain: around dots and the @."""
        self.check(
            {
                "a . b @ c . d": [box(None, "a.b", "c.d")],
                "a@ b": [box(None, "a", "b")],
                "<a . b @ c>": [box(None, "a.b", "c")],
                '"a" . "b" @ c': [box(None, "a.b", "c")],
                "a\r\n @ b": [box(None, "a", "b")],
            }
        )

    def test_domain_literals(self) -> None:
        self.check(
            {
                "a@[192.0.2.1]": [box(None, "a", "[192.0.2.1]")],
                "Bob <a@[IPv6:2001:db8::1]>": [box("Bob", "a", "[IPv6:2001:db8::1]")],
                "a@[192.0.2.1], c@d": [box(None, "a", "[192.0.2.1]"), box(None, "c", "d")],
            }
        )

    def test_routes(self) -> None:
        """RFC 5322 §4.4 obs-route; RFC 3501 §7.4.2 addr-adl."""
        self.check(
            {
                "<@a.test:b@c>": [box(None, "b", "c", "@a.test")],
                "B <@a,@d:b@c>": [box("B", "b", "c", "@a,@d")],
                "B <@a, @d : b@c>, e@f": [box("B", "b", "c", "@a,@d"), box(None, "e", "f")],
                "B <,@a,,@d:b@c>": [box("B", "b", "c", "@a,@d")],
                # What a web page put there is no route.
                "<mailto:a@b>": [box(None, "a", "b")],
            }
        )

    def test_8_bit(self) -> None:
        """RFC 6532, and octets that are no UTF-8: as they came."""
        self.check(
            {
                "Jürgen <jürgen@bücher.test>": [box("Jürgen", "jürgen", "bücher.test")],
                '"Jür, gen" <a@b>': [box("Jür, gen", "a", "b")],
                "a@b (Jürgen)": [box("Jürgen", "a", "b")],
            }
        )
        self.assertEqual(parse(b"J\xfc \xff <a@b>"), [Mailbox(b"J\xfc \xff", None, b"a", b"b")])

    def test_encoded_words_stay(self) -> None:
        self.check({"=?utf-8?q?J=C3=BCrgen?= <a@b>": [box("=?utf-8?q?J=C3=BCrgen?=", "a", "b")]})


class GroupTests(Cases):
    """A group is opened by an entry without a host and closed by one without anything (RFC 3501 §7.4.2)."""

    def test_groups(self) -> None:
        a, c = box(None, "a", "b"), box("C", "c", "d")
        self.check(
            {
                "friends: a@b, C <c@d>;": [group("friends"), a, c, GROUP_END],
                "friends:;": [group("friends"), GROUP_END],
                "undisclosed-recipients: ;": [group("undisclosed-recipients"), GROUP_END],
                "My Friends : a@b ;": [group("My Friends"), a, GROUP_END],
                '"A: B": a@b;': [group("A: B"), a, GROUP_END],
                "x: a@b;, C <c@d>": [group("x"), a, GROUP_END, c],
                "x: a@b; C <c@d>": [group("x"), a, GROUP_END, c],
                "a@b, x:;, y: C <c@d>;": [a, group("x"), GROUP_END, group("y"), c, GROUP_END],
                "x: , ,a@b,, ;": [group("x"), a, GROUP_END],
                "x (comment): a@b (name);": [group("x"), box("name", "a", "b"), GROUP_END],
                ": a@b;": [group(""), a, GROUP_END],
            }
        )

    def test_unclosed(self) -> None:
        """What opens is closed, since clients count on pairs."""
        a = box(None, "a", "b")
        self.check(
            {
                "x: a@b": [group("x"), a, GROUP_END],
                "x:": [group("x"), GROUP_END],
                "x: a@b, (": [group("x"), a, GROUP_END],
                'x: a@b, "': [group("x"), a, GROUP_END],
            }
        )

    def test_no_groups_in_groups(self) -> None:
        self.check(
            {
                "x: y: a@b;": [group("x"), box("y:", "a", "b"), GROUP_END],
                "a@b;": [box(None, "a", "b")],
                ";": [],
            }
        )


class NonsenseTests(Cases):
    """Something sensible is made of anything."""

    def test_no_address(self) -> None:
        """A host that is missing is "", since NIL would mean a group."""
        self.check(
            {
                "": [],
                " \t\r\n": [],
                "somebody": [box(None, "somebody", "")],
                "some body": [box(None, "some body", "")],
                "<somebody>": [box(None, "somebody", "")],
                "Some Body <>": [box("Some Body", "", "")],
                "<>": [],
                "@": [],
                "@b": [box(None, "", "b")],
                "a@": [box(None, "a", "")],
                "<@>": [],
            }
        )

    def test_forgotten_signs(self) -> None:
        self.check(
            {
                "Bob Example a@b": [box("Bob Example", "a", "b")],
                '"Bob Example" a@b': [box("Bob Example", "a", "b")],
                "a@b c@d": [box(None, "a", "b"), box(None, "c", "d")],
                "A a@b C c@d": [box("A", "a", "b"), box("C", "c", "d")],
                "a@b and more": [box(None, "a", "b")],
                "Bob <a@b": [box("Bob", "a", "b")],
                "Bob <a@b, c@d": [box("Bob", "a", "b"), box(None, "c", "d")],
                "Bob a@b>": [box("Bob", "a", "b")],
                "a@b <>": [box(None, "a", "b")],
                "Bob a@b <": [box("Bob", "a", "b")],
                "<<a@b>>": [box(None, "a", "b")],
                '"Bob <a@b>': [box(None, "Bob <a@b>", "")],
                "Bob (never closed <a@b>": [box("never closed <a@b>", "Bob", "")],
                "a@b) , c@d": [box(None, "a", "b"), box(None, "c", "d")],
                "Bob@home <a@b>": [box("Bob@home", "a", "b")],
                "a@b@c": [box(None, "a@b", "c")],
                "<a@b@c>": [box(None, "a@b", "c")],
                "Bob <a@b> and more": [box("Bob", "a", "b")],
                "A <a@b> C <c@d>": [box("A", "a", "b")],
                "A, B <a@b>": [box(None, "A", ""), box("B", "a", "b")],
                "a;b@c": [box(None, "a", ""), box(None, "b", "c")],
            }
        )

    def test_control_characters(self) -> None:
        self.assertEqual(parse(b"A\0B <a\0@b>"), [Mailbox(b"A B", None, b"a", b"b")])
        for octet in range(256):
            parse(bytes([octet]))
            parse(b'"x' + bytes([octet]) + b"<a@b>,")

    @given(st.binary(max_size=60) | st.text('<>@,;:()[]"\\. a', max_size=40).map(str.encode))
    def test_anything(self, raw: bytes) -> None:
        found = parse(raw)
        opened = False
        for entry in found:
            self.assertNotIn(b"\r\n", entry.local or b"")
            if entry == GROUP_END:
                self.assertTrue(opened)
                opened = False
            elif entry.host is None:
                self.assertFalse(opened)
                self.assertEqual((entry.name, entry.route), (None, None))
                opened = True
            else:
                self.assertIsNotNone(entry.local)
        self.assertFalse(opened)
        self.assertEqual(parse(raw, 2), found[:2] if not opened_at(found[:2]) else [*found[:2], GROUP_END])


def opened_at(entries: list[Mailbox]) -> bool:
    """A group is open after these."""
    last = [entry for entry in entries if entry.host is None]
    return bool(last) and last[-1] != GROUP_END


class LimitTests(SynchronousTestCase):
    def test_most(self) -> None:
        self.assertEqual(len(parse(b"a@b," * (MOST + 5))), MOST)
        self.assertEqual(len(parse(b"a@b " * (MOST + 5))), MOST)
        self.assertEqual(len(parse(b'"a b"@c,' * 7, 3)), 3)

    def test_a_group_at_the_limit_is_closed(self) -> None:
        found = parse(b"x: " + b"a@b," * 10 + b";", 4)
        self.assertEqual(found[-1], GROUP_END)
        self.assertEqual(len(found), 5)


ATOM = st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=8)
DOTTED = st.lists(ATOM, min_size=1, max_size=3).map(".".join)
PHRASE = st.lists(ATOM, min_size=1, max_size=3).map(" ".join)
QUOTED = st.text(' abc,;:<>@().é"\\', min_size=1, max_size=10).filter(lambda text: text.strip() == text)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


#: (as written, as meant)
WRITTEN = st.one_of(
    st.tuples(DOTTED, DOTTED).map(lambda t: (f"{t[0]}@{t[1]}", ("", f"{t[0]}@{t[1]}"))),
    st.tuples(PHRASE, DOTTED, DOTTED).map(
        lambda t: (f"{t[0]} <{t[1]}@{t[2]}>", (t[0], f"{t[1]}@{t[2]}")),
    ),
    st.tuples(QUOTED, DOTTED, DOTTED).map(
        lambda t: (f"{quoted(t[0])} <{t[1]}@{t[2]}>", (t[0], f"{t[1]}@{t[2]}"))
    ),
    st.tuples(PHRASE, DOTTED, DOTTED).map(lambda t: (f"{t[1]}@{t[2]} ({t[0]})", (t[0], f"{t[1]}@{t[2]}"))),
)


class WellFormedTests(SynchronousTestCase):
    @given(st.lists(WRITTEN, max_size=5))
    def test_what_was_written_is_read(self, written: list[tuple[str, tuple[str, str]]]) -> None:
        text = ", ".join(each for each, _ in written)
        meant = [each for _, each in written]
        found = [
            ((entry.name or b"").decode(), f"{(entry.local or b'').decode()}@{(entry.host or b'').decode()}")
            for entry in parse(text.encode())
        ]
        self.assertEqual(found, meant)
        if text:
            self.assertEqual(getaddresses([text]), meant)
