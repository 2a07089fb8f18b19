"""docs/testing.rst says nothing that does not run."""

import pathlib
import re
import textwrap
import unittest

from twisted.trial.unittest import SynchronousTestCase

PAGE = pathlib.Path(__file__).parent.parent / "docs/testing.rst"


class TestingPageTests(SynchronousTestCase):
    def test_the_code_on_the_page(self):
        blocks = re.findall(r"::\n\n((?:(?: {4}.*)?\n)+)", PAGE.read_text("utf-8"))
        self.assertEqual(len(blocks), 2)
        names = {"__name__": "page"}
        for block in blocks:
            exec(compile(textwrap.dedent(block), str(PAGE), "exec"), names)
        suite = unittest.TestSuite()
        for name in ("SendingTests", "FaultTests"):
            suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(names[name]))
        result = unittest.TestResult()
        suite.run(result)
        self.assertEqual(result.errors + result.failures, [])
        self.assertEqual(result.testsRun, 5)
