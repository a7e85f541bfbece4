"""Choices follow the distribution they are said to follow."""

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.runtime.llm.sampling import Sampler, Sampling, kept

LOGITS = np.array([1.0, -0.5, 2.0, 0.3, 0.3, -4.0, 1.4], np.float32)


def expected(temperature, top_k, top_p):
    """Returns the distribution, written from its definition over a list of tokens."""
    weights = {i: np.exp(float(x) / temperature) for i, x in enumerate(LOGITS)}
    ranked = sorted(weights, key=lambda i: (-LOGITS[i], i))[: top_k or None]
    total, reached, allowed = sum(weights[i] for i in ranked), 0.0, []
    for i in ranked:
        allowed.append(i)
        reached += weights[i] / total
        if reached >= top_p:
            break
    share = sum(weights[i] for i in allowed)
    return np.array([weights[i] / share if i in allowed else 0.0 for i in range(len(LOGITS))])


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 3, 1.0), (1.0, 0, 0.7), (1.5, 5, 0.8), (1.0, 1, 1.0), (1.0, 0, 1e-9)],
)
def test_frequencies_are_those_of_the_definition(temperature, top_k, top_p):
    s = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=3)
    law, n = expected(temperature, top_k, top_p), 20_000
    ids, shares = kept(LOGITS.astype(float) - LOGITS.max(), s)
    assert dict(zip(ids.tolist(), shares, strict=True)) == pytest.approx({i: p for i, p in enumerate(law) if p > 0})
    sampler = Sampler(s, 0, 0)
    seen = np.bincount([sampler.choose(LOGITS).token for _ in range(n)], minlength=len(LOGITS))
    assert np.all(seen[law == 0] == 0)
    assert np.all(np.abs(seen - n * law) <= 4.5 * np.sqrt(n * law * (1 - law)) + 4)  # 4: rare ones are Poisson


def test_greedy_takes_the_likeliest_and_of_equals_the_first():
    assert Sampler(Sampling(), 0, 0).choose(LOGITS).token == 2
    assert Sampler(Sampling(), 0, 0).choose(np.zeros(4, np.float32)).token == 0


def test_log_probabilities_are_normalised_and_ignore_temperature():
    choice = Sampler(Sampling(temperature=0.1, logprobs=7), 0, 0).choose(LOGITS * 30)
    assert sum(np.exp(p) for _, p in choice.top) == pytest.approx(1.0, abs=1e-12)
    assert choice.logprob == dict(choice.top)[choice.token]


def test_streams_are_the_requests_own():
    def draws(seed, engine, request):
        sampler = Sampler(Sampling(temperature=1.0, seed=seed), engine, request)
        return [sampler.choose(LOGITS).token for _ in range(40)]

    assert draws(5, 0, 0) == draws(5, 9, 7)
    assert draws(None, 0, 1) == draws(None, 0, 1)
    assert len({tuple(draws(None, e, r)) for e in range(3) for r in range(3)}) == 9


def test_a_model_that_gives_no_numbers_is_not_sampled():
    for broken in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            Sampler(Sampling(), 0, 0).choose(np.array([0.0, broken], np.float32))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("top_k", -1), ("top_k", 1.5), ("top_p", 0.0),
        ("top_p", 1.1), ("stop", (-1,)), ("seed", -3), ("logprobs", 101), ("logprobs", True),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(field, value):
    with pytest.raises(SpecError, match=rf"sampling\.{field}: cannot be"):
        Sampling(**{field: value})
