"""Right answers of a plan: what was measured of the model and dtype that each request is served by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.scenario.plan import Pool
from fleetcast.scenario.workload.models import Model
from fleetcast.scenario.workload.quality import Score, score_of

if TYPE_CHECKING:
    from fleetcast.scenario.load import ServingScenario


def measured(scenario: ServingScenario, scores: Sequence[Score], pool: Pool, model: Model) -> Score | None:
    """Returns the score of a complete pool; None where none was measured and none is needed.

    Raises:
        SpecError: none was measured, and a limit or a goal asks for it.
    """
    if not scores or pool.role == "draft":
        return None
    name = pool.model or scenario.workload.model
    found = score_of(scores, (name, model.id), str(pool.dtype))
    wanted = scenario.slo.quality is not None or any(goal == "quality" for goal, _, _ in scenario.objective.goals())
    if found is None and wanted:
        known = ", ".join(f"{row.model} in {row.dtype or 'any dtype'}" for row in scores)
        raise SpecError(
            "workload.quality", "has no score of a plan that is asked about", value=f"{name} in {pool.dtype}",
            limit=f"known: {known}", hint="Measure it (fleetcast measure quality), or leave it out of [plan]",
        )  # fmt: skip
    return found


def right_answers(scores: Sequence[Score | None], began: NDArray[np.int32], where: NDArray[np.int32]) -> float | None:
    """Returns the share of right answers over all requests; None where that of a replica is not known.

    A request that two replicas serve, one its prompt and one its answer, is as good as the worse of them.

    Args:
        scores: by replica.
        began: replica that made each request's first token.
        where: replica that it ended in.
    """
    known = [row.quality for row in scores if row is not None]
    if not known or len(known) < len(scores):
        return None
    if min(known) == max(known):
        return known[0]
    each = np.array(known)
    return float(np.minimum(each[began], each[where]).mean())
