"""A model without arithmetic for the engine's tests: it reads the whole history out of the paged cache it was given.

Its logits are a hash of that history, so a token that was cached in a wrong place, overwritten by another request or
not computed again after an eviction changes what comes out.
"""

import hashlib

import numpy as np

from fleetcast.runtime.llm.paging import BLOCK


def logits_of(history, vocab):
    """Returns the logits after ``history``, all different."""
    seed = int.from_bytes(hashlib.sha256(np.array(history, np.int64).tobytes()).digest()[:8], "little")
    return np.random.default_rng(seed).permutation(vocab).astype(np.float32) / 8


def alone(prompt, count, vocab, stop=()):
    """Returns the greedy tokens of a request by itself, without any cache."""
    history = list(prompt)
    for _ in range(count):
        history.append(int(logits_of(history, vocab).argmax()))
        if history[-1] in stop:
            break
    return history[len(prompt) :]


class Echo:
    """Caches token ids where a real model caches keys and values."""

    def __init__(self, blocks, vocab=50, context=10_000):
        self.vocab, self.context = vocab, context
        self.cache = np.full(blocks * BLOCK, -1)
        self.passes = []

    def forward(self, pieces):
        self.passes.append(pieces)
        written = [(p, self.slot(p, p.start + i) // BLOCK) for p in pieces for i in range(len(p.tokens))]
        for p, block in written:
            assert not any(block in other.table for other in pieces if other is not p), "writes into another's block"
        for p in pieces:
            assert len(p.table) * BLOCK >= p.start + len(p.tokens)
            for i, token in enumerate(p.tokens):
                self.cache[self.slot(p, p.start + i)] = token
        rows = [
            logits_of([self.cache[self.slot(p, i)] for i in range(end)], self.vocab)
            for p in pieces
            for end in range(p.start + len(p.tokens) - p.emit + 1, p.start + len(p.tokens) + 1)
        ]
        return np.array(rows, np.float32).reshape(-1, self.vocab)

    @staticmethod
    def slot(piece, position):
        return piece.table[position // BLOCK] * BLOCK + position % BLOCK
