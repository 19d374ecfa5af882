"""The commands of ``town``: thin, each one reads its arguments, calls a role, and says what came of it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.session import BEAD_ID, Session, command, group

if TYPE_CHECKING:
    from collections.abc import Callable

    from refinery.refinery import Refinery
    from roles.events import Event
    from roles.notify import Notifier
    from roles.polecat import Result
    from roles.site import Site


def town_command() -> list[str]:
    """How we start ourselves: never through a module or script that a working directory could provide."""
    return [sys.executable, "-P", "-c", "from cli.main import town; town()"]


@command("init")
@click.option("--gate", multiple=True, metavar="COMMAND", help="What must pass before a commit may land; repeatable.")
@click.option("--prefix", default="bt", show_default=True, help="What ids start with.")
@click.option("--commit/--no-commit", default=True, show_default=True, help="Commit town.toml to main.")
@click.pass_obj
def init(session: Session, gate: tuple[str, ...], prefix: str, commit: bool) -> None:
    """Make this repository ready: town.toml on main, and the store.

    The gate is guessed from the files that are there (make test, npm test, pytest, …) unless --gate says it.
    Only town.toml is committed; other changes of yours are not touched.

    \b
    Example:
      town init
      town init --gate "make lint" --gate "make test"
    """
    from cli.config import work_tree
    from cli.init import initialise

    done = initialise(work_tree(session.start), session.actor, gate, prefix, commit)
    for line in done.lines:
        click.echo(line)


@command("up")
@click.option("--polecats", type=click.IntRange(1, 256), help="How many work at once [town.toml].")
@click.option("--until-idle", is_flag=True, help="End when nothing can be done without a person.")
@click.pass_obj
def up(session: Session, polecats: int | None, until_idle: bool) -> None:
    """Run the town in the foreground: Witness, Refinery, and polecats for what is ready.

    Ctrl-C lets polecats save their work and give their molecules back. Killed in any way, `town up` goes on
    from where things stand. Exit code 7: done, but something needs a person, or is put off: until a provider serves
    again in more than five minutes, or until a day has passed whose budget is spent.

    \b
    Example:
      town up
      town up --polecats 4 --until-idle
    """
    from beads.liveness import Presence
    from cli.town_inbox import finish
    from roles.routing import check
    from roles.town import Town

    site = site_of(session)
    check(site.settings)
    stopping = _on_signals()
    with Presence(site.store.directory, "town"), Presence(site.workers, _refinery_name()):
        refinery = _refinery(site)
        notifier = _notifier(site)
        town = Town(site, refinery, polecats or site.settings.town.polecats, town_command(), _say, notifier)
        try:
            town.run(until_idle, stopping)
        finally:
            refinery.close()
        if until_idle and not stopping():
            finish(town.needs(), town.put_off())


def site_of(session: Session) -> Site:
    """The site, after the checks that a role needs to hold before it starts."""
    from cli.config import open_site
    from refinery.gate import gate_of

    site = open_site(session.start)
    gate_of(site.git, site.main_head())
    site.sandbox.need()
    return site


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _on_signals() -> Callable[[], bool]:
    """Whether this process has been asked to stop, from now on."""
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: asked.append(got))
    return lambda: bool(asked)


def _refinery_name() -> str:
    import os

    return f"refinery-{os.getpid()}"


def _refinery(site: Site) -> Refinery:
    from refinery.refinery import Refinery

    return Refinery(
        store=site.store,
        git=site.git,
        workshop=site.workshop,
        branch=site.settings.town.branch,
        environ=site.environ,
        sandbox=site.sandbox,
        clock=site.clock,
        marker=site.marker(_refinery_name()),
        obtain=site.obtain,
        machine=site.machine,
    )


def _notifier(site: Site) -> Notifier | None:
    """What tells people of what needs one; None where nobody wants that, or it cannot be, which no town waits for."""
    from beads.errors import TownError
    from roles.notify import Notifier, command_of

    try:
        command = command_of(site)
    except TownError as error:
        _say(f"notify: nobody will be told: {error.message}. {error.hint}".strip())
        return None
    return Notifier(command, site, site.marker(_refinery_name()), _say) if command else None


@command("stop")
@click.pass_obj
def stop(session: Session) -> None:
    """Ask the running town to stop; its polecats save their work first.

    \b
    Example:
      town stop
    """
    import os

    from beads import liveness

    store = session.store
    if not liveness.alive(store.directory, "town"):
        click.echo("no town is running here")
        return
    pid = int(liveness.note(store.directory, "town"))
    os.kill(pid, signal.SIGTERM)
    click.echo(f"asked process {pid} to stop")


@command("status")
@click.pass_obj
def status(session: Session) -> None:
    """What is done, what is going on, what waits for whom. Derived from the store: right on any clone.

    \b
    Example:
      town status
      town status --json
    """
    from cli.config import settings_of
    from cli.render import echo_json, table
    from cli.town_costs import today_as_json, today_in_words
    from cli.town_inbox import in_short
    from roles.inbox import inbox
    from roles.status import rows

    snapshot, settings, now = session.store.snapshot(), settings_of(session.start), session.clock.now()
    found = rows(snapshot, now, settings)
    waiting = inbox(snapshot, now, settings).items
    if session.json:
        echo_json(
            {
                "molecules": [
                    {
                        "id": row.bead.id,
                        "title": row.bead.title,
                        "state": row.state.kind,
                        "reason": row.state.reason,
                        "steps_closed": row.steps[0],
                        "steps": row.steps[1],
                        "attempts": row.attempts,
                        "deaths": row.deaths,
                        "reworks": row.reworks,
                        "evidence": row.evidence,
                        "commit": row.commit,
                    }
                    for row in found
                ],
                "needs_person": [
                    {"kind": item.kind, "id": item.bead_id, "reason": item.reason, "command": str(item.ways[0])}
                    for item in waiting
                ],
                **today_as_json(snapshot, now),
            }
        )
        return
    headers = ["ID", "STATE", "STEPS", "TRIES", "BACK", "LANDED", "TITLE"]
    lines = [
        [
            row.bead.id,
            row.bead.outcome or row.state.kind,
            f"{row.steps[0]}/{row.steps[1]}",
            str(row.attempts),
            str(row.reworks),
            row.commit[:10],
            row.bead.title if row.bead.closed else f"{row.bead.title} ({row.state.reason})",
        ]
        for row in found
    ]
    click.echo(table(lines, headers) if lines else "nothing yet; `town mayor --plan FILE` brings work")
    for line in today_in_words(snapshot, settings, now):
        click.echo(line)
    for item in waiting:
        click.echo(in_short(item))


@command("demo")
@click.option("--into", "where", type=click.Path(file_okay=False, path_type=Path), help="Keep it there.")
@click.pass_obj
def demo(session: Session, where: Path | None) -> None:
    """Show the main job on a small real package: failures, a kill, two clashes, and everything landed.

    Needs no network and no key, takes under half a minute, and leaves a repository to look around in.

    \b
    Example:
      town demo
    """
    from beads.errors import InvalidInput, TownError
    from cli.demo import Demo, make_directory

    del session
    if where is not None and where.exists() and any(where.iterdir()):
        raise InvalidInput(f"{where} is not empty", "Name a directory that does not exist.")
    directory = where.absolute() if where else make_directory()
    if not Demo(directory, town_command(), _say).run():
        raise TownError("not everything happened as promised", f"Look into {directory}.")


@command("doctor")
@click.pass_obj
def doctor(session: Session) -> None:
    """Check what the town needs: Git, the store, town.toml, the gate, the agents' programs, main's checkout.

    \b
    Example:
      town doctor
    """
    from cli.doctor import examine

    problems = 0
    for ok, line in examine(session.start):
        click.echo(f"{'ok  ' if ok else 'BAD '} {line}")
        problems += not ok
    if problems:
        from beads.errors import NeedsPerson

        raise NeedsPerson(f"{problems} found", "Mend what is marked BAD.")


@group("polecat")
def polecat() -> None:
    """One worker, by hand.

    \b
    Example:
      town polecat run bt-7f3a9c
    """


@polecat.command("run")
@click.argument("bead_id", type=BEAD_ID, metavar="[ID]", required=False)
@click.option("--as", "name", help="The worker's name [made up].")
@click.pass_obj
def polecat_run(session: Session, bead_id: str | None, name: str | None) -> None:
    """Claim a molecule, or the best ready one, work it through, submit it, and end.

    On a terminal it shows what its agents say as they say it; `town log ID --follow` does elsewhere.

    \b
    Example:
      town polecat run
      town polecat run bt-7f3a9c --as nux
    """
    import os

    from roles.polecat import Polecat
    from roles.routing import check
    from roles.station import nobody

    site = site_of(session)
    check(site.settings)
    tell = _progress if sys.stdout.isatty() and not session.json else nobody
    result = Polecat(site, name or f"hand-{os.getpid()}", _on_signals(), tell).run(bead_id)
    click.echo(f"{result.bead} {result.end}: {result.reason}".strip())
    end_of(result)


def end_of(result: Result) -> None:
    """End as a worker that came to this does.

    Raises:
        Fenced: it was somebody else's by then.
        NeedsPerson: it waits for one.
    """
    from beads.errors import Fenced, NeedsPerson

    if result.end == "fenced":
        raise Fenced(result.reason)
    if result.end == "asked":
        raise NeedsPerson(result.reason, f"`town approve`, `town reject` or `town answer {result.bead}` answers it.")
    if result.end == "unmet":
        raise NeedsPerson(result.reason, f"`bead why {result.bead}` says more; `town retry {result.bead}` tries again.")


def _progress(event: Event) -> None:
    from cli.town_log import in_words

    _say(in_words(event))


@group("witness")
def witness() -> None:
    """The Witness, by hand.

    \b
    Example:
      town witness tick
    """


@witness.command("tick")
@click.pass_obj
def witness_tick(session: Session) -> None:
    """Look once for dead workers and what they left, and put it right.

    \b
    Example:
      town witness tick
    """
    from cli.config import open_site
    from roles import witness as role

    for line in role.tick(open_site(session.start)):
        click.echo(line)


@group("refinery")
def refinery() -> None:
    """The Refinery, by hand.

    \b
    Example:
      town refinery tick
    """


@refinery.command("tick")
@click.pass_obj
def refinery_tick(session: Session) -> None:
    """Bring the merge queue forward until it is empty or waits for a person.

    \b
    Example:
      town refinery tick
    """
    from beads.liveness import Presence
    from cli.town_inbox import finish
    from roles.inbox import inbox

    site = site_of(session)
    stopping = _on_signals()
    with Presence(site.store.directory, "town"), Presence(site.workers, _refinery_name()):
        role = _refinery(site)
        try:
            while not stopping():
                lines = role.tick()
                for line in lines:
                    click.echo(line)
                if not lines and not role.busy:
                    break
                site.clock.sleep(0.05)
        finally:
            role.close()
    found = inbox(site.store.snapshot(), site.clock.now(), site.settings).items if role.halted else ()
    finish([item for item in found if item.kind == "queue"])
