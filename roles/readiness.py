"""Make a work tree ready to be worked in, and see that it is: files to copy, a set-up line, a check.

Where that fails, the work is not to blame: the molecule is put off, without an attempt being lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from beads.errors import Refused
from beads.model import Evidence, milliseconds
from refinery.copying import bring
from refinery.git import ABSENT
from refinery.processes import Exit, shell
from refinery.workshop import Worktree
from roles.logs import keep
from roles.site import Site
from roles.task import Launch

_READY = "refs/worktree/beadtown/ready"
"""The ref, of each work tree its own, that says that it was set up; it goes with it."""

Run = Callable[[Launch, str, float], Exit]
"""Runs something in the work tree: what, what its log is called, and for how many seconds at most."""


class Unready(Exception):
    """A work tree cannot be made ready.

    Args:
        what: the part of ``[worktree]`` that failed.
        detail: how, in a few words.
        exit: the end of the command, where it was one.
    """

    def __init__(self, what: str, detail: str, exit: Exit | None = None) -> None:
        super().__init__(f"{what}: {detail}")
        self.what = what
        self.detail = detail
        self.exit = exit

    def evidence(self, tree: str, by: str, now: datetime) -> Evidence:
        """What was found, to be stored, so that `bead why` can say it."""
        at = milliseconds(now)
        key = f"{self.what}\0{tree}\0{by}\0{at.isoformat()}"
        return Evidence(
            id=hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:12],
            subject=self.what,
            verdict="fail",
            detail=self.detail,
            tree=tree,
            exit=self.exit.code if self.exit else None,
            seconds=round(self.exit.seconds, 3) if self.exit else 0.0,
            output=self.exit.output if self.exit else "",
            digest=self.exit.digest if self.exit else "",
            by=by,
            at=at,
        )


def make_ready(site: Site, worktree: Worktree, run: Run) -> None:
    """Copy what is to be copied and run the set-up line, unless that has been done here; then run the check.

    A work tree that does not pass the check is set up once more.

    Raises:
        Unready: it still does not pass, or cannot be set up.
    """
    table, git = site.settings.worktree, site.git.at(worktree.path)
    if not (table.setup or table.copies or table.ready):
        return
    done = git.resolve(_READY)
    if done is None:
        _set_up(site, worktree, run)
    if not table.ready or _check(site, worktree, run).code == 0:
        return
    if done is not None:
        git.delete(_READY, done)
    _set_up(site, worktree, run)
    exit = _check(site, worktree, run)
    if exit.code != 0:
        raise _failed("ready", table.ready, exit)


def _set_up(site: Site, worktree: Worktree, run: Run) -> None:
    table, git = site.settings.worktree, site.git.at(worktree.path)
    try:
        bring(site.git.directory, git, table.copies, [site.workshop.root])
    except Refused as error:
        raise Unready("[worktree] copy", error.message.removeprefix("[worktree] copy: ")) from error
    if table.setup:
        exit = run(Launch(shell(table.setup)), "setup", table.setup_timeout)
        if exit.code != 0:
            raise _failed("setup", table.setup, exit)
    # Already there when it is set up again.
    git.swap(_READY, worktree.head(), ABSENT, "set up")


def _check(site: Site, worktree: Worktree, run: Run) -> Exit:
    """Run the check; what it leaves behind is cleared away, as after every look."""
    table, tree = site.settings.worktree, worktree.tree()
    exit = run(Launch(shell(table.ready)), "ready", table.ready_timeout)
    worktree.reset(tree)
    return exit


def _failed(key: str, line: str, exit: Exit) -> Unready:
    how = {"timeout": f"timed out after {exit.seconds:.0f} s", "signalled": f"killed by signal {exit.signal}"}
    keep(exit, exit.log.parent)
    return Unready(f"[worktree] {key}: {line}", how.get(exit.kind, f"exit {exit.code}"), exit)
