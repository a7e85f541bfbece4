"""Weights from a Hugging Face folder: safetensors only, every tensor checked against the config before it is used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.base.files import read_text
from fleetcast.runtime.llm.shape import Shape

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None
try:
    import safetensors
except ImportError:
    raise MissingExtra("safetensors", "torch") from None

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""The dtypes that weights are held and multiplied in."""

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_INDEX_LIMIT: Final = 64 << 20
_STORED: Final = ("F32", "BF16", "F16")
_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HINT: Final = "Take config.json and all safetensors files from the same repository"


def read_weights(folder: str | Path, shape: Shape, dtype: str = "auto") -> dict[str, Any]:
    """Returns every tensor of the checkpoint by name.

    Args:
        folder: holds ``model.safetensors``, or an index and its shards. Files of pickled tensors are never opened.
        shape: says which tensors there must be.
        dtype: "fp32", "bf16", or "auto": as stored, float16 as "bf16".

    Raises:
        SpecError: an unknown dtype; no safetensors; a file that is absent or damaged; a tensor that is missing, one too
            many, of another shape, or of a dtype that is not a float of 16 or 32 bits.
    """
    target = _target(dtype, shape)
    wanted = dict(shape.tensors())
    found: dict[str, Any] = {}
    for path, listed in _files(Path(folder)):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                names = set(file.keys())
                for name in sorted(names if listed is None else listed):
                    where = f"{path}, tensor {name}"
                    if name not in names:
                        raise SpecError(where, "is missing", limit="the index lists it there", hint=_HINT)
                    if _is_spare(name, shape):
                        continue
                    if name not in wanted:
                        limit = f"the {len(wanted)} tensors that config.json implies"
                        raise SpecError(where, "is not part of the model", limit=limit, hint=_HINT)
                    view = file.get_slice(name)
                    if tuple(view.get_shape()) != wanted[name]:
                        limit = f"{wanted[name]} as config.json implies"
                        raise SpecError(where, "has another shape", value=tuple(view.get_shape()), limit=limit)
                    if view.get_dtype() not in _STORED:
                        limit = f"one of {', '.join(_STORED)}"
                        raise SpecError(where, "has a dtype that is not run", value=view.get_dtype(), limit=limit)
                    # copied, since products round by where in memory a matrix begins: in a file, anywhere
                    found[name] = file.get_tensor(name).to(target, copy=True)
        except (OSError, safetensors.SafetensorError) as error:
            raise SpecError(str(path), f"cannot be read as safetensors: {error}", hint="Fetch it again") from None
    missing = [name for name in wanted if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SpecError(f"{folder}, tensor {missing[0]}{more}", "is missing", limit="one of each", hint=_HINT)
    return found


def fake_weights(shape: Shape, dtype: str = "auto", seed: int = 0) -> dict[str, Any]:
    """Returns random tensors in the place of a checkpoint's: as large, and as slow.

    Args:
        shape: says which tensors there are.
        dtype: as `read_weights` takes it.
        seed: equal seeds give equal weights.
    """
    target, draw = _target(dtype, shape), torch.Generator().manual_seed(seed)
    found = {}
    for name, size in shape.tensors():
        tensor = torch.ones(size) if "norm" in name else torch.randn(size, generator=draw) * size[-1] ** -0.5
        found[name] = tensor.to(target)
    return found


def _target(dtype: str, shape: Shape) -> Any:
    name = ("fp32" if shape.stored == "fp32" else "bf16") if dtype == "auto" else dtype
    if name not in DTYPES:
        raise SpecError("dtype", "cannot be run", value=dtype, limit=f"one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _files(folder: Path) -> Iterator[tuple[Path, Sequence[str] | None]]:
    """Yields each file with the tensors to read from it; None = all."""
    if not folder.is_dir():
        hint = "Name the folder that holds config.json and model.safetensors"
        raise SpecError(str(folder), "is not a folder", hint=hint)
    if (folder / _SINGLE).is_file():
        yield folder / _SINGLE, None
        return
    if not (folder / _INDEX).is_file():
        pickled = any(next(folder.glob(pattern), None) for pattern in _PICKLES)
        hint = "Pickled weights are never read; convert them to safetensors" if pickled else _HINT
        raise SpecError(str(folder), "holds no safetensors", limit=f"{_SINGLE}, or {_INDEX} and its files", hint=hint)
    index = folder / _INDEX
    try:
        table = json.loads(read_text(index, limit=_INDEX_LIMIT))
    except (ValueError, RecursionError):
        raise SpecError(str(index), "is not JSON", hint="Fetch it again") from None
    placed = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(placed, dict) or not placed:
        raise SpecError(f"{index}.weight_map", "must be a table", limit="file by tensor name", hint=_HINT)
    shards: dict[str, list[str]] = {}
    for name, file in placed.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            limit = "a .safetensors file beside the index"
            raise SpecError(f"{index}.weight_map.{name}", "cannot be", value=file, limit=limit)
        shards.setdefault(file, []).append(name)
    for file, names in sorted(shards.items()):
        if not (folder / file).is_file():
            raise SpecError(str(folder / file), "is not there", limit=f"{_INDEX} names it", hint=_HINT)
        yield folder / file, names


def _is_spare(name: str, shape: Shape) -> bool:
    """Whether a checkpoint may hold a tensor that is computed anew here: rotary tables, a copy of the embedding."""
    return name.endswith(".rotary_emb.inv_freq") or (shape.tied and name == "lm_head.weight")
