"""The verbs: a workload's kind picks the world that answers, nothing else does.

Each takes a `Scenario`, or whatever `load` makes one of: a file, the name of an example, a TOML text, a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.scenario import load as files
from fleetcast.scenario.load import Scenario

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.scenario.plan import Plan
    from fleetcast.search.capacity import Load, Need
    from fleetcast.search.ranking import Ranking
    from fleetcast.search.servers import Room
    from fleetcast.sim.serving.setting import Setting
    from fleetcast.view.checks import Remark

Source = Scenario | str | Path | Mapping[str, Any]
Progress = Callable[[int, int], None]
"""Called with (plans simulated, plans to simulate)."""

_EXAMPLES = Path(__file__).parent / "examples"


def load(source: Source, *, seed: int | None = None) -> Scenario:
    """Returns the Scenario of a file, of an example's name, of a TOML text (with a line break) or of a table.

    Args:
        source: what to read; a Scenario is returned as it is unless ``seed`` differs.
        seed: instead of the file's.

    Raises:
        SpecError: no such file or example, or anything in it that cannot be.

    Example:
        >>> load("quickstart").workload.model
        'llama-3.1-70b'
    """
    if isinstance(source, Scenario):
        return source if seed is None else msgspec.structs.replace(source, seed=seed)
    if isinstance(source, Mapping) or (isinstance(source, str) and "\n" in source):
        return files.load(source, seed=seed)
    path = Path(source)
    if not path.exists() and path.name == str(source) and path.suffix in ("", ".toml"):
        path = example(path.stem)
    return files.load(path, seed=seed)


def examples() -> dict[str, Path]:
    """Returns the packaged examples: name -> file."""
    return {path.stem: path for path in sorted(_EXAMPLES.glob("*.toml"))}


def headline(path: Path) -> str:
    """Returns what an example is about: its first line of comment."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def plan(source: Source, *, seed: int | None = None, top: int | None = 10, progress: Progress | None = None) -> Ranking:
    """Returns the ranked plans of a scenario: best, frontier, what was rejected and why.

    Args:
        source: a Scenario or what `load` takes.
        seed: instead of the scenario's.
        top: how many plans to rank; None = all that meet the SLO.
        progress: called while plans are settled.

    Raises:
        SpecError: anything in the scenario that cannot be.
        Infeasible: nothing fits.
    """
    from fleetcast.search import parallelism

    return parallelism.search(_serving(load(source, seed=seed)), top=top, progress=progress)


def simulate(source: Source, *, seed: int | None = None, record: bool = False) -> Outcome:
    """Returns what happens under the scenario's plan.

    Args:
        source: a Scenario or what `load` takes; ``[plan]`` needs replicas, tensor_parallel, pipeline_parallel.
        seed: instead of the scenario's.
        record: keep the event record for timelines; changes no result.

    Raises:
        SpecError: anything in the scenario that cannot be.
        Infeasible: the plan does not fit.
    """
    from fleetcast.sim.serving.world import simulate as run

    return run(*completed(source, seed=seed), record=record)


def max_rate(source: Source, *, seed: int | None = None, tolerance: float = 0.02) -> Load:
    """Returns the largest load that the fleet holds within the SLO: the scenario's arrivals, closer or further apart.

    Args:
        source: a Scenario or what `load` takes.
        seed: instead of the scenario's.
        tolerance: relative width of the bracket at which to stop.

    Raises:
        SpecError: no SLO, or a load without a rate.
    """
    from fleetcast.search import capacity

    scenario = load(source, seed=seed)
    _serving(scenario)
    return capacity.max_rate(scenario, tolerance=tolerance)


def devices_needed(
    source: Source, kinds: Iterable[str] = (), *, seed: int | None = None, most: int = 256
) -> list[Need]:
    """Returns, per kind of device, the fewest devices that hold the scenario's load within the SLO, cheapest first.

    Args:
        source: a Scenario or what `load` takes.
        kinds: devices of the catalogue; none = those of the scenario's fleet.
        seed: instead of the scenario's.
        most: the largest fleet tried, of each kind.

    Raises:
        SpecError: no SLO, or an unknown device.
    """
    from fleetcast.search import capacity

    scenario = load(source, seed=seed)
    own = dict.fromkeys(group.device.id for group in _serving(scenario).tree.groups)
    return capacity.devices_needed(scenario, tuple(kinds) or own, most=most)


def servers_under(source: Source, *, seed: int | None = None, progress: Progress | None = None) -> Room:
    """Returns how many servers fit under the fleet's breaker, ``fleet.budget``, by power policy.

    Args:
        source: a Scenario or what `load` takes; ``plan.power`` names policies, left out = all are compared.
        seed: instead of the scenario's.
        progress: called while policies are settled.

    Raises:
        SpecError: no budget, unlike servers, or traffic that shows no busiest hour.
        Infeasible: nothing fits.
    """
    from fleetcast.search import servers

    return servers.servers_under(_serving(load(source, seed=seed)), progress)


def check(source: Source, *, seed: int | None = None) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first; an empty list means nothing was found.

    Raises:
        SpecError: the scenario cannot be read at all.
    """
    from fleetcast.view.checks import remarks

    return remarks(_serving(load(source, seed=seed)))


def _serving(scenario: Scenario) -> Setting:
    """The scenario resolved for the world of its kind."""
    if scenario.workload.kind != "serving":
        raise Unsupported(f"workload.kind = '{scenario.workload.kind}' has no engine yet")
    from fleetcast.sim.serving.setting import setting

    return setting(scenario)


def completed(source: Source, *, seed: int | None = None) -> tuple[Setting, Plan]:
    """Returns the scenario resolved, and its plan with every choice made.

    Raises:
        SpecError: a choice without a default is open.
        Infeasible: the plan does not fit.
    """
    from fleetcast.sim.serving.setting import complete

    state = _serving(load(source, seed=seed))
    return state, complete(state, state.scenario.plan)


def example(name: str) -> Path:
    """Returns the file of a packaged example.

    Raises:
        SpecError: no such example; names the nearest.
    """
    known = examples()
    if name in known:
        return known[name]
    raise SpecError(
        name, "is neither a file nor an example", limit=f"examples: {', '.join(known)}",
        hint=closest(name, known).capitalize() or "Check the path",
    )  # fmt: skip
