"""An answer about a promise as data, and its rankings and views in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleetcast.policy.vote.metrics import Orders
from fleetcast.search.vote.runs import Shape, who

if TYPE_CHECKING:
    from fleetcast.search.vote.guarantees import Answer


def table(answer: Answer) -> dict[str, Any]:
    """Returns an answer for JSON, rankings as letters."""
    runs, setting = answer.runs, answer.runs.setting
    return {
        "processes": setting.processes, "plans": setting.plans, "crashes": setting.crashes,
        "model": "synchronous" if setting.synchronous else "asynchronous", "rounds": setting.rounds,
        "promise": {
            "set": answer.promise.most, "within": answer.promise.within,
            "metric": None if answer.promise.within is None else answer.promise.metric,
            "unanimity": answer.promise.unanimity, "said": answer.promise.said(),
        },
        "exists": answer.exists, "rule": answer.rule or None, "map": _listed(answer),
        "dictator": None if answer.dictator is None else f"P{answer.dictator + 1}",
        "checked": {"runs": runs.count, "views": runs.views, "rounds": setting.rounds, "in_problem": answer.solved},
        "minimal": answer.minimal,
        "witness": [
            {
                "ballots": [letters(runs.orders[b]) for b in run.ballots],
                "decide": {f"P{who(s) + 1}": told(s) for s in run.shapes}, "views": list(run.views),
            }
            for run in answer.witness
        ],
    }  # fmt: skip


def _listed(answer: Answer) -> list[dict[str, Any]] | None:
    """Returns what a rule without a short form decides: by who was heard, ballots of those -> ranking."""
    runs = answer.runs
    if answer.map is None or answer.rule:
        return None
    said = [letters(order) for order in runs.orders]
    return [
        {
            "process": f"P{who(shape) + 1}", "heard": told(shape),
            "decides": {
                " ".join(said[b] for b in ballots): said[answer.map[start + i]]
                for i, ballots in enumerate(runs.inputs(shape).tolist())
            },
        }
        for shape, start in runs.start.items()
    ]  # fmt: skip


def letters(order: Orders) -> str:
    """Returns a ranking as letters.

    Example:
        >>> letters([2, 0, 1])
        'cab'
    """
    return "".join(chr(ord("a") + int(i)) for i in order)


def told(shape: Shape) -> str:
    """Returns who was heard, and for several rounds whom these had heard.

    Example:
        >>> told((0, (0, 1))), told((0, ((0, (0, 1)), (2, (1, 2)))))
        ('P1 P2', 'P1(P1 P2) P3(P2 P3)')
    """
    if isinstance(shape, int):
        return f"P{shape + 1}"
    return " ".join(f"P{part + 1}" if isinstance(part, int) else f"P{part[0] + 1}({told(part)})" for part in shape[1])
