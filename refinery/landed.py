"""What has landed, told from main's history alone: after a kill, on another clone, with nothing else to go by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from refinery.changes import changed
from refinery.content import Merged, merger
from refinery.git import Git
from refinery.merge import Request
from refinery.wording import HEAD, REQUEST


def landed(git: Git, branch: str, requests: Iterable[Request], since: str = "") -> dict[str, str]:
    """Which of these requests ``branch`` has, by what its history says alone: id of the request → commit.

    The commit is the one that main moved to. It names the request in a ``Merge-Request:`` trailer; but a commit message
    on somebody's branch proves nothing. It counts when besides

    * it merges the request's head, directly or in the stack that is its second parent;
    * or main itself was at it, as its first parents tell, it names the head too, and it brings just what merging that
      head there gives.

    Args:
        git: Git, in any directory of the repository.
        branch: such as ``main``.
        requests: those to look for.
        since: a commit; its history is not searched. Empty: all of history is.
    """
    heads = {request.id: request.head for request in requests}
    span = f"{since}..refs/heads/{branch}" if since else f"refs/heads/{branch}"
    found: dict[str, str] = {}
    for commit in _named(git, span, "--min-parents=2", "--max-parents=2"):
        named = [i for i in commit.requests if i in heads and i not in found]
        merged = _merged_heads(git, *commit.parents) if named else set()
        found.update({i: commit.id for i in named if heads[i] in merged})
    for commit in _named(git, span, "--first-parent"):
        asked = [i for i in commit.requests if heads.get(i, "") in commit.heads and i not in found]
        if asked and commit.parents and len(commit.heads) == len(commit.requests):
            proven = _proven(git, commit, commit.parents[0])
            found.update({i: commit.id for i in asked if proven.get(i) == heads[i]})
    return found


class Lookout:
    """Looks through main's history for what has landed, and not again for what it has not found there.

    Args:
        git: Git, in any directory of the repository.
        branch: such as ``main``.
    """

    def __init__(self, git: Git, branch: str) -> None:
        self._git = git
        self._branch = branch
        self._missed: set[tuple[str, Request]] = set()

    def found(self, head: str, requests: Sequence[Request], bases: Mapping[str, str]) -> dict[str, list[str]]:
        """The requests that have landed: commit → ids.

        Args:
            head: the commit that the branch is at.
            requests: those that are waiting.
            bases: the id of a request → a commit of main that was there before it.
        """
        asked = [request for request in requests if (head, request) not in self._missed]
        since = {bases[request.id] for request in asked if request.id in bases}
        # Nothing when a base shares no history with main; then all of main is looked through.
        span = self._git.run("merge-base", "--octopus", head, *since, ok=(0, 1)).out.strip() if since - {head} else head
        by_commit: dict[str, list[str]] = {}
        for request, commit in landed(self._git, self._branch, asked, span).items() if span != head else ():
            by_commit.setdefault(commit, []).append(request)
        self._missed = {(head, request) for request in requests}
        return by_commit


class _Named(NamedTuple):
    """A commit that names requests, and the heads that it says they had."""

    id: str
    tree: str
    parents: list[str]
    requests: list[str]
    heads: list[str]


_VALUES = "valueonly,unfold,separator=%x20"
_LOG = (
    "--no-show-signature",
    "--no-color",
    "--encoding=UTF-8",
    "--topo-order",
    "--reverse",
    "--fixed-strings",
    f"--grep={REQUEST}: ",
    f"--format=%H%x01%T%x01%P%x01%(trailers:key={REQUEST},{_VALUES})%x01%(trailers:key={HEAD},{_VALUES})",
)


def _named(git: Git, span: str, *more: str) -> Iterator[_Named]:
    said = git.run("-c", "trailer.separators=:", "log", *_LOG, *more, span, "--").out
    for line in said.split("\n")[:-1]:
        commit, tree, *lists = line.split("\x01")
        if len(lists) == 3:
            parents, requests, heads = (words.split(" ") if words else [] for words in lists)
            yield _Named(commit, tree, parents, requests, heads)


def _merged_heads(git: Git, first: str, second: str) -> set[str]:
    """What a commit with these parents merges: the second, or if that is a stack on the first, its members."""
    members = git.run("rev-list", "--first-parent", "--parents", "--min-parents=2", f"{first}..{second}").out
    return {second, *(line.split(" ")[2] for line in members.splitlines())}


class _Step(NamedTuple):
    """A commit of a stack, and its tree."""

    commit: str
    tree: str


def _proven(git: Git, commit: _Named, base: str) -> dict[str, str]:
    """The requests that a commit of main brings, with their heads, as far as merging these gives what it has.

    Those that land together are merged one by one, each onto the commit of the stack that has just those before it.
    """
    stack = [_Step(commit.id, commit.tree)]
    if len(commit.parents) == 2:
        form = ("--first-parent", "--reverse", "--no-commit-header", "--format=%H %T")
        lines = git.run("rev-list", *form, f"{base}..{commit.parents[1]}").out.splitlines()
        stack = [_Step(*line.split(" ")) for line in lines]
    proven: dict[str, str] = {}
    with merger(git, base) as merge:
        tip = base
        for request, head in zip(commit.requests, commit.heads, strict=True):
            merged = merge(tip, head) if git.has(head) else Merged(False, "")
            at = next((k for k, step in enumerate(stack) if _is(git, step, merged)), None)
            if at is None:
                break
            proven[request] = head
            tip, stack = stack[at].commit, stack[at + 1 :]
    return proven


def _is(git: Git, step: _Step, merged: Merged) -> bool:
    """Whether a commit has what a merge gives; where that conflicts, everywhere else."""
    if merged.clean or not merged.tree:
        return step.tree == merged.tree
    return bool(merged.paths) and set(changed(git, merged.tree, step.tree)) <= set(merged.paths)
