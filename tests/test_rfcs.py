"""docs/rfcs.rst and the code agree about which RFC is obeyed where."""

import pathlib
import re

from twisted.trial.unittest import SynchronousTestCase

ROOT = pathlib.Path(__file__).parent.parent
LINE = re.compile(r"^(\d{3,5}) +(full|part|not) +``([\w/.]+)`` +(\S.*)$", re.M)


class RFCTests(SynchronousTestCase):
    def test_files_are_there(self):
        lines = LINE.findall((ROOT / "docs/rfcs.rst").read_text())
        self.assertGreater(len(lines), 40)
        for number, _, file, _ in lines:
            self.assertTrue((ROOT / "mailplat" / file).is_file(), f"RFC {number} names {file}")

    def test_what_is_listed_is_named_in_the_code_and_the_other_way_round(self):
        code = "".join(path.read_text() for path in (ROOT / "mailplat").rglob("*.py"))
        cited = set(re.findall(r"RFC (\d{3,5})", code))
        listed = {number for number, *_ in LINE.findall((ROOT / "docs/rfcs.rst").read_text())}
        self.assertEqual(listed ^ cited, set())
