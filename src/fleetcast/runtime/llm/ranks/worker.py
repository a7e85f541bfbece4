"""A rank's process: reads what it holds from its first line of input, then takes part in a pass a line.

It ends with its input, so that nothing is left over when the engine's process is gone, whatever became of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fleetcast.base.errors import FleetcastError, MissingExtra
from fleetcast.runtime.llm.ranks.part import Part
from fleetcast.runtime.llm.ranks.wire import Wire, counted, ordered

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None


def main() -> int:
    """Runs the rank until its input ends."""
    source = sys.stdin.buffer
    said = json.loads(source.readline())
    torch.set_num_threads(said["threads"])
    try:
        print("here", flush=True)
        wire = Wire(Path(said["meeting"]), said["rank"], said["ranks"], said["timeout"], said["device"])
        part = Part(said, wire)
        print("loaded", flush=True)
        for line in iter(source.readline, b""):
            ids = torch.empty(counted(line), dtype=torch.int32, device=wire.device)
            # stages after the first are not told which tokens they are: hidden states are all they need
            part.run(ordered(line, ids.zero_() if part.pipeline else wire.broadcast(ids)))
    except (FleetcastError, RuntimeError, OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
