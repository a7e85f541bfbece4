"""The plan that operators make by hand: the null that a searched plan is held against.

Tensor parallelism within the node as far as the model allows, then pipeline stages until the model fits, then as many
copies as the fleet holds; the engine's default policies. What APEX (Lin et al., 2024) calls the heuristic plan.
"""

from __future__ import annotations

import numpy as np

from fleetcast.base.errors import Infeasible
from fleetcast.scenario.plan import Plan, Pool, replace
from fleetcast.scenario.workload.models import Layout
from fleetcast.scenario.workload.precision import as_engine
from fleetcast.search.layouts import places
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Setting


def heuristic(state: Setting) -> Plan:
    """Returns the heuristic plan, complete; on a mixed fleet one pool per group, of those where the model fits.

    What ``[plan]`` decides beside the degrees (engine, dtype, batch, ...) is kept; a draft pool is left out.

    Raises:
        Infeasible: the model fits on no group.
        SpecError: ``[plan]`` lists values to search.
    """
    asked = state.scenario.plan
    template = asked.serving[0] if asked.draft is None else replace(asked.serving[0], speculate=None)
    pools: list[Pool] = []
    refusal: Infeasible | None = None
    for group in (g for g in state.tree.groups if template.on in (None, g.name)):
        model = state.model_named(template.model)
        precision = as_engine(str(template.dtype or "auto"), model.precision)
        tp = max(
            t for t in range(1, min(group.count, group.node) + 1)
            if model.misfit(Layout(tensor_parallel=t), precision) is None
        )  # fmt: skip
        room = int(places(group, np.array([tp]))[0])
        for pp in range(1, min(room, model.layers) + 1):
            pool = replace(
                template, on=group.name if len(state.tree.groups) > 1 else template.on, replicas=room // pp,
                tensor_parallel=tp, pipeline_parallel=pp, expert_parallel=1, attention_dp=1,
            )  # fmt: skip
            try:
                complete(state, Plan(pools=(pool,)))
            except Infeasible as why:
                refusal = refusal or why
                continue
            pools.append(pool)
            break
    if not pools:
        assert refusal is not None
        raise refusal
    return complete(state, Plan(pools=tuple(pools), route=state.scenario.plan.route))
