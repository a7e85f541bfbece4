"""Whether one plan provably does as another does, so that one of them need not be simulated."""

from __future__ import annotations

from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import Pool, replace
from fleetcast.search.bounds import demand
from fleetcast.search.candidates import Candidate
from fleetcast.search.drafters import drafting
from fleetcast.search.pace import Traffic
from fleetcast.sim.serving.setting import Server

SPEED_BATCH = 64
"""Replicas are weighed by their speed at this batch (`sim.serving.world.speeds`): smaller max_batch, other weights."""


def same(a: Candidate, b: Candidate, outcome: Outcome) -> bool:
    """Whether ``b`` provably has the outcome of ``a``, given that outcome.

    They differ at most in how many requests may run and how many tokens an iteration may hold. A limit that never
    held anything back under ``a`` does not do so when it is raised, so every decision is the same. Both reserve memory
    for their largest iteration, so the cache differs too: `demand` must fit in either.
    """
    if a.rows != b.rows:
        return False
    limited, truncated = outcome.provenance["batch_limited"], outcome.provenance["budget_truncated"]
    tight = False
    for one, other in zip(a.servers, b.servers, strict=True):
        if one is other:
            continue
        if not (hasattr(one.batch, "rule") and type(one.batch) is type(other.batch)):
            return False
        if _rest(one.pool) != _rest(other.pool) or drafting(one) != drafting(other):
            return False
        low, high = one.batch.rule(), other.batch.rule()
        if low[2:] != high[2:] or low.max_batch > high.max_batch or low.budget > high.budget:
            return False
        if (limited and low.max_batch != high.max_batch) or (truncated and low.budget != high.budget):
            return False
        if len(a.servers) > 1 and min(low.max_batch, SPEED_BATCH) != min(high.max_batch, SPEED_BATCH):
            return False
        tight |= _free(one) != _free(other)
    if not tight:
        return True
    if any(s.pool.role != "all" for s in a.servers):
        return False  # a request stays in two replicas: `demand` does not tell for how long
    if any(s.group.outages is not None for s in a.servers):
        return False  # a request that was lost has claimed cache elsewhere, too
    if any(s.caching is not None for s in (*a.servers, *b.servers)):
        return False  # room for prefixes is room that is used, however little is in use
    if any(s.speculation is not None for s in (*a.servers, *b.servers)):
        return False  # `demand` knows the tokens that are made, not those that are drafted beyond them
    least = min(_free(s) for s in (*a.servers, *b.servers))
    return _demand(a.floor.traffic, outcome, min(s.engine.block for s in a.servers)) <= least


def _demand(traffic: Traffic, outcome: Outcome, block: int) -> int:
    """`demand`, once per outcome, which is kept so that its id stays its own."""
    key = id(outcome), block
    if key not in traffic.demands:
        traffic.demands[key] = outcome, demand(outcome, traffic.requests.prompt, block)
    return traffic.demands[key][1]


def _free(server: Server) -> int:
    return int(server.cost.scalars["capacity"] - server.cost.scalars["watermark"])


def _rest(pool: Pool) -> Pool:
    return replace(pool, batch=None, replicas=None)
