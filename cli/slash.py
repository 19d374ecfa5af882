"""What is typed to the Mayor with a slash before it: looks, yes and no, and changes that need no model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from beads.ops import Operation
    from beads.store import Snapshot
    from cli.talk import Talk

COMMANDS = {
    "/accept": "say yes to what is proposed",
    "/refuse": "WHY: say no to it",
    "/edit": "change the proposal in your editor",
    "/plan": "show the proposal again",
    "/town": "how everything stands",
    "/inbox": "what waits for you, with the commands that help",
    "/show": "ID: all about one bead",
    "/replan": "ID WHY: find another way for a molecule that failed",
    "/priority": "ID N: how urgent it is, from 0 to 4",
    "/cancel": "ID WHY: give it up",
    "/new": "end this conversation, and begin another one",
    "/help": "this list",
    "/quit": "leave; the conversation stays",
}

_LOOKS = {"/help", "/inbox", "/plan", "/quit", "/show", "/town"}
"""Those that say nothing to anybody, so that other clones need not hear of them."""


def hear(talk: Talk, text: str) -> bool:
    """Do what was typed; whether the conversation goes on.

    Raises:
        InvalidInput: it begins with a slash, and is no command.
    """
    word, _, rest = text.partition(" ")
    with contextlib.nullcontext() if word in _LOOKS else talk.shared():
        if text.startswith("/"):
            return _obey(talk, word, rest.strip())
        talk.say(text)
        return True


def _obey(talk: Talk, word: str, rest: str) -> bool:
    from beads.errors import InvalidInput

    name, _, more = rest.partition(" ")
    match word:
        case "/quit" | "/exit":
            return False
        case "/help":
            click.echo("\n".join(f"{name:10} {what}" for name, what in COMMANDS.items()))
        case "/town":
            _town(talk)
        case "/inbox":
            _inbox(talk)
        case "/show" if name:
            _dossier(talk, name)
        case "/plan":
            talk.show_offer(talk.proposal())
        case "/accept":
            talk.accept(talk.looked_at())
        case "/refuse":
            talk.refuse(rest, talk.looked_at())
        case "/edit":
            talk.edit()
        case "/replan" if name:
            talk.say(f"Find another way for {name}, which failed. {more}".strip())
        case "/priority" if name and more.strip() in list("01234"):
            _change(talk, name, f"priority {more.strip()}", lambda: _update(name, int(more)))
        case "/cancel" if name and more.strip():
            _change(talk, name, f"cancelled: {more.strip()}", lambda: _cancel(name, more.strip()))
        case "/new":
            _begin_anew(talk)
        case _:
            meant = COMMANDS.get(word)
            hint = f"{word} takes {meant}" if meant else "/help shows what there is. To say it, begin with a space."
            raise InvalidInput(f"{word} {rest}".strip() + " is no command here", hint)
    return True


def _town(talk: Talk) -> None:
    from cli.render import printable
    from roles.status import in_words

    site = talk.site
    click.echo(printable(in_words(site.store.snapshot(), site.settings, site.clock.now())))


def _inbox(talk: Talk) -> None:
    from cli.town_inbox import show
    from roles.inbox import inbox

    show(inbox(talk.site.store.snapshot(), talk.site.clock.now(), talk.site.settings))


def _dossier(talk: Talk, bead_id: str) -> None:
    from cli.render import printable
    from roles.study import dossier

    click.echo(printable(dossier(talk.site.store.snapshot(), bead_id)))


def _change(talk: Talk, bead_id: str, what: str, operation: Callable[[], Operation]) -> None:
    """Change something planned as its person says, and let the conversation know."""
    from cli.render import printable
    from roles import conversation
    from roles.offers import check_changeable

    def decide(snapshot: Snapshot) -> list[Operation]:
        check_changeable(snapshot, talk.session.find(snapshot, bead_id).id)
        found = conversation.thread(snapshot, talk.conversation) if talk.conversation else None
        said = f"I changed {bead_id}: {what}."
        now, actor = talk.site.clock.now(), talk.session.actor
        told = conversation.say(found, snapshot.prefix, actor, said, now, done=True) if found else []
        return [operation(), *told]

    written = talk.site.store.commit(talk.session.actor, decide)
    talk.mark_shown()
    click.echo(printable(f"{bead_id}: {what}"))
    talk.say_commit(written.snapshot.commit)


def _begin_anew(talk: Talk) -> None:
    from roles.mayor import over

    if talk.conversation:
        over(talk.site, talk.conversation, talk.session.actor)
    talk.conversation = None
    click.echo("A new conversation. Say what you want done.")


def _update(bead_id: str, priority: int) -> Operation:
    from beads.ops import Update

    return Update(id=bead_id, priority=priority)


def _cancel(bead_id: str, reason: str) -> Operation:
    from beads.ops import Close

    return Close(id=bead_id, outcome="cancelled", reason=reason)
