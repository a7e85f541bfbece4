"""What `fleetcast watch coldstart` reads, finds and shows: logged cold starts by region, runtime, trigger and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.show import show
from fleetcast.mining.coldstart import WORDS, Group, findings, grouped
from fleetcast.scenario.finding import Finding
from fleetcast.scenario.workload.invocations.coldstarts import ColdStarts, read_cold_starts
from fleetcast.scenario.workload.invocations.trace import COMPONENTS, UNKNOWN
from fleetcast.view import svg

if TYPE_CHECKING:
    from rich.console import RenderableType

EXAMPLE = "coldstarts"
"""Name of the packaged log, which is synthetic."""


@dataclass(frozen=True)
class Starts:
    """What was found in a log of cold starts.

    Attributes:
        findings: regions' dominant parts first.
        groups: by "region", "runtime", "trigger" and "pool", where the log has them.
        starts: looked at.
        functions: likewise.
        seconds: s from the first start to the last.
        unexplained: share of the starts' time that no part has.
    """

    findings: tuple[Finding, ...]
    groups: dict[str, list[Group]]
    starts: int
    functions: int
    seconds: float
    unexplained: float

    def table(self) -> dict[str, Any]:
        """Returns it as a table for JSON."""
        return {
            "findings": [finding.table() for finding in self.findings], "starts": self.starts,
            "functions": self.functions, "seconds": self.seconds, "unexplained": self.unexplained,
            "groups": {name: [group.table() for group in groups] for name, groups in self.groups.items()},
        }  # fmt: skip


def watch_starts(
    file: str | Path, *, kinds: str | Path | None = None, requests: str | Path | None = None, sure: float = 0.9
) -> Starts:  # fmt: skip
    """Returns where the cold starts of a log come from.

    Args:
        file: .csv or .csv.gz in the published schema, or "coldstarts", a packaged synthetic log.
        kinds: the table of runtimes and triggers.
        requests: the table of requests, for how long pods were of use.
        sure: least probability of a dominant part that is reported.

    Raises:
        SpecError: unreadable, a column missing, or a value that cannot be.
    """
    if not 0.0 < sure <= 1.0:
        raise SpecError("--sure", "is out of range", value=sure, limit="above 0, at most 1")
    if str(file) == EXAMPLE and not Path(file).exists():
        folder = Path(__file__).with_name("examples") / EXAMPLE
        file, kinds = folder / "starts.csv.gz", kinds or folder / "kinds.csv.gz"
        requests = requests or folder / "requests.csv.gz"
    log = read_cold_starts(
        Path(file), kinds=Path(kinds) if kinds else None, requests=Path(requests) if requests else None
    )
    explained = float(log.parts.sum()) / float(log.total.sum())
    return Starts(
        tuple(findings(log, sure=sure)), _groups(log), len(log), len(log.functions),
        float(log.time.max() - log.time.min()), max(0.0, 1.0 - explained),
    )  # fmt: skip


def _groups(log: ColdStarts) -> dict[str, list[Group]]:
    columns: dict[str, tuple[Any, Sequence[str]]] = {
        "region": (log.region, log.regions), "runtime": (log.runtime[log.function], log.runtimes),
        "trigger": (log.trigger[log.function], log.triggers), "pool": (log.pool, log.pools),
    }  # fmt: skip
    return {
        name: grouped(log, of, names) for name, (of, names) in columns.items()
        if tuple(names) not in ((UNKNOWN,), ("",))
    }  # fmt: skip


def starts_view(found: Starts, width: int) -> RenderableType:
    """Returns the findings with their evidence, and what starts take by group."""
    from rich.console import Group as Rows
    from rich.text import Text

    from fleetcast.view.tables import rows_table

    head = f"{found.starts:,} cold starts of {found.functions:,} functions over {show(found.seconds, 's')}."
    parts: list[Any] = [Text(head, style="dim"), Text()]
    if not found.findings:
        parts += [Text("Nothing found: no part dominates for sure, nothing could be foreseen."), Text()]
    for finding in found.findings:
        parts.append(Text.assemble((f"{finding.who}: ", "bold"), f"{finding.what} ({finding.sure:.0%} sure)"))
        parts += [Text(f"  • {line}", style="dim") for line in finding.evidence] + [Text()]
    for name, groups in found.groups.items():
        rows = [_row(group) for group in groups[:12]]
        heads = (name.capitalize(), "Starts", "Median", "p99", "Largest part", "Share", "Utility", "Below 1")
        parts += [rows_table(heads, rows, right=(1, 2, 3, 5, 6, 7), width=width), Text()]
    if found.unexplained > 0.01:
        parts.append(Text(f"{found.unexplained:.0%} of the starts' time is in no part.", style="dim"))
    return Rows(*parts)


def _row(group: Group) -> tuple[str, ...]:
    share = float(group.parts[group.dominant] / max(float(group.parts.sum()), 1e-300))
    known = group.utility == group.utility
    return (
        group.name, f"{group.starts:,}", show(group.median, "s"), show(group.p99, "s"),
        WORDS[COMPONENTS[group.dominant]], f"{share:.0%}", f"{group.utility:.2g}" if known else "-",
        f"{group.below:.0%}" if known else "-",
    )  # fmt: skip


def draw_parts(found: Starts) -> str:
    """Returns a figure: of each region, s of a start by part."""
    groups = found.groups.get("region") or []
    most = max((float(group.parts.sum()) for group in groups), default=1.0)
    left, wide, high, top = 60.0, 560.0, 26.0, 44.0
    body = [svg.text(0, 16, "a cold start by part, s on average", "name")]
    for c, name in enumerate(COMPONENTS):
        body.append(svg.rect(left + 165 * c, 24, 10, 10, f"part c{c}", WORDS[name]))
        body.append(svg.text(left + 165 * c + 14, 33, WORDS[name], "tick"))
    for i, group in enumerate(sorted(groups, key=lambda group: group.name)):
        body.append(svg.text(left - 8, top + high * i + 15, group.name, "tick", "end"))
        at = left
        for c, seconds in enumerate(np.asarray(group.parts).tolist()):
            length = wide * seconds / most
            title = f"{group.name}, {WORDS[COMPONENTS[c]]}: {show(seconds, 's')}"
            body.append(svg.rect(at, top + high * i, max(length - 1, 0.5), high - 8, f"part c{c}", title))
            at += length
        body.append(svg.text(at + 6, top + high * i + 14, show(group.mean, "s"), "tick"))
    return svg.figure(750, top + high * len(groups) + 10, body, "parts of cold starts by region")
