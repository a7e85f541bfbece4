"""The engine: runs language models on torch, batched by the very policies that are simulated.

`schedule` decides who runs, `engine` runs them and keeps account, `sampling` chooses tokens, `paging` deals cache
blocks, `prefixes` keeps those of past contexts, `speculation` checks what the drafters in `draft` say; none of them
needs torch. `shape` reads a config.json, `weights` the safetensors beside it, `model` is the
forward pass; what differs between families of models is in `families`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.requests import Request, Token
from fleetcast.runtime.llm.sampling import Choice, Sampling
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.scenario.workload import catalog

__all__ = ["FAKE", "Choice", "Engine", "Request", "Sampling", "Token", "open_engine", "torch_threads"]

FAKE: Final = "weights are random: times are as of real ones, and what it says means nothing"
"""What the notes of an engine with fake weights say."""


def open_engine(
    model: str | Path, *, blocks: int, dtype: str = "auto", kv_dtype: str = "auto", device: str = "auto",
    threads: int | None = None, tensor_parallel: int = 1, pipeline_parallel: int = 1, timeout: float = 300.0,
    fake: bool = False, seed: int = 0, **settings: Any,
) -> Engine:  # fmt: skip
    """Returns an engine with the model of a Hugging Face folder.

    Args:
        model: a folder with config.json and model.safetensors, or an index and its shards. With ``fake``, also a
            config.json, or a name of the catalogue.
        blocks: of the KV cache, 16 tokens each.
        dtype: format of the matrices: "fp32", "bf16", "int8", "int4", or "auto": as stored, float16 as "bf16".
            Activations are fp32 with "fp32", else bf16; `linear` says what the formats are.
        kv_dtype: of the KV cache: "fp32", "bf16", "int8" with a scale per token and head, or "auto": as activations.
        device: "cpu", "cuda", or "auto": CUDA where there is such a device, for each rank where there are several.
        threads: of the whole process; None = as they are. Of each rank where there are several; None = the cores
            shared out.
        tensor_parallel: processes that share every layer.
        pipeline_parallel: processes that hold some layers each.
        timeout: s that a pass may take before a process that does not answer counts as lost.
        fake: take random weights; none are read, and the engine's notes say so.
        seed: of fake weights, and of requests that bring none.
        settings: as `Engine` takes them: batch, order, memory, watermark.

    Raises:
        SpecError: the folder's files are wrong; names file, field or tensor. No such model, no such device or fewer of
            them than ranks.
        Unsupported: a model that the engine does not run, with the reason.
        LostRank: a process that should hold a part of the model did not come up.
        MissingExtra: torch or safetensors is not installed.
    """
    from fleetcast.runtime.llm.devices import devices_of
    from fleetcast.runtime.llm.model import Transformer
    from fleetcast.runtime.llm.weights import dtype_of, fake_weights, format_of, kv_dtype_of, read_weights

    devices = devices_of(device, max(tensor_parallel, pipeline_parallel, 1))
    if tensor_parallel != 1 or pipeline_parallel != 1:
        from fleetcast.runtime.llm.ranks import Ranks, Source

        known = not fake or Path(model).exists()
        config = str(model) if known else catalog.config(str(model))
        source = Source(
            config=config, folder=None if fake else str(model), seed=seed, dtype=dtype, kv_dtype=kv_dtype
        )  # fmt: skip
        ranks = Ranks(
            source, blocks, tensor=tensor_parallel, pipeline=pipeline_parallel, threads=threads, timeout=timeout,
            devices=devices,
        )  # fmt: skip
        return Engine(ranks, blocks=blocks, seed=seed, notes=(FAKE,) if fake else (), **settings)
    if threads is not None:
        torch_threads(threads)
    known = not fake or Path(model).exists()
    shape = read_shape(model if known else catalog.config(str(model)))
    held = kv_dtype_of(kv_dtype, dtype_of(dtype, shape))
    weights = fake_weights(shape, dtype, seed, devices[0]) if fake else read_weights(model, shape, dtype, devices[0])
    made = Transformer(shape, weights, blocks, format_of(dtype, shape), held)
    return Engine(made, blocks=blocks, seed=seed, notes=(FAKE,) if fake else (), **settings)


def torch_threads(count: int | None = None) -> int:
    """Returns how many threads torch's products use, after setting them where a count is given."""
    import torch

    if count is not None:
        torch.set_num_threads(count)
    return int(torch.get_num_threads())
