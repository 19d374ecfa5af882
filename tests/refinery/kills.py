"""A Refinery killed before and after each effect it has: ``python -m tests.refinery.kills NAME [WORD…]``.

It works in the directory that it is started in, and forks, so that what is tried costs no start of an interpreter. NAME
is one of :data:`SCENARIOS`. Each WORD, such as ``after:12`` or ``before:update-ref``, is a moment to kill at: a number
counts effects from 0, a name is that of the first effect of this name, and ``each`` is all of them; ``each:1/4`` is the
second quarter of these. What it found is printed as JSON.

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
from refinery.git import Git, Output
from refinery.processes import Job, Machine
from tests.refinery.invariants import broken, left_over
from tests.refinery.ledger import read
from tests.refinery.yard import SETTINGS, make_shared, make_yard, outcomes, push_by_a_person, site_of, submit, work
from tests.world import commit, git

_ASKING = frozenset(
    [
        *("rev-parse", "cat-file", "log", "rev-list", "merge-base", "for-each-ref", "ls-tree", "ls-files", "ls-remote"),
        *("diff-tree", "diff-index", "diff-files", "diff", "show", "status", "config", "check-ref-format", "var"),
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
    """What is killed.

    Attributes:
        prepare: makes the repository in a directory that is given; returns what it is called there.
        outcomes: how its requests must have ended in the end.
        trunk: the repository that it lands on, when that is another one, by its name in that directory.
    """

    prepare: Callable[[Path], str]
    outcomes: dict[str, str]
    trunk: str = ""


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


SCENARIOS = {
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
        problems = self._problems()
        assert not problems, problems
        return list(said[1])

    def kill(self, when: str, number: int) -> list[str]:
        """Kill it there, let another one go on, and say what is wrong then."""
        self._afresh()
        count = Counter[str]()

        def strike(now: str, _: str) -> None:
            if now == when and count[now] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            count[now] += 1

        ended, said = forked(lambda: self._work(strike))
        if ended != signal.SIGKILL:
            return [f"was never killed there: {said}"]
        _, said = forked(lambda: self._work(lambda *_: None))
        return [said[1]] if said[0] == "failed" else self._problems()

    @property
    def _repository(self) -> Path:
        return self._place / self._name

    def _work(self, strike: Strike) -> list[str]:
        watched(strike)
        return work(site_of(self._repository, machine=_Machine(strike)))

    def _afresh(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        shutil.copytree(self._template, self._place, symlinks=True)

    def _problems(self) -> list[str]:
        trunk = self._place / self._scenario.trunk if self._scenario.trunk else None
        ledger = read(self._repository, trunk)
        found = [*broken(ledger), *left_over(self._repository)]
        ended = outcomes(self._repository)
        if ended != self._scenario.outcomes:
            found.append(f"ended as {ended}")
        known = Counter((v.evidence.tree, v.evidence.verdict) for v in ledger.verdicts)
        # Who is convicted fails twice, and main may be asked once for each; what passed is never tested again.
        found += [f"{tree} was tested in vain" for (tree, said), n in known.items() if n > {"pass": 1, "fail": 2}[said]]
        if git(self._repository, "status", "--porcelain"):
            found.append(f"main's checkout did not follow: {git(self._repository, 'status', '--porcelain')}")
        return found


def moments(effects: Sequence[str], words: Sequence[str]) -> list[tuple[str, int]]:
    """When to kill, by the words that say so."""
    every = [(when, number) for number in range(len(effects)) for when in ("before", "after")]
    found: list[tuple[str, int]] = []
    for word in words:
        when, _, which = word.partition(":")
        if when == "each":
            part, _, parts = (which or "0/1").partition("/")
            found += every[int(part) :: int(parts)]
        else:
            found.append((when, int(which) if which.isdigit() else effects.index(which)))
    return found


def main() -> None:
    """Try, and say what came of it."""
    scenario, *words = sys.argv[1:]
    trial = Trial(Path.cwd(), SCENARIOS[scenario])
    effects = trial.effects()
    problems: list[str] = []
    tried = moments(effects, words)
    for when, number in tried:
        problems += [f"{when} {effects[number]} no. {number}: {said}" for said in trial.kill(when, number)]
    json.dump({"effects": effects, "tried": len(tried), "problems": problems}, sys.stdout)


if __name__ == "__main__":
    main()
