from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from mailplat.datadir import DataDirectory
from mailplat.errors import DataDirectoryError


class DataDirectoryTests(SynchronousTestCase):
    def setUp(self):
        self.parent = tempfile.mkdtemp(prefix="mailplat-")
        self.addCleanup(shutil.rmtree, self.parent)
        self.path = os.path.join(self.parent, "a", "data")
        self.directory = DataDirectory(self.path)

    def version(self):
        with open(os.path.join(self.path, "version")) as file:
            return file.read()

    def refused(self, *arguments):
        return self.assertRaises(DataDirectoryError, self.directory.prepare, *arguments).text

    def test_it_is_made_for_its_owner_alone(self):
        self.directory.prepare()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o700)
        self.assertEqual(self.version(), "1\n")
        self.directory.prepare()
        self.assertEqual(os.listdir(self.path), ["version"])

    def test_an_empty_one_is_taken(self):
        os.makedirs(os.path.join(self.path, "lost+found"), 0o755)
        os.mkdir(os.path.join(self.path, ".snapshot"))
        self.directory.prepare()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o700)

    def test_somebody_elses_is_left_alone(self):
        os.makedirs(os.path.join(self.path, "photos"), 0o755)
        os.chmod(self.path, 0o755)
        self.assertEqual(
            self.refused(), f"{self.path} is not a data directory of mailplat, and not empty: photos"
        )
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o755)

    def test_an_older_one_is_upgraded_step_by_step(self):
        self.directory.prepare()
        seen = []

        def first(path):
            seen.append((path, self.version()))

        def second(path):
            seen.append((path, self.version()))

        self.directory.prepare([first])
        self.assertEqual(self.version(), "2\n")
        self.directory.prepare([first, second])
        self.assertEqual(self.version(), "3\n")
        self.assertEqual(seen, [(self.path, "1\n"), (self.path, "2\n")])

    def test_a_new_one_needs_no_upgrade(self):
        self.directory.prepare([self.fail])
        self.assertEqual(self.version(), "2\n")

    def test_a_newer_one_is_refused(self):
        self.directory.prepare([lambda path: None])
        self.assertEqual(
            self.refused(),
            f"{self.path} has version 2, made by a later mailplat; this one knows versions up to 1",
        )

    def test_a_version_that_is_none(self):
        self.directory.prepare()
        with open(os.path.join(self.path, "version"), "w") as file:
            file.write("one")
        self.assertEqual(self.refused(), f"{self.path}/version holds no version: 'one'")

    def test_a_path_that_cannot_be_a_directory(self):
        with open(os.path.join(self.parent, "a"), "w"):
            pass
        self.assertIn("cannot be used", self.refused())

    def test_one_server_at_a_time(self):
        self.directory.prepare()
        self.directory.lock()
        other = DataDirectory(self.path)
        error = self.assertRaises(DataDirectoryError, other.lock)
        self.assertEqual(error.text, f"{self.path} is in use by another server")
        self.directory.unlock()
        self.directory.unlock()
        other.lock()
        other.unlock()

    def test_a_killed_server_holds_no_lock(self):
        self.directory.prepare()
        script = (
            "import sys; from mailplat.datadir import DataDirectory\n"
            "DataDirectory(sys.argv[1]).lock(); print('locked', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            self.assertEqual(process.stdout.readline(), b"locked\n")
            self.assertRaises(DataDirectoryError, self.directory.lock)
            process.kill()
            process.wait()
        self.directory.lock()
        self.directory.unlock()
