"""Replaying traffic on an engine in this very process: arrivals are submitted between iterations, on the real clock.

Nothing stands between the requests and the engine: no network, no server, no second thread that would take a core. A
request that comes while an iteration runs is submitted after it, and timed from when it was due.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import PolicyError
from fleetcast.base.record import Record
from fleetcast.runtime.llm.engine import Engine
from fleetcast.runtime.llm.paging import BLOCK
from fleetcast.runtime.llm.requests import Logits, Model, Piece, Request
from fleetcast.runtime.llm.stopwatch import Stopwatch, unwatch, watch
from fleetcast.runtime.replay import MOST_WARM, WARM, Replay, account, check, settled, sped
from fleetcast.runtime.replay.prompts import Prompts, unlike
from fleetcast.runtime.replay.stream import Answer
from fleetcast.scenario.objective import Slo
from fleetcast.scenario.workload.requests import Requests

STEPS = (
    "start_s", "seconds", "model_s", "decodes", "prompts", "prompt_tokens", "emitted", "context", "pairs",
    "prompt_context",
)  # fmt: skip
"""Columns of an iteration: when it began, how long it took, submissions and deliveries included, and how much of that
the forward pass; then what it processed, as `cost.iteration.Passes` has it."""
_NAP = 0.0005
"""s before a due time at which sleeping ends and waiting begins: systems wake late."""


@dataclass
class Watch:
    """A model that notes what each forward pass was and how long it took; all else is the model's own."""

    model: Model
    clock: Callable[[], float]
    stopwatch: Stopwatch | None = None
    rows: list[tuple[float, ...]] = field(default_factory=list)

    def forward(self, pieces: Sequence[Piece]) -> Logits:
        """Returns the logits of the model."""
        kind = "decode" if all(len(p.tokens) == 1 for p in pieces) else "prompt"
        if self.stopwatch is not None:
            self.stopwatch.begin(kind)
        begun = self.clock()
        found = self.model.forward(pieces)
        took = self.clock() - begun
        if self.stopwatch is not None:
            self.stopwatch.end(kind, took)
        self.rows.append((begun, took, *shape_of(pieces)))
        return found

    def __getattr__(self, name: str) -> Any:
        """Returns what the model has."""
        return getattr(self.model, name)


def shape_of(pieces: Sequence[Piece], steps: int | None = None) -> tuple[int, int, int, int, int, int, int]:
    """Returns what the time of a pass depends on: `STEPS` from "decodes" on.

    Args:
        pieces: of the pass.
        steps: how many of the first are decode steps; None = all of one token, as attention runs them, the odd last
            token of a prompt among them.
    """
    decodes = prompts = tokens = emitted = context = pairs = read = 0
    for i, p in enumerate(pieces):
        n = len(p.tokens)
        emitted += p.emit
        # a draft that is checked emits after each of its tokens
        if p.start and (n == 1 or p.emit == n) if steps is None else i < steps:
            decodes, context = decodes + 1, context + p.start + n
        else:
            prompts, tokens, read = prompts + 1, tokens + n, read + p.start + n
            pairs += n * p.start + n * (n + 1) // 2
    return decodes, prompts, tokens, emitted, context, pairs, read


def replay_here(
    requests: Requests, engine: Engine, *, slo: Slo, plan: Mapping[str, Any], model: str, speed: float = 1.0,
    warmup: int = 3, seed: int = 0, known: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None, sleep: Callable[[float], None] = time.sleep,
) -> Replay:  # fmt: skip
    """Runs the requests on an engine and measures them; Ctrl-C ends it with what was measured until then.

    Args:
        requests: the traffic: by the clock, or users of a closed loop. Each answer has the length it says.
        engine: idle.
        slo: the limits.
        plan: the complete plan that the engine runs.
        model: its name, for the outcome.
        speed: 2 = arrivals come twice as fast, and pauses are half as long.
        warmup: requests before those that count.
        seed: of prompts and pauses.
        known: further facts of the run for its provenance.
        progress: called with (requests settled, requests).
        sleep: waits for s; a test brings its own, with the engine's clock.

    Raises:
        SpecError: a value is out of range, or a request is longer than the model's context.
        Infeasible: a request does not fit the cache.
        PolicyError: the plan's policies run nothing though requests are waiting.
        Unsupported: no request was answered.
    """
    check("warmup", warmup, 0 <= warmup <= MOST_WARM, f"0 to {MOST_WARM}")
    requests = sped(requests, speed)
    run = _Run(requests, engine, Prompts(requests, seed), seed, progress, sleep)
    interrupted = False
    try:
        run.warm(warmup)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        run.go()
    except KeyboardInterrupt:
        if not any(a.over for a in run.answers):
            raise  # nothing was measured
        interrupted = True
    finally:
        engine.model = run.watch.model
        if run.watch.stopwatch is not None:
            unwatch(engine.model)
    answers = settled(requests, run.answers)
    provenance = {
        "seed": seed, "requests": requests.digest(), "url": "", "model": model, "started": started, "speed": speed,
        "warmup": warmup, "prompts": "tokens", "interrupted": interrupted, "lag": None,
        "iterations": len(engine.iterations),
    } | dict(known or {})  # fmt: skip
    found = account.outcome(requests, answers, slo, plan, model, run.prompts, provenance)
    return Replay(
        run.accounted(found), tuple(account.row(a, requests) for a in answers), interrupted, tuple(run.steps())
    )


class _Run:
    """One replay under way."""

    def __init__(
        self, requests: Requests, engine: Engine, prompts: Prompts, seed: int,
        progress: Callable[[int, int], None] | None, sleep: Callable[[float], None],
    ) -> None:  # fmt: skip
        self.requests, self.engine, self.prompts, self.seed = requests, engine, prompts, seed
        self.answers: list[Answer] = []
        self.watch = Watch(engine.model, engine.clock, watch(engine.model, engine.clock))
        engine.model = self.watch
        self._progress, self._sleep, self._done, self._start = progress, sleep, 0, 0.0
        self._preempted, self._drafted = engine.preemptions, 0.0
        self._thought = requests.thought(seed).tolist()
        self._coming = iter(range(min(requests.concurrency, len(requests)), len(requests)))
        self._due: list[tuple[float, int, int]] = []  # when, which request, from which iteration on
        self._laps: list[tuple[float, float]] = []

    def warm(self, count: int) -> None:
        """Runs requests that do not count: the first alone, the others together, as the batch policy admits them."""
        for i in range(count):
            k = i % len(self.requests)
            tokens = self._ids(unlike(self.seed, i, int(self.requests.prompt[k])))
            self.engine.submit(tokens, min(WARM, int(self.requests.output[k])))
            if i == 0:
                self.engine.run()
        self.engine.run()

    def go(self) -> None:
        """Runs everything that counts."""
        q, engine = self.requests, self.engine
        engine.iterations.clear()
        self.watch.rows.clear()
        if self.watch.stopwatch is not None:
            self.watch.stopwatch.reset()
        self._drafted = engine.speculation.seconds if engine.speculation is not None else 0.0
        self._start = engine.clock()
        first = min(q.concurrency, len(q)) if q.concurrency else len(q)
        begin = 0.0 if q.concurrency else float(q.arrival[0])
        self._due = [(float(t) - begin, i, 0) for i, t in enumerate(q.starts()[:first].tolist())]
        heapq.heapify(self._due)
        while self._due or engine.load:
            begun = engine.clock()
            now = begun - self._start
            while self._due and self._due[0][0] <= now and (not engine.load or self._due[0][2] <= len(self._laps)):
                due, i, _ = heapq.heappop(self._due)
                self._submit(due, i)
            if not engine.load:
                self._wait(self._due[0][0] - now)
            elif engine.step() is None:
                if not self._due:
                    kind = type(engine.schedule.batch).__name__
                    raise PolicyError(f"{kind}.compose runs nothing, with {engine.load} requests waiting")
                self._wait(self._due[0][0] - now)
            else:
                self._laps.append((begun, engine.clock()))

    def _wait(self, seconds: float) -> None:
        if seconds > _NAP:
            self._sleep(seconds - _NAP)

    def _submit(self, due: float, i: int) -> None:
        answer = Answer(i, due, sent=due)
        self.answers.append(answer)
        request: Request

        def heard(token: Any) -> None:
            if not token.finish:
                return
            answer.first, answer.last = request.first - self._start, request.end - self._start
            answer.output = answer.chunks = request.emitted
            answer.prompt, answer.ids, answer.over = request.prompt, request.output, True
            self.prompts.hear(i, answer.ids)
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, len(self.requests))
            if self.requests.concurrency and (after := next(self._coming, None)) is not None:
                # who answers at once does so while the next iteration runs, as in a simulation
                held = 0 if self._thought[after] else len(self._laps) + 2
                heapq.heappush(self._due, (answer.last + self._thought[after], after, held))

        request = self.engine.submit(self._ids(self.prompts.tokens(i)), int(self.requests.output[i]), on_token=heard)

    def _ids(self, tokens: NDArray[np.int64]) -> list[int]:
        return [int(token) for token in (tokens % self.engine.model.vocab).tolist()]

    def steps(self) -> list[tuple[float, ...]]:
        """Returns what each iteration was, in `STEPS`; times from the start on."""
        found, at, rows = [], 0, self.watch.rows
        for begun, ended in self._laps:
            passes = []
            while at < len(rows) and rows[at][0] < ended:
                passes.append(rows[at])
                at += 1
            seconds = sum(row[1] for row in passes)
            work = (sum(column) for column in zip(*(row[2:] for row in passes), strict=True))
            found.append((begun - self._start, ended - begun, seconds, *work))
        return found

    def _sampling(self) -> float:
        """Returns s from the end of an iteration's last pass to its tokens: choosing them out of the logits."""
        ends = np.array([begun + took for begun, took, *_ in self.watch.rows])
        begins = np.array([begun for begun, *_ in self.watch.rows])
        total = 0.0
        for it in self.engine.iterations:
            last = int(np.searchsorted(begins, it.time + it.duration)) - 1
            if last >= 0 and begins[last] >= it.time:
                total += it.time + it.duration - float(ends[last])
        return total

    def accounted(self, outcome: Any) -> Any:
        """Returns the outcome with the engine's own account: where its time went, its record, evictions."""
        steps = np.array(self.steps(), dtype=np.float64).reshape(-1, len(STEPS))
        busy, model = float(steps[:, 1].sum()), float(steps[:, 2].sum())
        span = float(outcome.metrics["makespan"])
        terms, sampling = {"model": model}, 0.0
        if self.watch.stopwatch is not None:
            terms, sampling = self.watch.stopwatch.terms(), self._sampling()
            terms["head"] = terms.get("head", 0.0) + sampling  # a forecast has both in one table
        drafted = 0.0
        if self.engine.speculation is not None:
            drafted = terms["draft"] = self.engine.speculation.seconds - self._drafted
        log: Record = self.engine.record()
        return replace(
            outcome,
            metrics=outcome.metrics | {"preemptions": self.engine.preemptions - self._preempted},
            breakdown={"time": terms | {"host": busy - model - sampling - drafted, "idle": max(0.0, span - busy)}},
            resources=({
                "name": "replica 0", "devices": 1, "busy": busy / span, "requests": len(outcome.requests.arrival),
                "peak_running": int((steps[:, 3] + steps[:, 4]).max(initial=0)),
                "kv_tokens": self.engine.blocks.count * BLOCK,
            },),
            record=replace(log, time=log.time - self._start),
        )  # fmt: skip
