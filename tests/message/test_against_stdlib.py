"""
Our reading beside that of Python's own email package, wherever both should be right.

Where they differ on a message of the corpus, the table says why.
"""

from __future__ import annotations

import email
from email.message import Message

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.message.headers import decode_words, fields, parameter_texts, parse_parameters
from mailplat.message.outline import Outline, Part
from mailplat.message.structure import Scanner
from mailplat.testing import corpus
from tests.message import trees

#: Messages of the corpus on which the two do not agree.
OTHERWISE = {
    "no-boundary": "to email it stays a multipart; RFC 2046 §5.1.1 makes it text for us",
    "deep": "we stop at a depth, and email does not",
    "many-parts": "we stop at a number of parts, and email does not",
    "unfinished": "its last line is no field: email takes it for text, we for a header that was cut off",
}


def outline_of(message: bytes) -> Outline:
    scanner = Scanner()
    scanner.feed(message)
    return scanner.finish()


class TreeTests(SynchronousTestCase):
    def compare(self, octets: bytes, part: Part, message: Message) -> None:
        header = octets[part.header_start : part.body_start]
        theirs_raw = [(name.lower().encode(), self.raw(value)) for name, value in message.raw_items()]
        self.assertEqual([(name, b" ".join(value.split())) for name, value in fields(header)], theirs_raw)
        kind = f"{part.type}/{part.subtype}"
        self.assertEqual(kind, message.get_content_type())
        if part.message is not None:
            [inner] = message.get_payload()
            self.compare(octets, part.message, inner)
        elif part.children:
            children = message.get_payload()
            self.assertEqual(len(part.children), len(children))
            for ours, theirs in zip(part.children, children, strict=True):
                self.compare(octets, ours, theirs)
        else:
            # As it stands: without this field nothing is decoded.
            del message["Content-Transfer-Encoding"]
            body = octets[part.body_start : part.body_end]
            self.assertEqual(body, message.get_payload(decode=True))
        charset = message.get_content_charset()
        if part.charset not in ("", "us-ascii"):
            self.assertEqual(part.charset, charset)

    @staticmethod
    def raw(value: str) -> bytes:
        return b" ".join(value.encode("utf-8", "surrogateescape").split())

    @given(trees.TREES)
    def test_trees(self, tree: trees.Node) -> None:
        octets = trees.write(tree).octets
        self.compare(octets, outline_of(octets).root, email.message_from_bytes(octets))

    def test_corpus(self) -> None:
        for name in corpus.NAMES:
            octets = corpus.message(name)
            with self.subTest(name=name):
                ours, theirs = outline_of(octets).root, email.message_from_bytes(octets)
                if name in OTHERWISE:
                    with self.assertRaises(self.failureException):
                        self.compare(octets, ours, theirs)
                else:
                    self.compare(octets, ours, theirs)


TOKEN = st.text("abcXYZ019-_.", min_size=1, max_size=10)
VALUE = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), min_size=1, max_size=20
)


class ParameterTests(SynchronousTestCase):
    @given(st.dictionaries(TOKEN.map(str.lower), VALUE, max_size=4))
    def test_parameters(self, parameters: dict[str, str]) -> None:
        """What email writes, RFC 2231 and all, is what was meant."""
        message = Message()
        message.add_header("Content-Type", "text/plain")
        for name, value in parameters.items():
            message.set_param(name, value if value.isascii() else ("utf-8", "", value))
        raw = str(message["Content-Type"]).encode()
        head, found = parse_parameters(raw)
        self.assertEqual(head, b"text/plain")
        self.assertEqual(
            {name: text.strip() for name, text in parameter_texts(found).items()},
            {name: value.strip() for name, value in parameters.items()},
        )


class WordTests(SynchronousTestCase):
    @given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=30))
    def test_subjects(self, text: str) -> None:
        message = email.message.EmailMessage()
        message["Subject"] = text
        octets = message.as_bytes()
        [(name, value)] = [field for field in fields(octets) if field[0] == b"subject"]
        self.assertEqual(decode_words(value), text)
