"""Waves over multi-task graphs: each step against a closed form, brute force or a linear programme."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import brentq

import fleetcast
from fleetcast.base.errors import Infeasible, SpecError, Unsupported
from fleetcast.search.waves import baselines
from fleetcast.search.waves.allocate import any_bound, level_bound, relax, two_points
from fleetcast.search.waves.brute import brute
from fleetcast.search.waves.check import problems
from fleetcast.search.waves.curves import Curve, curve
from fleetcast.search.waves.graph import MetaOp, contract, levels, tails
from fleetcast.search.waves.place import Timetable, Wires, place, transfer
from fleetcast.search.waves.planner import best, split
from fleetcast.search.waves.schedule import level_waves, ready_waves
from fleetcast.view import verbs

FREE = Wires()


def graph(seed, ops, devices, count):
    """A random graph; half of its MetaOps stop scaling early."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(ops):
        alpha, beta = rng.uniform(0.02, 0.3), rng.uniform(0.3, 1.0)
        size = 10 ** rng.uniform(-1, 0.7)
        most = int(rng.integers(2, devices + 1)) if rng.random() < 0.5 else devices
        counts = range(1, most + 1)
        after = tuple(j for j in range(i) if rng.random() < min(0.5, 1.5 / ops))
        made.append(
            MetaOp(
                name=f"m{i}", count=int(rng.integers(1, count + 1)), after=after, task=f"t{i % 3}",
                curve=curve(counts, [size * (alpha + beta / n) for n in counts]),
            )
        )  # fmt: skip
    return tuple(made)


def test_a_curve_is_alpha_and_beta_between_measured_counts():
    known = Curve((1, 4, 16), (8.0, 2.9, 1.7))
    (a1, b1), (a2, b2) = known.pieces
    assert [a1 + b1, a1 + b1 / 4, a2 + b2 / 4, a2 + b2 / 16] == pytest.approx([8.0, 2.9, 2.9, 1.7])
    assert known.time(2) == pytest.approx(a1 + b1 / 2)
    assert known.time(0.5) == pytest.approx(16.0)
    assert known.time(100) == 1.7
    for t in np.linspace(1.7, 30.0, 50):
        assert known.time(known.need(t)) == pytest.approx(t)
    assert known.need(1.69) == np.inf
    assert (known.allowed(15), known.following(4), known.following(16)) == (4, 16, None)


def test_counts_that_do_not_help_are_left_out_and_rising_curves_refused():
    assert curve([1, 2, 3, 4], [4.0, 2.0, 2.5, 1.5]) == Curve((1, 2, 4), (4.0, 2.0, 1.5))
    with pytest.raises(ValueError, match="fall"):
        Curve((1, 2), (1.0, 1.0))


def test_powers_of_two_foretell_the_counts_between():
    state = verbs.load("multitask").workload
    from fleetcast.cost.training import system as systems
    from fleetcast.scenario.fleet.spec import Fleet
    from fleetcast.scenario.fleet.tree import resolve
    from fleetcast.search.waves.build import build

    system = systems.of(resolve(Fleet(devices="64x a100-80g-sxm")).groups[0])
    for op in build(state, 64, system).graph:
        few = [i for i, n in enumerate(op.curve.counts) if n & (n - 1) == 0]
        fitted = curve([op.curve.counts[i] for i in few], [op.curve.seconds[i] for i in few])
        even = [n for n in op.curve.counts if n <= fitted.counts[-1]]
        assert max(abs(fitted.time(n) / op.curve.on(n) - 1) for n in even) < 0.1


@pytest.mark.parametrize("seed", range(20))
def test_contraction_keeps_every_path(seed):
    rng = np.random.default_rng(seed)
    n = 14
    kinds = [int(k) for k in rng.integers(2, size=n)]
    edges = [(i, j) for i in range(n) for j in range(i + 1, n) if rng.random() < 0.15]
    chains, between = contract(kinds, edges)
    assert sorted(x for chain in chains for x in chain) == list(range(n))
    member = {x: c for c, chain in enumerate(chains) for x in chain}
    for chain in chains:
        assert len({kinds[x] for x in chain}) == 1
        assert all(pair in edges for pair in pairwise(chain))
        for a, b in pairwise(chain):
            assert [e for e in edges if e[0] == a] == [(a, b)]
            assert [e for e in edges if e[1] == b] == [(a, b)]
    assert set(between) == {(member[a], member[b]) for a, b in edges if member[a] != member[b]}
    for a, b in between:  # nothing more could be contracted
        only = [e for e in edges if e[0] == chains[a][-1]] == [e for e in edges if e[1] == chains[b][0]]
        assert not (only and kinds[chains[a][0]] == kinds[chains[b][0]] and len([e for e in between if e[0] == a]) == 1)


def test_a_cycle_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        contract([0, 0], [(0, 1), (1, 0)])


@pytest.mark.parametrize("seed", range(20))
def test_the_relaxation_is_where_all_end_together(seed):
    g = graph(seed, 6, 16, 20)
    found = relax([op.curve for op in g], [op.count for op in g], 16)
    assert sum(found.devices) <= 16 * (1 + 1e-6)
    ends = [op.curve.time(n) * op.count for op, n in zip(g, found.devices, strict=True)]
    assert max(ends) == pytest.approx(found.seconds, rel=1e-6)
    floor = max(op.curve.time(16) * op.count for op in g)
    if found.seconds > floor * (1 + 1e-6):  # nobody's own least time binds: the closed condition
        root = brentq(lambda c: sum(op.curve.need(c / op.count) for op in g) - 16, floor * (1 + 1e-9), 1e4)
        assert found.seconds == pytest.approx(root, rel=1e-6)
    flat = tuple(replace(op, after=()) for op in g)
    assert found.seconds <= any_bound(flat, 16)[0] * (1 + 1e-6)  # whole devices cannot do better


def test_perfect_scaling_is_total_work_over_devices():
    g = [curve(range(1, 9), [w / n for n in range(1, 9)]) for w in (1.0, 2.0, 5.0)]
    assert relax(g, [3, 2, 1], 8).seconds == pytest.approx((3 + 4 + 5) / 8)
    assert relax(g[:1], [1], 8, [7.0]).seconds == pytest.approx(7.0 + 1 / 8)


def test_two_points_take_the_optimums_time():
    known = curve(range(1, 9), [0.1 + 1 / n for n in range(1, 9)])
    for devices in np.linspace(1.0, 8.0, 30):
        seconds = 1000 * known.time(devices)
        (low, few), (high, many) = two_points(known, 1000, devices, seconds)
        assert few + many == 1000
        assert low <= devices + 1e-9
        assert high <= low + 1
        assert few * known.on(low) + many * known.on(high) == pytest.approx(seconds, rel=1e-3)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("count", [1, 2])
def test_tiny_graphs_are_within_a_tenth_of_brute_force(seed, count):
    g = graph(seed, 5 if count == 1 else 3, 8, count)
    least, found = brute(g, 8), best(g, 8, FREE)
    assert found.bound <= least * (1 + 1e-6)
    assert least * (1 - 1e-9) <= found.table.seconds <= 1.10 * least


@pytest.mark.parametrize("seed", range(6))
def test_plans_can_be_carried_out_and_stay_near_the_bound(seed):
    g, wires = graph(seed, 12, 16, 24), Wires(node=8, inner=1e9, outer=1e8, latency=1e-3)
    g = tuple(replace(op, size=1e6) for op in g)
    for table in (
        best(g, 16, wires).table, place(g, level_waves(g, 16), 16, wires), place(g, ready_waves(g, 16), 16, wires),
        place(g, level_waves(g, 16), 16, wires, local=False), baselines.sequential(g, 16, wires),
    ):  # fmt: skip
        assert problems(g, table, 16, wires) == []
    free = best(g, 16, FREE)
    assert free.bound * (1 - 1e-9) <= free.table.seconds <= 1.15 * free.bound
    assert free.bound <= free.level_bound * (1 + 1e-3)


def test_baselines_can_be_carried_out():
    g = graph(3, 9, 16, 6)
    own = {i: [j for j in op.after if g[j].task == op.task] for i, op in enumerate(g)}
    g = tuple(replace(op, after=tuple(own[i])) for i, op in enumerate(g))
    for n in (2, 16):
        for rule in (baselines.sequential, baselines.decoupled, baselines.by_task):
            assert problems(g, rule(g, n, FREE), n, FREE) == []


MUTATIONS = {
    "not there": lambda s: [replace(s[0], devices=(99,)), *s[1:]],
    "twice": lambda s: [replace(s[0], devices=(0, 0)), *s[1:]],
    "takes": lambda s: [replace(s[0], end=s[0].end * 1.01), *s[1:]],
    "and has": lambda s: s[1:],
    "at a time": lambda s: [*s, replace(s[0], op=1, start=s[0].start, end=s[0].end)],
    "before the output": lambda s: [replace(x, start=x.start - x.start, end=x.end - x.start) for x in s],
}


@pytest.mark.parametrize("said", MUTATIONS)
def test_the_checker_refuses_mutated_plans(said):
    one = curve(range(1, 5), [1.0, 0.6, 0.45, 0.4])
    g = (MetaOp("a", 4, one), MetaOp("b", 4, one, (0,)), MetaOp("c", 4, one, (1,)))
    table = best(g, 4, FREE).table
    assert problems(g, table, 4, FREE) == []
    slots = tuple(MUTATIONS[said](list(table.slots)))
    wrong = Timetable(slots, table.moved, max(s.end for s in slots))
    assert any(said in line for line in problems(g, wrong, 4, FREE))


def test_data_that_stays_does_not_move():
    wires = Wires(node=4, inner=100.0, outer=10.0)
    assert transfer(80.0, (0, 1), (0, 1), wires) == (0.0, 0.0)
    assert transfer(80.0, (0, 1), (1, 2), wires) == (40.0, pytest.approx(2 * 40 / 200))
    assert transfer(80.0, (0, 1), (4, 5), wires) == (80.0, pytest.approx(2 * 80 / 20))


def test_levels_tails_and_split_by_hand():
    one = curve([1, 2], [1.0, 0.5])
    g = (MetaOp("a", 3, one), MetaOp("b", 1, one), MetaOp("c", 5, one, (0,)), MetaOp("d", 1, one, (1, 2)))
    assert levels(g) == [0, 0, 1, 2]
    assert tails(g, [3.0, 1.0, 5.0, 1.0]) == [6.0, 1.0, 1.0, 0.0]
    parts, owner = split(g, 2)
    assert [(p.count, p.after) for p in parts] == [(1, ()), (2, (0,)), (1, ()), (2, (1,)), (3, (3,)), (1, (2, 4))]
    assert owner == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 2), (3, 0)]


def test_the_example_beats_every_module_on_all_devices():
    ranking = fleetcast.plan("multitask")
    found = {o.plan["way"]: o.metrics["iteration_time"] for o in ranking.plans}
    assert ranking.best is not None
    assert ranking.best.plan["way"] == "waves"
    assert found["one module at a time on all devices"] > 1.3 * found["waves"]
    bound = ranking.best.metrics["bound"]
    assert bound["levels"] <= ranking.best.breakdown["time"]["waves"] <= 1.1 * bound["levels"]
    assert ranking.plan is None
    assert "waves" in repr(ranking)
    assert fleetcast.simulate("multitask").metrics["iteration_time"] == found["waves"]


def scenario(**changes):
    task = {"name": "a", "batch": 8, "passes": [{"module": "x", "sequence": 64}]}
    table = {
        "fleet": {"devices": "8x a100-80g-sxm"},
        "workload": {
            "kind": "training", "modules": {"x": {"layers": 2, "hidden": 256, "heads": 4}}, "tasks": [task],
        },
    }  # fmt: skip
    for path, value in changes.items():
        at = table
        *head, last = path.split("__")
        for key in head:
            at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
        at[last if isinstance(at, dict) else int(last)] = value
    return table


REFUSED = {
    "unknown module": ({"workload__tasks__0__passes": [{"module": "y", "sequence": 1}]}, "passes.0.module"),
    "after": ({"workload__tasks__0__passes": [{"module": "x", "sequence": 1, "after": ["x"]}]}, "passes.0.after"),
    "the same pass": ({"workload__tasks__0__passes": [{"module": "x", "sequence": 1}] * 2}, "passes.1.name"),
    "no passes": ({"workload__tasks__0__passes": []}, "tasks.0.passes"),
    "no tasks": ({"workload__tasks": []}, "workload.tasks"),
    "model too": ({"workload__model": "gpt2"}, "workload.tasks"),
    "heads": ({"workload__modules__x__heads": 3}, "modules.x.heads"),
    "plan": ({"plan__tensor_parallel": 2}, "plan.tensor_parallel"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_nonsense_is_refused_by_name(name):
    changes, said = REFUSED[name]
    with pytest.raises(SpecError, match=said) as caught:
        fleetcast.load(scenario(**changes))
    assert caught.value.limit


def test_what_does_not_fit_names_the_modules():
    with pytest.raises(Infeasible, match="memory of device") as caught:
        fleetcast.plan(scenario(workload__modules__x={"layers": 96, "hidden": 12288, "heads": 96}))
    assert caught.value.need > caught.value.have
    with pytest.raises(Unsupported, match="fp8"):
        fleetcast.plan(scenario(plan__dtype="fp8"))


def test_a_full_scenario_round_trips():
    from fleetcast.scenario.load import dump

    loaded = fleetcast.load("multitask")
    assert fleetcast.load(dump(loaded)).workload == loaded.workload


def test_level_bound_sums_levels():
    g = graph(1, 8, 8, 5)
    level = levels(g)
    total = 0.0
    for depth in set(level):
        here = [op for op, at in zip(g, level, strict=True) if at == depth]
        total += relax([op.curve for op in here], [op.count for op in here], 8).seconds
    assert level_bound(g, 8) == pytest.approx(total)
