"""Steps a second of jobs with a fixed number of devices, as Gavel's authors measured (Narayanan et al., OSDI 2020).

Their tables (JSON, MIT licence) list by kind of device, model with batch size and number of devices what a job does
alone and beside another; what it does alone is read. Kinds "x_unconsolidated" hold for devices on more nodes than
need be. A condensed copy (``gavel.csv``) ships with Fleetcast. A number of devices that was not measured runs as the
next smaller one per device.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from fleetcast.base.errors import SpecError
from fleetcast.cost.jobs import Lying, called

APART = "_unconsolidated"


class Throughputs:
    """Steps a second by model, kind and number of devices.

    Args:
        kinds: names of the fleet's kinds, in its order.
        sizes: devices of a node, by kind; () = one each, so that nothing lies apart.
        path: the authors' JSON (.gz); None = the table that ships.
    """

    def __init__(self, kinds: Sequence[str], sizes: Sequence[int] = (), path: str | Path | None = None) -> None:
        table = shipped() if path is None else read(path)
        self.kinds = tuple(kinds)
        self.sizes = tuple(sizes) or (1,) * len(self.kinds)
        self.source = str(path or "Gavel (OSDI 2020), simulation_throughputs.json")
        names = [called(kind, table) for kind in self.kinds]
        for kind, name in zip(self.kinds, names, strict=True):
            if name is None:
                known = sorted(k for k in table if not k.endswith(APART))
                raise SpecError("speeds", "no speeds of this kind of device", value=kind, limit=", ".join(known))
        self.models = tuple(sorted({model for rows in table.values() for model, _ in rows}))
        self._near = [table[name] for name in names if name]
        self._apart = [table.get(name + APART, {}) for name in names if name]

    def rate(self, model: int, lying: tuple[Lying, ...], phase: int = 0) -> float:
        """Returns steps a second; 0 on several kinds at once."""
        if len(lying) != 1:
            return 0.0
        kind, devices, nodes = lying[0]
        name = self.models[model]
        table = self._near[kind]
        if nodes > -(-devices // self.sizes[kind]):
            table = self._apart[kind] or table
        known = table.get((name, devices))
        if known is None:
            below = max((n for m, n in table if m == name and n < devices), default=0)
            known = table[name, below] * devices / below if below else 0.0
        return known

    def phases(self, model: int) -> tuple[float, ...]:
        """Returns one phase: every step is worth the same."""
        return (0.0,)

    def whole(self, model: int) -> float:
        """Returns 0: how many steps a job has is its trace's affair."""
        return 0.0


Rows = Mapping[str, Mapping[tuple[str, int], float]]


def read(path: str | Path) -> Rows:
    """Returns steps a second alone by kind and (model, devices) of one of the authors' files.

    Raises:
        SpecError: not such a file.
    """
    file = Path(path)
    try:
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        raw = json.loads(text)
        return {
            kind: {_key(name): float(row["null"]) for name, row in rows.items()} for kind, rows in raw.items()
        }  # fmt: skip
    except FileNotFoundError:
        raise SpecError(
            "speeds", "no such file", value=str(path), hint="Name a JSON of throughputs, or none for the one that ships"
        ) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SyntaxError) as problem:
        hint = 'expects {kind: {"(\'model\', devices)": {"null": steps/s}}}'
        raise SpecError(
            "speeds", f"not a table of Gavel's throughputs: {problem}", value=str(path), hint=hint
        ) from None


def _key(name: str) -> tuple[str, int]:
    model, devices = ast.literal_eval(name)
    return str(model), int(devices)


def shipped() -> Rows:
    """Returns the table that ships with Fleetcast."""
    table: dict[str, dict[tuple[str, int], float]] = {}
    lines = resources.files("fleetcast.cost.jobs").joinpath("gavel.csv").read_text("utf-8").splitlines()
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        for kind, value in row.items():
            if kind not in ("model", "devices") and value:
                table.setdefault(kind, {})[row["model"], int(row["devices"])] = float(value)
    return table
