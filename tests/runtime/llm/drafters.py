"""Drafters for tests, at the top of a module so that another process can build them."""

import os

from fleetcast.runtime.llm.draft import ModelDrafter
from tests.runtime.llm.echo import Echo, logits_of

VOCAB = 50


def likeliest(history):
    return int(logits_of(history, VOCAB).argmax())


def noisy(history):
    """What the target would say, but for one time in four."""
    right = likeliest(history)
    return (right + 1) % VOCAB if sum(history[-3:]) % 4 == 0 else right


class Noisy:
    """Drafts by a rule of the whole history."""

    vocab = VOCAB

    def __init__(self, rule=noisy, drafters=1):
        self.rule, self.drafters, self.asked, self.closed = rule, drafters, [], False

    def offers(self, request, tokens):
        return None

    def draft(self, asked):
        self.asked += [(a.request, len(a.tokens), a.length, a.drafters) for a in asked]
        found = []
        for a in asked:
            line = list(a.tokens)
            for _ in range(a.length):
                line.append(self.rule(line))
            found.append(line[len(a.tokens) :])
        return found

    def forget(self, request):
        pass

    def close(self):
        self.closed = True


class NoisyEcho(Echo):
    """A small model that errs one time in four, and reads all that it knows out of its own cache."""

    def forward(self, pieces):
        rows = super().forward(pieces)
        for row, p in zip(rows, pieces, strict=True):
            history = [int(self.cache[self.slot(p, i)]) for i in range(p.start + len(p.tokens))]
            row[noisy(history)] += 1000.0
        return rows


def small_model(blocks=80):
    return ModelDrafter(NoisyEcho(blocks), blocks=blocks)


class Dying(Noisy):
    """Ends its process at the third draft."""

    def draft(self, asked):
        if len(self.asked) >= 6:
            os._exit(3)
        return super().draft(asked)


class Failing(Noisy):
    def draft(self, asked):
        raise ValueError("no more ideas")


class Slow(Noisy):
    def draft(self, asked):
        import time

        time.sleep(60)


def broken():
    raise OSError("no such model")
