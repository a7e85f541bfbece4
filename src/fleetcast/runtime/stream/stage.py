"""One process of a pipeline: reads samples from its input, works on them, hands on those that it lets pass.

Started as ``python -m fleetcast.runtime.stream.stage TABLE`` with a table in JSON (see `Job`); what it saw goes as JSON
to a file. A sample on a pipe is a header of 32 bytes (number, nanoseconds of its making, whether it is interesting, a
spare) and its payload, float32 noise. A node that chooses takes the product with a known pattern, a matched filter: of
dull samples the score is N(0, 1), of interesting ones N(skill, variance). An operation is a byte of such a product.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct("<qqqq")
ENDED, HELLO = -1, -2
"""Numbers of headers that say that no more will come, and of the first, which says that all are awake."""
PATIENCE = 60.0
"""Seconds that a sensor waits for all to be awake."""
BLOCK = 1 << 12
"""Numbers that are multiplied at a time, at most: they stay in the nearest cache, so that an operation costs the same
in samples of any size."""
POOL = 16
"""Payloads that a sensor makes beforehand; their scores are set anew for each sample."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do.

    Attributes:
        size: bytes of a sample's payload, a multiple of 4.
        passes: operations a byte: how often the payload is read.
        samples: that the sensor makes.
        warm: of these, the first that do not count.
        rate: samples a second that it makes, 0 = as many as it can.
        poisson: at random times.
        interesting: share of the samples.
        skill: mean score of interesting ones at the node that chooses; deviation: of these scores.
        threshold: a sample that scores more goes on; None = every sample goes on.
        sensor, last: which end of the pipeline it is.
        seed: of the sensor's draws.
        result: file for what it saw.
        ready: file that the last node writes when the first header has come through.
    """

    size: int
    passes: float
    samples: int
    warm: int
    rate: float = 0.0
    poisson: bool = False
    interesting: float = 0.0
    skill: float = 0.0
    deviation: float = 1.0
    threshold: float | None = None
    sensor: bool = False
    last: bool = False
    seed: int = 0
    result: str = ""
    ready: str = ""


def main() -> int:
    """Runs the job that the command line holds."""
    job = msgspec.json.decode(sys.argv[1], type=Job)
    seen = sense(job) if job.sensor else work(job)
    Path(job.result).write_text(json.dumps(seen), encoding="utf-8")
    return 0


def _await(file: Path) -> None:
    """Waits until a file is there: a sensor that began while others still wake would be late from its first sample."""
    end = time.monotonic() + PATIENCE
    while not file.exists():
        if time.monotonic() > end:
            raise SystemExit("the other processes did not wake")
        time.sleep(1e-3)


def pattern(count: int) -> NDArray[np.float32]:
    """Returns what samples are multiplied with: signs, scaled so that noise scores N(0, 1)."""
    signs = np.where(np.arange(count) % 3 == 0, -1.0, 1.0)
    return (signs / math.sqrt(count)).astype(np.float32)


def sense(job: Job) -> dict[str, Any]:
    """Makes samples and writes them; returns when it began, ended, and its CPU time."""
    draw = np.random.default_rng(job.seed)
    known = pattern(job.size // 4)
    blocks = parts(known)
    pool = [draw.standard_normal(job.size // 4).astype(np.float32) for _ in range(POOL)]
    free = [payload - float(payload @ known) * known for payload in pool]  # they score 0
    first = [float(payload[0]) for payload in free]
    label = draw.random(job.samples) < job.interesting
    score = draw.standard_normal(job.samples)
    score = np.where(label, job.skill + job.deviation * score, score) / float(known[0])
    gaps = np.zeros(job.samples)
    if job.rate > 0:
        gaps = draw.exponential(1 / job.rate, job.samples) if job.poisson else np.full(job.samples, 1 / job.rate)
    labels, scores, due = label.tolist(), score.tolist(), np.cumsum(gaps).tolist()
    views = [payload.view(np.uint8).data for payload in free]
    pieces = [parts(payload) for payload in free]
    send(HEAD.pack(HELLO, 0, 0, 0), views[0])
    _await(Path(job.ready))
    begun = time.monotonic()
    mark = (begun, time.process_time())
    for number in range(job.samples):
        if number == job.warm:
            mark = (time.monotonic(), time.process_time())
        if job.rate > 0 and (left := begun + due[number] - time.monotonic()) > 0:
            time.sleep(left)
        made = time.monotonic_ns()
        place = number % POOL
        payload = free[place]
        payload[0] = first[place] + scores[number]
        touch(pieces[place], blocks, job.passes)
        send(HEAD.pack(number, made, labels[number], 0), views[place])
    # before the end is told: that waits for those who read
    ended = (time.monotonic(), time.process_time())
    send(HEAD.pack(ENDED, 0, 0, 0), views[0])
    count = job.samples - job.warm
    return {
        "count": count,
        "wall": ended[0] - mark[0],
        "cpu": ended[1] - mark[1],
        "interesting": int(sum(labels[job.warm :])),
    }


def work(job: Job) -> dict[str, Any]:
    """Reads samples, chooses, and writes those that pass; returns counts, CPU time and, of the last node, latencies."""
    payload = np.empty(job.size // 4, dtype=np.float32)
    message = bytearray(HEAD.size)
    head, body = memoryview(message), payload.view(np.uint8).data
    pieces, blocks = parts(payload), parts(pattern(job.size // 4))
    late: list[int] = []
    counts = {"count": 0, "passed": 0, "tp": 0, "fp": 0}
    mark: tuple[float, float] | None = None
    at = (time.monotonic(), time.process_time())
    while True:
        fill(head)
        number, made, label, _ = HEAD.unpack(message)
        fill(body)
        if number < 0:
            if not job.last:
                send(bytes(message), body)
            elif number == HELLO:
                Path(job.ready).touch()
            if number == ENDED:
                break
            continue
        if number >= job.warm and mark is None:
            mark = at
        score = touch(pieces, blocks, job.passes)
        passes = job.threshold is None or score > job.threshold
        if passes and not job.last:
            send(bytes(message), body)
        if mark is not None:
            counts["count"] += 1
            if passes:
                counts["passed"] += 1
                counts["tp" if label else "fp"] += 1
                if job.last:
                    late.append(time.monotonic_ns() - made)
        at = (time.monotonic(), time.process_time())
    mark = mark or at
    return counts | {"wall": at[0] - mark[0], "cpu": at[1] - mark[1], "late": late}


def parts(column: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Returns views of a column: equal pieces of at most `BLOCK` numbers."""
    return np.array_split(column, -(-len(column) // BLOCK))


def touch(pieces: list[NDArray[np.float32]], blocks: list[NDArray[np.float32]], passes: float) -> float:
    """Multiplies a payload with the pattern ``passes`` times, the last time in part; returns the product.

    Args:
        pieces: the payload, as `parts` cuts it.
        blocks: the pattern, likewise.
        passes: operations a byte.
    """
    whole = int(passes)
    found = 0.0
    for piece, block in zip(pieces, blocks, strict=True):
        if whole:
            found += float(piece @ block)
        for _ in range(whole - 1):
            _ = piece @ block
        if rest := int((passes - whole) * len(piece)):
            _ = piece[:rest] @ block[:rest]
    return found


def fill(view: memoryview) -> None:
    """Reads until ``view`` is full; a pipe that ends before stops the process."""
    done = 0
    while done < len(view):
        got = os.readv(0, [view[done:]])
        if got == 0:
            raise SystemExit("the pipe ended within a sample")
        done += got


def send(head: bytes, body: memoryview) -> None:
    """Writes a header and a payload, however many writes it takes."""
    sent = os.writev(1, [head, body])
    while sent < len(head):
        sent += os.write(1, head[sent:])
    sent -= len(head)
    while sent < len(body):
        sent += os.write(1, body[sent:])


if __name__ == "__main__":
    sys.exit(main())
