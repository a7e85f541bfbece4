"""Exports: golden files, the flags of each engine, and what is refused."""

import json
import shlex
from dataclasses import replace

import pytest

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.engine import engine
from fleetcast.view import exports, verbs
from fleetcast.view.exports import kubernetes, sglang, vllm

TWO = {
    "name": "two",
    "fleet": {"devices": "8x h100-sxm"},
    "workload": {
        "model": "llama-3.1-70b",
        "arrivals": {"kind": "poisson", "rate": "1 /s", "requests": 20},
        "lengths": {"kind": "fixed", "prompt": 1000, "output": 200},
    },
    "plan": {
        "replicas": 2, "tensor_parallel": 4, "pipeline_parallel": 1, "engine": "vllm-1",
        "dtype": "fp8", "kv_dtype": "fp8",
        "batch": {"kind": "chunked", "chunk": 2048, "max_batch": 256},
    },
}  # fmt: skip
POOLS = TWO | {
    "name": "pools",
    "fleet": {"groups": [{"name": "new", "devices": "4x h100-sxm"}, {"name": "old", "devices": "8x a100-80g-sxm"}]},
    "workload": TWO["workload"] | {"model": "qwen3-32b"},
    "plan": {
        "route": {"kind": "round_robin"},
        "pools": [
            {"on": "new", "replicas": 2, "tensor_parallel": 2, "pipeline_parallel": 1, "engine": "sglang"},
            {"on": "old", "replicas": 1, "tensor_parallel": 4, "pipeline_parallel": 2, "engine": "sglang"},
        ],
    },
}


@pytest.fixture(scope="module")
def services():
    return exports.services(*verbs.completed(TWO))


@pytest.fixture(scope="module")
def service(services):
    return services[0]


@pytest.mark.parametrize("target", exports.TARGETS)
@pytest.mark.parametrize(("name", "table"), [("two", TWO), ("pools", POOLS)])
def test_golden(root, name, table, target):
    made = exports.export(*verbs.completed(table), target)
    golden = root / "tests" / "golden" / "exports" / f"{name}-{target}.{made.suffix}"
    assert made.text == golden.read_text(encoding="utf-8"), f"write {golden.name} anew if the change is wanted"


def words_of(text):
    """The commands of a script, as a shell would split them."""
    lines = text.replace("\\\n", " ").splitlines()
    return [
        shlex.split(line.removesuffix("&")) for line in lines if line and not line.startswith("#") and line != "wait"
    ]


def test_a_shell_reads_the_script_as_it_is_meant(services):
    made = vllm.export(services)
    commands = words_of(made.text)
    assert len(commands) == 2
    for words, row in zip(commands, made.data["commands"], strict=True):
        assert words == [*(f"{k}={v}" for k, v in row["env"].items()), *row["argv"]]
    assert [c[0] for c in commands] == ["CUDA_VISIBLE_DEVICES=0,1,2,3", "CUDA_VISIBLE_DEVICES=4,5,6,7"]


def test_vllm_flags(service):
    flags = vllm.flags(service)
    assert flags["--tensor-parallel-size"] == 4
    assert flags["--quantization"] == "fp8" and flags["--dtype"] is None
    assert flags["--kv-cache-dtype"] == "fp8"
    assert (flags["--max-num-seqs"], flags["--max-num-batched-tokens"]) == (256, 2048)
    assert flags["--enable-chunked-prefill"] is True
    assert flags["--gpu-memory-utilization"] == engine("vllm-1").memory_fraction
    assert flags["--max-model-len"] == 1280, "1200 tokens, rounded up"


def test_vllm_does_not_quantise_what_is_quantised(service):
    assert vllm.flags(replace(service, stored="fp8"))["--quantization"] is None


def test_old_vllm_says_things_its_own_way(service):
    old = replace(
        service, engine="vllm-0.6", profile=engine("vllm-0.6"), memory="swap", pipeline=2, order="shortest_prompt",
        batch={"kind": "prefill_first", "max_batch": 64, "max_tokens": 8192},
    )  # fmt: skip
    flags = vllm.flags(old)
    assert flags["--enable-chunked-prefill"] == "false"
    assert flags["--preemption-mode"] == "swap"
    assert flags["--scheduling-policy"] == "priority"
    assert flags["--max-num-seqs"] == 64, "vLLM 0 has a scheduler per stage"
    new = replace(old, engine="vllm-1", profile=engine("vllm-1"))
    assert vllm.flags(new)["--max-num-seqs"] == 128
    assert any("recomputes" in note for note in vllm.notes([new]))


def test_expert_parallel_needs_all_ranks_in_vllm(service):
    experts = replace(service, experts=True, tensor=4, attention_dp=2, expert=8)
    flags = vllm.flags(experts)
    assert flags["--enable-expert-parallel"] is True and flags["--data-parallel-size"] == 2
    with pytest.raises(Unsupported, match="over none, not over 4"):
        vllm.flags(replace(experts, expert=4))


def test_sglang_counts_ranks_and_limits_over_a_replica(service):
    flags = sglang.flags(replace(service, tensor=2, attention_dp=4, expert=8, experts=True))
    assert (flags["--tp-size"], flags["--dp-size"], flags["--ep-size"]) == (8, 4, 8)
    assert flags["--enable-dp-attention"] is True
    assert (flags["--max-running-requests"], flags["--chunked-prefill-size"]) == (1024, 8192)


@pytest.mark.parametrize("kind", ["static", "orca"])
@pytest.mark.parametrize("engine_", [vllm, sglang])
def test_policies_that_an_engine_lacks_are_refused(service, kind, engine_):
    with pytest.raises(Unsupported, match=f"cannot batch as '{kind}' does.*chunked, prefill_first"):
        engine_.export([replace(service, batch={"kind": kind, "max_batch": 8})])


def test_a_pod_lives_on_one_node(service):
    with pytest.raises(Unsupported, match="16 devices on 2 nodes"):
        kubernetes.export([replace(service, pipeline=4)])


def test_devices_that_no_pod_can_ask_for(service):
    with pytest.raises(Unsupported, match="m4-max"):
        kubernetes.export([replace(service, device="m4-max", vendor="apple")])


def test_manifests_select_what_they_make(services):
    deployment, service = kubernetes.manifests(services)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}
    assert deployment["spec"]["replicas"] == 2
    mounted = {m["name"] for m in container["volumeMounts"]}
    assert mounted == {v["name"] for v in deployment["spec"]["template"]["spec"]["volumes"]}


@pytest.mark.parametrize("text", ["yes", "1.5", "a: b", "- x", "", "null", "#c", 'q"t', "ünï", "0x1f", "plain-word"])
def test_yaml_of_awkward_text_is_quoted(text):
    (line,) = kubernetes.to_yaml({"k": text}).splitlines()
    said = line.removeprefix("k: ")
    assert said == text if text == "plain-word" else json.loads(said) == text


def test_unknown_target():
    with pytest.raises(SpecError, match="Did you mean 'vllm'"):
        exports.export(*verbs.completed(TWO), "vlm")


def test_replicas_never_straddle_nodes():
    (three,) = exports.place([(4, 3)], 8, 2, "g")
    assert three == (("g-0", 0), ("g-0", 3), ("g-1", 0), ("g-1", 3))
    mixed = exports.place([(1, 4), (2, 2), (1, 16)], 8, 3, "g")
    assert mixed == [(("g-0", 0),), (("g-0", 4), ("g-0", 6)), (("g-1", 0),)]
    with pytest.raises(Unsupported, match="need 3 nodes of 8 devices, group g has 2"):
        exports.place([(5, 3)], 8, 2, "g")


def test_repository_names_what_was_asked_for():
    assert exports.repository("llama-3.1-70b", "llama-3.1-70b") == "meta-llama/Llama-3.1-70B"
    asked = "meta-llama/Llama-3.1-70B-Instruct"
    assert exports.repository(asked, "llama-3.1-70b") == asked
    assert exports.repository("my/own/config.json", "") == "my/own"
