"""The home of an agent's program: what is put into it before the program starts.

The program lives there from one attempt to the next and may have left anything, such as a link that leads out of its
home to a file of the user's: nothing is written through a link here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path


def put(files: Mapping[Path, str], *roots: Path) -> None:
    """Write files that are below one of these directories, whatever stands in their way."""
    for path, text in files.items():
        _clear(path, roots)
        path.write_text(text, encoding="utf-8", errors="replace")


def link(home: Path, user: Path, names: Iterable[str]) -> None:
    """Link files that the user signs in with into a home, at the same places; those that there are.

    What the program has put in place of a link, such as a key that it was given anew, is replaced.
    """
    for name in names:
        real, path = user / name, home / name
        if real.is_file():
            _clear(path, (home,))
            path.symlink_to(real)


def sweep(directory: Path, patterns: Iterable[str]) -> None:
    """Remove what a program leaves at the top of a work tree that is no work."""
    for path in [path for pattern in patterns for path in directory.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _clear(path: Path, roots: Iterable[Path]) -> None:
    """Make room for a file: its directories are directories, and it is not there."""
    root = next(root for root in roots if path.is_relative_to(root))
    for parent in reversed([part for part in path.parents if part.is_relative_to(root) and part != root]):
        if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
            parent.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.unlink()
