"""What a cascade is worth: closed forms against drawn queries."""

import numpy as np
import pytest
from scipy.special import ndtri

from fleetcast.cost.cascade import Binormal, Certain, Measured

QUALITY = (0.3, 0.55, 0.7)


def drawn(model: Binormal, n: int, seed: int = 1) -> Measured:
    """Queries drawn as the stated model says, one by one."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n)  # an exit is right on the queries below its quality: deeper ones on more of them
    right = hard[:, None] < np.array(model.quality)
    d = np.sqrt(2) * ndtri(model.auroc)
    score = rng.normal(size=right.shape) + d * right
    odds = d * score - d**2 / 2 + np.log(model.quality) - np.log1p(-np.array(model.quality))
    return Measured(1 / (1 + np.exp(-odds)), right)


@pytest.mark.parametrize("chain", [(0,), (0, 2), (1, 2), (0, 1, 2)])
def test_closed_form_is_what_drawn_queries_give(chain):
    model = Binormal(QUALITY, 0.8)
    thresholds = np.array([[0.3, 0.6], [0.7, 0.2], [0.5, 0.5]])[:, : len(chain) - 1]
    quality, reach = model.cascade(chain, thresholds)
    sampled, shares = drawn(model, 200_000).cascade(chain, thresholds)
    assert np.abs(quality - sampled).max() < 0.005
    assert np.abs(reach - shares).max() < 0.005
    assert (reach[:, 0] == 1).all() and (np.diff(reach, axis=1) <= 0).all()


def test_auroc_of_the_model_is_its_parameter_and_confidence_is_calibrated():
    model = Binormal(QUALITY, 0.8)
    found = drawn(model, 100_000)
    c, r = found.confidence[:, 1], found.right[:, 1]
    order = np.argsort(c)
    ranks = np.empty(len(c))
    ranks[order] = np.arange(len(c))
    pairs = r.sum() * (~r).sum()
    assert (ranks[r].sum() - r.sum() * (r.sum() - 1) / 2) / pairs == pytest.approx(0.8, abs=0.01)
    near = np.abs(c - 0.6) < 0.02
    assert r[near].mean() == pytest.approx(0.6, abs=0.02)


def test_a_threshold_of_nearly_zero_keeps_all_and_of_nearly_one_passes_all():
    quality, reach = Binormal(QUALITY, 0.75).cascade((0, 2), [[1e-12], [1 - 1e-12]])
    assert reach[:, 1] == pytest.approx([0, 1], abs=1e-6)
    assert quality == pytest.approx([0.3, 0.7], abs=1e-6)


def test_better_confidence_gives_more_quality_for_as_many_passed_on():
    def at_half(auroc):
        grid = np.linspace(0.01, 0.99, 400)[:, None]
        quality, reach = Binormal(QUALITY, auroc).cascade((0, 2), grid)
        return np.interp(0.5, reach[:, 1], quality)

    assert at_half(0.9) > at_half(0.7) > at_half(0.51) > 0.3


def test_measured_answers_are_counted():
    right = np.array([[True, True], [False, True], [True, False]])
    found = Measured(np.array([[0.9, 0.5], [0.2, 0.8], [0.4, 0.1]]), right)
    quality, reach = found.cascade((0, 1), [[0.5]])
    assert reach.tolist() == [[1.0, pytest.approx(2 / 3)]]
    assert quality[0] == pytest.approx(2 / 3)  # the first stays right, the second becomes right, the third wrong


def test_without_confidences_there_is_one_answer():
    quality, reach = Certain(QUALITY).cascade((1,), np.empty((1, 0)))
    assert quality.tolist() == [0.55] and reach.tolist() == [[1.0]]
    with pytest.raises(ValueError):
        Certain(QUALITY).cascade((0, 1), [[0.5]])
