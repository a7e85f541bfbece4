"""The search over training plans against brute force: every plan on its own, with plain numbers, one at a time."""

from dataclasses import replace

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.training import network as networks
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.scenario.workload.training import Shape
from fleetcast.search.training.space import CHOICE, LAYOUT, Question, space
from tests.search.plain_training import apart, best, case, searched


@pytest.mark.parametrize("seed", range(1000, 1024))
def test_the_search_is_brute_force(seed):
    found = case(seed, 3000)
    loops = best(found)
    assert loops.plans > 0
    assert apart(loops, searched(found)) < 1e-9


def test_the_oracle_sees_a_plan_too_many_and_a_second_too_few():
    loops = best(case(1001, 3000))
    assert apart(loops, replace(loops, fits=loops.fits + 1)) == np.inf
    longer = {key: taken * 1.001 for key, taken in loops.layouts.items()}
    assert apart(loops, replace(loops, layouts=longer)) == pytest.approx(1e-3)


def test_a_number_is_a_plan_and_all_of_them_differ():
    q = Question(networks.of(Shape(layers=8, hidden=1024, heads=8).model(512)), 512, 16, 8, TrainingPlan())
    found = space(q)
    columns = found.plans(np.arange(len(found)))
    rows = np.stack([getattr(columns, name) for name in (*LAYOUT, *CHOICE)], axis=1)
    assert len(np.unique(rows, axis=0)) == len(found)
    assert (columns.devices == 8).all()
    assert (16 % (columns.data * columns.micro_batch) == 0).all()


REFUSED = {
    "tensor_parallel": ({"tensor_parallel": 5}, "plan.tensor_parallel.*8 heads"),
    "pipeline_parallel": ({"pipeline_parallel": 16}, "plan.pipeline_parallel.*8 layers"),
    "product": ({"tensor_parallel": 2, "pipeline_parallel": 3}, "takes 6 devices"),
    "data_parallel": ({"data_parallel": 32}, "plan.data_parallel.*batch of 16"),
    "micro_batch": ({"micro_batch": 5}, "plan.micro_batch"),
    "schedule": ({"schedule": "dualpipe", "pipeline_parallel": 8, "micro_batch": 4}, "plan.schedule"),
    "expert_parallel": ({"expert_parallel": 2}, "plan.expert_parallel.*0 experts"),
    "context_parallel": ({"context_parallel": 512}, "plan.context_parallel"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_empty_space_names_the_divisor(name):
    plan, said = REFUSED[name]
    net = networks.of(Shape(layers=8, hidden=1024, heads=8).model(512))
    with pytest.raises(SpecError, match=said) as caught:
        space(Question(net, 512, 16, 16, TrainingPlan(**plan)))
    assert caught.value.hint
    assert caught.value.limit
