"""What takes a change back: which change it was, and main without it. No work tree is needed.

Of requests that landed together each can be taken back alone: what it changed is the difference between the stack with
it and without it. Taking it back is a merge of main and what was before it, whose common base is what was after it.
Git looks for the base of a merge in the history of what is merged, and is given one that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beads.errors import Refused
from refinery.content import merger
from refinery.git import Git, Identity


@dataclass(frozen=True)
class Change:
    """A change of main.

    Attributes:
        old: the commit before it.
        new: the commit after it.
        landed: the commit of main that brought it.
    """

    old: str
    new: str
    landed: str


@dataclass(frozen=True)
class Inverse:
    """Main without a change.

    Attributes:
        head: a commit on main's head that takes it back; where that conflicts, with conflict markers in its files.
        tree: its tree.
        base: main's head.
        paths: where it conflicts; none where it does not.
        messages: what Git says about that.
        empty: whether main has nothing of the change any more.
    """

    head: str
    tree: str
    base: str
    paths: tuple[str, ...]
    messages: str
    empty: bool


def change_of_commit(git: Git, commit: str) -> Change:
    """All that a commit brought to the branch it is on.

    Raises:
        Refused: it has no parent, so that nothing was before it.
    """
    old = git.resolve(f"{commit}^1")
    if old is None:
        raise Refused(f"{commit[:12]} is the first commit: there is nothing before it", "Delete the files instead.")
    return Change(old, commit, commit)


def change_of_member(git: Git, landed: str, heads: Sequence[str], head: str) -> Change:
    """What one request of those that landed together brought.

    Args:
        git: Git in the repository.
        landed: the commit of main that brought them.
        heads: the heads of all of them, in the order in which they are merged there.
        head: that of the one.

    Raises:
        Refused: it cannot be told from the others any more.
    """
    whole = change_of_commit(git, landed)
    if len(heads) == 1:
        return whole
    form = ("--first-parent", "--reverse", "--no-commit-header", "--format=%H %T")
    stack = [line.split(" ") for line in git.line("rev-list", *form, f"{whole.old}..{landed}^2").splitlines()]
    tip = whole.old
    with merger(git, whole.old) as merge:
        for member in heads:
            tree = merge(tip, member).tree if git.has(member) else ""
            at = next((k for k, (_, found) in enumerate(stack) if found == tree), None)
            if at is None:
                break
            old, tip, stack = tip, stack[at][0], stack[at + 1 :]
            if member == head:
                return Change(old, tip, landed)
    raise Refused(
        f"what {head[:12]} changed cannot be told from the others that landed with it in {landed[:12]}",
        f"`town revert {landed[:12]}` takes back all of them.",
    )


def inverse(git: Git, main: str, change: Change, message: str, who: Identity, author: Identity) -> Inverse:
    """Main's head with a change taken back. The same arguments give the same commit.

    Args:
        git: Git in the repository.
        main: the commit that main is at.
        change: what is taken back.
        message: what the commit says.
        who: the committer.
        author: the author.
    """
    date = git.line("show", "-s", "--no-show-signature", "--format=%ct", main)
    extra = {
        f"GIT_{role}_{what}": value
        for role, person in (("AUTHOR", author), ("COMMITTER", who))
        for what, value in (("NAME", person.name), ("EMAIL", person.email), ("DATE", f"@{date} +0000"))
    }

    def write(tree: str, *parents: str, text: str = "") -> str:
        args = [part for parent in parents for part in ("-p", parent)]
        config = ("-c", "i18n.commitEncoding=UTF-8")
        return git.line(*config, "commit-tree", *args, "-F", "-", tree, stdin=text, extra=extra)

    after, ours, before = (git.line("rev-parse", f"{commit}^{{tree}}") for commit in (change.new, main, change.old))
    common = write(after)
    with merger(git, main) as merge:
        merged = merge(write(ours, common), write(before, common))
    head = write(merged.tree, main, text=message)
    return Inverse(head, merged.tree, main, merged.paths, merged.messages, merged.clean and merged.tree == ours)
