"""The world of offloading as a Gymnasium environment: one decision of one agent a step.

    env = Offloading(Apps())
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample(info["action_mask"]))

The observation is what the deciding agent sees (`policy.order.tasks.sight`), the action a place: the device itself or a
server. Rewards are what decisions add to the bill, negative, and sum over an episode to minus the bill.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra
from fleetcast.cost.graphs.offloading import Weights, bill
from fleetcast.learning.rl.apps import Apps
from fleetcast.policy.order.tasks.dmda import Dmda
from fleetcast.policy.order.tasks.sight import PLACES, TASK, Sight
from fleetcast.policy.order.tasks.view import View
from fleetcast.sim.graph.world import Decisions, decisions

try:
    import gymnasium
except ImportError:
    raise MissingExtra("gymnasium", "learn") from None

FAR = 100.0
"""Beyond which no number is seen; they are around 1."""
Step = tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]


class Offloading(gymnasium.Env):  # type: ignore[misc]
    """Applications of several users beside servers; see the module.

    Args:
        apps: how episodes are drawn.
        weights: of the bill.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, apps: Apps | None = None, weights: Weights | None = None) -> None:
        self.apps, self.weights = apps or Apps(), weights or Weights()
        places = 1 + self.apps.servers
        self.action_space = gymnasium.spaces.Discrete(places)
        self.observation_space = gymnasium.spaces.Box(-FAR, FAR, (places * PLACES + TASK,), np.float32)
        self._turns: Decisions | None = None
        self._view: View | None = None
        self._sight: Sight | None = None
        self._task, self._paid = 0, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; ``options={"episode": n}`` names which, otherwise it is drawn."""
        super().reset(seed=seed)
        number = (options or {}).get("episode")
        episode = int(self.np_random.integers(2**31)) if number is None else int(number)
        self._graph, self._platform = self.apps.episode(episode)
        self._turns = decisions(self._graph, self._platform, Dmda())
        self._paid = 0.0
        self._task, self._view = next(self._turns)
        self._sight = Sight(self._view, self.weights)
        return self._seen(), self._info()

    def step(self, action: int) -> Step:
        """Sends the task to a place; to one that cannot run it (``info["action_mask"]``) it does not go, but stays.

        Raises:
            ValueError: before `reset`.
        """
        if self._turns is None or self._view is None or self._sight is None:
            raise ValueError("step() comes after reset(), and not after the end of an episode")
        where = self._sight.places(self._task)
        if not self._view.runs(self._task, where[int(action)]):
            # An agent that samples at will meets such places; the task then stays on its device.
            action = 0
        reward = -self._sight.add(self._task, where[int(action)], self._view)
        self._paid -= reward
        try:
            self._task, self._view = self._turns.send(where[int(action)])
        except StopIteration as stop:
            paid = bill(stop.value, self._graph, self._platform, self._sight.users, self.weights)
            reward -= paid.total - self._paid
            self._turns = None
            space = self.observation_space.shape
            return np.zeros(space, np.float32), float(reward), True, False, {"bill": paid}
        return self._seen(), float(reward), False, False, self._info()

    def _seen(self) -> NDArray[np.float32]:
        assert self._sight is not None and self._view is not None
        seen = np.concatenate([part.ravel() for part in self._sight.see(self._task, self._view)])
        near: NDArray[np.float32] = np.clip(seen, -FAR, FAR).astype(np.float32)
        return near

    def _info(self) -> dict[str, Any]:
        assert self._sight is not None and self._view is not None
        where = self._sight.places(self._task)
        return {
            "agent": self._sight.agent[where[0]],
            "action_mask": np.array([self._view.runs(self._task, place) for place in where], np.int8),
        }
