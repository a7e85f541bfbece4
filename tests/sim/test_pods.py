"""Pods that come and go, nodes that fail, and the tables that they are read from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import FleetcastError, SpecError
from fleetcast.policy.place.pods import BestFit, KubeDefault
from fleetcast.scenario.load import load
from fleetcast.scenario.workload.pod_list import DrawnPods
from fleetcast.scenario.workload.pods import distinct
from fleetcast.scenario.workload.pods.readers import parse_nodes, parse_pods
from fleetcast.sim.cluster.pods import play
from fleetcast.sim.cluster.pods_outcome import setting, simulate
from fleetcast.view import verbs
from fleetcast.view.cli import main

NODES = b"name,cpu,memory,gpu,model,labels,taints,down_from,down_until\na,4,8Gi,2,T4,zone=x,,,\n"
NODES += b"b,4,8Gi,,,zone=y,keep,10,20\n"


def pods(rows: str) -> object:
    return parse_pods(("name,cpu,memory,gpu,gpu_share,priority,arrival,departure\n" + rows).encode(), "pods.csv")


def test_a_pod_waits_until_another_departs() -> None:
    nodes = parse_nodes(b"name,cpu,memory\na,4,8Gi\n", "nodes.csv")
    played = play(nodes, pods("x,3,1Gi,,,0,0,7\ny,2,500Mi,,,0,1,9\n"), KubeDefault())  # type: ignore[arg-type]
    assert played.start.tolist() == [0.0, 7.0]
    assert played.used["cpu"] == pytest.approx((3 * 7 + 2 * 2) / (4 * 9))
    record = played.record()
    assert record.time.tolist() == [0.0, 7.0] and record.duration.tolist() == [7.0, 2.0]


def test_pods_of_a_lost_node_start_elsewhere_and_it_comes_back() -> None:
    nodes = parse_nodes(NODES.replace(b"keep", b""), "nodes.csv")
    played = play(nodes, pods("x,3,1Gi,,,0,0,\ny,3,1Gi,,,0,0,\n"), BestFit())  # type: ignore[arg-type]
    assert played.lost == 1
    assert not played.waiting and len(played.spans) == 3, "it ran on b, and does again from 20 s"


def test_evicted_pods_are_asked_again_at_once() -> None:
    nodes = parse_nodes(b"name,cpu,memory\na,4,8Gi\nb,2,8Gi\n", "nodes.csv")
    played = play(nodes, pods("low,2,1Gi,,,0,0,\nhigh,4,1Gi,,,9,1,\n"), KubeDefault())  # type: ignore[arg-type]
    assert played.evicted == 1 and not played.waiting


@pytest.mark.parametrize("seed", range(5))
def test_pods_are_conserved(seed: int) -> None:
    nodes, drawn = distinct(8, 8, 1.1, 3, seed)
    played = play(nodes, drawn, KubeDefault())
    on = sum(len(p) for p in played.ledger.by_node())
    assert on + len(played.waiting) == len(drawn)
    assert (played.ledger.free >= 0).all()
    want = sum(played.ledger.need(laid.pod).amount for laid in played.ledger.laid.values())
    assert ((played.ledger.capacity - played.ledger.free).sum(axis=0) == want).all()


def test_drawn_pods_are_frozen() -> None:
    nodes, drawn = DrawnPods(nodes=4, usage=0.95, seed=7).draw()
    assert (float(nodes.cpu[0]), round(float(drawn.cpu.sum()), 3)) == (5.08, 19.304)
    assert drawn.source == "synthetic"


WRONG = [
    ("x,3,1Gi,,,zero,0,\n", "line 2, column priority: is not a whole number"),
    ("x,three,1Gi,,,0,0,\n", "line 2, column cpu: is not a number"),
    ("x,3,-1,,,0,0,\n", "column memory: is out of range"),
    ("x,3,1Gi,1,0.5,0,0,\n", "column gpu_share: is no share of one device"),
    ("x,3,1Gi,,,0,5,1\n", "column departure: is before the arrival"),
    ("x,3,1Gi\n", "line 2: has 3 fields"),
    ("x,1,1,,,0,0,\nx,1,1,,,0,0,\n", "has pod 'x' twice"),
    ("", "has a header and no rows"),
]


@pytest.mark.parametrize(("rows", "words"), WRONG, ids=[w[:30] for _, w in WRONG])
def test_bad_tables_name_line_column_and_value(rows: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        pods(rows)
    assert words in str(caught.value) and "pods.csv" in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 200), st.sampled_from([parse_pods, parse_nodes]))
def test_readers_never_crash(noise: bytes, at: int, parse: object) -> None:
    for data in (noise, NODES[:at] + noise + NODES[at:]):
        try:
            parse(data, "t.csv")  # type: ignore[operator]
        except FleetcastError as error:
            assert "t.csv" in str(error)


def test_openb_columns_are_read(tmp_path: Path) -> None:
    rows = b"name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,"
    rows += b"scheduled_time\n"
    rows += b"p0,6000,12288,1,460,V100M16|V100M32,LS,Running,427,1290,427\np1,12000,16384,2,1000,,BE,Running,0,9,0\n"
    found = parse_pods(rows, "openb")
    assert found.names == ("p1", "p0") and found.share.tolist() == [0.0, 0.46] and found.devices.tolist() == [2, 0]
    assert found.models == ((), ("V100M16", "V100M32")) and found.departure.tolist() == [9.0, 1290.0]
    (tmp_path / "pods.csv.gz").write_bytes(gzip.compress(rows))
    (tmp_path / "nodes.csv").write_bytes(b"sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,V100M16\n")
    (tmp_path / "s.toml").write_text('[workload]\nkind = "jobs"\npods = "pods.csv.gz"\nnodes = "nodes.csv"\n')
    outcome = verbs.simulate(load(tmp_path / "s.toml"))
    assert outcome.metrics["placed"] == 2 and outcome.metrics["unplaced"] == 0


def scenario(**workload: object) -> dict[str, object]:
    drawn = {"kind": "distinct", "nodes": 8, "usage": 1.0, "seed": 3}
    return {"name": "t", "workload": {"kind": "jobs", "pods": drawn} | workload}


def test_simulate_reports_tiers_moves_and_reasons() -> None:
    m = simulate(setting(load(scenario())), "best_fit").metrics
    assert m["placed"] + m["unplaced"] == 64 and m["unplaced"] == len(m["reasons"]) > 0
    assert sum(row["placed"] for row in m["by_priority"].values()) == m["placed"]
    assert all("needs" in why for why in m["reasons"].values())


def test_plan_ranks_by_tier_and_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import fleetcast.base.spec as spec

    path = tmp_path / "t.toml"
    path.write_text(spec.dump_toml(scenario() | {"plan": {"place": ["kube_default", "best_fit", "restarts"]}}))
    assert main(["plan", str(path), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    tiers = [[row["placed"] for row in plan["metrics"]["by_priority"].values()] for plan in table["plans"]]
    assert tiers == sorted(tiers, reverse=True) and len(tiers) == 3
    assert main(["plan", str(path)]) == 0
    assert "Best:" in capsys.readouterr().out
    assert main(["simulate", str(path), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "plan.toml").exists() and (tmp_path / "out" / "trace.json.gz").exists()
    again = load(tmp_path / "out" / "plan.toml")
    assert verbs.simulate(again).metrics["pods"] == 64


def test_check_names_pods_that_no_node_takes(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("name,cpu,memory\nbig,9,1\nfine,1,1\n")
    (tmp_path / "n.csv").write_text("name,cpu,memory\na,4,8Gi\n")
    (tmp_path / "s.toml").write_text('[workload]\nkind = "jobs"\npods = "p.csv"\nnodes = "n.csv"\n')
    found = verbs.check(load(tmp_path / "s.toml"))
    assert [r.path for r in found][:1] == ["workload.pods: big"]
    assert "cpu: needs 9 cores, and the largest node has 4 cores" in found[0].text


NONSENSE = [
    ({"nodes": "n.csv"}, {}, "workload.nodes: is named, and generated pods bring their nodes"),
    ({"pod": 1}, {}, "workload.pod: is not a key here"),
    ({}, {"plan": {"place": "cpsat"}}, "Did you mean 'cp_sat'"),
    ({}, {"plan": {"place": []}}, "plan.place: names no policy"),
    ({}, {"plan": {"place": [{"budget": 1}]}}, "plan.place[0].kind: is missing"),
    ({}, {"plan": {"place": ["fgd", "fgd"]}}, "plan.place[1]: is named before"),
    ({}, {"plan": {"place": {"kind": "restarts", "budget": 0}}}, "budget is above 0"),
    ({}, {"objective": {"minimize": "cost"}}, "objective.minimize: is unknown"),
    ({}, {"slo": {"ttft_p99": "1 s"}}, "limits the latency of requests"),
]


@pytest.mark.parametrize(("workload", "more", "words"), NONSENSE, ids=[w[:30] for _, _, w in NONSENSE])
def test_nonsense_is_refused_by_name(workload: dict[str, object], more: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        simulate(setting(load(scenario(**workload) | more)))
    assert words in str(caught.value)


def test_devices_of_the_fleet_serve_as_nodes(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("name,cpu,memory,gpu\n" + "".join(f"p{i},1,1,4\n" for i in range(5)))
    (tmp_path / "s.toml").write_text('[fleet]\ndevices = "16x h100-sxm"\n[workload]\nkind = "jobs"\npods = "p.csv"\n')
    outcome = verbs.simulate(load(tmp_path / "s.toml"))
    assert outcome.metrics["placed"] == 4 and any("do not bind" in note for note in outcome.notes)
    assert np.isclose(outcome.metrics["allocated"], 1.0)
