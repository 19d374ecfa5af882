"""The checker of the merge queue's promises: quiet about a queue that kept them, and it names each that was broken."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from beads import Store
from beads.model import Bead, Criterion, Dependency, Evidence
from beads.ops import Create, Intend, Judge, Land, SendBack
from refinery import queue
from refinery.gate import gate_of
from refinery.git import Git, Identity
from refinery.merge import Candidate, Request, stack
from tests.refinery.invariants import broken, left_over
from tests.refinery.ledger import REFINERY_EMAIL, read
from tests.refinery.yard import make_yard, submit
from tests.world import git

WHO = Identity("beadtown refinery", REFINERY_EMAIL)
LATER = datetime(2026, 2, 1, tzinfo=UTC)


class Forger:
    """Writes the history of a merge queue by hand, so that it can be a wrong one."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.git = Git(repository, os.environ)
        self.store = Store.open(repository)
        self._said = 0

    def requests(self, *names: str) -> list[Request]:
        """The requests of those molecules, in that order, whatever they need."""
        found = {request.molecule: request for request in queue.requests(self.store.snapshot())}
        return [found[f"bt-{name}"] for name in names]

    def stacked(self, *names: str, base: str = "main") -> Candidate:
        """What the base would become with them."""
        free = [Request(r.id, r.title, r.head, r.molecule) for r in self.requests(*names)]
        return stack(self.git, git(self.repository, "rev-parse", base), free, WHO, LATER).candidates[-1]

    def say(self, name: str, tree: str, verdict: str = "pass", gate: str = "", environment: str = "here") -> None:
        """Store a verdict on the request of a molecule."""
        self._said += 1
        evidence = Evidence.model_validate(
            {
                "id": f"e{self._said}",
                "subject": "gate: sh check.sh",
                "verdict": verdict,
                "tree": tree,
                "gate": gate or gate_of(self.git, "main").digest(),
                "environment": environment,
                "at": LATER + timedelta(minutes=self._said),
            }
        )
        self.store.commit("refinery", [Judge(id=f"bt-{name}.m1", evidence=evidence)])

    def intend(self, names: Sequence[str], commit: str) -> None:
        """Say that main is about to become that."""
        self.store.commit("refinery", [Intend(ids=tuple(f"bt-{name}.m1" for name in names), commit=commit)])

    def move(self, commit: str, *to: str) -> None:
        """Move main there, from where it is."""
        git(self.repository, "update-ref", "-m", "land", "refs/heads/main", commit, *to)

    def record(self, names: Sequence[str], commit: str) -> None:
        """Store that they landed as that."""
        self.store.commit("refinery", [Land(ids=tuple(f"bt-{name}.m1" for name in names), commit=commit)])

    def land(self, *names: str, commit: str = "", tree: str = "", environment: str = "here") -> None:
        """Do it by the rules, as far as what is landed is what it should be."""
        candidate = None if commit else self.stacked(*names)
        commit = candidate.commit if candidate else commit
        tree = tree or git(self.repository, "rev-parse", f"{commit}^{{tree}}")
        self.say(names[-1], tree, environment=environment)
        self.intend(names, commit)
        self.move(commit)
        self.record(names, commit)

    def forge(self, tree: str, second: str, *names: str) -> str:
        """A landing of some requests with that tree and second parent; the commit."""
        text = "Merge\n\n" + "".join(f"Merge-Request: bt-{name}.m1\n" for name in names)
        who = {"GIT_AUTHOR_EMAIL": REFINERY_EMAIL, "GIT_COMMITTER_EMAIL": REFINERY_EMAIL}
        return git(self.repository, "commit-tree", tree, "-p", "main", "-p", second, "-m", text, extra=who)

    def squash(self, name: str, head: str) -> str:
        """A landing of one request that has no other parent than main, and names that head."""
        text = f"Do {name}\n\nMerge-Request: bt-{name}.m1\nMerge-Head: {head}"
        return git(self.repository, "commit-tree", self.stacked(name).tree, "-p", "main", "-m", text)

    def send_back(self, name: str, reason: str) -> None:
        """Reject it, with a step that says why."""
        step = Bead(
            id=f"bt-{name}.1",
            title="Rework",
            issue_type="step",
            description=reason,
            source=f"refinery:bt-{name}.m1",
            created_at=LATER,
            updated_at=LATER,
            dependencies=(Dependency(on=f"bt-{name}", type="parent-child"),),
            criteria=(Criterion(run="sh check.sh"),),
        )
        self.store.commit("refinery", [SendBack(id=f"bt-{name}.m1", reason=reason, step=step)])


@pytest.fixture(scope="module")
def queued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five requests, of which the last needs the first; one is bad."""
    repository = make_yard(tmp_path_factory.mktemp("queued") / "project")
    git(repository, "checkout", "--quiet", "--detach")
    submit(repository, "a", {"parts/a": "ok\n"})
    submit(repository, "b", {"parts/b": "ok\n"})
    submit(repository, "c", {"parts/c": "ok\n"})
    submit(repository, "bad", {"parts/bad": "no\n"})
    submit(repository, "d", {"parts/d": "ok\n"}, needs=("a",))
    return repository


@pytest.fixture
def forger(queued: Path, tmp_path: Path) -> Forger:
    """A copy of it to write history in."""
    return Forger(Path(shutil.copytree(queued, tmp_path / "project", symlinks=True)))


def problems(forger: Forger) -> list[str]:
    ledger = read(forger.repository)
    return [*broken(ledger, [(0, "here")]), *left_over(forger.repository)]


def test_a_queue_that_kept_its_promises_is_left_alone(forger: Forger) -> None:
    forger.land("a")
    forger.land("b", "c")
    main = git(forger.repository, "rev-parse", "main^{tree}")
    tree = forger.stacked("bad").tree
    for verdict in ("fail", "error", "fail"):
        forger.say("bad", tree, verdict)
    forger.say("bad", main)
    forger.send_back("bad", "the gate is red")
    forger.land("d", commit=forger.squash("d", forger.requests("d")[0].head))
    assert problems(forger) == []


def untested(forger: Forger) -> None:
    candidate = forger.stacked("a")
    forger.intend("a", candidate.commit)
    forger.move(candidate.commit)
    forger.record("a", candidate.commit)


def tested_afterwards(forger: Forger) -> None:
    untested(forger)
    forger.say("a", git(forger.repository, "rev-parse", "main^{tree}"))


def rewound(forger: Forger) -> None:
    before = git(forger.repository, "rev-parse", "main")
    git(forger.repository, "commit", "--quiet", "--allow-empty", "-m", "By hand")
    forger.move("HEAD")
    forger.move(before)


def unannounced(forger: Forger) -> None:
    candidate = forger.stacked("a")
    forger.say("a", candidate.tree)
    forger.move(candidate.commit)
    forger.record("a", candidate.commit)


def landed_twice(forger: Forger) -> None:
    forger.land("a")
    git(forger.repository, "commit", "--quiet", "--allow-empty", "-m", "By hand")
    second = git(forger.repository, "commit-tree", "main^{tree}", "-p", "main", "-m", "X\n\nMerge-Request: bt-a.m1")
    forger.move(second)


def never_landed(forger: Forger) -> None:
    candidate = forger.stacked("a")
    forger.say("a", candidate.tree)
    forger.intend("a", candidate.commit)
    forger.record("a", candidate.commit)


def forgotten(forger: Forger) -> None:
    for ref in git(forger.repository, "for-each-ref", "--format=%(refname)", "refs/beads/request/bt-b").split():
        git(forger.repository, "update-ref", "-d", ref)


def unrecorded(forger: Forger) -> None:
    candidate = forger.stacked("a")
    forger.say("a", candidate.tree)
    forger.intend("a", candidate.commit)
    forger.move(candidate.commit)


def removed(forger: Forger) -> None:
    listed = git(forger.repository, "ls-tree", "-r", "refs/beads/main").splitlines()
    kept = "".join(f"{line}\n" for line in listed if "bt-b.m1" not in line)
    index = {"GIT_INDEX_FILE": str(forger.repository / ".git/forged")}
    git(forger.repository, "update-index", "--index-info", stdin=kept, extra=index)
    tree = git(forger.repository, "write-tree", extra=index)
    (forger.repository / ".git/forged").unlink()
    commit = git(forger.repository, "commit-tree", tree, "-p", "refs/beads/main", "-m", "Gone")
    git(forger.repository, "update-ref", "refs/beads/main", commit)


def another_head(forger: Forger) -> None:
    (request,) = forger.requests("a")
    later = git(forger.repository, "commit-tree", f"{request.head}^{{tree}}", "-p", request.head, "-m", "Later")
    forger.land("a", commit=forger.forge(forger.stacked("a").tree, later, "a"))


def squashed_another(forger: Forger) -> None:
    forger.land("a", commit=forger.squash("a", forger.requests("b")[0].head))


def needed_later(forger: Forger) -> None:
    forger.land("d")
    forger.land("a")


def failed_once(forger: Forger) -> None:
    forger.say("bad", git(forger.repository, "rev-parse", "main^{tree}"))
    forger.say("bad", forger.stacked("bad").tree, "fail")
    forger.send_back("bad", "the gate is red")


def red_main(forger: Forger) -> None:
    for _ in range(2):
        forger.say("bad", forger.stacked("bad").tree, "fail")
        forger.say("bad", git(forger.repository, "rev-parse", "main^{tree}"), "fail")
    forger.send_back("bad", "the gate is red")


def overtaken(forger: Forger) -> None:
    forger.land("b")
    forger.land("a")


def long_overtaken(forger: Forger) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    bead = forger.store.snapshot().need("bt-a.m1")
    new = {"id": "bt-new", "created_at": now, "updated_at": now, "priority": 0}
    assert bead.merge is not None
    forger.store.commit("test", [Create(bead=forger.store.snapshot().need("bt-a").evolve(**new))])
    merge = bead.merge.model_copy(update={"molecule": "bt-new"})
    parent = (Dependency(on="bt-new", type="parent-child"),)
    forger.store.commit(
        "test", [Create(bead=bead.evolve(**{**new, "id": "bt-new.m1"}, merge=merge, dependencies=parent))]
    )
    forger.land("new")
    forger.land("b")


def another_gate(forger: Forger) -> None:
    candidate = forger.stacked("a")
    forger.say("a", candidate.tree, gate="sha256:other")
    forger.intend("a", candidate.commit)
    forger.move(candidate.commit)
    forger.record("a", candidate.commit)


def elsewhere(forger: Forger) -> None:
    forger.land("a", environment="elsewhere")


def locked(forger: Forger) -> None:
    (forger.repository / ".git/refs/heads/main.lock").touch()


def merging(forger: Forger) -> None:
    (forger.repository / ".git/beads/merge-1-x").mkdir()


def errors(forger: Forger) -> None:
    forger.say("bad", git(forger.repository, "rev-parse", "main^{tree}"))
    for verdict in ("error", "error", "fail"):
        forger.say("bad", forger.stacked("bad").tree, verdict)
    forger.send_back("bad", "the gate is red")


def two_on_one_base(forger: Forger) -> None:
    other = forger.stacked("b")
    forger.say("b", other.tree)
    forger.intend("b", other.commit)
    forger.land("a")
    forger.record("b", other.commit)


def something_else(forger: Forger) -> None:
    (request,) = forger.requests("a")
    blob = git(forger.repository, "hash-object", "-w", "--stdin", stdin="bottom\n")
    listed = git(forger.repository, "ls-tree", "-r", forger.stacked("a").tree)
    lines = [line.replace(line.split()[2], blob) if line.endswith("\tshared") else line for line in listed.splitlines()]
    index = {"GIT_INDEX_FILE": str(forger.repository / ".git/forged")}
    git(forger.repository, "update-index", "--index-info", stdin="\n".join([*lines, ""]), extra=index)
    tree = git(forger.repository, "write-tree", extra=index)
    (forger.repository / ".git/forged").unlink()
    forger.land("a", commit=forger.forge(tree, request.head, "a"))


@pytest.mark.parametrize(
    "plant, numbers",
    [
        (untested, "1"),
        pytest.param(tested_afterwards, "1", marks=pytest.mark.slow),
        (rewound, "2"),
        pytest.param(unannounced, "2", marks=pytest.mark.slow),
        (landed_twice, "2 3 4 5"),
        (never_landed, "4"),
        (forgotten, "4"),
        pytest.param(unrecorded, "4", marks=pytest.mark.slow),
        pytest.param(removed, "4", marks=pytest.mark.slow),
        (another_head, "5"),
        (squashed_another, "5"),
        (needed_later, "6"),
        (failed_once, "7"),
        pytest.param(red_main, "7", marks=pytest.mark.slow),
        (overtaken, "8"),
        pytest.param(long_overtaken, "8", marks=pytest.mark.slow),
        pytest.param(another_gate, "9", marks=pytest.mark.slow),
        (elsewhere, "9"),
        (locked, "10"),
        pytest.param(merging, "10", marks=pytest.mark.slow),
        (errors, "11"),
        (two_on_one_base, "4 12"),
        (something_else, "13"),
    ],
)
def test_what_is_broken_is_named(forger: Forger, plant: Callable[[Forger], None], numbers: str) -> None:
    plant(forger)
    found = problems(forger)
    named = sorted({int(problem.partition(":")[0]) for problem in found})
    assert " ".join(map(str, named)) == numbers, found
