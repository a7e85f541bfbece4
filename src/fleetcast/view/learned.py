"""`fleetcast learn`: a policy is trained in its scenario's world, and its weights become a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.files import write_atomic
from fleetcast.base.rng import rng

if TYPE_CHECKING:
    from fleetcast.kernels.slots import Slots
    from fleetcast.scenario.load import GraphScenario, ServerJobsScenario
    from fleetcast.scenario.workload.server_jobs import ServerJobs

JUDGED = 4
"""Lists that are held out to judge what was learnt, the first numbers."""


@dataclass(frozen=True)
class Learned:
    """What learning made.

    Attributes:
        path: of the weights.
        sha256: of that file.
        policy: what was trained.
        teacher: whose decisions were shown first, "" = none.
        seconds: CPU time.
        curve: of each round or episode, exploring included: mean seconds to completion, or the bill; nan = none ended.
        judged: mean seconds to completion on lists held out, by who deals.
    """

    path: Path
    sha256: str
    policy: str
    teacher: str
    seconds: float
    curve: tuple[float, ...]
    judged: dict[str, float]

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        curve = [None if value != value else value for value in self.curve]
        return {
            "weights": str(self.path), "sha256": self.sha256, "policy": self.policy, "teacher": self.teacher,
            "seconds": self.seconds, "judged": self.judged, "curve": curve,
        }  # fmt: skip


def share(
    scenario: ServerJobsScenario, out: Path, *, checkpoint: Path | None, settings: dict[str, Any],
    progress: Callable[[int, int], None] | None,
) -> Learned:  # fmt: skip
    """Trains DL2 on lists like the scenario's.

    A generator's lists are drawn anew. Of a list in a file, lists are made that have its slots of arrival and jobs
    drawn out of it with replacement; it is judged on itself and on such lists that are held out.

    Raises:
        SpecError: the plan's share is not "dl2", or an unknown teacher.
        MissingExtra: torch is not installed.
    """
    from fleetcast.learning.rl.dl2 import Learner, Settings, train
    from fleetcast.policy.share import Dl2
    from fleetcast.sim.cluster.slot_board import deal
    from fleetcast.sim.cluster.slots import RULES, completion, play, play_scored
    from fleetcast.sim.cluster.slots import begin as begun
    from fleetcast.sim.cluster.slots_outcome import setting

    state = setting(scenario)
    if not any(isinstance(state.share(choice), Dl2) for choice in scenario.plan.shares):
        raise SpecError("plan.share", "is nothing that learns", value=scenario.plan.share, limit="dl2",
                        hint='Write share = { kind = "dl2" }')  # fmt: skip
    teacher, seed = str(settings.pop("teacher", "drf")), scenario.seed
    shown: Any = teacher
    if teacher not in RULES:
        policy = state.share(teacher)

        def shown(run: Slots, jobs: ServerJobs) -> None:
            deal(run, jobs, state.nodes, policy)

    def lists(number: int) -> ServerJobs:
        if not isinstance(scenario.workload.servers, str):
            return scenario.jobs(number)
        if number == 0:
            return state.jobs
        rows = rng(number, "learning", "resampled").integers(0, len(state.jobs), len(state.jobs))
        jobs = state.jobs
        return replace(jobs, kind=jobs.kind[rows], epochs=jobs.epochs[rows], real=jobs.real[rows])

    learner = Learner(lists, state.nodes, shown, Settings(**settings, errors=state.errors), seed)
    made = train(learner, checkpoint=checkpoint, progress=progress)
    held = BytesIO()
    np.savez(held, **made.weights, models=np.array(state.jobs.kinds.models))
    path = write_atomic(out, held.getvalue())
    judged = {}
    for name, weights in (("teacher", None), ("warm-up", made.warm), ("learnt", made.weights)):
        found = [(lists(n), n) for n in range(JUDGED)]
        runs = [
            begun(jobs, state.nodes, errors=state.errors, seed=n, window=learner.settings.window) for jobs, n in found
        ]
        if weights is None and teacher not in RULES:
            for run, (jobs, _) in zip(runs, found, strict=True):
                while not run.over():
                    run.begin()
                    shown(run, jobs)
                    run.finish()
        elif weights is None:
            for run in runs:
                play(run, teacher)
        else:
            from fleetcast.policy.share.dl2 import scores

            play_scored(runs, partial(scores, weights))
        jct = [completion(run, jobs).mean() * jobs.seconds for run, (jobs, _) in zip(runs, found, strict=True)]
        judged[name] = float(np.mean(jct))
    curve = tuple(value * state.jobs.seconds for value in made.curve)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Learned(path, digest, "dl2", teacher, made.seconds, curve, judged)


def order(
    scenario: GraphScenario, out: Path, *, settings: dict[str, Any], progress: Callable[[int, int], None] | None
) -> Learned:  # fmt: skip
    """Trains Com-DDPG on synthetic applications of as many users and servers as the scenario's fleet has.

    Raises:
        SpecError: the plan's order is not "com_ddpg".
        MissingExtra: torch is not installed.
    """
    from fleetcast.learning.rl.apps import Apps
    from fleetcast.learning.rl.com_ddpg import Settings, train

    said = scenario.plan.order
    kinds = [said] if isinstance(said, str | dict) else list(said or ())
    if not any((kind if isinstance(kind, str) else kind.get("kind")) == "com_ddpg" for kind in kinds):
        raise SpecError("plan.order", "is nothing that learns", value=said, limit="com_ddpg",
                        hint='Write order = "com_ddpg"')  # fmt: skip
    made = train(
        Apps(), Settings(episodes=int(settings.get("rounds", 800)), batch=128), seed=scenario.seed, progress=progress
    )
    made.save(out)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    return Learned(out, digest, "com_ddpg", "", made.seconds, tuple(made.curve), {})
