"""What is tested: main, or main with the first so many of the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from refinery.merge import Candidate, Request


@dataclass(frozen=True)
class Prefix:
    """What a gate run can be of.

    Attributes:
        commit: what is checked out.
        tree: its tree.
        members: what is merged there.
        request: the merge request its verdict is stored on.
        what: it in words.
    """

    commit: str
    tree: str
    members: tuple[Request, ...]
    request: str = ""
    what: str = ""


def prefix(main: Prefix, candidates: Sequence[Candidate], k: int, trial: int) -> Prefix:
    """Prefix ``k``; the verdict of a control, which is of main, is kept with the request whose trial it belongs to."""
    tip = candidates[(k or trial or 1) - 1]
    request = tip.members[-1].id
    if not k:
        return replace(main, request=request, what=f"{main.what}, the control of {request}")
    others = f" and the {k - 1} before it" if k > 1 else ""
    return Prefix(tip.commit, tip.tree, tip.members, request, f"{request}{others}")
