"""What a replica needs at least, alone and at its best batch: the ground that `bounds` builds on.

Symbols: an iteration in which a lane processes at least T tokens takes at least C(T), the tables made non-decreasing
from the right (``C(T) = min over m >= T``), whatever else the iteration carries. Each docstring says why its bound
holds; `tests/search` holds it against the world, under real costs and under costs of no order at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.step import GRID, StepCost
from fleetcast.scenario.workload.requests import Requests
from fleetcast.sim.serving.setting import Server, sizes

Floats = NDArray[np.float64]

SLACK = 1.0 - 1e-9
"""Bounds are shrunk by the rounding that sums in another order may show."""


@dataclass(frozen=True, eq=False)
class Traffic:
    """The requests, with what every bound needs of them worked out once.

    Attributes:
        requests: the columns.
        spared: prompt tokens that a prefix cache may spare each request at most; None = none.
        demands: what `alike.same` has worked out: by id of an outcome and block size, the outcome and its demand.
    """

    requests: Requests
    spared: NDArray[np.int64] | None = None
    demands: dict[tuple[int, int], tuple[object, int]] = field(default_factory=dict, repr=False)
    _indices: dict[float, NDArray[np.intp]] = field(default_factory=dict, repr=False)
    _largest: dict[tuple[str, int], int] = field(default_factory=dict, repr=False)

    @cached_property
    def prompt(self) -> Floats:
        """Prompt tokens that are computed at least."""
        return self.tokens["ttft"].astype(np.float64)

    @cached_property
    def context(self) -> Floats:
        """Prompt tokens, those that are cached included."""
        return self.requests.prompt.astype(np.float64)

    @cached_property
    def steps(self) -> Floats:
        """Iterations after the first token."""
        return self.requests.output.astype(np.float64) - 1.0

    @cached_property
    def pairs(self) -> Floats:
        """Pairs of a prompt's tokens, each with itself and those before it."""
        return self.prompt * (self.prompt + 1.0) / 2.0

    @cached_property
    def reach(self) -> Floats:
        """Context tokens that the steps after the first token attend to, together."""
        return self.steps * (self.context + (self.steps + 1.0) / 2.0)

    @cached_property
    def many(self) -> int:
        """Requests with at least two output tokens."""
        return int(np.count_nonzero(self.steps))

    @cached_property
    def elapsed(self) -> Floats:
        """Time since the first arrival, s."""
        return np.asarray(self.requests.arrival - self.requests.arrival[0])

    @cached_property
    def tokens(self) -> dict[str, NDArray[np.int64]]:
        """Tokens processed per request up to its first token ("ttft") and its last ("e2e"), at least."""
        prompt = self.requests.prompt if self.spared is None else self.requests.prompt - self.spared
        return {"ttft": prompt, "e2e": prompt + self.requests.output - 1}

    @cached_property
    def sums(self) -> dict[str, NDArray[np.int64]]:
        """Running sums of `tokens`."""
        return {name: np.cumsum(column) for name, column in self.tokens.items()}

    def knots(self, budget: float) -> NDArray[np.intp]:
        """Returns, per prompt cut at ``budget``, the index into ``GRID[1:]`` of the first knot not below it."""
        if budget not in self._indices:
            found = np.searchsorted(GRID[1:], np.minimum(self.prompt, budget), side="left")
            self._indices[budget] = np.minimum(found, len(GRID) - 2)
        return self._indices[budget]

    def largest(self, name: str, count: int) -> int:
        """Returns the tokens of the ``count`` requests that have most."""
        if (name, count) not in self._largest:
            column = self.tokens[name]
            n = len(column)
            self._largest[name, count] = int(np.partition(column, n - count)[n - count :].sum()) if count else 0
        return self._largest[name, count]


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


def pace(server: Server, traffic: Traffic) -> Pace:
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
    table, p, m = _rising(cost), traffic.prompt, traffic.steps
    reach = traffic.reach
    if server.speculation is not None:
        m, reach = _checked(server, traffic)
    budget, split = _budget(server)
    head = float(cost.tables["head"][1:].min())
    window = float(s["window"]) if s["window_share"] > 0 else 0.0
    shares, ranks = s["full_share"] + s["window_share"], s["ranks"]
    # prefill
    if split:
        work = p * _least_per_token(table)[traffic.knots(budget)]
        pieces = np.ceil(p / budget)
    else:
        work, pieces = _at(table, p), np.ones_like(p)
    pairs = traffic.pairs
    if window:
        pairs = s["full_share"] * pairs + s["window_share"] * _window_pairs(p, window)
        reach = s["full_share"] * reach + s["window_share"] * m * np.minimum(traffic.context + 1.0, window)
    device = work + (s["pre_pair"] * pairs + (s["pre_query"] + s["pre_context"] * shares) * p) + (head + s["pre_base"])
    if not s["graph_prefill"] and s["eager"] > 0:
        device = np.maximum(device, pieces * s["eager"])
    host = pieces * (s["host_step"] + s["host_seq"] / ranks) + (s["host_token"] / ranks) * p
    ttft = np.maximum(device, host) if s["overlap"] else device + host
    # decode
    longest = float((traffic.requests.prompt + traffic.requests.output).max()) if traffic.spared is not None else 0.0
    floor, base, slope = _decode_attention(cost, table, longest)
    device = m * (float(table[1]) + head) + np.maximum(m * floor, m * base + slope * reach)
    host = m * (s["host_step"] + (s["host_seq"] + s["host_token"]) / ranks)
    gap = np.maximum(device, host) if s["overlap"] else device + host
    api = cost.api + cost.api_token * traffic.context
    token = _token_pace(server, traffic.requests) * _least_checked(server, traffic, m)
    return Pace(ttft * SLACK + api, gap * SLACK, token * SLACK)


def _checked(server: Server, traffic: Traffic) -> tuple[Floats, Floats]:
    """Returns each request's passes after its first token, and the context they attend to, where drafts are checked.

    Pass i attends to prompt + 1 + i growth + ahead tokens, i from 0.
    """
    assert server.speculation is not None
    s, m = server.cost.scalars, server.speculation.calls(traffic.requests).astype(np.float64) - 1.0
    growth = s["growth"] / s["unit"]
    return m, np.asarray(m * (traffic.context + 1.0 + s["ahead"]) + growth * m * (m - 1.0) / 2.0)


def _least_checked(server: Server, traffic: Traffic, passes: Floats) -> float:
    """Returns the least tokens that a request has processed over those that `Traffic.tokens` counts; at most 1.

    `Traffic.tokens` has one for each token made. A pass processes at least ``width``; one that is spared by a prefill
    after an eviction costs the tokens of prompt and first token, at least.
    """
    if server.speculation is None:
        return 1.0
    width = server.cost.scalars["width"] / server.cost.scalars["unit"]
    done = traffic.prompt + passes * np.minimum(width, 1.0 if traffic.spared is not None else traffic.prompt + 1.0)
    return float(min(1.0, (done / traffic.tokens["e2e"]).min()))


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
    return np.asarray(np.minimum.accumulate(table[::-1])[::-1])


def _at(table: Floats, tokens: Floats) -> Floats:
    """A rising table at any token count; beyond the grid on the last slope."""
    steep = max((table[-1] - table[-2]) / (GRID[-1] - GRID[-2]), 0.0)
    return np.asarray(np.interp(tokens, GRID, table) + np.maximum(tokens - GRID[-1], 0.0) * steep)


def _least_per_token(table: Floats) -> Floats:
    """Least C(q)/q for 1 <= q <= each knot of ``GRID[1:]``; between knots of a linear table it lies on a knot.

    The last entry also stands for all q beyond the grid, where C grows on its last slope.
    """
    ratio = np.minimum.accumulate(table[1:] / GRID[1:])
    ratio[-1] = min(ratio[-1], max((table[-1] - table[-2]) / (GRID[-1] - GRID[-2]), 0.0))
    return ratio


def _decode_attention(cost: StepCost, table: Floats, cached: float = 0.0) -> tuple[float, float, float]:
    """Least floor, base and slope of decode attention over batch sizes, s; zeros where they would not bound.

    An evicted request re-enters by prefilling its context x in one iteration or more and misses at least one
    iteration, of at least C(1), in between. That takes at least C(1) + C(x) + its attention, which must not be less
    than the C(1) + attention that a decoded token is charged; on every real device prefilling x tokens costs far more
    than reading them, and where not, no attention is charged. Where prefixes are ``cached``, of contexts up to so many
    tokens, all but the last token may be there still: C(1), one token's attention to x, and the iteration missed.
    """
    s = cost.scalars
    floor, base, slope = (least_attention(cost, name) for name in ("floor", "base", "slope"))
    x = GRID[1:]
    shares = s["full_share"] + s["window_share"]
    if cached:
        x = np.append(x[x < cached], cached)
        least = float(table[1]) + s["pre_base"] + s["pre_pair"] * s["full_share"] * x
        fine = (np.maximum(floor, base + slope * shares * x) <= least).all()
        return (floor, base, slope) if fine else (0.0, 0.0, 0.0)
    charged = np.maximum(floor, base + slope * shares * x)
    prefill = _least_per_token(table) * x + s["pre_base"] + s["pre_pair"] * s["full_share"] * x * (x + 1) / 2
    steep = (table[-1] - table[-2]) / (GRID[-1] - GRID[-2])
    if (charged <= prefill).all() and slope * shares <= steep:
        return floor, base, slope
    return 0.0, 0.0, 0.0


def least_attention(cost: StepCost, name: str) -> float:
    """Returns the least of a table of decode attention over batch sizes, in whole iterations and in cut ones."""
    return min(float(cost.tables[key][1:].min()) for key in (name, f"cut_{name}") if key in cost.tables)


def _window_pairs(p: Floats, window: float) -> Floats:
    """Pairs of a prompt where each token sees at most ``window`` tokens."""
    if window <= 0:
        return np.zeros_like(p)
    ramp = np.minimum(p, window)
    return np.asarray(ramp * (ramp + 1) / 2 + (p - ramp) * window)


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
    if server.speculation is not None:  # drafts are checked even where they exceed the budget
        most = max(most, (budget + sizes(server.batch)[0] * (s["width"] / s["unit"] + 1.0)) * ranks)
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
