"""Streams sample by sample: queues against textbook formulas and a plain loop, and the closed form as their limit."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fleetcast
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.load import load, load_stream
from fleetcast.sim.stream.events import run
from fleetcast.sim.stream.queues import Stage, alive, begins, line, station
from fleetcast.sim.stream.world import setting, simulate


def plain(arrive: list[float], service: list[float], lanes: int, buffer: int | None, dead: float) -> list[float]:
    """A station as one would write it first: NaN where a sample is lost."""
    found, busy, last, turn = [], [0.0] * lanes, -math.inf, 0
    waiting: list[float] = []  # when each sample in the buffer begins
    inside: list[tuple[float, float]] = []
    for t, s in zip(arrive, service, strict=True):
        inside = [(b, e) for b, e in inside if e > t + 1e-9 * s]
        waiting = [b for b, _ in inside if b > t]
        if t < last + dead * (1 - 1e-9):
            found.append(math.nan)
            continue
        last = t  # a dead time follows every sample that the dead time itself let in
        if buffer is not None and len(inside) >= lanes + buffer:
            found.append(math.nan)
            continue
        assert buffer is None or len(waiting) <= buffer
        start = max(t, busy[turn])
        busy[turn] = start + s
        inside.append((start, start + s))
        turn = (turn + 1) % lanes
        found.append(start)
    return found


@given(
    gaps=st.lists(st.integers(0, 6), min_size=1, max_size=40), service=st.integers(1, 7), lanes=st.integers(1, 3),
    buffer=st.one_of(st.none(), st.integers(0, 3)), dead=st.sampled_from([0.0, 2.5]),
)  # fmt: skip
def test_a_station_is_the_plain_loop(
    gaps: list[int], service: int, lanes: int, buffer: int | None, dead: float
) -> None:
    arrive = np.cumsum(np.asarray(gaps, float))
    begin, kept = station(arrive, float(service), lanes=lanes, buffer=buffer, dead_time=dead)
    wanted = plain(arrive.tolist(), [float(service)] * len(gaps), lanes, buffer, dead)
    np.testing.assert_allclose(begin, wanted, rtol=1e-12)
    assert (kept == ~np.isnan(wanted)).all()


@given(gaps=st.lists(st.integers(0, 5), min_size=1, max_size=40), lanes=st.integers(1, 3), seed=st.integers(0, 99))
def test_unequal_services_without_loss_are_the_plain_loop(gaps: list[int], lanes: int, seed: int) -> None:
    arrive = np.cumsum(np.asarray(gaps, float))
    service = np.random.default_rng(seed).integers(1, 9, len(gaps)).astype(float)
    begin = begins(arrive, service, lanes)
    np.testing.assert_allclose(begin, plain(arrive.tolist(), service.tolist(), lanes, None, 0.0), rtol=1e-12)


def test_waits_are_those_of_the_textbooks() -> None:
    draw = np.random.default_rng(5)
    n, load = 400_000, 0.7
    arrive = np.cumsum(draw.exponential(1.0, n))
    wait = (begins(arrive, load) - arrive)[n // 10 :].mean()
    assert wait == pytest.approx(load * load / (2 * (1 - load)), rel=0.03)  # M/D/1, Pollaczek-Khinchine
    wait = (begins(arrive, draw.exponential(load, n)) - arrive)[n // 10 :].mean()
    assert wait == pytest.approx(load * load / (1 - load), rel=0.04)  # M/M/1


def test_losses_are_those_of_the_textbooks() -> None:
    draw = np.random.default_rng(6)
    n, load, places = 300_000, 1.3, 4
    arrive = np.cumsum(draw.exponential(1.0, n))
    _, kept = station(arrive, draw.exponential(load, n), buffer=places - 1)
    lost = (1 - load) * load**places / (1 - load ** (places + 1))  # M/M/1/K
    assert 1 - kept.mean() == pytest.approx(lost, abs=0.004)
    tau = 0.8
    assert alive(arrive, tau).mean() == pytest.approx(1 / (1 + tau), abs=0.003)  # non-paralysable dead time
    _, kept = station(arrive, tau, buffer=0)
    assert kept.mean() == pytest.approx(1 / (1 + tau), abs=0.003)  # one place and no queue is the same


def test_a_line_in_which_senders_wait() -> None:
    n = 2000
    every = np.ones(n, bool)
    ready = np.arange(n) * 1e-9
    stages = [Stage(1.0), Stage(2.0, places=3), Stage(0.5, places=2)]
    begun, ended = line(ready, stages, [every] * 3)
    # the slowest sets the pace of all, and nothing is lost
    assert np.diff(ended)[10:] == pytest.approx(2.0)
    assert np.diff(begun[0])[10:] == pytest.approx(2.0)
    # a sample waits at the sensor until a place is free: at most three wait, and one is worked on
    waiting = np.searchsorted(begun[0] + 1.0, begun[1], side="right") - np.arange(n) - 1
    assert waiting.max() <= 3 + 1
    # with all the room in the world it is two queues one after the other
    wide = [Stage(1.0), Stage(2.0), Stage(0.5)]
    begun, ended = line(ready, wide, [every] * 3)
    first = begins(ready, 1.0) + 1.0
    second = begins(first, 2.0) + 2.0
    np.testing.assert_allclose(ended, begins(second, 0.5) + 0.5)


def camera(**more: Any) -> StreamScenario:
    table: dict[str, Any] = {
        "seed": 3,
        "workload": {
            "kind": "stream", "samples": 60_000, "arrivals": "poisson", "interesting": 0.05,
            "nodes": [
                {"name": "eye", "to": "box", "rate": 100, "size": 1000, "link": {"bandwidth": "10 MB/s"}},
                {
                    "name": "box", "to": "disk", "ratio": 8, "classifier": {"kind": "gaussian", "skill": 2.5},
                    "complexity": [4.0], "speed": 800_000, "op_energy": "1 nJ",
                },
                {"name": "disk"},
            ],
        },
    }  # fmt: skip
    table["workload"] |= {k: v for k, v in more.items() if k != "box"}
    table["workload"]["nodes"][1] |= more.get("box", {})
    found = load(table)
    assert isinstance(found, StreamScenario)
    return found


def test_the_closed_form_is_the_limit_of_the_events() -> None:
    state = setting(camera())
    found = state.flow()
    seen = run(
        state.system, found, samples=60_000, seed=3, poisson=True, interesting=state.interesting, record=False
    )  # fmt: skip
    assert sum(seen.counts) == seen.sent == 60_000
    total = found.tn + found.fn + found.fp + found.tp
    for count, rate in zip(seen.counts, (found.tn, found.fn, found.fp, found.tp), strict=True):
        expected = 60_000 * rate / total
        assert count == pytest.approx(expected, abs=5 * math.sqrt(expected))
    # M/D/1 at half load, and the sending and stated times
    assert seen.latency.mean() == pytest.approx(1e-4 + 5e-3 + 0.5 * 5e-3 / (2 * 0.5), rel=0.03)


def test_a_processor_that_cannot_follow_loses_the_rest() -> None:
    outcome = simulate(camera(box={"speed": 100_000, "buffer": 5}))  # 40 ms a sample, 10 ms between them
    assert outcome.metrics["dropped"] == pytest.approx(1 - 1 / 4, abs=0.01)
    assert outcome.metrics["output_rate"] == pytest.approx(25 / 8, rel=0.02)
    # all places are taken: the last waits for five others and the rest of one
    assert outcome.metrics["latency"] == pytest.approx(6 * 40e-3, rel=0.05)
    m = outcome.metrics
    assert m["tp"] + m["fp"] + m["fn"] + m["tn"] == pytest.approx(100.0)
    without = simulate(camera(box={"speed": 100_000}))
    assert any("cannot follow" in note for note in without.notes)
    assert without.metrics["latency"] > 100


def test_a_sensor_that_waits_makes_fewer() -> None:
    outcome = simulate(camera(samples=4000, box={"speed": 100_000, "buffer": 5, "full": "wait"}))
    assert outcome.metrics["input_rate"] == pytest.approx(25.0, rel=0.01)
    assert outcome.metrics["dropped"] == 0.0
    assert outcome.metrics["f1"] == pytest.approx(simulate(camera()).metrics["f1"])
    assert any("the sensor waits" in note for note in outcome.notes)


def test_lost_pieces_lose_their_sample_once() -> None:
    nodes: list[dict[str, Any]] = [
        {"name": "a", "to": "join", "rate": 10, "size": 10, "dead_time": 0.1},
        {"name": "b", "to": "join", "rate": 10, "size": 10},
        {"name": "join", "ratio": 2, "classifier": {"kind": "gaussian", "skill": 3.0}, "to": "disk"},
        {"name": "disk"},
    ]  # fmt: skip
    table = {"workload": {"kind": "stream", "nodes": nodes, "arrivals": "poisson", "samples": 50_000}}
    m = fleetcast.simulate(table).metrics
    assert m["dropped"] == pytest.approx(1 - 1 / 2, abs=0.01)  # r tau = 1
    assert m["tp"] + m["fp"] + m["fn"] + m["tn"] == pytest.approx(10.0)
    state = setting(load_stream(table))
    seen = run(
        state.system, state.flow(), samples=50_000, seed=0, poisson=True, interesting=state.interesting, record=False
    )  # fmt: skip
    assert sum(seen.counts) == seen.sent == 50_000


def test_the_same_seed_gives_the_same_log() -> None:
    first, again = (simulate(camera(samples=500), record=True) for _ in range(2))
    other = simulate(load_stream(camera(samples=500).table(), seed=4), record=True)
    assert first.record is not None
    assert again.record is not None
    assert other.record is not None
    assert first.record.digest() == again.record.digest() != other.record.digest()
    assert first.metrics == again.metrics == simulate(camera(samples=500)).metrics
    assert first.record.whats == ("passes on", "rejects")
    assert (np.diff(first.record.time) >= 0).all()


def test_what_is_saved_by_the_year_and_the_budget() -> None:
    table = camera().table()
    table["fleet"] = {"budget": 1e-6, "pue": 1.5}
    base = simulate(camera()).metrics["power"]
    table["workload"] |= {"year": 2032}
    outcome = fleetcast.simulate(table)
    assert outcome.metrics["power"] == pytest.approx(1.5 * base / math.exp(0.187 * 10))
    note = next(note for note in outcome.notes if "budget" in note)
    year = 2032 + math.log(outcome.metrics["power"] / 1e-6) / 0.187
    assert f"met in {year:.0f}" in note
