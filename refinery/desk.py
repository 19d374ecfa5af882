"""Requests on a forge, opened instead of landing: one after the other, each once, and seen to until main has them.

Nothing that matters is kept here. That one was opened is stored with the merge request; killed before that, the next
look for its branch finds it on the forge.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from beads.clock import Clock
from beads.errors import Unreadable
from beads.model import Bead
from refinery.forge import FORGES, Forge, Seen, place_of
from refinery.git import Git
from refinery.landing import UNTROUBLED, LandingTable, Trouble, listed, said, unattended
from refinery.merge import Request
from refinery.processes import Exit, Job, Machine

OPENED = "the request on the forge"
"""The subject of the evidence that a request was opened on the forge, which says where."""

_LOOK_SECONDS = 60.0
_WAIT_MAX_SECONDS = 300.0


@dataclass(frozen=True)
class Ask:
    """What is to be asked for on the forge.

    Attributes:
        request: the merge request.
        branch: where its head is pushed to.
        ours: what else we may have pushed there: the heads that were asked for before.
        title: what the forge shows.
        body: likewise.
    """

    request: Request
    branch: str
    ours: tuple[str, ...]
    title: str
    body: str


@dataclass
class Desk:
    """What one clone has to do with a forge.

    Attributes:
        git: Git in the clone.
        machine: where the forge's command line is run.
        clock: what time it is.
        marker: marks its processes.
        logs: the directory for their output.
        environ: the user's environment, through which they find credentials.
        trouble: why nothing can be asked for, by what the last command came to.
        seen: what there is on the forge, by the id of the merge request.
    """

    git: Git
    machine: Machine
    clock: Clock
    marker: str
    logs: Path
    environ: Mapping[str, str]
    trouble: Trouble = UNTROUBLED
    seen: dict[str, Seen] = field(default_factory=dict)
    _looked: dict[str, float] = field(default_factory=dict)
    _todo: deque[Ask] = field(default_factory=deque)
    _job: Job | None = None
    _doing: Literal["seek", "where", "push", "open"] = "seek"
    _there: str = ""
    _failures: int = 0
    _not_before: float = -math.inf

    @property
    def busy(self) -> bool:
        """Whether a command of the forge is running."""
        return self._job is not None

    @property
    def ended(self) -> bool:
        """Whether there is something to do for :meth:`tick`."""
        return self._job is not None and self._job.poll() is not None

    def tick(self, table: LandingTable, base: str, asks: Sequence[Ask], opened: Sequence[Ask]) -> None:
        """Bring forward what is to be asked for, and look after what was.

        Args:
            table: where the forge is.
            base: what main is called there.
            asks: what is to be opened, in this order, where it is not.
            opened: what was, and is looked after now and then.
        """
        now = self.clock.monotonic()
        exit = self._job.poll() if self._job is not None else None
        if exit is not None:
            self._job = None
            self._end(table, base, exit)
        if self.busy or now < self._not_before:
            return
        if not self._todo:
            new = [ask for ask in asks if ask.request.id not in self.seen]
            old = [ask for ask in opened if now >= self._looked.get(ask.request.id, -math.inf) + _LOOK_SECONDS]
            self._todo.extend([*new, *old])
        if self._todo:
            forge, where = self._forge(table)
            self._start(table, "seek", forge.seek(where, self._todo[0].branch, base))

    def cancel(self) -> None:
        """End what goes on; what it came to is found out by the next look."""
        if self._job is not None:
            self._job.cancel(grace=2.0)
            self._job = None
        self._todo.clear()

    def _forge(self, table: LandingTable) -> tuple[Forge, str]:
        url = self.git.run("remote", "get-url", "--", table.remote, ok=(0, 2, 128)).out.strip()
        return FORGES[table.forge], place_of(url)

    def _start(
        self, table: LandingTable, doing: Literal["seek", "where", "push", "open"], argv: Sequence[str], text: str = ""
    ) -> None:
        self._doing = doing
        quiet: Mapping[str, str] = FORGES[table.forge].quiet if argv[0] != "git" else {}
        self._job = self.machine.start(
            argv,
            cwd=self.git.directory,
            environ={**unattended(self.environ), **quiet},
            log=self.logs / f"forge-{doing}.log",
            timeout=table.timeout,
            marker=self.marker,
            clock=self.clock,
            stdin=text,
            output_max=1 << 20,
        )

    def _end(self, table: LandingTable, base: str, exit: Exit) -> None:
        forge, where = self._forge(table)
        ask = self._todo[0]
        if exit.kind != "exited" or exit.code:
            # Where another clone has opened one meanwhile, the next look finds it.
            self._fail(_trouble(forge if self._doing in ("seek", "open") else None, table.remote, exit))
        elif self._doing == "seek":
            self._found(table, ask, forge, exit.output)
        elif self._doing == "where":
            self._push(table, ask, listed(exit, f"refs/heads/{ask.branch}"))
        elif self._doing == "push" and not self._there:
            argv, text = forge.open(where, ask.branch, base, ask.title, ask.body)
            self._start(table, "open", argv, text)
        else:
            # The next look says what is there now.
            self._start(table, "seek", forge.seek(where, ask.branch, base))

    def _found(self, table: LandingTable, ask: Ask, forge: Forge, output: str) -> None:
        """Take what there is of a branch; what is missing is made."""
        try:
            seen = forge.read(output)
        except Unreadable as error:
            self._fail(Trouble(error.message, f"See what `{forge.program}` says there."))
            return
        mine = [one for one in seen if one.head == ask.request.head]
        best = next((one for state in ("merged", "open", "closed") for one in mine if one.state == state), None)
        if best is not None:
            self._failures, self.trouble = 0, UNTROUBLED
            self.seen[ask.request.id] = best
            self._looked[ask.request.id] = self.clock.monotonic()
            self._todo.popleft()
            return
        # One that is open for what was asked for before goes on with what is pushed now.
        self._there = next((one.url for one in seen if one.state == "open"), "")
        self._start(table, "where", ["git", "ls-remote", "--refs", "--", table.remote, f"refs/heads/{ask.branch}"])

    def _push(self, table: LandingTable, ask: Ask, there: str) -> None:
        """Push the branch, if nobody else has pushed something there."""
        if there and there not in (ask.request.head, *ask.ours):
            remedy = f"Bring it into the work, or delete the branch: git push {table.remote} --delete {ask.branch}"
            self._fail(Trouble(f"somebody has pushed {there[:12]} to {ask.branch} of {table.remote}", remedy))
            return
        lease = f"--force-with-lease=refs/heads/{ask.branch}:{there}"
        what = f"{ask.request.head}:refs/heads/{ask.branch}"
        self._start(table, "push", ["git", "push", "--porcelain", "--no-follow-tags", lease, "--", table.remote, what])

    def _fail(self, trouble: Trouble) -> None:
        self._failures += 1
        self._not_before = self.clock.monotonic() + min(2.0**self._failures, _WAIT_MAX_SECONDS)
        self._todo.clear()
        self.trouble = trouble


def _trouble(forge: Forge | None, remote: str, exit: Exit) -> Trouble:
    if forge is None:
        return Trouble(
            f"the remote {remote} does not take a branch: {said(exit)}", "See whether `git push` works there."
        )
    if exit.kind == "unrunnable":
        remedy = f'Install it ({forge.install}), or land on main: [landing] mode = "push".'
        return Trouble(f"there is no {forge.program} to open a request with", remedy)
    remedy = f"Try `{forge.program} auth status`; `{forge.login}` makes you known to it."
    return Trouble(f"{forge.program} cannot do what is asked: {said(exit)}", remedy)


def opened_as(request: Bead) -> str:
    """Where a merge request was opened on the forge, in words; empty when it was not."""
    return next((e.detail for e in reversed(request.evidence) if e.subject == OPENED), "")
