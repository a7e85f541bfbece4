"""What `plan` and `simulate` print and write of a kind of workload whose policies are played: one form for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetcast.base.errors import Unsupported
from fleetcast.base.files import write_atomic
from fleetcast.base.spec import dump_toml
from fleetcast.view import outputs, terminal, verbs
from fleetcast.view.terminal import Common
from fleetcast.view.timeline import shortened, trace_bytes

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome


@dataclass(frozen=True)
class Played:
    """A kind of workload on the command line.

    Attributes:
        what: its outcomes are of, for messages: "functions", "jobs".
        playing: what the progress bar of `simulate` says.
        screens: module with ``outcome_view`` and ``ranking_view`` (scenario, outcome or ranking, width).
        read: makes a plan of an outcome's table.
        files: keys of its workload and its plan whose values may be paths, see `outputs.rewritten`.
        recorded: the view of an outcome draws its event record.
        numbered: lanes of the timeline are numbered.
        more: writes further files of an outcome; returns their paths.
    """

    what: str
    playing: str
    screens: str
    read: Callable[[Mapping[str, Any]], Any]
    files: tuple[str, ...] = ()
    recorded: bool = False
    numbered: bool = False
    more: Callable[[Path, Outcome], list[Path]] | None = None

    def simulate(self, scenario: Any, common: Common) -> int:
        """Prints what happens under the plan; returns 0."""
        with terminal.progress(self.playing, common):
            outcome = verbs.simulate(scenario, record=self.recorded or common.out is not None)
        return self.show(scenario, outcome, common)

    def plan(self, scenario: Any, common: Common, *, top: int, report: Path | None) -> int:
        """Prints the policies by rank; returns 0.

        Raises:
            Unsupported: a report was asked for.
        """
        if report is not None:
            raise Unsupported(
                f"--report: of {self.what} there is no page yet", "Leave it out, and keep tables with --json"
            )
        with terminal.progress("playing policies", common) as step:
            ranking = verbs.plan(scenario, top=None, progress=step)
        written = []
        if common.out is not None:
            assert ranking.best is not None, "some policy always ranks first"
            chosen = scenario.with_plan(self.read(ranking.best.plan))
            written += self.write(common.out, scenario, verbs.simulate(chosen, record=True))
            written.append(write_atomic(common.out / "outcome.json", outputs.to_json(ranking.table())))
        view = self._view("ranking_view")
        terminal.show(
            common, ranking.table(), lambda width: view(scenario, ranking, width), list(dict.fromkeys(written))
        )
        return 0

    def show(self, scenario: Any, outcome: Outcome, common: Common) -> int:
        """Prints one outcome, simulated or measured, and writes it where --out says; returns 0."""
        written = self.write(common.out, scenario, outcome) if common.out is not None else []
        view = self._view("outcome_view")
        note = shortened(outcome.record) if written and outcome.record is not None else ""
        terminal.show(common, outcome.table(), lambda width: view(scenario, outcome, width), written, note)
        return 0

    def write(self, folder: Path, scenario: Any, outcome: Outcome) -> list[Path]:
        """Writes an outcome's plan.toml, outcome.json and, of a record, trace.json.gz; returns their paths."""
        chosen = scenario.with_plan(self.read(outcome.plan))
        found = [
            write_atomic(folder / "plan.toml", dump_toml(outputs.rewritten(chosen, self.files, folder))),
            write_atomic(folder / "outcome.json", outputs.to_json(outcome.table())),
        ]
        if outcome.record is not None and len(outcome.record):
            log = trace_bytes(outcome.record, name=scenario.name, numbered=self.numbered)
            found.append(write_atomic(folder / "trace.json.gz", log))
        return found + (self.more(folder, outcome) if self.more is not None else [])

    def _view(self, name: str) -> Callable[..., Any]:
        def drawn(*arguments: Any) -> Any:  # rich is loaded once something is drawn
            return getattr(import_module(self.screens), name)(*arguments)

        return drawn
