"""The dry run of a plan: which of its criteria hold on main as it is, and which cannot be tried at all.

A criterion that holds before anything was done proves nothing, and one that cannot be run will never hold: both are
better known before a plan is accepted than after an agent was paid. What the commands of a plan are is a model's word,
so that they are run in a sandbox, without the files that ``[worktree] copy`` brings, or not at all; and nothing that
they print is told to a model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from beads.errors import Refused, Unreadable
from beads.lines import Place
from beads.model import Criterion
from beads.plan import Plan
from beads.touches import overlap
from refinery.containment import Reach
from refinery.processes import Exit, shell
from roles.acceptance import look_at_file, searching
from roles.readiness import Unready, make_ready
from roles.remarks import LATER, Kind, Look, Remark, judged, plain
from roles.room import Room, room
from roles.site import Site, Stopped, wait
from roles.station import ATTEMPT
from roles.task import Launch

EACH_SECONDS = 60.0
"""How long one command may take; one whose criterion allows more may be right all the same."""

ALL_SECONDS = 300.0
"""How long everything together may take, the set-up of the work tree included."""


@dataclass(frozen=True)
class Bounds:
    """How long a rehearsal may take, in seconds: each command, and everything together."""

    each: float = EACH_SECONDS
    all: float = ALL_SECONDS


def rehearse(
    site: Site,
    plan: Plan,
    *,
    trusted: bool = False,
    bounds: Bounds = Bounds(),
    stopping: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Remark, ...]:
    """Try the criteria of a plan on main, in a work tree that is thrown away; each command once.

    Args:
        site: the clone.
        plan: the plan.
        trusted: whether a person wrote it, so that it is tried without a sandbox, too, where there is none.
        bounds: how long it may take. What there is no time for is not tried.
        stopping: says whether to stop; what is left then is not tried.
        tell: told what is done now, a line each time.

    Raises:
        NotFound: there is no main branch.
    """
    points = list(_points(plan))
    looks = _Rehearsal(site, trusted, bounds, stopping, tell).looks([point.criterion for point in points])
    expected = [pattern for molecule in plan.molecules for pattern in molecule.touches]
    remarks: list[Remark] = []
    for _, mine in itertools.groupby(points, key=lambda point: point.step_place):
        step = list(mine)
        found = [_remark(point, looks[_key(point.criterion)], expected) for point in step]
        remarks += [*found, *_of_step(step[0], found)]
    return tuple(remarks)


class _Point(NamedTuple):
    """A criterion in its plan; ``early`` when nothing comes before its step, in its molecule or in another one."""

    molecule: str
    step: str
    step_place: Place
    place: Place
    criterion: Criterion
    early: bool


def _points(plan: Plan) -> Iterator[_Point]:
    for index, molecule in enumerate(plan.molecules):
        order, top = molecule.order(), ("molecules", index)
        for number, step in enumerate(molecule.work()):
            where: Place = (*top, "steps", number) if molecule.steps else top
            for n, criterion in enumerate(step.criteria):
                place: Place = (*where, "criteria", n)
                early = not (order[step.id] or molecule.needs)
                yield _Point(molecule.id, step.id, where, place, criterion, early)


def _remark(point: _Point, look: Look, expected: Sequence[str]) -> Remark:
    """What is known of a criterion. What it misses is wrong where the plan says what it touches, and not that."""
    astray = bool(expected) and not all(any(overlap(m.split("::")[0], e) for e in expected) for m in look.missing)
    look = look._replace(wrong=look.wrong or astray)
    return Remark(point.molecule, point.step, point.place, point.criterion, *look)


def _of_step(point: _Point, found: Sequence[Remark]) -> Iterator[Remark]:
    """That a step has nothing left to prove: who does nothing keeps within limits, and nobody has to be asked."""
    if all(remark.kind == "holds" or (remark.criterion and remark.criterion.kind == "diff") for remark in found):
        unless = "" if point.early else ", unless what comes before it changes that"
        detail = f"all that it is to prove holds on main already: it would close with nothing done{unless}"
        yield Remark(point.molecule, point.step, point.step_place, None, "holds_already", detail, wrong=point.early)


# ── Trying ───────────────────────────────────────────────────────────────────────────────────────────────────


def _key(criterion: Criterion) -> object:
    """What a look depends on: two of one key are the same."""
    return (criterion.run, criterion.exit, criterion.timeout) if criterion.run else criterion


class _NoTime(Exception):
    """There is no time left for anything."""


@dataclass
class _Rehearsal:
    """One rehearsal; see :func:`rehearse` for what it is made of."""

    site: Site
    trusted: bool
    bounds: Bounds
    stopping: Callable[[], bool]
    tell: Callable[[str], None]
    _end: float = 0.0
    _reason: str = ""

    def looks(self, criteria: Sequence[Criterion]) -> dict[object, Look]:
        """What looking at each of them gave, by their keys."""
        self._end = self.site.clock.monotonic() + self.bounds.all
        distinct = {_key(criterion): criterion for criterion in criteria}
        found: dict[object, Look] = {}
        try:
            self._try(distinct, found)
        except Stopped:
            self._reason = "the rehearsal was stopped"
        except _NoTime:
            self._reason = f"there was no time left of {self.bounds.all:g} s for all of it"
        except (Refused, Unreadable, OSError) as error:
            # A full disk, or something that a command has left behind: no reason not to show the plan.
            self._reason = f"there is no work tree of main to try it in: {error}"
        untried = {key: Look("not_tried", LATER.get(c.kind, self._reason)) for key, c in distinct.items()}
        return {**untried, **found}

    def _try(self, distinct: Mapping[object, Criterion], found: dict[object, Look]) -> None:
        """Look at one after the other. What is in the way is in ``_reason`` then; what was found is in ``found``."""
        head = self.site.main_head()
        files = {key: c for key, c in distinct.items() if c.file}
        commands = {key: c for key, c in distinct.items() if c.run}
        self._reason = self._refusal()
        if not files and (self._reason or not commands):
            return
        if cramped := self.site.shortage():
            self._reason = cramped
            return
        self._go_on()
        self.tell("making a work tree of main")
        with room(self.site, head) as place:
            for key, criterion in files.items():
                found[key] = self._file(place, criterion)
            self._reason = self._reason or (self._set_up(place) if commands else "")
            if not self._reason:
                self._commands(place, commands, found)

    def _refusal(self) -> str:
        """Why no command of the plan may be run; empty when it may."""
        try:
            if self.site.sandbox.confines or self.trusted:
                return ""
        except Refused as error:
            return error.message
        return "there is no sandbox, and what a model wrote is not run without one"

    def _set_up(self, place: Room) -> str:
        """Make the work tree ready as for a polecat; why that is not possible, or nothing."""
        table = self.site.settings.worktree
        if not self.trusted:
            # Nobody has approved yet of letting these commands see them.
            table = table.model_copy(update={"copies": ()})
        if table.setup or table.ready:
            self.tell("setting the work tree up")
        reach, about = Reach((place.worktree.path,), network=table.network), {"BEADTOWN_BEAD": place.name, ATTEMPT: "0"}
        site = replace(self.site, settings=self.site.settings.model_copy(update={"worktree": table}))
        try:
            make_ready(
                site,
                place.worktree,
                lambda what, label, most: self._run(place, replace(what, environ=about), label, most, reach),
            )
        except Unready as error:
            return f"the work tree cannot be made ready: {error}"
        return ""

    def _commands(self, place: Room, commands: Mapping[object, Criterion], found: dict[object, Look]) -> None:
        tree, reach = place.worktree.tree(), Reach((place.worktree.path,), network=self.site.settings.sandbox.network)
        for number, (key, criterion) in enumerate(commands.items(), start=1):
            self._go_on()
            self.tell(f"trying {number} of {len(commands)}: {plain(criterion.run)}")
            most = min(criterion.timeout, self.bounds.each)
            exit = self._run(place, Launch(shell(criterion.run)), "criterion", most, reach)
            found[key] = judged(criterion, exit, lambda path: _there(place.worktree.path / path), self.bounds.each)
            # What a command leaves behind must not help the next one.
            place.worktree.reset(tree)

    def _file(self, place: Room, criterion: Criterion) -> Look:
        most = min(criterion.timeout, self.bounds.each)
        late: list[bool] = []

        def search(expression: str, text: str) -> bool | None:
            argv, stdin = searching(expression, text)
            exit = self._run(place, Launch(argv, stdin), "search", most)
            late.append(exit.kind != "exited")
            return exit.code == 0 if exit.kind == "exited" else None

        self._go_on()
        found = look_at_file(criterion, place.worktree.path, search)
        if any(late):
            return Look("timeout", f"its expression was not through after {most:g} s", wrong=True)
        kinds: dict[str, Kind] = {"pass": "holds", "fail": "fails"}
        return Look(kinds.get(found.verdict, "cannot_run"), found.detail, wrong=found.verdict not in kinds)

    def _run(self, place: Room, what: Launch, label: str, most: float, reach: Reach | None = None) -> Exit:
        """Run something in the work tree, for so many seconds at most; without a sandbox only what is our own.

        Raises:
            Stopped: it was asked to stop.
            _NoTime: the time for everything is up.
        """
        self._go_on()
        left = self._end - self.site.clock.monotonic()
        job = self.site.machine.start(
            what.argv,
            cwd=place.worktree.path,
            environ=self.site.surroundings((), **what.environ),
            log=place.logs / f"{label}.log",
            timeout=max(0.01, min(most, left)),
            marker=self.site.marker(place.name),
            clock=self.site.clock,
            stdin=what.stdin,
            within=self.site.sandbox.around(reach, place.worktree.path) if reach else (),
            secrets=self.site.secrets,
        )
        exit = wait(job, self.site, self.stopping, lambda: None)
        if exit.kind == "timeout" and left < most:
            raise _NoTime
        return exit

    def _go_on(self) -> None:
        """See whether to go on at all."""
        if self.stopping():
            raise Stopped
        if self.site.clock.monotonic() >= self._end:
            raise _NoTime


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # A name that is longer than any can be.
        return False
