"""States shared out by level and experts on islands: against ZeRO's own terms, sums written out, and every refusal."""

import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.training.sharding import Sharding, states, traffic
from fleetcast.cost.training.step import TERMS
from fleetcast.scenario.load import load
from fleetcast.sim.training.levels import candidates
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.world import simulate

MODEL = {"layers": 8, "hidden": 2048, "heads": 16}


def ran(plan, devices="32x a100-80g-sxm", batch=64):
    table = {
        "fleet": {"devices": devices}, "plan": plan,
        "workload": {"kind": "training", "model": MODEL, "sequence": 1024, "batch": batch},
    }  # fmt: skip
    return simulate(setting(load(table)))


@pytest.mark.parametrize(("w", "g", "o"), [(1, 1, 32), (2, 8, 32), (8, 8, 32), (32, 32, 32)])
def test_memory_is_what_is_shared_out(w, g, o):
    found = ran({"shards": {"weights": w, "gradients": g, "optimizer": o}})
    params = found.metrics["params"]
    memory = found.breakdown["memory"]
    assert memory["weights"] == pytest.approx(2 * params / w, rel=1e-3)
    assert memory["gradients"] == pytest.approx(4 * params / g, rel=1e-3)
    assert memory["optimizer"] == pytest.approx(12 * params / o, rel=1e-3)
    assert sum(found.breakdown["time"].values()) == pytest.approx(found.metrics["iteration_time"])
    assert sum(memory.values()) == pytest.approx(found.metrics["memory"])
    assert set(found.breakdown["time"]) <= set(TERMS)


def test_zero_is_shards_of_all_or_nothing():
    for zero, (w, g) in ((1, (1, 1)), (2, (1, 32)), (3, (32, 32))):
        own, shared = ran({"zero": zero}), ran({"shards": {"weights": w, "gradients": g, "optimizer": 32}})
        for term in ("weights", "gradients", "optimizer"):
            assert own.breakdown["memory"][term] == pytest.approx(shared.breakdown["memory"][term], rel=1e-6), zero


@pytest.mark.parametrize("overlap", [[], ["data"]])
def test_full_width_shards_of_all_or_nothing_take_as_long_as_zero(overlap):
    """Of ZeRO 0 and 1 every term; of 3, which runs other kernels, every message, and their window is another."""

    def terms(plan):
        return ran({"micro_batch": 1, "recompute": "none", "overlap": overlap} | plan).breakdown["time"]

    for zero, (w, g, o) in ((0, (1, 1, 1)), (1, (1, 1, 32))):
        shards = {"weights": w, "gradients": g, "optimizer": o, "gradient_format": "fp32"}
        assert terms({"shards": shards}) == pytest.approx(terms({"zero": zero})), zero
    if not overlap:
        shards = {"weights": 32, "gradients": 32, "gradient_format": "fp32"}
        own, shared = terms({"zero": 3}), terms({"shards": shards})
        for name in ("data_comm", "weight_gather"):
            assert shared[name] == pytest.approx(own[name])


def test_messages_that_hide_take_no_longer_than_those_that_do_not():
    for shards in ({"weights": 2, "gradients": 8}, {"weights": 1, "gradients": 1}, {"weights": 32, "gradients": 32}):
        plain, hidden = (ran({"shards": shards, "micro_batch": 1, "overlap": o}) for o in ([], ["data"]))
        assert hidden.metrics["iteration_time"] < plain.metrics["iteration_time"]
        assert sum(hidden.breakdown["time"].values()) == pytest.approx(hidden.metrics["iteration_time"])


def test_every_way_to_share_adds_gradients_up_over_all_copies():
    """A node sends no fewer bytes than a sum over all nodes needs: gradients, less this node's own share, once."""
    from fleetcast.cost.training import system as systems
    from fleetcast.scenario.fleet.spec import Fleet
    from fleetcast.scenario.fleet.tree import resolve

    system = systems.of(resolve(Fleet(devices="32x a100-80g-sxm")).groups[0])
    for shards in candidates(32, 8):
        told = Sharding(shards.weights, shards.gradients, shards.optimizer)
        assert 8 * traffic(1e9, told, 32, 1, system).slow >= 2e9 * 3 / 4


def test_a_second_copy_and_narrow_messages_cost_memory_and_save_bytes():
    from fleetcast.cost.training import system as systems
    from fleetcast.scenario.fleet.spec import Fleet
    from fleetcast.scenario.fleet.tree import resolve

    system = systems.of(resolve(Fleet(devices="32x a100-80g-sxm")).groups[0])
    plain, plus = Sharding(32, 32, 32), Sharding(32, 32, 32, 8, "int8", "int4")
    assert sum(states(1e9, plus).values()) - sum(states(1e9, plain).values()) == pytest.approx(2e9 / 8)
    a, b = traffic(1e9, plain, 32, 4, system), traffic(1e9, plus, 32, 4, system)
    assert b.slow < 0.4 * a.slow and b.gather + b.reduce < a.gather + a.reduce and b.codec > 0 == a.codec
    near = traffic(1e9, Sharding(8, 8, 32), 32, 4, system)
    assert near.slow == pytest.approx(2e9 / 8 * 3 / 4 + 2e9 / 8 * 3 / 4), "once an iteration, not once a micro-batch"


def test_auto_is_the_quickest_of_all_that_fit():
    chosen = ran({"shards": "auto"})
    tried = [
        ran({"shards": {"weights": s.weights, "gradients": s.gradients, "optimizer": s.optimizer}})
        for s in candidates(32, 8)
    ]
    fitting = [o.metrics["iteration_time"] for o in tried if o.metrics["fits"]]
    assert chosen.metrics["iteration_time"] == pytest.approx(min(fitting))
    assert len(tried) == len({tuple(sorted(o.plan["shards"].items())) for o in tried}) == 20


def test_islands_are_fleets_of_their_own():
    whole, own = ran({"islands": 4, "zero": 3}), ran({"zero": 3}, "8x a100-80g-sxm", 16)
    assert whole.metrics["iteration_time"] == own.metrics["iteration_time"]
    for name in ("throughput", "energy", "tokens", "devices"):
        assert whole.metrics[name] == pytest.approx(4 * own.metrics[name])


def joined(plan, devices, bandwidth, batch=64):
    """Seconds of one model on all devices, each of which sends at a bandwidth between nodes."""
    return simulate(
        setting(
            load({
                "fleet": {"devices": devices, "links": {"inter": bandwidth}}, "plan": plan,
                "workload": {"kind": "training", "model": MODEL, "sequence": 1024, "batch": batch},
            })
        )
    ).metrics["iteration_time"]  # fmt: skip


@pytest.mark.parametrize("islands", [2, 4])
@pytest.mark.parametrize(
    "plan",
    [{"zero": 0}, {"zero": 1}, {"zero": 1, "overlap": []}, {"zero": 0, "tensor_parallel": 2}],
)
def test_break_even_is_where_one_model_on_all_takes_as_long(plan, islands):
    """A search over simulated iterations of the whole fleet, which knows nothing of islands."""
    plan = plan | {"micro_batch": 1, "recompute": "none"}
    found = ran(plan | {"islands": islands}, f"{8 * islands}x a100-80g-sxm", 64 * islands)
    allowed = 1.05 * found.metrics["iteration_time"]
    low, high = 1e6, 1e14
    assert joined(plan, f"{8 * islands}x a100-80g-sxm", high, 64 * islands) < allowed
    for _ in range(60):
        middle = (low * high) ** 0.5
        slow = joined(plan, f"{8 * islands}x a100-80g-sxm", middle, 64 * islands) > allowed
        low, high = (middle, high) if slow else (low, middle)
    assert found.metrics["break_even"] == pytest.approx(8 * low, rel=1e-3)


def test_islands_pay_at_every_bandwidth_where_one_job_would_wait_for_too_many_machines():
    """Of 512 machines some are slow, and one job waits for them: more than the router's 5 % of the work."""
    found = ran({"islands": 512, "zero": 0, "overlap": []}, "4096x a100-80g-sxm", 4096)
    assert found.metrics["break_even"] == float("inf") and "at every bandwidth" in found.notes[-1]


def test_more_to_send_needs_more_bandwidth():
    """Of a larger batch the iteration is longer and the gradients are not: then islands pay on slow links only."""

    def limit(batch):
        return ran({"islands": 4, "zero": 1, "overlap": []}, batch=batch).metrics["break_even"]

    assert limit(64) > limit(128) > limit(512)


REFUSED = {
    "tensor": ({"shards": {"weights": 2, "gradients": 8}, "tensor_parallel": 8}, "plan.shards.*tensor_parallel"),
    "zero": ({"shards": {"weights": 2, "gradients": 8}, "zero": 3}, "plan.zero.*beside"),
    "levels": ({"shards": {"weights": 4, "gradients": 6}}, "shards.gradients.*multiple"),
    "copies": ({"shards": {"weights": 3, "gradients": 3, "optimizer": 3}}, "shards.weights.*32 copies"),
    "second": ({"shards": {"weights": 32, "gradients": 32, "second": 5}}, "shards.second.*32 copies"),
    "format": ({"shards": {"weights": 2, "gradients": 8, "weight_format": "int3"}}, "weight_format.*unknown"),
    "word": ({"shards": "some"}, "plan.shards.*unknown"),
    "optimizer": ({"shards": {"weights": 1, "gradients": 8, "optimizer": 12}}, "shards.optimizer.*multiple"),
    "gradients": ({"shards": {"weights": 1, "gradients": 64, "optimizer": 64}}, "shards.gradients.*32 copies"),
    "gradient format": (
        {"shards": {"weights": 2, "gradients": 8, "gradient_format": "fp64"}},
        "gradient_format.*unknown",
    ),
    "pipeline": ({"shards": {"weights": 2, "gradients": 8}, "pipeline_parallel": 2}, "plan.shards.*pipeline_parallel"),
    "place": ({"place": "anywhere"}, "plan.place.*unknown"),
    "islands": ({"islands": 5}, "plan.islands.*32 devices"),
    "batch": ({"islands": 32}, None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_named(name):
    plan, said = REFUSED[name]
    if said is None:
        assert ran(plan).metrics["break_even"] > 0
        return
    with pytest.raises(SpecError, match=said) as caught:
        ran(plan)
    assert caught.value.limit and (caught.value.hint or "one of" in caught.value.limit)


def grouped(counts, kinds=("a100-80g-sxm", "a100-80g-sxm"), **plan):
    groups = [
        {"name": f"g{i}", "devices": f"{n}x {kind}"} for i, (n, kind) in enumerate(zip(counts, kinds, strict=True))
    ]
    return simulate(
        setting(
            load({
                "fleet": {"network": "ethernet-25g", "groups": groups}, "plan": plan,
                "workload": {"kind": "training", "model": MODEL, "sequence": 1024, "batch": 64},
            })
        )
    )  # fmt: skip


def test_islands_are_the_groups_of_a_fleet():
    whole = grouped((16, 16), islands=2, zero=1)
    assert whole.metrics["devices"] == 32 and whole.plan["data_parallel"] == 16
    with pytest.raises(SpecError, match=r"plan.islands.*number of the fleet's groups"):
        grouped((16, 16), islands=4)
    with pytest.raises(SpecError, match=r"plan.islands.*unlike sizes"):
        grouped((8, 24), islands=2)
    with pytest.raises(SpecError, match=r"plan.islands.*64 sequences"):
        ran({"islands": 3}, "24x a100-80g-sxm")


def test_stages_lie_in_groups_where_they_divide_and_on_all_of_them_elsewhere():
    """Three stages do not divide over two groups alike, and one stage is on both: all devices are one group then."""
    mixed = grouped((16, 16), pipeline_parallel=2, schedule="1f1b")
    assert any("1F1B" in note for note in mixed.notes) and not any("taken as one" in note for note in mixed.notes)
    assert sum(mixed.breakdown["time"].values()) == pytest.approx(mixed.metrics["iteration_time"])
    whole = grouped((16, 16), pipeline_parallel=1)
    assert any("taken as one of 32" in note for note in whole.notes)
    unlike = grouped((16, 16), ("a100-80g-sxm", "h100-sxm"), pipeline_parallel=2)
    assert unlike.metrics["iteration_time"] < mixed.metrics["iteration_time"]


def test_the_practice_of_a_plan_is_that_of_its_islands(tmp_path):
    file = tmp_path / "slow.toml"
    file.write_text("[practice]\ngemm = 3.0\nsource = 'a test'\n")
    plain, slow = ran({"islands": 2}), ran({"islands": 2, "practice": str(file)})
    assert slow.metrics["iteration_time"] > 1.5 * plain.metrics["iteration_time"]
