"""Merges of a project's history made again: by the merge queue without a work tree, and by `git merge` in one.

python -m benchmarks.replay --repository ../dulwich --merges 300
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CalledProcessError
from typing import NamedTuple

from benchmarks.common import Figure, Watch, environment, git, progress, run, timed
from refinery.git import Git, Identity
from refinery.merge import Request, stack

_WHO = Identity("Bench", "bench@example.org")
_WHEN = datetime(2026, 1, 1, tzinfo=UTC)


class Outcome(NamedTuple):
    """What merging gave: a tree, or the paths that conflict."""

    tree: str
    conflicts: tuple[str, ...] = ()


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Merge both parents of each merge commit in both ways, and compare.

    Raises:
        RuntimeError: they differ, or there are fewer merges than were asked for.
    """
    where, tree = place / "replay", place / "tree"
    # A clone that borrows the objects: nothing is written where they are.
    clone = ("clone", "--quiet", "--shared", "--no-checkout", str(options.repository.resolve()), str(where))
    place.mkdir(parents=True, exist_ok=True)
    git(place, *clone)
    for key, value in {"user.name": _WHO.name, "user.email": _WHO.email, "gc.auto": "0"}.items():
        git(where, "config", key, value)
    order = ("--merges", "--min-parents=2", "--max-parents=2", "--format=%P", f"--max-count={options.merges}")
    pairs = [line.split() for line in git(where, "log", *order, f"--skip={options.skip}").splitlines()]
    if len(pairs) < options.merges:
        raise RuntimeError(f"{options.repository} has only {len(pairs)} such merges")
    git(where, "worktree", "add", "--quiet", "--detach", str(tree), pairs[0][0])
    at = Git(where, environment())
    ours, theirs, different, conflicting = [], [], [], 0
    for number, (base, head) in enumerate(pairs):
        progress(f"merge {number} of {len(pairs)}")
        git(tree, "checkout", "--quiet", "--force", "--detach", base)
        with Watch() as by_git:
            expected = _by_git(tree, head)
        with Watch() as by_us:
            found = _by_us(at, base, head)
        theirs.append(by_git.seconds)
        ours.append(by_us.seconds)
        conflicting += bool(expected.conflicts)
        different += [] if found == expected else [f"{base} {head}: {found} is not {expected}"]
    if different:
        raise RuntimeError(f"{len(different)} of {len(pairs)} differ: {'; '.join(different[:3])}")
    yield Figure("merges with the same tree", len(pairs) - conflicting, "")
    yield Figure("merges that conflict, in the same paths", conflicting, "")
    yield timed("a candidate", ours, theirs, floor_is="git merge in a work tree that has the base")


def _by_git(tree: Path, head: str) -> Outcome:
    try:
        git(tree, "merge", "--quiet", "--no-ff", "--no-edit", head)
    except CalledProcessError:
        names = git(tree, "diff", "--name-only", "--diff-filter=U", "-z").split("\0")[:-1]
        git(tree, "reset", "--quiet", "--hard")
        git(tree, "clean", "--quiet", "-ffdx")
        return Outcome("", tuple(sorted(set(names))))
    return Outcome(git(tree, "rev-parse", "HEAD^{tree}").strip())


def _by_us(at: Git, base: str, head: str) -> Outcome:
    made = stack(at, base, [Request("bench-1", "", head, "bench-2")], _WHO, _WHEN)
    if made.conflicts:
        return Outcome("", tuple(sorted(set(made.conflicts[0].paths))))
    return Outcome(made.candidates[0].tree if made.candidates else made.tree)


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--repository", type=Path, required=True, help="a clone of a project with many merges")
    parser.add_argument("--merges", type=int, default=300, help="how many are made again, the newest first (300)")
    parser.add_argument("--skip", type=int, default=0, help="how many of the newest are left out (0)")


if __name__ == "__main__":
    run(__doc__, add, measure)
