"""`fleetcast vote`: one ranking of plans that several rank, what no vote can promise, and a vote among processes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from fleetcast.base.errors import FleetcastError, SpecError, closest
from fleetcast.view import terminal
from fleetcast.view.terminal import DEFAULTS, Common

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.runtime.vote import Vote
    from fleetcast.search.vote.ballots import Poll
    from fleetcast.search.vote.choice import Choice
    from fleetcast.search.vote.guarantees import Answer

RULES = Literal["kemeny", "borda", "footrule"]
SHOWN = 12
"""Runs of a witness that are listed; --json holds them all."""
Ballots = Annotated[
    Path, Parameter(name="FILE", help="Ballots (.toml, .json), or what `fleetcast plan --json` printed.")
]


class Refused(FleetcastError):
    """A promise that cannot be kept."""

    exit_code = 1

    def __init__(self, message: str, hint: str) -> None:
        self.hint = hint
        super().__init__(f"{message}. {hint}")


def app() -> App:
    """Returns the command with those below it."""
    made = App(name="vote", help="Make one ranking of the plans that several rank, and say what it keeps and breaks.")
    made.default(vote)
    made.command(guarantees)
    made.command(run)
    return made


def vote(file: Ballots, /, *, rule: RULES = "kemeny", by: str = "", common: Common = DEFAULTS) -> int:
    """Make one ranking of the plans that several rank, and say what it keeps and breaks.

    Parameters
    ----------
    rule:
        "kemeny" has the fewest pairs ordered against a ballot, "footrule" the fewest places moved, "borda" the least
        sums of places.
    by:
        Of a search's plans: the goals that vote, e.g. cost,latency,energy, or metrics of which less is better.
    """
    from fleetcast.search.vote.choice import choose

    found = choose(_poll(file, by), rule)
    terminal.answer(common, found.table(), lambda _: _choice_view(found))
    return 0


def guarantees(
    *,
    processes: int = 3,
    plans: int = 3,
    crashes: int = 1,
    set_: Annotated[int | None, Parameter(name="--set")] = None,
    within: int | None = None,
    metric: Literal["kendall", "footrule"] = "kendall",
    asynchronous: Annotated[bool, Parameter(negative=())] = False,
    rounds: int = 1,
    unanimity: Literal["all", "correct"] = "all",
    common: Common = DEFAULTS,
) -> int:
    """Say whether any rule of a vote among processes keeps a promise: a rule that does, or runs that rule it out.

    Parameters
    ----------
    processes:
        That vote.
    plans:
        That they rank.
    crashes:
        Processes that may crash.
    set_:
        The promise: at most so many different rankings are decided; default 1, consensus.
    within:
        The promise instead: no two rankings further apart than this.
    metric:
        Of --within: "kendall" counts pairs in another order, "footrule" places moved.
    asynchronous:
        Messages take any time; otherwise each round ends when all have come.
    rounds:
        Of messages.
    unanimity:
        What "all" ballots agree on is kept, or what those of "correct" processes, which never crash, agree on.
    """
    from fleetcast.search.vote.guarantees import search
    from fleetcast.search.vote.problem import Promise
    from fleetcast.search.vote.runs import Setting
    from fleetcast.search.vote.told import table

    most = 1 if set_ is None and within is None else set_
    asked = Setting(processes, plans, crashes, not asynchronous, rounds)
    asked.check()
    with terminal.progress("looking for runs that break it", common) as step:
        found = search(asked, Promise(most, within, metric, unanimity), step)
    terminal.answer(common, table(found), lambda _: _answer_view(found))
    return 0 if found.exists else 1


def run(
    file: Ballots,
    /,
    *,
    crashes: int = 1,
    asynchronous: Annotated[bool, Parameter(negative=())] = False,
    set_: Annotated[int | None, Parameter(name="--set")] = None,
    rule: RULES = "kemeny",
    by: str = "",
    kill: str = "",
    delay: str = "0 s",
    timeout: str = "10 s",
    common: Common = DEFAULTS,
) -> int:
    """Let a process of this machine vote for each ballot, crash some, and hold what they decide to the promise.

    Parameters
    ----------
    crashes:
        That the vote must bear.
    asynchronous:
        No clock decides anything: up to crashes + 1 rankings. Otherwise silence counts as a crash, and there is one.
    set_:
        Different rankings that you can live with; refused where the vote promises more.
    rule:
        That makes one ranking of the ballots heard of.
    by:
        Of a search's plans: the goals that vote.
    kill:
        Voters whose process is killed, each after how many messages: cost:2,latency; after none unless said.
    delay:
        Longest wait before each message, drawn by --seed.
    timeout:
        That a silent process is waited for.
    """
    from fleetcast.base.units import parse
    from fleetcast.runtime.vote import Faults, hold, promised

    poll = _poll(file, by)
    if asynchronous and set_ is not None and set_ < promised(crashes, synchronous=False):
        raise Refused(
            f"refused: without a clock, {crashes} crashes leave up to {promised(crashes, synchronous=False)} different "
            f"rankings, and {set_} was asked for",
            "Leave out --asynchronous, bear fewer crashes, or see `fleetcast vote guarantees --asynchronous`",
        )
    faults = Faults(_killed(kill, poll), {}, parse(delay, "s", "--delay"), common.seed or 0)
    wait = parse(timeout, "s", "--timeout")
    if not (0 < wait <= 600 and 0 <= faults.delay <= 60):
        raise SpecError("--timeout", "is out of range", value=timeout, limit="above 0 to 600 s; --delay up to 60 s")
    found = hold(
        poll.orders.tolist(), crashes=crashes, synchronous=not asynchronous, rule=rule, faults=faults, timeout=wait
    )
    terminal.answer(common, _vote_table(found, poll, crashes), lambda _: _vote_view(found, poll, crashes, asynchronous))
    return 0 if found.kept else 1


def _poll(file: Path, by: str) -> Poll:
    from fleetcast.search.vote.ballots import read

    return read(file, [name.strip() for name in by.split(",") if name.strip()])


def _killed(kill: str, poll: Poll) -> dict[int, int]:
    found = {}
    for part in (p.strip() for p in kill.split(",") if p.strip()):
        name, _, after = part.rpartition(":") if part not in poll.voters and ":" in part else (part, "", "0")
        if name not in poll.voters:
            limit = f"one of {', '.join(poll.voters)}"
            raise SpecError("--kill", "is no voter", value=name, limit=limit, hint=closest(name, poll.voters))
        if not after.isdecimal():
            raise SpecError("--kill", "says no number of messages", value=part, limit=f"e.g. {name}:2")
        found[poll.voters.index(name)] = int(after)
    return found


def _choice_view(choice: Choice) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from fleetcast.view.tables import bullets, rows_table

    poll, name = choice.poll, choice.poll.plans.__getitem__
    ballots = poll.orders.argsort(axis=1)
    few = len(poll.voters) <= 8
    heads = ("", "Plan", *(poll.voters if few else ()), "Mean place")
    rows = [
        (str(i + 1), name(p), *([str(b[p] + 1) for b in ballots] if few else ()), f"{ballots[:, p].mean() + 1:.3g}")
        for i, p in enumerate(choice.order.tolist())
    ]
    apart = [
        f"{v}: {k} pair{'s' if k != 1 else ''}, {f} places"
        for v, k, f in zip(poll.voters, choice.pairs, choice.moved, strict=True)
    ]
    told = [f"in all {choice.pairs.sum()} pairs ordered against a ballot, {choice.moved.sum()} places moved"]
    if choice.bound is not None:
        low = "no ranking has fewer" if choice.bound == choice.pairs.sum() else f"none has fewer than {choice.bound}"
        told[0] += f"; of pairs {low}"
    if choice.equals > 1:
        told.append(
            f"{choice.equals:,} rankings are equally good by this rule: the first by the list of plans is taken"
        )
    return Group(
        Text(f"{len(poll.voters)} ballots, {len(poll.plans)} plans, {choice.rule}", style="dim"), Text(),
        rows_table(heads, rows, right=range(2, len(heads))), Text(),
        bullets("Kept and broken on these ballots", _axioms(choice)),
        bullets("How far from each ballot", [*(apart if few else ()), *told]),
        bullets("Taken as given", list(poll.notes), dim=True),
    )  # fmt: skip


def _axioms(choice: Choice) -> list[str]:
    name = choice.poll.plans.__getitem__
    said = []
    if choice.parted:
        a, b = choice.parted[0]
        said.append(f"unanimity broken: all rank {name(a)} above {name(b)}")
    else:
        said.append(f"unanimity kept: {len(choice.agreed)} pairs that all order alike")
    if choice.winner is not None:
        kept = "kept" if int(choice.order[0]) == choice.winner else "broken"
        said.append(f"Condorcet {kept}: {name(choice.winner)} beats every other plan one to one")
    else:
        said.append("Condorcet: no plan beats every other one to one")
    if choice.circle is not None:
        said.append(f"a circle: {' beats '.join(name(i) for i in (*choice.circle, choice.circle[0]))}")
    if choice.swayed is not None:
        x, a, b = choice.swayed
        said.append(
            f"independence broken: were {name(x)} last for all, {name(a)} would come before {name(b)}, not after it"
        )
    else:
        said.append("independence: no breach found by putting one plan last")
    return said


def _answer_view(answer: Answer) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from fleetcast.search.vote.runs import who
    from fleetcast.search.vote.told import letters, told
    from fleetcast.view.tables import bullets, rows_table

    runs, setting = answer.runs, answer.runs.setting
    model = "synchronous" if setting.synchronous else "asynchronous"
    rounds = f"{setting.rounds} round{'s' if setting.rounds > 1 else ''}"
    asked = f"{setting.processes} processes rank {setting.plans} plans, {_crash(setting.crashes)}, {model}, {rounds}"
    parts: list[Any] = [Text(asked, style="dim"), Text(f"Promise: {answer.promise.said()}", style="dim"), Text()]
    if answer.exists:
        parts.append(
            Text.assemble(("A rule keeps it", "bold"), f": {answer.rule or 'one without a short form (--json)'}")
        )
        nobody = "nobody dictates" if answer.dictator is None else f"P{answer.dictator + 1} dictates"
        parts += [Text(f"In every run; {nobody}"), Text()]
    else:
        parts += [Text("Refused: no rule keeps it", style="bold red"), Text()]
        parts += [Text("Runs that no rule serves together" + (", each needed" if answer.minimal else "")), Text()]
        names: dict[int, str] = {}
        rows = []
        for i, one in enumerate(answer.witness[:SHOWN]):
            said = [
                f"{names.setdefault(v, f'v{len(names) + 1}')}: P{who(s) + 1} heard {told(s)}"
                for v, s in zip(one.views, one.shapes, strict=True)
            ]  # fmt: skip
            rows.append((str(i + 1), " ".join(letters(runs.orders[b]) for b in one.ballots), "\n".join(said)))
        ballots = f"Ballots P1 to P{setting.processes}"
        parts += [rows_table(("Run", ballots, "Who decides, from what it heard"), rows), Text()]
        if len(answer.witness) > SHOWN:
            parts += [Text(f"{len(answer.witness) - SHOWN} more runs (--json)", style="dim"), Text()]
        allowed = runs.allowed(answer.promise.unanimity == "correct")
        left = [
            f"{said} decides {' or '.join(letters(runs.orders[r]) for r in allowed[v].nonzero()[0])}"
            for v, said in names.items() if not allowed[v].all()
        ]  # fmt: skip
        parts.append(bullets("What unanimity leaves", left))
        parts.append(bullets("Read it so", [_reason(answer)]))
    checked = (
        f"{runs.count:,} runs, {runs.views:,} views, every rule of {rounds} at this size; nothing is said of others"
    )
    parts.append(bullets("Checked", [checked], dim=True))
    return Group(*parts)


def _crash(most: int) -> str:
    return f"up to {most} may crash" if most else "none may crash"


def _reason(answer: Answer) -> str:
    promise = answer.promise
    if promise.most == 1:
        return "all that decide in a run decide the same, so each run ties its views together"
    if promise.most is not None:
        return f"a run may hold {promise.most} different decisions, and views of one name decide the same in every run"
    return f"a run's decisions lie within {promise.within} by {promise.metric}; views of one name decide the same"


def _vote_table(found: Vote, poll: Poll, crashes: int) -> dict[str, Any]:
    name = poll.plans.__getitem__
    return {
        "processes": [
            {
                "voter": voter, "crashed": i in found.crashed,
                "decided": None if (d := found.decided[i]) is None else [name(x) for x in d],
                "heard": [poll.voters[j] for j in found.heard[i]],
            }
            for i, voter in enumerate(poll.voters)
        ],
        "crashes": {"borne": crashes, "happened": len(found.crashed)}, "rounds": found.rounds,
        "different": found.different, "promised": found.promised, "kept": found.kept,
        "unanimity_broken": [[poll.voters[i], name(a), name(b)] for i, a, b in found.parted()],
        "late": [poll.voters[i] for i in found.late],
    }  # fmt: skip


def _vote_view(found: Vote, poll: Poll, crashes: int, asynchronous: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from fleetcast.runtime.vote import agreed
    from fleetcast.view.tables import bullets, rows_table

    rows = []
    for i, voter in enumerate(poll.voters):
        decided = found.decided[i]
        said = "crashed" if i in found.crashed else "heard of too few"
        heard = f"{len(found.heard[i])} of {len(poll.voters)}" if decided is not None else ""
        rows.append((voter, heard, " > ".join(poll.plans[x] for x in decided) if decided is not None else said))
    model = "asynchronous" if asynchronous else "synchronous"
    pairs = len(agreed(found.ballots))
    lines = [
        f"{found.different} different ranking{'s' if found.different != 1 else ''}, at most {found.promised} promised",
        f"unanimity: {pairs} pairs that all ballots order alike, {'broken' if found.parted() else 'kept by all'}",
    ]
    if found.late:
        lines.append(f"late: {', '.join(poll.voters[i] for i in found.late)}; the run was not synchronous: no promise")
    if len(found.crashed) > crashes:
        lines.append(f"{len(found.crashed)} crashed, more than the {crashes} that were to be borne: no promise")
    head = f"{len(poll.voters)} processes, {_crash(crashes)}, {model}, {found.rounds} rounds"
    return Group(
        Text(head, style="dim"), Text(), rows_table(("Process", "Heard", "Decided"), rows), Text(),
        bullets("The promise was kept" if found.kept else "The promise was not kept", lines),
    )  # fmt: skip
