"""Com-DDPG's claim: what agents that are trained together and talk gain over rules and over agents that learn alone.

Users' applications beside servers (`learning.rl.apps`, synthetic, fixed before training); every policy plays the same
episodes, none of which was trained on. Five seeds of each kind of agent are trained; intervals are over seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, absent, main, skipped
from fleetcast.cost.graphs.offloading import Users, Weights, bill
from fleetcast.learning.rl.apps import Apps
from fleetcast.policy.order import tasks as order
from fleetcast.policy.order.tasks.com_ddpg import ComDdpg
from fleetcast.policy.order.tasks.sight import Sight
from fleetcast.sim.graph.world import play

COMMAND = "python -m benchmarks.offloading"
EPISODES = 100
"""Held-out episodes, of seeds 0 to 99; training begins at 1,000,000."""
LEARNERS: dict[str, dict[str, bool]] = {
    "com_ddpg": {},
    "without messages": {"talk": False},
    "independent": {"talk": False, "central": False},
}
OTHER = "the paper's servers, tasks and figures are others and could not be read; its trace is not to be had"


class Thrifty(order.Dmda):
    """The place that adds least to the bill, one decision at a time: greedy with the agents' own aim."""

    kind = "thrifty"

    def start(self, view: order.View) -> None:
        """Reads whose tasks there are."""
        self._sight = Sight(view, Weights())

    def push(self, task: int, view: order.View) -> int | None:
        """Returns the cheapest place now."""
        able = [place for place in self._sight.places(task) if view.runs(task, place)]
        place = min(able, key=lambda place: self._sight.would_add(task, place, view))
        self._sight.add(task, place, view)
        return place


class Given(ComDdpg):
    """Agents with weights that are no file yet."""

    def __init__(self, weights: dict[str, Any]) -> None:
        super().__init__()
        self._given = weights


RULES: dict[str, Callable[[], Any]] = {
    "local": order.Local, "random": order.Random, "greedy (dmda)": order.Dmda, "thrifty": Thrifty,
    "heft": order.Heft, "peft": order.Peft, "shipped agents": ComDdpg,
}  # fmt: skip


def bills(policy: Any, apps: Apps, episodes: int = EPISODES) -> Any:
    """Returns f8[episodes, 4]: time, energy, balance and total of each episode's bill."""
    rows = []
    for seed in range(episodes):
        graph, platform = apps.episode(seed)
        paid = bill(play(graph, platform, policy), graph, platform, Users.of(graph, platform), Weights())
        rows.append((paid.time, paid.energy, paid.balance, paid.total))
    return np.array(rows)


def records(quick: bool) -> list[Record]:
    """Returns Com-DDPG's claims."""
    command = COMMAND + (" --quick" if quick else "")
    claim, bar = "what users pay under agents that talk, five trained seeds", "at least 10 % below random"
    if missing := absent("torch"):
        return [skipped(system=23, claim=claim, bar=bar, why=f"{missing} is not installed", command=command)]
    import torch

    from fleetcast.learning.rl.com_ddpg import Settings, train

    torch.set_num_threads(1)
    apps, count, seeds = Apps(), 10 if quick else EPISODES, range(1 if quick else 5)
    rules = {name: bills(make(), apps, count) for name, make in RULES.items()}
    learned: dict[str, list[Any]] = {}
    spent: dict[str, list[float]] = {}
    for name, switches in LEARNERS.items():
        for seed in seeds:
            made = train(apps, Settings(episodes=20, **switches) if quick else Settings(**switches), seed=seed)
            learned.setdefault(name, []).append(bills(Given(made.weights), apps, count))
            spent.setdefault(name, []).append(made.seconds)
    return _records(rules, learned, spent, apps, command)


def _records(
    rules: dict[str, Any], learned: dict[str, list[Any]], spent: dict[str, list[float]], apps: Apps, command: str
) -> list[Record]:
    total = {name: [float(rows[:, 3].mean()) for rows in runs] for name, runs in learned.items()}
    ours, said = float(np.mean(total["com_ddpg"])), "; ".join(
        f"{name} {rows[:, 3].mean():.3f}" for name, rows in rules.items()
    )  # fmt: skip
    parts = np.mean([rows.mean(0) for rows in learned["com_ddpg"]], 0)
    random, greedy = float(rules["random"][:, 3].mean()), float(rules["greedy (dmda)"][:, 3].mean())
    setting = (
        f"{apps.users} users, {apps.servers} servers, {len(rules['random'])} held-out episodes (synthetic), "
        f"{len(total['com_ddpg'])} seeds; shares of what users would pay alone: 0.5 time, 0.3 energy, 0.2 balance"
    )

    def band(values: list[float]) -> str:
        half = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        return f"{np.mean(values):.3f} +- {half:.3f}"

    found = [
        Record(
            system=23, claim="what users pay under agents that talk, five trained seeds", paper=Paper(setting="better "
            "than its baselines, no figure in the abstract"),
            ours=Ours(value=round(ours, 4), spread=f"{band(total['com_ddpg'])} over seeds; time {parts[0]:.3f}, energy "
                      f"{parts[1]:.3f}, balance {parts[2]:.3f}; {said}", setting=setting),
            null=Null(value=round(random, 4), what="random"), bar="at least 10 % below random, and below local",
            holds=ours <= 0.9 * random and ours < float(rules["local"][:, 3].mean()),
            reproduced="other setting", reason=OTHER,
            seconds=sum(spent["com_ddpg"]), command=command,
        ),
        Record(
            system=23, claim="what users pay under agents that talk over greedy earliest finish",
            ours=Ours(value=round(ours / greedy, 4), unit="x",
                      spread=f"over thrifty, greedy with the same aim: {ours / rules['thrifty'][:, 3].mean():.3f}x",
                      setting=setting),
            null=Null(value=1.0, what="greedy earliest finish"), bar="below 1", holds=ours < greedy,
            reproduced="other setting", reason=OTHER, command=command,
        ),
        Record(
            system=23, claim="CPU time to train agents that talk", paper=Paper(),
            ours=Ours(value=round(max(spent["com_ddpg"]) / 60, 2), unit="min", setting="the slowest seed, one thread"),
            null=Null(value=0.0, what="rules, which train nothing"), bar="at most 15 min",
            holds=max(spent["com_ddpg"]) <= 900, reproduced="other setting", reason="the paper gives no time",
            command=command,
        ),
    ]  # fmt: skip
    for name, value in total.items():
        if name == "com_ddpg":
            continue
        ratio = np.array(total["com_ddpg"]) / np.array(value)
        low = float(np.mean(ratio) + 1.96 * (np.std(ratio, ddof=1) / np.sqrt(len(ratio)) if len(ratio) > 1 else 0.0))
        found.append(Record(
            system=23, claim=f"what users pay under agents that talk over agents {name}",
            ours=Ours(value=round(float(np.mean(ratio)), 4), unit="x",
                      spread=f"paired by seed: {', '.join(f'{r:.3f}' for r in ratio)}; {name}: {band(value)}; at most "
                      f"{low:.3f} at 95 %", setting=setting),
            null=Null(value=1.0, what=f"agents {name}"), bar="at most 1.0 in the mean",
            holds=float(np.mean(ratio)) <= 1.0,
            reproduced="other setting", reason=OTHER, seconds=sum(spent[name]), command=command,
        ))  # fmt: skip
    return found


if __name__ == "__main__":
    sys.exit(main(records))
