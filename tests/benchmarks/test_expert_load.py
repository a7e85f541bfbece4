"""Skewed kernels from balanced ones: loads as drawn, counts as dealt, coefficients that come back. Made-up rows."""

import numpy as np
import pytest

pytest.importorskip("pandas")

import pandas as pd

from benchmarks.expert_load import drawn, gini
from benchmarks.fit import skewed
from fleetcast.cost.moe import Experts
from fleetcast.cost.placement import placed
from fleetcast.cost.roofline import Chip
from fleetcast.scenario.workload.loads import inclusion

CHIP = Chip("chip", "none", 2e12, 100, {"bf16": 500e12})
TRUTH = Experts(launch=4e-5, compute=0.6, memory=0.8, sharp=2, block=8.0, shuffle=6.0)


def rows() -> pd.DataFrame:
    world = [
        (t, h, w, e, k, n, 1, d)
        for t in (1, 4, 16, 64, 256, 1024, 4096)
        for h, w, e, k in ((4096, 1536, 128, 8), (2048, 768, 64, 6), (4096, 14336, 8, 2), (7168, 2048, 256, 8))
        for n in (1, 4, 8)
        for d in ("balanced", "power_law_1.2")
    ]
    names = ["num_tokens", *skewed.SHAPE, "moe_ep_size", "moe_tp_size", "distribution"]
    return pd.DataFrame(world, columns=names)


@pytest.mark.parametrize("tokens", [1, 8, 4096])
def test_drawn_loads_are_chances_of_a_top_k_choice(tokens):
    found = skewed.loads(1.2, tokens, 64, 6)
    assert found.shape == (skewed.DRAWS, 64) and found.min() >= 0 and found.max() <= 1
    assert found.sum(axis=1) == pytest.approx(6)


def test_dealt_counts_are_all_the_choices_and_near_the_drawn_ones_at_many_tokens():
    assert skewed.dealt(1.01, 64, 64, 6, 1)[0] == 64 * 6
    for ranks in (1, 4):
        dealt, modelled = (f(1.2, 8192, 64, 6, ranks) for f in (skewed.dealt, skewed.modelled))
        assert dealt == pytest.approx(modelled, rel=0.02)


def test_skewed_rows_are_predicted_without_having_been_fitted():
    frame = rows()
    even = frame["distribution"] == "balanced"
    frame.loc[even, "time"] = skewed.predict(frame[even], "bf16", CHIP, TRUTH, skewed.busy(frame[even], "balanced"))
    frame.loc[~even, "time"] = skewed.predict(frame[~even], "bf16", CHIP, TRUTH, skewed.busy(frame[~even], "model"))
    c = skewed.fit_balanced(frame, "bf16", CHIP)
    assert (c.launch, c.compute, c.memory) == pytest.approx((4e-5, 0.6, 0.8), rel=0.05)
    found = skewed.held_out(frame, "bf16", CHIP, TRUTH, folds=2)
    assert len(found) == (~even).sum()
    off = {how: np.abs(found[how] / found["time"] - 1) for how in ("model", "even")}
    assert off["model"].median() < 0.03 < off["even"].max()


def test_gini_and_drawing_of_even_routers():
    assert gini(np.full(8, 0.25)) == pytest.approx(0)
    assert gini(np.array([0.0, 0.0, 0.0, 1.0])) == pytest.approx(0.75)
    where = placed(inclusion(np.ones(8), 2), 2, "contiguous")
    got = drawn(np.ones(8), 2, 64, where, 2, 50)
    assert 64 < got[0] < 80 and got[1] == pytest.approx(4, abs=0.01)
