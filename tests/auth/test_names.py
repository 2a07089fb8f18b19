"""Canonical names."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.auth.names import Names, canonical_domain, canonical_local, cut_detail
from mailplat.errors import InvalidName


class Canonical(SynchronousTestCase):
    def test_cases(self) -> None:
        names = Names()
        for local, domain, canonical in (
            ("Alice", "Example.TEST", "alice@example.test"),
            ("alice", "example.test.", "alice@example.test"),
            ("A\u030alborg", "example.test", "ålborg@example.test"),
            ("o'brien+lists", "a-b.example", "o'brien+lists@a-b.example"),
            ("jürgen", "Bücher.example", "jürgen@xn--bcher-kva.example"),
            ("a", "faß.example", "a@xn--fa-hia.example"),
            ("a", "XN--FA-HIA.example", "a@xn--fa-hia.example"),
            ("postmaster", "localhost", "postmaster@localhost"),
        ):
            self.assertEqual(names.canonical(local, domain), canonical)

    def test_refused_locals(self) -> None:
        for local in (
            "",
            ".",
            "..",
            ".a",
            "a.",
            "a..b",
            "a/b",
            "a\\b",
            "a b",
            "a\0b",
            "a\nb",
            "a:b",
            'a"b',
            "a@b",
            "(a)",
            "<a>",
            "a\u00a0b",
            "a\u200bb",
            "a\ud800b",
            "a\u202eb",
            "a" * 65,
            "é" * 33,
        ):
            self.assertRaises(InvalidName, canonical_local, local)

    def test_refused_domains(self) -> None:
        for domain in (
            "",
            ".",
            "a..b",
            "-a.example",
            "a-.example",
            "[127.0.0.1]",
            "a b",
            "a/b",
            "..",
            "a\0b",
            "a" * 64 + ".example",
            "a." * 128 + "b",
            "\u200b.example",
            "ex ample",
            "\ud800.example",
        ):
            self.assertRaises(InvalidName, canonical_domain, domain)

    def test_domains_are_checked(self) -> None:
        self.assertRaises(InvalidName, Names, ["not a domain"])
        self.assertEqual(Names(["B.test", "a.test", "b.test"]).domains, ("b.test", "a.test"))

    def test_is_ours(self) -> None:
        names = Names(["bücher.example"])
        for domain in ("bücher.example", "BÜCHER.example", "xn--bcher-kva.example.", "XN--BCHER-KVA.EXAMPLE"):
            self.assertTrue(names.is_ours(domain))
        for domain in ("example", "a.bücher.example", "[::1]", ""):
            self.assertFalse(names.is_ours(domain))

    @given(st.text(), st.text())
    @example("İ", "example.test")
    @example("ǅ", "ß.example")
    @example("a", "1\u3002\u09ae")
    def test_twice_is_once_and_never_a_path(self, local: str, domain: str) -> None:
        try:
            name = Names().canonical(local, domain)
        except InvalidName:
            return
        self.assertEqual(Names().login_name(name), name)
        self.assertNotRegex(name, r"[/\\\0\s]")
        self.assertNotIn(name, (".", ".."))


class Login(SynchronousTestCase):
    def test_one_domain(self) -> None:
        names = Names(["example.test"])
        for text in ("Alice", "alice@EXAMPLE.test", b"alice", b"alice@example.test"):
            self.assertEqual(names.login_name(text), "alice@example.test")
        self.assertEqual(names.login_name("alice@other.test"), "alice@other.test")

    def test_several_domains(self) -> None:
        names = Names(["a.test", "b.test"])
        self.assertIsNone(names.login_name("alice"))
        self.assertEqual(names.login_name("alice@b.test"), "alice@b.test")

    def test_nobody(self) -> None:
        names = Names(["example.test"])
        for text in ("", "@", "@example.test", "alice@", "a b", b"\xff", "a@b@example.test", "alice@[::1]"):
            self.assertIsNone(names.login_name(text))


class Detail(SynchronousTestCase):
    def test_cut(self) -> None:
        for local, user, detail in (
            ("alice", "alice", ""),
            ("alice+lists", "alice", "lists"),
            ("alice+a+b", "alice", "a+b"),
            ("alice+", "alice", ""),
            ("+alice", "+alice", ""),
            ("+", "+", ""),
            ("", "", ""),
        ):
            self.assertEqual(cut_detail(local), (user, detail))
        self.assertEqual(cut_detail("alice-lists", "-"), ("alice", "lists"))
