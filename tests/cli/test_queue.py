"""
`mailplat queue`: in this process over a queue in memory; beside a server in `test_queue_live`.
"""

from __future__ import annotations

import json
import os
import tempfile
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailplat.cli import queue as command
from mailplat.cli import queue_text
from mailplat.cli.directory import Directory
from mailplat.datadir import DataDirectory
from mailplat.delivery.queue import Schedule
from mailplat.interfaces import NewItem
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import MemoryMessage
from mailplat.values import (
    LOCAL,
    NEVER,
    RELAY,
    Address,
    Envelope,
    QueuedRecipient,
    ReportRequest,
    Target,
)
from tests.cli.test_main import CommandTestCase, Terminal

NOW = 1_800_000_000

BODY = b"Subject: Hello\r\nX-Bad: \x1b[2J\xff\r\n\r\nWorld\r\n"


def to(text, **words):
    local, _, domain = text.rpartition("@")
    words.setdefault("due", NOW + 600)
    words.setdefault("notice", NOW + 9000)
    agent, place = words.pop("agent", RELAY), words.pop("place", domain)
    return Target(agent, place, Address(local, domain)), words


class QueueCase(CommandTestCase):
    def setUp(self):
        super().setUp()
        DataDirectory(self.data).prepare()
        self.store = MemoryStore(Clock().seconds)
        self.queue = self.store.queue
        self.result(self.store.start())
        self.patch(Directory, "with_queue", lambda directory, act: self.outcome(act(self.store, self.queue)))
        self.patch(command.time, "time", lambda: NOW + 0.5)
        self.result(self.store.create_account("alice@example.test"))
        self.has("alice@example.test")

    def result(self, awaitable):
        return self.successResultOf(Deferred.fromCoroutine(_awaited(awaitable)))

    def outcome(self, awaitable):
        """As `result`, and a failure is raised."""
        found = []
        Deferred.fromCoroutine(_awaited(awaitable)).addBoth(found.append)
        if isinstance(found[0], Failure):
            found[0].raiseException()
        return found[0]

    def add(self, *recipients, sender="alice@example.test", arrived=NOW - 3600, **envelope):
        local, _, domain = sender.rpartition("@")
        whom = Address(local, domain) if sender else None
        queued = [
            QueuedRecipient(number, target, **words) for number, (target, words) in enumerate(recipients)
        ]
        item = NewItem(
            Envelope(whom, **envelope), MemoryMessage(BODY), b"Received: here\r\n", queued, "alice", arrived
        )
        (number,) = self.result(self.queue.add([item]))
        return number

    def run_here(self, *words, stdin=None, status=0):
        found, out, err = self.here("queue", *words, "--data", self.data, stdin=stdin)
        self.assertEqual(found, status, out + err)
        return err.splitlines() if status else out

    def recipients(self, number):
        return self.result(self.queue.item(number)).recipients


async def _awaited(awaitable):
    return await awaitable


class ListTests(QueueCase):
    def test_nothing(self):
        self.assertEqual(self.run_here("list"), "nothing is queued\n")
        self.assertEqual(self.run_here("list", "--json"), "")

    def test_what_an_operator_reads(self):
        self.add(
            to("bob@far.test", attempts=3, host="mx.far.test", reply="450 4.2.0 Mailbox busy"),
            to("carol@far.test", place="smtp:hub:25", due=NEVER, notice=NEVER),
        )
        self.add(
            to("alice@example.test", agent=LOCAL, place="alice@example.test", due=NOW, attempts=1),
            sender="",
            arrived=NOW - 2 * 86400 - 3 * 3600,
        )
        self.assertEqual(
            self.run_here("list"),
            """\
      ID       AGE     SIZE  SENDER, AND RECIPIENTS THAT ARE NOT DONE WITH
       1       1 h       55  <alice@example.test>
                             bob@far.test, in 9 min, tried 3 times
                               mx.far.test: 450 4.2.0 Mailbox busy
                             carol@far.test by smtp:hub:25, held
       2   2 d 3 h       55  <>
                             alice@example.test, due now, tried once
2 messages, 3 recipients, 1 held, the oldest for 2 d 3 h
""",
        )

    def test_filters(self):
        one = self.add(to("bob@far.test"), to("carol@near.test", due=NEVER))
        two = self.add(to("bob@far.test", place="smtp:hub:25"), sender="dave@else.test", arrived=NOW - 86400)
        three = self.add(to("eve@far.test"), sender="")
        for words, expected in [
            ((), {one: [0, 1], two: [0], three: [0]}),
            ((str(two), str(one)), {one: [0, 1], two: [0]}),
            (("--sender", "alice@EXAMPLE.test"), {one: [0, 1]}),
            (("--sender", "else.test"), {two: [0]}),
            (("--sender", "*"), {one: [0, 1], two: [0], three: [0]}),
            (("--sender", "<>"), {three: [0]}),
            (("--recipient", "bob@*"), {one: [0], two: [0]}),
            (("--recipient", "near.test"), {one: [1]}),
            (("--recipient", "n.ar.test"), {}),
            (("--place", "smtp:*"), {two: [0]}),
            (("--place", "far.test"), {one: [0], three: [0]}),
            (("--held",), {one: [1]}),
            (("--older-than", "12h"), {two: [0]}),
            (("--older-than", "30m", "--recipient", "far.test", "--sender", "<>"), {three: [0]}),
        ]:
            found = [json.loads(line) for line in self.run_here("list", *words, "--json").splitlines()]
            numbers = {item["id"]: [one["number"] for one in item["recipients"]] for item in found}
            self.assertEqual(numbers, expected, words)
        self.assertEqual(self.run_here("list", "--recipient", "nowhere"), "nothing in the queue fits\n")

    def test_page_by_page(self):
        self.patch(command, "PAGE", 3)
        numbers = [self.add(to(f"user{n}@far.test")) for n in range(10)]
        asked = []
        items = self.queue.items

        def watched(after, most):
            asked.append((after, most))
            return items(after, most)

        self.patch(self.queue, "items", watched)
        found = [json.loads(line)["id"] for line in self.run_here("list", "--json").splitlines()]
        self.assertEqual(found, numbers)
        self.assertEqual(asked, [(0, 3), (3, 3), (6, 3), (9, 3), (10, 3)])

    def test_strangers_say_nothing_to_the_terminal(self):
        self.add(to("b\x1b[2Jb@far.test", reply="450 \x9b2J" + "x" * 200, host="\u202ehost", attempts=1))
        out = self.run_here("list")
        self.assertIn('"b[2Jb"@far.test', out)
        self.assertIn(r"\u202ehost: 450 \x9b2Jxxx", out)
        self.assertTrue(out.replace("\n", "").isprintable(), out)

    def test_json(self):
        number = self.add(
            to("bob@far.test", request=ReportRequest(frozenset(("FAILURE", "DELAY")), "rfc822;bo@far.test")),
            to("carol@far.test", due=NEVER, notice=NEVER),
            returns="HDRS",
            envelope_id="e1",
        )
        (line,) = self.run_here("list", "--json").splitlines()
        blank = {"attempts": 0, "host": "", "reply": "", "delayed": False, "agent": "relay"}
        self.assertEqual(
            json.loads(line),
            {
                "id": number,
                "sender": "alice@example.test",
                "account": "alice",
                "arrived": NOW - 3600,
                "size": len(BODY) + 16,
                "body": "7BIT",
                "utf8": False,
                "returns": "HDRS",
                "envelope_id": "e1",
                "recipients": [
                    {
                        "number": 0,
                        "address": "bob@far.test",
                        "place": "far.test",
                        "held": False,
                        "due": NOW + 600,
                        "notice": NOW + 9000,
                        "notify": ["DELAY", "FAILURE"],
                        "original": "rfc822;bo@far.test",
                        **blank,
                    },
                    {
                        "number": 1,
                        "address": "carol@far.test",
                        "place": "far.test",
                        "held": True,
                        "due": None,
                        "notice": None,
                        "notify": None,
                        "original": "",
                        **blank,
                    },
                ],
            },
        )


class ShowTests(QueueCase):
    def test_all_that_is_known(self):
        number = self.add(
            to(
                "bob@far.test",
                attempts=2,
                host="mx",
                reply="451 no",
                request=ReportRequest(frozenset(), "rfc822;bo@far.test"),
                delayed=True,
            ),
            utf8=True,
            body="8BITMIME",
            envelope_id="e1",
        )
        out = self.run_here("show", str(number))
        for row in (
            "item            1",
            "sender          <alice@example.test>",
            "account         alice",
            "arrived         Fri, 15 Jan 2027 07:00:00 +0000  (1 h ago)",
            "size            55 octets",
            "body            8BITMIME, SMTPUTF8",
            "envelope id     e1",
            "recipient       bob@far.test  (number 0)",
            "  next hop      far.test",
            "  next attempt  Fri, 15 Jan 2027 08:10:00 +0000  (in 9 min)",
            "  attempts      2",
            "  last host     mx",
            "  last reply    451 no",
            "  told already  of the delay",
            "  notify        NEVER",
            "  original      rfc822;bo@far.test",
            "  Received: here",
            "  Subject: Hello",
            r"  X-Bad: \x1b[2J\xff",
        ):
            self.assertIn(row, out.splitlines())
        self.assertNotIn("World", out)
        self.assertIn("  World", self.run_here("show", str(number), "--body").splitlines())

    def test_json(self):
        number = self.add(to("bob@far.test"))
        found = json.loads(self.run_here("show", str(number), "--json", "--body"))
        self.assertEqual(found["id"], number)
        self.assertTrue(found["message"].startswith("Received: here\r\nSubject: Hello\r\n"))

    def test_raw(self):
        number = self.add(to("bob@far.test"))
        with tempfile.TemporaryFile("w+") as file, mock.patch("sys.stdin", Terminal()):
            with mock.patch("sys.stdout", file):
                self.assertEqual(command_main("queue", "show", str(number), "--raw", "--data", self.data), 0)
            file.buffer.seek(0)
            self.assertEqual(file.buffer.read(), b"Received: here\r\n" + BODY)

    def test_what_is_not_there(self):
        number = self.add(to("bob@far.test"))
        status, out, err = self.here("queue", "show", "7", str(number), "9", "--data", self.data)
        self.assertEqual(status, 1)
        self.assertIn("bob@far.test", out)
        self.assertEqual(
            err.splitlines(),
            [
                "mailplat: There is no item 7 in the queue",
                "mailplat: There is no item 9 in the queue",
            ],
        )


def command_main(*words):
    from mailplat.cli.main import main

    return main(words)


class DecisionTests(QueueCase):
    def test_which(self):
        for action in ("hold", "release", "cancel", "retry", "reroute"):
            for words in ((), ("1", "--all")):
                self.assertEqual(
                    self.run_here(action, *words, status=1), ["mailplat: say which: ID ..., or --all"]
                )
        self.assertEqual(self.run_here("show", status=1), ["mailplat: say which: ID ..."])

    def test_hold_and_release(self):
        number = self.add(to("bob@far.test"), to("carol@near.test", attempts=4))
        self.assertEqual(self.run_here("hold", str(number), "--recipient", "near.test"), "1 recipient held\n")
        bob, carol = self.recipients(number)
        self.assertEqual((bob.due, bob.notice), (NOW + 600, NOW + 9000))
        self.assertEqual((carol.due, carol.notice, carol.attempts), (NEVER, NEVER, 4))
        self.assertEqual(self.run_here("retry", str(number)), "1 recipient due now\n")
        self.assertEqual(self.recipients(number)[1].due, NEVER)
        self.assertEqual(self.run_here("release", "--all"), "1 recipient released\n")
        bob, carol = self.recipients(number)
        self.assertEqual(carol.due, NOW)
        self.assertEqual(carol.notice, NOW - 3600 + Schedule().delay_notice)
        self.assertEqual(bob.notice, NOW + 9000)

    def test_what_was_held_past_its_end_is_tried_once_more(self):
        number = self.add(to("bob@far.test", due=NEVER, notice=NEVER, delayed=True), arrived=NOW - 30 * 86400)
        self.run_here("release", str(number))
        (bob,) = self.recipients(number)
        self.assertEqual((bob.due, bob.notice), (NOW, NOW + 300))

    def test_cancel(self):
        one = self.add(to("bob@far.test"), to("carol@near.test"))
        two = self.add(to("bob@far.test"))
        self.assertEqual(self.run_here("cancel", str(one), "--recipient", "bob@*"), "1 recipient cancelled\n")
        self.assertEqual([item.target.address.local for item in self.recipients(one)], ["carol"])
        self.assertEqual(
            self.run_here("cancel", "--all", status=1),
            ["mailplat: this gives up mail for good: say --yes"],
        )
        asked = []
        with mock.patch("builtins.input", lambda prompt: asked.append(prompt) or "y"):
            words = ("cancel", "--all", "--recipient", "bob@*")
            self.assertEqual(
                self.run_here(*words, stdin=Terminal(), status=1), ["mailplat: nothing was cancelled"]
            )
        self.assertEqual(asked, ["Give up the mail to 1 recipients for good?  Type yes: "])
        self.assertEqual(self.result(self.queue.status()).recipients, 2)
        self.assertEqual(self.run_here("cancel", "--all", "--yes", "--json").strip(), json.dumps(
            {"done": "cancelled", "recipients": 2}))  # fmt: skip
        self.assertEqual(self.result(self.queue.status()).items, 0)
        self.assertEqual(
            self.run_here("cancel", str(two), status=1), [f"mailplat: There is no item {two} in the queue"]
        )

    def test_retry_wakes_a_next_hop_at_rest(self):
        number = self.add(to("bob@far.test"), to("carol@near.test"))
        for place in ("far.test", "near.test"):
            self.result(self.queue.rest(RELAY, place, NOW + 5000))
        self.assertEqual(self.run_here("retry", str(number), "--place", "far.test"), "1 recipient due now\n")
        self.assertEqual(
            self.result(self.queue.places(10, [])),
            [(RELAY, "far.test", NOW), (RELAY, "near.test", NOW + 5000)],
        )

    def test_reroute_to(self):
        number = self.add(
            to("bob@far.test"),
            to("carol@near.test", due=NEVER),
            to("alice@example.test", agent=LOCAL, place="alice@example.test"),
        )
        self.assertEqual(
            self.run_here("reroute", str(number), "--to", "smtp:Hub.Test;tls=verify"),
            "2 recipients rerouted\n",
        )
        bob, carol, alice = self.recipients(number)
        self.assertEqual((bob.target.place, bob.due), ("smtp:hub.test:25;tls=verify", NOW))
        self.assertEqual((carol.target.place, carol.due), ("smtp:hub.test:25;tls=verify", NEVER))
        self.assertEqual(alice.target.place, "alice@example.test")
        self.assertEqual(self.here("queue", "reroute", "1", "--to", "smtp:a b")[0], 2)

    def test_reroute_as_configured(self):
        path = os.path.join(os.path.dirname(self.data), "mail.toml")
        with open(path, "w") as file:
            file.write('data = "data"\ndomains = ["example.test"]\n[aliases]\nboth = ["alice", "x@y.test"]\n')
        number = self.add(
            to("bob@far.test", place="smtp:old:25"),
            to("bob@near.test"),
            to("alice@example.test", place="smtp:old:25"),
            to("nobody@example.test", place="smtp:old:25"),
            to("both@example.test", place="smtp:old:25"),
        )
        status, out, err = self.here("queue", "reroute", "--all", "--config", path)
        self.assertEqual((status, out), (1, "2 recipients rerouted\n"))
        self.assertEqual(
            err.splitlines(),
            [
                f"mailplat: item {number}, nobody@example.test: No such recipient here",
                f"mailplat: item {number}, both@example.test: leads to 2 places now",
                "mailplat: 2 stay where they are",
            ],
        )
        found = self.recipients(number)
        self.assertEqual(
            [(one.target.agent, one.target.place) for one in found],
            [
                (RELAY, "far.test"),
                (RELAY, "near.test"),
                (LOCAL, "alice@example.test"),
                (RELAY, "smtp:old:25"),
                (RELAY, "smtp:old:25"),
            ],
        )
        self.assertEqual([one.due - NOW for one in found], [0, 600, 0, 600, 600])

    def test_mistakes_in_aliases_are_no_reason_not_to_look(self):
        number = self.add(to("bob@far.test"))
        with open(os.path.join(self.data, "aliases"), "w") as file:
            file.write("nonsense\n")
        self.assertIn("bob@far.test", self.run_here("list"))
        self.run_here("hold", str(number))
        (line,) = self.run_here("reroute", str(number), status=1)
        self.assertIn("aliases: line 1", line)

    def test_wrong_words(self):
        for words in (("list", "x"), ("list", "--older-than", "soon"), ("cancel", "--al"), ()):
            self.assertEqual(self.here("queue", *words)[0], 2, words)


class TextTests(CommandTestCase):
    def test_spans(self):
        for seconds, text in [
            (-5, "0 s"),
            (0, "0 s"),
            (59.9, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (7260, "2 h"),
            (86400, "1 d"),
            (86400 * 5 + 3 * 3600, "5 d 3 h"),
        ]:
            self.assertEqual(queue_text.span(seconds), text)

    def test_sizes(self):
        for size, text in [(0, "0"), (1023, "1023"), (1024, "1 K"), (3_500_000, "3.3 M")]:
            self.assertEqual(queue_text.octets(size), text)
