"""``bead``: the commands about the store as a whole, and about this program."""

from __future__ import annotations

import sys

import click

from cli import render
from cli.session import Session, command

GUIDE = """\
# Issues of this repository: `bead`

Issues ("beads") live in the Git ref `refs/beads/main`, never in the work tree. Change them with `bead` only.
Every command takes `--json`, explains itself with `--help`, and is safe to run again: what holds already stays so.
Only `create` without `--id`, `comment` and `claim --next` do it once more.

## Work

    bead ready --json                     what can be worked on now, best first
    bead claim --next --as NAME --json    take the best one; `bead claim ID --as NAME` takes that one
    bead show ID                          goal, criteria, what was tried, what was said
    bead comment ID "what I found"        `-` reads the text from standard input
    bead release ID --as NAME --epoch N   give it back, with the epoch that claim printed
    bead close ID --reason "what was done"

A bead with criteria is closed with evidence that they hold, which the town gathers: leave it to `town`.
What you claimed is yours until the lease ends. Exit code 4 says that somebody else has it now: stop, look again.

## Report

    bead create "Title" --type bug --priority 1 --description "text" --needs ID
    bead dep add ID NEEDED                ID waits for NEEDED
    bead search TEXT                      look before you create
    bead why ID                           who acts next on it, and what it waits for
    bead undo                             take back what you did last; `--dry-run` says what that would be

## Exit codes

0 done, 2 usage, 3 not found, 4 lost a race, 5 refused by a rule (the message says which), 6 store unreadable.
Errors come on standard error with a `hint:` that says what to do next.
"""


@command("init")
@click.option("--prefix", metavar="TEXT", default="bt", show_default=True, help="What ids start with.")
@click.pass_obj
def init(session: Session, prefix: str) -> None:
    """Make the store of this repository.

    One that is there is left as it is.

    \b
    Example:
      bead init --prefix web
    """
    from beads.store import Store

    store = Store.init(session.start, session.actor, prefix, session.clock)
    snapshot = store.snapshot()
    if session.json:
        facts = {"ref": store.ref, "repository": store.repository.common, "prefix": snapshot.prefix}
        render.echo_json({**facts, "commit": snapshot.commit})
    else:
        click.echo(
            render.printable(
                f"the store is {store.ref} in {store.repository.common}; its ids start with {snapshot.prefix}-"
            )
        )


@command("gc")
@click.pass_obj
def gc(session: Session) -> None:
    """Pack the store's objects now.

    Writers do so by themselves now and then. Only what belongs to the store is packed, with `git pack-objects`; your
    own objects are left to `git gc`.

    \b
    Example:
      bead gc
    """
    packed = session.store.pack(show=sys.stderr.isatty() and not session.json)
    if session.json:
        render.echo_json({"objects": packed.objects, "packs": packed.packs})
    else:
        click.echo(f"{packed.objects} loose objects packed, {packed.packs} small packs rolled up")


@command("doctor")
@click.option("--repair", "mend", is_flag=True, help="Put back from the history what is damaged, as a new commit.")
@click.pass_context
def doctor(context: click.Context, mend: bool) -> None:
    """Look for what is wrong with the store.

    Nothing is changed without --repair.

    Every bead must be readable and in its place, goals as they were sealed, what is depended on there, and
    nothing waiting for itself. The exit code is 0 when all is well and 7 when a person should look.

    Repairing puts back the newest version of each damaged bead that can be read, and every sealed goal; clears away
    what dead writers left locked, and the index, which is made anew. What is missing, or waits for itself, it leaves
    to you.

    \b
    Example:
      bead doctor
      bead doctor --repair
    """
    from beads.doctor import examine
    from beads.errors import NeedsPerson

    session = context.ensure_object(Session)
    store = session.store
    mended = []
    if mend:
        from beads.repair import repair

        mended = [*repair(store, session.actor)]
    found = examine(store.repository, store.head())
    if session.json:
        facts = {"commit": found.commit, "beads": found.beads, "findings": found.findings}
        render.echo_json({**facts, **({"repaired": [one._asdict() for one in mended]} if mend else {})})
    else:
        for where, what in mended:
            click.echo(render.printable(f"{where} {what}"))
        rows = [((f.kind, "red"), f.where, f"{f.problem}. {f.hint}") for f in found.findings]
        render.echo_table(rows, ("what", "where", "problem"))
        click.echo(f"{found.beads} beads, {len(found.findings)} problems", err=bool(rows))
    if found.findings:
        context.exit(NeedsPerson.exit_code)


@command("prime")
@click.pass_obj
def prime(session: Session) -> None:
    """Print what an agent needs to know, as Markdown.

    \b
    Example:
      bead prime >> AGENTS.md
    """
    if session.json:
        render.echo_json({"text": GUIDE})
    else:
        click.echo(GUIDE, nl=False)


@command("completion")
@click.argument("shell", required=False, type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str | None) -> None:
    """Print a script that teaches a shell to complete.

    It completes commands, options, and ids of beads. Without SHELL it is for the one that $SHELL names. The same is
    printed for `town` when it is started with _TOWN_COMPLETE=bash_source, or zsh_source, or fish_source.

    \b
    Example:
      eval "$(bead completion bash)"              # in ~/.bashrc; zsh likewise in ~/.zshrc
      eval "$(_TOWN_COMPLETE=bash_source town)"
      bead completion fish > ~/.config/fish/completions/bead.fish
    """
    from click.shell_completion import get_completion_class

    root = context.find_root()
    name = root.info_name or "bead"
    wanted = shell or context.ensure_object(Session).environ.get("SHELL", "").rsplit("/", 1)[-1]
    kind = get_completion_class(wanted)
    if kind is None:
        raise click.UsageError(f"$SHELL is {wanted!r}, which has no completion; name bash, zsh or fish", context)
    click.echo(kind(root.command, {}, name, f"_{name.upper()}_COMPLETE").source())
