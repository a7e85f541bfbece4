"""`fleetcast run --serve` as a user types it: what it says, what it refuses, killed and started again, told to stop."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleetcast.scenario.load import load
from fleetcast.view import served
from fleetcast.view.cli import main
from tests.runtime.llm import words

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")

SCENARIO = """\
[fleet]
devices = "1x h100-sxm"

[workload]
model = "speaks"
arrivals = { kind = "uniform", rate = "50 /s", requests = 20 }
lengths = { kind = "fixed", prompt = 24, output = 8 }

[plan]
batch = { kind = "chunked", chunk = 64, max_batch = 16 }
"""
ASK = {"model": "speaks", "prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True}


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    home = tmp_path_factory.mktemp("served")
    words.speaking(home / "speaks", context=8192)
    (home / "chat.toml").write_text(SCENARIO)
    return home / "chat.toml"


@contextmanager
def started(file, *flags):
    """A server in a process of its own; yields it and what it said as it was ready."""
    command = [sys.executable, "-m", "fleetcast", "run", str(file), "--serve", "--json", *flags]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def ask(url, body, into):
    """Asks in the background; ``into`` gets the answer, or the error."""

    def run():
        try:
            with httpx.stream("POST", f"{url}/completions", json=ASK | body, timeout=60) as found:
                for line in found.iter_lines():
                    into.append(line)
                into.append("over")
        except httpx.HTTPError as error:
            into.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def until(true, timeout=30.0):
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_killed_and_started_again_no_request_is_lost_without_an_error(file, capsys):
    with started(file, "--port", "0") as (process, ready):
        assert ready["model"] == "speaks"
        assert ready["chat"]
        assert not ready["key"]
        heard = []
        thread = ask(ready["url"], {"max_tokens": 8000, "stream": True}, heard)
        until(lambda: heard)
        process.kill()
        thread.join(30)
        assert "data: [DONE]" not in heard
        assert isinstance(heard[-1], httpx.HTTPError), "a stream that breaks off is an error, not an end"
    port = ready["url"].rpartition(":")[2].partition("/")[0]
    with started(file, "--port", port) as (process, ready):
        assert main(["run", str(file), "--url", ready["url"], "--prompts", "text", "--ignore-eos", "--json"]) == 0
        measured = json.loads(capsys.readouterr().out)
        assert measured["metrics"]["requests"] == 20
        assert measured["metrics"]["failed"] == 0
        assert measured["metrics"]["output_tokens"] == 160
        assert main(["run", str(file), "--url", ready["url"], "--prompts", "chat", "--ignore-eos", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["metrics"]["output_tokens"] == 160
        heard = []
        thread = ask(ready["url"], {"max_tokens": 400, "stream": True}, heard)
        until(lambda: heard)
        process.send_signal(signal.SIGTERM)
        thread.join(60)
        assert heard[-1] == "over"
        assert "data: [DONE]" in heard, "what was under way has ended as it should"
        assert process.wait(30) == 0


def test_a_model_is_called_what_the_file_calls_it(tmp_path, monkeypatch):
    (tmp_path / "blobs" / "1f9a").mkdir(parents=True)
    (tmp_path / "my-llama").symlink_to(tmp_path / "blobs" / "1f9a")
    monkeypatch.chdir(tmp_path / "my-llama")
    (tmp_path / "my-llama" / "config.json").write_text("{}")
    for model, name in (("my-llama", "my-llama"), ("my-llama/config.json", "my-llama"), (".", tmp_path.name)):
        (tmp_path / "chat.toml").write_text(SCENARIO.replace("speaks", model))
        assert served.named(served._folder(load(tmp_path / "chat.toml"))) == name
    assert served.named(Path()) == "1f9a"
    assert served.named(Path("..")) == "blobs"


def test_what_does_not_end_in_time_is_the_exit_code(file):
    with started(file, "--port", "0", "--drain", "0") as (process, ready):
        heard = []
        thread = ask(ready["url"], {"max_tokens": 8000, "stream": True}, heard)
        until(lambda: heard)
        process.send_signal(signal.SIGINT)
        thread.join(30)
        assert any('"code":"shutdown"' in line for line in heard if isinstance(line, str))
        assert process.wait(30) == 1


def refused(capsys, *words):
    """Returns what the command says of an error, and its exit code."""
    code = main(["run", *map(str, words)])
    said = capsys.readouterr()
    return code, said.err


FLAGS = {
    "open to all": (["--serve", "--host", "0.0.0.0"], ["host: would let anyone in", "'0.0.0.0'", "--key-env NAME"]),
    "no such key": (["--serve", "--key-env", "NO_SUCH_KEY"], ["key_env", "NO_SUCH_KEY", "export"]),
    "port": (["--serve", "--port", "99999"], ["port: is out of range", "99999", "65535"]),
    "rate": (["--serve", "--rate", "-1"], ["rate: is out of range", "-1", "requests per s"]),
    "drain": (["--serve", "--drain", "-1"], ["drain: is out of range"]),
    "url too": (["--serve", "--url", "http://127.0.0.1:1"], ["url: is for measuring", "left out with --serve"]),
    "speed too": (["--serve", "--speed", "2"], ["speed: is for measuring"]),
    "out too": (["--serve", "--out", "x"], ["out: is for measuring"]),
    "no server": (["--port", "1"], ["port: is for a server", "only with --serve"]),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags_that_cannot_be_are_refused_with_field_value_limit_and_next_step(file, capsys, case):
    flags, said = FLAGS[case]
    code, found = refused(capsys, file, *flags)
    assert code == 2
    assert all(part in found for part in said), found
    assert "limit" in found or "next" in found


def test_a_port_in_use_is_named(file, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = refused(capsys, file, "--serve", "--port", port)
    assert code == 2
    assert "port: cannot be listened on: address already in use" in said
    assert str(port) in said
    assert "Choose another --port" in said


def test_models_that_cannot_be_served_are_named(file, tmp_path, capsys):
    scenario = tmp_path / "chat.toml"
    scenario.write_text(SCENARIO.replace('"speaks"', '"llama-3.2-1b"'))
    code, said = refused(capsys, scenario, "--serve")
    assert (code, "workload.model: is no folder" in said, "tokenizer.json" in said) == (2, True, True)
    mute = words.speaking(tmp_path / "mute")
    (mute / "tokenizer.json").unlink()
    scenario.write_text(SCENARIO.replace('"speaks"', '"mute"'))
    code, said = refused(capsys, scenario, "--serve")
    assert (code, "tokenizer.json: is not there" in said, "Fetch it" in said) == (2, True, True)
    (mute / "model.safetensors").unlink()
    code, said = refused(capsys, scenario, "--serve")
    assert (code, "has no weights to serve" in said, "safetensors" in said) == (2, True, True)


def test_a_plan_that_drafts_is_served_with_its_drafter(file, tmp_path, capsys):
    words.speaking(tmp_path / "speaks", context=8192)
    small = words.speaking(tmp_path / "small", context=8192, layers=1)
    scenario = tmp_path / "chat.toml"
    scenario.write_text(SCENARIO + 'speculate = { kind = "fixed", length = 3, model = "small" }\n')
    answers = []
    for each in (file, scenario):
        with started(each, "--port", "0") as (_, said):
            answers.append(httpx.post(f"{said['url']}/completions", json=ASK | {"max_tokens": 20}, timeout=60).json())
            metrics = httpx.get(f"{said['url'].removesuffix('/v1')}/metrics", timeout=60).text
    assert answers[0]["choices"][0]["text"] == answers[1]["choices"][0]["text"]
    drafted = re.search(r"^\S*spec_decode_num_draft_tokens_total\S* (\S+)$", metrics, re.MULTILINE)
    assert float(drafted[1]) > 0
    (small / "model.safetensors").unlink()
    code, said = refused(capsys, scenario, "--serve")
    assert (code, "plan.speculate.model: has no weights to draft with" in said, "small" in said) == (2, True, True)


@pytest.mark.parametrize("package, extra", [("aiohttp", "serve"), ("prometheus_client", "serve")])
def test_a_package_that_is_missing_is_named_with_its_extra(file, capsys, monkeypatch, package, extra):
    for name in [m for m in sys.modules if m.startswith("fleetcast.runtime.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    code, said = refused(capsys, file, "--serve")
    assert code == 2
    assert f"pip install 'fleetcast[{extra}]'" in said


def test_the_page_names_every_flag_with_its_default_and_every_count(file):
    from dataclasses import fields

    from fleetcast.runtime.serve.metrics import REASONS, Metrics
    from fleetcast.view.served import Serving
    from tests.runtime.serve.live import slow_engine

    page = (Path(__file__).resolve().parents[2] / "docs/server.md").read_text(encoding="utf-8")
    for field in fields(Serving):
        if field.name != "serve":
            default = f"{field.default:g}" if isinstance(field.default, float) else field.default
            assert f"| `--{field.name.replace('_', '-')}` | {default}" in page
    counted = Metrics("m", slow_engine())
    for line in counted.text().decode().splitlines():
        if line.startswith("# TYPE fleetcast:") and not line.split()[2].endswith("_created"):
            assert f"`{line.split()[2].removeprefix('fleetcast:')}`" in page.replace("\n", " ")
    assert all(reason in page for reason in REASONS)
