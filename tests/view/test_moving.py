"""`fleetcast data`: what needs no server; the places themselves are tested as processes in tests/runtime/data."""

import json

import pytest

from fleetcast.view.cli import main

QUESTION = """
[fleet]
network = "wan-1g"
groups = [{ name = "beamline", devices = "1x rtx-4090" }, { name = "centre", devices = "8x h100-sxm" }]

[data]
at = "beamline"
size = "200 GB"

[work]
flop = 2e18
dtype = "bf16"
"""


@pytest.fixture
def question(tmp_path):
    path = tmp_path / "question.toml"
    path.write_text(QUESTION)
    return str(path)


def test_where_says_the_best_way_and_all(question, capsys):
    assert main(["data", "where", question]) == 0
    said = capsys.readouterr().out
    assert said.index("centre: copy the data first") < said.index("mount") < said.index("there  ")
    assert main(["data", "where", question, "--json"]) == 0
    ways = json.loads(capsys.readouterr().out)["ways"]
    assert [w["how"] for w in ways] == ["copy", "mount", "there"]


def test_tokens_are_printed_once_and_kept_as_hashes(tmp_path, capsys):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    from fleetcast.runtime.data.access import read_grants

    path = tmp_path / "tokens.toml"
    assert main(["data", "grant", "alpha", "--tokens", str(path), "--rights", "read,write", "--json"]) == 0
    token = json.loads(capsys.readouterr().out)["token"]
    assert main(["data", "grant", "*", "--tokens", str(path), "--holder", "the gateway"]) == 0
    other = capsys.readouterr().out.strip()
    assert token not in path.read_text() and other not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    access = read_grants(path)
    assert access.may(token, "write", "alpha") and not access.may(token, "read", "beta")
    assert access.may(other, "read", "beta") and not access.may(other, "write", "beta")


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["grant", "../x", "--tokens", "t.toml"], "project"),
        (["grant", "a", "--tokens", "t.toml", "--rights", "rw"], "rights"),
        (["vault", "v", "--tokens", "none.toml"], "none.toml"),
        (["vault", "v", "--tokens", "t", "--room", "ten"], "--room"),
        (["vault", "s3://b/p", "--tokens", "t"], "--spool"),
        (["gateway", "g", "--to", "http://example.org", "--tokens", "empty.toml"], "--to"),
        (["vault", "v", "--tokens", "empty.toml", "--host", "0.0.0.0"], "host"),
        (["vault", "v", "--tokens", "empty.toml", "--tls-cert", "x"], "--tls-cert"),
        (["push", "none", "--to", "http://127.0.0.1:9", "--project", "a", "--settle", "soon"], "--settle"),
        (["push", "none", "--to", "http://127.0.0.1:9", "--project", "a", "--key-env", "NOT_SET"], "--key-env"),
        (["push", "none", "--to", "nowhere", "--project", "a"], "--to"),
    ],
)  # fmt: skip
def test_words_that_cannot_be(tmp_path, monkeypatch, capsys, words, where):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    pytest.importorskip("obstore", reason="obstore is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEETCAST_DATA_TOKEN", "a token of this test")
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "t").write_text("")
    assert main(["data", *words]) == 2
    said = capsys.readouterr().err
    assert where in said and ("limit" in said or "next" in said)


def test_without_its_extra_a_place_says_what_to_install(tmp_path, monkeypatch, capsys):
    import builtins
    import sys

    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] in ("aiohttp", "obstore", "fsspec"):
            raise ImportError(name)
        return real(name, *rest)

    for name in list(sys.modules):
        if name.startswith("fleetcast.runtime.data."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent)
    assert main(["data", "vault", str(tmp_path), "--tokens", "t"]) == 2
    assert "pip install 'fleetcast[move]'" in capsys.readouterr().err
