"""Exports of training plans: golden files, what a trainer reads back from them, and what is refused."""

import json
import re
import shlex
import tomllib

import pytest

import fleetcast
from fleetcast.base.errors import Infeasible, SpecError, Unsupported
from fleetcast.view import verbs
from fleetcast.view.exports import training

BASE = {"kind": "training", "sequence": 2048, "batch": 1536, "steps": 1000}
GPT = {
    "name": "gpt", "fleet": {"devices": "1024x a100-80g-sxm"}, "workload": BASE | {"model": "gpt3-175b"},
    "plan": {
        "tensor_parallel": 8, "pipeline_parallel": 8, "interleave": 3, "micro_batch": 1, "recompute": "selective",
        "fused_attention": False, "overlap": ["data", "pipeline"],
    },
}  # fmt: skip
LLAMA = {
    "name": "llama", "fleet": {"devices": "64x h100-sxm"},
    "workload": {"kind": "training", "model": "llama-3.1-8b", "sequence": 8192, "batch": 64},
    "plan": {"zero": 3, "micro_batch": 1, "recompute": "full"},
}  # fmt: skip
MOE = {
    "name": "moe", "fleet": {"devices": "64x h100-sxm"},
    "workload": {"kind": "training", "model": "mixtral-8x7b", "sequence": 4096, "batch": 256, "steps": 10},
    "plan": {"tensor_parallel": 4, "pipeline_parallel": 2, "expert_parallel": 8, "recompute": "full"},
}  # fmt: skip
SMALL = {
    "name": "small", "fleet": {"devices": "8x a100-80g-sxm"},
    "workload": BASE | {"model": "gpt3-175b", "batch": 64} | {"model": {"layers": 24, "hidden": 2048, "heads": 16}},
    "plan": {"micro_batch": 2, "zero": 2, "offload": ["optimizer"]},
}  # fmt: skip
GOLDEN = [
    ("gpt", GPT, "megatron"), ("gpt", GPT, "torchrun"), ("moe", MOE, "megatron"), ("llama", LLAMA, "torchtitan"),
    ("llama", LLAMA, "deepspeed"), ("small", SMALL, "deepspeed"),
]  # fmt: skip


def table(base, **plan):
    return base | {"plan": base["plan"] | plan}


def flags(text):
    """The flags of a script, as a shell and argparse would read them: name -> value, True without one."""
    lines = text.replace("\\\n", " ").splitlines()
    words = shlex.split(next(line for line in lines if line.startswith("torchrun")))
    words = words[words.index("pretrain_gpt.py") + 1 :] if "pretrain_gpt.py" in words else words
    found = {}
    for i, word in enumerate(words):
        if word.startswith("--"):
            after = words[i + 1] if i + 1 < len(words) else "--"
            found[word] = True if after.startswith(("--", "$")) else after
    return found


@pytest.mark.parametrize(("name", "scenario", "target"), GOLDEN)
def test_golden(root, name, scenario, target):
    made = verbs.export(scenario, target)
    golden = root / "tests" / "golden" / "exports" / f"{name}-{target}.{made.suffix}"
    assert made.text == golden.read_text(encoding="utf-8"), f"write {golden.name} anew if the change is wanted"


def test_megatron_reads_the_plan_back():
    got = flags(verbs.export(GPT, "megatron").text)
    degrees = [int(got[f"--{n}"]) for n in ("tensor-model-parallel-size", "pipeline-model-parallel-size")]
    assert degrees == [8, 8]
    assert int(got["--num-layers-per-virtual-pipeline-stage"]) == 96 // (8 * 3)
    assert (int(got["--micro-batch-size"]), int(got["--global-batch-size"]), int(got["--train-iters"])) == (
        1,
        1536,
        1000,
    )
    assert got["--sequence-parallel"] is True and got["--use-distributed-optimizer"] is True
    assert got["--recompute-granularity"] == "selective" and "--recompute-method" not in got
    assert got["--attention-backend"] == "unfused" and got["--bf16"] is True
    assert got["--overlap-grad-reduce"] is True and "--no-overlap-p2p-communication" not in got
    assert (int(got["--num-layers"]), int(got["--hidden-size"]), int(got["--num-attention-heads"])) == (96, 12288, 96)
    assert "--swiglu" not in got and got["--position-embedding-type"] == "learned_absolute"


def test_megatron_counts_devices_as_the_plan_does():
    """What Megatron-LM derives: world = nodes x devices; data parallelism is what tensor, pipeline, context leave."""
    made = verbs.export(GPT, "megatron")
    got = flags(made.text)
    words = made.data["argv"]
    world = int(words[words.index("--nnodes") + 1]) * int(words[words.index("--nproc-per-node") + 1])
    split = int(got["--tensor-model-parallel-size"]) * int(got["--pipeline-model-parallel-size"])
    data = world // split
    assert world == 1024 and data == 16
    assert int(got["--global-batch-size"]) % (int(got["--micro-batch-size"]) * data) == 0


def test_megatron_says_what_a_llama_and_a_mixture_are():
    dense = flags(verbs.export(table(LLAMA, zero=1), "megatron").text)
    assert (
        dense["--swiglu"] is True and dense["--normalization"] == "RMSNorm" and dense["--disable-bias-linear"] is True
    )
    assert dense["--group-query-attention"] is True and dense["--num-query-groups"] == "8"
    assert dense["--untie-embeddings-and-output-weights"] is True and "--kv-channels" not in dense
    moe = flags(verbs.export(MOE, "megatron").text)
    assert (moe["--num-experts"], moe["--moe-router-topk"], moe["--expert-model-parallel-size"]) == ("8", "2", "8")
    assert moe["--moe-ffn-hidden-size"] == "14336" and moe["--recompute-method"] == "uniform"


def test_megatron_shares_out_by_its_fsdp():
    got = flags(verbs.export(LLAMA, "megatron").text)
    assert got["--use-megatron-fsdp"] is True and got["--data-parallel-sharding-strategy"] == "optim_grads_params"
    assert got["--no-gradient-accumulation-fusion"] is True and got["--ckpt-format"] == "fsdp_dtensor"
    with pytest.raises(Unsupported, match=r"plan.zero = 1, or pipeline_parallel = 1"):
        verbs.export(table(GPT, zero=2), "megatron")


def test_deepspeed_batches_multiply_out():
    for scenario in (LLAMA, SMALL):
        made = verbs.export(scenario, "deepspeed")
        got = json.loads(made.text)
        assert got == made.data["config"]
        copies = int(scenario["fleet"]["devices"].split("x")[0])
        micro, steps = got["train_micro_batch_size_per_gpu"], got["gradient_accumulation_steps"]
        assert got["train_batch_size"] == micro * steps * copies == scenario["workload"]["batch"]
        assert got["zero_optimization"]["stage"] == scenario["plan"]["zero"] and got["bf16"]["enabled"] is True
    assert got["zero_optimization"]["offload_optimizer"]["device"] == "cpu"


def test_torchtitan_reads_the_plan_back():
    got = tomllib.loads(verbs.export(LLAMA, "torchtitan").text)
    assert got["model"] == {"name": "llama3", "flavor": "8B"}
    split = got["parallelism"]
    assert split["data_parallel_shard_degree"] == 64 and split["fsdp_reshard_after_forward"] == "always"
    assert got["training"]["local_batch_size"] == 1 and got["training"]["global_batch_size"] == 64
    assert got["activation_checkpoint"]["mode"] == "full"
    piped = tomllib.loads(
        verbs.export(table(LLAMA, pipeline_parallel=4, interleave=2, tensor_parallel=2, zero=2), "torchtitan").text
    )
    split = piped["parallelism"]
    assert split["pipeline_parallel_schedule"] == "Interleaved1F1B" and split["pipeline_parallel_layers_per_stage"] == 4
    assert piped["training"]["local_batch_size"] == 64 // 8, "a pipeline cuts it into micro-batches"
    degrees = ("data_parallel_shard_degree", "tensor_parallel_degree", "pipeline_parallel_degree")
    assert split[degrees[0]] * split[degrees[1]] * split[degrees[2]] == 64


def test_torchrun_starts_every_device_once():
    made = verbs.export(LLAMA, "torchrun")
    words = made.data["argv"]
    assert int(words[words.index("--nnodes") + 1]) * int(words[words.index("--nproc-per-node") + 1]) == 64
    assert words[-1] == "train.py" and "ZERO=3" in made.data["env"]
    alone = verbs.export(SMALL, "torchrun")
    assert "--nnodes" not in alone.data["argv"] and "HEAD" not in alone.text


REFUSED = [
    (GPT, {"schedule": "zero-bubble", "interleave": 1}, "megatron", "no 'zero-bubble'.*1f1b or interleaved"),
    (LLAMA, {"offload": ["weights"]}, "megatron", "keep weights off the device: it moves optimizer"),
    (SMALL, {"zero": 0}, "megatron", "plan.zero = 1"),
    (GPT, {"sequence_parallel": False, "interleave": 1, "zero": 2}, "deepspeed", "pipeline does not take ZeRO-2"),
    (GPT, {}, "deepspeed", "no 'interleaved' schedule"),
    (LLAMA, {"tensor_parallel": 2, "zero": 2}, "deepspeed", "plan.sequence_parallel = false"),
    (LLAMA, {"tensor_parallel": 2, "sequence_parallel": False}, "deepspeed", "up to ZeRO-2"),
    (LLAMA, {"context_parallel": 2}, "deepspeed", "Ulysses"),
    (SMALL, {"offload": ["weights"]}, "deepspeed", "plan.zero = 3"),
    (LLAMA, {"offload": ["optimizer"]}, "torchtitan", "together, under FSDP; not optimizer"),
    (LLAMA, {"zero": 1}, "torchtitan", "has no ZeRO-1"),
    (SMALL, {"offload": []}, "torchtitan", "no model of the class.*export to megatron"),
    (LLAMA, {"dtype": "fp16", "zero": 3}, "torchtitan", "bf16 or fp32, not fp16"),
]


@pytest.mark.parametrize(("scenario", "plan", "target", "said"), REFUSED)
def test_what_a_trainer_cannot_do_is_refused_with_what_to_plan(scenario, plan, target, said):
    with pytest.raises(Unsupported, match=said) as caught:
        verbs.export(table(scenario, **plan), target)
    assert caught.value.hint


def test_all_targets_are_known_and_kinds_are_told_apart():
    with pytest.raises(SpecError, match="megatron, deepspeed, torchtitan, torchrun"):
        verbs.export(GPT, "megatrn")
    with pytest.raises(Unsupported, match=r"serves requests.*megatron"):
        verbs.export(GPT, "vllm")
    with pytest.raises(Unsupported, match=r"trains.*vllm"):
        verbs.export("simulate", "megatron")
    assert set(training.TARGETS) == {t for _, _, t in GOLDEN}


def test_a_plan_that_does_not_fit_is_not_written():
    big = GPT | {"fleet": {"devices": "64x a100-80g-sxm"}, "plan": {"tensor_parallel": 8}}
    with pytest.raises(Infeasible, match="memory of a device"):
        verbs.export(big, "megatron")


def test_unlike_layers_are_left_to_the_engines_own_examples():
    deep = LLAMA | {"workload": LLAMA["workload"] | {"model": "deepseek-v2-lite"}, "plan": {"zero": 3}}
    with pytest.raises(Unsupported, match="layers of several kinds"):
        verbs.export(deep, "megatron")
    hybrid = LLAMA | {"fleet": {"devices": "256x h100-sxm"}, "workload": LLAMA["workload"] | {"batch": 256}}
    hybrid["workload"]["model"] = "qwen3-next-80b-a3b"
    with pytest.raises(Unsupported, match="layers of several kinds"):
        verbs.export(hybrid, "megatron")


def test_stages_of_unlike_length_are_laid_out_or_refused():
    """Faster devices hold more layers: Megatron's layout says it, with the order of nodes; others have no word."""
    from fleetcast.view.exports.training.megatron import layout

    model = {"layers": 16, "hidden": 2048, "heads": 16, "gated": True, "vocab": 32000}
    scenario = fleetcast.load({
        "fleet": {"devices": "16x a100-80g-sxm + 8x h100-sxm"}, "plan": {"pipeline_parallel": 3},
        "workload": {"kind": "training", "model": model, "sequence": 2048, "batch": 48},
    })  # fmt: skip
    text = verbs.export(scenario, "megatron").text
    note = next(n for n in fleetcast.simulate(scenario).notes if "holds" in n)
    counts = [int(n) for n in re.findall(r"(?<=t\*)\d+", text)]
    assert sum(counts) == 16 and len(set(counts)) > 1 and layout(counts) in text
    assert str(max(counts)) in note and "first h100-sxm, a100-80g-sxm: stages follow that order" in text
    assert f"LAYERS={','.join(map(str, counts))}" in verbs.export(scenario, "torchrun").text
    for target in ("deepspeed", "torchtitan"):
        with pytest.raises(Unsupported, match=r"equal stages alone.*Export to megatron"):
            verbs.export(scenario, target)
    assert layout((3, 2)) == "Et*3|t*2L"
