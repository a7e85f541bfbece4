"""Times the probes in a process of its own, whose BLAS keeps to one thread.

Prints one JSON object a line: ``{"done": 3, "total": 44}`` while it works, then the readings.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from fleetcast.runtime.measure.machine import this_machine
from fleetcast.runtime.measure.operators import elementwise, product, ready
from fleetcast.runtime.measure.probes import PROBES
from fleetcast.runtime.measure.timing import fastest

REPEATS = 40
TOGETHER = {"product": product(384, 384, 384), "copy": elementwise("copy", 4_000_000)}
"""What all cores run at once, to see how work scales from one core to all."""


def main() -> int:
    """Measures and prints."""
    total = REPEATS + len(TOGETHER) + 1

    def say(done: int, _: int = 0) -> None:
        print(json.dumps({"done": done, "total": total}), flush=True)

    seconds = fastest([ready(probe) for probe in PROBES], REPEATS, progress=say)
    cores = this_machine().cores
    scaling = {}
    for i, (name, operator) in enumerate(TOGETHER.items()):
        scaling[name] = speed_up([ready(operator, seed) for seed in range(cores)])
        say(REPEATS + i + 1)
    half = half_rate()
    say(total)
    print(json.dumps({"seconds": seconds.tolist(), "scaling": scaling, "half": half}), flush=True)
    return 0


def speed_up(
    calls: list[Callable[[], None]], rounds: int = 40, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Returns how many times as much all threads do together as one alone: from 1 to their number.

    Args:
        calls: one per thread, each on buffers of its own.
        rounds: of which the fastest counts, alone and together.
        clock: s.
    """
    alone = float(fastest(calls[:1], rounds, clock=clock)[0])
    loops = max(1, int(0.01 / max(alone, 1e-9)))
    together = np.inf
    for _ in range(rounds if len(calls) > 1 else 0):
        gate = threading.Barrier(len(calls) + 1)

        def work(call: Callable[[], None], gate: threading.Barrier = gate) -> None:
            gate.wait()
            for _ in range(loops):
                call()

        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        gate.wait()
        begin = clock()
        for thread in threads:
            thread.join()
        together = min(together, (clock() - begin) / loops)
    return float(np.clip(len(calls) * alone / together, 1.0, len(calls))) if len(calls) > 1 else 1.0


def half_rate() -> float:
    """Returns the FLOP/s of one core's bf16 products in torch, or 0 where torch is absent."""
    try:
        import torch
    except ImportError:
        return 0.0
    torch.set_num_threads(1)
    a, b = (torch.rand(384, 384).to(torch.bfloat16) for _ in range(2))
    out = torch.empty(384, 384, dtype=torch.bfloat16)
    return 2.0 * 384**3 / float(fastest([lambda: torch.matmul(a, b, out=out)], REPEATS)[0])


if __name__ == "__main__":
    sys.exit(main())
