"""The engine's prefix cache on conversations that it holds itself: what is found, what it saves, under which rule.

A small trained model answers; each turn's prompt repeats all that was said, its own answers included, after a system
prompt that all conversations share. Which tokens are found does not depend on the model.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.records import Null, Ours, Paper, Record, cpu_seconds, main, skipped
from fleetcast.policy import batch, evict
from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.paging import BLOCK, blocks_of

SYSTEM, MESSAGE, ANSWER, USERS = 320, 48, 32, 8
"""Bytes of the shared beginning, of a new message and of an answer; conversations that are answered at once."""
CLAIM = "CPU time of conversations with the engine's prefix cache over without"


@dataclass(frozen=True)
class Held:
    """What came of the conversations: answers, s of CPU, prompt tokens and those found, blocks given up."""

    answers: list[list[int]]
    cpu: float
    prompts: int
    found: int
    dropped: int


def hold(model: Any, text: list[int], blocks: int, rule: Any, talks: int, turns: int) -> Held:
    """Holds ``talks`` conversations of ``turns`` each, a turn of all after the other."""
    engine = Engine(model, blocks=blocks, batch=batch.Chunked(chunk=512, max_batch=USERS), prefix_cache=rule)
    said = [list(text[:SYSTEM]) for _ in range(talks)]
    answers, prompts, found, at, cpu = [], 0, 0, SYSTEM, time.process_time()
    for _ in range(turns):
        made = []
        for talk in said:
            talk += text[at : at + MESSAGE]
            at += MESSAGE
            made.append(engine.submit(talk, ANSWER))
        engine.run()
        for talk, request in zip(said, made, strict=True):
            talk += request.output
            answers.append(request.output)
            prompts, found = prompts + request.prompt, found + request.cached
    cache = engine.schedule.prefixes
    return Held(answers, time.process_time() - cpu, prompts, found, cache.dropped if cache is not None else 0)


def records(quick: bool) -> list[Record]:
    """Returns what the engine's prefix cache finds and saves."""
    command = "python -m benchmarks.prefix_engine" + (" --quick" if quick else "")
    try:
        import torch

        from benchmarks.small_models import corpus, trained
        from fleetcast.runtime.llm import open_engine
    except ImportError:
        why = "torch or safetensors is not installed"
        return [skipped(system=5, claim=CLAIM, bar="below 1", why=why, command=command)]
    start = cpu_seconds()
    torch.set_num_threads(1)
    talks, turns, rounds = (6, 3, 1) if quick else (24, 5, 3)
    text = corpus("prose")[1].tolist()
    whole = SYSTEM + turns * (MESSAGE + ANSWER)
    room, tight = talks * blocks_of(whole) + USERS, blocks_of(SYSTEM) + talks * blocks_of(whole - SYSTEM) * 6 // 10
    model = open_engine(trained("nano"), blocks=room).model
    runs: dict[str, list[Held]] = {"without": [], "lru": []}
    for _ in range(rounds):
        for name, rule in (("without", None), ("lru", evict.Lru())):
            runs[name].append(hold(model, text, room, rule, talks, turns))
    gains = [a.cpu / b.cpu for a, b in zip(runs["lru"], runs["without"], strict=True)]
    kept = runs["lru"][0]
    same = sum(a == b for a, b in zip(kept.answers, runs["without"][0].answers, strict=True))
    # every turn but the first repeats all before it, and all but the first turns of the first users the system prompt
    most = sum(
        (SYSTEM + t * (MESSAGE + ANSWER) - 1) // BLOCK * BLOCK if t else SYSTEM // BLOCK * BLOCK
        for t in range(turns) for _ in range(talks)
    )  # fmt: skip
    squeezed = {
        rule.kind: hold(model, text, tight, rule, talks, turns) for rule in (evict.Lru(), evict.Lfu(), evict.Fifo())
    }
    setting = (
        f"{talks} conversations of {turns} turns, {USERS} at once, {SYSTEM} bytes of system prompt, messages of "
        f"{MESSAGE} and answers of {ANSWER} bytes; a nano Llama over bytes, one thread"
    )
    shares = ", ".join(
        f"{name} {h.found / h.prompts:.1%} ({h.dropped} blocks given up)" for name, h in squeezed.items()
    )
    return [
        Record(
            system=5, claim=CLAIM, paper=Paper(setting="none of these papers times a cache on a CPU"),
            ours=Ours(
                value=round(median(gains), 3), unit="x",
                spread=f"{min(gains):.2f} to {max(gains):.2f} over {rounds} rounds in turn; {same} of "
                f"{len(kept.answers)} answers identical", setting=setting,
            ),
            null=Null(value=1.0, what="no prefix cache"), bar="below 1", holds=median(gains) < 1.0,
            reproduced="other setting", reason="made-up conversations, a tiny model on a CPU",
            seconds=cpu_seconds() - start, command=command,
        ),
        Record(
            system=5, claim="prompt tokens that the engine's prefix cache finds in conversations, room for all",
            paper=Paper(setting="none of these papers states this traffic"),
            ours=Ours(
                value=round(kept.found / kept.prompts, 3), unit="of prompt tokens",
                spread=f"{kept.found} of at most {most} tokens; in {tight} blocks instead of {room}: {shares}",
                setting=setting,
            ),
            null=Null(value=0.0, what="no prefix cache"),
            bar="all that was computed before, but for the system prompt of those who come first together",
            holds=most - USERS * SYSTEM <= kept.found <= most, reproduced="other setting",
            reason="made-up conversations", seconds=0.0, command=command,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
