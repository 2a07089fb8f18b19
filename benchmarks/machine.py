"""What it ran on, in words."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path


def words(folder: str) -> str:
    """Processor, cores, memory, disk of `folder`, system, Python and how it was built."""
    with open("/proc/cpuinfo") as file:
        processor = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    find = ["findmnt", "-n", "-o", "FSTYPE", "-T", folder]
    disk = subprocess.run(find, capture_output=True, text=True).stdout.strip()
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return (
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {disk}, {system}, "
        f"kernel {platform.release()}, Python {platform.python_version()} ({_build()})"
    )


def _build() -> str:
    """What an optimised build has over another is a tenth."""
    if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        return "an optimised build"
    # Distributions optimise with a command of their own, and don't tell.
    if Path(sys.base_prefix) == Path("/usr"):
        return "the system's"
    return "not an optimised build"
