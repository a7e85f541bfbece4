"""The rules of the game: who has which memory, what moves cost, what is there at the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from fleetcast.base.errors import SpecError
from fleetcast.base.show import show
from fleetcast.cost.pebbling.dag import Dag

LOAD, SAVE, COMPUTE, DELETE = range(4)
KINDS = ("LOAD", "SAVE", "COMPUTE", "DELETE")
Move = tuple[int, int, int]
"""(kind, processor, node): LOAD and SAVE copy a value to and from fast memory, COMPUTE makes it, DELETE is free."""
Inputs = Literal["loaded", "computed"]
Timing = Literal["synchronous", "asynchronous"]


@dataclass(frozen=True)
class Game:
    """A graph and who plays on it.

    Attributes:
        dag: the graph; a schedule ends with all its sinks in slow memory.
        red: fast memory of each processor, in units of size.
        g: cost of moving one unit of size, by processor.
        inputs: "loaded": sources lie in slow memory at the start and are not computed (OneStopParallel's convention);
            "computed": they are computed like any other node, from nothing (the black pebble game's).
        timing: "synchronous": processors do the same kind of move together. A run of moves of one kind takes as long
            as its busiest processor (Multi-BSP; with unit weights the steps of the game). "asynchronous": each has a
            clock, a load waits until the value is in slow memory, and the last clock counts.
        latency: of each superstep (compute, save, load) where synchronous.
        again: whether a value may be computed more than once.
        works: what computing costs, [processor][node]; None = the graph's on each.
        unit: of cost; with "s", sizes are bytes.
        about: what is played, for people.
        players: names of the processors; empty = their numbers.
    """

    dag: Dag
    red: tuple[float, ...]
    g: tuple[float, ...]
    inputs: Inputs = "loaded"
    timing: Timing = "synchronous"
    latency: float = 0.0
    again: bool = True
    works: tuple[tuple[float, ...], ...] | None = None
    unit: str = ""
    about: str = ""
    players: tuple[str, ...] = ()

    def player(self, p: int) -> str:
        """Returns what a processor is called."""
        return self.players[p] if self.players else f"processor {p}"

    @property
    def measure(self) -> str:
        """Unit of sizes."""
        return "B" if self.unit == "s" else ""

    @property
    def processors(self) -> int:
        """How many play."""
        return len(self.red)

    def work(self, p: int) -> tuple[float, ...]:
        """Returns what computing each node costs on a processor."""
        return self.dag.work if self.works is None else self.works[p]

    @cached_property
    def alike(self) -> bool:
        """Whether all processors are the same."""
        same_work = self.works is None or len(set(self.works)) == 1
        return len(set(self.red)) == len(set(self.g)) == 1 and same_work

    @cached_property
    def given(self) -> frozenset[int]:
        """Nodes that lie in slow memory at the start."""
        return frozenset(self.dag.sources if self.inputs == "loaded" else ())

    @cached_property
    def needs(self) -> tuple[float, ...]:
        """Fast memory in which each node is computed: its own size and its parents'."""
        size = self.dag.size
        return tuple(size[v] + sum(size[u] for u in some) for v, some in enumerate(self.dag.parents))

    def demand(self) -> None:
        """Refuses a game that cannot be won.

        Raises:
            SpecError: no processor's memory holds some node and its parents; names the largest.
        """
        made = [v for v in range(len(self.dag)) if v not in self.given]
        worst = max(made, key=lambda v: self.needs[v], default=None)
        if worst is not None and self.needs[worst] > max(self.red):
            raise SpecError(
                "red", f"cannot hold {self.dag.name(worst)} beside its {len(self.dag.parents[worst])} inputs",
                value=show(max(self.red)), limit=f"at least {show(self.needs[worst])}",
                hint="Give it more memory, or cut its inputs",
            )  # fmt: skip


def game(
    dag: Dag, *, red: float | Sequence[float], g: float | Sequence[float] = 1.0, processors: int = 1,
    inputs: Inputs = "loaded", timing: Timing = "synchronous", latency: float = 0.0, again: bool = True,
    works: Sequence[Sequence[float]] | None = None, unit: str = "", about: str = "",
    players: Sequence[str] = (),
) -> Game:  # fmt: skip
    """Returns a game of like processors, or of those whose memories and costs are listed.

    Raises:
        SpecError: no processor, a list of another length, or a negative number.
    """
    if processors < 1:
        raise SpecError("processors", "must be at least one", value=processors, limit="1 or more")
    columns = []
    for name, given in (("red", red), ("g", g)):
        column = tuple(map(float, given)) if isinstance(given, Sequence) else (float(given),) * processors
        if len(column) != processors:
            raise SpecError(name, "is not one a processor", value=len(column), limit=str(processors))
        if min(column) < 0 or not max(column) < float("inf"):
            raise SpecError(name, "must be a finite number of at least 0", value=list(column), limit="0 or more")
        columns.append(column)
    table = None if works is None else tuple(tuple(map(float, row)) for row in works)
    if table is not None and (len(table) != processors or any(len(row) != len(dag) for row in table)):
        raise SpecError(
            "works", "is not one row a processor, one column a node", value=len(table), limit=str(processors)
        )
    return Game(dag, columns[0], columns[1], inputs, timing, latency, again, table, unit, about, tuple(players))


def costs(of: Game, moves: Sequence[Move]) -> list[float]:
    """Returns what each move costs on its processor."""
    works, size = [of.work(p) for p in range(of.processors)], of.dag.size
    return [
        works[p][v] if kind == COMPUTE else of.g[p] * size[v] if kind < COMPUTE else 0.0 for kind, p, v in moves
    ]  # fmt: skip
