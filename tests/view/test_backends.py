"""What `fleetcast measure model` shows and refuses."""

import io

from rich.console import Console

from fleetcast.runtime.measure.backends import Cell, Comparison, shapes
from fleetcast.view.backends import backends_view
from fleetcast.view.cli import main


def _text(found):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(backends_view(found))
    return console.export_text()


def _cell(backend, seconds):
    return Cell(shape="bert", backend=backend, sequence=16, batch=1, seconds=seconds, cpu=0.1)


def _found(difference, load=0.1):
    return Comparison(
        shapes=(shapes.shape("bert"),), cells=(_cell("torch", (0.02, 0.03, 0.025)), _cell("openvino", (0.01,) * 3)),
        differences={"bert": {"torch": 0.0, "openvino": difference}}, skipped={"ctranslate2": "it is not installed"},
        threads=2, load=(load, load),
    )  # fmt: skip


def test_the_table_marks_the_fastest_and_says_who_agrees_and_who_did_not_run():
    text = _text(_found(3e-6))
    assert "10 ms *" in text and "25 ms" in text
    assert "they agree to 0.0001" in text and "not run: ctranslate2: it is not installed" in text
    assert "busy" not in text and "busy" in _text(_found(3e-6, load=2.0))
    assert "MORE THAN" in _text(_found(3e-3))


def test_what_cannot_be_is_refused_before_anything_runs(capsys):
    for words, said in (
        (["brt"], "Did you mean 'bert'"), (["bert", "--sequences", "a,b"], "whole numbers"),
        (["bert", "--sequences", "1000"], "1 to 512"), (["bert", "--backends", "tensorflow"], "is not known"),
        (["bert", "--profile", "tensorflow"], "no backend of this run"), (["bert", "--runs", "0"], "runs"),
    ):  # fmt: skip
        assert main(["measure", "model", *words]) == 2, words
        assert said in capsys.readouterr().err
