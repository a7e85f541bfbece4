"""N-gram: what followed the last few tokens earlier in the context is drafted; no draft model.

Saxena, "Prompt Lookup Decoding", 2023 (also Yang et al., "Inference with Reference", 2023). Drafts as many tokens as
the lookup offers, up to ``length``, and none where it finds no match: then the call costs what it costs without.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fleetcast.policy.speculate import Draft, View


class Ngram:
    """Up to ``length`` tokens, as far as the lookup has them."""

    kind = "ngram"

    def __init__(self, *, length: Annotated[int, Meta(ge=1, le=16)] = 4) -> None:
        """Stores the most tokens of a draft."""
        self.length = length

    def draft(self, view: View) -> Draft:
        """Returns a draft of what was found, at most ``length`` tokens."""
        return Draft(self.length if view.found is None else min(self.length, view.found))
