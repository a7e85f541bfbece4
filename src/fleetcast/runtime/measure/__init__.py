"""Measuring the machine at hand: ten probes give a device profile that scenarios can name.

`operators` says what an operator consists of, `timing` times it, `probes` turns ten times into the seconds of each
unit, `profile` turns these into the figures of a catalogue device and its kernels' coefficients.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from fleetcast.base.errors import Unsupported
from fleetcast.runtime.measure.machine import this_machine
from fleetcast.runtime.measure.profile import Profile, Readings, profile

__all__ = ["Profile", "measure"]

WORKER = ("-m", "fleetcast.runtime.measure.worker")
"""What the interpreter runs in the process that times."""
_LIBRARIES = ("OPENBLAS_NUM", "OMP_NUM", "MKL_NUM", "BLIS_NUM", "VECLIB_MAXIMUM")
_ONE_THREAD = {f"{name}_THREADS": "1" for name in _LIBRARIES}


def measure(device: str = "cpu", *, progress: Callable[[int, int], None] | None = None) -> Profile:
    """Returns the profile of a device of this machine.

    The probes run in a process of their own, since BLAS reads how many threads it may use when it is loaded.

    Args:
        device: "cpu"; nothing else can be measured yet.
        progress: called with (rounds done, rounds).

    Raises:
        Unsupported: another device, or the probes could not run.
    """
    if device != "cpu":
        raise Unsupported(
            f"there are no probes for '{device}' yet", "Measure 'cpu', or name a device of the catalogue in a scenario"
        )
    machine = this_machine()
    load = os.getloadavg()[0] / machine.cores if hasattr(os, "getloadavg") else 0.0
    readings: Readings | None = None
    with subprocess.Popen(
        [sys.executable, *WORKER], stdout=subprocess.PIPE, text=True, env=os.environ | _ONE_THREAD
    ) as worker:
        try:
            for line in worker.stdout or ():
                said = json.loads(line)
                if "seconds" in said:
                    readings = Readings(tuple(said["seconds"]), said["scaling"], said["half"], load)
                elif progress is not None:
                    progress(said["done"], said["total"])
        except BaseException:
            worker.kill()
            raise
    if worker.returncode or readings is None:
        raise Unsupported(f"the probes ended with status {worker.returncode}", "What they said stands above")
    return profile(machine, readings)
