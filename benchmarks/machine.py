"""What it ran on, in words."""

from __future__ import annotations

import os
import platform
import subprocess


def words(folder: str) -> str:
    """Processor, cores, memory, disk of `folder`, system, Python."""
    with open("/proc/cpuinfo") as file:
        processor = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    find = ["findmnt", "-n", "-o", "FSTYPE", "-T", folder]
    disk = subprocess.run(find, capture_output=True, text=True).stdout.strip()
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return (
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {disk}, {system}, "
        f"kernel {platform.release()}, Python {platform.python_version()}"
    )
