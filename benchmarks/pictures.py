"""Draws the pictures of the documentation from real runs: the figures of the HTML report, each as a file of its own.

``python -m benchmarks.pages --runs`` writes them to ``docs/images``. The runs are the packaged examples, so anyone
can see the same figures with ``fleetcast plan mixed-fleet --report report.html``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

import fleetcast
from benchmarks import pictures_agents as agents
from benchmarks import pictures_carbon as carbon
from benchmarks import pictures_functions as functions
from benchmarks import pictures_learned_jobs as learned_jobs
from benchmarks import pictures_packing as packing
from benchmarks import pictures_pebbling as pebbling
from benchmarks import pictures_streams as streams
from benchmarks import pictures_unlike as unlike
from benchmarks import pictures_vote as voting
from benchmarks.pictures_data import mounts_region
from benchmarks.pictures_jobs import jobs_queue
from fleetcast.scenario.plan import Plan
from fleetcast.sim.training.run import long_run
from fleetcast.view import figures, plots, svg, verbs
from fleetcast.view.outputs import decided
from fleetcast.view.picture import alone
from fleetcast.view.starts import draw_parts, watch_starts


def draw() -> dict[str, str]:
    """Returns the pictures: file name -> SVG text."""
    scenario = verbs.serving("mixed-fleet", "the picture")
    ranking = fleetcast.plan(scenario, top=None)
    assert ranking.best is not None, "the example has a plan within its SLO"
    best = fleetcast.simulate(decided(scenario, ranking.best), record=True)
    plane = figures.frontier_info(ranking, scenario.slo)
    timeline = figures.timeline_info(best)
    assert plane is not None, "the example has a frontier"
    assert timeline is not None, "the run was recorded"
    return {
        "jobs.svg": alone(jobs_queue()),
        "carbon.svg": alone(carbon.clean_hours()),
        "plans.svg": alone(plots.draw_scatter(plane)),
        "timeline.svg": alone(plots.draw_timeline(timeline)),
        "power.svg": alone(power_day()),
        "tiers.svg": alone(tiers_users()),
        "speculation.svg": alone(drafts_users()),
        "overlap.svg": alone(nano_users()),
        "splitting.svg": alone(split_load()),
        "prefixes.svg": alone(prefixes_memory()),
        "single-gpu.svg": alone(single_disks()),
        "recover.svg": alone(weeks_intervals()),
        "weeks.svg": alone(weeks_progress()),
        "heat.svg": alone(heat_map()),
        "collectives.svg": alone(all_reduce_sizes()),
        "multitask.svg": alone(multitask_waves()),
        "graphs.svg": alone(graph_timelines()),
        "learned.svg": alone(learned_launches()),
        "clusters.svg": alone(drawn(*unlike.clusters_between(), "speed over the link between two clusters")),
        "levels.svg": alone(drawn(*unlike.levels_network(), "an iteration over the network, by what is shared")),
        "counted.svg": alone(unlike.counted_step()),
        "data.svg": alone(mounts_region()),
        "vote.svg": alone(voting.promises()),
        "agents.svg": alone(agents.killed()),
        "pebbling.svg": alone(pebbling.two_processors()),
        "streams.svg": alone(streams.filter_places()),
        "learned-jobs.svg": alone(drawn(*learned_jobs.learning(), "slots to completion while DL2 learns")),
        "functions.svg": alone(functions.cold_starts()),
        "packing.svg": alone(drawn(*packing.waiting(), "pods that wait against what is asked for, by policy")),
        "coldstarts.svg": alone(draw_parts(watch_starts("coldstarts"))),
    }


def drawn(
    body: list[str], x: svg.Scale, y: svg.Scale, shown: Mapping[str, Sequence[tuple[float, float]]], label: str
) -> str:
    """Draws lines over axes that are drawn already."""
    return svg.figure(750, 310, body + curves(x, y, shown), label)


def graph_timelines() -> str:
    """Draws the example of a factorisation: workers over time by kernel, planned and first come first served."""
    table = fleetcast.load("graph").table()
    runs = {
        order: fleetcast.simulate(table | {"plan": table["plan"] | {"order": order}}, record=True)
        for order in ("heft", "fifo")
    }
    end = max(run.metrics["makespan"] for run in runs.values())
    kernels = list(runs["heft"].breakdown["time"])
    parts, x, each = list[str](), svg.Scale(0.0, end, 120, 730), 14
    for panel, (order, run) in enumerate(runs.items()):
        names, log, top = [str(row["name"]) for row in run.resources], run.record, 34 + 176 * panel
        assert log is not None
        last = x(run.metrics["makespan"])
        parts.append(svg.text(120, top - 8, f"{order}: {1000 * run.metrics['makespan']:.0f} ms", "said"))
        for who, name in enumerate(names):
            parts.append(svg.text(4, top + each * who + 10, name.removeprefix("node/"), "tick"))
            mine = log.resource == who
            spans = zip(log.time[mine].tolist(), log.duration[mine].tolist(), log.what[mine].tolist(), strict=True)
            drawn: list[tuple[float, float, int]] = []
            for time, lasts, what in spans:
                if drawn and drawn[-1][2] == what and x(time) - x(drawn[-1][1]) < 0.6:  # too close to tell apart
                    drawn[-1] = (drawn[-1][0], time + lasts, what)
                else:
                    drawn.append((time, time + lasts, what))
            for begin, stop, what in drawn:
                kind = f"part c{kernels.index(log.whats[what]) % 8}"
                parts.append(svg.rect(x(begin), top + each * who, max(0.3, x(stop) - x(begin) - 0.2), each - 2, kind))
        parts.append(svg.line(last, top - 4, last, top + each * len(names), "limit"))
    for i, kernel in enumerate(kernels):
        parts += [svg.rect(120 + 120 * i, 372, 12, 12, f"part c{i % 8}"), svg.text(138 + 120 * i, 382, kernel, "tick")]
    return svg.figure(750, 392, parts, "which worker runs which kernel when, planned and first come, first served")


def multitask_waves() -> str:
    """Draws the example of several tasks: devices over time, coloured by task."""
    best = fleetcast.plan("multitask").best
    assert best is not None
    slots = best.plan["waves"]
    tasks = list(dict.fromkeys(slot["task"] for slot in slots))
    end, count = max(slot["end"] for slot in slots), int(best.metrics["devices"])
    x, y = svg.Scale(0.0, end, 60, 700), svg.Scale(0.0, float(count), 290, 40)
    body = svg.axes(x, y, "s", "", "", "device")
    each = abs(y(1.0) - y(0.0))
    for slot in slots:
        name = f"{slot['op']}, layers {slot['first'] + 1} to {slot['first'] + slot['count']} of {slot['of']}"
        kind = f"part c{tasks.index(slot['task']) % 8}"
        for d in slot["devices"]:
            body.append(
                svg.rect(x(slot["start"]), y(d + 1.0), x(slot["end"]) - x(slot["start"]) - 1, each - 1, kind, name)
            )
    for i, task in enumerate(tasks):
        body += [
            svg.rect(60 + 160 * i, 330, 12, 12, f"part c{i % 8}"), svg.text(78 + 160 * i, 340, task, "tick"),
        ]  # fmt: skip
    return svg.figure(750, 350, body, "which device runs which task when, in an iteration of four tasks")


def learned_launches() -> str:
    """Draws how far the best plan so far is from the best of all over launches, learned and at random."""
    from benchmarks.learned import at_random, learned
    from benchmarks.learned_boxes import training

    box, seeds = training(), range(6)
    x, y = svg.Scale(1.0, 100.0, 60, 640), svg.Scale(0.0, 1.0, 262, 30)
    body = svg.axes(x, y, "", "%", "launches", "above the best of 13 million plans, median of six searches")
    for kind, (name, run) in enumerate((("learned", learned), ("drawn at random", at_random))):
        middle = np.median([np.minimum(run(box, seed), 10.0) for seed in seeds], axis=0)
        points = [(x(i + 1.0), y(float(v))) for i, v in enumerate(middle) if v <= 1.0]
        body.append(svg.path(points, f"series s{kind}"))
        body.append(svg.text(points[-1][0] + 6, points[-1][1] + 4, name, "said"))
    return svg.figure(750, 310, body, "regret over launches, learned and at random")


def weeks_intervals() -> str:
    """Draws the share of time that trains over the interval between checkpoints, in one stage and in two."""
    from benchmarks.long_runs import MEGASCALE, effective
    from fleetcast.cost.training.checkpoints import exact, expected, expected_staged
    from fleetcast.policy.recover import Fixed

    job = replace(MEGASCALE, iterations=MEGASCALE.iterations // 4)
    many, write = 1000, job.checkpoint
    restart = job.detect + job.restart + job.checkpoint.read
    x, y = svg.Scale(10.0, 20000.0, 60, 600, log=True), svg.Scale(0.7, 1.0, 262, 30)
    body = svg.axes(x, y, "s", "%", "work between checkpoints", "share of the time that trains")
    shown = {
        "two stages": [
            (i, many * i / expected_staged(many * i, i, write.stall, write.drain, restart, job.between))
            for i in _spread(40.0, 20000.0)
        ],
        "one stage": [(i, i / expected(i, i, write.direct, restart, job.between)) for i in _spread(10.0, 20000.0)],
    }
    for kind, (name, points) in enumerate(shown.items()):
        body.append(svg.path([(x(i), y(share)) for i, share in points if share >= 0.7], f"series s{kind}"))
        at, share = next(p for p in points if p[0] > 150.0)
        body.append(svg.text(x(at) + 8, y(share) + (-8 if kind == 0 else 20), name, "said"))
    for i in (120.0, 600.0, 3600.0):
        share = effective(job, Fixed(interval=i), 5)
        body.append(svg.dot(x(i), y(share), 4, "mark s1", f"simulated: {share:.1%}"))
    best = float(exact(write.direct, job.between))
    body.append(svg.line(x(best), y.start, x(best), y.end, "limit"))
    body.append(svg.text(x(best) + 6, y(0.72), "optimum of one stage", "limit-name"))
    return svg.figure(750, 310, body, "share of time that trains over the interval between checkpoints")


def _spread(low: float, high: float) -> list[float]:
    return [low * (high / low) ** (k / 60) for k in range(61)]


def weeks_progress() -> str:
    """Draws the iterations of MegaScale's job over three days, by recover policy, under the same failures."""
    from benchmarks.long_runs import DAY, MEGASCALE
    from fleetcast.policy.recover import Fixed, Policy, TwoStage

    x, y = svg.Scale(0.0, 72.0, 60, 600), svg.Scale(0.0, 42_000.0, 262, 30)
    body = svg.axes(x, y, "h", "", "time", "iterations that are done")
    policies: list[tuple[str, Policy]] = [("two stages", TwoStage()), ("every 2 h", Fixed(interval=2 * 3600.0))]
    for kind, (name, policy) in enumerate(policies):
        run = long_run(MEGASCALE, policy, seed=1, record=True)
        points = [(x(t / 3600.0), y(float(done))) for t, done in run.marks if t <= 3 * DAY]
        body += [svg.path(points, f"series s{kind}"), svg.text(608, points[-1][1] + 4, name, "said")]
    return svg.figure(750, 310, body, "iterations over three days, by recover policy")


def heat_map() -> str:
    """Draws the heat map of a synthetic job with a slow host, as `fleetcast watch train` does."""
    import numpy as np

    from benchmarks.stragglers import SIGMA
    from fleetcast.base.rng import rng
    from fleetcast.view.watched import Watched, draw_heat

    draw = rng(0, "synthetic", "heat")
    seconds = np.exp(SIGMA * draw.standard_normal((16 * 8, 32)))
    seconds[5 * 8 : 6 * 8] *= 1.1
    heat = np.median((seconds / np.median(seconds, axis=0)).reshape(16, 8, 32), axis=1)
    order = np.argsort(-np.median(heat, axis=1))
    return draw_heat(Watched((), heat[order], tuple(f"n{i}" for i in order), 128, 32))


def power_day() -> str:
    """Draws a day of the power benchmark's row with 30 % more servers, uncapped and under POLCA, by ten minutes."""
    from benchmarks import power
    from fleetcast.policy.power import Polca
    from fleetcast.scenario.workload.weeks import DAY

    row = power.row_at(power.inputs()[power.MODEL]["budget"]["80"], power.phases())
    week, count = power.traffic(1, 1, row.most), round(1.3 * row.servers)
    free = replace(row, most=count).free(week)
    capped = row.run(Polca(), week, count)
    day = slice(round(DAY / free.tick), round(2 * DAY / free.tick))
    x, y = svg.Scale(0.0, 24.0, 60, 700), svg.Scale(0.7, 1.1, 262, 30)
    body = svg.axes(x, y, "h", "%", "hour of a weekday", "power of the row, share of its budget")
    for name, kind, run in (("uncapped, no brake", 0, free), ("POLCA", 1, capped)):
        share = run.power[day].reshape(144, -1) / row.breaker.budget
        hours = [x((i + 0.5) / 6) for i in range(144)]
        band = [*zip(hours, map(y, share.max(axis=1)), strict=True)]
        band += reversed([*zip(hours, map(y, share.min(axis=1)), strict=True)])
        body.append(svg.path(band, f"band s{kind}", closed=True))
        mean = [*zip(hours, map(y, share.mean(axis=1)), strict=True)]
        body.append(svg.path(mean, f"series s{kind}"))
        noon = share[78:90]
        edge = y(float(noon.min())) + 18 if kind else y(float(noon.max())) - 10
        body.append(svg.text(x(14.0), edge, name, "said", "middle"))
    for limit in (1.0, Polca().upper, Polca().lower):
        said = svg.tick_text(limit, "%")
        body += [svg.line(x.start, y(limit), x.end, y(limit), "limit"), svg.text(704, y(limit) + 4, said, "limit-name")]
    return svg.figure(750, 310, body, "power of a row over a day, uncapped and under POLCA")


def tiers_users() -> str:
    """Draws the p99 of an answer over the users of one cloud, by way over the tiers (a case of `benchmarks.tiers`)."""
    from benchmarks import tiers, tiers_load
    from fleetcast.search.tiers.queues import SPAN, Queues, choose_queued, queued

    within = 12.0
    asked = tiers_load.shared(tiers.INPUTS["flow"], "5g", 0.67, within)
    assert asked.queues is not None
    shown = {}
    for cascade in choose_queued(asked.problem, asked.queues).best:
        way = tiers_load.WAYS[tuple(t for t, _, _ in cascade.shape)]
        loads = [round(100 * 2 ** (k / 2)) for k in range(15)]
        shown[way] = [(u, queued(Queues(asked.costs, u, SPAN * within), cascade).values["e2e.p99"]) for u in loads]
    x, y = svg.Scale(100, 20000, 60, 600, log=True), svg.Scale(0.0, 20.0, 262, 30)
    body = svg.axes(x, y, "", "s", "users, a query a minute each", "time of an answer, p99")
    body += [
        svg.line(x.start, y(within), x.end, y(within), "limit"),
        svg.text(x.start + 6, y(within) - 6, "limit", "limit-name"),
    ]
    return svg.figure(750, 310, body + curves(x, y, shown), "p99 of an answer over users, by way over the tiers")


def drafts_users() -> str:
    """Draws the tokens per second with drafts over those without, by users, as `benchmarks.speculation` has them."""
    from benchmarks import speculation

    loads = [2**k for k in range(9)]
    plain = {n: speculation.rate(n) for n in loads}
    shown = {
        name: [(n, speculation.rate(n, table) / plain[n]) for n in loads]
        for name, table in (("1B drafts", speculation.ONE_B), ("8B drafts", speculation.EIGHT_B))
    }
    x, y = svg.Scale(1, 256, 60, 600, log=True), svg.Scale(0.6, 2.2, 262, 30)
    body = svg.axes(x, y, "", "", "users at once", "tokens a second, times those without drafts")
    body += [
        svg.line(x.start, y(1.0), x.end, y(1.0), "limit"),
        svg.text(x.start + 6, y(1.0) - 6, "no drafts", "limit-name"),
    ]
    return svg.figure(750, 310, body + curves(x, y, shown), "what drafts gain, over users")


def nano_users() -> str:
    """Draws the tokens per second of the example ``overlap`` with and without nano-batches, by users."""
    scenario = fleetcast.load("overlap").table()
    shown: dict[str, list[tuple[float, float]]] = {}
    for name, kind in (("one after the other", "none"), ("nano-batches", "nano")):
        for users in (100, 200, 400, 700, 1000, 1500, 2000):
            arrivals = scenario["workload"]["arrivals"] | {"concurrency": users, "requests": 2 * users}
            plan = scenario["plan"] | {"tensor_parallel": 8, "replicas": 1, "overlap": [kind]}
            table = scenario | {"workload": scenario["workload"] | {"arrivals": arrivals}, "plan": plan}
            best = fleetcast.plan(table, top=1).best
            assert best is not None, "the example has no limits"
            shown.setdefault(name, []).append((users, best.metrics["throughput"]))
    x, y = svg.Scale(0, 2000, 60, 600), svg.Scale(0.0, 5000.0, 262, 30)
    body = svg.axes(x, y, "", "", "users at once", "output tokens a second")
    return svg.figure(750, 310, body + curves(x, y, shown), "output tokens a second over users")


def split_load() -> str:
    """Draws the p99 of the time per token over the load: the example `split`, at best together and at best apart."""
    table = fleetcast.load("split").table()
    shown: dict[str, list[tuple[float, float]]] = {}
    for name, phases in (("together", "together"), ("split", "split")):
        plan = fleetcast.plan(table | {"plan": table["plan"] | {"phases": phases}}, top=1).plan
        assert isinstance(plan, Plan), "the example has both"
        shown[name] = []
        for load in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2):
            faster = table["workload"] | {"speed_up": load}
            found = fleetcast.simulate(table | {"workload": faster, "plan": plan.table()})
            shown[name].append((load, found.metrics["tpot"]["p99"]))
    x, y = svg.Scale(0.0, 1.2, 60, 600), svg.Scale(0.0, 0.1, 262, 30)
    body = svg.axes(x, y, "", "s", "load, times the example's", "time per output token, p99")
    body += [
        svg.line(x.start, y(0.06), x.end, y(0.06), "limit"),
        svg.text(x.start + 6, y(0.06) - 6, "limit", "limit-name"),
    ]
    return svg.figure(750, 310, body + curves(x, y, shown), "p99 of the time per token over the load")


def prefixes_memory() -> str:
    """Draws the share of prompt tokens that the example `prefixes` finds, by host memory and rule of eviction."""
    table = fleetcast.load("prefixes").table()
    shown: dict[str, list[tuple[float, float]]] = {}
    for rule in ("belady", "lru", "lfu"):
        for cpu in (0, 5, 10, 20, 30, 40, 50, 60):
            plan = table["plan"] | {"prefix_cache": {"kind": rule, "cpu": f"{cpu} GB"}}
            found = fleetcast.simulate(table | {"plan": plan})
            shown.setdefault("belady (looks ahead)" if rule == "belady" else rule, []).append(
                (cpu, found.metrics["cached"])
            )
    x, y = svg.Scale(0.0, 60.0, 60, 600), svg.Scale(0.0, 1.0, 262, 30)
    body = svg.axes(x, y, "GB", "%", "host memory per device", "prompt tokens found")
    return svg.figure(750, 310, body + curves(x, y, shown), "prompt tokens found over host memory, by rule")


def single_disks() -> str:
    """Draws the MFU of the example `single-gpu` over its disks, by what is swapped and when Adam runs."""
    table = fleetcast.load("single-gpu").table()
    ways = {
        "best share, optimizer beside": {"swap": "auto"}, "nothing swapped, beside": {"swap": 0.0},
        "nothing swapped, optimizer after": {"swap": 0.0, "overlap": ["data"]},
    }  # fmt: skip
    shown: dict[str, list[tuple[float, float]]] = {}
    for count in (0.5, 1, 1.5, 2, 3, 4, 6, 8, 10, 12):
        fleet = table["fleet"] | {"ssd": f"{6.5 * count} GB/s", "ssd_write": f"{3.4 * count} GB/s"}
        for name, plan in ways.items():
            found = fleetcast.simulate(table | {"fleet": fleet, "plan": plan})
            shown.setdefault(name, []).append((count, found.metrics["mfu"]))
    x, y = svg.Scale(0.0, 12.0, 60, 520), svg.Scale(0.0, 1.0, 262, 30)
    body = svg.axes(x, y, "", "%", "disks", "share of the device's peak")
    return svg.figure(750, 310, body + curves(x, y, shown), "share of the peak over disks, by plan")


def all_reduce_sizes() -> str:
    """Draws how many times longer than GenTree's plan flat all-reduces take on 64 hosts, by size."""
    from benchmarks import collectives
    from fleetcast.cost.collectives.topology import tree

    names = {"ring": "ring", "rhd": "halving, doubling", "cps": "co-located servers"}
    on = tree([[1.0] * 8] * 8, up=8.0)
    shown: dict[str, list[tuple[float, float]]] = {name: [] for name in names.values()}
    for power in range(16, 31):
        found = collectives.gains(on, 2.0**power, collectives.FROZEN)
        for key, name in names.items():
            shown[name].append((2.0**power, found[key]))
    x, y = svg.Scale(2.0**16, 2.0**30, 60, 590, log=True), svg.Scale(0.9, 30.0, 262, 30, log=True)
    body = svg.axes(x, y, "B", "", "buffer on each host", "time, times that of GenTree's plan")
    body += [
        svg.line(x.start, y(1.0), x.end, y(1.0), "limit"),
        svg.text(x.start + 6, y(1.0) - 6, "GenTree", "limit-name"),
    ]
    return svg.figure(750, 310, body + curves(x, y, shown), "time of all-reduces on 64 hosts over GenTree's")


def curves(x: svg.Scale, y: svg.Scale, shown: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    """Returns a line for each name, with a dot for every run; what lies above the paper ends at its edge."""
    body, ends = [], []
    for kind, (name, points) in enumerate(shown.items()):
        inside = [p for p in points if p[1] <= y.high]
        beyond = points[len(inside) : len(inside) + 1]
        body.append(svg.path([(x(a), y(b)) for a, b in (*inside, *beyond)], f"series s{kind}"))
        body += [svg.dot(x(a), y(b), 3, f"mark s{kind}") for a, b in inside]
        ends.append((y(points[-1][1]) + 4, name))
    last = 0.0
    for end, name in sorted(ends):
        last = max(end, last + 16)
        body.append(svg.text(x.end + 8, last, name, "said"))
    return body
