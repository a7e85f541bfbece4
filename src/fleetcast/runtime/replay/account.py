"""From what became of each request to an Outcome: the same metrics as a simulation's, measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleetcast.base.errors import Unsupported
from fleetcast.base.show import show
from fleetcast.runtime.replay.prompts import Prompts
from fleetcast.runtime.replay.stream import KINDS, STOPPED, Answer
from fleetcast.scenario.latencies import goodput, latency
from fleetcast.scenario.objective import Slo, judge
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.outcome import Requests as Served
from fleetcast.scenario.workload.requests import Requests

COLUMNS = (
    "request", "due_s", "sent_s", "ttft_s", "e2e_s", "prompt_tokens", "output_tokens", "events", "status", "detail",
)  # fmt: skip
LATE = 0.1
"""Share of the mean TTFT above which the sender's own lateness, in sending or in reading, is worth a warning."""


def row(answer: Answer, requests: Requests) -> tuple[Any, ...]:
    """Returns a request's `COLUMNS`; None where there is no such value."""
    times = (answer.due, answer.sent, answer.first - answer.sent, answer.last - answer.sent)
    prompt = answer.prompt or int(requests.prompt[answer.request])
    shown = (None if t != t else round(t, 6) for t in times)
    return (answer.request, *shown, prompt, answer.output, answer.chunks, answer.status, answer.detail)


def outcome(
    requests: Requests, answers: Sequence[Answer], slo: Slo, plan: Mapping[str, Any], asked: str, prompts: Prompts,
    provenance: Mapping[str, Any],
) -> Outcome:  # fmt: skip
    """Returns the metrics of the requests that were answered, and how many were not and why.

    Args:
        requests: the traffic that was to be sent.
        answers: one per request of it.
        slo: the limits.
        plan: what the scenario says about the plan; nothing here checks that the server runs it.
        asked: who answered, for errors.
        prompts: what was sent.
        provenance: where it comes from, and ``lag``, s that the sender was late on average; None = nothing was sent.

    Raises:
        Unsupported: no request was answered.
    """
    good = sorted((a for a in answers if a.ok), key=lambda a: (a.sent, a.request))
    failed = Counter(a.status for a in answers if not a.ok and a.status not in STOPPED)
    stopped = sum(a.status in STOPPED for a in answers)
    if not good:
        why = ", ".join(f"{n} {status}" for status, n in Counter(a.status for a in answers).most_common())
        first = next((a.detail for a in answers if a.detail), "")
        raise Unsupported(
            f"{asked}: none of {len(answers)} requests was answered ({why})",
            f"The first said: {first}" if first else "See the server's log",
        )
    sent = np.array([a.sent for a in good])
    served = Served(
        arrival=sent, ttft=np.array([a.first for a in good]) - sent, e2e=np.array([a.last for a in good]) - sent,
        output=np.array([a.output for a in good], dtype=np.int64), resource=np.zeros(len(good), dtype=np.int32),
        began=np.zeros(len(good), dtype=np.int32),
    )  # fmt: skip
    span = float((served.arrival + served.e2e).max() - served.arrival.min())
    tokens = int(served.output.sum())
    metrics: dict[str, Any] = latency(served) | {
        "throughput": tokens / span, "goodput": goodput(served, slo) / span, "makespan": span, "requests": len(good),
        "prompt_tokens": sum(a.prompt or int(requests.prompt[a.request]) for a in good), "output_tokens": tokens,
        "failed": sum(failed.values()),
    }  # fmt: skip
    known = [a for a in good if a.cached is not None and a.prompt]
    if known:
        metrics["cached"] = sum(a.cached or 0 for a in known) / sum(a.prompt or 0 for a in known)
    verdict = judge(metrics, slo)
    if failed and verdict["checks"]:  # a request that was not answered was within no limit
        verdict["checks"].append({"metric": "failed", "limit": 0.0, "value": float(metrics["failed"]), "met": False})
        verdict["met"] = False
    return Outcome(
        source="measured", metrics=metrics, intervals={}, slo=verdict, plan=plan,
        notes=(*requests.notes, *_notes(requests, good, failed, stopped, prompts, provenance["lag"])),
        provenance=dict(provenance) | {"failed": dict(failed), "stopped": stopped}, requests=served,
    )  # fmt: skip


def _notes(
    requests: Requests,
    good: Sequence[Answer],
    failed: Mapping[str, int],
    stopped: int,
    prompts: Prompts,
    lag: float | None,
) -> list[str]:
    """What a reader of the figures must know, in sentences."""
    notes = []
    for status, n in failed.items():
        notes.append(
            f"{n} of {len(requests)} requests failed: {status}, {KINDS.get(status, 'the server refused them')}"
        )
    if stopped:
        notes.append(f"{stopped} of {len(requests)} requests were under way or not yet sent when the run was stopped")
    notes += [_lateness(good, lag)] if lag is not None else []
    told = sum(a.output != a.chunks for a in good)
    if told:
        notes.append(
            f"{told} answers came with several tokens in an event, or none: tokens are those the server counts"
        )
    asked = np.array([requests.output[a.request] for a in good])
    short = np.array([a.output for a in good]) < asked
    if short.any():
        notes.append(
            f"{int(short.sum())} answers were shorter than asked for ({sum(a.output for a in good):,} of "
            f"{int(asked.sum()):,} tokens): where the server knows it, --ignore-eos makes it go on"
        )
    wrong = [a for a in good if a.prompt and a.prompt != requests.prompt[a.request]]
    if wrong:
        got, wanted = sum(a.prompt or 0 for a in wrong), sum(int(requests.prompt[a.request]) for a in wrong)
        notes.append(f"the server counts {got:,} tokens in {len(wrong)} prompts that should have {wanted:,}")
    if prompts.of_answers and not any(a.ids for a in good):
        notes.append(
            f"{prompts.of_answers:,} prompt tokens should repeat an answer, and the server does not say what tokens it "
            "answered: they are made up, and no prefix cache finds them; --return-token-ids asks for them"
        )
    return notes


def _lateness(good: Sequence[Answer], lag: float) -> str:
    """How late the sender was."""
    late = np.array([a.sent - a.due for a in good])
    ttft = float(np.mean([a.first - a.sent for a in good]))
    text = f"requests left {show(float(late.mean()), 's')} after their time on average, at most {show(late.max(), 's')}"
    text += f"; answers were read {show(lag, 's')} late on average"
    slow = max(float(late.mean()), lag) > LATE * ttft
    return text + (": the sender was too slow for this load, and is a part of what it measured" if slow else "")
