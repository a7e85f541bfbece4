"""The passes in plain torch, from their definitions: what the eager and the compiled backend run.

Encoders: Devlin et al., "BERT", 2019, norms after each part. Decoder: Touvron et al., "Llama 2", 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.measure.backends.shapes import Shape

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


def forward(shape: Shape, weights: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Returns a function from token ids (batch, sequence) to (batch, sequence, ``shape.outputs``)."""
    return _decoder(shape, weights) if shape.decoder else _encoder(shape, weights)


def _encoder(shape: Shape, weights: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        size, weight, bias = (shape.hidden,), weights[f"{name}.weight"], weights[f"{name}.bias"]
        return functional.layer_norm(x, size, weight, bias, shape.epsilon)

    table = weights["embeddings.position_embeddings.weight"][shape.offset :]
    kind = weights["embeddings.token_type_embeddings.weight"][0]
    words = weights["embeddings.word_embeddings.weight"]

    def run(ids: Tensor) -> Tensor:
        batch, length = ids.shape
        x = norm(words[ids] + kind + table[:length], "embeddings.LayerNorm")
        for i in range(shape.layers):
            at = f"encoder.layer.{i}."
            q, k, v = (
                linear(x, f"{at}attention.self.{name}").view(batch, length, shape.heads, -1).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = norm(x + linear(mixed, f"{at}attention.output.dense"), f"{at}attention.output.LayerNorm")
            inner = functional.gelu(linear(x, f"{at}intermediate.dense"))
            x = norm(x + linear(inner, f"{at}output.dense"), f"{at}output.LayerNorm")
        return x

    return run


def _decoder(shape: Shape, weights: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    size = shape.head_dim
    rates = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
    angles = torch.arange(shape.positions, dtype=torch.float32)[:, None] * rates
    turns = torch.cat([angles, angles], dim=1)
    cosines, sines = turns.cos(), turns.sin()

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.rms_norm(x, (shape.hidden,), weights[f"{name}.weight"], shape.epsilon)

    def rotated(x: Tensor, length: int) -> Tensor:
        half = torch.cat([-x[..., size // 2 :], x[..., : size // 2]], dim=-1)
        return x * cosines[:length] + half * sines[:length]

    def run(ids: Tensor) -> Tensor:
        batch, length = ids.shape
        x = weights["model.embed_tokens.weight"][ids]
        for i in range(shape.layers):
            at = f"model.layers.{i}."
            inner = norm(x, f"{at}input_layernorm")
            q, k, v = (
                functional.linear(inner, weights[f"{at}self_attn.{name}_proj.weight"])
                .view(batch, length, -1, size)
                .transpose(1, 2)
                for name in ("q", "k", "v")
            )
            mixed = functional.scaled_dot_product_attention(
                rotated(q, length), rotated(k, length), v, is_causal=True, enable_gqa=True
            )
            x = x + functional.linear(mixed.transpose(1, 2).flatten(2), weights[f"{at}self_attn.o_proj.weight"])
            inner = norm(x, f"{at}post_attention_layernorm")
            gate, up = (functional.linear(inner, weights[f"{at}mlp.{name}_proj.weight"]) for name in ("gate", "up"))
            x = x + functional.linear(functional.silu(gate) * up, weights[f"{at}mlp.down_proj.weight"])
        return functional.linear(norm(x, "model.norm"), weights["lm_head.weight"])

    return run
