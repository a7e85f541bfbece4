"""`fleetcast run` and `fleetcast compare`, as a user types them; the server is a toy in this process."""

import csv
import json
import os
import signal
import sys
import threading
import time

import pytest

import fleetcast
from benchmarks.toy_server import Toy, serving
from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.scenario.outcome import Outcome
from fleetcast.view.cli import main
from fleetcast.view.compare import compare, read_outcome, remarks

pytest.importorskip("httpx")

SCENARIO = """\
[fleet]
devices = "1x h100-sxm"

[workload]
model = "llama-3.1-8b"
arrivals = { kind = "uniform", rate = "50 /s", requests = 20 }
lengths = { kind = "fixed", prompt = 32, output = 4 }

[slo]
ttft_p99 = "10 s"

[plan]
replicas = 1
tensor_parallel = 1
pipeline_parallel = 1
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = tmp_path / "served.toml"
    path.write_text(SCENARIO)
    return path


def test_a_run_prints_and_writes_what_was_measured(file, tmp_path, capsys):
    with serving(Toy(first=0.02, gap=0.005)) as url:
        code = main(["run", str(file), "--url", url, "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert code == 0
    assert f"Measured: toy at {url}/v1" in said
    assert "20 requests answered, 80 tokens" in said
    assert "p99 10 s met" in said
    with (tmp_path / "out/requests.csv").open() as rows:
        found = list(csv.DictReader(rows))
    assert [row["status"] for row in found] == ["ok"] * 20
    assert all(0.02 <= float(row["ttft_s"]) <= float(row["e2e_s"]) for row in found)
    kept = read_outcome(tmp_path / "out/outcome.json")
    assert kept.source == "measured"
    assert kept.metrics["requests"] == 20


def test_forecast_and_measured_are_compared(file, tmp_path, capsys):
    with serving(Toy(first=0.02, gap=0.005)) as url:
        main(["run", str(file), "--url", url, "--out", str(tmp_path / "run")])
    main(["simulate", str(file), "--out", str(tmp_path / "forecast")])
    capsys.readouterr()
    files = [str(tmp_path / name / "outcome.json") for name in ("forecast", "run")]
    assert main(["compare", *files, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    rows = {row["metric"]: row for row in table["differences"]}
    row = rows["ttft.p50"]
    assert row["error"] == pytest.approx(row["before"] / row["after"] - 1)
    forecast = read_outcome(files[0])
    low, high = forecast.intervals["ttft.p50"]
    assert row["covered"] is (low <= row["after"] <= high)
    judged = [r for r in table["differences"] if r["covered"] is not None]
    assert table["remarks"][0].startswith(f"{sum(r['covered'] for r in judged)} of {len(judged)} values lie within")
    assert not any("different requests" in text for text in table["remarks"])
    times = {k: v for k, v in forecast.breakdown["time"].items() if k != "idle"}
    assert f"{max(times.values()) / sum(times.values()):.0%} is" in table["remarks"][1]
    assert main(["compare", *files]) == 0
    assert "Off by" in capsys.readouterr().out


def test_json_and_failures_and_their_exit_code(file, capsys):
    count = iter(range(100))
    with serving(Toy(first=0.0, gap=0.0, fault=lambda _: "503" if next(count) % 4 == 3 else "")) as url:
        code = main(["run", str(file), "--url", url, "--json"])
    table = json.loads(capsys.readouterr().out)
    assert code == 1
    assert table["metrics"]["failed"] == 5
    assert table["provenance"]["failed"] == {"HTTP 503": 5}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--url", "ftp://host"], "url: is not the address of a server"),
        (["--url", "http://127.0.0.1:9", "--warmup", "0"], "warmup: is out of range"),
        (["--url", "http://127.0.0.1:9", "--key-env", "NOT_SET_HERE"], "key_env: names a variable that is not set"),
        (["--ignore-eos"], "url: is missing, and --ignore-eos is for a server"),
    ],
)
def test_bad_input_exits_with_2(file, capsys, words, said):
    assert main(["run", str(file), *words]) == 2
    assert said in capsys.readouterr().err


def test_without_httpx_the_extra_is_named(file, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert main(["run", str(file), "--url", "http://127.0.0.1:9"]) == 2
    assert "pip install 'fleetcast[run]'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(file, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    toy = Toy()
    with serving(toy) as url:
        assert main(["run", str(file), "--url", url, "--out", str(tmp_path / "taken")]) == 2
    assert not toy.seen


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_writes_what_was_measured(file, tmp_path, capsys):
    toy = Toy(first=0.01, gap=0.0)

    def stop():
        end = time.monotonic() + 30
        while len(toy.seen) < 9 and time.monotonic() < end:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    with serving(toy) as url:
        thread = threading.Thread(target=stop)
        thread.start()
        code = main(["run", str(file), "--url", url, "--speed", "0.2", "--out", str(tmp_path / "out")])
        thread.join()
    assert code == 130
    assert "Stopped before" in capsys.readouterr().out
    kept = read_outcome(tmp_path / "out/outcome.json")
    assert kept.provenance["interrupted"] is True
    assert kept.metrics["requests"] + kept.provenance["stopped"] == 20


def test_the_verb_returns_an_outcome_and_refuses_exits(file):
    with serving(Toy(first=0.0, gap=0.0)) as url:
        found = fleetcast.run(file, url, warmup=1, prompts="text")
    assert isinstance(found, Outcome)
    assert found.provenance["prompts"] == "text"
    with pytest.raises(Unsupported, match="timed, not judged"):
        fleetcast.run("tiers", "http://127.0.0.1:9")


def outcome(source="simulated", **more):
    parts = {"metrics": {"ttft": {"p99": 1.0}, "requests": 10}, "intervals": {"ttft.p99": (0.9, 1.1)}, "slo": {}}
    return Outcome(source=source, **(parts | {"plan": {}} | more))


def test_remarks_say_what_is_not_alike():
    before = outcome(provenance={"requests": "a"}, breakdown={"time": {"gemm": 3.0, "attention": 1.0, "idle": 9.0}})
    after = outcome(
        "measured", metrics={"ttft": {"p99": 2.0}, "requests": 8, "failed": 2},
        provenance={"requests": "b", "interrupted": True},
    )  # fmt: skip
    found = compare(before, after)
    assert [(d.metric, d.error, d.covered) for d in found] == [("ttft.p99", -0.5, False), ("requests", 0.25, None)]
    text = " ".join(remarks(before, after, found))
    for said in (
        "0 of 1 values",
        "75% is matrix products",
        "different requests",
        "stopped before its end",
        "2 requests",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is no outcome"),
        ("{}", "is no outcome"),
        ('{"source": "guessed", "metrics": {"a": 1}}', "is no outcome"),
        ('{"source": "measured", "metrics": {}}', "is no outcome"),
        ('{"source": "measured", "metrics": {"a": 1}, "intervals": {"a": 5}}', "is no outcome"),
        ('{"source": "measured", "metrics": {"a": 1}, "breakdown": {"time": 5}}', "is no outcome"),
        ('{"best": null, "frontier": []}', "holds a ranking of plans"),
    ],
)
def test_files_that_are_no_outcome(tmp_path, text, said):
    path = tmp_path / "outcome.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=said):
        read_outcome(path)


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    assert "is not a file" in capsys.readouterr().err


def test_values_that_nobody_knows_are_left_out(tmp_path):
    path = tmp_path / "outcome.json"
    path.write_text('{"source": "simulated", "metrics": {"cost": null, "e2e": {"mean": 2}}, '
                    '"intervals": {"cost": [null, null]}, "slo": {}, "plan": {}}')  # fmt: skip
    found = read_outcome(path)
    assert [d.metric for d in compare(found, found)] == ["e2e.mean"]
    assert found.intervals == {}
