"""Prefill first: waiting prompts run alone and at once, decodes wait meanwhile.

Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", SOSP 2023: the
default scheduler of vLLM 0. Rule: if any waiting request fits (batch, tokens, memory), the iteration prefills only;
otherwise it decodes only.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fleetcast.policy.batch import Batch, Rule, View, fill


class PrefillFirst:
    """Whole prompts ahead of decodes, up to ``max_tokens`` prompt tokens an iteration."""

    kind = "prefill_first"

    def __init__(
        self,
        *,
        max_batch: Annotated[int, Meta(ge=1, le=100_000)] = 256,
        max_tokens: Annotated[int, Meta(ge=1, le=100_000_000)] = 8192,
    ) -> None:
        """Stores the most requests that run at once and the most prompt tokens of one iteration."""
        self.max_batch, self.max_tokens = max_batch, max_tokens

    def rule(self) -> Rule:
        """Returns the policy as numbers for the compiled world."""
        return Rule(self.max_batch, self.max_tokens, mixed=False, split=False, refill=True, reserve=False)

    def compose(self, view: View) -> Batch:
        """Returns the next iteration."""
        return fill(self.rule(), view)
