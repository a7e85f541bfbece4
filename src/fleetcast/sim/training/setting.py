"""A training scenario with its names looked up: fleet, model, job, and what an iteration costs on them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.base.files import read_text
from fleetcast.base.show import show
from fleetcast.base.spec import read_toml
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.network import of as network_of
from fleetcast.cost.training.system import Practice, System
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
        group: its devices, as one group.
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
        return "bf16" if "bf16" in self.group.device.peak else "fp16" if "fp16" in self.group.device.peak else "fp32"

    def job(self, dtype: str | None = None) -> Job:
        """Returns one iteration's job, its products in ``dtype``.

        Raises:
            Unsupported: the devices do not multiply in it.
        """
        kind = dtype or self.dtype
        if kind not in self.group.device.peak:
            known = [name for name in DTYPES if name in self.group.device.peak]
            raise Unsupported(
                f"plan.dtype = '{kind}': {self.group.device.id} does not multiply in it",
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
        Unsupported: devices of several kinds, or a model that is no decoder.
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
    found = systems.of(group, ssd=tree.ssd, practice=None if named is None else practice_at(folder / named))
    host = tree.host
    said: dict[str, Any] = {
        "host_memory": host.memory, "host_bandwidth": host.bandwidth, "ssd_write": host.ssd_write,
        "ssd_memory": host.ssd_memory,
    }  # fmt: skip
    found = replace(found, **{name: value for name, value in said.items() if value is not None})
    return Setting(scenario, tree, group, model, network_of(model), found, notes)


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

    Groups of one kind of device are taken together on the slowest link that joins any two of them: in an iteration
    every rank waits for the slowest message.

    Raises:
        Unsupported: several kinds of device.
    """
    first = tree.groups[0]
    if len(tree.groups) == 1:
        return first, ()
    kinds = list(dict.fromkeys(group.device.id for group in tree.groups))
    if len(kinds) > 1:
        raise Unsupported(
            f"fleet: one model is trained here on devices of one kind, and the fleet has {', '.join(kinds)}",
            f'Keep one of them, e.g. devices = "{first.count}x {first.device.id}"',
        )
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
        name="+".join(dict.fromkeys(group.name for group in tree.groups)), device=first.device, count=total, node=node,
        link=slowest(group.link for group in tree.groups), network=network, path=(), prices=_mean_price(tree),
        limit=min(group.limit for group in tree.groups), outages=None,
    )  # fmt: skip
    note = (
        f"{len(tree.groups)} groups are taken as one of {total} {first.device.id} on the slowest link that joins them: "
        f"{network.id}, {show(network.bandwidth, 'B/s')}"
    )
    return group, (note,)


def _mean_price(tree: Tree) -> Signal | None:
    total = tree.price
    return None if total is None else constant(total / tree.devices, "mean of the groups")
