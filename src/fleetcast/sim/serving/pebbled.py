"""Whether swapping and recomputing requests' KV caches is legal within a replica's memory, as a pebble game.

All requests of a small load are there at once, the first of the trace whose whole contexts are three times what the
cache holds. Each round every running request grows by a few blocks; who must leave is what the plan's policy says. A
request's cache is a prompt's part and parts made while it decodes, each computed from those before it: computing one
anew is a prefill of its tokens. A token costs the share of a full batch's step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from fleetcast.cost.pebbling.check import Proof, prove
from fleetcast.cost.pebbling.dag import Dag
from fleetcast.cost.pebbling.game import COMPUTE, DELETE, LOAD, SAVE, Game, Move, game
from fleetcast.cost.step import GRID
from fleetcast.policy.memory import Policy
from fleetcast.scenario.plan import Plan
from fleetcast.sim.serving.setting import Server, Setting

MOST = 5000
"""Requests at most; where so few do not fill the cache there is nothing to prove."""
PARTS = 4
"""Parts in which a mean answer grows."""
OVER = 3.0
"""Times the cache, so much the load's whole contexts are at least."""


@dataclass
class _Request:
    number: int
    sizes: list[int]  # blocks of each part
    parts: list[int] = field(default_factory=list)  # nodes
    tokens: list[int] = field(default_factory=list)
    source: int = -1
    answer: int = -1
    made: int = 0  # parts made so far
    admitted: int = -1


def proof(state: Setting, plan: Plan) -> Proof | None:
    """Returns what is known of the moves, None where no request is evicted or the plan has several pools.

    Args:
        state: the scenario, resolved.
        plan: complete.
    """
    if len(plan.pools) != 1:
        return None
    server = state.server(plan.pools[0])
    lengths = list(zip(state.requests.prompt.tolist(), state.requests.output.tolist(), strict=True))
    found = pebbles(server, lengths)
    return None if found is None else prove(*found)


def pebbles(server: Server, lengths: list[tuple[int, int]]) -> tuple[Game, list[Move]] | None:
    """Returns the game and the moves of the plan's policy, None where the cache holds all.

    Args:
        server: a replica.
        lengths: tokens of prompts and answers, in order of arrival.
    """
    c = server.cost.scalars
    capacity, block = int(c["capacity"]), int(c["block"])
    wanted = np.cumsum([ceil((p + o) / block) for p, o in lengths[:MOST]])
    count = int(np.searchsorted(wanted, OVER * capacity)) + 1
    if count > len(wanted) or max(ceil((p + o) / block) for p, o in lengths[:count]) > capacity:
        return None
    chosen = lengths[:count]
    rule = server.batch.rule() if hasattr(server.batch, "rule") else None
    most = int(rule.max_batch) if rule is not None else count
    longest = max(1, ceil(sum(o for _, o in chosen) / count / block / PARTS))
    requests = [_Request(i, _sizes(p, o, block, longest)) for i, (p, o) in enumerate(chosen)]
    dag = _dag(server, requests, min(most, count), block)
    moves, evicted = _play(requests, server.memory, capacity, capacity - int(c["watermark"]), most)
    if not evicted:
        return None
    size = float(server.cost.work["block_bytes"])
    return game(dag, red=capacity * size, g=c["swap_block"] / size, unit="s", about="KV caches of one replica"), moves


def _sizes(prompt: int, output: int, block: int, longest: int) -> list[int]:
    """Returns blocks of the prompt and of each part of the answer."""
    first, left = ceil(prompt / block), ceil((prompt + output) / block) - ceil(prompt / block)
    return [first, *(min(longest, left - i) for i in range(0, left, longest))]


def _dag(server: Server, requests: list[_Request], batch: int, block: int) -> Dag:
    c, t = server.cost.scalars, server.cost.tables
    parents: list[tuple[int, ...]] = []
    work, size, names = [], [], []
    each = float(server.cost.work["block_bytes"])

    def node(name: str, inputs: tuple[int, ...], seconds: float, blocks: int) -> int:
        parents.append(inputs)
        work.append(seconds)
        size.append(blocks * each)
        names.append(name)
        return len(parents) - 1

    def prefill(n: float) -> float:
        pairs = c["pre_pair"] * n * (n + 1) / 2 + (c["pre_query"] + c["pre_context"]) * n
        return float(np.interp(n, GRID, t["dense"]) + c["pre_base"] + pairs) if n else 0.0

    step = float(np.interp(batch, GRID, t["dense"]) + np.interp(batch, GRID, t["head"]))
    base, slope = float(t["base"][min(batch, len(t["base"]) - 1)]), float(t["slope"][min(batch, len(t["slope"]) - 1)])
    for r in requests:
        r.source = node(f"prompt {r.number}", (), 0.0, 0)
        before, done = r.source, 0
        for i, blocks in enumerate(r.sizes):
            reach = (done + blocks) * block
            anew = prefill(reach) - prefill(done * block)
            if i:  # the tokens are decoded, which makes their part of the cache as well
                token = (step + base) / batch + slope * (done + blocks / 2) * block
                seconds = max(0.0, blocks * block * token - anew)
                before = node(f"tokens {i} of request {r.number}", (*r.parts, before), seconds, 0)
                r.tokens.append(before)
            r.parts.append(node(f"cache {i} of request {r.number}", (before, *r.parts), anew, blocks))
            done += blocks
        r.answer = node(f"answer {r.number}", (*r.parts, before), 0.0, 0)
    return Dag(tuple(parents), tuple(work), tuple(size), tuple(names))


def _play(requests: list[_Request], policy: Policy, capacity: int, admit: int, most: int) -> tuple[list[Move], int]:
    """Returns the moves of a policy, and how often a request was evicted; none is admitted in a round that evicts."""
    waiting, away, running = deque(requests), deque[_Request](), list[_Request]()
    made: list[Move] = []
    saved: set[int] = set()
    used = admissions = evicted = 0

    def held(r: _Request) -> int:
        return sum(r.sizes[: r.made])

    def grows(r: _Request) -> int:
        return r.sizes[r.made] if r.made < len(r.sizes) else 0

    def grow(r: _Request) -> None:
        if r.made:
            made.append((COMPUTE, 0, r.tokens[r.made - 1]))
        made.append((COMPUTE, 0, r.parts[r.made]))
        r.made += 1

    while waiting or away or running:
        before = evicted
        while used + sum(map(grows, running)) > capacity:
            r = running.pop(policy.victim([x.admitted for x in running]))
            for v in r.parts[: r.made]:
                if policy.swap and v not in saved:
                    made.append((SAVE, 0, v))
                    saved.add(v)
                made.append((DELETE, 0, v))
            used -= held(r)
            away.appendleft(r)
            evicted += 1
        for r in list(running):
            used += grows(r)
            if r.made < len(r.sizes):
                grow(r)
            if r.made == len(r.sizes):
                made += [(COMPUTE, 0, r.answer), (SAVE, 0, r.answer), (DELETE, 0, r.answer)]
                made += [(DELETE, 0, v) for v in (*r.parts, *r.tokens, r.source)]
                used -= held(r)
                running.remove(r)
        while (away or waiting) and len(running) < most and (evicted == before or not running):
            r = (away or waiting)[0]
            need = held(r) if r.made else grows(r)
            if used + need > admit and running:
                break
            (away or waiting).popleft()
            if not r.made:
                made.append((LOAD, 0, r.source))
                grow(r)
            else:
                made += [(LOAD if policy.swap else COMPUTE, 0, v) for v in r.parts[: r.made]]
            used += need
            r.admitted, admissions = admissions, admissions + 1
            running.append(r)
    return made, evicted
