"""Asking a model of this process: log probabilities as computed one by one, in any batch, and a random one guesses."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.runtime.measure.quality import judge, judge_folder
from fleetcast.runtime.measure.quality.items import everyday
from fleetcast.runtime.measure.quality.local import Bytes, Local, held, words_of
from fleetcast.runtime.measure.quality.orders import Ask, asks
from tests.runtime.llm.echo import Echo, logits_of

ITEMS = everyday()[::40]


class Emits(Echo):
    """Logits after as many of a piece's last tokens as it asks for."""

    def forward(self, pieces):
        super().forward(pieces)
        rows = []
        for p in pieces:
            read = [self.cache[self.slot(p, i)] for i in range(p.start + len(p.tokens))]
            rows += [logits_of(read[:at], self.vocab) for at in range(len(read) - p.emit + 1, len(read) + 1)]
        return np.array(rows, np.float32).reshape(-1, self.vocab)


class Halves:
    """Reads two letters as one token where they are the same: continuations then have several tokens."""

    def encode(self, text):
        found, i = [], 0
        while i < len(text):
            twice = text[i : i + 2] == text[i] * 2
            found.append(ord(text[i]) % 100 + 100 * twice)
            i += 1 + twice
        return found


def plain(words, ask, vocab, mean=False):
    """The sum of log probabilities by the definition, a token at a time."""
    found = []
    whole = [words.encode(ask.prompt + c) for c in ask.continuations]
    shared = 0
    while all(shared < len(w) - 1 and w[shared] == whole[0][shared] for w in whole):
        shared += 1
    for ids, text in zip(whole, ask.continuations, strict=True):
        total = 0.0
        for at in range(shared, len(ids)):
            row = logits_of(ids[:at], vocab).astype(float)
            total += row[ids[at]] - math.log(sum(math.exp(x) for x in row))
        found.append(total / len(text.encode()) if mean else total)
    return found


@pytest.mark.parametrize("by", ["letters", "texts"])
@pytest.mark.parametrize("words", [Bytes(), Halves()], ids=["bytes", "halves"])
@pytest.mark.parametrize("mean", [False, True])
def test_log_probabilities_are_those_of_the_definition(by, words, mean):
    every = asks(ITEMS[:3], "cyclic", by)
    found = list(Local(Emits(256, vocab=300), words, blocks=256, mean=mean).score(every))
    assert len(found) == len(every)
    for ask, said in zip(every, found, strict=True):
        assert said.logprobs == pytest.approx(plain(words, ask, 300, mean), abs=1e-6)
        assert said.tokens > 10


def test_letters_of_one_token_take_one_piece_each():
    model = Echo(256, vocab=256)
    list(Local(model, Bytes(), blocks=256).score(asks(ITEMS[:2], "cyclic")))
    pieces = [piece for found in model.passes for piece in found]
    assert len(pieces) == 8
    assert {piece.emit for piece in pieces} == {1}


@pytest.mark.parametrize("blocks", [40, 256])
def test_batches_change_nothing(blocks):
    alone = judge(Local(Echo(256, vocab=256), Bytes(), blocks=40), ITEMS)
    found = judge(Local(Echo(256, vocab=256), Bytes(), blocks=blocks), ITEMS)
    assert [r.picks for r in found.rows] == [r.picks for r in alone.rows]


def test_a_question_beyond_the_context_is_named():
    with pytest.raises(SpecError, match=r"longer than the model reads .*50 tokens"):
        list(Local(Echo(256, vocab=256, context=50), Bytes(), blocks=256).score(asks(ITEMS[:1], "given")))
    with pytest.raises(SpecError, match="32 tokens"):
        list(Local(Echo(256, vocab=256), Bytes(), blocks=2).score(asks(ITEMS[:1], "given")))
    with pytest.raises(SpecError, match="shares no token"):
        list(Local(Echo(9, vocab=256), Bytes(), blocks=9).score([Ask(0, (0, 1, 2, 3), "", ("a", "b", "c", "d"))]))


def test_tensors_are_counted_once():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    a = torch.zeros(10, 10)
    assert held({"a": a, "view": a[2:], "again": [a, (a,)]}) == 400
    assert held([a, torch.zeros(3)], a) == 12
    assert held([a.to_mkldnn(), torch, len]) == 400, "packed for a library, and a module that must not be walked"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    from tests.runtime.llm import tiny

    table = tiny.config("llama3") | {"vocab_size": 256}
    return tiny.write(tmp_path_factory.mktemp("quality") / "random", table, tiny.tensors(table))


def test_a_random_model_guesses_and_leans_to_letters(folder):
    found = judge_folder(folder, everyday()[::8]).table()
    low, high = found["interval"]
    assert low <= 0.25 <= high
    assert found["p"] > 0.001
    assert found["positions"]["bias"] > 0.02
    assert (found["model"], found["dtype"]) == ("random", "fp32")
    costs = found["costs"]
    parameters = sum(np.prod(shape) for shape in _shapes(folder))
    assert costs["weight_bytes"] >= 4 * parameters
    assert costs["weight_bytes"] == pytest.approx(4 * parameters, rel=0.01)
    assert costs["cache_bytes_per_token"] == 2 * 4 * 3 * 2 * 8  # keys and values, fp32, layers, heads, their width
    assert costs["joules"] > 0
    assert found["notes"] == ["no tokenizer.json: text is read as bytes"]


def _shapes(folder):
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "np") as file:
        return [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118


@pytest.mark.parametrize("orders", ["cyclic", "all"])
def test_a_real_models_score_is_the_same_under_every_listing(folder, orders):
    items = ITEMS[:6]
    first = judge_folder(folder, items, orders=orders).table()
    moved = tuple(replace(i, options=i.options[::-1], answer=3 - i.answer) for i in items[::-1])
    again = judge_folder(folder, moved, orders=orders).table()
    assert {k: again[k] for k in ("accuracy", "positions", "fields")} == {
        k: first[k] for k in ("accuracy", "positions", "fields")
    }


def test_bfloat16_is_said(folder):
    found = judge_folder(folder, ITEMS[:2], dtype="bf16", by="texts").table()
    assert found["dtype"] == "bf16"
    parameters = sum(np.prod(shape) for shape in _shapes(folder))
    assert found["costs"]["weight_bytes"] == pytest.approx(2 * parameters, rel=0.05)


def test_a_tokenizer_is_read_and_its_lack_is_named(folder, tmp_path):
    assert isinstance(words_of(folder, 256), Bytes)
    with pytest.raises((SpecError, MissingExtra), match=r"is not there|not installed"):
        words_of(tmp_path, 32_000)
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SpecError, match="is not a tokenizer"):
        words_of(tmp_path, 32_000)
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[x]": 0, "a": 1}, unk_token="[x]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    assert json.loads((tmp_path / "tokenizer.json").read_text())
    assert words_of(tmp_path, 32_000).encode("a b a") == [1, 0, 1]
