"""A process whose children are killed or failed at each system call: ``python -m tests.faults.victim NAME HOW=MOST…``.

It works in the directory that it is started in. NAME is a scenario, HOW is ``KILL`` or an error such as ``ENOSPC``, and
MOST is how many calls are tried, 0 for all. What it found is printed as JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beads.files import STALE_LOCK_SECONDS
from beads.store import Store
from tests.beads.clocks import Virtual
from tests.faults import strace
from tests.faults.scenarios import SCENARIOS, Outcome, Scenario, command, done, forget, state
from tests.faults.strace import Call, Run, Tell

_QUESTIONS = (
    ("list", "--all", "--limit", "9999", "--json"),
    ("ready", "--json"),
    ("blocked", "--json"),
    ("search", "work", "--json"),
    ("stats", "--json"),
)


_AIMS = 3
"""How often a call is tried that a run did not come to."""


@dataclass
class Clean:
    """How it goes when nothing happens.

    Attributes:
        states: before, between and after the steps.
        answers: what an index made anew answers in each of these states.
        outcomes: of the steps.
        files: what is there in the end.
    """

    states: list[str]
    answers: dict[str, list[Outcome]]
    outcomes: list[Outcome]
    files: list[str]


class Trial:
    """A scenario, in a directory of its own for each run of it."""

    def __init__(self, base: Path, scenario: Scenario) -> None:
        self._template = base / "template"
        self._base = base / "work"
        self._log = base / "log"
        self._place = self._base / "repo"
        self._scenario = scenario
        self._template.mkdir()
        _import(*strace.fork(self._prepare))
        shutil.rmtree(self._template / "repo" / ".git" / "hooks", ignore_errors=True)
        self._clean = self._go_cleanly()

    def calls(self) -> list[Call]:
        """The calls that a run makes and that may change something, in order."""
        self._afresh()
        run = strace.run(self._work, self._log)
        assert run.status == 0, "the run that nobody disturbed failed"
        return [call for call in run.calls if call.writes]

    def strike(self, call: Call, how: str, aims: int = _AIMS) -> tuple[Run, list[str]]:
        """Let that call be struck; what is wrong then."""
        self._afresh()
        what = "signal=KILL" if how == "KILL" else f"error={how}"
        run = strace.run(self._work, self._log, f"{call.name}:{what}:when={call.number}")
        if aims > 1 and not run.struck:
            return self.strike(call, how, aims - 1)
        [problems] = strace.fork(lambda tell: tell(list(self._problems(run))))
        return run, problems

    def _afresh(self) -> None:
        shutil.rmtree(self._base, ignore_errors=True)
        shutil.copytree(self._template, self._base, symlinks=True)

    def _prepare(self, tell: Tell) -> None:
        self._scenario.prepare(self._template)
        tell(sorted(sys.modules))

    def _go_cleanly(self) -> Clean:
        self._afresh()

        def work(tell: Tell) -> None:
            states, outcomes = [state(self._place)], []
            answers = {states[0]: self._answers_anew()}
            for step in self._scenario.steps:
                outcomes.append(command(self._place, *step))
                states.append(state(self._place))
                answers[states[-1]] = self._answers_anew()
            _answers(self._place)
            Store.open(self._place).sweep()
            tell([states, answers, outcomes, self._files(), sorted(sys.modules)])

        [[states, answers, outcomes, files, modules]] = strace.fork(work)
        _import(modules)
        answered = {name: [Outcome(*one) for one in said] for name, said in answers.items()}
        clean = Clean(states, answered, [Outcome(*outcome) for outcome in outcomes], files)
        assert [outcome.code for outcome in clean.outcomes] == [0] * len(self._scenario.steps), clean.outcomes
        return clean

    def _work(self, tell: Tell) -> None:
        for step in self._scenario.steps:
            outcome = command(self._place, *step)
            tell(outcome)
            if outcome.code:
                return

    def _problems(self, run: Run) -> Iterator[str]:
        """What is wrong after a run that was struck: nothing, whatever happened."""
        outcomes = [Outcome(*told) for told in run.told]
        finished = sum(outcome.code == 0 for outcome in outcomes)
        yield from _complaints(run, outcomes)
        if not run.killed and "INJECTED" in run.struck:
            yield from (f"left {name}" for name in self._rubbish(run))
        states = self._clean.states
        now = state(self._place)
        if now not in states[finished : finished + 2]:
            yield f"after {finished} steps that returned the state is {now}, of {states}"
        if finished == len(self._scenario.steps) and now != states[-1]:
            yield "all steps returned, but what they did is not there"
        git = ["git", "-C", str(self._place), "fsck", "--strict", "--no-dangling"]
        fsck = subprocess.run(git, capture_output=True, text=True, check=False)
        if fsck.returncode or fsck.stderr or fsck.stdout:
            yield f"git fsck says {fsck.stdout}{fsck.stderr}"
        if now != "none":
            doctor = command(self._place, "doctor")
            if doctor.code:
                yield f"the doctor finds {doctor}"
            if _answers(self._place) != self._clean.answers.get(now):
                yield "the index answers otherwise than one made anew"
        yield from self._again(finished, run)
        if _answers(self._place) != self._clean.answers[states[-1]]:
            yield "afterwards the index answers otherwise than one made anew"

    def _again(self, finished: int, run: Run) -> Iterator[str]:
        """Go on where it was struck, as whoever finds it next would."""
        steps = list(zip(self._scenario.steps, self._clean.outcomes, strict=True))
        if _cleared(run):
            # What could not be removed is removed by the next one that clears up there.
            finished = min(finished, len(steps) - 1)
        for step, clean in steps[finished:]:
            clock = Still()
            outcome = command(self._place, *dict(self._scenario.again).get(step, step), clock=clock)
            if outcome.code:
                yield f"afterwards {step} ended with {outcome}"
            if clock.elapsed > STALE_LOCK_SECONDS + 0.1:
                yield f"afterwards {step} waited for {clock.elapsed} s"
            if step[-1] == "--json" and outcome.out != clean.out:
                yield f"afterwards {step} answered {outcome.out} instead of {clean.out}"
        if state(self._place) != self._clean.states[-1]:
            yield "done once more, it came to something else"
        Store.open(self._place, Still()).sweep()
        yield from (f"kept {name}" for name in self._files() if name not in self._clean.files)

    def _answers_anew(self) -> list[Outcome]:
        """What is answered in a copy without an index."""
        if state(self._place) == "none":
            return []
        copy = Path(shutil.copytree(self._place, self._base / "copy"))
        forget(copy)
        answers = _answers(copy)
        shutil.rmtree(copy)
        return answers

    def _files(self) -> list[str]:
        """Every file of the Git directory but the objects, of which more may be left, their marks, and the index."""
        inside = self._place / ".git"
        names = (str(path.relative_to(inside)) for path in inside.rglob("*") if path.is_file())
        return sorted(name for name in names if not name.startswith(("objects/", "beads/owned/", "beads/index.db")))

    def _rubbish(self, run: Run) -> list[str]:
        """What a process that could still clean up should not have left."""
        if _cleared(run):
            return []
        names = [path.name for path in (self._place / ".git").rglob("*") if path.is_file()]
        # Those of Git's own, which its processes leave too, are called otherwise.
        ours = re.compile(r"tmp_(obj|pack|idx|keep)_\d+_\d+|.*\.(lock|keep)")
        return [name for name in names if ours.fullmatch(name)]


def _cleared(run: Run) -> bool:
    """Whether it was the clearing up that went wrong, and nothing else."""
    return " unlink" in run.struck and "INJECTED" in run.struck


def _import(modules: list[str]) -> None:
    """Import what a child has imported, so that no later one reads it from the disk."""
    for name in modules:
        if name != "__main__":
            importlib.import_module(name)
    # A child that collects garbage would copy every page that has an object on it.
    gc.collect()
    gc.freeze()


def _answers(place: Path) -> list[Outcome]:
    return [done(place, *question) for question in _QUESTIONS]


class Still(Virtual):
    """A clock on which waiting takes time, but whose hands do not move: what is done later is the same as at once."""

    def sleep(self, seconds: float) -> None:
        self.elapsed += seconds


def _complaints(run: Run, outcomes: list[Outcome]) -> Iterator[str]:
    """What is wrong with how the commands ended."""
    if run.status and not run.killed:
        yield f"the process ended with {run.status}"
    for outcome in outcomes:
        said = (outcome.code, outcome.err.startswith("error: "), "internal error" in outcome.err)
        if said not in ((0, False, False), (6, True, False)):
            yield f"ended with {outcome}"


def _chosen(calls: Sequence[Call], most: int) -> list[Call]:
    """The calls to try: one of each kind, and of the others so many, evenly spread, that there are ``most``."""
    if not most or len(calls) <= most:
        return list(calls)
    first = {call.kind: position for position, call in reversed([*enumerate(calls)])}
    others = [position for position in range(len(calls)) if position not in first.values()]
    room = max(0, most - len(first))
    spread = [others[len(others) * number // room] for number in range(room)]
    return [calls[position] for position in sorted({*first.values(), *spread})]


def main() -> None:
    """Do what the arguments say."""
    name, *rest = sys.argv[1:]
    found: dict[str, Any] = {"tried": {}, "missed": [], "problems": []}
    try:
        trial = Trial(Path.cwd(), SCENARIOS[name])
        calls = trial.calls()
        for number, (how, _, most) in enumerate(word.partition("=") for word in rest):
            chosen = _chosen([c for c in calls if how == "KILL" or c.name not in strace.LOCKING], int(most))
            if most == "1" and how != "KILL":
                # One error or the other is enough for each kind of call.
                chosen = chosen[number % 2 :: 2]
            found["tried"][how] = len(chosen)
            for call in chosen:
                run, problems = trial.strike(call, how)
                found["missed"] += [] if run.struck else [f"{how} at {call}"]
                found["problems"] += [f"{how} at {call}\n    {problem}" for problem in problems]
    except strace.Unavailable as error:
        found["unavailable"] = str(error)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
