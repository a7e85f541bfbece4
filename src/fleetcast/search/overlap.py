"""Which nano-batches: how an iteration is cut, in what order its pieces run, and with what shares of the device.

Two searches over the schedules of `cost.overlap`:

- `tune` picks splits, skew and one share per kind of operator for what an iteration of the scenario holds: the few
  numbers a plan carries. It runs every member of that family whose lower bound does not exceed the best so far.
- `best_schedule` takes any order of every stream and a share for each operator. Small instances are enumerated (all
  orders that respect the chains, all shares); larger ones start at the best of `tune`'s family and are improved by
  swapping neighbours on a stream and by changing one share, until nothing helps or the budget is spent.

Zhu et al., "NanoFlow", OSDI 2025, search the same space with two integer programs: structure first, shares second.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from fleetcast.base.record import Record
from fleetcast.cost.layers import Rank
from fleetcast.cost.overlap.nano import LAYERS, Nano, layers_time, nano_of, table_of
from fleetcast.cost.overlap.operators import COMPUTE, Batch, Operator, layer_operators
from fleetcast.cost.overlap.schedule import (
    MEASURED,
    Interference,
    Schedule,
    ScheduleError,
    chain,
    check,
    lower_bound,
    record,
    run,
    with_shares,
)
from fleetcast.cost.step import GRID, StepCost
from fleetcast.scenario.plan import Pool
from fleetcast.scenario.plan import replace as replace_pool
from fleetcast.sim.serving.setting import Setting, sizes

SPLITS: tuple[tuple[float, ...], ...] = (
    (0.5, 0.5), (0.375, 0.625), (0.25, 0.75), (1 / 3, 1 / 3, 1 / 3), (0.25, 0.25, 0.5), (0.25, 0.25, 0.25, 0.25),
)  # fmt: skip
SKEWS = (0, 1, 2, 3)
MEMORY_SHARES = (0.1, 0.2, 0.4, 0.6)
NETWORK_SHARES = (0.1, 0.2, 0.3)
SHARES = (0.1, 0.2, 0.4, 0.6)
"""Shares that `best_schedule` gives single operators."""
NEVER = int(GRID[-1]) + 1
"""Tokens beyond every iteration of the tables: nothing is cut."""
EXACT = 20_000
"""Most schedules that `best_schedule` enumerates."""


@dataclass(frozen=True)
class Found:
    """The best schedule of a search.

    Attributes:
        schedule: it.
        time: s.
        bound: s that no schedule of these operators beats.
        exact: every schedule of the space was run or could not win.
        evaluated: schedules run.
    """

    schedule: Schedule
    time: float
    bound: float
    exact: bool
    evaluated: int


def best_schedule(
    batches: Sequence[Sequence[Operator]], layers: int = 1, interference: Interference = MEASURED, *,
    shares: Sequence[float] = SHARES, limit: int = EXACT, budget: int = 600,
) -> Found:  # fmt: skip
    """Returns the best schedule found for nano-batches of given operators, checked.

    Args:
        batches: operators of one layer per nano-batch.
        layers: chained before a barrier.
        interference: what operators keep of their speed.
        shares: that a decode attention or collective may take.
        limit: most schedules to enumerate; beyond it the search is local.
        budget: schedules that the local search may run.

    Raises:
        ScheduleError: the best one breaks a rule, which would be a fault of this package.
    """
    start = chain(batches, layers, 0, min(shares), min(shares))
    free = [i for i, op in enumerate(start.operators) if op.stream != COMPUTE]
    count = len(shares) ** len(free) * math.prod(_orders(start, stream) for stream in range(3))
    if count <= limit:
        found = _enumerate(start, free, shares, interference)
    else:
        found = _local(batches, layers, free, shares, interference, budget)
    check(found.schedule, run(found.schedule, interference), interference)
    return found


def _orders(schedule: Schedule, stream: int) -> int:
    """How many orders of a stream keep each nano-batch's own."""
    sizes_: dict[int, int] = {}
    for i in schedule.order[stream]:
        sizes_[schedule.place[i][1]] = sizes_.get(schedule.place[i][1], 0) + 1
    total = math.factorial(sum(sizes_.values()))
    return total // math.prod(math.factorial(n) for n in sizes_.values())


def _interleaved(queues: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Yields every order of all items that keeps the order within each queue."""
    queues = [q for q in queues if q]
    if not queues:
        yield ()
    for k, queue in enumerate(queues):
        for rest in _interleaved([*queues[:k], queue[1:], *queues[k + 1 :]]):
            yield (queue[0], *rest)


def _enumerate(start: Schedule, free: Sequence[int], shares: Sequence[float], interference: Interference) -> Found:
    bound = lower_bound(start)
    batches = sorted({b for _, b in start.place})
    orders = [
        list(_interleaved([tuple(i for i in queue if start.place[i][1] == b) for b in batches]))
        for queue in start.order
    ]
    best, least, evaluated = start, math.inf, 0
    for order in itertools.product(*orders):
        for chosen in itertools.product(shares, repeat=len(free)):
            every = list(start.share)
            for i, share in zip(free, chosen, strict=True):
                every[i] = share
            candidate = replace(start, order=order, share=tuple(every))
            evaluated += 1
            time = _time(candidate, interference)
            if time < least:
                best, least = candidate, time
        if least <= bound * (1.0 + 1e-12):
            break
    return Found(best, least, bound, True, evaluated)


def _local(
    batches: Sequence[Sequence[Operator]], layers: int, free: Sequence[int], shares: Sequence[float],
    interference: Interference, budget: int,
) -> Found:  # fmt: skip
    best, least, evaluated = None, math.inf, 0
    for skew, memory, network in itertools.product(SKEWS, MEMORY_SHARES, NETWORK_SHARES):
        candidate = chain(batches, layers, skew, memory, network)
        evaluated += 1
        time = _time(candidate, interference)
        if best is None or time < least:
            best, least = candidate, time
    assert best is not None
    bound, left, improved = lower_bound(best), budget, True
    while improved and left > 0:
        improved = False
        for candidate in _neighbours(best, free, shares):
            if left <= 0:
                break
            left, evaluated = left - 1, evaluated + 1
            time = _time(candidate, interference)
            if time < least * (1.0 - 1e-9):
                best, least, improved = candidate, time, True
                break
    return Found(best, least, bound, False, evaluated)


def _neighbours(schedule: Schedule, free: Sequence[int], shares: Sequence[float]) -> Iterator[Schedule]:
    for stream, queue in enumerate(schedule.order):
        for k in range(len(queue) - 1):
            if schedule.place[queue[k]][1] == schedule.place[queue[k + 1]][1]:
                continue  # a nano-batch's own operators depend on each other
            swapped = (*queue[:k], queue[k + 1], queue[k], *queue[k + 2 :])
            order = (*schedule.order[:stream], swapped, *schedule.order[stream + 1 :])
            yield replace(schedule, order=order)
    for i in free:
        for share in shares:
            if share != schedule.share[i]:
                yield with_shares(schedule, [share if j == i else s for j, s in enumerate(schedule.share)])


def _time(schedule: Schedule, interference: Interference) -> float:
    """Seconds of a schedule; infinite where its orders lock up or its shares leave a product nothing."""
    try:
        return run(schedule, interference).time
    except ScheduleError:
        return math.inf


def tune(rank: Rank, batch: Batch, scale: float = 1.0, gain: float = 1.0) -> Nano:
    """Returns the nano-batches under which an iteration that holds ``batch`` takes least.

    ``least`` becomes the smallest number of tokens from which on a like iteration gains by being cut; where none up to
    ``batch`` does, it lies beyond every iteration of the tables.
    """
    networks = NETWORK_SHARES if rank.tp > 1 else NETWORK_SHARES[:1]
    best, least = Nano(gain=gain), math.inf
    for splits in SPLITS:
        if batch.tokens * min(splits) < 1.0:
            continue
        family = [
            Nano(splits=splits, skew=skew, memory_share=memory, network_share=network, gain=gain)
            for skew, memory, network in itertools.product(SKEWS, MEMORY_SHARES, networks)
            if memory + network <= 0.9
        ]
        parts = _parts(rank, splits, batch, scale)
        if sum(n * lower_bound(chain(ops, 2, 0, 0.1, 0.1)) / 2 for n, ops in parts) >= least:
            continue
        for nano in family:
            interference = nano.interference()
            time = sum(
                n * run(chain(ops, 2, nano.skew, nano.memory_share, nano.network_share), interference).time / 2
                for n, ops in parts
            )
            if time < least:
                best, least = nano, time
    return msgspec.structs.replace(best, least=_least(rank, best, batch, scale))


def _parts(
    rank: Rank, splits: Sequence[float], batch: Batch, scale: float
) -> list[tuple[int, list[tuple[Operator, ...]]]]:
    """Returns (layers, operators of each nano-batch) per kind of block."""
    return [
        (count, layer_operators(rank, index, [batch.part(s) for s in splits], scale))
        for index, count in enumerate(rank.model.counts)
    ]


def _least(rank: Rank, nano: Nano, batch: Batch, scale: float) -> int:
    """The fewest tokens from which on every like iteration up to ``batch`` gains, and one that only decodes does."""
    floor = math.ceil(1.0 / min(nano.splits))
    tokens = np.geomspace(max(floor, batch.tokens / 32), max(floor, batch.tokens), 11)
    each = batch.context / batch.decodes if batch.decodes else 0.0
    alike = [batch.part(float(t) / batch.tokens) for t in tokens]
    alone = [Batch(b.tokens, b.tokens, b.tokens * each) for b in alike if b.tokens <= max(batch.decodes, floor)]
    first = len(tokens)
    for k in reversed(range(len(tokens))):
        mixes = [alike[k], *alone[k : k + 1]]
        gains = layers_time(rank, nano, mixes, scale) < [whole_time(rank, b, scale) for b in mixes]
        if not gains.all():
            break
        first = k
    return max(floor, math.ceil(tokens[first])) if first < len(tokens) else NEVER


def whole_time(rank: Rank, batch: Batch, scale: float = 1.0) -> float:
    """Returns seconds of all layers for ``batch`` without nano-batches: one operator after the other."""
    return sum(count * sum(op.time for op in ops) for count, (ops,) in _parts(rank, (1.0,), batch, scale))


def steady_batch(state: Setting, tokens: float, capacity: float) -> Batch:
    """Returns what an iteration of ``tokens`` holds on average while the scenario's traffic keeps it full.

    Of the tokens, as many decode as come out of a request; those sequences attend to their prompts and half their
    outputs, as far as ``capacity`` tokens of cache hold them.
    """
    prompt, output = (float(x) for x in (state.requests.prompt.mean(), state.requests.output.mean()))
    reach = prompt + output / 2.0
    decodes = min(tokens * output / (prompt + output), capacity / reach)
    fresh = min(tokens - decodes, decodes * prompt / output)
    return Batch(decodes + fresh, decodes, decodes * reach, fresh / prompt, fresh * (prompt + 1.0) / 2.0, fresh)


def tuned(state: Setting, pool: Pool, draft: Pool | None = None) -> Pool:
    """Returns ``pool`` with nano-batches chosen for its layout and the scenario's traffic, where it asks for any.

    A table that names its splits is kept as it is. Where the world would charge a full iteration no less for being cut,
    the pool goes without.

    Args:
        state: the scenario.
        pool: complete but for ``overlap``, which may be "nano" or a table without splits.
        draft: what drafts for it, see `Setting.server`.

    Raises:
        Infeasible: the pool does not fit, or overlap is not modelled for it.
    """
    nano = nano_of(pool.overlap)
    if nano is None:
        return replace_pool(pool, overlap=None)
    asked = dict(pool.overlap) if isinstance(pool.overlap, dict) else {"kind": "nano"}
    if "splits" in asked:
        return replace_pool(pool, overlap=table_of(nano))
    server = state.server(replace_pool(pool, overlap=None), draft)
    budget = min(sizes(server.batch)[1], int(GRID[-1]))
    key = (
        pool.on, pool.model, server.layout, server.precision, server.kv_dtype, server.engine.id, pool.clock, budget,
        pool.expert_placement,
        tuple(sorted(asked.items())),
    )  # fmt: skip
    if key not in state.overlaps:
        assert server.cost.rank is not None
        batch = steady_batch(state, budget, server.room.tokens)
        scale = server.engine.host_on(server.group.device.id).kernels
        found = tune(server.cost.rank, batch, scale, nano.gain)
        cut = state.server(replace_pool(pool, overlap=table_of(found)), draft).cost
        gains = charged(cut, batch) < charged(server.cost, batch)
        state.overlaps[key] = table_of(found) | asked if gains else None
    return replace_pool(pool, overlap=state.overlaps[key])


def charged(cost: StepCost, batch: Batch) -> float:
    """Returns seconds that the world charges for an iteration of ``batch``, prefill attention and head aside."""
    t, n = cost.tables, int(min(batch.decodes, len(cost.tables["base"]) - 1))
    cut = "cut_" if batch.tokens >= cost.scalars["cut"] else ""
    attention = max(t[f"{cut}floor"][n], t[f"{cut}base"][n] + t[f"{cut}slope"][n] * batch.context) if n else 0.0
    return float(np.interp(batch.tokens, GRID, t["dense"] + t["experts"]) + attention)


def timelines(state: Setting) -> dict[int, Record]:
    """Returns, by serving pool of a scenario's complete plan, the timeline of a full iteration under nano-batches."""
    found = {}
    plan = state.scenario.plan
    for i, (pool, server) in enumerate(zip(plan.serving, state.servers(plan), strict=True)):
        nano = nano_of(pool.overlap)
        if nano is not None and server.cost.rank is not None:
            batch = steady_batch(state, min(sizes(server.batch)[1], int(GRID[-1])), server.room.tokens)
            found[i] = timeline(server.cost.rank, nano, batch)
    return found


def timeline(rank: Rank, nano: Nano, batch: Batch, index: int = 0, layers: int = LAYERS) -> Record:
    """Returns the event record of ``layers`` layers under nano-batches, checked; `view.timeline` writes it.

    Args:
        rank: the device.
        nano: how the iteration is cut.
        batch: what it holds.
        index: of the model's block.
        layers: to show.
    """
    parts = layer_operators(rank, index, [batch.part(s) for s in nano.splits])
    schedule = chain(parts, layers, nano.skew, nano.memory_share, nano.network_share)
    result = run(schedule, nano.interference())
    check(schedule, result, nano.interference())
    return record(schedule, result)
