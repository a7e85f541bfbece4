"""Shortest prompt first: the request whose prefill is cheapest enters next.

Shortest job first (Smith, "Various optimizers for single-stage production", 1956) on the one length an engine knows
at arrival. Rule: ascending prompt tokens, ties by arrival. Long prompts may starve under load; TTFT tails show it.
"""

from __future__ import annotations


class ShortestPrompt:
    """Requests enter by ascending prompt length."""

    kind = "shortest_prompt"

    def key(self, arrival: float, prompt: int) -> float:
        """Returns the prompt's length."""
        return float(prompt)
