"""Tiny random models on disk, of every family that runs. Tensors are named as Hugging Face names them."""

import json

import numpy as np

from tests.runtime.llm.definition import logits

LLAMA = {
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
CONFIGS = LLAMA | {
    "llama-gelu": {"architectures": ["LlamaForCausalLM"], "hidden_act": "gelu"},
    "yarn": {
        "architectures": ["Qwen3ForCausalLM"], "head_dim": 12,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 8.0},
    },
    "gemma": {"architectures": ["GemmaForCausalLM"], "head_dim": 12, "hidden_act": "gelu"},
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"], "head_dim": 12, "sliding_window": 9, "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0,
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"], "head_dim": 12, "sliding_window": 9, "query_pre_attn_scalar": 20,
        "sliding_window_pattern": 3, "rope_theta": 50_000.0, "rope_local_base_freq": 500.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
    "phi": {"architectures": ["PhiForCausalLM"], "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5},
    "phi-normed": {
        "architectures": ["PhiForCausalLM"], "partial_rotary_factor": 0.75, "layer_norm_eps": 1e-5,
        "qk_layernorm": True,
    },
    "phi3": {"architectures": ["Phi3ForCausalLM"], "sliding_window": 11},
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"], "n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 512,
        "n_inner": 48, "layer_norm_epsilon": 1e-5,
    },
    "mixtral": {"architectures": ["MixtralForCausalLM"], "num_local_experts": 5, "num_experts_per_tok": 2},
    "qwen2-moe": {
        "architectures": ["Qwen2MoeForCausalLM"], "num_experts": 6, "num_experts_per_tok": 3,
        "moe_intermediate_size": 24, "shared_expert_intermediate_size": 20, "decoder_sparse_step": 2,
    },
    "qwen3-moe": {
        "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 6, "num_experts_per_tok": 3, "head_dim": 12,
        "moe_intermediate_size": 24, "norm_topk_prob": True, "tie_word_embeddings": True,
    },
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
    draw, found = np.random.default_rng(seed), {}
    kind = table["architectures"][0]
    for name, size in {"GPT2LMHeadModel": gpt2, "PhiForCausalLM": phi}.get(kind, llama)(table):
        if name.endswith(".bias"):
            value = draw.normal(size=size) * 0.3
        elif len(size) == 1:
            value = draw.uniform(0.5, 1.5, size) - (1.0 if kind.startswith("Gemma") else 0.0)
        else:
            value = draw.normal(size=size) * (1.0 if any(part in name for part in ("embed", "wte", "head")) else 0.3)
        found[name] = value.astype(np.float32)
    return found


def llama(t):
    """Yields names and sizes of a checkpoint that is named as Llama's are."""
    hidden, width, heads, kv = (
        t[n] for n in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    )
    kind = t["architectures"][0].removesuffix("ForCausalLM")
    dim = t.get("head_dim", hidden // heads)
    biased = "qkv" if kind.startswith("Qwen2") else ("qkvo" if t.get("attention_bias") else "")
    sandwich = kind in ("Gemma2", "Gemma3")
    yield "model.embed_tokens.weight", (t["vocab_size"], hidden)
    for i in range(t["num_hidden_layers"]):
        at = f"model.layers.{i}."
        if kind == "Phi3":
            yield f"{at}self_attn.qkv_proj.weight", ((heads + 2 * kv) * dim, hidden)
        else:
            for name, size in (("q", heads * dim), ("k", kv * dim), ("v", kv * dim)):
                yield f"{at}self_attn.{name}_proj.weight", (size, hidden)
        yield f"{at}self_attn.o_proj.weight", (hidden, heads * dim)
        for name, size in (("q", heads * dim), ("k", kv * dim), ("v", kv * dim), ("o", hidden)):
            if name in biased:
                yield f"{at}self_attn.{name}_proj.bias", (size,)
        yield from experts(t, kind, i, at, hidden, width)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}{name}.weight", (hidden,)
        if sandwich:
            for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm"):
                yield f"{at}{name}.weight", (hidden,)
        if kind in ("Qwen3", "Qwen3Moe", "Gemma3"):
            for name in ("q_norm", "k_norm"):
                yield f"{at}self_attn.{name}.weight", (dim,)
    yield "model.norm.weight", (hidden,)
    if not t.get("tie_word_embeddings", kind.startswith("Gemma")):
        yield "lm_head.weight", (t["vocab_size"], hidden)


def experts(t, kind, i, at, hidden, width):
    """Yields the feed-forward part of layer ``i``."""
    if kind == "Mixtral":
        yield f"{at}block_sparse_moe.gate.weight", (t["num_local_experts"], hidden)
        for n in range(t["num_local_experts"]):
            for name, size in (("w1", (width, hidden)), ("w2", (hidden, width)), ("w3", (width, hidden))):
                yield f"{at}block_sparse_moe.experts.{n}.{name}.weight", size
        return
    if kind == "Phi3":
        yield f"{at}mlp.gate_up_proj.weight", (2 * width, hidden)
        yield f"{at}mlp.down_proj.weight", (hidden, width)
        return
    mixed = kind.endswith("Moe") and (i + 1) % t.get("decoder_sparse_step", 1) == 0
    places = [("mlp.", width)]
    if mixed:
        yield f"{at}mlp.gate.weight", (t["num_experts"], hidden)
        places = [(f"mlp.experts.{n}.", t["moe_intermediate_size"]) for n in range(t["num_experts"])]
    if mixed and kind == "Qwen2Moe":
        yield f"{at}mlp.shared_expert_gate.weight", (1, hidden)
        places.append(("mlp.shared_expert.", t["shared_expert_intermediate_size"]))
    for place, inner in places:
        for name, size in (("gate", (inner, hidden)), ("up", (inner, hidden)), ("down", (hidden, inner))):
            yield f"{at}{place}{name}_proj.weight", size
            if t.get("mlp_bias"):
                yield f"{at}{place}{name}_proj.bias", size[:1]


def phi(t):
    """Yields names and sizes of a checkpoint of Phi 1 or 2."""
    hidden, width, kv = t["hidden_size"], t["intermediate_size"], t["num_key_value_heads"]
    shared = kv * hidden // t["num_attention_heads"]
    yield "model.embed_tokens.weight", (t["vocab_size"], hidden)
    for i in range(t["num_hidden_layers"]):
        for name, size in (
            ("self_attn.q_proj", (hidden, hidden)), ("self_attn.k_proj", (shared, hidden)),
            ("self_attn.v_proj", (shared, hidden)), ("self_attn.dense", (hidden, hidden)),
            ("mlp.fc1", (width, hidden)), ("mlp.fc2", (hidden, width)), ("input_layernorm", (hidden,)),
        ):  # fmt: skip
            yield f"model.layers.{i}.{name}.weight", size
            yield f"model.layers.{i}.{name}.bias", size[:1]
        for name in ("q_layernorm", "k_layernorm") if t.get("qk_layernorm") else ():
            yield f"model.layers.{i}.self_attn.{name}.weight", (hidden // t["num_attention_heads"],)
            yield f"model.layers.{i}.self_attn.{name}.bias", (hidden // t["num_attention_heads"],)
    yield "model.final_layernorm.weight", (hidden,)
    yield "model.final_layernorm.bias", (hidden,)
    yield "lm_head.weight", (t["vocab_size"], hidden)
    yield "lm_head.bias", (t["vocab_size"],)


def gpt2(t):
    """Yields names and sizes of a checkpoint of GPT-2, whose matrices are (inputs, outputs)."""
    hidden, width = t["n_embd"], t["n_inner"]
    yield "wte.weight", (t["vocab_size"], hidden)
    yield "wpe.weight", (t["n_positions"], hidden)
    for i in range(t["n_layer"]):
        for name, size in (
            ("ln_1", (hidden,)), ("attn.c_attn", (hidden, 3 * hidden)), ("attn.c_proj", (hidden, hidden)),
            ("ln_2", (hidden,)), ("mlp.c_fc", (hidden, width)), ("mlp.c_proj", (width, hidden)),
        ):  # fmt: skip
            yield f"h.{i}.{name}.weight", size
            yield f"h.{i}.{name}.bias", size[-1:]
    yield "ln_f.weight", (hidden,)
    yield "ln_f.bias", (hidden,)


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


def follow(table, values, tokens, prompt):
    """Returns the greedy choice after the prompt and each token but the last, and the least gap to the runner-up.

    A position reads none after it, so one pass over the whole says what a pass over each beginning would. A request
    that made exactly these choices made the tokens that it makes alone.
    """
    rows = logits(table, values, tokens)[prompt - 1 : -1]
    ranked = np.sort(rows, axis=1)
    return rows.argmax(1).tolist(), float((ranked[:, -1] - ranked[:, -2]).min())
