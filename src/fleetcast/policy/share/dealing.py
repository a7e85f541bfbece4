"""How a policy that has decided on all jobs at once grants what it decided."""

from __future__ import annotations

from collections.abc import Mapping

from fleetcast.policy.share.board import Board


def deal(board: Board, wanted: Mapping[int, Mapping[int, int]]) -> None:
    """Grants devices by job's id and kind: first what stays where it is, then the widest, so that nodes stay whole.

    A job whose nodes do not hold it any more is granted anew; one that finds no room waits.
    """
    moved = []
    for job in board.jobs:
        devices = {kind: n for kind, n in wanted.get(job.id, {}).items() if n}
        if devices and not (devices == dict(job.held) and board.keep(job)):
            moved.append((-sum(devices.values()), job.id, job, devices))
    for _, _, job, devices in sorted(moved, key=lambda row: row[:2]):
        for kind, n in devices.items():
            board.grant(job, n, kind)
