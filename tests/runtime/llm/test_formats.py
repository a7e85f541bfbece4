"""Matrices and caches in every format: against fp64, their error, their bytes, and with torch's kernels and our own."""

import math
import os

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.runtime.llm import open_engine
from fleetcast.runtime.llm.paging import blocks_of
from fleetcast.runtime.llm.requests import Piece
from tests.runtime.llm import definition, tiny

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from fleetcast.runtime.llm import native  # noqa: E402
from fleetcast.runtime.llm.attention import attend, attend_paged, groups_of, paged, place, slots_of  # noqa: E402
from fleetcast.runtime.llm.cache import Cache, quantised  # noqa: E402
from fleetcast.runtime.llm.ffn import Gated  # noqa: E402
from fleetcast.runtime.llm.linear import FEW, GROUP, Packed, Plain, int4, int8, joined  # noqa: E402
from fleetcast.runtime.llm.norm import Rms  # noqa: E402

SIZES = [(70, 128), (33, 96), (5, 32), (64, 100), (3, 7), (48, 2816)]
WHERE = ["torch", 4, 8, 16, 32]
"""Whose kernels: torch's, or our own with instructions that multiply at most so many elements."""


@pytest.fixture(params=WHERE)
def where(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(native, "kernels", None)
        yield "torch"
        return
    if native.kernels is None:
        if os.environ.get("FLEETCAST_REQUIRE_COMPILED") == "1":
            pytest.fail("our own kernels are not built")
        pytest.skip("our own kernels are not built")
    if native.kernels.lanes(request.param) != request.param:
        native.kernels.lanes(32)
        pytest.skip("this processor has no such registers")
    yield request.param
    native.kernels.lanes(32)


def draw(seed, *size):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def wide(matrix):
    """Returns a quantised matrix as fp64, from its parts."""
    if hasattr(matrix, "wide"):
        groups = matrix.weight.unflatten(1, (-1, GROUP // 2)).long()
        q = torch.cat([groups % 16, groups // 16], dim=2).double()
        s = matrix.scale.double()
        return ((q - 8) * s[..., :1] + s[..., 1:]).flatten(1)
    return matrix.weight.double() * (matrix.scale.double()[:, None] if hasattr(matrix, "scale") else 1.0)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, FEW, FEW + 1, 40])
@pytest.mark.parametrize("form", ["fp32", "bf16", "int8", "int4"])
def test_products_are_those_of_the_weights_that_are_held(form, rows, where):
    for n, (outputs, inputs) in enumerate(SIZES):
        if form == "int4" and inputs % GROUP:
            continue
        dtype = torch.float32 if form == "fp32" else torch.bfloat16
        weight, x, bias = draw(n, outputs, inputs), draw(n + 50, rows, inputs).to(dtype), draw(n + 99, outputs)
        made = {"fp32": Plain, "bf16": lambda w, b: Plain(w.bfloat16(), b.bfloat16()), "int8": int8, "int4": int4}
        for b in (None, bias) if form != "bf16" else (bias,):
            matrix = made[form](weight, b)
            exact = x.double() @ wide(matrix).T + (0 if b is None else matrix.bias.double())
            found = matrix(x)
            assert found.dtype == dtype
            # torch rounds the sum to bf16, then the sum times the scale, then that plus the bias
            thrice = form == "int8" and (where == "torch" or rows > FEW)
            near = 1e-5 if form == "fp32" else 3 * 2.0**-8 if thrice else 2.0**-8
            # torch widens int4 to bf16 first: each of its weights is off by up to 2^-9, the sum by as much of its terms
            terms = x.double().abs() @ wide(matrix).abs().T
            least = terms * (2.0**-8 if form == "int4" and (where == "torch" or rows > FEW) else 1e-6)
            assert ((found.double() - exact).abs() <= near * exact.abs() + least + near * (1 + 2 * thrice)).all()


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 6, 7, FEW, FEW + 1])
def test_products_in_the_layout_of_onednn(rows, where):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bf16 here")
    for n, (outputs, inputs) in enumerate(SIZES):
        weight, x, bias = (
            draw(n + i, *size).bfloat16()
            for i, size in ((0, (outputs, inputs)), (50, (rows, inputs)), (99, (outputs,)))
        )
        for b in (None, bias):
            matrix = joined([weight], [b], "bf16")
            assert isinstance(matrix, Packed)
            assert bool(matrix.panel) == (where == 32), "its layout is the one that our own kernel reads"
            exact = x.double() @ weight.double().T + (0 if b is None else b.double())
            near = 2.0**-8 * exact.abs() + 1e-6 * (x.double().abs() @ weight.double().abs().T) + 2.0**-8
            found = matrix(x)
            assert found.dtype == torch.bfloat16
            assert ((found.double() - exact).abs() <= near).all()
            if where == 32 and rows <= FEW:
                for row in range(rows):
                    assert torch.equal(matrix(x[row : row + 1])[0], found[row])


def test_a_layout_that_is_not_the_one_expected_is_left_to_onednn(where):
    if where != 32:
        pytest.skip("nothing of ours")
    weight = draw(1, 70, 96).bfloat16()
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 256)
    other = weight.clone()
    other[69, 95] += 1
    assert native.panels(packed, weight) and not native.panels(packed, other)


def test_a_row_is_the_same_whatever_shares_its_product(where):
    if where == "torch":
        pytest.skip("torch's products round by how many rows they have")
    for form in ("fp32", "int8", "int4"):
        matrix = joined([draw(1, 37, 96)], [None], form)
        x = draw(2, FEW, 96)
        whole = matrix(x)
        for rows in range(1, FEW):
            assert torch.equal(matrix(x[:rows]), whole[:rows])
            assert torch.equal(matrix(x[rows:]), whole[rows:])


def test_int8_weights_are_off_by_half_a_step_at_most_and_int4_by_half_of_theirs():
    weight = torch.cat([draw(3, 40, 128), torch.zeros(1, 128), torch.full((1, 128), -2.5)])
    eight, four = int8(weight, None), int4(weight, None)
    most = weight.abs().amax(1, keepdim=True).double()
    assert ((wide(eight) - weight).abs() <= most / 254 * 1.001).all()
    assert (wide(eight)[40] == 0).all()
    assert eight.weight.abs().max() == 127
    groups = weight.unflatten(1, (-1, GROUP)).double()
    step = (groups.amax(2) - groups.amin(2)) / 15
    # half a step, and what rounding the scale and the middle to bf16 adds: 2^-9 of 8 steps and of the middle
    allowed = step * (0.5 + 8 * 2.0**-8) + (groups.amin(2) + 8 * step).abs() * 2.0**-8
    off = (wide(four).unflatten(1, (-1, GROUP)) - groups).abs().amax(2)
    assert (off <= allowed).all()
    assert (wide(four)[40] == 0).all()
    error = [float((wide(m)[:40] - weight[:40]).norm() / weight[:40].norm()) for m in (eight, four)]
    assert error[0] < 0.01 < error[1] < 0.12


def test_formats_take_the_bytes_that_they_say():
    weight, bias = draw(4, 64, 128), draw(5, 64)
    count = 64 * 128
    assert joined([weight], [None], "fp32").bytes == 4 * count
    assert joined([weight], [bias], "fp32").bytes == 4 * count + 4 * 64
    assert joined([weight.bfloat16()], [None], "bf16").bytes == 2 * count
    assert joined([weight.bfloat16()], [None], "int8").bytes == count + 4 * 64
    assert joined([weight.bfloat16()], [None], "int4").bytes == 0.625 * count
    assert joined([draw(6, 64, 100)], [None], "int4").bytes == 64 * 100 + 4 * 64, "100 is no multiple of 32: int8"
    assert joined([weight], [None], None).weight is weight


def test_int8_caches_have_a_scale_per_token_and_head():
    x = draw(7, 9, 3, 16)
    x[2, 1] = 0.0
    x[4] *= 100.0
    q, scale = quantised(x)
    most = x.abs().amax(-1)
    assert torch.equal(scale, torch.where(most > 0, most / 127.0, torch.ones(())))
    assert scale[2, 1] == 1.0
    assert ((q.double() * scale.double()[..., None] - x).abs() <= scale.double()[..., None] * 0.5001).all()
    assert (q.abs().amax(-1)[most > 0] == 127).all()


@pytest.mark.parametrize("width", [8, 12, 64, 80])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (4, 4), (6, 1), (12, 2)])
def test_attention_over_the_paged_cache(kind, heads, kv_heads, width, where):
    """Our own kernels against torch's and fp64, over a cache that holds NaN wherever nothing was written."""
    if where == "torch":
        pytest.skip("the oracle's own")
    pieces = [
        Piece([0] * 3, 37, [9, 2, 30], 0), Piece([0], 0, [5], 0), Piece([0] * 70, 0, [1, 7, 11, 3, 20], 0),
        Piece([0], 16, [12, 6], 0), Piece([0] * 41, 20, [13, 14, 0, 15], 0),
    ]  # fmt: skip
    tokens = sum(len(p.tokens) for p in pieces)
    cache = Cache(2, 32 * 16, kv_heads, width, kind)
    if kind != torch.int8:
        cache.keys.fill_(math.nan), cache.values.fill_(math.nan)
    else:
        cache.scales.fill_(math.nan)
    for i, p in enumerate(pieces):
        slots = slots_of(p)
        cache.write(1, slots, draw(i, len(slots), kv_heads, width), draw(i + 20, len(slots), kv_heads, width))
    q = draw(40, tokens, heads, width)
    for window, cap in ((0, 0.0), (9, 0.0), (0, 5.0), (30, 5.0)):
        found = attend_paged(q, cache, 1, paged(pieces), window, scale=0.3, cap=cap)
        plain = attend(q, cache, 1, groups_of(pieces, {window}), window, scale=0.3, cap=cap)
        assert (found - plain).abs().max() < 2e-5
        begin = 0
        for p in pieces:
            keys, values = (
                part.double().repeat_interleave(heads // kv_heads, 1) for part in cache.read(1, slots_of(p))
            )
            at = p.start + torch.arange(len(p.tokens))
            scores = torch.einsum("qhd,khd->hqk", q[begin : begin + len(at)].double(), keys) * 0.3
            scores = torch.tanh(scores / cap) * cap if cap else scores
            seen = torch.arange(len(keys)) <= at[:, None]
            seen &= torch.arange(len(keys)) > at[:, None] - window if window else seen
            exact = torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -math.inf).softmax(-1), values)
            assert (found[begin : begin + len(at)].double() - exact).abs().max() < 1e-5
            begin += len(at)


def test_what_is_not_a_number_stays_so(where):
    if where == "torch":
        pytest.skip("torch's own")
    cache = Cache(1, 32, 1, 16, torch.float32)
    cache.keys[0, 3] = math.nan
    for pieces in ([Piece([0], 9, [0], 0)], [Piece([0] * 5, 5, [0], 0)]):
        assert attend_paged(draw(1, 9, 2, 16), cache, 0, paged(pieces), 0, scale=1.0)[0].isnan().all()
    x = draw(2, 3, 64)
    x[1, 5] = math.nan
    assert Rms(torch.ones(64), 1e-5)(x).isnan().any(1).tolist() == [False, True, False]
    assert native.gate(x, False).isnan().sum() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_small_steps_are_those_of_torch(dtype, where, monkeypatch):
    near = {torch.float32: 1e-5, torch.bfloat16: 2.0**-6}[dtype]
    x, weight = draw(1, 90, 96).to(dtype) * 3, draw(2, 96).to(dtype)
    exact = x.double() / (x.double().square().mean(1, keepdim=True) + 1e-3).sqrt() * weight.double()
    assert torch.allclose(Rms(weight, 1e-3)(x).double(), exact, rtol=near, atol=near)
    assert torch.allclose(Rms(weight.float(), 1e-3)(x).double(), exact, rtol=near, atol=near)

    class Same:
        matrices = ()

        def __call__(self, y):
            return y

    for activation, f in (
        ("silu", lambda g: g / (1 + (-g).exp())),
        ("gelu_tanh", lambda g: 0.5 * g * (1 + torch.tanh((2 / math.pi) ** 0.5 * (g + 0.044715 * g**3)))),
    ):
        found = Gated(Same(), Same(), activation)(x)
        gate, up = x.double().chunk(2, dim=1)
        assert torch.allclose(found.double(), f(gate) * up, rtol=4 * near, atol=4 * near)
    extreme = torch.tensor([[-200.0, -88.0, 0.0, 88.0, 200.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    assert torch.allclose(Gated(Same(), Same(), "silu")(extreme), torch.tensor([[0.0, 0, 0, 88, 200]]), atol=1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize(("width", "turned"), [(64, 64), (12, 12), (80, 32), (16, 0)])
@pytest.mark.parametrize("normed", [False, True])
def test_queries_turn_and_keys_and_values_are_stored(kind, width, turned, normed, where):
    if where == "torch":
        pytest.skip("nothing of ours")
    from fleetcast.runtime.llm.model import _rotate

    cache, plain = (Cache(2, 64, 2, width, kind) for _ in range(2))
    qkv, slots = draw(3, 7, 8 * width), torch.tensor([5, 40, 2, 63, 0, 17, 9])
    angles = draw(4, 7, turned // 2)
    turns = (torch.cos(angles), torch.sin(angles)) if turned else None
    weights = (draw(5, width), draw(6, width), 1e-3)
    q, k, v = (part.unflatten(1, (-1, width)) for part in qkv.split([4 * width, 2 * width, 2 * width], dim=1))
    if normed:
        q, k = (
            (x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt()) * w for x, w in zip((q, k), weights, strict=False)
        )
    if turned:
        both = [torch.cat([t, t], dim=1)[:, None] for t in turns]
        q, k = _rotate(q, *both), _rotate(k, *both)
    plain.write(1, slots, k, v)
    found = place(qkv, cache, 1, slots, turns, weights if normed else None)
    assert (found - q).abs().max() < 1e-5
    for ours, theirs in ((cache.keys, plain.keys), (cache.values, plain.values)):
        # a sum in another order may move a number over the middle between two
        assert (ours.double() - theirs.double()).abs().max() <= (1 if kind == torch.int8 else 0.04)
        assert (ours != theirs).double().mean() < 0.01 or kind == torch.float32
        assert (ours[0] == 0).all()
    if kind == torch.int8:
        assert torch.allclose(cache.scales, plain.scales, rtol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, root):
    """A model that has learnt the bytes of this project's own pages, and a page that it has not seen."""
    from fleetcast.runtime.llm.shape import read_shape
    from fleetcast.runtime.training.lm import train
    from fleetcast.runtime.training.tokens import as_bytes

    table = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 288, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "torch_dtype": "float32", "rope_theta": 10000.0, "tie_word_embeddings": False,
    }  # fmt: skip
    pages = sorted((root / "docs").glob("*.md"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages if page.name != "engine.md")
    held = as_bytes((root / "docs/engine.md").read_text(encoding="utf-8"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = train(read_shape(table), as_bytes(text), steps=120, batch=8, length=96, held=held)
    torch.set_num_threads(threads)
    assert made.held.loss < 2.6, "it has learnt something: chance is 5.6"
    values = {name: value.numpy() for name, value in made.weights.items()}
    return tiny.write(tmp_path_factory.mktemp("trained") / "m", table, values), held[:2000].tolist()


def teacher_forced(folder, tokens, **formats):
    """Returns logits of every position, given the true tokens before it, in windows of 256."""
    model = open_engine(folder, blocks=16, **formats).model
    each = [tokens[i : i + 256] for i in range(0, len(tokens), 256)]
    return np.concatenate([model.forward([Piece(w, 0, list(range(blocks_of(len(w)))), len(w))]) for w in each])


def test_a_trained_model_says_the_same_with_an_int8_cache(trained):
    folder, tokens = trained
    full = teacher_forced(folder, tokens, dtype="fp32")
    ours = teacher_forced(folder, tokens, dtype="fp32", kv_dtype="int8")
    assert 0 < np.abs(ours - full).max() < 1.0, "the cache is quantised, and little is lost"
    assert (ours.argmax(1) == full.argmax(1)).mean() >= 0.99
    worse = {form: teacher_forced(folder, tokens, dtype=form) for form in ("bf16", "int8", "int4")}
    agreed = {form: float((logits.argmax(1) == full.argmax(1)).mean()) for form, logits in worse.items()}
    assert agreed["int8"] > 0.96, agreed
    assert agreed["bf16"] > 0.96, agreed
    assert agreed["int8"] > agreed["int4"] > 0.8, agreed


def test_scales_per_token_and_head_lose_less_than_one_scale_for_all():
    """Attention's error with one channel twelve times the others, as trained keys have; Gaussian otherwise."""
    width, n, found = 64, 256, {}
    for name, factor in (("gaussian", 1.0), ("outlier", 12.0)):
        keys, values, q = draw(1, n, 4, width), draw(2, n, 4, width), draw(3, 8, 4, width)
        keys[..., 5] *= factor
        # tokens and heads of unlike sizes: what one scale for all cannot follow
        keys, values = (x * (0.5 + torch.arange(1, 5) / 4)[:, None] for x in (keys, values))

        def attention(k, v, q=q):
            weights = (torch.einsum("qhd,khd->hqk", q, k) / width**0.5).softmax(-1)
            return torch.einsum("hqk,khd->qhd", weights, v)

        def each(x):
            whole, scale = quantised(x)
            return whole * scale[..., None]

        def one(x):
            scale = x.abs().max() / 127
            return (x / scale).round() * scale

        exact = attention(keys, values)
        found[name] = [
            float((attention(f(keys), f(values)) - exact).norm() / exact.norm()) for f in (each, one)
        ]  # fmt: skip
    for ours, theirs in found.values():
        assert 0 < ours < theirs / 1.4
    assert found["gaussian"][0] < 0.02


@pytest.mark.parametrize("kv_dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
def test_every_pair_of_formats_runs_and_counts_its_bytes(dtype, kv_dtype, where, tmp_path):
    table = tiny.config("llama3") | {"hidden_size": 64}
    values = tiny.tensors(table)
    e = open_engine(tiny.write(tmp_path / "m", table, values), blocks=9, dtype=dtype, kv_dtype=kv_dtype)
    head = 64 // table["num_attention_heads"]
    weights, cached = e.model.bytes
    elements = 9 * 16 * table["num_hidden_layers"] * 2 * table["num_key_value_heads"] * head
    assert cached == elements * {"fp32": 4, "bf16": 2, "int8": (head + 4) / head}[kv_dtype]
    assert cached / (elements * 4) == {"fp32": 1, "bf16": 0.5, "int8": (head + 4) / (4 * head)}[kv_dtype]
    assert weights > 0
    made = [e.submit(np.random.default_rng(i).integers(0, 61, 20 + i).tolist(), 10) for i in range(3)]
    e.run()
    assert all(len(r.output) == 10 for r in made)
    tokens = made[0].tokens
    logits = e.model.forward([Piece(tokens, 0, [0, 1, 2], len(tokens))])
    exact = definition.logits(table, values, tokens)
    error = np.linalg.norm(logits - exact) / np.linalg.norm(exact)
    # random weights spread what rounding does; a model of other weights is off by 1.4
    cache = {"fp32": 1e-4, "bf16": 0.03, "int8": 0.05}[kv_dtype]
    assert error < cache + {"fp32": 0.0, "bf16": 0.08, "int8": 0.12, "int4": 0.7}[dtype]
    if kv_dtype == "int8":
        # decoded one by one, the same cache says the same
        steps = [e.model.forward([Piece([t], i, [4, 5, 6], 1)])[0] for i, t in enumerate(tokens)]
        assert np.linalg.norm(np.array(steps) - exact) / np.linalg.norm(exact) < 1.5 * error + 0.02


def test_formats_that_cannot_be_are_refused(tmp_path):
    table = tiny.config("llama3")
    folder = tiny.write(tmp_path / "m", table, tiny.tensors(table))
    with pytest.raises(SpecError, match=r"kv_dtype: cannot be run \(got 'fp8'\); one of auto, fp32, bf16, int8"):
        open_engine(folder, blocks=4, kv_dtype="fp8")
    with pytest.raises(SpecError, match=r"dtype: cannot be run \(got 'int3'\); one of auto, fp32, bf16, int8, int4"):
        open_engine(folder, blocks=4, dtype="int3")
