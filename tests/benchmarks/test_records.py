"""The evidence record: its keys, what it refuses, how a script's command line shows it."""

import json
from pathlib import Path

import msgspec
import pytest

from benchmarks import records as r

KEYS = {
    "system", "claim", "paper", "ours", "null", "bar", "holds", "reproduced", "reason", "skipped",
    "seconds", "command",
}  # fmt: skip


def record(**changes: object) -> r.Record:
    fields: dict[str, object] = {
        "system": 5,
        "claim": "TPOT, mean error",
        "paper": r.Paper(value=10.0, unit="%", setting="H100"),
        "ours": r.Ours(value=1.9, unit="%", spread=0.2, setting="20 cases"),
        "null": r.Null(value=14.0, what="one constant speed"),
        "bar": "at most 2 %",
        "holds": True,
        "reproduced": "yes",
        "command": "python -m benchmarks.accuracy_serving",
    }
    return r.Record(**(fields | changes))


def test_json_has_exactly_the_keys_and_comes_back() -> None:
    text = r.to_json([record()])
    (found,) = json.loads(text)
    assert set(found) == KEYS
    assert set(found["paper"]) == {"value", "unit", "setting"}
    assert set(found["ours"]) == {"value", "unit", "spread", "setting"}
    assert set(found["null"]) == {"value", "what"}
    assert found["skipped"] is None
    assert r.from_json(text) == [record()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": 63}, "system must be"),
        ({"system": 0}, "system must be"),
        ({"claim": " "}, "claim must be"),
        ({"bar": ""}, "bar must"),
        ({"reproduced": "no"}, "reason is required"),
        ({"holds": None}, "required unless skipped"),
        ({"ours": r.Ours()}, "required unless skipped"),
        ({"skipped": "no data"}, "has no result"),
        ({"ours": r.Ours(value=float("nan"))}, "finite"),
        ({"seconds": -1.0}, "seconds"),
        ({"command": ""}, "command"),
    ],
)
def test_refuses_a_record_that_says_too_little(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record(**changes)


def test_json_with_a_foreign_key_or_word_is_refused() -> None:
    data = json.loads(r.to_json([record()]))
    data[0]["p_value"] = 0.05
    with pytest.raises(msgspec.ValidationError, match="p_value"):
        r.from_json(json.dumps(data))
    del data[0]["p_value"]
    data[0]["reproduced"] = "maybe"
    with pytest.raises(msgspec.ValidationError, match="maybe"):
        r.from_json(json.dumps(data))


def test_a_missed_bar_and_an_unreproduced_paper_are_different_things() -> None:
    missed = record(holds=False)
    honest = record(reproduced="no", reason="our trace stops at EOS")
    assert r.verdict(missed) == "MISSED"
    assert r.verdict(honest) == "holds"
    text = r.table([missed, honest])
    assert "MISSED" in text
    assert "our trace stops at EOS" in text


def test_data_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLEETCAST_DATA", str(tmp_path))
    assert r.data_root() == tmp_path
    (tmp_path / "serving").mkdir()
    assert r.data_path("serving") == tmp_path / "serving"
    assert r.data_path("serving", "absent.csv") is None
    monkeypatch.setenv("FLEETCAST_DATA", str(tmp_path / "absent"))
    assert r.data_root() is None
    assert r.data_path("serving") is None


def chatty(quick: bool) -> list[r.Record]:
    print("measuring")
    return [record(ours=r.Ours(value=1 if quick else 2))]


def test_main_prints_only_json_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert r.main(chatty, ["--json", "--quick"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["ours"]["value"] == 1
    assert "measuring" in err


def test_main_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert r.main(chatty, []) == 0
    assert "TPOT, mean error" in capsys.readouterr().out


def test_timer_counts_cpu_time() -> None:
    with r.timer() as t:
        sum(range(300_000))
    assert 0 < t.seconds < 5
    assert t.wall > 0


def test_skipped_record_says_why() -> None:
    found = r.skipped(system=5, claim="x", bar="y", why="no data", command="python -m benchmarks.absent")
    assert r.verdict(found) == "skipped"
    assert found.reproduced == "other setting"
    assert "no data" in found.reason
