"""DL2's training: what a teacher shows, that learning helps, and that training which was killed goes on."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from fleetcast.base.errors import SpecError
from fleetcast.learning.rl.dl2 import TRAINING, Learner, Settings, train
from fleetcast.learning.rl.imitation import demonstrations, shuffled, sought_after
from fleetcast.policy.share import Drf
from fleetcast.policy.share.dl2 import scores
from fleetcast.scenario.workload.server_jobs import synthetic
from fleetcast.sim.cluster.slot_board import deal
from fleetcast.sim.cluster.slots import begin, completion, nodes_of, play, play_scored

SMALL = Settings(
    window=8, width=24, shown=2, warm=120, warm_batch=128, rounds=30, runs=8, steps=64, batch=128, memory=256, again=128
)


def lists(number):
    return synthetic(number, jobs=10)


def learner(settings=SMALL, teacher="drf", seed=0):
    return Learner(lists, nodes_of(12), teacher, settings, seed)


def judged(weights, count=4):
    many = [lists(n) for n in range(count)]
    runs = [begin(jobs, nodes_of(12), window=8) for jobs in many]
    play_scored(runs, lambda state, mask: scores(weights, state, mask), limit=200_000)
    return float(np.mean([completion(run, jobs).mean() for run, jobs in zip(runs, many, strict=True)]))


def ruled(rule, count=4):
    found = []
    for n in range(count):
        jobs = lists(n)
        run = begin(jobs, nodes_of(12))
        play(run, rule)
        found.append(completion(run, jobs).mean())
    return float(np.mean(found))


def test_what_a_teacher_shows_leads_a_network_to_the_same_slot():
    jobs = lists(3)

    def once(window):
        return begin(jobs, nodes_of(12), window=window)

    state, mask, action = demonstrations(once(20), once(20), lambda run: run.deal(2))
    assert state.shape == (len(action), 120) and mask.shape == (len(action), 61)
    assert mask[np.arange(len(action)), action].all(), "every decision shown is legal"
    # DRF's bundles and nothing else, ended only where all jobs have all they can use
    assert set(action[action < 60] % 3) == {2}


def test_any_share_policy_can_be_the_teacher():
    jobs = lists(3)
    state, _, action = demonstrations(
        begin(jobs, nodes_of(12)), begin(jobs, nodes_of(12)), lambda run: deal(run, jobs, nodes_of(12), Drf())
    )
    assert len(action) == len(state) > 0


def test_shuffling_seats_moves_the_decision_with_its_job():
    draw = np.random.default_rng(0)
    state = np.zeros((50, 4 * 6), np.float32)
    state.reshape(50, 4, 6)[:, :, 0] = np.arange(1, 5)
    mask, action = np.ones((50, 13), np.uint8), draw.integers(0, 13, 50)
    moved, _, to = shuffled(state, mask, action, draw)
    for i in range(50):
        if action[i] == 12:
            assert to[i] == 12
        else:
            assert moved.reshape(50, 4, 6)[i, to[i] // 3, 0] == action[i] // 3 + 1
            assert to[i] % 3 == action[i] % 3


def test_exploring_seeks_the_starved_and_the_lopsided():
    state = np.zeros((3, 2, 6), np.float32)
    state[:, :, 0] = 1
    state[0, :, 4:] = [[8, 8], [1, 1]]
    state[1, :, 4:] = [[4, 1], [2, 2]]
    state[2, :, 4:] = [[1, 2], [1, 2]]
    got = sought_after(state.reshape(3, 12), np.ones((3, 7), np.uint8))
    assert got.tolist() == [5, 1, -1]


def test_learning_beats_its_warm_up_on_lists_held_out():
    made = train(learner())
    before, after = judged(made.warm), judged(made.weights)
    assert before == pytest.approx(ruled("drf"), rel=0.1), "the warm-up deals as its teacher"
    assert after < 0.9 * before


def test_equal_seeds_learn_equal_weights():
    short = Settings(**{**SMALL.__dict__, "rounds": 3, "warm": 20})
    one, two, other = (train(learner(short, seed=seed)).weights for seed in (0, 0, 1))
    assert all((one[name] == two[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)


def test_training_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    short = Settings(**{**SMALL.__dict__, "rounds": 9, "warm": 20})
    whole = train(learner(short), checkpoint=tmp_path / "a.npz", every=4)
    half = learner(short)
    half.warm_up()
    half.begin()
    for _ in range(5):
        half.play_and_learn()
    half.save(tmp_path / "b.npz")
    rest = train(learner(short), checkpoint=tmp_path / "b.npz")
    assert all((whole.weights[name] == rest.weights[name]).all() for name in whole.weights)
    assert np.array_equal(whole.curve, rest.curve, equal_nan=True)
    with pytest.raises(SpecError, match="other seed"):
        learner(short, seed=1).load(tmp_path / "b.npz")
    with pytest.raises(SpecError, match="other settings"):
        learner().load(tmp_path / "b.npz")
    (tmp_path / "b.npz").write_bytes(b"half a file")
    with pytest.raises(SpecError, match="gone on from"):
        learner(short).load(tmp_path / "b.npz")


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_learn_goes_on_after_kill_9(tmp_path):
    (tmp_path / "s.toml").write_text(
        '[workload]\nkind = "jobs"\nservers = { jobs = 6 }\nnodes = 8\n[plan]\nshare = { kind = "dl2" }\n'
    )

    def command(name, checkpoint):
        return [
            sys.executable, "-m", "fleetcast", "learn", str(tmp_path / "s.toml"), "--rounds", "3", "--warm", "5",
            "--checkpoint", str(tmp_path / checkpoint), "--out", str(tmp_path / name), "--json",
        ]  # fmt: skip

    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    cut = subprocess.Popen(command("a.npz", "a.ck"), env=env, stdout=subprocess.DEVNULL)
    since = time.monotonic()
    while not (tmp_path / "a.ck").exists() and time.monotonic() - since < 120:
        time.sleep(0.05)
    cut.send_signal(signal.SIGKILL)
    cut.wait()
    assert (tmp_path / "a.ck").exists() and not (tmp_path / "a.npz").exists()
    for name, checkpoint in (("a.npz", "a.ck"), ("b.npz", "b.ck")):
        subprocess.run(command(name, checkpoint), env=env, check=True, stdout=subprocess.DEVNULL, timeout=300)
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert all((a[name] == b[name]).all() for name in a.files)


def test_lists_that_are_trained_on_are_not_those_held_out():
    made = learner()
    assert made.next >= TRAINING
