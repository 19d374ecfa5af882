"""The two commands, ``bead`` and ``town``: which there are, and what happens when something goes wrong.

A command is a name and where its code is, as ``module:attribute``; the module is imported when the command is
used, so that none pays for another. Errors become a message, a hint and an exit code here and nowhere else.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from cli.session import Session, common_options

Sections = Mapping[str, Mapping[str, str]]

BEAD_COMMANDS: Sections = {
    "Look": {
        "ready": "cli.bead:ready",
        "list": "cli.bead:list_",
        "show": "cli.bead_show:show",
        "why": "cli.bead_show:why",
        "blocked": "cli.bead:blocked",
        "search": "cli.bead:search",
        "stats": "cli.bead:stats",
        "log": "cli.bead_history:log",
        "path": "cli.bead_show:path",
    },
    "Change": {
        "create": "cli.bead_write:create",
        "update": "cli.bead_write:update",
        "comment": "cli.bead_write:comment",
        "label": "cli.bead_write:label",
        "dep": "cli.bead_dep:dep",
        "delete": "cli.bead_write:delete",
        "undo": "cli.bead_history:undo",
        "formula": "cli.bead_formula:formula",
        "pour": "cli.bead_bulk:pour",
        "batch": "cli.bead_bulk:batch",
    },
    "Work": {
        "claim": "cli.bead_write:claim",
        "release": "cli.bead_write:release",
        "close": "cli.bead_write:close",
        "reopen": "cli.bead_write:reopen",
    },
    "Keep": {
        "init": "cli.bead_store:init",
        "import": "cli.bead_exchange:import_",
        "export": "cli.bead_exchange:export",
        "sync": "cli.bead_sync:sync",
        "gc": "cli.bead_store:gc",
        "doctor": "cli.bead_store:doctor",
        "prime": "cli.bead_store:prime",
        "completion": "cli.bead_store:completion",
    },
}

TOWN_COMMANDS: Sections = {
    "Begin": {
        "init": "cli.town:init",
        "demo": "cli.town:demo",
        "doctor": "cli.town:doctor",
    },
    "Work": {
        "mayor": "cli.town_mayor:mayor",
        "up": "cli.town:up",
        "stop": "cli.town:stop",
        "attach": "cli.town_attach:attach",
        "approve": "cli.town_decide:approve",
        "reject": "cli.town_decide:reject",
        "answer": "cli.town_decide:answer",
        "retry": "cli.town_decide:retry",
        "revert": "cli.town_revert:revert",
    },
    "Look": {
        "status": "cli.town:status",
        "inbox": "cli.town_inbox:inbox",
        "queue": "cli.town_queue:queue",
        "flakes": "cli.town_flakes:flakes",
        "log": "cli.town_log:log",
        "costs": "cli.town_costs:costs",
    },
    "Roles by hand": {
        "polecat": "cli.town:polecat",
        "witness": "cli.town:witness",
        "refinery": "cli.town:refinery",
    },
}

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the signal's number, as shells have it."""

READER_GONE = 141
"""The exit code when whoever read our output stopped reading, as in ``bead list | head``."""


class Root(click.Group):
    """A command whose commands are imported when they are used, and the one place that reports errors."""

    def __init__(self, name: str, sections: Sections, help: str) -> None:
        super().__init__(name, help=help, params=[*common_options(hidden=False), _version_option()])
        self._sections = sections
        self._places = {command: place for commands in sections.values() for command, place in commands.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the sections."""
        del ctx
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module and return the command."""
        del ctx
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, attribute = place.split(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a command that does not exist is met with the nearest one that does."""
        if args[0] not in self._places and not args[0].startswith("-") and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(args[0], self._places, n=1)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, with one line of help for each."""
        width = formatter.width - 6 - max(map(len, self._places))
        for title, names in self._sections.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name, c.get_short_help_str(width)) for name, c in commands if c is not None])

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; what its function returns is nobody's business."""
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Not left to click, which would call it a failure, nor to the interpreter, which would complain.
            _discard_output()
            ctx.exit(READER_GONE)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run with these arguments and end the process with the exit code that fits."""
        arguments = list(sys.argv[1:] if args is None else args)
        name = prog_name or self.name

        def run() -> Any:
            return super(Root, self).main(arguments, name, complete_var, standalone_mode=False, **extra)

        if not standalone_mode:
            return run()
        _speak_utf8()
        _without_plugins()
        # A short command makes little garbage, and to look for it while modules are imported takes a tenth of its time.
        gc.set_threshold(50_000, 10, 10)
        # At the end it would be looked for once more, in all that was ever imported, by a process that is about to go.
        atexit.register(gc.freeze)
        sys.exit(_guard(run, arguments))


def _version_option() -> click.Option:
    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
    )


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    if not value or context.resilient_parsing:
        return
    from importlib import metadata

    try:
        version = metadata.version("beadtown")
    except metadata.PackageNotFoundError:
        version = "(not installed, run from source)"
    click.echo(f"{context.find_root().info_name} {version}")
    context.exit()


class _Failure(NamedTuple):
    """What there is to say about an error."""

    message: str
    hint: str
    exit_code: int


def _guard(run: Callable[[], Any], arguments: Sequence[str]) -> int:
    """Run, report what goes wrong, and return the exit code."""
    try:
        code = run()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - This is the one place where every error ends.
        failure = _explain(error)
        with contextlib.suppress(BrokenPipeError):
            _report(failure, error, arguments)
        return failure.exit_code
    return code if isinstance(code, int) else 0


def _explain(error: BaseException) -> _Failure:
    from beads.errors import TownError

    match error:
        case TownError():
            return _Failure(error.message, error.hint, error.exit_code)
        case KeyboardInterrupt() | click.Abort(__context__=KeyboardInterrupt()):
            return _Failure("interrupted", "", INTERRUPTED)
        case click.Abort():
            return _Failure("aborted", "", 1)
        case click.UsageError(ctx=click.Context() as context):
            usage = context.get_usage().removeprefix("Usage: ")
            hint = f"Usage: {usage}; `{context.command_path} --help` says more."
            return _Failure(error.format_message().rstrip("."), hint, error.exit_code)
        case click.ClickException():
            return _Failure(error.format_message().rstrip("."), "", error.exit_code)
        case OSError():
            return _Failure(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), "", 1)
        case _:
            what = f"internal error: {type(error).__name__}: {error}"
            return _Failure(f"{what}, run again with --debug", "", 1)


def _report(failure: _Failure, error: BaseException, arguments: Sequence[str]) -> None:
    """Say on standard error what went wrong, in words or as JSON."""
    import traceback

    # The arguments themselves are asked, because they may be what was wrong, and then no option was read.
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    trace = "".join(traceback.format_exception(error)) if "--debug" in options else ""
    if "--json" in options:
        from cli.render import json_text

        body: dict[str, object] = {"error": failure.message, "hint": failure.hint, "exit_code": failure.exit_code}
        click.echo(json_text({**body, "traceback": trace} if trace else body), err=True)
        return
    from cli.render import printable

    click.echo(printable(f"{trace}error: {failure.message}"), err=True)
    if failure.hint:
        click.echo(printable(f"hint: {failure.hint}"), err=True)


def _without_plugins() -> None:
    """Keep pydantic from looking through everything that is installed for plugins: it takes as long as a command."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Where none are wanted, what finds them is not needed either; it imports a mail reader, among others.
    loader: Any = types.ModuleType("pydantic.plugin._loader")
    loader.get_plugins = tuple
    sys.modules.setdefault(loader.__name__, loader)


def _speak_utf8() -> None:
    """Print UTF-8 whatever the locale, as Git does: JSON has to be, and no answer may fail over an arrow."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _discard_output() -> None:
    """Send what is still buffered for standard output nowhere, so that the interpreter's last flush succeeds."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


bead = Root(
    "bead",
    BEAD_COMMANDS,
    """Issues in a Git ref: create them, see what is ready, claim, prove, close.

    They live in refs/beads/main of the repository that you stand in, one commit for each change; `git log
    refs/beads/main` reads them without this program. The exit code says how it went: 0 done, 2 usage, 3 not
    found, 4 lost a race, 5 refused by a rule, 6 unreadable, 7 something needs a person.

    \b
    Example:
      bead init
      bead create "Add slugify()" --criterion "run: pytest -q tests/test_slug.py"
      bead ready
    """,
)

town = Root(
    "town",
    TOWN_COMMANDS,
    """Turn requests into landed commits with agents that may crash, stall, or be wrong about being done.

    The Mayor plans, polecats work, the Witness mends, and the Refinery lands on main what its gate proved.

    \b
    Example:
      town init
      town mayor --plan plan.toml
      town up --until-idle
    """,
)

__all__ = ["BEAD_COMMANDS", "TOWN_COMMANDS", "Root", "Session", "bead", "town"]
