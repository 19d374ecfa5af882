"""``town mayor``: the way in. Ask for something and get a plan, talk, or pour a plan from a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from cli.formulas import FORMULA, given, plan_of, pouring_options
from cli.session import BEAD_ID, Session, command, only_a_person

if TYPE_CHECKING:
    from cli.formulas import Given
    from cli.talk import Talk
    from roles.proposal import Proposal


@command("mayor")
@click.argument("request", nargs=-1, metavar="[REQUEST]...")
@click.option("--plan", "what", metavar="FORMULA|PLAN", type=FORMULA, help="Pour this: a file, or a formula's name.")
@pouring_options
@click.option("--yes", is_flag=True, help="Accept what is proposed without asking.")
@click.option("-c", "--continue", "last", is_flag=True, help="Go on with your last conversation.")
@click.option("--in", "within", type=BEAD_ID, metavar="ID", help="Go on with that conversation.")
@click.option("--try/--no-try", "trying", default=None, help="Try criteria on main first [not those of a file].")
@click.pass_obj
def mayor(
    session: Session,
    request: tuple[str, ...],
    what: str | None,
    variables: tuple[str, ...],
    name: str,
    criteria: tuple[str, ...],
    run: str,
    yes: bool,
    last: bool,
    within: str | None,
    trying: bool | None,
) -> None:
    """Say what you want done; you are shown a plan, and when you accept it, it is work for polecats.

    The Mayor reads main and the state of the town, and asks where it must. Nothing becomes work before you accept it,
    and then all of it does in one transaction. On a terminal you can edit the plan, say what to change, or ask how
    things stand: type /help there. Without REQUEST it goes on with your last conversation. What is said is kept in the
    store, and a conversation that was interrupted goes on where it was.

    Asking needs a model or an agent in [mayor] of town.toml. With --plan none is needed: it takes our plans and
    formulas, Gas Town's, and the tasks.md of Spec-Kit. Pouring the same again changes nothing.

    Exit code 7: it asks you something, or a plan waits for your yes.

    \b
    Example:
      town mayor "Let text.slugify() keep digits"
      town mayor --continue "Yes, and drop the old one" --yes
      town mayor --plan plan.toml
      town mayor --plan refactor --var "summary=Split the parser" --var "test=make test"
      town mayor --plan specs/001-albums/tasks.md --criterion "run: make test"
    """
    from beads.errors import InvalidInput

    only_a_person("ask the Mayor")
    text = " ".join(request).encode(errors="replace").decode().strip()
    if what is not None:
        if text or last or within:
            raise InvalidInput("a plan from a file is no part of a conversation", "Give either --plan or a request.")
        _from_file(session, what, given(variables, name, criteria, run), yes, bool(trying))
        return
    _check_request(request, text, last, within)
    if variables or name or criteria or run:
        raise InvalidInput("--var, --name, --criterion and --run are for --plan", "Name a formula with --plan.")
    _talk(session, text, last, within, yes, trying is not False)


def _check_request(request: tuple[str, ...], text: str, last: bool, within: str | None) -> None:
    """Refuse what would be taken for something else than what was meant."""
    from beads.errors import InvalidInput
    from cli.slash import COMMANDS

    if request and not text:
        raise InvalidInput("nothing is said", "Say what you want done, or leave it out to go on with what was said.")
    if last and within:
        raise InvalidInput("--continue and --in name two conversations", "Give one of them.")
    word = text.split(None, 1)[0] if text else ""
    if word in COMMANDS:
        hint = f'`echo "{word} …" | town mayor` does it; `town approve`, `town reject` and `town answer` say yes or no.'
        raise InvalidInput(f"{word} is a command at the prompt, and no request", hint)


def _from_file(session: Session, what: str, said: Given, yes: bool, trying: bool) -> None:
    from cli.config import open_site
    from roles.proposal import accept, propose_plan
    from roles.rehearsal import rehearse
    from roles.remarks import in_words
    from roles.showing import render

    site = open_site(session.start)
    plan = plan_of(session, what, said)
    proposal = propose_plan(plan, site.store, session.actor, site.settings)
    found = in_words(rehearse(site, plan, trusted=True)) if trying else ""
    if not session.json:
        click.echo(render(proposal))
        click.echo(found, nl=bool(found))
    if not yes:
        _need_terminal(session)
        click.confirm("Accept?", abort=True)
    written = accept(proposal, site.store, session.actor)
    if session.json:
        from cli.render import echo_json

        tried = {"tried": found} if trying else {}
        echo_json({**as_json(proposal), **tried, "changed": written.changed, "commit": written.snapshot.commit})
        return
    click.echo("poured" if written.changed else "everything in it was there already; nothing changed")


def _need_terminal(session: Session) -> None:
    from beads.errors import InvalidInput

    if session.json or not _person_here():
        raise InvalidInput("nobody is here to accept the plan", "Add --yes to accept it.")


def as_json(proposal: Proposal) -> dict[str, Any]:
    """What pouring a plan would do, or did, as JSON has it."""
    return {
        "plan": proposal.plan.plan,
        "title": proposal.plan.title,
        "molecules": [
            {
                "id": item.molecule.id,
                "name": item.wanted.id,
                "title": item.wanted.title,
                "new": item.there is None,
                "needs": list(item.molecule.needs),
                "touches": list(item.wanted.touches),
                "steps": [step.id for step in item.steps],
            }
            for item in proposal.items
        ],
        "superseded": sorted(proposal.ending),
    }


def _talk(session: Session, text: str, last: bool, within: str | None, yes: bool, trying: bool) -> None:
    from beads.errors import NotFound
    from cli.config import open_site
    from cli.talk import Talk
    from roles import conversation

    talk = Talk(session, open_site(session.start), trying=trying)
    with talk.shared():
        snapshot = talk.site.store.snapshot()
        if within is not None:
            talk.conversation = conversation.thread(snapshot, within).id
        elif last or not text:
            found = conversation.latest(snapshot, session.actor)
            if last and found is None:
                hint = "Begin one without --continue, or name somebody else's with --in."
                raise NotFound(f"no conversation of {session.actor} goes on", hint)
            talk.conversation = found.id if found else None
        talk.seen()
        if text:
            talk.say(text)
        elif _waits(talk):
            talk.go_on()
        if yes:
            talk.accept(unseen=True)
    if _person_here() and sys.stdout.isatty() and not (session.json or yes):
        _at_terminal(talk)
    elif text or yes or session.json:
        talk.finish()
    else:
        _line_by_line(talk)


def _person_here() -> bool:
    """Whether somebody types at a terminal; there is no standard input at all where that was closed."""
    return sys.stdin is not None and sys.stdin.isatty()


def _waits(talk: Talk) -> bool:
    """Whether something was said that has no answer yet, such as when we were killed."""
    found = talk.thread()
    return found is not None and bool(found.unanswered)


def _at_terminal(talk: Talk) -> None:
    from cli.prompt import lines

    talk.greet()
    _each(talk, lines(talk.site.store.directory, talk.words, talk.hint))


def _line_by_line(talk: Talk) -> None:
    """A script talks: each line of standard input is said, and answered before the next one is read."""
    talk.show()
    lines = sys.stdin.buffer if sys.stdin is not None else ()
    _each(talk, (line.decode(errors="replace").rstrip("\n") for line in lines))
    talk.finish()


def _each(talk: Talk, texts: Iterable[str]) -> None:
    from beads.errors import TownError
    from cli.render import printable
    from cli.slash import hear

    for text in texts:
        if not text.strip():
            continue
        try:
            if not hear(talk, text):
                return
        except TownError as error:
            if not _person_here():
                raise
            click.echo(printable(f"{error.message}\n{error.hint}".strip()), err=True)
        except (KeyboardInterrupt, click.Abort):
            if not _person_here():
                raise
            click.echo("Stopped. What you said is kept; say anything to go on.", err=True)
