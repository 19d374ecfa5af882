"""Rows of ``bd`` and beads of ours: each becomes the other, and comes back as it was. Pure.

For each key of a row holds: what the bead would print now is compared with what it would have printed when the row
came. When they are the same, the row's own value is printed, such as a time to the nanosecond or a status that we do
not have; otherwise the key was edited here, and ours is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Container
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from beads.interchange.kept import KEY, Kept, difference, digest, holds, is_text
from beads.interchange.row import EPOCH, Row, clean, json_text, made_id, one_line, our_id, word
from beads.model import Bead, Comment, Dependency, derived_id

Name = Callable[[str], str]
"""Says for the id of a bead what its file called it."""

SCALARS = (
    "title",
    "description",
    "status",
    "priority",
    "issue_type",
    "assignee",
    "updated_at",
    "closed_at",
    "close_reason",
    "defer_until",
    "value",
)
"""The keys with one value that may be edited here; ``value`` is that of a memory."""

_LISTS = ("labels", "dependencies", "comments")
_ORDER = ("_type", "id", *SCALARS[:6], "created_at", "created_by", *SCALARS[6:10], *_LISTS)
_TAKEN = frozenset({"id", "created_at", "created_by", *SCALARS[:10], *_LISTS, *Bead.model_fields, KEY})

_COMMENT = ("id", "issue_id", "author", "text", "created_at")

# bd takes these words for a failure wherever they stand in a reason, and only where something waits for one.
_FAILURE = re.compile(r"failed|rejected|wontfix|won't fix|cancell?ed|abandoned|blocked|error|timeout|aborted", re.I)
# Prose is full of them: "tests for timeouts added" is no failure. Elsewhere they must be what the reason says.
_DECIDED = re.compile(
    r"\W*(failed|blocked|error|timeout)\b(\W*$|\s*[:;,.(–—-]|\s+(after|by|due|on|to)\b)"
    r"|.*\b(rejected|wontfix|won't fix|cancell?ed|abandoned|aborted)\b",
    re.I | re.S,
)

# What bd hands out to nobody although it is open.
_NOT_WORK = frozenset({"gate", "molecule", "agent", "role", "rig"})
_FLAGS = ("ephemeral", "wisp", "pinned", "is_template")
# Types that mean more to us than a word; a foreign bead does not become one by its name.
OURS = frozenset({"step", "merge-request"})
"""Types that no imported bead is given."""


def failed(reason: str) -> bool:
    """Whether ``bd`` takes a reason for closing for a failure: it has one of the words, anywhere."""
    return bool(_FAILURE.search(reason))


def is_memory(facts: dict[str, Any]) -> bool:
    """Whether a row is no issue but something that was to be remembered, as its ``_type`` says."""
    return facts.get("_type") not in (None, "issue")


def bead_of(row: Row) -> Bead:
    """The bead that a row describes, with all that is needed to print the row again.

    Raises:
        InvalidDocument: a value has a type that it cannot have; names file, line and key.
    """
    memory = is_memory(row.facts)
    taken = _TAKEN | {"value"} if memory else _TAKEN
    own = {key: value for key, value in row.facts.items() if key not in taken and holds(value)}
    try:
        bead = Bead.model_validate({**own, **(_memory(row) if memory else _fields(row))})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise row.fault(".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")) from error
    now = {key: value for key, value in printed(bead).items() if key not in own}
    exact, without = difference({key: value for key, value in row.facts.items() if key not in own}, now)
    # What is edited element by element is always kept: it says what was there when the row came.
    exact |= {key: row.facts[key] for key in ("labels", "dependencies") if key in row.facts}
    if bead.comments:
        exact.pop("comments", None)
    seen = {key: digest(now[key]) for key in SCALARS if key in now}
    return bead.evolve(**{KEY: Kept(seen, exact, without, tuple(own)).table()})


def row_of(bead: Bead, name: Name = str) -> dict[str, Any]:
    """The row of a bead: of an imported one as it was imported, but for what was edited since.

    Args:
        bead: the bead.
        name: says for the id of another bead what its file called it, where that is not its id.
    """
    row = printed(bead, name)
    kept = Kept.of(bead)
    if kept is not None:
        ours = edits(bead, kept) | ({"comments"} if bead.comments else set())
        lists = {"labels": _labels(bead, kept), "dependencies": _edges(bead, kept, name)}
        row = {
            key: value for key, value in row.items() if key not in lists and (key in ours or key not in kept.without)
        }
        row |= {key: value for key, value in kept.exact.items() if key not in lists and key not in ours}
        # One that was written empty stays so; one that was emptied here is left out.
        row |= {key: left or kept.exact[key] for key, left in lists.items() if left or not kept.exact.get(key, 1)}
    first = [key for key in _ORDER if key in row]
    return {key: row[key] for key in (*first, *(key for key in row if key not in _ORDER))}


def name_in(known: Callable[[str], Bead | None]) -> Name:
    """What files called beads, where that could not be their id.

    Args:
        known: finds a bead.
    """

    def name(bead_id: str) -> str:
        # An id that was made of another one shows it, so that the others need not be looked up.
        bead = known(bead_id) if made_id(bead_id) else None
        kept = Kept.of(bead) if bead else None
        said = kept.exact.get("id", bead_id) if kept else bead_id
        return said if isinstance(said, str) else bead_id

    return name


def edits(bead: Bead, kept: Kept) -> set[str]:
    """The keys with one value that were edited since the row came."""
    now = printed(bead)
    keys = (key for key in SCALARS if key not in kept.also)
    return {key for key in keys if kept.seen.get(key) != (digest(now[key]) if key in now else None)}


def printed(bead: Bead, name: Name = str) -> dict[str, Any]:
    """The row that the fields of a bead make, whatever was imported; what is empty is left out."""
    own = {key: value for key, value in (bead.model_extra or {}).items() if key != KEY}
    if is_memory(own):
        return {**own, **({"value": bead.description} if bead.description else {})}
    row = {
        "id": name(bead.id),
        "title": bead.title,
        "description": bead.description,
        "status": "tombstone" if bead.deleted else bead.status,
        "priority": bead.priority,
        "issue_type": bead.issue_type,
        "assignee": bead.assignee,
        "created_at": _rfc3339(bead.created_at),
        "created_by": bead.created_by,
        "updated_at": _rfc3339(bead.updated_at),
        **_ending(bead),
        "defer_until": bead.defer_until and _rfc3339(bead.defer_until),
        "labels": list(bead.labels),
        "dependencies": [_edge_row(edge, bead.id, name) for edge in bead.dependencies],
        "comments": [_comment_row(comment, bead.id, name) for comment in bead.comments],
    }
    if bead.criteria:
        said = own.get("acceptance_criteria")
        lines = [*([said] if isinstance(said, str) and said else []), *(f"- {c}" for c in bead.criteria)]
        own = {**own, "acceptance_criteria": "\n".join(lines)}
    return {**{key: value for key, value in row.items() if value not in (None, "", [])}, **own}


def _ending(bead: Bead) -> dict[str, str]:
    """How a bead ended, in the words that ``bd`` understands."""
    at, reason = _rfc3339(bead.closed_at) if bead.closed_at else "", bead.close_reason
    if bead.deleted:
        # What a tombstone was imported with is among its own keys, and stands before these.
        return {"deleted_at": at, "delete_reason": reason, "original_type": bead.issue_type}
    if bead.outcome in ("rejected", "cancelled") and not failed(reason):
        # What waits for the failure of this bead would never be freed.
        reason = f"{bead.outcome}: {reason}" if reason else bead.outcome
    return {"closed_at": at, "close_reason": reason}


def _fields(row: Row) -> dict[str, Any]:
    """The fields of ours that an issue has."""
    said = row.text("id")
    if not said:
        raise row.fault("id", "is missing")
    created, updated = row.moment("created_at"), row.moment("updated_at")
    kind = word(row.text("issue_type") or "task", "_-")
    return {
        "id": our_id(row.facts["id"]),
        "title": _title(row),
        "description": row.text("description"),
        "priority": min(max(row.number("priority", 2), 0), 4),
        "issue_type": f"bd-{kind}" if kind in OURS else kind,
        "assignee": row.text("assignee"),
        "created_at": created or updated or EPOCH,
        "created_by": row.text("created_by"),
        "updated_at": updated or created or EPOCH,
        "defer_until": row.moment("defer_until"),
        **_standing(row, kind, updated or created or EPOCH),
        "labels": tuple(dict.fromkeys(filter(None, row.texts("labels")))),
        "dependencies": tuple(edges_of(row)),
        "comments": tuple(_comments(row)),
    }


def _title(row: Row) -> str:
    said = one_line(row.text("title"))
    if said.strip():
        return said
    # A tombstone may be all that is known of an issue.
    if row.facts.get("title") is None and row.facts.get("status") != "tombstone":
        raise row.fault("title", "is missing")
    return one_line(row.text("id"))


def _standing(row: Row, kind: str, last: datetime) -> dict[str, Any]:
    """Where an issue stands. Statuses that we do not have are deferred: neither here nor there a worker gets it."""
    status, reason, closed = row.text("status") or "open", row.text("close_reason"), row.moment("closed_at")
    if status == "tombstone":
        at = row.moment("deleted_at") or closed or last
        said = row.text("delete_reason") or reason
        return {"status": "closed", "outcome": "deleted", "closed_at": at, "close_reason": said}
    if status == "closed":
        outcome = "rejected" if _DECIDED.match(reason) else "done"
        return {"status": "closed", "outcome": outcome, "closed_at": closed or last, "close_reason": reason}
    if status == "hooked":
        return {"status": "in_progress"}
    work = kind not in _NOT_WORK and not any(row.facts.get(flag) is True for flag in _FLAGS)
    return {"status": status if status == "in_progress" or (status == "open" and work) else "deferred"}


def _memory(row: Row) -> dict[str, Any]:
    """Something remembered: a closed bead, so that search finds it and nobody works on it."""
    key, at = row.facts.get("key"), row.moment("updated_at") or row.moment("created_at") or EPOCH
    named = key if isinstance(key, str) and key else json.dumps(row.facts, sort_keys=True)
    value = row.facts.get("value")
    return {
        "id": derived_id("memory", str(row.facts["_type"]), named, length=8),
        "title": one_line(clean(named)).strip() or "memory",
        "description": clean(value) if isinstance(value, str) else "",
        "issue_type": "memory",
        "status": "closed",
        "outcome": "done",
        "created_at": row.moment("created_at") or at,
        "updated_at": at,
        "closed_at": at,
    }


def edges_of(row: Row) -> list[Dependency]:
    """The dependencies of a row, each once."""
    return list({(edge.type, edge.on): edge for edge in map(_edge_of, row.rows("dependencies"))}.values())


def _edge_of(row: Row) -> Dependency:
    said = row.text("depends_on_id")
    if not said:
        raise row.fault("depends_on_id", "is missing")
    kind, more = word(row.text("type") or "blocks"), json_text(row.facts.get("metadata"))
    if kind != "waits-for":
        return Dependency(on=our_id(said), type=kind)
    spawner, gate = more.get("spawner_id"), more.get("gate")
    on = spawner if isinstance(spawner, str) and spawner else said
    return Dependency(on=our_id(on), type=kind, gate=gate if gate in ("all-children", "any-children") else "")


def _edge_row(edge: Dependency, bead_id: str, name: Name) -> dict[str, Any]:
    row = {"issue_id": name(bead_id), "depends_on_id": name(edge.on), "type": edge.type}
    return {**row, "metadata": json.dumps({"gate": edge.gate})} if edge.gate else row


def _edges(bead: Bead, kept: Kept, name: Name) -> list[Any]:
    """The dependencies that were imported and are still there, as they were, and those that were added since."""
    here = {(edge.type, edge.on) for edge in bead.dependencies}
    said = [(element, _edge_of(Row(element))) for element in kept.exact.get("dependencies") or []]
    known = {("parent-child", kept.parent), *((edge.type, edge.on) for _, edge in said)}
    more = [_edge_row(e, bead.id, name) for e in bead.dependencies if (e.type, e.on) not in known]
    return [element for element, edge in said if (edge.type, edge.on) in here] + more


def _labels(bead: Bead, kept: Kept) -> list[str]:
    """The same of the labels; an empty one is no label to us, and stays."""
    said = kept.exact.get("labels") or []
    known = {clean(label) for label in said}
    here = {*bead.labels, ""}
    return [label for label in said if clean(label) in here] + [label for label in bead.labels if label not in known]


def _comments(row: Row) -> list[Comment]:
    found: dict[str, Comment] = {}
    for inner in row.rows("comments"):
        comment = _comment_of(inner, row, found)
        found[comment.id] = comment
    return list(found.values())


def _comment_of(row: Row, issue: Row, taken: Container[str]) -> Comment:
    facts = row.facts
    own = {key: value for key, value in facts.items() if key not in (*_COMMENT, KEY) and holds(value)}
    comment = Comment.model_validate(
        {
            **own,
            "id": _comment_id(facts, taken),
            "author": row.text("author"),
            "text": row.text("text"),
            "created_at": row.moment("created_at") or issue.moment("created_at") or EPOCH,
        }
    )
    rest = {key: value for key, value in facts.items() if key not in own}
    exact, without = difference(rest, _plain_comment(comment, issue.facts["id"]))
    # Kept also where it says nothing, because it tells that the comment was imported.
    return comment.model_copy(update={KEY: Kept(exact=exact, without=without, also=tuple(own)).table()})


def _comment_id(facts: dict[str, Any], taken: Container[str]) -> str:
    """A text is an id; a number is not, because every clone counted anew. Then what was said makes the id."""
    said = facts.get("id")
    if isinstance(said, str) and said and is_text(said) and said not in taken:
        return said
    found = _digest_id([facts.get(key) for key in _COMMENT])
    while found in taken:
        found = _digest_id(found)
    return found


def _plain_comment(comment: Comment, issue: str) -> dict[str, Any]:
    said = (comment.id, issue, comment.author, comment.text, _rfc3339(comment.created_at))
    return dict(zip(_COMMENT, said, strict=True))


def _comment_row(comment: Comment, bead_id: str, name: Name) -> dict[str, Any]:
    kept = Kept.of(comment) or Kept()
    own = {key: value for key, value in (comment.model_extra or {}).items() if key != KEY}
    row = {**_plain_comment(comment, name(bead_id)), **kept.exact, **own}
    return {key: value for key, value in row.items() if key not in kept.without}


def _digest_id(what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
