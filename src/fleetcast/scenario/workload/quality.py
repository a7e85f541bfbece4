"""Measured quality: what share of a test's answers a model gets right, by the dtype that its weights are served in.

A scenario names files that ``fleetcast measure quality --out`` writes, or lists scores of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.files import read_text
from fleetcast.base.spec import Spec, convert

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Score(Spec):
    """A share of right answers.

    Attributes:
        quality: share of right answers.
        model: name or path, as scenarios write it; left out = the workload's.
        dtype: of the weights; left out = whatever they are served in.
        interval: 95 % interval of the share.
        items: questions it rests on.
    """

    quality: Share
    model: str | None = None
    dtype: str | None = None
    interval: tuple[Share, Share] | None = None
    items: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None = None

    def said(self) -> str:
        """Returns e.g. ``61.0 % right of 798 questions (57.6 to 64.3 %)``."""
        of = f" of {self.items:,} questions" if self.items is not None else ""
        sure = f" ({self.interval[0]:.1%} to {self.interval[1]:.1%}, 95 %)" if self.interval is not None else ""
        return f"{self.quality:.1%} right{of}{sure}"


def scores_of(
    given: str | Sequence[str | Score], model: str, folder: Path, path: str = "workload.quality"
) -> tuple[Score, ...]:
    """Returns the scores that a scenario names or lists, each with its model.

    Args:
        given: a file of measured quality, or several files and scores.
        model: the workload's, of scores that name none.
        folder: that files' paths start at.
        path: where they stand, for errors.

    Raises:
        SpecError: unreadable, no measured quality, none at all, or two scores of the same model and dtype.
    """
    rows = (given,) if isinstance(given, str) else tuple(given)
    found: list[Score] = []
    for i, row in enumerate(rows):
        at = path if isinstance(given, str) else f"{path}[{i}]"
        found += _read(folder / row, row, at) if isinstance(row, str) else [row]
    found = [msgspec.structs.replace(row, model=row.model or model) for row in found]
    if not found:
        raise SpecError(path, "is empty", value=[], hint='Write e.g. quality = "quality.json"')
    seen: set[tuple[str | None, str | None]] = set()
    for row in found:
        if (row.model, row.dtype) in seen:
            raise SpecError(
                path, f"has two scores of {row.model} in {row.dtype or 'any dtype'}", value=row.quality,
                limit="one for each model and dtype", hint="Leave out the older measurement",
            )  # fmt: skip
        seen.add((row.model, row.dtype))
    return tuple(found)


def _read(file: Path, shown: str, path: str) -> list[Score]:
    if not file.is_file():
        raise SpecError(
            path, "is not a file", value=shown, limit="a path that starts at the scenario's folder",
            hint="Write one with: fleetcast measure quality MODEL --out quality.json",
        )  # fmt: skip
    try:
        table = json.loads(read_text(file))
        rows = table["scores"]
    except (ValueError, RecursionError, KeyError, TypeError):
        rows = None
    if not isinstance(rows, list) or not rows:
        raise SpecError(
            path, "names a file without scores", value=shown,
            limit="what fleetcast measure quality --out writes, of questions whose key is known",
        )  # fmt: skip
    return [convert(row, Score, f"{path}: scores[{i}]") for i, row in enumerate(rows)]


def score_of(scores: Sequence[Score], names: Sequence[str], dtype: str) -> Score | None:
    """Returns the score of a model (by any of its names) in a dtype: its own, else that for any dtype, else None."""
    mine = [row for row in scores if row.model in names]
    return next((r for r in mine if r.dtype == dtype), None) or next((r for r in mine if r.dtype is None), None)
