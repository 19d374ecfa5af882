"""Style that matters, as tests: sizes, docstrings, annotations, and who may import what."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.world import PACKAGES, ROOT, project_files

# The project that the demo works on is data: somebody else's code, so to say.
DATA = "cli/demo/repository/"

FUNCTION_LINES_MAX = 70
FUNCTION_LINES_P90_MAX = 30
FUNCTION_LINES_MEDIAN_MAX = 10
FILE_LINES_MAX = 500
FILE_LINES_MEDIAN_MAX = 200

# One import site for each outside library: what it can do to us is then read in one file.
LIBRARIES = {
    "click": "cli/*",
    "dulwich": "beads/objects.py",
    "litellm": "roles/llm.py",
    "prompt_toolkit": "cli/prompt.py",
    "psutil": "refinery/strays.py",
    "pydantic": "*",  # The language our types are written in.
    "tomli": "beads/toml.py",
    "tomli_w": "beads/toml.py",
    "watchfiles": "roles/town.py",
}

# Where each part of the outside world may be touched. ruff knows the same names (pyproject.toml), but can only
# exempt whole files from all of them; this is the exact table.
CLOCK = ("beads/clock.py", "cli/*")
EDGE = ("cli/*",)
PROCESSES = (
    "beads/packing.py",
    "beads/remote.py",
    "refinery/git.py",
    "refinery/processes.py",
    "refinery/trial.py",
    "cli/*",
)
WORLD: dict[str, tuple[str, ...]] = {
    "datetime.date.today": CLOCK,
    "datetime.datetime.now": CLOCK,
    "datetime.datetime.today": CLOCK,
    "datetime.datetime.utcnow": CLOCK,
    "os.chdir": (),
    "os.environ": (*EDGE, "refinery/confine.py"),
    "os.environb": EDGE,
    "os.getcwd": EDGE,
    "os.getenv": EDGE,
    "os.path.expanduser": EDGE,
    "os.popen": (),
    "os.putenv": (),
    "os.system": (),
    "os.urandom": EDGE,
    "pathlib.Path.cwd": EDGE,
    "pathlib.Path.home": EDGE,
    "random": (),
    "random.Random": ("*",),
    "random.SystemRandom": EDGE,
    "secrets": EDGE,
    "subprocess": PROCESSES,
    "time.monotonic": CLOCK,
    "time.monotonic_ns": CLOCK,
    "time.perf_counter": CLOCK,
    "time.sleep": CLOCK,
    "time.time": CLOCK,
    "time.time_ns": CLOCK,
    "uuid.uuid1": (),
    "uuid.uuid4": EDGE,
}


class Function(NamedTuple):
    """A function or method, and where it is."""

    place: str
    lines: int
    node: ast.FunctionDef | ast.AsyncFunctionDef


class Source:
    """One of our files, read and parsed once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (ROOT / name).read_text("utf-8")
        self.tree = ast.parse(self.text, name)
        self.lines = len(self.text.splitlines())

    def functions(self) -> Iterator[Function]:
        """Every function in the file, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Function(f"{self.name}:{node.lineno} {node.name}", _lines(node), node)


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """The files of the four packages."""
    names = [name for name in project_files() if name.endswith(".py") and not name.startswith(DATA)]
    found = [Source(name) for name in names if name.split("/")[0] in PACKAGES]
    assert {source.name.split("/")[0] for source in found} == set(PACKAGES), "not all packages were found"
    return found


@pytest.fixture(scope="module")
def functions(sources: list[Source]) -> list[Function]:
    """The functions of the four packages."""
    found = [function for source in sources for function in source.functions()]
    assert found, "no function was found"
    return found


def test_files_are_short(sources: list[Source]) -> None:
    long = [f"{source.name}: {source.lines}" for source in sources if source.lines > FILE_LINES_MAX]
    assert not long, _list(f"files of more than {FILE_LINES_MAX} lines; find the second noun in each", long)


def test_most_files_are_shorter(sources: list[Source]) -> None:
    # An empty __init__.py is no file that anybody reads.
    sizes = [source.lines for source in sources if len(source.tree.body) > 1]
    median = _quantile(sizes, 0.5)
    assert median <= FILE_LINES_MEDIAN_MAX, f"half of {len(sizes)} files have more than {median} lines"


def test_functions_are_short(functions: list[Function]) -> None:
    long = [f"{function.place}: {function.lines}" for function in functions if function.lines > FUNCTION_LINES_MAX]
    assert not long, _list(f"functions of more than {FUNCTION_LINES_MAX} lines", long)


def test_most_functions_are_shorter(functions: list[Function]) -> None:
    sizes = [function.lines for function in functions]
    median, p90 = _quantile(sizes, 0.5), _quantile(sizes, 0.9)
    longest = sorted(functions, key=lambda function: -function.lines)[:10]
    summary = f"{len(sizes)} functions: median {median}, 90 % up to {p90}; the longest"
    small = median <= FUNCTION_LINES_MEDIAN_MAX and p90 <= FUNCTION_LINES_P90_MAX
    assert small, _list(summary, [f"{function.place}: {function.lines}" for function in longest])


def test_every_module_says_what_it_is(sources: list[Source]) -> None:
    silent = [source.name for source in sources if not ast.get_docstring(source.tree)]
    assert not silent, _list("modules without a docstring", silent)


def test_everything_public_has_a_docstring(sources: list[Source]) -> None:
    silent = [f"{source.name}:{node.lineno} {node.name}" for source in sources for node in _undocumented(source.tree)]
    assert not silent, _list("public without a docstring", silent)


def test_everything_is_annotated(functions: list[Function]) -> None:
    bare = [function.place for function in functions if function.node.returns is None]
    assert not bare, _list("functions that do not say what they return", bare)


def test_imports_are_absolute(sources: list[Source]) -> None:
    relative = [
        f"{source.name}:{node.lineno}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative, _list("relative imports", relative)


def test_every_library_has_one_import_site(sources: list[Source]) -> None:
    ours = {*PACKAGES, *sys.stdlib_module_names}
    elsewhere = [
        f"{source.name}:{line} imports {name}; "
        + (f"only {LIBRARIES[top]} may" if top in LIBRARIES else "nobody may yet")
        for source in sources
        for line, name in _imports(source.tree)
        if (top := name.split(".")[0]) not in ours and not fnmatch.fnmatch(source.name, LIBRARIES.get(top, ""))
    ]
    assert not elsewhere, _list("imports of outside libraries", elsewhere)


def test_every_dependency_is_in_the_table() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in project["dependencies"]}
    assert declared == set(LIBRARIES), "pyproject.toml and LIBRARIES name different libraries"


def test_the_world_is_touched_at_the_edge(sources: list[Source]) -> None:
    below = [
        f"{source.name}:{line} uses {name}; " + (f"only {', '.join(WORLD[rule])} may" if WORLD[rule] else "nobody may")
        for source in sources
        for line, name in _names(source.tree)
        if (rule := _rule(name)) and not any(fnmatch.fnmatch(source.name, allowed) for allowed in WORLD[rule])
    ]
    assert not below, _list("uses of clock, chance, environment or processes", below)


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_what_is_public(package: str) -> None:
    module = importlib.import_module(package)
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, types.ModuleType)
    }
    listed = getattr(module, "__all__", [])
    if hasattr(module, "__getattr__"):
        # It imports what is public when that is asked for.
        public = (public - {"TYPE_CHECKING"}) | {
            name for name in dir(module) if name in listed and hasattr(module, name)
        }
    assert sorted(public) == sorted(listed), f"{package}.__all__ is not what {package}/__init__.py makes public"
    assert listed == sorted(listed, key=_isort), f"{package}.__all__ is not in order; run make fix"


def test_the_store_can_be_used_from_its_package() -> None:
    assert "Store" in importlib.import_module("beads").__all__, "`from beads import Store` is what the README promises"


def test_layers_are_kept() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
    assert not re.search(r"\b0 kept", done.stdout), "no contract was checked"


@pytest.mark.parametrize(
    "code,names",
    [
        ("import time\ntime.time()", {"time.time"}),
        ("import time as t\nt.sleep(1)", {"time.sleep"}),
        ("from time import sleep", {"time.sleep"}),
        ("from datetime import datetime as d\nd.now()", {"datetime.datetime", "datetime.datetime.now"}),
        ("from os import environ as e", {"os.environ"}),
        ("import os.path\nos.path.expanduser('~')", {"os.path.expanduser"}),
        ("import random\ndef f(chance: random.Random) -> None: ...", {"random.Random"}),
    ],
)
def test_names_are_followed_to_what_they_stand_for(code: str, names: set[str]) -> None:
    assert {name for _, name in _names(ast.parse(code))} == names


@pytest.mark.parametrize(
    "name,rule",
    [
        ("subprocess.run", "subprocess"),
        ("random.choice", "random"),
        ("random.Random", "random.Random"),
        ("time.strftime", ""),
        ("os.environ.get", "os.environ"),
    ],
)
def test_the_longest_rule_decides(name: str, rule: str) -> None:
    assert _rule(name) == rule


def _rule(name: str) -> str:
    """The entry of WORLD that ``name`` falls under; empty when it is nobody's business."""
    parts = name.split(".")
    candidates = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((candidate for candidate in candidates if candidate in WORLD), "")


def _names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name in a module that an import brought, written out: ``d.now`` is ``datetime.datetime.now``."""
    brought: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                brought[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module:
            brought.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            written = _dotted(node)
            first, dot, rest = written.partition(".")
            if first in brought:
                yield node.lineno, f"{brought[first]}{dot}{rest}"


def _dotted(node: ast.expr) -> str:
    """``a.b.c`` as text; empty when it does not start with a plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def _undocumented(
    parent: ast.Module | ast.ClassDef,
) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """What is public in a module or class and has no docstring; ``__init__`` is documented with its class."""
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        marks = {_dotted(mark).split(".")[-1] for mark in node.decorator_list}
        if not ast.get_docstring(node) and not marks & {"overload", "setter", "deleter", "override"}:
            yield node
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node)


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _quantile(values: list[int], share: float) -> int:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def _isort(name: str) -> tuple[int, str]:
    """The order of ruff's RUF022: constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def _list(heading: str, lines: list[str]) -> str:
    return "\n  ".join([f"{heading}:", *lines])
