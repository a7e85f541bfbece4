"""Energy of the CUDA device at hand while something runs, from the counter that the driver keeps (NVML)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class Meter:
    """Reads the first device's energy counter; without NVML it reads nothing."""

    def __init__(self) -> None:
        try:
            import pynvml  # type: ignore[import-not-found,unused-ignore]

            pynvml.nvmlInit()
            self.nvml: Any = pynvml
            self.handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            self.joules()
        except Exception as error:
            self.nvml, self.why = None, f"{type(error).__name__}: {error}"

    def joules(self) -> float:
        """Returns J since the driver was loaded."""
        return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) * 1e-3

    def facts(self) -> dict[str, Any]:
        """Returns what the driver says of the card."""
        if self.nvml is None:
            return {"nvml": self.why}
        n, h = self.nvml, self.handle
        return {
            "name": str(n.nvmlDeviceGetName(h)), "driver": str(n.nvmlSystemGetDriverVersion()),
            "limit_w": n.nvmlDeviceGetPowerManagementLimit(h) * 1e-3,
            "sm_clock_max_mhz": n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_SM),
            "temperature_c": n.nvmlDeviceGetTemperature(h, n.NVML_TEMPERATURE_GPU),
        }  # fmt: skip

    def clock(self) -> int:
        """Returns the multiprocessors' clock now, MHz."""
        return int(self.nvml.nvmlDeviceGetClockInfo(self.handle, self.nvml.NVML_CLOCK_SM)) if self.nvml else 0

    def drawn(self, call: Callable[[], Any] | None, seconds: float) -> dict[str, float]:
        """Returns W, s, times that ``call`` ran and the clock, over at least ``seconds``; None = nothing runs."""
        if self.nvml is None:
            return {}
        torch.cuda.synchronize()
        if call is not None:  # the counter moves in steps; begin on one while the work already runs
            for _ in range(3):
                call()
            torch.cuda.synchronize()
        first = self.joules()
        while (begin := self.joules()) == first:
            if call is not None:
                call()
                torch.cuda.synchronize()
        begun, count, clock = time.perf_counter(), 0, 0
        while time.perf_counter() - begun < seconds:
            if call is None:
                time.sleep(0.01)
                continue
            call()
            count += 1
            if count % 8 == 0:
                torch.cuda.synchronize()
        clock = self.clock()
        torch.cuda.synchronize()
        ended, last = time.perf_counter(), self.joules()
        return {"watts": (last - begin) / (ended - begun), "seconds": ended - begun, "calls": count, "clock_mhz": clock}


def phases(meter: Meter, seconds: float) -> dict[str, Any]:
    """Returns power at rest, of large products, of copying and of reading."""
    found: dict[str, Any] = {"idle": meter.drawn(None, seconds)}
    x, w = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(x)
    found["product"] = meter.drawn(lambda: torch.matmul(x, w, out=out), seconds) | {"flop": 2.0 * 8192**3}
    a = torch.randn(1 << 29, device="cuda")
    b = torch.empty_like(a)
    found["copy"] = meter.drawn(lambda: b.copy_(a), seconds) | {"bytes": 8.0 * 2**29}
    found["read"] = meter.drawn(lambda: a.sum(), seconds) | {"bytes": 4.0 * 2**29}
    found["rest"] = meter.drawn(None, seconds)
    return found
