"""One plan costed with plain numbers and loops over layers and stages: the oracle of the columns.

It shares the measured curves (`gemm_time`, `nested_time`, attention's rates) and the closed forms of schedules with the
code under test, and none of its composition.
"""

from __future__ import annotations

from dataclasses import fields
from math import ceil, log2
from typing import Any

from fleetcast.cost.attention import prefill_pair, prefill_token
from fleetcast.cost.collectives import nested_time
from fleetcast.cost.gemm import gemm_time
from fleetcast.cost.roofline import peak
from fleetcast.cost.training.memory import LOGITS, RESERVE
from fleetcast.cost.training.network import Job, Layer, Network
from fleetcast.cost.training.offload import ADAM_BYTES
from fleetcast.cost.training.plans import OFFLOADED, OVERLAPS, SCHEDULES, Plans
from fleetcast.cost.training.step import FUSED_HEAD, OPTIMIZER_BYTES
from fleetcast.cost.training.system import System
from fleetcast.cost.training.work import CAST, CHUNKS, CONTENTION, FUSED_BACKWARD, KERNELS, UNFUSED


class Plan:
    """A row of ``Plans`` as numbers."""

    def __init__(self, plans: Plans, i: int) -> None:
        for f in fields(Plans):
            setattr(self, f.name, int(getattr(plans, f.name)[i]))

    def __getattr__(self, name: str) -> int:
        raise AttributeError(name)

    @property
    def pytorch(self) -> bool:
        return self.zero >= 2 and self.tensor * self.pipeline == 1

    def hides(self, name: str) -> bool:
        return bool(self.overlap >> OVERLAPS.index(name) & 1)

    def moves(self, name: str) -> bool:
        return bool(self.offload >> OFFLOADED.index(name) & 1)


def behind(messages: float, work: float) -> float:
    return max(messages - work, 0.0) + (CONTENTION - 1.0) * min(messages, work)


def of_format(dtype: str) -> tuple[float, str]:
    """B of an activation, and the format of attention's and the head's products."""
    return (4.0 if dtype == "fp32" else 2.0), "bf16" if dtype == "fp8" else dtype


def element(job: Job) -> float:
    return job.element or of_format(job.dtype)[0]


def product(m: float, n: float, k: float, dtype: str, system: System) -> float:
    return float(gemm_time(m, n, k, dtype, system.chip, system.gemm(dtype), quantise=False)) * (
        system.practice.eight if dtype == "fp8" else 1.0
    )


def casts(elements: float, job: Job, system: System) -> float:
    """Seconds in which elements become 8 bits wide, once as they are and once transposed."""
    return elements * CAST / (system.chip.bandwidth * system.stream.memory) if job.dtype == "fp8" else 0.0


def collective(operation: str, size: float, ranks: int, stride: int, system: System) -> float:
    if ranks <= 1:
        return 0.0
    near = max(1, min(ranks, system.node // stride))
    return float(nested_time(operation, size, ranks, near, system.inner, system.outer))


def layer_seconds(net: Network, layer: Layer, job: Job, plan: Plan, system: System) -> dict[str, Any]:
    """Seconds of one layer and one micro-batch, factors applied: forward, backward, again by term; kernels."""
    p, t = system.practice, plan.tensor
    tokens = plan.micro_batch * job.sequence / plan.context
    local = tokens / t if plan.sequence_parallel else tokens
    wide, plain = of_format(job.dtype)
    fore, inputs, weights, last = 0.0, 0.0, 0.0, 0.0
    for m in layer.matrices:
        n = m.outputs / t if m.split == "out" else m.outputs
        k = m.inputs / t if m.split == "in" else m.inputs
        rows = tokens if m.split or not plan.sequence_parallel else tokens / t
        last = product(rows, n, k, job.dtype, system)
        fore += last
        inputs += product(rows, k, n, job.dtype, system)
        weights += product(n, k, rows, job.dtype, system)
        fore += casts(rows * k + (n * k if plan.zero >= 2 else 0), job, system)
        inputs += casts(rows * n, job, system)
    if layer.experts:
        held = ceil(layer.experts / plan.expert)
        rows = tokens * layer.top_k * plan.expert_tensor / t / held
        each = layer.expert_ffn / plan.expert_tensor
        for n, k in ((each * (layer.expert_matrices - 1), net.hidden), (net.hidden, each)):
            last = held * product(rows, n, k, job.dtype, system)
            fore += last
            inputs += held * product(rows, k, n, job.dtype, system)
            weights += held * product(n, k, rows, job.dtype, system)
            fore += casts(held * (rows * k + (n * k if plan.zero >= 2 else 0)), job, system)
            inputs += casts(held * rows * n, job, system)
    rate = system.chip.bandwidth * system.stream.memory
    ahead = after = 0.0
    if layer.heads:
        heads, keys = ceil(layer.heads / t), ceil(layer.kv_heads / t)
        width = (layer.head_dim + layer.value_dim) / 2
        if plan.fused:
            span = min(layer.window or job.sequence, job.sequence)
            seen = span / 2 if span == job.sequence else span - span * span / (2 * job.sequence)
            c = system.prefill
            ahead = c.launch + float(prefill_pair(heads, width, system.chip, c)) * tokens * seen * peak(
                system.chip, "bf16"
            ) / peak(system.chip, plain)
            ahead += wide / 2 * tokens * float(prefill_token(heads, width, system.chip, c))
            ahead += wide / 2 * tokens * float(prefill_token(keys, width, system.chip, c))
            after = FUSED_BACKWARD * ahead
        else:
            rows, mask = tokens * heads, 5.0 if layer.dropout else 0.0
            both = product(rows, job.sequence, layer.head_dim, plain, system)
            both += product(rows, layer.value_dim, job.sequence, plain, system)
            ahead = both + rows * job.sequence * (2 * wide + mask) / rate
            after = 2 * both + rows * job.sequence * (3 * wide + mask) / rate
    factor = p.attention
    if plan.fused:
        factor = p.narrow if layer.head_dim <= 64 else p.fused if plan.pytorch else p.flash
    vector, bare = [], plan.pytorch and layer.gated
    norms, acts = (22, 42) if layer.dropout else (20, 38), (6, 10) if layer.gated else (4, 6)
    for norm, act in zip(*(UNFUSED if bare else (norms, acts)), strict=True):
        inner = (layer.ffn + layer.expert_ffn * layer.top_k) / t
        copies = (16 if bare else 8) * (layer.heads + layer.kv_heads) * layer.head_dim / t
        moved = 6 * layer.top_k * net.hidden * plan.expert_tensor / t if layer.experts else 0
        vector.append((local * norm * net.hidden + tokens * (act * inner + copies + moved)) * wide / 2 / rate)
    size = tokens * wide * net.hidden
    gather = collective("all_gather", size, t, 1, system)
    reduce = collective("all_reduce", size, t, 1, system)
    if plan.sequence_parallel or plan.tensor_messages:
        reduce = gather + collective("reduce_scatter", size, t, 1, system)
    times = 1 if layer.parallel else 2
    cut = 1 / CHUNKS if plan.hides("tensor") else 1.0
    more = times * gather if plan.sequence_parallel else 0.0
    room_back = inputs + weights if plan.hides("tensor") else inputs
    talk = [
        times * reduce * cut + behind(times * reduce * (1 - cut) + late, beside)
        for late, beside in ((0.0, fore), (more, room_back))
    ]
    kv = ceil(layer.kv_heads / t) * (layer.head_dim + layer.value_dim) * wide
    ring = collective("all_gather", tokens * kv * plan.context, plan.context, t, system) if layer.heads else 0.0
    dealt = 0.0
    if layer.experts:
        part = tokens / t * wide * net.hidden * layer.top_k
        dealt = 2 * collective("all_to_all", part, plan.expert, plan.expert_tensor, system)
    passes = p.eager if plan.pytorch else p.vector
    forward = {
        "gemm": p.gemm * fore, "attention": factor * ahead, "vector": passes * vector[0],
        "tensor_comm": p.tensor * talk[0], "context_comm": p.tensor * max(ring - ahead, 0.0),
        "expert_comm": p.tensor * dealt,
    }  # fmt: skip
    backward = {
        "gemm": p.gemm * (inputs + weights), "attention": factor * after, "vector": passes * vector[1],
        "tensor_comm": p.tensor * talk[1], "context_comm": p.tensor * max(2 * ring - after, 0.0),
        "expert_comm": p.tensor * dealt,
    }  # fmt: skip
    again = 0.0
    if plan.recompute == 2:
        again = sum(forward.values()) - (p.gemm * last if plan.pytorch else 0.0)
    elif plan.recompute == 1 and not plan.fused:
        again = forward["attention"]
    full, extra = plan.recompute == 2, 10 if layer.experts else 0
    saved = KERNELS["fused"] if plan.fused else 0
    odd = 0 if plan.fused or plan.micro_batch * ceil(layer.heads / t) % 4 == 0 else 7
    kernels = (KERNELS["forward"] + extra - saved + odd) * (1 + full) + KERNELS["backward"] + 2 * extra - saved + odd
    messages = log2(t) * times * (2 + full) if t > 1 else 0.0
    messages += 2 * (2 + full) if plan.expert > 1 and layer.experts else 0
    return {
        "forward": forward, "backward": backward, "again": again, "weights": p.gemm * weights, "kernels": kernels,
        "messages": messages,
    }  # fmt: skip


def lacks(net: Network, plan: Plan) -> dict[int, int]:
    """Layers that the first and the last stage hold fewer than the second: places that embedding and head take."""
    places = 0
    while places < net.depth:
        places += plan.pipeline * plan.interleave
    spare = places - net.depth
    balanced = plan.pipeline > 1 and spare in (1, 2) and spare < plan.pipeline
    return {0: int(balanced and spare == 2), plan.pipeline - 1: int(balanced)}


def params_of(net: Network, plan: Plan) -> dict[int, float]:
    """Parameters on a device of the first, the second and the last stage; under -1 those of experts on the fullest."""
    held, dense, experts = ceil(net.depth / plan.pipeline), 0.0, 0.0
    for layer in net.layers:
        part = layer.count / net.depth * held
        dense += part * (layer.split_params / plan.tensor + layer.whole_params)
        if layer.experts:
            mine = ceil(layer.experts / plan.expert)
            experts += part * layer.expert_params / layer.experts * mine / plan.expert_tensor
    table = net.table_params / plan.tensor
    if plan.pipeline == 1:
        one = dense + table * (1 if net.tied else 2) + net.first_params + net.last_params
        return {0: one, -1: experts}
    each, light = dense / held, lacks(net, plan)
    stages = {1: dense} if plan.pipeline > 2 else {}
    stages[0] = dense - light[0] * each + table + net.first_params
    stages[plan.pipeline - 1] = dense - light[plan.pipeline - 1] * each + table + net.last_params
    return stages | {-1: experts}


def seconds(net: Network, job: Job, plan: Plan, system: System) -> dict[str, float]:
    """The iteration by term, exposed."""
    p = system.practice
    micro = ceil(job.batch / (plan.data * plan.micro_batch))
    held = ceil(net.depth / plan.pipeline)
    forward: dict[str, float] = {}
    backward: dict[str, float] = {}
    again = weights = kernels = messages = 0.0
    for layer in net.layers:
        part = layer_seconds(net, layer, job, plan, system)
        share = held * layer.count / net.depth
        for into, name in ((forward, "forward"), (backward, "backward")):
            for term, value in part[name].items():
                into[term] = into.get(term, 0.0) + share * value
        again += share * part["again"]
        weights += share * part["weights"]
        kernels += share * part["kernels"]
        messages += share * part["messages"]
    if SCHEDULES[plan.schedule] == "dualpipe":
        sent = forward["expert_comm"] + backward["expert_comm"]
        if sent > 0:
            share = behind(sent, sum(forward.values()) + sum(backward.values()) - sent) / sent
            forward["expert_comm"] *= share
            backward["expert_comm"] *= share
    launched = kernels + 30
    gap = p.gap * launched / 3
    f, b = sum(forward.values()) + gap, sum(backward.values()) + 2 * gap
    device = f + b + again
    waits = p.kernel * launched + p.pace * messages
    host = (device**p.sharp + waits**p.sharp) ** (1 / p.sharp) - device
    tokens = plan.micro_batch * job.sequence / plan.context
    hop = 0.0
    if plan.pipeline > 1:
        whole = tokens * of_format(job.dtype)[0] * net.hidden
        far = plan.tensor * plan.context * plan.data * plan.pipeline > system.node
        step = system.node if far else 1
        share = collective("send", whole / plan.tensor, 2, step, system)
        if not plan.sequence_parallel:
            share += collective("all_gather", whole, plan.tensor, 1, system)
            share = min(share, collective("send", whole, 2, step, system))
        hop = p.pipeline * 2 * share * plan.interleave
    transfer, host_step = moving(net, job, plan, system)
    late = max(transfer / micro - device - host, 0.0)
    rounds, kind = float(plan.pipeline - 1), SCHEDULES[plan.schedule]
    idle = {
        "gpipe": rounds * (f + host + b + again), "1f1b": rounds * (f + host + b + again),
        "interleaved": rounds / plan.interleave * (f + host + b + again),
        "zero-bubble": rounds * (f + host + b + again - 2 * weights),
        "dualpipe": max(plan.pipeline / 2 - 1, 0) * (f + host + 2 * (b + again) - 3 * weights),
    }[kind]  # fmt: skip
    turns = {"interleaved": rounds / plan.interleave, "dualpipe": max(plan.pipeline / 2 - 1, 0)}.get(kind, rounds)
    idle += turns * late * (1.5 if kind == "dualpipe" else 1.0)
    stages = params_of(net, plan)
    experts = stages.pop(-1)
    wide, dense = 4.0 if job.dtype == "fp32" else 2.0, max(stages.values())
    reduce = gather = update = 0.0
    passes = micro if plan.zero >= 2 else 1  # no copy holds gradients whole
    if plan.zero >= 2 and plan.interleave > 1:
        passes = ceil(micro / plan.pipeline)
    of_experts = max(plan.tensor * plan.context * plan.data / (plan.expert_tensor * plan.expert), 1.0)
    for size, copies, stride in (
        (dense, plan.data * plan.context, plan.tensor), (experts, round(of_experts), plan.expert_tensor * plan.expert),
    ):  # fmt: skip
        if plan.zero == 0:
            reduce += collective("all_reduce", size * job.sent, copies, stride, system)
        else:
            reduce += passes * collective("reduce_scatter", size * job.sent, copies, stride, system)
            times = 2 * passes if plan.zero == 3 else 1
            gather += times * collective("all_gather", size * wide, copies, stride, system)
        own = size / copies if plan.zero else size
        update += own * OPTIMIZER_BYTES / (system.chip.bandwidth * system.stream.memory)
    if net.tied and plan.pipeline > 1:
        reduce += collective("all_reduce", net.table_params / plan.tensor * job.sent, 2, system.node, system)
    reduce, gather, update = p.data * reduce, p.data * gather, p.optimizer * update
    if plan.moves("optimizer"):
        update = 0.0
    if plan.hides("optimizer"):
        update = min(update, behind(update, reduce + gather))
    if plan.hides("data") and reduce + gather > 0:
        sharded = plan.zero >= 2
        window = (device + host + late) * (
            micro if sharded else min(plan.pipeline, micro) if plan.interleave > 1 else 1
        )
        pieces = (micro if sharded else 1) * max(8, 2 * plan.interleave)
        left = (reduce + gather) / pieces + behind((reduce + gather) * (1 - 1 / pieces), window)
        reduce, gather = (x * left / (reduce + gather) for x in (reduce, gather))
    found = {name: micro * (forward[name] + backward[name]) for name in forward}
    found["recompute"] = micro * again
    spared = (device + host + late) / held if plan.pipeline > 1 and lacks(net, plan)[plan.pipeline - 1] else 0.0
    found["head"] = micro * max(p.head * head_seconds(net, job, tokens, plan, system) - spared, 0.0)
    found["pipeline_comm"] = micro * (behind(hop, device + host + late) if plan.hides("pipeline") else hop)
    found["host"] = micro * (host + 3 * gap) + (0.0 if plan.hides("input") else p.iteration)
    found["bubble"] = max(idle, 0.0) + turns * hop
    found |= {"data_comm": reduce, "weight_gather": gather, "optimizer": update}
    found["offload"] = micro * late + host_step
    machines = ceil(plan.tensor * plan.pipeline * plan.data * plan.context / system.node)
    found["straggler"] = p.slower * (1 - (1 - p.slow) ** machines) * sum(found.values())
    return found | {"total": sum(found.values())}


def moving(net: Network, job: Job, plan: Plan, system: System) -> tuple[float, float]:
    """Seconds of the link to the host, and of the host's own step, of an iteration."""
    stages = params_of(net, plan)
    experts = stages.pop(-1)
    micro, wide = ceil(job.batch / (plan.data * plan.micro_batch)), 4.0 if job.dtype == "fp32" else 2.0
    held = max(stages.values()) + experts
    owned = held
    if plan.zero:
        copies = max(plan.tensor * plan.context * plan.data / (plan.expert_tensor * plan.expert), 1.0)
        owned = max(stages.values()) / (plan.data * plan.context) + experts / copies
    moved = host = 0.0
    if plan.moves("weights"):
        moved += 2 * micro * held * wide
    if plan.moves("activations"):
        kept = sum(layer.count * kept_bytes(net, layer, job, plan)[0] for layer in net.layers) / net.depth
        moved += 2 * micro * kept * ceil(net.depth / plan.pipeline)
    if plan.moves("optimizer"):
        moved += micro * wide * (owned if plan.zero >= 2 else held) + wide * owned
        host = owned * ADAM_BYTES / system.host_bandwidth
    return moved / system.host_link, host


def head_seconds(net: Network, job: Job, tokens: float, plan: Plan, system: System) -> float:
    """Embedding and head of one micro-batch, forward and backward."""
    columns, h = net.vocab / plan.tensor, float(net.hidden)
    rate = system.chip.bandwidth * system.stream.memory
    wide, plain = of_format(job.dtype)
    time = sum(product(*s, plain, system) for s in ((tokens, columns, h), (tokens, h, columns), (columns, h, tokens)))
    time += tokens * columns * FUSED_HEAD * 3 * wide / rate + tokens * h * 6 * wide / rate
    time += 3 * collective("all_reduce", tokens * 4, plan.tensor, 1, system)
    return time + collective("all_reduce", tokens * wide * h, plan.tensor, 1, system)


def kept_bytes(net: Network, layer: Layer, job: Job, plan: Plan) -> tuple[float, float]:
    """What a layer keeps of one micro-batch, and what it has before any recompute."""
    t, h = plan.tensor, net.hidden
    tokens = plan.micro_batch * job.sequence / plan.context
    local = tokens / t if plan.sequence_parallel else tokens
    heads, keys = ceil(layer.heads / t), ceil(layer.kv_heads / t)
    both = layer.head_dim + layer.value_dim
    read = 1 if job.dtype == "fp8" else 2  # what a product keeps of its input
    act = (4 if layer.gated else 2) + read
    inner = 2 * (heads + keys) * both + act * (layer.ffn + layer.top_k * layer.expert_ffn) / t
    if job.dtype == "fp8":
        inner += heads * layer.value_dim
    if layer.experts:
        inner += read * h * layer.top_k * plan.expert_tensor / t
    span = min(layer.window or job.sequence, job.sequence)
    scores = 4.0 * heads if plan.fused else heads * (5.0 if layer.dropout else 2.0) * span
    stream = ((2 + read if layer.parallel else 4 + 2 * read) + (2 if layer.dropout else 0)) * h
    whole = local * stream + tokens * (inner + scores)
    kept = whole
    if plan.recompute == 1 and not plan.fused:
        kept = whole - tokens * scores
    if plan.recompute == 2:
        kept = local * 2 * h
    return kept * element(job) / 2, whole * element(job) / 2


def room(net: Network, job: Job, plan: Plan, system: System) -> tuple[float, float]:
    """Peak bytes of the fullest device and of the fullest host's share: every stage looked at by itself."""
    micro = ceil(job.batch / (plan.data * plan.micro_batch))
    held, p, v, kind = ceil(net.depth / plan.pipeline), plan.pipeline, plan.interleave, SCHEDULES[plan.schedule]
    stages, light = params_of(net, plan), lacks(net, plan)
    experts = stages.pop(-1)
    copies = plan.data * plan.context
    of_experts = max(plan.tensor * plan.context * plan.data / (plan.expert_tensor * plan.expert), 1.0)
    wide = 4.0 if job.dtype == "fp32" else 2.0
    kept = sum(layer.count / net.depth * kept_bytes(net, layer, job, plan)[0] for layer in net.layers)
    whole = max(kept_bytes(net, layer, job, plan)[1] for layer in net.layers)
    tokens = plan.micro_batch * job.sequence / plan.context
    split = plan.sequence_parallel and plan.tensor > 1
    stream = (tokens / plan.tensor if split else tokens) * 2 * element(job) * net.hidden
    stream += tokens * 2 * of_format(job.dtype)[0] * net.hidden if split else 0.0
    logits = tokens * net.vocab * LOGITS * element(job) / plan.tensor
    largest = max(
        x.split_params / plan.tensor + x.whole_params
        + (ceil(x.experts / plan.expert) / x.experts * x.expert_params / plan.expert_tensor if x.experts else 0.0)
        for x in net.layers
    )  # fmt: skip
    following = largest if held > 1 else net.table_params / plan.tensor
    pair = wide * (largest + following)
    work = whole if plan.recompute == 2 else 0.0
    if plan.zero == 3 and copies > 1:
        work += pair + max(wide * largest - whole, 0.0)
    if plan.zero >= 2 and v > 1 and copies > 1:
        others = max(stages.values()) * (1 - 1 / copies) + experts * (1 - 1 / of_experts)
        gathered = 2 * wide * others if plan.zero == 3 else 0.0
        work = max(work, (max(job.gradient * others - kept * held, 0.0) + gathered) / v)
    peaks, hosts = [], []
    for stage, params in stages.items():
        if stage == 1 and not light[0] and p > 2:
            continue  # the first holds more
        states = moved = 0.0
        twice = 2 if kind == "dualpipe" else 1
        master = job.optimizer - (4 if job.dtype == "fp32" else 0)
        for level, size, name, stays in (
            (3, wide * twice, "weights", pair), (2, job.gradient * twice, "optimizer", pair),
            (1, master, "optimizer", 0.0),
        ):  # fmt: skip
            shared = plan.zero >= level
            state = size * (params / (copies if shared else 1) + experts / (of_experts if shared else 1))
            gone = max(state - stays, 0.0) if plan.moves(name) else 0.0
            states, moved = states + state - gone, moved + gone
        flying = {
            "gpipe": float(micro), "1f1b": float(min(p - stage, micro)), "zero-bubble": float(min(p, micro)),
            "dualpipe": min(p + 1.0, 2.0 * micro),
            "interleaved": float(min(p - stage, micro)) if v == 1
            else min(((v - 1) * p + 1 + (0 if stage == p - 1 else 2 * (p - 1 - stage))) / v, micro),
        }[kind]  # fmt: skip
        activations = kept * (held - light.get(stage, 0)) * flying
        gone = max(activations - 2 * kept, 0.0) if plan.moves("activations") else 0.0
        fresh = wide * net.table_params / plan.tensor * (3 if net.tied and p == 1 else 1)
        busy = activations - gone + max(logits if stage == p - 1 else 0.0, work) + stream
        peaks.append(states + max(busy, fresh) + RESERVE)
        hosts.append(moved + gone)
    return max(peaks), max(hosts)
