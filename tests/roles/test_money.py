"""Money, quota and contests through polecats: a program that says what it costs is started for real, and stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from beads import Bead, Store, graph
from beads.errors import Unreadable
from beads.model import Usage
from beads.ops import Begin, Claim, Finish, Operation, Release, Report, Spend, Update
from beads.spending import costs
from cli.config import open_site
from refinery.processes import Exit
from roles import runtimes, witness
from roles.events import Ended, Event, Used
from roles.polecat import Polecat, Result
from roles.runtimes import plain
from roles.task import Order, Runtime
from tests.towns import BEAD, SETTINGS, make_town, molecule, pour, run, sandboxed, settings_with, snapshot
from tests.world import git

# Does what a line of a file says, one for each attempt: writes a part, prints what it used and how it ended.
AGENT = """\
import json, os, sys, time
from pathlib import Path

said = json.loads(Path(sys.argv[1]).read_text().splitlines()[int(os.environ["BEADTOWN_ATTEMPT"]) - 1])
Path("parts").mkdir(exist_ok=True)
if "write" in said:
    Path("parts/agent").write_text(said["write"])
print(json.dumps(said), flush=True)
time.sleep(said.get("seconds", 0))
"""


class Talking:
    """Reads what :data:`AGENT` prints."""

    def read(self, line: str) -> Iterable[Event]:
        said: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if "cost" in said:
            yield Used(Usage(input=1000, cached=400, output=100), said["cost"])
        if "ending" in said:
            until = datetime.fromisoformat(said["until"]) if "until" in said else None
            yield Ended(said["ending"], said.get("text", ""), until)

    def end(self, exit: Exit) -> Iterable[Event]:
        yield Ended("finished" if exit.kind == "exited" else "cancelled")


def talking(order: Order) -> Talking:
    del order
    return Talking()


@pytest.fixture(autouse=True)
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime for tests, in the place of the one that says nothing."""
    monkeypatch.setitem(runtimes.RUNTIMES, "plain", Runtime("plain", plain.launch, talking, priced=True))


def with_script(path: Path, *says: dict[str, object], agent: str = "", town: str = "", more: str = "") -> Path:
    """A town whose agent does these things, one after the other."""
    (path / "agent.py").write_text(AGENT)
    (path / "script").write_text("".join(json.dumps(said) + "\n" for said in says))
    command = json.dumps([sys.executable, str(path / "agent.py"), str(path / "script")])
    fake = f'runtime = "plain"\ncommand = {command}\n'
    settings = SETTINGS.replace("[town]\n", f'[town]\nagent = "fake"\n{town}\n')
    return make_town(path, f"{settings}[agents.fake]\n{fake}{agent}\n{more.replace('RUNTIME', fake)}\n")


def work(repository: Path, bead_id: str | None = None) -> Result:
    return Polecat(open_site(repository), "nux", lambda: False).run(bead_id)


def only(repository: Path, kind: str) -> Bead:
    (bead,) = [bead for bead in snapshot(repository) if bead.issue_type == kind]
    return bead


def ends(repository: Path) -> list[tuple[object, ...]]:
    return [(a.end, a.cost, a.budget) for a in only(repository, "step").attempts]


def done(cost: float, text: str = "ok\n") -> dict[str, object]:
    return {"write": text, "cost": cost}


def test_what_an_attempt_costs_is_kept_and_added_up(tmp_path: Path) -> None:
    repository = with_script(tmp_path, done(0.25, "no\n"), done(0.5))
    pour(repository, molecule("agent", "", "grep ok parts/agent"))
    assert work(repository).end == "submitted"
    assert ends(repository) == [("unmet", 0.25, None), ("satisfied", 0.5, None)]
    found = json.loads(run(repository, "costs", "--by", "agent", "--json").stdout)
    numbers = {"attempts": 2, "reviews": 0, "input": 2000, "cached": 800, "written": 0, "output": 200, "cost": 0.75}
    assert found == [{"agent": "fake", **numbers, "unpriced": 0}]
    said = run(repository, "costs", "--by", "molecule").stdout
    assert f"{only(repository, 'molecule').id}\t2\t0\t2,000\t800\t0\t200\t0.7500\t0\tDo agent" in said
    assert run(repository, "costs", "--since", "2999-01-01").stdout == "nothing was tried yet\n"
    assert "today: $0.7500, 2 attempts; `town costs` says more" in run(repository, "status").stdout


def test_what_is_left_of_a_budget_stops_the_run_and_then_a_person_is_asked(tmp_path: Path) -> None:
    repository = with_script(tmp_path, done(0.75, "no\n"), {"cost": 0.25, "seconds": 60}, agent="budget = 2.0")
    pour(repository, molecule("agent", "", "grep ok parts/agent", budget=1.0))
    found = work(repository)
    step, root = only(repository, "step"), only(repository, "molecule")
    assert ends(repository) == [("unmet", 0.75, 1.0), ("unmet", 0.25, 0.25)]
    assert (step.attempts[1].ending, step.attempts[1].note) == ("limits", "stopped at $0.2500, with a budget of $0.25")
    assert found == Result(root.id, "unmet", f"step {step.id}: {root.id} has cost $1.00 of its budget of $1.00")
    state = graph.state(snapshot(repository), root, datetime.now(UTC))
    assert (state.kind, state.reason) == ("needs_person", f"{root.id} has cost $1.00 of its budget of $1.00")
    said = run(repository, "status").stdout
    assert f"bead update {root.id} --budget N" in said
    run(repository, "update", root.id, "--budget", "3", program=BEAD)
    assert graph.state(snapshot(repository), only(repository, "molecule"), datetime.now(UTC)).kind == "ready"


def test_the_end_of_the_money_for_today_is_no_failure(tmp_path: Path) -> None:
    slow: dict[str, object] = {"cost": 0.5, "seconds": 60}
    repository = with_script(tmp_path, done(0.5, "no\n"), slow, town="budget_day = 1.0", agent="budget = 0.75")
    pour(repository, molecule("agent", "", "grep ok parts/agent"), molecule("other", ""))
    found = work(repository)
    assert found.end == "parked"
    steps = [bead for bead in snapshot(repository) if bead.issue_type == "step" and bead.attempts]
    assert [[(a.end, a.cost, a.budget) for a in step.attempts] for step in steps] == [
        [("unmet", 0.5, 0.75), ("parked", 0.5, 0.5)]
    ]
    assert len(graph.failed(steps[0])) == 1
    # Nothing else of this town begins either, and it is told until when.
    idle = work(repository)
    assert idle.end == "idle"
    assert "the town's budget a day of $1.00 is used up, with $1.00, until" in idle.reason
    until = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d} 00:00 UTC"
    assert f"with $1.00, until {until}" in run(repository, "why", steps[0].id, program=BEAD).stdout
    status = run(repository, "status").stdout
    assert status.count(f"with $1.00, until {until}") == 2
    assert "today: $1.0000 of $1.00, 2 attempts" in status
    assert {m["state"] for m in json.loads(run(repository, "status", "--json").stdout)["molecules"]} == {"deferred"}


def test_a_provider_that_will_not_serve_one_molecule_is_not_asked_for_another(tmp_path: Path) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)
    refused: dict[str, object] = {"ending": "quota", "until": until.isoformat(), "text": "limit reached"}
    repository = with_script(tmp_path, refused, done(0.1))
    pour(repository, molecule("agent", "", "grep ok parts/agent"), molecule("other", "", "grep ok parts/agent"))
    assert work(repository).end == "parked"
    idle = work(repository)
    assert idle.end == "idle"
    assert "agent fake is parked until" in idle.reason
    status = run(repository, "status").stdout
    assert status.count("agent fake is parked until") == 2
    assert "its quota is used up" in status
    (parked,) = json.loads(run(repository, "status", "--json").stdout)["parked"]
    assert (parked["agent"], datetime.fromisoformat(parked["until"]), parked["ending"]) == ("fake", until, "quota")


def test_another_agent_of_the_chain_stands_in_for_one_that_is_not_served(tmp_path: Path) -> None:
    until = datetime.now(UTC) + timedelta(hours=3)
    refused: dict[str, object] = {"ending": "quota", "until": until.isoformat()}
    repository = with_script(
        tmp_path, refused, done(0.1), agent='escalate = ["strong"]', more="[agents.strong]\nRUNTIME"
    )
    pour(repository, molecule("agent", "", "grep ok parts/agent"))
    assert work(repository).end == "submitted"
    attempts = only(repository, "step").attempts
    assert [(a.runtime, a.end) for a in attempts] == [("fake", "parked"), ("strong", "satisfied")]


def test_a_stronger_one_takes_over_after_failures(tmp_path: Path) -> None:
    says = [done(0.1, "no\n")] * 2 + [done(0.2)]
    repository = with_script(tmp_path, *says, agent='escalate = ["strong"]', more="[agents.strong]\nRUNTIME")
    pour(repository, molecule("agent", "", "grep ok parts/agent"))
    assert work(repository).end == "submitted"
    assert [a.runtime for a in only(repository, "step").attempts] == ["fake", "fake", "strong"]


def park(store: Store, bead_id: str, until: datetime) -> None:
    """Store that an agent's provider would not serve it, as a polecat does."""
    step, report = f"{bead_id}.1", Report(ending="quota", until=until)
    operations: list[Operation] = [
        Claim(id=bead_id, worker="w"),
        Begin(id=step, runtime="fake", worker="w", epoch=1),
        Spend(id=step, report=report, worker="w", epoch=1),
        Finish(id=step, end="parked", worker="w", epoch=1),
        Release(id=bead_id, until=until, worker="w", epoch=1),
    ]
    store.commit("w", operations)


@pytest.mark.parametrize("hours, ok", [(3, 7), (0, 0)])
def test_a_town_that_runs_until_idle_waits_for_what_is_put_off_only_a_little(
    tmp_path: Path, hours: int, ok: int
) -> None:
    (tmp_path / "agent.py").write_text("from pathlib import Path\nPath('parts/agent').write_text('ok\\n')\n")
    table = f'[agents.fake]\nruntime = "plain"\ncommand = ["python3", "{tmp_path}/agent.py"]\n'
    repository = make_town(tmp_path, SETTINGS.replace("[town]\n", '[town]\nagent = "fake"\n') + table)
    pour(repository, molecule("agent", "", "grep ok parts/agent"))
    root, store = only(repository, "molecule"), Store.open(repository)
    until = datetime.now(UTC) + (timedelta(hours=hours) if hours else timedelta(seconds=2))
    park(store, root.id, until)
    # Another one would be served by the same provider.
    pour(repository, molecule("agent", "", "grep ok parts/agent"), molecule("other", "", "grep ok parts/agent"))
    done = run(repository, "up", "--until-idle", ok=[ok])
    if hours:
        assert done.stderr.count("put off: ") == 2
        assert done.stderr.count("agent fake is parked until") == 1
        assert "2 put off" in done.stderr
        assert "polecat" not in done.stdout
    else:
        assert all(bead.closed for bead in snapshot(repository))


CONTEST = """\
[[molecules]]
id = "m"
title = "Do m"
goal = "m is done."

  [[molecules.steps]]
  id = "s"
  title = "Do it"
  best_of = 3
  criteria = [{ run = "grep ok parts/agent" }APPROVAL]
"""


def lines(number: int) -> str:
    return "ok\n" + "x\n" * number


def test_the_smallest_of_several_attempts_that_are_good_is_taken(tmp_path: Path) -> None:
    says = [done(0.1, lines(5)), done(0.1, "no\n"), done(0.1, lines(2))]
    repository = with_script(tmp_path, *says, agent='escalate = ["strong"]', more="[agents.strong]\nRUNTIME")
    pour(repository, CONTEST.replace("APPROVAL", ""))
    assert work(repository).end == "submitted"
    root, step = only(repository, "molecule"), only(repository, "step")
    assert [(a.runtime, a.end) for a in step.attempts] == [
        ("fake", "satisfied"),
        ("strong", "unmet"),
        ("fake", "satisfied"),
    ]
    assert git(repository, "show", f"polecat/{root.id}:parts/agent") == lines(2).rstrip()
    # What was not taken can still be looked at.
    kept = git(repository, "for-each-ref", "--format=%(refname)", "refs/beads/salvage").split()
    left = [ref for ref in kept if "-attempt-" in ref]
    assert [git(repository, "show", f"{ref}:parts/agent") for ref in left] == [lines(n).rstrip() for n in (5, 2)]


def test_a_contest_is_gone_on_with_after_a_death_and_the_best_one_is_shown_to_a_person(tmp_path: Path) -> None:
    says = [done(0.1, lines(1)), done(0.1, "half"), done(0.1, lines(3)), done(0.1, lines(2))]
    repository = with_script(tmp_path, *says)
    pour(repository, CONTEST.replace("APPROVAL", ', { approval = "nice?" }'))
    killed = Polecat(open_site(repository), "nux", _after(3, repository))
    assert killed.run().end == "stopped"
    assert work(repository).end == "asked"
    root, step = only(repository, "molecule"), only(repository, "step")
    assert [a.end for a in step.attempts] == ["satisfied", "stopped", "satisfied", "satisfied"]
    assert git(repository, "show", f"polecat/{root.id}:parts/agent") == lines(1).rstrip()
    run(repository, "reject", root.id, "--reason", "not nice")
    (tmp_path / "script").write_text((tmp_path / "script").read_text() + json.dumps(done(0.1, "ok, nice\n")) + "\n")
    # From here on it is worked on as anything else that was rejected.
    assert work(repository).end == "asked"
    assert git(repository, "show", f"polecat/{root.id}:parts/agent") == "ok, nice"
    assert len(only(repository, "step").attempts) == 5


def _after(number: int, repository: Path) -> Any:
    """Asks a polecat to stop while its second attempt runs."""
    asked: list[int] = []

    def stopping() -> bool:
        attempts = only(repository, "step").attempts
        asked.append(1)
        return len(attempts) == number - 1 and attempts[-1].end is None

    return stopping


def test_more_money_by_hand_counts_at_once(tmp_path: Path) -> None:
    repository = with_script(tmp_path, done(1.0, "no\n"), done(0.5))
    pour(repository, molecule("agent", "", "grep ok parts/agent", budget=1.0))
    assert work(repository).end == "unmet"
    store, root = Store.open(repository), only(repository, "molecule")
    assert root.terms is not None
    store.commit("ada", [Update(id=root.id, terms=root.terms.model_copy(update={"budget": 2.0}))])
    assert work(repository).end == "submitted"
    assert ends(repository) == [("unmet", 1.0, 1.0), ("satisfied", 0.5, 1.0)]
    assert [one.cost for one in costs(snapshot(repository), "day")] == [1.5]


def test_no_review_is_begun_that_there_is_no_money_for_and_that_is_no_failure(tmp_path: Path) -> None:
    critic = (
        f'[review]\nagent = "critic"\n[agents.critic]\nruntime = "plain"\ncommand = ["touch", "{tmp_path}/asked"]\n'
    )
    repository = with_script(tmp_path, done(1.0), town="budget_day = 1.0", more=critic)
    pour(repository, molecule("agent", "", "grep ok parts/agent", limits='{ review = "Is it kind?" }'))
    assert work(repository).end == "parked"
    step = only(repository, "step")
    assert [(a.end, a.cost) for a in step.attempts] == [("parked", 1.0)]
    assert "nobody was asked: the town's budget a day of $1.00 is used up" in step.evidence[-1].detail
    # When it is taken up all the same, what was done is looked at again, and waits for its review.
    assert work(repository, only(repository, "molecule").id).end == "parked"
    assert len(only(repository, "step").attempts) == 1
    assert not (tmp_path / "asked").exists()


class Died(BaseException):
    """What takes the place of a kill: nothing is written any more."""


@pytest.mark.slow
@pytest.mark.parametrize("last", range(1, 12))
def test_a_contest_is_gone_on_with_after_each_write_that_can_be_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    # The first good one is the smallest; every other attempt is larger, however many there are.
    says = [done(0.1, lines(1)), *(done(0.1, lines(n)) for n in range(3, 9))]
    repository = with_script(tmp_path, *says)
    pour(repository, CONTEST.replace("APPROVAL", ""))
    commit, written = Store.commit, list[int]()

    def dying(self: Store, *args: Any) -> object:
        if len(written) >= last:
            raise Died
        written.append(1)
        return commit(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", dying)
        # Its work tree is gone before it submits, so that it cannot save it on its way out.
        with pytest.raises((Died, Unreadable)):
            Polecat(open_site(repository), "nux", lambda: False).run()
    witness.tick(open_site(repository))
    if not any(bead.merge for bead in snapshot(repository)):
        assert work(repository).end == "submitted"
    step, root = only(repository, "step"), only(repository, "molecule")
    ended = [a.end for a in step.attempts]
    assert ended.count("satisfied") == 3
    assert set(ended) <= {"satisfied", "died"}
    smallest = min(number for number, end in enumerate(ended) if end == "satisfied")
    assert git(repository, "show", f"polecat/{root.id}:parts/agent") == str(says[smallest]["write"]).rstrip()


def test_a_town_with_a_cap_that_cannot_be_held_does_not_start(tmp_path: Path) -> None:
    repository = with_script(tmp_path, town="budget_day = 5.0")
    said = run(repository, "up", "--until-idle", ok=[2]).stderr
    assert "[town] budget_day cannot be held: what agent fake costs is not known (runtime 'plain')" in said
    assert "[town] budget_day cannot be held" in run(repository, "doctor", ok=[7]).stdout


ALONE = """\
import re, sys, time
from pathlib import Path

lock = Path(sys.argv[1]) / "at-work"
try:
    lock.mkdir()
except FileExistsError:
    (Path(sys.argv[1]) / "two-at-once").touch()
name = re.search(r"(\\w+) is done", sys.stdin.read())[1]
Path("parts", name).write_text("ok\\n")
time.sleep(0.2)
lock.rmdir()
"""


# So that what the agents tell each other is seen by them all.
def test_no_more_of_an_agent_work_at_once_than_may(tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(ALONE)
    settings = settings_with([sys.executable, f"{tmp_path}/alone.py", str(tmp_path)]) + "at_once = 1\n"
    repository = make_town(tmp_path, sandboxed(f'write = ["{tmp_path}"]', settings))
    pour(repository, *(molecule(name, "") for name in "abc"))
    run(repository, "up", "--until-idle")
    assert all(bead.closed for bead in snapshot(repository))
    assert not (tmp_path / "two-at-once").exists()
    assert [len(b.attempts) for b in snapshot(repository) if b.issue_type == "step"] == [1] * 3
