"""The orders in which a question's options are shown, so that no letter and no key's skew can help.

Over the four rotations of one order every option stands once at every letter; over all 24 orders six times. So whoever
picks by position alone is right exactly a quarter of the time, question by question. The first order is drawn from a
hash of the texts: how a file happens to list the options changes nothing, neither the prompts nor the score.
Position bias: Zheng et al., "Large Language Models Are Not Robust Multiple Choice Selectors", ICLR 2024.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import Final, Literal

from fleetcast.runtime.measure.quality.items import LETTERS, Item

Order = tuple[int, ...]
"""Which option of an item stands at A, B, C and D."""
Orders = Literal["cyclic", "all", "given"]
By = Literal["letters", "texts"]
KINDS: Final = ("cyclic", "all", "given")


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt and what may follow it.

    Attributes:
        item: index of the question.
        order: which option each continuation stands for.
        prompt: the text before.
        continuations: four.
    """

    item: int
    order: Order
    prompt: str
    continuations: tuple[str, ...]


def orders_of(item: Item, kind: Orders) -> tuple[Order, ...]:
    """Returns the orders in which an item is asked: "cyclic" 4, "all" 24, "given" as its file lists them."""
    if kind == "given":
        return (tuple(range(len(LETTERS))),)
    first = canonical(item)
    if kind == "all":
        return tuple(itertools.permutations(first))
    return tuple(first[i:] + first[:i] for i in range(len(first)))


def canonical(item: Item) -> Order:
    """Returns the item's own order: the same texts, however listed, are put in the same order."""

    def key(place: int) -> bytes:
        return hashlib.sha256(f"{item.question}\n{item.options[place]}".encode()).digest()

    return tuple(sorted(range(len(LETTERS)), key=key))


def asks(items: tuple[Item, ...], kind: Orders, by: By = "letters") -> list[Ask]:
    """Returns every prompt of a set, questions sorted by their text.

    Args:
        items: the questions.
        kind: the orders.
        by: "letters" lists the options and asks for a letter; "texts" asks once, and each option's text may follow.
    """
    found = []
    for i in sorted(range(len(items)), key=lambda i: (items[i].question, items[i].id)):
        item = items[i]
        if by == "texts":
            order = canonical(item)
            texts = tuple(f" {item.options[place]}" for place in order)
            found.append(Ask(i, order, f"Question: {item.question}\nAnswer:", texts))
            continue
        for order in orders_of(item, kind):
            found.append(Ask(i, order, prompt(item, order), tuple(f" {letter}" for letter in LETTERS)))
    return found


def prompt(item: Item, order: Order) -> str:
    """Returns the text that lists an item's options in an order and ends before the letter."""
    lines = [f"{letter}. {item.options[place]}" for letter, place in zip(LETTERS, order, strict=True)]
    return "\n".join(["Choose the right answer.", f"Question: {item.question}", *lines, "Answer:"])
