"""Advice on a model's sizes: which the scenario's devices multiply well, and how that is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.search.shape.advisor import Advice, advise, sizes
from fleetcast.search.shape.tiles import tiling
from fleetcast.sim.training.setting import Setting
from fleetcast.view.tables import bullets, rows_table

if TYPE_CHECKING:
    from fleetcast.search.shape.advisor import Field


def sized(state: Setting) -> Advice:
    """Returns the advice of a scenario: its plan's micro-batch and degrees where they are decided, else one of each."""
    plan, device = state.scenario.plan, state.group.device

    def one(name: str) -> int:
        value = getattr(plan, name)
        return value if isinstance(value, int) else 1

    batch = state.workload.batch if plan.swap is not None else one("micro_batch")
    tokens = batch * state.workload.sequence // one("context_parallel")
    found = sizes(state.network, tokens=tokens, tensor=one("tensor_parallel"), expert=one("expert_parallel"))
    return advise(found, tiling(device.kind, device.units, device.vendor), device.name)


def sizing_view(found: Advice, width: int) -> RenderableType:
    """Returns each size with what is better, each product with what it loses, and the reasons."""
    parts: list[RenderableType] = [
        Text.assemble(
            (f"Sizes for {found.device}", "bold"), f": products reach {found.share:.1%} of its peak by their shapes"
            + (f", {found.better:.1%} with every size below" if found.better > found.share else ""),
        ),
        Text(),
        rows_table(
            ("Size", "Now", "Better", "Gain", "Why"), [_row(one) for one in found.fields], right=(1, 2, 3), width=width
        ),
        Text(),
    ]  # fmt: skip
    rows = [
        (
            p.name, f"{p.m:.0f}x{p.n:.0f}x{p.k:.0f}", f"{f.tile[0]}x{f.tile[1]}", f"{f.edges:.0%}", f"{f.waves:.2f}",
            f"{f.last:.0%}", f"{f.aligned:.0%}", f"{f.share:.0%}",
        )
        for p, f in found.products
    ]  # fmt: skip
    heads = ("Product", "Size", "Tile", "Used", "Waves", "Busy", "Aligned", "Peak")
    parts += [rows_table(heads, rows, right=(1, 2, 3, 4, 5, 6, 7), width=width), Text()]
    parts.append(bullets("Taken as given", found.notes, dim=True))
    return Group(*parts)


def _row(one: Field) -> tuple[str, str, str, str, str]:
    better = "" if one.better is None else f"{one.better:,}"
    gain = "" if one.better is None else f"{one.gain:+.1%}"
    return one.name, f"{one.now:,}", better, gain, "; ".join(one.reasons)
