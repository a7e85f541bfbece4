"""Records of offloading are made of bills, whoever was trained."""

from __future__ import annotations

import numpy as np

from benchmarks.offloading import LEARNERS, RULES, Thrifty, _records, bills
from benchmarks.records import from_json, to_json
from fleetcast.learning.rl.apps import Apps
from fleetcast.policy.order.tasks import Local


def test_bills_become_records() -> None:
    draw = np.random.default_rng(0)
    rules = {name: draw.uniform(0.2, 0.6, (4, 4)) for name in RULES}
    learned = {name: [draw.uniform(0.1, 0.2, (4, 4)) for _ in range(3)] for name in LEARNERS}
    found = _records(rules, learned, {name: [60.0] * 3 for name in LEARNERS}, Apps(), "python -m benchmarks.offloading")
    assert from_json(to_json(found)) == found
    assert [record.holds for record in found[:3]] == [True, True, True]


def test_the_cheapest_place_costs_less_than_staying() -> None:
    thrifty, local = (bills(policy, Apps(), 5)[:, 3].mean() for policy in (Thrifty(), Local()))
    assert thrifty < 0.6 * local
