"""Iteration-level scheduling: whole prompts join the running batch at any iteration.

Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022. Rule: at every
iteration admit waiting requests in order while the batch has room and memory for prompt *and* longest output can be
reserved; prompts and decodes run together. Differs from the paper: the output's true length stands for its limit.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fleetcast.policy.batch import Batch, Rule, View, fill


class Orca:
    """Prompts are never cut; memory is reserved for the whole output."""

    kind = "orca"

    def __init__(
        self,
        *,
        max_batch: Annotated[int, Meta(ge=1, le=100_000)] = 256,
        max_tokens: Annotated[int, Meta(ge=1, le=100_000_000)] = 131_072,
    ) -> None:
        """Stores the most requests that run at once and the most tokens of one iteration."""
        self.max_batch, self.max_tokens = max_batch, max_tokens

    def rule(self) -> Rule:
        """Returns the policy as numbers for the compiled world."""
        return Rule(self.max_batch, self.max_tokens, mixed=True, split=False, refill=True, reserve=True)

    def compose(self, view: View) -> Batch:
        """Returns the next iteration."""
        return fill(self.rule(), view)
