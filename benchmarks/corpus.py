"""
Sample mail from a seed: the same messages for every server and every run.

Headers have encoded names, threads and trace fields; bodies are prose, text beside HTML,
or an attachment in base64.  Every 20th message has `SUBJECT_WORD` in its subject (now
and then in an encoded word), every 100th `BODY_WORD` in its text.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from itertools import cycle, islice
from pathlib import Path

SUBJECT_WORD = "quarterly"
SUBJECT_EVERY = 20
BODY_WORD = "xylophone"
BODY_EVERY = 100

#: Kind of message -> (octets, about; None for a natural mix around 3.5 KB), how many different ones.
KINDS = {
    "mix": (None, 1000),
    "2k": (2048, 200),
    "10k": (10_240, 200),
    "50k": (50_000, 60),
    "1m": (1_000_000, 4),
}

WORDS = """
account agenda answer archive article balance batch before board branch bridge budget build bundle
calendar carry change chapter check cloud column common contract country course credit current data
decide deliver demand design detail draft early effect engine entry event example expect factory
figure final finance first folder follow forward frame garden general global group harbor health
history image import index inform invoice island issue journal kitchen language large letter level
light limit local machine manage market matter meeting memory method middle minute model moment
morning motion music nature network normal notice number office option orange order outline owner
page paper partner people permit person picture place planet point policy present price private
problem process profile program project public quality question quick range reason record region
release report result review river route sample scale school screen season section service session
share signal simple source space spring square station stone stream street studio summer supply
surface system table target theory ticket today topic track travel trust update value vendor
version village voice volume water weather week window winter wonder worker yellow zone
"""
FIRST_NAMES = "Ada Bram Cora Dario Edda Emil Femke Gert Hana Ivo Jana Kaito Lena Nora Petra Sven Uwe Yara"
LAST_NAMES = "Müller Sørensen Dvořák García Łukasz Nguyễn Petrović Smith Baker Rossi Tanaka Novák"
EPOCH = datetime(2024, 1, 1, 8, tzinfo=UTC)


@cache
def messages(kind: str) -> Sequence[bytes]:
    """All different messages of a kind."""
    size, count = KINDS[kind]
    writer = _Writer(seed=11)
    return [writer.message(size) for _ in range(count)]


def stream(kind: str, count: int) -> Sequence[bytes]:
    """`count` messages: those of the kind, over and over."""
    return list(islice(cycle(messages(kind)), count))


def holders(every: int, kind: str, count: int) -> int:
    """How many of a stream of `count` messages have the word that every so many messages have."""
    return sum(number % KINDS[kind][1] % every == 0 for number in range(count))


def write_mbox(path: Path, count: int) -> None:
    """A file in mbox format, as imaptest wants it."""
    with open(path, "wb") as file:
        for message in stream("mix", count):
            file.write(b"From bench@bench.example Mon Jan  1 08:00:00 2024\r\n")
            file.write(message.replace(b"\r\nFrom ", b"\r\n>From ") + b"\r\n")


class _Writer:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.words, self.first_names, self.last_names = map(str.split, (WORDS, FIRST_NAMES, LAST_NAMES))
        self.threads: list[list[str]] = []
        self.written = 0

    def message(self, size: int | None) -> bytes:
        """The next message, of about `size` octets."""
        number = self.written
        self.written += 1
        if size is None:
            # Log normal: a median of 3.3 KB and a tail to 150 KB, as mailboxes have it.
            size = int(min(max(self.random.lognormvariate(8.1, 0.9), 600), 150_000))
            kind = self.random.choice(("text", "alternative"))
        else:
            kind = "attachment" if size > 20_000 else "text"
        header = self._header(number)
        room = max(size - sum(map(len, header)) - 2 * len(header) - 120, 60)
        text = BODY_WORD + "\r\n" if number % BODY_EVERY == 0 else ""
        lines = [*header, *getattr(self, f"_{kind}")(number, room, text)]
        return "\r\n".join(lines).encode()

    def _header(self, number: int) -> list[str]:
        date = format_datetime(EPOCH + timedelta(seconds=613 * number))
        identifier = f"<{number}.{self.random.getrandbits(32):08x}@bench.example>"
        references: list[str] = []
        if self.threads and self.random.random() < 0.45:
            references = self.random.choice(self.threads[-200:])
        self.threads.append([*references[-8:], identifier])
        subject = " ".join(self.random.choices(self.words, k=self.random.randrange(2, 8)))
        if number % SUBJECT_EVERY == 0:
            subject += " " + SUBJECT_WORD
        if self.random.random() < 0.15:
            subject += " – Übersicht"
        to = ", ".join(self._person() for _ in range(self.random.choice((1, 1, 1, 2, 4))))
        header = [
            f"Return-Path: <bounce-{number}@list.example>",
            f"Received: from mx.example (mx.example [192.0.2.{number % 255}])\r\n\tby in.bench.example"
            f" with ESMTPS id {self.random.getrandbits(48):012x}\r\n\tfor <user@bench.example>; {date}",
            f"Message-ID: {identifier}",
            f"Date: {date}",
            f"From: {self._person()}",
            f"To: {to}",
            f"Subject: {_encoded('Re: ' + subject if references else subject)}",
        ]
        if self.random.random() < 0.2:
            header.append(f"Cc: {self._person()}")
        if references:
            header += [f"In-Reply-To: {references[-1]}", "References: " + "\r\n ".join(references[-8:])]
        return [*header, "MIME-Version: 1.0"]

    def _person(self) -> str:
        first, last = self.random.choice(self.first_names), self.random.choice(self.last_names)
        return f"{_encoded(f'{first} {last}')} <{first.lower()}.{self.random.randrange(500)}@mail.example>"

    def _prose(self, octets: float) -> str:
        lines, size = [], 0
        while size < octets:
            lines.append(" ".join(self.random.choices(self.words, k=10)))
            size += len(lines[-1]) + 2
        return "\r\n".join(lines) + "\r\n"

    def _text(self, number: int, room: int, text: str) -> list[str]:
        return [
            "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "",
            self._prose(room) + text,
        ]  # fmt: skip

    def _alternative(self, number: int, room: int, text: str) -> list[str]:
        html = self._prose(room * 0.5).replace("\r\n", "<br>\r\n")
        return [
            f'Content-Type: multipart/alternative;\r\n boundary="alt{number}"', "",
            f"--alt{number}", *self._text(number, room * 4 // 10, text),
            f"--alt{number}", "Content-Type: text/html; charset=utf-8", "",
            f"<html><body><p>{html}</p></body></html>", f"--alt{number}--", "",
        ]  # fmt: skip

    def _attachment(self, number: int, room: int, text: str) -> list[str]:
        data = base64.b64encode(self.random.randbytes((room - 2000) * 57 // 78)).decode()
        return [
            f'Content-Type: multipart/mixed;\r\n boundary="mix{number}"', "",
            f"--mix{number}", *self._text(number, 1500, text),
            f"--mix{number}", f'Content-Type: application/octet-stream;\r\n name="f{number}.bin"',
            f'Content-Disposition: attachment;\r\n filename="f{number}.bin"',
            "Content-Transfer-Encoding: base64", "",
            *(data[i : i + 76] for i in range(0, len(data), 76)), f"--mix{number}--", "",
        ]  # fmt: skip


def _encoded(text: str) -> str:
    """As it stands in a header field (RFC 2047)."""
    return text if text.isascii() else f"=?utf-8?B?{base64.b64encode(text.encode()).decode()}?="
