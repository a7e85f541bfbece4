"""Task graphs: columns, generators held to closed forms, readers held to files, and what they refuse."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.graphs import Task, TaskGraph, assemble
from fleetcast.scenario.workload.graphs.files import read_graph
from fleetcast.scenario.workload.graphs.generators import Cholesky, ForkJoin, Layered, Lu, Qr, Stencil
from fleetcast.scenario.workload.graphs.hdag import parse_hdag
from fleetcast.scenario.workload.graphs.wfformat import parse_wfformat
from fleetcast.view import verbs


def pairs(graph: TaskGraph) -> set[tuple[str, str]]:
    tails = graph.parent_of_edge.tolist()
    return {(graph.names[a], graph.names[b]) for a, b in zip(tails, graph.child.tolist(), strict=True)}


def test_a_graph_written_in_code_keeps_names_edges_and_bytes() -> None:
    graph = TaskGraph.of(
        [Task(name="c", work=3, kernel="K"), Task(name="a", work=1), Task(name="b", work=2, memory=5, inputs=7)],
        [("a", "b", 10), ("a", "c", 20, "tile"), ("b", "c"), ("a", "b", 1)], unit="s",
    )  # fmt: skip
    assert (len(graph), graph.edges) == (3, 3)
    assert pairs(graph) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert [graph.names[i] for i in graph.order] == ["a", "b", "c"]
    assert graph.kernels == ("K", "a", "b")
    b = graph.index("b")
    assert graph.size[graph.first[graph.index("a")] :][:2].tolist() == [20.0, 11.0]  # c comes first, pieces add up
    assert [graph.names[p] for p in graph.parents(graph.index("c"))] == ["a", "b"]
    assert (graph.memory[b], graph.inputs[b]) == (5.0, 7.0)


@pytest.mark.parametrize(
    ("tasks", "edges", "said"),
    [
        ([("a", 1), ("a", 2)], [], r"tasks\[1\].name: is a second task of that name"),
        ([("a", 1)], [("a", "z")], r"edges\[0\]: names a task that is not there \(got 'z'\)"),
        ([("a", 1)], [("a", "a")], "has a task that waits for itself: a -> a"),
        (
            [("a", 1), ("b", 1), ("c", 1)], [("a", "b"), ("b", "c"), ("c", "b")],
            "has a cycle of 2 tasks: (b -> c -> b|c -> b -> c)",
        ),
        ([("a", -1)], [], r"graph.a.work: is negative \(got -1.0\); 0 or more"),
        ([("a", float("nan"))], [], "graph.a.work: is not finite"),
        ([("a", 1), ("b", 1)], [("a", "b", -2)], "graph.a -> b.size: is negative"),
        ([], [], "has no tasks"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(tasks: list[Any], edges: list[Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        TaskGraph.of([Task(name=n, work=w) for n, w in tasks], edges)


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(
    st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30))))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_cycle_is_found_where_there_is_one_and_shown_as_one(case: tuple[int, list[tuple[int, int]]]) -> None:
    n, edges = case
    reach = np.zeros((n, n), bool)
    for a, b in edges:
        reach[a, b] = True
    for k in range(n):
        reach |= reach[:, k : k + 1] & reach[k : k + 1, :]
    tasks, named = [Task(name=f"t{i}", work=1) for i in range(n)], [(f"t{a}", f"t{b}") for a, b in edges]
    if not reach.diagonal().any():
        graph = TaskGraph.of(tasks, named)
        place = {int(t): i for i, t in enumerate(graph.order)}
        assert all(place[a] < place[b] for a, b in edges)
        return
    with pytest.raises(SpecError) as found:
        TaskGraph.of(tasks, named)
    shown = str(found.value).partition("tasks: ")[2].partition(";")[0].split(" -> ")
    assert shown[0] == shown[-1]
    assert set(itertools.pairwise(shown)) <= set(named)


@pytest.mark.parametrize(("made", "share", "count"), [
    (Cholesky, 1 / 3, lambda n: n * (n + 1) * (n + 2) // 6), (Lu, 2 / 3, lambda n: n * (n + 1) * (2 * n + 1) // 6),
    (Qr, 4 / 3, lambda n: n * (n + 1) * (2 * n + 1) // 6),
])  # fmt: skip
@pytest.mark.parametrize("tiles", [1, 2, 5, 9])
def test_factorisations_have_the_flop_and_tasks_of_the_whole_matrix(
    made: Any, share: float, count: Any, tiles: int
) -> None:
    graph = made(tiles=tiles, tile=100, element=8).graph()
    assert graph.work.sum() == pytest.approx(share * (tiles * 100) ** 3, rel=1e-12)
    assert len(graph) == count(tiles)
    matrix = tiles * (tiles + 1) / 2 if made is Cholesky else tiles**2
    assert graph.inputs.sum() == pytest.approx(matrix * 100**2 * 8)  # every tile is read from outside once


def test_the_edges_of_a_small_cholesky_are_those_of_the_algorithm() -> None:
    assert pairs(Cholesky(tiles=3, tile=4).graph()) == {
        ("POTRF(0)", "TRSM(1,0)"), ("POTRF(0)", "TRSM(2,0)"), ("TRSM(1,0)", "SYRK(1,0)"), ("TRSM(2,0)", "SYRK(2,0)"),
        ("TRSM(2,0)", "GEMM(2,1,0)"), ("TRSM(1,0)", "GEMM(2,1,0)"), ("SYRK(1,0)", "POTRF(1)"),
        ("POTRF(1)", "TRSM(2,1)"), ("GEMM(2,1,0)", "TRSM(2,1)"), ("TRSM(2,1)", "SYRK(2,1)"),
        ("SYRK(2,0)", "SYRK(2,1)"), ("SYRK(2,1)", "POTRF(2)"),
    }  # fmt: skip


def test_stencil_layers_and_forks_have_the_shape_they_say() -> None:
    heat = Stencil(blocks=3, block=10, steps=4).graph()
    assert (len(heat), heat.edges) == (36, 3 * (9 + 2 * 12))
    assert len(heat.parents(heat.index("HEAT(1,1,1)"))) == 5
    layered = Layered(tasks=95, width=10, degree=3, spread=0.2).graph(7)
    assert set((layered.child // 10 - layered.parent_of_edge // 10).tolist()) == {1}
    assert layered.work.min() >= 0.8e9
    assert layered.work.max() <= 1.2e9
    assert layered.work.tolist() == Layered(tasks=95, width=10, degree=3, spread=0.2).graph(7).work.tolist()
    fork = ForkJoin(stages=2, width=3).graph()
    assert (len(fork), fork.edges) == (9, 12)
    assert sorted(np.diff(fork.first).tolist()) == [0, 1, 1, 1, 1, 1, 1, 3, 3]


V1 = b"""%%MatrixMarket-like
% HyperDAG file format v1
2 4 5 % hyperedges, nodes, pins
0 3
1 2
0 5
1 6
2 7
3
0 0
0 1
0 2
1 1
1 3
"""
OLD = b"2 4 5\n0 0\n0 1\n0 2\n1 1\n1 3\n0 5 3\n1 6 2\n2 7 1\n3 1 1\n"


@pytest.mark.parametrize("data", [V1, OLD, V1.replace(b"\n", b"\r\n"), V1.replace(b"0 5", b"0  5"), V1 + b"\n"])
def test_both_forms_of_a_hyperdag_give_the_same_graph(data: bytes) -> None:
    graph = parse_hdag(data, "x.hdag", work=0.5, size=10.0)
    assert pairs(graph) == {("n0", "n1"), ("n0", "n2"), ("n1", "n3")}
    assert graph.work.tolist() == [2.5, 3.0, 3.5, 0.5]
    assert graph.size.tolist() == [30.0, 30.0, 20.0]
    assert graph.datum.tolist() == [0, 0, 1]  # what n0 made is one datum, read twice


@pytest.mark.parametrize(("data", "said"), [
    (b"", "has no header"), (OLD.replace(b"1 6 2", b""), "line 8: is too short"),
    (b"% nothing\n", "has no header"), (b"1 2\n", "line 1: is too short"),
    (b"1 2 x\n", "line 1: is too short or not numbers"), (b"1 0 2\n0 0\n0 0\n", "line 1: is no header"),
    (b"1.5 2 2\n", "is no header"), (b"inf 1 nan\n0\n", "is no header"), (V1[:-5], "lines below its header"),
    (V1.replace(b"0 5\n", b"9 5\n"), "names a node"),
    (V1.replace(b"1 3\n", b"1 4\n"), "names a node that is not there"),
    (V1.replace(b"1 2\n0 5", b"0 2\n0 5"), "lists a hyperedge twice"),
    (V1.replace(b"2 7", b"2 -7"), r"x.hdag.n2.work: is negative"), (V1.replace(b"1 3\n", b"1 0\n"), "has a cycle"),
    (V1.replace(b"1 6", b"1 six"), "line 7: is too short or not numbers"),
    (V1.replace(b"0 3", b"0 nan"), "size: is not finite"),
])  # fmt: skip
def test_malformed_hyperdags_are_refused_with_the_line(data: bytes, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_hdag(data, "x.hdag")


def workflow(**changes: Any) -> dict[str, Any]:
    tasks = [
        {"name": "split", "id": "split", "parents": [], "children": ["left", "right"], "inputFiles": ["in"],
         "outputFiles": ["a", "b"]},
        {"name": "left", "id": "left", "parents": ["split"], "children": ["join"], "inputFiles": ["a", "db"],
         "outputFiles": ["c"]},
        {"name": "right", "id": "right", "parents": ["split"], "children": ["join"], "inputFiles": ["a", "b"],
         "outputFiles": ["d"]},
        {"name": "join", "id": "join", "parents": ["left", "right"], "children": [], "inputFiles": ["c", "d"],
         "outputFiles": ["out"]},
    ]  # fmt: skip
    sizes = {"in": 100, "a": 10, "b": 5, "c": 3, "d": 4, "db": 50, "out": 1}
    ran = [{"id": t["id"], "runtimeInSeconds": i + 1.0, "memoryInBytes": 7, "command": {"program": f"/bin/{t['id']}"}}
           for i, t in enumerate(tasks)]  # fmt: skip
    table: dict[str, Any] = {
        "name": "small", "schemaVersion": "1.5",
        "workflow": {
            "specification": {"tasks": tasks, "files": [{"id": k, "sizeInBytes": v} for k, v in sizes.items()]},
            "execution": {"tasks": ran, "makespanInSeconds": 1},
        },
    }  # fmt: skip
    for path, value in changes.items():
        at: Any = table
        *steps, last = (int(s) if s.isdigit() else s for s in path.split("__"))
        for step in steps:
            at = at[step]
        if value is ...:
            del at[last]
        else:
            at[last] = value
    return table


def read(table: dict[str, Any]) -> TaskGraph:
    return parse_wfformat(json.dumps(table).encode(), "w.json")


def test_a_workflow_keeps_times_files_and_what_comes_from_outside() -> None:
    graph = read(workflow())
    assert graph.unit == "s"
    assert graph.names == ("split", "left", "right", "join")
    assert graph.work.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert graph.kernels == ("split", "left", "right", "join")
    assert graph.size.tolist() == [10.0, 15.0, 3.0, 4.0]
    assert graph.inputs.tolist() == [100.0, 50.0, 0.0, 0.0]
    assert graph.memory.tolist() == [7.0] * 4


S = "workflow__specification__tasks"


@pytest.mark.parametrize(("changes", "said"), [
    ({f"{S}__3__parents": ["lost"]}, r"w.json.join.parents: names a task that is not there \(got 'lost'\)"),
    ({f"{S}__0__children": ["rigth"]}, "Did you mean 'right'"),
    ({f"{S}__1__id": "split"}, "is a second task of that id"),
    ({f"{S}__0__parents": ["join"]}, "has a cycle of 3 tasks"),
    ({"workflow__execution__tasks__1__runtimeInSeconds": -3}, "w.json.left.runtimeInSeconds: is negative"),
    ({"workflow__execution__tasks__1": ...}, "w.json.left.runtimeInSeconds: is missing"),
    ({"workflow__execution__tasks__1__id": "other"}, "is no task of the specification"),
    ({"workflow__execution": ...}, "workflow.execution: is missing"), ({"workflow": ...}, "is not WfFormat"),
    ({"workflow__specification": ...}, "workflow.specification: is missing"),
    ({f"{S}__0__inputFiles": 3}, "is not WfFormat: Expected `array`"), ({S: []}, "is no task of the specification"),
    ({"workflow__specification__files__1__sizeInBytes": -1}, "files\\[1\\].sizeInBytes: is out of range"),
])  # fmt: skip
def test_malformed_workflows_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read(workflow(**changes))


TOKENS = [
    b"0",
    b"-1",
    b"1e400",
    b"nan",
    b"inf",
    b"",
    b" ",
    b"\n",
    b"%",
    b"99999999999999999999",
    b"\xff",
    b"[",
    b"null",
]


@given(
    st.binary(max_size=200),
    st.lists(
        st.tuples(
            st.integers(0, 10_000), st.integers(0, 12), st.one_of(st.sampled_from(TOKENS), st.binary(max_size=2))
        ),
        max_size=5,
    ),
)
@settings(max_examples=500, deadline=None)
def test_no_bytes_make_a_reader_fail_otherwise_than_by_saying_so(
    noise: bytes, hits: list[tuple[int, int, bytes]]
) -> None:
    def hurt(data: bytes) -> bytes:
        held = bytearray(data)
        for at, length, token in hits:
            begin = at % (len(held) + 1)
            held[begin : begin + length] = token
        return bytes(held)

    for data in (noise, hurt(V1), hurt(OLD)):
        try:
            graph = parse_hdag(data, "x.hdag")
        except SpecError:
            continue
        assert len(graph.order) == len(graph)
    for data in (noise, hurt(json.dumps(workflow()).encode())):
        try:
            graph = parse_wfformat(data, "w.json")
        except SpecError:
            continue
        assert len(graph.order) == len(graph)


def test_files_are_read_by_their_names_and_refused_clearly(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text(json.dumps(workflow()))
    (tmp_path / "w.json.gz").write_bytes(gzip.compress(json.dumps(workflow()).encode()))
    (tmp_path / "d.hdag").write_bytes(V1)
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"{}" * 1000)[:-9])
    assert read_graph(tmp_path / "w.json").work.tolist() == read_graph(tmp_path / "w.json.gz").work.tolist()
    assert len(read_graph(tmp_path / "d.hdag")) == 4
    for name, said in (
        ("none.json", "is not a file"), ("w.dot", "is no kind of file"), ("cut.json.gz", "is not a whole gzip file"),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=said):
            read_graph(tmp_path / name)


def test_the_published_workflows_are_read(measured: Path) -> None:
    files = sorted((measured / "scheduling" / "workflows").glob("*.json.gz"))
    if not files:
        pytest.skip("no workflows there")
    graphs = {f.name: read_graph(f) for f in files}
    assert all(len(g) > 1 and g.edges > 0 for g in graphs.values())
    montage = next(g for name, g in graphs.items() if "montage-chameleon-2mass-005d" in name)
    assert (len(montage), montage.edges) == (58, 114)
    assert "mProject" in montage.kernels


def test_the_packaged_workflow_is_read() -> None:
    graph = read_graph(verbs.example("graph-workflow").parent / "mosaic.json")
    assert (len(graph), graph.edges) == (29, 55)


def test_a_million_edges_are_read_in_a_moment() -> None:
    draw = np.random.default_rng(0)
    n, m = 200_000, 1_000_000
    source = draw.integers(0, n - 1000, m)
    target = source + draw.integers(1, 1000, m)
    rows = np.unique(source * n + target)
    source, target = rows // n, rows % n
    heads = np.unique(source)
    number = np.searchsorted(heads, source)
    lines = [f"{len(heads)} {n} {len(heads) + len(rows)}"]
    lines += [f"{i} 1" for i in range(len(heads))] + [f"{i} 2" for i in range(n)]
    lines += [f"{i} {v}" for i, v in enumerate(heads.tolist())]
    lines += [f"{e} {v}" for e, v in zip(number.tolist(), target.tolist(), strict=True)]
    data = "\n".join(lines).encode()
    begin = time.process_time()
    graph = parse_hdag(data, "big.hdag")
    assert time.process_time() - begin < 15.0  # a second or so where it is compiled and nobody else computes
    assert graph.edges == len(rows)


def test_columns_of_unlike_graphs_are_refused_alike() -> None:
    with pytest.raises(SpecError, match=r"two\.b\.memory: is negative"):
        assemble(
            name="two", names=("a", "b"), kernels=("k",), kernel=[0, 0], work=[1, 1], unit="s", parent=[], child=[],
            size=[], memory=[1, -1],
        )  # fmt: skip
