"""Lower bounds on what a plan can reach, so that a search need not simulate what cannot win.

Everything rests on one idea: if ``t[i]`` is at least what request i will take, then every percentile, mean and maximum
of ``t`` is at least that of the truth, because those are monotone in each value. A `Floor` holds such times; `pace`
gives what an idle replica needs, `backlog` what queueing adds when work exceeds speed, `seen` what a simulation of the
trace's first part has already shown. Each docstring says why its bound holds; `tests/search` holds the pruned search
equal to the exhaustive one.

Symbols: an iteration in which a lane processes at least T tokens takes at least C(T), the tables made non-decreasing
from the right (``C(T) = min over m >= T``), whatever else the iteration carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.step import GRID, StepCost
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.workload.requests import Requests
from fleetcast.sim.serving.setting import Server

Floats = NDArray[np.float64]

SLACK = 1.0 - 1e-9
"""Bounds are shrunk by the rounding that sums in another order may show."""


@dataclass(frozen=True)
class Pace:
    """What a replica needs at least, for every request of a trace.

    Attributes:
        ttft: s from arrival to first token of each request, alone on the replica.
        gap: s from first to last token.
        token: s of a replica per token processed, at the batch where that is least.
    """

    ttft: Floats
    gap: Floats
    token: float


def pace(server: Server, requests: Requests) -> Pace:
    """Returns what a replica of ``server`` needs at least.

    Prefill. A prompt of p tokens passes in k pieces q_1..q_k of at most ``budget`` tokens (one piece where prompts
    are not cut). A piece's iteration takes at least C(q_j) plus its attention; C(q_j) >= q_j r with
    r = min over q <= min(p, budget) of C(q)/q, so the pieces take at least p r. Attention's pairs of a prompt do not
    depend on the cuts (each token sees its predecessors once), its reach only grows with them. k >= p / budget
    iterations each take the host's time, beside the device (the larger of both sums) or on top of it.

    Decode. Each of the output - 1 further tokens needs an iteration of its own of at least C(1) and the LM head of
    one token; attention of a batch that holds a context x takes at least max(min floor, min base + min slope x). A
    token that comes out of a recomputed prefill instead cost an iteration without it before that (see
    `_decode_attention`).
    """
    cost, s = server.cost, server.cost.scalars
    table = _rising(cost)
    budget, split = _budget(server)
    p, out = requests.prompt.astype(np.float64), requests.output.astype(np.float64)
    head = float(cost.tables["head"][1:].min())
    shares = s["full_share"] + s["window_share"]
    # prefill
    piece = np.minimum(p, budget) if split else p
    work = p * _least_per_token(table, piece) if split else _at(table, p)
    pieces = np.ceil(p / budget) if split else np.ones_like(p)
    pairs = s["full_share"] * p * (p + 1) / 2 + s["window_share"] * _window_pairs(p, float(s["window"]))
    device = work + head + s["pre_base"] + s["pre_pair"] * pairs + s["pre_context"] * shares * p
    if not s["graph_prefill"]:
        device = np.maximum(device, pieces * s["eager"])
    ranks = s["ranks"]
    host = pieces * (s["host_step"] + s["host_seq"] / ranks) + s["host_token"] * p / ranks
    ttft = np.maximum(device, host) if s["overlap"] else device + host
    # decode
    m = out - 1.0
    full = m * (p + out / 2.0)
    near = m * np.minimum(p + 1.0, float(s["window"])) if s["window_share"] > 0 else full
    reach = s["full_share"] * full + s["window_share"] * near
    floor, base, slope = _decode_attention(cost, table)
    device = m * (float(table[1]) + head) + np.maximum(m * floor, m * base + slope * reach)
    host = m * (s["host_step"] + (s["host_seq"] + s["host_token"]) / ranks)
    gap = np.maximum(device, host) if s["overlap"] else device + host
    api = cost.api + cost.api_token * p
    return Pace(ttft * SLACK + api, gap * SLACK, _token_pace(server, requests) * SLACK)


@dataclass(frozen=True)
class Floor:
    """Times that each request takes at least, under one plan.

    Attributes:
        arrival: s; of a closed loop all equal, which only lowers what rests on it.
        output: tokens.
        ttft: s, at least.
        gap: s from first to last token, at least.
        prompt: tokens.
        speed: tokens/s that all replicas together process at most.
        open: requests arrive by the clock.
        last: s, a time that the last finish is known to exceed.
    """

    arrival: Floats
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    ttft: Floats
    gap: Floats
    speed: float
    open: bool
    last: float = 0.0

    def metric(self, path: str) -> float:
        """Returns a value that ``metrics[path]`` is not below; path e.g. ``ttft.p99``, s."""
        name, _, statistic = path.partition(".")
        if name == "tpot":
            return self._tpot(statistic)
        times = self.ttft if name == "ttft" else self.ttft + self.gap
        if statistic == "mean":
            return float(times.mean())
        q = float(statistic[1:])
        plain = float(np.percentile(times, q))
        if not self.open:
            return plain
        return max(plain, self._backlog(q, self.prompt if name == "ttft" else self._tokens))

    def _tpot(self, statistic: str) -> float:
        if statistic == "mean":
            return float(self.gap.sum() / self.output.sum())
        many = self.output >= 2
        if not many.any():
            return 0.0
        each = self.gap[many] / (self.output[many] - 1)
        return float(each.mean() if statistic == "mean_per_request" else np.percentile(each, float(statistic[1:])))

    @cached_property
    def span(self) -> float:
        """First arrival to last finish, s, at least.

        The last finish is not before any request's arrival plus its own least time; and all tokens of the requests
        from the k-th on are processed after the k-th arrives, at no more than ``speed``.
        """
        start = float(self.arrival[0])
        ends = float((self.arrival + self.ttft + self.gap).max())
        if self.open:
            left = np.cumsum(self._tokens[::-1])[::-1]
            ends = max(ends, float((self.arrival + left / self.speed).max()) * SLACK)
        else:
            ends = max(ends, start + float(self._tokens.sum()) / self.speed * SLACK)
        return max(ends, self.last) - start

    @cached_property
    def _tokens(self) -> NDArray[np.int64]:
        return self.prompt + self.output - 1

    def _backlog(self, q: float, tokens: NDArray[np.int64]) -> float:
        """Least value L of percentile q that work conservation allows.

        If the percentile is L, all requests but the e slowest take at most L. Of those that arrive up to a_k the
        tokens, at least the sum so far less the e largest of all, are then processed between a_0 and a_k + L, by
        replicas that process at most ``speed`` tokens a second. So L >= (sum_k - largest_e) / speed - (a_k - a_0).
        """
        n = len(tokens)
        e = n - 1 - int(np.floor(q / 100.0 * (n - 1)))
        largest = int(np.partition(tokens, n - e)[n - e :].sum()) if e else 0
        done = (np.cumsum(tokens) - largest) / self.speed - (self.arrival - self.arrival[0])
        return float(done.max()) * SLACK

    def within(self, limits: dict[str, float]) -> int:
        """Returns how many requests can at most meet every limit taken per request (s, by metric)."""
        met = np.ones(len(self.output), dtype=bool)
        for metric, limit in limits.items():
            if metric == "tpot":
                met &= self.gap <= limit * np.maximum(self.output - 1, 1)
            else:
                met &= (self.ttft if metric == "ttft" else self.ttft + self.gap) <= limit
        return int(met.sum())


def floor_of(parts: Sequence[tuple[int, Pace]], requests: Requests) -> Floor:
    """Returns the Floor of a plan: each request may go to any pool, and the replicas' speeds add up.

    Args:
        parts: (replicas, pace) per pool.
        requests: the traffic.
    """
    paces = [p for _, p in parts]
    speed = sum(replicas / p.token for replicas, p in parts)
    ttft, gap = (np.minimum.reduce([getattr(p, name) for p in paces]) for name in ("ttft", "gap"))
    return Floor(requests.arrival, requests.prompt, requests.output, ttft, gap, speed, not requests.concurrency)


def seen(floor: Floor, part: Outcome, horizon: float, api: Floats) -> Floor:
    """Returns ``floor`` raised by what a simulation of the first requests alone has shown.

    A world is causal: until the first request that was left out arrives, at ``horizon``, both runs are the same. So a
    token that came out before the horizon comes out then in the full run too; one that had not come out is later than
    the horizon, whatever follows.

    Args:
        floor: of the same plan on all requests.
        part: the plan's outcome on the first k requests.
        horizon: s, when request k arrives, from `horizon_of`.
        api: s of each of the k that lie outside the replicas, under this outcome.
    """
    served = part.requests
    assert served is not None
    k = len(served.arrival)
    ttft, gap, arrival = floor.ttft.copy(), floor.gap.copy(), floor.arrival
    first = served.arrival + served.ttft - api
    span = served.e2e - served.ttft
    begun, done = first < horizon, first + span < horizon
    ttft[:k] = np.where(begun, served.ttft * SLACK, np.maximum(ttft[:k], horizon - served.arrival))
    gap[:k] = np.where(begun & done, span * SLACK, np.where(begun, np.maximum(gap[:k], horizon - first), gap[:k]))
    if not floor.open:
        arrival = arrival.copy()
        arrival[:k] = served.arrival
    return Floor(arrival, floor.prompt, floor.output, ttft, gap, floor.speed, floor.open, horizon)


def horizon_of(requests: Requests, part: Outcome, k: int, api: Floats) -> float:
    """Returns when request k, the first left out, would have entered a run: by the clock, or when a user is free.

    In a closed loop request k is sent when ``k - users + 1`` requests have finished; up to then both runs are the same.

    Args:
        requests: all of them.
        part: outcome of the first k.
        k: how many were run.
        api: s of each of the k that lie outside the replicas, under this outcome.
    """
    if not requests.concurrency:
        return float(requests.arrival[k])
    served = part.requests
    assert served is not None
    if k < requests.concurrency:
        return 0.0
    return float(np.sort(served.arrival + served.e2e - api)[k - requests.concurrency])


def demand(outcome: Outcome, prompt: NDArray[np.int64], block: int) -> int:
    """Returns the most KV blocks that the requests present in one replica could claim at any time.

    A request is present from arrival to finish and claims at most the blocks of prompt and output. If that stays
    below a lane's capacity less its watermark, memory never delays or evicts anything, so that plans which differ only
    in capacity have the same outcome.
    """
    served = outcome.requests
    assert served is not None
    blocks = -(-(prompt + served.output) // block)
    most = 0
    for replica in range(int(served.resource.max()) + 1):
        mine = served.resource == replica
        arrival, own = served.arrival[mine], blocks[mine]
        order = np.argsort(np.concatenate([arrival, arrival + served.e2e[mine]]), kind="stable")
        present = np.cumsum(np.concatenate([own, -own])[order])
        most = max(most, int(present.max(initial=0)))
    return most


def _budget(server: Server) -> tuple[float, bool]:
    """Tokens of an iteration and whether prompts are cut; a policy that is no rule may do anything."""
    if not hasattr(server.batch, "rule"):
        return float(1 << 40), True
    rule = server.batch.rule()
    return float(rule.budget), bool(rule.split)


def _rising(cost: StepCost) -> Floats:
    """C(T) over the grid: what an iteration with at least T tokens of one lane takes at least, head and host aside."""
    tables = cost.tables
    hops = (cost.scalars["stages"] - 1) * tables["hop"]
    return _suffix_min(tables["dense"]) + _suffix_min(tables["experts"]) + _suffix_min(hops)


def _suffix_min(table: Floats) -> Floats:
    return np.minimum.accumulate(table[::-1])[::-1]


def _at(table: Floats, tokens: Floats) -> Floats:
    """A rising table at any token count; beyond the grid on the last slope."""
    steep = max((table[-1] - table[-2]) / (GRID[-1] - GRID[-2]), 0.0)
    return np.interp(tokens, GRID, table) + np.maximum(tokens - GRID[-1], 0.0) * steep


def _least_per_token(table: Floats, most: Floats) -> Floats:
    """Least C(q)/q for 1 <= q <= ``most``; between knots of a linear table the least lies on a knot."""
    ratio = np.minimum.accumulate(table[1:] / GRID[1:])
    steep = max((table[-1] - table[-2]) / (GRID[-1] - GRID[-2]), 0.0)
    found = ratio[np.minimum(np.searchsorted(GRID[1:], most, side="left"), len(ratio) - 1)]
    return np.where(most > GRID[-1], np.minimum(found, steep), found)


def _decode_attention(cost: StepCost, table: Floats) -> tuple[float, float, float]:
    """Least floor, base and slope of decode attention over batch sizes, s; zeros where they would not bound.

    An evicted request re-enters by prefilling its context x in one iteration or more and misses at least one
    iteration, of at least C(1), in between. That takes at least C(1) + C(x) + its attention, which must not be less
    than the C(1) + attention that a decoded token is charged; on every real device prefilling x tokens costs far more
    than reading them, and where not, no attention is charged.
    """
    s = cost.scalars
    floor, base, slope = (float(cost.tables[name][1:].min()) for name in ("floor", "base", "slope"))
    x = GRID[1:]
    shares = s["full_share"] + s["window_share"]
    charged = np.maximum(floor, base + slope * shares * x)
    prefill = _least_per_token(table, x) * x + s["pre_base"] + s["pre_pair"] * s["full_share"] * x * (x + 1) / 2
    steep = (table[-1] - table[-2]) / (GRID[-1] - GRID[-2])
    if (charged <= prefill).all() and slope * shares <= steep:
        return floor, base, slope
    return 0.0, 0.0, 0.0


def _window_pairs(p: Floats, window: float) -> Floats:
    """Pairs of a prompt where each token sees at most ``window`` tokens."""
    if window <= 0:
        return np.zeros_like(p)
    ramp = np.minimum(p, window)
    return ramp * (ramp + 1) / 2 + (p - ramp) * window


def _token_pace(server: Server, requests: Requests) -> float:
    """Least seconds of a replica per token it processes.

    An iteration with T tokens on a stage (T/ranks or more on the fullest rank) keeps that stage busy for at least
    g(T) = (dense(T/ranks) + experts(T)) x stage_share, and stages' times add up to at most the step. Both tables are
    taken rising, so g(T)/T >= g(T_k)/T for T from one knot T_k up to the next.
    """
    cost, s = server.cost, server.cost.scalars
    ranks = float(s["ranks"])
    budget, split = _budget(server)
    longest = float(requests.prompt.max() + requests.output.max())  # evicted requests prefill what they emitted too
    most = max(min(budget if split else max(budget, longest), _everything(requests)) * ranks, 1.0)
    knots = GRID[1:]
    if most > knots[-1]:
        knots = np.concatenate(
            [knots, np.geomspace(knots[-1] * 1.03, most * 1.03, num=2 + int(34 * np.log(most / knots[-1])))]
        )
    knots = knots[: int(np.searchsorted(knots, most, side="right"))]
    upto = np.append(knots[1:] - 1.0, most)
    dense, experts = _suffix_min(cost.tables["dense"]), _suffix_min(cost.tables["experts"])
    busy = _at(dense, knots / ranks) + _at(experts, knots)
    if s["stages"] > 1:
        busy = busy * s["stage_share"]
    elif not s["overlap"]:
        busy = busy + s["host_step"] + s["host_token"] * knots / ranks
    return max(float((busy / np.maximum(upto, knots)).min()), 1e-15)


def _everything(requests: Requests) -> float:
    return float(requests.prompt.sum() + requests.output.sum())
