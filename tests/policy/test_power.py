"""Power policies decide by their thresholds; nonsense is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import build
from fleetcast.policy import power


def walk(policy: Any, readings: list[float]) -> list[tuple[float, float]]:
    low = high = 1.0
    found = []
    for reading in readings:
        said = policy.cap(power.View(reading, low, high))
        low, high = said.low, said.high
        found.append((low, high))
    return found


def test_polca_takes_two_steps_and_gives_them_back_with_hysteresis() -> None:
    first, second, none = (0.904, 1.0), (0.787, 0.926), (1.0, 1.0)
    readings = [0.79, 0.81, 0.76, 0.90, 0.85, 0.83, 0.76, 0.74, 0.95, 0.70]
    wanted = [none, first, first, second, second, first, first, none, second, none]
    assert walk(power.Polca(), readings) == wanted


def test_one_threshold_spares_high_priority_and_cap_all_spares_nobody() -> None:
    readings = [0.88, 0.90, 0.85, 0.83]
    assert walk(power.OneThreshold(), readings) == [(1, 1), (0.787, 1), (0.787, 1), (1, 1)]
    assert walk(power.CapAll(), readings) == [(1, 1), (0.926, 0.926), (0.926, 0.926), (1, 1)]
    assert walk(power.Uncapped(), [2.0, 0.1]) == [(1, 1), (1, 1)]


def test_a_band_ends_at_the_thresholds() -> None:
    said = power.Polca().cap(power.View(0.81, 1.0, 1.0))
    assert (said.below, said.above) == (pytest.approx(0.75), 0.89)
    assert power.Uncapped().cap(power.View(0.5, 1.0, 1.0)).above == float("inf")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kind": "polca", "lower": 0.9, "upper": 0.8}, "lower threshold 0.9 is not below the upper 0.8"),
        ({"kind": "polca", "hysteresis": 0.85}, "hysteresis 0.85 is not below the lower threshold"),
        ({"kind": "polca", "low_first": 0.7, "low_second": 0.9}, "the second step must slow more"),
        ({"kind": "polca", "low_second": 0.904, "high_second": 1.0}, "slows nobody further"),
        ({"kind": "polca", "upper": 1.2}, "upper"),
        ({"kind": "one_threshold", "threshold": 0.05, "hysteresis": 0.05}, "never lift"),
        ({"kind": "cap_all", "threshold": 0.05, "hysteresis": 0.05}, "never lift"),
        ({"kind": "cap_all", "clock": 0.0}, "clock"),
        ({"kind": "polka"}, "did you mean 'polca'"),
    ],
)
def test_nonsense_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=r"plan\.power") as error:
        build(power, table, "plan.power")
    assert said.lower() in str(error.value).lower()
