"""What this process may use of the machine at hand, and how busy that is."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def waiting() -> float:
    """Returns how many processes per core wanted to run during the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] / cores() if hasattr(os, "getloadavg") else 0.0


def memory() -> float:
    """Returns the bytes of memory that the machine has."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float(8 << 30)


def free_memory() -> float:
    """Returns bytes that a new process can take without swapping; all of it where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return memory()
