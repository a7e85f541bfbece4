"""The search over training plans against brute force: every plan on its own, by the same costs, one at a time."""

import itertools

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.training import network as networks
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import SCHEDULES, plans
from fleetcast.cost.training.step import step
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.scenario.workload.training import Shape
from fleetcast.search.training.exhaust import exhaust
from fleetcast.search.training.space import CHOICE, LAYOUT, SEARCHED, Question, divisors, schedules, space


def shapes(rng):
    heads = int(rng.choice([4, 6, 8, 12, 16]))
    layers = int(rng.choice([2, 3, 4, 6, 8, 12]))
    kv = int(rng.choice(divisors(heads)))
    experts = int(rng.choice([0, 0, 4, 8]))
    return Shape(
        layers=layers, hidden=heads * int(rng.choice([64, 96, 128])), heads=heads, kv_heads=kv,
        gated=bool(rng.integers(2)), experts=experts, vocab=int(rng.choice([32000, 51200])),
    )  # fmt: skip


def question(rng, sequence, batch):
    """A space of at most 10,000 plans."""
    shape = shapes(rng)
    devices = int(rng.choice([1, 2, 4, 8, 16, 24, 32]))
    some = {}
    for name, values in (
        ("recompute", ("none", "selective", "full")), ("zero", (0, 1, 2, 3)), ("sequence_parallel", (False, True)),
    ):  # fmt: skip
        some[name] = tuple(v for v in values if rng.random() < 0.6) or (values[0],)
    some["offload"] = ((), ("optimizer",), ("activations", "weights"))[: int(rng.integers(1, 4))]
    some["overlap"] = ((), ("data",), ("tensor", "pipeline"))[: int(rng.integers(1, 4))]
    return Question(networks.of(shape.model(sequence)), sequence, batch, devices, TrainingPlan(**some)), shape


def brute(q, shape):
    """Yields every plan that the rules let through, written out as loops over all degrees."""
    degrees = range(1, q.devices + 1)
    keys = shape.kv_heads or shape.heads
    for tp, pp, dp, ep in itertools.product(degrees, degrees, degrees, degrees if shape.experts else (1,)):
        if tp * pp * dp != q.devices or shape.heads % tp or (keys % tp and tp % keys) or pp > shape.layers:
            continue
        layer = q.network.layers[0]
        if q.network.hidden % tp or layer.ffn % tp or layer.expert_ffn % tp:
            continue
        if q.batch % dp or dp % ep or (shape.experts and shape.experts % ep):
            continue
        for mb, v in itertools.product(range(1, q.batch // dp + 1), range(1, shape.layers + 1)):
            if (q.batch // dp) % mb or -(-shape.layers // pp) % v:
                continue
            known = schedules(pp, v, q.batch // dp // mb, shape.layers)
            for schedule in [s for s in known if SCHEDULES[s] in SEARCHED]:
                for choice in itertools.product(
                    *(getattr(q.plan, n) for n in ("recompute", "sequence_parallel", "zero", "offload", "overlap"))
                ):
                    yield (tp, pp, dp, ep, mb, v, schedule), choice


@pytest.mark.parametrize("seed", range(40))
def test_the_search_is_brute_force(seed):
    rng = np.random.default_rng(seed)
    sequence, batch = 1024, int(rng.choice([4, 8, 12, 16]))
    q, shape = question(rng, sequence, batch)
    device = rng.choice(["a100-40g-sxm", "h100-sxm", "l40s"])
    system = systems.of(resolve(Fleet(devices=f"{q.devices}x {device}")).groups[0])
    job = Job(sequence, batch)
    every = list(brute(q, shape))
    if not every:
        with pytest.raises(SpecError):
            space(q)
        return
    found = space(q)
    assert len(found) == len(every)
    at = rng.permutation(len(every))[:400]
    best, fitting = (np.inf, None), 0
    for i in at:
        (tp, pp, dp, ep, mb, v, schedule), (recompute, parallel, zero, offload, overlap) = every[i]
        one = plans(
            tensor=tp, pipeline=pp, data=dp, expert=ep, micro_batch=mb, interleave=v, schedule=schedule,
            recompute=recompute, sequence_parallel=int(parallel), zero=zero, offload=offload, overlap=overlap,
        )  # fmt: skip
        need = memory(q.network, job, one, system)
        if need["total"][0] <= system.memory and need["host"][0] <= system.host_memory:
            fitting += 1
            best = min(best, (float(step(q.network, job, one, system)["total"][0]), i), key=lambda pair: pair[0])
    result = exhaust(found, q.network, job, system)
    if len(at) == len(every):
        assert result.fits == fitting
        assert result.value.min() == pytest.approx(best[0], rel=1e-12)
    else:
        assert result.value.min() <= best[0] * (1 + 1e-12)


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
