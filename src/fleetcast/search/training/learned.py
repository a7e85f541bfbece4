"""Training plans as knobs: a search that launches few plans, where launching is dear or the space is too large to ask.

The knobs are the columns of `search.training.space`, bit sets taken apart; layouts that do not divide are not proposed.
What does not fit in memory is found out by launching it, as on a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.tables import lookup
from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.plans import OFFLOADED, OVERLAPS, RECOMPUTE, SCHEDULES, TENSOR_MESSAGES, Plans
from fleetcast.cost.training.step import step
from fleetcast.scenario.objective import TRAINING
from fleetcast.search.learned import Found, Knob, Knobs, minimise
from fleetcast.search.learned.knobs import Value
from fleetcast.search.ranking import Ranking
from fleetcast.search.training.planner import lines, weigh_of
from fleetcast.search.training.space import CHOICE, LAYOUT, Question, Space, space
from fleetcast.sim.training.completing import decided
from fleetcast.sim.training.setting import Setting
from fleetcast.sim.training.world import simulate

WORDS = {"schedule": SCHEDULES, "recompute": RECOMPUTE, "tensor_messages": TENSOR_MESSAGES}
BITS = {"offload": OFFLOADED, "overlap": OVERLAPS}
FLAGS = ("sequence_parallel", "fused")
BETWEEN = " "
"""Joins the name of a set to a word of it: the knob "overlap data" is a flag."""


def knobs_of(every: Space, batch: int, depth: int) -> Knobs:
    """Returns the knobs of a space: those of which it has more than one value.

    Args:
        every: the space.
        batch: sequences of an iteration.
        depth: layers of the model.
    """
    found: list[Knob] = []
    for name in (*LAYOUT, *CHOICE):
        table = every.layouts[name] if name in LAYOUT else every.choices[name]
        codes = [int(v) for v in np.unique(table)]
        if name == "data" or (len(codes) == 1 and name != "tensor"):
            continue  # data parallelism is what the other degrees leave
        if name in WORDS:
            found.append(Knob(name, tuple(WORDS[name][code] for code in codes)))
        elif name in BITS:
            for bit, word in enumerate(BITS[name]):
                if len({code >> bit & 1 for code in codes}) > 1:
                    found.append(Knob(name + BETWEEN + word, (False, True)))
        elif name in FLAGS:
            found.append(Knob(name, (False, True)))
        else:
            found.append(Knob(name, tuple(codes)))
    knobs = tuple(found)
    layouts, choices = _Rows.of(every.layouts), _Rows.of(every.choices)
    devices = int(every.plans(np.zeros(1, dtype=np.int64)).devices[0])

    def allowed(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        coded = codes_of(every, columns, devices)
        return layouts.holds(coded) & choices.holds(coded)

    def derived(columns: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        coded = codes_of(every, columns, devices)
        data = np.maximum(coded["data"], 1).astype(np.float64)
        pieces = coded["pipeline"] * coded["interleave"].astype(np.float64)
        return [data, batch / (data * coded["micro_batch"]), depth / pieces]

    return Knobs(knobs, allowed, derived)


def codes_of(every: Space, columns: Mapping[str, NDArray[Any]], devices: int) -> dict[str, NDArray[np.int64]]:
    """Returns the columns of `Plans` that settings mean, by name."""
    length = len(next(iter(columns.values())))
    coded: dict[str, NDArray[np.int64]] = {}
    for name in (*LAYOUT, *CHOICE):
        table = every.layouts[name] if name in LAYOUT else every.choices[name]
        if name in columns and name in WORDS:
            coded[name] = np.searchsorted(np.asarray(sorted(WORDS[name])), columns[name])
            coded[name] = np.asarray([WORDS[name].index(w) for w in sorted(WORDS[name])])[coded[name]]
        elif name in columns:
            coded[name] = np.asarray(columns[name], dtype=np.int64)
        else:
            coded[name] = np.full(length, int(table[0]), dtype=np.int64)
        for bit, word in enumerate(BITS.get(name, ())):
            if name + BETWEEN + word in columns:
                flag = np.asarray(columns[name + BETWEEN + word], dtype=np.int64)
                coded[name] = (coded[name] & ~np.int64(1 << bit)) | (flag << bit)
    used = coded["tensor"] * coded["pipeline"] * coded["context"]
    coded["data"] = np.where(devices % used, 0, devices // used)
    return coded


@dataclass(frozen=True)
class _Rows:
    """Rows of whole numbers, to ask of others whether they are among them."""

    values: dict[str, NDArray[np.int64]]
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]]) -> _Rows:
        values = {name: np.unique(column).astype(np.int64) for name, column in columns.items()}
        empty = cls(values, np.empty(0, dtype=np.int64))
        return cls(values, np.unique(empty.number(columns)))

    def number(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Returns a number for each row, -1 where a column holds what no row has there."""
        found = np.zeros(len(next(iter(columns.values()))), dtype=np.int64)
        missing = np.zeros(len(found), dtype=np.bool_)
        for name, known in self.values.items():
            at = np.minimum(np.searchsorted(known, columns[name]), len(known) - 1)
            missing |= known[at] != columns[name]
            found = found * len(known) + at
        return np.where(missing, -1, found)

    def holds(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Returns which rows are among them."""
        number = self.number(columns)
        at = np.minimum(np.searchsorted(self.numbers, number), len(self.numbers) - 1)
        return np.asarray(self.numbers[at] == number)


def plans_of(every: Space, setting: Mapping[str, Value]) -> Plans:
    """Returns the one plan of a setting."""
    first = every.plans(np.zeros(1, dtype=np.int64))
    columns = {name: np.asarray([value]) for name, value in setting.items()}
    coded = {n: c.astype(np.int32) for n, c in codes_of(every, columns, int(first.devices[0])).items()}
    return replace(first, **coded, expert_tensor=coded["tensor"])


def search(
    state: Setting, *, evaluations: int = 100, top: int | None = 6, history: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ranking:  # fmt: skip
    """Returns the best plan that ``evaluations`` launches find; what a launch costs is simulated.

    Args:
        state: the scenario, resolved.
        evaluations: launches in all.
        top: how many plans to return; None = all that ran.
        history: a file of launches to keep, and to go on from.
        progress: told (launches done, launches).

    Raises:
        SpecError: nothing divides, no evaluation, or a history of another space.
    """
    goals = state.scenario.objective.goals(TRAINING, {})
    plan, work = state.scenario.plan, state.workload
    every = space(Question(state.network, work.sequence, work.batch, state.group.count, plan))
    knobs = knobs_of(every, work.batch, state.network.depth)
    dtype = plan.dtype if isinstance(plan.dtype, str) else state.dtype
    job = state.job(dtype)
    weigh = weigh_of(state, job, goals[0][0])

    def launch(setting: Mapping[str, Value]) -> float | None:
        rows = plans_of(every, setting)
        if len(state.tree.groups) > 1:  # stages may lie on one group each
            outcome = simulate(state, decided(rows, 0, dtype, plan))
            return float(lookup(outcome.metrics, goals[0][1])) if outcome.metrics["fits"] else None
        need = memory(state.network, job, rows, state.system)
        if need["total"][0] > state.system.memory or need["host"][0] > state.system.host_memory:
            return None
        terms = step(state.network, job, rows, state.system)
        return float((terms["total"] if weigh is None else weigh(rows, terms))[0])

    found = minimise(knobs, launch, budget=evaluations, seed=state.scenario.seed, history=history, progress=progress)
    counts = dict.fromkeys(("bounded", "cut_short", "deduplicated"), 0)
    ran = sum(np.isfinite(cost) for _, cost in found.history)
    counts |= {"enumerated": len(found.history), "memory_feasible": int(ran), "simulated": int(ran)}
    told = [simulate(state, decided(plans_of(every, s), 0, dtype, plan)) for s in _best(found, top)]
    said = [
        *lines(state, every),
        f"of {len(every):,} plans a predictor chose {len(found.history):,} to launch: these are the best it found, "
        "which need not be the best there are",
    ]
    return Ranking(
        plans=tuple(told), frontier=tuple(told[:1]), misses=(), rejected=(), counts=counts, goals=goals,
        axes=(*goals, ("memory", "memory", 1)), space=tuple(said),
    )  # fmt: skip


def _best(found: Found, count: int | None) -> list[Mapping[str, Value]]:
    """Returns the best settings that ran."""
    ran = sorted((pair for pair in found.history if np.isfinite(pair[1])), key=lambda pair: pair[1])
    return [setting for setting, _ in ran[:count]]
