"""The notification command: run once for each new item of the inbox, by the town, beside everything else.

What was told is remembered in a small file of this clone. It is written after a command has ended well, so that a kill
in between repeats what was told and loses nothing; what failed is tried again later. Nothing here stops the town.

The program is the user's own: it runs as the user does, without a sandbox, because it has to reach a desktop or the
network. Who may name it is therefore bounded: only main's ``town.toml`` does, which no branch changes without a
person's approval, and it must not lie in the repository, where any branch could change what it does.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from beads.errors import InvalidInput, NotFound, TownError
from beads.files import publish
from beads.store import one_line
from refinery.gate import SETTINGS_FILE
from refinery.processes import Exit, Job
from roles.inbox import Item, facts, key
from roles.runtimes.stream import NET
from roles.settings import read_settings
from roles.site import Site

NOTIFY_SECONDS = 30.0
"""How long the command may take for one item."""

AGAIN_SECONDS = 30.0
"""How long nothing is told after the command has failed; twice as long each time."""

AGAIN_SECONDS_MAX = 3600.0
"""The longest that nothing is told so."""

LOOK_SECONDS = 5.0
"""How long an inbox counts whose store has not changed; time alone can bring something into it."""

SLOW_SECONDS = 0.5
"""A look into the inbox that takes longer than this, in a store of many thousands, is taken a tenth of the time."""

TOLD_FILE = "notified.json"
"""The file of a clone that says what was told, in the store's directory."""

LOG_FILE = "notify.log"
"""What the command printed the last time, beside it."""

TEXT = "{text}"
"""The argument that is replaced by the item as one line."""

DESKTOP = (
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "XDG_CURRENT_DESKTOP",
    "DBUS_SESSION_BUS_ADDRESS",
)
"""The variables by which a program finds the user's desktop."""

_TEXT_MAX = 300
_LOG_MAX = 1 << 20


def command_of(site: Site) -> tuple[str, ...]:
    """The command that main's ``town.toml`` names, its program with its whole path; empty when it names none.

    Raises:
        InvalidInput: main's file cannot be used, or something of the command lies in the repository.
        NotFound: there is no main, or no such program.
    """
    shown = site.git.run("show", f"{site.main_head()}:{SETTINGS_FILE}", ok=(0, 128))
    text = shown.out.encode("utf-8", "surrogateescape") if shown.status == 0 else b""
    named = read_settings(text, f"{site.settings.town.branch}:{SETTINGS_FILE}").town.notify
    if not named:
        return ()
    program = shutil.which(named[0], path=site.environ.get("PATH", os.defpath))
    if program is None:
        raise NotFound(f"[town] notify: {named[0]!r} is not on the PATH", "Install it, or write its whole path.")
    found = (program, *named[1:])
    ours = site.git.directory.resolve()
    inside = next((arg for arg in found if Path(arg).is_absolute() and Path(arg).resolve().is_relative_to(ours)), None)
    if inside is not None:
        message = f"[town] notify: {inside} is in the repository, where a branch could change what runs"
        raise InvalidInput(message, "Keep it somewhere else, such as in your home.")
    return found


def text_of(item: Item, site: Site) -> str:
    """An item as one line, which begins with words of ours, and so with no hyphen."""
    about = f" {item.bead_id} {item.title}" if item.bead_id else ""
    line = one_line(site.secrets.text(f"Needs you in {site.git.directory.name}:{about}: {item.reason}"))
    return line if len(line) <= _TEXT_MAX else f"{line[: _TEXT_MAX - 1]}…"


@dataclass
class Notifier:
    """Tells a person what is new in the inbox, one thing after the other, and never waits for it.

    Attributes:
        command: the program with its whole path, and its arguments.
        site: where it is about.
        marker: marks the command's processes, so that they can be found after this one's death.
        say: told one line when it fails.
        seconds: how long the command may take for one item.
    """

    command: Sequence[str]
    site: Site
    marker: str
    say: Callable[[str], None]
    seconds: float = NOTIFY_SECONDS
    _told: set[str] = field(init=False)
    _new: dict[str, Item] = field(default_factory=dict)
    _job: tuple[str, Job] | None = None
    _commit: str = ""
    _look_at: float = 0.0
    _rests_until: float = 0.0
    _behind: bool = False
    _not_before: float = 0.0
    _failures: int = 0

    def __post_init__(self) -> None:
        self._told = set(_remembered(self._file))

    @property
    def busy(self) -> bool:
        """Whether somebody is being told something, or there may be more to tell."""
        return self._behind or self._job is not None

    @property
    def ended(self) -> bool:
        """Whether the command has ended, which the next tick will see."""
        return self._job is not None and self._job[1].poll() is not None

    def tick(self, commit: str, items: Callable[[], Iterable[Item]]) -> None:
        """See what is new, and tell the next thing.

        Args:
            commit: the commit of the store; as long as it is the same, so is the inbox, but for the time.
            items: what is in the inbox; asked for when it is needed.
        """
        self._reap()
        now = self.site.clock.monotonic()
        self._behind = commit != self._commit
        if (self._behind or now >= self._look_at) and now >= self._rests_until:
            self._see({key(item): item for item in items()})
            self._commit, self._behind, took = commit, False, self.site.clock.monotonic() - now
            self._look_at = now + LOOK_SECONDS
            self._rests_until = now + 10 * took if took > SLOW_SECONDS else 0.0
        if self._job is None and self._new and now >= self._not_before:
            name, item = next(iter(self._new.items()))
            try:
                self._job = name, self._start(item)
            except TownError as error:
                self._fail(f"could not be run: {error.message}")

    def cancel(self) -> None:
        """Stop telling; what was not told to the end is told again."""
        if self._job is not None:
            self._job[1].cancel(grace=0.0)
            self._job = None

    @property
    def _file(self) -> Path:
        return self.site.store.directory / TOLD_FILE

    def _see(self, there: dict[str, Item]) -> None:
        # What is over is forgotten: when it comes back it is news.
        if self._told - there.keys():
            self._told &= there.keys()
            self._remember()
        self._new = {name: item for name, item in there.items() if name not in self._told}

    def _start(self, item: Item) -> Job:
        text = text_of(item, self.site)
        told = {**facts(item), "text": text, "repository": str(self.site.git.directory)}
        return self.site.machine.start(
            [text if argument == TEXT else argument for argument in self.command],
            cwd=self.site.store.directory,
            environ=self.site.surroundings((*DESKTOP, *NET)),
            log=self.site.store.directory / LOG_FILE,
            timeout=self.seconds,
            marker=self.marker,
            clock=self.site.clock,
            stdin=self.site.secrets.text(json.dumps(told)) + "\n",
            log_max=_LOG_MAX,
            secrets=self.site.secrets,
        )

    def _reap(self) -> None:
        exit = self._job[1].poll() if self._job else None
        if self._job is None or exit is None:
            return
        name, self._job = self._job[0], None
        if exit.kind == "exited" and exit.code == 0:
            self._failures = 0
            self._new.pop(name, None)
            self._told.add(name)
            self._remember()
        else:
            self._fail(f"took more than {self.seconds:g} s" if exit.kind == "timeout" else _how(exit))

    def _fail(self, how: str) -> None:
        """Say so, for once, and leave it for a while."""
        pause = min(AGAIN_SECONDS * 2.0**self._failures, AGAIN_SECONDS_MAX)
        self._not_before = self.site.clock.monotonic() + pause
        self._failures += 1
        if self._failures == 1:
            log = self.site.store.directory / LOG_FILE
            self.say(f"notify: {self.command[0]} {how}; it is tried again later, and {log} has what it printed")

    def _remember(self) -> None:
        data = json.dumps({"told": sorted(self._told)}, indent=1).encode() + b"\n"
        try:
            publish(str(self._file), lambda f: f.write(data), prefix="tmp_", sync=os.fsync, share=lambda _: None)
        except OSError as error:
            self.say(f"notify: {self._file} cannot be written, so that something may be told twice: {error.strerror}")


def _how(exit: Exit) -> str:
    match exit.kind:
        case "signalled":
            return f"was killed by signal {exit.signal}"
        case "unrunnable":
            return "could not be run"
        case _:
            return f"ended with {exit.code}"


def _remembered(path: Path) -> list[str]:
    """What was told before; nothing where that cannot be read, so that it is told again."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []
    told = said.get("told", []) if isinstance(said, dict) else []
    return [one for one in told if isinstance(one, str)] if isinstance(told, list) else []
