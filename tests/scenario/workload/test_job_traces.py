"""Readers of others' traces of jobs: what they read and what they say of what they cannot."""

import gzip

import pytest

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.job_traces import easyscale, gavel, sia

LONG = "LM (batch size 5)\tpython3 x\tdir\t--steps\t1\t{steps}\t{devices}\t{weight}\t-1.0\t{arrival}"
SHORT = "A3C\tpython3 x\t-n\t1\t{steps}\t{arrival}\t{devices}"
EASY = "name,time,application,max_parallelism,batch_size,epochs,enable_heterogeneous_deterministic,preferred_gpu,\n"


def line(form, **values):
    return form.format(**{"steps": 100, "devices": 2, "weight": 1, "arrival": 0, **values})


def test_gavels_two_forms(tmp_path):
    file = tmp_path / "a.trace.gz"
    file.write_bytes(gzip.compress(f"{line(LONG, arrival=60, weight=3)}\n{line(SHORT, steps=7)}\n".encode()))
    jobs = gavel.read(file)
    assert [jobs.models[m] for m in jobs.model] == ["A3C", "LM (batch size 5)"]  # in order of arrival
    assert jobs.units.tolist() == [7.0, 100.0]
    assert jobs.weight.tolist() == [1.0, 3.0]
    assert jobs.demand.tolist() == jobs.least.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no jobs"),
        ("a b c", "separated by tabs"),
        (line(LONG, steps="None"), "line 1: total steps is no number.*None"),
        (line(LONG, devices=0), "devices is out of range"),
        (line(SHORT, arrival=-5), "arrival is out of range"),
        (line(SHORT, steps="nan"), "total steps is out of range"),
    ],
)
def test_bad_traces_of_gavel(tmp_path, text, words):
    file = tmp_path / "a.trace"
    file.write_text(text)
    with pytest.raises(SpecError, match=words):
        gavel.read(file)


def test_sias_workload(tmp_path):
    file = tmp_path / "w.csv"
    file.write_text("name,time,application,num_replicas,batch_size\nb-1,9,bert,4,12\na-0,3,ncf,1,8\n")
    jobs = sia.read(file)
    assert jobs.names == ("a-0", "b-1")
    assert jobs.demand.tolist() == [1, 4]
    assert jobs.least.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,time,application\na,1,b\n", "column is missing.*num_replicas"),
        ("name,time,application,num_replicas\na,x,b,1\n", "line 2, column time: not a number"),
        ("name,time,application,num_replicas\na,1,b,0\n", "column num_replicas: out of range"),
        ("name,time,application,num_replicas\na,1,b,99\n", "at most 64"),
        ("name,time,application,num_replicas\na,1\n", "line ends before"),
        ("name,time,application,num_replicas\n", "no jobs"),
    ],
)
def test_bad_workloads_of_sia(tmp_path, text, words):
    file = tmp_path / "w.csv"
    file.write_text(text)
    with pytest.raises(SpecError, match=words):
        sia.read(file)


def test_easyscales_trace(tmp_path):
    file = tmp_path / "e.csv"
    file.write_text(EASY + "a,9,bert,16,8,4,1,v100,0\nb,3,ncf,8,64,2,0,t4,0\na,5,bert,4,8,4,1,v100,0\n")
    jobs = easyscale.read(file)
    assert jobs.names == ("b", "a")  # of two lines of one name the later
    assert [jobs.models[m] for m in jobs.model] == ["ncf/64/8/t4/2", "bert/8/4/any/4"]
    apart = easyscale.read(file, mixed=False)
    assert apart.models[apart.model[1]] == "bert/8/4/v100/4"
    file.write_text(EASY + "a,9,bert,16,8,4,1,,0\n")
    with pytest.raises(SpecError, match="preferred_gpu: empty"):
        easyscale.read(file)
    file.write_text(EASY + "a,9,bert,0,8,4,1,v100,0\n")
    with pytest.raises(SpecError, match="max_parallelism: out of range"):
        easyscale.read(file)
