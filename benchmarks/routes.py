"""What session-sticky routing buys and what it costs: synthetic sessions, no measured trace has them.

A request can reuse its session's cached prefix only where the session's last request ran. This counts how often a
cache without bounds could be hit, how even the load stays, and how many sessions move when a replica is added;
`benchmarks.prefix_cache` simulates the caches themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, cpu_seconds, main
from fleetcast.base.rng import rng
from fleetcast.policy import route

REPLICAS, SESSIONS, TURNS = 8, 2000, 8


def choices(policy: route.Policy, session: list[int], replicas: int) -> np.ndarray:
    """Returns the replica of each request."""
    view = route.View(load=[0] * replicas, weight=[1.0] * replicas)
    stream = rng(0, "routes")
    rows = (policy.choose(route.Arrival(i, 0.0, 100, s), view, stream) for i, s in enumerate(session))
    return np.fromiter(rows, dtype=np.int64, count=len(session))


def reuse(where: np.ndarray, session: np.ndarray) -> float:
    """Returns the share of follow-up requests that meet the replica of their session's last request."""
    last: dict[int, int] = {}
    hits = follow = 0
    for s, w in zip(session.tolist(), where.tolist(), strict=True):
        if s in last:
            follow += 1
            hits += last[s] == w
        last[s] = w
    return hits / follow


def records(quick: bool) -> list[Record]:
    """Returns the claim of `policy.route.prefix_hash`."""
    del quick
    start = cpu_seconds()
    draw = rng(0, "sessions")
    session = draw.permutation(np.repeat(np.arange(SESSIONS), TURNS))
    sticky = choices(route.PrefixHash(), session.tolist(), REPLICAS)
    turns = choices(route.RoundRobin(), session.tolist(), REPLICAS)
    more = choices(route.PrefixHash(), session.tolist(), REPLICAS + 1)
    first = np.unique(session, return_index=True)[1]
    moved = float((sticky[first] != more[first]).mean())
    load = np.bincount(sticky, minlength=REPLICAS)
    found = reuse(sticky, session)
    return [
        Record(
            system=5,
            claim="session-sticky routing sends a session's requests where its prefix is cached",
            paper=Paper(setting="rendezvous hashing (1998): only the sessions of a new node move"),
            ours=Ours(
                value=found, unit="share of follow-ups that meet their prefix",
                spread=f"busiest replica {load.max() / load.mean():.2f}x the mean; {moved:.3f} of sessions move "
                f"to a ninth replica (least possible {1 / (REPLICAS + 1):.3f})",
                setting=f"synthetic: {SESSIONS} sessions of {TURNS} requests, {REPLICAS} replicas",
            ),
            null=Null(value=round(reuse(turns, session), 3), what="round robin"),
            bar="every follow-up meets its prefix; at most 1.25/(n+1) of the sessions move",
            holds=found == 1.0 and moved <= 1.25 / (REPLICAS + 1),
            reproduced="other setting",
            reason="synthetic sessions: the packaged traces have none",
            skipped=None, seconds=cpu_seconds() - start, command="python -m benchmarks.routes",
        )
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
