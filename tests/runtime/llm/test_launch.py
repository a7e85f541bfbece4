"""A pool of a plan becomes an engine, or is refused with the key and the reason."""

import json
import multiprocessing

import pytest

from fleetcast.base import host
from fleetcast.base.errors import Infeasible, SpecError, Unsupported
from fleetcast.runtime.llm import launch as module
from fleetcast.runtime.llm.draft import Pipelined
from fleetcast.runtime.llm.launch import check_context, launch, refuse
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.scenario.plan import Pool
from tests.runtime.llm import tiny

try:
    import safetensors  # noqa: F401
    import torch

    MODELS = True
except ImportError:
    MODELS = False
needs_torch = pytest.mark.skipif(not MODELS, reason="torch and safetensors are not installed")

POOL = {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "dtype": "fp32"}
POLICIES = {"batch": {"kind": "chunked", "chunk": 8, "max_batch": 3}, "order": "fifo", "memory": "recompute"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"role": "prefill"}, r"plan\.role = 'prefill': .*Give it role"),
        ({"replicas": 2}, r"plan\.replicas = 2: .*Set replicas = 1"),
        ({"expert_parallel": 2}, r"plan\.expert_parallel = 2: "),
        ({"expert_parallel": 4}, r"plan\.expert_parallel = 4: "),
        ({"attention_dp": 2}, r"plan\.attention_dp = 2: "),
        ({"clock": 0.5}, r"plan\.clock = 0\.5: "),
        ({"overlap": {"kind": "nano"}}, r"plan\.overlap = nano: "),
        ({"activation_dtype": "fp8"}, r"plan\.activation_dtype = 'fp8': "),
        ({"memory": {"kind": "swap"}}, r"plan\.memory = swap: "),
        ({"speculate": {"kind": "fixed", "model": "m", "drafters": 3}}, r"plan\.speculate = fixed: .*Set drafters = 1"),
        ({"prefix_cache": {"kind": "lru", "cpu": 1e9}}, r"plan\.prefix_cache = lru: .*Leave cpu and ssd out"),
    ],
)
def test_what_cannot_be_run_is_refused_by_key_value_and_reason(changes: dict, said: str) -> None:
    refuse(Pool(**POOL, **POLICIES))
    with pytest.raises(Unsupported, match=said):
        refuse(Pool(**(POOL | POLICIES | changes)))


def test_a_request_beyond_the_context_or_the_cache_is_refused() -> None:
    shape = read_shape(tiny.config("llama-biased"))
    check_context(shape, 512, 32)
    with pytest.raises(SpecError, match="beyond the model's context"):
        check_context(shape, 513, 64)
    with pytest.raises(Infeasible, match="KV cache for the longest request"):
        check_context(shape, 512, 31)


def folder(tmp_path, real):
    table = tiny.config("llama-biased")
    if real:
        tiny.write(tmp_path / "m", table, tiny.tensors(table))
    else:
        (tmp_path / "m").mkdir(parents=True)
        (tmp_path / "m" / "config.json").write_text(json.dumps(table))
    return tmp_path


@needs_torch
def test_a_folder_with_weights_runs_them(tmp_path) -> None:
    found = launch("m", Pool(**POOL, **POLICIES), blocks=20, folder=folder(tmp_path, True), watermark=0.1)
    assert found.real
    assert not found.notes
    assert (found.engine.blocks.count, found.engine.schedule.watermark, found.dtype) == (20, 2, "fp32")
    assert (found.engine.schedule.batch.chunk, found.engine.schedule.batch.max_batch) == (8, 3)
    request = found.engine.submit([5, 6, 7], 4)
    found.engine.run()
    table = tiny.config("llama-biased")
    assert tiny.follow(table, tiny.tensors(table), request.tokens, 3)[0] == request.output


@needs_torch
def test_prefixes_are_kept_and_drafts_looked_up_as_the_plan_says(tmp_path) -> None:
    home = folder(tmp_path, True)
    pool = Pool(**POOL, **POLICIES, prefix_cache="lfu", speculate={"kind": "ngram", "length": 3, "lookups": 0.5})
    engine = launch("m", pool, blocks=20, folder=home).engine
    assert (engine.schedule.prefixes.policy.kind, engine.speculation.policy.length) == ("lfu", 3)
    made = []
    for _ in range(2):
        made.append(engine.submit([5, 6, 7] * 12, 30))
        engine.run()
    table = tiny.config("llama-biased")
    for request in made:
        assert tiny.follow(table, tiny.tensors(table), request.tokens, 36)[0] == request.output
    assert [r.cached for r in made] == [0, 32]
    assert engine.speculation.drafted > 0
    with pytest.raises(Unsupported, match="belady"):
        launch("m", Pool(**POOL, **POLICIES, prefix_cache="belady"), blocks=20, folder=home)


def beside(home, layers=1):
    """Writes a model that drafts for the one of `folder`: its first layers alone."""
    whole = tiny.config("llama-biased")
    table, values = whole | {"num_hidden_layers": layers}, tiny.tensors(whole)
    kept = {
        k: v for k, v in values.items() if ".layers." not in k or int(k.split(".layers.")[1].split(".")[0]) < layers
    }
    tiny.write(home / "small", table, kept)
    return home


def said_by(found, prompt=(5, 6, 7), limit=24):
    request = found.engine.submit(list(prompt), limit)
    found.engine.run()
    return request


FIXED = {"kind": "fixed", "length": 3, "model": "small", "acceptance": 0.6}


@needs_torch
@pytest.mark.parametrize(
    ("speculate", "draft", "apart"),
    [
        (FIXED, None, False),
        ({"kind": "minions", "model": "small", "most": 6}, None, False),
        (FIXED | {"pipelined": True}, None, True),
        ({"kind": "fixed"}, {"model": "small", "dtype": "bf16", "replicas": 1, "tensor_parallel": 1}, True),
        (FIXED | {"pipelined": False}, {"model": "small", "dtype": "bf16"}, False),
    ],
    ids=["fixed", "minions", "pipelined", "draft-pool", "not-in-the-draft-pool"],
)
def test_the_plans_draft_model_drafts(tmp_path, speculate, draft, apart) -> None:
    home = beside(folder(tmp_path, True))
    draft = None if draft is None else Pool(role="draft", **draft)
    found = launch("m", Pool(**POOL, **POLICIES, speculate=speculate), blocks=20, draft=draft, folder=home, threads=1)
    try:
        assert (found.drafts, found.notes, isinstance(found.engine.speculation.drafter, Pipelined)) == (True, (), apart)
        request = said_by(found)
        table = tiny.config("llama-biased")
        assert tiny.follow(table, tiny.tensors(table), request.tokens, 3)[0] == request.output
        assert found.engine.speculation.drafted > 0
        if not apart:
            assert found.engine.speculation.drafter.blocks.count == 20
            assert len(found.engine.speculation.drafter.model.shape.windows) == 1
    finally:
        found.engine.close()
    assert not multiprocessing.active_children()


@needs_torch
def test_the_drafts_are_those_of_the_files_that_the_plan_names(tmp_path) -> None:
    """A draft model that is the target itself is always right; another seed's is not."""
    home = beside(folder(tmp_path, True), layers=3)
    found = launch("m", Pool(**POOL, **POLICIES, speculate=FIXED), blocks=20, folder=home)
    said_by(found)
    assert found.engine.speculation.profile.rate == 1.0
    table = tiny.config("llama-biased")
    tiny.write(home / "small", table, tiny.tensors(table, seed=7))
    found = launch("m", Pool(**POOL, **POLICIES, speculate=FIXED), blocks=20, folder=home)
    said_by(found)
    assert found.engine.speculation.profile.rate < 0.5


@needs_torch
def test_a_draft_model_without_weights_is_random_and_the_notes_say_so(tmp_path) -> None:
    home = beside(folder(tmp_path, True))
    (home / "small" / "model.safetensors").unlink()
    found = launch("m", Pool(**POOL, **POLICIES, speculate=FIXED), blocks=20, folder=home)
    assert (found.real, found.drafts) == (True, False)
    assert "draft model's weights are random" in found.notes[0]
    request, table = said_by(found), tiny.config("llama-biased")
    assert tiny.follow(table, tiny.tensors(table), request.tokens, 3)[0] == request.output


@needs_torch
def test_threads_are_shared_out_to_a_drafter_of_its_own(tmp_path) -> None:
    home, before = beside(folder(tmp_path, True)), torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        pool = Pool(**POOL, **POLICIES, speculate=FIXED | {"pipelined": True})
        found = launch("m", pool, blocks=20, folder=home)
        found.engine.close()
        assert found.threads == 2
    finally:
        torch.set_num_threads(before)


@needs_torch
def test_the_memory_holds_the_draft_model_and_its_cache_too(tmp_path, monkeypatch) -> None:
    home = beside(folder(tmp_path, True))
    shapes = [read_shape(tiny.config("llama-biased") | {"num_hidden_layers": n}) for n in (3, 1)]
    weights = sum(module._size(dims) for shape in shapes for _, dims in shape.tensors()) * 4
    block = 2 * (3 + 1) * 2 * 8 * 16 * 4  # keys and values, layers of both, heads, width, tokens, fp32
    monkeypatch.setattr(host, "free_memory", lambda: (weights + 7.5 * block) / module.SHARE)
    found = launch("m", Pool(**POOL, **POLICIES, speculate=FIXED), blocks=20, folder=home, device="cpu")
    assert (found.engine.blocks.count, found.engine.speculation.drafter.blocks.count) == (7, 7)
    monkeypatch.setattr(host, "free_memory", lambda: weights / module.SHARE)
    with pytest.raises(Infeasible, match="free memory"):
        launch("m", Pool(**POOL, **POLICIES, speculate=FIXED), blocks=20, folder=home, device="cpu")


@needs_torch
def test_what_cannot_draft_is_refused_by_key(tmp_path) -> None:
    home = beside(folder(tmp_path, True))

    def asked(speculate, draft=None, error=SpecError, said=""):
        pool = Pool(**POOL, **POLICIES, speculate=speculate)
        with pytest.raises(error, match=said):
            launch("m", pool, blocks=20, draft=draft, folder=home)
        assert not multiprocessing.active_children()

    asked({"kind": "fixed"}, said=r"plan\.speculate\.model: is missing")
    asked(FIXED | {"model": "nonesuch"}, said=r"plan\.speculate\.model.*nonesuch")
    apart = {"role": "draft", "model": "small"}
    asked({"kind": "fixed"}, Pool(**apart, dtype="fp8"), said=r"dtype: cannot be run \(got 'fp8'\)")
    asked({"kind": "fixed"}, Pool(**apart, tensor_parallel=2), Unsupported, "the draft pool.tensor_parallel = 2: ")
    asked({"kind": "fixed"}, Pool(**apart, replicas=3), Unsupported, "the draft pool.replicas = 3: ")
    asked({"kind": "fixed"}, Pool(**apart, clock=0.5), Unsupported, r"the draft pool.clock = 0\.5: ")
    table = json.loads((home / "small" / "config.json").read_text())
    (home / "small" / "model.safetensors").write_bytes(b"damaged")
    asked(FIXED, said="model.safetensors")
    asked(FIXED | {"pipelined": True}, said="cannot be built in its process.*model.safetensors")
    (home / "small" / "config.json").write_text(json.dumps(table | {"vocab_size": 99}))
    asked(FIXED, said=r"plan\.speculate\.model: has another vocabulary \(got 99\); 61 tokens")


@needs_torch
def test_a_drafter_ends_where_its_engine_cannot_be_made(tmp_path) -> None:
    home = beside(folder(tmp_path, True))
    (home / "m" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(SpecError, match=r"model\.safetensors"):
        launch("m", Pool(**POOL, **POLICIES, speculate=FIXED | {"pipelined": True}), blocks=20, folder=home)
    assert not multiprocessing.active_children()


@needs_torch
def test_without_weights_random_ones_run_and_the_notes_say_so(tmp_path) -> None:
    found = [launch("m", Pool(**POOL, **POLICIES), blocks=20, folder=folder(tmp_path / str(i), False)) for i in "ab"]
    assert not found[0].real
    assert "random" in found[0].notes[0]
    said = []
    for each in found:
        request = each.engine.submit([5, 6, 7], 4)
        each.engine.run()
        said.append(request.output)
    assert said[0] == said[1]  # equal seeds, equal weights


@needs_torch
def test_the_cache_is_no_larger_than_the_machine(tmp_path, monkeypatch) -> None:
    home = folder(tmp_path, False)
    weights = sum(module._size(dims) for _, dims in read_shape(tiny.config("llama-biased")).tensors()) * 4
    block = 2 * 3 * 2 * 8 * 16 * 4  # keys and values, layers, heads, width, tokens, fp32
    monkeypatch.setattr(host, "free_memory", lambda: (weights + 7.5 * block) / module.SHARE)
    found = launch("m", Pool(**POOL, **POLICIES), blocks=20, folder=home, device="cpu")
    assert found.engine.blocks.count == 7
    assert "7 blocks of cache instead of the plan's 20" in found.notes[0]
    monkeypatch.setattr(host, "free_memory", lambda: weights / module.SHARE)
    with pytest.raises(Infeasible, match="free memory"):
        launch("m", Pool(**POOL, **POLICIES), blocks=20, folder=home, device="cpu")


@needs_torch
def test_no_more_cache_is_kept_than_can_be_of_use(tmp_path) -> None:
    home, batch = folder(tmp_path, True), 3 * (512 // 16)  # the largest batch of the longest contexts
    for given, kept, free in (
        ({}, 5000, 500), ({"bounded": True}, 107, 10), ({"most": 40}, 45, 4), ({"most": 400, "bounded": True}, 107, 10),
        ({"most": 9000}, 5000, 500),
    ):  # fmt: skip
        found = launch("m", Pool(**POOL, **POLICIES), blocks=5000, folder=home, watermark=0.1, **given).engine
        assert (found.blocks.count, found.schedule.watermark) == (kept, free)
        of_use = min(given.get("most", 5000), batch if "bounded" in given else 5000, 4500)
        assert found.blocks.count - found.schedule.watermark >= of_use


@needs_torch
def test_a_cuda_device_bounds_the_cache_by_its_own_memory(tmp_path, monkeypatch) -> None:
    from fleetcast.runtime.llm import Engine, devices

    home, given = folder(tmp_path, False), []

    def opened(model, *, device, blocks, tensor_parallel, **_):
        given.append((device, blocks, tensor_parallel))
        return launched.engine

    launched = launch("m", Pool(**POOL, **POLICIES), blocks=20, folder=home, device="cpu")
    assert (launched.device, isinstance(launched.engine, Engine)) == ("cpu", True)
    weights = sum(module._size(dims) for _, dims in read_shape(tiny.config("llama-biased")).tensors()) * 4
    block = 2 * 3 * 2 * 8 * 16 * 4  # as above
    free = {0: (weights + 7.5 * block) / module.SHARE, 1: (weights + 3.5 * block) / module.SHARE / 2}
    monkeypatch.setattr("fleetcast.runtime.llm.open_engine", opened)
    with pytest.raises(SpecError, match=r"device: cannot be run on \(got 'cuda'\).*torch finds no CUDA device"):
        launch("m", Pool(**POOL, **POLICIES), blocks=20, folder=home, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device.index], 1e12))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Faked {device.index}")
    monkeypatch.setattr(devices.dist, "is_nccl_available", lambda: True)
    found = launch("m", Pool(**POOL, **POLICIES), blocks=20, folder=home)
    assert "7 blocks of cache instead of the plan's 20: the CUDA device's memory" in found.notes[0]
    assert found.device == "Faked 0"
    # two ranks have half of all each, so the second device, of half the free memory, holds 3 of 20
    launch("m", Pool(**(POOL | {"tensor_parallel": 2}), **POLICIES), blocks=20, folder=home, device="cuda")
    launch("m", Pool(**POOL, **POLICIES), blocks=20, folder=home, device="cpu")
    assert given == [("cuda", 7, 1), ("cuda", 3, 2), ("cpu", 20, 1)]
    free[0] = weights / module.SHARE
    with pytest.raises(Infeasible, match="the CUDA device's free memory"):
        launch("m", Pool(**POOL, **POLICIES), blocks=20, folder=home)


@needs_torch
def test_a_cache_of_another_format_is_refused(tmp_path) -> None:
    with pytest.raises(SpecError, match=r"kv_dtype: cannot be run \(got 'fp8'\); one of auto, fp32, bf16, int8"):
        launch("m", Pool(**POOL, **POLICIES, kv_dtype="fp8"), blocks=20, folder=folder(tmp_path, False))


@needs_torch
@pytest.mark.parametrize(("dtype", "held"), [("fp32", 4), ("bf16", 2), ("int8", 1)])
def test_the_plans_dtype_is_what_is_held(tmp_path, dtype, held) -> None:
    found = launch("m", Pool(**(POOL | {"dtype": dtype}), **POLICIES), blocks=20, folder=folder(tmp_path, False))
    shape = found.shape
    matrices = sum(module._size(dims) for name, dims in shape.tensors() if len(dims) == 2 and "embed" not in name)
    weights, _ = found.engine.model.bytes
    assert held * matrices <= weights < 1.35 * held * matrices  # biases, and scales of narrow formats


def test_a_catalogue_model_beyond_the_family_is_refused_with_the_reason(tmp_path) -> None:
    with pytest.raises(Unsupported, match="does not run"):
        launch("opt-13b", Pool(**POOL, **POLICIES), blocks=20, folder=tmp_path)


def test_a_plan_of_two_ranks_runs_in_two_processes(tmp_path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    said = {}
    for plan in ({}, {"tensor_parallel": 2}, {"pipeline_parallel": 2}):
        found = launch("m", Pool(**(POOL | plan), **POLICIES), blocks=20, folder=folder(tmp_path, True), threads=1)
        try:
            request = found.engine.submit([5, 6, 7], 6)
            found.engine.run()
            said[str(plan)] = request.output
            assert hasattr(found.engine.model, "traffic") == bool(plan)
        finally:
            found.engine.close()
    assert len(set(map(tuple, said.values()))) == 1
