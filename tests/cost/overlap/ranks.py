"""Ranks of catalogue models for the tests of overlap, made once."""

from functools import cache

from fleetcast.cost.layers import Rank
from fleetcast.scenario.load import load
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting


@cache
def rank(model: str, device: str, tp: int) -> Rank:
    """Returns one device of a replica of ``tp`` devices."""
    state = setting(
        load(
            {
                "fleet": {"devices": f"{tp}x {device}"},
                "workload": {
                    "model": model,
                    "arrivals": {"kind": "poisson", "rate": "1 /s", "requests": 4},
                    "lengths": {"kind": "fixed", "prompt": 64, "output": 8},
                },
                "plan": {"replicas": 1, "tensor_parallel": tp, "pipeline_parallel": 1, "dtype": dtype_of(model)},
            }
        )
    )
    found = state.server(complete(state, state.scenario.plan).pools[0]).cost.rank
    assert found is not None
    return found


def dtype_of(model: str) -> str:
    """Returns the weights' dtype: one that fits the devices the tests name."""
    return "fp8" if model == "deepseek-v3" else "bf16"
