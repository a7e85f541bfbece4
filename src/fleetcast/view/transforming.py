"""`fleetcast transform`: makes a model's folder smaller, and shows bytes and quality before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fleetcast.base.errors import SpecError
from fleetcast.view import terminal
from fleetcast.view.terminal import DEFAULTS, Common

if TYPE_CHECKING:
    from fleetcast.runtime.transforms.applying import Made


def transform(
    folder: str | Path,
    technique: str,
    out: str | Path,
    *,
    text: str | Path | None = None,
    heal: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Makes a model smaller by a technique that `advise` names; returns bytes foretold and written, and quality.

    Args:
        folder: the model, a Hugging Face folder.
        technique: e.g. ``prune + quantise-int4``, or transforms with settings: ``narrow ffn=0.5 + quantise bits=8``.
        out: the folder to write.
        text: a file, or a folder of .txt, .md and .py files: nine tenths calibrate, the last tenth is scored.
        heal: steps of training after each cut; needs text.
        seed: of what is drawn: windows, first weights, choices by lot.
        progress: called with (transforms done, transforms).

    Raises:
        SpecError: a technique, setting, folder or text that cannot be.
        Unsupported: a model that is not transformed.
        MissingExtra: torch is absent.
    """
    from fleetcast.runtime.transforms import applying

    said = applying.text_of(text) if text is not None else ""
    return applying.transform(folder, technique, out, text=said, heal=heal, seed=seed, progress=progress)


def command(
    folder: Annotated[Path, Parameter(name="FOLDER")],
    technique: Annotated[str, Parameter(name="TECHNIQUE")],
    /,
    *,
    text: Path | None = None,
    heal: int = 0,
    common: Common = DEFAULTS,
) -> int:
    """Make a model smaller by a technique that advise names, and write it to the folder --out.

    Parameters
    ----------
    folder:
        The model: a Hugging Face folder.
    technique:
        E.g. "prune + quantise-int4", or transforms with settings: "narrow ffn=0.5 + quantise bits=8".
    text:
        A file, or a folder of .txt, .md and .py files: nine tenths calibrate, the last tenth is scored.
    heal:
        Steps of training after each cut; needs --text.
    """
    if common.out is None:
        raise SpecError("--out", "is missing", limit="the folder to write", hint="Write e.g. --out smaller")
    with terminal.progress("transforming", common) as step:
        made = transform(
            folder, technique, common.out, text=text, heal=heal, seed=common.seed or 0, progress=step
        )  # fmt: skip
    if common.json:
        terminal.print_json(made.table())
        return 0
    console = terminal.screen()
    console.print(made_view(made))
    terminal.say_written(console, [common.out])
    return 0


def made_view(made: Made) -> Any:
    """Returns what was foretold and what came of it."""
    from rich.console import Group
    from rich.text import Text

    from fleetcast.base.show import show
    from fleetcast.view.tables import rows_table

    rows = [
        ("bytes before", show(made.source, "B"), ""),
        ("bytes foretold", show(made.predicted, "B"), f"{made.predicted / made.source:.0%} of it"),
        ("bytes of tensors", show(made.tensors, "B"), f"{made.tensors / made.predicted - 1:+.2%} from foretold"),
        ("bytes of the file", show(made.file, "B"), f"{made.file / made.predicted - 1:+.2%}"),
    ]
    if made.before is not None and made.after is not None:
        rows += [
            ("loss on text kept back", f"{made.after.loss:.4f}", f"{made.before.loss:.4f} before, nat a token"),
            ("next tokens right", f"{made.after.accuracy:.1%}", f"{made.before.accuracy:.1%} before"),
        ]
    return Group(Text(made.technique, style="bold"), Text(), rows_table(("", "", ""), rows, right=(1,)))
