"""Merging and rendering: a skipped record overwrites nothing, the docs follow from the records."""

from pathlib import Path

import pytest

from benchmarks import evidence as e
from benchmarks import records as r

ROOT = Path(__file__).resolve().parent.parent.parent


def record(claim: str, value: float | None = 1.0, *, script: str = "accuracy_serving") -> r.Record:
    command = f"python -m benchmarks.{script}"
    if value is None:
        return r.skipped(system=5, claim=claim, bar="b", why="no data", command=command)
    return r.Record(
        system=5, claim=claim, ours=r.Ours(value=value, unit="%"), bar="at most 2 %",
        holds=value <= 2, reproduced="yes", command=command,
    )  # fmt: skip


def test_a_skipped_record_never_overwrites_a_result() -> None:
    merged = e.merge([record("a")], [record("a", None), record("b", None)], ran=["accuracy_serving"])
    assert [(m.claim, m.ours.value) for m in merged] == [("a", 1.0), ("b", None)]


def test_a_result_overwrites_an_older_one_and_a_skipped_one() -> None:
    merged = e.merge([record("a"), record("b", None)], [record("a", 2.0), record("b", 3.0)])
    assert [m.ours.value for m in merged] == [2.0, 3.0]


def test_a_quick_run_only_fills_gaps() -> None:
    merged = e.merge([record("a")], [record("a", 9.0), record("b", 9.0)], ran=["accuracy_serving"], quick=True)
    assert [m.ours.value for m in merged] == [1.0, 9.0]


def test_what_a_script_no_longer_reports_is_dropped_and_others_stay() -> None:
    old = [record("gone"), record("other", script="speed_serving")]
    merged = e.merge(old, [record("new")], ran=["accuracy_serving"])
    assert {m.claim for m in merged} == {"new", "other"}


def test_fill_is_idempotent_and_renders_tables_and_figures() -> None:
    page = (
        "Text <!-- evidence:mean-error --><!-- /evidence --> end.\n\n"
        "<!-- evidence:accuracy_serving -->\nstale words\n<!-- /evidence -->\n\n"
        "<!-- evidence:speed_serving --><!-- /evidence -->\n"
    )
    records = [record("Mean error", 1.25)]
    filled = e.fill(page, records)
    assert "Text <!-- evidence:mean-error -->1.25 %<!-- /evidence --> end." in filled
    assert "| 5 | Mean error |" in filled
    assert "stale words" not in filled
    assert "Not measured yet" in filled
    assert e.fill(filled, records) == filled
    assert "2.5 %" in e.fill(filled, [record("Mean error", 2.5)])


def test_a_bar_in_a_claim_does_not_break_the_table() -> None:
    text = e.markdown([record("p|q")])
    assert "p\\|q" in text


def test_scripts_are_found_by_what_they_define(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def records(quick: bool) -> list:\n    return []\n")
    (tmp_path / "two.py").write_text("def other() -> None: ...\n")
    assert e.scripts(tmp_path) == ["one"]


def test_all_scripts_name_themselves_in_their_command() -> None:
    for name in e.scripts():
        text = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
        assert "main(records)" in text, f"{name} cannot be run by itself"
        assert "sys.path.insert(0, " in text, f"{name} cannot be run by its path"


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own to write into."""
    (tmp_path / "docs").mkdir()
    systems = (ROOT / "docs/systems.toml").read_text(encoding="utf-8")
    (tmp_path / "docs/systems.toml").write_text(systems, encoding="utf-8")
    (tmp_path / "README.md").write_text("Error: <!-- evidence:a --><!-- /evidence --> here.\n")
    monkeypatch.setattr(e, "EVIDENCE", tmp_path / "docs/evidence.json")
    monkeypatch.setattr(e, "ROOT", tmp_path)
    monkeypatch.setattr(e, "FORECAST_ERROR", tmp_path / "src/forecast_error.json")
    monkeypatch.setattr(e, "scripts", lambda: ["accuracy_serving", "broken", "speed_serving"])
    return tmp_path


def test_evidence_runs_all_scripts_and_keeps_what_a_failing_one_had(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    e.EVIDENCE.write_text(r.to_json([record("old", script="broken")]))
    results = {
        "accuracy_serving": [record("a", 1.5), record("b", None)],
        "speed_serving": [record("fast", script="speed_serving")],
    }
    monkeypatch.setattr(e, "run", lambda name, *, quick: results.get(name))
    assert e.main([]) == 1
    assert {x.claim for x in r.from_json(e.EVIDENCE.read_bytes())} == {"a", "b", "fast", "old"}
    assert "1.5 %" in (workshop / "README.md").read_text()
    packaged = r.from_json((workshop / "src/forecast_error.json").read_bytes())
    assert [x.claim for x in packaged] == ["a"]
    assert "3 of 3 bars hold, 1 skipped" in (workshop / "docs/systems.md").read_text()


def test_rendering_measures_nothing(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(e, "run", lambda name, *, quick: pytest.fail("measured"))
    assert e.main(["--render"]) == 0
    assert "not measured yet" in (workshop / "README.md").read_text()
    with pytest.raises(SystemExit):
        e.main(["nonsense"])


def test_a_script_that_fails_or_babbles_yields_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "crash.py").write_text("raise SystemExit(3)\n")
    (package / "babble.py").write_text("print('hello')\n")
    (package / "fine.py").write_text("print('[]')\n")
    monkeypatch.setattr(e, "ROOT", tmp_path)
    assert e.run("crash", quick=True) is None
    assert e.run("babble", quick=True) is None
    assert e.run("fine", quick=True) == []


def test_systems_are_all_there_and_say_what_shows_them() -> None:
    found = e.systems((ROOT / "docs/systems.toml").read_text(encoding="utf-8"))
    assert len(found) == 62
    assert {s.state for s in found} <= {"planned", "partial", "done"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("number = 7\n", "number = 8\n", "in order"),
        ('state = "partial"', 'state = "almost"', "almost"),
        ('command = "fleetcast plan examples/quickstart.toml"\n', "", "name the command"),
    ],
)
def test_systems_refuses_a_broken_list(old: str, new: str, message: str) -> None:
    text = (ROOT / "docs/systems.toml").read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(ValueError, match=message):
        e.systems(text.replace(old, new, 1))


def test_docs_are_what_the_evidence_renders() -> None:
    """No figure is typed by hand: rendering again changes nothing."""
    records = r.from_json(e.EVIDENCE.read_bytes()) if e.EVIDENCE.exists() else []
    stale = [
        path.relative_to(ROOT).as_posix()
        for path, text in e.render(ROOT, records).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, "run: python -m benchmarks.evidence --render"
