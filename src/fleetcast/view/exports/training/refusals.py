"""What trainers have no setting for: refused, with what to plan instead."""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.base.errors import Unsupported
from fleetcast.view.exports.training import Run


def refuse_schedule(run: Run, known: Sequence[str], engine: str) -> None:
    """Refuses a pipeline schedule that a trainer does not have.

    Raises:
        Unsupported: always names those it has.
    """
    if run.degree("pipeline_parallel") > 1 and run.plan.schedule not in known:
        raise Unsupported(
            f"{engine} has no '{run.plan.schedule}' schedule",
            f"Plan with plan.schedule = {' or '.join(known)}",
        )


def refuse_offload(run: Run, known: Sequence[str], engine: str) -> None:
    """Refuses to keep off the device what a trainer keeps there.

    Raises:
        Unsupported: always names what it moves.
    """
    if run.plan.swap is not None:
        raise Unsupported(
            f"{engine} swaps no share of a layer's activations, and keeps Adam after the pass back",
            "Plan without plan.swap",
        )
    for word in run.plan.offload or ():
        if word not in known:
            moves = " and ".join(known) if known else "nothing of it"
            raise Unsupported(
                f"{engine} is not told here to keep {word} off the device: it moves {moves}",
                f"Plan with plan.offload = [{', '.join(repr(k) for k in known)}], or without",
            )


def refuse_unlike_stages(run: Run, engine: str) -> None:
    """Refuses stages of unlike numbers of layers, as they lie on groups of unlike speed.

    Raises:
        Unsupported: names them.
    """
    if len(set(run.stages)) > 1:
        raise Unsupported(
            f"{engine} is told here of equal stages alone, and the plan's have {'+'.join(map(str, run.stages))} layers",
            'Export to megatron, or plan with plan.place = "blind"',
        )


def refuse_pieces(run: Run, engine: str) -> None:
    """Refuses layers that do not divide over stages and their pieces.

    Raises:
        Unsupported: names the numbers.
    """
    parts = run.degree("pipeline_parallel") * run.degree("interleave")
    if run.model.layers % parts:
        raise Unsupported(
            f"{engine} wants equal stages, and {run.model.layers} layers do not divide into {parts}",
            "Plan with a pipeline_parallel that divides the layers",
        )


def refuse_unlike_layers(run: Run, engine: str) -> None:
    """Refuses models whose layers differ, which arguments of one layer cannot say.

    Raises:
        Unsupported: names the model.
    """
    if len(run.model.blocks) > 1 or run.attention.kind != "gqa":
        raise Unsupported(
            f"{engine}: {run.model.id} has layers of several kinds, or latent attention, which are not written here",
            "Export a model of equal layers, and take the others from the engine's own examples",
        )
