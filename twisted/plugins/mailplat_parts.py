"""mailplat's own stores, found as anybody's are."""

from mailplat.plugins import MemoryStoreFactory, SQLiteStoreFactory

memory_store = MemoryStoreFactory()
sqlite_store = SQLiteStoreFactory()
