"""What is wrong or doubtful about a scenario, said before anything is simulated.

A check is a function ``check_*(state) -> Iterator[Remark]``; `CHECKS` lists them. Add one: write it, list it, test it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fleetcast.base.errors import FleetcastError, Infeasible, SpecError, Unsupported
from fleetcast.base.show import show
from fleetcast.scenario.plan import as_tuple
from fleetcast.scenario.workload.precision import as_engine
from fleetcast.search.candidates import refusal
from fleetcast.search.space import spaces
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Setting
from fleetcast.sim.training.setting import Setting as TrainingSetting
from fleetcast.view import words


@dataclass(frozen=True)
class Remark:
    """One thing found. ``level``: "error" (it cannot run) or "warning"; ``next`` is what to do about it."""

    level: Literal["error", "warning"]
    path: str
    text: str
    next: str = ""

    def table(self) -> dict[str, str]:
        """Returns it ready for JSON."""
        return {"level": self.level, "path": self.path, "text": self.text, "next": self.next}


def remarks(state: Setting) -> list[Remark]:
    """Returns what every check finds, errors first."""
    found = [remark for check in CHECKS for remark in check(state)]
    return sorted(found, key=lambda r: r.level != "error")


def check_plan(state: Setting) -> Iterator[Remark]:
    """The plan, where it is decided, is complete and fits; where it is open, some plan of its space fits."""
    try:
        try:
            complete(state, state.scenario.plan)
        except SpecError:  # something is open, or wrong: the search reads it, too, and takes lists
            yield from _open(state)
    except (SpecError, Infeasible, Unsupported) as error:
        yield Remark("error", getattr(error, "path", "plan"), str(error))
    except FleetcastError as error:
        yield Remark("error", "plan", str(error))


def _open(state: Setting) -> Iterator[Remark]:
    """What `plan` says before it simulates anything."""
    found = [refusal(state, space) for space in spaces(state)]
    if None not in found:
        family, why = next(f for f in found if f is not None)
        row = {"need": why.need, "have": why.have, "unit": why.unit}
        yield Remark(
            "error", "plan", f"nothing fits; nearest is {family}: {why.constraint}, {words.need(row)}",
            why.hint if why.unit in ("W", "$/h") else "Add devices, or leave more of the plan open",
        )  # fmt: skip


def check_grid(state: Setting | TrainingSetting) -> Iterator[Remark]:
    """The fleet's grid is known, and its file can be read."""
    try:
        assert state.grid.values
    except SpecError as error:
        yield Remark("error", error.path, str(error))


def check_weights(state: Setting) -> Iterator[Remark]:
    """The model's weights fit into the memory of some group of the fleet."""
    pools = state.scenario.plan.serving
    dtypes = {d for pool in pools for d in as_tuple(pool.dtype)} or {"auto"}
    try:
        need = min(state.model.weight_bytes(dtype=d) for d in dtypes)
    except FleetcastError as error:
        yield Remark("error", "plan.dtype", str(error))
        return
    have = max(g.count * g.device.memory for g in state.tree.groups)
    if need >= have:
        yield Remark(
            "error", "fleet", f"{state.model.id} weighs {show(need, 'B')}, the largest group holds {show(have, 'B')}",
            "Add devices, or let plan.dtype list narrower weights",
        )  # fmt: skip


def check_context(state: Setting) -> Iterator[Remark]:
    """Requests stay within the positions that the model was trained for."""
    limit = state.model.context
    length = state.requests.prompt + state.requests.output
    over = int((length > limit).sum()) if limit else 0
    if over:
        yield Remark(
            "warning", "workload.model",
            f"{over} of {len(length)} requests exceed the model's {limit:,} positions (longest {int(length.max()):,})",
            "An engine would refuse them; choose a model with a longer context",
        )  # fmt: skip


def check_traffic(state: Setting) -> Iterator[Remark]:
    """There is enough traffic for the percentiles that are asked for."""
    tails = [k for k in state.scenario.slo.limits() if k.endswith("p99")]
    count = len(state.requests)
    if tails and count < 100:
        yield Remark(
            "warning", "workload", f"{count} requests: a p99 of so few is the slowest one", "Use a longer trace"
        )
    asked = [v for pool in state.scenario.plan.pools for v in as_tuple(pool.prefix_cache) if v != "off"]
    if asked and state.requests.parent is None:
        yield Remark(
            "warning", "plan.prefix_cache", "finds nothing: the traffic does not say what its prompts share",
            "Give the trace session and prefix_tokens, or hash_ids, or write workload.sessions",
        )  # fmt: skip
    if not state.requests.timed and not state.requests.concurrency:
        yield Remark(
            "warning", "workload.trace", "the trace has no arrival times: all requests arrive at once",
            "Give workload.arrivals",
        )  # fmt: skip


def check_load(state: Setting) -> Iterator[Remark]:
    """The traffic's arithmetic does not exceed what the whole fleet could do at its peak."""
    span = state.requests.duration
    if span <= 0:
        return
    tokens = float(np.sum(state.requests.prompt) + np.sum(state.requests.output))
    flops = 2.0 * state.model.active_params() * tokens
    peak = sum(g.count * max(g.device.peak.values()) for g in state.tree.groups)
    if flops > peak * span:
        yield Remark(
            "warning", "workload",
            f"the traffic needs {show(flops / span, 'FLOP/s')}, the fleet's peak is {show(peak, 'FLOP/s')}: "
            "queues will grow",
            "Lower workload.speed_up or the rate, or add devices",
        )  # fmt: skip


def check_slo(state: Setting) -> Iterator[Remark]:
    """A limit is set, and none lies below what the memory's bandwidth allows."""
    limits = state.scenario.slo.limits()
    if not limits:
        yield Remark("warning", "slo", "no limit is set: the cheapest plan may be a very slow one", "Add e.g. ttft_p99")
    per_token = [v for k, v in limits.items() if k.startswith("tpot")]
    if not per_token:
        return
    dtypes = {d for pool in state.scenario.plan.serving for d in as_tuple(pool.dtype)} or {"auto"}
    model = state.model
    try:
        bytes_ = min(as_engine(d, model.precision).bytes_per_weight("ffn") * model.active_params() for d in dtypes)
    except FleetcastError:
        return  # check_weights says it
    bandwidth = max(g.count * g.device.bandwidth for g in state.tree.groups)
    if bytes_ / bandwidth > min(per_token):
        yield Remark(
            "error", "slo.tpot",
            f"reading the active weights once takes {show(bytes_ / bandwidth, 's')} on the whole fleet, "
            f"the limit is {show(min(per_token), 's')}",
            "Raise the limit, or use narrower weights",
        )  # fmt: skip


def check_goal(state: Setting) -> Iterator[Remark]:
    """What is minimised is known: prices for cost, the grid for carbon."""
    goals = {goal for goal, _, _ in state.scenario.objective.goals()}
    unpriced = sorted({g.device.id for g in state.tree.groups if g.price is None})
    owned = state.scenario.workload.exits is not None and len(unpriced) < len({g.device.id for g in state.tree.groups})
    if "cost" in goals and unpriced and not owned:  # a tier without a price is the user's own
        yield Remark(
            "error", "fleet.price", f"{', '.join(unpriced)} has no rental price, and cost is to be minimised",
            f'Set fleet.price = {{ "{unpriced[0]}" = "1.00 $/h" }}, or minimise energy',
        )  # fmt: skip
    if "carbon" in goals and state.scenario.fleet.grid == "world":
        yield Remark(
            "warning", "fleet.grid", "carbon is to be minimised on the world's mean grid",
            'Set fleet.grid, e.g. "PJM" or "400 g/kWh"',
        )  # fmt: skip


def check_dtypes(state: Setting) -> Iterator[Remark]:
    """Devices multiply the dtypes that the plan asks for."""
    for pool in state.scenario.plan.pools:
        groups = [g for g in state.tree.groups if pool.on in (None, g.name)]
        for dtype in as_tuple(pool.dtype):
            lacking = sorted({g.device.id for g in groups if dtype not in g.device.peak})
            if dtype in ("fp8", "int8", "nvfp4", "mxfp4") and lacking:
                yield Remark(
                    "warning", "plan.dtype",
                    f"{', '.join(lacking)} does not multiply {dtype}: weights are widened first, "
                    "memory is saved, time is not",
                )  # fmt: skip


def check_groups(state: Setting) -> Iterator[Remark]:
    """Pools together name every group of the fleet, or one says why not."""
    named = {pool.on for pool in state.scenario.plan.pools}
    idle = [g.name for g in state.tree.groups if g.name not in named]
    if None not in named and idle:
        yield Remark("warning", "plan.pools", f"no pool runs on {', '.join(idle)}", "Add a pool, or drop the group")


CHECKS: tuple[Callable[[Setting], Iterator[Remark]], ...] = (
    check_plan, check_weights, check_grid, check_context, check_traffic, check_load, check_slo, check_goal,
    check_dtypes, check_groups,
)  # fmt: skip
"""Every check, in the order in which remarks of one level are listed."""
