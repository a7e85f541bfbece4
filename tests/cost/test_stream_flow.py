"""Rates, choices and power of pipelines: by hand on small ones, and what must hold of any."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.cost.streams.flow import f1, flow, operations, productivity
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.load import load
from fleetcast.scenario.workload.pipeline import System, resolve


def stream(nodes: list[dict[str, Any]], **more: Any) -> StreamScenario:
    found = load({"workload": {"kind": "stream", "nodes": nodes} | more})
    assert isinstance(found, StreamScenario)
    return found


def system(nodes: list[dict[str, Any]], **more: Any) -> System:
    return resolve(stream(nodes, **more).workload)


LINE: list[dict[str, Any]] = [
    {"name": "eye", "to": "box", "rate": "100 Hz", "size": "1 kB", "link": {"energy": "1 nJ", "bandwidth": "1 MB/s"}},
    {
        "name": "box", "to": "disk", "ratio": 10, "classifier": {"kind": "gaussian", "skill": 2.0}, "size": 24,
        "op_energy": "1 uJ", "complexity": [2.0, 0.001], "compression": 0.5, "speed": "1 MOP/s", "latency": "1 ms",
        "link": {"energy": "2 nJ", "delay": "3 ms"},
    },
    {"name": "disk", "op_energy": "5 nJ"},
]  # fmt: skip


def test_a_line_by_hand() -> None:
    found = flow(system(LINE))
    eye, box, disk = found.nodes
    assert (eye.rate, eye.interesting) == (100.0, 10.0)
    assert eye.link_power == pytest.approx(8 * 1000 * 100 * 1e-9)
    size = 0.5 * 1000 + 24
    ops = 2 * size + 0.001 * size**2
    assert (box.size, box.ops) == (size, pytest.approx(ops))
    assert box.op_power == pytest.approx(1e-6 * ops * 100)
    assert box.out == pytest.approx(10.0)
    assert box.link_power == pytest.approx(8 * size * 10 * 2e-9)
    assert disk.op_power == pytest.approx(5e-9 * size * 10)
    assert box.service == pytest.approx(ops / 1e6)
    assert box.busy == pytest.approx(100 * ops / 1e6)
    assert found.latency == pytest.approx(1000 / 1e6 + ops / 1e6 + 1e-3 + 3e-3)
    assert found.op_power + found.link_power == pytest.approx(sum(n.op_power + n.link_power for n in found.nodes))
    assert found.f1 == pytest.approx(f1(found.tp, found.fp, found.fn))
    power = found.op_power + found.link_power
    assert productivity(found, power) == pytest.approx(found.f1 * 10 / power)


@given(
    ratios=st.lists(st.floats(1.0, 500.0), min_size=1, max_size=4), rate=st.floats(1e-3, 1e9),
    skill=st.floats(0.0, 6.0),
    interesting=st.one_of(st.none(), st.floats(0.0, 1.0)),
)  # fmt: skip
def test_every_sample_ends_once(ratios: list[float], rate: float, skill: float, interesting: float | None) -> None:
    nodes: list[dict[str, Any]] = [{"name": "s", "to": "n0", "rate": rate, "size": 8}]
    for i, ratio in enumerate(ratios):
        nodes.append({"name": f"n{i}", "to": f"n{i + 1}", "ratio": ratio,
                      "classifier": {"kind": "gaussian", "skill": skill}})  # fmt: skip
    nodes.append({"name": f"n{len(ratios)}"})
    found = flow(system(nodes), interesting=interesting)
    assert found.tn + found.fn + found.fp + found.tp == pytest.approx(rate, rel=1e-9)
    assert found.stored == pytest.approx(rate / math.prod(ratios), rel=1e-6)
    for at in found.nodes:
        assert sum(at.rejected) + sum(at.passed) == pytest.approx(at.rate, rel=1e-9, abs=1e-12)
    share = 1.0 / math.prod(ratios) if interesting is None else interesting
    assert found.tp + found.fn == pytest.approx(rate * share, rel=1e-6, abs=1e-9 * rate)
    assert 0.0 <= found.f1 <= 1.0


@given(skill=st.floats(0.0, 6.0), more=st.floats(0.0, 3.0), ratio=st.floats(1.5, 1000.0))
def test_more_skill_never_draws_more_at_the_same_rate_and_never_keeps_worse(
    skill: float, more: float, ratio: float
) -> None:
    def of(s: float) -> tuple[float, float]:
        nodes = [dict(node) for node in LINE]
        nodes[1] |= {"ratio": ratio, "classifier": {"kind": "gaussian", "skill": s}}
        found = flow(system(nodes))
        return found.op_power + found.link_power, found.f1

    before, after = of(skill), of(skill + more)
    assert after[0] <= before[0] * (1 + 1e-9)
    assert after[1] >= before[1] - 1e-9


def test_the_null_that_passes_everything_and_the_one_that_draws() -> None:
    nodes = [dict(node) for node in LINE]
    del nodes[1]["classifier"]
    drawn = flow(system(nodes))  # ratio 10 at random
    # at random, precision and recall are the share of interesting samples and 1 / ratio
    assert (drawn.precision, drawn.recall) == (pytest.approx(0.1), pytest.approx(0.1))
    nodes[1]["ratio"] = 1
    every = flow(system(nodes, interesting=0.1), interesting=0.1)
    assert (every.recall, every.precision, every.tn) == (1.0, pytest.approx(0.1), 0.0)


def test_pieces_are_assembled_and_streams_interleaved() -> None:
    nodes = [
        {"name": "a", "to": "join", "rate": 10, "size": 100}, {"name": "b", "to": "join", "rate": 10, "size": 50},
        {"name": "join", "size": 5, "complexity": [0.0, 1.0]},
    ]  # fmt: skip
    whole = flow(system(nodes, interesting=0.3), interesting=0.3)
    assert (whole.nodes[-1].rate, whole.nodes[-1].size) == (10.0, 155.0)
    assert whole.tn + whole.fn + whole.fp + whole.tp == pytest.approx(10.0)
    nodes[2]["merge"] = "interleave"
    apart = flow(system(nodes, interesting=0.3), interesting=0.3)
    assert (apart.nodes[-1].rate, apart.nodes[-1].size) == (20.0, 80.0)
    # operations grow with the square: the mean of both streams, not that of a mean sample
    assert apart.nodes[-1].ops == pytest.approx((105**2 + 55**2) / 2)


def test_what_cannot_be_assembled_is_refused() -> None:
    nodes: list[dict[str, Any]] = [
        {"name": "a", "to": "join", "rate": 10, "size": 1}, {"name": "b", "to": "join", "rate": 20, "size": 1},
        {"name": "join"},
    ]  # fmt: skip
    with pytest.raises(SpecError, match=r"join\.merge: assembles pieces that come at different rates"):
        flow(system(nodes), interesting=0.1)
    nodes[0] |= {"rate": 20, "ratio": 2}
    nodes[1] |= {"rate": 20, "ratio": 2}
    with pytest.raises(SpecError, match="pieces of which some were rejected"):
        flow(system(nodes), interesting=0.1)


def test_what_is_lost_counts_as_rejected() -> None:
    found = flow(system(LINE), lost={1: 0.25})
    assert found.tn + found.fn + found.fp + found.tp == pytest.approx(100.0)
    assert found.stored == pytest.approx(7.5)
    assert found.nodes[1].op_power == pytest.approx(0.75 * flow(system(LINE)).nodes[1].op_power)


def test_operations_are_a_polynomial_without_constant() -> None:
    assert operations((3.0, 0.5, 2.0), 4.0) == pytest.approx(3 * 4 + 0.5 * 16 + 2 * 64)
    assert operations((1.0,), 7.0) == 7.0
