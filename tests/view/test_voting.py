"""`fleetcast vote` answers, refuses and exits as it says."""

import json
from pathlib import Path

import pytest

from fleetcast.view.cli import main

TEAMS = """
[ballots]
latency = ["2x TP4", "4x TP2", "1x TP8", "8x TP1"]
cost = ["8x TP1", "2x TP4", "4x TP2", "1x TP8"]
energy = ["4x TP2", "8x TP1", "2x TP4", "1x TP8"]
"""


@pytest.fixture
def teams(tmp_path: Path) -> str:
    (tmp_path / "teams.toml").write_text(TEAMS)
    return str(tmp_path / "teams.toml")


def test_a_choice_is_told_and_given_as_data(teams: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["vote", teams]) == 0
    said = capsys.readouterr().out
    assert "unanimity kept" in said
    assert "4x TP2 beats 8x TP1" in said
    assert main(["vote", teams, "--rule", "borda", "--json", "--out", str(tmp_path / "choice.json")]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["rule"] == "borda"
    assert sorted(table["ranking"]) == sorted(["2x TP4", "4x TP2", "1x TP8", "8x TP1"])
    assert json.loads((tmp_path / "choice.json").read_text()) == table


def test_a_promise_that_cannot_be_kept_is_refused_with_its_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vote", "guarantees", "--asynchronous", "--set", "1"]) == 1
    said = capsys.readouterr().out
    assert "Refused: no rule keeps it" in said
    assert "1 round at this size; nothing is said of others" in " ".join(said.split())
    assert main(["vote", "guarantees", "--rounds", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exists"] is True


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["guarantees", "--processes", "9"], 2, "--processes"),
        (["guarantees", "--set", "2", "--within", "1"], 2, "--set"),
        (["run", "FILE", "--asynchronous", "--set", "1"], 1, "refused: without a clock"),
        (["run", "FILE", "--kill", "nobody"], 2, "--kill"), (["run", "FILE", "--kill", "cost:x"], 2, "--kill"),
        (["run", "FILE", "--crashes", "3"], 2, "--crashes"), (["run", "FILE", "--timeout", "0 s"], 2, "--timeout"),
        (["FILE", "--by", "cost"], 2, "--by"), (["absent.toml"], 2, "absent.toml"),
        (["FILE", "--rule", "x"], 2, "rule"),
    ],
)  # fmt: skip
def test_errors_say_what_and_why(
    words: list[str], code: int, said: str, teams: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vote", *(teams if word == "FILE" else word for word in words)]) == code
    assert said in capsys.readouterr().err


def test_processes_vote_and_one_is_killed(teams: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vote", "run", teams, "--kill", "cost:1", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [row["crashed"] for row in table["processes"]] == [False, True, False]
    assert (table["different"], table["promised"], table["kept"], table["unanimity_broken"]) == (1, 1, True, [])
