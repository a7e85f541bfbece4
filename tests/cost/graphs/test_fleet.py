"""A fleet under a graph: seconds from peaks, records and tables, and who shares which channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import convert
from fleetcast.cost.graphs.fleet import rates, workers_of
from fleetcast.cost.graphs.platform import Platform
from fleetcast.scenario.fleet.tree import Fleet, Tree, resolve
from fleetcast.scenario.workload.graphs import Task, TaskGraph


def tree(**table: Any) -> Tree:
    return resolve(convert(table, Fleet, "fleet"))


NODE = {"groups": [{"name": "node", "devices": "1x xeon-8480 + 2x a100-40g-pcie", "link": "pcie-4"}]}
TILES = TaskGraph.of([Task(name="g", work=1e9, kernel="GEMM"), Task(name="p", work=1e9, kernel="POTRF")])
STEPS = TaskGraph.of([Task(name="a", work=6, kernel="k"), Task(name="b", work=2, kernel="l")], unit="s")


def channels(found: Platform, a: str, b: str) -> set[str]:
    i, j = found.workers.index(a), found.workers.index(b)
    return {found.ports[c] for c in found.channels[i, j] if c >= 0}


def test_seconds_are_work_over_the_share_of_the_peak_that_a_kernel_reaches() -> None:
    found = workers_of(TILES, tree(**NODE))
    cpu, gpu = found.workers.index("node/xeon-8480"), found.workers.index("node/a100-40g-pcie[1]")
    assert found.seconds[found.kind[cpu]].tolist() == pytest.approx([1e9 / (7.17e12 * 0.85), 1e9 / (7.17e12 * 0.65)])
    assert found.seconds[found.kind[gpu]].tolist() == pytest.approx([1e9 / (19.5e12 * 0.80), 1e9 / (19.5e12 * 0.0365)])
    assert found.idle[gpu] == 45.0
    assert found.busy[gpu] == 250.0


def test_what_memory_binds_takes_its_bytes_and_not_its_flop() -> None:
    heat = TaskGraph.of([Task(name="h", work=6e9, kernel="STENCIL")])
    found = workers_of(heat, tree(devices="1x a100-40g-sxm"))
    assert found.seconds[0, 0] == pytest.approx(8e9 / (1.555e12 * 0.7))
    assert rates()["STENCIL"].intensity == 0.75


def test_a_device_cut_in_parts_shares_its_memory_speed_and_power() -> None:
    whole, cut = workers_of(TILES, tree(**NODE)), workers_of(TILES, tree(**NODE), parts={"xeon-8480": 4})
    assert cut.workers[:4] == tuple(f"node/xeon-8480.{i}" for i in range(4))
    assert cut.node.tolist() == [0, 0, 0, 0, 1, 2]
    assert cut.seconds[cut.kind[0]].tolist() == (4 * whole.seconds[whole.kind[0]]).tolist()
    assert (cut.rate[0, 1], cut.latency[0, 1], cut.channels[0, 1].tolist()) == (np.inf, 0.0, [-1, -1])
    assert cut.busy[:4].sum() == pytest.approx(350.0)


def test_records_are_scaled_by_speeds_and_tables_stand_for_themselves() -> None:
    fleet = tree(groups=[{"name": "slow", "devices": "1x raspberry-pi-5"}, {"name": "desk", "devices": "1x rtx-4090"}])
    plain = workers_of(STEPS, fleet)
    assert plain.seconds.tolist() == [[6.0, 2.0]] * 2  # nobody says who is quicker
    assert plain.kinds == ("raspberry-pi-5", "rtx-4090")
    told = workers_of(STEPS, fleet, speeds={"rtx-4090": 4, "slow": 0.5})
    assert told.seconds[told.kind].tolist() == [[12.0, 4.0], [1.5, 0.5]]
    table = workers_of(STEPS, fleet, seconds={"k": {"desk": 7.0}}, speeds={"slow": 2})
    assert table.seconds[table.kind].tolist() == [[np.inf, 1.0], [7.0, 2.0]]


def test_a_gpu_has_ports_of_each_link_and_the_host_is_as_wide_as_all() -> None:
    found = workers_of(TILES, tree(**NODE))
    host, one, two = found.workers
    assert channels(found, host, one) == {f"{one} pcie-4 in"}
    assert channels(found, one, host) == {f"{one} pcie-4 out"}
    assert channels(found, one, two) == {f"{one} pcie-4 out", f"{two} pcie-4 in"}
    linked = workers_of(TILES, tree(devices="2x h100-sxm + 1x xeon-8480", network="pcie-5"))
    assert channels(linked, *linked.workers[:2]) == {
        f"{linked.workers[0]} nvlink-4 out",
        f"{linked.workers[1]} nvlink-4 in",
    }


def test_users_of_the_air_share_it() -> None:
    fleet = tree(
        groups=[{"name": "phone", "devices": "2x a17-pro"}, {"name": "desk", "devices": "1x rtx-4090"}],
        network="wifi-6",
    )
    found = workers_of(STEPS, fleet)
    assert channels(found, "phone[0]", "desk") == channels(found, "desk", "phone[1]") == {"wifi-6, shared"}
    up = tree(
        groups=[{"name": "phone", "devices": "1x a17-pro"}, {"name": "desk", "devices": "1x rtx-4090"}], network="4g"
    )
    way = workers_of(STEPS, up)
    assert way.rate[0, 1] < way.rate[1, 0], "the way up is the slower one"


@pytest.mark.parametrize(("given", "said"), [
    ({"speeds": {"h100": 2}}, r"workload.speeds.h100: is neither a device nor a group"),
    ({"parts": {"node": 2}}, r"plan.workers.node: is neither"),
    ({"seconds": {"GEM": {"xeon-8480": 1}}}, r"workload.seconds.GEM: is no kernel of the graph .* Did you mean 'GEMM'"),
    ({"seconds": {"GEMM": {"xeon": 1}}}, r"workload.seconds.GEMM.xeon: is neither"),
    ({"home": "disk"}, r"workload.home: is not a group"), ({"parts": {"xeon-8480": 1024}}, "has too many workers"),
])  # fmt: skip
def test_names_that_nothing_has_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        workers_of(TILES, tree(**NODE), **given)


def test_a_format_that_a_device_does_not_multiply_is_refused() -> None:
    with pytest.raises(SpecError, match=r"workload\.dtype: is no format that xeon-8480 multiplies \(got .fp64.\)"):
        workers_of(TILES, tree(**NODE), dtype="fp64")
