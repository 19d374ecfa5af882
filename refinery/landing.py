"""Where main is: here, or on a remote that several clones share, which then is the arbiter of what lands.

With ``[landing] remote``, main here only follows. Before anything is built, it is what the remote has; a landing is a
push that the remote takes if its main still is what was tested on; and what a push came to that did not say so is
looked up where it counts. So a death at any moment needs no cure of its own: the next look at the remote says what
landed.

Nothing here waits for the network. Each exchange is a process beside the tick, with a time limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from beads.clock import Clock
from beads.model import Fact
from beads.remote import REDIRECTIONS
from beads.toml import loads, validate
from refinery.checkouts import checkouts, follow, obstacle
from refinery.forge import Name
from refinery.gate import SETTINGS_FILE
from refinery.git import ABSENT, Git
from refinery.merge import Candidate
from refinery.processes import Exit, Job, Machine

FOLLOWING = "refs/beads/following/"
"""Where a branch was that is being brought along with the remote's, until its checkouts have followed."""

_FRESH_SECONDS = 15.0
"""How long it is good to know what the remote has; a push finds out by itself when it was not."""

_WAIT_MAX_SECONDS = 60.0
_QUICK_TRIES = 3
"""After this many failures in a row, somebody is told; it is tried again all the same."""


class LandingTable(Fact):
    """``[landing]``: where main is that the Refinery lands on. It counts as it is on main.

    Attributes:
        remote: the remote whose main it is, by its name in Git's configuration; empty for this repository's own.
        branch: what main is called there, where that is another name than here.
        mode: ``push`` moves main; ``request`` opens a request on the forge, and leaves main to it.
        forge: which one; it says by what program, ``gh`` or ``glab``.
        timeout: seconds that one exchange with the remote may take.
    """

    # A name and no URL: whoever can change this file must not decide where the code is sent.
    remote: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    branch: str = Field(default="", pattern=r"^([A-Za-z0-9_][A-Za-z0-9._/-]*)?$")
    mode: Literal["push", "request"] = "push"
    forge: Name = "github"
    timeout: float = Field(default=120.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _has_a_remote(self) -> LandingTable:
        if not self.remote and (self.branch or self.mode != "push"):
            raise ValueError("'branch' and 'mode' are of a 'remote', which is missing")
        if ".." in self.branch or "//" in self.branch or self.branch.endswith(("/", ".", ".lock")):
            raise ValueError(f"'branch' is {self.branch!r}, which cannot be the name of a branch")
        return self


def landing_of(git: Git, commit: str) -> LandingTable:
    """What ``commit``'s ``town.toml`` says about landing; without the file or the table, that it is done here.

    Raises:
        InvalidDocument: the table is wrong; names line and key.
    """
    text = (git.file(commit, SETTINGS_FILE) or "").encode("utf-8", "surrogateescape")
    return validate(LandingTable, loads(text, SETTINGS_FILE).get("landing", {}), text, SETTINGS_FILE, ("landing",))


class Trouble(NamedTuple):
    """Why nothing can land, and what to do about it; goes on by itself once that is done."""

    reason: str
    remedy: str


UNTROUBLED = Trouble("", "")
"""Nothing is in the way."""


@dataclass
class Trunk:
    """The main that the Refinery of one clone lands on.

    Attributes:
        git: Git in the clone.
        branch: what main is called here.
        machine: where exchanges with the remote are run.
        clock: what time it is.
        marker: marks their processes.
        logs: the directory for their output.
        environ: the user's environment, through which Git finds credentials.
        trouble: why nothing can land, by what the last exchange came to.
    """

    git: Git
    branch: str
    machine: Machine
    clock: Clock
    marker: str
    logs: Path
    environ: Mapping[str, str]
    trouble: Trouble = UNTROUBLED
    table: LandingTable = field(default_factory=LandingTable)
    _read: str = ""
    _job: Job | None = None
    _doing: Literal["ask", "fetch", "push"] = "ask"
    _pushed: Candidate | None = None
    _refusal: str = ""
    _there: str | None = None
    _known: bool = False
    _asked: float = -math.inf
    _failures: int = 0
    _not_before: float = -math.inf
    _wanted: bool = False
    _lines: list[str] = field(default_factory=list)

    @property
    def remote(self) -> str:
        """The remote that has main; empty when this repository has."""
        return self.table.remote

    @property
    def busy(self) -> bool:
        """Whether an exchange with the remote goes on, or is about to be tried again without anybody being told."""
        waiting = bool(self._failures) and not self.trouble.reason
        return self._job is not None or (waiting and self._wanted)

    @property
    def ended(self) -> bool:
        """Whether there is something to do for :meth:`tick`."""
        if self._job is not None:
            return self._job.poll() is not None
        return self.busy and self.clock.monotonic() >= self._not_before

    @property
    def ready(self) -> bool:
        """Whether main here is what main is: it says what has landed, and something can be built on it.

        It is not while a push is on its way, or came to an end that nobody knows.
        """
        if not self.remote:
            return True
        return self._known and self._pushed is None and self._there == self.git.resolve(self._ref)

    @property
    def may_land(self) -> bool:
        """Whether it is time to land; after a failure, only after a while."""
        return self.ready and self.clock.monotonic() >= self._not_before

    @property
    def _ref(self) -> str:
        return f"refs/heads/{self.branch}"

    @property
    def base(self) -> str:
        """What main is called where it counts."""
        return self.table.branch or self.branch

    @property
    def _theirs(self) -> str:
        return f"refs/heads/{self.base}"

    @property
    def _named(self) -> str:
        return f"{self.base} of {self.remote}"

    def tick(self, *, wanted: bool) -> list[str]:
        """Bring exchanges with the remote forward, and main here to where it is there; a line for what happened.

        Args:
            wanted: whether somebody wants to land. Who does not need not know what the remote has.

        Raises:
            InvalidDocument: the table is wrong.
        """
        self._wanted = wanted
        head = self.git.resolve(self._ref)
        if head is not None and head != self._read:
            before, self.table, self._read = self.table, landing_of(self.git, head), head
            # What is known of another remote says nothing of this one.
            self._known &= before == self.table
        if not self.remote:
            return []
        if self._job is not None:
            exit = self._job.poll()
            if exit is not None:
                self._job = None
                self._end(exit)
        now = self.clock.monotonic()
        stale = not self._known or now - self._asked > _FRESH_SECONDS
        if self._job is None and stale and now >= self._not_before and (wanted or self._pushed is not None):
            self._start("ask", "ls-remote", "--refs", "--", self.remote, self._theirs)
        lines, self._lines = self._lines, []
        return lines

    def push(self, candidate: Candidate) -> None:
        """Begin to make the candidate the remote's main, if that still is the candidate's base."""
        lease = f"--force-with-lease={self._theirs}:{candidate.base}"
        what = f"{candidate.commit}:{self._theirs}"
        self._pushed, self._refusal = candidate, ""
        # Hooks of the user's are run here: Git LFS sends its files from one.
        self._start("push", "push", "--porcelain", "--atomic", "--no-follow-tags", lease, "--", self.remote, what)

    def cancel(self) -> None:
        """End what goes on; what it came to is found out by the next look."""
        if self._job is not None:
            # Git removes its lock files when it is asked to end.
            self._job.cancel(grace=2.0)
            self._job, self._known = None, False

    def _start(self, doing: Literal["ask", "fetch", "push"], *args: str) -> None:
        self._doing = doing
        self._job = self.machine.start(
            ["git", *args],
            cwd=self.git.directory,
            environ=unattended(self.environ),
            log=self.logs / f"landing-{doing}.log",
            timeout=self.table.timeout,
            marker=self.marker,
            clock=self.clock,
        )

    def _end(self, exit: Exit) -> None:
        if self._doing == "push":
            self._end_push(exit)
        elif exit.kind != "exited" or exit.code:
            self._fail(Trouble(f"the remote {self.remote} cannot be read: {said(exit)}", _UNREADABLE))
        elif self._doing == "ask":
            self._answer(listed(exit, self._theirs))
        elif self._there is not None and self.git.has(self._there):
            self._learn(self._there)
        else:
            self._known = False

    def _answer(self, there: str) -> None:
        """Take what the remote says its main is."""
        self._asked = self.clock.monotonic()
        if not there:
            remedy = f"Push it: git push {self.remote} {self._ref}:{self._theirs}"
            self._fail(Trouble(f"there is no {self._named}", remedy), told=True)
            return
        self._there = there
        if self.git.has(there):
            self._learn(there)
        else:
            # To no ref, so that no death leaves one locked.
            quiet = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--refmap=")
            checked = ("-c", "fetch.fsckObjects=true", "-c", "maintenance.auto=false", "-c", "gc.auto=0")
            self._start("fetch", *checked, "fetch", *quiet, "--", self.remote, self._theirs)

    def _learn(self, there: str) -> None:
        """Act on what the remote's main is, now that it is here: what became of a push, and where ours has to be."""
        pushed, refusal = self._pushed, self._refusal
        self._pushed, self._known = None, True
        if pushed is not None and there == pushed.base:
            # Also where the other side said yes: it is where it was.
            told = bool(_FORBIDDEN.search(refusal)) or not _PASSING.search(refusal)
            self._fail(_unpushed(self.remote, self._named, refusal), told=told)
            self._known = True
            return
        if pushed is not None or not _PUSHING.search(self.trouble.reason):
            self._failures, self.trouble = 0, UNTROUBLED
        if pushed is not None and not self.git.is_ancestor(pushed.commit, there):
            ids = ", ".join(member.id for member in pushed.members)
            self._lines.append(f"{self._named} moved while {ids} was about to land; trying again on the new one")
        self._follow(there)

    def _follow(self, there: str) -> None:
        """Bring main here to where it is there, and what has it checked out: only forward, and over nobody's work."""
        here = self.git.resolve(self._ref)
        left = self.git.resolve(FOLLOWING + self.branch)
        if here is None:
            self.trouble = Trouble(
                f"the branch {self.branch} is gone", f"Make it again: git branch {self.branch} {there[:12]}"
            )
            return
        if here == there and left is None:
            return
        if not self.git.is_ancestor(here, there):
            what = f"{self.branch} here has {_count(self.git, there, here)} that {self._named} has not"
            self.trouble = Trouble(
                what, f"Push them, or keep them on another branch: git log {there[:12]}..{self.branch}"
            )
            return
        old = left or here
        for checkout in checkouts(self.git, self.branch) if here != there else ():
            reason = obstacle(self.git, checkout, old, there)
            if reason:
                what = f"{self.branch} is checked out in {checkout.path} and cannot follow {self.remote}: {reason}"
                self.trouble = Trouble(what, f"Commit, stash or remove that in {checkout.path}.")
                return
        self.git.swap(FOLLOWING + self.branch, old, left or ABSENT, "following")
        if here == there or self.git.swap(self._ref, there, here, f"follow {self.remote}"):
            for checkout in checkouts(self.git, self.branch):
                if not follow(self.git, checkout, old, there):
                    self._lines.append(f"{checkout.path} stays as it is, and does not follow {self.branch}")
            self.git.delete(FOLLOWING + self.branch, old)
        else:
            # Somebody moved it just now.
            self._known = False

    def _end_push(self, exit: Exit) -> None:
        """Note what the push said of itself, and look what came of it."""
        self._known = False
        if exit.kind != "exited" or exit.code:
            self._refusal = said(exit)
        elif self._pushed is not None:
            # It was accepted, which needs no second look.
            self._there = self._pushed.commit
            self._learn(self._there)

    def _fail(self, trouble: Trouble, *, told: bool = False) -> None:
        """Try again after a while, each time a longer one; tell somebody when it is refused, or fails for long."""
        self._known = False
        self._failures += 1
        self._not_before = self.clock.monotonic() + min(2.0 ** (self._failures - 1), _WAIT_MAX_SECONDS)
        if told or self._failures >= _QUICK_TRIES or self.trouble.reason:
            self.trouble = trouble


_UNREADABLE = "See whether `git fetch` works there; landing goes on by itself once it does."
_FORBIDDEN = re.compile(r"\b40[13]\b|[Aa]uthenticat|denied|[Pp]ermission|not allowed|protected|hook declined")
_PASSING = re.compile(
    r"stale info|fetch first|lock|failed to update|no answer|[Cc]onnection|[Cc]ould not (?:read|resolve|connect)"
    r"|unable to access|early EOF|hung up|timed out|unexpected disconnect|^$"
)
"""What a push says that may go better the next time; whatever else it says, somebody has to see to it."""

_PUSHING = re.compile("does not take")


def unattended(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that is the user's own and reaches a remote: with credentials, and asking nobody."""
    kept = {name: value for name, value in environ.items() if name not in REDIRECTIONS}
    return {**kept, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_PAGER": "cat"}


def listed(exit: Exit, ref: str) -> str:
    """Where ``git ls-remote`` says that a ref is; empty when it is not. Git lists every one that ends so."""
    lines = (line.split("\t") for line in exit.output.splitlines())
    return next((oid for oid, *name in lines if name == [ref]), "")


def _unpushed(remote: str, named: str, refusal: str) -> Trouble:
    """What is wrong with a push that changed nothing."""
    remedy = f'Let the Refinery push to {named}, or have it ask for that: [landing] mode = "request".'
    if _PASSING.search(refusal) and not _FORBIDDEN.search(refusal):
        remedy = _UNREADABLE
    elif "rejected]" not in refusal and not _FORBIDDEN.search(refusal):
        remedy = f"See what `git push --dry-run {remote}` says; it may be a hook of this clone (pre-push)."
    return Trouble(f"the remote {remote} does not take what is to land on it: {refusal or 'it said nothing'}", remedy)


def said(exit: Exit) -> str:
    """What Git and the other side complained of: in one line, the same for every commit, without anybody's password."""
    if exit.kind == "timeout":
        return f"no answer within {exit.seconds:.0f} s"
    lines = [line.strip() for line in exit.output.splitlines()]
    told = [line.rsplit("\t", 1)[-1] for line in lines if re.match(r"fatal:|error:|remote: *\S|ssh:|!\t", line)]
    told = [line for line in dict.fromkeys(told) if "failed to push some refs" not in line] or told
    text = "; ".join(told[:6]) or " ".join(lines[-3:]) or f"it ended with {exit.code or exit.kind}"
    return re.sub(r"//[^/@\s]*@", "//", " ".join(text.split()))[:600]


def _count(git: Git, old: str, new: str) -> str:
    number = int(git.line("rev-list", "--count", f"{old}..{new}"))
    return f"{number} commit{'s' if number != 1 else ''}"
