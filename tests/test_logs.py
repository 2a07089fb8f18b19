"""The lines of the log: what is said, and that ours are those that twistd would have written."""

from __future__ import annotations

import io
import os
import signal
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Application
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, textFileLogObserver
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from mailplat.config import load
from mailplat.logs import tell, text_observer
from mailplat.tap import TwistdService


class LogsTests(SynchronousTestCase):
    def setUp(self):
        self.ours, self.theirs, self.events = io.StringIO(), io.StringIO(), []
        self.publisher = LogPublisher(
            self.events.append, text_observer(self.ours), textFileLogObserver(self.theirs)
        )
        self.log = Logger("house", observer=self.publisher)

    def test_fields(self):
        tell(self.log, "{who} brought {size} octets", who="Bob", size=3)
        (event,) = self.events
        self.assertEqual((event["who"], event["size"]), ("Bob", 3))
        self.assertEqual(event["line"], "Bob brought 3 octets")
        self.assertRegex(self.ours.getvalue(), r"^\d{4}-.* \[house#info\] Bob brought 3 octets\n$")

    @given(st.text(), st.lists(st.floats(0, 2**32), min_size=1, max_size=6))
    def test_same_text(self, text, times):
        self.setUp()
        tell(self.log, "{text}", text=text)
        self.log.warn("not told: {text}", text=text)
        for when in times:
            for event in self.events[:2]:
                self.publisher({**event, "log_time": when})
                self.publisher({**event, "log_time": when + 0.3})
        self.assertEqual(self.ours.getvalue(), self.theirs.getvalue())

    def test_same_text_of_all_kinds(self):
        tell(self.log, "from {peer}", peer="{not a field}")
        tell(self.log, "first\nsecond")
        tell(self.log, "elsewhere", log_system="other")
        self.publisher({**self.events[0], "log_time": None})
        tell(self.log, "")
        self.log.emit(LogLevel.critical, "{line}", line="told by somebody else")
        self.log.info("{line}", line=7)
        self.log.emit(LogLevel.debug)
        self.log.info("{missing}")
        self.publisher({"log_format": "nobody's"})
        self.publisher({})
        try:
            raise ValueError("a fault")
        except ValueError:
            self.log.failure("{line}", Failure(), line="it failed")
        self.assertIn("a fault", self.ours.getvalue())
        self.assertEqual(self.ours.getvalue(), self.theirs.getvalue())

    def test_written_at_once(self):
        path = self.mktemp()
        with open(path, "w") as file:
            self.log.observer = text_observer(file)
            tell(self.log, "here")
            with open(path) as seen:
                self.assertIn("] here\n", seen.read())


class TwistdLogTests(SynchronousTestCase):
    """Who writes the log of the application that twistd makes."""

    def setUp(self):
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))

    def observer(self, reactor=None, **twistd):
        options = {"logfile": None, "logger": None, "syslog": False, "nodaemon": True, **twistd}
        application = Application("mailplat")
        service = TwistdService(load(words={"data": self.mktemp()}), reactor or Clock(), options)
        service.setServiceParent(application)
        return application.getComponent(ILogObserver, None)

    def test_standard_output(self):
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        for logfile in (None, "-"):
            Logger("house", observer=self.observer(logfile=logfile)).info("said")
        self.assertEqual(output.getvalue().count("[house#info] said\n"), 2)

    def test_others(self):
        """An operator's own way goes first, and what twistd refuses it refuses itself."""
        self.assertIsNone(self.observer(logger=lambda: None))
        self.assertIsNone(self.observer(syslog=True))
        self.assertIsNone(self.observer(logfile="-", nodaemon=False))

    def test_no_twistd(self):
        application = Application("mailplat")
        TwistdService(load(words={"data": self.mktemp()}), Clock(), {}).setServiceParent(application)
        self.assertIsNone(application.getComponent(ILogObserver, None))

    def test_file(self):
        """SIGUSR1 has it begin a new one, at the reactor's next turn."""
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        called = []

        class Reactor(Clock):
            def callFromThread(self, function):
                called.append(function)

        path = self.mktemp()
        log = Logger("house", observer=self.observer(Reactor(), logfile=path, nodaemon=False))
        log.info("before")
        os.kill(os.getpid(), signal.SIGUSR1)
        (rotate,) = called
        rotate()
        log.info("after")
        with open(f"{path}.1") as old, open(path) as new:
            self.assertIn("] before\n", old.read())
            self.assertIn("] after\n", new.read())

    def test_file_that_cannot_be(self):
        error = self.assertRaises(SystemExit, self.observer, logfile=os.path.join(self.mktemp(), "log"))
        self.assertRegex(str(error), r"^mailplat: cannot write the log: .*No such file")

    def test_signal_of_somebody_else(self):
        def theirs(*_):
            pass

        signal.signal(signal.SIGUSR1, theirs)
        self.observer(logfile=self.mktemp())
        self.assertIs(signal.getsignal(signal.SIGUSR1), theirs)

    def test_daemon(self):
        """It has no standard output: twistd.log, in the directory where it was started."""
        made = []
        self.patch(LogFile, "fromFullPath", lambda path: made.append(path) or io.StringIO())
        self.observer(nodaemon=False)
        self.assertEqual(made, ["twistd.log"])
