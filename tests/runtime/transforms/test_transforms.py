"""Bytes come out as foretold, packed matrices unpack to what they say, and what is removed is what matters least."""

import json

import numpy as np
import pytest

from benchmarks.small_models import corpus
from fleetcast.base.errors import SpecError, Unsupported
from tests.runtime.llm import tiny

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from fleetcast.runtime import transforms  # noqa: E402
from fleetcast.runtime.llm import open_engine  # noqa: E402
from fleetcast.runtime.llm.engine import Piece  # noqa: E402
from fleetcast.runtime.llm.shape import read_shape  # noqa: E402
from fleetcast.runtime.training.folder import config, save  # noqa: E402
from fleetcast.runtime.training.forward import forward  # noqa: E402
from fleetcast.runtime.training.lm import score, train  # noqa: E402
from fleetcast.runtime.transforms import DropLayers, LowRank, Narrow, Quantise, Sparsify, applying  # noqa: E402
from fleetcast.runtime.transforms.calibrate import moments, streams  # noqa: E402
from fleetcast.runtime.transforms.checkpoint import (  # noqa: E402
    FAMILY,
    STORAGE,
    plain_bytes,
    read,
    write,
)
from fleetcast.runtime.transforms.forms import dense  # noqa: E402
from fleetcast.scenario.fleet.catalog import device  # noqa: E402
from fleetcast.scenario.workload.architectures import from_config  # noqa: E402
from fleetcast.scenario.workload.catalog import entries, model  # noqa: E402
from fleetcast.scenario.workload.models import Layout  # noqa: E402
from fleetcast.search.advice.techniques import FORMATS, SHAPES, TRANSFORMED, Case  # noqa: E402

TABLE = config(hidden=64, layers=4, heads=4, kv_heads=2, width=128)
ALL = (
    Quantise(), Quantise(bits=8, group=0), Quantise(group=16), Sparsify(), Sparsify(share=0.7), LowRank(),
    LowRank(keep=0.9), Narrow(), Narrow(ffn=0.5, heads=0.5), DropLayers(), DropLayers(share=0.5),
    transforms.Distil(steps=2, batch=2, length=32),
)  # fmt: skip


def said(transform):
    return f"{transform.kind} {' '.join(str(v) for v in vars(transform).values())}"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def text():
    return corpus("code")


@pytest.fixture(scope="module")
def folder(text, tmp_path_factory):
    """A model trained for a few seconds: enough that some of its weights matter more than others."""
    found = train(read_shape(TABLE), text[0], steps=150, batch=8, length=64, held=text[1][:100])
    return save(tmp_path_factory.mktemp("trained"), TABLE, found.weights)


@pytest.fixture(scope="module")
def source(folder):
    return read(folder)


def loss(checkpoint, text):
    plain = {key: value for key, value in checkpoint.config.items() if key != STORAGE}
    return score(read_shape(plain), checkpoint.weights(), text[1][:6000], length=64).loss


def nbytes(checkpoint):
    return sum(value.numel() * value.element_size() for value in checkpoint.tensors.values())


@pytest.mark.parametrize("transform", ALL, ids=said)
def test_bytes_are_as_foretold_from_the_config_and_the_folder_says_the_same(transform, source, text, tmp_path):
    made = transform.apply(source, text[0][:20_000])
    file = write(tmp_path, made)
    assert nbytes(made) == transform.predict_bytes(source.config)
    assert transform.predict_bytes(source.config) < 0.95 * plain_bytes(source.config)
    assert file == (tmp_path / "model.safetensors").stat().st_size
    # the header's name and place of each tensor is all that a file has beside them
    assert nbytes(made) < file < nbytes(made) + 160 * len(made.tensors) + 100
    back = read(tmp_path)
    assert all(torch.equal(value, made.weights()[name]) for name, value in back.weights().items())
    assert dict(back.config) == json.loads(json.dumps(made.config))


@pytest.mark.parametrize("transform", ALL, ids=said)
def test_the_engine_runs_what_was_made_and_agrees_with_the_plain_forward(transform, source, text, tmp_path):
    made = transforms.Unpack().apply(transform.apply(source, text[0][:20_000]))
    write(tmp_path, made)
    tokens = text[1][:40].tolist()
    with torch.inference_mode():
        expected = forward(read_shape(made.config), made.weights(), torch.tensor([tokens]))[0].numpy()
    found = open_engine(tmp_path, blocks=8).model.forward([Piece(tokens, 0, [1, 4, 2], len(tokens))])
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("transform", [t for t in ALL if not isinstance(t, transforms.Distil)], ids=said)
@pytest.mark.parametrize("kind", ["llama-biased", "llama-tied", "qwen2", "qwen3", "multi-query"])
def test_every_family_without_text(transform, kind, tmp_path):
    if isinstance(transform, Narrow) and kind == "multi-query":
        transform = Narrow(ffn=0.5)
    table = tiny.config(kind) | {"num_hidden_layers": 4}
    before = read(tiny.write(tmp_path / "before", table, tiny.tensors(table), dtype="bfloat16"))
    made = transform.apply(before)
    assert nbytes(made) == transform.predict_bytes(before.config)
    write(tmp_path / "after", transforms.Unpack().apply(made))
    assert open_engine(tmp_path / "after", blocks=4).model.vocab == table["vocab_size"]


def test_packed_integers_lie_as_compressed_tensors_has_them():
    """Computed anew: value i of a row is in int32 i // 8, at bit 4 (i % 8), raised by 8."""
    weight = torch.tensor(np.random.default_rng(0).normal(size=(3, 32))).float()
    table = config(hidden=32, layers=1, heads=2, width=32)
    shape = read_shape(table)
    tensors = {name: torch.randn(size) for name, size in shape.tensors()} | {
        "model.layers.0.mlp.up_proj.weight": weight.repeat(11, 1)[:32]
    }
    made = Quantise(bits=4, group=16).apply(transforms.Checkpoint(table, tensors, {}))
    at = "model.layers.0.mlp.up_proj.weight"
    packed, scale = made.tensors[f"{at}_packed"], made.tensors[f"{at}_scale"]
    assert packed.dtype == torch.int32 and tuple(packed.shape) == (32, 4)
    assert made.tensors[f"{at}_shape"].tolist() == [32, 32]
    whole = [[(int(packed[r, i // 8]) >> 4 * (i % 8) & 15) - 8 for i in range(32)] for r in range(3)]
    expected = torch.tensor(whole).float() * scale[:3].float().repeat_interleave(16, dim=1)
    assert torch.equal(made.weights()[at][:3], expected)
    assert ((expected - weight).abs().reshape(3, 2, 16) <= scale[:3].float()[..., None] * 4).all()


@pytest.mark.parametrize("transform", [Quantise(group=16), Quantise(bits=8, group=0), Narrow(heads=0.5)], ids=said)
def test_transformers_opens_what_was_made_and_says_the_same(transform, source, text, tmp_path):
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    models = pytest.importorskip("transformers", reason="transformers is not installed")
    made = transform.apply(source, text[0][:20_000])
    write(tmp_path, made)
    plain = {key: value for key, value in made.config.items() if key != STORAGE}
    tokens = torch.tensor([text[1][:40].tolist()])
    theirs = models.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.inference_mode():
        assert (theirs(tokens).logits - forward(read_shape(plain), made.weights(), tokens)).abs().max() < 1e-4


def test_no_scale_of_the_search_leaves_more_error_than_the_largest_weight_does(source):
    def error(made):
        weights = made.weights()
        return sum(float((weights[n] - v).square().sum()) for n, v in source.weights().items())

    best, plain = (error(Quantise(bits=4, choose=how).apply(source)) for how in ("error", "largest"))
    assert best < 0.97 * plain
    assert error(Quantise(bits=8).apply(source)) < plain / 100


def test_the_catalogue_sizes_the_quantised_checkpoint_as_it_is(source):
    """`scenario.workload` reads quantization_config on its own; only row scales and shapes are not in its count."""
    made = Quantise(bits=4, group=32).apply(source)
    model = from_config(dict(made.config), "config")
    expected = sum(model.stage_bytes(Layout(), model.precision))
    matrices = sum(name.endswith("_shape") for name in made.tensors)
    assert nbytes(made) == expected + 16 * matrices


def test_sparse_rows_hold_exactly_their_share_and_what_is_left_is_untouched(source, text):
    made = Sparsify(share=0.5).apply(source, text[0][:20_000])
    weights, before = made.weights(), source.weights()
    seen = moments(read_shape(source.config), before, text[0][:20_000])
    for name, value in before.items():
        if not name.endswith("_proj.weight"):
            assert torch.equal(weights[name], value)
            continue
        kept = weights[name] != 0
        assert (kept.sum(1) == value.shape[1] // 2).all()
        assert torch.equal(weights[name][kept], value[kept])
        worth = value.abs() * seen[name].diagonal().sqrt()
        least = torch.where(kept, worth, torch.inf).amin(1)
        assert (torch.where(kept, 0.0, worth).amax(1) <= least + 1e-6).all()


def test_low_rank_factors_are_the_best_of_their_rank(source, text):
    """Eckart and Young: the error on the inputs is the tail of the spectrum; nothing of that rank has less."""
    made = LowRank(keep=0.5).apply(source, text[0][:20_000])
    name = "model.layers.1.mlp.up_proj.weight"
    weight = source.weights()[name].double()
    moment = moments(read_shape(source.config), source.weights(), text[0][:20_000])[name].double()
    moment += torch.eye(64, dtype=torch.float64) * 0.01 * moment.diagonal().mean()
    rank = LowRank(keep=0.5).rank(*weight.shape)

    def error(other):
        apart = weight - other.double()
        return float((apart @ moment * apart).sum())

    values, vectors = torch.linalg.eigh(weight @ moment @ weight.T)
    assert error(made.weights()[name]) == pytest.approx(float(values[:-rank].sum()), rel=1e-3)
    top = vectors[:, -rank:]
    assert error(top @ top.T @ weight) == pytest.approx(error(made.weights()[name]), rel=1e-3)  # the same, another way
    plain = LowRank(keep=0.5, choose="weights").apply(source).weights()[name]
    assert error(made.weights()[name]) < error(plain)
    assert torch.linalg.matrix_rank(made.weights()[name].double(), rtol=1e-5) == rank


def test_refitted_columns_are_the_least_squares_solution(source, text):
    tokens = text[0][:20_000]
    name = "model.layers.0.mlp.down_proj.weight"
    before = source.weights()
    moment = moments(read_shape(source.config), before, tokens)[name].double()
    moment += torch.eye(128, dtype=torch.float64) * 0.01 * moment.diagonal().mean()
    made, bare = (Narrow(ffn=0.25, refit=refit).apply(source, tokens) for refit in (True, False))
    up = "model.layers.0.mlp.up_proj.weight"
    kept = [int((before[up] == row).all(1).nonzero()) for row in made.weights()[up]]
    assert kept == sorted(kept) and len(kept) == 96
    assert torch.equal(bare.weights()[name], before[name][:, kept])

    def error(columns):
        apart = before[name].double().clone()
        apart[:, kept] -= columns.double()
        return float((apart @ moment * apart).sum())

    best = error(made.weights()[name])
    assert best < error(bare.weights()[name])
    step = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)).double() * 1e-2
    assert all(error(made.weights()[name].double() + sign * step) > best for sign in (-1, 1))


def test_the_block_that_turns_the_stream_least_goes_and_the_others_keep_their_order(source, text):
    tokens = text[0][:20_000]
    x = streams(read_shape(source.config), source.weights(), tokens)
    turns = []
    for i in range(3):
        a, b = x[i].double().numpy(), x[i + 2].double().numpy()
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        turns.append(np.arccos(np.clip(cosine, -1, 1)).mean())
    first = int(np.argmin(turns))
    made = DropLayers(share=0.5).apply(source, tokens).weights()
    stay = [i for i in range(4) if not first <= i < first + 2]
    for now, was in enumerate(stay):
        name = "self_attn.q_proj.weight"
        assert torch.equal(made[f"model.layers.{now}.{name}"], source.weights()[f"model.layers.{was}.{name}"])
    assert read_shape(DropLayers(share=0.5).apply(source).config).windows == (0, 0)
    assert DropLayers(share=0.25).first(source, None) == 2  # the last but one


@pytest.mark.parametrize(
    ("ours", "null"),
    [
        (Sparsify(), Sparsify(choose="random")), (LowRank(keep=0.8), LowRank(keep=0.8, choose="random")),
        (Narrow(ffn=0.5), Narrow(ffn=0.5, choose="random")),
    ],
    ids=["sparsify", "low_rank", "narrow"],
)  # fmt: skip
def test_what_matters_least_costs_less_than_a_random_choice_of_the_same_size(ours, null, source, text):
    tokens = text[0][:20_000]
    before, chosen, drawn = (loss(c, text) for c in (source, ours.apply(source, tokens), null.apply(source, tokens)))
    assert ours.predict_bytes(source.config) == null.predict_bytes(source.config)
    assert before - 0.01 < chosen < drawn - 0.02


def test_a_technique_is_applied_to_a_folder_and_scored_on_text_that_it_did_not_see(folder, tmp_path):
    text = bytes(corpus("code")[0][:40_000].astype(np.uint8)).decode(errors="ignore")
    made = applying.transform(folder, "prune + quantise-int4 group=32", tmp_path / "out", text=text)
    assert made.tensors == made.predicted
    assert made.file == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert made.predicted < 0.3 * made.source
    assert made.before.loss < made.after.loss
    healed = applying.transform(folder, "prune", tmp_path / "healed", text=text, heal=10)
    bare = applying.transform(folder, "prune", tmp_path / "bare", text=text)
    assert healed.after.loss < bare.after.loss - 0.02
    again = applying.transform(tmp_path / "out", "unpack", tmp_path / "plain", text=text)
    assert again.after.loss == pytest.approx(made.after.loss)


def test_a_student_may_be_a_folder_and_goes_on_from_its_weights(source, folder, text, tmp_path):
    table = config(hidden=32, layers=1, heads=2, width=64)
    begun = train(read_shape(table), text[0], steps=60, batch=8, length=64, held=text[1][:100]).weights
    save(tmp_path / "student", table, begun)
    step = transforms.Distil(student=str(tmp_path / "student"), steps=20, batch=8, length=64, rate=3e-3)
    made = step.apply(source, text[0])
    assert nbytes(made) == step.predict_bytes(source.config)
    assert loss(made, text) < loss(read(tmp_path / "student"), text) - 0.02
    with pytest.raises(SpecError, match="reads other tokens"):
        transforms.Distil(student="llama-3.2-1b").predict_bytes(source.config)
    with pytest.raises(SpecError, match=r"Did you mean 'llama-3\.2-1b'"):
        transforms.Distil(student="llama-3.2-1").predict_bytes(source.config)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen2.5-7b", "qwen3-14b", "llama-3.1-70b", "mistral-7b-v0.3"])
def test_what_the_advisor_names_takes_the_bytes_that_it_says(name):
    """Its bytes are the catalogue's, ours are those of the transform's own count; row scales make the 2 %."""
    table, whole = dict(entries()[name].config), model(name)
    assert whole.architecture in TRANSFORMED == FAMILY
    for shape in (SHAPES["whole"], SHAPES["prune"], SHAPES["distil"]):
        for form in FORMATS.values():
            changed = shape(Case(whole, device("h100-sxm")))
            if isinstance(changed, str):
                continue
            stored = form(Case(changed.model, device("h100-sxm")))
            if isinstance(stored, str) or stored.dtype == "fp8":
                continue
            technique = " + ".join(c.transform for c in (changed, stored) if c.transform)
            config, found = table, 2 * whole.params()
            for _, step in applying.parse(technique) if technique else ():
                found = step.predict_bytes(config)
                config = step.config(config) if hasattr(step, "config") else config
            assert found == pytest.approx(changed.model.weight_bytes(dtype=stored.dtype), rel=0.02), technique


def test_what_cannot_be_is_refused(source, folder, tmp_path):
    packed = Quantise().apply(source)
    with pytest.raises(SpecError, match=r"stored as compressed-tensors already.*Apply 'unpack' first"):
        Sparsify().apply(packed)
    with pytest.raises(SpecError, match="divisor of the matrices' inputs, 64, 128"):
        Quantise(group=48).apply(source)
    with pytest.raises(SpecError, match="leaves no layer"):
        DropLayers(share=0.9).apply(source)
    with pytest.raises(SpecError, match="removes nothing"):
        Narrow(ffn=0.0).apply(source)
    with pytest.raises(SpecError, match="needs text"):
        transforms.Distil().apply(source)
    with pytest.raises(SpecError, match=r"unknown \(got 'quantize'\).*Did you mean 'quantise'"):
        applying.parse("quantize bits=4")
    with pytest.raises(SpecError, match="bits"):
        applying.parse("quantise bits=5")
    with pytest.raises(SpecError, match=r"Did you mean 'ffn'|unknown"):
        applying.parse("narrow fnn=0.5")
    with pytest.raises(SpecError, match="is the source"):
        applying.transform(folder, "prune", folder)
    with pytest.raises(SpecError, match="needs text to train on"):
        applying.transform(folder, "prune", tmp_path / "x", heal=3)
    with pytest.raises(SpecError, match="cannot be"):
        applying.transform(folder, "prune", tmp_path / "x", heal=-1, text="abc")
    with pytest.raises(SpecError, match="cannot be written"):
        applying.transform(folder, "prune", folder / "config.json" / "x")
    assert [step.seed for _, step in applying.parse("sparsify + narrow seed=3 + quantise", 7)[:2]] == [7, 3]
    with pytest.raises(SpecError, match="too short"):
        applying.transform(folder, "prune", tmp_path / "x", text="abc")
    with pytest.raises(SpecError, match="not a folder"):
        read(tmp_path / "nothing")
    with pytest.raises(Unsupported, match="awq is not unpacked"):
        dense({}, {"quant_method": "awq"})
    holes = {name: value for name, value in packed.tensors.items() if name != "model.layers.0.mlp.up_proj.weight_scale"}
    with pytest.raises(SpecError, match="cannot be unpacked"):
        dense(holes, packed.config[STORAGE])
    (tmp_path / "config.json").write_text(json.dumps(TABLE | {"architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(Unsupported, match="GPT2LMHeadModel is not transformed"):
        read(tmp_path)
