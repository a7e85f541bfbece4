"""Intervals: around the forecast, wider where less is known, never for time the server spends waiting."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.cost.intervals import Z80, features, half_width, intervals, residuals
from fleetcast.scenario.plan import Plan, Pool

METRICS = {
    "ttft": {"mean": 0.1, "p99": 0.4}, "tpot": {"mean": 0.01, "p99": 0.02}, "e2e": {"mean": 1.1, "p99": 2.0},
    "throughput": 1000.0, "energy": 5.0, "cost": 2.0, "carbon": 3.0, "requests": 100, "makespan": 10.0,
    "per_million_output_tokens": {"energy": 5.0, "cost": 2.0, "carbon": 3.0},
}  # fmt: skip


def cost(experts: float = 0.0, spread: float = 0.1, doubt: tuple[float, float] = (0.0, 0.0)) -> SimpleNamespace:
    grid = np.ones(32)
    return SimpleNamespace(tables={"experts": experts * grid, "dense": grid}, spread=spread, doubt=doubt)


def width(pair: tuple[float, float]) -> float:
    return float(np.log(pair[1] / pair[0]))


def plan(engine: str) -> Plan:
    return Plan(pools=(Pool(engine=engine, replicas=1),))


def test_every_forecast_lies_inside() -> None:
    found = intervals(METRICS, [cost()], plan("vllm-1"), ["h100-sxm"])
    for path, (low, high) in found.items():
        head, _, tail = path.partition(".")
        value = METRICS[head][tail] if tail else METRICS[head]
        assert low < value < high


@pytest.mark.parametrize(
    ("engine", "what", "device"),
    [("vllm-0.12.0", cost(experts=3.0), "h100-sxm"), ("vllm-1", cost(spread=0.6), "h100-sxm")],
)
def test_less_known_is_wider(engine: str, what: SimpleNamespace, device: str) -> None:
    plain = intervals(METRICS, [cost()], plan("vllm-1"), ["h100-sxm"])
    wide = intervals(METRICS, [what], plan(engine), [device])
    assert width(wide["tpot.mean"]) > width(plain["tpot.mean"])
    assert width(wide["throughput"]) > width(plain["throughput"])


def test_an_unmeasured_pair_is_noticed() -> None:
    assert features(METRICS, [cost()], ["vllm-1"], ["l40s"])["pair"] == 1.0
    assert features(METRICS, [cost()], ["vllm-1"], ["h200-sxm"])["pair"] == 0.0


def test_an_idle_server_s_throughput_is_its_traffic_s() -> None:
    busy, idle = (intervals(METRICS, [cost()], plan("vllm-1"), ["h200-sxm"], share) for share in (1.0, 0.1))
    assert width(idle["cost"]) == pytest.approx(0.1 * width(busy["cost"]))
    assert width(idle["energy"]) > width(idle["cost"])
    assert idle["tpot.mean"] == busy["tpot.mean"]


def test_weights_are_never_negative() -> None:
    for weights in residuals().values():
        assert half_width(weights, dict.fromkeys(weights, 1.0)) > 0
        assert all(w >= 0 for w in weights.values())


@given(first=st.floats(0.0, 0.5), rest=st.floats(0.0, 0.5), more=st.floats(0.0, 0.5))
def test_what_is_assumed_widens_and_never_shrinks(first: float, rest: float, more: float) -> None:
    plain, some, wide = (
        intervals(METRICS, [cost(), cost(doubt=doubt)], plan("vllm-1"), ["h100-sxm"])
        for doubt in ((0.0, 0.0), (first, rest), (first + more, rest + more))
    )
    for path, pair in plain.items():
        assert width(pair) <= width(some[path]) * (1 + 1e-12) and width(some[path]) <= width(wide[path]) * (1 + 1e-12)
    # independent: in squares, each of an 80 % interval
    for metric, deviation in (("ttft", first), ("tpot", rest)):
        halves = width(plain[f"{metric}.p99"]) / 2, Z80 * deviation
        assert width(some[f"{metric}.p99"]) / 2 == pytest.approx(math.hypot(*halves))
