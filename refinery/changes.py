"""What a branch changes, as Git says: which paths, how many lines, and what of it is protected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from refinery.git import Git

_CHANGED = ("diff-tree", "-r", "-z", "--no-renames", "--no-ext-diff", "--no-textconv")


def changed(git: Git, old: str, new: str, pathspecs: Sequence[str] = ()) -> list[str]:
    """The paths that differ between two commits or trees, in Git's order; of those that match, when any are given."""
    names = git.run(*_CHANGED, "--name-only", old, new, "--", *pathspecs).out
    return [name for name in names.split("\0") if name]


def lines_of(git: Git, old: str, new: str) -> list[int]:
    """How many lines each path that differs has added and removed. Of what is no text Git counts none; it is one."""
    counted = _numbers(git, old, new)
    return [1 if added == "-" else int(added) + int(removed) for added, removed, _ in counted]


def sizes(git: Git, old: str, new: str, marked: Collection[str] = (), mark: str = "") -> list[str]:
    """Each path that differs, in words: with how many lines it has more and less, and a mark behind some of them."""
    return [
        f"{path if path.isprintable() else repr(path)} "
        + ("(no text)" if added == "-" else f"(+{added} -{removed})")
        + (mark if path in marked else "")
        for added, removed, path in _numbers(git, old, new)
    ]


def _numbers(git: Git, old: str, new: str) -> list[list[str]]:
    said = git.run(*_CHANGED, "--numstat", old, new).out
    return [line.split("\t", 2) for line in said.split("\0") if line]


def saved_for(git: Git, base: str, head: str) -> dict[str, list[str]]:
    """What the commits between two have changed for each bead that they name, as ``path (+added -removed)``.

    Only commits of attempts count, by their trailers: what a merge has brought from elsewhere was done by others.
    """
    form = "%x01%(trailers:key=Bead,valueonly,separator=%x2c)%x02%(trailers:key=Attempt,valueonly,separator=%x2c)"
    order = ("--first-parent", "--diff-merges=first-parent", "--reverse", "--no-show-signature")
    options = ("-z", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv")
    said = git.run("log", *order, *options, f"--format={form}", f"{base}..{head}").out
    found: dict[str, dict[str, tuple[int, int]]] = {}
    paths: dict[str, tuple[int, int]] = {}
    for field in filter(None, (field.lstrip("\n") for field in said.split("\0"))):
        # A path may have any character, but stands after two numbers.
        if field.startswith("\x01"):
            bead, _, attempt = field[1:].partition("\x02")
            paths = found.setdefault(bead, {}) if attempt else {}
            continue
        added, removed, path = field.split("\t", 2)
        before = paths.get(path, (0, 0))
        paths[path] = before[0] + _count(added), before[1] + _count(removed)
    return {bead: [f"{path} (+{n[0]} -{n[1]})" for path, n in paths.items()] for bead, paths in found.items()}


def _count(lines: str) -> int:
    return 0 if lines == "-" else int(lines)


def inside(patterns: Iterable[str]) -> list[str]:
    """The pathspecs of what matches any of these patterns; a directory stands for all that is in it.

    However it is spelt: where the file system does not tell ``Tests`` from ``tests``, one would lie over the other.
    """
    return [f":(glob,icase){pattern}" for pattern in patterns]


def outside(patterns: Iterable[str]) -> list[str]:
    """The pathspecs of what matches none of these patterns."""
    return [".", *(f":(exclude,glob){pattern}" for pattern in patterns)]


def unapproved(git: Git, base: str, tree: str, protected: Sequence[str], approved: Iterable[str]) -> list[str]:
    """The protected paths that a branch changes, and that are not as in a tree which a person has approved of.

    Args:
        git: Git in the repository.
        base: where the branch left main.
        tree: what it is now.
        protected: the patterns of ``[gate] protected``.
        approved: trees; one that this repository does not have approves of nothing.
    """
    found = changed(git, base, tree, inside(protected)) if protected else []
    for other in approved:
        if found and git.resolve(f"{other}^{{tree}}"):
            still = set(changed(git, other, tree, inside(protected)))
            found = [path for path in found if path in still]
    return found


def named(paths: Sequence[str], most: int = 3) -> str:
    """Some paths in words: the first few, and how many more there are."""
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return f"{', '.join(paths[:most])}{more}"
