"""Jobs with parameter servers in slots: the authors' figures, conservation, and every policy through the board."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fleetcast.base.errors import Infeasible, PolicyError, SpecError
from fleetcast.kernels import slots as kernel
from fleetcast.policy.share import Dl2, Drf, Fifo, Srtf
from fleetcast.policy.share.dl2 import FEATURES, NAMES, scores
from fleetcast.scenario.load import load
from fleetcast.scenario.workload.server_jobs import Kinds, ServerJobs, dl2, synthetic
from fleetcast.sim.cluster.slot_board import SlotBoard, deal
from fleetcast.sim.cluster.slots import Errors, begin, completion, nodes_of, play, play_scored
from fleetcast.sim.cluster.slots_outcome import setting, simulate

DATA = Path(os.environ.get("FLEETCAST_DATA", "/nowhere")) / "scheduling" / "reference" / "dl2"


def random_network(seed=0, window=20, width=16):
    draw = np.random.default_rng(seed)
    shapes = {"in": (FEATURES * window, width), "hidden": (width, width), "out": (width, 3 * window + 1)}
    made = {name: draw.normal(0, 0.5, shapes[name]).astype(np.float32) for name in shapes}
    made |= {f"{name}_bias": np.zeros(shape[1], np.float32) for name, shape in shapes.items()}
    made |= {f"scale{i}": np.ones(width, np.float32) for i in (1, 2)}
    made |= {f"shift{i}": np.zeros(width, np.float32) for i in (1, 2)}
    assert set(made) == set(NAMES)
    return made


@pytest.mark.skipif(not DATA.is_dir(), reason="DL2's speeds are not here; set FLEETCAST_DATA")
@pytest.mark.parametrize(("name", "rule", "mean"), [("DRF", "drf", 38.37), ("Optimus", "optimus", 27.33),
                                                    ("SRTF", "srtf", 71.32), ("FIFO", "fifo", 74.14)])  # fmt: skip
def test_the_authors_jobs_end_when_they_end_there(name, rule, mean):
    from benchmarks.learned_world import lists

    known = {}
    with (DATA / "job_jcts.csv").open() as file:
        for row in csv.DictReader(file):
            if row["policy"] == name:
                known[int(row["trace"]), int(row["job_id"])] = float(row["jct_slots"])
    found = []
    for trace, jobs in enumerate(lists()):
        run = begin(jobs, nodes_of())
        play(run, rule)
        jct = completion(run, jobs)
        np.testing.assert_allclose(jct, [known[trace, i + 1] for i in range(len(jobs))], rtol=0, atol=1e-9)
        found.append(jct.mean())
    assert np.mean(found) == pytest.approx(mean, abs=0.005)


@pytest.mark.skipif(not DATA.is_dir(), reason="DL2's speeds are not here; set FLEETCAST_DATA")
def test_the_authors_slots_use_and_earn_the_same():
    from benchmarks.learned_world import lists

    with (DATA / "slots.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["trace"] == "0" and row["policy"] == "Optimus"]
    run = begin(lists()[0], nodes_of())
    for row in rows:
        run.begin()
        run.deal(kernel.OPTIMUS)
        cpu, gpu = run.used()
        assert (cpu, gpu) == pytest.approx((float(row["cpu_util"]), float(row["gpu_util"])), abs=1e-8)
        assert run.finish() == pytest.approx(float(row["reward"]), abs=1e-8)
        assert len(run.there()) == int(row["uncompleted_jobs_after"])
    assert run.over()


class OneByOne:
    """The list policies again, through the board, from their definitions."""

    kind = "tests"
    servers = True

    def __init__(self, rule):
        self.rule = rule

    def share(self, board):
        most = board.jobs[0].most
        if self.rule in ("fifo", "srtf"):
            for job in sorted(board.jobs, key=lambda j: (j.remaining if self.rule == "srtf" else 0, j.id)):
                for _ in range(most):
                    if not board.grant(job, 1, servers=1):
                        return
        open_ = list(board.jobs) if self.rule == "drf" else []
        while open_:
            job = min(open_, key=lambda j: (board.dominant(j), j.arrival, j.id))
            if not board.grant(job, 1, servers=1):
                return
            if job.servers == most:
                open_.remove(job)
        open_ = list(board.jobs) if self.rule == "optimus" else []
        while open_:
            job = min(open_, key=lambda j: (-self.gain(board, j)[0], j.id))
            gain, server = self.gain(board, job)
            if gain <= 0:
                return
            if (job.servers if server else job.granted.get(0, 0)) >= most:
                open_.remove(job)
            elif not board.grant(job, int(not server), servers=int(server)):
                return

    def gain(self, board, job):
        w, p = job.granted.get(0, 0), job.servers
        if w == 0 or p == 0:
            return 2147483647.0, w > 0
        now, worker, server = (job.remaining / board.rate(job, {0: a}, b) for a, b in ((w, p), (w + 1, p), (w, p + 1)))
        return max(now - worker, now - server), server <= worker


@pytest.mark.parametrize("rule", ["fifo", "srtf", "drf", "optimus"])
def test_a_rule_of_the_loop_deals_as_its_definition_through_the_board(rule):
    jobs, nodes = synthetic(3, jobs=14), nodes_of(12)
    run, other = begin(jobs, nodes), begin(jobs, nodes)
    while not run.over():
        run.begin()
        run.deal({"fifo": 0, "srtf": 1, "drf": 2, "optimus": 3}[rule])
        other.begin()
        if len(other.there()):
            deal(other, jobs, nodes, OneByOne(rule))
        assert run.decisions().tolist() == other.decisions().tolist()
        run.finish()
        other.finish()
    assert completion(run, jobs).tolist() == completion(other, jobs).tolist()


def test_dl2_through_the_board_deals_as_lists_side_by_side():
    net, nodes = random_network(), nodes_of(8)
    many = [synthetic(n, jobs=6) for n in range(3)]
    runs = [begin(jobs, nodes) for jobs in many]
    play_scored(runs, lambda state, mask: scores(net, state, mask))
    policy = Dl2()
    policy._read = net | {"models": dl2().models}
    for run, jobs in zip(runs, many, strict=True):
        other = begin(jobs, nodes)
        while not other.over():
            other.begin()
            if len(other.there()):
                deal(other, jobs, nodes, policy)
            other.finish()
        assert completion(run, jobs).tolist() == completion(other, jobs).tolist()


@pytest.mark.parametrize("policy", [Fifo(), Srtf(), Drf()])
def test_policies_that_know_no_servers_get_one_with_each_worker(policy):
    jobs, nodes = synthetic(1, jobs=8), nodes_of(6)
    run = begin(jobs, nodes)
    while not run.over():
        run.begin()
        if len(run.there()):
            deal(run, jobs, nodes, policy)
            _, _, workers, servers = run.columns()
            assert workers.tolist() == servers.tolist()
        run.finish()
        assert run.now() < 5000
    assert np.isfinite(completion(run, jobs)).all()


def test_no_node_holds_more_than_it_has_and_work_is_conserved():
    jobs, nodes = synthetic(5, jobs=20), nodes_of(5)
    run, earned = begin(jobs, nodes), 0.0
    while not run.over():
        run.begin()
        run.deal(kernel.DRF)
        assert max(run.used()) <= 1.0
        earned += run.finish()
    assert earned == pytest.approx(len(jobs), rel=1e-12)


def test_one_job_alone_takes_its_epochs_over_its_speed():
    speed = np.zeros((1, 18, 18))
    speed[0, 1:, 1:] = 2.0
    kinds = Kinds(("m",), np.array([[2, 4, 2, 0]], np.int32), np.array([100.0]), np.array([30.0]), speed)
    jobs = ServerJobs(kinds, np.array([2], np.int32), np.array([0], np.int32), np.array([100.0]), np.array([100.0]))
    run = begin(jobs, nodes_of(1))
    play(run, "drf")
    assert completion(run, jobs)[0] == pytest.approx(100.0 * 30.0 / 2.0 / 1200.0)


def test_errors_are_those_of_the_seed_whoever_deals():
    jobs, errors = synthetic(4, jobs=6), Errors(speed=0.3, epochs=0.25, looks=0.05)
    ends = []
    for seed in (1, 1, 2):
        run = begin(jobs, nodes_of(4), errors=errors, seed=seed)
        play(run, "optimus")
        ends.append(completion(run, jobs).tolist())
    assert ends[0] == ends[1] != ends[2]


def test_a_run_goes_on_from_the_middle_of_a_slot():
    jobs, nodes = synthetic(2, jobs=8), nodes_of(4)
    run = begin(jobs, nodes, discount=0.99)
    for _ in range(3):
        run.begin()
        run.deal(kernel.DRF)
        run.finish()
    run.open()
    run.place(int(run.there()[0]), 1, 0)
    other = begin(jobs, nodes, discount=0.99)
    progress, end, *_ = run.columns()
    other.restore(run.now(), progress, end, run.decisions().tolist())
    for one in (run, other):
        while not one.over():
            one.finish()
            one.begin()
            one.deal(kernel.DRF)
    assert completion(run, jobs).tolist() == completion(other, jobs).tolist()


def test_the_loop_uncompiled_is_the_same_loop():
    import importlib.util

    spec = importlib.util.spec_from_file_location("plain_slots", Path(kernel.__file__).parent / "slots.py")
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    jobs, nodes, net = synthetic(6, jobs=6), nodes_of(4), random_network(1)
    whole = np.concatenate([jobs.arrival[:, None], jobs.kind[:, None], jobs.kinds.takes[jobs.kind]], 1)
    parts = np.stack([jobs.epochs, jobs.real, jobs.kinds.batches[jobs.kind]], 1)

    def play_both(module):
        found = []
        for rule in range(4):
            run = module.Slots(whole, parts, nodes, jobs.kinds.speed, 16, 1200.0, np.zeros(1), np.zeros(1))
            while not run.over():
                run.begin()
                run.deal(rule)
                run.finish()
            found.append(np.asarray(run.columns()[1]).tolist())
        run = module.Slots(whole, parts, nodes, jobs.kinds.speed, 16, 1200.0, np.zeros(1), np.zeros(1), 20, 0.99)
        state, mask = np.zeros((1, 120), np.float32), np.zeros((1, 61), np.uint8)
        rewards, came = np.zeros(1), np.zeros(1, np.int32)
        run.open()
        run.observe(state[0], mask[0])
        for _ in range(60):
            module.advance([run], scores(net, state, mask).argmax(1).astype(np.int32), state, mask, rewards, came)
            found.append([float(rewards[0]), int(came[0]), *state[0].tolist()])
        return found

    assert play_both(plain) == play_both(kernel)


def test_the_board_refuses_what_cannot_be():
    jobs, nodes = synthetic(1, jobs=3), nodes_of(4)
    run = begin(jobs, nodes)
    run.begin()
    board = SlotBoard(run, jobs, nodes, alone=True)
    for devices, servers in ((-1, 0), (0, 0), (17, 0), (0, 17)):
        with pytest.raises(PolicyError):
            board.grant(board.jobs[0], devices, servers=servers)


FILE = """
name = "t"
[workload]
kind = "jobs"
servers = {{ jobs = 10 }}
nodes = 12
{more}
[plan]
share = "drf"
"""


def test_a_scenario_of_them_simulates_and_says_what_was_taken():
    outcome = simulate(setting(load(FILE.format(more=""))))
    assert outcome.metrics["finished"] == 10
    assert outcome.metrics["jct"]["mean"] > 0
    assert "synthetic" in outcome.notes[0]


@pytest.mark.parametrize(
    ("more", "error", "word"),
    [
        ("gpu = 3", Infeasible, "worker beside a server"),
        ('speeds = "no.csv"', SpecError, "no.csv"),
        ("error = { speed = 2.0 }", SpecError, "speed"),
        ("nodse = 3", SpecError, "nodse"),
    ],
)
def test_nonsense_is_refused_by_name(more, error, word):
    with pytest.raises(error, match=word):
        setting(load(FILE.format(more=more)))


def test_policies_that_need_more_than_a_slot_are_refused():
    with pytest.raises(SpecError, match="deals no slots"):
        simulate(setting(load(FILE.format(more=""))), "las")


def test_lists_and_speeds_of_files(tmp_path):
    (tmp_path / "jobs.csv").write_text("slot,model,epochs\n0,dssm,\n1,wlm,100\n")
    (tmp_path / "speeds.csv").write_text("model,servers,workers,steps_per_s\ndssm,1,1,5000\n")
    (tmp_path / "s.toml").write_text(FILE.format(more='speeds = "speeds.csv"').replace("{ jobs = 10 }", '"jobs.csv"'))
    scenario = load(tmp_path / "s.toml")
    jobs = scenario.jobs()
    assert jobs.epochs.tolist() == [9900.0, 100.0]
    assert jobs.kinds.speed[6, 1, 1] == 5000.0
    for bad, word in (("slot,model\n0,gpt\n", "gpt"), ("slot,model\n-1,wlm\n", "no slot"), ("model\nwlm\n", "slot"),
                      ("slot,model\nx,wlm\n", "no number"), ("slot,model\n", "no jobs")):  # fmt: skip
        (tmp_path / "jobs.csv").write_text(bad)
        with pytest.raises(SpecError, match=word):
            setting(load(tmp_path / "s.toml"))


def test_weights_that_do_not_know_a_model_are_refused(tmp_path):
    kinds = replace(dl2(), models=tuple(f"m{i}" for i in range(8)))
    jobs, nodes = synthetic(1, kinds=kinds, jobs=2), nodes_of(4)
    run = begin(jobs, nodes)
    run.begin()
    policy = Dl2()
    policy._read = random_network() | {"models": dl2().models}
    with pytest.raises(SpecError, match="do not know"):
        deal(run, jobs, nodes, policy)
    (tmp_path / "w.npz").write_bytes(b"nothing")
    with pytest.raises(SpecError, match="cannot be read"):
        _ = Dl2(weights=str(tmp_path / "w.npz")).network


def test_a_guard_deals_what_is_worth_more():
    jobs, nodes = synthetic(2, jobs=6), nodes_of(6)
    state = setting(load(FILE.format(more="")))
    policy = Dl2(guard="optimus")
    policy._read = random_network(7) | {"models": dl2().models}
    from fleetcast.sim.cluster.slots_outcome import play as played

    made = played(begin(jobs, nodes, discount=0.99), jobs, nodes, policy)
    assert 0 < made.fired <= made.slots
    alone = Dl2()
    alone._read = policy._read
    worse = played(begin(jobs, nodes), jobs, nodes, alone)
    assert completion(made.run, jobs).mean() < completion(worse.run, jobs).mean()
    with pytest.raises(SpecError, match="guard"):
        state.share({"kind": "dl2", "guard": "nobody"})
