"""A training scenario with its names looked up: fleet, model, job, and what an iteration costs on them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.base.files import read_text
from fleetcast.base.show import show
from fleetcast.base.spec import read_toml
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.network import of as network_of
from fleetcast.cost.training.system import Practice, System
from fleetcast.scenario.fleet.devices import Device
from fleetcast.scenario.fleet.links import slowest
from fleetcast.scenario.fleet.signals import Signal, constant, signal
from fleetcast.scenario.fleet.tree import Group, Tree, resolve
from fleetcast.scenario.load import TrainingScenario
from fleetcast.scenario.training_plan import DTYPES
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.models import Model
from fleetcast.scenario.workload.training import Shape, Training


@dataclass(frozen=True)
class Setting:
    """A training scenario, resolved.

    Attributes:
        scenario: as it was read.
        tree: the fleet.
        group: its devices, as one group; of several kinds as if all were the slowest, with the least memory.
        model: what is trained.
        network: the same as its cost sees it.
        system: a device of the group, its links and its host, as training sees them.
        notes: what was decided on the way.
    """

    scenario: TrainingScenario
    tree: Tree
    group: Group
    model: Model
    network: Network
    system: System
    notes: tuple[str, ...] = field(default=())

    @property
    def workload(self) -> Training:
        """The scenario's workload."""
        return self.scenario.workload

    @cached_property
    def grid(self) -> Signal:
        """Carbon intensity over time."""
        return signal(self.tree.grid, self.tree.base)

    @property
    def dtype(self) -> str:
        """What matrices are multiplied in where the plan does not say."""
        known = common_formats(self.tree)
        return next(kind for kind in ("bf16", "fp16", "fp32") if kind in known or kind == "fp32")

    @property
    def unlike(self) -> bool:
        """Whether the fleet has devices of several kinds."""
        return len({group.device.id for group in self.tree.groups}) > 1

    @property
    def unpriced(self) -> str:
        """The first kind of device without a price, or the fleet's slowest where all have one."""
        free = (group.device.id for group in self.tree.groups if group.price is None)
        return next(free, self.group.device.id)

    @property
    def devices(self) -> str:
        """The devices in words, e.g. ``64 a100-80g-sxm of 85.9 GB + 32 h100-sxm of 85.5 GB``."""
        if not self.unlike:
            return f"{self.group.count:,} {self.group.device.id} of {show(self.system.memory, 'B')}"
        counts: dict[str, int] = {}
        rooms = {group.device.id: float(group.device.memory) for group in self.tree.groups}
        for group in self.tree.groups:
            counts[group.device.id] = counts.get(group.device.id, 0) + group.count
        return " + ".join(f"{count:,} {name} of {show(rooms[name], 'B')}" for name, count in counts.items())

    @cached_property
    def systems(self) -> tuple[System, ...]:
        """Each group's devices on its own network, with the plan's practice and what is said of hosts."""
        return tuple(self.system_of(group) for group in self.tree.groups)

    def system_of(self, group: Group) -> System:
        """Returns a group's devices on its own network, with the plan's practice and what is said of hosts."""
        named = self.scenario.plan.practice is not None
        own = systems.of(group, ssd=self.tree.ssd, practice=self.system.practice if named else None)
        return _hosted(own, self.tree)

    def peak(self, dtype: str) -> float:
        """Returns FLOP/s of the whole fleet in ``dtype``, by the data sheets."""
        return sum(group.count * group.device.peak[dtype] for group in self.tree.groups)

    def job(self, dtype: str | None = None) -> Job:
        """Returns one iteration's job, its products in ``dtype``.

        Raises:
            Unsupported: the devices do not multiply in it.
        """
        kind = dtype or self.dtype
        lacks = next((group.device.id for group in self.tree.groups if kind not in group.device.peak), None)
        if lacks is not None:
            known = [name for name in DTYPES if name in common_formats(self.tree)]
            raise Unsupported(
                f"plan.dtype = '{kind}': {lacks} does not multiply in it",
                f"Write one of {', '.join(known)}, or leave it out: {self.dtype}",
            )
        return Job(sequence=self.workload.sequence, batch=self.workload.batch, dtype=kind)


def setting(scenario: TrainingScenario, tree: Tree | None = None) -> Setting:
    """Returns ``scenario`` with fleet, model and devices looked up.

    Args:
        scenario: as it was read.
        tree: another fleet than the scenario's, for what no key of a file says; None = its own.

    Raises:
        SpecError: anything in the scenario that cannot be.
        Unsupported: a model that is no decoder, a practice for devices of several kinds, or no format in common.
    """
    folder = Path(scenario.folder)
    tree = resolve(scenario.fleet, folder) if tree is None else tree
    model = model_of(scenario.workload, folder)
    if model.encoder_decoder:
        raise Unsupported(
            f"workload.model: {model.id} has an encoder, and training is forecast for decoders alone",
            "Choose a decoder, or write out a shape: model = { layers = ..., hidden = ..., heads = ... }",
        )
    group, notes = as_one(tree)
    named = scenario.plan.practice
    if named is not None and len({one.device.id for one in tree.groups}) > 1:
        raise Unsupported(
            f"plan.practice = '{named}': it was measured on one kind of device, and the fleet has several",
            "Leave it out: each kind is taken with what is known of it",
        )
    found = systems.of(group, ssd=tree.ssd, practice=None if named is None else practice_at(folder / named))
    found = _hosted(found, tree)
    return Setting(scenario, tree, group, model, network_of(model), found, notes)


def _hosted(system: System, tree: Tree) -> System:
    """Returns a system with what the fleet says of its hosts."""
    host = tree.host
    said: dict[str, Any] = {
        "host_memory": host.memory, "host_bandwidth": host.bandwidth, "ssd_write": host.ssd_write,
        "ssd_memory": host.ssd_memory,
    }  # fmt: skip
    return replace(system, **{name: value for name, value in said.items() if value is not None})


def common_formats(tree: Tree) -> list[str]:
    """Returns the number formats that every device of the fleet multiplies."""
    return [kind for kind in tree.groups[0].device.peak if all(kind in group.device.peak for group in tree.groups)]


PRACTICES = "Write one with: fleetcast calibrate iterations.csv --scenario FILE"


def practice_at(file: Path, path: str = "plan.practice") -> Practice:
    """Returns the practice of a file that `fleetcast calibrate` wrote.

    Raises:
        SpecError: unreadable, or no practice; names the key.
    """
    try:
        table = read_toml(read_text(file), str(file))
    except (SpecError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise SpecError(
            path, f"cannot be read: {error}", value=str(file), hint=f"{PRACTICES} --out practice.toml"
        ) from None
    rows = table.get("practice")
    hint = f"{PRACTICES} --out practice.toml"
    if not isinstance(rows, dict):
        raise SpecError(path, "names a file that holds no practice", value=str(file), limit="[practice]", hint=hint)
    known = {f.name for f in fields(Practice)}
    for name, value in rows.items():
        where = f"{file}.practice.{name}"
        if name not in known:
            raise SpecError(where, "is not a key here", limit=f"known keys: {', '.join(known)}",
                            hint=closest(name, known) or hint)  # fmt: skip
        if name != "source" and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6):
            raise SpecError(where, "is no factor", value=value, limit="a number from 0 to 1e6", hint=hint)
    plain = Practice()
    typed = {name: type(getattr(plain, name))(value) for name, value in rows.items()}
    return Practice(**{**typed, "source": str(rows.get("source", file.name))})


def model_of(workload: Training, folder: Path) -> Model:
    """Returns the model that is trained: of the catalogue, of a config.json, or written out.

    Raises:
        SpecError: no such model, or a shape that cannot be.
    """
    if isinstance(workload.model, Shape):
        return workload.model.model(workload.sequence)
    if not workload.model:
        raise SpecError(
            "workload.model", "is missing", limit="a catalogue name, the path of a config.json, a shape, or features",
            hint='Write e.g. model = "llama-3.1-8b"',
        )  # fmt: skip
    file = folder / workload.model
    return catalog.model(str(file) if file.exists() else workload.model, "workload.model")


def as_one(tree: Tree) -> tuple[Group, tuple[str, ...]]:
    """Returns the fleet's devices as one group, and in sentences what that leaves out.

    Groups are taken together on the slowest link that joins any two of them, and devices of several kinds as the
    slowest of them with the least memory: every rank waits for the slowest message and the slowest rank.

    Raises:
        SpecError: groups that are no whole nodes.
        Unsupported: devices that multiply in no format in common.
    """
    first = tree.groups[0]
    if len(tree.groups) == 1:
        return first, ()
    device = slowest_device(tree)
    joins = [link for a in tree.groups for b in tree.groups if a.name != b.name for link in tree.path(a, b)]
    network = slowest([*joins, *(g.network for g in tree.groups if g.nodes > 1)])
    node = min(group.node for group in tree.groups)
    odd = next((group for group in tree.groups if group.count % node), None)
    if odd is not None:
        raise SpecError(
            "fleet.groups", f"has a group whose devices fill no whole nodes of {node}", value=odd.count,
            limit=f"multiples of {node}", hint="Change the count of its devices",
        )  # fmt: skip
    total = sum(group.count for group in tree.groups)
    group = Group(
        name="+".join(dict.fromkeys(group.name for group in tree.groups)), device=device, count=total, node=node,
        link=slowest(group.link for group in tree.groups), network=network, path=(), prices=_mean_price(tree),
        limit=min(group.limit for group in tree.groups), outages=None,
    )  # fmt: skip
    kinds = list(dict.fromkeys(group.device.id for group in tree.groups))
    as_slow = "" if len(kinds) == 1 else f", as if all were the slowest, with {show(device.memory, 'B')} each"
    note = (
        f"{len(tree.groups)} groups are taken as one of {total} {device.id}{as_slow} on the slowest link that joins "
        f"them: {network.id}, {show(network.bandwidth, 'B/s')}"
    )
    return group, (note,)


def slowest_device(tree: Tree) -> Device:
    """Returns the device that all ranks wait for where kinds share a stage, with the least memory of all of them.

    The slowest is the one of the lowest peak in the widest format that all multiply in 16 bits or more.

    Raises:
        Unsupported: no format in common.
    """
    known = common_formats(tree)
    kind = next((name for name in ("bf16", "fp16", "fp32") if name in known), None)
    if kind is None:
        names = ", ".join(dict.fromkeys(group.device.id for group in tree.groups))
        raise Unsupported(
            f"fleet: {names} multiply in no format in common, and one model is trained in one", "Keep one of them"
        )
    device = min((group.device for group in tree.groups), key=lambda one: one.peak[kind])
    least = min(group.device.memory for group in tree.groups)
    return device if device.memory == least else msgspec.structs.replace(device, memory=least)


def _mean_price(tree: Tree) -> Signal | None:
    total = tree.price
    return None if total is None else constant(total / tree.devices, "mean of the groups")
