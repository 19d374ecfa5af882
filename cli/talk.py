"""A conversation with the Mayor as a terminal or a script has it: what is said, shown, accepted and refused."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli.session import Session, tell

if TYPE_CHECKING:
    from beads.model import Bead
    from beads.plan import Plan
    from roles.brain import Brain
    from roles.conversation import Thread
    from roles.events import Event
    from roles.offers import Offer
    from roles.site import Site


class Talk:
    """One conversation, from this process's side.

    Args:
        session: how the command was started.
        site: the clone.
        trying: whether a plan's criteria are tried on main before it is shown.

    Attributes:
        conversation: the id of the conversation; None before it has begun.
    """

    def __init__(self, session: Session, site: Site, *, trying: bool) -> None:
        self.session = session
        self.site = site
        self.conversation: str | None = None
        self._trying = trying
        self._shown: set[str] = set()
        self._tried: dict[str, tuple[str, str]] = {}
        self._offer: Offer | None = None
        self._brain: Brain | None = None

    def thread(self) -> Thread | None:
        """The conversation as it stands."""
        from roles.conversation import thread

        return thread(self.site.store.snapshot(), self.conversation) if self.conversation else None

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Let other clones know what is said here, and the other way round, where the store is shared."""
        self._sync()
        try:
            yield
        finally:
            self._sync()

    def _sync(self) -> None:
        from beads import sync
        from beads.errors import LostRace, Unreadable

        if self.site.remote is not None:
            # What could not be shared now is when anything is synced next.
            with contextlib.suppress(LostRace, Unreadable):
                sync.sync(self.site.store, self.site.remote, self.session.actor, random.Random(secrets.randbits(64)))

    # ── Saying and hearing ───────────────────────────────────────────────────────────────────────────────────

    def say(self, text: str) -> None:
        """Say something, and show the answer."""
        from roles import mayor

        self._mind()
        text = self.site.secrets.text(text)
        self.conversation = mayor.hear(self.site.store, self.session.actor, text, self.conversation)
        self._shown.update(part.id for part in self._parts() if part.created_by == self.session.actor)
        self.go_on()

    def go_on(self) -> None:
        """Have answered what is unanswered, and show what is new."""
        from roles.mayor import Mayor

        if self.conversation:
            try:
                Mayor(self.site, self._mind(), self._progress, self._try).answer(self.conversation)
            finally:
                self._wipe()
        self.show()

    def _mind(self) -> Brain:
        """What thinks for the Mayor; found before anything is stored."""
        if self._brain is None:
            from cli.minds import brain_of

            self._brain = brain_of(self.site)
        return self._brain

    def _try(self, plan: Plan) -> tuple[str, str]:
        """Try a plan's criteria on main: what is wrong with it in words for who made it, and what was found."""
        from beads.plan import write_plan
        from roles.rehearsal import rehearse
        from roles.remarks import in_words, problems

        if not self._trying:
            return "", ""
        key = write_plan(plan).decode()
        if key not in self._tried:
            remarks = rehearse(self.site, plan, tell=self._tell)
            self._tried[key] = "\n".join(problems(remarks)), in_words(remarks)
        return self._tried[key]

    def _tell(self, words: str) -> None:
        if self._live:
            tell(" ".join(words.split())[: max(20, _columns() - 1)])

    def _progress(self, event: Event) -> None:
        from cli.town_log import in_words

        self._tell(in_words(event))

    def _wipe(self) -> None:
        if self._live:
            tell("")

    @property
    def _live(self) -> bool:
        return sys.stderr.isatty() and not self.session.json

    # ── Showing ──────────────────────────────────────────────────────────────────────────────────────────────

    def greet(self) -> None:
        """The first lines at a terminal: where the conversation stood, or what to do here."""
        from cli.render import printable
        from roles.inbox import inbox

        waiting = inbox(self.site.store.snapshot(), self.site.clock.now(), self.site.settings).items
        others = [item for item in waiting if item.kind not in ("question", "proposal")]
        if others:
            click.echo(f"{len(others)} waiting for you besides; /inbox shows them.")
        found = self.thread()
        if found is None:
            click.echo("Say what you want done. /help shows what else there is.")
        else:
            click.echo(f"Going on with {found.id}: {printable(found.bead.title)} (/new begins another one)")
            self.show()

    def hint(self) -> str:
        """What can be done now, below the prompt."""
        found = self.thread()
        if found is not None and found.proposal is not None:
            return "/accept, /edit, /refuse, or say what to change"
        return "Enter sends, Alt-Enter begins a line, /help"

    def words(self, before: str) -> Sequence[tuple[str, str]]:
        """What may complete what is typed: commands at its beginning, and ids."""
        from cli.slash import COMMANDS

        if before.startswith("/") and " " not in before:
            return list(COMMANDS.items())
        view = self.site.store.snapshot()
        word = before.rpartition(" ")[2]
        return [(name, view.need(name).title) for name, _ in view.ids(word, 50)] if word else []

    def show(self) -> None:
        """Show what is new."""
        if self.session.json:
            return
        for part in self._parts():
            if part.id not in self._shown:
                self._shown.add(part.id)
                self._show(part)

    def _parts(self) -> Sequence[Bead]:
        found = self.thread()
        return found.parts if found else ()

    def _show(self, part: Bead) -> None:
        from cli.render import printable

        if part.issue_type == "proposal":
            if not part.closed:
                self.show_offer(part)
            return
        click.echo(f"{printable(part.created_by)}: {printable(part.description)}\n")

    def show_offer(self, part: Bead) -> None:
        """Show a proposal that waits for a yes, and what it may cost."""
        from beads.errors import TownError
        from cli.render import printable
        from roles.offers import offer

        try:
            self._offer = offer(self.site, part.id, self.session.actor)
            self._show_what(self._offer)
        except TownError as error:
            click.echo(printable(f"{part.id} cannot be done as things are: {error.message}\n"))

    def _show_what(self, wanted: Offer) -> None:
        from cli.render import printable
        from roles.estimate import estimate
        from roles.offers import changes_in_words
        from roles.showing import render

        click.echo(f"{wanted.bead.id} waits for your yes:")
        if wanted.plan is not None:
            click.echo(printable(render(wanted.plan)))
            new = wanted.plan.plan.model_copy(update={"molecules": tuple(item.wanted for item in wanted.plan.new)})
            if new.molecules:
                click.echo(printable(estimate(new, self.site.settings, self.site.store.snapshot()).in_words()))
        elif wanted.changes is not None:
            said = changes_in_words(wanted.changes, self.site.store.snapshot())
            click.echo(printable("\n".join(f"- {line}" for line in said)))

    def seen(self) -> None:
        """What has been said before is known; what is open waits for somebody, and is shown again."""
        self._shown.update(part.id for part in self._parts() if part.closed)

    def mark_shown(self) -> None:
        """Nothing of what has been said needs to be shown again."""
        self._shown.update(part.id for part in self._parts())

    def finish(self) -> None:
        """Say what there is to be said, and end with 7 where something waits for a person.

        Raises:
            NeedsPerson: a question or a proposal does.
        """
        from beads.errors import NeedsPerson

        found = self.thread()
        if self.session.json:
            from cli.render import echo_json

            echo_json(self.as_json())
        else:
            self.show()
        if found is not None and found.question is not None:
            raise NeedsPerson(f"{found.id} has a question for you", f'`town answer {found.id} "…"` answers it.')
        if found is not None and found.proposal is not None:
            hint = f'`town approve {found.id}` accepts it, `town answer {found.id} "…"` says what to change.'
            raise NeedsPerson(f"{found.proposal.id} waits for your yes", hint)

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        from beads.errors import TownError
        from cli.town_mayor import as_json
        from roles.offers import offer

        found = self.thread()
        if found is None:
            return {"conversation": None, "parts": [], "question": None, "proposal": None}
        proposal: dict[str, Any] | None = None
        if found.proposal is not None:
            proposal = {"id": found.proposal.id, "text": found.proposal.description}
            with contextlib.suppress(TownError):
                wanted = offer(self.site, found.proposal.id, self.session.actor)
                proposal |= as_json(wanted.plan) if wanted.plan else {}
        return {
            "conversation": found.id,
            "parts": [
                {"id": p.id, "type": p.issue_type, "by": p.created_by, "text": p.description, "status": p.status}
                for p in found.parts
            ],
            "question": found.question.id if found.question else None,
            "proposal": proposal,
        }

    # ── Yes and no ───────────────────────────────────────────────────────────────────────────────────────────

    def proposal(self) -> Bead:
        """What waits for a yes.

        Raises:
            Refused: nothing does.
        """
        from beads.errors import Refused

        found = self.thread()
        if found is None or found.proposal is None:
            raise Refused("nothing is proposed", "Say what you want done.")
        return found.proposal

    def looked_at(self) -> str:
        """What is proposed, if it is what was shown here.

        Raises:
            LostRace: somebody has put another one in its place; that is shown now.
        """
        from beads.errors import LostRace
        from roles.offers import offer

        proposal = self.proposal()
        if self._offer is None or self._offer.bead.id != proposal.id:
            self._offer = offer(self.site, proposal.id, self.session.actor)
            self.mark_shown()
            self._show_what(self._offer)
            raise LostRace(
                f"{proposal.id} had not been shown here yet", "Now it is: say it again if you mean that one."
            )
        return proposal.id

    def accept(self, name: str | None = None, reason: str = "", *, unseen: bool = False) -> None:
        """Say yes to what is proposed, and show which transaction that made.

        Args:
            name: the id of the proposal that is meant; None for the one that waits.
            reason: what is to be on record.
            unseen: whether nobody has looked at it. Then a plan with criteria that prove nothing, or cannot be run,
                is left for somebody who does.
        """
        from cli.render import printable
        from roles.offers import offer, take

        found = self.thread()
        if unseen and (found is None or found.proposal is None or found.question is not None):
            # What is asked now may be about what was proposed before.
            return
        name, wanted = name or self.proposal().id, self._offer
        if wanted is None or wanted.bead.id != name:
            wanted = offer(self.site, name, self.session.actor)
        # Else it is what was shown: it is not accepted if it would do more by now.
        if unseen and wanted.plan is not None and (problem := self._try(wanted.plan.plan)[0]):
            # It may have been found just now: somebody has edited the plan, or main has moved.
            click.echo(printable(f"{name} is not accepted unseen:\n{problem}"), err=True)
            return
        commit = take(self.site, wanted, self.session.actor, reason)
        self.show()
        self.say_commit(commit)

    def refuse(self, reason: str, name: str | None = None) -> None:
        """Say no to what is proposed, or to the proposal of that id."""
        from roles.offers import decline

        name = name or self.proposal().id
        decline(self.site, name, self.session.actor, reason)
        self.mark_shown()
        if not self.session.json:
            click.echo(f"refused {name}")

    def edit(self) -> None:
        """Let a person change the proposal in their editor, until it can be one."""
        from beads.errors import InvalidInput, TownError
        from cli.render import printable
        from roles.offers import amend, read_offer

        proposal = self.proposal()
        text = proposal.description
        while True:
            try:
                edited = click.edit(text, extension=".toml")
            except click.ClickException as error:
                hint = "Name an editor that works in $VISUAL or $EDITOR."
                raise InvalidInput(error.format_message(), hint) from error
            if edited is None or edited == proposal.description:
                click.echo("nothing changed")
                return
            text = edited
            try:
                read_offer(self.site, proposal, text, self.session.actor)
                amend(self.site, proposal.id, text, self.session.actor)
                break
            except TownError as error:
                click.echo(printable(f"{error.message}\n{error.hint}".strip()), err=True)
                if not click.confirm("Edit it again?", default=True):
                    return
        self.show()

    def say_commit(self, commit: str) -> None:
        """Say which transaction something was, and how it is taken back."""
        if not self.session.json:
            click.echo(f"transaction {commit[:12]}; `bead undo --transaction {commit[:12]}` takes it back")


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 80
