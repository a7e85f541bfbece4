"""The same against a real cluster, where KUBECONFIG names one: in a namespace of its own, deleted at the end."""

import os
import time
import uuid

import pytest

pytest.importorskip("kubernetes", reason="the kubernetes client is not installed")
if not os.environ.get("KUBECONFIG"):
    pytest.skip("KUBECONFIG names no cluster", allow_module_level=True)

from fleetcast.policy.place.pods import KubeDefault
from fleetcast.runtime.kubernetes.calls import Gone, Refused, connect
from fleetcast.runtime.kubernetes.lease import Lease
from fleetcast.runtime.kubernetes.scheduler import Scheduler
from tests.runtime.kubernetes.made import pod, replicas, until


@pytest.fixture
def namespace():
    from kubernetes import client, config

    config.load_kube_config(config_file=os.environ["KUBECONFIG"])
    core, name = client.CoreV1Api(), f"fleetcast-test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


def test_pods_are_bound_evicted_and_explained(namespace):
    from kubernetes import client

    core, apps, me = client.CoreV1Api(), client.AppsV1Api(), f"fleetcast-{uuid.uuid4().hex[:6]}"
    api = connect(os.environ["KUBECONFIG"])
    made = replicas("web", 3, cpu="10m")
    template = made["spec"]["template"]
    template["spec"] |= {"schedulerName": me}
    template["spec"]["containers"] = [
        {"name": "c", "image": "registry.k8s.io/pause:3.10", "resources": {"requests": {"cpu": "10m"}}}
    ]
    made["spec"]["selector"] = {"matchLabels": template["metadata"]["labels"]}
    apps.create_namespaced_replica_set(namespace, made)
    huge = pod("huge", cpu="100000", scheduler=me, namespace=namespace)
    core.create_namespaced_pod(namespace, huge)
    scheduler = Scheduler(KubeDefault(), api, name=me, lease=Lease(api, namespace, "fleetcast", me))
    scheduler.start()
    try:
        end = time.monotonic() + 60
        while scheduler.counts.placed < 3 and time.monotonic() < end:
            scheduler.step(0.2)
        assert scheduler.counts.placed == 3
        pods = core.list_namespaced_pod(namespace, label_selector="app=web").items
        assert all(p.spec.node_name for p in pods)
        assert "lack cpu" in scheduler.pending[f"{namespace}/huge"]

        def events():
            return [e.reason for e in core.list_namespaced_event(namespace).items if e.involved_object.name == "huge"]

        until(lambda: "FailedScheduling" in events(), 30)
        # Bound once more: the server says 409, and the pod stays where it is.
        [first, *_] = [p for p in scheduler.cluster.pods.values() if p.namespace == namespace and p.node]
        with pytest.raises((Refused, Gone)):
            api.bind(first, first.node)
        api.evict(first)
        while scheduler.counts.placed < 4 and time.monotonic() < end:
            scheduler.step(0.2)
        assert scheduler.counts.placed == 4
    finally:
        scheduler.close()
