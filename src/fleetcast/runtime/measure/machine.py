"""What the operating system says about the machine at hand."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from fleetcast.base.host import cores, memory
from fleetcast.base.spec import Spec

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_INFO = Path("/proc/cpuinfo")
_VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel", "ARM": "arm", "Apple": "apple"}
_OWN, _LAST = 1 << 20, 16 << 20
"""B: cache sizes where the system says nothing."""


class Machine(Spec):
    """A machine's processor and memory.

    Attributes:
        name: the processor, as its maker writes it.
        vendor: e.g. "amd".
        cores: that this process may use.
        memory: B.
        own: a core's own cache (level 2), B.
        last: the cache that cores share, B.
        clock: Hz, 0 where the system does not say.
    """

    name: str
    vendor: str
    cores: int
    memory: float
    own: float
    last: float
    clock: float

    @property
    def id(self) -> str:
        """A catalogue-like id, e.g. "amd-epyc-2-cores"."""
        words = re.sub(r"\((r|tm)\)|\bcpu\b|@.*|\bprocessor\b", " ", self.name.lower())
        slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-") or "cpu"
        return f"{slug}-{self.cores}-core{'s' * (self.cores > 1)}"


def this_machine() -> Machine:
    """Returns what is known about the machine that this process runs on."""
    info = _INFO.read_text(encoding="utf-8", errors="replace") if _INFO.is_file() else ""
    name = _field(info, "model name") or platform.processor() or platform.machine() or "CPU"
    maker = _field(info, "vendor_id") or name
    vendor = next((short for long, short in _VENDORS.items() if long.lower() in maker.lower()), "unknown")
    levels = cache_sizes(_CACHES)
    own = levels.get(2, _OWN)
    last = max([size for level, size in levels.items() if level > 2], default=max(own, _LAST))
    clock = float(_field(info, "cpu MHz") or 0.0) * 1e6
    return Machine(name=name, vendor=vendor, cores=cores(), memory=memory(), own=own, last=last, clock=clock)


def cache_sizes(folder: Path) -> dict[int, float]:
    """Returns the data caches that Linux describes in ``folder``: level -> B."""
    found: dict[int, float] = {}
    for entry in sorted(folder.glob("index*")):
        try:
            kind, level, size = ((entry / part).read_text().strip() for part in ("type", "level", "size"))
        except OSError:
            continue
        match = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind != "Instruction" and level.isdigit() and match:
            found[int(level)] = float(match[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[match[2]]
    return found


def _field(info: str, name: str) -> str:
    match = re.search(rf"^{re.escape(name)}\s*:\s*(.+)$", info, re.MULTILINE)
    return match[1].strip() if match else ""
