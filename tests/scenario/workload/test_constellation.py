"""Constellations: what lines let through, what edits may do, and the three invariants under any edits at any time."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.constellation import SKIPPED, Constellation
from fleetcast.scenario.workload.edits import (
    ENDED,
    OPEN,
    AddLine,
    AddTask,
    ChangeLine,
    ChangeTask,
    Condition,
    Edit,
    InvariantError,
    Line,
    RemoveLine,
    RemoveTask,
    State,
    Status,
    Task,
)


def tasks(names):
    return [Task(id=name) for name in names]


def chain(names="abc", kind="unconditional"):
    return Constellation.of(tasks(names), [Line(before=a, after=b, kind=kind) for a, b in pairwise(names)])


def done(value, name, result=None, status=Status.COMPLETED):
    value = value.begin(name, "agent").end(name, status, result, "broken" if status is Status.FAILED else "")
    return value.settled([name])


def test_a_chain_runs_from_created_to_completed():
    value = Constellation.of([])
    assert value.state is State.CREATED
    value = chain()
    assert (value.state, value.ready, value.left) == (State.READY, ["a"], 3)
    value = value.begin("a", "agent")
    assert value.state is State.EXECUTING
    value = value.end("a", Status.COMPLETED, 1)
    for name in "bc":
        assert value.ready == [name]
        value = done(value, name)
    assert (value.state, value.left, value.results["a"]) == (State.COMPLETED, 0, 1)


@pytest.mark.parametrize(
    ("kind", "result", "status", "child"),
    [
        ("unconditional", None, Status.COMPLETED, Status.PENDING),
        ("unconditional", None, Status.FAILED, Status.CANCELLED),
        ("success_only", None, Status.COMPLETED, Status.CANCELLED),
        ("success_only", 0, Status.COMPLETED, Status.PENDING),
        ("success_only", None, Status.FAILED, Status.CANCELLED),
        ("completion_only", None, Status.COMPLETED, Status.PENDING),
        ("completion_only", None, Status.FAILED, Status.PENDING),
    ],
)
def test_what_a_line_lets_through(kind, result, status, child):
    assert done(chain("ab", kind), "a", result, status).status["b"] is child


@pytest.mark.parametrize(
    ("condition", "result", "holds"),
    [
        (Condition(value=3), 3, True),
        (Condition(value=1), True, False),
        (Condition(is_="!=", value="x"), "y", True),
        (Condition(part="score", is_=">=", value=0.5), {"score": 0.5}, True),
        (Condition(part="score", is_=">", value=0.5), {"score": 0.5}, False),
        (Condition(part="rows.1.n", is_="<", value=3), {"rows": [{}, {"n": 2}]}, True),
        (Condition(part="rows.2.n", is_="<", value=3), {"rows": [{}, {"n": 2}]}, False),
        (Condition(part="score", is_="!=", value=0.5), {}, False),
        (Condition(is_="<", value=3), "2", False),
        (Condition(is_="<=", value="b"), "a", True),
        (Condition(is_="<", value=True), 0, False),
        (Condition(value=None), None, True),
    ],
)
def test_conditions_compare_parts_of_results(condition, result, holds):
    line = Line(before="a", after="b", kind="conditional", when=condition)
    value = done(Constellation.of(tasks("ab"), [line]), "a", result)
    assert (value.status["b"] is Status.PENDING) == holds
    if not holds:
        assert value.reasons["b"] == SKIPPED
        assert value.state is State.COMPLETED


def test_failures_cancel_what_can_never_run_and_the_state_is_honest():
    value = Constellation.of(
        tasks("abcde"),
        [Line(before="a", after="b"), Line(before="b", after="c"), Line(before="c", after="d", kind="completion_only")],
    )
    value = done(value, "a", status=Status.FAILED)
    assert [value.status[n] for n in "abcd"] == ["failed", "cancelled", "cancelled", "pending"]
    assert value.reasons["b"] == "a failed"
    assert value.reasons["c"] == "b cancelled"
    value = done(done(value, "d"), "e")
    assert (value.state, value.left) == (State.PARTIALLY_FAILED, 0)
    assert done(chain("ab"), "a", status=Status.FAILED).state is State.FAILED


def test_an_edit_may_save_what_a_failure_would_cancel():
    value = chain("ab").begin("a", "agent").end("a", Status.FAILED, reason="broken")
    saved = value.apply(
        [
            AddTask(task=Task(id="a2")),
            RemoveLine(before="a", after="b"),
            AddLine(line=Line(before="a2", after="b")),
        ]
    )
    assert saved.settled().ready == ["a2"]
    assert value.settled().status["b"] is Status.CANCELLED


def test_priorities_order_what_is_ready():
    value = Constellation.of([Task(id="low"), Task(id="high", priority=2), Task(id="also high", priority=2)])
    assert value.ready == ["high", "also high", "low"]


def test_metrics_of_a_diamond_by_tasks_and_by_seconds():
    value = Constellation.of(tasks("abcd"), [Line(before=x, after=y) for x, y in ("ab", "ac", "bd", "cd")])
    seconds = {"a": 1.0, "b": 2.0, "c": 5.0, "d": 2.0}
    assert (value.width, value.critical_path(), value.parallelism()) == (2, 3, 4 / 3)
    assert (value.critical_path(seconds), value.parallelism(seconds)) == (8, 10 / 8)


def test_one_device_at_a_time():
    value = chain().begin("a", "left")
    with pytest.raises(InvariantError, match=r"runs on left.*I1") as error:
        value.begin("a", "right")
    assert error.value.invariant == "I1"
    for step in (lambda: value.begin("b", "x"), lambda: value.end("b", Status.COMPLETED), lambda: value.again("b")):
        with pytest.raises(InvariantError, match="I1"):
            step()
    assert value.again("a").begin("a", "right").devices["a"] == "right"


def test_no_circles_and_the_batch_is_refused_as_a_whole():
    value = chain("abc")
    with pytest.raises(InvariantError, match=r"a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c") as error:
        value.apply([AddTask(task=Task(id="x")), AddLine(line=Line(before="c", after="a"))])
    assert error.value.invariant == "I2"
    assert "x" not in value.tasks
    with pytest.raises(InvariantError, match="I2"):
        value.apply([AddLine(line=Line(before="a", after="a"))])


@pytest.mark.parametrize(
    "edit",
    [
        RemoveTask(id="a"), ChangeTask(id="a", priority=1), AddLine(line=Line(before="c", after="a")),
        RemoveTask(id="r"), ChangeLine(line=Line(before="a", after="r", kind="success_only")),
        RemoveLine(before="a", after="r"),
    ],
)  # fmt: skip
def test_what_has_begun_is_not_edited(edit):
    value = Constellation.of(tasks("arc"), [Line(before="a", after="r")])
    value = done(value, "a").begin("r", "agent")
    with pytest.raises(InvariantError) as error:
        value.apply([edit])
    assert error.value.invariant == "I3"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (AddTask(task=Task(id="a")), "second task"),
        (RemoveTask(id="alpa"), "is no task.*Did you mean 'alpha'"),
        (AddLine(line=Line(before="a", after="b")), "is there already"),
        (RemoveLine(before="a", after="c"), "is not there"),
        (ChangeLine(line=Line(before="a", after="c")), "is not there"),
        (AddLine(line=Line(before="a", after="c", kind="conditional")), "goes with kind 'conditional'"),
        (AddLine(line=Line(before="a", after="c", when=Condition(value=1))), "goes with kind 'conditional'"),
    ],
)
def test_edits_without_sense_name_the_place(edit, said):
    value = chain().apply([AddTask(task=Task(id="alpha"))])
    with pytest.raises(SpecError, match=said) as error:
        value.apply([edit])
    assert error.value.path.startswith("edits[0]")


def test_a_line_into_a_task_that_could_begin_makes_it_wait():
    value = chain("ab").apply([AddTask(task=Task(id="x")), AddLine(line=Line(before="x", after="a"))])
    assert (value.ready, value.version) == (["x"], 1)
    assert value.apply([RemoveTask(id="x")]).ready == ["a"]


def test_a_table_holds_what_happened():
    table = done(chain("ab"), "a", {"n": 1}).table()
    assert table["tasks"][0] == {"id": "a", "status": "completed", "device": "agent", "result": {"n": 1}}
    assert table["lines"] == [{"before": "a", "after": "b"}]


NAMES = [f"t{i}" for i in range(7)]
NAME = st.sampled_from(NAMES)
KIND = st.sampled_from(["unconditional", "success_only", "completion_only", "conditional"])
LINE = st.builds(
    lambda before, after, kind: Line(
        before=before, after=after, kind=kind, when=Condition(value=1) if kind == "conditional" else None
    ),
    NAME, NAME, KIND,
)  # fmt: skip
EDIT = st.one_of(
    st.builds(lambda name, p: AddTask(task=Task(id=name, priority=p)), NAME, st.integers(-2, 2)),
    st.builds(RemoveTask, id=NAME),
    st.builds(ChangeTask, id=NAME, priority=st.integers(-2, 2)),
    st.builds(AddLine, line=LINE),
    st.builds(ChangeLine, line=LINE),
    st.builds(RemoveLine, before=NAME, after=NAME),
)
EDITS = st.lists(EDIT, min_size=1, max_size=4)


@given(EDITS)
def test_edits_survive_the_wire(edits):
    assert msgspec.json.decode(msgspec.json.encode(edits), type=list[Edit]) == edits


class Life(RuleBasedStateMachine):
    """Anything may happen to a constellation at any time; a planner edits what was true some steps ago."""

    def __init__(self):
        super().__init__()
        self.value = Constellation.of(tasks(NAMES[:3]), [Line(before="t0", after="t1")])
        self.seen = None

    def _try(self, edits, value):
        before = value.table()
        try:
            after = value.apply(edits)
        except SpecError:
            after = value
        assert value.table() == before
        if after is not value:
            self._untouched(value, after)
        return after

    @staticmethod
    def _untouched(value, after):
        """I3: whatever has begun, and every line into it, is as it was."""
        for name, status in value.status.items():
            if status not in OPEN:
                assert after.tasks[name] == value.tasks[name]
                assert after.status[name] is status
                into = [{k: v for k, v in x.lines.items() if k[1] == name} for x in (value, after)]
                assert into[0] == into[1]

    @rule(edits=EDITS)
    def edit(self, edits):
        self.value = self._try(edits, self.value)

    @rule()
    def look(self):
        self.seen = self.value

    @rule(edits=EDITS)
    def publish(self, edits):
        """What a planner wanted of an older value is what it would have wanted of this one, or is refused."""
        if self.seen is None or self.seen.version != self.value.version:
            return
        edited = self._try(edits, self.seen)
        if edited is not self.seen:
            try:
                wanted = self.value.apply(edits).table()
            except InvariantError as error:
                assert error.invariant == "I3"
                wanted = None
            try:
                merged = edited.synchronised(self.value)
            except InvariantError as error:
                assert (error.invariant, wanted) == ("I3", None)
            else:
                assert merged.left == sum(s not in ENDED for s in merged.status.values())
                if wanted is not None:  # edits that undo each other are no edit
                    assert merged.table() == wanted
                self.value = merged
        self.seen = None

    @rule(name=NAME, device=st.sampled_from(["left", "right"]))
    def begin(self, name, device):
        if self.value.status.get(name) is Status.PENDING:
            self.value = self.value.begin(name, device)
        else:
            with pytest.raises(InvariantError, match="I1"):
                self.value.begin(name, device)

    @rule(name=NAME, well=st.booleans(), result=st.sampled_from([None, 0, 1]))
    def end(self, name, well, result):
        if self.value.status.get(name) is Status.RUNNING:
            status = Status.COMPLETED if well else Status.FAILED
            self.value = self.value.end(name, status, result if well else None, "" if well else "broken")

    @rule(name=NAME)
    def lose(self, name):
        if self.value.status.get(name) is Status.RUNNING:
            self.value = self.value.again(name)

    @rule()
    def settle(self):
        self.value = self.value.settled()
        assert self.value.settled() is self.value

    @invariant()
    def holds(self):
        value = self.value
        assert set(value.levels()) == set(value.tasks) == set(value.status)  # I2: an order exists
        assert value.left == sum(s not in ENDED for s in value.status.values())
        for name, status in value.status.items():
            if status is Status.RUNNING:
                assert value.devices[name] in ("left", "right")  # I1
            into = [line for (_, after), line in value.lines.items() if after == name]
            open_ = all(self._lets(line) for line in into)
            if status in OPEN:
                assert (status is Status.PENDING) == open_

    def _lets(self, line):
        """What a line lets through, said once more and otherwise."""
        status, result = self.value.status[line.before], self.value.results.get(line.before)
        fine = {
            "unconditional": status == "completed",
            "success_only": status == "completed" and result is not None,
            "conditional": status == "completed" and result == 1,
            "completion_only": status in ("completed", "failed", "cancelled"),
        }
        return fine[line.kind]

    def teardown(self):
        """Whatever was done to it, a constellation can be run to its end."""
        value = self.value.settled()
        for _ in range(1000):
            if not value.left:
                break
            running = [n for n, s in value.status.items() if s is Status.RUNNING]
            if running:
                value = value.end(running[0], Status.COMPLETED, 1).settled(running[:1])
            else:
                assert value.ready, "something is left and nothing can begin"
                value = value.begin(value.ready[0], "left")
        assert value.state in (State.COMPLETED, State.FAILED, State.PARTIALLY_FAILED, State.CREATED)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
