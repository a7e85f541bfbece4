"""`fleetcast learn`: trains the policy of a scenario, and says what it learnt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleetcast.base.errors import SpecError
from fleetcast.view import terminal, verbs
from fleetcast.view.terminal import DEFAULTS, Common, File

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.view.learned import Learned

BARS = "▁▂▃▄▅▆▇█"


def learn(
    file: File,
    /,
    *,
    teacher: str = "drf",
    checkpoint: Path | None = None,
    rounds: int | None = None,
    warm: int | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Train the policy that a scenario's plan names, and write its weights (--out, default weights.npz).

    Parameters
    ----------
    teacher:
        Share policy whose decisions are shown first: drf, optimus, srtf, fifo, or any other by name.
    checkpoint:
        A file that keeps training; one that was cut off goes on from it.
    rounds:
        Of playing and learning; of com_ddpg episodes.
    warm:
        Updates on the teacher's decisions.
    """
    for name, value in (("rounds", rounds), ("warm", warm)):
        if value is not None and not 1 <= value <= 1_000_000:
            raise SpecError(f"--{name}", "is out of range", value=value, limit="1 to 1,000,000")
    scenario = terminal.load(file, common)
    with terminal.progress("learning", common) as step:
        made = verbs.learn(
            scenario, common.out or Path("weights.npz"), teacher=teacher, checkpoint=checkpoint, rounds=rounds,
            warm=warm, progress=step,
        )  # fmt: skip
    terminal.show(common, made.table(), lambda width: learned_view(made, width), [made.path])
    return 0


def learned_view(made: Learned, width: int) -> RenderableType:
    """Returns what was learnt: the curve, and held-out lists by who deals."""
    from rich.console import Group
    from rich.text import Text

    from fleetcast.scenario.fleet.failures import duration

    parts: list[RenderableType] = [Text(f"{made.policy}: {made.seconds:,.0f} s of CPU, {len(made.curve):,} rounds")]
    known = [value for value in made.curve if value == value]
    if known:
        cells = max(1, min(width - 12, 60, len(known)))
        means = [known[i * len(known) // cells : (i + 1) * len(known) // cells] for i in range(cells)]
        tops = [sum(part) / len(part) for part in means if part]
        low, high = min(tops), max(tops)
        bars = "".join(BARS[int((value - low) / (high - low or 1.0) * (len(BARS) - 1))] for value in tops)
        parts.append(Text.assemble(("While learning  ", "dim"), bars))
    first = made.judged.get("teacher")
    for name, value in made.judged.items():
        less = "" if name == "teacher" or not first else f"  {value / first - 1.0:+.1%}"
        who = made.teacher if name == "teacher" else name
        parts.append(Text.assemble((f"{who:<16}", "dim"), f"{duration(value)} to completion{less}"))
    return Group(*parts)
