"""What scenarios of every kind have in common, and the parts of a file that they are read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import Spec, to_builtins
from fleetcast.scenario.fleet.tree import Fleet
from fleetcast.scenario.objective import Objective


class Scenario(Spec, kw_only=True):
    """One question: this fleet, this workload, this goal. The workload's kind says which class it is.

    Attributes:
        fleet: devices, links, prices, grid.
        objective: what is minimised or maximised.
        name: shown in reports; the file's stem by default.
        seed: of every random stream.
        folder: where relative paths start.

    ``kind`` is the workload's, ``about`` says in a word or two what it is, ``parts`` are the tables of its file.
    """

    fleet: Fleet
    objective: Objective = Objective()
    name: str = "scenario"
    seed: int = 0
    folder: str = "."

    kind: ClassVar[str] = ""
    about: ClassVar[str] = ""
    parts: ClassVar[tuple[str, ...]] = ()

    def table(self) -> dict[str, Any]:
        """Returns the table that a file would hold."""
        table: dict[str, Any] = {"name": self.name}
        if self.seed:
            table["seed"] = self.seed
        for part in self.parts:
            value = getattr(self, part)
            if rows := value.table() if hasattr(value, "table") else to_builtins(value):
                table[part] = rows
        table["workload"] = {"kind": self.kind} | table["workload"]
        return table


@dataclass(frozen=True)
class Parts:
    """What a file says: the tables that differ from kind to kind as they stand there, the rest read.

    Attributes:
        workload: under ``[workload]``.
        plan: under ``[plan]``.
        slo: under ``[slo]``.
        shared: keywords that every kind of `Scenario` takes: fleet, objective, name, seed, folder.
    """

    workload: dict[str, Any]
    plan: dict[str, Any]
    slo: dict[str, Any]
    shared: dict[str, Any]

    @property
    def objective(self) -> Objective:
        """What is minimised or maximised."""
        found: Objective = self.shared["objective"]
        return found

    def refuse_slo(self, what: str, instead: str) -> None:
        """Refuses limits on latency where nothing is asked.

        Args:
            what: has no requests: "training", "a graph", ...
            instead: a line that says what is wanted.

        Raises:
            SpecError: there is an ``[slo]``.
        """
        if self.slo:
            key = next(iter(self.slo))
            raise SpecError(
                f"slo.{key}", f"limits the latency of requests, and {what} has none", value=self.slo[key],
                limit="an objective", hint=f"Write {instead}",
            )  # fmt: skip
