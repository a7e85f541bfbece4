"""Exports: golden files, the flags of each engine, and what is refused."""

import json
import shlex
from dataclasses import replace

import pytest

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.engine import engine
from fleetcast.view import exports, verbs
from fleetcast.view.exports import Place, kubernetes, machines, sglang, vllm

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
SPAN = TWO | {
    "name": "span",
    "fleet": {"devices": "32x h100-sxm", "power_limit": "500 W"},
    "workload": TWO["workload"] | {"model": "llama-3.1-405b"},
    "plan": {
        "replicas": 2, "tensor_parallel": 8, "pipeline_parallel": 2, "engine": "vllm-1", "dtype": "bf16", "clock": 0.7,
        "batch": {"kind": "chunked", "chunk": 2048, "max_batch": 256},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def services():
    return exports.services(*verbs.completed(TWO))


@pytest.fixture(scope="module")
def service(services):
    return services[0]


@pytest.mark.parametrize("target", exports.TARGETS)
@pytest.mark.parametrize(("name", "table"), [("two", TWO), ("pools", POOLS), ("span", SPAN)])
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


def test_vllm_starts_only_where_tokens_hold_the_sequences(service):
    with pytest.raises(Unsupported, match=r"not 128 for 256.*plan.batch.chunk at least 256"):
        vllm.flags(replace(service, batch={"kind": "chunked", "max_batch": 256, "chunk": 128}))
    whole = replace(service, batch={"kind": "prefill_first", "max_batch": 64, "max_tokens": 512})
    assert vllm.flags(whole)["--max-num-batched-tokens"] == 1280, "without chunks, room for the longest prompt"
    assert any("the plan fills iterations to 512" in note for note in vllm.notes([whole]))


@pytest.mark.parametrize("engine_", [vllm, sglang])
def test_caches_that_no_engine_has_are_refused(service, engine_):
    with pytest.raises(Unsupported, match="no int4 cache"):
        engine_.flags(replace(service, kv_dtype="int4"))


def test_the_context_says_where_it_comes_from(service):
    assert any("longest request has 1,200 tokens" in n and "131,072" in n for n in vllm.notes([service]))
    cut = replace(service, context=1024, most=1024)
    assert any("cut to the model's own context, 1,024" in n for n in sglang.notes([cut]))


def spanning(**changes):
    """A replica of 16 devices on two hosts of 8."""
    (service,) = exports.services(*verbs.completed(SPAN))
    return replace(service, **changes)


def test_vllm_spans_hosts_by_its_own_processes_or_by_ray():
    head, worker = (vllm.commands(spanning(), 8000, rank, "head")[0] for rank in (0, 1))
    assert head[-10:] == [
        "--port", "8000", "--nnodes", "2", "--node-rank", "0", "--master-addr", "head", "--master-port", "29501",
    ]  # fmt: skip
    assert "--headless" in worker and "--port" not in worker and "--headless" not in head
    old = spanning(engine="vllm-0.11.2")
    ray, serve = vllm.commands(old, 8000, 0, "head")
    assert ray == ["ray", "start", "--head", "--port=6379"]
    assert serve[serve.index("--distributed-executor-backend") + 1] == "ray" and "--nnodes" not in serve
    assert vllm.commands(old, 8000, 1, "head") == [["ray", "start", "--address=head:6379"]]


def test_vllm_spreads_ranks_of_attention_over_hosts():
    wide = spanning(tensor=4, pipeline=1, attention_dp=4)
    head, worker = (vllm.commands(wide, 8000, rank, "head")[0] for rank in (0, 1))
    assert "--data-parallel-start-rank" not in head
    said = " ".join(worker)
    assert "--headless --data-parallel-size-local 2 --data-parallel-start-rank 2 --data-parallel-address head" in said
    with pytest.raises(Unsupported, match="3 do not divide over 2"):
        vllm.flags(spanning(tensor=5, pipeline=1, attention_dp=3))


def test_sglang_spans_hosts():
    (words,) = sglang.commands(spanning(), 8000, 1, "head")
    assert words[-6:] == ["--nnodes", "2", "--node-rank", "1", "--dist-init-addr", "head:20000"]


def test_clock_and_power_are_lines_for_root(service):
    held = replace(service, clock=1.281e9, power=500.0)
    script = vllm.export([held])
    root = [line for line in script.text.splitlines() if line.startswith("# root: ")]
    assert root == [
        "# root: nvidia-smi -i 0,1,2,3 -lgc 1281,1281", "# root: nvidia-smi -i 0,1,2,3 -pl 500",
        "# root: nvidia-smi -i 4,5,6,7 -lgc 1281,1281", "# root: nvidia-smi -i 4,5,6,7 -pl 500",
    ]  # fmt: skip
    assert "a container cannot" in script.text and "nvidia-smi -rgc" in script.text
    assert not any("-lgc" in line for line in vllm.export([service]).text.splitlines())
    amd = replace(held, device="mi300x", vendor="amd")
    assert machines.settings(amd, [0, 1]) == [
        "amd-smi set --gpu 0 1 --perf-determinism 1281", "amd-smi set --gpu 0 1 --power-cap 500",
    ]  # fmt: skip
    assert any("vendor's tool" in n for n in machines.notes([replace(held, device="b60", vendor="intel")], "vllm"))


DEVICES = {
    "h100-sxm": ("nvidia", "gpu", "nvidia.com/gpu", "vllm/vllm-openai:latest"),
    "mi300x": ("amd", "gpu", "amd.com/gpu", "rocm/vllm:latest"),
    "b60": ("intel", "gpu", "gpu.intel.com/xe", "intel/llm-scaler-vllm:latest"),
    "gaudi-3": ("intel", "accelerator", "habana.ai/gaudi", "vllm-hpu-env:latest"),
    "tpu-v6e": ("google", "tpu", "google.com/tpu", "vllm/vllm-tpu:latest"),
}


@pytest.mark.parametrize("device", DEVICES)
def test_image_and_resource_follow_the_device(service, device):
    vendor, kind, resource, image = DEVICES[device]
    ours = replace(service, device=device, vendor=vendor, kind=kind)
    pod = kubernetes.manifests([ours])[0]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == image
    assert pod["containers"][0]["resources"] == {"limits": {resource: 4}}
    flags = vllm.flags(ours)
    assert (flags["--block-size"] is None) == (vendor not in ("nvidia", "amd")), "a size of their own"


@pytest.mark.parametrize(
    ("device", "vendor", "kind", "why"),
    [
        ("m4-max", "apple", "soc", "no kernels for systems on a chip"),
        ("jetson-agx-orin", "nvidia", "soc", "no kernels for systems on a chip"),
        ("npu", "acme", "accelerator", "no backend for acme"),
        ("a17-pro", "apple", "phone", "phones run neither"),
        ("xeon-8480", "intel", "cpu", "a CPU takes cores"),
    ],
)
@pytest.mark.parametrize("target", [vllm, sglang, kubernetes])
def test_devices_that_no_engine_serves_are_refused(service, device, vendor, kind, why, target):
    with pytest.raises(Unsupported, match=why) as refused:
        target.export([replace(service, device=device, vendor=vendor, kind=kind)])
    assert device in str(refused.value) and refused.value.hint


def test_sglang_has_releases_for_two_makes_only(service):
    with pytest.raises(Unsupported, match=r"SGLang has no release for b60.*--to vllm"):
        sglang.export([replace(service, device="b60", vendor="intel")])
    with pytest.raises(Unsupported, match="2 chips of tpu-v6e are no slice"):
        vllm.export([replace(service, device="tpu-v6e", vendor="google", kind="tpu", tensor=2)])


def read_yaml(text):
    """What a YAML reader makes of block mappings and sequences of plain and quoted scalars."""
    rows = [line for line in text.splitlines() if line and not line.startswith("#")]

    def scalar(said):
        return json.loads(said) if said[:1] in '"{[0123456789-' or said in ("true", "false", "null") else said

    def block(at, indent):
        found = [] if rows[at].lstrip().startswith("- ") else {}
        while at < len(rows) and len(rows[at]) - len(rows[at].lstrip()) == indent:
            line = rows[at].lstrip()
            if isinstance(found, list) != line.startswith("- "):
                break
            if isinstance(found, list) and (line[2] == '"' or (": " not in line and not line.endswith(":"))):
                found.append(scalar(line[2:]))
                at += 1
            elif isinstance(found, list):
                rows[at] = " " * (indent + 2) + line[2:]
                value, at = block(at, indent + 2)
                found.append(value)
            else:
                key, _, value = line.partition(":")
                assert key not in found, f"{key} twice"
                at += 1
                if value:
                    found[scalar(key)] = scalar(value.strip())
                else:
                    found[scalar(key)], at = block(at, len(rows[at]) - len(rows[at].lstrip()))
        return found, at

    return block(0, 0)[0]


def manifest_cases():
    """Manifests of every shape: one host, several by each engine, several by Ray, ranks of attention, a TPU."""
    (two,) = exports.services(*verbs.completed(TWO))
    span = spanning()
    sgl = {"engine": "sglang", "profile": engine("sglang")}
    return {
        "two": [two],
        "pools": exports.services(*verbs.completed(POOLS)),
        "span": [span],
        "ray": [replace(span, engine="vllm-0.11.2")],
        "sglang": [replace(span, **sgl)],
        "ranks": [replace(span, tensor=4, pipeline=1, attention_dp=4)],
        "mixed": [two, replace(span, name="other", **sgl)],
        "tpu": [replace(two, device="tpu-v5e", vendor="google", kind="tpu")],
    }


@pytest.mark.parametrize("name", ["two", "pools", "span", "ray", "sglang", "ranks", "mixed", "tpu"])
def test_manifests_have_what_their_kinds_require(name):
    services = manifest_cases()[name]
    made = kubernetes.export(services)
    documents = [read_yaml(text) for text in made.text.split("---\n")]
    assert documents == json.loads(json.dumps(made.data)), "the text says what the data says"
    *pools, front = documents
    assert front["apiVersion"] == "v1" and front["kind"] == "Service"
    listening = []
    for service, document in zip(services, pools, strict=True):
        spec = document["spec"]
        assert document["metadata"]["name"] == service.name
        assert spec["replicas"] == service.replicas
        if service.nodes == 1:
            assert (document["apiVersion"], document["kind"]) == ("apps/v1", "Deployment")
            assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
            pods = [spec["template"]]
        else:
            assert document["apiVersion"] == "leaderworkerset.x-k8s.io/v1" and document["kind"] == "LeaderWorkerSet"
            group = spec["leaderWorkerTemplate"]
            assert group["size"] == service.nodes == 2
            pods = [group["leaderTemplate"], group["workerTemplate"]]
        devices = 0
        for pod, times in zip(pods, (1, service.nodes - 1), strict=False):
            (container,) = pod["spec"]["containers"]
            assert container["name"] and container["image"] and container["command"]
            assert all(isinstance(word, str) for word in container["command"] + container.get("args", []))
            devices += times * sum(container["resources"]["limits"].values())
            assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["spec"]["volumes"]}
            selected = front["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
            assert selected == ("ports" in container), "the Service reaches those that listen, and no other"
            listening += [port["name"] for port in container.get("ports", [])]
        assert devices == service.devices
    assert {port["targetPort"] for port in front["spec"]["ports"]} == set(listening) == {"http"}


def test_groups_of_pods_find_their_leader():
    cases = manifest_cases()

    def pods(name):
        group = kubernetes.manifests(cases[name])[0]["spec"]["leaderWorkerTemplate"]
        both = (group[k]["spec"]["containers"][0] for k in ("leaderTemplate", "workerTemplate"))
        return [c["command"] + c.get("args", []) for c in both]

    leader, worker = pods("span")
    for words, rank in ((leader, "0"), (worker, "$(LWS_WORKER_INDEX)")):
        assert words[words.index("--node-rank") + 1] == rank
        assert words[words.index("--master-addr") + 1] == "$(LWS_LEADER_ADDRESS)"
    leader, worker = pods("sglang")
    assert leader == worker and "$(LWS_LEADER_ADDRESS):20000" in leader
    leader, worker = pods("ray")
    assert "ray start --head" in leader[2] and leader[3:6] == ["sh", "vllm", "serve"]
    assert "--address=$(LWS_LEADER_ADDRESS):6379 --block" in worker[2]
    leader, worker = pods("ranks")
    assert "--data-parallel-start-rank" not in " ".join(leader)
    assert "--data-parallel-start-rank $((2 * LWS_WORKER_INDEX))" in worker[2] and "--headless" in worker


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


def test_replicas_never_straddle_hosts():
    (three,) = exports.place([(4, 3)], 8, 2, "g")
    assert three == tuple(Place((f"g-{i}",), first) for i, first in ((0, 0), (0, 3), (1, 0), (1, 3)))
    mixed = exports.place([(1, 4), (2, 2), (1, 16), (1, 8)], 8, 4, "a/b[0]")
    assert [[(p.hosts, p.first) for p in pool] for pool in mixed] == [
        [(("a-b-0-0",), 0)], [(("a-b-0-0",), 4), (("a-b-0-0",), 6)],
        [(("a-b-0-1", "a-b-0-2"), 0)], [(("a-b-0-3",), 0)],
    ]  # fmt: skip
    with pytest.raises(Unsupported, match="need 3 hosts of 8 devices, group g has 2"):
        exports.place([(5, 3)], 8, 2, "g")
    with pytest.raises(Unsupported, match="12 devices fills no whole hosts of 8"):
        exports.place([(1, 12)], 8, 4, "g")


def test_a_host_is_smaller_than_a_domain_of_fast_links():
    table = TWO | {"fleet": {"devices": "8x gb200"}, "plan": TWO["plan"] | {"replicas": 1, "tensor_parallel": 8}}
    (service,) = exports.services(*verbs.completed(table))
    assert (service.node, service.nodes) == (4, 2)
    assert service.places == (Place(("gb200-0", "gb200-1"), 0),)


def test_repository_names_what_was_asked_for():
    assert exports.repository("llama-3.1-70b", "llama-3.1-70b") == "meta-llama/Llama-3.1-70B"
    asked = "meta-llama/Llama-3.1-70B-Instruct"
    assert exports.repository(asked, "llama-3.1-70b") == asked
    assert exports.repository("my/own/config.json", "") == "my/own"


def drafting(**table):
    """Two replicas that draft, as words of the first command."""
    plan = TWO["plan"] | {"speculate": table}
    return exports.export(*verbs.completed(TWO | {"plan": plan}), "vllm").data["commands"][0]["argv"]


def test_drafts_are_said_to_vllm_and_refused_where_they_cannot_be(service):
    words = drafting(kind="ngram", length=3)
    config = json.loads(words[words.index("--speculative-config") + 1])
    assert config["method"] == "ngram" and config["num_speculative_tokens"] == 3
    words = drafting(kind="fixed", length=5, model="llama-3.2-1b")
    config = json.loads(words[words.index("--speculative-config") + 1])
    assert config == {"method": "draft_model", "model": "meta-llama/Llama-3.2-1B", "num_speculative_tokens": 5}
    with pytest.raises(Unsupported, match="vote of several drafters"):
        drafting(kind="fixed", model="llama-3.2-1b", drafters=2)
    with pytest.raises(Unsupported, match="draft by 'minions'"):
        drafting(kind="minions", model="llama-3.2-1b")
    plan = TWO["plan"] | {"speculate": {"kind": "ngram"}}
    with pytest.raises(Unsupported, match="SGLang is not told here how to draft"):
        exports.export(*verbs.completed(TWO | {"plan": plan}), "sglang")
