"""Simulates a complete plan: requests in, Outcome out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.record import ITERATIONS, Record
from fleetcast.base.rng import rng
from fleetcast.base.spec import build
from fleetcast.cost.intervals import intervals
from fleetcast.policy import memory
from fleetcast.policy import route as routes
from fleetcast.policy.order import requests as order
from fleetcast.scenario.fleet.failures import Downtime
from fleetcast.scenario.latencies import goodput, latency
from fleetcast.scenario.objective import judge
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.outcome import Requests as Served
from fleetcast.scenario.plan import ROLES, Plan, pool_label
from fleetcast.sim.serving import account, failing, kernel, reference
from fleetcast.sim.serving.prefixes import TIERS
from fleetcast.sim.serving.provision import limited, shares, taken
from fleetcast.sim.serving.quality import right_answers
from fleetcast.sim.serving.routing import (
    Run,
    assign,
    checked_choice,
    passes_of,
    pauses,
    speeds,
    split_roles,
    transfers,
    with_counts,
)
from fleetcast.sim.serving.setting import Server, Setting

Floats = NDArray[np.float64]


def simulate(state: Setting, plan: Plan, *, record: bool = False, by_step: bool = False) -> Outcome:
    """Returns what happens when ``plan`` serves the scenario's requests.

    Args:
        state: the scenario, resolved.
        plan: complete, from `completing.complete`.
        record: keep the event record; changes no result.
        by_step: one iteration at a time instead of event to event; the same result to rounding.
    """
    served, done, servers = serve(state, plan, record=record, by_step=by_step)
    start, end = float(done.arrival.min()), float((served.arrival + served.e2e).max())
    return _outcome(state, plan, servers, served, done, start, end, record, failing.downtimes(state, servers))


def serve(
    state: Setting, plan: Plan, *, record: bool = False, by_step: bool = False
) -> tuple[Served, Run, list[Server]]:
    """Returns when ``plan`` serves each request, what the loop counted, and the servers: `simulate` without account."""
    pools = zip(state.servers(plan), plan.serving, strict=True)
    servers = [server for server, pool in pools for _ in range(int(pool.replicas or 1))]  # type: ignore[arg-type]
    policy = build(routes, plan.route, "plan.route")
    requests = state.requests
    compiled = all(hasattr(s.batch, "rule") and _known(s) for s in servers)
    if requests.concurrency and not (
        getattr(policy, "static", False) or type(policy) in (routes.LeastLoaded, routes.SplitPhases)
    ):
        compiled = False  # a user's route that looks at loads must be asked as the loop goes
    if split_roles(servers) and type(policy) is not routes.SplitPhases:
        compiled = False
    run = _run_kernel if compiled else reference.run
    downs = failing.downtimes(state, servers)
    done = run(state, servers, policy, record=record, by_step=by_step, downs=downs)
    api = np.array([s.cost.api for s in servers])[done.began]
    api = api + np.array([s.cost.api_token for s in servers])[done.began] * requests.prompt
    served = Served(
        arrival=done.arrival, ttft=done.first - done.arrival + api, e2e=done.finish - done.arrival + api,
        output=requests.output, resource=done.where, began=done.began,
    )  # fmt: skip
    return served, done, servers


def _known(server: Server) -> bool:
    """Whether the compiled loop knows the pool's policies; a subclass may differ, so types must be the very ones."""
    return type(server.order) in (order.Fifo, order.ShortestPrompt) and type(server.memory) in (
        memory.Recompute, memory.Swap,
    )  # fmt: skip


def _run_kernel(
    state: Setting, servers: Sequence[Server], policy: Any, *, record: bool, by_step: bool,
    downs: Sequence[Downtime | None] = (),
) -> Run:  # fmt: skip
    """Runs the compiled loop."""
    requests = state.requests
    n = len(requests)
    shared = kernel.Requests(requests.starts(), requests.prompt, requests.output)
    moving = type(policy) is routes.SplitPhases
    if moving or downs:
        shared.moving()
    costs: dict[int, kernel.Costs] = {}
    for s in servers:
        if id(s.cost) not in costs:
            costs[id(s.cost)] = kernel.Costs(dict(s.cost.tables), dict(s.cost.scalars))
    caches = [state.caches(s) for s in servers]
    replicas = [
        kernel.Replica(
            costs[id(s.cost)], shared, tuple(s.batch.rule()), shortest=type(s.order) is order.ShortestPrompt,
            swapping=s.memory.swap, stepwise=by_step, record=record,
            output=passes_of(s, requests) if s.speculation is not None else None, caches=lanes or None,
        )
        for s, lanes in zip(servers, caches, strict=True)
    ]  # fmt: skip
    weights = speeds(servers)
    if downs:
        return with_counts(failing.drive(state, policy, servers, replicas, weights.tolist(), downs, shared), caches)
    where = began = np.zeros(n, dtype=np.int32)
    least = type(policy) is routes.LeastLoaded
    if len(replicas) > 1 and not least:
        where = assign(policy, state, weights) if getattr(policy, "static", False) else where
    if moving:
        ends, starts_ = kernel.zeros("i", n), kernel.zeros("i", n)
        roles = [ROLES.index(s.pool.role) for s in servers]
        links = transfers(state, servers, policy.layerwise)
        pause_ = pauses(state, servers).tolist() if requests.concurrency else []
        kernel.drive_split(
            replicas, roles, weights.tolist(), ends, starts_, links, requests.concurrency, pause_, float(policy.spill)
        )
        where, began = np.array(ends, dtype=np.int32), np.array(starts_, dtype=np.int32)
    elif requests.concurrency:
        sent = kernel.column("i", where)
        pause = kernel.column("d", pauses(state, servers))
        kernel.drive_closed(replicas, kernel.column("d", weights), sent, requests.concurrency, least, pause)
        where = np.array(sent, dtype=np.int32)
    elif len(replicas) == 1:
        kernel.drive(replicas[0], kernel.column("i", np.arange(n, dtype=np.int32)))
    elif least:
        sent = kernel.zeros("i", n)
        kernel.drive_least_loaded(replicas, kernel.column("d", weights), sent)
        where = np.array(sent, dtype=np.int32)
    elif getattr(policy, "static", False):
        for i, replica in enumerate(replicas):
            kernel.drive(replica, kernel.column("i", np.flatnonzero(where == i).astype(np.int32)))
    else:
        where = _drive_policy(state, policy, replicas, weights)
    arrival, first, finish = (np.array(c, dtype=np.float64) for c in shared.times())
    reports = [r.report() for r in replicas]
    return with_counts(Run(arrival, first, finish, where, began if moving else where, reports), caches)


def _drive_policy(state: Setting, policy: Any, replicas: Sequence[Any], weights: Floats) -> NDArray[np.int32]:
    """Runs a user's route that looks at the replicas: every replica is brought to each arrival's instant."""
    q = state.requests
    stream = rng(state.scenario.seed, "route")
    session = q.session if q.session is not None else np.full(len(q), -1)
    where = np.zeros(len(q), dtype=np.int32)
    for i, (t, p, s) in enumerate(zip(q.arrival.tolist(), q.prompt.tolist(), session.tolist(), strict=True)):
        for replica in replicas:
            while replica.state()[0] < t:
                replica.commit()
        view = routes.View(load=[r.state()[1] for r in replicas], weight=weights.tolist())
        where[i] = checked_choice(policy.choose(routes.Arrival(i, t, p, s), view, stream), len(replicas), policy)
        replicas[where[i]].push(i, t)
    for replica in replicas:
        while replica.state()[0] < kernel.INF:
            replica.commit()
    return where


def _outcome(
    state: Setting, plan: Plan, servers: Sequence[Server], served: Served, done: Run, start: float, end: float,
    record: bool, downs: Sequence[Downtime | None] = (),
) -> Outcome:  # fmt: skip
    scenario, requests = state.scenario, state.requests
    span = end - start
    reports = done.reports
    counts: NDArray[np.int64] = np.bincount(done.began, minlength=len(servers))
    # a request's first token is made where it began and the others where it ended
    decoded = np.bincount(done.where, weights=_decoded(servers, done, requests), minlength=len(servers))
    out_tokens: Floats = np.asarray(counts + decoded, dtype=np.float64)
    prefills: NDArray[np.int64] = counts
    if done.lost is not None:
        out_tokens = out_tokens + done.lost.tokens
        prefills = prefills + done.lost.firsts
    work = [
        account.work_done(s.cost, r, int(o), int(n))
        for s, r, o, n in zip(servers, reports, out_tokens, prefills, strict=True)
    ]
    away = [down.within(start, end) if down is not None else [] for down in downs]
    gone = [x if down is not None and not down.billed else [] for x, down in zip(away, downs, strict=True)]
    joules = account.energy_terms(servers, work, span, state.tree.pue, gone)
    energy = sum(joules.values())
    dollars = account.money(servers, start, end, gone)
    grams = account.carbon(energy, state.grid, start, end)
    prompt_tokens, output_tokens = state.tokens
    devices = sum(count for s in servers for _, count in s.takes)
    flops = sum((w["flops"] + w["attention_flops"]) * s.cost.devices for w, s in zip(work, servers, strict=True))
    peak = sum(s.cost.work["peak"] * s.cost.devices for s in servers)
    traffic = sum((w["bytes"] + w["cache_bytes"]) * s.cost.devices for w, s in zip(work, servers, strict=True))
    bandwidth = sum(s.cost.work["bandwidth"] * s.cost.devices for s in servers)
    million = output_tokens / 1e6
    metrics: dict[str, Any] = latency(served) | {
        "throughput": output_tokens / span,
        "goodput": goodput(served, scenario.slo) / span,
        "energy": energy,
        "cost": dollars if dollars is not None else float("nan"),
        "carbon": grams,
        "per_million_output_tokens": {
            "energy": energy / million, "carbon": grams / million,
            "cost": dollars / million if dollars is not None else float("nan"),
        },
        "mfu": flops / (peak * span), "mbu": traffic / (bandwidth * span), "makespan": span, "power": energy / span,
        "devices": devices, "requests": len(requests), "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens, "preemptions": sum(r["preemptions"] for r in reports),
    }  # fmt: skip
    times: dict[str, float] = {}
    for s, r in zip(servers, reports, strict=True):
        for term, seconds in account.time_terms(s.cost, r).items():
            times[term] = times.get(term, 0.0) + seconds
    down_time = [sum(b - a for a, b in x) for x in away]
    times["idle"] = max(0.0, span * len(servers) - sum(r["busy"] for r in reports) - sum(down_time))
    if done.lost is not None:
        times["down"] = sum(down_time)
        metrics |= {
            "availability": 1.0 - sum(down_time) / (span * len(servers)), "failures": sum(map(len, away)),
            "restarts": int(done.lost.tries.sum()), "restarted": int(np.count_nonzero(done.lost.tries)),
        }  # fmt: skip
    names = _names(plan)
    tightest = min(servers, key=lambda s: s.room.kv / s.room.total)
    notes = [
        *state.tree.echo(),
        *requests.notes,
        *_unique(note for s in servers for note in s.cost.notes),
    ]
    notes += beyond_context(state, servers)
    if done.lost is not None:
        notes.append(
            f"replicas are up {metrics['availability']:.1%} of their time; failures: {metrics['failures']}, requests "
            f"started again from their prompts: {metrics['restarted']}; first tokens already sent stand"
        )
    if any(s.cost.overlap is not None for s in servers):
        share = account.of_optimal(servers, prompt_tokens + output_tokens, span)
        notes.append(
            f"{share:.1%} of the optimum: prompt and output tokens per second over FLOP/s of the devices' products / "
            f"(2 x active parameters), {servers[0].cost.work['optimal']:,.0f} a second per {servers[0].group.device.id}"
        )
    right = right_answers([s.quality for s in servers], done.began, done.where)
    if right is not None:
        metrics |= {"quality": right, "error": 1.0 - right}
    notes += _unique(
        f"{s.model.id} in {s.pool.dtype}: {s.quality.said() if s.quality is not None else 'quality was not measured'}"
        for s in servers if state.scores
    )  # fmt: skip
    prompts = _prompts(servers, reports)
    if prompts:
        metrics["cached"] = 1.0 - prompts["computed"] / max(sum(prompts.values()), 1)
    elif any(s.caching is not None for s in servers):
        notes.append("prefix_cache finds nothing: the traffic does not say what its prompts share")
    if dollars is None:
        free = ", ".join(sorted({g.device.id for s in servers for g, _ in s.takes if g.price is None}))
        notes.append(f"{free} has no rental price: cost is unknown; set fleet.price")
    return Outcome(
        source="simulated",
        metrics=metrics,
        intervals=intervals(
            metrics, [s.cost for s in servers], plan, sorted({g.device.id for s in servers for g, _ in s.takes}),
            own_share(state, span, sum(r["busy"] for r in reports) / len(servers)),
        ),
        slo=judge(metrics, scenario.slo), plan=plan.table(),
        breakdown={"time": times, "energy": joules, "memory": tightest.room.table()}
        | ({"prompts": prompts} if prompts else {}),
        resources=tuple(
            {
                "name": name, "devices": s.cost.devices, "device": s.group.device.id,
                "busy": r["busy"] / span if span > 0 else 0.0, "requests": int(c),
                "peak_running": r["peak_running"],
                "kv_tokens": s.room.tokens * s.layout.pipeline_parallel * s.layout.attention_dp,
            }
            | ({"up": 1.0 - down_time[i] / span} if downs else {})
            for i, (name, s, r, c) in enumerate(zip(names, servers, reports, counts, strict=True))
        )
        + tuple(
            {
                "name": f"drafters of {name}", "devices": d.devices, "device": d.group.device.id,
                "drafting": w["draft_busy"] / span if span > 0 else 0.0,
                "kv_tokens": d.room.tokens * s.layout.attention_dp,
            }
            for name, s, w in zip(names, servers, work, strict=True)
            if (d := s.drafters) is not None
        ),
        notes=tuple(notes),
        provenance={
            "seed": scenario.seed, "requests": requests.digest(),
            "batch_limited": any(r["limited"] for r in reports),
            "budget_truncated": any(r["truncated"] for r in reports),
            "iterations": sum(r["iterations"] for r in reports),
            **_limits(state, plan),
        },
        record=_record(reports, names, servers) if record else None, requests=served,
    )  # fmt: skip


def _prompts(servers: Sequence[Server], reports: Sequence[Any]) -> dict[str, float]:
    """Returns where the prompt tokens of requests that entered were found, or that they were computed; {} uncached."""
    found: dict[str, float] = {}
    for server, report in zip(servers, reports, strict=True):
        counts = report["prefixes"]
        here = {tier: float(counts[tier] * server.engine.block) for tier in TIERS}
        here["computed"] = counts["asked"] - sum(here.values())
        for name, tokens in here.items():
            found[name] = found.get(name, 0.0) + tokens
    return found if any(found.values()) else {}


def _limits(state: Setting, plan: Plan) -> dict[str, Any]:
    """What the plan takes of the fleet's budget and spend, where it has them."""
    if not limited(state.tree):
        return {}
    parts = list(zip(state.servers(plan), plan.serving, strict=True))
    return {"limits": shares(state.tree, taken(state.tree, parts))}


def _decoded(servers: Sequence[Server], done: Run, requests: Any) -> Floats:
    """Returns the tokens each request's passes after its first token processed: those made, or those checked."""
    found = requests.output.astype(np.float64) - 1.0
    for i, server in enumerate(servers):
        if server.speculation is not None:
            here = done.where == i
            found[here] = (passes_of(server, requests)[here] - 1) * server.cost.work["queries"]
    return np.asarray(found)


def beyond_context(state: Setting, servers: Sequence[Server]) -> list[str]:
    """Returns a sentence where requests are longer than a model's positions: engines refuse such requests."""
    context = min((s.model.context for s in servers if s.model.context), default=0)
    if not context or state.longest <= context:
        return []
    count = int((state.requests.prompt + state.requests.output > context).sum())
    name = next(s.model.id or s.model.architecture for s in servers if s.model.context == context)
    return [
        f"{count} of {len(state.requests)} requests are longer than the context of {name}, {context:,} tokens: "
        "an engine would refuse them, here they are served"
    ]


def own_share(state: Setting, span: float, busy: float) -> float:
    """Returns the share of a run's length that a slower server would stretch.

    In a closed loop that is the time it is busy; under arrivals by the clock only what is left after the last one.
    """
    if state.requests.concurrency:
        return min(1.0, busy / span)
    return max(0.0, 1.0 - state.requests.duration / span)


def _names(plan: Plan) -> list[str]:
    many = len(plan.serving) > 1
    return [
        (f"{pool.on or pool_label(pool)}/{i}" if many else f"replica {i}")
        for pool in plan.serving
        for i in range(int(pool.replicas or 1))  # type: ignore[arg-type]
    ]


def _unique(rows: Any) -> list[str]:
    return list(dict.fromkeys(rows))


def _record(reports: Sequence[dict[str, Any]], names: Sequence[str], servers: Sequence[Server]) -> Record:
    rows = [
        (
            t,
            d,
            i,
            w,
            k,
            m,
            used / (s.room.blocks * s.layout.pipeline_parallel * s.layout.attention_dp),
        )
        for i, (report, s) in enumerate(zip(reports, servers, strict=True))
        for t, d, w, k, m, used in report["log"]
    ]
    rows.sort(key=lambda row: (row[0], row[2]))
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    kinds = (np.float64, np.float64, np.int32, np.int32, np.int64, np.int64, np.float64)
    arrays = [np.array(c, dtype=k) for c, k in zip(columns, kinds, strict=True)]
    time, duration, resource, what, count, items, level = arrays
    return Record(
        time=time, duration=duration, resource=resource, what=what, count=count, items=items, level=level,
        resources=tuple(names), whats=ITERATIONS,
    )  # fmt: skip
