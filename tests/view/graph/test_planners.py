"""`fleetcast run --planner`: who edits a graph while it runs; and the command lines of a workflow's file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fleetcast.view.cli import main
from tests.view.graph.test_running import TABLE

pytest.importorskip(modname="aiohttp", reason="the extra 'agents' is not installed")

GROW = """
from fleetcast.scenario.workload.edits import AddTask, Task

def grow(value, events):
    return [AddTask(task=Task(id="more", arguments={"seconds": 0.01}))] if "more" not in value.tasks else []

def broken(value, events):
    raise RuntimeError("no idea")
"""
RULES = """
[[rules]]
on = "completed"
task = "*"
edits = [{ edit = "add_task", task = { id = "more", call = "sleep", arguments = { seconds = 0.01 } } }]
"""
FEW = {**TABLE, "workload": {**TABLE["workload"], "graph": {"kind": "fork_join", "stages": 1, "width": 2, "size": 1e4}}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(FEW), encoding="utf-8")
    (tmp_path / "grow.py").write_text(GROW, encoding="utf-8")
    (tmp_path / "rules.toml").write_text(RULES, encoding="utf-8")
    return path


class _Model(BaseHTTPRequestHandler):
    asked: ClassVar[list[tuple[str | None, Any]]] = []

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.asked.append((self.headers.get("Authorization"), json.loads(self.rfile.read(length))))
        edit = {"edit": "add_task", "task": {"id": "more", "call": "sleep", "arguments": {"seconds": 0.01}}}
        content = json.dumps([edit] if len(self.asked) == 1 else [])
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    _Model.asked.clear()
    server = HTTPServer(("127.0.0.1", 0), _Model)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def ran(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[dict[str, Any], str]:
    assert main(["run", *words, "--json"]) == code
    table = json.loads(capsys.readouterr().out)
    return table["metrics"], " ".join(table["notes"])


@pytest.mark.parametrize("planner", ["grow.py:grow", "rules.toml"])
def test_a_function_or_rules_edit_a_graph(file: Path, planner: str, capsys: pytest.CaptureFixture[str]) -> None:
    metrics, notes = ran(capsys, str(file), "--planner", str(file.parent / planner))
    assert metrics["attempts"] == metrics["tasks"] + 1
    assert "tasks that it added: 1" in notes


def test_a_planner_that_fails_changes_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics, notes = ran(capsys, str(file), "--planner", str(file.parent / "grow.py:broken"))
    assert metrics["failed"] == 0
    assert "RuntimeError: no idea" in notes


def test_a_language_model_edits_a_graph(
    file: Path, endpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(modname="httpx", reason="the extra 'agents' is not installed")
    monkeypatch.setenv("MY_KEY", "secret")
    _, notes = ran(
        capsys, str(file), "--planner", endpoint, "--model", "small", "--key-env", "MY_KEY", "--goal", "one more"
    )
    assert "tasks that it added: 1" in notes
    head, body = _Model.asked[0]
    assert (head, body["model"]) == ("Bearer secret", "small")
    assert json.loads(body["messages"][1]["content"])["goal"] == "one more"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--planner", "what"], "is no planner"),
        (["--planner", "{}/grow.py:sow"], "is no function of"),
        (["--planner", "{}/no.py:f"], "no.py"),
        (["--planner", "{}/rules.toml", "--model", "m"], "is for a planner that is a language model"),
        (["--planner", "http://127.0.0.1:1/v1"], "is missing"),
        (["--planner", "http://127.0.0.1:1/v1", "--model", "m", "--key-env", "NO_SUCH"], "is not set"),
        (["--planner", "{}/allow.toml"], "is no file of rules"),
        (["--model", "m"], "is for a planner"),
    ],
)
def test_what_is_no_planner_is_refused(
    file: Path, words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "allow.toml").write_text("slots = 1\n", encoding="utf-8")
    assert main(["run", str(file), *(word.replace("{}", str(file.parent)) for word in words)]) == 2
    assert problem in " ".join(capsys.readouterr().err.split())


def test_planners_are_for_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", "--planner", "rules.toml"]) == 2
    assert "is for a graph of tasks" in " ".join(capsys.readouterr().err.split())


WORKFLOW = {
    "name": "words", "schemaVersion": "1.5",
    "workflow": {
        "specification": {
            "tasks": [
                {"id": "make", "name": "make", "children": ["copy"], "outputFiles": []},
                {"id": "copy", "name": "copy", "parents": ["make"]},
                {"id": "other", "name": "other_1"},
            ],
        },
        "execution": {
            "tasks": [
                {"id": "make", "runtimeInSeconds": 0.1, "command": {"program": "/bin/touch", "arguments": ["a", "b"]}},
                {"id": "copy", "runtimeInSeconds": 0.1, "command": {"program": "cp", "arguments": ["a", "c"]}},
                {"id": "other", "runtimeInSeconds": 0.1},
            ],
        },
    },
}  # fmt: skip
COMMANDS = """
[calls.touch]
command = ["touch", "{words}"]
arguments.words = "words"
[calls.cp]
command = ["cp", "{words}"]
arguments.words = "words"
"""


def test_a_workflows_command_lines_run_where_the_list_names_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.json").write_text(json.dumps(WORKFLOW), encoding="utf-8")
    fleet = {"network": "wifi-6", "groups": [{"name": "edge", "devices": "2x jetson-agx-orin"}]}
    scenario = {"fleet": fleet, "workload": {"kind": "graph", "graph": "words.json"}}
    (tmp_path / "graph.json").write_text(json.dumps(scenario), encoding="utf-8")
    (tmp_path / "allow.toml").write_text(COMMANDS, encoding="utf-8")
    _, notes = ran(capsys, str(tmp_path / "graph.json"), "--allow", str(tmp_path / "allow.toml"))
    assert "1 of 3 tasks emulated" in notes
    assert all((tmp_path / name).exists() for name in "abc")

    # a program that no list names is never run, and an argument that leaves the folder is refused
    (tmp_path / "allow.toml").write_text(COMMANDS.replace("calls.touch", "calls.mkdir"), encoding="utf-8")
    for name in "abc":
        (tmp_path / name).unlink()
    _, notes = ran(capsys, str(tmp_path / "graph.json"), "--allow", str(tmp_path / "allow.toml"), code=1)
    assert not (tmp_path / "a").exists()
    WORKFLOW["workflow"]["execution"]["tasks"][0]["command"]["arguments"] = ["../out"]  # type: ignore[index]
    (tmp_path / "words.json").write_text(json.dumps(WORKFLOW), encoding="utf-8")
    (tmp_path / "allow.toml").write_text(COMMANDS, encoding="utf-8")
    _, notes = ran(capsys, str(tmp_path / "graph.json"), "--allow", str(tmp_path / "allow.toml"), code=1)
    assert "leaves the agent's folder" in notes
    assert not (tmp_path.parent / "out").exists()
