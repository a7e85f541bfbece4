import pytest


@pytest.fixture
def double():
    from fleetcast.runtime.kubernetes.double import Double

    with Double() as made:
        yield made


@pytest.fixture
def start(double):
    from tests.runtime.kubernetes.made import Running

    running = []

    def begin(policy, **settings):
        running.append(Running(double, policy, **settings))
        return running[-1]

    yield begin
    for one in running:
        one.stop()
        assert one.error is None
