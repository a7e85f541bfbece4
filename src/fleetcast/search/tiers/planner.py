"""A scenario whose workload has exits: the best way to answer on its tiers, or the one that its plan decides.

In a closed loop, answers of device, edge and cloud are means over the workload. Where requests arrive by the clock,
tiers have queues and answers have percentiles. The best of every shape (tiers and hand-offs) is ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fleetcast.base.errors import Infeasible, SpecError, Unsupported
from fleetcast.cost.cascade import Binormal, Certain, Judge, Measured
from fleetcast.scenario.objective import MINIMIZE, judge
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import Plan, Pool, Stage
from fleetcast.scenario.plan import replace as with_fields
from fleetcast.scenario.workload.exits import Exit, exits_of, read_answers
from fleetcast.search.capacity import Users
from fleetcast.search.ranking import Axis, Ranking, worst_ratio
from fleetcast.search.tiers.choice import Cascade, Problem, choose, evaluate, holdings
from fleetcast.search.tiers.family import whole
from fleetcast.search.tiers.legs import Leg, from_split, from_text
from fleetcast.search.tiers.parts import Costs, tiers_of
from fleetcast.search.tiers.queues import QUEUED, SPAN, Queues, choose_queued, meets, queued, users_held
from fleetcast.search.tiers.stages import check_queued, check_stage
from fleetcast.sim.serving.account import carbon
from fleetcast.sim.serving.setting import Setting

ANSWERS = 3
"""Most answers that a cascade asks for."""
MISSES = 3
COLUMNS = {"latency": "e2e", "energy": "energy", "cost": "cost", "carbon": "energy", "bytes": "bytes"}
"""Which column of a cascade a goal orders by; carbon goes with energy, the grid's mean being one number."""
LIMITS = {"e2e.mean": "e2e", "ttft.mean": "ttft", "error": "error"}
"""Limits of means, and the columns that they limit."""


class TierRanking(Ranking):
    """The best cascade of each shape."""

    def lines(self) -> list[str]:
        """Returns the space in sentences, counts included."""
        c = self.counts
        if "queued" in c:
            return [
                *self.space,
                f"{c['enumerated']:,} cascades enumerated, {c['memory_feasible']:,} fit in memory; of these "
                f"{c['bounded']:,} bounded away, {c['simulated']:,} simulated; the best of each way is ranked",
            ]
        return [
            *self.space,
            f"{c['enumerated']:,} cascades enumerated, {c['memory_feasible']:,} fit in memory; of these "
            f"{c['bounded']:,} lack quality or are beaten everywhere, {c['simulated']:,} evaluated; "
            "the best of each way is ranked",
        ]


@dataclass(frozen=True)
class Question:
    """A scenario with exits, resolved."""

    state: Setting
    exits: tuple[Exit, ...]
    costs: Costs
    problem: Problem
    queues: Queues | None = None

    def outcome(self, cascade: Cascade) -> Outcome:
        """Returns a cascade as an outcome: means per answer."""
        values, state, costs = cascade.values, self.state, self.costs
        grams = carbon(values["energy"], state.grid, 0.0, max(values["e2e"], 1e-9))
        million = costs.output / 1e6
        dollars = values["cost"]
        metrics: dict[str, Any] = {
            "quality": values["quality"], "error": values["error"], "e2e": _statistics(values, "e2e"),
            "ttft": _statistics(values, "ttft"), "energy": values["energy"], "cost": dollars, "carbon": grams,
            "bytes": values["bytes"],
            "per_million_output_tokens": {
                "energy": values["energy"] / million, "carbon": grams / million, "cost": dollars / million,
            },
            "requests": len(state.requests), "devices": len(_tiers(cascade.legs)),
        }  # fmt: skip
        stages = _stages(cascade, [tier.name for tier in costs.tiers])
        pools = tuple(self.pool(t) for t in _tiers(cascade.legs))
        return Outcome(
            source="simulated", metrics=metrics, intervals={}, slo=judge(metrics, state.scenario.slo),
            plan=Plan(pools=pools, cascade=stages).table(),
            resources=tuple(
                {"name": stage.label(), "reach": share, "seconds": float(leg.takes[0]), "bytes": float(leg.takes[4])}
                for stage, share, leg in zip(stages, cascade.reach, cascade.legs, strict=True)
            ),
            notes=self.notes(), provenance={"seed": state.scenario.seed, "requests": state.requests.digest()},
        )  # fmt: skip

    def pool(self, tier: int) -> Pool:
        """Returns what a tier runs, with all its replicas."""
        found = self.costs.tiers[tier]
        if self.queues is None:
            return found.pool
        return with_fields(found.pool, replicas=self.queues.copies(tier))

    def notes(self) -> tuple[str, ...]:
        """Returns what was taken as given."""
        given = self.state.scenario.workload
        costs = self.costs
        found = [*self.state.tree.echo()]
        if isinstance(self.problem.judge, Binormal):
            found.append(
                f"confidence: a stated model; a right answer is more confident than a wrong one with probability "
                f"{given.confidence}, and a deeper exit is right wherever a shallower one is"
            )
        if isinstance(self.problem.judge, Certain):
            found.append("workload.confidence is not given: no answer is passed on, every query has one answer")
        for tier in costs.tiers:
            said = f", {tier.at_once} at once" if tier.at_once > 1 else ""
            found.append(f"{tier.name}: engine {tier.pool.engine}{said}")
        free = [tier.name for tier in costs.tiers if tier.group.price is None]
        if free:
            found.append(f"{', '.join(free)}: no price, taken to cost nothing")
        if self.queues is None:
            found.append("no queues: every tier has the load that it answers at once; radio energy is not counted")
        else:
            found += self.queues.notes()
        return tuple(dict.fromkeys([*found, *costs.notes]))


def question(state: Setting) -> Question:
    """Returns a scenario with exits, resolved.

    Raises:
        SpecError: exits, confidences, pools, limits or goals that cannot be.
    """
    scenario = state.scenario
    workload = scenario.workload
    exits = exits_of(workload.exits or (), state.model)
    if state.model.encoder_decoder:
        raise SpecError(
            "workload.model", "has an encoder: its layers are no trunk", value=state.model.id, limit="a decoder"
        )
    queueing = not state.requests.concurrency
    columns = {**dict(zip(QUEUED, QUEUED, strict=True)), "error": "error"} if queueing else LIMITS
    for name in scenario.slo.limits():
        if name not in columns:
            told = "is not answered for exits" + ("" if queueing else ": in a closed loop, cascades are means")
            raise SpecError(
                f"slo.{name.replace('.', '_')}", told,
                limit=", ".join([*(c.replace(".", "_") for c in columns if c != "error"), "quality"]),
                hint="Leave it out" if queueing else
                'Limit the mean, or let requests arrive by the clock: arrivals = { kind = "poisson", ... }',
            )  # fmt: skip
    costs = Costs(state, tiers_of(state))
    certainty = _judge(workload.confidence, exits, Path(scenario.folder))
    problem = Problem(
        book=costs, tiers=len(costs.tiers), exits=tuple(e.layers for e in exits), judge=certainty,
        goals=tuple(COLUMNS[goal] for goal, _, _ in _goals(state)),
        splits=tuple(range(1, exits[-1].layers)) if len(costs.tiers) > 1 else (),
        limits={columns[name]: limit for name, limit in scenario.slo.limits().items()},
        longest=1 if isinstance(certainty, Certain) else ANSWERS,
    )  # fmt: skip
    return Question(state, exits, costs, problem, Queues(costs, costs.tiers[0].copies) if queueing else None)


def plan(state: Setting, *, top: int | None = 10) -> Ranking:
    """Returns the best cascade of each shape, best first; where the plan decides the cascade, that one.

    Raises:
        SpecError: anything in the scenario that cannot be.
        Infeasible: a decided cascade does not fit.
    """
    asked = question(state)
    goals = _goals(state)
    if state.scenario.plan.cascade:
        outcome = asked.outcome(decided(asked))
        met = bool(outcome.slo["met"])
        counts = {"enumerated": 1, "memory_feasible": 1, "bounded": 0, "simulated": 1}
        return TierRanking(
            (outcome,) * met, (outcome,) * met, () if met else (outcome,), (), counts, goals, goals,
            space=("the plan decides the cascade",),
        )  # fmt: skip
    place = asked.queues
    found = choose(asked.problem) if place is None else choose_queued(asked.problem, place)
    best = [c for c in found.best if not _outdone(c, found.best)][:top]
    outcomes = tuple(asked.outcome(c) for c in best)
    misses: tuple[Outcome, ...] = ()
    if not best:
        wider: tuple[dict[str, float], ...] = ({}, _floor(asked))
        close = (choose(asked.problem, limits=w) if place is None else choose_queued(asked.problem, place, limits=w)
                 for w in wider)  # fmt: skip
        near = [asked.outcome(c) for several in close for c in several.best]
        misses = tuple(sorted(near, key=lambda o: worst_ratio(o.slo))[:MISSES])
    spread = f", {ANSWERS} answers at most" if asked.problem.longest > 1 else ""
    splits = f"{len(asked.problem.splits)} splits" if place is None else "answers to text"
    space = (
        f"{len(asked.exits)} exits on {len(asked.costs.tiers)} tiers, {splits}, "
        f"{len(asked.problem.thresholds)} thresholds{spread}",
    )
    return TierRanking(outcomes, outcomes[:1], misses, _rejected(asked), found.counts, goals, goals, space=space)


def simulate(state: Setting) -> Outcome:
    """Returns what happens under the cascade that the plan decides.

    Raises:
        SpecError: it decides none, or one that cannot be.
        Infeasible: it does not fit.
    """
    if not state.scenario.plan.cascade:
        raise SpecError(
            "plan.cascade", "is missing", limit="a workload with exits is simulated under a decided cascade",
            hint="Write [[plan.cascade]] with on and exit, or let 'fleetcast plan' choose",
        )  # fmt: skip
    asked = question(state)
    return asked.outcome(decided(asked))


def max_users(state: Setting, *, tolerance: float = 0.02) -> Users:
    """Returns how many users the tiers carry within the SLO under the cascade that the plan decides, else the best one.

    Raises:
        SpecError: a closed loop, or no limit on a time.
    """
    asked = question(state)
    if asked.queues is None:
        raise SpecError(
            "workload.arrivals.kind", "has no queues to fill where the workload has exits", value="closed",
            limit="arrivals by the clock", hint='Write e.g. arrivals = { kind = "poisson", rate = "1 /s", ... }',
        )  # fmt: skip
    limits = asked.problem.limits
    if not set(limits) & set(QUEUED):
        raise SpecError("slo", "limits no time", hint="Set e.g. slo.e2e_p99: without one every load is held")
    if state.scenario.plan.cascade:
        cascade: Cascade | None = decided(asked)
    else:
        cascade = next(iter(choose_queued(asked.problem, asked.queues).best), None)
    if cascade is None:
        return Users(0, None, None, tolerance, ((asked.queues.users, False),))
    users, tried = users_held(asked.costs, cascade, limits, tolerance=tolerance)
    least = SPAN * max(limits[name] for name in limits if name in QUEUED)
    held = replace(asked, queues=Queues(asked.costs, users, least)).outcome(tried[users]) if users else None
    found = tuple((u, meets(c, limits)) for u, c in tried.items())
    return Users(users, held, min((u for u, met in found if not met), default=None), tolerance, found)


def decided(asked: Question) -> Cascade:
    """Returns the cascade of the scenario's plan.

    Raises:
        SpecError: names the stage and what is wrong with it.
        Infeasible: a part does not fit on its tier.
    """
    stages, costs = asked.state.scenario.plan.cascade, asked.costs
    names, depths = [tier.name for tier in costs.tiers], list(asked.problem.exits)
    legs: list[Leg] = []
    for i, stage in enumerate(stages):
        path = f"plan.cascade[{i}]"
        check_stage(stage, stages, i, names, depths, path)
        tier = names.index(stage.on)
        if asked.queues is not None:
            check_queued(stage, legs, tier, path)
        if stage.handoff == "text":
            leg = from_text(costs, tier, stage.exit)
        else:
            low = names.index(stage.after or stages[i - 1].on)
            if i and (not legs[-1].complete or stage.split != legs[-1].exit or low != legs[-1].tier):
                raise SpecError(
                    f"{path}.split", "does not go on from the stage before", value=stage.split,
                    limit="its tier and its exit, which it must have computed alone", hint='Use handoff = "text"',
                )  # fmt: skip
            if low > tier or (low == tier and not i):
                raise SpecError(
                    f"{path}.after", "is not before this tier", value=names[low], limit=f"one before {stage.on}"
                )
            leg = from_split(costs, low, tier, stage.split, stage.exit, stage.handoff, begun=i > 0)
        if leg is None:
            raise _reason(costs, tier, stage)
        legs.append(leg)
    for t, parts in holdings(legs).items():
        if (wrong := costs.lacks(t, parts)) is not None:
            raise wrong
    thresholds = [s.threshold for s in stages[:-1] if s.threshold is not None]
    quality, reach = asked.problem.judge.cascade([depths.index(s.exit) for s in stages], [thresholds])
    found = evaluate(legs, thresholds, float(quality[0]), reach[0].tolist())
    return found if asked.queues is None else queued(asked.queues, found)


def _statistics(values: Mapping[str, float], metric: str) -> dict[str, float]:
    found = {name.partition(".")[2]: values[name] for name in QUEUED if name.startswith(metric) and name in values}
    return found or {"mean": values[metric]}


def _reason(costs: Costs, tier: int, stage: Stage) -> Infeasible:
    try:
        costs.use(tier, whole(stage.exit))
    except Infeasible as error:
        return error
    return Infeasible(f"memory of the tiers of {stage.label()}", need=1, have=0)


def _judge(given: float | str | None, exits: Sequence[Exit], folder: Path) -> Judge:
    quality = tuple(e.quality for e in exits)
    if given is None:
        return Certain(quality)
    if isinstance(given, str):
        answers = read_answers(folder / given, exits)
        return Measured(answers.confidence, answers.right)
    if not (quality[0] > 0.0 and quality[-1] < 1.0):
        raise SpecError(
            "workload.exits", "has an exit that is always right or always wrong", limit="qualities above 0 and below 1",
            hint="Leave it out, or leave out workload.confidence",
        )  # fmt: skip
    return Binormal(quality, float(given))


def _goals(state: Setting) -> tuple[Axis, ...]:
    goals: tuple[Axis, ...] = state.scenario.objective.goals()
    for goal, _, _ in goals:
        if goal not in COLUMNS:
            raise Unsupported(
                f"objective.maximize = '{goal}' is not answered for exits",
                f"Minimise one of {', '.join(COLUMNS)}",
            )
    priced = any(group.price is not None for group in state.tree.groups)
    if not priced and any(goal == "cost" for goal, _, _ in goals):
        if state.scenario.objective.minimize is not None:
            raise SpecError("objective.minimize", "needs prices", value="cost", limit="no tier has one")
        return (("energy", MINIMIZE["energy"], 1),)
    return goals


def _outdone(cascade: Cascade, others: Sequence[Cascade]) -> bool:
    """Whether the beginning of a cascade, alone, is ranked before it."""
    return any(
        len(c.legs) < len(cascade.legs)
        and [leg.shape for leg in c.legs] == [leg.shape for leg in cascade.legs[: len(c.legs)]]
        for c in others[: next(i for i, c in enumerate(others) if c is cascade)]
    )


def _floor(asked: Question) -> dict[str, float]:
    """The limit on wrong answers alone, widened to what the best exit makes."""
    quality = (float(asked.problem.judge.cascade([i], np.empty((1, 0)))[0][0]) for i in range(len(asked.exits)))
    return {"error": max(asked.problem.limits.get("error", 1.0), 1.0 - max(quality))}


def _tiers(legs: Sequence[Leg]) -> list[int]:
    return sorted({t for leg in legs for t in (leg.tier, leg.after)})


def _stages(cascade: Cascade, names: Sequence[str]) -> tuple[Stage, ...]:
    thresholds = [*cascade.thresholds, None]
    return tuple(
        Stage(
            on=names[leg.tier], exit=leg.exit, handoff=leg.handoff, split=leg.split,
            after=names[leg.after] if leg.split else None, threshold=t,
        )
        for leg, t in zip(cascade.legs, thresholds, strict=True)
    )  # fmt: skip


def _rejected(asked: Question) -> tuple[dict[str, Any], ...]:
    rows = []
    for t, tier in enumerate(asked.costs.tiers):
        for exit in asked.problem.exits:
            if (wrong := asked.costs.lacks(t, frozenset((whole(exit),)))) is not None:
                rows.append({
                    "family": f"exit {exit} on {tier.name}", "constraint": wrong.constraint, "need": wrong.need,
                    "have": wrong.have, "unit": wrong.unit,
                })  # fmt: skip
    return tuple(rows)
