"""Quantities as people read them."""

from __future__ import annotations

import math
from typing import Final

PREFIXES: Final = {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}


def show(value: float, unit: str = "", digits: int = 3) -> str:
    """Returns ``value`` for people: ``show(4.8e12, "B/s")`` is ``"4.8 TB/s"``.

    Args:
        value: SI number.
        unit: its unit; unknown units are appended as they stand.
        digits: significant digits.
    """
    if not math.isfinite(value):
        return f"{value} {unit}".strip()
    if unit == "s":
        return _show_time(value, digits)
    if unit == "1/J":
        return f"{_plain(value * 1e3, digits)} /kJ"
    if unit in ("$", "$/h"):
        return f"{value:,.2f} {unit}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g} {unit}"
    if unit in ("B", "B/s", "FLOP", "FLOP/s", "W", "J", "Hz") and value != 0:
        for prefix, scale in PREFIXES.items():
            if abs(value) >= scale * 0.99995:
                return f"{_plain(value / scale, digits)} {prefix}{unit}"
    return f"{_plain(value, digits)} {unit}".strip()


def _show_time(value: float, digits: int) -> str:
    size = abs(value)
    if size == 0:
        return "0 s"
    if size >= 7200:
        return f"{_plain(value / 3600, digits)} h"
    for scale, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if size >= scale * 0.99995:
            return f"{_plain(value / scale, digits)} {name}"
    return f"{_plain(value / 1e-9, digits)} ns"


def _plain(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
