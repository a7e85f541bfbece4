"""Tiers under arrivals by the clock: against closed forms, the plain serving world, everything tried, and nonsense."""

import numpy as np
import pytest

from benchmarks.tiers_exhaustive import queued_compared, same_ways
from fleetcast.base.errors import FleetcastError
from fleetcast.scenario.load import load
from fleetcast.search.tiers import planner
from fleetcast.search.tiers.queues import Queues, times, users_held
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate
from fleetcast.view import sizing


def table(*, rate=0.05, count=200, phones=1, at_once=1, cascade=(), slo=None, lengths=None, cloud=1):
    return {
        "fleet": {
            "network": "5g",
            "groups": [
                {"name": "phone", "devices": f"{phones}x snapdragon-8-gen-3"},
                {"name": "cloud", "devices": f"{cloud}x h100-sxm"},
            ],
        },
        "workload": {
            "model": "qwen2.5-7b", "exits": "ai-flow-ruyi-7b", "confidence": 0.75,
            "arrivals": {"kind": "poisson", "rate": rate, "requests": count},
            "lengths": lengths or {"kind": "fixed", "prompt": 300, "output": 20},
        },
        "slo": slo or {},
        "objective": {"minimize": "energy"},
        "plan": {
            "pools": [{"on": "phone", "dtype": "int4"}, {"on": "cloud", "batch": {"max_batch": at_once}}],
            "cascade": list(cascade),
        },
    }  # fmt: skip


def closed(given):
    count = given["workload"]["arrivals"]["requests"]
    arrivals = {"kind": "closed", "concurrency": 1, "requests": count}
    return given | {"workload": given["workload"] | {"arrivals": arrivals}}


PHONE = [{"on": "phone", "exit": 28}]
CLOUD = [{"on": "cloud", "exit": 28}]
BOTH = [{"on": "phone", "exit": 11, "threshold": 0.5}, {"on": "cloud", "exit": 28}]


def asked(given):
    question = planner.question(setting(load(given)))
    return question, planner.decided(question)


# --- closed forms


def outside(place, tier, exit):
    """Seconds of each query that keep no server busy: the links, and the engine's front end."""
    prompt = place.requests.prompt
    state, plan = place._world(tier, exit)
    cost = state.server(plan.pools[0]).cost
    links = place._over_links(tier, prompt, np.zeros(len(prompt)), np.zeros(len(prompt)))[1]
    return links + cost.api + cost.api_token * prompt


def waits(question, cascade, tier):
    """Mean wait at a tier, its standard error, and the wait that Pollaczek and Khinchine state."""
    place, leg = question.queues, cascade.legs[-1]
    loaded = times(place, cascade.legs, cascade.reach)[1]
    free = times(place, cascade.legs, cascade.reach, alone=True)[1]
    who = np.flatnonzero(place.draw < cascade.reach[-1])
    wait = (loaded - free)[who]
    service = (place.alone(tier, leg.exit)[1] - outside(place, tier, leg.exit))[who]
    rate = (len(who) - 1) / np.ptp(place.arrival[who])
    load_ = rate * service.mean()
    blocks = wait[: len(wait) // 40 * 40].reshape(40, -1).mean(axis=1)
    return wait.mean(), blocks.std() / np.sqrt(40), rate * (service**2).mean() / (2 * (1 - load_)), load_


VARIED = {"kind": "lognormal", "prompt": 300, "prompt_p90": 600, "output": 20, "output_p90": 40}


@pytest.mark.parametrize("lengths", [None, VARIED], ids=["M/D/1", "M/G/1"])
@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_one_phone_waits_as_pollaczek_and_khinchine_say(rate, lengths):
    question, cascade = asked(table(rate=1.0, count=20_000, cascade=PHONE, lengths=lengths))
    service = question.queues.alone(0, 28)[1].mean()
    question, cascade = asked(table(rate=rate / service, count=20_000, cascade=PHONE, lengths=lengths))
    mean, error, expected, load_ = waits(question, cascade, 0)
    assert load_ == pytest.approx(rate, rel=0.03)
    assert abs(mean - expected) < 4 * error + 0.02 * expected
    assert mean > 0.1 * service * rate


@pytest.mark.parametrize("load_", [0.4, 0.7])
def test_a_cloud_that_many_phones_share_waits_for_the_thinned_stream(load_):
    """Many idle phones delay each query alike, so what they pass on is Poisson still: M/D/1 at a share of the rate."""
    question, cascade = asked(table(rate=1.0, count=100, phones=1, cascade=BOTH))
    share = cascade.reach[1]
    service = (question.queues.alone(1, 28)[1] - outside(question.queues, 1, 28)).mean()
    rate = load_ / (share * service)
    question, cascade = asked(table(rate=rate, count=10_000, phones=4000, cascade=BOTH))
    mean, error, expected, found = waits(question, cascade, 1)
    assert 0.1 < share < 0.9 and found == pytest.approx(load_, rel=0.05)
    assert abs(mean - expected) < 4 * error + 0.03 * expected


# --- the two views meet


@pytest.mark.parametrize("cascade", [PHONE, CLOUD, BOTH], ids=["phone", "cloud", "both"])
def test_without_load_the_means_are_those_of_the_closed_loop(cascade):
    slow = table(rate=1e-4, cascade=cascade)
    ours, before = planner.simulate(setting(load(slow))), planner.simulate(setting(load(closed(slow))))
    # a share p of n queries is p n to one query
    off = 0.0 if len(cascade) == 1 else 1 / 200 * before.resources[1]["seconds"]
    for name in ("ttft", "e2e"):
        assert ours.metrics[name]["mean"] == pytest.approx(before.metrics[name]["mean"], rel=1e-9, abs=off)
    for name in ("energy", "cost", "bytes", "quality"):
        assert ours.metrics[name] == before.metrics[name]


def test_one_tier_is_the_plain_serving_world():
    given = table(rate=6.0, count=400, at_once=16, cascade=CLOUD, lengths=VARIED, cloud=2)
    question, cascade = asked(given)
    ours = times(question.queues, cascade.legs, cascade.reach)
    workload = {k: v for k, v in given["workload"].items() if k not in ("exits", "confidence")}
    pool = {"replicas": 2, "tensor_parallel": 1, "pipeline_parallel": 1, "batch": {"max_batch": 16}}
    plain = setting(load({"fleet": {"devices": "2x h100-sxm"}, "workload": workload, "plan": pool}))
    served = simulate(plain, complete(plain, plain.scenario.plan)).requests
    links = question.queues._over_links(1, plain.requests.prompt, np.zeros(400), np.zeros(400))[1]
    sent = question.queues._sent(1, plain.requests.prompt)
    assert np.ptp(sent) < 0.02  # arrivals keep their order but for a few, so both see nearly the same
    assert ours[1].mean() == pytest.approx((served.e2e + links).mean(), rel=0.01)
    assert np.percentile(ours[0], 99) == pytest.approx(np.percentile(served.ttft + links, 99), rel=0.05)


def test_no_query_is_faster_under_load_and_paths_are_the_shares():
    question, cascade = asked(table(rate=2.0, count=1000, phones=20, at_once=16, cascade=BOTH, lengths=VARIED))
    asked_of = (question.queues, cascade.legs, cascade.reach)
    for loaded, free in zip(times(*asked_of), times(*asked_of, alone=True), strict=True):
        assert (loaded >= free * (1 - 1e-12)).all() and loaded.mean() > free.mean()
    passed = (question.queues.draw < cascade.reach[1]).sum()
    assert abs(passed - 1000 * cascade.reach[1]) <= 1


# --- the search


@pytest.mark.parametrize("block", range(3))
def test_the_planner_under_load_equals_trying_everything(block):
    ways = 0
    for seed in range(100 * block, 100 * block + 100):
        ours, best = queued_compared(seed)
        assert same_ways(ours, best), seed
        ways += sum(len(way) > 1 for way in best)
    assert ways > 10


def test_a_percentile_under_load_changes_the_plan():
    """One phone is cheapest until its queue breaks the limit; then queries go to the cloud."""
    quiet, busy = (
        planner.plan(setting(load(table(rate=r, slo={"quality": 0.7, "e2e_p99": 6.0}) | {"plan": {"dtype": "int4"}})))
        for r in (0.01, 0.4)
    )
    where = [ranking.best.plan["cascade"][-1]["on"] for ranking in (quiet, busy)]
    assert {o.plan["cascade"][0]["on"] for o in quiet.plans} >= {"phone"}
    assert where[1] == "cloud" and "phone" not in {o.plan["cascade"][-1]["on"] for o in busy.plans}
    assert busy.best.slo["met"] and busy.best.metrics["e2e"]["p99"] <= 6.0
    again = planner.simulate(setting(load(table(rate=0.4) | {"plan": dict(busy.best.plan)})))
    assert again.metrics["e2e"] == busy.best.metrics["e2e"]


def test_what_is_planned_for_many_devices_is_what_is_simulated():
    given = table(rate=1.0, count=300, phones=20, cloud=2, slo={"quality": 0.7, "e2e_p99": 3.0})
    given |= {"objective": {"minimize": "cost"}}
    best = planner.plan(setting(load(given | {"plan": {"dtype": "int4"}}))).best
    assert {p["on"]: p["replicas"] for p in best.plan["pools"]} == {"phone": 20, "cloud": 2}
    again = planner.simulate(setting(load(given | {"plan": dict(best.plan)})))
    assert again.metrics == best.metrics and again.plan == best.plan
    fewer = dict(best.plan) | {"pools": [p | {"replicas": 1} for p in best.plan["pools"]]}
    assert planner.simulate(setting(load(given | {"plan": fewer}))).metrics["e2e"]["p99"] > 10


def test_misses_are_shown_where_no_queue_is_short_enough():
    ranking = planner.plan(setting(load(table(rate=200.0, count=400, slo={"e2e_p99": 0.5}))))
    assert ranking.best is None and ranking.misses
    assert all(not miss.slo["met"] for miss in ranking.misses)


def test_a_cloud_carries_more_users_where_phones_answer_some():
    held = {}
    for name, cascade in (("cloud", CLOUD), ("both", BOTH)):
        question, decided = asked(table(rate=0.5, count=600, phones=10, cascade=cascade))
        found = held[name] = users_held(question.costs, decided, {"e2e.p99": 12.0}, tolerance=0.1)
        users, tried = found
        met = {u: c.values["e2e.p99"] <= 12.0 for u, c in tried.items()}
        assert users >= 10 and met[users]
        assert users < min(u for u, held_ in met.items() if not held_) <= users * 1.1 + 1
    share = asked(table(cascade=BOTH))[1].reach[1]
    assert held["both"][0] > held["cloud"][0] * (1 + (1 / share - 1) / 2)


def test_more_users_than_a_tier_carries_are_none():
    question, decided = asked(table(cascade=PHONE, count=50))
    assert users_held(question.costs, decided, {"e2e.p99": 0.01})[0] == 0
    assert Queues(question.costs, 2).requests.rate == pytest.approx(2 * question.queues.requests.rate)


def test_capacity_counts_users_of_the_decided_cascade():
    given = table(rate=0.5, count=300, phones=10, cascade=BOTH, slo={"e2e_p99": 12.0})
    held = sizing.max_users(given, tolerance=0.1)
    assert held.users > 10 and held.outcome.slo["met"] and held.missed > held.users
    assert f"{held.users} x phone" in " ".join(held.outcome.notes)
    for wrong, path in ((closed(given) | {"slo": {}}, "arrivals.kind"), (given | {"slo": {"quality": 0.5}}, "slo")):
        with pytest.raises(FleetcastError, match=path):
            sizing.max_users(wrong)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (table(slo={"tpot_p99": 1.0}), "slo.tpot_p99"),
        (closed(table(slo={"e2e_p99": 1.0})), "slo.e2e_p99"),
        (table(cascade=[CLOUD[0] | {"handoff": "cache", "split": 5, "after": "phone"}]), "cascade[0].handoff"),
        (table(cascade=[BOTH[0] | {"on": "cloud"}, *PHONE]), "cascade[1].on"),
        (table(cascade=[BOTH[0] | {"on": "cloud"}, *CLOUD]), "cascade[1].on"),
    ],
)
def test_nonsense_is_refused_by_name(given, path):
    with pytest.raises(FleetcastError) as error:
        planner.plan(setting(load(given)))
    assert path in str(error.value)
