"""Accounts, and the names of mailboxes."""

from __future__ import annotations

from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from mailplat.errors import (
    AccountExists,
    InvalidName,
    MailboxExists,
    NoSuchAccount,
    NoSuchMailbox,
    NotPermitted,
)
from mailplat.interfaces import (
    IClaimsRecent,
    ICommitsTogether,
    IKeepsDerived,
    IMailAccount,
    IMailbox,
    IMailStore,
    IMessageContent,
    IMovesMessages,
    IReadsMany,
    IReadsOutlines,
    ISearches,
)
from mailplat.testing.contract.base import ALICE, BOB, StoreCase, some, wants
from mailplat.uids import EVERYTHING
from mailplat.values import SPECIAL_MAILBOXES, FlagChange, MailboxInfo

__all__ = ["Accounts", "Interfaces", "Mailboxes"]

#: Abilities that mailboxes provide, as against the store.
OF_MAILBOXES = (IMovesMessages, IReadsMany, IReadsOutlines, IKeepsDerived, IClaimsRecent, ISearches)


class Interfaces(StoreCase):
    """What is provided is what is declared."""

    async def test_what_is_provided(self) -> None:
        mailbox = await self.filled(1)
        (uid,) = (await mailbox.columns(EVERYTHING)).uids
        content = await mailbox.content(uid)
        for interface, thing in (
            (IMailStore, self.store),
            (IMailAccount, self.account),
            (IMailbox, mailbox),
            (IMessageContent, content),
        ):
            self.assertTrue(verifyObject(interface, thing))
        content.close()

    async def test_abilities_are_provided(self) -> None:
        mailbox = await self.filled(0)
        for ability in self.account.abilities:
            provider = mailbox if ability in OF_MAILBOXES else self.store
            self.assertTrue(verifyObject(ability, provider), ability.__name__)
        self.assertEqual(ICommitsTogether in self.account.abilities, ICommitsTogether.providedBy(self.store))

    async def test_what_is_refused(self) -> None:
        """What the store says that it does not do is NotPermitted, and changes nothing."""
        mailbox = await self.filled(2)
        before = list((await mailbox.columns(EVERYTHING)).rows())
        if not self.makes_accounts:
            await self.raises(NotPermitted, self.store.create_account(BOB))
            await self.raises(NotPermitted, self.store.remove_account(ALICE))
        if not self.makes_mailboxes:
            await self.raises(NotPermitted, self.account.create("New"))
            await self.raises(NotPermitted, self.account.rename("INBOX", "New"))
        if not self.accepts_mail:
            await self.raises(NotPermitted, mailbox.append([self.message()]))
            await self.raises(NotPermitted, mailbox.copy(EVERYTHING, "INBOX"))
        if not self.keeps_flags:
            change = FlagChange(add=frozenset({"\\Seen"}))
            await self.raises(NotPermitted, mailbox.set_flags(EVERYTHING, change))
        if not self.expunges_mail:
            await self.raises(NotPermitted, mailbox.expunge(EVERYTHING, deleted_only=False))
        can_change = self.accepts_mail or self.keeps_flags or self.expunges_mail
        self.assertEqual(mailbox.read_only, not can_change)
        self.assertEqual(list((await mailbox.columns(EVERYTHING)).rows()), before)


class Accounts(StoreCase):
    """`IMailStore`."""

    async def test_the_accounts(self) -> None:
        self.assertEqual(list(await self.store.accounts()), [ALICE])
        self.assertIs(await self.store.has_account(ALICE), True)
        self.assertIs(await self.store.has_account(BOB), False)
        self.assertEqual(self.account.name, ALICE)
        await self.place(BOB, "INBOX", [])
        self.assertEqual(list(await self.store.accounts()), [ALICE, BOB])
        self.assertIs(await self.store.has_account(BOB), True)

    async def test_unknown_account(self) -> None:
        await self.raises(NoSuchAccount, self.store.account(BOB))
        await self.raises(NoSuchAccount, self.store.account("../" + ALICE))

    async def test_accounts_are_apart(self) -> None:
        await self.place(BOB, "INBOX", [b"X: y\r\n\r\nbob's\r\n"])
        mailbox = await self.filled(0)
        self.assertEqual((await mailbox.status()).messages, 0)
        bobs = await (await self.store.account(BOB)).open("INBOX")
        self.assertEqual((await bobs.status()).messages, 1)

    @wants("makes_accounts")
    async def test_create_account(self) -> None:
        await self.store.create_account(BOB)
        account = await self.store.account(BOB)
        expected = [
            MailboxInfo(name, subscribed=True, special_use=special_use)
            for name, special_use in sorted({"INBOX": None, **SPECIAL_MAILBOXES}.items())
        ]
        self.assertEqual(list(await account.mailboxes()), expected)

    @wants("makes_accounts")
    async def test_create_again(self) -> None:
        await self.place(ALICE, "INBOX", [b"X: y\r\n\r\n\r\n"])
        await self.raises(AccountExists, self.store.create_account(ALICE))
        self.assertEqual((await (await self.account.open("INBOX")).status()).messages, 1)

    @wants("makes_accounts")
    async def test_bad_account_names(self) -> None:
        for name in ("", "a\nb@example.test", "a\0@example.test", "a\udc80@example.test"):
            await self.raises(InvalidName, self.store.create_account(name))
        self.assertEqual(list(await self.store.accounts()), [ALICE])

    @wants("makes_accounts")
    async def test_names_are_not_paths(self) -> None:
        names = ["..", "../../up@example.test", "/abs@example.test", ".hidden@example.test", "ä@example.test"]
        made = []
        for name in names:
            try:
                await self.store.create_account(name)
            except InvalidName:
                continue
            made.append(name)
            account = await self.store.account(name)
            await (await account.open("INBOX")).append([self.message()])
        self.assertEqual(list(await self.store.accounts()), sorted([ALICE, *made]))

    @wants("makes_accounts")
    async def test_remove(self) -> None:
        await self.place(BOB, "INBOX", [b"X: y\r\n\r\n\r\n"])
        old = await self.store.account(BOB)
        mailbox = await old.open("INBOX")
        before = (await mailbox.status()).uid_validity
        await self.store.remove_account(BOB)
        self.assertIs(await self.store.has_account(BOB), False)
        await self.raises(NoSuchAccount, self.store.account(BOB))
        await self.raises(NoSuchAccount, self.store.remove_account(BOB))
        await self.raises((NoSuchMailbox, NoSuchAccount), mailbox.append([self.message()]))
        await self.raises((NoSuchMailbox, NoSuchAccount), old.create("Late"))

        await self.store.create_account(BOB)
        status = await (await (await self.store.account(BOB)).open("INBOX")).status()
        self.assertEqual(status.messages, 0)
        self.assertNotEqual(status.uid_validity, before)


class Mailboxes(StoreCase):
    """The names of `IMailAccount`."""

    async def names(self) -> list[str]:
        return [info.name for info in await self.account.mailboxes() if info.exists]

    async def info(self, name: str) -> MailboxInfo:
        (found,) = [info for info in await self.account.mailboxes() if info.name == name]
        return found

    async def test_inbox(self) -> None:
        self.assertIn("INBOX", await self.names())
        mailbox = await self.account.open("INBOX")
        self.assertEqual(mailbox.name, "INBOX")
        self.assertTrue(1 <= mailbox.uid_validity <= 0xFFFFFFFF)

    async def test_one_object_for_all(self) -> None:
        mailbox = await self.account.open("INBOX")
        other = await self.store.account(ALICE)
        self.assertIs(await other.open("INBOX"), mailbox)

    async def test_unknown_mailbox(self) -> None:
        for name in ("None", "INBOX/None", "", "../INBOX", "inbox2"):
            await self.raises(NoSuchMailbox, self.account.open(name))

    async def test_sorted(self) -> None:
        await self.place(ALICE, "b", [])
        await self.place(ALICE, "a", [])
        names = [info.name for info in await self.account.mailboxes()]
        self.assertEqual(names, sorted(names))
        self.assertLessEqual({"INBOX", "a", "b"}, set(names))

    async def test_validities_differ(self) -> None:
        await self.place(ALICE, "a", [])
        one = await self.account.open("INBOX")
        other = await self.account.open("a")
        self.assertEqual(other.name, "a")
        self.assertEqual((await other.status()).uid_validity, other.uid_validity)
        self.assertIsNot(one, other)

    @wants("makes_mailboxes")
    async def test_create_mailbox(self) -> None:
        await self.account.create("Work/2026/März")
        self.assertLessEqual({"Work", "Work/2026", "Work/2026/März"}, set(await self.names()))
        for name in ("Work", "Work/2026", "Work/2026/März"):
            self.assertEqual((await self.account.open(name)).name, name)
        self.assertEqual(await self.info("Work"), MailboxInfo("Work"))

    @wants("makes_mailboxes")
    async def test_create_existing(self) -> None:
        await self.account.create("a/b")
        for name in ("INBOX", "a", "a/b"):
            await self.raises(MailboxExists, self.account.create(name))

    @wants("makes_mailboxes")
    async def test_create_special(self) -> None:
        await self.account.create("Work/Junk", "\\Junk")
        self.assertEqual((await self.info("Work/Junk")).special_use, "\\Junk")
        self.assertIsNone((await self.info("Work")).special_use)

    @wants("makes_mailboxes")
    async def test_bad_mailbox_names(self) -> None:
        before = await self.names()
        for name in ("", "/", "/a", "a/", "a//b", "a\rb", "a\0", "a\x7f", "a\udc80"):
            await self.raises(InvalidName, self.account.create(name))
            await self.raises(InvalidName, self.account.rename("INBOX", name))
        self.assertEqual(await self.names(), before)

    @wants("makes_mailboxes")
    async def test_names_are_not_paths_or_patterns(self) -> None:
        odd = ["..", "../..", "a.b", "%", "a_b", "axb", "a*", "&", "~", "'\"", "Ünïcödé ✉"]
        made = []
        for name in odd:
            try:
                await self.account.create(name)
            except InvalidName:
                continue
            made.append(name)
        for name in made:
            mailbox = await self.account.open(name)
            self.assertEqual(list(await mailbox.append([self.message()])), [1], name)
        if "a_b" in made:
            await self.account.rename("a_b", "other")
        self.assertEqual((await (await self.account.open("axb")).status()).messages, 1)

    @wants("makes_mailboxes")
    async def test_delete(self) -> None:
        mailbox = await self.filled(2, "a")
        await self.account.delete("a")
        self.assertNotIn("a", await self.names())
        await self.raises(NoSuchMailbox, self.account.open("a"))
        await self.raises(NoSuchMailbox, self.account.delete("a"))
        await self.raises(NoSuchMailbox, mailbox.append([self.message()]))

    @wants("makes_mailboxes")
    async def test_made_again_it_is_another(self) -> None:
        old = await self.filled(2, "a")
        await self.account.delete("a")
        await self.account.create("a")
        new = await self.account.open("a")
        self.assertIsNot(new, old)
        self.assertNotEqual(new.uid_validity, old.uid_validity)
        self.assertEqual((await new.status()).messages, 0)
        await self.raises(NoSuchMailbox, old.append([self.message()]))
        self.assertEqual((await new.status()).messages, 0)

    @wants("makes_mailboxes")
    async def test_delete_inbox(self) -> None:
        await self.raises(NotPermitted, self.account.delete("INBOX"))
        await self.account.open("INBOX")

    @wants("makes_mailboxes")
    async def test_delete_one_with_children(self) -> None:
        await self.filled(1, "a")
        await self.account.create("a/b")
        await self.account.delete("a")
        # RFC 3501 §6.3.4
        self.assertEqual((await self.info("a")).selectable, False)
        self.assertEqual((await self.info("a/b")).selectable, True)
        await self.raises(NoSuchMailbox, self.account.open("a"))
        await self.raises(NotPermitted, self.account.delete("a"))
        # Made again, it is empty.
        await self.account.create("a")
        self.assertEqual((await (await self.account.open("a")).status()).messages, 0)

    @wants("makes_mailboxes")
    async def test_delete_a_bare_name(self) -> None:
        await self.account.create("a/b")
        await self.account.delete("a")
        await self.account.delete("a/b")
        if "a" in await self.names():
            await self.account.delete("a")
        self.assertNotIn("a", await self.names())

    @wants("makes_mailboxes")
    async def test_rename(self) -> None:
        mailbox = await self.filled(2, "a")
        before = await mailbox.status()
        await self.account.rename("a", "x/y")
        self.assertNotIn("a", await self.names())
        self.assertLessEqual({"x", "x/y"}, set(await self.names()))
        after = await self.account.open("x/y")
        self.assertEqual(after.name, "x/y")
        self.assertEqual(await after.status(), before)
        # Whoever has it open has it still.
        self.assertEqual(mailbox.name, "x/y")
        if self.accepts_mail:
            await mailbox.append([self.message()])
            self.assertEqual((await after.status()).messages, 3)

    @wants("makes_mailboxes")
    async def test_rename_with_children(self) -> None:
        await self.filled(1, "a/b/c")
        await self.account.create("ab")
        await self.account.rename("a", "z")
        names = await self.names()
        self.assertLessEqual({"z", "z/b", "z/b/c", "ab"}, set(names))
        self.assertFalse([name for name in names if name == "a" or name.startswith("a/")])
        self.assertEqual((await (await self.account.open("z/b/c")).status()).messages, 1)

    @wants("makes_mailboxes")
    async def test_rename_refused(self) -> None:
        await self.account.create("a")
        await self.account.create("b")
        await self.raises(NoSuchMailbox, self.account.rename("none", "c"))
        await self.raises(MailboxExists, self.account.rename("a", "b"))
        await self.raises(MailboxExists, self.account.rename("a", "INBOX"))
        await self.raises((InvalidName, NotPermitted), self.account.rename("a", "a/b"))
        self.assertLessEqual({"a", "b"}, set(await self.names()))
        self.assertNotIn("c", await self.names())

    @wants("makes_mailboxes", "accepts_mail")
    async def test_rename_inbox(self) -> None:
        inbox = await self.filled(2)
        await self.account.create("INBOX/child")
        await inbox.set_flags(some(2), FlagChange(add=frozenset({"\\Flagged", "$Label"})))
        await self.account.rename("INBOX", "Old/Mail")
        # RFC 3501 §6.3.5: INBOX is left empty, and what is below it stays where it is.
        self.assertEqual((await inbox.status()).messages, 0)
        self.assertIs(await self.account.open("INBOX"), inbox)
        self.assertIn("INBOX/child", await self.names())
        moved = await self.account.open("Old/Mail")
        self.assertEqual(list((await self.flags(moved)).values()), [set(), {"\\Flagged", "$Label"}])
        self.assertEqual(list(await inbox.append([self.message()])), [3])

    async def test_subscriptions(self) -> None:
        await self.place(ALICE, "a", [])
        await self.account.subscribe("a", True)
        await self.account.subscribe("a", True)
        await self.account.subscribe("nowhere/yet", True)
        self.assertTrue((await self.info("a")).subscribed)
        self.assertEqual(
            await self.info("nowhere/yet"),
            MailboxInfo("nowhere/yet", selectable=False, subscribed=True, exists=False),
        )
        await self.account.subscribe("a", False)
        await self.account.subscribe("a", False)
        await self.account.subscribe("nowhere/yet", False)
        self.assertFalse((await self.info("a")).subscribed)
        self.assertNotIn("nowhere/yet", [info.name for info in await self.account.mailboxes()])

    @wants("makes_mailboxes")
    async def test_subscriptions_outlive_mailboxes(self) -> None:
        await self.account.create("a")
        await self.account.subscribe("a", True)
        await self.account.delete("a")
        # RFC 3501 §6.3.9
        self.assertEqual(
            await self.info("a"), MailboxInfo("a", selectable=False, subscribed=True, exists=False)
        )

    @wants("makes_mailboxes")
    async def test_created_once(self) -> None:
        """Of many who make the same name at once, one succeeds."""
        results = await self.at_once([self.account.create("new/name") for _ in range(8)])
        errors = [result for result in results if isinstance(result, Failure)]
        self.assertEqual(len(errors), 7)
        for error in errors:
            self.assertIsInstance(error.value, MailboxExists)
