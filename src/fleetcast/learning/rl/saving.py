"""Training of DL2 in a file: weights, what Adam knows, runs in mid-slot, the random stream. No pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.files import write_atomic

if TYPE_CHECKING:
    from fleetcast.learning.rl.dl2 import Learner


@dataclass
class Saved:
    """What a file holds.

    Attributes:
        about: settings, seed and where training stands, as JSON.
        arrays: by name.
    """

    about: dict[str, Any]
    arrays: dict[str, Any]

    @classmethod
    def of(cls, learner: Learner) -> Saved:
        """Returns a learner after its warm-up, between two rounds."""
        about = {
            "settings": _plain(learner), "seed": learner.seed, "round": learner.round, "next": learner.next,
            "seconds": learner.seconds, "draw": learner.draw.bit_generator.state,
            "runs": [(number, run.now()) for number, _, run in learner.running],
            "lists": _lists(learner),
        }  # fmt: skip
        arrays: dict[str, Any] = {"curve": np.array(learner.curve), "state": learner.state, "mask": learner.mask}
        for name in ("actor", "critic"):
            arrays |= {f"{name}.{k}": v.detach().numpy() for k, v in getattr(learner, name).items()}
            for i, held in getattr(learner, f"moves_{name}").state_dict()["state"].items():
                arrays |= {f"moves_{name}.{i}.{k}": np.asarray(v) for k, v in held.items()}
        arrays |= {f"warm.{k}": v for k, v in learner.warm.items()}
        arrays |= {f"memory.{k}": v for k, v in learner.memory.items()}
        for i, (_, _, run) in enumerate(learner.running):
            progress, end, _, _ = run.columns()
            arrays |= {f"run.{i}.progress": progress, f"run.{i}.end": end, f"run.{i}.units": run.decisions()}
        return cls(about, arrays)

    def write(self, path: Path) -> None:
        """Writes a file whole or not at all."""
        held = BytesIO()
        np.savez(held, about=np.array(json.dumps(self.about)), **self.arrays)
        write_atomic(path, held.getvalue())

    @classmethod
    def read(cls, path: Path) -> Saved:
        """Reads a file.

        Raises:
            SpecError: it is none of ours.
        """
        try:
            with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(str(arrays.pop("about")))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise SpecError(
                "--checkpoint",
                f"cannot be gone on from: {error}",
                value=str(path),
                hint="Name another file, or delete it",
            ) from None
        return cls(about, arrays)

    def into(self, learner: Learner) -> None:
        """Puts a fresh learner where this one stood.

        Raises:
            SpecError: it trains by other settings, another seed or on other lists.
        """
        import torch

        for what, mine in (("settings", _plain(learner)), ("seed", learner.seed), ("lists", _lists(learner))):
            if json.loads(json.dumps(mine)) != self.about[what]:
                raise SpecError(
                    "--checkpoint", f"was made with other {what}", value=str(self.about[what]), limit=str(mine),
                    hint="Name another file to begin anew",
                )  # fmt: skip
        learner.warm = self._of("warm")
        for name in ("actor", "critic"):
            setattr(learner, name, {k: torch.from_numpy(v.copy()).requires_grad_() for k, v in self._of(name).items()})
        learner.round, learner.next, learner.seconds = (self.about[k] for k in ("round", "next", "seconds"))
        learner.curve, learner.memory = self.arrays["curve"].tolist(), self._of("memory")
        for name in ("actor", "critic"):
            held = self._of(f"moves_{name}")
            weights = list(getattr(learner, name).values())
            adam = torch.optim.Adam(weights, getattr(learner.settings, f"{name}_rate"))
            table = adam.state_dict()
            for key, value in held.items():
                i, kind = key.split(".")
                table["state"].setdefault(int(i), {})[kind] = torch.from_numpy(np.array(value))
            adam.load_state_dict(table)
            setattr(learner, f"moves_{name}", adam)
        learner.running = []
        for at, (number, slot) in enumerate(self.about["runs"]):
            run = learner.begun(number)
            progress, end, units = (self.arrays[f"run.{at}.{k}"] for k in ("progress", "end", "units"))
            run.restore(slot, progress, end, units.tolist())
            learner.running.append((number, learner.lists(number), run))
        learner.rewards, learner.came = np.zeros(len(learner.running)), np.zeros(len(learner.running), np.int32)
        learner.state, learner.mask = self.arrays["state"].copy(), self.arrays["mask"].copy()
        for at, (_, _, run) in enumerate(learner.running):
            run.observe(learner.state[at], learner.mask[at])
        learner.draw.bit_generator.state = self.about["draw"]

    def _of(self, name: str) -> dict[str, Any]:
        return {k.removeprefix(f"{name}."): v for k, v in self.arrays.items() if k.startswith(f"{name}.")}


def _plain(learner: Learner) -> dict[str, Any]:
    return asdict(learner.settings)


def _lists(learner: Learner) -> str:
    from fleetcast.learning.rl.dl2 import TRAINING

    jobs = learner.lists(TRAINING)
    parts = (jobs.arrival, jobs.kind, jobs.epochs, jobs.kinds.speed, learner.nodes)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
