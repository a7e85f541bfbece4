"""Prompts of the wanted lengths that begin alike exactly where the traffic says so.

What a request says itself is drawn from a random stream of its own; what it shares is copied out of the context of its
parent, that is the parent's prompt and answer, and so on up the tree. Nothing is kept but the answers that a later
prompt repeats: a prompt is made when it is sent.

The first two tokens that a request says itself spell its number in ids that nothing else uses. So two requests part at
the very token at which the tree says they part (to within one token where their numbers are a multiple of `MARKS`
apart), and a prefix cache can find neither less nor more than it should.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.rng import rng
from fleetcast.scenario.workload.requests import Requests

FIRST, MARKS, ORDINARY = 1_000, 4_096, 24_000
"""Token ids that prompts use: marks from the first, ordinary ones after them. All lie below 32,000, the smallest
vocabulary in wide use, and above the control tokens, which are the first few hundred (or the last ones)."""
_TEXT = (
    "the of and to in is that for it was on are as with his they at be this from have or by one had not but what all "
    "were when we there can an your which their said if do will each about how up out them then she many some so"
)
WORDS = tuple(_TEXT.split())
"""Short English words, one token each for most tokenizers."""

Tokens = NDArray[np.int64]


class Prompts:
    """The prompts of some requests.

    Args:
        requests: whose lengths and shared beginnings are reproduced.
        seed: of what is not shared; equal seeds give equal prompts.
    """

    def __init__(self, requests: Requests, seed: int) -> None:
        self._prompt, self._output, self._seed = requests.prompt, requests.output, seed
        n = len(requests)
        no_one = requests.parent is None or requests.prefix is None
        self._parent = np.full(n, -1) if no_one else np.asarray(requests.parent)
        context = (self._prompt + self._output)[self._parent]
        shared = 0 if no_one else np.minimum(np.asarray(requests.prefix), context)
        self.shared: Tokens = np.where(self._parent >= 0, shared, 0).astype(np.int64)
        """Leading tokens of each prompt that its parent's context begins with."""
        answered = np.where(self._parent >= 0, self.shared - self._prompt[self._parent], 0)
        self.of_answers = int(np.maximum(answered, 0).sum())
        """Of all shared tokens those that repeat the parent's own answer, further up not counted."""
        self._repeated = set(self._parent[answered > 0].tolist())
        self._heard: dict[int, Tokens] = {}

    def hear(self, request: int, answer: Sequence[int]) -> None:
        """Takes note of the tokens that the server answered, so that later prompts repeat these and no others."""
        if request in self._repeated:
            self._heard[request] = np.asarray(answer, dtype=np.int64)

    def tokens(self, request: int) -> Tokens:
        """Returns int64[prompt], the token ids of a request's prompt."""
        out = np.empty(self._prompt[request], dtype=np.int64)
        end, at = len(out), request
        while True:  # `out[end:]` is done; what is before it is the beginning of the prompt of `at`
            begin = min(end, int(self.shared[at]))
            out[begin:end] = self._said(at)[: end - begin]
            if begin == 0:
                return out
            at = int(self._parent[at])
            end = min(begin, int(self._prompt[at]))
            out[end:begin] = self._answered(at)[: begin - end]

    def _said(self, request: int) -> Tokens:
        """What a request does not share."""
        drawn = _ordinary(self._seed, "prompt", request, int(self._prompt[request] - self.shared[request]))
        marks = (FIRST + request % MARKS, FIRST + request // MARKS % MARKS)
        drawn[:2] = marks[: len(drawn)]
        return drawn

    def _answered(self, request: int) -> Tokens:
        """The answer as it was heard, and made up where it was not."""
        found = _ordinary(self._seed, "answer", request, int(self._output[request]))
        heard = self._heard.get(request)
        if heard is not None:
            found[: len(heard)] = heard[: len(found)]
        return found


def unlike(seed: int, number: int, count: int) -> Tokens:
    """Returns int64[count], a prompt that has nothing in common with any other, for warming up."""
    return _ordinary(seed, "warm-up", number, count)


def text(tokens: Tokens) -> str:
    """Returns words that differ where the tokens do (ordinary ones mostly), about one token each."""
    marked = (tokens < FIRST + MARKS).tolist()
    return " ".join(
        str(t - FIRST) if mark else WORDS[t % len(WORDS)] for t, mark in zip(tokens.tolist(), marked, strict=True)
    )


def _ordinary(seed: int, what: str, number: int, count: int) -> Tokens:
    return rng(seed, "replay", what, str(number)).integers(FIRST + MARKS, FIRST + MARKS + ORDINARY, count)
