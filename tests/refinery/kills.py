"""A Refinery disturbed before and after each effect it has: ``python -m tests.refinery.kills NAME [WORD…]``.

It works in the directory that it is started in, and forks, so that what is tried costs no start of an interpreter. NAME
is one of :data:`SCENARIOS`. Each WORD, such as ``kill:after:12`` or ``push:before:update-ref``, says what happens when:
``kill`` is SIGKILL, ``push`` somebody who pushes to main, ``other`` another Refinery that does all there is to do. A
number counts effects from 0, a name is that of the first effect of this name, and ``each`` in place of both is all of
them; ``kill:each:1/4`` is the second quarter of these. What it found is printed as JSON.

An effect is a commit on the store, a Git command that may change something, or the start of a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from beads.store import Store, Written
from refinery.desk import opened_as
from refinery.git import Git, Output
from refinery.processes import Job, Machine
from tests.refinery.fakeforge import Forge, install
from tests.refinery.invariants import broken, left_over
from tests.refinery.ledger import read
from tests.refinery.yard import (
    SETTINGS,
    hub,
    make_shared,
    make_yard,
    outcomes,
    push_by_a_person,
    site_of,
    submit,
    work,
)
from tests.towns import processes
from tests.world import commit, git

_ASKING = frozenset(
    [
        *("rev-parse", "cat-file", "log", "rev-list", "merge-base", "for-each-ref", "ls-tree", "ls-files", "ls-remote"),
        *("diff-tree", "diff-index", "diff-files", "diff", "show", "status", "config", "remote", "check-ref-format"),
    ]
)
"""What changes nothing, and is no effect."""


Strike = Callable[[str, str], None]
"""Told of each effect: whether it is ``before`` or ``after`` it, and its name."""


class _Machine(Machine):
    """This machine, where the start of a process is an effect."""

    def __init__(self, strike: Strike) -> None:
        self._strike = strike

    def start(self, argv: Sequence[str], **how: Any) -> Job:
        name = f"start-{Path(argv[0]).name}"
        name += "".join(f"-{arg}" for arg in argv[1:] if arg in ("ls-remote", "fetch", "push", "create", "list"))
        self._strike("before", name)
        job = super().start(argv, **how)
        self._strike("after", name)
        return job


def watched(strike: Strike) -> None:
    """Have each effect of this process told, for good: only in a child that was forked for it."""
    run, write = Git.run, Store.commit

    def telling_run(self: Git, *args: str, **how: Any) -> Output:
        name = next((arg for arg in args if not arg.startswith("-") and "=" not in arg), "")
        if name in _ASKING:
            return run(self, *args, **how)
        strike("before", name)
        done = run(self, *args, **how)
        strike("after", name)
        return done

    def telling_write(self: Store, actor: str, operations: Any, reason: str = "") -> Written:
        kinds = [] if callable(operations) else [operation.op for operation in operations]
        if not kinds:
            return write(self, actor, operations, reason)
        strike("before", f"store-{kinds[0]}")
        done = write(self, actor, operations, reason)
        strike("after", f"store-{kinds[0]}")
        return done

    Git.run = telling_run  # type: ignore[method-assign]
    Store.commit = telling_write  # type: ignore[method-assign]


@dataclass(frozen=True)
class Scenario:
    """What is disturbed.

    Attributes:
        prepare: makes the repository in a directory that is given; returns what it is called there.
        outcomes: how its requests must have ended in the end.
        trunk: the repository that it lands on, when that is another one, by its name in that directory.
        wrong: what else is wrong in that directory in the end.
    """

    prepare: Callable[[Path], str]
    outcomes: dict[str, str]
    trunk: str = ""
    wrong: Callable[[Path], list[str]] = lambda _: []


def _queue(base: Path, style: str = "merge") -> str:
    """Two good ones of which one needs the other, a bad one between them, one that conflicts, and one more."""
    repository = make_yard(base / "project", f'{SETTINGS}[merge]\nstyle = "{style}"\n')
    submit(repository, "a", {"parts/a": "ok\n"})
    submit(repository, "b", {"parts/b": "no\n"})
    submit(repository, "c", {"shared": "mine\n"})
    submit(repository, "d", {"parts/d": "ok\n"}, needs=("a",))
    submit(repository, "e", {"parts/e": "ok\n"})
    commit(repository, {"shared": "theirs\n"}, "Theirs")
    return "project"


_ENDS = {"a": "landed", "b": "rejected", "c": "rejected", "d": "landed", "e": "landed"}


def _shared(base: Path) -> str:
    """Two that land on a remote which somebody has pushed to."""
    repository = make_shared(base)
    submit(repository, "a", {"parts/a": "ok\n"})
    submit(repository, "b", {"parts/b": "no\n"})
    submit(repository, "c", {"parts/c": "ok\n"})
    push_by_a_person(base / "hub.git", "early")
    return "project"


def _proposed(base: Path) -> str:
    """Two that are asked for on a forge, and a bad one."""
    repository = make_shared(base, 'mode = "request"\n')
    (hub(repository) / "logged-in").touch()
    install(base / "programs")
    # Each trial is made in a copy, which has programs too.
    os.environ["PATH"] = f"{base.parent / 'work' / 'programs'}{os.pathsep}{os.environ['PATH']}"
    submit(repository, "a", {"parts/a": "ok\n"})
    submit(repository, "b", {"parts/b": "no\n"})
    submit(repository, "c", {"parts/c": "ok\n"})
    return "project"


def _asked_otherwise(place: Path) -> list[str]:
    """What is wrong on the forge, or is not known of it."""
    asked = Forge(place / "hub.git").requests
    branches = [one["branch"] for one in asked]
    stored = [opened_as(bead) for bead in Store.open(place / "project").snapshot() if bead.merge and not bead.closed]
    wanted = [f"#{one['number']} {Forge(place / 'hub.git').url(one['number'])}" for one in asked]
    found = [] if branches == ["polecat/bt-a", "polecat/bt-c"] else [f"asked for {branches}"]
    return found + ([] if stored == wanted else [f"knows of {stored}"])


SCENARIOS = {
    "proposed": Scenario(_proposed, {"a": "open", "b": "rejected", "c": "open"}, "hub.git", _asked_otherwise),
    "local": Scenario(_queue, _ENDS),
    "squash": Scenario(partial(_queue, style="squash"), _ENDS),
    "rebase": Scenario(partial(_queue, style="rebase"), _ENDS),
    "shared": Scenario(_shared, {"a": "landed", "b": "rejected", "c": "landed"}, "hub.git"),
}


def forked(task: Callable[[], object]) -> tuple[int, Any]:
    """Do something in a child: the number of the signal that ended it, and what it returned or how it failed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with contextlib.suppress(BaseException), os.fdopen(writing, "w") as pipe:
            try:
                said: object = ["done", task()]
            except BaseException:  # noqa: BLE001 - whatever it is, it is told in the parent
                said = ["failed", traceback.format_exc()]
            json.dump(said, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status), json.loads(text) if text else None


class Trial:
    """A scenario, in a copy of its own for each kill."""

    def __init__(self, base: Path, scenario: Scenario) -> None:
        self._template, self._place, self._scenario = base / "template", base / "work", scenario
        self._template.mkdir()
        self._name = scenario.prepare(self._template)

    def effects(self) -> list[str]:
        """What happens when nobody disturbs it."""
        self._afresh()
        seen: list[str] = []

        def note(when: str, name: str) -> None:
            if when == "before":
                seen.append(name)

        def run() -> list[str]:
            self._work(note)
            return seen

        _, said = forked(run)
        assert said[0] == "done", said[1]
        problems = self._problems("")
        assert not problems, problems
        return list(said[1])

    def disturb(self, how: str, when: str, which: str) -> list[str]:
        """Have something happen there, let another one go on, and say what is wrong then."""
        self._afresh()
        count = Counter[tuple[str, str]]()

        def strike(now: str, name: str) -> None:
            number, first = str(count[now, ""]), not count[now, name]
            # Before it happens: who does it may have effects as well.
            count.update([(now, ""), (now, name)])
            if now == when and (which == number or (first and which == name)):
                self._happens(how)

        ended, said = forked(lambda: self._work(strike))
        if (ended == signal.SIGKILL) != (how == "kill") or (how != "kill" and said[0] == "failed"):
            return [f"ended with {ended}: {said}"]
        _, said = forked(lambda: self._work(lambda *_: None))
        return [said[1]] if said[0] == "failed" else self._problems(how)

    def _happens(self, how: str) -> None:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "push":
            push_by_a_person(self._trunk or self._repository, "meanwhile")
        else:
            _, said = forked(lambda: work(site_of(self._repository, "other")))
            assert said[0] == "done", said

    @property
    def _trunk(self) -> Path | None:
        return self._place / self._scenario.trunk if self._scenario.trunk else None

    @property
    def _repository(self) -> Path:
        return self._place / self._name

    def _work(self, strike: Strike) -> list[str]:
        watched(strike)
        return work(site_of(self._repository, machine=_Machine(strike)))

    def _afresh(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        shutil.copytree(self._template, self._place, symlinks=True)

    def _problems(self, how: str) -> list[str]:
        ledger = read(self._repository, self._trunk)
        found = [*broken(ledger), *left_over(self._repository)]
        found += [f"10: {line} still runs" for line in processes(self._repository)]
        ended = outcomes(self._repository)
        if ended != self._scenario.outcomes:
            found.append(f"ended as {ended}")
        found += self._scenario.wrong(self._place)
        known = Counter((v.evidence.tree, v.evidence.verdict) for v in ledger.verdicts)
        # Who is convicted fails twice; what passed is never tested again, unless by two at once.
        most = {"pass": 1, "fail": 2} if how != "other" else {"pass": 2, "fail": 4}
        found += [f"{tree} was tested in vain" for (tree, said), n in known.items() if n > most[said]]
        status = git(self._repository, "status", "--porcelain")
        # Who moves the ref of a branch that is checked out has to see to the checkout.
        if status and (how != "push" or self._trunk):
            found.append(f"main's checkout did not follow: {status}")
        if how == "push" and "by-hand/meanwhile" not in git(self._repository, "ls-tree", "-r", "--name-only", "main"):
            found.append("what was pushed meanwhile is gone")
        return found


def moments(trial: Trial, words: Sequence[str]) -> list[tuple[str, str, str]]:
    """What is to happen, and when, by the words that say so."""
    each = any(":each" in word for word in words)
    every = [(when, str(n)) for n in range(len(trial.effects()) if each else 0) for when in ("before", "after")]
    found: list[tuple[str, str, str]] = []
    for word in words:
        how, when, which = f"{word}:".split(":")[:3]
        if when == "each":
            part, _, parts = (which or "0/1").partition("/")
            found += [(how, *moment) for moment in every[int(part) :: int(parts)]]
        else:
            found.append((how, when, which))
    return found


def main() -> None:
    """Try, and say what came of it."""
    scenario, *words = sys.argv[1:]
    trial = Trial(Path.cwd(), SCENARIOS[scenario])
    problems: list[str] = []
    tried = moments(trial, words)
    for how, when, which in tried:
        problems += [f"{how} {when} {which}: {said}" for said in trial.disturb(how, when, which)]
    json.dump({"tried": len(tried), "problems": problems}, sys.stdout)


if __name__ == "__main__":
    main()
