"""Real agent programs, each driven by a polecat against our own provider: landed, killed and resumed, refused."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from beads.model import Attempt, Usage
from tests.agents.clis import CLIS, KEY, Cli, installed
from tests.agents.provider import Call, Fail, Hang, Provider, Text, Turn, provider
from tests.towns import SETTINGS, TOWN, assert_settled, make_town, molecule, pour, run, snapshot
from tests.world import commit, git

pytestmark = pytest.mark.agents

FIRST = Usage(input=1000, cached=300, output=40, reasoning=10)
SECOND = Usage(input=1100, cached=800, output=30, reasoning=5)
LAST = Usage(input=1200, cached=1000, output=20)

REMEMBERED = "A word to be remembered."
"""What the model says in a conversation that is gone on with."""

Told = Callable[[str, object], None]


@pytest.fixture(params=CLIS, ids=lambda cli: cli.name)
def cli(request: pytest.FixtureRequest) -> Cli:
    """One of the programs; skipped, with the reason, where it is not installed."""
    one: Cli = request.param
    if missing := installed(one.name).get("missing"):
        pytest.skip(f"{one.name} is not installed: {missing}")
    return one


@pytest.fixture
def tell(cli: Cli, record_property: Callable[[str, object], None]) -> Told:
    """Notes something for the table that is printed at the end: a column and what is in it."""
    record_property("agent", cli.name)
    return record_property


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Path]:
    """Where a town can be; what still runs in it afterwards is killed."""
    yield tmp_path
    for process in psutil.process_iter(["cwd"]):
        if (process.info["cwd"] or "").startswith(str(tmp_path)):
            process.kill()


def settle(cli: Cli, server: Provider, path: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> Path:
    """A town whose only agent is that program, with one molecule for it: two parts are to be made."""
    for name, value in cli.environ(server).items():
        monkeypatch.setenv(name, value)
    named = SETTINGS.replace("[town]\n", f'[town]\nagent = "{cli.name}"\n')
    repository = make_town(path, named + cli.settings(server, **more))
    if files := cli.files(server):
        commit(repository, files, "What leads the program to the provider")
    pour(repository, molecule("agent", "", "grep -qx ok parts/one", "grep -qx ok parts/two"))
    return repository


def attempts(repository: Path) -> tuple[Attempt, ...]:
    """All that was tried at the step."""
    (step,) = [bead for bead in snapshot(repository) if bead.issue_type == "step"]
    return step.attempts


def work(repository: Path, *ok: int) -> str:
    """Let a polecat live; what it said at its end."""
    return run(repository, "polecat", "run", ok=ok or (0,)).stdout


def land(repository: Path) -> None:
    """Let the Refinery and the Witness do what is theirs; all is well then."""
    run(repository, "refinery", "tick")
    run(repository, "witness", "tick")
    assert_settled(repository, landed=1)


def both(cli: Cli) -> list[Turn]:
    """The turns of a model that does what is asked for."""
    if cli.toolless:
        one, two = (f"parts/{name}\n```\nok\n```\n" for name in ("one", "two"))
        return [Text(f"{one}\n{two}", FIRST)]
    return [cli.edit("parts/one", "ok", FIRST), cli.edit("parts/two", "ok", SECOND), cli.done(LAST)]


def assert_secret(repository: Path, server: Provider) -> None:
    """The provider was asked with the key that was planted, which is nowhere on the disk and in no object of Git."""
    assert {request.key for request in server.requests if request.main} == {KEY}
    found = subprocess.run(["grep", "-rlF", KEY, repository.parent], capture_output=True, text=True, check=False)
    assert found.stdout == ""
    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch", "--buffer"],
        cwd=repository,
        capture_output=True,
        check=True,
    )
    assert len(objects.stdout) > 1000
    assert KEY.encode() not in objects.stdout


def assert_spent(cli: Cli, attempt: Attempt, usage: Usage) -> None:
    """The attempt has exactly what the provider counted, and what that costs."""
    assert attempt.usage == cli.seen(usage)
    assert attempt.cost == pytest.approx(cli.price(usage), abs=1e-9)


def test_is_put_off_in_an_outage(cli: Cli, town: Path, monkeypatch: pytest.MonkeyPatch, tell: Told) -> None:
    # First, as it takes longest: some ask for minutes before they give up.
    with provider(Fail("overloaded"), toolless=cli.toolless) as server:
        repository = settle(cli, server, town, monkeypatch, timeout=600.0)
        assert "parked" in work(repository)
        (attempt,) = attempts(repository)
        assert (attempt.end, attempt.ending) == ("parked", "provider_unavailable")
        tell("outage", "put off")


def test_lands(cli: Cli, town: Path, monkeypatch: pytest.MonkeyPatch, tell: Told) -> None:
    with provider(*both(cli), toolless=cli.toolless) as server:
        repository = settle(cli, server, town, monkeypatch)
        config = (repository / ".git/config").read_bytes()
        assert "submitted" in work(repository)
        assert (repository / ".git/config").read_bytes() == config
        land(repository)
        assert git(repository, "ls-tree", "-r", "--name-only", "main", "parts").split() == [
            "parts/first",
            "parts/one",
            "parts/two",
        ]
        tell("landed", "yes")
        (attempt,) = attempts(repository)
        assert attempt.end == "satisfied"
        assert attempt.ending == "finished"
        assert attempt.model
        assert bool(attempt.session) == cli.named
        assert_secret(repository, server)
        tell("secret", "kept")
        assert_spent(cli, attempt, server.used)
        tell("usage", "exact")
        tell("cost", "none" if attempt.cost is None else f"${attempt.cost:.6f}")


def test_is_killed_half_way_and_resumed(cli: Cli, town: Path, monkeypatch: pytest.MonkeyPatch, tell: Told) -> None:
    begun = [Hang()] if cli.toolless else [cli.edit("parts/one", "ok", FIRST), Hang()]
    rest = both(cli) if cli.toolless else [cli.edit("parts/two", "ok", SECOND), cli.done(LAST)]
    with provider(*begun, *rest, toolless=cli.toolless) as server:
        repository = settle(cli, server, town, monkeypatch)
        polecat = subprocess.Popen([*TOWN, "polecat", "run"], cwd=repository, stdout=subprocess.DEVNULL)
        assert server.hanging.wait(90), "the program has not come half way"
        polecat.send_signal(signal.SIGKILL)
        polecat.wait()
        before = server.used
        run(repository, "witness", "tick")
        # What it had begun is there for the next one, which goes on from it: `parts/one` is not written again.
        assert "submitted" in work(repository)
        land(repository)
        assert git(repository, "show", "main:parts/one") == "ok"
        died, last = attempts(repository)
        # Some programs tell what they use as they go, the others only at their end.
        assert died.end == "died"
        assert died.usage in (None, before)
        assert (died.cost is None) == (died.usage is None)
        assert last.end == "satisfied"
        assert_spent(cli, last, server.used.since(before))
        tell("killed", "resumed")


def test_goes_on_with_its_conversation(cli: Cli, town: Path, monkeypatch: pytest.MonkeyPatch, tell: Told) -> None:
    if not cli.resumes:
        tell("conversation", "none")
        pytest.skip(f"{cli.name} cannot go on with a conversation")
    turns = [
        cli.edit("parts/one", "ok", FIRST),
        Text(REMEMBERED, SECOND),
        cli.edit("parts/two", "ok", FIRST),
        cli.done(LAST),
    ]
    if cli.toolless:
        turns = [Text(f"parts/one\n```\nok\n```\n\n{REMEMBERED}", FIRST), cli.edit("parts/two", "ok", SECOND)]
    with provider(*turns, toolless=cli.toolless) as server:
        repository = settle(cli, server, town, monkeypatch, resume=True)
        assert "submitted" in work(repository)
        first, second = attempts(repository)
        assert (first.end, second.end) == ("unmet", "satisfied")
        assert first.session == second.session != ""
        later = [request for request in server.requests if request.main][len(turns) // 2 :]
        assert all(REMEMBERED in str(request.body) for request in later)
        assert_spent(cli, first, FIRST if cli.toolless else FIRST + SECOND)
        assert_spent(cli, second, SECOND if cli.toolless else FIRST + LAST)
        tell("conversation", "gone on with")


def test_waits_for_its_quota(cli: Cli, town: Path, monkeypatch: pytest.MonkeyPatch, tell: Told) -> None:
    reset = int(time.time()) // 60 * 60 + 3600
    begun = [] if cli.toolless else [cli.edit("parts/one", "ok", FIRST)]
    with provider(*begun, Fail("quota", reset), toolless=cli.toolless) as server:
        repository = settle(cli, server, town, monkeypatch)
        assert "parked" in work(repository)
        (attempt,) = attempts(repository)
        assert (attempt.end, attempt.ending) == ("parked", "quota")
        assert attempt.until is not None
        if cli.resets:
            assert abs(attempt.until - datetime.fromtimestamp(reset, UTC)) < timedelta(seconds=90)
        tell("quota", "parked until its reset" if cli.resets else "parked")
        if cli.counts_failed and begun:
            assert_spent(cli, attempt, FIRST)
        assert "idle" in work(repository)


def test_hands_off_when_its_context_is_full(cli: Cli, town: Path, monkeypatch: pytest.MonkeyPatch, tell: Told) -> None:
    if cli.toolless:
        pytest.skip(f"{cli.name} changes nothing before its first answer")
    begun = Call(f"printf 'ok\\n' > parts/one # {REMEMBERED}", FIRST)
    with provider(
        begun, Fail("context", memory=REMEMBERED), cli.edit("parts/two", "ok", SECOND), cli.done(LAST)
    ) as server:
        repository = settle(cli, server, town, monkeypatch)
        assert "submitted" in work(repository)
        first, second = attempts(repository)
        assert (first.end, first.ending, second.end) == ("handed_off", "context_exhausted", "satisfied")
        tell("context", "handed off")


def test_thinks_for_the_mayor(cli: Cli, town: Path, monkeypatch: pytest.MonkeyPatch, tell: Told) -> None:
    step = {"id": "add", "title": "Add it", "criteria": [{"run": "grep -qx ok parts/one"}]}
    plan = {"plan": "parts", "molecules": [{"id": "one", "title": "One", "goal": "It is there.", "steps": [step]}]}
    looked = [] if cli.toolless else [Call("cat parts/first; touch parts/owned", FIRST)]
    answer = json.dumps({"say": "One part, as you wish.", "plan": plan})
    answers = [cli.says("I have no plan yet.", SECOND), cli.says(answer, LAST)]
    with provider(*looked, *answers, toolless=cli.toolless) as server:
        repository = settle(cli, server, town, monkeypatch)
        path = repository / "town.toml"
        path.write_text(path.read_text() + f'[mayor]\nagent = "{cli.name}"\n')
        before = git(repository, "for-each-ref", "refs/heads"), git(repository, "status", "--short")
        said = run(repository, "mayor", "Add a part", ok=(7,))
        assert "One part, as you wish." in said.stdout
        assert "waits for your yes" in said.stderr
        assert (git(repository, "for-each-ref", "refs/heads"), git(repository, "status", "--short")) == before
        (proposal,) = [bead for bead in snapshot(repository) if bead.issue_type == "proposal"]
        run(repository, "approve", proposal.id)
        assert [b.title for b in snapshot(repository) if b.issue_type == "molecule" and "parts" in b.source] == ["One"]
        (taken,) = [bead.attempts[0] for bead in snapshot(repository) if bead.issue_type == "message" and bead.attempts]
        assert taken.runtime == "(mayor)"
        assert taken.usage == cli.seen(server.used)
        assert_secret(repository, server)
        tell("mayor", "thought")
