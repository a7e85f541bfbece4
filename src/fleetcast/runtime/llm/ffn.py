"""Feed-forward parts of a layer: with a gate, without one, and mixtures of experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm import cuda, native
from fleetcast.runtime.llm.families.decoder import Activation, Experts
from fleetcast.runtime.llm.linear import Linear

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any

ACTIVATIONS: Final[Mapping[Activation, Callable[[Tensor], Tensor]]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}


class Ffn(Protocol):
    """Maps (tokens, hidden) to (tokens, hidden)."""

    @property
    def matrices(self) -> Sequence[Linear]:
        """All that it holds."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (tokens, hidden) to (tokens, hidden)."""
        ...


@dataclass(frozen=True)
class Gated:
    """``down(activation(gate(x)) * up(x))``."""

    gate_up: Linear
    down: Linear
    activation: Activation

    @property
    def matrices(self) -> Sequence[Linear]:
        """All that it holds."""
        return self.gate_up, self.down

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (tokens, hidden) to (tokens, hidden)."""
        both = self.gate_up(x)
        own = native if native.ready(both) else cuda if cuda.ready(both) else None
        if own is not None and self.activation in ("silu", "gelu_tanh"):
            return self.down(own.gate(both, self.activation == "gelu_tanh"))
        gate, up = both.chunk(2, dim=1)
        return self.down(ACTIVATIONS[self.activation](gate) * up)


@dataclass(frozen=True)
class Ungated:
    """``down(activation(up(x)))``."""

    up: Linear
    down: Linear
    activation: Activation

    @property
    def matrices(self) -> Sequence[Linear]:
        """All that it holds."""
        return self.up, self.down

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (tokens, hidden) to (tokens, hidden)."""
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


@dataclass(frozen=True)
class Mixture:
    """Experts, of which each token visits those with the largest router weights.

    The weights are the softmax over all experts. Tokens are brought together by expert, so that each expert's matrices
    are multiplied once a pass. A token's experts are added in the order of their weights, so that the sum does not
    depend on which other tokens are in the pass. The shared expert is weighed by the sigmoid of a gate of its own.
    """

    router: Linear
    experts: Sequence[Ffn]
    shape: Experts
    shared: Ffn | None
    shared_gate: Linear | None

    @property
    def matrices(self) -> Sequence[Linear]:
        """All that it holds."""
        every = [self.router, *(m for expert in self.experts for m in expert.matrices)]
        if self.shared is None or self.shared_gate is None:
            return every
        return [*every, *self.shared.matrices, self.shared_gate]

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (tokens, hidden) to (tokens, hidden)."""
        weights, chosen = torch.softmax(self.router(x).float(), dim=1).topk(self.shape.top_k, dim=1)
        if self.shape.renormalised:
            weights = weights / weights.sum(1, keepdim=True)
        visits = chosen.flatten()
        order = visits.argsort(stable=True)
        tokens = order // self.shape.top_k
        each = torch.empty(len(visits), x.shape[1], dtype=x.dtype, device=x.device)
        begin = 0
        for expert, count in zip(self.experts, visits.bincount(minlength=self.shape.count).tolist(), strict=True):
            if count:
                mine = slice(begin, begin + count)
                each[order[mine]] = expert(x[tokens[mine]])
                begin += count
        mixed = (each.unflatten(0, chosen.shape) * weights[:, :, None]).sum(1).to(x.dtype)
        if self.shared is None or self.shared_gate is None:
            return mixed
        return mixed + torch.sigmoid(self.shared_gate(x)) * self.shared(x)
