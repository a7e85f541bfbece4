"""The command line: plan, simulate, run, whatif, compare, calibrate, advise, check, capacity, measure and the rest.

Results go to stdout, progress and errors to stderr. Exit codes: 0 ok, 1 infeasible, 2 bad input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError

from fleetcast.base.errors import FleetcastError, SpecError
from fleetcast.scenario.load import (
    FunctionsScenario,
    GraphScenario,
    JobsScenario,
    MultitaskScenario,
    PodsScenario,
    Scenario,
    ServerJobsScenario,
    ServingScenario,
    StreamScenario,
    TrainingScenario,
)
from fleetcast.view import (
    capacities,
    collectives,
    comparing,
    learning,
    measuring,
    moving,
    terminal,
    transforming,
    verbs,
    voting,
    watching,
)
from fleetcast.view.functions import commands as functions
from fleetcast.view.graph import agents as agent_commands
from fleetcast.view.graph import commands as graphs
from fleetcast.view.graph.agents import LOCAL, Agents
from fleetcast.view.jobs import commands as jobs
from fleetcast.view.pods import commands as pods
from fleetcast.view.release import release
from fleetcast.view.scheduling import NOWHERE, Cluster, refuse_cluster
from fleetcast.view.served import ALONE, Serving, refuse_beside, refuse_without, serve
from fleetcast.view.server_jobs import commands as server_jobs
from fleetcast.view.serving import commands as requests
from fleetcast.view.stream import commands as streams
from fleetcast.view.terminal import DEFAULTS, STDIN, Common, File
from fleetcast.view.training import commands as training
from fleetcast.view.training import waves

SCREENS: Final[dict[type[Scenario], Any]] = {
    ServingScenario: requests,
    TrainingScenario: training,
    MultitaskScenario: waves,
    GraphScenario: graphs,
    FunctionsScenario: functions,
    JobsScenario: jobs,
    PodsScenario: pods,
    ServerJobsScenario: server_jobs,
    StreamScenario: streams,
}
"""What `plan`, `simulate` and, where it has one of its own, `run` show of each kind of scenario."""
INTERRUPTED, PIPE_CLOSED = 130, 141
"""What shells report for a command ended by Ctrl-C, and by a reader that left."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        argv: words after the command's name; default those of the process.
    """
    # A lone hyphen is a file here; the parser would take it for an option.
    words = [STDIN if word == "-" else word for word in (sys.argv[1:] if argv is None else argv)]
    as_json = "--json" in words
    try:
        result = app()(words, print_error=False, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except FleetcastError as error:
        terminal.report(error, as_json)
        return error.exit_code
    except CycloptsError as error:
        terminal.usage(error, as_json)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader left (`| head`): nothing more can be said, not even by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def app() -> App:
    """Returns the command line as cyclopts has it."""
    made = App(
        name="fleetcast", version=release, version_flags=["--version"], suppress_keyboard_interrupt=False,
        help="Forecast, plan and run AI workloads on any fleet, from phones to GPU clusters.",
    )  # fmt: skip
    for command in (
        plan, simulate, run, learning.learn, comparing.whatif, comparing.compare, comparing.calibrate, advise, check,
        capacities.capacity, export, catalog, examples, schema, collectives.collective, agent_commands.agent,
    ):  # fmt: skip
        made.command(command)
    made.command(measuring.app())
    made.command(watching.app())
    made.command(voting.app())
    made.command(moving.app())
    made.command(transforming.command, name="transform")
    return made


def plan(
    file: File,
    /,
    *,
    report: Path | None = None,
    top: int = 6,
    learned: Annotated[bool, Parameter(negative=())] = False,
    evaluations: int | None = None,
    history: Path | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Search for the best plan of a scenario and say why it is best.

    Parameters
    ----------
    report:
        Write the HTML report to this file.
    top:
        Layouts to rank; 0 = all that meet the SLO.
    learned:
        Training: launch few plans, chosen by a predictor that learns from each, instead of all.
    evaluations:
        With --learned: how many; default 100.
    history:
        With --learned: a file that keeps every launch; a search that was cut off goes on from it.
    """
    asked = terminal.load(file, common)
    launches = training.launches(asked, learned, evaluations, history)
    if launches is not None and isinstance(asked, TrainingScenario):
        return training.plan(asked, common, top=top, report=report, launches=launches, history=history)
    code: int = SCREENS[type(asked)].plan(asked, common, top=top, report=report)
    return code


def simulate(file: File, /, *, common: Common = DEFAULTS) -> int:
    """Simulate the scenario's plan: latencies and throughput, or an iteration of training; money, energy, carbon."""
    asked = terminal.load(file, common)
    code: int = SCREENS[type(asked)].simulate(asked, common)
    return code


def run(
    file: File,
    /,
    *,
    url: str = "",
    model: str = "",
    speed: float = 1.0,
    warmup: int = 3,
    timeout: float = 600.0,
    prompts: Literal["tokens", "text", "chat"] = "tokens",
    ignore_eos: Annotated[bool, Parameter(negative=())] = False,
    return_token_ids: Annotated[bool, Parameter(negative=())] = False,
    key_env: str = "",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    serving: Serving = ALONE,
    agents: Agents = LOCAL,
    cluster: Cluster = NOWHERE,
    common: Common = DEFAULTS,
) -> int:
    """Run the scenario's plan on this machine, or replay its requests against a server, and measure; or --serve it.

    A graph of tasks is run by agents: started here, one a device, or where the devices are (--listen). Pods are
    scheduled on a cluster (--on kubernetes).

    Parameters
    ----------
    url:
        Where a server is, e.g. http://127.0.0.1:8000; it must stream OpenAI's /v1/completions. Left out, Fleetcast's
        own engine runs the model here.
    model:
        Name to ask for; default the only one served, or the scenario's. Of a graph, that of the --planner.
    speed:
        2 = requests come twice as fast.
    warmup:
        Requests sent before, which do not count.
    timeout:
        Seconds for a whole answer.
    prompts:
        "text" for servers that take no token ids, "chat" for those that have chats only.
    ignore_eos:
        Ask for answers of the full length (vLLM, SGLang, llama.cpp).
    return_token_ids:
        Ask for the tokens of answers, so that later turns repeat them (vLLM).
    key_env:
        Environment variable with the key; default OPENAI_API_KEY, and none with --serve. Of a graph, the --planner's.
    device:
        What runs the model here; "auto" is CUDA where the fleet's device is a GPU and torch finds one for each rank.
    """
    from fleetcast.view import here, measured

    asked = terminal.load(file, common)
    if (own := getattr(SCREENS[type(asked)], "schedule", None)) is not None:
        return own(asked, common, cluster)  # type: ignore[no-any-return]
    refuse_cluster(cluster, asked.about)
    if not isinstance(asked, GraphScenario):
        for option in (field.name for field in fields(agents) if getattr(agents, field.name) != field.default):
            name = f"--{option.replace('_', '-')}"
            raise SpecError(name, f"is for a graph of tasks, and this is {asked.about}", hint="Leave it out")
    if (own := getattr(SCREENS[type(asked)], "run", None)) is not None:
        refuse_without(serving)
        graph = isinstance(asked, GraphScenario)
        given = {
            "url": url, "model": model and not graph, "speed": speed != 1, "warmup": warmup != 3,
            "timeout": timeout != 600, "prompts": prompts != "tokens", "ignore-eos": ignore_eos,
            "return-token-ids": return_token_ids, "key-env": key_env and not graph, "device": device != "auto",
        }  # fmt: skip
        for option in (name for name, value in given.items() if value):
            raise SpecError(f"--{option}", f"is for requests, and this is {asked.about}", hint="Leave it out")
        options = replace(agents, model=model, key_env=key_env)
        code: int = own(asked, common, options) if graph else own(asked, common)
        return code
    scenario = verbs.serving(asked, "run")
    if serving.serve:
        refuse_beside(
            url=url, out=common.out, speed=speed != 1, warmup=warmup != 3, prompts=prompts != "tokens",
            ignore_eos=ignore_eos, return_token_ids=return_token_ids,
        )  # fmt: skip
        return serve(scenario, serving, name=model, key_env=key_env, device=device, as_json=common.json)
    refuse_without(serving)
    if common.out is not None:
        measured.check_folder(common.out)
    with terminal.progress("requests", common) as step:
        if url:
            here.refuse_device(device)
            done = verbs.replay(
                scenario, url, model=model, speed=speed, warmup=warmup, timeout=timeout, prompts=prompts,
                ignore_eos=ignore_eos, return_token_ids=return_token_ids, key_env=key_env, progress=step,
            )  # fmt: skip
        else:
            here.for_servers_only(
                model=model, prompts=prompts != "tokens", ignore_eos=ignore_eos, return_token_ids=return_token_ids,
                key_env=key_env,
            )  # fmt: skip
            done = here.run(scenario, speed=speed, warmup=warmup, device=device, progress=step)
    written = measured.write_run(common.out, scenario, done) if common.out is not None else []
    if common.json:
        terminal.print_json(done.outcome.table())
    else:
        console = terminal.screen()
        console.print(measured.measured_view(scenario, done.outcome))
        terminal.say_written(console, written)
    if done.interrupted:
        return INTERRUPTED
    return 1 if done.outcome.metrics["failed"] else 0


def advise(file: File, /, *, common: Common = DEFAULTS) -> int:
    """Say by which techniques a scenario's model runs on one device of each kind; of training, its better sizes."""
    from fleetcast.view.tiers import advice_view
    from fleetcast.view.training.sizing import sizing_view

    found = verbs.advise(terminal.load(file, common))
    if not isinstance(found, list):
        terminal.answer(common, found.table(), lambda width: sizing_view(found, width))
        return 0
    table = {"advice": [advice.table() for advice in found]}
    terminal.answer(common, table, lambda width: advice_view(found, width))
    return 0 if all(advice.options for advice in found) else 1


def check(file: File, /, *, strict: Annotated[bool, Parameter(negative=())] = False, common: Common = DEFAULTS) -> int:
    """Look for what is wrong or doubtful in a scenario, and prove what its plan moves between memories.

    Parameters
    ----------
    strict:
        Warnings count as errors.
    """
    scenario = terminal.load(file, common)
    found, proof = verbs.check(scenario), verbs.prove(scenario)
    bad = any(strict or remark.level == "error" for remark in found) or (proof is not None and not proof.legal)
    table = {
        "ok": not bad, "remarks": [remark.table() for remark in found],
        "proof": None if proof is None else proof.table(),
    }  # fmt: skip
    terminal.answer(common, table, lambda _: terminal.tables().remarks_view(found, proof))
    return 1 if bad else 0


def export(file: File, /, *, to: str, common: Common = DEFAULTS) -> int:
    """Write a complete plan as what an operator pastes.

    Parameters
    ----------
    to:
        Requests: "vllm", "sglang" or "kubernetes"; training: "megatron", "deepspeed", "torchtitan" or "torchrun"; pods:
        "kubernetes", a scheduler.
    """
    made = verbs.export(terminal.load(file, common), to)
    terminal.write_text(common, made.text, made.data)
    return 0


def catalog(
    kind: Literal["devices", "models", "links", "traces", "engines", "policies"] = "devices", /, *,
    common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """List what scenarios can name: devices, models, links, traces, engines, policies."""
    from fleetcast.view.catalogs import DROP, catalog_rows, catalog_table

    rows = catalog_table(kind)
    heads, cells = catalog_rows(kind, rows)
    drop = DROP.get(kind, 0)
    terminal.answer(
        common, {kind: rows}, lambda width: terminal.tables().rows_table(heads, cells, width=width, drop=drop)
    )
    return 0


def examples(name: str | None = None, /, *, common: Common = DEFAULTS) -> int:
    """List the packaged example scenarios, or print one."""
    known = verbs.examples()
    if name is not None:
        text = verbs.example(name).read_text(encoding="utf-8")
        terminal.write_text(common, text, {"name": name, "text": text})
        return 0
    rows = [(n, verbs.headline(path)) for n, path in known.items()]
    table = {"examples": [{"name": n, "about": about} for n, about in rows]}
    terminal.answer(common, table, lambda width: terminal.tables().rows_table(("Example", "About"), rows, width=width))
    return 0


def schema(*, common: Common = DEFAULTS) -> int:
    """Print the JSON Schema of scenario files, for editors."""
    from fleetcast.view.outputs import to_json
    from fleetcast.view.schema import scenario_schema

    table = scenario_schema()
    terminal.write_text(common, to_json(table), table)
    return 0
