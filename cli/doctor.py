"""``town doctor``: look at everything the town needs, and say of each whether it is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from beads.errors import Refused, TownError
from cli.config import open_site
from refinery import landlock
from refinery.checkouts import checkouts
from refinery.gate import gate_of
from refinery.git import Git
from roles.discovery import keys_for, look
from roles.notify import command_of
from roles.routing import check, remarks
from roles.runtimes import runtime_of
from roles.runtimes.stream import NET
from roles.site import Site
from roles.task import Runtime

GIT_MIN = (2, 38)
"""The first Git whose ``merge-tree`` merges without a work tree."""

VERSION_SECONDS = 10.0
"""How long a program may take to say which version it is."""


def examine(directory: Path) -> Iterator[tuple[bool, str]]:
    """Each finding: whether it is well, and a line about it."""
    yield _git(directory)
    try:
        site = open_site(directory)
    except TownError as error:
        yield False, f"{error.message}. {error.hint}".strip()
        return
    yield True, f"store: {len(site.store.snapshot())} beads at {site.store.ref}"
    yield from _sandbox(site)
    yield from _gate(site)
    yield from _agents(site)
    yield from _mayor(site)
    yield from _notify(site)
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


def _sandbox(site: Site) -> Iterator[tuple[bool, str]]:
    box = site.sandbox
    if box.choice == "none":
        yield True, "sandbox: none, as [sandbox] says: what runs here can touch all that you can"
        return
    try:
        kind = box.kind
    except Refused as error:
        yield False, f"sandbox: {error.message}. {error.hint}"
        return
    yield True, f"sandbox: {kind}" + (" (chosen)" if box.choice == kind else "")
    if kind == "landlock":
        gaps = ", ".join(landlock.gaps())
        yield True, f"sandbox: landlock, version {landlock.version()}, leaves something open: {gaps}"
        for trial in box.trials():
            if trial.reason:
                yield True, f"sandbox: {trial.kind} would be better: {trial.reason}; see docs/sandbox.md"
    if os.getuid() == 0 and box.bounds.processes:
        yield True, "sandbox: the kernel does not count root's processes: [sandbox] processes has no effect"


def _gate(site: Site) -> Iterator[tuple[bool, str]]:
    try:
        gate = gate_of(site.git, site.main_head())
    except TownError as error:
        yield False, f"gate: {error.message}. {error.hint}".strip()
        return
    yield True, f"gate: {'; '.join(gate.commands)}{', at once' if gate.parallel else ''}"
    yield True, f"no branch changes {', '.join(gate.protected)} without an approval"


def _agents(site: Site) -> Iterator[tuple[bool, str]]:
    try:
        check(site.settings)
    except TownError as error:
        yield False, f"{error.message}. {error.hint}".strip()
    for remark in remarks(site.settings):
        yield True, remark
    for name, agent in site.settings.agents.items():
        runtime = runtime_of(agent)
        program = agent.command[0] if agent.command else runtime.program or "sh"
        found = shutil.which(program, path=site.environ.get("PATH", ""))
        if agent.runtime == "builtin":
            yield True, f"agent {name}: our own, with {', '.join((agent.model, *agent.models))}"
        else:
            yield bool(found), f"agent {name}: {found or f'{program!r} is not on the PATH'}{_get(runtime, found)}"
        if runtime.program:
            yield True, f"agent {name}: {_tried(runtime, found if not agent.command else None, site)}"
        if agent.environment is None and runtime.environment:
            yield True, f"agent {name}: {_signs_in(runtime, site)}"
        for variable in agent.environment or ():
            there = variable in site.environ
            yield there, f"agent {name}: ${variable} is {'set' if there else 'not set'}"


def _get(runtime: Runtime, found: str | None) -> str:
    return f"; get it from {runtime.website}" if runtime.website and not found else ""


def _tried(runtime: Runtime, found: str | None, site: Site) -> str:
    """Which version there is, and which one our adapter has been run with."""
    ours = f"our adapter was tried with {runtime.tried}" if runtime.tried else "our adapter has not been run for real"
    return f"version {_version(found, site)}; {ours}" if found else ours


def _version(program: str, site: Site) -> str:
    try:
        done = subprocess.run(
            [program, "--version"],
            env=dict(site.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(r"\d+\.\d+[\w.+-]*", done.stdout)
    return found[0] if found else "unknown"


def _signs_in(runtime: Runtime, site: Site) -> str:
    """Which of the variables that it may see are set, and which of the files are there that it signs in with."""
    names = [name for name in runtime.environment if name not in NET]
    patterns = tuple(name.removesuffix("*") for name in names if name.endswith("*"))
    there = sorted(n for n in site.environ if n in names or (patterns and n.startswith(patterns)))
    home = site.environ.get("HOME", "")
    files = [name for name in runtime.credentials if home and Path(home, name).is_file()]
    has = [*(f"${name}" for name in there), *(f"~/{name}" for name in files)]
    may = [*(f"${name}" for name in names), *(f"~/{name}" for name in runtime.credentials)]
    return f"has {', '.join(has)}" if has else f"none of these is there: {', '.join(may)}"


def _mayor(site: Site) -> Iterator[tuple[bool, str]]:
    """What thinks for the Mayor; where nothing does, what there is that could."""
    table = site.settings.mayor
    if table.agent:
        yield True, f"mayor: thinks with agent {table.agent}"
    elif not table.model:
        yield True, "mayor: takes plans from files only, as [mayor] names no model and no agent"
        yield True, f"mayor: found here: {look(site.environ).in_words()}"
    provider = table.model.partition("/")[0]
    for model in filter(None, (table.model, *table.models)):
        elsewhere = table.api_base and model.partition("/")[0] == provider
        keys = () if elsewhere else keys_for(model)
        missing = keys if not any(site.environ.get(name) for name in keys) else ()
        lacks = f", and {' or '.join(f'${name}' for name in missing)} is not set" if missing else ""
        yield not missing, f"mayor: thinks with {model}{lacks}"


def _notify(site: Site) -> Iterator[tuple[bool, str]]:
    try:
        command = command_of(site)
    except TownError as error:
        yield False, f"{error.message}. {error.hint}".strip()
        return
    if command:
        yield True, f"notify: {command[0]} is run for what needs you"


def _checkouts(site: Site) -> Iterator[tuple[bool, str]]:
    branch = site.settings.town.branch
    for checkout in checkouts(site.git, branch):
        note = "clean" if checkout.clean else "has changes of yours, which landing will not touch"
        yield True, f"{branch} in {checkout.path}: {note}"
