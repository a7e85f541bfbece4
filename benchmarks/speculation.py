"""Minions' claims on the forecast side: what a call of the target yields, when drafts pay, what votes and length add.

The paper has no figure in its abstract, so the bars are ours. Traffic is made up (closed loops of equal requests) and
acceptance is assumed; both are said in each record. What is simulated is not run.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, cpu_seconds, main
from fleetcast.base.tables import lookup
from fleetcast.cost.speculate import constant_tokens, rates_of, tokens_per_call, voted
from fleetcast.policy.speculate import Fixed, Minions, View
from fleetcast.scenario.drafts import Drafting
from fleetcast.scenario.load import load_serving
from fleetcast.scenario.plan import read_plan
from fleetcast.search.parallelism import search
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.drafting import process_of
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.sim.serving.world import simulate

USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ONE_B = {"kind": "fixed", "model": "llama-3.2-1b", "length": 4, "acceptance": 0.7}
EIGHT_B = {"kind": "fixed", "model": "llama-3.1-8b", "length": 4, "acceptance": 0.8}
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8)
COSTS = (0.05, 0.1, 0.2, 0.4, 0.8)
STARTS = (2, 4, 8)


def state_of(users: int, speculate: Any, tensor: int = 4, batch: Any = None, devices: int = 0) -> Setting:
    """Returns Llama-3.1-70B on H100s under ``users`` who each send the next request when the last is answered."""
    table = {
        "fleet": {"devices": f"{devices or tensor}x h100-sxm"},
        "workload": {
            "model": "llama-3.1-70b",
            "arrivals": {"kind": "closed", "concurrency": users, "requests": max(32, 3 * users)},
            "lengths": {"kind": "fixed", "prompt": 1024, "output": 256},
        },
        "objective": {"maximize": "throughput"},
        "plan": {"replicas": 1, "tensor_parallel": tensor, "pipeline_parallel": 1, "speculate": speculate}
        | ({} if batch is None else {"batch": batch}),
    }
    return setting(load_serving(table))


def rate(users: int, speculate: Any = "off", tensor: int = 4, devices: int = 0) -> float:
    """Returns tokens/s."""
    state = state_of(users, speculate, tensor, devices=devices)
    return float(simulate(state, complete(state, state.scenario.plan)).metrics["throughput"])


def crossing(gains: dict[int, float]) -> float:
    """Returns the users at which a gain falls through 1, by logarithms between the two nearest; 0 where it never does.

    Examples:
        >>> crossing({1: 2.0, 4: 1.5, 16: 0.5})
        8.0
    """
    users = sorted(gains)
    for a, b in pairwise(users):
        if gains[a] >= 1.0 > gains[b]:
            share = (gains[a] - 1.0) / (gains[a] - gains[b])
            return float(round(a * (b / a) ** share, 6))
    return 0.0


def crossover(claim: str, speculate: dict[str, Any], tensor: int, plain: dict[int, float], command: str) -> Record:
    """Returns the record of where a draft stops paying."""
    start = cpu_seconds()
    gains = {n: rate(n, speculate, tensor) / plain[n] for n in plain}
    at = crossing(gains)
    shown = ", ".join(f"{n}: {gain:.2f}x" for n, gain in gains.items())
    return Record(
        system=45, claim=claim,
        paper=Paper(setting="none in the abstract; that large batches are slowed is known of engines (vLLM, 2024)"),
        ours=Ours(
            value=round(at), unit="users", spread=shown,
            setting=f"users at which tokens/s with drafts fall below those without; Llama-3.1-70B, TP{tensor}, H100, "
            f"prompt 1,024, output 256, closed loop; {speculate['length']} tokens drafted, acceptance "
            f"{speculate['acceptance']} assumed",
        ),
        null=Null(value=0, what="never drafting gains nothing at any load"),
        bar="faster for one user, slower for 256", holds=gains[min(gains)] > 1.0 > gains[max(gains)],
        reproduced="other setting", reason="simulated, and the acceptance is assumed",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def mean_tokens(runs: int, command: str) -> Record:
    """Returns the record of expected tokens per call against drawn ones."""
    start, draw = cpu_seconds(), np.random.default_rng(45)
    worst = 0.0
    for acceptance in (0.5, 0.7, 0.9, (0.9, 0.6, 0.3)):
        for length in (1, 4, 8, 16):
            rates = rates_of(acceptance, length)
            drawn = 1.0 + np.cumprod(draw.random((runs, length)) < rates, axis=1).sum(axis=1).mean()
            worst = max(worst, abs(tokens_per_call(rates) / float(drawn) - 1.0))
    return Record(
        system=45, claim="expected tokens per call of the target against drawn ones, largest error",
        ours=Ours(
            value=round(worst, 5), unit="share",
            setting=f"{runs:,} calls each, four acceptances, lengths 1 to 16",
        ),
        null=Null(value=round(1 - 1 / constant_tokens(0.9, 16), 3), what="a token a call; acceptance 0.9, length 16"),
        bar="at most 1 %", holds=worst <= 0.01, reproduced="other setting",
        reason="a check of our own: the paper states no such figure", seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def planned(command: str, users: tuple[int, ...]) -> Record:
    """Returns the record of what a search over drafts picks under each load."""
    start = cpu_seconds()
    choices: list[Any] = ["off", *(ONE_B | {"length": n} for n in (2, 4, 6))]
    told, right = [], 0
    for n in users:
        found = search(state_of(n, choices, batch={"kind": "chunked", "chunk": 8192, "max_batch": 1024}), top=1).best
        assert found is not None
        table = found.plan.get("speculate") or {"kind": "off"}
        told.append(f"{n}: {'off' if table['kind'] == 'off' else table['length']}")
        rates = {c if isinstance(c, str) else str(c["length"]): rate(n, c) for c in choices}
        best = max(rates, key=lambda k: rates[k])
        right += best == told[-1].rpartition(" ")[2]
    return Record(
        system=45, claim="the planner's draft length under each load, times it picks the best",
        ours=Ours(
            value=right, unit=f"of {len(users)}", spread=", ".join(told),
            setting="users: tokens drafted; searched: off, 2, 4, 6 tokens of a 1B drafter, acceptance 0.7 assumed; "
            "Llama-3.1-70B, TP4, H100, for throughput",
        ),
        null=Null(value=sum(t.endswith("off") for t in told), what="always off"),
        bar="the best of all simulated, every time", holds=right == len(users), reproduced="other setting",
        reason="a check of our own: the paper plans nothing", seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def decoupled(command: str, users: tuple[int, ...]) -> Record:
    """Returns the record of drafters on devices of their own against the same ones on the pool's devices."""
    start, rows = cpu_seconds(), []
    for n in users:
        one, three = ONE_B, ONE_B | {"drafters": 3, "drafter_correlation": 0.0}
        single = rate(n, one)
        rows.append((
            n, rate(n, one | {"pipelined": True}, devices=5) / single, rate(n, three) / single,
            rate(n, three | {"pipelined": True}, devices=7) / single, rate(n, tensor=8) / single,
        ))  # fmt: skip
    gains = {n: apart / together for n, _, together, apart, _ in rows}
    best = max(gains, key=lambda n: gains[n])
    return Record(
        system=45, claim="tokens/s of three voting drafters on devices of their own over on the pool's, most",
        paper=Paper(setting="decoupled pipeline improves throughput further (abstract, no figure)"),
        ours=Ours(
            value=round(gains[best], 3), unit="x",
            spread="; ".join(
                f"{n} users: one apart {a:.2f}x, three on the pool's {b:.2f}x, three apart {c:.2f}x, TP8 without "
                f"drafts {d:.2f}x" for n, a, b, c, d in rows
            ),
            setting="all beside one 1B drafter on the pool's four devices; 4 tokens, acceptance 0.7, independent "
            "errors assumed; one drafter apart takes 5 devices, three take 7; Llama-3.1-70B, TP4, H100",
        ),
        null=Null(value=1.0, what="the same drafters on the pool's devices, one after the other"),
        bar="never slower than on the pool's devices, at any load", holds=min(gains.values()) >= 1.0,
        reproduced="other setting", reason="simulated with more devices than it is compared to; per device it loses",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def placed(users: int, where: str, length: int = 0) -> tuple[float, float]:
    """Returns tokens/s and $ per million tokens of Llama-3.1-405B on eight H100 beside four L40S.

    Args:
        users: of the closed loop.
        where: the drafter stands: "none", "own" (the target's devices), "h100" or "l40s" (a draft pool there).
        length: tokens drafted.
    """
    state = beside(users, [] if where == "none" else [length], "h100" if where == "h100" else "l40s", where)
    metrics = simulate(state, complete(state, state.scenario.plan)).metrics
    return float(metrics["throughput"]), float(metrics["per_million_output_tokens"]["cost"])


def beside(users: int, lengths: list[int], group: Any, where: str, goal: str = "throughput") -> Setting:
    """Returns that setting, with one length to simulate or several to search."""
    fixed = {"kind": "fixed", "acceptance": 0.7} | ({"pipelined": False} if where == "own" else {})
    model = {"model": "llama-3.2-1b"}
    target = {
        "on": "h100",
        "replicas": 1,
        "tensor_parallel": 8,
        "pipeline_parallel": 1,
        "dtype": "fp8",
        "batch": {"kind": "chunked", "chunk": 8192, "max_batch": 256},
    }
    pools: list[Any] = [target]
    if where == "any":
        pools = [
            target
            | {"speculate": ["off", fixed | {"length": lengths}, fixed | {"length": lengths, "pipelined": False}]},
            {"role": "draft", "tensor_parallel": 1} | model,
        ]
    elif lengths:
        pools = [target | {"speculate": fixed | {"length": lengths[0]} | model}]
        if where != "own":
            pools.append({"role": "draft", "on": group, "tensor_parallel": 1} | model)
    return setting(load_serving({
        "fleet": {
            "groups": [{"name": "h100", "devices": "9x h100-sxm"}, {"name": "l40s", "devices": "4x l40s"}],
            "network": "ethernet-100g",
        },
        "workload": {
            "model": "llama-3.1-405b",
            "arrivals": {"kind": "closed", "concurrency": users, "requests": max(32, 3 * users)},
            "lengths": {"kind": "fixed", "prompt": 1024, "output": 256},
        },
        "objective": {"maximize": goal} if goal == "throughput" else {"minimize": goal},
        "plan": {"pools": pools},
    }))  # fmt: skip


def draft_pools(command: str, users: tuple[int, ...]) -> list[Record]:
    """Returns the records of a drafter on a cheaper kind of device, on the target's own, on one more of its kind."""
    start, lengths, paths = cpu_seconds(), (1, 2, 4, 6), ("own", "h100", "l40s")
    fast: dict[int, dict[str, float]] = {}
    cheap: dict[int, dict[str, float]] = {}
    for n in users:
        found = {("none", 0): placed(n, "none")} | {(w, k): placed(n, w, k) for w in paths for k in lengths}
        fast[n] = {w: max(v[0] for key, v in found.items() if key[0] == w) for w in ("none", *paths)}
        cheap[n] = {w: min(v[1] for key, v in found.items() if key[0] == w) for w in ("none", *paths)}
    seconds = cpu_seconds() - start
    given = (
        "one 1B drafter, acceptance 0.7 assumed, best of 1, 2, 4, 6 tokens; Llama-3.1-405B in fp8, TP8, H100; L40S in "
        "bf16, TP1, over 100 Gb Ethernet; prompt 1,024, output 256, closed loop"
    )
    pays = {n: fast[n]["l40s"] / fast[n]["none"] for n in users}
    told = "; ".join(
        f"{n} users: "
        + ", ".join(
            f"{said} {fast[n][w] / fast[n]['none']:.2f}x at {cheap[n][w] / cheap[n]['none']:.2f} of the cost"
            for w, said in (("own", "own devices"), ("h100", "one H100 more"), ("l40s", "L40S"))
        )
        for n in users
    )
    first = min(users)
    over = {n: cheap[n]["l40s"] / cheap[n]["own"] for n in users}
    least = min(over, key=lambda n: over[n])
    begun, right, chosen = cpu_seconds(), 0, []
    for n in users:
        for goal, path, best in (
            ("throughput", "throughput", max(fast[n].values())),
            ("cost", "per_million_output_tokens.cost", min(cheap[n].values())),
        ):
            found_ = search(beside(n, list(lengths), None, "any", goal), top=1).best
            assert found_ is not None
            right += abs(float(lookup(found_.metrics, path)) / best - 1.0) < 1e-9
            chosen.append(f"{n} users, {goal}: {standing(found_.plan)}")
    asked = 2 * len(users)
    return [
        Record(
            system=45, claim="tokens/s with a 1B drafter on an L40S over no drafts, one user",
            ours=Ours(value=round(pays[first], 3), unit="x", spread=told, setting=given),
            null=Null(value=1.0, what="no drafts"),
            bar="faster and no dearer a token for one user", holds=pays[first] > 1.0
            and cheap[first]["l40s"] <= cheap[first]["none"], reproduced="other setting",
            reason="a check of our own; simulated, and the acceptance is assumed", seconds=seconds, command=command,
        ),
        Record(
            system=45, claim="cost of a token with the drafter on an L40S over on the target's own devices, least",
            ours=Ours(
                value=round(over[least], 3), unit="x",
                spread=", ".join(f"{n} users: {x:.2f}x" for n, x in over.items()), setting=given,
            ),
            null=Null(value=1.0, what="on the target's own devices, one after the other"),
            bar="below 1 at some load", holds=over[least] < 1.0, reproduced="no",
            reason="eight H100 run the small model faster than one device does, and halves that take turns read "
            "the target's weights twice: by this forecast a drafter is cheapest where the target is", seconds=seconds,
            command=command,
        ),
        Record(
            system=45, claim="where the planner puts the drafter under each load, times it picks the best",
            ours=Ours(
                value=right, unit=f"of {asked}", spread="; ".join(chosen), setting=f"searched together: {given}",
            ),
            null=Null(value=sum(c.endswith("none") for c in chosen), what="no drafts"),
            bar="the best of all simulated, every time", holds=right == asked, reproduced="other setting",
            reason="a check of our own: the paper plans nothing", seconds=cpu_seconds() - begun, command=command,
        ),
    ]  # fmt: skip


def standing(table: Any) -> str:
    """Returns where a plan's drafter stands, and how much it drafts."""
    plan = read_plan(dict(table))
    said = plan.serving[0].speculate
    if not isinstance(said, dict) or said["kind"] == "off":
        return "none"
    return f"{said['length']} on {'own devices' if plan.draft is None else plan.draft.on}"


def votes(command: str) -> Record:
    """Returns the record of what a majority vote adds to the tokens of a call."""
    start = cpu_seconds()
    single = constant_tokens(0.7, 6)
    alike = {c: tokens_per_call(voted(rates_of(0.7, 6), 3, c)) for c in (0.0, 0.5, 0.9, 1.0)}
    one, three = rate(8, ONE_B), rate(8, ONE_B | {"drafters": 3, "drafter_correlation": 0.0})
    return Record(
        system=45, claim="tokens per call of three voting drafters over one",
        paper=Paper(setting="majority vote improves on single drafters (abstract, no figure)"),
        ours=Ours(
            value=round(alike[0.0] / single, 3), unit="x",
            spread=", ".join(f"erring alike in {c:.0%} of positions: {t / single:.3f}x" for c, t in alike.items())
            + f"; tokens/s of three 1B drafters one after the other over one: {three / one:.2f}x at 8 users",
            setting="acceptance 0.7 each, 6 tokens, independent errors; a stated model of the vote, checked by drawing",
        ),
        null=Null(value=1.0, what="one drafter; also three copies of one"),
        bar="above 1 where errors are independent, exactly 1 for copies",
        holds=alike[0.0] > single and abs(alike[1.0] / single - 1) < 1e-9,
        reproduced="other setting",
        reason="modelled drafters; how alike real ones err is not known. On the pool's own devices three drafters cost "
        "three times the passes, which eats the gain",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def adaptive(command: str, users: tuple[int, ...]) -> Record:
    """Returns the record of the adaptive length against the best fixed one, each as planned."""
    start, rows = cpu_seconds(), []
    four = []
    for acceptance in (0.5, 0.7, 0.9):
        for n in users:
            base = ONE_B | {"acceptance": acceptance}
            fixed = {k: rate(n, base | {"length": k}) for k in LENGTHS}
            plain = rate(n)
            table = {k: v for k, v in base.items() if k != "length"} | {"kind": "minions"}
            found = max(rate(n, table | {"cost": c, "start": s}) for c in COSTS for s in STARTS)
            rows.append((found / max(fixed.values()), acceptance, n, found / plain))
            four.append(fixed[4] / max(fixed.values()))
    least = min(rows)
    return Record(
        system=45, claim="tokens/s of the adaptive length over the best fixed one, least",
        paper=Paper(setting="adaptive length beats fixed ones over models, data and settings (abstract, no figure)"),
        ours=Ours(
            value=round(least[0], 3), unit="x",
            spread=f"{least[0]:.3f} to {max(rows)[0]:.3f} over {len(rows)} settings",
            setting=f"fixed: best of 1 to 8; adaptive: best of {len(COSTS)} costs of a drafted token and "
            f"{len(STARTS)} first lengths; acceptance 0.5, "
            f"0.7, 0.9 assumed, {', '.join(map(str, users))} users; long run, its first calls left out",
        ),
        null=Null(value=round(min(four), 3), what="always 4 tokens, its least"),
        bar="within 3 % of the best fixed length", holds=least[0] >= 0.97, reproduced="other setting",
        reason="one acceptance a run, where a fixed length can be the best; the mixed stream shows what adapting adds",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def worth(policy: Any, rates: tuple[float, ...], cost: float, tokens: int, seed: int) -> float:
    """Returns tokens per work of requests that differ in acceptance, the policy asked before every call."""
    draw, made, work = np.random.default_rng(seed), 0.0, 0.0
    for rate_ in rates:
        view, done, tried, right = View(1), 0, 0, 0
        while done < tokens:
            length = policy.draft(view).length
            misses = np.flatnonzero(draw.random(length) >= rate_)
            good = int(misses[0]) if len(misses) else length
            done, work = done + good + 1, work + 1.0 + cost * length
            tried, right = tried + min(good + 1, length), right + good
            view = View(1, length, length, good, tried, right)
        made += done
    return made / work


def mixed(runs: int, command: str) -> Record:
    """Returns the record of the adaptive length where requests differ."""
    start, rates, cost = cpu_seconds(), (0.4, 0.95) * runs, 0.1
    fixed = {k: worth(Fixed(length=k), rates, cost, 256, 1) for k in (*LENGTHS, 10, 12)}
    best = max(fixed, key=lambda k: fixed[k])
    found = worth(Minions(cost=cost, most=12), rates, cost, 256, 1)
    short = worth(Minions(cost=cost, most=12), rates, cost, 32, 1) / max(
        worth(Fixed(length=k), rates, cost, 32, 1) for k in (*LENGTHS, 10, 12)
    )
    long_run = process_of(Minions(cost=cost, most=12), 0.95, Drafting()).length
    return Record(
        system=45, claim="tokens per work of the adaptive length over the best fixed one, requests that differ",
        paper=Paper(setting="adaptive length beats fixed ones over models, data and settings (abstract, no figure)"),
        ours=Ours(
            value=round(found / fixed[best], 3), unit="x",
            spread=f"best fixed length {best}; adaptive settles at {long_run:.0f} for the easy half; with 32 tokens an "
            f"answer {short:.3f}x",
            setting=f"{2 * runs} requests of 256 tokens, acceptance 0.4 and 0.95 in turn, a drafted token costs {cost} "
            "of a call; the policy itself, call by call",
        ),
        null=Null(value=round(fixed[4] / fixed[best], 3), what="always 4 tokens"),
        bar="above 1", holds=bool(found > fixed[best]), reproduced="other setting",
        reason="made-up requests; no model runs", seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def records(quick: bool) -> list[Record]:
    """Returns what is claimed of speculation."""
    command = "python -m benchmarks.speculation" + (" --quick" if quick else "")
    users = USERS[::4] if quick else USERS
    plain = {t: {n: rate(n, tensor=t) for n in users} for t in (4, 8)}
    few = users if quick else (1, 8, 32, 128)
    return [
        mean_tokens(20_000 if quick else 200_000, command),
        crossover("users up to which a 1B drafter pays, four devices", ONE_B, 4, plain[4], command),
        crossover("users up to which a 1B drafter pays, eight devices", ONE_B, 8, plain[8], command),
        crossover("users up to which an 8B drafter pays, four devices", EIGHT_B, 4, plain[4], command),
        planned(command, users),
        votes(command),
        decoupled(command, users[:1] if quick else few),
        *draft_pools(command, (1, 16) if quick else (1, 4, 16, 64, 256)),
        adaptive(command, few[:1] if quick else few),
        mixed(5 if quick else 60, command),
    ]


if __name__ == "__main__":
    sys.exit(main(records))
