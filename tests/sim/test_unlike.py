"""Fleets of unlike devices: stages that differ against equal ones, and small fleets against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fleetcast
from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.training import unlike
from fleetcast.cost.training.memory import memory
from fleetcast.policy.place.stages import NicAware, Placement, View
from fleetcast.scenario.load import load_training
from fleetcast.search.training.planner import search
from fleetcast.sim.training.completing import columns, complete
from fleetcast.sim.training.mixed import follow, held_by, iterate, pace
from fleetcast.sim.training.orders import one_forward_one_backward
from fleetcast.sim.training.pipeline import Stage, lengths, run
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.world import simulate

SMALL = {"layers": 8, "hidden": 2048, "heads": 16, "gated": True, "tied": False, "vocab": 32000}
MIXTURE = {**SMALL, "experts": 8, "ffn": 2048}


def state(devices="16x a100-80g-sxm + 8x h100-sxm", model=SMALL, plan=None, batch=64, fleet=None):
    return setting(
        load_training({
            "fleet": fleet or {"devices": devices, "network": "infiniband-hdr"},
            "workload": {"kind": "training", "model": model, "sequence": 2048, "batch": batch},
            "plan": plan or {},
        })
    )  # fmt: skip


def halves(join="infiniband-hdr"):
    """Two clusters of 16 A100s each."""
    groups = [
        {"name": name, "link": "infiniband-hdr", "groups": [{"count": 2, "devices": "8x a100-80g-sxm"}]}
        for name in ("a", "b")
    ]  # fmt: skip
    return {"network": join, "groups": groups}


# ── a stage on its own ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", [SMALL, MIXTURE, {**SMALL, "tied": True}, {**SMALL, "gated": False}])
@pytest.mark.parametrize("plan", [
    {"pipeline_parallel": 2}, {"pipeline_parallel": 4, "zero": 3}, {"pipeline_parallel": 8, "recompute": "full"},
    {"pipeline_parallel": 4, "tensor_parallel": 2, "micro_batch": 2},
    {"pipeline_parallel": 2, "offload": ["optimizer"]},
    {"pipeline_parallel": 4, "offload": ["activations", "weights"], "micro_batch": 4},
])  # fmt: skip
def test_the_fuller_end_of_equal_stages_is_what_the_whole_model_of_memory_says(model, plan):
    s = state("16x a100-80g-sxm", model, plan)
    rows = columns(complete(s, s.scenario.plan).plan)
    job, p = s.job(), int(rows.pipeline[0])
    ends = [unlike.stage_memory(s.network, job, rows, s.system, at, 8 // p)["total"][0] for at in (0, p - 1)]
    assert max(ends) == pytest.approx(memory(s.network, job, rows, s.system)["total"][0], rel=1e-12)
    for middle in range(1, p - 1):
        assert unlike.stage_memory(s.network, job, rows, s.system, middle, 8 // p)["total"][0] < max(ends)


def test_a_stage_holds_more_with_more_layers_and_the_most_is_the_last_that_fits():
    s = state("16x a100-80g-sxm", {**SMALL, "layers": 40, "hidden": 8192, "heads": 64}, {"pipeline_parallel": 4})
    rows, job = columns(complete(s, s.scenario.plan).plan), s.job()
    for position in range(4):
        rooms = [
            unlike.stage_memory(s.network, job, rows, s.system, position, n)["total"][0] for n in range(1, 38)
        ]  # fmt: skip
        assert rooms == sorted(rooms)
        most = int(unlike.most_layers(s.network, job, rows, s.system, position)[0])
        assert most == sum(room <= s.system.memory for room in rooms)


def test_parts_of_layers_add_up():
    """Kinds of layers in proportion: 61 layers, three of them dense, in a stage of 7."""
    s = state("16x a100-80g-sxm", MIXTURE, {"pipeline_parallel": 2})
    deep = unlike._deep(s.network, 21)
    assert deep.depth == 21


# ── the pipeline ────────────────────────────────────────────────────────────────────────────────────────────────────

seconds = st.floats(0.01, 3.0)


@given(st.data(), st.integers(1, 5), st.integers(1, 9))
@settings(deadline=None)
def test_pipelines_as_columns_are_the_events(data, stages, micro):
    draw = [
        [data.draw(st.lists(seconds, min_size=n, max_size=n)) for _ in range(3)] for n in (stages, stages, stages - 1)
    ]
    forward, backward, hops = (np.asarray(rows) for rows in draw)
    found = lengths(one_forward_one_backward(stages, micro), forward, backward, hops)
    for i in range(3):
        one = [Stage(f, b) for f, b in zip(forward[i], backward[i], strict=True)]
        told = run(one_forward_one_backward(stages, micro), one, list(hops[i])).time
        assert found[i] == pytest.approx(told, rel=1e-12)


@given(st.data(), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 8))
@settings(deadline=None)
def test_the_rule_keeps_within_memory_and_is_the_best_split_that_does(data, counts, more):
    stages = sum(counts)
    layers = stages + more
    speeds = data.draw(st.lists(seconds, min_size=len(counts), max_size=len(counts)))
    most = tuple(tuple(data.draw(st.integers(0, 6)) for _ in range(stages)) for _ in counts)
    last = tuple(data.draw(st.lists(seconds, min_size=len(counts), max_size=len(counts))))
    made = NicAware().place(View(tuple(counts), tuple(speeds), layers, (0.0,) * len(counts), last, most))

    def longest(groups, split):
        time = [speeds[g] * n for g, n in zip(groups, split, strict=True)]
        time[-1] += last[groups[-1]]
        return max(time)

    every = [
        longest(groups, split)
        for order in itertools.permutations(range(len(counts)))
        for groups in [tuple(g for g in order for _ in range(counts[g]))]
        for cuts in itertools.combinations(range(1, layers), stages - 1)
        for split in [tuple(b - a for a, b in itertools.pairwise((0, *cuts, layers)))]
        if all(n <= most[g][at] for at, (g, n) in enumerate(zip(groups, split, strict=True)))
    ]  # fmt: skip
    held = all(n <= most[g][at] for at, (g, n) in enumerate(zip(made.groups, made.layers, strict=True)))
    assert held == bool(every)
    if held:
        assert longest(made.groups, made.layers) <= min(every) / 0.99 * (1 + 1e-12)


# ── an iteration ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("plan", [
    {"tensor_parallel": 2, "pipeline_parallel": 2}, {"pipeline_parallel": 4, "zero": 0},
    {"tensor_parallel": 4, "pipeline_parallel": 8, "micro_batch": 4},
])  # fmt: skip
def test_two_equal_groups_are_one_fleet(plan):
    """Halves of one cluster under the events of unlike stages, the whole under the closed form of equal ones."""
    plan = {"overlap": ["data", "pipeline"], **plan}
    whole = simulate(state("32x a100-80g-sxm", "llama-2-7b", plan, 256)).metrics
    parts = simulate(state("", "llama-2-7b", plan, 256, halves())).metrics
    assert parts["iteration_time"] == pytest.approx(whole["iteration_time"], rel=3e-3)
    assert parts["memory"] == whole["memory"]
    assert parts["mfu"] == pytest.approx(whole["mfu"], rel=3e-3)


def test_faster_devices_get_more_layers_and_each_second_has_a_term():
    outcome = simulate(state(model={**SMALL, "layers": 24}, plan={"pipeline_parallel": 3}))
    note = next(n for n in outcome.notes if "holds" in n)
    assert "a100-80g-sxm holds 2 stages of" in note and "h100-sxm holds a stage of" in note
    share = int(note.split("h100-sxm holds a stage of ")[1].split()[0])
    assert share > 24 / 3 * 1.2
    assert sum(outcome.metrics["breakdown"].values()) == pytest.approx(outcome.metrics["iteration_time"])
    assert outcome.metrics["mfu"] < 1


def test_energy_is_that_of_each_kind():
    """Devices that idle all the time draw their own idle power; ones that work draw more."""
    s = state(plan={"pipeline_parallel": 3})
    outcome = simulate(s)
    idle = sum(g.count * g.device.power.idle for g in s.tree.groups)
    most = sum(g.count * g.limit for g in s.tree.groups)
    assert idle < outcome.metrics["power"] < most
    assert outcome.breakdown["energy"]["idle"] == pytest.approx(idle * outcome.metrics["iteration_time"])


@pytest.mark.parametrize(("batch", "excess"), [(16, 0.10), (64, 0.03), (256, 0.02)])
def test_the_rule_against_every_placement_and_split(batch, excess):
    """All orders of groups and all splits of eight layers over three stages, each run as events.

    The rule knows no messages, takes stages one after the other, and keeps its order for a hundredth.
    """
    s = state(plan={"pipeline_parallel": 3}, batch=batch)
    rows, job = columns(complete(s, s.scenario.plan).plan), s.job()
    stages = held_by(s.tree.groups, rows)
    rule = iterate(s.tree, s.network, job, rows, NicAware(), stages, s.systems).time
    own = [pace(s.network, job, rows, system) for system in s.systems]
    every = [
        follow(s.tree, s.network, job, rows, Placement(groups, split, own_links=True), own, s.systems).time
        for groups in set(itertools.permutations((0, 0, 1)))
        for cuts in itertools.combinations(range(1, 8), 2)
        for split in [tuple(b - a for a, b in itertools.pairwise((0, *cuts, 8)))]
    ]  # fmt: skip
    assert min(every) <= rule * (1 + 1e-12)
    assert rule <= (1 + excess) * min(every)
    equal = [
        follow(s.tree, s.network, job, rows, Placement((1, 0, 0), split, own_links=True), own, s.systems).time
        for split in ((3, 3, 2), (3, 2, 3), (2, 3, 3))
    ]  # fmt: skip
    assert rule < min(equal)


def test_memory_moves_layers_to_where_there_is_room():
    """Of 16 V100s of 32 GB and 8 A100s the fast ones hold more than their speed says where the others are full."""
    model = {**SMALL, "layers": 32, "hidden": 5120, "heads": 40}
    s = state("16x v100-32g-sxm + 8x a100-80g-sxm", model, {"pipeline_parallel": 3, "zero": 0, "dtype": "fp16"})
    outcome = simulate(s)
    assert not outcome.metrics["fits"] or outcome.metrics["memory"] <= outcome.provenance["memory"]
    rows, job = columns(complete(s, s.scenario.plan).plan), s.job("fp16")
    found = iterate(s.tree, s.network, job, rows, NicAware(), held_by(s.tree.groups, rows), s.systems)
    groups, layers = np.asarray([found.placement.groups]), np.asarray([found.placement.layers])
    _, filled, stage = unlike.fullest(s.network, job, rows, groups, layers, s.systems)
    assert stage[0] == found.fullest and (filled[0] <= 1) == outcome.metrics["fits"]


def test_stages_that_mix_kinds_go_at_the_slowest_pace():
    s = state(plan={"pipeline_parallel": 2}, batch=48)
    outcome = simulate(s)
    slow = simulate(state("24x a100-80g-sxm", plan={"pipeline_parallel": 2}, batch=48))
    assert outcome.metrics["iteration_time"] == pytest.approx(slow.metrics["iteration_time"], rel=0.01)
    assert any("as if all were the slowest" in note for note in outcome.notes)


# ── the search ──────────────────────────────────────────────────────────────────────────────────────────────────────


def listed(**more):
    return {"zero": [0, 3], "recompute": ["none", "full"], "offload": [], "sequence_parallel": False, **more}


@pytest.mark.parametrize(("devices", "model", "batch", "plan", "fleet"), [
    ("8x a100-80g-sxm + 4x h100-sxm", SMALL, 12, listed(), {}),
    ("8x a100-80g-sxm + 4x h100-sxm", {**SMALL, "hidden": 8192, "heads": 64, "layers": 6}, 12, listed(), {}),
    ("4x v100-32g-sxm + 4x a100-80g-sxm", {**SMALL, "layers": 12, "hidden": 4096}, 8, listed(dtype="fp16"), {}),
    ("", SMALL, 32, listed(micro_batch=[1, 2], data_parallel=[4, 8]), halves("ethernet-25g")),
])  # fmt: skip
def test_the_search_is_a_loop_over_simulations(devices, model, batch, plan, fleet):
    """Every plan of the space simulated one by one: the same number fits, and every layout's best is the same."""
    s = state(devices, model, plan, batch, fleet)
    ranking = search(s, top=None)
    from fleetcast.search.training.space import Question, space
    from fleetcast.sim.training.completing import decided

    every = space(Question(s.network, 2048, batch, s.group.count, s.scenario.plan))
    numbers = np.arange(len(every))
    rows = every.plans(numbers)
    best, fitting, seen = {}, 0, set()
    for i in numbers:
        if held_by(s.tree.groups, rows.take([i])) is not None and (rows.schedule[i] != 1 or rows.interleave[i] != 1):
            continue
        outcome = simulate(s, decided(rows, i, plan.get("dtype", "bf16")))
        seen.add(int(i))
        if outcome.metrics["fits"]:
            fitting += 1
            key = tuple(int(getattr(rows, n)[i]) for n in ("tensor", "pipeline", "data", "context", "expert"))
            best[key] = min(best.get(key, np.inf), outcome.metrics["iteration_time"])
    assert ranking.counts["enumerated"] == len(seen) and ranking.counts["memory_feasible"] == fitting
    names = ("tensor_parallel", "pipeline_parallel", "data_parallel", "context_parallel", "expert_parallel")
    told = {tuple(o.plan[n] for n in names): o.metrics["iteration_time"] for o in ranking.plans}
    assert told.keys() == best.keys()
    for key, value in best.items():
        assert told[key] == pytest.approx(value, rel=1e-9)


def test_all_devices_beat_the_better_group_alone_and_all_at_the_slowest_pace():
    model = {**SMALL, "layers": 32, "hidden": 4096, "heads": 32}
    both = search(state("32x a100-80g-sxm + 16x h100-sxm", model, batch=384), top=1).best
    alone = search(state("16x h100-sxm", model, batch=384), top=1).best
    slowest = search(state("48x a100-80g-sxm", model, batch=384), top=1).best
    assert both.metrics["iteration_time"] < 0.95 * min(o.metrics["iteration_time"] for o in (alone, slowest))


def test_energy_is_searched_too():
    s = state("8x a100-80g-sxm + 4x h100-sxm", SMALL, listed(), 12)
    s = setting(load_training({**s.scenario.table(), "objective": {"minimize": "energy"}}))
    ranking = search(s, top=None)
    joules = [o.metrics["energy"] for o in ranking.plans]
    assert joules == sorted(joules) and len(joules) > 2


def test_what_several_kinds_cannot_have_is_refused(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text("[practice]\ngemm = 1.1\n")
    with pytest.raises(Unsupported, match=r"own.toml.*one kind of device.*Leave it out"):
        state(plan={"practice": str(file)})
    with pytest.raises(Unsupported, match=r"plan.place = 'blind'.*nic_aware alone.*Leave it out"):
        search(state(plan={"place": "blind"}, fleet=halves()))
    with pytest.raises(Unsupported, match=r"plan.dtype = 'fp8': a100-80g-sxm.*Write one of bf16, fp16, fp32"):
        simulate(state(plan={"dtype": "fp8", "pipeline_parallel": 3}))
    with pytest.raises(SpecError, match=r"data_parallel|divide"):
        simulate(state(plan={"pipeline_parallel": 5}))


def test_check_says_what_simulate_refuses_by_its_defaults():
    found = fleetcast.check("training-unlike")
    assert [(r.level, r.path) for r in found] == [("warning", "workload.batch")]
    assert "does not divide over data_parallel = 96, where `simulate` takes defaults" in found[0].text
    with pytest.raises(SpecError, match="does not divide over data_parallel = 96"):
        fleetcast.simulate("training-unlike")


def test_check_says_that_all_ranks_go_at_the_slowest_pace():
    from fleetcast.view.training.checks import check_kinds

    mixed = list(check_kinds(state(plan={"pipeline_parallel": 2}, batch=48)))
    assert [r.path for r in mixed] == ["plan.pipeline_parallel"]
    assert "pace of a100-80g-sxm" in mixed[0].text and "divides each group" in mixed[0].next
    assert not list(check_kinds(state(plan={"pipeline_parallel": 3})))
    assert not list(check_kinds(state("24x a100-80g-sxm", plan={"pipeline_parallel": 2}, batch=48)))
