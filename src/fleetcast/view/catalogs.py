"""The catalogue as tables: devices, models, links, traces, engines, policies, each row with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from fleetcast.base.show import show
from fleetcast.base.spec import kinds

Row = Mapping[str, Any]


def catalog_table(kind: str) -> list[dict[str, Any]]:
    """Returns the rows of a part of the catalogue, SI numbers, ready for JSON."""
    return {
        "devices": _devices, "models": _models, "links": _links, "traces": _traces, "engines": _engines,
        "policies": _policies,
    }[kind]()  # fmt: skip


def catalog_rows(kind: str, rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns headings and cells for people, what matters least last."""
    if kind == "devices":
        heads: tuple[str, ...] = (
            "Device", "Memory", "Bandwidth", "16-bit", "Narrowest", "Power", "Price", "Node", "Name",
        )  # fmt: skip
        return heads, [
            (
                r["id"], show(r["memory"], "B"), show(r["bandwidth"], "B/s"), *_peaks(r["peak"]), show(r["power"], "W"),
                show(r["price"], "$/h") if r["price"] is not None else "–", str(r["node"]), r["name"],
            )
            for r in rows
        ]  # fmt: skip
    if kind == "models":
        heads = ("Model", "Parameters", "Active", "KV per token", "Positions", "Weights", "Architecture")
        return heads, [
            (
                r["id"], _billions(r["parameters"]), _billions(r["active"]), show(r["kv_per_token"], "B"),
                f"{r['context']:,}" if r["context"] else "–", r["dtype"], r["architecture"],
            )
            for r in rows
        ]  # fmt: skip
    if kind == "links":
        return ("Link", "Bandwidth", "Latency", "Kind"), [
            (r["id"], show(r["bandwidth"], "B/s"), show(r["latency"], "s"), r["kind"]) for r in rows
        ]
    if kind == "policies":
        return ("Policy", "About", "Settings"), [
            (f"{r['decision']} {r['kind']}", r["about"], r["settings"]) for r in rows
        ]
    heads = tuple(key.capitalize() for key in rows[0] if key != "source")
    return heads, [tuple(str(v) for k, v in r.items() if k != "source") for r in rows]


DROP = {"devices": 3, "models": 1, "traces": 1}
"""How many of the last columns a narrow terminal does without."""


def _devices() -> list[dict[str, Any]]:
    from fleetcast.scenario.fleet.catalog import devices

    return [
        {
            "id": d.id, "name": d.name, "kind": d.kind, "memory": d.memory, "bandwidth": d.bandwidth, "peak": d.peak,
            "power": d.power.max, "idle": d.power.idle, "price": d.price, "price_source": d.price_source,
            "price_date": d.price_date, "node": d.node, "link": d.link, "network": d.network,
            "aliases": list(d.aliases), "measured": d.measured, "source": d.source,
        }
        for d in devices().values()
    ]  # fmt: skip


def _models() -> list[dict[str, Any]]:
    from fleetcast.scenario.workload.catalog import models

    return [
        {
            "id": id, "name": m.name, "parameters": m.params(), "active": m.active_params(),
            "kv_per_token": m.kv_bytes_per_token(), "context": m.context, "dtype": m.dtype,
            "architecture": m.architecture, "source": m.source,
        }
        for id, m in models().items()
    ]  # fmt: skip


def _links() -> list[dict[str, Any]]:
    from fleetcast.scenario.fleet.catalog import links

    return [
        {
            "id": x.id, "name": x.name, "kind": x.kind, "bandwidth": x.bandwidth, "latency": x.latency,
            "aliases": list(x.aliases), "source": x.source,
        }
        for x in links().values()
    ]  # fmt: skip


def _traces() -> list[dict[str, Any]]:
    from fleetcast.scenario.workload.traces import traces

    return [{"id": t.id, "title": t.title, "licence": t.licence, "source": t.source} for t in traces().values()]


def _engines() -> list[dict[str, Any]]:
    from fleetcast.cost.engine import engines

    return [{"id": e.id, "name": e.name, "batch": e.batch["kind"], "source": e.source} for e in engines().values()]


def decision(family: ModuleType) -> str:
    """Returns what a family of policies decides: "batch", "order of tasks"."""
    return " of ".join(family.__name__.split(".")[2:])


def _policies() -> list[dict[str, Any]]:
    import inspect

    from fleetcast.policy import batch, evict, memory, power, recover, route, scale, speculate
    from fleetcast.policy.order import requests, tasks
    from fleetcast.policy.route import invocations

    rows = []
    for family in (batch, requests, tasks, memory, evict, route, invocations, scale, power, speculate, recover):
        for kind, found in kinds(family).items():
            parameters = inspect.signature(found).parameters
            said = ", ".join(f"{n} = {p.default}" for n, p in parameters.items())
            about = (inspect.getdoc(found) or "").split("\n")[0]
            rows.append({"decision": decision(family), "kind": kind, "settings": said, "about": about})
    return rows


def _peaks(peak: Mapping[str, float]) -> tuple[str, str]:
    """The 16-bit peak, and that of the format with the highest one where it is another; TFLOP/s or TOP/s."""
    first = next((k for k in ("bf16", "fp16") if k in peak), next(iter(peak)))
    top = max(peak, key=lambda k: peak[k])
    said = f"{peak[first] / 1e12:,.4g} T"
    return said, f"{peak[top] / 1e12:,.4g} T {top}" if peak[top] > peak[first] else ""


def _billions(count: float) -> str:
    return f"{count / 1e9:,.1f} B" if count >= 1e9 else f"{count / 1e6:,.0f} M"
