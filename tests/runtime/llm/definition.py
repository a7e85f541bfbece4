"""The oracle: every family computed anew from its definition, in numpy and fp64.

One sequence, no cache, one loop over query positions. It reads nothing of the engine's; tensors have Hugging Face's
names.
"""

from math import erf

import numpy as np


def logits(table, values, tokens):
    """Returns (tokens, vocabulary) logits of one sequence."""
    kind = table["architectures"][0].removesuffix("ForCausalLM")
    w = {name: np.asarray(value, np.float64) for name, value in values.items()}
    if kind == "GPT2LMHeadModel":
        return gpt2(table, w, list(tokens))
    if kind == "Phi":
        return phi(table, w, list(tokens))
    return llama(table, w, list(tokens), kind)


def llama(t, w, tokens, kind):
    """Llama, Mistral, Qwen, Gemma, Phi 3, Mixtral: RMSNorm, one part after the other."""
    heads, kv = t["num_attention_heads"], t["num_key_value_heads"]
    dim = t.get("head_dim", t["hidden_size"] // heads)
    gemma = kind.startswith("Gemma")
    sandwich = kind in ("Gemma2", "Gemma3")
    scale = t.get("query_pre_attn_scalar", dim) ** -0.5

    def norm(x, name):
        weight = w[f"{name}.weight"] + (1 if gemma else 0)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + t["rms_norm_eps"]) * weight

    def after(x, name):
        return norm(x, name) if sandwich else x

    x = w["model.embed_tokens.weight"][tokens] * (np.sqrt(t["hidden_size"]) if gemma else 1)
    for i in range(t["num_hidden_layers"]):
        at = f"model.layers.{i}."
        h = norm(x, f"{at}input_layernorm")
        if kind == "Phi3":
            whole = h @ w[f"{at}self_attn.qkv_proj.weight"].T
            q, k, v = np.split(whole, [heads * dim, (heads + kv) * dim], axis=1)
        else:
            q, k, v = (project(w, h, f"{at}self_attn.{name}_proj") for name in "qkv")
        q, k, v = (part.reshape(len(tokens), -1, dim) for part in (q, k, v))
        if f"{at}self_attn.q_norm.weight" in w:
            q, k = norm(q, f"{at}self_attn.q_norm"), norm(k, f"{at}self_attn.k_norm")
        seen = window(t, kind, i)
        q, k = (rotate(part, *angles(t, dim, kind, seen)) for part in (q, k))
        mixed = attention(q, k, v, seen, scale, t.get("attn_logit_softcapping"))
        x = x + after(project(w, mixed, f"{at}self_attn.o_proj"), f"{at}post_attention_layernorm")
        h = norm(x, at + ("pre_feedforward_layernorm" if sandwich else "post_attention_layernorm"))
        x = x + after(feed(t, w, h, at, kind), f"{at}post_feedforward_layernorm")
    found = norm(x, "model.norm") @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T
    cap = t.get("final_logit_softcapping")
    return cap * np.tanh(found / cap) if cap else found


def feed(t, w, h, at, kind):
    """The feed-forward part, dense or of experts; each token by itself where there are experts."""
    act = tanh_gelu if kind.startswith("Gemma") else {"silu": silu, "gelu": gelu}[t.get("hidden_act", "silu")]

    def dense(x, place, names=("gate_proj", "up_proj", "down_proj")):
        gate, up, down = (f"{at}{place}{name}" for name in names)
        return project(w, act(project(w, x, gate)) * project(w, x, up), down)

    if kind == "Phi3":
        gate, up = np.split(h @ w[f"{at}mlp.gate_up_proj.weight"].T, 2, axis=1)
        return (act(gate) * up) @ w[f"{at}mlp.down_proj.weight"].T
    router = f"{at}block_sparse_moe.gate.weight" if kind == "Mixtral" else f"{at}mlp.gate.weight"
    if router not in w:
        return dense(h, "mlp.")
    rows = []
    for x in h:
        scores = np.exp(w[router] @ x)
        scores = scores / scores.sum()
        best = np.argsort(-scores)[: t["num_experts_per_tok"]]
        share = scores[best]
        if kind == "Mixtral" or t.get("norm_topk_prob"):
            share = share / share.sum()
        place, names = "mlp.experts.", ("gate_proj", "up_proj", "down_proj")
        if kind == "Mixtral":
            place, names = "block_sparse_moe.experts.", ("w1", "w3", "w2")
        row = sum(p * dense(x, f"{place}{n}.", names) for p, n in zip(share, best, strict=True))
        if kind == "Qwen2Moe":
            row = row + dense(x, "mlp.shared_expert.") / (1 + np.exp(-w[f"{at}mlp.shared_expert_gate.weight"] @ x))
        rows.append(row)
    return np.array(rows)


def phi(t, w, tokens):
    """Phi 1 and 2: LayerNorm, a part of each head turned, attention and feed-forward side by side."""
    heads = t["num_attention_heads"]
    dim = t["hidden_size"] // heads
    turned = int(dim * t["partial_rotary_factor"])
    frequencies, gain = angles(t, turned, "Phi", 0)
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(t["num_hidden_layers"]):
        at = f"model.layers.{i}."
        h = layer_norm(w, x, f"{at}input_layernorm", t["layer_norm_eps"])
        q, k, v = (project(w, h, f"{at}self_attn.{name}_proj").reshape(len(x), -1, dim) for name in "qkv")
        if t.get("qk_layernorm"):
            q, k = (
                layer_norm(w, part, f"{at}self_attn.{name}_layernorm", t["layer_norm_eps"])
                for part, name in ((q, "q"), (k, "k"))
            )
        q, k = (
            np.concatenate([rotate(part[..., :turned], frequencies, gain), part[..., turned:]], axis=-1)
            for part in (q, k)
        )
        mixed = project(w, attention(q, k, v, 0, dim**-0.5), f"{at}self_attn.dense")
        x = x + mixed + project(w, tanh_gelu(project(w, h, f"{at}mlp.fc1")), f"{at}mlp.fc2")
    return project(w, layer_norm(w, x, "model.final_layernorm", t["layer_norm_eps"]), "lm_head")


def gpt2(t, w, tokens):
    """GPT-2: LayerNorm, learned positions, matrices (inputs, outputs)."""
    hidden, epsilon = t["n_embd"], t["layer_norm_epsilon"]

    def conv(x, name):
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["wte.weight"][tokens] + w["wpe.weight"][: len(tokens)]
    for i in range(t["n_layer"]):
        whole = conv(layer_norm(w, x, f"h.{i}.ln_1", epsilon), f"h.{i}.attn.c_attn")
        q, k, v = (part.reshape(len(x), t["n_head"], -1) for part in np.split(whole, 3, axis=1))
        x = x + conv(attention(q, k, v, 0, (hidden // t["n_head"]) ** -0.5), f"h.{i}.attn.c_proj")
        inner = tanh_gelu(conv(layer_norm(w, x, f"h.{i}.ln_2", epsilon), f"h.{i}.mlp.c_fc"))
        x = x + conv(inner, f"h.{i}.mlp.c_proj")
    return layer_norm(w, x, "ln_f", epsilon) @ w["wte.weight"].T


def attention(q, k, v, window, scale, cap=None):
    """Returns (tokens, heads x dim); every query head by itself, every position by itself."""
    n, heads, dim = q.shape
    mixed = np.zeros((n, heads, dim))
    for head in range(heads):
        shared = head // (heads // k.shape[1])
        for p in range(n):
            first = max(0, p + 1 - window) if window else 0
            score = k[first : p + 1, shared] @ q[p, head] * scale
            score = np.exp(cap * np.tanh(score / cap) if cap else score)
            mixed[p, head] = score @ v[first : p + 1, shared] / score.sum()
    return mixed.reshape(n, -1)


def rotate(x, frequencies, gain):
    """Element i of (tokens, heads, dim) and i + dim/2 are a complex number, turned by its position's angle."""
    half = x.shape[-1] // 2
    turns = np.arange(len(x))[:, None, None] * np.array(frequencies)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * turns) * gain
    return np.concatenate([z.real, z.imag], axis=-1)


def window(t, kind, layer):
    """Returns how many tokens a query of a layer sees; 0 = all."""
    if kind == "Qwen2":
        return t["sliding_window"] if t.get("use_sliding_window") and layer >= t["max_window_layers"] else 0
    if kind == "Gemma2" and layer % 2 == 1:
        return 0
    if kind == "Gemma3" and (layer + 1) % t["sliding_window_pattern"] == 0:
        return 0
    return t.get("sliding_window") or 0


def angles(t, dim, kind, seen):
    """Returns the radians per position of each pair, and the factor on queries and keys."""
    if kind == "Gemma3" and seen:
        return [t["rope_local_base_freq"] ** (-2 * i / dim) for i in range(dim // 2)], 1.0
    theta = t.get("rope_theta", 1_000_000.0 if kind == "Mixtral" else 10_000.0)
    s = t.get("rope_scaling") or {}
    gain = 0.1 * np.log(s["factor"]) + 1 if s.get("rope_type") == "yarn" else 1.0
    return [frequency(s, theta ** (-2 * i / dim), i, theta, dim) for i in range(dim // 2)], gain


def frequency(s, f, i, theta, dim):
    """Returns the frequency ``f`` of pair ``i`` as a rule of scaling makes it."""
    kind = s.get("rope_type", s.get("type"))
    if kind == "linear":
        return f / s["factor"]
    if kind == "llama3":
        wavelength, context = 2 * np.pi / f, s["original_max_position_embeddings"]
        if wavelength > context / s["low_freq_factor"]:
            return f / s["factor"]
        if wavelength > context / s["high_freq_factor"]:
            mix = (context / wavelength - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
            return (1 - mix) * f / s["factor"] + mix * f
    if kind == "yarn":  # pairs at whose index so many turns fit the original context, by hand from theta^(-2i/dim)
        context = s["original_max_position_embeddings"]
        fast, slow = (
            dim / 2 * np.log(context / (2 * np.pi * turns)) / np.log(theta) for turns in (s.get("beta_fast", 32), 1)
        )
        fast, slow = max(np.floor(fast), 0), min(np.ceil(slow), dim - 1)
        stretch = np.clip((i - fast) / (slow - fast), 0, 1)
        return f * (1 - stretch) + f / s["factor"] * stretch
    return f


def project(w, x, name):
    """A matrix (outputs, inputs), and its bias where there is one."""
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def layer_norm(w, x, name, epsilon):
    """Zero mean, unit variance, then weight and bias."""
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * w[f"{name}.weight"] + w[f"{name}.bias"]


def silu(x):
    """x times the logistic function of x."""
    return x / (1 + np.exp(-x))


def tanh_gelu(x):
    """Hendrycks and Gimpel, 2016: the approximation of x Phi(x) by a tanh."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu(x):
    """X Phi(x), with the normal distribution itself."""
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))
