"""A scheduler in a process of its own, to be killed."""

from fleetcast.runtime.kubernetes.calls import connect
from fleetcast.runtime.kubernetes.scheduler import Scheduler
from tests.runtime.kubernetes.policies import Greedy

connect(url="http://127.0.0.1:9", token="").close()  # what the client imports late is there before the fork


def schedule(url, token):
    """Schedules until it is killed."""
    Scheduler(Greedy(), connect(url=url, token=token)).run()
