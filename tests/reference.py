"""Write ``docs/commands.md`` from the commands' own help: ``python -m tests.reference --write``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import click

from beads import errors
from tests.world import ROOT

PAGE = ROOT / "docs" / "commands.md"
WIDTH = 100

INTRODUCTION = """\
# Commands

<!-- Written by `make fix` from the commands' own --help; change it there. -->

`bead` keeps the issues, `town` runs the roles. Both work in the Git repository that you stand in.

## Exit codes

| code | means |
|---|---|
| 0 | Everything was done. |
"""


class Command(NamedTuple):
    """A command as it is typed, what ``--help`` prints for it, and its long options."""

    path: str
    help: str
    is_group: bool
    options: frozenset[str]


def commands() -> list[Command]:
    """Every command there is, groups before what is in them, in the order their help lists them."""
    from cli.main import bead, town  # Not above: a broken command line must fail the tests, not their collection.

    return [found for group, name in ((bead, "bead"), (town, "town")) for found in _walk(group, name, None)]


def page() -> str:
    """The text that ``docs/commands.md`` must have."""
    sections = [f"{_heading(found)}\n\n```text\n{found.help}\n```\n" for found in commands()]
    return "\n".join([INTRODUCTION + _exit_codes(), *sections])


def main(arguments: list[str]) -> int:
    """Print the page, or write it with ``--write``."""
    if arguments == ["--write"]:
        PAGE.write_text(page(), "utf-8")
    else:
        sys.stdout.write(page())
    return 0


def _walk(command: click.Command, path: str, parent: click.Context | None) -> Iterator[Command]:
    # The path is the whole name only at the top: click puts the parents' names before a command's own.
    context = click.Context(
        command, parent, info_name=path.split()[-1], terminal_width=WIDTH, max_content_width=WIDTH, color=False
    )
    options = frozenset(name for param in command.params for name in (*param.opts, *param.secondary_opts))
    yield Command(path, click.unstyle(command.get_help(context)).rstrip(), isinstance(command, click.Group), options)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _walk(child, f"{path} {name}", context)


def _heading(command: Command) -> str:
    return f"{'##' if ' ' not in command.path else '###'} {command.path}"


def _exit_codes() -> str:
    kinds: list[type[errors.TownError]] = [errors.TownError, *errors.TownError.__subclasses__()]
    said = {kind.exit_code: (kind.__doc__ or "").splitlines()[0] for kind in kinds}
    return "".join(f"| {code} | {said[code]} |\n" for code in sorted(said))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
