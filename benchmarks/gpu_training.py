"""A training step on the CUDA device at hand: plain torch, mixed precision as Megatron-LM keeps it, one device.

bf16 weights, gradients added up in fp32, fp32 copies of the weights and Adam's two moments: 18 B a parameter. Attention
is torch's flash kernel, norms and products are torch's own; nothing is compiled. Random tokens, random weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from benchmarks.gpu_power import Meter

SIZES = {  # layers, hidden, heads, key heads, width, vocabulary, tied
    "llama-3.2-1b": (16, 2048, 32, 8, 8192, 128256, True),
    "megatron-1.7b": (24, 2304, 24, 24, 9216, 51200, True),
}
RUNS = (
    ("llama-3.2-1b", 2048, 1, 1, False), ("llama-3.2-1b", 2048, 2, 1, False), ("llama-3.2-1b", 2048, 4, 1, False),
    ("llama-3.2-1b", 2048, 2, 4, False), ("llama-3.2-1b", 4096, 2, 1, False), ("llama-3.2-1b", 2048, 4, 1, True),
    ("llama-3.2-1b", 2048, 8, 1, True), ("llama-3.2-1b", 8192, 1, 2, True),
)  # fmt: skip
"""Model, sequence, micro-batch, micro-batches of an iteration, whether every layer is computed again."""


class Layer(nn.Module):  # type: ignore[misc,unused-ignore]
    """A layer of Llama."""

    def __init__(self, hidden: int, heads: int, kv_heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.kv, self.dim = heads, kv_heads, hidden // heads
        self.first, self.second = nn.RMSNorm(hidden), nn.RMSNorm(hidden)
        self.qkv = nn.Linear(hidden, (heads + 2 * kv_heads) * self.dim, bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.up = nn.Linear(hidden, 2 * width, bias=False)
        self.down = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Any, cos: Any, sin: Any) -> Any:
        """Returns (batch, sequence, hidden)."""
        b, s, _ = x.shape
        both = self.qkv(self.first(x)).view(b, s, -1, self.dim).transpose(1, 2)
        q, k, v = both.split([self.heads, self.kv, self.kv], dim=1)
        q, k = (part * cos + torch.cat(part.chunk(2, -1)[::-1], -1) * sin for part in (q, k))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, s, -1))
        gate, up = self.up(self.second(x)).chunk(2, -1)
        return x + self.down(functional.silu(gate) * up)


class Decoder(nn.Module):  # type: ignore[misc,unused-ignore]
    """Llama with a tied head."""

    def __init__(self, size: tuple[int, int, int, int, int, int, bool]) -> None:
        super().__init__()
        layers, hidden, heads, kv, width, vocab, _ = size
        self.table = nn.Embedding(vocab, hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads, kv, width) for _ in range(layers))
        self.norm, self.dim = nn.RMSNorm(hidden), hidden // heads

    def forward(self, tokens: Any, again: bool) -> Any:
        """Returns the loss."""
        at = torch.arange(tokens.shape[1], device=tokens.device)[:, None]
        angles = at * 500000.0 ** (-torch.arange(0, self.dim, 2, device=tokens.device) / self.dim)
        cos = torch.cat([angles.cos(), angles.cos()], -1).bfloat16()
        sin = torch.cat([-angles.sin(), angles.sin()], -1).bfloat16()
        x = self.table(tokens)
        for layer in self.layers:
            x = checkpoint(layer, x, cos, sin, use_reentrant=False) if again else layer(x, cos, sin)
        logits = self.norm(x) @ self.table.weight.t()
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())


def step_times(
    name: str, sequence: int, micro: int, count: int, again: bool, meter: Meter, steps: int = 6
) -> dict[str, Any]:
    """Returns s of an iteration and the most memory that tensors took."""
    torch.manual_seed(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = Decoder(SIZES[name])
        finally:
            torch.set_default_dtype(torch.float32)
    for p in model.parameters():
        p.data.normal_(std=0.02) if p.ndim > 1 else p.data.fill_(1.0)
    weights = [p for p in model.parameters()]
    masters = [p.detach().float().requires_grad_() for p in weights]
    for m in masters:
        m.grad = torch.zeros_like(m)

    def gather(m: Any) -> Callable[[Any], None]:
        def add(p: Any) -> None:
            m.grad.add_(p.grad)
            p.grad = None

        return add

    for p, m in zip(weights, masters, strict=True):
        p.register_post_accumulate_grad_hook(gather(m))
    optimizer = torch.optim.AdamW(masters, lr=1e-4, fused=True)

    def iteration() -> None:
        for _ in range(count):
            tokens = torch.randint(0, SIZES[name][5], (micro, sequence), device="cuda")
            model(tokens, again).backward()
        optimizer.step()
        for p, m in zip(weights, masters, strict=True):
            p.data.copy_(m)
            m.grad.zero_()

    seconds = []
    for _ in range(steps):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        iteration()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    seconds = sorted(seconds[2:])
    peak = torch.cuda.max_memory_allocated()
    power = meter.drawn(iteration, 1.5)
    return {
        "model": name, "sequence": sequence, "micro_batch": micro, "count": count, "recompute": again,
        "parameters": sum(p.numel() for p in weights), "seconds": seconds[len(seconds) // 2], "least": seconds[0],
        "most": seconds[-1], "allocated": peak, "reserved": torch.cuda.max_memory_reserved(), "power": power,
    }  # fmt: skip


def measure(say: Callable[[str], None], meter: Meter, quick: bool) -> list[dict[str, Any]]:
    """Returns every run; one that fails says why."""
    found = []
    for run in RUNS[:1] if quick else RUNS:
        try:
            found.append(step_times(*run, meter=meter, steps=4 if quick else 6))
        except Exception as error:
            found.append({"run": list(run), "failed": f"{type(error).__name__}: {error}"[:300]})
        torch.cuda.empty_cache()
        say(f"training {run}: {found[-1].get('seconds', found[-1].get('failed'))} s, "
            f"{found[-1].get('allocated', 0) / 1e9:.2f} GB")  # fmt: skip
    return found
