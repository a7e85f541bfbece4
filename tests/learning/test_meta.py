"""HELP's network at toy size, and the one helpful error where torch is absent."""

import importlib
import sys

import numpy as np
import pytest

from fleetcast.base.errors import MissingExtra


def test_without_torch_there_is_one_helpful_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "fleetcast.learning.meta", raising=False)
    with pytest.raises(MissingExtra, match=r"fleetcast\[torch\]"):
        importlib.import_module("fleetcast.learning.meta")


@pytest.fixture
def meta():
    pytest.importorskip("torch")
    return importlib.import_module("fleetcast.learning.meta")


def toy(meta, devices=4, graphs=120):
    """Graphs whose latency is a device's cost of each node's kind, added up."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, 3, (graphs, 4))
    nodes = np.zeros((graphs, 5, 4))
    for node, row in zip(nodes, kinds, strict=True):
        node[range(4), row] = 1.0
        node[4, 3] = 1.0
    links = np.broadcast_to(np.vstack([np.eye(5)[:4], np.ones(5)]), (graphs, 5, 5)).copy()
    tasks = []
    for _ in range(devices):
        latency = (np.array([0.5, 1.0, 2.0]) * random.uniform(0.7, 1.4, 3))[kinds].sum(1)
        scaled = (latency - latency.min()) / np.ptp(latency)
        tasks.append(meta.Task(scaled[:10], scaled, np.arange(80)))
    return meta.Graphs(nodes, links), tasks


def make(meta, episodes, seed=0):
    graphs, tasks = toy(meta)
    settings = meta.Settings(episodes=episodes, tasks=3, query=40, width=16, rate=3e-3, every=20)
    return meta.Learner(graphs, 10, settings, seed=seed), tasks


def rank(learner, task):
    asked = np.arange(80, 120)
    forecast = learner.predict(task, np.arange(10, 20), asked)
    return float(np.corrcoef(forecast, task.latency[asked])[0, 1])


def test_training_teaches_an_unseen_device(meta):
    learner, tasks = make(meta, 120)
    looks = learner.train(tasks[:3], lambda: rank(learner, tasks[2]))
    assert [episode for episode, _ in looks] == [20, 40, 60, 80, 100, 120]
    assert rank(learner, tasks[3]) > 0.8


def test_the_best_weights_are_kept(meta):
    learner, tasks = make(meta, 40)
    verdicts = iter([1.0, 0.0])
    seen = []

    def judge():
        seen.append({name: w.detach().clone() for name, w in learner.weights.items()})
        return next(verdicts)

    learner.train(tasks[:3], judge)
    assert all((learner.weights[name] == w).all() for name, w in seen[0].items())
    assert any((learner.weights[name] != w).any() for name, w in seen[1].items())


def test_same_seed_same_forecast(meta):
    forecasts = []
    for seed in (1, 1, 2):
        learner, tasks = make(meta, 20, seed)
        learner.train(tasks[:3], lambda: 0.0)
        forecasts.append(learner.predict(tasks[3], np.arange(10), np.arange(80, 90)))
    assert (forecasts[0] == forecasts[1]).all() and (forecasts[0] != forecasts[2]).any()


def test_adapting_is_the_gradient_step_written_out(meta):
    """One inner step on one task equals theta - rate * gradient, with torch's own gradient of the same loss."""
    torch = pytest.importorskip("torch")
    graphs, tasks = toy(meta)
    settings = meta.Settings(steps=1, width=8, modulation=0.0, inner=0.05)
    learner = meta.Learner(graphs, 10, settings, seed=0)
    support = np.arange(10, 20)[None]
    adapted, _ = learner._adapt(tasks[:1], support)
    plain = {n: w.detach().clone()[None].requires_grad_(True) for n, w in learner.weights.items()}
    target = torch.as_tensor(tasks[0].latency[support], dtype=torch.float32)
    loss = ((learner._forward(plain, tasks[:1], support) - target) ** 2).mean()
    slopes = torch.autograd.grad(loss, list(plain.values()))
    for (name, w), slope in zip(plain.items(), slopes, strict=True):
        assert torch.allclose(adapted[name], w - 0.05 * slope, atol=1e-6)


@pytest.mark.slow
def test_help_s_network_beats_flops_on_its_own_data(meta, measured):
    """A tenth of the training; what all of it gives stands in the evidence of system 21."""
    from benchmarks import help_latency as bench

    folder = measured / "patterns" / "help"
    if not folder.is_dir():
        pytest.skip("HELP's latencies are absent")
    data = bench.read(folder)
    found = bench.network(data, 400, seeds=2)
    assert np.mean(found.twenty) > bench.nulls(data)["FLOPs"]
