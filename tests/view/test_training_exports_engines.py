"""Exports of training read by the trainers' own parsers, and run by them where a CPU can: skipped where none is here.

DeepSpeed and torchtitan are not among the project's extras: install them beside it, torch for the CPU is enough.
Megatron-LM's parser (megatron/training/arguments.py) is in its repository alone; the package megatron-core has none,
but it reads the layout of unlike stages.
"""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest

import fleetcast
from fleetcast.view import verbs

SHAPE = {"layers": 16, "hidden": 2048, "heads": 16, "gated": True, "tied": False, "vocab": 32000}


def exported(to, plan, model=SHAPE, devices="16x a100-80g-sxm", batch=64, **workload):
    scenario = fleetcast.load({
        "fleet": {"devices": devices}, "plan": plan,
        "workload": {"kind": "training", "model": model, "sequence": 2048, "batch": batch, **workload},
    })  # fmt: skip
    return verbs.export(scenario, to)


class Copies:
    """What DeepSpeed asks of a model that is split: how many copies there are."""

    def __init__(self, count):
        self.count = count

    def get_data_parallel_world_size(self):
        """As Megatron names it."""
        return self.count


DEEPSPEED = [
    {"zero": 0}, {"zero": 1, "micro_batch": 2}, {"zero": 2, "recompute": "full"}, {"zero": 3, "overlap": []},
    {"zero": 1, "pipeline_parallel": 2}, {"zero": 2, "tensor_parallel": 2, "sequence_parallel": False},
    {"zero": 3, "offload": ["weights", "optimizer"]}, {"zero": 1, "dtype": "fp16", "offload": ["optimizer"]},
    {"zero": 2, "recompute": "full", "offload": ["activations"]}, {"zero": 0, "dtype": "fp32"},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # DeepSpeed leaves its file open, and old names alive
@pytest.mark.parametrize("plan", DEEPSPEED, ids=str)
def test_deepspeed_reads_what_the_plan_says(plan, tmp_path, monkeypatch):
    runtime = pytest.importorskip("deepspeed.runtime.config", reason="wants deepspeed, for its own reading of a config")
    monkeypatch.setattr(runtime.dist, "get_rank", lambda *_: 0)
    file = tmp_path / "ds.json"
    file.write_text(exported("deepspeed", plan).text)
    split = plan.get("pipeline_parallel", 1) * plan.get("tensor_parallel", 1)
    found = runtime.DeepSpeedConfig(str(file), mpu=Copies(16 // split))
    assert found.zero_optimization_stage == plan["zero"]
    assert found.train_batch_size == 64 and found.train_micro_batch_size_per_gpu == plan.get("micro_batch", 1)
    assert found.gradient_accumulation_steps == 64 * split // 16 // plan.get("micro_batch", 1)
    assert found.bfloat16_config.enabled == (plan.get("dtype", "bf16") == "bf16")
    assert found.float16_config.enabled == (plan.get("dtype") == "fp16")
    moved = plan.get("offload", [])
    assert (found.zero_config.offload_optimizer is not None) == ("optimizer" in moved)
    assert (found.zero_config.offload_param is not None) == ("weights" in moved)
    assert found.activation_checkpointing_config.cpu_checkpointing == ("activations" in moved)
    if plan["zero"]:
        assert found.zero_config.overlap_comm == ("data" in plan.get("overlap", ["data"]))


TRAINER = """
import json, os, sys
import torch, deepspeed
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 16))
engine, *_ = deepspeed.initialize(
    model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2), config=sys.argv[1], dist_init_required=True)
x = torch.randn(int(engine.train_micro_batch_size_per_gpu()), 16, dtype=next(model.parameters()).dtype)
losses = []
for _ in range(3 * engine.gradient_accumulation_steps()):
    loss = ((engine(x) - x) ** 2).float().mean()
    engine.backward(loss)
    engine.step()
    losses.append(float(loss))
print(json.dumps({"steps": engine.global_steps, "losses": losses, "stage": engine.zero_optimization_stage()}))
"""


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_deepspeed_trains_with_the_config(zero, tmp_path):
    """One process on a CPU: the config of a plan for one device, three of its iterations, a loss that falls."""
    pytest.importorskip("deepspeed", reason="wants deepspeed, to run its engine")
    file = tmp_path / "ds.json"
    file.write_text(exported("deepspeed", {"zero": zero, "micro_batch": 2}, devices="1x a100-80g-sxm", batch=8).text)
    env = os.environ | {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29600 + zero),
        "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", TRAINER, str(file)], env=env, capture_output=True, text=True, timeout=240
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    told = json.loads(run.stdout.strip().splitlines()[-1])
    assert told["stage"] == zero and told["steps"] == 3
    assert told["losses"][-1] < told["losses"][0]


TORCHTITAN = [
    ({"zero": 3}, "llama-3.1-8b"), ({"zero": 2, "tensor_parallel": 8}, "llama-3.1-8b"),
    ({"zero": 0, "pipeline_parallel": 4, "schedule": "1f1b"}, "llama-3.1-8b"),
    ({"zero": 3, "context_parallel": 2, "recompute": "full"}, "llama-3.1-8b"),
    ({"zero": 3, "offload": ["weights", "optimizer"], "overlap": ["tensor", "data"], "tensor_parallel": 2}, SHAPE),
    ({"zero": 0, "pipeline_parallel": 2, "interleave": 4, "micro_batch": 2}, SHAPE),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("plan", "model"), TORCHTITAN, ids=str)
def test_torchtitan_reads_what_the_plan_says(plan, model, tmp_path):
    manager = pytest.importorskip("torchtitan.config.manager", reason="wants torchtitan, for its own reading of a file")
    if not hasattr(manager, "tomllib"):
        pytest.skip("this torchtitan reads no TOML: 0.1 and 0.2 do")
    file = tmp_path / "job.toml"
    file.write_text(exported("torchtitan", plan, model, steps=100).text)
    found = manager.ConfigManager().parse_args(["--job.config_file", str(file)])
    degrees = found.parallelism
    copies = 16
    for name in ("tensor", "pipeline", "context"):
        assert getattr(degrees, f"{name}_parallel_degree") == plan.get(f"{name}_parallel", 1)
        copies //= plan.get(f"{name}_parallel", 1)
    shared = degrees.data_parallel_shard_degree, degrees.data_parallel_replicate_degree
    assert shared == ((copies, 1) if plan["zero"] else (1, copies))
    assert found.training.global_batch_size == 64 and found.training.seq_len == 2048 and found.training.steps == 100
    assert found.activation_checkpoint.mode == plan.get("recompute", found.activation_checkpoint.mode)
    assert found.training.enable_cpu_offload == bool(plan.get("offload"))
    known = vars(type(found)())
    for section, keys in tomllib.loads(file.read_text()).items():
        for key, value in keys.items():  # every key is one of theirs and holds what the file says
            assert hasattr(known[section], key), f"{section}.{key}"
            assert getattr(getattr(found, section), key) == value, f"{section}.{key}"


def test_megatron_core_reads_the_layout_of_unlike_stages():
    layouts = pytest.importorskip(
        "megatron.core.transformer.pipeline_parallel_layer_layout", reason="wants megatron-core, for its layouts"
    )  # fmt: skip
    text = exported("megatron", {"pipeline_parallel": 3}, devices="16x a100-80g-sxm + 8x h100-sxm", batch=48).text
    said = re.search(r"--pipeline-model-parallel-layout '?(E[^' ]+)", text)[1]
    stages = layouts.PipelineParallelLayerLayout.parse_str_to_list(said)
    names = [[kind.name for kind in stage] for stage in stages]
    assert len(stages) == 3 and names[0][0] == "embedding" and names[-1][-1] == "loss"
    assert sum(name == "decoder" for stage in names for name in stage) == SHAPE["layers"]
    layouts.PipelineParallelLayerLayout(said, 3).validate_layer_layout(SHAPE["layers"], 0)
