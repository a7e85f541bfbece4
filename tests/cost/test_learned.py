"""Latency on a new device from a few probes: the maths against a slow oracle, what it must not depend on, nonsense."""

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from fleetcast.cost import learned

KINDS = ("conv", "pool")


def world(seed, devices=6, structures=80, noise=0.0):
    """Structures of (1, convs, pools) and devices whose seconds add up, with relative errors."""
    random = np.random.default_rng(seed)
    x = np.column_stack([np.ones(structures), random.integers(0, 7, (structures, 2))]).astype(float)
    costs = np.exp(random.normal([0.0, -1.0, -2.0], 0.5, (devices, 3))) * random.uniform(0.5, 2.0, (devices, 1))
    seconds = costs @ x.T * (1.0 + noise * random.standard_normal((devices, structures)))
    return x, costs, seconds


@pytest.mark.parametrize("seed", range(5))
def test_exact_times_give_back_the_device(seed):
    x, _, seconds = world(seed)
    known = learned.learn([x], seconds[:-1])
    found = known.adapt([x[:10]], seconds[-1, :10]).predict([x])
    assert np.abs(found.mean / seconds[-1] - 1).max() < 0.02
    assert np.all((found.low < found.mean) & (found.mean < found.high))


def oracle(view, x, y, asked):
    """The mean forecast, by scalar loops: costs' posterior in information form, speed by search, evidence by scipy."""
    n, total, mean = len(y), 0.0, np.zeros(len(asked))
    logs, means = [], []
    for tau in learned.TAUS:
        prior = view.covariance + np.diag((tau / view.size) ** 2)
        for noise in learned.NOISES:
            for who in [(), *combinations(range(n), 1), *combinations(range(n), 2)]:
                expected = x @ view.mean
                sigma = noise * np.maximum(expected, 0.2)
                sigma[list(who)] *= learned.WILD
                kernel = x @ prior @ x.T + np.diag(sigma**2)
                law = multivariate_normal(expected, kernel)
                best = minimize_scalar(
                    lambda t, law=law: -(law.logpdf(y * np.exp(t)) + n * t), bounds=(-8, 8), method="bounded",
                    options={"xatol": 1e-10},
                )  # fmt: skip
                inside = np.log(learned.DISTURBED) * len(who) + np.log(1 - learned.DISTURBED) * (n - len(who))
                logs.append(-best.fun + inside)
                scaled = y * np.exp(best.x)
                precision = np.linalg.inv(prior) + (x.T / sigma**2) @ x
                costs = np.linalg.solve(precision, np.linalg.solve(prior, view.mean) + x.T @ (scaled / sigma**2))
                means.append(asked @ costs / np.exp(best.x))
    weights = np.exp(np.array(logs) - max(logs))
    total = weights.sum()
    for w, m in zip(weights, means, strict=True):
        mean += w / total * m
    return mean


def test_forecast_equals_the_slow_oracle():
    x, _, seconds = world(3, noise=0.05)
    known = learned.learn([x], seconds[:-1])
    found = known.adapt([x[:4]], seconds[-1, :4]).predict([x[20:30]])
    assert found.mean == pytest.approx(oracle(known.views[0], x[:4], seconds[-1, :4], x[20:30]), rel=1e-4)


def test_units_of_time_and_order_of_probes_do_not_matter():
    x, _, seconds = world(1, noise=0.05)
    known = learned.learn([x], seconds[:-1])
    plain = known.adapt([x[:10]], seconds[-1, :10]).predict([x])
    slower = known.adapt([x[:10]], 1e3 * seconds[-1, :10]).predict([x])
    turned = known.adapt([x[9::-1]], seconds[-1, 9::-1]).predict([x])
    for name in ("mean", "low", "high"):
        assert getattr(slower, name) == pytest.approx(1e3 * getattr(plain, name), rel=1e-9)
        assert getattr(turned, name) == pytest.approx(getattr(plain, name), rel=1e-9)


@pytest.mark.parametrize("probe", [0, 4, 9])
def test_a_disturbed_probe_is_found_and_does_no_harm(probe):
    x, _, seconds = world(2, noise=0.01)
    known = learned.learn([x], seconds[:-1])
    times = seconds[-1, :10].copy()
    times[probe] *= 1.6
    device = known.adapt([x[:10]], times)
    assert device.doubt.argmax() == probe and device.doubt[probe] > 0.9
    assert np.median(np.abs(device.predict([x]).mean / seconds[-1] - 1)) < 0.03


def test_evidence_finds_the_view_that_a_device_follows():
    random = np.random.default_rng(0)
    plain, live = random.integers(0, 7, (60, 1)), random.integers(0, 7, (60, 1))
    views = [np.hstack([np.ones((60, 1)), plain]), np.hstack([np.ones((60, 1)), live])]
    known = learned.learn(views, [(1 + k * (plain + live) / 2).ravel() for k in (0.5, 1.0, 2.0)])
    truth = (1 + 0.8 * live).ravel()
    device = known.adapt([v[:12] for v in views], truth[:12])
    assert np.abs(device.costs[1]).sum() > 20 * np.abs(device.costs[0]).sum()
    assert np.median(np.abs(device.predict(views).mean / truth - 1)) < 0.02


def test_intervals_hold_what_they_promise():
    inside = []
    for seed in range(20):
        x, _, seconds = world(seed, noise=0.08)
        found = learned.learn([x], seconds[:-1]).adapt([x[:10]], seconds[-1, :10]).predict([x[10:]])
        inside.append(np.mean((seconds[-1, 10:] >= found.low) & (seconds[-1, 10:] <= found.high)))
    assert 0.72 < np.mean(inside) < 0.92


def test_the_first_chosen_probe_leaves_the_least_variance():
    x, _, seconds = world(4)
    known = learned.learn([x], seconds)
    view, noise = known.views[0], 0.1
    rows = x / np.maximum(x @ view.mean, 0.2)[:, None]
    left = []
    for row in rows:
        after = np.linalg.inv(np.linalg.inv(view.prior(0.1)) + np.outer(row, row) / noise**2)
        left.append(np.einsum("ij,jk,ik->i", rows, after, rows).mean())
    assert known.choose([x], 1, noise=noise) == [int(np.argmin(left))]


def test_chosen_probes_differ_and_tell_more_than_the_first_ones():
    x, _, seconds = world(5, noise=0.05)
    known = learned.learn([x], seconds[:-1])
    chosen = known.choose([x], 10)
    assert len(set(chosen)) == 10
    errors = []
    for probes in (chosen, list(range(10))):
        random = np.random.default_rng(0)
        off = []
        for _ in range(20):
            truth = x @ np.exp(random.normal([0.0, -1.0, -2.0], 0.5))
            times = truth[probes] * (1 + 0.05 * random.standard_normal(10))
            off.append(np.median(np.abs(known.adapt([x[probes]], times).predict([x]).mean / truth - 1)))
        errors.append(np.mean(off))
    assert errors[0] < errors[1]


def test_what_was_not_measured_on_a_known_device_is_not_used():
    x, _, seconds = world(6)
    holes = seconds[:-1].copy()
    holes[0, ::2] = np.nan
    found = learned.learn([x], holes).adapt([x[:10]], seconds[-1, :10]).predict([x])
    assert np.abs(found.mean / seconds[-1] - 1).max() < 0.02


def test_op_counts_tell_dead_operators():
    edges = [(0, 1, "conv"), (1, 3, "pool"), (0, 2, "conv"), (2, 3, "none"), (4, 3, "pool")]
    assert learned.op_counts(edges, KINDS, 0, 3) == ([2, 2], [1, 1])
    assert learned.op_counts([(0, 1, "none")], KINDS, 0, 1) == ([0, 0], [0, 0])


def test_a_family_of_known_costs():
    known = learned.from_costs([[1.0, 2.0], [2.0, 3.0], [1.0, 4.0]], [1.0, 0.5])
    x = np.array([[1.0, 0.0], [1.0, 1.0], [2.0, 1.0], [1.0, 3.0]])
    found = known.adapt([x], x @ [0.01, 0.03]).predict([[[0.0, 1.0]]])
    assert found.mean[0] == pytest.approx(0.03, rel=0.02)


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ([1.0, -1.0, 1.0], "positive"),
        ([1.0, float("nan"), 1.0], "positive"),
        ([1.0], "3 probes"),
        ([], "3 probes"),
    ],
)
def test_nonsense_times_are_refused(times, says):
    x, _, seconds = world(0)
    with pytest.raises(ValueError, match=says):
        learned.learn([x], seconds).adapt([x[:3]], times)


def test_other_nonsense_is_refused():
    x, _, seconds = world(0)
    known = learned.learn([x], seconds)
    with pytest.raises(ValueError, match="wide"):
        known.adapt([x[:3, :2]], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="at least two"):
        learned.learn([x], seconds[:1])
    with pytest.raises(ValueError, match="cannot give 3 costs"):
        learned.learn([x], np.where(np.arange(80) < 2, seconds, np.nan))
    with pytest.raises(ValueError, match="devices, 80"):
        learned.learn([x], seconds[:, :10])
    with pytest.raises(ValueError, match="pool of 80"):
        known.choose([x], 81)
    many = np.repeat(x[:1], 65, axis=0)
    with pytest.raises(ValueError, match="1 to 64"):
        known.adapt([many], np.ones(65))
