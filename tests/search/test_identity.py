"""A pruned search gives what simulating every plan gives, and its bounds are bounds."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.scenario.load import load
from fleetcast.scenario.objective import lookup
from fleetcast.scenario.workload.requests import requests
from fleetcast.search.bounds import floor_of, horizon_of, seen
from fleetcast.search.candidates import bound, fit_all
from fleetcast.search.pace import Traffic, pace
from fleetcast.search.parallelism import search
from fleetcast.search.ranking import Ranking
from fleetcast.search.space import spaces
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.sim.serving.world import simulate

PATHS = [f"{m}.{s}" for m in ("ttft", "tpot", "e2e") for s in ("mean", "p50", "p90", "p99")]
PRICES = str(Path(__file__).with_name("prices.csv"))
CHUNKED = {"kind": "chunked", "chunk": [64, 512, 2048], "max_batch": [2, 16, 64]}
CASES: dict[str, dict[str, Any]] = {
    "one node": {"devices": "4x l40s", "model": "llama-3.1-8b", "plan": {"batch": CHUNKED}},
    "tight memory": {"devices": "2x l4", "model": "llama-3.1-8b", "plan": {"batch": CHUNKED}},
    "old engine": {
        "devices": "2x a100-80g-sxm", "model": "llama-2-13b",
        "plan": {
            "engine": "vllm-0.6",
            "batch": [
                {"kind": "prefill_first", "max_batch": [2, 64], "max_tokens": [256, 4096]},
                {"kind": "orca", "max_batch": [4, 64]}, {"kind": "static", "max_batch": [4, 64]},
            ],
        },
    },
    "experts": {
        "devices": "4x h100-sxm", "model": "mixtral-8x7b",
        "plan": {"batch": {"kind": "chunked", "chunk": [64, 2048], "max_batch": [16, 64]}, "replicas": 1},
    },
    "experts of a skewed router, placed either way": {
        "devices": "4x h100-sxm", "model": "mixtral-8x7b", "load": {"zipf": 1.2},
        "plan": {
            "batch": {"kind": "chunked", "chunk": [64, 2048], "max_batch": [16, 64]}, "replicas": 1,
            "expert_parallel": [1, 4], "expert_placement": ["contiguous", "balanced"],
        },
    },
    "two groups": {
        "devices": "2x l40s + 2x a100-80g-sxm", "model": "llama-3.1-8b",
        "plan": {"batch": {"kind": "chunked", "chunk": [512], "max_batch": [16, 64, 256]}},
    },
    "phases split or together": {
        "devices": "3x l40s", "model": "llama-3.1-8b",
        "plan": {"batch": {"kind": "chunked", "chunk": [512], "max_batch": [4, 64]}, "phases": ["together", "split"]},
    },
    "mixed pool that spills": {
        "devices": "3x l40s", "model": "llama-3.1-8b",
        "plan": {
            "pools": [
                {"role": role, "replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1,
                 "batch": {"kind": "chunked", "chunk": [64, 512], "max_batch": [8, 64]}}
                for role in ("prefill", "decode", "all")
            ],
            "route": {"kind": "split_phases", "spill": 500},
        },
    },
    "conversations and prefix caches": {
        "devices": "2x l40s", "model": "llama-3.1-8b", "shares": True,
        "plan": {
            "batch": {"kind": "chunked", "chunk": [64, 2048], "max_batch": [2, 64]},
            "prefix_cache": ["off", {"kind": ["lru", "lfu"]}, {"kind": "lru", "cpu": "2 GB"}, "belady"],
        },
    },
    "prefix caches and phases": {
        "devices": "3x l40s", "model": "llama-3.1-8b", "shares": True,
        "plan": {
            "batch": {"kind": "chunked", "chunk": [512], "max_batch": [4, 64]}, "phases": ["together", "split"],
            "prefix_cache": ["off", "lru"],
        },
    },
    "swap, shortest first, windows": {
        "devices": "2x l4", "model": "gpt-oss-20b",
        "plan": {"batch": CHUNKED, "order": {"kind": "shortest_prompt"}, "memory": {"kind": "swap"}},
    },
    "drafts": {
        "devices": "2x l40s", "model": "llama-3.1-8b",
        "plan": {
            "batch": {"kind": "chunked", "chunk": [64, 2048], "max_batch": [2, 64]},
            "speculate": [
                "off", {"kind": "fixed", "model": "llama-3.2-1b", "length": [1, 5], "acceptance": [0.8, 0.6]},
                {"kind": "minions", "model": "llama-3.2-1b", "drafters": 2},
                {"kind": "fixed", "model": "llama-3.2-1b", "pipelined": True},
            ],
        },
    },
    "a draft pool anywhere": {
        "devices": "3x l40s + 2x l4", "model": "llama-3.1-8b",
        "plan": {
            "pools": [
                {"on": "l40s", "replicas": [1, 2], "tensor_parallel": [1, 2], "pipeline_parallel": 1,
                 "batch": {"kind": "chunked", "chunk": [64, 2048], "max_batch": [2, 64]},
                 "speculate": ["off", {"kind": "fixed", "length": [2, 5], "acceptance": [0.8, 0.6]},
                               {"kind": "minions", "drafters": 2}, {"kind": "fixed", "pipelined": False}]},
                {"role": "draft", "model": "llama-3.2-1b", "dtype": ["bf16", "int4"], "clock": [0.7, 1.0]},
            ],
        },
    },
    "drafts from the context, windows, swap": {
        "devices": "2x l4", "model": "gpt-oss-20b",
        "plan": {
            "batch": {"kind": "chunked", "chunk": [64, 2048], "max_batch": [2, 64]}, "memory": {"kind": "swap"},
            "speculate": ["off", {"kind": "ngram", "length": 6, "acceptance": 0.5, "lookups": 0.4}],
        },
    },
    "spot that fails beside on demand": {
        "groups": [
            {"name": "kept", "devices": "2x l40s"},
            {"name": "spot", "devices": "2x l40s", "price": "0.40 $/h",
             "failures": {"mtbf": "1 min", "repair": "10 s", "per": "device", "billed": False}},
        ],
        "model": "llama-3.1-8b", "plan": {"batch": {"kind": "chunked", "chunk": [64, 512], "max_batch": [2, 16, 64]}},
    },
    "servers that fail at prices that change": {
        "groups": [
            {"name": "old", "devices": "2x a100-80g-sxm", "price": PRICES,
             "failures": {"mtbf": "2 min", "repair": "1 min"}},
            {"name": "new", "devices": "1x h100-sxm", "failures": {"mtbf": "1 min", "repair": "5 s", "billed": False}},
        ],
        "model": "llama-3.1-8b", "plan": {"batch": CHUNKED, "route": {"kind": "round_robin"}},
    },
}  # fmt: skip


def made(case: str, traffic: Any, slo: dict[str, float] | None = None, goal: dict[str, Any] | None = None) -> Setting:
    c = CASES[case]
    unpriced = "l4" in c.get("devices", "").split()
    fleet = {"groups": c["groups"]} if "groups" in c else {"devices": c["devices"]}
    table = {
        "fleet": fleet | ({"price": {"l4": "0.7 $/h"}} if unpriced else {}),
        "workload": {
            "model": c["model"], "arrivals": {"kind": "poisson", "rate": "1 /s", "requests": 2},
            "lengths": {"kind": "fixed", "prompt": 8, "output": 8},
        } | ({"expert_load": c["load"]} if "load" in c else {}),
        "slo": slo or {}, "objective": goal or {"minimize": "cost"}, "plan": c["plan"],
    }  # fmt: skip
    return replace(setting(load(table)), requests=continued(traffic) if c.get("shares") else traffic)


def continued(traffic: Any) -> Any:
    """The same requests, most of which continue a random earlier one."""
    draw, n = np.random.default_rng(len(traffic)), len(traffic)
    parent = np.where(draw.random(n) < 0.8, (draw.random(n) * np.arange(n)).astype(int) - 1, -1)
    prefix = np.where(draw.random(n) < 0.5, traffic.prompt, (traffic.prompt * draw.random(n)).astype(int))
    return replace(traffic, parent=parent, prefix=prefix)


@st.composite
def traffics(draw: st.DrawFn, closed: bool = True) -> Any:
    seed, n = draw(st.integers(0, 10**6)), draw(st.integers(1, 60))
    rate = draw(st.sampled_from([0.5, 5.0, 50.0, 1000.0]))
    rng = np.random.default_rng(seed)
    prompt = np.minimum(rng.lognormal(5.5, 1.5, n).astype(int) + 1, 6000)
    output = np.minimum(rng.lognormal(3.0, 1.2, n).astype(int) + 1, 800)
    users = draw(st.sampled_from([0, 0, 0, 1, 7])) if closed else 0
    arrival = None if users else np.cumsum(rng.exponential(1 / rate, n))
    return requests(arrival, prompt, output, concurrency=users)


def scrambled(state: Setting, seed: int) -> Setting:
    """The same servers with costs of no order at all: a bound that leans on smooth tables would break."""
    fit_all(state, spaces(state))
    for key, server in list(state._servers.items()):
        x = server.layout  # plans that differ in their batch alone share their kernels' times
        rng = np.random.default_rng([seed, x.tensor_parallel, x.pipeline_parallel, x.expert_parallel, x.attention_dp])
        noise = {k: t * rng.choice([0.1, 1.0, 1.0, 5.0], 4096)[: len(t)] for k, t in server.cost.tables.items()}
        scalars = dict(server.cost.scalars) | {
            "overlap": bool(rng.integers(2)), "graph_prefill": bool(rng.integers(2)), "eager": rng.choice([0.0, 0.05]),
            "host_step": rng.choice([0.0, 1e-3, 0.05]), "host_token": rng.choice([0.0, 1e-4]),
            "pre_pair": server.cost.scalars["pre_pair"] * rng.choice([0.0, 1.0, 100.0]),
        }  # fmt: skip
        cost = replace(server.cost, tables=noise, scalars=scalars, api=float(rng.choice([0.0, 0.2])))
        state._servers[key] = replace(server, cost=cost)
    return state


def rows(outcomes: Any) -> list[Any]:
    return [(o.plan, o.metrics) for o in outcomes]


def named(row: Any) -> tuple[Any, ...]:
    """A layout that was missed, by name and devices; clocks are variants of one, and the nearest gives the name."""
    return (re.sub(r" at \d+% clock", "", row["layout"]), *row["on"].items())


def bounded(quick: Ranking, full: Ranking) -> None:
    """What is said to miss the SLO misses it, by what is said or more; a layout that was beaten may be left out."""
    truth = {named(row): row for row in full.missed}
    for row in quick.missed:
        exact = truth.pop(named(row))
        ratios = row["value"] / row["limit"], exact["value"] / exact["limit"]
        assert 1 < ratios[0] <= ratios[1] * (1 + 1e-9) and not exact["at_least"]
        assert row["at_least"] or ratios[0] == ratios[1]
        assert exact["every_layout"] or not row["every_layout"]
    assert quick.plans or not truth


def leading(plans: Any, top: int | None) -> list[Any]:
    """The plans up to the first of the ``top``-th layout: what differs in its batch policies alone is one layout."""
    seen: list[Any] = []
    for i, outcome in enumerate(plans):
        pools = outcome.plan.get("pools", [outcome.plan])
        layout = [{k: v for k, v in pool.items() if k != "batch"} for pool in pools]
        if layout not in seen:
            seen.append(layout)
            if len(seen) == top:
                return list(plans[: i + 1])
    return list(plans)


def agree(quick: Ranking, full: Ranking, top: int | None) -> None:
    assert rows(quick.plans) == rows(leading(full.plans, top))
    assert rows(quick.frontier) == rows(full.frontier)
    assert rows(quick.misses) == rows(full.misses)
    assert quick.rejected == full.rejected
    bounded(quick, full)
    for counts in (quick.counts, full.counts):
        settled = counts["bounded"] + counts["deduplicated"] + counts["simulated"]
        assert settled == counts["memory_feasible"] <= counts["enumerated"]
    assert full.counts["simulated"] == full.counts["memory_feasible"]


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=5)
@given(data=st.data())
def test_pruned_equals_exhaustive(case: str, data: st.DataObject) -> None:
    traffic = data.draw(traffics("groups" not in CASES[case]))
    goal = data.draw(st.sampled_from([
        {"minimize": "cost"}, {"minimize": "latency"}, {"minimize": "energy"}, {"maximize": "goodput"},
        {"minimize": ["cost", "carbon"], "maximize": "throughput"},
    ]))  # fmt: skip
    every = search(made(case, traffic, goal=goal), exhaustive=True, top=None)
    assert every.plans, every.rejected
    some = data.draw(st.sampled_from(every.plans))
    slo = {}
    for path in data.draw(st.lists(st.sampled_from(PATHS), max_size=3, unique=True)):
        slo[path.replace(".", "_")] = max(
            lookup(some.metrics, path) * data.draw(st.sampled_from([0.2, 0.9, 1.0, 1.1])), 1e-9
        )
    state = made(case, traffic, slo, goal)
    top = data.draw(st.sampled_from([1, 3, None]))
    full = search(state, exhaustive=True, top=None)
    agree(search(state, top=top, parts=(0.25, 0.5), shortest=4), full, top)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=4)
@given(data=st.data())
def test_bounds_hold(case: str, data: st.DataObject) -> None:
    traffic = data.draw(traffics("groups" not in CASES[case]))
    state = made(case, traffic, {"ttft_p90": 0.5, "tpot_p90": 0.03})
    if data.draw(st.booleans()):
        state = scrambled(state, data.draw(st.integers(0, 10**6)))
    fitted = fit_all(state, spaces(state))
    picked = data.draw(st.sets(st.sampled_from(range(len(fitted.candidates))), min_size=1, max_size=6))
    for c in (fitted.candidates[i] for i in picked):
        outcome = simulate(state, c.plan)
        k = data.draw(st.integers(1, len(traffic)))
        floors = [c.floor]
        offline = any(s.caching is not None and s.caching.policy.offline for s in c.servers)
        if k < len(traffic) and not offline:  # who knows what comes does otherwise where it does not come
            part = simulate(replace(state, requests=state.requests.slice(0, k)), c.plan)
            servers = [s for s, p in zip(c.servers, c.plan.serving, strict=True) for _ in range(p.replicas)]
            api = np.array([s.cost.api for s in servers])[part.requests.began]
            api = api + np.array([s.cost.api_token for s in servers])[part.requests.began] * traffic.prompt[:k]
            floors.append(seen(c.floor, part, horizon_of(traffic, part, k, api), api))
        served = outcome.requests
        for floor in floors:
            assert (floor.ttft <= served.ttft).all()
            assert (floor.gap <= (served.e2e - served.ttft) * (1 + 1e-12) + 1e-15).all()
            for path in (*PATHS, "tpot.mean_per_request"):
                value = lookup(outcome.metrics, path)
                assert floor.metric(path) <= value * (1 + 1e-9) + 1e-15, path
                assert not floor.exceeds(path, value)
            for path, sign in (
                ("cost", 1),
                ("energy", 1),
                ("carbon", 1),
                ("e2e.mean", 1),
                ("throughput", -1),
                ("goodput", -1),
            ):
                value = sign * lookup(outcome.metrics, path)
                assert bound(state, c, path, sign, floor) <= value + 1e-9 * abs(value), path


@settings(max_examples=30)
@given(traffic=traffics(), q=st.sampled_from([50.0, 90.0, 99.0]), factor=st.floats(0.2, 5.0))
def test_counting_says_what_percentiles_say(traffic: Any, q: float, factor: float) -> None:
    state = made("one node", traffic)
    c = fit_all(state, spaces(state)).candidates[0]
    floor = floor_of([(1, pace(c.servers[0], Traffic(traffic)), "all")], Traffic(traffic))
    for name in ("ttft", "tpot", "e2e"):
        path = f"{name}.p{q:.0f}"
        limit = floor.metric(path) * factor
        if floor.exceeds(path, limit):
            assert floor.metric(path) > limit
