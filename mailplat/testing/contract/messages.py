"""Messages: their bytes, their rows, and what is known of their parts."""

from __future__ import annotations

import os
from random import Random

from mailplat.errors import NoSuchMailbox, NoSuchMessage
from mailplat.interfaces import NewMessage
from mailplat.testing.contract.base import StoreCase, body, some, wants
from mailplat.testing.fakes import MemoryMessage
from mailplat.uids import EVERYTHING, NOTHING, UIDSet
from mailplat.values import DELETED, FIRST_KEYWORD, SEEN, FlagChange

__all__ = ["Content", "Rows"]


class Content(StoreCase):
    """`IMessageContent`, and how bytes get there."""

    async def test_bytes(self) -> None:
        mailbox = await self.filled(3)
        rows = await mailbox.columns(EVERYTHING)
        for number, (uid, size) in enumerate(zip(rows.uids, rows.sizes, strict=True)):
            self.assertEqual(await self.whole(mailbox, uid), body(number))
            self.assertEqual(size, len(body(number)))

    async def test_ranges(self) -> None:
        mailbox = await self.filled(1)
        (uid,) = (await mailbox.columns(EVERYTHING)).uids
        data = body(0)
        content = await mailbox.content(uid)
        self.assertEqual(content.size, len(data))
        for start in (0, 1, 17, len(data) - 1, len(data), len(data) + 10):
            for length in (0, 1, 5, len(data), len(data) * 2):
                self.assertEqual(await content.read(start, length), data[start : start + length])
        content.close()
        content.close()

    async def test_unknown_message(self) -> None:
        mailbox = await self.filled(1)
        status = await mailbox.status()
        await self.raises(NoSuchMessage, mailbox.content(status.uid_next))

    @wants("accepts_mail")
    async def test_prefix_and_body_are_one_range(self) -> None:
        mailbox = await self.filled(0)
        prefix = b"Return-Path: <a@example.test>\r\nDelivered-To: alice@example.test\r\n"
        (uid,) = await mailbox.append([self.message(body(0), prefix=prefix)])
        data = prefix + body(0)
        content = await mailbox.content(uid)
        self.assertEqual(content.size, len(data))
        cut = len(prefix)
        for start, length in ((0, len(data)), (0, cut), (cut - 3, 6), (cut, 5), (cut + 1, 3), (3, 4)):
            self.assertEqual(await content.read(start, length), data[start : start + length])
        content.close()
        self.assertEqual(list((await mailbox.columns(some(uid))).sizes), [len(data)])

    @wants("accepts_mail")
    async def test_any_bytes(self) -> None:
        mailbox = await self.filled(0)
        bodies = [bytes(range(256)) * 3, b"", b"\r\n", b"no line end", b"\0" * 70_000]
        uids = await mailbox.append([self.message(data) for data in bodies])
        for uid, data in zip(uids, bodies, strict=True):
            self.assertEqual(await self.whole(mailbox, uid), data)

    @wants("accepts_mail")
    async def test_the_body_stays_the_callers(self) -> None:
        mailbox = await self.filled(0)
        message = MemoryMessage(body(1), b"outline")
        copies = [NewMessage(message, b"X-Copy: %d\r\n" % n, frozenset(), n) for n in range(3)]
        uids = await mailbox.append(copies[:2])
        uids = [*uids, *await mailbox.append(copies[2:])]
        self.assertEqual(message.closed, 0)
        message.close()
        for number, uid in enumerate(uids):
            self.assertEqual(await self.whole(mailbox, uid), b"X-Copy: %d\r\n" % number + body(1))

    @wants("accepts_mail")
    async def test_a_big_body_in_a_file(self) -> None:
        mailbox = await self.filled(0)
        data = Random(2).randbytes(3_000_000)
        path = os.path.join(self.new_directory(), "body")
        with open(path, "wb") as file:
            file.write(data)
        message = MemoryMessage(data, b"outline", hidden=True)
        message.path = path
        uids = await mailbox.append([NewMessage(message, b"X: y\r\n", frozenset(), 0)] * 2)
        # A store that does not link the file reads it in pieces (IMessageContent.read).
        self.assertLessEqual(max((length for _, length in message.reads), default=0), 128 * 1024)
        # The file is the spool's, who removes it.
        with open(path, "rb") as file:
            self.assertEqual(file.read(), data)
        os.unlink(path)
        for uid in uids:
            content = await mailbox.content(uid)
            pieces = [await content.read(start, 131072) for start in range(0, content.size, 131072)]
            content.close()
            self.assertEqual(b"".join(pieces), b"X: y\r\n" + data)

    @wants("expunges_mail")
    async def test_readable_until_closed(self) -> None:
        mailbox = await self.filled(2)
        first, second = (await mailbox.columns(EVERYTHING)).uids
        content = await mailbox.content(first)
        await mailbox.expunge(some(first), deleted_only=False)
        self.assertEqual(await content.read(0, content.size), body(0))
        content.close()
        await self.raises(NoSuchMessage, mailbox.content(first))
        self.assertEqual(await self.whole(mailbox, second), body(1))

    @wants("makes_mailboxes", "accepts_mail")
    async def test_readable_after_its_mailbox_is_deleted(self) -> None:
        mailbox = await self.filled(1, "a")
        content = await mailbox.content(1)
        await self.account.delete("a")
        self.assertEqual(await content.read(0, content.size), body(0))
        content.close()


class Rows(StoreCase):
    """`append`, `columns`, `outlines` and `status`."""

    async def test_an_empty_mailbox(self) -> None:
        await self.place(self.account.name, "empty", [])
        mailbox = await self.account.open("empty")
        self.assertEqual(len(await mailbox.columns(EVERYTHING)), 0)
        self.assertEqual(list(await mailbox.outlines(EVERYTHING)), [])
        status = await mailbox.status()
        counts = (status.messages, status.unseen, status.recent, status.size)
        self.assertEqual(counts, (0, 0, 0, 0))
        # RFC 7162 §7: IMAP cannot say a modseq of 0.
        self.assertGreaterEqual(status.highest_modseq, 1)
        self.assertGreaterEqual(status.uid_next, 1)
        self.assertEqual(status.uid_validity, mailbox.uid_validity)

    async def test_some_rows(self) -> None:
        mailbox = await self.filled(6)
        uids = list((await mailbox.columns(EVERYTHING)).uids)
        self.assertEqual(len(uids), 6)
        self.assertEqual(uids, sorted(set(uids)))
        asked = some(uids[0], uids[2], uids[3], uids[5] + 100)
        columns = await mailbox.columns(asked)
        self.assertEqual(list(columns.uids), [uids[0], uids[2], uids[3]])
        self.assertEqual(list(columns.sizes), [len(body(number)) for number in (0, 2, 3)])
        self.assertEqual(len(await mailbox.columns(NOTHING)), 0)
        self.assertEqual(len(await mailbox.columns(some(uids[5] + 1))), 0)

    async def test_status_agrees_with_rows(self) -> None:
        mailbox = await self.filled(4)
        columns, status = await mailbox.columns(EVERYTHING), await mailbox.status()
        self.assertEqual(status.messages, len(columns))
        self.assertEqual(status.size, sum(columns.sizes))
        self.assertEqual(status.unseen, sum(not word & SEEN for word in columns.flags))
        self.assertGreater(status.uid_next, max(columns.uids))
        self.assertGreaterEqual(status.highest_modseq, max(columns.modseqs))

    async def test_outlines(self) -> None:
        """By ascending UID; where one is kept, it is what came with the message."""
        mailbox = await self.filled(3)
        uids = list((await mailbox.columns(EVERYTHING)).uids)
        outlined = await mailbox.outlines(EVERYTHING)
        self.assertEqual([one.uid for one in outlined], uids)
        self.assertEqual([one.prefix_size for one in outlined], [0, 0, 0])
        self.assertEqual([one.uid for one in await mailbox.outlines(some(uids[1]))], uids[1:2])

    @wants("accepts_mail")
    async def test_outlines_come_back(self) -> None:
        mailbox = await self.filled(0)
        outlines = [b"one", b"\0\1\2" * 1000, b""]
        await mailbox.append([self.message(outline=outline, prefix=b"A: b\r\n") for outline in outlines])
        for outlined, outline in zip(await mailbox.outlines(EVERYTHING), outlines, strict=True):
            self.assertEqual(outlined.prefix_size, 6)
            self.assertIn(outlined.outline, (outline, None))

    @wants("accepts_mail")
    async def test_append(self) -> None:
        mailbox = await self.filled(0)
        before = await mailbox.status()
        dates = [0, 1_000_000_000, 4_102_444_800, -86_400]
        uids = await mailbox.append(
            [self.message(body(number), date=date) for number, date in enumerate(dates)]
        )
        self.assertEqual(list(uids), list(range(before.uid_next, before.uid_next + 4)))
        columns = await mailbox.columns(EVERYTHING)
        self.assertEqual(list(columns.uids), list(uids))
        self.assertEqual(list(columns.dates), dates)
        after = await mailbox.status()
        self.assertEqual((after.messages, after.unseen, after.uid_next), (4, 4, before.uid_next + 4))
        # One call, one modseq.
        self.assertEqual(list(columns.modseqs), [after.highest_modseq] * 4)
        self.assertGreater(after.highest_modseq, before.highest_modseq)

    @wants("accepts_mail")
    async def test_append_nothing(self) -> None:
        mailbox = await self.filled(1)
        before = await mailbox.status()
        self.assertEqual(list(await mailbox.append([])), [])
        self.assertEqual((await mailbox.status()).messages, before.messages)

    @wants("accepts_mail")
    async def test_append_with_flags(self) -> None:
        mailbox = await self.filled(0)
        flags = [{"\\Seen", "\\Draft"}, {"$Forwarded", "\\Answered"}, set(), {"$forwarded", "Other"}]
        uids = await mailbox.append([self.message(flags=names) for names in flags])
        found = await self.flags(mailbox)
        # Keywords differ in case only: one keyword, spelled as it was first.
        self.assertEqual([found[uid] for uid in uids], [*flags[:3], {"$Forwarded", "Other"}])
        self.assertEqual((await mailbox.status()).unseen, 3)

    @wants("accepts_mail", "expunges_mail")
    async def test_uids_are_not_used_again(self) -> None:
        mailbox = await self.filled(3)
        *_, last = (await mailbox.columns(EVERYTHING)).uids
        await mailbox.expunge(EVERYTHING, deleted_only=False)
        self.assertEqual((await mailbox.status()).uid_next, last + 1)
        self.assertEqual(list(await mailbox.append([self.message()])), [last + 1])

    @wants("accepts_mail")
    async def test_many_keywords(self) -> None:
        """Those past the packed array's 64 bits come in `overflow`."""
        mailbox = await self.filled(0)
        names = {f"keyword{number}" for number in range(80)}
        one, two, three = await mailbox.append(
            [self.message(), self.message(flags=names), self.message(flags={"keyword3"})]
        )
        self.assertEqual(set(mailbox.keywords), names)
        found = await self.flags(mailbox)
        self.assertEqual((found[one], found[two], found[three]), (set(), names, {"keyword3"}))
        columns = await mailbox.columns(EVERYTHING)
        self.assertIn(two, columns.overflow)
        self.assertEqual(columns.word(1), columns.overflow[two])
        self.assertEqual(columns.overflow[two].bit_count(), 80)

    @wants("accepts_mail", "keeps_flags")
    async def test_keywords_only_grow(self) -> None:
        mailbox = await self.filled(0)
        await mailbox.append([self.message(flags={"one"})])
        first = list(mailbox.keywords)
        await mailbox.set_flags(EVERYTHING, FlagChange(remove=frozenset({"one"})))
        await mailbox.append([self.message(flags={"two", "\\Deleted"})])
        self.assertEqual(list(mailbox.keywords)[:1], first)
        columns = await mailbox.columns(EVERYTHING)
        self.assertEqual(list(columns.flags), [0, DELETED | 1 << FIRST_KEYWORD + 1])

    @wants("accepts_mail")
    async def test_too_many_keywords(self) -> None:
        """What does not fit is left out; nothing else suffers (RFC 3501 §7.1)."""
        mailbox = await self.filled(0)
        names = {f"k{number}" for number in range(400)} | {"x" * 5000}
        (uid,) = await mailbox.append([self.message(flags=names | {"\\Seen"})])
        found = (await self.flags(mailbox))[uid]
        self.assertIn("\\Seen", found)
        self.assertLessEqual(found - {"\\Seen"}, names)
        self.assertLess(len(found), 400)

    @wants("accepts_mail", "makes_mailboxes")
    async def test_append_to_a_deleted_mailbox(self) -> None:
        mailbox = await self.filled(1, "a")
        await self.account.delete("a")
        await self.raises(NoSuchMailbox, mailbox.append([self.message()]))
        self.assertEqual(len(await mailbox.columns(EVERYTHING)), 0)

    @wants("accepts_mail")
    async def test_appends_at_once(self) -> None:
        mailbox = await self.filled(0)
        results = await self.at_once(
            [mailbox.append([self.message(body(n)), self.message(body(n + 1))]) for n in range(0, 40, 2)]
        )
        every = [uid for uids in results for uid in uids]
        self.assertEqual(len(set(every)), 40)
        self.assertTrue(all(second == first + 1 for first, second in results))
        columns = await mailbox.columns(EVERYTHING)
        self.assertEqual(UIDSet.of(columns.uids), UIDSet.of(every))
        # Modseqs rise with UIDs, and each call has its own.
        self.assertEqual(list(columns.modseqs), sorted(columns.modseqs))
        self.assertEqual(len(set(columns.modseqs)), 20)
        for index, (uid, _) in enumerate(results):
            self.assertEqual(await self.whole(mailbox, uid), body(index * 2))
