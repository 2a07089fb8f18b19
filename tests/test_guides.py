"""The Python of the guides is run as it stands there, and does what they say."""

import imaplib
import os
import pathlib
import re
import shutil
import smtplib
import sys
import tempfile
import types
import unittest
from configparser import ConfigParser

from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailplat import interfaces
from mailplat.auth.checkers import NamedChecker
from mailplat.auth.names import Names
from mailplat.interfaces import IDeliveryAgent
from mailplat.storage.memory import MemoryStore
from mailplat.testing.stores import MailboxStoreContract
from mailplat.tls import self_signed
from mailplat.values import Outcome
from tests.test_readme import ROOT, blocks

PLUGINS = (ROOT / "docs/plugins.rst").read_text()
HOSTING = (ROOT / "docs/hosting.rst").read_text()
README = (ROOT / "README.rst").read_text()


#: Too large to stay in memory while it arrives.
LARGE = b"Subject: hello\r\n\r\n" + b"hello\r\n" * 300_000


def python(page):
    """The blocks of a page that are Python."""
    return [block for block in blocks(page) if re.search(r"(?m)^from .* import ", block)]


@implementer(IDeliveryAgent)
class FolderAgent:
    """Keeps each message in a file of its own."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)

    async def deliver(self, envelope, message, prefix, targets):
        body = b"".join([await message.read(at, 65536) for at in range(0, message.size, 65536)])
        for _ in targets:
            number = len(list(self.directory.iterdir()))
            (self.directory / f"{number:06}").write_bytes(prefix + body)
        return [Outcome(target.address) for target in targets]


class PluginGuideTests(SynchronousTestCase):
    def test_the_contract(self):
        """The ten lines, run for a store that is known to be right."""
        contract, _, _ = python(PLUGINS)
        package = types.ModuleType("my_package")
        package.MyStore = lambda path: MemoryStore()
        sys.modules["my_package"] = package
        self.addCleanup(sys.modules.pop, "my_package")
        found = {}
        exec(contract, found)
        self.assertTrue(issubclass(found["MyStoreTests"], MailboxStoreContract))
        tests = [name for name in dir(found["MyStoreTests"]) if name.startswith("test_")]
        self.assertGreater(len(tests), 50)
        result = unittest.TestResult()
        # One will do: the rest is run for our own stores.
        found["MyStoreTests"](next(name for name in tests if "append" in name)).run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (1, [], []))

    def test_the_checker(self):
        _, checker, _ = python(PLUGINS)
        found = {}
        exec(checker, found)
        verifyObject(ICheckerFactory, found["one_password"])
        named = NamedChecker(found["one_password"].generateChecker("secret"), Names(["example.test"]))
        login = named.requestAvatarId(UsernamePassword(b"alice", b"secret"))
        self.assertEqual(self.successResultOf(login), b"alice@example.test")
        login = named.requestAvatarId(UsernamePassword(b"alice", b"wrong"))
        self.failureResultOf(login, UnauthorizedLogin)

    def test_the_agents_contract(self):
        """As the page has it, run for an agent of ten lines."""
        *_, contract = python(PLUGINS)
        package = types.ModuleType("my_package")
        package.MyAgent = FolderAgent
        sys.modules["my_package"] = package
        self.addCleanup(sys.modules.pop, "my_package")
        found = {}
        exec(contract, found)
        tests = [name for name in dir(found["MyAgentTests"]) if name.startswith("test_")]
        result = unittest.TestResult()
        for name in tests:
            found["MyAgentTests"](name).run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (len(tests), [], []))

    def test_the_entry_point_is_that_of_the_example(self):
        (block,) = (block for block in blocks(PLUGINS) if block.startswith("[options.entry_points]"))
        told, real = ConfigParser(), ConfigParser()
        told.read_string(block)
        real.read(ROOT / "examples/store_plugin/setup.cfg")
        section = "options.entry_points"
        self.assertEqual(told[section]["mailplat.stores"], real[section]["mailplat.stores"])

    def test_all_abilities_are_told(self):
        told = set(re.findall(r"(?m)^``(I\w+)`` ", PLUGINS))
        book = pathlib.Path(interfaces.__file__).read_text()
        abilities = book[book.index("\n# Abilities") : book.index("\n# Avatars")]
        self.assertEqual(told, set(re.findall(r"(?m)^class (I\w+)\(", abilities)))


class HostingGuideTests(TestCase):
    async def test_it_serves(self):
        directory = tempfile.mkdtemp(prefix="mp-", dir="/tmp")
        self.addCleanup(shutil.rmtree, directory)
        where = os.getcwd()
        os.chdir(directory)
        self.addCleanup(os.chdir, where)
        shutil.copy(self_signed(directory, "mx.example.test"), "privkey.pem")
        shutil.copy("privkey.pem", "fullchain.pem")
        ports = []

        class Endpoint(TCP4ServerEndpoint):
            def listen(self, factory):
                return super().listen(factory).addCallback(ports.append)

        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser(b"alice@example.test", b"secret")
        given = {
            "reactor": reactor,
            "checkers": [checker, AllowAnonymousAccess()],
            "imap_endpoint": Endpoint(reactor, 0, interface="127.0.0.1"),
            "smtp_endpoint": Endpoint(reactor, 0, interface="127.0.0.1"),
            "endpoint": Endpoint(reactor, 0, interface="127.0.0.1"),
        }
        portal, factories = python(HOSTING)
        (in_readme,) = python(README)
        exec(portal, given)
        await given["store"].start()
        await given["store"].create_account("alice@example.test")
        for block in (factories, in_readme):
            exec(block, given)
        imap, smtp, another = (port.getHost().port for port in ports)
        try:
            counts = await deferToThread(self.send_and_count, smtp, imap, another)
            self.assertEqual(counts, [b"1", b"1"])
        finally:
            for port in ports:
                await port.stopListening()
            await Deferred.fromCoroutine(self.stopped(given))

    def send_and_count(self, smtp, *imaps):
        with smtplib.SMTP("127.0.0.1", smtp, timeout=30) as client:
            client.sendmail("bob@elsewhere.test", ["alice@example.test"], LARGE)
        counts = []
        for port in imaps:
            client = imaplib.IMAP4("127.0.0.1", port, timeout=30)
            self.assertIn("STARTTLS", client.capabilities)
            client.login("alice@example.test", "secret")
            counts += client.select("INBOX")[1]
            client.logout()
        return counts

    async def stopped(self, given):
        for name in ("imap", "smtp"):
            await given[name].stop(10)
        await given["store"].stop()
