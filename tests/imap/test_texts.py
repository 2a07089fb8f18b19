"""Texts joined are searched as each of them would be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap.texts import Block, folded, folded_words
from mailplat.message import headers

TEXTS = st.none() | st.text(st.sampled_from("aAß\n\0\ud800é中"), max_size=5).map(folded)
MESSAGES = st.dictionaries(st.integers(1, 2**32 - 1), TEXTS, max_size=8)


def block(messages: dict[int, bytes | None]) -> Block:
    uids = sorted(messages)
    return Block(uids, [messages[uid] for uid in uids])


class BlockTests(SynchronousTestCase):
    @given(MESSAGES, st.text(st.sampled_from("aß\n\ud800é中"), max_size=2).map(folded))
    def test_having(self, messages: dict[int, bytes | None], wanted: bytes) -> None:
        having = [uid for uid, text in sorted(messages.items()) if text is not None and wanted in text]
        self.assertEqual(list(block(messages).having(wanted)), having)
        self.assertEqual(list(block(messages).fitting(lambda text: wanted in text)), having)

    @given(MESSAGES, MESSAGES)
    def test_others_besides(self, some: dict[int, bytes | None], others: dict[int, bytes | None]) -> None:
        others = {uid: text for uid, text in others.items() if uid not in some}
        uids = sorted(others)
        both = block(some).joined_by(uids, [others[uid] for uid in uids])
        wanted = sorted({**some, **others}.items())
        self.assertEqual(list(zip(both.uids, both.texts(), strict=True)), wanted)

    def test_its_length_is_what_it_takes(self) -> None:
        self.assertGreater(len(Block([1, 2], [b"x" * 1000, None])), 1000)


VALUES = st.binary(max_size=20) | st.sampled_from(
    (b"=?utf-8?q?=C3=84?=", b"=?utf-7?q?+2AA-?=", b"=?", b"\xdc")
)


class FoldedTests(SynchronousTestCase):
    @given(st.lists(VALUES))
    def test_words(self, values: list[bytes]) -> None:
        texts = [text.decode("utf-8", "surrogatepass") for text in folded_words(values) if text is not None]
        self.assertEqual(texts, [headers.decode_words(value).casefold() for value in values])

    def test_none(self) -> None:
        self.assertEqual(folded_words([None, b"", None]), [None, b"", None])
