"""A scenario's plan started on this machine: completed as a simulation completes it, then launched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.runtime.llm.launch import Launched, check_context, launch, refuse
from fleetcast.runtime.llm.paging import BLOCK
from fleetcast.runtime.measure.machine import this_machine
from fleetcast.scenario import plan as plans
from fleetcast.scenario.load import ServingScenario
from fleetcast.view.verbs import Progress, Source, completed, serving

if TYPE_CHECKING:
    from fleetcast.runtime.replay import Replay
    from fleetcast.scenario.plan import Plan, Pool
    from fleetcast.scenario.workload.requests import Requests
    from fleetcast.sim.serving.setting import Setting

ENGINE = "fleetcast"
"""The profile of the engine that runs here; a plan's default for runs."""


@dataclass(frozen=True)
class Started:
    """An engine that runs a scenario's plan, and the scenario with everything looked up."""

    setting: Setting
    plan: Plan
    launched: Launched


def start(
    scenario: ServingScenario, *, threads: int | None = None, device: str = "auto", bounded: bool = False,
    warmup: int | None = None,
) -> Started:  # fmt: skip
    """Returns an engine that runs the scenario's plan on this machine; what the plan leaves open is one replica's.

    Args:
        scenario: its model, plan and, for the size of the cache, its fleet.
        threads: of the engine's products; None = the processor's cores.
        device: "cpu", "cuda", or "auto": CUDA where the fleet's device is a GPU and torch finds one for each rank, else
            the processor.
        bounded: keep no more cache than the largest batch of the longest contexts fills.
        warmup: requests before the scenario's, where these are all that comes: no more cache is kept than they fill
            together. None = anything may come.

    Raises:
        SpecError: anything in the scenario that cannot be, or a request beyond the model's context.
        Unsupported: what the engine cannot run, with the reason.
        Infeasible: it does not fit the fleet's device, or this machine.
        MissingExtra: torch or safetensors is not installed.
    """
    if scenario.workload.exits is not None or scenario.slo.quality is not None:
        raise Unsupported("workload.exits, slo.quality: answers are timed, not judged", "Leave exits and quality out")
    plan = scenario.plan
    if len(plan.serving) > 1:
        limit = "one pool that serves: the engine runs one replica"
        raise Unsupported(f"plan.pools: {len(plan.serving)} pools cannot run on one processor", f"Write {limit}")
    path = "plan" if len(plan.pools) == 1 else f"plan.pools[{plan.pools.index(plan.serving[0])}]"
    refuse(plan.serving[0], path, plan.draft)
    setting, done = completed(scenario.with_plan(opened(scenario)))
    server = setting.server(done.serving[0], done.draft)
    refuse(server.pool, path, done.draft)
    blocks, planned = server.room.tokens // BLOCK, server.group.device
    # a plan for a processor is measured on one, whatever else is here
    wanted = "cpu" if device == "auto" and planned.kind != "gpu" else device
    found = launch(
        str(server.pool.model or scenario.workload.model), server.pool, blocks=blocks, draft=done.draft,
        folder=Path(scenario.folder), watermark=server.engine.watermark, seed=scenario.seed,
        threads=threads, device=wanted, bounded=bounded, path=path,
        most=None if warmup is None else filled(setting.requests, warmup),
    )  # fmt: skip
    check_context(found.shape, setting.longest, found.engine.blocks.count)
    notes = list(found.notes)
    here = where(found)
    if found.device != "cpu":
        notes.append(f"ran on {here} by CUDA; the fleet's device is {planned.id}")
    elif planned.id != here:
        notes.append(f"ran on {here}, not on the fleet's {planned.id}: only the plan is the scenario's")
    if server.engine.id != ENGINE:
        notes.append(f"ran on Fleetcast's own engine with the policies of {server.engine.name}")
    return Started(setting, done, replace(found, notes=tuple(notes)))


def run(
    source: Source, *, speed: float = 1.0, warmup: int = 3, threads: int | None = None, device: str = "auto",
    seed: int | None = None, progress: Progress | None = None,
) -> Replay:  # fmt: skip
    """Returns what becomes of the scenario's requests when its plan runs on this machine.

    Args:
        source: a Scenario or what `load` takes.
        speed: 2 = requests come twice as fast.
        warmup: requests before, which do not count.
        threads: of the engine's products; None = the processor's cores.
        device: "cpu", "cuda", or "auto": CUDA where the fleet's device is a GPU and torch finds one for each rank, else
            the processor.
        seed: instead of the scenario's.
        progress: called as requests are settled.

    Raises:
        SpecError: as `start`, or a setting out of range.
        Unsupported: what the engine cannot run, with the reason.
        Infeasible: it does not fit.
        MissingExtra: torch or safetensors is not installed.
    """
    from fleetcast.runtime.replay.local import replay_here

    scenario = serving(source, "run", seed=seed)
    bounded = scenario.plan.serving[0].prefix_cache in (None, "off")
    begun = start(scenario, threads=threads, device=device, bounded=bounded, warmup=warmup)
    launched = begun.launched
    known = {
        "device": where(launched), "dtype": launched.dtype, "threads": launched.threads,
        "weights": "read" if launched.real else "random",
    }  # fmt: skip
    if launched.drafts is not None:
        known["draft_weights"] = "read" if launched.drafts else "random"
    try:
        done = replay_here(
            begun.setting.requests, launched.engine, slo=scenario.slo, plan=begun.plan.table(),
            model=scenario.workload.model, speed=speed, warmup=warmup, seed=scenario.seed, known=known,
            progress=progress,
        )  # fmt: skip
    finally:
        launched.engine.close()
    notes = (*done.outcome.notes, *launched.notes, *drafted(launched))
    return replace(done, outcome=replace(done.outcome, notes=notes))


def drafted(launched: Launched) -> tuple[str, ...]:
    """Returns what became of an engine's drafts, in sentences; none where it drafts nothing."""
    found = launched.engine.speculation
    if found is None:
        return ()
    if not found.drafted:
        return ("drafts: there were none",)
    rates = ", ".join(f"{rate:.2f}" for rate in found.profile.rates)
    return (
        f"drafts: {found.drafted / found.calls:.2f} tokens a call of the model, {found.accepted / found.calls:.2f} of "
        f"them right; acceptance = [{rates}], warm-up included",
    )


def filled(requests: Requests, warmup: int) -> int:
    """Returns the blocks that requests fill where nothing of any is given back, ``warmup`` of the longest before them.

    Two more each are for drafts that are checked.
    """
    tokens = requests.prompt + requests.output
    blocks = -(-tokens // BLOCK) + 2
    return int(blocks.sum() + warmup * blocks.max())


def where(launched: Launched) -> str:
    """Returns what an engine runs on: the CUDA device's name, or the processor's id."""
    return this_machine().id if launched.device == "cpu" else launched.device


def refuse_device(device: str) -> None:
    """Raises SpecError where a device is named for a server that runs elsewhere."""
    if device != "auto":
        raise SpecError(
            "device", "is for a model that runs here", value=device, limit="left out with --url",
            hint="Start the server on that device",
        )  # fmt: skip


def for_servers_only(**settings: object) -> None:
    """Raises SpecError where a setting that only a server understands is given without one."""
    for name, value in settings.items():
        if value:
            raise SpecError(
                "url", f"is missing, and --{name.replace('_', '-')} is for a server", limit="http://HOST:PORT",
                hint="Add --url, or leave it out: the engine here needs neither",
            )  # fmt: skip


def opened(scenario: ServingScenario) -> Plan:
    """Returns the scenario's plan with what a run needs where it leaves it open: one replica of each, this engine."""
    pools = [
        plans.replace(
            pool, tensor_parallel=pool.tensor_parallel or 1, engine=pool.engine or ENGINE,
            dtype=pool.dtype if pool.dtype not in (None, "auto") else _stored(scenario, pool),
        )
        for pool in scenario.plan.pools
    ]  # fmt: skip
    done = [
        pool if pool.role == "draft" else plans.replace(
            pool, replicas=pool.replicas or 1, pipeline_parallel=pool.pipeline_parallel or 1,
            prefix_cache=pool.prefix_cache or "off",
        )
        for pool in pools
    ]  # fmt: skip
    return msgspec.structs.replace(scenario.plan, pools=tuple(done))


def _stored(scenario: ServingScenario, pool: Pool) -> str | None:
    """Returns the dtype that the engine runs a pool's model in; None where a draft pool leaves the model to others."""
    from fleetcast.sim.serving.setting import model_at

    if pool.role == "draft" and pool.model is None:
        return None
    model = model_at(pool.model or scenario.workload.model, Path(scenario.folder))
    return "fp32" if model.precision.rest == "fp32" else "bf16"
