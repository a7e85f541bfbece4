"""Number formats of a pool: what weights, activations and cache are served in, and what narrower ones cost."""

from __future__ import annotations

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.cost.engine import Engine
from fleetcast.scenario.workload.precision import BITS, Precision, as_engine, quality_lost


def activated(precision: Precision, asked: str | None) -> Precision:
    """Returns the precision with the activations a plan asks for.

    Raises:
        SpecError: the weights as served cannot be multiplied in that format.
    """
    if asked is None or asked == precision.activations:
        return precision
    possible = dict.fromkeys((precision.activations, precision.rest))
    if precision.weights in ("fp8", "int8", "nvfp4"):
        possible[precision.weights] = None
    if asked not in possible:
        raise SpecError(
            "plan.activation_dtype", f"does not go with {precision.weights} weights", value=asked,
            limit=f"one of {', '.join(possible)}", hint="Choose another dtype for the weights, or leave it out",
        )  # fmt: skip
    return msgspec.structs.replace(precision, activations=asked)


def quantised(dtype: str, kv: str, served: Precision, checkpoint: Precision) -> tuple[str, ...]:
    """Returns what narrower weights or a narrower cache than the checkpoint's cost in quality, in sentences."""
    stored = as_engine("auto", checkpoint)
    notes = []
    if BITS[served.weights] < BITS[stored.weights]:
        notes.append(f"weights in {dtype} instead of {stored.weights}: quality lost {quality_lost(dtype)}")
    if BITS[kv] < BITS[checkpoint.kv or stored.rest]:
        notes.append(f"cache in {kv} instead of {checkpoint.kv or stored.rest}: quality lost unknown")
    return tuple(notes)


def kv_dtype_of(asked: str, profile: Engine, precision: Precision) -> str:
    """Returns the cache's dtype: the plan's, else the engine's, else the checkpoint's, else that of its activations."""
    if asked != "auto":
        return asked
    if profile.kv_dtype == "rest":
        return precision.rest
    return profile.kv_dtype or precision.kv or ("bf16" if precision.rest == "fp32" else precision.rest)
