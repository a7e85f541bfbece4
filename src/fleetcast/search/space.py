"""The space of serving plans: every layout on every part of a fleet, as columns, and every batch policy on top.

A *layout* is one row of numbers: group, replicas, TP, PP, EP, attention-DP. A *variant* is what else a pool can be
told: engine, dtypes, policies. A *combination* gives each pool one layout (or none); with one variant per pool it is
a candidate. Plans are made only for the candidates that are simulated.

What the space holds by default, per leaf group of the fleet:

- TP: every count that divides the model's heads, widths and key-value heads (those may also be copied), also over
  several nodes. PP: up to the number of layers. EP: experts only, a divisor of the experts and of TP x attention-DP.
  Attention-DP: where it saves something, i.e. experts or latent attention (MLA).
- replicas: as many as fit, and every smaller number (from 64 on, numbers about 3 % apart). TP x attention-DP ranks
  that fit a node never straddle two.
- a draft pool: TP and group as above, as many replicas as the other pools' drafters take.
- batch: the engine's default policy and chunked prefill; chunk 512, 2048, 8192; max_batch 64, 256, 1024.
- several groups: each alone, and every set of them at once with one layout per group that fills it, all pools under
  one variant.

What ``[plan]`` fixes is not searched; a list there means those values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.plan import Plan, Pool, Table, as_tuple, replace
from fleetcast.search.layouts import Rows, family_name, layouts, too_few
from fleetcast.search.sizes import maximal
from fleetcast.search.variants import describe_space, expand, variants_of
from fleetcast.sim.serving.completing import check_power, named_draft, route_of
from fleetcast.sim.serving.setting import Setting

MOST = 200_000
"""Most plans that a space may hold."""
JOINT = 512
"""Most layouts of several groups at once; above it only those with the fewest pipeline stages per TP are joined."""


@dataclass(frozen=True)
class Space:
    """Candidate plans, not yet made.

    Attributes:
        templates: the pools as ``[plan]`` has them; what is open there is searched.
        groups: leaf groups of the fleet.
        rows: layouts, ``ROW``.
        variants: per template, the changes that decide everything but the layout.
        joined: variants of several pools go together (one template over several groups) or are all combined.
        route: the plan's route, complete.
        power: the plan's power policy as it stands.
        misfits: layouts that the model forbids: (family, why).
        lines: the space in sentences.
    """

    templates: tuple[Pool, ...]
    groups: tuple[Group, ...]
    rows: Rows
    variants: tuple[tuple[Table, ...], ...]
    joined: bool
    route: Table
    power: Any
    misfits: tuple[tuple[str, Infeasible], ...]
    lines: tuple[str, ...]

    def pool(self, row: int, variant: Table) -> Pool:
        """Returns the pool of layout ``row`` under ``variant``."""
        _, group, replicas, tp, pp, ep, adp = (int(value) for value in self.rows[row])
        on = self.groups[group].name if len(self.groups) > 1 else None
        return replace(
            self.templates[self.rows[row]["pool"]], on=on, replicas=replicas, tensor_parallel=tp,
            pipeline_parallel=pp, expert_parallel=ep, attention_dp=adp, **variant,
        )  # fmt: skip

    def replicas(self, row: int) -> int | None:
        """Returns the replicas of a layout; None where they follow from the other pools', of an open draft pool."""
        template = self.templates[self.rows[row]["pool"]]
        return None if template.role == "draft" and template.replicas is None else int(self.rows[row]["replicas"])

    def plan(self, pools: Iterable[Pool]) -> Plan:
        """Returns the plan of some pools."""
        return Plan(pools=tuple(pools), route=self.route, power=self.power)

    def devices(self) -> NDArray[np.int64]:
        """Returns the devices of each layout."""
        r = self.rows
        return np.asarray(r["replicas"] * r["tp"] * r["pp"] * r["adp"], dtype=np.int64)

    def family(self, row: int) -> str:
        """Returns the layout's name without replicas: ``TP4 PP2 on h100-sxm``."""
        _, group, _, tp, pp, ep, adp = (int(value) for value in self.rows[row])
        return family_name(self.groups[group].name, tp, pp, ep, adp)


def spaces(state: Setting) -> list[Space]:
    """Returns the spaces that a scenario leaves open, one per way of placing the phases.

    Raises:
        SpecError: ``[plan]`` lists values that contradict each other, so that nothing is left.
    """
    check_power(state.scenario.plan)
    return [enumerate_space(state, templates, route) for templates, route in ways(state.scenario.plan)]


def ways(plan: Plan) -> list[tuple[tuple[Pool, ...], Any]]:
    """Returns the pools to search with a route above them, one pair per way of placing the phases and route to try.

    A route goes with the ways that it can serve: `split_phases` needs roles, and roles need it or a policy of one's
    own. A way that no route of several goes with, or of which the only route belongs to another way, takes its default.
    """
    asked = [{"kind": r} if isinstance(r, str) else r for r in as_tuple(plan.route)]
    routes = [full for r in asked for full in (expand(r) if isinstance(r, dict) else (r,))]
    spaces_ = plan.spaces()
    found: list[tuple[tuple[Pool, ...], Any]] = []
    for templates in spaces_:
        split = any(pool.role != "all" for pool in templates)
        fit = [r for r in routes if not isinstance(r, dict) or _goes_with(str(r.get("kind")), split)]
        if len(routes) == 1 and len(spaces_) == 1:
            fit = routes  # refused by name where it does not go
        found += [(templates, route) for route in fit or (None,)]
    return found


def _goes_with(kind: str, split: bool) -> bool:
    return ":" in kind or (kind == "split_phases") == split


def enumerate_space(state: Setting, templates: tuple[Pool, ...] | None = None, route: Any = None) -> Space:
    """Returns the space of plans with some pools, by default the scenario's.

    Args:
        state: the scenario, resolved.
        templates: the pools.
        route: above them; None = the one for their roles.

    Raises:
        SpecError: ``[plan]`` lists values that contradict each other, so that nothing is left.
    """
    templates, groups = templates or state.scenario.plan.pools, state.tree.groups
    serving = [template for template in templates if template.role != "draft"]
    templates = tuple(named_draft(state, serving, t) if t.role == "draft" else t for t in templates)
    found, misfits = [], []
    for index, template in enumerate(templates):
        model = state.model_named(template.model)
        for g, group in enumerate(groups):
            if template.on is not None and group.name != template.on:
                continue
            follows = template.role == "draft" and template.replicas is None
            rows, wrong = layouts(model, group, replace(template, replicas=1) if follows else template)
            rows["pool"], rows["group"] = index, g
            found.append(rows)
            misfits += wrong if len(rows) or wrong else [too_few(group, template)]
        if template.on is not None:
            state.tree.group(template.on, "plan.on")
    rows = np.concatenate(found)
    variants = tuple(tuple(variants_of(template)) for template in templates)
    plans = len(rows) * len(variants[0])
    if len(templates) == 1 and plans > MOST:
        raise SpecError(
            "plan", f"leaves {plans:,} plans open", limit=f"at most {MOST:,}",
            hint="Fix tensor_parallel, pipeline_parallel or replicas, or list the values to search",
        )  # fmt: skip
    counts = [int((rows["pool"] == i).sum()) for i in range(len(templates))]
    lines = describe_space(templates, groups, variants, counts)
    route = route_of(state, Plan(pools=templates, route=route))
    return Space(
        templates, groups, rows, variants, len(templates) == 1, route, state.scenario.plan.power, tuple(misfits), lines
    )


def combine(
    space: Space, usable: NDArray[np.bool_], fits: Callable[[tuple[int, ...], int], bool] | None = None
) -> tuple[list[tuple[int, ...]], tuple[str, ...]]:
    """Returns the combinations of usable layouts, one tuple of rows per plan, and how they were chosen.

    One template: every layout alone, and for every set of at least two groups one filling layout each. Several
    templates: one layout per template, where the devices of each group suffice.

    Args:
        space: the layouts.
        usable: which of them to combine.
        fits: whether rows under a variant stay within the fleet's budget, where it has one: then the layouts of
            several groups come in every size within it, or where those may be many in those with no room for more.
    """
    r, index = space.rows, np.flatnonzero(usable)
    if len(space.templates) > 1:
        return _combine_pools(space, index), ()
    alone: list[tuple[int, ...]] = [(int(i),) for i in index]
    per_group = {
        int(g): [int(i) for i in _filling(r, index[r["group"][index] == g])] for g in np.unique(r["group"][index])
    }
    if len(per_group) < 2:
        return alone, ()
    sets = list(per_group.values())
    how = "several groups at once: one layout per group that fills it, one variant for all"
    if _count(sets) > JOINT:
        sets = [[i for i in rows if _fewest_stages(r, rows, i)] for rows in sets]
        how += "; of those only the fewest pipeline stages per TP, EP and attention-DP"
    if _count(sets) > JOINT:
        devices = space.devices() // r["replicas"]
        sets = [[min(rows, key=lambda i: (int(devices[i]), int(r["pp"][i])))] for rows in sets]
        how = "several groups at once: on each the layout with the fewest devices per replica"
    joint = _product(sets) if _count(sets) <= JOINT else [tuple(rows[0] for rows in sets)]
    if fits is not None:
        joint, sizes = _budgeted(space, index, joint, fits)
        how = how.replace("that fills it", sizes)
    return alone + joint, (f"{how}: {len(joint)} combinations",)


def _budgeted(
    space: Space, index: NDArray[np.intp], joint: Sequence[tuple[int, ...]],
    fits: Callable[[tuple[int, ...], int], bool],
) -> tuple[list[tuple[int, ...]], str]:  # fmt: skip
    """The combinations in every size that fits, or where these may be many in those with no room for more; which."""
    names = ("group", "tp", "pp", "ep", "adp")
    copies: dict[tuple[int, ...], dict[int, int]] = {}
    for i in index:
        shape = tuple(int(space.rows[name][i]) for name in names)
        copies.setdefault(shape, {})[int(space.rows["replicas"][i])] = int(i)
    layouts_ = [[copies[tuple(int(space.rows[name][i]) for name in names)] for i in chosen] for chosen in joint]
    few = sum(math.prod(map(len, rows)) for rows in layouts_) <= JOINT
    found: dict[tuple[int, ...], None] = {}
    for rows in layouts_:
        options = [sorted(sizes) for sizes in rows]
        for v in range(len(space.variants[0])):

            def within(counts: tuple[int, ...], v: int = v, rows: list[dict[int, int]] = rows) -> bool:
                return fits(tuple(sizes[n] for sizes, n in zip(rows, counts, strict=True)), v)

            chosen = (c for c in itertools.product(*options) if within(c)) if few else maximal(options, within)[0]
            found |= {tuple(sizes[n] for sizes, n in zip(rows, c, strict=True)): None for c in chosen}
    return [*found], "in every size within the budget" if few else "in every size that leaves no room for more"


def _count(sets: list[list[int]]) -> int:
    """How many combinations `_product` would make."""
    return math.prod(1 + len(s) for s in sets) - 1 - sum(len(s) for s in sets)


def _combine_pools(space: Space, index: NDArray[np.intp]) -> list[tuple[int, ...]]:
    devices, r = space.devices(), space.rows
    per_pool = [[int(i) for i in index[r["pool"][index] == p]] for p in range(len(space.templates))]
    plans = math.prod(len(rows) for rows in per_pool) * math.prod(len(v) for v in space.variants)
    if plans > MOST:
        raise SpecError(
            "plan.pools", f"leave {plans:,} plans open", limit=f"at most {MOST:,}",
            hint="Fix replicas and the parallel degrees of each pool, or list a few values",
        )  # fmt: skip
    found: list[tuple[int, ...]] = []
    for rows in itertools.product(*per_pool):
        taken = [0] * len(space.groups)
        for i in rows:
            taken[r["group"][i]] += int(devices[i])
        if all(used <= group.count for used, group in zip(taken, space.groups, strict=True)):
            found.append(rows)
    return found


def _product(sets: list[list[int]]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for size in range(2, len(sets) + 1):
        for chosen in itertools.combinations(sets, size):
            found += itertools.product(*chosen)
    return found


def _filling(rows: Rows, index: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of layouts that differ only in replicas, the one with the most."""
    best: dict[tuple[int, ...], int] = {}
    for i in index:
        key = tuple(int(rows[name][i]) for name in ("tp", "pp", "ep", "adp"))
        if key not in best or rows["replicas"][i] > rows["replicas"][best[key]]:
            best[key] = int(i)
    return np.array(sorted(best.values()), dtype=np.intp)


def _fewest_stages(rows: Rows, among: list[int], i: int) -> bool:
    same = [j for j in among if all(rows[name][j] == rows[name][i] for name in ("tp", "ep", "adp"))]
    return bool(rows["pp"][i] == min(rows["pp"][j] for j in same))
