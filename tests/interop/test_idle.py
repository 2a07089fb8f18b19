"""News reaches a client in IDLE at once."""

import time
import unittest

from tests.interop.house import MESSAGES, House


class IdleTests(unittest.TestCase):
    def test_push(self):
        house = House().start()
        self.addCleanup(house.stop)
        with house.imap() as client:
            client.select()
            delays = []
            for number in range(1, 6):
                client.send(b"i IDLE\r\n")
                self.assertEqual(client.readline()[:1], b"+")
                house.send(MESSAGES["plain"])
                sent = time.perf_counter()
                line = client.readline()
                delays.append(time.perf_counter() - sent)
                self.assertEqual(line, b"* %d EXISTS\r\n" % number)
                client.send(b"DONE\r\n")
                while not client.readline().startswith(b"i OK"):
                    pass
            # Most of the time well under: one slow turn of a busy machine is forgiven.
            self.assertLess(sorted(delays)[2], 0.1, delays)
