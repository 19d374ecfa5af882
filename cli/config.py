"""From the command line's surroundings to a :class:`Site`: environment, home, host name, ``town.toml``."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from beads import liveness
from beads.clock import SystemClock
from beads.errors import NotFound, Refused, TownError, Unreadable
from beads.remote import REMOTE_REF, Remote
from beads.store import Store
from cli.bead_sync import REF_KEY, REMOTE_KEY
from cli.clone import clone_name
from refinery.containment import Sandbox
from refinery.gate import SETTINGS_FILE
from refinery.git import Git
from refinery.registry import common_directory, own_work_tree
from refinery.view import Host
from refinery.workshop import Workshop
from roles.runtimes import secrets_in
from roles.settings import Settings, read_settings
from roles.site import Site


def open_site(directory: Path) -> Site:
    """Everything the roles need, for the repository around ``directory``.

    Raises:
        Unreadable: no repository.
        Refused: a bare one.
        NotFound: no store, or no ``town.toml``.
        InvalidDocument: ``town.toml`` is wrong.
    """
    git = work_tree(directory)
    store = Store.open(git.directory)
    settings = load_settings(git)
    common = store.repository.common
    key = hashlib.sha256(str(common).encode()).hexdigest()[:8]
    store.site = name = clone_name(store.directory)
    store.lives = partial(liveness.lives, store.directory / liveness.WORKERS, name)
    root = (
        git.directory / settings.worktree.root if settings.worktree.root else _state() / f"{git.directory.name}-{key}"
    )
    remote = shared_through(store, settings)
    if remote is not None:
        store.renewed = remote.renewed
    secrets = secrets_in(settings, os.environ)
    return Site(
        store=store,
        git=git,
        workshop=Workshop(git, root.resolve(), secrets, keep=settings.worktree.keep),
        settings=settings,
        environ=dict(os.environ),
        sandbox=_sandbox(git, store, settings),
        clock=SystemClock(),
        name=name,
        remote=remote,
        secrets=secrets,
    )


def _sandbox(git: Git, store: Store, settings: Settings) -> Sandbox:
    table, repository = settings.sandbox, git.directory
    return Sandbox(
        choice=table.kind,
        host=this_host(),
        common=store.repository.common,
        private=store.directory,
        main=repository,
        read=tuple(repository / Path(path).expanduser() for path in table.read),
        write=tuple(repository / Path(path).expanduser() for path in table.write),
        bounds=table.bounds(),
    )


def this_host() -> Host:
    """Where this user's home, the programs on the PATH, and what this program itself needs are."""
    search = tuple(Path(part) for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part.startswith("/"))
    # Where we are installed in place, our files are in a checkout, of which nothing else is needed.
    ours = (Path(__file__).resolve().parent.parent / name for name in ("beads", "refinery", "roles", "cli"))
    return Host(Path.home(), search, (Path(sys.prefix), Path(sys.base_prefix), *ours))


def shared_through(store: Store, settings: Settings) -> Remote | None:
    """The remote that a town's store is shared through: what Git's configuration says, or else ``town.toml``."""
    git = Git(store.repository.common, os.environ)
    said = (git.run("config", "--get", key, ok=(0, 1)).out.strip() for key in (REMOTE_KEY, REF_KEY))
    name, ref = (
        first or second for first, second in zip(said, (settings.store.remote, settings.store.remote_ref), strict=True)
    )
    return Remote(store.repository, name, ref or REMOTE_REF, environ=os.environ) if name else None


def work_tree(directory: Path) -> Git:
    """Git in the main work tree of the repository around ``directory``.

    Raises:
        Unreadable: there is no repository.
        Refused: it is bare.
    """
    git = Git(directory, os.environ)
    if git.run("rev-parse", "--git-dir", ok=(0, 128)).status:
        raise Unreadable(
            f"{directory} is not inside a Git repository", "Run `git init`, or go where your repository is."
        )
    # Not from Git's own list, which fails altogether while anybody is adding a work tree.
    own = own_work_tree(git, common_directory(git))
    if own is None:
        raise Refused(f"{directory} is a bare repository", "Clone it and run `town` in the clone.")
    return git.at(own.path)


def load_settings(git: Git) -> Settings:
    """What ``town.toml`` says: the file in the main work tree, or the one on main when it has none.

    Raises:
        NotFound: neither is there.
        InvalidDocument: it is wrong.
    """
    path = git.directory / SETTINGS_FILE
    if path.is_file():
        return read_settings(path.read_bytes(), SETTINGS_FILE)
    for branch in ("main", "master"):
        shown = git.run("show", f"refs/heads/{branch}:{SETTINGS_FILE}", ok=(0, 128))
        if shown.status == 0:
            return read_settings(shown.out.encode("utf-8", "surrogateescape"), f"{branch}:{SETTINGS_FILE}")
    raise NotFound(f"there is no {SETTINGS_FILE} in {git.directory}", "Run `town init`.")


def settings_of(directory: Path) -> Settings | None:
    """What ``town.toml`` says around ``directory``; None where there is none that can be read, or no work tree."""
    with suppress(TownError):
        return load_settings(work_tree(directory))
    return None


def _state() -> Path:
    """Where this user's programs keep what they need between runs, by the XDG base directory specification."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "beadtown"
