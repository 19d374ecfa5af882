"""Which work trees a repository has, read from where Git keeps them (gitrepository-layout, ``worktrees/<id>``).

Git's own list fails altogether while anybody is adding a work tree, and for good when that was killed half way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from refinery.git import Git


class Record(NamedTuple):
    """A work tree on record, which may be gone or half made.

    Attributes:
        path: its directory.
        admin: its own Git directory.
        branch: what its HEAD is on, without ``refs/heads/``; None when that is no branch, or not written yet.
        locked: why it is locked; None when it is not.
    """

    path: Path
    admin: Path
    branch: str | None
    locked: str | None


def common_directory(git: Git) -> Path:
    """The Git directory that all work trees of the repository share."""
    return git.common


def own_work_tree(git: Git, common: Path) -> Record | None:
    """The repository's own work tree; None when it is bare."""
    return Record(git.own, common, _branch(common), None) if git.own else None


def linked_work_trees(common: Path) -> Iterator[Record]:
    """The work trees that were added to the repository, in order of the names of their Git directories."""
    for file in sorted(common.glob("worktrees/*/gitdir")):
        # The file has the path of the work tree's own .git, absolute or from where the file is.
        place = _read(file)
        if place:
            path = Path(os.path.normpath(file.parent / place)).parent
            yield Record(path, file.parent, _branch(file.parent), _read(file.with_name("locked")))


def _branch(admin: Path) -> str | None:
    ref = (_read(admin / "HEAD") or "").removeprefix("ref: ")
    return ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else None


def _read(file: Path) -> str | None:
    with suppress(OSError):
        return os.fsdecode(file.read_bytes()).rstrip("\n")
    return None
