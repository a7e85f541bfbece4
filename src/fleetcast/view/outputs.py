"""What ``--out`` leaves behind: plan.toml, report.html, outcome.json, trace.json.gz, each whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fleetcast.base.files import write_atomic
from fleetcast.scenario.load import Scenario, dump
from fleetcast.scenario.plan import Plan, read_plan

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking


def to_json(value: Any) -> str:
    """Returns JSON text; numbers that are not finite become null."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2).decode() + "\n"


def decided(scenario: Scenario, outcome: Outcome) -> Scenario:
    """Returns the scenario with the complete plan of ``outcome``."""
    return scenario.with_plan(read_plan(dict(outcome.plan)))


def rebased(scenario: Scenario, folder: Path) -> Scenario:
    """Returns the scenario as a file in ``folder`` must say it: relative paths start there."""
    base = Path(scenario.folder)

    def moved(name: Any) -> Any:
        if not isinstance(name, str) or not name or Path(name).is_absolute() or not (base / name).exists():
            return name
        return Path(os.path.relpath((base / name).resolve(), folder.resolve())).as_posix()

    change = msgspec.structs.replace
    pools = tuple(change(pool, model=moved(pool.model)) for pool in scenario.plan.pools)
    workload, fleet = scenario.workload, scenario.fleet
    return change(
        scenario, folder=str(folder), plan=Plan(pools=pools, route=scenario.plan.route, power=scenario.plan.power),
        workload=change(workload, trace=moved(workload.trace), model=moved(workload.model)),
        fleet=change(fleet, devices=moved(fleet.devices), grid=moved(fleet.grid)),
    )  # fmt: skip


def write_ranking(folder: Path, scenario: Scenario, ranking: Ranking, best: Outcome | None) -> list[Path]:
    """Writes a search's plan.toml (where a plan was found), report.html and outcome.json; returns their paths."""
    from fleetcast.view.report import plan_report

    found = []
    if ranking.best is not None:
        found.append(write_plan(folder, decided(scenario, ranking.best)))
    found.append(write_atomic(folder / "report.html", plan_report(scenario, ranking, best)))
    found.append(write_atomic(folder / "outcome.json", to_json(ranking.table())))
    return found


def write_outcome(folder: Path, scenario: Scenario, outcome: Outcome) -> list[Path]:
    """Writes an outcome's plan.toml, report.html, outcome.json and, with a record, trace.json.gz."""
    from fleetcast.view.report import outcome_report
    from fleetcast.view.timeline import trace_bytes

    found = [
        write_plan(folder, decided(scenario, outcome)),
        write_atomic(folder / "report.html", outcome_report(scenario, outcome)),
        write_atomic(folder / "outcome.json", to_json(outcome.table())),
    ]
    if outcome.record is not None:
        found.append(write_atomic(folder / "trace.json.gz", trace_bytes(outcome.record, name=scenario.name)))
    return found


def write_plan(folder: Path, scenario: Scenario) -> Path:
    """Writes the scenario, whose plan is complete, as ``folder``/plan.toml."""
    return write_atomic(folder / "plan.toml", dump(rebased(scenario, folder)))


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):  # a number of numpy
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
