"""A trial of one application on several tiers: forecast from the models at full speed, then measured.

What is known beforehand of each model is how it does on this machine without memory limit or link, over logs that the
trial does not ask, at full speed and under quotas that no tier has; of memory only the smallest model's is known. The
planner's own arithmetic of an answer sent as text (`legs.from_text`) does the rest, with `answered` for the quota.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.cost.engine import engine
from fleetcast.cost.memory import Memory, layout_memory, misfit
from fleetcast.runtime.measure.trial import TIERS, Cell, Tier, measure_cell
from fleetcast.runtime.measure.trial.application import Answer, Application, Worker, asked, warm
from fleetcast.runtime.measure.trial.confined import GROUPS, PERIOD, quota, sweep
from fleetcast.runtime.measure.trial.contexts import Log
from fleetcast.runtime.measure.trial.worker import BLOCKS
from fleetcast.scenario.fleet import catalog
from fleetcast.scenario.fleet.links import Link, transfer_time
from fleetcast.scenario.workload.architectures import from_config
from fleetcast.scenario.workload.models import Layout, Model
from fleetcast.scenario.workload.precision import Precision
from fleetcast.search.tiers.family import Part
from fleetcast.search.tiers.legs import TEXT, from_text
from fleetcast.search.tiers.parts import Use
from fleetcast.search.tiers.quota import Pauses, answered, lost_of

BLOCK: Final = 16
"""Tokens of a block of the engine's cache."""
REFERENCES: Final = ((0.04, 0.025), (0.1, PERIOD), (0.3, PERIOD))
"""Shares of a core, and periods in s, under which pauses are calibrated: no tier's. Their slices are 1 to 6 ms, as
the tiers' or on both sides of them; Linux gives none shorter than 1 ms."""
HELD: Final = 8
"""Logs asked under each."""
LAPS: Final = 10
"""How often the calibrating logs are asked in the forecast, so that it does not depend on where periods begin."""
_ALONE: Final = Layout(tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, attention_dp=1)
_FP32: Final = Precision(weights="fp32", rest="fp32", activations="fp32")


@dataclass(frozen=True)
class Known:
    """A model as it ran on this machine at full speed.

    Attributes:
        name: of the model.
        folder: it lies in.
        model: its architecture.
        seconds: of an answer, median.
        cpu: s that its process computed for one, median.
        idle: s of an answer in which it did not, least: what the way there and back takes on an idle machine.
        works: s of each answer in which its process computed.
        pauses: what a pause costs, caches being cold after it.
        sent: B, median.
        read: prompt tokens, median.
        mapped: B that its process mapped beyond the runtime.
    """

    name: str
    folder: Path
    model: Model
    seconds: float
    cpu: float
    idle: float
    works: tuple[float, ...]
    pauses: Pauses
    sent: float
    read: float
    mapped: float


@dataclass(frozen=True)
class Forecast:
    """What is expected of one model on one tier.

    Attributes:
        tier: its name.
        model: its name.
        seconds: of an answer, median; NaN where the model does not fit.
        mapped: B beyond the runtime.
        why: why it does not fit, "" where it does.
    """

    tier: str
    model: str
    seconds: float
    mapped: float
    why: str

    @property
    def fits(self) -> bool:
        """Whether the model is expected to run."""
        return not self.why


@dataclass(frozen=True)
class Trial:
    """All of it, cells by (tier, model).

    Attributes:
        tiers: in order, device first.
        known: of the models, smallest first.
        forecasts: made before any cell was measured.
        cells: as measured.
        logs: that were asked.
    """

    tiers: tuple[Tier, ...]
    known: tuple[Known, ...]
    forecasts: Mapping[tuple[str, str], Forecast]
    cells: Mapping[tuple[str, str], Cell]
    logs: tuple[Log, ...]

    def compared(self) -> Iterator[tuple[Forecast, Cell, Known]]:
        """Yields the cells that were forecast to fit and did, with what was known of the model."""
        known = {k.name: k for k in self.known}
        for key, cell in self.cells.items():
            if cell.fits and self.forecasts[key].fits:
                yield self.forecasts[key], cell, known[cell.model]

    def errors(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Returns relative errors of the medians, signed, per compared cell: the forecast's, then full speed's."""
        rows = [(float(np.median(c.seconds)), f.seconds, k.seconds) for f, c, k in self.compared()]
        truth, said, plain = np.array(rows).reshape(-1, 3).T
        return said / truth - 1, plain / truth - 1

    def memory_errors(self) -> np.ndarray[Any, Any]:
        """Returns relative errors of the bytes mapped per compared cell, signed, the calibrating model left out."""
        rows = [
            f.mapped / (c.held or {})["mapped"] - 1 for f, c, k in self.compared() if k.name != self.known[0].name
        ]  # fmt: skip
        return np.array(rows)

    def fits_told(self) -> int:
        """Returns in how many cells the forecast was right about whether the model fits."""
        return sum(cell.fits == self.forecasts[key].fits for key, cell in self.cells.items())

    def in_order(self) -> dict[str, bool]:
        """Returns by model whether its medians fall from each tier that holds it to the next."""
        found = {}
        for k in self.known:
            cells = [self.cells[t.name, k.name] for t in self.tiers]
            medians = [float(np.median(c.seconds)) for c in cells if c.fits]
            if len(medians) > 1:
                found[k.name] = all(a > b for a, b in pairwise(medians))
        return found

    def usual(self) -> float:
        """Returns the share of right contexts of always telling the most common one."""
        names = [log.context for log in self.logs]
        return max(names.count(name) for name in names) / len(names)

    def table(self) -> dict[str, Any]:
        """Returns it as a table: a row a cell."""
        rows = []
        for key, cell in self.cells.items():
            f = self.forecasts[key]
            row: dict[str, Any] = {"tier": cell.tier, "model": cell.model, "fits": cell.fits, "forecast_fits": f.fits}
            if cell.fits:
                low, high = np.quantile(cell.seconds, (0.5, 0.9))
                row |= {
                    "mean": float(cell.seconds.mean()), "p50": float(low), "p90": float(high),
                    "forecast": f.seconds if f.fits else None, "quality": cell.quality, "cpu_held_by": cell.held_by,
                    "memory": cell.held or {},
                }  # fmt: skip
            rows.append(row | {"forecast_mapped": f.mapped})
        return {
            "logs": len(self.logs), "synthetic": True, "most_common": self.usual(), "cells": rows,
            "models": [
                {"name": k.name, "parameters": k.model.params(), "seconds": k.seconds, "cpu": k.cpu} for k in self.known
            ],
            "tiers": [
                {"name": t.name, "share": t.share, "room": t.room, "links": list(t.links)} for t in self.tiers
            ],
        }  # fmt: skip


def calibrate(
    name: str, folder: Path, logs: Sequence[Log], groups: Path | None = GROUPS,
    quotas: Sequence[tuple[float, float]] = REFERENCES,
) -> Known:  # fmt: skip
    """Returns how a model does on this machine at full speed, and what pauses cost it under quotas of no tier.

    Neither memory limit nor link is met.
    """
    with Worker(folder) as worker, Application(worker, worker.port) as application:
        warm(application)
        answers = asked(application, logs)
        mapped = worker.held()["mapped"]
        work, lost = sum(answer.cpu for answer in answers[:HELD]), []
        for share, period in quotas:
            with quota(worker.pid, share, period=period, groups=groups):
                held = sum(application.ask(log).cpu for log in logs[:HELD])
            lost.append(lost_of(work, held, share, period))

    def median(of: Callable[[Answer], float]) -> float:
        return float(np.median([of(answer) for answer in answers]))

    table = msgspec.json.decode((folder / "config.json").read_bytes())
    return Known(
        name=name, folder=folder, model=from_config(table, str(folder)), seconds=median(lambda a: a.seconds),
        cpu=median(lambda a: a.cpu), idle=max(0.0, min(a.seconds - a.cpu for a in answers)),
        works=tuple(answer.cpu for answer in answers),
        pauses=Pauses(tuple(share * period for share, period in quotas), tuple(np.maximum.accumulate(lost).tolist())),
        sent=median(lambda a: a.size[0]), read=median(lambda a: a.tokens[0]), mapped=mapped,
    )  # fmt: skip


class _Tried:
    """The book of one model on one tier beside the phone, from which `legs.from_text` costs an answer."""

    def __init__(self, known: Known, tier: Tier, memory: Memory) -> None:
        self.known, self.tier, self.memory = known, tier, memory
        self.prompt = known.sent / TEXT  # what crosses the link is the request, not the log alone
        self.output, self.hidden = 1.0, 0.0

    def use(self, tier: int, part: Part) -> Use:
        """Returns what the model takes; raises Infeasible where it does not fit."""
        wrong = misfit(self.memory, BLOCKS * BLOCK, f"{self.known.name} on {self.tier.name}")
        if wrong is not None:
            raise wrong
        # requests follow each other, so that a period may have been used by the one before
        way = transfer_time(self.tier.path, self.known.sent, up=True) + transfer_time(self.tier.path, TEXT)
        gap, known = self.known.idle + way, self.known
        took = answered(known.works * LAPS, gap, self.tier.share, known.pauses, PERIOD)
        return Use(known.idle + float(np.median(took)), 0.0)

    def links(self, a: int, b: int) -> Sequence[Link]:
        """Returns the tier's links, between it and the phone."""
        return self.tier.path if a != b else ()

    def lacks(self, tier: int, parts: frozenset[Part]) -> Infeasible | None:
        """Returns None: `use` says so."""
        return None

    def cache(self, tier: int, split: int) -> float:
        """Returns 0: nothing is split."""
        return 0.0


def forecast(known: Known, tier: Tier, reserve: float, place: int) -> Forecast:
    """Returns what to expect of a model on a tier.

    Args:
        known: the model at full speed.
        tier: where it is to run.
        reserve: B that the runtime maps beside weights, activations and cache.
        place: of the tier, 0 = the phone itself.
    """
    memory = room_for(known.model, tier.room, reserve)
    book = _Tried(known, tier, memory)
    needs = needed(memory)
    leg = from_text(book, place, known.model.layers)
    if leg is None:
        why = f"needs {needs / 1e6:.0f} MB, the tier has {tier.room / 1e6:.0f} MB"
        return Forecast(tier.name, known.name, math.nan, needs, why)
    return Forecast(tier.name, known.name, float(leg.takes[0]), needs, "")


def room_for(model: Model, room: float, reserve: float) -> Memory:
    """Returns where the memory of a tier goes: one request of the longest context at a time."""
    device = msgspec.structs.replace(next(d for d in catalog.devices().values() if d.kind == "cpu"), memory=room)
    own = msgspec.structs.replace(engine("ideal"), memory_fraction=1.0, reserve=reserve, block=BLOCK)
    return layout_memory(model, device, _ALONE, _FP32, "fp32", own, 1, BLOCKS * BLOCK)


def needed(memory: Memory) -> float:
    """Returns B that weights, activations, the runtime and the trial's cache take."""
    return memory.weights + memory.activations + memory.reserve + memory.kv_token * BLOCKS * BLOCK


def run(
    models: Mapping[str, Path],
    logs: Sequence[Log],
    before: Sequence[Log],
    *,
    tiers: Sequence[Tier] = TIERS,
    groups: Path | None = GROUPS,
    told: Callable[[Forecast], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trial:
    """Returns the trial: models are calibrated, all cells forecast, then all measured.

    Args:
        models: folders by name, smallest first.
        logs: to ask in each cell.
        before: others, to calibrate with.
        tiers: device first.
        groups: where control groups are mounted; None = hold the CPU by signals.
        told: is told each forecast, before anything is measured on a tier.
        progress: is told (steps done, steps).

    Raises:
        SpecError: no model, no log or no tier.
        WorkerError: a model's process failed, and not for want of memory.
    """
    for what, given in (("models", models), ("logs", logs), ("before", before), ("tiers", tiers)):
        if not given:
            raise SpecError(what, "are missing", limit="one at least")
    if groups is not None:
        sweep(groups)
    done, total = 0, len(models) * (1 + len(tiers))

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    known = []
    for name, folder in models.items():
        known.append(calibrate(name, folder, before, groups=groups))
        step()
    least = known[0]
    reserve = max(0.0, least.mapped - needed(room_for(least.model, 1e12, 0.0)))
    forecasts = {
        (tier.name, k.name): forecast(k, tier, reserve, place) for k in known for place, tier in enumerate(tiers)
    }
    for expected in forecasts.values():
        if told is not None:
            told(expected)
    cells = {}
    for k in known:
        for tier in tiers:
            cells[tier.name, k.name] = measure_cell(k.folder, k.name, tier, logs, groups=groups)
            step()
    return Trial(tuple(tiers), tuple(known), forecasts, cells, tuple(logs))
