"""Chunked prefill: every iteration decodes all running requests and fills up with pieces of prompts.

Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", OSDI 2024. Rule: decode
tokens first, then the prompt begun, then new prompts, until the token budget ``chunk`` is spent. Also the default
of vLLM 1. Differs from the paper: memory for the whole prompt is claimed when its first piece enters.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fleetcast.policy.batch import Batch, Rule, View, fill


class Chunked:
    """Decodes first, prompts in pieces, up to ``chunk`` tokens an iteration."""

    kind = "chunked"

    def __init__(
        self,
        *,
        chunk: Annotated[int, Meta(ge=1, le=1_000_000)] = 2048,
        max_batch: Annotated[int, Meta(ge=1, le=100_000)] = 256,
    ) -> None:
        """Stores the token budget and the most requests that run at once; ``chunk`` must reach ``max_batch``."""
        if chunk < max_batch:
            raise ValueError(
                f"chunk {chunk} is below max_batch {max_batch}: a full batch could not decode; raise chunk"
            )
        self.chunk, self.max_batch = chunk, max_batch

    def rule(self) -> Rule:
        """Returns the policy as numbers for the compiled world."""
        return Rule(self.max_batch, self.chunk, mixed=True, split=True, refill=True, reserve=False)

    def compose(self, view: View) -> Batch:
        """Returns the next iteration."""
        return fill(self.rule(), view)
