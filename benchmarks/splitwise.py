"""Splitwise's claims on its own measured rows: how much load clusters of equal power or cost hold with phases split.

Machines are DGX-A100 and DGX-H100 as the published rows have them (prompt time by prompt tokens, token time by batch;
the "pcap" rows are not measured, they are the H100's with prompts 1.3 times as long, and are left out). Requests have
the lengths of the two Azure traces and arrive as a Poisson stream. The limits are the paper's: slow-downs over an
unloaded DGX-A100, TTFT 2/3/6, time between tokens and end to end 1.25/1.5/5 at p50/p90/p99. A design's load is the
largest rate that keeps all nine; the designs within a budget race (`search.sizes`).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, cpu_seconds, data_path, main, skipped
from fleetcast.base.rng import rng
from fleetcast.cost.step import GRID, StepCost
from fleetcast.scenario.load import load_serving
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import Plan, Pool
from fleetcast.scenario.workload.requests import Requests
from fleetcast.scenario.workload.requests import requests as columns
from fleetcast.scenario.workload.traces import read
from fleetcast.search.sizes import Sizes, Won, maximal, race
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.sim.serving.world import simulate

COMMAND = "python -m benchmarks.splitwise"
FILE = ("serving", "splitwise", "perf_model.csv")
MODELS = {"llama-2-70b": "llama2-70b", "bloom-176b": "bloom-176b"}
TRACES = ("azure-conv-2023", "azure-code-2023")
KINDS = {"a100": ("a100-80g-sxm", "a100-80gb"), "h100": ("h100-sxm", "h100-80gb")}
COST = {"a100": 17.6, "h100": 38.0}
"""$/h of a machine, as the paper's table has them (CoreWeave; recalled, not verified)."""
POWER = {"a100": 1.0, "h100": 1.75}
"""Of a machine's GPUs at their limits, 400 W and 700 W each, over the DGX-A100's."""
SIZE = 10
"""DGX-H100 of the baseline; other designs get as much power, or cost."""
SLOWDOWN = {"ttft": (2.0, 3.0, 6.0), "tpot": (1.25, 1.5, 5.0), "e2e": (1.25, 1.5, 5.0)}
QUANTILES = (50.0, 90.0, 99.0)
REQUESTS, QUICK = 3000, 800
TOLERANCE = 0.04
BATCH = {"kind": "orca", "max_batch": 256, "max_tokens": 2048}
"""Mixed batching without cuts, prompts together up to 2,048 tokens: beyond that the paper found no gain."""


Limits = Sequence[tuple[dict[str, float], float]]
"""What machines of each kind take of something, and how much of it there is."""


@dataclass(frozen=True)
class Design:
    """Machines by kind and role: (kind, role, count)."""

    name: str
    parts: tuple[tuple[str, str, int], ...]

    def total(self, each: dict[str, float]) -> float:
        """Returns the sum over machines of a quantity by kind."""
        return sum(each[kind] * count for kind, _, count in self.parts)


def measured_cost(path: Path, model: str, kind: str, cost: StepCost) -> StepCost:
    """Returns ``cost`` with the times of the published rows instead of our kernels' and no host.

    An iteration of T tokens with n decoding takes ``prompt(T)`` plus what n tokens take more than a prompt of n: a
    prompt alone and tokens alone are as measured, and a mixed iteration reads the weights once. Beyond the measured 64
    sequences token time is linear.
    """
    import pandas as pd

    rows = pd.read_csv(path)
    rows = rows[(rows.model == MODELS[model]) & (rows.hardware == KINDS[kind][1]) & (rows.tensor_parallel == 8)]
    prompts = rows[(rows.batch_size == 1) & (rows.token_size == 128)].groupby("prompt_size").prompt_time.median() / 1e3
    tokens = rows[(rows.prompt_size == 512) & (rows.token_size == 128)].groupby("batch_size").token_time.median() / 1e3

    def line(series: Any, at: np.ndarray) -> np.ndarray:
        x, y = series.index.to_numpy(float), np.maximum.accumulate(series.to_numpy())
        inside = np.interp(at, x, y)
        end = (y[-1] - y[-2]) / (x[-1] - x[-2])
        begin = (y[1] - y[0]) / (x[1] - x[0])
        return np.asarray(inside + np.maximum(at - x[-1], 0.0) * end - np.maximum(x[0] - at, 0.0) * begin)

    prompt = np.where(GRID > 0, line(prompts, GRID), 0.0)
    n = np.arange(len(cost.tables["floor"]), dtype=float)
    more = np.where(n > 0, line(tokens, n) - line(prompts, n), 0.0)
    zero = np.zeros_like(GRID)
    tables = {
        "dense": prompt,
        "experts": zero,
        "head": zero,
        "hop": zero,
        "floor": more,
        "base": more,
        "slope": 0.0 * n,
    }
    free = ("pre_base", "pre_pair", "pre_query", "pre_context", "host_step", "host_seq", "host_token", "eager")
    scalars = dict(cost.scalars) | dict.fromkeys(free, 0.0) | {"overlap": False, "lag": False}
    return replace(cost, tables=tables, scalars=scalars, api=0.0, api_token=0.0)


@cache
def resolved(model: str, trace: str) -> Setting:
    """Returns the scenario of a model on enough machines of both kinds, its servers timed by the rows."""
    groups = [{"name": k, "devices": f"{8 * 4 * SIZE}x {device}"} for k, (device, _) in KINDS.items()]
    state = setting(load_serving({
        "fleet": {"groups": groups, "network": "infiniband-hdr"}, "workload": {"model": model, "trace": trace},
        "plan": {"pools": [pool(k, "all", 1) for k in KINDS]},
    }))  # fmt: skip
    path = data_path(*FILE)
    assert path is not None
    for role in ("all", "prefill", "decode"):
        for kind in KINDS:
            made = Plan(
                pools=(Pool(**pool(kind, role, 1)), *((Pool(**pool(kind, "all", 1)),) if role != "all" else ()))
            )
            done = complete(state, made)
            server = state.server(done.pools[0])
            for key, known in list(state._servers.items()):
                if known is server:
                    timed = measured_cost(path, model, kind, server.cost)
                    state._servers[key] = replace(server, cost=timed)
    return state


def pool(kind: str, role: str, count: int) -> dict[str, Any]:
    """Returns the table of a pool of machines."""
    return {
        "role": role, "on": kind, "replicas": count, "tensor_parallel": 8, "pipeline_parallel": 1, "engine": "ideal",
        "dtype": "bf16", "kv_dtype": "bf16", "batch": BATCH,
    }  # fmt: skip


def stream(trace: str, rate: float, count: int) -> Requests:
    """Returns ``count`` requests of the trace's lengths, drawn with replacement, as a Poisson stream."""
    draw, found = rng(0, "splitwise", trace), read(trace)
    picked = draw.integers(0, len(found), count)
    arrival = np.cumsum(draw.exponential(1.0, count)) / rate
    return columns(arrival, found.prompt[picked], found.output[picked])


def outcome(model: str, trace: str, design: Design, rate: float, count: int) -> Outcome:
    """Returns what a design does under a rate."""
    base = resolved(model, trace)
    state = replace(base, requests=stream(trace, rate, count))
    return simulate(state, complete(state, Plan(pools=tuple(Pool(**pool(*part)) for part in design.parts))))


@cache
def unloaded(model: str, trace: str, count: int) -> dict[str, np.ndarray]:
    """Returns each request's times alone on a DGX-A100, s."""
    alone = Design("alone", (("a100", "all", 1),))
    return times(outcome(model, trace, alone, 1e-3, count))


def times(found: Outcome) -> dict[str, np.ndarray]:
    """Returns TTFT, time per output token and end-to-end time of each request, s."""
    served = found.requests
    assert served is not None
    tpot = (served.e2e - served.ttft) / np.maximum(served.output - 1, 1)
    return {"ttft": served.ttft, "tpot": tpot, "e2e": served.e2e}


def strain(model: str, trace: str, design: Design, rate: float, count: int) -> float:
    """Returns the largest slow-down over its limit; at most 1 = every limit is kept."""
    alone, now = unloaded(model, trace, count), times(outcome(model, trace, design, rate, count))
    worst = 0.0
    for metric, limits in SLOWDOWN.items():
        some = alone[metric] > 0
        slower = now[metric][some] / alone[metric][some]
        worst = max(worst, *(np.percentile(slower, q) / limit for q, limit in zip(QUANTILES, limits, strict=True)))
    return float(worst)


def bisect(met: Callable[[float], bool]) -> tuple[float, float]:
    """Returns the largest rate (requests/s) that keeps every limit, 0 = none, and the least above it that does not."""
    low, high = 0.0, 2.0
    while met(high):
        low, high = high, high * 2
    while high - low > TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (middle, high) if met(middle) else (low, middle)
    return low, high


def baseline(kind: str) -> Design:
    """Returns the machines of one kind, phases together, that draw what the baseline of DGX-H100 does."""
    return Design(f"baseline {kind}", ((kind, "all", int(SIZE * POWER["h100"] / POWER[kind] + 1e-9)),))


def splits(limits: Limits) -> list[Design]:
    """Returns every number of machines to prefill and to decode, of any kinds, that leaves no room for one more."""
    every = range(1, 100)
    found = []
    for prefill, decode in itertools.product(KINDS, KINDS):

        def split(sizes: Sizes, kinds: tuple[str, str] = (prefill, decode)) -> Design:
            first, rest = sizes
            parts = ((kinds[0], "prefill", first), (kinds[1], "decode", rest))
            return Design(f"split {kinds[0]}/{kinds[1]} {first}+{rest}", parts)

        def fits(sizes: Sizes, split: Callable[[Sizes], Design] = split) -> bool:
            return all(split(sizes).total(each) <= most * (1 + 1e-9) for each, most in limits)

        found += [split(sizes) for sizes in maximal((every, every), fits)[0]]
    # those that give each phase about half of the money first: an order, no choice
    return sorted(found, key=lambda d: abs(0.5 - COST[d.parts[0][0]] * d.parts[0][2] / d.total(COST)))


class Cluster:
    """What machines hold under the traffic of a model and a trace, each asked once."""

    def __init__(self, model: str, trace: str, count: int) -> None:
        """Stores which traffic, and how many requests of it."""
        self.model, self.trace, self.count = model, trace, count
        self.known: dict[tuple[Design, float], bool] = {}

    def holds(self, design: Design, rate: float) -> bool:
        """Whether a design keeps every limit."""
        if (design, rate) not in self.known:
            self.known[design, rate] = strain(self.model, self.trace, design, rate, self.count) <= 1.0
        return self.known[design, rate]

    def best(self, designs: Iterable[Design]) -> Won[Design]:
        """Returns the design that holds the largest rate."""
        return race(designs, self.holds, bisect)


def records(quick: bool) -> list[Record]:
    """Returns the records of both claims."""
    claims = (
        ("throughput of a split cluster at 80 % of the baseline's cost, same limits", 1.4),
        ("throughput of a split cluster at the baseline's cost and power, same limits", 2.35),
    )
    bar = "at least the baseline's (1 x) somewhere, our ratios for every model and trace"
    if data_path(*FILE) is None:
        return [skipped(system=27, claim=c, bar=bar, why="the published rows are absent") for c, _ in claims]
    pairs = [(m, t) for m in MODELS for t in TRACES][: 1 if quick else None]
    clusters = [Cluster(m, t, QUICK if quick else REQUESTS) for m, t in pairs]
    out = []
    for (claim, paper), share, both in zip(claims, (0.8, 1.0), (False, True), strict=True):
        start, told, ratios = cpu_seconds(), [], []
        for c in clusters:
            for kind in KINDS if both else ("h100",):  # ten DGX-H100 cost more than the A100s of their power
                base = baseline(kind)
                limits = [(COST, share * base.total(COST))] + ([(POWER, base.total(POWER))] if both else [])
                won = c.best(splits(limits))
                ratio = won.held / c.best([base]).held
                ratios.append(ratio)
                name = won.design.name if won.design else "none holds any load"
                told.append(f"{c.model} {c.trace.split('-')[1]} over {base.parts[0][2]} {kind}: {ratio:.2f}x ({name})")
        value = max(ratios)
        out.append(
            Record(
                system=27, claim=claim, paper=Paper(value=paper, unit="x", setting="abstract, v2"),
                ours=Ours(
                    value=value, unit="x", spread=f"{min(ratios):.2f} to {value:.2f} over models, traces, baselines",
                    setting="; ".join(["every number of machines", *told]),
                ),
                null=Null(value=1.0, what="the cluster of one kind with mixed batching"), bar=bar, holds=value >= 1.0,
                reproduced="yes" if value >= 0.95 * paper else "no",
                reason="" if value >= 0.95 * paper else REASON, skipped=None, seconds=cpu_seconds() - start,
                command=COMMAND + (" --quick" if quick else ""),
            )
        )  # fmt: skip
    return out


REASON = (
    "machines by their published rows and the paper's limits on slow-downs, but smaller clusters and costs of machines "
    "that are recalled, not verified"
)


if __name__ == "__main__":
    sys.exit(main(records))
