"""How a request gets onto main: as a merge of its head, as one commit, or as its own commits once more.

Whatever the style, what is tested and landed is the tree of the merge. A style only decides which commits lead there:

* ``merge``: one, whose second parent is the head.
* ``squash``: one, by the author of the head, with no other parent.
* ``rebase``: each commit of the branch again, by its author. Where that cannot be done, because one of them conflicts
  on its way, there are merges among them, or they would lead to another tree, it is one commit as in ``squash``.

Git 2.40 can pick a commit without a work tree. Every Git that we work with can merge two commits, and it looks for what
they build on in their history: it is given a history that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field, field_validator

from beads.model import Fact
from beads.toml import loads, validate
from refinery import wording
from refinery.commits import Commits
from refinery.content import Merger
from refinery.gate import SETTINGS_FILE
from refinery.git import Git

if TYPE_CHECKING:
    from refinery.merge import Request

Style = Literal["merge", "squash", "rebase"]
"""The values of ``[merge] style``."""


class Generated(Fact):
    """``[[merge.generated]]``: files that are made again where they conflict.

    Attributes:
        paths: patterns, as Git's ``:(glob)`` has them.
        run: the shell line that makes them, run at the top of a clean work tree.
        timeout: seconds for it.
        network: whether it has the network.
    """

    paths: tuple[str, ...] = Field(min_length=1)
    run: str = Field(pattern=r"\S")
    timeout: float = Field(default=600.0, gt=0, le=86_400)
    network: bool = False

    @field_validator("paths")
    @classmethod
    def _inside(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.strip() or not path.isprintable() or path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"{path!r} must be a path inside the repository")
        return paths


class Merging(Fact):
    """The ``[merge]`` table of ``town.toml``; like the gate, it counts as it is on main.

    Attributes:
        style: which commits lead to what is landed.
        generated: files that are made again where they conflict.
    """

    style: Style = "merge"
    generated: tuple[Generated, ...] = ()


def merging_of(git: Git, commit: str) -> Merging:
    """What ``commit``'s ``town.toml`` says of merging; all that it does not say has a default.

    Raises:
        InvalidDocument: the table is wrong; names line and key.
    """
    text = (git.file(commit, SETTINGS_FILE) or "").encode("utf-8", "surrogateescape")
    return validate(Merging, loads(text, SETTINGS_FILE).get("merge", {}), text, SETTINGS_FILE, ("merge",))


class Draft(NamedTuple):
    """A commit that is not written yet, because what main gets depends on who else lands.

    Attributes:
        tree: what it holds.
        beside: further parents than the one it is put on.
        text: what it says, without trailers of ours.
        author: see :meth:`refinery.commits.Commits.write`.
        again: whether it says what a commit of the branch says, with trailers of its own.
    """

    tree: str
    beside: tuple[str, ...]
    text: str
    author: str = ""
    again: bool = False


class _Commit(NamedTuple):
    """A commit of a branch."""

    id: str
    parents: list[str]
    tree: str
    author: str
    message: str


@dataclass(frozen=True)
class Styled:
    """Turns the merge of a request into the commits that lead there.

    Attributes:
        git: Git in the repository.
        style: how.
        merge: merges commits.
        commits: writes them.
    """

    git: Git
    style: Style
    merge: Merger
    commits: Commits

    def drafts(self, onto: str, start: str, request: Request, tree: str) -> tuple[Draft, ...]:
        """The commits that bring a request onto another commit, one on top of the other; the last one has ``tree``.

        Args:
            onto: the commit they are put on.
            start: its tree.
            request: what is brought.
            tree: what merging it gives.
        """
        if self.style == "merge":
            return (Draft(tree, (request.head,), wording.merging(request)),)
        branch = self._branch(onto, request.head)
        again = self._again(branch, start) if self.style == "rebase" else ()
        if again and again[-1].tree == tree:
            return again
        own = [commit for commit in branch if len(commit.parents) == 1]
        author = own[-1].author if own else ""
        return (Draft(tree, (), wording.squashing(request, [c.message.split("\n")[0] for c in own]), author),)

    def top(
        self, base: str, onto: str, members: Sequence[Request], drafts: Sequence[Draft]
    ) -> tuple[str, tuple[str, ...]]:
        """Write what main gets for these members, the last of which adds these commits to what is stacked.

        Returns:
            The commit that main would be, and those that the last member adds to the stack, which next ones go on.
        """
        chain: list[str] = []
        for tree, beside, text, author, again in drafts:
            message = f"{text}\n" if again else wording.with_bead(text, members[-1])
            chain.append(self.commits.write(tree, (chain[-1] if chain else onto, *beside), message, author))
        heads = self.style != "merge"
        if len(members) == 1 and len(drafts) == 1:
            tree, beside, text, author, _ = drafts[0]
            alone = self.commits.write(tree, (base, *beside), wording.landing(text, members, heads=heads), author)
            return alone, tuple(chain)
        text = wording.landing(wording.train(members), members, heads=heads)
        return self.commits.write(drafts[-1].tree, (base, chain[-1]), text), tuple(chain)

    def _branch(self, onto: str, head: str) -> list[_Commit]:
        """The commits that a branch has and ``onto`` has not, the oldest first."""
        form = "%H%x00%P%x00%T%x00%an <%ae> %ad%x00%B"
        order = ("--reverse", "--topo-order", "--no-show-signature", "--no-color", "--no-mailmap")
        options = ("--encoding=UTF-8", "--date=raw", "-z", "--no-notes", "--no-patch", f"--format=tformat:{form}")
        fields = self.git.run("log", *order, *options, f"{onto}..{head}", "--").out.split("\0")
        rows = zip(*[iter(fields)] * 5, strict=False)
        return [_Commit(oid, parents.split(), tree, author, text) for oid, parents, tree, author, text in rows]

    def _again(self, branch: Sequence[_Commit], start: str) -> tuple[Draft, ...]:
        """The branch's commits on top of a tree; nothing where they cannot be put there one by one."""
        made: list[Draft] = []
        trees = {commit.id: commit.tree for commit in branch}
        tree = start
        for commit in branch:
            if len(commit.parents) != 1:
                return ()
            before = trees.get(commit.parents[0]) or self.git.line("rev-parse", f"{commit.parents[0]}^{{tree}}")
            now = self._pick(tree, before, commit.tree)
            if not now:
                return ()
            if now != tree:
                text = wording.repeating(commit.message) or "(no message)"
                made.append(Draft(now, (), text, commit.author, again=True))
            tree = now
        return tuple(made)

    def _pick(self, tree: str, old: str, new: str) -> str:
        """The tree with what changed between two others; empty where that conflicts."""
        if tree == old:
            return new
        common = self.commits.write(old, (), "")
        ours, theirs = (self.commits.write(side, (common,), "") for side in (tree, new))
        merged = self.merge(ours, theirs)
        return merged.tree if merged.clean else ""
