"""How a classifier scores samples that are worth keeping and samples that are not: what a file says of it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import Spec

MOST_PATHS = 24


class TurnOn(Spec):
    """One path of a trigger: an object with an energy, found with an efficiency that rises with it.

    Energies fall off exponentially. A sample that is not worth keeping has its object below the threshold, one that is
    above it (where this path is the one that makes it so).

    Attributes:
        name: of the path.
        file: CSV of two columns, energy and efficiency (0 to 1), with a header.
        threshold: energy from which an object is worth keeping; left out = where the efficiency is one half.
        mean: of the energies; left out = so that a share of ``fires`` of all objects is found.
        fires: share of objects that the path finds, for ``mean``.
        weight: how often this path is the one, where samples have one object.
    """

    name: str
    file: str
    threshold: Annotated[float, msgspec.Meta(gt=0)] | None = None
    mean: Annotated[float, msgspec.Meta(gt=0)] | None = None
    fires: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class Firing(Spec):
    """Which paths are above their threshold together, and how often.

    Attributes:
        share: of the samples worth keeping; shares need not add up to 1.
        paths: names.
    """

    share: Annotated[float, msgspec.Meta(gt=0)]
    paths: tuple[str, ...]


class Classifier(Spec):
    """How samples are scored. Those with the highest scores go on, as many as the node's ratio allows.

    Attributes:
        kind: "gaussian": scores of dull samples have mean 0 and variance 1, of interesting ones ``skill`` and
            ``variance``. "scores": a file of scores that were measured. "turn-on": curves of a trigger, ``paths``.
        skill: mean score of interesting samples.
        variance: of their scores.
        file: CSV of columns score and label (1 = interesting, 0 = dull).
        boost: added to the score of interesting samples: what a better classifier would give.
        paths: of a trigger.
        tail: how far above: "threshold" = anywhere above the threshold, "mirror" = in the uppermost part, as large as
            the share of all objects that lies below the threshold.
        together: which paths fire together, where each sample has an object on every path and its score is the sum of
            their efficiencies; left out = a sample has one object, and its efficiency is the score.
    """

    kind: Literal["gaussian", "scores", "turn-on"] = "gaussian"
    skill: Annotated[float, msgspec.Meta(ge=-1e3, le=1e3)] | None = None
    variance: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    file: str = ""
    boost: Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)] = 0.0
    paths: tuple[TurnOn, ...] = ()
    tail: Literal["threshold", "mirror"] = "threshold"
    together: tuple[Firing, ...] = ()

    def check(self, path: str) -> None:
        """Refuses keys that another kind has, and gaps.

        Raises:
            SpecError: names the key.
        """
        own = {"gaussian": {"skill", "variance"}, "scores": {"file"}, "turn-on": {"paths", "tail", "together"}}
        defaults = Classifier()
        for name in ("skill", "variance", "file", "paths", "tail", "together"):
            if name not in own[self.kind] and getattr(self, name) != getattr(defaults, name):
                raise SpecError(
                    f"{path}.{name}", f"is not said of a classifier of kind '{self.kind}'", value=_plain(self, name),
                    limit=f"{', '.join(sorted(own[self.kind]))}, boost", hint="Leave it out, or change the kind",
                )  # fmt: skip
        wanted = {"gaussian": "skill", "scores": "file", "turn-on": "paths"}[self.kind]
        if getattr(self, wanted) in (None, "", ()):
            raise SpecError(f"{path}.{wanted}", "is missing", hint=f"A classifier of kind '{self.kind}' needs it")
        names = [p.name for p in self.paths]
        if len(names) > MOST_PATHS or len(set(names)) < len(names):
            raise SpecError(f"{path}.paths", "stand twice or are too many", value=", ".join(names[:8]),
                            limit=f"at most {MOST_PATHS}, each name once")  # fmt: skip
        for i, p in enumerate(self.paths):
            if (p.mean is None) == (p.fires is None):
                raise SpecError(f"{path}.paths[{i}].mean", "must stand alone", value=p.mean,
                                limit="either mean or fires", hint="Give the one that is known")  # fmt: skip
        for i, firing in enumerate(self.together):
            for name in firing.paths:
                if name not in names:
                    raise SpecError(f"{path}.together[{i}].paths", "is not a path", value=name,
                                    limit=f"paths: {', '.join(names)}")  # fmt: skip


def _plain(said: Classifier, name: str) -> object:
    value = getattr(said, name)
    return len(value) if isinstance(value, tuple) else value
