"""Plans whose stages lie each on one group of a fleet of several, as columns: the exact best of every layout.

The rule that deals layers to stages is `policy.place.stages.NicAware` in its other form (a test holds both equal): by
speed, within what the devices of a stage hold. The pipeline runs as the events of `sim.training.pipeline`, all plans
of one order at once. A bound says which plans need not be run: a stage waits for those before it to fill, works, and
drains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.training import unlike
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import SCHEDULES, Plans
from fleetcast.cost.training.unlike import Array, Counts, Paces, paces
from fleetcast.policy.place.stages.nic_aware import WORTH, orders
from fleetcast.search.training.exhaust import CHUNK, Found, Weigh, exhaust
from fleetcast.search.training.space import Space
from fleetcast.sim.training.mixed import afterwards, drawn, hop, stage_seconds
from fleetcast.sim.training.orders import one_forward_one_backward
from fleetcast.sim.training.pipeline import lengths
from fleetcast.sim.training.setting import Setting

Progress = Callable[[int, int], None]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Laid:
    """Where the layers of plans lie.

    Attributes:
        groups: i8[plans, stages], the group of each stage.
        layers: i8[plans, stages].
        fits: whether every stage holds its layers.
    """

    groups: Counts
    layers: Counts
    fits: Bools


def search(
    state: Setting, every: Space, job: Job, *, weigh: Weigh | None, goal: str, progress: Progress | None = None
) -> Found:
    """Returns the best plan of every layout: stages on groups where they divide, all ranks as the slowest elsewhere.

    Args:
        state: the scenario, resolved; a fleet of several groups.
        every: all plans.
        job: the batch.
        weigh: what is minimised where all ranks are alike; None = time.
        goal: "time", "cost" or "energy".
        progress: told (layouts done, layouts).
    """
    apart = divided(state, every)
    plain = every.layouts["schedule"] == SCHEDULES.index("1f1b")
    kept = ~apart | plain if (apart & plain).any() else np.ones_like(apart)  # over groups all schedules run as 1F1B
    every, apart = every.only(kept), apart[kept]
    together = exhaust(every.only(~apart), state.network, job, state.system, weigh=weigh) if not apart.all() else None
    found = _empty(every)
    if together is not None:
        _scatter(found, together, np.flatnonzero(~apart))
    fitting, checked, done = 0, 0, int((~apart).sum())
    nearest, least = (-1, np.inf) if together is None else (together.nearest, _over(state, together))
    if nearest >= 0:
        layout, choice = divmod(nearest, every.per_layout)
        nearest = int(np.flatnonzero(~apart)[layout]) * every.per_layout + choice
    for rows in _alike(every, np.flatnonzero(apart), job.batch):
        numbers = (rows[:, None] * every.per_layout + np.arange(every.per_layout)[None, :]).ravel()
        plans = every.plans(numbers)
        laid, found_paces = lay(state, job, plans)
        checked, fitting = checked + len(numbers), fitting + int(laid.fits.sum())
        _best(state, job, (every, numbers, plans), laid, found_paces, goal, found)
        if not laid.fits.any():
            room, filled, _ = unlike.fullest(state.network, job, plans, laid.groups, laid.layers, state.systems)
            layouts = (numbers // every.per_layout, filled, room["total"])
            for row in rows:
                found.need[row] = layouts[2][layouts[0] == row].min()
            at = int(np.argmin(filled))
            if filled[at] < least:
                least, nearest = float(filled[at]), int(numbers[at])
        done += len(rows)
        if progress is not None:
            progress(done, len(apart))
    if together is not None:
        checked, fitting = checked + together.checked, fitting + together.fits
    return replace(found, checked=checked, fits=fitting, nearest=nearest if not fitting else -1)


def divided(state: Setting, every: Space) -> Bools:
    """Returns which layouts have stages that divide over the groups, so that each lies on one; see `mixed.held_by`."""
    layouts = every.layouts
    each = layouts["tensor"].astype(np.int64) * layouts["data"] * layouts["context"]
    counts = np.asarray([group.count for group in state.tree.groups])
    whole = (counts[None, :] % each[:, None] == 0).all(axis=1) & (counts.min() >= each)
    return np.asarray(whole & (counts.sum() // each == layouts["pipeline"]))


def lay(state: Setting, job: Job, plans: Plans) -> tuple[Laid, list[Paces]]:
    """Returns where the layers of plans with as many stages each lie, and what groups make of a layer."""
    each = int(plans.tensor[0] * plans.data[0] * plans.context[0])
    stages = [group.count // each for group in state.tree.groups]
    found = [paces(state.network, job, plans, system) for system in state.systems]
    network, depth, zero = state.network, state.network.depth, np.zeros(len(plans))
    every, micro = list(orders(stages)), int(plans.micro_batches(job.batch)[0])
    seconds, after = (np.stack([getattr(p, name) for p in found], axis=1) for name in ("seconds", "after"))
    heads = np.stack([p.last for p in found], axis=1)
    rows = np.arange(len(plans))

    def placed(few: NDArray[np.intp], capped: bool) -> tuple[Counts, Counts, Bools]:
        """Returns groups, layers and whether stages hold them, by the best order of the groups of each plan."""
        most = np.full((len(few), len(every[0])), depth, dtype=np.int64)
        dealt, takes = [], []
        for order in every:
            if capped:
                most = np.stack([held(group, position) for position, group in enumerate(order)], axis=1)
            index = np.asarray(order)
            layers, length = unlike.deal(
                seconds[few][:, index], after[few][:, index], zero[few], heads[few, index[-1]], most, depth, micro
            )
            dealt.append(layers)
            takes.append(length)
        table = np.stack(takes)
        at = np.argmin(table, axis=0)
        at = np.where(table[at, np.arange(len(few))] < WORTH * table[0], at, 0)
        each = np.arange(len(few))
        return np.asarray(every)[at], np.stack(dealt)[at, each], np.isfinite(table[at, each])

    groups, layers, _ = placed(rows, capped=False)
    _, filled, _ = unlike.fullest(network, job, plans, groups, layers, state.systems)
    fits = filled <= 1.0
    tight = np.flatnonzero(~fits)
    if len(tight):
        few, known = plans.take(tight), dict[tuple[int, int], Counts]()

        def held(group: int, position: int) -> Counts:
            flying = min(len(every[0]) - position, micro)  # stages between the ends differ in nothing else
            key = (group, position if position in (0, len(every[0]) - 1) else -flying)
            if key not in known:
                known[key] = unlike.most_layers(network, job, few, state.systems[group], position)
            return known[key]

        within, split, fits[tight] = placed(tight, capped=True)
        at = tight[fits[tight]]
        groups[at], layers[at] = within[fits[tight]], split[fits[tight]]
        lost = tight[~fits[tight]]
        groups[lost] = np.asarray(every[0])
        layers[lost] = unlike.deal(
            seconds[lost][:, every[0]], after[lost][:, every[0]], zero[lost], heads[lost, every[0][-1]],
            np.full((len(lost), len(every[0])), depth, dtype=np.int64), depth, micro,
        )[0]  # fmt: skip
    return Laid(groups, layers, fits), found


def timed(state: Setting, job: Job, plans: Plans, laid: Laid, found: list[Paces]) -> Array:
    """Returns s of an iteration of plans with as many stages and micro-batches each."""
    forward, backward = stage_seconds(found, laid.groups, laid.layers)
    order = one_forward_one_backward(laid.groups.shape[1], int(plans.micro_batches(job.batch)[0]))
    after = afterwards(found, laid.groups, laid.layers)
    return lengths(order, forward, backward, _hops(state, job, plans, laid.groups)) + after


def bound(state: Setting, job: Job, plans: Plans, laid: Laid, found: list[Paces]) -> Array:
    """Returns s that an iteration takes at least: no stage starts before it is reached, nor ends before it drains."""
    forward, backward = stage_seconds(found, laid.groups, laid.layers)
    both, hops = forward + backward, 2.0 * _hops(state, job, plans, laid.groups)
    before = np.zeros_like(both)
    before[:, 1:] = np.cumsum(both[:, :-1] + hops, axis=1)
    micro = plans.micro_batches(job.batch)[:, None]
    return np.asarray((before + micro * both).max(axis=1) + afterwards(found, laid.groups, laid.layers))


def _hops(state: Setting, job: Job, plans: Plans, groups: Counts) -> Array:
    """Returns s of a message over each boundary, f8[plans, stages - 1]."""
    tree, rows = state.tree, np.arange(len(plans))
    between = np.stack([
        np.stack([hop(tree, state.network, job, plans, a, b, system) for b in tree.groups])
        for a, system in zip(tree.groups, state.systems, strict=True)
    ])  # fmt: skip
    return np.asarray(between[groups[:, :-1], groups[:, 1:], rows[:, None]])


def _best(
    state: Setting, job: Job, asked: tuple[Space, NDArray[np.int64], Plans], laid: Laid, found: list[Paces], goal: str,
    kept: Found,
) -> None:  # fmt: skip
    """Keeps the best plan of each layout that fits: by time only those are run whose bound is below the best so far."""
    every, numbers, plans = asked
    layout = numbers // every.per_layout
    fitting = np.flatnonzero(laid.fits)
    if not len(fitting):
        return
    low = bound(state, job, plans, laid, found)
    if goal == "energy":
        waves = [fitting]
    else:
        firsts = [fitting[layout[fitting] == row] for row in np.unique(layout[fitting])]
        first = np.asarray([rows[np.argmin(low[rows])] for rows in firsts])
        _keep(state, job, asked, laid, found, goal, kept, first)
        rest = np.setdiff1d(fitting, first)
        waves = [rest[low[rest] <= kept.value[layout[rest]]]]
    for wave in waves:
        for start in range(0, len(wave), CHUNK):
            _keep(state, job, asked, laid, found, goal, kept, wave[start : start + CHUNK])


def _keep(
    state: Setting, job: Job, asked: tuple[Space, NDArray[np.int64], Plans], laid: Laid, found: list[Paces], goal: str,
    kept: Found, rows: NDArray[np.intp],
) -> None:  # fmt: skip
    if not len(rows):
        return
    every, numbers, plans = asked
    few, part = plans.take(rows), Laid(laid.groups[rows], laid.layers[rows], laid.fits[rows])
    own = [_take(p, rows) for p in found]
    worth = timed(state, job, few, part, own)
    if goal == "energy":
        joules = drawn(state.tree, state.network, job, few, part.groups, part.layers, own, state.systems, worth)
        worth = sum(joules.values(), np.zeros(len(few)))
    for value, number in zip(worth, numbers[rows], strict=True):
        layout = int(number) // every.per_layout
        best = (kept.value[layout], kept.best[layout] if kept.best[layout] >= 0 else np.inf)
        if (value, number) < best:
            kept.value[layout], kept.best[layout] = value, number


def _take(p: Paces, rows: NDArray[np.intp]) -> Paces:
    terms = {name: column[rows] for name, column in p.terms.items()}
    once = {name: column[rows] for name, column in p.once.items()}
    return Paces(p.forward[rows], p.backward[rows], p.last[rows], terms, once)


def _alike(every: Space, layouts: NDArray[np.intp], batch: int) -> Iterator[NDArray[np.intp]]:
    """Yields layouts with as many stages, micro-batches and devices of a stage each, as many as columns hold."""
    columns = every.layouts
    micro = -(-batch // (columns["data"] * columns["micro_batch"]))
    each = columns["tensor"] * columns["data"] * columns["context"]
    table = np.stack([columns["pipeline"], micro, each], axis=1)[layouts]
    room = max(1, CHUNK // every.per_layout)
    for kind in np.unique(table, axis=0):
        rows = layouts[(table == kind).all(axis=1)]
        for first in range(0, len(rows), room):
            yield rows[first : first + room]


def _empty(every: Space) -> Found:
    count = len(every.layouts["tensor"])
    return Found(every, 0, 0, np.full(count, -1, dtype=np.int64), np.full(count, np.inf), np.zeros(count), -1)


def _scatter(found: Found, part: Found, rows: NDArray[np.intp]) -> None:
    """Writes what was found of some layouts into what is found of all."""
    per = part.space.per_layout
    choice = part.best % per
    found.best[rows] = np.where(part.best >= 0, rows * per + choice, -1)
    found.value[rows], found.need[rows] = part.value, part.need


def _over(state: Setting, found: Found) -> float:
    """Returns by how much the nearest of plans that do not fit is too large, inf where some fit."""
    return float(found.need.min() / state.system.memory) if found.nearest >= 0 else np.inf
