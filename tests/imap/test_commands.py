"""From the text of a command to its value."""

from __future__ import annotations

import contextlib
from datetime import date
from time import thread_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap import commands as c
from mailplat.imap.commands import FetchItem, Item
from mailplat.imap.engine import ALLOWED
from mailplat.imap.grammar import Cursor, Malformed, SequenceSet
from mailplat.imap.limits import Limits
from mailplat.imap.parsing import READERS, UnknownCharset, append_head, command_name, read_arguments
from mailplat.values import FlagChange

LIMITS = Limits(set_ranges=50, search_depth=10, fetch_items=20, section_depth=5, id_pairs=3, append_size=1000)


def read(text: bytes, *literals: bytes, limits: Limits = LIMITS) -> c.Command:
    cursor = Cursor(b"t " + text, literals)
    tag = cursor.tag()
    cursor.space()
    return read_arguments(command_name(cursor), cursor, tag, limits)


def key(text: bytes, *literals: bytes) -> c.Key:
    command = read(b"SEARCH " + text, *literals)
    assert isinstance(command, c.Search)
    return command.key


def items(text: bytes, *literals: bytes) -> tuple[FetchItem, ...]:
    command = read(b"FETCH 1 " + text, *literals)
    assert isinstance(command, c.Fetch)
    return command.plan.items


class Cases(SynchronousTestCase):
    def refused(self, *texts: bytes) -> None:
        for text in texts:
            with self.subTest(text=text):
                self.assertRaises(Malformed, read, text)


class PlainCommandTests(Cases):
    def test_bare(self) -> None:
        for kind in (
            *(c.Capability, c.Noop, c.Logout, c.StartTLS, c.Namespace, c.Idle),
            *(c.Check, c.Close, c.Unselect, c.Expunge),
        ):
            name = kind.__name__.encode()
            for spelling in (name.upper(), name.lower()):
                self.assertEqual(read(spelling), kind(b"t"))
            self.refused(name + b" ", name + b" x", name + b"x")

    def test_unknown(self) -> None:
        self.refused(b"", b"FOO", b"UID", b"UID NOOP", b"UID  FETCH 1 UID", b" NOOP", b"XLIST", b"\xe4")

    def test_values_differ_by_kind(self) -> None:
        self.assertNotEqual(c.Check(b"t"), c.Close(b"t"))
        self.assertEqual(repr(c.Check(b"t")), "Check(tag=b't')")

    def test_every_command_has_its_states(self) -> None:
        self.assertEqual(set(READERS), set(ALLOWED))

    def test_id(self) -> None:
        self.assertEqual(read(b"ID NIL"), c.ID(b"t", ()))
        self.assertEqual(read(b"ID nil"), c.ID(b"t", ()))
        self.assertEqual(read(b"ID ()"), c.ID(b"t", ()))
        self.assertEqual(
            read(b'ID ("Name" "x y" "os" NIL "v" \0)', b"\xff"),
            c.ID(b"t", (("name", "x y"), ("os", None), ("v", "\ufffd"))),
        )
        self.refused(b"ID", b'ID ("a")', b"ID (a b)", b'ID ("a" "b"', b'ID ("a" "b" )', b"ID FOO")
        self.refused(b'ID ("1" "" "2" "" "3" "" "4" "")')

    def test_login(self) -> None:
        self.assertEqual(read(b"LOGIN bob s3cret]"), c.Login(b"t", b"bob", b"s3cret]"))
        # twisted.md E 13
        self.assertEqual(
            read(rb'LOGIN "a\"b" "\\ \" ("'),
            c.Login(b"t", b'a"b', b'\\ " ('),
        )
        self.assertEqual(read(b"LOGIN \0 \0", b"bob", b"\xc3\xa4"), c.Login(b"t", b"bob", b"\xc3\xa4"))
        self.assertNotIn("s3cret", repr(read(b"LOGIN bob s3cret")))
        self.refused(
            b"LOGIN", b"LOGIN bob", b"LOGIN bob  x", b"LOGIN bob x y", b"LOGIN (bob) x", rb'LOGIN "\x" y'
        )

    def test_authenticate(self) -> None:
        self.assertEqual(read(b"AUTHENTICATE plain"), c.Authenticate(b"t", "PLAIN", None))
        self.assertEqual(read(b"AUTHENTICATE PLAIN ="), c.Authenticate(b"t", "PLAIN", b""))
        self.assertEqual(
            read(b"AUTHENTICATE SCRAM-SHA-256 YWJjZA=="), c.Authenticate(b"t", "SCRAM-SHA-256", b"abcd")
        )
        self.refused(
            *(b"AUTHENTICATE", b"AUTHENTICATE PLAIN ", b"AUTHENTICATE PLAIN a", b"AUTHENTICATE PLAIN YWJj="),
            *(b"AUTHENTICATE PLAIN ==", b"AUTHENTICATE PLAIN Y W", b"AUTHENTICATE PLAIN YWJjZB=="),
            b"AUTHENTICATE PLAIN *",
        )

    def test_enable(self) -> None:
        self.assertEqual(read(b"ENABLE CondStore x"), c.Enable(b"t", ("CONDSTORE", "X")))
        self.refused(b"ENABLE", b"ENABLE ", b"ENABLE x ", b"ENABLE (x)")


class MailboxCommandTests(Cases):
    def test_named(self) -> None:
        for kind in (c.Delete, c.Subscribe, c.Unsubscribe, c.Create):
            name = kind.__name__.upper().encode()
            self.assertEqual(read(name + b" inbox"), kind(b"t", "INBOX"))
            self.assertEqual(read(name + b" Entw&APw-rfe"), kind(b"t", "Entwürfe"))
            self.assertEqual(read(name + b' "a b"'), kind(b"t", "a b"))
            self.assertEqual(read(name + b" \0", b"a/b"), kind(b"t", "a/b"))
            self.refused(name, name + b" ", name + b" a b", name + b" a*", name + b" &", name + b" NIL (x)")

    def test_create_below(self) -> None:
        self.assertEqual(read(b"CREATE a/b/"), c.Create(b"t", "a/b"))
        self.assertEqual(read(b"CREATE /"), c.Create(b"t", "/"))
        self.refused(rb"CREATE a (USE (\Sent))")

    def test_rename(self) -> None:
        self.assertEqual(read(b'RENAME inbox "old mail"'), c.Rename(b"t", "INBOX", "old mail"))
        self.refused(b"RENAME a", b"RENAME a b c")

    def test_select(self) -> None:
        self.assertEqual(read(b"SELECT INBOX"), c.Select(b"t", "INBOX"))
        self.assertEqual(read(b"SELECT a (condstore)"), c.Select(b"t", "a", True))
        self.assertEqual(read(b"EXAMINE a"), c.Examine(b"t", "a"))
        self.assertNotEqual(read(b"EXAMINE a"), read(b"SELECT a"))
        self.refused(
            b"SELECT", b"SELECT a ()", b"SELECT a (QRESYNC (1 2))", b"SELECT a (CONDSTORE", b"SELECT a  (X)"
        )

    def test_list(self) -> None:
        self.assertEqual(read(b'LIST "" *'), c.List(b"t", "", "*"))
        self.assertEqual(read(b'LIST "" ""'), c.List(b"t", "", ""))
        self.assertEqual(read(b"LIST a/ %/b*"), c.List(b"t", "a/", "%/b*"))
        self.assertEqual(read(b'LSUB "" "%"'), c.Lsub(b"t", "", "%"))
        # The extended forms belong to LIST-EXTENDED, which is not offered.
        self.refused(b'LIST (SPECIAL-USE) "" "*"', b'LIST "" "*" RETURN (SPECIAL-USE)', b'LIST "" (a b)')
        self.refused(b"LIST", b'LIST ""', b"LIST * *")

    def test_status(self) -> None:
        self.assertEqual(
            read(b"STATUS inbox (messages UNSEEN MESSAGES HIGHESTMODSEQ)"),
            c.Status(b"t", "INBOX", ("MESSAGES", "UNSEEN", "HIGHESTMODSEQ")),
        )
        # twisted.md E 14
        self.refused(
            *(
                b"STATUS a (FOO)",
                b"STATUS a (MESSAGES FOO)",
                b"STATUS a ()",
                b"STATUS a",
                b"STATUS a MESSAGES",
            ),
            *(b"STATUS a (MESSAGES )", b"STATUS a (MESSAGES", b"STATUS a (MESSAGES) x"),
        )


class AppendTests(Cases):
    def head(self, text: bytes, *literals: bytes) -> c.Append | None:
        cursor = Cursor(b"APPEND" + text, literals, at=len(b"APPEND"))
        return append_head(cursor, b"t", 99, True)

    def test_heads(self) -> None:
        flags = frozenset({"\\Seen", "$x"})
        for text, literals, expected in (
            (b" a ", (), c.Append(b"t", "a", frozenset(), None, 99, True)),
            (rb" inbox (\seen $x) ", (), c.Append(b"t", "INBOX", flags, None, 99, True)),
            (b' \0 () " 1-Jan-1970 00:00:09 +0000" ', (b"b",), c.Append(b"t", "b", frozenset(), 9, 99, True)),
            (b' a "01-Jan-1970 00:00:09 +0000" ', (), c.Append(b"t", "a", frozenset(), 9, 99, True)),
            # \Recent is not the client's to set.
            (rb" a (\RECENT \Seen) ", (), c.Append(b"t", "a", frozenset({"\\Seen"}), None, 99, True)),
        ):
            self.assertEqual(self.head(text, *literals), expected)

    def test_the_literal_is_the_mailbox(self) -> None:
        self.assertIsNone(self.head(b" "))

    def test_neither(self) -> None:
        for text in (
            *(b"", b"  ", b" a", b" a  ", rb" a (\Seen", rb" a (\Seen)", rb" a (\Seen)  ", b" a x "),
            *(b' a "yesterday" ', b' a "01-Jan-1970 00:00:09 +0000" () ', b" a UTF8 (~", b" * "),
        ):
            with self.subTest(text=text):
                self.assertRaises(Malformed, self.head, text)

    def test_no_message(self) -> None:
        self.refused(b"APPEND", b"APPEND a", b'APPEND a "text"', b"APPEND a {-1}", b"APPEND a {1_0}")


class MessageCommandTests(Cases):
    def test_copy_and_move(self) -> None:
        for name, kind, uid in (
            *((b"COPY", c.Copy, False), (b"UID COPY", c.Copy, True)),
            *((b"MOVE", c.Move, False), (b"uid move", c.Move, True)),
        ):
            self.assertEqual(read(name + b" 1:*,7 inbox"), kind(b"t", uid, SequenceSet("1:*,7"), "INBOX"))
            self.refused(name + b" a", name + b" 1", name + b" 0 a", name + b" 1  a", name + b" 1 a b")

    def test_uid_expunge(self) -> None:
        self.assertEqual(read(b"UID EXPUNGE 3:*"), c.UIDExpunge(b"t", SequenceSet("3:*")))
        self.refused(b"UID EXPUNGE", b"EXPUNGE 3:*", b"UID EXPUNGE 1 2")

    def test_store(self) -> None:
        seen = frozenset({"\\Seen"})
        for text, uid, change, silent, since in (
            (rb"STORE 1 FLAGS (\Seen)", False, FlagChange(add=seen, replace=True), False, None),
            (rb"STORE 1 flags.silent \seen", False, FlagChange(add=seen, replace=True), True, None),
            (rb"STORE 1 +FLAGS \Seen x", False, FlagChange(add=seen | {"x"}), False, None),
            (rb"UID STORE 1 -FLAGS.SILENT (\Seen)", True, FlagChange(remove=seen), True, None),
            (rb"STORE 1 FLAGS ()", False, FlagChange(replace=True), False, None),
            (rb"STORE 1 (UNCHANGEDSINCE 0) +FLAGS (\Seen)", False, FlagChange(add=seen), False, 0),
            (
                rb"STORE 1 (unchangedsince 9223372036854775807) +FLAGS (\Seen)",
                *(False, FlagChange(add=seen), False, 2**63 - 1),
            ),
            (rb"STORE 1 +FLAGS (\Recent)", False, FlagChange(), False, None),
        ):
            self.assertEqual(read(text), c.Store(b"t", uid, SequenceSet("1"), change, silent, since))
        self.refused(
            *(
                b"STORE",
                b"STORE 1",
                b"STORE 1 FLAGS",
                b"STORE 1 FLAGS ",
                b"STORE 1 *FLAGS x",
                b"STORE 1 FLAG x",
            ),
            *(b"STORE 1 FLAGS.LOUD x", b"STORE 1 +FLAGS (x) y", b"STORE 1 ++FLAGS x", b"STORE x FLAGS y"),
            *(b"STORE 1 (UNCHANGEDSINCE 9223372036854775808) FLAGS x", b"STORE 1 (UNCHANGEDSINCE) FLAGS x"),
            *(b"STORE 1 (X 1) FLAGS x", b"STORE 1 () FLAGS x", b"STORE 1 (UNCHANGEDSINCE 1)FLAGS x"),
        )

    def test_set_limit(self) -> None:
        read(b"UID EXPUNGE " + b",".join([b"1"] * 50))
        self.refused(b"UID EXPUNGE " + b",".join([b"1"] * 51))


class FetchTests(Cases):
    def test_simple_items(self) -> None:
        for item in Item:
            if item is not Item.SECTION:
                self.assertEqual(items(item.value.lower().encode()), (FetchItem(item, item.value.encode()),))

    def test_macros(self) -> None:
        fast = (Item.FLAGS, Item.INTERNALDATE, Item.SIZE)
        for text, kinds in (
            (b"FAST", fast),
            (b"all", (*fast, Item.ENVELOPE)),
            (b"FULL", (*fast, Item.ENVELOPE, Item.BODY)),
        ):
            self.assertEqual(tuple(item.kind for item in items(text)), kinds)
        self.refused(b"FETCH 1 (ALL)", b"FETCH 1 (FLAGS FAST)", b"FETCH 1 FAST FLAGS")

    def test_rfc822(self) -> None:
        section = Item.SECTION
        self.assertEqual(
            items(b"(RFC822 RFC822.HEADER RFC822.TEXT RFC822.SIZE)"),
            (
                FetchItem(section, b"RFC822", peek=False),
                FetchItem(section, b"RFC822.HEADER", what="HEADER"),
                FetchItem(section, b"RFC822.TEXT", what="TEXT", peek=False),
                FetchItem(Item.SIZE, b"RFC822.SIZE"),
            ),
        )

    def test_sections(self) -> None:
        for text, label, path, what in (
            (b"BODY[]", b"BODY[]", (), None),
            (b"body[header]", b"BODY[HEADER]", (), "HEADER"),
            (b"BODY[Text]", b"BODY[TEXT]", (), "TEXT"),
            (b"BODY[1]", b"BODY[1]", (1,), None),
            (b"BODY[1.2.10]", b"BODY[1.2.10]", (1, 2, 10), None),
            (b"BODY[4.2.mime]", b"BODY[4.2.MIME]", (4, 2), "MIME"),
            (b"BODY[4.HEADER]", b"BODY[4.HEADER]", (4,), "HEADER"),
            (b"BODY[4.TEXT]", b"BODY[4.TEXT]", (4,), "TEXT"),
        ):
            self.assertEqual(items(text), (FetchItem(Item.SECTION, label, path, what, peek=False),))
            peek = b"BODY.PEEK" + text[4:]
            self.assertEqual(items(peek), (FetchItem(Item.SECTION, label, path, what, peek=True),))

    def test_no_sections(self) -> None:
        for text in (
            *(b"BODY[", b"BODY[]]", b"BODY[MIME]", b"BODY[0]", b"BODY[1.]", b"BODY[.1]", b"BODY[1..2]"),
            *(b"BODY[01]", b"BODY[1HEADER]", b"BODY[1.FOO]", b"BODY[FOO]", b"BODY[HEADER.FIELDS]"),
            *(b"BODY[HEADER.FIELDS ()]", b"BODY[HEADER.FIELDS (a]", b"BODY[HEADER.FIELDS (a )]"),
            *(b"BODY[HEADER.FIELDS(a)]", b"BODY[HEADER (a)]", b"BODY[TEXT.1]", b"BODY[1.1.1.1.1.1]"),
            *(b"BODY[-1]", b"BODY[1.99999999999]", b"BODY.PEEK", b"RFC822[]", b"BODYSTRUCTURE[]"),
            *(b"BODY []", b"BODY[ ]", b"BODY[HEADER.]", b"BODY[1.2.MIME.1]", b"BINARY[1]"),
        ):
            self.refused(b"FETCH 1 " + text, b"FETCH 1 (" + text + b")")

    def test_fields(self) -> None:
        for text, literals, label, what in (
            (b"HEADER.FIELDS (From To)", (), b"HEADER.FIELDS (From To)", "HEADER.FIELDS"),
            (b'header.fields.not ("From" TO)', (), b'HEADER.FIELDS.NOT ("From" TO)', "HEADER.FIELDS.NOT"),
            (b"HEADER.FIELDS (\0 to)", (b"From",), b"HEADER.FIELDS (From to)", "HEADER.FIELDS"),
        ):
            (item,) = items(b"BODY.PEEK[" + text + b"]", *literals)
            self.assertEqual(item.label, b"BODY[" + label + b"]")
            self.assertEqual(item.what, what)
            self.assertEqual(item.fields, {b"from", b"to"})
            self.assertEqual(item.negate, what.endswith("NOT"))
        (item,) = items(b"BODY[1.2.HEADER.FIELDS (a)]<5.6>")
        self.assertEqual(item.label, b"BODY[1.2.HEADER.FIELDS (a)]<5>")
        self.assertEqual((item.path, item.partial), ((1, 2), (5, 6)))

    def test_partial(self) -> None:
        # twisted.md E 11
        for text, label, partial in (
            (b"BODY[]<0.1>", b"BODY[]<0>", (0, 1)),
            (b"BODY[TEXT]<10.4294967295>", b"BODY[TEXT]<10>", (10, 2**32 - 1)),
        ):
            (item,) = items(text)
            self.assertEqual((item.label, item.partial), (label, partial))
        for text in (
            *(b"<>", b"<0>", b"<0.0>", b"<-1.5>", b"<0.-5>", b"<.5>", b"<0.5", b"<0.4294967296>", b"<a.b>"),
            *(b"<1_0.5>", b" <0.5>", b"<0.5><0.5>", b"<99999999999.1>"),
        ):
            self.refused(b"FETCH 1 BODY[]" + text)
        self.refused(b"FETCH 1 RFC822<0.5>", b"FETCH 1 BODY<0.5>")

    def test_each_label_once(self) -> None:
        self.assertEqual(len(items(b"(FLAGS FLAGS flags)")), 1)
        for text in (b"(BODY[] BODY.PEEK[])", b"(BODY.PEEK[] BODY[])"):
            (item,) = items(text)
            self.assertFalse(item.peek)

    def test_plan(self) -> None:
        for text, columns_only, sets_seen in (
            (b"(UID FLAGS INTERNALDATE RFC822.SIZE MODSEQ)", True, False),
            (b"ENVELOPE", False, False),
            (b"(FLAGS BODY.PEEK[])", False, False),
            (b"(BODY.PEEK[HEADER] BODY[])", False, True),
            (b"RFC822.HEADER", False, False),
            (b"RFC822", False, True),
        ):
            command = read(b"FETCH 1 " + text)
            self.assertEqual(command.plan.columns_only, columns_only)
            self.assertEqual(command.plan.sets_seen, sets_seen)
        plan = read(b"FETCH 1 (FLAGS BODY[])").plan
        self.assertEqual(plan.kinds, {Item.FLAGS, Item.SECTION})
        self.assertEqual([item.label for item in plan.sections], [b"BODY[]"])

    def test_uid_fetch_has_uid(self) -> None:
        for text, kinds in ((b"FLAGS", [Item.UID, Item.FLAGS]), (b"(FLAGS UID)", [Item.UID, Item.FLAGS])):
            command = read(b"UID FETCH 1 " + text)
            self.assertTrue(command.uid)
            self.assertEqual([item.kind for item in command.plan.items], kinds)

    def test_changed_since(self) -> None:
        for text in (b"FLAGS (CHANGEDSINCE 12)", b"(FLAGS) (changedsince 12)"):
            command = read(b"FETCH 1:* " + text)
            self.assertEqual(command.changed_since, 12)
            self.assertEqual([item.kind for item in command.plan.items], [Item.FLAGS, Item.MODSEQ])
        self.refused(
            *(b"FETCH 1 FLAGS (CHANGEDSINCE 0)", b"FETCH 1 FLAGS (CHANGEDSINCE)", b"FETCH 1 FLAGS ()"),
            *(
                b"FETCH 1 FLAGS (CHANGEDSINCE 1 VANISHED)",
                b"FETCH 1 FLAGS (X 1)",
                b"FETCH 1 FLAGS (CHANGEDSINCE 1",
            ),
        )

    def test_malformed(self) -> None:
        self.refused(
            *(b"FETCH", b"FETCH 1", b"FETCH 1 ", b"FETCH 1 ()", b"FETCH 1 (FLAGS", b"FETCH 1 (FLAGS )"),
            *(
                b"FETCH 1 ( FLAGS)",
                b"FETCH 1 FLAGS UID",
                b"FETCH 1 FOO",
                b"FETCH 1 ((FLAGS))",
                b"FETCH x FLAGS",
            ),
        )

    def test_item_limit(self) -> None:
        read(b"FETCH 1 (" + b" ".join([b"UID"] * 20) + b")")
        self.refused(b"FETCH 1 (" + b" ".join([b"UID"] * 21) + b")")

    def test_what_is_remembered_is_the_same(self) -> None:
        text = b"(FLAGS BODY.PEEK[HEADER.FIELDS (From To)])"
        first, second = read(b"FETCH 1 " + text), read(b"FETCH 2:3 " + text)
        self.assertIs(first.plan, second.plan)
        self.assertEqual(second.numbers, SequenceSet("2:3"))
        # But not across UID FETCH and FETCH, nor across literals.
        self.assertNotEqual(read(b"UID FETCH 1 " + text).plan, first.plan)
        one, two = (items(b"BODY[HEADER.FIELDS (\0)]", name) for name in (b"a", b"b"))
        self.assertNotEqual(one, two)


class SearchTests(Cases):
    def test_flags(self) -> None:
        for name in ("Answered", "Deleted", "Draft", "Flagged", "Seen"):
            self.assertEqual(key(name.encode()), c.HasFlag("\\" + name))
            self.assertEqual(key(b"un" + name.encode()), c.HasFlag("\\" + name, False))
        self.assertEqual(key(b"KEYWORD $Junk"), c.HasFlag("$Junk"))
        self.assertEqual(key(b"UNKEYWORD x"), c.HasFlag("x", False))
        self.assertEqual(key(b"RECENT"), c.Recent())
        self.assertEqual(key(b"OLD"), c.Recent(False))
        self.assertEqual(key(b"NEW"), c.And((c.Recent(), c.HasFlag("\\Seen", False))))
        self.assertEqual(key(b"all"), c.All())

    def test_dates(self) -> None:
        day = date(1994, 2, 1)
        for when in c.When:
            self.assertEqual(key(when.name.encode() + b" 1-Feb-1994"), c.ReceivedOn(when, day))
            self.assertEqual(key(b'SENT%b "1-Feb-1994"' % when.name.encode()), c.SentOn(when, day))

    def test_text(self) -> None:
        self.assertEqual(key(b'SUBJECT "a b"'), c.SubjectContains("a b"))
        for name in ("bcc", "cc", "from", "to"):
            self.assertEqual(key(name.encode() + b' "a b"'), c.HeaderContains(name, "a b"))
        self.assertEqual(key(b'HEADER X-Foo ""'), c.HeaderContains("x-foo", ""))
        self.assertEqual(key(b"BODY hello"), c.BodyContains("hello"))
        self.assertEqual(key(b"TEXT \0", b"hello"), c.TextContains("hello"))

    def test_numbers(self) -> None:
        self.assertEqual(key(b"LARGER 0"), c.Larger(0))
        self.assertEqual(key(b"SMALLER 4294967295"), c.Smaller(2**32 - 1))
        self.assertEqual(key(b"2,4:*"), c.Numbered(SequenceSet("2,4:*")))
        self.assertEqual(key(b"*"), c.Numbered(SequenceSet("*")))
        self.assertEqual(key(b"UID 7"), c.UIDs(SequenceSet("7")))

    def test_modseq(self) -> None:
        command = read(b'SEARCH OR NOT MODSEQ 7 MODSEQ "/flags/\\\\draft" all 620')
        self.assertTrue(command.modseq)
        self.assertEqual(command.key, c.Or(c.Not(c.ModSeq(7)), c.ModSeq(620, "/flags/\\draft", "all")))
        self.assertFalse(read(b"SEARCH ALL").modseq)
        self.refused(
            b"SEARCH MODSEQ", b"SEARCH MODSEQ x 7", b'SEARCH MODSEQ "/flags/x" 7', b'SEARCH MODSEQ "x" y 7'
        )

    def test_combinations(self) -> None:
        seen, draft = c.HasFlag("\\Seen"), c.HasFlag("\\Draft")
        for text, expected in (
            (b"SEEN DRAFT", c.And((seen, draft))),
            (b"(SEEN DRAFT)", c.And((seen, draft))),
            (b"(SEEN)", seen),
            (b"((SEEN) DRAFT)", c.And((seen, draft))),
            (b"NOT SEEN", c.Not(seen)),
            (b"NOT NOT SEEN", c.Not(c.Not(seen))),
            (b"NOT (SEEN DRAFT)", c.Not(c.And((seen, draft)))),
            (b"OR SEEN DRAFT", c.Or(seen, draft)),
            (b"OR SEEN DRAFT ALL", c.And((c.Or(seen, draft), c.All()))),
            (b"OR OR SEEN DRAFT NOT ALL", c.Or(c.Or(seen, draft), c.Not(c.All()))),
            (b"OR (SEEN ALL) DRAFT", c.Or(c.And((seen, c.All())), draft)),
            (b"NOT OR SEEN DRAFT ALL", c.And((c.Not(c.Or(seen, draft)), c.All()))),
        ):
            with self.subTest(text=text):
                self.assertEqual(key(text), expected)

    def test_leaves(self) -> None:
        found = set(c.leaves(key(b"OR (SEEN 1) NOT LARGER 5 ALL")))
        self.assertEqual(found, {c.HasFlag("\\Seen"), c.Numbered(SequenceSet("1")), c.Larger(5), c.All()})

    def test_returns(self) -> None:
        for text, returns in (
            (b"ALL", None),
            (b"RETURN () ALL", {"ALL"}),
            (b"return (min MAX) ALL", {"MIN", "MAX"}),
            (b"RETURN (COUNT ALL COUNT) ALL", {"COUNT", "ALL"}),
            (b"RETURN (COUNT) CHARSET UTF-8 ALL", {"COUNT"}),
        ):
            self.assertEqual(read(b"UID SEARCH " + text), c.Search(b"t", True, c.All(), returns))
        self.refused(
            *(
                b"SEARCH RETURN ALL",
                b"SEARCH RETURN (SAVE) ALL",
                b"SEARCH RETURN (MIN)",
                b"SEARCH RETURN (MIN )",
            ),
            *(b"SEARCH RETURN (MIN ALL", b"SEARCH CHARSET UTF-8 RETURN (MIN) ALL"),
        )

    def test_charset(self) -> None:
        # twisted.md E 12
        for charset, raw in (
            (b"UTF-8", b"\xc3\xa4"),
            (b"utf-8", b"\xc3\xa4"),
            (b'"UTF-8"', b"\xc3\xa4"),
            (b"ISO-8859-1", b"\xe4"),
            (b"windows-1252", b"\xe4"),
        ):
            self.assertEqual(key(b"CHARSET " + charset + b" SUBJECT \0", raw), c.SubjectContains("ä"))
        self.assertEqual(key(b"CHARSET US-ASCII TEXT a"), c.TextContains("a"))
        self.assertEqual(key(b"CHARSET KOI8-R TEXT \0", b"\xc1"), c.TextContains("а"))
        for text, raw in ((b"TEXT \0", b"\xc3\xa4"), (b"CHARSET UTF-8 TEXT \0", b"\xe4")):
            self.assertRaises(Malformed, key, text, raw)
        for charset in (b"FOO", b"rot13", b"zip", b"hex", b"idna", b'""'):
            self.assertRaises(UnknownCharset, key, b"CHARSET " + charset + b" ALL")
        self.refused(b"SEARCH CHARSET", b"SEARCH CHARSET UTF-8", b"SEARCH CHARSET UTF-8 ")

    def test_malformed(self) -> None:
        self.refused(
            *(
                b"SEARCH",
                b"SEARCH ",
                b"SEARCH FOO",
                b"SEARCH ()",
                b"SEARCH (SEEN",
                b"SEARCH SEEN)",
                b"SEARCH NOT",
            ),
            *(b"SEARCH OR SEEN", b"SEARCH OR SEEN ", b"SEARCH SEEN ", b"SEARCH  SEEN", b"SEARCH (SEEN )"),
            *(b"SEARCH ( SEEN)", b"SEARCH SEEN(DRAFT)", b"SEARCH FROM", b"SEARCH FROM ", b"SEARCH HEADER x"),
            *(b"SEARCH KEYWORD", b'SEARCH KEYWORD "a"', b"SEARCH KEYWORD \\Seen", b"SEARCH LARGER x"),
            *(
                b"SEARCH SINCE 99-Jan-2020",
                b"SEARCH SINCE x",
                b"SEARCH UID x",
                b"SEARCH 0",
                b"SEARCH 1:",
                b"SEARCH $",
            ),
            *(b"SEARCH (NOT) SEEN", b"SEARCH (OR SEEN) DRAFT"),
        )

    def test_depth(self) -> None:
        self.assertEqual(key(b"(" * 9 + b"SEEN" + b")" * 9), c.HasFlag("\\Seen"))
        key(b"NOT " * 9 + b"SEEN")
        self.refused(b"SEARCH " + b"(" * 10 + b"SEEN" + b")" * 10)
        self.refused(b"SEARCH " + b"NOT " * 10 + b"SEEN", b"SEARCH " + b"OR " * 10 + b"SEEN " * 11)

    def test_wide_is_not_deep(self) -> None:
        found = key(b"OR SEEN DRAFT " * 1000 + b"ALL")
        self.assertEqual(len(found.keys), 1001)


class HostileTests(Cases):
    def test_deep_parentheses_are_refused_quickly(self) -> None:
        # twisted.md E 17
        deep = b"(" * 10_000
        started = thread_time()
        self.refused(
            *(b"SEARCH " + deep + b"ALL" + b")" * 10_000, b"SEARCH " + b"NOT " * 10_000 + b"ALL"),
            *(
                b"FETCH 1 " + deep,
                b"STORE 1 FLAGS " + deep,
                b"ID " + deep,
                b"STATUS a " + deep,
                b"LIST " + deep,
            ),
        )
        self.assertLess(thread_time() - started, 1)

    def test_long_commands_are_linear(self) -> None:
        limits = Limits()
        for text in (
            b"SEARCH " + b"OR ALL ALL " * 20_000 + b"ALL",
            b"SEARCH " + b"(ALL) " * 30_000 + b"ALL",
            b"FETCH 1 (BODY[HEADER.FIELDS (" + b"a " * 100_000 + b"a)])",
            b"FETCH 1 BODY[" + b"1." * 100_000 + b"1]",
            b"STORE 1 FLAGS (" + b"a " * 100_000 + b"a)",
            b"ENABLE" + b" a" * 100_000,
            b"STATUS a (" + b"UIDNEXT " * 20_000 + b"UIDNEXT)",
            b"SEARCH MODSEQ " + b"1" * 200_000,
            b'ID ("' + b"\\\\" * 100_000 + b'" NIL)',
        ):
            started = thread_time()
            with contextlib.suppress(Malformed):
                read(text, limits=limits)
            self.assertLess(thread_time() - started, 2, text[:30])

    words = st.sampled_from(
        [name.encode() for name in READERS]
        + [
            b" ",
            b"(",
            b")",
            b"[",
            b"]",
            b"<0.1>",
            b"1",
            b"*",
            b":",
            b",",
            b'"',
            b"\\",
            b"{1}",
            b"BODY",
            b".PEEK",
        ]
        + [
            b"HEADER",
            b".FIELDS",
            b"NOT",
            b"OR",
            b"SEEN",
            b"CHARSET",
            b"RETURN",
            b"MODSEQ",
            b"UTF-8",
            b"x",
            b"NIL",
        ]
        + [b"FLAGS", b"UNCHANGEDSINCE", b"CHANGEDSINCE", b'"/a"', b"SINCE", b"1-Feb-2020", b"&", b"\t"]
    )

    @settings(max_examples=500, deadline=None)
    @given(
        st.sampled_from([name.encode() for name in READERS]),
        st.lists(words, max_size=12).map(b" ".join) | st.lists(words, max_size=12).map(b"".join),
    )
    def test_words_in_any_order(self, name: bytes, rest: bytes) -> None:
        for text in (name + rest, name + b" " + rest):
            try:
                command = read(text)
            except Malformed:
                continue
            self.assertEqual(command.tag, b"t")
