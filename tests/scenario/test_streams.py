"""Streams as files: what cannot be is refused with path, value, limit and next step; nothing makes a traceback."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fleetcast
from fleetcast.base.errors import FleetcastError, SpecError
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.load import dump, load
from fleetcast.view.verbs import example

LINE: dict[str, Any] = {
    "workload": {
        "kind": "stream", "samples": 50,
        "nodes": [
            {"name": "eye", "to": "box", "rate": "100 Hz", "size": "1 kB"},
            {"name": "box", "to": "disk", "ratio": 10, "classifier": "good", "op_energy": "1 uJ", "speed": "1 MOP/s"},
            {"name": "disk"},
        ],
        "classifiers": {"good": {"kind": "gaussian", "skill": 3.0}},
    },
    "plan": {"upgrades": [{"name": "half", "nodes": [{"name": "box", "op_energy": "0.5 uJ"}]}]},
}  # fmt: skip


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    table = copy.deepcopy(LINE)
    at: Any = table
    for step in path[:-1]:
        at = at.setdefault(step, {}) if isinstance(at, dict) else at[step]
    at[path[-1]] = value
    return table


N = ("workload", "nodes")
WRONG: list[tuple[tuple[str | int, ...], Any, str]] = [
    (N, [], "workload.nodes: is missing"),
    ((*N, 0, "to"), "bux", r"workload.nodes: eye.to: is not a node of the stream \(got 'bux'\).*Did you mean 'box'"),
    ((*N, 0, "rate"), 0, r"workload.nodes\[0\].rate: is out of range"),
    ((*N, 0, "rate"), "5 kg", r"workload.nodes\[0\].rate: has the wrong unit"),
    ((*N, 0, "size"), -1, r"workload.nodes\[0\].size: is out of range"),
    ((*N, 0, "compression"), 1.0, r"nodes\[0\].compression: is out of range.*below 1"),
    ((*N, 1, "ratio"), 0.5, r"nodes\[1\].ratio: is out of range.*at least 1"),
    ((*N, 1, "classifier"), "god", r"nodes\[1\].classifier: is not a classifier.*Did you mean 'good'"),
    ((*N, 1, "classifier"), {"kind": "gaussian"}, r"nodes\[1\].classifier.skill: is missing"),
    ((*N, 1, "classifier"), {"kind": "scores", "file": "a.csv", "skill": 1}, "skill: is not said of a classifier"),
    ((*N, 1, "classifier"), {"kind": "scores", "file": "none.csv"}, "none.csv: is not a file"),
    ((*N, 1, "classifier"), {"kind": "turn-on", "paths": [{"name": "a", "file": "f"}]}, "either mean or fires"),
    ((*N, 1, "complexity"), [], r"nodes\[1\].complexity: has a length"),
    ((*N, 1, "complexity"), [1.0] * 9, r"nodes\[1\].complexity: has a length"),
    ((*N, 1, "speed"), 0, r"nodes\[1\].speed: is out of range"),
    ((*N, 1, "lanes"), 0, r"nodes\[1\].lanes: is out of range"),
    ((*N, 1, "full"), "block", r"nodes\[1\].full"),
    ((*N, 1, "link"), {"bandwidth": 0}, r"nodes\[1\].link.bandwidth: is out of range"),
    ((*N, 1, "rate"), 5, "box: is a sensor, and others send to it"),
    ((*N, 2, "to"), "eye", "must end in one storage|leads round in a circle"),
    ((*N, 2, "to"), "box", "must end in one storage"),
    ((*N, 2, "name"), "box", r"nodes\[2\].name: stands twice"),
    ((*N, 2, "name"), " ", "name: is empty"),
    (("workload", "interesting"), 1.5, "workload.interesting: is out of range"),
    (("workload", "samples"), 0, "workload.samples: is out of range"),
    (("workload", "year"), 1066, "workload.year: is out of range"),
    (("workload", "arrivals"), "poison", "workload.arrivals"),
    (("workload", "node"), [], "Did you mean 'nodes'"),
    (("workload", "repair"), {"columns": {"a": "b"}}, "mends a workbook, and there is none"),
    (("workload", "system"), "none.xlsx", "workload.system: is not a file"),
    (("plan", "use"), ["halve"], r"plan.use\[0\]: is not an upgrade.*Did you mean 'half'"),
    (("plan", "upgrades"), [{"name": "a", "nodes": []}], r"plan.upgrades\[0\].nodes: is empty"),
    (("plan", "upgrades"), [{"name": "a", "nodes": [{"name": "x"}]}] * 2, "stands twice"),
    (("plan", "filter"), "box", "places a filter that there is not"),
    (("plan", "filter"), [], "plan.filter: names no node"),
    (("slo", "ttft_p99"), 1.0, "slo.ttft_p99: limits the latency of requests"),
    (("fleet", "devices"), "1x h100-sxm", "fleet.devices: is not said of a stream"),
    (("objective", "minimize"), "ttft", "objective.minimize: is unknown"),
    (("objective", "maximize"), "power", "belongs under minimize"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "said"), WRONG)
def test_what_cannot_be_is_refused(path: tuple[str | int, ...], value: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        fleetcast.simulate(changed(path, value))
    assert caught.value.limit or caught.value.hint or caught.value.value is not None


def test_an_upgrade_of_an_unknown_node_is_refused() -> None:
    table = changed(("plan", "upgrades", 0, "nodes", 0, "name"), "bax")
    table["plan"]["use"] = ["half"]
    with pytest.raises(SpecError, match=r"plan.upgrades\[0\].nodes\[0\].name: is not a node.*Did you mean 'box'"):
        fleetcast.simulate(table)


def test_a_circle_is_refused() -> None:
    table = copy.deepcopy(LINE)
    table["workload"]["nodes"] += [{"name": "x", "to": "y"}, {"name": "y", "to": "x"}]
    with pytest.raises(SpecError, match="leads round in a circle"):
        fleetcast.simulate(table)


def test_many_nodes_are_read_at_once_and_too_many_are_refused() -> None:
    import time

    chain = [{"name": "s", "to": "n0", "rate": 1, "size": 1}]
    chain += [{"name": f"n{i}", "to": f"n{i + 1}", "latency": 1e-3} for i in range(1990)] + [{"name": "n1990"}]
    start = time.process_time()
    outcome = fleetcast.simulate({"workload": {"kind": "stream", "nodes": chain}})
    assert outcome.metrics["latency"] == pytest.approx(1.99)
    assert time.process_time() - start < 5
    wide = [{"name": f"s{i}", "to": "d", "rate": 1, "size": 1} for i in range(1990)] + [{"name": "d"}]
    assert fleetcast.simulate({"workload": {"kind": "stream", "nodes": wide}}).metrics["output_bytes"] == 1990.0
    with pytest.raises(SpecError, match=r"workload.nodes: are too many \(got 2001\)"):
        fleetcast.simulate({"workload": {"kind": "stream", "nodes": [*wide[:-1], *chain[:11]]}})


def test_senders_wait_only_in_a_line() -> None:
    table = copy.deepcopy(LINE)
    table["workload"]["nodes"][1] |= {"full": "wait", "buffer": 2, "merge": "interleave"}
    table["workload"]["nodes"].append({"name": "ear", "to": "box", "rate": 1, "size": 1})
    with pytest.raises(SpecError, match="lets senders wait where ways join"):
        fleetcast.simulate(table)
    table["workload"]["nodes"].pop()
    table["workload"]["nodes"][2] |= {"buffer": 3}
    with pytest.raises(SpecError, match="drops samples where another node lets senders wait"):
        fleetcast.simulate(table)


def test_a_filter_needs_a_node_that_can() -> None:
    table = copy.deepcopy(LINE)
    table["workload"]["filter"] = {"ratio": 4, "classifier": "good"}
    for at, said in (("box", "makes a choice of its own"), ("bix", "Did you mean 'box'")):
        table["plan"]["filter"] = at
        with pytest.raises(SpecError, match=said):
            fleetcast.simulate(table)
    table["plan"]["filter"] = ["eye", "disk"]
    with pytest.raises(SpecError, match="is a list, and one pipeline is simulated"):
        fleetcast.simulate(table)
    table["plan"]["filter"] = "nowhere"
    assert fleetcast.simulate(table).plan["filter"] == "nowhere"


@pytest.mark.parametrize("name", ["cameras", "trigger"])
def test_a_dumped_example_is_the_example(name: str) -> None:
    scenario = load(example(name))
    assert isinstance(scenario, StreamScenario)
    again = load(dump(scenario))
    assert fleetcast.simulate(again).metrics == fleetcast.simulate(scenario).metrics


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 10**7), st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["", "box", "disk", "eye", "wait", "1 s", "-3 J", "5 MOP/s", "good", "gaussian", "x" * 50]),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.sampled_from(["kind", "skill", "energy"]), st.integers(-1, 9)),
)  # fmt: skip
KEYS = [
    "name", "to", "rate", "size", "compression", "ratio", "classifier", "op_energy", "complexity", "speed", "time",
    "lanes", "buffer", "full", "dead_time", "latency", "merge", "link",
]  # fmt: skip


@given(changes=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(KEYS), JUNK), min_size=1, max_size=4))
def test_nonsense_never_makes_a_traceback(changes: list[tuple[int, str, Any]]) -> None:
    table = copy.deepcopy(LINE)
    for node, key, value in changes:
        table["workload"]["nodes"][node][key] = value
    try:
        metrics = fleetcast.simulate(table).metrics
    except FleetcastError as error:
        assert str(error)
        return
    total = metrics["tp"] + metrics["fp"] + metrics["fn"] + metrics["tn"]
    assert total == pytest.approx(metrics["input_rate"])
    assert metrics["power"] >= 0.0
    assert 0.0 <= metrics["f1"] <= 1.0


@given(text=st.text(max_size=200))
def test_any_text_is_a_scenario_or_an_error(text: str) -> None:
    try:
        load('[workload]\nkind = "stream"\n' + text)
    except FleetcastError as error:
        assert str(error)


def test_paths_start_at_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("score,label\n0,0\n1,1\n")
    table = changed((*N, 1, "classifier"), {"kind": "scores", "file": "s.csv"})
    (tmp_path / "file.toml").write_text(dump(load(table)))
    assert fleetcast.simulate(tmp_path / "file.toml").metrics["f1"] == pytest.approx(1.0)
