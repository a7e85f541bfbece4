"""Tiny random models on disk, and an oracle that computes them anew from the definition.

The oracle is numpy in fp64: one sequence, no cache, one loop over query positions. It reads nothing of the engine's
but the tensors' names, which are Hugging Face's.
"""

import json

import numpy as np

CONFIGS = {
    "llama3": {
        "architectures": ["LlamaForCausalLM"], "rope_theta": 10_000.0,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "llama-biased": {"architectures": ["LlamaForCausalLM"], "attention_bias": True, "mlp_bias": True},
    "llama-tied": {
        "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True,
        "rope_scaling": {"type": "linear", "factor": 2.0},
    },
    "mistral": {"architectures": ["MistralForCausalLM"], "sliding_window": None},
    "mistral-windowed": {"architectures": ["MistralForCausalLM"], "sliding_window": 9},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "rope_theta": 1_000_000.0},
    "qwen2-windowed": {
        "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2,
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "head_dim": 12, "tie_word_embeddings": True},
    "multi-query": {"architectures": ["LlamaForCausalLM"], "num_key_value_heads": 1},
}  # fmt: skip
SIZES = {
    "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
    "num_hidden_layers": 3, "vocab_size": 61, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "torch_dtype": "float32",
}  # fmt: skip


def config(kind):
    return SIZES | CONFIGS[kind]


def tensors(table, seed=0):
    """Returns random fp32 tensors of a config, wide enough apart that greedy choices are no ties."""
    draw, t = np.random.default_rng(seed), table
    hidden, width, heads, kv = (
        t[n] for n in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    )
    kind = t["architectures"][0]
    dim = t.get("head_dim", hidden // heads)
    biased = "qkv" if kind == "Qwen2ForCausalLM" else ("qkvo" if t.get("attention_bias") else "")
    found = {"model.embed_tokens.weight": draw.normal(size=(t["vocab_size"], hidden))}
    for i in range(t["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, size in (("q", heads * dim), ("k", kv * dim), ("v", kv * dim)):
            found[f"{at}self_attn.{name}_proj.weight"] = draw.normal(size=(size, hidden)) * 0.3
        found[f"{at}self_attn.o_proj.weight"] = draw.normal(size=(hidden, heads * dim)) * 0.3
        for name, size in (("q", heads * dim), ("k", kv * dim), ("v", kv * dim), ("o", hidden)):
            if name in biased:
                found[f"{at}self_attn.{name}_proj.bias"] = draw.normal(size=size) * 0.3
        for name, size in (("gate", (width, hidden)), ("up", (width, hidden)), ("down", (hidden, width))):
            found[f"{at}mlp.{name}_proj.weight"] = draw.normal(size=size) * 0.3
            if t.get("mlp_bias"):
                found[f"{at}mlp.{name}_proj.bias"] = draw.normal(size=size[0]) * 0.3
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}{name}.weight"] = draw.uniform(0.5, 1.5, hidden)
        if kind == "Qwen3ForCausalLM":
            for name in ("q_norm", "k_norm"):
                found[f"{at}self_attn.{name}.weight"] = draw.uniform(0.5, 1.5, dim)
    found["model.norm.weight"] = draw.uniform(0.5, 1.5, hidden)
    if not t.get("tie_word_embeddings"):
        found["lm_head.weight"] = draw.normal(size=(t["vocab_size"], hidden))
    return {name: value.astype(np.float32) for name, value in found.items()}


def write(folder, table, values, *, shards=1, dtype="float32"):
    """Writes a folder as a hub holds it; several shards with an index."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(table | {"torch_dtype": dtype}))
    stored = {name: torch.tensor(value).to(getattr(torch, dtype)) for name, value in values.items()}
    if shards == 1:
        save_file(stored, folder / "model.safetensors")
        return folder
    placed = {}
    for i in range(shards):
        part = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        names = list(stored)[i::shards]
        save_file({name: stored[name] for name in names}, folder / part)
        placed |= dict.fromkeys(names, part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder


def logits(table, values, tokens):
    """Returns (tokens, vocabulary) logits of one sequence, from the definition."""
    t, w = table, {name: np.asarray(value, np.float64) for name, value in values.items()}
    heads, kv = t["num_attention_heads"], t["num_key_value_heads"]
    dim = t.get("head_dim", t["hidden_size"] // heads)
    n = len(tokens)

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + t["rms_norm_eps"]) * w[name]

    def project(x, name):
        out = x @ w[f"{name}_proj.weight"].T
        return out + w[f"{name}_proj.bias"] if f"{name}_proj.bias" in w else out

    turns = np.array([[p * frequency(t, i, dim) for i in range(dim // 2)] for p in range(n)])

    def rotate(x):  # (n, dim): element i and i + dim/2 are a complex number
        z = (x[:, : dim // 2] + 1j * x[:, dim // 2 :]) * np.exp(1j * turns)
        return np.concatenate([z.real, z.imag], axis=1)

    x = w["model.embed_tokens.weight"][list(tokens)]
    for i in range(t["num_hidden_layers"]):
        at = f"model.layers.{i}."
        h = norm(x, f"{at}input_layernorm.weight")
        q, k, v = (project(h, f"{at}self_attn.{name}") for name in "qkv")
        mixed = np.zeros((n, heads * dim))
        for head in range(heads):
            mine = slice(head * dim, (head + 1) * dim)
            shared = slice(head // (heads // kv) * dim, (head // (heads // kv) + 1) * dim)
            qh, kh, vh = q[:, mine], k[:, shared], v[:, shared]
            if f"{at}self_attn.q_norm.weight" in w:
                qh, kh = norm(qh, f"{at}self_attn.q_norm.weight"), norm(kh, f"{at}self_attn.k_norm.weight")
            qh, kh = rotate(qh), rotate(kh)
            for p in range(n):
                first = max(0, p + 1 - window(t, i)) if window(t, i) else 0
                score = np.exp(kh[first : p + 1] @ qh[p] / np.sqrt(dim))
                mixed[p, mine] = score @ vh[first : p + 1] / score.sum()
        x = x + project(mixed, f"{at}self_attn.o")
        h = norm(x, f"{at}post_attention_layernorm.weight")
        gate = project(h, f"{at}mlp.gate")
        x = x + project(gate / (1 + np.exp(-gate)) * project(h, f"{at}mlp.up"), f"{at}mlp.down")
    x = norm(x, "model.norm.weight")
    return x @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


def window(table, layer):
    if table["architectures"] == ["Qwen2ForCausalLM"]:
        return table["sliding_window"] if table.get("use_sliding_window") and layer >= table["max_window_layers"] else 0
    return table.get("sliding_window") or 0


def frequency(table, i, dim):
    f = table.get("rope_theta", 10_000.0) ** (-2 * i / dim)
    s = table.get("rope_scaling") or {}
    if s.get("type") == "linear":
        return f / s["factor"]
    if s.get("rope_type") == "llama3":
        wavelength, context = 2 * np.pi / f, s["original_max_position_embeddings"]
        if wavelength > context / s["low_freq_factor"]:
            return f / s["factor"]
        if wavelength > context / s["high_freq_factor"]:
            mix = (context / wavelength - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
            return (1 - mix) * f / s["factor"] + mix * f
    return f


def follow(table, values, tokens, prompt):
    """Returns the greedy choice after the prompt and each token but the last, and the least gap to the runner-up.

    A position reads none after it, so one pass over the whole says what a pass over each beginning would. A request
    that made exactly these choices made the tokens that it makes alone.
    """
    rows = logits(table, values, tokens)[prompt - 1 : -1]
    ranked = np.sort(rows, axis=1)
    return rows.argmax(1).tolist(), float((ranked[:, -1] - ranked[:, -2]).min())
