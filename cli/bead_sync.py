"""``bead sync``: share the store with other clones, and which remote it is shared through."""

from __future__ import annotations

import random
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from cli import render
from cli.session import Session, command

if TYPE_CHECKING:
    from pathlib import Path

    from beads.git import Repository
    from beads.model import Bead
    from beads.ops import Claim
    from beads.remote import Remote
    from beads.store import Store

REMOTE_KEY = "beadtown.remote"
REF_KEY = "beadtown.remoteRef"


@command("sync")
@click.option("--remote", "name", metavar="R", help="The remote, from now on [what was given last, or origin].")
@click.option("--ref", metavar="NAME", help="Where the store is on it, from now on [refs/beads/main].")
@click.option("--adopt", is_flag=True, help="Make a store that was begun on its own a part of the remote's.")
@click.pass_obj
def sync(session: Session, name: str | None, ref: str | None, adopt: bool) -> None:
    """Bring this clone's issues and the remote's together.

    What others did comes here, what was done here goes there, and beads that both have changed are merged field by
    field; there are no conflicts to resolve. A clone without a store gets the remote's. --remote and --ref are
    remembered in Git's configuration, and once a remote is, a claim counts only when the remote has accepted it.

    \b
    Example:
      bead sync --remote origin
      bead sync
      bead sync --ref refs/heads/beads       # on a server that takes nothing but branches
    """
    from beads import sync as syncing

    store = begin(session)
    remote = chosen(session, store.repository, name, ref) or _origin(session, store.repository, ref)
    done = syncing.sync(store, remote, session.actor, random.Random(secrets.randbits(64)), adopt=adopt)
    _remember(store.repository, name, ref)
    if session.json:
        facts = {"remote": remote.name, "ref": remote.ref, "commit": done.commit}
        render.echo_json({**facts, "received": done.received, "sent": done.sent})
    else:
        click.echo(render.printable(f"{done.received} beads received, {done.sent} sent, {remote.name} {remote.ref}"))


def begin(session: Session) -> Store:
    """The store of the repository around where we are, whether or not it has one already."""
    from beads.git import Repository
    from beads.store import Store

    return Store(Repository(session.start, session.clock), session.clock)


def chosen(session: Session, repository: Repository, name: str | None = None, ref: str | None = None) -> Remote | None:
    """The remote that the store is shared through; None when nobody has said one.

    What is given goes before Git's configuration, and that before ``town.toml``.
    """
    known = _said(repository)
    name, ref = name or known[0], ref or known[1]
    return _remote(session, repository, name, ref) if name else None


def share(session: Session, store: Store) -> Remote | None:
    """Tell a store which clone it is, and what workers of others have said; the remote, when there is one."""
    from cli.clone import clone_name

    remote = chosen(session, store.repository)
    if remote is not None:
        store.site = clone_name(store.directory)
        store.renewed = remote.renewed
    return remote


def claimed(session: Session, operation: Claim) -> list[Bead]:
    """Claim, and where there is a remote, only with its consent; what was claimed."""
    store = session.store
    remote = share(session, store)
    if remote is None:
        written = session.commit([operation])
    else:
        from beads import sync as syncing

        # Not the clone's bare name: this process ends at once, and nobody must take that for the worker's death.
        operation = operation.model_copy(update={"site": f"{store.site}/shell"})
        written = syncing.claim(store, remote, session.actor, operation, random.Random(secrets.randbits(64)))
    return [bead for bead in written.beads if bead is not None]


def _remote(session: Session, repository: Repository, name: str, ref: str | None) -> Remote:
    from beads.remote import REMOTE_REF, Remote

    asking = sys.stdin.isatty() and sys.stderr.isatty()
    return Remote(repository, name, ref or REMOTE_REF, environ=session.environ, interactive=asking)


def _origin(session: Session, repository: Repository, ref: str | None) -> Remote:
    """The remote of a repository that has but one, or one that is called origin."""
    names = _git(repository.common, "remote").split()
    name = "origin" if "origin" in names else names[0] if len(names) == 1 else ""
    if not name:
        from beads.errors import NotFound

        known = f"There are {', '.join(names)}." if names else "`git remote add origin URL` adds one."
        raise NotFound("which remote is not said, and none is called origin", f"Name it with --remote. {known}")
    return _remote(session, repository, name, ref)


def _said(repository: Repository) -> tuple[str, str]:
    """The remote and the ref that Git's configuration says, or else ``town.toml`` in the main work tree."""
    lines = _git(repository.common, "config", "--get-regexp", r"^beadtown\.remote(ref)?$").splitlines()
    found = dict(line.split(" ", 1) for line in lines if " " in line)
    name, ref = found.get(REMOTE_KEY.lower(), ""), found.get(REF_KEY.lower(), "")
    settings = repository.common.parent / "town.toml"
    if name or repository.common.name != ".git" or not settings.is_file():
        return name, ref
    from roles.settings import read_settings

    table = read_settings(settings.read_bytes()).store
    return table.remote, ref or table.remote_ref


def _remember(repository: Repository, name: str | None, ref: str | None) -> None:
    for key, value in ((REMOTE_KEY, name), (REF_KEY, ref)):
        if value:
            _git(repository.common, "config", key, value)


def _git(common: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", f"--git-dir={common}", *args], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode not in (0, 1):
        from beads.errors import Unreadable

        said = done.stderr.decode(errors="replace").strip() or f"it ended with {done.returncode}"
        raise Unreadable(f"git {args[0]} failed: {said}", "Nothing was changed; try again.")
    return done.stdout.decode("utf-8", "surrogateescape")
