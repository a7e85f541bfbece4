"""PEFT: as HEFT, but each task goes where its own end and what can follow it at best are the least.

Arabnejad and Barbosa, "List scheduling algorithm for heterogeneous systems by an optimistic cost table", IEEE TPDS
25(3), 2014. Rule: the optimistic cost of a task on a worker is the longest way on from there if every later task takes
its best worker; by falling mean of it tasks that can be placed are, each where end + optimistic cost is least, gaps
included. Unlike the paper's, messages hold the ports of devices, as they do for HEFT here.
"""

from __future__ import annotations

from fleetcast.cost.graphs.schedule import Schedule, peft
from fleetcast.policy.order.tasks.heft import Heft
from fleetcast.policy.order.tasks.view import View


class Peft(Heft):
    """Every task runs where and in the order that a plan with a look ahead says."""

    kind = "peft"

    def plan(self, view: View) -> Schedule:
        """Returns where and when each task is to run."""
        return peft(view.graph, view.platform)
