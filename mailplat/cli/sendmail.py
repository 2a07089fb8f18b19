"""
`mailplat-sendmail`: what programs expect to find as /usr/sbin/sendmail.

cron, git, PHP, mutt and many others hand their mail to a program of that name, with options
that sendmail once had.  Those that make sense here are obeyed, the others are passed over as
long as nothing is lost by it:

    -t            recipients from To, Cc and Bcc, besides those on the command line
    -i, -oi       a line of a dot alone does not end the message
    -f, -r ADDR   the sender; <> or an empty one for nobody
    -F NAME       the sender's name, if there is no From
    -N never|success,failure,delay    which reports the sender wants (RFC 3461)
    -R full|hdrs  how much of the message a report of failure brings back
    -V ENVID      a name for the message, which reports mention
    -B 7bit|8bitmime
    -bm           send (what it does anyway)
    -bp           show the queue, as `mailplat queue list` does; so does the name mailq
    -q...         nothing to be done: the server sees to its queue

The configuration is /etc/mailplat/mailplat.toml, or the file that MAILPLAT_CONFIG names.  It has
no option, so that who runs this by way of sudo cannot choose it.

Exit statuses are those of <sysexits.h>: 0 it was sent (delivered or queued), for all recipients; 64 the
words were wrong, 65 the message cannot be sent, 67 no such recipient, 68 no such domain, 69 another
reason not to send, 75 try again later, 77 not permitted, 78 the configuration is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mailplat.cli import main as mailplat
from mailplat.cli.directory import Directory
from mailplat.cli.send import Submission, WrongWords, read, submit
from mailplat.errors import (
    ConfigurationError,
    DataDirectoryError,
    InvalidMessage,
    MailError,
    MessageTooLarge,
    NoSuchDomain,
    NoSuchRecipient,
    NotPermitted,
    PluginError,
    RelayDenied,
    SenderRefused,
    TemporaryError,
)
from mailplat.values import ReportRequest

#: Where the configuration is, unless the environment says otherwise.
CONFIG = "/etc/mailplat/mailplat.toml"
VARIABLE = "MAILPLAT_CONFIG"

UNAVAILABLE, TEMPORARY = 69, 75

#: The first that fits counts.  What is wrong with the data directory can be mended, so it is temporary.
STATUSES: Sequence[tuple[tuple[type[MailError], ...], int]] = (
    ((MessageTooLarge, InvalidMessage), 65),
    ((NoSuchRecipient,), 67),
    ((NoSuchDomain,), 68),
    ((TemporaryError, DataDirectoryError), TEMPORARY),
    ((SenderRefused, RelayDenied, NotPermitted), 77),
    ((WrongWords,), 64),
    ((ConfigurationError, PluginError), 78),
    ((MailError,), UNAVAILABLE),
)

#: Options that take the rest of their word, or the next word.
_WITH_VALUE = frozenset("fFrBNRVohLpXOCAM")

#: Options that take the rest of their word, if there is any.
_WITH_REST = frozenset("bqed")


@dataclass
class Words:
    """
    A command line of sendmail, understood.

    Attributes:
        mode: "m" to send, "p" to show the queue, "" for nothing to do.
        dot: a line of a dot alone ends the message.
    """

    mode: str = "m"
    dot: bool = True
    from_header: bool = False
    sender: str | None = None
    name: str | None = None
    body: str = ""
    returns: str = ""
    envelope_id: str = ""
    notify: frozenset[str] | None = None
    recipients: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, arguments: Sequence[str]) -> Words:
        """
        Raises:
            WrongWords.
        """
        words = cls()
        waiting = list(arguments)
        while waiting:
            word = waiting.pop(0)
            if word == "--":
                words.recipients += waiting
                break
            if not word.startswith("-") or word == "-":
                words.recipients.append(word)
                continue
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                value = ""
                if letter in _WITH_VALUE:
                    if not letters and not waiting:
                        raise WrongWords(f"-{letter} needs a value")
                    value, letters = letters or waiting.pop(0), ""
                elif letter in _WITH_REST:
                    value, letters = letters, ""
                words._take(letter, value)
        return words

    def _take(self, letter: str, value: str) -> None:
        if letter == "t":
            self.from_header = True
        elif letter == "i" or (letter == "o" and value == "i"):
            self.dot = False
        elif letter in "fr":
            self.sender = value
        elif letter == "F":
            self.name = value
        elif letter == "q":
            self.mode = ""
        elif letter == "b":
            if value not in ("m", "p"):
                raise WrongWords(f"-b{value} is not supported")
            self.mode = value
        elif letter == "B":
            self.body = _one_of("B", value, ("7BIT", "8BITMIME"))
        elif letter == "R":
            self.returns = _one_of("R", value, ("FULL", "HDRS"))
        elif letter == "V":
            if not value.isascii() or not value.isprintable() or len(value) > 100:
                raise WrongWords("-V needs up to 100 printable characters")
            self.envelope_id = value
        elif letter == "N":
            asked = frozenset(value.upper().split(","))
            if asked == {"NEVER"}:
                asked = frozenset()
            elif not asked <= {"SUCCESS", "FAILURE", "DELAY"}:
                raise WrongWords("-N needs never, or some of success,failure,delay")
            self.notify = asked
        elif letter == "C":
            raise WrongWords(f"-C is not supported: the configuration is {CONFIG}, or what {VARIABLE} names")
        elif not letter.isalnum():
            raise WrongWords(f"-{letter} is not supported")
        # Others tuned a sendmail of old and change nothing here.


def _one_of(letter: str, value: str, known: Sequence[str]) -> str:
    if value.upper() not in known:
        raise WrongWords(f"-{letter} needs {' or '.join(known).lower()}")
    return value.upper()


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run as sendmail; the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    environment = os.environ if environment is None else environment
    config = environment.get(VARIABLE) or CONFIG
    try:
        words = Words.read(arguments)
        if argv is None and os.path.basename(sys.argv[0]) == "mailq":
            words.mode = "p"
        if words.mode == "p":
            return UNAVAILABLE if mailplat.main(["queue", "list", "--config", config]) else 0
        if not words.mode and not words.recipients and not words.from_header:
            return 0
        if not words.recipients and not words.from_header:
            raise WrongWords("say who is to get it, or -t")
        directory = Directory(argparse.Namespace(config=config, data=None, store=None))
        draft = read(directory.settings.message_size_limit, words.dot)
        submission = Submission(
            draft,
            words.recipients,
            words.from_header,
            words.sender,
            words.name,
            words.body,
            words.returns,
            words.envelope_id,
            ReportRequest(words.notify),
        )
        submit(directory, submission, environment)
    except MailError as error:
        for line in str(error).splitlines():
            print(f"sendmail: {line}", file=sys.stderr)
        return next(status for classes, status in STATUSES if isinstance(error, classes))
    except KeyboardInterrupt:
        return TEMPORARY
    return 0


if __name__ == "__main__":
    sys.exit(main())
