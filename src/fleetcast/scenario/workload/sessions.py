"""Prompts that begin alike: a system prompt that all share, and conversations whose turns repeat what came before.

Synthetic, as arrivals and lengths are: conversations begin by the arrival process at its rate over the mean number of
turns, have a geometric number of them, and a turn follows the one before after an exponential pause. What a
conversation says is its last prompt and answer and what the user writes next.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng
from fleetcast.scenario.workload.requests import Requests, requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fleetcast.scenario.workload.serving import Sessions

UNDER_WAY = 5.0
"""Conversations begin so many mean lengths before the first request that is kept: traffic starts as it goes on."""


def check(sessions: Sessions, *, trace: bool, closed: bool, path: str = "workload.sessions") -> None:
    """Refuses conversations that contradict the rest of the traffic.

    Raises:
        SpecError: several turns under a trace or in a closed loop, or turns and pauses without each other.
    """
    if sessions.turns > 1 and (trace or closed):
        what = "a trace" if trace else "arrivals of kind 'closed'"
        raise SpecError(
            f"{path}.turns", f"contradicts {what}", value=sessions.turns, limit="1, or generated arrivals and lengths",
            hint="Give the trace the columns session and prefix_tokens" if trace else "Use kind = 'poisson'",
        )  # fmt: skip
    if (sessions.turns > 1) != (sessions.think is not None):
        raise SpecError(
            f"{path}.think", "is missing" if sessions.think is None else "has no turns to lie between",
            value=sessions.think, limit="a time, with turns above 1", hint='Write e.g. turns = 5, think = "60 s"',
        )  # fmt: skip
    if sessions.think == 0:
        raise SpecError(f"{path}.think", "is out of range", value=0.0, limit="above 0 s", hint='Write e.g. "60 s"')


def begin_alike(found: Requests, system: int) -> Requests:
    """Returns ``found`` where each prompt that has nothing else in common begins as the first request's does.

    Args:
        found: requests.
        system: tokens, cut to all but the last of a prompt.
    """
    alone = np.ones(len(found), dtype=bool) if found.parent is None else found.parent < 0
    shared = np.minimum(np.minimum(system, found.prompt - 1), found.prompt[0])
    prefix = np.where(alone, shared, 0 if found.prefix is None else found.prefix)
    parent = np.where(alone, 0, -1 if found.parent is None else found.parent)
    parent[0] = -1
    return replace(found, prefix=prefix.astype(np.int64), parent=parent.astype(np.int64))


def converse(
    sessions: Sessions, count: int, rate: float, seed: int,
    starts: Callable[[int, float], NDArray[np.float64]],
    drawn: Callable[[int], tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> Requests:  # fmt: skip
    """Returns the first ``count`` requests of conversations under way.

    Args:
        sessions: turns, pauses, system prompt.
        count: requests.
        rate: of requests, /s.
        seed: equal seeds give equal requests.
        starts: (conversations, their rate) -> when each begins, s.
        drawn: n -> tokens of n messages with the system prompt, and of their answers.
    """
    assert sessions.think is not None
    draw, begin = rng(seed, "sessions"), rate / sessions.turns
    before = UNDER_WAY * sessions.turns * sessions.think
    size = math.ceil(1.5 * ((before + count / rate) * begin)) + 50
    while True:  # more conversations until enough requests come after the start
        turns = draw.geometric(1.0 / sessions.turns, size)
        session = np.repeat(np.arange(size), turns)
        turn = np.arange(len(session)) - np.repeat(np.cumsum(turns) - turns, turns)
        pause = np.where(turn > 0, draw.exponential(sessions.think, len(session)), 0.0)
        waited = np.cumsum(pause)
        begun = starts(size, begin)
        arrival = begun[session] + waited - np.repeat(waited[turn == 0], turns)
        # of the last conversations some turns are not there yet: what comes after the last start is incomplete
        kept = np.flatnonzero((arrival >= before) & (arrival <= begun[-1]))
        if len(kept) >= count:
            break
        size *= 2
    written, answer = drawn(len(session))
    said = np.maximum(written - sessions.system, 1) + answer
    context = np.cumsum(said)
    context += sessions.system - np.repeat(context[turn == 0] - said[turn == 0], turns)  # prompt and answer so far
    prompt = context - answer
    prefix = np.where(turn > 0, np.roll(context, 1), 0)
    kept = kept[np.argsort(arrival[kept], kind="stable")][:count]
    found = requests(
        arrival[kept] - before, prompt[kept], answer[kept], session=session[kept], prefix=prefix[kept],
        name="conversations",
    )  # fmt: skip
    return begin_alike(found, sessions.system) if sessions.system else found
