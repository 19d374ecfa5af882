"""A proposal as a tree for a person: molecules, steps, criteria and needs, with the ids they have or get. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from beads.model import Bead
from roles.proposal import Item, Older, Proposal, counted


def render(proposal: Proposal) -> str:
    """The proposal as a tree for a person: molecules, steps, criteria and needs, with the ids they have or get."""
    plan = proposal.plan
    ids = {item.wanted.id: item.molecule.id for item in proposal.items}
    lines = [*_text(f"plan {plan.plan}", plan.title), *_indented(_text("", plan.description)), _summary(proposal)]
    for item in proposal.items:
        lines += ["", f"{item.molecule.id}  {_safe(item.wanted.id)}: {_safe(item.wanted.title)}  [{_standing(item)}]"]
        lines += _indented(_molecule(item, ids))
        lines += _indented(_older_line(old) for old in proposal.older if old.successor == item.molecule.id)
    dropped = [_older_line(old) for old in proposal.older if old.successor is None]
    return "\n".join([*lines, *([""] if dropped else []), *dropped]) + "\n"


def _summary(proposal: Proposal) -> str:
    steps = sum(len(item.steps) for item in proposal.items)
    there = len(proposal.items) - len(proposal.new)
    return (
        f"{counted(len(proposal.items), 'molecule')}, {counted(steps, 'step')}: {len(proposal.new)} new, "
        f"{there} there already" + (f", {len(proposal.ending)} superseded" if proposal.ending else "")
    )


def _standing(item: Item) -> str:
    there = item.there
    return "new" if there is None else f"there already, {there.outcome or there.status.replace('_', ' ')}"


def _molecule(item: Item, ids: Mapping[str, str]) -> Iterator[str]:
    wanted = item.wanted
    yield from _text("goal", wanted.goal)
    for need in dict.fromkeys(wanted.needs):
        yield f"needs: {need} ({ids[need]})" if need in ids else f"needs: {need}"
    yield from _text("touches", ", ".join(wanted.touches))
    yield f"priority: {wanted.priority}"
    yield from _text("labels", ", ".join(item.molecule.labels) if wanted.labels else "")
    yield from _text("agent", wanted.agent)
    yield from _text("budget", f"${wanted.budget:.2f} in all" if wanted.budget else "")
    yield from _text("rework", wanted.rework)
    order = wanted.order()
    for step, bead in zip(wanted.work(), item.steps, strict=True):
        yield f"{bead.id}  {step.id}: {_safe(step.title)}"
        yield from _indented(_step(bead, order[step.id]))
    yield from _indented((f"note: {line}; it stays as it is" for line in item.drift), "")


def _step(bead: Bead, after: Sequence[str]) -> Iterator[str]:
    yield from _text("description", bead.description)
    yield from _text("after", ", ".join(after))
    yield from _text("agent", bead.agent)
    yield from _text("on terms", str(bead.terms or ""))
    yield from _text("run", bead.run)
    for criterion in bead.criteria:
        yield from _text("done when", str(criterion))


def _older_line(old: Older) -> str:
    stands = f"{old.bead.id} ({'being worked on' if old.busy else old.bead.status.replace('_', ' ')})"
    if old.successor is None:
        return f"no longer in the plan: {stands} {_safe(old.bead.title)}; it stays as it is"
    if old.busy or old.settled:
        return f"after: {stands}, an older version, which is left to land first"
    if old.bead.closed:
        return f"in place of: {stands} {_safe(old.bead.title)}"
    return f"supersedes: {stands} {_safe(old.bead.title)}, which is closed"


def _text(label: str, text: str) -> list[str]:
    """Text under a label, its further lines below each other; nothing for no text."""
    first, *more = _safe(text).strip("\n").split("\n")
    head = f"{label}: {first}" if label and first else label or first
    return [head, *_indented(more)] if text or label.startswith("plan") else []


def _indented(lines: Iterable[str], indent: str = "    ") -> Iterator[str]:
    return (f"{indent}{line}".rstrip() for line in lines)


def _safe(text: str) -> str:
    """The text without control characters, which could tell a terminal to show something else."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text.replace("\r\n", "\n"))
