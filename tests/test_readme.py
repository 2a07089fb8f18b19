"""The README names only files that are there and words that the commands know."""

import pathlib
import re
import subprocess
import sys
from tempfile import TemporaryDirectory

from docutils.core import publish_string
from twisted.trial.unittest import SynchronousTestCase

ROOT = pathlib.Path(__file__).parent.parent
BIN = pathlib.Path(sys.executable).parent
README = (ROOT / "README.rst").read_text()
PAGES = [ROOT / "README.rst", ROOT / "CONTRIBUTING.rst", *sorted((ROOT / "docs").glob("*.rst"))]


class ReadmeTests(SynchronousTestCase):
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

    def test_words_of_the_server(self):
        words = [BIN / "twistd", "-n", "mailplat", "--help"]
        known = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
        command = README[README.index("twistd -n --pidfile= mailplat") :].partition("\n\n")[0]
        for word in re.findall(r"(--[a-z]+) ", command.partition("mailplat ")[2]):
            self.assertIn(word, known)

    def test_account_commands(self):
        with TemporaryDirectory() as scratch:
            for line in re.findall(r"^    (mailplat .*)$", README, re.M):
                words = line.replace("/var/lib/mailplat", f"{scratch}/data").split()
                if words[2] == "add":
                    words.append("--password-stdin")
                subprocess.run(
                    [BIN / words[0], *words[1:]], input="secret\n", text=True, check=True, timeout=60,
                    capture_output=True,
                )  # fmt: skip
