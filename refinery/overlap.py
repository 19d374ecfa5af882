"""What the other side did where a request conflicts: which commits of main, for which beads, and how it looks now.

Whoever is to resolve a conflict has to keep both changes, and so has to know what the other one was for.
"""

from __future__ import annotations

from collections.abc import Sequence

from beads import graph
from refinery.git import Git
from refinery.merge import Conflict

_COMMITS_MAX = 10
_PATHS_MAX = 50
_MESSAGES_MAX = 600
_DIFF_MAX = 1800
"""Characters of the other side's change that are shown; where to see all of it is said."""

_FORM = "%h%x01%s%x01%(trailers:key=Bead,valueonly,unfold,separator=%x20)"
_LOG = ("--no-show-signature", "--no-color", "--encoding=UTF-8", "--no-merges", "--no-notes", f"--format={_FORM}")
_DIFF = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--unified=1")


def other_side(view: graph.View, git: Git, main: str, conflict: Conflict) -> str:
    """What Git says of a conflict, and what main has done in these paths since the branch left it.

    Args:
        view: the beads, for what theirs are about.
        git: Git in the repository.
        main: the commit that the request conflicts with.
        conflict: what does not merge.
    """
    base = git.run("merge-base", main, conflict.request.head, ok=(0, 1)).out.split("\n")[0]
    if not base or not conflict.paths:
        return conflict.messages
    # A path may begin with what Git takes for magic.
    literal = ("--literal-pathspecs",)
    paths = conflict.paths[:_PATHS_MAX]
    span = f"{base}..{main}"
    asked = (*_LOG, f"--max-count={_COMMITS_MAX + 1}", span, "--", *paths)
    lines = git.run(*literal, "-c", "trailer.separators=:", "log", *asked).out.split("\n")[:-1]
    told = [f"- {_told(view, line)}" for line in lines[:_COMMITS_MAX]]
    if len(lines) > _COMMITS_MAX:
        told.append("- and more, which `git log` shows")
    change = git.run(*literal, "diff", *_DIFF, base, main, "--", *paths).out
    cut = change[:_DIFF_MAX].rpartition("\n")[0]
    shown = change if len(change) <= _DIFF_MAX else f"{cut}\n[cut here]"
    since = f"Since this branch left main at {base[:12]}, main has there:"
    where = f"All of it: git log -p {base[:12]}..{main[:12]} -- {_named(paths)}"
    said = conflict.messages[:_MESSAGES_MAX].rstrip("\n")
    return "\n\n".join([said, "\n".join([since, *told]), where, shown.rstrip("\n")])


def _told(view: graph.View, line: str) -> str:
    commit, _, rest = line.partition("\x01")
    subject, _, beads = rest.rpartition("\x01")
    return " ".join([commit, subject, *(f"({_about(view, bead)})" for bead in dict.fromkeys(beads.split()))])


def _about(view: graph.View, bead_id: str) -> str:
    bead = view.get(bead_id)
    return f"{bead_id}: {bead.title}" if bead else bead_id


def _named(paths: Sequence[str]) -> str:
    return " ".join(path if path.isprintable() and " " not in path else repr(path) for path in paths[:3])
