from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailplat.delivery.routing import Router, RoutingLimits
from mailplat.errors import ConfigurationError, NoSuchRecipient, TemporaryError
from mailplat.interfaces import IRouter
from mailplat.values import LOCAL, Address, Target
from tests.delivery.house import address, names, now, store_with


class RouterTests(SynchronousTestCase):
    def router(
        self, aliases=None, postmaster=None, accounts=("alice@example.test", "bob@example.test"), **limits
    ):
        self.store = now(store_with(*accounts))
        return Router(
            names("example.test", "other.test"), self.store, aliases, postmaster, RoutingLimits(**limits)
        )

    def route(self, router, text):
        """Accounts as text, and addresses elsewhere."""
        targets = now(router.route(address(text), None))
        return [target.place if target.agent == LOCAL else target.address for target in targets]

    def assertNobody(self, router, text):
        self.assertRaises(NoSuchRecipient, self.route, router, text)

    def test_it_is_a_router(self):
        self.assertTrue(IRouter.providedBy(self.router()))

    def test_an_account(self):
        self.assertEqual(self.route(self.router(), "alice@example.test"), ["alice@example.test"])

    def test_case_does_not_matter(self):
        self.assertEqual(self.route(self.router(), "ALICE@Example.TEST"), ["alice@example.test"])

    def test_nobody(self):
        router = self.router()
        for text in ("carol@example.test", "alice@other.test", "+alice@example.test", "alice"):
            self.assertNobody(router, text)

    def test_our_domains(self):
        router = self.router()
        self.assertTrue(router.is_local("example.test"))
        self.assertTrue(router.is_local("OTHER.test"))
        self.assertFalse(router.is_local("elsewhere.test"))
        self.assertFalse(router.is_local("sub.example.test"))

    def test_elsewhere(self):
        self.assertEqual(
            self.route(self.router(), "carol@elsewhere.test"), [Address("carol", "elsewhere.test")]
        )

    def test_address_literals_are_elsewhere(self):
        """Who may send there at all is the receiver's affair, and where that leads the relay's."""
        self.assertEqual(self.route(self.router(), "alice@[192.0.2.1]"), [Address("alice", "[192.0.2.1]")])

    def test_detail_leads_to_the_user(self):
        self.assertEqual(self.route(self.router(), "alice+lists+x@example.test"), ["alice@example.test"])

    def test_an_account_with_a_plus_in_its_name_comes_first(self):
        router = self.router(accounts=("alice@example.test", "alice+work@example.test"))
        self.assertEqual(self.route(router, "alice+work@example.test"), ["alice+work@example.test"])
        self.assertEqual(self.route(router, "alice+home@example.test"), ["alice@example.test"])

    def test_postmaster_is_the_first_account(self):
        router = self.router()
        for text in ("postmaster", "Postmaster", "postmaster@example.test", "POSTMASTER@other.test"):
            self.assertEqual(self.route(router, text), ["alice@example.test"], text)

    def test_postmaster_is_who_was_named(self):
        router = self.router(postmaster="bob@example.test")
        self.assertEqual(self.route(router, "postmaster"), ["bob@example.test"])
        self.assertEqual(self.route(router, "postmaster+x@other.test"), ["bob@example.test"])

    def test_postmaster_may_be_an_account_or_an_alias(self):
        router = self.router(accounts=("alice@example.test", "postmaster@example.test"))
        self.assertEqual(self.route(router, "postmaster"), ["postmaster@example.test"])
        router = self.router({"postmaster": ["bob"]})
        self.assertEqual(self.route(router, "postmaster"), ["bob@example.test"])

    def test_postmaster_outlives_his_account(self):
        router = self.router()
        self.assertEqual(self.route(router, "postmaster"), ["alice@example.test"])
        now(self.store.remove_account("alice@example.test"))
        self.assertEqual(self.route(router, "postmaster"), ["bob@example.test"])
        now(self.store.remove_account("bob@example.test"))
        self.assertNobody(router, "postmaster")

    def test_an_alias_of_an_address(self):
        router = self.router({"sales@example.test": ["bob@example.test", "alice@example.test"]})
        self.assertEqual(
            self.route(router, "Sales+x@example.test"), ["bob@example.test", "alice@example.test"]
        )
        self.assertNobody(router, "sales@other.test")

    def test_an_alias_of_a_local_part_holds_in_all_domains(self):
        router = self.router({"sales": ["alice@example.test"]})
        self.assertEqual(self.route(router, "sales@example.test"), ["alice@example.test"])
        self.assertEqual(self.route(router, "sales@other.test"), ["alice@example.test"])

    def test_a_target_without_domain_is_in_the_recipients(self):
        router = self.router({"sales": ["alice"]}, accounts=("alice@example.test", "alice@other.test"))
        self.assertEqual(self.route(router, "sales@other.test"), ["alice@other.test"])

    def test_aliases_lead_on(self):
        router = self.router({"a": ["b"], "b": ["c", "bob"], "c": ["alice", "d@elsewhere.test"]})
        self.assertEqual(
            self.route(router, "a@example.test"),
            ["alice@example.test", Address("d", "elsewhere.test"), "bob@example.test"],
        )

    def test_who_is_named_twice_gets_it_once(self):
        router = self.router({"all": ["alice", "team", "alice+x"], "team": ["bob", "alice"]})
        self.assertEqual(self.route(router, "all@example.test"), ["alice@example.test", "bob@example.test"])

    def test_an_alias_that_names_itself_keeps_a_copy(self):
        router = self.router({"alice": ["alice", "bob"]})
        self.assertEqual(self.route(router, "alice@example.test"), ["alice@example.test", "bob@example.test"])

    def test_an_alias_takes_the_mail_of_an_account(self):
        router = self.router({"alice": ["bob"]})
        self.assertEqual(self.route(router, "alice@example.test"), ["bob@example.test"])

    def test_circles_end(self):
        router = self.router({"a": ["b"], "b": ["a"], "c": ["a", "alice"]})
        self.assertNobody(router, "a@example.test")
        self.assertEqual(self.route(router, "c@example.test"), ["alice@example.test"])

    def test_a_target_that_is_nobody_does_not_spoil_the_others(self):
        router = self.router({"all": ["gone", "alice"], "none": ["gone"]})
        self.assertEqual(self.route(router, "all@example.test"), ["alice@example.test"])
        self.assertNobody(router, "none@example.test")

    def test_limit_targets(self):
        aliases = {f"a{n}": [f"a{n + 1}", f"b{n}"] for n in range(20)}
        router = self.router({**aliases, "a20": ["alice"]}, targets=10)
        self.assertRaises(TemporaryError, self.route, router, "a0@example.test")
        self.assertEqual(self.route(router, "a19@example.test"), ["alice@example.test"])

    def test_mistakes_in_aliases_are_told_together(self):
        error = self.assertRaises(
            ConfigurationError,
            self.router,
            {"a@elsewhere.test": ["alice"], "b": [], "c": ["x y"], "@d": ["alice"]},
        )
        self.assertEqual(
            error.text.splitlines(),
            [
                "alias a@elsewhere.test: elsewhere.test is not a domain of this server",
                "alias b: 'b' has no targets",
                "alias c: 'x y' is not an address",
                "alias @d: d is not a domain of this server",
            ],
        )

    def test_who_owns_an_address(self):
        router = self.router({"sales": ["bob", "team"], "team": ["alice"], "bob": ["alice"]})
        for account, text, owns in [
            ("alice@example.test", "alice@example.test", True),
            ("alice@example.test", "Alice+x@Example.test", True),
            ("alice@example.test", "sales@other.test", False),
            ("alice@example.test", "sales@example.test", True),
            ("alice@example.test", "bob@example.test", True),
            ("bob@example.test", "bob@example.test", True),  # though an alias takes his mail
            ("bob@example.test", "alice@example.test", False),
            ("bob@example.test", "postmaster@example.test", False),
            ("alice@example.test", "postmaster@example.test", True),
            ("alice@example.test", "alice@elsewhere.test", False),
            ("alice@example.test", "nobody@example.test", False),
            ("alice@example.test", "postmaster", False),
        ]:
            self.assertEqual(now(router.owns(account, address(text))), owns, (account, text))

    def test_catch_all(self):
        router = self.router({"@example.test": ["bob"], "sales": ["alice"]})
        for text, account in [
            ("nobody@example.test", "bob"),
            ("nobody+x@example.test", "bob"),
            ("alice@example.test", "alice"),
            ("sales@example.test", "alice"),
            ("postmaster@example.test", "alice"),
        ]:
            self.assertEqual(self.route(router, text), [f"{account}@example.test"], text)
        self.assertNobody(router, "nobody@other.test")

    def test_catch_all_to_another_domain(self):
        router = self.router({"@other.test": ["x@elsewhere.test"]})
        self.assertEqual(self.route(router, "anybody@other.test"), [Address("x", "elsewhere.test")])

    def test_agents(self):
        router = self.router({"lists": ["agent:mailman", "alice"], "@other.test": ["agent:mailman"]})
        for text, addresses in [("lists@example.test", 2), ("any@other.test", 1)]:
            targets = now(router.route(address(text), None))
            self.assertEqual(len(targets), addresses)
            self.assertEqual(
                [t for t in targets if t.agent == "mailman"], [Target("mailman", "mailman", address(text))]
            )

    def test_the_next_hop_is_chosen_by_sender_and_address(self):
        asked = []

        def hop(sender, to):
            asked.append((sender, to))
            return "smtp:relay.test:25"

        router = Router(names("example.test"), now(store_with()), hops=hop)
        sender, to = address("a@example.test"), address("b@far.test")
        self.assertEqual(now(router.route(to, sender)), [Target("relay", "smtp:relay.test:25", to)])
        self.assertEqual(asked, [(sender, to)])
