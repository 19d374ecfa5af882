"""The world a test lives in: its environment, its Git, and where this project's files are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, or the unpacked source distribution, that is being tested."""

PACKAGES = ("beads", "refinery", "roles", "cli")
"""What we ship, lowest layer first."""

NAME = "Test Person"
EMAIL = "test@example.org"
DATE = "2026-01-02T03:04:05+00:00"
"""When :func:`git` commits: fixed, so that the same commits have the same ids."""

GITCONFIG = f"""\
[user]
\tname = {NAME}
\temail = {EMAIL}
[init]
\tdefaultBranch = main
[advice]
\tdetachedHead = false
# Git would pack in the background, in processes that outlive the test and race with the removal of its
# directory. A test about packing turns these on in its own repository.
[gc]
\tauto = 0
\tautoDetach = false
[maintenance]
\tauto = false
[receive]
\tautogc = false
[commit]
\tgpgSign = false
[safe]
\tdirectory = *
"""

# What tests may see of the caller's environment: how to measure coverage, and how pytest talks to itself.
_KEPT_PREFIXES = ("COVERAGE_", "PYTEST_", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "TMPDIR", "HYPOTHESIS_")

_REDIRECTIONS = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"})


def environment(home: Path) -> dict[str, str]:
    """Every environment variable a test has: no identity, no key, no proxy, no configuration of the caller's.

    Args:
        home: the test's own home directory; ``.gitconfig`` is written into it.
    """
    config = home / ".gitconfig"
    config.write_text(GITCONFIG)
    scripts = Path(sys.executable).parent
    return {
        **{k: v for k, v in os.environ.items() if k.startswith(_KEPT_PREFIXES)},
        "PATH": f"{scripts}{os.pathsep}{_without(os.environ.get('PATH', os.defpath), scripts)}",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_RUNTIME_DIR": str(home / ".run"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        # A temporary directory inside somebody's repository is still outside of it.
        "GIT_CEILING_DIRECTORIES": str(home.parent.parent),
        # LiteLLM asks a server for prices when it is imported, unless told to use those it brought.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def git(path: Path, *args: str, stdin: str | bytes = b"", extra: Mapping[str, str] | None = None) -> str:
    """Run ``git ARGS`` in ``path`` at :data:`DATE` and return what it printed, less the last newline.

    Raises:
        AssertionError: it failed; the message has what it said.
    """
    # A hook that runs the tests has told Git which repository it is about: not this one.
    environ = {k: v for k, v in os.environ.items() if k not in _REDIRECTIONS}
    done = subprocess.run(
        ["git", *args],
        cwd=path,
        env={**environ, "GIT_AUTHOR_DATE": DATE, "GIT_COMMITTER_DATE": DATE, **(extra or {})},
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        check=False,
    )
    said = (done.stderr + done.stdout).decode("utf-8", "surrogateescape")
    assert done.returncode == 0, f"git {' '.join(args)} failed in {path} (exit {done.returncode}): {said}"
    return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


def unpack(common: Path) -> None:
    """Make every object of the repository a file of its own, so that a test can damage a single one."""
    for name in [path.name for path in (common / "objects" / "pack").glob("*.pack")]:
        content = common / name
        for suffix in (".idx", ".rev", ".pack"):
            path = common / "objects" / "pack" / Path(name).with_suffix(suffix)
            if path.exists():
                path.rename(content.with_suffix(suffix))
        git(common, "unpack-objects", "-q", stdin=content.read_bytes())


def make_repository(path: Path, files: Mapping[str, str] | None = None) -> Path:
    """Make a repository with one commit on ``main``; returns ``path``.

    Args:
        path: where; made with its parents when it does not exist.
        files: what the commit has, as paths and texts; a README when not given.
    """
    path.mkdir(parents=True, exist_ok=True)
    git(path, "init", "--quiet")
    return commit(path, files or {"README.md": "# A project\n"}, "Begin")


def commit(path: Path, files: Mapping[str, str], subject: str) -> Path:
    """Write ``files`` and commit everything there is on the branch that is checked out; returns ``path``."""
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message", subject)
    return path


def project_files() -> list[str]:
    """The project's own files, as paths from :data:`ROOT`: what Git tracks or would, and has not been removed.

    In an unpacked source distribution, which is no repository, all files that no tool left there.
    """
    if (ROOT / ".git").exists():
        listing = ("ls-files", "--cached", "--others", "--exclude-standard", "-z")
        listed = git(ROOT, "-c", "safe.directory=*", *listing).split("\0")
        return sorted(name for name in set(listed) if name and (ROOT / name).is_file())
    return sorted(
        name
        for name in (str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file())
        if not any(part == "__pycache__" or part.startswith((".venv", ".git/")) for part in name.split("/"))
        and not name.split("/")[0].endswith(("_cache", ".egg-info", ".hypothesis"))
    )


def _without(search: str, directory: Path) -> str:
    return os.pathsep.join(part for part in search.split(os.pathsep) if part and Path(part) != directory)
