"""Traces of invocations: published samples, what a generator promises, and files that say what cannot be."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import FleetcastError, SpecError
from fleetcast.policy.scale import Fixed
from fleetcast.scenario.workload.functions import PUBLISHED, Functions
from fleetcast.scenario.workload.invocations.azure import Beside, read_azure
from fleetcast.scenario.workload.invocations.coldstarts import read_cold_starts
from fleetcast.scenario.workload.invocations.generators import (
    COLD_DEVIATION,
    COLD_MEAN,
    COLD_MU,
    COLD_SIGMA,
    GAP_DEVIATION,
    GAP_MEAN,
    GAP_SCALE,
    GAP_SHAPE,
    Synthetic,
)
from fleetcast.sim.functions import kernel
from fleetcast.sim.functions.world import play

SAMPLES = Path(os.environ.get("FLEETCAST_DATA", "")) / "scheduling/faas"
with_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no folder of published samples in FLEETCAST_DATA")


@with_samples
def test_the_sample_of_2021_is_read_whole():
    trace = read_azure(SAMPLES / "azure2021_sample/Azure2021_200.csv")
    assert len(trace) == 199
    assert (trace.time >= 0).all() and trace.duration.sum() == pytest.approx(
        sum(float(line.split(",")[3]) for line in
            (SAMPLES / "azure2021_sample/Azure2021_200.csv").read_text().splitlines()[1:])
    )  # fmt: skip
    assert play(trace, Fixed()).cold >= len(trace.names)


@with_samples
def test_the_sample_of_2019_keeps_counts_durations_and_memory():
    folder = SAMPLES / "azure2019_sample"
    trace = read_azure(folder / "invocations.csv", beside=Beside("durations.csv", "memory.csv"))
    rows = [line.split(",") for line in (folder / "invocations.csv").read_text().splitlines()[1:]]
    assert len(trace) == sum(int(cell) for row in rows for cell in row[4:])
    first = trace.arrivals(0)
    assert np.bincount((first // 60).astype(int), minlength=1440).tolist() == [int(cell) for cell in rows[0][4:]]
    assert trace.duration.min() >= 0.099 and trace.memory[0] == 120e6
    assert trace.asynchronous.all() and "timer" in trace.triggers


def test_a_trace_of_2019_without_durations_says_what_is_missing(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("HashFunction,Trigger,1,2\nf,http,1,2\n")
    with pytest.raises(SpecError, match=r"workload.durations: is missing.*durations.csv"):
        read_azure(file)


BAD = {
    "": "is empty", "a,b\n1,2\n": "columns of no known trace", "app,func,end_timestamp,duration\n": "has no rows",
    "app,func,end_timestamp,duration\na,f,1\n": "row 1: is short",
    "app,func,end_timestamp,duration\na,f,x,1\n": "row 1, end_timestamp: is no number",
    "app,func,end_timestamp,duration\na,f,5,-1\n": "row 1, duration: is no number",
    "app,func,end_timestamp,duration\na,f,nan,1\n": "row 1, end_timestamp: is no number",
    "HashFunction,1\nf,1\nf,2\n": "names a function twice",
    "HashFunction,1\nf,1.5\n": "counts no whole invocations",
    "HashFunction,1\nf,1e12\n": "has too many invocations",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_bad_traces_are_refused_by_row_and_column(text, tmp_path):
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(SpecError, match=BAD[text]):
        read_azure(file)


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_no_bytes_break_the_readers(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("fuzz") / "t.csv.gz"
    file.write_bytes(data)
    for read in (read_azure, read_cold_starts):
        with pytest.raises(FleetcastError):
            read(file)


CELL = st.sampled_from(["", "0", "1", "-1", "nan", "inf", "1e400", "f", '"', "é", " 2 ", "0.5"])


@given(st.lists(st.lists(CELL, min_size=2, max_size=5), max_size=6), st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_cells_break_the_reader_of_2021(tmp_path_factory, rows, packed):
    text = "app,func,end_timestamp,duration\n" + "\n".join(",".join(row) for row in rows)
    file = tmp_path_factory.mktemp("fuzz") / "t.csv"
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    try:
        trace = read_azure(file)
    except SpecError:
        return
    assert len(trace) == len([row for row in rows if any(cell.strip() for cell in row) or len(row) > 1])
    assert (trace.time >= 0).all() and play(trace, Fixed()).cold <= len(trace)


def test_the_published_laws_have_the_published_moments():
    assert np.exp(COLD_MU + COLD_SIGMA**2 / 2) == pytest.approx(COLD_MEAN, rel=2e-3)
    assert np.sqrt(np.expm1(COLD_SIGMA**2)) * COLD_MEAN == pytest.approx(COLD_DEVIATION, rel=2e-3)
    from math import gamma

    mean = GAP_SCALE * gamma(1 + 1 / GAP_SHAPE)
    assert mean == pytest.approx(GAP_MEAN, rel=0.02)
    assert np.sqrt(GAP_SCALE**2 * gamma(1 + 2 / GAP_SHAPE) - mean**2) == pytest.approx(GAP_DEVIATION, rel=0.02)


def test_the_generator_agrees_with_the_published_month():
    from benchmarks.functions import gaps, ks, lognormal, weibull

    runs = [play(Synthetic().invocations(seed), Fixed()) for seed in range(3)]
    assert ks(np.concatenate([run.trace.total[run.row] for run in runs]), lognormal) < 0.05
    assert ks(np.concatenate([gaps(run) for run in runs]), weibull) < 0.05
    utility = np.concatenate([run.utility for run in runs])
    assert 0.15 <= (utility < 1).mean() <= 0.25
    assert 3 <= np.median(utility) <= 5
    for run in runs:
        cold = run.trace.trigger[run.trace.function[run.state == kernel.COLD]]
        assert 0.25 <= (cold == 0).mean() <= 0.35
        assert run.trace.asynchronous.mean() == pytest.approx(0.6, abs=0.01)
        assert (run.trace.trigger == 0).mean() == pytest.approx(0.6, abs=0.01)


def test_equal_seeds_give_equal_traces_and_others_do_not():
    made = Synthetic(functions=30, regions=2, hours=0.5)
    assert (made.invocations(1).time == made.invocations(1).time).all()
    assert len(made.invocations(1)) != len(made.invocations(2))


def test_workflows_follow_their_callers():
    trace = Synthetic(functions=100, regions=2, hours=1.0).invocations(0)
    called = np.flatnonzero(trace.caller >= 0)
    assert len(called) and all(trace.region[f] == trace.region[trace.caller[f]] for f in called)
    for f in called[:4]:
        heard = trace.arrivals(int(trace.caller[f]))
        assert all((heard < at).any() for at in trace.arrivals(int(f)))


@pytest.mark.parametrize(
    ("settings_", "said"),
    [({"functions": 3}, "functions"), ({"regions": 9}, "regions"), ({"hours": 0}, "hours"), ({"timers": 1.0}, "timers"),
     ({"asynchronous": 2}, "asynchronous"), ({"rate": 0}, "rate")],
)  # fmt: skip
def test_generators_refuse_what_cannot_be(settings_, said):
    with pytest.raises(ValueError, match=said):
        Synthetic(**settings_)
    with pytest.raises(SpecError, match=said):
        Functions(invocations={"kind": "synthetic"} | settings_).read()


def test_starts_come_from_laws_or_from_a_log(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("app,func,end_timestamp,duration\n" + "".join(f"a,f{i},{i},0.5\n" for i in range(200)))
    plain = Functions(invocations="t.csv").read(0, tmp_path)
    assert plain.total.mean() == pytest.approx(3.24, rel=0.15)
    laws = (PUBLISHED.pod_allocation, PUBLISHED.code, PUBLISHED.dependencies, PUBLISHED.scheduling)
    assert sum(law.mean for law in laws) == pytest.approx(COLD_MEAN)
    log = tmp_path / "log.csv"
    log.write_text(
        "time,funcName,userID,podID,podAllocationCost,deployCodeCost,deployDependencyCost,schedulingCost\n"
        "1,1,2,pool22-300-128-1,0.5,0.25,0,1\n"
    )
    logged = Functions(invocations="t.csv", start="log.csv").read(0, tmp_path)
    assert (logged.starts == [0.5, 0.25, 0.0, 1.0]).all()


def test_a_published_example_row_is_read(tmp_path):
    """The row that the trace's description gives as an example."""
    file = tmp_path / "R1.csv"
    file.write_text(
        "day,time,clusterName,funcName,userID,requestID,totalCost_cold_start,podAllocationCost,deployCodeCost,"
        "deployDependencyCost,schedulingCost,podID\n"
        "0,51937.425,1,10,134,82f1aa192e8ce27,2.239314,0.027161815,0.045,0.454,1.713152185,"
        "pool24-600-512-0000577863\n"
    )
    log = read_cold_starts(file)
    assert log.functions == ("10---134---pool24-600-512",) and log.total[0] == 2.239314
    assert log.parts[0].sum() == pytest.approx(2.239314)


def test_a_log_without_a_column_says_which(tmp_path):
    file = tmp_path / "R1.csv"
    file.write_text("time,funcName,podID,podAllocationCost,deployCodeCost,schedulingCost\n1,1,p,1,1,1\n")
    with pytest.raises(SpecError, match="column deployDependencyCost: is missing"):
        read_cold_starts(file)
