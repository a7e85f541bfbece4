"""Where stages go: against every placement of up to 16 nodes, and what a placement may not lose."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.placements import CASES, excess, kinds_of, tree_of
from fleetcast.base.errors import PolicyError
from fleetcast.cost.training import network as networks
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import plans
from fleetcast.policy.place.stages import Blind, NicAware, Placement, View
from fleetcast.scenario.workload.training import Shape
from fleetcast.sim.training.mixed import follow, iterate, pace


def every_split(layers, stages):
    """All ways to deal layers to stages, at least one each."""
    for cuts in itertools.combinations(range(1, layers), stages - 1):
        bounds = (0, *cuts, layers)
        yield tuple(b - a for a, b in itertools.pairwise(bounds))


times = st.floats(0.1, 3.0)


@given(st.lists(st.tuples(st.integers(1, 3), times), min_size=1, max_size=3), st.integers(0, 6), times, times)
def test_the_split_is_the_best_of_all_splits(groups, more, first, last):
    counts = tuple(count for count, _ in groups)
    view = View(counts, tuple(s for _, s in groups), sum(counts) + more, (first,) * len(groups), (last,) * len(groups))
    made = NicAware().place(view)

    def longest(layers):
        found = [view.seconds[g] * n for g, n in zip(made.groups, layers, strict=True)]
        found[0] += first
        found[-1] += last
        return max(found)

    assert longest(made.layers) == pytest.approx(min(map(longest, every_split(view.layers, sum(counts)))))


@pytest.mark.parametrize("case", CASES)
def test_the_rule_is_within_a_hundredth_of_every_placement_of_nodes(case):
    """Every way to deal the nodes of two clusters to stages, mixed stages on the link they share; layers by greed."""
    found = excess(*case)
    if found is None:
        pytest.skip("stages do not divide over the groups")
    assert found <= 0.01


def test_one_network_for_all_is_slower_and_a_slow_group_gets_fewer_layers():
    tree = tree_of(("ib", 2, "infiniband-hdr"), ("slow", 2, "ethernet-10g"))
    net, job = networks.of(Shape(layers=30, hidden=3072, heads=32).model(2048)), Job(2048, 512)
    one = plans(pipeline=2, data=16, micro_batch=4, zero=1)
    aware, blind = (iterate(tree, net, job, one, policy, (1, 1)) for policy in (NicAware(), Blind()))
    assert aware.time < blind.time
    assert sum(aware.placement.layers) == sum(blind.placement.layers) == 30
    for happened in (aware, blind):
        assert sum(happened.terms.values()) == pytest.approx(happened.time)


def test_a_placement_that_loses_layers_is_refused():
    class Forgetful(Blind):
        kind = "forgetful"

        def place(self, view):
            made = super().place(view)
            return Placement(made.groups, (*made.layers[:-1], 0), made.own_links)

    tree = tree_of(("a", 2, "infiniband-hdr"), ("b", 2, "infiniband-hdr"))
    net, job = networks.of(Shape(layers=4, hidden=1024, heads=8).model(512)), Job(512, 64)
    with pytest.raises(PolicyError, match="forgetful"):
        iterate(tree, net, job, plans(pipeline=2, data=16), Forgetful(), (1, 1))


def test_like_groups_are_one_fleet():
    """Two halves of one cluster, joined by the same link, take what the whole takes."""
    tree = tree_of(("a", 2, "infiniband-hdr"), ("b", 2, "infiniband-hdr"), network="infiniband-hdr")
    net, job = networks.of(Shape(layers=16, hidden=2048, heads=16).model(1024)), Job(1024, 128)
    one = plans(pipeline=2, data=16, micro_batch=2)
    own = [pace(net, job, one, system) for system in kinds_of(tree)[:2]]
    assert own[0] == own[1]
    made = follow(tree, net, job, one, Placement((0, 1), (8, 8), own_links=True), own)
    assert made.stages[0] + own[0].last == pytest.approx(made.stages[1])
