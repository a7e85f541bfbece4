"""Manifests, rights, kubectl and a run as users have it."""

import json
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("kubernetes", reason="the kubernetes client is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")

import yaml

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import dump_toml
from fleetcast.policy.place.pods import KubeDefault, Node, Pod, Rule, Taint, Toleration
from fleetcast.runtime.kubernetes.double import Double
from fleetcast.runtime.kubernetes.lease import Lease
from fleetcast.runtime.kubernetes.reading import read_node, read_pod
from fleetcast.runtime.kubernetes.writing import node_table, pod_table
from fleetcast.scenario.load import load
from fleetcast.view.cli import main
from fleetcast.view.exports.scheduler import CLUSTER_RIGHTS, LEASE_RIGHTS, export, files
from fleetcast.view.scheduling import Cluster, schedule
from tests.runtime.kubernetes.made import Running, node, places, pod, put, replicas, until
from tests.runtime.kubernetes.policies import Greedy

SCENARIO = {
    "workload": {"kind": "jobs", "pods": {"kind": "distinct", "nodes": 4, "usage": 0.6, "tiers": 2}},
    "plan": {"place": {"kind": "best_fit"}},
}


def test_the_manifests_parse_and_an_api_server_takes_them(double):
    made = export(load(SCENARIO))
    parsed = list(yaml.safe_load_all(made.text))
    assert parsed == made.data
    from kubernetes import client, utils

    config = client.Configuration()
    config.host, config.api_key = double.url, {"BearerToken": double.token}
    config.api_key_prefix = {"BearerToken": "Bearer"}
    with client.ApiClient(config) as api:
        utils.create_from_yaml(api, yaml_objects=parsed)
        # The official client reads each back as what it is.
        deployment = client.AppsV1Api(api).read_namespaced_deployment("fleetcast", "fleetcast")
        assert deployment.spec.template.spec.containers[0].command[:2] == ["fleetcast", "run"]
        role = client.RbacAuthorizationV1Api(api).read_cluster_role("fleetcast-scheduler")
        assert [rule.verbs for rule in role.rules] == [rule["verbs"] for rule in CLUSTER_RIGHTS]
        lease = client.CoordinationV1Api(api).read_namespaced_lease("fleetcast", "fleetcast")
        assert lease.spec is None or lease.spec.holder_identity is None
        assert client.CoreV1Api(api).read_namespaced_config_map("fleetcast", "fleetcast").data == files(load(SCENARIO))


def test_it_needs_all_the_rights_that_the_manifests_give_and_no_other():
    with Double({"robot": [*CLUSTER_RIGHTS, *LEASE_RIGHTS]}) as double:
        double.store.add("leases", {"metadata": {"name": "fleetcast"}, "spec": {}})
        double.store.add("priorityclasses", {"metadata": {"name": "high"}, "value": 100})
        double.store.add("nodes", node("n0", cpu="2"))
        double.store.add("replicasets", replicas("low", 2))
        running = Running(
            double,
            Greedy(),
            token="robot",
            lease=lambda api: Lease(api, "default", "fleetcast", "me", duration=2.0, retry=0.2),
        )
        until(lambda: len(places(double)) == 2)
        put(double, pod("high", cpu="2", priorityClassName="high"))
        until(lambda: "high" in places(double))
        double.before.append(conflict := Once())
        double.store.add("nodes", node("n1", cpu="2"))
        until(lambda: len(places(double)) == 3 and conflict.hit)
        until(lambda: running.scheduler.counts.placed == 5)
        until(lambda: ("", "events", "create") in double.calls and ("", "pods/status", "patch") in double.calls)
        running.stop()
        assert not [line for line in running.log if "403" in line]
        given = {
            (group, resource, verb)
            for rule in (*CLUSTER_RIGHTS, *LEASE_RIGHTS)
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        used = set(double.calls)
        assert used == given


class Once:
    """Refuses one binding, so that the pod is looked up."""

    hit = False

    def __call__(self, verb, resource, name):
        from fleetcast.runtime.kubernetes.double import ApiError

        if resource == "pods/binding" and not self.hit:
            self.hit = True
            raise ApiError(409, "Conflict", "once")


def test_kubectl_reads_the_double(double, tmp_path):
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("kubectl is not installed")
    # It sends no token where there is no TLS.
    double.tokens[""] = None
    double.store.add("nodes", node("n0"))
    put(double, pod("p0"))
    double.rules.bind("default", "p0", {"target": {"name": "n0"}})
    path = double.kubeconfig(tmp_path / "config")

    def ask(*words):
        done = subprocess.run(
            [kubectl, "--kubeconfig", str(path), f"--cache-dir={tmp_path}", *words],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "pod/p0" in ask("get", "pods", "-o", "name")
    assert json.loads(ask("get", "pod", "p0", "-o", "json"))["spec"]["nodeName"] == "n0"
    assert "n0" in ask("get", "nodes")
    wide = ask("get", "pods", "-o", "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName,PHASE:.status.phase")
    assert wide.split() == ["NAME", "NODE", "PHASE", "p0", "n0", "Running"]
    ask("delete", "pod", "p0", "--wait=false")
    assert not places(double)


ODD_POD = Pod(
    "team/p",
    {"cpu": 1.5, "memory": 2.0**30 + 0.5, "nvidia.com/gpu": 2.0},
    priority=7,
    labels={"app": "a"},
    selector={"zone": "a"},
    rules=(
        Rule("disk", values=("ssd",)),
        Rule("gen", "Gt", ("3",), also=(Rule("gen", "Lt", ("9",)),)),
        Rule("rack", "Exists", weight=5),
        Rule("app", values=("a",), pods=True, anti=True),
        Rule("app", values=("b",), pods=True, weight=3, topology="zone"),
    ),
    tolerations=(Toleration("k", "Exists"), Toleration("q", "Equal", "v", "NoExecute")),
    group="g",
    preempts=False,
)


def test_what_is_written_reads_as_it_was():
    found = read_pod(pod_table(ODD_POD))
    assert not found.problem
    assert found.requests == {"pods": 1, "cpu": 1500, "memory": 2**30 + 1, "nvidia.com/gpu": 2}
    assert (found.name, found.priority, found.preempts, found.selector, found.group) == (
        "team/p",
        7,
        False,
        {"zone": "a"},
        "team/g",
    )
    assert found.tolerations == ODD_POD.tolerations
    [one] = found.terms
    assert one.met({"disk": "ssd", "gen": "4"}, "n")
    assert not one.met({"disk": "ssd", "gen": "9"}, "n")
    assert [(len(found.anti), len(found.affine), len(found.liked), len(found.preferred))] == [(1, 0, 1, 1)]
    machine = read_node(node_table(Node("n", {"cpu": 8.0, "memory": 2.0**35}, {"zone": "a"}, (Taint("k", "v"),))))
    assert dict(machine.capacity) == {"pods": 110, "cpu": 8000, "memory": 2**35}
    assert machine.labels["kubernetes.io/hostname"] == "n"
    with pytest.raises(SpecError, match="pod p: shares a device"):
        pod_table(Pod("p", {}, gpu_share=0.5))


def cluster(count=20):
    nodes = [Node(f"n{k}", {"cpu": 4.0, "memory": 2.0**34}) for k in range(4)]
    return {"nodes": nodes, "pods": [Pod(f"p{k}", {"cpu": 1.0, "memory": 2.0**30}) for k in range(count)]}


def test_a_run_on_a_double_is_a_measured_outcome():
    outcome = schedule(KubeDefault(), Cluster(on="kubernetes", double=True), {"place": "kube_default"}, **cluster())
    assert outcome.source == "measured"
    assert (outcome.metrics["placed"], outcome.metrics["unplaced"], outcome.metrics["conflicts"]) == (16, 4, 0)
    assert 0 < outcome.metrics["waits"]["p50"] <= outcome.metrics["waits"]["p99"]
    assert [row["pods"] for row in outcome.resources] == [4, 4, 4, 4]
    assert all(row["used"]["cpu"] == 1.0 for row in outcome.resources)
    assert (
        "0 of 4 nodes take it: 4 lack cpu (needs 1, the most left on one is 0)" in outcome.metrics["reasons"].values()
    )
    json.dumps(outcome.table())


def test_a_dry_run_changes_nothing(double, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(double.kubeconfig(tmp_path / "config")))
    double.store.add("priorityclasses", {"metadata": {"name": "high"}, "value": 100})
    double.store.add("nodes", node("n0", cpu="2"))
    double.store.add("replicasets", replicas("low", 2))
    for _, name in list(double.store.objects["pods"]):
        double.rules.bind("default", name, {"target": {"name": "n0"}})
    put(double, pod("high", priorityClassName="high"))
    before = double.store.version
    outcome = schedule(KubeDefault(), Cluster(on="kubernetes", dry_run=True), {})
    assert double.store.version == before
    assert (outcome.metrics["placed"], outcome.metrics["evicted"]) == (1, 1)
    assert any(note.startswith("would evict default/low-") for note in outcome.notes)
    assert "would then bind default/high to n0" in outcome.notes
    # And then for good, once.
    outcome = schedule(KubeDefault(), Cluster(on="kubernetes", once=True), {})
    assert (outcome.metrics["placed"], outcome.metrics["evicted"]) == (1, 1)
    assert places(double)["high"] == "n0"


def test_without_a_cluster_it_says_how_to_name_one(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(SpecError, match="KUBECONFIG: names no cluster"):
        schedule(KubeDefault(), Cluster(on="kubernetes", once=True), {})
    (tmp_path / "bad").write_text("{]")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "bad"))
    with pytest.raises(SpecError, match="KUBECONFIG: names no cluster"):
        schedule(KubeDefault(), Cluster(on="kubernetes", once=True), {})


def test_the_client_is_imported_only_where_it_is_used():
    code = "import sys, fleetcast.view.cli; sys.exit('kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_line_schedules_a_double(tmp_path, capsys):
    path = tmp_path / "pods.toml"
    path.write_text(dump_toml(SCENARIO))
    words = ["run", str(path), "--on", "kubernetes", "--double", "--json"]
    code = main(words)
    found = json.loads(capsys.readouterr().out)
    assert found["source"] == "measured"
    assert found["plan"]["place"]["kind"] == "best_fit"
    assert (code, found["metrics"]["unplaced"]) == (0, 0)
    assert main([*words[:-1], "--dry-run"]) == code
    shown = capsys.readouterr().out
    assert "would bind default/" in shown
    # What the simulated cluster comes to, where all pods are there from the start.
    assert main(["simulate", str(path), "--json"]) == 0
    simulated = json.loads(capsys.readouterr().out)
    assert found["metrics"]["placed"] == simulated["metrics"]["placed"]


def test_the_command_line_refuses_what_makes_no_sense(tmp_path, capsys):
    path = tmp_path / "pods.toml"
    path.write_text(dump_toml(SCENARIO))
    assert main(["run", str(path)]) == 2
    assert "--on kubernetes --double" in " ".join(capsys.readouterr().err.split())
    assert main(["run", "quickstart", "--on", "kubernetes"]) == 2
    assert "is for pods on a cluster" in " ".join(capsys.readouterr().err.split())
    assert main(["export", str(path), "--to", "vllm"]) == 2
    assert main(["run", str(path), "--on", "kubernetes", "--double", "--within", "0"]) == 2


def test_files_that_a_scenario_names_go_into_the_config_map(tmp_path):
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe")
    scenario = load({**SCENARIO, "workload": {"kind": "jobs", "pods": "p.csv"}, "fleet": {"devices": "1x h100-sxm"}})
    import msgspec

    scenario = msgspec.structs.replace(scenario, folder=str(tmp_path))
    with pytest.raises(SpecError, match=r"workload\.pods: cannot go into a ConfigMap"):
        files(scenario)
    (tmp_path / "p.csv").write_text("name,cpu\n")
    assert files(scenario)["p.csv"] == "name,cpu\n"
    (tmp_path / "p.csv").write_text("x" * 10**6)
    with pytest.raises(SpecError, match="too large for a ConfigMap"):
        files(scenario)
