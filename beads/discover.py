"""Find the Git directory around a place, as Git does."""

from __future__ import annotations

from pathlib import Path

from beads.errors import Unreadable


def discover(start: Path) -> tuple[Path, Path]:
    """The Git directory around ``start`` and the common one, which differ in a linked worktree.

    Raises:
        Unreadable: there is none, or what is there leads nowhere.
    """
    here = start.resolve()
    for directory in (here, *here.parents):
        try:
            control = _control(directory / ".git") or _control(directory)
            if control is not None:
                shared = control / "commondir"
                return control, (control / shared.read_text().strip()).resolve() if shared.is_file() else control
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"{directory} cannot be read: {error}") from error
    raise Unreadable(f"{start} is not inside a Git repository", "Run `git init` first, or go where your repository is.")


def _control(path: Path) -> Path | None:
    """The Git directory that ``path`` is, or that the ``.git`` file at ``path`` points to."""
    if path.name == ".git" and path.is_file():
        kind, _, target = path.read_text().strip().partition(":")
        control = (path.parent / target.strip()).resolve()
        if kind != "gitdir" or not _is_git(control):
            # Going on to a repository further out, as if this file were not there, would be another one's store.
            raise Unreadable(f"{path} does not lead to a Git repository", "`git worktree repair` may mend it.")
        return control
    return path.resolve() if _is_git(path) else None


def _is_git(path: Path) -> bool:
    return (path / "HEAD").exists() and ((path / "objects").is_dir() or (path / "commondir").is_file())
