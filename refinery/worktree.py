"""One work tree: a worker edits its files, and we read, save, merge and commit them.

What counts is what is on disk. The worker may run Git in here as it likes, commit, switch branches, rebase, and
be killed in the middle of it: its commits are kept when they would get lost otherwise, but the branch goes on
from where *we* left it. That place is kept in a ref of this work tree alone, and moved by compare-and-swap,
so that of two that believe to work here only one can commit.

While the worker is running, only look and take snapshots: all else expects that nobody is at work in there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from beads.errors import LostRace, NotFound, Refused, Unreadable
from refinery import removal, reuse
from refinery.disk import Disk
from refinery.git import ABSENT, Git, Identity
from refinery.pinned import PinnedGit
from refinery.redaction import Redacted, Secrets

OURS = "refs/worktree/beadtown/head"
"""The ref, of each work tree its own, with the branch's head as we last wrote it."""

BRANCH_FILE = "beadtown-branch"
"""The file in a work tree's Git directory that names its branch, whatever its HEAD says."""

_STATE_FILE = "beadtown-state"
_CONVERTING_FILE = "beadtown-converting"

# What Git leaves when a merge, a rebase or the like stops halfway. The files are what counts, so all of it ends.
_UNDERWAY = (
    *("MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "MERGE_RR", "MERGE_AUTOSTASH", "AUTO_MERGE", "SQUASH_MSG"),
    *("CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "rebase-merge", "rebase-apply", "sequencer"),
    *("BISECT_LOG", "BISECT_START", "BISECT_NAMES", "BISECT_TERMS", "BISECT_EXPECTED_REV"),
)
_AUTOSTASHES = ("MERGE_AUTOSTASH", "rebase-merge/autostash", "rebase-apply/autostash")


@dataclass(frozen=True)
class _State:
    """What is going on in a work tree, kept on disk so that it can be gone on with.

    Attributes:
        head: the head it is about; under another one it means nothing any more.
        becoming: the tree that the files are being changed into, or nothing.
        theirs: the commit that was merged and is not committed yet, or nothing.
        conflicts: the paths where that merge needs somebody.
    """

    head: str
    becoming: str = ""
    theirs: str = ""
    conflicts: tuple[str, ...] = ()


class Worktree:
    """A directory with the files of one branch, or of none for a gate; :class:`refinery.workshop.Workshop` makes them.

    Attributes:
        path: the directory, without symbolic links on the way.
        branch: the branch's name without ``refs/heads/``; None when it has none.
    """

    def __init__(self, git: Git, path: Path, admin: Path, branch: str | None, root: Path, secrets: Secrets) -> None:
        self.path = path
        self.branch = branch
        self._admin = admin
        self._root = root
        self._repository = git
        self._git = PinnedGit(git, path, admin)
        self._disk = Disk(self._git, path, admin, secrets)

    # ── Looking ──────────────────────────────────────────────────────────────────────────────────────────────

    def head(self) -> str:
        """The commit the files build on: our last one on the branch; without a branch, what is checked out.

        Raises:
            NotFound: there is none.
        """
        names = (OURS, f"refs/heads/{self.branch}") if self.branch else ("HEAD",)
        for name in names:
            if (head := self._loose(name) or self._git.resolve(name)) is not None:
                return head
        raise NotFound(f"{self.path}: the branch {self.branch} is gone", "Remove the work tree, or make the branch.")

    def tree(self) -> str:
        """The tree of what is on disk now: tracked or not, but not what is ignored.

        Raises:
            Unreadable: something cannot be put into a tree; see :meth:`refinery.disk.Disk.read`.
        """
        return self._look()[1]

    def redacted(self, *, keep: bool = False) -> list[Redacted]:
        """The secrets that looks took out of the files since this was asked last, where those were not to be kept."""
        found, self._disk.redacted = self._disk.redacted, [*self._disk.redacted] if keep else []
        return found

    def changed(self, since: str) -> list[str]:
        """The paths that differ between the commit ``since`` and what is on disk, in Git's order."""
        options = ("-r", "-z", "--name-only", "--no-renames", "--ignore-submodules=none")
        args = ("diff-tree", *options, since, self.tree())
        return self._git.run(*args).out.split("\0")[:-1]

    def merging(self) -> str | None:
        """The commit that :meth:`merge` has brought in and that is not committed yet."""
        return self._state(self.head()).theirs or None

    # ── Saving ───────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self, ref: str, message: str, who: Identity, when: datetime) -> str | None:
        """Save what is on disk as a commit at ``ref``; None when the branch has all of it.

        The commit's first parent is :meth:`head`. Further parents are commits that the worker made and that the
        branch does not have, and a merge that is not committed yet. Saving the same again makes nothing new.

        Raises:
            LostRace: somebody else wrote ``ref`` meanwhile.
            Unreadable: see :meth:`tree`.
        """
        head, tree = self._look()
        parents = [head, *self._beside(head)]
        if len(parents) == 1 and tree == self._git.tree_of(head):
            return None
        present = self._git.resolve(ref)
        if present and self._git.shape(present) == (tree, *parents):
            return present
        new = self._git.make_commit(tree, parents, message, who, who, when)
        if self._git.run("update-ref", "--create-reflog", ref, new, present or ABSENT, ok=(0, 1, 128)).status:
            raise LostRace(f"{ref}: somebody else wrote it while {self.path} was being saved")
        return new

    def restore(self, commit: str) -> tuple[str, ...]:
        """Bring back what a :meth:`snapshot` saved, as uncommitted changes.

        When the branch has moved on since, what the snapshot changed is applied to what is on disk. Where both
        changed the same lines, the snapshot wins.

        Returns the paths where it had to.

        Raises:
            Refused: it would win over changes that are not committed.
            NotFound: there is no such commit.
        """
        head, tree = self._look()
        saved = self._git.commit_of(commit)
        target, base, *_ = self._git.shape(saved)
        conflicts: tuple[str, ...] = ()
        if tree != self._git.tree_of(base):
            target, conflicts = self._git.apply(tree, self._git.tree_of(base), target)
        if conflicts and tree != self._git.tree_of(head):
            raise Refused(f"{self.path}: uncommitted changes to {conflicts[0]!r} conflict with {commit}")
        if conflicts:
            target = self._disk.having(target, saved, conflicts)
        self._become(tree, target, self._state(head))
        return conflicts

    def commit(
        self,
        message: str,
        author: Identity,
        committer: Identity,
        when: datetime,
        *,
        parents: Sequence[str] = (),
        onto: str | None = None,
    ) -> str:
        """Commit what is on disk to the branch, and make the worker's HEAD and index agree with it.

        Args:
            message: what the commit says.
            author: who did the work.
            committer: who commits.
            when: the time of both, to the second.
            parents: further parents, for a merge; that of :meth:`merge` is added by itself.
            onto: the head that the caller believes in; it must be :meth:`head`, which is the first parent.

        Returns the new commit, or :meth:`head` when there is nothing to commit.

        Raises:
            LostRace: the head is another one, or somebody outside this work tree has moved the branch.
            Refused: this work tree has no branch.
        """
        head, tree = self._look()
        if onto not in (None, head):
            raise LostRace(f"{self.path}: {self.branch} is at {head}, not at {onto}")
        at = self._branch_at(head)
        theirs = [self._git.commit_of(parent) for parent in parents]
        merged = self._missing(head, [*theirs, self._state(head).theirs])
        new = head
        if merged or tree != self._git.tree_of(head):
            new = self._git.make_commit(tree, [head, *merged], message, author, committer, when)
        self._move(new, head, at)
        self._settle()
        return new

    # ── Changing the files ───────────────────────────────────────────────────────────────────────────────────

    def reset(self, tree: str) -> None:
        """Bring the files back to that tree, which :meth:`tree` gave before. Ignored files stay as they are."""
        head, now = self._look()
        self._become(now, self._git.tree_of(tree), self._state(head))

    def merge(self, commit: str) -> tuple[str, ...]:
        """Bring in that commit: the files become the merge of what is on disk with it. Nothing is committed.

        Where Git cannot decide, the files get conflict markers. The next :meth:`commit` is the merge. When a merge
        of this commit has begun already, before a crash perhaps, it is gone on with as it stands.

        Returns the paths with conflicts.

        Raises:
            Refused: another merge is not committed yet.
            NotFound: there is no such commit.
        """
        head, tree = self._look()
        theirs, state = self._git.commit_of(commit), self._state(head)
        if state.theirs == theirs:
            return state.conflicts
        if state.theirs:
            raise Refused(f"{self.path}: {state.theirs} is being merged, so {commit} cannot be", "Commit first.")
        if self._git.is_ancestor(theirs, head):
            return ()
        ours = head if tree == self._git.tree_of(head) else self._git.bare(tree, head)
        target, conflicts = self._git.merge(ours, theirs)
        self._become(tree, target, _State(head, "", theirs, conflicts))
        return conflicts

    def take(self, commit: str, paths: Iterable[str]) -> None:
        """Put on disk what that commit has at these paths, and nothing where it has nothing.

        Raises:
            NotFound: there is no such commit.
        """
        head, tree = self._look()
        target = self._disk.having(tree, self._git.commit_of(commit), tuple(paths))
        self._become(tree, target, self._state(head))

    def advance(self, commit: str) -> None:
        """Move the branch and the files forward to a commit that has all of the branch.

        Raises:
            Refused: there are uncommitted changes, or the commit does not contain the head.
            LostRace: see :meth:`commit`.
            NotFound: there is no such commit.
        """
        head, tree = self._look()
        new, at = self._git.commit_of(commit), self._branch_at(head)
        if tree != self._git.tree_of(head) or not self._git.is_ancestor(head, new):
            raise Refused(f"{self.path}: cannot be moved forward to {commit}; it has changes of its own")
        # Said before the branch moves, so that the files follow even if we do not live to see it.
        self._remember(_State(new, self._git.tree_of(new)))
        self._move(new, head, at)
        self._look()
        self._settle()

    def checkout(self, commit: str, keep: Sequence[str] = ()) -> None:
        """Make the files exactly those of a commit, with no branch; all else is deleted, ignored files too.

        Submodules' own files are not brought along.

        Args:
            commit: what to check out.
            keep: paths that stay when they are not tracked, such as caches.

        Raises:
            Refused: this work tree has a branch, and so perhaps somebody's work.
            NotFound: there is no such commit.
            Unreadable: a file cannot be written or deleted.
        """
        if self.branch is not None:
            raise Refused(f"{self.path} belongs to {self.branch}: it is no place to check {commit} out")
        new = self._git.commit_of(commit)
        self._calm()
        converting = self._admin / _CONVERTING_FILE
        if self._converts_otherwise(new):
            converting.touch()
        self._disk.fill(new)
        self._disk.clean(keep)
        if converting.exists():
            self._disk.fill(new, afresh=True)
        self._git.run("update-ref", "--no-deref", "-m", "checkout", "HEAD", new)
        self._disk.publish()
        converting.unlink(missing_ok=True)

    # ── Coming and going ─────────────────────────────────────────────────────────────────────────────────────

    def remove(self, saved: str | None = None, *, discard: bool = False, shelve: bool = False) -> None:
        """Remove the directory and its registration. A work tree outside the workshop's root is left alone.

        When something in it can be in no snapshot, the whole directory moves to ``.aside`` in the root instead:
        nested repositories with something of their own, and files with names that Git refuses.

        Args:
            saved: a :meth:`snapshot` of what is on disk, when the branch does not have it.
            discard: do not ask whether anything would be lost.
            shelve: let it be used again; see :mod:`refinery.reuse`.

        Raises:
            Refused: something would be lost.
            Unreadable: the directory cannot be looked at or moved.
        """
        if self.path.parent != self._root:
            return
        if self.path.is_dir() and not self.path.is_symlink():
            if discard or self._is_saved(saved):
                (reuse.shelve if shelve else removal.discard)(self._root, self.path)
            else:
                self._set_aside()
        removal.forget(self._admin)

    def begin(self) -> None:
        """Make ready for work; for :class:`refinery.workshop.Workshop`, each time it hands the work tree out.

        Puts the ``.git`` file back, finishes what was interrupted, and follows the branch when somebody moved it.
        """
        self._mend()
        self._disk.sweep()
        if self.branch is None:
            return
        file = self._admin / BRANCH_FILE
        if not file.exists():
            file.write_text(self.branch, encoding="utf-8")
        at, ours = self._git.resolve(f"refs/heads/{self.branch}"), self._loose(OURS) or self._git.resolve(OURS)
        if at is not None and ours is None:
            self._git.run("update-ref", OURS, at, ABSENT)
        elif at is not None and ours is not None and at != ours and not self._was_here(at):
            self._follow(ours, at)
        elif self._state(self.head()).becoming:
            # Now, before a worker edits files that are only half of what they should be.
            self._look()

    def fill(self) -> None:
        """Write the files into a new, empty work tree; for :class:`refinery.workshop.Workshop`."""
        self._disk.fill("HEAD")
        self._disk.publish()

    def _mend(self) -> None:
        file = self.path / ".git"
        text = "" if file.is_symlink() else _text(file)
        if text.startswith("gitdir: ") and (self.path / text[8:]).resolve() == self._admin.resolve():
            return
        if os.path.lexists(file):
            removal.set_aside(self._root, file)
        file.write_bytes(os.fsencode(f"gitdir: {self._admin}\n"))

    def _follow(self, ours: str, at: str) -> None:
        """Bring into the files what somebody else did to the branch since ``ours``, and go on from there."""
        _, tree = self._look()
        target, _ = self._git.apply(tree, self._git.tree_of(ours), self._git.tree_of(at))
        self._remember(_State(at, target))
        self._git.run("update-ref", OURS, at, ours)
        self._look()

    def _is_saved(self, saved: str | None) -> bool:
        """Whether everything is saved; False when something cannot be, and Refused when it can, but is not."""
        if not self._admin.exists():
            return False
        head, tree = self._look()
        safe = [oid for oid in (head, saved) if oid]
        if not any(self._git.tree_of(oid) == tree for oid in safe):
            raise Refused(f"{self.path} has changes that are saved nowhere", "Take a snapshot, or commit them.")
        for oid in self._beside(head):
            # A branch of the worker's own holds its commits as well as a snapshot does.
            kept = any(self._git.is_ancestor(oid, other) for other in safe)
            if not kept and not self._git.line("for-each-ref", "--count=1", "--contains", oid):
                raise Refused(f"{self.path} has commits that are saved nowhere: {oid}", "Take a snapshot.")
        return not self._disk.left_out() and not removal.keepsakes(self._repository, self._git, self.path)

    def _set_aside(self) -> None:
        place = removal.set_aside(self._root, self.path)
        modules = self._admin / "modules"
        if modules.is_dir():
            # The repositories of submodules live with the registration.
            modules.rename(place.with_name(f"{place.name}-modules"))

    def _converts_otherwise(self, new: str) -> bool:
        """Whether Git would write files otherwise for this commit than they are here, though they are the same."""
        rules = ("--", ":(glob)**/.gitattributes")
        committed = self._git.run("diff-tree", "-r", "--name-only", new, "HEAD", *rules, ok=(0, 128))
        loose = self._git.run("ls-files", "--others", "--exclude-standard", *rules, ok=(0, 128))
        return bool(committed.status or committed.out or loose.status or loose.out)

    # ── Underneath ───────────────────────────────────────────────────────────────────────────────────────────

    def _look(self) -> tuple[str, str]:
        """The head and the tree on disk, after finishing what was interrupted."""
        head = self.head()
        tree = self._disk.read(head)
        state = self._state(head)
        if state.becoming:
            self._become(tree, state.becoming, state)
            tree = self._disk.read(head)
        return head, tree

    def _become(self, now: str, target: str, state: _State) -> None:
        """Change the files from one tree to another so that a crash in between is made good by the next look."""
        if now != target:
            self._remember(replace(state, becoming=target))
            self._disk.sweep()
            self._disk.write(now, target)
        self._remember(replace(state, becoming=""))

    def _state(self, head: str) -> _State:
        try:
            said = json.loads((self._admin / _STATE_FILE).read_bytes())
            state = _State(said["head"], said["becoming"], said["theirs"], tuple(said["conflicts"]))
        except (OSError, ValueError, KeyError, TypeError):
            return _State(head)
        return state if state.head == head else _State(head)

    def _remember(self, state: _State) -> None:
        file = self._admin / _STATE_FILE
        if state == _State(state.head):
            file.unlink(missing_ok=True)
            return
        scratch = self._admin / f"{_STATE_FILE}.{os.getpid()}"
        scratch.write_text(json.dumps(asdict(state)))
        scratch.replace(file)

    def _loose(self, ref: str) -> str | None:
        """A ref of this work tree alone, read from its file; None when it is kept in some other way."""
        text = _text(self._admin / ref)
        return text if re.fullmatch(r"[0-9a-f]{40,64}", text) else None

    def _branch_at(self, head: str) -> str:
        """Where the branch is now; :data:`ABSENT` when it was deleted."""
        if self.branch is None:
            raise Refused(f"{self.path} has no branch to commit to")
        at = self._git.resolve(f"refs/heads/{self.branch}")
        if at not in (None, head) and not self._was_here(at or ""):
            raise LostRace(f"{self.branch} was moved to {at} from outside of {self.path}")
        return at or ABSENT

    def _was_here(self, commit: str) -> bool:
        """Whether this work tree's HEAD was at that commit: then the worker made or fetched it here."""
        try:
            return commit.encode() in (self._admin / "logs" / "HEAD").read_bytes()
        except OSError:
            return True

    def _move(self, new: str, head: str, at: str) -> None:
        """Point HEAD back to the branch, and the branch and our own ref to ``new``, by compare-and-swap."""
        branch = f"refs/heads/{self.branch}"
        self._calm()
        if _text(self._admin / "HEAD") != f"ref: {branch}":
            self._git.run("symbolic-ref", "HEAD", branch)
        if new == at == head:
            return
        moves = f"update {branch} {new} {at}\nupdate {OURS} {new} {head}\n"
        done = self._git.run("update-ref", "-m", "beadtown", "--stdin", stdin=moves, ok=(0, 1, 128))
        lock = re.search(r"Unable to create '(.+\.lock)': File exists", done.err)
        if lock:
            # Git has waited for it longer than a living process ever holds one.
            Path(lock[1]).unlink(missing_ok=True)
            done = self._git.run("update-ref", "-m", "beadtown", "--stdin", stdin=moves, ok=(0, 1, 128))
        if done.status:
            lost = "but expected" in done.err or "already exists" in done.err
            kind = LostRace if lost else Unreadable
            raise kind(f"{self.path}: {self.branch} could not be moved to {new}: {done.err.strip()}")

    def _settle(self) -> None:
        self._disk.publish()
        self._remember(_State(self.head()))

    def _calm(self) -> None:
        """End what Git has underway here, and its locks."""
        self._disk.sweep()
        for name in _AUTOSTASHES:
            if (file := self._admin / name).is_file():
                # What a rebase has stashed away is nowhere else.
                said = ("--quiet", "--message", f"from {self.path.name}", _text(file))
                self._git.run("stash", "store", *said, ok=(0, 1, 128))
        for name in _UNDERWAY:
            removal.delete(self._admin / name)

    def _beside(self, head: str) -> list[str]:
        """Commits of the worker, or merged by it, that the head does not have."""
        merging = [self._git.resolve(f"{oid}^{{commit}}") or "" for oid in _text(self._admin / "MERGE_HEAD").split()]
        return self._missing(head, [self._git.resolve("HEAD") or "", self._state(head).theirs, *merging])

    def _missing(self, head: str, commits: Iterable[str]) -> list[str]:
        return [oid for oid in dict.fromkeys(commits) if oid and oid != head and not self._git.is_ancestor(oid, head)]


def _text(file: Path) -> str:
    """What a file says, without the space around it; nothing when it cannot be read."""
    try:
        return os.fsdecode(file.read_bytes()).strip()
    except OSError:
        return ""
