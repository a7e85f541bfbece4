"""Tokens per call of the target: closed forms against Monte Carlo, and against the policies run step by step."""

from typing import Any

import numpy as np
import pytest

from fleetcast.cost import speculate
from fleetcast.policy.speculate import Draft, Fixed, Minions, Ngram, Off, View
from fleetcast.policy.speculate.minions import best_length, vote
from fleetcast.scenario.drafts import Drafting
from fleetcast.sim.serving.drafting import process_of, profiles

CALLS = 200_000


def accepted(rates: Any, draw: np.random.Generator, calls: int = CALLS) -> Any:
    """How many drafts each of many calls accepts: all up to the first miss."""
    return np.cumprod(draw.random((calls, len(rates))) < rates, axis=1).sum(axis=1)


@pytest.mark.parametrize("length", [1, 4, 16])
@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.7, 0.95, 1.0, [0.9, 0.6, 0.3]])
def test_tokens_per_call_against_monte_carlo(acceptance: Any, length: int) -> None:
    rates = speculate.rates_of(acceptance, length)
    p = speculate.yields(rates)
    k = np.arange(1, length + 2)
    assert p.sum() == pytest.approx(1.0)
    assert p @ k == pytest.approx(speculate.tokens_per_call(rates))
    if isinstance(acceptance, float):
        assert speculate.tokens_per_call(rates) == pytest.approx(speculate.constant_tokens(acceptance, length))
    tokens = 1 + accepted(rates, np.random.default_rng(1))
    error = tokens.std() / CALLS**0.5
    assert tokens.mean() == pytest.approx(float(p @ k), abs=5 * error + 1e-12)
    assert tokens.var() == pytest.approx(float(p @ k**2 - (p @ k) ** 2), rel=0.02, abs=1e-9)


def test_a_published_figure_comes_out() -> None:
    # Leviathan et al., ICML 2023, figure 2: 0.8 at gamma 5 makes 3.69 tokens a call
    assert speculate.constant_tokens(0.8, 5) == pytest.approx(3.689, abs=1e-3)
    assert speculate.speedup(3.689, 5, 0.0) == pytest.approx(3.689)
    assert speculate.speedup(3.689, 5, 0.05, verify=1.2) == pytest.approx(3.689 / 1.45)


@pytest.mark.parametrize("drafters", [1, 2, 3, 5])
@pytest.mark.parametrize(("correlation", "agreement"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.7), (0.3, 0.5), (1.0, 0.0)])
def test_the_vote_against_drafters_that_vote(drafters: int, correlation: float, agreement: float) -> None:
    rates, draw, runs = np.array([0.7, 0.6, 0.5]), np.random.default_rng(2), 40_000
    together = draw.random((runs, 3)) < correlation
    merged = draw.random((runs, 3)) < agreement
    own = draw.random((runs, 3, drafters)) < rates[None, :, None]
    shared = draw.random((runs, 3)) < rates
    kept = np.zeros(3)
    for run in range(runs):
        # token 0 is the target's; who errs says 1 where errors coincide, else a number of its own
        paths: list[list[int]] = [[] for _ in range(drafters)]
        for j in range(3):
            for i in draw.permutation(drafters):
                right = shared[run, j] if together[run, j] else own[run, j, i]
                paths[i].append(0 if right else 1 if together[run, j] or merged[run, j] else 2 + int(i))
        order = draw.permutation(drafters)
        chosen = vote([paths[i] for i in order], [1.0] * drafters)
        wrong = next((j for j, token in enumerate(chosen) if token != 0), 3)
        kept[:wrong] += 1
    expected = np.cumprod(speculate.voted(rates, drafters, correlation, agreement))
    np.testing.assert_allclose(kept / runs, expected, atol=0.012)


def test_votes_are_weighed_and_copies_gain_nothing() -> None:
    assert vote([[1, 2], [3, 4], [3, 5]], [1.0, 0.4, 0.4]) == [1, 2]
    assert vote([[1, 2], [3, 4], [3, 5, 6]], [1.0, 0.6, 0.7]) == [3, 5, 6]
    assert vote([], []) == []
    np.testing.assert_allclose(speculate.voted([0.7, 0.7], 4, correlation=1.0), 0.7)
    np.testing.assert_allclose(speculate.voted([0.7, 0.7], 1), 0.7)
    three = speculate.voted([0.7] * 8, 3)
    assert three[0] > 0.8 and (np.diff(three) < 0).all() and three[-1] == pytest.approx(0.7, abs=0.02)


def stepped(policy: Any, rate: Any, tokens: int, draw: np.random.Generator, found: float = 1.0) -> tuple[int, int, int]:
    """Calls, drafted tokens and drafts of one request, the policy asked before each call as an engine asks it."""
    view, made, calls, drafted, drafts = View(1), 0, 0, 0, 0
    tried = right = idle = 0
    while made < tokens:
        length = policy.draft(view).length
        proposed = length if draw.random() < found else 0
        rates = speculate.rates_of(rate, proposed) if proposed else np.zeros(0)
        misses = np.flatnonzero(draw.random(proposed) >= rates)
        good = int(misses[0]) if len(misses) else proposed
        made, calls, drafted, drafts = made + good + 1, calls + 1, drafted + proposed, drafts + (proposed > 0)
        tried, right = tried + min(good + 1, proposed), right + good
        idle = 0 if proposed else idle + 1
        view = View(1, length, proposed, good, tried, right, idle=idle)
    return calls, drafted, drafts


@pytest.mark.parametrize("policy", [Off(), Fixed(length=3), Minions(), Minions(start=1, cost=0.02), Ngram(length=5)])
@pytest.mark.parametrize("rate", [0.4, 0.75, (0.9, 0.7, 0.5)])
def test_the_process_of_a_policy_against_the_policy_itself(policy: Any, rate: Any) -> None:
    lookups = 0.5 if isinstance(policy, Ngram) else 1.0
    process = process_of(policy, rate, Drafting(lookups=lookups))
    draw = np.random.default_rng(3)
    for tokens in (40, 700):
        # an adaptive policy finds its length while it runs: what it loses meanwhile the process leaves out
        slack = (0.08 if tokens == 40 else 0.02) if isinstance(policy, Minions) else 0.0
        runs = 1500 if tokens == 40 else 150
        calls, drafted, _ = np.array([stepped(policy, rate, tokens, draw, lookups) for _ in range(runs)]).T
        forecast = process.calls(np.full(20_000, tokens), draw.random(20_000))
        error = 4 * (calls.std() / runs**0.5 + forecast.std() / 20_000**0.5)
        assert forecast.mean() == pytest.approx(calls.mean(), abs=error + slack * calls.mean())
        if slack == 0.0:
            assert forecast.std() == pytest.approx(calls.std(), rel=0.2, abs=1e-9)
            assert drafted.sum() / calls.sum() == pytest.approx(process.length, rel=0.02, abs=1e-9)


def test_calls_are_exact_for_few_tokens_and_continue_smoothly() -> None:
    process = process_of(Fixed(length=4), 0.7, Drafting())
    assert process.calls([1], [0.5])[0] == 1
    # two tokens take one call unless the first draft is rejected
    many = process.calls(np.full(50_000, 2), np.random.default_rng(4).random(50_000))
    assert (many == 2).mean() == pytest.approx(0.3, abs=0.01)
    assert set(np.unique(many)) == {1, 2}
    draw = np.random.default_rng(5).random(50_000)
    near, far = (process.calls(np.full(50_000, m), draw) for m in (speculate.EXACT, speculate.EXACT + 1))
    assert 0 < far.mean() - near.mean() < 1 / process.tokens + 0.1
    assert far.std() == pytest.approx(near.std(), rel=0.02)
    # the least and the most calls there can be
    sure = process_of(Fixed(length=4), 1.0, Drafting())
    assert (sure.calls(np.full(100, 1000), draw[:100]) == 200).all()
    never = process_of(Fixed(length=4), 0.0, Drafting())
    assert (never.calls(np.full(100, 1000), draw[:100]) == 1000).all()


def test_a_chain_over_several_lengths_is_solved_for_mean_and_variance() -> None:
    class Swing:
        """Two lengths in turn by what was accepted: calls depend on each other."""

        def draft(self, view: View) -> Draft:
            return Draft(1 if view.accepted == view.proposed else 6)

    process = process_of(Swing(), 0.6, Drafting())
    assert sorted(process.lengths) == [1, 6] and process.share.min() > 0
    draw = np.random.default_rng(6)
    calls = np.array([stepped(Swing(), 0.6, 600, draw)[0] for _ in range(1500)])
    mean, variance = process.moments([600])
    assert calls.mean() == pytest.approx(float(mean[0]), abs=4 * calls.std() / 1500**0.5)
    assert calls.var() == pytest.approx(float(variance[0]), rel=0.15)


@pytest.mark.parametrize("cost", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("rate", [0.5, 0.7, 0.9])
def test_adaptive_length_is_within_3_percent_of_the_best_fixed_one(rate: float, cost: float) -> None:
    def worth(tokens: float, length: float) -> float:
        return tokens / (1 + cost * length)

    best = max(worth(speculate.constant_tokens(rate, k), k) for k in range(1, 9))
    process = process_of(Minions(cost=cost), rate, Drafting())
    assert worth(process.tokens, process.length) >= 0.97 * best
    draw = np.random.default_rng(7)
    made = 4000
    calls, drafted, _ = np.array([stepped(Minions(cost=cost), rate, made, draw) for _ in range(20)]).sum(axis=0)
    assert worth(20 * made / calls, drafted / calls) >= 0.97 * best
    assert worth(speculate.constant_tokens(rate, best_length(rate, cost, 8)), best_length(rate, cost, 8)) == best


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7, 0.9])
def test_what_any_draft_costs_is_weighed_beside_its_tokens(rate: float) -> None:
    cost, overhead = 0.13, 0.42

    def worth(tokens: float, length: float, drafts: float) -> float:
        return tokens / (1 + overhead * drafts + cost * length)

    by_length = {k: worth(speculate.constant_tokens(rate, k), k, float(k > 0)) for k in range(17)}
    assert best_length(rate, cost, 16, 0, overhead) == max(by_length, key=lambda k: by_length[k])
    told = Minions(start=4, most=16, cost=cost, least=0, overhead=overhead)
    # the null: the same work at a length of two, charged as if it all came by the token
    blind = Minions(start=4, most=16, cost=cost + overhead / 2, least=0)
    draw, made, found = np.random.default_rng(9), 4000, []
    for policy in (told, blind):
        calls, drafted, drafts = np.array([stepped(policy, rate, made, draw) for _ in range(10)]).sum(axis=0)
        found.append(worth(10 * made / calls, drafted / calls, drafts / calls))
    assert found[0] >= 0.97 * max(by_length.values())
    if rate >= 0.7:
        assert found[1] < 0.95 * max(by_length.values())


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 0.7])
def test_an_adaptive_length_may_come_down_to_nothing_where_drafts_are_not_worth_their_cost(rate: float) -> None:
    policy = Minions(cost=0.1, least=0)
    ended, kept = (process_of(p, rate, Drafting()) for p in (policy, Minions(cost=0.1)))
    worth = [p.tokens / (1 + 0.1 * p.length) for p in (ended, kept)]
    assert worth[0] == pytest.approx(max(1.0, worth[1]))
    calls, drafted, _ = stepped(policy, rate, 4000, np.random.default_rng(8))
    assert 4000 / (calls + 0.1 * drafted) > 0.99, "trials cost less than one percent"
    assert best_length(0.05, 0.1, 8, 0) == 0
    assert best_length(0.05, 0.1, 8) == 1
    assert policy.draft(View(1, 0, 0, 0, 30, 0, idle=15)).length == 0
    assert policy.draft(View(1, 0, 0, 0, 30, 0, idle=16)).length == 1


def test_published_profiles_say_where_they_are_from() -> None:
    for name, row in profiles().items():
        assert row["status"] in ("verified", "recalled"), name
        assert row["source"] and row["pair"] and all(0 < rate < 1 for rate in row["rates"])


@pytest.mark.parametrize("policy", [Fixed(length=4), Fixed(length=5, drafters=3), Minions(), Ngram(length=3)])
def test_doubt_is_the_spread_that_drawn_acceptances_give(policy: Any) -> None:
    drafting, mean, spread = Drafting(lookups=0.8), 0.65, 0.03
    process = process_of(policy, mean, drafting)

    def rates(by: float, length: int) -> Any:
        alone = speculate.rates_of(mean + by, length)
        return alone if process.drafters == 1 else speculate.voted(alone, process.drafters, 0.5)

    drawn = np.random.default_rng(3).normal(mean, spread, 400)
    logs = [-np.log(process_of(Fixed(length=1), x, drafting).tokens) for x in drawn]
    one = process_of(Fixed(length=1), mean, drafting)
    assert speculate.doubt(one, lambda by, n: speculate.rates_of(mean + by, n), spread) == pytest.approx(
        float(np.std(logs)), rel=0.1
    )
    held = speculate.doubt(process, rates, spread)
    logs = [-np.log(process_of(policy, x, drafting).tokens) for x in drawn]
    if isinstance(policy, Minions):  # its lengths follow the rate, which moves tokens and work alike
        assert 0 < held < float(np.std(logs)) * 1.2
    else:
        assert held == pytest.approx(float(np.std(logs)), rel=0.1)
    assert speculate.doubt(process, rates, 0.0) == 0.0


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_doubt_at_a_certain_rate_has_the_slope_of_its_one_side(rate: float) -> None:
    process = process_of(Fixed(length=4), rate, Drafting())
    found = speculate.doubt(process, lambda by, n: np.clip(speculate.rates_of(rate, n) + by, 0.0, 1.0), 0.01)
    # d(1 + a + a^2 + ...)/da is 1 at 0 and 1 + 2 + 3 + 4 at 1, of 1 and 5 tokens
    assert found == pytest.approx(0.01 * {0.0: 1.0, 1.0: 10.0 / 5.0}[rate], rel=1e-3)
