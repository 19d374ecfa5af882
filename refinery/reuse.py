"""Work trees that are used again, for what a set-up has made in them: after proof that nothing else is left.

A work tree that was given up waits on a shelf as a mere directory, without a registration, and so without any
configuration, ref or index of whoever was there. Taken down, every file of it is compared by content with what the
new branch has, all else but the paths that are to be kept is deleted, and Git is asked whether that is so. In any
doubt it is thrown away.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from beads.errors import Unreadable
from refinery import removal
from refinery.disk import Disk
from refinery.pinned import INDEX, PinnedGit
from refinery.redaction import NO_SECRETS

SHELF = ".idle"
"""The directory below the root with the work trees that nobody uses now."""

SLOT = "tree-"
"""What the directories of work trees that may be used again are called, with a number: what a set-up makes often
knows the path that it was made at."""

_CONVERTING = r"(^|[[:space:]])-?(text|eol|crlf|filter|ident|working-tree-encoding)([[:space:]=]|$)"


def slot(root: Path, taken: Sequence[Path]) -> Path:
    """Where a work tree for one more branch goes: where one waits on the shelf, or else at the first free number."""
    waiting = [root / path.name for path in shelved(root)]
    free = (path for path in waiting if path not in taken and not os.path.lexists(path))
    numbers = (root / f"{SLOT}{number}" for number in range(1, len(taken) + len(waiting) + 1000))
    return next(free, None) or next(path for path in numbers if path not in taken and not os.path.lexists(path))


def shelved(root: Path) -> list[Path]:
    """The directories that wait to be used again."""
    with suppress(OSError):
        return sorted((root / SHELF).iterdir())
    return []


def shelve(root: Path, path: Path) -> None:
    """Put a directory, of which all that counts is saved, on the shelf; what does not belong there is deleted."""
    place = root / SHELF / path.name
    if re.fullmatch(rf"{SLOT}\d+", path.name) and not os.path.lexists(place):
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
            return
    removal.discard(root, path)


def adopt(git: PinnedGit, root: Path, path: Path, keep: Sequence[str]) -> bool:
    """Fill a new and empty work tree with what waits on the shelf under its name; False when nothing does, or in doubt.

    Nobody may use the work tree before this has answered: killed in between, it is half made.

    Args:
        git: Git in the new work tree, whose HEAD is what is wanted there.
        root: the directory of the work trees.
        path: the new one.
        keep: paths that stay though Git ignores them.
    """
    waiting = root / SHELF / path.name
    if not waiting.is_dir() or waiting.is_symlink():
        return False
    if _inhabited(waiting) or _converts(git) or (waiting / ".git").is_dir() or not _straight(waiting, keep):
        removal.discard(root, waiting)
        return False
    try:
        (path / ".git").replace(waiting / ".git")
        path.rmdir()
        waiting.rename(path)
        if _cleaned(git, path, keep):
            return True
    except (OSError, Unreadable):
        pass
    _start_anew(root, path)
    removal.discard(root, waiting)
    return False


def _cleaned(git: PinnedGit, path: Path, keep: Sequence[str]) -> bool:
    """Make the directory what HEAD says, and see whether it is."""
    disk = Disk(git, path, git.admin, NO_SECRETS)
    (git.admin / INDEX).unlink(missing_ok=True)
    # An index that knows nothing of the files: each one is read, whatever its size and time say.
    git.run("read-tree", "HEAD")
    git.run("update-index", "-q", "--refresh", ok=(0, 1))
    disk.fill("HEAD")
    disk.clean(keep)
    disk.publish()
    return _proven(git, path, keep)


def _proven(git: PinnedGit, path: Path, keep: Sequence[str]) -> bool:
    """Whether Git finds nothing but what HEAD has and ignored files that are to be kept, each file for itself."""
    options = ("-z", "--untracked-files=all", "--ignored=matching", "--ignore-submodules=none", "--no-renames")
    found = [line for line in git.run("status", "--porcelain", *options).out.split("\0") if line]
    kept = [entry.strip("/") for entry in keep]
    for line in found:
        name = line[3:].rstrip("/")
        near = any(name == k or name.startswith(f"{k}/") or k.startswith(f"{name}/") for k in kept)
        if not line.startswith("!! ") or not near:
            return False
    for at, directories, files in os.walk(path):
        # Git looks into none of these, and a repository among the files could have hooks of its own.
        if Path(at) != path and ".git" in {*directories, *files}:
            return False
        directories[:] = [name for name in directories if str(Path(at, name).relative_to(path)) not in kept]
    tracked = git.run("ls-files", "-z").out.split("\0")[:-1]
    # A file with a second name may be changed by whoever has that one.
    return all(_alone(path / os.fsdecode(name.encode("utf-8", "surrogateescape"))) for name in tracked)


def _alone(path: Path) -> bool:
    found = path.lstat()
    return found.st_nlink == 1 or not stat.S_ISREG(found.st_mode)


def _straight(place: Path, keep: Sequence[str]) -> bool:
    """Whether no link stands where something is to be kept: a set-up would write wherever it leads."""
    ways = [[*Path(entry).parents, Path(entry)] for entry in keep]
    return not any((place / step).is_symlink() for way in ways for step in way)


def _converts(git: PinnedGit) -> bool:
    """Whether a file may be written in more than one way and be the same to Git; or is a repository of its own."""
    if git.run("config", "--get", "core.autocrlf", ok=(0, 1)).out.strip() not in ("", "false"):
        return True
    rules = git.run("grep", "-qE", _CONVERTING, "HEAD", "--", ":(glob)**/.gitattributes", ok=(0, 1)).status == 0
    return rules or git.resolve("HEAD:.gitmodules") is not None


def _inhabited(place: Path) -> bool:
    """Whether a process works in a directory, or has a file of it open, as far as that can be seen."""
    if not sys.platform.startswith("linux"):
        return True
    inside = f"{place}/"
    for process in Path("/proc").glob("[0-9]*"):
        # Those of other users cannot be looked at, nor can they get in here; others end while we look.
        with suppress(OSError):
            if f"{(process / 'cwd').readlink()}/".startswith(inside):
                return True
            if any(str(file.readlink()).startswith(inside) for file in (process / "fd").iterdir()):
                return True
    return False


def _start_anew(root: Path, path: Path) -> None:
    """Leave nothing in the work tree but the file by which Git knows it."""
    link = path / ".git"
    text = link.read_bytes() if link.is_file() else b""
    removal.discard(root, path)
    path.mkdir()
    if text:
        (path / ".git").write_bytes(text)
