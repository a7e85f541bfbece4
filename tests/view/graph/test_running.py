"""`fleetcast run` of a graph and `fleetcast agent`: what a person types, sees and is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fleetcast
from fleetcast.base.errors import FleetcastError
from fleetcast.view.cli import main

pytest.importorskip(modname="aiohttp", reason="the extra 'agents' is not installed")

ROOT = Path(__file__).resolve().parents[3]
TABLE: dict[str, Any] = {
    "fleet": {
        "network": "wifi-6",
        "groups": [
            {"name": "phone", "devices": "1x raspberry-pi-5"}, {"name": "edge", "devices": "2x jetson-agx-orin"},
        ],
    },
    "workload": {
        "kind": "graph", "graph": {"kind": "fork_join", "stages": 2, "width": 4, "size": 1e4},
        "seconds": {
            "task": {"raspberry-pi-5": 0.2, "jetson-agx-orin": 0.1},
            "JOIN": {"raspberry-pi-5": 0.01, "jetson-agx-orin": 0.01},
        },
    },
    "plan": {"workers": {"jetson-agx-orin": 2}},
}  # fmt: skip
ALLOW = """
[calls.task]
command = ["echo", "{word}"]
arguments.word = { kind = "text", default = "well" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(TABLE), encoding="utf-8")
    return path


def test_a_run_is_an_outcome_as_a_simulation_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(file), "--json", "--out", str(file.parent / "out")]) == 0
    ran = json.loads(capsys.readouterr().out)
    assert main(["simulate", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (ran["source"], told["source"]) == ("measured", "simulated")
    assert set(told["metrics"]) <= set(ran["metrics"])
    m = ran["metrics"]
    assert (m["failed"], m["tasks"], m["attempts"], m["agents"]) == (0, 11, 11, 3)
    assert m["forecast"] == pytest.approx(told["metrics"]["makespan"])
    # two rounds of tasks a stage, and whatever the machine's other work adds
    assert 0.9 * m["forecast"] < m["makespan"] < m["forecast"] + 2.0
    assert m["moved_bytes"] == told["metrics"]["moved_bytes"] > 0
    assert {row["name"] for row in ran["resources"]} == {row["name"] for row in told["resources"]}
    assert {p.name for p in (file.parent / "out").iterdir()} == {"plan.toml", "outcome.json", "trace.json.gz"}


def test_tasks_of_a_kernel_that_agents_have_run_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allow = file.parent / "allow.toml"
    allow.write_text(ALLOW, encoding="utf-8")
    assert main(["run", str(file), "--allow", str(allow), "--emulate", "spin"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 of 11 tasks emulated: an agent kept a core busy" in said
    allow.write_text(ALLOW.replace('"echo", "{word}"', '"false", "{word}"'), encoding="utf-8")
    assert main(["run", str(file), "--allow", str(allow)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "false ended with code 1" in said
    assert "tasks more that failed" in said


def test_agents_that_come_from_elsewhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The orchestrator and three agents, each a command of its own."""
    token = "a token of this test"
    env = os.environ | {"FLEETCAST_AGENT_TOKEN": token, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT)))}
    command = [sys.executable, "-m", "fleetcast"]
    run = subprocess.Popen(
        [*command, "run", str(file), "--listen", "127.0.0.1:0", "--json"], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert run.stderr is not None
    found = re.search(r"ws://\S+", line := run.stderr.readline())
    assert found, line
    assert "phone, edge[0], edge[1]" in line
    agents = [
        subprocess.Popen([*command, "agent", found[0], "--name", n, "--slots", s], env=env, stderr=subprocess.PIPE)
        for n, s in (("phone", "1"), ("edge[0]", "2"), ("edge[1]", "2"))
    ]
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0
    assert json.loads(out)["metrics"]["failed"] == 0
    for agent in agents:
        _, err = agent.communicate(timeout=20)
        assert (agent.returncode, b"the run is over" in err) == (0, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "FILE", "--listen", "nowhere"], "--listen: is no address"),
        (["run", "FILE", "--listen", "127.0.0.1:0"], "FLEETCAST_AGENT_TOKEN"),
        (["run", "FILE", "--listen", "127.0.0.1:0", "--token-env", "SHORT"], "too short a token"),
        (["run", "FILE", "--url", "http://127.0.0.1:1"], "--url: is for requests"),
        (["run", "FILE", "--allow", "absent.toml"], "absent.toml"),
        (["run", "quickstart", "--emulate", "spin"], "is for a graph of tasks"),
        (["agent", "http://127.0.0.1:1"], "is no orchestrator's"),
        (["agent", "ws://127.0.0.1:1/agents", "--slots", "0"], "--slots: is out of range"),
        (["agent", "ws://127.0.0.1:1/agents"], "FLEETCAST_AGENT_TOKEN"),
        (["agent", "ws://127.0.0.1:1/agents", "--token-env", "LONG", "--allow", "absent.toml"], "absent.toml"),
    ],
)
def test_what_cannot_be_run_is_refused(
    words: list[str], said: str, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLEETCAST_AGENT_TOKEN", raising=False)
    monkeypatch.setenv("SHORT", "secret")
    monkeypatch.setenv("LONG", "a token of this test")
    assert main([str(file) if word == "FILE" else word for word in words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_fleet_whose_agents_do_not_come_is_infeasible(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fleetcast.view.graph.agents import Agents

    monkeypatch.setenv("FLEETCAST_AGENT_TOKEN", "a token of this test")
    with pytest.raises(FleetcastError, match=r"phone, edge\[0\], edge\[1\] did not come"):
        fleetcast.run(str(file), agents=Agents(listen="127.0.0.1:0", wait=0.2))
