"""The forward pass against numpy, the engine against one request alone without a cache, and what is not loaded."""

import json
import pickle

import numpy as np
import pytest

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.policy import batch
from fleetcast.runtime.llm import Sampling, open_engine
from fleetcast.runtime.llm.paging import BLOCK, blocks_of
from fleetcast.runtime.llm.requests import Piece
from fleetcast.runtime.llm.shape import read_shape
from tests.runtime.llm import tiny

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

LIMIT = 3e-4 if torch.cuda.is_available() else 1e-4  # a GPU adds up in another order, and logits here reach 30
POLICIES = {
    "chunked": batch.Chunked(chunk=20, max_batch=8),
    "orca": batch.Orca(max_batch=6, max_tokens=300),
    "prefill_first": batch.PrefillFirst(max_batch=6, max_tokens=120),
    "static": batch.Static(max_batch=4, max_tokens=400),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other on busy cores make these small products a hundred times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=tiny.CONFIGS)
def model(request, tmp_path):
    table = tiny.config(request.param)
    values = tiny.tensors(table)
    return table, values, tiny.write(tmp_path / "model", table, values)


def transformer(folder, blocks=64, dtype="auto"):
    return open_engine(folder, blocks=blocks, dtype=dtype).model


def prompt(seed, n):
    return np.random.default_rng(seed).integers(0, tiny.SIZES["vocab_size"], n).tolist()


def test_logits_are_those_of_the_definition_at_every_position(model):
    """One position after another (decode), so that every one is compared, from a cache in scattered blocks."""
    table, values, folder = model
    t, tokens = transformer(folder), prompt(0, 50)
    held = [9, 2, 30, 17]
    rows = [t.forward([Piece([token], i, held[: blocks_of(i + 1)], True)])[0] for i, token in enumerate(tokens)]
    expected = tiny.logits(table, values, tokens)
    assert np.abs(expected).max() > 3
    assert np.abs(np.array(rows) - expected).max() < LIMIT


def test_prompts_pieces_and_decode_steps_of_several_requests_in_one_pass(model):
    table, values, folder = model
    t = transformer(folder)
    lengths, held = (40, 1, 23, 31, 17), ([5, 1, 60], [0], [33, 2], [8, 9], [40, 41])
    asked = [prompt(i, n) for i, n in enumerate(lengths)]
    expected = [tiny.logits(table, values, tokens)[-1] for tokens in asked]
    # before: all but the last token of 0, the first 10 of 2, all but one of 3
    begun = t.forward([Piece(asked[i][:n], 0, held[i], False) for i, n in ((0, 39), (2, 10), (3, 30))])
    assert begun.shape == (0, 61)
    found = t.forward(
        [
            Piece(asked[0][39:], 39, held[0], True), Piece(asked[1], 0, held[1], True),
            Piece(asked[2][10:], 10, held[2], True), Piece(asked[4][:16], 0, held[4], False),
            Piece(asked[3][30:], 30, held[3], True),
        ]
    )  # fmt: skip
    assert np.abs(found - np.array(expected)[:4]).max() < LIMIT
    after = t.forward([Piece(asked[4][16:], 16, held[4], True)])
    assert np.abs(after[0] - expected[4]).max() < LIMIT


def test_what_another_request_left_in_a_block_is_not_seen(model):
    table, values, folder = model
    t, tokens = transformer(folder, blocks=4), prompt(3, 20)
    t.cache.keys.fill_(float("nan"))
    t.cache.values.fill_(float("nan"))
    t.forward([Piece(tokens[:19], 0, [2, 0], False)])
    t.forward([Piece([1], 0, [3], False)])
    found = t.forward([Piece(tokens[19:], 19, [2, 0], True), Piece([2], 1, [3], True)])
    assert np.abs(found[0] - tiny.logits(table, values, tokens)[-1]).max() < LIMIT
    assert np.abs(found[1] - tiny.logits(table, values, [1, 2])[-1]).max() < LIMIT


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("name", ["llama3", "mistral-windowed", "qwen3"])
def test_batched_chunked_and_evicted_requests_make_the_tokens_they_make_alone(kind, name, tmp_path):
    table = tiny.config(name)
    values = tiny.tensors(table)
    draw = np.random.default_rng(1)
    asked = [(prompt(i, int(draw.integers(1, 70))), int(draw.integers(1, 30))) for i in range(12)]
    e = open_engine(tiny.write(tmp_path / "m", table, values), blocks=9, batch=POLICIES[kind])
    made = [e.submit(tokens, limit) for tokens, limit in asked]
    e.run()
    expected = [tiny.follow(table, values, r.tokens, r.prompt) for r in made]
    assert [r.output for r in made] == [tokens for tokens, _ in expected]
    assert [len(r.output) for r in made] == [limit for _, limit in asked]
    assert min(gap for _, gap in expected) > 1e-3, "a tie: choose another seed"
    assert e.blocks.used == 0
    assert len({token for r in made for token in r.output}) > 20
    if kind in ("chunked", "prefill_first"):
        assert e.preemptions > 0, "the case must evict"
    if kind == "chunked":
        assert any(i.decodes and i.prefills for i in e.iterations)


def test_logprobs_are_those_of_the_definition(tmp_path):
    table = tiny.config("qwen2")
    values = tiny.tensors(table)
    e = open_engine(tiny.write(tmp_path / "m", table, values), blocks=9)
    r = e.submit(prompt(5, 30), 6, Sampling(temperature=1.0, logprobs=61, seed=1))
    e.run()
    for i, choice in enumerate(r.choices):
        row = tiny.logits(table, values, r.tokens[: 30 + i])[-1]
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert [p for _, p in sorted(choice.top)] == pytest.approx(expected.tolist(), abs=2e-4)


def test_bf16_is_close_and_fp32_of_a_bf16_checkpoint_is_exact(tmp_path):
    table = tiny.config("llama3")
    rounded = {n: torch.tensor(v).bfloat16().float().numpy() for n, v in tiny.tensors(table).items()}
    folder = tiny.write(tmp_path / "m", table, rounded, dtype="bfloat16")
    tokens = prompt(7, 40)
    expected = tiny.logits(table, rounded, tokens)[-1]
    held = list(range(blocks_of(40)))

    def last(dtype):
        t = transformer(folder, dtype=dtype)
        return t, t.forward([Piece(tokens, 0, held, True)])[0]

    half, rough = last("auto")
    assert half.cache.keys.dtype == half.embedding.dtype == torch.bfloat16
    error = np.linalg.norm(rough - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 0.05
    wide, exact = last("fp32")
    assert wide.cache.keys.dtype == torch.float32
    assert np.abs(exact - expected).max() < LIMIT


def test_shards_hold_the_same_model(tmp_path):
    table = tiny.config("llama-biased")
    values = tiny.tensors(table)
    one, three = (tiny.write(tmp_path / str(n), table, values, shards=n) for n in (1, 3))
    piece = [Piece(prompt(8, 20), 0, [0, 1], True)]
    assert np.array_equal(transformer(one).forward(piece), transformer(three).forward(piece))


def test_a_tied_checkpoint_may_repeat_the_embedding_and_rotary_tables(tmp_path):
    table = tiny.config("llama-tied")
    values = tiny.tensors(table)
    spare = {"lm_head.weight": values["model.embed_tokens.weight"].copy()}
    spare["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    folder = tiny.write(tmp_path / "m", table, values | spare)
    found = transformer(folder).forward([Piece([1, 2, 3], 0, [0], True)])[0]
    assert np.abs(found - tiny.logits(table, values, [1, 2, 3])[-1]).max() < LIMIT


NAME = "model.layers.1.self_attn.k_proj.weight"


def without(values):
    return {n: v for n, v in values.items() if n != NAME}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without, rf"tensor {NAME}: is missing"),
        (lambda v: v | {NAME: v[NAME].T.copy()}, r"has another shape \(got \(32, 16\)\); \(16, 32\) as config.json"),
        (lambda v: v | {NAME: v[NAME].astype(np.int32)}, r"has a dtype that is not run \(got 'I32'\)"),
        (lambda v: v | {"model.layers.1.self_attn.k_proj.bias": np.ones(16, np.float32)}, "is not part of the model"),
    ],
    ids=["missing", "shape", "dtype", "extra"],
)
@pytest.mark.parametrize("shards", [1, 2])
def test_tensors_that_do_not_fit_the_config_are_named(spoil, said, shards, tmp_path):
    from safetensors.numpy import save_file

    table = tiny.config("llama3")
    folder = tiny.write(tmp_path / "m", table, {})
    (folder / "model.safetensors").unlink()
    values = spoil(tiny.tensors(table))
    if shards == 1:
        save_file(values, folder / "model.safetensors")
    else:
        names = list(values)
        parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for part, held in parts.items():
            save_file({n: values[n] for n in held}, folder / part)
        placed = {n: part for part, held in parts.items() for n in held}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(SpecError, match=said):
        open_engine(folder, blocks=4)


def test_pickled_weights_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    table = tiny.config("llama3")
    (tmp_path / "config.json").write_text(json.dumps(table))
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(SpecError, match=r"holds no safetensors.*Pickled weights are never read"):
        open_engine(tmp_path, blocks=4)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "weight_map: must be a table"),
        ('{"weight_map": {"a": "../b.safetensors"}}', "beside the index"),
        ('{"weight_map": {"a": "b.bin"}}', "beside the index"),
        ('{"weight_map": {"a": "b.safetensors"}}', "b.safetensors: is not there"),
        ('{"weight_map": {"a": "c.safetensors"}}', "c.safetensors: cannot be read as safetensors"),
        ('{"weight_map": {"a": "d.safetensors"}}', "tensor a: is missing"),
    ],
)
def test_an_index_that_cannot_be_is_refused(index, said, tmp_path):
    from safetensors.numpy import save_file

    (tmp_path / "config.json").write_text(json.dumps(tiny.config("llama3")))
    (tmp_path / "model.safetensors.index.json").write_text(index)
    (tmp_path / "c.safetensors").write_bytes(b"\xff" * 100)
    save_file({"model.norm.weight": np.ones(32, np.float32)}, tmp_path / "d.safetensors")
    with pytest.raises(SpecError, match=said):
        open_engine(tmp_path, blocks=4)


def test_folders_and_dtypes_that_cannot_be_are_refused(tmp_path):
    table = tiny.config("llama3")
    folder = tiny.write(tmp_path / "m", table, tiny.tensors(table))
    with pytest.raises(SpecError, match=r"dtype: cannot be run \(got 'fp16'\); one of auto, fp32, bf16"):
        open_engine(folder, blocks=4, dtype="fp16")
    with pytest.raises(SpecError, match="nowhere"):
        open_engine(tmp_path / "nowhere", blocks=4)
    (folder / "config.json").write_text(json.dumps(table | {"architectures": ["GPT2LMHeadModel"], "n_layer": 1}))
    with pytest.raises((SpecError, Unsupported)):
        open_engine(folder, blocks=4)


def test_the_cache_takes_the_bytes_that_the_planner_counts(tmp_path):
    from fleetcast.scenario.workload.architectures import from_config

    for name in tiny.CONFIGS:
        table = tiny.config(name)
        t = transformer(tiny.write(tmp_path / name, table, tiny.tensors(table)), blocks=10)
        held = (
            t.cache.keys.numel() * t.cache.keys.element_size() + t.cache.values.numel() * t.cache.values.element_size()
        )
        assert held == 10 * BLOCK * from_config(table).kv_bytes_per_token(4.0)
        assert read_shape(table).context == 512


def test_the_pages_example_runs(tmp_path, monkeypatch, capsys, root):
    page = (root / "docs/engine.md").read_text(encoding="utf-8")
    example = page.partition("```python\n")[2].partition("```")[0]
    table = tiny.config("llama3")
    tiny.write(tmp_path / "my-llama", table, tiny.tensors(table))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    assert len(names["answer"].output) == 24
    said = capsys.readouterr().out
    assert said.count("\n") == 16 + 1, "one line a token of the second request, and the iterations"
