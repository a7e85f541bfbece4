"""One model over several processes: tensor parallel, each holding some heads and columns of every layer, or pipelined.

`shard` says which part of the weights a rank holds, `likeliest` what it sends instead of logits, `worker` is a rank's
process, and `group` is the model as the engine sees it: rank 0, in the engine's own process, and the others.
"""

from __future__ import annotations

from fleetcast.runtime.llm.ranks.group import LostRank, Ranks, Source
from fleetcast.runtime.llm.ranks.shard import check

__all__ = ["LostRank", "Ranks", "Source", "check"]
