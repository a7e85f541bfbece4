"""The passes in plain torch, from their definitions: what the eager and the compiled backend run.

Encoders: Devlin et al., "BERT", 2019, norms after each part. The decoder is the pass that models are trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.runtime.measure.backends.shapes import Shape
from fleetcast.runtime.training.forward import forward as decoded

try:
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


def forward(shape: Shape, weights: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Returns a function from token ids (batch, sequence) to (batch, sequence, ``shape.outputs``)."""
    if shape.decoder:
        known = read_shape(shape.config())
        return lambda ids: decoded(known, weights, ids)
    return _encoder(shape, weights)


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
