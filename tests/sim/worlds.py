"""Small worlds for tests: made-up costs of every shape, so that each branch of the loop is met."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from fleetcast.cost.step import GRID, StepCost
from fleetcast.policy import batch, memory
from fleetcast.policy.order import requests as order
from fleetcast.scenario.workload.prefixes import prefix_tree
from fleetcast.scenario.workload.requests import Requests, requests
from fleetcast.sim.serving.prefixes import Caching, PrefixCache


def step_cost(**changes: Any) -> StepCost:
    """Returns plausible costs of a replica; ``changes`` replace scalars."""
    n = np.arange(2049, dtype=np.float64)
    dense = np.where(GRID > 0, 0.012 + 2e-5 * GRID, 0.0)
    tables = {
        "dense": dense, "experts": np.where(GRID > 0, changes.pop("experts", 0.0) * (1 + 1e-4 * GRID), 0.0),
        "head": np.where(GRID > 0, 1e-4 + 1e-7 * GRID, 0.0), "hop": np.where(GRID > 0, 1e-5 + 1e-8 * GRID, 0.0),
        "floor": np.where(n > 0, changes.pop("floor", 1e-4), 0.0), "base": np.where(n > 0, 1e-4 + 1e-7 * n, 0.0),
        "slope": np.where(n > 0, 8e-9, 0.0),
    }  # fmt: skip
    if "cut" in changes:  # attention of iterations cut into nano-batches: dearer to start, cheaper per token
        tables |= {"cut_floor": 3 * tables["floor"], "cut_base": 3 * tables["base"], "cut_slope": 0.4 * tables["slope"]}
    scalars: dict[str, Any] = {
        "full_share": 1.0, "window_share": 0.0, "window": 0, "pre_base": 1e-5, "pre_pair": 1e-9,
        "pre_query": 2e-8, "pre_context": 1e-8,
        "host_step": 1e-3, "host_seq": 1e-5, "host_token": 1e-8, "overlap": False, "eager": 0.02,
        "graph_tokens": 512, "graph_prefill": False, "stages": 1, "stage_share": 1.0, "ranks": 1,
        "capacity": 6000, "block": 16, "cut": 1 << 60, "watermark": 0, "swap_block": 1e-4, "lag": False,
        "unit": 1, "growth": 1, "width": 1, "ahead": 0,
        "layer_share": 1 / 32,
    }  # fmt: skip
    api = changes.pop("api", 0.0)
    scalars |= changes
    zero = np.zeros_like(GRID)
    parts = {
        "gemm": dense, "memory-bound": zero, "communication": zero, "experts": tables["experts"],
        "dense_communication": zero,
    }  # fmt: skip
    work = {
        "weight_bytes": 1e9 + zero, "head_bytes": 1e8, "flops_token": 2e9, "flops_head": 1e8, "kv_bytes": 1e4,
    }  # fmt: skip
    return StepCost(
        tables=tables, scalars=scalars, parts=parts, work=work, api=api, api_token=0.0,
        devices=int(scalars["stages"] * scalars["ranks"]), spread=0.1,
    )  # fmt: skip


@dataclass
class World:
    """Requests, replicas and policies, enough of a Setting for the loops."""

    requests: Requests
    servers: list[Any]
    scenario: Any = None
    spill: float = 0.0
    layerwise: bool = True
    caching: Caching | None = None

    def __post_init__(self) -> None:
        self.scenario = SimpleNamespace(seed=7)
        link = SimpleNamespace(bandwidth=2e8, latency=1e-3)
        self.tree = SimpleNamespace(link_between=lambda a, b: link)

    def caches(self, server: Any) -> list[PrefixCache]:
        """Returns a prefix cache per lane, where the world has them and the pool prefills."""
        if self.caching is None or server.pool.role == "decode":
            return []
        scalars = server.cost.scalars
        tree = prefix_tree(self.requests, scalars["block"])
        lanes = range(scalars["stages"] * scalars["ranks"])
        return [PrefixCache(tree, self.caching.tiers, self.caching.policy) for _ in lanes]


def world(
    seed: int, count: int, rate: float, policy: Any, *, cost: StepCost | None = None, replicas: int = 1,
    ranking: Any = None, eviction: Any = None, users: int = 0, prompt: int = 1500, output: int = 320,
    roles: tuple[str, ...] = (), speculation: Any = None, caching: Caching | None = None,
) -> World:  # fmt: skip
    """Returns a world of random requests; with ``caching`` most of them share a prefix with one before."""
    draw = np.random.default_rng(seed)
    arrival = np.cumsum(draw.exponential(1 / rate, count))
    prompts, outputs = draw.integers(1, prompt, count), draw.integers(1, output, count)
    found = requests(arrival, prompts, outputs)
    if caching is not None:
        parent = np.where(draw.random(count) < 0.8, (draw.random(count) * np.arange(count)).astype(np.int64), -1)
        shared = np.where(draw.random(count) < 0.3, prompts, (prompts * draw.random(count)).astype(np.int64))
        found = requests(arrival, prompts, outputs, parent=parent, prefix=shared)
    if users:
        from dataclasses import replace

        found = replace(found, arrival=np.zeros(count), concurrency=users)
    model = SimpleNamespace(layers=8, kv_bytes_per_token=lambda element, tp: 1e4 * element)
    servers = [
        SimpleNamespace(
            cost=cost, batch=policy, order=ranking or order.Fifo(), memory=eviction or memory.Recompute(),
            pool=SimpleNamespace(role=role), group=None, model=model, kv_dtype="bf16",
            speculation=speculation,
        )
        for cost in (cost or step_cost(),) for role in roles or ("all",) * replicas
    ]  # fmt: skip
    return World(found, servers, caching=caching)


def policies() -> dict[str, Any]:
    """Returns one batch policy of every kind, small enough to bind."""
    return {
        "chunked": batch.Chunked(chunk=256, max_batch=32),
        "orca": batch.Orca(max_batch=16, max_tokens=4096),
        "prefill_first": batch.PrefillFirst(max_batch=32, max_tokens=2048),
        "static": batch.Static(max_batch=8, max_tokens=8192),
    }
