"""Minions on the engine that runs: drafters that look up, count, run a small model and vote, against none.

The target and the small model are trained here on the project's own text of three kinds, and each n-gram drafter on one
kind, so that a stream of all three has drafters that fit and drafters that do not. Prompts are held-out text, answers
greedy. Times are CPU seconds of one thread, of runs in turn; where two processes work, seconds of the wall clock.

What acceptance foretells. Users' requests come mixed, so the prompts come in the order of a shuffle whose seed is fixed
here (`SHUFFLE`). The first half of them in that order is judged, and foretells the second. Beside it stand other
shuffles of the same requests, which say what luck there is in one, and the order of the texts, first files first:
traffic that drifts, which no acceptance of the past foretells.
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
from numpy.typing import NDArray

from benchmarks.records import Null, Ours, Paper, Record, absent, cpu_seconds, main, skipped
from fleetcast.policy import batch, speculate
from fleetcast.runtime.llm.draft import Drafter, ModelDrafter, NgramLookup, NgramModel, Pipelined, Voted
from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.paging import blocks_of
from fleetcast.runtime.llm.requests import Piece, Request
from fleetcast.runtime.llm.sampling import Choice, Sampling
from fleetcast.runtime.llm.speculation import Profile, Speculation
from fleetcast.scenario.drafts import Drafting
from fleetcast.sim.serving.drafting import process_of

DOMAINS = ("prose", "code", "data")
PROMPT, OUTPUT, LENGTH, TIED = 96, 48, 6, 1e-4
"""Bytes of a prompt and of an answer; tokens of a fixed draft; gap of logits below which two tokens are tied."""
USERS = 32
"""Requests at once where tokens are counted and not timed."""
MANY = 8
"""Requests at once of a small batch."""
ADAPTIVE, ADAPTIVE_VOTE = "adaptive", "adaptive vote"
"""Stand for the policy whose length adapts: what a draft costs it is measured for the users that there are."""
ORDER = 8
"""Bytes of an n-gram's longest context."""
SHUFFLE = 45
"""Seed of the order in which the prompts come where tokens are counted; chosen before any of them was run."""
OTHERS = 100
"""Other shuffles of the same requests."""
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
    400,
    5,
    9,
)
QUICK = Size(
    ("nano", {"steps": 120, "length": 192, "batch": 8}),
    ("nano", {"steps": 60, "length": 192, "batch": 8, "layers": 1}), 6, 2, 1,
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What came of a stream: outputs, s of CPU and of the wall clock, tokens after the first, calls.

    ``fates`` has a row a request, where they were noted: calls, calls for which a draft was wanted, and by position how
    often a draft was judged and how often it was right.
    """

    outputs: list[list[int]]
    cpu: float
    wall: float
    tokens: int
    calls: int
    fates: NDArray[np.int64]

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
        self, asked: Sequence[list[int]], policy: Any, drafter: Drafter | None, users: int, temperature: float = 0.0,
        noted: bool = False,
    ) -> Run:  # fmt: skip
        """Runs a stream of requests with at most ``users`` at once; ``noted`` = keeps every request's fates."""
        rule = batch.Chunked(chunk=1024, max_batch=users)
        engine = Engine(self.target, blocks=self.blocks, batch=rule, speculate=policy, drafter=drafter)
        made = [
            engine.submit(prompt, OUTPUT, Sampling(temperature=temperature, seed=i)) for i, prompt in enumerate(asked)
        ]
        fates = np.zeros((len(asked), 2 + 2 * speculate.LONGEST), np.int64)
        if noted and engine.speculation is not None:
            note(engine.speculation, fates)
        gc.collect()  # what runs before left behind is not this one's work
        cpu, wall = time.process_time(), time.perf_counter()
        engine.run()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        tokens, s = sum(len(r.output) - 1 for r in made), engine.speculation
        outputs = [r.output for r in made]
        engine.close()
        return Run(outputs, cpu, wall, tokens, tokens if s is None else s.calls, fates)

    def gap(self, tokens: Sequence[int]) -> float:
        """Returns how far the two likeliest next tokens of a context lie apart, in logits."""
        table = list(range(blocks_of(len(tokens))))
        row = np.sort(self.target.forward([Piece(list(tokens), 0, table, 1)])[0])
        return float(row[-1] - row[-2])


def _same(drafter: Drafter) -> Drafter:
    return drafter


def note(speculation: Speculation, fates: NDArray[np.int64]) -> None:
    """Has what is judged written into a row a request, as `Run.fates` has it."""
    judge = speculation.judge

    def noting(r: Request, draft: Sequence[int], choices: Sequence[Choice]) -> int:
        row, wanted = fates[r.id], r.ahead > 0
        right = judge(r, draft, choices)
        row[:2] += 1, wanted
        row[2 : 2 + min(len(choices), len(draft))] += 1
        row[2 + speculate.LONGEST : 2 + speculate.LONGEST + right] += 1
        return right

    # The engine tells nobody what became of single drafts, and a listener for this script alone would slow every step.
    speculation.judge = noting  # type: ignore[method-assign]


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
def counted(quick: bool, name: str) -> Run:
    """Returns one drafter's run on the prompts in the order of the shuffle; "" = without drafts."""
    b = bench(quick)
    policy = speculate.Fixed(length=LENGTH, drafters=drafters_of(b, name)) if name else None
    prompts = b.prompts(b.size.counted)
    asked = [prompts[i] for i in shuffled(b)]
    return b.run(asked, policy, b.drafters()[name]() if name else None, USERS, noted=True)


def shuffled(b: Bench, seed: int = SHUFFLE) -> NDArray[np.int64]:
    """Returns the order of the prompts, as places in the order of the texts."""
    return np.random.default_rng(seed).permutation(len(DOMAINS) * b.size.counted)


def drafters_of(b: Bench, name: str) -> int:
    """Returns how many vote."""
    return b.drafters()[name]().drafters


def foretold(acceptance: Any, found: float) -> float:
    """Returns the tokens per call that the simulator's own process says of requests of ``OUTPUT`` tokens."""
    process = process_of(speculate.Fixed(length=LENGTH), acceptance, Drafting(lookups=found))
    return (OUTPUT - 1) / float(process.beyond[:, OUTPUT - 1].sum())


def errors_of(fates: NDArray[np.int64], order: NDArray[np.int64]) -> tuple[float, float, Profile]:
    """Returns how far off the first half in an order foretells the second: by position, and by one rate for all.

    Args:
        fates: as `Run.fates` has them.
        order: of its rows.

    Returns:
        (error, error of one rate, profile of the first half)
    """
    half = len(order) // 2
    first, second = fates[order[:half]].sum(axis=0), fates[order[half:]]
    profile = Profile(first[2 : 2 + speculate.LONGEST], first[2 + speculate.LONGEST :])
    found = float(profile.judged[0]) / max(1, int(first[1]))
    real = (OUTPUT - 1) * len(second) / float(second[:, 0].sum())
    return foretold(profile.rates, found) / real - 1.0, foretold(profile.rate, found) / real - 1.0, profile


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
    plain, order = counted(quick, "").outputs, shuffled(b)
    prompts = b.prompts(b.size.counted)
    asked = [prompts[i] for i in order]
    same, tied, other, total = 0, 0, 0, 0
    for name in b.drafters():
        outputs = counted(quick, name).outputs
        for prompt, mine, theirs in zip(asked, outputs, plain, strict=True):
            total += 1
            if mine == theirs:
                same += 1
                continue
            place = next(i for i, (x, y) in enumerate(zip(mine, theirs, strict=True)) if x != y)
            close = b.gap([*prompt, *mine[:place]]) < TIED
            tied, other = tied + close, other + (not close)
    loops = {
        d: float(np.mean([distinct(o) for o, at in zip(plain, order, strict=True) if at % len(DOMAINS) == i]))
        for i, d in enumerate(DOMAINS)
    }
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
    """Returns the record of tokens per call foretold from the first half of the prompts."""
    start, b = cpu_seconds(), bench(quick)
    came = np.arange(len(DOMAINS) * b.size.counted)
    by_text = np.argsort(shuffled(b))  # where the prompts of the texts' own order stand among the rows
    worst: dict[str, list[float]] = {name: [0.0, 0.0] for name in ("shuffled", "texts")}
    lucks, told = np.zeros(OTHERS), []
    for name in b.drafters():
        run = counted(quick, name)
        error, scalar, profile = errors_of(run.fates, came)
        drift, drift_scalar, _ = errors_of(run.fates, by_text)
        for where, both in (("shuffled", (error, scalar)), ("texts", (drift, drift_scalar))):
            worst[where] = [max(old, abs(new)) for old, new in zip(worst[where], both, strict=True)]
        others = (errors_of(run.fates, shuffled(b, SHUFFLE + 1 + i))[0] for i in range(OTHERS))
        lucks = np.maximum(lucks, np.abs(list(others)))
        rates = " ".join(f"{rate:.2f}" for rate in profile.rates)
        told.append(
            f"{name}: {run.per_call:.2f} tokens a call, foretold {error:+.1%}, by one rate {scalar:+.1%}, in the "
            f"order of the texts {drift:+.1%} (rates {rates})"
        )
    luck = f"{np.quantile(lucks, 0.5):.1%}, in 95 of 100 at most {np.quantile(lucks, 0.95):.1%}"
    return Record(
        system=45, claim="tokens per call foretold from the first half of the prompts, largest error on the second",
        paper=PAPER,
        ours=Ours(
            value=round(100 * worst["shuffled"][0], 2), unit="%",
            spread=f"{'; '.join(told)}; largest error in {OTHERS} other shuffles: median {luck}; where traffic drifts, "
            f"first files first: {worst['texts'][0]:.1%}, by one rate {worst['texts'][1]:.1%}",
            setting=f"{setting_of(quick)}; {len(came)} prompts, mixed by a shuffle fixed before; acceptance by "
            "position in the simulator's own process of calls",
        ),
        null=Null(value=round(100 * worst["shuffled"][1], 2), what="one acceptance for all positions, the same half"),
        bar="within 5 % for every drafter", holds=worst["shuffled"][0] <= 0.05, reproduced="other setting",
        reason="a check of our own: the paper foretells nothing; in the order of the texts the halves are of "
        "other files",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def voted(quick: bool, command: str) -> Record:
    """Returns the record of voting against the best single drafter."""
    start, b = cpu_seconds(), bench(quick)
    per = {name: counted(quick, name).per_call for name in b.drafters()}
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


def work_of(b: Bench, users: int) -> tuple[float, float]:
    """Returns what a draft costs over a request's share of a call, and what each of its tokens does, by n-grams.

    The line through calls without drafts, with drafts of two and with drafts of `LENGTH`, on prompts of their own.
    Each side's least time of several runs in turn counts: what disturbs a run only makes it longer.
    """
    lengths = (0, 2, LENGTH)
    asked, calls, least = b.prompts(max(1, b.size.timed // 3, users // 2)), [1] * 3, [float("inf")] * 3
    for _ in range(max(2, b.size.rounds)):
        for i, length in enumerate(lengths):
            policy = speculate.Fixed(length=length) if length else None
            run = b.run(asked, policy, b.ngrams["all"] if length else None, users)
            calls[i], least[i] = run.calls, min(least[i], run.cpu)
    plain, short, long = (seconds / count for seconds, count in zip(least, calls, strict=True))
    token = float(np.clip((long - short) / (LENGTH - 2) / plain, 0.01, 1.0))
    return float(np.clip(short / plain - 1.0 - 2 * token, 0.0, 4.0)), token


def timed(quick: bool, command: str) -> list[Record]:
    """Returns the records of speed: the mixed stream, and one that nobody can foresee."""
    start, b = cpu_seconds(), bench(quick)
    works = {users: work_of(b, users) for users in (1, MANY)}
    asked, make = b.prompts(b.size.timed, part=1), b.drafters()
    single = "n-gram of all"
    tries: dict[str, tuple[Any, str]] = {
        "off": (None, ""),
        **{f"{single}, {n} tokens": (speculate.Fixed(length=n), single) for n in (2, 3, 4, 6, 12)},
        f"{single}, adaptive": (ADAPTIVE, single),
        "vote, 6 tokens": (speculate.Fixed(length=6, drafters=3), "vote of three n-grams"),
        "vote, adaptive": (ADAPTIVE_VOTE, "vote of three n-grams"),
        "lookup, 6 tokens": (speculate.Ngram(length=6), "lookup"),
        "small model, 3 tokens": (speculate.Fixed(length=3), "small model"),
    }

    def go(policy: Any, who: str, users: int, temperature: float) -> Run:
        if policy in (ADAPTIVE, ADAPTIVE_VOTE):
            overhead, token = works[users]
            policy = speculate.Minions(
                start=4, most=16, cost=token, least=0, overhead=overhead, drafters=3 if policy == ADAPTIVE_VOTE else 1
            )
        return b.run(asked, policy, make[who]() if who else None, users, temperature)

    def runs(users: int, temperature: float, names: Sequence[str]) -> dict[str, Callable[[], Run]]:
        return {n: partial(go, *tries[n], users, temperature) for n in names}

    mixed = in_turn(runs(1, 0.0, list(tries)), b.size.rounds)
    many = in_turn(
        runs(MANY, 0.0, ["off", f"{single}, 3 tokens", f"{single}, adaptive", "vote, adaptive"]), b.size.rounds
    )
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
                spread=f"{ratios(mixed)}; {MANY} users: {ratios(many)}", setting=f"{where}; best: {best}",
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
                unit="x",
                spread=f"best fixed: {fixed}; measured: a draft costs {works[1][0]:.2f} of a call and "
                f"{works[1][1]:.3f} more a token; of {MANY} users {works[MANY][0]:.2f} and {works[MANY][1]:.3f}",
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


class Waited(Pipelined):
    """A drafter in its own process, and how long the engine waited for it, s."""

    waited = 0.0

    def fetch(self, requests: Sequence[int]) -> list[list[int]]:
        """Returns the drafts."""
        begun = time.perf_counter()
        try:
            return super().fetch(requests)
        finally:
            self.waited += time.perf_counter() - begun


def turns(quick: bool, command: str) -> Record:
    """Returns the record of a small model that drafts in its own process, while the target checks the other half."""
    start, b = cpu_seconds(), bench(quick)
    asked, users = b.prompts(8 * b.size.timed, part=1), USERS  # more than fit: the last of a burst take no turns
    policy, waits = speculate.Fixed(length=3), list[tuple[float, float, float]]()
    owns = list[float]()

    def beside() -> Run:
        drafter = Waited(partial(apart, str(b.folders[1]), b.blocks), patience=60.0)
        run = b.run(asked, policy, drafter, users)
        waits.append((run.wall, run.cpu, drafter.waited))
        return run

    def before() -> Run:
        run = b.run(asked, policy, ModelDrafter(b.small, blocks=b.blocks), users)
        owns.append(run.wall)
        return run

    runs: dict[str, Callable[[], Run]] = {
        "off": lambda: b.run(asked, None, None, users), "before each check": before, "in its own process": beside,
    }  # fmt: skip
    outputs = [run().outputs for run in runs.values()]
    found = in_turn(runs, b.size.rounds, wall=True)
    gain = [x / y for x, y in zip(found["in its own process"], found["before each check"], strict=True)]
    wall, cpu, waited = (min(column) for column in zip(*waits, strict=True))  # disturbed least
    return Record(
        system=45, claim="speed of a small model that drafts in its own process over one that drafts before each check",
        paper=PAPER,
        ours=Ours(
            value=round(median(gain), 3), unit="x",
            spread=f"{min(gain):.2f} to {max(gain):.2f}; over no drafts: {ratios(found)}; least times: "
            f"{min(owns):.3f} s before each check, {wall:.3f} s apart, of which the target's process works {cpu:.3f} s "
            f"and waits {waited:.3f} s for drafts, so that without waiting {min(owns) / cpu:.2f}x were to be had; "
            f"{sum(o == outputs[0] for o in outputs[1:])} of 2 with all answers identical",
            setting=f"{setting_of(quick)}; {users} users, wall clock, two processes of one thread",
        ),
        null=Null(value=1.0, what="the same small model before each check"), bar="above 1",
        holds=median(gain) > 1.0,
        reproduced="other setting",
        reason="halves take turns: the target runs twice as often on half of the batch, which costs it most of what "
        "drafting costs" if median(gain) <= 1.0 else "two processes on two cores",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
