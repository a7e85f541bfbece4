"""What ``--out`` leaves behind: plan.toml, report.html, outcome.json, traces, each whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fleetcast.base.files import write_atomic
from fleetcast.scenario.fleet.spec import Fleet, FleetGroup, rename_profiles
from fleetcast.scenario.load import Scenario, ServingScenario, dump
from fleetcast.scenario.plan import read_plan
from fleetcast.view.words import pools_of

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking


def to_json(value: Any) -> str:
    """Returns JSON text; numbers that are not finite become null."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2).decode() + "\n"


def decided(scenario: ServingScenario, outcome: Outcome) -> ServingScenario:
    """Returns the scenario with the complete plan of ``outcome``."""
    return scenario.with_plan(read_plan(dict(outcome.plan)))


def _mover(base: Path, folder: Path) -> Callable[[Any], Any]:
    """Returns what renames a path that starts at ``base`` to start at ``folder``, and leaves all else as it is."""

    def moved(name: Any) -> Any:
        if not isinstance(name, str) or not name or Path(name).is_absolute() or not (base / name).exists():
            return name
        return Path(os.path.relpath((base / name).resolve(), folder.resolve())).as_posix()

    return moved


def rewritten(scenario: Scenario, keys: Collection[str], folder: Path) -> dict[str, Any]:
    """Returns a scenario's table as a file in ``folder`` must say it: relative paths start there.

    Args:
        scenario: of any kind; the paths of its fleet are known.
        keys: of its workload and its plan whose values, or what these hold, are paths.
        folder: where relative paths are to start.
    """
    rename = _mover(Path(scenario.folder), folder)

    def walk(value: Any, path: bool) -> Any:
        if isinstance(value, dict):
            return {k: walk(v, path or k in keys) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [walk(v, path) for v in value]
        return rename(value) if path else value

    table = msgspec.structs.replace(scenario, fleet=_refitted(scenario.fleet, rename)).table()
    return table | {part: walk(table[part], False) for part in ("workload", "plan") if part in table}


def rebased(scenario: ServingScenario, folder: Path) -> ServingScenario:
    """Returns the scenario as a file in ``folder`` must say it: relative paths start there."""
    moved = _mover(Path(scenario.folder), folder)
    change = msgspec.structs.replace
    pools = tuple(
        change(pool, model=moved(pool.model), speculate=_redrafted(pool.speculate, moved))
        for pool in scenario.plan.pools
    )
    workload, fleet = scenario.workload, scenario.fleet
    return change(
        scenario, folder=str(folder), plan=change(scenario.plan, pools=pools),
        workload=change(
            workload, trace=moved(workload.trace), model=moved(workload.model), confidence=moved(workload.confidence),
            expert_load=moved(workload.expert_load), quality=_rescored(workload.quality, moved),
        ),
        fleet=_refitted(fleet, moved),
    )  # fmt: skip


def _refitted(fleet: Fleet, moved: Callable[[Any], Any]) -> Fleet:
    """Returns a fleet with the paths of its profiles, links and grid moved."""
    return msgspec.structs.replace(
        fleet, devices=rename_profiles(fleet.devices, moved), groups=_regrouped(fleet.groups, moved),
        grid=moved(fleet.grid), link=_relinked(fleet.link, moved), network=_relinked(fleet.network, moved),
    )  # fmt: skip


def _rescored(given: Any, moved: Callable[[Any], Any]) -> Any:
    """Returns the measured quality with its files' and models' paths moved."""
    if given is None or isinstance(given, str):
        return moved(given)
    return tuple(
        moved(row) if isinstance(row, str) else msgspec.structs.replace(row, model=moved(row.model)) for row in given
    )


def _redrafted(given: Any, moved: Callable[[Any], Any]) -> Any:
    """Returns the values of ``speculate`` with their models' paths moved."""
    if isinstance(given, list | tuple):
        return tuple(_redrafted(value, moved) for value in given)
    if not isinstance(given, dict) or "model" not in given:
        return given
    named = given["model"]
    return given | {"model": [moved(name) for name in named] if isinstance(named, list | tuple) else moved(named)}


def _regrouped(groups: tuple[FleetGroup, ...], moved: Callable[[str], str]) -> tuple[FleetGroup, ...]:
    return tuple(
        msgspec.structs.replace(
            g,
            devices=rename_profiles(g.devices, moved),
            groups=_regrouped(g.groups, moved),
            link=_relinked(g.link, moved),
        )
        for g in groups
    )


def _relinked(link: str, moved: Callable[[str], str]) -> str:
    """Returns a link's name as it is, or the path of its file moved."""
    return moved(link) if link.endswith(".toml") else link


def write_ranking(folder: Path, scenario: ServingScenario, ranking: Ranking, best: Outcome | None) -> list[Path]:
    """Writes a search's plan.toml (where a plan was found), report.html and outcome.json; returns their paths."""
    from fleetcast.view.report import plan_report

    found = []
    if ranking.best is not None:
        found.append(write_plan(folder, decided(scenario, ranking.best)))
    found.append(write_atomic(folder / "report.html", plan_report(scenario, ranking, best)))
    found.append(write_atomic(folder / "outcome.json", to_json(ranking.table())))
    return found


def write_outcome(folder: Path, scenario: ServingScenario, outcome: Outcome) -> list[Path]:
    """Writes an outcome's plan.toml, report.html, outcome.json and, with a record, trace.json.gz.

    A pool with nano-batches also leaves layers.json.gz: how their operators share the device in a full iteration.
    """
    from fleetcast.view.report import outcome_report
    from fleetcast.view.timeline import trace_bytes

    found = [
        write_plan(folder, decided(scenario, outcome)),
        write_atomic(folder / "report.html", outcome_report(scenario, outcome)),
        write_atomic(folder / "outcome.json", to_json(outcome.table())),
    ]
    if outcome.record is not None:
        found.append(write_atomic(folder / "trace.json.gz", trace_bytes(outcome.record, name=scenario.name)))
    if any(pool.get("overlap") for pool in pools_of(outcome.plan)):
        from fleetcast.search.overlap import timelines
        from fleetcast.sim.serving.setting import setting

        for i, log in timelines(setting(decided(scenario, outcome))).items():
            name = f"layers-{i}.json.gz" if len(pools_of(outcome.plan)) > 1 else "layers.json.gz"
            found.append(write_atomic(folder / name, trace_bytes(log, name=f"layers of {scenario.name}")))
    return found


def write_plan(folder: Path, scenario: ServingScenario) -> Path:
    """Writes the scenario, whose plan is complete, as ``folder``/plan.toml."""
    return write_atomic(folder / "plan.toml", dump(rebased(scenario, folder)))


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):  # a number of numpy
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
