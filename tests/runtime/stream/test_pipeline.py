"""Pipelines of processes: what they count is what was sent, costs are recovered, and what cannot run is refused."""

from math import ceil
from typing import Any

import numpy as np
import pytest

from fleetcast.base.errors import FleetcastError
from fleetcast.cost.streams.flow import flow
from fleetcast.runtime.stream import Costs, calibrated, run
from fleetcast.runtime.stream.costs import NAMES, fit, line
from fleetcast.runtime.stream.pipeline import Seen, built, measure, outcome, pipe_places
from fleetcast.runtime.stream.stage import BLOCK, parts, pattern, touch
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.load import load, load_stream
from fleetcast.sim.stream import simulate


def test_a_run_ends_every_sample_once_and_chooses_as_forecast() -> None:
    scenario = line(16_384, 2.0, 10.0, rate=1e7, samples=4000, interesting=0.1)
    system = built(scenario)
    seen, interesting = measure(scenario, system)
    generator, chooser, sink = seen
    assert generator.count == 3600  # the first tenth does not count
    assert chooser.count == generator.count
    assert sink.count == chooser.passed == sink.tp + sink.fp == len(sink.late)
    assert (sink.late > 0).all()
    assert all(s.cpu > 0 for s in seen)
    measured = outcome(scenario, system, seen, interesting)
    m, f = measured.metrics, simulate(scenario).metrics
    assert m["tp"] + m["fp"] + m["fn"] + m["tn"] == pytest.approx(m["input_rate"])
    # binomial: 360 of 3600 pass, give or take
    assert sink.count == pytest.approx(360, abs=5 * np.sqrt(360))
    assert m["f1"] == pytest.approx(f["f1"], abs=0.05)
    assert measured.source == "measured"
    assert set(f) == set(m)  # simulated and measured are one type


def test_a_sensor_keeps_its_rate() -> None:
    m = run(line(4096, 1.0, 4.0, rate=200.0, samples=150)).metrics
    assert m["input_rate"] == pytest.approx(200.0, rel=0.1)


def test_a_matched_filter_scores_what_was_put_in() -> None:
    draw = np.random.default_rng(1)
    n = 30_001
    known = pattern(n)
    noise = draw.standard_normal((200, n)).astype(np.float32)
    assert np.std(noise @ known) == pytest.approx(1.0, abs=0.15)
    payload = noise[0] - float(noise[0] @ known) * known
    payload[0] += 2.5 / float(known[0])
    for passes in (1.0, 2.0, 3.5):
        assert touch(parts(payload), parts(known), passes) == pytest.approx(2.5, abs=2e-3)
    assert touch(parts(payload), parts(known), 0.0) == 0.0
    assert sum(len(piece) for piece in parts(payload)) == n


def test_costs_are_recovered_from_what_they_give() -> None:
    true = Costs(3e-6, 2e-10, 5e-6, 1e-10, 4e-6, 1.5e-10, 2e-11, 4e-7, 6e-6, 1.2e-10, 2e-5, 1e-10, 0.0)
    draw = np.random.default_rng(2)
    rows, seconds = [], []
    for _ in range(12):
        size, ops = 10 ** draw.uniform(3.5, 6), 10 ** draw.uniform(5, 7)
        passed, idle = draw.uniform(0.05, 0.6), draw.uniform(0, 1)
        for sensor, last in ((True, False), (False, False), (False, True)):
            seconds.append(true.node(sensor=sensor, last=last, size=size, ops=ops, passed=passed, idle=idle))
            row = [1.0, size, 0, 0, 0, 0, ops] if sensor else [0, 0, 1.0, size, passed, passed * size, ops]
            row += [ceil(size / 4 / BLOCK) * ceil(round(ops / size, 9)), idle, idle * size]
            rows.append(row if sensor or not last else [*row[:4], 0, 0, *row[6:]])
    found = fit(rows, seconds, [(size, 2e-5 + 1e-10 * size) for size in (4096, 65_536, 1 << 20)])
    for name in (*NAMES, "hop", "hop_byte"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=1e-6)
    assert found.spread < 1e-9
    with pytest.raises(FleetcastError, match="do not fit 10 numbers"):
        fit(rows[:4], seconds[:4])


def test_a_calibrated_scenario_is_paced_by_its_slowest_process() -> None:
    costs = Costs(1e-5, 0.0, 2e-5, 0.0, 0.0, 0.0, 1e-9, 0.0, 5e-6, 0.0, 6e-6, 1e-10, 0.0)
    scenario = line(40_000, 5.0, 10.0, rate=1e7, samples=2000)
    outcome = simulate(calibrated(scenario, costs))
    each = 2e-5 + 5 * 40_000 * 1e-9
    assert outcome.metrics["input_rate"] == pytest.approx(1 / each, rel=0.02)
    slow = simulate(calibrated(line(40_000, 5.0, 10.0, rate=100.0, samples=2000), costs)).metrics
    # nothing queues: the generator, the filter, the sink (woken, as it is all but idle), and two hops
    made, sink = 1e-5 + 5e-6, 2e-5 + 40_000 * 1e-9 + 5e-6
    assert slow["latency"] == pytest.approx(made + each + 5e-6 + sink + 2e-5, rel=0.02)
    assert slow["input_rate"] == 100.0


def test_pipes_hold_whole_pages() -> None:
    assert pipe_places(8, 4064) == 8  # 4096 with its header: a page each
    assert pipe_places(3, 4064) == 4  # a power of two
    assert pipe_places(8, 1 << 20) == 0  # more than a pipe holds: the writer waits for the reader


def changed(node: int, **more: Any) -> StreamScenario:
    table = line(4096, 1.0, 4.0, rate=100.0, samples=20).table()
    table["workload"]["nodes"][node] |= more
    found = load(table)
    assert isinstance(found, StreamScenario)
    return found


@pytest.mark.parametrize(
    ("node", "more", "said"),
    [
        (1, {"compression": 0.5}, "changes the size of samples"), (1, {"size": 4}, "changes the size"),
        (1, {"lanes": 2}, "a node is one process"), (1, {"full": "drop", "buffer": 1}, "drops samples where"),
        (1, {"complexity": [1.0, 1.0]}, "grows faster than the sample"),
        (1, {"complexity": [0.5]}, "is too little to choose by"),
        (2, {"ratio": 2, "classifier": {"kind": "gaussian", "skill": 1}}, "one node of a run does"),
        (0, {"size": 4095}, "cannot be run"), (0, {"size": 8}, "cannot be run"),
        (1, {"classifier": None}, "classifier is not gaussian"),
        (1, {"dead_time": 1.0}, "drops samples where|is never dead"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused(node: int, more: dict[str, Any], said: str) -> None:
    if "classifier" in more and more["classifier"] is None:
        table = line(4096, 1.0, 4.0, rate=100.0, samples=20).table()
        del table["workload"]["nodes"][1]["classifier"]
        with pytest.raises(FleetcastError, match=said):
            run(load_stream(table))
        return
    with pytest.raises(FleetcastError, match=said):
        run(changed(node, **more))


def test_pipes_do_not_drop() -> None:
    table = line(4096, 1.0, 4.0, rate=100.0, samples=20).table()
    for node in table["workload"]["nodes"]:
        node.pop("full", None)
    with pytest.raises(FleetcastError, match="pipes let their writer wait"):
        run(load_stream(table))


def test_a_process_that_fails_is_told_and_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    import fleetcast.runtime.stream.pipeline as pipeline

    jobs = pipeline._jobs

    def broken(*args: Any) -> Any:
        import msgspec

        found = jobs(*args)
        return [found[0], msgspec.structs.replace(found[1], size=-4), found[2]]

    monkeypatch.setattr(pipeline, "_jobs", broken)
    with pytest.raises(FleetcastError, match="a process of the pipeline failed"):
        run(line(4096, 1.0, 4.0, rate=1e7, samples=50))


def test_a_run_that_does_not_end_is_ended() -> None:
    with pytest.raises(FleetcastError, match="did not end within"):
        run(line(4096, 1.0, 4.0, rate=1.0, samples=1000), timeout=0.5)


def test_seen_is_counted_per_sample() -> None:
    seen = Seen(10, 5, 3, 2, 2.0, 1.0, np.zeros(0))
    assert seen.each == 0.1
    assert Seen(0, 0, 0, 0, 0.0, 0.0, np.zeros(0)).each == 0.0
    assert flow(built(line(64, 1.0, 4.0, rate=1.0, samples=1))).stored == pytest.approx(0.25)
