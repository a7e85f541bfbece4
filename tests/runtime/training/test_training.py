"""Training lowers the loss on text it never saw, repeats to the bit, and its folder says the same in the engine."""

import json

import numpy as np
import pytest

from benchmarks.small_models import corpus
from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.runtime.llm import open_engine
from fleetcast.runtime.llm.engine import Piece
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.runtime.training.tokens import BYTES, as_bytes, byte_tokenizer
from tests.runtime.llm import tiny

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from fleetcast.runtime.training.folder import config, save  # noqa: E402
from fleetcast.runtime.training.forward import forward, hidden  # noqa: E402
from fleetcast.runtime.training.lm import initial, score, train  # noqa: E402
from fleetcast.runtime.training.muon import orthogonal  # noqa: E402

SMALL = config(hidden=64, layers=2, heads=4, kv_heads=2, width=128)
RECIPE = {"steps": 100, "batch": 8, "length": 64}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained():
    tokens, held = corpus("code")
    return train(read_shape(SMALL), tokens, held=held[:10_000], **RECIPE)


def entropy(tokens, counted):
    """Returns the nats per token of the rule that knows how often each token is, and no more."""
    share = (np.bincount(counted, minlength=BYTES) + 1) / (len(counted) + BYTES)
    return float(-np.log(share[tokens]).mean())


def test_training_lowers_the_held_out_loss_far_below_what_frequencies_alone_say(trained):
    tokens, held = corpus("code")
    unigram = entropy(held[:10_000], tokens)
    before = score(read_shape(SMALL), initial(read_shape(SMALL)), held[:10_000], length=64)
    assert abs(before.loss - np.log(BYTES)) < 0.1  # an untrained model knows nothing
    assert 3.0 < unigram < 3.6
    assert trained.held.loss < unigram - 0.7
    assert trained.held.accuracy > 1.3 * (np.bincount(held[:10_000]).max() / 10_000)
    assert trained.steps == len(trained.losses) == 100


def test_equal_arguments_give_equal_weights_and_another_seed_does_not():
    tokens, _ = corpus("code")
    first, again, other = (
        train(read_shape(SMALL), tokens[:20_000], steps=3, batch=2, length=32, seed=seed).weights for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("kind", tiny.LLAMA)
def test_the_differentiable_forward_is_the_definition(kind):
    table = tiny.config(kind)
    values = tiny.tensors(table)
    ids = np.random.default_rng(0).integers(0, table["vocab_size"], (2, 40))
    weights = {name: torch.tensor(value) for name, value in values.items()}
    found = forward(read_shape(table), weights, torch.tensor(ids)).numpy()
    for row, tokens in zip(found, ids, strict=True):
        assert np.abs(row - tiny.logits(table, values, tokens.tolist())).max() < 1e-4


@pytest.mark.parametrize("name", sorted(tiny.CONFIGS.keys() - tiny.LLAMA.keys()))
def test_other_families_are_refused(name):
    table = tiny.config(name)
    with pytest.raises(Unsupported, match="not trained here"):
        forward(read_shape(table), {}, torch.zeros(1, 2, dtype=torch.long))


def test_a_saved_folder_says_in_the_engine_what_training_said(trained, tmp_path):
    folder = save(tmp_path / "model", SMALL, trained.weights, tokenizer=byte_tokenizer())
    engine = open_engine(folder, blocks=16)
    tokens = as_bytes("def forward(shape, weights, tokens):\n").tolist()
    with torch.inference_mode():
        expected = forward(read_shape(SMALL), trained.weights, torch.tensor([tokens]))[0].numpy()
    piece = Piece(tokens, 0, [3, 1, 7], len(tokens))
    assert np.abs(engine.model.forward([piece]) - expected).max() < 1e-4
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip


def test_training_goes_on_from_weights_and_leaves_them_as_they_are(trained):
    tokens, held = corpus("code")
    before = {name: value.clone() for name, value in trained.weights.items()}
    more = train(read_shape(SMALL), tokens, held=held[:10_000], weights=trained.weights, **RECIPE | {"seed": 1})
    assert more.held.loss < trained.held.loss - 0.1
    assert all(torch.equal(before[name], trained.weights[name]) for name in before)


def test_the_watch_sees_what_every_matrix_is_multiplied_with():
    shape, seen = read_shape(SMALL), {}
    hidden(shape, initial(shape), torch.zeros(2, 5, dtype=torch.long), lambda name, x: seen.update({name: x.shape}))
    inside = {name: size[1] for name, size in shape.tensors() if name.endswith("proj.weight")}
    assert {name: tuple(size) for name, size in seen.items()} == {name: (2, 5, n) for name, n in inside.items()}


def test_what_cannot_be_trained_or_saved_is_refused(tmp_path):
    shape = read_shape(SMALL)
    with pytest.raises(SpecError, match="steps or seconds"):
        train(shape, np.zeros(1000, int))
    with pytest.raises(SpecError, match=r"outside the vocabulary \(got 288\); 0 to 287"):
        train(shape, np.full(1000, BYTES), steps=1)
    with pytest.raises(SpecError, match="too few"):
        train(shape, np.zeros(100, int), steps=1)
    weights = initial(shape)
    with pytest.raises(SpecError, match="fp32, bf16, fp16"):
        save(tmp_path, SMALL, weights, dtype="int3")
    with pytest.raises(SpecError, match=r"lm_head\.weight: does not fit the config"):
        save(tmp_path, SMALL, {name: value for name, value in weights.items() if name != "lm_head.weight"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(3, 24, 40), (2, 40, 24), (1, 16, 16)])
def test_a_step_of_muon_has_the_gradients_singular_vectors_and_values_near_one(size):
    x = torch.tensor(np.random.default_rng(0).normal(size=size)).float()
    found = orthogonal(x, rounds=5)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    values = u.mT @ found @ v.mT
    diagonal = torch.diagonal(values, dim1=-2, dim2=-1)
    assert (values - torch.diag_embed(diagonal)).abs().max() < 1e-4
    assert diagonal.min() > 0.6 and diagonal.max() < 1.3


def test_progress_is_told_and_seconds_end_the_training():
    told = []
    tokens, _ = corpus("code")
    found = train(
        read_shape(SMALL), tokens[:20_000], seconds=0.2, batch=2, length=16, progress=lambda *now: told.append(now)
    )
    assert found.seconds < 5
    assert [step for step, _ in told] == list(range(1, found.steps + 1))


def test_the_byte_tokenizer_gives_bytes_as_the_library_reads_it():
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    known = tokenizers.Tokenizer.from_str(byte_tokenizer())
    text = "Überprüfe x = {1: 'a'}\n\t→ 3 µs  ∞ <b>"
    assert known.encode(text).ids == as_bytes(text).tolist()
    assert known.decode(as_bytes(text).tolist()) == text
    assert known.encode("<|begin|>a<|end|>").ids == [256, 97, 257]
    assert known.get_vocab_size() == BYTES


def test_a_learnt_tokenizer_is_shorter_and_gives_the_text_back():
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    from benchmarks.small_models import text
    from fleetcast.runtime.training.tokens import encode, train_tokenizer

    learnt, held = text("code")
    content = train_tokenizer([learnt[:100_000]], 512)
    assert json.loads(content)["model"]["type"] == "BPE"
    ids = encode(content, held[:5000])
    assert ids.max() < 512
    assert len(ids) < 0.6 * len(held[:5000].encode())
    assert tokenizers.Tokenizer.from_str(content).decode(ids.tolist()) == held[:5000]
    with pytest.raises(SpecError, match="at least 288"):
        train_tokenizer([""], 100)
