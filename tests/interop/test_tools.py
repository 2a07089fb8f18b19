"""mbsync, curl, swaks, msmtp and neomutt: send with one, read with another."""

import os
import pathlib
import re
import tempfile
import unittest

from tests.interop.house import MESSAGES, PASSWORD, House, address, has, tool, without_prefix


class Tools(unittest.TestCase):
    """A fresh house and a scratch home for each test."""

    def setUp(self):
        self.house = House().start()
        self.addCleanup(self.house.stop)
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.home = pathlib.Path(scratch.name)

    def arrived(self, user="alice"):
        return [without_prefix(body) for body in self.house.bodies(user)]


@unittest.skipUnless(has("curl"), "curl is not installed")
class CurlTests(Tools):
    def url(self, protocol, path=""):
        return f"{protocol}://127.0.0.1:{self.house.port[protocol]}/{path}"

    def test_send_and_read(self):
        file = self.home / "message"
        for message in MESSAGES.values():
            file.write_bytes(message)
            tool("curl", "-sS", self.url("smtp"), "--mail-from", "a@elsewhere.test",
                 "--mail-rcpt", address("alice"), "--upload-file", str(file))  # fmt: skip
        expected = list(MESSAGES.values())
        login = ("-u", f"{address('alice')}:{PASSWORD}")
        for number, message in enumerate(expected, 1):
            found = tool("curl", "-sS", *login, self.url("imap", f"INBOX;MAILINDEX={number}"))
            self.assertEqual(without_prefix(found), message)
            found = tool("curl", "-sS", *login, self.url("pop3", str(number)))
            self.assertEqual(without_prefix(found), message)
            found = tool("curl", "-ksS", *login, self.url("imaps", f"INBOX;MAILINDEX={number}"))
            self.assertEqual(without_prefix(found), message)
            found = tool("curl", "-ksS", "--login-options", "AUTH=PLAIN", *login, self.url("pop3s", str(number)))
            self.assertEqual(without_prefix(found), message)

    def test_append(self):
        file = self.home / "message"
        file.write_bytes(MESSAGES["multipart"])
        login = ("-u", f"{address('alice')}:{PASSWORD}")
        tool("curl", "-sS", *login, self.url("imap", "Drafts"), "--upload-file", str(file))
        self.assertEqual(self.house.bodies(mailbox="Drafts"), [MESSAGES["multipart"]])

    def test_submission(self):
        file = self.home / "message"
        file.write_bytes(MESSAGES["plain"])
        tool("curl", "-ksS", f"smtp://127.0.0.1:{self.house.port['submission']}/", "--ssl-reqd",
             "-u", f"{address('bob')}:{PASSWORD}", "--mail-from", address("bob"),
             "--mail-rcpt", address("alice"), "--upload-file", str(file))  # fmt: skip
        self.assertIn(b"Hello.", self.arrived()[0])


@unittest.skipUnless(has("swaks"), "swaks is not installed")
class SwaksTests(Tools):
    def swaks(self, *words, port="smtp"):
        return tool("swaks", "--server", "127.0.0.1", "--port", str(self.house.port[port]),
                    "--from", address("bob"), "--to", address("alice"), "--helo", "client.example.test", *words)  # fmt: skip

    def test_plain_tls_and_auth(self):
        self.swaks("--header", "Subject: one")
        self.swaks("--header", "Subject: two", "--pipeline")
        self.swaks("--header", "Subject: three", "--tls")
        for mechanism in ("PLAIN", "LOGIN"):
            self.swaks("--header", f"Subject: {mechanism}", "--tls", "--auth", mechanism,
                       "--auth-user", address("bob"), "--auth-password", PASSWORD, port="submission")  # fmt: skip
        subjects = [body.partition(b"Subject: ")[2].partition(b"\r\n")[0] for body in self.arrived()]
        self.assertEqual(subjects, [b"one", b"two", b"three", b"PLAIN", b"LOGIN"])

    def test_lmtp(self):
        tool("swaks", "--protocol", "LMTP", "--socket", str(self.house.lmtp), "--from", address("bob"),
             "--to", f"{address('alice')},{address('carol')}")  # fmt: skip
        self.assertEqual((len(self.arrived()), len(self.arrived("carol"))), (1, 1))


@unittest.skipUnless(has("msmtp"), "msmtp is not installed")
class MsmtpTests(Tools):
    def test_submission(self):
        for mechanism in ("plain", "login", "scram-sha-256"):
            settings = self.home / "msmtprc"
            settings.write_text(
                f"account default\nhost 127.0.0.1\nport {self.house.port['submission']}\nfrom {address('bob')}\n"
                f"auth {mechanism}\nuser {address('bob')}\npassword {PASSWORD}\n"
                "tls on\ntls_starttls on\ntls_certcheck off\n"
            )
            settings.chmod(0o600)
            tool("msmtp", "-C", str(settings), address("alice"), stdin=MESSAGES["dots"].replace(b"\r\n", b"\n"))
        for body in self.arrived():
            self.assertTrue(body.endswith(MESSAGES["dots"].partition(b"\r\n\r\n")[2]), body)
        self.assertEqual(len(self.arrived()), 3)


@unittest.skipUnless(has("mbsync"), "mbsync is not installed")
class MbsyncTests(Tools):
    def setUp(self):
        super().setUp()
        (self.home / "mail").mkdir()
        self.settings = self.home / "mbsyncrc"
        self.settings.write_text(
            f"IMAPAccount house\nHost 127.0.0.1\nPort {self.house.port['imap']}\nUser {address('alice')}\n"
            f"Pass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\n\nIMAPStore far\nAccount house\n\n"
            f"MaildirStore near\nPath {self.home}/mail/\nInbox {self.home}/mail/INBOX\nSubFolders Verbatim\n\n"
            "Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nRemove Both\nExpunge Both\n"
            "Sync All\nSyncState *\n"
        )

    def sync(self):
        tool("mbsync", "-c", str(self.settings), "-a", timeout=120)

    def files(self, mailbox="INBOX"):
        folder = self.home / "mail" / mailbox
        return sorted(file for part in ("cur", "new") for file in (folder / part).iterdir())

    def near(self, file):
        """A message as it came from far; mbsync adds a mark of its own to each it stores."""
        return without_prefix(re.sub(rb"X-TUID: .*\r\n", b"", file.read_bytes().replace(b"\n", b"\r\n")))

    def test_both_ways(self):
        for message in MESSAGES.values():
            self.house.send(message)
        with self.house.imap() as client:
            client.create("Projects/House")
            client.append("Projects/House", "(\\Flagged)", None, MESSAGES["plain"])
        self.sync()
        near = sorted(self.near(file) for file in self.files())
        far = sorted(MESSAGES.values())
        self.assertEqual(near, far)
        (flagged,) = self.files("Projects/House")
        self.assertIn("F", flagged.name.rpartition(",")[2])

        # Near: a flag, a delete, a new message, a new folder.  Far: a flag, a delete.
        files = self.files()
        seen = files[0]
        os.rename(seen, self.home / "mail/INBOX/cur" / (seen.name.partition(":")[0] + ":2,RS"))
        trashed = files[1]
        gone = self.near(trashed)
        os.rename(trashed, self.home / "mail/INBOX/cur" / (trashed.name.partition(":")[0] + ":2,T"))
        for part in ("cur", "new", "tmp"):
            (self.home / "mail/Near Only" / part).mkdir(parents=True)
        (self.home / "mail/Near Only/cur/1.a.b:2,S").write_bytes(b"Subject: from near\n\nhello\n")
        with self.house.imap() as client:
            client.select("Projects/House")
            client.uid("STORE", "1", "+FLAGS", "(\\Deleted)")
            client.expunge()
        self.sync()
        self.sync()
        self.assertEqual(self.files("Projects/House"), [])
        (body,) = self.house.bodies(mailbox='"Near Only"')
        self.assertEqual(re.sub(rb"X-TUID: .*\r\n", b"", body), b"Subject: from near\r\n\r\nhello\r\n")
        self.assertEqual(sorted(self.arrived()), sorted(message for message in far if message != gone))
        with self.house.imap() as client:
            client.select()
            _, answered = client.uid("SEARCH", "ANSWERED", "SEEN")
            self.assertEqual(len(answered[0].split()), 1)
            client.select('"Near Only"')
            self.assertEqual(client.uid("SEARCH", "SEEN")[1], [b"1"])


@unittest.skipUnless(has("neomutt"), "neomutt is not installed")
class NeomuttTests(Tools):
    def test_send(self):
        settings = self.home / "muttrc"
        settings.write_text(
            f'set smtp_url="smtp://{address("bob").replace("@", "%40")}@127.0.0.1:{self.house.port["submission"]}/"\n'
            f'set smtp_pass="{PASSWORD}"\nset smtp_authenticators="plain"\nset ssl_starttls=no\n'
            f'set ssl_force_tls=no\nset from="{address("bob")}"\nset copy=no\nset use_from=yes\n'
        )
        tool("neomutt", "-n", "-F", str(settings), "-s", "from neomutt", "--", address("alice"),
             stdin=b"A body.\n", home=str(self.home))  # fmt: skip
        (body,) = self.arrived()
        self.assertIn(b"Subject: from neomutt\r\n", body)
        self.assertTrue(body.endswith(b"\r\n\r\nA body.\r\n"))
