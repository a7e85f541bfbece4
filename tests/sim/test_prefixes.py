"""The prefix cache: against blocks kept one by one, against the best that any rule can do, and by conservation."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import PolicyError, SpecError
from fleetcast.policy import evict
from fleetcast.scenario.load import load
from fleetcast.scenario.workload.prefixes import prefix_tree, shared_tokens
from fleetcast.scenario.workload.requests import Requests, requests
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.prefixes import Caching, PrefixCache, Tier, counted
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate
from tests.scenario.workload.test_prefixes import some
from tests.sim.test_kernel import run
from tests.sim.worlds import policies, step_cost, world

RULES = [evict.Lru(), evict.Lfu(), evict.Fifo()]


@dataclass
class Block:
    """One block of one segment: where it is, who uses it, and when and how often it was used."""

    tier: int
    used: float = 0.0
    stored: float = 0.0
    uses: int = 0


class Blocks:
    """The same cache kept block by block, by search through all of them; slow and plain."""

    def __init__(self, found: Requests, block: int, sizes: list[int], policy: Any) -> None:
        self.tree, self.policy, self.sizes, self.block = prefix_tree(found, block), policy, sizes, block
        self.kept: dict[tuple[int, int], Block] = {}
        self.lines = [[(s, i) for s in self.tree.line(r) for i in range(self.tree.size[s])] for r in range(len(found))]
        self.running: dict[int, int] = {}
        self.dropped = 0

    def using(self, segment: int) -> list[int]:
        return [r for r, n in self.running.items() if any(s == segment for s, _ in self.lines[r][:n])]

    def on(self, tier: int) -> list[tuple[int, int]]:
        return [name for name, b in self.kept.items() if b.tier == tier]

    def find(self, r: int, tokens: int) -> list[int]:
        found: list[int] = []
        for name in self.lines[r][: (tokens - 1) // self.block]:
            if name not in self.kept:
                break
            found.append(self.kept[name].tier)
        return found

    def use(self, r: int, blocks: int, now: float) -> None:
        before = {s for s, _ in self.lines[r][: self.running.get(r, 0)]}
        line = self.lines[r][:blocks]
        for name in line:
            known = self.kept.setdefault(name, Block(0, stored=now))
            known.tier = 0
        for name, b in self.kept.items():
            if name[0] in {s for s, _ in line} - before:
                b.uses += 1
            if name[0] in {s for s, _ in line}:  # a segment has one age: that of its first block
                same = [x for n, x in self.kept.items() if n[0] == name[0]]
                first = min(same, key=lambda x: x.stored)
                b.stored, b.uses = first.stored, max(x.uses for x in same)
                b.used = max(x.used for x in same)
        self.running[r] = max(self.running.get(r, 0), len(line))

    def leave(self, r: int, blocks: int, now: float) -> None:
        self.use(r, blocks, now)
        for s in {s for s, _ in self.lines[r][: self.running[r]]}:
            for name, b in self.kept.items():
                if name[0] == s:
                    b.used = now
        del self.running[r]

    def ends(self, tier: int) -> list[tuple[int, int]]:
        found = []
        for name in self.on(tier):
            after = {line[line.index(name) + 1] for line in self.lines if name in line and line[-1] != name}
            blocked = any(n in self.kept and self.kept[n].tier <= tier for n in after)
            if not blocked and (tier > 0 or not self.using(name[0])):
                found.append(name)
        return found

    def give_up(self, tier: int) -> None:
        def rank(name: tuple[int, int]) -> tuple[float, float, int]:
            b = self.kept[name]
            view = evict.View(b.used, b.stored, b.uses, 0, 0)
            return self.policy.rank(view), b.used, name[0]

        name = min(self.ends(tier), key=rank)
        below = next((t for t in range(tier + 1, len(self.sizes) + 1) if self.sizes[t - 1]), None)
        if below is None:
            del self.kept[name]
            self.dropped += 1
            return
        self.kept[name].tier = below
        while len(self.on(below)) > self.sizes[below - 1]:
            self.give_up(below)

    def idle(self) -> int:
        return sum(not self.using(s) for s, _ in self.on(0))

    def shared(self) -> int:
        return sum(self.running.values()) - sum(bool(self.using(s)) for s, _ in self.on(0))

    def trim(self, free: int) -> None:
        while self.idle() > free:
            self.give_up(0)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rule=st.sampled_from(RULES),
    sizes=st.sampled_from([[], [5], [0, 7], [4, 6]]),
    block=st.sampled_from([4, 16]),
)
def test_segments_equal_blocks_kept_one_by_one(seed: int, rule: Any, sizes: list[int], block: int) -> None:
    draw = np.random.default_rng(seed)
    found = some(seed, 14)
    cache = PrefixCache(prefix_tree(found, block), [Tier(n, 1.0 + i) for i, n in enumerate(sizes)], rule)
    blocks = Blocks(found, block, sizes, rule)
    running: list[int] = []
    waiting = list(range(len(found)))
    for now in range(200):
        if waiting and (not running or draw.random() < 0.6):
            r = waiting.pop(0)
            prompt = int(found.prompt[r])
            hit, plain = cache.find(r, prompt), blocks.find(r, prompt)
            assert (hit.blocks, hit.tiers) == (len(plain), [plain.count(t) for t in range(len(sizes) + 1)])
            busy = [bool(blocks.using(s)) and t == 0 for (s, _), t in zip(blocks.lines[r], plain, strict=False)]
            assert hit.busy == sum(busy)
            cache.admit(r, hit, prompt)
            blocks.use(r, hit.blocks, 0.0)
            cache.store(r, prompt, float(now))
            blocks.use(r, prompt // block, float(now))
            running.append(r)
        elif running:
            r = running.pop(int(draw.integers(len(running))))
            tokens = int(found.prompt[r]) + int(draw.integers(0, int(found.output[r])))
            cache.release(r, tokens, float(now))
            blocks.leave(r, tokens // block, float(now))
        else:
            break
        free = int(draw.integers(0, 25))
        cache.trim(free)
        blocks.trim(free)
        assert (cache.shared, cache.idle, cache.dropped) == (blocks.shared(), blocks.idle(), blocks.dropped)
        for tier in range(len(sizes) + 1):
            mine = {(s, tier): h.blocks[tier] for s, h in cache.held.items() if h.blocks[tier]}
            theirs: dict[tuple[int, int], int] = {}
            for s, _ in blocks.on(tier):
                theirs[s, tier] = theirs.get((s, tier), 0) + 1
            assert mine == theirs


def served(names: list[int], rule: Any, room: int) -> int:
    """Requests of one block and one token each, one after the other, under a cache of ``room`` blocks: how many hit."""
    seen: dict[int, int] = {}
    parent = []
    for i, n in enumerate(names):
        parent.append(seen.get(n, -1))
        seen[n] = i
    found = requests(np.arange(len(names)), [5] * len(names), [1] * len(names), parent=parent, prefix=[4] * len(names))
    cache = PrefixCache(prefix_tree(found, 4), [], rule)
    for r in range(len(names)):
        hit = cache.find(r, 5)
        cache.admit(r, hit, 5)
        cache.release(r, 5, float(r))
        cache.trim(room)
    return cache.found[0]


def best(names: list[int], room: int) -> int:
    """The most hits of any choice of what to give up, by trying all of them."""
    states = {frozenset[int](): 0}
    for name in names:
        after: dict[frozenset[int], int] = {}
        for kept, hits in states.items():
            whole = kept | {name}
            ways = [whole] if len(whole) <= room else [whole - {gone} for gone in whole]
            for way in ways:
                after[way] = max(after.get(way, 0), hits + (name in kept))
        states = after
    return max(states.values())


@pytest.mark.parametrize("room", [1, 2, 3])
def test_belady_is_the_best_there_is_and_the_others_are_no_better(room: int) -> None:
    draw = np.random.default_rng(4)
    total = dict.fromkeys(("best", "belady", *(r.kind for r in RULES)), 0)
    for _ in range(60):
        names = draw.integers(0, 6, 14).tolist()
        top = best(names, room)
        assert served(names, evict.Belady(), room) == top
        for rule in RULES:
            hits = served(names, rule, room)
            assert hits <= top
            total[rule.kind] += hits
        total["best"] += top
    assert all(total[r.kind] < total["best"] for r in RULES)


def test_least_recently_used_never_loses_by_room() -> None:
    names = (np.random.default_rng(1).zipf(1.3, 400) % 40).tolist()
    hits = [served(names, evict.Lru(), room) for room in range(1, 41)]
    assert all(a <= b for a, b in itertools.pairwise(hits)) and hits[-1] == 400 - len(set(names))


def test_with_room_for_all_everything_that_was_computed_is_found() -> None:
    place = world(3, 120, 0.02, policies()["chunked"], cost=step_cost(capacity=10**6), caching=Caching(evict.Lru(), ()))
    done = run(place, by_step=False)
    counts = done.reports[0]["prefixes"]
    assert counts["device"] * 16 == shared_tokens(place.requests, 16).sum() > 0
    assert counts["asked"] == place.requests.prompt.sum() and counts["dropped"] == 0


@pytest.mark.parametrize("kind", ["chunked", "prefill_first"])
def test_prompts_are_found_or_computed_and_nothing_else(kind: str) -> None:
    for capacity in (400, 900):
        tiers = (Tier(200, 1e-4), Tier(300, 1e-3))
        cost = step_cost(capacity=capacity)
        place = world(5, 160, 25.0, policies()[kind], cost=cost, caching=Caching(evict.Lru(), tiers))
        report = run(place, by_step=False).reports[0]
        counts = report["prefixes"]
        found = 16 * (counts["device"] + counts["cpu"] + counts["ssd"])
        lost = counts["asked"] - found - report["sums"][4]
        assert lost >= 0 and (lost == 0 or report["preemptions"] > 0), "a prompt evicted half way was not computed"


def test_an_iteration_waits_for_the_first_layer_and_for_what_its_work_does_not_hide() -> None:
    def waits(seconds: float) -> float:
        found = requests([0.0, 50.0, 100.0], [801, 700, 801], [2, 2, 2], parent=[-1, -1, 0], prefix=[0, 0, 800])
        place = world(0, 3, 1.0, policies()["chunked"], cost=step_cost(capacity=60, layer_share=0.25, host_step=0.0))
        place.requests, place.caching = found, Caching(evict.Lru(), (Tier(1000, seconds),))
        return float(run(place, by_step=False)[1][2] - 100.0)

    plain = waits(0.0)
    assert waits(1e-7) - plain == pytest.approx(0.25 * 40 * 1e-7, rel=0.3)
    slow = waits(1.0)
    blocks = round((slow - waits(0.5)) / (0.5 * 1.25))
    assert 20 < blocks <= 50, "some of the first prompt's blocks had gone down, and came back"
    assert slow == pytest.approx(blocks * 1.25, abs=2e-4), "the work itself is hidden, but for the host's"


class Broken:
    kind = "broken"
    offline = False

    def rank(self, view: evict.View) -> float:
        raise ZeroDivisionError("no rank")


def test_a_rule_that_fails_says_so_from_the_compiled_loop() -> None:
    place = world(5, 60, 25.0, policies()["chunked"], cost=step_cost(capacity=300), caching=Caching(Broken(), ()))
    with pytest.raises(PolicyError, match=r"Broken\.rank failed: no rank"):
        run(place, by_step=False)
    assert counted([]) == {"device": 0, "cpu": 0, "ssd": 0, "asked": 0, "dropped": 0}


CHAT: dict[str, Any] = {
    "fleet": {"devices": "1x h100-sxm", "ssd": "6 GB/s"},
    "workload": {
        "model": "llama-3.1-8b", "arrivals": {"kind": "poisson", "rate": 6.0, "requests": 400},
        "lengths": {"kind": "lognormal", "prompt": 700, "prompt_p90": 1500, "output": 120, "output_p90": 240},
        "sessions": {"turns": 6, "think": "30 s", "system": 300},
    },
    "plan": {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1},
}  # fmt: skip


def outcome(plan: dict[str, Any], **changes: Any) -> Any:
    state = setting(load(CHAT | {"plan": CHAT["plan"] | plan} | changes))
    return simulate(state, complete(state, state.scenario.plan))


def test_a_prefix_cache_spares_work_and_time_and_says_how_much() -> None:
    off, on = outcome({"prefix_cache": "off"}), outcome({})
    assert on.plan["prefix_cache"] == {"kind": "lru"}, "the engine's default, where prompts share anything"
    assert "cached" not in off.metrics and on.metrics["cached"] > 0.5
    assert on.metrics["ttft"]["mean"] < off.metrics["ttft"]["mean"]
    assert on.metrics["mfu"] < off.metrics["mfu"] and on.metrics["energy"] < off.metrics["energy"]
    assert sum(on.breakdown["prompts"].values()) == pytest.approx(on.metrics["prompt_tokens"])


def test_without_common_prompts_nothing_changes() -> None:
    workload = {k: v for k, v in CHAT["workload"].items() if k != "sessions"}
    plain, asked = outcome({}, workload=workload), outcome({"prefix_cache": "lru"}, workload=workload)
    assert "prefix_cache" not in plain.plan or plain.plan["prefix_cache"] is None
    assert plain.metrics == asked.metrics and any("finds nothing" in note for note in asked.notes)


@pytest.mark.parametrize(
    ("plan", "fleet", "path", "words"),
    [
        ({"prefix_cache": "lruu"}, {}, "plan.prefix_cache.kind", "unknown"),
        ({"prefix_cache": {"kind": "lru", "cpu": -1}}, {}, "plan.prefix_cache.cpu", "range"),
        ({"prefix_cache": {"kind": "lru", "cpu": "9000 PB"}}, {}, "plan.prefix_cache.cpu", "range"),
        ({"prefix_cache": {"kind": "off", "cpu": "1 GB"}}, {}, "plan.prefix_cache.cpu", "off"),
        ({"prefix_cache": {"kind": "lru", "sdd": "1 GB"}}, {}, "plan.prefix_cache.sdd", "Did you mean 'ssd'"),
        ({"prefix_cache": {"kind": "lru", "ssd": "1 TB"}}, {"ssd": None}, "plan.prefix_cache.ssd", "speed"),
        ({"prefix_cache": "lru", "memory": "swap"}, {}, "plan.prefix_cache", "swap"),
    ],
)  # fmt: skip
def test_caches_that_cannot_be(plan: dict[str, Any], fleet: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(SpecError) as told:
        outcome(plan, fleet={k: v for k, v in (CHAT["fleet"] | fleet).items() if v is not None})
    assert told.value.path == path and words in str(told.value)
