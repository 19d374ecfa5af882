"""Files of the main checkout that Git does not have, such as local settings, copied into a work tree.

Nothing from outside the repository comes along, and nothing of Git's own. What Git would commit is refused: a copied
secret would be on main with the next commit.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from beads.errors import Refused
from refinery.git import Git

_MAGIC = "*?["


def bring(source: Path, git: Git, patterns: Sequence[str], without: Sequence[Path] = ()) -> list[str]:
    """Copy what matches into a work tree. What is there already stays as it is, so that this may be done again.

    Args:
        source: the checkout to copy from.
        git: Git in the work tree to copy to.
        patterns: paths or patterns of paths, relative to the checkout; of a directory all that is in it.
        without: directories whose content is left out, such as the one with the work trees.

    Returns the paths that were copied.

    Raises:
        Refused: something that is named is not there, leads out of the repository, or is not ignored by Git.
    """
    root, target = source.resolve(), git.directory.resolve()
    found = dict.fromkeys(name for pattern in patterns for name in _matching(root, pattern, without))
    for name in found:
        if not (target / name).parent.resolve().is_relative_to(target):
            raise Refused(f"[worktree] copy: {name!r} leads out of the work tree {target}")
    names = [name for name in found if not os.path.lexists(target / name)]
    _refuse_committed(git, names)
    for name in names:
        _copy(root / name, target / name, target)
    return names


def _matching(root: Path, pattern: str, without: Sequence[Path]) -> Iterator[str]:
    """The files and links that a pattern stands for, relative to ``root``."""
    if any(letter in pattern for letter in _MAGIC):
        places = sorted(root.glob(pattern))
    elif os.path.lexists(root / pattern):
        places = [root / pattern]
    else:
        raise Refused(f"[worktree] copy: there is no {pattern!r} in {root}", "Create it, or take it out of town.toml.")
    for place in places:
        for path in _files(place):
            name = str(path.relative_to(root))
            if ".git" not in path.relative_to(root).parts and not any(path.is_relative_to(out) for out in without):
                _check_inside(root, path, name)
                yield name


def _files(place: Path) -> Iterator[Path]:
    if place.is_symlink() or place.is_file():
        yield place
    elif place.is_dir():
        for at, directories, files in os.walk(place):
            links = [name for name in directories if Path(at, name).is_symlink()]
            yield from (Path(at, name) for name in sorted([*files, *links]) if _is_held(Path(at, name)))


def _is_held(path: Path) -> bool:
    """Whether it is a file or a link, and no pipe or socket."""
    return path.is_symlink() or path.is_file()


def _check_inside(root: Path, path: Path, name: str) -> None:
    """Refuse what a link leads out of the repository, or into Git's own directory."""
    straight = path.parent.resolve() == path.parent
    if straight and path.is_symlink():
        leads = path.resolve()
        inside = leads.is_relative_to(root) and ".git" not in leads.relative_to(root).parts
        straight = inside and not path.readlink().is_absolute()
    if not straight:
        raise Refused(f"[worktree] copy: {name!r} leads out of the repository", "Name a file, and no link.")


def _refuse_committed(git: Git, names: Sequence[str]) -> None:
    if not names:
        return
    stdin = "".join(f"{name}\0" for name in names)
    ignored = set(git.run("check-ignore", "-z", "--stdin", stdin=stdin, ok=(0, 1)).out.split("\0"))
    bad = next((name for name in names if name not in ignored), None)
    if bad is not None:
        hint = "Let .gitignore or .git/info/exclude name it, or take it out of town.toml."
        raise Refused(f"[worktree] copy: Git does not ignore {bad!r}, so it would be committed", hint)


def _copy(path: Path, place: Path, target: Path) -> None:
    """Copy one file or link, whole or not at all."""
    # Beside the work tree: what a kill leaves in it might be committed.
    scratch = target.with_name(f".copy-{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, scratch, follow_symlinks=False)
        scratch.replace(place)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise Refused(f"[worktree] copy: {path} cannot be copied: {error.strerror}") from error
