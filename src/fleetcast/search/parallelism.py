"""The best serving plans of a scenario: enumerate, refuse what does not fit, bound, simulate what is left, rank.

The result is that of simulating every plan that fits: the plans within the SLO up to the best of the ``top``-th layout,
the frontier, and where nothing meets the SLO the nearest misses. What is spared: plans that provably miss a limit or
are provably beaten (`bounds`), plans that provably do as another does (`alike.same`). A plan is first tried on the
first sixteenth of the trace, then on the first quarter: a world is causal, so what has gone wrong there goes wrong in
the full run too.

Vidur-Search (Agrawal et al., MLSys 2024) and APEX (Lin et al., 2024) simulate every plan in full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fleetcast.base.errors import SpecError
from fleetcast.scenario.objective import MINIMIZE
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.alike import same
from fleetcast.search.candidates import Candidate, Fitted, fit_all
from fleetcast.search.hunt import PARTS, SHORTEST, Hunt
from fleetcast.search.missed import missed
from fleetcast.search.ranking import Axis, Ranking, undominated, values, worst_ratio
from fleetcast.search.space import spaces
from fleetcast.search.worth import worth
from fleetcast.sim.serving.setting import Setting

MISSES = 3
"""Nearest misses that are shown where nothing meets the SLO."""


def search(
    state: Setting, *, top: int | None = 6, exhaustive: bool = False, goals: tuple[Axis, ...] = (),
    axes: tuple[Axis, ...] = (), parts: Sequence[float] = PARTS, shortest: int = SHORTEST, misses: int = MISSES,
    above: int = 0, weigh: bool = False, progress: Callable[[int, int], None] | None = None,
) -> Ranking:  # fmt: skip
    """Returns the ranked plans of a scenario.

    Args:
        state: the scenario, resolved.
        top: how many layouts to rank, with their batch policies as far as these are as good as the last layout;
            None = all that meet the SLO.
        exhaustive: simulate every plan that fits.
        goals: (goal, metric path, sign) to rank by, instead of the scenario's objective.
        axes: what the frontier trades, instead of `objective`'s; with ``goals`` alone, the goals.
        parts: shares of the trace to try first, ascending.
        shortest: least requests of such a part.
        misses: how many nearest misses to find where nothing meets the SLO.
        above: leave out plans of so many devices or fewer.
        weigh: say what each choice buys (`search.worth`), which may take more simulations.
        progress: told (plans settled, plans that fit) after each.

    Raises:
        SpecError: the objective needs prices that are not known, or ``[plan]`` leaves nothing to search.
    """
    notes: tuple[str, ...] = ()
    if not goals:
        goals, axes, notes = objective(state)
    fitted = fit_all(state, spaces(state))
    candidates = [c for c in fitted.candidates if c.devices > above]
    sizes = [k for part in parts if (k := int(len(state.requests) * part)) >= shortest]
    if any(s.caching is not None and s.caching.policy.offline for c in candidates for s in c.servers):
        sizes = []  # who knows the trace's future does otherwise on a part of it
    if top is not None and top < 1:
        raise SpecError("top", "is out of range", value=top, limit="a whole number from 1")
    hunt = Hunt(state, goals, axes or goals, top, [] if exhaustive else sizes, exhaustive)
    hunt.run(candidates, progress)
    if misses and not hunt.met and not exhaustive:
        hunt.nearest(misses)
    ranking = _ranking(hunt, fitted, len(candidates) + fitted.over, notes)
    if not weigh:
        return ranking
    weighed, more = worth(hunt, candidates, ranking.best)
    return replace(ranking, worth=weighed, counts={**ranking.counts, "weighed": more})


def objective(state: Setting) -> tuple[tuple[Axis, ...], tuple[Axis, ...], tuple[str, ...]]:
    """Returns the goals, the frontier's axes, and what was decided for want of prices.

    One goal is traded against its rival: latency, or for latency the cost (energy where no price is known).

    Raises:
        SpecError: cost is asked for and a device has no price.
    """
    asked = state.scenario.objective
    goals: tuple[Axis, ...] = asked.goals()
    free = [g.device.id for g in state.tree.groups if g.price is None]
    notes: tuple[str, ...] = ()
    if free and any(path == "cost" for _, path, _ in goals):
        if asked.minimize is not None:
            raise SpecError(
                "objective.minimize", "needs prices", value="cost", limit=f"{free[0]} has none",
                hint=f'Add fleet.price = {{ "{free[0]}" = "1.00 $/h" }}, or minimise energy',
            )  # fmt: skip
        goals = (("energy", "energy", 1),)
        notes = (f"{free[0]} has no price: plans are ranked by energy",)
    if len(goals) > 1:
        return goals, goals, notes
    rival = "latency" if goals[0][0] != "latency" else ("energy" if free else "cost")
    return goals, (*goals, (rival, MINIMIZE[rival], 1)), notes


def _ranking(hunt: Hunt, fitted: Fitted, feasible: int, notes: Sequence[str]) -> Ranking:
    hunt.done.sort(key=lambda pair: pair[0].index)
    kept: list[tuple[Candidate, Outcome]] = []
    twins: dict[int, list[Candidate]] = {}
    for c, outcome in hunt.done:
        twin = next((d for d, o in kept if same(d, c, o)), None)
        if twin is None:
            kept.append((c, outcome))
        else:
            twins.setdefault(twin.index, []).append(c)
    for twin, c in hunt.copies:
        first = next((d for d, _ in kept if d.index == twin.index), None) or next(
            d for d, _ in kept if any(t.index == twin.index for t in twins.get(d.index, ()))
        )
        twins.setdefault(first.index, []).append(c)
    met = [(c, o) for c, o in kept if o.slo["met"]]
    met.sort(key=lambda pair: (values(pair[1], hunt.goals), pair[0].devices, pair[0].index))
    frontier = [met[i] for i in undominated([values(o, hunt.axes) for _, o in met])]
    frontier.sort(key=lambda pair: (values(pair[1], hunt.axes), pair[0].index))
    misses = sorted((worst_ratio(o.slo), c.index) for c, o in kept if not o.slo["met"]) if not met else []
    by_index = {c.index: o for c, o in kept}
    firsts = list({c.layout: i for i, (c, _) in reversed(list(enumerate(met)))}.values())
    shown = met[: sorted(firsts)[hunt.top - 1] + 1] if hunt.top is not None and hunt.top <= len(firsts) else met
    counts = {
        "enumerated": fitted.enumerated, "memory_feasible": feasible, "over_budget": fitted.over,
        "bounded": len(hunt.killed),
        "cut_short": sum(level > 0 for _, _, level in hunt.killed), "deduplicated": len(hunt.copies),
        "simulated": len(hunt.done),
    }  # fmt: skip
    identical = tuple(
        tuple({"batch": t.plan.serving[0].batch} for t in sorted(twins.get(c.index, []), key=lambda t: t.index))
        for c, _ in shown
    )
    return Ranking(
        plans=tuple(o for _, o in shown), frontier=tuple(o for _, o in frontier),
        misses=tuple(by_index[i] for _, i in misses[:MISSES]), rejected=fitted.rejected,
        missed=missed(hunt.limits, hunt.done, hunt.ruled_out()), counts=counts,
        goals=hunt.goals, axes=hunt.axes, identical=identical, space=fitted.lines, notes=tuple(notes),
    )  # fmt: skip
