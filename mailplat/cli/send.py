"""
`mailplat send`: submit a message from a program on this host.

There is no connection and no login: the command routes the recipients as the server does and
puts the message into mailboxes and queue itself, in one commit, whether the server runs or
not.  So who may write to the data directory may send, and nobody else.

A message is taken for all its recipients or for none.
"""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mailplat.cli.directory import Directory
from mailplat.cli.directory import add_words as add_directory_words
from mailplat.delivery.intake import Intake, LocalReceiver
from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.queue import Queue
from mailplat.errors import ConfigurationError, MailError, MessageTooLarge, NoSuchRecipient, TemporaryError
from mailplat.interfaces import IQueueStore
from mailplat.message.compose import path
from mailplat.message.draft import Draft, addresses, from_field
from mailplat.storage.spool import Spool
from mailplat.values import Address, Envelope, ReportRequest

_ABOUT = """
Send a message that standard input holds, lines ended as this system ends them.  Date,
Message-ID and From are added where they are missing, Bcc is taken out.  The sender is
USER@DOMAIN of whoever runs this, in the first domain of the configuration, or any other
address in a domain of this server.
"""


def add_words(commands: Any) -> None:
    parser = commands.add_parser(
        "send", allow_abbrev=False, help="send a message from this host", description=_ABOUT
    )
    parser.set_defaults(run=_send)
    parser.add_argument("recipient", metavar="RECIPIENT", nargs="*", help="an address")
    parser.add_argument(
        "-t", "--to-header", action="store_true", help="send to the addresses in To, Cc and Bcc as well"
    )
    parser.add_argument("--sender", metavar="ADDRESS", help="who is told if it fails; <> for nobody")
    parser.add_argument("--name", help="the sender's name, for a From that is added")
    add_directory_words(parser)


class WrongWords(ConfigurationError):
    """The command line cannot be obeyed; the text says why."""


@dataclass(frozen=True, slots=True)
class Submission:
    """
    What is to be sent.

    Attributes:
        draft: the message.
        recipients: as they were given on the command line, besides those of the header.
        from_header: those of the header count as well.
        sender: as it was given; None for whoever runs the command, empty or "<>" for nobody.
        name: for a From field; None for the user's own.
        body: "7BIT" or "8BITMIME"; empty for what the message needs.
        returns, envelope_id: as in `Envelope`.
        request: what the sender wants to hear of each recipient.
    """

    draft: Draft
    recipients: Sequence[str] = ()
    from_header: bool = False
    sender: str | None = None
    name: str | None = None
    body: str = ""
    returns: str = ""
    envelope_id: str = ""
    request: ReportRequest = field(default_factory=ReportRequest)


def read(limit: int, dot: bool = False) -> Draft:
    """
    The message on standard input.

    Args:
        limit: octets it may have.
        dot: a line of a dot alone ends it.

    Raises:
        MessageTooLarge.
    """
    text = sys.stdin.buffer.read(limit + 1)
    if len(text) > limit:
        raise MessageTooLarge(f"The message is larger than {limit} octets")
    return Draft.read(text, dot)


def _send(words: argparse.Namespace) -> int:
    directory = Directory(words)
    draft = read(directory.settings.message_size_limit)
    submit(
        directory,
        Submission(draft, words.recipient, words.to_header, words.sender, words.name),
        os.environ,
    )
    return 0


def submit(directory: Directory, submission: Submission, environment: Mapping[str, str]) -> None:
    """
    Send, durably.

    Args:
        environment: with SUDO_USER, if there is one.

    Raises:
        MailError: nothing was sent.
    """
    domain = directory.naming.domains[0]
    user, full_name = whoami(environment)
    own = Address(user, domain)
    sender = own if submission.sender is None else _one_address(submission.sender, domain)
    recipients: list[Address] = []
    for text in submission.recipients:
        if not (found := addresses([os.fsencode(text)])):
            raise WrongWords(f"not an address: {text}")
        recipients += found
    if submission.from_header:
        recipients += submission.draft.recipients
    recipients = list(dict.fromkeys(_qualified(one, domain) for one in recipients))
    if not recipients:
        raise WrongWords("there are no recipients")

    draft = submission.draft
    message = draft.text
    if b"from" not in draft.names:
        name = full_name if submission.name is None else submission.name
        message = from_field(name, path(sender or own)) + message
    utf8 = draft.utf8 or not all(str(one).isascii() for one in (*recipients, sender or ""))
    envelope = Envelope(
        sender,
        body=submission.body or ("7BIT" if message.isascii() else "8BITMIME"),
        utf8=utf8,
        size=len(message),
        returns=submission.returns,
        envelope_id=submission.envelope_id,
        requests=dict.fromkeys(recipients, submission.request),
    )
    directory.with_queue(lambda store, queue: _submit(directory, store, queue, envelope, recipients, message))


async def _submit(
    directory: Directory,
    store: Any,
    queue_store: IQueueStore,
    envelope: Envelope,
    recipients: Sequence[Address],
    text: bytes,
) -> None:
    from twisted.internet import reactor

    settings = directory.settings
    clock: Any = reactor
    # Never started: the server works on what it makes.
    reporter: Any = None
    queue = Queue(queue_store, {}, reporter, clock, schedule=settings.limits["schedule"])
    intake = Intake(
        directory.router(store),
        LocalDelivery(store, clock),
        settings.hostname,
        clock,
        replace(settings.limits["intake"], message_size=settings.message_size_limit),
        queue=queue,
    )
    receiver = LocalReceiver(intake, os.getuid())
    await receiver.sender(envelope)
    problems: list[tuple[Address, MailError]] = []
    for recipient in recipients:
        try:
            await receiver.recipient(envelope, recipient)
        except MailError as error:
            problems.append((recipient, error))
        else:
            envelope = replace(envelope, recipients=(*envelope.recipients, recipient))
    if not problems:
        # All in memory: the spool's directory belongs to the server that runs.
        writer = Spool(directory.settings.data, clock, in_memory=len(text)).begin()
        await writer.write(text)
        message = await writer.finish()
        try:
            outcomes = await receiver.message(envelope, message)
        finally:
            message.close()
        problems = [(one.recipient, one.error) for one in outcomes if one.error is not None]
    if problems:
        raise _all_of(problems)


def _all_of(problems: Sequence[tuple[Address, MailError]]) -> MailError:
    """One error of the class that says most: what may be tried again goes first."""
    text = "\n".join(f"{path(recipient)}: {error.text}" for recipient, error in problems)
    errors = [error for _, error in problems]
    worst = next((error for error in errors if isinstance(error, TemporaryError)), errors[0])
    return type(worst)(text)


def whoami(environment: Mapping[str, str]) -> tuple[str, str]:
    """(login name, full name) of whoever runs this, also by way of sudo."""
    try:
        name = environment.get("SUDO_USER", "")
        found = pwd.getpwnam(name) if name else pwd.getpwuid(os.getuid())
    except KeyError:
        return f"uid{os.getuid()}", ""
    # passwd(5): the first part of the comment; "&" stands for the login name.
    full_name = found.pw_gecos.partition(",")[0].replace("&", found.pw_name.capitalize())
    return found.pw_name, full_name


def _one_address(text: str, domain: str) -> Address | None:
    if text.strip() in ("", "<>"):
        return None
    found = addresses([os.fsencode(text)])
    if len(found) != 1:
        raise WrongWords(f"not an address: {text}")
    return _qualified(found[0], domain)


def _qualified(address: Address, domain: str) -> Address:
    """With the first of our domains, if it has none."""
    if any(not c.isprintable() for c in str(address)):
        raise NoSuchRecipient("An address has characters that none may have")
    return address if address.domain else Address(address.local, domain)
