"""Number formats, the two roofs of a chip, and how near kernels get to them.

Every kernel of ``cost`` is a closed form with a few non-negative coefficients: fractions of the
data sheet's peak and bandwidth, and fixed times in seconds. ``benchmarks/fit/kernels.py`` fits them
on measured tables and writes ``coefficients/<device>.toml`` (one per measured device) and
``coefficients/<architecture>.toml`` (their means). A device nobody measured gets its architecture's
means, or those of the nearest relative, with a wider interval.

Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 2009.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
C = TypeVar("C")
_FOLDER = Path(__file__).parent / "coefficients"


class Silicon(Protocol):
    """What the kernels need to know of a device; a catalogue device has it all."""

    @property
    def id(self) -> str:
        """Catalogue id."""

    @property
    def architecture(self) -> str:
        """Family, e.g. "hopper"."""

    @property
    def bandwidth(self) -> float:
        """Memory bandwidth, B/s."""

    @property
    def units(self) -> float:
        """Streaming multiprocessors or cores."""

    @property
    def peak(self) -> Mapping[str, float]:
        """Dense FLOP/s per arithmetic format."""


@dataclass(frozen=True, slots=True)
class Chip:
    """A device as plain numbers: what ``Silicon`` asks for."""

    id: str
    architecture: str
    bandwidth: float
    units: float
    peak: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Format:
    """How a number format is stored and computed.

    Attributes:
        weight: bytes per weight, scales included.
        activation: bytes per activation element that the matrix product reads.
        peaks: the chip's arithmetic formats to use, best first.
        quantised: activations are quantised at run time, which costs a pass over them.
        tables: names of fitted coefficients to use, best first.
    """

    weight: float
    activation: float
    peaks: tuple[str, ...]
    quantised: bool
    tables: tuple[str, ...]


_HALF = ("bf16", "fp16", "fp32")
_BYTE = ("fp8", *_HALF)  # a chip without fp8 multiplies such weights in 16 bits (Marlin), not on int8 units
_NIBBLE = ("nvfp4", "mxfp4", "fp4", *_HALF)
# Bytes: int4 has an fp16 scale per group of 128, mxfp4 a byte per 32, nvfp4 a byte per 16 (OCP MX
# 1.0, cuBLAS).
FORMATS: Mapping[str, Format] = {
    "fp32": Format(4.0, 4.0, ("fp32", "tf32"), False, ("fp32", "bf16")),
    "tf32": Format(4.0, 4.0, ("tf32", "fp32"), False, ("bf16",)),
    "bf16": Format(2.0, 2.0, _HALF, False, ("bf16",)),
    "fp16": Format(2.0, 2.0, ("fp16", "bf16", "fp32"), False, ("bf16",)),
    "fp8": Format(1.0, 1.0, _BYTE, True, ("fp8", "fp8-block", "bf16")),
    "fp8-block": Format(1.0, 1.0, _BYTE, True, ("fp8-block", "fp8", "bf16")),
    "fp8-weights": Format(1.0, 2.0, _HALF, False, ("fp8-weights", "bf16")),
    "int8": Format(1.0, 1.0, ("int8", "fp8", "bf16", "fp16", "fp32"), True, ("int8", "fp8", "bf16")),
    "int4": Format(0.515625, 2.0, _HALF, False, ("int4", "bf16")),
    "mxfp4": Format(0.53125, 2.0, _HALF, False, ("mxfp4", "int4", "bf16")),
    "nvfp4": Format(0.5625, 0.5625, _NIBBLE, True, ("nvfp4", "fp8", "bf16")),
}


def format_of(dtype: str) -> Format:
    """Returns the storage and arithmetic of a dtype as engines name it.

    Raises:
        KeyError: for an unknown name, with the list.
    """
    try:
        return FORMATS[dtype.replace("_", "-")]
    except KeyError:
        raise KeyError(f"unknown dtype {dtype!r}; known: {', '.join(FORMATS)}") from None


def peak(chip: Silicon, dtype: str) -> float:
    """Returns the dense FLOP/s of the best arithmetic the chip has for ``dtype``.

    Raises:
        KeyError: when the chip has none of them.
    """
    for name in format_of(dtype).peaks:
        if name in chip.peak:
            return float(chip.peak[name])
    raise KeyError(f"{chip.id} has no arithmetic for {dtype}; it has {', '.join(chip.peak)}")


def soft_max(a: Array, b: Array, sharp: int) -> Array:
    """Returns ``(a**sharp + b**sharp)**(1/sharp)``, ``sharp`` a power of two, by squaring.

    Two roofs that overlap imperfectly: 1 adds them, infinity takes the larger.
    """
    steps = sharp.bit_length() - 1
    scale = np.maximum(a, b)
    low = np.minimum(a, b) / np.where(scale > 0, scale, 1.0)
    for _ in range(steps):
        low = low * low
    low = 1.0 + low
    for _ in range(steps):
        low = np.sqrt(low)
    return np.asarray(scale * low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An element-wise kernel (norm, rotary embedding, activation): launch + bytes.

    Attributes:
        launch: s.
        memory: fraction of the memory bandwidth it reaches.
    """

    launch: float
    memory: float


def stream_time(size: ArrayLike, chip: Silicon, c: Stream) -> Array:
    """Returns seconds for element-wise kernels that move ``size`` bytes (array of any shape)."""
    return np.asarray(c.launch + np.asarray(size, dtype=np.float64) / (chip.bandwidth * c.memory))


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where coefficients come from and how far they may be off.

    Attributes:
        kind: "measured", "twin" (same silicon, other board), "architecture" (mean of its measured
            devices), "relative" or "generic" (mean of all).
        origin: the tables' device or architecture.
        spread: standard deviation of log(time) to expect of a kernel: 0.1 = 10 %.
        source: tables, with version.
    """

    kind: str
    origin: str
    spread: float
    source: str


@dataclass(frozen=True, slots=True)
class Coefficients:
    """All fitted coefficients of one device, turned into classes on demand."""

    device: str
    provenance: Mapping[str, Provenance]
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(repr=False)

    def get(self, family: str, dtype: str, kind: type[C]) -> C:
        """Returns the coefficients of a kernel family for a dtype, as a ``kind``.

        Args:
            family: "gemm", "decode", "prefill", "moe", "stream", ...
            dtype: as engines name it; the nearest fitted format answers.
            kind: the dataclass of that family; fields absent from the table keep their defaults.

        Raises:
            KeyError: when the family has no table for any stand-in format.
        """
        known = self.tables[family]
        names = ("any",) if dtype == "any" else (*format_of(dtype).tables, "any")
        for name in names:
            if name in known:
                row = known[name]
                return kind(**{f.name: row[f.name] for f in fields(kind) if f.name in row})  # type: ignore[arg-type]
        raise KeyError(f"{self.device} has no {family} coefficients for {dtype}; has {list(known)}")


# The same silicon on another board.
TWINS: Mapping[str, str] = {
    "a100-40g-sxm": "a100-80g-sxm",
    "a100-80g-pcie": "a100-80g-sxm",
    "a100-40g-pcie": "a100-80g-sxm",
    "h100-pcie": "h100-sxm",
    "v100-sxm2-32g": "v100-pcie-16g",
    "b300-sxm": "b200-sxm",
    "gb300": "gb200",
}
# Who stands in for an architecture, in order; later names answer what earlier ones lack. Chosen by
# memory and tensor-unit design, not by fit.
RELATIVES: Mapping[str, tuple[str, ...]] = {
    "volta": ("volta", "ampere"),
    "ampere": ("ampere",),
    "ada": ("ada", "ampere"),
    "hopper": ("hopper",),
    "blackwell": ("blackwell", "hopper"),
    "blackwell-ultra": ("blackwell", "hopper"),
    "blackwell-rtx": ("blackwell-rtx", "ada"),
    "xe2": ("xe2",),
    "tpu-v5e": ("tpu-v6e",),
    "cdna2": ("ampere",),
    "cdna3": ("hopper",),
}
# How much wider than the fit an interval is; architectures and generic rows carry held-out spreads
# already.
_WIDEN = {"measured": 1.0, "twin": 1.3, "architecture": 1.0, "relative": 1.5, "generic": 1.5}


def coefficients_for(device: Silicon) -> Coefficients:
    """Returns a device's coefficients: its own, or its twin's, architecture's or a relative's.

    Families are filled one by one and dtypes within them too, so a device with measured products
    and no measured attention takes only the latter from its relatives. ``Coefficients.provenance``
    says which is which. A device that was measured here brings its own (`scenario.fleet.devices.Fitted`).
    """
    own = getattr(device, "fitted", None)
    if own is None:
        return _known(device.id, device.architecture)
    return _chain(device.id, device.architecture, {"source": own.source, "spread": own.spread, "tables": own.tables})


@lru_cache(maxsize=256)
def _known(device: str, architecture: str) -> Coefficients:
    return _chain(device, architecture, _load(device))


def _chain(device: str, architecture: str, own: Mapping[str, Any] | None) -> Coefficients:
    twin = TWINS.get(device, "")
    near = RELATIVES.get(architecture, (architecture,))
    tables: dict[str, dict[str, Mapping[str, Any]]] = {}
    origin: dict[str, Provenance] = {}
    for name in dict.fromkeys((device, twin, *near, "generic")):
        content = own if name == device else _load(name)
        if content is None:
            continue
        kinds = {
            "generic": "generic",
            architecture: "architecture",
            twin: "twin",
            device: "measured",
        }
        kind = kinds.get(name, "relative")
        for family, rows in content["tables"].items():
            into = tables.setdefault(family, {})
            if family not in origin:
                spread = float(content["spread"][family]) * _WIDEN[kind]
                origin[family] = Provenance(kind, name, spread, content["source"])
            for dtype, row in rows.items():
                into.setdefault(dtype, row)
    return Coefficients(device, origin, tables)


@lru_cache(maxsize=256)
def _load(name: str) -> dict[str, Any] | None:
    path = _FOLDER / f"{name}.toml"
    if not name or not path.is_file():
        return None
    with path.open("rb") as file:
        return tomllib.load(file)
