"""The engine: runs models of the Llama family on torch, batched by the very policies that are simulated.

`schedule` decides who runs, `engine` runs them and keeps account, `sampling` chooses tokens, `paging` deals cache
blocks; none of them needs torch. `shape` reads a config.json, `weights` the safetensors beside it, `model` is the
forward pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.requests import Request, Token
from fleetcast.runtime.llm.sampling import Choice, Sampling
from fleetcast.runtime.llm.shape import read_shape

__all__ = ["Choice", "Engine", "Request", "Sampling", "Token", "open_engine", "torch_threads"]


def open_engine(folder: str | Path, *, blocks: int, dtype: str = "auto", **settings: Any) -> Engine:
    """Returns an engine with the model of a Hugging Face folder.

    Args:
        folder: holds config.json and model.safetensors, or an index and its shards.
        blocks: of the KV cache, 16 tokens each.
        dtype: "fp32", "bf16", or "auto": as stored, float16 as "bf16".
        settings: as `Engine` takes them: batch, order, memory, watermark, seed.

    Raises:
        SpecError: the folder's files are wrong; names file, field or tensor.
        Unsupported: a model that the engine does not run, with the reason.
        MissingExtra: torch or safetensors is not installed.
    """
    from fleetcast.runtime.llm.model import Transformer
    from fleetcast.runtime.llm.weights import read_weights

    shape = read_shape(folder)
    return Engine(Transformer(shape, read_weights(folder, shape, dtype), blocks), blocks=blocks, **settings)


def torch_threads(count: int | None = None) -> int:
    """Returns how many threads torch's products use, after setting them where a count is given."""
    import torch

    if count is not None:
        torch.set_num_threads(count)
    return int(torch.get_num_threads())
