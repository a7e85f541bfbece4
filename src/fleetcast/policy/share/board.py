"""What a share policy sees of the jobs, and the board on which it grants.

A world, simulated or real, subclasses `Board` and writes on its jobs; policies read them and call `grant` and `keep`.
So one policy object works in both, and legal grants are checked in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class DeviceKind(NamedTuple):
    """One kind of device that the fleet has.

    Attributes:
        name: of the device.
        total: how many are up.
        node: how many a node holds.
        power: W that work adds to one.
    """

    name: str
    total: int
    node: int
    power: float = 1.0


@dataclass(slots=True, eq=False)
class Job:
    """A job as policies see it; only its world writes.

    Attributes:
        id: position in the order of arrival.
        name: as the trace says.
        model: what it runs, "" where the trace does not say.
        arrival: s.
        demand: devices that it asks for.
        least: the fewest it can run on; below ``demand`` it is elastic.
        most: the most it can use.
        priority: higher goes first where a policy asks.
        weight: of its fair share.
        remaining: share of its work that is left, 1 to 0.
        attained: device-seconds that it has had.
        waited: s since it arrived or last ran.
        held: devices by kind that it had before this decision, () = it did not run.
        servers_held: parameter servers that it had.
        granted: devices by kind that it has been given in this decision.
        servers: parameter servers that it has been given in this decision.
        deadline: s, inf = none.
        user: whose it is, "" where the trace does not say; fair shares are of users where they are named.
        unit: dominant share of the fleet that one of its devices takes, with the cores and memory that go with it;
            0 = the device's own part of all devices.
    """

    id: int
    name: str
    arrival: float
    demand: int
    least: int
    most: int
    model: str = ""
    priority: int = 0
    weight: float = 1.0
    remaining: float = 1.0
    attained: float = 0.0
    waited: float = 0.0
    held: Mapping[int, int] = field(default_factory=dict)
    servers_held: int = 0
    granted: dict[int, int] = field(default_factory=dict)
    servers: int = 0
    deadline: float = float("inf")
    user: str = ""
    unit: float = 0.0


class Board(Protocol):
    """The fleet and its jobs at one moment.

    Attributes:
        now: s.
        round: s until the next round, inf where there are none.
        restart: s that a job holds its devices before it goes on, each time that it starts but the first.
        kinds: of devices.
        jobs: that have arrived and not ended, in order of arrival.
    """

    now: float
    round: float
    restart: float
    kinds: Sequence[DeviceKind]
    jobs: Sequence[Job]

    def free(self, kind: int) -> int:
        """Returns how many devices of a kind are not granted yet."""
        ...

    def rate(self, job: Job, devices: Mapping[int, int], servers: int = 0) -> float:
        """Returns what share of a job's work devices would do in a second, as far as is known (1/s).

        Estimated: with the errors that the scenario says, if it says any. Devices are taken to lie as close together
        as their number allows.
        """
        ...

    def grant(self, job: Job, devices: int, kind: int = 0, servers: int = 0) -> bool:
        """Gives a job that many devices (and parameter servers) more, placed at once.

        Returns:
            Whether there was room; nothing has changed where not.

        Raises:
            PolicyError: negative, above what the job can use, or the job is not there.
        """
        ...

    def keep(self, job: Job) -> bool:
        """Gives a job what it held, on the same nodes: nothing moves and nothing restarts.

        Returns:
            Whether all of it is still there and free; nothing has changed where not.
        """
        ...

    def wake(self, at: float) -> None:
        """Asks for another decision at a time (s), where nothing else happens before; without effect in rounds."""
        ...

    def carbon(self, kind: int, begin: ArrayLike, end: ArrayLike) -> NDArray[np.float64]:
        """Returns the mean carbon intensity where a kind's devices stand, over spans of time, as forecasts have it.

        Args:
            kind: of device.
            begin: s, of one span or of many.
            end: s, after ``begin``.

        Returns:
            g/kWh of each span; 0 where nobody knows the grid.
        """
        ...
