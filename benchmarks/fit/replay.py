"""Replays a measured row in the simulator: one replica under its closed loop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.fit.silicon import RANDOM as SHORTEST
from benchmarks.fit.silicon import Row
from fleetcast.base.errors import Infeasible
from fleetcast.cost.engine import Host
from fleetcast.cost.layers import launches
from fleetcast.scenario.fleet.tree import Tree, resolve
from fleetcast.scenario.load import load_serving
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.requests import requests
from fleetcast.sim.serving import kernel
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Server, Setting
from fleetcast.sim.serving.world import simulate

WAVES = 10
"""Requests per user, as the published scripts send."""
FASTEST = 0.72
"""Share of the peak that the fastest measured 8-bit product reaches (`cost/coefficients`): no server beats it."""


@dataclass
class Case:
    """A row with its server resolved; ``why`` says why there is none."""

    row: Row
    setting: Setting | None
    server: Server | None
    why: str = ""

    def outcome(self) -> Outcome:
        """Returns the simulated outcome of the row's plan."""
        assert self.setting is not None
        return simulate(self.setting, self.setting.scenario.plan)

    def means(self, served: Any) -> tuple[float, float]:
        """Returns mean TTFT and mean per-request TPOT (s) over all requests."""
        tpot = (served.e2e - served.ttft) / np.maximum(served.output - 1, 1)
        return float(served.ttft.mean()), float(tpot.mean())

    def run(self, host: Host | None = None, **scalars: Any) -> tuple[float, float]:
        """Returns (TTFT, TPOT) with other host constants, without building an outcome: what a fit calls."""
        assert self.setting is not None and self.server is not None
        cost, q = self.server.cost, self.setting.requests
        changed, tables = dict(cost.scalars) | scalars, dict(cost.tables)
        api, api_token = cost.api, cost.api_token
        if host is not None:
            kernels = launches(self.server.model) / self.server.layout.pipeline_parallel
            changed |= {
                "host_step": host.step,
                "host_seq": host.seq,
                "host_token": host.token,
                "eager": host.eager * kernels,
            }
            api, api_token = host.api, host.api_token
            now = self.server.engine.host_on(self.row.device)
            work = (cost.parts["gemm"] + cost.parts["memory-bound"]) * (host.kernels / now.kernels - 1.0)
            tables["dense"] = np.maximum(tables["dense"] + work, 0.0)
            tables["experts"] = tables["experts"] + cost.parts["experts"] * (host.kernels / now.kernels - 1.0)
            tables["head"] = np.where(tables["head"] > 0, tables["head"] + host.gap - now.gap, 0.0)
        shared = kernel.Requests(q.arrival.copy(), q.prompt, q.output)
        replica = kernel.Replica(kernel.Costs(tables, changed), shared, tuple(self.server.batch.rule()))
        sent = kernel.column("i", np.zeros(len(q), dtype=np.int32))
        kernel.drive_closed(
            [replica],
            kernel.column("d", np.ones(1)),
            sent,
            q.concurrency,
            False,
            kernel.column("d", api + api_token * q.prompt),
        )
        arrival, first, finish = (np.array(c) for c in shared.times())
        ttft = first - arrival + api + api_token * q.prompt
        tpot = (finish - first) / np.maximum(q.output - 1, 1)
        return float(ttft.mean()), float(tpot.mean())


@lru_cache(maxsize=64)
def _tree(device: str, count: int) -> Tree:
    return resolve(load_serving({"fleet": {"devices": f"{count}x {device}"}, "workload": {"model": "opt-13b"}}).fleet)


def case(row: Row, waves: int = WAVES) -> Case:
    """Returns a row ready to run, or the reason why it is not."""
    if row.unusable:
        return Case(row, None, None, row.unusable)
    count = row.users * waves
    prompt, output = row.lengths(count)
    plan: dict[str, Any] = {
        "replicas": 1, "tensor_parallel": row.tp, "pipeline_parallel": 1, "expert_parallel": row.ep,
        "attention_dp": row.dp, "engine": row.engine, "kv_dtype": row.kv_dtype,
    }  # fmt: skip
    if row.dtype:
        plan["dtype"] = row.dtype
    if row.batch:
        plan["batch"] = row.batch
    scenario = load_serving({
        "fleet": {"devices": f"{row.devices}x {row.device}"}, "workload": {"model": row.model}, "plan": plan,
        "name": f"row {row.index}",
    })  # fmt: skip
    load_ = requests(None, prompt, output, concurrency=row.users, name=f"row {row.index}")
    setting = Setting(scenario, _tree(row.device, row.devices), catalog.model(row.model), load_)
    try:
        done = complete(setting, scenario.plan)
    except Infeasible as reason:
        return Case(row, None, None, f"the memory model refuses it: {reason}")
    setting.scenario = scenario.with_plan(done)
    server = setting.server(done.pools[0])
    if (share := peak_share(row, server)) > FASTEST:
        return Case(row, None, None, f"load contradicts itself: it takes {share:.0%} of the devices' peak FLOP/s")
    return Case(row, setting, server)


def peak_share(row: Row, server: Server) -> float:
    """Returns the share of the peak FLOP/s that the stated users would keep busy at the measured times, end to end."""
    work, size = server.cost.work, (1.0 + SHORTEST) / 2 if row.random else 1.0
    prompt, output = row.prompt * size, row.output * size
    rate = row.users / (row.ttft + row.tpot * (output - 1)) / row.dp
    pairs = prompt * prompt / 2 + output * (prompt + output / 2)
    flops = (prompt + output) * work["flops_token"] + output * work["flops_head"] + pairs * work["flops_pair"]
    return float(rate * flops / work["peak"])
