"""The verbs: a workload's kind picks the world that answers, nothing else does.

Each takes a `Scenario`, or whatever `load` makes one of: a file, the name of an example, a TOML text, a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.scenario import load as files
from fleetcast.scenario.load import Scenario, ServingScenario, TrainingScenario
from fleetcast.view import worlds

if TYPE_CHECKING:
    from fleetcast.cost.pebbling.check import Proof
    from fleetcast.runtime.measure import EngineProfile, Profile
    from fleetcast.runtime.replay import Replay
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.scenario.plan import Plan
    from fleetcast.search.advice.advisor import Advice
    from fleetcast.search.ranking import Ranking
    from fleetcast.search.shape.advisor import Advice as SizesAdvice
    from fleetcast.sim.serving.setting import Setting
    from fleetcast.view.checks import Remark
    from fleetcast.view.exports import Export
    from fleetcast.view.learned import Learned

Source = Scenario | str | Path | Mapping[str, Any]
Progress = Callable[[int, int], None]
"""Called with (plans simulated, plans to simulate), or the rounds of a measurement."""

_EXAMPLES = Path(__file__).parent / "examples"


def load(source: Source, *, seed: int | None = None) -> Scenario:
    """Returns the Scenario of a file, of an example's name, of a TOML text (with a line break) or of a table.

    Args:
        source: what to read; a Scenario is returned as it is unless ``seed`` differs.
        seed: instead of the file's.

    Raises:
        SpecError: no such file or example, or anything in it that cannot be.

    Example:
        >>> load("quickstart").workload.model
        'llama-3.1-70b'
    """
    if isinstance(source, Scenario):
        return source if seed is None else msgspec.structs.replace(source, seed=seed)
    if isinstance(source, Mapping) or (isinstance(source, str) and "\n" in source):
        return files.load(source, seed=seed)
    path = Path(source)
    if not path.exists() and path.name == str(source) and path.suffix in ("", ".toml"):
        path = example(path.stem)
    return files.load(path, seed=seed)


def serving(source: Source, asked: str, *, seed: int | None = None) -> ServingScenario:
    """Returns what `load` does where it has requests; ``asked`` says who asks, for the error.

    Raises:
        SpecError: as `load`.
        Unsupported: another kind of workload.
    """
    return files.serving(load(source, seed=seed), asked)


def examples() -> dict[str, Path]:
    """Returns the packaged examples: name -> file."""
    return {path.stem: path for path in sorted(_EXAMPLES.glob("*.toml"))}


def headline(path: Path) -> str:
    """Returns what an example is about: its first line of comment."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def plan(source: Source, *, seed: int | None = None, top: int | None = 6, progress: Progress | None = None) -> Ranking:
    """Returns the ranked plans of a scenario: best, what was rejected and why, how much of the space was looked at.

    Args:
        source: a Scenario or what `load` takes.
        seed: instead of the scenario's.
        top: how many layouts to rank, each with its batch policies that are as good as the last layout; of training
            how many plans. None = all that meet the SLO.
        progress: called while plans are settled.

    Raises:
        SpecError: anything in the scenario that cannot be.
        Infeasible: nothing fits.
    """
    scenario = load(source, seed=seed)
    found: Ranking = worlds.ask(scenario, "plan")(scenario, top=top, progress=progress)
    return found


def plan_learned(
    source: Source, *, evaluations: int = 100, seed: int | None = None, top: int | None = 6,
    history: Path | None = None, progress: Progress | None = None,
) -> Ranking:  # fmt: skip
    """Returns the best training plans that few launches find, chosen by a predictor that learns from each of them.

    Args:
        source: a Scenario or what `load` takes, with one model to train.
        evaluations: launches in all.
        seed: instead of the scenario's.
        top: how many plans to return; None = all that ran.
        history: a file that keeps every launch; a search that was cut off goes on from it.
        progress: called with (launches done, launches).

    Raises:
        SpecError: anything in the scenario that cannot be, or a history of another space.
        Unsupported: another kind of workload.
    """
    scenario = load(source, seed=seed)
    if not isinstance(scenario, TrainingScenario):
        raise Unsupported(
            f"workload.kind = '{scenario.kind}': a learned search is of training plans", "It takes one model to train"
        )
    return worlds.training.plan_learned(scenario, evaluations=evaluations, top=top, history=history, progress=progress)


def simulate(source: Source, *, seed: int | None = None, record: bool = False) -> Outcome:
    """Returns what happens under the scenario's plan.

    Args:
        source: a Scenario or what `load` takes; where it serves requests, ``[plan]`` needs replicas, tensor_parallel,
            pipeline_parallel, and where the workload has exits a cascade instead. Training needs none of them.
        seed: instead of the scenario's.
        record: keep the event record for timelines; changes no result. A cascade and training have none.

    Raises:
        SpecError: anything in the scenario that cannot be.
        Infeasible: the plan does not fit; of training the outcome says so, ``metrics["fits"]``.
    """
    scenario = load(source, seed=seed)
    found: Outcome = worlds.ask(scenario, "simulate")(scenario, record=record)
    return found


def learn(
    source: Source, out: str | Path = "weights.npz", *, seed: int | None = None, teacher: str = "drf",
    checkpoint: str | Path | None = None, rounds: int | None = None, warm: int | None = None,
    progress: Progress | None = None,
) -> Learned:  # fmt: skip
    """Trains the policy that the scenario's plan names and writes its weights, which a scenario then names.

    Args:
        source: a Scenario or what `load` takes: of jobs with parameter servers whose share is "dl2", or of a graph
            whose order is "com_ddpg".
        out: the file of weights.
        seed: instead of the scenario's.
        teacher: "dl2": the share policy whose decisions are shown first.
        checkpoint: "dl2": a file that training goes on from if it is there, and keeps.
        rounds: of playing and learning ("com_ddpg": episodes); None = as many as are usual.
        warm: "dl2": updates on the teacher's decisions; None = as many as are usual.
        progress: called with (done, all).

    Raises:
        SpecError: the plan names nothing that learns, or a checkpoint of another training.
        Unsupported: nothing of this kind learns.
        MissingExtra: torch is not installed.
    """
    scenario = load(source, seed=seed)
    settings = {"teacher": teacher} | {k: v for k, v in (("rounds", rounds), ("warm", warm)) if v is not None}
    made: Learned = worlds.ask(scenario, "learn")(
        scenario, Path(out), checkpoint=None if checkpoint is None else Path(checkpoint), settings=settings,
        progress=progress,
    )  # fmt: skip
    return made


def measure(
    device: str = "cpu", *, quick: bool | None = None, threads: int | None = None, progress: Progress | None = None
) -> Profile | EngineProfile:  # fmt: skip
    """Returns the profile of a device of this machine: its peaks, bandwidth, kernels, and how sure they are.

    ``profile.toml()`` is the text of a file that scenarios name: ``devices = "1x ./profile.toml"``.

    Args:
        device: "cpu".
        quick: ten probes, some seconds; otherwise Fleetcast's own engine, a minute or two. None = the engine where
            torch is installed.
        threads: that the engine's products use; None = all cores.
        progress: called with (rounds done, rounds).

    Raises:
        SpecError: more threads than cores.
        Unsupported: another device, or torch is not installed.
    """
    from fleetcast.runtime.measure import measure as run

    return run(device, quick=quick, threads=threads, progress=progress)


def run(source: Source, url: str = "", **settings: Any) -> Outcome:
    """Returns what this machine, or a server at ``url``, makes of the scenario's requests: measured, not simulated.

    Args:
        source: a Scenario or what `load` takes; its traffic is replayed, its SLO judged. Here its plan is run; of a
            server fleet and plan are not read.
        url: of a server that streams OpenAI's ``/v1/completions``, e.g. "http://127.0.0.1:8000"; "" = run the model
            here.
        settings: the other arguments of `replay`, or without a URL of `view.here.run`; of a graph, which agents run,
            of `view.graph.running.run`.

    Raises:
        SpecError: the server cannot be measured, or anything in the scenario that cannot be.
        MissingExtra: torch, or for a server httpx, or for agents aiohttp, is absent.
        Unsupported: no request was answered, or what the engine cannot run.
        Infeasible: the plan does not fit.
    """
    scenario = load(source, seed=settings.get("seed"))
    if (own := getattr(worlds.WORLDS[type(scenario)], "run", None)) is not None and not url:
        settings.pop("seed", None)
        measured: Outcome = own(scenario, **settings)
        return measured
    if not url:
        from fleetcast.view import here

        return here.run(source, **settings).outcome
    return replay(source, url, **settings).outcome


def replay(
    source: Source, url: str, *, model: str = "", speed: float = 1.0, warmup: int = 3, timeout: float = 600.0,
    prompts: str = "tokens", ignore_eos: bool = False, return_token_ids: bool = False, key_env: str = "",
    seed: int | None = None, progress: Progress | None = None,
) -> Replay:  # fmt: skip
    """Returns a run's outcome and, of each request, what became of it.

    Args:
        source: a Scenario or what `load` takes.
        url: of the server.
        model: what to ask for; "" = the only one served, or the scenario's.
        speed: 2 = requests come twice as fast.
        warmup: requests sent before, which do not count.
        timeout: s for a whole answer.
        prompts: "tokens"; "text" for servers that take no token ids; "chat" for those that have chats only.
        ignore_eos: ask for answers of the full length; not every server knows it.
        return_token_ids: ask for the tokens of answers, so that later turns repeat them; not every server knows it.
        key_env: environment variable with the key; "" = OPENAI_API_KEY, which may be unset.
        seed: instead of the scenario's.
        progress: called as requests are settled.

    Raises:
        SpecError: the server cannot be measured, or anything in the scenario that cannot be.
        MissingExtra: httpx is absent.
        Unsupported: no request was answered, or a scenario with exits.
    """
    from fleetcast.runtime import replay as real
    from fleetcast.scenario.workload.arrivals import traffic

    scenario = serving(source, "run", seed=seed)
    if scenario.workload.exits is not None or scenario.slo.quality is not None:
        raise Unsupported(
            "workload.exits, slo.quality: a server's answers are timed, not judged", "Leave exits and quality out"
        )
    fields = {"ignore_eos": ignore_eos, "return_token_ids": return_token_ids}
    server = real.Server(
        real.address(url), model, real.key_of(key_env), timeout, prompts, {k: v for k, v in fields.items() if v}
    )
    requests = traffic(scenario.workload, seed=scenario.seed, folder=scenario.folder)
    return real.replay(
        requests, server, slo=scenario.slo, plan=scenario.plan.table(), model=scenario.workload.model, speed=speed,
        warmup=warmup, seed=scenario.seed, progress=progress,
    )  # fmt: skip


def advise(source: Source, *, seed: int | None = None) -> list[Advice] | SizesAdvice:
    """Returns by which techniques the scenario's model runs on a device of each group; of training, its better sizes.

    Args:
        source: a Scenario or what `load` takes; its model, its longest request and its devices are asked about. Without
            traffic one user is asked about.
        seed: instead of the scenario's.

    Raises:
        SpecError: anything in the scenario that cannot be.
    """
    scenario = load(source, seed=seed)
    found: list[Advice] | SizesAdvice = worlds.ask(scenario, "advise")(scenario)
    return found


def check(source: Source, *, seed: int | None = None) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first; an empty list means nothing was found.

    Raises:
        SpecError: the scenario cannot be read at all.
    """
    scenario = load(source, seed=seed)
    found: list[Remark] = worlds.ask(scenario, "check")(scenario)
    return found


def prove(source: Source, *, seed: int | None = None) -> Proof | None:
    """Returns whether the moves of a scenario's plan between fast and slow memory are legal, and how good they are.

    None where nothing is moved, where the plan is open, or where its kind moves no data.

    Raises:
        SpecError: the scenario cannot be read at all.
    """
    scenario = load(source, seed=seed)
    ask = getattr(worlds.WORLDS[type(scenario)], "prove", None)
    found: Proof | None = None if ask is None else ask(scenario)
    return found


def export(source: Source, to: str, *, seed: int | None = None) -> Export:
    """Returns a scenario's plan, completed, as what an operator pastes.

    Args:
        source: a Scenario or what `load` takes.
        to: "vllm", "sglang", "kubernetes"; of training "megatron", "deepspeed", "torchtitan", "torchrun".
        seed: instead of the scenario's.

    Raises:
        SpecError: an unknown target, or a choice without a default is open.
        Infeasible: the plan does not fit.
        Unsupported: the target has no way to run this plan, or this kind of workload.
    """
    scenario = load(source, seed=seed)
    found: Export = worlds.ask(scenario, "export")(scenario, to)
    return found


def completed(source: Source, *, seed: int | None = None) -> tuple[Setting, Plan]:
    """Returns the scenario resolved, and its plan with every choice made.

    Raises:
        SpecError: a choice without a default is open.
        Infeasible: the plan does not fit.
    """
    return worlds.serving.completed(serving(source, "export", seed=seed))


def example(name: str) -> Path:
    """Returns the file of a packaged example.

    Raises:
        SpecError: no such example; names the nearest.
    """
    known = examples()
    if name in known:
        return known[name]
    raise SpecError(
        name, "is neither a file nor an example", limit=f"examples: {', '.join(known)}",
        hint=closest(name, known) or "Check the path",
    )  # fmt: skip
