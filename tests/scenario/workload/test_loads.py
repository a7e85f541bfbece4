"""Expert loads: inclusion probabilities against every order of draws, files, and what a file may not say."""

from itertools import permutations

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng
from fleetcast.scenario.workload.catalog import model
from fleetcast.scenario.workload.loads import Skew, expert_load_of, inclusion, read_loads, synthetic


def by_hand(weights, top_k):
    """The chance to be drawn, summed over every order of draws."""
    found = np.zeros(len(weights))
    for order in permutations(range(len(weights)), top_k):
        left, chance = weights.sum(), 1.0
        for e in order:
            chance *= weights[e] / left
            left -= weights[e]
        found[list(order)] += chance
    return found


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(("experts", "top_k"), [(5, 2), (6, 1), (6, 3), (6, 5), (7, 4), (4, 4)])
def test_inclusion_is_that_of_draws_one_after_another(exponent, experts, top_k):
    weights = np.arange(1.0, experts + 1) ** -exponent
    assert inclusion(weights, top_k) == pytest.approx(by_hand(weights, top_k), abs=1e-8)


def test_inclusion_matches_a_softmax_router_with_noise():
    weights = np.arange(1.0, 257.0) ** -1.0
    score = np.log(weights) + rng(4).gumbel(size=(20_000, 256))
    seen = np.bincount(np.argpartition(-score, 7, axis=1)[:, :8].ravel(), minlength=256) / 20_000
    got = inclusion(weights, 8)
    assert np.abs(got - seen).max() < 5 * np.sqrt(0.25 / 20_000)
    assert got.sum() == pytest.approx(8) and np.all(np.diff(got) < 0) and got.max() < 1


def test_a_synthetic_load_differs_from_layer_to_layer_and_not_from_run_to_run():
    load = synthetic(0.8, 5, 16, 2)
    again = synthetic.__wrapped__(0.8, 5, 16, 2)
    assert np.array_equal(load.chosen, again.chosen) and "synthetic" in load.source
    assert len({row.tobytes() for row in load.chosen}) == 5
    assert np.sort(load.chosen, axis=1) == pytest.approx(np.tile(np.sort(load.chosen[0]), (5, 1)))
    assert synthetic(0.0, 5, 16, 2).chosen == pytest.approx(np.full((1, 16), 2 / 16))


def written(path, rows, head="layer,expert,load"):
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_counts_and_shares_say_the_same(tmp_path):
    counts = written(tmp_path / "a.csv", [f"{x},{e},{(e + x) * 10}" for x in (3, 7) for e in range(4)])
    shares = written(tmp_path / "b.csv", [f"{e},{x},{(e + x) / (6 + 4 * x)}" for x in (3, 7) for e in range(4)],
                     "expert,layer,load")  # fmt: skip
    a, b = (read_loads(p, 2, 4, 2) for p in (counts, shares))
    assert a.chosen == pytest.approx(b.chosen)
    assert a.chosen.sum(axis=1) == pytest.approx([2, 2]) and a.chosen[0] == pytest.approx(np.array([3, 4, 5, 6]) / 9)
    one = read_loads(written(tmp_path / "c.csv", ["1,30", "0,10", "2,20", "3,20"], "expert,load"), 2, 4, 2)
    assert one.chosen == pytest.approx(np.array([[0.25, 0.75, 0.5, 0.5]])) and "measured, c.csv" in one.source


EVEN = [f"0,{e},5" for e in range(4)]
WRONG = [
    (EVEN[:3], "layer,expert,load", "has 3 experts in layer 0"),
    ([*EVEN, "0,4,5"], "layer,expert,load", "column expert: is out of range"),
    ([*EVEN, "0,3,5"], "layer,expert,load", "stands twice"),
    (["0,0,-1", *EVEN[1:]], "layer,expert,load", "column load: is out of range"),
    (["0,0,nan", *EVEN[1:]], "layer,expert,load", "column load: is out of range"),
    (["0,0,", *EVEN[1:]], "layer,expert,load", "column load: is out of range"),
    (["0,0.5,1", *EVEN[1:]], "layer,expert,load", "column expert: is out of range"),
    (["-1,0,1", *EVEN[1:]], "layer,expert,load", "column layer: is out of range"),
    ([f"0,{e},0" for e in range(4)], "layer,expert,load", "has 0 experts with a load"),
    (["0,0,9", "0,1,0", "0,2,0", "0,3,0"], "layer,expert,load", "has 1 experts with a load"),
    (["0,0,9", "0,1,1", "0,2,1", "0,3,1"], "layer,expert,load", "gives expert 0 of layer 0 a share of 0.75"),
    ([*EVEN, *(f"1,{e},5" for e in range(4))], "layer,expert,load", "has loads of 2 layers"),
    (EVEN, "layer,expert,tokens", "has a column 'tokens'"),
    (["0,5"], "layer,expert", "has no column load"),
    ([], "", "has no column expert"),
]


@pytest.mark.parametrize(("rows", "head", "said"), WRONG, ids=[w[2] for w in WRONG])
def test_a_file_that_does_not_fit_is_refused(tmp_path, rows, head, said):
    with pytest.raises(SpecError, match=said) as caught:
        read_loads(written(tmp_path / "x.csv", rows, head), 1, 4, 2)
    assert caught.value.limit or "twice" in caught.value.problem


def test_dense_models_and_missing_files_are_refused(tmp_path):
    with pytest.raises(SpecError, match=r"workload\.expert_load: .*dense"):
        expert_load_of(Skew(zipf=0.5), model("llama-3.1-8b"), tmp_path)
    with pytest.raises(SpecError, match=r"absent\.csv"):
        expert_load_of("absent.csv", model("mixtral-8x7b"), tmp_path)


def test_layers_without_experts_have_no_load(tmp_path):
    deepseek = model("deepseek-v3")
    written(tmp_path / "l.csv", [f"{n},{e},1" for n in range(3, 61) for e in range(256)])
    assert expert_load_of("l.csv", deepseek, tmp_path).chosen.shape == (58, 256)  # 3 of 61 are dense
    assert expert_load_of(Skew(zipf=0.5), deepseek, tmp_path).chosen.shape == (16, 256)
