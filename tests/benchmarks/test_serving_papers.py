"""One entry for the serving papers: it runs, keeps, skips and resumes scripts, and prints one table."""

import ast
from pathlib import Path

import pytest

from benchmarks import serving_papers
from benchmarks.evidence import scripts
from benchmarks.records import Null, Ours, Paper, Record, from_json, skipped


def record(name, **changes):
    fields = {
        "system": 6, "claim": f"{name} gains", "paper": Paper(value=2.0, unit="x"), "ours": Ours(value=1.5, unit="x"),
        "null": Null(value=1.0, what="do nothing"), "bar": "at least 1", "holds": True, "reproduced": "no",
        "reason": "another engine", "command": f"python -m benchmarks.{name}",
    }  # fmt: skip
    return Record(**fields | changes)


def world(fails=()):
    ran = []

    def measure(name, quick):
        ran.append((name, quick))
        return None if name in fails else [record(name)]

    return ran, measure


def test_a_failing_script_costs_no_other_its_records(tmp_path):
    kept, said = tmp_path / "kept.json", []
    ran, measure = world(fails=("b",))
    found, failed = serving_papers.gather(
        ("a", "b", "c", "later"), ("a", "b", "c"), quick=True, kept=kept, measure=measure, say=said.append
    )
    assert [r.claim for r in found] == ["a gains", "c gains"] and failed == ["b"]
    assert ran == [("a", True), ("b", True), ("c", True)]
    assert from_json(kept.read_bytes()) == found
    assert "[2/4] b: FAILED" in said[1] and "skipped, there is no benchmarks/later.py" in said[3]


def test_what_is_done_is_not_run_again(tmp_path):
    kept = tmp_path / "kept.json"
    first, measure = world(fails=("b",))
    serving_papers.gather(("a", "b"), ("a", "b"), quick=False, kept=kept, measure=measure, say=lambda _: None)
    ran, measure = world()
    options = {"quick": False, "kept": kept, "measure": measure, "say": lambda _: None}
    found, failed = serving_papers.gather(("a", "b"), ("a", "b"), resume=True, **options)
    assert len(first) == 2 and ran == [("b", False)] and len(found) == 2 and not failed
    again, _ = serving_papers.gather(("a", "b"), ("a", "b"), **options)
    assert ran[1:] == [("a", False), ("b", False)] and again == found


def test_a_row_says_whether_the_setting_is_the_papers_and_whether_the_claim_came_out():
    other = record("a", reproduced="other setting")
    assert serving_papers.row(record("a"))[2:] == (
        "2 x", "1.5 x", "1 x: do nothing", "yes", "another engine", "no",
    )  # fmt: skip
    assert serving_papers.row(other)[5:] == ("no", "another engine", "our bar holds")
    assert serving_papers.row(record("a", reproduced="other setting", holds=False))[7] == "our bar is missed"
    gone = skipped(system=6, claim="x", bar="y", why="no GPU", command="python -m benchmarks.a")
    assert serving_papers.row(gone)[5:] == ("-", "no GPU", "not measured")


def test_the_table_holds_every_cell_whole():
    text = serving_papers.table([record("a", reason="long " * 60)], width=120)
    assert text.count("long") == 60 and max(map(len, text.split("\n"))) <= 120
    assert all(head.split()[0] in text for head in serving_papers.HEAD)


def test_every_script_of_the_list_that_is_there_defines_records():
    """Those that are not there yet are skipped; one that lost its records would be too, so it is checked here."""
    folder = Path(serving_papers.__file__).parent
    there = [name for name in serving_papers.PAPERS if (folder / f"{name}.py").exists()]
    assert len(there) >= 8 and set(there) <= set(scripts())
    assert "serving_papers" not in scripts()
    tree = ast.parse((folder / "serving_papers.py").read_text(encoding="utf-8"))
    assert len([n for n in tree.body if isinstance(n, ast.FunctionDef)]) <= 5


def test_an_unknown_script_is_refused(capsys):
    with pytest.raises(SystemExit):
        serving_papers.main(["accuracy_plain"])
    assert "no script 'accuracy_plain'; known: splitwise" in capsys.readouterr().err
