"""Units at the door: files may say "4.8 TB/s", inside there are only SI floats.

Inside: seconds, bytes, FLOP, joules, watts, dollars, grams of CO2-equivalent. Prices are $/h and grid
intensities g/kWh, because that is how both are quoted; `cost.money` and `cost.carbon` convert.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Final

from fleetcast.base.errors import SpecError

_PREFIX: Final = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY: Final = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_SMALL: Final = {"m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}


def _scaled(symbol: str, factor: float, *, binary: bool = False) -> dict[str, float]:
    scales = _PREFIX | (_BINARY if binary else {})
    return {prefix + symbol: scale * factor for prefix, scale in scales.items()}


_BYTES: Final = _scaled("B", 1.0, binary=True)
_BITS: Final = _scaled("b", 0.125) | _scaled("bit", 0.125)
_TIME: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0, "d": 86400.0} | {
    prefix + "s": scale for prefix, scale in _SMALL.items()
}
_TABLES: Final[dict[str, dict[str, float]]] = {
    "s": _TIME,
    "B": _BYTES,
    "B/s": {k + "/s": v for k, v in (_BYTES | _BITS).items()}
    | {k + "ps": v for k, v in _BITS.items() if k.endswith("b")},
    "FLOP": _scaled("FLOP", 1.0),
    "FLOP/s": _scaled("FLOP/s", 1.0) | _scaled("FLOPS", 1.0) | _scaled("OP/s", 1.0) | _scaled("OPS", 1.0),
    "W": _scaled("W", 1.0) | {"mW": 1e-3},
    "J": _scaled("J", 1.0)
    | {"kWh": 3.6e6, "Wh": 3600.0, "MWh": 3.6e9, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "nJ": 1e-9, "pJ": 1e-12},
    "W/m2": {"W/m2": 1.0, "kW/m2": 1e3},
    "Hz": _scaled("Hz", 1.0),
    "$": {"$": 1.0, "USD": 1.0},
    "$/h": {
        "$/h": 1.0,
        "USD/h": 1.0,
        "$/hour": 1.0,
        "$/s": 3600.0,
        "$/day": 1 / 24,
        "$/month": 1 / 730,
    },
    "/s": {"/s": 1.0, "req/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600, "Hz": 1.0},
    "g/kWh": {
        "g/kWh": 1.0,
        "gCO2/kWh": 1.0,
        "gCO2e/kWh": 1.0,
        "kg/MWh": 1.0,
        "kg/kWh": 1e3,
        "lb/MWh": 0.45359237,
    },
}
_NUMBER: Final = re.compile(r"^\s*([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$")


def parse(value: object, unit: str, path: str = "value") -> float:
    """Returns ``value`` as a float in ``unit``; a bare number is taken to be in ``unit`` already.

    Args:
        value: a number, or text such as ``"4.8 TB/s"``.
        unit: one of s, B, B/s, FLOP, FLOP/s, W, J, Hz, $, $/h, /s, g/kWh.
        path: where the value stands, for the error.

    Raises:
        SpecError: wrong unit, not a number, or not finite.

    Example:
        >>> parse("4.8 TB/s", "B/s")
        4800000000000.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise SpecError(path, "is not a quantity", value=value, limit=f"write e.g. {_example(unit)}")
    if isinstance(value, str):
        match = _NUMBER.match(value)
        if match is None:
            raise SpecError(path, "is not a quantity", value=value, limit=f"write e.g. {_example(unit)}")
        scale = 1.0 if match[2] == "" else _TABLES[unit].get(match[2])
        if scale is None:
            known = ", ".join(list(_TABLES[unit])[:8])
            raise SpecError(
                path,
                f"has the wrong unit '{match[2]}'",
                value=value,
                limit=f"expected {unit} (such as {known})",
            )
        number = float(match[1].replace("_", "")) * scale
    else:
        number = float(value)
    if not math.isfinite(number):
        raise SpecError(path, "is not finite", value=value, limit=f"write e.g. {_example(unit)}")
    return number


def _example(unit: str) -> str:
    return {
        "s": '"50 ms"', "B": '"80 GB"', "B/s": '"3.35 TB/s"', "FLOP/s": '"989 TFLOP/s"', "W": '"700 W"',
        "$/h": '"2.50 $/h"', "/s": '"4 /s"', "g/kWh": '"400 g/kWh"',
    }.get(unit, f'"1 {unit}"')  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """Marks a Struct field as a quantity: its unit, its closed range, and whether it may be a name or a file too."""

    unit: str
    low: float = 0.0
    high: float = math.inf
    named: bool = False


Seconds = Annotated[float, Quantity("s")]
Bytes = Annotated[float, Quantity("B")]
BytesPerSecond = Annotated[float, Quantity("B/s")]
FlopsPerSecond = Annotated[float, Quantity("FLOP/s")]
Watts = Annotated[float, Quantity("W")]
Joules = Annotated[float, Quantity("J")]
Hertz = Annotated[float, Quantity("Hz")]
Dollars = Annotated[float, Quantity("$")]
DollarsPerHour = Annotated[float, Quantity("$/h")]
Price = Annotated[float | str, Quantity("$/h", named=True)]
LinkSpeed = Annotated[float | str, Quantity("B/s", low=1.0, high=1e15, named=True)]
PerSecond = Annotated[float, Quantity("/s")]
GramsPerKWh = Annotated[float, Quantity("g/kWh")]
