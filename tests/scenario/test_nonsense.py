"""Every key of a scenario with every kind of nonsense: an error names path and value and what to write, no traceback.

Also the keys that would be read by nothing: they are refused, or noted where they do no harm.
"""

import copy
import datetime
import math
import typing

import msgspec
import pytest

from fleetcast.base.errors import FleetcastError, SpecError
from fleetcast.scenario.fleet.failures import Failures
from fleetcast.scenario.fleet.spec import Fleet, FleetGroup, Links
from fleetcast.scenario.load import load
from fleetcast.scenario.objective import Objective, Slo
from fleetcast.scenario.plan import Pool
from fleetcast.scenario.workload.serving import Arrivals, Lengths, Serving, Sessions
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting

BASE = {
    "fleet": {"devices": "2x h100-sxm"},
    "workload": {
        "model": "llama-3.1-8b",
        "arrivals": {"kind": "poisson", "rate": "4 /s", "requests": 20},
        "lengths": {"kind": "lognormal", "prompt": 100, "output": 10, "prompt_p90": 200, "output_p90": 20},
    },
    "plan": {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1},
}
PARTS = {
    ("fleet",): Fleet,
    ("fleet", "groups", 0): FleetGroup,
    ("fleet", "failures"): Failures,
    ("fleet", "links"): Links,
    ("workload",): Serving,
    ("workload", "arrivals"): Arrivals,
    ("workload", "lengths"): Lengths,
    ("workload", "sessions"): Sessions,
    ("slo",): Slo,
    ("objective",): Objective,
    ("plan",): Pool,
}
KEYS = [(path, field.name) for path, part in PARTS.items() for field in msgspec.structs.fields(part)]
KEYS += [(("fleet", "price"), "h100-sxm"), (("plan",), "route")]
WRONG_TYPES = (True, {}, {"x": 1}, [], [1, 2], ["a"], [[1]], datetime.date(2020, 1, 1))
TEXTS = ("nonsense", "5 bananas", "", "x" * 200, "\x00", "1e999 s", "-5 s")
NUMBERS = (-1, 0, 0.5, 1e300, 10**30, math.nan, math.inf)
NONSENSE = [*WRONG_TYPES, *TEXTS, *NUMBERS]

FINE = {
    **dict.fromkeys(("fleet.link", "fleet.network", "fleet.groups.0.link"), ("",)),
    "fleet.price": ({},),
    "fleet.links": ({},),
    **dict.fromkeys(("fleet.price.h100-sxm", "fleet.groups.0.price"), (0, 0.5, 1e300, 10**30)),
    "fleet.failures.mtbf": (1e300, 10**30),
    "fleet.failures.repair": (0.5,),
    "fleet.failures.shape": (0.5,),
    "fleet.failures.outages": ("",),
    "fleet.failures.billed": (True,),
    "fleet.grid": (0, 0.5),
    **dict.fromkeys(("fleet.power_limit", "fleet.budget", "fleet.spend"), (1e300, 10**30)),
    "fleet.host_power": (0, 0.5, 1e300, 10**30),
    "workload.low_priority": (0, 0.5),
    "workload.sessions": ({},),
    "workload.sessions.system": (0,),
    "fleet.groups.0.name": ("nonsense", "5 bananas", "", "x" * 200, "1e999 s", "-5 s"),
    "workload.arrivals.rate": (0.5,),
    **{f"slo.{name}": (0.5, 1e300, 10**30) for name in Slo.__struct_fields__ if name != "quality"},
    "plan.clock": (0.5,),
    **dict.fromkeys(("plan.batch", "plan.order", "plan.memory"), ({},)),
}
"""Values of the list above that a key may have."""


def table_with(path, key, value):
    table = copy.deepcopy(BASE)
    if path == ("fleet", "groups", 0) or (path, key) == (("fleet",), "groups"):
        table["fleet"] = {"groups": [{} if key == "groups" else {"devices": "2x h100-sxm"}]}
    if path == ("fleet", "failures"):
        table["fleet"]["failures"] = {"mtbf": "1 h", "repair": "1 min"}
    place = table
    for step in path:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    place[key] = value
    return table


def ask(table):
    """Reads a scenario as `simulate` does."""
    scenario = load(table)
    state = setting(scenario)
    assert state.grid.at(0) >= 0
    return state, complete(state, scenario.plan)


@pytest.mark.parametrize(("path", "key"), KEYS, ids=[".".join(map(str, [*p, k])) for p, k in KEYS])
def test_nonsense_is_named(path, key):
    name = ".".join(map(str, [*path, key]))
    for value in NONSENSE:
        if any(value is fine or (type(value) is type(fine) and value == fine) for fine in FINE.get(name, ())):
            ask(table_with(path, key, value))
            continue
        with pytest.raises(SpecError) as caught:
            ask(table_with(path, key, value))
        error, said = caught.value, f"{name} = {value!r}: {caught.value}"
        at = error.path.replace("[0]", ".0")
        assert at.startswith(name) or name.startswith(at), f"names another place: {said}"
        assert error.limit or error.hint, f"says no next step: {said}"
        if "is missing" in error.problem or "is not a key" in error.problem or "names no" in error.problem:
            continue
        assert error.value is not None or "neither" in error.problem or "is empty" in error.problem, f"no value: {said}"
        assert "`" not in said, f"a library's own words: {said}"


def test_the_list_of_keys_is_whole():
    known = {name for part in PARTS.values() for name in typing.get_type_hints(part)}
    assert {key for _, key in KEYS} == known | {"h100-sxm", "route"}


CLOSED = {"kind": "closed", "concurrency": 4, "requests": 20}
POISSON = BASE["workload"]["arrivals"]
FIXED = {"kind": "fixed", "prompt": 100, "output": 10}
TRACE = {"model": "llama-3.1-8b", "trace": "azure-conv-2023"}

IDLE = {
    "speed_up without a trace": ({"workload": BASE["workload"] | {"speed_up": 2}}, "speed_up.*no trace to speed up"),
    "speed_up beside arrivals": (
        {"workload": TRACE | {"speed_up": 2, "arrivals": POISSON}}, "speed_up: contradicts workload.arrivals",
    ),
    "requests without a trace": ({"workload": BASE["workload"] | {"requests": 5}}, "workload.requests: counts the"),
    "requests given twice": (
        {"workload": TRACE | {"requests": 5, "arrivals": POISSON}}, r"stands beside arrivals.requests \(got 5\)",
    ),
    "cv of poisson": ({"workload": {"arrivals": POISSON | {"cv": 2.0}}}, "cv: contradicts kind = 'poisson'.*gamma"),
    "cv of closed": ({"workload": {"arrivals": CLOSED | {"cv": 2.0}}}, "cv: contradicts kind = 'closed'"),
    "ramp of poisson": ({"workload": {"arrivals": POISSON | {"ramp": "1 s"}}}, "ramp.*only with kind = closed"),
    "rate of closed": ({"workload": {"arrivals": CLOSED | {"rate": 1}}}, "rate: contradicts kind = 'closed'"),
    "concurrency of poisson": ({"workload": {"arrivals": POISSON | {"concurrency": 1}}}, "concurrency: contradicts"),
    "p90 of fixed": ({"workload": {"lengths": FIXED | {"prompt_p90": 200}}}, "prompt_p90: contradicts kind = 'fixed'"),
    "price of an absent device": ({"fleet": {"price": {"l4": 1}}}, "price.l4.*does not have .got 1.0.; it has h100"),
    "a price twice": ({"fleet": {"price": {"h100-sxm": 1, "h100_sxm": 2}}}, "is a second price"),
    "price of no name": ({"fleet": {"price": {"h100-sxm": "dear"}}}, "price.h100-sxm: is not a price .got 'dear'"),
    "spot that is not sold": (
        {"fleet": {"devices": "2x l40s", "price": {"l40s": "spot"}}}, "price.l40s: is not known for l40s .got 'spot'",
    ),
    "a price of two kinds": (
        {"fleet": {"devices": "", "groups": [{"devices": "1x l4 + 1x l40s", "price": 1}]}},
        r"groups\[0\].price: belongs to a group of devices of one kind",
    ),
    "failures over groups": (
        {"fleet": {"devices": "", "groups": [{"failures": {}, "groups": [{"devices": "2x l4"}]}]}},
        r"groups\[0\].failures: belongs to a group of devices",
    ),
    "failures of nothing": ({"fleet": {"failures": {}}}, "failures: has neither mtbf and repair nor outages"),
    "failures twice": (
        {"fleet": {"failures": {"mtbf": "1 h", "repair": "1 s", "outages": "x.csv"}}},
        "outages: stands beside mtbf and repair .got 'x.csv'",
    ),
    "failures without repair": ({"fleet": {"failures": {"mtbf": "1 h"}}}, "failures.repair: is missing"),
    "negative mtbf": (
        {"fleet": {"failures": {"mtbf": "-1 h", "repair": "1 s"}}}, "failures.mtbf: is out of range .got '-1 h'",
    ),
    "mtbf of a moment": ({"fleet": {"failures": {"mtbf": "1 s", "repair": "1 s"}}}, "failures.mtbf: is too short"),
    "repair longer than mtbf": (
        {"fleet": {"failures": {"mtbf": "1 h", "repair": "2 h"}}}, "repair: is out of range .got 7200.*the mtbf of 1 h",
    ),
    "outages of no file": ({"fleet": {"failures": {"outages": "none.csv"}}}, "failures.outages: cannot be read"),
    "failures of a closed loop": (
        {"fleet": {"failures": {"mtbf": "1 h", "repair": "1 s"}}, "workload": {"arrivals": CLOSED}},
        "arrivals.concurrency: is a closed loop, and group 'h100-sxm' fails",
    ),
    "failures of split phases": (
        {"fleet": {"failures": {"mtbf": "1 h", "repair": "1 s"}}, "plan": {"phases": "split"}},
        "plan.phases: may split prefill from decode",
    ),
    "link beside groups": (
        {"fleet": {"devices": "", "groups": [{"devices": "2x l4"}], "link": "pcie-4"}}, "link: joins nothing beside",
    ),
    "grid of no name": ({"fleet": {"grid": "atlantis"}}, "grid: is not a packaged grid .got 'atlantis'"),
    "power back from the grid": ({"fleet": {"pue": 0.9}}, r"pue: is out of range \(got 0.9\); 1.0"),
    "a limit of nothing": ({"slo": {"ttft_p99": 0}}, "ttft_p99: is met by no answer"),
    "a goal twice": ({"objective": {"minimize": ["cost", "cost"]}}, "minimize: names a goal twice"),
    "no goal": ({"objective": {"minimize": []}}, "minimize: names no goal"),
    "two groups of a name": (
        {"fleet": {"devices": "", "groups": [{"name": "a", "devices": "2x l4"}, {"name": "a", "devices": "2x l4"}]}},
        r"groups\[1\].name: is a second group of that name .got 'a'",
    ),
    "a name for several groups": (
        {
            "fleet": {"devices": "", "groups": [
                {"name": "rack", "count": 2, "groups": [{"name": "old", "devices": "2x l4"}]}
            ]},
            "plan": {"on": "rack/old"},
        },
        r"plan.on: holds several groups.*rack\[0\]/old, rack\[1\]/old. Write one",
    ),
    "an engine without a name": ({"plan": {"engine": ""}}, "engine: is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", IDLE)
def test_keys_that_nothing_would_read_are_refused(case):
    changes, said = IDLE[case]
    table = copy.deepcopy(BASE)
    for part, keys in changes.items():
        table[part] = keys if "trace" in keys else table.get(part, {}) | keys
    with pytest.raises(FleetcastError, match=said):
        ask(table)


NOTED = {
    "power_limit above the device's": ({"fleet": {"power_limit": "900 W"}}, "900 W changes nothing for h100-sxm"),
    "link of single devices": ({"fleet": {"devices": "1x h100-sxm", "link": "pcie-4"}}, "pcie-4 joins nothing in"),
    "network of one node": ({"fleet": {"network": "ethernet-100g"}}, "ethernet-100g joins nothing"),
    "two groups without a name": (
        {"fleet": {"devices": "1x h100-sxm + 1x h100-sxm"}, "plan": {"on": "h100-sxm"}}, "is called h100-sxm-2",
    ),
    "more requests than the trace": ({"workload": TRACE | {"requests": 10**6}}, "1,000,000: the trace has 19,366"),
    "a trace that gives its number alone": (
        {"workload": TRACE | {"requests": 50, "arrivals": {"kind": "poisson", "rate": 1}, "lengths": FIXED}},
        "replace all of the trace",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTED)
def test_keys_that_change_nothing_are_noted(case):
    changes, said = NOTED[case]
    table = copy.deepcopy(BASE)
    for part, keys in changes.items():
        table[part] = keys if "trace" in keys else table.get(part, {}) | keys
    state, _ = ask(table)
    notes = [*state.tree.echo(), *state.requests.notes]
    assert any(said in note for note in notes), notes


def test_gamma_without_cv_is_twice_as_bursty_as_poisson():
    gamma = POISSON | {"kind": "gamma"}
    plain, said = (ask(BASE | {"workload": BASE["workload"] | {"arrivals": a}})[0] for a in (gamma, gamma | {"cv": 2}))
    assert plain.requests.arrival.tolist() == said.requests.arrival.tolist()
