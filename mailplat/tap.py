"""
`twistd mailplat`: its options, and what an operator sees of a start.
"""

from __future__ import annotations

import atexit
import gc
import os
import resource
import shlex
import shutil
import signal
import stat
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from twisted.cred import strcred
from twisted.internet.address import UNIXAddress
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.logfile import LogFile

from mailplat import __version__
from mailplat.config import load
from mailplat.errors import MailError
from mailplat.listening import Bound, shown
from mailplat.logs import text_observer
from mailplat.service import ACCOUNTS, MailService
from mailplat.settings import (
    DEFAULT_DATA,
    DEFAULT_DOMAIN,
    DEFAULT_MESSAGE_SIZE,
    DEFAULT_STORE,
    KINDS,
    Settings,
)

#: File descriptors to ask for: one a connection, and some.
DESCRIPTORS = 65536

#: Objects made and not yet freed, after which those are looked at for cycles.
YOUNG = 20_000

#: In the data directory: the first account, when there was nobody to show it to.
FIRST_ACCOUNT = "first-account"


#: The words that are given once, with their help.
_PARAMETERS = {
    "config": "Read settings from this TOML file.",
    "data": f"The data directory, made if it is missing.  [default: ./{DEFAULT_DATA}]",
    "hostname": "The name in greetings and trace fields.  [default: this machine's]",
    "certificate": "PEM file: certificate, then its chain.  [default: self-signed]",
    "key": "PEM file: the key, if it is not with the certificate.",
    "store": f"Where mail is kept: NAME or NAME:ARGUMENT (`mailplat plugins`).  [default: {DEFAULT_STORE}]",
    "relayhost": "Send mail for other hosts through this one: HOST or HOST:PORT.  [default: directly]",
    "plaintext-login": "Who may send a password without TLS: never, loopback or always.  [default: loopback]",
    "message-size-limit": f"In octets.  [default: {DEFAULT_MESSAGE_SIZE}]",
}


class Options(usage.Options):
    """The words of the command line; those of listeners, --domain and --auth may be repeated."""

    synopsis = "[options]"
    longdesc = (
        "A mail server.  Without any options it listens on loopback, keeps its data in "
        f"./{DEFAULT_DATA}, makes a certificate and a first account, and says how to try it.  If any "
        "listener is named, only the named ones start.  ENDPOINT is a Twisted endpoint string, "
        "such as tcp:25 or tcp:143:interface=127.0.0.1.  A configuration file knows the same words and "
        "more; the command line overrides it."
    )

    optParameters = [[word, None, None, about] for word, about in _PARAMETERS.items()]

    def __init__(self) -> None:
        self._lists: dict[str, list[str]] = {}
        super().__init__()

    def _add(self, word: str, value: str) -> None:
        self._lists.setdefault(word, []).append(value)

    def opt_domain(self, name: str) -> None:
        self._add("domain", name)

    opt_domain.__doc__ = (
        f"A domain whose mail is for this server; may be repeated.  [default: {DEFAULT_DOMAIN}]"
    )

    def opt_auth(self, spec: str) -> None:
        self._add("auth", spec)

    opt_auth.__doc__ = (
        "Who may log in: a cred checker as NAME or NAME:ARGUMENT, or `accounts` for the account file; "
        "may be repeated, then they are asked in this order.  [default: accounts]"
    )

    def opt_help_auth_types(self) -> None:
        """List the kinds of --auth that are installed, and exit."""
        print(f"{ACCOUNTS:12} The account file of the data directory; the argument is another file there.")
        for factory in sorted(strcred.findCheckerFactories(), key=lambda factory: factory.authType):
            about = factory.authHelp.strip().partition("\n\n")[0]
            print(f"{factory.authType:12} {' '.join(about.split())}")
        raise SystemExit(0)

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"mailplat {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        words = {word: self[word] for word in _PARAMETERS if word != "config"}
        try:
            self.settings: Settings = load(self["config"], {**words, **self._lists})
        except MailError as error:
            # One line for each mistake.
            raise usage.UsageError(error.text) from None


def _listener_option(word: str, about: str) -> Any:
    def add(self: Options, endpoint: str) -> None:
        self._add(word, endpoint)

    add.__doc__ = f"Listen on this ENDPOINT for {about}; may be repeated."
    return add


for _kind in KINDS:
    setattr(Options, f"opt_{_kind.word}", _listener_option(_kind.word, _kind.about))


class TwistdService(MailService):
    """
    The service as twistd runs it: what stops a start is one line, and an exit status.

    Args:
        twistd: its own options; empty for `twist`, which stays in the foreground.
    """

    def __init__(self, settings: Settings, reactor: Any, twistd: Mapping[str, Any]) -> None:
        super().__init__(settings, reactor, announce)
        self._twistd = twistd
        #: twistd goes to the background; the process that was started waits for word from this
        #: one, and gets it for an ordinary exception only.
        self._daemon = not twistd.get("nodaemon", True)

    def setServiceParent(self, parent: Any) -> None:
        super().setServiceParent(parent)
        # The application that twistd made for us; before it starts it looks there for who writes its log.
        try:
            file = _log_file(self._twistd, self._reactor)
        except OSError as error:
            raise SystemExit(f"mailplat: cannot write the log: {error}") from error
        if file is not None:
            parent.setComponent(ILogObserver, text_observer(file))

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except MailError as error:
            self._refuse(error)

    def startService(self) -> None:
        _raise_descriptor_limit()
        try:
            super().startService()
        except MailError as error:
            self._refuse(error)
        self.started.addCallbacks(_collect_seldom, self._give_up)

    def _refuse(self, error: MailError) -> NoReturn:
        if self._daemon:
            raise error
        raise SystemExit(f"mailplat: {error}") from error

    def _give_up(self, failure: Any) -> None:
        # The reactor runs already, and twistd knows of no way to end with a status.
        self.log.critical("mailplat: {error}", error=str(failure.value))
        atexit.register(_exit_with_failure)
        self._reactor.stop()


def makeService(options: Options) -> MailService:
    from twisted.internet import reactor

    return TwistdService(options.settings, reactor, options.parent or {})


def announce(service: MailService) -> None:
    """
    Tell the operator what runs, where, and how to try it.

    Not through the log, which others may read: to standard output.
    """
    terminal = sys.__stdout__
    text = "\n".join(_table(service)) + "\n"
    if service.first_account is not None:
        text += _first_account(service, terminal is not None and _is_read(terminal))
    if terminal is not None:
        try:
            terminal.write("\n" + text + "\n")
            terminal.flush()
        except (OSError, ValueError):
            # Closed meanwhile; nobody reads it.
            service.log.info("nobody reads standard output")


def _is_read(stream: Any) -> bool:
    """
    Whether what is written there is for those who start the server, and for them alone: a terminal, or
    a pipe or file of theirs; not the journal, which is a socket, and not /dev/null.
    """
    try:
        mode = os.fstat(stream.fileno()).st_mode
        return stream.isatty() or stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    except (OSError, ValueError):
        # Closed meanwhile.
        return False


def _first_account(service: MailService, printed: bool) -> str:
    assert service.first_account is not None
    name, password = service.first_account
    if printed:
        return (
            f"\nThe first account was made; this is shown only once:\n\n    {name}\n    {password}\n\n"
            f"Another password:  {_own_command()} account password {name} --data "
            f"{shlex.quote(service.settings.data)}\n"
        )
    path = os.path.join(service.settings.data, FIRST_ACCOUNT)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(f"{name}\n{password}\n")
    return f"\nThe first account was made; its name and password are in {path}\n"


def _own_command() -> str:
    """What to type for `mailplat`: where it stands, if the shell would not find it."""
    command = os.path.join(os.path.dirname(sys.executable), "mailplat")
    found = shutil.which("mailplat")
    if not os.path.exists(command) or (found is not None and os.path.samefile(found, command)):
        return "mailplat"
    return shlex.quote(command)


def _table(service: MailService) -> Sequence[str]:
    lines = [
        f"mailplat {__version__} on {service.settings.data}, for {', '.join(service.settings.domains)}",
        "",
    ]
    account = service.first_account[0] if service.first_account else f"you@{service.settings.domains[0]}"
    places = [shown(bound.address) for bound in service.bound]
    width = max(map(len, places), default=0)
    for bound, place in zip(service.bound, places, strict=True):
        kind = bound.listener.kind
        lines.append(f"{kind.word:12} {place:{width}}  {kind.about}")
        lines.append(f"{'':12} {_how_to_try(service, bound, account)}")
    for listener in service.settings.left_out:
        word = listener.kind.word
        path = os.path.join(service.settings.data, word)
        lines.append(f"{word:12} not started: {path} is too long for a UNIX socket")
        lines.append(f"{'':12} give --data a shorter path")
    return lines


def _how_to_try(service: MailService, bound: Bound, account: str) -> str:
    word, place = bound.listener.kind.word, shown(bound.address)
    if isinstance(bound.address, UNIXAddress):
        protocol = {"submission": "smtp"}.get(bound.listener.kind.service, bound.listener.kind.service)
        starttls = "" if bound.listener.kind.tls else f" -starttls {protocol}"
        return f"$ openssl s_client -quiet{starttls} -unix {shlex.quote(place)}"
    # A server bound to all addresses is tried on this machine's own.
    place = place.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
    if service.certificate is not None:
        secure, trust = place, f" --cacert {shlex.quote(service.certificate)}"
    else:
        # A certificate of the operator's is for the server's name, wherever that leads from here.
        secure, trust = f"{service.settings.hostname}:{bound.address.port}", f" --connect-to ::{place}"
    mail = 'echo "Subject: Hello" |'
    login = f"--user {account}"
    to = f"--mail-rcpt {account} --crlf -T -"
    send = f"{login} --mail-from {account} {to}"
    return {
        "smtp": f"$ {mail} curl smtp://{place} {to}",
        "submission": f"$ {mail} curl smtp://{place} {send}",
        "submissions": f"$ {mail} curl smtps://{secure}{trust} {send}",
        "lmtp": f"$ openssl s_client -quiet -starttls lmtp -connect {place}",
        "imap": f"$ curl 'imap://{place}/INBOX;MAILINDEX=1' {login}",
        "imaps": f"$ curl 'imaps://{secure}/INBOX;MAILINDEX=1'{trust} {login}",
        "pop3": f"$ curl pop3://{place}/1 {login}",
        "pop3s": f"$ curl pop3s://{secure}/1{trust} {login}",
    }[word]


def _log_file(twistd: Mapping[str, Any], reactor: Any) -> Any:
    """Where twistd writes its log by these options of its own; None if that is no file, or wrong."""
    name, daemon = twistd.get("logfile"), not twistd.get("nodaemon", True)
    if not twistd or twistd.get("logger") or twistd.get("syslog") or (daemon and name == "-"):
        return None
    if name == "-" or not (name or daemon):
        return sys.stdout
    file = LogFile.fromFullPath(name or "twistd.log")
    # As twistd has it: unless somebody else wants the signal, it begins a new file.
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
    return file


def _raise_descriptor_limit() -> None:
    """Have room for many connections, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _collect_seldom(_: object) -> None:
    """
    Nearly everything is freed by its reference count.  What is there once the server runs stays, and
    needs no looking at; a command over 10,000 messages must not be interrupted a hundred times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)


def _exit_with_failure() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(1)
