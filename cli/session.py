"""What one run of a command knows of the world around it, and the kinds of command that share it.

Environment, working directory, clock and identity are found here and passed down. Nothing of ours is imported
at the top: `bead --help` and completion must not pay for what they do not use.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from pydantic import BaseModel

    from beads.clock import Clock
    from beads.errors import NotFound
    from beads.model import Bead, Lease
    from beads.ops import Operation
    from beads.store import Decision, Snapshot, Store, Written

Model = TypeVar("Model", bound="BaseModel")

ACTOR_VARIABLE = "BEADTOWN_ACTOR"

_COMPLETIONS_MAX = 100

# Among how many ids the nearest to a mistyped one is looked for; comparing takes a while.
_NEAR_MAX = 10_000


class Session:
    """One run of a command: where it runs, who acts, and how it answers.

    Attributes:
        directory: what ``-C`` said, or None for the working directory.
        named: what ``--actor`` said, or empty.
        json: whether answers and errors are JSON.
        debug: whether errors come with their traceback.
        environ: the environment.
    """

    def __init__(self) -> None:
        self.directory: Path | None = None
        self.named = ""
        self.json = False
        self.debug = False
        self.environ: Mapping[str, str] = os.environ

    @functools.cached_property
    def start(self) -> Path:
        """The directory the command works in."""
        if self.directory is not None:
            return self.directory
        try:
            return Path.cwd()
        except FileNotFoundError as error:
            from beads.errors import Unreadable

            raise Unreadable("the working directory is gone", "Go to one that is there, or name it with -C.") from error

    @functools.cached_property
    def clock(self) -> Clock:
        """The clock that everything below is given."""
        from beads.clock import SystemClock

        return SystemClock()

    @functools.cached_property
    def store(self) -> Store:
        """The store of the repository around :attr:`start`."""
        from beads.store import Store
        from cli.clone import known_name

        store = Store.open(self.start, self.clock)
        store.site = known_name(store.directory)
        store.lives = functools.partial(_lives, store)
        if sys.stderr.isatty() and not self.json:
            store.repository.tell = tell
        return store

    @functools.cached_property
    def actor(self) -> str:
        """Who acts: ``--actor``, else ``$BEADTOWN_ACTOR``, else who Git says that you are here."""
        given = (self.named or self.environ.get(ACTOR_VARIABLE, "")).strip()
        # Bytes of the command line that are no text cannot be stored.
        return given.encode(errors="replace").decode() or _git_identity(self.start) or _user()

    def now(self) -> datetime:
        """The moment, as the store keeps it."""
        from beads.clock import milliseconds

        return milliseconds(self.clock.now())

    def commit(self, operations: Sequence[Operation] | Decision, reason: str = "") -> Written:
        """Publish operations as one transaction of :attr:`actor`.

        What an agent was handed as a secret is taken out of what it says here, and it has no word in conversations.

        Raises:
            Refused: a worker's process would speak for a person, or for the Mayor.
        """
        from refinery.redaction import HANDED

        names = self.environ.get(HANDED, "").split()
        if not names and not started_by():
            return self.store.commit(self.actor, operations, reason)
        from refinery.sandbox import secrets

        hidden = secrets(self.environ, names)

        def decide(snapshot: Snapshot) -> list[Operation]:
            decided = operations(snapshot) if callable(operations) else operations
            if any(_is_speech(snapshot, each) for each in decided):
                only_a_person("change what is said to the Mayor, and by it")
            return [type(each).model_validate_json(hidden.text(each.model_dump_json())) for each in decided]

        return self.store.commit(self.actor, decide, reason)

    def find(self, snapshot: Snapshot, bead_id: str) -> Bead:
        """The bead of that id; a mistyped one is met with the id that is nearest to it.

        Raises:
            NotFound: there is none, or it was deleted; says when and by whom.
        """
        found = snapshot.get(bead_id)
        if found is not None:
            if found.deleted:
                raise _gone(self.store, snapshot, found)
            return found
        import difflib

        from beads.errors import NotFound

        near = difflib.get_close_matches(bead_id, [other for other, _ in snapshot.ids(limit=_NEAR_MAX)], n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise NotFound(f"there is no bead {bead_id!r}", f"{hint}`bead list --all` shows what there is.")


class Command(click.Command):
    """A command that takes the options every command takes; use :func:`command` to make one."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        own = {name for parameter in self.params for name in parameter.opts}
        # A command may have a use of its own for such a name; the common one then stays before the command.
        self.params += [option for option in common_options(hidden=True) if own.isdisjoint(option.opts)]


class Group(click.Group):
    """A command with commands below it, listed in the order they are written in."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of definition."""
        del ctx
        return list(self.commands)


def command(name: str, **attributes: Any) -> Callable[[Callable[..., None]], Command]:
    """Make a function a command; its first argument is the :class:`Session` with ``@click.pass_obj``."""
    return click.command(name, cls=Command, **attributes)


def group(name: str, **attributes: Any) -> Callable[[Callable[..., None]], Group]:
    """Make a function a group of commands, to which ``@name.command("…")`` adds."""
    return click.group(name, cls=Group, **attributes)


def common_options(*, hidden: bool) -> list[click.Parameter]:
    """The options that are understood at every place of a command line, before the command and after it.

    Args:
        hidden: leave all but ``--json`` out of the help, where they would be noise.
    """
    directory = click.Path(exists=True, file_okay=False, path_type=Path)
    actor = f"Who acts [${ACTOR_VARIABLE}; Git]."
    return [
        _option("-C", "--directory", type=directory, help="Work there instead of here.", hidden=hidden),
        _option("--actor", "named", metavar="NAME", help=actor, hidden=hidden),
        _option("--json", "json", is_flag=True, help="Answer in JSON, errors too."),
        _option("--debug", is_flag=True, help="Show where an error came from.", hidden=hidden),
    ]


def _option(*names: str, **attributes: Any) -> click.Option:
    return click.Option(names, expose_value=False, callback=_remember, **attributes)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    session = context.ensure_object(Session)
    # What was not given here must not undo what was given before the command.
    if value and parameter.name:
        setattr(session, parameter.name, value)


class BeadId(click.ParamType):  # type: ignore[type-arg]  # It is generic only in later releases of click.
    """A bead's id as an argument, completed from the store."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id, if it is one."""
        del param, ctx
        from beads.ids import check_id

        return check_id(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids that start so, with their titles."""
        del param
        from click.shell_completion import CompletionItem

        from beads.errors import TownError
        from beads.toml import loads

        try:
            found = ctx.ensure_object(Session).store.snapshot().ids(incomplete, _COMPLETIONS_MAX)
            return [CompletionItem(bead_id, help=str(loads(data, bead_id)["title"])) for bead_id, data in found]
        except TownError:
            # A shell that is completing has no place to show an error in.
            return []


BEAD_ID = BeadId()


def asked(model: type[Model], what: str, /, **facts: Any) -> Model:
    """An operation or another value of ours, or an error that names what does not fit in it.

    Args:
        model: its type.
        what: what to call it in an error.
        facts: its fields.
    """
    from beads.toml import validate

    return validate(model, facts, b"", what)


def given_text(text: str, what: str) -> str:
    """``text`` itself, or for ``-`` all of standard input, byte for byte.

    Raises:
        InvalidInput: standard input is not UTF-8.
    """
    if text != "-":
        return text
    # The text stream would make LF of every CR LF.
    data = sys.stdin.buffer.read()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        from beads.errors import InvalidInput

        raise InvalidInput(
            f"{what} on standard input is not UTF-8: byte {error.start} is {data[error.start]:#04x}"
        ) from error


def only_a_person(what: str) -> None:
    """Refuse to do it for a process that a worker of the town has started.

    This keeps honest agents from taking what is a person's to decide. One that clears its environment first, or writes
    into ``.git``, is kept by the sandbox.

    Raises:
        Refused: this is such a process.
    """
    worker = started_by()
    if worker:
        from beads.errors import Refused

        raise Refused(f"only a person can {what}, and this was started by {worker}", "Run it in a shell of your own.")


def started_by() -> str:
    """The worker of the town that has started this process; empty when a person has."""
    from refinery.strays import MARKER

    return os.environ.get(MARKER, "").rpartition("/")[2]


def _is_speech(snapshot: Snapshot, operation: Operation) -> bool:
    """Whether an operation makes or changes a conversation, or something that is said in one."""
    from beads.ops import Create, Import, Intend, Land, Restore
    from beads.speech import SPEECH

    if isinstance(operation, Create | Import):
        return operation.bead.issue_type in SPEECH
    if isinstance(operation, Intend | Land):
        return False
    touched = [each.after.id for each in operation.beads] if isinstance(operation, Restore) else [operation.id]
    found = (snapshot.get(bead_id) for bead_id in touched if bead_id)
    return any(bead is not None and bead.issue_type in SPEECH for bead in found)


def _gone(store: Store, snapshot: Snapshot, bead: Bead) -> NotFound:
    """That a bead was deleted, by whom and why, and how to see it again."""
    from beads.errors import NotFound
    from beads.history import deletion

    entry = deletion(store.repository, snapshot.commit, bead.id)
    when, reason = f" on {bead.closed_at:%Y-%m-%d %H:%M} UTC" if bead.closed_at else "", bead.close_reason
    if entry is None:
        return NotFound(f"{bead.id} was deleted{when}", f"`bead log {bead.id}` shows what it was.")
    commit = entry.commit[:12]
    return NotFound(
        f"{bead.id} was deleted{when} by {entry.actor}{': ' if reason else ''}{reason}",
        f"`bead show {bead.id} --at {commit}~1` shows what it was, `bead undo --transaction {commit}` brings it back.",
    )


def tell(text: str) -> None:
    """Show on one line of the terminal how far something is that takes long; an empty text wipes it away."""
    click.echo(f"\r\x1b[K{text}", nl=False, err=True)


def _git_identity(start: Path) -> str:
    """``Name <address>`` as Git would sign a commit there, or nothing when it does not know."""
    import subprocess

    try:
        done = subprocess.run(
            ["git", "-C", str(start), "var", "GIT_AUTHOR_IDENT"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError:
        return ""
    found = re.match(r"(.*<.*>) \d+ [+-]\d{4}$", done.stdout.decode(errors="replace").strip())
    return found.group(1) if found and done.returncode == 0 else ""


def _lives(store: Store, lease: Lease) -> bool:
    """Whether the holder of a lease is a living process here; asked only of one that has run out."""
    from beads import liveness

    return liveness.lives(store.directory / liveness.WORKERS, store.site, lease)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"
