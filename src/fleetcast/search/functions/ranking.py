"""Scale policies ranked: each is played; under a budget of pod-seconds each is first set so that it uses it up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from fleetcast.base.spec import describe, kinds
from fleetcast.policy import scale
from fleetcast.scenario.kinds.functions import GOALS
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.played import beside, by_goals, check_priced, each, ranking
from fleetcast.search.ranking import Ranking
from fleetcast.sim.functions.outcome import simulate
from fleetcast.sim.functions.setting import Setting
from fleetcast.sim.functions.world import play

STEPS = 14
"""Most settings of a policy that are tried."""
CLOSE = 0.99
"""Share of a budget that counts as all of it."""


def search(
    state: Setting, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked policies of a scenario: those of its plan, or all.

    Args:
        state: the scenario, resolved.
        top: how many; None = all.
        progress: called with (plans played, plans).

    Raises:
        SpecError: an unknown policy, or cost without a price.
    """
    plan = state.scenario.plan
    goals = state.scenario.objective.goals(GOALS, {})
    check_priced(goals, (site.group for site in state.sites))
    # the null first, so that it wins where nothing is better
    choices = plan.scales or tuple(sorted(kinds(scale), key=lambda kind: kind != scale.Fixed.kind))
    most = float("inf")
    policies = [state.scale(choice) for choice in choices]
    if plan.budget is not None:
        most = plan.budget * pod_seconds(state, scale.Fixed())
        policies = [fitted(state, policy, most) for policy in policies]
    policies, asked = beside(policies, scale.Fixed(), lambda policy: describe(policy) == describe(scale.Fixed()))
    routes: tuple[Any, ...] = plan.routes or (None,)
    found = each(list(product(policies, routes)), lambda pair: simulate(state, *pair), progress)

    def exceeds(outcome: Outcome) -> bool:
        return float(outcome.metrics["pod_seconds"]) > most * (1.0 + 1e-9)

    space = [f"scale: {', '.join(str(describe(policy)['kind']) for policy in policies)}; each was played"]
    if plan.budget is not None:
        space.append(f"each set to use up {most:,.0f} pod-seconds, {plan.budget:g} x those of a keep-alive of 60 s")
        space += [
            f"{o.plan['scale']['kind']} takes more than the budget whatever it is set to" for o in found if exceeds(o)
        ]
    rivals = tuple((name, GOALS[name], 1) for name in ("pod_seconds", "cold_starts"))
    return ranking(
        found, goals, rivals, top=top, space=space, key=lambda outcome: [exceeds(outcome), *by_goals(outcome, goals)],
        null=is_null, asked=asked,
    )  # fmt: skip


def is_null(outcome: Outcome) -> bool:
    """Returns whether an outcome is of a keep-alive of 60 s."""
    return bool(outcome.plan["scale"] == describe(scale.Fixed()))


def pod_seconds(state: Setting, policy: scale.Policy) -> float:
    """Returns what pods live under a policy, s in all, in a world with memory for all."""
    return float(play(state.trace, policy, patience=state.scenario.plan.patience).seconds.sum())


def fitted(state: Setting, policy: scale.Policy, most: float) -> scale.Policy:
    """Returns a policy whose knob is turned as far as a budget of pod-seconds allows.

    Args:
        state: the scenario, resolved.
        policy: one with an attribute ``knob``, (parameter, low, high), the pod-seconds rising with it; any other is
            returned as it is.
        most: pod-seconds.
    """
    if not hasattr(policy, "knob"):
        return policy
    name, low, high = policy.knob
    settings = {key: value for key, value in describe(policy).items() if key != "kind"}

    def at(value: float) -> scale.Policy:
        made: scale.Policy = type(policy)(**(settings | {name: value}))
        return made

    found = pod_seconds(state, policy)
    if CLOSE * most <= found <= most:
        return policy
    best, value = None, float(settings[name])
    ends = [(low, -np.inf), (high, np.inf)]  # knobs, and logarithms of what they take over the budget
    for _ in range(STEPS):
        over = float(np.log(found / most)) if found > 0 else -np.inf
        if over <= 0:
            best, ends[0] = at(value), (value, over)
            if over >= np.log(CLOSE):
                break
        else:
            ends[1] = (value, over)
        (a, under), (b, above) = ends
        known = np.isfinite(under) and np.isfinite(above)
        share = float(np.clip(-under / (above - under) - 0.01, 0.05, 0.95)) if known else 0.5
        near = 4.0 if not known else np.inf  # an end not tried yet is not gone to at once
        value = float(np.exp((1 - share) * np.log(a) + share * np.log(b)))
        value = float(np.clip(value, b / near, np.inf)) if a == low and not np.isfinite(under) else value
        value = float(np.clip(value, 0.0, a * near)) if b == high and not np.isfinite(above) else value
        value = float(f"{value:.5g}")
        found = pod_seconds(state, at(value))
    return best if best is not None else at(low)
