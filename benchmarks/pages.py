"""Renders the tables of the documentation from the code, so that a page cannot say what the code does not.

``python -m benchmarks.pages`` replaces what stands between ``<!-- table:NAME -->`` and ``<!-- /table -->`` in
``docs/**/*.md``; ``make evidence`` does so too, and a test fails where a page is behind. NAME is a key of `TABLES`.
``--runs`` also renews what real runs gave: ``docs/images/*.svg``, and the output between ``<!-- run:COMMAND -->`` and
``<!-- /run -->``.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.records import ROOT
from fleetcast.base.files import write_atomic
from fleetcast.base.show import show
from fleetcast.base.spec import kinds
from fleetcast.base.units import Quantity
from fleetcast.cost.engine import Engine, Host, engines
from fleetcast.policy import batch, evict, memory, power, recover, route, scale, speculate
from fleetcast.policy.order import requests, tasks
from fleetcast.policy.place import pods
from fleetcast.policy.place import stages as place
from fleetcast.policy.route import invocations as routes
from fleetcast.scenario.fleet.catalog import devices, links
from fleetcast.scenario.fleet.failures import SHORTEST, Failures
from fleetcast.scenario.fleet.signals import grids
from fleetcast.scenario.fleet.spec import Fleet, FleetGroup, Links
from fleetcast.scenario.functions_plan import FunctionsPlan
from fleetcast.scenario.jobs_plan import JobsPlan
from fleetcast.scenario.kinds.graph import GraphPlan
from fleetcast.scenario.kinds.server_jobs import DrawnJobs, Estimates, ServerJobList
from fleetcast.scenario.load import KINDS, ServingScenario
from fleetcast.scenario.objective import MAXIMIZE, MINIMIZE, Objective, Slo
from fleetcast.scenario.outcome import UNITS
from fleetcast.scenario.plan import (
    COUNTS,
    DTYPES,
    HANDOFFS,
    KV_DTYPES,
    LOWEST_CLOCK,
    OVERLAPS,
    PLACEMENTS,
    ROLES,
    Pool,
    Stage,
)
from fleetcast.scenario.pods_plan import PodsPlan
from fleetcast.scenario.stream_plan import StreamPlan, Upgrade
from fleetcast.scenario.training_plan import CHOICES as TRAINED
from fleetcast.scenario.training_plan import Shards, TrainingPlan
from fleetcast.scenario.workload.architectures import BUILDERS
from fleetcast.scenario.workload.catalog import models
from fleetcast.scenario.workload.exits import Exit, families
from fleetcast.scenario.workload.functions import Functions, Region, Start
from fleetcast.scenario.workload.graph import Graph
from fleetcast.scenario.workload.graphs import generators
from fleetcast.scenario.workload.invocations import generators as invocations
from fleetcast.scenario.workload.job_list import JobList
from fleetcast.scenario.workload.loads import Skew
from fleetcast.scenario.workload.pod_list import DrawnPods, PodList
from fleetcast.scenario.workload.quality import Score
from fleetcast.scenario.workload.scores import Classifier, Firing, TurnOn
from fleetcast.scenario.workload.serving import Arrivals, Lengths, Serving, Sessions
from fleetcast.scenario.workload.streams import Filter, Repair, Stream, StreamLink, StreamNode
from fleetcast.scenario.workload.training import Features, Shape, Training
from fleetcast.search.advice.techniques import FORMATS, SHAPES, storage_of
from fleetcast.search.tiers.family import runs, whole
from fleetcast.sim.serving.drafting import profiles
from fleetcast.sim.serving.setting import DEFAULT_ENGINE
from fleetcast.sim.training.completing import ONES
from fleetcast.view.catalogs import decision
from fleetcast.view.exports.machines import MAKES

_RUN = re.compile(r"<!-- run:(fleetcast [^\n]+?) -->(.*?)<!-- /run -->", re.DOTALL)
_BLOCK = re.compile(r"<!-- table:([\w-]+) -->(.*?)<!-- /table -->", re.DOTALL)

FORMS: Mapping[str, type[msgspec.Struct]] = {
    "": ServingScenario, "fleet": Fleet, "fleet.groups": FleetGroup, "fleet.failures": Failures, "fleet.links": Links,
    "workload": Serving,
    "workload.arrivals": Arrivals, "workload.lengths": Lengths, "workload.sessions": Sessions, "workload.exits": Exit,
    "workload.expert_load": Skew, "workload.quality": Score, "slo": Slo,
    "objective": Objective, "plan": Pool, "plan.cascade": Stage, "training.workload": Training,
    "training.workload.model": Shape, "training.workload.features": Features, "training.plan": TrainingPlan,
    "training.plan.shards": Shards, "graph.workload": Graph, "graph.plan": GraphPlan,
}  # fmt: skip
"""What a scenario file is made of: the path of each table and the class that reads it; ``training.`` or ``graph.``
before the paths of a scenario of that kind."""

EXAMPLES: Mapping[str, str] = {
    "name": '"night shift"', "seed": "7",
    "fleet.devices": '"4x h100-sxm + 4x l40s"', "fleet.link": '"pcie-5"', "fleet.network": '"infiniband-ndr"',
    "fleet.price": '{ "h100-sxm" = "2.50 $/h" }', "fleet.pue": "1.2", "fleet.grid": '"PJM"',
    "fleet.power_limit": '"500 W"', "fleet.budget": '"200 kW"', "fleet.spend": '"500 $/h"',
    "fleet.host_power": '"1500 W"', "fleet.ssd": '"6 GB/s"', "fleet.host_memory": '"256 GB"',
    "fleet.ssd_write": '"3 GB/s"', "fleet.ssd_memory": '"4 TB"', "fleet.host_bandwidth": '"200 GB/s"',
    "training.plan.swap": '"auto"',
    "fleet.store": '"200 GB/s"',
    "fleet.groups.name": '"new"', "fleet.groups.count": "2", "fleet.groups.link": '"nvlink-4"',
    "fleet.groups.devices": '"8x h100-sxm"', "fleet.groups.price": '"spot"',
    "fleet.groups.failures": '{ mtbf = "2 h", repair = "5 min" }',
    "fleet.failures.mtbf": '"200 h"', "fleet.failures.repair": '"10 min"', "fleet.failures.per": '"device"',
    "fleet.failures.outages": '"outages.csv"', "fleet.failures.billed": "false",
    "fleet.failures.shape": "0.7", "fleet.failures.detect": '"10 min"', "fleet.failures.restart": '"5 min"',
    "fleet.failures.spares": "16",
    "workload.model": '"llama-3.1-70b"', "workload.kind": '"serving"', "workload.trace": '"azure-conv-2023"',
    "workload.speed_up": "2.0", "workload.low_priority": "0.5", "workload.requests": "2000",
    "workload.arrivals.kind": '"poisson"', "workload.arrivals.rate": '"4 /s"', "workload.arrivals.requests": "1000",
    "workload.arrivals.concurrency": "16", "workload.arrivals.cv": "3.0",
    "workload.arrivals.ramp": '"10 s"', "workload.arrivals.think": '"500 ms"', "workload.lengths.spread": "0.1",
    "workload.lengths.kind": '"lognormal"', "workload.lengths.prompt": "1000", "workload.lengths.output": "200",
    "workload.lengths.prompt_p90": "2000", "workload.lengths.output_p90": "300",
    "workload.exits": '"ai-flow-ruyi-7b"', "workload.confidence": "0.8",
    "workload.sessions.turns": "5", "workload.sessions.think": '"60 s"', "workload.sessions.system": "600",
    "workload.expert_load": "{ zipf = 0.8 }", "workload.expert_load.zipf": "0.8",
    "workload.quality": '"quality.json"', "workload.quality.quality": "0.66",
    "workload.quality.model": '"llama-3.1-8b"',
    "workload.quality.dtype": '"fp8"', "workload.quality.interval": "[0.63, 0.69]", "workload.quality.items": "798",
    "workload.exits.layers": "11", "workload.exits.quality": "0.37",
    "objective.minimize": '["cost", "latency"]', "objective.maximize": '"goodput"',
    "plan.role": '"all"', "plan.on": '"new"', "plan.model": '"llama-3.1-8b"', "plan.replicas": "2",
    "plan.tensor_parallel": "[2, 4, 8]", "plan.pipeline_parallel": "1", "plan.expert_parallel": "[1, 8]",
    "plan.attention_dp": "8", "plan.engine": '"vllm-0.6"', "plan.dtype": '["bf16", "fp8"]', "plan.kv_dtype": '"fp8"',
    "plan.activation_dtype": '"bf16"', "plan.clock": "[0.7, 1.0]",
    "plan.expert_placement": '["contiguous", "balanced"]',
    "plan.batch": '{ kind = "chunked", chunk = 2048 }', "plan.order": '{ kind = "shortest_prompt" }',
    "plan.memory": '{ kind = "swap" }', "plan.overlap": '["none", "nano"]',
    "plan.cascade.on": '"cloud"', "plan.cascade.exit": "28", "plan.cascade.handoff": '"hidden"',
    "plan.cascade.split": "11", "plan.cascade.after": '"phone"', "plan.cascade.threshold": "0.7",
    "plan.speculate": '{ kind = "fixed", length = 4, model = "llama-3.2-1b", acceptance = 0.7 }',
    "plan.prefix_cache": '{ kind = "lru", cpu = "50 GB" }',
    "fleet.links.intra": '"nvlink-4"', "fleet.links.inter": '"100 Gb/s"',
    **{f"training.workload.{key}": value for key, value in {
        "model": '"gpt3-175b"', "kind": '"training"', "sequence": "4096", "batch": "1536", "tokens": "300_000_000_000",
        "steps": "10_000", "model.layers": "48", "model.hidden": "6144", "model.heads": "64", "model.kv_heads": "8",
        "model.head_dim": "128", "model.ffn": "16384", "model.vocab": "51200", "model.gated": "true",
        "model.experts": "8", "model.top_k": "2", "model.shared_ffn": "1408", "model.tied": "false",
        "model.learned_positions": "false", "features.flops": '"1.5 TFLOP"', "features.traffic": '"20 GB"',
        "features.weights": '"1 GB"', "features.input": '"10 MB"',
    }.items()},
    **{f"training.plan.{key}": value for key, value in {
        "tensor_parallel": "[1, 2, 4, 8]", "pipeline_parallel": "8", "data_parallel": "16", "context_parallel": "2",
        "expert_parallel": "[4, 8]", "micro_batch": "[1, 2]", "interleave": "3", "schedule": '"interleaved"',
        "recompute": '["none", "selective"]', "sequence_parallel": "true", "zero": "[1, 3]",
        "offload": '["optimizer"]', "tensor_messages": '"scatter_gather"', "overlap": '["data", "pipeline"]',
        "dtype": '"bf16"', "fused_attention": "false", "islands": "8", "recover": '"two_stage"',
        "practice": '"./practice.toml"', "place": '"nic_aware"', "shards": '"auto"',
        "shards.weights": "2", "shards.gradients": "8", "shards.optimizer": "384", "shards.second": "8",
        "shards.weight_format": '"int8"', "shards.gradient_format": '"int4"', "placement": '"all-reduce-local"',
    }.items()},
    **{f"graph.{key}": value for key, value in {
        "workload.graph": '{ kind = "cholesky", tiles = 16 }', "workload.kind": '"graph"', "workload.dtype": '"fp32"',
        "workload.speeds": "{ l40s = 1.5 }", "workload.seconds": '{ GEMM = { h100-sxm = "2 ms", l40s = "3 ms" } }',
        "workload.home": '"h100-sxm"', "workload.work_unit": '"1 ms"', "workload.data_unit": '"1 MB"',
        "plan.order": '["heft", "fifo"]', "plan.workers": "{ l40s = 2 }",
    }.items()},
}  # fmt: skip
"""One value per key, as a file has it; a test loads each."""

CHOICES: Mapping[str, Iterable[str]] = {
    "fleet.failures.per": ("node", "device"),
    "workload.kind": KINDS[:1], "workload.arrivals.kind": ("poisson", "uniform", "gamma", "closed"),
    "workload.lengths.kind": ("fixed", "lognormal"), "objective.minimize": MINIMIZE, "objective.maximize": MAXIMIZE,
    "plan.cascade.handoff": HANDOFFS,
    "plan.role": ROLES, "plan.dtype": DTYPES, "plan.kv_dtype": KV_DTYPES, "plan.activation_dtype": DTYPES,
    "plan.batch": kinds(batch), "plan.order": kinds(requests), "plan.memory": kinds(memory), "plan.engine": engines(),
    "plan.overlap": OVERLAPS, "plan.expert_placement": PLACEMENTS,
    "plan.speculate": kinds(speculate), "plan.prefix_cache": ("off", *kinds(evict)),
    "graph.workload.kind": KINDS[2:3], "graph.plan.order": kinds(tasks),
    "graph.workload.graph": ("a file", *kinds(generators)),
    "training.workload.kind": KINDS[1:2], "training.plan.place": kinds(place), "training.plan.recover": kinds(recover),
    **{f"training.plan.{name}": known for name, known in TRAINED},
}  # fmt: skip
RANGES: Mapping[str, str] = {
    "seed": "0 to 2^63",
    "fleet.pue": "1 to 10",
    "fleet.power_limit": "above idle",
    "fleet.budget": "from the idle power of one server",
    "fleet.spend": "from the price of one device",
    "fleet.groups.count": "1 to 10,000",
    "fleet.failures.mtbf": f"from {SHORTEST:g} s",
    "fleet.failures.repair": "above 0, up to mtbf",
    "fleet.grid": "0 to 100,000 g/kWh",
    "workload.arrivals.rate": "above 0",
    "plan.clock": f"{LOWEST_CLOCK} to 1",
} | {f"plan.{name}": "from 1" for name in COUNTS}
"""Ranges that are checked beyond what a type says."""
DEFAULTS: Mapping[str, str] = {
    "name": "the file's name", "fleet.link": "the device's", "fleet.network": "the device's",
    "fleet.price": "the catalogue's", "fleet.groups.name": "its device", "fleet.groups.link": "the device's",
    "fleet.groups.price": "the fleet's", "fleet.groups.failures": "the fleet's", "fleet.failures": "nothing fails",
    "fleet.failures.mtbf": "required, or outages", "fleet.failures.repair": "required, or outages",
    "objective.minimize": '`"cost"`', "plan.dtype": "the checkpoint's", "plan.engine": f'`"{DEFAULT_ENGINE}"`',
    "plan.batch": "the engine's", "plan.order": "the engine's", "plan.memory": "the engine's",
    "plan.overlap": '`"none"`',
    "plan.speculate": '`"off"`', "plan.prefix_cache": "the engine's",
    "fleet.ssd_write": "what they read", "fleet.ssd_memory": "enough",
    "fleet.host_bandwidth": "40 GB/s", "training.plan.swap": "nothing streams",
    "fleet.ssd": "no tier on disk", "fleet.host_memory": "128 GB", "fleet.store": "100 GB/s",
    "fleet.failures.detect": "10 min",
    "fleet.failures.restart": "5 min", "fleet.failures.spares": "none", "workload.sessions.think": "one turn",
    "plan.model": "the workload's", "plan.expert_parallel": "`1`", "plan.attention_dp": "`1`",
    "plan.kv_dtype": '`"auto"`',
    "plan.activation_dtype": "follows dtype", "plan.clock": "`1.0`", "plan.on": "the only group",
    "workload.arrivals.ramp": "`0`", "workload.arrivals.think": "`0`", "workload.lengths.spread": "see right",
    "workload.requests": "all", "fleet.power_limit": "the board's", "fleet.budget": "no breaker",
    "fleet.spend": "no limit",
    "plan.cascade.after": "the stage before",
    "workload.exits": "no tiers", "workload.confidence": "one answer a query",
    "workload.quality": "not known", "workload.quality.model": "the workload's",
    "graph.workload.home": "everywhere", "graph.workload.speeds": "`1`",
    "graph.workload.seconds": "of peaks or records",
    "graph.plan.order": "see below", "graph.plan.workers": "`1`",
    "fleet.links": "the catalogue's", "fleet.links.intra": "the device's", "fleet.links.inter": "the device's",
    "training.workload.model": "required, or features", "training.workload.batch": "required with a model",
    "training.workload.tokens": "not said", "training.workload.steps": "not said",
    "training.workload.model.kv_heads": "heads", "training.workload.model.head_dim": "hidden / heads",
    "training.workload.model.ffn": "see right", "training.workload.model.learned_positions": "of GPT alone",
    **{f"training.plan.{name}": said for name, said in {
        **dict.fromkeys(ONES, "`1`"), "data_parallel": "what is left", "schedule": "see below",
        "recompute": "the least that fits", "sequence_parallel": "with tensor parallelism", "zero": "`1` with copies",
        "offload": "`[]`", "overlap": '`["data"]`', "tensor_messages": "see below", "dtype": '`"bf16"`',
        "fused_attention": "`true`", "recover": "none", "practice": "the device's", "islands": "none",
        "place": '`"nic_aware"`', "shards": "zero","shards.optimizer": "all copies", "shards.second": "none",
        "placement": "the quickest",
    }.items()},
    "workload.quality.dtype": "any", "workload.expert_load": "the kernels'", "plan.expert_placement": '`"contiguous"`',
}  # fmt: skip
"""What an absent key means where the class says None."""


def fill(text: str) -> str:
    """Returns a page with its marked tables rendered; filling twice changes nothing.

    Raises:
        KeyError: a page asks for a table that is not in `TABLES`.
    """
    return _BLOCK.sub(lambda m: f"<!-- table:{m[1]} -->\n\n{TABLES[m[1]]()}\n\n<!-- /table -->", text)


def rerun(text: str) -> str:
    """Returns a page with the output of its marked commands as it is now."""

    def output(match: re.Match[str]) -> str:
        words = shlex.split(match[1])
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=ROOT, env=os.environ | {"COLUMNS": "84"}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        said = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
        return f"<!-- run:{match[1]} -->\n\n```text\n$ {match[1]}\n{said}\n```\n\n<!-- /run -->"

    return _RUN.sub(output, text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def attributes(struct: type) -> dict[str, str]:
    """Returns the sentences under "Attributes:" of a class and those above it, by name, as Markdown."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        found |= _said(base)
    return {name: said.replace("``", "`") for name, said in found.items()}


def _said(struct: type) -> dict[str, str]:
    """The sentences under "Attributes:" of a docstring of the class itself."""
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(struct.__doc__ or "").partition("Attributes:")[2].splitlines():
        head, colon, rest = line.strip().partition(":")
        if re.match(r"    \S", line) and colon and head.isidentifier():
            name = head
            found[name] = rest.strip()
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def keys(path: str) -> str:
    """Returns the table of one part of a scenario file: every key with type, default, range, example, meaning."""
    struct = FORMS[path]
    said, hints = attributes(struct), typing.get_type_hints(struct, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(struct):
        full = f"{path}.{field.name}".lstrip(".")
        if full == "folder":
            continue
        example = f"`{EXAMPLES[full]}`" if full in EXAMPLES else ""
        limit = RANGES.get(full) or ", ".join(f"`{c}`" for c in CHOICES.get(full, ())) or _range(hints[field.name])
        rows.append(
            (f"`{field.name}`", _type(hints[field.name]), _default(full, field), limit, example, said[field.name])
        )
    return table(("key", "type", "default", "range", "example", "meaning"), rows)


def slo_keys() -> str:
    """Returns the limits that ``[slo]`` knows: a metric and a statistic."""
    said = {
        "quality": "least share of right answers, where the workload has exits or measured quality",
        "ttft": "arrival to first token",
        "tpot": "time per further output token",
        "e2e": "arrival to last token",
    }
    found: dict[str, list[str]] = {}
    for name in Slo.__struct_fields__:
        metric = name.partition("_")[0]
        found.setdefault(metric, []).append(f"`{name}`")
    rows = []
    for metric, names in found.items():
        kind, limit = ("number", "above 0, to 1") if metric == "quality" else ("quantity, s", "above 0")
        rows.append((", ".join(names), kind, "no limit", limit, said[metric]))
    return table(("keys", "type", "default", "range", "limits"), rows)


def _type(hint: Any) -> str:
    """A field's type in words; a list beside a value means: search these."""
    kinds_ = [a for a in _members(hint) if a is not types.NoneType]
    lists = [a for a in kinds_ if typing.get_origin(a) is tuple]
    quantity = next((q for a in kinds_ if (q := _mark(a, Quantity))), None)
    if quantity is not None:
        return f"quantity, {quantity.unit}" + (", a name or a file" if quantity.named else "")
    if lists and len(lists) == len(kinds_):
        inner = typing.get_args(lists[0])[0]
        return "tables" if isinstance(inner, type) and issubclass(inner, msgspec.Struct) else "list"
    words = [_word(a) for a in kinds_ if a not in lists]
    return " or ".join(dict.fromkeys(words)) + (", or a list" if lists else "")


def _word(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _word(typing.get_args(kind)[0])
    if origin is typing.Literal:
        return "text"
    if origin is dict:
        quantity = _mark(typing.get_args(kind)[1], Quantity)
        named = " or names" if quantity and quantity.named else ""
        return f"table of quantities{named}, {quantity.unit}" if quantity else "table"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "table"
    if kind is Any:
        return "text or table, or a list"  # a policy, or several to search
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[kind]


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _mark(hint: Any, kind: type) -> Any:
    return next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, kind)), None)


def _range(hint: Any) -> str:
    for member in _members(hint):
        quantity, meta = _mark(member, Quantity), _mark(member, msgspec.Meta)
        if quantity is not None:
            return f"at least {quantity.low:g}"
        if meta is not None and meta.gt is not None:
            return f"above {_plain(meta.gt)}"
        if meta is not None and meta.ge is not None:
            high = _plain(meta.le) if meta.le is not None else f"below {_plain(meta.lt)}"
            return f"{_plain(meta.ge)} to {high}"
    return ""


def _plain(value: float) -> str:
    """A bound as people write it; 0 and 0.0 alike, since equal ones share one cached type."""
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _default(full: str, field: msgspec.structs.FieldInfo) -> str:
    if full in DEFAULTS:
        return DEFAULTS[full]
    if field.default is msgspec.NODEFAULT:
        return "required" if field.default_factory is msgspec.NODEFAULT else "none"
    if field.default in (None, "", ()) or isinstance(field.default, msgspec.Struct):
        return "none"
    return f'`"{field.default}"`' if isinstance(field.default, str) else f"`{field.default}`"


def device_table() -> str:
    """Returns the devices: memory, peaks, power, price, node and links."""
    rows = []
    for d in devices().values():
        peaks = ", ".join(f"{name} {show(value / 1e12)}" for name, value in d.peak.items())
        price = show(d.price, "$/h").removesuffix(" $/h") if d.price is not None else "-"
        rows.append((
            f"`{d.id}`", show(d.memory, "B"), show(d.bandwidth, "B/s"), peaks,
            f"{show(d.power.idle)} / {show(d.power.max)}", price, str(d.node), f"`{d.link}`", f"`{d.network}`",
        ))  # fmt: skip
    heads = (
        "device",
        "memory",
        "bandwidth",
        "peak, dense TFLOP/s",
        "idle / max, W",
        "$/h",
        "in a node",
        "link",
        "network",
    )
    return table(heads, rows)


def spot_table() -> str:
    """Returns the devices that have a spot price, beside their price on demand, with source."""
    rows = [
        (f"`{d.id}`", show(d.spot_price, "$/h"), show(d.price, "$/h"), f"{d.spot_source}, {d.spot_date}")
        for d in devices().values() if d.spot_price is not None and d.price is not None
    ]  # fmt: skip
    return table(("device", "spot", "on demand", "source of the spot price"), rows)


def device_sources() -> str:
    """Returns where the figures of each device come from, and what of them was measured."""
    rows = []
    for d in devices().values():
        price = f"{d.price_source}, {d.price_date}" if d.price is not None else "not rented"
        rows.append((f"`{d.id}`", d.measured, d.source, price))
    return table(("device", "measured", "data sheet", "price"), rows)


def link_table() -> str:
    """Returns the links: bandwidth of a device in one direction, latency, source."""
    rows = []
    for x in links().values():
        rate = show(x.bandwidth, "B/s") + (f", {show(x.uplink, 'B/s')} up" if x.uplink else "")
        rows.append((f"`{x.id}`", rate, show(x.latency, "s"), x.kind, x.source))
    return table(("link", "bandwidth", "latency", "kind", "source"), rows)


def grid_table() -> str:
    """Returns the packaged grids with their mean intensity."""
    rows = []
    for name, s in grids().items():
        mean = s.mean(0.0, s.span) if len(s.values) > 1 else s.values[0]
        rows.append((f"`{name}`", f"{mean:.0f}", "hourly" if len(s.values) > 1 else "yearly mean"))
    return table(("grid", "mean, gCO2e/kWh", "kind"), rows)


def model_table() -> str:
    """Returns the models: parameters, those a token is multiplied with, cache, storage."""
    rows = []
    for name, m in models().items():
        cache = show(m.kv_bytes_per_token(), "B")
        rows.append((
            f"`{name}`", _billions(m.params()), _billions(m.active_params()), cache, m.dtype,
            f"{m.context:,}" if m.context else "-", f"`{m.architecture}`",
        ))  # fmt: skip
    heads = ("model", "parameters", "active", "KV per token, 16 bit", "weights", "positions", "architecture")
    return table(heads, rows)


def architecture_table() -> str:
    """Returns the architectures that have a builder, and what its docstring says of them."""
    rows = []
    for name, builder in BUILDERS.items():
        said = " ".join((inspect.getdoc(builder) or "").replace("``", "`").split())
        for own in BUILDERS:
            said = re.sub(rf"^{own}( \([^)]*\))?( and \w+( \([^)]*\))?)?[.:]? ?", "", said)
        rows.append((f"`{name}`", said if said[1:2] == " " else said[:1].upper() + said[1:]))
    return table(("architecture", "what config.json leaves to the class"), rows)


def engine_table() -> str:
    """Returns the engine profiles with what a plan gets from them by default."""
    rows = []
    for e in engines().values():
        asked = ", ".join(f"{k} {v}" for k, v in e.batch.items() if k != "kind")
        versions = f"{e.family} {_versions(e)}".strip()
        rows.append((
            f"`{e.id}`: {e.name}", ", ".join(filter(None, (versions, *e.names))), f"{e.batch['kind']} ({asked})",
            f"{e.memory_fraction:g}", show(e.reserve, "B"), str(e.block), "yes" if e.overlap else "no",
        ))  # fmt: skip
    heads = ("engine", "answers for", "batch", "memory", "reserve", "block", "overlap")
    return table(heads, rows)


def engine_sources() -> str:
    """Returns the source of each profile."""
    return "\n".join(f"- `{e.id}`: {e.source.rstrip('.')}." for e in engines().values())


def _versions(e: Engine) -> str:
    since, until = (".".join(map(str, v)) for v in (e.since, e.until))
    if not e.family:
        return ""
    return f"from {since}" if since else f"before {until}" if until else "of any version"


def engine_keys() -> str:
    """Returns the keys of an engine profile."""
    return _plain_keys(Engine)


def host_keys() -> str:
    """Returns the host constants of a profile."""
    return _plain_keys(Host)


def _plain_keys(struct: type[msgspec.Struct]) -> str:
    said, hints = attributes(struct), typing.get_type_hints(struct, include_extras=True)
    rows = []
    for f in msgspec.structs.fields(struct):
        fallback = (
            "required" if f.default is msgspec.NODEFAULT and f.default_factory is msgspec.NODEFAULT else "optional"
        )
        rows.append((f"`{f.name}`", _type(hints[f.name]), fallback, said.get(f.name, "for people")))
    return table(("key", "type", "", "meaning"), rows)


def host_table() -> str:
    """Returns the fitted host constants of every profile, per device."""
    names, hints = Host.__struct_fields__, typing.get_type_hints(Host, include_extras=True)
    rows = []
    for e in engines().values():
        for device, host in e.host.items():
            cells = (show(getattr(host, n), "s" if _mark(hints[n], Quantity) else "") for n in names)
            rows.append((f"`{e.id}`", device, *cells))
    return table(("engine", "device", *names), rows)


def export_makes() -> str:
    """Returns what `export` knows of each make of devices: the pod's resource and the images of the engines."""
    rows = [
        (make, f"`{m.resource}`", *(f"`{m.images[e].replace('{tag}', 'VERSION')}`" if e in m.images else "-"
                                    for e in ("vllm", "sglang")))
        for make, m in MAKES.items()
    ]  # fmt: skip
    return table(("devices", "resource", "vLLM", "SGLang"), rows)


def host_ranges() -> str:
    """Returns the physical range that each fit keeps a host constant in: ``RANGES`` of the scripts in ``fit/``."""
    scripts = {path.stem: _literal(path, "RANGES") for path in sorted((ROOT / "benchmarks/fit").glob("*.py"))}
    fits = {stem: ranges for stem, ranges in scripts.items() if ranges and set(ranges) <= set(Host.__struct_fields__)}
    rows = [
        (f"`{n}`", *(f"{show(r[n][0], 's')} to {show(r[n][2], 's')}" if n in r else "-" for r in fits.values()))
        for n in Host.__struct_fields__
        if any(n in r for r in fits.values())
    ]
    return table(("constant", *(f"`fit/{stem}.py`" for stem in fits)), rows)


def _literal(path: Path, name: str) -> Any:
    """The value of a module's constant that is written out; None where it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return ast.literal_eval(node.value) if node.value is not None else None
    return None


def policy_table() -> str:
    """Returns every policy: decision, kind, settings with defaults and ranges, what it does, where it is from."""
    rows = []
    for family in (batch, requests, tasks, memory, evict, route, routes, scale, power, speculate, recover):
        for kind, made in kinds(family).items():
            module = inspect.getmodule(made)
            about = (inspect.getdoc(made) or "").split("\n")[0].replace("``", "`")
            rows.append((decision(family), f"`{kind}`", _settings(made), about, _paper(module)))
    return table(("decision", "kind", "settings", "rule", "from"), rows)


def invocation_table() -> str:
    """Returns every trace of invocations that a scenario can generate: kind, settings with defaults, what it is."""
    rows = []
    for kind, made in kinds(invocations).items():
        about = (inspect.getdoc(made) or "").split("\n")[0]
        rows.append((f"`{kind}`", _settings(made), about))
    return table(("kind", "settings", "what it is"), rows)


def generator_table() -> str:
    """Returns every graph that a scenario can generate: kind, settings with defaults and ranges, what it is."""
    rows = []
    for kind, made in kinds(generators).items():
        about = (inspect.getdoc(made) or "").split("\n")[0].replace("``", "`")
        rows.append((f"`{kind}`", _settings(made), about))
    return table(("kind", "settings", "what it is"), rows)


def acceptance_table() -> str:
    """Returns the published acceptance profiles: name, rates by position, who drafts for whom, source, status."""
    rows = [
        (f"`{name}`", ", ".join(f"{rate:g}" for rate in row["rates"]), row["pair"], row["source"], row["status"])
        for name, row in profiles().items()
    ]
    return table(("profile", "rates", "pair and task", "source", "status"), rows)


def policy_rules() -> str:
    """Returns what each module of a policy says of itself, after its first line."""
    parts = []
    for family in (batch, requests, tasks, memory, evict, route, routes, scale, power, speculate, recover):
        for kind, made in kinds(family).items():
            text = (getattr(inspect.getmodule(made), "__doc__", "") or "").strip()
            first, _, rest = text.partition("\n\n")
            parts.append(
                f"**`{kind}`.** {' '.join(first.split())} {' '.join(rest.split())}".replace("``", "`").rstrip()
            )
    return "\n\n".join(parts)


def pod_policies() -> str:
    """Returns the policies that place pods: what each does and takes."""
    rows = []
    for kind, made in kinds(pods).items():
        first = (getattr(inspect.getmodule(made), "__doc__", "") or "").strip().partition("\n\n")[0]
        rows.append((f"`{kind}`", " ".join(first.split()), _settings(made)))
    return table(("`place`", "rule", "settings"), rows)


def _settings(made: type) -> str:
    hints = typing.get_type_hints(made.__init__, include_extras=True)  # type: ignore[misc]
    said = []
    for name, p in inspect.signature(made).parameters.items():
        limit = _range(hints.get(name))
        said.append(f"`{name} = {p.default}`" + (f" ({limit})" if limit else ""))
    return ", ".join(said) or "-"


def _paper(module: types.ModuleType | None) -> str:
    """The first sentence of a module's docstring that holds a year."""
    text = " ".join((getattr(module, "__doc__", "") or "").split())
    sentences = re.split(r"(?<=[.;]) (?=[A-Z\"])|(?<=\d\d): ", text)
    return next((s.rstrip(".;:") for s in sentences if re.search(r"\b(19|20)\d\d\b", s)), "").split(" Rule:")[0]


def metric_table() -> str:
    """Returns the metrics of an outcome with their units."""
    return table(("metric", "unit"), ((f"`{k}`", unit or "-") for k, unit in UNITS.items()))


def autolife_table() -> str:
    """Returns the forecast of AutoLife-Lite's application on phones, edge and cloud."""
    from benchmarks.tiers import autolife_table as forecast

    return forecast()


def technique_table() -> str:
    """Returns the advisor's techniques: what each does."""
    rows = []
    for name, technique in (FORMATS | SHAPES).items():
        said = (inspect.getdoc(technique) or "").split("\n")[0]
        rows.append((f"`{name}`", "weights" if name in FORMATS else "shape", said))
    return table(("technique", "changes", "how"), rows)


def storage_table() -> str:
    """Returns how fast devices read their storage, and who says so."""
    rows = {id(s): s for s in map(storage_of, devices().values())}.values()
    return table(
        ("devices, or kinds of device", "storage", "source"),
        ((", ".join(s.names), show(s.bandwidth, "B/s"), s.source) for s in rows),
    )


def family_table() -> str:
    """Returns the published familial models: exits, their scores and their source."""
    rows = []
    for f in families().values():
        trunk = models()[f.trunk]
        for e in f.exits:
            layers = runs(trunk, whole(e.layers)).params() - trunk.embedding_params()
            rows.append((f"`{f.id}`", f"`{f.trunk}`", str(e.layers), _billions(layers), f"{e.quality:.1%}", f.source))
    heads = ("family", "trunk", "exit after", "parameters of its layers", "right", "source")
    return table(heads, rows)


def _billions(count: float) -> str:
    return f"{count / 1e9:,.2f} B" if count >= 1e9 else f"{count / 1e6:,.0f} M"


TABLES: Mapping[str, Callable[[], str]] = {
    "scenario": lambda: keys(""), "fleet": lambda: keys("fleet"), "groups": lambda: keys("fleet.groups"),
    "failures": lambda: keys("fleet.failures"), "spot-prices": spot_table,
    "workload": lambda: keys("workload"), "arrivals": lambda: keys("workload.arrivals"),
    "lengths": lambda: keys("workload.lengths"), "sessions": lambda: keys("workload.sessions"),
    "exits": lambda: keys("workload.exits"),
    "expert-load": lambda: keys("workload.expert_load"), "quality": lambda: keys("workload.quality"),
    "fleet-links": lambda: keys("fleet.links"), "training": lambda: keys("training.workload"),
    "shape": lambda: keys("training.workload.model"), "features": lambda: keys("training.workload.features"),
    "graph": lambda: keys("graph.workload"), "graph-plan": lambda: keys("graph.plan"), "generators": generator_table,
    "training-plan": lambda: keys("training.plan"), "shards": lambda: keys("training.plan.shards"),
    "cascade": lambda: keys("plan.cascade"), "slo": slo_keys, "objective": lambda: keys("objective"),
    "plan": lambda: keys("plan"), "devices": device_table, "device-sources": device_sources, "links": link_table,
    "grids": grid_table, "models": model_table, "architectures": architecture_table, "engines": engine_table,
    "engine-sources": engine_sources, "engine-keys": engine_keys, "host-keys": host_keys,
    "host-ranges": host_ranges, "host": host_table, "exports": export_makes,
    "autolife": autolife_table, "techniques": technique_table, "storage": storage_table, "families": family_table,
    "acceptance": acceptance_table,
    "stream": lambda: _plain_keys(Stream), "stream-node": lambda: _plain_keys(StreamNode),
    "stream-link": lambda: _plain_keys(StreamLink), "stream-filter": lambda: _plain_keys(Filter),
    "stream-classifier": lambda: _plain_keys(Classifier), "stream-paths": lambda: _plain_keys(TurnOn),
    "stream-together": lambda: _plain_keys(Firing), "stream-repair": lambda: _plain_keys(Repair),
    "jobs": lambda: _plain_keys(JobList), "jobs-plan": lambda: _plain_keys(JobsPlan),
    "functions": lambda: _plain_keys(Functions), "function-regions": lambda: _plain_keys(Region),
    "function-start": lambda: _plain_keys(Start), "function-plan": lambda: _plain_keys(FunctionsPlan),
    "pods": lambda: _plain_keys(PodList), "drawn-pods": lambda: _plain_keys(DrawnPods),
    "pods-plan": lambda: _plain_keys(PodsPlan), "pod-policies": pod_policies,
    "invocations": invocation_table,
    "server-jobs": lambda: _plain_keys(ServerJobList), "server-drawn": lambda: _plain_keys(DrawnJobs),
    "server-errors": lambda: _plain_keys(Estimates),
    "stream-plan": lambda: _plain_keys(StreamPlan), "stream-upgrades": lambda: _plain_keys(Upgrade),
    "policies": policy_table, "policy-rules": policy_rules, "metrics": metric_table,
}  # fmt: skip
"""What a page may ask for, by name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Renders every page; returns 0."""
    parser = argparse.ArgumentParser(description="Render the tables of the documentation from the code.")
    parser.add_argument("--runs", action="store_true", help="renew pictures and outputs, from real runs")
    again = parser.parse_args(arguments).runs
    if again:
        from benchmarks.pictures import draw

        for name, svg in draw().items():
            print(write_atomic(ROOT / "docs" / "images" / name, svg))
    for path in [*sorted((ROOT / "docs").glob("**/*.md")), ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8")
        new = rerun(fill(text)) if again else fill(text)
        if new != text:
            print(write_atomic(path, new))
    return 0


if __name__ == "__main__":
    sys.exit(main())
