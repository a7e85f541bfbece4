"""Keeps a Cluster up to date: a list, then a watch from its version; a list again where the server forgot it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from fleetcast.runtime.kubernetes.calls import Api, Gone, Unreachable
from fleetcast.runtime.kubernetes.cluster import KINDS, Cluster

__all__ = ["Watches"]

_FIRST, _LONGEST = 0.1, 30.0
"""s, the first and the longest wait after a failure; each is twice the one before, plus or minus a fifth."""
_KINDS: Final = KINDS


class Watches:
    """One thread for each kind of object.

    Args:
        api: the server.
        cluster: what is kept up to date.
        log: called with a sentence on each loss.
    """

    def __init__(self, api: Api, cluster: Cluster, log: Callable[[str], None] = lambda text: None) -> None:
        self.relists = 0
        self._api, self._cluster, self._log = api, cluster, log
        self._stop = threading.Event()
        self._open: dict[str, Any] = {}
        self._threads = [
            threading.Thread(target=self._follow, args=(kind,), name=f"watch-{kind}", daemon=True) for kind in _KINDS
        ]

    def start(self) -> None:
        """Starts watching."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends all watches."""
        self._stop.set()
        for response in list(self._open.values()):
            with suppress(Exception):
                response.shutdown()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout=5.0)

    def _follow(self, kind: str) -> None:
        version, delay = "", _FIRST
        while not self._stop.is_set():
            try:
                if not version:
                    tables, version = self._api.list(kind)
                    self._cluster.replace(kind, tables)
                    self.relists += 1
                for event, table in self._api.watch(kind, version, lambda r: self._open.__setitem__(kind, r)):
                    version = str((table.get("metadata") or {}).get("resourceVersion") or version)
                    delay = _FIRST
                    if event != "BOOKMARK":
                        self._cluster.apply(kind, event, table)
                    if self._stop.is_set():
                        return
                # The server ended it in good order, or the connection was cut: on from the same version.
                self._stop.wait(_FIRST)
            except Gone as gone:
                self._log(f"{kind}: the watch is too old ({gone}); listing anew")
                version = ""
                self._stop.wait(random.uniform(0.0, _FIRST))
            except Exception as error:
                # Whatever a server or an object does, the scheduler goes on watching.
                if self._stop.is_set():
                    return
                self._log(f"{kind}: {error}; again in {delay:.1f} s")
                if not isinstance(error, Unreachable):
                    version = ""
                self._stop.wait(delay * random.uniform(0.8, 1.2))
                delay = min(_LONGEST, 2 * delay)
