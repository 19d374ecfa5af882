"""``town log``: what an agent tells while it works, afterwards or as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from cli.session import BEAD_ID, Session, command

if TYPE_CHECKING:
    from beads.model import Attempt, Bead
    from beads.store import Snapshot
    from roles.events import Event

_PAUSE_SECONDS = 0.2


@command("log")
@click.argument("bead_id", type=BEAD_ID, metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the attempt has ended.")
@click.option("--attempt", "number", type=click.IntRange(1), metavar="N", help="That one [the newest].")
@click.option("--output", is_flag=True, help="What its program printed, instead of what that means.")
@click.pass_obj
def log(session: Session, bead_id: str, follow: bool, number: int | None, output: bool) -> None:
    """Show what the agent of an attempt said, which tools it used, and what that took.

    ID is a step, or a molecule for the one of its steps that was tried last. What a command or a plain program
    printed is shown as it is. The logs are in this clone, below beads/logs in the Git directory; `bead show` has what
    became of an attempt, and `bead log` the history of a bead. With --json each line is an object of its own.

    \b
    Example:
      town log bt-7f3a9c
      town log bt-7f3a9c --follow
      town log bt-7f3a9c.2 --attempt 1 --json
    """
    from beads.errors import NotFound
    from beads.ids import check_id
    from roles.logs import attempt_label, lines

    step, attempt = _chosen(session, session.store.snapshot(), bead_id, number)
    molecule = step.parent if step.issue_type == "step" and step.parent else step.id
    plain = output or _is_silent(session, attempt)
    path = session.store.directory / "logs" / check_id(molecule)
    path /= f"{attempt_label(step, attempt)}.{'log' if plain else 'events'}"
    what = f"attempt {attempt.number} at {step.id}"
    if not path.exists() and not (follow and _goes_on(session, step.id, attempt)):
        raise NotFound(f"there is no log of {what} here", "It was made in another clone, or its log is gone by now.")
    if not session.json:
        click.echo(f"{what}: {attempt.runtime}, by {attempt.worker}")

    def over() -> bool:
        return not follow or not _goes_on(session, step.id, attempt)

    for line in lines(path, over, lambda: session.clock.sleep(_PAUSE_SECONDS)):
        _show(session, line, plain)
    _show_end(session, step.id, attempt)


def in_words(event: Event) -> str:
    """What an event says, as one line for whoever watches."""
    from roles.events import facts

    return _in_words(facts(event))


def _chosen(session: Session, snapshot: Snapshot, bead_id: str, number: int | None) -> tuple[Bead, Attempt]:
    """The attempt that is asked for, and the step it is at.

    Raises:
        NotFound: there is none.
    """
    from beads import graph
    from beads.errors import NotFound

    bead = session.find(snapshot, bead_id)
    steps = [bead] if bead.issue_type == "step" else graph.steps(snapshot, bead)
    found = [(step, attempt) for step in steps for attempt in step.attempts if number in (None, attempt.number)]
    if not found:
        which = f"attempt {number} at {bead.id} was never made" if number else f"nobody has begun with {bead.id}"
        raise NotFound(which, f"`bead why {bead.id}` says where it stands.")
    return max(found, key=lambda pair: pair[1].started_at)


def _is_silent(session: Session, attempt: Attempt) -> bool:
    """Whether the agent's program tells nothing that could be made events of; what it prints is then all there is."""
    from beads.errors import TownError
    from cli.config import load_settings, work_tree
    from roles.runtimes import runtime_of
    from roles.runtimes.plain import silent

    try:
        agent = load_settings(work_tree(session.start)).agent(attempt.runtime)
    except TownError:
        return False
    return runtime_of(agent).reader is silent


def _goes_on(session: Session, step_id: str, attempt: Attempt) -> bool:
    """Whether more may come: the attempt has not ended, and its worker lives."""
    from beads import liveness

    now = _now(session, step_id, attempt)
    return now.end is None and liveness.alive(session.store.directory / liveness.WORKERS, attempt.worker)


def _now(session: Session, step_id: str, attempt: Attempt) -> Attempt:
    step = session.store.snapshot().get(step_id)
    return next((a for a in step.attempts if a.number == attempt.number), attempt) if step else attempt


def _show(session: Session, line: bytes, plain: bool) -> None:
    from cli.render import json_text, printable

    text = line.decode(errors="replace").rstrip("\r")
    if plain:
        click.echo(json_text({"event": "output", "text": text}) if session.json else printable(text))
        return
    try:
        facts = json.loads(text)
    except ValueError:
        # The last line of a process that was killed while it wrote.
        return
    if isinstance(facts, dict):
        click.echo(json_text(facts) if session.json else f"{str(facts.get('at', ''))[11:19]}  {_in_words(facts)}")


def _show_end(session: Session, step_id: str, attempt: Attempt) -> None:
    """How the attempt ended by the criteria, which its program cannot know."""
    from cli.render import printable

    ended = _now(session, step_id, attempt)
    if ended.end is not None and not session.json:
        click.echo(printable(f"{ended.end}{f': {ended.reason}' if ended.reason else ''}"))


def _in_words(facts: Mapping[str, Any]) -> str:
    """The line for one event, as a log has it."""
    from cli.render import printable

    kind = str(facts.get("event", ""))
    said = printable("\n".join(filter(None, _parts(kind, facts)))).replace("\n", "\n" + " " * 20)
    return f"{kind:<8}  {said}".rstrip()


def _parts(kind: str, facts: Mapping[str, Any]) -> Iterator[str]:
    match kind:
        case "began":
            yield " ".join(str(facts[name]) for name in ("model", "session") if name in facts)
        case "acted":
            ok = {True: "", False: " (failed)"}.get(facts.get("ok", True), "")
            yield ": ".join(str(facts[name]) for name in ("tool", "what") if name in facts) + ok
        case "used":
            usage = facts.get("usage")
            tokens = [f"{count:,} {name}" for name, count in usage.items()] if isinstance(usage, dict) else []
            yield ", ".join([*tokens, *([f"${facts['cost']:.4f}"] if "cost" in facts else [])])
        case "ended":
            yield ": ".join(str(facts[name]) for name in ("ending", "text") if name in facts)
        case _:
            yield str(facts.get("text", ""))
