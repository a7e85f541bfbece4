"""Policies that a plan names under a key: one, several to search, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetcast.base.errors import SpecError


def several(said: Any) -> tuple[Any, ...]:
    """Returns the policies that a key says: () = it says nothing."""
    if said is None:
        return ()
    return tuple(said) if isinstance(said, list | tuple) else (said,)


def kind_of(choice: Any) -> str:
    """Returns the kind of a policy that is named, told as a table or given as an object."""
    said = choice.get("kind") if isinstance(choice, Mapping) else getattr(choice, "kind", choice)
    return str(said)


def check_choices(plan: Any, examples: Mapping[str, str]) -> None:
    """Refuses keys of a plan that name no policy, or one twice.

    Args:
        plan: whose attributes the keys are.
        examples: key -> the kind of a policy that it may name.

    Raises:
        SpecError: an empty list, a table without a kind, or the same twice.
    """
    for key, example in examples.items():
        said = getattr(plan, key)
        choices, listed = several(said), isinstance(said, list | tuple)
        if listed and not choices:
            raise SpecError(f"plan.{key}", "names no policy", value=[], limit="at least one", hint="Leave it out: all")
        for i, choice in enumerate(choices):
            path = f"plan.{key}[{i}]" if listed else f"plan.{key}"
            if isinstance(choice, dict) and "kind" not in choice:
                hint = f'Write e.g. {key} = {{ kind = "{example}" }}'
                raise SpecError(f"{path}.kind", "is missing", value=choice, hint=hint)
            if choice in choices[:i]:
                raise SpecError(path, "is named before", value=choice, limit="each policy once",
                                hint="Name it once, or give it other settings")  # fmt: skip
