"""How many tokens are drafted before the target model checks them, and by how many drafters. The null is `Off`.

A policy sees what became of a sequence's last drafts (`View`) and returns a `Draft`. It counts and never looks at a
clock, so the same object decides in the forecast and in an engine. Drafts that are accepted are the target's own
tokens: speculation changes when they come, not what they are (Leviathan et al., ICML 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Draft", "Fixed", "Minions", "Ngram", "Off", "Policy", "View"]

LONGEST = 16
"""Most tokens that are drafted at once."""


@dataclass(frozen=True)
class View:
    """One sequence before its next call of the target model.

    Attributes:
        batch: sequences that the call will check together.
        length: tokens that the policy decided to draft last time; None before the first call.
        proposed: tokens that were drafted last time; fewer than ``length`` where a lookup found no more.
        accepted: how many of these the target accepted.
        tried: drafted tokens that the target came to judge so far: all up to the first rejection of each call.
        right: how many of these it accepted.
        found: tokens that a lookup in the context offers now; None where a model drafts.
        idle: calls since the last for which anything was drafted.
        others_tried: as ``tried``, of the requests of late, this one's among them; older ones count for less.
        others_right: how many of these were accepted.
    """

    batch: int
    length: int | None = None
    proposed: int = 0
    accepted: int = 0
    tried: int = 0
    right: int = 0
    found: int | None = None
    idle: int = 0
    others_tried: float = 0.0
    others_right: float = 0.0


@dataclass(frozen=True)
class Draft:
    """The decision: how many tokens to draft, and how many drafters vote on them."""

    length: int
    drafters: int = 1


class Policy(Protocol):
    """Decides a sequence's next draft."""

    kind: str

    def draft(self, view: View) -> Draft:
        """Returns how many tokens to draft for the next call of the target, and by how many drafters."""
        ...


from fleetcast.policy.speculate.fixed import Fixed  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.speculate.minions import Minions  # noqa: E402
from fleetcast.policy.speculate.ngram import Ngram  # noqa: E402
from fleetcast.policy.speculate.off import Off  # noqa: E402
