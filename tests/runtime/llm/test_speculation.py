"""Speculation: the tokens are those without drafts, whoever drafts, however many, whatever becomes of it."""

import multiprocessing
import os
import signal
import time
import warnings
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import PolicyError, SpecError
from fleetcast.policy import evict, speculate
from fleetcast.policy.speculate import Draft
from fleetcast.runtime.llm import Engine, Sampling
from fleetcast.runtime.llm.draft import Ask, ModelDrafter, NgramLookup, NgramModel, Pipelined, Voted
from tests.runtime.llm.drafters import VOCAB, Dying, Failing, Noisy, Slow, broken, likeliest, noisy, small_model
from tests.runtime.llm.echo import Echo, alone
from tests.runtime.llm.test_engine import EVERY, POLICIES, engine, requests
from tests.runtime.llm.test_prefixes import check, conversations

POLICY = {
    "fixed": speculate.Fixed(length=4),
    "minions": speculate.Minions(start=3, most=16, cost=0.02, drafters=1),
    "ngram": speculate.Ngram(length=5),
    "off": speculate.Off(),
}
TEXT = np.random.default_rng(0).integers(0, VOCAB, 400)


def drafters():
    return {
        "lookup": NgramLookup(),
        "ngram": NgramModel.trained(TEXT, 3, VOCAB),
        "noisy": Noisy(),
        "right": Noisy(likeliest),
        "model": small_model(),
        "model-short-of-room": small_model(12),
        "voted": Voted([NgramLookup(), Noisy(), small_model()]),
    }


def test_every_policy_is_tried():
    assert set(POLICY) == {c.kind for c in vars(speculate).values() if hasattr(c, "kind")}


@pytest.mark.parametrize("policy", POLICY)
@pytest.mark.parametrize("who", drafters())
@pytest.mark.parametrize("kind", ["chunked", "prefill_first", "static"])
def test_tokens_are_those_of_each_request_alone(policy, who, kind):
    drafter = drafters()[who]
    e = engine(EVERY[kind], 12, speculate=POLICY[policy], drafter=drafter)
    asked = requests(1, 12)
    made = [e.submit(prompt, limit) for prompt, limit in asked]
    e.run()
    assert [r.output for r in made] == [alone(prompt, limit, VOCAB) for prompt, limit in asked]
    assert e.blocks.used == 0
    if kind == "chunked":
        assert e.preemptions > 0, "the case must evict"
    if policy != "off" and who in ("noisy", "right"):
        s = e.speculation
        assert sum(i.drafted for i in e.iterations) == s.drafted > 0
        assert sum(i.accepted for i in e.iterations) == s.accepted == sum(r.drafts.right for r in made)
        passes = sum(len(r.output) for r in made) - s.accepted - s.calls
        assert len(made) <= passes <= e.admissions, "each time in, a prompt's pass makes a token, unless it is evicted"
        assert (s.accepted == s.drafted) == (who == "right")
    e.close()


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(sorted(EVERY)), blocks=st.integers(14, 60),
    policy=st.sampled_from(sorted(POLICY)), who=st.sampled_from(sorted(drafters())), cached=st.booleans(),
    gaps=st.lists(st.integers(0, 6), min_size=1, max_size=10),
)  # fmt: skip
def test_blocks_are_conserved_with_drafts_and_a_prefix_cache_under_random_load(
    seed, kind, blocks, policy, who, cached, gaps
):
    drafter = drafters()[who]
    rule = evict.Lru() if cached else None
    e = engine(EVERY[kind], blocks, speculate=POLICY[policy], drafter=drafter, prefix_cache=rule)
    asked = [x for x in conversations(seed, len(gaps), message=20, output=25) if len(x[0]) + x[1] <= 14 * 16]
    made = []
    for gap, (prompt, limit, _, _) in zip(gaps, asked, strict=False):
        for _ in range(gap):
            e.step()
            books(e, cached)
        made.append(e.submit(prompt, limit))
    while e.load:
        assert e.step() is not None
        books(e, cached)
    assert [r.output for r in made] == [alone(r.tokens[: r.prompt], r.limit, VOCAB) for r in made]
    if isinstance(drafter, ModelDrafter) and policy != "off":
        assert drafter.blocks.used == 0, "finished requests are forgotten"


def books(e, cached):
    here = e.schedule.running + e.schedule.partial
    if cached:
        check(e)
    else:
        assert sorted(b for r in here for b in r.table) == sorted(set(range(e.blocks.count)) - set(e.blocks._free))
    assert all(len(r.table) <= e.schedule.claim(r) for r in here), "blocks of rejected drafts are given back"
    assert all(r.ahead <= max(0, r.limit - r.emitted - 1) for r in here)


def test_a_draft_is_cut_where_the_request_ends_and_a_stop_token_ends_it():
    whole = alone([7, 8, 9], 40, VOCAB)
    stop = whole[10]
    end = whole.index(stop) + 1
    for length in (1, 3, 7, 16):
        e = engine(POLICIES["chunked"], speculate=speculate.Fixed(length=length), drafter=Noisy(likeliest))
        r = e.submit([7, 8, 9], 40, Sampling(stop=(stop,)))
        cut = e.submit([7, 8, 9], 12)
        e.run()
        assert (r.output, r.finish) == (whole[:end], "stop")
        assert (cut.output, cut.finish) == (whole[:12], "length")
        assert max(len(p.tokens) for pieces in e.model.passes for p in pieces) <= max(3, 1 + length)


def test_draws_with_a_temperature_are_those_without_drafts():
    how = Sampling(temperature=0.7, top_k=20, top_p=0.9, logprobs=2)
    asked = requests(6, 12)

    def outputs(**drafts):
        e = engine(POLICIES["chunked"], 14, seed=5, **drafts)
        made = [e.submit(p, n, how) for p, n in asked]
        e.run()
        return [(r.output, [c.top for c in r.choices]) for r in made], e

    plain, _ = outputs()
    for drafter in (Noisy(), Noisy(likeliest), small_model()):
        drawn, e = outputs(speculate=speculate.Fixed(length=3), drafter=drafter)
        assert drawn == plain
        assert e.speculation.accepted > 0


def test_a_small_model_keeps_in_step_after_rejections_and_evictions():
    """Every draft equals the one that its rule gives from the whole history, though the drafter caches."""
    seen = []

    class Held(ModelDrafter):
        def draft(self, asked):
            said = super().draft(asked)
            seen.extend((list(a.tokens), d) for a, d in zip(asked, said, strict=True))
            return said

    drafter = Held(small_model(80).model, blocks=80)
    e = engine(POLICIES["chunked"], 10, speculate=speculate.Minions(start=4, most=8), drafter=drafter)
    for prompt, limit in requests(1, 16):
        e.submit(prompt, limit)
    e.run()
    assert e.preemptions > 0
    assert len(seen) > 100
    for tokens, draft in seen:
        line = list(tokens)
        for token in draft:
            assert token == noisy(line)
            line.append(token)
    rewritten = sum(len(p.tokens) for pieces in drafter.model.passes for p in pieces)
    assert rewritten < 3 * sum(len(d) for _, d in seen) + sum(len(p) for p, _ in requests(1, 16)) * 3, "it recomputes"


def test_views_are_those_of_the_simulated_policies():
    seen = []

    class Watching(speculate.Fixed):
        def draft(self, view):
            seen.append(view)
            return Draft(3 + len(seen) % 2)

    e = engine(POLICIES["chunked"], speculate=Watching(), drafter=Noisy(lambda h: likeliest(h) if len(h) % 5 else 0))
    r = e.submit([1, 2, 3], 40)
    e.run()
    assert (seen[0].length, seen[0].tried, seen[0].found, seen[0].batch) == (None, 0, None, 1)
    for before, after in pairwise(seen):
        assert after.length in (3, 4)
        assert 0 <= after.accepted <= after.proposed <= after.length
        assert after.right - before.right == after.accepted
        assert after.tried - before.tried == min(after.proposed, after.accepted + 1)
    assert r.drafts.right == e.speculation.profile.right.sum()
    assert r.drafts.tried == e.speculation.profile.judged.sum()


def test_profile_counts_positions_up_to_the_first_rejection():
    """Right at every position but the third: positions are judged 1, 1, 1, 0 times a call."""
    e = engine(POLICIES["chunked"], speculate=speculate.Fixed(length=4),
               drafter=Third())  # fmt: skip
    e.submit([1, 2, 3], 32)
    e.run()
    profile = e.speculation.profile
    assert profile.judged.tolist()[:4] == [10, 10, 10, 0]
    assert profile.right.tolist()[:4] == [10, 10, 0, 0]
    assert (profile.rates, profile.rate) == ((1.0, 1.0, 0.0), 20 / 30)


class Third(Noisy):
    def draft(self, asked):
        said = Noisy(likeliest).draft(asked)
        return [[*d[:2], *((t + 1) % VOCAB for t in d[2:3]), *d[3:]] for d in said]


def test_lookup_drafts_what_followed_the_latest_longest_match():
    look = NgramLookup(longest=3, shortest=2)
    text = [1, 2, 3, 9, 1, 2, 3, 8, 5, 2, 3]
    assert look.draft([Ask(0, text, 3)]) == [[8, 5, 2]]
    assert look.offers(0, text) == speculate.LONGEST
    assert look.draft([Ask(0, [*text, 9], 3)]) == [[1, 2, 3]], "(3, 9) matches further back"
    assert look.offers(0, [*text, 9, 7]) == 0
    assert look.draft([Ask(1, [4, 6, 4, 6], 5)]) == [[4, 6, 4, 6, 4]], "a loop is drafted as a loop"
    assert NgramLookup().draft([Ask(0, [5], 4)]) == [[]]


@given(st.lists(st.integers(0, 3), min_size=5, max_size=60), st.integers(0, 3))
@settings(deadline=None)
def test_an_ngram_model_says_what_counting_says(text, order):
    made = NgramModel.trained(text, order, 4) if len(text) >= order + 2 else None
    if made is None:
        return

    def counted(context):
        for n in range(min(order, len(context)), -1, -1):
            key = context[len(context) - n :]
            follow = [text[i] for i in range(n, len(text)) if text[i - n : i] == key]
            best = sorted(set(follow), key=lambda t: (-follow.count(t), t))
            if n == 0 or (follow and follow.count(best[0]) > 1):
                return best[0]
        raise AssertionError

    for i in range(len(text)):
        assert made.next(text[:i]) == counted(text[:i])
    line = list(text)
    for token in made.draft([Ask(0, text, 6)])[0]:
        assert token == counted(line)
        line.append(token)


def test_votes_follow_whoever_was_right_of_this_request():
    """Two drafters, each right of one kind of request: the vote learns which, request by request."""
    kinds = Voted(
        [Noisy(lambda h: likeliest(h) if h[0] == 1 else 0), Noisy(lambda h: likeliest(h) if h[0] == 2 else 0)]
    )
    e = engine(POLICIES["chunked"], speculate=speculate.Fixed(length=4, drafters=2), drafter=kinds)
    weights = {}
    made = [e.submit([1, 5, 6], 60), e.submit([2, 5, 6], 60)]
    while e.load:
        e.step()
        weights |= {r.id: kinds.weights(r.id) for r in e.schedule.running}
    assert [r.output for r in made] == [alone([k, 5, 6], 60, VOCAB) for k in (1, 2)]
    assert weights[0][1] < 0.1 < weights[0][0] == 1.0
    assert weights[1][0] < 0.1 < weights[1][1] == 1.0
    assert e.speculation.profile.rate > 0.9


def test_where_drafting_has_stopped_it_is_tried_anew_by_requests_that_begin_later():
    """Answers too short for a trial of their own: what the first ones taught must fade."""
    drafter = Noisy(lambda h: likeliest(h) if h[0] == 2 else 0)
    policy = speculate.Minions(start=4, most=8, cost=0.13, overhead=0.42, least=0)
    e = engine(POLICIES["chunked"], speculate=policy, drafter=drafter)

    def drafted(kind, count):
        before = e.speculation.drafted
        for i in range(count):
            e.submit([kind, 5, i % VOCAB], 12)
            e.run()
        return e.speculation.drafted - before

    assert drafted(1, 10) > 0
    assert drafted(1, 5) == 0, "the case must stop drafting"
    assert drafted(2, 80) > 300
    assert e.speculation.accepted > 300


def test_fewer_drafters_than_there_are_may_vote():
    members = [Noisy(), Noisy(likeliest), Noisy(likeliest)]
    e = engine(POLICIES["chunked"], speculate=speculate.Fixed(length=4, drafters=2), drafter=Voted(members))
    e.submit([1, 2], 20)
    e.run()
    assert [bool(m.asked) for m in members] == [True, True, False]


# In a process of its own


@pytest.fixture(scope="module")
def apart():
    drafter = Pipelined(small_model)
    yield drafter
    drafter.close()


@pytest.mark.parametrize("kind", ["chunked", "prefill_first"])
def test_drafts_from_another_process_change_no_token(apart, kind):
    e = engine(EVERY[kind], 12, speculate=speculate.Fixed(length=4), drafter=apart, prefix_cache=evict.Lru())
    asked = requests(3, 12)
    made = [e.submit(prompt, limit) for prompt, limit in asked]
    while e.load:
        e.step()
        check(e)
    assert [r.output for r in made] == [alone(prompt, limit, VOCAB) for prompt, limit in asked]
    assert e.preemptions > 0
    assert e.speculation.accepted > 0.4 * e.speculation.drafted
    for r in made:
        apart.forget(r.id)
    assert apart.failure == ""


def test_halves_take_turns_and_drafts_are_asked_for_before_they_are_needed(apart):
    e = engine(POLICIES["chunked"], 40, speculate=speculate.Fixed(length=2), drafter=apart)
    for i in range(4):
        e.submit([i], 20)
    e.run()
    steady = [i.decodes for i in e.iterations if i.prefills == 0][:10]
    assert set(steady) == {2}


def test_the_process_ends_with_the_engine():
    drafter = Pipelined(Noisy)
    e = engine(POLICIES["chunked"], speculate=speculate.Fixed(), drafter=drafter)
    e.submit([1, 2], 20)
    e.step()
    e.step()
    process = drafter._process
    e.close()
    assert (process.exitcode, process in multiprocessing.active_children()) == (0, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        e.run()
        e.close()


@pytest.mark.parametrize(
    ("make", "patience", "said"),
    [(Dying, 10.0, "gone"), (Failing, 10.0, "ValueError: no more ideas"), (Slow, 0.1, "nothing in time")],
)
def test_a_dead_drafter_is_given_up_and_decoding_goes_on(make, patience, said):
    drafter = Pipelined(make, patience=patience)
    e = engine(POLICIES["chunked"], 12, speculate=speculate.Fixed(), drafter=drafter)
    asked = requests(4, 8)
    made = [e.submit(prompt, limit) for prompt, limit in asked]
    with pytest.warns(RuntimeWarning, match=f"given up .*{said}.*without drafts"):
        e.run()
    assert said in drafter.failure
    assert [r.output for r in made] == [alone(prompt, limit, VOCAB) for prompt, limit in asked]
    assert not drafter._process.is_alive()


def test_a_killed_drafter_is_given_up_between_drafts():
    drafter = Pipelined(partial(Noisy, noisy))
    e = engine(POLICIES["chunked"], speculate=speculate.Fixed(), drafter=drafter)
    r = e.submit([1, 2], 60)
    for _ in range(4):
        e.step()
    os.kill(drafter._process.pid, signal.SIGKILL)
    time.sleep(0.05)
    with pytest.warns(RuntimeWarning, match="given up"):
        e.run()
    assert r.output == alone([1, 2], 60, VOCAB)


# What cannot be


def test_what_cannot_draft_is_refused():
    with pytest.raises(SpecError, match=r"engine\.drafter: is missing \(got 'Fixed'\)"):
        engine(speculate=speculate.Fixed())
    with pytest.raises(SpecError, match=r"engine\.speculate: is missing \(got 'Noisy'\)"):
        engine(drafter=Noisy())
    with pytest.raises(SpecError, match=r"engine\.drafter: has another vocabulary \(got 50\); 61"):
        Engine(Echo(9, vocab=61), blocks=9, speculate=speculate.Fixed(), drafter=Noisy())
    with pytest.raises(SpecError, match=r"cannot be built in its process.*no such model"):
        Pipelined(broken)
    with pytest.raises(SpecError, match=r"drafter\.members"):
        Voted([])
    with pytest.raises(SpecError, match=r"drafter\.members: cannot vote \(got \[50, 61\]\)"):
        Voted([Noisy(), ModelDrafter(Echo(9, vocab=61), blocks=9)])
    with pytest.raises(SpecError, match=r"drafter\.penalty"):
        Voted([Noisy()], penalty=0.0)
    with pytest.raises(SpecError, match=r"drafter\.shortest"):
        NgramLookup(longest=2, shortest=3)
    with pytest.raises(SpecError, match=r"drafter\.order"):
        NgramModel.trained([1, 2, 3], 2, 5)


@pytest.mark.parametrize(
    ("draft", "said"),
    [(Draft(17), "wants 17 tokens"), (Draft(-1), "wants -1"), (Draft(2, 0), "0 drafters"), (Draft(2, 2), "has 1")],
)
def test_a_draft_that_cannot_be_is_refused_by_name(draft, said):
    class Wrong(speculate.Fixed):
        def draft(self, view):
            return draft

    e = engine(POLICIES["chunked"], speculate=Wrong(), drafter=Noisy())
    e.submit([1, 2], 20)
    e.step()
    with pytest.raises(PolicyError, match=rf"Wrong\.draft .*{said}"):
        e.step()


def test_tokens_that_are_none_are_refused():
    e = engine(POLICIES["chunked"], speculate=speculate.Fixed(), drafter=Noisy(lambda h: VOCAB))
    e.submit([1, 2], 20)
    e.step()
    with pytest.raises(PolicyError, match=r"Noisy drafted .* below 50"):
        e.step()


def test_the_ngram_policy_looks_up_by_itself():
    e = engine(POLICIES["chunked"], speculate=speculate.Ngram(length=4))
    assert isinstance(e.speculation.drafter, NgramLookup)
    r = e.submit([1, 2], 40)
    e.run()
    assert r.output == alone([1, 2], 40, VOCAB)
