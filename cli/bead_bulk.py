"""``bead``: the commands that bring many changes at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from cli import render
from cli.bead_write import new_bead, new_id
from cli.formulas import FORMULA, given, plan_of, pouring_options
from cli.session import Session, asked, command, given_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from beads.model import Fact
    from beads.ops import Operation
    from beads.store import Snapshot

# What a person may say of a new bead. The rest is what happens to it afterwards, and is only ever the consequence
# of an operation: nobody can bring a bead into the world that has landed, or is sealed, held or proven.
_GIVEN = frozenset(
    {
        "agent",
        "assignee",
        "attempts_max",
        "criteria",
        "defer_until",
        "dependencies",
        "description",
        "id",
        "issue_type",
        "labels",
        "priority",
        "rework",
        "run",
        "terms",
        "title",
    }
)


class Line(NamedTuple):
    """A line of a batch: where it is, which operation it asks for, and the fields of that."""

    place: str
    model: type[Fact]
    facts: dict[str, Any]


@command("pour")
@click.argument("what", metavar="FORMULA|PLAN", type=FORMULA)
@pouring_options
@click.option("--dry-run", is_flag=True, help="Show what would be poured, and pour nothing.")
@click.pass_obj
def pour(
    session: Session,
    what: str,
    variables: tuple[str, ...],
    name: str,
    criteria: tuple[str, ...],
    run: str,
    dry_run: bool,
) -> None:
    """Make the molecules of a plan or a formula, all or none.

    They are sealed, and ready to be worked on. Pouring the same again changes nothing. Pouring what was edited makes
    new beads for what is another now, and closes as superseded what nobody had begun; --dry-run shows all that.
    A formula with other values is another plan; `bead formula list` prints the formulas. A tasks.md of Spec-Kit is a
    plan, too.

    \b
    Example:
      bead pour plan.toml --dry-run
      bead pour bugfix --var "summary=Empty titles crash" --var "test=make test" \\
        --var test_file=tests/test_titles.py
      bead pour codemod-per-file --var "files=$(git ls-files '*.py')" --var 'change=sed -i s/old/new/ "$1"' \\
        --var 'check=! grep -q old "$1"' --var "test=make test"
      bead pour specs/001-albums/tasks.md --criterion 'run: make test' --run 'tools/do {{id}} {{paths}}'
    """
    from roles.proposal import accept, propose_plan
    from roles.showing import render as in_words

    plan = plan_of(session, what, given(variables, name, criteria, run))
    proposal = propose_plan(plan, session.store, session.actor)
    beads = [bead for item in proposal.items for bead in (item.molecule, *item.steps)]
    if dry_run:
        if session.json:
            render.echo_json([render.bead_json(bead) for bead in beads])
        else:
            click.echo(in_words(proposal), nl=False)
        return
    written = accept(proposal, session.store, session.actor)
    if session.json:
        there = (written.snapshot.get(bead.id) for bead in beads)
        render.echo_json([render.bead_json(bead) for bead in there if bead is not None])
        return
    render.echo_table([(bead.id, bead.issue_type, bead.title) for bead in beads], ("id", "type", "title"))
    if not written.changed:
        click.echo("everything in it was there already; nothing changed", err=True)


@command("batch")
@click.argument("file", metavar="FILE|-", type=click.Path(allow_dash=True))
@click.pass_obj
def batch(session: Session, file: str) -> None:
    """Do many operations as one transaction: all of them, or none.

    Each line of FILE is an operation as JSON: create, update, label, depend, comment, claim, renew, release,
    close, or reopen, with the fields that the store's operations have. A new bead may come without an id. What
    only a role of the town may say, such as evidence, is refused.

    \b
    Example:
      bead batch operations.jsonl
      printf '%s\\n' \\
        '{"op": "create", "bead": {"id": "bt-doc", "title": "Write the manual", "priority": 1}}' \\
        '{"op": "label", "id": "bt-doc", "add": ["docs"]}' | bead batch -
    """
    from beads.errors import TownError

    source = "standard input" if file == "-" else file
    lines = list(_lines(_batch_text(file), source))
    now = session.now()

    def decide(snapshot: Snapshot) -> list[Operation]:
        return [_operation(session, snapshot, line, now) for line in lines]

    try:
        written = session.commit(decide)
    except TownError as error:
        place = _culprit(session, lines, decide)
        if place and not error.message.startswith(place):
            error.message = f"{place}: {error.message}"
        raise
    if session.json:
        render.echo_json([None if bead is None else render.bead_json(bead) for bead in written.beads])
    else:
        said = "done as one transaction" if written.changed else "nothing changed: everything was so already"
        click.echo(f"{len(lines)} operations, {said}")


def _batch_text(file: str) -> str:
    from beads.errors import InvalidInput, NotFound

    if file == "-":
        return given_text("-", "the batch")
    try:
        return Path(file).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}") from error


def _lines(text: str, source: str) -> Iterator[Line]:
    """The operations of a batch, each checked as far as that is possible without the store."""
    models = _models()
    # Not splitlines: a JSON text may hold other characters that Python takes for the end of a line.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _line(line, f"{source}:{number}", models)


def _models() -> dict[str, type[Fact]]:
    """The operations that anybody may ask for, by name."""
    from beads import ops

    allowed = (
        ops.Create,
        ops.Update,
        ops.Label,
        ops.Depend,
        ops.Say,
        ops.Claim,
        ops.Renew,
        ops.Release,
        ops.Close,
        ops.Reopen,
        ops.Delete,
    )
    return {model.model_fields["op"].default: model for model in allowed}


def _line(text: str, place: str, models: Mapping[str, type[Fact]]) -> Line:
    from beads.errors import InvalidInput, Refused
    from beads.model import Dependency

    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = "nested too deep" if isinstance(error, RecursionError) else error
        raise InvalidInput(f"{place}: not JSON: {problem}") from error
    name = str(facts.get("op")) if isinstance(facts, dict) else "a line without an object"
    if name not in models:
        hint = f'Write {{"op": …}} with one of {", ".join(models)}.'
        raise InvalidInput(f"{place}: {name!r} is not an operation that a batch may have", hint)
    if facts.get("evidence"):
        raise Refused(f"{place}: evidence cannot be given", "It is what the town finds when it evaluates the criteria.")
    model = models[name]
    if name == "create":
        return Line(place, model, _new_facts(facts, place))
    if name == "depend":
        asked(Dependency, place, on=facts.get("on"), type=facts.get("type", "blocks"))
    asked(model, place, **facts)
    return Line(place, model, facts)


def _new_facts(facts: dict[str, Any], place: str) -> dict[str, Any]:
    """What a line says of a new bead."""
    import difflib

    from beads.errors import InvalidInput

    bead = facts.get("bead")
    if not isinstance(bead, dict) or set(facts) != {"op", "bead"}:
        raise InvalidInput(f"{place}: create takes a bead and nothing else", 'Write {"op": "create", "bead": {…}}.')
    for key in bead:
        if key not in _GIVEN:
            near = difflib.get_close_matches(key, _GIVEN, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(sorted(_GIVEN))}."
            raise InvalidInput(f"{place}: {key!r} cannot be given to a new bead", hint)
    return bead


def _operation(session: Session, snapshot: Snapshot, line: Line, now: datetime) -> Operation:
    from beads.ops import Create

    if line.model is not Create:
        return cast("Operation", asked(line.model, line.place, **line.facts))
    # The place is a part of it, because two lines that say the same are still two beads.
    parts = (json.dumps(line.facts, sort_keys=True), session.actor, now.isoformat(), line.place)
    made = {} if "id" in line.facts else {"id": new_id(snapshot, None, *parts)}
    return Create(bead=new_bead({**line.facts, **made}, session.actor, now, line.place))


def _culprit(session: Session, lines: Sequence[Line], decide: Callable[[Snapshot], list[Operation]]) -> str:
    """Where the first line is that cannot be done after those before it; empty when none can be blamed now."""
    from beads.apply import Context, Draft, apply
    from beads.errors import TownError

    snapshot = session.store.snapshot()
    draft, context = Draft(snapshot), Context(session.actor, session.now())
    try:
        operations = decide(snapshot)
    except TownError:
        return ""
    for line, operation in zip(lines, operations, strict=True):
        try:
            apply(operation, draft, context)
        except TownError:
            return line.place
    return ""
