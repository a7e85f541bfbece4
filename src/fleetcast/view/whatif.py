"""What if: a scenario with something changed, beside the scenario as it is.

A change names a key of the scenario file by its path: ``fleet.links.inter=100Gb/s``, ``workload.batch=768``,
``plan.tensor_parallel=4``. Values with commas between them are tried one after the other; a list in brackets is one
value, as in the file. What the plan leaves open is planned anew on both sides, so that best is compared with best; a
plan that is decided is simulated as it is.
"""

from __future__ import annotations

import copy
import itertools
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.base.tables import known
from fleetcast.scenario import load as files
from fleetcast.scenario.load import MultitaskScenario, Scenario, TrainingScenario
from fleetcast.scenario.objective import TRAINING
from fleetcast.scenario.outcome import Outcome
from fleetcast.view import verbs, worlds
from fleetcast.view.compare import Term, by_term, compare
from fleetcast.view.upgrades import upgrades

MOST = 200
"""Variants of one question."""
HOW = ("auto", "plan", "simulate")


@dataclass(frozen=True)
class Variant:
    """One change and what it makes of the scenario.

    Attributes:
        changes: path -> value, {} = the scenario as it is.
        scenario: with the change.
        outcome: under its plan, or under its best plan; None = nothing fits.
        problem: why not.
        planned: whether its plan was searched.
    """

    changes: Mapping[str, Any]
    scenario: Scenario
    outcome: Outcome | None
    problem: str = ""
    planned: bool = False

    @property
    def name(self) -> str:
        """The change as it was written, in brief."""
        return ", ".join(f"{path} = {shown(value)}" for path, value in self.changes.items()) or "as it is"

    @property
    def fits(self) -> bool:
        """Whether its plan can run, and meets the limits where it was searched."""
        return self.outcome is not None and not self.problem and bool(self.outcome.metrics.get("fits", True))


@dataclass(frozen=True)
class Whatif:
    """A scenario and what changes make of it.

    Attributes:
        before: the scenario as it is.
        after: with each change.
    """

    before: Variant
    after: tuple[Variant, ...]

    def table(self) -> dict[str, Any]:
        """Returns everything for JSON: ``before``, and ``variants`` with ratios and differences to it."""
        return {"before": _row(self.before), "variants": [self._variant(variant) for variant in self.after]}

    def _variant(self, variant: Variant) -> dict[str, Any]:
        row = _row(variant)
        if self.before.outcome is None or variant.outcome is None:
            return row | {"ratios": {}, "terms": []}
        found = compare(self.before.outcome, variant.outcome)
        return row | {
            "ratios": {d.metric: d.after / d.before if d.before else None for d in found},
            "terms": [term.table() for term in self.terms(variant)],
        }

    def terms(self, variant: Variant) -> tuple[Term, ...]:
        """Returns where the time of an outcome goes before and after, largest change first."""
        if self.before.outcome is None or variant.outcome is None:
            return ()
        return tuple(sorted(by_term(self.before.outcome, variant.outcome), key=lambda t: -abs(t.after - t.before)))


def whatif(
    source: verbs.Source, changes: Mapping[str, Any] | Sequence[str], *, how: str = "auto", seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Whatif:  # fmt: skip
    """Returns a scenario as it is and with each change.

    Args:
        source: a Scenario or what `load` takes.
        changes: path -> value, or texts ``path=value`` as the command takes them; a tuple of values, or values with
            commas between them, are tried one after the other, several paths in all combinations. None at all: the
            upgrades that one would ask about first.
        how: "plan" searches each variant's plan, "simulate" takes the plan as it is, "auto" searches where it is open.
        seed: instead of the scenario's.
        progress: called with (variants done, variants).

    Raises:
        SpecError: a path that no scenario has, or a value that it cannot take.
    """
    if how not in HOW:
        raise SpecError("how", "is unknown", value=how, limit=f"one of {', '.join(HOW)}")
    scenario = verbs.load(source, seed=seed)
    asked = parse(changes) if not isinstance(changes, Mapping) else {k: as_values(v) for k, v in changes.items()}
    rows = [dict(zip(asked, values, strict=True)) for values in itertools.product(*asked.values())]
    if not asked:
        rows = upgrades(scenario)
    if not rows and not isinstance(scenario, TrainingScenario):
        raise SpecError(
            "--set", "is missing, and nothing of the fleet is known to be upgraded",
            limit="path=value, a key of the scenario file", hint="Write e.g. --set seed=1",
        )  # fmt: skip
    if len(rows) > MOST:
        raise SpecError(
            "--set", f"makes {len(rows):,} variants", value=len(rows), limit=f"at most {MOST}",
            hint="Give fewer values, or search with lists in [plan]",
        )  # fmt: skip
    variants = [({}, scenario), *((row, changed(scenario, row)) for row in rows)]
    search = how == "plan" or (how == "auto" and any(is_open(each) for _, each in variants))
    found = []
    for i, (row, each) in enumerate(variants):
        found.append(_settle(row, each, search))
        if progress is not None:
            progress(i + 1, len(variants))
    if not asked and isinstance(scenario, TrainingScenario):
        return Whatif(found[0], _best_first([*found[1:], *_inside(scenario, search)]))
    return Whatif(found[0], tuple(found[1:]))


def _inside(scenario: TrainingScenario, search: bool) -> list[Variant]:
    """What of the devices could be faster, which no key of a file says."""
    from fleetcast.search.whatif import upgrades as of_devices

    return [
        Variant({what: much}, scenario, outcome, "" if outcome is not None else "no plan fits", search)
        for what, much, outcome in of_devices(scenario, search=search)
    ]


def _best_first(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    def worth(variant: Variant) -> tuple[bool, float]:
        _, path, sign = variant.scenario.objective.goals(TRAINING, {})[0]
        value = value_of(variant, path)
        return (not variant.fits or value is None, sign * (value or 0.0))

    return tuple(sorted(variants, key=worth))


def parse(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Returns path -> values of texts such as ``workload.batch=768,1536``.

    Raises:
        SpecError: no ``=``, no path, or a path twice.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        path, sign, value = text.partition("=")
        path = path.strip()
        if not sign or not path or not value.strip():
            raise SpecError(
                "--set", "is no change", value=text, limit="path=value",
                hint="Write e.g. --set fleet.links.inter=100Gb/s",
            )  # fmt: skip
        if path in found:
            raise SpecError(
                "--set", f"changes {path} twice", value=text, limit="each path once",
                hint=f"Values to compare: --set {path}=1,2,4",
            )  # fmt: skip
        found[path] = tuple(as_written(part) for part in _split(value))
    return found


def as_values(value: Any) -> tuple[Any, ...]:
    """Returns the values to try: those of a tuple, or the one."""
    return value if isinstance(value, tuple) else (value,)


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no brackets, braces or quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and not depth:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def as_written(text: str) -> Any:
    """Returns a number, truth value, list or table as TOML has it; anything else is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def changed(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    """Returns ``scenario`` with keys changed, checked as a file is.

    Raises:
        SpecError: a path that no scenario has (names the nearest key), or a value that it cannot take.
    """
    table = copy.deepcopy(scenario.table())
    for path, value in changes.items():
        _set(table, path, value)
    made = files.load(table, seed=scenario.seed)
    return msgspec.structs.replace(made, folder=scenario.folder)


def _set(table: dict[str, Any], path: str, value: Any) -> None:
    steps = [step for step in re.split(r"[.\[\]]+", path) if step]
    at: Any = table
    for i, step in enumerate(steps):
        last, here = i == len(steps) - 1, ".".join(steps[:i]) or "scenario"
        if isinstance(at, list):
            if not step.isdigit() or int(step) >= len(at):
                raise SpecError(
                    path, f"names no item of {here}", value=step, limit=f"0 to {len(at) - 1}",
                    hint=f"Write e.g. {here}.0",
                )  # fmt: skip
            at, step = _grown(at, int(step), value if last else None), ""
        elif isinstance(at, dict):
            at = _grown(at, step, value if last else None)
        else:
            raise SpecError(
                path, f"goes into {here}, which is no table", value=at, limit=f"change {here} itself",
                hint=f"Write e.g. --set {here}=...",
            )  # fmt: skip


def _grown(at: Any, step: Any, value: Any) -> Any:
    """Puts a value at a step; without one goes there, making a table where there is none."""
    if value is not None:
        at[step] = value
        return value
    if isinstance(at, dict) and step not in at:
        at[step] = {}
    return at[step]


def is_open(scenario: Scenario) -> bool:
    """Returns whether a scenario's plan leaves to a search what it cannot be simulated without, as its world says."""
    decides = getattr(worlds.WORLDS[type(scenario)], "is_open", None)
    return True if decides is None else bool(decides(scenario))


def _settle(changes: Mapping[str, Any], scenario: Scenario, search: bool) -> Variant:
    """A variant's outcome: of its best plan, or of its plan."""
    try:
        if not search:
            return Variant(changes, scenario, verbs.simulate(scenario))
        ranking = verbs.plan(scenario, top=None if isinstance(scenario, MultitaskScenario) else 1)
    except Infeasible as error:
        return Variant(changes, scenario, None, str(error), search)
    if ranking.best is None:
        return Variant(changes, scenario, next(iter(ranking.misses), None), "no plan fits or meets the SLO", True)
    return Variant(changes, scenario, ranking.best, planned=True)


def shown(value: Any) -> str:
    """Returns a value as a file would say it, text without quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def value_of(variant: Variant, path: str) -> float | None:
    """Returns a metric of a variant, None where it is not known."""
    return None if variant.outcome is None else known(variant.outcome.metrics, path)


def _row(variant: Variant) -> dict[str, Any]:
    outcome = None if variant.outcome is None else variant.outcome.table()
    return {
        "set": dict(variant.changes), "planned": variant.planned, "fits": variant.fits, "problem": variant.problem,
        "outcome": outcome,
    }  # fmt: skip


def pairs(variant: Variant, base: Variant, paths: Sequence[str]) -> Iterator[tuple[str, float, float, float | None]]:
    """Yields (metric, before, after, after / before) of metrics that both know."""
    for path in paths:
        before, after = value_of(base, path), value_of(variant, path)
        if before is not None and after is not None:
            yield path, before, after, after / before if before else None
