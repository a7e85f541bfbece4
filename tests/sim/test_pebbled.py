"""Off-loading, recomputing and swapping as pebble games: legal, as full as formulas say, else refused."""

import json
from dataclasses import replace

import pytest

from fleetcast.cost.pebbling.check import prove
from fleetcast.cost.training.pebbles import Part, Passes, pebbles
from fleetcast.scenario.load import load
from fleetcast.sim.training.completing import complete
from fleetcast.sim.training.pebbled import passes
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.world import simulate
from fleetcast.view import cli, verbs

GPU = {"devices": "8x a100-80g-sxm", "host_memory": "4 TB"}
STEP = {"kind": "training", "model": "llama-3.1-8b", "sequence": 8192, "batch": 64}
PLAN = {"tensor_parallel": 2, "pipeline_parallel": 1, "micro_batch": 2, "zero": 1, "recompute": "none", "offload": []}


def state(plan=None, fleet=None, **work):
    return setting(load({"fleet": GPU | (fleet or {}), "workload": STEP | work, "plan": PLAN | (plan or {})}))


def proof(plan=None, **parts):
    found = verbs.prove(state(plan, **parts).scenario)
    assert found is not None
    return found


@pytest.mark.parametrize("stages", [1, 4])
@pytest.mark.parametrize(
    ("recompute", "offload"),
    [
        ("full", []), ("selective", []), ("none", ["activations"]), ("full", ["activations"]),
        ("full", ["weights", "activations", "optimizer"]),
    ],
)  # fmt: skip
def test_the_fullest_moment_is_what_the_memory_of_a_step_says(stages, recompute, offload):
    """Within the two layers that the formula leaves on the device beside those at work."""
    plan = {"recompute": recompute, "offload": offload, "pipeline_parallel": stages, "fused_attention": False}
    s = state(plan)
    found, outcome = proof(plan), simulate(s)
    assert found.legal is outcome.metrics["fits"]
    if not found.legal:
        return
    memory = outcome.breakdown["memory"]
    said = memory["activations"] + memory["buffers"] + (memory["weights"] if "weights" in offload else 0.0)
    of = passes(s, complete(s, s.scenario.plan).plan)
    layer = of.boundary + sum(part.size for part in of.parts) + of.weights
    assert found.peak[0] == pytest.approx(said, abs=2.5 * layer)
    assert found.again == of.layers * sum(part.way == "again" for part in of.parts)


def test_a_plan_that_keeps_everything_has_nothing_to_prove():
    assert verbs.prove(state().scenario) is None
    assert verbs.prove("training") is None  # open
    assert verbs.prove("training-counted") is None


def test_a_plan_that_does_not_fit_is_illegal_at_the_move_that_is_too_much():
    plan = {"recompute": "selective", "fused_attention": False, "micro_batch": 4}
    found = proof(plan)
    assert not found.legal
    assert "needs" in found.reason
    assert found.at is not None


SMALL = Passes(
    layers=6, boundary=2.0, boundary_way="kept", parts=(Part("rest", 10.0, 1.0, "again"),), output=1.0, backward=4.0,
    head=1.0, logits=3.0, weights=0.0, gradients=0.0, red=40.0, link=5.0,
)  # fmt: skip


def test_moves_cost_what_a_plan_does():
    """Counted by hand: a step's passes, and what each way adds to them."""
    plain = 6 * (1 + 1 + 4) + 1
    again = prove(*pebbles(SMALL))
    assert again.legal
    assert again.cost == plain + 6 * 1
    assert again.peak[0] == 6 * 2 + 10 + 2 * 2  # inputs, one layer's rest, gradients in and out
    away = prove(*pebbles(replace(SMALL, parts=(replace(SMALL.parts[0], way="away"),))))
    assert away.legal
    assert away.cost == plain + 6 * 2 * 10 / 5
    kept = prove(*pebbles(replace(SMALL, parts=(replace(SMALL.parts[0], way="kept"),), red=100.0)))
    assert (kept.legal, kept.gap) == (True, 0.0)
    streams = prove(*pebbles(replace(SMALL, boundary_way="away", weights=4.0, gradients=3.0)))
    assert streams.legal
    assert streams.cost == pytest.approx(plain + 6 + (6 * 2 * 2 + 6 * 2 * 4 + 6 * 3) / 5)


def test_the_bound_rises_as_memory_shrinks_and_no_plan_beats_it():
    game, _ = pebbles(SMALL)
    bounds = []
    for red in (70.0, 50.0, 40.0, 30.0):
        found = prove(*pebbles(replace(SMALL, red=red)))
        assert found.legal
        assert found.cost >= found.lower_bound
        bounds.append(found.lower_bound)
    assert bounds == sorted(bounds)
    assert bounds[-1] > bounds[0]
    assert game.dag.names[1] == "input of layer 1"


def test_layers_less_memory_than_one_needs_are_refused():
    found = prove(*pebbles(replace(SMALL, red=20.0)))
    assert not found.legal
    assert "layer" in found.reason


SERVED = {
    "fleet": {"devices": "1x h100-sxm"}, "workload": {"model": "llama-3.1-8b", "trace": "azure-conv-2023"},
    "plan": {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1},
}  # fmt: skip


def served(memory):
    return verbs.prove(SERVED | {"plan": SERVED["plan"] | ({"memory": memory} if memory else {})})


def test_evicted_requests_are_swapped_or_computed_again_legally():
    swap, again = served("swap"), served("recompute")
    assert swap.legal, swap.reason
    assert again.legal, again.reason
    assert (swap.again, again.moved) == (0, 0.0)
    assert swap.moved > 0 < again.again
    assert swap.lower_bound == again.lower_bound < min(swap.cost, again.cost)
    assert max(swap.peak[0], again.peak[0]) <= swap.red[0] * (1 + 1e-9)
    assert served(None) is None  # the plan leaves it open


def test_check_prints_the_proof_and_says_it_in_numbers(capsys):
    assert cli.main(["check", "training-plan", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["proof"]
    assert table["legal"] is True
    assert table["cost"] >= table["lower_bound"] > 0
    assert table["gap"] == pytest.approx(table["cost"] / table["lower_bound"] - 1)
    assert cli.main(["check", "training-plan"]) == 0
    said = capsys.readouterr().out
    assert "legal: 1,288 moves" in said
    assert "no schedule below" in said


def test_check_fails_where_the_moves_are_illegal(tmp_path, capsys):
    file = tmp_path / "full.toml"
    file.write_text(
        '[fleet]\ndevices = "8x a100-80g-sxm"\n[workload]\nkind = "training"\nmodel = "llama-3.1-8b"\nsequence = 8192\n'
        "batch = 64\n[plan]\ntensor_parallel = 2\npipeline_parallel = 1\nmicro_batch = 4\nzero = 1\n"
        'recompute = "selective"\nfused_attention = false\n'
    )
    assert cli.main(["check", str(file), "--json"]) == 1
    table = json.loads(capsys.readouterr().out)
    assert table["ok"] is False
    assert table["proof"]["legal"] is False
    assert table["proof"]["at"] >= 0
