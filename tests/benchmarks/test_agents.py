"""The graphs that agents are measured on are those that were frozen."""

from statistics import mean

from benchmarks.agents_graphs import DIGEST, NARROWEST, WIDEST, digest, graphs, longest


def test_graphs_are_the_frozen_ones():
    drawn = graphs()
    assert len(drawn) == 55
    assert digest(drawn) == DIGEST
    assert 1.6 < mean(g.width for g in drawn) < 1.8
    for graph in drawn:
        assert NARROWEST <= graph.width <= WIDEST
        assert all(before < after for before, after in graph.edges)
        assert min(graph.units) >= 1.0


def test_longest_chain_of_a_diamond():
    assert longest((1.0, 2.0, 3.0, 1.0), ((0, 1), (0, 2), (1, 3), (2, 3))) == 5.0
