"""A scheduler for Kubernetes that runs a policy of pods: it watches, asks the policy, binds and evicts.

All that must outlive it is in the API server: a scheduler that is killed finds there what it had assumed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final

from fleetcast.base.errors import FleetcastError
from fleetcast.policy.place.pods import Placement, Policy
from fleetcast.runtime.kubernetes.calls import Api, Gone, Refused, Unreachable
from fleetcast.runtime.kubernetes.clearing import Clearing
from fleetcast.runtime.kubernetes.cluster import KINDS, Cluster, asks
from fleetcast.runtime.kubernetes.judging import Verdict, judge, shortage
from fleetcast.runtime.kubernetes.lease import Lease
from fleetcast.runtime.kubernetes.notices import Notices
from fleetcast.runtime.kubernetes.reading import Asked
from fleetcast.runtime.kubernetes.room import Room
from fleetcast.runtime.kubernetes.seeing import Sight
from fleetcast.runtime.kubernetes.watching import Watches

__all__ = ["Counts", "Scheduler"]

_AGAIN: Final = 30.0
"""s after which pods that found no node are tried again, though nothing was heard that would help them."""
_KEPT: Final = 100_000
"""Bindings whose node and seconds are remembered for the outcome."""
_FIRST, _LONGEST = 0.05, 10.0
"""s before a pod whose binding was refused is tried again: the first time, and at most; it doubles."""
_TRIES: Final = 3
"""Times that a binding is sent while nothing but its pod's version changed."""
_HOLD: Final = 0.5
"""s without decisions after the lease could not be confirmed."""
_TOLD: Final = 50
"""Shortages that are counted over all nodes in one round; what waits beyond gets the policy's sentence."""


@dataclass
class Counts:
    """What a scheduler did; ``latencies``: s from a pod's first sight to its binding; ``deciding``: s of the policy."""

    placed: int = 0
    moves: int = 0
    evictions: int = 0
    refusals: int = 0
    conflicts: int = 0
    rounds: int = 0
    deciding: float = 0.0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    places: dict[str, str] = field(default_factory=dict)


class Scheduler:
    """Schedules the pods whose ``schedulerName`` is ours.

    Args:
        policy: decides.
        api: the cluster.
        name: ``schedulerName`` of our pods.
        lease: held while it acts; None = there is no other instance.
        me: this process, in events.
        threads: bindings under way at once.
        patience: s that a nominated pod waits for those who leave.
        dry_run: decide and say so, but change nothing.
        log: called with a sentence on what an operator wants to know.
    """

    def __init__(
        self, policy: Policy, api: Api, *, name: str = "fleetcast", lease: Lease | None = None, me: str = "fleetcast",
        threads: int = 8, patience: float = 60.0, dry_run: bool = False, log: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self.policy, self.api, self.lease, self.dry_run, self.log = policy, api, lease, dry_run, log
        self.cluster = Cluster(name)
        self.counts = Counts()
        self.verdict = Verdict()
        self.pending: dict[str, str] = {}
        self.stopping = threading.Event()
        self._watches = Watches(api, self.cluster, log)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bind")
        self._notices = Notices(api, name, me, self.stopping)
        self._clearing = Clearing(self.cluster, api, self._pool, self._notices, self.counts, patience, log, self._may)
        self._sight = Sight()
        self._tried: set[str] = set()
        self._decided = float("-inf")
        self._delayed: dict[str, tuple[float, float]] = {}
        self._hold = 0.0
        self._flying: set[Future[None]] = set()
        self._elector: threading.Thread | None = None

    def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Schedules until `stop`; then waits for bindings under way and gives the lease back."""
        self.start()
        ready()
        try:
            while not self.stopping.is_set():
                self.step(timeout=0.5)
        finally:
            self.close()

    def stop(self) -> None:
        """Ends `run`; may be called from a signal handler's thread."""
        self.stopping.set()
        with self.cluster.news:
            self.cluster.news.notify_all()

    def start(self) -> None:
        """Begins to watch and to stand for the lease."""
        self._watches.start()
        if not self.dry_run:
            self._notices.start()
        if self.lease is not None:
            self._elector = threading.Thread(target=self.lease.keep, args=(self.stopping,), name="lease", daemon=True)
            self._elector.start()

    def close(self) -> None:
        """Waits for what is under way, gives the lease back and ends all threads."""
        wait(self._flying, timeout=30.0)
        self.stop()
        self._pool.shutdown(wait=True)
        if self._elector is not None:
            self._elector.join(timeout=10.0)
        self._notices.close()
        self._watches.stop()
        self.api.close()

    def synced(self) -> bool:
        """Returns whether all kinds of objects were listed once."""
        return self.cluster.synced >= set(KINDS)

    def leads(self) -> bool:
        """Returns whether this instance may act."""
        return self.lease is None or self.lease.holds()

    def once(self, timeout: float = 60.0) -> None:
        """Decides once on all that waits, carries it out and waits until that is done.

        Raises:
            FleetcastError: no list within the time, or another instance holds the lease.
        """
        self.start()
        try:
            until = time.monotonic() + timeout
            while not (self.synced() and self.leads()):
                if time.monotonic() > until:
                    held = f"{self.lease.holder} holds the lease" if self.lease and self.lease.holder else ""
                    raise FleetcastError(f"{self.api.host}: nothing done in {timeout:g} s. {held or self._trouble()}")
                time.sleep(0.02)
            self.step(timeout=0.0)
            while (
                (self._flying or self._clearing.busy() or self.cluster.stirred)
                and time.monotonic() < until
                and not self.dry_run
            ):
                self.step(timeout=0.05)
        finally:
            self.close()

    def _trouble(self) -> str:
        missing = sorted(set(KINDS) - self.cluster.synced)
        return f"No list of {', '.join(missing)}: is the server up, and may this account list them?"

    def step(self, timeout: float) -> None:
        """Waits for news, goes on with what waits for room, and lets the policy decide where there is a reason to."""
        cluster = self.cluster
        with cluster.news:
            acts = self.synced() and self.leads() and time.monotonic() >= self._hold
            if not (cluster.stirred and acts) and not self.stopping.is_set():
                calm = acts and not (self._clearing.busy() or self._delayed)
                cluster.news.wait(timeout if calm else min(timeout, 0.1))
        self._flying = {future for future in self._flying if not future.done()}
        if not self.leads():
            self._clearing.clear()
        if self.stopping.is_set() or not self.synced() or not self.leads():
            return
        if not self.dry_run:
            self._submit(self._clearing.advance())
        if not self._due():
            return
        self._round()

    def _may(self) -> bool:
        return self.lease is None or self.lease.confirmed()

    def _due(self) -> bool:
        """Whether there is a reason to decide though nothing was heard."""
        now = time.monotonic()
        if now < self._hold:
            return False
        late = [uid for uid, (until, _) in list(self._delayed.items()) if self._decided < until <= now]
        return self.cluster.stirred or bool(late) or (bool(self.cluster.queue) and now - self._decided > _AGAIN)

    def _round(self) -> None:
        cluster = self.cluster
        with cluster.lock:
            cluster.stirred, self._decided = False, time.monotonic()
            seen = self._tried | self._clearing.held()
            heights = [cluster.priority(pod) for uid, pod in cluster.queue.items() if uid not in seen]
            if heights:
                self._clearing.yield_to(max(heights))
            room, running = self._clearing.planned()
            waiting, gangs, unfit = self._waiting()
            self._tried &= cluster.queue.keys()
            self._delayed = {uid: wait for uid, wait in self._delayed.items() if uid in cluster.pods}
            fixed = self._clearing.fixed()
            view = self._sight.look(cluster, room, waiting, running, self._tried, fixed) if waiting else None
        for pod, reason in unfit:
            self._tell(pod, reason)
        if view is None:
            return
        began = time.monotonic()
        try:
            placement = self.policy.place(view)
        except Exception as error:
            # A policy that fails in one round is asked again with the next news; it does not end the scheduler.
            self.log(f"the policy {self.policy.kind} refused: {error}")
            placement = Placement({}, reasons={pod.name: str(error) for pod in waiting})
        self.counts.rounds += 1
        self.counts.deciding += time.monotonic() - began
        with cluster.lock:
            room, _ = self._clearing.planned()
            verdict = self.verdict = judge(cluster, room, placement, gangs, fixed)
            placed = {pod.uid for pod, _ in (*verdict.bind, *verdict.nominate)}
            lacking = [p for p in waiting if p.uid not in placed and p.uid in cluster.queue]
            fresh = [pod for pod in lacking if pod.uid not in self._tried]
            self._tried |= {pod.uid for pod in lacking}
            # Some were dealt out or held up by others of this round, and more may fit now.
            if any(pod.spread or pod.affine or pod.name in verdict.refused for pod in fresh) or (
                placed and any(pod.spread for pod in lacking)
            ):
                cluster.stirred = True
            self._explain(room, lacking, placement, verdict)
            if not self.dry_run:
                self._clearing.begin(verdict)
                self._submit(verdict.bind)
                self._submit(self._clearing.advance())
        for note in verdict.notes:
            self.log(note)

    def _waiting(self) -> tuple[list[Asked], dict[str, int], list[tuple[Asked, str]]]:
        """Pods to decide on, the sizes of their gangs, and those that nobody can decide on, with the reason."""
        cluster = self.cluster
        held, now = self._clearing.held(), time.monotonic()
        late = {uid for uid, (until, _) in self._delayed.items() if until > now}
        # Where one of a gang has to wait, all of it do.
        gangs_late = {p.group for uid in late if (p := cluster.queue.get(uid)) is not None and p.group}
        waiting, unfit = [], []
        for pod in cluster.waiting():
            if pod.problem:
                unfit.append((pod, f"{pod.name}: {pod.problem}"))
            elif pod.uid not in held and pod.uid not in late and pod.group not in gangs_late:
                waiting.append(pod)
        sizes: dict[str, int] = {}
        gangs: dict[str, int] = {}
        for pod in waiting:
            if pod.group:
                gangs[pod.group] = gangs.get(pod.group, 0) + 1
                sizes[pod.group] = max(sizes.get(pod.group, 1), pod.group_size)
        if gangs:
            there = dict(gangs)
            for pod in cluster.pods.values():
                if pod.group in gangs and (cluster.place(pod) or pod.uid in held) and not pod.leaving:
                    there[pod.group] += 1
            short = {group for group, size in sizes.items() if there[group] < size}
            unfit += [
                (p, f"{p.name}: its gang {p.group} has {there[p.group]} of {sizes[p.group]} pods")
                for p in waiting if p.group in short
            ]  # fmt: skip
            waiting = [pod for pod in waiting if pod.group not in short]
            gangs = {group: count for group, count in gangs.items() if group not in short}
        return waiting, gangs, unfit

    def _explain(self, room: Room, lacking: list[Asked], placement: Placement, verdict: Verdict) -> None:
        known: dict[Any, str] = {}
        for pod in lacking:
            if pod.name in verdict.refused:
                reason = f"{pod.name}: {verdict.refused[pod.name]}"
            else:
                like = (
                    tuple(pod.requests.items()), tuple(pod.selector.items()), pod.terms, pod.tolerations, pod.affine,
                    pod.anti, pod.spread, pod.kin if pod.affine or pod.anti or pod.spread else 0,
                )  # fmt: skip
                if like not in known and len(known) < _TOLD:
                    known[like] = shortage(room, pod).partition(": ")[2]
                said = placement.reasons.get(pod.name, "")
                reason = f"{pod.name}: {known.get(like) or said}"
                if ": takes it" in reason and said:
                    reason = f"{pod.name}: {said}"
            self._tell(pod, reason)

    def _tell(self, pod: Asked, reason: str) -> None:
        with self.cluster.lock:
            if len(self.pending) > 2 * len(self.cluster.queue) + 100:
                named = {waits.name for waits in self.cluster.queue.values()}
                self.pending = {name: why for name, why in self.pending.items() if name in named}
            if self.pending.get(pod.name) == reason:
                return
            self.pending[pod.name] = reason
        if not self.dry_run:
            self._notices.failed(pod, reason)

    def _submit(self, pairs: list[tuple[Asked, str]]) -> None:
        """Takes pods for bound and sends the bindings off."""
        for pod, node in pairs:
            self.cluster.assume(pod, node)
        for pod, node in pairs:
            self._flying.add(self._pool.submit(self._bind, pod, node, self.cluster.machines.get(node)))

    def _bind(self, pod: Asked, node: str, machine: Any) -> None:
        """Binds one pod, unless the world moved on; whatever comes back, the cluster says what is true."""
        cluster = self.cluster
        for _ in range(_TRIES):
            now, meant = cluster.machines.get(node), cluster.pods.get(pod.uid)
            still = now is not None and now is machine and meant is not None and asks(meant) == asks(pod)
            if still and not self._may():
                # Another leads, or nobody answers: nothing is decided until that is known.
                still, self._hold = False, time.monotonic() + _HOLD
            if not still or meant is None or meant.leaving:
                cluster.forget(pod.uid)
                return
            try:
                self.api.bind(meant, node)
            except (Refused, Gone, Unreachable) as error:
                if not self._settle(meant, node, error):
                    return
            else:
                self._bound(pod, node)
                return
        self._put_off(pod)

    def _put_off(self, pod: Asked) -> None:
        """Lets a pod wait a while before it is decided on again."""
        delay = min(_LONGEST, 2 * self._delayed.get(pod.uid, (0.0, _FIRST / 2))[1])
        self._delayed[pod.uid] = (time.monotonic() + delay, delay)
        self.cluster.forget(pod.uid)

    def _bound(self, pod: Asked, node: str) -> None:
        with self.cluster.lock:
            self.counts.placed += 1
            self.counts.places[pod.name] = node
            if len(self.counts.places) > _KEPT:
                del self.counts.places[next(iter(self.counts.places))]
            self._delayed.pop(pod.uid, None)
            self.pending.pop(pod.name, None)
            self.counts.latencies.append(time.monotonic() - self.cluster.seen.get(pod.uid, time.monotonic()))
        self._notices.scheduled(pod, node)

    def _settle(self, pod: Asked, node: str, error: Exception) -> bool:
        """Asks the server what became of a binding, as often as need be; returns whether to try it again at once."""
        if isinstance(error, Refused) and error.status not in (404, 409, 429, 500, 502, 503, 504):
            self.log(f"{pod.name} -> {node}: {error}")
            self._tell(pod, f"{pod.name}: the server refuses the binding to {node}: {error.message}")
        self.counts.conflicts += 1
        delay = 0.1
        while True:
            try:
                found = self.api.pod(pod)
                break
            except (Refused, Gone, Unreachable):
                # What is assumed stays assumed: to forget it might bind the room of the node twice.
                if self.stopping.wait(delay):
                    return False
                delay = min(10.0, 2 * delay)
        if found is None:
            self.cluster.apply(
                "pods", "DELETED", {"metadata": {"uid": pod.uid, "name": pod.title, "namespace": pod.namespace}}
            )
            return False
        self.cluster.apply("pods", "MODIFIED", found)
        lies = (found.get("spec") or {}).get("nodeName")
        if lies == node:
            self._bound(pod, node)
        elif not lies and isinstance(error, Refused) and error.status == 409:
            # Somebody wrote on it, a condition of ours perhaps: the same binding of the pod as it is now.
            return True
        else:
            self._put_off(pod)
        return False
