"""Weights from a Hugging Face folder, or random ones in their place.

Safetensors only; every tensor is checked against the config before any is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, cast, get_args
from zlib import crc32

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.base.files import read_text
from fleetcast.runtime.llm.linear import Format
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

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16, "int4": torch.bfloat16}
"""The formats of matrices (`linear` says what they are), and the dtype of activations beside them."""

KV_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
"""What keys and values are held in."""

POOL: Final = 1_048_573
"""Numbers that fake weights are dealt from, over and over; a prime, so that no two rows of a matrix begin alike."""

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_INDEX_LIMIT: Final = 64 << 20
_STORED: Final = ("F32", "BF16", "F16")
_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HINT: Final = "Take config.json and all safetensors files from the same repository"


class _Place(NamedTuple):
    """Where a part lies: a file that is open, the tensor's name in it, and which of its outputs."""

    path: Path
    file: Any
    name: str
    begin: int
    outputs: int
    transposed: bool


class Checkpoint:
    """The tensors of a checkpoint by the engine's names, each read when it is asked for.

    Args:
        places: where each part lies.
        dtype: of torch, that tensors come in.
        device: of torch, that they come on.
    """

    def __init__(self, places: Mapping[str, _Place], dtype: Any, device: Any) -> None:
        self.places, self.dtype, self.device = places, dtype, device

    def tensor(self, part: str) -> Any:
        """Returns a tensor of ``Shape.parts``, (outputs, inputs).

        Raises:
            SpecError: the file can no longer be read.
        """
        place = self.places[part]
        with _reading(place.path):
            view = place.file.get_slice(place.name)
            mine = slice(place.begin, place.begin + place.outputs)
            found = view[:, mine].t() if place.transposed else view[mine]
            # copied, since products round by where in memory a matrix begins: in a file, anywhere
            return torch.empty(found.shape, dtype=self.dtype, device=self.device).copy_(found)


def read_weights(folder: str | Path, shape: Shape, dtype: str = "auto", device: Any = "cpu") -> Checkpoint:
    """Returns the tensors of a folder, all of them checked against the config.

    Args:
        folder: holds ``model.safetensors``, or an index and its shards. Files of pickled tensors are never opened.
        shape: says which tensors there must be.
        dtype: "fp32", "bf16", or "auto": as stored, float16 as "bf16".
        device: of torch.

    Raises:
        SpecError: an unknown dtype; no safetensors; a file that is absent or damaged; a tensor that is missing, one too
            many, of another shape, or of a dtype that is not a float of 16 or 32 bits.
    """
    target = dtype_of(dtype, shape)
    wanted = {stored.name: stored for stored in shape.checkpoint()}
    places: dict[str, _Place] = {}
    for path, listed in _files(Path(folder)):
        with _reading(path):
            places |= _places(path, listed, shape, wanted)
    missing = [name for name, stored in wanted.items() if stored.parts[0][0] not in places]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SpecError(f"{folder}, tensor {missing[0]}{more}", "is missing", limit="one of each", hint=_HINT)
    return Checkpoint(places, target, device)


def _places(path: Path, listed: Sequence[str] | None, shape: Shape, wanted: Mapping[str, Stored]) -> dict[str, _Place]:
    """Returns where in one file the parts lie that it holds, checked against what is wanted."""
    file = safetensors.safe_open(path, framework="pt")
    names = set(file.keys())
    found = {}
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
            found[part] = _Place(path, file, name, begin, outputs, stored.transposed)
            begin += outputs
    return found


class Fake:
    """Random weights in the place of a checkpoint's: as large, as slow, and of a scale at which nothing overflows.

    Matrices have variance 1 / inputs, so that activations keep theirs (LeCun et al., "Efficient BackProp", 1998); norms
    do nothing and biases are 0. They are dealt from one pool of normal draws, at the speed of memory.

    Args:
        shape: says which tensors there are.
        dtype: of torch.
        device: of torch.
        seed: equal seeds give equal weights.
    """

    def __init__(self, shape: Shape, dtype: Any, device: Any, seed: int) -> None:
        self.dtype, self.device, self.seed = dtype, device, seed
        self.sizes = dict(shape.parts())
        self.unit = 0.0 if shape.norm == "rms+1" else 1.0
        self.pool = torch.randn(POOL, generator=torch.Generator().manual_seed(seed))
        self.scaled: dict[int, Any] = {}

    def tensor(self, part: str) -> Any:
        """Returns a tensor of ``Shape.parts``, (outputs, inputs)."""
        size = self.sizes[part]
        if len(size) == 1:
            fill = 0.0 if part.endswith(".bias") else self.unit
            return torch.full(size, fill, dtype=self.dtype, device=self.device)
        inputs = size[-1]
        if inputs not in self.scaled:
            self.scaled[inputs] = (self.pool * inputs**-0.5).to(device=self.device, dtype=self.dtype)
        pool = self.scaled[inputs]
        found = torch.empty(size, dtype=self.dtype, device=self.device)
        flat, at, begin = found.view(-1), 0, crc32(f"{self.seed} {part}".encode()) % POOL
        while at < len(flat):
            dealt = pool[begin : begin + len(flat) - at]
            flat[at : at + len(dealt)] = dealt
            at, begin = at + len(dealt), 0
        return found


def fake_weights(shape: Shape, dtype: str = "auto", seed: int = 0, device: Any = "cpu") -> Fake:
    """Returns random weights; the arguments are as `read_weights` and `Fake` take them.

    Raises:
        SpecError: an unknown dtype.
    """
    return Fake(shape, dtype_of(dtype, shape), device, seed)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        raise SpecError(str(path), f"cannot be read as safetensors: {error}", hint="Fetch it again") from None


def format_of(dtype: str, shape: Shape) -> Format:
    """Returns the format of matrices that a name means: itself, or for "auto" what is stored, float16 as "bf16".

    Raises:
        SpecError: another one.
    """
    name = ("fp32" if shape.stored == "fp32" else "bf16") if dtype == "auto" else dtype
    for known in get_args(Format):
        if name == known:
            return cast(Format, known)
    raise SpecError("dtype", "cannot be run", value=dtype, limit=f"one of auto, {', '.join(DTYPES)}")


def dtype_of(dtype: str, shape: Shape) -> Any:
    """Returns torch's dtype of the activations of a format; see `format_of`."""
    return DTYPES[format_of(dtype, shape)]


def kv_dtype_of(kv_dtype: str, dtype: Any) -> Any:
    """Returns torch's dtype for keys and values; "auto" is that of activations.

    Raises:
        SpecError: another one.
    """
    if kv_dtype not in ("auto", *KV_DTYPES):
        raise SpecError("kv_dtype", "cannot be run", value=kv_dtype, limit=f"one of auto, {', '.join(KV_DTYPES)}")
    return dtype if kv_dtype == "auto" else KV_DTYPES[kv_dtype]


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
