"""Writes the pages that tasks.md asks for, and says whether they are right; needs nothing but Python.

    python3 examples/tasks/pages.py write beads/store.py docs/modules/beads/store.md
    python3 examples/tasks/pages.py check docs/modules/beads/store.md
    python3 examples/tasks/pages.py check                               all pages that there are

A page says what a module promises and what it has for others, as the source does. A README.md lists the pages beside
and below it, all of them when it is named; in docs/README.md the pages stand in a section of their own.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("docs/modules")
INDEX = Path("docs/README.md")
SECTION = "## Modules"
USERS = "## Used by"
LAYERS = ("beads", "refinery", "roles", "cli")


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit code."""
    word, *names = arguments or [""]
    paths = [Path(name) for name in names]
    if word == "write" and paths:
        page = next(path for path in paths if path.suffix == ".md")
        page.parent.mkdir(parents=True, exist_ok=True)
        # Who uses a module is said in a task of its own, which finds the page there.
        page.write_text(wanted(page, users=page.exists()))
    elif word in ("check", "check-users"):
        named = [path for path in paths if path.suffix == ".md"]
        pages = named or [*sorted(ROOT.rglob("*.md")), INDEX]
        wrong = [f"{page} {p}" for page in pages for p in problems(page, word == "check-users", whole=bool(named))]
        print("\n".join(wrong) or f"{len(pages)} pages are right")
        return 1 if wrong else 0
    else:
        print(__doc__)
        return 2
    return 0


def problems(page: Path, users: bool, whole: bool) -> Iterator[str]:
    """What is wrong with a page; unless it has to be ``whole``, a list of pages may lack the newest ones."""
    text = page.read_text() if page.exists() else ""
    right = wanted(page, users=USERS in text) if text else ""
    if not text:
        yield "is not there"
    elif users and USERS not in text:
        yield "does not say who uses the module"
    elif page.name == "README.md" and not whole:
        ours = text.partition(SECTION)[2] if page == INDEX else text
        yield from (f"has a line too many: {line}" for line in ours.splitlines() if line not in right.splitlines())
    elif text != right:
        yield "is not what its source says"


def wanted(page: Path, users: bool) -> str:
    """What a page has to say."""
    if page == INDEX:
        before = page.read_text().partition(SECTION)[0].rstrip()
        return f"{before}\n\n{SECTION}\n\n{listing(page, sorted(ROOT.rglob('*.md')))}"
    if page.name == "README.md":
        title = "Modules" if page.parent == ROOT else f"Modules of {page.parent.name}"
        below = sorted(path for path in page.parent.rglob("*.md") if path != page)
        return f"# {title}\n\nWhat each of them promises, as its source says it.\n\n{listing(page, below)}"
    source = Path(*page.parts[2:]).with_suffix(".py")
    return describe(source) + (f"\n{USERS}\n\n{names(users_of(source))}\n" if users else "")


def listing(page: Path, pages: list[Path]) -> str:
    """Links from one page to others, each with its title."""
    titled = ((path, path.read_text().splitlines()[0].lstrip("# ")) for path in pages)
    return "".join(f"* [{title}]({os.path.relpath(path, page.parent)})\n" for path, title in titled)


def describe(source: Path) -> str:
    """A module: its docstring, what it has for others, and what it builds on."""
    tree = ast.parse(source.read_text())
    parts = [f"# {'.'.join(source.with_suffix('').parts)}", (ast.get_docstring(tree) or "").strip()]
    public = [f"* `{name}`: {said}" for name, said in definitions(tree)]
    parts += ["## For others", "\n".join(public) or "Nothing."]
    parts += ["## Built on", names(sorted(set(imports(tree))))]
    return "\n\n".join(parts) + "\n"


def definitions(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The public classes and functions with the first line of what is said of them."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, (ast.get_docstring(node) or "not described").splitlines()[0]


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules of ours that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LAYERS:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in LAYERS)


def users_of(source: Path) -> list[str]:
    """The modules of ours that import a module."""
    name = ".".join(source.with_suffix("").parts)
    files = sorted(path for layer in LAYERS for path in Path(layer).rglob("*.py"))
    return [".".join(path.with_suffix("").parts) for path in files if name in imports(ast.parse(path.read_text()))]


def names(modules: list[str]) -> str:
    """Modules in a line."""
    return ", ".join(f"`{module}`" for module in modules) or "Nothing of ours."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
