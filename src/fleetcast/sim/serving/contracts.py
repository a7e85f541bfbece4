"""The contract every policy of serving, of power and of recovery keeps, as checks anyone may run on their own.

``check_policy(MyPolicy())`` finds the family by the decision method, runs every check and raises `ContractBroken`
with the check's name and what was seen. The project's own tests run it on every policy of every family.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from fleetcast.base.errors import FleetcastError
from fleetcast.base.rng import rng
from fleetcast.base.spec import build, describe
from fleetcast.policy import batch, evict, memory, power, recover, route, speculate
from fleetcast.policy.order import requests, tasks
from fleetcast.sim.graph.contracts import orders_a_graph

FAMILIES: dict[str, ModuleType] = {
    "compose": batch, "choose": route, "key": requests, "push": tasks, "victim": memory, "cap": power,
    "draft": speculate, "rank": evict, "recover": recover,
}  # fmt: skip
"""Decision method -> family."""
ROUNDS = 200
"""Random situations each decision is asked about."""


class ContractBroken(FleetcastError):
    """A policy broke its contract; the message names the check and what was seen."""


def family_of(policy: object) -> ModuleType:
    """Returns the family whose decision method ``policy`` has.

    Raises:
        ContractBroken: it has none, or several.
    """
    found = [space for method, space in FAMILIES.items() if callable(getattr(policy, method, None))]
    if len(found) != 1:
        methods = ", ".join(f"{m} ({s.__name__.rpartition('.')[2]})" for m, s in FAMILIES.items())
        raise ContractBroken(f"{type(policy).__name__} must have exactly one decision method of: {methods}")
    return found[0]


def check_policy(policy: Any, *, seed: int = 0) -> list[str]:
    """Runs every check of the policy's family; returns their names.

    Args:
        policy: an object with one of the decision methods.
        seed: of the random situations.

    Raises:
        ContractBroken: the first check that fails.
    """
    space = family_of(policy)
    checks = [*COMMON, *BY_FAMILY[space]]
    for check in checks:
        check(policy, seed)
    return [check.__name__ for check in checks]


def _require(truth: bool, check: str, policy: object, seen: object) -> None:
    if not truth:
        raise ContractBroken(f"{type(policy).__name__} breaks '{check}': {seen}")


def keyword_only_constructor(policy: Any, seed: int) -> None:
    """Parameters are keyword-only, have defaults, and are stored under their own names."""
    for name, p in inspect.signature(type(policy)).parameters.items():
        fine = p.kind is p.KEYWORD_ONLY and p.default is not p.empty
        _require(fine, "keyword_only_constructor", policy, f"parameter {name} is not keyword-only with a default")
        _require(hasattr(policy, name), "keyword_only_constructor", policy, f"parameter {name} is not stored")


def rebuilds_from_its_table(policy: Any, seed: int) -> None:
    """The table that `describe` gives makes an equal policy: plans are files."""
    table = describe(policy)
    parameters = {k: v for k, v in table.items() if k != "kind"}
    again = type(policy)(**parameters)
    if type(policy).__module__.startswith("fleetcast.policy."):
        again = build(family_of(policy), table, "policy")
    _require(describe(again) == table, "rebuilds_from_its_table", policy, describe(again))


def pickles(policy: Any, seed: int) -> None:
    """It survives pickling, so that simulations can be spread over processes."""
    again = pickle.loads(pickle.dumps(policy))  # our own bytes, never a user's file
    _require(describe(again) == describe(policy), "pickles", policy, describe(again))


def has_a_dated_source(policy: Any, seed: int) -> None:
    """The module's docstring names its source with a year (policies of this package)."""
    module = inspect.getmodule(type(policy))
    if module is None or not module.__name__.startswith("fleetcast."):
        return
    text = module.__doc__ or ""
    _require(any(str(y) in text for y in range(1950, 2100)), "has_a_dated_source", policy, "no year in the docstring")


def composes_legal_batches(policy: Any, seed: int) -> None:
    """Chosen requests exist, no more tokens than they need, no more memory than is free, and it makes progress."""
    draw = rng(seed, "contract", "batch")
    for _ in range(ROUNDS):
        view = _view(draw)
        before = copy.deepcopy(view)
        decision = policy.compose(view)
        name = "composes_legal_batches"
        _require(view == before, name, policy, "it changed its view")
        items = {i.id: i for i in (*view.partial, *view.waiting)}
        ids = [r for r, _ in decision.prefill]
        _require(len(set(ids)) == len(ids) and set(ids) <= set(items), name, policy, f"chose {ids}")
        _require(all(0 < q <= items[r].tokens for r, q in decision.prefill), name, policy, decision)
        new = [r for r in ids if r in {i.id for i in view.waiting}]
        _require(sum(items[r].blocks for r in new) <= view.free, name, policy, f"{new} need more than {view.free}")
        _require(decision == policy.compose(view), name, policy, "the same view gave another decision")
        idle = not view.decoding and not view.partial
        if idle and view.waiting and view.waiting[0].blocks <= view.free:
            _require(bool(ids), name, policy, "idle, with a request that fits, it admits nothing")
        if not ids and view.decoding:
            _require(decision.decode, name, policy, "requests decode and it does nothing at all")


def rule_says_the_same(policy: Any, seed: int) -> None:
    """A policy with ``rule()`` decides as `policy.batch.fill` does for that rule."""
    if not hasattr(policy, "rule"):
        return
    draw = rng(seed, "contract", "rule")
    for _ in range(ROUNDS):
        view = _view(draw)
        want = batch.fill(policy.rule(), view)
        _require(policy.compose(view) == want, "rule_says_the_same", policy, f"{policy.compose(view)} is not {want}")


def _view(draw: np.random.Generator) -> batch.View:
    size = int(draw.integers(0, 6))
    partial = [batch.Item(1000 + i, int(draw.integers(1, 3000)), 0) for i in range(int(draw.integers(0, 2)))]
    waiting = [batch.Item(i, int(draw.integers(1, 5000)), int(draw.integers(1, 300))) for i in range(size)]
    return batch.View(int(draw.integers(0, 40)), partial, waiting, int(draw.integers(0, 800)))


def routes_to_a_replica(policy: Any, seed: int) -> None:
    """The choice is a replica's index, does not change the view, and repeats under the same stream."""
    draw = rng(seed, "contract", "route")
    for i in range(ROUNDS):
        count = int(draw.integers(1, 9))
        loads = draw.integers(0, 30, count).tolist()
        view = route.View(load=loads, weight=(0.1 + 0.9 * draw.random(count)).tolist())
        before = copy.deepcopy(view)
        arrival = route.Arrival(i, float(i), int(draw.integers(1, 4000)), int(draw.integers(-1, 20)))
        first, again = (policy.choose(arrival, view, rng(seed, "stream", str(i))) for _ in range(2))
        name = "routes_to_a_replica"
        _require(view == before, name, policy, "it changed its view")
        _require(
            isinstance(first, int | np.integer) and bool(0 <= first < count), name, policy, f"{first!r} of {count}"
        )
        _require(first == again or not policy.static, name, policy, "same arrival, same stream, another replica")


def static_routes_ignore_load(policy: Any, seed: int) -> None:
    """A policy that calls itself static gives the same answer whatever the loads are."""
    if not policy.static:
        return
    for i in range(ROUNDS):
        arrival = route.Arrival(i, float(i), 100, i % 7)
        views = [route.View(load=[x] * 4, weight=[1.0] * 4) for x in (0, 9)]
        views.append(route.View(load=[5, 0, 3, 1], weight=[1.0] * 4))
        picks = {policy.choose(arrival, view, rng(seed, "static", str(i))) for view in views}
        _require(len(picks) == 1, "static_routes_ignore_load", policy, f"loads changed the choice: {picks}")


def ranks_with_numbers(policy: Any, seed: int) -> None:
    """Keys are finite numbers and depend on nothing but the request."""
    draw = rng(seed, "contract", "order")
    for _ in range(ROUNDS):
        arrival, prompt = float(draw.random() * 1e4), int(draw.integers(1, 10**6))
        keys = {policy.key(arrival, prompt) for _ in range(3)}
        _require(len(keys) == 1 and bool(np.isfinite(keys.pop())), "ranks_with_numbers", policy, f"keys {keys}")


def evicts_one_of_the_running(policy: Any, seed: int) -> None:
    """The victim is an index of the running requests; the oldest never goes while another runs."""
    draw = rng(seed, "contract", "memory")
    for _ in range(ROUNDS):
        admitted = draw.permutation(10_000)[: int(draw.integers(2, 40))].tolist()
        victim = policy.victim(admitted)
        name = "evicts_one_of_the_running"
        _require(0 <= victim < len(admitted), name, policy, f"index {victim} of {len(admitted)}")
        _require(admitted[victim] != min(admitted), name, policy, "it evicts the oldest: no progress is assured")
        _require(isinstance(policy.swap, bool), name, policy, "swap is not a bool")


def ranks_ends(policy: Any, seed: int) -> None:
    """Ranks are numbers and not NaN, the same for the same view; one that looks ahead says that it is offline."""
    draw = rng(seed, "contract", "evict")
    for _ in range(ROUNDS):
        stored = float(draw.random() * 1e4)
        view = evict.View(
            used=stored + float(draw.random() * 1e3), stored=stored, uses=int(draw.integers(1, 50)),
            depth=int(draw.integers(0, 10**4)), blocks=int(draw.integers(1, 500)), next=float(draw.integers(1, 10**6)),
        )  # fmt: skip
        first, again = policy.rank(view), policy.rank(view)
        name = "ranks_ends"
        _require(first == again and float(first) == float(first), name, policy, f"ranks {first} and {again}")
        later = replace(view, next=view.next + 7.0)
        _require(policy.offline or policy.rank(later) == first, name, policy, "it looks ahead and is not offline")
        _require(isinstance(policy.offline, bool), name, policy, "offline is not a bool")


def caps_clocks(policy: Any, seed: int) -> None:
    """Caps are above 0 and at most 1, depend on nothing but the view, and low priority never clocks above high."""
    for view in _readings(policy, seed):
        first, again = policy.cap(view), policy.cap(view)
        name = "caps_clocks"
        _require(0 < first.low <= 1 and 0 < first.high <= 1, name, policy, first)
        _require(first == again, name, policy, f"the same view gave {first}, then {again}")
        _require(first.low <= first.high, name, policy, f"high priority is slowed more: {first}")


def band_tells_the_truth(policy: Any, seed: int) -> None:
    """Wherever a decision's band reaches, asking again would give the same caps."""
    draw = rng(seed, "contract", "band")
    for view in _readings(policy, seed):
        said = policy.cap(view)
        low, high = max(said.below, 0.0), min(said.above, 2.0)
        for reading in (low, high, *(low + (high - low) * draw.random(4))) if low <= high else ():
            again = policy.cap(power.View(float(reading), said.low, said.high))
            same = (again.low, again.high) == (said.low, said.high)
            _require(same, "band_tells_the_truth", policy, f"{said} for {view}, but {again} at {reading}")


def _readings(policy: Any, seed: int) -> list[power.View]:
    """Readings one after the other, each seen under the caps that the policy gave for the last."""
    draw, views = rng(seed, "contract", "power"), [power.View(0.5, 1.0, 1.0)]
    for reading in draw.uniform(0.3, 1.3, ROUNDS):
        said = policy.cap(views[-1])
        views.append(power.View(float(reading), said.low, said.high))
    return views


def drafts_within_range(policy: Any, seed: int) -> None:
    """A draft is 0 to 16 tokens of at least one drafter, the same for the same view, whatever came before."""
    draw = rng(seed, "contract", "speculate")
    for i in range(ROUNDS):
        length = None if i % 20 == 0 else int(draw.integers(0, speculate.LONGEST + 1))
        proposed = int(draw.integers(0, (length or 0) + 1))
        tried = int(draw.integers(0, 10**6))
        view = speculate.View(
            batch=int(draw.integers(1, 1000)), length=length, proposed=proposed,
            accepted=int(draw.integers(0, proposed + 1)), tried=tried, right=int(draw.integers(0, tried + 1)),
            found=None if draw.random() < 0.5 else int(draw.integers(0, 20)),
        )  # fmt: skip
        before = copy.deepcopy(view)
        first, again = policy.draft(view), policy.draft(view)
        name = "drafts_within_range"
        _require(view == before, name, policy, "it changed its view")
        _require(first == again, name, policy, "the same view gave another decision")
        fine = isinstance(first.length, int) and 0 <= first.length <= speculate.LONGEST
        _require(fine, name, policy, f"length {first.length!r}")
        _require(isinstance(first.drafters, int) and first.drafters >= 1, name, policy, f"{first.drafters!r} drafters")


def recovers_legally(policy: Any, seed: int) -> None:
    """Intervals are above 0, depend on nothing but the view, and only machines that were found are evicted."""
    draw = rng(seed, "contract", "recover")
    for i in range(ROUNDS):
        a, b, c, d, e = draw.uniform(0.1, 1e3, 5).tolist()
        slow = int(draw.integers(0, 3))
        view = recover.View(
            iteration=a / 100, direct=b + c, stall=b, drain=c, restart=d, mtbf=recover.INF if i % 20 == 0 else 1e3 * e,
            remaining=1e4 * e, slower=0.1 * (slow > 0), swap=d, slow=slow, spares=int(draw.integers(0, 3)),
        )  # fmt: skip
        first, again = policy.recover(view), policy.recover(view)
        name = "recovers_legally"
        _require(first == again, name, policy, f"the same view gave {first}, then {again}")
        _require(first.interval > 0, name, policy, f"interval {first.interval}")
        _require(not first.evict or 0 < slow <= view.spares, name, policy, f"evicts {slow} with {view.spares} spares")


def plays_a_graph(policy: Any, seed: int) -> None:
    """Every task of random graphs runs once, legally, and a graph played again runs the same."""
    problem = orders_a_graph(policy, seed)
    _require(not problem, "plays_a_graph", policy, problem)


Check = Callable[[Any, int], None]
COMMON: tuple[Check, ...] = (keyword_only_constructor, rebuilds_from_its_table, pickles, has_a_dated_source)
BY_FAMILY: dict[ModuleType, tuple[Check, ...]] = {
    batch: (composes_legal_batches, rule_says_the_same),
    route: (routes_to_a_replica, static_routes_ignore_load),
    requests: (ranks_with_numbers,),
    tasks: (plays_a_graph,),
    memory: (evicts_one_of_the_running,),
    power: (caps_clocks, band_tells_the_truth),
    speculate: (drafts_within_range,),
    evict: (ranks_ends,),
    recover: (recovers_legally,),
}
