"""Engine profiles: what a serving engine adds to its kernels, as sourced rows.

A profile is data (``engines/*.toml``): default policies, memory it keeps for itself, and the host's part of an
iteration. Host constants are fitted on measured servers (docs/accuracy.md); each has a unit and a physical range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import Spec, convert, read_toml
from fleetcast.base.units import Bytes, Seconds

_FOLDER = Path(__file__).parent / "engines"


class Host(Spec):
    """The part of an iteration that is not kernels.

    Attributes:
        step: s per iteration (scheduling, sampling's round trip, output processing).
        seq: s per running sequence.
        token: s per token of the iteration.
        eager: s per kernel to launch an iteration that no captured graph covers.
        gap: s per iteration that the device waits all the same, also where the host's work overlaps.
        kernels: time of the engine's products and element-wise kernels, relative to those the tables measured.
        api: s per request between client and engine, in TTFT and E2E.
        api_token: s per prompt token (tokenising, copying).
    """

    step: Seconds
    seq: Seconds = 0.0
    token: Seconds = 0.0
    eager: Seconds = 0.0
    gap: Seconds = 0.0
    kernels: float = 1.0
    api: Seconds = 0.0
    api_token: Seconds = 0.0


class Engine(Spec):
    """One serving engine.

    Attributes:
        id: how plans name it, e.g. "vllm-0.6".
        name: how reports name it.
        batch: default batch policy table.
        order: default order policy table.
        memory: default memory policy table.
        memory_fraction: share of a device's memory the engine takes.
        reserve: B of that it needs for itself (runtime, graphs, workspaces).
        reserve_ranks: B more where a replica has several ranks (communication buffers).
        block: tokens per KV block.
        watermark: share of KV blocks kept free at admission.
        prefix_cache: which cached prefix it gives up first by default; "" = it caches none unless told to.
        kv_dtype: cache dtype where the plan says "auto"; "" = the checkpoint's own, "rest" = that of what is not
            quantised.
        quantises: parts of a model that it quantises beside the linear layers, e.g. "head".
        hybrid_kv: layers with a window keep only the window.
        overlap: the host works while the device computes; an arrival waits for one iteration more.
        overlap_since: version from which that is the default; named with an older one, the profile has no overlap.
        graph_tokens: largest iteration run from a captured graph, tokens.
        graph_prefill: iterations with prefill may use it too.
        nccl_ranks: tensor-parallel sizes whose all-reduce is NCCL's instead of the engine's own kernel.
        stand_in: weight formats that a device cannot multiply -> the format whose kernels run instead.
        long_context: tokens of context beyond which ``long_batch`` is the default batch policy; 0 = never.
        long_batch: that policy's table.
        host: fitted host constants, by device id, with "default".
        measured: the kernel tables are this engine's own.
        names: other names, exact.
        family: engine name this profile answers for, in the versions ``since`` to ``until``.
        since: first version; empty = any.
        until: first version that it does not answer for; empty = none.
        source: where the figures come from.
    """

    id: str
    name: str
    batch: dict[str, Any]
    order: dict[str, Any]
    memory: dict[str, Any]
    memory_fraction: float
    reserve: Bytes
    reserve_ranks: Bytes
    block: int
    watermark: float
    overlap: bool
    graph_tokens: int
    graph_prefill: bool
    host: dict[str, Host]
    source: str
    overlap_since: tuple[int, ...] = ()
    prefix_cache: str = ""
    kv_dtype: str = ""
    quantises: tuple[str, ...] = ()
    hybrid_kv: bool = False
    nccl_ranks: tuple[int, ...] = ()
    stand_in: dict[str, str] = msgspec.field(default_factory=dict)
    measured: bool = False
    long_context: int = 0
    long_batch: dict[str, Any] = msgspec.field(default_factory=dict)
    names: tuple[str, ...] = ()
    family: str = ""
    since: tuple[int, ...] = ()
    until: tuple[int, ...] = ()

    def host_on(self, device: str, measured: Mapping[str, Mapping[str, float]] | None = None) -> Host:
        """Returns the host constants on a device, or the default ones.

        Args:
            device: its id.
            measured: constants by engine that the device itself brings (`scenario.fleet.devices.Fitted`); they go over
                the profile's own.

        Raises:
            SpecError: a constant that no host has.
        """
        known = self.host.get(device, self.host["default"])
        own = (measured or {}).get(self.id)
        if own is None:
            return known
        return convert(msgspec.structs.asdict(known) | dict(own), Host, f"coefficients.host.{self.id}")


@cache
def engines() -> dict[str, Engine]:
    """Returns all profiles by id."""
    found = (convert(read_toml(read_text(p), p.name), Engine, p.stem) for p in sorted(_FOLDER.glob("*.toml")))
    return {engine.id: engine for engine in found}


def engine(name: str, path: str = "plan.engine") -> Engine:
    """Returns the profile that answers for ``name``: an id, or an engine with a version such as ``vllm-0.11.2``.

    Raises:
        SpecError: unknown engine.
    """
    known = engines()
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    if wanted in known:
        return known[wanted]
    for profile in known.values():
        if wanted in profile.names:
            return profile
    built = re.fullmatch(r"([a-z]+)-[a-z0-9.-]*(?:dev|nightly|main|latest)[a-z0-9.-]*", wanted)
    if built and any(built[1] == p.family for p in known.values()):
        wanted = built[1]  # a development build is newer than every version
    match = re.fullmatch(r"([a-z-]+?)(?:-?v?(\d+(?:\.\d+)*)(?:[.-]?(?:rc|post|dev|a|b).*)?)?", wanted)
    if match:
        version = tuple(int(part) for part in match[2].split(".")) if match[2] else (10**6,)
        for profile in known.values():
            late = not profile.since or version >= profile.since
            early = not profile.until or version < profile.until
            if profile.family and match[1] in (profile.family, *profile.names) and late and early:
                old = bool(profile.overlap_since) and version < profile.overlap_since
                return msgspec.structs.replace(profile, overlap=False) if old else profile
    raise SpecError(
        path, "is unknown", value=name, limit=f"one of {', '.join(known)}, or an engine with its version",
        hint=closest(wanted, known),
    )  # fmt: skip
