"""What the ranks' messages take between the products of a decode step, in the loop that the engine runs.

A collective that is timed by itself finds both ranks waiting for it. Between products it does not: ranks arrive apart,
the thread that sends has to be woken, and caches are full of weights. So messages go over the engine's own wire, each
after a product that streams fresh weights, and what the same products take without messages, on both ranks at the same
time, is taken off. The sizes, and the size of the products, are no model's.

Run as a module this is one rank: ``RANK RANKS STORE SIZES``, as `collective_worker`; rank 0 prints a JSON row a line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.measure.collectives import TIMEOUT, run

MESSAGES: Final = ("sum", "ids", "numbers")
"""What is sent, as `Wire` counts it: a sum over ranks, token ids to all, and what is gathered of each rank's logits."""
SIZES: Final = (1536, 6144, 24_576, 98_304)
"""B of a message."""
WORKER: Final = ("-m", "fleetcast.runtime.measure.between")
_OUTPUTS, _INPUTS, _MATRICES = 1800, 1200, 12
"""Of the products: 8.6 MB each, and together more than caches hold."""
_CALLS, _ROUNDS = 5, 40
QUIET: Final = 0.25
"""Quantile of rounds that counts: other work only ever adds to them."""


def measure_between(ranks: int = 2, deadline: float = 120.0) -> dict[str, dict[int, float]]:
    """Returns seconds that a message adds to the loop: by what it is, by B.

    Args:
        ranks: processes.
        deadline: s after which it is given up.

    Raises:
        Unsupported: a process failed, or they took longer than the deadline.
    """
    found: dict[str, dict[int, float]] = {}
    for row in run(ranks, deadline, lambda row: None, SIZES, worker=WORKER):
        found.setdefault(row["message"], {})[int(row["size"])] = float(row["seconds"])
    return found


def added(between: Mapping[str, Mapping[int, float]], *, sums: int, size: int, batch: int) -> float:
    """Returns seconds that messages add to a decode step of ranks that share every layer.

    One broadcast of ids, the sums, and two gathers: the likeliest tokens' numbers and their ids.

    Args:
        between: as measured.
        sums: of a step: two a layer, one where attention and feed-forward stand side by side.
        size: B of a sum.
        batch: requests, each with one token's id and two numbers of each rank.
    """

    def at(message: str, size: int) -> float:
        known = between[message]
        return float(np.interp(size, list(known), list(known.values())))

    return sums * at("sum", size) + at("ids", 4 * batch) + at("numbers", 8 * batch) + at("numbers", 4 * batch)


def main(rank: int, ranks: int, store: str, sizes: Sequence[int]) -> int:
    """Takes part in every message at every size."""
    try:
        import torch
        from torch.nn import functional

        from fleetcast.runtime.llm.ranks.wire import Wire
    except ImportError:
        raise MissingExtra("torch", "torch") from None
    torch.set_num_threads(1)
    wire = Wire(Path(store), rank, ranks, TIMEOUT)
    draw = torch.Generator().manual_seed(rank)
    weights = [torch.randn(_OUTPUTS, _INPUTS, generator=draw) for _ in range(_MATRICES)]
    x, one = torch.randn(1, _INPUTS, generator=draw), torch.zeros(1)

    def loop(do: Callable[[], Any] | None) -> float:
        wire.together(one)
        begin = time.perf_counter()
        for i in range(_CALLS):
            functional.linear(x, weights[i % _MATRICES])
            if do is not None:
                do()
        return time.perf_counter() - begin

    def sends(message: str, size: int) -> Callable[[], Any]:
        floats, ids = torch.ones(size // 4), torch.ones(size // 4, dtype=torch.int32)
        if message == "sum":
            return lambda: wire.together(floats)
        return (lambda: wire.broadcast(ids)) if message == "ids" else (lambda: wire.gather(floats))

    with torch.inference_mode():
        for message in MESSAGES:
            for size in sizes:
                do = sends(message, size)
                loop(do)
                # in turn, so that a disturbance spoils a round of both
                both = torch.tensor([[loop(None), loop(do)] for _ in range(_ROUNDS)], dtype=torch.float64)
                slowest = [x.numpy() for x in wire.gather(both)]
                if rank == 0:
                    bare, busy = np.quantile(np.max(slowest, axis=0), QUIET, axis=0)
                    seconds = max(float(busy - bare), 0.0) / _CALLS
                    print(json.dumps({"message": message, "size": size, "seconds": seconds}), flush=True)
    wire.together(one)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], [int(size) for size in sys.argv[4].split(",")]))
