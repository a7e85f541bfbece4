"""How ranks talk, with counts of what was sent, and the lines that order a pass.

Ranks on the CPU talk by gloo over the loopback interface, those with a CUDA device each by NCCL.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.requests import Piece

try:
    import torch
    import torch.distributed as dist
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any

LOADING: Final = 120.0
"""Least s that ranks wait for each other to start, which on a busy machine takes longer than a pass."""


class Wire:
    """One rank's end of the connection.

    Attributes: ``sent`` bytes of this rank's buffers by what they were: "ids", "sums", "numbers", "hidden"; ``device``
    of torch, on which every tensor lies that is sent or received.

    Args:
        meeting: a file that all ranks name, in a folder of their own.
        rank: of this process.
        ranks: how many there are.
        timeout: s that an operation may wait for the others.
        device: of this rank; on CUDA no other rank has the same.
    """

    def __init__(self, meeting: Path, rank: int, ranks: int, timeout: float, device: str = "cpu") -> None:
        self.rank, self.ranks, self.device = rank, ranks, torch.device(device)
        self.sent: Counter[str] = Counter()
        store, loading = dist.FileStore(str(meeting), ranks), timedelta(seconds=max(timeout, LOADING))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            # a rank that is lost is then an error of the operation that waits for it, not the end of this process
            os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = loading
            self._group = dist.ProcessGroupNCCL(store, rank, ranks, options)
        else:
            options = dist.ProcessGroupGloo._Options()
            options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
            options._timeout = loading
            self._group = dist.ProcessGroupGloo(store, rank, ranks, options)
        self._group._set_default_timeout(timedelta(seconds=timeout))

    def broadcast(self, ids: Tensor) -> Tensor:
        """Returns rank 0's token ids, int32; the others bring a buffer of that size."""
        self.sent["ids"] += ids.nbytes
        self._group.broadcast(ids, 0).wait()
        return ids

    def together(self, x: Tensor) -> Tensor:
        """Returns the sum over ranks, in fp32."""
        wide = x.float().contiguous()
        wide = wide.clone() if wide is x else wide
        self.sent["sums"] += wide.nbytes
        self._group.allreduce([wide]).wait()
        return wide.to(x.dtype)

    def gather(self, mine: Tensor) -> list[Tensor]:
        """Returns at rank 0 every rank's tensor, all of one size; elsewhere nothing."""
        if not mine.numel():
            return [mine] * self.ranks if self.rank == 0 else []
        self.sent["numbers"] += mine.nbytes
        found = [torch.empty_like(mine) for _ in range(self.ranks)] if self.rank == 0 else []
        options = dist.GatherOptions()
        options.rootRank = 0
        self._group.gather([found] if found else [], [mine], options).wait()
        return found

    def send(self, x: Tensor, to: int) -> None:
        """Sends a tensor to another rank."""
        self.sent["hidden" if x.dtype.is_floating_point and x.dim() == 2 else "numbers"] += x.nbytes
        self._group.send([x.contiguous()], to, 0).wait()

    def receive(self, buffer: Tensor, source: int) -> Tensor:
        """Returns ``buffer``, filled with what another rank sent."""
        self._group.recv([buffer], source, 0).wait()
        return buffer


def order(pieces: Sequence[Piece]) -> bytes:
    """Returns the line that tells a rank what a pass is, but for the token ids, which are broadcast."""
    rows = [[len(p.tokens), p.start, p.emit, p.keep, *p.table] for p in pieces]
    return (json.dumps(rows, separators=(",", ":")) + "\n").encode()


def ordered(line: bytes, ids: Tensor) -> list[Piece]:
    """Returns the pieces of a pass."""
    found, begin, tokens = [], 0, ids.tolist()
    for count, start, emit, keep, *table in json.loads(line):
        found.append(Piece(tokens[begin : begin + count], start, table, emit, keep))
        begin += count
    return found


def counted(line: bytes) -> int:
    """Returns the tokens of a pass."""
    return sum(row[0] for row in json.loads(line))
