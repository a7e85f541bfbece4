"""Each optimising share policy against a brute force on cases small enough to enumerate."""

import itertools

import numpy as np
import pytest
import scipy.optimize

from benchmarks.counting import Counting
from fleetcast.cost.jobs import Linear, Virtual, work
from fleetcast.policy.place.gangs import BestFit
from fleetcast.policy.share import DeviceKind, EasyScale, Job, MaxMin, Optimus, Pollux, Sia
from fleetcast.policy.share.max_min import alike, shares
from fleetcast.policy.share.pollux import Problem
from fleetcast.policy.share.sia import _branched, _counted, choose, configurations
from fleetcast.scenario.workload.jobs import of
from fleetcast.sim.cluster import world
from fleetcast.sim.cluster.nodes import even
from fleetcast.sim.cluster.pace import Pace


class Curves:
    """Speeds by model, kind and count, as a table says."""

    source = "a test"

    def __init__(self, table):  # [model][kind][count]
        self.table = table
        self.models = tuple(str(m) for m in range(len(table)))
        self.kinds = tuple(str(k) for k in range(len(table[0])))

    def rate(self, model, lying, phase=0):
        if len(lying) != 1:
            return 0.0
        rates = self.table[model][lying[0].kind]
        return rates[lying[0].devices] if lying[0].devices < len(rates) else 0.0

    def phases(self, model):
        return (0.0,)

    def whole(self, model):
        return 1.0


def board(speeds, totals, jobs, node=4):
    kinds = [DeviceKind(name, total, node) for name, total in zip(speeds.kinds, totals, strict=True)]
    return Counting(kinds, speeds, np.ones(len(jobs)), np.arange(len(jobs)), jobs=jobs)


def job(number, demand=1, most=8, arrival=0.0, **others):
    return Job(number, str(number), arrival, demand, others.pop("least", 1), most, **others)


def plain_program(rates, demand, weight, devices):
    """The paper's program with a column for each job and kind, and nothing clever."""
    jobs, kinds = rates.shape
    fair = rates @ devices / devices.sum()
    value = rates * (demand / weight / fair)[:, None]
    cost = np.zeros(jobs * kinds + 1)
    cost[-1] = -1.0
    rows, most = [], []
    for i in range(jobs):
        row = np.zeros(len(cost))
        row[i * kinds : (i + 1) * kinds] = -value[i]
        row[-1] = 1.0
        rows.append(row)
        most.append(0.0)
        row = np.zeros(len(cost))
        row[i * kinds : (i + 1) * kinds] = 1.0
        rows.append(row)
        most.append(1.0)
    for k in range(kinds):
        row = np.zeros(len(cost))
        row[k:-1:kinds] = demand
        rows.append(row)
        most.append(devices[k])
    return -scipy.optimize.linprog(cost, np.array(rows), most).fun, value


@pytest.mark.parametrize("seed", range(12))
def test_gavels_shares_are_as_fair_as_the_plain_program(seed):
    random = np.random.default_rng(seed)
    jobs, kinds = int(random.integers(1, 12)), int(random.integers(1, 4))
    models = random.uniform(0.2, 3.0, (3, kinds))
    of = random.integers(3, size=jobs)
    rates, demand = models[of], random.choice([1.0, 2.0, 4.0], jobs)
    weight, devices = random.choice([1.0, 2.0], jobs), random.integers(4, 12, kinds).astype(float)
    fairest, value = plain_program(rates, demand, weight, devices)
    found = shares(rates, demand, weight, devices)
    assert (value * found).sum(axis=1).min() == pytest.approx(fairest, rel=1e-6)
    assert (demand @ found <= devices + 1e-6).all()
    assert (found.sum(axis=1) <= 1 + 1e-6).all()
    for i, k in itertools.combinations(range(jobs), 2):
        if of[i] == of[k] and demand[i] == demand[k] and weight[i] == weight[k]:
            assert found[i] == pytest.approx(found[k])


@pytest.mark.parametrize("seed", range(12))
def test_shares_over_equal_kinds_are_those_of_the_program(seed):
    random = np.random.default_rng(100 + seed)
    jobs = int(random.integers(1, 30))
    demand, weight = random.choice([1.0, 2.0, 4.0, 8.0], jobs), random.choice([0.5, 1.0, 3.0], jobs)
    devices = np.array([8.0, 8.0, 4.0])
    fairest, value = plain_program(np.ones((jobs, 3)), demand, weight, devices)
    found = alike(demand, weight, devices)
    assert (value * found).sum(axis=1).min() == pytest.approx(fairest, rel=1e-9)
    assert (demand @ found <= devices + 1e-9).all()
    # Nothing is left idle that somebody could use.
    assert demand @ found.sum(axis=1) == pytest.approx(min(devices.sum(), demand.sum()))


def test_rounds_make_shares_true():
    jobs = [job(i, demand=2, most=2, least=2) for i in range(3)]
    bench = board(Curves([[[0, 1, 1.0]], [[0, 1, 1.0]], [[0, 1, 1.0]]]), (4,), jobs)
    policy, ran = MaxMin(), np.zeros(3)
    for _ in range(60):
        for each in jobs:
            each.held, each.granted = dict(each.granted), {}
        policy.share(bench)
        ran += [bool(each.granted) for each in jobs]
        bench.now += 60.0
    assert ran == pytest.approx([40, 40, 40], abs=2)


@pytest.mark.parametrize("seed", range(25))
def test_sias_program_against_enumeration(seed):
    random = np.random.default_rng(seed)
    devices = random.integers(2, 9, 2)
    table = [(k, n) for k in range(2) for n in (1, 2, 4) if n <= devices[k]]
    rows = [(i, k, n) for i in range(int(random.integers(1, 5))) for k, n in table if random.random() < 0.8]
    if not rows:
        return
    of, kind, size = (np.array(column) for column in zip(*rows, strict=True))
    cost = -random.uniform(0.0, 1.0, len(rows)) * size**0.3
    found = choose(cost, of, kind, size, devices)
    best = 0.0
    options = [[None, *np.flatnonzero(of == i)] for i in np.unique(of)]
    for pick in itertools.product(*options):
        picked = [p for p in pick if p is not None]
        if all(size[[p for p in picked if kind[p] == k]].sum() <= devices[k] for k in range(2)):
            best = min(best, cost[picked].sum())
    assert len(set(of[found])) == len(found)
    assert all(size[[p for p in found if kind[p] == k]].sum() <= devices[k] for k in range(2))
    assert cost[found].sum() == pytest.approx(best, rel=1e-4)


def test_sias_configurations_are_powers_of_two_then_whole_nodes():
    assert configurations(DeviceKind("", 24, 8)) == [1, 2, 4, 8, 16, 24]
    assert configurations(DeviceKind("", 12, 4)) == [1, 2, 4, 8, 12]
    assert configurations(DeviceKind("", 3, 1)) == [1, 2, 3]
    assert configurations(DeviceKind("", 3, 4)) == [1, 2]


def test_sia_grows_no_faster_than_it_knows_and_stays_while_it_restarts():
    jobs = [job(0, most=16)]
    bench = board(Linear(["a"], models=["0"]), (16,), jobs, node=4)
    policy, had = Sia(restart=70.0), []
    for _ in range(8):
        jobs[0].held, jobs[0].granted = dict(jobs[0].granted), {}
        policy.share(bench)
        had.append(sum(jobs[0].granted.values()))
        bench.now += 60.0
    assert had == [1, 1, 2, 2, 4, 4, 8, 8]


@pytest.mark.parametrize("seed", range(6))
def test_pollux_finds_the_best_of_all_allocations(seed):
    random = np.random.default_rng(seed)
    jobs, total = 3, np.array([5])
    speed = np.concatenate([np.zeros((jobs, 1)), np.cumsum(random.uniform(0, 1, (jobs, 5)), axis=1)], axis=1)
    problem = Problem(speed, np.full(jobs, 0.8), total, np.array([1, 2, 0]), np.zeros(jobs, int), -1.0, random)
    counts, _ = problem.evolve(*problem.repair(np.ones((60, jobs), int), np.zeros((60, jobs), int)), 60)
    every = np.array([c for c in itertools.product(range(6), repeat=jobs) if sum(c) <= 5])
    best = problem.fitness(every, np.zeros_like(every)).max()
    assert problem.fitness(counts[:1], np.zeros((1, jobs), int))[0] == pytest.approx(best)


def test_pollux_allocations_fit_whatever_happens_to_them():
    random = np.random.default_rng(5)
    speed = np.concatenate([np.zeros((9, 2)), np.ones((9, 7))], axis=1)  # none runs on one device
    problem = Problem(speed, np.ones(9), np.array([6, 3]), np.zeros(9, int), np.zeros(9, int), -1.0, random)
    counts, kinds = problem.evolve(
        *problem.repair(random.integers(9, size=(40, 9)), random.integers(2, size=(40, 9))), 20
    )
    for kind, total in enumerate((6, 3)):
        assert (np.where(kinds == kind, counts, 0).sum(axis=1) <= total).all()
    assert not (counts == 1).any()


def test_one_seed_one_search():
    def run():
        jobs = [job(i, most=4) for i in range(4)]
        bench = board(Curves([[[0, 1, 1.7, 2.2, 2.5]]] * 4), (6,), jobs)
        Pollux(seed=3, population=20, generations=10).share(bench)
        return [dict(each.granted) for each in jobs]

    assert run() == run()


@pytest.mark.parametrize("seed", range(10))
def test_optimus_is_optimal_where_gains_fall(seed):
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0.5, 1.0, (3, 6)), axis=1)[:, ::-1]
    times = np.array([1.0 + np.cumsum(np.sort(np.diff(row))[::-1][::-1]) for row in times])  # convex and falling
    times = np.concatenate([np.full((3, 1), 2.0), times], axis=1)
    times[:, 1:] = 2.0 + np.cumsum(np.sort(-random.uniform(0.01, 0.3, (3, 5)), axis=1), axis=1)
    jobs = [job(i, most=6) for i in range(3)]
    bench = board(Curves([[[0.0, *(1.0 / row)]] for row in times]), (8,), jobs)
    Optimus().share(bench)
    took = sum(times[i, sum(each.granted.values()) - 1] for i, each in enumerate(jobs))
    best = min(
        sum(times[i, n - 1] for i, n in enumerate(c)) for c in itertools.product(range(1, 7), repeat=3) if sum(c) <= 8
    )
    assert took == pytest.approx(best)


def test_optimus_takes_several_where_one_does_not_help():
    jobs = [job(0, most=4)]
    bench = board(Curves([[[0, 1.0, 1.0, 0.9, 2.0]]]), (4,), jobs)
    Optimus().share(bench)
    assert jobs[0].granted == {0: 1}  # at most as many more as it has
    bench = board(Curves([[[0, 1.0, 1.1, 1.0, 2.0]]]), (4,), jobs)
    jobs[0].granted = {}
    Optimus().share(bench)
    assert jobs[0].granted == {0: 4}


def elastic(where, mixed, rounds, totals=(2, 2, 2)):
    speeds = Virtual(["v100", "p100", "t4"], [f"bert/16/4/{where}/1"])
    jobs = [job(0, demand=4, most=4)]
    bench = board(speeds, totals, jobs)
    policy, had = EasyScale(mixed=mixed), []
    for _ in range(rounds):
        jobs[0].held, jobs[0].granted = dict(jobs[0].granted), {}
        policy.share(bench)
        had.append(dict(jobs[0].granted))
        bench.now += 60.0
    return had


def test_easyscale_starts_small_and_grows_by_the_best_gain():
    had = elastic("any", True, 6)
    assert had[0] == {2: 1}  # the slowest kind
    assert had[1] == {2: 1, 0: 1}  # the best of one more device
    assert had[2][0] == 2
    assert had[-1] == had[-2]  # and comes to rest
    assert 2 not in had[-1] or had[-1][2] <= 1


def test_easyscale_on_one_kind_stays_there():
    had = elastic("p100", False, 4)
    assert had == [{1: 1}, {1: 2}, {1: 2}, {1: 2}]


def test_easyscale_grants_no_job_twice_and_waiting_jobs_first():
    speeds = Virtual(["v100"], ["bert/16/4/any/1", "bert/16/8/any/1", "bert/16/2/any/1"])
    jobs = [job(0, demand=4, most=4), job(1, demand=8, most=8)]
    bench = board(speeds, (4,), jobs)
    policy = EasyScale()
    policy.share(bench)
    assert [each.granted for each in jobs] == [{0: 1}, {0: 1}]
    bench.jobs = jobs = [*jobs, job(2, demand=2, most=2, arrival=60.0)]
    bench.work, bench.model, bench.now = np.ones(3), np.arange(3), 60.0
    for each in jobs:
        each.held, each.granted = dict(each.granted), {}
    policy.share(bench)
    assert sorted(each.granted[0] for each in jobs) == [1, 1, 2]
    assert jobs[2].granted == {0: 1}


@pytest.mark.parametrize("policy", [MaxMin(), MaxMin(aware=False), Optimus(), Pollux(), Sia(), EasyScale()])
@pytest.mark.parametrize("case", ["no jobs", "no devices", "too wide", "ties"])
def test_what_a_fleet_may_look_like(policy, case):
    count = {"no jobs": 0, "no devices": 3, "too wide": 3, "ties": 5}[case]
    wide = case == "too wide"
    jobs = [job(i, demand=9 if wide else 1, least=9 if wide else 1, most=9) for i in range(count)]
    bench = board(Linear(["a"], models=[str(i) for i in range(5)]), (0 if case == "no devices" else 4,), jobs)
    policy.share(bench)
    given = [sum(each.granted.values()) for each in jobs]
    assert sum(given) <= bench.kinds[0].total
    assert not wide or not any(given)
    if case == "ties":
        assert sum(bool(n) for n in given) == 4


@pytest.mark.parametrize("seed", range(8))
def test_counting_and_branching_find_the_same_optimum(seed):
    random = np.random.default_rng(seed)
    devices = np.array([12, 8, 16])
    rows = [(i, k, n) for i in range(14) for k in range(3) for n in (1, 2, 4, 8) if random.random() < 0.6]
    of, kind, size = (np.array(column) for column in zip(*rows, strict=True))
    cost = -random.uniform(0.2, 1.0, len(rows)) * size**0.4
    counted, branched = (solve(cost, of, kind, size, devices) for solve in (_counted, _branched))
    assert cost[counted].sum() == pytest.approx(cost[branched].sum(), rel=1e-4)
    assert cost[counted].sum() <= cost[branched].sum() + 1e-9
    assert all(size[[p for p in counted if kind[p] == k]].sum() <= devices[k] for k in range(3))
    assert len({int(of[p]) for p in counted}) == len(counted)


@pytest.mark.parametrize("policy", [MaxMin(), Optimus(), Pollux(), Sia()])
def test_jobs_of_an_awkward_size_run(policy):
    jobs = [job(0, demand=3, least=3, most=3), job(1, demand=5, least=5, most=7)]
    bench = board(Linear(["a"], models=["0", "1"]), (12,), jobs, node=4)
    policy.share(bench)
    assert jobs[0].granted == {0: 3}
    assert jobs[1].granted[0] >= 5


@pytest.mark.parametrize("kind", ["max_min", "optimus", "sia", "easyscale", "pollux"])
@pytest.mark.parametrize("every", [0.0, 60.0])
def test_all_jobs_end_with_and_without_rounds(kind, every):
    policies = {
        "max_min": MaxMin, "optimus": Optimus, "sia": lambda: Sia(restart=45.0), "easyscale": EasyScale,
        "pollux": lambda: Pollux(population=20, generations=8),
    }  # fmt: skip
    random = np.random.default_rng(4)
    demand = random.choice([1, 2, 3, 4, 8], 40)
    jobs = of(
        np.sort(random.uniform(0, 3000, 40)), demand, random.uniform(10, 2000, 40),
        least=np.where(random.random(40) < 0.5, 1, demand), most=np.maximum(demand, random.choice([4, 8, 16], 40)),
    )  # fmt: skip
    speeds = Linear(["a", "b"], [1.0, 0.6])
    nodes, rules = even([16, 8], [4, 8], ["a", "b"]), world.Rules(round=every, restart=20.0)
    pace = Pace(speeds, work(speeds, jobs, 0, 4), jobs.model)
    run = world.play(jobs, nodes, pace, policies[kind](), BestFit(), rules)
    assert np.isfinite(run.finish).all()
