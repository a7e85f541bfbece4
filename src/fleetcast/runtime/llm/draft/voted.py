"""Several drafters vote on every token, each by what it said right of this request before.

Wang et al., "Minions", 2024 (arXiv 2402.15678), with the vote of `policy.speculate.minions`. Weights are those of the
weighted majority (Littlestone and Warmuth, Information and Computation 1994): each token that a drafter did not say
where the target came to say it costs it a factor. Losses fade, so that a drafter that fits a later part of a request is
heard there; weights are a request's own, since requests differ in kind.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.base.errors import SpecError
from fleetcast.policy.speculate.minions import vote
from fleetcast.runtime.llm.draft.protocol import Ask, Drafter


class Voted:
    """The path that the drafters vote for; of equal weights the drafter that stands first wins.

    Args:
        members: the drafters. A draft that asks for fewer lets the first ones vote.
        penalty: factor on a drafter's weight for each token that it did not say.
        memory: share of past losses that one more token leaves.

    Raises:
        SpecError: no members, members of several vocabularies, or a factor that is none.
    """

    def __init__(self, members: Sequence[Drafter], *, penalty: float = 0.7, memory: float = 0.95) -> None:
        vocabs = {m.vocab for m in members} - {0}
        if not members or len(vocabs) > 1:
            limit = "at least one, all of one vocabulary"
            raise SpecError("drafter.members", "cannot vote", value=sorted(vocabs) or len(members), limit=limit)
        for name, value in (("penalty", penalty), ("memory", memory)):
            if not 0.0 < value <= 1.0:
                raise SpecError(f"drafter.{name}", "cannot be", value=value, limit="above 0 and up to 1")
        self.members, self.penalty, self.memory = list(members), penalty, memory
        self.drafters, self.vocab = len(members), vocabs.pop() if vocabs else 0
        self._losses: dict[int, list[float]] = {}
        self._last: dict[int, tuple[int, list[list[int]]]] = {}

    def offers(self, request: int, tokens: Sequence[int]) -> int | None:
        """Returns the most that a member's lookup has; None where a member always has something to say."""
        found = [m.offers(request, tokens) for m in self.members]
        return None if None in found else max(n for n in found if n is not None)

    def weights(self, request: int) -> list[float]:
        """Returns the members' weights for a request, the best member's 1."""
        losses = self._losses.get(request, [0.0] * self.drafters)
        return [self.penalty ** (loss - min(losses)) for loss in losses]

    def draft(self, asked: Sequence[Ask]) -> list[list[int]]:
        """Returns the paths voted for."""
        for ask in asked:
            self._judge(ask)
        paths: list[list[list[int]]] = [[] for _ in asked]
        for i, member in enumerate(self.members):
            own = [place for place, ask in enumerate(asked) if i < ask.drafters]
            for place, path in zip(own, member.draft([asked[place] for place in own]) if own else (), strict=True):
                paths[place].append(path)
        found = []
        for ask, each in zip(asked, paths, strict=True):
            self._last[ask.request] = len(ask.tokens), each
            found.append(vote(each, self.weights(ask.request)[: len(each)]))
        return found

    def forget(self, request: int) -> None:
        """Drops what is kept of a request, its weights too."""
        self._losses.pop(request, None)
        self._last.pop(request, None)
        for member in self.members:
            member.forget(request)

    def close(self) -> None:
        """Closes the members."""
        for member in self.members:
            member.close()

    def _judge(self, ask: Ask) -> None:
        """Charges each member for the tokens that came where it had said others, or nothing."""
        begin, paths = self._last.pop(ask.request, (len(ask.tokens), []))
        losses = self._losses.setdefault(ask.request, [0.0] * self.drafters)
        for place, token in enumerate(ask.tokens[begin : begin + max(map(len, paths), default=0)]):
            for i, path in enumerate(paths):
                losses[i] = losses[i] * self.memory + (place >= len(path) or path[place] != token)
