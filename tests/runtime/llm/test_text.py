"""Text in and out: pieces joined are the whole, no half characters, stop strings wherever tokens begin and end."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from tests.runtime.llm import words

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytest.importorskip("jinja2", reason="jinja2 is not installed")

from fleetcast.runtime.llm import chat  # noqa: E402
from fleetcast.runtime.llm.text import Decoder, Stops, Text, Writer, open_text  # noqa: E402
from fleetcast.runtime.training.tokens import byte_tokenizer  # noqa: E402


def byte_level():
    return Text(tokenizers.Tokenizer.from_str(words.trained()))


def sentence_pieces():
    """The other make of the family: words with a mark before them, and a token per byte for what has none."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{b:02X}>": b + 3 for b in range(256)}
    for piece in ("▁", "▁hello", "▁world", "a", "b", "!", "é", "▁é"):
        vocab[piece] = len(vocab)
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    made.add_special_tokens(["<s>", "</s>"])
    made.decoder = tokenizers.decoders.Sequence([
        tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse(),
        tokenizers.decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    return Text(made)


TEXT = byte_level()
PIECES = sentence_pieces()
BYTES = Text(tokenizers.Tokenizer.from_str(byte_tokenizer()))
HARD = "naïve 你好 🙂👩‍👩‍👧 \u200d ünï\n\ttab ﷽ 𝔘"


@given(st.lists(st.integers(0, words.VOCAB - 1), max_size=120))
@settings(deadline=None)
def test_pieces_joined_are_the_text_of_all_tokens_whatever_the_tokens(tokens):
    decoder = Decoder(TEXT)
    pieces = [decoder.feed(t) for t in tokens] + [decoder.flush()]
    assert "".join(pieces) == TEXT.decode(tokens)


@given(st.text(max_size=60), st.text(max_size=20))
@settings(deadline=None)
def test_no_piece_ends_in_half_a_character_and_text_survives(prompt, answer):
    before, tokens = TEXT.encode(prompt), TEXT.encode(answer)
    decoder = Decoder(TEXT, before)
    pieces = [decoder.feed(t) for t in tokens]
    assert "".join([*pieces, decoder.flush()]) == answer
    if "\ufffd" not in answer:
        assert all("\ufffd" not in piece for piece in pieces)


@pytest.mark.parametrize("make", [TEXT, BYTES], ids=["pieces", "bytes"])
@pytest.mark.parametrize("text", [HARD, "🙂" * 40, "é" * 200, "a🙂" * 50])
def test_a_character_comes_when_its_last_byte_does(text, make):
    decoder, said = Decoder(make), ""
    tokens = make.encode(text)
    raw = b""
    for token in tokens:
        said += decoder.feed(token)
        raw += make.piece(token)[1]
        assert said == raw.decode("utf-8", "ignore"), "as early as the bytes allow"
    assert said == text


@pytest.mark.parametrize("text", [HARD, "ab é🙂é!", "🙂🙂"])
def test_bytes_that_are_tokens_of_their_own_come_out_whole(text):
    names = PIECES._tokenizer.get_vocab()
    tokens = [names["▁hello"], names["▁world"], *(names[f"<0x{b:02X}>"] for b in text.encode()), names["▁hello"]]
    decoder = Decoder(PIECES)
    pieces = [decoder.feed(t) for t in tokens]
    assert "".join([*pieces, decoder.flush()]) == f"hello world{text} hello" == PIECES.decode(tokens)
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_word_keeps_its_space_after_a_prompt_and_around_special_tokens():
    names = PIECES._tokenizer.get_vocab()
    decoder = Decoder(PIECES, [1, names["▁hello"]])
    assert decoder.feed(names["▁world"]) == " world"
    decoder = Decoder(PIECES, [1])
    assert [decoder.feed(names[t]) for t in ("▁hello", "</s>", "▁world")] == ["hello", "", " world"]


def test_bytes_that_never_become_characters_do_not_hold_up_the_text_or_memory():
    names = TEXT._tokenizer.get_vocab()
    letter = next(name for name, byte in TEXT._bytes.items() if byte == 0x80)
    decoder = Decoder(TEXT)
    tokens = [names[letter]] * 500
    pieces = [decoder.feed(t) for t in tokens]
    assert len("".join(pieces)) >= len(tokens) - 4
    assert len(decoder._ids) < 80
    assert "".join([*pieces, decoder.flush()]) == "\ufffd" * 500


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=4), st.data())
def test_stop_strings_are_found_as_in_the_whole_text(text, strings, data):
    """Oracle: the first place in the text so far at which any of them is whole, looking after each piece."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    stops, said, hit = Stops(strings), "", False
    for i, piece in enumerate(pieces):
        out, hit = stops.feed(piece)
        said += out
        assert not any(s in said for s in strings)
        if hit:
            seen = "".join(pieces[: i + 1])
            break
        assert not any(s in "".join(pieces[: i + 1]) for s in strings), "missed"
    if hit:
        assert said == seen[: min(at for s in strings if (at := seen.find(s)) >= 0)]
    else:
        assert said + stops.flush() == text


def test_a_stop_string_across_tokens_is_found_and_not_said():
    tokens = TEXT.encode("one two STOP three")
    writer = Writer(TEXT, [], stop=["two STO"])
    said = ""
    for token in tokens:
        piece, stopped = writer.feed(token, False)
        said += piece
        if stopped:
            break
    assert stopped
    assert said == "one "


def test_an_end_token_has_no_text_and_what_was_held_comes_with_the_last():
    end = 0
    writer = Writer(TEXT, [], stop=["xyz"], ends=[end])
    pieces = [writer.feed(t, False)[0] for t in TEXT.encode("ax")]
    assert "".join(pieces) == "a"
    assert writer.feed(end, True) == ("x", False)


def test_the_bytes_of_pieces_joined_are_those_of_the_text():
    assert b"".join(TEXT.piece(t)[1] for t in TEXT.encode(HARD)) == HARD.encode()
    assert TEXT.piece(0) == ("<|end|>", b"<|end|>")
    names = PIECES._tokenizer.get_vocab()
    assert PIECES.piece(names["<0xF0>"])[1] == b"\xf0"


def test_lone_surrogates_are_refused():
    with pytest.raises(SpecError, match="Unicode"):
        TEXT.encode("\ud800")


def folder(tmp_path, **files):
    (tmp_path / "tokenizer.json").write_text(words.trained(), encoding="utf-8")
    for name, table in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(table), encoding="utf-8")
    return tmp_path


def test_end_tokens_come_from_the_first_file_that_names_them(tmp_path):
    at = folder(tmp_path, tokenizer_config={"eos_token": {"content": "<|end|>"}})
    assert open_text(at, words.VOCAB).ends == (0,)
    folder(tmp_path, config={"eos_token_id": 2})
    assert open_text(at, words.VOCAB).ends == (2,)
    folder(tmp_path, generation_config={"eos_token_id": [0, 1]})
    assert open_text(at, words.VOCAB).ends == (0, 1)


def test_a_chat_is_written_as_the_template_says(tmp_path):
    at = folder(tmp_path, tokenizer_config={"bos_token": "<|begin|>", "chat_template": words.CHAT})
    messages = [{"role": "user", "content": "Hello?"}]
    text = open_text(at, words.VOCAB)
    tokens = text.chat(messages)
    assert "".join(text.piece(t)[0] for t in tokens) == "<|begin|><|turn|>user\nHello?<|end|>\n<|turn|>assistant\n"
    assert tokens[0] == 1
    (at / "chat_template.jinja").write_text("{{ messages[0]['content'] }}{% generation %}!{% endgeneration %}")
    text = open_text(at, words.VOCAB)
    assert text.decode(text.chat(messages)) == "Hello?!"


BAD = {
    "nothing": ({}, "tokenizer.json: is not there"),
    "no tokenizer": ({"tokenizer": {"model": {}}}, "is not a tokenizer"),
    "end beyond": ({"tokenizer": None, "config": {"eos_token_id": 9999}}, r"config.json.eos_token_id: cannot be"),
    "end no id": ({"tokenizer": None, "config": {"eos_token_id": "x"}}, r"config.json.eos_token_id: cannot be"),
    "no table": ({"tokenizer": None, "tokenizer_config": [1]}, "is not a table"),
    "template": ({"tokenizer": None, "tokenizer_config": {"chat_template": "{% for %}"}}, "is not a chat template"),
    "no text": ({"tokenizer": None, "tokenizer_config": {"chat_template": 3}}, "chat_template: cannot be"),
}


@pytest.mark.parametrize("case", BAD)
def test_folders_that_cannot_be_are_refused_with_the_file_and_the_next_step(tmp_path, case):
    files, said = BAD[case]
    for name, table in files.items():
        text = words.trained() if table is None else json.dumps(table)
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=said) as found:
        open_text(tmp_path, words.VOCAB)
    assert found.value.hint or found.value.limit


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path):
    with pytest.raises(SpecError, match="more tokens than the model"):
        open_text(folder(tmp_path), 100)


def render(source, **message):
    return chat.Template(source, "t", {}).render([{"role": "user", "content": "hi"} | message])


ENDLESS = {
    "loops": "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "text": "{% for i in range(9000) %}{{ 'x' * 9000 }}{% endfor %}",
    "times": "{{ 'x' * 10**9 }}",
    "list": "{% set a = [0] * 10**9 %}",
    "power": "{% set a = 10 ** (10 ** 9) %}",
    "plus": "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "tilde": "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "pad": "{{ 'x'.ljust(10**9) }}",
    "width": "{{ '%1000000000d' % 1 }}",
    "replace": "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
}


@pytest.mark.parametrize("case", ENDLESS)
def test_a_template_without_end_is_stopped(case):
    before = sys.gettrace()
    with pytest.raises(SpecError, match="is stopped"):
        render(ENDLESS[case])
    assert sys.gettrace() is before


@pytest.mark.parametrize("source", [
    "{{ ''.__class__.__mro__ }}{{ ().__class__.__bases__[0].__subclasses__() }}",
    "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__ }}", "{{ raise_exception.__globals__['sys'] }}",
])  # fmt: skip
def test_a_template_does_not_get_out_of_the_sandbox(source):
    with pytest.raises(SpecError, match=r"fails|unsafe"):
        render(source)


def test_a_template_may_refuse_and_its_words_are_passed_on():
    with pytest.raises(SpecError, match="only one turn"):
        render("{{ raise_exception('only one turn') }}")


def test_what_real_templates_use_works():
    assert (
        render("{% for m in messages %}{% if loop.first %}{{ m['content'] ~ '!' ~ 1 }}{% endif %}{% endfor %}")
        == "hi!1"
    )
    assert render("{{ messages[0] | tojson }}") == '{"role": "user", "content": "hi"}'
    assert render("{{ 'a' * 3 + 'b' }}{{ 2 ** 3 }}{{ '%s' % 'c' }}") == "aaab8c"
    assert render("{% for m in messages %}{% break %}x{% endfor %}{{ messages[0].content.split('i')[0] }}") == "h"
    assert len(render("{{ strftime_now('%Y') }}")) == 4
