"""The command that makes a model smaller: what it prints and writes, and what it refuses."""

import json

import pytest

import fleetcast
from fleetcast.base.errors import SpecError
from fleetcast.view.cli import main
from tests.runtime.llm import tiny


def test_without_a_folder_to_write_it_says_so(tmp_path, capsys):
    assert main(["transform", str(tmp_path), "prune"]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_folder_is_made_smaller_and_the_bytes_are_shown(tmp_path, capsys):
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    table = tiny.config("qwen3") | {"num_hidden_layers": 4}
    folder = tiny.write(tmp_path / "model", table, tiny.tensors(table))
    assert main(["transform", str(folder), "prune + quantise-int4", "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "prune + quantise-int4" in said and "+0.00% from foretold" in said
    assert main(["transform", str(folder), "narrow ffn=0.5", "--out", str(tmp_path / "b"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["tensors"] == made["predicted"] < made["source"] and made["after"] is None
    assert json.loads((tmp_path / "b" / "config.json").read_text())["intermediate_size"] == 24
    assert main(["transform", str(folder), "quantize", "--out", str(tmp_path / "c")]) == 2
    assert "Did you mean 'quantise'?" in capsys.readouterr().err
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("a b c")
    with pytest.raises(SpecError, match="too short"):
        fleetcast.transform(folder, "prune", tmp_path / "d", text=tmp_path / "notes")
    with pytest.raises(SpecError, match="holds no text"):
        fleetcast.transform(folder, "prune", tmp_path / "d", text=tmp_path / "model")
