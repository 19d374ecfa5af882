"""What an operation did, in plain words: the subjects of the store's history. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beads.model import Bead
    from beads.ops import Again, Bump, Intend, Judge, Land, Operation, Report, SendBack, Submit, Withdraw


def describe(operation: Operation, bead: Bead | None) -> str:
    """One line for the history: what ``operation`` did, in plain words, without what every line would say."""
    match operation.op:
        case "claim":
            return f"claim {bead.id}: {operation.worker}, epoch {bead.epoch}" if bead else "claim nothing: none ready"
        case "begin":
            return f"begin {operation.id}: {operation.worker}, attempt {len(bead.attempts) if bead else 1}"
        case "spend":
            return f"attempt at {operation.id} came to {_amount(operation.report)}: {operation.worker}"
        case "finish":
            return f"attempt at {operation.id} ended {operation.end}: {operation.reason or operation.worker}"
        case "answer":
            said = "answer" if operation.approved is None else "approve" if operation.approved else "reject"
            return f"{said} {operation.id}: {operation.reason or f'tree {operation.tree[:12]}'}"
        case "release":
            until = f", until {operation.until:%Y-%m-%d %H:%M} UTC" if operation.until else ""
            return f"release {operation.id}: {operation.reason or operation.worker}{until}"
        case "close":
            why = operation.reason or ("criteria hold" if bead and bead.criteria else "")
            return f"close {operation.id} as {operation.outcome}{': ' if why else ''}{why}"
        case "update":
            return f"update {operation.id}: {', '.join(sorted(operation.model_fields_set - {'op', 'id'}))}"
        case "label":
            signs = [f"+{name}" for name in operation.add] + [f"-{name}" for name in operation.remove]
            return f"label {operation.id}: {' '.join(signs)}"
        case "depend":
            when = "no longer" if operation.remove else "now"
            verb = "needs" if operation.type == "blocks" else operation.type
            return f"{operation.id} {when} {verb} {operation.on}"
        case "create" | "import":
            return f"{operation.op} {operation.bead.id}: {operation.bead.title}"
        case "restore":
            return f"undo {operation.commit[:12]}: {operation.what}"
        case "comment" | "renew" | "reopen" | "delete":
            return f"{operation.op} {operation.id}"
        case _:
            return _describe_request(operation, bead)


def _amount(report: Report) -> str:
    """Tokens and money, as far as they are known."""
    tokens = f"{report.usage.input} tokens in, {report.usage.output} out" if report.usage else "tokens unknown"
    return f"{tokens}, {'cost unknown' if report.cost is None else f'${report.cost:.4f}'}"


def _describe_request(
    operation: Submit | Judge | Intend | Land | SendBack | Bump | Withdraw | Again, bead: Bead | None
) -> str:
    match operation.op:
        case "submit":
            return f"submit {operation.id}: {operation.head[:12]} as {bead.id if bead else '?'}"
        case "judge":
            return f"gate {operation.evidence.verdict} for {operation.id}: tree {operation.evidence.tree[:12]}"
        case "intend":
            return f"about to land {', '.join(operation.ids)} as {operation.commit[:12]}"
        case "land":
            return f"landed {', '.join(operation.ids)} as {operation.commit[:12]}"
        case "send-back":
            return f"send back {operation.id}: {operation.reason}"
        case "bump":
            return f"to the front: {operation.id}{_because(operation.reason)}"
        case "withdraw":
            return f"withdraw {operation.id}: {operation.reason}"
        case "again":
            anew = f" as {bead.id}" if bead and bead.id != operation.id else ""
            return f"try {operation.id} again{anew}{_because(operation.reason)}"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
