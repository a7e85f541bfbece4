"""What each choice of the best plan buys: the best plan that chooses otherwise, beside it.

A search stops looking at a plan once it is beaten, so the best plan without drafts, say, may never have been simulated.
Here those that were ruled out for being beaten are taken up again, in order of their bounds, until no bound of a plan
left is better than the best found: the answer is that of simulating every one of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from fleetcast.scenario.outcome import Outcome
from fleetcast.search.candidates import Candidate, bound
from fleetcast.search.hunt import Hunt
from fleetcast.search.ranking import Worth, values
from fleetcast.sim.serving.world import simulate

SPLIT, SPILL, DRAFTS, CLOCKS, NANO = "split phases", "spilling", "drafts", "lower clocks", "nano-batches"
PREFIXES, TIERS, BALANCED = "a prefix cache", "tiers below the devices", "balanced experts"


def choices(c: Candidate) -> frozenset[str]:
    """Returns the choices that a plan makes: what it does beyond the plain way, its dtypes, its kinds of devices."""
    found: set[str] = set()
    if isinstance(c.plan.route, dict) and c.plan.route.get("spill"):
        found.add(SPILL)
    for server, pool in zip(c.servers, c.plan.serving, strict=True):
        kind = pool.speculate.get("kind") if isinstance(pool.speculate, dict) else pool.speculate
        made = {
            SPLIT: pool.role != "all", DRAFTS: kind not in (None, "off"),
            CLOCKS: pool.clock is not None and pool.clock < 1, NANO: pool.overlap is not None,  # type: ignore[operator]
            PREFIXES: server.caching is not None, TIERS: server.caching is not None and bool(server.caching.tiers),
            BALANCED: pool.expert_placement == "balanced",
        }  # fmt: skip
        found |= {name for name, yes in made.items() if yes}
        homes = {g.name if g.name == g.device.id else f"devices of {g.name}" for g, _ in server.takes}
        found |= {f"{pool.dtype} weights", f"{server.kv_dtype} cache", *homes}
    return frozenset(found)


def worth(hunt: Hunt, candidates: Sequence[Candidate], best: Outcome | None) -> tuple[tuple[Worth, ...], int]:
    """Returns what each choice buys that some plans make and others do not, and how many more plans were simulated.

    Args:
        hunt: the search, run.
        candidates: all that it settled.
        best: the best plan's outcome; None = no plan meets the SLO, and no choice buys anything.
    """
    if best is None:
        return (), 0
    made = {c.index: choices(c) for c in candidates}
    mine = next(made[c.index] for c, outcome in hunt.done if outcome is best)
    every = frozenset().union(*made.values()) - frozenset.intersection(*made.values())
    extra: dict[int, Outcome] = {}
    found = []
    for choice in sorted(every, key=lambda name: (name not in (SPLIT, SPILL, DRAFTS, CLOCKS, NANO), name)):
        used = choice in mine
        if not used and choice.endswith((" weights", " cache")):
            continue  # what is without the one in use is with another
        among = {index for index, names in made.items() if (choice in names) != used}
        found.append(Worth(choice, used, _best_of(hunt, among, extra)))
    return tuple(found), len(extra)


def _best_of(hunt: Hunt, among: set[int], extra: dict[int, Outcome]) -> Outcome | None:
    """The best plan within the SLO of some candidates; what is simulated for it is kept in ``extra``."""
    known = [o for c, o in hunt.done if c.index in among] + [extra[i] for i in among & extra.keys()]
    best = min((o for o in known if o.slo["met"]), key=lambda o: values(o, hunt.goals), default=None)
    _, path, sign = hunt.goals[0]
    heap = [
        (bound(hunt.state, c, path, sign, floor), c.index, level, c, floor)
        for c, floor, level in hunt.killed if c.index in among and c.index not in extra and not hunt.misses(floor)
    ]  # fmt: skip
    heapq.heapify(heap)
    while heap:
        least, index, level, c, floor = heapq.heappop(heap)
        if best is not None and least >= values(best, hunt.goals)[0]:
            break
        if level < len(hunt.sizes):
            floor, _ = hunt.look(c, floor, hunt.sizes[level])
            if not hunt.misses(floor):
                key = bound(hunt.state, c, path, sign, floor)
                heapq.heappush(heap, (max(key, least), index, level + 1, c, floor))
            continue
        outcome = extra[index] = simulate(hunt.state, c.plan)
        if outcome.slo["met"] and (best is None or values(outcome, hunt.goals) < values(best, hunt.goals)):
            best = outcome
    return best
