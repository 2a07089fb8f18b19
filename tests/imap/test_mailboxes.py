"""LIST's patterns, APPEND's line ends, and a mailbox list that is long."""

from __future__ import annotations

import re
from time import thread_time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap.mailboxes import NAMES, Pattern, with_line_ends
from tests.imap.support import Server, now


def naive(pattern: str, name: str) -> bool:
    """RFC 3501 §6.3.8 as a regular expression."""
    words = {"*": ".*", "%": "[^/]*"}
    return re.fullmatch("".join(words.get(c, re.escape(c)) for c in pattern), name, re.DOTALL) is not None


class PatternTests(SynchronousTestCase):
    @given(st.text("ab/*%", max_size=12), st.text("ab/", max_size=12))
    def test_as_a_regular_expression_would(self, pattern: str, name: str) -> None:
        self.assertEqual(Pattern(pattern).matches(name), naive(pattern, name))

    def test_inbox_in_any_case(self) -> None:
        for pattern in ("inbox", "InBox", "INBOX", "*inbox", "in*", "%"):
            self.assertEqual(Pattern(pattern).matches("INBOX"), pattern != "in*", pattern)
        self.assertFalse(Pattern("work").matches("Work"))

    def test_quick_whatever_the_pattern(self) -> None:
        name = "a" * 200
        for pattern in ("*a" * 30_000, "%a" * 30_000, "*%" * 30_000, "*a%" * 199 + "b", "%" * 60_000 + "b"):
            compiled = Pattern(pattern)
            started = thread_time()
            for _ in range(20):
                compiled.matches(name)
            self.assertLess(thread_time() - started, 2, pattern[:10])


class ListTests(SynchronousTestCase):
    def test_many_names_are_told_as_the_client_takes_them(self) -> None:
        server = Server()
        for number in range(3 * NAMES):
            now(server.account.create(f"mailbox{number:05}"))
        client = server.client("")
        first = client.send(b'a NOOP\r\nb LIST "" mailbox*\r\n')
        self.assertEqual(len(first), 3 * NAMES + 2)
        self.assertLess(client.wire.most_undrained, 100 * NAMES)
        client.wire.choke()
        client.wire.send(b'a LIST "" mailbox*\r\n')
        rest = client.wire.choke(False)
        self.assertIn(b"mailbox01499", rest)
        self.assertTrue(rest.endswith(b"a OK Completed\r\n"))


class LineEndTests(SynchronousTestCase):
    def test_bare_ones_become_crlf(self) -> None:
        for before, after in (
            (b"", b""),
            (b"a\r\nb\r\n", b"a\r\nb\r\n"),
            (b"a\nb\rc\r\n\n\r\nd\r\rx", b"a\r\nb\r\nc\r\n\r\n\r\nd\r\n\r\nx"),
        ):
            self.assertEqual(with_line_ends(before), after)

    @given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a"])).map(b"".join), st.integers(1, 5))
    def test_however_the_message_is_cut(self, body: bytes, step: int) -> None:
        server = Server()
        client = server.client("")
        client.send(b"a APPEND INBOX {%d+}\r\n" % len(body))
        for start in range(0, len(body), step):
            client.send(body[start : start + step])
        self.assertTrue(client.send(b"\r\n")[0].startswith("a OK"))
        content = now(server.inbox.content(1))
        self.assertEqual(now(content.read(0, 1000)), re.sub(rb"\r\n|\r|\n", b"\r\n", body))
