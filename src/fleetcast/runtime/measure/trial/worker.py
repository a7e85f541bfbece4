"""The process that serves one model for the trial: it says when torch is loaded, waits, then says where it listens.

Arguments: the model's folder. It ends when its standard input does, and with the process that started it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Final

BLOCKS: Final = 16
"""Of the KV cache: one request of the longest context."""
_DIES_WITH_PARENT: Final = 1
REFUSED: Final = 3
"""Exit status where the model did not fit into the memory."""


def main(folder: str) -> int:
    """Serves a folder; returns the exit status."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    from fleetcast.runtime.llm import torch_threads
    from fleetcast.runtime.llm.model import Transformer as _
    from fleetcast.runtime.serve import server as _server

    del _, _server
    torch_threads(1)
    print(json.dumps({"loaded": os.getpid()}), flush=True)
    if not sys.stdin.readline():
        return 0
    try:
        asyncio.run(_serve(Path(folder)))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error) and "memory" not in str(error):
            raise
        print(json.dumps({"refused": str(error).splitlines()[0] if str(error) else "out of memory"}), flush=True)
        return REFUSED
    return 0


async def _serve(folder: Path) -> None:
    from fleetcast.runtime.llm import open_engine
    from fleetcast.runtime.llm.shape import read_shape
    from fleetcast.runtime.llm.text import open_text
    from fleetcast.runtime.serve.server import Server

    engine = open_engine(folder, blocks=BLOCKS, dtype="fp32", device="cpu")
    server = Server(engine, open_text(folder, read_shape(folder).vocab), "trial", port=0)
    url = await server.start()
    print(json.dumps({"url": url}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await server.stop()


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    os._exit(code)  # threads that hold a full memory are not waited for
