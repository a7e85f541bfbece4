"""The engine's scheduler: tokens as if each request were alone, iterations as the simulated world makes them."""

from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import Infeasible, PolicyError, SpecError, Unsupported
from fleetcast.policy import batch, memory
from fleetcast.policy.batch import Batch
from fleetcast.policy.order import requests as order
from fleetcast.runtime.llm import Engine, Sampling
from fleetcast.sim.serving.lanes import Request as Simulated
from fleetcast.sim.serving.stepwise import Replica
from tests.runtime.llm.echo import Echo, alone, logits_of
from tests.sim.worlds import step_cost, world

POLICIES = {
    "chunked": batch.Chunked(chunk=24, max_batch=8),
    "orca": batch.Orca(max_batch=6, max_tokens=300),
    "prefill_first": batch.PrefillFirst(max_batch=6, max_tokens=120),
    "static": batch.Static(max_batch=4, max_tokens=400),
}


class ByHand:
    """A user's policy without a rule: decodes, and begins the shortest prompt that fits, whole, out of turn."""

    kind = "by_hand"

    def compose(self, view):
        chosen = [(i.id, i.tokens) for i in view.partial] or [
            (i.id, i.tokens) for i in sorted(view.waiting, key=lambda i: i.tokens)[:1] if i.blocks <= view.free
        ]
        return Batch(tuple(chosen), decode=True)


EVERY = POLICIES | {"by_hand": ByHand()}


def test_every_batch_policy_is_tried():
    assert set(POLICIES) == {c.kind for c in vars(batch).values() if hasattr(c, "compose") and hasattr(c, "rule")}


def engine(policy=None, blocks=40, **settings):
    ticks = count()
    return Engine(Echo(blocks), blocks=blocks, batch=policy, clock=lambda: float(next(ticks)), **settings)


def requests(seed, many, prompt=90, output=60):
    draw = np.random.default_rng(seed)
    return [
        (draw.integers(0, 50, draw.integers(1, prompt)).tolist(), int(draw.integers(1, output))) for _ in range(many)
    ]


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("blocks", [10, 40])
def test_every_policy_gives_each_request_the_tokens_it_gets_alone(kind, blocks):
    e = engine(EVERY[kind], blocks)
    asked = requests(1, 24)
    made = [e.submit(prompt, limit) for prompt, limit in asked]
    e.run()
    assert [r.output for r in made] == [alone(prompt, limit, 50) for prompt, limit in asked]
    assert all(r.finish == "length" for r in made)
    assert e.blocks.used == 0
    if blocks == 10 and kind in ("chunked", "prefill_first"):
        assert e.preemptions > 0, "the case must evict"


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("ranking", [order.Fifo(), order.ShortestPrompt()], ids=lambda x: x.kind)
@pytest.mark.parametrize("watermark", [0, 2])
def test_iterations_are_those_of_the_simulated_world(kind, ranking, watermark):
    """Same requests, same policy objects: every iteration has the same kind, requests and blocks."""
    asked = requests(2, 30)
    e = engine(EVERY[kind], 12, order=ranking, watermark=watermark)
    for prompt, limit in asked:
        e.submit(prompt, limit)
    e.run()

    cost = step_cost(capacity=12, watermark=watermark)
    server = world(0, 1, 1.0, EVERY[kind], cost=cost, ranking=ranking).servers[0]
    replica = Replica(server)
    for i, (prompt, limit) in enumerate(asked):
        # the clock of the test counts submissions, so arrivals are in the same order
        replica.push(Simulated(i, 0.0, len(prompt), limit, key=ranking.key(float(i), len(prompt))), 0.0)
    while replica.end < float("inf"):
        replica.commit()

    log = e.record()
    assert [(int(w), int(n)) for w, n in zip(log.what, log.items, strict=True)] == [
        (what, items) for _, _, what, _, items, _ in replica.log
    ]
    assert [i.blocks for i in e.iterations] == [row[5] for row in replica.log]
    assert (e.preemptions, e.admissions) == (replica.preemptions, replica.admissions)
    assert e.preemptions > 0 or EVERY[kind] in (POLICIES["orca"], POLICIES["static"]), "the case must evict"
    assert replica.completed == len(asked)


@given(
    seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(sorted(EVERY)), blocks=st.integers(7, 40),
    gaps=st.lists(st.integers(0, 12), min_size=1, max_size=12),
)  # fmt: skip
def test_blocks_and_tokens_are_conserved_under_random_load(seed, kind, blocks, gaps):
    """Requests come at any iteration; held blocks are always those of the tables, and in the end none."""
    e = engine(EVERY[kind], blocks)
    made = []
    for gap, (prompt, limit) in zip(gaps, requests(seed, len(gaps), prompt=50, output=40), strict=True):
        for _ in range(gap):
            e.step()
            check_books(e)
        made.append(e.submit(prompt, limit))
    while e.load:
        assert e.step() is not None
        check_books(e)
    assert e.blocks.used == 0
    assert sum(i.decodes for i in e.iterations) + e.admissions == sum(r.emitted for r in made)
    for r in made:
        assert r.output == alone(r.tokens[: r.prompt], r.limit, 50)
        assert r.arrival < r.first <= r.end


def check_books(e):
    held = [block for r in e.schedule.running + e.schedule.partial for block in r.table]
    assert len(held) == len(set(held)) == e.blocks.used
    assert e.blocks.used + e.blocks.free == e.blocks.count
    assert not [r for r in e.schedule.waiting + e.schedule.resumed if r.table]


def test_prefilled_tokens_are_the_prompts_and_what_eviction_made_again():
    asked = requests(3, 10)
    tight, roomy = engine(POLICIES["chunked"], 10), engine(POLICIES["chunked"], 2000)
    for e in (tight, roomy):
        for prompt, limit in asked:
            e.submit(prompt, limit)
        e.run()
    assert tight.preemptions > 0
    assert sum(i.prefill_tokens for i in tight.iterations) > sum(len(p) for p, _ in asked)
    assert roomy.preemptions == 0
    assert sum(i.prefill_tokens for i in roomy.iterations) == sum(len(p) for p, _ in asked)
    assert max(i.decodes + i.prefill_tokens for i in roomy.iterations) <= 24


def test_a_request_that_only_fits_without_the_watermark_runs_alone():
    e = engine(POLICIES["chunked"], 10, watermark=3)
    large, small = e.submit([1] * 150, 10), e.submit([2] * 5, 3)
    e.run()
    assert (large.output, small.output) == (alone([1] * 150, 10, 50), alone([2] * 5, 3, 50))
    assert small.first > large.end


class Wrong:
    """Decides as chunked, but for one call, which is spoilt."""

    kind = "wrong"

    def __init__(self, spoil, call):
        self.good, self.spoil, self.call, self.calls = POLICIES["chunked"], spoil, call, 0

    def compose(self, view):
        self.calls += 1
        decision = self.good.compose(view)
        return self.spoil(view, decision) if self.calls == self.call else decision


def unknown(view, good):
    return Batch((*good.prefill, (999, 1)), good.decode)


def too_many(view, good):
    first = [*view.partial, *view.waiting][0]
    return Batch(((first.id, first.tokens + 1),), good.decode)


def none(view, good):
    return Batch((([*view.partial, *view.waiting][0].id, 0),), good.decode)


def twice(view, good):
    return Batch((([*view.partial, *view.waiting][0].id, 1),) * 2, good.decode)


def everyone(view, good):
    return Batch(tuple((i.id, i.tokens) for i in [*view.partial, *view.waiting]), good.decode)


@pytest.mark.parametrize("spoil", [unknown, too_many, none, twice, everyone])
@pytest.mark.parametrize("call", [1, 3])
def test_a_decision_that_cannot_be_is_refused_and_changes_nothing(spoil, call):
    policy = Wrong(spoil, call)
    e = engine(policy, 12)
    asked = requests(4, 12)
    made = [e.submit(prompt, limit) for prompt, limit in asked]
    for _ in range(call - 1):
        e.step()
    before = [[(r.id, r.prefilled, list(r.table), list(r.tokens)) for r in line] for line in lines(e)]
    with pytest.raises(PolicyError, match=r"Wrong\.compose (chose|admitted)"):
        e.step()
    assert policy.calls == call
    assert [[(r.id, r.prefilled, list(r.table), list(r.tokens)) for r in line] for line in lines(e)] == before
    check_books(e)
    e.run()
    assert [r.output for r in made] == [alone(prompt, limit, 50) for prompt, limit in asked]


def lines(e):
    return e.schedule.waiting, e.schedule.resumed, e.schedule.partial, e.schedule.running


def test_a_policy_that_runs_nothing_is_named():
    class Idle:
        kind = "idle"

        def compose(self, view):
            return Batch((), decode=False)

    e = engine(Idle())
    e.submit([1], 1)
    assert e.step() is None
    with pytest.raises(PolicyError, match=r"Idle\.compose runs nothing, with 1 requests"):
        e.run()


def test_a_victim_that_does_not_run_is_refused():
    class Beyond(memory.Recompute):
        def victim(self, admitted):
            return len(admitted)

    e = engine(POLICIES["chunked"], 10, memory=Beyond())
    for prompt, limit in requests(1, 24):
        e.submit(prompt, limit)
    with pytest.raises(PolicyError, match=r"Beyond\.victim chose"):
        e.run()
    check_books(e)


def test_a_failed_pass_counts_for_nothing_and_is_made_again():
    e = engine(POLICIES["chunked"])
    asked = requests(5, 8)
    made = [e.submit(prompt, limit) for prompt, limit in asked]
    for _ in range(3):
        e.step()
    forward = e.model.forward

    def broken(pieces):
        forward(pieces)
        raise RuntimeError("out of memory")

    e.model.forward = broken
    emitted = [r.emitted for r in made]
    with pytest.raises(RuntimeError):
        e.step()
    assert [r.emitted for r in made] == emitted
    check_books(e)
    e.model.forward = forward
    e.run()
    assert [r.output for r in made] == [alone(prompt, limit, 50) for prompt, limit in asked]


def test_tokens_are_handed_out_once_and_in_order_even_if_a_callback_fails():
    e, seen = engine(POLICIES["chunked"]), []
    e.submit([1, 2], 3, on_token=lambda t: seen.append((t.request, t.choice.token, t.finish)))

    def broken(token):
        raise RuntimeError("the client has gone")

    e.submit([3], 1, on_token=broken)
    e.submit([4], 1, on_token=lambda t: seen.append((t.request, t.choice.token, t.finish)))
    with pytest.raises(RuntimeError, match="gone"):
        e.step()
    e.run()
    first, last = alone([1, 2], 3, 50), alone([4], 1, 50)
    assert [x for x in seen if x[0] == 0] == list(zip([0] * 3, first, ["", "", "length"], strict=True))
    assert [x for x in seen if x[0] == 2] == [(2, last[0], "length")]


def test_a_stop_token_ends_a_request_and_frees_its_blocks():
    whole = alone([7, 8, 9], 40, 50)
    stop = whole[10]
    e = engine(POLICIES["orca"])
    r = e.submit([7, 8, 9], 40, Sampling(stop=(stop,)))
    e.run()
    assert r.output == whole[: whole.index(stop) + 1] == alone([7, 8, 9], 40, 50, (stop,))
    assert (r.finish, e.blocks.used) == ("stop", 0)


def test_sampled_tokens_do_not_depend_on_who_runs_beside():
    how = Sampling(temperature=1.0, top_k=20, top_p=0.9, logprobs=3)
    asked = requests(6, 16)

    def tokens(policy, blocks, seeds):
        e = engine(policy, blocks, seed=5)
        made = [
            e.submit(p, n, Sampling(temperature=1.0, top_k=20, top_p=0.9, seed=s) if s >= 0 else how)
            for (p, n), s in zip(asked, seeds, strict=True)
        ]
        e.run()
        return [r.output for r in made], e.preemptions

    unseeded = [-1] * 16
    tight, evicted = tokens(POLICIES["chunked"], 10, unseeded)
    roomy, _ = tokens(POLICIES["static"], 400, unseeded)
    assert evicted > 0
    assert tight == roomy
    assert tokens(POLICIES["orca"], 40, range(16))[0] != tight
    assert tight != [alone(p, n, 50) for p, n in asked], "at this temperature, greedy would be chance"


def test_logprobs_are_those_of_the_model():
    e = engine()
    r = e.submit([1, 2, 3], 5, Sampling(logprobs=4))
    e.run()
    for i, choice in enumerate(r.choices):
        row = logits_of(r.tokens[: 3 + i], 50).astype(float)
        expected = row - np.log(np.exp(row).sum())
        assert choice.logprob == pytest.approx(expected[choice.token], abs=1e-12)
        assert [t for t, _ in choice.top] == np.argsort(-row)[:4].tolist()
        assert dict(choice.top)[choice.token] == choice.logprob


def test_the_record_has_a_row_per_iteration():
    e = engine(POLICIES["chunked"], 12)
    for prompt, limit in requests(7, 8):
        e.submit(prompt, limit)
    e.run()
    log = e.record()
    assert len(log) == len(e.iterations) == len(e.model.passes)
    assert np.all(np.diff(log.time) > 0)
    assert np.all(log.duration > 0)
    assert [int(n) for n in log.items] == [len(pieces) for pieces in e.model.passes]
    assert log.level.max() <= 1.0
    assert set(log.what.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("prompt", "limit", "said"),
    [
        ([], 1, "prompt: is empty"),
        ([1, 50], 1, r"prompt\[1\]: is not a token \(got 50\); ids from 0 to 49"),
        ([-1], 1, r"prompt\[0\]"),
        ([1.5], 1, r"prompt\[0\]: is not a token \(got 1.5\)"),
        ([1], 2.5, "max_tokens: cannot be"),
        ([1], 0, "max_tokens"),
        ([1] * 9_000, 1_001, "10000 tokens of context"),
    ],
)
def test_a_request_that_cannot_be_is_refused(prompt, limit, said):
    e = engine()
    with pytest.raises(SpecError, match=said):
        e.submit(prompt, limit)
    assert e.load == 0


def test_a_request_larger_than_the_cache_is_refused_with_its_size():
    with pytest.raises(Infeasible, match="KV cache needs 41 blocks, have 40"):
        engine().submit([1] * 600, 41)
    engine().submit([1] * 600, 40)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(SpecError, match=r"engine\.blocks"):
        Engine(Echo(1), blocks=0)
    with pytest.raises(SpecError, match=r"engine\.watermark"):
        Engine(Echo(4), blocks=4, watermark=4)
    with pytest.raises(Unsupported, match="swap"):
        engine(memory=memory.Swap())


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("seed", range(4))
def test_cancelling_in_any_state_frees_its_blocks_and_changes_nothing_for_the_others(kind, seed):
    e, draw = engine(EVERY[kind], 12), np.random.default_rng(seed)
    asked = requests(seed, 16)
    made = [e.submit(prompt, limit) for prompt, limit in asked]
    states, gone = set(), []
    places = ("waiting", "resumed", "partial", "running")
    while e.load:
        e.step()
        here = [(name, r) for name in places for r in getattr(e.schedule, name)]
        if here and draw.random() < 0.3:
            name, victim = here[draw.integers(len(here))]
            held = len(victim.table)
            before = e.blocks.used
            assert e.cancel(victim)
            assert e.blocks.used == before - held
            assert not e.cancel(victim), "it is gone"
            assert victim.finish == "cancelled"
            states.add(name)
            gone.append(victim)
        assert e.blocks.used == sum(len(r.table) for r in [*e.schedule.partial, *e.schedule.running])
    assert e.blocks.used == 0
    assert {"waiting", "running"} & states
    for r, (prompt, limit) in zip(made, asked, strict=True):
        expected = alone(prompt, limit, 50)
        assert r.output == (expected[: r.emitted] if r in gone else expected)


def test_every_state_can_be_cancelled():
    e = engine(POLICIES["chunked"], 10)
    made = [e.submit([i] * 60, 60) for i in range(6)]
    seen = {}
    while len(seen) < 4:
        e.step()
        for name in ("waiting", "resumed", "partial", "running"):
            if name not in seen and getattr(e.schedule, name):
                seen[name] = getattr(e.schedule, name)[-1]
                assert e.cancel(seen[name])
    e.run()
    assert e.blocks.used == 0
    assert sum(r.finish == "cancelled" for r in made) == 4


def test_a_token_can_cancel_its_own_request_and_others_and_what_is_not_handed_on_is_dropped():
    e, heard = engine(), []

    def first(token):
        heard.append(token.request)
        assert e.cancel(made[0])
        assert e.cancel(made[1])

    made = [e.submit([1], 9, on_token=first), e.submit([2], 9, on_token=lambda token: heard.append(token.request))]
    e.run()
    assert heard == [0], "the token of the second came in the same iteration"
    assert e.blocks.used == 0


def test_a_request_that_is_over_cannot_be_cancelled():
    e = engine()
    made = e.submit([1], 2)
    e.run()
    assert not e.cancel(made)
    assert made.finish == "length"
