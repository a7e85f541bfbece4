"""HEFT with messages that hold channels: the loop (Topcuoglu, Hariri and Wu, 2002; contention after Sinnen, 2005).

Tasks come by falling rank. Each goes to the worker that ends it first: its data are sent, parents that end first first,
each message as soon as both of its channels are free behind all messages decided before; the task takes the first gap
between tasks decided before that is long enough, or the end.

What makes it quick, with the same result: a worker is left out where even data that meet no other message could not end
the task sooner than the best found so far; gaps too short for any task of a kind of worker are forgotten; gaps are
walked from the last one back, only as far as one could still be of use.

A file of plain Python that Cython compiles where there is a compiler; without one, columns are lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    import cython
except ImportError:
    from fleetcast.kernels import shim as cython

COMPILED = cython.compiled
_TYPES = {"d": "f8", "i": "i4", "q": "i8"}


def column(code: str, values: Any) -> Any:
    """Returns a column the loop is quick on: a memoryview where it is compiled, else a list."""
    if not COMPILED:
        return np.asarray(values, _TYPES[code]).tolist()
    return memoryview(np.require(values, dtype=_TYPES[code], requirements=("C", "W")))  # type: ignore[arg-type]


def _some(values: Any) -> Any:
    """Returns a column that is not empty: a buffer of no length has no address."""
    return values if len(values) else np.zeros(1)


def heft(graph: dict[str, Any], platform: dict[str, Any], order: Any, ahead: Any = None) -> dict[str, Any]:
    """Returns where and when each task runs, and every message, in the order decided.

    Args:
        graph: begin i8[n + 1], edge i4[m] (edges by child), tail i4[m], size f8[m], datum i4[m], need f8[n] (bytes of
            memory), inputs f8[n] (bytes from home).
        platform: kind i4[W], node i4[W], seconds f8[K, n], memory f8[W], latency and rate f8[W, W], channels
            i4[W, W, 2], home.
        order: i4[n], tasks by falling rank.
        ahead: f8[K, n], s that a kind of worker adds to a task's end when workers are compared; None = nothing.

    Returns:
        worker i4[n], start f8[n], finish f8[n]; of messages: edge i4 (m + task of what comes from home), source i4,
        target i4, begin f8, end f8.
    """
    n, m, workers = len(order), len(graph["tail"]), len(platform["kind"])
    apart = platform["node"][:, None] != platform["node"][None, :]
    least = float(platform["latency"][apart].min()) if apart.any() else 0.0
    widest = float(platform["rate"][apart].max()) if apart.any() else np.inf
    most = m + (int(np.count_nonzero(graph["inputs"])) if platform["home"] >= 0 else 0)
    widest_in = int(np.diff(graph["begin"]).max()) + 1 if n else 1
    data = int(graph["datum"].max()) + 1 if m else 0
    shared = data < m
    out = {
        "worker": column("i", np.full(n, -1)), "start": column("d", np.zeros(n)), "finish": column("d", np.zeros(n)),
        "edge": column("i", np.zeros(most + 1)), "source": column("i", np.zeros(most + 1)),
        "target": column("i", np.zeros(most + 1)), "begin": column("d", np.zeros(most + 1)),
        "end": column("d", np.zeros(most + 1)),
    }  # fmt: skip
    columns = [
        column("d", np.zeros(1) if ahead is None else ahead.ravel()),
        column("i", order), column("q", graph["begin"]), column("i", _some(graph["edge"])),
        column("i", _some(graph["tail"])), column("d", _some(graph["size"])), column("i", _some(graph["datum"])),
        column("d", graph["need"]), column("d", graph["inputs"]), column("i", platform["kind"]),
        column("i", platform["node"]), column("d", platform["seconds"].ravel()), column("d", platform["memory"]),
        column("d", platform["latency"].ravel()), column("d", platform["rate"].ravel()),
        column("i", platform["channels"][:, :, 0].ravel()), column("i", platform["channels"][:, :, 1].ravel()),
        column("d", platform["seconds"].min(axis=1)), column("d", np.zeros(int(platform["channels"].max()) + 2)),
        column("i", np.full((data if shared else 0) + 1, -1)), column("i", np.full(most + 1, -1)),
        column("d", np.zeros(workers)), column("d", np.full(workers, -1.0)), column("q", np.full(workers, -1)),
        column("d", np.zeros(n + 1)), column("d", np.zeros(n + 1)), column("q", np.full(n + 1, -1)),
        column("q", np.full(n + 1, -1)), column("i", np.zeros(widest_in)), column("i", np.zeros(widest_in)),
        column("d", np.zeros(widest_in)), column("q", np.full(int(platform["node"].max()) + 1, -1)),
        column("i", np.zeros(2 * widest_in)),
        column("d", np.zeros(2 * widest_in)),
    ]  # fmt: skip
    sent = _heft(n, m, workers, platform["home"], shared, ahead is not None, least, widest, *columns, *out.values())
    made = {key: np.asarray(values, _TYPES["d" if key in ("start", "finish", "begin", "end") else "i"])
            for key, values in out.items()}  # fmt: skip
    return {k: v if k in ("worker", "start", "finish") else v[:sent] for k, v in made.items()}


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def _heft(
    n: cython.Py_ssize_t, m: cython.Py_ssize_t, workers: cython.Py_ssize_t, home: cython.int, shared: cython.bint,
    looks: cython.bint, least: cython.double, widest: cython.double, ahead: cython.double[::1],
    order: cython.int[::1], into: cython.longlong[::1], edges: cython.int[::1], tail: cython.int[::1],
    size: cython.double[::1], datum: cython.int[::1], need: cython.double[::1], inputs: cython.double[::1],
    kind: cython.int[::1], node: cython.int[::1], seconds: cython.double[::1], memory: cython.double[::1],
    latency: cython.double[::1], rate: cython.double[::1], out_of: cython.int[::1], in_to: cython.int[::1],
    shortest: cython.double[::1], free: cython.double[::1],
    copies: cython.int[::1], another: cython.int[::1],
    ends: cython.double[::1], longest: cython.double[::1], last: cython.longlong[::1],
    gap_begin: cython.double[::1], gap_end: cython.double[::1], before: cython.longlong[::1],
    behind: cython.longlong[::1],
    from_edge: cython.int[::1], from_worker: cython.int[::1], from_time: cython.double[::1],
    host: cython.longlong[::1], old_channel: cython.int[::1], old_free: cython.double[::1],
    worker: cython.int[::1], start: cython.double[::1], finish: cython.double[::1],
    sent_edge: cython.int[::1], sent_from: cython.int[::1], sent_to: cython.int[::1],
    sent_begin: cython.double[::1], sent_end: cython.double[::1],
) -> cython.Py_ssize_t:  # fmt: skip
    step: cython.Py_ssize_t
    task: cython.Py_ssize_t
    i: cython.Py_ssize_t
    j: cython.Py_ssize_t
    k: cython.Py_ssize_t
    e: cython.Py_ssize_t
    d: cython.Py_ssize_t
    first: cython.Py_ssize_t
    parents: cython.Py_ssize_t
    best_worker: cython.Py_ssize_t
    best_gap: cython.Py_ssize_t
    slot: cython.Py_ssize_t
    g: cython.Py_ssize_t
    gaps: cython.Py_ssize_t = 0
    sent: cython.Py_ssize_t = 0
    undo: cython.Py_ssize_t
    s: cython.Py_ssize_t
    pair: cython.Py_ssize_t
    copy: cython.Py_ssize_t
    a: cython.Py_ssize_t
    b: cython.Py_ssize_t
    mine: cython.Py_ssize_t
    best: cython.double
    best_start: cython.double
    best_end: cython.double
    extra: cython.double
    latest: cython.double
    far: cython.double
    when: cython.double
    takes: cython.double
    ready: cython.double
    at: cython.double
    until: cython.double
    low: cython.double
    bytes_: cython.double
    infinite: cython.double = float("inf")
    sorted_: cython.bint
    for step in range(n):
        task = order[step]
        parents = 0
        latest = 0.0
        far = 0.0
        first = -1
        sorted_ = True
        for i in range(into[task], into[task + 1]):
            e = edges[i]
            s = tail[e]
            when = finish[s]
            from_edge[parents] = e
            from_time[parents] = when
            s = worker[s]
            from_worker[parents] = s
            host[node[s]] = step
            parents += 1
            if when >= latest:
                latest = when
                first = s
            else:
                sorted_ = False
            if not shared or copies[datum[e]] < 0:
                when = when + (least + size[e] / widest)
            if when > far:
                far = when
        if not sorted_:
            for i in range(1, parents):
                when = from_time[i]
                e = from_edge[i]
                s = from_worker[i]
                j = i
                while j > 0 and from_time[j - 1] > when:
                    from_time[j] = from_time[j - 1]
                    from_edge[j] = from_edge[j - 1]
                    from_worker[j] = from_worker[j - 1]
                    j -= 1
                from_time[j] = when
                from_edge[j] = e
                from_worker[j] = s
        if home >= 0 and inputs[task] > 0.0:
            host[node[home]] = step
            when = least + inputs[task] / widest
            if when > far:
                far = when
        best = infinite
        best_start = 0.0
        best_end = 0.0
        best_worker = -1
        best_gap = -1
        for k in range(-1, workers):
            if k < 0:
                if first < 0:
                    continue
                d = first
            else:
                d = k
                if d == first:
                    continue
            takes = seconds[kind[d] * n + task]
            extra = ahead[kind[d] * n + task] if looks else 0.0
            low = latest if host[node[d]] == step else far
            if takes > longest[d] and ends[d] > low:
                low = ends[d]
            if low + takes + extra > best or takes == infinite or need[task] > memory[d]:
                continue
            # its data
            mine = node[d]
            ready = latest if parents else 0.0
            undo = 0
            for i in range(parents + 1):
                if i < parents:
                    s = from_worker[i]
                    if node[s] == mine:
                        continue
                    e = from_edge[i]
                    at = from_time[i]
                    bytes_ = size[e]
                    if shared:
                        copy = copies[datum[e]]
                        while copy >= 0 and node[sent_to[copy]] != mine:
                            copy = another[copy]
                        if copy >= 0:
                            if sent_end[copy] > ready:
                                ready = sent_end[copy]
                            continue
                else:
                    if home < 0 or inputs[task] == 0.0 or node[home] == mine:
                        continue
                    s = home
                    at = 0.0
                    bytes_ = inputs[task]
                pair = s * workers + d
                a = out_of[pair]
                b = in_to[pair]
                if a >= 0 and free[a] > at:
                    at = free[a]
                if b >= 0 and free[b] > at:
                    at = free[b]
                at = at + (latency[pair] + bytes_ / rate[pair])
                if a >= 0:
                    old_channel[undo] = a
                    old_free[undo] = free[a]
                    undo += 1
                    free[a] = at
                if b >= 0 and b != a:
                    old_channel[undo] = b
                    old_free[undo] = free[b]
                    undo += 1
                    free[b] = at
                if at > ready:
                    ready = at
                    if ready + takes + extra > best:
                        break
            while undo > 0:
                undo -= 1
                free[old_channel[undo]] = old_free[undo]
            until = ready + takes
            if until + extra > best:
                continue
            # its place
            at = ends[d] if ends[d] > ready else ready
            slot = -1
            if takes <= longest[d]:
                g = last[d]
                while g >= 0 and gap_end[g] >= until:
                    when = gap_begin[g] if gap_begin[g] > ready else ready
                    if when + takes <= gap_end[g]:
                        at = when
                        slot = g
                    g = before[g]
            until = at + takes
            if until + extra < best or (until + extra == best and d < best_worker):
                best = until + extra
                best_end = until
                best_start = at
                best_worker = d
                best_gap = slot
        d = best_worker
        if d < 0:
            return -1
        worker[task] = d
        start[task] = best_start
        finish[task] = best_end
        # the messages, this time for good: the walk above again, which must leave nothing behind and so keeps no rows
        mine = node[d]
        for i in range(parents + 1):
            if i < parents:
                s = from_worker[i]
                if node[s] == mine:
                    continue
                e = from_edge[i]
                at = from_time[i]
                bytes_ = size[e]
                if shared:
                    copy = copies[datum[e]]
                    while copy >= 0 and node[sent_to[copy]] != mine:
                        copy = another[copy]
                    if copy >= 0:
                        continue
                    another[sent] = copies[datum[e]]
                    copies[datum[e]] = sent
            else:
                if home < 0 or inputs[task] == 0.0 or node[home] == mine:
                    continue
                s = home
                e = m + task
                at = 0.0
                bytes_ = inputs[task]
            pair = s * workers + d
            a = out_of[pair]
            b = in_to[pair]
            if a >= 0 and free[a] > at:
                at = free[a]
            if b >= 0 and free[b] > at:
                at = free[b]
            sent_edge[sent] = e
            sent_from[sent] = s
            sent_to[sent] = d
            sent_begin[sent] = at
            at = at + (latency[pair] + bytes_ / rate[pair])
            sent_end[sent] = at
            sent += 1
            if a >= 0:
                free[a] = at
            if b >= 0:
                free[b] = at
        # the gaps
        takes = shortest[kind[d]]
        if best_gap >= 0:
            g = best_gap
            low = gap_begin[g]
            until = gap_end[g]
            if best_end + takes <= until and best_end < until:
                gap_begin[g] = best_end
                if low + takes <= best_start and low < best_start:
                    gap_begin[gaps] = low
                    gap_end[gaps] = best_start
                    before[gaps] = before[g]
                    behind[gaps] = g
                    if before[g] >= 0:
                        behind[before[g]] = gaps
                    before[g] = gaps
                    gaps += 1
            elif low + takes <= best_start and low < best_start:
                gap_end[g] = best_start
            else:
                if before[g] >= 0:
                    behind[before[g]] = behind[g]
                if behind[g] >= 0:
                    before[behind[g]] = before[g]
                else:
                    last[d] = before[g]
        else:
            low = ends[d]
            if low + takes <= best_start and low < best_start:
                gap_begin[gaps] = low
                gap_end[gaps] = best_start
                before[gaps] = last[d]
                behind[gaps] = -1
                if last[d] >= 0:
                    behind[last[d]] = gaps
                last[d] = gaps
                gaps += 1
                # a little more than it is, so that rounding leaves no task out
                low = (best_start - low) * 1.000000001
                if low > longest[d]:
                    longest[d] = low
            ends[d] = best_end
    return sent
