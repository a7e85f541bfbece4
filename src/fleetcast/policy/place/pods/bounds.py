"""How many pods can lie somewhere at most: linear programs over kinds of pods and of nodes.

A relaxation: within a kind of node, capacities are added up and pods may be cut; of a kind of pod no node counts for
more than whole pods fit there alone. Tiers are bounded one after the other, the higher ones at least as full as
found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from fleetcast.policy.place.pods import Placement, Pod, View
from fleetcast.policy.place.pods.ledger import WHOLE, Ledger
from fleetcast.policy.place.pods.packing import Instance
from fleetcast.policy.place.pods.patterns import Grouped, ladder

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tier(NamedTuple):
    """What is known of one tier.

    Attributes:
        priority: of its pods.
        pods: how many there are.
        kept: of those that ran, how many still do.
        runs: how many ran.
        placed: how many lie somewhere.
        kept_bound: at most how many can be kept, the higher tiers being as they are.
        bound: at most how many can lie somewhere, those that ran being kept as they are.
    """

    priority: int
    pods: int
    kept: int
    runs: int
    placed: int
    kept_bound: int
    bound: int

    @property
    def closed(self) -> bool:
        """Whether it is proven that no more is possible."""
        return self.kept >= self.kept_bound and self.placed >= self.bound


@dataclass(frozen=True)
class Answer:
    """A decision and what is proven of it.

    Attributes:
        placement: the decision.
        tiers: what is known of each tier, highest first.
        moves: how many pods move.
        least: at least how many moves these placements need, -1 = nothing is proven.
        spent: s of one core, about, as reckoned.
    """

    placement: Placement
    tiers: list[Tier]
    moves: int
    least: int
    spent: float

    @property
    def optimal(self) -> bool:
        """Whether no placement serves the tiers better."""
        return all(tier.closed for tier in self.tiers)


def words(tiers: list[Tier], moves: int, least: int) -> str:
    """Returns what is proven, for people."""
    if all(tier.closed for tier in tiers):
        if least == moves:
            return "optimal"
        return f"most pods placed; {moves} moves" + (f", at least {least} are needed" if least >= 0 else "")
    worst = next(tier for tier in tiers if not tier.closed)
    return f"priority {worst.priority}: {worst.placed} of {worst.pods} placed, at most {worst.bound} can be"


class Kinds(NamedTuple):
    """Kinds of pods and of nodes, and what they are to each other."""

    size: NDArray[np.int64]  # [r, k]
    tier: NDArray[np.int64]
    many: NDArray[np.int64]
    runs: NDArray[np.int64]
    room: NDArray[np.int64]  # [r, c]
    most: NDArray[np.int64]  # [k, c] how many fit alone


def bounds(view: View, after: Ledger, *, equals: bool = False, grouped: Grouped | None = None) -> list[Tier]:
    """Returns what is known of each tier, highest first.

    Args:
        view: before.
        after: what a policy made of it.
        equals: whether a pod that runs may leave for one of its own priority.
        grouped: patterns of the view, if they are known.
    """
    base = view.ledger.copy()
    pods = [(p, True) for p in view.running if p.name in base.laid and p.movable] + [(p, False) for p in view.waiting]
    for pod, runs in pods:
        if runs:
            base.remove(pod.name)
    found: list[Tier] = []
    kinds: Kinds | None = None
    if grouped is None and len(base.nodes) > 1:
        instance = Instance.of(view)
        grouped = Grouped.of(instance) if len(instance.pods) == len(pods) else None
    kept_so_far: dict[int, tuple[int, int]] = {}
    for tier in sorted({p.priority for p, _ in pods}, reverse=True):
        mine = [(p, runs) for p, runs in pods if p.priority == tier]
        ran = sum(runs for _, runs in mine)
        kept = sum(runs and p.name in after.laid for p, runs in mine)
        placed = sum(p.name in after.laid for p, _ in mine)
        kept_bound, bound = ran, len(mine)
        if not equals and kept < ran:
            if grouped is not None:
                most = _patterned(grouped, kept_so_far, tier, keep=True, equals=equals, kept=0)
            else:
                kinds = kinds or _kinds(base, pods)
                most = _most(kinds, kept_so_far, tier, keep=True, equals=equals, kept=0)
            kept_bound = min(kept_bound, most)
        if placed < len(mine):
            if grouped is not None:
                most = _patterned(grouped, kept_so_far, tier, keep=False, equals=equals, kept=kept)
            else:
                kinds = kinds or _kinds(base, pods)
                most = _most(kinds, kept_so_far, tier, keep=False, equals=equals, kept=kept)
            bound = min(bound, most)
        kept_so_far[tier] = (kept, placed)
        found.append(Tier(tier, len(mine), kept, ran, placed, max(kept_bound, kept), max(bound, placed)))
    return found


def _patterned(
    grouped: Grouped, above: Mapping[int, tuple[int, int]], tier: int, *, keep: bool, equals: bool, kept: int
) -> int:
    rows = [(other, held, placed) for other, (held, placed) in above.items()]
    return grouped.most(ladder(grouped, rows, tier, keep=keep, equals=equals, kept=kept))[0]


def _kinds(base: Ledger, pods: list[tuple[Pod, bool]]) -> Kinds:
    """Groups pods that are alike, and nodes that are alike to all of them."""
    keys: dict[tuple[bytes, int, int, int], int] = {}
    first: list[Pod] = []
    count: Counter[int] = Counter()
    ran: Counter[int] = Counter()
    for pod, runs in pods:
        need = base.need(pod)
        key = (need.amount.tobytes(), need.share, pod.priority, id(base.allowed(pod)))
        k = keys.setdefault(key, len(first))
        if k == len(first):
            first.append(pod)
        count[k] += 1
        ran[k] += runs
    masks = np.array([base.allowed(p) if not base.need(p).absent else np.zeros(len(base.nodes), bool) for p in first])
    # whoever runs where it would not be let on today may stay: such nodes count as allowed to its kind
    where = {p.name: base.number[p.node] for p, runs in pods if runs}
    for pod, runs in pods:
        if runs:
            k = keys[base.need(pod).amount.tobytes(), base.need(pod).share, pod.priority, id(base.allowed(pod))]
            masks[k, where[pod.name]] = True
    size = np.array([base.need(p).amount for p in first]).T
    if base.gpu >= 0:  # devices in thousandths, so that shares add up
        size[base.gpu] = size[base.gpu] * WHOLE + np.array([base.need(p).share for p in first])
    room = np.maximum(base.free, 0).T.copy()
    if base.gpu >= 0:
        room[base.gpu] = np.maximum(base.devices, 0).sum(axis=1)
    signature: dict[bytes, list[int]] = {}
    unlike = np.unique(masks, axis=0)
    for node in range(len(base.nodes)):
        signature.setdefault(unlike[:, node].tobytes(), []).append(node)
    classes = list(signature.values())
    most = np.zeros((len(first), len(classes)), dtype=np.int64)
    for c, nodes in enumerate(classes):
        states = Counter(room[:, n].tobytes() for n in nodes)
        for raw, times in states.items():
            have = np.frombuffer(raw, dtype=np.int64)
            fit = np.where(size > 0, have[:, None] // np.maximum(size, 1), 1 << 20).min(axis=0)
            most[:, c] += times * fit
        most[:, c] *= masks[:, nodes[0]]
    k = len(first)
    return Kinds(
        size, np.array([p.priority for p in first]), np.array([count[i] for i in range(k)]),
        np.array([ran[i] for i in range(k)]), np.array([room[:, nodes].sum(axis=1) for nodes in classes]).T, most,
    )  # fmt: skip


def _most(kinds: Kinds, above: Mapping[int, tuple[int, int]], tier: int, *, keep: bool, equals: bool, kept: int) -> int:
    """Returns the most pods of a tier that are kept (or placed) in the relaxation."""
    k, c = kinds.most.shape
    used = np.flatnonzero((kinds.tier >= tier)[:, None].repeat(c, 1).ravel() & (kinds.most > 0).ravel())
    if not len(used):
        return 0
    pod, node = used // c, used % c
    # variables: x by kind and class; then kept by kind
    n = len(used) + k
    rows: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float64]] = []
    limit: list[float] = []

    def add(where: NDArray[np.int64], what: NDArray[np.float64], at_most: float) -> None:
        rows.append(np.full(len(where), len(limit)))
        columns.append(where)
        values.append(what)
        limit.append(at_most)

    x = np.arange(len(used))
    for r in range(len(kinds.size)):
        scale = max(float(kinds.room[r].max(initial=0)), 1.0)
        for j in range(c):
            mine = x[(node == j) & (kinds.size[r, pod] > 0)]
            if len(mine):
                add(mine, kinds.size[r, pod[mine]] / scale, float(kinds.room[r, j]) / scale)
    for i in np.unique(pod).tolist():
        mine = x[pod == i]
        add(mine, np.ones(len(mine)), float(kinds.many[i]))
        add(np.append(mine, len(used) + i), np.append(-np.ones(len(mine)), 1.0), 0.0)  # kept <= placed
    tiers = kinds.tier[pod]
    for other, (held, placed) in above.items():
        add(x[tiers == other], -np.ones(int((tiers == other).sum())), -float(placed))
        if not equals:
            mine = np.flatnonzero(kinds.tier == other)
            add(len(used) + mine, -np.ones(len(mine)), -float(held))
    mine = np.flatnonzero(kinds.tier == tier)
    if not keep and not equals and kept:
        add(len(used) + mine, -np.ones(len(mine)), -float(kept))
    goal = np.zeros(n)
    goal[len(used) + mine if keep else x[tiers == tier]] = -1.0
    high = np.append(np.minimum(kinds.most[pod, node], kinds.many[pod]), kinds.runs).astype(float)
    matrix = coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(limit), n)
    )  # fmt: skip
    solved = linprog(goal, A_ub=matrix.tocsr(), b_ub=limit, bounds=np.column_stack([np.zeros(n), high]), method="highs")
    if solved.status != 0:
        return int(kinds.runs[mine].sum() if keep else kinds.many[mine].sum())
    return int(np.floor(-solved.fun + 1e-6))
