"""Other hosts: Postfix's smtp-sink, one process for each, on loopback addresses of their own."""

from __future__ import annotations

import os
import shutil
import subprocess

from benchmarks.servers import Missing, Server, listens

#: How many of them a server knows a route to: sink0.test and so on.
MOST = 100


def sink_domain(number: int) -> str:
    return f"sink{number}.test"


def sink_address(number: int) -> str:
    """Loopback has room for all of them on one port."""
    return f"127.0.1.{number + 1}"


def start_sinks(server: Server, count: int) -> None:
    """
    Have this many of the server's other hosts run; they end with it.

    Raises:
        Missing: they can't be run here.
    """
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin")
    if program is None:
        raise Missing("its mail has nowhere to go: smtp-sink is not installed")
    user = () if os.geteuid() else ("-u", "nobody")
    for number in range(len(server.companions), count):
        place = f"{sink_address(number)}:{server.sinks}"
        sink = subprocess.Popen([program, *user, place, "100"], cwd="/", stderr=subprocess.DEVNULL)
        server.companions.append(sink)
    for number, sink in enumerate(server.companions):
        if not listens((sink_address(number), server.sinks), sink):
            raise Missing("smtp-sink does not start")
