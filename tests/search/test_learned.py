"""The learned search against closed forms, finite differences and exhaustive search of small boxes."""

import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.optimize import approx_fprime

import fleetcast
from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.base.files import append_line, whole_lines
from fleetcast.cost.training import network as networks
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.scenario.workload.training import Shape
from fleetcast.search.learned import Knob, Knobs, minimise
from fleetcast.search.learned import predictor as predictors
from fleetcast.search.learned.minimise import propose
from fleetcast.search.training.learned import knobs_of, plans_of
from fleetcast.search.training.space import CHOICE, LAYOUT, Question, space
from fleetcast.view import verbs

BOWL = Knobs(
    (Knob("x", (1, 2, 4, 8, 16, 32, 64)), Knob("y", (1, 2, 3, 4, 6, 8, 12)), Knob("word", ("a", "b", "c")),
     Knob("flag", (False, True))),
    allowed=lambda c: c["x"] * c["y"] <= 128,
)  # fmt: skip


def bowl(setting):
    """Least at x = 8, y = 4, word b, flag set: 1; large products fail."""
    if setting["x"] * setting["y"] > 96:
        return None
    far = (math.log2(setting["x"]) - 3) ** 2 + (math.log2(setting["y"]) - 2) ** 2
    return 1.0 + 0.2 * far + {"a": 0.3, "b": 0.0, "c": 0.5}[setting["word"]] + (0.0 if setting["flag"] else 0.2)


@pytest.mark.parametrize("seed", range(5))
def test_a_bowl_is_found_in_a_tenth_of_its_settings(seed):
    found = minimise(BOWL, bowl, budget=40, seed=seed)
    assert found.cost == pytest.approx(1.0)
    assert found.setting == {"x": 8, "y": 4, "word": "b", "flag": True}
    assert len(found.history) == 40
    assert len({json.dumps(setting) for setting, _ in found.history}) == 40  # nothing is launched twice
    assert all(setting["x"] * setting["y"] <= 128 for setting, _ in found.history)
    assert sum(r.launched for r in found.rounds) == 40
    assert sum(r.failed for r in found.rounds) == sum(math.isinf(cost) for _, cost in found.history)


def test_all_settings_are_tried_where_there_are_few():
    small = Knobs((Knob("x", (1, 2, 4)), Knob("y", ("a", "b"))))
    found = minimise(small, lambda s: s["x"] + (s["y"] == "a"), budget=50)
    assert len(found.history) == 6
    assert found.cost == 1


def test_where_all_fails_nothing_is_found():
    found = minimise(BOWL, lambda _: None, budget=12)
    assert (found.setting, found.cost, len(found.history)) == (None, math.inf, 12)


def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path):
    whole = minimise(BOWL, bowl, budget=30, seed=4)
    for stop in (3, 6, 17, 29):
        file = tmp_path / f"{stop}.jsonl"
        left = stop

        def cut(setting):
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            return bowl(setting)

        with pytest.raises(KeyboardInterrupt):
            minimise(BOWL, cut, budget=30, seed=4, history=file)
        with file.open("a") as torn:
            torn.write('{"setting": {"x"')  # the machine went down in the middle of a line
        again = minimise(BOWL, bowl, budget=30, seed=4, history=file)
        assert again.history == whole.history
        assert len(file.read_text().splitlines()) == 30
    assert minimise(BOWL, lambda _: 1 / 0, budget=30, seed=4, history=file).history == whole.history


LAUNCHER = """
import sys, time
from pathlib import Path
from tests.search.test_learned import BOWL, bowl
from fleetcast.search.learned import minimise
def slow(setting):
    time.sleep(0.002)
    return bowl(setting)
print("begun", flush=True)
minimise(BOWL, slow, budget=30, seed=4, history=Path(sys.argv[1]))
"""


def test_a_search_that_is_killed_leaves_whole_lines_and_goes_on(tmp_path, root):
    """SIGKILL at ever later instants: what is there is a beginning of the whole history, and the end is the same."""
    whole, file, seen = minimise(BOWL, bowl, budget=30, seed=4), tmp_path / "h.jsonl", set()
    for wait in (0.005, 0.03, 0.06, 0.12):
        child = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(file)], cwd=root, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        child.stdout.readline()
        time.sleep(wait)
        child.kill()
        child.wait()
        child.stdout.close()
        if file.exists():
            lines = [json.loads(line) for line in whole_lines(file)]
            told = [(line["setting"], math.inf if line["cost"] is None else line["cost"]) for line in lines]
            assert told == list(whole.history[: len(told)])
            seen.add(len(told))
    assert max(seen, default=0) > 0
    assert minimise(BOWL, bowl, budget=30, seed=4, history=file).history == whole.history
    assert len(whole_lines(file)) == 30


def test_a_cut_within_a_character_is_a_cut(tmp_path):
    file = tmp_path / "h.jsonl"
    append_line(file, '{"word": "ä"}')
    append_line(file, '{"word": "ö"}')
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        lines = whole_lines(file)
        assert lines == ['{"word": "ä"}'][: data[:length].count(b"\n")]
        assert file.read_bytes() == data[: data[:length].rfind(b"\n") + 1]
    with pytest.raises(SpecError, match="cannot be written"):
        append_line(tmp_path, "a folder")


def test_a_history_of_other_knobs_is_refused(tmp_path):
    file = tmp_path / "h.jsonl"
    file.write_text('{"setting": {"x": 5}, "cost": 1.0}\n')
    with pytest.raises(SpecError, match="line 1"):
        minimise(BOWL, bowl, history=file)


@pytest.mark.parametrize(
    ("values", "said"), [((), "no value"), ((1, 1), "twice"), ((2, 1), "grow"), ((1, "a"), "mixes")]
)  # fmt: skip
def test_knobs_that_say_nothing_are_refused(values, said):
    with pytest.raises(SpecError, match=said):
        Knob("x", values)


def test_nonsense_is_refused():
    with pytest.raises(SpecError, match="evaluations"):
        minimise(BOWL, bowl, budget=0)
    with pytest.raises(SpecError, match="above 0"):
        minimise(BOWL, lambda _: -1.0, budget=2)
    with pytest.raises(SpecError, match="allow no setting"):
        Knobs((Knob("x", (1, 2)),), allowed=lambda c: c["x"] > 5).draw(np.random.default_rng(0), 10)
    with pytest.raises(SpecError, match=r"knobs\.x"):
        BOWL.row({"x": 3, "y": 1, "word": "a", "flag": True})


def test_what_the_predictor_sees():
    knobs = Knobs((Knob("n", (1, 4, 16)), Knob("word", ("a", "b"))), derived=lambda c: [c["n"] * 2])
    seen = knobs.seen(np.array([[0, 0], [1, 1], [2, 1]]))
    half = 1 / math.sqrt(2)
    assert seen == pytest.approx(np.array([[0, half, 0, 0.1], [0.5, 0, half, 0.3], [1, 0, half, 0.5]]))
    assert knobs.groups.tolist() == [0, 1, 1, 2]


def test_the_likelihoods_gradient_is_that_of_differences():
    rng = np.random.default_rng(0)
    x, groups, y = rng.random((12, 4)), np.array([0, 1, 2, 2]), rng.normal(size=12)
    squares = np.zeros((3, 12, 12))
    for column, knob in enumerate(groups):
        squares[knob] += (x[:, None, column] - x[None, :, column]) ** 2
    theta = rng.normal(0.0, 0.3, 5)
    told = predictors._loss(theta, x, y, groups, squares)[1]
    apart = approx_fprime(theta, lambda t: predictors._loss(t, x, y, groups, squares)[0], 1e-6)
    assert told == pytest.approx(apart, rel=1e-3, abs=1e-3)


def test_a_member_knows_its_points_and_doubts_far_from_them():
    rng = np.random.default_rng(1)
    x = rng.random((40, 2))
    y = np.sin(3 * x[:, 0]) + 0.3 * x[:, 1]
    member = predictors.fit(x, y, np.array([0, 1]), None)
    mean, doubt = member.predict(x)
    assert np.abs(mean - y).max() < 0.05
    assert member.predict(np.array([[5.0, 5.0]]))[1][0] > 5 * doubt.max()
    between = rng.random((50, 2))
    assert np.corrcoef(member.predict(between)[0], np.sin(3 * between[:, 0]) + 0.3 * between[:, 1])[0, 1] > 0.99


def test_the_searcher_promises_more_than_chance():
    rng = np.random.default_rng(2)
    rows = BOWL.draw(rng, 60)
    costs = np.array([bowl(BOWL.setting(r)) or np.inf for r in rows])
    picked, expected = propose(BOWL, list(rows), costs, 10, rng)
    found = np.array([bowl(BOWL.setting(r)) or np.inf for r in picked])
    fresh = np.array([bowl(BOWL.setting(r)) or np.inf for r in BOWL.draw(rng, 200)])
    assert np.median(found) < np.quantile(fresh, 0.2)
    assert expected is not None and len(expected) == len(picked)


def question():
    net = networks.of(Shape(layers=8, hidden=1024, heads=16).model(512))
    return Question(net, 512, 32, 16, TrainingPlan(overlap=((), ("data",), ("data", "tensor"))))


def test_settings_of_training_plans_are_the_space_and_nothing_else():
    every = space(question())
    knobs = knobs_of(every, 32, 8)
    grid = np.indices([len(k.values) for k in knobs.knobs]).reshape(len(knobs.knobs), -1).T
    possible = grid[knobs.possible(grid)]
    assert len(possible) == len(every)
    wanted = every.plans(np.arange(len(every)))
    rows = {tuple(int(getattr(wanted, n)[i]) for n in (*LAYOUT, *CHOICE)) for i in range(len(every))}
    rng = np.random.default_rng(0)
    for row in possible[rng.permutation(len(possible))[:200]]:
        plan = plans_of(every, knobs.setting(row))
        assert tuple(int(getattr(plan, n)[0]) for n in (*LAYOUT, *CHOICE)) in rows
        assert int(plan.devices[0]) == 16


SCENARIO = {
    "fleet": {"devices": "16x a100-80g-sxm"},
    "workload": {"kind": "training", "model": {"layers": 24, "hidden": 4096, "heads": 32}, "batch": 64},
}  # fmt: skip


def test_a_learned_plan_is_near_the_exhaustive_one(tmp_path):
    every = fleetcast.plan(SCENARIO)
    file = tmp_path / "launches.jsonl"
    few = verbs.plan_learned(SCENARIO, evaluations=120, history=file)  # 60 miss by 14 % under three seeds of six
    assert few.best.metrics["iteration_time"] <= 1.05 * every.best.metrics["iteration_time"]
    assert few.best.metrics["iteration_time"] >= every.best.metrics["iteration_time"] * (1 - 1e-9)
    assert few.counts["enumerated"] == 120 < every.counts["enumerated"]
    assert len(file.read_text().splitlines()) == 120
    assert verbs.plan_learned(SCENARIO, evaluations=120, history=file).best.plan == few.best.plan


def test_requests_are_not_searched_so():
    with pytest.raises(Unsupported, match="learned"):
        verbs.plan_learned("quickstart")
