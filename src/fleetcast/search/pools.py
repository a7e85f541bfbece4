"""Which pools hold the most load for the same power or money: kinds of devices, phases, and how many replicas of each.

Splitwise (Patel et al., ISCA 2024) compares clusters at equal cost and equal power. Here the fleet's ``budget`` and
``spend`` are the limits, each alone and both together, and what is searched is what ``[plan]`` leaves open: one pool
on any set of kinds, a prefill and a decode pool on any two, or the pools that are written out, in every layout, clock
and policy. Sizes that leave room for more are left out, for more of a pool is taken not to hold less; the others race
(`search.sizes`). A trial is settled by bounds where they suffice, else by a part of the trace or by all of it.

The null is what one would buy without a search: one kind, phases together, as many replicas as the limits allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.show import show
from fleetcast.cost.step import GRID
from fleetcast.scenario.fleet.tree import Tree
from fleetcast.scenario.load import ServingScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import Plan, Pool, as_tuple
from fleetcast.scenario.plan import replace as with_choice
from fleetcast.scenario.workload.prefixes import shared_tokens
from fleetcast.scenario.workload.requests import Requests
from fleetcast.search.bounds import Floor, floor_of
from fleetcast.search.candidates import Candidate, kept_apart, servers_of
from fleetcast.search.capacity import FASTEST, bisect_rate, limited_and_timed
from fleetcast.search.held import Equal, Held, Sizing
from fleetcast.search.hunt import PARTS, SHORTEST, Hunt
from fleetcast.search.layouts import places
from fleetcast.search.pace import Pace, Traffic, pace
from fleetcast.search.sizes import Sizes, Won, maximal, race
from fleetcast.search.space import MOST, Space, enumerate_space, ways
from fleetcast.sim.serving.provision import Taken, excess, limited, taken
from fleetcast.sim.serving.setting import Server, Setting

BOTH = ("together", "split")
LONG = 20.0
"""Traffic that lasts fewer mean times of a request than this shows no steady state."""
LIMITS = {"power": "budget", "cost": "spend"}
"""What is equal, and the key of the fleet that says how much of it."""


@dataclass(frozen=True, eq=False)
class Shape:
    """Pools of which only the sizes are open.

    Attributes:
        servers: what a replica of each pool runs.
        route: complete.
        options: what each size may be.
    """

    servers: tuple[Server, ...]
    route: Any
    options: tuple[tuple[int, ...], ...]

    def pools(self, sizes: Sizes) -> tuple[Pool, ...]:
        """Returns the pools of some sizes, complete."""
        return tuple(with_choice(s.pool, replicas=n) for s, n in zip(self.servers, sizes, strict=True))

    def taken(self, tree: Tree, sizes: Sizes) -> Taken:
        """Returns what they take."""
        return taken(tree, list(zip(self.servers, self.pools(sizes), strict=True)))

    def fits(self, tree: Tree, sizes: Sizes) -> bool:
        """Whether the groups hold them and they stay within the fleet's limits."""
        pools, room = self.pools(sizes), {g.name: g.count for g in tree.groups}
        for server, pool in zip(self.servers, pools, strict=True):
            room[server.group.name] -= pool.devices()
        return min(room.values()) >= 0 and excess(tree, self.taken(tree, sizes), capped=False) is None

    @property
    def one_kind(self) -> str | None:
        """The group where both phases run together on it alone, else None."""
        return self.servers[0].group.name if len(self.servers) == 1 and self.servers[0].pool.role == "all" else None

    @property
    def split(self) -> bool:
        """Whether some pool takes one phase alone."""
        return any(s.pool.role != "all" for s in self.servers)

    @cached_property
    def speed(self) -> tuple[float, ...]:
        """Decoded tokens a second of a replica of each pool at its usual batch, a guess that only orders the race."""
        found = []
        for s in self.servers:
            batch = min(64, len(s.cost.tables["floor"]) - 1)
            t = s.cost.tables
            found.append(
                batch / float(np.interp(batch, GRID, t["dense"] + t["experts"] + t["head"]) + t["base"][batch])
            )
        return tuple(found)


Design = tuple[Shape, Sizes]


def best_pools(
    scenario: ServingScenario, *, tolerance: float = 0.02, progress: Callable[[int, int], None] | None = None
) -> Sizing:
    """Returns the pools that hold the most load at equal power, at equal cost, and at both.

    Args:
        scenario: its fleet says what there is and how much of it may be taken; ``[plan]`` what is open.
        tolerance: relative width of the bracket at which to stop.
        progress: called with (races run, races).

    Raises:
        SpecError: neither ``fleet.budget`` nor ``fleet.spend``, a power policy, no SLO, or a load without a rate.
    """
    state = limited_and_timed(scenario)
    _check(state)
    found, lines = shapes(state)
    given = [name for name, key in LIMITS.items() if getattr(state.tree, key) is not None]
    sets = [(name,) for name in given] + ([tuple(given)] if len(given) > 1 else [])
    trial = _Trial(state)
    rows = []
    for i, equal in enumerate(sets):
        rows.append(_equal(trial, found, equal, tolerance))
        if progress is not None:
            progress(i + 1, len(sets))
    return Sizing(tuple(rows), tuple(lines), tuple(_notes(state, rows)))


def _notes(state: Setting, rows: Sequence[Equal]) -> Iterator[str]:
    """Says where the traffic is over before a queue could grow."""
    held = [row.best for row in rows if row.best is not None]
    if not held:
        return
    most = max(held, key=lambda h: h.factor)
    span, each = state.requests.duration / most.factor, float(most.outcome.metrics["e2e"]["mean"])
    if span < LONG * each:
        yield (
            f"at {show(most.rate, 'requests/s')} all {len(state.requests):,} requests arrive within {show(span, 's')} "
            f"and one takes {show(each, 's')}: too few to see queues grow, the load may not last; give more requests"
        )


def _check(state: Setting) -> None:
    if not limited(state.tree):
        raise SpecError(
            "fleet.budget", "is missing, and so is fleet.spend", limit="what the fleets that are compared have equal",
            hint='Add e.g. fleet.budget = "200 kW", fleet.spend = "500 $/h", or both',
        )  # fmt: skip
    if state.scenario.plan.draft is not None:
        raise SpecError(
            "plan.pools.role", "is not sized with the pools it drafts for", value="draft",
            limit="pools that serve; they may draft on their own devices", hint="Size the pools without it",
        )  # fmt: skip
    if state.scenario.plan.power is not None:
        raise SpecError(
            "plan.power", "does not go with pools at equal power", value=state.scenario.plan.power,
            limit="servers at their highest power", hint="Leave it out, or ask capacity --of servers",
        )  # fmt: skip


def shapes(state: Setting) -> tuple[list[Shape], list[str]]:
    """Returns the pools of which only the sizes are open, and the space in sentences.

    Raises:
        SpecError: more than can be looked at.
    """
    plan = state.scenario.plan
    if len(plan.pools) == 1 and plan.phases is None and plan.pools[0].role == "all":
        plan = Plan(pools=plan.pools, route=plan.route, phases=BOTH)
    found: list[Shape] = []
    lines: list[str] = []
    for templates, route in ways(plan):
        space = enumerate_space(state, tuple(with_choice(t, replicas=1) for t in templates), route)
        asked = [as_tuple(t.replicas) for t in templates]
        found += _together(state, space, asked[0]) if space.joined else _apart(state, space, asked)
        lines += [line.replace("(replicas 1; ", "(").replace(" (replicas 1)", "") for line in space.lines]
    if not any(shape.one_kind for shape in found):
        alone = with_choice(plan.pools[0], role="all", on=None, replicas=1)
        found += [s for s in _together(state, enumerate_space(state, (alone,)), ()) if s.one_kind]
    return found, lines


def _offers(state: Setting, space: Space, row: int) -> list[Server | None]:
    return [s if isinstance(s, Server) else None for s in servers_of(state, space, row)]


def _shape(space: Space, servers: Sequence[Server], asked: Sequence[Sequence[int]]) -> Shape:
    options = []
    for server, sizes in zip(servers, asked, strict=True):
        x = server.layout
        span = x.tensor_parallel * x.attention_dp
        most = int(places(server.group, np.array([span]))[0]) // x.pipeline_parallel
        options.append(tuple(n for n in sorted(sizes) if n <= most) if sizes else tuple(range(1, most + 1)))
    return Shape(tuple(servers), space.route, tuple(options))


def _together(state: Setting, space: Space, asked: Sequence[int]) -> Iterator[Shape]:
    """One pool on each kind of every set of kinds, all under one variant."""
    offers: dict[int, list[list[Server | None]]] = {}
    for row in range(len(space.rows)):
        offers.setdefault(int(space.rows["group"][row]), []).append(_offers(state, space, row))
    for size in range(1, len(offers) + 1):
        for kinds in itertools.combinations(offers, size):
            for chosen in itertools.product(*(offers[k] for k in kinds)):
                for variant in zip(*chosen, strict=True):
                    servers = [s for s in variant if s is not None]
                    if len(servers) == size:
                        yield _shape(space, servers, [asked] * size)


def _apart(state: Setting, space: Space, asked: Sequence[Sequence[int]]) -> Iterator[Shape]:
    """One pool per template, on any kinds."""
    own: list[list[Server]] = []
    for t in range(len(space.templates)):
        rows = np.flatnonzero(space.rows["pool"] == t)
        own.append([s for row in rows for s in _offers(state, space, int(row)) if s is not None])
    count = int(np.prod([len(o) for o in own]))
    if count > MOST:
        raise SpecError(
            "plan.pools", f"leave {count:,} sets of pools open", limit=f"at most {MOST:,}",
            hint="Fix the parallel degrees of each pool, or list fewer values",
        )  # fmt: skip
    for servers in itertools.product(*own):
        caches = {(s.model.id, s.kv_dtype) for s in servers}
        if len(caches) == 1:
            yield _shape(space, servers, asked)


def _equal(trial: _Trial, found: Sequence[Shape], equal: tuple[str, ...], tolerance: float) -> Equal:
    """Runs the races of one set of limits: each kind alone, then everything against the best of these."""
    full = trial.state.tree
    tree = replace(
        full, budget=full.budget if "power" in equal else None, spend=full.spend if "cost" in equal else None
    )
    designs: list[Design] = []
    enumerated = 0
    for shape in found:
        sizes, count = maximal(shape.options, lambda s, shape=shape: shape.fits(tree, s))  # type: ignore[misc]
        designs += [(shape, s) for s in sizes]
        enumerated += count
    designs.sort(key=trial.guess, reverse=True)
    before = trial.tries, trial.bounded
    nulls: dict[str, Won[Design]] = {}
    for kind in dict.fromkeys(s.one_kind for s in found if s.one_kind is not None):
        nulls[kind] = race([d for d in designs if d[0].one_kind == kind], trial.holds, bisect_rate(tolerance))
    start = max(nulls.values(), key=lambda won: won.held, default=None)
    mixed = [d for d in designs if d[0].one_kind is None and not d[0].split]
    together = race(mixed, trial.holds, bisect_rate(tolerance), start) if mixed else start
    won = race([d for d in designs if d[0].split], trial.holds, bisect_rate(tolerance), together)
    counts = {
        "shapes": len(found), "enumerated": enumerated, "full": len(designs), "tried": trial.tries - before[0],
        "bounded": trial.bounded - before[1],
    }  # fmt: skip
    held = {kind: trial.held(null, full) for kind, null in nulls.items()}
    return Equal(equal, held, trial.held(together, full) if together else None, trial.held(won, full), counts)


def _least(requests: Requests) -> Traffic:
    """The requests as pools have to serve them at least, some of which may cache prefixes."""
    return Traffic(requests, shared_tokens(requests, 1) if requests.parent is not None else None)


class _Trial:
    """Whether pools hold a load, each asked once."""

    def __init__(self, state: Setting) -> None:
        self.state = state
        self.tries = self.bounded = 0
        self.known: dict[tuple[Shape, Sizes, float], bool] = {}
        self.outcomes: dict[tuple[Shape, Sizes, float], Outcome] = {}
        self.hunts: dict[float, tuple[Hunt, Traffic]] = {}
        self.paces: dict[int, Pace] = {}
        self.traffic = _least(state.requests)
        self.count = len(state.requests)

    def guess(self, design: Design) -> float:
        """Returns requests a second that a design may hold: of its phases the slower."""
        shape, sizes = design
        prompt, output = (tokens / self.count for tokens in self.state.tokens)
        prefill = decode = mixed = 0.0
        for s, speed, n in zip(shape.servers, shape.speed, sizes, strict=True):
            prompts = 1.0 / max(self._pace(s).token * prompt, 1e-12)
            answers = speed / output
            if s.pool.role == "prefill":
                prefill += n * prompts
            elif s.pool.role == "decode":
                decode += n * answers
            else:
                mixed += n / (1.0 / prompts + 1.0 / answers)
        return mixed + min(prefill, decode)

    def holds(self, design: Design, load: float) -> bool:
        """Whether a design meets the SLO under ``load`` times the scenario's."""
        shape, sizes = design
        key = shape, sizes, load
        if key not in self.known:
            self.tries += 1
            self.known[key] = self._settle(shape, sizes, load)
        return self.known[key]

    def held(self, won: Won[Design], tree: Tree) -> Held | None:
        """Returns what a race's winner holds."""
        if won.design is None:
            return None
        shape, sizes = won.design
        outcome = self.outcomes[shape, sizes, won.held]
        rate = self.state.requests.rate * won.held
        return Held(won.held, rate, won.missed, outcome, shape.taken(tree, sizes))

    def _settle(self, shape: Shape, sizes: Sizes, load: float) -> bool:
        hunt, traffic = self._hunt(load)
        roles = [s.pool.role if kept_apart(shape.route) else "all" for s in shape.servers]
        parts = [(n, self._pace(s), role) for s, n, role in zip(shape.servers, sizes, roles, strict=True)]
        floor: Floor = floor_of(parts, traffic)
        if hunt.misses(floor):
            self.bounded += 1
            return False
        plan = Plan(pools=shape.pools(sizes), route=shape.route)
        c = Candidate(len(self.known), (id(shape), *sizes), 0, plan, shape.servers, floor)
        outcome = hunt.settle(c)
        if outcome is None or not outcome.slo["met"]:
            return False
        self.outcomes[shape, sizes, load] = outcome
        return True

    def _hunt(self, load: float) -> tuple[Hunt, Traffic]:
        """A search at one load that keeps whatever meets the SLO: nothing is beaten."""
        if load not in self.hunts:
            state = replace(self.state, requests=self.state.requests.speed_up(load))
            sizes = [k for part in PARTS if (k := int(self.count * part)) >= SHORTEST]
            self.hunts[load] = Hunt(state, (FASTEST,), (FASTEST,), None, sizes), _least(state.requests)
        return self.hunts[load]

    def _pace(self, server: Server) -> Pace:
        if id(server) not in self.paces:
            self.paces[id(server)] = pace(server, self.traffic)
        return self.paces[id(server)]
