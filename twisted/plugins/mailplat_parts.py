"""mailplat's own stores and delivery agents, found as anybody's are."""

from mailplat.delivery.files import FileAgentFactory
from mailplat.delivery.pipe import PipeAgentFactory
from mailplat.plugins import MemoryStoreFactory, SQLiteStoreFactory

memory_store = MemoryStoreFactory()
sqlite_store = SQLiteStoreFactory()
pipe_agent = PipeAgentFactory()
file_agent = FileAgentFactory()
