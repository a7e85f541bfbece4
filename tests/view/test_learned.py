"""`fleetcast learn`: from a scenario to weights that a scenario names."""

import hashlib
import json

import numpy as np
import pytest

import fleetcast
from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.view.cli import main

JOBS = """
[workload]
kind = "jobs"
servers = {servers}
nodes = 8
[plan]
share = {share}
"""
GRAPH = """
[fleet]
devices = "2x a100-80g-sxm"
[workload]
kind = "graph"
graph = {{ kind = "cholesky", tiles = 4 }}
[plan]
order = "{order}"
"""


def jobs(tmp_path, servers="{ jobs = 4 }", share='{ kind = "dl2" }'):
    path = tmp_path / "jobs.toml"
    path.write_text(JOBS.format(servers=servers, share=share))
    return path


def test_learn_writes_weights_that_the_next_plan_names_by_their_hash(tmp_path, capsys):
    pytest.importorskip("torch", reason="training needs torch")
    out = tmp_path / "w.npz"
    words = ["learn", str(jobs(tmp_path)), "--rounds", "1", "--warm", "4", "--out", str(out), "--json"]
    assert main(words) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert set(made["judged"]) == {"teacher", "warm-up", "learnt"} and made["teacher"] == "drf"
    with np.load(out, allow_pickle=False) as file:
        assert len(file["models"]) == 8
    outcome = fleetcast.simulate(jobs(tmp_path, share='{ kind = "dl2", weights = "w.npz" }'))
    assert outcome.provenance["weights"] == made["sha256"]
    assert outcome.plan["share"]["weights"] == "w.npz"
    ranked = fleetcast.plan(jobs(tmp_path, share='["drf", { kind = "dl2", weights = "w.npz", guard = "drf" }]'))
    assert {row.plan["share"]["kind"] for row in ranked.plans} == {"fifo", "drf", "dl2"}
    assert main(words[:-1]) == 0
    assert "to completion" in capsys.readouterr().out


def test_learn_from_a_list_of_ones_own_and_any_teacher(tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    (tmp_path / "mine.csv").write_text("slot,model\n0,dssm\n1,wlm\n3,resnext-110\n")
    path = jobs(tmp_path, servers='"mine.csv"')
    made = fleetcast.learn(path, tmp_path / "w.npz", teacher="optimus", rounds=1, warm=4)
    assert made.teacher == "optimus" and np.isfinite(made.judged["learnt"])


def test_learn_refuses_what_does_not_learn(tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    with pytest.raises(SpecError, match="nothing that learns"):
        fleetcast.learn(jobs(tmp_path, share='"drf"'), tmp_path / "w.npz")
    with pytest.raises(SpecError, match="nothing that learns"):
        fleetcast.learn(GRAPH.format(order="heft"), tmp_path / "w.npz")
    with pytest.raises(SpecError, match="com_ddpg trains from the start"):
        fleetcast.learn(GRAPH.format(order="com_ddpg"), tmp_path / "w.npz", checkpoint=tmp_path / "c.npz")
    with pytest.raises(Unsupported, match="no 'learn'"):
        fleetcast.learn("quickstart")
    assert main(["learn", str(jobs(tmp_path)), "--rounds", "0"]) == 2


def test_learn_trains_the_agents_of_a_graph(tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    made = fleetcast.learn(GRAPH.format(order="com_ddpg"), tmp_path / "w.npz", rounds=2)
    assert made.policy == "com_ddpg" and len(made.curve) == 2 and made.path.exists()
