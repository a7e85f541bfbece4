"""The model that drafts under a plan, opened on this machine: in the engine's process, or in one of its own.

A plan says where drafters run (`scenario.drafts`). On the pool's own devices, one drafts before each check, in the
engine's process. On devices of its own, a draft pool's or ``pipelined``, it drafts in another process for one half of
the batch while the other is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from fleetcast.base.errors import SpecError
from fleetcast.runtime.llm.draft import Drafter, ModelDrafter, Pipelined
from fleetcast.runtime.llm.shape import Shape, located, shape_at
from fleetcast.scenario.drafts import drafting_of, drafts_by_model, drafts_elsewhere
from fleetcast.scenario.plan import Pool

PATIENCE: Final = 60.0
"""s that a draft may take in its own process: reading many long prompts at once takes long on a processor."""
START: Final = 600.0
"""s that reading its weights may take there."""
RANDOM: Final = "the draft model's weights are random: what it drafts is right by chance alone, and takes as long"


@dataclass(frozen=True)
class Source:
    """A model that drafts.

    Attributes:
        config: path of its config.json or folder, or its name in the catalogue.
        weights: folder of its safetensors; None = random weights.
        shape: of it.
        dtype: of its weights, "auto" = as stored.
        kv_dtype: of its cache.
        apart: whether it has a process of its own.
    """

    config: Path
    weights: Path | None
    shape: Shape
    dtype: str
    kv_dtype: str
    apart: bool


def source_of(pool: Pool, draft: Pool | None, folder: Path, path: str) -> Source | None:
    """Returns the model that drafts for a complete pool; None where none does.

    Args:
        pool: that is drafted for.
        draft: the plan's draft pool.
        folder: where relative paths start.
        path: of the pool, for errors.

    Raises:
        SpecError: no such model, or none is named.
        Unsupported: one that the engine does not run.
    """
    if not drafts_by_model(pool.speculate):
        return None
    _, drafting = drafting_of(pool.speculate, f"{path}.speculate")
    home = draft if draft is not None and drafts_elsewhere(pool.speculate) else None
    name = drafting.model or (home.model if home is not None else None)
    if name is None:
        raise SpecError(
            f"{path}.speculate.model", "is missing", limit="a folder with the draft model's files, or a catalogue name",
            hint='Add it, or draft from the context with kind = "ngram"',
        )  # fmt: skip
    config, weights = located(name, folder)
    dtype, kv_dtype = (str(home.dtype or "auto"), str(home.kv_dtype or "auto")) if home is not None else ("auto",) * 2
    kv_dtype = "bf16" if kv_dtype == "fp16" else kv_dtype  # as the engine takes float16 weights
    apart = home is not None or bool(drafting.pipelined)
    return Source(config, weights, shape_at(name, folder, f"{path}.speculate.model"), dtype, kv_dtype, apart)


def open_drafter(
    source: Source, blocks: int, *, seed: int = 0, threads: int | None = None, device: str = "cpu"
) -> Drafter:
    """Returns the drafter, ready.

    Args:
        source: what to open.
        blocks: of its KV cache.
        seed: of random weights.
        threads: of its products where it has a process of its own.
        device: as the engine's: "cpu" or "cuda".

    Raises:
        SpecError: its files are wrong, a dtype that the engine has not, or its process does not come up; with the
            reason.
    """
    from fleetcast.runtime.llm.weights import dtype_of, kv_dtype_of

    kv_dtype_of(source.kv_dtype, dtype_of(source.dtype, source.shape))  # what cannot be is said here, not over there
    if source.apart:
        return Pipelined(partial(_opened, source, blocks, seed, threads, device), patience=PATIENCE, start=START)
    return _opened(source, blocks, seed, device=device)


def _opened(source: Source, blocks: int, seed: int, threads: int | None = None, device: str = "cpu") -> ModelDrafter:
    from fleetcast.runtime.llm import open_engine

    model = open_engine(
        source.weights or source.config, blocks=blocks, dtype=source.dtype, kv_dtype=source.kv_dtype, device=device,
        fake=source.weights is None, seed=seed, threads=threads,
    ).model  # fmt: skip
    return ModelDrafter(model, blocks=blocks)
