"""Draws a graph on five agents of this machine: forecast above, measured below, one agent killed on the way."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from benchmarks.agents import NAMES, constellation, on_agents
from benchmarks.agents_graphs import graphs
from fleetcast.cost.graphs.platform import Platform
from fleetcast.policy.order.tasks import CriticalPath
from fleetcast.scenario.workload.graphs import Task, TaskGraph
from fleetcast.sim.graph.world import play
from fleetcast.view import svg

if TYPE_CHECKING:
    from pathlib import Path

    from fleetcast.runtime.agents.local import Local
    from fleetcast.runtime.agents.orchestrator import Orchestrator

GRAPH, KILLED, AT = "nested-9", 1, 1.6
Span = tuple[int, float, float, str, str]
"""Lane, begin, end, class, what is said."""


def killed() -> str:
    """Draws one of the frozen graphs, whose second agent is killed after some seconds and has no successor."""
    graph = next(g for g in graphs() if g.name == GRAPH)
    seconds = graph.seconds(0.2)
    edges = [(f"t{a}", f"t{b}") for a, b in graph.edges]
    made = TaskGraph.of([Task(name=f"t{i}", work=s) for i, s in enumerate(seconds)], edges, unit="s")
    plan = play(made, Platform.of({name: list(seconds) for name in NAMES}), CriticalPath())
    told = [
        (int(w), float(s), float(f), f"part c{i % 4}", f"t{i}")
        for i, (w, s, f) in enumerate(zip(plan.worker, plan.start, plan.finish, strict=True))
    ]  # fmt: skip

    async def work(orchestrator: Orchestrator, local: Local, allow: Path) -> list[Span]:
        from fleetcast.runtime.agents.run import Run

        run = Run(orchestrator, constellation(graph, seconds), CriticalPath())
        result = asyncio.create_task(run.result())
        while not (victim := next((a for a in run.attempts if a.begun > AT and not a.ended), None)):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        os.kill(local.processes[victim.peer.name].pid, signal.SIGKILL)
        await result
        return [
            (
                NAMES.index(a.peer.name), a.begun, a.ended,
                f"part c{int(a.task[1:]) % 4}" if a.how == "ok" else "part c5", f"{a.task}: {a.how}",
            )
            for a in run.attempts
        ]  # fmt: skip

    spans: list[Span] = on_agents(work, pulse=0.2, lease=0.6)
    end = 1.02 * max(*(s[2] for s in spans), *(s[2] for s in told))
    body: list[str] = []
    for name, rows, top in (("forecast, nothing fails", told, 40.0), ("measured, an agent is killed", spans, 250.0)):
        x, each = svg.Scale(0.0, end, 70, 730), 30.0
        axes = svg.axes(x, svg.Scale(0.0, 1.0, top + each * len(NAMES), top), "s", "", "", name)
        body += [piece for piece in axes if 'class="grid"' not in piece and 'text-anchor="end"' not in piece]
        for lane, agent in enumerate(NAMES):
            body.append(svg.text(62, top + each * lane + 19, agent, "tick", "end"))
        for lane, begin, finish, kind, said in rows:
            body.append(svg.rect(x(begin), top + each * lane + 3, x(finish) - x(begin) - 1, each - 6, kind, said))
    body += [
        svg.rect(70, 448, 12, 12, "part c5"),
        svg.text(88, 458, "lost with its agent, run again elsewhere", "tick"),
    ]
    return svg.figure(750, 470, body, "tasks of a graph on five agents over time, as forecast and as run")
