"""How far iterations forecast from `fleetcast measure` alone are off the engine's own, on models that it never ran.

The profile is measured first. Then the engine runs models of other widths, heads, layers and vocabularies, and every
iteration is forecast by `cost.step` from the profile, as a simulation would: by sequences that decode, their context,
and the piece of a prompt beside them. The null is the larger of two roofs, with the profile's own peak and bandwidth.

With one thread, times are of the process: other work on the machine is no part of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.records import Null, Ours, Record, main, skipped, timer
from fleetcast.base.errors import Unsupported
from fleetcast.base.spec import convert
from fleetcast.cost.attention import pairs
from fleetcast.cost.engine import engine
from fleetcast.cost.step import GRID, StepCost, step_cost
from fleetcast.runtime.measure import EngineProfile, measure
from fleetcast.runtime.measure.passes import SHORT, Load, Timed, config
from fleetcast.scenario.fleet import catalog
from fleetcast.scenario.fleet.devices import Device, Fitted
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.workload.architectures import from_config
from fleetcast.scenario.workload.models import Layout
from fleetcast.scenario.workload.precision import BITS, Precision, as_engine

Array = NDArray[np.float64]

SYSTEM = 21
COMMAND = "python -m benchmarks.engine_forecast"
MODELS: Mapping[str, Mapping[str, Any]] = {
    "384 wide, 5 layers": config(384, 6, 6, 64, 1024, 5, 1024),
    "640 wide, 10 layers": config(640, 10, 2, 64, 1728, 10, 4096),
    "1024 wide, 4 layers": config(1024, 16, 8, 64, 2816, 4, 8192),
}
"""Models that no profile was measured on; synthetic, random weights."""
LOADS: Sequence[Load] = (
    *SHORT, Load(3, 100), Load(6, 300), Load(12, 200), Load(1, 900), Load(0, 0, 40), Load(0, 0, 180),
    Load(0, 0, 100, 300), Load(5, 150, 100),
)  # fmt: skip
FORMATS = ("fp32", "bf16", "int8", "int4")
CLAIM = "median error of iterations of the engine forecast from fleetcast measure, models held out"


def group_of(profile: EngineProfile) -> Group:
    """Returns the measured machine as a fleet of one."""
    table = profile.table()
    device = convert(table["device"], Device, "device")
    device = msgspec.structs.replace(device, fitted=convert(table["coefficients"], Fitted, "coefficients"))
    link, network = catalog.link(device.link), catalog.link(device.network)
    return Group(device.id, device, 1, 1, link, network, (device.id,), None, device.power.max)


def cost_of(table: Mapping[str, Any], dtype: str, group: Group) -> StepCost:
    """Returns what a model's iterations cost on the measured machine."""
    layout = Layout(tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, attention_dp=1)
    rest = "fp32" if dtype == "fp32" else "bf16"
    profile, precision = engine("fleetcast"), as_engine(dtype, Precision(weights=rest, rest=rest, activations=rest))
    if precision.parts:
        precision = msgspec.structs.replace(precision, parts=(*precision.parts, *profile.quantises))
    return step_cost(from_config(table, "model"), layout, precision, rest, group, profile, 64, 10_000)


def forecast(cost: StepCost, done: Sequence[Timed]) -> Array:
    """Returns (n,) s of iterations by the definition in `sim.serving.stepwise`: what the device does, then the host."""
    c, t = cost.scalars, cost.tables
    found = []
    for i in done:
        tokens = i.decodes + i.piece
        seconds = np.interp(tokens, GRID, t["dense"]) + np.interp(i.emits, GRID, t["head"])
        seconds += max(t["floor"][i.decodes], t["base"][i.decodes] + t["slope"][i.decodes] * i.context)
        if i.piece:
            reach = i.cached + i.piece
            seconds += c["pre_base"] + c["pre_pair"] * float(pairs(i.piece, i.cached))
            seconds += c["pre_query"] * i.piece + c["pre_context"] * reach
        found.append(seconds + c["host_step"] + c["host_seq"] * (i.decodes + bool(i.piece)) + c["host_token"] * tokens)
    return np.array(found)


def roofline(table: Mapping[str, Any], dtype: str, done: Sequence[Timed], profile: EngineProfile) -> Array:
    """Returns (n,) s by the larger of two roofs: weights read once, or multiplied at the peak."""
    size = BITS[dtype] / 8
    weights = float(from_config(table, "model").active_params())
    tokens = np.array([i.decodes + i.piece for i in done], dtype=np.float64)
    read = weights * size / float(profile.device["bandwidth"])
    return np.maximum(read, 2.0 * weights * tokens / float(profile.device["peak"][dtype]))


def run(table: Mapping[str, Any], dtype: str, threads: int, rounds: int) -> list[Timed]:
    """Returns the engine's iterations on a model."""
    from fleetcast.runtime.measure.engine_worker import clock_for, timed

    said = timed(table, dtype, "auto", LOADS, clock_for(threads), lambda: None, rounds)
    return [Timed(**row) for row in said]


def records(quick: bool) -> list[Record]:
    """Returns the claim for each format."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    bar = "at most 10 % and below the null, in each format"
    with timer() as spent:
        try:
            profile = measure(quick=False, threads=threads)
        except Unsupported as error:
            return [skipped(system=SYSTEM, claim=f"{CLAIM}, {d}", bar=bar, why=str(error)) for d in FORMATS]
        assert isinstance(profile, EngineProfile)
        group = group_of(profile)
        models = dict(list(MODELS.items())[:1]) if quick else MODELS
        errors: dict[str, list[Array]] = {}
        nulls: dict[str, list[Array]] = {}
        by: dict[str, list[str]] = {}
        for dtype in FORMATS:
            for name, table in models.items():
                done = run(table, dtype, threads, 1 if quick else 3)
                truth = np.array([i.seconds for i in done])
                off = forecast(cost_of(table, dtype, group), done) / truth - 1.0
                errors.setdefault(dtype, []).append(off)
                nulls.setdefault(dtype, []).append(roofline(table, dtype, done, profile) / truth - 1.0)
                decode = np.array([i.piece == 0 for i in done])
                by.setdefault(dtype, []).append(
                    f"{name}: decodes {100 * np.median(np.abs(off[decode])):.1f} %, "
                    f"with prompts {100 * np.median(np.abs(off[~decode])):.1f} %"
                )
                if "-v" in sys.argv:
                    for i, o in zip(done, off, strict=True):
                        print(dtype, name, i, f"{100 * o:+.1f} %")
    load = f"load {profile.load:.1f} per core"
    found = []
    for dtype in FORMATS:
        off, null = np.abs(np.concatenate(errors[dtype])), np.abs(np.concatenate(nulls[dtype]))
        value, plain = float(np.median(off)), float(np.median(null))
        found.append(Record(
            system=SYSTEM, claim=f"{CLAIM}, {dtype}",
            ours=Ours(
                value=round(100 * value, 1), unit="%",
                spread=f"90th percentile {100 * np.quantile(off, 0.9):.0f} %; " + "; ".join(by[dtype]),
                setting=f"{profile.machine.name}, {threads} thread{'s' * (threads > 1)}, {load}; {len(off)} kinds of "
                f"iteration; synthetic models and loads",
            ),
            null=Null(value=round(100 * plain, 1), what="the same profile's roofline: weights read or multiplied"),
            bar=bar, holds=value <= 0.10 and value < plain, reproduced="other setting",
            reason="no paper forecasts this engine", seconds=spent.seconds / len(FORMATS), command=COMMAND,
        ))  # fmt: skip
    return found


if __name__ == "__main__":
    sys.exit(main(records))
