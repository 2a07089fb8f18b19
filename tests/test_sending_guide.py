"""What docs/operating.rst says about sending is read as it stands there, and means what it says."""

import pathlib
import re
import shutil
import tempfile

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailplat.auth.names import Names
from mailplat.config import LIMITS, load
from mailplat.delivery.aliases import AliasFile
from mailplat.delivery.hops import NextHops
from mailplat.delivery.routing import Router
from tests.delivery.house import address, now, store_with
from tests.test_readme import OPERATING, blocks

PARTS = OPERATING[OPERATING.index("\nSending mail\n") : OPERATING.index("\nThe queue\n")]


class SendingTests(SynchronousTestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        tables = [block for block in blocks(PARTS) if block.startswith("[")]
        self.assertEqual(len(tables), 6)
        (self.directory / "provider.password").write_text("secret\n")
        text = "\n".join(tables).replace("/etc/mailplat", str(self.directory))
        path = self.directory / "mailplat.toml"
        path.write_text('domains = ["example.org", "example.net"]\n' + text)
        self.settings = load(str(path))

    def test_routes(self):
        relay = self.settings.relay
        self.assertEqual(relay.logins["provider"].password, "secret")
        hops = NextHops(relay.relayhost, relay.routes, relay.senders)
        for sender, recipient, hop in (
            ("alice@example.org", "x@example.com", "smtp:smtp.provider.example:587;login=provider"),
            ("news@example.org", "x@example.com", "smtp:bulk.provider.example:2525;tls=encrypt"),
            ("news@example.org", "x@example.net", "smtp:hub.example.net:25"),
            ("alice@example.org", "x@a.internal.example", "lmtp:unix:/run/archive/lmtp"),
        ):
            self.assertEqual(hops(address(sender), address(recipient)), hop)

    def test_the_schedule_is_the_one_that_is_there(self):
        self.assertEqual(self.settings.limits["schedule"], LIMITS["schedule"]())
        self.assertEqual(self.settings.limits["rates"].account, 500)
        self.assertEqual(LIMITS["rates"]().account, 2000)

    def test_aliases(self):
        (text,) = (block for block in blocks(PARTS) if block.startswith("# one person"))
        path = self.directory / "aliases"
        path.write_text(text)
        names = Names(["example.org", "example.net"])
        accounts = [f"{name}@example.org" for name in ("alice", "bob")] + ["bob@example.net"]
        router = Router(
            names, now(store_with(*accounts)), files=[AliasFile(str(path), names, Clock().seconds)]
        )
        for recipient, places in (
            ("sales@example.org", ["alice@example.org"]),
            ("team@example.org", ["alice@example.org", "bob@example.org", "example.com"]),
            ("bob@example.net", ["bob@example.net", "example.com"]),
            ("bob@example.org", ["bob@example.org"]),
            ("whoever@example.net", ["alice@example.org"]),
            ("lists@example.org", ["mailman"]),
            ("alice+anything@example.org", ["alice@example.org"]),
        ):
            self.assertEqual([target.place for target in now(router.route(address(recipient), None))], places)

    def test_agents_of_the_aliases_are_there(self):
        self.assertEqual(set(re.findall(r"agent:(\w+)", PARTS)), {"mailman", "archive"})
        self.assertLessEqual({"mailman", "archive"}, set(self.settings.agents))
