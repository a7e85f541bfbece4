"""Objects and helpers of these tests."""

import threading
import time

from fleetcast.runtime.kubernetes.calls import connect
from fleetcast.runtime.kubernetes.scheduler import Scheduler


def node(name, cpu="8", memory="1Ti", pods="110", labels=None, taints=None, **more):
    spec = {"taints": taints} if taints else {}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {
            "allocatable": {
                "cpu": cpu,
                "memory": memory,
                "pods": pods,
                **{k.replace("__", "/"): v for k, v in more.items()},
            },
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(
    name,
    cpu="1",
    memory="1Gi",
    labels=None,
    annotations=None,
    namespace="default",
    requests=None,
    scheduler="fleetcast",
    **spec,
):
    asked = {"cpu": cpu, "memory": memory, **(requests or {})}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}, "annotations": annotations or {}},
        "spec": {
            "schedulerName": scheduler,
            "containers": [{"name": "c", "image": "i", "resources": {"requests": asked}}],
            **spec,
        },
    }


def replicas(name, count, cpu="1", labels=None, **spec):
    made = pod("x", cpu, labels={"app": name, **(labels or {})}, **spec)
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": count,
            "template": {"metadata": {"labels": made["metadata"]["labels"]}, "spec": made["spec"]},
        },
    }


class Running:
    """A scheduler in threads of its own."""

    def __init__(self, double, policy, **settings):
        self.log = []
        api = connect(url=double.url, token=settings.pop("token", double.token))
        lease = settings.pop("lease", None)
        self.scheduler = Scheduler(policy, api, log=self.log.append, lease=lease(api) if lease else None, **settings)
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            self.scheduler.run()
        except BaseException as error:
            self.error = error
            raise

    def stop(self):
        self.scheduler.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


def until(condition, seconds=60.0, about="it"):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{about} did not come true in {seconds} s"
        time.sleep(0.01)


def places(double, namespace="default"):
    """Pod -> node of all pods that are bound."""
    with double.store.lock:
        pods = double.store.objects["pods"].items()
        return {
            n[1]: p["spec"]["nodeName"] for n, p in pods if isinstance(p["spec"], dict) and p["spec"].get("nodeName")
        }


def put(double, *pods):
    for one in pods:
        double.rules.create(one, one["metadata"].get("namespace", "default"))
