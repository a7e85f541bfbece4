"""The tree of what requests share, and traffic that is made to share: against contexts written out block by block."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.arrivals import traffic
from fleetcast.scenario.workload.prefixes import prefix_tree, segments_within, shared_tokens
from fleetcast.scenario.workload.requests import Requests, requests
from fleetcast.scenario.workload.serving import Arrivals, Lengths, Serving, Sessions


def written(found: Requests, block: int) -> list[list[tuple[int, int]]]:
    """Each request's context as whole blocks, a block named by the request that wrote it first and its place."""
    lines: list[list[tuple[int, int]]] = []
    assert found.parent is not None and found.prefix is not None
    for r in range(len(found)):
        parent = int(found.parent[r])
        end = int(found.prompt[r] + found.output[r] - 1) // block
        shared = min(int(found.prefix[r]), int(found.prompt[r])) // block if parent >= 0 else 0
        before = lines[parent][:shared] if parent >= 0 else []
        lines.append(before + [(r, i) for i in range(len(before), end)])
    return lines


def some(seed: int, count: int) -> Requests:
    """Random requests, most of which continue a random earlier one."""
    draw = np.random.default_rng(seed)
    prompt, output = draw.integers(1, 90, count), draw.integers(1, 60, count)
    parent = np.where(draw.random(count) < 0.8, (draw.random(count) * np.arange(count)).astype(int) - 1, -1)
    prefix = np.where(draw.random(count) < 0.3, prompt, (prompt * draw.random(count)).astype(int))
    return requests(np.arange(count), prompt, output, parent=parent, prefix=prefix)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 25), block=st.sampled_from([1, 4, 16]))
def test_segments_are_the_runs_of_blocks_that_requests_share(seed: int, count: int, block: int) -> None:
    found = some(seed, count)
    tree, lines = prefix_tree(found, block), written(found, block)
    for r, line in enumerate(lines):
        segments = tree.line(r)
        assert sum(tree.size[s] for s in segments) == len(line)
        assert [tree.start[s] for s in segments] == list(np.cumsum([0, *(tree.size[s] for s in segments)]))[:-1]
        for other, theirs in enumerate(lines):
            alike = next((i for i, (a, b) in enumerate(zip(line, theirs, strict=False)) if a != b), None)
            alike = min(len(line), len(theirs)) if alike is None else alike
            mine = sum(tree.size[s] for s in segments if s in tree.line(other))
            assert mine == alike, "a segment is shared as a whole or not at all"
        prompt = int(found.prompt[r]) // block
        assert sum(part for _, part in segments_within(tree, segments, prompt)) == prompt
    assert all(sorted(users) == users for users in tree.users)


def test_what_a_cache_may_spare_is_whole_blocks_and_never_the_last_token() -> None:
    found = requests([0, 1, 2, 3], [32, 32, 33, 40], [5, 1, 1, 1], parent=[-1, 0, 0, 2], prefix=[0, 32, 32, 40])
    assert shared_tokens(found, 16).tolist() == [0, 16, 32, 32]  # of request 2 as much as it computed
    assert shared_tokens(requests([0, 1], [9, 9], [1, 1]), 16).tolist() == [0, 0]


def test_sessions_are_parents_and_stay_it_when_requests_are_left_out() -> None:
    found = requests(
        [3, 1, 2, 4], [10, 20, 30, 40], [1, 1, 1, 1], session=[7, 7, 8, 7], prefix=[10, 0, 0, 12],
    )  # fmt: skip
    assert found.parent is not None and found.parent.tolist() == [-1, -1, 0, 2]
    part = found._pick(np.array([0, 3]))  # who lost a parent has its parent's
    assert part.parent is not None and part.parent.tolist() == [-1, 0]
    assert part.prefix is not None and part.prefix.tolist() == [0, 10]
    whole = requests([0, 1], [5, 9], [1, 1], parent=[1, 0], prefix=[3, 3])
    assert whole.parent is not None and whole.parent.tolist() == [-1, 0], "nobody continues what comes later"


def chat(**sessions: object) -> Serving:
    """Conversations, their messages and answers of fixed length."""
    return Serving(
        model="x", arrivals=Arrivals(kind="poisson", rate=5.0, requests=20_000),
        lengths=Lengths(kind="fixed", prompt=120, output=30), sessions=Sessions(**sessions),
    )  # fmt: skip


def test_conversations_repeat_what_was_said_at_the_stated_rate_and_length() -> None:
    found = traffic(chat(turns=4.0, think=20.0, system=40), seed=3)
    assert found.parent is not None and found.prefix is not None and found.session is not None
    said = 120 - 40 + 30
    turn = (found.prompt - 40 - 80) // said  # of fixed messages, the prompt tells the turn
    assert ((found.prompt - 40 - 80) % said == 0).all()
    assert found.rate == pytest.approx(5.0, rel=0.03)
    assert np.mean(turn == 0) == pytest.approx(1 / 4, rel=0.05), "geometric: a quarter of requests begin one"
    assert [np.mean(turn == k) for k in (1, 2)] == pytest.approx([0.75 / 4, 0.75**2 / 4], rel=0.07)
    later = (found.parent >= 0) & (found.session == found.session[found.parent])
    gap = found.arrival[later] - found.arrival[found.parent[later]]
    assert gap.mean() == pytest.approx(20.0, rel=0.05) and gap.std() == pytest.approx(20.0, rel=0.07)
    context = (found.prompt + found.output)[found.parent]
    np.testing.assert_array_equal(found.prefix[later], context[later])
    alone = ~later & (np.arange(len(found)) > 0)
    assert (found.prefix[alone] == 40).all(), "everybody has the system prompt in common"
    thirds = np.array_split(found.arrival, 3)
    assert max(t[-1] - t[0] for t in thirds) / min(t[-1] - t[0] for t in thirds) < 1.1, "no ramp at the start"
    assert traffic(chat(turns=4.0, think=20.0, system=40), seed=3).digest() == found.digest()


def test_a_system_prompt_alone_is_shared_by_all() -> None:
    found = traffic(chat(system=500))
    assert found.prefix is not None and set(found.prefix[1:].tolist()) == {119}, "cut to all but the last token"


@pytest.mark.parametrize(
    ("sessions", "more", "path"),
    [
        ({"turns": 3.0}, {}, "workload.sessions.think"),
        ({"think": 5.0}, {}, "workload.sessions.think"),
        ({"turns": 3.0, "think": 0.0}, {}, "workload.sessions.think"),
        ({"turns": 3.0, "think": 5.0}, {"trace": "azure-conv-2023", "lengths": None, "arrivals": None},
         "workload.sessions.turns"),
        ({"turns": 3.0, "think": 5.0}, {"arrivals": Arrivals(kind="closed", concurrency=4, requests=9)},
         "workload.sessions.turns"),
    ],
)  # fmt: skip
def test_conversations_that_cannot_be(sessions: dict[str, float], more: dict[str, object], path: str) -> None:
    import msgspec

    with pytest.raises(SpecError) as told:
        traffic(msgspec.structs.replace(chat(**sessions), **more))
    assert told.value.path == path and told.value.hint
