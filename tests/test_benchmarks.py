"""The benchmarks run, and their figures and ratios are what they say."""

import io
import re
import shutil
import socket
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks import corpus, report
from benchmarks.clients import Imap
from benchmarks.options import parse
from benchmarks.player import Script, say, wait
from benchmarks.running import Figure, Result
from benchmarks.table import ROWS, Aim, Row, chosen
from benchmarks.work import Reading

ROOT = Path(__file__).parent.parent


class RunTests(SynchronousTestCase):
    def test_ours_alone(self):
        if shutil.which("cc") is None:
            raise SkipTest("the load generator needs a C compiler")
        rows = "--rows=smtp-accept,smtp-new-10,append-2k,fetch-flags,search-10k,store,copy,pop3,push"
        command = [sys.executable, "-m", "benchmarks", rows, "--scale=0.002", "--seconds=0.01"]
        done = subprocess.run(
            [*command, "--data", self.mktemp_folder()], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        first, *lines = done.stdout.splitlines()
        self.assertEqual(done.stderr, "")
        self.assertIn("python -m benchmarks --rows=smtp-accept", first)
        self.assertNotIn("left out", done.stdout)
        units = ["messages/s", "us"] * 2 + ["messages/s"] * 3 + ["ms"] * 4
        units += ["messages/s"] * 5 + ["ms", "messages/s", "ms", "ms"]
        self.assertEqual([re.search(r": [\d.,]+ ([a-zA-Z/]+)", line)[1] for line in lines], units)

    def test_beside_peers_as_a_table_that_says_how_it_goes(self):
        command = [
            sys.executable,
            "-m",
            "benchmarks.compare",
            "--rows=growth-fetch",
            "--runs=1",
            "--scale=0.0001",
        ]
        done = subprocess.run(
            [*command, "--data", self.mktemp_folder()], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(done.stderr, "00:00 growth-fetch: CPU to list a message of a mailbox of\n")
        self.assertIn("\n| CPU to list a message of a mailbox of: growth | ", done.stdout)
        self.assertNotIn("left out", done.stdout)

    def mktemp_folder(self):
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        return str(folder)


class Pieces:
    """A socket from which each read gives the next piece."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def setsockopt(self, *option):
        pass

    def sendall(self, octets):
        pass

    def recv(self, most):
        return self.pieces.pop(0)

    def recv_into(self, buffer):
        piece = self.pieces.pop(0)
        buffer[: len(piece)] = piece
        return len(piece)


class ImapTests(SynchronousTestCase):
    def hits(self, count, *pieces):
        made = Pieces(b"* OK\r\n", b"zq1x OK\r\n", *pieces, b"zq2x OK\r\n")
        self.patch(socket, "create_connection", lambda place, timeout: made)
        return Imap(143, "user", "pass").command("NOOP", count=count).hits

    def test_what_is_counted_counts_once(self):
        self.assertEqual(self.hits(b" ", b"* SEARCH" + b" 1" * 5000, b" 1" * 5000 + b"\r\n"), 1 + 10_000 + 1)

    def test_also_across_pieces(self):
        self.assertEqual(self.hits(b" FETCH (", b"* 1 FETCH (A)\r\n* 2 FE", b"TCH (A)\r\n"), 2)


class TableTests(SynchronousTestCase):
    def test_names_are_unique(self):
        names = [row.name for row in ROWS]
        self.assertEqual(len(names), len(set(names)))

    def test_rows_are_chosen_in_the_tables_order(self):
        self.assertEqual([row.name for row in chosen("store,smtp-accept")], ["smtp-accept", "store"])
        self.assertEqual(chosen(None), list(ROWS))

    def test_an_unknown_row_is_named(self):
        self.assertIn("no row nonsense", str(self.assertRaises(SystemExit, chosen, "store,nonsense")))

    def test_the_command_repeats_the_run(self):
        options, command = parse("", "benchmarks.compare", ["--rows", "store", "--seconds", "0.5"], 3)
        self.assertEqual(command, "python -m benchmarks.compare --rows=store --seconds=0.5")
        self.assertEqual(options.effort.seconds, 0.5)

    def test_peers_are_for_the_comparison_only(self):
        with redirect_stderr(io.StringIO()):
            self.assertRaises(SystemExit, parse, "", "benchmarks", ["--peers", "postfix"], 1)


def figure(*values, unit="messages/s"):
    made = Figure(unit)
    for value in values:
        made.add(Reading("", value, unit))
    return made


class ReportTests(SynchronousTestCase):
    def result(self, aims, ours, theirs=None):
        figures = {"mailplat": ours}
        if theirs is not None:
            figures["postfix"] = theirs
        return Result(Row("row", "work", lambda server, effort: list, aims=aims), figures)

    def test_more_is_better_of_rates_and_less_of_costs(self):
        self.assertEqual(report.ratio(figure(300, 100, 200), figure(50)), 4)
        self.assertEqual(report.ratio(figure(5, unit="ms"), figure(20, unit="ms")), 4)

    def test_medians_spread_ratio_and_aim(self):
        result = self.result({"": Aim(3)}, {"": figure(100, 300, 150)}, {"": figure(50)})
        self.assertEqual(
            list(report.table_rows(result)),
            ["| work | 150 (100 – 300) messages/s | postfix | 50 messages/s | 3 | 3 | yes |"],
        )

    def test_an_aim_that_is_missed(self):
        result = self.result({"": Aim(3)}, {"": figure(149)}, {"": figure(50)})
        self.assertIn("| 2.98 | 3 | **no** |", next(report.table_rows(result)))

    def test_against_another_figure_of_the_peer(self):
        aims = {"first": Aim(2, against="again")}
        result = self.result(aims, {"first": figure(100)}, {"first": figure(1), "again": figure(50)})
        self.assertIn("| 50 messages/s | 2 | 2 | yes |", next(report.table_rows(result)))

    def test_an_absolute_bound(self):
        result = self.result({"": Aim(most=60)}, {"": figure(61, unit="MiB")})
        self.assertEqual(list(report.table_rows(result)), ["| work | 61 MiB |  |  |  | 60 MiB | **no** |"])

    def test_who_is_left_out_is_said_in_one_line(self):
        result = Result(ROWS[0], failures={"postfix": "is not\ninstalled"})
        wanted = ["smtp-accept: postfix is left out: is not installed"]
        self.assertEqual(list(report.failures(result)), wanted)


class ScriptTests(SynchronousTestCase):
    def test_numbers_stand_in_for_their_names(self):
        steps = say("a APPEND INBOX {{length}}").split("\n")
        self.assertEqual(steps, ["S " + b"a APPEND INBOX {".hex(), "L", "S " + b"}\r\n".hex()])

    def test_sections(self):
        script = Script([wait("220")], [say("{message}", end="")], [wait("", "2")])
        self.assertEqual(script.compiled(), "[pre]\nW 323230 323230\n[loop]\nM\n[post]\nW - 32\n")


class CorpusTests(SynchronousTestCase):
    def test_sizes(self):
        for kind, (size, count) in corpus.KINDS.items():
            messages = corpus.messages(kind)
            self.assertEqual(len(set(messages)), count)
            if size is not None:
                self.assertApproximates(sum(map(len, messages)) / count, size, size * 0.15)

    def test_lines_end_with_cr_lf(self):
        for message in corpus.messages("mix"):
            self.assertTrue(message.endswith(b"\r\n"))
            self.assertEqual(message.count(b"\n"), message.count(b"\r\n"))

    def test_words_to_search_for(self):
        found = sum(corpus.BODY_WORD.encode() in message for message in corpus.messages("mix"))
        self.assertEqual(found, corpus.holders(corpus.BODY_EVERY, "mix", 1000))
