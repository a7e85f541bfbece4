"""What a share policy's decisions look like to a network: states, what is legal, its action; what exploring seeks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fleetcast.kernels.slots import Slots
from fleetcast.policy.share.dl2 import FEATURES


def demonstrations(run: Slots, other: Slots, deal: Callable[[Slots], None]) -> tuple[Any, Any, Any]:
    """Plays a list to its end as a policy deals, and tells what a network should have said.

    A network's slot begins with a worker and a server for each job, so the first of either that the policy gives is no
    decision. Units for jobs outside the window are placed and not told. The end of a slot is told where the policy
    ended it, not where room did.

    Args:
        run: at its first slot.
        other: the same.
        deal: deals a begun slot out by `Slots.place`.

    Returns:
        State f4[m, 6 J], legal u1[m, 3 J + 1], action i8[m].
    """
    window = run.window_size()
    states, masks, actions = list[Any](), list[Any](), list[int]()

    def tell(job: int, workers: int, servers: int) -> None:
        state, mask = np.zeros(FEATURES * window, np.float32), np.zeros(3 * window + 1, np.uint8)
        other.observe(state, mask)
        if job < 0:
            action = 3 * window
        else:
            seats = np.flatnonzero(other.seats() == job)
            if not len(seats):
                return
            action = 3 * int(seats[0]) + (2 if workers and servers else 0 if workers else 1)
        states.append(state)
        masks.append(mask)
        actions.append(action)

    while not run.over():
        run.begin()
        deal(run)
        units = run.decisions().tolist()
        other.begin()
        other.bundles()
        has: dict[int, list[int]] = {}
        for job, workers, servers in units:
            before = has.setdefault(job, [0, 0])
            more = workers - (workers > 0 and not before[0]), servers - (servers > 0 and not before[1])
            before[0] += workers
            before[1] += servers
            if more != (0, 0):
                tell(job, *more)
                if not other.place(job, *more):
                    break
        else:
            if not run.stopped() and len(run.there()):
                tell(-1, 0, 0)
        other.begin()
        for job, workers, servers in units:
            other.place(job, workers, servers)
        run.finish()
        other.finish()
    return (
        np.array(states, np.float32).reshape(-1, FEATURES * window),
        np.array(masks, np.uint8).reshape(-1, 3 * window + 1),
        np.array(actions, np.int64),
    )


def shuffled(state: Any, mask: Any, action: Any, draw: np.random.Generator) -> tuple[Any, Any, Any]:
    """Returns the same decisions with the seats of each window in random order: more to learn from."""
    rows, window = len(state), state.shape[1] // FEATURES
    order = np.argsort(draw.random((rows, window)), 1)
    seat = np.argsort(order, 1)
    jobs = np.take_along_axis(state.reshape(rows, window, FEATURES), order[:, :, None], 1).reshape(rows, -1)
    legal = np.take_along_axis(mask[:, :-1].reshape(rows, window, 3), order[:, :, None], 1).reshape(rows, -1)
    moved = 3 * np.take_along_axis(seat, np.minimum(action // 3, window - 1)[:, None], 1)[:, 0] + action % 3
    return jobs, np.concatenate([legal, mask[:, -1:]], 1), np.where(action == 3 * window, action, moved)


def sought_after(state: Any, mask: Any) -> Any:
    """Returns i8[B], the action that job-aware exploring takes, -1 = none: the paper's injected samples.

    One of each to the job that has least, where another has more than four times as much; else a server to the job of
    most workers a server, where it has more workers than servers.
    """
    jobs = state.reshape(len(state), -1, FEATURES)
    there, workers, servers = jobs[..., 0] > 0, jobs[..., 4], jobs[..., 5]
    has, rows = workers + servers, np.arange(len(state))
    least = np.where(there, has, np.inf).argmin(1)
    uneven = has.max(1) > 4.0 * has[rows, least]
    ratio = np.where(there, workers / np.maximum(servers, 1.0), 0.0)
    most = ratio.argmax(1)
    action = np.where(uneven, 3 * least + 2, np.where(ratio[rows, most] > 1.0, 3 * most + 1, -1))
    return np.where(mask[rows, action] > 0, action, -1)
