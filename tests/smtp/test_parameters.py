"""What the parameters of MAIL and RCPT mean."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.smtp.grammar import MalformedParameter, encode_xtext, parse_mail, parse_rcpt
from mailplat.smtp.parameters import (
    MOST_ENVELOPE_ID,
    MOST_ORIGINAL,
    DeclaredTooLarge,
    Offered,
    UnknownParameter,
    requested,
    stated,
)
from mailplat.values import Address, Envelope, ReportRequest

NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
ALL = Offered(1000, login=True, reports=True, hold=3600, now=NOW)
PLAIN = Offered(1000)


def mail(text, offered=ALL):
    sender, parameters = parse_mail(f"FROM:<a@b.test> {text}")
    return stated(sender, parameters, offered)


def rcpt(text, offered=ALL):
    _, parameters = parse_rcpt(f"TO:<a@b.test> {text}")
    return requested(parameters, offered)


class MailTests(SynchronousTestCase):
    def test_all(self):
        envelope = mail("SIZE=1000 BODY=8bitmime SMTPUTF8 AUTH=<> RET=hdrs ENVID=a+2Bb HOLDFOR=60", ALL)
        self.assertEqual(
            envelope,
            Envelope(
                Address("a", "b.test"),
                body="8BITMIME",
                utf8=True,
                size=1000,
                returns="HDRS",
                envelope_id="a+b",
                release=NOW + 60,
            ),
        )

    def test_nothing(self):
        self.assertEqual(mail(""), Envelope(Address("a", "b.test")))

    def test_too_large(self):
        self.assertRaises(DeclaredTooLarge, mail, "SIZE=1001")

    def test_only_what_is_offered(self):
        for text in ("RET=FULL", "ENVID=x", "HOLDFOR=1", "HOLDUNTIL=2027-01-15T08:00:01Z", "AUTH=<>", "X=1"):
            self.assertRaises(UnknownParameter, mail, text, PLAIN)

    def test_malformed(self):
        for text in (
            "SIZE", "SIZE=x", "SIZE=-1", "BODY", "BODY=9BIT", "SMTPUTF8=1", "AUTH=x", "AUTH=+", "RET",
            "RET=SOME", "ENVID", "ENVID=+2", "ENVID=+00", "HOLDFOR", "HOLDFOR=x", "HOLDFOR=3601",
            "HOLDUNTIL=2027-01-15", "HOLDUNTIL=2027-01-15T08:00:00", "HOLDUNTIL=2027-13-15T08:00:00Z",
            "HOLDUNTIL=2027-01-15T09:00:01Z", "HOLDUNTIL=0001-01-01T00:00:00+23:00",
            "HOLDFOR=1 HOLDUNTIL=2027-01-15T08:00:01Z",
        ):  # fmt: skip
            self.assertRaises(MalformedParameter, mail, text)

    def test_limit_envelope_id(self):
        self.assertEqual(len(mail(f"ENVID={'x' * MOST_ENVELOPE_ID}").envelope_id), MOST_ENVELOPE_ID)
        self.assertRaises(MalformedParameter, mail, f"ENVID={'x' * (MOST_ENVELOPE_ID + 1)}")

    def test_hold_until(self):
        for text, release in [
            ("2027-01-15T08:00:01Z", NOW + 1),
            ("2027-01-15t09:30:00.5+01:00", NOW + 1800),
            ("2027-01-15T08:00:00Z", 0),
            ("1990-01-01T00:00:00Z", 0),
        ]:
            self.assertEqual(mail(f"HOLDUNTIL={text}").release, release)
        self.assertEqual(mail("HOLDFOR=0").release, 0)


class RecipientTests(SynchronousTestCase):
    def test_notify(self):
        for text, notify in [
            ("NOTIFY=NEVER", set()),
            ("NOTIFY=success,Failure,DELAY", {"SUCCESS", "FAILURE", "DELAY"}),
            ("NOTIFY=DELAY", {"DELAY"}),
        ]:
            self.assertEqual(rcpt(text), ReportRequest(frozenset(notify)))

    def test_original(self):
        for text, original in [
            ("ORCPT=rfc822;a+2Bb@c.test", "rfc822;a+b@c.test"),
            ("ORCPT=RFC822;x", "rfc822;x"),
            ("ORCPT=x400;/a+3Db", "x400;/a=b"),
            ("ORCPT=utf-8;\\x{FC}@c.test", "utf-8;ü@c.test"),
            ("ORCPT=utf-8;ü@c.test", "utf-8;ü@c.test"),
        ]:
            self.assertEqual(rcpt(text).original, original)
            self.assertIsNone(rcpt(text).notify)

    def test_malformed(self):
        for text in (
            "NOTIFY", "NOTIFY=X", "NOTIFY=NEVER,DELAY", "NOTIFY=,", "ORCPT", "ORCPT=x", "ORCPT=;x",
            "ORCPT=rfc822;", "ORCPT=rfc822;+0A", "ORCPT=r_f;x", "ORCPT=rfc822;+e4", "ORCPT=rfc822;+E4",
            "ORCPT=utf-8;\\x{D800}", "ORCPT=utf-8;\\x{110000}", "ORCPT=utf-8;\\x{A}",
        ):  # fmt: skip
            self.assertRaises(MalformedParameter, rcpt, text)

    def test_limit_original(self):
        text = "rfc822;" + "x" * (MOST_ORIGINAL - 7)
        self.assertEqual(rcpt(f"ORCPT={text}").original, text)
        self.assertRaises(MalformedParameter, rcpt, f"ORCPT={text}x")

    def test_only_what_is_offered(self):
        for text in ("NOTIFY=NEVER", "ORCPT=rfc822;x"):
            self.assertRaises(UnknownParameter, rcpt, text, PLAIN)
        self.assertRaises(UnknownParameter, rcpt, "X")

    @given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=100))
    def test_what_xtext_can_say(self, text):
        self.assertEqual(rcpt(f"ORCPT=rfc822;{encode_xtext(text.encode())}").original, f"rfc822;{text}")
