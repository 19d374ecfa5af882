"""A repository with a queue of requests, and a Refinery that works it off as ``town refinery tick`` would."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from beads import Store
from beads.clock import Clock, SystemClock
from beads.liveness import Presence
from beads.model import Bead, Criterion, Dependency, MergeRequest
from beads.ops import Create
from refinery.containment import Sandbox
from refinery.git import Git
from refinery.processes import THIS_MACHINE, Machine
from refinery.refinery import Refinery
from refinery.view import Host
from refinery.workshop import Workshop
from roles import witness
from roles.settings import read_settings
from roles.site import REQUESTS, Site
from tests.world import git, make_repository

CHECK = """\
grep -qs '^hangs' parts/* && exit 127
for part in parts/*; do grep -q '^ok' "$part" || exit 1; done
"""

SETTINGS = '[town]\n[sandbox]\nkind = "none"\n[gate]\ncommands = ["sh check.sh"]\ntimeout = 20\n'

_BEGAN = datetime.fromisoformat("2026-01-02T03:04:05+00:00")


def make_yard(path: Path, settings: str = SETTINGS) -> Path:
    """A repository with a gate that wants every part to say ok, and an empty store."""
    files = {"check.sh": CHECK, "parts/first": "ok\n", "shared": "top\n", "town.toml": settings}
    repository = make_repository(path, files)
    Store.init(repository, "test")
    return repository


def make_shared(place: Path, landing: str = "") -> Path:
    """The same in a clone of a bare repository ``hub.git`` beside it, which has the main that counts; the clone."""
    repository = make_yard(place / "project", f'{SETTINGS}[landing]\nremote = "origin"\n{landing}')
    git(place, "init", "--bare", "--quiet", "hub.git")
    # So that it can be seen afterwards how main moved.
    git(place / "hub.git", "config", "core.logAllRefUpdates", "true")
    git(repository, "remote", "add", "origin", "../hub.git")
    git(repository, "push", "--quiet", "origin", "main")
    return repository


def hub(repository: Path) -> Path:
    """The bare repository of a clone that :func:`make_shared` made."""
    return repository.parent / "hub.git"


def hook(repository: Path, name: str, script: str) -> Path:
    """Let Git run a script at some event of a bare repository; its file."""
    path = repository / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def submit(
    repository: Path,
    name: str,
    files: Mapping[str, str],
    *,
    priority: int = 2,
    needs: tuple[str, ...] = (),
    at: str = "main",
) -> str:
    """A molecule whose finished work is these files, with its head pinned and a merge request; the head.

    Each comes some minutes later than the one before.
    """
    tree = git(repository, "rev-parse", f"{at}^{{tree}}")
    index = {"GIT_INDEX_FILE": str(repository / ".git" / "submit")}
    git(repository, "read-tree", tree, extra=index)
    for path, text in files.items():
        blob = git(repository, "hash-object", "-w", "--stdin", stdin=text)
        git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", extra=index)
    tree, base = git(repository, "write-tree", extra=index), git(repository, "rev-parse", at)
    head = git(repository, "commit-tree", tree, "-p", base, "-m", f"Do {name}")
    molecule = f"bt-{name}"
    git(repository, "update-ref", f"{REQUESTS}{molecule}/{head[:16]}", head)
    store = Store.open(repository)
    when = _BEGAN + timedelta(minutes=len(list(store.snapshot())))

    def bead(bead_id: str, kind: str) -> Bead:
        title = f"Do {name}"
        return Bead(id=bead_id, title=title, issue_type=kind, priority=priority, created_at=when, updated_at=when)

    waits = tuple(Dependency(on=f"bt-{need}") for need in needs)
    work = bead(molecule, "molecule").evolve(criteria=(Criterion(run="true"),), dependencies=waits)
    merge = MergeRequest(molecule=molecule, branch=f"polecat/{molecule}", head=head, base=base)
    parent = (Dependency(on=molecule, type="parent-child"),)
    request = bead(f"{molecule}.m1", "merge-request").evolve(merge=merge, dependencies=parent)
    store.commit("test", [Create(bead=work), Create(bead=request)])
    return head


def site_of(repository: Path, name: str = "here", machine: Machine = THIS_MACHINE, clock: Clock | None = None) -> Site:
    """The site of a repository, as the command line makes one."""
    environ = dict(os.environ)
    store = Store.open(repository)
    store.site = name
    common = repository / ".git"
    host = Host(Path(environ["HOME"]), tuple(Path(part) for part in environ["PATH"].split(os.pathsep)))
    return Site(
        store=store,
        git=Git(repository, environ),
        workshop=Workshop(Git(repository, environ), repository.parent / f"{repository.name}-{name}-trees"),
        settings=read_settings((repository / "town.toml").read_bytes()),
        environ=environ,
        sandbox=Sandbox("none", host, common, store.directory),
        clock=clock or SystemClock(),
        name=f"{name} {repository}",
        machine=machine,
    )


def refinery_of(site: Site, name: str) -> Refinery:
    """The Refinery of a site."""
    return Refinery(
        store=site.store,
        git=site.git,
        workshop=site.workshop,
        branch=site.settings.town.branch,
        environ=site.environ,
        sandbox=site.sandbox,
        clock=site.clock,
        marker=site.marker(name),
        obtain=site.obtain,
        machine=site.machine,
    )


@contextmanager
def working(site: Site) -> Iterator[Refinery]:
    """The Refinery of a site as a process of its own has it, after the Witness has cleared away after dead ones."""
    name = f"refinery-{os.getpid()}"
    with Presence(site.workers, name):
        while witness.tick(site):
            pass
        refinery = refinery_of(site, name)
        try:
            yield refinery
        finally:
            refinery.close()


def work(site: Site, stopping: Callable[[], bool] = lambda: False) -> list[str]:
    """Work the queue off until nothing more happens, or a person is needed; what happened, and why it stopped."""
    happened: list[str] = []
    with working(site) as refinery:
        while not stopping():
            lines = refinery.tick()
            happened += lines
            while refinery.busy and not refinery.judged:
                time.sleep(0.002)
            if not lines and not refinery.busy:
                break
        while witness.tick(site):
            pass
        return [*happened, *([f"halted: {refinery.halted}"] if refinery.halted else [])]


def outcomes(repository: Path) -> dict[str, str]:
    """How each request ended, by the name of its molecule."""
    snapshot = Store.open(repository).snapshot()
    requests = [bead for bead in snapshot if bead.merge]
    return {b.merge.molecule.removeprefix("bt-"): b.outcome or "open" for b in requests if b.merge}


def push_by_a_person(repository: Path, name: str) -> str:
    """Somebody commits to main, whatever is checked out where; the commit."""
    index = {"GIT_INDEX_FILE": str(repository / f"{name}.index")}
    for _ in range(50):
        old = git(repository, "rev-parse", "refs/heads/main")
        blob = git(repository, "hash-object", "-w", "--stdin", stdin=f"{name}\n")
        git(repository, "read-tree", old, extra=index)
        git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},by-hand/{name}", extra=index)
        tree = git(repository, "write-tree", extra=index)
        new = git(repository, "commit-tree", tree, "-p", old, "-m", f"By hand: {name}")
        with suppress(AssertionError):
            git(repository, "update-ref", "-m", "by hand", "refs/heads/main", new, old)
            Path(index["GIT_INDEX_FILE"]).unlink()
            return new
    raise AssertionError("main never stood still")
