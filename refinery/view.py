"""What of the machine's files a contained process sees: a list of places, of which the innermost one decides.

The system is there to be read. Where people and other programs keep what is theirs, there is nothing, except the
tools that the PATH leads to, and what the process is given by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Mode = Literal["hide", "mask", "read", "write"]
"""``hide`` shows an empty directory in its place, which is the process's own; ``mask`` an empty file."""

_PRECEDENCE: Sequence[Mode] = ("hide", "read", "write", "mask")


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

_BINARIES = ("bin", "sbin", "shims", "scripts", "Scripts")

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
            yield from _led_to(entry, home)
        else:
            yield around
        for first, others in _COMPANIONS.items():
            if entry.is_relative_to(home / first):
                yield from (home / other for other in others)
    yield from host.tools


def _led_to(directory: Path, home: Path) -> Iterator[Path]:
    """Where the links in a directory of programs lead, if that is elsewhere in the home."""
    if not directory.is_relative_to(home) or not directory.is_dir():
        return
    for link in directory.iterdir():
        target = _real(link) if link.is_symlink() else None
        if target and target.is_relative_to(home):
            around = target.parent
            yield around.parent if around.name in _BINARIES and around.parent != home else target


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
    private = [host.home, *map(Path, PRIVATE), *hidden]
    away = {path for path in map(_real, private) if path and path.is_dir() and path != path.parent}
    found: dict[Path, Mode] = dict.fromkeys(away, "hide")
    for tool in toolchains(host):
        # Also under the name by which it is known, where a link would be hidden.
        for path in (_real(tool), tool if tool.exists() else None):
            if path and any(path != there and path.is_relative_to(there) for there in away):
                found[path] = "read"
    _put(found, "write", write)
    _put(found, "read", (path for path in read if _mode(found, _real(path) or path) != "write"))
    found.update(dict.fromkeys(filter(None, map(_real, pinned)), "read"))
    secrets = [host.home / name for name in SECRETS]
    for secret in filter(None, map(_real, [*secrets, *map(Path, SYSTEM_SECRETS)])):
        found = {path: mode for path, mode in found.items() if not path.is_relative_to(secret)}
        if os.access(secret, os.R_OK) and _mode(found, secret) != "hide":
            found[secret] = "hide" if secret.is_dir() else "mask"
    for file in filter(None, map(_real, credentials)):
        found[file] = "write"
    return [Place(path, found[path]) for path in sorted(found, key=lambda path: (len(path.parts), path))]


def _put(found: dict[Path, Mode], mode: Mode, paths: Iterable[Path]) -> None:
    for path in paths:
        real = _real(path)
        if real and _PRECEDENCE.index(mode) >= _PRECEDENCE.index(found.get(real, "hide")):
            found[real] = mode


def _mode(found: Mapping[Path, Mode], path: Path) -> Mode:
    """What is to be had of a path, by the innermost place around it."""
    return next((found[parent] for parent in (path, *path.parents) if parent in found), "read")


def _real(path: Path) -> Path | None:
    """The path without symbolic links; None when there is nothing."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
