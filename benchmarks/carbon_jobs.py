"""How much carbon do jobs spare that wait for clean hours and go to clean zones, of what hindsight could?

Four real zones (ElectricityMaps, hourly, direct emissions) with equal devices, a SYNTHETIC and frozen stream of jobs
whose arrivals are stretched to an exact load; each job can spare 12, 24 or 48 hours. One zone alone, where only waiting
helps, is each of Germany, Great Britain and France of 2020 ("Let's Wait Awhile"). Carbon is of work, above idle
devices, which are the same for all policies. First come, first served has no reason to begin with one zone: it is the
mean over the zones' order.
"""

from __future__ import annotations

import csv
import gzip
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, data_path, main, skipped, timer
from fleetcast.policy.place.gangs import BestFit
from fleetcast.policy.share import Edf, Fifo, Green, Policy
from fleetcast.scenario.load import load_jobs
from fleetcast.search.jobs_hindsight import bound
from fleetcast.sim.cluster.fast import play
from fleetcast.sim.cluster.grids import grids
from fleetcast.sim.cluster.setting import Setting, setting

ZONES = ("NO", "BR", "ES", "US-CAL-CISO")
ALONE = (("ger", 45), ("gb", 135), ("fr", 225))
PERIODS = ((2023, 135), (2023, 225))
"""Year and day of the year on which a stream begins; the number of the day is its seed. Tuned on (2022, 45)."""
LOADS = (0.6, 0.85)
SLACKS = (12, 24, 48)
DEVICES, DAYS = 8, 4
"""Devices of a zone; days in which jobs arrive."""
TRACE = {"kind": "synthetic", "median": "4 h", "spread": 1.0, "widest": 4}
WORK = 4 * 3600.0 * float(np.exp(0.5)) * 1.9
"""Device-seconds of a job of that kind, about."""
POLICIES: dict[str, Policy] = {
    "edf": Edf(), "place": Green(defer=False), "start": Green(), "hours": Green(interrupt=True, step=3600.0),
}  # fmt: skip
SAID = {
    "edf": "earliest deadline first, zones from the cleanest on", "place": "cleanest place, at once",
    "start": "best start and place", "hours": "cheapest hours and places",
}  # fmt: skip
DOUBTS = {"a restart of 60 s": (60.0, 0.0), "of 300 s": (300.0, 0.0), "forecasts 30% off": (0.0, 0.3)}
"""What the cheapest hours and places are tried with besides: s of a restart, error of forecasts."""
COMMAND = "python -m benchmarks.carbon_jobs"
SPARED = "Carbon of jobs spared over first come, first served, share of what hindsight spares"
CLAIMS = {
    (load, all_): f"{SPARED}, {load:.0%} load" + ("" if all_ else ", without the cleanest zone")
    for load in LOADS for all_ in (True, False)
}  # fmt: skip
ONE = f"{SPARED}, one zone, 60% load"
BAR = "at least 75 % at a slack of a day or more, no job late"


@dataclass(frozen=True)
class Met:
    """What came of a stream: g and late jobs by policy, pre-emptions and moves of a job, g in hindsight, `DOUBTS`."""

    grams: dict[str, float]
    late: dict[str, int]
    stops: float
    least: float
    jobs: int
    doubts: dict[str, tuple[float, int]]

    def spared(self, name: str) -> float:
        """Share of what hindsight spares over first come, first served."""
        return (self.grams["fifo"] - self.grams[name]) / (self.grams["fifo"] - self.least)


def hourly(zone: str, year: int, day: int) -> str:
    """Returns two weeks of a zone's grid as a table that scenarios read."""
    source = data_path("scheduling", "carbon", "electricitymaps_hourly", f"{zone}_{year}.csv.gz")
    assert source is not None
    with gzip.open(source, "rt", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))[1 + 24 * day : 1 + 24 * (day + 14)]
    return "time_h,intensity\n" + "".join(f"{hour},{row[4]}\n" for hour, row in enumerate(rows))


def awhile(zone: str, day: int) -> str:
    """Returns two weeks of a zone of "Let's Wait Awhile", which has two or four values an hour."""
    source = data_path("scheduling", "carbon", "lets_wait_awhile", f"{zone}_ci.csv.gz")
    assert source is not None
    with gzip.open(source, "rt") as file:
        rows = list(csv.reader(file))[1:]
    each = 4 if zone == "ger" else 2
    values = [
        mean(float(row[1]) for row in rows[i : i + each]) for i in range(24 * each * day, 24 * each * (day + 14), each)
    ]
    return "time_h,intensity\n" + "".join(f"{hour},{value}\n" for hour, value in enumerate(values))


def made(series: dict[str, str], seed: int, load_: float, slack: int) -> Setting:
    """Returns jobs on zones of equal devices, stretched to a load."""
    count = round(load_ * DEVICES * len(series) * DAYS * 86400 / WORK)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for zone, text in series.items():
            (folder / f"{zone}.csv").write_text(text)
        groups = "".join(f'[[fleet.groups]]\nname = "{zone}"\ndevices = "{DEVICES}x a100-80g-sxm"\n' for zone in series)
        rows = ", ".join(f'{zone} = "{zone}.csv"' for zone in series)
        trace = ", ".join(f"{k} = {v!r}".replace("'", '"') for k, v in {**TRACE, "jobs": count}.items())
        path = folder / "scenario.toml"
        path.write_text(
            f'{groups}[workload]\nkind = "jobs"\ntrace = {{{trace}}}\nslack = "{slack} h"\ngrids = {{{rows}}}\n'
        )
        state = setting(load_jobs(path, seed=seed))
    jobs = state.jobs
    stretch = jobs.work / load_ / state.nodes.total / float(jobs.arrival[-1])
    assert jobs.deadline is not None
    arrival = jobs.arrival * stretch
    return replace(state, jobs=replace(jobs, arrival=arrival, deadline=jobs.deadline - jobs.arrival + arrival))


def met(series: dict[str, str], seed: int, load_: float, slack: int) -> Met:
    """Returns what every policy makes of a stream."""
    state = made(series, seed, load_, slack)
    jobs, power = state.jobs, [kind.power for kind in state.nodes.kinds]
    assert jobs.deadline is not None
    grams: dict[str, float] = {}
    late: dict[str, int] = {}
    until, stops = jobs.deadline, 0.0
    zones = list(series)
    nulls = []
    for i in range(len(zones)):
        turned = made({zone: series[zone] for zone in zones[i:] + zones[:i]}, seed, load_, slack)
        run = play(turned.jobs, turned.nodes, turned.pace, Fifo(backfill=True), BestFit(), turned.rules)
        nulls.append(float(turned.grids.grams(run, power).sum()))
        until = np.maximum(until, run.finish)
        late["fifo"] = max(late.get("fifo", 0), int((run.finish > jobs.deadline + 1.0).sum()))
    grams["fifo"] = mean(nulls)
    for name, policy in POLICIES.items():
        run = play(jobs, state.nodes, state.pace, policy, BestFit(), state.rules)
        grams[name] = float(state.grids.grams(run, power).sum())
        late[name] = int((run.finish > jobs.deadline + 1.0).sum())
        if name == "hours":
            stops = float((run.preempted + run.moved).sum()) / len(jobs)
    doubts = {}
    for said, (restart, error) in DOUBTS.items() if slack == 24 else ():
        rules = replace(state.rules, restart=restart, grids=grids(state.grids.true, error, seed))
        run = play(jobs, state.nodes, state.pace, POLICIES["hours"], BestFit(), rules)
        doubts[said] = float(state.grids.grams(run, power).sum()), int((run.finish > jobs.deadline + 1.0).sum())
    return Met(grams, late, stops, bound(state, until), len(jobs), doubts)


def record(claim: str, found: dict[int, list[Met]], seconds: float, what: str) -> Record:
    """Returns the record of a setting, by slack."""
    by_slack = []
    for slack, rows in found.items():
        base = sum(m.grams["fifo"] for m in rows)
        part = [f"{slack} h: hindsight {1 - sum(m.least for m in rows) / base:.0%} less"]
        for name, said in SAID.items():
            late, share = sum(m.late[name] for m in rows), mean(m.spared(name) for m in rows)
            part.append(
                f"{said} {1 - sum(m.grams[name] for m in rows) / base:.0%} ({share:.0%} of it"
                + (f", {late} of {sum(m.jobs for m in rows)} late)" if late else ")")
            )
        by_slack.append(", ".join(part) + f", fifo {sum(m.late['fifo'] for m in rows)} late")
    day, doubts = found[24], []
    for said in DOUBTS:
        kept = [(m.grams["fifo"] - m.doubts[said][0]) / (m.grams["fifo"] - m.least) for m in day]
        tardy = sum(m.doubts[said][1] for m in day)
        doubts.append(f"{said} {mean(kept):.0%}" + (f" with {tardy} late" if tardy else ""))
    long = [m for slack, rows in found.items() if slack >= 24 for m in rows] or [
        m for rows in found.values() for m in rows
    ]
    value, late = mean(m.spared("hours") for m in long), sum(m.late["hours"] for m in long)
    return Record(
        system=62, claim=claim, paper=Paper(setting="GreenWhisk's functions do not wait; Wiesner et al. have no fleet"),
        ours=Ours(
            value=value, spread=min(m.spared("hours") for m in long),
            setting=f"cheapest hours and places at a slack of a day or more, spread is the worst; {what}; "
            + "; ".join(by_slack) + f"; {mean(m.stops for m in long):.1f} stops and moves of a job, taken to be free; "
            + f"at 24 h with {', '.join(doubts)}",
        ),
        null=Null(value=mean(m.spared("place") for m in long), what="the cleanest place with room, at once; 0 is fifo"),
        bar=BAR, holds=value >= 0.75 and late == 0, reproduced="other setting",
        reason="no paper has this case: jobs are synthetic and share devices, and hindsight knows them all",
        seconds=seconds, command=COMMAND,
    )  # fmt: skip


def records(quick: bool = False) -> list[Record]:
    """Returns what this script measures."""
    if data_path("scheduling", "carbon", "electricitymaps_hourly") is None:
        why = "the grids are not at hand"
        return [skipped(system=62, claim=claim, bar=BAR, why=why) for claim in (*CLAIMS.values(), ONE)]
    out = []
    periods = PERIODS[:1] if quick else PERIODS
    for (load_, all_), claim in list(CLAIMS.items())[: 1 if quick else None]:
        zones = ZONES if all_ else ZONES[1:]
        slacks = (24,) if quick or not all_ else SLACKS
        with timer() as spent:
            found = {
                slack: [
                    met({zone: hourly(zone, year, day) for zone in zones}, day, load_, slack) for year, day in periods
                ]
                for slack in slacks
            }  # fmt: skip
        out.append(record(claim, found, spent.seconds, f"{len(periods)} streams of {DAYS} days in 2023"))
    if not quick:
        with timer() as spent:
            found = {24: [met({zone: awhile(zone, day)}, day, 0.6, 24) for zone, day in ALONE]}
        out.append(record(ONE, found, spent.seconds, "Germany, Great Britain and France in 2020"))
    return out


if __name__ == "__main__":
    sys.exit(main(records))
