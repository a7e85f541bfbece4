"""The engine's prefix cache: equal tokens, blocks that add up, finds that the simulated cache makes too, no poison."""

from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import PolicyError, Unsupported
from fleetcast.policy import batch, evict
from fleetcast.policy.order import requests as order
from fleetcast.runtime.llm import Engine
from fleetcast.runtime.llm.paging import BLOCK
from fleetcast.scenario.workload.prefixes import prefix_tree
from fleetcast.scenario.workload.requests import requests
from fleetcast.sim.serving.lanes import Request as Simulated
from fleetcast.sim.serving.prefixes import PrefixCache
from fleetcast.sim.serving.stepwise import Replica
from tests.runtime.llm.echo import Echo, alone
from tests.runtime.llm.test_engine import EVERY, POLICIES
from tests.sim.worlds import step_cost, world

RULES = {"lru": evict.Lru(), "lfu": evict.Lfu(), "fifo": evict.Fifo()}


def engine(policy, blocks, rule, **settings):
    ticks = count()
    return Engine(Echo(blocks), blocks=blocks, batch=policy, prefix_cache=rule, clock=lambda: float(next(ticks)),
                  **settings)  # fmt: skip


def conversations(seed, many, system=40, message=30, output=40):
    """Returns (prompt, output tokens, parent, prefix): turns that repeat all that was said, answers included."""
    draw = np.random.default_rng(seed)
    shared, found = draw.integers(0, 50, system).tolist(), []
    for i in range(many):
        new = draw.integers(0, 50, draw.integers(1, message)).tolist()
        before = int(draw.integers(-1, i)) if draw.random() < 0.7 else -1
        if before < 0:
            prompt, parent, prefix = shared + new, min(i - 1, 0), system if i else 0
        else:
            said, made = found[before][:2]
            whole = said + alone(said, made, 50)
            keep = int(draw.integers(1, len(whole)))
            prompt, parent, prefix = whole[:keep] + new, before, keep
        found.append((prompt, int(draw.integers(1, output)), parent, prefix))
    return found


def test_every_policy_is_tried():
    assert set(RULES) | {"belady"} == {c.kind for c in vars(evict).values() if hasattr(c, "kind")}


def check(e):
    """Every block is free, cached, or a request's own; what the cache counts is what there is."""
    s, cache = e.schedule, e.schedule.prefixes
    here = s.running + s.partial
    kept = {n.block for n in cache.nodes.values()}
    own = [b for r in here for b in r.table[len(r.nodes) :]]
    assert len(own) == len(set(own))
    assert not kept & set(own)
    assert len(kept) == len(cache.nodes)
    assert len(kept) + len(own) == e.blocks.used
    assert not [r for r in s.waiting + s.resumed if r.table or r.nodes]
    users = {n.number: 0 for n in cache.nodes.values()}
    for r in here:
        for place, node in enumerate(r.nodes):
            users[node.number] += 1
            assert (node.block, node.depth) == (r.table[place], place)
            assert node.key[1] == tuple(r.tokens[place * BLOCK : (place + 1) * BLOCK])
    assert [n.users for n in cache.nodes.values()] == list(users.values())
    assert cache.idle == sum(not n for n in users.values())
    assert cache.shared == sum(max(0, n - 1) for n in users.values())
    for n in cache.nodes.values():
        assert n.below == sum(other.above is n for other in cache.nodes.values())
        held = e.model.cache[n.block * BLOCK : (n.block + 1) * BLOCK].tolist()
        assert held == list(n.key[1]), "the model's memory holds what the cache says"


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(sorted(EVERY)), rule=st.sampled_from(sorted(RULES)),
    blocks=st.integers(14, 60), gaps=st.lists(st.integers(0, 12), min_size=1, max_size=12),
)  # fmt: skip
def test_blocks_add_up_and_tokens_are_those_without_a_cache(seed, kind, rule, blocks, gaps):
    e = engine(EVERY[kind], blocks, RULES[rule])
    made = []
    asked = [x for x in conversations(seed, len(gaps), message=20, output=25) if len(x[0]) + x[1] <= 14 * BLOCK]
    for gap, (prompt, limit, _, _) in zip(gaps, asked, strict=False):
        for _ in range(gap):
            e.step()
            check(e)
        made.append(e.submit(prompt, limit))
    while e.load:
        assert e.step() is not None
        check(e)
    cache = e.schedule.prefixes
    assert e.blocks.used == cache.idle == len(cache.nodes)
    for r in made:
        assert r.output == alone(r.tokens[: r.prompt], r.limit, 50)
        assert r.cached % BLOCK == 0
        assert r.cached < r.prompt
    assert sum(i.cached for i in e.iterations) == cache.found
    assert sum(i.cached + i.prefill_tokens for i in e.iterations) >= sum(r.prompt for r in made)
    cache.trim(0)
    assert (e.blocks.used, cache.nodes) == (0, {})


def both(kind, rule, blocks, asked, ranking, watermark=0):
    """Runs the same requests in the engine and in the simulated world."""
    e = engine(EVERY[kind], blocks, RULES[rule], order=ranking, watermark=watermark)
    made = [e.submit(prompt, limit) for prompt, limit, _, _ in asked]
    e.run()
    cost = step_cost(capacity=blocks, watermark=watermark)
    server = world(0, 1, 1.0, EVERY[kind], cost=cost, ranking=ranking).servers[0]
    found = requests(
        np.arange(len(asked)), [len(x[0]) for x in asked], [x[1] for x in asked],
        parent=[x[2] for x in asked], prefix=[x[3] for x in asked],
    )  # fmt: skip
    cache = PrefixCache(prefix_tree(found, BLOCK), (), RULES[rule])
    replica = Replica(server, (), [cache])
    for i, (prompt, limit, _, _) in enumerate(asked):
        replica.push(Simulated(i, 0.0, len(prompt), limit, key=ranking.key(float(i), len(prompt))), 0.0)
    while replica.end < float("inf"):
        replica.commit()
    return e, made, replica, cache


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ranking", [order.Fifo(), order.ShortestPrompt()], ids=lambda x: x.kind)
def test_finds_and_iterations_are_those_of_the_simulated_world(kind, rule, ranking):
    """With room for all: what is found does not depend on what is given up."""
    asked = conversations(3, 24)
    e, made, replica, cache = both(kind, rule, 400, asked, ranking)
    log = e.record()
    assert [(int(w), int(n)) for w, n in zip(log.what, log.items, strict=True)] == [
        (what, items) for _, _, what, _, items, _ in replica.log
    ]
    assert [i.blocks for i in e.iterations] == [row[5] for row in replica.log]
    mine = e.schedule.prefixes
    assert (mine.found, mine.asked) == (cache.found[0] * BLOCK, cache.asked)
    assert mine.found > 0.3 * mine.asked, "the case must find"
    assert [r.output for r in made] == [alone(prompt, limit, 50) for prompt, limit, _, _ in asked]


@pytest.mark.parametrize("kind", ["chunked", "prefill_first"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_under_pressure_blocks_go_as_the_segments_of_the_simulated_world(kind, rule, seed):
    """Equal under least recent use; the other rules rank a block by its own age and uses, a segment by one for all."""
    asked = conversations(seed, 30)
    e, _, replica, cache = both(kind, rule, 20, asked, order.Fifo())
    mine = e.schedule.prefixes
    assert e.preemptions > 0, "the case must evict"
    assert mine.dropped > 50, "the case must give up blocks"
    if rule == "lru":
        assert (mine.found, mine.asked, mine.dropped) == (cache.found[0] * BLOCK, cache.asked, cache.dropped)
        assert [i.blocks for i in e.iterations] == [row[5] for row in replica.log]
    assert mine.found == pytest.approx(cache.found[0] * BLOCK, rel=0.1)
    assert len(e.iterations) == pytest.approx(len(replica.log), rel=0.05)


def test_an_evicted_request_finds_what_is_left_of_itself():
    e = engine(POLICIES["chunked"], 14, evict.Lru())
    for i in range(4):
        e.submit([i] * 60, 60)
    e.run()
    assert e.preemptions > 0
    assert e.schedule.prefixes.found > 0
    assert [r.cached for r in (e.submit([0] * 60, 1), e.submit([9] * 60, 1))] == [0, 0]


def test_contexts_of_equal_hashes_share_nothing(monkeypatch):
    """Tokens decide: with every hash the same the cache is slow and right."""

    class Worst(tuple):
        __slots__ = ()
        __hash__ = lambda self: 0  # noqa: E731

    from fleetcast.runtime.llm import prefixes

    plain = prefixes._tokens
    monkeypatch.setattr(prefixes, "_tokens", lambda r, place: Worst(plain(r, place)))
    asked = conversations(7, 16)
    e = engine(POLICIES["chunked"], 100, evict.Lru())
    made = [e.submit(prompt, limit) for prompt, limit, _, _ in asked]
    e.run()
    assert e.schedule.prefixes.found > 0
    assert [r.output for r in made] == [alone(prompt, limit, 50) for prompt, limit, _, _ in asked]


def test_salts_keep_requests_apart_and_equal_ones_share():
    e = engine(POLICIES["chunked"], 60, evict.Lru())
    prompt = list(range(40))

    def cached(salt):
        r = e.submit(prompt, 1, salt=salt)
        e.run()
        return r.cached

    assert [cached(s) for s in ("", "a", "b", "a", "", "b")] == [0, 0, 0, 32, 32, 32]


def test_the_last_token_is_always_computed():
    e = engine(POLICIES["chunked"], 60, evict.Lru())
    e.submit([1] * 32, 1)
    e.run()
    again = e.submit([1] * 32, 1)
    e.run()
    assert (again.cached, e.iterations[-1].prefill_tokens) == (16, 16)
    assert e.schedule.prefixes.idle == 2, "what both computed is kept once"


def test_a_cancelled_or_failed_request_leaves_only_what_was_computed():
    e = engine(POLICIES["chunked"], 60, evict.Lru())
    r = e.submit(list(range(50)), 5)
    e.step()  # 24 of its tokens
    e.schedule.leave(r, 1.0)
    check(e)
    assert len(e.schedule.prefixes.nodes) == 1
    forward = e.model.forward

    def broken(pieces):
        e.model.cache[e.model.slot(pieces[0], pieces[0].start)] = 49
        raise RuntimeError("out of memory")

    again = e.submit(list(range(50)), 5)
    e.model.forward = broken
    with pytest.raises(RuntimeError):
        e.step()
    check(e)
    e.model.forward = forward
    e.run()
    assert (again.cached, again.output) == (16, alone(range(50), 5, 50))


def test_what_cannot_rank_is_refused():
    with pytest.raises(Unsupported, match="look ahead as 'belady'"):
        engine(POLICIES["chunked"], 20, evict.Belady())

    class Nan(evict.Lru):
        def rank(self, view):
            return float("nan")

    e = engine(batch.Chunked(chunk=64, max_batch=4), 20, Nan())
    e.submit([1] * 20, 1)
    with pytest.raises(PolicyError, match=r"Nan\.rank ranked NaN"):
        e.run()
