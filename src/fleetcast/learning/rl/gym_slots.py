"""The world of jobs with parameter servers as a Gymnasium environment: one unit placed, or a slot ended, a step.

    env = SlotWorld()
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample(info["action_mask"]))

The observation is what DL2's network sees (`policy.share.dl2`), the action one of its 3 J + 1. The reward comes with
the action that ends a slot: what the slot earned, the sum over jobs of epochs trained by epochs in all. Over an episode
they sum to the number of jobs.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra
from fleetcast.kernels import slots as kernel
from fleetcast.policy.share.dl2 import FEATURES, scaled
from fleetcast.scenario.workload.server_jobs import ServerJobs, synthetic
from fleetcast.sim.cluster.slots import NONE, Errors, begin, completion, nodes_of

try:
    import gymnasium
except ImportError:
    raise MissingExtra("gymnasium", "learn") from None

FAR = 1000.0
"""Beyond which no number is seen."""
Step = tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]


class SlotWorld(gymnasium.Env):  # type: ignore[misc]
    """Lists of jobs on nodes; see the module.

    Args:
        nodes: i4[N, 2], slots of cpu and gpu; None = DL2's.
        window: jobs that are seen.
        errors: what goes otherwise than estimated.
        most: jobs of a synthetic list.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, nodes: Any = None, window: int = 20, errors: Errors = NONE, most: int = 60) -> None:
        self.nodes = nodes_of() if nodes is None else nodes
        self.window, self.errors, self.most = window, errors, most
        self.action_space = gymnasium.spaces.Discrete(3 * window + 1)
        self.observation_space = gymnasium.spaces.Box(-FAR, FAR, (FEATURES * window,), np.float32)
        self._run: kernel.Slots | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins a list; ``options={"episode": n}`` names which, ``{"jobs": ServerJobs}`` gives one."""
        super().reset(seed=seed)
        said = options or {}
        number = int(said["episode"]) if "episode" in said else int(self.np_random.integers(2**31))
        self._jobs: ServerJobs = said.get("jobs") or synthetic(number, jobs=self.most)
        self._run = begin(self._jobs, self.nodes, errors=self.errors, seed=number, window=self.window)
        self._run.open()
        self._state = np.zeros((1, FEATURES * self.window), np.float32)
        self._mask = np.zeros((1, 3 * self.window + 1), np.uint8)
        self._run.observe(self._state[0], self._mask[0])
        return self._seen()

    def step(self, action: int) -> Step:
        """Does an action; one that is masked ends the slot.

        Raises:
            ValueError: before `reset`.
        """
        if self._run is None:
            raise ValueError("step() comes after reset(), and not after the end of an episode")
        run, before = self._run, self._earned()
        if not self._mask[0, int(action)]:
            action = 3 * self.window
        came, reward = np.zeros(1, np.int32), np.zeros(1)
        kernel.advance([run], np.array([action], np.int32), self._state, self._mask, reward, came)
        earned = self._earned() - before if came[0] != kernel.PLACED else 0.0
        if came[0] == kernel.OVER:
            self._run = None
            space = np.zeros(FEATURES * self.window, np.float32)
            return space, earned, True, False, {"completion": completion(run, self._jobs)}
        seen, info = self._seen()
        return seen, earned, False, False, info

    def _earned(self) -> float:
        assert self._run is not None
        return float((self._run.columns()[0] / self._jobs.epochs).sum())

    def _seen(self) -> tuple[NDArray[np.float32], dict[str, Any]]:
        near: NDArray[np.float32] = np.clip(scaled(self._state[0]), -FAR, FAR)
        return near, {"action_mask": self._mask[0].astype(np.int8)}
