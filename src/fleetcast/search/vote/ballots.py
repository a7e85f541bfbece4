"""Who ranks which plans how: from a file of ballots, or from a search's ranking by several goals.

A file of ballots (TOML or JSON) has a table ``ballots``, voter -> the names of the plans, best first, and may list
``plans``, whose order decides what is equal. From ``fleetcast plan FILE --json`` each goal makes a ballot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleetcast.base.errors import FleetcastError, SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import Spec, convert, read_toml
from fleetcast.base.tables import lookup
from fleetcast.policy.vote.metrics import Orders
from fleetcast.scenario.objective import MAXIMIZE, MINIMIZE, TRAINING
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.ranking import label

MOST_VOTERS, MOST_PLANS = 1_000, 200
LARGEST_FILE = 16 << 20


class BallotFile(Spec):
    """A file of ballots."""

    ballots: dict[str, tuple[str, ...]]
    plans: tuple[str, ...] = ()


@dataclass(frozen=True)
class Poll:
    """Ballots to be made one ranking.

    Attributes:
        voters: their names, n.
        plans: their names, m.
        orders: int[n, m], the plans of each ballot, best first.
        notes: what was decided on the way.
    """

    voters: tuple[str, ...]
    plans: tuple[str, ...]
    orders: Orders
    notes: tuple[str, ...] = ()


_METRICS = "metrics of which less is better: these plans have none of the goals"


def read(path: str | Path, by: Sequence[str] = ()) -> Poll:
    """Returns the poll of a file.

    Args:
        path: ballots (.toml or .json), or what ``fleetcast plan --json`` printed.
        by: with the latter, the goals that vote, e.g. ``["cost", "latency"]``, or metrics of which less is better.

    Raises:
        SpecError: not such a file; a ballot that is no ranking of the plans.
    """
    text = read_text(path, limit=LARGEST_FILE)
    table = _json(text, str(path)) if text.lstrip().startswith("{") else read_toml(text, str(path))
    if isinstance(table.get("plans"), list) and any(isinstance(row, Mapping) for row in table["plans"]):
        return from_ranking(table, by)
    if by:
        raise SpecError(
            "--by", "is for what `fleetcast plan FILE --json` printed", value=", ".join(by),
            hint="Leave it out: this file has ballots of its own",
        )  # fmt: skip
    return from_ballots(table)


def from_ballots(table: Mapping[str, Any]) -> Poll:
    """Returns the poll of a table with ``ballots``.

    Raises:
        SpecError: unknown keys, no ballots, too many, ballots of other plans than the first.
    """
    ballots = table.get("ballots")
    lists = {f"ballots.{voter}": ballot for voter, ballot in ballots.items()} if isinstance(ballots, Mapping) else {}
    for path, ballot in {"plans": table.get("plans", []), **lists}.items():
        _texts(path, ballot)
    asked = convert(dict(table), BallotFile)
    if not asked.ballots:
        raise SpecError("ballots", "is empty", hint='Add a voter: latency = ["plan a", "plan b"]')
    first, ballot = next(iter(asked.ballots.items()))
    plans = asked.plans or ballot
    _check("plans" if asked.plans else f"ballots.{first}", plans, plans)
    _limit("plans", len(plans), MOST_PLANS)
    _limit("ballots", len(asked.ballots), MOST_VOTERS)
    for voter, ballot in asked.ballots.items():
        _check(f"ballots.{voter}", ballot, plans)
    index = {name: i for i, name in enumerate(plans)}
    orders = np.array([[index[name] for name in ballot] for ballot in asked.ballots.values()], dtype=np.int64)
    return Poll(tuple(asked.ballots), plans, orders)


def from_ranking(table: Mapping[str, Any], by: Sequence[str]) -> Poll:
    """Returns the poll in which each goal ranks the plans that a search found.

    Equal values stay in the order in which the search ranked the plans.

    Args:
        table: `search.ranking.Ranking.table`.
        by: goals, or paths of metrics of which less is better.

    Raises:
        SpecError: no goal, one twice, one that the plans have no number for.
    """
    rows = table["plans"]
    if not all(isinstance(row, Mapping) and isinstance(row.get("metrics"), Mapping) for row in rows):
        raise SpecError("plans", "are not a search's", hint="Give the file that `fleetcast plan FILE --json` printed")
    if len(set(by)) < len(by) or not by:
        known = _goals(rows)
        raise SpecError(
            "--by", "must name each goal that votes once", value=", ".join(by) or None,
            limit=f"of {', '.join(known)}, or metrics of which less is better" if known else _METRICS,
            hint=f"E.g. --by {','.join(known[:2])}" if known else "E.g. --by power,latency, of a sensor pipeline",
        )  # fmt: skip
    _limit("plans", len(rows), MOST_PLANS)
    columns = [[_value(row["metrics"], goal, rows) for row in rows] for goal in by]
    orders = np.array([np.argsort(column, kind="stable") for column in columns], dtype=np.int64)
    equal = [goal for goal, column in zip(by, columns, strict=True) if len(set(column)) < len(column)]
    notes = (f"plans equal in {' and '.join(equal)} stay in the order of the search",) if equal else ()
    return Poll(tuple(by), tuple(_names(rows)), orders, notes)


def _json(text: str, path: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SpecError(path, f"is not JSON: {error}", hint="Check its brackets and quotes there") from None
    return found


def _limit(path: str, count: int, most: int) -> None:
    if count > most:
        raise SpecError(path, "are too many", value=count, limit=f"at most {most}", hint="Vote on the best of them")


def _texts(path: str, ballot: object) -> None:
    """Refuses what is no list of names: a plan called 1 is not one called "1"."""
    if not isinstance(ballot, list | tuple):
        raise SpecError(path, "is no list", value=str(ballot)[:60], limit='plans in text, best first: ["a", "b"]')
    for i, name in enumerate(ballot):
        if not isinstance(name, str):
            raise SpecError(
                f"{path}[{i}]", "is no text, as names of plans are", value=str(name)[:60], limit="text",
                hint=f'Write "{name}"' if isinstance(name, int | float) else 'One name a place: ["a", "b"]',
            )  # fmt: skip


def _check(path: str, ballot: Sequence[str], plans: Sequence[str]) -> None:
    """Refuses a ballot that is not each of the plans once: ties and partial rankings have no place here."""
    twice = next((name for i, name in enumerate(ballot) if name in ballot[:i]), None)
    if not ballot:
        raise SpecError(path, "ranks nothing", hint="List the plans, best first")
    if twice is not None:
        raise SpecError(path, "names a plan twice", value=twice, hint="Name each plan once, best first")
    if unknown := next((name for name in ballot if name not in set(plans)), None):
        raise SpecError(
            path, "names a plan that the first ballot or `plans` does not", value=unknown,
            limit=f"one of {', '.join(plans)}", hint=closest(unknown, plans) or "Every ballot ranks the same plans",
        )  # fmt: skip
    if missing := [name for name in plans if name not in set(ballot)]:
        raise SpecError(
            path, f"leaves out {', '.join(missing)}", limit="every plan once",
            hint="Rank it too, or vote on plans that all have ranked",
        )  # fmt: skip


def _goals(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the goals that every plan has a number for."""
    known = {**MINIMIZE, **TRAINING, **MAXIMIZE}
    return [goal for goal, path in known.items() if all(_number(row["metrics"], path) is not None for row in rows)]


def _number(metrics: Mapping[str, Any], path: str) -> float | None:
    try:
        found = lookup(metrics, path)
    except (KeyError, TypeError, ValueError):
        return None
    return float(found) if isinstance(found, int | float) and found == found else None


def _value(metrics: Mapping[str, Any], goal: str, rows: Sequence[Mapping[str, Any]]) -> float:
    """Returns what a goal says of a plan, less is better."""
    paths = [(MINIMIZE.get(goal), 1.0), (TRAINING.get(goal), 1.0), (MAXIMIZE.get(goal), -1.0), (goal, 1.0)]
    for path, sign in paths:
        if path is not None and (found := _number(metrics, path)) is not None:
            return sign * found
    known = _goals(rows)
    raise SpecError(
        "--by", "is no number of these plans", value=goal,
        limit=f"goals here: {', '.join(known)}" if known else _METRICS,
        hint=closest(goal, known) or "Or name a metric, e.g. ttft.p99",
    )  # fmt: skip


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a name for each plan, told apart by its place where two are called the same."""
    names: list[str] = []
    for i, row in enumerate(rows):
        try:
            name = label(Outcome("simulated", row["metrics"], {}, {}, row["plan"]))
        except (FleetcastError, KeyError, TypeError, IndexError):
            name = ""
        names.append(name or f"plan {i + 1}")
    return [name if names.count(name) == 1 else f"{name} (plan {i + 1})" for i, name in enumerate(names)]
