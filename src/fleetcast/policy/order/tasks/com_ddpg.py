"""Com-DDPG: agents of devices, trained together, decide which tasks servers take; they tell each other what they see.

"Com-DDPG: A Multiagent Reinforcement Learning-based Offloading Strategy for Mobile Edge Computing", IEEE Transactions
on Vehicular Technology (arXiv 2012.05105, 2020). Each device's agent reads its last observations with an LSTM, the
agents' states pass through a bidirectional recurrent network from device to device and back, and the place of the
greatest score takes the task. Queues are served in order.

How this differs: the paper's layers and numbers could not be read; sizes are ours. Every place is scored by the same
weights, so that any number of servers and devices will do. This file is the forward pass; training is in
`learning.rl.com_ddpg`. Where a graph has no devices (no task that one worker alone can run), tasks go as under dmda.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.cost.graphs.offloading import Weights
from fleetcast.policy.order.tasks.sight import PLACES, TASK, Sight
from fleetcast.policy.order.tasks.view import View

WINDOW = 4
"""Observations of an agent that its LSTM reads."""
PLACE_WIDTH, STATE, TOLD, HEAD = 16, 32, 16, 32
SHIPPED = Path(__file__).with_name("com_ddpg.npz")

SHAPES: dict[str, tuple[int, ...]] = {
    "place": (PLACES, PLACE_WIDTH), "place_bias": (PLACE_WIDTH,),
    "task": (TASK, PLACE_WIDTH), "task_bias": (PLACE_WIDTH,),
    "lstm_in": (3 * PLACE_WIDTH, 4 * STATE), "lstm": (STATE, 4 * STATE), "lstm_bias": (4 * STATE,),
    "there_in": (STATE, TOLD), "there": (TOLD, TOLD), "there_bias": (TOLD,),
    "back_in": (STATE, TOLD), "back": (TOLD, TOLD), "back_bias": (TOLD,),
    "head": (2 * PLACE_WIDTH + STATE + 2 * TOLD, HEAD), "head_bias": (HEAD,), "score": (HEAD, 1),
}  # fmt: skip


def forward(
    p: Mapping[str, Any], places: Any, tasks: Any, lib: Any, cat: Callable[[list[Any]], Any], pick: Callable[[Any], Any]
) -> Any:
    """Returns scores [..., C] of the places of one agent, by NumPy or by torch: the same lines.

    Args:
        p: weights by the names of `SHAPES`; without "there" agents tell each other nothing.
        places: [..., N, L, C, PLACES], of N agents the last L observations of C places, oldest first.
        tasks: [..., N, L, TASK].
        lib: numpy or torch.
        cat: joins a list of arrays along their last axis.
        pick: takes the agent that decides out of an array [..., N, ...].
    """
    seen = lib.tanh(places @ p["place"] + p["place_bias"])
    task = lib.tanh(tasks @ p["task"] + p["task_bias"])
    read = cat([seen[..., 0, :], seen[..., 1:, :].mean(-2), task]) @ p["lstm_in"] + p["lstm_bias"]
    state = lib.zeros_like(read[..., 0, :STATE])
    cell = lib.zeros_like(state)
    for step in range(read.shape[-2]):
        gates = read[..., step, :] + state @ p["lstm"]
        open_, forget, give, new = (gates[..., i * STATE : (i + 1) * STATE] for i in range(4))
        cell = _sigmoid(forget, lib) * cell + _sigmoid(open_, lib) * lib.tanh(new)
        state = _sigmoid(give, lib) * lib.tanh(cell)
    parts = [pick(task[..., -1, :]), pick(state)]
    for way in ("there", "back"):
        told = [lib.zeros_like(state[..., 0, :TOLD])] * state.shape[-2]
        if way in p:
            said, last = state @ p[f"{way}_in"] + p[f"{way}_bias"], told[0]
            for i in range(len(told)) if way == "there" else range(len(told) - 1, -1, -1):
                told[i] = last = lib.tanh(said[..., i, :] + last @ p[way])
        parts.append(pick(lib.stack(told, -2)))
    own, rows = cat(parts), pick(seen[..., -1, :, :])
    wide = lib.broadcast_to(own[..., None, :], (*rows.shape[:-1], own.shape[-1]))
    return (lib.tanh(cat([rows, wide]) @ p["head"] + p["head_bias"]) @ p["score"])[..., 0]


def _sigmoid(x: Any, lib: Any) -> Any:
    return 0.5 * (1.0 + lib.tanh(0.5 * x))


def joined(parts: list[Any]) -> Any:
    """Joins NumPy arrays along their last axis."""
    return np.concatenate(parts, -1)


class ComDdpg:
    """Trained agents of devices choose which of their tasks servers take, and queues are served in order.

    Args:
        weights: an .npz file of trained agents (`learning.rl.com_ddpg`); "" = the one that is shipped.
    """

    kind = "com_ddpg"
    offloads = True

    def __init__(self, *, weights: str = "") -> None:
        self.weights = weights
        self._given: dict[str, Any] | None = None

    def start(self, view: View) -> None:
        """Reads whose tasks there are, and forgets what agents saw.

        Raises:
            SpecError: the weights cannot be read.
        """
        self._p = self._given or read_weights(Path(self.weights) if self.weights else SHIPPED)
        self._sight = Sight(view, Weights())
        agents, places = len(self._sight.agent), 1 + len(self._sight.users.servers)
        self._places = np.zeros((agents, WINDOW, places, PLACES))
        self._tasks = np.zeros((agents, WINDOW, TASK))

    def push(self, task: int, view: View) -> int | None:
        """Returns the place of the greatest score that can run the task."""
        where = self._sight.places(task)
        if where[0] < 0 or len(where) < 2:
            return view.soonest(task)
        able = [view.runs(task, place) for place in where]
        if not any(able):
            return view.soonest(task)
        chosen = self.pick(task, np.array(able), view)
        self._sight.add(task, where[chosen], view)
        return where[chosen]

    def pick(self, task: int, able: Any, view: View) -> int:
        """Returns which of a task's places takes it."""
        return int(np.argmax(np.where(able, self.scores(task, view), -np.inf)))

    def scores(self, task: int, view: View) -> Any:
        """Returns f8[C], scores of a task's places, after its agent has looked."""
        agent = self._sight.agent[self._sight.places(task)[0]]
        seen, told = self._sight.see(task, view)
        for kept, new in ((self._places[agent], seen), (self._tasks[agent], told)):
            kept[:-1] = kept[1:]
            kept[-1] = new
        return forward(self._p, self._places, self._tasks, np, joined, lambda all_: all_[agent])

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the head of the worker's queue."""
        return next(iter(view.queue(worker)), None)


def read_weights(path: Path) -> dict[str, Any]:
    """Returns the weights of a file, checked.

    Raises:
        SpecError: no such file, or not such weights.
    """
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found = {name: np.asarray(file[name], float) for name in file.files if name in SHAPES}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise SpecError("order.weights", f"cannot be read: {error}", value=str(path), hint="Train them anew") from None
    for name, shape in SHAPES.items():
        if found.get(name, np.empty(0)).shape != shape:
            raise SpecError(
                "order.weights", f"has no '{name}' of {shape}", value=str(path), limit="weights of Com-DDPG",
                hint="Train them anew",
            )  # fmt: skip
    return found
