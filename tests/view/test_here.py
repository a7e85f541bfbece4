"""`fleetcast run` without a server: a model runs here, and simulate, compare and calibrate read what it leaves."""

import json
from dataclasses import replace

import pytest

import fleetcast
from fleetcast.base.errors import Infeasible, SpecError, Unsupported
from fleetcast.runtime.replay.local import STEPS
from fleetcast.view import here
from fleetcast.view.calibrating import read_steps
from fleetcast.view.cli import main
from tests.runtime.llm import tiny

try:
    import safetensors  # noqa: F401
    import torch

    MODELS = True
except ImportError:
    MODELS = False
needs_torch = pytest.mark.skipif(not MODELS, reason="torch and safetensors are not installed")


def scenario(tmp_path, **plan):
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny.config("llama-biased")))
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in plan.items())
    file = tmp_path / "here.toml"
    file.write_text(
        '[fleet]\ndevices = "1x epyc-9654"\n[workload]\nmodel = "model"\n'
        'arrivals = { kind = "closed", concurrency = 3, requests = 12 }\n'
        'lengths = { kind = "lognormal", prompt = 20, prompt_p90 = 40, output = 8, output_p90 = 16 }\n'
        f'[slo]\nttft_p99 = "10 s"\n[plan]\n{lines}\n'
    )
    return file


@needs_torch
def test_a_run_leaves_what_the_other_commands_read(tmp_path, capsys):
    file, out = scenario(tmp_path), tmp_path / "run"
    assert main(["run", str(file), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "12 requests answered" in said.out
    assert "weights are random" in " ".join(said.out.split())
    names = {path.name for path in out.iterdir()}
    assert names == {"outcome.json", "requests.csv", "plan.toml", "steps.csv", "trace.json.gz"}
    table = json.loads((out / "outcome.json").read_text())
    assert (table["source"], table["plan"]["engine"], table["plan"]["dtype"]) == ("measured", "fleetcast", "fp32")
    assert table["metrics"]["requests"] == 12
    steps = read_steps(out / "steps.csv")
    assert len(steps) == table["provenance"]["iterations"]
    emitted = steps[:, STEPS.index("emitted")].sum()
    assert emitted == table["metrics"]["output_tokens"]
    assert steps[:, STEPS.index("prompt_tokens")].sum() + steps[:, STEPS.index("decodes")].sum() == (
        table["metrics"]["prompt_tokens"] + emitted - 12  # a request's last token is not processed
    )

    assert main(["simulate", str(out / "plan.toml"), "--out", str(tmp_path / "forecast")]) == 0
    capsys.readouterr()
    files = [str(tmp_path / name / "outcome.json") for name in ("forecast", "run")]
    assert main(["compare", *files, "--plot", str(tmp_path / "terms.svg")]) == 0
    said = capsys.readouterr().out
    assert "All busy time" in said
    assert "different requests" not in said
    picture = (tmp_path / "terms.svg").read_text()
    assert picture.startswith("<svg") and "matrix products" in picture
    assert main(["compare", *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    whole = sum(term["after"] for term in found["terms"])
    off = sum(term["before"] for term in found["terms"]) / whole - 1
    assert sum(term["share"] for term in found["terms"]) == pytest.approx(off)

    assert main(["calibrate", str(out), "--out", str(tmp_path / "new.toml")]) == 0
    said = capsys.readouterr().out
    assert "host, an iteration" in said
    changed = (out / "plan.toml").read_text().replace('"1x epyc-9654"', f'"1x {tmp_path / "new.toml"}"')
    (out / "again.toml").write_text(changed)
    before, after = (fleetcast.simulate(out / name) for name in ("plan.toml", "again.toml"))
    measured = table["metrics"]["e2e"]["mean"]
    assert abs(after.metrics["e2e"]["mean"] / measured - 1) < abs(before.metrics["e2e"]["mean"] / measured - 1)


@needs_torch
def test_python_runs_a_plan_that_says_nothing(tmp_path):
    found = fleetcast.run(scenario(tmp_path), speed=2.0)
    assert found.source == "measured"
    assert found.metrics["failed"] == 0
    assert found.record is not None
    assert len(found.record) == found.provenance["iterations"]


def drafting(tmp_path, pools, devices="2x epyc-9654"):
    """A scenario of a tiny model and a smaller one, with these pools."""
    file = scenario(tmp_path)
    (tmp_path / "small").mkdir()
    small = tiny.config("llama-biased") | {"num_hidden_layers": 1}
    (tmp_path / "small" / "config.json").write_text(json.dumps(small))
    text = file.read_text().replace("1x epyc-9654", devices).split("[plan]")[0]
    file.write_text(text + pools)
    return file


IN_PLACE = '[plan]\nspeculate = { kind = "fixed", length = 3, model = "small", acceptance = 0.5 }\n'
APART = """[[plan.pools]]
speculate = { kind = "fixed", length = 3, acceptance = 0.5 }
[[plan.pools]]
role = "draft"
model = "small"
"""
LOOKUP = '[plan]\nspeculate = { kind = "ngram", length = 3 }\n'


@needs_torch
@pytest.mark.parametrize("pools", [IN_PLACE, APART, LOOKUP], ids=["in-place", "draft-pool", "lookup"])
def test_a_plan_that_drafts_is_run_with_its_drafter(tmp_path, pools, capsys):
    out = tmp_path / "run"
    assert main(["run", str(drafting(tmp_path, pools)), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "12 requests answered" in said
    assert "drafts: " in said
    table = json.loads((out / "outcome.json").read_text())
    terms = table["breakdown"]["time"]
    assert terms["draft"] > 0
    assert terms["host"] > 0
    assert sum(terms.values()) == pytest.approx(table["metrics"]["makespan"], rel=0.02)
    if pools != LOOKUP:
        assert "draft model's weights are random" in said
        assert table["provenance"]["draft_weights"] == "random"
        assert "acceptance = [" in said
    plan = table["plan"]["pools"] if pools == APART else [table["plan"]]
    assert plan[0]["speculate"]["length"] == 3
    if pools == APART:
        assert (plan[1]["role"], plan[1]["replicas"], plan[1]["dtype"]) == ("draft", 1, "fp32")
    assert main(["simulate", str(out / "plan.toml")]) == 0


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        (IN_PLACE.replace("length = 3", "drafters = 3"), r"plan\.speculate = fixed: .*Set drafters = 1"),
        (APART + "tensor_parallel = 2\n", r"the draft pool\.tensor_parallel = 2: "),
        (APART.replace("length = 3", "drafters = 3"), r"plan\.pools\[0\]\.speculate = fixed: .*Set drafters = 1"),
        (APART + "[[plan.pools]]\n", r"plan\.pools: 2 pools cannot run on one processor"),
    ],
)
def test_drafters_that_cannot_run_here_are_refused(tmp_path, pools, said):
    with pytest.raises(Unsupported, match=said):
        fleetcast.run(drafting(tmp_path, pools))


@pytest.mark.parametrize(
    ("plan", "error", "said"),
    [
        ({"replicas": 2}, Unsupported, r"plan\.replicas = 2: "),
        ({"expert_parallel": 2}, Unsupported, r"plan\.expert_parallel = 2: "),
        ({"overlap": "nano"}, Unsupported, r"plan\.overlap = 'nano': "),
        ({"engine": "nonesuch"}, SpecError, r"plan\.engine: is unknown"),
    ],
)
def test_what_cannot_run_here_is_refused_before_anything_is_loaded(tmp_path, plan, error, said):
    with pytest.raises(error, match=said):
        fleetcast.run(scenario(tmp_path, **plan))


@needs_torch
def test_a_request_beyond_the_models_context_is_refused(tmp_path):
    file = scenario(tmp_path)
    file.write_text(file.read_text().replace("prompt = 20, prompt_p90 = 40", "prompt = 2000, prompt_p90 = 2100"))
    with pytest.raises((SpecError, Infeasible), match="beyond the model's context"):
        fleetcast.run(file)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        ({}, "holds no iterations to fit"),
        ({"plan.toml": "", "steps.csv": "a,b\n1,2\n"}, "fleet: is missing"),
    ],
)
def test_folders_that_hold_no_run_are_refused(tmp_path, capsys, write, said):
    for name, text in write.items():
        (tmp_path / name).write_text(text)
    assert main(["calibrate", str(tmp_path)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("text", "said"), [("a,b\n1,2\n", "has other columns"), (",".join(STEPS) + "\n1,x\n", "number")]
)
def test_iterations_that_cannot_be_read_are_refused(tmp_path, text, said):
    (tmp_path / "steps.csv").write_text(text)
    with pytest.raises(SpecError, match=said):
        read_steps(tmp_path / "steps.csv")


@needs_torch
def test_a_tiny_model_that_keeps_prefixes_takes_no_more_cache_than_its_requests_fill(tmp_path, monkeypatch):
    file, kept = scenario(tmp_path, prefix_cache="lru"), []

    def launched(*given, **settings):
        found = launch(*given, **settings)
        kept.append((settings["blocks"], settings["most"], found.engine))
        return found

    launch = here.launch
    monkeypatch.setattr(here, "launch", launched)
    here.run(file)
    ((planned, most, engine),) = kept
    assert engine.blocks.count == most < planned / 1000
    assert engine.preemptions == 0
    # all that were asked, kept to the end, fit beside each other
    assert 0 < engine.blocks.used <= most


@needs_torch
@pytest.mark.parametrize(
    ("fleet", "asked", "given"),
    [
        ("epyc-9654", "auto", "cpu"), ("h100-sxm", "auto", "auto"),
        ("h100-sxm", "cpu", "cpu"), ("epyc-9654", "cuda", "cuda"),
    ],
)  # fmt: skip
def test_a_fleet_of_gpus_runs_on_cuda_where_there_is_one(tmp_path, monkeypatch, fleet, asked, given):
    file, seen = scenario(tmp_path), []
    file.write_text(file.read_text().replace("epyc-9654", fleet))

    def launched(*_, device, **settings):
        seen.append(device)
        found = launch(*_, device="cpu", **settings)
        return replace(found, device="cpu" if given == "cpu" else "Faked H100")

    launch = here.launch
    monkeypatch.setattr(here, "launch", launched)
    found = fleetcast.run(file, device=asked)
    assert seen == [given]
    on_cuda = any(note.startswith(f"ran on Faked H100 by CUDA; the fleet's device is {fleet}") for note in found.notes)
    assert on_cuda == (given != "cpu") == (found.provenance["device"] == "Faked H100")


@needs_torch
def test_cuda_is_refused_where_there_is_none_and_for_a_server(tmp_path, capsys):
    if not torch.cuda.is_available():
        assert main(["run", str(scenario(tmp_path)), "--device", "cuda"]) == 2
        assert "torch finds no CUDA device" in " ".join(capsys.readouterr().err.split())
    assert main(["run", str(scenario(tmp_path)), "--url", "http://127.0.0.1:1", "--device", "cpu"]) == 2
    assert "device: is for a model that runs here" in " ".join(capsys.readouterr().err.split())


def test_what_only_a_server_understands_is_refused_without_one(tmp_path, capsys):
    assert main(["run", str(scenario(tmp_path)), "--model", "x"]) == 2
    assert "--model is for a server" in capsys.readouterr().err
