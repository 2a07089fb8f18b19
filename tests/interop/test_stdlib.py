"""smtplib, imaplib and poplib against a real server: what goes in comes out, byte for byte."""

import imaplib
import poplib
import smtplib
import ssl
import unittest

from tests.interop.house import MESSAGES, PASSWORD, House, address, without_prefix

CONTEXT = ssl.create_default_context()
CONTEXT.check_hostname = False
CONTEXT.verify_mode = ssl.CERT_NONE


class StandardLibraryTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.house = House().start()

    @classmethod
    def tearDownClass(cls):
        complaints = cls.house.complaints()
        cls.house.stop()
        if complaints:
            raise AssertionError(complaints)

    def clean(self, user="alice"):
        with self.house.imap(user) as client:
            client.select()
            client.uid("STORE", "1:*", "+FLAGS.SILENT", "(\\Deleted)")
            client.expunge()

    def test_smtp_to_imap(self):
        self.clean()
        for message in MESSAGES.values():
            self.house.send(message)
        self.assertEqual([without_prefix(body) for body in self.house.bodies()], list(MESSAGES.values()))

    def test_smtp_to_pop3(self):
        self.clean("bob")
        for message in MESSAGES.values():
            self.house.send(message, "bob")
        client = poplib.POP3("127.0.0.1", self.house.port["pop3"], timeout=30)
        client.user(address("bob"))
        client.pass_(PASSWORD)
        count, _ = client.stat()
        self.assertEqual(count, len(MESSAGES))
        for number, message in enumerate(MESSAGES.values(), 1):
            _, lines, _ = client.retr(number)
            self.assertEqual(without_prefix(b"".join(line + b"\r\n" for line in lines)), message)
            size = int(client.list(number).split()[2])
            self.assertEqual(size, sum(len(line) + 2 for line in lines))
        client.dele(1)
        client.quit()
        self.assertEqual(len(self.house.bodies("bob")), len(MESSAGES) - 1)

    def test_lmtp_answers_each(self):
        self.clean("carol")
        with smtplib.LMTP(str(self.house.lmtp), 0) as client:
            client.ehlo()
            client.mail("")
            self.assertEqual(client.rcpt(address("carol"))[0], 250)
            self.assertEqual(client.rcpt(address("nobody"))[0], 550)
            self.assertEqual(client.data(MESSAGES["plain"])[0], 250)
        self.assertEqual(without_prefix(self.house.bodies("carol")[0]), MESSAGES["plain"])

    def test_submission(self):
        self.clean("bob")
        with smtplib.SMTP("127.0.0.1", self.house.port["submission"], timeout=30) as client:
            client.starttls(context=CONTEXT)
            with self.assertRaises(smtplib.SMTPSenderRefused):
                client.sendmail(address("alice"), [address("bob")], MESSAGES["plain"])
            client.login(address("alice"), PASSWORD)
            client.sendmail(address("alice"), [address("bob")], MESSAGES["plain"])
            with self.assertRaises(smtplib.SMTPSenderRefused):
                client.sendmail(address("carol"), [address("bob")], MESSAGES["plain"])
            # What is for others is queued; where it goes from there, tests/interop/test_kill_outbound.py sees.
            client.sendmail(address("alice"), ["x@elsewhere.test"], MESSAGES["plain"])
        with smtplib.SMTP_SSL("127.0.0.1", self.house.port["submissions"], context=CONTEXT, timeout=30) as client:
            client.login("alice", PASSWORD)
            client.sendmail(address("alice"), [address("bob")], MESSAGES["plain"])
        self.assertEqual(len(self.house.bodies("bob")), 2)

    def test_no_relay(self):
        with smtplib.SMTP("127.0.0.1", self.house.port["smtp"], timeout=30) as client:
            for recipient in (
                "x@elsewhere.test",
                "x%elsewhere.test@example.test",
                '"x@elsewhere.test"@example.test',
                "elsewhere.test!x@example.test",
                "@example.test:x@elsewhere.test",
                "x@[192.0.2.1]",
            ):
                client.ehlo()
                client.mail("a@elsewhere.test")
                code, _ = client.docmd("RCPT", f"TO:<{recipient}>")
                self.assertEqual(code // 100, 5, recipient)

    def test_tls_everywhere(self):
        with imaplib.IMAP4("127.0.0.1", self.house.port["imap"], timeout=30) as client:
            client.starttls(CONTEXT)
            client.login(address("alice"), PASSWORD)
            client.select()
        with imaplib.IMAP4_SSL("127.0.0.1", self.house.port["imaps"], ssl_context=CONTEXT, timeout=30) as client:
            client.login(address("alice"), PASSWORD)
        client = poplib.POP3("127.0.0.1", self.house.port["pop3"], timeout=30)
        client.stls(CONTEXT)
        client.user(address("carol"))
        client.pass_(PASSWORD)
        client.quit()
        client = poplib.POP3_SSL("127.0.0.1", self.house.port["pop3s"], context=CONTEXT, timeout=30)
        client.user(address("carol"))
        client.pass_(PASSWORD)
        client.quit()

    def test_maildrop_is_held_by_one(self):
        first = poplib.POP3("127.0.0.1", self.house.port["pop3"], timeout=30)
        first.user(address("carol"))
        first.pass_(PASSWORD)
        second = poplib.POP3_SSL("127.0.0.1", self.house.port["pop3s"], context=CONTEXT, timeout=30)
        second.user(address("carol"))
        with self.assertRaisesRegex(poplib.error_proto, "IN-USE"):
            second.pass_(PASSWORD)
        first.quit()
        second.user(address("carol"))
        second.pass_(PASSWORD)
        second.quit()

    def test_append_search_store_copy(self):
        with self.house.imap("carol") as client:
            client.create("Work/Projects")
            for name, message in MESSAGES.items():
                flags = "(\\Seen important)" if name == "plain" else "()"
                kind, _ = client.append("Work/Projects", flags, '"01-Nov-2026 10:00:00 +0000"', message)
                self.assertEqual(kind, "OK")
            _, (count,) = client.select("Work/Projects")
            self.assertEqual(int(count), len(MESSAGES))
            self.assertEqual(client.uid("SEARCH", "KEYWORD", "important")[1], [b"1"])
            client.literal = "grüße".encode()
            self.assertEqual(client.uid("SEARCH", "CHARSET", "UTF-8", "SUBJECT")[1], [b"3"])
            client.literal = "ünïcödé".encode()
            self.assertEqual(client.uid("SEARCH", "CHARSET", "UTF-8", "TEXT")[1], [b"3"])
            client.uid("COPY", "1:2", "Archive")
            client.uid("MOVE", "3", "Trash")
            client.uid("STORE", "1", "+FLAGS", "(\\Deleted)")
            client.expunge()
            self.assertEqual(client.uid("SEARCH", "ALL")[1], [b"2 4 5 6"])
        self.assertEqual(self.house.bodies("carol", "Archive"), [MESSAGES["plain"], MESSAGES["dots"]])
        self.assertEqual(self.house.bodies("carol", "Trash"), [MESSAGES["8bit"]])
        self.assertEqual(
            self.house.bodies("carol", "Work/Projects"), [m for n, m in MESSAGES.items() if n not in ("plain", "8bit")]
        )

    def test_accounts_while_it_runs(self):
        def logs_in(password):
            with imaplib.IMAP4("127.0.0.1", self.house.port["imap"], timeout=30) as client:
                try:
                    return client.login(address("dave"), password)[0] == "OK"
                except imaplib.IMAP4.error as error:
                    self.assertIn("AUTHENTICATIONFAILED", str(error))
                    return False

        dave = address("dave")
        self.house.mailplat("account", "add", dave, "--password-stdin", stdin="first\n")
        self.assertIn(dave, self.house.mailplat("account", "list").stdout.split())
        self.assertTrue(logs_in("first"))
        self.house.mailplat("account", "password", dave, "--password-stdin", stdin="second\n")
        # The cache of what was right does not outlive the password.
        self.assertEqual([logs_in("first"), logs_in("second")], [False, True])
        self.house.mailplat("account", "remove", dave)
        self.assertFalse(logs_in("second"))
