"""Modernise a published Python package with a town: one molecule a module, the package's own tests as the gate.

Downloads a source distribution, makes it a Git repository, finds the modules that pyupgrade or ruff would change,
writes a plan with one molecule for each, lets ``town up`` land them, and says what came of it. No model is asked:
the ``command`` runtime does the work, and the criteria decide, as they would over an agent.

Run it with the Python that has beadtown. Running it again goes on where it was.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from beads import Store
from beads.toml import dumps

TOWN = (sys.executable, "-P", "-c", "from cli.main import town; town()")
"""How ``town`` is started: by this Python, never through something that the package's directory could provide."""

CACHES = ("__pycache__", ".pytest_cache", ".ruff_cache")

IGNORED = (*CACHES, "*.egg-info", "build")

NO_MODULES = {"test", "tests", "testing", "doc", "docs", "examples", "artwork", "benchmarks", "setup.py", "conftest.py"}
"""What is not the package itself; tests above all, because they are what the work is judged by."""

PYTEST = "python -m pytest -q"

EXAMPLES = """\
examples:
  python examples/modernize/modernize.py boltons==24.0.0 --with 'pytest<8'
  python examples/modernize/modernize.py Markdown==3.3.7 --with pyyaml --test 'python -m unittest discover tests'
  python examples/modernize/modernize.py --package-dir mine-1.0 --py311-plus --only 'mine/core/*' --prepare-only

exit status: that of `town up`: 0 everything landed, 7 something needs a person; 1 it could not begin.
Running a package's tests runs its code, and so does asking for its metadata: choose packages you trust.
"""


class Problem(Exception):
    """Something that a person has to know; its text is all that is shown of it."""


@dataclass(frozen=True)
class Place:
    """The directory that everything of one run is in.

    Attributes:
        directory: the directory itself.
        name: what is modernised.
        bin: where the programs of the plan's lines are: ``python``, ``pyupgrade``, ``ruff``.
    """

    directory: Path
    name: str
    bin: Path

    @property
    def repository(self) -> Path:
        return self.directory / "package"

    @property
    def plan(self) -> Path:
        return self.directory / "plan.toml"

    def environ(self) -> dict[str, str]:
        """The environment in which ``pyupgrade`` is ours, so that plan lines read like what a person would type."""
        return {**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}

    def run(self, *argv: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program in the repository, whatever comes of it."""
        return subprocess.run(
            argv,
            cwd=cwd or self.repository,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )

    def must(self, *argv: str | Path, cwd: Path | None = None) -> str:
        """Run a program in the repository and return what it printed.

        Raises:
            Problem: it failed.
        """
        done = self.run(*argv, cwd=cwd)
        if done.returncode:
            line = shlex.join(str(part) for part in argv)
            raise Problem(f"{line}\nended with exit status {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
        return done.stdout.rstrip()


# ── The plan ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Rules:
    """What is done to a module, as lines that a person would type.

    Attributes:
        minor: the oldest Python 3 that the package is to run on afterwards.
        test: the line that runs the package's tests.
        quick: whether the criteria leave the tests to the gate.
        keep: the modules whose unused imports are none of ruff's business.
    """

    minor: int
    test: str
    quick: bool = False
    keep: frozenset[str] = frozenset()

    def codes(self, path: str) -> str:
        """The ruff rules for this file."""
        return "UP,I" if path in self.keep else "UP,I,F401"

    def ruff(self, path: str, *options: str) -> str:
        # Of UP, percent formats have no fix that is always right.
        line = ["ruff", "check", "--isolated", "--target-version", f"py3{self.minor}", *options]
        return f"{shlex.join([*line, '--ignore', 'UP031'])} {word(path)}"

    def eager(self, path: str) -> tuple[str, ...]:
        """Everything that can be fixed."""
        return self._upgrade(path), self.ruff(path, "--fix", "--select", self.codes(path))

    def careful(self, path: str) -> tuple[str, ...]:
        """From main's version again; what looks unused stays and is marked, since something breaks without it."""
        restore = f"git show {shlex.quote(f'main:{path}')} > {word(path)}"
        fix = self.ruff(path, "--fix", "--exit-zero", "--select", "UP,I")
        mark = self.ruff(path, "--add-noqa", "--select", self.codes(path))
        return restore, self._upgrade(path), fix, mark

    def style(self, path: str) -> tuple[str, ...]:
        """The lines that hold once there is nothing left to modernise."""
        upgraded = f"pyupgrade --py3{self.minor}-plus - < {word(path)} > /dev/null"
        return upgraded, self.ruff(path, "--select", self.codes(path))

    def tests(self, path: str, files: Iterable[str]) -> tuple[str, ...]:
        """The module's own tests where there are any, which is quick, else all; the gate always runs all."""
        if self.quick:
            return ()
        own = f"test_{PurePosixPath(path).stem.lstrip('_')}.py"
        found = sorted(f for f in files if PurePosixPath(f).name == own) if self.test.endswith(PYTEST) else []
        return (" ".join((self.test, *map(word, found))),)

    def _upgrade(self, path: str) -> str:
        return f"pyupgrade --exit-zero-even-if-changed --py3{self.minor}-plus {word(path)}"


def chain(lines: Iterable[str], indent: str = "") -> str:
    """Lines of a shell that run as long as none fails."""
    return " &&\n".join(indent + line for line in lines) + "\n"


def word(path: str) -> str:
    """A path as one word of a shell line that no program takes for an option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def make_plan(name: str, paths: Sequence[str], files: Sequence[str], rules: Rules) -> str:
    """The plan as TOML: one molecule for each of ``paths``.

    Args:
        name: what is modernised.
        paths: the modules to change.
        files: all files of the repository, to find each module's tests among.
        rules: what to do.
    """
    taken: set[str] = set()
    molecules = []
    for path in paths:
        shown = path if path.isprintable() else ascii(path)
        eager, careful = chain(rules.eager(path), "  "), chain(rules.careful(path), "  ")
        lines = (f"python -m py_compile {word(path)}", *rules.style(path), *rules.tests(path, files))
        molecules.append(
            {
                "id": molecule_id(path, taken),
                "title": f"Modernise {shown}"[:500],
                "goal": f"{shown} is written as one writes for Python 3.{rules.minor} and later, and does what it did.",
                "run": f"if test $BEADTOWN_ATTEMPT = 1; then\n{eager}else\n{careful}fi\n",
                "rework": chain(rules.careful(path)),
                "criteria": [{"run": line} for line in lines],
            }
        )
    title = f"Write {name} for Python 3.{rules.minor} and later"
    plan = {"plan": slug(f"modernize-{name}"), "title": title, "molecules": molecules}
    return dumps(plan).decode()


def molecule_id(path: str, taken: set[str]) -> str:
    """A name for a module's molecule that no other one of the plan has; it is added to ``taken``."""
    first = slug(path.removesuffix(".py"))
    number, name = 1, first
    while name in taken:
        number += 1
        name = f"{first}-{number}"
    taken.add(name)
    return name


def slug(text: str) -> str:
    """Letters, digits, ``_`` and ``-``, and few enough of them that a number may follow."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text)[-56:].strip("-_") or "module"


def files_of(repository: Path) -> Iterator[str]:
    """The files in a repository's work tree, as paths from its root."""
    for directory, below, names in os.walk(repository):
        below[:] = [name for name in below if name != ".git"]
        paths = (Path(directory, name) for name in names)
        yield from (
            path.relative_to(repository).as_posix() for path in paths if path.is_file() and not path.is_symlink()
        )


def modules(files: Iterable[str], only: str = "*") -> Iterator[str]:
    """Of a repository's files the package's own modules, as far as they match ``only``."""
    for path in sorted(files):
        parts = PurePosixPath(path).parts
        is_test = parts[-1].startswith("test_") or parts[-1].endswith("_test.py")
        if path.endswith(".py") and not is_test and NO_MODULES.isdisjoint(parts) and fnmatch.fnmatchcase(path, only):
            yield path


def parse(path: str, repository: Path) -> ast.Module | None:
    """The module, or None when no plan can name it or this Python cannot read it: some are for Python 2."""
    try:
        path.encode()
        return ast.parse((repository / path).read_bytes())
    except (SyntaxError, ValueError):
        return None


def imports_to_keep(path: str, tree: ast.Module) -> bool:
    """Whether an import that the module does not use may be there for a reason that no test shows.

    What ``__init__`` imports is there to be imported from it, and an import in a ``try`` finds out what there is:
    without it, the module would believe that it is there.
    """
    tries = (node for node in ast.walk(tree) if isinstance(node, ast.Try))
    imports = (node for each in tries for node in ast.walk(each) if isinstance(node, ast.Import | ast.ImportFrom))
    tried = {alias.asname or alias.name.split(".")[0] for node in imports for alias in node.names}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return not tried <= used or PurePosixPath(path).name == "__init__.py"


# ── Getting ready ───────────────────────────────────────────────────────────────────────────────────────────────


def prepare(place: Place, options: argparse.Namespace) -> None:
    """Everything up to the plan, which is written last: where there is one, the rest was done."""
    if place.plan.exists():
        say(f"{place.plan} is there already: going on with it")
        return
    place.directory.mkdir(parents=True, exist_ok=True)
    if options.tools is None:
        make_tools(place, options.requirements)
    missing = [name for name in ("python", "pyupgrade", "ruff") if not shutil.which(name, path=place.environ()["PATH"])]
    if missing:
        raise Problem(f"not found in {place.bin} or on PATH: {', '.join(missing)}")
    if not place.repository.exists():
        unpacking = empty(place.directory / "unpacking")
        source = options.package_dir or unpack(download(place, options.package), unpacking / "archive")
        make_repository(place, source, unpacking / "repository")
        shutil.rmtree(unpacking)
    test = test_line(place, options.test)
    check_tests(place, test)
    write_plan(place, Rules(options.minor, test, options.quick), options.only)


def make_tools(place: Place, requirements: Sequence[str]) -> None:
    """A virtual environment for the programs of the plan's lines; a half-made one is made anew."""
    marker = place.bin.parent / "complete"
    if marker.exists():
        return
    say(f"making {place.bin.parent} with pyupgrade, ruff, pytest {' '.join(requirements)}".rstrip())
    place.must(sys.executable, "-m", "venv", "--clear", place.bin.parent, cwd=place.directory)
    pip = (place.bin / "python", "-m", "pip", "--disable-pip-version-check")
    # What comes from the command line cannot be an option after this.
    place.must(*pip, "install", "--quiet", "--", "pyupgrade", "ruff", "pytest", *requirements, cwd=place.directory)
    marker.touch()


def download(place: Place, package: str) -> Path:
    """The package's source distribution.

    Raises:
        Problem: there is none.
    """
    say(f"downloading the source distribution of {package}")
    name = package.split("==")[0]
    pip = (place.bin / "python", "-m", "pip", "--disable-pip-version-check", "download", "--quiet")
    target = empty(place.directory / "download")
    place.must(*pip, "--no-deps", "--no-binary", name, "--dest", target, "--", package, cwd=place.directory)
    return next(target.iterdir())


def unpack(archive: Path, into: Path) -> Path:
    """Unpack a source distribution so that nothing gets outside of ``into``; returns its one directory.

    Raises:
        Problem: it is not what a source distribution is, or tries to leave ``into``.
    """
    if not hasattr(tarfile, "data_filter"):
        raise Problem("this Python cannot unpack archives of strangers safely; take 3.11.4 or later")
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Problem(f"{archive.name} was not unpacked: {error}") from error
    found = list(into.iterdir())
    if len(found) != 1 or not found[0].is_dir():
        raise Problem(f"{archive.name} does not hold one directory, as a source distribution does")
    return found[0]


def make_repository(place: Place, source: Path, scratch: Path) -> None:
    """A Git repository with one commit; made aside and then renamed, so that there is never half of one."""
    # What was published is committed even where it is ignored: some packages find their plugins in their egg-info.
    shutil.copytree(source, scratch, symlinks=True, ignore=shutil.ignore_patterns(".git", *CACHES))
    with (scratch / ".gitignore").open("a") as stream:
        stream.write("\n".join(("", "# What testing leaves behind.", *IGNORED, "")))
    for args in (
        ("init", "--quiet", "--initial-branch", "main"),
        ("config", "user.name", "modernize"),
        ("config", "user.email", "modernize@example.org"),
        ("config", "commit.gpgSign", "false"),
        ("add", "--all", "--force"),
        ("commit", "--quiet", "--message", f"{place.name}, as it was published"),
    ):
        place.must("git", *args, cwd=scratch)
    scratch.rename(place.repository)


def test_line(place: Place, line: str) -> str:
    """The line that runs the tests, against the modules in the work tree that it runs in."""
    return f"PYTHONPATH=src {line}" if (place.repository / "src").is_dir() else line


def check_tests(place: Place, line: str) -> None:
    """Run the package's tests once on what was published.

    Raises:
        Problem: they fail, so they could not tell good work from bad.
    """
    say(f"running the tests on the untouched package: {line}")
    with tempfile.TemporaryDirectory(prefix="modernize-") as scratch:
        copy = Path(scratch) / "package"
        place.must("git", "clone", "--quiet", place.repository, copy)
        before = time.monotonic()
        done = place.run("sh", "-c", line, cwd=copy)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise Problem(
            f"the tests fail before anything is changed (exit status {done.returncode}):\n{tail}\n\n"
            "They may need something: --with REQUIREMENT (also an older pytest), or another line: --test COMMAND."
        )
    say(f"  they pass, in {time.monotonic() - before:.1f} s")


def write_plan(place: Place, rules: Rules, only: str) -> None:
    """Find the modules for which the plan's criteria do not hold yet, and write the plan for them."""
    files = list(files_of(place.repository))
    found = list(modules(files, only))
    trees = {path: tree for path in found if (tree := parse(path, place.repository))}
    for path in sorted(set(found) - set(trees)):
        say(f"  left out, not Python that this Python reads: {path!a}")
    rules = replace(rules, keep=frozenset(path for path, tree in trees.items() if imports_to_keep(path, tree)))
    old = [path for path in trees if any(place.run("sh", "-c", line).returncode for line in rules.style(path))]
    if not old:
        raise Problem(f"none of {len(found)} modules has anything to modernise")
    scratch = place.plan.with_suffix(".new")
    scratch.write_text(make_plan(place.name, old, files, rules), "utf-8")
    scratch.replace(place.plan)
    say(f"{place.plan}: {len(old)} of {len(found)} modules")


# ── The town ────────────────────────────────────────────────────────────────────────────────────────────────────


def work(place: Place, polecats: int | None) -> int:
    """Pour the plan, run the town until there is nothing to do without a person, and report; its exit status."""
    say("$ town mayor --plan plan.toml --yes")
    say(place.must(*TOWN, "mayor", "--plan", place.plan, "--yes").splitlines()[-1])
    count = () if polecats is None else ("--polecats", str(polecats))
    say(f"$ town up --until-idle {' '.join(count)}".rstrip())
    before = time.monotonic()
    status = foreground((*TOWN, "up", "--until-idle", *count), place)
    say("\n" + summary(place, time.monotonic() - before))
    return status


def foreground(argv: Sequence[str], place: Place) -> int:
    """Run a program that handles Ctrl-C itself, as the town does: its polecats save their work first."""
    with subprocess.Popen(argv, cwd=place.repository, env=place.environ()) as process:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            status = process.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


def summary(place: Place, seconds: float) -> str:
    """What came of it, read back from the store and from Git."""
    beads = list(Store.open(place.repository).snapshot())
    molecules = [bead for bead in beads if bead.issue_type == "molecule"]
    outcomes = [bead.outcome for bead in molecules]
    attempts = [attempt.end for bead in beads for attempt in bead.attempts]
    requests = [bead for bead in beads if bead.merge]
    gates = [evidence for bead in requests for evidence in bead.evidence]
    start = place.must("git", "rev-list", "--first-parent", "--max-parents=0", "main")
    changed = place.must("git", "diff", "--shortstat", start, "main", "--", ".", ":!town.toml")
    rows = {
        "molecules": len(molecules),
        "landed": outcomes.count("landed"),
        "done without change": outcomes.count("done"),
        "open": outcomes.count(None),
        "attempts": f"{len(attempts)}, of which {attempts.count('unmet')} did not meet the criteria",
        "sent back": sum(bead.outcome == "rejected" for bead in requests),
        "gate runs": f"{len(gates)}, {sum(e.seconds for e in gates):.0f} s",
        "wall time": f"{seconds:.0f} s",
        "changed": changed.strip() or "nothing",
    }
    return "\n".join(f"{name:<20} {value}" for name, value in rows.items())


# ── The command line ────────────────────────────────────────────────────────────────────────────────────────────


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    try:
        place = place_of(options)
        prepare(place, options)
        gate = test_line(place, options.test)
        say(place.must(*TOWN, "init", "--gate", gate))
        return 0 if options.prepare_only else work(place, options.polecats)
    except Problem as problem:
        print(f"modernize: {problem}", file=sys.stderr)
        return 1


def place_of(options: argparse.Namespace) -> Place:
    """Where this run has its things."""
    name = options.package.split("==")[0] if options.package else options.package_dir.name
    directory = options.into or Path(f"modernize-{(options.package or name).replace('==', '-')}")
    directory = directory.absolute()
    return Place(directory, name, options.tools or directory / "tools" / "bin")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="modernize.py",
        description="Modernise a Python package with a town: one molecule a module, the package's tests as the gate.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("package", nargs="?", metavar="PACKAGE==VERSION", help="what to download, exactly")
    parser.add_argument("--package-dir", type=directory, metavar="DIR", help="copy this unpacked one instead")
    parser.add_argument("--into", type=Path, metavar="DIR", help="where everything goes [./modernize-PACKAGE-VERSION]")
    parser.add_argument("--polecats", type=int, metavar="N", help="how many work at once [as town.toml says: 2]")
    for minor in range(8, 14):
        about = (
            "the oldest Python it is for afterwards; also --py38-plus to --py313-plus"
            if minor == 9
            else argparse.SUPPRESS
        )
        parser.add_argument(
            f"--py3{minor}-plus", dest="minor", action="store_const", const=minor, default=9, help=about
        )
    parser.add_argument("--only", default="*", metavar="GLOB", help="only modules whose path matches")
    parser.add_argument("--test", default=PYTEST, metavar="COMMAND", help="what runs the package's tests [%(default)s]")
    with_help = "something the tests need, for pip; repeatable"
    parser.add_argument(
        "--with", dest="requirements", action="append", default=[], metavar="REQUIREMENT", help=with_help
    )
    parser.add_argument("--tools", type=directory, metavar="DIR", help="programs to use instead of installing them")
    parser.add_argument("--quick", action="store_true", help="criteria without tests: the gate finds what breaks them")
    parser.add_argument("--prepare-only", action="store_true", help="write the plan and town.toml, and stop")
    options = parser.parse_args(argv)
    if (options.package is None) == (options.package_dir is None):
        parser.error("give either PACKAGE==VERSION or --package-dir")
    if options.package and not re.fullmatch(r"\w[\w.-]*==\w[\w.+!-]*", options.package, re.ASCII):
        parser.error(f"{options.package!r} is not PACKAGE==VERSION, such as boltons==24.0.0")
    return options


def directory(text: str) -> Path:
    path = Path(text).expanduser().absolute()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a directory")
    return path


def empty(path: Path) -> Path:
    """The directory, with nothing in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
