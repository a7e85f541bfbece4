"""Where cold starts come from, found again in logs that were made with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from fleetcast.base.rng import rng
from fleetcast.mining.coldstart import findings, grouped, regular
from fleetcast.scenario.workload.invocations.coldstarts import ColdStarts
from fleetcast.scenario.workload.invocations.trace import COMPONENTS


def log(shares, *, functions=30, each=40, period=0.0, useful=None, seed=0):
    """Starts of regions whose parts have the given shares on average; gaps at random, or equal."""
    draw = rng(seed, "synthetic", "tests", "coldstart")
    regions, n = len(shares), functions * each
    region = np.repeat(np.arange(regions), n)
    total = np.exp(draw.standard_normal(regions * n))
    parts = np.concatenate([draw.dirichlet(8 * np.asarray(share), n) for share in shares]) * total[:, None]
    function = np.tile(np.repeat(np.arange(functions), each), regions) + functions * region
    gaps = (
        np.full((regions * functions, each), period) if period else draw.exponential(300.0, (regions * functions, each))
    )
    zeros = np.zeros(regions * functions, np.int32)
    return ColdStarts(
        time=np.cumsum(gaps, axis=1).ravel(), total=total, parts=parts, pod=(), function=function.astype(np.int32),
        functions=tuple(f"f{i}" for i in range(regions * functions)), region=region.astype(np.int32),
        regions=tuple(f"R{i + 1}" for i in range(regions)), pool=np.zeros(len(total), np.int32), pools=("p",),
        runtime=zeros, runtimes=("Java8",), trigger=zeros, triggers=("TIMER-A",),
        useful=np.full(len(total), np.nan) if useful is None else useful * total,
    )  # fmt: skip


SHARES = [(0.1, 0.1, 0.45, 0.35), (0.5, 0.1, 0.1, 0.3), (0.1, 0.3, 0.2, 0.4), (0.1, 0.5, 0.2, 0.2)]


@pytest.mark.parametrize("seed", range(5))
def test_the_dominant_part_of_every_region_is_found(seed):
    made = log(SHARES, seed=seed)
    found = [f for f in findings(made) if f.kind == "dominant part"]
    got = {f.who: f.values["component"] for f in found}
    assert got == {f"region R{i + 1}": COMPONENTS[int(np.argmax(share))] for i, share in enumerate(SHARES)}
    assert all(f.sure >= 0.9 and len(f.evidence) >= 3 for f in found)


def test_where_two_parts_are_equal_nothing_is_said_for_sure():
    quiet = 0
    for seed in range(10):
        made = log([(0.25, 0.25, 0.25, 0.25)], functions=10, each=10, seed=seed)
        quiet += not [f for f in findings(made, sure=0.95) if f.kind == "dominant part"]
    assert quiet >= 7


def test_starts_at_equal_gaps_could_be_foreseen_and_random_ones_not():
    assert regular(log(SHARES[:1], period=600.0)).all()
    assert not regular(log(SHARES[:1])).any()
    assert [f.values["share"] for f in findings(log(SHARES[:1], period=600.0)) if f.kind == "foreseeable"] == [1.0]
    assert not [f for f in findings(log(SHARES[:1])) if f.kind == "foreseeable"]


def test_means_are_those_of_the_rows():
    made = log(SHARES)
    for group in grouped(made, made.region, made.regions):
        mine = made.region == made.regions.index(group.name)
        assert group.starts == mine.sum() and group.mean == pytest.approx(made.total[mine].mean())
        assert group.parts == pytest.approx(made.parts[mine].mean(axis=0))
        assert group.parts.sum() == pytest.approx(group.mean)


def test_pods_that_do_not_repay_their_start_are_named():
    made = log(SHARES[:1], useful=0.5)
    low = [f for f in findings(made) if f.kind == "low utility"]
    assert [f.who for f in low] == ["runtime Java8"] and low[0].values["below_1"] == 1.0
    assert not [f for f in findings(log(SHARES[:1], useful=5.0)) if f.kind == "low utility"]
