"""What of the machine's files a contained process sees: a list of places, of which the innermost one decides.

The system is there to be read. Where people and other programs keep what is theirs, there is nothing, except the
tools that the PATH leads to, and what the process is given by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Mode = Literal["hide", "mask", "read", "write"]
"""``hide`` shows an empty directory in its place, which is the process's own; ``mask`` an empty file."""


class Place(NamedTuple):
    """A file or directory without symbolic links on the way, and what is to be had of it and all below."""

    path: Path
    mode: Mode


@dataclass(frozen=True)
class Host:
    """The machine, as far as it decides about what is seen.

    Attributes:
        home: the user's home.
        search: the directories of the PATH.
        tools: other places that programs of ours need, such as where Python is.
    """

    home: Path
    search: tuple[Path, ...] = ()
    tools: tuple[Path, ...] = ()


PRIVATE = ("/home", "/root", "/run", "/tmp", "/var/tmp", "/var/run/user")
"""Directories of which a process sees nothing: homes, the sockets of services, and what others are working on."""

SECRETS = (
    *(".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".password-store", ".netrc", ".git-credentials"),
    *(".npmrc", ".pypirc", ".config/gh", ".config/hub", ".config/git/credentials", ".config/gcloud"),
    *(".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials", ".m2/settings.xml", ".config/pip/pip.conf"),
    *(".pip/pip.conf", ".local/share/keyrings", ".vault-token", ".terraform.d/credentials.tfrc.json"),
)
"""What is below a home and never seen, also where a directory around it is; only credentials given by name are."""

SYSTEM_SECRETS = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/ssl/private")
"""What only root can read, and a process of root's need not."""

_BINARIES = ("bin", ".bin", "sbin", "shims", "scripts", "Scripts")

_SHARED = ("uv", "pipx", "mise", "pnpm", "claude", "fnm", "cursor-agent", "goose", "virtualenvs")
"""Programs that keep under ``.local/share`` what they have installed."""

_COMPANIONS = {".cargo": (".rustup",), ".local": (".local/pipx", ".local/state/fnm_multishells")}
"""What the programs below a directory of the home need besides it."""


def toolchains(host: Host) -> Iterator[Path]:
    """The places that programs on the PATH run from and live off, as far as they are in nobody's own directory.

    Where such a directory is, the whole installation around it is: ``~/.pyenv`` for ``~/.pyenv/shims``. Of the home
    itself and of ``~/.local``, which are more than that, only parts.
    """
    home = host.home
    for entry in host.search:
        around = entry.parent
        if around == home / ".local":
            yield from (around / "lib", *(around / "share" / name for name in _SHARED))
        if entry.name not in _BINARIES or around in (home, home / ".local", Path(around.anchor)):
            yield entry
        else:
            yield around
        yield from _led_to(entry, home)
        for first, others in _COMPANIONS.items():
            if entry.is_relative_to(home / first):
                yield from (home / other for other in others)
    yield from host.tools


def installation(program: Path, home: Path) -> Path:
    """What a program brings along: all that is around the directory of programs it is in, or else itself."""
    around = program.parent
    whole = around.name in _BINARIES and around.parent not in (home, home / ".local", Path(around.anchor))
    return around.parent if whole else program


def _led_to(directory: Path, home: Path) -> Iterator[Path]:
    """Where the links in somebody's own directory of programs lead, if that is to another one's own place."""
    private = (str(home), *PRIVATE)
    if not any(_below(str(directory), place) for place in private) or not directory.is_dir():
        return
    for link in directory.iterdir():
        target = _real(link) if link.is_symlink() else ""
        if any(_below(target, place) for place in private):
            yield installation(Path(target), home)


def places(
    host: Host,
    hidden: Iterable[Path],
    read: Iterable[Path],
    write: Iterable[Path],
    credentials: Iterable[Path] = (),
    pinned: Iterable[Path] = (),
) -> list[Place]:
    """Where what is to be had, outermost first, so that what comes later lies over what came before.

    Args:
        host: the machine.
        hidden: directories to hide besides those of :data:`PRIVATE` and the home.
        read: what is seen in there nevertheless. What is in a place that may be written stays so.
        write: what may be written.
        credentials: files to be written although they are, or are in, a place of :data:`SECRETS`.
        pinned: what may not be written although it is in a place that may.
    """
    found: dict[str, Mode] = {}
    for there in map(_real, [str(host.home), *PRIVATE, *map(str, hidden)]):
        if there not in ("", "/") and Path(there).is_dir():
            found[there] = "hide"
    away = list(found)
    for tool in map(str, toolchains(host)):
        # Also under the name by which it is known, where a link would be hidden.
        for path in (_real(tool), tool if Path(tool).exists() else ""):
            if path not in away and any(_below(path, there) for there in away):
                found[path] = "read"
    found.update(dict.fromkeys(map(_real, write), "write"))
    found.update(dict.fromkeys((path for path in map(_real, read) if _mode(found, path) != "write"), "read"))
    found.update(dict.fromkeys(map(_real, pinned), "read"))
    for secret in (*(f"{host.home}/{name}" for name in SECRETS), *SYSTEM_SECRETS):
        real = _real(secret) if os.access(secret, os.R_OK) else ""
        if real:
            found = {path: mode for path, mode in found.items() if not _below(path, real)}
            if _mode(found, real) != "hide":
                found[real] = "hide" if Path(real).is_dir() else "mask"
    found.update(dict.fromkeys(map(_real, credentials), "write"))
    found.pop("", None)
    return [Place(Path(path), found[path]) for path in sorted(found, key=lambda path: (path.count("/"), path))]


def _mode(found: Mapping[str, Mode], path: str) -> Mode:
    """What is to be had of a path, by the innermost place around it."""
    while path and path not in found:
        path = path.rpartition("/")[0]
    return found.get(path, "read")


def _below(path: str, directory: str) -> bool:
    """Whether a path is that directory, or in it."""
    return path == directory or path.startswith(f"{directory}/")


def _real(path: str | Path) -> str:
    """The path without symbolic links; empty when there is nothing."""
    try:
        return os.path.realpath(path, strict=True)
    except OSError:
        return ""
