"""The command line: exit codes, one clear block for errors, JSON for machines, whole files or none."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
import tomllib

import pytest

from fleetcast.view import cli, timeline

SMALL = """
name = "small"
[fleet]
devices = "2x h100-sxm"
[workload]
model = "llama-3.1-8b"
arrivals = { kind = "poisson", rate = "4 /s", requests = 200 }
lengths = { kind = "fixed", prompt = 512, output = 64 }
[slo]
ttft_p99 = "1 s"
tpot_p99 = "50 ms"
[objective]
minimize = "cost"
"""
DECIDED = SMALL + "[plan]\nreplicas = 2\ntensor_parallel = 1\npipeline_parallel = 1\n"


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture
def decided(tmp_path):
    path = tmp_path / "decided.toml"
    path.write_text(DECIDED)
    return str(path)


def run(capsys, *words):
    code = cli.main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def write(tmp_path, text):
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    return path


def test_simulate_json_is_one_object_with_everything_promised(capsys, decided):
    code, out, err = run(capsys, "simulate", decided, "--json")
    table = json.loads(out)
    assert (code, err) == (0, "")
    assert {"source", "metrics", "intervals", "slo", "plan"} <= set(table)
    assert table["source"] == "simulated"
    for metric in ("ttft", "tpot", "e2e"):
        assert {"mean", "p50", "p90", "p99"} <= set(table["metrics"][metric])
    assert "mean_per_request" in table["metrics"]["tpot"]
    assert {"energy", "cost", "carbon"} <= set(table["metrics"]["per_million_output_tokens"])
    assert {"throughput", "goodput", "energy", "cost", "carbon", "mfu", "mbu"} <= set(table["metrics"])
    assert table["plan"]["batch"]["kind"], "what was left out is echoed"


def test_simulate_that_misses_its_slo_is_no_failure(capsys, tmp_path):
    path = write(tmp_path, DECIDED.replace('"1 s"', '"1 ms"'))
    code, out, _ = run(capsys, "simulate", path, "--json")
    assert code == 0
    assert json.loads(out)["slo"]["met"] is False


def test_plan_json(capsys, small):
    code, out, err = run(capsys, "plan", small, "--json")
    table = json.loads(out)
    assert (code, err) == (0, "")
    assert {"best", "frontier", "plans", "rejected", "counts"} <= set(table)
    for row in table["plans"]:
        assert {"plan", "metrics", "intervals", "slo"} <= set(row)
        assert row["slo"]["met"]
    assert table["best"]["plan"] == table["plans"][0]["plan"]
    assert table["counts"]["enumerated"] >= table["counts"]["simulated"] > 0


def test_plan_that_finds_nothing_within_the_slo_exits_1_with_the_nearest_misses(capsys, tmp_path):
    path = write(tmp_path, SMALL.replace('"1 s"', '"1 ms"'))
    code, out, _ = run(capsys, "plan", path)
    assert code == 1
    assert "No plan meets the SLO" in out
    assert "missed" in out and "Furthest beyond its limit: TTFT p99" in out
    code, out, _ = run(capsys, "plan", path, "--json")
    assert code == 1
    assert json.loads(out)["best"] is None and json.loads(out)["misses"]


def test_plan_out_can_be_simulated_unchanged_with_the_same_result(capsys, small, tmp_path):
    code, out, _ = run(capsys, "plan", small, "--out", tmp_path / "made", "--json")
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["outcome.json", "plan.toml", "report.html"]
    best = json.loads(out)["best"]
    code, out, _ = run(capsys, "simulate", tmp_path / "made" / "plan.toml", "--json")
    again = json.loads(out)
    assert code == 0
    assert again["plan"] == best["plan"]
    assert again["metrics"] == best["metrics"]


def test_plan_out_keeps_relative_files_in_reach(capsys, tmp_path):
    (tmp_path / "here").mkdir()
    rows = "\n".join(f"{i * 0.2:.1f},300,50" for i in range(120))
    (tmp_path / "here" / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + rows + "\n")
    text = DECIDED.replace('arrivals = { kind = "poisson", rate = "4 /s", requests = 200 }\n', 'trace = "t.csv"\n')
    text = text.replace('lengths = { kind = "fixed", prompt = 512, output = 64 }\n', "")
    (tmp_path / "here" / "s.toml").write_text(text)
    code, first, _ = run(
        capsys, "simulate", tmp_path / "here" / "s.toml", "--json", "--out", tmp_path / "there" / "deep"
    )
    assert code == 0
    made = tmp_path / "there" / "deep" / "plan.toml"
    assert tomllib.loads(made.read_text())["workload"]["trace"] == "../../here/t.csv"
    code, second, _ = run(capsys, "simulate", made, "--json")
    assert json.loads(first)["metrics"] == json.loads(second)["metrics"]


def test_simulate_out_writes_a_trace(capsys, decided, tmp_path):
    code, _, _ = run(capsys, "simulate", decided, "--out", tmp_path / "made")
    assert code == 0
    trace = json.loads(gzip.decompress((tmp_path / "made" / "trace.json.gz").read_bytes()))
    assert any(e["ph"] == "X" for e in trace["traceEvents"])
    assert "<svg" in (tmp_path / "made" / "report.html").read_text()


def test_simulate_out_says_what_the_trace_leaves_out(capsys, decided, tmp_path, monkeypatch):
    monkeypatch.setattr(timeline.left_out, "__defaults__", (5,))
    code, out, _ = run(capsys, "simulate", decided, "--out", tmp_path / "made")
    assert code == 0 and "trace.json.gz holds the first 5 of" in out


def test_what_is_unknown_is_null_in_json(capsys):
    code, out, _ = run(capsys, "simulate", "phone", "--json")
    metrics = json.loads(out, parse_constant=pytest.fail)["metrics"]
    assert code == 0
    assert metrics["cost"] is None and metrics["energy"] > 0


def test_makefiles_demo_command(capsys, small, tmp_path):
    code, out, _ = run(capsys, "plan", small, "--report", tmp_path / "report.html")
    assert code == 0
    assert "Best: " in out and "Space searched" in out
    assert "<h2>Over time</h2>" in (tmp_path / "report.html").read_text()


def test_stdin(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(DECIDED))
    code, out, _ = run(capsys, "simulate", "-", "--json")
    assert code == 0
    assert json.loads(out)["plan"]["replicas"] == 2


def test_seed_changes_generated_traffic_and_nothing_else(capsys, decided):
    def metrics(seed):
        return json.loads(run(capsys, "simulate", decided, "--json", "--seed", seed)[1])["metrics"]

    assert metrics(1) == metrics(1)
    assert metrics(1) != metrics(2)


@pytest.mark.parametrize(
    ("change", "code", "parts"),
    [
        (("tpot_p99", "tpot_p98"), 2, ["slo.tpot_p98", "Did you mean 'tpot_p99'?"]),
        (('"2x h100-sxm"', '"2x h100-smx"'), 2, ["h100-smx", "h100-sxm"]),
        (('"1 s"', '"1 GB"'), 2, ["slo.ttft_p99", "GB"]),
        (('"1 s"', '"-1 s"'), 2, ["slo.ttft_p99", "-1 s"]),
        (('"1 s"', '"0 s"'), 2, ["slo.ttft_p99", "is met by no answer", "above 0 s"]),
        (("llama-3.1-8b", "llama-3.1-8c"), 2, ["llama-3.1-8c", "llama-3.1-8b"]),
        (("replicas = 2", "replicas = 3"), 1, ["devices", "3", "2"]),
        (("llama-3.1-8b", "llama-3.1-405b"), 1, ["does not fit", "GB"]),
        (("pipeline_parallel = 1", ""), 2, ["plan.pipeline_parallel", "is missing"]),
        (("tensor_parallel = 1", "tensor_parallel = [1, 2]"), 2, ["plan.tensor_parallel", "plan"]),
        (('[fleet]\ndevices = "2x h100-sxm"', ""), 2, ["fleet", "is missing"]),
        (('name = "small"', "name = "), 2, ["is not TOML", "line 2"]),
    ],
)
def test_errors_say_where_what_and_what_next(capsys, tmp_path, change, code, parts):
    text = DECIDED.replace(*change)
    assert text != DECIDED
    path = write(tmp_path, text)
    found, out, err = run(capsys, "simulate", path)
    assert (found, out) == (code, "")
    assert err.startswith("error: ") and "Traceback" not in err
    for part in parts:
        assert part in " ".join(err.split()), part
    found, out, err = run(capsys, "simulate", path, "--json")
    table = json.loads(out)["error"]
    assert (found, table["exit_code"], err) == (code, code, "")
    assert table["message"]


USAGE = (
    "plan", "nonsense", "plan quickstart --nonsense", "simulate no-such-file.toml", "catalog nonsense",
    "examples quikstart", "plan quickstart --seed x",
)  # fmt: skip


@pytest.mark.parametrize("words", USAGE)
def test_usage_errors_exit_2(capsys, words):
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and "Traceback" not in err


def test_help_and_version(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in ("plan", "simulate", "check", "capacity", "export", "catalog", "examples", "schema"):
        assert command in out
    code, out, _ = run(capsys, "--version")
    assert code == 0 and out.strip()


@pytest.mark.parametrize("kind", ["devices", "models", "links", "traces", "engines", "policies"])
def test_catalog(capsys, kind):
    code, out, _ = run(capsys, "catalog", kind, "--json")
    rows = json.loads(out)[kind]
    assert code == 0 and len(rows) >= 2
    code, out, _ = run(capsys, "catalog", kind)
    assert code == 0 and out.count("\n") > len(rows)


def test_examples_are_listed_and_printed(capsys, tmp_path):
    code, out, _ = run(capsys, "examples")
    assert code == 0 and "quickstart" in out
    code, out, _ = run(capsys, "examples", "quickstart")
    assert tomllib.loads(out)["workload"]["model"] == "llama-3.1-70b"
    code, _, _ = run(capsys, "examples", "quickstart", "--out", tmp_path / "mine.toml")
    assert (tmp_path / "mine.toml").read_text() == out


def test_check_exit_codes(capsys, decided, tmp_path):
    assert run(capsys, "check", decided)[0] == 0
    doubtful = write(tmp_path, DECIDED.replace('[slo]\nttft_p99 = "1 s"\ntpot_p99 = "50 ms"\n', ""))
    code, out, _ = run(capsys, "check", doubtful)
    assert code == 0 and "warning: slo" in out
    assert run(capsys, "check", doubtful, "--strict")[0] == 1
    wrong = write(tmp_path, DECIDED.replace("llama-3.1-8b", "llama-3.1-405b"))
    code, out, _ = run(capsys, "check", wrong, "--json")
    table = json.loads(out)
    assert code == 1 and not table["ok"] and table["remarks"][0]["level"] == "error"


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(capsys, small, decided, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for words in (("plan", small), ("simulate", decided), ("catalog", "devices"), ("catalog", "models"), ("examples",)):
        _, out, _ = run(capsys, *words)
        assert max(map(len, out.splitlines())) <= width
        assert "…" not in out, f"{words} cuts text at {width} columns"


def test_capacity_of_a_fleet_and_devices_for_a_load(capsys, decided, tmp_path):
    code, out, _ = run(capsys, "capacity", decided, "--json")
    held = json.loads(out)
    assert code == 0 and held["factor"] > 1 and held["plan"]["replicas"] == 2
    assert held["missed"] / held["factor"] - 1 <= held["tolerance"]
    code, out, _ = run(capsys, "capacity", decided)
    assert code == 0 and "Holds " in out and "missed" in out
    small = write(tmp_path, SMALL)
    code, out, _ = run(
        capsys, "capacity", small, "--of", "devices", "--kinds", "l40s,h100-sxm", "--most", "4", "--json"
    )
    needs = json.loads(out)["needs"]
    assert code == 0 and {n["kind"] for n in needs} == {"l40s", "h100-sxm"}
    assert all(n["devices"] is None or 1 <= n["devices"] <= 4 for n in needs)
    code, out, _ = run(capsys, "capacity", small, "--of", "devices", "--most", "2")
    assert code == 0 and "h100-sxm" in out


def test_capacity_that_no_load_reaches_exits_1(capsys, tmp_path):
    code, out, _ = run(capsys, "capacity", write(tmp_path, DECIDED.replace('"50 ms"', '"1 us"')))
    assert code == 1 and "No load that was tried meets the SLO" in out


def test_capacity_of_a_closed_loop_counts_users(capsys, tmp_path):
    closed = DECIDED.replace('kind = "poisson", rate = "4 /s"', 'kind = "closed", concurrency = 8')
    path = write(tmp_path, closed.replace('"1 s"', '"200 ms"'))
    code, out, _ = run(capsys, "capacity", path, "--json")
    held = json.loads(out)
    assert code == 0 and "rate" not in held and 8 < held["users"] < held["missed"] <= 200
    assert [held["users"], True] in held["tried"] and [held["missed"], False] in held["tried"]
    code, out, _ = run(capsys, "capacity", path)
    assert code == 0 and f"Serves {held['users']} users at once; the scenario has 8" in out and "Users  SLO" in out
    code, out, _ = run(capsys, "capacity", write(tmp_path, closed.replace('"1 s"', '"1 us"')))
    assert code == 1 and "No load that was tried meets the SLO" in out


def test_out_of_other_commands_is_the_printed_text(capsys, tmp_path):
    _, out, _ = run(capsys, "schema")
    assert json.loads(out)["title"] == "Scenario"
    run(capsys, "schema", "--out", tmp_path / "s.json")
    assert (tmp_path / "s.json").read_text() == out
    run(capsys, "catalog", "links", "--json", "--out", tmp_path / "l.json")
    assert json.loads((tmp_path / "l.json").read_text())["links"]


def test_out_that_cannot_be_written(capsys, decided, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "simulate", decided, "--out", tmp_path / "file" / "below")
    assert code == 2 and "cannot be written" in err


def test_a_reader_that_leaves_is_no_traceback():
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "fleetcast", "catalog", "models", "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert err == ""
    assert process.returncode == 141


def test_ctrl_c_is_clean():
    for patience in (1.0, 4.0, 16.0):  # s until it waits for the scenario on stdin, on a machine that may be busy
        process = subprocess.Popen(
            [sys.executable, "-m", "fleetcast", "simulate", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell runs this behind
        )  # fmt: skip
        time.sleep(patience)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        if "Traceback" not in err and process.returncode != -signal.SIGINT:
            break
    assert process.returncode == 130
    assert (out, err.strip()) == ("", "interrupted")


ROW = """
[fleet]
devices = "16x a100-80g-sxm"
budget = "9 kW"
host_power = "1 kW"
[workload]
model = "llama-3.1-8b"
trace = "azure-conv-2023"
speed_up = 0.3
low_priority = 0.5
[plan]
tensor_parallel = 4
pipeline_parallel = 1
power = "polca"
"""


def test_capacity_of_servers_prints_a_narrow_table_json_or_an_error(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "70")
    path = tmp_path / "row.toml"
    path.write_text(ROW)
    assert cli.main(["capacity", str(path), "--of", "servers"]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 70 for line in said.splitlines())
    assert "servers of 8 devices fit under 9 kW" in " ".join(said.split())
    assert "polca" in said
    assert "not verified" in " ".join(said.split())
    assert cli.main(["capacity", str(path), "--of", "servers", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["budget"], table["servers"], table["devices"]) == (9000.0, 2, 8)
    assert [h["policy"]["kind"] for h in table["held"]] == ["uncapped", "polca"]
    assert all(h["added"] == h["servers"] - 2 for h in table["held"])
    path.write_text(ROW.replace("9 kW", "2 kW"))
    assert cli.main(["capacity", str(path), "--of", "servers"]) == 2
    assert "fleet.budget: is below the idle power" in " ".join(capsys.readouterr().err.split())


POOLS = """
[fleet]
devices = "6x l40s + 3x h100-sxm"
budget = "1.5 kW"
spend = "6 $/h"
price = { "l40s" = 1.0, "h100-sxm" = 3.0 }
[workload]
model = "llama-3.1-8b"
arrivals = { kind = "poisson", rate = "6 /s", requests = 200 }
lengths = { kind = "fixed", prompt = 900, output = 60 }
[slo]
ttft_p99 = "1.5 s"
[plan]
tensor_parallel = 1
pipeline_parallel = 1
batch = { kind = "chunked", chunk = 2048, max_batch = 64 }
"""


def test_capacity_of_pools_prints_every_limit_its_nulls_and_the_space(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "90")
    path = tmp_path / "pools.toml"
    path.write_text(POOLS)
    assert cli.main(["capacity", str(path), "--of", "pools"]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 90 for line in said.splitlines())
    words = " ".join(said.split())
    for limit in ("power (1.5 kW)", "cost (6.00 $/h)", "power (1.5 kW) and cost (6.00 $/h)"):
        assert f"At equal {limit}: " in words
    assert words.count("null: ") == 6 and "1.00 x" in words
    assert "sizes of" in words and "leave no room for more" in words and "settled by bounds" in words
    assert cli.main(["capacity", str(path), "--of", "pools", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [row["equal"] for row in table["equal"]] == [["power"], ["cost"], ["power", "cost"]]
    assert all(set(row["nulls"]) == {"l40s", "h100-sxm"} and row["best"]["plan"] for row in table["equal"])
    path.write_text(POOLS.replace('ttft_p99 = "1.5 s"', 'ttft_p99 = "1 us"'))
    assert cli.main(["capacity", str(path), "--of", "pools"]) == 1
    assert "no pools hold any load that was tried" in " ".join(capsys.readouterr().out.split())
    path.write_text(POOLS.replace('budget = "1.5 kW"', "").replace('spend = "6 $/h"', ""))
    assert cli.main(["capacity", str(path), "--of", "pools"]) == 2
    assert "fleet.budget: is missing" in " ".join(capsys.readouterr().err.split())


def test_a_plan_over_its_budget_is_refused_with_both_sizes(capsys, tmp_path):
    path = tmp_path / "over.toml"
    path.write_text(POOLS.replace("[plan]", '[plan]\non = "l40s"\nreplicas = 6'))
    assert cli.main(["simulate", str(path)]) == 1
    assert "power of all servers needs 2.1 kW, have 1.5 kW" in " ".join(capsys.readouterr().err.split())
