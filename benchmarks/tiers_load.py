"""Tiers under load, for `benchmarks.tiers`: how many users one cloud carries, and the planner against every cascade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any

from benchmarks.records import Null, Ours, Paper, Record, timer
from benchmarks.tiers_exhaustive import queued_compared, same_ways
from fleetcast.base.show import show
from fleetcast.scenario.load import load_serving
from fleetcast.search.tiers.choice import Found
from fleetcast.search.tiers.planner import Question, question
from fleetcast.search.tiers.queues import MOST, choose_queued, users_held
from fleetcast.sim.serving.setting import setting

QUICK = {"instances": 100, "far": 1, "quality": 1}
TOLERANCE = 0.05


@dataclass(frozen=True)
class Carried:
    """A case: link, floor and limit on the p99 of an answer; the users that each way over the tiers carries."""

    far: str
    quality: float
    within: float
    users: Mapping[str, int]

    @property
    def gain(self) -> float | None:
        """Users of phone and cloud over those of the cloud alone; None where one of the two carries none."""
        both, alone = self.users["phone, then cloud"], self.users["cloud alone"]
        return both / alone if both and alone else None


WAYS = {(0,): "phone alone", (1,): "cloud alone", (0, 1): "phone, then cloud"}


def shared(flow: Mapping[str, Any], far: str, quality: float, within: float) -> Question:
    """Returns the frozen users and the cloud that they share, resolved."""
    part = flow["load"]
    groups = [
        {"name": "phone", "devices": f"{part['users']}x {flow['phone']['device']}"},
        {"name": "cloud", "devices": f"1x {flow['cloud']['device']}"},
    ]
    pools = [
        {"on": "phone", "dtype": flow["phone"]["dtype"]},
        {"on": "cloud", "dtype": flow["cloud"]["dtype"], "batch": {"max_batch": part["at_once"]}},
    ]
    rate = part["each"] * part["users"]
    return question(setting(load_serving({
        "fleet": {"network": far, "groups": groups},
        "workload": {
            "model": "qwen2.5-7b", "exits": flow["family"], "confidence": flow["confidence"],
            "arrivals": {"kind": "poisson", "rate": rate, "requests": part["requests"]},
            "lengths": {"kind": "fixed", "prompt": flow["prompt"], "output": flow["output"]},
        },
        "slo": {"quality": quality, "e2e_p99": within}, "objective": {"minimize": "cost"}, "plan": {"pools": pools},
    })))  # fmt: skip


def carried(flow: Mapping[str, Any], far: str, quality: float, within: float) -> Carried:
    """Returns how many users the cheapest cascade of each way carries; 0 where none meets the limits."""
    asked = shared(flow, far, quality, within)
    assert asked.queues is not None
    found: Found = choose_queued(asked.problem, asked.queues)
    users = dict.fromkeys(WAYS.values(), 0)
    for cascade in found.best:
        way = WAYS[tuple(t for t, _, _ in cascade.shape)]
        if way == "phone alone":
            users[way] = asked.queues.users  # each user brings one: as many as there are
        else:
            users[way], _ = users_held(asked.costs, cascade, asked.problem.limits, tolerance=TOLERANCE)
    return Carried(far, quality, within, users)


def load_records(flow: Mapping[str, Any], quick: bool, command: str) -> list[Record]:
    """Returns the records of tiers under load."""
    part = flow["load"]
    count = QUICK["instances"] if quick else part["instances"]
    with timer() as first:
        pairs = [queued_compared(1000 * flow["random"]["seed"] + i) for i in range(count)]
        equal = sum(same_ways(ours, best) for ours, best in pairs)
        alone = sum(min(best.values()) == min(v for w, v in best.items() if len(w) == 1) if any(
            len(w) == 1 for w in best) else not best for _, best in pairs)  # fmt: skip
        several = sum(len(way) > 1 for _, best in pairs for way in best)
    far, floors = part["far"], part["quality"]
    if quick:
        far, floors = far[: QUICK["far"]], floors[-QUICK["quality"] :]
    with timer() as second:
        cases = [carried(flow, *case) for case in product(far, floors, part["e2e_p99"])]
    gains = [c.gain for c in cases if c.gain is not None]
    freed = sum(c.users["phone alone"] > 0 for c in cases)
    worst = min((c for c in cases if c.gain is not None), key=lambda c: c.gain or 0.0, default=None)
    most = max((c for c in cases if c.gain is not None), key=lambda c: c.gain or 0.0, default=None)
    only = sum(c.users["cloud alone"] > 0 and not c.users["phone, then cloud"] for c in cases)
    said = (
        f"{len(gains)} of {len(cases)} cases; in {only} the cloud alone is quick enough, in {freed} the phone alone is"
    )
    for name, case in (("least", worst), ("most", most)):
        if case is not None:
            said += (
                f"; {name} {case.gain:.3g} times ({case.users['phone, then cloud']:,} users instead of "
                f"{case.users['cloud alone']:,}, quality {case.quality:g}, {show(case.within, 's')}, {case.far})"
            )
    own = "the paper has no such figure; the bar is ours"
    setting_ = (
        f"phones int4, one H100 that batches {part['at_once']}, a query a user a minute, {flow['prompt']} + "
        f"{flow['output']} tokens, {part['requests']:,} Poisson arrivals (all synthetic), links {', '.join(far)}, "
        f"quality {', '.join(f'{q:g}' for q in floors)}, E2E p99 within "
        f"{', '.join(show(t, 's') for t in part['e2e_p99'])}; cascades are the cheapest at {part['users']} users; "
        f"up to {MOST:,} users are tried"
    )
    return [
        Record(
            system=6, claim="tier planner under load equals trying every cascade, random instances",
            paper=Paper(setting="the paper states no figure"),
            ours=Ours(
                value=equal, unit=f"of {count}", spread=f"{several} ways of several answers among them",
                setting="60 queries by the clock, tiers that serve one at a time, percentile limits drawn; the oracle "
                "runs every cascade event by event over all tiers at once",
            ),
            null=Null(value=alone, what="the best single answer of one tier is as good on so many"),
            bar="all, for every way over the tiers", holds=equal == count, reproduced="other setting", reason=own,
            seconds=first.seconds, command=command,
        ),
        Record(
            system=6, claim="users that one cloud carries where phones answer first, times those of the cloud alone",
            paper=Paper(setting="the abstract claims that cooperation gains, without a figure"),
            ours=Ours(value=median(gains) if gains else 0.0, unit="times", spread=said, setting=setting_),
            null=Null(value=1.0, what="the cloud alone, at its cheapest exit that is right often enough"),
            bar="more users than the cloud alone, wherever both meet the limits", holds=all(g > 1.0 for g in gains),
            reproduced="other setting",
            reason="the abstract gives no figure, and the load is ours. A phone's own time is in every answer: it "
            "leaves the cloud less of the limit to queue in, or none",
            seconds=second.seconds, command=command,
        ),
    ]  # fmt: skip
