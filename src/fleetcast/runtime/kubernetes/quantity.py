"""Quantities as Kubernetes writes them: "100m", "1Gi", "1e3", ".5"; exact, rounded up as the scheduler does.

Grammar and rounding: k8s.io/apimachinery/pkg/api/resource, `Quantity`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Any, Final

from fleetcast.base.errors import SpecError

__all__ = ["CPU", "LARGEST", "amounts", "parse", "show"]

CPU: Final = "cpu"
LARGEST: Final = 2**63 - 1
"""The largest whole number that Kubernetes keeps; what is above counts as this."""
_LONGEST = 256
_FORM = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+|)")
_SUFFIX: Final = {
    "": Fraction(1), "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000),
    **{letter: Fraction(1000) ** (k + 1) for k, letter in enumerate("kMGTPE")},
    **{f"{letter}i": Fraction(1024) ** (k + 1) for k, letter in enumerate("KMGTPE")},
}  # fmt: skip


def parse(value: Any, path: str = "quantity") -> Fraction:
    """Returns the exact value of a quantity.

    Args:
        value: text, or the number that YAML makes of it.
        path: where it stands, for errors.

    Raises:
        SpecError: it is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = repr(value)
    if isinstance(value, str) and len(value) <= _LONGEST:
        found = _exact(value)
        if found is not None:
            return found
    raise SpecError(
        path, "is no quantity", value=value, limit='a number with a suffix, as "100m", "1Gi" or "1e3"',
        hint="See the Kubernetes reference of Quantity",
    )  # fmt: skip


@lru_cache(maxsize=8192)
def _exact(text: str) -> Fraction | None:
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    number, suffix = found.groups()
    if suffix not in _SUFFIX:
        # Beyond these powers all is the largest number, or less than the least that is kept.
        power = max(-300, min(300, int(suffix[1:])))
        return Fraction(number) * Fraction(10) ** power
    return Fraction(number) * _SUFFIX[suffix]


def amounts(table: Any, path: str) -> dict[str, int]:
    """Returns a table of resources as whole numbers: cpu in thousandths of a core, others in their unit; rounded up.

    Raises:
        SpecError: no table, no quantity or less than nothing.
    """
    if table is None:
        return {}
    if not isinstance(table, Mapping):
        raise SpecError(path, "is no table of resources", value=table, limit='a table, as { cpu = "1" }')
    made = {}
    for name, value in table.items():
        exact = parse(value, f"{path}.{name}")
        if exact < 0:
            raise SpecError(f"{path}.{name}", "is below zero", value=value, limit="at least 0")
        made[str(name)] = min(LARGEST, ceil(exact * 1000 if name == CPU else exact))
    return made


def show(resource: str, amount: int) -> str:
    """Returns an amount of `amounts` for people: "1.5" cores, "2Gi", "3"."""
    if resource == CPU:
        return f"{amount / 1000:g}"
    if resource in ("memory", "ephemeral-storage") or resource.startswith("hugepages-"):
        for suffix in ("Ti", "Gi", "Mi", "Ki"):
            if amount >= _SUFFIX[suffix]:
                return f"{float(amount / _SUFFIX[suffix]):.4g}{suffix}"
    return str(amount)
