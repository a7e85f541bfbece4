"""The serving world one iteration at a time, asking the policy objects themselves.

The reference that the compiled loop is held to, and the engine for policies that cannot say themselves as a `Rule`.
Same rules, written plainly: arrivals first, then evictions, then admission, then time passes. Nothing is cached and
nothing is summed in closed form. Slower by the number of iterations; equal in every count, and in every time to
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import PolicyError
from fleetcast.policy import batch as batches
from fleetcast.sim.serving.lanes import Lane, Request, at
from fleetcast.sim.serving.prefixes import PrefixCache
from fleetcast.sim.serving.setting import Server

Floats = NDArray[np.float64]


class Replica:
    """One replica, advanced an iteration at a time."""

    def __init__(self, server: Server, passes: Sequence[int] = (), caches: Sequence[PrefixCache] = ()) -> None:
        """Starts idle.

        Args:
            server: what it runs and costs.
            passes: of each request instead of its output tokens, where drafts are checked.
            caches: of prefixes, one per lane.
        """
        self.server, self.passes = server, passes
        self.table, self.c = server.cost.tables, server.cost.scalars
        self.lanes = [Lane() for _ in range(self.c["stages"] * self.c["ranks"])]
        for lane, cache in zip(self.lanes, caches, strict=False):
            lane.cache = cache
        self.rule = server.batch.rule() if hasattr(server.batch, "rule") else None
        self.now, self.end = 0.0, float("inf")
        self.admissions = self.preemptions = self.iterations = self.completed = self.peak = 0
        self.busy = 0.0
        self.pending = False
        self.before = 0.0
        self.handed: list[Request] = []
        self.hist = np.zeros_like(self.table["dense"])
        self.hist_rank, self.hist_head = self.hist.copy(), self.hist.copy()
        self.sums = [0.0] * 9
        self.log: list[tuple[float, float, int, int, int, int]] = []

    @property
    def load(self) -> int:
        """Requests here, waiting or running."""
        return sum(lane.load for lane in self.lanes)

    @property
    def awaiting(self) -> int:
        """Prompt tokens of the requests here that have no token yet."""
        return sum(r.prompt for lane in self.lanes for r in lane.waiting + lane.partial + lane.resumed if not r.emitted)

    def blocks(self, tokens: int) -> int:
        """Returns the KV blocks of ``tokens``."""
        return -(-tokens // int(self.c["block"]))

    def reach(self, r: Request, emitted: int | None = None) -> int:
        """Returns what the next decode step attends to, made so far and checked with it, in parts of a token."""
        unit, grown = self.c["unit"], (r.emitted if emitted is None else emitted) - 1
        return int(unit * (r.prompt + 1 + self.c["ahead"]) + self.c["growth"] * grown)

    def pages(self, r: Request, emitted: int | None = None) -> int:
        """Returns the KV blocks of that."""
        return -(-self.reach(r, emitted) // int(self.c["block"] * self.c["unit"]))

    def need(self, r: Request) -> int:
        """Returns the tokens to prefill before a request decodes."""
        if r.emitted == 0:
            return r.prompt
        return int(r.prompt + 1 - (-self.c["growth"] * (r.emitted - 1) // self.c["unit"]))

    def verified(self, n: int) -> int:
        """Returns the tokens that a pass of ``n`` decoding sequences processes."""
        return int(-(-n * self.c["width"] // self.c["unit"]))

    def claim(self, r: Request) -> int:
        """Returns the KV blocks a request holds: those of its whole length where the rule reserves."""
        if self.rule is not None and self.rule.reserve:
            return self.pages(r, 1 if r.leaves else r.output)
        return self.pages(r) if r.emitted else self.blocks(r.prompt)

    def used(self, lane: Lane) -> int:
        """Returns the KV blocks a lane's requests hold in the coming iteration, those they share counted once."""
        shared = lane.cache.shared if lane.cache is not None else 0
        return sum(map(self.claim, lane.running + lane.partial)) - shared

    def push(self, r: Request, time: float) -> None:
        """A request comes: it joins the lane that holds the fewest; with its cache it stands before all prompts."""
        lane = min(self.lanes, key=lambda x: x.load)
        r.joined = time
        r.output = self.passes[r.id] if len(self.passes) else r.output
        if r.carried:
            r.swapped = True
            lane.resumed.append(r)
        else:
            lane.waiting.append(r)
            lane.waiting.sort(key=lambda x: (x.key, x.id))
        if self.end == float("inf"):
            self.now = self.end = self.before = time
            self.pending = True

    def commit(self) -> list[Request]:
        """Ends the iteration under way and begins the next; returns what finished."""
        done = [] if self.pending else self._settle()
        self.pending = False
        self._begin()
        return done

    def fail(self) -> list[tuple[Request, int]]:
        """Everything here is lost, the iteration under way included; returns each request and the tokens it had made.

        The work of that iteration has been counted as it began, so its tokens count as made, though none came out.
        """
        lost: dict[int, tuple[Request, int]] = {}
        for lane in self.lanes:
            for r in lane.waiting + lane.resumed + lane.partial + lane.running:
                lost[r.id] = r, r.emitted + (r in lane.running and lane.decodes and not self.pending)
            for r, q in lane.chosen:
                lost[r.id] = r, r.emitted + (r.prefilled + q >= self.need(r))
        for r, _ in lost.values():
            r.emitted = r.prefilled = 0
            r.admitted, r.swapped = -1, False
        for lane in self.lanes:
            if lane.cache is not None:
                lane.cache.clear()
        self.lanes = [Lane(cache=lane.cache) for lane in self.lanes]
        self.end, self.pending = float("inf"), False
        return [lost[number] for number in sorted(lost)]

    def _settle(self) -> list[Request]:
        self.before, self.now = self.now, self.end
        done: list[Request] = []
        for lane in self.lanes:
            self._trim(lane)
            if lane.decodes:
                for r in lane.running:
                    r.emitted += 1
            finished = [r for r in lane.running if lane.decodes and r.emitted >= r.output]
            lane.running = [r for r in lane.running if r not in finished]
            for r, q in lane.chosen:
                r.prefilled += q
                if r.prefilled < self.need(r):
                    continue
                lane.partial.remove(r)
                if lane.cache is not None:
                    lane.cache.store(r.id, self.need(r), self.now)
                r.first = self.now if r.first < 0 else r.first
                r.emitted += 1
                if r.leaves:
                    r.leaves = False
                    self.handed.append(r)
                    if lane.cache is not None:
                        lane.cache.release(r.id, r.prompt, self.now)
                    continue
                (finished if r.emitted >= r.output else lane.running).append(r)
            for r in finished:
                r.finish = self.now
                if lane.cache is not None:
                    lane.cache.release(r.id, self.need(r) - 1, self.now)
            done += finished
        self.completed += len(done)
        return done

    def _begin(self) -> None:
        for lane in self.lanes:
            self._compose(lane)
        if not any((lane.decodes and lane.running) or lane.chosen for lane in self.lanes):
            self.end = float("inf")
            return
        duration = self._duration()
        self.busy += duration
        self.iterations += 1
        decoding = sum(len(lane.running) for lane in self.lanes if lane.decodes)
        entering = sum(len(lane.chosen) for lane in self.lanes)
        what = 0 if entering == 0 else (1 if decoding == 0 else 2)
        self.log.append((self.now, duration, what, 1, decoding + entering, sum(map(self.used, self.lanes))))
        self.end = self.now + duration

    def _compose(self, lane: Lane) -> None:
        lane.chosen, lane.extra, lane.fetch, lane.decodes = [], 0.0, 0.0, False
        free = self.c["capacity"] - self.c["watermark"]
        mixed = self.rule.mixed if self.rule is not None else bool(getattr(self.server.batch, "mixed", True))
        evicted = self._make_room(lane) if mixed and lane.running else False
        self._trim(lane)
        if not evicted:
            self._swap_in(lane, free)
        queue = [] if evicted else list(takewhile(lambda r: not r.swapped, lane.resumed + lane.waiting))
        if self.c["lag"] and (lane.running or lane.partial):
            queue = self._known(queue, lane)
        room = free - self.used(lane)
        if not lane.running and not lane.partial:
            room = max(room, self.claim(queue[0]) if queue else 0)
        view = batches.View(
            decoding=len(lane.running),
            partial=[batches.Item(r.id, self.need(r) - r.prefilled, 0) for r in lane.partial],
            waiting=self._items(lane, queue),
            free=room, drafted=self.verified(len(lane.running)) - len(lane.running),
        )  # fmt: skip
        decision = self.server.batch.compose(view)
        self._apply(lane, decision, queue)
        if not mixed and not lane.chosen and lane.running:
            self._make_room(lane)
        lane.decodes = decision.decode and bool(lane.running)
        self.peak = max(self.peak, len(lane.running) + len(lane.partial))

    def _items(self, lane: Lane, queue: list[Request]) -> list[batches.Item]:
        """Returns the waiting requests, with what cached prefixes leave to do if those before each enter with it."""
        if lane.cache is None:
            return [batches.Item(r.id, self.need(r), self.claim(r)) for r in queue]
        ahead: dict[int, int] = {}
        found = [lane.cache.find(r.id, self.need(r), ahead) for r in queue]
        block = int(self.c["block"])
        return [
            batches.Item(r.id, self.need(r) - f.blocks * block, self.claim(r) - f.busy)
            for r, f in zip(queue, found, strict=True)
        ]

    def _trim(self, lane: Lane) -> None:
        """Gives up cached prefixes that no longer fit beside what is used."""
        if lane.cache is not None:
            lane.cache.trim(int(self.c["capacity"]) - self.used(lane))

    def _known(self, queue: list[Request], lane: Lane) -> list[Request]:
        """Returns the queue up to the first request that came after this iteration had been decided."""
        fresh = [i for i, r in enumerate(queue) if r.joined > self.before and r not in lane.resumed]
        return queue[: fresh[0]] if fresh else queue

    def _apply(self, lane: Lane, decision: batches.Batch, queue: list[Request]) -> None:
        by_id = {r.id: r for r in lane.partial + queue}
        for number, tokens in decision.prefill:
            r = by_id.get(number)
            if r is not None and r not in lane.partial and lane.cache is not None:
                hit = lane.cache.find(r.id, self.need(r))
                lane.cache.admit(r.id, hit, self.need(r))
                lane.fetch += hit.seconds
                r.prefilled = hit.blocks * int(self.c["block"])
            if r is None or not 0 < tokens <= self.need(r) - r.prefilled:
                raise PolicyError(
                    f"{type(self.server.batch).__name__}.compose chose {tokens} tokens of request {number}, "
                    "which is not waiting with so many"
                )
            if r not in lane.partial:
                (lane.resumed if r in lane.resumed else lane.waiting).remove(r)
                lane.partial.append(r)
                self.admissions += 1
                r.admitted = self.admissions
            lane.chosen.append((r, tokens))
        if self.used(lane) > self.c["capacity"] and len(lane.running) + len(lane.partial) > 1 and decision.prefill:
            raise PolicyError(f"{type(self.server.batch).__name__}.compose admitted more than the KV cache holds")

    def _swap_in(self, lane: Lane, free: int) -> None:
        """Brings swapped requests back while they fit; they decode at once."""
        limit = self.rule.max_batch if self.rule is not None else 10**9
        while lane.resumed and lane.resumed[0].swapped:
            r = lane.resumed[0]
            size = self.claim(r)
            alone = not lane.running and not lane.partial
            if len(lane.running) + len(lane.partial) >= limit or (not alone and self.used(lane) + size > free):
                return
            if r.carried and self.c["lag"] and not alone and r.joined > self.before:
                return
            lane.resumed.pop(0)
            r.swapped = False
            self.admissions += 1
            r.admitted = self.admissions
            lane.extra += 0.0 if r.carried else self.c["swap_block"] * size
            r.carried = False
            lane.running.append(r)

    def _make_room(self, lane: Lane) -> bool:
        """Evicts by the memory policy until the next decode step fits; says whether it had to."""
        before = self.preemptions
        policy = self.server.memory
        while self.used(lane) > self.c["capacity"] and len(lane.running) + len(lane.partial) > 1:
            if lane.partial:
                r = lane.partial.pop()
                computed = r.prefilled
            else:
                r = lane.running.pop(policy.victim([x.admitted for x in lane.running]))
                computed = self.need(r) - 1
                if policy.swap:
                    lane.extra += self.c["swap_block"] * self.pages(r)
                    r.swapped = True
            if lane.cache is not None:
                lane.cache.release(r.id, computed, self.now)
            if not r.swapped:
                r.prefilled = 0
            lane.resumed.insert(0, r)
            self.preemptions += 1
        return self.preemptions > before

    def _duration(self) -> float:
        """Returns how long the composed iteration takes, by the definition in `cost.step`."""
        c, table, p, ranks = self.c, self.table, self.c["stages"], self.c["ranks"]
        latencies, periods, tokens_all, seqs, entering = [], 0.0, 0, 0, 0
        swaps = np.array([lane.extra for lane in self.lanes]).reshape(p, ranks).sum(axis=0)
        fetches = np.array([lane.fetch for lane in self.lanes]).reshape(p, ranks).sum(axis=0)
        for j in range(p):
            group = self.lanes[j * ranks : (j + 1) * ranks]
            sizes = [self._sizes(lane) for lane in group]
            total, most = sum(t for t, _, _ in sizes), max(t for t, _, _ in sizes)
            seqs += sum(n for _, _, n in sizes)
            entering += sum(len(lane.chosen) for lane in group)
            tokens_all += total
            if total == 0:
                continue
            work = at(table["dense"], most) + at(table["experts"], total) + max(map(self._attention, group))
            head = at(table["head"], max(e for _, e, _ in sizes))
            latencies.append(work + head + (p - 1) * at(table["hop"], most))
            periods += work * c["stage_share"] + head
        gpu = max(max(latencies), periods if p > 1 else 0.0)
        if (entering and not c["graph_prefill"]) or tokens_all // (ranks * p) > c["graph_tokens"]:
            gpu = max(gpu, c["eager"])
        # cache comes up layer by layer beside the work: the first layer's is waited for, and what takes longer
        swaps += np.where(fetches > 0, c["layer_share"] * fetches + np.maximum(fetches - gpu, 0.0), 0.0)
        host = c["host_step"] + c["host_seq"] * seqs / ranks + c["host_token"] * tokens_all / ranks
        # a rank's devices hold the cache of all its pipeline lanes behind one host link; ranks have links of their own
        return float((max(gpu, host) if c["overlap"] else gpu + host) + swaps.max())

    def _sizes(self, lane: Lane) -> tuple[int, int, int]:
        """Returns tokens, tokens that come out, and sequences of a lane's iteration."""
        n = len(lane.running) if lane.decodes else 0
        checked = self.verified(n)
        ready = sum(r.prefilled + q >= self.need(r) for r, q in lane.chosen)
        return checked + sum(q for _, q in lane.chosen), checked + ready, n + len(lane.chosen)

    def _attention(self, lane: Lane) -> float:
        c, table, seconds = self.c, self.table, 0.0
        full, share, window = c["full_share"], c["window_share"], c["window"]
        if lane.decodes and lane.running:
            n = len(lane.running)
            contexts = [self.reach(r) / c["unit"] for r in lane.running]
            reach = sum(full * x + share * min(x, window) for x in contexts)
            cut = "cut_" if self._sizes(lane)[0] >= c["cut"] else ""
            affine = float(table[f"{cut}base"][n]) + float(table[f"{cut}slope"][n]) * reach
            seconds = max(float(table[f"{cut}floor"][n]), affine)
        for r, q in lane.chosen:
            done = r.prefilled
            pairs = q * done + q * (q + 1) / 2
            reach = float(done + q)
            if share > 0 and done + q > window:
                seen = sum(min(done + i, window) for i in range(1, q + 1))
                pairs = full * pairs + share * seen
                reach = full * reach + share * (q + min(done, window))
            seconds += c["pre_base"] + c["pre_pair"] * pairs + c["pre_query"] * q + c["pre_context"] * reach
        return seconds

    def report(self) -> dict[str, Any]:
        """Returns what the compiled loop's report holds, times by term left at zero."""
        return {
            "iterations": self.iterations, "busy": self.busy, "completed": self.completed,
            "preemptions": self.preemptions, "peak_running": self.peak, "limited": True, "truncated": True,
            "log": self.log, "hist": self.hist, "hist_rank": self.hist_rank, "hist_head": self.hist_head,
            "sums": self.sums,
        }  # fmt: skip
