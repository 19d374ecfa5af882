"""``town queue``: the merge queue, what a person decides about it, and what it has done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.session import BEAD_ID, Session, common_options, group, only_a_person

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from beads.model import Bead
    from beads.ops import Operation
    from beads.store import Snapshot
    from refinery.git import Git
    from refinery.metrics import Metrics
    from refinery.standing import Row

_RECENT = 500
"""Of how many of the requests that ended last it is taken how the gate behaves."""


@group("queue", invoke_without_command=True, params=common_options(hidden=True))
@click.option("--stats", is_flag=True, help="Say what the queue has done instead of what is in it.")
@click.option("--days", type=click.FloatRange(min=0.001), default=7.0, show_default=True, help="Of how many days.")
@click.pass_context
def queue(context: click.Context, stats: bool, days: float) -> None:
    """The merge queue: what asks to go onto main, in the order it will, where each stands and why.

    When something lands is an estimate, for when it is good: the earliest and the latest of eighty in a hundred
    outcomes, from how long the gate took and how much fails. It is left out where nothing is known of that yet.

    With --stats: landings per hour, runs of the gate per landing beside the fewest that can do, how long was waited,
    how much failed for nothing, and how much was sent back; of the requests that ended in the last days.

    \b
    Example:
      town queue
      town queue --json | jq -r '.[] | .id + " " + .state + ": " + .why'
      town queue --stats --days 1
    """
    if context.invoked_subcommand is not None:
        return
    session = context.find_object(Session)
    assert session is not None, "every command has a session"
    if stats:
        _stats(session, days)
    else:
        _show(session)


def _show(session: Session) -> None:
    from cli.render import echo_json, printable, table

    found = _rows(session)
    if session.json:
        echo_json([_as_json(row, session.now()) for row in found])
        return
    lines = [
        [
            str(row.place),
            row.request.id,
            row.stands,
            _lands(row),
            row.request.merge.head[:10] if row.request.merge else "",
            f"{row.request.title} ({row.why}{_since(row)})",
        ]
        for row in found
    ]
    click.echo(table(lines, ["PLACE", "ID", "STATE", "LANDS IN", "HEAD", "TITLE"]) if lines else "the queue is empty")
    for row in found:
        for evidence in [e for e in row.request.evidence if e.gate][-1:]:
            if evidence.verdict != "pass":
                click.echo(f"\n{row.request.id}: {evidence.subject}: {evidence.detail}\n{printable(evidence.output)}")


def _rows(session: Session) -> list[Row]:
    from refinery.standing import estimated, measured, rows
    from refinery.underway import going_on

    snapshot = session.store.snapshot()
    found = rows(snapshot, going_on(session.store.directory))
    gate = _gate(session) if found else None
    if gate is None:
        return found
    digest, slots = gate
    recent = [*snapshot.ended(limit=_RECENT), *snapshot.requests()]
    return estimated(found, measured(recent, digest, slots), session.now())


def _gate(session: Session) -> tuple[str, int] | None:
    """The name of main's gate, and how many runs of it go on at once; None where there is none."""
    from beads.errors import TownError
    from refinery.gate import gate_of

    git, branch = _git(session), _branch(session)
    head = git.resolve(f"refs/heads/{branch}")
    try:
        gate = gate_of(git, head) if head else None
    except TownError:
        return None
    return (gate.digest(), gate.slots) if gate else None


def _git(session: Session) -> Git:
    from refinery.git import Git

    return Git(session.store.repository.common, session.environ)


def _branch(session: Session) -> str:
    from cli.config import settings_of

    settings = settings_of(session.start)
    return settings.town.branch if settings else "main"


def _as_json(row: Row, now: datetime) -> dict[str, object]:
    from datetime import timedelta

    merge = row.request.merge
    lands = [now + timedelta(seconds=seconds) for seconds in row.lands] if row.lands else None
    return {
        "id": row.request.id,
        "molecule": merge and merge.molecule,
        "title": row.request.title,
        "head": merge and merge.head,
        "place": row.place,
        "state": row.stands,
        "why": row.why,
        "with": list(row.beside),
        "since": row.since,
        "lands": {"earliest": lands[0], "latest": lands[1]} if lands else None,
        "verdicts": [e.model_dump(mode="json") for e in row.request.evidence if e.gate],
    }


def _since(row: Row) -> str:
    return f", since {row.since:%H:%M:%S} UTC" if row.since and row.stands == "testing" else ""


def _lands(row: Row) -> str:
    if row.lands is None:
        return ""
    first, last = (_duration(seconds) for seconds in row.lands)
    return first if first == last else f"{first} to {last}"


def _duration(seconds: float) -> str:
    """A length of time as roughly as an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _stats(session: Session, days: float) -> None:
    from datetime import timedelta

    from cli.render import echo_json, fields
    from refinery.metrics import metrics

    now = session.now()
    since = now - timedelta(days=days)
    found = metrics(session.store.snapshot().ended(since), since, now)
    if session.json:
        echo_json(_stats_json(found))
        return
    spent = f"{found.runs} runs of the gate"
    if found.runs_per_landing is not None and found.bound is not None:
        spent += f": {found.runs_per_landing:.2f} per landing; {found.bound:.2f} is the least, with what failed"
    flaky = found.flakes
    fields(
        [
            ("since", f"{found.since:%Y-%m-%d %H:%M} UTC, {found.hours:.1f} h"),
            ("landed", f"{found.landed}{_per_hour(found)}"),
            ("gate", spent),
            ("waited", _waited(found)),
            ("sent back", f"{found.sent_back}{_share(found.sent_back_share)}, {found.convicted} because of the gate"),
            ("otherwise", f"{found.withdrawn} withdrawn or superseded" if found.withdrawn else ""),
            ("flakes", f"{flaky.failures} of {flaky.runs} runs of good files{_share(flaky.rate)}; see `town flakes`"),
        ]
    )


def _per_hour(found: Metrics) -> str:
    return f", {found.per_hour:.2f} per hour" if found.per_hour is not None else ""


def _share(share: float | None) -> str:
    return f" ({share:.1%})" if share is not None else ""


def _waited(found: Metrics) -> str:
    half, most = found.wait(0.5), found.wait(0.95)
    return f"half at most {_duration(half)}, 95 in 100 at most {_duration(most)}" if half and most else ""


def _stats_json(found: Metrics) -> dict[str, object]:
    return {
        "since": found.since,
        "until": found.until,
        "hours": found.hours,
        "landed": found.landed,
        "landed_per_hour": found.per_hour,
        "sent_back": found.sent_back,
        "sent_back_share": found.sent_back_share,
        "convicted": found.convicted,
        "failing": found.failing,
        "withdrawn": found.withdrawn,
        "runs": found.runs,
        "runs_per_landing": found.runs_per_landing,
        "runs_per_landing_least": found.bound,
        "waited_p50": found.wait(0.5),
        "waited_p95": found.wait(0.95),
        "flakes": {"failures": found.flakes.failures, "runs": found.flakes.runs, "rate": found.flakes.rate},
    }


@queue.command("bump")
@click.argument("bead_id", type=BEAD_ID, metavar="ID")
@click.option("--reason", metavar="TEXT", default="", help="What you want to have on record.")
@click.pass_obj
def bump(session: Session, bead_id: str, reason: str) -> None:
    """Put a merge request to the front of the queue; a molecule's id will do.

    It goes behind what was put there before, so that nobody is overtaken twice, and what it needs comes along. What is
    being tested is given up for it. Who said so, and why, stays in the history.

    \b
    Example:
      town queue bump bt-7f3a9c.m1 --reason "the release waits for it"
    """
    from beads.ops import Bump

    only_a_person("put something to the front of the merge queue")
    _decided(session, bead_id, lambda request: Bump(id=request.id, reason=reason), "to the front")


@queue.command("drop")
@click.argument("bead_id", type=BEAD_ID, metavar="ID")
@click.option("--reason", metavar="TEXT", required=True, help="Why; whoever decides what becomes of it is told.")
@click.pass_obj
def drop(session: Session, bead_id: str, reason: str) -> None:
    """Take a merge request out of the queue; a molecule's id will do.

    Nothing of the work is lost: its molecule stays open, and waits for you to say what becomes of it. `town queue
    retry` asks for the same once more, `bead reopen STEP` has it worked on again, `bead close` gives it up.

    \b
    Example:
      town queue drop bt-7f3a9c.m1 --reason "not before the release"
    """
    from beads.ops import Withdraw

    only_a_person("take something out of the merge queue")
    git, branch = _git(session), _branch(session)

    def withdraw(request: Bead) -> Operation:
        return Withdraw(id=request.id, reason=reason, void=_void(git, branch, request))

    _decided(session, bead_id, withdraw, "withdrawn")


def _void(git: Git, branch: str, request: Bead) -> str:
    """The commit that main was to become with a request, if main has moved elsewhere since; else empty.

    Where a remote has main, this clone cannot tell.

    Raises:
        Refused: it has become that.
    """
    from beads.errors import Refused
    from refinery.landing import landing_of

    landing = request.merge.landing if request.merge else ""
    main, base = git.resolve(f"refs/heads/{branch}"), git.resolve(f"{landing}^1") if landing else None
    if not landing or not main or not base or main == base:
        return ""
    if git.is_ancestor(landing, main):
        hint = f"`town revert {request.id}` takes it back; `town up` records that it has landed."
        raise Refused(f"{request.id} has landed as {landing[:12]}", hint)
    return "" if landing_of(git, main).remote else landing


@queue.command("retry")
@click.argument("bead_id", type=BEAD_ID, metavar="ID")
@click.option("--reason", metavar="TEXT", default="", help="What you want to have on record.")
@click.pass_obj
def retry(session: Session, bead_id: str, reason: str) -> None:
    """Have a merge request tried again, after you mended what was wrong; a molecule's id will do.

    Of one in the queue, no failure from before counts any more, nor that the gate could not be run, or that main
    failed it; nothing is deleted. One that was sent back or withdrawn is asked for once more as it is, and the step
    that it was sent back with is given up.

    \b
    Example:
      town queue retry bt-7f3a9c.m1 --reason "the disk was full"
    """
    from beads.ops import Again

    only_a_person("have something in the merge queue tried again")
    _decided(session, bead_id, lambda request: Again(id=request.id, reason=reason), "tried again")


def _decided(session: Session, bead_id: str, make: Callable[[Bead], Operation], done: str) -> None:
    """Do what a person has decided about a request, and say where it stands then."""
    from beads import graph
    from cli.render import echo_json, printable

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        return [make(_request(session, snapshot, bead_id))]

    written = session.commit(decide)
    request = written.beads[0]
    assert request is not None, "it is about a request"
    assert request.merge is not None, "it is about a merge request"
    stands = graph.state(written.snapshot, written.snapshot.need(request.merge.molecule), session.now())
    if session.json:
        facts = {"id": request.id, "molecule": request.merge.molecule, "state": stands.kind, "why": stands.reason}
        echo_json({**facts, "changed": written.changed})
        return
    said = done if written.changed else f"{done} already"
    now = f"{stands.kind.replace('_', ' ')}: {printable(stands.reason)}"
    click.echo(f"{request.id} {said}; {request.merge.molecule} is {now}")


def _request(session: Session, snapshot: Snapshot, bead_id: str) -> Bead:
    """The merge request of that id, or the last one of the molecule of that id.

    Raises:
        Refused: the molecule has none.
    """
    from beads import graph
    from beads.errors import Refused

    bead = session.find(snapshot, bead_id)
    if bead.merge is not None:
        return bead
    requests = graph.merge_requests(snapshot, graph.molecule_of(snapshot, bead))
    if not requests:
        raise Refused(f"{bead_id} has no merge request", f"`bead why {bead_id}` says where it stands.")
    return requests[-1]
