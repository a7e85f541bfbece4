"""Speculation of a pool, resolved: its policy, its drafter, and how many calls each request takes.

The world counts calls of the target model: a request of m tokens after its first takes the calls that make m tokens,
drawn once per request from the policy's process (`cost.speculate`), a function of seed and request alone. Contexts
grow by the mean tokens of a call, an iteration costs what `cost.drafted` says, metrics count tokens.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible, SpecError, closest
from fleetcast.base.rng import rng
from fleetcast.base.spec import build, describe, to_builtins
from fleetcast.cost.memory import Memory
from fleetcast.cost.speculate import Floats, Process, chain, doubt, rates_of, voted
from fleetcast.cost.step import StepCost
from fleetcast.policy import speculate as family
from fleetcast.scenario.drafts import DRAFTING, Drafting, drafting_of
from fleetcast.scenario.fleet.links import Link
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.plan import Pool
from fleetcast.scenario.workload.models import Layout, Model
from fleetcast.scenario.workload.precision import Precision, as_engine
from fleetcast.scenario.workload.requests import Requests

ASSUMED = 0.7
"""Acceptance where a plan names none."""
JUDGED = 0.02
"""Standard deviation of an acceptance that a plan states: what about 500 judged drafts leave of one near 0.7."""
MEMORY = 1_000_000
"""Tokens that a policy is said to have seen judged, when it is asked what it does in the long run."""
ELSEWHERE = Pool(role="draft")
"""Stands for a draft pool that is not chosen yet: a target beside it is costed without its drafters."""
KEPT = 8
"""Columns of calls that are kept per process: a search asks for those of a trace and its parts, over and over."""


@dataclass(frozen=True, eq=False)
class Speculation:
    """What a pool drafts.

    Attributes:
        policy: decides the lengths.
        drafting: who drafts.
        process: what calls yield.
        seed: of the draws.
        notes: what was taken as given.
        doubt: standard deviation of log(time per token) that the acceptance leaves.
        drafter: model, layout and precision of one drafter on the target's devices; None where it has its own, and
            for n-grams.
    """

    policy: Any
    drafting: Drafting
    process: Process
    seed: int
    notes: tuple[str, ...] = ()
    doubt: float = 0.0
    drafter: tuple[Model, Layout, Precision] | None = None

    @property
    def beside(self) -> list[tuple[Model, Layout, Precision]]:
        """The drafters that share the target's devices."""
        return [] if self.drafter is None else [self.drafter] * self.process.drafters

    def calls(self, requests: Requests) -> NDArray[np.int64]:
        """Returns the passes of each request that make its tokens: its prefill and its calls.

        Each depends on its own request alone, so a part of the requests behaves as it does in the whole.
        """
        drawn, key = self.process.drawn, (id(requests), self.seed)
        if key not in drawn:
            draw = rng(self.seed, "speculate").random(len(requests))
            found = np.where(requests.output > 1, 1 + self.process.calls(requests.output - 1, draw), requests.output)
            while len(drawn) >= KEPT:
                del drawn[next(iter(drawn))]
            drawn[key] = requests, found  # the requests beside it, so that their id stays theirs
        return drawn[key][1]


@dataclass(frozen=True)
class Drafters:
    """What drafts for one replica of a target on devices of its own.

    Attributes:
        pool: the draft pool, complete but for its replicas, which are those of the whole plan.
        group: where it runs.
        links: between it and the target.
        count: draft replicas that this target's replica takes: one for each that votes, for each of its lanes.
        room: memory of a draft replica's fullest device.
        cost: of its passes.
    """

    pool: Pool
    group: Group
    links: tuple[Link, ...]
    count: int
    room: Memory
    cost: StepCost

    @property
    def devices(self) -> int:
        """Devices that draft for one replica of the target."""
        return self.count * self.cost.devices


def speculate_table(pool: Pool, path: str, draft: Pool | None = None) -> dict[str, Any] | None:
    """Returns a pool's ``speculate`` table, complete; None where it says nothing.

    Args:
        pool: that speculates.
        path: of it, for errors.
        draft: the plan's draft pool, whose model drafts.

    Raises:
        SpecError: unknown, out of range, or no draft model where one is needed.
    """
    if pool.speculate is None:
        return None
    asked, drafting = drafting_of(pool.speculate, f"{path}.speculate")
    policy = build(family, asked, f"{path}.speculate", DRAFTING, methods=("draft",))
    if type(policy) is family.Off:
        return describe(policy)
    if drafting.pipelined and drafting.model is None:
        raise SpecError(
            f"{path}.speculate.pipelined", "has no draft model to run on devices of its own", value=True,
            limit="a model beside it", hint="Leave it out",
        )  # fmt: skip
    named = drafting.model or (draft.model if draft is not None else None)
    if type(policy) is family.Ngram:
        named = None
    elif named is None:
        raise SpecError(
            f"{path}.speculate.model", "is missing", limit="a draft model with the target's vocabulary",
            hint='Add e.g. model = "llama-3.2-1b", or draft from the context with kind = "ngram"',
        )  # fmt: skip
    defaults = to_builtins(Drafting())
    more: dict[str, Any] = {k: v for k, v in to_builtins(drafting).items() if v is not None and v != defaults.get(k)}
    return describe(policy) | ({} if named is None else {"model": named}) | more


def checked(speculation: Speculation | None) -> float:
    """Returns the tokens a sequence that one iteration checks."""
    return 1.0 if speculation is None else speculation.process.length + 1.0


def speculation_of(
    pool: Pool, target: Model, named: Callable[[str, str], Model], seed: int, apart: bool = False, path: str = "plan"
) -> Speculation | None:
    """Returns what a pool drafts, None where it drafts nothing.

    Args:
        pool: complete.
        target: model that checks.
        named: (name, path for errors) -> model.
        seed: of the scenario.
        apart: drafters have devices of their own.
        path: prefix for errors.

    Raises:
        SpecError: a drafter that is no smaller than its target or has another vocabulary.
        Infeasible: pipeline stages, which drafts do not go with.
    """
    if pool.speculate is None or (isinstance(pool.speculate, dict) and pool.speculate.get("kind") == "off"):
        return None
    asked, drafting = drafting_of(pool.speculate, f"{path}.speculate")
    if pool.role == "prefill":
        raise SpecError(
            f"{path}.speculate", "has nothing to draft in a prefill pool", value=asked, hint="Put it in the decode pool"
        )
    if int(pool.pipeline_parallel or 1) > 1:  # type: ignore[arg-type]
        raise Infeasible(
            "pipeline stages beside drafts", need=float(pool.pipeline_parallel), have=1.0,  # type: ignore[arg-type]
            hint="Use tensor_parallel alone, or speculate = \"off\"",
        )  # fmt: skip
    policy = build(family, asked, f"{path}.speculate", DRAFTING)
    drafter = None
    if drafting.model is not None:
        model = named(drafting.model, f"{path}.speculate.model")
        check_pair(drafting.model, model, target, f"{path}.speculate.model")
        split = Layout(tensor_parallel=int(pool.tensor_parallel or 1))  # type: ignore[arg-type]
        split = Layout() if model.misfit(split) is not None else split
        drafter = None if apart or drafting.pipelined else (model, split, as_engine("auto", model.precision))
    acceptance, note = acceptance_of(drafting.acceptance, f"{path}.speculate.acceptance")
    process = _process(
        json.dumps(describe(policy)), acceptance, drafting.drafter_correlation, drafting.lookups
    )  # fmt: skip
    notes = [note] if note else []
    spread = spread_of(drafting)
    doubted = doubt(process, lambda by, length: _rates(acceptance, length, process.drafters, drafting, by), spread)
    notes.append(
        f"intervals: the acceptance may be off by {spread:.2g} (acceptance_spread): {doubted:.1%} of a token's time"
    )
    if process.drafters > 1:
        notes.append(
            f"{process.drafters} drafters that err alike in {drafting.drafter_correlation:.0%} of positions "
            "(drafter_correlation), otherwise on their own"
        )
    return Speculation(policy, drafting, process, seed, tuple(notes), doubted, drafter)


def draft_pool(pool: Pool, speculation: Speculation, draft: Pool | None, kv: str) -> Pool | None:
    """Returns the pool that drafts for a complete ``pool`` on devices of its own, None where there is none.

    ``pipelined`` is short for one in the same group: a device for each drafter, the pool's engine, clock and cache.

    Args:
        pool: the target.
        speculation: what it drafts.
        draft: the plan's draft pool.
        kv: dtype of the target's cache.
    """
    if speculation.drafting.pipelined:
        return Pool(
            role="draft", on=pool.on, model=speculation.drafting.model, tensor_parallel=1, engine=pool.engine,
            dtype="auto", kv_dtype=kv, clock=pool.clock,
        )  # fmt: skip
    return draft if speculation.drafting.model is not None and draft != ELSEWHERE else None


@lru_cache(maxsize=1024)
def _process(table: str, acceptance: float | tuple[float, ...], correlation: float, lookups: float) -> Process:
    """`process_of` once for all layouts of a search; ``table`` is the policy's, as JSON."""
    policy = build(family, json.loads(table), "plan.speculate")
    return process_of(policy, acceptance, Drafting(drafter_correlation=correlation, lookups=lookups))


def process_of(policy: Any, acceptance: float | tuple[float, ...], drafting: Drafting) -> Process:
    """Returns the process of a policy by asking it, its running counts at what they come to in the long run."""
    first = policy.draft(family.View(1, found=None))

    def rates(length: int) -> Floats:
        return _rates(acceptance, length, first.drafters, drafting)

    def follow(seen: float) -> Callable[[int, int, int], int]:
        right = round(seen * MEMORY)
        return lambda length, proposed, accepted: _length(
            policy.draft(family.View(1, length, proposed, accepted, MEMORY, right)), policy
        )

    seen = float(np.mean(rates(max(1, first.length))))
    for _ in range(20):  # the acceptance it has seen depends on the lengths it chose for it
        found = chain(_length(first, policy), follow(seen), rates, drafters=first.drafters, found=drafting.lookups)
        now = _seen(found, rates)
        if now == seen or found.length < 1e-9:  # where drafting ends for good, nothing more is seen
            break
        seen = now
    return found


def _rates(
    acceptance: float | tuple[float, ...], length: int, drafters: int, drafting: Drafting, by: float = 0.0
) -> Floats:
    """Returns the acceptance per position of what is checked, where that of one drafter is higher ``by`` so much."""
    alone = np.clip(rates_of(acceptance, length) + by, 0.0, 1.0)
    return alone if drafters == 1 else voted(alone, drafters, drafting.drafter_correlation)


def spread_of(drafting: Drafting) -> float:
    """Returns the standard deviation of an acceptance: as stated, else by where the acceptance is from."""
    if drafting.acceptance_spread is not None:
        return drafting.acceptance_spread
    if drafting.acceptance is None or isinstance(drafting.acceptance, str):
        return float(np.std([np.mean(row["rates"]) for row in profiles().values()], ddof=1))
    return JUDGED


def _seen(process: Process, rates: Callable[[int], Floats]) -> float:
    """Returns accepted over judged drafts in the long run; 1 where nothing is drafted."""
    judged = right = 0.0
    for share, length in zip(process.share, process.lengths, strict=True):
        a = rates(length)
        reached = np.concatenate([[1.0], np.cumprod(a)])
        judged += share * float(reached[:-1].sum()) if length else 0.0
        right += share * float(reached[1:].sum()) if length else 0.0
    return round(right / judged, 9) if judged else 1.0


def _length(draft: Any, policy: Any) -> int:
    length = draft.length
    if not isinstance(length, int) or not 0 <= length <= family.LONGEST:
        raise SpecError(
            "plan.speculate.kind", f"drafted {length!r} tokens", value=type(policy).__name__,
            limit=f"a whole number from 0 to {family.LONGEST}",
        )  # fmt: skip
    return length


def acceptance_of(asked: float | str | tuple[float, ...] | None, path: str) -> tuple[float | tuple[float, ...], str]:
    """Returns the acceptance of one drafter, and what to say of where it is from.

    Raises:
        SpecError: no profile has that name.
    """
    if asked is None:
        return ASSUMED, f"drafts are accepted at a rate of {ASSUMED:g}, assumed: set speculate.acceptance"
    if not isinstance(asked, str):
        return asked, ""
    known = profiles()
    if asked not in known:
        raise SpecError(
            path, "is no known profile", value=asked, limit=f"a rate, a list of rates, or one of {', '.join(known)}",
            hint=closest(asked, known),
        )  # fmt: skip
    row = known[asked]
    return tuple(row["rates"]), f"acceptance {asked}: {row['source']} ({row['status']})"


@cache
def profiles() -> dict[str, dict[str, Any]]:
    """Returns the published acceptance profiles by name: rates per position, pair, source, status."""
    return tomllib.loads((resources.files("fleetcast.cost") / "acceptance.toml").read_text(encoding="utf-8"))


def check_pair(name: str | None, drafter: Model, target: Model, path: str) -> None:
    """Refuses a drafter that is no smaller than its target, or has another vocabulary."""
    if drafter.params() >= target.params():
        raise SpecError(
            path, "is no smaller than the model it drafts for", value=name,
            limit=f"fewer than the {target.params() / 1e9:.1f}B parameters of {target.id}",
            hint="Choose a smaller model of the same family",
        )  # fmt: skip
    if drafter.vocab != target.vocab:
        raise SpecError(
            path, f"has another vocabulary than {target.id}: {drafter.vocab:,} tokens", value=name,
            limit=f"{target.vocab:,} tokens", hint="Choose a model of the same family",
        )  # fmt: skip
