"""Candidates without a work tree, landing by compare-and-swap, and what is true after a kill.

A candidate is a commit that main could become. Member merges are stacked on each other; main itself gets one
first-parent commit, whose tree is the tested one, however many requests it lands::

    base ────────────────── L   "Land 2 merge requests: bt-a, bt-b"   (first parent base, second M2)
      ├── M1 ──────── M2 ──┘
      │   │           └ head of bt-b
      │   └ head of bt-a

A train of one needs no stack: L merges its head directly. Only L has ``Merge-Request:`` trailers, one for each
member, so that each occurs once on main and on a state that was tested. With another style than merges
(``refinery/styles.py``) the stack is one of plain commits, and a request that is one commit lands as just that: L has
no second parent then, and nothing that main gets on its first parents was not tested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from beads.errors import InvalidInput, Unreadable
from beads.model import check_id
from refinery.commits import Commits
from refinery.content import Merged, Merger, merger
from refinery.git import Git, Identity
from refinery.styles import Draft, Style, Styled

CANDIDATES = "refs/beads/candidate/"
"""Where :func:`publish` names candidates, by the id of their last member."""

MAKING = "Its generated files are being made."
"""Why a request waits whose place in the stack is not known yet."""

_OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


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
        chain: the commits of ours that hang on its second parent, each on the one before, the first one on ``base``;
            none where it is a request's only commit.
        drafts: the commits that its last member adds.
    """

    base: str
    members: tuple[Request, ...]
    commit: str
    tree: str
    chain: tuple[str, ...] = field(default=(), compare=False, repr=False)
    drafts: tuple[Draft, ...] = field(default=(), compare=False, repr=False)


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
        tree: the tree of ``base``.
        attributes: names the attributes that it was merged with.
    """

    base: str
    candidates: tuple[Candidate, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    waiting: tuple[Conflict, ...] = ()
    contained: tuple[Request, ...] = ()
    missing: tuple[Request, ...] = ()
    tree: str = field(default="", compare=False, repr=False)
    attributes: str = field(default="", compare=False, repr=False)


def stack(
    git: Git,
    base: str,
    requests: Sequence[Request],
    who: Identity,
    when: datetime,
    style: Style = "merge",
    landed: Stack | None = None,
    again: Callable[[str, Merged], Merged | None] | None = None,
) -> Stack:
    """Merge requests onto ``base``, each on top of those before it, without touching refs or work trees.

    One that does not merge is left out, and those after it are stacked without it. Conflicts are judged against
    main itself: one with a request that is merely pending sends nobody back, because that may never land.

    The same arguments give the same commits. A merge takes milliseconds, so call this when main or the queue has
    changed; ``when`` should follow from the requests rather than from the clock.

    Args:
        git: Git, in any directory of the repository.
        base: the full id of the commit that main is at.
        requests: in the order in which they shall land.
        who: author and committer.
        when: the date of all commits, aware; in whole seconds.
        style: which commits lead to the merged trees.
        landed: the stack of which one candidate is what main now has; those after it are not merged again.
        again: looks at a merge onto a commit that conflicts once more; with None it says that it does not know yet.

    Raises:
        Unreadable: Git failed for another reason than a conflict.
    """
    tree, present = _present(git, base, requests)
    trunk = tip = _Tip(base, tree)
    candidates: list[Candidate] = []
    outside = _Outside([], [], [])
    members: tuple[Request, ...] = ()
    chain: tuple[str, ...] = ()
    with merger(git, base) as merge:
        styled = Styled(git, style, merge, Commits(git, who, when))
        ahead = _ahead(landed, trunk.tree, merge.attributes)
        for request in (request for request in requests if request.head in present):
            missed = set(request.needs) - {member.id for member in members}
            if missed:
                outside.waiting.append(Conflict(request, (), f"It needs {', '.join(sorted(missed))}."))
                continue
            known = ahead.pop() if ahead and ahead[-1].members[-1] == request else None
            tree = known.tree if known else _place(request, trunk, tip, merge, outside, again)
            if not tree:
                continue
            # Behind one that was not there before, nothing is as it was.
            ahead = ahead if known else []
            drafts = known.drafts if known else styled.drafts(tip.commit, tip.tree, request, tree)
            members = (*members, request)
            commit, put = styled.top(base, tip.commit, members, drafts)
            chain, tip = (*chain, *put), _Tip(put[-1], tree)
            hung = chain if len(chain) > 1 else ()
            candidates.append(Candidate(base, members, commit, tree, hung, drafts))
    missing = tuple(request for request in requests if request.head not in present)
    conflicts, waiting, contained = tuple(outside.conflicts), tuple(outside.waiting), tuple(outside.contained)
    return Stack(base, tuple(candidates), conflicts, waiting, contained, missing, trunk.tree, merge.attributes)


def publish(git: Git, candidates: Iterable[Candidate], known: Iterable[Candidate] | None = None) -> None:
    """Make the refs under :data:`CANDIDATES` exactly these candidates, each by the id of its last member.

    A ref keeps the candidate's objects from being pruned and lets a person look at what is being tested. Nothing
    depends on it: :func:`stack` makes the same commits again. Without candidates, all the refs are removed. When it is
    given what is ``known`` to be there, it does not look.
    """
    wanted, there = _refs(candidates), _refs(known or ())
    if known is None:
        listed = git.run("for-each-ref", "--format=%(refname) %(objectname)", CANDIDATES).out.split("\n")[:-1]
        there = dict(line.split(" ") for line in listed)
    orders = [f"delete {ref}" for ref in there if ref not in wanted]
    orders += [f"update {ref} {commit}" for ref, commit in wanted.items() if there.get(ref) != commit]
    if orders:
        git.run("update-ref", "--stdin", stdin="\n".join([*orders, ""]))


def _refs(candidates: Iterable[Candidate]) -> dict[str, str]:
    return {f"{CANDIDATES}{candidate.members[-1].id}": candidate.commit for candidate in candidates}


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


class _Tip(NamedTuple):
    """A commit and its tree."""

    commit: str
    tree: str


def _ahead(landed: Stack | None, tree: str, attributes: str) -> list[Candidate]:
    """The candidates that are on top of what main now has, the next one last.

    What main got has the same tree and the same history below it as the stack had, so that the same merges give the
    same trees; if the attributes are the same.
    """
    if landed is None or landed.attributes != attributes:
        return []
    at = next((k for k, candidate in enumerate(landed.candidates, start=1) if candidate.tree == tree), None)
    return [] if at is None else list(reversed(landed.candidates[at:]))


class _Outside(NamedTuple):
    """The requests that are in no candidate, as :class:`Stack` tells them apart."""

    conflicts: list[Conflict]
    waiting: list[Conflict]
    contained: list[Request]


def _place(
    request: Request,
    trunk: _Tip,
    tip: _Tip,
    merge: Merger,
    outside: _Outside,
    again: Callable[[str, Merged], Merged | None] | None,
) -> str:
    """The tree of ``tip`` with the request merged; empty when it has no place there, and is put ``outside``."""

    def merged_onto(onto: _Tip) -> Merged | None:
        found = merge(onto.commit, request.head)
        return found if found.clean or again is None else again(onto.commit, found)

    merged = merged_onto(tip)
    if merged is None:
        outside.waiting.append(Conflict(request, (), MAKING))
        return ""
    if merged.clean and merged.tree != tip.tree:
        return merged.tree
    alone = merged if tip == trunk else merged_onto(trunk)
    if alone is None:
        outside.waiting.append(Conflict(request, merged.paths, merged.messages))
    elif not alone.clean:
        outside.conflicts.append(Conflict(request, alone.paths, alone.messages))
    elif alone.tree == trunk.tree:
        outside.contained.append(request)
    else:
        outside.waiting.append(Conflict(request, merged.paths, merged.messages))
    return ""


def _present(git: Git, base: str, requests: Sequence[Request]) -> tuple[str, set[str]]:
    """The tree of ``base``, and those of the heads that are commits in this repository."""
    asked = "".join(f"{name}\n" for name in (f"{base}^{{tree}}", *(request.head for request in requests)))
    answers = git.run("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=asked).out.splitlines()
    tree, kind = answers[0].split(" ", 1)
    if kind != "tree":
        raise Unreadable(f"{base} has no tree here: {answers[0]}")
    return tree, {answer.split(" ")[0] for answer in answers[1:] if answer.endswith(" commit")}
