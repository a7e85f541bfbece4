"""Trains the agents of Com-DDPG that are shipped: `policy/order/tasks/com_ddpg.npz`, about four minutes of one core.

python -m benchmarks.fit.offloading
"""

from __future__ import annotations

import sys

from fleetcast.learning.rl.apps import Apps
from fleetcast.learning.rl.com_ddpg import Settings, train
from fleetcast.policy.order.tasks.com_ddpg import SHIPPED

EPISODES = 800


def main() -> int:
    """Trains and writes; says what the last episodes cost."""
    import torch

    torch.set_num_threads(1)
    made = train(Apps(), Settings(episodes=EPISODES, batch=128), seed=0)
    made.save(SHIPPED)
    last = made.curve[-50:]
    print(f"{SHIPPED.name}: {sum(last) / len(last):.3f} on the last 50 episodes, {made.seconds:.0f} CPU-s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
