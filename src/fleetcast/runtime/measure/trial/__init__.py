"""The same application tried on three tiers: a phone's sensor log becomes text, a model tells from it what happens.

`contexts` draws synthetic logs, `small` trains three sizes of the model on them, `worker` is the process that serves
one, `confined` holds it to a tier's CPU and memory, `link` is the tier's network, `application` asks. Here the tiers
are, and a cell of the trial is measured: one model on one tier. `search.tiers.trial` forecasts the cells beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fleetcast.base.errors import Infeasible
from fleetcast.runtime.measure.trial.application import Answer, Application, Worker, asked, warm
from fleetcast.runtime.measure.trial.confined import GROUPS, quota
from fleetcast.runtime.measure.trial.contexts import Log
from fleetcast.runtime.measure.trial.link import shaped
from fleetcast.scenario.fleet.catalog import link as known_link
from fleetcast.scenario.fleet.links import Link


@dataclass(frozen=True)
class Tier:
    """A place to run the model, emulated on this machine.

    Attributes:
        name: of the tier.
        share: of one core; 1 = a core of its own.
        room: B that a model may take beside the runtime.
        links: names of the catalogue, from the phone to the tier.
    """

    name: str
    share: float
    room: float
    links: tuple[str, ...] = ()

    @property
    def path(self) -> tuple[Link, ...]:
        """The links."""
        return tuple(known_link(name) for name in self.links)


TIERS: Final = (
    Tier("device", 0.05, 82e6), Tier("edge", 0.2, 512e6, ("wifi-6",)), Tier("cloud", 1.0, 4e9, ("5g",)),
)  # fmt: skip
"""A phone, a box at home behind Wi-Fi, a core of a server behind 5G. The phone's room was chosen so that the largest
model does not fit, the runtime taking 45 to 60 MB of it: threads, buffers, compiled products. The shares are about as
the memory bandwidths of phones, of boxes such as a Jetson, and of a data centre's GPU: 1 to 4 to 20."""
HERE: Final = Tier("here", 1.0, 1e12)
"""This machine as it is."""


@dataclass(frozen=True)
class Cell:
    """One model on one tier, as measured.

    Attributes:
        tier: its name.
        model: its name.
        answers: to the logs; none where the model did not fit.
        held: B, as `Worker.held`; empty where it did not fit.
        held_by: how the CPU was held: "cgroup2", "cgroup1", "signals", "none".
        refusal: why there are no answers.
    """

    tier: str
    model: str
    answers: tuple[Answer, ...] = ()
    held: dict[str, float] | None = None
    held_by: str = ""
    refusal: str = ""

    @property
    def fits(self) -> bool:
        """Whether the model ran."""
        return not self.refusal

    @property
    def seconds(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """End to end, s per log."""
        return np.array([answer.seconds for answer in self.answers])

    @property
    def quality(self) -> float:
        """Share of right contexts."""
        return float(np.mean([answer.right for answer in self.answers]))


def measure_cell(folder: Path, model: str, tier: Tier, logs: Sequence[Log], *, groups: Path | None = GROUPS) -> Cell:
    """Returns what the application met with one model on one tier.

    The memory is limited before the model is read, the CPU once it is warm: to start is no part of it.
    """
    try:
        with (
            Worker(folder, tier.room) as worker, shaped(worker.port, tier.path) as port,
            Application(worker, port) as application,
        ):  # fmt: skip
            warm(application)
            with quota(worker.pid, tier.share, groups=groups) as how:
                answers = asked(application, logs)
            return Cell(tier.name, model, answers, worker.held(), how)
    except Infeasible as error:
        return Cell(tier.name, model, refusal=str(error))
