"""Jobs beside tenants: nothing is held twice, power adds up, and a change in one shows in the others."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import fleetcast
from fleetcast.base.errors import SpecError
from fleetcast.cost.jobs.linear import Linear
from fleetcast.policy import power, share
from fleetcast.policy.place import gangs
from fleetcast.policy.scale import Fixed
from fleetcast.scenario.workload.invocations.generators import Synthetic
from fleetcast.scenario.workload.jobs import Jobs
from fleetcast.sim.cluster.board import Rules
from fleetcast.sim.cluster.nodes import even
from fleetcast.sim.cluster.pace import Pace
from fleetcast.sim.cluster.shared import Row, Shared, play
from fleetcast.sim.cluster.tenants import Tenant, functions, service
from fleetcast.sim.cluster.world import play as alone
from fleetcast.sim.functions.world import play as play_functions

HOUR = 3600.0
ROW = Row(idle=(50.0,), busy=(300.0,), sweeps=(None,))


def jobs(n: int = 12, demand: int = 4, seconds: float = 2 * HOUR, gap: float = HOUR / 2) -> Jobs:
    ones, at = np.ones(n, np.int32), gap * np.arange(n)
    return Jobs(at, demand * ones, demand * ones, demand * ones, np.full(n, seconds), 0 * ones, 0 * ones, np.ones(n))


def run(trace: Jobs, tenants: list[Tenant], row: Row = ROW, devices: int = 16, **rules: float) -> tuple:
    nodes = even([devices], [4])
    pace = Pace(Linear(["gpu"]), trace.seconds * trace.demand, trace.model)
    return play(trace, nodes, pace, share.Fifo(backfill=True), gangs.BestFit(), row, tenants, Rules(**rules))


def held(name: str, at: list[float], devices: list[int], watts: list[float] | None = None, low: bool = False) -> Tenant:
    return Tenant(name, 0, np.array(at), np.array(devices), np.array(watts or [300.0 * d for d in devices]), low)


def test_without_tenants_it_is_the_world_of_jobs() -> None:
    trace = jobs()
    nodes = even([16], [4])
    pace = Pace(Linear(["gpu"]), trace.seconds * trace.demand, trace.model)
    plain = alone(trace, nodes, pace, share.Fifo(backfill=True), gangs.BestFit(), Rules())
    found, account = run(trace, [])
    assert (found.finish == plain.finish).all()
    # energy: busy devices at 300 W, the rest at 50 W, from the first arrival to the last end
    busy = float(found.held.sum())
    assert account.energy == pytest.approx(busy * 250 + 16 * 50 * found.finish.max())


def test_tenants_take_devices_first_and_jobs_wait() -> None:
    free, _ = run(jobs(), [])
    squeezed, account = run(jobs(), [held("chat", [0.0], [8])])
    assert squeezed.finish.max() > free.finish.max()
    assert account.short["chat"] == 0
    assert account.joules["chat"] == pytest.approx(8 * 300 * squeezed.finish.max())


def test_nothing_is_held_twice() -> None:
    random = np.random.default_rng(2)
    times = np.arange(0, 30) * HOUR / 3
    tenants = [held("a", times.tolist(), random.integers(0, 9, 30).tolist()),
               held("b", times.tolist(), random.integers(0, 9, 30).tolist(), low=True)]  # fmt: skip
    trace = jobs(20)
    nodes, pace = even([16], [4]), Pace(Linear(["gpu"]), trace.seconds * trace.demand, trace.model)
    world = Shared(trace, nodes, pace, share.Fifo(backfill=True), gangs.BestFit(), Rules(), ROW, tenants)
    decide = world._decide

    def checked() -> None:
        decide()
        for node, size in enumerate(nodes.size):
            mine = sum(live.nodes.get(node, 0) for live in world.live.values())
            assert mine + world.taken[node] <= size
            assert world.up[node] == size - world.taken[node]

    world._decide = checked  # type: ignore[method-assign]
    found = world.run()
    assert np.isfinite(found.finish).all()
    assert found.held.sum() == pytest.approx(trace.work), "a job that must leave keeps what it has done"


def test_a_job_that_must_leave_goes_on_later() -> None:
    found, account = run(
        jobs(1, demand=16, seconds=HOUR), [held("chat", [0.0, HOUR / 2, HOUR], [0, 4, 0])], restart=60.0
    )
    assert found.finish[0] == pytest.approx(1.5 * HOUR + 60)
    assert account.evicted == 1
    assert found.lost[0] == pytest.approx(60 * 16)


def test_a_tenant_that_wants_more_than_there_is_is_short() -> None:
    _, account = run(jobs(1, demand=4, seconds=HOUR), [held("chat", [0.0, HOUR], [20, 0])])
    assert account.short["chat"] == pytest.approx(4 * HOUR)


def test_power_policies_slow_jobs_and_keep_the_budget() -> None:
    """16 busy devices draw 4,800 W; the budget is 4,400 W."""
    trace = jobs(8, demand=4, gap=0.0)
    tight = dict(idle=(50.0,), busy=(300.0,), sweeps=(None,), budget=4400.0)
    free, _ = run(trace, [])
    braked, without = run(trace, [], Row(**tight, policy=power.Uncapped()))
    capped, account = run(trace, [], Row(**tight, policy=power.Polca()))
    assert without.brakes > 0
    assert account.brakes < without.brakes
    assert account.peak(float(capped.finish.max())) <= 4400
    assert free.finish.mean() < capped.finish.mean() < braked.finish.mean()
    assert account.slow > 0


def test_a_service_that_is_slowed_needs_more_devices() -> None:
    chat = held("chat", [0.0], [8])
    tight = Row(idle=(50.0,), busy=(300.0,), sweeps=(None,), budget=4000.0, policy=power.CapAll(clock=0.8))
    slowed, _ = run(jobs(), [chat], tight)
    free, _ = run(jobs(), [chat])
    assert slowed.finish.mean() > free.finish.mean()


def test_a_service_has_the_replicas_that_its_traffic_needs() -> None:
    """2 s of a replica a request, 1.4 a second on average: 2.8 busy replicas, four at 70 %."""
    found = service(
        "chat", 0, seconds=2.0, rate=1.4, per_replica=2, day=[1.0, 0.5], span=86400.0, idle=50.0, busy=300.0
    )
    assert found.devices.tolist() == [8, 4]
    assert found.watts[0] == pytest.approx(8 * 50 + 2.8 * 2 * 250)
    quicker = service("chat", 0, seconds=1.0, rate=1.4, per_replica=2, day=[1.0], span=86400.0, idle=50.0, busy=300.0)
    assert quicker.devices[0] < found.devices[0]


def test_keeping_functions_warm_for_longer_costs_jobs_time() -> None:
    """A change of the functions' policy shows in the jobs."""
    trace = Synthetic(functions=40, regions=1, hours=2, rate=0.3, steady=0.2).invocations(3)
    ends = []
    for seconds in (10.0, 600.0):
        pods = play_functions(trace, Fixed(keep=seconds))
        tenant = functions("web", 0, pods, 8e9, span=86400.0, idle=50.0, busy=300.0)
        found, account = run(jobs(), [tenant])
        ends.append(float((found.finish - jobs().arrival).mean()))
        assert account.joules["web"] > 0
    assert ends[1] > 1.05 * ends[0]


def test_functions_hold_the_devices_of_their_pods_memory() -> None:
    trace = Synthetic(functions=40, regions=1, hours=1, rate=0.1, steady=0.2).invocations(3)
    pods = play_functions(trace, Fixed())
    tenant = functions("web", 0, pods, 4e9, span=7200.0, idle=50.0, busy=300.0)
    at = 1234.0
    alive = (pods.start <= at) & (pods.death > at)
    assert tenant.at(at)[0] * 4e9 >= trace.memory[pods.function[alive]].sum()
    assert tenant.at(at)[0] == tenant.at(at + 3600.0)[0], "the trace repeats"


def test_a_scenario_of_one_fleet(tmp_path: Path) -> None:
    """Batching of the service, keep-alive of the functions and the power policy all show in the jobs."""
    shown = resources.files("fleetcast") / "view" / "examples"
    for name in ("one-fleet", "chat", "web"):
        text = (
            (shown / f"{name}.toml")
            .read_text()
            .replace('jobs = 150, every = "8 min"', 'jobs = 60, every = "60 s"')
            .replace("requests = 600", "requests = 150")
        )
        (tmp_path / f"{name}.toml").write_text(text)

    def jct(file: str, old: str, new: str) -> tuple[float, dict]:
        text = (tmp_path / f"{file}.toml").read_text()
        assert old in text
        (tmp_path / f"{file}.toml").write_text(text.replace(old, new))
        metrics = fleetcast.simulate(fleetcast.load(tmp_path / "one-fleet.toml")).metrics
        (tmp_path / f"{file}.toml").write_text(text)
        return metrics["jct"]["mean"], metrics

    base, metrics = jct("one-fleet", 'power = "polca"', 'power = "polca"')
    assert metrics["peak_share"] <= 1.0
    assert metrics["brakes"] == 0
    two, one = "replicas = 2\ntensor_parallel = 4", "replicas = 1\ntensor_parallel = 8"
    assert jct("chat", two, one)[0] != base, "other replicas, other jobs"
    uncapped, without = jct("one-fleet", 'power = "polca"', 'power = "uncapped"')
    assert without["capped"]["low"] >= 0.0
    assert uncapped != base
    more, _ = jct("one-fleet", 'budget = "26 kW"', 'budget = "60 kW"')
    assert more < base, "a larger breaker slows no one"


def test_neighbours_that_cannot_be_are_refused(tmp_path: Path) -> None:
    shown = resources.files("fleetcast") / "view" / "examples"
    for name in ("one-fleet", "chat", "web", "graph"):
        (tmp_path / f"{name}.toml").write_text((shown / f"{name}.toml").read_text())
    text = (tmp_path / "one-fleet.toml").read_text()
    for old, new, says in (
        ('scenario = "chat.toml"', 'scenario = "graph.toml"', "cannot live beside jobs"),
        ('scenario = "chat.toml"\non = "gpus"', 'scenario = "chat.toml"\non = "cpus"', "other devices"),
        ('on = "gpus"', 'on = "gups"', r"neighbours\[0\].on"),
        ("day = [0.5,", "day = [-1.0,", "day"),
        ('power = "polca"', 'power = "polka"', "plan.power"),
    ):  # fmt: skip
        (tmp_path / "one-fleet.toml").write_text(text.replace(old, new))
        with pytest.raises(SpecError, match=says):
            fleetcast.simulate(fleetcast.load(tmp_path / "one-fleet.toml"))
