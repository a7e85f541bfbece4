"""What is good (objective) and what is good enough (SLO)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.spec import Spec
from fleetcast.base.tables import lookup
from fleetcast.base.units import Seconds

MINIMIZE = {"cost": "cost", "energy": "energy", "carbon": "carbon", "latency": "e2e.mean", "bytes": "bytes"}
TRAINING = {"time": "iteration_time", "cost": "cost", "energy": "energy", "carbon": "carbon"}
"""What a training job may minimise; time unless said otherwise."""
MAXIMIZE = {"throughput": "throughput", "goodput": "goodput", "quality": "quality"}


class Slo(Spec):
    """Upper limits on latency; each key is ``metric_statistic``. None = no limit.

    ``quality`` alone is a floor: the least share of right answers, where the workload has exits or measured quality.
    """

    ttft_mean: Seconds | None = None
    ttft_p50: Seconds | None = None
    ttft_p90: Seconds | None = None
    ttft_p99: Seconds | None = None
    tpot_mean: Seconds | None = None
    tpot_p50: Seconds | None = None
    tpot_p90: Seconds | None = None
    tpot_p99: Seconds | None = None
    e2e_mean: Seconds | None = None
    e2e_p50: Seconds | None = None
    e2e_p90: Seconds | None = None
    e2e_p99: Seconds | None = None
    quality: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None

    def check(self, path: str = "slo") -> None:
        """Refuses limits that nothing meets.

        Raises:
            SpecError: a limit of 0.
        """
        for name in self.__struct_fields__:
            if getattr(self, name) == 0:
                raise SpecError(
                    f"{path}.{name}",
                    "is met by no answer",
                    value=0,
                    limit="above 0 s",
                    hint="Or leave it out: no limit",
                )

    def limits(self) -> dict[str, float]:
        """Returns the limits that are set: ``{"ttft.p99": 2.0}``, s; ``error`` is the share of wrong answers."""
        found = ((name, getattr(self, name)) for name in self.__struct_fields__ if name != "quality")
        limits = {name.replace("_", "."): limit for name, limit in found if limit is not None}
        # never 0: how far a plan misses a limit is told as value / limit
        return limits if self.quality is None else limits | {"error": max(1.0 - self.quality, 1e-12)}

    def per_request(self) -> dict[str, float]:
        """Returns the limit each single request is held to for goodput: the widest per metric, s.

        Quality is no property of a single request.
        """
        found: dict[str, float] = {}
        for name, limit in self.limits().items():
            metric = name.partition(".")[0]
            if metric != "error":
                found[metric] = max(limit, found.get(metric, 0.0))
        return found


class Objective(Spec):
    """What is minimised or maximised; several goals ask for a frontier.

    Attributes:
        minimize: what shall be small.
        maximize: what shall be large.
    """

    minimize: str | tuple[str, ...] | None = None
    maximize: str | tuple[str, ...] | None = None

    def goals(
        self, minimize: Mapping[str, str] = MINIMIZE, maximize: Mapping[str, str] = MAXIMIZE
    ) -> tuple[tuple[str, str, int], ...]:
        """Returns (goal, metric path, sign) in order; sign 1 = minimise, -1 = maximise.

        Args:
            minimize: goals that there are, default those of serving; the default is cost there, else the first.
            maximize: the same of what may be raised.

        Raises:
            SpecError: unknown goal, one named twice, or none in a list.
        """
        found: list[tuple[str, str, int]] = []
        for key, known, sign in (("minimize", minimize, 1), ("maximize", maximize, -1)):
            value = getattr(self, key)
            if value is not None and not known:
                raise SpecError(
                    f"objective.{key}", "is not asked here", value=value, limit="no goal of this kind of workload",
                    hint=f"Write minimize = one of {', '.join(minimize)}",
                )  # fmt: skip
            if value is not None and not isinstance(value, str) and len(set(value)) < max(1, len(value)):
                problem = "names a goal twice" if value else "names no goal"
                hint = "Name each once" if value else f"Leave it out: {next(iter(minimize))} is minimised"
                raise SpecError(
                    f"objective.{key}", problem, value=list(value), limit=f"one of {', '.join(known)}", hint=hint
                )
            for goal in (value,) if isinstance(value, str) else value or ():
                if goal not in known:
                    other = "maximize" if key == "minimize" else "minimize"
                    where = f"'{goal}' belongs under {other}" if goal in {**minimize, **maximize} else ""
                    raise SpecError(
                        f"objective.{key}", "is unknown", value=goal, limit=f"one of {', '.join(known)}",
                        hint=where or closest(goal, known),
                    )  # fmt: skip
                found.append((goal, known[goal], sign))
        first = next(iter(minimize))
        return tuple(found) or ((first, minimize[first], 1),)


def judge(metrics: Mapping[str, Any], slo: Slo) -> dict[str, Any]:
    """Returns which limits of ``slo`` the metrics meet: ``{"met": bool, "checks": [...]}``."""
    checks = []
    for name, limit in slo.limits().items():
        value = lookup(metrics, name)
        checks.append({"metric": name, "limit": limit, "value": value, "met": value <= limit})
    return {"met": all(c["met"] for c in checks), "checks": checks}
