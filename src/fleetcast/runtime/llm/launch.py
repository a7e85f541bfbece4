"""From a plan's pool to an engine that runs on this machine; what it cannot run is refused with the reason.

The engine runs one replica, on CUDA devices or on the processor at hand. Policies, cache size and dtype are the plan's,
so that what is measured is what was forecast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import Infeasible, SpecError, Unsupported
from fleetcast.base.spec import build
from fleetcast.policy import batch, evict, memory, speculate
from fleetcast.policy.order import requests as order
from fleetcast.runtime.llm.drafter import RANDOM, open_drafter, source_of
from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.paging import BLOCK, blocks_of
from fleetcast.runtime.llm.shape import Shape, located, shape_at
from fleetcast.scenario.caches import TIERS, tiers_of
from fleetcast.scenario.drafts import DRAFTING, drafting_of, drafts_by_model
from fleetcast.scenario.plan import Pool, one
from fleetcast.scenario.workload.precision import BITS

SHARE: Final = 0.9
"""Of the memory that is free, what weights and cache may take."""
_FAMILIES: Final = {"batch": batch, "order": order, "memory": memory}


@dataclass(frozen=True)
class Launched:
    """An engine that is ready.

    Attributes:
        engine: to submit to.
        shape: of its model.
        dtype: of its weights.
        threads: that its products use.
        device: that holds it: "cpu", or the name of a CUDA device (of rank 0's where there are several).
        real: whether the weights were read; otherwise they are random, and so is what it says.
        notes: what to know, in sentences.
        drafts: whether the weights of the model that drafts were read; None = no model drafts.
    """

    engine: Engine
    shape: Shape
    dtype: str
    threads: int
    device: str
    real: bool
    notes: tuple[str, ...]
    drafts: bool | None = None


def launch(
    model: str, pool: Pool, *, blocks: int, draft: Pool | None = None, folder: Path = Path(), watermark: float = 0.0,
    seed: int = 0, threads: int | None = None, device: str = "auto", bounded: bool = False, most: int | None = None,
    path: str = "plan",
) -> Launched:  # fmt: skip
    """Returns an engine with the model, policies, dtypes and drafter of a complete pool.

    Args:
        model: a folder or config.json, from ``folder`` on, with safetensors beside it; or a catalogue name. Where there
            are no weights it runs random ones, which take as long and say nothing.
        pool: with every choice made.
        blocks: of the KV cache, 16 tokens each; fewer where the device's memory does not hold them. A model that
            drafts has as many.
        draft: the plan's draft pool, complete.
        folder: where relative paths start.
        watermark: share of the blocks that admission leaves free.
        seed: of sampling and of random weights.
        threads: of its products; None = as many as torch takes: the processor's cores, or OMP_NUM_THREADS. Where the
            plan has several ranks, or a drafter of its own, of each process; None = the cores shared out.
        device: "cpu", "cuda", or "auto": CUDA where every rank has such a device of its own.
        bounded: keep no more blocks than the largest batch of the longest contexts fills.
        most: keep no more blocks than these, which all that comes can fill; None = anything may come. Beside either,
            those that the watermark leaves free are kept.
        path: of the pool, for errors.

    Raises:
        SpecError: no such model, or its files are wrong. No such device.
        Unsupported: what this engine cannot run, with the reason.
        Infeasible: weights and one block of cache do not fit the device's memory.
        MissingExtra: torch or safetensors is not installed.
    """
    refuse(pool, path, draft)
    named, weights = located(model, folder)
    shape = shape_at(model, folder)
    policies = {name: build(space, getattr(pool, name), f"{path}.{name}") for name, space in _FAMILIES.items()}
    kept = tiers_of(pool.prefix_cache, f"{path}.prefix_cache")
    if kept is not None:
        policies["prefix_cache"] = build(evict, kept[0], f"{path}.prefix_cache", TIERS)
    if not _off(pool.speculate):
        asked, _ = drafting_of(pool.speculate, f"{path}.speculate")
        policies["speculate"] = build(speculate, asked, f"{path}.speculate", DRAFTING)

    drafting = source_of(pool, draft, folder, path)
    if drafting is not None and drafting.shape.vocab != shape.vocab:
        raise SpecError(
            f"{path}.speculate.model", "has another vocabulary", value=drafting.shape.vocab,
            limit=f"{shape.vocab:,} tokens, the target's", hint="Choose a model of the same family",
        )  # fmt: skip

    from fleetcast.runtime.llm import open_engine, torch_threads
    from fleetcast.runtime.llm.devices import devices_of, free_memory, name_of

    tensor, pipeline = one(pool.tensor_parallel) or 1, one(pool.pipeline_parallel) or 1
    places = devices_of(device, max(tensor, pipeline))
    dtype, kv_dtype = str(pool.dtype or "auto"), str(pool.kv_dtype or "auto")
    kv_dtype = "bf16" if kv_dtype == "fp16" else kv_dtype  # as the engine takes float16 weights
    notes = []
    rule = policies["batch"].rule() if bounded and hasattr(policies["batch"], "rule") else None
    of_use = [n for n in (rule and rule.max_batch * blocks_of(shape.context), most) if n is not None]
    blocks = min([blocks, *(math.ceil(n / (1.0 - watermark)) for n in of_use)])
    held = [(shape, dtype, kv_dtype)]
    held += [(drafting.shape, drafting.dtype, drafting.kv_dtype)] if drafting is not None else []
    whose = "this machine's" if places[0].type == "cpu" else "the CUDA device's"
    fits = _blocks_that_fit(held, blocks, free_memory(places), whose)
    if fits < blocks:
        notes.append(f"{fits:,} blocks of cache instead of the plan's {blocks:,}: {whose} memory holds no more")
    if drafting is not None and drafting.apart and threads is None:  # two that took all cores would wait for each other
        threads = max(1, torch_threads() // (tensor * pipeline + 1))
    used = torch_threads(threads)
    if drafting is not None:
        policies["drafter"] = open_drafter(drafting, fits, seed=seed, threads=threads, device=places[0].type)
        notes += [RANDOM] if drafting.weights is None else []
    try:
        engine = open_engine(
            weights or named, blocks=fits, dtype=dtype, kv_dtype=kv_dtype, device=places[0].type, fake=weights is None,
            seed=seed, watermark=int(watermark * fits), threads=threads, tensor_parallel=tensor,
            pipeline_parallel=pipeline, **policies,
        )  # fmt: skip
    except BaseException:
        if drafting is not None:
            policies["drafter"].close()
        raise
    real, notes = None if drafting is None else drafting.weights is not None, [*notes, *engine.notes]
    return Launched(engine, shape, dtype, used, name_of(places[0]), weights is not None, tuple(notes), real)


def refuse(pool: Pool, path: str = "plan", draft: Pool | None = None) -> None:
    """Raises Unsupported where a pool, or the one that drafts for it, asks for what this engine cannot run.

    The error names the key, its value and why.
    """
    for where, each, limits in ((path, pool, _LIMITS), ("the draft pool", draft, _DRAFT_LIMITS)):
        for name, runs, why, hint in limits if each is not None else ():
            value = getattr(each, name)
            if not runs(value):
                raise Unsupported(f"{where}.{name} = {_said(value)}: {why}", hint)


def _blocks_that_fit(held: Sequence[tuple[Shape, str, str]], wanted: int, free: float, whose: str) -> int:
    """Returns how many of the wanted blocks the free memory holds beside the weights.

    Args:
        held: models, with the dtypes of their weights and caches; each has as many blocks.
        wanted: blocks.
        free: B that all ranks have together.
        whose: they are, for errors.
    """
    free *= SHARE
    sizes = [_bytes(*each) for each in held]
    weights, block = sum(size for size, _ in sizes), sum(size for _, size in sizes)
    fits = int((free - weights) / block)
    if fits < 1:
        raise Infeasible(
            f"{whose} free memory for weights and a block of cache", need=weights + block, have=free, unit="B",
            hint="Choose a smaller model or a narrower dtype, or end what else runs there",
        )  # fmt: skip
    return min(wanted, fits)


def _bytes(shape: Shape, dtype: str, kv_dtype: str) -> tuple[float, float]:
    """Returns bytes of a model's weights and of a block of its cache."""
    stored = dtype if dtype != "auto" else shape.stored
    weights = float(sum(_size(dims) for _, dims in shape.tensors())) * BITS[stored] / 8
    held = kv_dtype if kv_dtype != "auto" else "fp32" if stored == "fp32" else "bf16"
    cache = BITS[held] / 8 + (4.0 / shape.head_dim if held == "int8" else 0.0)  # a scale a head
    return weights, 2.0 * len(shape.windows) * shape.kv_heads * shape.head_dim * BLOCK * cache


def check_context(shape: Shape, longest: int, blocks: int) -> None:
    """Raises where a request of ``longest`` tokens, prompt and output together, cannot run.

    Raises:
        SpecError: it is longer than the model's context.
        Infeasible: it does not fit the cache.
    """
    if longest > shape.context:
        raise SpecError(
            "workload", "has a request beyond the model's context", value=longest,
            limit=f"{shape.context:,} tokens, prompt and output together", hint="Shorten the requests or cut the trace",
        )  # fmt: skip
    if blocks_of(longest) > blocks:
        raise Infeasible(
            "KV cache for the longest request", need=float(longest), have=float(blocks * BLOCK), unit="tokens",
            hint="Shorten the requests, or choose a smaller model",
        )  # fmt: skip


def _size(dims: tuple[int, ...]) -> int:
    total = 1
    for d in dims:
        total *= d
    return total


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", value))
    return repr(value) if isinstance(value, str) else str(value)


def _single(value: Any) -> bool:
    return one(value) == 1


def _whole(value: Any) -> bool:
    return value in (None, 1, 1.0)


def _off(value: Any) -> bool:
    kind = value.get("kind") if isinstance(value, dict) else value
    return kind in (None, "off", "none")


def _one_drafts(value: Any) -> bool:
    return not drafts_by_model(value) or not isinstance(value, dict) or value.get("drafters", 1) == 1


def _on_device(value: Any) -> bool:
    return _off(value) or not (isinstance(value, dict) and any(value.get(tier) for tier in TIERS))


def _no_swap(value: Any) -> bool:
    return not (isinstance(value, dict) and value.get("kind") == "swap") and value != "swap"


def _role(value: Any) -> bool:
    return bool(value == "all")


_ONE = "the engine runs one replica on this machine"
_LIMITS: Final[tuple[tuple[str, Callable[[Any], bool], str, str], ...]] = (
    ("role", _role, "the engine does not move caches between pools", 'Give it role = "all"'),
    ("replicas", _single, _ONE, "Set replicas = 1"),
    ("expert_parallel", _single, _ONE, "Set expert_parallel = 1"),
    ("attention_dp", _single, _ONE, "Set attention_dp = 1"),
    ("activation_dtype", lambda v: v is None, "activations are in the engine's own dtype", "Leave it out"),
    ("clock", _whole, "the engine does not set the processor's clock", "Leave it out"),
    ("overlap", _off, "the engine cuts no iteration into nano-batches", "Leave it out"),
    (
        "speculate",
        _one_drafts,
        "its drafters are copies of one model, which are always of one mind, so that a vote adds nothing",
        "Set drafters = 1",
    ),
    ("prefix_cache", _on_device, "the engine keeps no prefixes below its cache", "Leave cpu and ssd out"),
    ("memory", _no_swap, "the engine does not swap caches out", 'Set memory = "recompute"'),
)
"""Key of the pool, whether the engine runs its value, why not otherwise, and what to write instead."""
_DRAFT_LIMITS: Final[tuple[tuple[str, Callable[[Any], bool], str, str], ...]] = (
    ("replicas", _single, "the engine lets one model draft", "Leave it out, and set drafters = 1"),
    ("tensor_parallel", _single, "a model that drafts runs in one process", "Set tensor_parallel = 1"),
    *(limit for limit in _LIMITS if limit[0] in ("activation_dtype", "clock")),
)
"""The same of the pool that drafts."""
