"""What programs hand to sendmail."""

from __future__ import annotations

import email
from email.headerregistry import Address as StandardAddress
from email.policy import default

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.message.addresses import parse
from mailplat.message.draft import Draft, addresses, from_field
from mailplat.message.headers import decode_words, unfolded
from mailplat.values import Address


class DraftTests(SynchronousTestCase):
    def test_line_ends(self):
        wanted = b"Subject: x\r\n\r\none\r\ntwo\r\n"
        for end in (b"\n", b"\r\n", b"\r"):
            self.assertEqual(Draft.read(wanted.replace(b"\r\n", end)).text, wanted)
        self.assertEqual(Draft.read(wanted[:-2]).text, wanted)

    def test_text_without_a_header(self):
        for text, wanted in [
            (b"", b"\r\n"),
            (b"Hello\n", b"\r\nHello\r\n"),
            (b"\nHello\n", b"\r\nHello\r\n"),
            (b" Subject: no\n", b"\r\n Subject: no\r\n"),
            (b"Subject: x\nno field\n", b"Subject: x\r\n\r\nno field\r\n"),
            (b"Subject: x\n", b"Subject: x\r\n\r\n"),
            (b"From root Thu Nov 26 16:47:37 2026\nSubject: x\n\ny\n", b"Subject: x\r\n\r\ny\r\n"),
        ]:
            self.assertEqual(Draft.read(text).text, wanted, text)

    def test_blind_copies_are_not_seen(self):
        draft = Draft.read(
            b"To: a@x.test,\n\tb@x.test\nBCC : c@x.test,\n d@x.test\nReturn-Path: <e@x.test>\n"
            b"Subject: x\n\nBcc: body\n"
        )
        self.assertEqual(draft.text, b"To: a@x.test,\r\n\tb@x.test\r\nSubject: x\r\n\r\nBcc: body\r\n")
        self.assertEqual([one.local for one in draft.recipients], ["a", "b", "c", "d"])
        self.assertEqual(draft.names, {b"to", b"subject"})

    def test_resent_messages_go_to_whom_they_are_resent(self):
        draft = Draft.read(b"Resent-To: r@x.test\nResent-Bcc: s@x.test\nTo: a@x.test\nBcc: b@x.test\n\n")
        self.assertEqual([one.local for one in draft.recipients], ["r", "s"])
        self.assertEqual(draft.text, b"Resent-To: r@x.test\r\nTo: a@x.test\r\n\r\n")

    def test_a_dot_alone(self):
        for text, wanted in [
            (b"A: b\n\nc\n.\nd\n", b"A: b\r\n\r\nc\r\n"),
            (b"A: b\n\n.\nd\n", b"A: b\r\n\r\n"),
            (b"A: b\n\nc\n.", b"A: b\r\n\r\nc\r\n"),
            (b".\nd\n", b"\r\n"),
            (b"A: b\n\n..\n.d\n", b"A: b\r\n\r\n..\r\n.d\r\n"),
        ]:
            self.assertEqual(Draft.read(text, dot=True).text, wanted, text)
            whole = Draft.read(text).text
            self.assertEqual(whole.count(b"\r\n."), (b"\n" + text).count(b"\n."), text)

    def test_addresses(self):
        found = addresses([b'"a b"@X.test, bob, Joe <joe@x.test>', b"team: a@b.test, joe@x.test;", b"<>"])
        self.assertEqual(
            found,
            (Address("a b", "x.test"), Address("bob", ""), Address("joe", "x.test"), Address("a", "b.test")),
        )

    def test_utf8(self):
        self.assertTrue(Draft.read("Subject: ü\n\nx\n".encode()).utf8)
        self.assertFalse(Draft.read("Subject: u\n\nü\n".encode()).utf8)

    @given(st.text(max_size=80))
    def test_any_name(self, name):
        field = from_field(name, "a@x.test")
        self.assertTrue(field.endswith(b"\r\n"))
        self.assertTrue(field.isascii())
        self.assertNotIn(b"\n\r", field)
        for line in field.split(b"\r\n")[1:-1]:
            self.assertTrue(line.startswith(b" =?"))
        parsed = email.message_from_bytes(field + b"\r\n", policy=default)["From"]
        self.assertEqual([one.addr_spec for one in parsed.addresses], ["a@x.test"])

    def test_names(self):
        for name in ("", "Joe", "Joe Public", "Public, Joe", 'Joe "J" Public', "Jürgen"):
            parsed = email.message_from_bytes(from_field(name, "a@x.test"), policy=default)["From"]
            self.assertEqual(parsed.addresses, (StandardAddress(name, "a", "x.test"),))
        name = "Jürgen Müller \U0001f600" * 4
        (mailbox,) = parse(unfolded(from_field(name, "a@x.test")).partition(b":")[2].strip())
        self.assertEqual(decode_words(mailbox.name), name)

    @given(st.binary(max_size=200), st.booleans())
    def test_anything_is_a_message(self, text, dot):
        draft = Draft.read(text, dot)
        self.assertIn(b"\r\n", draft.text)
        self.assertNotIn(b"\n", draft.text.replace(b"\r\n", b""))
        self.assertNotIn(b"\r", draft.text.replace(b"\r\n", b""))
        again = Draft.read(draft.text)
        if not draft.text.startswith((b"From ", b">From ")):
            self.assertEqual(again.text, draft.text)
