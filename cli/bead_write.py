"""``bead``: the commands that change one bead, or a few."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

import click

from cli import render
from cli.session import BEAD_ID, Session, asked, command, given_text, group, only_a_person

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from beads.model import Bead
    from beads.ops import Operation
    from beads.store import Snapshot, Written

_ID_LENGTH = 6

# How many ids of one length are tried before a longer one is.
_NONCES = 4


class Priority(click.ParamType):  # type: ignore[type-arg]  # As in cli/session.py.
    """A priority as people write it: ``1`` or ``P1``."""

    name = "priority"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        text = str(value).upper().removeprefix("P")
        if text not in ("0", "1", "2", "3", "4"):
            self.fail(f"{value!r} is not 0 (most urgent) to 4", param, ctx)
        return int(text)


class Title(click.ParamType):  # type: ignore[type-arg]  # As in cli/session.py.
    """A title: one line that says something."""

    name = "title"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The title, if it is one."""
        if not value.strip() or len(value) > 500 or any(ord(character) < 32 for character in value):
            self.fail(f"{value[:80]!r} is not one line of up to 500 characters", param, ctx)
        return value


class Label(click.ParamType):  # type: ignore[type-arg]  # As in cli/session.py.
    """A label: something to find a bead by, without the blanks around it."""

    name = "label"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The label, if it is one."""
        if not value.strip() or not value.isprintable():
            self.fail(f"{value[:80]!r} is not a word or a few", param, ctx)
        return value.strip()


class Moment(click.ParamType):  # type: ignore[type-arg]  # As in cli/session.py.
    """A date or a moment in ISO 8601; without a zone, in UTC."""

    name = "moment"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment, in UTC."""
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date such as 2026-01-31 or 2026-01-31T12:00Z", param, ctx)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


@command("create")
@click.argument("title", type=Title())
@click.option(
    "-t", "--type", "issue_type", metavar="T", default="task", show_default=True, help="task, bug, feature, epic, …"
)
@click.option(
    "-p", "--priority", metavar="0-4", type=Priority(), default="2", show_default=True, help="0 is the most urgent."
)
@click.option("-d", "--description", metavar="TEXT|-", default="", help="What it is about; - reads standard input.")
@click.option("--needs", metavar="ID", multiple=True, type=BEAD_ID, help="It waits for ID; repeatable.")
@click.option("--parent", metavar="ID", type=BEAD_ID, help="It is a part of ID, and its id says so.")
@click.option(
    "-l", "--label", "labels", metavar="L", multiple=True, type=Label(), help="A word to find it by; repeatable."
)
@click.option("--assignee", metavar="A", default="", help="Whose it is.")
@click.option(
    "--criterion",
    "criteria",
    metavar="'run: CMD'",
    multiple=True,
    help="What must hold; or 'file: PATH', 'diff: GLOB…', 'review: …', 'approval: …'.",
)
@click.option("--id", "given_id", metavar="ID", type=BEAD_ID, help="Its id; otherwise one is made.")
@click.pass_obj
def create(session: Session, /, needs: tuple[str, ...], parent: str | None, given_id: str | None, **facts: Any) -> None:
    """Create a bead and print its id.

    With a criterion it is work that polecats can do: it closes when each criterion was seen to hold.

    \b
    Example:
      bead create "Crash on empty title" -t bug -p 1 --label urgent
      bead create "Add slugify()" --criterion "run: pytest -q tests/test_slug.py"
      bead create "Release notes" --needs bt-7f3a9c --description - < notes.md
    """
    from beads.create import Create
    from beads.criteria import ONLY_LIMITS, only_limit
    from beads.errors import InvalidInput

    facts["description"] = given_text(facts["description"], "the description")
    facts["criteria"] = [criterion_facts(text) for text in facts["criteria"]]
    if only_limit(kind for criterion in facts["criteria"] for kind in criterion):
        raise InvalidInput("these criteria hold when nothing is done", ONLY_LIMITS)
    facts["dependencies"] = _edges(needs, parent)
    facts["labels"] = sorted(set(facts["labels"]))
    now = session.now()

    def decide(snapshot: Snapshot) -> list[Operation]:
        for other in (*needs, *([parent] if parent else ())):
            session.find(snapshot, other)
        bead_id = given_id or new_id(
            snapshot, parent, facts["title"], facts["description"], session.actor, now.isoformat()
        )
        # It was just checked, and to check it once more costs as much.
        return [Create.model_construct(bead=new_bead({**facts, "id": bead_id}, session.actor, now, "the new bead"))]

    bead = _first(session.commit(decide))
    if session.json:
        render.echo_json(render.bead_json(bead))
    else:
        click.echo(bead.id)


def new_id(snapshot: Snapshot, parent: str | None, *parts: str) -> str:
    """An id that no bead has: below ``parent`` the next number, otherwise one that follows from ``parts``."""
    from beads.model import derived_id

    if parent:
        candidates = (f"{parent}.{number}" for number in count(1))
    else:
        lengths = ((nonce, _ID_LENGTH + nonce // _NONCES) for nonce in count())
        candidates = (derived_id(snapshot.prefix, *parts, str(nonce), length=length) for nonce, length in lengths)
    return next(candidate for candidate in candidates if snapshot.get(candidate) is None)


def new_bead(facts: dict[str, Any], actor: str, now: datetime, source: str) -> Bead:
    """A bead of what was given, or an error that names what does not fit.

    Args:
        facts: its fields.
        actor: who creates it.
        now: when.
        source: what to call the facts in an error.
    """
    from beads.model import Bead

    stamps = {"created_at": now, "created_by": actor, "updated_at": now}
    return asked(Bead, source, **{**stamps, **facts})


def criterion_facts(text: str) -> dict[str, object]:
    """What a criterion says that is written as ``run: COMMAND`` or of another kind."""
    from beads.errors import InvalidInput

    kind, colon, what = text.partition(":")
    if not colon or kind.strip() not in ("run", "file", "diff", "review", "approval") or not what.strip():
        raise InvalidInput(
            f"{text!r} is not a criterion",
            "Write 'run: COMMAND', which must succeed, 'file: PATH', which must exist, 'diff: PATTERN…', within which "
            "the change must stay, 'review: QUESTION', which a model is asked, or 'approval: QUESTION', which you are.",
        )
    return {kind.strip(): what.split() if kind.strip() == "diff" else what.strip()}


def _edges(needs: Iterable[str], parent: str | None) -> list[dict[str, str]]:
    parents = [{"on": parent, "type": "parent-child"}] if parent else []
    return [*parents, *({"on": need, "type": "blocks"} for need in dict.fromkeys(needs))]


@command("update")
@click.argument("bead_id", metavar="ID", type=BEAD_ID)
@click.option("--title", type=Title(), metavar="TEXT", help="Its new title.")
@click.option("-d", "--description", metavar="TEXT|-", help="Its new description; - reads standard input.")
@click.option("--status", type=click.Choice(["open", "in_progress", "deferred", "closed"]), help="Its new status.")
@click.option("-p", "--priority", metavar="0-4", type=Priority(), help="0 is the most urgent.")
@click.option("--assignee", metavar="A", help="Whose it is; an empty text for nobody's.")
@click.option("--agent", metavar="NAME", help="Which agent of town.toml is to do it.")
@click.option("--attempts", "attempts_max", metavar="N", type=click.IntRange(min=0), help="How often it may be tried.")
@click.option(
    "--budget", metavar="N", type=click.FloatRange(min=0, min_open=True), help="What it may cost, in US dollars."
)
@click.option("--timeout", metavar="N", type=click.FloatRange(min=1, max=86_400), help="Seconds for one attempt.")
@click.option("--model", metavar="NAME", help="Which model its agent is to use; an empty text for its own.")
@click.option("--capability", "capabilities", metavar="C", multiple=True, help="What its agent must be able to do.")
@click.option("--defer-until", type=Moment(), metavar="MOMENT", help="Not ready before that.")
@click.option("--add-label", "add", metavar="L", multiple=True, type=Label(), help="A label more.")
@click.option("--remove-label", "remove", metavar="L", multiple=True, help="A label less.")
@click.pass_obj
def update(session: Session, /, bead_id: str, add: tuple[str, ...], remove: tuple[str, ...], **changes: Any) -> None:
    """Change fields of a bead; what is not given stays.

    What a seal covers cannot be changed, and closing is `bead close`.

    \b
    Example:
      bead update bt-7f3a9c --priority 0 --add-label urgent
      bead update bt-7f3a9c --defer-until 2026-12-24
    """
    from beads import ops

    if changes["description"] is not None:
        changes["description"] = given_text(changes["description"], "the description")
    given = {name: value for name, value in changes.items() if value not in (None, ())}
    terms = {name: given.pop(name) for name in ("budget", "timeout", "model", "capabilities") if name in given}
    if not (given or terms or add or remove):
        click.get_current_context().fail("nothing to change was given")

    def decide(snapshot: Snapshot) -> list[Operation]:
        there = session.find(snapshot, bead_id).terms
        if terms:
            given["terms"] = {**(dict(there) if there else {}), **terms}
        operations: list[Operation] = [asked(ops.Update, "the update", id=bead_id, **given)] if given else []
        return operations + (
            [asked(ops.Label, "the labels", id=bead_id, add=add, remove=remove)] if add or remove else []
        )

    echo_written(session, session.commit(decide), "updated {}")


@command("comment")
@click.argument("bead_id", metavar="ID", type=BEAD_ID)
@click.argument("text", metavar="TEXT|-")
@click.pass_obj
def comment(session: Session, bead_id: str, text: str) -> None:
    """Say something about a bead; - reads it from standard input.

    \b
    Example:
      bead comment bt-7f3a9c "The parser drops the last line."
      pytest 2>&1 | tail -n 40 | bead comment bt-7f3a9c -
    """
    from beads.errors import InvalidInput
    from beads.ops import Say

    said = given_text(text, "the comment")
    if not said:
        raise InvalidInput("the comment is empty", "Say something.")
    echo_written(session, session.commit([asked(Say, "the comment", id=bead_id, text=said)]), "commented on {}")


@group("label")
def label() -> None:
    """Add and remove labels.

    \b
    Example:
      bead label add bt-7f3a9c urgent parser
    """


@label.command("add")
@click.argument("bead_id", metavar="ID", type=BEAD_ID)
@click.argument("labels", metavar="L...", nargs=-1, required=True, type=Label())
@click.pass_obj
def label_add(session: Session, bead_id: str, labels: tuple[str, ...]) -> None:
    """Put labels on a bead.

    \b
    Example:
      bead label add bt-7f3a9c urgent parser
    """
    from beads import ops

    echo_written(session, session.commit([asked(ops.Label, "the labels", id=bead_id, add=labels)]), "labelled {}")


@label.command("remove")
@click.argument("bead_id", metavar="ID", type=BEAD_ID)
@click.argument("labels", metavar="L...", nargs=-1, required=True)
@click.pass_obj
def label_remove(session: Session, bead_id: str, labels: tuple[str, ...]) -> None:
    """Take labels off a bead.

    \b
    Example:
      bead label remove bt-7f3a9c urgent
    """
    from beads import ops

    echo_written(session, session.commit([asked(ops.Label, "the labels", id=bead_id, remove=labels)]), "unlabelled {}")


@command("claim")
@click.argument("bead_id", metavar="[ID]", required=False, type=BEAD_ID)
@click.option("--next", "best", is_flag=True, help="The best one that is ready.")
@click.option("--as", "worker", metavar="WORKER", help="Who takes it [the actor].")
@click.option(
    "--seconds", type=click.IntRange(1, 31_536_000), default=3600, show_default=True, help="How long it is theirs."
)
@click.pass_obj
def claim(session: Session, bead_id: str | None, best: bool, worker: str | None, seconds: int) -> None:
    """Take a bead that is ready, so that nobody else works on it.

    It prints the epoch, which `release` and `close` ask for: when the time is over somebody else may take the
    bead under the next epoch, and yours no longer counts. With --next and nothing ready it prints nothing; each time
    it takes another one, and `bead list --assignee WORKER` shows what you have. Where the store has a remote
    (`bead sync --remote`), the claim counts because the remote has accepted it.

    \b
    Example:
      bead claim --next --as nux --json
      bead claim bt-7f3a9c --as nux
    """
    from beads.ops import Claim
    from cli.bead_sync import claimed

    if bool(bead_id) == best:
        click.get_current_context().fail("give either an ID or --next")
    # Without a site: this process ends at once, and nobody must take that for the death of the worker.
    wanted = asked(Claim, "the claim", id=bead_id, worker=worker or session.actor, seconds=seconds)
    taken = claimed(session, wanted)
    if session.json:
        render.echo_json([render.bead_json(bead) for bead in taken])
        return
    rows = [(bead.id, f"epoch {bead.epoch}", bead.title) for bead in taken]
    render.echo_table(rows, ("id", "epoch", "title"), "nothing is ready")


@command("release")
@click.argument("bead_id", metavar="ID", type=BEAD_ID)
@click.option("--as", "worker", metavar="WORKER", help="Who holds it [the actor].")
@click.option("--epoch", metavar="N", type=click.IntRange(min=1), required=True, help="The epoch that claim printed.")
@click.option("--reason", metavar="TEXT", default="", help="Why, for the history.")
@click.pass_obj
def release(session: Session, bead_id: str, worker: str | None, epoch: int, reason: str) -> None:
    """Give a bead back, so that somebody else can take it.

    \b
    Example:
      bead release bt-7f3a9c --as nux --epoch 1 --reason "needs a decision"
    """
    from beads.ops import Release

    operation = asked(Release, "the release", id=bead_id, worker=worker or session.actor, epoch=epoch, reason=reason)
    echo_written(session, session.commit([operation]), "released {}")


@command("close")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=BEAD_ID)
@click.option("--reason", metavar="TEXT", default="", help="What was done, or why not.")
@click.option(
    "--outcome", type=click.Choice(["done", "rejected", "cancelled", "superseded"]), default="done", show_default=True
)
@click.option("--as", "worker", metavar="WORKER", help="Who holds it, when it is claimed.")
@click.option("--epoch", metavar="N", type=click.IntRange(min=1), help="The epoch that claim printed.")
@click.option("--force", is_flag=True, help="Without proof that its criteria hold; --reason says why.")
@click.pass_obj
def close(session: Session, /, ids: tuple[str, ...], worker: str | None, epoch: int | None, **decision: Any) -> None:
    """Close beads, all of them or none.

    One with criteria is done only when each was seen to hold, which a polecat or `town` sees to. What is not wanted
    any more is cancelled, a step only with all of its molecule. A person can decide otherwise with --force, and the
    history says who did.

    \b
    Example:
      bead close bt-7f3a9c --reason "fixed in 3c1d2e"
      bead close bt-7f3a9c --as nux --epoch 1
      bead close bt-7f3a9c --outcome cancelled --reason "no longer wanted"
    """
    from beads.ops import Close

    if (worker is None) != (epoch is None):
        click.get_current_context().fail("--as and --epoch go together")
    if decision["force"]:
        only_a_person("close without proof")
    operations = [
        Close(id=bead_id, worker=worker or "", epoch=epoch or 0, **decision) for bead_id in dict.fromkeys(ids)
    ]
    echo_written(session, session.commit(operations), "closed {}")


@command("reopen")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=BEAD_ID)
@click.pass_obj
def reopen(session: Session, ids: tuple[str, ...]) -> None:
    """Open closed beads again; what has landed stays landed.

    \b
    Example:
      bead reopen bt-7f3a9c
    """
    from beads.ops import Reopen

    echo_written(session, session.commit([Reopen(id=bead_id) for bead_id in dict.fromkeys(ids)]), "reopened {}")


@command("delete")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=BEAD_ID)
@click.option("--reason", metavar="TEXT", default="", help="Why, for whoever looks for it.")
@click.option("--cascade", is_flag=True, help="With everything that is a part of it, too.")
@click.pass_obj
def delete(session: Session, ids: tuple[str, ...], reason: str, cascade: bool) -> None:
    """Delete beads, all of them or none.

    What waits for them is freed. A molecule takes its steps along; other parts only with --cascade. The history
    keeps what was there: `bead log` finds it, `bead show --at` prints it, and `bead undo` brings it back. Work that
    is over is not deleted but closed.

    \b
    Example:
      bead delete bt-7f3a9c --reason "a duplicate of bt-2b1a0d"
      bead delete bt-epic --cascade
    """
    from beads.ops import Delete

    operations = [Delete(id=bead_id, reason=reason, cascade=cascade) for bead_id in dict.fromkeys(ids)]
    echo_written(session, session.commit(operations), "deleted {}")


def _first(written: Written) -> Bead:
    bead = written.beads[0]
    assert bead is not None, "only a claim is about no bead"
    return bead


def echo_written(session: Session, written: Written, said: str) -> None:
    """Print each bead that was written, once: as JSON, or what was done, with its id for ``{}`` in ``said``."""
    beads: Sequence[Bead] = list({bead.id: bead for bead in written.beads if bead is not None}.values())
    if session.json:
        render.echo_json([render.bead_json(bead) for bead in beads])
        return
    for bead in beads:
        click.echo(said.format(bead.id) if written.changed else f"{bead.id} was so already")
