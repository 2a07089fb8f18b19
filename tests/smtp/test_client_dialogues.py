"""The conversations of tests/dialogues/smtp_client: the files play the server, our client is tried."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailplat import errors
from mailplat.smtp.client import ClientSettings, Login, SMTPClient, connect
from mailplat.smtp.grammar import parse_mailbox
from mailplat.testing.fakes import InstantReactor, MemoryMessage, outline_of, server_tls
from mailplat.testing.wire import Dialogue, add_dialogues
from mailplat.trust import Trust
from mailplat.values import NO_REQUEST, Envelope, TLSRequirement

MESSAGE = "Subject: t\\r\\n\\r\\nhello\\r\\n"
ESCAPES = {"\\r": "\r", "\\n": "\n", "\\\\": "\\"}


def unescaped(text: str) -> bytes:
    return re.sub(r"\\[rn\\]", lambda found: ESCAPES[found.group()], text).encode()


@add_dialogues(Path(__file__).parent.parent / "dialogues" / "smtp_client")
class Dialogues(SynchronousTestCase):
    """
    Directives:

        @ settings WORD...           lmtp, implicit, tls=LEVEL, login=USER:PASSWORD, or LIMIT=NUMBER
        @ connect                    the client connects
        @ connected                  ... and is ready to send
        @ failed ERROR REGEX         ... or has failed with this error, with this text
        @ message TEXT               what is sent from here on, with \\r and \\n for line breaks
        @ repeated TEXT COUNT        the message is TEXT, so many times
        @ on_disk                    ... and is not in memory from here on
        @ envelope KEY=VALUE...      body, returns, envelope_id or utf8, from here on
        @ request TO NOTIFY ORIGINAL what the sender wants to hear about TO; "-" if it did not say
        @ send FROM TO...            a message is handed in; FROM is "-" for the null path
        @ outcome TO WHAT [REGEX]    delivered, relayed, passed_on or the error's name, and the reply
        @ unsent REGEX               the message was not tried: HostUnreachable
        @ usable WORD                yes or no
        @ quit                       the client is told to quit
    """

    tls: Any = None

    async def play(self, path: Path) -> None:
        if self.tls is None:
            type(self).tls = server_tls()
        clock = InstantReactor()
        settings = ClientSettings("client.test")
        connecting: list[Result] = []
        sent: list[Result] = []
        body = unescaped(MESSAGE)
        hidden = False
        shape = Envelope(None)

        def on_disk() -> None:
            nonlocal hidden
            hidden = True

        def set_up(*words: str) -> None:
            nonlocal settings
            for word in words:
                key, _, value = word.partition("=")
                if key in ("lmtp", "implicit"):
                    settings = replace(settings, **{"lmtp" if key == "lmtp" else "implicit_tls": True})
                elif key == "tls":
                    settings = replace(settings, requirement=TLSRequirement(value))
                elif key == "login":
                    settings = replace(settings, login=Login(*value.split(":")))
                else:
                    settings = replace(settings, limits=replace(settings.limits, **{key: int(value)}))

        def dial() -> None:
            made = connect(dialogue.endpoint, "mx.test", settings, clock, Trust())
            connecting.append(Result(Deferred.fromCoroutine(made)))

        def client() -> SMTPClient:
            found: SMTPClient = connecting[-1].success()
            return found

        def failed(error: str, text: str = ".*") -> None:
            failure = connecting[-1].failure()
            self.assertEqual(type(failure).__name__, error, failure)
            self.assertRegex(failure.text, f"^(?:{text})$")

        def message(text: str) -> None:
            nonlocal body
            body = unescaped(text)

        def repeated(text: str, count: str) -> None:
            nonlocal body
            body = unescaped(text) * int(count)

        def envelope(*words: str) -> None:
            nonlocal shape
            pairs = (word.partition("=") for word in words)
            shape = replace(shape, **{key: value if equals else True for key, equals, value in pairs})

        def request(to: str, notify: str, original: str = "") -> None:
            nonlocal shape
            told = None if notify == "-" else frozenset(filter(None, notify.replace("NEVER", "").split(",")))
            made = replace(NO_REQUEST, notify=told, original=original)
            shape = replace(shape, requests={**shape.requests, parse_mailbox(to): made})

        def send(sender: str, *recipients: str) -> None:
            to = tuple(map(parse_mailbox, recipients))
            made = replace(shape, sender=None if sender == "-" else parse_mailbox(sender), recipients=to)
            sent.append(Result(client().send(made, MemoryMessage(body, outline_of(body), hidden), b"", to)))

        def outcome(to: str, what: str, text: str = ".*") -> None:
            outcomes = sent[-1].success()
            [found] = [each for each in outcomes if str(each.recipient) == to]
            if what in ("delivered", "relayed", "passed_on"):
                self.assertIsNone(found.error)
                self.assertEqual((found.relayed, found.passed_on), (what == "relayed", what == "passed_on"))
                self.assertRegex(found.reply, f"^(?:{text})$")
            else:
                self.assertEqual(type(found.error).__name__, what, found)
                self.assertRegex(found.error.text, f"^(?:{text})$")
            self.assertEqual(found.host, "mx.test")

        def unsent(text: str = ".*") -> None:
            failure = sent[-1].failure()
            self.assertIsInstance(failure, errors.HostUnreachable)
            self.assertRegex(failure.text, f"^(?:{text})$")

        def usable(word: str) -> None:
            self.assertIs(client().usable, word == "yes")

        directives: dict[str, Callable[..., object]] = {
            "settings": set_up,
            "connect": dial,
            "connected": lambda: self.assertTrue(client().usable) and None,
            "failed": failed,
            "message": message,
            "on_disk": on_disk,
            "repeated": repeated,
            "envelope": envelope,
            "request": request,
            "send": send,
            "outcome": outcome,
            "unsent": unsent,
            "usable": usable,
            "quit": lambda: client().quit() and None,
        }
        dialogue = Dialogue(path, None, clock, directives=directives, client=True, server_tls=self.tls)
        await dialogue.run()
        # The dialogue has cut all connections: nobody waits any more, and nothing is left to be done.
        self.assertEqual([each for each in connecting + sent if each.found is None], [])
        self.assertEqual(clock.getDelayedCalls(), [])


class Result:
    """
    What a Deferred came to.

    Attributes:
        found: None while it has not; a Failure, or what it fired with.
    """

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.found: Any = None
        deferred.addBoth(self._come)

    def _come(self, result: object) -> None:
        self.found = result

    def success(self) -> Any:
        assert self.found is not None, "it has not come yet"
        if isinstance(self.found, Failure):
            self.found.raiseException()
        return self.found

    def failure(self) -> Any:
        assert isinstance(self.found, Failure), f"it has not failed: {self.found}"
        return self.found.value
