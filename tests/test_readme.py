"""
What the pages say: the files they name are there, and the commands they give are run as they stand.

Paths, ports and passwords are replaced by a test's own; nothing else is.
"""

import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from configparser import ConfigParser

from docutils.core import publish_string
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailplat.config import load
from mailplat.tap import Options
from mailplat.tls import self_signed

ROOT = pathlib.Path(__file__).parent.parent
BIN = pathlib.Path(sys.executable).parent
README = (ROOT / "README.rst").read_text()
OPERATING = (ROOT / "docs/operating.rst").read_text()
PAGES = [ROOT / "README.rst", ROOT / "CONTRIBUTING.rst", *sorted((ROOT / "docs").glob("*.rst"))]
DEFAULT_PORTS = (2525, 2587, 2143, 2993, 2110, 2995)


def blocks(page):
    """The literal blocks of a page, each without its indentation, continued lines joined."""
    found = re.findall(r"(?:^|\n)\n((?:(?: {4}.*)?\n)+)", page)
    return [re.sub(r"(?m)^ {4}", "", block).replace("\\\n", " ").strip("\n") for block in found]


def commands(page, program):
    """The lines that begin with this program's name."""
    return [
        line for block in blocks(page) for line in block.splitlines() if line.partition(" ")[0] == program
    ]


def has(program):
    return shutil.which(program) is not None


class PageTests(SynchronousTestCase):
    def test_pages_are_well_formed(self):
        for page in PAGES:
            # Level 2: a warning is raised, not printed.
            publish_string(page.read_text(), writer="null", settings_overrides={"halt_level": 2})

    def test_named_files_are_there(self):
        for page in PAGES:
            for name in re.findall(r"``((?:docs|examples|mailplat|tests)/[\w/.]*)``", page.read_text()):
                self.assertTrue((ROOT / name).exists(), f"{page.name} names {name}")

    def test_named_modules_are_there(self):
        for page in PAGES:
            for name in re.findall(r"from (mailplat[\w.]*) import", page.read_text()):
                path = ROOT / name.replace(".", "/")
                self.assertTrue(path.with_suffix(".py").exists() or path.is_dir(), name)

    def test_blocks_are_found(self):
        self.assertIn("make run", blocks(README))
        self.assertEqual(len(commands(README, "twistd")), 1)
        self.assertEqual(len(commands(README, "mailplat")), 3)
        self.assertEqual(len(commands(README, "curl") + commands(README, "echo")), 2)
        self.assertEqual(len(commands(OPERATING, "mailplat")), 12)


class CommandsTestCase(SynchronousTestCase):
    def setUp(self):
        # Short: a UNIX socket's path must fit in 108 octets.
        self.directory = tempfile.mkdtemp(prefix="mp-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.directory)
        self.data = f"{self.directory}/data"
        self.environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    def shell(self, line, stdin=""):
        """What a command line prints; it must succeed."""
        result = subprocess.run(
            line,
            shell=True,
            cwd=self.directory,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(result.returncode, 0, f"{line}\n{result.stdout}{result.stderr}")
        return result.stdout

    def serve(self, line):
        """Start a server by a command line, in a directory of its own; what it prints about itself."""
        process = subprocess.Popen(
            f"exec {line}",
            shell=True,
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Another password:" in line:
                return process, "".join(lines)
        text = "".join(lines)
        if "Address already in use" in text:
            raise SkipTest("another server has the default ports")
        raise AssertionError(text)

    def first_account(self, text):
        found = re.search(r"shown only once:\n\n +(\S+)\n +(\S+)\n", text)
        return found.groups()

    def try_line(self, line, name, password):
        """Run a line to try something, as if somebody typed the password or talked to openssl."""
        program = "openssl" if line.startswith("openssl") else "curl"
        if not has(program):
            raise SkipTest(f"{program} is not installed")
        # -sS: no progress meter.
        line = line.replace("curl ", "curl -sS ", 1).replace(f"--user {name}", f"--user {name}:{password}")
        return self.shell(line, "LHLO me\r\nQUIT\r\n" if program == "openssl" else "")

    def try_table(self, text, name, password):
        """Run every line to try of a server's table; the words that were tried."""
        tried = re.findall(r"(?m)^(\w+) +\S+ +.*\n +\$ (.*)$", text)
        for word, line in tried:
            said = self.try_line(line, name, password)
            if word.startswith(("imap", "pop3")):
                self.assertRegex(said, r"(?m)^Subject: Hello\r?$", line)
            elif word == "lmtp":
                self.assertRegex(said, "(?ms)^250-CHUNKING\r?$.*^221 ", line)
        return [word for word, _ in tried]


class FirstScreenTests(CommandsTestCase):
    """`make run`, and what a reader of the README does then, who has no .venv/bin in PATH."""

    def setUp(self):
        super().setUp()
        self.environment = dict(os.environ)

    def make_run(self):
        """The command that `make run` gives."""
        recipe = re.search(r"(?m)^run: venv\n\t(.*)$", (ROOT / "Makefile").read_text())[1]
        return recipe.replace("$(BIN)", str(BIN))

    def test_make_run(self):
        for port in DEFAULT_PORTS:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    raise SkipTest("another server has the default ports")
        process, text = self.serve(self.make_run())
        name, password = self.first_account(text)
        self.assertIn(f"``{name}``", README)
        tried = self.try_table(text, name, password)
        self.assertEqual(sorted(tried), ["imap", "imaps", "lmtp", "pop3", "pop3s", "smtp", "submission"])
        # The README's table says where, and its own lines work.
        table = README[README.index("=====") : README.rindex("=====")]
        ports = re.findall(r"127\.0\.0\.1:(\d+)", table)
        self.assertEqual(sorted(map(int, ports)), sorted(DEFAULT_PORTS))
        for port in ports:
            self.assertIn(f" 127.0.0.1:{port} ", text)
        self.assertTrue((pathlib.Path(self.directory) / "mailplat-data/lmtp").is_socket())
        send, read = commands(README, "echo") + commands(README, "curl")
        self.try_line(send, name, password)
        self.assertIn("Subject: Hello", self.try_line(read, name, password))
        # The password that is set by the line it prints is the one that counts from then on.
        another = re.search(r"Another password:  (.*)$", text)[1]
        self.shell(f"{another} --password-stdin", "other\n")
        self.try_line(read, name, "other")
        process.terminate()
        self.assertNotIn("Traceback", process.communicate(timeout=30)[0])

    def test_make_test_runs_all_tests(self):
        recipe = re.search(r"(?m)^test: venv\n\t(.*)$", (ROOT / "Makefile").read_text())[1]
        self.assertRegex(recipe, r"^\$\(BIN\)/python -m pytest .* tests$")
        self.assertRegex((ROOT / ".ci/run").read_text(), r"(?m)^make VENV=\S+ test$")


class OperatorTests(CommandsTestCase):
    """The commands for operators, in the README and in their guide."""

    def ours(self, line):
        """The same command, on ports and in directories of this test."""
        line = line.replace("/var/lib/mailplat", self.data)
        return re.sub(r"(--\w+) tcp:\d+", r"\1 tcp:0:interface=127.0.0.1", line)

    def certificate(self, hostname):
        """A certificate and its key in two files, as the operator's example names them."""
        text = pathlib.Path(self_signed(self.directory, hostname)).read_text()
        key, _, certificate = text.partition("-----BEGIN CERTIFICATE-----")
        pathlib.Path(self.directory, "privkey.pem").write_text(key)
        chain = pathlib.Path(self.directory, "fullchain.pem")
        chain.write_text(f"-----BEGIN CERTIFICATE-----{certificate}")
        # So that curl trusts it as it trusts those of authorities.
        self.environment["CURL_CA_BUNDLE"] = str(chain)

    def test_the_example(self):
        (line,) = commands(README, "twistd")
        self.certificate("mx.example.org")
        process, text = self.serve(self.ours(line))
        name, password = self.first_account(text)
        self.assertEqual(name, "me@example.org")
        tried = self.try_table(text, name, password)
        self.assertEqual(sorted(tried), ["imaps", "smtp", "submission", "submissions"])
        # Accounts are made while the server runs.
        add, show, check = commands(README, "mailplat")
        self.shell(f"{self.ours(add)} --password-stdin", "secret\n")
        self.assertEqual(self.shell(self.ours(show)).split(), ["alice@example.org", "me@example.org"])
        self.assertEqual(self.shell(self.ours(check)), "all is well\n")
        # The guide's lines for a client go to ports below 1024; here they are elsewhere.
        ports = dict(re.findall(r"(?m)^(\w+) +127\.0\.0\.1:(\d+) ", text))
        (read,), (send,) = commands(OPERATING, "curl"), commands(OPERATING, "echo")
        for line, word in ((send, "submissions"), (read, "imaps")):
            line = line.replace("curl ", f"curl --connect-to ::127.0.0.1:{ports[word]} ", 1)
            said = self.try_line(line, "alice@example.org", "secret")
        self.assertIn("Subject: Hello", said)
        process.terminate()
        self.assertNotIn("Traceback", process.communicate(timeout=30)[0])

    def test_account_commands(self):
        people = pathlib.Path(self.directory, "people.txt")
        people.write_text("carol@example.org:one\ndave@example.org:two\n")
        for line in commands(OPERATING, "mailplat"):
            said = self.shell(self.ours(line), "secret\n")
            if line.startswith("mailplat account list"):
                self.assertEqual(said.split(), ["carol@example.org", "dave@example.org"])

    def test_the_file(self):
        (text,) = (block for block in blocks(OPERATING) if block.startswith("data = "))
        self.certificate("mx.example.org")
        path = pathlib.Path(self.directory, "mailplat.toml")
        path.write_text(text.replace("/etc/mailplat", self.directory))
        settings = load(str(path))
        self.assertEqual(settings.data, "/var/lib/mailplat")
        self.assertEqual(len(settings.listeners), 6)
        self.assertEqual(settings.limits["logins"].free, 10)

    def test_the_unit(self):
        (text,) = (block for block in blocks(OPERATING) if block.startswith("[Unit]"))
        unit = ConfigParser()
        unit.optionxform = str
        unit.read_string(text)
        program, *words = shlex.split(unit["Service"]["ExecStart"])
        self.assertEqual(program, "/opt/mailplat/bin/twistd")
        config = pathlib.Path(self.directory, "mailplat.toml")
        config.write_text('[listen]\nimap = "tcp:0"\n')
        words = [str(config) if word == "/etc/mailplat/mailplat.toml" else word for word in words]
        self.assertEqual(words[:3], ["-n", "--pidfile=", "mailplat"])
        options = Options()
        options.parseOptions(words[3:])
        self.assertEqual(len(options.settings.listeners), 1)
        # Longer than the server takes.
        self.assertGreater(int(unit["Service"]["TimeoutStopSec"]), 10)

    def test_what_the_log_says(self):
        """The lines of the log that the guide explains are lines of the code."""
        code = "".join(path.read_text() for path in (ROOT / "mailplat").rglob("*.py"))
        table = OPERATING[OPERATING.index("\nLogs\n") : OPERATING.index("\nGuessers\n")]
        lines = re.findall(r"(?m)^``(.*?)`` ", table)
        self.assertEqual(len(lines), 7)
        for line in lines:
            words = re.sub("imap|smtp", "{service}", line).replace("'x'", "{account!r}")
            self.assertIn(words, code)
