"""Lines that are written into messages, and dates both ways."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.message import addresses
from mailplat.message.compose import (
    WIDTH,
    Date,
    InternalDates,
    delivered_to,
    folded,
    parse_date,
    path,
    protocol_name,
    received,
    return_path,
    rfc5322_date,
)
from mailplat.values import Address, TLSInfo

NOON = 1771928998  # Tue, 24 Feb 2026 10:29:58 UTC
TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")


def line(**changes: Any) -> str:
    """A Received field, unfolded."""
    return written(**changes).decode().replace("\r\n\t", " ")


def written(**changes: Any) -> bytes:
    settings: dict[str, Any] = {
        "hello": "client.test",
        "peer_host": "192.0.2.1",
        "hostname": "mx.test",
        "protocol": "ESMTP",
        "identifier": "abc",
        "date": NOON,
    }
    settings.update(changes)
    return received(**settings)


class ReceivedTests(SynchronousTestCase):
    """RFC 5321 §4.4."""

    def test_plain(self) -> None:
        self.assertEqual(
            line(),
            "Received: from client.test ([192.0.2.1]) by mx.test with ESMTP id abc;"
            " Tue, 24 Feb 2026 10:29:58 +0000\r\n",
        )

    def test_everything(self) -> None:
        self.assertEqual(
            line(peer_host="2001:db8::1", protocol="ESMTPSA", recipient=Address("a", "b.test"), tls=TLS),
            "Received: from client.test ([IPv6:2001:db8::1]) by mx.test with ESMTPSA (TLSv1.3"
            " TLS_AES_256_GCM_SHA384) id abc for <a@b.test>; Tue, 24 Feb 2026 10:29:58 +0000\r\n",
        )

    def test_a_unix_socket(self) -> None:
        self.assertIn("from client.test (local) by", line(peer_host=""))

    def test_hello(self) -> None:
        """What it says where that is a name or an address literal; else nothing of it."""
        for hello in ("client.test", "[192.0.2.1]", "[IPv6:2001:db8::1]", "bücher.test", "local_host"):
            self.assertIn(f"from {hello} (", line(hello=hello))
        for hello in ("", "a b", "a\r\nX: y", "a(b", "[1]\r\n", "a;b", "a\0", "\x85", "a\u2028b"):
            self.assertIn("from unknown (", line(hello=hello))

    def test_lines_are_short(self) -> None:
        for each in written(recipient=Address("a" * 40, "b.test"), tls=TLS).split(b"\r\n"):
            self.assertLessEqual(len(each), WIDTH)

    def test_others_read_it(self) -> None:
        field = written(recipient=Address("a b", "c.test"), tls=TLS)
        message = email.message_from_bytes(field + b"\r\n", policy=email.policy.SMTP)
        self.assertEqual(message.keys(), ["Received"])
        self.assertEqual(message.defects, [])
        stamp = str(message["Received"]).rpartition(";")[2]
        self.assertEqual(parsedate_to_datetime(stamp).timestamp(), NOON)

    TEXTS = st.text(max_size=30) | st.text('\r\n\t ()\\"<>;:@a\0', max_size=20)

    @given(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
    def test_nothing_breaks_out(
        self, hello: str, host: str, name: str, local: str, domain: str, cipher: str
    ) -> None:
        """One field, whatever it is made of."""
        field = written(
            hello=hello,
            peer_host=host,
            hostname=name,
            identifier=cipher,
            recipient=Address(local, domain),
            tls=TLSInfo("TLSv1.3", cipher),
        )
        self.check_one_field(field, b"Received")
        self.check_one_field(return_path(Address(local, domain)), b"Return-Path")
        self.check_one_field(delivered_to(Address(local, domain)), b"Delivered-To")

    def check_one_field(self, field: bytes, name: bytes) -> None:
        self.assertTrue(field.startswith(name + b": "))
        self.assertTrue(field.endswith(b"\r\n"))
        for each in field[:-2].split(b"\r\n")[1:]:
            self.assertTrue(each.startswith(b"\t"))
            self.assertTrue(each.strip())
        bare = field.replace(b"\r\n", b"")
        self.assertNotIn(b"\r", bare)
        self.assertNotIn(b"\n", bare)
        self.assertNotIn(b"\0", bare)


class ProtocolNameTests(SynchronousTestCase):
    def test_names(self) -> None:
        """RFC 3848, RFC 6531 §4.3."""
        for service, extended, tls, authenticated, utf8, expected in (
            ("smtp", False, False, False, False, "SMTP"),
            ("smtp", False, True, False, False, "SMTP"),
            ("smtp", True, False, False, False, "ESMTP"),
            ("smtp", True, True, False, False, "ESMTPS"),
            ("submission", True, False, True, False, "ESMTPA"),
            ("submission", True, True, True, False, "ESMTPSA"),
            ("submission", True, True, True, True, "UTF8SMTPSA"),
            ("smtp", True, False, False, True, "UTF8SMTP"),
            ("lmtp", True, False, False, False, "LMTP"),
            ("lmtp", True, True, True, False, "LMTPSA"),
            ("lmtp", True, False, False, True, "UTF8LMTP"),
        ):
            name = protocol_name(service, extended=extended, tls=tls, authenticated=authenticated, utf8=utf8)
            self.assertEqual(name, expected)


class PathTests(SynchronousTestCase):
    def test_paths(self) -> None:
        for address, expected in (
            (None, ""),
            (Address("a", "b.test"), "a@b.test"),
            (Address("a.b+c", "b.test"), "a.b+c@b.test"),
            (Address("a b", "b.test"), '"a b"@b.test'),
            (Address(".a", "b.test"), '".a"@b.test'),
            (Address("a.", "b.test"), '"a."@b.test'),
            (Address("a..b", "b.test"), '"a..b"@b.test'),
            (Address("", "b.test"), '""@b.test'),
            (Address('a"\\', "b.test"), '"a\\"\\\\"@b.test'),
            (Address("a@b", "b.test"), '"a@b"@b.test'),
            (Address("ä", "bücher.test"), "ä@bücher.test"),
            (Address("a", "[192.0.2.1]"), "a@[192.0.2.1]"),
            (Address("postmaster", ""), "postmaster"),
        ):
            self.assertEqual(path(address), expected)

    def test_fields(self) -> None:
        self.assertEqual(return_path(None), b"Return-Path: <>\r\n")
        self.assertEqual(return_path(Address("a", "b.test")), b"Return-Path: <a@b.test>\r\n")
        self.assertEqual(delivered_to(Address("ä", "b.test")), "Delivered-To: ä@b.test\r\n".encode())

    @given(st.text('ab."\\@<>() ,;:é', max_size=20))
    def test_what_was_quoted_is_read(self, local: str) -> None:
        [box] = addresses.parse(f"<{path(Address(local, 'b.test'))}>".encode())
        self.assertEqual((box.local, box.host), (local.encode(), b"b.test"))


class FoldedTests(SynchronousTestCase):
    def test_folded(self) -> None:
        self.assertEqual(folded("X", ["a", "b"]), b"X: a b\r\n")
        self.assertEqual(folded("X", []), b"X:\r\n")
        self.assertEqual(folded("X", ["a" * 100]), b"X: " + b"a" * 100 + b"\r\n")
        self.assertEqual(
            folded("X", ["a" * 74, "b" * 77, "c"]), b"X: %b\r\n\t%b\r\n\tc\r\n" % (b"a" * 74, b"b" * 77)
        )
        self.assertEqual(folded("X", ["\ud800"]), b"X: ?\r\n")

    @given(st.lists(st.text("ab", min_size=1, max_size=77), max_size=10))
    def test_lines_are_short(self, pieces: list[str]) -> None:
        field = folded("X-Test", pieces)
        for each in field.split(b"\r\n"):
            self.assertLessEqual(len(each), WIDTH + 7)
        self.assertEqual(
            field.replace(b"\r\n\t", b" "), b" ".join([b"X-Test:", *map(str.encode, pieces)]) + b"\r\n"
        )


INSTANTS = st.integers(-62135596800, 253402300799)


class WrittenDateTests(SynchronousTestCase):
    def test_rfc5322(self) -> None:
        self.assertEqual(rfc5322_date(0), "Thu, 1 Jan 1970 00:00:00 +0000")
        self.assertEqual(rfc5322_date(NOON), "Tue, 24 Feb 2026 10:29:58 +0000")
        self.assertEqual(rfc5322_date(10**30), "Fri, 31 Dec 9999 23:59:59 +0000")
        self.assertEqual(rfc5322_date(-(10**30)), "Mon, 1 Jan 0001 00:00:00 +0000")

    def test_internal_date(self) -> None:
        """RFC 3501 §9 date-time: the day takes two places."""
        dates = InternalDates()
        self.assertEqual(dates(0), b'" 1-Jan-1970 00:00:00 +0000"')
        self.assertEqual(dates(NOON), b'"24-Feb-2026 10:29:58 +0000"')
        self.assertEqual(dates(-1), b'"31-Dec-1969 23:59:59 +0000"')

    @given(INSTANTS)
    def test_internal_dates(self, seconds: int) -> None:
        dates = InternalDates()
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        expected = f'"{moment.day:2d}-{moment:%b}-{moment.year:04d} {moment:%H:%M:%S} +0000"'.encode()
        self.assertEqual(dates(seconds), expected)
        self.assertEqual(dates.many([seconds, seconds]), [expected] * 2)

    @given(st.lists(st.integers(-200_000, 200_000)))
    def test_many_internal_dates(self, instants: list[int]) -> None:
        dates = InternalDates()
        self.assertEqual(dates.many(instants), [dates(seconds) for seconds in instants])

    def test_days_are_forgotten(self) -> None:
        dates = InternalDates()
        dates.most = 10
        for day in range(100):
            dates(day * 86400)
            self.assertLessEqual(len(dates._days), 10)
        self.assertEqual(dates(0), b'" 1-Jan-1970 00:00:00 +0000"')


def at(
    year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0, zone: int = 0
) -> Date:
    """A date, with its zone in minutes."""
    moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone(timedelta(minutes=zone)))
    return Date(year, month, day, int(moment.timestamp()))


class ReadDateTests(SynchronousTestCase):
    """RFC 5322 §3.3, §4.3, and what mail brings."""

    def test_dates(self) -> None:
        day = at(2026, 2, 24, 10, 30, 0, 60)
        for raw, expected in (
            (b"Tue, 24 Feb 2026 10:30:00 +0100", day),
            (b"24 Feb 2026 10:30:00 +0100", day),
            (b"Tue, 24 Feb 2026 10:30 +0100", day),
            (b"tue,24 feb 2026 10:30:00 +01:00", day),
            (b"Tue, 24 February 2026 10:30:00 +0100 (CET)", day),
            (b"Tue (x), 24 (y) Feb 2026 (z) 10:30:00 +0100", day),
            (b"Fri, 24 Feb 2026 10:30:00 +0100", day),
            (b"Tue, 24-Feb-2026 10:30:00 +0100", day),
            (b"Tue, 24 Feb 26 10:30:00 +0100", day),
            (b"Tue, 24 Feb 126 10:30:00 +0100", day),
            (b"Tue, 24 Feb 2026 10.30.00 +0100", day),
            (b"Tue, 24 Feb 2026 10:30:00.123 +0100", day),
            (b"Tue,\t24\tFeb\t2026\t10:30:00\t+0100", day),
            (b"Tue, 24 Feb 2026 10:30:00+0100", day),
            (b"Mon, 1 Mar 1999 00:00:00 -0000", at(1999, 3, 1)),
            (b"Mon, 01 Mar 99 00:00:00 GMT", at(1999, 3, 1)),
            (b"1 Mar 49 00:00:00 UT", at(2049, 3, 1)),
            (b"1 Mar 50 00:00:00 Z", at(1950, 3, 1)),
            (b"24 Feb 2026 10:30:00 EST", at(2026, 2, 24, 10, 30, 0, -300)),
            (b"24 Feb 2026 10:30:00 pdt", at(2026, 2, 24, 10, 30, 0, -420)),
            # RFC 5322 §4.3: unknown zones are UTC.
            (b"24 Feb 2026 10:30:00 CET", at(2026, 2, 24, 10, 30)),
            (b"24 Feb 2026 10:30:00 A", at(2026, 2, 24, 10, 30)),
            (b"24 Feb 2026 10:30:00", at(2026, 2, 24, 10, 30)),
            (b"24 Feb 2026", at(2026, 2, 24)),
            # Not to be believed but for the day.
            (b"24 Feb 2026 25:30:00 +0100", at(2026, 2, 24)),
            (b"24 Feb 2026 10:30:00 +9900", at(2026, 2, 24)),
            (b"29 Feb 2024 00:00:00 +0000", at(2024, 2, 29)),
            # asctime, and what UNIX's date says.
            (b"Tue Feb 24 10:30:00 2026", at(2026, 2, 24, 10, 30)),
            (b"Tue Feb  4 10:30:00 CET 2026", at(2026, 2, 4, 10, 30)),
        ):
            with self.subTest(raw=raw):
                self.assertEqual(parse_date(raw), expected)

    def test_leap_second(self) -> None:
        found = parse_date(b"30 Jun 2015 23:59:60 +0000")
        self.assertEqual(found, Date(2015, 6, 30, at(2015, 7, 1).seconds))

    def test_no_dates(self) -> None:
        for raw in (
            b"",
            b"not a date",
            b"<HR>",
            b"32 Jan 2026 00:00:00",
            b"0 Jan 2026 00:00:00",
            b"29 Feb 2026 00:00:00",
            b"24 Foo 2026 00:00:00",
            b"24 Feb 0000 00:00:00",
            b"\xff\xfe",
            b" " * 300 + b"24 Feb 2026",
        ):
            self.assertIsNone(parse_date(raw), raw)

    @given(INSTANTS.filter(lambda seconds: seconds > -60000000000), st.integers(-1439, 1439))
    def test_what_was_written_is_read(self, seconds: int, zone: int) -> None:
        """By us, and by others."""
        self.assertEqual(getattr(parse_date(rfc5322_date(seconds).encode()), "seconds", None), seconds)
        try:
            moment = datetime.fromtimestamp(seconds, timezone(timedelta(minutes=zone)))
        except (ValueError, OverflowError):
            return
        found = parse_date(format_datetime(moment).encode())
        self.assertEqual(found, Date(moment.year, moment.month, moment.day, seconds))

    @given(st.binary(max_size=80) | st.text("0123456789 :+-,FebEST()", max_size=40).map(str.encode))
    def test_anything(self, raw: bytes) -> None:
        found = parse_date(raw)
        if found is not None:
            self.assertTrue(1 <= found.month <= 12 and 1 <= found.day <= 31 and found.year >= 1)
