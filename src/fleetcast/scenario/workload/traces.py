"""Packaged traffic: samples of production traces, and measured serving cases with their own.

`read` is the one door: a packaged name or a file.
"""

from __future__ import annotations

import csv
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.spec import Spec, convert
from fleetcast.scenario.workload.readers import read_file
from fleetcast.scenario.workload.requests import Requests

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_MEASURED = "vllm-8xh100"


class Trace(Spec, frozen=True, kw_only=True):
    """A packaged trace.

    Attributes:
        id: the name that a scenario's ``trace`` uses.
        file: name of its file.
        title: what it is, in a few words.
        source: where it comes from.
        licence: SPDX id.
        changed: what was changed from the source.
    """

    id: str
    file: str
    title: str
    source: str
    licence: str
    changed: str = ""


class Case(Spec, frozen=True, kw_only=True):
    """A measured serving case: one replica under one trace.

    Attributes:
        id: its trace's name, ``vllm-8xh100/<case>``.
        model: catalogue name of the model (bf16).
        tp: tensor-parallel devices (H100-SXM-80GB).
        requests: how many were served.
        ttft: mean time to first token, s.
        tpot: (sum of end-to-end times - sum of TTFT) / sum of output tokens, s.
        source: where it comes from.
    """

    id: str
    model: str
    tp: int
    requests: int
    ttft: float
    tpot: float
    source: str


@cache
def traces() -> dict[str, Trace]:
    """Returns the packaged traces by id."""
    folder = _catalog("traces")
    table = tomllib.loads((folder / "traces.toml").read_text(encoding="utf-8"))
    found = [convert(t, Trace, "traces.toml") for t in table["trace"]]
    found += [
        Trace(
            id=case.id, file=case.id.partition("/")[2] + ".csv", source=case.source, licence="MIT",
            title=f"measured: {case.model} on {case.tp} H100 under vLLM 0.6, as served",
        )
        for case in cases()
    ]  # fmt: skip
    return {t.id: t for t in found}


@cache
def cases() -> tuple[Case, ...]:
    """Returns the measured serving cases of vLLM 0.6 on H100 (20)."""
    text = (_catalog("measured") / "vllm_8xh100" / "measured.csv").read_text(encoding="utf-8")
    source = "microsoft/apex_plus, commit 8769096, https://github.com/microsoft/apex_plus (MIT)"
    return tuple(
        Case(
            id=f"{_MEASURED}/{row['case']}", model=row["model"], tp=int(row["tp"]),
            requests=int(row["requests"]), ttft=float(row["ttft_mean_s"]),
            tpot=float(row["tpot_mean_s"]), source=source,
        )
        for row in csv.DictReader(text.splitlines())
    )  # fmt: skip


def read(source: str | Path, folder: str | Path = ".") -> Requests:
    """Returns the requests of a packaged trace or a file.

    Args:
        source: a name of `traces`, or a path.
        folder: where relative paths start: the scenario file's folder.

    Raises:
        SpecError: neither a packaged name nor a readable trace.

    Examples:
        >>> len(read("azure-conv-2023"))
        19366
    """
    name = str(source)
    packaged = traces().get(name)
    if packaged is not None:
        measured = name.startswith(_MEASURED + "/")
        place = _catalog("measured") / "vllm_8xh100" if measured else _catalog("traces")
        return read_file(Path(str(place / packaged.file)), name=name)
    path = Path(folder) / Path(source).expanduser()
    if not path.exists() and not path.suffix:
        hint = closest(name, traces()) or "'fleetcast catalog traces' lists them"
        limit = "a packaged trace or a file"
        raise SpecError("workload.trace", "is unknown", value=name, limit=limit, hint=hint)
    return read_file(path, name=name)


def _catalog(part: str) -> Traversable:
    return files("fleetcast.scenario.workload") / "catalog" / part
