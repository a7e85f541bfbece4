"""`fleetcast measure`: this machine (a device profile), and what else can be measured, each a command below it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from fleetcast.base.errors import SpecError
from fleetcast.view import migrating, terminal, verbs
from fleetcast.view.terminal import DEFAULTS, Common

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleetcast.runtime.measure import EngineProfile, Profile


def app() -> App:
    """Returns the command with those below it."""
    made = App(
        name="measure",
        help="Measure this machine, how its processes talk to each other, one model under several backends, a model's "
        "answers, a whole application, or what moving a running process sends.",
    )
    made.default(device)
    made.command(collectives)
    made.command(model)
    made.command(quality)
    made.command(application, name="app")
    made.command(migrating.migration)
    return made


def device(
    device: str = "cpu", /, *, quick: Annotated[bool, Parameter(negative=())] = False, threads: int | None = None,
    common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Measure this machine: a device profile, which --out writes and scenarios name.

    Parameters
    ----------
    device:
        What to measure: "cpu".
    quick:
        Ten probes in numpy, some seconds; otherwise, where torch is installed, how Fleetcast's own engine runs here:
        roofs, products, iterations, a minute or two.
    threads:
        That the engine's products use; default all cores.
    """
    from fleetcast.base.files import check_writable, write_atomic

    if common.out is not None:
        check_writable(common.out)
    with terminal.progress("measuring", common) as step:
        profile = verbs.measure(device, quick=quick or None, threads=threads, progress=step)
    written = [write_atomic(common.out, profile.toml())] if common.out is not None else []
    if common.json:
        terminal.print_json(profile.table())
        return 0
    console = terminal.screen()
    console.print(_view(profile, common.out))
    terminal.say_written(console, written)
    return 0


def collectives(
    *, processes: str = "", over: Literal["gloo", "memory"] = "gloo", deadline: float = 300.0,
    common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Time collectives between processes of this machine; --out writes the link that follows, or the timings.

    Parameters
    ----------
    processes:
        How many talk to each other, one measurement for each; default 2,4, over memory 2,3,4,6,8.
    over:
        What they talk over: "gloo", torch's library on the loopback interface, or "memory" that they share, where
        rings, halving and servers are timed round by round and GenModel is fitted; torch is not needed.
    deadline:
        Seconds after which a measurement is given up.
    """
    if over == "memory":
        return _fan_in(processes or "2,3,4,6,8", deadline, common)
    from fleetcast.base.files import check_writable, write_atomic
    from fleetcast.runtime.measure.collectives import measure_collectives
    from fleetcast.view.roofs import collectives_view

    if common.out is not None:
        check_writable(common.out)
    counts = [_count(word) for word in (processes or "2,4").split(",")]
    with terminal.progress("measuring", common) as step:
        found = measure_collectives(counts, deadline=deadline, progress=step)
    written = [write_atomic(common.out, found.toml())] if common.out is not None else []
    if common.json:
        terminal.print_json(found.table())
        return 0
    console = terminal.screen()
    console.print(collectives_view(found, common.out))
    terminal.say_written(console, written)
    return 0


def _fan_in(processes: str, deadline: float, common: Common) -> int:
    from fleetcast.base.files import check_writable, write_atomic
    from fleetcast.runtime.measure.fan_in import measure_fan_in
    from fleetcast.view.roofs import fan_in_view

    if common.out is not None:
        check_writable(common.out)
    counts = [_count(word) for word in processes.split(",")]
    with terminal.progress("measuring", common) as step:
        found = measure_fan_in(counts, deadline=deadline, progress=step)
    written = [write_atomic(common.out, found.csv())] if common.out is not None else []
    if common.json:
        terminal.print_json(found.table())
        return 0
    console = terminal.screen()
    console.print(fan_in_view(found, common.out))
    terminal.say_written(console, written)
    return 0


def _count(word: str) -> int:
    if not word.strip().isdigit():
        raise SpecError("--processes", "cannot be", value=word, limit="whole numbers", hint="Write e.g. 2,4")
    return int(word)


def _view(profile: Profile | EngineProfile, kept: Path | None) -> Any:
    from fleetcast.runtime.measure import EngineProfile

    if isinstance(profile, EngineProfile):
        from fleetcast.view.roofs import engine_view

        return engine_view(profile, kept)
    return terminal.tables().profile_view(profile, kept)


def model(
    *shapes: str,
    backends: str = "",
    sequences: str = "16,64,256",
    batches: str = "1,4",
    layers: int = 4,
    vocab: int = 2000,
    runs: int = 9,
    threads: int = 0,
    profile: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Time one model under every backend that is installed, and check that they agree; --out writes a device profile.

    Parameters
    ----------
    shapes:
        Of bert, roberta, xlm-r and llama, with random weights; default all.
    backends:
        Of torch, torch.compile, transformers, onnxruntime, openvino and ctranslate2; default all, as installed.
    sequences:
        Tokens of a sequence.
    batches:
        Sequences of a pass.
    layers:
        Of each model; 0 = as many as published.
    vocab:
        Tokens of each model; 0 = as many as published.
    runs:
        Timed passes of each cell.
    threads:
        Of each backend; 0 = one a core.
    profile:
        The backend that the device profile describes; default the first.
    """
    from fleetcast.base.files import check_writable, write_atomic
    from fleetcast.runtime.measure import backends as several
    from fleetcast.runtime.measure.backends import fitted
    from fleetcast.runtime.measure.backends.shapes import SHAPES, shape
    from fleetcast.runtime.measure.backends.worker import BACKENDS
    from fleetcast.runtime.measure.machine import this_machine
    from fleetcast.view.backends import backends_view

    if common.out is not None:
        check_writable(common.out)
    known = [shape(name, layers=layers, vocab=vocab) for name in shapes or SHAPES]
    names = [name for name in backends.split(",") if name]
    ready = [name for name in BACKENDS if name in (names or [name]) and not several.absent(name)]
    if profile and profile not in ready:
        limit = f"one that runs here: {', '.join(ready) or 'none'}"
        raise SpecError("--profile", "is no backend of this run", value=profile, limit=limit)
    with terminal.progress("passes", common) as step:
        found = several.compare(
            known, names, sequences=_whole("--sequences", sequences), batches=_whole("--batches", batches), runs=runs,
            threads=threads, progress=step,
        )  # fmt: skip
    table = found.table()
    written = []
    if common.out is not None:
        device = fitted.profile(found, profile or found.backends[0], this_machine(), fitted.stream())
        written.append(write_atomic(common.out, fitted.profile_toml(device)))
    if common.json:
        terminal.print_json(table)
        return 0 if found.agreed else 1
    console = terminal.screen()
    console.print(backends_view(found))
    terminal.say_written(console, written)
    return 0 if found.agreed else 1


def _whole(name: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SpecError(name, "must be whole numbers", value=text, limit="e.g. 16,64,256") from None


def quality(
    folder: Path | None = None,
    /,
    *,
    url: str = "",
    items: Path | None = None,
    key: Path | None = None,
    fields: str = "",
    orders: Literal["cyclic", "all", "given"] = "cyclic",
    by: Literal["letters", "texts"] = "letters",
    model: str = "",
    served: str = "",
    dtype: str = "",
    device: str = "",
    answers: Path | None = None,
    details: Path | None = None,
    timeout: float = 60.0,
    key_env: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Ask a model multiple-choice questions in every order of their options; --out writes what scenarios read.

    Parameters
    ----------
    folder:
        A model's Hugging Face folder, run in this process.
    url:
        Instead of a folder a server with OpenAI's /v1/completions, e.g. http://127.0.0.1:8000.
    items:
        Questions: CSV, JSON lines, Parquet, or a folder of them, as Mobile-MMLU is published; default our own.
    key:
        CSV with question_id and answer, where the questions come without.
    fields:
        Only these fields, e.g. cooking,travel.
    orders:
        "cyclic" = 4 orders, "all" = 24, "given" = as the file lists the options, which position can bias.
    by:
        "texts" = which option's text is likeliest after the question, instead of which letter.
    model:
        Name in scenarios; default the folder's or the server's.
    served:
        The server's name of the model; default the only one it lists.
    dtype:
        Of the weights: what the folder's are run in, or what the server's are in.
    device:
        Of the catalogue, or a profile: whose power the energy is estimated from; default this machine.
    answers:
        Write question_id,predicted_answer to this CSV file, as Mobile-MMLU's leaderboard takes them.
    details:
        Write a row per question to this JSON file: score, picks, seconds, joules, bytes.
    timeout:
        Seconds for an answer of a server.
    key_env:
        Environment variable with the server's key; default OPENAI_API_KEY.
    """
    from fleetcast.base.files import check_writable, write_atomic
    from fleetcast.runtime.measure import quality as asking
    from fleetcast.view.outputs import to_json
    from fleetcast.view.quality import quality_view

    if (folder is None) == (not url):
        raise SpecError("measure quality", "asks one model", limit="a folder, or --url of a server",
                        hint="Write e.g. fleetcast measure quality ./my-model")  # fmt: skip
    if url and by == "texts":
        raise SpecError("--by", "cannot be asked of a server", value=by, limit="letters",
                        hint="A completion tells the likeliest tokens alone")  # fmt: skip
    for path in (common.out, answers, details):
        if path is not None:
            check_writable(path)
    asked = asking.questions(items, key=key, fields=fields.split(","))
    seed = common.seed or 0
    with terminal.progress("asking", common) as step:
        if folder is not None:
            found = asking.judge_folder(
                folder, asked, model=model, dtype=dtype or "auto", orders=orders, by=by, device=device, seed=seed,
                progress=step,
            )  # fmt: skip
        else:
            found = asking.judge_url(
                url, asked, served=served, model=model, dtype=dtype, orders=orders, device=device, timeout=timeout,
                key_env=key_env, seed=seed, progress=step,
            )  # fmt: skip
    table = found.table()
    texts = ((common.out, to_json(table)), (answers, found.answers()), (details, to_json({"items": found.details()})))
    written = [write_atomic(path, text) for path, text in texts if path is not None]
    if common.json:
        terminal.print_json(table)
        return 0
    console = terminal.screen()
    console.print(quality_view(table, common.out))
    terminal.say_written(console, written)
    return 0


def application(
    *,
    tiers: Annotated[bool, Parameter(negative=())] = False,
    quick: Annotated[bool, Parameter(negative=())] = False,
    logs: int = 40,
    signals: Annotated[bool, Parameter(negative=())] = False,
    models: Path | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Try an application: synthetic sensor logs told as contexts by three sizes of model; --out keeps it as JSON.

    Parameters
    ----------
    tiers:
        On three emulated tiers, device, edge and cloud; otherwise on this machine at full speed.
    quick:
        Models that are hardly trained, to see whether all runs.
    logs:
        To ask in each cell.
    signals:
        Hold the CPU by stopping and continuing the process, also where a control group may be made.
    models:
        Folder that keeps the trained models; default one in the temporary folder.
    """
    from fleetcast.base.files import check_writable, write_atomic
    from fleetcast.runtime.measure.trial import HERE, TIERS, contexts, small
    from fleetcast.runtime.measure.trial.confined import GROUPS
    from fleetcast.search.tiers import trial
    from fleetcast.view.outputs import to_json
    from fleetcast.view.trial import trial_view

    if logs < 1:
        raise SpecError("--logs", "are too few", value=logs, limit="one at least")
    if common.out is not None:
        check_writable(common.out)
    folders = {}
    for size in small.QUICK if quick else small.SIZES:
        with terminal.progress(f"training {size.name}", common) as step:
            folders[size.name] = small.trained(size, models, partial(_trained, step, size.steps))
    with terminal.progress("cells", common) as step:
        found = trial.run(
            folders, contexts.logs(logs, small.SEEDS[1]), contexts.logs(min(logs, 20), small.SEEDS[2]),
            tiers=TIERS if tiers else (HERE,), groups=None if signals else GROUPS, progress=step,
        )  # fmt: skip
    table = found.table()
    written = [write_atomic(common.out, to_json(table))] if common.out is not None else []
    if common.json:
        terminal.print_json(table)
        return 0
    console = terminal.screen()
    console.print(trial_view(table, common.out))
    terminal.say_written(console, written)
    return 0


def _trained(step: Callable[[int, int], None] | None, steps: int, done: int, _loss: float) -> None:
    if step is not None:
        step(done, steps)
