"""What plans choose beside their layout, in words: for columns that tell them apart, and for a line that echoes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fleetcast.base.show import show
from fleetcast.scenario.caches import TIERS
from fleetcast.view.words import UNKNOWN, policy_brief, pools_of

if TYPE_CHECKING:
    from fleetcast.scenario.load import ServingScenario


def choice(key: str) -> Callable[[Mapping[str, Any]], str]:
    """Returns what names one choice of a plan's pools: ``swap``, or ``fifo + shortest_prompt`` where they differ."""

    def named(table: Mapping[str, Any]) -> str:
        pools = [pool for pool in pools_of(table) if not drafting(pool) or pool.get(key) is not None]
        return " + ".join(dict.fromkeys(_kind(pool.get(key)) for pool in pools))

    return named


def drafting(pool: Mapping[str, Any]) -> bool:
    """Whether a pool's table is that of a draft pool, which has no policies."""
    return pool.get("role") == "draft"


def _kind(value: Any) -> str:
    """A policy's table in words, its kind first; other values as they stand."""
    if not isinstance(value, Mapping):
        return UNKNOWN if value is None else str(value)
    return " ".join([str(value["kind"]), *(f"{k} {v}" for k, v in value.items() if k != "kind")])


def overlap_brief(table: Mapping[str, Any]) -> str:
    """Returns ``none``, or how many nano-batches an iteration is cut into: ``2 nano-batches``."""
    cuts = (pool.get("overlap") for pool in pools_of(table) if not drafting(pool))
    return " + ".join(
        dict.fromkeys(f"{len(c['splits'])} nano-batches" if isinstance(c, Mapping) else "none" for c in cuts)
    )


def drafts_brief(table: Mapping[str, Any]) -> str:
    """Returns ``off``, or who drafts how much: ``fixed 4 by llama-3.2-1b``, ``minions by 3 x opt-125m, apart``."""
    pools = [pool for pool in pools_of(table) if pool.get("role") not in ("prefill", "draft")]
    apart = any(map(drafting, pools_of(table)))
    return " + ".join(dict.fromkeys(_drafts(pool.get("speculate"), apart) for pool in pools))


def _drafts(value: Any, apart: bool) -> str:
    if not isinstance(value, Mapping):
        return "off" if value is None else str(value)
    said = " ".join(str(value[key]) for key in ("kind", "length") if key in value)
    if "model" in value:
        count = int(value.get("drafters", 1))
        said += f" by {f'{count} x ' if count > 1 else ''}{value['model']}"
        apart = bool(value.get("pipelined", apart))
    if isinstance(value.get("acceptance"), float):
        said += f" at {value['acceptance']:g}"
    return said + (", apart" if apart and "model" in value else "")


def prefixes_brief(table: Mapping[str, Any]) -> str:
    """Returns ``off``, or which cached prefix goes first and how far down the rest goes: ``lru, cpu 100 GB``."""
    pools = [pool for pool in pools_of(table) if pool.get("role") != "decode"]
    return " + ".join(dict.fromkeys(_prefixes(pool.get("prefix_cache")) for pool in pools))


def _prefixes(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "off" if value is None else str(value)
    kind = str(value["kind"]) + "".join(f" {k} {v}" for k, v in value.items() if k not in ("kind", *TIERS))
    below = [f"{name} {show(float(value[name]), 'B')}" for name in TIERS if value.get(name)]
    return ", ".join([kind, *below])


def route_brief(table: Mapping[str, Any]) -> str:
    """Returns what a route does beside the usual: ``spill 4096``, ``round_robin``."""
    route = table.get("route")
    if not isinstance(route, Mapping):
        return UNKNOWN
    usual = {"kind": ("least_loaded", "split_phases"), "spill": (0.0,), "layerwise": (True,)}
    told = {k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in route.items() if v not in usual.get(k, ())}
    return " ".join(v if k == "kind" else f"{k} {v}" for k, v in told.items()) or UNKNOWN


TOLD_APART: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "Batch": policy_brief, "Engine": choice("engine"), "Weights": choice("dtype"), "Cache": choice("kv_dtype"),
    "Activations": choice("activation_dtype"), "Order": choice("order"), "Memory": choice("memory"),
    "Overlap": overlap_brief,
    "Drafts": drafts_brief, "Prefixes": prefixes_brief, "Route": route_brief,
}  # fmt: skip
"""What tells plans of one name apart, by heading."""
SETUP = {
    "engine": choice("engine"), "weights": choice("dtype"), "cache": choice("kv_dtype"), "order": choice("order"),
    "memory": choice("memory"),
}  # fmt: skip


def setup(scenario: ServingScenario, table: Mapping[str, Any]) -> str:
    """Returns in a sentence what a plan's name leaves out, and which of it was not asked for."""
    said = {name: told(table) for name, told in SETUP.items()} | {"route": _kind(table.get("route"))}
    if any(pool.get("speculate") for pool in pools_of(table)):
        said["drafts"] = drafts_brief(table)
    if any(pool.get("overlap") for pool in pools_of(table)):
        said["overlap"] = overlap_brief(table)
    cached = any(pool.get("prefix_cache") for pool in pools_of(table))
    if cached:
        said["prefix cache"] = prefixes_brief(table)
    pools, keys = scenario.plan.pools, {"weights": "dtype", "cache": "kv_dtype"}
    silent = [n for n in SETUP if all(getattr(pool, keys.get(n, n)) is None for pool in pools)]
    silent += [] if scenario.plan.route is not None else ["route"]
    silent += ["prefix cache"] if cached and all(pool.prefix_cache is None for pool in pools) else []
    default = "all" if len(silent) == len(said) else ", ".join(silent)
    text = ", ".join(f"{name} {value}" for name, value in said.items())
    return f"{text[0].upper()}{text[1:]}" + (f"; by default: {default}." if silent else ".")
