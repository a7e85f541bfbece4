"""Backends agree on the same weights, and their latencies become a profile that the planner reads."""

from dataclasses import replace

import numpy as np
import pytest

import fleetcast
from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.runtime.measure import backends
from fleetcast.runtime.measure.backends import Cell, Comparison, fitted, median_interval, shapes
from fleetcast.runtime.measure.machine import this_machine

TINY = {
    name: replace(full, hidden=48, width=80, heads=6, kv_heads=2 if full.decoder else 6)
    for name, full in ((name, shapes.shape(name, layers=2, vocab=97)) for name in shapes.SHAPES)
}


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_counts_follow_from_the_tensors(name):
    shape = TINY[name]
    made = shapes.weights(shape)
    assert {k: v.shape for k, v in made.items()} == dict(shape.tensors())
    # a product costs two operations per element of its matrix and token; tables and vectors are no products
    matrices = [x for k, x in made.items() if x.ndim == 2 and "embed" not in k]
    assert shape.flops(5, 3)[0] == pytest.approx(2 * 15 * sum(x.size for x in matrices))
    tables = sum(x.nbytes for k, x in made.items() if x.ndim == 2 and "embed" in k)
    assert shape.read() == sum(x.nbytes for x in made.values()) - tables


def test_a_decoder_attends_to_half_the_pairs():
    assert TINY["llama"].flops(4, 1)[1] == pytest.approx(4 * 2 * 48 * 10)
    assert TINY["bert"].flops(4, 1)[1] == pytest.approx(4 * 2 * 48 * 16)


def test_the_interval_of_a_median_holds_it_in_95_of_100_samples():
    draw = np.random.default_rng(0)
    for count in (9, 15, 30):
        held = 0
        for _ in range(2000):
            low, high = median_interval(draw.exponential(size=count).tolist())
            held += low <= np.log(2) <= high
        assert held / 2000 >= 0.94
        assert median_interval(list(range(count)))[0] > 0 or count < 6
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def _found(noise=0.0):
    """A benchmark on a machine whose costs are known."""
    costs = dict(zip(fitted.COSTS, (40e-6, 1 / 100e9, 1 / 30e9, 1 / 20e9), strict=True))
    draw, cells = np.random.default_rng(1), []
    known = [replace(shapes.shape(name, layers=4, vocab=500)) for name in ("bert", "llama")]
    for shape in known:
        for sequence, batch in ((4, 1), (16, 1), (64, 1), (256, 1), (64, 8), (256, 8)):
            cell = Cell(shape=shape.name, backend="torch", sequence=sequence, batch=batch, seconds=(1.0,), cpu=1.0)
            seconds = fitted.forecast(costs, shape, cell) * np.exp(noise * draw.standard_normal(9))
            cells.append(replace(cell, seconds=tuple(seconds.tolist())))
    none = {s.name: {"torch": 0.0} for s in known}
    return costs, Comparison(
        shapes=tuple(known), cells=tuple(cells), differences=none, skipped={}, threads=1, load=(0.0, 0.0)
    )


def test_the_fit_finds_the_costs_of_a_machine_that_has_them():
    costs, found = _found()
    assert fitted.fit(found, "torch") == pytest.approx(costs, rel=1e-6)
    near = fitted.fit(_found(0.05)[1], "torch", ["bert"])
    llama = next(s for s in found.shapes if s.name == "llama")
    for cell in (c for c in found.cells if c.shape == "llama"):
        assert fitted.forecast(near, llama, cell) == pytest.approx(cell.median, rel=0.15)


def test_the_planner_reads_the_profile_and_forecasts_the_passes(tmp_path):
    _, found = _found()
    table = fitted.profile(found, "torch", this_machine(), 40e9)
    (tmp_path / "profile.toml").write_text(fitted.profile_toml(table))
    llama = next(s for s in found.shapes if s.name == "llama")
    shapes.write_config(tmp_path, llama)
    for cell in (c for c in found.cells if c.shape == "llama" and c.batch == 1 and c.sequence >= 64):
        (tmp_path / "one.toml").write_text(f"""
[fleet]
devices = "1x ./profile.toml"
[workload]
model = "./config.json"
arrivals = {{ kind = "closed", concurrency = 1, requests = 3 }}
lengths = {{ kind = "fixed", prompt = {cell.sequence}, output = 2 }}
[plan]
replicas = 1
tensor_parallel = 1
pipeline_parallel = 1
engine = "ideal"
dtype = "fp32"
batch = {{ kind = "prefill_first", max_batch = 1, max_tokens = 4096 }}
""")
        ttft = fleetcast.simulate(tmp_path / "one.toml").metrics["ttft"]["p50"]
        assert ttft == pytest.approx(cell.median, rel=0.1)


def test_what_cannot_be_is_refused():
    for bad, path in (
        ({"backends": ["tensorflow"]}, "backends"), ({"sequences": [0]}, "sequences"),
        ({"sequences": [513]}, "sequences"), ({"batches": [0]}, "batches"), ({"runs": 0}, "runs"),
    ):  # fmt: skip
        with pytest.raises(SpecError) as caught:
            backends.compare([TINY["bert"]], **bad)
        assert caught.value.path == path
    with pytest.raises(SpecError, match="Did you mean 'roberta'"):
        shapes.shape("robert")
    with pytest.raises(SpecError, match="has too few"):
        fitted.fit(_found()[1], "openvino")


def test_without_any_backend_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(backends, "absent", lambda name: "torch")
    with pytest.raises(Unsupported, match="backends"):
        backends.compare([TINY["bert"]])


def test_backends_agree_and_are_timed():
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    names = [name for name in backends.BACKENDS if name != "torch.compile"]  # it compiles for a minute
    seen = []
    found = backends.compare(
        list(TINY.values()), names, sequences=(3, 8), batches=(1, 2), runs=2, threads=1,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert found.agreed and "torch" in found.backends
    assert len(found.cells) == 4 * 4 * len(found.backends)
    assert all(len(c.seconds) == 2 and c.interval[0] <= c.median <= c.interval[1] for c in found.cells)
    assert seen[-1][0] == seen[-1][1]
    assert found.table()["agreed"] is True


def test_the_passes_are_those_of_the_definition():
    """Against numpy in fp64, from the published definitions."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from fleetcast.runtime.measure.backends.eager import forward

    for shape in (TINY["roberta"], TINY["llama"]):
        made = {k: v.astype(np.float64) for k, v in shapes.weights(shape).items()}
        ids = np.random.default_rng(3).integers(3, shape.vocab, (2, 7))
        run = forward(shape, {k: torch.from_numpy(v.astype(np.float32)) for k, v in made.items()})
        exact = _decoder(shape, made, ids) if shape.decoder else _encoder(shape, made, ids)
        assert np.abs(run(torch.from_numpy(ids)).numpy() - exact).max() < 1e-5


def test_the_decoder_is_compiled_in_one_piece():
    """A pass that falls back to plain torch in the middle would be timed as compiled."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from fleetcast.runtime.measure.backends.eager import forward

    graphs = []

    def seen(graph, _):
        graphs.append(graph)
        return graph.forward

    run = forward(TINY["llama"], {k: torch.from_numpy(v) for k, v in shapes.weights(TINY["llama"]).items()})
    compiled = torch.compile(run, dynamic=True, fullgraph=True, backend=seen)
    for size in ((1, 5), (2, 7), (3, 6)):
        ids = torch.arange(size[0] * size[1]).reshape(size)
        assert torch.equal(compiled(ids), run(ids))
    assert len(graphs) <= 2  # torch makes one of the first size, and one of all others


def _encoder(shape, w, ids):
    from scipy.special import erf

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + shape.epsilon)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
    x = norm(x + w["embeddings.position_embeddings.weight"][shape.offset :][: ids.shape[1]], "embeddings.LayerNorm")
    for i in range(shape.layers):
        at = f"encoder.layer.{i}."
        q, k, v = (linear(x, f"{at}attention.self.{n}") for n in ("query", "key", "value"))
        mixed = linear(_mix(q, k, v, shape, causal=False), f"{at}attention.output.dense")
        x = norm(x + mixed, f"{at}attention.output.LayerNorm")
        inner = linear(x, f"{at}intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(x + linear(inner, f"{at}output.dense"), f"{at}output.LayerNorm")
    return x


def _decoder(shape, w, ids):
    size, places = shape.head_dim, np.arange(ids.shape[1])[:, None]

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + shape.epsilon) * w[f"{name}.weight"]

    def turned(x):
        pairs = x.reshape(*x.shape[:2], -1, 2, size // 2)
        turn = np.exp(1j * places * 10000.0 ** (-np.arange(size // 2) / (size // 2)))[:, None]
        found = (pairs[..., 0, :] + 1j * pairs[..., 1, :]) * turn
        return np.concatenate([found.real, found.imag], -1).reshape(x.shape)

    x = w["model.embed_tokens.weight"][ids]
    for i in range(shape.layers):
        at = f"model.layers.{i}."
        inner = norm(x, f"{at}input_layernorm")
        q, k, v = (inner @ w[f"{at}self_attn.{n}_proj.weight"].T for n in ("q", "k", "v"))
        x = x + _mix(turned(q), turned(k), v, shape, causal=True) @ w[f"{at}self_attn.o_proj.weight"].T
        inner = norm(x, f"{at}post_attention_layernorm")
        gate, up = (inner @ w[f"{at}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{at}mlp.down_proj.weight"].T
    return norm(x, "model.norm") @ w["lm_head.weight"].T


def _mix(q, k, v, shape, *, causal):
    out, group = np.zeros_like(q), shape.heads // shape.kv_heads
    for b in range(len(q)):
        for h in range(shape.heads):
            own = slice(h * shape.head_dim, (h + 1) * shape.head_dim)
            kept = slice((h // group) * shape.head_dim, (h // group + 1) * shape.head_dim)
            scores = q[b][:, own] @ k[b][:, kept].T / np.sqrt(shape.head_dim)
            if causal:
                scores = np.where(np.tri(len(scores)) > 0, scores, -np.inf)
            share = np.exp(scores - scores.max(-1, keepdims=True))
            out[b][:, own] = share / share.sum(-1, keepdims=True) @ v[b][:, kept]
    return out
