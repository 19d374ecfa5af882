"""What is on disk in a work tree as a Git tree, and a Git tree onto the disk.

The work tree's own index belongs to whoever works there: it may have been filled halfway, carry flags that
hide changes, or be locked by a process that died. So we keep one of our own beside it, which nobody else
writes. It remembers what was hashed already, and makes a second look at the same files cheap.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from beads.errors import Unreadable
from refinery.git import Output
from refinery.pinned import INDEX, PinnedGit
from refinery.redaction import SCRATCH, Redacted, Secrets, files_below, redact_at

_GITLINK = "160000"
# When Git cannot write or remove a file, it says so, and may end with 0 all the same.
_UNDONE = re.compile(r"unable to (?:unlink|rmdir|create|write|remove)|cannot ")
_NESTING_MAX = 16
_SERIAL = itertools.count(1)


class Change(NamedTuple):
    """A path that differs between two trees, with its mode before and after; ``000000`` where it is absent."""

    before: str
    after: str
    path: str


class Disk:
    """The files of one work tree.

    Args:
        git: Git in that work tree.
        path: the work tree, without symbolic links on the way.
        admin: its own Git directory.
        secrets: what no object of Git's may have.

    Attributes:
        redacted: what was taken out of files so far; whoever has told it may clear it.
    """

    def __init__(self, git: PinnedGit, path: Path, admin: Path, secrets: Secrets) -> None:
        self.redacted: list[Redacted] = []
        self._secrets = secrets
        self.path = path
        self.admin = admin
        self._git = git
        self._index = admin / INDEX
        self._published = admin / "beadtown-published"

    def read(self, base: str) -> str:
        """The tree of what is on disk: tracked or not, but not what is ignored.

        Files in repositories that somebody made inside the work tree are taken as files; only a submodule that
        ``.gitmodules`` names stays one. Names that Git refuses, such as ``git~1``, are left out. An edit that leaves
        size and time of a file as they were is seen as Git sees it: not in the second of the look before.

        Secrets are taken out of the files first, where they were changed or are new, on disk, so that no object of
        Git's ever has them. That expects that nobody is at work.

        Args:
            base: a commit or tree that the work builds on; what it has is tracked, even if ignored.

        Raises:
            Unreadable: something cannot be put into a tree: a file cannot be read, a filter fails. A tree
                without it would look as if it had been deleted or never been changed.
        """
        try:
            return self._read(base)
        except Unreadable:
            # Permissions without which nothing can be read, an index torn by a power cut, a file that grew while
            # it was read: put right what can be, and look again.
            make_accessible(self.path)
            self._index.unlink(missing_ok=True)
            return self._read(base)

    def left_out(self) -> list[str]:
        """Files that are neither ignored nor in the tree that :meth:`read` just gave: names that Git refuses."""
        return [path for path in self._others(self._index) if not path.endswith("/")]

    def write(self, old: str, target: str) -> None:
        """Bring the files from tree ``old``, which :meth:`read` has just said is there, to tree ``target``.

        Ignored files stay, except where the target has something in their place.

        Raises:
            Unreadable: a file cannot be written or removed; the disk then is somewhere between the two.
        """
        args = ("read-tree", "--reset", "-u", old, target)
        done = self._run(self._index, *args, ok=(0, 1, 128))
        if done.status or _UNDONE.search(done.err):
            make_accessible(self.path)
            self._run(self._index, "read-tree", "--reset", "-u", self.read(old), target)

    def fill(self, commit: str, *, afresh: bool = False) -> None:
        """Make every tracked file what ``commit`` says, whatever is there now; other files stay.

        Args:
            commit: the commit or tree.
            afresh: write each file again, also those that seem to be right.

        Raises:
            Unreadable: a file cannot be written.
        """
        if afresh:
            self._index.unlink(missing_ok=True)
        args = ("read-tree", "--reset", "-u", commit)
        done = self._run(self._index, *args, ok=(0, 1, 128))
        if done.status or _UNDONE.search(done.err):
            make_accessible(self.path)
            self._index.unlink(missing_ok=True)
            self._run(self._index, *args)

    def clean(self, keep: Sequence[str]) -> None:
        """Remove every file that is not tracked, ignored ones and nested repositories too.

        Args:
            keep: paths from the work tree's root that stay, such as caches.

        Raises:
            Unreadable: a file cannot be removed.
        """
        kept = [f"--exclude=/{_escaped(path.strip('/'))}" for path in keep]
        args = ("clean", "-ffdxq", *kept)
        if self._run(self._index, *args, ok=(0, 1, 128)).status:
            make_accessible(self.path)
            self._run(self._index, *args)

    def publish(self) -> None:
        """Give the work tree's own index what ours has, so that ``git status`` agrees with us."""
        scratch = self._scratch()
        try:
            # The time stays: Git compares it with those of the files to see which it must look at again.
            shutil.copy2(self._index, scratch)
            self._published.unlink(missing_ok=True)
            with suppress(OSError):
                # Git replaces an index by another file: as long as this is the same one, nobody has changed it.
                self._published.hardlink_to(scratch)
            scratch.replace(self.admin / "index")
        finally:
            scratch.unlink(missing_ok=True)

    def having(self, tree: str, source: str, paths: Sequence[str]) -> str:
        """The tree that is ``tree`` with what ``source`` has at ``paths``, or nothing where it has nothing."""
        scratch = self._scratch()
        try:
            self._run(scratch, "read-tree", tree)
            for some in (paths[i : i + 500] for i in range(0, len(paths), 500)):
                literal = {"GIT_LITERAL_PATHSPECS": "1", "GIT_INDEX_FILE": str(scratch)}
                old = self._git.run("ls-files", "-z", "--", *some, extra=literal).out.split("\0")[:-1]
                new = self._git.run("ls-tree", "-r", "-z", "--full-tree", source, "--", *some, extra=literal).out
                gone = "".join(f"0 {'0' * 40}\t{path}\0" for path in old)
                self._run(scratch, "update-index", "--replace", "-z", "--index-info", stdin=gone + new)
            return self._run(scratch, "write-tree").out.strip()
        finally:
            _drop(scratch)

    def sweep(self) -> None:
        """Remove what killed processes left: locks of Git's, and half-written copies of our index.

        Only for who knows that nobody works here now.
        """
        for name in ("index.lock", "HEAD.lock", "beadtown-index.lock"):
            (self.admin / name).unlink(missing_ok=True)
        for scratch in self.admin.glob("beadtown-index.*"):
            pid = scratch.name.split(".")[1]
            if pid.isdigit() and not _runs(int(pid)):
                scratch.unlink(missing_ok=True)

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self, base: str) -> str:
        scratch = self._scratch()
        try:
            if self._index.exists():
                shutil.copy2(self._index, scratch)
            else:
                self._begin(scratch, base)
            if self._secrets:
                self._redact(scratch, base)
            self._gather(scratch, base)
            tree = self._run(scratch, "write-tree").out.strip()
            scratch.replace(self._index)
            return tree
        finally:
            _drop(scratch)

    def _begin(self, index: Path, base: str) -> None:
        """Make an index without having one of ours: from the worker's, which knows about a sparse checkout."""
        with suppress(OSError, Unreadable):
            shutil.copy2(self.admin / "index", index)
            said = self._run(index, "ls-files", "-v", "-z").out.split("\0")[:-1]
            # Either flag makes Git look away; the second is right where a sparse checkout leaves a file out.
            assumed = [entry[2:] for entry in said if entry[0].islower()]
            skipped = [entry[2:] for entry in said if entry[0] in "sS" and os.path.lexists(self._at(entry[2:]))]
            self._list(index, ("update-index", "--no-assume-unchanged"), assumed)
            self._list(index, ("update-index", "--no-skip-worktree"), skipped)
            return
        self._run(index, "read-tree", base)

    def _redact(self, index: Path, base: str) -> None:
        """Take secrets out of all files that are about to be put into Git."""
        edited = self._run(index, "diff-files", "-z", "--name-only", "--ignore-submodules=all").out.split("\0")[:-1]
        known = set(edited)
        try:
            for name in dict.fromkeys((*edited, *self._others(index), *self._forced(base))):
                for place in files_below(self._at(name)) if name.endswith("/") else [self._at(name)]:
                    if os.path.realpath(place.parent) != str(place.parent):
                        # It is behind a link, which may lead out of here: that link is all that Git takes.
                        continue
                    if place.name.startswith(SCRATCH):
                        place.unlink(missing_ok=True)
                    else:
                        at, new = place.relative_to(self.path), name not in known
                        self.redacted += redact_at(self.path, at, self._secrets, rename=new)
        except OSError as error:
            raise Unreadable(f"{self.path}: cannot be looked through for secrets: {error}", _READABLE) from error

    def _gather(self, index: Path, base: str) -> None:
        """Make the index hold what is on disk."""
        hollow: list[str] = []
        for _ in range(_NESTING_MAX):
            said = self._run(index, "add", "--all", "--sparse", "--ignore-errors", "--", ".", ok=(0, 1, 128))
            # Of a nested repository Git says something, so that silence spares the look.
            linked, hollow = self._nested(index, base, failed=said.status != 0) if said.err else ([], [])
            self._list(index, ("update-index", "--force-remove"), linked)
            # Once a file below it is tracked, Git takes a nested repository for a directory like any other.
            seeds = [seed for path in (*linked, *hollow) if (seed := self._seed(index, path))]
            if not seeds:
                if said.status:
                    self._complain(index, said)
                break
            self._list(index, ("update-index", "--add"), seeds)
        else:
            raise Unreadable(f"{self.path}: more than {_NESTING_MAX} repositories, each inside the other")
        self._list(index, ("update-index", "--add"), self._forced(base))

    def _nested(self, index: Path, base: str, *, failed: bool) -> tuple[list[str], list[str]]:
        """Nested repositories that are no submodules: those the index has as a link, and those without a commit."""
        linked = [change.path for change in self._changes(index, base) if change.after == _GITLINK != change.before]
        if linked:
            submodules = self._submodules()
            linked = [path for path in linked if path not in submodules]
        hollow = [path[:-1] for path in self._others(index) if path.endswith("/")] if failed else []
        return linked, hollow

    def _seed(self, index: Path, nested: str) -> str:
        """A file in a nested repository that is not ignored; empty when it has none."""
        place = self._at(nested)
        pins = {"GIT_WORK_TREE": str(place), "GIT_INDEX_FILE": str(self.admin / "beadtown-none")}
        there = self._git.run("-C", str(place), "ls-files", "-z", "--others", "--exclude-standard", extra=pins)
        paths = [f"{nested}/{name}" for name in there.out.split("\0")[:-1]]
        files = [path for path in paths if not path.endswith("/")]
        # Its own rules have been asked; now those around it.
        stdin = "".join(f"{path}\0" for path in files)
        ignored = set(self._run(index, "check-ignore", "-z", "--stdin", stdin=stdin, ok=(0, 1)).out.split("\0"))
        found = next((path for path in files if path not in ignored), "")
        inner = (path[:-1] for path in paths if path.endswith("/"))
        return found or next((seed for path in inner if (seed := self._seed(index, path))), "")

    def _forced(self, base: str) -> list[str]:
        """What a worker has staged that is new since ``base``: ``git add --force`` may name what is ignored."""
        with suppress(OSError):
            if self._published.samefile(self.admin / "index"):
                return []
        try:
            added = list(self._changes(self.admin / "index", base, "--diff-filter=A"))
        except Unreadable:
            # The worker has broken its index. What it staged is on disk, unless ignored, and found there.
            return []
        return [change.path for change in added if change.after != _GITLINK and self._is_file(change.path)]

    def _complain(self, index: Path, said: Output) -> None:
        """Sort out what Git could not add: what no tree can hold is left out, the rest is an error."""
        changed = self._run(index, "diff-files", "-z", "--name-only", "--ignore-submodules=dirty").out.split("\0")[:-1]
        special = [path for path in changed if self._is_special(path)]
        self._list(index, ("update-index", "--force-remove"), special)
        others = [path for path in self._others(index) if not path.endswith("/")]
        left = [path for path in changed if path not in special]
        left += [path for path in others if f"invalid path '{path}'" not in said.err]
        if left:
            lines = [line for line in said.err.splitlines() if line.startswith(("fatal: ", "error: "))]
            why = max(lines, default=said.err, key=lambda line: line.startswith("fatal: "))
            raise Unreadable(f"{self.path}: {left[0]!r} and the like cannot be put into Git: {why}", _READABLE)

    def _changes(self, index: Path, base: str, *options: str) -> Iterator[Change]:
        args = ("diff-index", "--cached", "--raw", "-z", "--no-renames", "--ignore-submodules=none", *options, base)
        fields = self._run(index, *args).out.split("\0")
        for about, path in zip(fields[::2], fields[1::2], strict=False):
            before, after = about[1:].split(" ")[:2]
            yield Change(before, after, path)

    def _submodules(self) -> set[str]:
        file = str(self.path / ".gitmodules")
        said = self._git.run("config", "-z", "--file", file, "--get-regexp", r"\.path$", ok=(0, 1, 128)).out
        return {entry.partition("\n")[2] for entry in said.split("\0") if entry}

    def _others(self, index: Path) -> list[str]:
        return self._run(index, "ls-files", "-z", "--others", "--exclude-standard").out.split("\0")[:-1]

    def _at(self, name: str) -> Path:
        """The path of a name that Git gave, byte for byte, whatever the locale is."""
        return self.path / os.fsdecode(name.encode("utf-8", "surrogateescape"))

    def _is_file(self, name: str) -> bool:
        """Whether a regular file or a symbolic link is there, and no link on the way."""
        path = self._at(name)
        return os.path.realpath(path.parent) == str(path.parent) and (path.is_symlink() or path.is_file())

    def _is_special(self, name: str) -> bool:
        """Whether a pipe, a socket or a device is there."""
        path = self._at(name)
        return os.path.lexists(path) and stat.S_IFMT(path.lstat().st_mode) not in _HELD

    def _list(self, index: Path, args: tuple[str, ...], paths: Sequence[str]) -> None:
        if paths:
            self._run(index, *args, "-z", "--stdin", stdin="".join(f"{path}\0" for path in paths))

    def _run(self, index: Path, *args: str, stdin: str = "", ok: Sequence[int] = (0,)) -> Output:
        return self._git.run(*args, stdin=stdin, ok=ok, extra={"GIT_INDEX_FILE": str(index)})

    def _scratch(self) -> Path:
        return self.admin / f"beadtown-index.{os.getpid()}.{next(_SERIAL)}"


_READABLE = "Make them readable, or have .gitignore name them."
_HELD = (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR)


def make_accessible(root: Path) -> None:
    """Give the owner every right on the directories below ``root``, and the right to read on the files.

    Links are not followed. What belongs to somebody else stays as it is.
    """
    _allow(root, stat.S_IRWXU)
    for at, directories, files in os.walk(root):
        for name in directories:
            _allow(Path(at, name), stat.S_IRWXU)
        for name in files:
            _allow(Path(at, name), stat.S_IRUSR)


def _allow(path: Path, bits: int) -> None:
    with suppress(OSError):
        mode = path.lstat().st_mode
        if stat.S_IFMT(mode) in (stat.S_IFREG, stat.S_IFDIR) and mode & bits != bits:
            path.chmod(stat.S_IMODE(mode) | bits)


def _escaped(path: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\*?[ " else letter for letter in path)


def _drop(scratch: Path) -> None:
    for path in (scratch, scratch.with_name(scratch.name + ".lock")):
        path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        with suppress(PermissionError):
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
