"""Which task of a graph runs next, and where. The null policy is `Fifo`.

The protocol is StarPU's (Augonnet, Thibault, Namyst and Wacrenier, 2011): a task that has become ready is *pushed*, to
one worker's queue or to the common one; a worker without work *pops* one. The world, simulated or real, asks; a policy
answers with numbers of tasks and workers, and reads no clock but ``view.now``.

    start(view)          once before all, and again with a new view where the graph or the workers have changed
    push(task, view)     -> the worker whose queue takes the task, or None: the common queue
    pop(worker, view)    -> a ready task that the worker now begins, or None: it stays idle until something is pushed

What pop returns may lie in any queue: taking from another's is stealing. Data of a pushed task travel to its worker at
once (prefetch); those of a task from the common queue once it is popped. A policy may keep queues of its own beside the
view's; one object plays one graph at a time.

A policy that has decided everything beforehand may have an attribute ``schedule`` (`cost.graphs.schedule.Schedule`)
after ``start``: a world that can then sends data as soon as they are made.
"""

from __future__ import annotations

from typing import Protocol

from fleetcast.policy.order.tasks.view import Board, View

__all__ = [
    "Board", "CriticalPath", "Dmda", "Dmdas", "Fifo", "Heft", "Inspirit", "Peft", "Policy", "View", "WorkStealing",
]  # fmt: skip


class Policy(Protocol):
    """Says where ready tasks go and what a worker does next."""

    kind: str

    def start(self, view: View) -> None:
        """Reads graph and workers, and forgets any earlier graph."""
        ...

    def push(self, task: int, view: View) -> int | None:
        """Returns the worker whose queue takes a task that has become ready, or None for the common queue."""
        ...

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the ready task that an idle worker begins, or None."""
        ...


# the methods need the protocol above
from fleetcast.policy.order.tasks.critical_path import CriticalPath  # noqa: E402
from fleetcast.policy.order.tasks.dmda import Dmda  # noqa: E402
from fleetcast.policy.order.tasks.dmdas import Dmdas  # noqa: E402
from fleetcast.policy.order.tasks.fifo import Fifo  # noqa: E402
from fleetcast.policy.order.tasks.heft import Heft  # noqa: E402
from fleetcast.policy.order.tasks.inspirit import Inspirit  # noqa: E402
from fleetcast.policy.order.tasks.peft import Peft  # noqa: E402
from fleetcast.policy.order.tasks.work_stealing import WorkStealing  # noqa: E402
