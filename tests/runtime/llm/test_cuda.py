"""What runs on a CUDA device in place of torch's operations: on one where there is one, else in Triton's interpreter.

The interpreter runs the very kernels on the processor, where Triton is installed and TRITON_INTERPRET is 1.
"""

import os

import numpy as np
import pytest

from fleetcast.policy import batch, evict, speculate
from fleetcast.runtime.llm import open_engine
from fleetcast.runtime.llm.requests import Piece
from fleetcast.runtime.llm.shape import read_shape
from tests.runtime.llm import tiny

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
from fleetcast.runtime.llm import cuda, linear, native  # noqa: E402
from fleetcast.runtime.llm.attention import attend, groups_of  # noqa: E402
from fleetcast.runtime.llm.cache import Cache  # noqa: E402
from fleetcast.runtime.llm.cuda import graphs  # noqa: E402
from fleetcast.runtime.llm.model import Transformer  # noqa: E402
from fleetcast.runtime.llm.weights import read_weights  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # the interpreter's own
REAL = torch.cuda.is_available()
INTERPRETED = cuda.kernels is not None and os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if REAL else "cpu"
kernels = pytest.mark.skipif(
    cuda.kernels is None or not (REAL or INTERPRETED),
    reason="there is no Triton, or neither a CUDA device nor TRITON_INTERPRET=1",
)


@pytest.fixture(autouse=True)
def on_device(monkeypatch):
    if INTERPRETED and not REAL:
        monkeypatch.setattr(cuda, "WHERE", {"cpu"})
        monkeypatch.setattr(native, "kernels", None)


def pieces_of(table, *spans):
    """Returns pieces (start, tokens) of sequences with blocks of their own, numbered backwards."""
    found, block = [], table
    for start, count in spans:
        used = -(-(start + count) // 16)
        found.append(Piece(list(range(count)), start, list(range(block, block - used, -1)), count))
        block -= used
    return found


@kernels
@pytest.mark.parametrize(("width", "heads", "kv_heads"), [(64, 4, 2), (12, 4, 4), (128, 8, 1), (16, 6, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("held", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (9, 0.0), (0, 5.0)])
def test_attention_is_that_of_the_definition(width, heads, kv_heads, dtype, held, window, cap):
    if dtype == "bfloat16" and not REAL:
        pytest.skip("the interpreter multiplies the bits of bf16 as whole numbers")
    torch.manual_seed(0)
    dtype, held = getattr(torch, dtype), getattr(torch, held)
    pieces = pieces_of(40, (0, 1), (300, 1), (17, 3), (63, 1))
    cache = Cache(2, 41 * 16, kv_heads, width, held, DEVICE)
    cache.keys.fill_(1 if held == torch.int8 else float("nan"))  # what nobody wrote is not to be read
    cache.values.fill_(1 if held == torch.int8 else float("nan"))
    if cache.scales is not None:
        cache.scales.fill_(float("nan"))
    q = torch.randn(6, heads, width, device=DEVICE).to(dtype)
    rows, others = cuda.rows_of(pieces, DEVICE)
    assert others == []
    expected, at = [], 0
    for p in pieces:
        size = p.start + len(p.tokens)
        slots = torch.tensor([p.table[i // 16] * 16 + i % 16 for i in range(size)], device=DEVICE)
        cache.write(1, slots, *(torch.randn(size, kv_heads, width, device=DEVICE).to(dtype) for _ in range(2)))
        keys, values = (x.double().repeat_interleave(heads // kv_heads, 1) for x in cache.read(1, slots, dtype))
        for i in range(len(p.tokens)):
            seen = slice(max(0, p.start + i + 1 - window) if window else 0, p.start + i + 1)
            scores = torch.einsum("hd,khd->hk", q[at].double(), keys[seen]) * 0.3
            scores = torch.tanh(scores / cap) * cap if cap else scores
            expected.append(torch.einsum("hk,khd->hd", scores.softmax(1), values[seen]))
            at += 1
    out = torch.full_like(q, float("nan"))
    cuda.attend(q, out, cache, 1, rows, window, scale=0.3, cap=cap)
    off = (out.double() - torch.stack(expected)).norm() / torch.stack(expected).norm()
    assert float(off) < (1e-5 if dtype == torch.float32 else 1e-2)


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wide", [False, True])
def test_norms_and_gates_are_those_of_torch(dtype, wide):
    torch.manual_seed(0)
    x = torch.randn(5, 300, device=DEVICE).to(dtype) * 3
    weight = torch.rand(300, device=DEVICE).to(torch.float32 if wide else dtype) + 0.5
    fp = x.float()
    plain = (fp * torch.rsqrt(fp.square().mean(-1, keepdim=True) + 1e-5)).to(weight.dtype)
    limit = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 8e-3 if REAL else 2e-2, "atol": 1e-3}
    torch.testing.assert_close(cuda.norm(x, weight, 1e-5), (plain * weight).to(dtype), **limit)
    first, second = x.chunk(2, dim=1)
    for gelu in (False, True):
        act = torch.nn.functional.gelu(first, approximate="tanh") if gelu else torch.nn.functional.silu(first)
        torch.testing.assert_close(cuda.gate(x, gelu), act * second, **limit)


@kernels
@pytest.mark.parametrize("kv_dtype", ["auto", "bf16", "int8"])
@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_a_model_says_what_torch_alone_says(name, kv_dtype, tmp_path, monkeypatch):
    """Steps, pieces of prompts and drafts in one pass, with our kernels and without."""
    table = tiny.config(name)
    folder = tiny.write(tmp_path / "m", table, tiny.tensors(table))
    tokens = np.random.default_rng(0).integers(0, 61, 60).tolist()
    first = [Piece(tokens[:31], 0, [5, 1], 1), Piece(tokens[:40], 0, [2, 3, 7], 40)]
    then = [
        Piece(tokens[31:32], 31, [5, 1], 1), Piece(tokens[40:43], 40, [2, 3, 7], 3),
        Piece(tokens[5:35], 0, [4, 6], 1),
    ]  # fmt: skip
    found = []
    for ours in (True, False):
        if not ours:
            monkeypatch.setattr(cuda, "kernels", None)
        model = open_engine(folder, blocks=8, device=DEVICE, kv_dtype=kv_dtype).model
        found.append(np.concatenate([model.forward(first), model.forward(then)]))
    limit = {"auto": 3e-4, "bf16": 3e-2, "int8": 3e-1}[kv_dtype]  # one rounding of the cache that falls the other way
    assert np.abs(found[0] - found[1]).max() < limit


@kernels
@pytest.mark.parametrize("form", ["int8", "int4"])
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 70, 96), (5, 33, 320), (40, 64, 512)])
def test_few_rows_times_whole_numbers_are_torch_s_product(form, rows, outputs, inputs):
    torch.manual_seed(0)
    x, weight = torch.randn(rows, inputs, device=DEVICE), torch.randn(outputs, inputs, device=DEVICE)
    held = getattr(linear, form)(weight, None)
    found = cuda.multiply(x, held.weight, held.scale)
    torch.testing.assert_close(found, held.widened(x), rtol=1e-4, atol=1e-4)
    assert float((found - x @ weight.t()).norm() / (x @ weight.t()).norm()) < (0.01 if form == "int8" else 0.1)


@pytest.mark.parametrize("start", [0, 21])
@pytest.mark.parametrize("window", [0, 400, 30])
def test_a_piece_without_a_mask_sees_what_one_with_a_mask_sees(start, window):
    torch.manual_seed(0)
    pieces = [Piece(list(range(40)), start, [4, 2, 0, 1], 1), Piece([1], 3, [3], 1)]
    cache = Cache(1, 80, 2, 16, torch.bfloat16, "cpu")
    for part in (cache.keys, cache.values):
        part.normal_()
    q = torch.randn(41, 4, 16).to(torch.bfloat16)
    with_mask, without = (
        attend(q, cache, 0, groups_of(pieces, {window}, "cpu", fused=fused), window, scale=0.25)
        for fused in (False, True)
    )
    torch.testing.assert_close(with_mask, without, rtol=2e-2, atol=2e-2)
    assert groups_of(pieces, {window}, "cpu", fused=True)[0].masks.keys() == ({window} if window == 30 else set())


def test_a_batch_is_padded_to_a_captured_size():
    step = [Piece([1], 5, [0], 1)] * 9
    assert graphs.fitting(step) == 12
    assert graphs.fitting(step[:1]) == 1
    assert graphs.fitting(step * 40) == 0
    assert graphs.fitting([*step, Piece([1, 2], 5, [0], 1)]) == 0
    assert graphs.fitting([*step, Piece([1], 5, [0], 0)]) == 0


@kernels
@pytest.mark.parametrize("name", ["llama3", "gemma2", "gpt2", "mistral-windowed", "qwen3"])
def test_a_captured_step_is_a_step(name, tmp_path):
    """What a graph captures, padded and from tensors alone, against the pass that it stands for."""
    table = tiny.config(name)
    shape = read_shape(table)
    folder = tiny.write(tmp_path / "m", table, tiny.tensors(table))
    model = Transformer(shape, read_weights(folder, shape, "fp32", torch.device(DEVICE)), 9)
    model.graphs = None
    tokens = np.random.default_rng(0).integers(0, 61, 60).tolist()
    pieces = [Piece([tokens[30]], 30, [5, 1], 1), Piece([tokens[17]], 17, [2, 3, 7], 1), Piece([tokens[1]], 1, [6], 1)]
    model.forward([Piece(tokens[: p.start], 0, p.table, 1) for p in pieces])
    static = graphs.Static(8, 8, DEVICE)
    static.fill(pieces, 4)
    with torch.inference_mode():
        found = model._step(*static.step(4))[:3].float().cpu().numpy()
    assert np.abs(found - model.forward(pieces)).max() < 1e-5
    if REAL:
        captured = graphs.Graphs(model._step, static)
        with torch.inference_mode():
            for _ in range(2):
                found = captured.replay(pieces, 4).float().cpu().numpy()
        assert np.abs(found - model.forward(pieces)).max() < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["llama3", "gemma2", "mixtral", "phi"])
def test_answers_on_cuda_are_those_of_each_request_alone(name, tmp_path):
    """Batched, chunked, found in the prefix cache and drafted: the processor's greedy answers."""
    table = tiny.config(name)
    folder = tiny.write(tmp_path / "m", table, tiny.tensors(table))
    draw = np.random.default_rng(0)
    begin = draw.integers(0, 61, 40).tolist()
    prompts = [begin + draw.integers(0, 61, int(n)).tolist() for n in draw.integers(1, 60, 12)]
    settings = {
        "plain": {}, "chunked": {"batch": batch.Chunked(chunk=16, max_batch=5)},
        "prefix": {"prefix_cache": evict.Lru()},
        "drafted": {"speculate": speculate.Ngram()},
    }  # fmt: skip
    said = {}
    for where, options in [("cpu", {}), *settings.items()]:
        engine = open_engine(folder, blocks=120, device="cpu" if where == "cpu" else "cuda", **options)
        asked = [engine.submit(prompt, 20) for prompt in prompts]
        engine.run()
        said[where] = [r.output for r in asked]
        if where in ("plain", "chunked") and name != "mixtral":
            assert engine.model.graphs.captured
    for where in settings:
        assert said[where] == said["cpu"], where
