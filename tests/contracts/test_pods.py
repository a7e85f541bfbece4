"""Every policy that places pods keeps its contract."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest

from fleetcast.base.errors import PolicyError
from fleetcast.base.spec import build, describe, kinds
from fleetcast.policy.place import pods as place
from fleetcast.policy.place.pods import KubeDefault, Placement, View
from fleetcast.policy.place.pods.check import carry_out
from fleetcast.policy.place.pods.contracts import burst, cases, check_policy

SOLVER = pytest.mark.skipif(find_spec("ortools") is None, reason="needs OR-Tools: pip install 'fleetcast[solve]'")
ALL = [pytest.param(k, c, marks=SOLVER if k.startswith("cp_sat") else ()) for k, c in kinds(place).items()]


@pytest.mark.parametrize(("kind", "class_"), ALL)
def test_policy_keeps_the_contract(kind: str, class_: type) -> None:
    made = class_(budget=0.2) if "budget" in describe(class_()) else class_()
    assert len(check_policy(made)) >= 15
    assert type(build(place, kind, "plan.place")) is class_


@pytest.mark.parametrize(("kind", "class_"), ALL)
def test_ten_thousand_pods_at_once_are_answered(kind: str, class_: type) -> None:
    view = burst()
    placement = class_().place(view)
    carry_out(view, placement)
    assert 500 < len(placement.bound) < 2000
    assert len(placement.reasons) == 10_000 - len(placement.bound)
    top = [p for p in view.waiting if p.priority == 3]
    assert sum(p.name in placement.bound for p in top) >= 500, "the highest tier goes first"


class Careless(KubeDefault):
    """Binds everything to the first node."""

    def place(self, view: View) -> Placement:
        return Placement({pod.name: view.nodes[0].name for pod in view.waiting} if view.nodes else {})


class Cruel(KubeDefault):
    """Evicts who runs for nobody."""

    def place(self, view: View) -> Placement:
        return replace(
            super().place(view), evicted=tuple(p.name for p in view.running if p.movable and p.node != "lost")
        )


class Silent(KubeDefault):
    """Does not say why pods wait."""

    def place(self, view: View) -> Placement:
        return replace(super().place(view), reasons={})


@pytest.mark.parametrize("policy", [Careless(), Cruel(), Silent()], ids=lambda p: type(p).__name__)
def test_broken_policies_are_caught(policy: KubeDefault) -> None:
    with pytest.raises((PolicyError, AssertionError)):
        check_policy(policy)


def test_the_cases_have_names_of_their_own() -> None:
    names = [name for name, _ in cases()]
    assert len(set(names)) == len(names)
