"""Packaged traces, synthetic arrivals and lengths, and what a scenario makes of them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import convert
from fleetcast.scenario.workload.arrivals import arrival_times, generate, lengths, traffic
from fleetcast.scenario.workload.readers import read_file
from fleetcast.scenario.workload.requests import requests
from fleetcast.scenario.workload.serving import Arrivals, Lengths, Serving
from fleetcast.scenario.workload.traces import cases, read, traces


def serving(**table: object) -> Serving:
    return convert({"model": "llama-3.1-70b", **table}, Serving, "workload")


FIXED = {"kind": "fixed", "prompt": 100, "output": 10}


def test_packaged_traces_all_load_and_name_source_and_licence() -> None:
    for name, trace in traces().items():
        found = read(name)
        assert len(found) > 0
        assert found.timed
        assert trace.source
        assert trace.licence in ("CC-BY-4.0", "MIT")
    assert len(cases()) == 20
    assert {c.id for c in cases()} < set(traces())


def test_packaged_azure_traces_are_the_published_ones() -> None:
    conv, code = read("azure-conv-2023"), read("azure-code-2023")
    assert (len(conv), int(conv.prompt.sum()), int(conv.output.sum())) == (19366, 22361870, 4088665)
    assert (len(code), int(code.prompt.sum()), int(code.output.sum())) == (8819, 18059974, 245896)
    assert conv.duration == pytest.approx(3501.721937)


def test_packaged_azure_traces_equal_the_source_files(measured: Path) -> None:
    for kind in ("conv", "code"):
        source = read_file(measured / "serving/azure" / f"AzureLLMInferenceTrace_{kind}.csv.gz")
        assert source.digest() == read(f"azure-{kind}-2023").digest()


def test_measured_cases_equal_the_source_files(measured: Path) -> None:
    folder = measured / "serving/vllm_8xh100"
    with (folder / "measured.csv").open() as file:
        rows = {r["case"]: r for r in csv.DictReader(file)}
    for case in cases():
        row = rows[case.id.partition("/")[2]]
        assert (case.ttft, case.tpot) == (float(row["ttft_mean_s"]), float(row["tpot_mean_s"]))
        assert read(case.id).digest() == read_file(folder / row["trace"]).digest()
        assert len(read(case.id)) == case.requests


def test_unknown_trace_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="Did you mean 'azure-conv-2023'"):
        read("azure-conv-2032")


def test_relative_paths_start_at_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,5,5\n")
    assert len(traffic(serving(trace="t.csv"), folder=tmp_path)) == 1


def test_speed_up_divides_times_and_nothing_else() -> None:
    slow, fast = read("azure-conv-2023"), traffic(serving(trace="azure-conv-2023", speed_up=2.0))
    assert np.array_equal(fast.arrival, slow.arrival / 2)
    assert np.array_equal(fast.prompt, slow.prompt)
    assert fast.rate == pytest.approx(2 * slow.rate)


def test_first_requests_of_a_trace() -> None:
    part = traffic(serving(trace="azure-conv-2023", requests=100))
    assert len(part) == 100
    assert np.array_equal(part.prompt, read("azure-conv-2023").prompt[:100])


@pytest.mark.parametrize(
    ("kind", "extra", "cv"),
    [
        ("poisson", {}, 1.0),
        ("uniform", {}, 0.0),
        ("gamma", {"cv": 3.0}, 3.0),
        ("gamma", {"cv": 0.5}, 0.5),
    ],
)
def test_gaps_have_the_rate_and_variation_asked_for(kind: str, extra: dict[str, float], cv: float) -> None:
    spec = convert({"kind": kind, "rate": "4 /s", **extra}, Arrivals)
    gaps = np.diff(arrival_times(spec, 200_000, seed=1))
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=0.05 * max(cv, 0.01))


@given(
    mean=st.floats(2, 20_000),
    ratio=st.floats(1.05, 2.27),
)
def test_lognormal_has_the_mean_and_p90_asked_for(mean: float, ratio: float) -> None:
    from fleetcast.scenario.workload.arrivals import _Z90, _sigma

    sigma = _sigma(mean, mean * ratio, "p")
    mu = np.log(mean) - sigma**2 / 2
    assert np.exp(mu + _Z90 * sigma) == pytest.approx(mean * ratio, rel=1e-6)


def test_lognormal_lengths_as_drawn() -> None:
    spec = Lengths(kind="lognormal", prompt=1000, output=200, prompt_p90=2000, output_p90=300)
    prompt, output = lengths(spec, 200_000, seed=2)
    assert prompt.mean() == pytest.approx(1000, rel=0.02)
    assert np.percentile(prompt, 90) == pytest.approx(2000, rel=0.02)
    assert output.mean() == pytest.approx(200, rel=0.02)
    assert np.percentile(output, 90) == pytest.approx(300, rel=0.02)
    assert abs(np.corrcoef(prompt, output)[0, 1]) < 0.02


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    table = {
        "arrivals": {"kind": "gamma", "rate": 4, "requests": 500},
        "lengths": {
            "kind": "lognormal",
            "prompt": 100,
            "output": 50,
            "prompt_p90": 200,
            "output_p90": 90,
        },
    }
    first, second, other = (traffic(serving(**table), seed=s) for s in (7, 7, 8))
    assert first.digest() == second.digest() != other.digest()


def test_closed_loop_keeps_users_and_needs_no_times() -> None:
    closed = {"kind": "closed", "concurrency": 16, "requests": 40}
    found = traffic(serving(arrivals=closed, lengths=FIXED))
    assert (found.concurrency, len(found), found.arrival.max()) == (16, 40, 0)
    on_trace = traffic(serving(arrivals={"kind": "closed", "concurrency": 4}, trace="azure-code-2023"))
    assert (on_trace.concurrency, len(on_trace)) == (4, 8819)


def test_synthetic_times_keep_a_traces_lengths_and_a_short_trace_starts_over() -> None:
    name = "vllm-8xh100/vllm_llama_creation_05_8TP"
    trace = read(name)
    more = len(trace) + 3
    found = traffic(serving(trace=name, arrivals={"kind": "poisson", "rate": 2, "requests": more}))
    assert np.array_equal(found.prompt[: len(trace)], trace.prompt)
    assert np.array_equal(found.prompt[len(trace) :], trace.prompt[:3])
    assert "start over" in found.notes[-1]
    assert not np.array_equal(found.arrival[: len(trace)], trace.arrival)


def test_synthetic_lengths_keep_a_traces_times() -> None:
    found = traffic(serving(trace="azure-code-2023", lengths=FIXED))
    assert np.array_equal(found.arrival, read("azure-code-2023").arrival)
    assert set(found.prompt.tolist()) == {100}


def test_a_trace_without_times_needs_arrivals(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens\n10,2\n20,3\n")
    with pytest.raises(SpecError, match=r"has no arrival times .* arrivals = "):
        traffic(serving(trace=str(path)))
    found = traffic(serving(trace=str(path), arrivals={"kind": "uniform", "rate": "2 /s"}))
    assert found.timed
    assert found.arrival.tolist() == [0.0, 0.5]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "workload.trace: is missing"),
        ({"arrivals": {"kind": "poisson", "rate": 1, "requests": 5}}, "or else workload.lengths"),
        (
            {"arrivals": {"kind": "poisson", "rate": 1}, "lengths": FIXED},
            "workload.arrivals.requests",
        ),
        (
            {"arrivals": {"kind": "poison", "rate": 1, "requests": 5}, "lengths": FIXED},
            "Did you mean 'poisson'",
        ),
        (
            {"arrivals": {"kind": "poisson", "requests": 5}, "lengths": FIXED},
            "rate: is needed by kind = 'poisson'",
        ),
        (
            {"arrivals": {"kind": "poisson", "rate": 0, "requests": 5}, "lengths": FIXED},
            "arrivals.rate",
        ),
        (
            {"arrivals": {"kind": "closed", "requests": 5}, "lengths": FIXED},
            "concurrency: is needed",
        ),
        (
            {
                "arrivals": {"kind": "closed", "concurrency": 2, "rate": 3, "requests": 5},
                "lengths": FIXED,
            },
            "rate: contradicts kind = 'closed'",
        ),
        (
            {
                "arrivals": {"kind": "gamma", "concurrency": 2, "rate": 3, "requests": 5},
                "lengths": FIXED,
            },
            "concurrency: contradicts kind = 'gamma'",
        ),
        (
            {
                "trace": "azure-code-2023",
                "speed_up": 2.0,
                "arrivals": {"kind": "poisson", "rate": 3},
            },
            "workload.speed_up: contradicts workload.arrivals",
        ),
        ({"trace": "azure-code-2023", "lengths": FIXED | {"kind": "fixd"}}, "Did you mean 'fixed'"),
        (
            {"trace": "azure-code-2023", "lengths": FIXED | {"prompt_p90": 3}},
            "contradicts kind = 'fixed'",
        ),
        (
            {"trace": "azure-code-2023", "lengths": FIXED | {"kind": "lognormal"}},
            "prompt_p90: is needed",
        ),
        (
            {
                "trace": "azure-code-2023",
                "lengths": FIXED | {"kind": "lognormal", "prompt_p90": 300},
            },
            "fits no lognormal of that mean (got 300.0); 100 (the mean) to 227.3",
        ),
        (
            {
                "trace": "azure-code-2023",
                "lengths": FIXED | {"kind": "lognormal", "prompt_p90": 50},
            },
            "fits no lognormal",
        ),
        ({"trace": "azure-code-2023", "lengths": FIXED | {"prompt": 1e12}}, "is too long"),
    ],
)
def test_missing_and_contradictory_parts_are_named(table: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        traffic(serving(**table))
    assert message in str(caught.value)


def test_generate_says_what_it_is() -> None:
    arrivals = Arrivals(kind="poisson", rate=4.0, requests=100)
    found = generate(arrivals, Lengths(kind="fixed", prompt=8, output=4))
    assert "synthetic poisson" in repr(found)


def test_slice_digest_and_summary() -> None:
    found = requests([0, 1, 2], [10, 20, 30], [1, 2, 3], session=[0, 0, 1], prefix=[0, 5, 0])
    part = found.slice(1)
    assert part.arrival.tolist() == [1, 2]
    assert part.session is not None
    assert part.session.tolist() == [0, 1]
    assert found.digest() != part.digest()
    assert found.digest() == found.slice().digest()
    assert found.digest() != requests([0, 1, 2], [10, 20, 30], [1, 2, 3]).digest()
    assert found.summary()["prompt_mean"] == 20
    with pytest.raises(ValueError, match="no requests"):
        found.slice(3)
    with pytest.raises(ValueError, match="above 0"):
        found.speed_up(0)


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values for 3 requests"):
        requests([0, 1, 2], [1, 2, 3], [1, 2])
    with pytest.raises(SpecError, match="holds no requests"):
        requests([], [], [])


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.integers(0, 10_000), st.integers(0, 10_000)),
        min_size=1,
        max_size=50,
    )
)
def test_sorting_conserves_requests(rows: list[tuple[float, int, int]]) -> None:
    found = requests(*zip(*rows, strict=True))
    assert (np.diff(found.arrival) >= 0).all()
    expected = sorted((a, max(p, 1), max(o, 1)) for a, p, o in rows)
    got = sorted(zip(found.arrival.tolist(), found.prompt.tolist(), found.output.tolist(), strict=True))
    assert got == expected
