"""Thresholds and distributions of scores: against Monte Carlo, brute force and what must hold of any of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.cost.streams.scores import Gaussian, Random, curve, scores, spread, steps
from fleetcast.scenario.workload.scores import Classifier, Firing, TurnOn

SHARES = st.floats(0.01, 0.9999)
SKILLS = st.floats(-2.0, 8.0)


@given(share=SHARES, skill=SKILLS, deviation=st.floats(0.2, 4.0), interesting=st.floats(1e-6, 1.0))
def test_the_threshold_rejects_just_the_share_asked_for(
    share: float, skill: float, deviation: float, interesting: float
) -> None:
    tn, fn = Gaussian(skill, deviation).rejected(share, 1.0 - interesting, interesting)
    assert (1.0 - interesting) * tn + interesting * fn == pytest.approx(share, rel=1e-9, abs=1e-12)
    assert 0.0 <= tn <= 1.0
    assert 0.0 <= fn <= 1.0


@given(share=SHARES, skill=SKILLS, more=st.floats(0.0, 3.0), interesting=st.floats(1e-4, 0.9))
def test_more_skill_never_loses_interesting_samples(
    share: float, skill: float, more: float, interesting: float
) -> None:
    dull = 1.0 - interesting
    before = Gaussian(skill, 1.0).rejected(share, dull, interesting)[1]
    after = Gaussian(skill + more, 1.0).rejected(share, dull, interesting)[1]
    assert after <= before + 1e-9


def test_gaussian_scores_are_those_of_a_sample() -> None:
    draw = np.random.default_rng(1)
    n, p = 2_000_000, 40_000
    null, pos = draw.standard_normal(n), 3.0 + 1.5 * draw.standard_normal(p)
    t = np.quantile(np.concatenate((null, pos)), 0.98)
    tn, fn = Gaussian(3.0, 1.5).rejected(0.98, n, p)
    assert tn == pytest.approx((null <= t).mean(), abs=4e-4)
    assert fn == pytest.approx((pos <= t).mean(), abs=1e-2)


@given(
    dull=st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    interesting=st.lists(st.integers(-3, 3), min_size=1, max_size=12), share=st.floats(0.0, 1.0),
)  # fmt: skip
def test_steps_are_the_best_rule_for_what_was_seen(dull: list[int], interesting: list[int], share: float) -> None:
    found = steps(np.asarray(dull, float), np.asarray(interesting, float))
    n, p = len(dull), len(interesting)
    tn, fn = found.rejected(share, n, p)
    assert (n * tn + p * fn) / (n + p) == pytest.approx(share, abs=1e-12)
    # brute force: samples in order of score, those of equal score in proportion
    left = share * (n + p)
    rejected = [0.0, 0.0]
    for value in sorted(set(dull) | set(interesting)):
        here = (dull.count(value), interesting.count(value))
        part = min(1.0, left / sum(here)) if left > 0 else 0.0
        rejected = [r + part * h for r, h in zip(rejected, here, strict=True)]
        left -= part * sum(here)
    assert tn == pytest.approx(rejected[0] / n, abs=1e-9)
    assert fn == pytest.approx(rejected[1] / p, abs=1e-9)


def test_nothing_to_choose_by_draws() -> None:
    assert Random().rejected(0.75, 1.0, 3.0) == (0.75, 0.75)
    # all scores equal: the same
    assert steps(np.ones(5), np.ones(9)).rejected(0.75, 1.0, 3.0) == pytest.approx((0.75, 0.75))


def write(folder: Path, name: str, rows: list[tuple[float, float]]) -> None:
    text = "energy,efficiency\n" + "".join(f"{a},{b}\n" for a, b in rows)
    (folder / name).write_text(text)


CURVES = {"a": [(1, 0.0), (10, 0.1), (20, 0.9), (40, 1.0)], "b": [(5, 0.0), (30, 0.6), (60, 0.95)]}


def turn_on(folder: Path, **more: object) -> Classifier:
    for name, rows in CURVES.items():
        write(folder, f"{name}.csv", rows)
    paths = (TurnOn(name="a", file="a.csv", mean=12.0, weight=2.0), TurnOn(name="b", file="b.csv", mean=25.0))
    return Classifier(kind="turn-on", paths=paths, **more)


def energies(draw: np.random.Generator, mean: float, low: float, high: float, n: int) -> np.ndarray:
    return -mean * np.log1p(-draw.uniform(low, high, n))


@pytest.mark.parametrize("tail", ["threshold", "mirror"])
def test_a_trigger_with_one_object_is_what_drawing_gives(tmp_path: Path, tail: str) -> None:
    said = turn_on(tmp_path, tail=tail)
    draw = np.random.default_rng(2)
    null, pos = [], []
    for path, share in zip(said.paths, (2 / 3, 1 / 3), strict=True):
        found = curve(path, tmp_path, "p")
        n = int(300_000 * share)
        e, y = np.asarray(CURVES[path.name]).T
        low = np.interp(energies(draw, found.mean, 0.0, found.below, n), e, y, left=0.0, right=1.0)
        start = found.below if tail == "threshold" else 1.0 - found.below
        high = np.interp(energies(draw, found.mean, start, 1.0, n), e, y, left=0.0, right=1.0)
        null.append(low)
        pos.append(high)
    drawn = steps(np.concatenate(null), np.concatenate(pos))
    for share in (0.5, 0.9, 0.98):
        ours = scores(said, tmp_path).rejected(share, 9.0, 1.0)
        assert ours == pytest.approx(drawn.rejected(share, 9.0, 1.0), abs=6e-3)


def test_a_trigger_that_sums_is_what_drawing_gives(tmp_path: Path) -> None:
    together = (Firing(share=0.3, paths=("a",)), Firing(share=0.5, paths=("b",)), Firing(share=0.2, paths=("a", "b")))
    said = turn_on(tmp_path, together=together)
    draw = np.random.default_rng(3)
    n = 200_000
    found = {p.name: curve(p, tmp_path, "p") for p in said.paths}

    def object_of(name: str, above: np.ndarray) -> np.ndarray:
        c, (e, y) = found[name], np.asarray(CURVES[name]).T
        part = np.where(above, draw.uniform(c.below, 1.0, len(above)), draw.uniform(0.0, c.below, len(above)))
        return np.interp(-c.mean * np.log1p(-part), e, y, left=0.0, right=1.0)

    which = draw.choice(3, n, p=[0.3, 0.5, 0.2])
    null = object_of("a", np.zeros(n, bool)) + object_of("b", np.zeros(n, bool))
    pos = object_of("a", np.isin(which, (0, 2))) + object_of("b", np.isin(which, (1, 2)))
    drawn = steps(null, pos)
    for share in (0.5, 0.9, 0.99):
        ours = scores(said, tmp_path).rejected(share, 99.0, 1.0)
        assert ours == pytest.approx(drawn.rejected(share, 99.0, 1.0), abs=6e-3)


def test_the_spread_of_energies_finds_the_share_that_fires() -> None:
    from scipy.integrate import quad

    e, y = np.asarray(CURVES["a"], float).T
    mean = spread(e, y, 0.3, "fires")
    fires = quad(lambda x: np.exp(-x / mean) / mean * np.interp(x, e, y, left=0.0, right=1.0), 0, 60 * mean, limit=500)
    assert fires[0] == pytest.approx(0.3, abs=1e-6)


def test_measured_scores_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("score,label\n0.1,0\n0.5,0\n0.4,1\n0.9,1\n")
    found = scores(Classifier(kind="scores", file="s.csv"), tmp_path)
    assert found.rejected(0.75, 2.0, 2.0) == pytest.approx((1.0, 0.5))
    # what a better classifier would give
    better = scores(Classifier(kind="scores", file="s.csv", boost=1.0), tmp_path)
    assert better.rejected(0.5, 2.0, 2.0) == pytest.approx((1.0, 0.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("score,label\n", "has no rows"), ("score,label\n1,0\n", "one kind of sample"),
        ("score,label\nx,1\n", "line 2"), ("score,label\n1,2\n", "unknown label"),
        ("score,label\n1\n", "pair of numbers"), ("s,l\nnan,1\n", "pair of numbers"),
    ],
)  # fmt: skip
def test_a_file_of_scores_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(SpecError, match=said):
        scores(Classifier(kind="scores", file="s.csv"), tmp_path)


def test_a_curve_that_gives_no_spread_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "low.csv", [(1, 0.0), (10, 0.4)])
    with pytest.raises(SpecError, match="does not pass one half"):
        curve(TurnOn(name="a", file="low.csv", mean=3.0), tmp_path, "p")
    write(tmp_path, "one.csv", [(1, 0.0)])
    with pytest.raises(SpecError, match="is not a curve"):
        curve(TurnOn(name="a", file="one.csv", mean=3.0, threshold=2.0), tmp_path, "p")
    with pytest.raises(SpecError, match="no spread of energies gives"):
        spread(np.asarray([1.0, 2.0]), np.asarray([0.0, 0.5]), 0.99999999999, "p")
