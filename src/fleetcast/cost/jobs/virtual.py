"""Fixed workers on any devices: the intra-job schedule of EasyScale (Li et al., SC 2023).

A job always has W *virtual workers*, each with its own share of every batch, so that what it learns does not depend
on what it runs on. N_i devices of kind i that do C_i workers' batches in the time of one unit host A_i workers each,
one after the other:

    overload  f = max A_i / C_i                     the time of a step, over the kinds that are used
    waste     = (sum N_i (C_i - A_i / f) + (sum N_i A_i - W) / f) / sum N_i C_i
    speed     = (1 - waste) sum N_i C_i = W / f     the waste cancels

so the best A is that of least f with sum N_i A_i >= W: the least f with sum N_i floor(f C_i) >= W. The paper tries
floor and ceiling of multiples of C; `assign` finds the same least f by trying only the values at which a floor rises.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.cost.jobs import Lying, called

ROUNDING = 1e-9  # f C may miss an integer by rounding


def assign(capability: Sequence[float], devices: Sequence[int], workers: int) -> tuple[tuple[int, ...], float]:
    """Returns workers on each device by kind (0 where there are no devices) and the overload f.

    Raises:
        ValueError: no devices.
    """
    used = [(c, n) for c, n in zip(capability, devices, strict=True) if n]
    if not used:
        raise ValueError("no devices")
    # As much work as if workers could be split is the bound from which candidates a / C are tried upwards.
    bound = workers / sum(c * n for c, n in used)
    candidates = sorted({a / c for c, _ in used for a in range(max(1, int(bound * c)), int(bound * c) + workers + 2)})
    for f in candidates:
        if f >= bound - ROUNDING and sum(n * int(f * c + ROUNDING) for c, n in used) >= workers:
            held = tuple(int(f * c + ROUNDING) if n else 0 for c, n in zip(capability, devices, strict=True))
            return held, f
    raise AssertionError("one device holds all workers")


def waste(capability: Sequence[float], devices: Sequence[int], held: Sequence[int], workers: int) -> float:
    """Returns what share of the devices' work is lost to uneven workers: the paper's formula."""
    kinds = [i for i, n in enumerate(devices) if n]
    f = max(held[i] / capability[i] for i in kinds)
    whole = sum(devices[i] * capability[i] for i in kinds)
    idle = sum(devices[i] * (capability[i] - held[i] / f) for i in kinds)
    surplus = (sum(devices[i] * held[i] for i in kinds) - workers) / f
    return (idle + surplus) / whole


class Virtual:
    """Global steps a second of jobs with fixed workers.

    Args:
        kinds: names of the fleet's kinds.
        models: "application/batch/workers/where", where = "any" (kinds may be mixed and exchanged) or the one kind
            that is allowed.
        table: seconds of a mini-batch by application and kind; None = `easyscale.toml`.
    """

    source = "EasyScale (SC 2023), step times from public measurements (cost/jobs/easyscale.toml)"

    def __init__(self, kinds: Sequence[str], models: Sequence[str], table: Mapping[str, Any] | None = None) -> None:
        self.kinds = tuple(kinds)
        self.models = tuple(models)
        self._table = shipped() if table is None else table
        self._jobs = [self._read(name) for name in self.models]
        self._rates: dict[tuple[int, tuple[Lying, ...]], float] = {}

    def _read(self, name: str) -> tuple[tuple[float, ...], int, str]:
        parts = name.split("/")
        if len(parts) != 5 or not all(p.isdigit() and int(p) > 0 for p in (parts[1], parts[2], parts[4])):
            limit = "application/batch/workers/where/epochs"
            raise SpecError("speeds", "not a model of fixed workers", value=name, limit=limit)
        application, batch, workers, where = parts[0], int(parts[1]), int(parts[2]), parts[3]
        if application not in self._table:
            raise SpecError("speeds", "no step times of this model", value=application, limit=", ".join(self._table))
        row = self._table[application]
        kinds = [called(kind, row) for kind in self.kinds]
        if None in kinds:
            known = ", ".join(k for k, v in row.items() if isinstance(v, Mapping))
            kind = self.kinds[kinds.index(None)]
            raise SpecError("speeds", f"no step times of {application} on this kind of device", value=kind, limit=known)
        slower = float(self._table.get("slower", 1.0))
        seconds = tuple(slower * (row[kind]["fixed"] + row[kind]["each"] * batch) for kind in kinds)
        return seconds, workers, where

    def rate(self, model: int, lying: tuple[Lying, ...], phase: int = 0) -> float:
        """Returns global steps a second; devices of kinds that the job must not use give 0."""
        key = (model, lying)
        known = self._rates.get(key)
        if known is None:
            known = self._rates[key] = self._rate(model, lying)
        return known

    def _rate(self, model: int, lying: tuple[Lying, ...]) -> float:
        seconds, workers, where = self._jobs[model]
        devices = [0] * len(self.kinds)
        for part in lying:
            devices[part.kind] += part.devices
        elsewhere = any(n and called(k, (where,)) is None for k, n in zip(self.kinds, devices, strict=True))
        if not any(devices) or (where != "any" and elsewhere):
            return 0.0
        # A unit of time is one in which the slowest kind does one mini-batch.
        slowest = max(seconds)
        _, f = assign([slowest / t for t in seconds], devices, workers)
        return 1.0 / (f * slowest)

    def phases(self, model: int) -> tuple[float, ...]:
        """Returns one phase: the batch never changes."""
        return (0.0,)

    def whole(self, model: int) -> float:
        """Returns global steps of all epochs."""
        application, batch, workers, _, epochs = self.models[model].split("/")
        return int(epochs) * float(self._table[application]["samples"]) / (int(batch) * int(workers))


def shipped() -> dict[str, Any]:
    """Returns the step times that ship with Fleetcast."""
    return tomllib.loads(resources.files("fleetcast.cost.jobs").joinpath("easyscale.toml").read_text("utf-8"))
