"""Refits the host constants of vLLM 0 on the 20 measured cases, and says what they and their nulls are worth.

    python -m benchmarks.fit.engine_vllm0          # writes src/fleetcast/cost/engines/vllm-0.toml, prints the errors
    python -m benchmarks.fit.engine_vllm0 --dry    # errors only

Kernel times come from kernel tables and stay as they are. A case is one replica on its own trace; the engine counts
TTFT from a request's arrival in its queue, and TPOT as (sum of E2E - sum of TTFT) / sum of output tokens.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from fleetcast.base.files import write_atomic
from fleetcast.cost.engine import Host
from fleetcast.cost.layers import launches
from fleetcast.cost.step import GRID
from fleetcast.scenario.load import load_serving
from fleetcast.scenario.plan import Plan
from fleetcast.scenario.workload.traces import Case, cases
from fleetcast.sim.serving import kernel
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Server, Setting, setting

PROFILE = Path(__file__).parents[2] / "src/fleetcast/cost/engines/vllm-0.toml"
FAMILIES = ("creation", "lmsys", "summarization")
RANGES: dict[str, tuple[float, float, float]] = {
    "step": (0.5e-3, 5e-3, 20e-3),
    "seq": (5e-6, 2e-4, 1e-3),
    "token": (0.1e-6, 3e-6, 10e-6),
    "eager": (5e-6, 25e-6, 1e-4),
    "api": (0.1e-3, 5e-3, 50e-3),
}
"""Physical range and start of each constant, s: a Python scheduler, sampler and detokeniser per iteration, per
sequence and per token; launching a layer's dozen kernels from Python; a request's way through queue and server."""
ROOFLINE: dict[str, tuple[float, float, float]] = {
    "memory": (0.3, 0.8, 1.0), "compute": (0.2, 0.6, 1.0), "step": (0.0, 5e-3, 30e-3),
}  # fmt: skip
"""The null's three constants: shares of peak bandwidth and FLOP/s, and s per iteration."""
TTFT_WEIGHT = 0.3
"""TTFT of a case rests on a few hundred arrivals, TPOT on ten thousands of iterations."""

Means = tuple[float, float]
Predict = Callable[["Measured", Mapping[str, float]], Means]


@dataclass(frozen=True)
class Measured:
    """A measured case with everything its simulation needs."""

    case: Case
    state: Setting
    plan: Plan
    server: Server

    @property
    def family(self) -> str:
        """The traffic it ran: "creation", "lmsys" or "summarization"."""
        return self.case.id.split("_")[2]

    def simulated(self, tables: Mapping[str, Any], scalars: Mapping[str, Any]) -> Means:
        """Returns (mean TTFT, TPOT), s, on the engine's clock for other costs."""
        q = self.state.requests
        shared = kernel.Requests(q.arrival.copy(), q.prompt.astype("i4"), q.output.astype("i4"))
        replica = kernel.Replica(kernel.Costs(dict(tables), dict(scalars)), shared, tuple(self.server.batch.rule()))
        kernel.drive(replica, kernel.column("i", np.arange(len(q))))
        arrival, first, finish = (np.asarray(column) for column in shared.times())
        return float((first - arrival).mean()), float((finish - first).sum() / q.output.sum())


@cache
def measured() -> tuple[Measured, ...]:
    """Returns the 20 cases, served as the profile's defaults say."""
    found = []
    for case in cases():
        scenario = load_serving(
            {
                "fleet": {"devices": f"{case.tp}x h100-sxm"},
                "workload": {"kind": "serving", "model": case.model, "trace": case.id},
                "plan": {
                    "engine": "vllm-0.6", "tensor_parallel": case.tp, "pipeline_parallel": 1, "replicas": 1,
                },
            }
        )  # fmt: skip
        state = setting(scenario)
        plan = complete(state, scenario.plan)
        found.append(Measured(case, state, plan, state.server(plan.pools[0])))
    return tuple(found)


def with_host(m: Measured, host: Mapping[str, float]) -> Means:
    """Returns (TTFT, TPOT), s, of a case under other host constants."""
    cost, kernels = m.server.cost, launches(m.server.model)
    changed = {
        "host_step": host["step"], "host_seq": host["seq"], "host_token": host["token"],
        "eager": host["eager"] * kernels,
    }  # fmt: skip
    ttft, tpot = m.simulated(cost.tables, dict(cost.scalars) | changed)
    return ttft + host["api"], tpot


def roofline(m: Measured, c: Mapping[str, float]) -> Means:
    """Returns (TTFT, TPOT), s, of a case under the null: weights and cache read, FLOP done, a constant per step."""
    device, tp, model = m.server.group.device, m.case.tp, m.server.model
    bandwidth, peak = device.bandwidth * c["memory"], device.peak["bf16"] * c["compute"]
    read = 2.0 * model.params() / tp / bandwidth
    done = GRID * (2.0 * model.params() / tp / peak)
    zero = np.zeros_like(GRID)
    few = np.zeros(int(m.server.batch.rule().max_batch) + 1)
    tables = {
        "dense": np.where(GRID > 0, np.maximum(read, done), 0.0), "experts": zero, "head": zero, "hop": zero,
        "floor": few, "base": few, "slope": few + model.kv_bytes_per_token(2.0, tp) / bandwidth,
    }  # fmt: skip
    none = dict.fromkeys(("host_seq", "host_token", "eager", "pre_base", "pre_query", "pre_context"), 0.0)
    pair = m.server.cost.work["flops_pair"] / peak
    return m.simulated(tables, dict(m.server.cost.scalars) | none | {"host_step": c["step"], "pre_pair": pair})


def fit(
    rows: Sequence[Measured], ranges: Mapping[str, tuple[float, float, float]] = RANGES, predict: Predict = with_host
) -> dict[str, float]:
    """Returns the constants (s) that minimise the squared log errors, inside their physical ranges.

    Args:
        rows: cases to fit on.
        ranges: name -> (low, start, high).
        predict: a case and constants -> (TTFT, TPOT).
    """
    low, start, high = (np.array([r[i] for r in ranges.values()]) for i in range(3))

    def constants(x: np.ndarray) -> dict[str, float]:
        return dict(zip(ranges, (x * start).tolist(), strict=True))

    def residuals(x: np.ndarray) -> np.ndarray:
        c = constants(x)
        logs = [np.log(np.array(predict(m, c)) / (m.case.ttft, m.case.tpot)) for m in rows]
        return np.concatenate([log * (TTFT_WEIGHT, 1.0) for log in logs])

    # Finite steps of 5 %: which iteration an arrival meets makes TTFT jump at smaller ones.
    found = least_squares(
        residuals, np.ones(len(start)), bounds=(low / start, high / start), diff_step=0.05, max_nfev=30
    )
    return {k: float(f"{v:.3g}") for k, v in constants(found.x).items()}


def errors(rows: Sequence[Measured], predict: Callable[[Measured], Means]) -> np.ndarray:
    """Returns signed relative errors f8[cases, 2]: TTFT, TPOT."""
    return np.array([np.array(predict(m)) / (m.case.ttft, m.case.tpot) - 1.0 for m in rows])


def left_out(rows: Sequence[Measured], train: Callable[[list[Measured]], Callable[[Measured], Means]]) -> np.ndarray:
    """Returns the errors of every case under a model trained without its traffic family, in the cases' order."""
    found = np.zeros((len(rows), 2))
    for family in FAMILIES:
        predict = train([m for m in rows if m.family != family])
        held = [i for i, m in enumerate(rows) if m.family == family]
        found[held] = errors([rows[i] for i in held], predict)
    return found


def train_host(rows: Sequence[Measured]) -> Callable[[Measured], Means]:
    """Returns our model, its host constants fitted on ``rows``."""
    host = fit(rows)
    return lambda m: with_host(m, host)


def train_roofline(rows: Sequence[Measured]) -> Callable[[Measured], Means]:
    """Returns the roofline null, fitted on ``rows``."""
    c = fit(rows, ROOFLINE, roofline)
    return lambda m: roofline(m, c)


def train_constant(rows: Sequence[Measured]) -> Callable[[Measured], Means]:
    """Returns the constant null: mean TTFT and TPOT of the cases in ``rows`` on as many devices."""
    groups: dict[int, list[Means]] = {}
    for m in rows:
        groups.setdefault(m.case.tp, []).append((m.case.ttft, m.case.tpot))
    means: dict[int, np.ndarray] = {tp: np.mean(pairs, axis=0) for tp, pairs in groups.items()}
    fallback: np.ndarray = np.mean([pair for pairs in groups.values() for pair in pairs], axis=0)

    def constant(m: Measured) -> Means:
        ttft, tpot = means.get(m.case.tp, fallback).tolist()
        return float(ttft), float(tpot)

    return constant


def in_file() -> dict[str, float]:
    """Returns the constants the profile carries, s."""
    server: Host = measured()[0].server.engine.host_on("h100-sxm")
    return {name: float(getattr(server, name)) for name in RANGES}


def write(host: Mapping[str, float]) -> None:
    """Replaces ``[host.default]`` of the profile."""
    rows = []
    for name, value in host.items():
        unit, scale = ("ms", 1e3) if value >= 1e-3 else ("us", 1e6)
        rows.append(f'{name} = "{value * scale:.3g} {unit}"')
    text = PROFILE.read_text(encoding="utf-8")
    block = "[host.default]\n" + "\n".join(rows) + "\n"
    write_atomic(PROFILE, re.sub(r"\[host\.default\]\n(?:\w+ = .*\n)+", block, text))


def show(label: str, found: np.ndarray) -> None:
    """Prints mean and worst absolute error of TPOT and TTFT."""
    off = 100.0 * np.abs(found)
    print(
        f"{label:42s} TPOT {off[:, 1].mean():5.2f} % worst {off[:, 1].max():5.2f} %   "
        f"TTFT {off[:, 0].mean():5.2f} % worst {off[:, 0].max():5.2f} %"
    )


def main(arguments: Sequence[str]) -> None:
    """Fits, prints, and writes unless ``--dry``."""
    rows = measured()
    host = fit(rows)
    print({k: f"{v:.3g} s" for k, v in host.items()})
    for m, (ttft, tpot) in zip(rows, errors(rows, lambda m: with_host(m, host)), strict=True):
        print(
            f"{m.case.id.rpartition('/')[2]:40s} TTFT {m.case.ttft * 1e3:6.1f} ms {ttft:+7.1%}   "
            f"TPOT {m.case.tpot * 1e3:6.2f} ms {tpot:+7.1%}"
        )
    models = {"host constants": train_host, "null: roofline": train_roofline, "null: constant per TP": train_constant}
    for label, train in models.items():
        show(label, errors(rows, train(list(rows))))
        show(f"{label}, family left out", left_out(rows, train))
    if "--dry" not in arguments:
        write(host)


if __name__ == "__main__":
    main(sys.argv[1:])
