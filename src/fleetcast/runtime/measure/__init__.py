"""Measuring the machine at hand: a device profile that scenarios can name.

Where torch is installed, the engine's own products and iterations are timed: `roofs` and `passes` time them in the
process of `engine_worker`, `fitting` tells apart what they consist of, `engine_profile` writes it down. Without torch,
or in a hurry, ten probes in numpy give a profile: `operators` says what an operator consists of, `timing` times it,
`probes` turns ten times into the seconds of each unit, `profile` turns these into a device. `collectives` times
processes that talk to each other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.base.host import waiting
from fleetcast.runtime.measure.engine_profile import EngineProfile, engine_profile
from fleetcast.runtime.measure.machine import this_machine
from fleetcast.runtime.measure.profile import Profile, Readings, profile

__all__ = ["EngineProfile", "Profile", "measure"]

WORKER = ("-m", "fleetcast.runtime.measure.worker")
"""What the interpreter runs in the process that times the probes."""
ENGINE_WORKER = ("-m", "fleetcast.runtime.measure.engine_worker")
"""What it runs in the process that times the engine; the number of threads follows."""
_LIBRARIES = ("OPENBLAS_NUM", "OMP_NUM", "MKL_NUM", "BLIS_NUM", "VECLIB_MAXIMUM")

Progress = Callable[[int, int], None]


def measure(
    device: str = "cpu", *, quick: bool | None = None, threads: int | None = None, progress: Progress | None = None
) -> Profile | EngineProfile:  # fmt: skip
    """Returns the profile of a device of this machine.

    It is measured in a process of its own, since libraries read how many threads they may use when they are loaded.

    Args:
        device: "cpu"; nothing else can be measured yet.
        quick: ten probes in numpy, some seconds; otherwise the engine on torch, a minute or two. None = the engine
            where torch is installed.
        threads: that the engine's products use; None = all cores.
        progress: called with (rounds done, rounds).

    Raises:
        SpecError: fewer threads than one or more than cores.
        Unsupported: another device, torch is not installed, or what was to be timed did not run.
    """
    if device != "cpu":
        raise Unsupported(
            f"there are no probes for '{device}' yet", "Measure 'cpu', or name a device of the catalogue in a scenario"
        )
    machine = this_machine()
    torch = find_spec("torch") is not None
    if quick is False and not torch:
        raise Unsupported(
            "the engine cannot be timed: torch is not installed", "Install fleetcast[torch], or use --quick"
        )
    if threads is not None and not 1 <= threads <= machine.cores:
        raise SpecError("threads", "cannot be", value=threads, limit=f"from 1 to {machine.cores}, this machine's cores")
    before = waiting()
    if quick or not torch:
        said = _run(WORKER, 1, progress)
        return profile(machine, Readings(tuple(said["seconds"]), said["scaling"], said["half"], before))
    used = threads or machine.cores
    said = _run((*ENGINE_WORKER, str(used)), used, progress)
    return engine_profile(machine, said, before)


def _run(command: tuple[str, ...], threads: int, progress: Progress | None) -> dict[str, Any]:
    """Returns the last line that a worker says, and passes on how far it is."""
    found: dict[str, Any] | None = None
    limits = {f"{name}_THREADS": str(threads) for name in _LIBRARIES}
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=os.environ | limits
    ) as worker:
        try:
            for line in worker.stdout or ():
                said = json.loads(line)
                if "done" not in said:
                    found = said
                elif progress is not None:
                    progress(said["done"], said["total"])
        except BaseException:
            worker.kill()
            raise
    if worker.returncode or found is None:
        raise Unsupported(f"the probes ended with status {worker.returncode}", "What they said stands above")
    return found
