"""
An IMAP session: commands one after the other, run against the avatar that login gave.

Commands are executed in the order they came, each whole before the next begins, so that no two
of them can be ambiguous (RFC 3501 §5.5); their answers leave together.  What happened in the
mailbox is told before a command's tagged response, or at once while idling.

`mailboxes` has the commands that work on names, `messages` those on the selected mailbox; here is
what holds them together.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mailplat import __version__, errors
from mailplat.auth import login
from mailplat.imap import commands, responses
from mailplat.imap.engine import Bad, Continue, Done, Fatal, IMAPEngine, No, Response, State
from mailplat.imap.limits import Limits
from mailplat.imap.mailboxes import MailboxCommands
from mailplat.imap.messages import MessageCommands
from mailplat.imap.outlines import Outlines
from mailplat.imap.refusal import GiveUp, Refused, code_of
from mailplat.imap.view import Selected, Views
from mailplat.interfaces import IMailAccount, IMovesMessages, ISpool
from mailplat.message.compose import InternalDates
from mailplat.wire import Engine, Stopping, TimedOut, Wake, Wire, WireError

#: What every connection offers, login or not.
ALWAYS = (
    "IMAP4rev1", "LITERAL+", "SASL-IR", "ID", "ENABLE", "IDLE", "NAMESPACE", "UIDPLUS", "UNSELECT",
    "CHILDREN", "SPECIAL-USE", "ESEARCH", "CONDSTORE",
)  # fmt: skip

#: Commands whose answer must not have EXPUNGE in it (RFC 3501 §7.4.1); their UID forms may.
_HOLDS_EXPUNGES = (commands.Fetch, commands.Store, commands.Search)

#: Commands that ask for news, so that the mailbox is asked even if it gave no hint.
_ASKS_FOR_NEWS = (commands.Noop, commands.Check)


class IMAPSession(MailboxCommands, MessageCommands):
    """
    One connection.

    Args:
        wire: the connection.
        portal: gives `IMailAccount`s.
        spool: where APPEND's messages go while they arrive.
        plaintext_login: who may send passwords without TLS: "never", "loopback", "always".
        limits: see `mailplat.imap.limits.Limits`.
        views, outlines, dates: shared by the connections of a server.
        clock: seconds since 1970, for the date of appended messages.
        later: `IReactorTime.callLater`.
        log: a `twisted.logger.Logger`.
    """

    def __init__(
        self,
        wire: Wire,
        portal: Portal,
        spool: ISpool,
        *,
        plaintext_login: str,
        limits: Limits,
        views: Views,
        outlines: Outlines,
        dates: InternalDates,
        clock: Callable[[], float],
        later: Callable[..., IDelayedCall],
        log: Logger,
    ) -> None:
        self._engine = IMAPEngine(limits)
        self.engine: Engine = self._engine
        self._wire = wire
        self._portal = portal
        self._spool = spool
        self._plaintext_login = plaintext_login
        self._limits = limits
        self._views = views
        self._outlines = outlines
        self._dates = dates
        self._clock = clock
        self._later = later
        self._log = log
        self._account: Any = None  # an IMailAccount
        self._logout: Callable[[], None] | None = None
        self._selected: Selected | None = None
        self._renderer: responses.RowRenderer | None = None
        self._condstore = False
        self._failed_logins = 0
        self._incidents = 0

    # From the greeting to the end

    async def run(self) -> None:
        """The session; `PeerGone` passes."""
        wire = self._wire
        wire.phase(self._limits.before_login)
        wire.write(responses.tagged(b"*", b"OK", "mailplat ready", self._capability_code()))
        try:
            event: object = None
            while self._engine.state is not State.LOGOUT:
                event = await wire.event(self._silence(isinstance(event, Continue)))
                if isinstance(event, commands.Command):
                    await self._command(event)
                else:
                    self._remark(event)
        except TimedOut:
            wire.write(b"* BYE Autologout: you were silent for too long\r\n")
        except Stopping:
            wire.write(b"* BYE The server is going down\r\n")
        finally:
            self._unselect()
            logout, self._logout = self._logout, None
            if logout is not None:
                logout()

    def _silence(self, in_literal: bool) -> float:
        limits = self._limits
        early = self._engine.state is State.NOT_AUTHENTICATED
        silence = limits.login_timeout if early else limits.idle_timeout
        return min(silence, limits.literal_timeout) if in_literal else silence

    def _remark(self, event: object) -> None:
        """An event of the engine that is not a command."""
        wire = self._wire
        match event:
            case Continue():
                wire.write(b"+ Go on\r\n")
            case Bad(tag, text):
                wire.write(responses.tagged(tag, b"BAD", text))
            case No(tag, code, text):
                wire.write(responses.tagged(tag, b"NO", text, code))
            case Fatal(text):
                wire.write(responses.tagged(b"*", b"BYE", text))
                self._engine.state = State.LOGOUT

    async def _command(self, command: commands.Command) -> None:
        tag, wire = command.tag, self._wire
        act = _ACTS[type(command)]
        try:
            text, code = await act(self, command)
            if act not in _TELLS_ITSELF:
                await self._tell(command)
            answer = responses.tagged(tag, b"OK", text, code)
        except Refused as refused:
            kind = b"BAD" if refused.code is None else b"NO"
            answer = responses.tagged(tag, kind, refused.text, refused.code or b"")
        except (errors.MalformedLogin, errors.LoginCancelled) as error:
            # RFC 3501 §6.2.2: a BAD for a cancelled exchange too.
            answer = responses.tagged(tag, b"BAD", error.text)
        except errors.MailError as error:
            answer = responses.tagged(tag, b"NO", error.text, code_of(error))
        except GiveUp as end:
            if end.text:
                wire.write(responses.tagged(b"*", b"BYE", end.text))
            else:
                self._incident(type(command).__name__)
            self._engine.state = State.LOGOUT
            return
        except WireError:
            raise
        except Exception:
            answer = responses.tagged(tag, b"NO", self._incident(type(command).__name__), b"SERVERBUG")
        wire.write(answer)
        if isinstance(command, commands.StartTLS) and answer[len(tag) + 1 :].startswith(b"OK"):
            wire.start_tls()
        if self._failed_logins >= self._limits.failed_logins:
            wire.write(b"* BYE Too many failed logins\r\n")
            self._engine.state = State.LOGOUT

    def _incident(self, what: str) -> str:
        """Log the exception being handled; the peer gets a number to quote and nothing else."""
        self._incidents += 1
        number = f"{self._wire.peer.connection}-{self._incidents}"
        self._log.failure(
            "{what} failed; incident {incident}, imap from {host}",
            what=what,
            incident=number,
            host=self._wire.peer.host,
        )
        return f"Internal error, incident {number}"

    # Any state

    def _capabilities(self) -> list[str]:
        wire = self._wire
        words = [*ALWAYS, f"APPENDLIMIT={self._limits.append_size}"]
        if self._account is not None:
            if IMovesMessages in self._account.abilities:
                words.append("MOVE")
            return words
        if wire.can_start_tls:
            words.append("STARTTLS")
        if not login.password_allowed(wire.peer, self._plaintext_login):
            words.append("LOGINDISABLED")
        mechanisms = login.mechanisms(self._portal, wire.peer, self._plaintext_login)
        return words + [f"AUTH={name}" for name in mechanisms]

    def _capability_code(self) -> bytes:
        return ("CAPABILITY " + " ".join(self._capabilities())).encode("ascii")

    async def _capability(self, command: commands.Capability) -> tuple[str, bytes]:
        self._wire.write(b"* %b\r\n" % self._capability_code())
        return "CAPABILITY completed", b""

    async def _noop(self, command: commands.Command) -> tuple[str, bytes]:
        return "Completed", b""

    async def _end(self, command: commands.Logout) -> tuple[str, bytes]:
        self._unselect()
        self._wire.write(b"* BYE Logging out\r\n")
        self._engine.state = State.LOGOUT
        return "LOGOUT completed", b""

    async def _id(self, command: commands.ID) -> tuple[str, bytes]:
        pairs = (("name", "mailplat"), ("version", __version__))
        listed = " ".join(f'"{name}" "{value}"' for name, value in pairs)
        self._wire.write(f"* ID ({listed})\r\n".encode("ascii"))
        return "ID completed", b""

    # Before login

    async def _start_tls(self, command: commands.StartTLS) -> tuple[str, bytes]:
        if not self._wire.can_start_tls:
            raise Refused("TLS is not available")
        return "Begin TLS negotiation now", b""

    async def _login(self, command: commands.Login) -> tuple[str, bytes]:
        if not login.password_allowed(self._wire.peer, self._plaintext_login):
            raise errors.PrivacyRequired
        peer = self._wire.peer
        entering = login.with_password(self._portal, command.user, command.password, peer, IMailAccount)
        return await self._enter(entering)

    async def _authenticate(self, command: commands.Authenticate) -> tuple[str, bytes]:
        entering = login.with_sasl(
            self._portal,
            command.mechanism,
            command.initial,
            self._ask,
            self._wire.peer,
            IMailAccount,
            self._plaintext_login,
        )
        return await self._enter(entering)

    async def _ask(self, challenge: bytes) -> bytes | None:
        self._wire.write(b"+ %b\r\n" % b64encode(challenge))
        self._engine.expect_response()
        event = await self._wire.event(self._limits.login_timeout)
        if isinstance(event, Fatal):
            raise GiveUp(event.text)
        if not isinstance(event, Response):
            raise errors.MalformedLogin
        return event.data

    async def _enter(self, entering: Awaitable[login.Login]) -> tuple[str, bytes]:
        try:
            entered = await entering
        except errors.LoginFailed:
            self._failed_logins += 1
            raise
        self._account, self._logout = entered.avatar, entered.logout
        self._wire.phase(None)
        self._engine.state = State.AUTHENTICATED
        return "Logged in", self._capability_code()

    # After login

    async def _enable(self, command: commands.Enable) -> tuple[str, bytes]:
        enabled = [name for name in command.names if name == "CONDSTORE"]
        if enabled:
            self._enable_condstore()
        words = b" ".join((b"* ENABLED", *(name.encode("ascii") for name in enabled)))
        self._wire.write(words + b"\r\n")
        return "ENABLE completed", b""

    def _enable_condstore(self) -> None:
        """RFC 7162 §3.1.2: from now on MODSEQ comes with what is told unasked."""
        if not self._condstore:
            self._condstore = True
            if self._selected is not None:
                modseq = self._selected.moment
                self._wire.write(b"* OK [HIGHESTMODSEQ %d] Modseqs are told from now on\r\n" % modseq)

    async def _idle(self, command: commands.Idle) -> tuple[str, bytes]:
        """RFC 2177: tell news as they come, until the client says DONE."""
        wire, limits = self._wire, self._limits
        wire.write(b"+ idling\r\n")
        # News do not make the client any less silent.
        wire.phase(limits.idle_timeout)
        try:
            await self._tell(command)
            while True:
                # A hint may be lost: now and then the mailbox is asked without one.
                look = self._later(limits.idle_interval, wire.wake)
                try:
                    event = await wire.event(limits.idle_timeout, wakeable=self._selected is not None)
                finally:
                    hinted = look.active()
                    if hinted:
                        look.cancel()
                match event:
                    case Wake.NEWS:
                        await self._tell(command, hinted)
                    case Done():
                        return "IDLE completed", b""
                    case Fatal(text):
                        raise GiveUp(text)
                    case Bad(_, text):
                        raise Refused(text)
                    case _:
                        raise Refused("DONE expected")
        finally:
            wire.phase(None)

    # News

    async def _tell(self, command: commands.Command, hinted: bool = True) -> None:
        """As `_news`; a mailbox that fails is asked again next time, and the command stays what it is."""
        try:
            await self._news(command, hinted)
        except errors.MailError:
            pass
        except (WireError, GiveUp):
            raise
        except Exception:
            self._incident("News of a mailbox")

    async def _news(self, command: commands.Command, hinted: bool) -> None:
        """
        Tell what happened in the selected mailbox, as far as the command allows.

        Args:
            hinted: ask the mailbox only if it gave a hint.
        """
        selected = self._selected
        if selected is None:
            return
        await selected.catch_up(hinted and not isinstance(command, _ASKS_FOR_NEWS))
        by_number = isinstance(command, _HOLDS_EXPUNGES) and not command.uid
        if not selected.has_news:
            return
        news = selected.news(expunges=not by_number)
        wire = self._wire
        if news.expunged:
            wire.write(responses.expunges(news.expunged))
        if news.exists is not None:
            wire.write(responses.number(news.exists, b"EXISTS"))
        if news.recent is not None:
            wire.write(responses.number(news.recent, b"RECENT"))
        if news.keywords:
            self._write_keywords(selected)
        if news.changed:
            await self._tell_flags(selected, news.changed)


#: What has told all there is when it ends.
_TELLS_ITSELF = (IMAPSession._idle, IMAPSession._select)

_ACTS: dict[type, Callable[[Any, Any], Awaitable[tuple[str, bytes]]]] = {
    commands.Capability: IMAPSession._capability,
    commands.Noop: IMAPSession._noop,
    commands.Check: IMAPSession._noop,
    commands.Logout: IMAPSession._end,
    commands.ID: IMAPSession._id,
    commands.StartTLS: IMAPSession._start_tls,
    commands.Login: IMAPSession._login,
    commands.Authenticate: IMAPSession._authenticate,
    commands.Enable: IMAPSession._enable,
    commands.Idle: IMAPSession._idle,
    commands.Select: IMAPSession._select,
    commands.Examine: IMAPSession._select,
    commands.Create: IMAPSession._create,
    commands.Delete: IMAPSession._delete,
    commands.Rename: IMAPSession._rename,
    commands.Subscribe: IMAPSession._subscribe,
    commands.Unsubscribe: IMAPSession._subscribe,
    commands.List: IMAPSession._list,
    commands.Lsub: IMAPSession._list,
    commands.Namespace: IMAPSession._namespace,
    commands.Status: IMAPSession._status,
    commands.Append: IMAPSession._append,
    commands.Close: IMAPSession._close,
    commands.Unselect: IMAPSession._close,
    commands.Expunge: IMAPSession._expunge,
    commands.UIDExpunge: IMAPSession._expunge,
    commands.Search: IMAPSession._search,
    commands.Fetch: IMAPSession._fetch,
    commands.Store: IMAPSession._store,
    commands.Copy: IMAPSession._copy,
    commands.Move: IMAPSession._move,
}
