"""Make ``.venv`` hold exactly what ``pyproject.toml`` and ``uv.lock`` ask for; do nothing when it already does.

``make`` runs this before everything else, with an interpreter that has no package of ours. It needs the network
only when something changed: the last thing it writes is a stamp with the digest of what was installed and the
place it was installed at, so an interrupted or moved environment is noticed and made again, not trusted.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "stamp"
PYTHON = VENV / "bin" / "python"
LIBRARY = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
INPUTS = ("pyproject.toml", "uv.lock", ".ci/prepare.py")
PIP_OLDEST = "25.1"  # The first that knows --group.

# An activated environment, a PYTHONPATH or a user site of the caller must not leak into ours.
LEAKS = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "UV_PROJECT", "VIRTUAL_ENV")
ENVIRON = {k: v for k, v in os.environ.items() if k not in LEAKS}


class CannotPrepareError(Exception):
    """The environment cannot be made; the message says what to install."""


def main() -> int:
    """Look, and prepare when needed; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only look: exit 1 when there is something to do")
    parser.add_argument("--uv", default="", help="the uv command; without it, venv and pip are used")
    options = parser.parse_args()
    if options.check:
        return 0 if is_fresh() else 1
    # Held until this process ends: of two makes at once one prepares, and the other finds it done.
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if not is_fresh():
                prepare(options.uv)
        except CannotPrepareError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


def wanted() -> str:
    """What the stamp says of an environment that is as it must be: the place, and the digest of the inputs."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return f"{ROOT}\n{digest.hexdigest()}\n"


def stamped() -> str:
    """What the stamp says; empty when there is none."""
    try:
        return STAMP.read_text()
    except OSError:
        return ""


def is_fresh() -> bool:
    """Whether there is nothing to do, and the Python inside is of the version of the one running this."""
    return stamped() == wanted() and is_whole()


def is_whole() -> bool:
    """Whether an environment was finished here, for this version of Python, from whatever inputs."""
    return stamped().startswith(f"{ROOT}\n") and PYTHON.exists() and LIBRARY.is_dir()


def prepare(uv: str) -> None:
    """Install, then stamp.

    Without a stamp, or with that of another place, nothing in the environment is trusted: an installer that was
    killed leaves packages that look installed and are not whole.
    """
    target, trusted = wanted(), is_whole()
    STAMP.unlink(missing_ok=True)
    if VENV.exists() and not trusted:
        say("Removing .venv: it is unfinished, or was made elsewhere or for another Python.")
        shutil.rmtree(VENV)
    if not (uv and install_with_uv(uv)):
        install_with_pip()
    if run(PYTHON, "-P", "-c", "import beads, refinery, roles, cli, pytest", cwd=VENV):
        raise CannotPrepareError("the packages were installed, but Python does not find them in .venv")
    partial = STAMP.with_suffix(".partial")
    partial.write_text(target)
    partial.replace(STAMP)


def install_with_uv(uv: str) -> bool:
    """Let uv install what the lock says; False when it could not, and left no half of it."""
    say("Setting up .venv with uv; the first time this downloads some 150 MB.")
    settings = {"UV_PYTHON_DOWNLOADS": "never", "UV_PROJECT_ENVIRONMENT": str(VENV)}
    if run(uv, "sync", "--quiet", "--frozen", "--python", interpreter(), settings=settings) == 0:
        return True
    say("uv could not; trying venv and pip.")
    shutil.rmtree(VENV, ignore_errors=True)
    return False


def install_with_pip() -> None:
    """Let pip install the versions that the lock names."""
    say("Setting up .venv with pip; the first time this downloads some 150 MB.")
    if run(PYTHON, "-m", "pip", "--version", quiet=True):
        shutil.rmtree(VENV, ignore_errors=True)  # uv makes environments without pip.
        make_environment()
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input")
    if run(*pip, "install", "--upgrade", f"pip>={PIP_OLDEST}"):
        raise CannotPrepareError(f"pip could not be brought to {PIP_OLDEST} in .venv; what it said is above")
    constraints = VENV / "constraints.txt"
    constraints.write_text("\n".join(locked_versions()) + "\n")
    if run(*pip, "install", "--editable", str(ROOT), "--group", "dev", "--constraint", str(constraints)):
        raise CannotPrepareError("pip could not install the packages; what it said is above")


def make_environment() -> None:
    """Make an environment with pip in it, also where the standard library came without ``ensurepip``."""
    if run(interpreter(), "-m", "venv", str(VENV), quiet=True) == 0:
        return
    # Debian and Ubuntu leave ensurepip out of python3; a pip outside can still install one inside.
    shutil.rmtree(VENV, ignore_errors=True)
    say("This Python has no working ensurepip; trying its own pip.")
    if run(interpreter(), "-m", "venv", "--without-pip", str(VENV)) == 0 and (
        run(interpreter(), "-m", "pip", "--quiet", "--python", PYTHON, "install", f"pip>={PIP_OLDEST}") == 0
    ):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise CannotPrepareError(
        f"{interpreter()} can make no virtual environment with pip in it. Install what it lacks "
        f"(Debian, Ubuntu: apt install python{version}-venv), or install uv, and run make again."
    )


def locked_versions() -> list[str]:
    """The versions in ``uv.lock`` as constraints for pip, so that both ways install the same."""
    with (ROOT / "uv.lock").open("rb") as file:
        packages = tomllib.load(file)["package"]
    versions: dict[str, set[str]] = {}
    for package in packages:
        if "registry" in package["source"]:
            versions.setdefault(package["name"], set()).add(package["version"])
    # A package locked at two versions is one per platform; pip is left to choose.
    return sorted(f"{name}=={found.pop()}" for name, found in versions.items() if len(found) == 1)


def interpreter() -> str:
    """The Python outside any environment: the one running this may live in the .venv that is to be removed."""
    return getattr(sys, "_base_executable", None) or sys.executable


def run(*command: str | Path, cwd: Path = ROOT, settings: dict[str, str] | None = None, quiet: bool = False) -> int:
    """Run a command and return its exit code; 127 when it cannot be started."""
    try:
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env={**ENVIRON, **(settings or {})},
            stdout=subprocess.DEVNULL if quiet else None,
            stderr=subprocess.DEVNULL if quiet else None,
            check=False,
        ).returncode
    except OSError as error:
        if not quiet:
            say(f"{command[0]} cannot be run: {error}")
        return 127


def say(text: str) -> None:
    """Tell the person at the terminal what takes so long."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
