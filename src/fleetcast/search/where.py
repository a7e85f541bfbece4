"""Move the data, read it where it lies, or compute where it is: every way costed in closed form, quickest first.

Three ways lead a group of devices to data that lies elsewhere: a copy over several connections, which is then read as
often as one likes; a mount, which reads only what is asked for, block by block and again at each pass; and going there,
which takes the programs along. The times are `cost.data`'s; what hosts add is left out, as it is much the same in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import convert, read_toml
from fleetcast.cost import data as cost
from fleetcast.scenario.fleet.tree import Fleet, Group, Tree, resolve
from fleetcast.scenario.workload.datasets import Dataset, Network, Work

PARTS = ("fleet", "data", "work", "network")


@dataclass(frozen=True)
class Question:
    """What is asked: a fleet, data that lies at one group of it, and work on it."""

    tree: Tree
    data: Dataset
    work: Work
    network: Network


@dataclass(frozen=True)
class Way:
    """One way to do the work.

    Attributes:
        group: where it is computed.
        how: "there" (where the data lies), "mount" or "copy".
        data: s until the data has been read, all passes together; of a copy, until it is there.
        environment: s for programs to arrive; at the same time as the data.
        compute: s of computing.
        result: s for the result to go back.
        moved: B over links between groups.
        seconds: in all: the slower of data and programs, then computing, then the result.
        money: $ of the group's devices meanwhile; None where a price is unknown.
    """

    group: str
    how: str
    data: float
    environment: float
    compute: float
    result: float
    moved: float
    seconds: float
    money: float | None

    def table(self) -> dict[str, Any]:
        """Returns it as a table for JSON."""
        return asdict(self)


def read_question(source: str | Path | Mapping[str, Any]) -> Question:
    """Returns the question of a TOML file or of its table.

    Raises:
        SpecError: not such a file; names key, value, limit and next step.
    """
    base = Path(source).parent if isinstance(source, str | Path) else Path()
    table = read_toml(read_text(source), str(source)) if isinstance(source, str | Path) else dict(source)
    for key, value in table.items():
        if key not in PARTS:
            raise SpecError(key, "is not a part here", limit=f"parts: {', '.join(PARTS)}", hint=closest(key, PARTS))
        if not isinstance(value, Mapping):
            raise SpecError(key, "is not a table", value=value, limit=f"write [{key}]")
    for key in ("fleet", "data", "work"):
        if key not in table:
            raise SpecError(key, "is missing", hint=f"Add [{key}]")
    tree = resolve(convert(table["fleet"], Fleet, "fleet"), base)
    question = Question(
        tree, convert(table["data"], Dataset, "data"), convert(table["work"], Work, "work"),
        convert(table.get("network", {}), Network, "network"),
    )  # fmt: skip
    tree.group(question.data.at, "data.at")
    if question.work.home:
        tree.group(question.work.home, "work.home")
    known = list(dict.fromkeys(dtype for group in tree.groups for dtype in group.device.peak))
    if question.work.dtype not in known:
        limit = f"of this fleet's devices: {', '.join(known)}"
        raise SpecError("work.dtype", "runs on no device of the fleet", value=question.work.dtype, limit=limit)
    return question


def ways(question: Question) -> list[Way]:
    """Returns every way that the fleet has, quickest first; groups that lack the number format are left out."""
    found = []
    home = question.tree.group(question.data.at)
    for group in question.tree.groups:
        if question.work.dtype not in group.device.peak:
            continue
        speed = group.device.rate(question.work.dtype) * group.count * question.work.efficiency
        for how in ("there",) if group.name == home.name else ("mount", "copy"):
            found.append(_way(question, home, group, how, question.work.flop / speed))
    return sorted(found, key=lambda way: (way.seconds, way.moved, way.group, way.how))


def _way(question: Question, home: Group, group: Group, how: str, compute: float) -> Way:
    data, work, network = question.data, question.work, question.network
    path = _path(question, home, group)
    wanted = data.read * data.size
    seconds, moved = 0.0, 0.0
    if path is not None and how == "copy":
        seconds, moved = cost.copied(data.size, path, streams=network.streams).seconds(), data.size
    elif path is not None and wanted > 0:
        once = cost.mounted(data.size, path, block=network.block, share=data.read).seconds()
        seconds, moved = data.passes * once, data.passes * wanted
    result = path.rtt + path.flow(work.result, network.streams) if path is not None and work.result else 0.0
    programs = _path(question, question.tree.group(work.home), group) if work.home else None
    environment = 0.0
    if programs is not None and work.environment:
        environment = cost.copied(work.environment, programs, streams=network.streams).seconds()
        moved += work.environment
    total = max(seconds, environment) + compute + result
    money = group.price * group.count * total / 3600 if group.price is not None else None
    moved += work.result if path is not None else 0.0
    return Way(group.name, how, seconds, environment, compute, result, moved, total, money)


def _path(question: Question, a: Group, b: Group) -> cost.Path | None:
    """The path between two groups; None within one."""
    links = question.tree.path(a, b)
    if not links:
        return None
    bandwidth = min(link.uplink or link.bandwidth for link in links)
    return cost.Path(bandwidth, 2 * sum(link.latency for link in links), question.network.window)
