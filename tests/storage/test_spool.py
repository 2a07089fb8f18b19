"""The spool: memory or file, the same message either way, and nothing left behind."""

import errno
import os
from tempfile import TemporaryDirectory

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailplat.errors import StorageFull
from mailplat.interfaces import IInPieces
from mailplat.message.structure import Scanner
from mailplat.storage.spool import LONG, Spool

MESSAGE = b"From: a@example.org\r\nSubject: x\r\n\r\n" + b"A line of text.\r\n" * 200


class SpoolTests(SynchronousTestCase):
    def setUp(self):
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = os.path.join(scratch.name, "spool")

    def spool(self, in_memory):
        def at_once(function, *arguments):
            return succeed(function(*arguments))

        spool = Spool(self.directory, None, in_memory=in_memory, in_thread=at_once)
        spool.start()
        return spool

    def run_now(self, coroutine):
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def spooled(self, spool, step=7, message=MESSAGE):
        writer = spool.begin()
        for start in range(0, len(message), step):
            self.run_now(writer.write(message[start : start + step]))
        self.assertEqual(writer.size, len(message))
        return self.run_now(writer.finish())

    def outline(self):
        scanner = Scanner()
        scanner.feed(MESSAGE)
        return scanner.record()

    def test_in_memory(self):
        message = self.spooled(self.spool(1_000_000))
        self.assertEqual((message.data, message.path, message.size), (MESSAGE, None, len(MESSAGE)))
        self.assertEqual(message.outline, self.outline())
        self.assertEqual(os.listdir(self.directory), [])

    def test_in_pieces(self):
        whole, step = MESSAGE * 60, 2 * LONG
        message = self.spooled(self.spool(1_000_000), step, whole)
        self.assertEqual((message.path, message.size), (None, len(whole)))
        self.assertEqual([len(piece) for piece in message.pieces[:-1]], [step] * (len(whole) // step))
        self.assertEqual(b"".join(message.pieces), whole)
        for start, length in ((0, 100), (step - 100, 100)):
            self.assertEqual(self.run_now(message.read(start, length)), whole[start : start + length])
        self.assertGreater(len(message.pieces), 1)
        self.assertEqual(self.run_now(message.read(step - 50, 100)), whole[step - 50 : step + 50])
        self.assertEqual(message.data, whole)
        self.assertEqual(message.pieces, (whole,))
        self.assertTrue(verifyObject(IInPieces, message))

    def test_many_short_pieces_are_joined(self):
        whole = MESSAGE * 60
        message = self.spooled(self.spool(1_000_000), 1460, whole)
        self.assertFalse(IInPieces.providedBy(message))
        self.assertEqual(message.data, whole)

    def test_in_file(self):
        message = self.spooled(self.spool(100))
        self.assertEqual((message.data, message.size), (None, len(MESSAGE)))
        self.assertEqual(message.outline, self.outline())
        with open(message.path, "rb") as file:
            self.assertEqual(file.read(), MESSAGE)
        self.assertEqual(self.run_now(message.read(10, 20)), MESSAGE[10:30])
        linked = message.path + ".linked"
        os.link(message.path, linked)
        message.close()
        message.close()
        self.assertEqual(os.listdir(self.directory), [os.path.basename(linked)])

    def test_abandoned(self):
        for limit in (100, 1_000_000):
            spool = self.spool(limit)
            writer = spool.begin()
            self.run_now(writer.write(MESSAGE))
            writer.abandon()
            writer.abandon()
            self.assertEqual(os.listdir(self.directory), [])

    def test_start_removes_what_a_killed_process_left(self):
        spool = self.spool(100)
        writer = spool.begin()
        self.run_now(writer.write(MESSAGE))
        self.assertEqual(len(os.listdir(self.directory)), 1)
        self.spool(100)
        self.assertEqual(os.listdir(self.directory), [])
        writer.abandon()

    def test_no_room(self):
        spool = self.spool(100)
        os.rmdir(self.directory)
        writer = spool.begin()
        coroutine = writer.write(MESSAGE)
        with self.assertRaises(StorageFull):
            coroutine.send(None)

    def test_a_full_disk(self):
        """Refused, the file is gone, and the next message is not harmed."""
        spool = self.spool(100)
        writer = spool.begin()
        write = os.write

        def full(file, data):
            if len(data) > 50:
                return write(file, data[:50])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, "write", full)
        self.failureResultOf(Deferred.fromCoroutine(writer.write(MESSAGE)), StorageFull)
        self.patch(os, "write", write)
        self.assertEqual(os.listdir(self.directory), [])
        writer.abandon()
        self.spooled(spool).close()

    def test_a_sync_that_fails(self):
        spool = self.spool(100)
        writer = spool.begin()
        self.run_now(writer.write(MESSAGE))
        spool.in_thread = lambda function, *arguments: fail(OSError(errno.EIO, os.strerror(errno.EIO)))
        self.failureResultOf(Deferred.fromCoroutine(writer.finish()), StorageFull)
        self.assertEqual(os.listdir(self.directory), [])
        writer.abandon()
