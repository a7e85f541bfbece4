"""States shared out by level: equal to training on one device, as far as messages are narrow, and no byte uncounted."""

from dataclasses import replace

import numpy as np
import pytest

from fleetcast.cost.training import system as systems
from fleetcast.cost.training.sharding import BLOCK, Sharding, states, traffic
from fleetcast.runtime.training.sharded import Sharded, quantised
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve

RANKS, NODE, SIZE = 16, 4, 16 * 16 * 4
PLANS = {
    "alone": Sharding(1, 1, 1), "zero-1": Sharding(1, 1, 16), "zero-2": Sharding(1, 16, 16),
    "zero-3": Sharding(16, 16, 16), "levels": Sharding(2, 4, 16), "hybrid": Sharding(4, 4, 4),
    "half": Sharding(2, 2, 8), "second": Sharding(16, 16, 16, 4), "odd": Sharding(1, 8, 8),
}  # fmt: skip


def exact(shards):
    return Sharding(shards.weights, shards.gradients, shards.optimizer, shards.second, "fp32", "fp32")


def narrow(shards):
    return Sharding(shards.weights, shards.gradients, shards.optimizer, shards.second, "int8", "int4")


def alone(params, slopes, rate):
    """Adam on one device, bf16 weights and fp32 states, written out again."""
    master, first, square = params.astype(np.float64), 0.0, 0.0
    for step, slope in enumerate(slopes, 1):
        first, square = 0.9 * first + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        master = master - rate * (first / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return master


@pytest.mark.parametrize("name", PLANS)
def test_training_is_that_of_one_device(name):
    """Three steps of two micro-batches; full-width messages, gradients in eighths so that any order sums alike."""
    rng = np.random.default_rng(5)
    params = rng.standard_normal(SIZE).astype(np.float32)
    gradients = rng.integers(-40, 40, (3, 2, RANKS, SIZE)).astype(np.float32) / 8
    made = Sharded(params, exact(PLANS[name]), RANKS, NODE, rate=0.01)
    for step in gradients:
        for micro in step:
            whole = made.gathered()
            assert all(np.array_equal(one, whole[0]) for one in whole)
            again = made.gathered_again()
            assert all(np.array_equal(one, whole[0]) for one in again)
            made.add(list(micro))
        made.step(2 * RANKS)
    expected = alone(params, gradients.mean(axis=(1, 2)), 0.01)
    assert np.allclose(made.gathered()[0], quantised(expected.astype(np.float32), "bf16"), rtol=2**-7, atol=1e-5)
    held = {name: value for name, value in made.held().items()}
    assert held == pytest.approx(states(SIZE, PLANS[name]))


@pytest.mark.parametrize("form", [exact, narrow, lambda shards: shards])
@pytest.mark.parametrize("name", PLANS)
def test_what_crosses_nodes_is_what_the_cost_says(name, form):
    """Two micro-batches with a pass forward and one back, then a step; the cost's block is its own constant."""
    shards = form(PLANS[name])
    made = Sharded(np.ones(SIZE, dtype=np.float32), shards, RANKS, NODE, block=BLOCK)
    for _ in range(2):
        made.gathered()
        made.gathered_again()
        made.add([np.ones(SIZE, dtype=np.float32)] * RANKS)
    made.step()
    assert np.ptp(made.far) == 0, "all ranks alike"
    system = replace(systems.of(resolve(Fleet(devices="16x a100-80g-sxm")).groups[0]), node=NODE)
    assert made.far[0] == pytest.approx(traffic(SIZE, shards, RANKS, 2, system).slow)


@pytest.mark.parametrize(("kind", "steps"), [("int8", 127), ("int4", 7)])
def test_a_quantised_value_is_off_by_half_a_step_at_most(kind, steps):
    rng = np.random.default_rng(6)
    for scale in (1e-6, 1.0, 1e4):
        values = (rng.standard_normal(1000) * scale).astype(np.float32)
        off = np.abs(quantised(values, kind, 64) - values)
        bound = np.repeat([np.abs(values[i : i + 64]).max() / steps / 2 for i in range(0, 1000, 64)], 64)[:1000]
        assert (off <= bound * (1 + 1e-4)).all() and off.max() > 0.5 * bound.max()
    assert np.array_equal(quantised(np.zeros(10, dtype=np.float32), kind), np.zeros(10))
    with pytest.raises(ValueError, match="int3"):
        quantised(values, "int3")


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_floats_round_to_the_nearest(kind):
    values = np.array([1.0, -2.5, 1 + 2**-9, 3e-3, 65504.0], dtype=np.float32)
    bits = 8 if kind == "bf16" else 11
    assert (np.abs(quantised(values, kind) - values) <= np.abs(values) * 2.0**-bits).all()
    assert np.array_equal(quantised(quantised(values, kind), kind), quantised(values, kind))


@pytest.mark.parametrize("name", ["zero-3", "levels", "second"])
def test_narrow_sums_stay_within_the_bound(name):
    """Each of 15 messages at most is off by half a step of int4 of the largest that it could hold, in two hops."""
    rng = np.random.default_rng(7)
    gradients = rng.uniform(-1, 1, (RANKS, SIZE)).astype(np.float32)
    made = Sharded(np.zeros(SIZE, dtype=np.float32), narrow(PLANS[name]), RANKS, NODE, block=16)
    made.add(list(gradients))
    group = PLANS[name].gradients
    for rank in range(RANKS):
        mates = slice(rank // group * group, rank // group * group + group)
        true = gradients[mates].sum(axis=0)[made._gradient_part(rank % group)]
        near, nodes = min(group, NODE), max(1, group // NODE)
        hop = (near - 1) * 1.0 / 14 * nodes + (nodes - 1) * (near * (1 + 1 / 14)) / 14
        off = np.abs(made.added[rank] - true)
        assert 0 < off.max() <= hop


def test_narrow_messages_train_a_model_as_well():
    """Least squares of 1,024 weights: int8 weights and int4 gradients reach a loss near that of full width."""
    rng = np.random.default_rng(8)
    truth = rng.standard_normal(SIZE).astype(np.float32)
    inputs = rng.standard_normal((RANKS, 256, SIZE)).astype(np.float32)

    def loss(form):
        made = Sharded(np.zeros(SIZE, dtype=np.float32), form(PLANS["levels"]), RANKS, NODE, rate=0.05, block=64)
        for _ in range(100):
            seen = made.gathered()
            made.add([x.T @ (x @ (w - truth)) / 256 for x, w in zip(inputs, seen, strict=True)])
            made.step(RANKS)
        return float(np.mean((made.gathered()[0] - truth) ** 2))

    wide, small = loss(exact), loss(narrow)
    assert wide < 0.01 and small < 0.03 and abs(small - wide) > 0


def test_shares_that_do_not_divide_are_refused():
    for shards, ranks in ((Sharding(4, 6, 12), 12), (Sharding(2, 4, 8), 12), (Sharding(1, 1, 4, 3), 16)):
        with pytest.raises(ValueError, match="divide"):
            Sharded(np.zeros(ranks**2, dtype=np.float32), shards, ranks, 4)
