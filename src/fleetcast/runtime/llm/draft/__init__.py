"""Who drafts tokens for the target model to check: `policy.speculate` decides how many, a drafter says which.

A drafter serves one engine. It is told a request's tokens anew before each draft, so what became of the last draft
needs no message of its own. What it says is checked token by token: a drafter can be useless, never wrong.
"""

from __future__ import annotations

from fleetcast.runtime.llm.draft.lookup import NgramLookup
from fleetcast.runtime.llm.draft.model import ModelDrafter
from fleetcast.runtime.llm.draft.ngram import NgramModel
from fleetcast.runtime.llm.draft.pipelined import Pipelined
from fleetcast.runtime.llm.draft.protocol import Ask, Drafter
from fleetcast.runtime.llm.draft.voted import Voted

__all__ = ["Ask", "Drafter", "ModelDrafter", "NgramLookup", "NgramModel", "Pipelined", "Voted"]
