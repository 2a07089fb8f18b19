"""Whatever a peer can send has a limit with a name, a default and a test: here is who has none."""

import re
from dataclasses import MISSING, fields
from pathlib import Path
from unittest import TestCase

from mailplat.settings import LIMITS

TESTS = Path(__file__).parent

#: Tables of limits, and where their tests are.
WHERE = {
    "connections": ("test_connection.py",),
    "logins": ("auth",),
    "smtp": ("smtp", "dialogues/smtp"),
    "imap": ("imap", "dialogues/imap"),
    "pop3": ("pop3", "dialogues/pop3"),
    "intake": ("delivery",),
    "routing": ("delivery",),
    "rates": ("delivery",),
    "schedule": ("delivery",),
    "queue": ("delivery",),
}


def texts(places):
    for place in places:
        path = TESTS / place
        for file in [path] if path.is_file() else sorted(path.glob("*.*")):
            if file.suffix in (".py", ".txt"):
                yield file.read_text("utf-8")


class LimitTests(TestCase):
    def test_every_limit_has_a_default_and_is_set_by_a_test(self):
        self.assertLessEqual(WHERE.keys(), LIMITS.keys())
        untested = []
        for name in WHERE:
            table = LIMITS[name]
            text = "\n".join(texts(WHERE[name]))
            for field in fields(table):
                self.assertIsNot(field.default, MISSING, f"{name}.{field.name}")
                # Set by name in a test or a dialogue.
                if not re.search(rf"@ limit {field.name} |\b{field.name}=|\"{field.name}\": ", text):
                    untested.append(f"{name}.{field.name}")
        self.assertEqual(untested, [])
