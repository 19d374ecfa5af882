"""``town doctor``: look at everything the town needs, and say of each whether it is there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from beads.errors import TownError
from cli.config import open_site
from refinery.checkouts import checkouts
from refinery.gate import gate_of
from refinery.git import Git
from roles.routing import check, remarks
from roles.site import Site

GIT_MIN = (2, 38)
"""The first Git whose ``merge-tree`` merges without a work tree."""


def examine(directory: Path) -> Iterator[tuple[bool, str]]:
    """Each finding: whether it is well, and a line about it."""
    yield _git(directory)
    try:
        site = open_site(directory)
    except TownError as error:
        yield False, f"{error.message}. {error.hint}".strip()
        return
    yield True, f"store: {len(site.store.snapshot())} beads at {site.store.ref}"
    yield from _gate(site)
    yield from _agents(site)
    yield from _checkouts(site)


def _git(directory: Path) -> tuple[bool, str]:
    try:
        said = Git(directory, os.environ).line("version")
    except TownError as error:
        return False, error.message
    found = re.search(r"(\d+)\.(\d+)", said)
    version = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
    need = ".".join(map(str, GIT_MIN))
    return version >= GIT_MIN, said if version >= GIT_MIN else f"{said}; {need} or newer is needed"


def _gate(site: Site) -> Iterator[tuple[bool, str]]:
    try:
        gate = gate_of(site.git, site.main_head())
    except TownError as error:
        yield False, f"gate: {error.message}. {error.hint}".strip()
        return
    yield True, f"gate: {'; '.join(gate.commands)}"


def _agents(site: Site) -> Iterator[tuple[bool, str]]:
    try:
        check(site.settings)
    except TownError as error:
        yield False, f"{error.message}. {error.hint}".strip()
    for remark in remarks(site.settings):
        yield True, remark
    for name, agent in site.settings.agents.items():
        program = agent.command[0] if agent.command else "sh"
        found = shutil.which(program, path=site.environ.get("PATH", ""))
        yield bool(found), f"agent {name}: {found or f'{program!r} is not on the PATH'}"
        for variable in agent.environment or ():
            there = variable in site.environ
            yield there, f"agent {name}: ${variable} is {'set' if there else 'not set'}"


def _checkouts(site: Site) -> Iterator[tuple[bool, str]]:
    branch = site.settings.town.branch
    for checkout in checkouts(site.git, branch):
        note = "clean" if checkout.clean else "has changes of yours, which landing will not touch"
        yield True, f"{branch} in {checkout.path}: {note}"
