"""One rank of the processes that time collectives: ``RANK RANKS STORE SIZES``, where STORE is a file they meet at.

Rank 0 prints one JSON object a line: ``{"operation": "all_reduce", "size": 1024, "best": ..., "median": ...}``, seconds
of the slowest rank. An operation that the backend does not have is named once: ``{"operation": ..., "missing": ...}``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from statistics import median
from typing import Any

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.measure.collectives import OPERATIONS, TIMEOUT, readings

try:
    import torch
    import torch.distributed as dist
except ImportError:
    raise MissingExtra("torch", "torch") from None

_UNTIMED = 2


def main(rank: int, ranks: int, store: str, sizes: Sequence[int]) -> int:
    """Takes part in every operation at every size."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=timedelta(seconds=TIMEOUT)
    )
    try:
        for operation in OPERATIONS:
            for size in sizes:
                try:
                    seconds = timed(call(operation, size, rank, ranks), readings(size))
                except (RuntimeError, NotImplementedError) as error:
                    if rank == 0:
                        said = str(error).splitlines()[0][:120]
                        print(json.dumps({"operation": operation, "missing": said}), flush=True)
                    break
                if rank == 0:
                    row = {
                        "operation": operation,
                        "size": size,
                        "best": min(seconds),
                        "median": median(seconds),
                    }
                    print(json.dumps(row), flush=True)
    finally:
        dist.destroy_process_group()
    return 0


def call(operation: str, size: int, rank: int, ranks: int) -> Callable[[], Any]:
    """Returns what a rank does in one operation whose full buffer has ``size`` bytes."""
    whole = torch.ones(size // 4)
    part = torch.ones(max(1, size // 4 // ranks))
    whole = whole[: len(part) * ranks]
    if operation == "all_reduce":
        return lambda: dist.all_reduce(whole)
    if operation == "all_gather":
        return lambda: dist.all_gather_into_tensor(whole, part)
    if operation == "reduce_scatter":
        return lambda: dist.reduce_scatter_tensor(part, whole)
    if operation == "broadcast":
        return lambda: dist.broadcast(whole, 0)
    if rank > 1:
        return lambda: None
    return (lambda: dist.send(whole, 1)) if rank == 0 else (lambda: dist.recv(whole, 0))


def timed(do: Callable[[], Any], count: int) -> list[float]:
    """Returns s of ``count`` turns, each that of the slowest rank; ranks start together."""
    found = torch.zeros(count, dtype=torch.float64)
    for turn in range(-_UNTIMED, count):
        dist.barrier()
        begin = time.perf_counter()
        do()
        found[max(turn, 0)] = time.perf_counter() - begin
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return [float(x) for x in found]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], [int(size) for size in sys.argv[4].split(",")]))
