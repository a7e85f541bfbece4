"""Tables of speeds: what was measured comes out as measured, and the formulas hold."""

import itertools
import json

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.jobs import Linear, Lying, Profiles, Throughputs, Virtual, closest, work
from fleetcast.cost.jobs.goodput import Step, fit, network, times, worth
from fleetcast.cost.jobs.virtual import assign, waste
from fleetcast.scenario.workload.jobs import of


def test_devices_lie_as_close_as_they_can():
    assert closest(0, 1, 4) == Lying(0, 1, 1)
    assert closest(0, 8, 4).nodes == 2
    assert closest(0, 9, 4).nodes == 3


def test_perfect_scaling():
    speeds = Linear(["a", "b"], [1.0, 0.5])
    assert speeds.rate(0, (Lying(0, 2), Lying(1, 4))) == 4.0


# Gavel's table


def test_throughputs_are_the_authors():
    speeds = Throughputs(["v100", "k80"], [4, 4])
    at = speeds.models.index("LM (batch size 10)")
    assert speeds.rate(at, (Lying(0, 1),)) == pytest.approx(81.6516)
    assert speeds.rate(at, (Lying(1, 2, 1),)) == pytest.approx(29.9849)
    assert speeds.rate(at, (Lying(1, 2, 2),)) == pytest.approx(21.1445)  # apart
    assert speeds.rate(at, (Lying(0, 1), Lying(1, 1))) == 0.0
    assert speeds.rate(at, (Lying(0, 3, 1),)) == pytest.approx(163.129 * 1.5)


def test_throughputs_of_a_file(tmp_path):
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"a100": {"('M', 1)": {"null": 2.5, "('M', 1)": [1.0, 1.0]}}}))
    speeds = Throughputs(["a100"], path=file)
    assert speeds.rate(0, (Lying(0, 1),)) == 2.5
    assert speeds.rate(0, (Lying(0, 4),)) == 10.0


@pytest.mark.parametrize(
    ("text", "words"),
    [("{}", "no speeds of this kind"), ("[", "not a table"), ('{"a": {"x": {"null": 1}}}', "not a table")],
)
def test_a_bad_file_of_throughputs(tmp_path, text, words):
    file = tmp_path / "t.json"
    file.write_text(text)
    with pytest.raises(SpecError, match=words):
        Throughputs(["a"], path=file)
    with pytest.raises(SpecError, match="no such file"):
        Throughputs(["a"], path=tmp_path / "none.json")


# Goodput


def test_no_overlap_adds_and_full_overlap_hides():
    apart, hidden = (Step(0.1, 0.01, 0.2, 0.01, 0.05, 0.0, overlap) for overlap in (1.0, 10.0))
    assert times(apart, 8, 2, 10)[1] == pytest.approx(0.2 + 0.2 + 0.06)
    assert times(hidden, 8, 2, 10)[1] == pytest.approx(0.26 * (1 + (0.2 / 0.26) ** 10) ** 0.1)
    assert network(apart, [1, 2, 2], [1, 1, 2]) == pytest.approx([0.0, 0.05, 0.2])
    assert times(hidden, 1, 1, 10)[1] == pytest.approx(0.2)


def test_worth_of_samples():
    assert worth(1.0, 5.0, 1.0) == pytest.approx(1.0)
    assert worth(0.0, 5.0, 64.0) == pytest.approx(1.0)  # all noise: every sample counts in full
    assert worth(1.0, 0.0, 64.0) == pytest.approx(1 / 64)  # no noise: a larger batch says nothing new


def test_fitting_finds_what_made_the_times():
    truth = Step(0.05, 0.004, 0.3, 0.01, 0.03, 0.005, 2.0)
    grid = [(n, k, b) for n, k in ((1, 1), (2, 1), (4, 1), (4, 2), (8, 2), (16, 4)) for b in (4, 8, 16, 32, 64)]
    n, k, b = (np.array(column) for column in zip(*grid, strict=True))
    accumulate, step = times(truth, n, k, b)
    found = fit(n, k, b.astype(float), accumulate, step)
    unseen = times(truth, 32, 8, 24)[1]
    assert times(found, n, k, b)[1] == pytest.approx(step, rel=0.02)
    assert times(found, 32, 8, 24)[1] == pytest.approx(unseen, rel=0.1)


def folder(root, step=lambda n, k, b: 0.05 + 0.01 * b + (0.02 * (n > 1))):
    """One made-up model on one kind: steps that exchange in 0.02 s, gradients of constant noise."""
    here = root / "model"
    here.mkdir()
    rows = ["placement,local_bsz,step_time,sync_time"]
    for placement, b in itertools.product(("1", "2", "4", "22"), (8, 16, 32)):
        n, k = sum(map(int, placement)), len(placement)
        rows.append(f"{placement},{b},{step(n, k, b)},{0.02 * (n > 1) + 1e-5}")
    (here / "placements-a.csv").write_text("\n".join(rows))
    for batch in (16, 32, 128):
        lines = [f"{100.0 * e},{e},0,1.0,15.0" for e in range(1, 5)]
        (here / f"validation-{batch}.csv").write_text(
            "\n".join(["progress,iteration,metric,grad_sqr,grad_var", *lines])
        )
    return root


def test_goodput_is_the_best_over_batches(tmp_path):
    speeds = Profiles(folder(tmp_path), ["a"], [4])
    assert speeds.models == ("model",)
    assert speeds.whole(0) == 400.0
    assert speeds.phases(0) == (0.0, 0.25, 0.5, 0.75)
    best = 0.0
    for total in range(16, 129):
        each = -(-total // 4)
        if 8 <= each <= 32:
            scale = each * 4 / 16
            best = max(best, scale * 16 / (15 + scale) / (0.07 + 0.01 * each))
    assert speeds.rate(0, (Lying(0, 4, 1),)) == pytest.approx(best, rel=0.02)
    assert speeds.batch(0, Lying(0, 4, 1)) > 16
    assert (
        speeds.rate(0, (Lying(0, 64, 16),)) == 0.0
    )  # 64 devices of at least 8 samples are more than the largest batch
    slower = Profiles(tmp_path, ["a"], [4], slower={"model": 2.0})
    assert slower.rate(0, (Lying(0, 4, 1),)) == pytest.approx(speeds.rate(0, (Lying(0, 4, 1),)) / 2)


def test_a_placement_that_was_not_measured_is_fitted(tmp_path):
    speeds = Profiles(folder(tmp_path), ["a"], [4])
    three, two, four = (speeds.rate(0, (Lying(0, n, 1),)) for n in (3, 2, 4))
    assert two < three < four * 1.05


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "placements-a.csv").write_text("placement,local_bsz,step_time,sync_time\n1,x,1,0\n"), "line 2"),
        (
            lambda f: (f / "placements-a.csv").write_text("placement,local_bsz,step_time,sync_time\n1,8,0,0\n"),
            "above 0",
        ),
        (lambda f: (f / "placements-a.csv").write_text("local_bsz,step_time,sync_time\n8,1,0\n"), "cannot be read"),
        (lambda f: [p.unlink() for p in f.glob("validation*")], "no validation"),
        (lambda f: (f / "validation-16.csv").write_text("progress\n1\n"), "cannot be read"),
    ],
)
def test_bad_profiles(tmp_path, spoil, words):
    folder(tmp_path)
    spoil(tmp_path / "model")
    with pytest.raises(SpecError, match=words):
        Profiles(tmp_path, ["a"], [4])


def test_profiles_of_what_was_not_measured(tmp_path):
    with pytest.raises(SpecError, match=r"no profiles of this kind.*got \"?'?b"):
        Profiles(folder(tmp_path), ["b"], [4])
    with pytest.raises(SpecError, match="no such folder"):
        Profiles(tmp_path / "none", ["a"], [4])


# Fixed workers


@pytest.mark.parametrize("seed", range(40))
def test_workers_are_dealt_out_as_well_as_can_be(seed):
    random = np.random.default_rng(seed)
    kinds = int(random.integers(1, 4))
    capability = random.choice([1.0, 1.5, 2.4, 3.1], kinds).tolist()
    devices = [int(n) for n in random.integers(0, 4, kinds)]
    workers = int(random.integers(1, 9))
    if not any(devices):
        with pytest.raises(ValueError, match="no devices"):
            assign(capability, devices, workers)
        return
    held, overload = assign(capability, devices, workers)
    options = itertools.product(*[range(workers + 1) if n else [0] for n in devices])
    enough = [a for a in options if sum(x * n for x, n in zip(a, devices, strict=True)) >= workers]
    best = min(max(x / c for x, c, n in zip(a, capability, devices, strict=True) if n) for a in enough)
    assert overload == pytest.approx(best)
    assert sum(a * n for a, n in zip(held, devices, strict=True)) >= workers
    whole = sum(c * n for c, n in zip(capability, devices, strict=True))
    assert (1 - waste(capability, devices, held, workers)) * whole == pytest.approx(workers / overload)


def test_workers_that_must_not_mix():
    table = {"m": {"samples": 64, "x": {"fixed": 0.0, "each": 0.1}, "y": {"fixed": 0.0, "each": 0.2}}}
    free, bound = (Virtual(["x", "y"], [f"m/1/4/{where}/2"], table) for where in ("any", "y"))
    assert free.whole(0) == 2 * 64 / 4
    assert bound.rate(0, (Lying(1, 4),)) == pytest.approx(1 / 0.2)
    assert bound.rate(0, (Lying(0, 4),)) == bound.rate(0, (Lying(0, 1), Lying(1, 1))) == 0.0
    assert free.rate(0, (Lying(0, 1), Lying(1, 1))) == pytest.approx(1 / 0.3)  # 3 workers and 1
    with pytest.raises(SpecError, match="not a model of fixed workers"):
        Virtual(["x"], ["m/1/4/any"], table)
    with pytest.raises(SpecError, match="no step times of this model"):
        Virtual(["x"], ["n/1/4/any/1"], table)
    with pytest.raises(SpecError, match="on this kind of device"):
        Virtual(["z"], ["m/1/4/any/1"], table)


def test_work_of_jobs():
    jobs = of([0.0, 0.0], 2, [5.0, 7.0], units=[0.0, 9.0])
    assert work(Linear(["a"], [3.0]), jobs, 0, 4).tolist() == [30.0, 9.0]


def test_devices_by_the_fleets_names(tmp_path):
    short, long = Throughputs(["v100"]), Throughputs(["v100-pcie-16g"])
    at = short.models.index("A3C")
    assert short.rate(at, (Lying(0, 1),)) == long.rate(at, (Lying(0, 1),)) > 0
    bound = Virtual(["v100-pcie-16g", "t4"], ["bert/8/4/v100/1"])
    assert bound.rate(0, (Lying(0, 2),)) > 0.0 == bound.rate(0, (Lying(1, 2),))
    with pytest.raises(SpecError, match="no speeds of this kind"):
        Throughputs(["h100-sxm"])
