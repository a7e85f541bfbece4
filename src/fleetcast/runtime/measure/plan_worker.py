"""One rank of processes that run plans over shared memory: ``RANK RANKS STORE SIZES``, STORE a file that all map.

Each rank has a row of the file and adds what others have straight from theirs, every source of a piece in one pass over
tiles that stay in cache, so a fan-in of f reads f pieces and writes one. Rank 0 prints one JSON object a line:
``{"algorithm": "ring", "operation": "reduce_scatter", "size": ..., "seconds": ...}``, CPU time of the slowest rank in
each round, added up: what ranks with a core each would take. The sum is checked after every run.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.collectives import genmodel, merging
from fleetcast.cost.collectives.steps import Step

TURNS = 5
TILE = 16384
"""Elements: 64 KB, which caches keep while every source is added."""
TIMEOUT = 60.0
_FLAGS = 4096  # bytes at the file's start: how far each rank is, then the seconds of each round
_ROUNDS = 16
_SPINS = 50


class Ranks:
    """The file that ranks share: how far each is, what it took, and a row of data each."""

    def __init__(self, store: str, rank: int, ranks: int, elements: int) -> None:
        self.rank, self.ranks = rank, ranks
        file = os.open(store, os.O_RDWR | os.O_CREAT)
        os.ftruncate(file, _FLAGS + 4 * ranks * elements)
        memory = mmap.mmap(file, 0)
        os.close(file)
        self.at = np.frombuffer(memory, dtype=np.int64, count=ranks)
        self.seconds = np.frombuffer(memory, dtype=np.float64, count=_ROUNDS * ranks, offset=_FLAGS // 2)
        self.seconds = self.seconds.reshape(ranks, _ROUNDS)
        self.data = np.frombuffer(memory, dtype=np.float32, offset=_FLAGS).reshape(ranks, elements)
        self.epoch = 0

    def meet(self) -> None:
        """Waits until every rank is here.

        Raises:
            TimeoutError: another does not come.
        """
        self.epoch += 1
        self.at[self.rank] = self.epoch
        late = time.monotonic() + TIMEOUT
        tries = 0
        while self.at.min() < self.epoch:
            tries += 1
            os.sched_yield() if tries < _SPINS else time.sleep(1e-4)
            if time.monotonic() > late:
                raise TimeoutError(f"another rank did not come within {TIMEOUT:g} s")


def algorithms(ranks: int) -> list[str]:
    """Returns what so many ranks run: ring, all at once, halving where it fits, two stages of any fan-in."""
    found = ["ring", "cps"]
    for fan_ins in genmodel.factorisations(ranks):
        if len(fan_ins) > 1 and (len(fan_ins) == 2 or set(fan_ins) == {2}):
            found.append("x".join(map(str, fan_ins)))
    return found if ranks > 2 else ["ring"]


def steps_of(algorithm: str, ranks: int, elements: int) -> list[Step]:
    """Returns the turns of a reduce-scatter, cells being elements."""
    members = merging.meet([merging.alone(rank, elements) for rank in range(ranks)])
    if algorithm == "ring":
        steps, _ = merging.by_ring(members)
    else:
        steps, _ = merging.by_stages(members, genmodel.fan_ins(algorithm, ranks))
    return [turn for step in steps for turn in step.each()]


def jobs(steps: Sequence[Step], rank: int) -> list[list[tuple[int, int, list[int]]]]:
    """Returns for each step (start, stop, sources) of what a rank takes in."""
    found = []
    for step in steps:
        mine: dict[tuple[int, int], list[int]] = {}
        for i in np.nonzero(step.target == rank)[0].tolist():
            mine.setdefault((int(step.start[i]), int(step.stop[i])), []).append(int(step.source[i]))
        found.append([(start, stop, sources) for (start, stop), sources in mine.items()])
    return found


def add(data: NDArray[np.float32], rank: int, start: int, stop: int, sources: Sequence[int]) -> None:
    """Adds a piece of each source to a rank's own, tile by tile."""
    for low in range(start, stop, TILE):
        high = min(low + TILE, stop)
        own = data[rank, low:high]
        for source in sources:
            np.add(own, data[source, low:high], out=own)


def main(rank: int, ranks: int, store: str, sizes: Sequence[int]) -> int:
    """Runs every algorithm at every size."""
    shared = Ranks(store, rank, ranks, max(sizes) // 4)
    for size in sizes:
        elements = size // 4 // ranks * ranks
        for algorithm in algorithms(ranks):
            there = steps_of(algorithm, ranks, elements)
            back = [step.backwards() for step in reversed(there)]
            plan = jobs(there, rank), jobs(back, rank)
            took = [np.full((TURNS, len(rounds)), np.inf) for rounds in plan]
            for turn in range(TURNS):
                shared.data[rank, :elements] = rank + 1
                shared.meet()
                for phase in (0, 1):
                    for i, pieces in enumerate(plan[phase]):
                        begin = time.thread_time()
                        for start, stop, sources in pieces:
                            if phase == 0:
                                add(shared.data, rank, start, stop, sources)
                            else:
                                shared.data[rank, start:stop] = shared.data[sources[0], start:stop]
                        took[phase][turn, i] = time.thread_time() - begin
                        shared.meet()
                if not np.all(shared.data[rank, :elements] == ranks * (ranks + 1) / 2):
                    raise ArithmeticError(f"{algorithm} of {ranks} ranks left a wrong sum")
            for operation, seconds in zip(("reduce_scatter", "all_gather"), took, strict=True):
                shared.seconds[rank, : seconds.shape[1]] = seconds.min(axis=0)
                shared.meet()
                if rank == 0:
                    total = float(shared.seconds[:, : seconds.shape[1]].max(axis=0).sum())
                    row = {"algorithm": algorithm, "operation": operation, "size": 4 * elements, "seconds": total}
                    print(json.dumps(row), flush=True)
                shared.meet()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], [int(size) for size in sys.argv[4].split(",")]))
