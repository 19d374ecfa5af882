"""``town attach``: a molecule's files and its agent's conversation, in a person's hands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from cli.session import BEAD_ID, Session, command, only_a_person

if TYPE_CHECKING:
    from beads.model import Bead
    from refinery.git import Identity
    from roles.attach import ByHand, Handed
    from roles.polecat import Result
    from roles.site import Site

_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 5.0
_TRIES = 20
# How many lines of what a failing command printed are shown.
_TAIL = 10


@command("attach")
@click.argument("bead_id", type=BEAD_ID, metavar="ID")
@click.option("--take", is_flag=True, help="Ask a polecat that has it to save its work and let go.")
@click.option("--shell", is_flag=True, help="Start a shell, also where the agent's conversation could be gone on with.")
@click.option("--done", is_flag=True, help="When you are through, look whether it holds, and submit it.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.pass_obj
def attach(session: Session, bead_id: str, take: bool, shell: bool, done: bool, argv: tuple[str, ...]) -> None:
    """Take a molecule into your own hands, for as long as you like, and give it back.

    You hold it, so that no polecat touches it. Its files are as they were left; you get the agent's conversation about
    them where its program can go on with one, otherwise a shell. Also what waits for a person, or is put off, can be
    taken. When you leave, what you edited is saved and the town goes on from there; with --done, or when you say so,
    the criteria are evaluated first, and where they hold the work is committed in your name and submitted.

    A COMMAND is run there instead, by `sh -c` if it is one word. Without a terminal there has to be one. With --done
    it counts as done when the command ends well; where it does not, this ends as it did.

    \b
    Example:
      town attach bt-7f3a9c
      town attach bt-7f3a9c --take --shell
      town attach bt-7f3a9c --done -- make format
    """
    from beads import graph
    from beads.errors import InvalidInput, Refused
    from cli.town import end_of, site_of

    only_a_person("take a molecule by hand")
    if not argv and not sys.stdin.isatty():
        raise InvalidInput("nobody is at this terminal", "Give a command after --, such as `-- git status`.")
    site = site_of(session)
    snapshot = site.store.snapshot()
    molecule = graph.molecule_of(snapshot, session.find(snapshot, bead_id))
    if not graph.workable(snapshot, molecule):
        raise Refused(f"{molecule.id} has no criteria, so there is no work tree for it", "Work on it where you are.")
    stopping = _asked_to_stop()
    sitting = _Sitting(session, site, stopping, argv, shell, done)
    result = _begin(session, sitting, molecule, take)
    if session.json:
        from cli.render import echo_json

        echo_json({**sitting.told, "end": result.end, "reason": result.reason})
    elif result.end == "stopped":
        click.echo(f"gave {molecule.id} back; `town attach {molecule.id}` takes it again")
    else:
        click.echo(f"{result.bead} {result.end}: {result.reason}")
    end_of(result)
    if sitting.status:
        click.get_current_context().exit(sitting.status if sitting.status > 0 else 128 - sitting.status)


def _begin(session: Session, sitting: _Sitting, molecule: Bead, take: bool) -> Result:
    """Hold it; when a polecat of a running town is quicker than we are, ask that one, too."""
    from beads.errors import LostRace
    from roles.attach import make_free

    for _ in range(_TRIES):
        make_free(sitting.site, sitting.site.store.snapshot().need(molecule.id), take=take)
        try:
            return sitting.worker(session).run(molecule.id)
        except LostRace:
            if not take or sitting.begun:
                raise
    raise LostRace(f"somebody else is quicker, again and again, to take {molecule.id}", "`town stop`, then try again.")


class _Sitting:
    """One person's time with one molecule.

    Attributes:
        site: where.
        begun: whether they have it.
        told: what a program is told of it.
        status: how the command ended that was run in place of a shell.
    """

    def __init__(
        self, session: Session, site: Site, stopping: Callable[[], bool], argv: Sequence[str], shell: bool, done: bool
    ) -> None:
        self.site = site
        self.begun = False
        self.told: Mapping[str, object] = {}
        self.status = 0
        self._json = session.json
        self._stopping = stopping
        self._argv = argv
        self._shell = shell
        self._done = done

    def worker(self, session: Session) -> ByHand:
        """The holder of the lease."""
        from roles.attach import ByHand

        person = _identity(session.actor)
        name = re.sub(r"[^A-Za-z0-9]+", "-", person.name).strip("-")[:30].lower() or "somebody"
        return ByHand(self.site, f"{name}-{os.getpid()}", self._stopping, person=person, hand=self._give)

    def _give(self, handed: Handed, renew: Callable[[], None]) -> bool:
        self.begun, self.told = True, _answer(handed)
        if not self._json:
            _introduce(handed)
        argv = self._program(handed)
        # A person's shell is at home in their home, and not in the agent's.
        own = handed.surroundings if argv == list(handed.argv) else {}
        status = self._run(argv, handed, {**os.environ, **own, **handed.environ}, renew)
        if self._argv:
            self.status = status
            return self._done and status == 0
        return self._done or self._asks(f"Look whether {handed.molecule.id} holds, and submit it?")

    def _asks(self, question: str) -> bool:
        try:
            return click.confirm(question, default=False, err=self._json)
        except click.Abort:
            return False

    def _program(self, handed: Handed) -> list[str]:
        from refinery.processes import shell

        if self._argv:
            return shell(self._argv[0]) if len(self._argv) == 1 else list(self._argv)
        if handed.argv and not self._shell:
            click.echo(f"\ngoing on with {handed.agent}'s conversation: {' '.join(handed.argv)}", err=self._json)
            return list(handed.argv)
        click.echo("\nthis is a shell; `exit` when you are through", err=self._json)
        return [os.environ.get("SHELL") or "/bin/sh"]

    def _run(self, argv: Sequence[str], handed: Handed, environ: Mapping[str, str], renew: Callable[[], None]) -> int:
        """Run it at this terminal until it ends, or until we are asked to stop; its exit status.

        Raises:
            NotFound: there is no such program.
            Stopped: we were asked to stop; it is dead by then.
        """
        from beads.errors import NotFound
        from roles.site import Stopped

        # Its output is not what a program reads of ours.
        output = sys.stderr if self._json else None
        try:
            process = subprocess.Popen(argv, cwd=handed.path, env=dict(environ), stdout=output)
        except OSError as error:
            raise NotFound(f"{argv[0]} cannot be started: {error.strerror}", "With --shell you get a shell.") from error
        while True:
            try:
                return process.wait(_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                renew()
            if self._stopping():
                _end(process)
                raise Stopped


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    # An interactive shell does not listen to that.
    process.send_signal(signal.SIGHUP)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _asked_to_stop() -> Callable[[], bool]:
    """Whether this process was asked to stop. Ctrl-C is for what runs at the terminal, and only for that."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: asked.append(got))
    # No SIG_IGN: what we start would inherit it.
    signal.signal(signal.SIGINT, lambda *_: None)
    return lambda: bool(asked)


def _identity(actor: str) -> Identity:
    """Who commits, as far as the actor's name says it."""
    from refinery.git import Identity

    found = re.fullmatch(r"(.*?)\s*<([^<>]*)>", actor)
    return Identity(found[1], found[2]) if found else Identity(actor, f"{actor.split()[0]}@beadtown.invalid")


def _answer(handed: Handed) -> dict[str, object]:
    step = handed.step
    return {
        "id": handed.molecule.id,
        "title": handed.molecule.title,
        "path": str(handed.path),
        "branch": handed.branch,
        "step": step.id if step else None,
        "criteria": [str(criterion) for criterion in step.criteria] if step else [],
        "evidence": [found.model_dump(mode="json") for found in handed.evidence],
        "trouble": handed.trouble,
        "session": handed.session,
        "agent": handed.agent,
        "argv": list(handed.argv),
    }


def _introduce(handed: Handed) -> None:
    from cli import render

    step = handed.step
    click.echo(f"{handed.molecule.id} {render.printable(handed.molecule.title)}")
    render.fields(
        [
            ("files", str(handed.path)),
            ("branch", handed.branch),
            ("step", f"{step.id} {step.title}" if step and step.id != handed.molecule.id else ""),
            ("session", f"{handed.session} of {handed.agent}" if handed.session else ""),
            ("trouble", handed.trouble),
        ]
    )
    render.paragraph("Goal", handed.molecule.description)
    render.paragraph("Step", step.description if step and step.id != handed.molecule.id else "")
    render.paragraph("Done means", "\n".join(f"- {criterion}" for criterion in step.criteria) if step else "")
    bad = [found for found in handed.evidence if found.verdict != "pass"]
    said = [f"{b.subject}: {b.detail}\n" + "\n".join(b.output.splitlines()[-_TAIL:]) for b in bad]
    render.paragraph("What did not hold the last time", "\n".join(said))
    sys.stdout.flush()
