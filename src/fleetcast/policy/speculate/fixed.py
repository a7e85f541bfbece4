"""Fixed: the same number of drafted tokens before every call of the target.

Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding", ICML 2023: gamma tokens
from one draft model. Several drafters vote as in `policy.speculate.minions`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fleetcast.policy.speculate import Draft, View


class Fixed:
    """Always ``length`` tokens."""

    kind = "fixed"

    def __init__(
        self,
        *,
        length: Annotated[int, Meta(ge=1, le=16)] = 4,
        drafters: Annotated[int, Meta(ge=1, le=16)] = 1,
    ) -> None:
        """Stores the number of tokens and of drafters."""
        self.length, self.drafters = length, drafters

    def draft(self, view: View) -> Draft:
        """Returns a draft of ``length`` tokens."""
        return Draft(self.length, self.drafters)
