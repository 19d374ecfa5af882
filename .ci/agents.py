"""Install the coding-agent programs that ``tests/agents`` drives into a directory, at the versions that were tried.

They come from npm and PyPI, each in an environment of its own, and nothing else is downloaded: scripts that npm
packages want to run are not run, except those that only put a program where it belongs. What cannot be installed is
written down with the reason in ``installed.json``, where the tests read it; what is there already is left alone.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

NPM = {
    "claude": ("@anthropic-ai/claude-code", "2.1.332", "install.cjs"),
    "codex": ("@openai/codex", "0.171.0", ""),
    "gemini": ("@google/gemini-cli", "0.61.0", ""),
    "opencode": ("opencode-ai", "1.18.33", "postinstall.mjs"),
    "copilot": ("@github/copilot", "1.0.102", ""),
}
"""Each command's package, version, and the script that puts the program where it belongs."""

PYPI = {"aider": ("aider-chat", "0.86.2", "aider"), "mini": ("mini-swe-agent", "2.4.6", "mini")}
"""Each program's distribution, version and command."""

NODE_OLDEST = 20
PYTHONS = [sys.executable, *(f"python3.{minor}" for minor in (12, 11, 10))]
"""Where to look for a Python of a version that both distributions take."""

Found = dict[str, str]


def main() -> int:
    """Install what is missing, say what is there, and write it down; 0 also when something could not be had."""
    directory = Path(sys.argv[1]).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    installed = {name: attempt(npm, directory, name) for name in NPM}
    installed |= {name: attempt(pypi, directory, name) for name in PYPI}
    (directory / "installed.json").write_text(json.dumps(installed, indent=2) + "\n")
    for name, found in installed.items():
        print(f"{name:9} {found.get('version', '-'):9} {found.get('missing') or found['program']}", flush=True)
    return 0


def attempt(install, directory: Path, name: str) -> Found:
    """Where a program is and its version, or why it is missing."""
    try:
        return install(directory, name)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        return {"missing": " ".join(said.split())[-300:]}


def npm(directory: Path, name: str) -> Found:
    """Install a package of npm's and let it put its program where it belongs."""
    package, version, script = NPM[name]
    node = shutil.which("node")
    if node is None or not shutil.which("npm"):
        return {"missing": f"it needs Node.js {NODE_OLDEST} or newer, with npm, on the PATH"}
    prefix = directory / name
    modules = prefix / "node_modules"
    found = {"version": version, "program": str(modules / ".bin" / name)}
    if stamped(prefix) != version:
        shutil.rmtree(prefix, ignore_errors=True)
        prefix.mkdir()
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
        run("npm", "install", f"--prefix={prefix}", *quiet, f"{package}@{version}")
        if script:
            run(node, script, cwd=modules / package)
        (prefix / "stamp").write_text(version)
    return found


def pypi(directory: Path, name: str) -> Found:
    """Install a distribution into a virtual environment of its own."""
    distribution, version, command = PYPI[name]
    prefix = directory / name
    found = {"version": version, "program": str(prefix / "bin" / command)}
    if stamped(prefix) != version:
        python = next((one for one in PYTHONS if suits(one)), None)
        if python is None:
            return {"missing": "it needs a Python of a version from 3.10 to 3.12"}
        shutil.rmtree(prefix, ignore_errors=True)
        run(python, "-m", "venv", str(prefix))
        run(str(prefix / "bin" / "python"), "-m", "pip", "install", "--quiet", f"{distribution}=={version}")
        (prefix / "stamp").write_text(version)
    return found


def stamped(prefix: Path) -> str:
    """The version that was installed to the end there; empty when none was."""
    try:
        return (prefix / "stamp").read_text()
    except OSError:
        return ""


def suits(python: str) -> bool:
    """Whether that command is a Python in which both can be installed."""
    line = "import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))"
    try:
        return subprocess.run([python, "-c", line], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run(*argv: str, cwd: Path | None = None) -> None:
    """Run a command; raises with what it said when it fails."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(argv, cwd=cwd, env=environ, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    raise SystemExit(main())
