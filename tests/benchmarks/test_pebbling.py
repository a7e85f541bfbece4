"""The graphs that schedules are compared on are those that were frozen, and blocked orders are orders."""

from benchmarks.pebbling import NUMBERS, blocked, levels, of
from benchmarks.pebbling_dags import frozen, made
from fleetcast.cost.pebbling import families
from fleetcast.policy.evict import Belady, Lru
from fleetcast.search.memory.holistic import two_stage


def test_the_frozen_graphs_are_those_that_are_made():
    there, anew = frozen(), made()
    assert list(there) == list(anew)
    for name, dag in there.items():
        assert [sorted(some) for some in dag.parents] == [sorted(some) for some in anew[name].parents]
        assert (dag.work, dag.size) == (anew[name].work, anew[name].size)
    assert sum(len(dag) <= 12 for dag in there.values()) >= 15


def test_the_pattern_of_six_rows_has_the_shape_of_its_file():
    """OneStopParallel's instance_spmv_N6_nzP0d4: 48 nodes, 42 values that are read, 96 pins."""
    dag = frozen()["spmv-6"]
    read = sum(bool(some) for some in dag.children)
    assert (len(dag), read, read + dag.edges) == (48, 42, 96)
    assert sorted(dag.work[v] for v in dag.sinks) == [1.0, 3.0, 3.0, 3.0, 3.0, 5.0]


def test_blocked_orders_compute_each_value_once_and_after_its_inputs():
    for dag, order in ((families.product(4), blocked(4, 2)), (families.butterfly(16), levels(16, 4))):
        done = set(dag.sources)
        for _, v in order:
            assert set(dag.parents[v]) <= done
            assert v not in done
            done.add(v)
        assert len(done) == len(dag)


def test_knowing_the_future_is_never_dearer_on_one_processor():
    for name, dag in frozen().items():
        for more in (0, 1, 3):
            it = of(dag, more, 1)
            assert two_stage(it, Belady()).cost <= two_stage(it, Lru()).cost, name


def test_the_classic_numbers_are_the_formulas():
    for name, _, number in NUMBERS:
        kind, size = name.split(" of ")
        first = int(size.split()[1] if "height" in size else size.split()[0])
        assert number == (2 if kind == "chain" else first + 2 if kind in ("tree", "pyramid") else first + 1)
