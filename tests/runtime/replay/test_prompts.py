"""Prompts share exactly what the traffic says: against contexts written out position by position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.runtime.replay.prompts import FIRST, MARKS, ORDINARY, Prompts, text, unlike
from fleetcast.scenario.workload.requests import requests


@st.composite
def trees(draw):
    n = draw(st.integers(1, 8))
    prompt = [draw(st.integers(1, 30)) for _ in range(n)]
    output = [draw(st.integers(1, 12)) for _ in range(n)]
    parent = [draw(st.integers(-1, i - 1)) for i in range(n)]
    prefix = [draw(st.integers(0, p)) for p in prompt]
    return requests(range(n), prompt, output, prefix=prefix, parent=parent)


def labels(q, i):
    """The prompt of request i as names of who first said each token: the definition, by recursion."""
    p = int(q.parent[i])
    above = labels(q, p) + [(p, "answer", k) for k in range(q.output[p])] if p >= 0 else []
    shared = above[: q.prefix[i]]
    return shared + [(i, "prompt", k) for k in range(len(shared), q.prompt[i])]


def common(a, b):
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@given(trees(), st.integers(0, 3))
def test_any_two_prompts_part_where_the_tree_says(q, seed):
    made, names = Prompts(q, seed), [labels(q, i) for i in range(len(q))]
    tokens = [made.tokens(i).tolist() for i in range(len(q))]
    for i in range(len(q)):
        assert len(tokens[i]) == q.prompt[i]
        for j in range(i):
            assert common(tokens[i], tokens[j]) == common(names[i], names[j])


@given(trees())
def test_prompts_are_the_same_in_any_order_and_fit_small_vocabularies(q):
    one, other = Prompts(q, 5), Prompts(q, 5)
    backwards = [other.tokens(i).tolist() for i in reversed(range(len(q)))][::-1]
    assert [one.tokens(i).tolist() for i in range(len(q))] == backwards
    assert all(FIRST <= t < FIRST + MARKS + ORDINARY < 32_000 for row in backwards for t in row)


def turns():
    # the second turn repeats prompt and answer of the first, the third all of the second's
    return requests([0, 1, 2], [10, 20, 30], [6, 4, 2], session=[7, 7, 7], prefix=[0, 16, 24])


def test_turns_repeat_the_answers_that_were_heard():
    made = Prompts(turns(), 0)
    assert made.of_answers == 6 + 4
    made.hear(0, [90_001, 90_002, 90_003, 90_004, 90_005, 90_006])
    made.hear(1, [90_011, 90_012])  # shorter than asked for: the rest is made up
    last = made.tokens(2)
    assert last[:10].tolist() == made.tokens(0).tolist()
    assert last[10:16].tolist() == [90_001, 90_002, 90_003, 90_004, 90_005, 90_006]
    assert last[:20].tolist() == made.tokens(1).tolist()
    assert last[20:22].tolist() == [90_011, 90_012]
    assert (last[22:] < 32_000).all()


def test_what_nobody_repeats_is_not_kept():
    made = Prompts(turns(), 0)
    made.hear(2, [1, 2])
    assert not made._heard


def test_numbers_beyond_the_marks_part_at_the_second_token_at_the_latest():
    n = MARKS + 2
    made = Prompts(requests(np.zeros(n), np.full(n, 4), np.ones(n, dtype=int)), 0)
    assert common(made.tokens(1).tolist(), made.tokens(MARKS + 1).tolist()) == 1
    assert common(made.tokens(1).tolist(), made.tokens(MARKS).tolist()) == 0


def test_words_part_where_tokens_do():
    made = Prompts(turns(), 0)
    first, second = (text(made.tokens(i)) for i in (0, 1))
    assert len(first.split()) == 10
    assert second.startswith(first)
    assert text(unlike(0, 0, 5)) != text(unlike(0, 1, 5))


@pytest.mark.parametrize("seed", [0, 1])
def test_warming_up_shares_nothing_with_the_traffic(seed):
    made = Prompts(turns(), seed)
    assert common(unlike(seed, 0, 10).tolist(), made.tokens(0).tolist()) == 0
