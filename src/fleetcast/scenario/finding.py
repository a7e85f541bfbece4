"""Finding: what telemetry says, and the evidence that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing found in telemetry.

    Attributes:
        kind: of what: "straggler", "hang", ...
        who: what it is about: a host, a rank.
        what: in a sentence.
        sure: probability that it is so, 0 to 1.
        evidence: what it rests on, a line each.
        values: the same in numbers, SI units.
    """

    kind: str
    who: str
    what: str
    sure: float
    evidence: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> dict[str, Any]:
        """Returns it as a table for JSON."""
        return {
            "kind": self.kind, "who": self.who, "what": self.what, "sure": self.sure, "evidence": list(self.evidence),
            "values": dict(self.values),
        }  # fmt: skip
