"""Every policy of every family keeps its contract; broken ones are caught."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetcast.base.errors import PolicyError, SpecError
from fleetcast.base.spec import build, describe, kinds
from fleetcast.policy import batch, memory, power, route
from fleetcast.policy.order import requests as order
from fleetcast.scenario.load import load
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.contracts import FAMILIES, ContractBroken, check_policy
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate

ALL = [(space.__name__, kind, class_) for space in FAMILIES.values() for kind, class_ in kinds(space).items()]


@pytest.mark.parametrize(("space", "kind", "class_"), ALL, ids=[f"{s.rpartition('.')[2]}-{k}" for s, k, _ in ALL])
def test_policy_keeps_the_contract(space: str, kind: str, class_: type) -> None:
    assert len(check_policy(class_())) >= 5


@pytest.mark.parametrize("space", list(FAMILIES.values()), ids=lambda s: s.__name__.rpartition(".")[2])
def test_every_family_has_methods_and_a_table_builds_each(space: Any) -> None:
    assert len(kinds(space)) >= 2
    for kind, class_ in kinds(space).items():
        assert type(build(space, kind, "plan")) is class_
        assert describe(class_())["kind"] == kind


class Greedy(batch.PrefillFirst):
    """Takes everything, memory or not."""

    kind = "greedy"

    def compose(self, view: batch.View) -> batch.Batch:
        return batch.Batch(tuple((i.id, i.tokens) for i in view.waiting), decode=True)


class Lazy(batch.PrefillFirst):
    """Admits nobody."""

    kind = "lazy"

    def compose(self, view: batch.View) -> batch.Batch:
        return batch.Batch((), decode=True)


class Peeking(route.RoundRobin):
    """Says it is static and looks at the load."""

    def choose(self, arrival: route.Arrival, view: route.View, rng: np.random.Generator) -> int:
        return int(np.argmin(view.load))


class Astray(route.LeastLoaded):
    """Names a replica that is not there."""

    def choose(self, arrival: route.Arrival, view: route.View, rng: np.random.Generator) -> int:
        return len(view.load)


class Oldest(memory.Recompute):
    """Evicts whoever has waited longest."""

    def victim(self, admitted: Any) -> int:
        return int(np.argmin(admitted))


class Positional(order.Fifo):
    """Has a positional parameter."""

    def __init__(self, size: int = 3) -> None:
        self.size = size


class Boastful(power.OneThreshold):
    """Says that its decision holds for every reading."""

    def cap(self, view: power.View) -> power.Decision:
        said = super().cap(view)
        return power.Decision(said.low, said.high, 0.0, 2.0)


class Upside(power.CapAll):
    """Slows high priority first."""

    def cap(self, view: power.View) -> power.Decision:
        return power.Decision(1.0, 0.5 if view.power > 1 else 1.0)


@pytest.mark.parametrize(
    ("policy", "check"),
    [
        (Greedy(), "composes_legal_batches"), (Lazy(), "composes_legal_batches"),
        (Peeking(), "static_routes_ignore_load"), (Astray(), "routes_to_a_replica"),
        (Oldest(), "evicts_one_of_the_running"), (Positional(), "keyword_only_constructor"),
        (Boastful(), "band_tells_the_truth"), (Upside(), "caps_clocks"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)  # fmt: skip
def test_a_broken_policy_is_caught(policy: Any, check: str) -> None:
    with pytest.raises(ContractBroken, match=check):
        check_policy(policy)


class LongestFirst:
    """A user's own order: the longest prompt enters first."""

    kind = "longest_first"  # a kind of its own does not make it one of ours

    def key(self, arrival: float, prompt: int) -> float:
        return -float(prompt)


class Halves:
    """A user's own batch policy without a rule: at most half the free memory is given away."""

    max_batch, max_tokens = 64, 4096

    def compose(self, view: batch.View) -> batch.Batch:
        rule = batch.Rule(self.max_batch, self.max_tokens, mixed=False, split=False, refill=True, reserve=False)
        alone = not view.decoding and not view.partial
        free = view.free if alone else view.free // 2
        return batch.fill(rule, batch.View(view.decoding, view.partial, view.waiting, free))


def table(**plan: Any) -> dict[str, Any]:
    return {
        "fleet": {"devices": "2x h100-sxm"},
        "workload": {"model": "llama-3.1-8b", "trace": "azure-code-2023", "requests": 120, "speed_up": 8},
        "plan": {"replicas": 2, "tensor_parallel": 1, "pipeline_parallel": 1, "engine": "vllm-0.6"} | plan,
    }


@pytest.mark.parametrize(
    "plan",
    [
        {"order": {"kind": "tests.contracts.test_policies:LongestFirst"}},
        {"batch": {"kind": "tests.contracts.test_policies:Halves"}},
    ],
    ids=["order", "batch"],
)
def test_a_users_policy_runs_in_the_stepwise_world(plan: dict[str, Any]) -> None:
    state = setting(load(table(**plan)))
    found = simulate(state, complete(state, state.scenario.plan))
    assert (found.requests.ttft > 0).all()
    assert found.metrics["requests"] == 120


def test_a_users_route_runs_beside_the_compiled_loop_and_a_bad_one_is_refused() -> None:
    class Last(route.LeastLoaded):
        def choose(self, arrival: route.Arrival, view: route.View, rng: np.random.Generator) -> int:
            return len(view.load) - 1

    state = setting(load(table()))
    plan = complete(state, state.scenario.plan)
    from fleetcast.sim.serving import world

    servers = [state.server(plan.pools[0])] * 2
    done = world._run_kernel(state, servers, Last(), record=False, by_step=False)
    assert set(done.where) == {1}
    assert (done.finish > 0).all()
    with pytest.raises(PolicyError, match="must be 0 to 1"):
        world._run_kernel(state, servers, Astray(), record=False, by_step=False)


@pytest.mark.parametrize("family", ["batch", "order", "memory", "route"])
def test_a_class_that_is_no_policy_of_the_family_is_refused_by_name(family: str) -> None:
    state = setting(load(table(**{family: {"kind": "decimal:Decimal"}})))
    with pytest.raises(SpecError, match=f"plan.{family}.kind"):
        complete(state, state.scenario.plan)


class Overfull(Halves):
    """Asks for more tokens than a request has."""

    def compose(self, view: batch.View) -> batch.Batch:
        return batch.Batch(tuple((i.id, i.tokens + 1) for i in view.waiting[:1]), decode=True)


def test_an_illegal_decision_is_a_clear_error() -> None:
    state = setting(load(table(batch={"kind": "tests.contracts.test_policies:Overfull"})))
    plan = complete(state, state.scenario.plan)
    with pytest.raises(PolicyError, match=r"Overfull\.compose"):
        simulate(state, plan)


def test_pools_with_different_orders_each_keep_their_own_in_the_stepwise_world() -> None:
    fifo = {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "order": {"kind": "fifo"}}
    ranked = fifo | {"order": {"kind": "shortest_prompt"}}
    table_ = table() | {"plan": {"pools": [fifo, ranked], "route": {"kind": "round_robin"}}}
    table_["workload"]["speed_up"] = 100
    state = setting(load(table_))
    plan = complete(state, state.scenario.plan)
    from fleetcast.sim.serving import reference, world

    servers = [state.server(pool) for pool in plan.pools]
    fast, slow = (
        run(state, servers, route.RoundRobin(), record=False, by_step=False)
        for run in (world._run_kernel, reference.run)
    )
    np.testing.assert_allclose(fast[2], slow[2], rtol=1e-9)
