"""
Sending messages over a conversation that is open: one transaction after the other.

A message goes to as many recipients at a time as the host takes.  Where the host allows it,
all commands of a transaction leave together (RFC 2920), a small message with them (RFC 3030).
Every recipient has an outcome at the end, whatever happened; what is unknown, because the
connection was lost after the end of the content, counts as not delivered, for a message that
comes twice is better than one that does not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mailplat.errors import HostUnreachable, InvalidMessage, MailError, TemporaryError
from mailplat.interfaces import ISpooledMessage
from mailplat.smtp.conversation import Conversation, Over, accepts, refusal, refuses, text_of
from mailplat.smtp.data import DataWriter, Fault, LineCheck, LoneLineBreak
from mailplat.smtp.extensions import Extensions
from mailplat.smtp.grammar import Reply
from mailplat.smtp.outgoing import Outgoing, prepare
from mailplat.values import Address, Envelope, Outcome
from mailplat.wire import WireError

#: How a host says that it takes no further recipient in this transaction, if it says no
#: more: RFC 5321 §4.5.3.1.10 has 552 read as 452, and RFC 3463 tells it from a full mailbox.
_TOO_MANY = {452: ("", "4.5.3"), 552: ("", "5.5.3")}


@dataclass(frozen=True, slots=True)
class _Step:
    """A command of a group, and who takes its reply."""

    line: bytes
    timeout: float
    take: Callable[[Reply], None]


class Sending:
    """
    The transactions of one connection.

    Args:
        conversation: past greeting and login.
        lmtp: after the content there is a reply for each recipient (RFC 2033 §4.2).

    Attributes:
        extensions: what the host offers.
        usable: another message may be sent.
        over: the connection has ended, or is not understood any more.
    """

    def __init__(self, conversation: Conversation, *, lmtp: bool) -> None:
        self.extensions = Extensions()
        self.over = False
        self._conversation = conversation
        self._limits = conversation.limits
        self._lmtp = lmtp
        self._transactions = 0
        self._open = False  # a transaction was begun and not ended

    @property
    def usable(self) -> bool:
        most = self.extensions.most_transactions
        return not self.over and not (most and self._transactions >= most)

    async def send(
        self,
        envelope: Envelope,
        message: ISpooledMessage,
        prefix: bytes,
        recipients: Sequence[Address],
    ) -> Sequence[Outcome]:
        """As `mailplat.smtp.client.SMTPClient.send`."""
        wire = self._conversation.wire
        try:
            outgoing = await prepare(envelope, message, prefix, recipients, self.extensions, wire)
        except WireError as error:
            self.over = True
            raise HostUnreachable("The connection has ended", reason=str(error)) from None
        outcomes: dict[int, Outcome] = {
            index: Outcome(recipients[index], error, self._conversation.host)
            for index, error in outgoing.refused.items()
        }
        pending = [index for index in range(len(recipients)) if index not in outcomes]
        first = True
        while pending:
            if not self.usable:
                # Only after a transaction of this message: nobody hands work to an ended client.
                self._settle(outcomes, pending, recipients, TemporaryError("No more mail in this connection"))
                break
            batch = self._batch(pending, recipients)
            transaction = _Transaction(outgoing, batch)
            try:
                await self._transact(transaction)
            except Over as over:
                self.over = True
                # A host that has all of the message may have delivered it, unless it says otherwise.
                unsent = not transaction.begun and (over.reply or not transaction.sent)
                if unsent and first:
                    raise HostUnreachable(over.error.text, reason=over.error.reason) from None
                self._settle(transaction.outcomes, batch, recipients, over.error, over.reply)
            first = False
            outcomes |= transaction.outcomes
            pending = [index for index in pending if index not in outcomes]
            if self.over:
                self._settle(outcomes, pending, recipients, TemporaryError("The connection has ended"))
                break
        return [outcomes[index] for index in range(len(recipients))]

    def _settle(
        self,
        outcomes: dict[int, Outcome],
        indexes: Sequence[int],
        recipients: Sequence[Address],
        error: MailError,
        reply: str = "",
    ) -> None:
        """The same outcome for those that have none."""
        for index in indexes:
            if index not in outcomes:
                outcomes[index] = Outcome(recipients[index], error, self._conversation.host, reply)

    def _batch(self, pending: Sequence[int], recipients: Sequence[Address]) -> list[int]:
        """As many recipients as one transaction may have (RFC 9422)."""
        most, domains = self.extensions.most_recipients, self.extensions.most_domains
        batch = list(pending[:most] if most else pending)
        if domains:
            first = list(dict.fromkeys(recipients[index].domain for index in batch))[:domains]
            batch = [index for index in batch if recipients[index].domain in first]
        return batch

    # One transaction

    async def _transact(self, transaction: _Transaction) -> None:
        """
        Raises:
            Over: what has no outcome yet has none.
        """
        limits, pipelining = self._limits, self.extensions.pipelining
        self._transactions += 1
        steps = []
        if self._open:
            steps.append(_Step(b"RSET\r\n", limits.command_timeout, self._reset))
        steps.append(_Step(transaction.mail, limits.mail_timeout, partial(self._mail, transaction)))
        for index in transaction.batch:
            line = transaction.outgoing.rcpt[index]
            steps.append(_Step(line, limits.rcpt_timeout, partial(self._rcpt, transaction, index)))

        # The content, or the command before it, leaves with the rest where it may: as the last
        # of a group (RFC 2920 §3.1).  An LMTP host answers the last chunk once for each
        # recipient, so we must know how many there are; a large message waits to be wanted.
        whole = transaction.outgoing.whole
        chunked = self.extensions.chunking
        ending = b""
        if pipelining and chunked and whole is not None and not self._lmtp:
            ending = b"BDAT %d LAST\r\n%b" % (len(whole), whole)
        elif pipelining and not chunked:
            ending = b"DATA\r\n"

        ended = await self._converse(transaction, steps, ending, chunked)
        if not ended and not transaction.accepted:
            return
        if chunked:
            if ended:
                await self._ends(transaction, chunked=True)
            else:
                await self._chunks(transaction)
        else:
            if not ended:
                self._conversation.wire.write(b"DATA\r\n")
            await self._data(transaction)

    async def _converse(
        self, transaction: _Transaction, steps: Sequence[_Step], ending: bytes, whole: bool
    ) -> bool:
        """
        Say `steps`, and `ending` with the last of them; whether it came to that.

        Args:
            whole: the message is in `ending`.
        """
        conversation = self._conversation
        window = self._limits.pipelined if self.extensions.pipelining else 1
        for start in range(0, len(steps), window):
            group = steps[start : start + window]
            conversation.wire.write(b"".join([step.line for step in group]))
            last = start + window >= len(steps)
            if last and ending:
                conversation.wire.write(ending)
                transaction.sent = whole
                await conversation.drained()
            for step in group:
                step.take(await conversation.reply(step.timeout))
            if transaction.refused and not last:
                return False
        return bool(ending)

    def _reset(self, reply: Reply) -> None:
        if not accepts(reply):
            raise self._conversation.unexpected(reply)
        self._open = False

    def _mail(self, transaction: _Transaction, reply: Reply) -> None:
        if accepts(reply):
            self._open = transaction.begun = True
        elif refuses(reply):
            transaction.begun = transaction.refused = True
            self._refuse(transaction, transaction.batch, reply)
        else:
            raise self._conversation.unexpected(reply)

    def _rcpt(self, transaction: _Transaction, index: int, reply: Reply) -> None:
        if transaction.refused:
            # The answer to a command that should not have been: 503, whatever it says.
            return
        if accepts(reply):
            transaction.accepted.append(index)
        elif reply.enhanced in _TOO_MANY.get(reply.code, ()) and transaction.accepted:
            # Without an outcome it is in the next transaction, which has one recipient less at least.
            return
        elif refuses(reply):
            self._refuse(transaction, [index], reply)
        else:
            raise self._conversation.unexpected(reply)

    def _refuse(self, transaction: _Transaction, indexes: Sequence[int], reply: Reply) -> None:
        error, text = refusal(reply), text_of(reply)
        for index in indexes:
            recipient = transaction.outgoing.recipients[index]
            transaction.outcomes[index] = Outcome(recipient, error, self._conversation.host, text)

    def _deliver(self, transaction: _Transaction, indexes: Sequence[int], reply: Reply) -> None:
        # An LMTP host is where mail ends up: its word is delivery, and not only relaying.
        passed_on = self.extensions.dsn
        outcome = Outcome(
            transaction.outgoing.recipients[0],
            None,
            self._conversation.host,
            text_of(reply),
            relayed=not passed_on and not self._lmtp,
            passed_on=passed_on,
        )
        for index in indexes:
            transaction.outcomes[index] = replace(outcome, recipient=transaction.outgoing.recipients[index])

    # The content

    async def _data(self, transaction: _Transaction) -> None:
        conversation = self._conversation
        reply = await conversation.reply(self._limits.data_timeout)
        if refuses(reply):
            self._refuse(transaction, transaction.accepted, reply)
            return
        if not 300 <= reply.code <= 399:
            raise conversation.unexpected(reply)
        wire = conversation.wire
        if not transaction.accepted:
            if self._lmtp:
                # RFC 2033 §4.2 has a host refuse it; what it would answer now, nobody knows.
                raise conversation.unexpected(reply)
            # RFC 2920 §3.1: nobody wants the message, but the host waits for one.
            wire.write(b".\r\n")
            await conversation.reply(self._limits.end_timeout)
            self._open = False
            return
        writer = DataWriter()
        async for piece in self._pieces(transaction):
            wire.write(writer.feed(piece))
            await conversation.drained()
        wire.write(writer.finish())
        await self._ends(transaction, chunked=False)

    async def _chunks(self, transaction: _Transaction) -> None:
        conversation, limits = self._conversation, self._limits
        wire = conversation.wire
        window = limits.chunks if self.extensions.pipelining else 1
        waiting = 0  # chunks without a reply
        chunk = b""
        async for piece in self._pieces(transaction):
            if chunk:
                wire.write(b"BDAT %d\r\n%b" % (len(chunk), chunk))
                await conversation.drained()
                waiting += 1
                if waiting >= window:
                    waiting -= 1
                    if not await self._taken(transaction, waiting):
                        return
            chunk = piece
        # All other replies first: an LMTP host that refuses one would answer the last chunk
        # who knows how often.
        while waiting and (self._lmtp or not self.extensions.pipelining):
            waiting -= 1
            if not await self._taken(transaction, waiting):
                return
        wire.write(b"BDAT %d LAST\r\n%b" % (len(chunk), chunk))
        await conversation.drained()
        while waiting:
            waiting -= 1
            # The reply to the last chunk is to be read as well.
            if not await self._taken(transaction, waiting + 1):
                return
        await self._ends(transaction, chunked=True)

    async def _taken(self, transaction: _Transaction, more: int) -> bool:
        """The reply to a chunk that is not the last; if it is refused, `more` replies follow it."""
        conversation = self._conversation
        reply = await conversation.reply(self._limits.block_timeout)
        if accepts(reply):
            return True
        if not refuses(reply):
            raise conversation.unexpected(reply)
        for _ in range(more):
            await conversation.reply(self._limits.end_timeout)
        # RFC 3030 §2: then the transaction is to be reset.
        self._refuse(transaction, transaction.accepted, reply)
        return False

    async def _ends(self, transaction: _Transaction, *, chunked: bool) -> None:
        """What the host says to the complete message."""
        conversation = self._conversation
        for indexes in [[index] for index in transaction.accepted] if self._lmtp else [transaction.accepted]:
            reply = await conversation.reply(self._limits.end_timeout)
            if accepts(reply):
                self._deliver(transaction, indexes, reply)
            elif refuses(reply):
                self._refuse(transaction, indexes, reply)
            else:
                raise conversation.unexpected(reply)
        # RFC 5321 §4.1.1.4: the end of the data ends the transaction, whatever became of it.  A
        # chunk that is refused does not (RFC 3030 §2).
        self._open = chunked and not accepts(reply)

    async def _pieces(self, transaction: _Transaction) -> AsyncIterator[bytes]:
        """
        The message in pieces that are not empty.

        Raises:
            Over: it has a lone CR or LF: nothing may follow what was sent already.
        """
        check = LineCheck()
        try:
            async for piece in transaction.outgoing.pieces(self._limits.chunk):
                checked = check.feed(piece)
                if checked:
                    yield checked
            check.finish()
        except LoneLineBreak:
            raise Over(InvalidMessage(Fault.LONE_LINE_BREAK.value)) from None


class _Transaction:
    """
    One transaction.

    Attributes:
        batch: the recipients' indexes.
        mail: the command that begins it.
        begun: the host has said something about this message.
        sent: the host was sent the whole message.
        refused: there is no transaction, because MAIL was refused.
        accepted: those whose RCPT was accepted, in order.
        outcomes: by index, as they become known.
    """

    def __init__(self, outgoing: Outgoing, batch: list[int]) -> None:
        self.outgoing = outgoing
        self.batch = batch
        self.mail = outgoing.mail
        self.begun = False
        self.sent = False
        self.refused = False
        self.accepted: list[int] = []
        self.outcomes: dict[int, Outcome] = {}
