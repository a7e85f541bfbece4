"""A tiny model that speaks: random weights and a byte-level tokenizer trained on the documentation."""

import json
from functools import cache
from pathlib import Path

from tests.runtime.llm import tiny

SPECIAL = ["<|end|>", "<|begin|>", "<|turn|>"]
CHAT = (
    "{{ bos_token }}{% for m in messages %}\n"
    "<|turn|>{{ m.role }}\n{{ m.content }}<|end|>\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
VOCAB = 400


@cache
def trained(vocab=VOCAB):
    """Returns the JSON of the tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    pages = sorted((Path(__file__).resolve().parents[3] / "docs").glob("*.md"))
    made.train(
        [str(p) for p in pages],
        trainers.BpeTrainer(
            vocab_size=vocab, special_tokens=SPECIAL, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    return made.to_str()


def speaking(folder, *, context=4096, layers=2, template=CHAT, ends=(0,), seed=0, **sizes):
    """Writes a folder with weights, tokenizer and chat template; returns it."""
    table = tiny.config("llama-tied") | {
        "vocab_size": VOCAB + 16, "max_position_embeddings": context, "num_hidden_layers": layers,
        "rope_scaling": None,
    } | sizes  # fmt: skip
    tiny.write(folder, table, tiny.tensors(table, seed))
    (folder / "tokenizer.json").write_text(trained(), encoding="utf-8")
    settings = {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>"}}
    if template:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(ends)}), encoding="utf-8")
    return folder
