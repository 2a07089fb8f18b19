"""
SMTP and LMTP on aiosmtpd, for its own virtual environment: aiosmtpd_server.py DIRECTORY SMTP LMTP

A message is written to a file, synced, renamed into the recipient's directory, and that is
synced, in a thread, before 250 is said.
"""

import asyncio
import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP


class Durable:
    def __init__(self, root):
        self.root = root
        self.count = itertools.count()
        self.threads = ThreadPoolExecutor(32)
        os.makedirs(os.path.join(root, "tmp"))

    async def handle_DATA(self, server, session, envelope):
        loop = asyncio.get_running_loop()
        for recipient in envelope.rcpt_tos:
            await loop.run_in_executor(self.threads, self.deliver, recipient, envelope.content)
        return "250 OK"

    def deliver(self, recipient, content):
        directory = os.path.join(self.root, "mail", os.path.basename(recipient.split("@")[0]))
        os.makedirs(directory, exist_ok=True)
        name = str(next(self.count))
        new = os.path.join(self.root, "tmp", name)
        with open(new, "wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        os.rename(new, os.path.join(directory, name))
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


async def main(root, smtp, lmtp):
    handler = Durable(root)
    options = {"hostname": "mx.bench.example", "data_size_limit": 30_000_000, "enable_SMTPUTF8": True}
    loop = asyncio.get_running_loop()
    for protocol, port in ((SMTP, smtp), (LMTP, lmtp)):
        await loop.create_server(
            lambda protocol=protocol: protocol(handler, **options), "127.0.0.1", int(port), backlog=1024
        )
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:4]))
