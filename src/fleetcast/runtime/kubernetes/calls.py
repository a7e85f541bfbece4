"""The API of Kubernetes as the scheduler calls it, through the official client; bodies are plain tables both ways."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from fleetcast.base.errors import MissingExtra, SpecError

try:
    import urllib3
    import yaml
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException
except ModuleNotFoundError as missing:
    raise MissingExtra("kubernetes", "kubernetes") from missing

from fleetcast.runtime.kubernetes.reading import Asked

__all__ = ["Api", "Gone", "Refused", "Unreachable", "connect", "stamp"]

_PAGE: Final = 1000
_CALL: Final = (5.0, 30.0)
_QUIET: Final = 60.0
"""Seconds after which a watch that says nothing is asked again from where it was."""


class Refused(Exception):
    """The API server said no; ``status`` is the HTTP status, ``after`` the seconds it asks to wait."""

    def __init__(self, status: int, message: str, after: float = 0.0) -> None:
        self.status, self.message, self.after = status, message, after
        super().__init__(f"{status}: {message}")


class Gone(Exception):
    """A watch or a list's next page is too old: list anew."""


class Unreachable(Exception):
    """No answer came: the call may have been carried out or not."""


def connect(kubeconfig: str | None = None, *, url: str = "", token: str = "", connections: int = 16) -> Api:
    """Returns the API of the cluster that a kubeconfig names, or of the one this process runs in.

    Args:
        kubeconfig: its path; None = KUBECONFIG or ~/.kube/config, or the service account of a pod.
        url: of a server instead, with ``token``.
        token: bearer token.
        connections: kept open.

    Raises:
        SpecError: no cluster is named anywhere, or the file cannot be read.
    """
    made = client.Configuration()
    if url:
        made.host = url
        made.api_key = {"BearerToken": token}
        made.api_key_prefix = {"BearerToken": "Bearer"}
    else:
        # The client reads the variable when it is imported, once and for all.
        kubeconfig = kubeconfig or os.environ.get("KUBECONFIG") or None
        try:
            if kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config(client_configuration=made)
            else:
                config.load_kube_config(config_file=kubeconfig, client_configuration=made)
        except (config.ConfigException, yaml.YAMLError, OSError, ValueError) as error:
            raise SpecError(
                "KUBECONFIG", "names no cluster", value=str(error), limit="a kubeconfig, or a pod's service account",
                hint="Say export KUBECONFIG=FILE, or try without a cluster: --double",
            ) from error  # fmt: skip
    made.connection_pool_maxsize = connections
    made.retries = False
    return Api(client.ApiClient(made))


def stamp(now: float | None = None) -> str:
    """Returns a time of day as the API wants it, to the microsecond."""
    moment = datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Api:
    """What the scheduler asks of an API server.

    Args:
        api: the official client.
    """

    def __init__(self, api: Any) -> None:
        self._core = client.CoreV1Api(api)
        self._leases = client.CoordinationV1Api(api)
        self._api = api
        self.host: str = api.configuration.host
        self._lists = {
            "nodes": self._core.list_node,
            "pods": self._core.list_pod_for_all_namespaces,
            "budgets": client.PolicyV1Api(api).list_pod_disruption_budget_for_all_namespaces,
            "priorities": client.SchedulingV1Api(api).list_priority_class,
            "namespaces": self._core.list_namespace,
        }

    def close(self) -> None:
        """Closes all connections."""
        self._api.close()

    def list(self, kind: str) -> tuple[list[Mapping[str, Any]], str]:
        """Returns all objects of a kind and the version to watch from.

        Raises:
            Gone: the list changed too much between two pages.
        """
        found: list[Mapping[str, Any]] = []
        more = ""
        while True:
            settings = {"_continue": more} if more else {}
            table = self._ask(self._lists[kind], limit=_PAGE, **settings)
            found += table.get("items") or []
            meta = table.get("metadata") or {}
            more = meta.get("continue") or ""
            if not more:
                return found, str(meta.get("resourceVersion") or "0")

    def watch(self, kind: str, version: str, stopping: Any, seconds: int = 280) -> Iterator[tuple[str, Any]]:
        """Yields (event, object) since a version, until the server ends it.

        Args:
            kind: of object.
            version: seen last.
            stopping: called with the open response, so that another thread can end it.
            seconds: after which the server ends it.

        Raises:
            Gone: the version is too old.
        """
        response = self._open(
            self._lists[kind], watch=True, resource_version=version, allow_watch_bookmarks=True,
            timeout_seconds=seconds, timeout=(5.0, _QUIET),
        )  # fmt: skip
        stopping(response)
        rest = b""
        try:
            for part in response.stream(amt=None, decode_content=False):
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if not line.strip():
                        continue
                    event = msgspec.json.decode(line)
                    if event["type"] == "ERROR":
                        status = event.get("object") or {}
                        if status.get("code") == 410:
                            raise Gone(str(status.get("message")))
                        raise Refused(int(status.get("code") or 500), str(status.get("message")))
                    yield event["type"], event["object"]
        except (urllib3.exceptions.HTTPError, OSError, msgspec.DecodeError, KeyError, TypeError) as error:
            raise Unreachable(str(error)) from error
        finally:
            response.close()

    def pod(self, pod: Asked) -> Mapping[str, Any] | None:
        """Returns a pod as it is now, None where it is gone or another of its name."""
        try:
            found = self._ask(self._core.read_namespaced_pod, pod.title, pod.namespace)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return found if (found.get("metadata") or {}).get("uid") == pod.uid else None

    def bind(self, pod: Asked, node: str) -> None:
        """Binds a pod to a node through its binding subresource, as it was when it was read and not otherwise."""
        body = {
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod.title, "namespace": pod.namespace, "uid": pod.uid, "resourceVersion": pod.version},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }  # fmt: skip
        self._ask(self._core.create_namespaced_pod_binding, pod.title, pod.namespace, body)

    def evict(self, pod: Asked) -> None:
        """Evicts a pod through the eviction API, which keeps disruption budgets (429 where one is used up)."""
        body = {
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.title, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }  # fmt: skip
        self._ask(self._core.create_namespaced_pod_eviction, pod.title, pod.namespace, body)

    def nominate(self, pod: Asked, node: str) -> None:
        """Writes on a pod which node is being cleared for it; "" = none."""
        body = {"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": node or None}}
        self._ask(self._core.patch_namespaced_pod_status, pod.title, pod.namespace, body)

    def pending(self, pod: Asked, message: str) -> None:
        """Writes on a pod that it cannot be scheduled, and why; autoscalers of clusters read this."""
        condition = {
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": stamp()[:19] + "Z",
        }  # fmt: skip
        body = {"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}}
        self._ask(self._core.patch_namespaced_pod_status, pod.title, pod.namespace, body)

    def event(self, pod: Asked, reason: str, message: str, *, kind: str, component: str, by: str) -> None:
        """Writes an event on a pod: ``kind`` is "Normal" or "Warning"."""
        now = stamp()
        body = {
            "apiVersion": "v1", "kind": "Event", "type": kind, "reason": reason, "message": message[:1024],
            "metadata": {"generateName": f"{pod.title[:40].rstrip('.-')}.", "namespace": pod.namespace},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "name": pod.title, "namespace": pod.namespace, "uid": pod.uid,
            },
            "eventTime": now, "reportingComponent": component, "reportingInstance": by[:128],
            "action": "Scheduling", "firstTimestamp": now[:19] + "Z", "lastTimestamp": now[:19] + "Z", "count": 1,
        }  # fmt: skip
        self._ask(self._core.create_namespaced_event, pod.namespace, body)

    def lease(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Returns a lease; None where there is none."""
        try:
            return self._ask(self._leases.read_namespaced_lease, name, namespace)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def make_lease(self, namespace: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """Makes a lease; 409 where there is one."""
        return self._ask(self._leases.create_namespaced_lease, namespace, table)

    def write_lease(self, namespace: str, name: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """Writes a lease; 409 where it is not the version that ``table`` names."""
        return self._ask(self._leases.replace_namespaced_lease, name, namespace, table)

    def _ask(self, call: Any, *args: Any, **settings: Any) -> dict[str, Any]:
        response = self._open(call, *args, **settings)
        try:
            text = response.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(str(error)) from error
        finally:
            response.release_conn()
        try:
            found = msgspec.json.decode(text) if text else {}
        except msgspec.DecodeError as error:
            raise Unreachable(f"the answer is no JSON: {error}") from error
        return found if isinstance(found, dict) else {}

    def _open(self, call: Any, *args: Any, timeout: tuple[float, float] = _CALL, **settings: Any) -> Any:
        try:
            return call(*args, _preload_content=False, _request_timeout=timeout, **settings)
        except ApiException as error:
            if error.status == 410:
                raise Gone(_message(error)) from error
            if not error.status:
                raise Unreachable(str(error.reason)) from error
            after = (error.headers or {}).get("Retry-After", "0")
            raise Refused(int(error.status), _message(error), float(after) if after.isdigit() else 0.0) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(str(error)) from error
        except ValueError as error:
            # The client checks what it is given before it sends it.
            raise Refused(422, str(error)) from error


def _message(error: Any) -> str:
    try:
        return str(msgspec.json.decode(error.body or b"{}")["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return str(error.reason)
