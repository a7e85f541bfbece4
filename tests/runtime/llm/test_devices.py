"""Where tensors lie: a pass mixes no devices, weights are not held twice, and fake ones are as large as real ones."""

import gc
import json
import math
import time
import weakref

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.runtime.llm import FAKE, open_engine
from fleetcast.runtime.llm.requests import Piece
from fleetcast.runtime.llm.shape import read_shape
from tests.runtime.llm import tiny

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from fleetcast.runtime.llm import devices, native  # noqa: E402
from fleetcast.runtime.llm.devices import devices_of, free_memory, name_of  # noqa: E402
from fleetcast.runtime.llm.linear import joined  # noqa: E402
from fleetcast.runtime.llm.model import Transformer  # noqa: E402
from fleetcast.runtime.llm.weights import POOL, fake_weights, read_weights  # noqa: E402

PIECES = [Piece([1, 2, 3], 4, [0], 1), Piece([5], 9, [1], 1), Piece([7], 3, [2], 0)]


class OneDevice(TorchDispatchMode):
    """Fails where an operation other than a copy takes tensors of the host together with tensors of the device.

    The device is torch's "meta", which computes nothing; what a pass reads back from it, how many tokens visit each
    expert, is answered here.
    """

    def __init__(self, visits):
        super().__init__()
        self.visits, self.seen = visits, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.ndim]
        if len({x.device.type for x in tensors}) > 1:
            assert name in ("_to_copy", "copy_"), f"{name} mixes {[str(x.device) for x in tensors]}"
        self.seen += any(x.device.type == "meta" for x in tensors)
        if name == "bincount":
            return torch.tensor(self.visits)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_a_pass_mixes_no_devices(name):
    shape = read_shape(tiny.config(name))
    visits = []
    if shape.experts is not None:
        # five tokens visit top_k experts each
        visits = [5 * shape.experts.top_k, *[0] * (shape.experts.count - 1)]
    with OneDevice(visits) as watch:
        t = Transformer(shape, fake_weights(shape, "fp32", 0, torch.device("meta")), 4)
        found = t._forward(PIECES)
    assert found.device.type == "meta"
    assert found.shape == (2, 61)
    assert watch.seen > 50


def test_the_watch_sees_what_it_looks_for():
    with OneDevice([]), pytest.raises(AssertionError, match="mixes"):
        torch.ones(3, device="meta")[torch.tensor([1])]


class Counting:
    """Weights that remember which of the tensors they gave were still held each time that another was asked for."""

    def __init__(self, inner):
        self.inner, self.dtype, self.device = inner, inner.dtype, inner.device
        self.given, self.held = {}, []

    def tensor(self, part):
        assert part not in self.given, "read once"
        found = self.inner.tensor(part)
        self.given[part] = weakref.ref(found)
        self.held.append(self.alive())
        return found

    def alive(self):
        return {part for part, ref in self.given.items() if ref() is not None}


@pytest.mark.parametrize("name", ["llama3", "phi3", "gpt2", "mixtral"])
def test_weights_are_not_held_twice(name, tmp_path):
    """What is joined into another matrix is let go: at no time is more than a layer of it held."""
    table = tiny.config(name) | {"num_hidden_layers": 12, "n_layer": 12}
    shape = read_shape(table)
    counting = Counting(read_weights(tiny.write(tmp_path / "m", table, tiny.tensors(table)), shape))
    made = Transformer(shape, counting, 4)
    gc.collect()
    sizes = {part: 4 * math.prod(size) for part, size in shape.parts()}
    assert counting.given.keys() == sizes.keys(), "every part is read"
    copied = sizes.keys() - counting.alive()
    assert {f"layers.{i}.{letter}.weight" for i in range(12) for letter in "qkv"} <= copied
    layer = sum(size for part, size in sizes.items() if part.startswith("layers.3."))
    assert max(sum(sizes[part] for part in held & copied) for held in counting.held) <= layer
    assert made.layers


def test_fake_weights_are_of_a_sane_scale_and_no_two_rows_are_alike():
    table = tiny.config("llama3") | {"hidden_size": 256, "intermediate_size": 700, "vocab_size": 6000}
    shape = read_shape(table)
    one, same, other = (fake_weights(shape, "fp32", seed) for seed in (0, 0, 1))
    sizes = dict(shape.parts())
    assert math.prod(sizes["embedding.weight"]) > POOL, "the pool is dealt more than once"
    for part, size in sizes.items():
        found = one.tensor(part)
        assert found.shape == size
        assert torch.equal(found, same.tensor(part))
        if len(size) == 1:
            assert torch.equal(found, torch.full(size, 0.0 if part.endswith("bias") else 1.0))
            continue
        assert not torch.equal(found, other.tensor(part))
        assert float(found.std()) == pytest.approx(size[1] ** -0.5, rel=0.03)
        assert len(torch.unique(found[:, :3], dim=0)) == size[0]
        assert int(torch.linalg.matrix_rank(found)) == min(size)
    assert not torch.equal(one.tensor("layers.0.q.weight"), one.tensor("layers.1.q.weight"))


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_a_fake_model_runs_and_says_so(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny.config(name)))
    made = []
    for _ in range(2):
        e = open_engine(tmp_path / "config.json", blocks=8, fake=True, seed=3)
        assert e.notes == (FAKE,)
        requests = [e.submit([1, 2, 3, i], 6) for i in range(3)]
        e.run()
        made.append([r.output for r in requests])
    assert made[0] == made[1]
    logits = e.model.forward([Piece(list(range(30)), 0, [0, 1], 30)])
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10


def test_a_catalogue_model_is_faked_by_name():
    """GPT-2 small, 124 million parameters, without a checkpoint."""
    begun = time.thread_time()
    e = open_engine("gpt2", blocks=2, fake=True, dtype="bf16")
    assert time.thread_time() - begun < 5
    r = e.submit([1, 2, 3], 2)
    e.run()
    assert len(r.output) == 2
    with pytest.raises(SpecError, match="not in the catalogue"):
        open_engine("gpt-22", blocks=2, fake=True)


def test_devices_that_are_not_there_are_refused(tmp_path):
    table = tiny.config("llama3")
    folder = tiny.write(tmp_path / "m", table, tiny.tensors(table))
    assert open_engine(folder, blocks=2, device="cpu").model.device.type == "cpu"
    with pytest.raises(SpecError, match=r"device: cannot be run on \(got 'tpu'\); one of auto, cpu"):
        open_engine(folder, blocks=2, device="tpu")
    if not torch.cuda.is_available():
        assert open_engine(folder, blocks=2).model.device.type == "cpu"
        with pytest.raises(SpecError, match="torch finds no CUDA device"):
            open_engine(folder, blocks=2, device="cuda")


def cuda(monkeypatch, *free, nccl=True):
    """Makes torch say that there are CUDA devices with so many free bytes each."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(free))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device.index], 10**12))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Faked {device.index}")
    monkeypatch.setattr(devices.dist, "is_nccl_available", lambda: nccl)


def test_every_rank_has_a_cuda_device_of_its_own_or_none_has_one(monkeypatch):
    cpu, first, second = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)
    cuda(monkeypatch)
    assert devices_of("auto", 2) == (cpu, cpu)
    cuda(monkeypatch, 7, 5)
    assert (devices_of("auto"), devices_of("cuda")) == ((first,), (first,))
    assert (devices_of("auto", 2), devices_of("cuda", 2)) == ((first, second), (first, second))
    assert (devices_of("cpu"), devices_of("auto", 3)) == ((cpu,), (cpu, cpu, cpu))
    with pytest.raises(SpecError, match="3 ranks want a CUDA device each, and torch finds 2"):
        devices_of("cuda", 3)
    cuda(monkeypatch, 7, 5, nccl=False)
    assert (devices_of("auto"), devices_of("auto", 2)) == ((first,), (cpu, cpu))
    with pytest.raises(SpecError, match="NCCL"):
        devices_of("cuda", 2)


def test_the_memory_is_that_of_the_devices_and_the_fullest_bounds_all_ranks(monkeypatch):
    cuda(monkeypatch, 7, 5)
    monkeypatch.setattr(devices.host, "free_memory", lambda: 100.0)
    assert free_memory(devices_of("cpu", 2)) == 100
    assert free_memory(devices_of("cuda")) == 7
    assert free_memory(devices_of("cuda", 2)) == 2 * 5
    assert [name_of(d) for d in (*devices_of("cpu"), *devices_of("cuda", 2))] == ["cpu", "Faked 0", "Faked 1"]


class NoKernels:
    """Fails where a kernel of ours is called."""

    def __getattr__(self, name):
        raise AssertionError(f"the kernel {name} was called on another device's tensor")


@pytest.mark.parametrize("form", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("held", [torch.float32, torch.int8])
def test_our_own_kernels_never_see_another_devices_tensors(form, held, monkeypatch):
    monkeypatch.setattr(native, "kernels", NoKernels())
    shape = read_shape(tiny.config("llama-biased") | {"hidden_size": 64, "intermediate_size": 64})
    dtype = torch.float32 if form == "fp32" else torch.bfloat16
    weights = fake_weights(shape, "fp32" if form == "fp32" else "bf16", 0, torch.device("meta"))
    assert weights.dtype == dtype
    found = Transformer(shape, weights, 4, form, held)._forward(PIECES)
    assert found.device.type == "meta"
    with pytest.raises(AssertionError, match="kernel"):  # and would, on the processor's
        joined([torch.ones(64, 64)], [None], "int8")(torch.ones(1, 64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_logits_on_cuda_are_those_of_the_definition(name, tmp_path):
    table = tiny.config(name)
    values = tiny.tensors(table)
    model = open_engine(tiny.write(tmp_path / "m", table, values), blocks=8, device="cuda").model
    tokens = np.random.default_rng(0).integers(0, 61, 50).tolist()
    rows = model.forward([Piece(tokens, 0, [5, 1, 7, 3], 50)])
    assert np.abs(rows - tiny.logits(table, values, tokens)).max() < 1e-3
