"""What engines have no setting for: refused, with what to plan instead."""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.base.errors import Unsupported
from fleetcast.view.exports import Service


def refuse_drafts(service: Service, known: Sequence[str], engine: str) -> None:
    """Refuses speculation that an engine has no setting for.

    Raises:
        Unsupported: always names what it has.
    """
    kind = service.speculate.get("kind", "off")
    if kind not in ("off", *known):
        raise Unsupported(
            f"{engine} is not told here how to draft by '{kind}'",
            f"Plan with plan.speculate.kind = {' or '.join(known)}" if known else 'Plan with speculate = "off"',
        )
    if int(service.speculate.get("drafters", 1)) > 1:
        raise Unsupported(f"{engine} has no vote of several drafters", "Plan with plan.speculate.drafters = 1")


def refuse_prefixes(service: Service, known: Sequence[str], engine: str) -> None:
    """Refuses an eviction rule that an engine does not have.

    Raises:
        Unsupported: always names what it has.
    """
    kind = service.prefixes.get("kind", "off")
    if kind not in ("off", *known):
        raise Unsupported(
            f"{engine} does not give up prefixes by '{kind}'", f"Plan with plan.prefix_cache = {' or '.join(known)}"
        )


def refuse_batch(service: Service, known: Sequence[str], engine: str) -> None:
    """Refuses a batch policy that ``engine`` does not have.

    Raises:
        Unsupported: always names the policies it has.
    """
    kind = str(service.batch["kind"])
    if kind not in known:
        raise Unsupported(
            f"{engine} cannot batch as '{kind}' does", f"Plan with plan.batch.kind one of {', '.join(known)}"
        )
