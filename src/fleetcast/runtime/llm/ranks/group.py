"""The model as the engine sees it where several processes hold it: rank 0 here, the others started and watched."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import FleetcastError, MissingExtra
from fleetcast.base.host import cores
from fleetcast.runtime.llm.likeliest import merged
from fleetcast.runtime.llm.ranks.part import Part
from fleetcast.runtime.llm.ranks.shard import check
from fleetcast.runtime.llm.ranks.wire import Wire, order
from fleetcast.runtime.llm.requests import Logits, Piece
from fleetcast.runtime.llm.shape import read_shape

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

WORKER: Final = ("-m", "fleetcast.runtime.llm.ranks.worker")
_GRACE: Final = 5.0
"""s in which a rank that noticed that another is lost ends by itself."""


class LostRank(FleetcastError):
    """A process that holds a part of the model is gone, or does not answer; the engine cannot go on."""

    def __init__(self, rank: int | None, why: str) -> None:
        self.rank = rank
        who = "a rank" if rank is None else f"rank {rank}"
        super().__init__(f"{who} of the model {why}. Start the engine again")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the ranks load.

    Attributes:
        config: path of a config.json or of its folder, or the table itself.
        folder: of the weights; None = random ones.
        seed: of random weights.
        dtype: as `open_engine` takes it.
        kv_dtype: likewise.
    """

    config: str | Mapping[str, Any]
    folder: str | None = None
    seed: int = 0
    dtype: str = "auto"
    kv_dtype: str = "auto"


class Ranks:
    """A model over several processes; one pass at a time.

    Attributes: ``traffic``, bytes of this rank's buffers since the start, by what was sent (`Wire.sent`).

    Args:
        source: what to load.
        blocks: of the KV cache, of which each rank has its part.
        tensor: ranks that share every layer.
        pipeline: ranks that hold some layers each.
        threads: of each rank; None = the cores shared out.
        timeout: s that a pass, or loading, may take before a rank that does not answer counts as lost.
        devices: of torch, one for each rank (`devices_of`); None = the CPU for all.

    Raises:
        SpecError: the model cannot be cut so.
        LostRank: a rank did not come up; says which, and the last it said.
    """

    def __init__(
        self, source: Source, blocks: int, *, tensor: int = 1, pipeline: int = 1, threads: int | None = None,
        timeout: float = 300.0, devices: Sequence[Any] | None = None,
    ) -> None:  # fmt: skip
        shape = read_shape(source.config)
        check(shape, tensor, pipeline)
        self.shape, self.vocab, self.context, self.timeout = shape, shape.vocab, shape.context, timeout
        self.ranks = max(tensor, pipeline)
        self.devices = [str(device) for device in devices or ["cpu"] * self.ranks]
        self.lost: LostRank | None = None
        self.threads = threads or max(1, cores() // self.ranks)
        self._home = Path(tempfile.mkdtemp(prefix="fleetcast-ranks-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._end = weakref.finalize(self, _end, self._processes, self._home)
        said = {
            "config": source.config if isinstance(source.config, str) else dict(source.config), "folder": source.folder,
            "seed": source.seed, "dtype": source.dtype, "kv_dtype": source.kv_dtype, "blocks": blocks,
            "pipeline": pipeline > 1, "threads": self.threads, "meeting": str(self._home / "meeting"),
            "ranks": self.ranks, "timeout": timeout,
        }  # fmt: skip
        torch.set_num_threads(self.threads)
        try:
            for rank in range(1, self.ranks):
                self._processes.append(self._begin(rank, said))
            self._hear("here")  # one that does not come up is not waited for
            self._wire = Wire(self._home / "meeting", 0, self.ranks, timeout, self.devices[0])
            self._part = Part(said, self._wire)
            self._hear("loaded")
        except (RuntimeError, OSError) as error:
            raise self._found(error) from None
        except BaseException:
            self.close()
            raise

    @property
    def traffic(self) -> Counter[str]:
        """Bytes of this rank's buffers since the start, by what was sent."""
        return Counter(self._wire.sent)

    def forward(self, pieces: Sequence[Piece]) -> Logits:
        """Returns a row for each token that emits, as much of it as its piece keeps.

        Raises:
            LostRank: a process is gone, or did not answer in time; all others are then ended.
        """
        if self.lost is not None:
            raise self.lost
        line = order(pieces)
        try:
            for process in self._processes:
                assert process.stdin is not None
                process.stdin.write(line)
                process.stdin.flush()
            if not self._part.pipeline:
                ids = [t for p in pieces for t in p.tokens]
                self._wire.broadcast(torch.tensor(ids, dtype=torch.int32, device=self._wire.device))
            want, numbers, ids = self._part.run(pieces)
        except (RuntimeError, OSError) as error:
            raise self._found(error) from None
        return merged(numbers, ids, want, self.vocab, self._part.width)

    def close(self) -> None:
        """Ends the processes."""
        self._end()

    def _begin(self, rank: int, said: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        with (self._home / f"{rank}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": str(self.threads)}, start_new_session=True,
            )  # fmt: skip
        assert process.stdin is not None
        mine = {**said, "rank": rank, "device": self.devices[rank]}
        process.stdin.write((json.dumps(mine) + "\n").encode())
        process.stdin.flush()
        return process

    def _hear(self, word: str) -> None:
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != word.encode():
                raise RuntimeError("it ended while it was started")

    def _found(self, error: Exception) -> LostRank:
        """Returns who was lost, after ending everyone."""
        # a rank that is gone makes the others fail too, a little later: the first to go without that excuse is the one
        deadline = time.monotonic() + _GRACE
        lost: int | None = None
        while lost is None and time.monotonic() < deadline:
            codes = [process.poll() for process in self._processes]
            lost = next((i + 1 for i, code in enumerate(codes) if code is not None and code != 1), None)
            if lost is None and codes and all(code is not None for code in codes):
                break
            time.sleep(0.02)
        codes = [process.poll() for process in self._processes]
        why = f"failed: {str(error).splitlines()[0][:200]}"
        if lost is None:
            own = [i + 1 for i, code in enumerate(codes) if code == 1 and not _excused(self._said(i + 1))]
            hung = [i + 1 for i, code in enumerate(codes) if code is None]
            lost = next(iter([*own, *hung]), None)
        if lost is not None:
            code, said = codes[lost - 1], self._said(lost)
            if code is None:
                why = f"did not answer within {self.timeout:g} s"
            elif code < 0:
                why = f"was ended by signal {-code} ({signal.Signals(-code).name})"
            else:
                why = f"ended with status {code}: {said}" if said else f"ended with status {code}"
        self.lost = LostRank(lost, why)
        self.close()
        return self.lost

    def _said(self, rank: int) -> str:
        """Returns the last line that a rank wrote to its standard error."""
        with contextlib.suppress(OSError):
            lines = (self._home / f"{rank}.log").read_text(errors="replace").strip().splitlines()
            return lines[-1][:300] if lines else ""
        return ""


def _excused(said: str) -> bool:
    """Whether a rank failed because another one did."""
    return any(word in said for word in ("gloo", "NCCL", "Connection", "Timed out", "timed out", "Broken pipe"))


def _end(processes: Sequence[subprocess.Popen[bytes]], home: Path) -> None:
    for process in processes:
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
    deadline = time.monotonic() + 0.5
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    shutil.rmtree(home, ignore_errors=True)
