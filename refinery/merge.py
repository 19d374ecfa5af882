"""Candidates without a work tree, landing by compare-and-swap, and what is true after a kill.

A candidate is a commit that main could become. Member merges are stacked on each other; main itself gets one
first-parent commit, whose tree is the tested one, however many requests it lands::

    base ────────────────── L   "Land 2 merge requests: bt-a, bt-b"   (first parent base, second M2)
      ├── M1 ──────── M2 ──┘
      │   │           └ head of bt-b
      │   └ head of bt-a

A train of one needs no stack: L merges its head directly. Only L has ``Merge-Request:`` trailers, one for each
member, so that each occurs once on main and on a state that was tested.

What Git takes from where: merge drivers come from the configuration, attributes from ``info/attributes`` and from
the ``.gitattributes`` of the *base* commit. A candidate's own ``.gitattributes`` take effect once they are on main.
Left to itself, ``git merge-tree`` reads the files of whatever is checked out where it runs, edits and all, and in
a bare repository none; therefore it runs here in a directory that has the base's and nothing else.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from beads.errors import InvalidInput, Unreadable
from beads.model import check_id
from refinery.git import Git, Identity

SCRATCH = "merge-"
"""How the directories begin that merging uses in ``beads`` below the Git directory; the process id follows."""

CANDIDATES = "refs/beads/candidate/"
"""Where :func:`publish` names candidates, by the id of their last member."""

_OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_UNREAD = re.compile(r"^error: Could not read [0-9a-f]{40}", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    """A pinned head that asks to go onto main.

    Attributes:
        id: the merge request's bead.
        title: what it is about; shown as one line, whatever it holds.
        head: the full id of the commit, never a name: what is landed is what was submitted.
        molecule: the bead whose work it is.
        needs: the ids of the requests that have to be on main before it is, or land with it.

    Raises:
        InvalidInput: an id is not a bead id, or ``head`` not an object id; so none can pass for a trailer or option.
    """

    id: str
    title: str
    head: str
    molecule: str
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_id(self.id)
        check_id(self.molecule)
        if not _OBJECT.fullmatch(self.head):
            raise InvalidInput(
                f"{self.id}: head {self.head[:80]!r} is not a full commit id", "Pin it: git rev-parse BRANCH."
            )


@dataclass(frozen=True)
class Candidate:
    """What main would become with ``members`` merged, in this order.

    Attributes:
        base: the commit of main it is built on, and the only one it may replace.
        commit: what main would be; its first parent is ``base``.
        tree: what is tested; verdicts are about this.
    """

    base: str
    members: tuple[Request, ...]
    commit: str
    tree: str


@dataclass(frozen=True)
class Conflict:
    """A request that does not merge as it is.

    Attributes:
        paths: where; empty when the request shares no history with main.
        messages: what Git says about it, for whoever resolves it.
    """

    request: Request
    paths: tuple[str, ...]
    messages: str


@dataclass(frozen=True)
class Stack:
    """The queue, merged as far as it merges: every request is in the last candidate or in one of the other lists.

    Attributes:
        base: the commit of main that all of this is about.
        candidates: ``candidates[k - 1]`` has the first ``k`` of those that merge.
        conflicts: with main itself: they have to be done again on top of it.
        waiting: merge with main, but with those stacked before them conflict or bring nothing new; or need one that
            is not in the stack. Those before may never land, so this is no reason to send anybody back: try again
            when they have landed or are gone.
        contained: merging them would change nothing, main has it all.
        missing: their commit is not in this repository, or not yet.
    """

    base: str
    candidates: tuple[Candidate, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    waiting: tuple[Conflict, ...] = ()
    contained: tuple[Request, ...] = ()
    missing: tuple[Request, ...] = ()


def stack(git: Git, base: str, requests: Sequence[Request], who: Identity, when: datetime) -> Stack:
    """Merge requests onto ``base``, each on top of those before it, without touching refs or work trees.

    One that does not merge is left out, and those after it are stacked without it. Conflicts are judged against
    main itself: one with a request that is merely pending sends nobody back, because that may never land.

    The same arguments give the same commits. A merge takes about six milliseconds, so call this when main or the
    queue has changed; ``when`` should follow from the requests rather than from the clock.

    Args:
        git: Git, in any directory of the repository.
        base: the full id of the commit that main is at.
        requests: in the order in which they shall land.
        who: author and committer.
        when: the date of all commits, aware; in whole seconds.

    Raises:
        Unreadable: Git failed for another reason than a conflict.
    """
    write = _writer(git, who, when)
    trunk = tip = _Tip(base, git.line("rev-parse", "--verify", f"{base}^{{tree}}"))
    present = _commits(git, requests)
    candidates: list[Candidate] = []
    outside = _Outside([], [], [])
    members: tuple[Request, ...] = ()
    with _merger(git, base) as merge:
        for request in (request for request in requests if request.head in present):
            missed = set(request.needs) - {member.id for member in members}
            if missed:
                outside.waiting.append(Conflict(request, (), f"It needs {', '.join(sorted(missed))}."))
                continue
            tree = _place(request, trunk, tip, merge, outside)
            if not tree:
                continue
            members = (*members, request)
            tip = _Tip(write(tree, (tip.commit, request.head), _merge_message(request)), tree)
            second = request.head if len(members) == 1 else tip.commit
            candidates.append(Candidate(base, members, write(tree, (base, second), _landing_message(members)), tree))
    missing = tuple(request for request in requests if request.head not in present)
    conflicts, waiting, contained = outside
    return Stack(base, tuple(candidates), tuple(conflicts), tuple(waiting), tuple(contained), missing)


def publish(git: Git, candidates: Iterable[Candidate]) -> None:
    """Make the refs under :data:`CANDIDATES` exactly these candidates, each by the id of its last member.

    A ref keeps the candidate's objects from being pruned and lets a person look at what is being tested. Nothing
    depends on it: :func:`stack` makes the same commits again. Without candidates, all the refs are removed.
    """
    wanted = {f"{CANDIDATES}{candidate.members[-1].id}": candidate.commit for candidate in candidates}
    listed = git.run("for-each-ref", "--format=%(refname) %(objectname)", CANDIDATES).out.split("\n")[:-1]
    there = dict(line.split(" ") for line in listed)
    orders = [f"delete {ref}" for ref in there if ref not in wanted]
    orders += [f"update {ref} {commit}" for ref, commit in wanted.items() if there.get(ref) != commit]
    if orders:
        git.run("update-ref", "--stdin", stdin="\n".join([*orders, ""]))


def land(git: Git, branch: str, candidate: Candidate) -> bool:
    """Move ``branch`` from the candidate's base to the candidate, if it still is at the base.

    Returns:
        Whether the branch is now at the candidate; False when it has moved elsewhere, and nothing was changed.

    Raises:
        Unreadable: the branch is at the base but Git does not move it: another process holds its lock, a hook
            forbids it, the disk is full.
    """
    ref = f"refs/heads/{branch}"
    reason = "land " + " ".join(member.id for member in candidate.members)
    answer = git.run("update-ref", "-m", reason, ref, candidate.commit, candidate.base, ok=(0, 1, 128))
    now = git.resolve(ref)
    if answer.status and now == candidate.base:
        raise Unreadable(f"git did not move {branch} to {candidate.commit}: {answer.err.strip()}")
    return answer.status == 0 or now == candidate.commit


def landed(git: Git, branch: str, requests: Iterable[Request], since: str = "") -> dict[str, str]:
    """Which of these requests ``branch`` has, by what its history says alone: id of the request → commit.

    The commit is the one that main moved to. It counts when it names the request in a ``Merge-Request:`` trailer
    *and* merges the request's head, directly or in the stack that is its second parent: a commit message on
    somebody's branch proves nothing.

    Args:
        git: Git, in any directory of the repository.
        branch: such as ``main``.
        requests: those to look for.
        since: a commit; its history is not searched. Empty: all of history is.
    """
    heads = {request.id: request.head for request in requests}
    span = f"{since}..refs/heads/{branch}" if since else f"refs/heads/{branch}"
    found: dict[str, str] = {}
    for line in git.run("-c", "trailer.separators=:", "log", *_LOG, span, "--").out.split("\n")[:-1]:
        commit, first, second, *ids = line.split(" ")
        named = [i for i in ids if i in heads and i not in found]
        merged = _merged_heads(git, first, second) if named else set()
        found.update({i: commit for i in named if heads[i] in merged})
    return found


_LOG = (
    "--no-show-signature",
    "--no-color",
    "--encoding=UTF-8",
    "--topo-order",
    "--reverse",
    "--min-parents=2",
    "--max-parents=2",
    "--fixed-strings",
    "--grep=Merge-Request: ",
    "--format=%H %P %(trailers:key=Merge-Request,valueonly,unfold,separator=%x20)",
)


def _merged_heads(git: Git, first: str, second: str) -> set[str]:
    """What a commit with these parents merges: the second, or if that is a stack on the first, its members."""
    members = git.run("rev-list", "--first-parent", "--parents", "--min-parents=2", f"{first}..{second}").out
    return {second, *(line.split(" ")[2] for line in members.splitlines())}


class _Tip(NamedTuple):
    """A commit and its tree."""

    commit: str
    tree: str


class _Merged(NamedTuple):
    """What a merge gave; a tree with conflicts in it is no candidate for anything."""

    clean: bool
    tree: str
    paths: tuple[str, ...]
    messages: str


_Merge = Callable[[str, str], _Merged]


class _Outside(NamedTuple):
    """The requests that are in no candidate, as :class:`Stack` tells them apart."""

    conflicts: list[Conflict]
    waiting: list[Conflict]
    contained: list[Request]


def _place(request: Request, trunk: _Tip, tip: _Tip, merge: _Merge, outside: _Outside) -> str:
    """The tree of ``tip`` with the request merged; empty when it has no place there, and is put ``outside``."""
    merged = merge(tip.commit, request.head)
    if merged.clean and merged.tree != tip.tree:
        return merged.tree
    alone = merged if tip == trunk else merge(trunk.commit, request.head)
    if not alone.clean:
        outside.conflicts.append(Conflict(request, alone.paths, alone.messages))
    elif alone.tree == trunk.tree:
        outside.contained.append(request)
    else:
        outside.waiting.append(Conflict(request, merged.paths, merged.messages))
    return ""


def _commits(git: Git, requests: Sequence[Request]) -> set[str]:
    """Those of the heads that are commits in this repository."""
    asked = "".join(f"{request.head}\n" for request in requests)
    answers = git.run("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=asked).out.splitlines()
    return {answer.split(" ")[0] for answer in answers if answer.endswith(" commit")}


@contextmanager
def _merger(git: Git, base: str) -> Iterator[_Merge]:
    """Merges two commits with the attributes that ``base`` has."""
    common = git.line("rev-parse", "--path-format=absolute", "--git-common-dir")
    scratch = Path(common) / "beads"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-", dir=scratch) as place:
        _write_attributes(git, base, Path(place))
        extra = {"GIT_DIR": common, "GIT_WORK_TREE": place, "GIT_INDEX_FILE": f"{place}/index"}

        def merge(ours: str, theirs: str) -> _Merged:
            args = ("merge-tree", "--write-tree", "-z", "--name-only", "--messages", ours, theirs)
            answer = git.at(Path(place)).run(*args, ok=(0, 1, 128), extra=extra)
            tree, *fields = answer.out.split("\0")
            # Git 2.39 takes a tree that is damaged or gone for an empty one, says so, and calls the merge clean.
            if _OBJECT.fullmatch(tree) and not _UNREAD.search(answer.err):
                return _Merged(answer.status == 0, tree, *_conflicts(fields))
            # It also ends with 1 when it could not even begin.
            if git.run("merge-base", ours, theirs, ok=(0, 1)).status == 1:
                return _Merged(False, "", (), "It shares no history with main.")
            raise Unreadable(f"git merge-tree {ours} {theirs} failed (exit {answer.status}): {answer.err.strip()}")

        yield merge


def _conflicts(fields: list[str]) -> tuple[tuple[str, ...], str]:
    """Read paths and messages: paths up to an empty field, then count, that many paths, kind, text, again and again."""
    end = fields.index("")
    paths, rest, messages = tuple(fields[:end]), fields[end + 1 :], []
    while len(rest) > 2:
        count = int(rest[0])
        kind, text = rest[count + 1 : count + 3]
        messages += [text] if kind.startswith("CONFLICT") else []
        rest = rest[count + 3 :]
    return paths, "".join(messages)


def _write_attributes(git: Git, commit: str, place: Path) -> None:
    """Write the commit's ``.gitattributes`` files below ``place``, where Git will look for them."""
    for line in git.run("ls-tree", "-r", "-z", "--full-tree", commit).out.split("\0"):
        facts, _, name = line.partition("\t")
        parts = name.split("/")
        # Git does not follow a link here either, and no tree that it checks out has a path that leads outside.
        if parts[-1] == ".gitattributes" and facts.startswith("100") and ".." not in parts and parts[0]:
            text = git.run("cat-file", "blob", facts.split(" ")[2]).out
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(text.encode("utf-8", "surrogateescape"))


def _writer(git: Git, who: Identity, when: datetime) -> Callable[[str, tuple[str, ...], str], str]:
    """A function that makes a commit of a tree, its parents and a message, and returns its id."""
    date = f"@{int(when.timestamp())} +0000"
    extra = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", who.name), ("EMAIL", who.email), ("DATE", date))
    }

    def write(tree: str, parents: tuple[str, ...], message: str) -> str:
        args = [part for parent in parents for part in ("-p", parent)]
        config = ("-c", "i18n.commitEncoding=UTF-8")
        return git.line(*config, "commit-tree", *args, "-F", "-", tree, stdin=message, extra=extra)

    return write


def _merge_message(request: Request) -> str:
    return f"{_subject(request)}\n\nBead: {request.molecule}\n"


def _landing_message(members: tuple[Request, ...]) -> str:
    """Says what main gets, with one pair of trailers for each member."""
    trailers = "".join(f"Merge-Request: {member.id}\nBead: {member.molecule}\n" for member in members)
    if len(members) == 1:
        return f"{_subject(members[0])}\n\n{trailers}"
    more = f" and {len(members) - _NAMED_MAX} more" if len(members) > _NAMED_MAX else ""
    named = ", ".join(member.id for member in members[:_NAMED_MAX])
    body = "".join(f"- {member.id}: {_line(member.title)}\n" for member in members)
    return f"Land {len(members)} merge requests: {named}{more}\n\n{body}\n{trailers}"


_NAMED_MAX = 8
"""How many members a subject names; the body has them all."""


def _subject(request: Request) -> str:
    title = _line(request.title)
    return f"Merge {request.id}: {title}" if title else f"Merge {request.id}"


def _line(text: str) -> str:
    """One line of what can be printed, so that no title passes for a trailer or hides what it says."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
