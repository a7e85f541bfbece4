"""Scenarios of many jobs: what they read, and what they say of what they cannot."""

import pytest

import fleetcast
from fleetcast.base.errors import FleetcastError, SpecError
from fleetcast.scenario.workload import job_traces

PHILLY = "timestamp,duration,num_gpus,gpu_time,cluster\n"


def table(trace=None, plan=None, fleet="16x h100-sxm", **work):
    trace = trace or {"kind": "synthetic", "jobs": 40, "widest": 8}
    return {"fleet": {"devices": fleet}, "workload": {"kind": "jobs", "trace": trace, **work}, "plan": plan or {}}


def test_formats_are_told_from_columns(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(PHILLY + "2017-10-09 07:01:55,66.0,2,132.0,b\n2017-10-09 07:00:00,10,1,10,a\n")
    jobs = job_traces.read(file)
    assert jobs.arrival.tolist() == [0.0, 115.0] and jobs.demand.tolist() == [1, 2]
    assert [jobs.users[i] for i in jobs.user] == ["a", "b"]
    file.write_text("name,arrival,devices,seconds,user\nx,5,2,30,me\n")
    assert job_traces.read(file).names == ("x",)
    assert fleetcast.simulate(table(str(file))).metrics["jct"]["mean"] == 30.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PHILLY + "2017-10-09 07:01:55,None,1,1,a\n", "line 2, column duration: not a number.*None"),
        (PHILLY + "2017-10-09 07:01:55,-3,1,1,a\n", "column duration: out of range.*-3"),
        (PHILLY + "2017-10-09 07:01:55,5,0,1,a\n", "column num_gpus: out of range"),
        (PHILLY + "yesterday,5,1,1,a\n", "column timestamp: not a time.*yesterday"),
        (PHILLY + "2017-10-09 07:01:55,5\n", "line 2: ends before the last column"),
        (PHILLY, "no jobs"),
        ("arrival,devices\n1,1\n", "a column is missing.*seconds"),
        ("arrival,devices,seconds\n1,1.5,3\n", "devices: not a whole number"),
        ("arrival,devices,seconds\n1,1,0\n", "seconds: out of range"),
        ("arrival,devices,seconds,least\n1,1,2,3\n", "from least = 3"),
        ("when,gpus\n1,1\n", "the head of no format that is known.*Name its columns"),
    ],
)
def test_bad_traces_are_explained(tmp_path, text, said):
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(SpecError, match=said):
        job_traces.read(file)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (table("nowhere.csv"), "workload.trace: cannot be read"),
        (table({"kind": "synthetc"}), "Did you mean 'synthetic'"),
        (table(plan={"share": "fifoo"}), "Did you mean 'fifo'"),
        (table(plan={"share": 3}), "has no method share"),
        (table(plan={"share": ["las", "las"]}), r"plan.share\[1\]: is named before"),
        (table(plan={"share": []}), "names no policy"),
        (table(plan={"place": {"kind": "decimal:Decimal"}}), "has no method place"),
        (table(speeds={"kind": "gavl"}), "Did you mean 'gavel'"),
        (table(speeds={"kind": "linear", "factors": {"a100": 2}}), "is not a device of the fleet"),
        (table(window=[10, 5]), "ends before it begins"),
        (table(error=1.5), "workload.error"),
        (table({"kind": "synthetic", "jobs": 300}, fleet="8x h100-sxm"), "8 short"),
        (table() | {"slo": {"ttft_p99": "1 s"}}, "slo.ttft_p99"),
        (table() | {"objective": {"minimize": "makspan"}}, "Did you mean 'makespan'"),
        ({"fleet": {"devices": "1x h100-sxm"}, "workload": {"kind": "jobs"}}, "workload.trace: is missing"),
    ],
)
def test_nonsense_is_refused_with_the_next_step(given, said):
    with pytest.raises(FleetcastError, match=said):
        fleetcast.simulate(given)


def test_the_null_is_always_ranked_and_objects_are_policies():
    ranking = fleetcast.plan(table(plan={"share": ["las", "srtf"]}), top=None)
    assert {o.plan["share"]["kind"] for o in ranking.plans} == {"las", "srtf", "fifo"}

    class Any:
        def share(self, board):
            for job in board.jobs:
                if not board.keep(job):
                    board.grant(job, job.demand)

    found = fleetcast.simulate(table(plan={"share": Any()}))
    assert found.metrics["finished"] == 40 and found.plan["share"]["kind"].endswith("Any")


def test_switching_the_record_on_changes_nothing():
    off, on = (fleetcast.simulate("jobs", record=record) for record in (False, True))
    assert off.metrics == on.metrics and len(on.record) >= 400
    assert on.record.digest() == fleetcast.simulate("jobs", record=True).record.digest()
