import time

from tests.runtime.kubernetes.made import node, places, pod, put, until
from tests.runtime.kubernetes.policies import Greedy


def test_pods_are_bound(double, start):
    for k in range(3):
        double.store.add("nodes", node(f"n{k}", cpu="4"))
    put(double, *(pod(f"p{k}") for k in range(10)))
    running = start(Greedy())
    until(lambda: len(places(double)) == 10)
    put(double, *(pod(f"q{k}") for k in range(10)))
    until(lambda: len(places(double)) == 12)
    time.sleep(0.2)
    assert len(places(double)) == 12
    until(lambda: len(running.scheduler.pending) == 8)
    reason = running.scheduler.pending["default/q9"]
    assert reason == "default/q9: 0 of 3 nodes take it: 3 lack cpu (needs 1, the most left on one is 0)"
