"""
The classes of twisted.mail, for their own virtual environment: twisted_server.py DIRECTORY SMTP IMAP

SMTP delivers into its maildir; the file and its directory are synced in a thread before 250
is said.  IMAP serves mailboxes in memory, as twisted.mail has no stored IMailbox.
"""

import email
import io
import os
import sys
from email.utils import formatdate

from twisted.cred import checkers, credentials, error, portal
from twisted.internet import defer, protocol, reactor, threads
from twisted.mail import imap4, maildir, smtp
from zope.interface import implementer

ROOT, SMTP_PORT, IMAP_PORT = sys.argv[1:4]


def sync(path):
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class DurableMessage(maildir.MaildirMessage):
    @defer.inlineCallbacks
    def eomReceived(self):
        self.fp.flush()
        yield threads.deferToThread(os.fsync, self.fp.fileno())
        yield maildir.MaildirMessage.eomReceived(self)
        yield threads.deferToThread(sync, os.path.dirname(self.finalName))


@implementer(smtp.IMessageDelivery)
class Delivery:
    def receivedHeader(self, helo, origin, recipients):
        return b"Received: from " + helo[0] + b" by mx.bench.example; " + formatdate().encode()

    def validateFrom(self, helo, origin):
        return origin

    def validateTo(self, user):
        if user.dest.domain != b"bench.example":
            raise smtp.SMTPBadRcpt(user)
        directory = os.path.join(ROOT, "users", os.path.basename(user.dest.local.decode()))
        if not os.path.isdir(directory):
            os.makedirs(os.path.dirname(directory), exist_ok=True)
            maildir.initializeMaildir(directory.encode())
        return lambda: self.message(directory, str(user.dest).encode())

    def message(self, directory, address):
        name = maildir._generateMaildirName().decode()
        new = os.path.join(directory, "tmp", name)
        return DurableMessage(address, open(new, "wb"), new, os.path.join(directory, "new", name))


class SMTPFactory(smtp.SMTPFactory):
    protocol = smtp.ESMTP

    def buildProtocol(self, addr):
        built = smtp.SMTPFactory.buildProtocol(self, addr)
        built.delivery = Delivery()
        built.challengers = {}
        return built


class Part:
    def __init__(self, parsed):
        self.parsed = parsed

    def getHeaders(self, negate, *names):
        wanted = {name.lower() if isinstance(name, str) else name.decode().lower() for name in names}
        return {key: str(value) for key, value in self.parsed.items() if (key.lower() in wanted) != negate}

    def getBodyFile(self):
        payload = self.parsed.get_payload()
        return io.BytesIO(payload.encode("utf-8", "surrogateescape") if isinstance(payload, str) else b"")

    def getSize(self):
        return len(self.parsed.as_bytes())

    def isMultipart(self):
        return self.parsed.is_multipart()

    def getSubPart(self, part):
        return Part(self.parsed.get_payload(part))


@implementer(imap4.IMessage, imap4.IMessageFile)
class Message(Part):
    def __init__(self, uid, raw, flags, date):
        self.uid, self.raw, self.flags, self.date = uid, raw, set(flags), date
        self._parsed = None

    @property
    def parsed(self):
        if self._parsed is None:
            self._parsed = email.message_from_bytes(self.raw)
        return self._parsed

    def getUID(self):
        return self.uid

    def getFlags(self):
        return self.flags

    def getInternalDate(self):
        return self.date

    def getSize(self):
        return len(self.raw)

    def getBodyFile(self):
        return io.BytesIO(self.raw[self.raw.find(b"\r\n\r\n") + 4 :])

    def open(self):
        return io.BytesIO(self.raw)


@implementer(imap4.IMailbox)
class Mailbox:
    def __init__(self):
        self.messages = []
        self.next = 1
        self.listeners = []

    def getUIDValidity(self):
        return 1

    def getUIDNext(self):
        return self.next

    def getUID(self, message):
        return self.messages[message - 1].uid

    def getMessageCount(self):
        return len(self.messages)

    def getRecentCount(self):
        return 0

    def getUnseenCount(self):
        return sum("\\Seen" not in message.flags for message in self.messages)

    def isWriteable(self):
        return True

    def destroy(self):
        pass

    def requestStatus(self, names):
        return imap4.statusRequestHelper(self, names)

    def addListener(self, listener):
        self.listeners.append(listener)
        return True

    def removeListener(self, listener):
        if listener in self.listeners:
            self.listeners.remove(listener)
        return True

    def addMessage(self, message, flags=(), date=None):
        self.messages.append(Message(self.next, message.read(), flags, date or "01-Jan-2024 08:00:00 +0000"))
        self.next += 1
        for listener in list(self.listeners):
            listener.newMessages(len(self.messages), None)
        return defer.succeed(len(self.messages))

    def getFlags(self):
        return ["\\Seen", "\\Deleted", "\\Flagged", "\\Answered", "\\Draft"]

    def getHierarchicalDelimiter(self):
        return "."

    def expunge(self):
        gone = [message.uid for message in self.messages if "\\Deleted" in message.flags]
        self.messages = [message for message in self.messages if "\\Deleted" not in message.flags]
        return gone

    def _chosen(self, chosen, uid):
        chosen.last = self.next - 1 if uid else len(self.messages)
        for number, message in enumerate(self.messages, 1):
            if (message.uid if uid else number) in chosen:
                yield number, message

    def fetch(self, messages, uid):
        return list(self._chosen(messages, uid))

    def store(self, messages, flags, mode, uid):
        changed = {}
        for number, message in self._chosen(messages, uid):
            kept = set() if mode == 0 else message.flags
            message.flags = kept - set(flags) if mode == -1 else kept | set(flags)
            changed[number] = message.flags
        return changed


class Account(imap4.MemoryAccount):
    def _emptyMailbox(self, name, id):
        return Mailbox()


@implementer(checkers.ICredentialsChecker)
class AnyUser:
    credentialInterfaces = (credentials.IUsernamePassword,)

    def requestAvatarId(self, given):
        return given.username if given.checkPassword(b"pass") else defer.fail(error.UnauthorizedLogin())


@implementer(portal.IRealm)
class Realm:
    def __init__(self):
        self.accounts = {}

    def requestAvatar(self, avatarId, mind, *interfaces):
        if avatarId not in self.accounts:
            account = self.accounts[avatarId] = Account(avatarId)
            account.create("INBOX")
        return imap4.IAccount, self.accounts[avatarId], lambda: None


class IMAPFactory(protocol.ServerFactory):
    def __init__(self):
        self.portal = portal.Portal(Realm(), [AnyUser()])

    def buildProtocol(self, addr):
        built = imap4.IMAP4Server()
        built.portal = self.portal
        built.factory = self
        return built


reactor.listenTCP(int(SMTP_PORT), SMTPFactory(), backlog=1024, interface="127.0.0.1")
reactor.listenTCP(int(IMAP_PORT), IMAPFactory(), backlog=1024, interface="127.0.0.1")
reactor.run()
