"""GenModel: closed forms of the paper, limits, and its parameters back from noisy timings."""

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.collectives import fitting, genmodel
from fleetcast.cost.collectives.fitting import Timing
from fleetcast.cost.collectives.genmodel import Parameters, stages, time

P = Parameters(alpha=15e-6, beta=8e-11, gamma=2e-11, delta=3.9e-11, epsilon=8e-12, threshold=9.0, launch=5e-5)


@pytest.mark.parametrize(
    ("algorithm", "n", "a", "b", "c", "d", "w"),
    # A, B, C, D in units of the buffer, w: GenModel/GenTree, arXiv 2409.04202
    [
        ("ring", 8, 14, 14 / 8, 7 / 8, 21 / 8, 2),
        ("rhd", 8, 6, 14 / 8, 7 / 8, 21 / 8, 2),
        ("cps", 8, 2, 14 / 8, 7 / 8, 9 / 8, 8),
        ("central", 8, 2, 14, 7, 9, 8),
        ("4x3", 12, 4, 22 / 12, 11 / 12, 5 / 4 + 4 / 12, 4),
        ("3x4", 12, 4, 22 / 12, 11 / 12, 4 / 3 + 5 / 12, 4),
    ],
)
def test_counts_are_the_papers(algorithm, n, a, b, c, d, w):
    found = stages(algorithm, n, 1.0)
    sums = [sum(getattr(s, name) for s in found) for name in ("rounds", "sent", "added", "moved")]
    assert sums == pytest.approx([a, b, c, d])
    assert max(s.width for s in found) == w


def test_an_all_reduce_is_its_two_halves():
    for algorithm in ("ring", "cps", "rhd", "2x6"):
        whole = time(algorithm, 12, 1e7, P) - P.launch
        halves = [time(algorithm, 12, 1e7, P, op) - P.launch for op in ("reduce_scatter", "all_gather")]
        assert whole == pytest.approx(sum(halves))


def test_memory_wants_width_and_incast_wants_none():
    memory = Parameters(alpha=0.0, beta=1e-10, delta=1e-10)
    incast = Parameters(alpha=0.0, beta=1e-10, epsilon=1e-11, threshold=4.0)
    ways = ["2x2x2x2", "4x4", "16"]
    assert genmodel.fastest(ways, 16, 1e9, memory) == "16"
    assert genmodel.fastest(["16", "4x4"], 16, 1e9, incast) == "4x4"
    both = Parameters(alpha=0.0, beta=1e-10, delta=1e-10, epsilon=1e-11, threshold=4.0)
    assert genmodel.fastest(ways, 16, 1e9, both) == "4x4"


def made(noise, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for n in (4, 6, 8, 12, 16, 24, 32):
        for algorithm in sorted({"ring", "rhd", "cps", "central", *(f"{f}x{n // f}" for f in (2, 3, 4) if n % f == 0)}):
            if algorithm.endswith("x1"):
                continue
            for size in np.geomspace(1e4, 1e9, 10):
                for op in genmodel.OPERATIONS:
                    exact = fitting.predicted(Timing(algorithm, n, float(size), 1.0, op), P)
                    off = float(np.exp(noise * rng.standard_normal()))
                    rows.append(Timing(algorithm, n, float(size), exact * off, op))
    return rows


def test_seven_parameters_come_back_from_noisy_timings_within_five_per_cent():
    found = fitting.fit(made(0.02, 1)).parameters
    for name in ("alpha", "beta", "gamma", "delta", "epsilon", "threshold", "launch"):
        assert getattr(found, name) == pytest.approx(getattr(P, name), rel=0.05), name


def test_simpler_models_are_further_off_where_fan_in_has_a_price():
    rows = made(0.02, 2)[::4]
    errors = {model: fitting.held_out(rows, model, "ranks").mean() for model in fitting.MODELS}
    assert errors["genmodel"] < 0.05 < errors["alpha-beta-gamma"] <= errors["alpha-beta"] * 1.001


def test_nothing_is_gained_where_fan_in_is_free():
    plain = Parameters(alpha=1e-5, beta=1e-10, gamma=1e-11)
    rows = [
        Timing(a, n, s, time(a, n, s, plain, op), op)
        for n in (4, 8) for a in ("ring", "cps", "rhd") for s in (1e4, 1e6, 1e8) for op in genmodel.OPERATIONS
    ]  # fmt: skip
    found = fitting.fit(rows).parameters
    assert found.delta < 1e-15 and found.epsilon < 1e-15 and found.beta == pytest.approx(1e-10)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: time("ring", 1, 1e6, P), "at least 2 take part"),
        (lambda: time("ring", 4, 0.0, P), "bytes above 0"),
        (lambda: time("star", 4, 1e6, P), "ring, rhd, cps"),
        (lambda: time("3x3", 8, 1e6, P), "product is 8"),
        (lambda: time("ring", 4, 1e6, P, "gossip"), "reduce_scatter"),
        (lambda: Parameters(alpha=-1.0, beta=0.0), "alpha"),
        (lambda: fitting.fit(made(0, 0)[:3]), "too few"),
        (lambda: fitting.fit([Timing("ring", 4, 1e6, 0.0)] * 9), "seconds above 0"),
        (lambda: fitting.fit(made(0, 0), "logp"), "alpha-beta, alpha-beta-gamma, genmodel"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(SpecError, match=said):
        call()
