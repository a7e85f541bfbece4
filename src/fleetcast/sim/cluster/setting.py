"""A scenario of many jobs resolved: the trace read, the fleet as nodes, speeds of each job on each kind of device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from fleetcast.base.errors import Infeasible, SpecError, closest
from fleetcast.base.spec import build
from fleetcast.base.units import Quantity
from fleetcast.cost import jobs as tables
from fleetcast.cost.jobs import Linear, Profiles, Speeds, Throughputs, Virtual
from fleetcast.policy import share
from fleetcast.policy.place import gangs
from fleetcast.scenario.fleet.signals import Signal, signal
from fleetcast.scenario.fleet.tree import Tree, resolve
from fleetcast.scenario.kinds.jobs import JobsScenario
from fleetcast.scenario.workload.job_list import JobList
from fleetcast.scenario.workload.jobs import Jobs
from fleetcast.sim.cluster.board import Rules
from fleetcast.sim.cluster.grids import Grids, grids
from fleetcast.sim.cluster.nodes import Nodes, nodes
from fleetcast.sim.cluster.pace import Pace, close, errors
from fleetcast.sim.cluster.tenants import Tenant

SPEEDS = ("linear", "gavel", "profiles", "virtual")
"""Tables of speeds that a scenario may name."""


@dataclass(frozen=True, eq=False)
class Setting:
    """A scenario of many jobs, resolved.

    Attributes:
        scenario: as it was read.
        tree: the fleet.
        jobs: the trace.
        nodes: the fleet's.
        pace: speeds.
        rules: rounds, restarts, checkpoints.
        notes: what was taken as given.
    """

    scenario: JobsScenario
    tree: Tree
    jobs: Jobs
    nodes: Nodes
    pace: Pace
    rules: Rules
    notes: tuple[str, ...]

    @cached_property
    def grid(self) -> Signal:
        """Carbon intensity of the whole fleet."""
        return signal(self.tree.grid, self.tree.base)

    @property
    def grids(self) -> Grids:
        """Carbon intensity of each kind's devices."""
        assert self.rules.grids is not None, "a scenario's fleet has a grid"
        return self.rules.grids

    @cached_property
    def tenants(self) -> tuple[Tenant, ...]:
        """Who lives on the fleet beside the jobs, each played in its own world once."""
        from fleetcast.sim.cluster.neighbours import tenants

        return tenants(self)

    def share(self, choice: Any, path: str = "plan.share") -> share.Policy:
        """Returns a new share policy of a name, a table or an object.

        Raises:
            SpecError: unknown, or a class that shares nothing out.
        """
        found: share.Policy = build(share, choice, path, methods=("share",))
        return found

    def place(self, choice: Any, path: str = "plan.place") -> gangs.Policy:
        """Returns a place policy of a name, a table or an object.

        Raises:
            SpecError: unknown, or a class that places nothing.
        """
        found: gangs.Policy = build(gangs, choice, path, methods=("place",))
        return found


def setting(scenario: JobsScenario, tree: Tree | None = None) -> Setting:
    """Returns the scenario with its trace read and its names looked up.

    Args:
        scenario: as it was read.
        tree: another fleet than the scenario's; None = its own.

    Raises:
        SpecError: no such file, an unknown name, a malformed trace.
        Infeasible: a job fits nowhere.
    """
    work = scenario.workload
    tree = resolve(scenario.fleet, Path(scenario.folder)) if tree is None else tree
    jobs, where = work.read(scenario.seed, scenario.folder), nodes(tree, _zones(work, tree))
    table, notes = _speeds(work.speeds, where, _devices(where, tree), jobs, Path(scenario.folder))
    known = {name: i for i, name in enumerate(table.models)}
    unknown = next((name for name in jobs.models if name not in known and table.models != ("",)), None)
    if unknown is not None:
        runs = jobs.name(int(np.argmax(jobs.model == jobs.models.index(unknown))))
        raise SpecError(
            "workload.speeds", f"no speeds of this model, which {runs} runs", value=unknown,
            limit=f"knows {', '.join(table.models[:12])}", hint=closest(unknown, table.models),
        )  # fmt: skip
    model = np.array([known.get(name, 0) for name in jobs.models], np.int32)[jobs.model]
    jobs, cut = _capped(jobs, where)
    if isinstance(table, Linear):
        units = jobs.seconds * jobs.demand * table.factors[0] if jobs.units is None else jobs.units
    else:
        units = tables.work(table, replace(jobs, model=model), 0, where.kinds[0].node)
    if not (units > 0).all():
        first = int(np.argmin(units > 0))
        raise SpecError("workload.trace", f"does not say how much work {jobs.name(first)} is", value=jobs.source,
                        hint="Name the table that its units are of in workload.speeds")  # fmt: skip
    pace = Pace(
        table, np.asarray(units, float), model, apart=work.apart, racks=work.racks, beside=work.beside,
        believed=errors(jobs, work.error, scenario.seed),
    )  # fmt: skip
    rules = Rules(
        round=scenario.plan.round, restart=work.restart, seed=scenario.seed,
        checkpoint=inf if work.checkpoint is None else work.checkpoint,
        grids=grids(_signals(work.grids, where, tree), work.forecast_error, scenario.seed),
    )  # fmt: skip
    found = Setting(
        scenario, tree, jobs, where, pace, rules, (*notes, *cut, *_notes(scenario, jobs, where), *tree.echo())
    )
    fits(found)
    return found


def _zones(work: JobList, tree: Tree) -> dict[str, str | float]:
    """Returns the grids that groups have of their own, each group known."""
    asked = work.grids
    if asked and work.neighbours:
        raise SpecError("workload.grids", "is said beside neighbours, whose row has one grid", value=list(asked),
                        limit="one of both", hint="Write fleet.grid, and leave workload.grids out")  # fmt: skip
    names = [group.name for group in tree.groups]
    for name in asked:
        if name not in names:
            raise SpecError(f"workload.grids.{name}", "is not a group of the fleet", value=name,
                            limit=f"groups: {', '.join(names[:12])}", hint=closest(name, names))  # fmt: skip
    return asked


def _devices(where: Nodes, tree: Tree) -> list[str]:
    """Returns the device of each kind."""
    return [tree.groups[where.near[first]].device.id for first in where.first[:-1]]


def _signals(asked: dict[str, str | float], where: Nodes, tree: Tree) -> list[Signal]:
    """Returns the carbon intensity of each kind: its group's own, or the fleet's."""
    whole = signal(tree.grid, tree.base)
    own = {name: signal(grid, tree.base, f"workload.grids.{name}") for name, grid in asked.items()}
    return [own.get(kind.name, whole) for kind in where.kinds]


def fits(state: Setting) -> None:
    """Refuses a job that no kind of device can hold.

    Raises:
        Infeasible: names the job, what it needs and how much the fleet has.
    """
    jobs, speeds = state.jobs, state.pace.speeds
    runs = [f > 0 for f in speeds.factors] if isinstance(speeds, Linear) else [True] * len(state.nodes.kinds)
    kinds = [kind for kind, able in zip(state.nodes.kinds, runs, strict=True) if able] or list(state.nodes.kinds)
    most = max(kind.total for kind in kinds)
    wide = jobs.demand > most
    if wide.any():
        first = int(np.argmax(wide))
        name, kind = jobs.name(first), max(kinds, key=lambda k: k.total).name
        more = f"; {int(wide.sum()):,} of {len(jobs):,} jobs are too wide" if wide.sum() > 1 else ""
        raise Infeasible(
            f"{name} (devices of one kind, {kind}{more})", need=float(jobs.demand[first]), have=float(most),
            unit="devices",
            hint=f"{jobs.demand[first] - most} short: add devices, or leave such jobs out of the trace",
        )  # fmt: skip
    if isinstance(state.pace.speeds, Linear):
        return
    seen: dict[tuple[int, int], bool] = {}
    for i in range(len(jobs)):
        key = int(state.pace.model[i]), int(jobs.demand[i])
        if key not in seen:
            able = (k for k, kind in enumerate(kinds) if kind.total >= key[1])
            seen[key] = any(state.pace.rate(i, close(state.nodes, {k: key[1]}), 0) > 0 for k in able)
        if not seen[key]:
            raise Infeasible(
                f"{jobs.name(i)} ({jobs.models[jobs.model[i]]} on {key[1]} devices), for which no kind of device that "
                "the fleet has enough of has a speed,", need=float(key[1]), have=0.0, unit="devices",
                hint="Add a kind of device that workload.speeds knows for it",
            )  # fmt: skip


def _capped(jobs: Jobs, where: Nodes) -> tuple[Jobs, list[str]]:
    """Returns elastic jobs that ask for no more than there is."""
    most = max(kind.total for kind in where.kinds)
    wide = (jobs.demand > most) & (jobs.least <= most)
    if not wide.any():
        return jobs, []
    seconds = np.where(wide, jobs.seconds * jobs.demand / most, jobs.seconds)
    said = f"{int(wide.sum()):,} elastic jobs ask for more than the {most:,} devices of a kind, and take these"
    return replace(jobs, demand=np.where(wide, most, jobs.demand).astype(np.int32), seconds=seconds), [said]


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """Keys of ``workload.speeds``."""

    kind: str
    path: str = ""
    factors: dict[str, Annotated[float, Quantity("", high=1e6)]] = msgspec.field(default_factory=dict)


def _speeds(
    asked: str | dict[str, Any], where: Nodes, names: list[str], jobs: Jobs, folder: Path
) -> tuple[Speeds, list[str]]:
    table = {"kind": asked} if isinstance(asked, str) else asked
    try:
        said = msgspec.convert(table, _Table)
    except msgspec.ValidationError as error:
        raise SpecError("workload.speeds", str(error), value=table, limit="kind, and path or factors") from None
    sizes = [kind.node for kind in where.kinds]
    path = str(folder / said.path) if said.path else None
    if said.kind == "linear":
        for name in said.factors:
            if name not in names:
                raise SpecError(f"workload.speeds.factors.{name}", "is not a device of the fleet",
                                limit=f"it has {', '.join(dict.fromkeys(names))}",
                                hint=closest(name, names))  # fmt: skip
        factors = [said.factors.get(name, 1.0) for name in names]
        rest = [name for name in dict.fromkeys(names) if name not in said.factors]
        notes = []
        if len(set(names)) > 1 and rest:
            notes.append(f"{', '.join(rest)}: a job takes the trace's seconds there; say workload.speeds.factors")
        return Linear(names, factors), notes
    if said.kind == "gavel":
        found: Speeds = Throughputs(names, sizes, path)
    elif said.kind == "profiles":
        if path is None:
            raise SpecError("workload.speeds.path", "is missing", hint="Name the folder of profiles")
        found = Profiles(path, names, sizes)
    elif said.kind == "virtual":
        found = Virtual(names, jobs.models)
    else:
        raise SpecError("workload.speeds.kind", "is unknown", value=said.kind, limit=f"one of {', '.join(SPEEDS)}",
                        hint=closest(said.kind, SPEEDS))  # fmt: skip
    return found, [f"speeds: {found.source}"]


def _notes(scenario: JobsScenario, jobs: Jobs, where: Nodes) -> list[str]:
    work, found = scenario.workload, [f"the trace: {len(jobs):,} jobs, {jobs.source}"]
    if any(kind.total > kind.node for kind in where.kinds) and work.apart == 1.0 and (jobs.demand > 1).any():
        found.append("gangs run as fast on several nodes as on one: say workload.apart if they do not")
    if work.restart == 0.0:
        found.append("a job that is stopped or moved goes on at once: say workload.restart")
    if where.outages and work.checkpoint is None:
        found.append("a failure takes a job back to its last start: say workload.checkpoint")
    return found
