"""Choosing among plans: rules against brute force, what tiny systems can promise, and votes with processes killed.

The paper (Arrovian distributed agreement, OPODIS 2024, LIPIcs 324:32) proves what cannot be promised; its thresholds
are not at hand, so none is quoted. What is shown holds for the sizes and rounds that were searched, and for no others.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, absent, cpu_seconds, main, skipped
from fleetcast.base.rng import rng
from fleetcast.policy.vote import Borda, Footrule, Kemeny
from fleetcast.policy.vote.metrics import Orders, all_orders, footrule, kendall
from fleetcast.runtime.vote import Faults, Vote, hold
from fleetcast.runtime.vote.process import aggregate
from fleetcast.search.vote.guarantees import Answer, forms, search
from fleetcast.search.vote.problem import Promise
from fleetcast.search.vote.runs import Setting
from fleetcast.search.vote.solver import kemeny
from fleetcast.search.vote.witness import contradict

COMMAND = "python -m benchmarks.vote"
THEORY = "a theory paper: no rankings, votes or times are reported"
PROMISES = {
    "1 ranking": Promise(1), "2 rankings": Promise(2), "K <= 1": Promise(None, 1), "K <= 2": Promise(None, 2),
    "F <= 2": Promise(None, 2, "footrule"),
}  # fmt: skip
"""What is asked of three processes and three plans; K is at most 3 there, F at most 4."""
SYSTEMS = {
    "synchronous, no crash, 1 round": Setting(3, 3, 0, True, 1),
    "synchronous, 1 crash, 1 round": Setting(3, 3, 1, True, 1),
    "synchronous, 1 crash, 2 rounds": Setting(3, 3, 1, True, 2),
    "asynchronous, 1 crash, 1 round": Setting(3, 3, 1, False, 1),
    "asynchronous, 1 crash, 2 rounds": Setting(3, 3, 1, False, 2),
    "asynchronous, 2 crashes, 1 round": Setting(3, 3, 2, False, 1),
}
FOUR = {
    "4 processes, synchronous, 1 crash, 1 round": Setting(4, 3, 1, True, 1),
    "4 processes, asynchronous, 1 crash, 1 round": Setting(4, 3, 1, False, 1),
}


TRIED = 12
"""Runs of a witness up to which every choice of rankings is tried; more take hours."""


def profiles(count: int, voters: int, plans: int, noise: float) -> Iterator[Orders]:
    """Yields synthetic ballots: a hidden order with noise on the places, so that voters agree in part."""
    draw = rng(1, "synthetic", "ballots", str(plans), str(noise))
    for _ in range(count):
        yield np.argsort(np.arange(plans) + noise * plans * draw.standard_normal((voters, plans)), axis=1)


def answers(systems: dict[str, Setting], unanimity: str = "all") -> dict[tuple[str, str], Answer]:
    """Returns what the search says of each system and promise."""
    found = {}
    for (system, setting), (name, promise) in product(systems.items(), PROMISES.items()):
        if setting.processes > 3 and promise.most is None:
            continue  # a distance between four takes longer than a table should
        asked = Promise(promise.most, promise.within, promise.metric, "all" if unanimity == "all" else "correct")
        found[system, name] = search(setting, asked)
    return found


def sure(answer: Answer) -> bool | None:
    """Whether an answer passes a check that is not the search's: its rule in all runs, or its runs by trial.

    None where its witness is too wide to try.
    """
    runs, promise = answer.runs, answer.promise
    allowed, near = runs.allowed(promise.unanimity == "correct"), promise.near(runs.orders)
    if not answer.exists:
        tried = answer.minimal and len(answer.witness) <= TRIED
        return contradict(answer.witness, promise, allowed, near) if tried else None
    assert answer.map is not None
    for pattern in runs.patterns:
        for row, views in zip(answer.map[runs.decided(pattern)], runs.decided(pattern), strict=True):
            if not all(allowed[v, r] for v, r in zip(views, row, strict=True)):
                return False
            if promise.most is not None and len(set(row.tolist())) > promise.most:
                return False
            if promise.most is None and not all(near[a, b] for a, b in product(row, row)):
                return False
    return True


def voted(count: int, *, synchronous: bool) -> list[Vote]:
    """Returns votes of five processes of which two are killed: one between two messages, one at any moment."""
    found = []
    for seed in range(count):
        draw = random.Random(f"vote {synchronous} {seed}")
        ballots = [[*draw.sample(range(3), 3), 3] for _ in range(5)]
        first, second = draw.sample(range(5), 2)
        delay = 0.01 if synchronous else 0.03
        faults = Faults({first: draw.randrange(12 if synchronous else 8)}, {second: 0.08 * draw.random()}, delay, seed)
        found.append(hold(ballots, crashes=2, synchronous=synchronous, faults=faults))
    return found


def after_one_round(vote: Vote) -> int:
    """Returns how many rankings there would be, had each decided that of the ballots it knew after one round."""
    made = set()
    for decided, heard in zip(vote.decided, vote.heard, strict=True):
        if decided is not None:
            made.add(aggregate("kemeny", {i: vote.ballots[i] for i in heard}))
    return len(made)


def rule_records(quick: bool) -> list[Record]:
    """The rules and distances against brute force."""
    start, made = cpu_seconds(), []
    count = 60 if quick else 300
    equal = worse = cases = 0
    ratio = 0.0
    for plans, noise in product((3, 4, 5, 6, 7), (0.2, 1.0)):
        orders = all_orders(plans)
        for ballots in profiles(count // 10, 5, plans, noise):
            totals = kendall(orders[:, None], ballots[None]).sum(axis=1)
            moved = footrule(orders[:, None], ballots[None]).sum(axis=1)
            near = Footrule().decide(ballots)
            cases += 1
            equal += int(
                kendall(Kemeny().decide(ballots), ballots).sum() == totals.min()
                and footrule(near, ballots).sum() == moved.min()
            )
            worse += int(kendall(Borda().decide(ballots), ballots).sum() > totals.min())
            ratio = max(ratio, float(kendall(near, ballots).sum() / max(1, totals.min())))
    made.append(
        Record(
            system=55, claim="medians by pairs (Kemeny) and by places that equal brute force, up to 7 plans",
            paper=Paper(setting=THEORY),
            ours=Ours(
                value=equal, unit=f"of {cases}",
                setting="synthetic ballots of 5 voters, 3 to 7 plans, two levels of noise",
                spread=f"by places, the total by pairs is at most {ratio:.2f} times the least (2 is the bound)",
            ),
            null=Null(value=cases - worse, what="Borda's sums of places have the fewest pairs against a ballot"),
            bar="all, and at most twice", holds=equal == cases and ratio <= 2, reproduced="other setting",
            reason="a check of our own rules", seconds=cpu_seconds() - start, command=COMMAND,
        )
    )  # fmt: skip
    start = cpu_seconds()
    pairs = kept = 0
    for plans in range(2, 7):
        orders = all_orders(plans)
        k, f = kendall(orders, np.arange(plans)), footrule(orders, np.arange(plans))
        pairs, kept = pairs + len(orders), kept + int(((k <= f) & (f <= 2 * k)).sum())
    made.append(
        Record(
            system=55, claim="Kendall tau K and Spearman's footrule F: K <= F <= 2 K, all rankings up to 6 plans",
            paper=Paper(setting="both distances are used; the bounds are Diaconis and Graham's"),
            ours=Ours(value=kept, unit=f"of {pairs}", setting="one of two rankings in order: names do not matter"),
            null=Null(what="no rule of thumb stands beside a bound"), bar="all", holds=kept == pairs, reproduced="yes",
            seconds=cpu_seconds() - start, command=COMMAND,
        )
    )  # fmt: skip
    made.append(solver_record(quick))
    return made


def solver_record(quick: bool) -> Record:
    """Kemeny's ranking by CP-SAT and by the recursion over subsets."""
    claim, bar = "Kemeny totals of CP-SAT that equal the recursion over subsets, 8 to 16 plans", "all"
    if missing := absent("ortools"):
        return skipped(system=55, claim=claim, bar=bar, why=f"{missing} is not installed", command=COMMAND)
    start, equal, cases, borda, spent = cpu_seconds(), 0, 0, 0, []
    for plans in (8, 12) if quick else (8, 10, 12, 14, 16):
        by_solver = by_subsets = 0.0
        for noise in (0.2, 1.0):
            for ballots in profiles(2 if quick else 5, 7, plans, noise):
                began = time.perf_counter()
                _, total, bound = kemeny(ballots, smallest=2)
                middle = time.perf_counter()
                least = kendall(Kemeny().decide(ballots), ballots).sum()
                by_solver, by_subsets = by_solver + middle - began, by_subsets + time.perf_counter() - middle
                cases, equal = cases + 1, equal + int(total == least == bound)
                borda += int(kendall(Borda().decide(ballots), ballots).sum() == least)
        spent.append(f"{plans} plans {by_solver:.2f} and {by_subsets:.3f}")
    return Record(
        system=55, claim=claim, paper=Paper(setting=THEORY),
        ours=Ours(
            value=equal, unit=f"of {cases}", setting="synthetic ballots of 7 voters, two levels of noise",
            spread=f"s for all of a size by CP-SAT and by subsets: {', '.join(spent)}",
        ),
        null=Null(value=borda, what="Borda's ranking has the same total"), bar=bar, holds=equal == cases,
        reproduced="other setting",
        reason="a check of our own solvers; only above 16 plans in a circle is CP-SAT needed",
        seconds=cpu_seconds() - start, command=COMMAND,
    )  # fmt: skip


def table_records(quick: bool) -> list[Record]:
    """What three and four processes can promise each other of three plans."""
    made = []
    for unanimity in ("all", "correct"):
        start = cpu_seconds()
        systems = SYSTEMS | ({} if quick else FOUR)
        found = answers(systems, unanimity)
        exists = sum(a.exists for a in found.values())
        checks = [sure(answer) for answer in found.values()]
        simple = sum(a.exists and a.rule == forms(a.runs)[0][0] for a in found.values())
        told = "; ".join(
            f"{system}: "
            + ", ".join(f"{n} {'yes' if found[system, n].exists else 'no'}" for n in PROMISES if (system, n) in found)
            for system in systems
        )
        whose = "all ballots" if unanimity == "all" else "the processes that never crash"
        made.append(
            Record(
                system=55, claim=f"promises kept by some rule, unanimity of {whose}, 3 plans",
                paper=Paper(value=None, setting="impossibilities are proved; the thresholds are not at hand"),
                ours=Ours(
                    value=exists, unit=f"of {len(found)} asked", spread=told,
                    setting=f"3 processes{'' if quick else ' and 4'}; every rule of so many rounds at this size, "
                    f"{sum(c is True for c in checks)} answers pass a second check outside the solver, witnesses of "
                    f"{checks.count(None)} are too wide for it",
                ),
                null=Null(value=simple, what="kept by the Kemeny ranking of the ballots heard of"),
                bar="none fails its second check", holds=False not in checks, reproduced="other setting",
                reason="the search says what holds at these sizes and rounds, and nothing of others",
                seconds=cpu_seconds() - start, command=COMMAND,
            )
        )  # fmt: skip
    return made


def process_records(quick: bool) -> list[Record]:
    """Votes among real processes."""
    made = []
    for synchronous in (True, False):
        start, count = cpu_seconds(), 8 if quick else 50
        votes = voted(count, synchronous=synchronous)
        kept = sum(vote.kept and not vote.late for vote in votes)
        crashed = sum(len(vote.crashed) for vote in votes)
        most, alone = max(v.different for v in votes), [after_one_round(v) for v in votes]
        promised = votes[0].promised
        within = sum(n <= promised for n in alone)
        model = "synchronous" if synchronous else "asynchronous"
        why = "the paper proves what cannot be; this is the vote that can"
        if within == count:
            why += "; deciding after one round did as well in these votes, without the promise"
        told = "1 ranking" if synchronous else f"at most {promised} rankings"
        made.append(
            Record(
                system=55, claim=f"votes of 5 processes, 2 killed, that keep unanimity and {told} ({model})",
                paper=Paper(setting="protocols with crash faults, no runs"),
                ours=Ours(
                    value=kept, unit=f"of {count}", setting="processes on one machine, SIGKILL at random points",
                    spread=f"{crashed} processes were killed before they decided; at most {most} rankings in a vote",
                ),
                null=Null(
                    value=within, what=f"had each decided after one round, as few (at most {max(alone)} rankings)"
                ),
                bar="all", holds=kept == count, reproduced="other setting",
                reason=why, seconds=cpu_seconds() - start,
                command=COMMAND,
            )
        )  # fmt: skip
    return made


def records(quick: bool = False) -> list[Record]:
    """The records of system 55; ``quick`` searches three processes only and lets fewer vote."""
    return [*rule_records(quick), *table_records(quick), *process_records(quick)]


if __name__ == "__main__":
    sys.exit(main(records))
