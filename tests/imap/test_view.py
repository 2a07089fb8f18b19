"""Sequence numbers and news: what a client believes is what it was told."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap.refusal import GiveUp
from mailplat.imap.view import MailboxView, Selected, SequenceError, Views
from mailplat.interfaces import NewMessage
from mailplat.storage.memory import MemoryStore
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import Changes, Columns, FlagChange, MailboxStatus, flag_names


class Spooled:
    """As much of ISpooledMessage as the memory store looks at."""

    outline = b""

    def __init__(self, data=b"Subject: x\r\n\r\nhello\r\n"):
        self.data = data
        self.size = len(data)


def now(awaitable):
    """The result of something that does not wait."""
    result = []
    Deferred.fromCoroutine(awaitable).addBoth(result.append) if hasattr(awaitable, "send") else (
        awaitable.addBoth(result.append)
    )
    if hasattr(result[0], "raiseException"):
        result[0].raiseException()
    return result[0]


def make_mailbox(count=0, flags=frozenset()):
    store = MemoryStore()
    now(store.create_account("a@example.test"))
    mailbox = now(now(store.account("a@example.test")).open("INBOX"))
    add(mailbox, count, flags)
    return mailbox


def add(mailbox, count, flags=frozenset()):
    if count:
        now(mailbox.append([NewMessage(Spooled(), b"", frozenset(flags), 0)] * count))


def select(mailbox_or_view, read_only=False, wake=lambda: None):
    view = mailbox_or_view
    if not isinstance(view, MailboxView):
        view = MailboxView(view)
    now(view.refresh())
    selected = Selected(view, read_only, wake)
    now(selected.catch_up())
    return selected


class ViewTests(SynchronousTestCase):
    def test_numbers_without_lag(self):
        selected = select(make_mailbox(5))
        self.assertEqual(selected.exists, 5)
        self.assertEqual([selected.uid_at(n) for n in range(1, 6)], [1, 2, 3, 4, 5])
        self.assertEqual(selected.from_numbers(UIDSet(((2, 4),))), UIDSet(((2, 4),)))
        self.assertEqual(selected.star, 5)

    def test_numbers_that_do_not_exist(self):
        selected = select(make_mailbox(2))
        with self.assertRaises(SequenceError):
            selected.from_numbers(UIDSet(((1, 3),)))
        self.assertEqual(selected.from_numbers(UIDSet(((1, 3),)), lenient=True), UIDSet(((1, 2),)))

    def test_an_empty_mailbox(self):
        selected = select(make_mailbox())
        self.assertEqual((selected.exists, selected.star, selected.first_unseen()), (0, 0, 0))
        self.assertEqual(list(selected.pieces(EVERYTHING, 10)), [])

    def test_lagging_numbers_stay(self):
        mailbox = make_mailbox(6)
        selected = select(mailbox)
        now(mailbox.expunge(UIDSet.of([2, 3, 5]), deleted_only=False))
        now(selected.catch_up())
        self.assertEqual(selected.exists, 6)
        self.assertEqual([selected.uid_at(n) for n in range(1, 7)], [1, 2, 3, 4, 5, 6])
        self.assertEqual([selected.number_of(uid) for uid in (1, 4, 6)], [1, 4, 6])
        self.assertEqual(selected.to_numbers(EVERYTHING), UIDSet.of([1, 4, 6]))
        [rows] = selected.pieces(EVERYTHING, 10)
        self.assertEqual((list(rows.numbers), list(rows.columns.uids)), ([1, 4, 6], [1, 4, 6]))
        self.assertTrue(selected.lagging(UIDSet.of([5])))
        self.assertFalse(selected.lagging(UIDSet.of([4])))
        # Not during FETCH, STORE or SEARCH (RFC 3501 §7.4.1)
        self.assertEqual(list(selected.news(False).expunged), [])
        self.assertEqual(list(selected.news(True).expunged), [5, 3, 2])
        self.assertEqual(selected.exists, 3)

    def test_new_messages_have_no_number_until_told(self):
        mailbox = make_mailbox(2)
        selected = select(mailbox)
        add(mailbox, 2)
        now(selected.catch_up())
        self.assertEqual(selected.exists, 2)
        self.assertEqual(selected.known(EVERYTHING), UIDSet(((1, 2),)))
        [rows] = selected.pieces(EVERYTHING, 10)
        self.assertEqual(list(rows.columns.uids), [1, 2])
        news = selected.news(False)
        self.assertEqual((news.exists, selected.exists), (4, 4))

    def test_appended_and_expunged_untold(self):
        mailbox = make_mailbox(1)
        selected = select(mailbox)
        add(mailbox, 1)
        now(selected.catch_up())
        now(mailbox.expunge(UIDSet.of([2]), deleted_only=False))
        now(selected.catch_up())
        news = selected.news(True)
        self.assertEqual((list(news.expunged), news.exists), ([], None))

    def test_exists_counts_those_not_yet_expunged_for_the_client(self):
        mailbox = make_mailbox(3)
        selected = select(mailbox)
        now(mailbox.expunge(UIDSet.of([1]), deleted_only=False))
        add(mailbox, 1)
        now(selected.catch_up())
        self.assertEqual(selected.news(False).exists, 4)
        self.assertEqual(list(selected.news(True).expunged), [1])
        self.assertEqual(selected.exists, 3)

    def test_pieces_are_looked_up_when_asked_for(self):
        mailbox = make_mailbox(10)
        selected = select(mailbox)
        pieces = selected.pieces(UIDSet(((2, 9),)), 3)
        self.assertEqual(list(next(pieces).columns.uids), [2, 3, 4])
        now(mailbox.expunge(UIDSet.of([1, 6]), deleted_only=False))
        now(selected.catch_up())
        rows = next(pieces)
        self.assertEqual((list(rows.columns.uids), list(rows.numbers)), ([5, 7, 8], [5, 7, 8]))
        self.assertEqual([list(rows.columns.uids) for rows in pieces], [[9]])

    def test_pieces_gather_scattered_runs(self):
        selected = select(make_mailbox(20))
        pieces = list(selected.pieces(UIDSet.of(range(1, 20, 2)), 4))
        self.assertEqual([list(rows.numbers) for rows in pieces], [[1, 3, 5, 7], [9, 11, 13, 15], [17, 19]])
        self.assertEqual(
            [list(rows.columns.uids) for rows in pieces], [list(rows.numbers) for rows in pieces]
        )

    def test_many_runs_are_dropped(self):
        mailbox = make_mailbox(200)
        selected = select(mailbox)
        now(mailbox.set_flags(EVERYTHING, FlagChange(frozenset({"kept"}))))
        now(mailbox.expunge(UIDSet.of(range(1, 200, 2)), deleted_only=False))
        now(selected.catch_up())
        now(selected.view.refresh())
        self.assertEqual(list(selected.view.columns.uids), list(range(2, 201, 2)))
        self.assertEqual(set(selected.view.columns.flags), {32})
        self.assertEqual(selected.news(True).expunged[0], 199)

    def test_flags_of_others_are_pending_until_told(self):
        mailbox = make_mailbox(3)
        selected = select(mailbox)
        now(mailbox.set_flags(UIDSet.of([2]), FlagChange(frozenset({"\\Seen"}))))
        now(selected.catch_up())
        [rows] = selected.pieces(UIDSet.of([2]), 10)
        now(mailbox.set_flags(UIDSet.of([2]), FlagChange(frozenset({"\\Flagged"}))))
        now(selected.catch_up())
        selected.told(rows.columns)
        self.assertEqual(selected.pending, UIDSet.of([2]))
        [rows] = selected.pieces(UIDSet.of([2]), 10)
        selected.told(rows.columns)
        self.assertFalse(selected.has_news)

    def test_scattered_changes(self):
        mailbox = make_mailbox(9)
        selected = select(mailbox)
        now(mailbox.set_flags(UIDSet.of([2, 5, 9]), FlagChange(frozenset({"\\Seen"}))))
        now(selected.catch_up())
        self.assertEqual(list(selected.view.columns.flags), [0, 1, 0, 0, 1, 0, 0, 0, 1])
        self.assertEqual(selected.news(False).changed, UIDSet.of([2, 5, 9]))

    def test_keywords_past_the_word(self):
        mailbox = make_mailbox(2)
        selected = select(mailbox)
        names = [f"k{n}" for n in range(70)]
        now(mailbox.set_flags(UIDSet.of([1]), FlagChange(frozenset(names))))
        now(selected.catch_up())
        [rows] = selected.pieces(EVERYTHING, 10)
        self.assertEqual(set(flag_names(rows.columns.word(0), mailbox.keywords)), set(names))
        self.assertTrue(selected.news(False).keywords)
        self.assertFalse(selected.news(False).keywords)
        now(mailbox.set_flags(UIDSet.of([1]), FlagChange(frozenset(), replace=True)))
        now(selected.catch_up())
        [rows] = selected.pieces(EVERYTHING, 10)
        self.assertEqual(rows.columns.word(0), 0)

    def test_first_unseen(self):
        mailbox = make_mailbox(20_000, {"\\Seen"})
        selected = select(mailbox)
        self.assertEqual(selected.first_unseen(), 0)
        now(mailbox.set_flags(UIDSet.of([12_345]), FlagChange(remove=frozenset({"\\Seen"}))))
        now(mailbox.expunge(UIDSet.of([7]), deleted_only=False))
        now(selected.catch_up())
        self.assertEqual(selected.first_unseen(), 12_345)
        selected.news(True)
        self.assertEqual(selected.first_unseen(), 12_344)

    def test_recent_is_claimed_once(self):
        mailbox = make_mailbox(2)
        first = select(mailbox)
        second = select(first.view)
        self.assertEqual((first.count_recent(), second.count_recent()), (2, 0))
        add(mailbox, 1)
        now(second.catch_up())
        now(first.catch_up())
        self.assertEqual((second.news(True).recent, first.news(True).recent), (1, 2))
        now(mailbox.expunge(UIDSet.of([1]), deleted_only=False))
        now(first.catch_up())
        self.assertEqual(first.news(True).recent, 1)

    def test_of_many_sessions_one_claims(self):
        mailbox = make_mailbox(1)
        claims = []
        claim = mailbox.claim_recent

        async def counted():
            claims.append(1)
            if len(claims) == 2:
                raise OSError("disk")
            return await claim()

        mailbox.claim_recent = counted
        view = MailboxView(mailbox)
        first = select(view)
        others = [select(view) for _ in range(5)]
        self.assertEqual([one.count_recent() for one in (first, *others)], [1, 0, 0, 0, 0, 0])
        self.assertEqual(len(claims), 1)
        add(mailbox, 1)
        # What nobody could claim the next one may.
        self.assertRaises(OSError, now, first.catch_up())
        for one in others:
            now(one.catch_up())
            one.news(expunges=True)
        self.assertEqual([one.count_recent() for one in others], [1, 0, 0, 0, 0])
        self.assertEqual(len(claims), 3)

    def test_examine_leaves_recent_alone(self):
        mailbox = make_mailbox(2)
        self.assertEqual(select(mailbox, read_only=True).count_recent(), 2)
        self.assertEqual(select(mailbox).count_recent(), 2)

    def test_a_closed_session_hears_nothing(self):
        mailbox = make_mailbox(1)
        woken = []
        selected = select(mailbox, wake=lambda: woken.append(1))
        add(mailbox, 1)
        self.assertEqual(woken, [1])
        selected.close()
        selected.close()
        add(mailbox, 1)
        self.assertEqual(woken, [1])


class SlowMailbox:
    """A mailbox whose answers the test gives."""

    name = "INBOX"
    keywords = ()

    def __init__(self):
        self.asked = []
        self.hints = []

    def changes(self, since):
        answer = Deferred()
        self.asked.append((since, answer))
        return answer

    def columns(self, uids):
        return succeed(self.rows)

    def watch(self, hint):
        self.hints.append(hint)
        return lambda: self.hints.remove(hint) if hint in self.hints else None


def rows(*uids, modseq=1):
    return Columns.of((uid, 0, modseq, 10, 0) for uid in uids)


class RefreshTests(SynchronousTestCase):
    def setUp(self):
        self.mailbox = SlowMailbox()
        self.view = MailboxView(self.mailbox)

    def test_those_who_ask_meanwhile_share_the_next_call(self):
        first, second, third = (self.view.refresh() for _ in range(3))
        self.assertEqual(len(self.mailbox.asked), 1)
        self.mailbox.asked[0][1].callback(Changes(3, rows(1, 2)))
        self.successResultOf(first)
        # The second came after the first call left: it may know of something newer.
        self.assertNoResult(second)
        self.assertEqual([since for since, _ in self.mailbox.asked], [0, 3])
        self.mailbox.asked[1][1].callback(Changes(3, rows()))
        self.successResultOf(second)
        self.successResultOf(third)

    def test_following_without_a_hint_asks_nothing(self):
        waiting = self.view.refresh()
        self.mailbox.asked[0][1].callback(Changes(1, rows(1)))
        self.successResultOf(waiting)
        now(self.view.follow())
        self.assertEqual(len(self.mailbox.asked), 1)
        self.mailbox.hints[0]()
        Deferred.fromCoroutine(self.view.follow())
        self.assertEqual(len(self.mailbox.asked), 2)

    def test_what_a_call_of_ours_changed_is_learned(self):
        waiting = self.view.refresh()
        self.mailbox.asked[0][1].callback(Changes(3, rows(1, 2)))
        self.successResultOf(waiting)
        other = Selected(self.view, True, lambda: None)
        self.view.learn(rows(2, modseq=4))
        self.assertEqual((self.view.upto, list(self.view.columns.modseqs)), (4, [1, 4]))
        self.assertEqual(other.pending, UIDSet.of([2]))
        # Something happened in between, or may have: what is asked next tells.
        self.view.learn(rows(1, modseq=6))
        self.view.learn(rows())
        self.view.refresh()
        self.view.learn(rows(1, modseq=5))
        self.assertEqual((self.view.upto, list(self.view.columns.modseqs)), (4, [1, 4]))

    def test_a_failure_reaches_those_who_wait_and_passes(self):
        first = self.view.refresh()
        self.mailbox.asked[0][1].errback(OSError("disk"))
        self.failureResultOf(first, OSError)
        again = self.view.refresh()
        self.mailbox.asked[1][1].callback(Changes(1, rows(1)))
        self.successResultOf(again)
        self.assertEqual(len(self.view), 1)

    def test_a_store_that_cannot_tell_what_vanished(self):
        waiting = self.view.refresh()
        self.mailbox.asked[0][1].callback(Changes(5, rows(1, 2, 3), None))
        self.successResultOf(waiting)
        selected = Selected(self.view, True, lambda: None)
        self.mailbox.rows = rows(1, 3, 4)
        waiting = self.view.refresh()
        self.mailbox.asked[1][1].callback(Changes(6, rows(4), None))
        self.successResultOf(waiting)
        news = selected.news(True)
        self.assertEqual((list(news.expunged), news.exists), ([2], 3))


class CountedTests(SynchronousTestCase):
    """A client that is told counters, and rows that come later."""

    def setUp(self):
        self.mailbox = SlowMailbox()
        self.view = MailboxView(self.mailbox)

    def select(self, messages, uid_next, modseq, **more):
        counted = MailboxStatus(messages, 0, 0, uid_next, 1, modseq, 0)
        return Selected(self.view, True, more.pop("wake", lambda: None), counted)

    def load(self, selected):
        return Deferred.fromCoroutine(selected.catch_up(hinted=True))

    def answer(self, *all_changes):
        """What the mailbox says to what it is asked next, one after the other; nothing more is new then."""
        while self.mailbox.asked:
            since, waiting = self.mailbox.asked.pop(0)
            changes, *all_changes = *all_changes, Changes(since, rows())
            waiting.callback(changes)

    def test_counters_are_what_the_client_believes(self):
        selected = self.select(3, 10, 5)
        self.assertEqual((selected.exists, selected.last, selected.moment), (3, 9, 5))
        self.assertEqual((selected.first_unseen(), selected.count_recent()), (0, 0))
        self.assertTrue(self.view.watched)
        self.assertFalse(self.view.loaded)
        self.assertEqual(self.mailbox.asked, [])

    def test_nothing_happened_meanwhile(self):
        selected = self.select(3, 10, 5)
        loading = self.load(selected)
        self.assertEqual(selected.exists, 3)
        self.answer(Changes(5, rows(2, 4, 9)))
        self.successResultOf(loading)
        self.assertIsNone(selected.counted)
        self.assertEqual([selected.uid_at(n) for n in (1, 2, 3)], [2, 4, 9])
        self.assertFalse(selected.has_news)

    def test_what_happened_meanwhile_is_news(self):
        selected = self.select(4, 10, 5)
        loading = self.load(selected)
        (asked,) = self.mailbox.asked
        self.assertEqual(asked[0], 0)
        # 4 and 12 are gone, 11 came, 9 changed: some of it before the rows were read.
        self.mailbox.asked.pop()[1].callback(Changes(7, rows(2, 6, 9, 11)))
        (asked,) = self.mailbox.asked
        self.assertEqual(asked[0], 5)
        self.answer(Changes(8, rows(9, 11, modseq=8), UIDSet.of([4, 12])))
        self.successResultOf(loading)
        self.assertEqual([selected.uid_at(n) for n in (1, 2, 3, 4)], [2, 4, 6, 9])
        news = selected.news(True)
        self.assertEqual((list(news.expunged), news.exists, news.changed), ([2], 4, UIDSet.of([9])))
        self.assertEqual(list(self.view.columns.modseqs), [1, 1, 8, 8])

    def test_sessions_of_different_moments(self):
        first, second = self.select(3, 4, 5), self.select(2, 4, 6)
        loading = [self.load(first), self.load(second)]
        self.mailbox.asked.pop()[1].callback(Changes(7, rows(3)))
        vanished = {5: UIDSet.of([1, 2]), 6: UIDSet.of([2]), 7: UIDSet()}
        while self.mailbox.asked:
            since, waiting = self.mailbox.asked.pop()
            waiting.callback(Changes(7, rows(), vanished[since]))
        for one in loading:
            self.successResultOf(one)
        self.assertEqual([first.uid_at(n) for n in (1, 2, 3)], [1, 2, 3])
        self.assertEqual([second.uid_at(n) for n in (1, 2)], [2, 3])

    def test_counters_that_are_later_than_the_rows(self):
        early = self.select(2, 3, 5)
        first = self.load(early)
        late = self.select(1, 3, 6)
        second = self.load(late)
        self.answer(Changes(5, rows(1, 2)), Changes(5, rows()), Changes(6, rows(), UIDSet.of([1])))
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual((late.exists, late.uid_at(1)), (1, 2))
        self.assertEqual((early.exists, list(early.news(True).expunged)), (2, [1]))

    def test_it_cannot_be_known(self):
        for vanished in (None, UIDSet(((1, 3), (5, 7)))):
            self.setUp()
            selected = self.select(4, 9, 5)
            loading = self.load(selected)
            self.mailbox.rows = rows(4, 8)
            self.answer(Changes(9, rows(4, 8)), Changes(9, rows(), vanished))
            self.failureResultOf(loading, GiveUp)
            # Nor later, and not by other ways.
            again = self.load(selected)
            self.answer()
            self.failureResultOf(again, GiveUp)
            self.assertIsNotNone(selected.counted)
            # Others are not concerned.
            self.assertEqual(Selected(self.view, True, lambda: None).exists, 2)

    def test_a_store_that_cannot_tell_and_need_not(self):
        selected = self.select(3, 10, 5)
        loading = self.load(selected)
        self.mailbox.rows = rows(2, 9, 11)
        self.answer(Changes(6, rows(2, 4, 9)), Changes(7, rows(11), None))
        self.successResultOf(loading)
        news = selected.news(True)
        self.assertEqual((list(news.expunged), news.exists), ([2], 3))

    def test_a_failure_passes(self):
        woken = []
        selected = self.select(1, 2, 5, wake=lambda: woken.append(1))
        loading = self.load(selected)
        self.mailbox.asked.pop()[1].errback(OSError("disk"))
        self.failureResultOf(loading, OSError)
        self.assertEqual(selected.exists, 1)
        self.mailbox.hints[0]()
        self.assertEqual(woken, [1])
        loading = self.load(selected)
        self.answer(Changes(5, rows(1)))
        self.successResultOf(loading)
        self.assertEqual(selected.uid_at(1), 1)

    def test_a_failure_half_way_passes(self):
        selected = self.select(2, 3, 5)
        loading = self.load(selected)
        self.mailbox.asked.pop()[1].callback(Changes(6, rows(2)))
        self.mailbox.asked.pop()[1].errback(OSError("disk"))
        self.failureResultOf(loading, OSError)
        loading = self.load(selected)
        self.answer(Changes(6, rows()), Changes(6, rows(), UIDSet.of([1])))
        self.successResultOf(loading)
        self.assertEqual(list(selected.news(True).expunged), [1])

    def test_rows_come_only_if_somebody_waits_for_them(self):
        selected = self.select(1, 2, 5)
        selected.close()
        self.view.load()
        self.assertEqual(self.mailbox.asked, [])
        self.assertFalse(self.view.watched)
        selected = self.select(1, 2, 5)
        self.view.load()
        self.view.load()
        selected.close()
        self.answer(Changes(5, rows(1)))
        self.assertEqual(len(self.view), 1)

    def test_rows_that_do_not_come_are_nobody_s_error(self):
        self.select(1, 2, 5)
        self.view.load()
        self.mailbox.asked[0][1].errback(OSError("disk"))


class ViewsTests(SynchronousTestCase):
    def test_one_view_for_a_mailbox(self):
        views, mailbox = Views(), make_mailbox(1)
        self.assertIs(views.of(mailbox), views.of(mailbox))

    def test_idle_views_are_bounded_by_their_octets(self):
        views = Views(most_idle=3 * 17 * 1024)
        mailboxes = [make_mailbox(20) for _ in range(5)]
        for mailbox in mailboxes:
            view = views.of(mailbox)
            now(view.refresh())
            views.release(view)
        self.assertEqual(len(views), 3)
        self.assertEqual(len(views.of(mailboxes[-1])), 20)
        self.assertEqual(len(views.of(mailboxes[0])), 0)

    def test_views_in_use_stay(self):
        views, mailbox = Views(most_idle=0), make_mailbox(1)
        view = views.of(mailbox)
        selected = select(view)
        views.release(view)
        self.assertIs(views.of(mailbox), view)
        selected.close()
        views.release(view)
        self.assertEqual(len(views), 0)
        self.assertIsNot(views.of(mailbox), view)


class Client:
    """A naive client: it knows what it was told and nothing else."""

    def __init__(self, selected):
        self.selected = selected
        self.uids = list(selected.view.columns.uids)
        self.flags = dict(zip(self.uids, selected.view.columns.flags, strict=True))

    def hear(self, expunges):
        now(self.selected.catch_up())
        news = self.selected.news(expunges)
        for number in news.expunged:
            del self.uids[number - 1]
        if news.exists is not None:
            assert news.exists >= len(self.uids)
            self.uids += [None] * (news.exists - len(self.uids))
        for piece in self.selected.pieces(news.changed, 3):
            self.learn(piece)
        assert self.selected.exists == len(self.uids)

    def fetch(self):
        for piece in self.selected.pieces(EVERYTHING, 3):
            self.learn(piece)
            self.selected.told(piece.columns)

    def learn(self, piece):
        for number, (uid, word, *_) in zip(piece.numbers, piece.columns.rows(), strict=True):
            assert self.uids[number - 1] in (None, uid), (number, uid, self.uids)
            self.uids[number - 1] = uid
            self.flags[uid] = word


def expunge(mailbox, *uids):
    now(mailbox.expunge(UIDSet.of(*uids), deleted_only=False))


def flag(mailbox, uids, flag):
    now(mailbox.set_flags(UIDSet.of(uids), FlagChange(frozenset({flag}))))


#: Steps that are done to the mailbox.
MAILBOX = {"append": add, "expunge": expunge, "flags": flag}

STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 3)),
    st.tuples(st.just("expunge"), st.sets(st.integers(1, 20), max_size=5)),
    st.tuples(st.just("flags"), st.sets(st.integers(1, 20), max_size=5), st.sampled_from(["\\Seen", "new"])),
    st.tuples(st.just("hear"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("fetch"), st.integers(0, 1)),
    st.tuples(st.just("glance"), st.integers(0, 1)),
)


class BeliefTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 6), st.lists(STEPS, max_size=25))
    def test_two_clients_believe_what_is_so(self, count, steps):
        mailbox = make_mailbox(count)
        view = MailboxView(mailbox)
        clients = [Client(select(view)), Client(select(view))]
        for step, *arguments in steps:
            if step in MAILBOX:
                MAILBOX[step](mailbox, *arguments)
            elif step == "hear":
                which, expunges = arguments
                clients[which].hear(expunges)
            elif step == "fetch":
                clients[arguments[0]].fetch()
            else:
                # The view moves on and the client hears nothing.
                now(clients[arguments[0]].selected.catch_up())
            for client in clients:
                believed = client.uids
                found = [client.selected.uid_at(n) for n in range(1, len(believed) + 1)]
                self.assertEqual(
                    [b for b in believed if b is not None],
                    [f for b, f in zip(believed, found, strict=True) if b is not None],
                )
                present = client.selected.to_numbers(EVERYTHING)
                self.assertEqual(
                    [found[n - 1] for n in present],
                    [u for u in view.columns.uids if u <= client.selected.last],
                )
        for client in clients:
            client.hear(True)
            client.fetch()
            truth = now(mailbox.columns(EVERYTHING))
            self.assertEqual(client.uids, list(truth.uids))
            self.assertEqual([client.flags[uid] for uid in client.uids], list(truth.flags))
            self.assertFalse(client.selected.has_news)
            self.assertEqual(view.columns.modseqs, truth.modseqs)


class HeldMailbox:
    """
    A mailbox whose answers to `changes` are of the moment of the question, and come when the test says so.

    Args:
        memory: "exact"; "short", which knows only what is not there; "none", which cannot tell what vanished.
    """

    def __init__(self, mailbox, memory):
        self.mailbox = mailbox
        self.memory = memory
        self.held = []

    def __getattr__(self, name):
        return getattr(self.mailbox, name)

    def changes(self, since):
        changes = now(self.mailbox.changes(since))
        if self.memory == "none" and since:
            changes = replace(changes, vanished=None)
        elif self.memory == "short" and since and changes.upto != since:
            status = now(self.mailbox.status())
            there = now(self.mailbox.columns(EVERYTHING))
            vanished = UIDSet(((1, status.uid_next - 1),)) - UIDSet.of(there.uids)
            changes = replace(changes, vanished=vanished)
        waiting = Deferred()
        self.held.append((waiting, changes))
        return waiting

    def answer(self):
        if self.held:
            waiting, changes = self.held.pop(0)
            waiting.callback(changes)


class Early:
    """A client that was told counters; it knows of other times which messages they count."""

    def __init__(self, view, mailbox):
        self.there = now(mailbox.columns(EVERYTHING))
        self.selected = Selected(view, False, lambda: None, now(mailbox.status()))
        self.given_up = False
        self.loading = Deferred.fromCoroutine(self.selected.catch_up(hinted=True)).addErrback(self.give_up)

    def give_up(self, failure):
        failure.trap(GiveUp)
        self.given_up = True
        self.selected.close()


MEANWHILE = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 3)),
    st.tuples(st.just("expunge"), st.sets(st.integers(1, 12), max_size=3)),
    st.tuples(st.just("flags"), st.sets(st.integers(1, 12), max_size=3), st.sampled_from(["\\Seen", "new"])),
    st.tuples(st.just("select")),
    st.tuples(st.just("answer")),
    st.tuples(st.just("answer")),
)


class EarlyBeliefTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(
        st.sampled_from(["exact", "exact", "short", "none"]),
        st.integers(1, 6),
        st.lists(MEANWHILE, max_size=25),
    )
    def test_what_happens_while_rows_are_on_their_way(self, memory, count, steps):
        mailbox = HeldMailbox(make_mailbox(count), memory)
        view = MailboxView(mailbox)
        clients = [Early(view, mailbox)]
        for step, *arguments in steps:
            if step in MAILBOX:
                MAILBOX[step](mailbox, *arguments)
            elif step == "select" and not view.loaded:
                clients.append(Early(view, mailbox))
            elif step == "answer":
                mailbox.answer()
        while mailbox.held:
            mailbox.answer()
        mailbox.changes = mailbox.mailbox.changes
        truth = now(mailbox.columns(EVERYTHING))
        for client in clients:
            selected = client.selected
            self.successResultOf(client.loading)
            if client.given_up:
                self.assertNotEqual(memory, "exact")
                continue
            numbers = range(1, selected.exists + 1)
            known = [selected.uid_at(number) for number in numbers]
            self.assertEqual(known, list(client.there.uids))
            # From here on it is a client like any other, with what it knew of flags.
            naive = Client(selected)
            naive.uids, naive.flags = known, dict(zip(known, client.there.flags, strict=True))
            naive.hear(True)
            naive.hear(True)
            self.assertEqual(len(naive.uids), len(truth))
            for uid, so, word in zip(naive.uids, truth.uids, truth.flags, strict=True):
                self.assertIn(uid, (None, so))
                if uid is not None:
                    self.assertEqual(naive.flags[uid], word)
            naive.fetch()
            self.assertEqual(naive.uids, list(truth.uids))
            self.assertFalse(selected.has_news)
