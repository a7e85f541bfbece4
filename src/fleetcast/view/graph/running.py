"""`fleetcast run` of a task graph: agents run it, here or where the devices are, and what they did is an Outcome."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.base.show import show
from fleetcast.base.spec import describe
from fleetcast.scenario.load import GraphScenario
from fleetcast.sim.graph.outcome import outcome as outcome_of
from fleetcast.sim.graph.setting import DEFAULT, Setting, setting
from fleetcast.sim.graph.world import play
from fleetcast.view.graph.agents import LOCAL, Agents, address, planner_of, token

if TYPE_CHECKING:
    from fleetcast.policy.order.tasks import Policy
    from fleetcast.runtime.agents.graphs import Planned
    from fleetcast.runtime.agents.orchestrator import Orchestrator
    from fleetcast.runtime.agents.run import Run
    from fleetcast.scenario.outcome import Outcome


def run(
    scenario: GraphScenario, *, agents: Agents = LOCAL, record: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:  # fmt: skip
    """Returns what agents make of a graph under the plan's order, HEFT where it names none.

    Args:
        scenario: the graph and the fleet; every device is an agent.
        agents: where they are.
        record: keep the event record.
        progress: called with (tasks done, tasks).

    Raises:
        SpecError: anything in the scenario or the options that cannot be.
        MissingExtra: aiohttp is absent.
        Unsupported: more devices than agents are started here.
        Infeasible: a device of the fleet has no agent in time.
        PolicyError: an order that decides what cannot be.
    """
    state = setting(scenario)
    named = scenario.plan.orders
    order = named[0] if named else DEFAULT
    done, planned, policy = asyncio.run(_run(state, state.policy(order), agents, progress))
    forecast = play(state.graph, state.platform, state.policy(order)).makespan
    return _outcome(state, done, planned, describe(policy), agents, forecast, record)


async def _run(
    state: Setting, policy: Policy, options: Agents, progress: Callable[[int, int], None] | None
) -> tuple[Run, Planned, Policy]:  # fmt: skip
    from fleetcast.runtime.agents.graphs import Planned
    from fleetcast.runtime.agents.run import Run

    planned, planner = Planned(state.graph, state.platform), planner_of(options)
    ended = 0

    def watch(event: str, task: str, value: Any) -> None:
        nonlocal ended
        if progress is not None and event in ("ok", "failed", "late"):
            ended += 1
            progress(min(ended, len(state.graph)), len(state.graph))

    async with _agents(planned.agents, options) as orchestrator:
        calls = {call for peer in orchestrator.up() for call in peer.calls} - {"sleep", "spin"}
        plain = {call for peer in orchestrator.up() for call in peer.calls - peer.programs}
        value = planned.constellation(calls, options.emulate, calls - plain)
        done = Run(
            orchestrator, value, policy, estimates=planned, places=planned.places, patience=options.wait,
            deadline=options.deadline, watch=watch, planner=planner,
        )  # fmt: skip
        await done.result()
    return done, planned, policy


@contextlib.asynccontextmanager
async def _agents(names: dict[str, int], options: Agents) -> AsyncIterator[Orchestrator]:
    """The fleet's agents: processes that are started here, or whoever comes."""
    if not options.listen:
        from fleetcast.runtime.agents.local import started

        async with started(list(names), allow=options.allow, slots=names) as (orchestrator, _):
            yield orchestrator
        return
    if options.allow is not None:
        raise SpecError(
            "--allow", "is for agents that are started here", value=str(options.allow), limit="left out with --listen",
            hint="Give it to each agent: fleetcast agent URL --allow FILE",
        )  # fmt: skip
    from fleetcast.runtime.agents.orchestrator import Orchestrator

    host, port = address(options.listen)
    orchestrator = Orchestrator(host, port, token=token(options.token_env))
    url = await orchestrator.start()
    try:
        print(f"waiting at {url} for {', '.join(names)}", flush=True, file=sys.stderr)
        until = asyncio.get_running_loop().time() + options.wait
        while missing := [n for n in names if not ((p := orchestrator.peers.get(n)) and p.up and p.ready)]:
            if asyncio.get_running_loop().time() > until:
                raise Infeasible(
                    f"a fleet of agents; {', '.join(missing[:6])} did not come", need=len(names),
                    have=len(names) - len(missing), unit="agents", hint="Start them: fleetcast agent URL --name NAME",
                )  # fmt: skip
            await asyncio.sleep(0.05)
        yield orchestrator
    finally:
        await orchestrator.stop("the run is over")


def _outcome(
    state: Setting, done: Run, planned: Planned, order: dict[str, Any], options: Agents, forecast: float, record: bool
) -> Outcome:
    from fleetcast.runtime.agents.graphs import schedule_of

    value = done.value
    found = outcome_of(state, schedule_of(done, planned), order, record=record)
    well = [a for a in done.attempts if a.how == "ok"]
    over = [a.ended - a.begun - a.seconds for a in well]
    emulated = sum(task.call == options.emulate for task in value.tasks.values())
    failed = [name for name, reason in value.reasons.items() if reason]
    makespan = max((a.ended for a in done.attempts), default=0.0)
    metrics = dict(found.metrics) | {
        "makespan": makespan, "forecast": forecast, "failed": len(failed), "attempts": len(done.attempts),
        "dispatch": median(over) if over else 0.0, "agents": len(planned.agents),
    }  # fmt: skip
    notes = [
        f"{len(planned.agents)} agents {'that came' if options.listen else 'on this machine'}; the forecast is "
        f"{show(forecast, 's')}, so the run took {makespan / forecast - 1.0:+.1%}" if forecast else "nothing took time",
        "energy, cost and carbon are the fleet's watts and prices over these times, not measured",
    ]  # fmt: skip
    if emulated:
        doing = "slept" if options.emulate == "sleep" else "kept a core busy"
        notes.append(
            f"{emulated} of {len(value.tasks)} tasks emulated: an agent {doing} for the seconds of the forecast, "
            "after what the task reads would have arrived"
        )
    if strange := sum(a.worker >= len(state.platform) for a in well):
        notes.append(f"{strange} tasks ran on agents or slots that the fleet does not have: they are not in its times")
    if options.planner:
        more = len(set(value.tasks) - set(planned.names))
        notes.append(
            f"the planner was asked {done.batches} times; tasks that it added: {more}, which are in the makespan but "
            "not in the fleet's energy and times"
        )
    notes += [f"{name}: {value.reasons[name]}" for name in failed[:5]]
    if len(failed) > 5:
        notes.append(f"and {len(failed) - 5} tasks more that failed")
    return replace(found, source="measured", metrics=metrics, notes=(*notes, *done.notes, *found.notes))
