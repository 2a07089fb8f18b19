"""
Texts of many messages, to be searched together.

What is looked for in subjects is looked for in all of them: the texts of some hundred
neighbours are joined, and one scan says whether any of them has it.  They are joined as
UTF-8, in which no text holds the octets that part them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

from mailplat.message import headers

#: Makes a text of each of some envelopes, None where it has none.
TextsOf = Callable[[Sequence[bytes]], Sequence[bytes | None]]

#: UTF-8 has neither of them: what parts two texts, and what stands for none.
_BETWEEN = b"\xff"
_NONE = b"\xfe"


def folded(text: str) -> bytes:
    """A text without its case, so that of two one is part of the other if their octets are."""
    # Charsets such as UTF-7 can spell halves of characters.
    return text.casefold().encode("utf-8", "surrogatepass")


def folded_words(values: Iterable[bytes | None]) -> list[bytes | None]:
    """The texts of unstructured fields (`headers.decode_words`), folded; None where there is no field."""
    return [
        value
        and (value.lower() if value.isascii() and b"=?" not in value else folded(headers.decode_words(value)))
        for value in values
    ]


class Block:
    """
    The texts of some neighbours; its length is what it takes.

    Args:
        uids: ascending.
        texts: UTF-8; None where a message has none.

    Attributes:
        uids: as given.
    """

    __slots__ = ("_joined", "uids")

    def __init__(self, uids: Iterable[int], texts: Iterable[bytes | None]) -> None:
        self.uids = array("I", uids)
        self._joined = _BETWEEN.join([_NONE if text is None else text for text in texts])

    def __len__(self) -> int:
        return len(self._joined) + self.uids.itemsize * len(self.uids) + 200

    def texts(self) -> list[bytes | None]:
        """As they were given."""
        texts = self._joined.split(_BETWEEN) if self.uids else ()
        return [None if text == _NONE else text for text in texts]

    def having(self, wanted: bytes) -> Iterator[int]:
        """The UIDs of messages whose text contains this; the empty text is in every one."""
        if not wanted:
            yield from (uid for uid, text in zip(self.uids, self.texts(), strict=True) if text is not None)
            return
        joined = self._joined
        index = start = 0
        while (place := joined.find(wanted, start)) >= 0:
            index += joined.count(_BETWEEN, start, place)
            yield self.uids[index]
            index += 1
            start = joined.find(_BETWEEN, place) + 1
            if not start:
                break

    def fitting(self, test: Callable[[bytes], bool]) -> Iterator[int]:
        """The UIDs of messages with a text of which the test is true."""
        return (
            uid for uid, text in zip(self.uids, self.texts(), strict=True) if text is not None and test(text)
        )

    def joined_by(self, uids: Sequence[int], texts: Sequence[bytes | None]) -> Block:
        """One that has these messages besides."""
        if not self.uids or not uids or uids[0] > self.uids[-1]:
            return Block([*self.uids, *uids], [*self.texts(), *texts])
        both = sorted([*zip(self.uids, self.texts(), strict=True), *zip(uids, texts, strict=True)], key=_uid)
        return Block([uid for uid, _ in both], [text for _, text in both])


def _uid(one: tuple[int, bytes | None]) -> int:
    return one[0]
