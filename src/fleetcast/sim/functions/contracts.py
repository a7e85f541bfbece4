"""What every scale policy keeps, whatever it decides: both worlds find the same, and no pod-second is lost.

The walk asks a policy only when its decisions say so, the world of events at every arrival: where they agree, decisions
stand for as long as they say and rest on nothing that comes later.
"""

from __future__ import annotations

import numpy as np

from fleetcast.base.errors import FleetcastError
from fleetcast.base.rng import rng
from fleetcast.policy.route.invocations import Hash
from fleetcast.policy.scale import Policy
from fleetcast.scenario.workload.invocations import Invocations, assemble
from fleetcast.sim.functions.places import Node, Places
from fleetcast.sim.functions.world import Pods, play

TRACES = 12
"""Random traces that a policy is played on, half of them on a grid of seconds, so that events coincide."""


def keeps_warm(policy: Policy, seed: int) -> str:
    """Returns what is wrong with a scale policy on random traces, "" where nothing is."""
    for i in range(TRACES):
        trace, patience = instance(seed, i)
        try:
            walked = play(trace, policy, patience=patience)
            nodes = [Node(name, r) for r, name in enumerate(trace.regions)]
            seen = Places(trace, policy, nodes, Hash(), patience=patience).run().pods
        except FleetcastError as error:
            return f"on trace {i}: {error}"
        if (wrong := differ(walked, seen) or lost(walked)) != "":
            return f"on trace {i}: {wrong}"
    return ""


def differ(one: Pods, other: Pods) -> str:
    """Returns in what two runs of one trace differ, "" where in nothing."""
    if not np.array_equal(one.state, other.state):
        i = int(np.argmax(one.state != other.state))
        return f"request {i} meets its pod as {one.state[i]} and as {other.state[i]}: decisions do not stand"
    if len(one.start) != len(other.start):
        return f"{len(one.start)} pods and {len(other.start)}"
    for name in ("wait", "idle", "seconds"):
        if not np.allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-6):
            return f"{name} differs"
    return ""


def lost(pods: Pods) -> str:
    """Returns whether pod-seconds are not those of starting, running and idling together, "" where they are."""
    parts = pods.starting + pods.running + pods.idle
    return "" if np.allclose(pods.seconds, parts, rtol=1e-9, atol=1e-6) else "pod-seconds do not add up"


def instance(seed: int, i: int) -> tuple[Invocations, float]:
    """Returns a random small trace, and how long its asynchronous requests may wait."""
    draw = rng(seed, "contract", "functions", str(i))
    functions, n = int(draw.integers(1, 7)), int(draw.integers(0, 120))
    scale = float(draw.choice([1.0, 30.0]))
    time, lasts = scale * draw.uniform(0, 100, n), scale / 4 * draw.exponential(1.0, n)
    starts = scale / 6 * draw.exponential(1.0, (3 * functions, 4))
    if i % 2:
        time, lasts, starts = np.round(time), np.round(lasts), np.round(starts)
    trace = assemble(
        names=[f"f{f}" for f in range(functions)], function=draw.integers(0, functions, n), time=time, duration=lasts,
        memory=draw.integers(1, 9, functions) * 128e6, region=draw.integers(0, 2, functions), regions=("a", "b"),
        trigger=draw.integers(0, 2, functions), triggers=("TIMER-A", "APIG-S"),
        asynchronous=draw.random(functions) < 0.5,
        caller=np.where(draw.random(functions) < 0.5, np.arange(functions) - 1, -1), starts=starts,
        row=np.arange(functions + 1) * 3, span=110.0 * scale, source="random",
    )  # fmt: skip
    return trace, float(draw.choice([0.0, 2.0 * scale]))
