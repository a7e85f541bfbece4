"""Weights from a Hugging Face folder: safetensors only, every tensor checked against the config before it is used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.base.files import read_text
from fleetcast.runtime.llm.naming import Stored
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


class Checkpoint:
    """The tensors of a folder, by the engine's names: checked at once, read when they are asked for.

    Args:
        folder: holds ``model.safetensors``, or an index and its shards. Files of pickled tensors are never opened.
        shape: says which tensors there must be.
        dtype: "fp32", "bf16", or "auto": as stored, float16 as "bf16".
        device: of torch.

    Raises:
        SpecError: an unknown dtype; no safetensors; a file that is absent or damaged; a tensor that is missing, one too
            many, of another shape, or of a dtype that is not a float of 16 or 32 bits.
    """

    def __init__(self, folder: str | Path, shape: Shape, dtype: str = "auto", device: Any = "cpu") -> None:
        self.dtype, self.device = dtype_of(dtype, shape), device
        wanted = {stored.name: stored for stored in shape.tensors()}
        self._places: dict[str, _Place] = {}
        for path, listed in _files(Path(folder)):
            with _reading(path):
                self._check(path, listed, shape, wanted)
        missing = [name for name, stored in wanted.items() if stored.parts[0][0] not in self._places]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise SpecError(f"{folder}, tensor {missing[0]}{more}", "is missing", limit="one of each", hint=_HINT)

    def tensor(self, part: str) -> Any:
        """Returns a tensor of ``Shape.parts``, (outputs, inputs), in the dtype and on the device asked for.

        Raises:
            SpecError: the file can no longer be read.
        """
        place = self._places[part]
        with _reading(place.path):
            view = place.file.get_slice(place.name)
            mine = slice(place.begin, place.begin + place.outputs)
            found = view[:, mine].t() if place.transposed else view[mine]
            # copied, since products round by where in memory a matrix begins: in a file, anywhere
            return torch.empty(found.shape, dtype=self.dtype, device=self.device).copy_(found)

    def _check(self, path: Path, listed: Sequence[str] | None, shape: Shape, wanted: Mapping[str, Stored]) -> None:
        file = safetensors.safe_open(path, framework="pt")
        names = set(file.keys())
        for name in sorted(names if listed is None else listed):
            where, plain = f"{path}, tensor {name}", shape.naming.plain(name)
            if name not in names:
                raise SpecError(where, "is missing", limit="the index lists it there", hint=_HINT)
            if shape.naming.is_spare(plain) or (shape.tied and plain == f"{shape.naming.tables['head']}.weight"):
                continue
            if plain not in wanted:
                limit = f"the {len(wanted)} tensors that config.json implies"
                raise SpecError(where, "is not part of the model", limit=limit, hint=_HINT)
            stored, view = wanted[plain], file.get_slice(name)
            if tuple(view.get_shape()) != stored.size:
                limit = f"{stored.size} as config.json implies"
                raise SpecError(where, "has another shape", value=tuple(view.get_shape()), limit=limit)
            if view.get_dtype() not in _STORED:
                limit = f"one of {', '.join(_STORED)}"
                raise SpecError(where, "has a dtype that is not run", value=view.get_dtype(), limit=limit)
            begin = 0
            for part, outputs in stored.parts:
                self._places[part] = _Place(path, file, name, begin, outputs, stored.transposed)
                begin += outputs


class _Place(NamedTuple):
    """Where a part lies: a file that is open, the tensor's name in it, and which of its outputs."""

    path: Path
    file: Any
    name: str
    begin: int
    outputs: int
    transposed: bool


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        raise SpecError(str(path), f"cannot be read as safetensors: {error}", hint="Fetch it again") from None


def dtype_of(dtype: str, shape: Shape) -> Any:
    """Returns torch's dtype for "fp32", "bf16" or "auto", which is what ``shape`` stores, float16 as bf16.

    Raises:
        SpecError: another one.
    """
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
