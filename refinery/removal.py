"""Take work trees away so that nothing anybody made is lost, and nothing outside of them is touched (I1).

A directory is never deleted where it stands: it is first renamed into ``.trash`` beside it, which is one step
and cannot be seen half done. What Git's trees cannot hold goes to ``.aside`` instead and stays there.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from beads.errors import Unreadable
from refinery.disk import make_accessible
from refinery.git import Git
from refinery.pinned import PinnedGit

TRASH = ".trash"
"""The directory below the root that holds what is being deleted."""

ASIDE = ".aside"
"""The directory below the root that holds what was in the way and may be worth something to somebody."""

_TRIES = 5


def set_aside(root: Path, path: Path) -> Path:
    """Move what is at ``path`` out of the way, and keep it; where it is then.

    Raises:
        Unreadable: it cannot be moved.
    """
    try:
        place = _place(root / ASIDE, path.name)
        _rename(path, place)
    except OSError as error:
        raise Unreadable(f"{path}: cannot be moved to {root / ASIDE}: {error}", "Move it away by hand.") from error
    return place


def discard(root: Path, path: Path) -> None:
    """Delete what is at ``path``, of which nothing is needed. What cannot be deleted now stays in the trash."""
    place = path
    # What cannot be renamed, such as a mount point, can still be emptied.
    with suppress(OSError):
        place = _rename(path, _place(root / TRASH, path.name))
    delete(place)


def empty_trash(root: Path) -> None:
    """Delete what earlier attempts could not, or did not live to."""
    with suppress(OSError):
        for path in (root / TRASH).iterdir():
            delete(path)


def delete(path: Path) -> bool:
    """Delete a file or directory with all that is in it; whether it is gone.

    Links are removed, never followed. Directories without permissions get them first; a process that still
    writes here has a few rounds' patience.
    """
    for _ in range(_TRIES):
        if not _is_directory(path):
            with suppress(OSError):
                path.unlink(missing_ok=True)
            break
        shutil.rmtree(path, ignore_errors=True)
        if _is_directory(path):
            make_accessible(path)
    return not os.path.lexists(path)


def forget(admin: Path) -> None:
    """Delete a work tree's registration; its directory must be gone before."""
    # Git takes a registration without this file for none, so that a half-deleted one is not seen.
    (admin / "gitdir").unlink(missing_ok=True)
    delete(admin)


def keepsakes(git: Git, pinned: PinnedGit, path: Path) -> list[Path]:
    """Nested repositories in a work tree with something of their own that a tree of ours cannot hold.

    That is commits that are on no remote, a stash, and in a submodule also changed files. What lies in ignored
    directories does not count, as no ignored file does.
    """
    found = {os.fsencode(place.relative_to(path)).decode("utf-8", "surrogateescape"): place for place in _nested(path)}
    if not found:
        return []
    stdin = "".join(f"{name}\0" for name in found)
    ignored = pinned.run("check-ignore", "-z", "--stdin", stdin=stdin, ok=(0, 1, 128)).out.split("\0")
    return [place for name, place in found.items() if name not in ignored and _has_own(git, pinned, place)]


def _nested(path: Path) -> Iterator[Path]:
    for at, directories, files in os.walk(path):
        if Path(at) != path and (".git" in directories or ".git" in files):
            yield Path(at)
        if ".git" in directories:
            directories.remove(".git")


def _has_own(git: Git, pinned: PinnedGit, place: Path) -> bool:
    # A worker may have configured this repository. None of these commands runs a filter, a hook or a helper
    # of its choice, and none may fetch what is missing.
    inside, alone = PinnedGit(git, place, place / ".git"), {"GIT_NO_LAZY_FETCH": "1"}
    fetched = ("--exclude=refs/remotes/*", "--exclude=refs/tags/*", "--all", "--not", "--remotes", "--tags")
    commits = inside.run("rev-list", "--max-count=1", *fetched, extra=alone, ok=(0, 128))
    if commits.status or commits.out:
        return True
    head = inside.run("rev-parse", "--verify", "--quiet", "HEAD^{tree}", extra=alone, ok=(0, 1, 128))
    link = pinned.run("ls-files", "-z", "--stage", "--", str(place), ok=(0, 128)).out
    return link.startswith("160000") and head.out.strip() != _tree_of(pinned, place)


def _tree_of(pinned: PinnedGit, place: Path) -> str:
    """The tree of the files in a nested repository, under our configuration and not under its own."""
    index = pinned.admin / f"beadtown-index.{os.getpid()}.nested"
    view = {"GIT_WORK_TREE": str(place), "GIT_INDEX_FILE": str(index)}
    try:
        pinned.run("-C", str(place), "add", "--all", "--", ".", extra=view, ok=(0, 1, 128))
        return pinned.line("write-tree", extra=view)
    finally:
        index.unlink(missing_ok=True)


def _place(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    return next(
        place for number in itertools.count(1) if not os.path.lexists(place := parent / f"{name.lstrip('.')}.{number}")
    )


def _rename(path: Path, place: Path) -> Path:
    if _is_directory(path):
        # To move a directory elsewhere is to write into it: its parent changes.
        with suppress(OSError):
            path.chmod(stat.S_IMODE(path.lstat().st_mode) | stat.S_IRWXU)
    return path.rename(place)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
