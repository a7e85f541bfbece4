"""POLCA's claim at small size, on the benchmark's frozen inputs: more servers under one breaker, little slowed."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import power as bench
from fleetcast.policy import power
from fleetcast.search.power import Row, hold
from fleetcast.sim.power.row import Breaker

SERVERS, DAYS = 20, 2


def test_polca_holds_more_servers_than_the_null_and_spares_high_priority() -> None:
    given = bench.inputs()["row"]
    server = bench.phases()
    days = bench.weeks(
        bench.hour(), servers=32, rate=given["rate"], days=DAYS, seed=5, shape=bench.Shape(**given["shape"])
    )
    base = Row(server, Breaker(budget=1.0), given["low"], SERVERS, 32)
    peak = float(replace(base, most=SERVERS).free(days).power.max())
    row = replace(base, breaker=Breaker(budget=peak / 0.80))
    free = row.free(days)
    polca = power.Polca(**bench.inputs()["published"])
    null, found = (hold(row, policy, days, free, start=26) for policy in (power.Uncapped(), polca))
    assert found.added / SERVERS >= 0.30 > null.added / SERVERS
    assert found.slow["high"]["p99"] <= bench.HIGH_LIMIT
    assert found.slow["low"]["mean"] > found.slow["high"]["mean"] > 1.0
    assert row.run(power.Uncapped(), days, found.servers).brakes > 0


def test_the_published_settings_are_the_policys_defaults() -> None:
    assert vars(power.Polca()) == bench.inputs()["published"]
