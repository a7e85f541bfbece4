"""`fleetcast measure migration`: what it prints and refuses."""

import json

import pytest

from fleetcast.view import cli


def test_it_prints_measured_beside_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["measure", "migration", "--memory", "4 MiB", "--bandwidth", "40 MB/s", "--rate", "500", "--json"]
    assert cli.main(asked) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["measured"]["equal"]
    assert table["measured"]["sent"] >= 4 * 2**20
    assert cli.main(asked[:-1]) == 0
    shown = capsys.readouterr().out
    assert "geometric series" in shown
    assert "what the process had" in shown


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--hot", "0", "--hot: is out of range"), ("--hot", "2", "--hot: is out of range"),
        ("--memory", "9 TB", "--memory: is out of range"), ("--memory", "4 W", "--memory"),
        ("--bandwidth", "3 B/s", "--bandwidth: is out of range"), ("--rate", "-1", "--rate: is out of range"),
        ("--stop", "1 GB", "--stop: is out of range"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(option: str, value: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["measure", "migration", f"{option}={value}"]) == 2
    assert says in capsys.readouterr().err
