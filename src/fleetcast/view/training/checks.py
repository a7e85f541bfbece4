"""What is wrong or doubtful about a training scenario, said before anything is planned.

A check is a function ``check_*(state) -> Iterator[Remark]``; `CHECKS` lists them. Add one: write it, list it, test it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fleetcast.base.errors import FleetcastError, SpecError
from fleetcast.base.show import show
from fleetcast.scenario.objective import TRAINING
from fleetcast.scenario.outcome import Outcome
from fleetcast.sim.training.setting import Setting
from fleetcast.sim.training.world import simulate
from fleetcast.view.checks import Remark, check_grid
from fleetcast.view.training import terms

if TYPE_CHECKING:
    from fleetcast.scenario.fleet.links import Link
    from fleetcast.scenario.load import TrainingScenario

TILE = 64
"""Elements of a tensor core's tile of 16-bit products; edges that are not whole tiles waste a part of one."""
STARVED = 0.25
"""A link that takes this share of an iteration is worth a word."""
GAIN = 0.05
"""Better sizes that make products so much faster are worth a word."""
IDLE = 0.15
"""As is a pipeline that is empty for this share."""
_INSIDE = ("tensor_comm", "context_comm", "expert_comm")


def remarks(state: Setting) -> list[Remark]:
    """Returns what every check finds, errors first."""
    found = [remark for check in CHECKS for remark in check(state)]
    return sorted(found, key=lambda r: r.level != "error")


def counted(scenario: TrainingScenario) -> list[Remark]:
    """Returns what is wrong about a job without a model: that its step cannot be taken apart."""
    from fleetcast.sim.training.counted import simulate as run

    try:
        run(scenario)
    except FleetcastError as error:
        return [Remark("error", getattr(error, "path", "plan"), str(error))]
    return []


def check_plan(state: Setting) -> Iterator[Remark]:
    """The plan, where it is decided, divides and fits; where it is open, some plan of its space fits."""
    if _open(state):
        yield from _searched(state)
        return
    try:
        outcome = simulate(state)
    except FleetcastError as error:
        yield Remark("error", getattr(error, "path", "plan"), str(error))
        return
    if problem := terms.over(outcome):
        yield Remark(
            "error", "plan", f"does not fit: {problem}", 'Write recompute = "full" or zero = 3, raise a degree, or '
            "leave the plan out and search it",
        )  # fmt: skip
    yield from starving(state, outcome)
    yield from _bubbles(outcome)


def check_prices(state: Setting) -> Iterator[Remark]:
    """An objective of cost needs prices."""
    goals = [goal for goal, _, _ in state.scenario.objective.goals(TRAINING, {})]
    if "cost" in goals and state.group.price is None:
        device = state.unpriced
        yield Remark(
            "error", "fleet.price", f"{device} has no rental price, and cost is minimised",
            f'Add price = {{ "{device}" = "1.00 $/h" }}',
        )  # fmt: skip


def check_kinds(state: Setting) -> Iterator[Remark]:
    """Where devices are of several kinds, each stage lies on one of them."""
    if not state.unlike or (state.scenario.plan.islands or 1) != 1 or _open(state):
        return
    from fleetcast.sim.training.completing import columns, complete
    from fleetcast.sim.training.mixed import held_by

    try:
        rows = columns(complete(state, state.scenario.plan).plan)
    except FleetcastError:  # `check_plan` says it
        return
    if held_by(state.tree.groups, rows) is None:
        each = int(rows.tensor[0] * rows.data[0] * rows.context[0])
        counts = " and ".join(f"{group.count:,}" for group in state.tree.groups)
        yield Remark(
            "warning", "plan.pipeline_parallel", f"stages of {each:,} devices do not divide over groups of {counts}: "
            f"all ranks go at the pace of {state.group.device.id}, with its memory or less",
            "Choose degrees whose tensor x data x context divides each group, or leave the plan out and search it",
        )  # fmt: skip


def check_tiles(state: Setting) -> Iterator[Remark]:
    """Edges of products are whole tiles of the device's tensor cores, as the plan cuts them."""
    tensor = state.scenario.plan.tensor_parallel
    ways = tensor if isinstance(tensor, int) else 1
    net = state.network
    edges = [("hidden", net.hidden, 1), ("vocab", net.vocab, ways)]
    for layer in net.layers:
        edges += [("feed-forward width", n, ways) for n in (layer.ffn, layer.expert_ffn) if n]
        if layer.heads:
            edges.append(("head width", layer.head_dim, 1))
    for name, size, cut in dict.fromkeys(edges):
        if size % cut or (size // cut) % (TILE if name != "head width" else 8):
            cuts = f" over {cut} ranks" if cut > 1 else ""
            unit = 8 if name == "head width" else TILE * cut
            better = -(-size // unit) * unit
            yield Remark(
                "warning", "workload.model", f"{name} {size:,}{cuts} is no whole number of tiles of {unit // cut}",
                f"{better:,} would waste nothing" + ("; engines pad the vocabulary so" if name == "vocab" else ""),
            )  # fmt: skip


def check_sizes(state: Setting) -> Iterator[Remark]:
    """The model's sizes are such that the devices' tiles and waves of them are whole."""
    from fleetcast.view.training.sizing import sized

    found = sized(state)
    if found.share and found.better / found.share >= 1.0 + GAIN:
        changes = ", ".join(f"{one.name} {one.better:,}" for one in found.fields if one.better is not None)
        yield Remark(
            "warning", "workload.model",
            f"its products reach {found.share:.0%} of the peak by their sizes, and {found.better:.0%} with {changes}",
            "fleetcast advise FILE says why, size by size",
        )  # fmt: skip


def check_length(state: Setting) -> Iterator[Remark]:
    """Sequences fit the model's positions."""
    context, sequence = state.model.context, state.workload.sequence
    if context and sequence > context:
        yield Remark(
            "warning", "workload.sequence", f"{sequence:,} tokens are longer than {state.model.id} has positions, "
            f"{context:,}", "Shorten it, or write out the model's shape",
        )  # fmt: skip


def check_batch(state: Setting) -> Iterator[Remark]:
    """There is a sequence for every device that is left when a model is split as far as it goes."""
    most = max(layer.heads for layer in state.network.layers) * state.network.depth
    least = -(-state.group.count // max(1, most))
    if state.workload.batch < least:
        yield Remark(
            "error", "workload.batch", f"{state.workload.batch:,} sequences keep no {state.group.count:,} devices busy",
            f"At least {least:,}, one for each copy of the model, or fewer devices",
        )  # fmt: skip


def starving(state: Setting, outcome: Outcome) -> Iterator[Remark]:
    """Yields links that an iteration waits for."""
    times, total = outcome.breakdown["time"], float(outcome.metrics["iteration_time"])
    plan, group = outcome.plan, state.group
    inner = int(plan["tensor_parallel"]) * int(plan["context_parallel"])
    for names, link, path in (
        (
            _INSIDE,
            group.link if inner <= group.node else group.network,
            "links.intra" if inner <= group.node else "links.inter",
        ),
        (
            ("data_comm", "weight_gather", "pipeline_comm"),
            _outer(state, plan),
            "links.inter" if group.nodes > 1 else "links.intra",
        ),
    ):
        wait = sum(times.get(name, 0.0) for name in names)
        if wait >= STARVED * total:
            worst = max(names, key=lambda name: times.get(name, 0.0))
            yield Remark(
                "warning", f"fleet.{path}",
                f"{link.id} starves the plan: {wait / total:.0%} of an iteration waits for it, "
                f"most for {terms.TIMES[worst].lower()}", f"See what a faster one does: fleetcast whatif FILE --set "
                f"fleet.{path}={show(2 * link.bandwidth * 8 / 1e9)}Gb/s",
            )  # fmt: skip


def _outer(state: Setting, plan: object) -> Link:
    return state.group.network if state.group.nodes > 1 else state.group.link


def _bubbles(outcome: Outcome) -> Iterator[Remark]:
    share = outcome.breakdown["time"].get("bubble", 0.0) / float(outcome.metrics["iteration_time"])
    if share >= IDLE:
        stages = outcome.plan["pipeline_parallel"]
        yield Remark(
            "warning", "plan.pipeline_parallel", f"{stages} stages idle for {share:.0%} of an iteration, which has "
            f"{outcome.metrics['micro_batches']} micro-batches", "Write interleave = 2, a smaller micro_batch, or a "
            "larger batch",
        )  # fmt: skip


def _open(state: Setting) -> bool:
    from fleetcast.view.worlds.training import is_open

    return is_open(state.scenario)


def _searched(state: Setting) -> Iterator[Remark]:
    from fleetcast.search.training.planner import search

    try:
        ranking = search(state, top=1)
    except FleetcastError as error:
        yield Remark("error", getattr(error, "path", "plan"), str(error))
        return
    if ranking.best is None:
        near = ranking.misses[0] if ranking.misses else None
        why = f"; nearest is {terms.plan_name(near.plan)}: {terms.over(near)}" if near is not None else ""
        yield Remark("error", "plan", f"no plan fits{why}", "Add devices, or leave more of the plan open")
        return
    yield from starving(state, ranking.best)
    yield from _refused(state)


def _refused(state: Setting) -> Iterator[Remark]:
    """What is left open can be searched, but the defaults that `simulate` takes instead cannot be."""
    from fleetcast.sim.training.completing import complete
    from fleetcast.view.worlds.training import listed

    plan = state.scenario.plan
    if any(listed(name, getattr(plan, name)) for name in plan.__struct_fields__):
        return  # a list is for `plan` alone
    try:
        complete(state, plan)
    except SpecError as error:
        yield Remark(
            "warning", error.path, f"{error.problem}, where `simulate` takes defaults for degrees left out",
            f"Write those that `plan` ranks first. {error.hint}".strip(),
        )  # fmt: skip


CHECKS: tuple[Callable[[Setting], Iterator[Remark]], ...] = (
    check_plan, check_kinds, check_prices, check_grid, check_tiles, check_sizes, check_length, check_batch,
)  # fmt: skip
