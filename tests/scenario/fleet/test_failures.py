"""Failures of a group: drawn or listed, merged per replica, and every nonsense named."""

import itertools
import math

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.scenario.fleet.catalog import devices
from fleetcast.scenario.fleet.failures import Downtime, Failures, Outages, outages
from fleetcast.scenario.fleet.signals import price
from fleetcast.scenario.fleet.tree import Fleet, FleetGroup, resolve


def process(units: int = 4, mtbf: float = 100.0, repair: float = 10.0) -> Outages:
    return Outages("g", 1, units, mtbf, repair, None, True)


def test_up_times_are_exponential_and_repairs_take_as_long_as_said() -> None:
    times = Downtime(process(), (0,), 3).within(0.0, 1e6)
    assert {round(b - a, 6) for a, b in times[:-1]} == {10.0}
    ups = np.diff([0.0, *(a for a, _ in times)])
    ups[1:] -= 10.0
    assert ups.mean() == pytest.approx(100, rel=4 / len(ups) ** 0.5)
    assert ups.std() == pytest.approx(100, rel=8 / len(ups) ** 0.5)
    assert (ups > 100).mean() == pytest.approx(math.exp(-1), abs=2 / len(ups) ** 0.5)


def test_a_replica_is_down_while_any_of_its_units_is() -> None:
    found = process()
    alone = [Downtime(found, (i,), 3).within(0.0, 5000.0) for i in range(3)]
    together = Downtime(found, (0, 1, 2), 3).within(0.0, 5000.0)
    grid = np.linspace(0.0, 5000.0, 200_001)[:-1] + 0.0101

    def down(intervals: list[tuple[float, float]]) -> np.ndarray:
        return np.any([(grid >= a) & (grid < b) for a, b in intervals], axis=0)

    np.testing.assert_array_equal(down(together), down(alone[0]) | down(alone[1]) | down(alone[2]))
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(together))


def test_what_was_drawn_does_not_depend_on_how_far_it_was_asked_for() -> None:
    slow, quick = Downtime(process(), (0, 2), 5), Downtime(process(), (0, 2), 5)
    for end in (1.0, 50.0, 400.0, 1000.0):
        slow.within(0.0, end)
    assert slow.within(100.0, 900.0) == quick.within(100.0, 900.0)
    assert slow.within(0.0, 900.0) != Downtime(process(), (0, 3), 5).within(0.0, 900.0)
    assert quick.within(5.0, 5.0) == [] and all(100 <= a < b <= 900 for a, b in quick.within(100.0, 900.0))


def test_listed_outages(tmp_path) -> None:
    (tmp_path / "o.csv").write_text("# a trace\nstart_h,end_h,node\n1,2,0\n0.5,0.75,0\n1.5,3,1\n")
    found = outages(Failures(outages="o.csv"), "g", 16, 8, tmp_path, "f")
    assert found.units == 2 and found.listed == {0: ((1800, 2700), (3600, 7200)), 1: ((5400, 10800),)}
    assert Downtime(found, (0, 1), 0).within(0.0, 1e9) == [(1800, 2700), (3600, 10800)]
    assert Downtime(found, (0, 1), 0).after(2) is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"), ("node,start_s,end_s\n", "has no rows"), ("node,from,to\n0,1,2\n", "has no such columns"),
        ("device,start_s,end_s\n0,1,2\n", "has no such columns"),
        ("node,start_s,end_s\n2,1,2\n", "row 1: names no node of the group (got '2'); 0 to 1"),
        ("node,start_s,end_s\n-1,1,2\n", "names no node"), ("node,start_s,end_s\nx,1,2\n", "names no node"),
        ("node,start_s,end_s\n0,5,2\n", "row 1: ends before it begins"),
        ("node,start_s,end_s\n0,5,5\n", "ends before it begins"),
        ("node,start_s,end_s\n0,-5,5\n", "begins before 0"), ("node,start_s,end_s\n0,1\n", "row 1: is short"),
        ("node,start_s,end_s\n0,1,late\n", "row 1: is not a quantity"),
        ("node,start_s,end_s\n0,1,inf\n", "row 1"), ("node,start_s,end_s\n0,nan,2\n", "row 1"),
        ("node,start_s,end_s\n0,0,10\n1,0,10\n0,9,12\n", "overlap (got '9 s to 12 s'); node 0 is still down until 10"),
    ],
)  # fmt: skip
def test_bad_outages_name_row_and_limit(tmp_path, text, part) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(SpecError) as caught:
        outages(Failures(outages="bad.csv"), "g", 16, 8, tmp_path, "fleet.failures")
    assert part in str(caught.value) and "bad.csv" in str(caught.value)


def test_a_group_says_its_own_price_and_failures() -> None:
    groups = (
        FleetGroup(name="kept", devices="8x h100-sxm"),
        FleetGroup(name="spot", devices="8x h100-sxm", price="spot", failures=Failures(mtbf=7200, repair=600)),
    )
    tree = resolve(Fleet(groups=groups, price={"h100-sxm": 3.0}))
    assert [g.price for g in tree.groups] == [3.0, 1.25] and tree.price == 8 * 4.25
    assert tree.groups[0].outages is None and tree.groups[1].outages is not None
    assert any("fails 2 h after its last repair" in note and "10 min" in note for note in tree.echo())
    both = resolve(Fleet(groups=groups, failures=Failures(mtbf=3600, repair=60, per="device")))
    assert [g.outages.unit for g in both.groups if g.outages] == [1, 8]


def test_every_spot_price_is_sourced_and_below_the_one_on_demand() -> None:
    sold = [d for d in devices().values() if d.spot_price is not None]
    assert len(sold) >= 3
    for device in sold:
        assert device.spot_source and device.spot_date and 0 < device.spot_price < device.price
        assert price("spot", device).values == (device.spot_price,)
        assert price("on-demand", device).values == (device.price,)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"), ("time_h,price\n", "has no rows"), ("time_h,intensity\n0,1\n", "no time and price columns"),
        ("time_h,price\n0,-1\n", "row 1: is negative"), ("time_h,price\n0,1\n0,1\n", "row 2: does not come after"),
        ("time_h,price\n0,400 g/kWh\n", "wrong unit"),
    ],
)  # fmt: skip
def test_bad_price_files(tmp_path, text, part) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(SpecError, match=part):
        resolve(Fleet(devices="1x l4", price={"l4": "bad.csv"}), tmp_path)


def test_a_price_that_changes_is_told(tmp_path) -> None:
    (tmp_path / "p.csv").write_text("time_h,price\n0,1\n12,3\n24,2\n")
    tree = resolve(Fleet(devices="2x l4", price={"l4": "p.csv"}), tmp_path)
    assert tree.groups[0].price == 2.0 and tree.price == 4.0
    said = "price of l4: 1.00 $/h to 3.00 $/h, 2.00 $/h on average over the 36 h of p.csv, which then begins again"
    assert said in tree.echo()
