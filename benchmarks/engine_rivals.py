"""One engine, one format, timed in a process of its own; started by `benchmarks.engine`, prints one JSON object.

Runs in the interpreter of the engine that it times, so it imports nothing of this project.

    python engine_rivals.py ENGINE FORMAT FOLDER THREADS STEPS

ENGINE is transformers, ctranslate2 or llama.cpp, or "ct2" or "gguf" to convert the folder's model.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

PROMPT = 256
BATCHES = (1, 8)


def prompts(batch: int, vocab: int, seed: int) -> list[list[int]]:
    """Returns random token ids; new ones for every seed, since some engines keep prefixes."""
    draw = np.random.default_rng(seed)
    return [[int(t) for t in row] for row in draw.integers(8, vocab, (batch, PROMPT))]


def clocked(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Returns wall seconds, CPU seconds of the process, and what the call returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def summed(prefills: list[tuple[float, float]], steps: list[tuple[float, float]], tokens: list[int]) -> dict[str, Any]:
    """Returns what is reported of one batch size: best and median seconds, CPU seconds of the best."""
    steps.sort()
    prefills.sort()
    return {
        "prefill": prefills[0][0], "prefill_cpu": prefills[0][1], "step": steps[0][0], "step_cpu": steps[0][1],
        "step_median": steps[len(steps) // 2][0], "tokens": tokens,
    }  # fmt: skip


def transformers(form: str, folder: Path, threads: int, steps: int) -> dict[str, Any]:
    """Times transformers: eager, scaled dot product attention, its own cache."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[form]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    found = {}
    with torch.inference_mode():
        for batch in BATCHES:
            prefills: list[tuple[float, float]] = []
            times: list[tuple[float, float]] = []
            said: list[int] = []
            for round_ in range(2):
                ids = torch.tensor(prompts(batch, model.config.vocab_size, round_))
                wall, cpu, out = clocked(partial(model, ids, use_cache=True, logits_to_keep=1))
                prefills.append((wall, cpu))
                for _ in range(steps):
                    nxt = out.logits[:, -1].argmax(-1, keepdim=True)
                    said += [int(nxt[0, 0])] if round_ == 0 else []
                    wall, cpu, out = clocked(partial(model, nxt, past_key_values=out.past_key_values, use_cache=True))
                    times.append((wall, cpu))
            found[str(batch)] = summed(prefills, times, said)
    return found


def ctranslate2(form: str, folder: Path, threads: int, steps: int) -> dict[str, Any]:
    """Times ctranslate2: a step is the difference between many tokens and one."""
    import ctranslate2 as engine

    model = engine.Generator(
        str(folder / f"ct2-{form}"), compute_type={"fp32": "float32", "int8": "int8"}[form], intra_threads=threads
    )
    vocab, found = json.loads((folder / "config.json").read_text())["vocab_size"], {}

    def make(batch: int, seed: int, count: int) -> Any:
        asked = [[f"t{t}" for t in row] for row in prompts(batch, vocab, seed)]
        return model.generate_batch(
            asked, max_length=count, min_length=count, sampling_topk=1, include_prompt_in_result=False
        )

    for batch in BATCHES:
        prefills: list[tuple[float, float]] = []
        times: list[tuple[float, float]] = []
        said: list[int] = []
        for round_ in range(3):
            wall, cpu, _ = clocked(partial(make, batch, round_, 1))
            long, long_cpu, out = clocked(partial(make, batch, round_, 1 + steps))
            prefills.append((wall, cpu))
            times.append(((long - wall) / steps, (long_cpu - cpu) / steps))
            said = [int(t) for t in out[0].sequences_ids[0]] if round_ == 0 else said
        found[str(batch)] = summed(prefills, times, said)
    return found


def llama_cpp(form: str, folder: Path, threads: int, steps: int) -> dict[str, Any]:
    """Times llama.cpp, one sequence."""
    import llama_cpp as engine

    model = engine.Llama(
        str(folder / f"{form}.gguf"), n_ctx=512, n_batch=PROMPT, n_threads=threads, n_threads_batch=threads,
        verbose=False,
    )  # fmt: skip
    vocab = model.n_vocab()

    def greedy() -> int:
        logits = engine.llama_get_logits_ith(model.ctx, -1)
        return int(np.ctypeslib.as_array(logits, shape=(vocab,)).argmax())

    prefills: list[tuple[float, float]] = []
    times: list[tuple[float, float]] = []
    said: list[int] = []
    for round_ in range(3):
        model.reset()
        ids = prompts(1, vocab, round_)[0]
        wall, cpu, _ = clocked(partial(model.eval, ids))
        prefills.append((wall, cpu))
        for _ in range(steps):
            nxt = greedy()
            said += [nxt] if round_ == 0 else []
            wall, cpu, _ = clocked(partial(model.eval, [nxt]))
            times.append((wall, cpu))
    return {"1": summed(prefills, times, said)}


def convert_ct2(form: str, folder: Path, *_: int) -> dict[str, Any]:
    """Writes ctranslate2's form of the model."""
    from ctranslate2.converters import TransformersConverter

    if not (folder / f"ct2-{form}").is_dir():
        kind = {"fp32": "float32", "int8": "int8"}[form]
        TransformersConverter(str(folder)).convert(str(folder / f"ct2-{form}"), quantization=kind)
    return {}


def convert_gguf(form: str, folder: Path, *_: int) -> dict[str, Any]:
    """Writes llama.cpp's form of the model: the same weights, pairs of rotated elements side by side."""
    import gguf
    from safetensors.numpy import load_file

    target = folder / f"{form}.gguf"
    if target.is_file():
        return {}
    c = json.loads((folder / "config.json").read_text())
    out = gguf.GGUFWriter(str(target) + ".part", "llama")
    out.add_context_length(c["max_position_embeddings"])
    out.add_embedding_length(c["hidden_size"])
    out.add_block_count(c["num_hidden_layers"])
    out.add_feed_forward_length(c["intermediate_size"])
    out.add_head_count(c["num_attention_heads"])
    out.add_head_count_kv(c["num_key_value_heads"])
    out.add_rope_dimension_count(c["hidden_size"] // c["num_attention_heads"])
    out.add_layer_norm_rms_eps(c["rms_norm_eps"])
    out.add_rope_freq_base(c["rope_theta"])
    out.add_vocab_size(c["vocab_size"])
    out.add_tokenizer_model("llama")
    names = ["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(3, c["vocab_size"]))]
    out.add_token_list(names)
    out.add_token_scores([0.0] * len(names))
    out.add_token_types([2, 3, 3, *[1] * (len(names) - 3)])
    kind = {"fp32": gguf.GGMLQuantizationType.F32, "int8": gguf.GGMLQuantizationType.Q8_0}[form]
    parts = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    plain = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, value in load_file(folder / "model.safetensors").items():
        stem = name.removesuffix(".weight")
        if stem in plain:
            target_name = plain[stem]
        else:
            _, _, layer, part = stem.split(".", 3)
            target_name = f"blk.{layer}.{parts[part]}"
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                heads = c["num_attention_heads" if "q_proj" in part else "num_key_value_heads"]
                value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        matrix = value.ndim == 2
        data = gguf.quants.quantize(np.ascontiguousarray(value), kind) if matrix and form != "fp32" else value
        out.add_tensor(
            f"{target_name}.weight", np.ascontiguousarray(data), raw_dtype=kind if matrix and form != "fp32" else None
        )
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    Path(str(target) + ".part").replace(target)
    return {}


ENGINES: dict[str, Callable[..., dict[str, Any]]] = {
    "transformers": transformers, "ctranslate2": ctranslate2, "llama.cpp": llama_cpp, "ct2": convert_ct2,
    "gguf": convert_gguf,
}  # fmt: skip

if __name__ == "__main__":
    name, form_, folder_, threads_, steps_ = sys.argv[1:]
    print(json.dumps(ENGINES[name](form_, Path(folder_), int(threads_), int(steps_))))
