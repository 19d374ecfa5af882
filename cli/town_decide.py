"""``town``: what only a person decides. No process that a worker of the town has started may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.session import BEAD_ID, Session, command, given_text, only_a_person

if TYPE_CHECKING:
    from beads.model import Bead, Evidence
    from beads.ops import Operation
    from beads.store import Snapshot


@command("approve")
@click.argument("bead_id", type=BEAD_ID, metavar="ID")
@click.option("--reason", metavar="TEXT", default="", help="What you want to have on record.")
@click.option("--tree", metavar="TREE", help="What you have looked at; refused when it is asked about another by now.")
@click.pass_obj
def approve(session: Session, bead_id: str, reason: str, tree: str | None) -> None:
    """Say yes to what a molecule asks you, and its work goes on; or to what the Mayor proposes, and it is work.

    `town inbox` shows what is asked, and `git diff main...polecat/ID` what it is about. The yes is to exactly those
    files: when they change, you are asked again. Who said it is kept.

    \b
    Example:
      town approve bt-7f3a9c
      town approve bt-7f3a9c --reason "as we said on Monday"
    """
    _answer(session, bead_id, tree, approved=True, reason=reason, verb="approve")


@command("reject")
@click.argument("bead_id", type=BEAD_ID, metavar="ID")
@click.option("--reason", metavar="TEXT", required=True, help="What is wrong; whoever goes on with it is told.")
@click.option("--tree", metavar="TREE", help="What you have looked at; refused when it is asked about another by now.")
@click.pass_obj
def reject(session: Session, bead_id: str, reason: str, tree: str | None) -> None:
    """Say no to what a molecule asks you, and it is worked on again with your reason; or to what the Mayor proposes.

    To give it up altogether, `bead close ID --outcome rejected`.

    \b
    Example:
      town reject bt-7f3a9c --reason "the old spelling has to go on working"
    """
    _answer(session, bead_id, tree, approved=False, reason=reason, verb="reject")


@command("answer")
@click.argument("bead_id", type=BEAD_ID, metavar="ID")
@click.argument("text", metavar="TEXT|-")
@click.option("--tree", metavar="TREE", help="What you have looked at; refused when it is asked about another by now.")
@click.pass_obj
def answer(session: Session, bead_id: str, text: str, tree: str | None) -> None:
    """Answer in words what a molecule asks you, and it is worked on again with what you say; or what the Mayor asks.

    That is neither a yes nor a no. You are asked again about what was made of it, and say yes with `town approve`.
    With - the words are read from standard input.

    \b
    Example:
      town answer bt-7f3a9c "1: by name. 2: no more than a hundred"
    """
    _answer(session, bead_id, tree, approved=None, reason=given_text(text, "the answer"), verb="answer")


def _answer(session: Session, bead_id: str, tree: str | None, *, approved: bool | None, reason: str, verb: str) -> None:
    from beads.ops import Answer
    from beads.speech import SPEECH

    only_a_person(verb)
    asking = session.find(session.store.snapshot(), bead_id)
    if asking.issue_type in SPEECH:
        _speak(session, asking, approved, reason)
        return

    def decide(snapshot: Snapshot) -> list[Operation]:
        step, question = _question(session, snapshot, bead_id, tree)
        if approved is None:
            _need_somebody(session, snapshot, step)
        return [Answer(id=step.id, tree=question.tree, approved=approved, reason=reason)]

    step = session.commit(decide).beads[0]
    assert step is not None, "an answer is always about a bead"
    said = step.evidence[-1]
    if session.json:
        from cli.render import echo_json

        echo_json({"id": step.id, **said.model_dump(mode="json")})
    else:
        done = {"pass": "approved", "fail": "rejected"}.get(said.verdict, "answered")
        click.echo(f"{done} {step.id}, tree {said.tree[:12]}: {said.subject}; `town up` goes on with it")


def _speak(session: Session, bead: Bead, approved: bool | None, text: str) -> None:
    """Say yes, no, or something else to a conversation, or to something in one.

    Raises:
        LostRace: what is meant no longer waits for an answer.
        Refused: it is a message, which there is no yes or no to.
        NeedsPerson: something waits for one now.
    """
    from beads.errors import LostRace, Refused
    from cli.config import open_site
    from cli.talk import Talk

    if bead.issue_type == "proposal" and bead.closed:
        raise LostRace(
            f"{bead.id} is {bead.outcome} already: {bead.close_reason}", f"`bead show {bead.parent}` says more."
        )
    if bead.issue_type == "message" and approved is not None:
        hint = f'Answer it with `town answer {bead.id} "…"`, or name the proposal that you mean.'
        raise Refused(f"{bead.id} is a message, and nothing to say yes or no to", hint)
    name = bead.id if bead.issue_type == "proposal" else None
    talk = Talk(session, open_site(session.start), trying=True)
    talk.conversation = bead.id if bead.issue_type == "conversation" else bead.parent
    talk.seen()
    talk.mark_shown()
    with talk.shared():
        if approved is None:
            talk.say(text)
            talk.finish()
        elif approved:
            talk.accept(name, text)
        else:
            talk.refuse(text, name)
    if session.json and approved is not None:
        from cli.render import echo_json

        echo_json(talk.as_json())


def _need_somebody(session: Session, snapshot: Snapshot, step: Bead) -> None:
    """Refuse words where nobody would read them, as far as ``town.toml`` tells.

    Raises:
        Refused: the step is a question and nothing else.
    """
    from beads import graph
    from beads.errors import Refused
    from cli.config import settings_of
    from roles.routing import agent_of

    settings = settings_of(session.start)
    if settings is None or step.run:
        return
    if agent_of(settings, graph.molecule_of(snapshot, step), step).runtime == "command":
        problem = f"nobody works on {step.id}, which has no `run` line and no agent: it is a question and nothing else"
        raise Refused(problem, "Say yes with `town approve`, or no with `town reject`.")


def _question(session: Session, snapshot: Snapshot, bead_id: str, tree: str | None) -> tuple[Bead, Evidence]:
    """The step that asks, and what it asks.

    Raises:
        Refused: nothing is asked.
        LostRace: something is asked about another tree than the one named.
    """
    from beads import graph
    from beads.errors import LostRace, Refused
    from beads.proof import question

    bead = session.find(snapshot, bead_id)
    step = graph.next_step(snapshot, graph.molecule_of(snapshot, bead)) if bead.issue_type != "step" else bead
    found = question(step) if step and not step.closed else None
    if step is None or found is None:
        raise Refused(f"nothing is asked about {bead.id}", f"`bead why {bead.id}` says where it stands.")
    if tree and not found.tree.startswith(tree):
        raise LostRace(f"{step.id} is asked about tree {found.tree[:12]}, not {tree}", "Look at it again.")
    return step, found


@command("retry")
@click.argument("bead_id", type=BEAD_ID, metavar="ID")
@click.option("--attempts", type=click.IntRange(1, 100), default=3, show_default=True, help="How many more.")
@click.pass_obj
def retry(session: Session, bead_id: str, attempts: int) -> None:
    """Give the current step of a molecule more attempts, after you mended what was wrong.

    \b
    Example:
      town retry bt-7f3a9c
    """
    from beads import graph
    from beads.errors import Refused
    from beads.ops import Update

    only_a_person("give more attempts")

    def decide(snapshot: Snapshot) -> list[Operation]:
        molecule = graph.molecule_of(snapshot, session.find(snapshot, bead_id))
        step = graph.next_step(snapshot, molecule)
        if step is None:
            raise Refused(f"{molecule.id} has no open step", f"`bead why {molecule.id}` says where it stands.")
        made = max(len(graph.failed(step)), len(graph.unready(step)))
        return [Update(id=step.id, attempts_max=made + attempts)]

    written = session.commit(decide)
    step = written.beads[0]
    assert step is not None, "an update is always about a bead"
    click.echo(f"{step.id} has {attempts} more attempts; `town up` goes on with it")
