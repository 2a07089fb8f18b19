from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailplat import plugins
from mailplat.errors import ConfigurationError, PluginError
from mailplat.interfaces import IMailStore, IStoreFactory, StoreContext
from mailplat.plugins import Part, about, make_store
from mailplat.storage.memory import MemoryStore

CONTEXT = StoreContext(None, "/data")


@implementer(IStoreFactory)
class Factory:
    name = "eml"
    help = "A directory of messages."

    def __init__(self, made=None):
        self.made = made or MemoryStore()

    def generate(self, argument, context):
        self.asked = argument, context
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


def part(factory, name="eml", source="eml-store 1.2"):
    return Part("store", name, source, lambda: factory)


class MakeStoreTests(SynchronousTestCase):
    def mistake(self, error, spec, *parts):
        return self.assertRaises(error, make_store, spec, CONTEXT, parts).text

    def test_the_argument_is_what_follows_the_colon(self):
        for spec, argument in [("eml", ""), ("eml:", ""), ("eml:/var/mail:x", "/var/mail:x")]:
            factory = Factory()
            self.assertIs(make_store(spec, CONTEXT, [part(factory)]), factory.made)
            self.assertEqual(factory.asked, (argument, CONTEXT))

    def test_a_class_stands_for_its_instance(self):
        self.assertIsInstance(make_store("eml", CONTEXT, [part(Factory)]), MemoryStore)

    def test_only_what_is_named_is_loaded(self):
        def load():
            raise AssertionError("loaded")

        make_store("eml", CONTEXT, [Part("store", "other", "other 1", load), part(Factory())])

    def test_an_unknown_name(self):
        self.assertEqual(
            self.mistake(ConfigurationError, "emil:x", part(Factory())),
            "there is no store called emil; known are eml",
        )
        self.assertEqual(
            self.mistake(ConfigurationError, "eml"), "there is no store called eml; known are none at all"
        )

    def test_two_of_one_name(self):
        self.assertEqual(
            self.mistake(PluginError, "eml", part(Factory()), part(Factory(), source="other 2")),
            "the store eml comes from eml-store 1.2 and other 2: uninstall all but one",
        )

    def test_one_that_cannot_be_loaded(self):
        def load():
            raise ImportError("no module named nothing")

        self.assertEqual(
            self.mistake(PluginError, "eml", Part("store", "eml", "eml-store 1.2", load)),
            "the store eml of eml-store 1.2 cannot be loaded: ImportError: no module named nothing",
        )

    def test_one_that_is_no_factory(self):
        text = self.mistake(PluginError, "eml", part(object()))
        self.assertIn("the store eml of eml-store 1.2 is not an IStoreFactory", text)
        self.assertEqual(len(text.splitlines()), 1)

    def test_one_that_makes_no_store(self):
        text = self.mistake(PluginError, "eml", part(Factory(made=object())))
        self.assertIn("what the store eml of eml-store 1.2 makes is not an IMailStore", text)

    def test_one_that_fails(self):
        self.assertEqual(
            self.mistake(PluginError, "eml", part(Factory(made=ZeroDivisionError("by zero")))),
            "the store eml of eml-store 1.2 failed: ZeroDivisionError: by zero",
        )

    def test_an_argument_that_makes_no_sense(self):
        self.assertEqual(
            self.mistake(ConfigurationError, "eml", part(Factory(made=ConfigurationError("no such")))),
            "no such",
        )

    def test_about(self):
        self.assertEqual(about(part(Factory())), "A directory of messages.")
        self.assertRaises(PluginError, about, part(object()))


class OwnPartsTests(SynchronousTestCase):
    """Ours are found as a stranger's are."""

    def test_they_are_listed_with_their_source(self):
        found = {part.name: part for part in plugins.stores()}
        for name in ("memory", "sqlite"):
            self.assertIn("mailplat", found[name].source)
            verifyObject(IStoreFactory, found[name].load())
            self.assertTrue(about(found[name]))

    def test_checkers_are_listed_with_their_source(self):
        (memory,) = [part for part in plugins.checkers() if part.name == "memory"]
        self.assertTrue(memory.source.lower().startswith("twisted "), memory.source)
        self.assertTrue(about(memory))

    def test_memory(self):
        verifyObject(IMailStore, make_store("memory", CONTEXT))
        self.assertRaises(ConfigurationError, make_store, "memory:x", CONTEXT)

    def test_sqlite_is_in_the_data_directory(self):
        for spec, directory in [
            ("sqlite", "/data/mail"),
            ("sqlite:other", "/data/other"),
            ("sqlite:/other", "/other"),
        ]:
            self.assertEqual(make_store(spec, CONTEXT).directory, directory)
