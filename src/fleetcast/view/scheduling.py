"""`fleetcast run FILE --on kubernetes`: the plan's place policy schedules a real cluster, or a double of one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter

from fleetcast.base.errors import SpecError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.policy.place.pods import Node, Pod, Policy
    from fleetcast.runtime.kubernetes.calls import Api
    from fleetcast.runtime.kubernetes.scheduler import Scheduler
    from fleetcast.scenario.outcome import Outcome

_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LEASE: Final = "fleetcast"
SHOWN: Final = 5
"""Waiting pods that are named."""


@Parameter(name="*", group="Kubernetes")
@dataclass(frozen=True)
class Cluster:
    """Options of a run on a cluster."""

    on: Literal["kubernetes"] | None = None
    "Pods: schedule the cluster that KUBECONFIG, or the service account of this pod, names."
    scheduler_name: str = "fleetcast"
    "Pods: those with this schedulerName are scheduled."
    namespace: str = ""
    "Pods: where the lease of the leader lies; default the namespace of this pod, or 'default'."
    once: Annotated[bool, Parameter(negative=())] = False
    "Pods: decide once on what waits now, carry it out and end; else until Ctrl-C."
    dry_run: Annotated[bool, Parameter(negative=())] = False
    "Pods: say what would be done, and do nothing."
    double: Annotated[bool, Parameter(negative=())] = False
    "Pods: no cluster; an API server in this process, with the scenario's nodes and pods."
    within: float = 60.0
    "Pods: with --once or --double, seconds in which it must end."


NOWHERE = Cluster()


def refuse_cluster(cluster: Cluster, about: str) -> None:
    """Refuses options of a cluster beside a scenario that has no pods.

    Raises:
        SpecError: names the option.
    """
    for option in (field.name for field in fields(cluster) if getattr(cluster, field.name) != field.default):
        name = f"--{option.replace('_', '-')}"
        raise SpecError(name, f"is for pods on a cluster, and this is {about}", hint="Leave it out")


def schedule(
    policy: Policy, cluster: Cluster, plan: Mapping[str, Any], *, nodes: Sequence[Node] = (), pods: Sequence[Pod] = ()
) -> Outcome:  # fmt: skip
    """Returns what a place policy did on a cluster.

    Args:
        policy: that decides.
        cluster: where, and for how long.
        plan: the plan's table, for the outcome.
        nodes: of the scenario; the double has these.
        pods: of the scenario; all wait there at once.

    Raises:
        SpecError: no cluster is named, or options contradict each other.
        MissingExtra: the client of Kubernetes is absent.
        FleetcastError: the cluster does not answer, or another instance holds the lease.
    """
    if not 0 < cluster.within <= 86_400:
        raise SpecError("--within", "is out of range", value=cluster.within, limit="more than 0, at most 86,400 s")
    from fleetcast.runtime.kubernetes.outcome import outcome

    with _server(cluster, nodes, pods) as (api, notes):
        scheduler = _scheduler(policy, cluster, api)
        if cluster.once or cluster.double or cluster.dry_run:
            scheduler.once(cluster.within)
        else:
            _until_told(scheduler)
        return outcome(scheduler, plan, notes)


def _scheduler(policy: Policy, cluster: Cluster, api: Api) -> Scheduler:
    from fleetcast.runtime.kubernetes.lease import Lease
    from fleetcast.runtime.kubernetes.scheduler import Scheduler

    me = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    lease = None if cluster.dry_run else Lease(api, _namespace(cluster), LEASE, me)
    return Scheduler(
        policy, api, name=cluster.scheduler_name, lease=lease, me=me, dry_run=cluster.dry_run,
        log=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip


def _namespace(cluster: Cluster) -> str:
    if cluster.namespace:
        return cluster.namespace
    if found := os.environ.get("POD_NAMESPACE"):
        return found
    return _NAMESPACE.read_text(encoding="utf-8").strip() if _NAMESPACE.is_file() else "default"


@contextlib.contextmanager
def _server(cluster: Cluster, nodes: Sequence[Node], pods: Sequence[Pod]) -> Iterator[tuple[Api, tuple[str, ...]]]:
    """The API, and what to say about it: the cluster's, or a double's that is filled first."""
    from fleetcast.runtime.kubernetes.calls import connect

    if not cluster.double:
        yield connect(), ()
        return
    from fleetcast.runtime.kubernetes.double import Double
    from fleetcast.runtime.kubernetes.writing import node_table, pod_table

    with Double() as double:
        left_out = 0
        for node in nodes:
            double.store.add("nodes", node_table(node))
        for pod in pods:
            if pod.gpu_share:
                left_out += 1
            else:
                double.rules.create(pod_table(pod, cluster.scheduler_name), "default")
        notes = [f"a double of a cluster: {len(nodes)} nodes and {len(pods) - left_out} pods, all waiting at once"]
        if left_out:
            notes.append(f"{left_out} pods that share a device are left out: Kubernetes counts devices whole")
        yield connect(url=double.url, token=double.token), tuple(notes)


def _until_told(scheduler: Scheduler) -> None:
    """Schedules until SIGINT or SIGTERM; what is under way then is ended first."""
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda *_: scheduler.stopping.set())
    name, host = scheduler.cluster.scheduler, scheduler.api.host
    print(f"scheduling pods of schedulerName {name} at {host}", file=sys.stderr, flush=True)
    try:
        scheduler.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def scheduled_view(outcome: Outcome, width: int) -> RenderableType:
    """Returns what was done, for people."""
    from rich.console import Group
    from rich.text import Text

    from fleetcast.base.show import show
    from fleetcast.view.tables import bullets, rows_table

    m = outcome.metrics
    cells = [("Placed", f"{m['placed']:,}"), ("Waiting", f"{m['unplaced']:,}"), ("Moved", f"{m['moves']:,}"),
             ("Evicted", f"{m['evicted']:,}"), ("Evictions refused", f"{m['refused']:,}"),
             ("Rounds", f"{m['rounds']:,}"), ("Time to decide", show(m["deciding"], "s"))]  # fmt: skip
    if "waits" in m:
        cells += [("Until bound, p50", show(m["waits"]["p50"], "s")), ("p99", show(m["waits"]["p99"], "s"))]
    parts: list[RenderableType] = [
        Text(f"{outcome.provenance['server']}, schedulerName {outcome.provenance['schedulerName']}", style="dim"),
        Text(),
        rows_table(("What", "How many"), cells, width=width),
    ]
    if m["reasons"]:
        said = [f"{name}: {why}" for name, why in list(m["reasons"].items())[:SHOWN]]
        more = m["unplaced"] - len(said)
        parts += [Text(), bullets("Wait at the end", [*said, *([f"and {more:,} more"] if more > 0 else [])])]
    if outcome.notes:
        parts += [Text(), bullets("Taken as given", outcome.notes, dim=True)]
    return Group(*parts)
