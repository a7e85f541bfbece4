"""Rotary positions: by what angle each pair of a head's elements turns from one position to the next.

Su et al., "RoFormer", 2021. "llama3" is the rule of the Llama 3.1 release; "yarn" is Peng et al., "YaRN", 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.scenario.workload.architectures.fields import HINT, Fields

SCALINGS: Final = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Rope:
    """Angles of one layer.

    Attributes:
        frequencies: radians per position of each pair that turns, the first ``2 * len`` elements of a head; the rest
            stays as it is. None = nothing turns.
        gain: factor on what turns, of queries and keys alike.
    """

    frequencies: tuple[float, ...] = ()
    gain: float = 1.0


def theta_table(fields: Fields) -> Fields:
    """Returns the table that says how positions turn; transformers 5 writes one, before it theta stood beside it."""
    return fields.inner("rope_parameters" if fields.get("rope_parameters") is not None else "rope_scaling")


def read_rope(
    fields: Fields, dim: int, scaling: Fields, *, theta: float = 10_000.0, share: float | None = None,
) -> Rope:  # fmt: skip
    """Returns the rotation that a config names.

    Args:
        fields: the config.
        dim: elements of a head.
        scaling: the table of it that names the rule; empty = plain powers of theta.
        theta: what the class assumes where the config is silent.
        share: of a head that the class turns where the config is silent; None = the class turns whole heads only.

    Raises:
        SpecError: a field that cannot be.
        Unsupported: another rule, or part of a head in a class that turns whole ones.
    """
    theta = scaling.number("rope_theta", default=theta, low=1.0, high=1e12)
    part = scaling.number("partial_rotary_factor", default=1.0 if share is None else share, low=0.0, high=1.0)
    if share is None and part != 1.0:
        raise Unsupported(f"{scaling.path}: the engine does not rotate a part of a head here", "It rotates whole heads")
    turned = int(dim * part)
    if turned % 2:
        raise SpecError(f"{fields.path}.head_dim", "must be even", value=turned, limit="pairs are rotated")
    kind = scaling.table.get("rope_type", scaling.table.get("type", "default"))
    if kind not in SCALINGS:
        known = ", ".join(SCALINGS)
        raise Unsupported(f"{scaling.path}: the engine does not scale positions by {kind!r}", f"It runs {known}")
    plain = [theta ** (-2 * i / turned) for i in range(turned // 2)]
    if kind == "default" or not turned:
        return Rope(tuple(plain))
    factor = scaling.number("factor", low=1e-6, high=1e6)
    if kind == "linear":
        return Rope(tuple(f / factor for f in plain))
    if kind == "llama3":
        return Rope(tuple(_llama3(scaling, plain, factor)))
    return _yarn(scaling, plain, factor, theta)


def _llama3(scaling: Fields, plain: list[float], factor: float) -> list[float]:
    """Returns frequencies whose long wavelengths are stretched.

    Wavelengths beyond the original context over ``low_freq_factor`` are stretched by ``factor``, those below it over
    ``high_freq_factor`` are kept, and between the two the frequency is interpolated.
    """
    low = scaling.number("low_freq_factor", low=1e-6, high=1e6)
    high = scaling.number("high_freq_factor", low=1e-6, high=1e6)
    if high <= low:
        path = f"{scaling.path}.high_freq_factor"
        raise SpecError(path, "must exceed low_freq_factor", value=high, limit=f"above {low:g}", hint=HINT)
    context = scaling.count("original_max_position_embeddings")
    found = []
    for f in plain:
        turns = context * f / (2 * math.pi)
        keep = min(1.0, max(0.0, (turns - low) / (high - low)))
        found.append((1.0 - keep) * f / factor + keep * f)
    return found


def _yarn(scaling: Fields, plain: list[float], factor: float, theta: float) -> Rope:
    """Returns YaRN's "NTK by parts" frequencies and its gain.

    Pairs that turn more than ``beta_fast`` times within the original context are kept, those below ``beta_slow`` are
    stretched by ``factor``, with a ramp over the pairs' indices between. The gain is 0.1 ln(factor) + 1, or the ratio
    of two such where ``mscale`` and ``mscale_all_dim`` are written.
    """
    context = scaling.count("original_max_position_embeddings", "max_position_embeddings")
    pairs, dim = len(plain), 2 * len(plain)
    ends = []
    for name, default in (("beta_fast", 32.0), ("beta_slow", 1.0)):
        turns = scaling.number(name, default=default, low=1e-6, high=1e6)
        ends.append(dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta)))
    first, last = (math.floor(ends[0]), math.ceil(ends[1])) if scaling.flag("truncate", True) else ends
    first, last = max(first, 0), min(last, dim - 1)
    span = max(last - first, 0.001)
    found = []
    for i in range(pairs):
        stretch = min(1.0, max(0.0, (i - first) / span))
        found.append(plain[i] * (1.0 - stretch) + plain[i] / factor * stretch)

    def gain(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1.0 else 1.0

    scales = [scaling.number(name, default=0.0, high=1e6) for name in ("mscale", "mscale_all_dim")]
    implied = gain(scales[0]) / gain(scales[1]) if all(scales) else gain(1.0)
    return Rope(tuple(found), scaling.number("attention_factor", default=implied, low=1e-6, high=1e6))
