"""Replays on an engine in this process. The oracle is the simulator: where a forward pass takes exactly what the
forecast says, every request's times are the forecast's, to rounding."""

import numpy as np
import pytest

from fleetcast.base.errors import PolicyError, SpecError
from fleetcast.cost.iteration import Passes, host_seconds, kernel_seconds
from fleetcast.policy import batch
from fleetcast.runtime.llm import Engine
from fleetcast.runtime.replay.local import STEPS, replay_here, shape_of
from fleetcast.scenario.load import load
from fleetcast.scenario.objective import Slo
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate
from tests.runtime.llm.echo import Echo


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self):
        self.now = 5.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now = max(self.now + seconds, float(np.nextafter(self.now, np.inf)))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """A clock that only sleep moves must not be waited for."""
    monkeypatch.setattr("fleetcast.runtime.replay.local._NAP", 0.0)


class Timed(Echo):
    """The echo, whose passes take what a function of their shape says."""

    def __init__(self, blocks, clock, seconds):
        super().__init__(blocks)
        self.clock, self.seconds = clock, seconds

    def forward(self, pieces):
        self.clock.sleep(self.seconds(pieces))
        return super().forward(pieces)


def scenario(arrivals, policy):
    return load({
        "fleet": {"devices": "1x l40s"},
        "workload": {
            "model": "llama-3.2-1b", "arrivals": arrivals,
            "lengths": {"kind": "lognormal", "prompt": 70, "output": 12, "prompt_p90": 150, "output_p90": 25},
        },
        "plan": {
            "replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "engine": "fleetcast", "dtype": "bf16",
            "batch": policy,
        },
    })  # fmt: skip


def run(state, server, clock, **settings):
    """Replays on an engine that takes the forecast's time for each iteration."""

    def seconds(pieces):
        steps = sum(any(p.table is r.table for r in engine.schedule.running) for p in pieces)
        done = Passes(*(np.array([x], np.float64) for x in shape_of(pieces, steps)))
        return float(sum(s[0] for s in kernel_seconds(server.cost, done).values()) + host_seconds(server.cost, done)[0])

    engine = Engine(Timed(4000, clock, seconds), blocks=4000, batch=server.batch, order=server.order, clock=clock)
    return replay_here(
        state.requests,
        engine,
        slo=Slo(),
        plan={},
        model="echo",
        seed=state.scenario.seed,
        sleep=clock.sleep,
        **settings,
    )


@pytest.mark.parametrize(
    "arrivals",
    [
        {"kind": "poisson", "rate": 900.0, "requests": 60},
        {"kind": "poisson", "rate": 30.0, "requests": 40},
        {"kind": "closed", "concurrency": 7, "requests": 50},
        {"kind": "closed", "concurrency": 3, "requests": 30, "think": "5 ms", "ramp": "10 ms"},
    ],
    ids=["busy", "idle", "closed", "thinking"],
)
@pytest.mark.parametrize(
    "policy", [{"kind": "chunked", "chunk": 64, "max_batch": 8}, {"kind": "prefill_first"}], ids=str
)
def test_where_passes_take_what_is_forecast_requests_take_what_is_forecast(arrivals, policy):
    state = setting(scenario(arrivals, policy))
    plan = complete(state, state.scenario.plan)
    forecast = simulate(state, plan)
    clock = Clock()
    done = run(state, state.servers(plan)[0], clock)
    ours, theirs = done.outcome.requests, forecast.requests
    came = np.lexsort((np.arange(len(theirs.arrival)), theirs.arrival))  # thinking users overtake each other
    np.testing.assert_allclose(ours.e2e, theirs.e2e[came], rtol=1e-9)
    np.testing.assert_allclose(ours.ttft, theirs.ttft[came], rtol=1e-9)
    assert ours.output.tolist() == theirs.output[came].tolist()
    steps = np.array(done.steps)
    assert len(steps) == forecast.provenance["iterations"]
    busy = sum(v for k, v in forecast.breakdown["time"].items() if k != "idle")
    assert steps[:, STEPS.index("seconds")].sum() == pytest.approx(busy, rel=1e-9)
    assert done.outcome.breakdown["time"]["idle"] == pytest.approx(forecast.breakdown["time"]["idle"], abs=1e-9)
    assert done.outcome.source == "measured"
    assert done.outcome.provenance["requests"] == forecast.provenance["requests"]


def engine_of(clock, policy=None, seconds=lambda pieces: 0.01):
    return Engine(Timed(200, clock, seconds), blocks=200, batch=policy, clock=clock)


def test_speed_brings_arrivals_closer_and_says_so():
    state = setting(scenario({"kind": "poisson", "rate": 10.0, "requests": 20}, "chunked"))
    spans = []
    for speed in (1.0, 4.0):
        clock = Clock()
        done = replay_here(
            state.requests, engine_of(clock, seconds=lambda _: 1e-6), slo=Slo(), plan={}, model="echo", speed=speed,
            sleep=clock.sleep,
        )  # fmt: skip
        spans.append(done.outcome.metrics["makespan"])
        assert any("4 times as fast" in note for note in done.outcome.notes) == (speed == 4.0)
    assert spans[0] == pytest.approx(4 * spans[1], rel=1e-3)


def test_warming_up_counts_for_nothing():
    state = setting(scenario({"kind": "closed", "concurrency": 1, "requests": 3}, "chunked"))
    found = []
    for warmup in (0, 5):
        clock = Clock()
        engine = engine_of(clock)
        done = replay_here(state.requests, engine, slo=Slo(), plan={}, model="echo", warmup=warmup, sleep=clock.sleep)
        found.append((done.outcome.metrics["makespan"], len(done.steps), len(engine.iterations)))
        assert (engine.submitted, len(done.rows)) == (3 + warmup, 3)
    assert found[0] == pytest.approx(found[1])


def test_ctrl_c_keeps_what_was_measured():
    state = setting(scenario({"kind": "closed", "concurrency": 2, "requests": 40}, "chunked"))
    clock, passes = Clock(), []

    def seconds(pieces):
        passes.append(pieces)
        if len(passes) == 60:
            raise KeyboardInterrupt
        return 0.01

    done = replay_here(
        state.requests, engine_of(clock, seconds=seconds), slo=Slo(), plan={}, model="echo", warmup=0, sleep=clock.sleep
    )
    assert done.interrupted
    assert 0 < done.outcome.metrics["requests"] < 40
    statuses = [row[8] for row in done.rows]
    assert statuses.count("interrupted") == 2
    assert done.outcome.provenance["stopped"] == 40 - done.outcome.metrics["requests"]
    assert len(done.steps) == 59


def test_ctrl_c_before_anything_was_answered_is_not_an_outcome():
    state = setting(scenario({"kind": "closed", "concurrency": 2, "requests": 4}, "chunked"))
    clock = Clock()

    def seconds(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay_here(
            state.requests, engine_of(clock, seconds=seconds), slo=Slo(), plan={}, model="echo", warmup=0,
            sleep=clock.sleep,
        )  # fmt: skip


def test_later_turns_repeat_what_was_answered():
    table = {
        "fleet": {"devices": "1x l40s"},
        "workload": {
            "model": "llama-3.2-1b", "arrivals": {"kind": "poisson", "rate": 1.0, "requests": 12},
            "lengths": {"kind": "fixed", "prompt": 20, "output": 5}, "sessions": {"turns": 3, "think": "5 s"},
        },
    }  # fmt: skip
    state = setting(load(table))
    clock = Clock()
    engine = engine_of(clock)
    sent = {}
    submit = engine.submit

    def noted(tokens, *rest, **more):
        made = submit(tokens, *rest, **more)
        sent[made.id] = made
        return made

    engine.submit = noted
    replay_here(state.requests, engine, slo=Slo(), plan={}, model="echo", warmup=0, sleep=clock.sleep)
    q, checked = state.requests, 0
    for i, parent in enumerate(q.parent):
        if parent >= 0 and q.prefix[i] == q.prompt[parent] + q.output[parent]:
            assert sent[i].tokens[: q.prefix[i]] == sent[int(parent)].tokens
            checked += 1
    assert checked, "the case must have later turns"


class Idle:
    """A policy that runs nothing."""

    def compose(self, view):
        return batch.Batch((), decode=False)


def test_a_policy_that_runs_nothing_is_named():
    state = setting(scenario({"kind": "closed", "concurrency": 1, "requests": 1}, "chunked"))
    clock = Clock()
    with pytest.raises(PolicyError, match=r"Idle\.compose runs nothing"):
        replay_here(
            state.requests, engine_of(clock, Idle()), slo=Slo(), plan={}, model="echo", warmup=0, sleep=clock.sleep
        )


@pytest.mark.parametrize(
    ("name", "value"), [("speed", 0.0), ("speed", float("inf")), ("warmup", -1), ("warmup", 10**6)]
)
def test_settings_out_of_range_are_refused(name, value):
    state = setting(scenario({"kind": "closed", "concurrency": 1, "requests": 1}, "chunked"))
    with pytest.raises(SpecError, match=f"{name}: is out of range"):
        replay_here(state.requests, engine_of(Clock()), slo=Slo(), plan={}, model="echo", **{name: value})
