"""Static batching: a batch is formed when the engine is idle and runs until its last request has finished.

The scheduler of FasterTransformer (NVIDIA, 2019), the baseline of Orca (Yu et al., OSDI 2022). The null policy of
this family: every report's baseline.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fleetcast.policy.batch import Batch, Rule, View, fill


class Static:
    """No request enters while another runs."""

    kind = "static"

    def __init__(
        self,
        *,
        max_batch: Annotated[int, Meta(ge=1, le=100_000)] = 32,
        max_tokens: Annotated[int, Meta(ge=1, le=100_000_000)] = 131_072,
    ) -> None:
        """Stores the batch size and the most prompt tokens of the batch."""
        self.max_batch, self.max_tokens = max_batch, max_tokens

    def rule(self) -> Rule:
        """Returns the policy as numbers for the compiled world."""
        return Rule(self.max_batch, self.max_tokens, mixed=False, split=False, refill=False, reserve=True)

    def compose(self, view: View) -> Batch:
        """Returns the next iteration."""
        return fill(self.rule(), view)
