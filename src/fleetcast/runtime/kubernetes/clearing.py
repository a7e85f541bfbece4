"""Room that is being made: who leaves, who is nominated for it, and where the replacement of a moved pod goes.

Nothing here is kept on disk. After a restart nominated pods wait like others, and replacements go where the policy
says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fleetcast.runtime.kubernetes.calls import Api, Gone, Refused, Unreachable
from fleetcast.runtime.kubernetes.cluster import Cluster
from fleetcast.runtime.kubernetes.judging import Verdict
from fleetcast.runtime.kubernetes.notices import Notices
from fleetcast.runtime.kubernetes.reading import Asked
from fleetcast.runtime.kubernetes.room import Room

if TYPE_CHECKING:
    from fleetcast.runtime.kubernetes.scheduler import Counts

__all__ = ["Clearing"]

_FIRST, _LONGEST = 1.0, 30.0
"""s before an eviction that a budget refused is tried again: the first time, and at most."""
_GRACE: Final = 10
"""How many times the patience a nominated pod waits for those who are allowed to leave: they end in their own time."""


@dataclass(slots=True)
class _Nominee:
    pod: Asked
    node: str
    since: float


@dataclass(slots=True)
class _Steer:
    """Where the replacement of a moved pod goes."""

    old: Asked
    node: str
    since: float


@dataclass(slots=True)
class _Leave:
    pod: Asked
    move: str
    since: float
    again: float
    delay: float = _FIRST
    accepted: bool = False
    asking: bool = False


class Clearing:
    """Carries out evictions and moves, and says when those who wait for the room can be bound.

    Args:
        cluster: what is known.
        api: the server.
        pool: evictions run in it.
        notices: events.
        counts: of what was done; is written to.
        patience: s that a nominated pod waits for evictions that a budget refuses.
        log: called with sentences.
        may: returns whether this instance may act.
    """

    def __init__(
        self, cluster: Cluster, api: Api, pool: ThreadPoolExecutor, notices: Notices, counts: Counts, patience: float,
        log: Callable[[str], None], may: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        self._cluster, self._api, self._pool, self._notices = cluster, api, pool, notices
        self._counts, self._patience, self._log, self._may = counts, patience, log, may
        self._nominees: dict[str, _Nominee] = {}
        self._steers: list[_Steer] = []
        self._leaves: dict[str, _Leave] = {}
        self._refused: dict[str, float] = {}
        self._looked = -1

    def busy(self) -> bool:
        """Returns whether anything is still to come."""
        return bool(self._nominees or self._steers or any(not leave.accepted for leave in self._leaves.values()))

    def held(self) -> set[str]:
        """Returns the uids of waiting pods that have a node in prospect."""
        return set(self._nominees)

    def fixed(self) -> set[str]:
        """Returns the uids of pods that may not be asked to leave now."""
        return {*self._nominees, *(f"={steer.old.uid}" for steer in self._steers), *self._refused}

    def clear(self) -> None:
        """Drops all plans: another instance leads."""
        with self._cluster.lock:
            self._nominees.clear()
            self._steers.clear()
            self._leaves.clear()

    def yield_to(self, priority: int) -> None:
        """Lets nominated pods below a priority wait again: a higher one came that may need their room."""
        for uid in [u for u, n in self._nominees.items() if self._cluster.priority(n.pod) < priority]:
            del self._nominees[uid]

    def planned(self) -> tuple[Room, list[tuple[Asked, str]]]:
        """Returns the room once all that is under way is done, and who runs where then."""
        cluster = self._cluster
        placed = cluster.placed()
        room = Room(cluster.machines, cluster.used, placed, cluster.picker)
        running = []
        for pod, node in placed:
            if pod.uid in self._leaves:
                room.leave(pod)
            else:
                running.append((pod, node))
        coming = [(n.pod, n.node) for uid, n in self._nominees.items() if uid in cluster.queue]
        for steer in self._steers:
            ghost = replace(steer.old, uid=f"={steer.old.uid}", title=f"{steer.old.title}=", leaving=False)
            coming.append((ghost, steer.node))
        for pod, node in coming:
            room.take(pod, node)
        return room, running + coming

    def begin(self, verdict: Verdict) -> None:
        """Starts what a verdict asks for; the cluster's lock is held."""
        now = time.monotonic()
        for pod, node in verdict.nominate:
            self._nominees[pod.uid] = _Nominee(pod, node, now)
            self._notices.nominated(pod, node)
        for pod, node in verdict.move:
            self._steers.append(_Steer(pod, node, now))
            self._leaves[pod.uid] = _Leave(pod, node, now, now)
        for pod in verdict.evict:
            self._leaves[pod.uid] = _Leave(pod, "", now, now)
        self._looked = -1

    def advance(self) -> list[tuple[Asked, str]]:
        """Sends evictions that are due; returns the pods whose room is there now, to bind."""
        with self._cluster.lock:
            now = time.monotonic()
            self._refused = {uid: until for uid, until in self._refused.items() if until > now}
            self._leavers(now)
            self._replacements(now)
            return self._arrivals(now)

    def _leavers(self, now: float) -> None:
        for uid, leave in list(self._leaves.items()):
            if uid not in self._cluster.pods:
                del self._leaves[uid]
            elif not leave.accepted and now - leave.since > self._patience:
                # A budget never let it go: plans that need it are dropped, and others are made without it.
                del self._leaves[uid]
                self._refused[uid] = now + self._patience
                self._steers = [steer for steer in self._steers if steer.old.uid != uid]
                self._stir()
                self._log(f"{leave.pod.name} stays: its eviction was refused for {self._patience:g} s")
            elif not leave.accepted and not leave.asking and now >= leave.again:
                leave.asking = True
                self._pool.submit(self._evict, leave)

    def _evict(self, leave: _Leave) -> None:
        pod = leave.pod
        try:
            if not self._may():
                return
            self._api.evict(pod)
        except Refused as refused:
            if refused.status != 404:
                with self._cluster.lock:
                    self._counts.refusals += 1
                    leave.again = time.monotonic() + max(leave.delay, refused.after)
                    leave.delay = min(_LONGEST, 2 * leave.delay)
                if refused.status != 429:
                    self._log(f"{pod.name}: the server refuses its eviction: {refused}")
                return
        except (Gone, Unreachable):
            leave.again = time.monotonic() + leave.delay
            leave.delay = min(_LONGEST, 2 * leave.delay)
            return
        finally:
            leave.asking = False
        with self._cluster.news:
            leave.accepted = True
            if leave.move:
                self._counts.moves += 1
            else:
                self._counts.evictions += 1
            self._cluster.news.notify_all()
        why = f"moves to {leave.move}" if leave.move else "makes room for a pod of higher priority"
        self._notices.evicted(pod, f"{pod.name} {why}")

    def _replacements(self, now: float) -> None:
        """A moved pod's replacement: made by the same controller, and asking the same."""
        for steer in list(self._steers):
            leave = self._leaves.get(steer.old.uid)
            if leave is not None and not leave.accepted:
                continue
            found = next((
                pod for pod in self._cluster.queue.values()
                if pod.shape == steer.old.shape and pod.uid != steer.old.uid and pod.uid not in self._nominees
                and pod.made >= steer.old.made
            ), None)  # fmt: skip
            if found is not None:
                self._steers.remove(steer)
                self._nominees[found.uid] = _Nominee(found, steer.node, now)
                self._looked = -1
            elif now - steer.since > _GRACE * self._patience:
                self._steers.remove(steer)
                self._stir()

    def _arrivals(self, now: float) -> list[tuple[Asked, str]]:
        cluster = self._cluster
        clearing = {cluster.place(leave.pod) for leave in self._leaves.values()}
        for uid, nominee in list(self._nominees.items()):
            known = cluster.pods.get(uid)
            if known is not None and cluster.place(known):
                # Its binding is under way, and may be refused yet; or it is confirmed.
                if known.node:
                    del self._nominees[uid]
                continue
            pod = cluster.queue.get(uid)
            # While somebody leaves the node it is worth to wait: at most until grace is over.
            patience = self._patience * (_GRACE if nominee.node in clearing else 1)
            if pod is None or nominee.node not in cluster.machines or now - nominee.since > patience:
                del self._nominees[uid]
                self._stir()
            else:
                nominee.pod = pod
        if not self._nominees or self._looked == cluster.stirs:
            return []
        self._looked = cluster.stirs
        room = Room(cluster.machines, cluster.used, cluster.placed(), cluster.picker)
        units: dict[str, list[_Nominee]] = {}
        waiting = [nominee for uid, nominee in self._nominees.items() if uid in cluster.queue]
        for nominee in sorted(waiting, key=lambda n: (-cluster.priority(n.pod), n.since)):
            units.setdefault(nominee.pod.group or nominee.pod.uid, []).append(nominee)
        ready: list[tuple[Asked, str]] = []
        for unit in units.values():
            put: list[_Nominee] = []
            for nominee in unit:
                if room.why(nominee.pod, nominee.node):
                    break
                room.take(nominee.pod, nominee.node)
                put.append(nominee)
            if len(put) < len(unit):
                for nominee in put:
                    room.leave(nominee.pod)
            else:
                ready += [(nominee.pod, nominee.node) for nominee in unit]
        return ready

    def _stir(self) -> None:
        self._cluster.stirred = True
        self._cluster.stirs += 1
