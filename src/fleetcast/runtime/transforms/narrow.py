"""Whole channels of the feed-forward part and whole heads removed: a smaller dense model that any engine runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.runtime.transforms.calibrate import Tokens, damped, moments
from fleetcast.runtime.transforms.checkpoint import Checkpoint, model_of, plain_bytes

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any
ROUND = 8
"""Channels are removed in multiples, which matrices are cut into."""
Share = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]


class Narrow:
    """Removes what adds least to the residual stream, and lets what stays make up for it.

    With text, a channel counts the root mean square of what it adds: sqrt(E[h^2]) |w_down| (An et al., FLAP, 2024,
    counts its variance); a group of heads, one KV head and those that share it, the sum over its elements. What stays
    is then refitted: the columns of the down and output projections become those with the least squared error on it,
    W C[:, kept] C[kept, kept]^-1 with C the second moment of their inputs. Without text a channel counts the norms of
    its weights multiplied, and nothing is refitted.

    Args:
        ffn: share of the channels that goes, to a multiple of 8 that stays.
        heads: share of the groups of heads that goes; at least one stays.
        choose: "importance" as above, or "random", the rule to compare with (refitted just the same).
        refit: False = columns stay as they are.
        seed: of "random".
    """

    kind = "narrow"

    def __init__(
        self,
        *,
        ffn: Share = 0.25,
        heads: Share = 0.0,
        choose: Literal["importance", "random"] = "importance",
        refit: bool = True,
        seed: int = 0,
    ) -> None:
        self.ffn, self.heads, self.choose, self.refit, self.seed = ffn, heads, choose, refit, seed

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the config afterwards.

        Raises:
            SpecError: nothing would be removed.
        """
        model = model_of(config)
        block = model.blocks[model.pattern[0]]
        attention, width = block.attention, block.ffn.width
        assert attention is not None
        channels = max(ROUND, round(width * (1 - self.ffn) / ROUND) * ROUND) if self.ffn else width
        groups = max(1, round(attention.kv_heads * (1 - self.heads)))
        if channels >= width and groups == attention.kv_heads:
            limit = f"{width} channels and {attention.kv_heads} groups of heads to remove some of"
            raise SpecError("narrow", "removes nothing", value=(self.ffn, self.heads), limit=limit)
        return {
            **config, "intermediate_size": min(width, channels), "num_key_value_heads": groups,
            "num_attention_heads": groups * attention.heads // attention.kv_heads, "head_dim": attention.head_dim,
        }  # fmt: skip

    def predict_bytes(self, config: Mapping[str, Any]) -> float:
        """Returns bytes of all tensors afterwards."""
        return plain_bytes(self.config(config))

    def apply(self, source: Checkpoint, tokens: Tokens | None = None) -> Checkpoint:
        """Returns the narrower model.

        Raises:
            SpecError: nothing would be removed; the model is packed already.
        """
        source.plain("narrow")
        after, shape = self.config(source.config), read_shape(source.config)
        weights, found = source.weights(), dict(source.tensors)
        seen = moments(shape, weights, tokens) if tokens is not None else {}
        draw = torch.Generator().manual_seed(self.seed)
        group = shape.heads // shape.kv_heads
        for layer in range(len(shape.windows)):
            at = f"model.layers.{layer}."
            down, out = f"{at}mlp.down_proj.weight", f"{at}self_attn.o_proj.weight"
            if after["intermediate_size"] < shape.width:
                worth = self._worth(weights[down], seen.get(down), draw)
                for name in ("gate", "up") if down not in seen and self.choose != "random" else ():
                    worth = worth * weights[f"{at}mlp.{name}_proj.weight"].norm(dim=1)
                kept = _largest(worth, after["intermediate_size"])
                for name in ("gate", "up"):
                    _cut(found, f"{at}mlp.{name}_proj", kept)
                found[down] = self._refitted(weights[down], seen.get(down), kept).to(found[down].dtype)
            if after["num_key_value_heads"] < shape.kv_heads:
                size = group * shape.head_dim
                worth = self._worth(weights[out], seen.get(out), draw).square().reshape(-1, size).sum(1)
                groups = _largest(worth, after["num_key_value_heads"])
                kept = (groups[:, None] * size + torch.arange(size)).flatten()
                _cut(found, f"{at}self_attn.q_proj", kept)
                for name in ("k", "v"):
                    rows = (groups[:, None] * shape.head_dim + torch.arange(shape.head_dim)).flatten()
                    _cut(found, f"{at}self_attn.{name}_proj", rows)
                found[out] = self._refitted(weights[out], seen.get(out), kept).to(found[out].dtype)
        return Checkpoint(after, found, source.companions)

    def _worth(self, weight: Tensor, moment: Tensor | None, draw: Any) -> Tensor:
        """Returns what each input of a matrix adds to its output."""
        if self.choose == "random":
            return torch.rand(weight.shape[1], generator=draw)
        worth = weight.norm(dim=0)
        return worth if moment is None else worth * moment.diagonal().sqrt()

    def _refitted(self, weight: Tensor, moment: Tensor | None, kept: Tensor) -> Tensor:
        """Returns the columns that stay, refitted to say what all did."""
        if moment is None or not self.refit:
            return weight[:, kept]
        second = damped(moment)
        return torch.linalg.solve(second[kept][:, kept], second[kept] @ weight.double().T).T


def _largest(worth: Tensor, count: int) -> Tensor:
    """Returns the indices of the largest, in order."""
    return worth.argsort(descending=True, stable=True)[:count].sort().values


def _cut(tensors: dict[str, Tensor], name: str, kept: Tensor) -> None:
    for part in (f"{name}.weight", f"{name}.bias"):
        if part in tensors:
            tensors[part] = tensors[part][kept]
