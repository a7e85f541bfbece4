"""The hot loop of the serving world: one replica under continuous batching, advanced from event to event.

Between two events a batch repeats the same iteration while every context grows by one token, so an iteration's time
is affine in its index and k of them sum in closed form: ``k v + s k(k-1)/2``. A *segment* is the longest such run
up to the next thing that changes inside (a finish, a full cache, a roof crossing, a window filling up); an arrival
cuts it at the first boundary at or after it. ``stepwise`` makes every segment one iteration: the same times.

A request's ``output`` is its first token and the passes that follow. Where a pass checks drafted tokens
(`cost.drafted`) it processes ``width`` tokens a sequence and its context grows by ``growth``, both in parts of a token,
``unit`` to one; contexts of decoding requests are whole numbers of those parts, so counts stay exact.

Plain Python that Cython compiles where there is a compiler (lists become buffers, everything else is the same code).
What it does not know: models, devices, prices. All of that is in the tables it is given (`cost.step.StepCost`).

More than 400 lines: it is one state machine, and compiled classes call each other at C speed only within a module.
"""

from __future__ import annotations

import heapq
from array import array
from typing import Any

from fleetcast.kernels.shim import slotted

try:
    import cython
except ImportError:
    from fleetcast.kernels import shim as cython

INF = float("inf")
EXACT = 1024
"""Token counts up to here have a table entry each."""
STRIDE = 64
"""Beyond, one knot every so many tokens, linear between."""


def column(code: str, values: Any) -> Any:
    """Returns a column the kernel can index: a buffer when compiled, a list when not (faster there).

    Takes a sequence of numbers or a numpy array of any dtype; an ``array`` is used as it is, not copied.
    """
    if not cython.compiled:
        return values.tolist() if hasattr(values, "tolist") else list(values)
    if isinstance(values, array):
        return values
    if hasattr(values, "astype"):
        return array(code, values.astype({"d": "f8", "i": "i4", "q": "i8"}[code]).tobytes())
    return array(code, values)


def zeros(code: str, size: int, value: int = 0) -> Any:
    """Returns a column of ``size`` equal values."""
    if cython.compiled:
        return array(code, [value]) * size
    return [float(value) if code == "d" else value] * size


@cython.cfunc
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def _at(table: cython.double[::1], last: cython.Py_ssize_t, tokens: cython.longlong) -> cython.double:
    """Reads a table at a token count: exact to 1,024, then linear between knots and beyond the last."""
    if tokens <= EXACT:
        return table[tokens]
    over: cython.longlong = tokens - EXACT
    i: cython.longlong = over // STRIDE
    if i > last - 1 - EXACT:
        i = last - 1 - EXACT
    x: cython.double = (over - i * STRIDE) / float(STRIDE)
    low: cython.double = table[EXACT + i]
    return low + (table[EXACT + i + 1] - low) * x


@cython.cfunc
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def _deposit(
    table: cython.double[::1],
    last: cython.Py_ssize_t,
    tokens: cython.longlong,
    weight: cython.double,
) -> cython.void:
    """Adds ``weight`` at a token count so that a dot product with a table equals the sum of `_at`."""
    if tokens <= EXACT:
        table[tokens] += weight
        return
    over: cython.longlong = tokens - EXACT
    i: cython.longlong = over // STRIDE
    if i > last - 1 - EXACT:
        i = last - 1 - EXACT
    x: cython.double = (over - i * STRIDE) / float(STRIDE)
    table[EXACT + i] += weight * (1.0 - x)
    table[EXACT + i + 1] += weight * x


@cython.cfunc
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def _heap_push(heap: cython.longlong[::1], size: cython.Py_ssize_t, key: cython.longlong) -> cython.void:
    if cython.compiled:
        i: cython.Py_ssize_t = size
        up: cython.Py_ssize_t
        while i > 0:
            up = (i - 1) >> 1
            if heap[up] <= key:
                break
            heap[i] = heap[up]
            i = up
        heap[i] = key
    else:
        heapq.heappush(heap, key)


@cython.cfunc
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def _heap_pop(heap: cython.longlong[::1], size: cython.Py_ssize_t) -> cython.void:
    """Removes the least key; ``size`` is the size before."""
    if cython.compiled:
        last: cython.longlong = heap[size - 1]
        n: cython.Py_ssize_t = size - 1
        i: cython.Py_ssize_t = 0
        child: cython.Py_ssize_t = 1
        while child < n:
            if child + 1 < n and heap[child + 1] < heap[child]:
                child += 1
            if last <= heap[child]:
                break
            heap[i] = heap[child]
            i = child
            child = 2 * i + 1
        if n > 0:
            heap[i] = last
    else:
        heapq.heappop(heap)


@cython.cfunc
@cython.exceptval(check=False)
@cython.cdivision(True)
def _steps_within(v: cython.double, s: cython.double, span: cython.double) -> cython.longlong:
    """Returns the least k >= 1 with ``k v + s k(k-1)/2 >= span``."""
    k: cython.longlong
    if span <= v:
        return 1
    b: cython.double = v - 0.5 * s
    k = int(2.0 * span / (b + (b * b + 2.0 * s * span) ** 0.5))
    if k < 1:
        k = 1
    while k > 1 and (k - 1) * v + s * (0.5 * (k - 1) * (k - 2)) >= span:
        k -= 1
    while k * v + s * (0.5 * k * (k - 1)) < span:
        k += 1
    return k


@cython.cfunc
@cython.exceptval(check=False)
def _stall(fetch: cython.double, v: cython.double, layer: cython.double) -> cython.double:
    """Returns what bringing cache up layer by layer adds to ``v`` s of work: the first layer's, and what is longer."""
    return layer * fetch + (fetch - v if fetch > v else 0.0)


def _joined(tables: dict, name: str) -> Any:
    """Returns a table of decode attention and, behind it, that of iterations cut into nano-batches, if there is one."""
    cut = tables.get(f"cut_{name}")
    return tables[name].tolist() + ([] if cut is None else cut.tolist())


@cython.cclass
class Costs:
    """The numbers of a `StepCost`, as the hot loop reads them."""

    dense: cython.double[::1]
    experts: cython.double[::1]
    work: cython.double[::1]
    head: cython.double[::1]
    hop: cython.double[::1]
    floor: cython.double[::1]
    base: cython.double[::1]
    slope: cython.double[::1]
    last: cython.Py_ssize_t
    full_share: cython.double
    window_share: cython.double
    window: cython.longlong
    pre_base: cython.double
    pre_pair: cython.double
    pre_query: cython.double
    pre_context: cython.double
    host_step: cython.double
    host_seq: cython.double
    host_token: cython.double
    overlap: cython.bint
    stages: cython.longlong
    stage_share: cython.double
    ranks: cython.longlong
    capacity: cython.longlong
    block: cython.longlong
    watermark: cython.longlong
    swap_block: cython.double
    eager: cython.double
    graph_tokens: cython.longlong
    graph_prefill: cython.bint
    lag: cython.bint
    cut: cython.longlong
    shift: cython.longlong
    unit: cython.longlong
    growth: cython.longlong
    width: cython.longlong
    offset: cython.longlong
    page: cython.longlong
    edge: cython.longlong
    draft: cython.double[::1]
    drafts: cython.bint
    layer: cython.double

    def __init__(self, tables: dict, scalars: dict) -> None:
        """Takes the tables (f8 arrays) and the scalars by name."""
        self.dense = column("d", tables["dense"])
        self.experts = column("d", tables["experts"])
        self.work = column("d", tables["dense"] + tables["experts"])
        self.head = column("d", tables["head"])
        self.hop = column("d", tables["hop"])
        self.floor = column("d", _joined(tables, "floor"))
        self.base = column("d", _joined(tables, "base"))
        self.slope = column("d", [x / scalars["unit"] for x in _joined(tables, "slope")])
        self.last = len(tables["dense"]) - 1
        self.full_share = scalars["full_share"]
        self.window_share = scalars["window_share"]
        self.window = scalars["window"]
        self.pre_base = scalars["pre_base"]
        self.pre_pair = scalars["pre_pair"]
        self.pre_query = scalars["pre_query"]
        self.pre_context = scalars["pre_context"]
        self.host_step = scalars["host_step"]
        self.host_seq = scalars["host_seq"]
        self.host_token = scalars["host_token"]
        self.overlap = scalars["overlap"]
        self.stages = scalars["stages"]
        self.stage_share = scalars["stage_share"]
        self.ranks = scalars["ranks"]
        self.capacity = scalars["capacity"]
        self.block = scalars["block"]
        self.watermark = scalars["watermark"]
        self.swap_block = scalars["swap_block"]
        self.eager = scalars["eager"]
        self.graph_tokens = scalars["graph_tokens"]
        self.graph_prefill = scalars["graph_prefill"]
        self.lag = scalars["lag"]
        self.cut = scalars["cut"]
        self.shift = len(tables["floor"])
        self.unit = scalars["unit"]
        self.growth = scalars["growth"]
        self.width = scalars["width"]
        self.offset = self.unit * (1 + scalars["ahead"]) - self.growth
        self.page = self.block * self.unit
        self.edge = self.window * self.unit
        self.drafts = "draft" in tables
        self.draft = column("d", tables["draft"] if self.drafts else tables["floor"])
        self.layer = scalars["layer_share"]


@cython.cclass
class Requests:
    """Columns shared by all replicas, indexed by request."""

    arrival: cython.double[::1]
    prompt: cython.int[::1]
    output: cython.int[::1]
    first: cython.double[::1]
    finish: cython.double[::1]
    emitted: cython.int[::1]
    admitted: cython.int[::1]
    following: cython.int[::1]
    ends: cython.longlong[::1]
    joined: cython.double[::1]
    leaves: cython.int[::1]

    def __init__(self, arrival: Any, prompt: Any, output: Any) -> None:
        """Takes arrival (s, f8[n]), prompt and output (tokens, i4[n])."""
        n = len(arrival)
        self.arrival = column("d", arrival)
        self.prompt = column("i", prompt)
        self.output = column("i", output)
        self.first = zeros("d", n, -1)
        self.finish = zeros("d", n, -1)
        self.emitted = zeros("i", n)
        self.admitted = zeros("i", n)
        self.following = zeros("i", n)
        self.ends = zeros("q", n)
        self.joined = self.arrival  # where requests move between replicas: when each joined the line it is in
        self.leaves = zeros("i", 0)  # and whether it moves on after its first token (1) or brings its cache (2)

    def moving(self) -> None:
        """Makes room for requests that move from one replica to another after their first token."""
        self.joined = zeros("d", len(self.arrival))
        self.leaves = zeros("i", len(self.arrival))

    def times(self) -> tuple:
        """Returns the columns (arrival, first token, finish), s; a closed loop sets the arrivals."""
        return self.arrival, self.first, self.finish


@cython.cclass
class Lane:
    """One scheduler: its waiting line, its running batch and its share of the KV cache."""

    head: cython.longlong
    tail: cython.longlong
    resumed: cython.longlong
    queue: cython.longlong[::1]
    queued: cython.Py_ssize_t
    heap: cython.longlong[::1]
    n: cython.longlong
    turns: cython.longlong[::1]
    turning: cython.Py_ssize_t
    it: cython.longlong
    full: cython.longlong
    windowed: cython.longlong
    growing: cython.longlong
    phases: cython.longlong[::1]
    whole: cython.longlong
    worst: cython.longlong
    held: cython.longlong
    part: cython.longlong
    part_left: cython.longlong
    part_done: cython.longlong
    load: cython.longlong
    ids: cython.int[::1]
    done: cython.int[::1]
    count: cython.Py_ssize_t
    tokens: cython.longlong
    emits: cython.longlong
    attention: cython.double
    extra: cython.double
    decodes: cython.longlong
    open: cython.bint
    free: cython.bint
    late: cython.bint
    cache: Any
    shared: cython.longlong
    fetch: cython.double

    def __init__(self, max_batch: int, page: int, waiting: int, cache: Any) -> None:
        """Makes an empty lane.

        ``waiting`` is the room of the ranked queue (0 = first come, first served), ``cache`` a
        `prefixes.PrefixCache` or None.
        """
        self.cache = cache
        self.shared = 0
        self.fetch = 0.0
        self.head = self.tail = self.resumed = -1
        self.n = self.it = self.full = self.windowed = self.growing = 0
        self.whole = self.worst = self.held = self.part_left = self.part_done = self.load = 0
        self.part = -1
        self.queued = self.turning = self.count = 0
        self.tokens = self.emits = self.decodes = 0
        self.attention = self.extra = 0.0
        self.open = self.free = True
        self.late = False
        if cython.compiled:
            self.heap = zeros("q", max_batch + 1)
            self.turns = zeros("q", 4 * max_batch + 64)
            self.queue = zeros("q", waiting + 1)
        else:
            self.heap, self.turns, self.queue = [], [], []
        self.phases = zeros("q", page)
        self.ids = zeros("i", max_batch + 2)
        self.done = zeros("i", max_batch + 2)


@cython.cclass
class Replica:
    """One copy of the model: pipeline lanes x attention-DP ranks that step together.

    Attributes a driver reads: ``end`` (when the segment under way ends, inf when idle), ``load`` (requests waiting
    and running), ``completed``, ``now``.
    """

    costs: Costs
    requests: Requests
    output: cython.int[::1]
    lanes: list
    only: Lane
    single: cython.bint
    width: cython.Py_ssize_t
    max_batch: cython.longlong
    budget: cython.longlong
    mixed: cython.bint
    split: cython.bint
    refill: cython.bint
    reserve: cython.bint
    shortest: cython.bint
    swapping: cython.bint
    stepwise: cython.bint
    now: cython.double
    end: cython.double
    before: cython.double
    steps: cython.longlong
    v: cython.double
    s: cython.double
    until: cython.double
    pure: cython.bint
    moving: cython.bint
    awaiting: cython.longlong
    handed: list
    load: cython.longlong
    completed: cython.longlong
    preemptions: cython.longlong
    peak_running: cython.longlong
    limited: cython.bint
    truncated: cython.bint
    admissions: cython.int
    busy: cython.double
    iterations: cython.longlong
    attention: cython.double
    attention_slope: cython.double
    host: cython.double
    host_slope: cython.double
    swap: cython.double
    hist: cython.double[::1]
    hist_rank: cython.double[::1]
    hist_head: cython.double[::1]
    sums: cython.double[::1]
    log: Any

    def __init__(
        self, costs: Costs, requests: Requests, rule: tuple, *, shortest: bool = False, swapping: bool = False,
        stepwise: bool = False, record: bool = False, output: Any = None, caches: Any = None,
    ) -> None:  # fmt: skip
        """Makes an idle replica.

        ``rule`` is a `policy.batch.Rule`, ``output`` (i4[n]) passes instead of tokens, ``caches`` a
        `prefixes.PrefixCache` per lane.
        """
        self.costs, self.requests = costs, requests
        self.output = requests.output if output is None else column("i", output)
        self.max_batch, self.budget, self.mixed, self.split, self.refill, self.reserve = rule
        self.shortest, self.swapping, self.stepwise = shortest, swapping, stepwise
        waiting = len(requests.arrival) if shortest else 0
        self.width = costs.stages * costs.ranks
        caches = [None] * self.width if caches is None else caches
        self.lanes = [Lane(self.max_batch, costs.page, waiting, cache) for cache in caches]
        self.only = self.lanes[0]
        self.single = self.width == 1
        self.now, self.end, self.before = 0.0, INF, 0.0
        self.steps, self.v, self.s, self.until, self.pure = 0, 0.0, 0.0, INF, False
        self.moving = len(requests.leaves) > 0
        self.awaiting = 0
        self.handed = []
        self.load = self.completed = self.preemptions = self.peak_running = 0
        self.limited = self.truncated = False
        self.admissions, self.busy, self.iterations = 0, 0.0, 0
        self.attention = self.attention_slope = self.host = self.host_slope = self.swap = 0.0
        self.hist = zeros("d", costs.last + 1)
        self.hist_rank = zeros("d", costs.last + 1) if costs.ranks > 1 else self.hist
        self.hist_head = zeros("d", costs.last + 1)
        self.sums = zeros("d", 9)
        self.log = [] if record else None

    # What a driver calls ----------------------------------------------------------------------------------------

    @cython.ccall
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def push(self, r: cython.longlong, t: cython.double) -> cython.void:
        """A request arrives at ``t``, at most ``end``: it joins a line, and cuts the segment if it may enter.

        One that brings its cache along (`Requests.leaves` = 2) decodes once it is admitted, before prompts that wait.
        """
        lane: Lane = self.only
        other: Lane
        last: cython.longlong
        enters: cython.bint
        if self.moving:
            self.requests.joined[r] = t
            if self.requests.leaves[r] != 2:
                self.awaiting += self.requests.prompt[r]
        if not self.single:
            for other in self.lanes:
                if other.load < lane.load:
                    lane = other
        lane.load += 1
        self.load += 1
        enters = lane.open
        if not lane.free:
            self.limited = True  # it waits for a finish, and the segment may end in one before anybody asks
        if self.moving and self.requests.leaves[r] == 2:
            enters = lane.free and lane.resumed < 0
            self.requests.following[r] = -1
            if lane.resumed < 0:
                lane.resumed = r
            else:
                last = lane.resumed
                while self.requests.following[last] >= 0:
                    last = self.requests.following[last]
                self.requests.following[last] = r
        elif self.shortest:
            key: cython.longlong = self.requests.prompt[r]
            _heap_push(lane.queue, lane.queued, (key << 32) | r)
            lane.queued += 1
        else:
            self.requests.following[r] = -1
            if lane.head < 0:
                lane.head = r
            else:
                self.requests.following[lane.tail] = r
            lane.tail = r
        if self.end == INF:
            self.now = self.end = self.before = t
            self.steps = 0
        elif enters and self.steps > 1:
            k: cython.longlong = _steps_within(self.v, self.s, t - self.now)
            if k < self.steps:
                self.steps = k
                self.end = self.now + (k * self.v + self.s * (0.5 * k * (k - 1)))

    @cython.ccall
    def commit(self) -> cython.void:
        """Ends the segment under way: tokens come out, requests finish, the next segment begins."""
        if self.single:
            self._turn()
            return
        if self.steps > 0:
            self._settle()
        self._begin()

    def fail(self, t: cython.double) -> list:
        """Everything here is lost at ``t``, at most ``end``; returns (request, passes it had made here), in order.

        The iteration under way counts as done, but nothing comes out of it: no token, no finish. First tokens that came
        out before stay in `Requests.first` until another attempt writes its own over them.
        """
        req: Requests = self.requests
        lane: Lane
        r: cython.longlong
        k: cython.longlong
        completed: cython.longlong = self.completed
        here: set = set()
        for lane in self.lanes:
            here.update([key & 0xFFFFFFFF for key in list(lane.heap[: lane.n])])
            here.update([key & 0xFFFFFFFF for key in list(lane.queue[: lane.queued])])
            here.update(list(lane.ids[: lane.count]))
            for r in (lane.part, lane.resumed, lane.head):
                while r >= 0:
                    here.add(r)
                    r = req.following[r] if r != lane.part else -1
        before = [(r, req.first[r], req.finish[r]) for r in sorted(here)]
        if self.steps > 0:
            k = _steps_within(self.v, self.s, t - self.now)
            if k < self.steps:
                self.steps = k
                self.end = self.now + (k * self.v + self.s * (0.5 * k * (k - 1)))
            self._settle()
        made = {r: self.output[r] if req.finish[r] != finish else req.emitted[r] for r, _, finish in before}
        for lane in self.lanes:
            for key in list(lane.heap[: lane.n]):
                r = key & 0xFFFFFFFF
                made[r] = self.output[r] - ((key >> 32) - lane.it)
        for r, first, finish in before:
            req.first[r], req.finish[r] = first, finish
            req.emitted[r] = 0
            req.ends[r] = 0
        waiting = len(req.arrival) if self.shortest else 0
        caches = [lane.cache for lane in self.lanes]
        for cache in caches:
            if cache is not None:
                cache.clear()
        self.lanes = [Lane(self.max_batch, self.costs.page, waiting, cache) for cache in caches]
        self.only = self.lanes[0]
        self.load, self.awaiting, self.completed, self.steps, self.end = 0, 0, completed, 0, INF
        return [(r, made[r]) for r, _, _ in before]

    def state(self) -> tuple[float, int]:
        """Returns (when the segment under way ends (s), requests waiting and running)."""
        return self.end, self.load

    def report(self) -> dict:
        """Returns counters, sums and histograms of all that has been run.

        ``sums``: full and windowed context tokens read by decodes, prefill pairs, prefill reach, prompt tokens
        processed, then seconds of attention (drafts included), of host time not hidden, of swaps and of drafts.
        ``hist`` counts iterations by tokens (table grid), ``hist_rank`` by the fullest attention-DP rank,
        ``hist_head`` by tokens that come out.
        """
        sums = list(self.sums)
        sums[0] /= self.costs.unit
        sums[1] /= self.costs.unit
        return {
            "iterations": self.iterations, "busy": self.busy, "completed": self.completed,
            "preemptions": self.preemptions, "peak_running": self.peak_running,
            "limited": bool(self.limited), "truncated": bool(self.truncated), "log": self.log,
            "hist": self.hist, "hist_rank": self.hist_rank, "hist_head": self.hist_head,
            "sums": sums,
        }  # fmt: skip

    @cython.ccall
    def used(self) -> cython.longlong:
        """Returns the KV blocks in use, all lanes together."""
        total: cython.longlong = 0
        lane: Lane
        for lane in self.lanes:
            total += self._used(lane) + lane.held - lane.shared
        return total

    # Tokens and contexts ----------------------------------------------------------------------------------------

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.cdivision(True)
    def _tokens(self, c: Costs, n: cython.longlong) -> cython.longlong:
        """Returns the tokens that a pass of ``n`` decoding sequences processes."""
        if c.unit == 1:
            return n
        return (n * c.width + c.unit - 1) // c.unit

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _reach(self, r: cython.longlong, emitted: cython.longlong) -> cython.longlong:
        """Returns the context that a request's next pass attends to after ``emitted`` passes, in units."""
        return self.costs.unit * self.requests.prompt[r] + self.costs.offset + self.costs.growth * emitted

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _need(self, r: cython.longlong) -> cython.longlong:
        """Returns the tokens to prefill before a request decodes."""
        c: Costs = self.costs
        emitted: cython.longlong = self.requests.emitted[r]
        if c.unit == 1 or emitted == 0:
            return self.requests.prompt[r] + emitted
        return self.requests.prompt[r] + 1 + (c.growth * (emitted - 1) + c.unit - 1) // c.unit

    # Ending a segment -------------------------------------------------------------------------------------------

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _settle(self) -> cython.void:
        k: cython.longlong = self.steps
        half: cython.double = 0.5 * k * (k - 1)
        c: Costs = self.costs
        lane: Lane
        sums: cython.double[::1] = self.sums
        if self.log is not None:
            self._note(self.end - self.now)
        self.busy += self.end - self.now
        self.iterations += k
        if c.lag:
            self.before = self.now + ((k - 1) * self.v + self.s * (0.5 * (k - 1) * (k - 2)))
        self.now = self.end
        sums[5] += k * self.attention + self.attention_slope * half
        sums[6] += k * self.host + self.host_slope * half
        if self.swap > 0.0:
            sums[7] += self.swap
        self._deposit_all(k)
        if c.drafts:
            most: cython.longlong = 0
            for lane in self.lanes:
                if lane.decodes > most:
                    most = lane.decodes
            sums[8] += k * c.draft[most]
        for lane in self.lanes:
            self._settle_lane(c, lane, k, half)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _deposit_all(self, k: cython.longlong) -> cython.void:
        """Counts the iterations by tokens, per pipeline lane."""
        c: Costs = self.costs
        lane: Lane
        tokens: cython.longlong
        most: cython.longlong
        emits: cython.longlong
        n: cython.longlong
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        for j in range(c.stages):
            tokens = most = emits = 0
            for i in range(c.ranks):
                lane = self.lanes[j * c.ranks + i]
                n = self._tokens(c, lane.decodes)
                tokens += n + lane.tokens
                if n + lane.tokens > most:
                    most = n + lane.tokens
                if n + lane.emits > emits:
                    emits = n + lane.emits
            if tokens > 0:
                _deposit(self.hist, c.last, tokens, k)
                _deposit(self.hist_head, c.last, emits, k)
                if c.ranks > 1:
                    _deposit(self.hist_rank, c.last, most, k)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _settle_lane(self, c: Costs, lane: Lane, k: cython.longlong, half: cython.double) -> cython.void:
        req: Requests = self.requests
        r: cython.longlong
        key: cython.longlong
        ctx: cython.longlong
        twice: cython.bint
        i: cython.Py_ssize_t
        n: cython.longlong = lane.decodes
        if lane.cache is not None:
            # what has grown up to here took its place from what nobody uses, before that which finishes now is idle
            lane.it += k - 1
            lane.cache.trim(c.capacity + lane.shared - lane.held - self._used(lane))
            lane.it -= k - 1
        if n > 0:
            lane.it += k
            self.sums[0] += k * lane.full + half * n * c.growth
            lane.full += k * n * c.growth
            if c.window_share > 0.0:
                self.sums[1] += k * lane.windowed + half * lane.growing * c.growth
                lane.windowed += k * lane.growing * c.growth
                key = -1
                while lane.turning > 0 and (lane.turns[0] >> 32) <= lane.it:
                    twice = lane.turns[0] == key  # evicted, and back after one iteration: it turns when it would have
                    key = lane.turns[0]
                    r = key & 0xFFFFFFFF
                    _heap_pop(lane.turns, lane.turning)
                    lane.turning -= 1
                    if twice:
                        continue
                    ctx = self._reach(r, self.output[r] - (req.ends[r] - lane.it))
                    if req.ends[r] >= lane.it and c.edge <= ctx < c.edge + c.growth:
                        lane.growing -= 1
                        lane.windowed -= ctx - c.edge
            while lane.n > 0:
                key = lane.heap[0]
                if (key >> 32) > lane.it:
                    break
                r = key & 0xFFFFFFFF
                _heap_pop(lane.heap, lane.n)
                self._leave(lane, self._reach(r, self.output[r]), True)
                self._release(lane, r)
        for i in range(lane.count):
            r = lane.ids[i]
            if lane.done[i]:
                self._join(lane, r)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _join(self, lane: Lane, r: cython.longlong) -> cython.void:
        """A prefill is complete: its token comes out, and the request decodes from the next iteration on."""
        req: Requests = self.requests
        emitted: cython.longlong = req.emitted[r]
        if not self.reserve:
            lane.held -= self._hold(r)
        if lane.cache is not None:
            lane.cache.store(r, self._need(r), self.now)
            lane.shared = lane.cache.shared
        if emitted == 0:
            req.first[r] = self.now
            if self.moving:
                self.awaiting -= req.prompt[r]
                if req.leaves[r] == 1:
                    self._hand_on(lane, r)
                    return
        req.emitted[r] = emitted + 1
        if emitted + 1 >= self.output[r]:
            self._release(lane, r)
            return
        self._enter(lane, r)

    @cython.cfunc
    def _hand_on(self, lane: Lane, r: cython.longlong) -> cython.void:
        """A request leaves for another replica with its first token."""
        full: cython.longlong = self._claim(r)
        if lane.cache is not None:
            lane.cache.release(r, self.requests.prompt[r], self.now)
            lane.shared = lane.cache.shared
        self.requests.leaves[r] = 0
        self.requests.emitted[r] = 1
        lane.worst -= full
        if self.reserve:
            lane.held -= full
        lane.load -= 1
        self.load -= 1
        self.handed.append(r)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _claim(self, r: cython.longlong) -> cython.longlong:
        """Returns the blocks that a request needs here at most: those of its whole length, or up to its first token."""
        output: cython.longlong = self.output[r]
        if self.moving and self.requests.leaves[r] == 1:
            output = 1
        return (self._reach(r, output) + self.costs.page - 1) // self.costs.page

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _enter(self, lane: Lane, r: cython.longlong) -> cython.void:
        """Puts a request among the decoding; its next step attends to prompt + emitted tokens."""
        req: Requests = self.requests
        c: Costs = self.costs
        ctx: cython.longlong = self._reach(r, req.emitted[r])
        end: cython.longlong = lane.it + self.output[r] - req.emitted[r]
        b: cython.longlong = c.page
        at: cython.longlong = lane.it * c.growth
        phase: cython.longlong
        turn: cython.longlong
        req.ends[r] = end
        _heap_push(lane.heap, lane.n, (end << 32) | r)
        lane.n += 1
        lane.full += ctx
        if c.window_share > 0.0:
            if ctx < c.edge:
                lane.windowed += ctx
                lane.growing += 1
                turn = lane.it + (c.edge - ctx + c.growth - 1) // c.growth
                if turn < end:
                    if cython.compiled and lane.turning >= lane.turns.shape[0]:
                        self._compact(lane)
                    _heap_push(lane.turns, lane.turning, (turn << 32) | r)
                    lane.turning += 1
            else:
                lane.windowed += c.edge
        if not self.reserve:
            phase = (ctx + b - at % b) % b
            lane.phases[phase] += 1
            lane.whole += (ctx - at - phase) // b

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _compact(self, lane: Lane) -> cython.void:
        """Drops the window entries of requests that were evicted; live ones are at most the batch."""
        kept: list = []
        c: Costs = self.costs
        i: cython.Py_ssize_t
        r: cython.longlong
        ctx: cython.longlong
        for i in range(lane.turning):
            r = lane.turns[i] & 0xFFFFFFFF
            ctx = self._reach(r, self.output[r] - (self.requests.ends[r] - (lane.turns[i] >> 32)))
            if self.requests.ends[r] >= lane.it and c.edge <= ctx < c.edge + c.growth:
                kept.append(lane.turns[i])
        lane.turning = 0
        for key in sorted(set(kept)):
            lane.turns[lane.turning] = key
            lane.turning += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _leave(self, lane: Lane, ctx: cython.longlong, finished: cython.bint) -> cython.void:
        """Takes a request out of the decoding ones; ``ctx`` is what its next step would attend to."""
        c: Costs = self.costs
        b: cython.longlong = c.page
        at: cython.longlong = lane.it * c.growth
        phase: cython.longlong
        lane.n -= 1
        lane.full -= ctx
        if c.window_share > 0.0:
            if ctx < c.edge or (finished and ctx - c.growth < c.edge):
                lane.windowed -= ctx  # where it ends just as its window fills no turn was noted for it
                lane.growing -= 1
            else:
                lane.windowed -= c.edge
        if not self.reserve:
            phase = (ctx + b - at % b) % b
            lane.phases[phase] -= 1
            lane.whole -= (ctx - at - phase) // b

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _release(self, lane: Lane, r: cython.longlong) -> cython.void:
        req: Requests = self.requests
        full: cython.longlong = self._claim(r)
        if lane.cache is not None:
            req.emitted[r] = self.output[r]
            lane.cache.release(r, self._need(r) - 1, self.now)
            lane.shared = lane.cache.shared
        req.finish[r] = self.now
        req.ends[r] = -1
        lane.worst -= full
        if self.reserve:
            lane.held -= full
        lane.load -= 1
        self.load -= 1
        self.completed += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.cdivision(True)
    def _pages(self, units: cython.longlong) -> cython.longlong:
        return (units + self.costs.page - 1) // self.costs.page

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _hold(self, r: cython.longlong) -> cython.longlong:
        """Returns the blocks that a request holds while it is prefilled: never fewer than it was evicted from."""
        emitted: cython.longlong = self.requests.emitted[r]
        if emitted == 0:
            return (self.requests.prompt[r] + self.costs.block - 1) // self.costs.block
        return self._pages(self._reach(r, emitted))

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _used(self, lane: Lane) -> cython.longlong:
        """Blocks of the decoding requests in the next step: sum of ceil(context / block)."""
        return self._used_at(lane, lane.it)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _used_at(self, lane: Lane, it: cython.longlong) -> cython.longlong:
        b: cython.longlong = self.costs.page
        at: cython.longlong = it * self.costs.growth
        w: cython.longlong = at % b
        total: cython.longlong = lane.whole + lane.n * (at // b + 1)
        i: cython.longlong
        if self.reserve:
            return 0
        if w == 0:
            return total - lane.phases[0]
        for i in range(b - w + 1, b):
            total += lane.phases[i]
        return total

    # Beginning a segment ----------------------------------------------------------------------------------------

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _begin(self) -> cython.void:
        lane: Lane
        c: Costs = self.costs
        work: cython.longlong = 0
        k: cython.longlong = 1
        self.pure = True
        for lane in self.lanes:
            self._compose(c, lane)
            work += lane.decodes + lane.count
            if lane.count > 0 or lane.extra != 0.0 or lane.late:
                self.pure = False
        if work == 0:
            self.end = INF
            self.steps = 0
            return
        self._time()
        if self.pure and not self.stepwise:
            k = 1 << 60
            if self.until < 1e15:
                k = int(self.until) + 1
            for lane in self.lanes:
                if lane.decodes > 0:
                    k = self._quiet(lane, k)
        self.steps = k
        self.end = self.now + (k * self.v + self.s * (0.5 * k * (k - 1)))

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _quiet(self, lane: Lane, k: cython.longlong) -> cython.longlong:
        """Returns how many of the next ``k`` decode steps pass before something changes inside this lane."""
        room: cython.longlong
        cap: cython.longlong = self.costs.capacity + lane.shared
        span: cython.longlong = (lane.heap[0] >> 32) - lane.it
        if span < k:
            k = span
        if lane.turning > 0:
            span = (lane.turns[0] >> 32) - lane.it
            if span < k:
                k = span if span > 0 else 1
        if lane.worst > cap and k > 1 and not self.reserve:
            cap -= lane.held
            if self._used_at(lane, lane.it + k - 1) > cap:
                # used grows by at most n a block of growth: jump there, then walk at most two blocks
                room = (cap - self._used(lane)) // lane.n * self.costs.page // self.costs.growth
                span = room + 1 if room > 0 else 1
                while span < k and self._used_at(lane, lane.it + span) <= cap:
                    span += 1
                k = span
        return k

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _compose(self, c: Costs, lane: Lane) -> cython.void:
        """Decides the next iteration of a lane: `policy.batch.fill`, `policy.order` and `policy.memory` applied."""
        req: Requests = self.requests
        budget: cython.longlong = self.budget
        running: cython.longlong
        room: cython.longlong
        r: cython.longlong
        need: cython.longlong
        blocks: cython.longlong
        full: cython.longlong
        hit: cython.longlong = 0
        busy: cython.longlong = 0
        found: Any = None
        evicted: cython.bint = False
        lagging: cython.bint
        lane.count = 0
        lane.tokens = lane.emits = 0
        lane.attention = lane.extra = lane.fetch = 0.0
        lane.late = False
        if (
            lane.head < 0
            and lane.part < 0
            and lane.resumed < 0
            and lane.queued == 0
            and (lane.worst <= c.capacity or self.reserve)
        ):
            lane.decodes = lane.n  # nobody to admit and nobody to evict: decode on
            lane.free = lane.n < self.max_batch
            lane.open = lane.free and (self.refill or lane.n == 0)
            return
        if self.mixed and lane.n > 0 and lane.worst > c.capacity and self._over(c, lane):
            self._make_room(lane)
            evicted = True
        if lane.cache is not None:
            lane.cache.trim(c.capacity + lane.shared - lane.held - self._used(lane))
        if lane.resumed >= 0 and not evicted:
            self._bring_back(c, lane)
        if self.mixed:
            budget -= self._tokens(c, lane.n)
        running = lane.n
        lagging = c.lag and (running > 0 or lane.part >= 0)
        if lane.part >= 0:
            running += 1
            if budget > 0:
                need = lane.part_left
                if need > budget:
                    need = budget
                    self.truncated = True
                self._prefill(lane, lane.part, need, lane.part_done, need == lane.part_left)
                budget -= need
                lane.part_done += need
                lane.part_left -= need
                if lane.part_left == 0:
                    lane.part = -1
        lane.free = running < self.max_batch
        lane.open = lane.free and (self.refill or running == 0)
        if not evicted and (self.refill or running == 0):
            while True:
                r = lane.resumed
                if r < 0:
                    r = lane.head
                    if self.shortest and lane.queued > 0:
                        r = lane.queue[0] & 0xFFFFFFFF
                if r < 0:
                    break
                if lane.resumed >= 0 and self._cached(r):
                    break  # there is no room for it, or it stands behind a prompt: next time
                if lagging and lane.resumed < 0 and req.joined[r] > self.before:
                    lane.late = running < self.max_batch
                    break
                if running >= self.max_batch:
                    self.limited = True
                    break
                if budget <= 0:
                    self.truncated = True
                    break
                need = self._need(r)
                full = self._claim(r)
                blocks = full if self.reserve else self._hold(r)
                if lane.cache is not None:
                    found = lane.cache.find(r, need)
                    hit, busy = found.blocks * c.block, found.busy
                    need -= hit
                if running > 0 and lane.worst + full > c.capacity - c.watermark:
                    room = c.capacity - c.watermark + lane.shared - lane.held - self._used(lane)
                    if blocks - busy > room:
                        break
                if need > budget:
                    self.truncated = True
                    if not self.split and lane.count > 0:
                        break
                self._admit(lane, r, full)
                lane.held += blocks
                running += 1
                if lane.cache is not None:
                    lane.cache.admit(r, found, need + hit)
                    lane.shared = lane.cache.shared
                    lane.fetch += found.seconds
                if need <= budget or not self.split:
                    self._prefill(lane, r, need, hit, True)
                    budget -= need
                else:
                    self._prefill(lane, r, budget, hit, False)
                    lane.part, lane.part_done, lane.part_left = r, hit + budget, need - budget
                    budget = 0
            lane.free = running < self.max_batch
            lane.open = (
                lane.free and (self.refill or running == 0) and (self.shortest or (lane.resumed < 0 and lane.head < 0))
            )
        elif not self.shortest and (lane.resumed >= 0 or lane.head >= 0):
            lane.open = False
        if running > self.peak_running:
            self.peak_running = running
        if self.mixed:
            lane.decodes = lane.n
        elif lane.count > 0:
            lane.decodes = 0
        else:
            if lane.n > 0 and lane.worst > c.capacity and self._over(c, lane):
                self._make_room(lane)
                lane.open = False
            lane.decodes = lane.n

    @cython.cfunc
    @cython.exceptval(check=False)
    def _over(self, c: Costs, lane: Lane) -> cython.bint:
        """Whether the next step needs more blocks than there are."""
        return self._used(lane) + lane.held - lane.shared > c.capacity

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _cached(self, r: cython.longlong) -> cython.bint:
        """Whether a request that comes back need not be prefilled: it was swapped out, or carried from elsewhere."""
        if self.moving and self.requests.leaves[r] == 2:
            return True
        return self.swapping and self.requests.emitted[r] > 0

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _bring_back(self, c: Costs, lane: Lane) -> cython.void:
        """Takes requests that have a cache into the batch, in order and while they fit; they decode at once."""
        req: Requests = self.requests
        r: cython.longlong
        full: cython.longlong
        blocks: cython.longlong
        present: cython.longlong
        room: cython.longlong
        carried: cython.bint
        while lane.resumed >= 0 and self._cached(lane.resumed):
            r = lane.resumed
            carried = self.moving and req.leaves[r] == 2
            present = lane.n + (lane.part >= 0)
            if present >= self.max_batch:
                self.limited = True
                return
            full = self._claim(r)
            blocks = full if self.reserve else self._hold(r)
            room = c.capacity - c.watermark
            if present > 0 and lane.worst + full > room and blocks > room + lane.shared - lane.held - self._used(lane):
                return
            if carried and c.lag and present > 0 and req.joined[r] > self.before:
                lane.late = True
                return
            if carried:
                req.leaves[r] = 0
            else:
                lane.extra += c.swap_block * blocks
            self._admit(lane, r, full)
            if self.reserve:
                lane.held += full
            self._enter(lane, r)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _admit(self, lane: Lane, r: cython.longlong, full: cython.longlong) -> cython.void:
        """Takes the next request off its line."""
        if lane.resumed >= 0:
            lane.resumed = self.requests.following[r]
        elif self.shortest:
            _heap_pop(lane.queue, lane.queued)
            lane.queued -= 1
        else:
            lane.head = self.requests.following[r]
        lane.worst += full
        self.admissions += 1
        self.requests.admitted[r] = self.admissions

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _prefill(
        self,
        lane: Lane,
        r: cython.longlong,
        q: cython.longlong,
        cached: cython.longlong,
        last: cython.bint,
    ) -> cython.void:
        """Adds a prompt, or a piece of one, to the iteration."""
        c: Costs = self.costs
        pairs: cython.double = q * (cached + 0.5 * (q + 1))
        reach: cython.double = cached + q
        ramp: cython.longlong
        if c.window_share > 0.0 and cached + q > c.window:
            # pairs of a window: each token attends to min(position, window)
            ramp = c.window - cached if cached < c.window else 0
            pairs = c.full_share * pairs + c.window_share * (ramp * (cached + 0.5 * (ramp + 1)) + (q - ramp) * c.window)
            reach = c.full_share * reach + c.window_share * (q + (c.window if cached >= c.window else cached))
        lane.ids[lane.count] = r
        lane.done[lane.count] = last
        lane.count += 1
        lane.tokens += q
        lane.emits += last
        lane.attention += c.pre_base + c.pre_pair * pairs + c.pre_query * q + c.pre_context * reach
        self.sums[2] += pairs
        self.sums[3] += reach
        self.sums[4] += q

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _make_room(self, lane: Lane) -> cython.void:
        """Evicts the newest requests until the next decode step fits."""
        req: Requests = self.requests
        c: Costs = self.costs
        i: cython.Py_ssize_t
        newest: cython.Py_ssize_t
        r: cython.longlong
        ctx: cython.longlong
        while self._over(c, lane):
            if lane.part >= 0:
                r = lane.part
                lane.part = -1
                lane.held -= self._hold(r)
                if lane.cache is not None:
                    lane.cache.release(r, lane.part_done, self.now)
            elif lane.n > 1:
                newest = 0
                for i in range(1, lane.n):
                    if req.admitted[lane.heap[i] & 0xFFFFFFFF] > req.admitted[lane.heap[newest] & 0xFFFFFFFF]:
                        newest = i
                r = lane.heap[newest] & 0xFFFFFFFF
                req.emitted[r] = self.output[r] - (req.ends[r] - lane.it)
                ctx = self._reach(r, req.emitted[r])
                if self.swapping:
                    lane.extra += c.swap_block * self._pages(ctx)
                self._remove(lane, newest)
                self._leave(lane, ctx, False)
                req.ends[r] = -1
                if lane.cache is not None:
                    lane.cache.release(r, self._need(r) - 1, self.now)
            else:
                return
            if lane.cache is not None:
                lane.shared = lane.cache.shared
                lane.late = True  # what others hold of it may let it come back at once
            lane.worst -= self._claim(r)
            req.following[r] = lane.resumed
            lane.resumed = r
            self.preemptions += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _remove(self, lane: Lane, i: cython.Py_ssize_t) -> cython.void:
        """Takes entry ``i`` out of the heap of finishes."""
        if cython.compiled:
            last: cython.longlong = lane.heap[lane.n - 1]
            n: cython.Py_ssize_t = lane.n - 1
            if i == n:
                return
            gone: cython.longlong = lane.heap[i]
            lane.heap[i] = last
            if last < gone:
                _heap_push(lane.heap, i, last)
                return
            child: cython.Py_ssize_t = 2 * i + 1
            while child < n:
                if child + 1 < n and lane.heap[child + 1] < lane.heap[child]:
                    child += 1
                if last <= lane.heap[child]:
                    break
                lane.heap[i] = lane.heap[child]
                i = child
                child = 2 * i + 1
            lane.heap[i] = last
        else:
            lane.heap[i] = lane.heap[-1]
            lane.heap.pop()
            heapq.heapify(lane.heap)

    # One lane: nine of ten simulations of a search are this, so it is written out -----------------------------------

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _turn(self) -> cython.void:
        """`_settle`, `_begin` and `_time` for one lane."""
        k: cython.longlong = self.steps
        i: cython.longlong
        n: cython.longlong
        tokens: cython.longlong
        emits: cython.longlong
        half: cython.double
        affine: cython.double
        host: cython.double
        v: cython.double = 0.0
        s: cython.double = 0.0
        until: cython.double = 1e18
        c: Costs = self.costs
        lane: Lane = self.only
        sums: cython.double[::1] = self.sums
        if k > 0:
            half = 0.5 * k * (k - 1)
            if self.log is not None:
                self._note(self.end - self.now)
            self.busy += self.end - self.now
            self.iterations += k
            if c.lag:
                self.before = self.now + ((k - 1) * self.v + self.s * (0.5 * (k - 1) * (k - 2)))
            self.now = self.end
            sums[5] += k * self.attention + self.attention_slope * half
            sums[6] += k * self.host + self.host_slope * half
            if self.swap > 0.0:
                sums[7] += self.swap
            n = self._tokens(c, lane.decodes)
            tokens = n + lane.tokens
            emits = n + lane.emits
            if c.drafts:
                sums[8] += k * c.draft[lane.decodes]
            if tokens <= EXACT:
                self.hist[tokens] += k
                self.hist_head[emits] += k
            else:
                _deposit(self.hist, c.last, tokens, k)
                _deposit(self.hist_head, c.last, emits, k)
            self._settle_lane(c, lane, k, half)
        self._compose(c, lane)
        if lane.decodes + lane.count == 0:
            self.end = INF
            self.steps = 0
            return
        n = lane.decodes
        tokens = self._tokens(c, n)
        emits = tokens + lane.emits
        tokens += lane.tokens
        host = c.host_step + c.host_seq * (n + lane.count) + c.host_token * tokens
        if n > 0:
            i = n + c.shift if tokens >= c.cut else n
            v = c.floor[i]
            affine = c.base[i]
            s = c.slope[i]
            if c.window_share > 0.0:
                affine += s * (c.full_share * lane.full + c.window_share * lane.windowed)
                s *= (c.full_share * n + c.window_share * lane.growing) * c.growth
            else:
                affine += s * lane.full
                s *= n * c.growth
            if affine >= v:
                v = affine
            else:
                if s > 0.0:
                    until = (v - affine) / s
                s = 0.0
        v += lane.attention
        self.attention = v
        self.attention_slope = s
        if tokens <= EXACT:
            v += c.work[tokens] + c.head[emits]
        else:
            v += _at(c.work, c.last, tokens)
            v += c.head[emits] if emits <= EXACT else _at(c.head, c.last, emits)
        if lane.fetch > 0.0:
            lane.extra += _stall(lane.fetch, self._launched(v, tokens, lane.count), c.layer)
        self.swap = lane.extra
        if (lane.count > 0 and not c.graph_prefill) or tokens > c.graph_tokens:
            self.v = v
            self.s = s
            self.until = until
            self._finish_time(host, tokens, lane.count)
            v = self.v
            s = self.s
            until = self.until
        elif not c.overlap:
            self.host = host
            self.host_slope = 0.0
            v += host + lane.extra
        elif host > v:
            self.host = host - v
            self.host_slope = -s
            if s > 0.0 and (host - v) / s < until:
                until = (host - v) / s
            v = host + lane.extra
            s = 0.0
        else:
            self.host = 0.0
            self.host_slope = 0.0
            v += lane.extra
        self.v = v
        self.s = s
        if lane.count > 0 or lane.extra != 0.0 or lane.late or self.stepwise:
            self.steps = 1
            self.end = self.now + v
            return
        k = (lane.heap[0] >> 32) - lane.it
        if until < k - 1:
            k = int(until) + 1
        if lane.turning > 0 or lane.worst > c.capacity:
            k = self._quiet(lane, k)
        self.steps = k
        self.end = self.now + (k * v + s * (0.5 * k * (k - 1)))

    # How long an iteration takes --------------------------------------------------------------------------------

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _max(self, v: cython.double, s: cython.double) -> cython.void:
        """Takes the larger of (self.v, self.s) and (v, s) now, and notes when the other overtakes."""
        x: cython.double
        if v > self.v or (v == self.v and s > self.s):
            v, self.v = self.v, v
            s, self.s = self.s, s
        if s > self.s:
            x = (self.v - v) / (s - self.s)
            if x < self.until:
                self.until = x

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cdivision(True)
    def _time(self) -> cython.void:
        """Sets ``v + s k``, the time of iteration k of several lanes, valid for k up to ``until``."""
        c: Costs = self.costs
        lane: Lane = self.only
        n: cython.longlong
        tokens: cython.longlong
        emits: cython.longlong
        most: cython.longlong
        total: cython.longlong = 0
        swap: cython.double
        work: cython.double
        head: cython.double
        best_v: cython.double
        best_s: cython.double
        sum_v: cython.double
        sum_s: cython.double
        host: cython.double
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        self.until = 1e18
        best_v = best_s = sum_v = sum_s = 0.0
        self.attention = self.attention_slope = 0.0
        for j in range(c.stages):
            self.v, self.s = 0.0, 0.0
            tokens = emits = most = 0
            for i in range(c.ranks):
                lane = self.lanes[j * c.ranks + i]
                n = self._tokens(c, lane.decodes)
                tokens += n + lane.tokens
                if n + lane.tokens > most:
                    most = n + lane.tokens
                if n + lane.emits > emits:
                    emits = n + lane.emits
                total += lane.decodes + lane.count
                self._rank(c, lane)
            if tokens == 0:
                continue
            self.attention += self.v
            self.attention_slope += self.s
            head = _at(c.head, c.last, emits)
            work = _at(c.dense, c.last, most) + _at(c.experts, c.last, tokens)
            sum_v += (self.v + work) * c.stage_share + head
            sum_s += self.s * c.stage_share
            host = self.v
            self.v = best_v
            work += host + head + (c.stages - 1) * _at(c.hop, c.last, most)
            host = self.s
            self.s = best_s
            self._max(work, host)
            best_v, best_s = self.v, self.s
        self.v, self.s = best_v, best_s
        if c.stages > 1:
            self._max(sum_v, sum_s)
        tokens = emits = 0
        for lane in self.lanes:
            tokens += self._tokens(c, lane.decodes) + lane.tokens
            emits += lane.count
        self.swap = 0.0
        for i in range(c.ranks):  # a rank's devices hold the cache of all its pipeline lanes, behind one host link
            swap = work = 0.0
            for j in range(c.stages):
                lane = self.lanes[j * c.ranks + i]
                swap += lane.extra
                work += lane.fetch
            if work > 0.0:
                swap += _stall(work, self._launched(self.v, tokens // (c.ranks * c.stages), emits), c.layer)
            if swap > self.swap:
                self.swap = swap
        host = c.host_step + c.host_seq * total / c.ranks + c.host_token * tokens / c.ranks
        self._finish_time(host, tokens // (c.ranks * c.stages), emits)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _eager(self, tokens: cython.longlong, prefills: cython.longlong) -> cython.bint:
        """Whether no captured graph covers an iteration."""
        return (prefills > 0 and not self.costs.graph_prefill) or tokens > self.costs.graph_tokens

    @cython.cfunc
    @cython.exceptval(check=False)
    def _launched(
        self, v: cython.double, tokens: cython.longlong, prefills: cython.longlong
    ) -> cython.double:  # fmt: skip
        """Returns the device's time of an iteration, its launches included."""
        return self.costs.eager if v < self.costs.eager and self._eager(tokens, prefills) else v

    @cython.cfunc
    @cython.exceptval(check=False)
    def _finish_time(self, host: cython.double, tokens: cython.longlong, prefills: cython.longlong) -> cython.void:
        """Adds the host's part and swaps, and notes what of the host is not hidden.

        An iteration that no captured graph covers is launched kernel by kernel: at least ``eager`` s.
        """
        v: cython.double = self.v
        s: cython.double = self.s
        if self._eager(tokens, prefills):
            self._max(self.costs.eager, 0.0)
        if self.costs.overlap:
            self._max(host, 0.0)
        else:
            self.v += host
        self.host = self.v - v
        self.host_slope = self.s - s
        self.v += self.swap

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _rank(self, c: Costs, lane: Lane) -> cython.void:
        """Raises (v, s) to the attention of one rank: its decodes' piece plus its prefills."""
        i: cython.longlong
        n: cython.longlong = lane.decodes
        v: cython.double = self.v
        s: cython.double = self.s
        self.v, self.s = 0.0, 0.0
        if n > 0:
            i = n + c.shift if n + lane.tokens >= c.cut else n
            self.v = c.floor[i]
            self._max(
                c.base[i] + c.slope[i] * (c.full_share * lane.full + c.window_share * lane.windowed),
                c.slope[i] * (c.full_share * n + c.window_share * lane.growing) * c.growth,
            )
        self.v += lane.attention
        self._max(v, s)

    # What happened ----------------------------------------------------------------------------------------------

    @cython.cfunc
    def _note(self, duration: cython.double) -> cython.void:
        decodes: cython.longlong = 0
        entering: cython.longlong = 0
        lane: Lane
        for lane in self.lanes:
            decodes += lane.decodes
            entering += lane.count
        what = 0 if entering == 0 else (1 if decodes == 0 else 2)
        self.log.append((self.now, duration, what, self.steps, decodes + entering, self.used()))


if not cython.compiled:
    for _class in (Costs, Requests, Lane, Replica):
        globals()[_class.__name__] = slotted(_class)

# Drivers: what makes requests arrive ----------------------------------------------------------------------------


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
def drive(replica: Replica, ids: cython.int[::1]) -> None:
    """Runs one replica on the requests ``ids`` (ascending arrivals) until all have finished.

    At equal times an arrival comes before an iteration's end, so it may enter the next one.
    """
    r: cython.int
    i: cython.Py_ssize_t
    t: cython.double
    arrival: cython.double[::1] = replica.requests.arrival
    for i in range(len(ids)):
        r = ids[i]
        t = arrival[r]
        while replica.end < t:
            replica.commit()
        replica.push(r, t)
    while replica.end < INF:
        replica.commit()


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def drive_least_loaded(replicas: list, weights: cython.double[::1], where: cython.int[::1]) -> None:
    """Runs replicas under `policy.route.LeastLoaded`; writes each request's replica to ``where``."""
    replica: Replica
    best: Replica
    r: cython.Py_ssize_t
    i: cython.Py_ssize_t
    pick: cython.Py_ssize_t
    t: cython.double
    cost: cython.double
    least: cython.double
    columns: Requests = cython.cast(Replica, replicas[0]).requests
    for r in range(len(where)):
        t = columns.arrival[r]
        least = INF
        pick = 0
        best = replicas[0]
        for i in range(len(replicas)):
            replica = replicas[i]
            while replica.end < t:
                replica.commit()
            cost = (replica.load + 1) / weights[i]
            if cost < least:
                least = cost
                pick = i
                best = replica
        where[r] = pick
        best.push(r, t)
    for replica in replicas:
        while replica.end < INF:
            replica.commit()


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
def drive_closed(
    replicas: list,
    weights: cython.double[::1],
    where: cython.int[::1],
    users: cython.int,
    least: cython.bint,
    pause: cython.double[::1],
) -> None:
    """Runs a closed loop: ``users`` requests start at their arrivals; each answer releases the next one.

    Request r comes ``pause[r]`` s after the answer that released it. ``least`` routes to the least loaded replica;
    otherwise ``where`` already holds each request's replica.
    """
    replica: Replica
    first: Replica
    total: cython.Py_ssize_t = len(where)
    starting: cython.Py_ssize_t = users if users < total else total
    started: cython.Py_ssize_t = 0
    due: cython.Py_ssize_t = starting
    start: cython.double
    release: cython.double
    before: cython.longlong
    coming: list = []
    columns: Requests = cython.cast(Replica, replicas[0]).requests
    while True:  # `coming` holds the released requests on their way, the next one first
        first = replicas[0]
        for replica in replicas:
            if replica.end < first.end:
                first = replica
        start = columns.arrival[started] if started < starting else INF
        release = coming[0][0] if coming else INF
        if start < INF and start <= first.end and start <= release:
            _send(replicas, weights, where, started, start, least)
            started += 1
        elif release < INF and release <= first.end:
            _send(replicas, weights, where, heapq.heappop(coming)[1], release, least)
        elif first.end == INF:
            return
        else:
            before = first.completed
            first.commit()
            for _i in range(first.completed - before):
                if due < total:
                    columns.arrival[due] = first.now + pause[due]
                    heapq.heappush(coming, (columns.arrival[due], due))
                    due += 1


@cython.cfunc
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def _send(
    replicas: list, weights: cython.double[::1], where: cython.int[::1], r: cython.Py_ssize_t, t: cython.double,
    least: cython.bint,
) -> cython.void:  # fmt: skip
    replica: Replica
    i: cython.Py_ssize_t
    best: cython.Py_ssize_t = 0
    if least:
        for i in range(1, len(replicas)):
            replica = replicas[i]
            if (replica.load + 1) / weights[i] < (cython.cast(Replica, replicas[best]).load + 1) / weights[best]:
                best = i
        where[r] = best
    replica = replicas[where[r]]
    replica.push(r, t)


@cython.ccall
def drive_split(
    replicas: list, roles: list, weights: list, where: cython.int[::1], began: cython.int[::1], link: list,
    users: cython.int, pause: list, spill: cython.double,
) -> None:  # fmt: skip
    """Runs replicas of which some prefill and others decode, under `policy.route.SplitPhases`.

    Args:
        replicas: all of them; their requests are `Requests.moving`.
        roles: per replica 1 = prefill, 2 = decode, 0 = both.
        weights: relative speed of each.
        where: receives the replica that each request ends in.
        began: receives the replica that makes its first token.
        link: per replica a row of (s per prompt token, s, share that is left when the prefill ends) to each other.
        users: of a closed loop; 0 = requests arrive by the clock.
        pause: s from an answer to the next request of a closed loop.
        spill: prompt tokens waiting per prefill replica beyond which decode replicas prefill too.
    """
    columns: Requests = cython.cast(Replica, replicas[0]).requests
    replica: Replica
    first: Replica
    total: cython.Py_ssize_t = len(where)
    started: cython.Py_ssize_t = 0
    starting: cython.Py_ssize_t = total if users == 0 or users > total else users
    due: cython.Py_ssize_t = starting
    released: list = []
    moving: list = []
    begun: cython.double
    before: cython.longlong
    count: cython.Py_ssize_t = len(replicas)
    flying: list = [0] * count
    free: list = [0.0] * count  # when the link out of each replica has sent what it has to send
    i: cython.Py_ssize_t
    r: cython.Py_ssize_t
    while True:
        first = replicas[0]
        source = 0
        for i in range(1, count):
            replica = replicas[i]
            if replica.end < first.end:
                first, source = replica, i
        start = columns.arrival[started] if started < starting else INF
        release = released[0][0] if released else INF
        come = moving[0][0] if moving else INF
        soonest = min(start, release, come)
        if soonest == INF and first.end == INF:
            return
        if soonest > first.end:
            begun, before = first.now, first.completed
            first.commit()
            for _i in range(first.completed - before):
                if due < total:
                    columns.arrival[due] = first.now + pause[due]
                    heapq.heappush(released, (columns.arrival[due], due))
                    due += 1
            for r in first.handed:
                target = _decoder(replicas, roles, weights, flying)
                slope, fixed, left = link[source][target]
                size = slope * columns.prompt[r]
                if left < 1.0:  # layers left as they were ready: what has not gone yet, at least the last layer
                    size = max(size * left, size - (first.now - begun))
                free[source] = max(free[source], first.now) + size
                flying[target] += 1
                heapq.heappush(moving, (free[source] + fixed, r, target))
            first.handed = []
            continue
        if come <= start and come <= release:
            _, r, target = heapq.heappop(moving)
            flying[target] -= 1
            where[r] = target
            columns.leaves[r] = 2
            cython.cast(Replica, replicas[target]).push(r, come)
            continue
        if start <= release:
            r = started
            started += 1
        else:
            r = heapq.heappop(released)[1]
        target = _prefiller(replicas, roles, weights, columns.prompt[r], spill)
        where[r] = began[r] = target
        columns.leaves[r] = roles[target] == 1 and columns.output[r] > 1
        cython.cast(Replica, replicas[target]).push(r, soonest)


@cython.cfunc
def _prefiller(replicas: list, roles: list, weights: list, prompt: cython.longlong, spill: cython.double) -> int:
    """Returns the replica with the least prompt tokens waiting per speed; a decoding one only beyond the spill."""
    best, least = -1, INF
    any_, shortest = 0, INF
    for i in range(len(replicas)):
        line = (cython.cast(Replica, replicas[i]).awaiting + prompt) / weights[i]
        if line < shortest:
            any_, shortest = i, line
        if roles[i] != 2 and line < least:
            best, least = i, line
    if best < 0 or (spill and least > spill + prompt / weights[best]):
        return any_
    return best


@cython.cfunc
def _decoder(replicas: list, roles: list, weights: list, flying: list) -> int:
    """Returns the decoding replica with the fewest requests per speed, those on their way included."""
    best, least = -1, INF
    for i in range(len(replicas)):
        if roles[i] != 1:
            load = (cython.cast(Replica, replicas[i]).load + flying[i] + 1) / weights[i]
            if load < least:
                best, least = i, load
    return best
