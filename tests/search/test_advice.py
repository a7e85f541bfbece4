"""The deployability advisor: what it proposes fits, what it refuses does not, and why."""

import dataclasses
import json

import pytest

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.cost.engine import engine
from fleetcast.scenario.fleet.catalog import device, devices
from fleetcast.scenario.load import load
from fleetcast.scenario.plan import Plan, Pool
from fleetcast.scenario.workload.catalog import model
from fleetcast.search.advice.advisor import advise
from fleetcast.search.advice.techniques import FORMATS, SHAPES, Case, Change, storage_of
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.view import verbs
from fleetcast.view.cli import main

DEVICES = (
    "a17-pro", "snapdragon-8-gen-3", "snapdragon-865", "raspberry-pi-5", "jetson-agx-orin", "m4-max", "rtx-3090", "l4",
    "xeon-8480", "h100-sxm",
)  # fmt: skip
MODELS = (
    "llama-3.2-1b", "phi-2", "llama-3.2-3b", "phi-3-mini", "qwen2.5-7b", "llama-3.1-8b", "gemma-2-9b", "qwen3-14b",
    "gpt-oss-20b", "qwen3-32b", "llama-3.1-70b", "deepseek-v3",
)  # fmt: skip


def scenario(of, *on, prompt=1024, output=256, **plan):
    return {
        "fleet": {"devices": " + ".join(f"1x {name}" for name in on)},
        "workload": {
            "model": of, "arrivals": {"kind": "closed", "concurrency": 1, "requests": 1},
            "lengths": {"kind": "fixed", "prompt": prompt, "output": output},
        },
        "plan": plan,
    }  # fmt: skip


def advice(of, *on, **rest):
    return {a.device: a for a in advise(setting(load(scenario(of, *on, **rest))))}


@pytest.mark.parametrize("of", MODELS)
def test_what_is_proposed_fits_on_every_device(of):
    """10 devices x 12 models; where nothing lies elsewhere the serving world itself accepts the plan."""
    state = setting(load(scenario(of, *DEVICES)))
    for found in advise(state):
        chip = device(found.device)
        for option in found.options:
            limit = engine(found.engine).memory_fraction * chip.memory
            assert option.bytes <= option.have == limit <= chip.memory, (found.device, option.technique)
            assert option.ttft > 0 and option.tpot > 0 and (option.elsewhere > 0) == bool(option.where)
        for option in found.options:
            if option.technique in FORMATS:
                assert accepted(state, found, option.dtype if option.technique != "as published" else "auto")
        for refusal in found.refused:
            if refusal.technique in FORMATS and refusal.have:
                assert refusal.need > refusal.have
                dtype = {"quantise-fp8": "fp8-weights"}.get(refusal.technique, refusal.technique.split("-")[-1])
                assert not accepted(state, found, "auto" if refusal.technique == "as published" else dtype)


def accepted(state, found, dtype):
    """Whether the serving world takes the plan, on that device, for the longest request."""
    group = next(g for g in state.tree.groups if g.device.id == found.device)
    alone = dataclasses.replace(state, tree=dataclasses.replace(state.tree, groups=(group,)), _servers={}, _kernels={})
    pool = Pool(
        replicas=1, tensor_parallel=1, pipeline_parallel=1, engine=found.engine, dtype=dtype,
        batch={"kind": "chunked", "chunk": 512, "max_batch": 1},
    )  # fmt: skip
    try:
        complete(alone, Plan(pools=(pool,)))
    except Infeasible:
        return False
    return True


def test_bytes_of_weights_are_the_models():
    found = advice("llama-3.1-8b", "h100-sxm")["h100-sxm"]
    rows = {o.technique: o for o in found.options}
    whole, four = rows["as published"], rows["quantise-int4"]
    weights = model("llama-3.1-8b")
    assert whole.bytes - four.bytes == pytest.approx(weights.weight_bytes() - weights.weight_bytes(dtype="int4"))
    assert four.tpot < whole.tpot and four.quality != "none" and whole.quality == "none"


def test_layers_elsewhere_cost_their_way_back_in_every_token():
    rows = {o.technique: o for o in advice("llama-3.1-70b", "rtx-3090")["rtx-3090"].options}
    away, far = rows["offload"], rows["stream"]
    assert away.where == "host memory" and far.where == "storage" and away.elsewhere == far.elsewhere
    assert away.elsewhere + away.bytes > model("llama-3.1-70b").weight_bytes()
    assert away.tpot > away.elsewhere / 31.5e9 and far.tpot > far.elsewhere / 7e9
    assert far.tpot - away.tpot == pytest.approx(far.elsewhere * (1 / 7e9 - 1 / 31.5e9), rel=1e-6)
    four = rows["offload + quantise-int4"]
    assert four.elsewhere < away.elsewhere / 2 and four.tpot < away.tpot / 2


def test_only_the_experts_that_a_token_needs_come_back():
    option = next(o for o in advice("gpt-oss-20b", "a17-pro")["a17-pro"].options if o.technique == "stream")
    assert option.tpot < 0.5 * option.elsewhere / storage_of(device("a17-pro")).bandwidth


def test_a_shape_takes_the_widest_weights_that_fit():
    found = advice("llama-3.1-8b", "a17-pro")["a17-pro"]
    assert [o.technique for o in found.options if not o.where] == ["prune + quantise-int4", "distil + quantise-int8"]
    distilled = next(o for o in found.options if o.technique.startswith("distil"))
    assert distilled.model == "llama-3.2-3b" and "unknown" in distilled.quality
    whole = next(r for r in found.refused if r.technique == "quantise-int4")
    assert whole.need > whole.have == 6e9


def test_a_familial_model_leaves_its_last_layers_out_at_a_published_score():
    rows = {o.technique: o for o in advice("qwen2.5-7b", "h100-sxm")["h100-sxm"].options}
    assert rows["exit"].bytes < rows["as published"].bytes
    assert "70.5% right instead of 71.6%" in rows["exit"].quality and "Ruyi" in rows["exit"].source


@pytest.mark.parametrize(
    ("technique", "of", "on", "why"),
    [
        ("quantise-fp8", "qwen2.5-7b", "a17-pro", "does not multiply fp8"),
        ("quantise-fp8", "deepseek-v3", "h100-sxm", "fp8 already"),
        ("quantise-int8", "qwen2.5-7b", "m4-max", "does not multiply int8"),
        ("quantise-int8", "gpt-oss-20b", "h100-sxm", "mxfp4 already"),
        ("quantise-int4", "deepseek-v3", "h100-sxm", "quantise the unquantised one"),
        ("exit", "llama-3.1-8b", "h100-sxm", "no exits were trained"),
        ("distil", "llama-3.2-1b", "h100-sxm", "no smaller model"),
        ("offload", "qwen2.5-7b", "a17-pro", "memory is the host's"),
    ],
)
def test_a_technique_says_what_it_lacks(technique, of, on, why):
    made = (FORMATS | SHAPES)[technique](Case(model(of), device(on)))
    assert isinstance(made, str) and why in made


def test_every_technique_has_a_line_about_it_and_a_quality():
    case = Case(model("qwen2.5-7b"), device("h100-sxm"))
    for name, technique in (FORMATS | SHAPES).items():
        assert (technique.__doc__ or "").strip().endswith("."), name
        made = technique(case)
        if isinstance(made, Change) and name not in ("as published", "whole", "offload", "stream"):
            assert made.quality != "none" and (made.source or "unknown" in made.quality), name


def test_every_device_has_a_storage():
    assert all(storage_of(d).bandwidth > 1e8 for d in devices().values())


def test_a_longer_request_takes_more_memory():
    short, long = (advice("llama-3.2-1b", "a17-pro", prompt=p)["a17-pro"].options[0].bytes for p in (1000, 20_000))
    assert long - short == pytest.approx(19_000 * model("llama-3.2-1b").kv_bytes_per_token(), rel=0.01)


def test_an_encoder_decoder_is_refused_by_name():
    with pytest.raises(SpecError, match="encoder-decoder"):
        advice("t5-11b", "h100-sxm")


def test_the_command_answers_in_words_and_in_json(tmp_path, capsys):
    file = tmp_path / "phone.json"
    file.write_text(json.dumps(scenario("llama-3.1-8b", "a17-pro")))
    assert main(["advise", str(file)]) == 0
    said = capsys.readouterr().out
    assert "llama-3.1-8b runs on a17-pro" in said and "distil + quantise-int8" in said and "6 GB" in said
    assert main(["advise", str(file), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["advice"][0]
    assert table["device"] == "a17-pro" and {"technique", "bytes", "quality"} <= set(table["options"][0])
    file.write_text(json.dumps(scenario("deepseek-v3", "a17-pro")))
    assert main(["advise", str(file)]) == 1
    assert "does not run on a17-pro" in capsys.readouterr().out


def test_without_traffic_one_user_is_asked_about_and_said():
    bare = {"fleet": {"devices": "1x snapdragon-8-gen-3"}, "workload": {"model": "llama-3.2-3b"}}
    ours, stated = verbs.advise(bare)[0], verbs.advise(scenario("llama-3.2-3b", "snapdragon-8-gen-3"))[0]
    assert ours.options == stated.options and not stated.notes
    assert len(ours.notes) == 2 and "one user" in ours.notes[0] and "1,024 prompt and 256 output" in ours.notes[1]
    longer = bare | {"workload": bare["workload"] | {"lengths": {"kind": "fixed", "prompt": 4096, "output": 256}}}
    found = verbs.advise(longer)[0]
    assert len(found.notes) == 1 and found.options[0].ttft > ours.options[0].ttft


def test_options_name_the_transform_that_makes_their_checkpoint():
    found = {
        o.technique: o.transform for o in advice("llama-3.1-8b", "snapdragon-8-gen-3")["snapdragon-8-gen-3"].options
    }
    assert found["quantise-int4"] == "quantise-int4"
    assert found["prune + quantise-int8"] == "prune + quantise-int8"
    assert found["distil"] == "distil student=llama-3.2-3b"
    assert found["stream"] == ""
    other = advice("gemma-2-9b", "m4-max")["m4-max"].options
    assert other and not any(o.transform for o in other)  # a family that is not transformed
    exits = [
        o for o in advice("qwen2.5-7b", "snapdragon-8-gen-3")["snapdragon-8-gen-3"].options if "exit" in o.technique
    ]
    assert exits and not any(o.transform for o in exits)
