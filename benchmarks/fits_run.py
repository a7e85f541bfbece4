"""Trains a small GPT for two iterations of two micro-batches under a hard limit of memory, and says how it ended.

A process of its own, started by `benchmarks.fits`: it prints one line of JSON. The limit is the kernel's (RLIMIT_DATA:
what a process has mapped to write to) and counts from what the process holds before any tensor of the model.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


def mapped(name: str) -> int:
    """Returns what the process has mapped, B: "VmData" to write to, "VmSize" in all, "VmPeak" at most."""
    rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(name)) * 1024


class Block(nn.Module):  # type: ignore[misc,unused-ignore]
    """A layer of GPT, norms first, no dropout."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2))
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: Any) -> Any:
        """Returns the residual stream after the layer, (batch, sequence, hidden)."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norms[0](x)).chunk(3, -1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Gpt(nn.Module):  # type: ignore[misc,unused-ignore]
    """A GPT with learned positions and a tied head."""

    def __init__(self, layers: int, hidden: int, heads: int, vocab: int, sequence: int, recompute: bool) -> None:
        super().__init__()
        self.table, self.positions = nn.Embedding(vocab, hidden), nn.Embedding(sequence, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads) for _ in range(layers))
        self.norm, self.recompute = nn.LayerNorm(hidden), recompute

    def forward(self, ids: Any, targets: Any) -> Any:
        """Returns the loss."""
        x = self.table(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
        logits = functional.linear(self.norm(x), self.table.weight)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def train(run: dict[str, Any]) -> None:
    """Trains for two iterations; whatever cannot be allocated raises."""
    torch.manual_seed(0)
    model = Gpt(run["layers"], run["hidden"], run["heads"], run["vocab"], run["sequence"], run["recompute"] == "full")
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for _ in range(2):
        for _ in range(2):
            ids = torch.randint(run["vocab"], (run["micro_batch"], run["sequence"] + 1))
            loss = model(ids[:, :-1], ids[:, 1:])
            loss.backward()
        adam.step()
        adam.zero_grad(set_to_none=False)  # gradients keep their place, as where they are accumulated


def main() -> None:
    """Reads a run from the command line."""
    run = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    small = {"layers": 1, "hidden": 384, "heads": 6, "vocab": 8192, "sequence": 512, "micro_batch": 1}
    train(small | {"recompute": "full"})  # libraries keep what they take for their kernels
    empty, size, before = mapped("VmData"), mapped("VmSize"), mapped("VmPeak")
    most = empty + int(run["limit"])
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        train(run)
        fits = True
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        fits = False
    peak = mapped("VmPeak")
    print(json.dumps({"fits": fits, "empty": empty, "peak": peak - size if peak > before else None}))


if __name__ == "__main__":
    main()
