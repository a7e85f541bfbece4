"""Pods whose use drifts, and a policy that moves them: reading after reading.

Between two readings nothing changes. At each, the policy sees what is used, its moves are checked and made, and until
the next reading every node that is overloaded counts as that. A move takes the task away at once; what it sends is its
cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import PolicyError
from fleetcast.cost.migration import PAGE, Writes, migration
from fleetcast.policy.place.balance import Moves, Policy, View
from fleetcast.scenario.workload.drift import STEP, Filled

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLACK = 1e-6
LINK = 10e9 / 8
"""B/s at which a migration sends, 10 Gb/s."""
DIRTY, HOT = 2000.0, 0.1
"""Pages that a core in use writes a second, over this share of a pod's memory: assumed, the same for all policies."""


@dataclass(frozen=True)
class Balanced:
    """What came of it.

    Attributes:
        overloaded: share of node-time in which a node was overloaded.
        excess: mean over node-time of the share of its scarcest resource that was wanted and not there.
        moves: tasks moved.
        moved_bytes: B sent for them.
        seconds: CPU time of the policy.
        asked: decisions that nodes made for themselves.
        messages: that they sent.
        readings: how many.
    """

    overloaded: float
    excess: float
    moves: int
    moved_bytes: float
    seconds: float
    asked: int
    messages: int
    readings: int


def costs(mean: NDArray[np.float64], memory: int = 1) -> NDArray[np.float64]:
    """Returns f8[t], B that a live migration of each pod sends (see `cost.migration`)."""
    return np.array([
        migration(row[memory], (Writes(DIRTY * row[0], HOT * row[memory] / PAGE),), LINK, stop=LINK * 0.3).sent
        for row in mean
    ])  # fmt: skip


def balance(filled: Filled, uses: Iterable[NDArray[np.float64]], policy: Policy, *, seed: int = 0) -> Balanced:
    """Returns what a policy makes of a drift.

    Args:
        filled: the cluster.
        uses: f8[t, r] of each reading, see `drift`.
        policy: moves tasks.
        seed: of the policy's draws.

    Raises:
        PolicyError: a task moved twice in a reading or out of range, or a node overloaded by what it was sent.
    """
    cost = costs(filled.mean, filled.memory)
    node = filled.node.astype(np.int64)
    overloaded = excess = sent = spent = 0.0
    moves = asked = messages = readings = 0
    for use in uses:
        view = View(filled.capacity, use, node.copy(), cost, seed=seed * 1_000_003 + readings)
        began = time.process_time()
        decision = policy.balance(view)
        spent += time.process_time() - began
        apply(view, decision, node)
        load = View(filled.capacity, use, node, cost).load()
        over = (load / np.maximum(filled.capacity, 1e-12) - 1) * (load > filled.capacity * (1 + SLACK))
        overloaded += float((over > 0).any(axis=1).mean())
        excess += float(over.max(axis=1).clip(0).mean())
        moves += len(decision.task)
        sent += float(cost[decision.task].sum())
        asked, messages, readings = asked + decision.asked, messages + decision.messages, readings + 1
    return Balanced(overloaded / readings, excess / readings, moves, sent, spent, asked, messages, readings)


def apply(view: View, decision: Moves, node: NDArray[np.int64]) -> None:
    """Writes moves into ``node``.

    Raises:
        PolicyError: see `balance`; nothing is written then.
    """
    task, goal = decision.task, decision.node
    if len(task) != len(goal):
        raise PolicyError(f"{len(task)} tasks and {len(goal)} nodes: each move needs both")
    if len(task) and (task.min() < 0 or task.max() >= len(node) or goal.min() < 0 or goal.max() >= len(view.capacity)):
        raise PolicyError(f"a move names a task or node that is not there: tasks 0 to {len(node) - 1}, "
                          f"nodes 0 to {len(view.capacity) - 1}")  # fmt: skip
    if len(np.unique(task)) != len(task):
        raise PolicyError(f"task {int(np.sort(task)[:-1][np.diff(np.sort(task)) == 0][0])} is moved twice in a reading")
    after = node.copy()
    after[task] = goal
    load = View(view.capacity, view.use, after, view.cost).load()
    for n in np.unique(goal).tolist():
        short = load[n] - view.capacity[n] * (1 + SLACK)
        if (short > 1e-9).any():
            r = int(short.argmax())
            raise PolicyError(
                f"node {n} would be overloaded by what is moved to it: resource {r} needs {load[n, r]:.4g}, "
                f"has {view.capacity[n, r]:.4g}"
            )
    node[:] = after


__all__ = ["STEP", "Balanced", "apply", "balance", "costs"]
