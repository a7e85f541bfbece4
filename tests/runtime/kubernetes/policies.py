"""Policies of pods for tests: as small as can be, and nothing that the scheduler relies on."""

from collections import Counter

from fleetcast.policy.place.pods import Placement


def meets(rule, labels):
    found = labels.get(rule.key)
    return {
        "In": found in rule.values,
        "NotIn": found not in rule.values,
        "Exists": found is not None,
        "DoesNotExist": found is None,
    }[rule.operator]


def tolerates(pod, node):
    return all(
        taint.effect == "PreferNoSchedule"
        or any(
            t.effect in ("", taint.effect)
            and t.key in ("", taint.key)
            and (t.operator == "Exists" or t.value == taint.value)
            for t in pod.tolerations
        )
        for taint in node.taints
    )


class Greedy:
    """First fit from where the last pod went; evicts lower ones, lowest first, where nothing else helps."""

    kind = "greedy"

    def __init__(self, preempt=True):
        self.preempt = preempt

    def place(self, view):
        self.nodes = {n.name: n for n in view.nodes if n.ready}
        self.left = {name: dict(n.capacity) for name, n in self.nodes.items()}
        self.here = {name: [] for name in self.nodes}
        for pod in view.running:
            if pod.node in self.nodes:
                self.add(pod, pod.node)
        bound, evicted = {}, []
        self.budgets = {name: [labels, count] for name, (labels, count) in view.budgets.items()}
        order = sorted(view.waiting, key=lambda p: (-p.priority, p.arrival))
        size = Counter(p.group for p in order)
        names, start, failed = list(self.nodes), 0, set()
        for pod in order:
            if pod.group in failed:
                continue
            for k in range(len(names)):
                name = names[(start + k) % len(names)]
                if self.fits(pod, name):
                    bound[pod.name] = name
                    self.add(pod, name)
                    start = (start + k) % len(names)
                    break
            else:
                if self.preempt and pod.preempts and not pod.group and (found := self.clear(pod)):
                    name, victims = found
                    evicted += victims
                    bound[pod.name] = name
                    self.add(pod, name)
                elif pod.group:
                    failed.add(pod.group)
                    for other in order:
                        if other.group == pod.group and other.name in bound:
                            self.remove(other, bound.pop(other.name))
        assert all(
            size[p.group] == sum(o.name in bound for o in order if o.group == p.group)
            for p in order
            if p.group in size and p.name in bound and p.group
        )
        return Placement(
            bound, evicted=tuple(evicted), reasons={p.name: "no room" for p in order if p.name not in bound}
        )

    def add(self, pod, name):
        for r, need in pod.requests.items():
            self.left[name][r] = self.left[name].get(r, 1.0 if r.startswith("port/") else 0.0) - need
        self.here[name].append(pod)

    def remove(self, pod, name):
        for r, need in pod.requests.items():
            self.left[name][r] += need
        self.here[name].remove(pod)

    def fits(self, pod, name):
        node, left = self.nodes[name], self.left[name]
        if any(need > left.get(r, 1.0 if r.startswith("port/") else 0.0) + 1e-9 for r, need in pod.requests.items()):
            return False
        return self.may(pod, name) if pod.rules or pod.selector or node.taints else True

    def may(self, pod, name):
        node = self.nodes[name]
        if not tolerates(pod, node) or any(node.labels.get(k) != v for k, v in pod.selector.items()):
            return False
        for rule in pod.rules:
            if rule.weight:
                continue
            if not rule.pods:
                if not meets(rule, node.labels):
                    return False
                continue
            domain = node.labels.get(rule.topology)
            found = any(
                meets(rule, other.labels)
                for place, pods in self.here.items()
                if self.nodes[place].labels.get(rule.topology) == domain
                for other in pods
            )
            if domain is None and not rule.anti:
                return False
            if domain is not None and found == rule.anti:
                return False
        return True

    def clear(self, pod):
        """The node where the fewest leave, all of them lower and within their budgets."""
        best = None
        for name in self.nodes:
            if not self.may(pod, name):
                continue
            victims, spent = [], Counter()
            for other in sorted((o for o in self.here[name] if o.node), key=lambda o: o.priority):
                if self.fits(pod, name):
                    break
                if not other.movable or other.priority >= pod.priority:
                    continue
                mine = [b for b, (labels, _) in self.budgets.items() if labels.items() <= other.labels.items()]
                if any(self.budgets[b][1] - spent[b] < 1 for b in mine):
                    continue
                spent.update(mine)
                victims.append(other)
                self.remove(other, name)
            if self.fits(pod, name) and victims and (best is None or len(victims) < len(best[1])):
                best = name, list(victims), spent
            for other in victims:
                self.add(other, name)
        if best is None:
            return None
        for other in best[1]:
            self.remove(other, best[0])
        for b, count in best[2].items():
            self.budgets[b][1] -= count
        return best[0], [o.name for o in best[1]]


class Scripted:
    """Says what a test tells it to."""

    kind = "scripted"

    def __init__(self, decide):
        self.decide, self.views = decide, []

    def place(self, view):
        self.views.append(view)
        return self.decide(view)
