"""Speculation in the engine: the simulated policies decide how much is drafted, drafters say what, the target decides.

Every token is the target's own choice, made from its own logits by the request's own sampler; a draft is right where it
is what was chosen. Greedy tokens are so the greedy ones. With a temperature this is the lossless rule too: a draft is
one token with certainty, so accepting it where the draw from the target's distribution gives it, and keeping the draw
where not, is rejection sampling (Leviathan et al., ICML 2023, sec. 2.3), and the draws are those made without drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import PolicyError, SpecError
from fleetcast.policy import speculate as family
from fleetcast.runtime.llm.draft import Ask, Drafter, NgramLookup, Pipelined
from fleetcast.runtime.llm.requests import Logits, Request
from fleetcast.runtime.llm.sampling import Choice

FADE, IDLE = 0.98, 0.995
"""What one more draft leaves of those before, where a policy asks how requests fare of late, and what one more call
without a draft: where drafting has stopped, what was seen is forgotten, and a request that begins tries anew."""


class Profile(NamedTuple):
    """What became of drafts, by position from the first token of a draft on.

    Attributes:
        judged: how often the target came to a position.
        right: how often it made the same choice there.
    """

    judged: NDArray[np.int64]
    right: NDArray[np.int64]

    @property
    def rates(self) -> tuple[float, ...]:
        """Acceptance per position, as far as any was judged: what a plan's ``acceptance`` takes."""
        reached = self.judged > 0
        return tuple((self.right[reached] / self.judged[reached]).tolist())

    @property
    def rate(self) -> float:
        """Acceptance of all positions as one number; 0 where none was judged."""
        return float(self.right.sum() / max(1, self.judged.sum()))


class Speculation:
    """Who drafts for the requests that decode, and what became of it.

    Attributes: ``calls`` of the target, a request's at a time, ``wanted`` those for which a draft was wanted,
    ``drafted`` and ``accepted`` tokens, ``seconds`` by the engine's clock for which it drafted or waited for drafts.

    Args:
        policy: of `policy.speculate`.
        drafter: says which tokens; None = looks them up, where the policy is of n-grams.
        vocab: of the target.

    Raises:
        SpecError: no drafter, or one of another vocabulary.
    """

    def __init__(self, policy: family.Policy, drafter: Drafter | None, vocab: int) -> None:
        if drafter is None:
            if not isinstance(policy, family.Ngram):
                limit = "what drafts, e.g. a NgramModel or a ModelDrafter"
                raise SpecError("engine.drafter", "is missing", value=type(policy).__name__, limit=limit)
            drafter = NgramLookup()
        if drafter.vocab not in (0, vocab):
            limit = f"{vocab}, the target's"
            raise SpecError("engine.drafter", "has another vocabulary", value=drafter.vocab, limit=limit)
        self.policy, self.drafter, self.vocab = policy, drafter, vocab
        self.profile = Profile(np.zeros(family.LONGEST, np.int64), np.zeros(family.LONGEST, np.int64))
        self.calls = self.wanted = self.drafted = self.accepted = 0
        self.seconds = 0.0
        self._asked: dict[int, Ask] = {}
        self._late = (0.0, 0.0)

    def begin(self, running: Sequence[Request]) -> None:
        """Decides what is drafted for each request that decodes, before the iteration is composed.

        Raises:
            PolicyError: a draft that cannot be.
        """
        here = {r.id for r in running}
        for gone in [number for number in self._asked if number not in here]:
            self.forget(gone)
        apart = isinstance(self.drafter, Pipelined)
        batch = -(-len(running) // 2) if apart else len(running)
        fresh = []
        for r in running:
            if r.id not in self._asked:
                found = self.drafter.offers(r.id, r.tokens)
                d = r.drafts
                said = self.policy.draft(
                    family.View(batch, d.length, d.proposed, d.accepted, d.tried, d.right, found, d.idle, *self._late)
                )
                self._check(said)
                d.length = said.length
                r.ahead = min(said.length, r.limit - r.emitted - 1)
                self._asked[r.id] = Ask(r.id, r.tokens, r.ahead, said.drafters)
                fresh.append(self._asked[r.id])
        if isinstance(self.drafter, Pipelined):
            self.drafter.send([ask for ask in fresh if ask.length])

    def take(self, decoding: Sequence[Request]) -> list[tuple[Request, list[int]]]:
        """Returns who decodes now, with their drafts: all, or the half asked for first where drafters work apart.

        Raises:
            PolicyError: the drafter said what is no token.
        """
        drafter = self.drafter
        if isinstance(drafter, Pipelined) and not drafter.failure:
            place = {number: i for i, number in enumerate(self._asked)}
            decoding = sorted(decoding, key=lambda r: place[r.id])[: -(-len(decoding) // 2)]
        asks = [self._asked[r.id] for r in decoding if self._asked[r.id].length]
        if not asks:
            return [(r, []) for r in decoding]
        said = drafter.fetch([ask.request for ask in asks]) if isinstance(drafter, Pipelined) else drafter.draft(asks)
        drafts = {ask.request: draft[: ask.length] for ask, draft in zip(asks, said, strict=True)}
        for draft in drafts.values():
            if not all(0 <= token < self.vocab for token in draft):
                raise PolicyError(
                    f"{type(drafter).__name__} drafted {draft}, not all of them tokens below {self.vocab}"
                )
        return [(r, drafts.get(r.id, [])) for r in decoding]

    def judge(self, r: Request, draft: Sequence[int], choices: Sequence[Choice]) -> int:
        """Notes what the target chose where it was given a draft; returns how many tokens of it were right."""
        right = judged = 0
        if draft:
            right = sum(c.token == token for c, token in zip(choices, draft, strict=False))
            judged = min(len(choices), len(draft))
            self.profile.judged[:judged] += 1
            self.profile.right[:right] += 1
        self.calls += 1
        self.wanted += r.ahead > 0
        self.drafted += len(draft)
        self.accepted += right
        d = r.drafts
        d.proposed, d.accepted, d.tried, d.right = len(draft), right, d.tried + judged, d.right + right
        d.idle = 0 if draft else d.idle + 1
        tried, good = self._late
        self._late = (FADE * tried + judged, FADE * good + right) if draft else (IDLE * tried, IDLE * good)
        r.ahead = 0
        self._asked.pop(r.id, None)
        return right

    def forget(self, request: int) -> None:
        """Drops what is kept of a request that decodes no longer."""
        self._asked.pop(request, None)
        self.drafter.forget(request)

    def _check(self, said: family.Draft) -> None:
        name, have = type(self.policy).__name__, self.drafter.drafters
        if not isinstance(said.length, int) or not 0 <= said.length <= family.LONGEST:
            raise PolicyError(f"{name}.draft wants {said.length!r} tokens, not from 0 to {family.LONGEST}")
        if not isinstance(said.drafters, int) or not 1 <= said.drafters <= have:
            raise PolicyError(f"{name}.draft wants {said.drafters!r} drafters to vote, the engine has {have}")


def verified(r: Request, draft: Sequence[int], rows: Logits) -> list[Choice]:
    """Returns the target's choices: as far as the draft is what it chose, and one more.

    Args:
        r: a request.
        draft: what was put after its last token.
        rows: draft + 1 rows of logits, after that token and each of the draft.
    """
    choices: list[Choice] = []
    for place, row in enumerate(rows):
        choices.append(r.sampler.choose(row))
        token = choices[-1].token
        if token in r.sampler.sampling.stop or place == len(draft) or token != draft[place]:
            break
    return choices
