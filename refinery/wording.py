"""What the Refinery's commits say: one line about each request, and trailers that no title or message passes for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refinery.merge import Request

REQUEST = "Merge-Request"
"""The trailer that names a request; only what main gets has it, and each request once."""

HEAD = "Merge-Head"
"""The trailer with the head of the request above it, where no parent tells that."""

_NAMED_MAX = 8
"""How many members a subject names; the body has them all."""

_COMMITS_MAX = 50
"""How many commits the message of a squashed one lists."""

_OURS = re.compile(rf"^(?=(?:{REQUEST}|{HEAD})\s*[:=])", re.IGNORECASE | re.MULTILINE)
_TRAILERS = re.compile(r"(?:[A-Za-z0-9-]+: .*\n)+")


def merging(request: Request) -> str:
    """Says that a request is merged, without the trailers."""
    title = _line(request.title)
    return f"Merge {request.id}: {title}" if title else f"Merge {request.id}"


def squashing(request: Request, subjects: Sequence[str]) -> str:
    """Says what a request does, and which commits that were, without the trailers."""
    title = _line(request.title)
    listed = [f"- {_line(subject)}" for subject in subjects[:_COMMITS_MAX]]
    if len(subjects) > _COMMITS_MAX:
        listed.append(f"- and {len(subjects) - _COMMITS_MAX} more")
    body = "\n".join(listed) if len(subjects) > 1 else ""
    return "\n\n".join(filter(None, [f"{title} ({request.id})" if title else request.id, body]))


def repeating(message: str) -> str:
    """A branch's own message, in which nothing is left that passes for one of our trailers."""
    return _OURS.sub("> ", message).rstrip("\n")


def with_bead(text: str, request: Request) -> str:
    """The message of a member in a stack."""
    return f"{text}\n\nBead: {request.molecule}\n"


def landing(text: str, members: Sequence[Request], *, heads: bool) -> str:
    """The message of what main gets, with the trailers of each member; ``heads`` where no parent tells of theirs."""
    trailers = "".join(
        f"{REQUEST}: {member.id}\n" + (f"{HEAD}: {member.head}\n" if heads else "") + f"Bead: {member.molecule}\n"
        for member in members
    )
    first, _, last = f"{text}\n".rpartition("\n\n")
    # A block of trailers that is there already takes ours in, or Git would not see it any more.
    return f"{text}\n{trailers}" if first and _TRAILERS.fullmatch(last) else f"{text}\n\n{trailers}"


def train(members: Sequence[Request]) -> str:
    """Says what main gets where that is several requests, or several commits of one; without the trailers."""
    if len(members) == 1:
        return merging(members[0])
    more = f" and {len(members) - _NAMED_MAX} more" if len(members) > _NAMED_MAX else ""
    named = ", ".join(member.id for member in members[:_NAMED_MAX])
    body = "".join(f"- {member.id}: {_line(member.title)}\n" for member in members)
    return f"Land {len(members)} merge requests: {named}{more}\n\n{body}".rstrip("\n")


def _line(text: str) -> str:
    """One line of what can be printed, so that no title passes for a trailer or hides what it says."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
