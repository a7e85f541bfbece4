"""Which world plays a trace: the columnar loop where policies are rules, the one written for reading elsewhere.

The loop (`kernel`) takes list policies that say themselves as a `Rule`, gangs of a fixed number of devices, and speeds
of one phase; failures, interference, elastic jobs and every other policy are played by `world`. Both are equal in
every count, and to 1e-9 in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.errors import PolicyError
from fleetcast.cost.jobs import Linear
from fleetcast.policy.place.gangs import BestFit, Spread
from fleetcast.sim.cluster import kernel, world
from fleetcast.sim.cluster.board import Rules
from fleetcast.sim.cluster.pace import close
from fleetcast.sim.cluster.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.policy.place.gangs import Policy as Place
    from fleetcast.policy.share import Policy, Rule
    from fleetcast.scenario.workload.jobs import Jobs
    from fleetcast.sim.cluster.nodes import Nodes
    from fleetcast.sim.cluster.pace import Pace

KEYS = ("arrival", "remaining", "service", "attained", "share")
FILLS = ("none", "free", "reserve")
PLACES = {BestFit: 0, Spread: 1}


def play(jobs: Jobs, nodes: Nodes, pace: Pace, policy: Policy, place: Place, rules: Rules | None = None) -> Run:
    """Returns what happens to jobs under a share policy and a place policy, by the quickest world that can play them.

    Raises:
        PolicyError: an illegal decision, or jobs that wait for ever.
        Infeasible: a job that failures never let end.
    """
    rules = rules or Rules()
    rule = known(jobs, nodes, pace, policy, place)
    if rule is None:
        return world.play(jobs, nodes, pace, policy, place, rules)
    return loop(jobs, nodes, pace, rule, PLACES[type(place)], rules)


def known(jobs: Jobs, nodes: Nodes, pace: Pace, policy: Policy, place: Place) -> Rule | None:
    """Returns the rule of a policy where the loop can play everything, else None."""
    said = getattr(policy, "rule", None)
    rule: Rule | None = None if said is None else said()
    if rule is None or not type(policy).__module__.startswith("fleetcast.policy.") or type(place) not in PLACES:
        return None
    if nodes.outages or pace.beside or not (jobs.least == jobs.most).all():
        return None
    if not isinstance(pace.speeds, Linear) or min(pace.speeds.factors) <= 0:
        return None
    return rule


def rates(jobs: Jobs, nodes: Nodes, pace: Pace) -> NDArray[np.float64]:
    """Returns f8[n, kinds]: share of each job (1/s) that the devices it asks for do, lying close; 0 = none."""
    demand = jobs.demand.astype(float)
    if isinstance(pace.speeds, Linear):
        factors = np.array(pace.speeds.factors)
        rate: NDArray[np.float64] = factors[None, :] * demand[:, None] / pace.units[:, None]
    else:
        known: dict[tuple[int, int], list[float]] = {}
        rate = np.zeros((len(jobs), len(nodes.kinds)))
        for i, key in enumerate(zip(pace.model.tolist(), jobs.demand.tolist(), strict=True)):
            if key not in known:
                one = [pace.rate(i, close(nodes, {k: key[1]}), 0) for k in range(len(nodes.kinds))]
                known[key] = [r * float(pace.units[i]) for r in one]
            rate[i] = np.array(known[key]) / pace.units[i]
    return rate


def loop(jobs: Jobs, nodes: Nodes, pace: Pace, rule: Rule, place: int, rules: Rules) -> Run:
    """Returns what the loop makes of a trace under a rule."""
    rate = rates(jobs, nodes, pace)
    told = rate * pace.believed[:, None] if len(pace.believed) else rate
    numbers: dict[str, Any] = {
        "key": KEYS.index(rule.key), "preempt": rule.preempt, "fill": FILLS.index(rule.backfill), "place": place,
        "round": rules.round, "restart": rules.restart, "apart": pace.apart, "racks": pace.racks,
    }  # fmt: skip
    columns: dict[str, Any] = {
        "arrival": jobs.arrival, "demand": jobs.demand, "rate": rate, "told": told, "queues": np.array(rule.queues),
        "first": np.array(nodes.first), "size": np.array(nodes.size), "near": np.array(nodes.near),
        "whole": np.array([kind.node for kind in nodes.kinds]),
        "who": _users(jobs) if rule.key == "share" else np.zeros(0, np.int64), "weight": jobs.weight,
    }  # fmt: skip
    out = kernel.run(numbers, columns)
    if out is None:
        raise PolicyError(f"{rule.key} leaves jobs waiting for ever: they ask for more devices than any kind has")
    return Run(**out)


def _users(jobs: Jobs) -> NDArray[np.int64]:
    """Returns i8[n], each job's user from 0 on; a job of nobody's is a user by itself."""
    alone = np.arange(len(jobs), dtype=np.int64)
    if jobs.user is None:
        return alone
    named = np.array([bool(name) for name in jobs.users])[jobs.user]
    found: NDArray[np.int64] = np.unique(np.where(named, jobs.user, len(jobs.users) + alone), return_inverse=True)[1]
    return found
