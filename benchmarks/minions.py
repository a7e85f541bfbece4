"""Minions on the engine that runs: drafters that look up, count, run a small model and vote, against none.

The target and the small model are trained here on the project's own text of three kinds, and each n-gram drafter on one
kind, so that a stream of all three has drafters that fit and drafters that do not. Prompts are held-out text, answers
greedy. Times are CPU seconds of one thread, of runs in turn; where two processes work, seconds of the wall clock.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, absent, cpu_seconds, main, skipped
from fleetcast.policy import batch, speculate
from fleetcast.runtime.llm.draft import Drafter, ModelDrafter, NgramLookup, NgramModel, Pipelined, Voted
from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.paging import blocks_of
from fleetcast.runtime.llm.requests import Piece
from fleetcast.runtime.llm.sampling import Sampling
from fleetcast.runtime.llm.speculation import Profile
from fleetcast.scenario.drafts import Drafting
from fleetcast.sim.serving.drafting import process_of

DOMAINS = ("prose", "code", "data")
PROMPT, OUTPUT, LENGTH, TIED = 96, 48, 6, 1e-4
"""Bytes of a prompt and of an answer; tokens of a fixed draft; gap of logits below which two tokens are tied."""
USERS = 32
"""Requests at once where tokens are counted and not timed."""
ORDER = 8
"""Bytes of an n-gram's longest context."""
PAPER = Paper(setting="Minions: real pairs of models on GPUs; its abstract's figures are of its own system")


@dataclass(frozen=True)
class Size:
    """How much is run: of the target and the small model, prompts a domain to count and to time, rounds of timing."""

    target: tuple[str, dict[str, Any]]
    small: tuple[str, dict[str, Any]]
    counted: int
    timed: int
    rounds: int


FULL = Size(
    ("small", {"steps": 700, "length": 192, "batch": 12}),
    ("nano", {"steps": 300, "length": 192, "batch": 12}),
    240,
    5,
    9,
)
QUICK = Size(
    ("nano", {"steps": 120, "length": 192, "batch": 8}),
    ("nano", {"steps": 60, "length": 192, "batch": 8, "layers": 1}), 6, 2, 1,
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What came of a stream: outputs, s of CPU and of the wall clock, tokens after the first, calls, drafts' fate."""

    outputs: list[list[int]]
    cpu: float
    wall: float
    tokens: int
    calls: int
    profile: Profile
    found: float

    @property
    def per_call(self) -> float:
        """Tokens of a call of the target."""
        return self.tokens / self.calls


class Bench:
    """The models, the drafters and the prompts, trained once."""

    def __init__(self, size: Size) -> None:
        import torch

        from benchmarks.small_models import corpus, trained
        from fleetcast.runtime.training.tokens import BYTES

        torch.set_num_threads(1)
        self.size, self.blocks = size, (USERS + 1) * blocks_of(PROMPT + OUTPUT)
        self.folders = [trained(name, "mixed", **changes) for name, changes in (size.target, size.small)]
        self.target, self.small = (opened(str(folder), self.blocks) for folder in self.folders)
        texts = {name: corpus(name) for name in DOMAINS}
        self.ngrams = {name: NgramModel.trained(text, ORDER, BYTES) for name, (text, _) in texts.items()}
        self.ngrams["all"] = NgramModel.trained(np.concatenate([text for text, _ in texts.values()]), ORDER, BYTES)
        self.held = {name: held for name, (_, held) in texts.items()}

    def prompts(self, count: int, part: int = 0) -> list[list[int]]:
        """Returns ``count`` prompts of each domain in turn, spread over the held-out text; ``part`` 1 = others."""
        found = []
        for i in range(count):
            for held in self.held.values():
                at = (2 * i + part) * (len(held) - PROMPT) // (2 * count)
                found.append(held[at : at + PROMPT].tolist())
        return found

    def drafters(self) -> dict[str, Callable[[], Drafter]]:
        """Returns what builds each drafter; those that count are shared, since they keep nothing of requests."""
        return {
            **{f"n-gram of {name}": partial(_same, model) for name, model in self.ngrams.items()},
            "lookup": lambda: NgramLookup(longest=10, shortest=4),
            "small model": lambda: ModelDrafter(self.small, blocks=self.blocks),
            "vote of three n-grams": lambda: Voted([self.ngrams[name] for name in DOMAINS]),
            "vote with lookup": lambda: Voted(
                [*(self.ngrams[name] for name in DOMAINS), NgramLookup(longest=10, shortest=4)]
            ),
        }

    def run(
        self, asked: Sequence[list[int]], policy: Any, drafter: Drafter | None, users: int, temperature: float = 0.0
    ) -> Run:
        """Runs a stream of requests with at most ``users`` at once."""
        rule = batch.Chunked(chunk=1024, max_batch=users)
        engine = Engine(self.target, blocks=self.blocks, batch=rule, speculate=policy, drafter=drafter)
        made = [
            engine.submit(prompt, OUTPUT, Sampling(temperature=temperature, seed=i)) for i, prompt in enumerate(asked)
        ]
        gc.collect()  # what runs before left behind is not this one's work
        cpu, wall = time.process_time(), time.perf_counter()
        engine.run()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        tokens, s = sum(len(r.output) - 1 for r in made), engine.speculation
        outputs = [r.output for r in made]
        if s is None:
            return Run(outputs, cpu, wall, tokens, tokens, Profile(np.zeros(16, np.int64), np.zeros(16, np.int64)), 0.0)
        engine.close()
        return Run(outputs, cpu, wall, tokens, s.calls, s.profile, float(s.profile.judged[0]) / max(1, s.wanted))

    def gap(self, tokens: Sequence[int]) -> float:
        """Returns how far the two likeliest next tokens of a context lie apart, in logits."""
        table = list(range(blocks_of(len(tokens))))
        row = np.sort(self.target.forward([Piece(list(tokens), 0, table, 1)])[0])
        return float(row[-1] - row[-2])


def _same(drafter: Drafter) -> Drafter:
    return drafter


def opened(folder: str, blocks: int) -> Any:
    """Returns a trained model with room for ``blocks``."""
    from fleetcast.runtime.llm import open_engine

    return open_engine(folder, blocks=blocks).model


def apart(folder: str, blocks: int) -> ModelDrafter:
    """Builds the small model's drafter in its own process."""
    import torch

    torch.set_num_threads(1)
    return ModelDrafter(opened(folder, blocks), blocks=blocks)


@cache
def bench(quick: bool) -> Bench:
    """Returns what all records share."""
    return Bench(QUICK if quick else FULL)


@cache
def counted(quick: bool, name: str) -> tuple[Run, Run]:
    """Returns one drafter's runs on the two halves of the prompts; "" = without drafts."""
    b = bench(quick)
    policy = speculate.Fixed(length=LENGTH, drafters=drafters_of(b, name)) if name else None
    runs = [b.run(part, policy, b.drafters()[name]() if name else None, USERS) for part in halves(b)]
    return runs[0], runs[1]


def halves(b: Bench) -> tuple[list[list[int]], list[list[int]]]:
    """Returns every other prompt of each kind, and those between."""
    asked = b.prompts(b.size.counted)
    first = [i // len(DOMAINS) % 2 == 0 for i in range(len(asked))]
    return [p for p, x in zip(asked, first, strict=True) if x], [p for p, x in zip(asked, first, strict=True) if not x]


def drafters_of(b: Bench, name: str) -> int:
    """Returns how many vote."""
    return b.drafters()[name]().drafters


def foretold(acceptance: Any, found: float) -> float:
    """Returns the tokens per call that the simulator's own process says of requests of ``OUTPUT`` tokens."""
    process = process_of(speculate.Fixed(length=LENGTH), acceptance, Drafting(lookups=found))
    return (OUTPUT - 1) / float(process.beyond[:, OUTPUT - 1].sum())


def distinct(tokens: Sequence[int]) -> float:
    """Returns the share of runs of four tokens that are different.

    Examples:
        >>> distinct([1, 2, 3, 4, 5]), distinct([7] * 11)
        (1.0, 0.125)
    """
    found = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return len(set(found)) / len(found)


def records(quick: bool) -> list[Record]:
    """Returns Minions' claims on real drafters."""
    command = "python -m benchmarks.minions" + (" --quick" if quick else "")
    if missing := absent("torch", "safetensors"):
        return [skipped(system=45, claim=IDENTICAL, bar="all", why=f"not installed: {missing}", command=command)]
    return [
        identical(quick, command), predicted(quick, command), voted(quick, command), *timed(quick, command),
        turns(quick, command),
    ]  # fmt: skip


IDENTICAL = "answers equal to those without drafts, every drafter of the engine"


def setting_of(quick: bool) -> str:
    """Returns what every record is of."""
    b = bench(quick)
    name, changes = b.size.target
    return (
        f"target: {name} Llama over bytes, {changes['steps']} steps on the project's prose, code and data tables; "
        f"prompts of {PROMPT} held-out bytes, {OUTPUT} greedy bytes"
    )


def identical(quick: bool, command: str) -> Record:
    """Returns the record of equal outputs, and of whether the answers loop."""
    start, b = cpu_seconds(), bench(quick)
    plain = [output for run in counted(quick, "") for output in run.outputs]
    asked = [prompt for half in halves(b) for prompt in half]
    same, tied, other, total = 0, 0, 0, 0
    for name in b.drafters():
        outputs = [output for run in counted(quick, name) for output in run.outputs]
        for prompt, mine, theirs in zip(asked, outputs, plain, strict=True):
            total += 1
            if mine == theirs:
                same += 1
                continue
            place = next(i for i, (x, y) in enumerate(zip(mine, theirs, strict=True)) if x != y)
            close = b.gap([*prompt, *mine[:place]]) < TIED
            tied, other = tied + close, other + (not close)
    loops = {d: float(np.mean([distinct(o) for o in plain[i :: len(DOMAINS)]])) for i, d in enumerate(DOMAINS)}
    shown = ", ".join(f"{d} {x:.2f}" for d, x in loops.items())
    return Record(
        system=45, claim=IDENTICAL, paper=PAPER,
        ours=Ours(
            value=round((same + tied) / total, 5), unit="share",
            spread=f"{same} of {total} identical, {tied} first differ where two logits lie within {TIED:g}, {other} "
            f"elsewhere; distinct runs of four bytes: {shown}",
            setting=f"{setting_of(quick)}; {len(b.drafters())} drafters, {LENGTH} tokens, {USERS} users",
        ),
        null=Null(value=1.0, what="without drafts"), bar="all; and more than half of all runs of four bytes distinct",
        holds=other == 0 and min(loops.values()) > 0.5, reproduced="other setting",
        reason="a check of our own: small models, on a CPU", seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def predicted(quick: bool, command: str) -> Record:
    """Returns the record of tokens per call foretold from one half of the prompts."""
    start, b = cpu_seconds(), bench(quick)
    errors, scalars, told = {}, {}, []
    for name in b.drafters():
        first, second = counted(quick, name)
        profile = first.profile
        errors[name] = foretold(profile.rates, first.found) / second.per_call - 1.0
        scalars[name] = foretold(profile.rate, first.found) / second.per_call - 1.0
        rates = " ".join(f"{rate:.2f}" for rate in profile.rates)
        told.append(
            f"{name}: {second.per_call:.2f} tokens a call, foretold {errors[name]:+.1%}, by one rate "
            f"{scalars[name]:+.1%} (rates {rates})"
        )
    worst, scalar = (max(abs(x) for x in those.values()) for those in (errors, scalars))
    return Record(
        system=45, claim="tokens per call foretold from one half of the prompts, largest error on the other half",
        paper=PAPER,
        ours=Ours(
            value=round(100 * worst, 2), unit="%", spread="; ".join(told),
            setting=f"{setting_of(quick)}; {3 * b.size.counted} prompts, every other one in each half; acceptance by "
            "position in the simulator's own process of calls",
        ),
        null=Null(value=round(100 * scalar, 2), what="one acceptance for all positions, the same half"),
        bar="within 5 % for every drafter", holds=worst <= 0.05, reproduced="other setting",
        reason="a check of our own: the paper foretells nothing", seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def voted(quick: bool, command: str) -> Record:
    """Returns the record of voting against the best single drafter."""
    start, b = cpu_seconds(), bench(quick)
    per = {}
    for name in b.drafters():
        runs = counted(quick, name)
        per[name] = sum(r.tokens for r in runs) / sum(r.calls for r in runs)
    vote = per["vote of three n-grams"]
    single = max(
        (name for name in per if name.startswith("n-gram of") and not name.endswith("all")), key=per.__getitem__
    )
    return Record(
        system=45, claim="tokens per call of three voting n-grams, each of one kind of text, over the best one of them",
        paper=PAPER,
        ours=Ours(
            value=round(vote / per[single], 3), unit="x",
            spread=", ".join(f"{name} {x:.2f}" for name, x in per.items()) + " tokens a call",
            setting=f"{setting_of(quick)}; the three kinds in turn, {LENGTH} tokens drafted",
        ),
        null=Null(
            value=round(per["n-gram of all"] / per[single], 3), what="one n-gram that has read the texts of all three"
        ),
        bar="above 1, and above one n-gram of all text", holds=vote > max(per[single], per["n-gram of all"]),
        reproduced="other setting",
        reason="one n-gram of all text knows what each of the three knows" if vote <= per["n-gram of all"]
        else "small models on the project's own text; the paper's are real pairs",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def in_turn(runs: dict[str, Callable[[], Run]], rounds: int, wall: bool = False) -> dict[str, list[float]]:
    """Returns by how much each run is faster than the first, a figure a round; each round begins with another."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for i in range(rounds):
        took = {name: runs[name]() for name in names[i % len(names) :] + names[: i % len(names)]}
        seconds = {name: r.wall if wall else r.cpu for name, r in took.items()}
        for name, value in seconds.items():
            found[name].append(seconds[next(iter(runs))] / value)
    return found


def ratios(found: dict[str, list[float]]) -> str:
    """Returns medians with their range, for people."""
    return ", ".join(f"{n} {median(x):.2f}x ({min(x):.2f} to {max(x):.2f})" for n, x in list(found.items())[1:])


def work_of(b: Bench) -> float:
    """Returns the work of a drafted token over that of a call, by n-grams for one user, on prompts of their own.

    By drafts of two: the first costs more than those that follow, and it decides whether to draft at all.
    Each side's least time of several runs in turn counts: what disturbs a run only makes it longer.
    """
    asked, calls, least = b.prompts(max(1, b.size.timed // 3)), [1, 1], [float("inf")] * 2
    for _ in range(max(2, b.size.rounds)):
        for i, policy in enumerate((None, speculate.Fixed(length=2))):
            run = b.run(asked, policy, b.ngrams["all"] if policy else None, 1)
            calls[i], least[i] = run.calls, min(least[i], run.cpu)
    plain, drafted = (seconds / count for seconds, count in zip(least, calls, strict=True))
    return float(np.clip((drafted / plain - 1.0) / 2.0, 0.01, 1.0))


def timed(quick: bool, command: str) -> list[Record]:
    """Returns the records of speed: the mixed stream, and one that nobody can foresee."""
    start, b = cpu_seconds(), bench(quick)
    work = work_of(b)
    asked, make = b.prompts(b.size.timed, part=1), b.drafters()
    adaptive = partial(speculate.Minions, start=4, most=16, cost=work, least=0)
    single = "n-gram of all"
    tries: dict[str, tuple[Any, str]] = {
        "off": (None, ""),
        **{f"{single}, {n} tokens": (speculate.Fixed(length=n), single) for n in (3, 6, 12)},
        f"{single}, adaptive": (adaptive(), single),
        "vote, 6 tokens": (speculate.Fixed(length=6, drafters=3), "vote of three n-grams"),
        "vote, adaptive": (adaptive(drafters=3), "vote of three n-grams"),
        "lookup, 6 tokens": (speculate.Ngram(length=6), "lookup"),
        "small model, 3 tokens": (speculate.Fixed(length=3), "small model"),
    }

    def runs(users: int, temperature: float, names: Sequence[str]) -> dict[str, Callable[[], Run]]:
        return {
            n: partial(lambda p, d: b.run(asked, p, make[d]() if d else None, users, temperature), *tries[n])
            for n in names
        }

    mixed = in_turn(runs(1, 0.0, list(tries)), b.size.rounds)
    many = in_turn(runs(8, 0.0, ["off", f"{single}, 3 tokens", f"{single}, adaptive", "vote, adaptive"]), b.size.rounds)
    names = ["off", f"{single}, 6 tokens", f"{single}, adaptive", "off again"]
    tries["off again"] = tries["off"]
    adverse = in_turn(runs(1, 4.0, names), b.size.rounds)
    hard = in_turn(runs(1, 2.0, names), b.size.rounds)
    seconds = cpu_seconds() - start
    best = max(list(mixed)[1:], key=lambda n: median(mixed[n]))
    fixed = max((n for n in mixed if n.startswith(single) and n.endswith("tokens")), key=lambda n: median(mixed[n]))
    noise = max(abs(x - 1.0) for x in adverse["off again"])
    least = min(median(adverse[n]) for n in adverse if n.endswith("adaptive"))
    where = f"{setting_of(quick)}; CPU time of one thread, median and range of {b.size.rounds} rounds in turn"
    return [
        Record(
            system=45, claim="speed with drafts over without, mixed stream, one user, best of the drafters",
            paper=PAPER,
            ours=Ours(
                value=round(median(mixed[best]), 3), unit="x",
                spread=f"{ratios(mixed)}; 8 users: {ratios(many)}", setting=f"{where}; best: {best}",
            ),
            null=Null(value=1.0, what="no drafts"), bar="above 1", holds=median(mixed[best]) > 1.0,
            reproduced="other setting",
            reason="a small target on a CPU: a call is mostly the host's work, so that a check costs little more",
            seconds=seconds, command=command,
        ),
        Record(
            system=45, claim="speed of the adaptive length over the best fixed one, one n-gram, mixed stream",
            paper=PAPER,
            ours=Ours(
                value=round(median(a / f for a, f in zip(mixed[f"{single}, adaptive"], mixed[fixed], strict=True)), 3),
                unit="x", spread=f"best fixed: {fixed}; a drafted token was measured to cost {work:.3f} of a call",
                setting=where,
            ),
            null=Null(
                value=round(median(mixed[f"{single}, 12 tokens"]) / median(mixed[fixed]), 3), what="always 12 tokens"
            ),
            bar="at least 0.95", reproduced="other setting",
            holds=median(mixed[f"{single}, adaptive"]) >= 0.95 * median(mixed[fixed]),
            reason="our own brake, on small models", seconds=0.0, command=command,
        ),
        Record(
            system=45, claim="speed of the adaptive length over no drafts where nothing can be foreseen, least",
            paper=PAPER,
            ours=Ours(
                value=round(least, 3), unit="x",
                spread=f"{ratios(adverse)}; at temperature 2, where about one draft in five is right: {ratios(hard)}",
                setting=f"{where}, but drawn at temperature 4",
            ),
            null=Null(value=round(median(adverse[f"{single}, 6 tokens"]), 3), what="always 6 tokens"),
            bar="at least 1, less what two runs without drafts differ by", holds=least >= 1.0 - noise,
            reproduced="other setting",
            reason="made-up text; each request tries a few drafts before it stops", seconds=0.0, command=command,
        ),
    ]  # fmt: skip


def turns(quick: bool, command: str) -> Record:
    """Returns the record of a small model that drafts in its own process, while the target checks the other half."""
    start, b = cpu_seconds(), bench(quick)
    asked, users = b.prompts(2 * b.size.timed, part=1), USERS
    policy = speculate.Fixed(length=3)
    runs: dict[str, Callable[[], Run]] = {
        "off": lambda: b.run(asked, None, None, users),
        "before each check": lambda: b.run(asked, policy, ModelDrafter(b.small, blocks=b.blocks), users),
        "in its own process": lambda: b.run(
            asked, policy, Pipelined(partial(apart, str(b.folders[1]), b.blocks), patience=60.0), users
        ),
    }
    outputs = [run().outputs for run in runs.values()]
    found = in_turn(runs, b.size.rounds, wall=True)
    gain = [x / y for x, y in zip(found["in its own process"], found["before each check"], strict=True)]
    return Record(
        system=45, claim="speed of a small model that drafts in its own process over one that drafts before each check",
        paper=PAPER,
        ours=Ours(
            value=round(median(gain), 3), unit="x",
            spread=f"{min(gain):.2f} to {max(gain):.2f}; over no drafts: {ratios(found)}; "
            f"{sum(o == outputs[0] for o in outputs[1:])} of 2 with all answers identical",
            setting=f"{setting_of(quick)}; {users} users, wall clock, two processes of one thread",
        ),
        null=Null(value=1.0, what="the same small model before each check"), bar="above 1",
        holds=median(gain) > 1.0,
        reproduced="other setting",
        reason="halves take turns: the target runs twice as often on half of the batch, which pays only where a call's "
        "time follows its batch" if median(gain) <= 1.0 else "two processes on two cores",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
