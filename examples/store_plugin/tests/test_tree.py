"""What mailplat's contract cannot know: the files."""

import os
import tempfile
import unittest

from mailplat_eml import tree


class TreeTests(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.account = directory.name
        self.write("INBOX/b.eml", b"two\n")
        self.write("INBOX/a.eml", b"one\r\n")

    def write(self, name, data):
        path = os.path.join(self.account, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".tmp", "wb") as file:
            file.write(data)
        os.replace(path + ".tmp", path)

    def look(self, now=100):
        return tree.look(self.account, tree.load(self.account), now)

    def uids(self, mailbox="INBOX"):
        return {file: message.uid for file, message in self.look().boxes[mailbox].files.items()}

    def test_uids_stay(self):
        self.assertEqual(self.uids(), {"a.eml": 1, "b.eml": 2})
        self.write("INBOX/0.eml", b"earlier in the alphabet\n")
        self.assertEqual(self.uids(), {"a.eml": 1, "b.eml": 2, "0.eml": 3})
        os.unlink(os.path.join(self.account, "INBOX/0.eml"))
        self.assertEqual(self.uids(), {"a.eml": 1, "b.eml": 2})
        self.write("INBOX/c.eml", b"no UID comes back\n")
        self.assertEqual(self.uids()["c.eml"], 4)

    def test_another_file_is_another_message(self):
        self.uids()
        self.write("INBOX/a.eml", b"replaced\n")
        self.assertEqual(self.uids(), {"a.eml": 3, "b.eml": 2})

    def test_line_ends(self):
        messages = self.look().boxes["INBOX"].files
        for file, data in (("a.eml", b"one\r\n"), ("b.eml", b"two\r\n")):
            self.assertEqual(messages[file].size, len(data))
            self.assertEqual(tree.read(self.account, "INBOX", file, messages[file].stamp), data)

    def test_a_uid_never_shows_another_file(self):
        stamp = self.look().boxes["INBOX"].files["a.eml"].stamp
        self.write("INBOX/a.eml", b"replaced meanwhile\n")
        with self.assertRaises(FileNotFoundError):
            tree.read(self.account, "INBOX", "a.eml", stamp)

    def test_mailboxes(self):
        for name in ("Work/2026/x.eml", "inbox/x.eml", ".hidden/x.eml", "Work/notes.txt", "top.eml"):
            self.write(name, b"x\n")
        self.assertEqual(sorted(self.look().boxes), ["INBOX", "Work", "Work/2026"])
        self.assertEqual(self.uids("Work"), {})

    def test_validities_are_not_used_again(self):
        self.write("Work/x.eml", b"x\n")
        before = self.look().boxes["Work"].uid_validity
        os.rename(os.path.join(self.account, "Work"), os.path.join(self.account, "Other"))
        after = self.look()
        self.assertNotIn("Work", after.boxes)
        self.assertGreater(after.boxes["Other"].uid_validity, before)

    def test_links_lead_nowhere(self):
        os.symlink("/", os.path.join(self.account, "root"))
        os.symlink("/etc/passwd", os.path.join(self.account, "INBOX", "c.eml"))
        self.assertEqual(sorted(self.look().boxes), ["INBOX"])
        self.assertEqual(self.uids(), {"a.eml": 1, "b.eml": 2})

    def test_nothing_new_writes_nothing(self):
        index = self.look()
        self.assertIs(tree.look(self.account, index, 200), index)
